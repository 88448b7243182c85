"""The slide manifest: which slides there are, whose they are, and how they join the cohort."""

import os
import re
from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from pathoml.cohort import Cohort, SlideEntry, SlidesSettings, leave_out
from pathoml.cohort.spelling import plain_name
from pathoml.errors import CohortError, Problem, first_of
from pathoml.slides.base import MPP_RANGE
from pathoml.tables import missing_columns_message, read_text_table

_REQUIRED = ("slide_id", "path", "patient_id")
_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_MANGLED = re.compile(rf"[0-9](\.[0-9]+)?E\+[0-9]+|[0-9]{{1,2}}-({_MONTHS})|({_MONTHS})-[0-9]{{2}}", re.IGNORECASE)
"""What spreadsheets make of ids such as 12E10 and 3-6."""


def read_manifest(settings: SlidesSettings) -> tuple[SlideEntry, ...]:
    """Read the manifest.

    Parameters
    ----------
    settings : SlidesSettings
        Table and the folder that its paths start from.

    Returns
    -------
    tuple of SlideEntry
        One for each row, in order.

    Raises
    ------
    CohortError
        With every problem found: columns, blank or double ids, mpp out of range.
    """
    entries, problems = examine_manifest(settings)
    if problems:
        raise CohortError(f"{settings.manifest.name}: {len(problems)} problem(s)", problems)
    return entries


def examine_manifest(settings: SlidesSettings) -> tuple[tuple[SlideEntry, ...], list[Problem]]:
    """Read the manifest as far as it can be read.

    Parameters
    ----------
    settings : SlidesSettings
        Table and the folder that its paths start from.

    Returns
    -------
    tuple of (tuple of SlideEntry, list of Problem)
        The slides whose rows name them, each once; and what is wrong.
    """
    key = ("slides", "manifest")
    try:
        table = read_text_table(settings.manifest)
    except CohortError as error:
        return (), [Problem("", str(error), key)]
    name = settings.manifest.name
    linked: list[Problem] = []
    if settings.patient_pattern is not None and "slide_id" in table.columns:
        table, linked = _linked(table, settings.patient_pattern, name)
    absent = [column for column in _REQUIRED if column not in table.columns]
    if absent:
        return (), [
            Problem(f"{name}: row 1", missing_columns_message(settings.manifest, table, one), key) for one in absent
        ]
    problems: list[Problem] = []
    folder = settings.folder or settings.manifest.parent
    entries = [
        _entry(name, number, row, folder, problems)
        for number, row in zip(table.index, table.to_dict("records"), strict=True)
    ]
    problems = linked + first_of(problems, name) + first_of(_double_ids(name, entries), name)
    problems += first_of(_double_files(name, entries), name)
    usable: dict[str, SlideEntry] = {}
    for entry in entries:
        if entry.slide_id and entry.patient_id and entry.path != folder:
            usable.setdefault(entry.slide_id, entry)
    return tuple(usable.values()), problems


def unknown_patients(entries: Sequence[SlideEntry], known: Set[str], manifest_name: str) -> list[Problem]:
    """Return a problem for the slides of patients that the clinical table does not have.

    Parameters
    ----------
    entries : sequence of SlideEntry
        The slides.
    known : set of str
        Patients of the clinical table.
    manifest_name : str
        For messages.

    Returns
    -------
    list of Problem
        In manifest order; where there are many, the last says how many more.
    """
    strangers = [entry for entry in entries if entry.patient_id not in known]
    spellings = {plain_name(name): name for name in sorted(known)} if strangers else {}
    problems = [
        Problem(
            f"{manifest_name}: row {entry.row}, column patient_id",
            f"slide {entry.slide_id}: patient {entry.patient_id} is not in the clinical table"
            f"{_spelt_otherwise(entry.patient_id, spellings)}",
        )
        for entry in strangers
    ]
    mangled = sorted(name for name in known if strangers and _MANGLED.fullmatch(name))
    if mangled:
        shown = ", ".join(f"'{name}'" for name in mangled[:5])
        message = f"patient(s) {shown} look like what a spreadsheet made of other ids; import that column as text"
        problems.insert(0, Problem("clinical table", message))
    return first_of(problems, manifest_name)


def _spelt_otherwise(name: str, spellings: Mapping[str, str]) -> str:
    """Return a hint at a patient of the table whose id differs in capitals, separators or leading zeros alone."""
    other = spellings.get(plain_name(name))
    return (
        ""
        if other is None
        else f"; it has '{other}': write both alike (spreadsheets drop leading zeros: import ids as text)"
    )


def join_slides(
    cohort: Cohort, entries: tuple[SlideEntry, ...], manifest_name: str, *, required: bool = True
) -> Cohort:  # fmt: skip
    """Give each patient their slides; patients without any are counted in a warning.

    Parameters
    ----------
    cohort : Cohort
        The patients.
    entries : tuple of SlideEntry
        The slides.
    manifest_name : str
        For messages.
    required : bool, optional
        Whether patients without a slide are left out.

    Returns
    -------
    Cohort
        The patients that have a slide, or all.

    Raises
    ------
    CohortError
        If a slide belongs to a patient that the clinical table does not have.
    """
    problems = unknown_patients(entries, set(cohort.patient_id), manifest_name)
    if problems:
        raise CohortError(f"{manifest_name}: slides of unknown patients", problems)
    slides: dict[str, list[SlideEntry]] = {}
    for entry in entries:
        slides.setdefault(entry.patient_id, []).append(entry)
    rows = [index for index, patient in enumerate(cohort.patient_id) if patient in slides or not required]
    without = [patient for patient in cohort.patient_id if patient not in slides]
    warnings = list(cohort.warnings)
    if without:
        shown = ", ".join(without[:5]) + (", ..." if len(without) > 5 else "")
        what = "are left out" if required else "enter with their covariates alone"
        warnings.append(Problem(manifest_name, f"{len(without)} patient(s) without a slide {what}: {shown}"))
    left = leave_out(cohort, np.array(rows, dtype=np.int64), "no slide")
    return replace(left, slides={patient: tuple(own) for patient, own in slides.items()}, warnings=tuple(warnings))


