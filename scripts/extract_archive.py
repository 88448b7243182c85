"""Turn a folder of slides into feature bags, without a clinical table.

Usage: python scripts/extract_archive.py SLIDES BAGS [--config study.yaml] [--pattern '*.svs'] [--mpp X] [--shard I/N]

Every file under SLIDES that matches a pattern is a slide, named as its path below SLIDES. Tissue, tiling, encoder and
extraction are those of the configuration (its cohort is not read), or the defaults. What is there already is kept, so
that the same command goes on after an interruption; several machines may share BAGS. BAGS/contact_sheets.html shows what was
kept and dropped of each slide, BAGS/quality.csv says it in numbers; with --shard they are left to a last call without it.
Exit codes are those of `pathoml`: 0 done, 1 some slides failed (listed; one without tissue does not count), 2 wrong input,
3 interrupted.
"""

import argparse
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from pathoml.cli.exits import exit_code_of
from pathoml.cli.terminal import say, say_outcomes, stage_context
from pathoml.errors import InputError

if TYPE_CHECKING:
    from pathoml.cohort import SlideEntry
    from pathoml.extract_settings import Recipe

SUFFIXES = ("*.svs", "*.tif", "*.tiff", "*.ndpi", "*.mrxs", "*.scn", "*.bif", "*.svslide", "*.vms", "*.dcm")


def slides_in(folder: Path, patterns: list[str], mpp: float | None) -> "list[SlideEntry]":
    """Return the slides below a folder, in the order of their names."""
    from pathoml.cohort import SlideEntry

    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and any(fnmatchcase(path.name.lower(), pattern.lower()) for pattern in patterns)
    )
    if not paths:
        raise InputError(f"{folder}: no slide below it; name a --pattern")
    names = ["--".join(path.relative_to(folder).with_suffix("").parts) for path in paths]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{folder}: two slides would be called {double}; narrow --pattern")
    return [
        SlideEntry(name, path, name, mpp if mpp is not None and not states_mpp(path) else None, row)
        for row, (name, path) in enumerate(zip(names, paths, strict=True))
    ]


def states_mpp(path: Path) -> bool:
    """Tell whether a slide says its resolution itself; one that cannot be opened is left to the extraction to name."""
    from pathoml.errors import SlideError
    from pathoml.slides import open_slide

    try:
        with open_slide(path) as slide:
            return slide.geometry.mpp is not None
    except SlideError:
        return True


def recipe_of(config: Path | None) -> "Recipe":
    """Return the recipe of a configuration, or the default one."""
    from pathoml.config import load_config
    from pathoml.encoders.settings import Lite0Settings
    from pathoml.extract_settings import ExtractSettings, Recipe
    from pathoml.tiling import TilingSettings
    from pathoml.tissue import ClassicalTissueSettings

    if config is None:
        return Recipe(ClassicalTissueSettings(), TilingSettings(), Lite0Settings(), ExtractSettings())
    return load_config(config).recipe


def extract_folder(options: argparse.Namespace) -> int:
    """Extract, and say what became of every slide."""
    from pathoml.extract.shards import parse_shard

    shard, recipe = parse_shard(options.shard), recipe_of(options.config)
    found = slides_in(options.slides, options.pattern or list(SUFFIXES), options.mpp)
    from pathoml.extract import extract_archive  # loads torch, after what may be wrong has been looked at
    from pathoml.pipeline.quality import write_quality

    with stage_context(options.device) as context:
        outcomes = extract_archive(
            shard.of(found), recipe, options.bags, device=context.device, progress=context.progress, watch=context.watch
        )
    if shard.parts == 1:
        write_quality(found, outcomes, {}, options.bags, options.slides.resolve().name)
        say(f"what was kept and dropped: {options.bags / 'contact_sheets.html'}")
    say_outcomes(outcomes)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slides", type=Path)
    parser.add_argument("bags", type=Path)
    parser.add_argument("--config", type=Path, help="configuration whose recipe is used")
    parser.add_argument("--pattern", action="append", help="file pattern; may be given several times")
    parser.add_argument("--mpp", type=float, help="microns per level-0 pixel of slides that do not say it")
    parser.add_argument("--shard", default="1/1", help="only the I-th of N parts, as I/N")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options = parser.parse_args()
    return exit_code_of(lambda: extract_folder(options))


if __name__ == "__main__":
    sys.exit(main())
