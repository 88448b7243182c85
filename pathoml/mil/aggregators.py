"""Every aggregator by its settings."""

from collections.abc import Callable, Mapping
from typing import Any

from pathoml.mil.abmil import Abmil
from pathoml.mil.acmil import Acmil
from pathoml.mil.aggregator import Aggregator
from pathoml.mil.chowder import Chowder
from pathoml.mil.clam import ClamSb
from pathoml.mil.deepmil import DeepMil
from pathoml.mil.dsmil import Dsmil
from pathoml.mil.dtfd import Dtfd
from pathoml.mil.ilra import Ilra
from pathoml.mil.max_pool import MaxPool
from pathoml.mil.mean_pool import MeanPool
from pathoml.mil.patch_gcn import PatchGcn
from pathoml.mil.settings import AggregatorSettings
from pathoml.mil.transformer import PlacedTransformer
from pathoml.mil.transmil import TransMil

AGGREGATORS: Mapping[str, Callable[[Any, int, int], Aggregator]] = {
    "abmil": Abmil, "mean": MeanPool, "max": MaxPool, "chowder": Chowder, "deepmil": DeepMil, "clam": ClamSb, "dsmil": Dsmil,
    "acmil": Acmil, "dtfd": Dtfd, "ilra": Ilra, "transmil": TransMil, "transformer": PlacedTransformer,
    "patch_gcn": PatchGcn,
}  # fmt: skip
"""By the ``kind`` of their settings."""


def build_aggregator(settings: AggregatorSettings, tile_dim: int, out: int) -> Aggregator:
    """Build an aggregator.

    Parameters
    ----------
    settings : settings of an aggregator
        Which, and its widths.
    tile_dim : int
        Columns of a tile.
    out : int
        Columns of the logits.

    Returns
    -------
    Aggregator
        With fresh weights.
    """
    return AGGREGATORS[settings.kind](settings, tile_dim, out)
