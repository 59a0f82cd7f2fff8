"""The U-Net of CQT-Diff+: a waveform in and out, an octave of an invertible constant-Q transform per level.

The finest level sees the highest octave alone, a picture of few bands and many frames. Halving its frames makes it
as long as the next octave, which is laid below it along frequency, and so on down: the deepest level sees all octaves
at the frame rate of the lowest. On the way up each level gives its octave back. Bands are never resampled, so a level
treats the same pitch classes in every octave alike, with convolutions that are dilated over frequency. Nothing on the
signal's path has a bias.

Shapes: ``b`` items, ``c`` channels, ``f`` bands, ``t`` frames, ``e`` values of the noise level's embedding.

References
----------
.. [1] E. Moliner, V. Välimäki, "Diffusion-based audio inpainting", JAES 72(3), 2024, arXiv 2305.15266, §3.
.. [2] E. Moliner, J. Lehtinen, V. Välimäki, "Solving audio inverse problems with a diffusion model", ICASSP 2023,
   arXiv 2210.15228.
.. [3] M. Tancik et al., "Fourier features let networks learn high frequency functions", NeurIPS 2020.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sfumato.config import Settings
from sfumato.errors import InputError
from sfumato.signal.cqt import ConstantQ

if TYPE_CHECKING:
    from jaxtyping import Float

NORM_GROUPS = 8
RESAMPLING = (-0.01171875, -0.03515625, 0.11328125, 0.43359375, 0.43359375, 0.11328125, -0.03515625, -0.01171875)
"""Cubic low-pass filter between frame rates; its sum is 0.9961. Doubling therefore halves the level, which the
network has learnt to live with."""
_HALF = math.sqrt(0.5)


class Config(Settings):
    """Shape of the network; the defaults are the published one for 22.05 kHz."""

    sample_rate: int = Field(22050, gt=0, description="sample rate, Hz")
    n_samples: int = Field(184184, ge=64, description="length of a signal, samples")
    bins_per_octave: int = Field(64, ge=2, description="bands of each octave")
    beta: float = Field(1.0, ge=0, description="taper of the transform's windows, 0 for rectangles")
    widths: tuple[int, ...] = Field(
        (64, 96, 96, 128, 128, 256, 256), min_length=2, description="channels of each level, highest octave first"
    )
    dilations: tuple[int, ...] = Field(
        (2, 3, 4, 5, 6, 7, 7), description="dilated convolutions of each level's block (dilations 1, 2, 4, …)"
    )
    attention: tuple[bool, ...] = Field(
        (False, False, False, False, True, True, True, True),
        description="self-attention over time in each level, and last in the bottleneck",
    )
    heads: int = Field(8, ge=1, description="heads of the self-attention")
    embedding: int = Field(256, ge=1, description="width of the noise-level embedding")

    @property
    def n_octaves(self) -> int:
        """Octaves of the transform, which is the depth of the network."""
        return len(self.widths)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.dilations) != self.n_octaves or len(self.attention) != self.n_octaves + 1:
            raise ValueError("give as many dilations as widths, and one attention more")
        if any(width % NORM_GROUPS or width < 1 for width in self.widths) or min(self.dilations) < 1:
            raise ValueError(f"widths must be multiples of {NORM_GROUPS}, dilations 1 or more")
        return self


class CQTUNet(nn.Module):
    """Maps ``(x, c_noise, condition)`` to a waveform shaped like `x`; takes no condition."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        bins, widths, deepest = config.bins_per_octave, config.widths, config.n_octaves - 1
        self.transform = ConstantQ(config.n_octaves, bins, config.sample_rate, config.n_samples, config.beta)
        frames = self.transform.n_frames
        if any(2 * low != high for low, high in pairwise(frames)) or frames[1] < 8:
            raise InputError(
                f"Octaves of {frames} frames. Each must have twice the frames of the one below it, the second 8 or "
                "more: give other n_samples, bins_per_octave or widths."
            )
        self.embed = _Embedding(config.embedding)
        self.decimate, self.interpolate = _Decimate(), _Interpolate()
        self.down = nn.ModuleList(
            _Down(config, level, widths[max(level - 1, 0)], widths[level]) for level in range(config.n_octaves)
        )
        self.middle = _block(config, deepest, widths[-1], widths[-1], config.attention[-1])
        self.middle_out = _Leave(widths[-1], config.embedding)
        self.up = nn.ModuleList(
            _Up(config, level, 2 * widths[level], widths[max(level - 1, 0)]) for level in reversed(range(deepest + 1))
        )

    def forward(
        self, x: Float[Tensor, "b 1 n"], c_noise: Float[Tensor, " b"], condition: None = None
    ) -> Float[Tensor, "b 1 n"]:
        """The network's raw output, before preconditioning."""
        embedding = self.embed(c_noise)
        bins = self.config.bins_per_octave
        octaves = [_as_channels(octave) for octave in self.transform(x[:, 0])]  # lowest first, (b, 2, bins, t)
        downs, ups = cast("Iterable[_Down]", self.down), cast("Iterable[_Up]", self.up)

        h = pyramid = x.new_zeros(len(x), 0, 0, 0)
        skips = []
        for level, (down, octave) in enumerate(zip(downs, reversed(octaves), strict=True)):
            deepest = level == len(octaves) - 1
            entered = down.enter(octave, embedding)
            h = torch.cat([entered, h], dim=2) if level else entered  # (b, c, (level + 1) bins, t)
            h = down.block(h, embedding)
            skips.append(h)
            # The pyramid is the transform itself, brought to the frame rate of the next level: (b, 2, f, t / 2).
            if not deepest:
                h, octave = self.decimate(h), self.decimate(octave)
                pyramid = self.decimate(pyramid) if level else pyramid
            pyramid = torch.cat([octave, pyramid], dim=2) if level else octave
            h = _HALF * (h + down.pyramid(pyramid))

        h = self.middle(h, embedding)
        out = self.middle_out(h, embedding)  # (b, 2, f, t), as every `out`
        given = []
        for level, up in zip(reversed(range(len(octaves))), ups, strict=True):
            h = up.block(torch.cat([h, skips.pop()], dim=1), embedding)
            out = _HALF * (out + up.leave(h, embedding))
            given.append(_as_complex(out[:, :, :bins]))
            if level:
                h, out = self.interpolate(h[:, :, bins:]), self.interpolate(out[:, :, bins:])
        return self.transform.inverse(given)[:, None]


