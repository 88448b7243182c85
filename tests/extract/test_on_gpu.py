"""The engine on GPUs: the same features as on the CPU, batches that shrink where memory is short, all GPUs at work."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pathoml.bags import read_bag
from pathoml.cohort import SlideEntry
from pathoml.extract import extract_archive
from pathoml.extract.built import release_encoders
from pathoml.extract_settings import Recipe
from tests.extract.test_shards import alone, bags, recipe, slides

__all__ = ["alone", "slides"]

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.fixture(autouse=True)
def _all_memory_is_given_back() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    release_encoders()


def on_gpu(**changes: object) -> Recipe:
    wanted = recipe(2)
    return replace(wanted, extract=wanted.extract.model_copy(update=changes))


def least_cosine(folder: Path, expected: Path) -> float:
    """Return how far the features of any tile turn away from those of the same tile elsewhere."""
    least = 1.0
    for path in sorted(expected.glob("*.h5")):
        one, other = (read_bag(place / path.name).features.astype(np.float64) for place in (folder, expected))
        cosine = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        least = min(least, float(cosine.min()))
    return least


@pytest.fixture(scope="module")
def on_cpu(slides: list[SlideEntry], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cpu")
    extract_archive(slides, recipe(2), folder)
    return folder


@pytest.mark.parametrize(("precision", "least"), [("float32", 0.99999), ("bfloat16", 0.999), ("float16", 0.9999)])
def test_features_are_those_of_the_cpu_in_every_number_format(
    precision: str, least: float, slides: list[SlideEntry], on_cpu: Path, tmp_path: Path
) -> None:
    outcomes = extract_archive(slides, on_gpu(precision=precision, batch_tiles=64), tmp_path, device="cuda")
    assert {one.status for one in outcomes} == {"done"}
    assert least_cosine(tmp_path, on_cpu) > least
    status = json.loads((tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert 0 < status["device_busy_share"] <= 1
    assert {read_bag(path).header.precision_used for path in tmp_path.glob("*.h5")} == {precision}


def test_resuming_and_decoding_in_process_change_no_byte(slides: list[SlideEntry], tmp_path: Path) -> None:
    extract_archive(slides, on_gpu(), tmp_path / "whole", device="cuda")
    extract_archive(slides[:1], on_gpu(), tmp_path / "parts", device="cuda")
    extract_archive(slides, on_gpu(workers=0), tmp_path / "parts", device="cuda")
    assert bags(tmp_path / "parts") == bags(tmp_path / "whole")


def test_too_little_memory_of_the_device_halves_the_batch(
    slides: list[SlideEntry], on_cpu: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """FAULTS row 27, with a device that is truly short of memory."""
    wanted = on_gpu(batch_tiles=2048)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2.5e9 / total))
    outcomes = extract_archive(slides, wanted, tmp_path, device="cuda:0")
    assert {one.status for one in outcomes} == {"done"}
    assert "has no memory for 2048 tiles at once; going on with 1024" in caplog.text
    assert least_cosine(tmp_path, on_cpu) > 0.9999
    assert all(read_bag(path).header.batch_used < 2048 for path in tmp_path.glob("*.h5"))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_several_gpus_give_the_bytes_of_one(slides: list[SlideEntry], tmp_path: Path) -> None:
    extract_archive(slides, on_gpu(), tmp_path / "one", device="cuda:0")
    extract_archive(slides, on_gpu(), tmp_path / "all", device="cuda")
    assert bags(tmp_path / "all") == bags(tmp_path / "one")
