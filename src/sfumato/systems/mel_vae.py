"""The spectrogram autoencoder of Make-An-Audio: log-mel pictures, 4 times smaller each way, and back.

A latent generator draws what this network leaves of a picture (`systems.make_an_audio`). Pictures are
`signal.log_mel`: 80 bands at 16 kHz, levels from -70 dB on. Latents are shipped normalised: `finish` measures each
channel's mean and standard deviation, and `encode` and `decode` of the network apply them.

Where it departs from the paper [1]_: no discriminator and no perceptual loss stand behind the reconstruction, which is
the mean absolute error of levels; so what is random in a sound's texture comes out as its mean, and it is the vocoder,
trained with blurred pictures, that roughens it again (`systems.mel_vocoder`). The network is small and has no
attention: it sees neighbourhoods only, so that pictures of any length, and pieces of them, have the same latents.

References
----------
.. [1] R. Huang et al., "Make-An-Audio: text-to-audio generation with prompt-enhanced diffusion models", ICML 2023,
       arXiv 2301.12661, section 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import nn

from sfumato.config import Settings
from sfumato.networks import mel_vae
from sfumato.signal.log_mel import HOP, N_MELS, log_mel

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.diffusion.noise import BatchNoise

NAME = "mel_vae"
PAPER = {
    "title": "Make-An-Audio: Text-to-audio generation with prompt-enhanced diffusion models",
    "arxiv": "2301.12661",
    "code": "github.com/Text-to-Audio/Make-An-Audio (none of it is here)",
    "licence": "none stated",
}
TURNS = ("reconstruct",)


class Config(Settings):
    """The network, its pictures, and the weight of the prior."""

    network: mel_vae.Config = Field(mel_vae.Config(rows=N_MELS), description="encoder and decoder")
    sample_rate: int = Field(16000, ge=1000, le=384_000, description="sample rate, Hz")
    n_frames: int = Field(320, ge=mel_vae.STEP, multiple_of=mel_vae.STEP, description="frames of a training picture")
    prior_weight: float = Field(5e-3, ge=0, description="weight of the latents' divergence from a Gaussian, per number")

    @property
    def n_samples(self) -> int:
        """Samples of a training example: the picture's frames and, so that none reaches beyond it, two before it."""
        return (self.n_frames + 3) * HOP


def build(config: Config) -> nn.Module:
    """The network with its initial weights."""
    return mel_vae.MelVae(config.network)


def picture(audio: Tensor, config: Config) -> Tensor:
    """The training picture ``(b, 80, n_frames)`` of crops ``(b, n_samples)``."""
    return log_mel(audio, config.sample_rate)[..., 2 : 2 + config.n_frames]


def loss(
    network: nn.Module, batch: dict[str, Tensor], config: Config, noise: BatchNoise, turn: str
) -> dict[str, Tensor]:
    """Mean absolute error of levels, in units of 20 dB, and the divergence; `batch` holds "audio" (b, n_samples)."""
    assert isinstance(network, mel_vae.MelVae)
    mel = picture(batch["audio"], config)
    mean, log_variance = network.posterior(mel)
    made = network.reconstruct(mean + (log_variance / 2).exp() * noise(0, mean.shape[1:]))
    distance = (made - mel).abs().mean()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return {
        "total": distance + config.prior_weight * divergence,
        "distance": distance.detach(),
        "divergence": divergence.detach(),
    }


@torch.no_grad()
def finish(network: nn.Module, config: Config, batches: list[dict[str, Tensor]]) -> tuple[nn.Module, Config]:
    """The trained network, knowing what normalises its latents: over `batches`, each channel's mean and deviation."""
    assert isinstance(network, mel_vae.MelVae)
    means = torch.cat([network.posterior(picture(batch["audio"], config))[0].double() for batch in batches])
    network.latent_mean.copy_(means.mean(dim=(0, 2, 3), keepdim=True))
    network.latent_std.copy_(means.std(dim=(0, 2, 3), keepdim=True).clamp(min=1e-4))
    return network, config
