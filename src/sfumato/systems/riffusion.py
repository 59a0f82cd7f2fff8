"""Riffusion: music from words, drawn as spectrograms.

The published system [1]_ is Stable Diffusion, fine-tuned on pictures of magnitudes; their phases are guessed by
Griffin and Lim's iterations. Its pictures and their parameters are `signal.spectrogram_image`, its checkpoints run
through `tasks.published_riffusion`. This is the small model that ships: a network that draws complex spectrograms, so
the way to sound is one exact transform, and what is done to a place of the spectrogram is done to the sound.

Where it departs from the published system:

- It draws the complex numbers themselves, compressed (`signal.complex_spectrogram`), at full bandwidth; no variational
  autoencoder stands before it.
- It predicts v [2]_ rather than the noise, and is small (`networks.band_unet`).
- Words come from a frozen sentence encoder (`networks.text`); tempo and key can be asked for by number, too.
- It is trained at higher noise levels than pictures ask for: what is loud covers many places, and shows through noise
  that hides each of them [3]_.
- Every band of the network weighs the same in the loss, so that the highest two octaves, half of all bins, don't take
  half of it.

References
----------
.. [1] S. Forsgren, H. Martiros, "Riffusion: stable diffusion for real-time music generation", riffusion.com, 2022.
.. [2] T. Salimans, J. Ho, "Progressive distillation for fast sampling of diffusion models", arXiv 2202.00512.
.. [3] E. Hoogeboom et al., "simple diffusion", arXiv 2301.11093, section 3.1: noise for more places.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator
from torch import Tensor, nn

from sfumato.config import Settings
from sfumato.networks import band_unet
from sfumato.signal import complex_spectrogram
from sfumato.wanted import KEYS, Wanted

if TYPE_CHECKING:
    from sfumato.diffusion.noise import BatchNoise

NAME = "riffusion"
PAPER = {
    "title": "Riffusion: Stable diffusion for real-time music generation",
    "arxiv": "",
    "code": "github.com/riffusion/riffusion-hobby",
    "licence": "MIT",
}
TURNS = ("denoise",)


class Config(Settings):
    """The network, what it draws, and its noise levels."""

    network: band_unet.Config = Field(
        band_unet.Config(magnitudes=True), description="the U-Net over complex spectrograms"
    )
    sample_rate: int = Field(44100, ge=8000, le=384_000, description="sample rate, Hz")
    n_frames: int = Field(128, ge=2, description="frames of a training example")
    window: int = Field(224, ge=2, description="frames that are drawn at once")
    sigma_mean: float = Field(0.7, description="mean of ln(sigma) in training; sounds have a standard deviation of 1")
    sigma_std: float = Field(1.5, gt=0, description="standard deviation of ln(sigma) in training")
    sigma_max: float = Field(100.0, gt=0, description="first noise level of the sampler")
    sigma_min: float = Field(0.02, gt=0, description="last noise level above 0 of the sampler")
    strength: tuple[float, ...] = Field(
        (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0, 100.0),
        min_length=2,
        description="noise levels at which places of strengths even from 0 to 1 are let go (docs/everyday.md)",
    )
    unprompted: float = Field(0.12, ge=0, le=1, description="share of items trained without what is wanted")

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.n_frames % self.network.multiple or self.window % self.network.multiple:
            lengths = f"n_frames is {self.n_frames} and window {self.window}"
            raise ValueError(f"{lengths}: they must be multiples of the network's {self.network.multiple}")
        if min(self.strength) <= 0 or sorted(set(self.strength)) != list(self.strength):
            raise ValueError("strength takes noise levels that rise")
        if self.network.keys != len(KEYS):
            raise ValueError(f"the network knows {self.network.keys} keys, there are {len(KEYS)} with none")
        return self

    @property
    def half(self) -> int:
        """Samples from frame to frame, and bins of a frame."""
        return self.network.n_bins

    @property
    def n_samples(self) -> int:
        """Samples of a training example, whose frames all lie in it."""
        return (self.n_frames + 1) * self.half


def build(config: Config) -> nn.Module:
    """The network with its initial weights."""
    return band_unet.BandUNet(config.network)


def loss(
    network: nn.Module, batch: dict[str, Tensor], config: Config, noise: BatchNoise, turn: str
) -> dict[str, Tensor]:
    """Mean squared error of v [2]_, every band weighing the same.

    `batch` holds "audio" ``(b, n_samples)`` and the fields of `Wanted`.
    """
    bins = complex_spectrogram.bins(batch["audio"], config.half, ends=False)
    clean = complex_spectrogram.picture(bins, config.sample_rate)
    wanted = Wanted(*(batch[name] for name in ("sentence", "tokens", "valid", "bpm", "key")))
    wanted = wanted.only(noise.uniform(2) >= config.unprompted)
    level = config.sigma_mean, config.sigma_std
    return band_unet.loss(network, config.network, clean, wanted, noise, level)
