"""What goes wrong on glass, laid over real tissue from physical models; knows nothing of how artefacts are found.

Pictures are taken as light with a display gamma of 2.2. Ink and layers of tissue absorb (Beer-Lambert, so that
transmitted light multiplies); defocus is convolution with the disc that a point becomes; an air bubble loses light at
its rim, where the mounting medium's edge refracts it out of the objective, and puts its inside out of focus.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

GAMMA = 2.2
NUMERICAL_APERTURE = 0.75
"""Of the usual 20x objective of slide scanners."""
INKS = {
    "black": (1.5, 1.5, 1.45), "blue": (1.5, 0.95, 0.25), "green": (1.4, 0.35, 0.9), "red": (0.06, 1.1, 1.0),
    "violet": (0.8, 1.3, 0.3),
}  # fmt: skip
"""Optical density of full ink in red, green and blue, as displayed."""

Picture = np.ndarray
Placed = tuple[Picture, np.ndarray, np.ndarray]
"""A picture with an artefact, where the artefact is, and where it leaves a trace (bool, same rows and columns)."""


@dataclass(frozen=True)
class Specimen:
    """A picture of real tissue, its microns per pixel, and where the tissue is (bool)."""

    picture: Picture
    mpp: float
    tissue: np.ndarray


def light(picture: Picture) -> np.ndarray:
    return (picture.astype(np.float32) / 255) ** GAMMA


def shown(transmitted: np.ndarray) -> Picture:
    return np.rint(255 * np.clip(transmitted, 0, 1) ** (1 / GAMMA)).astype(np.uint8)


def curve_distance(specimen: Specimen, rng: np.random.Generator, length_um: float) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance in um from a gently bent line through the tissue, and how far along it a pixel is (-1 to 1)."""
    rows, columns = np.nonzero(specimen.tissue)
    chosen = rng.integers(len(rows))
    angle, bend = rng.uniform(0, np.pi), rng.uniform(-1, 1) / 1500
    y, x = np.indices(specimen.tissue.shape, dtype=np.float32)
    along = ((x - columns[chosen]) * np.cos(angle) + (y - rows[chosen]) * np.sin(angle)) * specimen.mpp
    across = ((y - rows[chosen]) * np.cos(angle) - (x - columns[chosen]) * np.sin(angle)) * specimen.mpp
    return across - bend * along**2, along / (length_um / 2)


def pen(specimen: Specimen, rng: np.random.Generator, ink: str) -> Placed:
    """A marker's stroke over tissue and glass: streaky along its way, dry in places, its rim where it dried last."""
    half_um, strength = rng.uniform(90, 180), rng.uniform(0.7, 1.2)
    across, along = curve_distance(specimen, rng, rng.uniform(900, 1800))
    wobble = cv2.GaussianBlur(rng.normal(0, 1, across.shape).astype(np.float32), (0, 0), 40 / specimen.mpp)
    across = across + 8 * wobble / wobble.std()
    streaks = 1 + np.interp(across, np.linspace(-200, 200, 60), rng.normal(0, 0.12, 60))
    amount = np.clip((half_um - np.abs(across)) / 10, 0, 1) * np.clip((1 - np.abs(along)) * 20, 0, 1)
    amount = amount * streaks * strength * (1 + 0.25 * np.exp(-(((np.abs(across) - half_um + 15) / 10) ** 2)))
    density = amount[..., None] * np.array(INKS[ink], dtype=np.float32)
    transmitted = specimen.picture / 255 * 10**-density
    return np.rint(255 * transmitted).astype(np.uint8), amount > 0.3, amount > 0


def fold(specimen: Specimen, rng: np.random.Generator) -> Placed:
    """A pleat: within the band the light passes the tissue, its mirrored underside and the tissue beyond."""
    width_um = rng.uniform(25, 80)
    across, along = curve_distance(specimen, rng, rng.uniform(500, 1500))
    band = (np.abs(across) <= width_um / 2) & (np.abs(along) <= 1)
    y, x = np.indices(across.shape, dtype=np.float32)
    down, right = np.gradient(across / specimen.mpp)
    transmitted = light(specimen.picture)
    glass = glass_light(specimen)
    total = transmitted.copy()
    for reach in (width_um - 2 * across, np.full_like(across, width_um)):  # mirrored at the far edge, and beyond it
        shift = reach / specimen.mpp
        layer = cv2.remap(
            transmitted, (x + right * shift).astype(np.float32), (y + down * shift).astype(np.float32),
            cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT,
        )  # fmt: skip
        total = total * (layer / glass).clip(0, 1)
    total = disc_blur(total, rng.uniform(0.7, 1.5) / specimen.mpp)
    edge = np.clip((width_um / 2 - np.abs(across)) / 2, 0, 1) * (np.abs(along) <= 1)
    mixed = transmitted * (1 - edge[..., None]) + total * edge[..., None]
    # A pleat of pale tissue over glass cannot be seen: what counts is where light was lost, over a cell's width.
    lost = cv2.blur(((transmitted - mixed) / np.maximum(transmitted, 0.02))[..., 1], (20, 20))
    return shown(mixed), band & specimen.tissue & (lost > 0.3), band


