"""Cutting windows around gaps, and filling them along the principal axes of the channels.

Channels of one recording are not independent, and fills drawn for each alone would tear the stereo image apart. So a
window is turned onto the principal axes of its context, each axis is filled as one channel, and turned back.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from sfumato.diffusion import noise
from sfumato.errors import InputError
from sfumato.signal import gap_levels
from sfumato.tasks.fill import CONTEXT_S, Fill, Window, source_of

Array = NDArray[np.float64]
Gap = tuple[int, int]

MAX_GAP_S = 2.0
MIN_CONTEXT_S = 0.02
MAX_CHANNELS = 64

FLOOR_DB = -80.0
_FLOOR_STEP = 1 << 40


class Source(Protocol):
    """What windows are cut from: a decoded file or an array."""

    @property
    def sample_rate(self) -> int:
        """In Hz."""

    @property
    def channels(self) -> int:
        """Number of channels."""

    @property
    def n_samples(self) -> int:
        """Samples per channel."""

    def read(self, start: int, stop: int) -> Array:
        """Samples ``(channels, stop - start)``."""


@dataclass(frozen=True)
class Clip:
    """An array as a source."""

    audio: Array
    """``(channels, n_samples)``."""
    sample_rate: int

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.audio)

    @property
    def n_samples(self) -> int:
        """Samples per channel."""
        return int(self.audio.shape[1])

    def read(self, start: int, stop: int) -> Array:
        """Samples ``(channels, stop - start)``."""
        return self.audio[:, start:stop]


def plan(gaps: Sequence[Gap], sample_rate: int) -> list[list[Gap]]:
    """Gaps in groups that are filled together: neighbours within one model's context and one window's reach."""
    context, reach = CONTEXT_S * sample_rate, MAX_GAP_S * sample_rate
    groups: list[list[Gap]] = []
    for gap in gaps:
        if groups and gap[0] - groups[-1][-1][1] < context and gap[1] - groups[-1][0][0] <= reach:
            groups[-1].append(gap)
        else:
            groups.append([gap])
    return groups


@dataclass(frozen=True)
class Filled:
    """A group's missing samples."""

    draws: Array
    """``(draws, channels, missing samples of the group)``."""
    source: Array | None
    """``(2, channels, missing samples)``: mean and a draw of the AR posterior; None unless asked for."""

    def cut(self, start: int, stop: int) -> Filled:
        """Some of the missing samples."""
        return Filled(self.draws[:, :, start:stop], None if self.source is None else self.source[:, :, start:stop])


