"""The files of a run, and the record that says which of them belong together."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathoml.errors import InputError
from pathoml.files import file_digest, write_json
from pathoml.provenance import digest_of

TRAINING_FORMAT = "pathoml-training"
TRAINING_VERSION = 1


@dataclass(frozen=True)
class RunFolder:
    """Names of the files of a run.

    Parameters
    ----------
    root : Path
        The folder.
    """

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.json"

    @property
    def environment(self) -> Path:
        """Versions that the results depend on."""
        return self.root / "environment.json"

    @property
    def folds(self) -> Path:
        """Who trained and who was tested."""
        return self.root / "folds.csv"

    @property
    def balance(self) -> Path:
        """How even the folds are that a solver dealt, and what is proved about it."""
        return self.root / "folds.balance.json"

    @property
    def flow(self) -> Path:
        """Who was left out, and why."""
        return self.root / "flow.json"

    @property
    def flow_table(self) -> Path:
        """The counts of it."""
        return self.root / "flow.csv"

    @property
    def leakage(self) -> Path:
        """What was looked for in the split, and what was found."""
        return self.root / "leakage.json"

    @property
    def members(self) -> Path:
        """One package for each fold."""
        return self.root / "folds"

    @property
    def package(self) -> Path:
        """The members of the first scheme together."""
        return self.root / "package"

    @property
    def predictions(self) -> Path:
        """Predictions of every fold."""
        return self.root / "predictions.csv"

    @property
    def part_shares(self) -> Path:
        """What each part of the model says of test patients."""
        return self.root / "part_shares.csv"

    @property
    def training(self) -> Path:
        """Which of these files one training wrote; the last that it writes."""
        return self.root / "training.json"

    @property
    def evaluation(self) -> Path:
        """Metrics with intervals."""
        return self.root / "evaluation.json"

    @property
    def slides(self) -> Path:
        """What became of every slide."""
        return self.root / "slides.csv"

    @property
    def heatmaps(self) -> Path:
        """Pictures."""
        return self.root / "heatmaps"

    @property
    def heatmap_index(self) -> Path:
        """Captions of the pictures that the report shows."""
        return self.heatmaps / "index.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"

    @property
    def trained(self) -> tuple[Path, ...]:
        """The files that belong to one training."""
        return (self.config, self.folds, self.predictions, self.package / "model.json")


def require_writable(folder: Path) -> None:
    """Find out before any work is done whether results can be written.

    Parameters
    ----------
    folder : Path
        Made if missing.

    Raises
    ------
    InputError
        If it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"output: {folder} cannot be written to ({error.strerror}); name another folder in the configuration"
        ) from error


def record_training(folder: RunFolder, config_digest: str) -> None:
    """Say that the files of a training are all there; written last, and taken away before any of them changes.

    Parameters
    ----------
    folder : RunFolder
        With the files of `RunFolder.trained`.
    config_digest : str
        Of the configuration that they come from.
    """
    digests = {path.relative_to(folder.root).as_posix(): file_digest(path) for path in folder.trained}
    write_json(
        folder.training,
        {
            "format": TRAINING_FORMAT, "format_version": TRAINING_VERSION, "config_digest": config_digest,
            "files": digests,
        },
    )  # fmt: skip


def check_training(folder: RunFolder) -> str:
    """Refuse a run whose training was cut short, or whose files are not those that it wrote.

    Parameters
    ----------
    folder : RunFolder
        A run.

    Returns
    -------
    str
        Digest of settings, folds, models and predictions: it names this training, wherever its folder lies.

    Raises
    ------
    InputError
        If the record is missing or a file differs from it.
    """
    if not folder.training.is_file():
        raise InputError(f"{folder.root}: training was not finished; run 'pathoml train' or 'pathoml run' again")
    record = read_json(folder.training, "run 'pathoml train' again")
    if record.get("format") != TRAINING_FORMAT or record.get("format_version") != TRAINING_VERSION:
        raise InputError(f"{folder.training}: not a record that this pathoml reads; run 'pathoml train' again")
    for path in folder.trained:
        expected = record["files"].get(path.relative_to(folder.root).as_posix())
        if not path.is_file() or file_digest(path) != expected:
            raise InputError(
                f"{folder.root}: {path.name} is not the one that this training wrote; run 'pathoml train' again"
            )
    # config.json holds paths; the same study elsewhere is the same training.
    files = {name: digest for name, digest in record["files"].items() if name != folder.config.name}
    return digest_of([record["config_digest"], files])


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object of a run.

    Parameters
    ----------
    path : Path
        The file.
    remedy : str
        What to do if it cannot be read.

    Returns
    -------
    dict
        Its content.

    Raises
    ------
    InputError
        If it is missing, damaged, or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not readable (no JSON object); {remedy}")
    return content
