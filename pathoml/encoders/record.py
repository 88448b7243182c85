"""What an encoder is, once built."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from pathoml.errors import EncoderError


@dataclass(frozen=True)
class Encoder:
    """A frozen network that turns tiles into features.

    Parameters
    ----------
    name : str
        What bags and packages call it.
    module : nn.Module
        In evaluation mode; float images (batch, 3, tile_px, tile_px) -> features (batch, dim).
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
            If either differs.
        """
        if tile_px != self.tile_px or abs(target_mpp / self.mpp - 1) > 0.02 + 1e-9:
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
            ``torch.float32`` or ``torch.bfloat16`` inside the network.

        Returns
        -------
        Tensor of float32, shape (batch, dim)
            Features.
        """
        mean = torch.tensor(self.mean, device=tiles.device) * 255
        std = torch.tensor(self.std, device=tiles.device) * 255
        images = tiles.permute(0, 3, 1, 2).to(dtype=torch.float32, memory_format=torch.channels_last)
        images = (images - mean[:, None, None]) / std[:, None, None]
        features: Tensor = self.module(images.to(precision))
        return features.float()
