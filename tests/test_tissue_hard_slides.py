"""The tissue mask on slides that are hard: pale, fatty, bloody, dark; drawn as light through stain at 1 micron a pixel."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from scipy.spatial import cKDTree

from pathoml.artefacts import Absorption, QualitySettings, find_ink
from pathoml.tissue import ClassicalTissueSettings, find_tissue

MPP, SIDE_UM = 8.0, 1600
GLASS = (243.0, 242.0, 244.0)
STROMA, NUCLEI = np.array([0.05, 0.42, 0.22]), np.array([0.55, 0.75, 0.35])
BLOOD = np.array([0.08, 0.75, 0.66])
SEEDS = (9101, 9102)
"""Nothing was set on them."""

Density = np.ndarray
"""Optical density in red, green and blue of each micron."""


def outline(rng: np.random.Generator) -> np.ndarray:
    """A wavy piece of tissue in the middle."""
    y, x = np.indices((SIDE_UM, SIDE_UM), dtype=np.float32) - SIDE_UM / 2
    angle, phase = np.arctan2(y, x), rng.uniform(0, 2 * np.pi, 4)
    radius = 570 + sum(rng.uniform(15, 45) * np.sin((turn + 2) * angle + phase[turn]) for turn in range(4))
    return np.asarray(np.hypot(x, y) < radius)


def solid(rng: np.random.Generator, strength: float = 1.0) -> tuple[Density, np.ndarray]:
    """Stroma with nuclei: fibres, gaps of a few microns between them, dark dots."""
    tissue = outline(rng)
    fibres = cv2.GaussianBlur(rng.normal(0, 1, tissue.shape).astype(np.float32), (0, 0), 2, sigmaY=9)
    eosin = np.clip(0.9 + 0.35 * fibres / fibres.std(), 0, 2)
    dots = cv2.GaussianBlur((rng.random(tissue.shape) < 0.0006).astype(np.float32), (0, 0), 3)
    haematoxylin = np.clip(dots / 0.012, 0, 1)
    density = eosin[..., None] * STROMA + haematoxylin[..., None] * NUCLEI
    return strength * density * tissue[..., None], tissue


def fatty(rng: np.random.Generator) -> tuple[Density, np.ndarray]:
    """Three quarters of the piece are fat: empty cells of 50 to 100 microns between membranes of 4."""
    density, tissue = solid(rng)
    step = 72.0
    grid = np.stack(np.meshgrid(np.arange(-1, SIDE_UM / step + 1), np.arange(-1, SIDE_UM / step + 1)), axis=-1)
    middles = ((grid + rng.uniform(-0.3, 0.3, grid.shape)) * step).reshape(-1, 2)
    places = np.indices((SIDE_UM // 2, SIDE_UM // 2)).reshape(2, -1).T[:, ::-1] * 2.0
    near = cKDTree(middles).query(places, k=2)[0]
    membrane = ((near[:, 1] - near[:, 0]) < 8).reshape(SIDE_UM // 2, -1).repeat(2, axis=0).repeat(2, axis=1)
    fat = np.indices(tissue.shape)[1] > SIDE_UM / 3
    density[fat] = (0.8 * STROMA * (membrane & tissue)[..., None])[fat]
    return density, tissue


def bloody(rng: np.random.Generator) -> tuple[Density, np.ndarray]:
    """Pale tissue with lakes of blood in it and a smear of blood beside it."""
    density, tissue = solid(rng, strength=0.45)
    lakes = cv2.GaussianBlur(rng.normal(0, 1, tissue.shape).astype(np.float32), (0, 0), 40)
    density[(lakes > lakes.std()) & tissue] = BLOOD
    smear = np.zeros(tissue.shape, dtype=np.uint8)
    cv2.ellipse(smear, (170, 170), (140, 70), 30, 0, 360, 1, -1)
    density[smear > 0] = 0.8 * BLOOD
    return density, tissue | (smear > 0)


def seen(density: Density, glass: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """What a camera shows from afar: light is averaged, not density."""
    light = np.array(glass) * 10**-density
    size = round(SIDE_UM / MPP)
    picture = cv2.resize(light.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(picture + rng.normal(0, 1.0, picture.shape)), 0, 255).astype(np.uint8)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("draw", "glass"),
    [
        (lambda rng: solid(rng, strength=0.3), GLASS), (fatty, GLASS), (bloody, GLASS),
        (lambda rng: solid(rng, strength=2.2), GLASS), (lambda rng: solid(rng, strength=1.6), (178.0, 176.0, 181.0)),
    ],
    ids=["pale", "fatty", "bloody", "overstained", "dim lamp"],
)  # fmt: skip
def test_tissue_is_found_on_hard_slides(
    draw: Callable[[np.random.Generator], tuple[Density, np.ndarray]], glass: tuple[float, float, float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    density, tissue = draw(rng)
    picture = seen(density, glass, rng)
    ink = find_ink(Absorption(picture, MPP), QualitySettings())
    assert not ink.any(), "no ink was drawn"
    mask = find_tissue(picture, MPP, ClassicalTissueSettings(), hidden=ink)
    truth = cv2.resize(tissue.astype(np.float32), mask.shape[::-1], interpolation=cv2.INTER_AREA) > 0.5
    assert dice(mask, truth) >= 0.95
