"""The published network of Dance Diffusion, DiffusionAttnUnet1D: its checkpoints compute here what they did there.

A U-Net over samples whose levels halve the length by a fixed cubic kernel, three residual blocks a level on the way
down and three on the way back, self-attention after each of them on the coarse levels. The noise enters once, as
Fourier features of v's time beside the input.

References
----------
.. [1] Harmonai, sample-generator (MIT): https://github.com/Harmonai-org/sample-generator, `audio_diffusion/models.py`.
.. [2] diffusers' `UNet1DModel` and its Dance Diffusion pipeline, the other layout it is published in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from sfumato.config import Settings
from sfumato.errors import InputError, ModelError

if TYPE_CHECKING:
    from jaxtyping import Float

KERNEL = (-3 / 256, -9 / 256, 29 / 256, 111 / 256, 111 / 256, 29 / 256, -9 / 256, -3 / 256)
"""Cubic low-pass between levels."""

HEAD = 32
"""Channels of a head of attention."""


class Config(Settings):
    """Shape of the network."""

    channels: int = Field(2, ge=1, description="channels of the signal, in and out")
    widths: tuple[int, ...] = Field((128,) * 2 + (256,) * 2 + (512,) * 10, description="channels of each level")
    attention: tuple[bool, ...] = Field(description="whether each level attends; the finest never does")
    features: int = Field(16, ge=2, description="Fourier features of the noise level")

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if len(self.attention) != len(self.widths) or len(self.widths) < 2:
            raise ValueError(f"{len(self.widths)} widths and {len(self.attention)} levels: give 2 or more of each")
        if min(self.widths) < 1:
            raise ValueError(f"widths are {list(self.widths)}: give numbers of channels, 1 or more")
        if self.attention[0] or self.features % 2:
            raise ValueError("the finest level can't attend, and features come in pairs")
        attending = [w for level, on in enumerate(self.attention) if on for w in self.widths[level - 1 : level + 1]]
        if any(width % HEAD for width in attending):
            raise ValueError(f"levels that attend, and those above them, take multiples of {HEAD} channels")
        return self

    @property
    def multiple(self) -> int:
        """Lengths must be divisible by this."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def labels(self) -> tuple[int, ...]:
        """It takes none."""
        return ()


PUBLISHED = Config(attention=(False,) * 8 + (True,) * 6)
"""Shape of the published checkpoints."""


