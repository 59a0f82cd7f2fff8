"""A small 2-D U-Net for pictures of sound: convolutions, self-attention at the bottom, noise-level modulation.

The layout follows the diffusion U-Net of [1]_ (residual blocks, skip connections) with the adaptive group
normalisation of [2]_ and noise features of [3]_. A coordinate channel tells low frequencies from high ones.

References
----------
.. [1] J. Ho, A. Jain, P. Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020.
.. [2] P. Dhariwal, A. Nichol, "Diffusion models beat GANs on image synthesis", NeurIPS 2021.
.. [3] M. Tancik et al., "Fourier features let networks learn high frequency functions", NeurIPS 2020.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sfumato.config import Settings

if TYPE_CHECKING:
    from jaxtyping import Float


class Config(Settings):
    """Shape of the network."""

    channels: int = Field(1, ge=1, description="channels of the picture")
    condition_channels: int = Field(0, ge=0, description="channels of the condition, joined to the input")
    widths: tuple[int, ...] = Field((32, 64, 128, 192), description="channels of each level, finest first")
    blocks: int = Field(1, ge=1, description="residual blocks per level and direction")
    attention_heads: int = Field(4, ge=1, description="heads of the self-attention at the coarsest level")
    embedding: int = Field(128, ge=8, description="width of the noise-level embedding")


class UNet2d(nn.Module):
    """Maps ``(x, c_noise, condition)`` to a picture with the sides of `x`, which 2^(levels - 1) must divide.

    `out_channels` says how many channels that has; default: those of `x`.
    """

    def __init__(self, config: Config, out_channels: int | None = None) -> None:
        super().__init__()
        self.config = config
        widths, width = config.widths, config.embedding
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.exp(torch.linspace(math.log(0.1), math.log(8.0), width // 2)))
        self.embed = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.first = nn.Conv2d(config.channels + config.condition_channels + 1, widths[0], 3, padding=1)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        for level, c in enumerate(widths):
            before = widths[max(level - 1, 0)]
            self.down.append(nn.ModuleList(_Block(before if i == 0 else c, c, width) for i in range(config.blocks)))
        self.middle = nn.ModuleList(
            [_Block(widths[-1], widths[-1], width), _Attention(widths[-1], config.attention_heads)]
        )
        for level in reversed(range(len(widths))):
            below = widths[min(level + 1, len(widths) - 1)]
            c = widths[level]
            self.up.append(nn.ModuleList(_Block(below + c if i == 0 else c, c, width) for i in range(config.blocks)))
        out = nn.Conv2d(widths[0], out_channels or config.channels, 3, padding=1)
        nn.init.zeros_(out.weight)
        self.last = nn.Sequential(nn.GroupNorm(8, widths[0]), nn.SiLU(), out)

    def forward(
        self,
        x: Float[Tensor, "b c f t"],
        c_noise: Float[Tensor, " b"],
        condition: Float[Tensor, "b k f t"] | None = None,
    ) -> Float[Tensor, "b o f t"]:
        """The network's raw output, before preconditioning."""
        angle = c_noise[:, None] * self.frequencies
        embedding = self.embed(torch.cat([angle.cos(), angle.sin()], dim=1))
        height = torch.linspace(-1.0, 1.0, x.shape[2], dtype=x.dtype, device=x.device)
        parts = [x, height[None, None, :, None].expand(len(x), 1, -1, x.shape[3])]
        if condition is not None:
            parts.append(condition)
        h = self.first(torch.cat(parts, dim=1).contiguous(memory_format=torch.channels_last))
        skips = []
        for level, blocks in enumerate(self.down):
            if level:
                h = functional.avg_pool2d(h, 2)
            h = _through(blocks, h, embedding)
            skips.append(h)
        h = self.middle[1](self.middle[0](h, embedding))
        for level, blocks in enumerate(self.up):
            if level:
                h = functional.interpolate(h, scale_factor=2.0, mode="nearest")
            h = _through(blocks, torch.cat([h, skips.pop()], dim=1), embedding)
        out: Tensor = self.last(h)
        return out


def _through(blocks: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
    for block in blocks.children():
        h = block(h, embedding)
    return h


class _Block(nn.Module):
    """Residual block whose second normalisation is scaled and shifted by the noise embedding."""

    def __init__(self, before: int, after: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, before)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.modulate = nn.Linear(embedding, 2 * after)
        self.norm2 = nn.GroupNorm(8, after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulate(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(functional.silu(self.norm1(x)))
        h = functional.silu(self.norm2(h) * (1.0 + scale) + shift)
        out: Tensor = self.skip(x) + self.conv2(h)
        return out


class _Attention(nn.Module):
    """Self-attention over all places of the coarsest picture: carries rhythm and repetition across the gap."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        b, c, f, t = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, f * t).transpose(3, 4).unbind(1)
        h = functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = x + self.out(h.transpose(2, 3).reshape(b, c, f, t))
        return out
