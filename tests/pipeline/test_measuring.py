"""`plan --measure` times what extraction does and proposes what can be pasted."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pathoml.config import load_config
from pathoml.encoders.record import Encoder
from pathoml.pipeline.measuring import BATCHES, Timing, measure_batches, proposal
from tests.small_cohort import FinishedRun

pytestmark = pytest.mark.xdist_group("small_cohort")


class Slow(nn.Module):
    """No memory for more than eight tiles; remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def forward(self, images: Tensor) -> Tensor:
        self.seen.add(len(images))
        if len(images) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images.mean(dim=(2, 3))


def test_every_shape_is_tried_and_what_does_not_fit_is_not_proposed(
    finished: FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Slow()
    encoder = Encoder("toy", module, 3, 0.5, 224, (0.0,) * 3, (1.0,) * 3, "e" * 64, "", "")

    def built(*_: object) -> Encoder:
        return encoder

    monkeypatch.setattr("pathoml.pipeline.measuring.built_encoder", built)
    monkeypatch.setattr("pathoml.pipeline.measuring._LEAST_S", 0.01)
    timings = list(measure_batches(load_config(finished.folder / "study.yaml"), "cpu"))
    assert [one.batch_tiles for one in timings] == [*BATCHES["cpu"]] * 2
    assert module.seen == set(BATCHES["cpu"])
    assert all((one.tiles_per_s > 0) == (one.batch_tiles <= 8) for one in timings)
    assert all(int(line.split("batch_tiles: ")[1].split("}")[0]) <= 8 for line in proposal(timings).splitlines())


def test_of_nearly_equal_shapes_the_smallest_is_proposed_as_yaml_that_loads(
    tmp_path: Path, finished: FinishedRun
) -> None:
    timings = [
        Timing("float32", 4, 50.0), Timing("float32", 8, 98.0), Timing("float32", 16, 100.0),
        Timing("bfloat16", 4, 10.0), Timing("bfloat16", 8, 100.0), Timing("bfloat16", 16, 200.0),
    ]  # fmt: skip
    first, second = proposal(timings).splitlines()
    assert first.startswith("extract: {precision: float32, batch_tiles: 8}")
    assert second.startswith("extract: {precision: bfloat16, batch_tiles: 16}")
    base = finished.folder / "study.yaml"
    (tmp_path / "study.yaml").write_text(f"extends: [{base}]\n{second}\n", encoding="utf-8")
    assert load_config(tmp_path / "study.yaml").extract.batch_tiles == 16
