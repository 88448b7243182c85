"""Engines that exist: bags made by Ray's tasks are those of one process; a compiled encoder computes what the encoder does."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pathoml.cohort import SlideEntry
from pathoml.encoders.record import Encoder
from pathoml.encoders.settings import Lite0Settings
from pathoml.extract import extract_archive, extract_with_ray
from pathoml.extract.built import built_encoder
from pathoml.extract.ray_engine import needs_of_a_task
from pathoml.extract_settings import ExtractSettings
from tests.extract.test_shards import alone, bags, entry, recipe, slides
from tests.lethal_paths import Deadly, DeadlyToAll, Greedy, Hanging

__all__ = ["alone", "slides"]

pytestmark = pytest.mark.slow

NO_RAY = 'no Ray here: pip install "pathoml[ray]"'


def test_ray_gives_the_same_bags(slides: list[SlideEntry], alone: dict[str, bytes], tmp_path: Path) -> None:
    pytest.importorskip("ray", reason=NO_RAY)
    broken = tmp_path / "broken.tif"
    broken.write_text("no slide", encoding="ascii")
    outcomes = extract_with_ray([*slides, entry(broken)], recipe(2), tmp_path / "bags")
    assert [one.status for one in outcomes] == ["done"] * 4 + ["failed"]
    assert outcomes[-1].code == "TEXT"
    assert bags(tmp_path / "bags") == alone
    assert {one.status for one in extract_with_ray(slides, recipe(2), tmp_path / "bags")} == {"kept"}


def test_on_ray_a_slide_is_lost_alone_and_for_the_same_reason_as_on_one_machine(
    slides: list[SlideEntry], alone: dict[str, bytes], tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason=NO_RAY)
    good = slides[0].path
    kinds = {"segfault": Deadly, "greedy": Greedy, "hang": Hanging}
    lethal = [replace(entry(good), slide_id=name, path=kind(good)) for name, kind in kinds.items()]
    wanted = recipe(2)
    wanted = replace(wanted, extract=wanted.extract.model_copy(update={"slide_timeout_s": 8.0}))
    here = extract_archive([*lethal, slides[1]], wanted, tmp_path / "here")
    there = extract_with_ray([*lethal, slides[1]], wanted, tmp_path / "there")
    assert [(one.status, one.code) for one in there] == [(one.status, one.code) for one in here]
    assert [one.code for one in there] == ["WORKER_LOST", "OUT_OF_MEMORY", "WORKER_LOST", ""]
    assert bags(tmp_path / "there") == {"s1.h5": alone["s1.h5"]}


def test_a_slide_that_kills_the_process_of_its_task_is_found_among_the_others(
    slides: list[SlideEntry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason=NO_RAY)
    monkeypatch.setattr("pathoml.extract.ray_engine._shared_out", lambda entries, *_: [list(entries)])
    path = tmp_path / "deadly.tif"
    path.write_bytes(slides[0].path.read_bytes())
    Path(f"{path}.spared").write_text(str(os.getpid()), encoding="ascii")
    bag = tmp_path / "bags" / "deadly.h5"
    bag.parent.mkdir()
    bag.touch()  # a bag that is there lets the task itself look at its slide
    outcomes = extract_with_ray([replace(entry(path), path=DeadlyToAll(path)), slides[1]], recipe(1), bag.parent)
    assert [one.code or one.status for one in outcomes] == ["WORKER_LOST", "done"]
    assert "died twice" in outcomes[0].message
    ledger = [json.loads(line) for line in (bag.parent / "ledger.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["slide_id"]: line["code"] for line in ledger} == {"deadly": "WORKER_LOST", "s1": ""}


def process_number() -> int:
    return os.getpid()


def test_a_process_with_a_gpu_serves_one_task_after_the_other() -> None:
    ray = pytest.importorskip("ray", reason=NO_RAY)
    needs = needs_of_a_task(ExtractSettings(workers=0), "cuda")
    assert needs["num_gpus"] == 1
    ray.init(num_gpus=1, num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        task = ray.remote(**needs)(process_number)
        first = ray.get(task.remote())
        assert {ray.get(task.remote()) for _ in range(3)} == {first}
    finally:
        ray.shutdown()


def small() -> Encoder:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Encoder("small", module, 4, 0.5, 16, (0.5,) * 3, (0.5,) * 3, "e" * 64, "", "")


def test_a_compiled_encoder_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pathoml.encoders.build.build_encoder", lambda _: small())
    built_encoder.cache_clear()
    tiles = torch.randint(0, 255, (4, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain, compiled = (built_encoder(Lite0Settings(), ExtractSettings(compile=one), "cpu") for one in (False, True))
    compilations = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    features = compiled.encode(tiles, precision=torch.float32)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > compilations
    torch.testing.assert_close(features, plain.encode(tiles, precision=torch.float32), rtol=1e-4, atol=1e-5)
    built_encoder.cache_clear()
