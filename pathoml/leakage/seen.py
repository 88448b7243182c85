"""What a fold's model has seen, kept beside it in the run folder, and the refusal to score it on any of that."""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pathoml.errors import LeakError
from pathoml.files import write_json
from pathoml.provenance import patients_digest
from pathoml.splits import Fold, patients_in_two_groups

SEEN_FORMAT = "pathoml-seen"
SEEN_VERSION = 2
_HEXADECIMAL = re.compile(r"(?:[0-9a-f]{2})+")


@dataclass(frozen=True)
class SeenPatients:
    """Whom a fold's model has seen in any way: training, early stopping, tuning, transforms, calibration.

    Parameters
    ----------
    fold : str
        Key of the fold.
    training_digest : str
        Of data and settings, as the fold's package states it.
    salt : str
        With which patient ids are hashed.
    seen : frozenset of str
        Keyed hash of each patient.
    fitted_on : mapping of str to str
        Each fitted transform's digest of the patients that it was fitted on.
    package_digest : str, optional
        Of the files of the fold's package as they were saved, so that no other model stands under this record.
    """

    fold: str
    training_digest: str
    salt: str
    seen: frozenset[str]
    fitted_on: Mapping[str, str]
    package_digest: str = ""


def note_seen(
    fold: Fold, training_digest: str, patient_ids: Iterable[str], fitted_on: Mapping[str, str]
) -> SeenPatients:  # fmt: skip
    """Make the record of a fitted model.

    Parameters
    ----------
    fold : Fold
        The model's.
    training_digest : str
        Of data and settings.
    patient_ids : iterable of str
        Who was looked at.
    fitted_on : mapping of str to str
        Name of each fitted transform to its digest of patients.

    Returns
    -------
    SeenPatients
        With a salt of its own, so that hashes of two records cannot be matched.
    """
    salt = secrets.token_hex(16)
    return SeenPatients(
        fold.key, training_digest, salt, frozenset(_hashed(one, salt) for one in patient_ids), fitted_on
    )


def require_unseen(record: SeenPatients, patient_ids: Iterable[str], what: str) -> None:
    """Refuse to score a model on patients that it has seen.

    Parameters
    ----------
    record : SeenPatients
        Of the model.
    patient_ids : iterable of str
        Who is to be scored.
    what : str
        Of what these patients are the test, for the message.

    Raises
    ------
    LeakError
        If one of them has been seen.
    """
    known = sorted(one for one in patient_ids if _hashed(one, record.salt) in record.seen)
    if known:
        raise LeakError(
            f"model_saw_test_patients: {what}: the model of fold {record.fold} has seen {len(known)} of these patient(s) "
            f"in training, early stopping, tuning or a transform: {', '.join(known[:5])}; it cannot be scored on them"
        )


def check_fit(fold: Fold, fitted_on: Mapping[str, str]) -> None:
    """Refuse a fit whose fold leaks, or one of whose transforms was not fitted on the fold's training patients.

    Parameters
    ----------
    fold : Fold
        Who trains, who stops early and who tests.
    fitted_on : mapping of str to str
        Name of each fitted transform to its digest of patients.

    Raises
    ------
    LeakError
        If a patient stands in two groups, or a transform was fitted on others than training patients, or training and
        validation patients together.
    """
    twice = patients_in_two_groups(fold)
    if twice:
        raise LeakError(
            f"shared_patients: fold {fold.key}: patient(s) {', '.join(twice[:5])} stand in two of training, validation and test"
        )
    allowed = {patients_digest(fold.train), patients_digest((*fold.train, *fold.validation))}
    for name, digest in fitted_on.items():
        if digest not in allowed:
            raise LeakError(
                f"transform_fitted_on_others: fold {fold.key}: the {name} was not fitted on the fold's training patients "
                "(its digest of patients differs); fit it inside the fold, without the test patients"
            )


def write_seen(path: Path, record: SeenPatients) -> None:
    """Write a record.

    Parameters
    ----------
    path : Path
        Where to; it stays in the run folder, and travels with no package.
    record : SeenPatients
        What was seen.
    """
    write_json(
        path,
        {
            "format": SEEN_FORMAT, "format_version": SEEN_VERSION, "fold": record.fold,
            "training_digest": record.training_digest, "salt": record.salt, "seen": sorted(record.seen),
            "fitted_on": dict(record.fitted_on), "package_digest": record.package_digest,
        },
    )  # fmt: skip


def read_seen(path: Path) -> SeenPatients | None:
    """Read a record.

    Parameters
    ----------
    path : Path
        As `write_seen` wrote it.

    Returns
    -------
    SeenPatients or None
        None if it is missing, damaged or of another version: such a model has to be fitted again.
    """
    content = _content(path)
    if content.get("format") != SEEN_FORMAT or content.get("format_version") != SEEN_VERSION:
        return None
    fold, digest, salt, seen, fitted_on = (
        content.get(name) for name in ("fold", "training_digest", "salt", "seen", "fitted_on")
    )
    if not (isinstance(seen, list) and isinstance(fitted_on, dict) and _HEXADECIMAL.fullmatch(str(salt))):
        return None
    package = str(content.get("package_digest"))
    return SeenPatients(str(fold), str(digest), str(salt), frozenset(map(str, seen)), fitted_on, package)


def _content(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _hashed(patient_id: str, salt: str) -> str:
    return hmac.new(bytes.fromhex(salt), patient_id.encode("utf-8"), hashlib.sha256).hexdigest()
