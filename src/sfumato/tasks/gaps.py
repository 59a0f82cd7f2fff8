"""What is to be filled: gaps and regions as given, checked, or damage as found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import InputError
from sfumato.signal.damage import find_gaps
from sfumato.tasks.regions import Box, check, group, stretch
from sfumato.tasks.windows import MAX_GAP_S, Gap, Source, joined

Array = NDArray[np.float64]

GIVEN = "given"
"""Kind of a gap that the user gave; the others were found."""


@dataclass(frozen=True)
class Skipped:
    """A stretch that was found damaged and left alone, and why."""

    start: int
    stop: int
    kind: str
    reason: str


@dataclass(frozen=True)
class Wanted:
    """What is to be filled of one recording, in samples."""

    gaps: list[Gap]
    kinds: list[str]
    """Of the gaps."""
    skipped: list[Skipped]
    regions: list[list[Box]]
    """Groups of regions that are filled together."""

    @property
    def elsewhere(self) -> list[Gap]:
        """Stretches beside the gaps that nothing is learned from."""
        return joined([*((s.start, s.stop) for s in self.skipped), *map(stretch, self.regions)])


def wanted_of(
    source: Source,
    gaps: Sequence[tuple[float, float]] | None,
    regions: Sequence[tuple[float, float, float, float]],
    blocks: Iterator[tuple[int, Array]],
) -> Wanted:
    """Given gaps and regions, checked; damage is looked for where neither is given."""
    if gaps is None and not regions:
        return Wanted(*find(source, blocks), [])
    rate, n = source.sample_rate, source.n_samples
    checked = check_gaps(gaps or (), rate, n)
    return Wanted(checked, [GIVEN] * len(checked), [], group(check(regions, rate, n, checked), rate))


def check_gaps(gaps: Sequence[tuple[float, float]], sample_rate: int, n_samples: int) -> list[Gap]:
    """Gaps in samples, sorted and merged, from half-open gaps in seconds.

    Raises
    ------
    InputError
        A gap is not a number, reversed, empty, outside the audio, or longer than can be filled.
    """
    total = n_samples / sample_rate
    out: list[Gap] = []
    for pair in gaps:
        try:
            start_s, stop_s = (float(value) for value in pair)
        except (TypeError, ValueError):
            raise InputError(f"Gap {pair} is not a pair of numbers. Give (start, stop) in seconds.") from None
        name = f"Gap {start_s:g}–{stop_s:g} s"
        if not (np.isfinite(start_s * sample_rate) and np.isfinite(stop_s * sample_rate)):
            raise InputError(f"{name} is not a pair of numbers. Give start:stop in seconds.")
        start, stop = round(start_s * sample_rate), round(stop_s * sample_rate)
        if stop_s <= start_s or stop <= start:
            raise InputError(f"{name} ends before it starts or holds no sample. Give start:stop with start < stop.")
        if start < 0 or stop > n_samples:
            raise InputError(f"{name} is not inside the audio (0–{total:g} s). Give a gap inside it.")
        out.append((start, stop))
    merged = joined(out)
    for start, stop in merged:
        if (reason := _unfillable(start, stop, sample_rate)) is not None:
            raise InputError(reason)
    return merged


def _unfillable(start: int, stop: int, sample_rate: int) -> str | None:
    """Why a gap can't be filled, or None."""
    if stop - start > MAX_GAP_S * sample_rate:
        return (
            f"Gap {start / sample_rate:g}–{stop / sample_rate:g} s lasts {(stop - start) / sample_rate:g} s; "
            f"up to {MAX_GAP_S:g} s can be filled."
        )
    return None


def find(source: Source, blocks: Iterator[tuple[int, Array]]) -> tuple[list[Gap], list[str], list[Skipped]]:
    """Damaged stretches of a recording: gaps that can be filled, their kinds, and what must be left alone."""
    gaps: list[Gap] = []
    kinds: list[str] = []
    skipped: list[Skipped] = []
    for found in find_gaps(blocks, source.sample_rate, source.channels):
        reason = _unfillable(found.start, found.stop, source.sample_rate)
        if reason is None:
            gaps.append((found.start, found.stop))
            kinds.append(found.kind)
        else:
            skipped.append(Skipped(found.start, found.stop, found.kind, reason))
    return gaps, kinds, skipped


REACH_S = 2.2
"""Sound beyond a stretch, on either side, that finding damage in it needs: the longest dropout, and its edges."""

OVERHANG_S = 0.003
"""How far a find may reach beyond a given gap and still be the gap's own damage: as exactly as edges are found."""


def beside(source: Source, gap: Gap, stretch: Gap, fill: Array) -> list[Gap]:
    """Damage that reaches into a stretch around a gap and isn't the gap's own, without what lies in the gap.

    Parameters
    ----------
    source, gap, stretch
        The recording; a gap of it, and where other damage matters, in samples.
    fill
        ``(channels, samples)`` for the gap. The recording is searched both as it is and with the fill, since what a gap
        holds can hide what is next to it.
    """
    rate, overhang = source.sample_rate, round(OVERHANG_S * source.sample_rate)
    start = max(stretch[0] - round(REACH_S * rate), 0)
    audio = source.read(start, min(stretch[1] + round(REACH_S * rate), source.n_samples))
    filled = audio.copy()
    filled[:, gap[0] - start : gap[1] - start] = fill
    found = [(a + start, b + start) for x in (audio, filled) for a, b in _searched(x, rate)]
    out: list[Gap] = []
    for a, b in found:
        for low, high in ((a, min(b, gap[0])), (max(a, gap[1]), b)):
            own = overhang if a < gap[1] and gap[0] < b else 0
            if high - low > own and low < stretch[1] and high > stretch[0]:
                out.append((low, high))
    return joined(out)


def _searched(audio: Array, sample_rate: int) -> list[Gap]:
    """Damage in ``(channels, samples)``."""
    found = find_gaps([(0, audio)], sample_rate, len(audio))
    return [(find.start, find.stop) for find in found]
