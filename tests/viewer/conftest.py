"""A folder of two drawn slides in the viewer; one has a name that the manifest hides."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pathoml.pipeline.viewing import open_library
from pathoml.testing.pyramid import write_pyramid
from tests.viewer.running import RunningViewer, running_viewer


def coloured(width: int, height: int) -> np.ndarray:
    """A picture in which every place has its own colour: red grows to the right, green downwards."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 128)], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slides")
    write_pyramid(folder / "Maria_Muster_1950.tif", coloured(3000, 2000), mpp=0.5)
    write_pyramid(folder / "plain.tif", coloured(700, 900), mpp=0.5, downsamples=())
    path = folder / "slides.csv"
    path.write_text(
        "slide_id,path,patient_id,pseudonym\n"
        "Maria_Muster_1950,Maria_Muster_1950.tif,Muster,S-0001\nplain,plain.tif,P2,\n"
    )
    return path


@pytest.fixture(scope="module")
def viewer(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningViewer]:
    with running_viewer(open_library(manifest), tmp_path_factory.mktemp("cache")) as running:
        yield running
