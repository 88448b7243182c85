"""Stain normalisation and augmentation: held against torchstain, against arithmetic by hand, and against batches."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pathoml.artefacts import optical_density_statistics
from pathoml.errors import BadStainError
from pathoml.stain import StainChange, fit_stain, macenko_stains, stain_change
from pathoml.stain_settings import AugmentSettings, MacenkoSettings, NoStainSettings, ReinhardSettings, StainSettings

HAEMATOXYLIN, EOSIN = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])


def stained(count: int = 40_000, *, light: float = 240.0, strength: float = 1.0, seed: int = 0) -> np.ndarray:
    """Pixels of two known stains in random amounts, a fifth of them nearly pure."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(2.0, 0.35, (count, 2)) * strength
    amounts[: count // 10, 1] *= 0.02
    amounts[count // 10 : count // 5, 0] *= 0.02
    stains = np.stack([HAEMATOXYLIN / np.linalg.norm(HAEMATOXYLIN), EOSIN / np.linalg.norm(EOSIN)])
    return rng.permutation(np.clip(np.rint(light * np.exp(-amounts @ stains) - 1), 0, 255).astype(np.uint8))


def change_of(pixels: np.ndarray, settings: StainSettings) -> StainChange | None:
    """What extraction does: estimate where the change depends on the slide, then make the change."""
    fits = isinstance(settings, MacenkoSettings | ReinhardSettings)
    return stain_change(settings, fit_stain(pixels, settings, "slide") if fits else None)


def as_tiles(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels[: 4 * 64 * 64].reshape(4, 64, 64, 3))


ROWS = np.arange(4)


def test_macenko_finds_the_stains_that_were_mixed() -> None:
    found, _ = macenko_stains(stained(), MacenkoSettings())
    for one, true in zip(found, (HAEMATOXYLIN, EOSIN), strict=True):
        cosine = one @ true / np.linalg.norm(true) / np.linalg.norm(one)
        assert cosine > 0.995


@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_the_stains_do_not_depend_on_the_signs_of_eigenvectors(
    signs: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which LAPACK chooses as it likes; with the wrong ones slides were refused as of one stain."""
    expected = macenko_stains(stained(), MacenkoSettings())
    eigh = np.linalg.eigh

    def turned(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = eigh(matrix)
        return values, vectors * np.array([1, *signs])

    monkeypatch.setattr(np.linalg, "eigh", turned)
    for one, other in zip(macenko_stains(stained(), MacenkoSettings()), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)


def test_macenko_equals_torchstain_on_the_same_picture() -> None:
    golden = json.loads((Path(__file__).parent / "golden" / "macenko.json").read_text())
    picture, expected = (np.array(golden[name], dtype=np.uint8).reshape(32, 32, 3) for name in ("given", "normalised"))
    change = change_of(picture.reshape(-1, 3), MacenkoSettings())
    assert change is not None
    ours = change(torch.from_numpy(picture[None]), np.arange(1))[0].numpy()
    difference = ours.astype(int) - expected.astype(int)
    assert set(np.unique(difference)) <= {0, 1}, "theirs rounds down, ours to nearest"


@pytest.mark.parametrize("settings", [MacenkoSettings(), ReinhardSettings()], ids=["macenko", "reinhard"])
def test_two_scanners_of_one_tissue_look_alike_afterwards(settings: MacenkoSettings | ReinhardSettings) -> None:
    weak, strong = stained(strength=0.7, light=240), stained(strength=1.3, light=225)
    before = np.abs(weak.mean(axis=0) - strong.mean(axis=0)).max()
    after = []
    for pixels in (weak, strong):
        change = change_of(pixels, settings)
        assert change is not None
        after.append(change(as_tiles(pixels), ROWS).float().mean(dim=(0, 1, 2)))
    assert (after[0] - after[1]).abs().max() < 0.35 * before


def test_reinhard_brings_mean_and_spread_to_the_reference() -> None:
    cv2 = pytest.importorskip("cv2")
    pixels = stained()
    change = change_of(pixels, ReinhardSettings())
    assert change is not None
    rgb = change(as_tiles(pixels), ROWS).numpy().reshape(-1, 1, 3)
    lab = cv2.cvtColor((rgb / 255).astype(np.float32), cv2.COLOR_RGB2LAB).reshape(-1, 3)  # an independent conversion
    settings = ReinhardSettings()
    np.testing.assert_allclose(lab.mean(axis=0), settings.mean, atol=1.5)
    np.testing.assert_allclose(lab.std(axis=0), settings.spread, rtol=0.15)


@pytest.mark.parametrize("settings", [MacenkoSettings(), ReinhardSettings(), AugmentSettings(strength=0.2)])
def test_a_tile_comes_out_the_same_in_any_batch(settings: MacenkoSettings | ReinhardSettings | AugmentSettings) -> None:
    pixels = stained()
    change = change_of(pixels, settings)
    assert change is not None
    together = change(as_tiles(pixels), ROWS)
    alone = torch.cat([change(as_tiles(pixels)[row : row + 1], ROWS[row : row + 1]) for row in range(4)])
    assert torch.equal(together, alone)


def test_augmentation_differs_by_tile_and_seed_and_stays_near() -> None:
    tile = as_tiles(stained())[:1].repeat(4, 1, 1, 1)
    first, again, other = (
        change_of(np.zeros((0, 3), np.uint8), AugmentSettings(strength=0.05, seed=seed)) for seed in (0, 0, 1)
    )
    assert first is not None
    assert again is not None
    assert other is not None
    changed = first(tile, ROWS)
    assert torch.equal(changed, again(tile, ROWS))
    assert not torch.equal(changed, other(tile, ROWS))
    assert not torch.equal(changed[0], changed[1])
    assert (changed.float() - tile.float()).abs().mean() < 20


def test_colours_stay_as_they_are_by_default() -> None:
    assert change_of(stained(), NoStainSettings()) is None


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.full((5000, 3), 250, np.uint8), "slide 7: hardly a pixel is stained; set stain.kind: none"),
        (np.zeros((10, 3), np.uint8), "slide 7: 10 pixels of tissue are too few"),
    ],
    ids=["glass", "few"],
)
def test_a_slide_without_two_stains_is_refused_with_what_to_do(pixels: np.ndarray, said: str) -> None:
    with pytest.raises(BadStainError, match=said):
        fit_stain(pixels, MacenkoSettings(), "slide 7")


def test_optical_densities_are_those_of_beer_and_lambert() -> None:
    found = optical_density_statistics(np.array([[255, 128, 25], [255, 64, 25]], np.uint8))
    assert found["mean_red"] == 0
    assert found["mean_green"] == pytest.approx((np.log10(255 / 128) + np.log10(255 / 64)) / 2, abs=1e-4)
    assert found["sd_blue"] == 0


def test_a_slide_of_haematoxylin_alone_is_refused() -> None:
    rng = np.random.default_rng(0)
    amounts = rng.gamma(2.0, 0.35, (20_000, 1))
    pixels = 240 * np.exp(-amounts * HAEMATOXYLIN / np.linalg.norm(HAEMATOXYLIN)) - 1 + rng.normal(0, 1.5, (20_000, 3))
    with pytest.raises(BadStainError, match="slide 7: only one stain can be told"):
        fit_stain(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), MacenkoSettings(), "slide 7")