def defocus(specimen: Specimen, rng: np.random.Generator) -> Placed:
    """A region that lies above or below the focal plane; a point becomes a disc of radius dz tan(asin(NA / 1.5))."""
    dz_um = rng.uniform(6, 16)
    radius_um = dz_um * np.tan(np.arcsin(NUMERICAL_APERTURE / 1.5))
    rows, columns = np.nonzero(specimen.tissue)
    chosen = rng.integers(len(rows))
    y, x = np.indices(specimen.tissue.shape, dtype=np.float32)
    reach_um = rng.uniform(200, 450)
    share = np.clip((reach_um - np.hypot(y - rows[chosen], x - columns[chosen]) * specimen.mpp) / 60, 0, 1)
    transmitted = light(specimen.picture)
    blurred = disc_blur(transmitted, radius_um / specimen.mpp)
    return (
        shown(transmitted * (1 - share[..., None]) + blurred * share[..., None]),
        (share >= 1) & specimen.tissue,
        share > 0,
    )


def bubble(specimen: Specimen, rng: np.random.Generator) -> Placed:
    """Air under the cover slip: a dark rim, a bright line inside it, and an inside that is dimmer and out of focus."""
    rows, columns = np.nonzero(specimen.tissue)
    chosen = rng.integers(len(rows))
    y, x = np.indices(specimen.tissue.shape, dtype=np.float32)
    dy, dx = (y - rows[chosen]) * specimen.mpp, (x - columns[chosen]) * specimen.mpp
    turn, squeeze = rng.uniform(0, np.pi), rng.uniform(0.8, 1.0)
    radius = np.hypot(dx * np.cos(turn) + dy * np.sin(turn), (dy * np.cos(turn) - dx * np.sin(turn)) / squeeze)
    radius = radius * (1 + 0.03 * np.cos(3 * np.arctan2(dy, dx) + rng.uniform(0, 6)))
    reach_um, rim_um = rng.uniform(90, 320), rng.uniform(8, 20)
    inside = radius <= reach_um
    transmitted = light(specimen.picture)
    medium = 0.9 * disc_blur(transmitted, rng.uniform(3, 7) / specimen.mpp)
    rim = 1 - rng.uniform(0.75, 0.92) * np.exp(-(((radius - reach_um + rim_um / 2) / (rim_um / 2)) ** 2))
    caustic = 1 + 0.12 * np.exp(-(((radius - reach_um + 2 * rim_um) / 4) ** 2))
    soft = np.clip((reach_um - radius) / 2, 0, 1)[..., None]
    return shown(transmitted * (1 - soft) + medium * (rim * caustic)[..., None] * soft), inside, inside


def glass_light(specimen: Specimen) -> np.ndarray:
    """Light of bare glass in red, green and blue; of the brightest pixels where there is no glass."""
    bare = light(specimen.picture)[~specimen.tissue]
    if len(bare) > 0.02 * specimen.tissue.size:
        return np.percentile(bare, 20, axis=0)
    return np.percentile(light(specimen.picture).reshape(-1, 3), 99.5, axis=0)


def disc_blur(transmitted: np.ndarray, radius_px: float) -> np.ndarray:
    """Convolve with a disc, its edge by the share of each pixel that it covers."""
    reach = int(np.ceil(radius_px)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = np.clip(radius_px + 0.5 - np.hypot(y, x), 0, 1).astype(np.float32)
    return cv2.filter2D(transmitted, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)


ARTEFACTS: dict[str, Callable[[Specimen, np.random.Generator], Placed]] = {
    **{f"pen, {ink}": lambda specimen, rng, ink=ink: pen(specimen, rng, ink) for ink in INKS},
    "out of focus": defocus,
    "fold": fold,
    "bubble": bubble,
}
