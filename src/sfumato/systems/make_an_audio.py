"""Make-An-Audio: sounds from words, drawn as the latents of a spectrogram autoencoder.

Words lead a diffusion in the small space of an autoencoder of log-mel pictures [1]_ [2]_; the picture it decodes to
gets its sound from a vocoder. All three are models of their own: the generator's configuration names the autoencoder
(`systems.mel_vae`), whose digest a finished training writes down, and the vocoder (`systems.mel_vocoder`), which may
be exchanged. Prompts may say what comes when, `<rain & start>@<bell & end>`; captions of that kind come from sounds
that are mixed and sequenced (`data.mixing`), the paper's way of making much of few captions.

What a user has already, a sound or a part of one, is latents, too: generation that starts from a noised sound, and
painting what is missing of one, need the denoiser alone (`tasks.latent_music`).

Where it departs from the paper:

- The network predicts v [3]_ rather than the noise: at the highest levels noise says nothing of the sound. It is the
  U-Net of bands that riffusion has, over latents: each row of latents has matrices of its own.
- Words come from a frozen sentence encoder (`networks.text`), not from CLAP; tempo and key can be asked for by number.
- What conditions it is a `Wanted`, whose sentence may come from elsewhere than from words; a picture leads by the words
  for what it shows (`tasks.sight`), not by a CLIP embedding of its own.
- It is small: the published one has 332 million weights.

References
----------
.. [1] R. Huang et al., "Make-An-Audio: text-to-audio generation with prompt-enhanced diffusion models", ICML 2023,
       arXiv 2301.12661.
.. [2] R. Rombach et al., "High-resolution image synthesis with latent diffusion models", CVPR 2022.
.. [3] T. Salimans, J. Ho, "Progressive distillation for fast sampling of diffusion models", arXiv 2202.00512.
.. [4] J. Ho, T. Salimans, "Classifier-free diffusion guidance", arXiv 2207.12598.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from sfumato import model
from sfumato.config import Settings
from sfumato.diffusion import guide
from sfumato.errors import InputError, ModelError
from sfumato.networks import band_unet
from sfumato.networks.mel_vae import STEP, MelVae
from sfumato.signal.log_mel import HOP, log_mel
from sfumato.wanted import KEYS, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from sfumato.diffusion.noise import BatchNoise
    from sfumato.diffusion.precondition import Denoiser
    from sfumato.model import Model

NAME = "make_an_audio"
PAPER = {
    "title": "Make-An-Audio: Text-to-audio generation with prompt-enhanced diffusion models",
    "arxiv": "2301.12661",
    "code": "github.com/Text-to-Audio/Make-An-Audio (none of it is here)",
    "licence": "none stated",
}
TURNS = ("denoise",)


class Config(Settings):
    """Whose latents, who gives them their sound, the network that draws them, and its noise levels."""

    vae: str = Field("mel-vae", description="name or folder of the spectrogram autoencoder")
    vae_digest: str = Field(
        "", pattern="^([0-9a-f]{64})?$", description="the autoencoder's digest; a finished training fills it in"
    )
    vocoder: str = Field("mel-vocoder", description="name or folder of the vocoder")
    network: band_unet.Config = Field(
        band_unet.Config(bands=((20, 1),), widths=(128, 192, 256), channels=4, frames=1),
        description="the U-Net over latents",
    )
    sample_rate: int = Field(16000, ge=1000, le=384_000, description="sample rate, Hz")
    n_frames: int = Field(80, ge=1, description="latent frames of the training window, of 1024 samples each")
    sigma_mean: float = Field(0.2, description="mean of ln(sigma) in training; latents have a standard deviation of 1")
    sigma_std: float = Field(1.5, gt=0, description="standard deviation of ln(sigma) in training")
    sigma_max: float = Field(60.0, gt=0, description="first noise level of the sampler")
    sigma_min: float = Field(0.03, gt=0, description="last noise level above 0 of the sampler")
    unprompted: float = Field(0.12, ge=0, le=1, description="share of items trained without what is wanted")

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.n_frames % self.network.multiple:
            raise ValueError(f"n_frames is {self.n_frames}, no multiple of the network's {self.network.multiple}")
        if self.network.keys != len(KEYS):
            raise ValueError(f"the network knows {self.network.keys} keys, there are {len(KEYS)} with none")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and frames of a window's latents."""
        return self.network.channels, self.network.n_bins, self.n_frames

    @property
    def n_samples(self) -> int:
        """Samples of a training example: the picture's frames and, so that none reaches beyond it, two before it."""
        return (self.n_frames * STEP + 3) * HOP