def missing_files(entries: tuple[SlideEntry, ...], manifest_name: str) -> list[Problem]:
    """Return a problem for every slide whose file is not there.

    Parameters
    ----------
    entries : tuple of SlideEntry
        The slides.
    manifest_name : str
        For messages.

    Returns
    -------
    list of Problem
        In manifest order.
    """
    problems = [
        Problem(
            f"{manifest_name}: row {entry.row}, column path",
            f"slide {entry.slide_id}: no such file: {entry.path}"
            + ("; write / between folders, not \\" if "\\" in entry.path.name and entry.path.anchor == "/" else ""),
        )
        for entry in entries
        if entry.url is None and not entry.path.exists()
    ]
    return first_of(problems, manifest_name)


def remote_slides(entries: Sequence[SlideEntry], manifest_name: str) -> list[Problem]:
    """Return a problem for every slide that lies in an object store.

    Parameters
    ----------
    entries : sequence of SlideEntry
        The slides.
    manifest_name : str
        For messages.

    Returns
    -------
    list of Problem
        In manifest order; to be reported where there is no staging.
    """
    problems = [
        Problem(
            f"{manifest_name}: row {entry.row}, column path",
            f"slide {entry.slide_id}: {without_query(entry.url)} does not lie on this machine; set "
            "extract.staging.folder to a local folder for copies",
        )
        for entry in entries
        if entry.url is not None
    ]
    return first_of(problems, manifest_name)


def without_query(url: str) -> str:
    """Return a URL without what stands behind its question mark, which may be a signature.

    Parameters
    ----------
    url : str
        Or a path, which is returned as it is.

    Returns
    -------
    str
        Fit to be shown.
    """
    return url.partition("?")[0]


def _linked(table: pd.DataFrame, pattern: str, name: str) -> tuple[pd.DataFrame, list[Problem]]:
    """Find each slide's patient in its id; a column patient_id, where there is one, has to agree."""
    found = table["slide_id"].str.extract(pattern, expand=False).fillna("")
    stated = table["patient_id"] if "patient_id" in table.columns else pd.Series("", index=table.index)
    problems = [
        Problem(
            f"{name}: row {row}, column slide_id", f"'{table['slide_id'][row]}' does not match slides.patient_pattern"
        )
        for row in table.index[(found == "") & (table["slide_id"] != "")]
    ]
    for row in table.index[(found != "") & (stated != "") & (stated != found)]:
        message = f"'{stated[row]}' is stated, and slides.patient_pattern finds '{found[row]}' in slide {table['slide_id'][row]}"
        problems.append(Problem(f"{name}: row {row}, column patient_id", message))
    return table.assign(patient_id=found.where(found != "", "?")), first_of(problems, name)


def _entry(
    name: str, row_number: int, row: Mapping[Hashable, str], folder: Path, problems: list[Problem]
) -> SlideEntry:
    where = f"{name}: row {row_number}"
    problems += [Problem(f"{where}, column {column}", "blank") for column in _REQUIRED if not row[column]]
    if any(character in row["slide_id"] for character in "/\\\0") or row["slide_id"] in {".", ".."}:
        problems.append(
            Problem(
                f"{where}, column slide_id", f"'{row['slide_id']}' cannot name a file; use letters, digits, - and _"
            )
        )
    mpp = _mpp(where, row.get("mpp", ""), problems)
    url = row["path"] if "://" in row["path"] else None
    path = folder / (row["path"] if url is None else PurePosixPath(without_query(row["path"])).name)
    return SlideEntry(row["slide_id"], path, row["patient_id"], mpp, row_number, url)


def _mpp(where: str, text: str, problems: list[Problem]) -> float | None:
    if not text:
        return None
    value = pd.to_numeric(text, errors="coerce")
    low, high = MPP_RANGE
    if not low <= value <= high:
        problems.append(
            Problem(f"{where}, column mpp", f"'{text}' is not a number between {low} and {high}{_decimal_comma(text)}")
        )
        return None
    return float(value)


def _decimal_comma(text: str) -> str:
    return f"; write a point, {text.replace(',', '.')}" if re.fullmatch(r"[0-9]+,[0-9]+", text) else ""


def _double_ids(name: str, entries: Sequence[SlideEntry]) -> list[Problem]:
    first_row: dict[str, int] = {}
    problems = []
    for entry in entries:
        if entry.slide_id and entry.slide_id in first_row:
            where = f"{name}: row {entry.row}, column slide_id"
            problems.append(
                Problem(
                    where,
                    f"slide {entry.slide_id} stands already in row {first_row[entry.slide_id]}; ids must be unique",
                )
            )
        first_row.setdefault(entry.slide_id, entry.row)
    return problems


def _double_files(name: str, entries: Sequence[SlideEntry]) -> list[Problem]:
    """Refuse one file under two ids: a patient, or two, would count twice."""
    first: dict[str, SlideEntry] = {}
    problems = []
    for entry in entries:
        path = entry.url or os.path.normpath(entry.path)
        other = first.setdefault(path, entry)
        if other is not entry and other.slide_id != entry.slide_id:
            where = f"{name}: row {entry.row}, column path"
            message = (
                f"slide {entry.slide_id} is the file of slide {other.slide_id} (row {other.row}); list a slide once"
            )
            problems.append(Problem(where, message))
    return problems