def _as_channels(octave: Tensor) -> Tensor:
    """Complex ``(b, f, t)`` as real ``(b, 2, f, t)``."""
    return torch.view_as_real(octave).movedim(-1, 1).contiguous()


def _as_complex(channels: Tensor) -> Tensor:
    """The reverse of `_as_channels`."""
    return torch.view_as_complex(channels.movedim(1, -1).contiguous())


class _Embedding(nn.Module):
    """Random Fourier features [3]_ of the noise label, then three layers: ``(b,)`` to ``(b, e)``."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 16 * torch.randn(1, 32))
        sizes = (64, 128, 256, width)
        self.layers = nn.ModuleList(_linear(a, b) for a, b in pairwise(sizes))

    def forward(self, c_noise: Tensor) -> Tensor:
        angle = 2 * math.pi * c_noise[:, None] * self.frequencies
        h = torch.cat([angle.sin(), angle.cos()], dim=1)
        for layer in self.layers:
            h = functional.relu(layer(h))
        return h


class _Resample(nn.Module):
    """A filter over frames, the same for every channel and band."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kernel", torch.tensor(RESAMPLING))


class _Decimate(_Resample):
    """``(b, c, f, t)`` to ``(b, c, f, t / 2)``."""

    def forward(self, x: Tensor) -> Tensor:
        rows = functional.pad(x.reshape(-1, 1, x.shape[-1]), (3, 3), mode="reflect")
        return functional.conv1d(rows, self.kernel[None, None], stride=2).reshape(*x.shape[:-1], -1)


class _Interpolate(_Resample):
    """``(b, c, f, t)`` to ``(b, c, f, 2 t)``."""

    def forward(self, x: Tensor) -> Tensor:
        rows = functional.pad(x.reshape(-1, 1, x.shape[-1]), (2, 2), mode="reflect")
        rows = functional.conv_transpose1d(rows, self.kernel[None, None], stride=2, padding=7)
        return rows.reshape(*x.shape[:-1], -1)


class _Down(nn.Module):
    """A level on the way down."""

    def __init__(self, config: Config, level: int, before: int, after: int) -> None:
        super().__init__()
        self.enter = _Enter(before, config.embedding)
        self.block = _block(config, level, before, after, config.attention[level])
        self.pyramid = _conv(2, after, (5, 3))


class _Up(nn.Module):
    """A level on the way up."""

    def __init__(self, config: Config, level: int, before: int, after: int) -> None:
        super().__init__()
        self.block = _block(config, level, before, after, config.attention[level])
        self.leave = _Leave(after, config.embedding)


