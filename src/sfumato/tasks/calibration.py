"""Making calibration records: from clips whose truth is known to the scale of an interval or of a predicted quality.

The unit is the clip, one gap in one recording of one work; every record names its recordings with their hashes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import CalibrationError
from sfumato.interval import calibrate, conformal, family, groups
from sfumato.interval.record import Calibration, Group
from sfumato.tasks.looks import Raw

Array = NDArray[np.float64]

QUALITY = "band_distance_db"


@dataclass(frozen=True)
class Measured:
    """One clip: what was seen of one gap, and what was true."""

    recording: str
    sha256: str
    sample_rate: int
    gap_s: float
    seen: Mapping[str, Raw]
    """Raw intervals, by name of what bounds: the shipped bounds go by their domain."""
    truth: Mapping[str, Array]
    """What they bound, by domain."""
    distance_db: Mapping[str, float]
    """Band distance of the fill by each method."""
    predicted_db: Mapping[str, float]
    """What was expected of it."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Hashes of the models it was measured with: "bounds" and "fills"."""
    work: str = ""
    """Piece that the recording is a performance of; empty where it isn't known."""


def calibrate_interval(
    clips: Sequence[Measured],
    name: str,
    axes: Sequence[groups.Axis],
    *,
    level: float,
    kind: calibrate.Kind,
    delta: float | None,
    model: str,
    seed: int = 0,
) -> Calibration:
    """The record that scales one raw interval about its point, each group of cells by its own factor.

    Parameters
    ----------
    clips
        One of each recording and range of gap lengths; those without the interval `name` are passed over.
    name
        Of the interval in `Measured.seen`.
    axes
        What groups are cut by; combinations with too few clips are left out, and refused in use.
    level
        Share of cells inside.
    kind, delta
        The promise: see `interval.calibrate`.
    model
        Hash of the bounds model, which the clips must have been measured with.

    Raises
    ------
    CalibrationError
        No group has clips enough; says how many are needed.
    """
    own = [clip for clip in clips if name in clip.seen]
    if not own:
        raise CalibrationError(f"None of {len(clips)} clips has the interval {name}.")
    _check_single(own, axes[0])
    scales = np.geomspace(0.02, 50.0, 800)
    places = [_places(clip.seen[name], axes) for clip in own]
    scores = [family.scores(clip.seen[name].interval, clip.truth[clip.seen[name].domain]) for clip in own]
    found, refusal = [], None
    for joined in _joined(places, axes):
        numbers = [np.ravel_multi_index(ranges, _shape(axes)) for ranges in joined]
        rows = [score[np.isin(place, numbers)] for score, place in zip(scores, places, strict=True)]
        rows = [row for row in rows if len(row)]
        table, weights = np.zeros((2, len(rows), max(len(row) for row in rows)))
        for i, row in enumerate(rows):
            table[i, : len(row)], weights[i, : len(row)] = row, 1.0
        try:
            index = calibrate.choose(family.losses(table, scales, weights), 1.0 - level, delta, kind, seed)
        except CalibrationError as error:
            refusal = error
            continue
        found += [Group(ranges=ranges, value=float(scales[index]), n_clips=len(rows)) for ranges in joined]
    if not found:
        raise refusal or CalibrationError(f"No cell of the interval {name} lies on the axes.")
    return Calibration(
        domain=own[0].seen[name].domain,
        kind=kind,
        level=level,
        delta=None if kind == "crc" else delta,
        family="scale",
        axes=tuple(axes),
        groups=tuple(found),
        seed=seed,
        model=model,
        **_common(own, axes[0], found),
    )


