"""Repair of time-frequency regions: from 1.2 s to 1.7 s, from 300 Hz to 2 kHz, and nothing else.

A region is a rectangle of STFT bins (windows of 46.4 ms every 11.6 ms) and the samples between its two times. Whatever
fills it, the edit that is added to the recording lives in those samples only, so every other sample is bit-identical.
Bins beside the rectangle are another matter: STFT bins overlap, and no sound but silence lies in a rectangle alone. Of
all edits between the two times, `confine` picks the one nearest to the wanted bins while energy outside the rectangle
is charged `PENALTY` times. What is left there lies 50 to 60 dB below the edit where the rectangle is 1 kHz high or
higher, about 40 dB where it is small, and is measured (`leak_db`). The price is paid inside: an edit fades towards the
rectangle's upper and lower side over some 60 Hz.

Every method that fills gaps fills regions: the stretch is filled as if all of it were missing, and the fill's bins in
the rectangle are kept. For an autoregressive process that loses nothing, as its bands are independent.

References
----------
.. [1] D. Slepian, H. Pollak, "Prolate spheroidal wave functions", Bell System Technical Journal 40, 1961: what can be
   concentrated in time and frequency at once. Here the same question is asked of STFT rectangles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sfumato.errors import InputError
from sfumato.signal.stft import istft, stft
from sfumato.systems import uasrm
from sfumato.tasks.fill import Fill, Window
from sfumato.tasks.windows import MAX_GAP_S, Gap, Source, fill_group, joined, within

Array = NDArray[np.float64]
Known = NDArray[np.bool_]

PENALTY = 1e3
MIN_CELLS = 12.0
"""Least seconds times Hz of a region: less than this holds no sound of its own."""
MIN_WIDTH_HZ = 200.0
"""Least height of a region: its sides fade over some 60 Hz each, and something must be left between them."""

_MAX_ROUNDS = 200
_TOLERANCE = 1e-2


class Region(NamedTuple):
    """A rectangle, as a user gives it."""

    start_s: float
    stop_s: float
    f_low_hz: float
    f_high_hz: float

    def __str__(self) -> str:
        """As it is typed."""
        return f"{self.start_s:g}:{self.stop_s:g}:{self.f_low_hz:g}:{self.f_high_hz:g}"


@dataclass(frozen=True)
class Box:
    """A checked region of one recording: half-open in samples, closed in Hz."""

    start: int
    stop: int
    f_low_hz: float = 0.0
    f_high_hz: float = np.inf


def parse(text: str) -> Region:
    """The region of ``start:stop:f_low:f_high``, in seconds and Hz.

    Raises
    ------
    InputError
        The text is not four numbers.

    Examples
    --------
    >>> parse("1.2:1.7:300:2000")
    Region(start_s=1.2, stop_s=1.7, f_low_hz=300.0, f_high_hz=2000.0)
    """
    try:
        start, stop, low, high = (float(word) for word in text.split(":"))
    except ValueError:
        raise InputError(f"Region '{text}' is not start:stop:f_low:f_high, such as 1.2:1.7:300:2000 (s, Hz).") from None
    return Region(start, stop, low, high)


def check(
    regions: Sequence[tuple[float, float, float, float]], sample_rate: int, n_samples: int, gaps: Sequence[Gap] = ()
) -> list[Box]:
    """Regions (start, stop, f_low, f_high; s and Hz) in samples, sorted by start.

    A side at or past half the sample rate is at the very top.

    Raises
    ------
    InputError
        A region holds no number, is reversed or empty, lies outside the recording, overlaps one of `gaps`, is longer
        than can be filled, or so small that no sound fits it.
    """
    total, top = n_samples / sample_rate, sample_rate / 2.0
    boxes = []
    for given in regions:
        try:
            region = Region(*(float(value) for value in given))
        except (TypeError, ValueError):
            raise InputError(f"Region {given} is not (start, stop, f_low, f_high) in seconds and Hz.") from None
        start_s, stop_s, low, high = region
        if not np.isfinite([start_s * sample_rate, stop_s * sample_rate, low]).all() or np.isnan(high):
            raise InputError(f"Region {region} is not four numbers. Give start:stop:f_low:f_high in seconds and Hz.")
        start, stop = round(start_s * sample_rate), round(stop_s * sample_rate)
        if stop <= start or high <= low:
            raise InputError(f"Region {region} is empty. Give start < stop and f_low < f_high.")
        if start < 0 or stop > n_samples or low < 0 or low >= top:
            raise InputError(f"Region {region} is not inside the audio (0–{total:g} s, 0–{top:g} Hz). Give one inside.")
        for a, b in within(gaps, start, stop):
            raise InputError(
                f"Region {region} overlaps the gap {a / sample_rate:g}–{b / sample_rate:g} s, where every frequency is "
                "filled. Give a region that ends before it or starts after it."
            )
        if stop - start > MAX_GAP_S * sample_rate:
            raise InputError(f"Region {region} lasts {stop_s - start_s:g} s; up to {MAX_GAP_S:g} s can be filled.")
        high = min(high, top)
        if high - low < MIN_WIDTH_HZ:
            raise InputError(f"Region {region} is {high - low:g} Hz high. Give one of {MIN_WIDTH_HZ:g} Hz or more.")
        if (low > 0.0 or high < top) and (stop_s - start_s) * (high - low) < MIN_CELLS:
            raise InputError(
                f"Region {region} is {(stop_s - start_s) * (high - low):.1f} s·Hz small: no sound fits into less than "
                f"{MIN_CELLS:g}. Give a longer or wider one."
            )
        boxes.append(Box(start, stop, low, np.inf if high >= top else high))
    return sorted(boxes, key=lambda box: (box.start, box.stop, box.f_low_hz, box.f_high_hz))


def group(boxes: Sequence[Box], sample_rate: int) -> list[list[Box]]:
    """Boxes in groups that are filled together: those that overlap in time.

    Raises
    ------
    InputError
        Overlapping boxes together last longer than can be filled.
    """
    groups: list[list[Box]] = []
    for box in sorted(boxes, key=lambda box: box.start):
        if groups and box.start < stretch(groups[-1])[1]:
            groups[-1].append(box)
        else:
            groups.append([box])
    for start, stop in map(stretch, groups):
        if stop - start > MAX_GAP_S * sample_rate:
            raise InputError(
                f"Regions from {start / sample_rate:g} to {stop / sample_rate:g} s overlap; together up to "
                f"{MAX_GAP_S:g} s can be filled."
            )
    return groups


def stretch(boxes: Sequence[Box]) -> Gap:
    """The samples (start, stop) that boxes reach over."""
    return min(box.start for box in boxes), max(box.stop for box in boxes)


@dataclass(frozen=True)
class Grid:
    """STFT frames of the samples from `start`, a multiple of the hop, to `stop`; frame 0 is centred on `start`.

    Windows are four hops long, so their squares add up to the same everywhere and the inverse is exact.
    """

    start: int
    stop: int
    sample_rate: int

    @property
    def hop_length(self) -> int:
        """Samples between frames."""
        return uasrm.hop_length(self.sample_rate)

    @property
    def n_fft(self) -> int:
        """Samples of a window."""
        return 4 * self.hop_length

    def forward(self, x: Array) -> torch.Tensor:
        """Bins ``(..., bins, frames)`` of samples ``(..., stop - start)``, complex128."""
        return stft(torch.from_numpy(x), self.n_fft, self.hop_length)

    def backward(self, spectrum: torch.Tensor) -> Array:
        """Samples nearest to `spectrum`; the exact inverse of `forward`."""
        return np.asarray(istft(spectrum, self.n_fft, self.hop_length, self.stop - self.start).numpy())

    def known(self, boxes: Sequence[Box]) -> Known:
        """Bins ``(bins, frames)`` that no box touches: True = observed."""
        frames = -(-(self.stop - self.start) // self.hop_length) + 1
        centre = self.start + np.arange(frames) * self.hop_length
        frequency = np.arange(self.n_fft // 2 + 1) * self.sample_rate / self.n_fft
        known = np.ones((len(frequency), frames), dtype=bool)
        for box in boxes:
            # A window's first sample has no weight, so it reaches from here to there:
            reached = (centre + self.n_fft // 2 > box.start) & (centre - self.n_fft // 2 + 1 < box.stop)
            known &= ~(reached & ((frequency >= box.f_low_hz) & (frequency <= box.f_high_hz))[:, None])
        return known


def grid_around(boxes: Sequence[Box], sample_rate: int) -> Grid:
    """The grid of a group, with two windows of room on each side; it may reach out of the recording."""
    hop = uasrm.hop_length(sample_rate)
    start, stop = stretch(boxes)
    return Grid((start // hop - 8) * hop, (-(-stop // hop) + 8) * hop, sample_rate)


def confine(edit: Array, boxes: Sequence[Box], sample_rate: int) -> Array:
    """The part of an edit ``(..., stop - start)`` of a group's stretch that lies in its boxes.

    With S the STFT and M the boxes' bins, minimises ``|M S (d - edit)|² + p |(1 - M) S d|²``, p = `PENALTY`, over edits
    d of that stretch, by conjugate gradients. An edit of all bins comes back as it is.
    """
    if all_bins(boxes, sample_rate):
        return edit
    start, stop = stretch(boxes)
    grid = grid_around(boxes, sample_rate)
    touched = torch.from_numpy(~grid.known(boxes))
    own = slice(start - grid.start, stop - grid.start)

    def concentrate(d: Array) -> Array:
        whole = np.zeros((*d.shape[:-1], grid.stop - grid.start))
        whole[..., own] = d
        return grid.backward(grid.forward(whole) * touched)[..., own]

    # T being `concentrate`, whose eigenvalues lie from 0 to 1: solve (p - (p - 1) T) d = T edit.
    wanted = concentrate(edit)
    d = np.zeros_like(wanted)
    residual = wanted.copy()
    direction = residual.copy()
    power = first = np.sum(residual**2, axis=-1, keepdims=True)
    for _ in range(_MAX_ROUNDS):
        if bool((power <= _TOLERANCE**2 * first).all()):
            break
        applied = PENALTY * direction - (PENALTY - 1.0) * concentrate(direction)
        step = power / np.maximum(np.sum(direction * applied, axis=-1, keepdims=True), 1e-300)
        d += step * direction
        residual -= step * applied
        before, power = power, np.sum(residual**2, axis=-1, keepdims=True)
        direction = residual + power / np.maximum(before, 1e-300) * direction
    return d


def leak_db(edit: Array, boxes: Sequence[Box], sample_rate: int) -> float:
    """Energy of a confined edit ``(..., stop - start)`` in bins outside its boxes over its whole energy, in dB.

    Minus infinity for an edit of nothing, or of all bins.
    """
    start, stop = stretch(boxes)
    grid = grid_around(boxes, sample_rate)
    whole = np.zeros((*edit.shape[:-1], grid.stop - grid.start))
    whole[..., start - grid.start : stop - grid.start] = edit
    power = grid.forward(whole).abs() ** 2
    outside = float(power[..., torch.from_numpy(grid.known(boxes))].sum())
    return float(10.0 * np.log10(outside / float(power.sum()))) if outside > 0.0 else -np.inf


def fill_boxes(
    source: Source,
    boxes: Sequence[Box],
    unknown: Sequence[Gap],
    fill: Callable[[Window], Fill],
    window_samples: int | None = None,
) -> Array:
    """Draws ``(draws, channels, stop - start)`` of the stretch of one group of boxes.

    Parameters
    ----------
    source
        The recording.
    boxes
        One of the lists of `group`.
    unknown
        Every damaged stretch in samples: other groups', and gaps.
    fill
        Any method for gaps: fills one channel's window.
    window_samples
        Length of the window; None: the usual one.
    """
    start, stop = own = stretch(boxes)
    draws = fill_group(source, [own], joined([*unknown, own]), fill, window_samples=window_samples).draws
    observed = finite(source.read(start, stop), boxes, source.sample_rate)
    return np.asarray(observed + confine(draws - observed, boxes, source.sample_rate))


def all_bins(boxes: Sequence[Box], sample_rate: int) -> bool:
    """Whether every box is as high as the spectrum: its stretch is a gap."""
    return all(box.f_low_hz <= 0.0 and box.f_high_hz >= sample_rate / 2 for box in boxes)


def finite(observed: Array, boxes: Sequence[Box], sample_rate: int) -> Array:
    """`observed`, if it is finite or is to be replaced as a whole anyway.

    Raises
    ------
    InputError
        Samples that are not finite have no bins that could be kept.
    """
    if np.isfinite(observed).all():
        return observed
    if all_bins(boxes, sample_rate):
        return np.where(np.isfinite(observed), observed, 0.0)
    start, stop = stretch(boxes)
    raise InputError(
        f"The region {start / sample_rate:g}–{stop / sample_rate:g} s holds samples that are not finite: no frequency "
        "of them can be kept. Repair it as a gap."
    )
