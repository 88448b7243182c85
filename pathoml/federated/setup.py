"""What the sites of a network share before training: transforms, time bins, and the model they make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from pathoml.covariates import CovariateTransform, FittedBlock, FittedCategorical, FittedNumeric, NumericCovariate
from pathoml.errors import FederationError
from pathoml.federated.plan import Plan, PlanCategories
from pathoml.mil.objective import Objective
from pathoml.mil.objectives import CoxObjective, DiscreteObjective
from pathoml.mil.prognosis import ModelShape, PrognosisModel
from pathoml.mil.projection import TileProjection, projection_of, sum_tiles
from pathoml.mil.tile_rows import TileRows
from pathoml.train_settings import CoxLossSettings
from pathoml.units import AnyArray, FloatArray

Arrays = Mapping[str, AnyArray]


@dataclass(frozen=True)
class Setup:
    """Transforms and time bins of the whole network.

    Parameters
    ----------
    transform : CovariateTransform
        Of covariates.
    projection : TileProjection or None
        Of tiles; None without features.
    edges : ndarray of float64, shape (edges,)
        Of time bins; empty for Cox.
    """

    transform: CovariateTransform
    projection: TileProjection | None
    edges: FloatArray

    def to_arrays(self, plan: Plan) -> dict[str, AnyArray]:
        """Return the arrays that travel.

        Parameters
        ----------
        plan : Plan
            Its words and names of columns do not travel.

        Returns
        -------
        dict of str to ndarray
            For `setup_from_arrays`.
        """
        arrays: dict[str, AnyArray] = {"edges": self.edges}
        for number, (one, part) in enumerate(zip(plan.covariates, self.transform.parts, strict=True)):
            if isinstance(part, FittedNumeric):
                arrays[f"part.{number}"] = np.array([part.fill, part.mean, part.scale])
            elif isinstance(part, FittedCategorical) and isinstance(one, PlanCategories):
                words = (*one.words, "")
                marks = [word in part.levels for word in words]
                arrays[f"part.{number}.levels"] = np.array([*marks, words.index(part.fill)], dtype=np.int64)
            elif isinstance(part, FittedBlock):
                arrays[f"part.{number}.mean"], arrays[f"part.{number}.scale"] = part.mean, part.scale
                arrays[f"part.{number}.components"] = part.components
        if self.projection is not None:
            arrays["tiles.mean"], arrays["tiles.scale"] = self.projection.mean, self.projection.scale
            if self.projection.components is not None:
                arrays["tiles.components"] = self.projection.components
        return arrays

    def objective(self, plan: Plan) -> Objective:
        """Return what is minimised.

        Parameters
        ----------
        plan : Plan
            With the loss.

        Returns
        -------
        Objective
            With these time bins.
        """
        loss = plan.train.loss
        return CoxObjective(settings=loss) if isinstance(loss, CoxLossSettings) else DiscreteObjective(self.edges, loss)

    def at_site(self, plan: Plan, tiles: Sequence[AnyArray | TileRows] | None) -> "Setup":
        """Return the setup as a site uses it: with its own standardisation of tiles, where the plan says so.

        Parameters
        ----------
        plan : Plan
            Whose standardisation is used.
        tiles : sequence of ndarray or TileRows, each of shape (tiles, dim), or None
            Of the site's training patients; None without features.

        Returns
        -------
        Setup
            With the network's components.
        """
        if self.projection is None or plan.features is None or plan.features.scaling != "site":
            return self
        own = projection_of(sum_tiles(tiles or ()), None)
        return replace(self, projection=replace(self.projection, mean=own.mean, scale=own.scale))


def setup_from_arrays(plan: Plan, arrays: Arrays) -> Setup:
    """Rebuild a setup from `Setup.to_arrays`.

    Parameters
    ----------
    plan : Plan
        Names of columns and words.
    arrays : mapping of str to ndarray
        As they came.

    Returns
    -------
    Setup
        Equal to the one that was sent.

    Raises
    ------
    FederationError
        If arrays are missing, not finite, or of shapes that do not fit the plan.
    """
    try:
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise FederationError(f"setup: {name} is not finite")
        parts: list[FittedNumeric | FittedCategorical | FittedBlock] = []
        for number, one in enumerate(plan.covariates):
            key = f"part.{number}"
            if isinstance(one, NumericCovariate):
                fill, mean, scale = arrays[key].tolist()
                parts.append(FittedNumeric(one.column, fill, mean, scale))
            elif isinstance(one, PlanCategories):
                parts.append(_words_from(one, arrays[f"{key}.levels"]))
            else:
                mean, scale, components = (arrays[f"{key}.{name}"] for name in ("mean", "scale", "components"))
                if mean.shape != (len(one.columns),) or components.shape[1:] != mean.shape or scale.shape != mean.shape:
                    raise FederationError(
                        f"setup: block {one.name} does not have the plan's {len(one.columns)} columns"
                    )
                parts.append(FittedBlock(one.name, one.name, one.columns, mean, mean, scale, components))
        projection = None
        if plan.features is not None:
            projection = TileProjection(arrays["tiles.mean"], arrays["tiles.scale"], arrays.get("tiles.components"))
            if projection.mean.shape != (plan.features.dim,) or projection.scale.shape != projection.mean.shape:
                raise FederationError(f"setup: tiles do not have the plan's {plan.features.dim} columns")
        return Setup(CovariateTransform(tuple(parts)), projection, np.asarray(arrays["edges"], dtype=np.float64))
    except (KeyError, ValueError, TypeError) as error:
        raise FederationError(f"setup does not fit the plan ({type(error).__name__}: {error})") from error


def build_model(plan: Plan, setup: Setup) -> PrognosisModel:
    """Build the model that every site starts with.

    Parameters
    ----------
    plan : Plan
        Architecture and seed.
    setup : Setup
        Widths.

    Returns
    -------
    PrognosisModel
        Random weights of the plan's seed; covariates and levels at zero.
    """
    objective = setup.objective(plan)
    torch.manual_seed(plan.train.seed)
    width = 0 if setup.projection is None else setup.projection.out
    model = PrognosisModel(
        plan.model.aggregator, ModelShape(width, len(setup.transform.names), objective.out, setup.transform.groups)
    )
    model.bias.requires_grad_(objective.has_level)
    return model


def arrays_of(model: PrognosisModel) -> dict[str, AnyArray]:
    """Return a model's weights by name.

    Parameters
    ----------
    model : PrognosisModel
        On any device.

    Returns
    -------
    dict of str to ndarray
        Copies.
    """
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in model.state_dict().items()}


def load_arrays_into(model: PrognosisModel, arrays: Arrays) -> None:
    """Give a model other weights.

    Parameters
    ----------
    model : PrognosisModel
        Changed in place.
    arrays : mapping of str to ndarray
        Of exactly its names and shapes.
    """
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})


def _words_from(one: PlanCategories, marks: AnyArray) -> FittedCategorical:
    """Rebuild the levels: a mark for each of the plan's words, one for missing, and the place of the fill."""
    kept = [word for word, mark in zip((*one.words, ""), marks[:-1].tolist(), strict=True) if mark]
    return FittedCategorical(one.column, tuple(sorted(kept)), (*one.words, "")[int(marks[-1])])
