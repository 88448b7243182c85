"""The leakage report of a split: every check on every scheme."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from pathoml.cohort import Cohort
from pathoml.errors import LeakError, Problem
from pathoml.leakage.columns import examine_columns
from pathoml.leakage.copies import SlideMark, find_copies, torn_copies
from pathoml.leakage.findings import Finding, shown
from pathoml.leakage.people import alike_ids, shared_patients, sides_of
from pathoml.leakage.places import confounded_outcome, one_sided_hospitals, shared_sites
from pathoml.leakage.twins import find_twins, torn_twins
from pathoml.splits import Fold

CHECKS = (
    "shared_patients", "alike_patient_ids", "same_patient_twice", "nearly_same_patient", "shared_sites", "alike_site_names",
    "site_confounded_outcome", "one_sided_hospital", "covariate_names_hospital", "covariate_foretells_outcome",
    "prepared_on_all_patients", "same_slide_twice", "shared_tiles", "near_duplicate_slides",
)  # fmt: skip
"""Names of the checks of a split. Of fitted models there are three more: `sealed_test_patients`,
`transform_fitted_on_others` and `model_saw_test_patients`."""


@dataclass(frozen=True)
class LeakageReport:
    """What was looked for in a split, and what was found.

    Parameters
    ----------
    findings : tuple of Finding
        Scheme by scheme.
    slides : int
        Slides that were compared; 0 where none could be.
    """

    findings: tuple[Finding, ...]
    slides: int

    @property
    def leaks(self) -> tuple[Finding, ...]:
        """Those for which the split cannot be used."""
        return tuple(one for one in self.findings if one.level == "leak")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values.

        Returns
        -------
        dict
            With format, checks made, slides compared and findings.
        """
        return {
            "format": "pathoml-leakage", "format_version": 1, "checks": list(CHECKS), "slides_compared": self.slides,
            "findings": [asdict(one) for one in self.findings],
        }  # fmt: skip


def examine_leakage(
    cohort: Cohort, folds: Sequence[Fold], marks: Sequence[SlideMark] = ()
) -> LeakageReport:  # fmt: skip
    """Look for leaks in every scheme of a split.

    Parameters
    ----------
    cohort : Cohort
        All patients.
    folds : sequence of Fold
        The split, made or read.
    marks : sequence of SlideMark, optional
        The slides, as far as they are known.

    Returns
    -------
    LeakageReport
        Its leaks make the split unusable.
    """
    findings: list[Finding] = [*one_sided_hospitals(cohort), *examine_columns(cohort)]
    twins, copies = find_twins(cohort), find_copies(marks)
    schemes = dict.fromkeys(fold.scheme for fold in folds)
    for scheme in schemes:
        own = [fold for fold in folds if fold.scheme == scheme]
        sides = sides_of(cohort, own)
        findings += shared_patients(scheme, own)
        findings += alike_ids(cohort, scheme, sides)
        findings += torn_twins(cohort, scheme, sides, twins)
        findings += shared_sites(cohort, scheme, sides, beside=schemes.keys())
        findings += confounded_outcome(cohort, scheme, sides)
        findings += torn_copies(cohort, scheme, sides, marks, copies)
    return LeakageReport(tuple(findings), len(marks))


def refuse_leaks(report: LeakageReport) -> None:
    """Refuse a split with leaks.

    Parameters
    ----------
    report : LeakageReport
        Of the split.

    Raises
    ------
    LeakError
        With every leak.
    """
    if report.leaks:
        problems = [Problem(one.scheme, f"{one.check}: {one.message}") for one in report.leaks]
        raise LeakError(f"the split leaks: {len(problems)} finding(s)", problems)


def check_predictions(table: pd.DataFrame) -> None:
    """Refuse predictions that score a model on patients that trained it.

    Parameters
    ----------
    table : DataFrame
        Columns model, scheme, fold, role and patient_id of the predictions.

    Raises
    ------
    LeakError
        If a patient is tested and trains, or stops early, in the same fold, or is tested twice in one.
    """
    keys = ["model", "scheme", "fold", "patient_id"]
    double = table[table.duplicated(keys, keep=False)]
    if len(double):
        names = [
            f"{row.patient_id} ({row.scheme} fold {row.fold})" for row in double.drop_duplicates(keys).itertuples()
        ]
        raise LeakError(
            f"shared_patients: the predictions hold {len(names)} patient(s) more than once in a fold, as training, validation or "
            f"test: {shown(names)}; train again"
        )
