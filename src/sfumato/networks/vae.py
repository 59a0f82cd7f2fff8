"""A causal multiband autoencoder of waveforms, whose memory is an argument.

Every layer maps ``(x, past)`` to ``(y, past)``, where the past holds the last inputs that its kernel still needs; empty
(zero) at the start. So a signal taken in pieces gives what it gives at once, states can be copied, kept and put
away, and one network serves any number of streams. The only primitive with a memory is the causal convolution:
a stride folds samples into channels before a convolution of two frames, which is what a strided one with a kernel of
twice its stride does; a transposed convolution unfolds after it; the filter banks of `signal.pqmf` are two more.

The layout is RAVE's [1]_: bands of a pseudo-quadrature mirror filter bank, strided levels of dilated residual units, a
latent sequence, and the way back, ending in bands times their loudness.

References
----------
.. [1] A. Caillon, P. Esling, "RAVE: a variational autoencoder for fast and high-quality neural audio synthesis",
       arXiv 2111.05011.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sfumato.config import Settings
from sfumato.signal import pqmf

if TYPE_CHECKING:
    from jaxtyping import Float

State = list[Tensor]
"""The past of each layer, (batch, channels, frames)."""

SLOPE = 0.2
QUIET, STEEP = -1.5, 4.0
"""First bias and slope of the loudness: it begins at -52 dB, so that training needn't begin by turning all bands down,
and is as quick to leave it."""


LONGEST_HOP = 1 << 16
"""Most samples of a latent frame."""
Ratio = Annotated[int, Field(ge=1, le=64)]
Dilations = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(max_length=16)]


class Config(Settings):
    """Shape of the network."""

    channels: int = Field(1, ge=1, le=2, description="channels of the audio")
    bands: int = Field(16, ge=2, le=128, description="bands of the filter bank")
    taps: int = Field(305, ge=5, le=2048, description="length of the filter bank's prototype, odd")
    attenuation_db: float = Field(80.0, gt=21, le=200, description="stop band of the prototype")
    capacity: int = Field(
        32, ge=4, le=1024, description="channels of the finest level; each level has twice those of the last"
    )
    capacity_max: int = Field(256, ge=4, le=4096, description="most channels of a level")
    ratios: tuple[Ratio, ...] = Field(
        (4, 4, 4, 2), min_length=1, max_length=8, description="steps between levels, finest first"
    )
    latent: int = Field(64, ge=1, le=1024, description="numbers per latent frame")
    outputs: int = Field(2, ge=1, le=2, description="what the encoder gives per latent number: 2 = mean and spread")
    encoder_dilations: tuple[Dilations, ...] = Field(
        ((1, 3, 9), (1, 3, 9), (1, 3, 9), (1, 3)), description="dilations of each level's residual units on the way in"
    )
    decoder_dilations: tuple[Dilations, ...] = Field(
        ((1, 3, 9), (1, 3, 9), (1, 3, 9), (1, 3)), description="the same on the way back, finest level first, too"
    )
    kernel: int = Field(3, ge=2, le=64, description="length of the residual units' convolutions")

    @model_validator(mode="after")
    def _goes_together(self) -> Config:
        lengths = {len(self.ratios), len(self.encoder_dilations), len(self.decoder_dilations)}
        if len(lengths) > 1:
            raise ValueError("ratios, encoder_dilations and decoder_dilations must name the same number of levels")
        if self.hop_length > LONGEST_HOP:
            raise ValueError(f"a hop of {self.hop_length} samples is too long: at most {LONGEST_HOP}")
        if self.taps % 2 == 0 or self.taps < 2 * self.bands:
            raise ValueError("taps must be odd and at least twice as many as bands")
        return self

    @property
    def hop_length(self) -> int:
        """Samples of one latent frame."""
        hop: int = self.bands * math.prod(self.ratios)
        return hop

    @property
    def delay(self) -> int:
        """Samples by which decoded audio comes after the input, beyond the frame that has to be complete."""
        return self.taps - self.bands

    def width(self, level: int) -> int:
        """Channels of a level, 0 being the finest."""
        return min(self.capacity << level, self.capacity_max)


def fold(x: Float[Tensor, "b c t"], factor: int) -> Float[Tensor, "b k s"]:
    """`factor` neighbours in time become channels: channel c of neighbour j is number j * channels + c."""
    b, c, t = x.shape
    return x.reshape(b, c, t // factor, factor).permute(0, 3, 1, 2).reshape(b, factor * c, t // factor)


def unfold(x: Float[Tensor, "b k s"], factor: int) -> Float[Tensor, "b c t"]:
    """The inverse of `fold`."""
    b, k, s = x.shape
    return x.reshape(b, factor, k // factor, s).permute(0, 2, 3, 1).reshape(b, k // factor, s * factor)


class CausalConv(nn.Module):
    """A convolution that sees the present and the past; its memory is the last `history` frames."""

    def __init__(self, before: int, after: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(before, after, kernel, dilation=dilation)
        nn.init.kaiming_normal_(self.conv.weight, a=SLOPE)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]
        self.before, self.history = before, (kernel - 1) * dilation

    def init(self, batch: int) -> Tensor:
        """An empty past."""
        return self.conv.weight.new_zeros(batch, self.before, self.history)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """The output of `x`, and the past that the next piece needs."""
        joined = torch.cat([past.to(x.dtype), x], dim=-1)
        return self.conv(joined), joined[..., joined.shape[-1] - self.history :]


class Unit(nn.Module):
    """Residual: two activations, a dilated and a pointwise convolution."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.dilated = CausalConv(width, width, kernel, dilation)
        self.point = nn.Conv1d(width, width, 1)
        nn.init.kaiming_normal_(self.point.weight, a=SLOPE)
        nn.init.zeros_(self.point.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.point.weight *= 0.2  # deep stacks of residuals must not grow at the start

    def init(self, batch: int) -> Tensor:
        """An empty past."""
        return self.dilated.init(batch)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """The output of `x`, and the past that the next piece needs."""
        h, past = self.dilated(functional.leaky_relu(x, SLOPE), past)
        return x + self.point(functional.leaky_relu(h, SLOPE)), past


class Down(nn.Module):
    """Activation and a step to a coarser level: a convolution of stride `factor` and kernel twice that."""

    def __init__(self, before: int, after: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.folded = CausalConv(before * factor, after, 2)

    def init(self, batch: int) -> Tensor:
        """An empty past."""
        return self.folded.init(batch)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """The output of `x`, and the past that the next piece needs."""
        y: tuple[Tensor, Tensor] = self.folded(fold(functional.leaky_relu(x, SLOPE), self.factor), past)
        return y


class Up(nn.Module):
    """Activation and a step to a finer level: a transposed convolution of stride `factor` and kernel twice that."""

    def __init__(self, before: int, after: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.folded = CausalConv(before, after * factor, 2)

    def init(self, batch: int) -> Tensor:
        """An empty past."""
        return self.folded.init(batch)

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """The output of `x`, and the past that the next piece needs."""
        y, past = self.folded(functional.leaky_relu(x, SLOPE), past)
        return unfold(y, self.factor), past


class Chain(nn.Module):
    """Layers one after the other; its state is a list of their pasts."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def init(self, batch: int) -> State:
        """Empty pasts."""
        return [layer.init(batch) for layer in self.layers]  # type: ignore[operator]

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The output of `x`, and the state after it."""
        pasts: State = []
        for layer, past in zip(self.layers, state or self.init(len(x)), strict=True):
            x, past = layer(x, past)
            pasts.append(past)
        return x, pasts


class Encoder(Chain):
    """Bands to latent frames: ``outputs * latent`` channels, means first."""

    def __init__(self, config: Config) -> None:
        layers: list[nn.Module] = [CausalConv(config.channels * config.bands, config.width(0), 7)]
        for level, (ratio, dilations) in enumerate(zip(config.ratios, config.encoder_dilations, strict=True)):
            layers += [Unit(config.width(level), config.kernel, dilation) for dilation in dilations]
            layers += [Down(config.width(level), config.width(level + 1), ratio)]
        super().__init__([*layers, _Last(config.width(len(config.ratios)), config.outputs * config.latent, 3)])


class Decoder(Chain):
    """Latent frames to bands: a waveform within ±1 times a loudness, per band [1]_."""

    def __init__(self, config: Config) -> None:
        layers: list[nn.Module] = [CausalConv(config.latent, config.width(len(config.ratios)), 3)]
        for level in reversed(range(len(config.ratios))):
            layers += [Up(config.width(level + 1), config.width(level), config.ratios[level])]
            layers += [Unit(config.width(level), config.kernel, d) for d in config.decoder_dilations[level]]
        last = _Last(config.width(0), 2 * config.channels * config.bands, 7)
        assert last.conv.bias is not None
        with torch.no_grad():
            last.conv.bias[config.channels * config.bands :] = QUIET
        super().__init__([*layers, last])

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The bands, and the state after them."""
        both, pasts = super().forward(x, state)
        wave, loudness = both.chunk(2, dim=1)
        return torch.tanh(wave) * torch.sigmoid(STEEP * loudness), pasts


class _Last(CausalConv):
    """Activation and a convolution."""

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """The output of `x`, and the past that the next piece needs."""
        return super().forward(functional.leaky_relu(x, SLOPE), past)


class FilterBank(nn.Module):
    """The two halves of `signal.pqmf` as layers; they have no weights of their own."""

    analysis_filters: Tensor
    synthesis_filters: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        filters = pqmf.bank(config.bands, config.taps, config.attenuation_db)
        self.bands, self.channels = config.bands, config.channels
        self.history = filters.analysis.shape[-1] - 1
        for name, taps in (("analysis_filters", filters.analysis), ("synthesis_filters", filters.synthesis)):
            self.register_buffer(name, torch.from_numpy(taps).float(), persistent=False)

    def init(self, batch: int) -> Tensor:
        """An empty past, of either half."""
        return self.analysis_filters.new_zeros(batch * self.channels, self.bands, self.history)

    def analyse(self, audio: Float[Tensor, "b c t"], past: Tensor) -> tuple[Tensor, Tensor]:
        """Bands (batch, channels * bands, t / bands) of audio, and the past that the next piece needs."""
        b, c, t = audio.shape
        joined = torch.cat([past, fold(audio.reshape(b * c, 1, t), self.bands)], dim=-1)
        bands = functional.conv1d(joined, self.analysis_filters)
        return bands.reshape(b, c * self.bands, -1), joined[..., joined.shape[-1] - self.history :]

    def synthesise(self, bands: Float[Tensor, "b k s"], past: Tensor) -> tuple[Tensor, Tensor]:
        """Audio (batch, channels, samples) of bands, `Config.delay` samples late, and the past."""
        b = len(bands)
        joined = torch.cat([past, bands.reshape(b * self.channels, self.bands, -1)], dim=-1)
        folded = functional.conv1d(joined, self.synthesis_filters)
        audio = unfold(folded, self.bands).reshape(b, self.channels, -1)
        return audio, joined[..., joined.shape[-1] - self.history :]
