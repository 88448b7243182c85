"""The stage that draws maps of the slides with the highest and the lowest risk."""

import math
from pathlib import Path

import pandas as pd

from pathoml.cohort import SlideEntry
from pathoml.cross_validation import MODEL
from pathoml.files import write_json
from pathoml.heatmap_settings import MapKind
from pathoml.heatmaps import kind_of, style_of
from pathoml.mil.patients import select_patients
from pathoml.packages import Member, load_package
from pathoml.pipeline.maps import MapRequest, draw_maps_of_slide, map_ends
from pathoml.pipeline.run_folder import check_training
from pathoml.pipeline.shown_names import shown_names
from pathoml.pipeline.stages import StageContext, slides_with_bags
from pathoml.pipeline.study import Study, is_imported
from pathoml.predictions import read_predictions
from pathoml.splits import Fold, read_folds


def heatmap_stage(study: Study, context: StageContext) -> list[tuple[str, Path]]:
    """Draw the maps of the test patients with the highest and the lowest risk.

    Parameters
    ----------
    study : Study
        After training.
    context : StageContext
        Device and listener.

    Returns
    -------
    list of (str, Path)
        Caption and PNG.
    """
    training = check_training(study.folder)
    chosen = _slides_to_draw(study) if study.config.slides is not None and study.config.heatmap.slides else []
    bags = study.config.slides.bags if study.config.slides is not None else Path()
    ends = map_ends(load_package(study.folder.package)) if chosen else {}
    drawn: list[tuple[str, Path]] = []
    kinds: set[MapKind] = set()
    for done, (entry, caption, fold) in enumerate(chosen, start=1):
        package = load_package(study.folder.members / fold.folder_name)
        known = select_patients(study.cohort, None, [entry.patient_id]).covariates
        request = MapRequest(entry, bags, package, caption, study.folder.heatmaps, ends, known)
        maps = draw_maps_of_slide(request, study.config.heatmap, device=context.device)
        drawn += [
            (f"{caption}: {style_of(one.name).title.lower()}; {style_of(one.name).key}; {one.words}", one.path)
            for one in maps
        ]
        kinds |= {kind_of(one.name) for one in maps}
        context.progress("heatmaps", done, len(chosen))
    if drawn or study.folder.heatmaps.is_dir():
        listed = [[caption, path.name] for caption, path in drawn]
        shown = {entry.patient_id for entry, _, _ in chosen}
        events = int(study.cohort.event[study.cohort.rows_of(sorted(shown))].sum())
        index = {"training": training, "maps": listed, "kinds": sorted(kinds), "patients": len(shown), "events": events}
        write_json(study.folder.heatmap_index, index)
        slides = tuple(f"{entry.slide_id}_" for entry, _, _ in chosen)
        for old in study.folder.heatmaps.iterdir():
            if old != study.folder.heatmap_index and not old.name.startswith(slides):
                old.unlink()
    return drawn


def _slides_to_draw(study: Study) -> list[tuple[SlideEntry, str, Fold]]:
    """Return slides with caption and fold: test patients by standardised risk, the extremes of both ends."""
    table = read_predictions(study.folder.predictions).table
    scheme = table["scheme"].iloc[0]
    wanted = (
        (table["model"] == MODEL) & (table["role"] == "test") & (table["scheme"] == scheme) & (table["repeat"] == 0)
    )
    table = table[wanted].copy()
    members: dict[str, Member] = {}
    folds = {one.name: one for one in read_folds(study.folder.folds) if one.scheme == scheme and one.repeat == 0}
    for name, fold in folds.items():
        members[name] = load_package(study.folder.members / fold.folder_name).members[0]
    table["standard"] = [
        (risk - members[fold].risk_centre) / members[fold].risk_scale
        for risk, fold in zip(table["risk"], table["fold"], strict=True)
    ]
    table = table.sort_values("standard", ascending=False)
    half = min(math.ceil(study.config.heatmap.slides / 2), len(table) // 2)
    extremes = pd.concat(
        [table.head(half), table.tail(study.config.heatmap.slides // 2 if half else 0)]
    ).drop_duplicates("patient_id")
    present = slides_with_bags(study)
    if is_imported(study.config.encoder):  # such slides need not exist, and then there is nothing to draw on
        present &= {entry.slide_id for entry in study.entries if entry.path.exists()}
    assert study.config.slides is not None  # a study without slides has none to draw
    names = shown_names(study.config.slides.manifest, study.entries)
    chosen = []
    for row in extremes.itertuples():
        entry = next(
            (entry for entry in study.cohort.slides.get(str(row.patient_id), ()) if entry.slide_id in present), None
        )
        if entry is None:
            continue
        slides = len(study.cohort.slides.get(str(row.patient_id), ()))
        alone = f" (one of {slides} slides, mapped alone)" if slides > 1 else ""
        called = f"Slide {names.slides[entry.slide_id]}{alone}, patient {names.patients[str(row.patient_id)]}"
        fold = folds[str(row.fold)]
        caption = f"{called}: risk {row.standard:+.2f} SD by the model of {fold.folder_name}, which tests this patient"
        chosen.append((entry, caption, fold))
    return chosen