def _block(config: Config, level: int, before: int, after: int, attention: bool) -> _Block:
    bands = (level + 1) * config.bins_per_octave
    heads = config.heads if attention else 0
    return _Block(before, after, config.embedding, config.dilations[level], heads, bands)


class _Block(nn.Module):
    """Attention over time if there are `heads`, then `count` residual layers, each dilated twice as far over bands."""

    def __init__(self, before: int, after: int, embedding: int, count: int, heads: int, bands: int) -> None:
        super().__init__()
        self.enter = _mix(before, after)
        self.skip = _mix(before, after)
        self.attention = _Attention(after, embedding, heads, bands) if heads else None
        self.layers = nn.ModuleList(_Layer(after, embedding, (5, 3), 2**i) for i in range(count))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.enter(x)
        if self.attention is not None:
            h = self.attention(h, embedding)
        for layer in self.layers:
            h = layer(h, embedding)
        out: Tensor = _HALF * (h + self.skip(x))
        return out


class _Enter(nn.Module):
    """From an octave's two channels, real and imaginary, to `width`; each bin by itself."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.enter, self.skip = _mix(2, width), _mix(2, width)
        self.layers = nn.ModuleList([_Layer(width, embedding, (1, 1), 1)])

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        out: Tensor = _HALF * (self.layers[0](self.enter(x), embedding) + self.skip(x))
        return out


class _Leave(nn.Module):
    """From `width` channels to two; each bin by itself."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_Layer(width, embedding, (1, 1), 1)])
        self.leave, self.skip = _mix(width, 2), _mix(width, 2)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        out: Tensor = _HALF * (self.leave(self.layers[0](x, embedding)) + self.skip(x))
        return out


class _Modulation(nn.Module):
    """Normalisation by the spread within groups of channels, scaled by the noise level; and a gate for what follows."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, width, 1, 1))
        self.affine = _linear(embedding, width)
        self.gate = _linear(embedding, width)
        with torch.no_grad():
            self.gate.weight.mul_(1e-7)

    def forward(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        groups = x.reshape(len(x), NORM_GROUPS, -1)
        normal = (groups / (groups.std(dim=-1, keepdim=True) + 1e-7)).reshape(x.shape)
        scale, gate = self.affine(embedding) + 1, self.gate(embedding)
        return normal * self.gamma * scale[:, :, None, None], gate[:, :, None, None]


class _Layer(nn.Module):
    """A gated residual convolution, dilated over bands."""

    def __init__(self, width: int, embedding: int, kernel: tuple[int, int], dilation: int) -> None:
        super().__init__()
        self.modulation = _Modulation(width, embedding)
        self.conv = _conv(width, width, kernel, dilation)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h, gate = self.modulation(x, embedding)
        out: Tensor = _HALF * (x + self.conv(functional.gelu(h)) * gate)
        return out


class _Attention(nn.Module):
    """Gated residual self-attention over time: a token is a frame of one head, its values the head's bands as they are.

    Queries and keys come from all heads and bands of the frame.
    """

    def __init__(self, width: int, embedding: int, heads: int, bands: int) -> None:
        super().__init__()
        self.modulation = _Modulation(width, embedding)
        self.enter, self.leave = _conv(width, heads, (1, 1)), _conv(heads, width, (1, 1))
        self.queries_keys = nn.Conv1d(heads * bands, 2 * heads * bands, 1, bias=False)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h, gate = self.modulation(x, embedding)
        h = self.enter(h)  # (b, heads, bands, t)
        both = self.queries_keys(h.flatten(1, 2)).unflatten(1, (h.shape[1], -1)).transpose(2, 3)
        queries, keys = both.chunk(2, dim=-1)  # (b, heads, t, bands)
        attended = functional.scaled_dot_product_attention(queries, keys, h.transpose(2, 3))
        out: Tensor = _HALF * (x + self.leave(attended.transpose(2, 3)) * gate)
        return out


def _conv(before: int, after: int, kernel: tuple[int, int], dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, dilation=(dilation, 1), padding="same", bias=False)


def _mix(before: int, after: int) -> nn.Module:
    """A matrix over channels, or nothing where their number stays."""
    return _conv(before, after, (1, 1)) if before != after else nn.Identity()


def _linear(before: int, after: int) -> nn.Linear:
    layer = nn.Linear(before, after)
    nn.init.zeros_(layer.bias)
    return layer
