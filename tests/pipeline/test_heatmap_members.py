"""The maps of a run: every slide is looked at by the member that has not seen its patient."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pathoml.config import load_config
from pathoml.pipeline import mapping
from pathoml.pipeline.mapping import heatmap_stage
from pathoml.pipeline.maps import MapRequest
from pathoml.pipeline.stages import StageContext, usable_study
from pathoml.pipeline.study import open_study
from pathoml.provenance import digest_of
from pathoml.splits import Fold, read_folds
from tests.small_cohort import FinishedRun

pytestmark = pytest.mark.xdist_group("small_cohort")


@pytest.fixture
def requests(
    finished: FinishedRun, copy_of_cohort: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> list[MapRequest]:
    """What would be drawn of a finished run if every test patient were to be drawn."""
    folder = copy_of_cohort()
    for name in ("run", "bags"):
        shutil.copytree(finished.folder / name, folder / name)
    asked: list[MapRequest] = []
    monkeypatch.setattr(mapping, "draw_maps_of_slide", lambda request, *_, **__: asked.append(request) or [])
    config = load_config(folder / "study.yaml", ["heatmap.slides=24"])
    heatmap_stage(usable_study(open_study(config)), StageContext())
    return asked


def test_every_map_is_drawn_by_the_one_member_that_did_not_train_on_the_patient(
    finished: FinishedRun, requests: list[MapRequest]
) -> None:
    folds = [fold for fold in read_folds(finished.result.folder.folds) if fold.scheme == "kfold"]
    fold_of_member: dict[str, Fold] = {digest_of(fold.key)[:8]: fold for fold in folds}
    assert len(requests) == 24, "one slide of each patient"
    for request in requests:
        (member,) = request.package.members
        fold = fold_of_member[member.fold]
        assert request.entry.patient_id in fold.test
        assert request.entry.patient_id not in (*fold.train, *fold.validation)
    assert {request.package.members[0].fold for request in requests} == set(fold_of_member)
