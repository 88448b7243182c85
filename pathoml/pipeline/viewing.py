"""What `pathoml view` shows: a run with its cohort, a list or a folder of slides, or one slide."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pathoml.cohort import SlideEntry, SlidesSettings
from pathoml.errors import InputError
from pathoml.heatmaps import SlideMaps
from pathoml.manifest import read_manifest
from pathoml.pipeline.run_folder import RunFolder, check_training, read_json
from pathoml.pipeline.shown_names import ShownNames, shown_names
from pathoml.pipeline.study import Study, open_run
from pathoml.predictions import Predictions, read_predictions
from pathoml.slides import open_slide
from pathoml.splits import Fold, read_folds
from pathoml.survival import kaplan_meier
from pathoml.viewer import Library, NamedCurve, ViewedSlide

SLIDE_SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".dcm")
_TABLES = (".csv", ".tsv", ".parquet")
_OF_THIS_MODEL = "model"


def open_library(path: Path, *, device: str = "cpu") -> Library:
    """Find out what a path holds and make it ready to be looked at.

    Parameters
    ----------
    path : Path
        A run folder, a manifest of slides, a folder of slides, or one slide.
    device : str, optional
        Where models run that draw maps.

    Returns
    -------
    Library
        For `pathoml.viewer.serving.serve`.

    Raises
    ------
    InputError
        If there is nothing to show.
    """
    if path.is_dir() and RunFolder(path).config.is_file():
        return _library_of_run(path, device)
    if path.is_dir():
        return _library_of_folder(path)
    if path.suffix.lower() in _TABLES and path.is_file():
        entries = read_manifest(SlidesSettings(manifest=path))
        names = shown_names(path, entries)
        slides = tuple(
            ViewedSlide(names.slides[one.slide_id], one.path, one.mpp, names.patients[one.patient_id])
            for one in entries
        )
        return Library(path.stem, slides)
    if path.is_file():
        return Library(path.stem, (ViewedSlide(path.stem, path, None, path.stem),))
    raise InputError(f"{path}: no such file or folder; give a run folder, a manifest, a folder of slides, or a slide")


def _library_of_folder(folder: Path) -> Library:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in SLIDE_SUFFIXES)
    if not found:
        raise InputError(f"{folder}: holds no run (config.json) and no slides ({', '.join(SLIDE_SUFFIXES)})")
    names = ["/".join(path.relative_to(folder).with_suffix("").parts) for path in found]
    slides = tuple(ViewedSlide(name, path, None, name) for name, path in zip(names, found, strict=True))
    return Library(folder.resolve().name, slides)


@dataclass(frozen=True)
class _Tested:
    """What the models of the first scheme say of the patients that they have not seen."""

    predictions: Predictions
    folds: Mapping[str, Fold]
    risk: Mapping[str, float]
    group: Mapping[str, str]
    fold_of: Mapping[str, Fold]


def _library_of_run(root: Path, device: str) -> Library:
    study = open_run(root)
    check_training(study.folder)
    config = study.config
    if config.slides is None:
        raise InputError(f"{root}: this run has no slides to look at; its report is {study.folder.report.name}")
    tested = _tested(study.folder)
    names = shown_names(config.slides.manifest, study.entries)
    rows = {patient: row for row, patient in enumerate(study.cohort.patient_id.tolist())}
    entries = [entry for entry in study.entries if entry.url is None]
    slides = tuple(_viewed(entry, study, tested, names, rows) for entry in entries)
    return Library(
        config.name, slides, study.cohort.endpoint, _cohort_curves(study, tested), _patient_curves(tested, names.patients),
        _mapper(study, entries, tested, device),
    )  # fmt: skip


def _viewed(
    entry: SlideEntry, study: Study, tested: _Tested, names: ShownNames, rows: Mapping[str, int]
) -> ViewedSlide:  # fmt: skip
    name, patient = names.slides[entry.slide_id], names.patients[entry.patient_id]
    row = rows.get(entry.patient_id)
    if row is None:
        return ViewedSlide(name, entry.path, entry.mpp, patient)
    cohort = study.cohort
    return ViewedSlide(
        name, entry.path, entry.mpp, patient, str(cohort.site[row]), float(cohort.time_days[row]),
        int(cohort.event[row]), tested.risk.get(entry.patient_id), tested.group.get(entry.patient_id, ""),
    )  # fmt: skip


def _tested(folder: RunFolder) -> _Tested:
    predictions = read_predictions(folder.predictions)
    scheme = str(predictions.table["scheme"].iloc[0])
    folds = {fold.name: fold for fold in read_folds(folder.folds) if fold.scheme == scheme and fold.repeat == 0}
    own = _rows_of(predictions.select(model=_OF_THIS_MODEL, scheme=scheme, role="test"), folds)
    scales = {name: _risk_scale(folder.members / fold.folder_name) for name, fold in folds.items()}
    risk, group, fold_of = {}, {}, {}
    for row in own.table.itertuples():
        centre, scale = scales[str(row.fold)]
        patient = str(row.patient_id)
        risk[patient] = (float(row.risk) - centre) / scale  # type: ignore[arg-type]
        group[patient], fold_of[patient] = str(row.risk_group), folds[str(row.fold)]
    return _Tested(own, folds, risk, group, fold_of)


def _rows_of(predictions: Predictions, folds: Mapping[str, Fold]) -> Predictions:
    """Leave out further dealings of the patients: each patient is shown once."""
    rows = predictions.table["fold"].isin(list(folds)).to_numpy()
    return Predictions(
        predictions.table[rows].reset_index(drop=True), predictions.curve_days, predictions.survival[rows]
    )


def _risk_scale(package: Path) -> tuple[float, float]:
    """Return centre and scale of a fold's risk from its description alone: loading the model takes seconds."""
    member = read_json(package / "model.json", "run 'pathoml train' again")["members"][0]
    return float(member["risk_centre"]), float(member["risk_scale"])


