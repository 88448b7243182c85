"""Kinds of tiles behind the risk: clusters of a cohort's most and least risky tiles, and where every tile belongs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from pathoml.heatmaps import extreme_tiles
from pathoml.settings import Settings
from pathoml.units import AnyArray, FloatArray, IntArray

_LEAST_SPREAD = 1e-6


class PrototypeSettings(Settings):
    """How the kinds of tiles behind the risk are sought."""

    prototypes: int = Field(8, ge=2, le=100, description="Kinds of tiles.")
    extremes: int = Field(
        50,
        ge=1,
        le=10_000,
        description="Highest tiles, and as many lowest, of each slide that decide what the kinds are.",
    )
    components: int = Field(32, ge=1, le=1024, description="Principal components of the features that are compared.")
    seed: int = Field(0, ge=0, description="Of the search.")


@dataclass(frozen=True)
class ScoredTiles:
    """The tiles of one slide.

    Parameters
    ----------
    features : ndarray, shape (tiles, dim)
        Of the slide's bag.
    contribution : ndarray of float64, shape (tiles,)
        Relative to the average tile, by a model that has not seen the patient.
    """

    features: AnyArray
    contribution: FloatArray


@dataclass(frozen=True)
class Prototypes:
    """Kinds of tiles, the one that raises the risk most first.

    Parameters
    ----------
    centre, scale : ndarray of float64, shape (dim,)
        Of the features.
    axes : ndarray of float64, shape (components, dim)
        Principal axes of the scaled features.
    places : ndarray of float64, shape (prototypes, components)
        Centre of each kind.
    contribution : ndarray of float64, shape (prototypes,)
        Mean contribution of the extreme tiles of each kind.
    """

    centre: FloatArray
    scale: FloatArray
    axes: FloatArray
    places: FloatArray
    contribution: FloatArray

    def nearest(self, features: AnyArray) -> tuple[IntArray, FloatArray]:
        """Tell which kind each tile is.

        Parameters
        ----------
        features : ndarray, shape (tiles, dim)
            Of any slide with the same encoder.

        Returns
        -------
        kind : ndarray of int64, shape (tiles,)
            Number of the nearest prototype.
        distance : ndarray of float64, shape (tiles,)
            To its centre.
        """
        at = ((features.astype(np.float64) - self.centre) / self.scale) @ self.axes.T
        squared = (at**2).sum(1)[:, None] - 2 * at @ self.places.T + (self.places**2).sum(1)[None, :]
        kind = squared.argmin(axis=1).astype(np.int64)
        return kind, np.sqrt(np.maximum(squared[np.arange(len(kind)), kind], 0))


def find_prototypes(slides: Sequence[ScoredTiles], settings: PrototypeSettings) -> Prototypes:
    """Cluster the most and the least risky tiles of a cohort; every slide has the same say.

    Parameters
    ----------
    slides : sequence of ScoredTiles
        The cohort's.
    settings : PrototypeSettings
        How many kinds, of how many tiles.

    Returns
    -------
    Prototypes
        Sorted by the contribution of their tiles, highest first. Fewer than asked for if there are fewer tiles.
    """
    features, contribution = [], []
    for slide in slides:
        count = min(settings.extremes, (len(slide.contribution) + 1) // 2)
        ends = [extreme_tiles(slide.contribution, count, "highest"), extreme_tiles(slide.contribution, count, "lowest")]
        chosen = np.unique(np.concatenate(ends))
        features.append(slide.features[chosen].astype(np.float64))
        contribution.append(slide.contribution[chosen])
    tiles, values = np.concatenate(features), np.concatenate(contribution)
    centre, spread = tiles.mean(axis=0), tiles.std(axis=0)
    scale = np.where(spread > _LEAST_SPREAD, spread, 1.0)
    axes = _principal_axes((tiles - centre) / scale, settings)
    at = ((tiles - centre) / scale) @ axes.T
    clusters = KMeans(min(settings.prototypes, len(tiles)), n_init=5, random_state=settings.seed).fit(at)
    means = np.array([values[clusters.labels_ == kind].mean() for kind in range(clusters.n_clusters)])
    order = np.argsort(-means, kind="stable")
    return Prototypes(centre, scale, axes, clusters.cluster_centers_[order].astype(np.float64), means[order])


def _principal_axes(scaled: FloatArray, settings: PrototypeSettings) -> FloatArray:
    components = min(settings.components, *scaled.shape)
    if len(scaled) == 1:  # one tile has no axes
        return np.eye(components, scaled.shape[1])
    axes: FloatArray = PCA(components, random_state=settings.seed).fit(scaled).components_.astype(np.float64)
    return axes


def shares(kind: IntArray, prototypes: int) -> FloatArray:
    """Return which share of tiles is of each kind.

    Parameters
    ----------
    kind : ndarray of int64, shape (tiles,)
        As `Prototypes.nearest` tells.
    prototypes : int
        How many kinds there are.

    Returns
    -------
    ndarray of float64, shape (prototypes,)
        They sum to 1.
    """
    counted: FloatArray = np.bincount(kind, minlength=prototypes) / len(kind)
    return counted
