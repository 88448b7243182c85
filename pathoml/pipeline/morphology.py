"""From a run's risk to what its tiles look like: prototypes, their associations, and a gallery, as tables and pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pathoml.bags import BagHeader, read_bag
from pathoml.cohort import Cohort, SlideEntry
from pathoml.errors import InputError
from pathoml.files import write_text
from pathoml.heatmaps import extreme_tiles, relative_to_average
from pathoml.packages import Package, load_package
from pathoml.pipeline.run_folder import check_training
from pathoml.pipeline.shown_names import shown_names
from pathoml.pipeline.stages import StageContext, slides_with_bags, usable_study
from pathoml.pipeline.study import Study
from pathoml.prototypes import Prototypes, PrototypeSettings, ScoredTiles, find_prototypes, shares
from pathoml.report.tile_pages import PrototypePart, ShownTile, SlidePart, write_gallery, write_morphology
from pathoml.slides import open_slide
from pathoml.splits import read_folds
from pathoml.survival.associations import benjamini_hochberg, cox_score_test, group_difference, rank_correlation
from pathoml.tables import missing_columns_message, parse_numbers, read_text_table
from pathoml.tile_scores import score_tiles
from pathoml.units import FloatArray, IntArray, RgbImage
from pathoml.viewer.pyramid import Rectangle, render

_CROP_PX = 96
_EXAMPLES, _OF_A_SLIDE, _OF_THE_COHORT, _FROM_ONE_SLIDE = 10, 8, 24, 2
_GALLERY_SLIDES = 60
"""Those with the highest and the lowest contributions; a page of a thousand slides opens in no browser."""


@dataclass(frozen=True)
class SurveyedSlide:
    """A slide whose tiles were scored by a model that has not seen its patient.

    Parameters
    ----------
    entry : SlideEntry
        The slide.
    name, patient : str
        What slide and patient are called on pages, as in the viewer.
    header : BagHeader
        Of its bag.
    coords : ndarray of int32, shape (tiles, 2)
        Corners of its tiles.
    tiles : ScoredTiles
        Features and contributions.
    """

    entry: SlideEntry
    name: str
    patient: str
    header: BagHeader
    coords: IntArray
    tiles: ScoredTiles


def study_morphology(
    study: Study, output: Path, settings: PrototypeSettings, context: StageContext, *, table: Path | None = None
) -> tuple[Path, Path]:
    """Find the kinds of tiles behind a run's risk and what they go with.

    Parameters
    ----------
    study : Study
        A run with slides, after training.
    output : Path
        Folder for ``morphology.html``, ``gallery.html``, ``shares.csv`` and ``associations.csv``.
    settings : PrototypeSettings
        How many kinds.
    context : StageContext
        Device and listener.
    table : Path, optional
        With patient_id and more columns (genes, scores, words) to be held against the shares.

    Returns
    -------
    tuple of Path
        The page of the prototypes and the gallery.

    Raises
    ------
    InputError
        If the run has no slides, or training was not finished.
    CohortError
        If the table cannot be read.
    """
    check_training(study.folder)
    study = usable_study(study)
    columns = _columns(study.cohort, table)
    surveyed = _survey(study, context)
    prototypes = find_prototypes([slide.tiles for slide in surveyed], settings)
    kinds = [prototypes.nearest(slide.tiles.features) for slide in surveyed]
    patient_shares = _patient_shares(study.cohort, surveyed, [kind for kind, _ in kinds], len(prototypes.places))
    associations = _associations(study.cohort, patient_shares, columns)
    write_text(output / "shares.csv", patient_shares.to_csv(index_label="patient_id", float_format="%.6g"))
    write_text(output / "associations.csv", associations.to_csv(index=False, float_format="%.6g"))
    parts = _prototype_parts(prototypes, surveyed, kinds, patient_shares, associations)
    pages = output / "morphology.html", output / "gallery.html"
    write_morphology(pages[0], study.config.name, parts, questions=len(associations))
    write_gallery(pages[1], study.config.name, _cohort_extremes(surveyed), _slide_extremes(surveyed))
    return pages


def _survey(study: Study, context: StageContext) -> list[SurveyedSlide]:
    if study.config.slides is None:
        raise InputError(f"study {study.config.name}: it has no slides, so there are no tiles to look at")
    present = slides_with_bags(study)
    names = shown_names(study.config.slides.manifest, study.entries)
    folds = read_folds(study.folder.folds)
    packages: dict[str, Package] = {}
    surveyed: list[SurveyedSlide] = []
    first = [fold for fold in folds if fold.scheme == folds[0].scheme and fold.repeat == 0]
    tested = [(fold, patient) for fold in first for patient in fold.test]
    for done, (fold, patient) in enumerate(tested, start=1):
        for entry in study.cohort.slides.get(patient, ()):
            if entry.slide_id not in present:
                continue
            if fold.key not in packages:
                packages[fold.key] = load_package(study.folder.members / fold.folder_name)
            package = packages[fold.key]
            bag = read_bag(study.config.slides.bags / f"{entry.slide_id}.h5")
            scores = score_tiles(package.members, package, bag, device=context.device)
            tiles = ScoredTiles(bag.features, relative_to_average(scores.contribution))
            called = names.slides[entry.slide_id], names.patients[patient]
            surveyed.append(SurveyedSlide(entry, *called, bag.header, bag.coords.astype(np.int64), tiles))
        context.progress("score tiles", done, len(tested))
    return surveyed


class _Columns(NamedTuple):
    """What shares are held against, one row a patient, and the family of questions that each column belongs to."""

    table: pd.DataFrame
    families: dict[str, str]


def _columns(cohort: Cohort, table: Path | None) -> _Columns:
    """Return what shares are held against: site, covariates, and the table's columns; numbers as numbers, words as words."""
    patients = cohort.patient_id.tolist()
    columns = {name: cohort.covariates[name].to_numpy() for name in cohort.covariates}
    families = dict.fromkeys(map(str, columns), "covariates")
    if len(set(cohort.site)) > 1:
        columns, families = {"site": cohort.site, **columns}, {"site": "site", **families}
    if table is not None:
        given = read_text_table(table)
        if "patient_id" not in given.columns:
            raise InputError(missing_columns_message(table, given, "patient_id"))
        given = given.drop_duplicates("patient_id").set_index("patient_id").reindex(patients).fillna("")
        for name in given.columns:
            numbers, missing = parse_numbers(given[name])
            is_numeric = bool((~np.isnan(numbers) | missing).all())
            columns[name] = numbers if is_numeric else given[name].to_numpy(dtype=str)
            families[str(name)] = "table"
    return _Columns(pd.DataFrame(columns, index=patients), families)


