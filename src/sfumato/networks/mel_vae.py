"""A variational autoencoder of spectrogram pictures: 4 times fewer rows and columns, a few channels, and back.

Convolutions and normalisations see a neighbourhood and nothing of the whole, so pictures may be of any length, and a
piece of a picture becomes a piece of its latents. What differs from band to band is told by an offset per row.

References
----------
.. [1] D. Kingma, M. Welling, "Auto-encoding variational Bayes", arXiv 1312.6114.
.. [2] R. Rombach et al., "High-resolution image synthesis with latent diffusion models", CVPR 2022: latents of an
       autoencoder under a light penalty, scaled to unit variance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sfumato.config import Settings

if TYPE_CHECKING:
    from jaxtyping import Float

STEP = 4
"""Rows and columns of a picture that one place of the latents stands for."""
CERTAIN = -6.0
"""First logarithm of the latents' variance: they begin nearly without noise, so that they are used."""
LOWEST, HIGHEST = -20.0, 5.0
"""Where that logarithm is held."""


class Config(Settings):
    """Shape of the network."""

    rows: int = Field(80, ge=STEP, multiple_of=STEP, description="rows of the picture: bands")
    latent: int = Field(4, ge=1, description="channels of the latents")
    widths: tuple[int, int] = Field((48, 128), description="channels at half and at a quarter of the sides")
    blocks: tuple[int, int] = Field((1, 2), description="residual blocks there, on the way in and on the way back each")
    last: int = Field(16, ge=1, description="channels at the full sides, on the way back")

    @property
    def reach(self) -> int:
        """Places of latents, either way, that a place of the picture comes from beside its own."""
        return 3 + self.blocks[0] + 2 * self.blocks[1]


class MelVae(nn.Module):
    """Encoder and decoder, and what brings the latents to a mean of 0 and a variance of 1."""

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        half, quarter = config.widths
        self.encoder = nn.Sequential(
            nn.Conv2d(1, half, 4, stride=2, padding=1),
            _Rows(half, config.rows // 2),
            *(_Block(half) for _ in range(config.blocks[0])),
            nn.Conv2d(half, quarter, 4, stride=2, padding=1),
            _Rows(quarter, config.rows // 4),
            *(_Block(quarter) for _ in range(config.blocks[1])),
            _Norm(quarter),
            nn.SiLU(),
            nn.Conv2d(quarter, 2 * config.latent, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(config.latent, quarter, 3, padding=1),
            _Rows(quarter, config.rows // 4),
            *(_Block(quarter) for _ in range(config.blocks[1])),
            _Finer(quarter, half),
            _Rows(half, config.rows // 2),
            *(_Block(half) for _ in range(config.blocks[0])),
            _Finer(half, config.last),
            nn.SiLU(),
            nn.Conv2d(config.last, 1, 3, padding=1),
        )
        spread = self.encoder[-1]
        assert isinstance(spread, nn.Conv2d) and spread.bias is not None
        with torch.no_grad():
            spread.weight[config.latent :] *= 0.1
            spread.bias[config.latent :] = CERTAIN
        self.register_buffer("latent_mean", torch.zeros(1, config.latent, 1, 1))
        self.register_buffer("latent_std", torch.ones(1, config.latent, 1, 1))

    def posterior(
        self, picture: Float[Tensor, "b f t"]
    ) -> tuple[Float[Tensor, "b c g s"], Float[Tensor, "b c g s"]]:
        """Mean and logarithm of the variance of each latent number, not yet normalised.

        Frames up to a multiple of 4 repeat the last one.
        """
        whole = functional.pad(picture, (0, -picture.shape[2] % STEP), mode="replicate")[:, None]
        mean, variance = self.encoder(whole.contiguous(memory_format=torch.channels_last)).float().chunk(2, dim=1)
        return mean, variance.clamp(LOWEST, HIGHEST)

    def reconstruct(self, latent: Float[Tensor, "b c g s"]) -> Float[Tensor, "b f t"]:
        """The picture of latents that are not normalised."""
        picture: Tensor = self.decoder(latent.contiguous(memory_format=torch.channels_last))
        return picture[:, 0].float()

    def encode(self, picture: Float[Tensor, "b f t"]) -> Float[Tensor, "b c g s"]:
        """Normalised latents of a picture: ``ceil(t / 4)`` columns of ``rows / 4`` rows."""
        return (self.posterior(picture)[0] - self.latent_mean) / self.latent_std

    def decode(self, latent: Float[Tensor, "b c g s"]) -> Float[Tensor, "b f t"]:
        """The picture of normalised latents."""
        return self.reconstruct(latent * self.latent_std + self.latent_mean)


class _Rows(nn.Module):
    """What differs from row to row."""

    def __init__(self, width: int, rows: int) -> None:
        super().__init__()
        self.offset = nn.Parameter(0.1 * torch.randn(1, width, rows, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.offset


class _Norm(nn.LayerNorm):
    """Normalises each place over its channels."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class _Block(nn.Module):
    """Two convolutions beside a straight way."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _Norm(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.conv2.weight *= 0.1  # a stack of residuals must not grow at the start

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(functional.silu(self.conv1(functional.silu(self.norm(x)))))
        return out


class _Finer(nn.Module):
    """A step to twice the sides: four places' channels from one."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, 4 * after, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.pixel_shuffle(self.conv(x), 2)
