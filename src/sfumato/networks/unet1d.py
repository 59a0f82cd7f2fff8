"""A small 1-D U-Net for waveforms: strided levels, self-attention at the bottom, noise-level modulation.

The layout is that of `unet2d` on one axis, with a longer kernel and a larger step between levels, as waveform U-Nets
have them [1]_: a waveform is long, and its neighbouring samples say little about each other's second.

With `relative`, the label is the cosine time of v-prediction, in (0, 1), and the network is told what follows from it:

- it embeds the logarithm of the signal-to-noise ratio, which resolves low noise where the time is all but 0;
- it sees the input twice: as it is, and divided by its noise and companded by asinh, so that a decay far below full
  scale is of order 1 at every noise level rather than lost beside the attack;
- patches are turned into bands by an orthonormal DCT, and a gate per band and patch, in (0, 1), lets through as much of
  the input as is noise: a Wiener filter, to which the U-Net's output is added. Gates open where nothing sounds.

References
----------
.. [1] D. Stoller, S. Ewert, S. Dixon, "Wave-U-Net", ISMIR 2018, arXiv 1806.03185.
.. [2] P. Dhariwal, A. Nichol, "Diffusion models beat GANs on image synthesis", NeurIPS 2021.
.. [3] M. Tancik et al., "Fourier features let networks learn high frequency functions", NeurIPS 2020.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sfumato.config import Settings
from sfumato.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float, Int


GROUPS = 8
"""Groups that channels are normalised in."""
_LOUDEST = 5.0
"""How many standard deviations of the noise a gate lets through; more is sound."""


class Config(Settings):
    """Shape of the network."""

    channels: int = Field(1, ge=1, description="channels of the signal, in and out")
    condition_channels: int = Field(0, ge=0, description="channels of the condition, joined to the input")
    patch: int = Field(8, ge=1, description="samples folded into channels before the first level")
    factor: int = Field(4, ge=2, description="ratio of lengths between neighbouring levels")
    kernel: int = Field(5, ge=1, description="length of the convolutions, odd")
    widths: tuple[int, ...] = Field((32, 64, 128, 192), description="channels of each level, finest first")
    blocks: int = Field(1, ge=1, description="residual blocks per level and direction")
    attention_heads: int = Field(4, ge=1, description="heads of the self-attention at the coarsest level")
    embedding: int = Field(128, ge=8, description="width of the noise-level embedding")
    labels: tuple[int, ...] = Field((), description="how many values each conditioning label has, 0 among them")
    relative: bool = Field(False, description="read the label as v's time, and see the input relative to its noise too")

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.kernel % 2 == 0 or self.embedding % 2:
            raise ValueError(f"kernel is {self.kernel} and embedding {self.embedding}: give an odd and an even number")
        if not self.widths or any(width < 1 or width % GROUPS for width in self.widths):
            raise ValueError(f"widths are {list(self.widths)}: give one or more multiples of {GROUPS}")
        if self.widths[-1] % self.attention_heads:
            raise ValueError(f"attention_heads is {self.attention_heads}: give a divisor of {self.widths[-1]}")
        if any(size < 1 for size in self.labels):
            raise ValueError(f"labels are {list(self.labels)}: give how many values each has, 1 or more")
        if self.labels and self.condition_channels:
            raise ValueError("a network takes labels or a signal as its condition, not both")
        return self

    @property
    def multiple(self) -> int:
        """Lengths must be divisible by this."""
        return int(self.patch * self.factor ** (len(self.widths) - 1))


class UNet1d(nn.Module):
    """Maps ``(x, c_noise, condition)`` to a signal shaped like `x`, whose length `Config.multiple` must divide."""

    frequencies: Tensor
    bands: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths, width, k = config.widths, config.embedding, config.kernel
        self.register_buffer("frequencies", torch.exp(torch.linspace(math.log(0.1), math.log(8.0), width // 2)))
        self.embed = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.label = nn.ModuleList(nn.Embedding(size, width) for size in config.labels)
        joined = (config.channels * (1 + config.relative) + config.condition_channels) * config.patch
        self.first = nn.Conv1d(joined, widths[0], k, padding=k // 2)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for level, c in enumerate(widths):
            self.down.append(_Level(widths[max(level - 1, 0)], c, k, width, config.blocks))
        self.middle = _Block(widths[-1], widths[-1], k, width)
        self.attention = _Attention(widths[-1], config.attention_heads)
        for level in reversed(range(len(widths))):
            below = widths[min(level + 1, len(widths) - 1)]
            self.up.append(_Level(below + widths[level], widths[level], k, width, config.blocks))
        out = nn.Conv1d(widths[0], config.channels * config.patch * (1 + config.relative), k, padding=k // 2)
        self.last = nn.Sequential(nn.GroupNorm(GROUPS, widths[0]), nn.SiLU(), out)
        for parameter in out.parameters():
            nn.init.zeros_(parameter)
        if config.relative:
            self.register_buffer("bands", _dct(config.patch), persistent=False)

    def forward(
        self,
        x: Float[Tensor, "b c t"],
        c_noise: Float[Tensor, " b"],
        condition: Float[Tensor, "b k t"] | Int[Tensor, "b k"] | None = None,
    ) -> Float[Tensor, "b c t"]:
        """The network's raw output, before preconditioning. `condition` is a signal, or one number per label."""
        patch, factor = self.config.patch, self.config.factor
        if x.shape[-1] % self.config.multiple:
            raise InputError(f"A signal of {x.shape[-1]} samples. Pad it to a multiple of {self.config.multiple}.")
        joined = x.reshape(*x.shape[:2], -1, patch).transpose(2, 3)
        if self.config.relative:
            phase = c_noise * (math.pi / 2)
            joined = _change_basis(self.bands, joined)
            relative = joined / phase.sin()[:, None, None, None]
            joined = torch.cat([joined, torch.asinh(relative)], dim=1)
            c_noise = phase.tan().log() / 4
        angle = c_noise[:, None] * self.frequencies
        embedding = self.embed(torch.cat([angle.cos(), angle.sin()], dim=1))
        if self.config.labels:
            given = x.new_zeros(len(x), len(self.label), dtype=torch.long) if condition is None else condition
            for numbers, table in zip(given.unbind(1), self.label, strict=True):
                embedding = embedding + table(numbers)
        elif condition is not None:
            joined = torch.cat([joined, condition.reshape(*condition.shape[:2], -1, patch).transpose(2, 3)], dim=1)
        h = self.first(joined.flatten(1, 2))
        skips = []
        for i, level in enumerate(self.down):
            h = level(functional.avg_pool1d(h, factor) if i else h, embedding)
            skips.append(h)
        h = self.attention(self.middle(h, embedding))
        for i, level in enumerate(self.up):
            if i:
                h = functional.interpolate(h, scale_factor=float(factor), mode="nearest")
            h = level(torch.cat([h, skips.pop()], dim=1), embedding)
        out: Tensor = self.last(h)
        if self.config.relative:
            added, gate = out.float().reshape(len(out), x.shape[1], 2, patch, -1).unbind(2)
            noise = relative.clamp(-_LOUDEST, _LOUDEST) * phase.cos()[:, None, None, None]
            out = _change_basis(self.bands.T, added + torch.sigmoid(gate) * noise)
        return out.reshape(len(out), x.shape[1], patch, -1).transpose(2, 3).flatten(2)