def build(config: Config) -> nn.Module:
    """The network with its initial weights."""
    return band_unet.BandUNet(config.network)


def training_picture(audio: Tensor, config: Config) -> Tensor:
    """The log-mel picture ``(b, 80, 4 n_frames)`` whose latents are a training window, of crops ``(b, n_samples)``."""
    return log_mel(audio, config.sample_rate)[..., 2 : 2 + config.n_frames * STEP]


def loss(
    network: nn.Module, batch: dict[str, Tensor], config: Config, noise: BatchNoise, turn: str
) -> dict[str, Tensor]:
    """Mean squared error of v [3]_; `batch` holds "latents" ``(b, c, rows, n_frames)`` and the fields of `Wanted`."""
    clean = batch["latents"]
    told = Wanted(batch["sentence"], batch["tokens"], batch["valid"], batch["bpm"], batch["key"])
    told = told.only(noise.uniform(2) >= config.unprompted)
    level = config.sigma_mean, config.sigma_std
    return band_unet.loss(network, config.network, clean, told, noise, level)


def denoiser(
    network: nn.Module,
    config: Config,
    wanted: Wanted | None = None,
    unwanted: Wanted | None = None,
    cfg_scale: float = 1.0,
    interval: tuple[float, float] | None = None,
    turn: Callable[[int], int] | None = None,
) -> Denoiser:
    """The denoiser of latents ``(b, c, rows, t)``; more frames than a window's are seen in windows, as one state.

    What is wanted and unwanted, and the guidance's scale [4]_ and interval, are as for `band_unet.denoiser`; `turn`,
    for a loop, is as for `guide.circle`.
    """
    within = band_unet.denoiser(network, config.network.words, wanted, unwanted, cfg_scale, interval)
    if turn is not None:
        return guide.circle(within, config.n_frames, config.n_frames // 2, turn)
    return guide.windows(within, config.n_frames, config.n_frames // 4)


def vae_of(config: Config) -> MelVae:
    """The autoencoder whose latents are drawn, unless it has become another one.

    Raises
    ------
    ModelError
        It is missing, another one than the generator was trained with, or doesn't fit; says what to do.
    """
    found = _part(config, "vae", "mel_vae")
    if config.vae_digest and digest_of(found) != config.vae_digest:
        raise ModelError(
            f"The autoencoder {config.vae} is another one than this generator was trained with. Write where that one "
            "is as config.vae into the generator's model.yaml, or train the generator again."
        )
    network = found.network
    assert isinstance(network, MelVae)
    channels, rows, _ = config.shape
    if (network.config.latent, network.config.rows) != (channels, rows * STEP):
        raise ModelError(
            f"The autoencoder {config.vae} has latents of {network.config.latent} channels and "
            f"{network.config.rows // STEP} rows, the generator is made for {channels} and {rows}."
        )
    return network


def digest_of(vae: Model) -> str:
    """SHA-256 of what latents depend on: an autoencoder's weights and configuration, whatever its card says."""
    return model.digest(replace(vae, card=model.Card()))


def vocoder_of(config: Config) -> Model:
    """The vocoder.

    Raises
    ------
    ModelError
        It is missing, or of another rate; says what to do.
    """
    return _part(config, "vocoder", "mel_vocoder")


def _part(config: Config, key: str, system: str) -> Model:
    """The model that `key` of the configuration names, which is of `system` and has the generator's rate."""
    name = getattr(config, key)
    try:
        found = model.load(name)
    except InputError:
        raise ModelError(
            f"{name} ({system}), which this generator needs, is not here. Put its folder there, or write where it is "
            f"as config.{key} into the generator's model.yaml."
        ) from None
    rate = getattr(found.config, "sample_rate", None)
    if found.system != system or rate != config.sample_rate:
        raise ModelError(
            f"{name} is a {found.system} at {rate} Hz. As config.{key}, give a {system} at {config.sample_rate} Hz."
        )
    return found


def finish(network: nn.Module, config: Config, batches: list[dict[str, Tensor]]) -> tuple[nn.Module, Config]:
    """The trained generator, bound to its autoencoder by digest, and by name where that is a shipped one."""
    vae = _part(config, "vae", "mel_vae")
    digest = digest_of(vae)
    named = vae.name if vae.name in model.shipped() and digest_of(model.load(vae.name)) == digest else config.vae
    return network, config.model_copy(update={"vae": named, "vae_digest": digest})