def fill_group(
    source: Source,
    group: Sequence[Gap],
    unknown: Sequence[Gap],
    fill: Callable[[Window], Fill],
    seed: int | None = None,
    window_samples: int | None = None,
) -> Filled:
    """The missing samples of a group, filled.

    Parameters
    ----------
    source
        The recording.
    group
        Gaps to fill together, in samples.
    unknown
        Every damaged stretch, also those not to be filled here; in order, none overlapping another.
    fill
        Fills one channel's window.
    seed
        Where the AR posterior is wanted too and `fill` makes none: the seed of its draw.
    window_samples
        Length of the window; default: that of a picture of levels.

    Raises
    ------
    InputError
        There is next to no sound around the gaps to go by, or they don't fit into the window.
    """
    if source.channels > MAX_CHANNELS:
        raise InputError(f"{source.channels} channels are more than the {MAX_CHANNELS} that can be repaired together.")
    rate = source.sample_rate
    n = window_samples or gap_levels.window_samples(rate)
    if group[-1][1] - group[0][0] + 2 * MIN_CONTEXT_S * rate > n:
        raise InputError(f"{_named(group, rate)}: too long for a window of {n / rate:g} s. Choose another method.")
    start = (group[0][0] + group[-1][1]) // 2 - n // 2
    lo, hi = max(start, 0), min(start + n, source.n_samples)
    audio = np.zeros((source.channels, n))
    audio[:, lo - start : hi - start] = source.read(lo, hi)
    inside = np.zeros(n, dtype=bool)
    inside[lo - start : hi - start] = True
    known = inside.copy()
    own = np.zeros(n, dtype=bool)
    for a, b in within(unknown, start, start + n):
        known[max(a - start, 0) : b - start] = False
    for a, b in group:
        own[a - start : b - start] = True
    known &= np.isfinite(audio).all(axis=0)
    near = Window(np.zeros(n), known, inside, own, rate, 0).near(CONTEXT_S)
    if known[near].sum() < MIN_CONTEXT_S * rate:
        raise InputError(
            f"{_named(group, rate)}: there are only {known[near].sum() / rate * 1e3:.0f} ms of sound around it to go "
            f"by; {MIN_CONTEXT_S * 1e3:.0f} ms are needed."
        )
    audio = np.where(known, audio, 0.0)
    scale = float(np.abs(audio).max()) or 1.0
    audio /= scale
    offset = audio[:, near][:, known[near]].mean(axis=1, keepdims=True)
    audio = np.where(known, audio - offset, 0.0)
    axes, power = _principal_axes(audio[:, near])
    rotated = axes.T @ audio
    heard = [i for i in range(source.channels) if power[i] > 1e-12 * power[0] and power[0] > 0.0]
    windows = []
    for i in heard:
        item = group[0][0] * MAX_CHANNELS + i
        windows.append(Window(_with_floor(rotated[i], known, near, item), known, inside, own, rate, item))
    # One linear-algebra thread per axis: a banded solve gains nothing from more, and spinning threads cost a lot.
    pool, sources = ThreadPoolExecutor(os.cpu_count()), None
    try:
        with threadpool_limits(limits=1, user_api="blas"):
            results = list(pool.map(fill, windows))
            if seed is not None:
                sources = [
                    source_of(window, seed) if result.source is None else result.source
                    for window, result in zip(windows, results, strict=True)
                ]
    except np.linalg.LinAlgError as error:
        raise InputError(f"{_named(group, rate)}: no model fits the sound around it ({error}).") from error
    finally:  # after an interrupt, what runs is not waited for
        pool.shutdown(wait=False, cancel_futures=True)

    def turned_back(parts: list[Array], rows: int = 1) -> Array:
        whole = np.zeros((max((len(part) for part in parts), default=rows), source.channels, int(own.sum())))
        for i, part in zip(heard, parts, strict=True):
            whole[:, i] = part
        return np.asarray(scale * (np.einsum("ci,dit->dct", axes, whole) + offset))

    both = None if sources is None else turned_back(sources, rows=2)
    return Filled(turned_back([result.draws for result in results]), both)


def _with_floor(x: Array, known: NDArray[np.bool_], near: slice, item: int) -> Array:
    """`x` with a floor of white noise under its known samples, `FLOOR_DB` below their level around the gap.

    An empty band (above the edge of a lossy codec, or of an older sample rate) has no noise to tell an AR model by:
    its spectrum spans more than double precision holds, and fills collapse. 16-bit recordings have such a floor.
    """
    heard = x[near][known[near]]
    level = np.sqrt(np.mean(heard**2)) * 10.0 ** (FLOOR_DB / 20.0)
    floor = noise.normal((len(x),), seed=0, item=item, step=_FLOOR_STEP).double().numpy()
    return np.where(known, x + level * floor, 0.0)


def joined(gaps: Iterable[Gap]) -> list[Gap]:
    """Gaps in order, those that overlap or touch as one."""
    out: list[Gap] = []
    for start, stop in sorted(gaps):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(stop, out[-1][1]))
        else:
            out.append((start, stop))
    return out


def within(gaps: Sequence[Gap], start: int, stop: int) -> Sequence[Gap]:
    """Those of sorted, disjoint gaps that reach into ``[start, stop)``."""
    first = bisect_right(gaps, start, key=lambda gap: gap[1])
    return gaps[first : bisect_left(gaps, stop, key=lambda gap: gap[0])]


def _named(group: Sequence[Gap], sample_rate: int) -> str:
    """The group in words."""
    return f"Gap {group[0][0] / sample_rate:g}–{group[-1][1] / sample_rate:g} s"


def _principal_axes(audio: Array) -> tuple[Array, Array]:
    """Orthonormal axes of the channels, strongest first, and their power. Fills drawn along them keep the image."""
    covariance = audio @ audio.T
    power, axes = np.linalg.eigh(covariance)
    order = np.argsort(power)[::-1]
    axes = axes[:, order]
    axes *= np.sign(axes[np.argmax(np.abs(axes), axis=0), np.arange(len(axes))])
    return axes, power[order]
