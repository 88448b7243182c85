"""Commands that look at slides."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pathoml.cli.terminal import SOME_FAILED, say, show_table

if TYPE_CHECKING:
    from pathoml.extract_settings import Recipe

app = typer.Typer(help="Look at slides.", no_args_is_help=True)


@app.command("info")
def slide_info(
    slides: Annotated[list[Path], typer.Argument(help="Slides.")],
    mpp: Annotated[
        float | None,
        typer.Option("--slide-mpp", "--mpp", help="Microns per level-0 pixel, instead of what the slides say."),
    ] = None,
) -> None:
    """Show size, levels, resolution and how fast slides are read; nothing that could name a person."""
    from pathoml.errors import SlideError
    from pathoml.pipeline.slide_facts import slide_facts

    failed = 0
    for path in slides:
        try:
            show_table(path.name, slide_facts(path, mpp=mpp))
        except SlideError as error:
            failed += 1
            say(f"{error.code}: {error}", error=True)
    if failed:
        raise typer.Exit(SOME_FAILED)


Config = Annotated[
    Path | None, typer.Option(help="Configuration whose tissue, quality and tiling are used; without, the defaults.")
]


def _recipe_of(config: Path | None) -> "Recipe | None":
    from pathoml.config import load_config

    return None if config is None else load_config(config).recipe


@app.command("thumbnail")
def slide_thumbnail(
    slide: Path,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG to write.")] = Path("thumbnail.png"),
    slide_mpp: Annotated[
        float | None, typer.Option(help="Microns per level-0 pixel, instead of what the slide says.")
    ] = None,
    config: Config = None,
    mpp: Annotated[
        float, typer.Option("--picture-mpp", help="Microns per pixel of a --plain picture.", min=0.05)
    ] = 8.0,
    *,
    plain: Annotated[bool, typer.Option("--plain", help="The picture alone, without tissue and tiles.")] = False,
) -> None:
    """Write a small picture of a slide: its tissue, and what becomes of each tile; never its label."""
    if not plain:
        from pathoml.pipeline.slide_facts import write_sheet_of

        write_sheet_of(slide, output, mpp=slide_mpp, recipe=_recipe_of(config))
        say(f"contact sheet: {output}")
        return
    from PIL import Image

    from pathoml.files import atomic_path
    from pathoml.slides import open_slide, whole_slide_image

    with open_slide(slide, mpp=slide_mpp) as opened, atomic_path(output) as temporary:
        Image.fromarray(whole_slide_image(opened, mpp)).save(temporary, format="PNG")
    say(f"thumbnail: {output}")


@app.command("regions")
def slide_regions(
    slide: Path,
    output: Annotated[Path, typer.Option("--output", "-o", help="GeoJSON to write.")] = Path("regions.geojson"),
    slide_mpp: Annotated[
        float | None, typer.Option(help="Microns per level-0 pixel, instead of what the slide says.")
    ] = None,
    config: Config = None,
) -> None:
    """Write tissue, artefacts and tiles as GeoJSON for QuPath; read as `tissue: {kind: geojson}` it gives the same tiles."""
    from pathoml.pipeline.slide_facts import write_regions_of

    tiles = write_regions_of(slide, output, mpp=slide_mpp, recipe=_recipe_of(config))
    say(f"regions: {output} (tissue, artefacts and {tiles} tiles); drop the file onto the slide in QuPath")
