"""CPU and GPU from the same configuration."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pathoml.bags import read_bag
from pathoml.config import load_config
from pathoml.pipeline.running import run
from pathoml.pipeline.stages import StageContext

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_features_and_concordance_of_the_gpu_are_those_of_the_cpu(finished, copy_of_cohort: Callable[[], Path]):
    folder = copy_of_cohort()
    result = run(load_config(folder / "study.yaml"), StageContext(device="cuda"))
    for path in (finished.folder / "bags").glob("*.h5"):
        cpu, gpu = (
            read_bag(path).features.astype(np.float64),
            read_bag(folder / "bags" / path.name).features.astype(np.float64),
        )
        cosine = (cpu * gpu).sum(axis=1) / np.linalg.norm(cpu, axis=1) / np.linalg.norm(gpu, axis=1)
        assert cosine.min() > 0.9999
    for name, values in finished.result.evaluation["schemes"]["kfold"]["metrics"].items():
        other = result.evaluation["schemes"]["kfold"]["metrics"][name]
        assert other["concordance"]["value"] == pytest.approx(values["concordance"]["value"], abs=0.05)


def test_mixed_precision_trains_on_the_gpu(finished, copy_of_cohort: Callable[[], Path]):
    config = load_config(
        copy_of_cohort() / "study.yaml", ["train.precision=bfloat16", f"slides.bags={finished.folder / 'bags'}"]
    )
    result = run(config, StageContext(device="cuda"))
    assert result.evaluation["schemes"]["kfold"]["metrics"]["model"]["concordance"]["value"] is not None