def _dct(n: int) -> Tensor:
    """The orthonormal DCT-II of `n` samples, ``(bands, samples)``."""
    k, t = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None]
    basis = (math.pi / n * (t + 0.5) * k).cos() * math.sqrt(2.0 / n)
    basis[0] *= math.sqrt(0.5)
    return basis.float()


def _change_basis(basis: Tensor, patches: Float[Tensor, "b c p t"]) -> Float[Tensor, "b c q t"]:
    """Each patch in another basis, in full precision whatever the rest of the network is computed in."""
    with torch.autocast(patches.device.type, enabled=False):
        return torch.einsum("qp,bcpt->bcqt", basis, patches.float())


class _Level(nn.Module):
    """Blocks of one length."""

    def __init__(self, before: int, after: int, kernel: int, embedding: int, count: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(after if i else before, after, kernel, embedding) for i in range(count))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, embedding)
        return x


class _Block(nn.Module):
    """Residual block whose second normalisation is scaled and shifted by the noise embedding."""

    def __init__(self, before: int, after: int, kernel: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, before)
        self.conv1 = nn.Conv1d(before, after, kernel, padding=kernel // 2)
        self.modulate = nn.Linear(embedding, 2 * after)
        self.norm2 = nn.GroupNorm(GROUPS, after)
        self.conv2 = nn.Conv1d(after, after, kernel, padding=kernel // 2)
        self.skip = nn.Conv1d(before, after, 1) if before != after else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulate(embedding)[:, :, None].chunk(2, dim=1)
        h = self.conv1(functional.silu(self.norm1(x)))
        h = functional.silu(self.norm2(h) * (1.0 + scale) + shift)
        out: Tensor = self.skip(x) + self.conv2(h)
        return out


class _Attention(nn.Module):
    """Self-attention over the coarsest signal."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(GROUPS, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.out = nn.Conv1d(width, width, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        b, c, t = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, t).transpose(3, 4).unbind(1)
        h = functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = x + self.out(h.transpose(2, 3).reshape(b, c, t))
        return out
