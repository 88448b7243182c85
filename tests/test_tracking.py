"""Numbers of each epoch reach whoever was asked to keep them."""

import json
import sys
from pathlib import Path

import pytest

from pathoml.errors import InputError
from pathoml.fold_fitting import FitPlan, fit_fold, fit_folds
from pathoml.splits import KFoldSettings, SplitsSettings, make_folds
from pathoml.tracking import Tracking
from pathoml.train_settings import TrackingSettings
from tests.planted import MEAN, QUICK, TEMPLATE, data, one_fold

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
"""MLflow's and TensorBoard's own."""


def trained(folder: Path, settings: TrackingSettings) -> list[dict[str, float]]:
    folder.mkdir(exist_ok=True)
    everything = data(60)
    settings_of_training = QUICK.model_copy(update={"members": 2})
    plan = FitPlan(MEAN, settings_of_training, TEMPLATE, folder / "folds", tracking=Tracking(folder, "study", settings))
    fit_fold(everything, one_fold(everything), plan)
    return [json.loads(line) for line in (folder / "folds" / "kfold-0.jsonl").read_text().splitlines()]


def test_a_line_an_epoch_is_written_as_it_happens(tmp_path: Path) -> None:
    rows = trained(tmp_path, TrackingSettings())
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == rows
    assert {row["seed"] for row in rows} == {0, 1}
    assert not (tmp_path / "tensorboard").exists()


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = trained(tmp_path, TrackingSettings(tensorboard=True))
    events = EventAccumulator(str(tmp_path / "tensorboard" / "kfold-0-seed1"))
    events.Reload()
    wanted = [(row["epoch"], row["validation_loss"]) for row in rows if row["seed"] == 1]
    assert [(one.step, one.value) for one in events.Scalars("validation_loss")] == [
        (step, pytest.approx(value, rel=1e-6)) for step, value in wanted
    ]


def test_mlflow_reads_what_was_written(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    rows = trained(tmp_path / "run", TrackingSettings(mlflow=uri))
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert {one.info.run_name: one.info.status for one in runs} == {
        "kfold-0 seed 0": "FINISHED",
        "kfold-0 seed 1": "FINISHED",
    }
    second = next(one for one in runs if one.data.tags["seed"] == "1")
    kept = [(one.step, one.value) for one in client.get_metric_history(second.info.run_id, "train_loss")]
    assert kept == [(row["epoch"], row["train_loss"]) for row in rows if row["seed"] == 1 and "train_loss" in row]


@pytest.mark.slow
def test_folds_side_by_side_make_mlflows_tables_once(tmp_path: Path) -> None:
    """Two processes that find an empty database would both make its tables; the second fails."""
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    everything = data(60)
    folds = make_folds(everything.cohort, SplitsSettings(schemes=(KFoldSettings(folds=2),)))
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    together = QUICK.model_copy(update={"folds_at_once": 2})
    told = Tracking(tmp_path, "study", TrackingSettings(mlflow=uri))
    assert (
        len(list(fit_folds(everything, folds, FitPlan(MEAN, together, TEMPLATE, tmp_path / "folds", tracking=told))))
        == 2
    )
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("study").experiment_id])
    assert {one.info.run_name for one in runs} == {f"{fold.key} seed {together.seed}" for fold in folds}


@pytest.mark.parametrize(
    ("modules", "settings"),
    [
        (("torch.utils.tensorboard",), TrackingSettings(tensorboard=True)),
        # The package too: a half of it left imported would spoil the tests that need the whole.
        (("mlflow", "mlflow.exceptions"), TrackingSettings(mlflow="x")),
    ],
)
def test_a_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, modules: tuple[str, ...], settings: TrackingSettings
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"pip install -c constraints\.txt '\.\[tracking\]'"):
        trained(tmp_path, settings)


def test_a_place_that_mlflow_does_not_know_is_named(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    with pytest.raises(InputError, match=r"tracking\.mlflow: nonsense://x cannot be used"):
        trained(tmp_path, TrackingSettings(mlflow="nonsense://x"))
