"""One slide -> one bag, in memory; and the making of every bag."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pathoml.bags import Bag, BagHeader
from pathoml.cohort import SlideEntry
from pathoml.decoding.slide_tiles import SlideTiles
from pathoml.decoding.workers import decode_here
from pathoml.encoders.record import Encoder
from pathoml.errors import BadFeaturesError
from pathoml.extract.stream import BatchStream, EncodingPlace, SlideFeatures
from pathoml.extract_settings import Recipe
from pathoml.provenance import pathoml_version
from pathoml.stain import stain_change
from pathoml.units import FloatArray, RgbImage

PAGE_TILES = 16
"""Tiles decoded at a time."""
FEW_TILES = 4
"""The same, of a slide for which memory was too small."""


def extract_slide(
    entry: SlideEntry, recipe: Recipe, encoder: Encoder, *, device: str = "cpu", sheet: Path | None = None
) -> Bag:  # fmt: skip
    """Turn one slide into a bag, in memory.

    Parameters
    ----------
    entry : SlideEntry
        The slide.
    recipe : Recipe
        What its bag holds.
    encoder : Encoder
        Built from ``recipe.encoder``, on the device.
    device : str, optional
        ``cpu`` or ``cuda``.
    sheet : Path, optional
        Where its contact sheet is drawn, also where no tile is kept.

    Returns
    -------
    Bag
        Its tiles by (row, column).

    Raises
    ------
    SlideError
        If the slide cannot be opened, has no usable mpp, holds no tissue, or is damaged.
    EncoderError
        If the encoder does not take such tiles.
    """
    encoder.check_tiles(target_mpp=recipe.tiling.target_mpp, tile_px=recipe.tiling.tile_px)
    with stream_of(recipe, [EncodingPlace(encoder, device)]) as stream:
        features = SlideFeatures()
        tiles = decode_here(entry, recipe, StreamSink(recipe, [(stream, features)]), sheet, device)
        stream.flush()
        stream.collect(wait=True)
    return make_bag(entry.path.name, recipe, encoder, tiles, features)


def stream_of(recipe: Recipe, places: Sequence[EncodingPlace]) -> BatchStream:
    """Return a stream of batches as a recipe asks for it.

    Parameters
    ----------
    recipe : Recipe
        Batch, tile and precision.
    places : sequence of EncodingPlace
        Where batches are encoded.

    Returns
    -------
    BatchStream
        To be used in a ``with``.
    """
    settings = recipe.extract
    return BatchStream(
        places, batch_tiles=settings.batch_tiles, tile_px=recipe.tiling.tile_px, precision=settings.precision
    )


@dataclass
class StreamSink:
    """A `TileSink` of this very process: pages go straight into the streams.

    Parameters
    ----------
    recipe : Recipe
        Tile size and change of colours.
    parts : sequence of (BatchStream, SlideFeatures)
        Where tiles go, and whose they are; one for each encoder.
    page_tiles : int
        Tiles decoded at a time.
    """

    recipe: Recipe
    parts: Sequence[tuple[BatchStream, SlideFeatures]]
    page_tiles: int = PAGE_TILES

    def __post_init__(self) -> None:
        side = self.recipe.tiling.tile_px
        self._page = np.empty((self.page_tiles, side, side, 3), dtype=np.uint8)
        for _, features in self.parts:
            features.change = stain_change(self.recipe.stain, None)

    def stain(self, fitted: FloatArray) -> None:
        """Take the slide's own colours; see `TileSink.stain`.

        Parameters
        ----------
        fitted : ndarray of float64
            From `pathoml.stain.fit_stain`.
        """
        for _, features in self.parts:
            features.change = stain_change(self.recipe.stain, fitted)

    def page(self) -> RgbImage:
        """Return the one page; see `TileSink.page`.

        Returns
        -------
        ndarray of uint8, shape (tiles, side, side, 3)
            Used again after every delivery.
        """
        return self._page

    def deliver(self, rows: NDArray[np.int64]) -> None:
        """Put the page into the streams; see `TileSink.deliver`.

        Parameters
        ----------
        rows : ndarray of int64
            Rows of the slide's grid.
        """
        for stream, features in self.parts:
            stream.add(features, self._page[: len(rows)], rows)


def make_bag(
    name: str, recipe: Recipe, encoder: Encoder, tiles: SlideTiles, features: SlideFeatures
) -> Bag:  # fmt: skip
    """Join what decoding and encoding gave to a bag.

    Parameters
    ----------
    name : str
        Of the slide's file, for messages.
    recipe : Recipe
        What the bag holds.
    encoder : Encoder
        That made the features.
    tiles : SlideTiles
        From decoding.
    features : SlideFeatures
        Of all its tiles.

    Returns
    -------
    Bag
        Ready to be written.

    Raises
    ------
    BadFeaturesError
        If a feature is not finite in the number format asked for.
    """
    encoded = features.array()
    with np.errstate(over="ignore"):  # what overflows is refused by the check below, with its remedy
        stored = encoded.astype(recipe.extract.feature_dtype)
    if not np.isfinite(stored).all():
        remedy = "set extract.feature_dtype: float32" if np.isfinite(encoded).all() else "check the encoder"
        raise BadFeaturesError(f"{name}: features hold NaN or infinity as {recipe.extract.feature_dtype}; {remedy}")
    header = BagHeader(
        **tiles.facts, encoder=encoder.name, weights_digest=encoder.weights_digest,
        precision_asked=recipe.extract.precision, precision_used=recipe.extract.precision,
        batch_tiles=recipe.extract.batch_tiles, batch_used=features.batch_used, settings_digest=recipe.digest,
        pathoml_version=pathoml_version(),
    )  # fmt: skip
    return Bag(header, stored, **{one: getattr(tiles, one) for one in ("coords", "grid", "tissue_share", "flags")})
