"""A site's patients as the plan wants them: read, held against the plan, cut at its horizon, divided by its rule."""

from dataclasses import dataclass, replace

import numpy as np

from pathoml.cohort import Cohort, examine_cohort
from pathoml.covariates import CategoricalCovariate, Covariate, NumericCovariate
from pathoml.errors import BagError, FederationError, Problem, RefusalCode, RefusedError
from pathoml.federated.plan import FeaturesSettings, Plan, PlanBlock, TestColumn, TestShare
from pathoml.federated.site_settings import SiteSettings
from pathoml.federated.site_sums import word_covariates
from pathoml.manifest import examine_manifest, join_slides, unknown_patients
from pathoml.mil.patients import PatientFeatures, load_features
from pathoml.tables import read_text_table
from pathoml.units import BoolArray, IntArray


@dataclass(frozen=True)
class SiteData:
    """A site's patients, divided.

    Parameters
    ----------
    cohort : Cohort
        Follow-up ends at the plan's horizon; covariates are named as in the plan.
    features : PatientFeatures or None
        Tiles; None for a plan without features.
    train, validation, test : tuple of str
        Patient ids.
    """

    cohort: Cohort
    features: PatientFeatures | None
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class SiteReading:
    """A site's data as far as they fit the plan.

    Parameters
    ----------
    data : SiteData or None
        None if they cannot be used at all.
    problems : tuple of (RefusalCode, Problem)
        What is wrong, and the code that the coordinator would be told.
    warnings : tuple of Problem
        What is worth a look, such as words that the plan does not list.
    """

    data: SiteData | None
    problems: tuple[tuple[RefusalCode, Problem], ...]
    warnings: tuple[Problem, ...]


def load_site(settings: SiteSettings, plan: Plan) -> SiteData:
    """Read a site's data for a plan.

    Parameters
    ----------
    settings : SiteSettings
        Where they lie.
    plan : Plan
        What is wanted.

    Returns
    -------
    SiteData
        Ready for training.

    Raises
    ------
    RefusedError
        If they do not fit, with everything that is wrong for the site's own log.
    """
    reading = examine_site(settings, plan)
    # Whether there are enough patients is for each answer to judge: a site with few of them can still be told a model.
    problems = [one for one in reading.problems if one[0] is not RefusalCode.TOO_FEW_PATIENTS]
    if reading.data is None or problems:
        words = "; ".join(str(problem) for _, problem in problems)
        raise RefusedError(f"site {settings.name}: {words}", problems[0][0])
    return reading.data


def examine_site(settings: SiteSettings, plan: Plan) -> SiteReading:
    """Read a site's data and note all that does not fit the plan.

    Parameters
    ----------
    settings : SiteSettings
        Where they lie.
    plan : Plan
        What is wanted.

    Returns
    -------
    SiteReading
        Whole or in part.
    """
    problems: list[tuple[RefusalCode, Problem]] = []
    if settings.name not in plan.sites:
        found = Problem("name", f"{settings.name} is not a site of plan {plan.name}, which has {', '.join(plan.sites)}")
        problems.append((RefusalCode.BAD_DATA, found))
    if against := settings.limits.against(plan):
        problems.append((RefusalCode.LIMIT_OF_SITE, Problem("limits.epsilon", against)))
    reading = examine_patients(settings, plan)
    problems += reading.problems
    if reading.cohort is None or problems:
        return SiteReading(None, tuple(problems), reading.warnings)
    data = divide(reading.cohort, reading.features, plan, reading.is_test)
    return SiteReading(data, tuple(_too_few(data, settings, plan)), reading.warnings)


@dataclass(frozen=True)
class PatientsReading:
    """Patients of one or several hospitals as far as they fit a plan, not yet divided.

    Parameters
    ----------
    cohort : Cohort or None
        Covariates named as in the plan; None if the table cannot be used.
    features : PatientFeatures or None
        Tiles; None for a plan without features.
    is_test : ndarray of bool, shape (patients,), or None
        Who is never trained on, where the plan names a column.
    problems : tuple of (RefusalCode, Problem)
        What is wrong.
    warnings : tuple of Problem
        What is worth a look.
    """

    cohort: Cohort | None
    features: PatientFeatures | None
    is_test: BoolArray | None
    problems: tuple[tuple[RefusalCode, Problem], ...]
    warnings: tuple[Problem, ...]