def _cohort_curves(study: Study, tested: _Tested) -> tuple[NamedCurve, ...]:
    """Return the observed survival of the whole cohort, and of those predicted to be of low and of high risk."""
    cohort = study.cohort
    groups = np.array([tested.group.get(patient, "") for patient in cohort.patient_id.tolist()])
    chosen = [("whole cohort", np.ones(len(cohort), dtype=bool))]
    chosen += [(f"predicted {name} risk", groups == name) for name in ("low", "high")]
    curves = []
    for name, rows in chosen:
        if rows.any():
            steps = kaplan_meier(cohort.time_days[rows], cohort.event[rows])
            curves.append(NamedCurve(f"{name} (n = {rows.sum()})", steps.days, steps.values))
    return tuple(curves)


def _patient_curves(tested: _Tested, patients: Mapping[str, str]) -> dict[str, NamedCurve]:
    predictions = tested.predictions
    return {
        patients[patient]: NamedCurve("this patient, predicted", predictions.curve_days, survival)
        for patient, survival in zip(predictions.table["patient_id"], predictions.survival, strict=True)
        if patient in patients
    }


def _mapper(study: Study, entries: list[SlideEntry], tested: _Tested, device: str) -> Callable[[int], SlideMaps]:
    """Return the function that draws a slide's maps with the model that has not seen its patient."""
    assert study.config.slides is not None  # a run without slides is not shown
    bags = study.config.slides.bags

    def maps_of(position: int) -> SlideMaps:
        from pathoml.mil.patients import select_patients  # torch takes seconds, and a look at slides needs none
        from pathoml.packages import load_package
        from pathoml.pipeline.maps import MapRequest, map_ends, maps_of_slide

        entry = entries[position]
        fold = tested.fold_of.get(entry.patient_id)
        if fold is None:
            raise InputError(
                f"slide {entry.slide_id}: its patient was not tested in this run, so there is no map of it"
            )
        package = load_package(study.folder.members / fold.folder_name)
        with open_slide(entry.path, mpp=entry.mpp) as slide:
            size = (slide.geometry.width_px, slide.geometry.height_px)
        ends = map_ends(load_package(study.folder.package))
        known = select_patients(study.cohort, None, [entry.patient_id]).covariates
        request = MapRequest(entry, bags, package, entry.slide_id, study.folder.heatmaps, ends, known)
        return maps_of_slide(request, size, device=device)

    return maps_of