def calibrate_quality(
    clips: Sequence[Measured],
    method: str,
    axis: groups.Axis,
    *,
    level: float,
    model: str,
    made_with: Mapping[str, str | int | float],
    seed: int = 0,
) -> Calibration:
    """The record that turns a predicted band distance into a bound on it, for each range of gap lengths.

    Parameters
    ----------
    clips, level, model
        As in `calibrate_interval`.
    method
        Name in `Measured.distance_db`; clips that lack it are passed over.
    axis
        Ranges of gap lengths; one with too few clips is left out.
    made_with
        Settings of the fills.
    """
    found, refusal = [], None
    clips = [clip for clip in clips if method in clip.distance_db]
    _check_single(clips, axis)
    for i in range(len(axis.edges) - 1):
        own = [clip for clip in clips if groups.place(axis, clip.gap_s) == i]
        true, predicted = ([getattr(clip, what)[method] for clip in own] for what in ("distance_db", "predicted_db"))
        if not own:
            continue
        try:
            value = conformal.quantile(conformal.quality_scores(true, predicted, "ratio"), 1.0 - level)
        except CalibrationError as error:
            refusal = error
            continue
        found.append(Group(ranges=(i,), value=value, n_clips=len(own)))
    if not found:
        raise refusal or CalibrationError(f"No fill by {method} was measured on these gap lengths.")
    return Calibration(
        domain=QUALITY,
        made_with=dict(made_with),
        kind="conformal",
        level=level,
        family="ratio",
        axes=(axis,),
        groups=tuple(found),
        seed=seed,
        model=model,
        **_common(clips, axis, found),
    )


def _shape(axes: Sequence[groups.Axis]) -> tuple[int, ...]:
    return tuple(len(axis.edges) - 1 for axis in axes)


def _places(raw: Raw, axes: Sequence[groups.Axis]) -> NDArray[np.intp]:
    """Number of each cell's group, -1 for cells that no promise is about."""
    at = [np.broadcast_to(groups.place(axis, raw.where[axis.name]), raw.counts.shape) for axis in axes]
    return np.where(raw.counts, np.ravel_multi_index(at, _shape(axes)), -1)


def _joined(places: Sequence[NDArray[np.intp]], axes: Sequence[groups.Axis]) -> list[list[tuple[int, ...]]]:
    """Groups to calibrate, as lists of ranges: alone, or all ranges of the last axis together.

    They are joined where one of them has cells in fewer than nine tenths of the clips that another has: counts decide,
    not losses. The centre of a gap is such a range, where only the longer gaps have one.
    """
    shape, found = _shape(axes), []
    for head in np.ndindex(*shape[:-1]):
        counts = [
            sum(bool((place == np.ravel_multi_index((*head, last), shape)).any()) for place in places)
            for last in range(shape[-1])
        ]
        present = [(*head, last) for last in range(shape[-1]) if counts[last]]
        if len(present) > 1 and min(count for count in counts if count) < 0.9 * max(counts):
            found.append(present)
        else:
            found += [[ranges] for ranges in present]
    return found


def _check_single(clips: Sequence[Measured], axis: groups.Axis) -> None:
    """Refuse two clips of one recording, or one work, in one range of gap lengths: they aren't independent."""
    for one, of in (("recording", "sha256"), ("work", "work")):
        seen = [(name, int(groups.place(axis, clip.gap_s))) for clip in clips if (name := getattr(clip, of))]
        if len(set(seen)) < len(seen):
            raise CalibrationError(f"A {one} gives two clips to one range of gap lengths. Give one of each.")


def _common(clips: Sequence[Measured], gaps: groups.Axis, found: Sequence[Group]) -> dict[str, Any]:
    """What every record says of its clips; gap lengths are those of the calibrated ranges."""
    recordings = {clip.recording: clip.sha256 for clip in clips}
    rates, ranges = [clip.sample_rate for clip in clips], [group.ranges[0] for group in found]
    return {
        "precision": "float32",
        "sample_rate_min": min(rates),
        "sample_rate_max": max(rates),
        "gap_min_s": gaps.edges[min(ranges)],
        "gap_max_s": gaps.edges[max(ranges) + 1],
        "n_clips": len(recordings),
        "recordings": recordings,
    }