def examine_patients(settings: SiteSettings, plan: Plan) -> PatientsReading:
    """Read a table, and bags, as a plan wants them.

    Parameters
    ----------
    settings : SiteSettings
        Where they lie; the name is not looked at.
    plan : Plan
        What is wanted.

    Returns
    -------
    PatientsReading
        Whole or in part.
    """
    problems: list[tuple[RefusalCode, Problem]] = []
    if settings.cohort.endpoint != plan.endpoint:
        words = f"the site's is '{settings.cohort.endpoint}', the plan's '{plan.endpoint}'; are they one thing?"
        problems.append((RefusalCode.OTHER_ENDPOINT, Problem("cohort.endpoint", words)))
    reading = examine_cohort(settings.cohort.model_copy(update={"covariates": _covariates_of(plan, settings)}))
    problems += [_coded(problem) for problem in reading.problems]
    if reading.cohort is None or problems:
        return PatientsReading(None, None, None, tuple(problems), ())
    back = {own: name for name, own in settings.columns.items()}
    cohort = replace(reading.cohort, covariates=reading.cohort.covariates.rename(columns=back))
    unlisted, unknown = _unlisted_words(cohort, plan)
    problems += unknown
    warnings = (*cohort.warnings, *unlisted)
    cohort, features, of_slides, without_bags = _with_slides(replace(cohort, warnings=()), settings, plan)
    problems += of_slides
    warnings = (*warnings, *without_bags)
    is_test = None
    try:
        is_test = _named_test(settings, plan, cohort)
    except FederationError as error:
        problems.append((RefusalCode.BAD_DATA, Problem("test", str(error))))
    return PatientsReading(cohort, features, is_test, tuple(problems), warnings)


def divide(
    cohort: Cohort, features: PatientFeatures | None, plan: Plan, is_test: BoolArray | None = None
) -> SiteData:  # fmt: skip
    """Cut follow-up at the plan's horizon and divide the patients by its rule.

    Parameters
    ----------
    cohort : Cohort
        Covariates named as in the plan.
    features : PatientFeatures or None
        Tiles; patients without are left out.
    plan : Plan
        With its rule, and seed.
    is_test : ndarray of bool, shape (patients,), optional
        Who is never trained on, where the plan names a column.

    Returns
    -------
    SiteData
        The same patients always give the same division, whatever their order in the table.

    Raises
    ------
    FederationError
        If the plan names a column for the test patients and none is given.
    """
    late = cohort.time_days > plan.horizon_days
    cohort = replace(
        cohort,
        time_days=np.minimum(cohort.time_days, plan.horizon_days),
        event=np.where(late, 0, cohort.event).astype(np.int64),
    )
    used = np.array(
        [features is None or name in features.of_patient for name in cohort.patient_id.tolist()], dtype=bool
    )
    order = np.argsort(cohort.patient_id)
    order = order[used[order]]
    dealer = np.random.default_rng(plan.seed)
    if is_test is not None:
        test = is_test
    elif isinstance(plan.test, TestShare):
        test = _drawn(cohort, order, plan.test.share, dealer)
    else:
        raise FederationError(f"the plan names column {plan.test.column} for the test patients, which is not given")
    rest = order[~test[order]]
    validation = _drawn(cohort, rest, plan.validation_share, dealer)
    names = cohort.patient_id
    return SiteData(
        cohort,
        features,
        tuple(names[rest[~validation[rest]]].tolist()),
        tuple(names[rest[validation[rest]]].tolist()),
        tuple(names[order[test[order]]].tolist()),
    )


def _drawn(cohort: Cohort, rows: IntArray, share: float, dealer: np.random.Generator) -> BoolArray:
    chosen = np.zeros(len(cohort), dtype=bool)
    for outcome in (1, 0):
        group = dealer.permutation(rows[cohort.event[rows] == outcome])
        chosen[group[: round(share * len(group))]] = True
    return chosen


def _coded(problem: Problem) -> tuple[RefusalCode, Problem]:
    """Tell what is wrong with the plan's covariates here from what is wrong with the table itself."""
    if problem.key[:2] != ("cohort", "covariates"):
        return RefusalCode.BAD_DATA, problem
    remedy = "where the table calls a column of the plan otherwise, `columns:` in the site's file says so"
    return RefusalCode.OTHER_COVARIATES, replace(problem, message=f"{problem.message}; {remedy}")


def _covariates_of(plan: Plan, settings: SiteSettings) -> tuple[Covariate, ...]:
    found: list[Covariate] = []
    for one in plan.covariates:
        if isinstance(one, PlanBlock):
            found += [NumericCovariate(column=settings.columns.get(name, name)) for name in one.columns]
        elif isinstance(one, NumericCovariate):
            found.append(NumericCovariate(column=settings.columns.get(one.column, one.column)))
        else:
            found.append(CategoricalCovariate(column=settings.columns.get(one.column, one.column)))
    return tuple(found)


