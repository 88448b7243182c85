"""Whether an encoder fits the tiles and files it is given, as far as can be told without building it; torch-free."""

from pathlib import Path

from pathoml.encoders.registry import find_record
from pathoml.encoders.settings import (
    EncoderSettings,
    ImportedSettings,
    Lite0Settings,
    LocalSettings,
    RegisteredSettings,
)
from pathoml.errors import Problem
from pathoml.tiling import TilingSettings
from pathoml.units import MPP_TOLERANCE

LITE0_TILE_PX, LITE0_MPP = 224, 0.5


def tiles_fit(target_mpp: float, tile_px: int, *, mpp: float, own_px: int) -> bool:
    """Say whether tiles are those that an encoder was trained with.

    Parameters
    ----------
    target_mpp, tile_px : float, int
        Of the tiles.
    mpp, own_px : float, int
        Of the encoder.

    Returns
    -------
    bool
        True if side and, within 2 %, resolution agree.
    """
    return tile_px == own_px and abs(target_mpp / mpp - 1) <= MPP_TOLERANCE + 1e-9


def encoder_problems(settings: EncoderSettings, tiling: TilingSettings) -> list[Problem]:
    """Return what forbids an encoder, before anything is loaded.

    Parameters
    ----------
    settings : Lite0Settings, TimmSettings, LocalSettings, RegisteredSettings or ImportedSettings
        Which encoder.
    tiling : TilingSettings
        The tiles it would be given.

    Returns
    -------
    list of Problem
        Tiles of another size or resolution; a weights file that is not there.
    """
    if isinstance(settings, ImportedSettings):
        return []
    problems = []
    wanted = _own_tiles(settings)
    if wanted is not None and not tiles_fit(tiling.target_mpp, tiling.tile_px, mpp=wanted[1], own_px=wanted[0]):
        name = getattr(settings, "name", settings.kind)
        allow = ", or encoder.other_tiles: true" if isinstance(settings, RegisteredSettings) else ""
        message = (
            f"encoder {name} takes {wanted[0]} px tiles at {wanted[1]:g} microns per pixel, tiling makes {tiling.tile_px} px at "
            f"{tiling.target_mpp:g}; set tiling.tile_px: {wanted[0]} and tiling.target_mpp: {wanted[1]:g}{allow}"
        )
        problems.append(Problem("", message, ("encoder",)))
    weights: Path | None = getattr(settings, "weights", None)
    if weights is not None and not weights.is_file():
        problems.append(Problem("", f"encoder weights: no such file: {weights}", ("encoder", "weights")))
    return problems


def _own_tiles(settings: EncoderSettings) -> tuple[int, float] | None:
    """Return side and resolution of the tiles that an encoder takes; None where only its network knows, or any will do."""
    if isinstance(settings, Lite0Settings):
        return LITE0_TILE_PX, LITE0_MPP
    if isinstance(settings, RegisteredSettings) and not settings.other_tiles:
        record = find_record(settings.name)
        return record.tile_px, record.mpp
    if isinstance(settings, LocalSettings) and settings.tile_px is not None:
        return settings.tile_px, settings.mpp
    return None
