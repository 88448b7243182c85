"""What slides, clinical columns, blocks and gene groups each say of a patient, as a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pathoml.errors import InputError
from pathoml.files import write_text
from pathoml.infer import predict_shares
from pathoml.mil.patients import Patients, select_patients
from pathoml.packages import Member, Package
from pathoml.provenance import RESEARCH_USE_ONLY
from pathoml.splits import Fold
from pathoml.train import TrainingData


def part_shares(members: Sequence[Member], patients: Patients, *, device: str = "cpu") -> pd.DataFrame:
    """Say what each part of a model adds to patients' risks.

    Parameters
    ----------
    members : sequence of Member
        Of the same configuration; several are averaged.
    patients : Patients
        Who.
    device : str, optional
        ``cpu`` or ``cuda``.

    Returns
    -------
    DataFrame
        One row a patient and part: patient_id, part, present, share. Shares count from the average training patient, in
        standard deviations of the training patients' risk where the risk is the log hazard: then they sum to the
        risk that a package predicts. For time bins: hazard logits averaged over the bins.
    """
    sums, present = 0.0, None
    for member in members:
        found = predict_shares(member, patients, device=device)
        scale = member.risk_scale if member.objective.risk_is_logit else 1.0
        sums = sums + (found.values.mean(axis=2) - np.asarray(member.part_centre)) / scale
        present = found.present
    assert present is not None  # there is a member
    names = members[0].model.layout.names
    return pd.DataFrame(
        {
            "patient_id": np.repeat(np.asarray(patients.patient_id, dtype=object), len(names)),
            "part": list(names) * len(patients.patient_id),
            "present": present.ravel(),
            "share": np.ravel(sums / len(members)),
        }
    )


def shares_of_tested(
    data: TrainingData, folds: Sequence[Fold], packages: Mapping[str, Package], *, device: str = "cpu"
) -> pd.DataFrame:  # fmt: skip
    """Say it of every fold's test patients.

    Parameters
    ----------
    data : TrainingData
        The cohort.
    folds : sequence of Fold
        Of one scheme or several.
    packages : mapping of str to Package
        By the key of the fold.
    device : str, optional
        ``cpu`` or ``cuda``.

    Returns
    -------
    DataFrame
        As of `part_shares`, with columns scheme and fold in front.
    """
    tables = []
    for fold in folds:
        tested = select_patients(data.cohort, data.features, fold.test)
        table = part_shares(packages[fold.key].members, tested, device=device)
        table.insert(0, "fold", fold.name)
        table.insert(0, "scheme", fold.scheme)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def write_part_shares(path: Path, table: pd.DataFrame) -> None:
    """Write the table whole or not at all.

    Parameters
    ----------
    path : Path
        A .csv.
    table : DataFrame
        Of `part_shares` or `shares_of_tested`.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_text(path, table.assign(notice=RESEARCH_USE_ONLY).to_csv(index=False))


def read_part_shares(path: Path) -> pd.DataFrame:
    """Read the table of a run.

    Parameters
    ----------
    path : Path
        As `write_part_shares` wrote it.

    Returns
    -------
    DataFrame
        As of `shares_of_tested`.

    Raises
    ------
    InputError
        If it is missing or a column is.
    """
    if not path.is_file():
        raise InputError(f"{path}: no shares of parts there; run 'pathoml train' again")
    names = ["scheme", "fold", "patient_id", "part"]
    table = pd.read_csv(path, dtype=dict.fromkeys(names, str), keep_default_na=False, float_precision="round_trip")
    absent = [name for name in [*names, "present", "share"] if name not in table.columns]
    if absent:
        raise InputError(f"{path.name}: no column(s) {', '.join(absent)}; run 'pathoml train' again")
    return table
