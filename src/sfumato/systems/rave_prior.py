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

from sfumato import player
from sfumato.config import Settings
from sfumato.diffusion import precondition
from sfumato.errors import InputError, ModelError
from sfumato.folder import shipped
from sfumato.networks import unet1d

if TYPE_CHECKING:
    from sfumato.diffusion.noise import BatchNoise
    from sfumato.diffusion.precondition import Denoiser
    from sfumato.player import Player

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
    codec_digest: str = Field(
        "", pattern="^([0-9a-f]{64})?$", description="the codec's digest; a finished training fills it in"
    )
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


def codec_of(config: Config) -> Player:
    """The codec whose latents are drawn, unless it has become another one.

    Raises
    ------
    ModelError
        It is missing, another one than the prior was trained with, or doesn't fit; says what to do.
    """
    try:
        codec = player.load(config.codec)
    except InputError:
        raise ModelError(
            f"The codec {config.codec}, whose latents this prior draws, is not here. Put its folder there, or write "
            "where it is as config.codec into the prior's model.yaml."
        ) from None
    if config.codec_digest and codec.digest != config.codec_digest:
        raise ModelError(
            f"The codec {config.codec} is another one than this prior was trained with ({codec.digest[:12]}…, not "
            f"{config.codec_digest[:12]}…). Write where that one is as config.codec into the prior's model.yaml, or "
            "train the prior again."
        )
    rate, n = codec.recipe.sample_rate, len(codec.weights.scale)
    if codec.channels != 1 or rate != config.sample_rate or config.dims > n:
        raise ModelError(
            f"The codec {config.codec} has {codec.channels} channels, {rate} Hz and {n} coordinates. A prior of "
            f"{config.dims} coordinates at {config.sample_rate} Hz needs one channel, that rate and as many of them."
        )
    return codec


def finish(network: nn.Module, config: Config, batches: list[dict[str, Tensor]]) -> tuple[nn.Module, Config]:
    """The trained prior, bound to its codec: by digest, and by name where that is a shipped one."""
    codec = codec_of(config)
    named = codec.name if codec.name in shipped() and player.load(codec.name).digest == codec.digest else config.codec
    return network, config.model_copy(update={"codec": named, "codec_digest": codec.digest})


def denoiser(network: nn.Module) -> Denoiser:
    """The denoiser of windows of coordinates."""
    return precondition.edm(network, None, 1.0)
