"""Noise2Music: music from words by a cascade, each stage of it given what the one before it drew.

The published system [1]_ has a generator that reads words and draws 30 seconds of little fidelity: a waveform at
3.2 kHz or, the other route, a log-mel picture. A cascader, which is given that and the words, draws 16 kHz; a last
stage brings it to 24 kHz. Each is a diffusion of its own. A stage that is given a sound is trained on recordings' own
lower bands, but will be given what a generator drew: so they are blurred and disturbed in training, each example by a
strength of its own that the network is told [2]_, and whoever uses it says how far what it is given is to be relied on.

All stages are this one system; their configurations differ. `draws` says what a stage draws, a sound at `sample_rate`
or a picture of levels, and `given_rate` the rate of the sound that it is given, 0 for words alone. A picture of levels
gets its sound from `systems.mel_vocoder`, which is the paper's second stage on that route. Between the stages there is
nothing but sound, so any of them can be exchanged, or given a recording.

Where it departs from the paper:

- Sounds are drawn as complex spectrograms, which are exact both ways (`signal.complex_spectrogram`), by a U-Net of
  bands instead of over samples: phases turn less from place to place than samples do, and two cores get through it.
- The network predicts v [3]_ rather than the noise, in windows of some seconds that are one state for as long as asked.
- Words come from a frozen sentence encoder; tempo and key can be asked for by number.
- It is small: the published stages have 724, 487 and 81 million weights.

References
----------
.. [1] Q. Huang et al., "Noise2Music: text-conditioned music generation with diffusion models", arXiv 2302.03917,
       section 3.
.. [2] J. Ho et al., "Cascaded diffusion models for high fidelity image generation", arXiv 2106.15282, section 3.
.. [3] T. Salimans, J. Ho, "Progressive distillation for fast sampling of diffusion models", arXiv 2202.00512.
.. [4] J. Ho, T. Salimans, "Classifier-free diffusion guidance", arXiv 2207.12598.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from sfumato.config import Settings
from sfumato.diffusion import guide
from sfumato.networks import band_unet
from sfumato.signal import complex_spectrogram, log_mel
from sfumato.wanted import KEYS, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Float
    from torch import nn

    from sfumato.diffusion.noise import BatchNoise, Noise
    from sfumato.diffusion.precondition import Denoiser

NAME = "noise2music"
PAPER = {
    "title": "Noise2Music: Text-conditioned music generation with diffusion models",
    "arxiv": "2302.03917",
    "code": "",
    "licence": "",
}
TURNS = ("denoise",)

PASSED = 0.9
"""Share of the given sound's band that is taken from it: above, its own filter falls off."""
BLUR = 2.0
"""Strongest blur of what is given: a Gaussian low-pass whose deviation is the band's edge divided by this."""
DISTURBANCE = 0.3
"""Strongest disturbance: standard deviation of what is added to it, beside about 0.4 of its own."""
UNTOUCHED = 0.2
"""Share of examples that are trained with what is given as it is."""