def _patient_shares(
    cohort: Cohort, surveyed: Sequence[SurveyedSlide], kinds: Sequence[IntArray], count: int
) -> pd.DataFrame:
    """Return which share of each patient's tiles is of each kind; all slides of a patient together."""
    of_patient: dict[str, list[IntArray]] = {}
    for slide, kind in zip(surveyed, kinds, strict=True):
        of_patient.setdefault(slide.entry.patient_id, []).append(kind)
    known = [patient for patient in cohort.patient_id.tolist() if patient in of_patient]
    rows = [shares(np.concatenate(of_patient[patient]), count) for patient in known]
    return pd.DataFrame(rows, index=known, columns=[f"prototype_{number}" for number in range(1, count + 1)])


def _associations(cohort: Cohort, patient_shares: pd.DataFrame, columns: _Columns) -> pd.DataFrame:
    """Ask every question once, and adjust the p-values for the number of questions of their family."""
    rows = cohort.rows_of(patient_shares.index.tolist())
    time_days, event, site = cohort.time_days[rows], cohort.event[rows], cohort.site[rows]
    found = []
    for prototype in patient_shares.columns:
        share = patient_shares[prototype].to_numpy(dtype=np.float64)
        tests = {"survival": cox_score_test(time_days, event, share)}
        if len(set(site)) > 1:
            tests["survival within hospitals"] = cox_score_test(time_days, event, share, site)
        found += [
            (prototype, "survival", name, "log hazard ratio per SD of the share", *test, len(share))
            for name, test in tests.items()
        ]
        for name, family in columns.families.items():
            values = columns.table.loc[patient_shares.index, name].to_numpy()
            found.append((prototype, family, name, *_association(share, values)))
    table = pd.DataFrame(found, columns=["prototype", "family", "with", "measure", "effect", "p_value", "patients"])
    table["q_value"] = table.groupby("family")["p_value"].transform(
        lambda own: benjamini_hochberg(own.to_numpy(dtype=np.float64))
    )
    return table.sort_values(["p_value", "prototype"], kind="stable").reset_index(drop=True)


