"""Finding damage in a recording: runs of zeros, stuck values, non-finite samples, clicks and level dropouts."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import InputError
from sfumato.signal.clicks import ORDER, find_clicks, hop_length, predict

Audio = NDArray[np.float64]
Kind = Literal["zeros", "stuck", "nan", "click", "dropout"]

LONGEST_S = 2.0
"""Longest run of zeros or dropout called damage, in seconds; a longer silence is taken for a pause."""

ZEROS_S, STUCK_S, CLIPPED_S, DROPOUT_S = 0.001, 0.004, 0.020, 0.007
"""Shortest run of zeros, of a stuck value, of a stuck value that is the extreme of its surroundings (a shorter one
is clipping or a square wave), and shortest dropout, in seconds."""

MARGIN_S: dict[Kind, float] = {"zeros": 0.00025, "stuck": 0.00025, "nan": 0.00025, "click": 0.0, "dropout": 0.001}
"""What a find covers beyond the evidence, on either side, in seconds (`clicks` lays its own margin of 0.5 ms)."""

JOIN_S = 0.002
"""Finds closer than this are one, in seconds."""

FILE_EDGE_S = 0.005
"""No click is looked for this near to the start or the end of the recording, in seconds."""

QUIET = 1e-3
"""RMS level (full scale 1) below which there is no music to be damaged."""

DROP_DB = 26.0
"""A dropout falls and rises at least this much within `EDGE_S`, and stays 20 dB below the level before it."""

EDGE_S = 0.003

LOUD = 0.06
"""Samples above this fraction of the music's RMS are outside the dropout beside it."""

TIP_DB, JUMP = -8.0, 3.7
"""An edge is abrupt if the half millisecond at it peaks above this level relative to the RMS of 40 ms, or if the
prediction from the music side fails there by this many of its deviations: a gate or a release ends more softly."""

PRIORITY: tuple[Kind, ...] = ("nan", "stuck", "zeros", "dropout", "click")
"""Which kind names a stretch that several finds share."""

_HOPS, _LEFT_HOPS = 128, 8


@dataclass(frozen=True, order=True)
class Find:
    """One damaged stretch, half-open, in samples, over all channels."""

    start: int
    stop: int
    kind: Kind


@dataclass(frozen=True)
class _Segment:
    """A stretch of audio on a grid that does not depend on how the audio came in; zeros stand outside the file.

    The core [first, last) of `audio` is what this segment answers for; the rest is context.
    """

    audio: Audio
    offset: int
    first: int
    last: int


def find_gaps(blocks: Iterable[tuple[int, Audio]], sample_rate: int, channels: int) -> list[Find]:
    """The damaged stretches of a recording, sorted and disjoint; damage in any channel counts for all.

    Holds about six seconds of audio, however long the recording; the size of the blocks never changes the result.

    - "nan": samples that are not finite.
    - "zeros": exact zeros for 1 ms to 2 s between two abrupt edges of audible music. Fades into digital silence and
      silence at the start or the end of the file are music.
    - "stuck": one value held for 4 ms or longer after audible music (20 ms if it is a flat top, as clipping makes).
    - "dropout": the level falls by 26 dB within 3 ms and returns so within 2 s, both edges abrupt at sample scale.
    - "click": see `sfumato.signal.clicks`.

    Parameters
    ----------
    blocks
        (start, audio of shape (channels, n)) pairs in order and without holes, start in samples, full scale 1.
    sample_rate
        In Hz.
    channels
        Of every block.

    Raises
    ------
    InputError
        If a block has another number of channels or does not follow on.
    """
    found: list[Find] = []
    n_samples = 0
    stuck = [False] * channels
    for segment in _segments(blocks, sample_rate, channels):
        first, last = segment.first, segment.last
        n_samples = segment.offset + last
        for i, channel in enumerate(segment.audio):
            finite = np.isfinite(channel)
            x = channel if finite.all() else _bridge(channel, finite)
            local: list[tuple[int, int, Kind]] = [
                (a, b, "nan") for a, b in (_runs(~finite[first:last]) + first).tolist()
            ]
            local += [(a, b, "click") for a, b in find_clicks(x, first, last, sample_rate)]
            local += [(a, b, "dropout") for a, b in _dropouts(x, first, last, sample_rate)]
            flat = _flat_runs(x, sample_rate)
            local += _zeros(x, flat, first, last, sample_rate)
            held, stuck[i] = _stuck(x, flat, first, last, sample_rate, stuck[i])
            local += held
            for a, b, kind in local:
                margin = round(MARGIN_S[kind] * sample_rate)
                found.append(Find(segment.offset + a - margin, segment.offset + b + margin, kind))
    # Where a file begins or ends in mid-sound, its own edge is an outlier with silence beside it.
    edge = round(FILE_EDGE_S * sample_rate)
    inner = [f for f in found if f.kind != "click" or edge <= f.start < f.stop <= n_samples - edge]
    return _merge(inner, n_samples, round(JOIN_S * sample_rate))


