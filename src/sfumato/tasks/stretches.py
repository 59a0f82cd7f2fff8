"""Pictures of any length, drawn stretch by stretch, and the sound they make.

The first stretch is a window of the model's; each later one is drawn with the end of the one before it in view, as it
was at the same noise level (`diffusion.guide.follow`). So all are one state, denoised jointly; and yet memory stays
that of a window, a stretch can be heard before the next is begun, and nothing drawn changes what was drawn before it:
the first ten seconds of a seed are the same however long the sound becomes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sfumato.diffusion import guide, noise, sample
from sfumato.diffusion.noise import slerp
from sfumato.signal import complex_spectrogram
from sfumato.signal.complex_spectrogram import TURN
from sfumato.tasks.takes import Array

if TYPE_CHECKING:
    from jaxtyping import Float

    from sfumato.diffusion.precondition import Denoiser
    from sfumato.systems.riffusion import Config

OVERLAP = 64
"""Frames of a stretch that the next one sees; a multiple of what networks divide frames by."""


@dataclass(frozen=True)
class Edit:
    """What a stretch is made of instead of noise alone."""

    source: Float[Tensor, "1 2 f n"]
    hold: Float[Tensor, "f n"]
    """Share of the walk for which each place is held to the source, as for `guide.strength`."""


@dataclass(frozen=True)
class Walk:
    """How each stretch is drawn."""

    denoise: Callable[[float], Denoiser]
    """The denoiser at a second of the sound: what is wanted may change."""
    sigmas: Float[Tensor, " n"]
    sampler: str
    seed: int
    item: int
    other_seed: int | None = None
    """A second seed, towards whose noise `blend` leads."""
    blend: Callable[[float], float] = lambda second: 0.0
    edit: Callable[[int, int], Edit] | None = None
    """What frames [first, first + n) are made of."""
    step_done: Callable[[], None] = lambda: None

    def noise(self, shape: tuple[int, int], first: int, n: int, second: float) -> noise.Noise:
        """The noise of frames [first, first + n)."""
        own = noise.scroll(shape, first, n, seed=self.seed, item=self.item)
        way = self.blend(second)
        if self.other_seed is None or way == 0:
            return own
        other = noise.scroll(shape, first, n, seed=self.other_seed, item=self.item)
        return lambda step: slerp(own(step).flatten(), other(step).flatten(), way).reshape(1, *shape, n)


@torch.no_grad()
def pictures(config: Config, walk: Walk, frames: int | None) -> Iterator[Float[Tensor, "1 2 f n"]]:
    """Stretches, one after another, until there are `frames` or more; without end for None."""
    first, trail = 0, dict[float, Tensor]()
    shape, overlap = (2, config.half), overlap_of(config)
    levels = walk.sigmas.double().tolist()
    while frames is None or first < frames:
        n = config.window - (overlap if first else 0)
        second = first * config.half / config.sample_rate
        denoise = walk.denoise(second)
        if first:
            denoise = guide.follow(denoise, trail)
        stream = walk.noise(shape, first, n, second)
        x = stream(0) * levels[0]
        if walk.edit is not None:
            edit = walk.edit(first, n)
            x = x + edit.source
            denoise = guide.strength(denoise, edit.source, edit.hold, walk.sigmas)
        left = {levels[0]: x[..., -overlap:].clone()}
        for step in sample.SAMPLERS[walk.sampler](denoise, x, walk.sigmas, stream):
            x = step.x
            left[step.sigma] = x[..., -overlap:].clone()  # a view would keep all of it
            walk.step_done()
        yield x
        first, trail = first + n, left


def overlap_of(config: Config) -> int:
    """Frames of a stretch that the next one sees."""
    return min(OVERLAP, config.window // 2 // config.network.multiple * config.network.multiple or TURN)


def n_stretches(config: Config, frames: int) -> int:
    """Stretches that `frames` take."""
    more = config.window - overlap_of(config)
    return 1 + max(0, -(-(frames - config.window) // more))


@torch.no_grad()
def loop(config: Config, walk: Walk, frames: int, turn: Callable[[int], int]) -> Float[Tensor, "1 2 f n"]:
    """A picture on a circle; `TURN` divides its frames."""
    denoise = guide.circle(
        walk.denoise(0.0), config.window, config.window // 2, lambda n: turn(n) // TURN * TURN, grid=TURN
    )
    stream = walk.noise((2, config.half), 0, frames, 0.0)
    x = stream(0) * float(walk.sigmas[0])
    for step in sample.SAMPLERS[walk.sampler](denoise, x, walk.sigmas, stream):
        x = step.x
        walk.step_done()
    return x


def sounds(pictures: Iterable[Float[Tensor, "1 2 f n"]], config: Config) -> Iterator[Array]:
    """The sound of stretches, (1, samples) each: all of it together is the sound of all of them together."""
    before: Tensor | None = None
    for picture in pictures:
        bins = complex_spectrogram.unpicture(picture.double(), config.sample_rate)
        whole = bins if before is None else torch.cat([before, bins], dim=2)
        sound = complex_spectrogram.sound(whole, (whole.shape[2] - 1) * config.half)
        yield np.asarray(sound if before is None else sound[:, (TURN - 1) * config.half :])
        before = bins[..., -TURN:]


def frames_of(n_samples: int, config: Config) -> int:
    """Frames that so many samples take."""
    return -(-n_samples // config.half) + 1
