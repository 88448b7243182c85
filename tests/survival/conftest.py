"""Real survival data that ships inside scikit-survival and lifelines."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from lifelines.datasets import load_rossi
from sksurv import datasets

from pathoml.units import FloatArray, IntArray

STUDIES = ("whas500", "gbsg2", "veterans", "rossi")


class Part(NamedTuple):
    """Follow-up of some patients, with standardised columns."""

    time: FloatArray
    event: IntArray
    design: FloatArray


class RealStudy(NamedTuple):
    """A training half and a test half whose follow-up lies within the training half's."""

    train: Part
    test: Part


def _load(name: str) -> Part:
    if name == "rossi":
        table = load_rossi()
        time, event, columns = table.pop("week"), table.pop("arrest"), table
    else:
        loader = {"whas500": "load_whas500", "gbsg2": "load_gbsg2", "veterans": "load_veterans_lung_cancer"}[name]
        columns, outcome = getattr(datasets, loader)()
        event_name, time_name = outcome.dtype.names
        time, event = outcome[time_name], outcome[event_name]
    numbers = pd.get_dummies(columns, drop_first=True).to_numpy(dtype=np.float64)
    return Part(np.asarray(time, np.float64), np.asarray(event, np.int64), (numbers - numbers.mean(0)) / numbers.std(0))


@pytest.fixture(params=STUDIES)
def everyone(request: pytest.FixtureRequest) -> Part:
    """All patients of a study; rossi and veterans are full of ties."""
    return _load(request.param)


@pytest.fixture
def study(everyone: Part) -> RealStudy:
    """Return two halves at random; scikit-survival wants test follow-up inside the training follow-up."""
    order = np.random.default_rng(0).permutation(len(everyone.time))
    half = len(order) // 2
    train = Part(*(values[order[:half]] for values in everyone))
    rest = order[half:]
    last = train.time.max()
    rest = rest[(everyone.time[rest] < last) | ((everyone.time[rest] == last) & (everyone.event[rest] == 0))]
    return RealStudy(train, Part(*(values[rest] for values in everyone)))