class DanceUNet(nn.Module):
    """Maps ``(x, c_noise, None)`` to v, for `c_noise` v's time; `Config.multiple` must divide the length of `x`."""

    frequencies: Tensor
    kernel: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("frequencies", torch.randn(config.features // 2))
        self.register_buffer("kernel", torch.tensor(KERNEL), persistent=False)
        self.inward, self.outward = nn.ModuleList(), nn.ModuleList()
        deepest = len(config.widths) - 1
        for level, (width, attends) in enumerate(zip(config.widths, config.attention, strict=True)):
            above = config.widths[level - 1] if level else config.channels
            enters = above if level else config.channels + config.features
            self.inward.append(_Blocks((enters, width, width, width), attends))
            comes = width if level == deepest else 2 * width
            self.outward.append(_Blocks((comes, width, width, above), attends, last=level == 0))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(0.5)

    def forward(self, x: Float[Tensor, "b c t"], c_noise: Float[Tensor, " b"], condition: None = None) -> Tensor:
        """The network's raw output, before preconditioning."""
        least = self.config.multiple
        if x.shape[-1] % least or x.shape[-1] < 4 * least:
            raise InputError(f"A signal of {x.shape[-1]} samples. Give a multiple of {least}, at least {4 * least}.")
        angle = 2 * math.pi * c_noise[:, None] * self.frequencies
        features = torch.cat([angle.cos(), angle.sin()], dim=1)[..., None].expand(-1, -1, x.shape[-1])
        h, passed = torch.cat([x, features], dim=1), []
        for level, blocks in enumerate(self.inward):
            h = blocks(self._halved(h) if level else h)
            passed.append(h)
        h = passed.pop()
        for level, blocks in reversed(list(enumerate(self.outward))):
            h = blocks(h)
            if level:
                h = torch.cat([self._doubled(h), passed.pop()], dim=1)
        return h

    def _halved(self, x: Tensor) -> Tensor:
        """Low-passed, every second sample."""
        weight = self.kernel.to(x).expand(x.shape[1], 1, -1)
        return functional.conv1d(functional.pad(x, (3, 3), "reflect"), weight, stride=2, groups=x.shape[1])

    def _doubled(self, x: Tensor) -> Tensor:
        """Twice as many samples, interpolated."""
        weight = 2 * self.kernel.to(x).expand(x.shape[1], 1, -1)
        padded = functional.pad(x, (2, 2), "reflect")
        return functional.conv_transpose1d(padded, weight, stride=2, padding=7, groups=x.shape[1])


class _Blocks(nn.Module):
    """Three residual blocks, each with attention after it where a level attends."""

    def __init__(self, widths: tuple[int, int, int, int], attends: bool, last: bool = False) -> None:
        super().__init__()
        a, b, c, d = widths
        self.blocks = nn.ModuleList([_Block(a, b, b), _Block(b, c, c), _Block(c, c, d, last)])
        self.attention = nn.ModuleList(_Attention(width) for width in (b, c, d) if attends)

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.blocks):
            x = block(x)
            if self.attention:
                x = self.attention[i](x)
        return x


class _Block(nn.Module):
    """Two convolutions beside a straight way; the last one of the network ends on a convolution."""

    def __init__(self, before: int, within: int, after: int, last: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(before, within, 5, padding=2)
        self.norm1 = nn.GroupNorm(1, within)
        self.conv2 = nn.Conv1d(within, after, 5, padding=2)
        self.norm2 = None if last else nn.GroupNorm(1, after)
        self.skip = nn.Identity() if before == after else nn.Conv1d(before, after, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(functional.gelu(self.norm1(self.conv1(x))))
        if self.norm2 is not None:
            h = functional.gelu(self.norm2(h))
        out: Tensor = h + self.skip(x)
        return out


class _Attention(nn.Module):
    """Self-attention over time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, t = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, c // HEAD, HEAD, t).transpose(3, 4).unbind(1)
        h = functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = x + self.out(h.transpose(2, 3).reshape(b, c, t))
        return out


_BLOCK_PARTS = {
    "main.0": "conv1", "main.1": "norm1", "main.3": "conv2", "main.4": "norm2", "skip": "skip",
    "conv_1": "conv1", "group_norm_1": "norm1", "conv_2": "conv2", "group_norm_2": "norm2", "conv_skip": "skip",
}  # fmt: skip
_ATTENTION_PARTS = {"norm": "norm", "qkv_proj": "qkv", "out_proj": "out", "group_norm": "norm", "proj_attn": "out"}
_THIRDS = ("query", "key", "value")


def adopt(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What `Config` holds, and the weights under the names used here, of a network in either published layout.

    The training's layout is nested: in the finest level ``net.0`` to ``net.2`` go in, ``net.3.main`` is the next level
    and ``net.4`` to ``net.6`` come out; in the others a block and its attention lie at 1 and 2, 3 and 4, 5 and 6, the
    next level at 7, and so on. In diffusers' layout levels have numbers, and the deepest one is ``mid_block``.

    Raises
    ------
    ModelError
        These are not such weights.
    """
    paths = dict(_diffusers_paths(tensors) if "time_proj.weight" in tensors else _nested_paths(tensors))
    key = "time_proj.weight" if "time_proj.weight" in tensors else "timestep_embed.weight"
    if key not in tensors or not paths:
        raise ModelError("The weight timestep_embed.weight is missing: this is no checkpoint of Dance Diffusion.")
    renamed = {"frequencies": tensors[key].flatten()}
    thirds: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        before, own = next(((b, o) for b, o in paths.items() if name.startswith(b)), ("", ""))
        rest = name.removeprefix(before)
        part, _, kind = rest.rpartition(".")
        if name == key:
            continue
        if kind == "kernel":
            factor = float(value.sum())  # 2 where lengths double
            if value.shape != (len(KERNEL),) or not torch.allclose(value, factor * torch.tensor(KERNEL), atol=1e-6):
                raise ModelError(f"The weight {name} is another kernel than the published network's.")
        elif not before:
            raise ModelError(f"The weight {name} is not part of Dance Diffusion's network.")
        elif part in _THIRDS:
            thirds.setdefault(f"{own}qkv.{kind}", {})[part] = value
        else:
            parts = _ATTENTION_PARTS if ".attention." in own else _BLOCK_PARTS
            if part not in parts:
                raise ModelError(f"The weight {name} is not part of Dance Diffusion's network.")
            flat = part == "proj_attn" and value.ndim == 2
            renamed[f"{own}{parts[part]}.{kind}"] = value[..., None] if flat else value
    for own, found in thirds.items():
        if set(found) != set(_THIRDS):
            raise ModelError(f"Of query, key and value only {', '.join(found)} are there: this is no whole checkpoint.")
        joined = torch.cat([found[third] for third in _THIRDS])
        renamed[own] = joined[..., None] if joined.ndim == 2 else joined
    return _config_of(renamed), renamed


def _config_of(renamed: Mapping[str, Tensor]) -> dict[str, Any]:
    """The shape that weights have."""
    widths: list[int] = []
    attention: list[bool] = []
    while (key := f"inward.{len(widths)}.blocks.0.conv1.weight") in renamed:
        attention.append(f"inward.{len(widths)}.attention.0.qkv.weight" in renamed)
        widths.append(renamed[key].shape[0])
    last = renamed.get("outward.0.blocks.2.conv2.weight")
    if last is None or len(widths) < 2:
        raise ModelError("The weights of the first or last convolution are missing: this is no Dance Diffusion.")
    features = 2 * renamed["frequencies"].numel()
    return {"channels": last.shape[0], "widths": widths, "attention": attention, "features": features}


def _nested_paths(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Beginnings of names in the training's layout, and what they are here."""
    for i in range(3):
        yield f"net.{i}.", f"inward.0.blocks.{i}."
        yield f"net.{4 + i}.", f"outward.0.blocks.{i}."
    level, place = 1, "net.3.main."
    while any(name.startswith(place + "1.") for name in tensors):
        for i in range(3):
            for side, first in (("inward", 1), ("outward", 8)):
                yield f"{place}{first + 2 * i}.", f"{side}.{level}.blocks.{i}."
                yield f"{place}{first + 2 * i + 1}.", f"{side}.{level}.attention.{i}."
        level, place = level + 1, place + "7.main."


def _diffusers_paths(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, str]]:
    """Beginnings of names in diffusers' layout, and what they are here."""
    deepest = len({match[1] for name in tensors if (match := re.match(r"down_blocks\.(\d+)\.", name))})
    for i in range(3):
        for theirs, own in (("resnets", "blocks"), ("attentions", "attention")):
            yield f"mid_block.{theirs}.{i}.", f"inward.{deepest}.{own}.{i}."
            yield f"mid_block.{theirs}.{3 + i}.", f"outward.{deepest}.{own}.{i}."
            for level in range(deepest):
                yield f"down_blocks.{level}.{theirs}.{i}.", f"inward.{level}.{own}.{i}."
                yield f"up_blocks.{deepest - 1 - level}.{theirs}.{i}.", f"outward.{level}.{own}.{i}."
