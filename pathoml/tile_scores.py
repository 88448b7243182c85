"""A package and one slide -> what each tile adds, where models look, and by way of which other part of the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pathoml.bags import Bag, check_same_features
from pathoml.errors import PackageError
from pathoml.infer import projected, require_grid
from pathoml.mil.aggregator import NonAdditiveAggregator
from pathoml.mil.packed import Packed
from pathoml.mil.patients import has_grid, places_of
from pathoml.packages import Member, Package
from pathoml.units import FloatArray


@dataclass(frozen=True)
class TileScores:
    """What a model sees in one slide.

    Parameters
    ----------
    attention : ndarray of float64, shape (tiles,), or None
        Weight of each tile; sums to 1 over the slide. None where the aggregator has none.
    contribution : ndarray of float64, shape (tiles,)
        What each tile adds to the slide's share of the risk, counted from the average training patient: positive
        raises it. In standard deviations of the training patients' risk, which is the log hazard; for time bins, hazard
        logits averaged over the bins.
    is_exact : bool
        Whether the model is a sum over tiles, so that contributions are its terms; otherwise they are integrated gradients,
        with attention and gates as given.
    disagreement : ndarray of float64, shape (tiles,), or None
        Standard deviation over the members of each tile's contribution; None for one member.
    is_alone : bool
        Whether contribution and attention are those of slides of which nothing else is known, though the model would look at
        them otherwise if it were.
    by_way_of : mapping of str to ndarray of float64, shape (tiles,)
        What each tile adds by way of another part of a fused model, given what is known of the patient: by the block or the
        gene groups that ask for it, or through the gate that they open. In the unit of the contribution; 0 adds nothing.
    """

    attention: FloatArray | None
    contribution: FloatArray
    is_exact: bool = True
    disagreement: FloatArray | None = None
    is_alone: bool = False
    by_way_of: Mapping[str, FloatArray] = field(default_factory=dict)


def score_tiles(
    members: Sequence[Member], package: Package, bag: Bag, *, known: pd.DataFrame | None = None, device: str = "cpu"
) -> TileScores:
    """Ask members what each tile of one slide adds.

    Parameters
    ----------
    members : sequence of Member
        One or more; several are averaged.
    package : Package
        The package that they belong to, for the check of the bag.
    bag : Bag
        The slide's features.
    known : DataFrame, optional
        One row, the patient's covariates: then fused models also say what tiles add by way of their other parts.
    device : str, optional
        ``cpu`` or ``cuda``.

    Returns
    -------
    TileScores
        In the bag's tile order.

    Raises
    ------
    BagMismatchError
        If the bag was made with other settings than the model's.
    PackageError
        If the model takes no slides.
    """
    if package.feature_spec is None:
        raise PackageError("the model was trained without slides, so there is no map to draw")
    check_same_features(bag.header, package.feature_spec, "the model")
    for member in members:
        require_grid(member.model, () if has_grid(bag) else (bag.header.slide_id,))
    attentions, contributions, ways, is_exact = [], [], [], True
    for member in members:
        model = member.model.to(device)
        tiles = projected(member, bag.features, places_of(bag)).to(device)
        explain = _explained if isinstance(model.slides, NonAdditiveAggregator) else _exact
        attention, contribution = explain(member, tiles)
        contributions.append(contribution)
        is_exact &= explain is _exact
        if attention is not None:
            attentions.append(attention.mean(axis=1))
        if known is not None:
            ways.append(_by_way_of(member, tiles, known))
    return TileScores(
        np.mean(attentions, axis=0) if attentions else None,
        np.mean(contributions, axis=0),
        is_exact,
        np.std(contributions, axis=0, ddof=1) if len(contributions) > 1 else None,
        not members[0].model.fusion.slides_stand_alone,
        {name: np.mean([way[name] for way in ways], axis=0) for name in ways[0]} if ways else {},
    )


def _exact(member: Member, tiles: Packed) -> tuple[FloatArray | None, FloatArray]:
    """Return attention and contributions of a sum over tiles, each less its share of the average training patient."""
    with torch.inference_mode():
        output = member.model.slides_alone(tiles)
    assert output.contributions is not None  # every other aggregator is a NonAdditiveAggregator
    raw = _array(output.contributions.values)
    attention = None if output.attention is None else _array(output.attention.values)
    weight = np.full(len(raw), 1 / len(raw)) if attention is None else attention.mean(axis=1)
    centred: FloatArray = raw - weight[:, None] * np.asarray(member.slide_centre)[None, :]
    return attention, centred.mean(axis=1) / _unit(member)


def _explained(member: Member, tiles: Packed) -> tuple[FloatArray | None, FloatArray]:
    """Return attention and integrated gradients; what is left of the logit, less the average training patient, is shared evenly."""
    output, shares = member.model.slides_explained(tiles)
    found = _array(shares)
    even = (float(output.logits) - found.sum() - float(np.mean(member.slide_centre))) / len(found)
    attention = None if output.attention is None else _array(output.attention.values)
    return attention, (found + even) / _unit(member)


def _by_way_of(member: Member, tiles: Packed, known: pd.DataFrame) -> dict[str, FloatArray]:
    device = tiles.values.device
    covariates = torch.from_numpy(member.covariates.apply(known).astype(np.float32)).to(device)
    present = torch.from_numpy(np.column_stack([member.covariates.given(known), [True]])).to(device)
    with torch.no_grad():
        found = member.model.by_way_of(tiles, covariates, present)
    return {name: _array(one.values).mean(axis=1) / _unit(member) for name, one in found.items()}


def _unit(member: Member) -> float:
    """Return what counts as 1: a standard deviation of the training patients' risk, or one logit of a time bin."""
    return member.risk_scale if member.objective.risk_is_logit else 1.0


def _array(values: Tensor) -> FloatArray:
    return np.asarray(values.detach().cpu().numpy(), dtype=np.float64)
