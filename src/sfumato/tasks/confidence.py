"""How sure a fill is: calibrated bounds on the levels inside the gap, and on the quality of this very fill.

Two promises, both tested on recordings nobody tuned on (docs/confidence.md):

- **Interval.** Of the true levels of 64 bands every 11.6 ms inside the gap, at least the share `level` lies between
  `lower` and `upper`, on average over clips. The bounds come from N-Conffusion in one pass, scaled about their point by
  risk-controlling calibration whose unit is the clip.
- **Quality.** The band distance between this fill and the truth is at most `upper` dB with chance `level`: a conformal
  bound on its ratio to a prediction made from the interval's widths and the fill's own levels.

A promise that the calibration doesn't cover is refused with a `CalibrationError` that says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sfumato.config import load_yaml
from sfumato.errors import CalibrationError, ModelError
from sfumato.interval import calibrate, conformal, family, groups
from sfumato.interval.record import Calibration, Group, check, values_at
from sfumato.model import Model, digest, load, shipped_folder
from sfumato.signal import gap_levels
from sfumato.signal.levels import Grid, band_edges
from sfumato.systems import n_conffusion
from sfumato.tasks.windows import Filled, Gap, Source

if TYPE_CHECKING:
    from sfumato.tasks.repair import Settings

Array = NDArray[np.float64]

INTERVAL, QUALITY = "band_level_db", "band_distance_db"
PRECISION = "float32"

FLOOR_DB = 70.0
"""Levels are floored this far below the loudest known one, as in the band distance."""

CLEAR_S = 0.5
"""Undamaged sound that a gap needs on both sides; calibration clips have more."""

_NORMAL_90 = 2 * 1.6449


@dataclass(frozen=True)
class Look:
    """What the bounds model makes of one fill, before calibration; all levels in dB, ``(bands, frames)``."""

    raw: family.Interval
    counts: NDArray[np.bool_]
    """Cells that a promise is about: bands that are heard around the gap."""
    filled_db: Array
    """Levels of the fill."""
    time_s: Array
    """Centres of the frames, ``(frames,)``, seconds of the recording."""
    edges_hz: Array
    """Edges of the bands, ``(bands + 1,)``."""
    floor_db: float
    gap_s: float

    @property
    def frequency_hz(self) -> Array:
        """Centres of the bands, ``(bands,)``."""
        return np.asarray(0.5 * (self.edges_hz[:-1] + self.edges_hz[1:]))

    @property
    def predicted_db(self) -> float:
        """Band distance to be expected of the fill: its departure from the point, and the width of the bounds."""
        spread = (self.raw.upper - self.raw.lower) / _NORMAL_90
        squares = (self.filled_db - self.raw.point) ** 2 + spread**2
        return float(np.sqrt(squares[self.counts].mean())) if self.counts.any() else float("nan")


@dataclass(frozen=True)
class Bounded:
    """A calibrated interval."""

    domain: str
    level: float
    lower: Array
    """dB, ``(bands, frames)``, as are `point` and `upper`; NaN where the promise is about nothing."""
    point: Array
    upper: Array
    time_s: Array
    edges_hz: Array


@dataclass(frozen=True)
class Quality:
    """A calibrated bound on the quality of a fill."""

    metric: str
    upper: float
    level: float


def look(source: Source, gap: Gap, unknown: Sequence[Gap], filled: Filled, model: Model) -> Look:
    """One pass of the bounds model over one gap and its fill.

    Parameters
    ----------
    source
        The recording; channels are averaged to mono.
    gap
        Filled on its own, in samples.
    unknown
        Every damaged stretch.
    filled
        With its source.
    model
        Of the system n_conffusion.

    Raises
    ------
    CalibrationError
        The gap is of a sort that no calibration clip is: not alone in its window, or close to an end.
    """
    if not isinstance(model.config, n_conffusion.Config) or filled.source is None:
        raise ModelError(f"{model.name} gives no bounds. Give a model of the system n_conffusion.")
    mono, known, start = _window(source, gap, unknown)
    own = np.zeros(len(mono), dtype=bool)
    own[gap[0] - start : gap[1] - start] = True
    mean, draw, pasted = (mono.copy() for _ in range(3))
    for signal, samples in ((mean, filled.source[0]), (draw, filled.source[1]), (pasted, filled.draws[0])):
        signal[own] = samples.mean(axis=0)
    grid = Grid(len(mono), source.sample_rate)
    levels = grid.levels(mean)
    frames = gap_levels.frames_of(known, np.ones_like(known), own, grid)
    view = gap_levels.picture(levels, grid.levels(draw), *frames)
    (bounds,) = n_conffusion.bound_levels(model.network, model.config, [view])
    heard, touched = frames
    floor_db = float(levels[:, heard].max()) - FLOOR_DB
    parts = (np.maximum(part[:, touched], floor_db) for part in (bounds.lower_db, bounds.point_db, bounds.upper_db))
    edges_hz = np.minimum(band_edges() * source.sample_rate / grid.n_fft, source.sample_rate / 2)
    counts = (levels[:, heard].mean(axis=1) > floor_db) & (np.diff(edges_hz) > 0)
    return Look(
        family.from_bounds(*parts),
        np.broadcast_to(counts[:, None], (len(counts), int(touched.sum()))),
        np.maximum(grid.levels(pasted)[:, touched], floor_db),
        (start + np.flatnonzero(touched) * grid.hop_length) / source.sample_rate,
        edges_hz,
        floor_db,
        (gap[1] - gap[0]) / source.sample_rate,
    )


def true_levels(clean: Source, gap: Gap, seen: Look) -> Array:
    """The levels that `seen.raw` bounds, from the undamaged recording."""
    mono, known, start = _window(clean, gap, [gap])
    own = np.zeros(len(mono), dtype=bool)
    own[gap[0] - start : gap[1] - start] = True
    grid = Grid(len(mono), clean.sample_rate)
    touched = gap_levels.frames_of(known, np.ones_like(known), own, grid)[1]
    return np.maximum(grid.levels(mono)[:, touched], seen.floor_db)


def _window(source: Source, gap: Gap, unknown: Sequence[Gap]) -> tuple[Array, NDArray[np.bool_], int]:
    """Mono window around a gap, its known samples, and its first sample; CalibrationError if it isn't clear."""
    rate, n = source.sample_rate, gap_levels.window_samples(source.sample_rate)
    name = f"Gap {gap[0] / rate:g}–{gap[1] / rate:g} s"
    start = (gap[0] + gap[1]) // 2 - n // 2
    if gap[0] < CLEAR_S * rate or gap[1] > source.n_samples - CLEAR_S * rate:
        raise CalibrationError(
            f"{name} lies within {CLEAR_S:g} s of an end of the recording; calibrated were gaps with sound around them."
        )
    if any(a < start + n and b > start and (a, b) != tuple(gap) for a, b in unknown):
        raise CalibrationError(
            f"{name} has other damage within {n / rate / 2:.1f} s; calibrated were gaps that stand alone."
        )
    lo, hi = max(start, 0), min(start + n, source.n_samples)
    mono = np.zeros(n)
    mono[lo - start : hi - start] = np.nan_to_num(source.read(lo, hi), posinf=0.0, neginf=0.0).mean(axis=0)
    known = np.zeros(n, dtype=bool)
    known[lo - start : hi - start] = True
    known[gap[0] - start : gap[1] - start] = False
    return mono, known, start


