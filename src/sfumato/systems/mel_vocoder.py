"""From log-mel pictures to sound: diffusion of complex spectrograms that are to have the picture's levels.

The picture says how loud each band is when (`signal.log_mel`); the network, which is given it beside the noisy
spectrogram, finds phases, partials between the bands' centres, and texture. The way from a spectrogram to sound is then
exact (`signal.complex_spectrogram`). A few evaluations are enough, as little is left open; and as the levels are known,
what the network missed of them is set at the end (`signal.log_mel.levelled`).

It stands where Make-An-Audio [1]_ has BigVGAN, an adversarial vocoder of 112 million weights that was trained on
speech; and it serves whatever else draws pictures of this kind. Pictures that a generator drew are smoother than real
ones and wrong in places: in training they are blurred and disturbed, each by a strength of its own, which the network
is told, as in cascaded diffusion [2]_ [3]_; so whoever uses it says how far the picture is to be relied on.

References
----------
.. [1] R. Huang et al., "Make-An-Audio", ICML 2023, arXiv 2301.12661, section 4.1.
.. [2] J. Ho et al., "Cascaded diffusion models for high fidelity image generation", arXiv 2106.15282, section 3.
.. [3] Q. Huang et al., "Noise2Music", arXiv 2302.03917, section 3: what conditions a stage is disturbed in training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sfumato.config import Settings
from sfumato.diffusion import guide, sample, schedule
from sfumato.networks import band_unet
from sfumato.signal import complex_spectrogram
from sfumato.signal.log_mel import HOP, SILENCE, levelled, levelled_loop, log_mel, over_bins
from sfumato.wanted import nothing

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float

    from sfumato.diffusion.noise import BatchNoise, Noise
    from sfumato.diffusion.precondition import Denoiser

NAME = "mel_vocoder"
PAPER = {
    "title": "Make-An-Audio: Text-to-audio generation with prompt-enhanced diffusion models",
    "arxiv": "2301.12661",
    "code": "github.com/Text-to-Audio/Make-An-Audio (none of it is here)",
    "licence": "none stated",
}
TURNS = ("denoise",)

BLUR, REACH = 2.0, 4
"""Strongest blur of a training picture: standard deviation in bands and frames, and how far it reaches."""
DISTURBANCE = 0.3
"""Strongest disturbance: standard deviation of what is added to each place, in units of 20 dB."""
UNTOUCHED = 0.2
"""Share of items that are trained with the picture as it is."""


class Config(Settings):
    """The network, what it draws, and its noise levels."""

    network: band_unet.Config = Field(
        band_unet.Config(
            bands=((64, 2), (32, 4), (16, 16)),
            widths=(64, 128, 160, 192),
            attending=1,
            words=8,
            keys=1,
            given=3,
            magnitudes=True,
        ),
        description="the U-Net over complex spectrograms",
    )
    sample_rate: int = Field(16000, ge=1000, le=384_000, description="sample rate, Hz")
    n_frames: int = Field(160, ge=2, description="frames of the training window")
    sigma_mean: float = Field(-0.2, description="mean of ln(sigma) in training; sounds have a standard deviation of 1")
    sigma_std: float = Field(1.4, gt=0, description="standard deviation of ln(sigma) in training")
    sigma_max: float = Field(20.0, gt=0, description="first noise level of the sampler")
    sigma_min: float = Field(0.02, gt=0, description="last noise level above 0 of the sampler")

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.n_frames % self.network.multiple:
            raise ValueError(f"n_frames is {self.n_frames}, no multiple of the network's {self.network.multiple}")
        if self.hop % HOP:
            raise ValueError(f"the network has {self.hop} bins, no multiple of {HOP}, the picture's samples a frame")
        if self.network.given != self.hop // HOP + 1:
            raise ValueError(f"{self.hop} bins take network.given = {self.hop // HOP + 1}")
        return self

    @property
    def hop(self) -> int:
        """Samples from frame to frame, and bins of a frame."""
        return self.network.n_bins

    @property
    def n_samples(self) -> int:
        """Samples of a training example: a window and, so that no frame reaches beyond it, a little at either end."""
        return (self.n_frames + 3) * self.hop


def build(config: Config) -> nn.Module:
    """The network with its initial weights."""
    return band_unet.BandUNet(config.network)


def loss(
    network: nn.Module, batch: dict[str, Tensor], config: Config, noise: BatchNoise, turn: str
) -> dict[str, Tensor]:
    """Mean squared error of v, every row weighing the same; `batch` holds "audio" ``(b, n_samples)``."""
    audio, half, t = batch["audio"], config.hop, config.n_frames
    bins = complex_spectrogram.bins(audio[:, half:], half, ends=False)[..., :t]
    clean = complex_spectrogram.picture(bins, config.sample_rate)
    first, n = 2 * half // HOP, t * half // HOP  # the first frame's centre is two steps from the start
    mel = log_mel(audio, config.sample_rate)[..., first : first + n]
    strength = ((noise.uniform(2) - UNTOUCHED) / (1 - UNTOUCHED)).clamp(min=0)
    mel = blurred(mel, strength * BLUR) + DISTURBANCE * strength[:, None, None] * noise(3, mel.shape[1:])
    level, wanted = (config.sigma_mean, config.sigma_std), nothing(len(clean), config.network.words)
    return band_unet.loss(network, config.network, clean, wanted, noise, level, beside(mel, strength, config))


def blurred(mel: Float[Tensor, "b f t"], deviation: Float[Tensor, " b"]) -> Float[Tensor, "b f t"]:
    """Pictures blurred along both axes by Gaussians, each by its own, in bands and frames; 0 leaves one as it is."""
    b = len(mel)
    at = torch.arange(-REACH, REACH + 1, device=mel.device)
    kernel = (-0.5 * (at / deviation.clamp(min=1e-3)[:, None]).square()).exp()
    kernel = (kernel / kernel.sum(dim=1, keepdim=True))[:, None]
    padded = functional.pad(mel[None], (REACH, REACH, REACH, REACH), mode="replicate")
    with torch.autocast(mel.device.type, enabled=False):
        tall = functional.conv2d(padded, kernel[..., None], groups=b)
        return functional.conv2d(tall, kernel[:, :, None], groups=b)[0]


def beside(mel: Float[Tensor, "b f s"], strength: Float[Tensor, " b"], config: Config) -> Float[Tensor, "b k half t"]:
    """What the network is given: the picture's levels at its bins, and how blurred and disturbed the picture is."""
    levels = over_bins(mel, config.hop, config.sample_rate)
    told = strength[:, None, None, None].to(levels)
    return torch.cat([levels, told.expand(-1, 1, *levels.shape[2:])], dim=1)


