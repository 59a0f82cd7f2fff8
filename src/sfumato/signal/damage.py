"""Finding damage in a recording: runs of zeros, stuck values, non-finite samples, clicks and level dropouts."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import InputError
from sfumato.signal.clicks import find_clicks, hop_length

Audio = NDArray[np.float64]
Kind = Literal["zeros", "stuck", "nan", "click", "dropout"]

LONGEST_S = 2.0
"""Longest run of zeros or dropout called damage, in seconds; a longer silence is taken for a pause."""

HOPS = 128
LEFT_HOPS = 8

PRIORITY: tuple[Kind, ...] = ("nan", "stuck", "zeros", "dropout", "click")


@dataclass(frozen=True, order=True)
class Find:
    """One damaged stretch, half-open, in samples, over all channels."""

    start: int
    stop: int
    kind: Kind


@dataclass(frozen=True)
class Segment:
    """A stretch of audio on a grid that does not depend on how the audio came in; zeros stand outside the file.

    The core [first, last) of `audio` is what this segment answers for; the rest is context.
    """

    audio: Audio
    offset: int
    first: int
    last: int


def find_gaps(blocks: Iterable[tuple[int, Audio]], sample_rate: int, channels: int) -> list[Find]:
    """The damaged stretches of a recording, sorted, disjoint, each over all channels."""
    found: list[Find] = []
    n_samples = 0
    for segment in _segments(blocks, sample_rate, channels):
        n_samples = max(n_samples, segment.offset + segment.last)
        finite = np.isfinite(segment.audio)
        audio = np.where(finite, segment.audio, 0.0)
        local: list[tuple[int, int, Kind]] = []
        for x, good in zip(audio, finite, strict=True):
            bad = _runs(~good)
            local += [(max(a, segment.first), min(b, segment.last), "nan") for a, b in bad.tolist() if a < segment.last and b > segment.first]
            local += [(a, b, "click") for a, b in find_clicks(x, segment.first, segment.last, sample_rate)]
            local += _flat(x, segment.first, segment.last, sample_rate)
            local += [(a, b, "dropout") for a, b in _dropouts(x, segment.first, segment.last, sample_rate)]
        found += [Find(a + segment.offset, b + segment.offset, kind) for a, b, kind in local]
    return _merge(found, n_samples, sample_rate)


def _segments(blocks: Iterable[tuple[int, Audio]], sample_rate: int, channels: int) -> Iterator[Segment]:
    """Segments of the audio, holding at most about five seconds of it at a time."""
    hop = hop_length(sample_rate)
    core, left = HOPS * hop, LEFT_HOPS * hop
    right = -(-round(LONGEST_S * sample_rate) // hop) * hop + LEFT_HOPS * hop
    held = [np.zeros((channels, left))]
    offset, n_held, expected = -left, left, 0
    for start, block in blocks:
        if start != expected or block.ndim != 2 or block.shape[0] != channels:
            raise InputError(
                f"A block of shape {block.shape} at sample {start} does not follow on; "
                f"blocks of ({channels}, n) in order, from sample {expected}, are needed."
            )
        expected += block.shape[1]
        held.append(np.asarray(block, np.float64))
        n_held += block.shape[1]
        while n_held >= left + core + right:
            audio = np.concatenate(held, axis=1)
            yield Segment(audio[:, : left + core + right], offset, left, left + core)
            held = [audio[:, core:]]
            offset, n_held = offset + core, n_held - core
    while offset + left < expected:
        audio = np.concatenate(held, axis=1)
        whole = np.zeros((channels, left + core + right))
        whole[:, : audio.shape[1]] = audio[:, : whole.shape[1]]
        yield Segment(whole, offset, left, min(left + core, expected - offset))
        held = [audio[:, core:]]
        offset += core


def _runs(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(start, stop) of each run of True, shape (runs, 2)."""
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False]))
    return edges.reshape(-1, 2)


FLAT_S = 0.001
STUCK_S = 0.004
EDGE_S = 0.003
QUIET = 1e-3
DROP_DB = 26.0


def _flat(x: Audio, first: int, last: int, sample_rate: int) -> list[tuple[int, int, Kind]]:
    shortest = max(8, round(FLAT_S * sample_rate))
    runs = _runs(np.diff(x) == 0)
    runs = runs[runs[:, 1] - runs[:, 0] + 1 >= shortest]
    runs[:, 1] += 1
    out: list[tuple[int, int, Kind]] = []
    for a, b in runs.tolist():
        if b <= first or a >= last:
            continue
        value = abs(x[a])
        if value < QUIET:
            if first <= a < last and b - a <= LONGEST_S * sample_rate and b < len(x) and is_cut(x, a, b, sample_rate):
                out.append((a, b, "zeros" if value == 0 else "stuck"))
        elif b - a >= STUCK_S * sample_rate:
            out.append((max(a, first), min(b, last), "stuck"))
    return out


def edges(x: Audio, a: int, b: int, sample_rate: int) -> tuple[float, ...]:
    """Evidence on the two edges of a gap."""
    out = []
    for y in (x[max(0, a - round(0.05 * sample_rate)) : a], x[b : b + round(0.05 * sample_rate)][::-1]):
        w = round(EDGE_S * sample_rate)
        near = float(np.sqrt(np.mean(y[-w:] ** 2))) if y.size else 0.0
        far = float(np.sqrt(np.mean(y**2))) if y.size else 0.0
        tip = float(np.max(np.abs(y[-max(4, w // 6) :]))) if y.size else 0.0
        out += [near, far, tip]
    return tuple(out)


def is_cut(x: Audio, a: int, b: int, sample_rate: int) -> bool:
    l_near, l_far, l_tip, r_near, r_far, r_tip = edges(x, a, b, sample_rate)
    return min(l_near, r_near) > QUIET and l_near > 0.1 * l_far and r_near > 0.1 * r_far


def _dropouts(x: Audio, first: int, last: int, sample_rate: int) -> list[tuple[int, int]]:
    w = round(EDGE_S * sample_rate)
    energy = np.concatenate([[0.0], np.cumsum(x * x)])
    fall = 10 ** (-DROP_DB / 10)
    floor = w * QUIET**2
    # Window sums start[n] = energy of [n, n + w).
    sums = np.maximum(energy[w:] - energy[:-w], w * 1e-10)
    before, after = sums[first - w : last - w], sums[first:last]
    falls = _runs((after < fall * before) & (before > floor))
    out = []
    done = 0
    for lo, hi in falls.tolist():
        a = first + lo + int(np.argmin(after[lo:hi] / before[lo:hi]))
        if a < done:
            continue
        reference = float(sums[a - w])
        ahead = sums[a : a + round(LONGEST_S * sample_rate)]
        back = np.flatnonzero(ahead > reference * 10 ** (-2.0))
        if not back.size:
            continue
        n = a + int(back[0])
        span = np.arange(n, min(n + 2 * w, len(sums) - 1))
        rise = sums[span] / sums[span - w]
        k = int(np.argmax(rise))
        b = n + k
        if rise[k] * fall < 1 or b - a < w:
            continue
        out.append((a, b))
        done = b
    return out


def _merge(found: list[Find], n_samples: int, sample_rate: int) -> list[Find]:
    merged: list[Find] = []
    for find in sorted(found):
        start, stop = max(0, find.start), min(n_samples, find.stop)
        if stop <= start:
            continue
        if merged and start <= merged[-1].stop:
            last = merged[-1]
            kind = min(last.kind, find.kind, key=PRIORITY.index)
            merged[-1] = Find(last.start, max(last.stop, stop), kind)
        else:
            merged.append(Find(start, stop, find.kind))
    return merged
