"""Commands that apply a model package to slides."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pathoml.cli.terminal import (
    ConfigPath,
    Device,
    Overrides,
    PackagePath,
    load,
    say,
    say_outcomes,
    show_table,
    stage_context,
)

app = typer.Typer()

Inputs = Annotated[
    list[Path] | None, typer.Argument(metavar="SLIDES...", help="Slides, bags (.h5), or a manifest (.csv).")
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")]
Table = Annotated[Path | None, typer.Option(help="Table with patient_id and the model's covariates.")]
Weights = Annotated[str | None, typer.Option(help="Weights file of a local or registered encoder.")]
TissueSource = Annotated[
    str | None,
    typer.Option(
        help="Folder of outlined regions, or weights file of the segmentation network, if the model used one."
    ),
]


Impute = Annotated[
    bool,
    typer.Option(
        "--impute-covariates", help="Fill in training medians and most frequent words where no table is given."
    ),
]


RecalibrationPath = Annotated[
    Path | None, typer.Option(help="recalibration.json of 'pathoml validate' for this package.")
]


@app.command()
def predict(  # noqa: PLR0913, PLR0917 - one for each option of the command
    package: PackagePath,
    slides: Inputs = None,
    output: Output = Path("predictions"),
    table: Table = None,
    impute_covariates: Impute = False,  # noqa: FBT002
    encoder_weights: Weights = None,
    tissue_source: TissueSource = None,
    recalibration: RecalibrationPath = None,
    device: Device = "auto",
) -> None:
    """Predict patients that the model has never seen."""
    from pathoml.pipeline.predicting import PredictRequest
    from pathoml.pipeline.predicting import predict as run_predict

    request = PredictRequest(
        package, tuple(slides or ()), output, table, impute_covariates, encoder_weights, tissue_source, recalibration
    )
    with stage_context(device) as context:
        predictions, outcomes = run_predict(request, context)
    show_table(
        "Risk (0 = average training patient, in SD; high = above the training patients' median)",
        _risk_rows(predictions.table),
    )
    say(f"predictions: {output / 'predictions.csv'}; research use only")
    say_outcomes(outcomes)


class Scale(StrEnum):
    """Where the colours of a map end."""

    RAW = "raw"
    PERCENTILE = "percentile"
    COHORT = "cohort"


Files = Annotated[
    str,
    typer.Option(
        help="What is written of each map, with commas between: picture, overlay, csv, bands, tiles, ome_tiff."
    ),
]
ScaleOption = Annotated[
    Scale, typer.Option(help="raw: the slide's own values; percentile; cohort: as in the training cohort.")
]


class HowToRecalibrate(StrEnum):
    """What of the survival curves is brought into agreement with the patients."""

    level = "level"
    slope = "slope"


Recalibrate = Annotated[HowToRecalibrate, typer.Option(help="Level of the curves, or level and spread.")]
ValidationOutput = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")]


@app.command()
def validate(  # noqa: PLR0913, PLR0917 - one for each option of the command
    package: PackagePath,
    config: ConfigPath,
    overrides: Overrides = None,
    output: ValidationOutput = Path("validation"),
    recalibrate: Recalibrate = HowToRecalibrate.level,
    encoder_weights: Weights = None,
    tissue_source: TissueSource = None,
) -> None:
    """Judge a model package, as it is and recalibrated, on the patients of another cohort."""
    from pathoml.pipeline.validating import ValidateRequest
    from pathoml.pipeline.validating import validate as run_validate
    from pathoml.report.words import estimate_words

    settings = load(config, overrides)
    request = ValidateRequest(package, settings, output, recalibrate.value, encoder_weights, tissue_source)
    with stage_context(settings.device) as context:
        evaluation, outcomes = run_validate(request, context)
    for model, metrics in evaluation["schemes"]["validation"]["metrics"].items():
        show_table(f"{model} (95 % intervals)", [(metric, estimate_words(value)) for metric, value in metrics.items()])
    say(f"report:        {output / 'report.html'}")
    say(f"recalibration: {output / 'recalibration.json'} (the package is unchanged); research use only")
    say_outcomes(outcomes)


@app.command()
def heatmap(  # noqa: PLR0913, PLR0917 - one for each option of the command
    package: PackagePath,
    slides: Inputs = None,
    output: Output = Path("heatmaps"),
    files: Files = "picture,bands,csv",
    scale: ScaleOption = Scale.RAW,
    picture_mpp: Annotated[float, typer.Option(help="Microns per pixel of pictures.", min=0.5, max=64)] = 4.0,
    encoder_weights: Weights = None,
    tissue_source: TissueSource = None,
    device: Device = "auto",
) -> None:
    """Draw what each tile of slides adds to the risk, where the model looks, and where its members disagree."""
    from pydantic import ValidationError

    from pathoml.errors import InputError
    from pathoml.heatmap_settings import HeatmapSettings
    from pathoml.pipeline.predicting import PredictRequest, draw_maps

    request = PredictRequest(
        package, tuple(slides or ()), output, encoder_weights=encoder_weights, tissue_source=tissue_source
    )
    try:
        settings = HeatmapSettings.model_validate(
            {
                "files": [name.strip() for name in files.split(",")], "scale": scale.value, "picture_mpp": picture_mpp,
                "kinds": ["contribution", "attention", "disagreement"],
            }
        )  # fmt: skip
    except ValidationError as error:
        raise InputError(f"--files {files}: {error.errors()[0]['msg']}") from error
    with stage_context(device) as context:
        drawn, outcomes = draw_maps(request, context, settings)
    for path in drawn:
        say(f"heatmap: {path}")
    say(f"maps of {sum(outcome.has_bag for outcome in outcomes)} slide(s): {output}")
    say_outcomes(outcomes)


def _risk_rows(table: Any) -> list[tuple[str, str]]:
    return [(row.patient_id, f"{row.risk:+.2f}  {row.risk_group}") for row in table.head(30).itertuples()]