def denoiser(
    network: nn.Module,
    config: Config,
    given: Float[Tensor, "b k half t"],
    turn: Callable[[int], int] | None = None,
) -> Denoiser:
    """The denoiser of pictures ``(b, 2, half, t)`` of any length: long ones in windows of the training's length.

    `given` is from `beside`; the network's `multiple` divides t. With `turn`, as for `guide.circle`, they are loops,
    and `complex_spectrogram.TURN` divides t.
    """

    def bind(part: Tensor) -> Denoiser:
        return band_unet.denoiser(network, config.network.words, given=part)

    if turn is not None:
        window = config.n_frames
        return guide.circle_given(bind, given, window, window // 2, turn, complex_spectrogram.TURN)
    # Windows begin at even frames, as the network's columns do.
    return guide.windows_given(bind, given, config.n_frames, config.n_frames // 4 // 2 * 2)


def frames_of(n_samples: int, config: Config) -> int:
    """Frames of the spectrogram that a sound of `n_samples` is drawn as: a multiple of the network's."""
    multiple = config.network.multiple
    return -(-(-(-n_samples // config.hop) + 1) // multiple) * multiple


@torch.no_grad()
def vocode(
    network: nn.Module,
    config: Config,
    mel: Float[Tensor, "b f s"],
    n_samples: int,
    noise: Noise,
    steps: int = 8,
    strength: float = 0.5,
    sampler: str = "dpmpp_2m",
    rho: float = 7.0,
    turn: Callable[[int], int] | None = None,
) -> Float[Tensor, "b n"]:
    """Sounds of `n_samples` that have the levels of pictures.

    Parameters
    ----------
    mel
        Pictures as of `log_mel`; where they end before the sound does, silence follows.
    noise
        Gives the starting noise at 0, and then what a stochastic sampler adds: (b, 2, half, `frames_of`).
    steps
        Of the sampler, each one evaluation of the network.
    strength
        How blurred and disturbed the pictures are, from 0, real ones, to 1.
    rho
        Of the noise levels (`schedule.karras`).
    turn
        For loops, as for `denoiser`: of `n_samples`, all of which their pictures' frames have, ``n_samples / hop`` of
        the noise's.
    """
    t = frames_of(n_samples, config) if turn is None else n_samples // config.hop
    n = t * config.hop // HOP
    whole = functional.pad(mel[..., :n], (0, max(0, n - mel.shape[-1])), value=SILENCE)
    given = beside(whole, mel.new_full((len(mel),), strength), config)
    sigmas = schedule.karras(steps, config.sigma_min, config.sigma_max, rho).float()
    walk = sample.SAMPLERS[sampler](denoiser(network, config, given, turn), noise(0) * sigmas[0], sigmas, noise)
    bins = complex_spectrogram.unpicture(sample.last(walk), config.sample_rate)
    with torch.autocast(mel.device.type, enabled=False):
        if turn is not None:
            return levelled_loop(complex_spectrogram.circular_sound(bins).float(), whole.float(), config.sample_rate)
        drawn = complex_spectrogram.sound(bins, n_samples).float()
        return levelled(drawn, whole[..., : -(-n_samples // HOP) + 1].float(), config.sample_rate)
