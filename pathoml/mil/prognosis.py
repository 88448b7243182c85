"""The prognostic model: slides through an aggregator, covariates through a linear layer, one sum."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pathoml.mil.aggregator import Aggregator
from pathoml.mil.aggregators import build_aggregator
from pathoml.mil.packed import BagOutput, Packed
from pathoml.mil.settings import AggregatorSettings


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
    """

    tile_dim: int
    covariate_dim: int
    out: int


class PrognosisModel(nn.Module):
    """Sum of the slides' logits, the covariates' linear effect and a bias, which stays 0 if the objective has no level.

    Parameters
    ----------
    aggregator : settings of an aggregator
        How tiles are joined; ignored without slides.
    shape : ModelShape
        Which parts there are, and their widths.
    """

    def __init__(self, aggregator: AggregatorSettings, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.slides: Aggregator | None = (
            build_aggregator(aggregator, shape.tile_dim, shape.out) if shape.tile_dim else None
        )
        self.covariate_weight = nn.Parameter(torch.zeros(shape.covariate_dim))
        # Whether there is a level to learn is for the objective to say, and for training to switch on.
        self.bias = nn.Parameter(torch.zeros(shape.out), requires_grad=False)

    def forward(self, tiles: Packed, covariates: Float[Tensor, "bags covariates"]) -> BagOutput:
        """Score patients.

        Parameters
        ----------
        tiles : Packed
            Projected tiles of each patient, all slides in one bag; without columns for a model without slides.
        covariates : Tensor, shape (bags, covariates)
            Transformed covariates of the same patients.

        Returns
        -------
        BagOutput
            The covariates shift all logits of a patient alike; contributions are the slides' part.
        """
        shift = (covariates @ self.covariate_weight)[:, None] + self.bias
        if self.slides is None:
            return BagOutput(shift, None, None, {})
        output: BagOutput = self.slides(tiles)
        further = {name: value + shift if value.ndim else value for name, value in output.auxiliary.items()}
        return output._replace(logits=output.logits + shift, auxiliary=further)
