"""Tile features -> the columns a model takes: standardised and reduced as fitted on training tiles only."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pathoml.errors import BagFormatError, BagMismatchError
from pathoml.mil.tile_rows import TileRows
from pathoml.units import AnyArray, FloatArray

NOT_FITTED = "not fitted"
"""What a projection that leaves features as they are says of whom it was fitted on."""


@dataclass(frozen=True)
class TileProjection:
    """Standardisation, then principal components.

    Parameters
    ----------
    mean, scale : ndarray of float64, shape (dim,)
        Training tiles' mean and standard deviation (1 where that is 0).
    components : ndarray of float64, shape (components, dim), or None
        Principal axes of the standardised features, scaled so that the first score has unit variance; None keeps all columns.
    fitted_on : str, optional
        `pathoml.provenance.patients_digest` of the patients that it was fitted on, `NOT_FITTED` if on none; it stays in the
        run folder.
    """

    mean: FloatArray
    scale: FloatArray
    components: FloatArray | None
    fitted_on: str = ""

    @property
    def out(self) -> int:
        """Columns that the model takes."""
        return len(self.mean) if self.components is None else len(self.components)

    def apply(self, features: AnyArray | TileRows) -> AnyArray:
        """Project tiles.

        Parameters
        ----------
        features : ndarray of float, shape (tiles, dim)
            As a bag holds them.

        Returns
        -------
        ndarray of float32, shape (tiles, components)
            What the model takes.

        Raises
        ------
        BagMismatchError
            If the features have another width than the training tiles.
        """
        if features.shape[1] != len(self.mean):
            raise BagMismatchError(
                f"features have {features.shape[1]} columns, the model was trained on {len(self.mean)}"
            )
        standard: AnyArray = np.array(features, dtype=np.float32)
        standard -= self.mean.astype(np.float32)
        standard /= self.scale.astype(np.float32)
        if self.components is None:
            return standard
        projected: AnyArray = standard @ self.components.astype(np.float32).T
        return projected


def as_they_are(dim: int) -> TileProjection:
    """Leave features as a bag holds them.

    Parameters
    ----------
    dim : int
        Their columns.

    Returns
    -------
    TileProjection
        Changes nothing.
    """
    return TileProjection(np.zeros(dim), np.ones(dim), None, NOT_FITTED)


def fit_projection(bags: Iterable[AnyArray | TileRows], components: int | None) -> TileProjection:
    """Fit on the tiles of training patients; every tile counts alike.

    Only sums over tiles are kept, so memory does not grow with the cohort.

    Parameters
    ----------
    bags : iterable of ndarray, each of shape (tiles, dim)
        Features of training slides; at least two tiles in all.
    components : int or None
        Principal components kept; fewer if the features have fewer. None keeps the standardised columns as they are.

    Returns
    -------
    TileProjection
        Signs fixed, so that the same tiles give the same projection.

    Raises
    ------
    BagFormatError
        If all tiles have the same features.
    """
    return projection_of(sum_tiles(bags), components)


@dataclass(frozen=True)
class TileSums:
    """All that a projection is fitted on; sums of several hospitals can be added.

    Parameters
    ----------
    count : int
        Tiles.
    total : ndarray of float64, shape (dim,)
        Sum of their features.
    products : ndarray of float64, shape (dim, dim)
        Sum of the features' products.
    """

    count: int
    total: FloatArray
    products: FloatArray


def sum_tiles(bags: Iterable[AnyArray | TileRows]) -> TileSums:
    """Sum up tiles and their products.

    Parameters
    ----------
    bags : iterable of ndarray, each of shape (tiles, dim)
        At least one.

    Returns
    -------
    TileSums
        Of all of them.
    """
    count, total, products = 0, np.zeros(0), np.zeros((0, 0))
    for features in bags:
        block = np.asarray(features, dtype=np.float64)
        if count == 0:
            total, products = np.zeros(block.shape[1]), np.zeros((block.shape[1], block.shape[1]))
        count += len(block)
        total += block.sum(axis=0)
        products += block.T @ block
    return TileSums(count, total, products)


def projection_of(sums: TileSums, components: int | None) -> TileProjection:
    """Fit a projection on sums over tiles.

    Parameters
    ----------
    sums : TileSums
        Of all training tiles.
    components : int or None
        As in `fit_projection`.

    Returns
    -------
    TileProjection
        The same that the tiles themselves would give.

    Raises
    ------
    BagFormatError
        If all tiles have the same features.
    """
    mean = sums.total / sums.count
    covariance = sums.products / sums.count - np.outer(mean, mean)
    deviation = np.sqrt(np.clip(np.diag(covariance), 0, None))
    scale = np.where(deviation > 1e-6 * np.maximum(1.0, np.abs(mean)), deviation, 1.0)
    if components is None:
        return TileProjection(mean, scale, None)
    return TileProjection(
        mean, scale, principal_components(covariance / np.outer(scale, scale), components, sums.count)
    )


def principal_components(correlation: FloatArray, components: int, count: int) -> FloatArray:
    """Return the principal axes of standardised features, scaled so that the first score has unit variance.

    Parameters
    ----------
    correlation : ndarray of float64, shape (dim, dim)
        Of the features.
    components : int
        Axes wanted; fewer if the features have fewer.
    count : int
        Tiles that it is of, for the message.

    Returns
    -------
    ndarray of float64, shape (components, dim)
        Signs fixed.

    Raises
    ------
    BagFormatError
        If all tiles have the same features.
    """
    variances, axes = np.linalg.eigh(correlation)
    kept = np.argsort(variances)[::-1][: min(components, int((variances > 1e-9).sum()))]
    if len(kept) == 0:
        raise BagFormatError(f"the features of {count} training tiles have no spread; was the encoder given pictures?")
    directions = axes[:, kept].T
    signs = np.sign(directions[np.arange(len(kept)), np.abs(directions).argmax(axis=1)])
    scaled: FloatArray = directions * signs[:, None] / np.sqrt(variances[kept[0]])
    return scaled
