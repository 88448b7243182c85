"""Where the numbers of each epoch go: a JSON lines file always, TensorBoard and MLflow if asked for."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pathoml.errors import InputError
from pathoml.extras import install_words
from pathoml.train import EpochListener
from pathoml.train_settings import TrackingSettings

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Tracking:
    """Where a study's numbers go.

    Parameters
    ----------
    folder : Path
        The run folder.
    study : str
        Name of the study, MLflow's experiment.
    settings : TrackingSettings
        Who is told.
    """

    folder: Path
    study: str
    settings: TrackingSettings

    def prepare(self) -> None:
        """Make what trainings side by side would each make for themselves, and get in each other's way: MLflow's tables.

        Raises
        ------
        InputError
            If MLflow is missing, or cannot be used at the place that was given.
        """
        if self.settings.mlflow is not None:
            _mlflow_experiment(self.settings.mlflow, self.study)

    @contextmanager
    def of(self, fold: str, seed: int, training: str) -> Iterator[EpochListener]:
        """Listen to one training.

        Parameters
        ----------
        fold : str
            Key of the fold.
        seed : int
            Of the member.
        training : str
            A few digits of the training's digest, which tell trainings of the same fold with other settings apart.

        Yields
        ------
        callable
            To be told every epoch.

        Raises
        ------
        InputError
            If a library is missing.
        """
        with ExitStack() as stack:
            listeners = [_json_lines(self.folder / METRICS, {"training": training, "fold": fold, "seed": seed})]
            if self.settings.tensorboard:
                listeners.append(stack.enter_context(_tensorboard(self.folder / "tensorboard" / f"{fold}-seed{seed}")))
            if self.settings.mlflow is not None:
                listeners.append(stack.enter_context(_mlflow(self.settings.mlflow, self.study, (fold, seed))))

            def tell(row: Mapping[str, float]) -> None:
                for one in listeners:
                    one(row)

            yield tell


def _json_lines(path: Path, whose: Mapping[str, str | int]) -> EpochListener:
    def tell(row: Mapping[str, float]) -> None:
        line = json.dumps({**whose, **row}) + "\n"
        # One write at the end of the file, so that folds trained side by side do not cut each other's lines.
        with path.open("a", encoding="utf-8") as file:
            file.write(line)

    return tell


@contextmanager
def _tensorboard(folder: Path) -> Iterator[EpochListener]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            f"tracking.tensorboard: needs TensorBoard, which is not here; {install_words('tracking')}"
        ) from error
    with SummaryWriter(str(folder)) as writer:

        def tell(row: Mapping[str, float]) -> None:
            for name, value in _measures(row):
                writer.add_scalar(name, value, int(row["epoch"]))

        yield tell


def _mlflow_experiment(uri: str, study: str) -> tuple["MlflowClient", str]:
    """Return a client, and the study's experiment, which is made if there is none."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would tell its makers that it is used
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise InputError(f"tracking.mlflow: needs MLflow, which is not here; {install_words('tracking')}") from error
    try:
        client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(study)
        return client, client.create_experiment(study) if known is None else known.experiment_id
    except MlflowException as error:
        raise InputError(f"tracking.mlflow: {uri} cannot be used ({str(error).splitlines()[0]})") from error


@contextmanager
def _mlflow(uri: str, study: str, training: tuple[str, int]) -> Iterator[EpochListener]:
    client, experiment = _mlflow_experiment(uri, study)
    from mlflow.entities import Metric

    fold, seed = training
    run = client.create_run(experiment, run_name=f"{fold} seed {seed}", tags={"fold": fold, "seed": str(seed)})

    def tell(row: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        client.log_batch(
            run.info.run_id, [Metric(name, value, now, int(row["epoch"])) for name, value in _measures(row)]
        )

    status = "FAILED"
    try:
        yield tell
        status = "FINISHED"
    finally:
        client.set_terminated(run.info.run_id, status)


def _measures(row: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(name, value) for name, value in row.items() if name != "epoch"]