@dataclass(frozen=True)
class Promises:
    """Model and calibrations behind the promises of one level."""

    level: float
    bounds: Model
    interval: Calibration
    quality: Calibration | None
    """None where the method of filling was not calibrated."""
    reason: str = ""
    """Why there is none."""
    bounds_sha256: str = ""
    """Hash of the bounds model."""

    def of(
        self, source: Source, gap: Gap, unknown: Sequence[Gap], filled: Filled, settings: Settings
    ) -> tuple[Bounded, Quality | None]:
        """Interval of one gap and the bound on its fill's quality; CalibrationError where neither can be promised."""
        rate = source.sample_rate
        seen = look(source, gap, unknown, filled, self.bounds)
        use: dict[str, Any] = {"model": self.bounds_sha256, "sample_rate": rate, "precision": PRECISION}
        check(self.interval, domain=INTERVAL, gap_s=seen.gap_s, **use)
        scale = values_at(self.interval, {"gap_s": seen.gap_s, "frequency_hz": seen.frequency_hz})
        bounded = widened(seen, scale, self.level)
        if self.quality is None:
            return bounded, None
        check(self.quality, domain=QUALITY, gap_s=seen.gap_s, made_with=made_with(settings), **use)
        ratio = float(values_at(self.quality, {"gap_s": seen.gap_s}))
        return bounded, Quality(QUALITY, ratio * seen.predicted_db, self.level)


def widened(seen: Look, scale: Array, level: float) -> Bounded:
    """The raw interval of each band scaled by its own value."""
    rows = [
        family.widen(family.Interval(seen.raw.lower[i], seen.raw.point[i], seen.raw.upper[i]), float(value))
        for i, value in enumerate(scale)
    ]
    lower, point, upper = (
        np.where(seen.counts, np.maximum([getattr(row, name) for row in rows], seen.floor_db), np.nan)
        for name in ("lower", "point", "upper")
    )
    return Bounded(INTERVAL, level, lower, point, upper, seen.time_s, seen.edges_hz)


def made_with(settings: Settings) -> dict[str, str | int | float]:
    """Settings that the quality of a fill depends on; seed and number of draws are none of them."""
    kept: dict[str, str | int | float] = {"method": settings.method}
    if settings.method in ("auto", "diffusion"):
        kept |= {"temperature": settings.temperature}
        if settings.temperature > 0.0:
            kept |= {"steps": settings.steps}
    return kept