class Config(Settings):
    """One stage: what it draws, what it is given, its network, its noise levels, and who goes on from it."""

    draws: Literal["sound", "levels"] = Field("sound", description="a sound, or a log-mel picture of one")
    network: band_unet.Config = Field(
        band_unet.Config(bands=((64, 1), (16, 4)), magnitudes=True), description="the U-Net"
    )
    sample_rate: int = Field(3200, ge=1000, le=384_000, description="sample rate of what is drawn, Hz")
    given_rate: int = Field(0, ge=0, le=384_000, description="sample rate of the sound that is given, Hz; 0 for none")
    n_frames: int = Field(208, ge=2, description="frames of the training window")
    sigma_mean: float = Field(0.7, description="mean of ln(sigma) in training; pictures have about unit variance")
    sigma_std: float = Field(1.5, gt=0, description="standard deviation of ln(sigma) in training")
    sigma_max: float = Field(100.0, gt=0, description="first noise level of the sampler")
    sigma_min: float = Field(0.02, gt=0, description="last noise level above 0 of the sampler")
    unprompted: float = Field(0.12, ge=0, le=1, description="share of items trained without what is wanted")
    then: tuple[str, ...] = Field(
        (), max_length=2, description="names or folders of the stages that go on from what this one draws, in order"
    )

    @model_validator(mode="after")
    def _fits(self) -> Config:
        network, levels = self.network, self.draws == "levels"
        if self.n_frames % network.multiple:
            raise ValueError(f"n_frames is {self.n_frames}, no multiple of the network's {network.multiple}")
        if network.keys != len(KEYS):
            raise ValueError(f"the network knows {network.keys} keys, there are {len(KEYS)} with none")
        if network.channels != (1 if levels else 2) or (levels and network.n_bins != log_mel.N_MELS):
            raise ValueError(f"a sound takes two channels, and levels one of {log_mel.N_MELS} bins")
        if self.given_rate and (levels or self.given_rate >= self.sample_rate):
            raise ValueError("what is given is a sound of a lower rate, for a sound")
        if network.given != (GIVEN if self.given_rate else 0):
            raise ValueError(f"network.given is {GIVEN} where a sound is given, else 0")
        return self

    @property
    def hop(self) -> int:
        """Samples from frame to frame."""
        return log_mel.HOP if self.draws == "levels" else self.network.n_bins

    @property
    def n_samples(self) -> int:
        """Samples of a training example: a window and, so that no frame reaches beyond it, a little at either end."""
        return (self.n_frames + 3) * self.hop

    @property
    def shape(self) -> tuple[int, int]:
        """Channels and bins of what is drawn."""
        return self.network.channels, self.network.n_bins


GIVEN = 3
"""Channels of what is given: a spectrogram's two, and how blurred and disturbed it is."""


def build(config: Config) -> nn.Module:
    """The network with its initial weights."""
    return band_unet.BandUNet(config.network)


def training_picture(audio: Float[Tensor, "b n"], config: Config) -> Float[Tensor, "b c f t"]:
    """What the stage is to draw for crops ``(b, n_samples)``."""
    if config.draws == "levels":
        return log_mel.log_mel(audio, config.sample_rate)[:, None, :, 2 : 2 + config.n_frames]
    bins = complex_spectrogram.bins(audio[:, config.hop :], config.hop, ends=False)[..., : config.n_frames]
    return complex_spectrogram.picture(bins, config.sample_rate)


def loss(
    network: nn.Module, batch: dict[str, Tensor], config: Config, noise: BatchNoise, turn: str
) -> dict[str, Tensor]:
    """Mean squared error of v [3]_; `batch` holds "audio" ``(b, n_samples)`` and the fields of `Wanted`."""
    clean = training_picture(batch["audio"], config)
    wanted = Wanted(*(batch[name] for name in ("sentence", "tokens", "valid", "bpm", "key")))
    wanted = wanted.only(noise.uniform(2) >= config.unprompted)
    given = None
    if config.given_rate:
        strength = ((noise.uniform(3) - UNTOUCHED) / (1 - UNTOUCHED)).clamp(min=0)
        given = beside(clean, strength, config, noise(4, clean.shape[1:]))
    level = config.sigma_mean, config.sigma_std
    return band_unet.loss(network, config.network, clean, wanted, noise, level, given)


def beside(
    spectrogram: Float[Tensor, "b 2 f t"],
    strength: Float[Tensor, " b"],
    config: Config,
    disturbance: Float[Tensor, "b 2 f t"],
) -> Float[Tensor, "b 3 f t"]:
    """What the network is given: the lower band of a spectrogram, blurred and disturbed, and how much so.

    Parameters
    ----------
    strength
        How much, from 0 to 1.
    disturbance
        Noise of unit variance.
    """
    told = strength[:, None, None, None].to(spectrogram)
    place = _place(config).to(spectrogram)
    low_pass = (-0.5 * (BLUR * told * place).square()).exp() ** complex_spectrogram.POWER
    disturbed = (spectrogram * low_pass + DISTURBANCE * told * disturbance) * (place < PASSED)
    return torch.cat([disturbed, told.expand_as(disturbed[:, :1])], dim=1)


