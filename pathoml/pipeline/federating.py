"""What the federation's commands do: check and rehearse at a site, approve, simulate, score."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pathoml.config import load_config
from pathoml.errors import CohortError, FederationError, InputError, Problem
from pathoml.federated.approvals import Approvals
from pathoml.federated.compare import Comparison, compare
from pathoml.federated.coordinator import FederationResult, run_evaluation, run_federation
from pathoml.federated.membership import guaranteed_rate
from pathoml.federated.messages import Message, from_bytes, to_bytes
from pathoml.federated.method_settings import EvaluationSettings, RoundsSettings
from pathoml.federated.plan import Plan
from pathoml.federated.privacy_plan import delta_of
from pathoml.federated.simulate import simulate, site_name, split_cohort
from pathoml.federated.site import STATE_FOLDER, Site
from pathoml.federated.site_data import SiteData, SiteReading, examine_patients, examine_site, load_site
from pathoml.federated.site_settings import DEFAULT_LIMITS, LimitsSettings, SiteSettings, read_site
from pathoml.federated.transport import Answering
from pathoml.federated.workbench import require_not_trained_on, scored_patients, trained_before
from pathoml.files import make_folder, write_json, write_text
from pathoml.package_files import read_package_files
from pathoml.packages import load_package
from pathoml.pipeline.federation_pages import write_page
from pathoml.pipeline.stages import StageContext
from pathoml.train import follow_up

LEFT_FOLDER = "left"
"""Folder of a rehearsal with everything that would have left, in full."""


def site_facts(settings: SiteSettings, plan: Plan, reading: SiteReading) -> list[tuple[str, str]]:
    """Return what a site would bring into a plan, for its own eyes.

    Parameters
    ----------
    settings : SiteSettings
        Of the site.
    plan : Plan
        What it is held against.
    reading : SiteReading
        What was found.

    Returns
    -------
    list of (str, str)
        Rows of a table.
    """
    facts = [
        ("Plan", f"{plan.name}, hash {plan.digest}"),
        ("Approved here", "yes" if is_approved(settings, plan) else "no"),
    ]
    if reading.data is None:
        return facts
    data = reading.data
    groups = [("Training patients", data.train), ("Validation patients", data.validation), ("Test patients", data.test)]
    if isinstance(plan.method, EvaluationSettings):
        groups = [("Would be scored", scored_patients(plan.method, data))]
    for title, names in groups:
        facts.append((title, f"{len(names)}, {int(follow_up(data.cohort, names)[1].sum())} events"))
    least, fewest = settings.limits.patients_for(plan), settings.limits.events_for(plan)
    facts.append(("Nothing is said of fewer than", f"{least} patients or {fewest} events"))
    facts.append(("Longest update that leaves", f"{settings.limits.norm_for(plan):g}"))
    facts.append(("Differential privacy", _privacy_fact(plan, len(data.train))))
    return facts


def _privacy_fact(plan: Plan, patients: int) -> str:
    if plan.privacy is None:
        return "none: no noise is added to what leaves"
    delta = delta_of(plan.privacy, patients)
    bound = guaranteed_rate(0.01, plan.privacy.epsilon, delta)
    return (
        f"epsilon {plan.privacy.epsilon:g} at delta {delta:.2g}: an attack that is wrong about 1 % of others finds at most "
        f"{bound:.0%} of those trained on"
    )


def is_approved(settings: SiteSettings, plan: Plan) -> bool:
    """Tell whether a site has agreed to a plan.

    Parameters
    ----------
    settings : SiteSettings
        Of the site.
    plan : Plan
        As the site's copy of the file has it.

    Returns
    -------
    bool
        By the hash of the plan.
    """
    return any(one.digest == plan.digest for one in Approvals(settings.folder).approved())


@dataclass(frozen=True)
class Leaving:
    """One answer that would leave a site.

    Parameters
    ----------
    asked : str
        What it answers.
    answer : Message
        What it holds, whole.
    bytes_sent : int
        Its length.
    """

    asked: str
    answer: Message
    bytes_sent: int


def rehearse(settings: SiteSettings, plan: Plan, folder: Path, package: Path | None = None) -> list[Leaving]:
    """Take one round at a site without any network, and keep everything that would have left.

    Parameters
    ----------
    settings : SiteSettings
        Of the site.
    plan : Plan
        It need not be approved: nothing leaves.
    folder : Path
        For what the rehearsal writes.
    package : Path, optional
        Folder of the package that an evaluation scores.

    Returns
    -------
    list of Leaving
        In order.

    Raises
    ------
    RefusedError
        If the site's data do not fit the plan.
    FederationError
        If the site would refuse to take part.
    InputError
        If an evaluation is rehearsed without its package, or the folder holds a rehearsal already.
    """
    if (folder / "site").exists():
        raise InputError(
            f"{folder}: holds a rehearsal, which would go on where it ended; remove it, or give another --output"
        )
    data = load_site(settings, plan)
    if isinstance(plan.method, EvaluationSettings) and package is None:
        raise InputError(f"plan {plan.name} has a package scored; give its folder with --package")
    alone = {"sites": (settings.name,), "quorum": 1}
    if isinstance(plan.method, RoundsSettings):
        plan = plan.model_copy(update={**alone, "method": plan.method.model_copy(update={"rounds": 1})})
    else:
        plan = plan.model_copy(update=alone)
    if package is not None:
        _refuse_trained_on(settings, plan, data, package)
    site = Site(folder / "site", lambda _: plan, lambda _: data, settings.limits)
    listener = _Listener(settings.name, site)
    if package is None:
        run_federation(plan, listener, folder / "coordinator")
    else:
        run_evaluation(plan, read_package_files(package), listener, folder / "coordinator")
    _write_in_full(listener.heard, folder / LEFT_FOLDER)
    return listener.heard


def _refuse_trained_on(settings: SiteSettings, plan: Plan, data: SiteData, folder: Path) -> None:
    """Say now what the site itself, whose state the rehearsal does not share, would say when it is asked."""
    if isinstance(plan.method, EvaluationSettings):
        made_by = str(load_package(folder).summary.get("plan", ""))
        require_not_trained_on(settings.folder / STATE_FOLDER, made_by, scored_patients(plan.method, data))


def _write_in_full(heard: Sequence[Leaving], folder: Path) -> None:
    """Write every number that would leave, a file an answer."""
    make_folder(folder)
    for number, one in enumerate(heard, 1):
        arrays = {name: array.tolist() for name, array in one.answer.arrays.items()}
        whole = {"asked": one.asked, "code": one.answer.code, "numbers": dict(one.answer.numbers), "arrays": arrays}
        write_text(folder / f"{number:02d}-{one.asked}.json", json.dumps(whole))


class _Listener:
    """A network of one site that keeps what it is told."""

    def __init__(self, name: str, site: Answering) -> None:
        self._name, self._site = name, site
        self.heard: list[Leaving] = []

    @property
    def sites(self) -> Sequence[str]:
        return (self._name,)

    def exchange(self, request: Message, sites: Sequence[str], quorum: int) -> Mapping[str, bytes]:
        content = self._site.answer(to_bytes(request))
        self.heard.append(Leaving(request.kind, from_bytes(content), len(content)))
        return {self._name: content}


def approve(settings: SiteSettings, plan: Plan, stated: str) -> None:
    """Agree to a plan at a site.

    Parameters
    ----------
    settings : SiteSettings
        Of the site.
    plan : Plan
        As the site's copy of the file has it.
    stated : str
        The hash that the site was told.

    Raises
    ------
    ConfigError
        If the plan's hash is another.
    FederationError
        If the plan does not name the site.
    """
    if settings.name not in plan.sites:
        raise FederationError(
            f"{settings.name} is not a site of plan {plan.name}, which has {', '.join(plan.sites)}; there is nothing to approve"
        )
    Approvals(settings.folder).approve(plan, stated)


def network_of_cohort(plan: Plan, config_path: Path, overrides: Sequence[str]) -> dict[str, SiteData]:
    """Divide the cohort of a study into the sites of a plan by its hospitals.

    Parameters
    ----------
    plan : Plan
        Its sites.
    config_path : Path
        The study's YAML file; its cohort, slides and bags are used.
    overrides : sequence of str
        ``key.subkey=value``.

    Returns
    -------
    dict of str to SiteData
        By site.

    Raises
    ------
    CohortError
        With everything that does not fit the plan.
    InputError
        If the study names no column for the hospital.
    """
    config = load_config(config_path, overrides)
    if config.cohort.site is None:
        raise InputError(f"{config_path.name}: cohort.site is missing; name the column of the hospital")
    settings = SiteSettings(name="all", cohort=config.cohort, slides=config.slides)
    reading = examine_patients(settings, plan)
    if reading.problems or reading.cohort is None:
        problems = [problem for _, problem in reading.problems]
        raise CohortError(f"{len(problems)} problem(s) with the data of plan {plan.name}", problems)
    unknown = sorted({site_name(text) for text in reading.cohort.site.tolist()} - set(plan.sites) - {""})
    if unknown:
        shown = ", ".join(unknown[:10])
        raise CohortError(
            f"plan {plan.name}: hospitals of the cohort are not among its sites",
            [
                Problem(
                    "sites",
                    f"{shown}; add them to the plan, or name a column whose values are its sites as cohort.site",
                )
            ],
        )
    return split_cohort(reading.cohort, reading.features, plan, reading.is_test)


def network_of_sites(plan: Plan, sites: Sequence[Path]) -> tuple[dict[str, SiteData], dict[str, LimitsSettings]]:
    """Read the patients of several site files, for a network on this machine.

    Parameters
    ----------
    plan : Plan
        What they agree on; approval is not asked for, since all of it stays on this machine.
    sites : sequence of Path
        Their settings files.

    Returns
    -------
    tuple of dict
        Patients, and what each site enforces, by site.

    Raises
    ------
    FederationError
        If a site of the plan has no file.
    RefusedError
        If a site's data do not fit the plan.
    """
    by_name = {one.name: one for one in map(read_site, sites)}
    missing = [name for name in plan.sites if name not in by_name]
    if missing:
        raise FederationError(f"plan {plan.name}: no settings file is given for site(s) {', '.join(missing)}")
    parts = {name: load_site(by_name[name], plan) for name in plan.sites}
    return parts, {name: by_name[name].limits for name in plan.sites}


def simulate_network(
    plan: Plan, parts: Mapping[str, SiteData], output: Path, context: StageContext, *, compared: bool,
    limits: LimitsSettings | Mapping[str, LimitsSettings] = DEFAULT_LIMITS,
) -> tuple[FederationResult, Comparison | None]:  # fmt: skip
    """Run a federation of hospitals in this process.

    Parameters
    ----------
    plan : Plan
        What they agree on.
    parts : mapping of str to SiteData
        The hospitals.
    output : Path
        Folder for everything.
    context : StageContext
        Device and listener.
    compared : bool
        Whether models of each hospital alone, of all patients in one place, and without each hospital are trained too.
    limits : LimitsSettings or mapping of str to LimitsSettings, optional
        What every site enforces, or each.

    Returns
    -------
    tuple of FederationResult and Comparison or None
        Also written to the folder.
    """
    comparison = None
    if compared:
        result, comparison = compare(
            plan, parts, output, limits=limits, device=context.device, progress=context.progress
        )
        write_json(output / "comparison.json", comparison.to_json())
    else:
        result = simulate(
            plan, parts, output / "shared", limits=limits, device=context.device,
            on_round=lambda done, total, _: context.progress("federation", done + 1, total),
        )  # fmt: skip
    of_site = {name: limits if isinstance(limits, LimitsSettings) else limits[name] for name in parts}
    public = [name for name, one in of_site.items() if one.public_benchmark]
    write_page(plan, output, result, comparison, output / "shared" / "sites", public=public)
    return result, comparison


def leaving_rows(heard: Sequence[Leaving]) -> list[tuple[str, str, str, str]]:
    """Return everything that would leave, as rows of a table.

    Parameters
    ----------
    heard : sequence of Leaving
        Of `rehearse`.

    Returns
    -------
    list of tuple of str
        What was asked; arrays with type, shape and range; numbers; bytes.
    """
    rows = []
    for one in heard:
        arrays = [
            f"{name}: {array.dtype.name} {tuple(array.shape)}, {array.min():.4g} to {array.max():.4g}"
            for name, array in one.answer.arrays.items()
            if np.size(array)
        ]
        numbers = [f"{name} = {value:.6g}" for name, value in one.answer.numbers.items()]
        said = [f"refused: {one.answer.code}"] if one.answer.code else []
        rows.append((one.asked, "\n".join(arrays), "\n".join(numbers + said), str(one.bytes_sent)))
    return rows


def examine(site: Path, plan: Plan) -> tuple[SiteSettings, SiteReading]:
    """Hold a site against a plan.

    Parameters
    ----------
    site : Path
        Its settings file.
    plan : Plan
        What it is held against.

    Returns
    -------
    tuple of SiteSettings and SiteReading
        For `site_facts`.
    """
    settings = read_site(site)
    reading = examine_site(settings, plan)
    if isinstance(plan.method, EvaluationSettings) and reading.data is not None:
        names = scored_patients(plan.method, reading.data)
        told = tuple(
            Problem(
                f"plan {made}",
                f"trained on {count} of {len(names)} patients that would be scored; if it made the package, the site will refuse: "
                "method.patients: test scores the others",
            )
            for made, count in trained_before(settings.folder / STATE_FOLDER, names).items()
        )
        reading = replace(reading, warnings=(*reading.warnings, *told))
    return settings, reading
