"""A prior over the latent sequences of a RAVE codec: draws them, so that the codec plays what nobody recorded.

The codec's paper [1]_ puts an autoregressive network over quantised latents behind its autoencoder. Here the latents'
strongest principal coordinates, each of unit variance, are a short picture, dims by frames, and diffusion with the
library's one core [2]_ draws it as a whole: as long as is wanted in overlapping windows, and in as few evaluations as
the sampler needs. The coordinates left out stay at their mean.

References
----------
.. [1] A. Caillon, P. Esling, "RAVE", arXiv 2111.05011, sec. 4.4.
.. [2] T. Karras et al., "Elucidating the design space of diffusion-based generative models", arXiv 2206.00364.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from torch import Tensor, nn

from sfumato.config import Settings
from sfumato.diffusion import precondition
from sfumato.networks import unet1d

if TYPE_CHECKING:
    from sfumato.diffusion.noise import BatchNoise
    from sfumato.diffusion.precondition import Denoiser

NAME = "rave_prior"
PAPER = {
    "title": "RAVE: A variational autoencoder for fast and high-quality neural audio synthesis",
    "arxiv": "2111.05011",
    "code": "github.com/acids-ircam/RAVE (never opened)",
    "licence": "CC BY-NC 4.0 (the code; none of it is here)",
}
TURNS = ("denoise",)


class Config(Settings):
    """Whose latents, how many of their coordinates, and the network that draws them."""

    codec: str = Field("rave-piano", description="name or folder of the codec")
    sample_rate: int = Field(44100, gt=0, description="the codec's sample rate, Hz")
    dims: int = Field(32, ge=1, description="principal coordinates drawn; the others stay at their mean")
    frames: int = Field(128, ge=1, description="length of the training window, latent frames")
    widths: tuple[int, ...] = Field((128, 192, 256), description="channels of each level, finest first")
    sigma_mean: float = Field(-0.8, description="mean of ln(sigma) in training")
    sigma_std: float = Field(1.4, gt=0, description="standard deviation of ln(sigma) in training")
    sigma_max: float = Field(40.0, gt=0, description="first noise level of the sampler")
    sigma_min: float = Field(0.01, gt=0, description="last noise level above 0 of the sampler")

    @property
    def network(self) -> unet1d.Config:
        """Shape of the network: a U-Net along time whose channels are coordinates."""
        return unet1d.Config(channels=self.dims, patch=1, factor=2, kernel=3, widths=self.widths)


def build(config: Config) -> nn.Module:
    """The network with its initial weights."""
    return unet1d.UNet1d(config.network)


def loss(
    network: nn.Module, batch: dict[str, Tensor], config: Config, noise: BatchNoise, turn: str
) -> dict[str, Tensor]:
    """Weighted squared error of the denoiser [2]_, eq. 8; `batch` holds "clean" (b, dims, frames), of unit variance."""
    clean = batch["clean"]
    sigma = precondition.lognormal_sigma(noise.stratified(0), config.sigma_mean, config.sigma_std).float()
    noisy = clean + precondition.spread(sigma, clean) * noise(1, clean.shape[1:])
    squared = (denoiser(network)(noisy, sigma).float() - clean).square().mean(dim=(1, 2))
    return {"total": (precondition.edm_weight(sigma, 1.0) * squared).mean(), "squared": squared.mean().detach()}


def denoiser(network: nn.Module) -> Denoiser:
    """The denoiser of windows of coordinates."""
    return precondition.edm(network, None, 1.0)