def promises(level: float, settings: Settings, bounds: str = "n_conffusion", folder: Path | None = None) -> Promises:
    """What can be promised at a level for fills made with these settings.

    Raises
    ------
    CalibrationError
        There is no calibration of that level, or none at all; says which levels there are.
    """
    root = folder or shipped_folder("calibrations")
    records = [load_yaml(path, Calibration) for path in sorted(root.glob("*.yaml"))] if root else []
    intervals = {record.level: record for record in records if record.domain == INTERVAL}
    if level not in intervals:
        known = ", ".join(f"{value:g}" for value in sorted(intervals)) or "none"
        raise CalibrationError(f"There is no calibration for the level {level:g}. Calibrated levels: {known}.")
    of_level = [record for record in records if record.domain == QUALITY and record.level == level]
    wanted = made_with(settings)
    quality = next((record for record in of_level if record.made_with == wanted), None)
    reason = ""
    if quality is None:
        possible = ", ".join(sorted({str(record.made_with["method"]) for record in of_level})) or "none"
        said = ", ".join(f"{name} {value}" for name, value in wanted.items())
        reason = f"the quality of fills by {said} was not calibrated; calibrated methods, at their defaults: {possible}"
    model = load(bounds)
    return Promises(level, model, intervals[level], quality, reason, digest(model))


@dataclass(frozen=True)
class Measured:
    """One calibration or test clip: what was seen, what was true."""

    recording: str
    sha256: str
    sample_rate: int
    seen: Look
    truth_db: Array
    """``(bands, frames)``."""
    distance_db: Mapping[str, float]
    """Band distance of the fill by each method."""
    predicted_db: Mapping[str, float]


def calibrate_interval(
    clips: Sequence[Measured],
    model: Model,
    *,
    level: float,
    delta: float | None,
    kind: calibrate.Kind,
    gap_edges_s: Sequence[float],
    frequency_edges_hz: Sequence[float],
    seed: int = 0,
) -> Calibration:
    """The record that scales the raw bounds; each range of gap lengths and frequencies has its own scale."""
    axes = (
        groups.Axis(name="gap_s", edges=tuple(gap_edges_s)),
        groups.Axis(name="frequency_hz", edges=tuple(frequency_edges_hz)),
    )
    scales = np.geomspace(0.02, 50.0, 800)
    found = []
    for i in range(len(gap_edges_s) - 1):
        own = [clip for clip in clips if groups.place(axes[0], clip.seen.gap_s) == i]
        for j in range(len(frequency_edges_hz) - 1):
            tables = [(c, c.seen.counts & (groups.place(axes[1], c.seen.frequency_hz) == j)[:, None]) for c in own]
            rows = [(family.scores(c.seen.raw, c.truth_db), inside) for c, inside in tables if inside.any()]
            cells = max((int(inside.sum()) for _, inside in rows), default=0)
            if not cells:
                continue
            scores, weights = np.zeros((2, len(rows), cells))
            for row, (score, inside) in enumerate(rows):
                scores[row, : inside.sum()], weights[row, : inside.sum()] = score[inside], 1.0
            losses = family.losses(scores, scales, weights)
            index = calibrate.choose(losses, 1.0 - level, delta, kind, seed)
            found.append(Group(ranges=(i, j), value=float(scales[index]), n_clips=len(rows)))
    return Calibration(
        domain=INTERVAL,
        kind=kind,
        level=level,
        delta=delta,
        family="scale",
        axes=axes,
        groups=tuple(found),
        seed=seed,
        **_common(clips, model),
    )


def calibrate_quality(
    clips: Sequence[Measured],
    model: Model,
    *,
    level: float,
    settings: Settings,
    gap_edges_s: Sequence[float],
    seed: int = 0,
) -> Calibration:
    """The record that turns a predicted band distance into a bound, for each range of gap lengths."""
    axis = groups.Axis(name="gap_s", edges=tuple(gap_edges_s))
    found = []
    for i in range(len(gap_edges_s) - 1):
        own = [clip for clip in clips if groups.place(axis, clip.seen.gap_s) == i]
        true, predicted = (
            [getattr(clip, name)[settings.method] for clip in own] for name in ("distance_db", "predicted_db")
        )
        value = conformal.quantile(conformal.quality_scores(true, predicted, "ratio"), 1.0 - level)
        found.append(Group(ranges=(i,), value=value, n_clips=len(own)))
    return Calibration(
        domain=QUALITY,
        made_with=made_with(settings),
        kind="conformal",
        level=level,
        family="ratio",
        axes=(axis,),
        groups=tuple(found),
        seed=seed,
        **_common(clips, model),
    )


def _common(clips: Sequence[Measured], model: Model) -> dict[str, Any]:
    """What every record says of its clips and its model."""
    recordings = {clip.recording: clip.sha256 for clip in clips}
    rates, lengths = [clip.sample_rate for clip in clips], [clip.seen.gap_s for clip in clips]
    return {
        "model": digest(model),
        "precision": PRECISION,
        "sample_rate_min": min(rates),
        "sample_rate_max": max(rates),
        "gap_min_s": min(lengths),
        "gap_max_s": max(lengths),
        "n_clips": len(recordings),
        "recordings": recordings,
    }
