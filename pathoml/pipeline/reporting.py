"""The stage that writes a run's page."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from pathoml.artefacts import flag_name
from pathoml.cohort import flow_from_json
from pathoml.cohort.spelling import TCGA_PATIENT
from pathoml.config import Config
from pathoml.encoders.registry import find_record
from pathoml.encoders.settings import RegisteredSettings
from pathoml.errors import InputError
from pathoml.evaluate import EVALUATION_VERSION
from pathoml.heatmap_settings import MapKind
from pathoml.packages import load_package
from pathoml.pipeline.checking import clinical_names, cohort_facts
from pathoml.pipeline.quality import WARNED_FLAGS, quality_path
from pathoml.pipeline.reporting_words import answers_of, methods_of
from pathoml.pipeline.run_folder import RunFolder, check_training, read_json
from pathoml.pipeline.stages import slides_with_bags
from pathoml.pipeline.study import Study
from pathoml.report import Page, write_report
from pathoml.settings import result_settings
from pathoml.splits import read_folds


def report_stage(study: Study) -> Path:
    """Write the page.

    Parameters
    ----------
    study : Study
        After evaluation, and after the heatmaps if the page is to show them.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    InputError
        If training was not finished, its files have been changed, or the evaluation is of another training.
    """
    folder = study.folder
    training = check_training(folder)
    evaluation = read_json(folder.evaluation, "run 'pathoml evaluate' first")
    if evaluation.get("format_version") != EVALUATION_VERSION:
        raise InputError(f"{folder.evaluation}: made by another version of pathoml; run 'pathoml evaluate' again")
    if evaluation.get("training") != training:
        raise InputError(f"{folder.root}: the evaluation is not of this training; run 'pathoml evaluate' again")
    maps = _drawn_heatmaps(folder, training, study.config)
    facts = [
        (name, value) for name, value in cohort_facts(study) if name != "Slides" and not name.startswith("Left out")
    ]
    if study.config.slides is not None:
        facts.append(("Slides", f"{len(slides_with_bags(study))} used of {len(study.entries)}"))
    leakage = read_json(folder.leakage, "run 'pathoml train' again")
    package, folds = load_package(folder.package), read_folds(folder.folds)
    if package.feature_spec is not None:
        summary = package.summary
        origin = f"pretrained on {summary['encoder_pretraining']}; licence {summary['encoder_licence']}"
        facts.append(("Encoder", f"{package.feature_spec.encoder}; {origin}"))
    page = Page(
        title=study.config.name,
        endpoint=study.cohort.endpoint,
        facts=facts,
        warnings=[
            *(str(warning) for warning in study.cohort.warnings),
            *_leak_warnings(leakage),
            *_slide_warnings(folder),
            *_quality_warnings(study),
            *_pretraining_warnings(study),
            *_start_warnings(study),
            *maps.warnings,
        ],
        evaluation=evaluation,
        heatmaps=maps.pictures,
        provenance=[("Configuration digest", study.config.digest), *_environment_of(folder)],
        settings=json.dumps(result_settings(study.config), indent=2),
        flow=flow_from_json(read_json(folder.flow, "run 'pathoml train' again")),
        leakage=leakage,
        tuned=package.summary.get("tuned", {}),
        methods=methods_of(study, evaluation, folds, package, read_json(folder.balance, "run 'pathoml train' again")),
        answers=answers_of(study, evaluation, folds, package),
        map_note=maps.note,
        clinical=" and ".join(clinical_names(study.config)),
    )
    write_report(folder.report, page)
    return folder.report


def _leak_warnings(leakage: Mapping[str, Any]) -> list[str]:
    """Name the checks for leaks that warn; what they found stands further down."""
    names = list(dict.fromkeys(one["check"] for one in leakage["findings"] if one["level"] == "warning"))
    return [f"Checks for leaks warn: {', '.join(names)}; see Leaks looked for."] if names else []


def _slide_warnings(folder: RunFolder) -> list[str]:
    if not folder.slides.is_file():
        return []
    table = pd.read_csv(folder.slides, dtype=str, keep_default_na=False)
    failed = table[table["has_bag"] != "True"]
    return [f"Slide {row.slide_id} was left out: {row.code}: {row.message}" for row in failed.itertuples()]


def _quality_warnings(study: Study) -> list[str]:
    """Name the slides most of whose tiles are flagged: they were used all the same."""
    if study.config.slides is None or not quality_path(study.config.slides.bags).is_file():
        return []
    table = pd.read_csv(quality_path(study.config.slides.bags), dtype={"slide_id": str})
    used = table[table["slide_id"].isin(slides_with_bags(study))]
    warnings = []
    for flag in WARNED_FLAGS:
        column = used[f"{flag_name(flag)}_share"]
        mostly = [
            f"{slide} ({share:.0%})" for slide, share in zip(used["slide_id"], column, strict=True) if share > 0.5
        ]
        if mostly:
            shown = ", ".join(mostly[:10]) + (f" and {len(mostly) - 10} more" if len(mostly) > 10 else "")
            warnings.append(
                f"Most tiles are flagged {flag_name(flag).replace('_', ' ')} and were used all the same: {shown}."
            )
    return warnings


def _pretraining_warnings(study: Study) -> list[str]:
    """Say where the encoder has seen slides of these patients' archive before."""
    encoder = study.config.encoder
    if study.config.slides is None or not isinstance(encoder, RegisteredSettings):
        return []
    named = sum(bool(TCGA_PATIENT.match(patient)) for patient in study.cohort.patient_id.tolist())
    pretrained = find_record(encoder.name).pretrained_on_tcga
    if not named or pretrained is False:
        return []
    patients = f"{named} of {len(study.cohort)} patients look like TCGA's"
    if pretrained is None:
        return [
            f"Whether encoder {encoder.name} was pretrained on slides of TCGA is not known to pathoml, and {patients}:"
            " ask its authors before you call this an external test."
        ]
    return [
        f"Encoder {encoder.name} was pretrained on slides of TCGA, and {patients}: it may have seen their slides, so this is"
        " no external test. Confirm on patients of another source."
    ]


