"""What an encoder is, once built."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from pathoml.encoders.fitting import tiles_fit
from pathoml.errors import EncoderError


@dataclass(frozen=True)
class Encoder:
    """A frozen network that turns tiles into features.

    Parameters
    ----------
    name : str
        What bags and packages call it.
    module : nn.Module
        In evaluation mode; float images (batch, 3, input_px, input_px) -> features (batch, dim).
    dim : int
        Columns of the features.
    mpp : float
        Microns per pixel that it was trained at.
    tile_px : int
        Side of the tiles that it takes.
    mean, std : tuple of float
        Mean and standard deviation of each colour (0-1) in its training.
    weights_digest : str
        SHA-256 of its weights.
    licence : str
        Licence of the weights.
    pretraining : str
        What it was pretrained on.
    resize_px : int, optional
        Side that tiles are resized to; None is ``tile_px``.
    input_px : int, optional
        Side of the network's input, the centre of the resized tile; None is ``resize_px``.
    interpolation : {"bilinear", "bicubic"}, optional
        How tiles are resized, with antialiasing.
    other_tiles : bool, optional
        Take tiles of any resolution and size, resized like its own.
    """

    name: str
    module: nn.Module
    dim: int
    mpp: float
    tile_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    weights_digest: str
    licence: str
    pretraining: str
    resize_px: int | None = None
    input_px: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    other_tiles: bool = False

    def check_tiles(self, *, target_mpp: float, tile_px: int) -> None:
        """Refuse tiles of another resolution or size than the encoder was trained with.

        Parameters
        ----------
        target_mpp : float
            Microns per pixel of the tiles.
        tile_px : int
            Their side.

        Raises
        ------
        EncoderError
            If either differs, unless ``other_tiles`` allows it.
        """
        if self.other_tiles:
            return
        if not tiles_fit(target_mpp, tile_px, mpp=self.mpp, own_px=self.tile_px):
            raise EncoderError(
                f"encoder {self.name} takes {self.tile_px} px tiles at {self.mpp} mpp, tiling makes {tile_px} px at {target_mpp};"
                f" set tiling.tile_px: {self.tile_px} and tiling.target_mpp: {self.mpp}"
            )

    @torch.inference_mode()
    def encode(
        self, tiles: UInt8[Tensor, "batch height width 3"], *, precision: torch.dtype
    ) -> Float[Tensor, "batch dim"]:
        """Encode a batch of tiles on the device that holds them.

        Parameters
        ----------
        tiles : Tensor of uint8, shape (batch, height, width, 3)
            RGB.
        precision : torch.dtype
            ``torch.float32``, ``torch.bfloat16`` or ``torch.float16`` inside the network.

        Returns
        -------
        Tensor of float32, shape (batch, dim)
            Features.
        """
        mean = torch.tensor(self.mean, device=tiles.device) * 255
        std = torch.tensor(self.std, device=tiles.device) * 255
        images = tiles.permute(0, 3, 1, 2).to(dtype=torch.float32, memory_format=torch.channels_last)
        images = self._fitted(images)
        images = (images - mean[:, None, None]) / std[:, None, None]
        features: Tensor = self.module(images.to(precision))
        return features.float()

    def _fitted(self, images: Tensor) -> Tensor:
        """Resize tiles and take their centre, as the encoder had it in training."""
        resize_px = self.resize_px or self.tile_px
        input_px = self.input_px or resize_px
        if images.shape[-1] != resize_px:
            images = functional.interpolate(
                images, size=(resize_px, resize_px), mode=self.interpolation, antialias=True
            ).clamp(0, 255)  # bicubic goes beyond black and white
        edge = (resize_px - input_px) // 2
        return images[:, :, edge : edge + input_px, edge : edge + input_px]
