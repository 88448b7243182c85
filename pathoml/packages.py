"""A trained model with everything that using it needs, as one folder: tensors, JSON, a card."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from torch import as_tensor

from pathoml.bags import FeatureSpec
from pathoml.covariates import ColumnGroup, CovariateTransform, transform_from_json
from pathoml.errors import OutputError, PackageError
from pathoml.files import write_bytes
from pathoml.mil.objective import Objective
from pathoml.mil.objectives import objective_from_json
from pathoml.mil.prognosis import ModelShape, PrognosisModel
from pathoml.mil.projection import TileProjection
from pathoml.mil.settings import AggregatorSettings, FusionSettings, LateSettings
from pathoml.package_files import (
    DESCRIPTION,
    PACKAGE_FORMAT,
    PACKAGE_VERSION,
    TENSORS,
    PackageFiles,
    checked_description,
    read_package_files,
)
from pathoml.provenance import RESEARCH_USE_ONLY, digest_of
from pathoml.units import AnyArray

_LATE = LateSettings()
_CARD = "MODEL_CARD.md"


@dataclass(frozen=True)
class Member:
    """One fitted model.

    Parameters
    ----------
    fold : str
        A digest that tells the fold; not its name, which may be a hospital's.
    aggregator : settings of an aggregator
        Its aggregator.
    model : PrognosisModel
        In evaluation mode.
    projection : TileProjection or None
        Of tile features; None without slides.
    covariates : CovariateTransform
        Of covariates.
    objective : Objective
        What its logits mean, with survival curves.
    risk_centre, risk_scale : float
        Mean and standard deviation of its risk over its training and validation patients.
    risk_cutoff : float
        Median risk of the same patients: above is the high-risk group.
    slide_centre : tuple of float, of length out
        Mean over the same patients' slides of their share of the logits, of slides alone; contributions of tiles are
        counted from it.
    fusion : settings of a fusion
        How its parts are joined.
    part_centre : tuple of float, of length parts
        Mean over the same patients of each part's share, averaged over outputs.
    may_lack : tuple of str
        Parts that patients of training lacked, or that were hidden from the model in training.
    """

    fold: str
    aggregator: AggregatorSettings
    model: PrognosisModel
    projection: TileProjection | None
    covariates: CovariateTransform
    objective: Objective
    risk_centre: float
    risk_scale: float
    risk_cutoff: float
    slide_centre: tuple[float, ...]
    fusion: FusionSettings = _LATE
    part_centre: tuple[float, ...] = ()
    may_lack: tuple[str, ...] = ()


@dataclass(frozen=True)
class Package:
    """Members that score a patient together, and what they were made of and with.

    Parameters
    ----------
    members : tuple of Member
        A patient's risk is the mean of the members' risks, each centred and scaled by its own training patients.
    feature_spec : FeatureSpec or None
        What features must be; None for a model without slides.
    recipe : dict or None
        Settings that make such features from a slide (`pathoml.extract_settings.Recipe.to_json`).
    curve_days : tuple of float
        When survival curves are given.
    summary : dict
        Training cohort (counts only), endpoint, configuration digest, versions, encoder licence.
    """

    members: tuple[Member, ...]
    feature_spec: FeatureSpec | None
    recipe: dict[str, Any] | None
    curve_days: tuple[float, ...]
    summary: dict[str, Any]


def save_package(folder: Path, package: Package) -> None:
    """Write a package: the whole folder or nothing. An older one in its place is replaced.

    Parameters
    ----------
    folder : Path
        Where to.
    package : Package
        What to write.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    arrays: dict[str, AnyArray] = {}
    members = [_member_to_json(member, f"members.{index}.", arrays) for index, member in enumerate(package.members)]
    tensors = save_arrays({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    description = {
        "format": PACKAGE_FORMAT,
        "format_version": PACKAGE_VERSION,
        "notice": RESEARCH_USE_ONLY,
        "combine": "mean of member risks, each centred and scaled by its training patients; mean of survival curves",
        "members": members,
        "feature_spec": None if package.feature_spec is None else asdict(package.feature_spec),
        "recipe": package.recipe,
        "curve_days": list(package.curve_days),
        "summary": package.summary,
        "tensors_sha256": hashlib.sha256(tensors).hexdigest(),
    }
    description["description_sha256"] = digest_of(description)
    text = json.dumps(description, indent=1, allow_nan=False)
    _replace_folder(folder, {TENSORS: tensors, DESCRIPTION: text.encode(), _CARD: _card(package).encode()})


def load_package(folder: Path) -> Package:
    """Read and verify a package.

    Parameters
    ----------
    folder : Path
        As `save_package` wrote it.

    Returns
    -------
    Package
        With its members in evaluation mode on the CPU.

    Raises
    ------
    PackageError
        If it is not a package of a known version, or a file was altered.
    """
    return package_of(read_package_files(folder), str(folder))


def package_of(files: PackageFiles, name: str) -> Package:
    """Verify a package's files and make the package of them.

    Parameters
    ----------
    files : PackageFiles
        From disk, or from a network: they are data, and nothing in them is executed.
    name : str
        What to call it in an error.

    Returns
    -------
    Package
        With its members in evaluation mode on the CPU.

    Raises
    ------
    PackageError
        If it is not a package of a known version, or a file was altered.
    """
    description = checked_description(files.description, name)
    try:
        if hashlib.sha256(files.tensors).hexdigest() != description["tensors_sha256"]:
            raise PackageError(
                f"{name}: {TENSORS} does not belong to {DESCRIPTION} (its SHA-256 differs); get the package again"
            )
        return _package_from_json(description, load_arrays(files.tensors))
    except (SafetensorError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise PackageError(f"{name}: cannot be read as a package ({error}); get it again") from error


def join_packages(packages: list[Package]) -> Package:
    """Make one package of several whose features and grids agree.

    Parameters
    ----------
    packages : list of Package
        For example one of each fold.

    Returns
    -------
    Package
        All members, and what was tuned in each; everything else from the first.
    """
    first = packages[0]
    members = tuple(member for package in packages for member in package.members)
    tuned = {fold: values for package in packages for fold, values in package.summary.get("tuned", {}).items()}
    summary = {**first.summary, "tuned": tuned} if tuned else first.summary
    return Package(members, first.feature_spec, first.recipe, first.curve_days, summary)


def _package_from_json(description: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> Package:
    spec = description["feature_spec"]
    members = enumerate(description["members"])
    return Package(
        members=tuple(_member_from_json(one, f"members.{index}.", arrays) for index, one in members),
        feature_spec=None if spec is None else FeatureSpec(**spec),
        recipe=description["recipe"],
        curve_days=tuple(description["curve_days"]),
        summary=description["summary"],
    )


def _member_to_json(member: Member, prefix: str, arrays: dict[str, AnyArray]) -> dict[str, Any]:
    for name, tensor in member.model.state_dict().items():
        arrays[f"{prefix}model.{name}"] = tensor.detach().cpu().numpy()
    if member.projection is not None:
        arrays.update(
            {
                f"{prefix}projection.{name}": array
                for name, array in vars(member.projection).items()
                if isinstance(array, np.ndarray)
            }
        )
    return {
        "fold": member.fold,
        "aggregator": member.aggregator.model_dump(mode="json"),
        "shape": asdict(member.model.shape),
        "covariates": member.covariates.to_json(arrays, f"{prefix}covariates."),
        "objective": member.objective.to_json(),
        "risk_centre": member.risk_centre,
        "risk_scale": member.risk_scale,
        "risk_cutoff": member.risk_cutoff,
        "slide_centre": list(member.slide_centre),
        "fusion": member.fusion.model_dump(mode="json"),
        "part_centre": list(member.part_centre),
        "may_lack": list(member.may_lack),
    }


def _member_from_json(values: Mapping[str, Any], prefix: str, arrays: Mapping[str, AnyArray]) -> Member:
    aggregator: AggregatorSettings = TypeAdapter[AggregatorSettings](AggregatorSettings).validate_python(
        values["aggregator"]
    )
    fusion: FusionSettings = TypeAdapter[FusionSettings](FusionSettings).validate_python(values["fusion"])
    shape = values["shape"]
    groups = tuple(ColumnGroup(part, name, tuple(columns)) for part, name, columns in shape["groups"])
    model = PrognosisModel(
        aggregator, ModelShape(shape["tile_dim"], shape["covariate_dim"], shape["out"], groups), fusion
    )
    start = f"{prefix}model."
    model.load_state_dict(
        {name.removeprefix(start): as_tensor(array) for name, array in arrays.items() if name.startswith(start)}
    )
    parts = {name: arrays.get(f"{prefix}projection.{name}") for name in ("mean", "scale", "components")}
    projection = None if parts["mean"] is None else TileProjection(**parts)  # type: ignore[arg-type]
    return Member(
        fold=values["fold"],
        aggregator=aggregator,
        model=model.eval(),
        projection=projection,
        covariates=transform_from_json(values["covariates"], arrays, f"{prefix}covariates."),
        objective=objective_from_json(values["objective"]),
        risk_centre=values["risk_centre"],
        risk_scale=values["risk_scale"],
        risk_cutoff=values["risk_cutoff"],
        slide_centre=tuple(values["slide_centre"]),
        fusion=fusion,
        part_centre=tuple(values["part_centre"]),
        may_lack=tuple(values["may_lack"]),
    )


def _replace_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Put a finished folder in the place of an older one; a failure leaves the older one as it was."""
    fresh: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
        for name, content in files.items():
            write_bytes(fresh / name, content)
        fresh.chmod(0o755)
        old = fresh.with_suffix(".old")
        if folder.exists():
            folder.rename(old)
        try:
            fresh.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


def _short(value: object) -> str:
    """Spell a setting for people; model.json has all digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _privacy_words(summary: Mapping[str, Any]) -> str:
    """Say what bounds what the weights tell of a patient; nothing is called private that is not."""
    privacy = summary.get("privacy")
    if privacy is None:
        return "none: weights are computed from patients, and may tell something of some of them"
    delta = "1 / (10 x a site's patients)" if privacy["delta"] is None else f"{privacy['delta']:g}"
    return f"differential, of each patient: epsilon {privacy['epsilon']:g} at delta {delta}"


def _away(summary: Mapping[str, Any]) -> str:
    """Name the hospitals whose patients are in the model, and which were away when these were counted."""
    names = summary.get("sites_away")
    return f"; besides, for a part of the training, those of {', '.join(names)}, away at the end" if names else ""


def _card(package: Package) -> str:
    summary = package.summary
    features = "clinical table only"
    if package.feature_spec is not None:
        spec = package.feature_spec
        features = f"{spec.encoder}, {spec.tile_px} px tiles at {spec.target_mpp} microns per pixel"
    columns = ", ".join(package.members[0].covariates.names) or "none"
    lacking = ", ".join(package.members[0].may_lack) or "nothing"
    tuned = "; ".join(
        f"{fold}: {', '.join(f'{key} = {value}' for key, value in values.items()) or 'as configured'}"
        for fold, values in summary.get("tuned", {}).items()
    )
    trained_on = (
        f"{summary.get('patients')} patients, {summary.get('events')} events, {summary.get('sites')} hospital(s)"
    )
    trained_on += _away(summary)
    return f"""# Model card

**{RESEARCH_USE_ONLY.capitalize()}.** Not a medical device; not for decisions about patients.

| | |
| --- | --- |
| What it predicts | {summary.get("endpoint")} |
| Trained on | {trained_on} |
| Members | {len(package.members)}, combined as the mean of their standardised risks |
| Tile features | {features} |
| Encoder's licence | {summary.get("encoder_licence")} |
| Encoder pretrained on | {summary.get("encoder_pretraining")} |
| Covariates | {columns} |
| May be missing | {lacking} |
| Privacy of the patients trained on | {_privacy_words(summary)} |
| Settings sought in each fold | {tuned or "none"} |
| pathoml | {summary.get("pathoml_version")} |
| Configuration digest | {summary.get("config_digest")} |

The risk has no unit: a higher one means an earlier event is expected. Members were each trained on part of the cohort;
how well the model does on patients it has not seen stands in the run's report, not here.
"""