def _start_warnings(study: Study) -> list[str]:
    start = study.config.model.start
    if start is None:
        return []
    return [
        f"The model started from published weights ({start.weights.name}): whether they have seen any of these patients cannot be"
        " known here; ask their authors."
    ]


def _environment_of(folder: RunFolder) -> list[tuple[str, str]]:
    """Return the versions that the run was made with, which need not be those of today."""
    recorded = read_json(folder.environment, "run 'pathoml train' again")
    return [(str(name), str(value)) for name, value in recorded.items()]


class _Maps(NamedTuple):
    """The maps of a run: caption and PNG, what they are of, and why there are none."""

    pictures: list[tuple[str, Path]]
    note: str
    warnings: list[str]


def _drawn_heatmaps(folder: RunFolder, training: str, config: Config) -> _Maps:
    """Return the maps that this training's models drew, and a warning where there are only those of another."""
    if not folder.heatmap_index.is_file():
        return _Maps([], "", [])
    index = read_json(folder.heatmap_index, "run 'pathoml run' again")
    if "events" not in index or index.get("training") != training:
        drawn = "by an older pathoml" if "events" not in index else "for another training"
        return _Maps([], "", [f"The maps in the run folder were drawn {drawn} and are left out; run 'pathoml run'."])
    pictures = [(caption, folder.heatmaps / name) for caption, name in index["maps"]]
    return _Maps(pictures, _about_maps(index, config) if pictures else "", [])


def _about_maps(index: Mapping[str, Any], config: Config) -> str:
    """Say of how many patients maps are shown, and which kinds were asked for and are not given by the models."""
    missing = [f"{kind} ({_GIVEN_BY[kind]})" for kind in config.heatmap.kinds if kind not in index["kinds"]]
    given = f" Asked for and not given by these models: {', '.join(missing)}." if missing else ""
    return (
        f"Shown are slides of {index['patients']} test patients with the highest and the lowest risk, of whom {index['events']}"
        f" had the event.{given}"
    )


_GIVEN_BY: dict[MapKind, str] = {
    "contribution": "models of slides",
    "attention": "models that weigh tiles",
    "disagreement": "several models averaged",
    "modality": "models that join parts by gates or co-attention",
}
