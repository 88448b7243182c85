"""The prognostic model: a linear effect of covariates, and what slides, blocks and gene groups add; any part may be missing."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pathoml.covariates import CLINICAL_PART, SLIDES_PART, ColumnGroup
from pathoml.mil.aggregator import Aggregator, NonAdditiveAggregator
from pathoml.mil.aggregators import build_aggregator
from pathoml.mil.as_given import weights_as_given
from pathoml.mil.fusion import CoAttention, Fused, Fusion, GatedFusion, LateFusion, PartLayout, Seen
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.settings import AggregatorSettings, CoAttentionSettings, FusionSettings, GatedSettings, LateSettings

_LATE = LateSettings()


@dataclass(frozen=True)
class ModelShape:
    """Everything that fixes the tensors of a model.

    Parameters
    ----------
    tile_dim : int
        Columns of a projected tile; 0 for a model without slides.
    covariate_dim : int
        Columns of the covariates; 0 for a model without.
    out : int
        1 log hazard, or one logit a time bin.
    groups : tuple of ColumnGroup, optional
        Which columns of the covariates are taken together, and the part that they belong to; default: all are clinical.
    """

    tile_dim: int
    covariate_dim: int
    out: int
    groups: tuple[ColumnGroup, ...] = ()

    @property
    def layout(self) -> PartLayout:
        """Parts of the model: those of the covariates in the order of the configuration, then slides."""
        groups = self.groups
        if self.covariate_dim and not groups:
            groups = (ColumnGroup(CLINICAL_PART, CLINICAL_PART, tuple(range(self.covariate_dim))),)
        names = tuple(dict.fromkeys(group.part for group in groups))
        return PartLayout(groups, (*names, SLIDES_PART) if self.tile_dim else names)


class Shares(NamedTuple):
    """What a model says of patients, part by part.

    Parameters
    ----------
    values : Tensor, shape (bags, parts, out)
        They sum, with the bias, to the logits. Of an absent part: what stands in for it.
    present : Tensor of bool, shape (bags, parts)
        Which parts each patient has.
    output : BagOutput
        As of `PrognosisModel.forward`.
    """

    values: Float[Tensor, "bags parts out"]
    present: Bool[Tensor, "bags parts"]
    output: BagOutput


class PrognosisModel(nn.Module):
    """Sum of the shares of all parts and a bias, which stays 0 if the objective has no level.

    A part that a patient lacks has one share for all of them, learnt where training patients lack it.

    Parameters
    ----------
    aggregator : settings of an aggregator
        How tiles are joined; ignored without slides, and by co-attention.
    shape : ModelShape
        Which parts there are, and their widths.
    fusion : settings of a fusion, optional
        How parts are joined.

    Attributes
    ----------
    layout : PartLayout
        Parts and their columns.
    """

    def __init__(
        self, aggregator: AggregatorSettings, shape: ModelShape, fusion: FusionSettings = _LATE
    ) -> None:  # fmt: skip
        super().__init__()
        self.shape, self.layout = shape, shape.layout
        width = fusion.hidden_dim if isinstance(fusion, GatedSettings) else shape.out
        looks_itself = isinstance(fusion, CoAttentionSettings)
        self.slides: Aggregator | None = (
            build_aggregator(aggregator, shape.tile_dim, width) if shape.tile_dim and not looks_itself else None
        )
        self.fusion = _build_fusion(shape, fusion)
        self.covariate_weight = nn.Parameter(torch.zeros(shape.covariate_dim))
        # Whether there is a level to learn is for the objective to say, and for training to switch on.
        self.bias = nn.Parameter(torch.zeros(shape.out), requires_grad=False)
        # Whether patients lack parts is for training to know, and to switch on.
        self.absent = nn.Parameter(torch.zeros(len(self.layout.names), shape.out), requires_grad=False)
        part_of_column = torch.zeros(shape.covariate_dim, len(self.layout.names))
        for part in range(len(self.layout.names)):
            part_of_column[self.layout.columns_of(part), part] = 1.0
        self.register_buffer("_part_of_column", part_of_column, persistent=False)
        self._part_of_column: Tensor

    def forward(
        self,
        tiles: Packed,
        covariates: Float[Tensor, "bags covariates"],
        present: Bool[Tensor, "bags parts"] | None = None,
    ) -> BagOutput:
        """Score patients.

        Parameters
        ----------
        tiles : Packed
            Projected tiles of each patient, all slides in one bag; without columns for a model without slides.
        covariates : Tensor, shape (bags, covariates)
            Transformed covariates of the same patients.
        present : Tensor of bool, shape (bags, parts), optional
            Which parts each patient has; default: all covariates, and slides where there are tiles.

        Returns
        -------
        BagOutput
            The covariates shift all logits of a patient alike; contributions are the slides' part.
        """
        return self.shares(tiles, covariates, present).output

    def shares(
        self,
        tiles: Packed,
        covariates: Float[Tensor, "bags covariates"],
        present: Bool[Tensor, "bags parts"] | None = None,
    ) -> Shares:
        """Score patients, part by part.

        Parameters
        ----------
        tiles, covariates, present
            As of `forward`.

        Returns
        -------
        Shares
            With the scores.
        """
        given = self._given(tiles, covariates) if present is None else present & self._given(tiles, covariates)
        seen = Seen(tiles, None if self.slides is None else self.slides(tiles))
        fused: Fused = self.fusion(seen, covariates, given)
        linear = (covariates * self.covariate_weight) @ self._part_of_column
        values = torch.where(given[:, :, None], linear[:, :, None] + fused.shares, self.absent)
        logits = values.sum(dim=1) + self.bias
        if fused.slides is None:
            return Shares(values, given, BagOutput(logits, None, None, {}))
        others, has_slides = logits - values[:, -1], given[:, -1, None]
        further = {
            name: torch.where(has_slides, value, self.absent[-1]) + others if value.ndim == 3 else value
            for name, value in fused.slides.auxiliary.items()
        }
        return Shares(values, given, fused.slides._replace(logits=logits, auxiliary=further))

    def slides_alone(self, tiles: Packed) -> BagOutput:
        """Score slides of patients of whom nothing else is known.

        Parameters
        ----------
        tiles : Packed
            Projected tiles.

        Returns
        -------
        BagOutput
            Logits are the slides' share.
        """
        bags = len(tiles.lengths)
        found = self.shares(tiles, *self._nothing_else(bags))
        return found.output._replace(logits=found.values[:, -1])

    def slides_explained(
        self,
        tiles: Packed,
        covariates: Float[Tensor, "1 covariates"] | None = None,
        present: Bool[Tensor, "1 parts"] | None = None,
    ) -> tuple[BagOutput, Tensor]:
        """Share the slides' part of the mean logit out among the tiles, where the aggregator is no sum over tiles.

        Parameters
        ----------
        tiles : Packed
            Projected tiles of one patient.
        covariates, present : Tensor, optional
            As of `forward`; by default nothing else is known of the patient.

        Returns
        -------
        BagOutput
            Of the aggregator; its logits are the slides' part of the mean logit, shape (1, 1).
        Tensor, shape (tiles,)
            As of `NonAdditiveAggregator.explained`, with gates of the fusion as given.
        """
        assert isinstance(self.slides, NonAdditiveAggregator)
        if covariates is None or present is None:
            covariates, present = self._nothing_else(1)
        weight = self._weight_of_slides(tiles, covariates, present)
        output, shares = self.slides.explained(tiles, weight)
        return output._replace(logits=(output.logits @ weight)[:, None]), shares

    def _weight_of_slides(self, tiles: Packed, covariates: Tensor, present: Tensor) -> Tensor:
        """Return what each column of the aggregator counts for in the mean logit, with gates as given."""
        assert self.slides is not None
        if self.fusion.slides_stand_alone:
            return self.covariate_weight.new_full((self.shape.out,), 1 / self.shape.out)
        with torch.no_grad():
            output = self.slides(tiles)
        logits = output.logits.requires_grad_()
        with torch.enable_grad(), weights_as_given():
            fused = self.fusion(Seen(tiles, output._replace(logits=logits)), covariates, present)
            (gradient,) = torch.autograd.grad(fused.shares[0, -1].mean(), logits)
        weight: Tensor = gradient[0]
        return weight

    def _nothing_else(self, bags: int) -> tuple[Tensor, Tensor]:
        """Return covariates and parts of patients of whom only slides are known."""
        covariates = self.covariate_weight.new_zeros(bags, self.shape.covariate_dim)
        present = torch.zeros(bags, len(self.layout.names), dtype=torch.bool, device=covariates.device)
        present[:, -1] = True
        return covariates, present

    def by_way_of(
        self,
        tiles: Packed,
        covariates: Float[Tensor, "bags covariates"],
        present: Bool[Tensor, "bags parts"],
    ) -> dict[str, Packed]:
        """Say what tiles add by way of the other parts, given what is known of the patients.

        Parameters
        ----------
        tiles, covariates, present
            As of `forward`.

        Returns
        -------
        dict of str to Packed
            As of `pathoml.mil.fusion.Fusion.by_way_of`; of one patient, and averaged over outputs, where the aggregator is no
            sum over tiles.
        """
        given = present & self._given(tiles, covariates)
        others = self.layout.names[:-1]
        if isinstance(self.slides, NonAdditiveAggregator) and not self.fusion.slides_stand_alone and others:
            _, shares = self.slides_explained(tiles, covariates, given)
            return {" + ".join(others): tiles.filled(shares[:, None])}
        return self.fusion.by_way_of(
            Seen(tiles, None if self.slides is None else self.slides(tiles)), covariates, given
        )

    def _given(self, tiles: Packed, covariates: Tensor) -> Tensor:
        given = torch.ones(len(covariates), len(self.layout.names), dtype=torch.bool, device=covariates.device)
        if self.shape.tile_dim:
            given[:, -1] = tiles.lengths > 0
        return given


def _build_fusion(shape: ModelShape, settings: FusionSettings) -> Fusion:
    if isinstance(settings, CoAttentionSettings):
        return CoAttention(settings, shape.tile_dim, shape.layout, shape.out)
    if isinstance(settings, GatedSettings):
        return GatedFusion(settings, shape.layout, shape.out)
    return LateFusion(shape.layout, shape.out)