def _place(config: Config) -> Float[Tensor, "f 1"]:
    """Where each bin lies in the given sound's band: 1 is its upper edge."""
    return complex_spectrogram.frequencies(config.hop, config.sample_rate)[:, None] / (config.given_rate / 2)


def denoiser(
    network: nn.Module,
    config: Config,
    wanted: Wanted | None = None,
    unwanted: Wanted | None = None,
    cfg_scale: float = 1.0,
    interval: tuple[float, float] | None = None,
    given: Float[Tensor, "b 3 f t"] | None = None,
    turn: Callable[[int], int] | None = None,
) -> Denoiser:
    """The denoiser of pictures ``(b, c, f, t)``, t a multiple of the network's: in windows that are one state.

    `given` is from `beside`: a band that is said to be neither blurred nor disturbed stays exactly what it is. The
    rest, as guidance's [4]_ scale and interval, is as for `band_unet.denoiser`. With `turn`, as for `guide.circle`, it
    is of loops, and `complex_spectrogram.TURN` divides t.
    """
    words, window = config.network.words, config.n_frames
    overlap = window // 4 // 2 * 2  # columns begin at even frames, so windows do
    loop = None if turn is None else (window, window // 2, turn, complex_spectrogram.TURN)
    if given is None:
        free = band_unet.denoiser(network, words, wanted, unwanted, cfg_scale, interval)
        return guide.windows(free, window, overlap) if loop is None else guide.circle(free, *loop)

    def bind(part: Tensor) -> Denoiser:
        return band_unet.denoiser(network, words, wanted, unwanted, cfg_scale, interval, part)

    if loop is None:
        led = guide.windows_given(bind, given, window, overlap)
    else:
        led = guide.circle_given(bind, given, *loop)
    exact = ((_place(config).to(given) < PASSED) & (given[:, 2:] == 0)).expand_as(given[:, :2])
    return guide.keep(led, guide.known_samples(given[:, :2], exact))


def frames_of(n_samples: int, config: Config) -> int:
    """Frames that a sound of `n_samples` is drawn as: a multiple of the network's and, of words alone, a window."""
    multiple = config.network.multiple
    frames = -(-(-(-n_samples // config.hop) + 1) // multiple) * multiple
    return frames if config.given_rate else max(config.n_frames, frames)


def sound_of(picture: Float[Tensor, "b 2 f t"], n_samples: int | None, config: Config) -> Float[Tensor, "b n"]:
    """The sound of a spectrogram that was drawn; None for the loop that it is."""
    bins = complex_spectrogram.unpicture(picture, config.sample_rate)
    return complex_spectrogram.circular_sound(bins) if n_samples is None else complex_spectrogram.sound(bins, n_samples)


def given_of(
    audio: Float[Tensor, "b n"], strength: float, config: Config, noise: Noise, loop: bool = False
) -> Float[Tensor, "b 3 f t"]:
    """What a stage is given of a sound that was brought to its `sample_rate`: blurred and disturbed as in training.

    `noise` gives the disturbance, (b, 2, f, t), at 0. A loop is one of whole frames, as for
    `complex_spectrogram.circular_bins`.
    """
    bins = complex_spectrogram.circular_bins if loop else complex_spectrogram.bins
    spectrogram = complex_spectrogram.picture(bins(audio, config.hop), config.sample_rate)
    frames = spectrogram.shape[3] if loop else frames_of(audio.shape[1], config)
    padded = torch.nn.functional.pad(spectrogram, (0, frames - spectrogram.shape[3]))
    return beside(padded, padded.new_full((len(audio),), strength), config, noise(0))
