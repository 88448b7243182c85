"""Turn a folder of slides into feature bags, without a clinical table.

Usage: python scripts/extract_archive.py SLIDES BAGS [--config study.yaml] [--pattern '*.svs'] [--mpp X] [--shard I/N]

Every file under SLIDES that matches a pattern is a slide, named as its path below SLIDES. Tissue, tiling, encoder and
extraction are those of the configuration (its cohort is not read), or the defaults. What is there already is kept, so
that the same command goes on after an interruption; several machines may share BAGS. BAGS/contact_sheets.html shows what was
kept and dropped of each slide, BAGS/quality.csv says it in numbers; with --shard they are left to a last call without it.
Exit code 1 if a slide failed.
"""

import argparse
import signal
import sys
from fnmatch import fnmatchcase
from pathlib import Path

from pathoml.cohort import SlideEntry
from pathoml.config import load_config
from pathoml.encoders.settings import Lite0Settings
from pathoml.errors import OutputError, PathomlError, SlideError
from pathoml.extract import ExtractStatus, extract_archive, parse_shard
from pathoml.extract_settings import ExtractSettings, Recipe
from pathoml.pipeline.doctor import resolve_device
from pathoml.pipeline.quality import write_quality
from pathoml.slides import open_slide
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings

SUFFIXES = ("*.svs", "*.tif", "*.tiff", "*.ndpi", "*.mrxs", "*.scn", "*.bif", "*.svslide", "*.vms", "*.dcm")


def slides_in(folder: Path, patterns: list[str], mpp: float | None) -> list[SlideEntry]:
    """Return the slides below a folder, in the order of their names."""
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and any(fnmatchcase(path.name.lower(), pattern.lower()) for pattern in patterns)
    )
    names = ["--".join(path.relative_to(folder).with_suffix("").parts) for path in paths]
    if len(set(names)) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        sys.exit(f"{folder}: two slides would be called {double}; narrow --pattern")
    return [
        SlideEntry(name, path, name, mpp if mpp is not None and not states_mpp(path) else None, row)
        for row, (name, path) in enumerate(zip(names, paths, strict=True))
    ]


def states_mpp(path: Path) -> bool:
    """Tell whether a slide says its resolution itself; one that cannot be opened is left to the extraction to name."""
    try:
        with open_slide(path) as slide:
            return slide.geometry.mpp is not None
    except SlideError:
        return True


def say(status: ExtractStatus) -> None:
    """Write one line on standard error."""
    print(
        f"{status.ended} of {status.slides} slides, {status.failed} failed, {status.tiles_per_s:.0f} tiles/s, "
        f"encoder busy {status.device_busy_share:.0%}",
        file=sys.stderr,
    )


def interrupt(number: int, frame: object) -> None:
    """Let SIGTERM end the work as Ctrl-C does: orderly."""
    raise KeyboardInterrupt


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
    signal.signal(signal.SIGTERM, interrupt)
    try:
        shard = parse_shard(options.shard)
        recipe = Recipe(ClassicalTissueSettings(), TilingSettings(), Lite0Settings(), ExtractSettings())
        if options.config:
            recipe = load_config(options.config).recipe
        found = slides_in(options.slides, options.pattern or list(SUFFIXES), options.mpp)
        if not found:
            print(f"{options.slides}: no slide below it; name a --pattern", file=sys.stderr)
            return 2
        device = resolve_device(options.device)
        outcomes = extract_archive(shard.of(found), recipe, options.bags, device=device, watch=say)
        if shard.parts == 1:
            write_quality(found, outcomes, {}, options.bags, options.slides.resolve().name)
            print(f"what was kept and dropped: {options.bags / 'contact_sheets.html'}")
    except OutputError as error:
        print(f"{error}\nwhat was finished is kept; the same command goes on", file=sys.stderr)
        return 3
    except PathomlError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 3
    lost = [one for one in outcomes if not one.has_bag]
    for one in lost:
        print(f"{one.slide_id}: {one.code}: {one.message}", file=sys.stderr)
    print(f"slides: {len(outcomes) - len(lost)} with a bag, {len(lost)} without; {options.bags}")
    return 1 if any(one.code != "NO_TISSUE" for one in lost) else 0


if __name__ == "__main__":
    sys.exit(main())
