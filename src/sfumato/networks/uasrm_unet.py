"""The U-Net of UASRM: strided convolutions down, transposed convolutions up, convolved skips that are added.

As published it has no activation and no normalisation, so it is an affine map of its input, however deep. `repaired`
keeps the layout and adds both, residual blocks, sizes that fit, and patches that make it quick enough for a CPU.

References
----------
.. [1] T. Goldfarb, "UASRM: Unet Audio Spectrogram Repair Model", github.com/Todd-C-Goldfarb/UASRM, 2024.
.. [2] O. Ronneberger, P. Fischer, T. Brox, "U-Net", MICCAI 2015.
.. [3] W. Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel convolutional
   neural network", CVPR 2016 (patches to channels and back).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sfumato.config import Settings

if TYPE_CHECKING:
    from jaxtyping import Float

_GROUPS = 8


class Config(Settings):
    """Shape of the network; the defaults are the published ones, 251,614,145 weights."""

    channels: int = Field(1, ge=1, description="channels of the picture that comes in; one goes out")
    widths: tuple[int, ...] = Field(
        (64, 128, 256, 512, 1024, 2048, 4096), min_length=2, description="channels of each encoder, finest first"
    )
    repaired: bool = Field(False, description="with activations, normalisation and sizes that fit; the seed has none")
    blocks: int = Field(0, ge=0, description="residual blocks per level on the way up; only if repaired")
    patch: tuple[int, int] = Field((1, 1), description="bins and frames folded into channels; only if repaired")


class UasrmUNet(nn.Module):
    """Maps a picture ``(b, channels, bins, frames)`` to ``(b, 1, bins, frames)``.

    As published, sides of ``k * 2^(encoders - 1) + 1`` come out at their own size; others are stretched to it at the
    end. Repaired, every side that `patch` divides comes out at its own size.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths, repaired = config.widths, config.repaired
        folded = config.patch[0] * config.patch[1] if repaired else 1
        before = (config.channels * folded, *widths[:-1])
        self.down = nn.ModuleList(
            nn.Conv2d(c, w, 3, stride=1 if i == 0 else 2, padding=1, padding_mode="replicate")
            for i, (c, w) in enumerate(zip(before, widths, strict=True))
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(w, c, 3, 2, 1) for c, w in pairwise(widths))
        # The seed pads only the two deepest skips.
        self.skip = nn.ModuleList(
            nn.Conv2d(w, w, 3, padding=int(repaired or i >= len(widths) - 3), padding_mode="replicate")
            for i, w in enumerate(widths[:-1])
        )
        self.last = nn.ConvTranspose2d(widths[0], folded, 3, padding=1)
        self.norm_down = nn.ModuleList(_activation(w, repaired) for w in widths)
        self.norm_up = nn.ModuleList(_activation(w, repaired) for w in widths[:-1])
        self.blocks = nn.ModuleList(
            nn.Sequential(*(_Block(w) for _ in range(config.blocks if repaired else 0))) for w in widths
        )
        if repaired:
            nn.init.zeros_(self.last.weight)

    def forward(self, picture: Float[Tensor, "b c f t"]) -> Float[Tensor, "b 1 f t"]:
        """The repaired picture, or whatever the system has trained it to predict of it."""
        h = _fold(picture, *self.config.patch) if self.config.repaired else picture
        h = h.contiguous(memory_format=torch.channels_last)
        kept = []
        for convolve, activate in zip(self.down, self.norm_down, strict=True):
            h = activate(convolve(h))
            kept.append(h)
        h = self.blocks[-1](kept.pop())
        for level in reversed(range(len(kept))):
            size = list(kept[level].shape[2:]) if self.config.repaired else None
            h = self.up[level](h, output_size=size)
            beside = self.skip[level](kept[level])
            if beside.shape[2:] != h.shape[2:]:
                beside = functional.interpolate(beside, size=h.shape[2:], mode="bilinear", align_corners=False)
            h = self.blocks[level](self.norm_up[level](h + beside))
        h = self.last(h)
        out = _unfold(h, *self.config.patch) if self.config.repaired else h
        if out.shape[2:] != picture.shape[2:]:
            out = functional.interpolate(out, size=picture.shape[2:], mode="bilinear", align_corners=False)
        return out


class _Block(nn.Module):
    """Residual block of two convolutions, silent at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(second.weight)
        self.inner = nn.Sequential(
            _activation(width, True), nn.Conv2d(width, width, 3, padding=1), _activation(width, True), second
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.inner(x)
        return out


def _activation(width: int, repaired: bool) -> nn.Module:
    """Normalisation and activation, or, as in the seed, nothing."""
    return nn.Sequential(nn.GroupNorm(_GROUPS, width), nn.SiLU()) if repaired else nn.Identity()


def _fold(x: Tensor, bins: int, frames: int) -> Tensor:
    """Patches of `bins` by `frames` as channels."""
    b, c, f, t = x.shape
    x = x.reshape(b, c, f // bins, bins, t // frames, frames)
    return x.permute(0, 1, 3, 5, 2, 4).reshape(b, c * bins * frames, f // bins, t // frames)


def _unfold(x: Tensor, bins: int, frames: int) -> Tensor:
    """The inverse of `_fold` for one channel."""
    b, _, f, t = x.shape
    return x.reshape(b, 1, bins, frames, f, t).permute(0, 1, 4, 2, 5, 3).reshape(b, 1, f * bins, t * frames)