def _association(
    share: FloatArray, values: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"
) -> tuple[str, float, float, int]:
    if np.issubdtype(values.dtype, np.number):
        numbers = values.astype(np.float64)
        known = np.isfinite(numbers)
        return ("rank correlation", *rank_correlation(share[known], numbers[known]), int(known.sum()))
    words = values.astype(str)
    known = words != ""
    return ("share of rank variance between groups", *group_difference(share[known], words[known]), int(known.sum()))


def _prototype_parts(
    prototypes: Prototypes, surveyed: Sequence[SurveyedSlide], kinds: Sequence[tuple[IntArray, FloatArray]],
    patient_shares: pd.DataFrame, associations: pd.DataFrame,
) -> list[PrototypePart]:  # fmt: skip
    wanted = [_typical(number, kinds) for number in range(len(prototypes.places))]
    shown = _shown([place for places in wanted for place in places], surveyed)
    parts = []
    for number, places in enumerate(wanted):
        name = patient_shares.columns[number]
        own = associations[associations["prototype"] == name]
        parts.append(
            PrototypePart(
                number + 1, float(prototypes.contribution[number]), [shown[place] for place in places],
                float(patient_shares[name].mean()), float((patient_shares[name] > 0).mean()),
                own.to_dict("records"),
            )
        )  # fmt: skip
    return parts


def _typical(number: int, kinds: Sequence[tuple[IntArray, FloatArray]]) -> list[tuple[int, int]]:
    """Return (slide, tile) of the most typical tiles of a kind: the nearest to its centre, one a slide."""
    nearest = []
    for slide, (kind, distance) in enumerate(kinds):
        own = np.flatnonzero(kind == number)
        if own.size:
            tile = int(own[distance[own].argmin()])
            nearest.append((float(distance[tile]), slide, tile))
    return [(slide, tile) for _, slide, tile in sorted(nearest)[:_EXAMPLES]]


def _cohort_extremes(surveyed: Sequence[SurveyedSlide]) -> dict[str, list[ShownTile]]:
    """Return the highest and the lowest tiles of the cohort, at most two of a slide."""
    result = {}
    for direction, sign in (("highest", -1.0), ("lowest", 1.0)):
        candidates = [
            (sign * float(slide.tiles.contribution[tile]), number, int(tile))
            for number, slide in enumerate(surveyed)
            for tile in extreme_tiles(slide.tiles.contribution, _FROM_ONE_SLIDE, "highest" if sign < 0 else "lowest")
        ]
        places = [(number, tile) for _, number, tile in sorted(candidates)[:_OF_THE_COHORT]]
        shown = _shown(places, surveyed)
        result[direction] = [shown[place] for place in places]
    return result


def _slide_extremes(surveyed: Sequence[SurveyedSlide]) -> list[SlidePart]:
    by_risk = np.argsort([-slide.tiles.contribution.mean() for slide in surveyed], kind="stable").tolist()
    half = _GALLERY_SLIDES // 2
    chosen = by_risk if len(by_risk) <= _GALLERY_SLIDES else [*by_risk[:half], *by_risk[-half:]]
    parts = []
    for number in chosen:
        slide = surveyed[number]
        ends = [
            [(number, int(tile)) for tile in extreme_tiles(slide.tiles.contribution, _OF_A_SLIDE, direction)]
            for direction in ("highest", "lowest")
        ]
        shown = _shown([place for end in ends for place in end], surveyed)
        highest, lowest = ([shown[place] for place in end] for end in ends)
        parts.append(SlidePart(slide.name, slide.patient, highest, lowest))
    return parts


def _shown(places: Sequence[tuple[int, int]], surveyed: Sequence[SurveyedSlide]) -> Mapping[tuple[int, int], ShownTile]:
    """Cut tiles out of their slides, each slide opened once."""
    shown: dict[tuple[int, int], ShownTile] = {}
    for number in sorted({slide for slide, _ in places}):
        slide = surveyed[number]
        with open_slide(slide.entry.path, mpp=slide.entry.mpp) as opened:
            for tile in sorted({tile for other, tile in places if other == number}):
                x, y = (max(0, int(value)) for value in slide.coords[tile])
                width, height = (max(1, round(value)) for value in slide.header.footprint_level0_px)
                crop: RgbImage = render(opened, Rectangle(x, y, width, height, _CROP_PX, _CROP_PX))
                value = float(slide.tiles.contribution[tile])
                shown[number, tile] = ShownTile(slide.name, tile, (x, y), value, crop)
    return shown