def _with_slides(
    cohort: Cohort, settings: SiteSettings, plan: Plan
) -> tuple[Cohort, PatientFeatures | None, list[tuple[RefusalCode, Problem]], list[Problem]]:  # fmt: skip
    if plan.features is None:
        return cohort, None, [], []
    if settings.slides is None:
        missing = Problem("slides", "the plan trains on tile features, and the site names no slides")
        return cohort, None, [(RefusalCode.OTHER_FEATURES, missing)], []
    entries, found = examine_manifest(settings.slides)
    found = list(found) + unknown_patients(entries, set(cohort.patient_id), settings.slides.manifest.name)
    if found:
        return cohort, None, [(RefusalCode.BAD_DATA, problem) for problem in found], []
    cohort = join_slides(cohort, entries, settings.slides.manifest.name)
    present = [entry.slide_id for entry in entries if (settings.slides.bags / f"{entry.slide_id}.h5").is_file()]
    try:
        features = load_features(cohort, settings.slides.bags, present)
    except BagError as error:
        return cohort, None, [(RefusalCode.OTHER_FEATURES, Problem("slides.bags", str(error)))], []
    different = _other_features(features, plan.features)
    return (
        cohort,
        features,
        [(RefusalCode.OTHER_FEATURES, problem) for problem in different],
        _without_bags(cohort, set(present)),
    )


def _other_features(features: PatientFeatures, wanted: FeaturesSettings) -> list[Problem]:
    found = {**vars(features.spec), "dim": features.dim}
    return [
        Problem(
            "slides.bags",
            f"{name} of the bags is {value}, the plan's features.{name} is {getattr(wanted, name)}; bags of all sites are "
            "made with one configuration (encoder, tissue, tiling, extract, quality, stain): ask the coordinator for it and "
            "extract again",
        )
        for name, value in found.items()
        if value != getattr(wanted, name)
    ]


def _without_bags(cohort: Cohort, present: set[str]) -> list[Problem]:
    """Name slides that have no bag: patients without any are not trained on as if they had slides."""
    lacking = {
        patient: [one.slide_id for one in entries if one.slide_id not in present]
        for patient, entries in cohort.slides.items()
    }
    missing = [name for names in lacking.values() for name in names]
    if not missing:
        return []
    shown = ", ".join(missing[:5])
    patients = sum(len(names) == len(cohort.slides[patient]) for patient, names in lacking.items())
    count = sum(map(len, cohort.slides.values()))
    message = (
        f"{len(missing)} of {count} slides have no bag ({shown}{', ...' if len(missing) > 5 else ''}); {patients} "
        "patient(s) are left with none and take no part; `pathoml extract` makes those that are missing"
    )
    return [Problem("slides.bags", message)]


def _unlisted_words(cohort: Cohort, plan: Plan) -> tuple[list[Problem], list[tuple[RefusalCode, Problem]]]:
    """Point out words that the plan does not list, and refuse a column of which it lists none."""
    warnings, problems = [], []
    for one in word_covariates(plan):
        words = cohort.covariates[one.column].astype(str)
        other = words[~words.isin((*one.words, ""))]
        if not len(other):
            continue
        shown, listed = ", ".join(repr(word) for word in sorted(set(other))[:5]), ", ".join(map(repr, one.words))
        remedy = f"write them in the table as the plan does: {listed}"
        if words.isin(one.words).any() or not one.words:
            message = (
                f"{len(other)} patient(s) have {shown}, which the plan does not list; they count as missing; {remedy}"
            )
            warnings.append(Problem(one.column, message))
        else:
            found = Problem(one.column, f"the plan lists none of its words ({shown}); {remedy}")
            problems.append((RefusalCode.OTHER_COVARIATES, found))
    return warnings, problems


def _named_test(settings: SiteSettings, plan: Plan, cohort: Cohort) -> BoolArray | None:
    if not isinstance(plan.test, TestColumn):
        return None
    column = settings.columns.get(plan.test.column, plan.test.column)
    table = read_text_table(settings.cohort.table)
    if column not in table.columns:
        raise FederationError(
            f"the plan names column {column} for the test patients, which {settings.cohort.table.name} lacks"
        )
    named = set(table.loc[table[column].str.strip() == plan.test.value, settings.cohort.patient_id])
    return np.array([name in named for name in cohort.patient_id.tolist()], dtype=bool)


def _too_few(data: SiteData, settings: SiteSettings, plan: Plan) -> list[tuple[RefusalCode, Problem]]:
    patients = len(data.train)
    events = int(data.cohort.event[data.cohort.rows_of(data.train)].sum())
    least, fewest = settings.limits.patients_for(plan), settings.limits.events_for(plan)
    if patients >= least and events >= fewest:
        return []
    message = f"{patients} training patients with {events} events; nothing is said of fewer than {least} with {fewest}"
    return [(RefusalCode.TOO_FEW_PATIENTS, Problem("cohort", message))]