def _segments(blocks: Iterable[tuple[int, Audio]], sample_rate: int, channels: int) -> Iterator[_Segment]:
    hop = hop_length(sample_rate)
    core, left = _HOPS * hop, _LEFT_HOPS * hop
    right = -(-round(LONGEST_S * sample_rate) // hop) * hop + _LEFT_HOPS * hop
    window = np.zeros((channels, left + core + right))
    filled, offset, n_samples = left, -left, 0
    for start, block in blocks:
        if start != n_samples or block.ndim != 2 or block.shape[0] != channels:
            raise InputError(
                f"A block of shape {block.shape} at sample {start} does not follow on: "
                f"({channels}, n) at sample {n_samples} is needed."
            )
        n_samples += block.shape[1]
        taken = 0
        while taken < block.shape[1]:
            n = min(block.shape[1] - taken, window.shape[1] - filled)
            window[:, filled : filled + n] = block[:, taken : taken + n]
            filled, taken = filled + n, taken + n
            if filled == window.shape[1]:
                yield _Segment(window, offset, left, left + core)
                window = np.concatenate([window[:, core:], np.zeros((channels, core))], axis=1)
                filled, offset = filled - core, offset + core
    while offset + left < n_samples:
        yield _Segment(window, offset, left, min(left + core, n_samples - offset))
        window = np.concatenate([window[:, core:], np.zeros((channels, core))], axis=1)
        offset += core


def _bridge(x: Audio, finite: NDArray[np.bool_]) -> Audio:
    """The signal with straight lines over what is not finite, so that the other detectors can read on."""
    if not finite.any():
        return np.zeros_like(x)
    index = np.arange(len(x))
    return np.where(finite, x, np.interp(index, index[finite], x[finite]))


def _runs(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(start, stop) of each run of True, shape (runs, 2)."""
    return np.flatnonzero(np.diff(np.r_[False, flags, False])).reshape(-1, 2)


def _flat_runs(x: Audio, sample_rate: int) -> NDArray[np.int64]:
    """(start, stop) of each stretch of equal samples as long as the shortest run of zeros."""
    runs = _runs(x[1:] == x[:-1])
    runs[:, 1] += 1
    return runs[runs[:, 1] - runs[:, 0] >= max(8, round(ZEROS_S * sample_rate))]


def _zeros(x: Audio, flat: NDArray[np.int64], first: int, last: int, sample_rate: int) -> list[tuple[int, int, Kind]]:
    """Runs of zeros, or of a value too small to tell from them, that start in the core."""
    return [
        (a, b, "stuck" if x[a] else "zeros")
        for a, b in flat.tolist()
        if abs(x[a]) < QUIET
        and first <= a < last
        and b - a <= LONGEST_S * sample_rate
        and _is_abrupt(x[:a], x[a:], sample_rate)
        and _is_abrupt(x[b:][::-1], x[:b][::-1], sample_rate)
    ]


def _stuck(
    x: Audio, flat: NDArray[np.int64], first: int, last: int, sample_rate: int, held: bool
) -> tuple[list[tuple[int, int, Kind]], bool]:
    """The parts inside the core of runs of a stuck value, and whether one goes on beyond; `held` is the same of
    the segment before.
    """
    before, around = round(0.005 * sample_rate), round(0.05 * sample_rate)
    out: list[tuple[int, int, Kind]] = []
    goes_on = False
    for a, b in flat.tolist():
        if b <= first or a >= last or abs(x[a]) < QUIET:
            continue
        if a < first:
            stuck = held
        else:
            extreme = abs(x[a]) >= 0.98 * float(np.max(np.abs(x[max(0, a - around) : b + around])))
            shortest = CLIPPED_S if extreme else STUCK_S
            near, far = float(np.std(x[max(0, a - before) : a + 1])), float(np.std(x[max(0, a - around) : a + 1]))
            stuck = b - a >= shortest * sample_rate and near > max(QUIET, 0.2 * far)
        if stuck:
            out.append((max(a, first), min(b, last), "stuck"))
            goes_on = goes_on or b > last
    return out, goes_on


def _dropouts(x: Audio, first: int, last: int, sample_rate: int) -> list[tuple[int, int]]:
    """Stretches between an abrupt fall of the level, in the core, and an abrupt return."""
    w = round(EDGE_S * sample_rate)
    n = last - first
    energy = _energies(x[first - w : last + w], w)
    before, ratio = energy[:n], energy[w : w + n] / energy[:n]
    fall = 10 ** (-DROP_DB / 10)
    falls = _runs((ratio < fall) & (before > w * QUIET**2))
    out = []
    done = 0
    for lo, hi in falls.tolist():
        a = first + lo + int(np.argmin(ratio[lo:hi]))
        if a < done:
            continue
        origin = a - w
        energy = _energies(x[origin : a + round(LONGEST_S * sample_rate) + 3 * w], w)
        back = np.flatnonzero(energy[w : len(energy) - 2 * w] > 0.01 * energy[0])
        if not back.size:
            continue
        span = np.arange(w + int(back[0]), w + int(back[0]) + 2 * w)
        rise = energy[span] / energy[span - w]
        rear = int(span[np.argmax(rise)])
        b = origin + rear
        a = _last_loud(x, a, math.sqrt(float(energy[0]) / w), w)
        b = len(x) - _last_loud(x[::-1], len(x) - b, math.sqrt(float(energy[rear]) / w), w)
        if (
            float(rise.max()) * fall > 1
            and b - a >= DROPOUT_S * sample_rate
            and _is_abrupt(x[:a], x[a:], sample_rate)
            and _is_abrupt(x[b:][::-1], x[:b][::-1], sample_rate)
        ):
            out.append((a, b))
            done = b
    return out


def _energies(x: Audio, w: int) -> Audio:
    """Energy of each window of w samples, never below -100 dBFS."""
    power = np.cumsum(np.r_[0.0, x * x])
    return np.asarray(np.maximum(power[w:] - power[:-w], w * 1e-10))


def _last_loud(x: Audio, near: int, level: float, reach: int) -> int:
    """The end of the music before a gap that begins near a sample: the last above `LOUD` times its level, plus one."""
    lo = max(0, near - reach)
    loud = np.flatnonzero(np.abs(x[lo : near + reach // 2]) > LOUD * level)
    return lo + int(loud[-1]) + 1 if loud.size else near


def _is_abrupt(music: Audio, gap: Audio, sample_rate: int) -> bool:
    """Whether audible music stops suddenly where the gap begins; both run towards the edge and on from it."""
    far = music[-max(4 * ORDER, round(0.04 * sample_rate)) :]
    level = float(np.sqrt(np.mean(far**2))) if far.size else 0.0
    near = far[-round(EDGE_S * sample_rate) :]
    if level < QUIET or float(np.sqrt(np.mean(near**2))) < QUIET:
        return False
    tip = far[-max(4, round(0.0005 * sample_rate)) :]
    if float(np.max(np.abs(tip))) > level * 10 ** (TIP_DB / 20):
        return True
    behind, beyond = round(0.001 * sample_rate), round(0.0005 * sample_rate)
    error = predict(np.r_[far, gap[:beyond]], len(far) - behind)[1]
    return bool(np.max(np.abs(error[len(far) - behind :])) > JUMP)


def _merge(found: list[Find], n_samples: int, join: int) -> list[Find]:
    merged: list[Find] = []
    for find in sorted(found):
        start, stop = max(0, find.start), min(n_samples, find.stop)
        if stop <= start:
            continue
        if merged and start <= merged[-1].stop + join:
            last = merged[-1]
            merged[-1] = Find(last.start, max(last.stop, stop), min(last.kind, find.kind, key=PRIORITY.index))
        else:
            merged.append(Find(start, stop, find.kind))
    return merged
