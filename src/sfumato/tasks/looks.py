"""Raw intervals inside one gap, in three domains, before calibration; all of them from one pass or a closed form.

- `band_level_db`: levels of 64 bands every 11.6 ms, by N-Conffusion.
- `bin_level_db`: magnitudes of single bins. A bin is the AR posterior's mean plus a Gaussian, so its magnitude follows
  a Rice distribution, whose quantiles are known; the Gaussian is scaled to N-Conffusion's level of its band, and the
  uncertainty of that level is added in quadrature.
- `waveform`: samples of each channel, by the AR posterior's mean and standard deviation in closed form. Only for gaps
  short enough that phases are predictable.

References
----------
.. [1] S. O. Rice, "Mathematical analysis of random noise", Bell System Technical Journal 24, 1945, sec. 3.10.
.. [2] A. Janssen, R. Veldhuis, L. Vries, "Adaptive interpolation of discrete-time signals that can be modeled as
   autoregressive processes", IEEE TASSP 34(2), 1986.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.special import digamma
from scipy.stats import ncx2

from sfumato.errors import CalibrationError, ModelError
from sfumato.interval import family
from sfumato.model import Model, load
from sfumato.signal import gap_levels
from sfumato.signal.levels import Grid, band_edges, to_db
from sfumato.systems import n_conffusion
from sfumato.tasks.fill import Fill, Window, posterior_of
from sfumato.tasks.windows import Filled, Gap, Source, fill_group

Array = NDArray[np.float64]

Domain = Literal["band_level_db", "bin_level_db", "waveform"]

FLOOR_DB = 70.0
"""Levels are floored this far below the loudest known one, as in the band distance."""

AROUND_S, QUIET = 0.25, 3e-3
"""Seconds of sound on either side of a gap whose level decides whether anything is promised, and the least such level
(standard deviation, full scale 1)."""

PHASE_S = 0.05
"""Longest gap whose waveform is bounded: beyond, an interval on samples would be the signal's envelope."""

_NORMAL_90 = 2 * 1.6449


@dataclass(frozen=True)
class Raw:
    """An interval that promises nothing yet, and what calibration needs to know of its cells."""

    domain: Domain
    interval: family.Interval
    """In dB, ``(bands or bins, frames)``; for the waveform in full scale, ``(channels, samples)``."""
    counts: NDArray[np.bool_]
    """Cells that a promise is about: for levels those of bands that are heard around the gap."""
    where: Mapping[str, Array]
    """Place of the cells on the axes of calibration groups, broadcast against each other."""
    axes: Mapping[str, Array]
    """What stands at the cells: `time_s` and either `edges_hz` of the bands or `frequency_hz` of the bins."""
    floor: float = -np.inf


@dataclass(frozen=True)
class View:
    """One gap in its mono window, with the AR posterior's mean and a draw in place of what is missing."""

    mean: Array
    draw: Array
    own: NDArray[np.bool_]
    """Samples of the gap."""
    start: int
    """First sample of the window, in samples of the recording."""
    known: NDArray[np.bool_]
    """Frames that nothing is missing from, ``(frames,)``."""
    touched: NDArray[np.bool_]
    """Frames that hold a missing sample."""
    grid: Grid
    gap_s: float

    def levels(self, samples: Array) -> Array:
        """Band levels in the touched frames of the window with a fill ``(channels, samples)``, dB."""
        filled = self.mean.copy()
        filled[self.own] = samples.mean(axis=0)
        return self.grid.levels(filled)[:, self.touched]

    @property
    def time_s(self) -> Array:
        """Centres of the touched frames, seconds of the recording."""
        return np.asarray((self.start + np.flatnonzero(self.touched) * self.grid.hop_length) / self.grid.sample_rate)

    @property
    def edge_s(self) -> Array:
        """Distance of the touched frames' centres from the nearer end of the gap; 0 outside."""
        inside = np.flatnonzero(self.own)
        centre = np.flatnonzero(self.touched) * self.grid.hop_length
        distance = np.minimum(centre - inside[0], inside[-1] - centre)
        return np.asarray(np.maximum(distance, 0) / self.grid.sample_rate)


def view(source: Source, gap: Gap, unknown: Sequence[Gap], filled: Filled) -> View:
    """A gap as the bounds are made from it.

    Parameters
    ----------
    source
        The recording; channels are averaged to mono.
    gap
        In samples.
    unknown
        Every damaged stretch.
    filled
        With its source.

    Raises
    ------
    CalibrationError
        The gap is of a sort that no calibration clip is: not alone in its window, or close to an end.
    """
    if filled.source is None:
        raise CalibrationError("Fills of this kind come without the autoregressive source that bounds are made from.")
    mono, known, start = window(source, gap, unknown)
    own = np.zeros(len(mono), dtype=bool)
    own[gap[0] - start : gap[1] - start] = True
    mean, draw = mono.copy(), mono.copy()
    mean[own], draw[own] = filled.source[0].mean(axis=0), filled.source[1].mean(axis=0)
    grid = Grid(len(mono), source.sample_rate)
    frames = gap_levels.frames_of(known, np.ones_like(known), own, grid)
    return View(mean, draw, own, start, *frames, grid, (gap[1] - gap[0]) / source.sample_rate)


def window(source: Source, gap: Gap, unknown: Sequence[Gap]) -> tuple[Array, NDArray[np.bool_], int]:
    """Mono window around a gap, its known samples, and its first sample; CalibrationError if it isn't clear."""
    rate, n = source.sample_rate, gap_levels.window_samples(source.sample_rate)
    name = f"Gap {gap[0] / rate:g}–{gap[1] / rate:g} s"
    start = stretch(rate, gap)[0]
    if start < 0 or start + n > source.n_samples:
        raise CalibrationError(
            f"{name} lies within {n / rate / 2:.1f} s of an end of the recording; calibrated were gaps with sound on "
            "both sides."
        )
    others = [(a, b) for a, b in unknown if a < start + n and b > start and (a, b) != tuple(gap)]
    if others:
        places = ", ".join(f"{a / rate:.3f}–{b / rate:.3f} s" for a, b in others[:2])
        raise CalibrationError(
            f"{name} has other damage within {n / rate / 2:.1f} s ({places}{', …' if len(others) > 2 else ''}); "
            "calibrated were gaps that stand alone."
        )
    if (level := around(source, gap).std()) < QUIET:
        raise CalibrationError(
            f"{name} has next to no sound around it ({to_db(np.array(level**2)):.0f} dBFS); calibrated were gaps in "
            f"sound of {20 * np.log10(QUIET):.0f} dBFS or more."
        )
    mono = np.nan_to_num(source.read(start, start + n), posinf=0.0, neginf=0.0).mean(axis=0)
    known = np.ones(n, dtype=bool)
    known[gap[0] - start : gap[1] - start] = False
    return mono, known, start


def stretch(sample_rate: int, gap: Gap) -> Gap:
    """Samples of the window around a gap; it may reach out of the recording."""
    n = gap_levels.window_samples(sample_rate)
    start = (gap[0] + gap[1]) // 2 - n // 2
    return start, start + n


def around(source: Source, gap: Gap) -> Array:
    """The sound just before and just after a gap, ``(channels, samples)``."""
    reach = round(AROUND_S * source.sample_rate)
    before = source.read(max(gap[0] - reach, 0), gap[0])
    after = source.read(gap[1], min(gap[1] + reach, source.n_samples))
    return np.asarray(np.nan_to_num(np.concatenate([before, after], axis=1), posinf=0.0, neginf=0.0))


@lru_cache(maxsize=1)
def bounds_model() -> Model:
    """The shipped bounds model, loaded once."""
    return load("n_conffusion")


def picture_of(seen: View) -> gap_levels.Picture:
    """What a network of band levels is shown of a gap."""
    return gap_levels.picture(seen.grid.levels(seen.mean), seen.grid.levels(seen.draw), seen.known, seen.touched)


def band_bounds(seen: View, model: Model) -> Raw:
    """Bounds on the band levels, by one pass of the bounds model."""
    if not isinstance(model.config, n_conffusion.Config):
        raise ModelError(f"{model.name} gives no bounds. Give a model of the system n_conffusion.")
    (bounds,) = n_conffusion.bound_levels(model.network, model.config, [picture_of(seen)])
    return band_interval(seen, bounds.lower_db, bounds.point_db, bounds.upper_db)


def band_interval(seen: View, lower_db: Array, point_db: Array, upper_db: Array) -> Raw:
    """Bounds on band levels, ``(bands, frames)`` of the whole window, as a raw interval over the touched frames."""
    levels, grid = seen.grid.levels(seen.mean), seen.grid
    floor = float(levels[:, seen.known].max()) - FLOOR_DB
    lower, point, upper = (part[:, seen.touched] for part in (lower_db, point_db, upper_db))
    edges_hz = np.minimum(band_edges() * grid.sample_rate / grid.n_fft, grid.sample_rate / 2)
    heard = (levels[:, seen.known].mean(axis=1) > floor) & (np.diff(edges_hz) > 0)
    frequency_hz = 0.5 * (edges_hz[:-1] + edges_hz[1:])
    return Raw(
        "band_level_db",
        _floored(lower, point, upper, floor),
        np.broadcast_to(heard[:, None], (len(heard), int(seen.touched.sum()))),
        _where(seen, frequency_hz),
        {"time_s": seen.time_s, "edges_hz": edges_hz},
        floor,
    )


def bin_bounds(seen: View, bands: Raw) -> Raw:
    """Bounds on the magnitude of every bin, from those on the bands."""
    grid, edges = seen.grid, band_edges()
    spectrum = grid.transform(seen.mean)[:, seen.touched]
    innovation = np.abs(grid.transform(seen.draw - seen.mean)[:, seen.touched]) ** 2
    smooth = uniform_filter(innovation, size=(3, 5), mode="nearest") + 1e-30
    fixed = np.abs(spectrum) ** 2
    n_bins = min(int(edges[-1]), len(fixed))
    band = np.searchsorted(edges, np.arange(n_bins), side="right") - 1
    scale = np.diff(edges)[:, None] * (0.25 * grid.n_fft) ** 2
    wanted = 10.0 ** (bands.interval.point / 10.0) * scale
    faded = np.exp(np.log(np.diff(edges)) - digamma(np.diff(edges)))[:, None]  # power of noise over exp(E log power)
    gain = faded * np.maximum(wanted - grid.bands(fixed), 0.0) / (grid.bands(smooth) + 1e-30)
    noise = (np.maximum(gain, 1e-4)[band] * smooth[:n_bins]) / (0.25 * grid.n_fft) ** 2
    lower, middle, upper = rice_db(fixed[:n_bins] / (0.25 * grid.n_fft) ** 2, noise)
    spread = [np.abs(side - bands.interval.point)[band] for side in (bands.interval.lower, bands.interval.upper)]
    levels = to_db(np.abs(grid.transform(seen.mean)[:n_bins, seen.known]) ** 2 / (0.25 * grid.n_fft) ** 2)
    floor = float(levels.max()) - FLOOR_DB
    parts = (middle - np.hypot(middle - lower, spread[0]), middle, middle + np.hypot(upper - middle, spread[1]))
    frequency_hz = np.arange(n_bins) * grid.sample_rate / grid.n_fft
    heard = (levels.mean(axis=1) > floor)[:, None]
    return Raw(
        "bin_level_db",
        _floored(*parts, floor),
        np.broadcast_to(heard, middle.shape),
        _where(seen, frequency_hz),
        {"time_s": seen.time_s, "frequency_hz": frequency_hz},
        floor,
    )


def _floored(lower: Array, point: Array, upper: Array, floor: float) -> family.Interval:
    """An interval on floored levels. Its lower bound is floored only once it is scaled: narrower ones reach it too."""
    return family.from_bounds(lower, np.maximum(point, floor), np.maximum(upper, floor))


def waveform_bounds(source: Source, gap: Gap, unknown: Sequence[Gap]) -> Raw:
    """Bounds on the samples of each channel, by the AR posterior's Gaussian in closed form [2]_.

    Raises
    ------
    CalibrationError
        The gap is longer than `PHASE_S`.
    """
    rate = source.sample_rate
    window(source, gap, unknown)
    length_s = (gap[1] - gap[0]) / rate
    check_phase(length_s)
    sides = [fill_group(_Channel(source, i), [gap], unknown, _one_deviation).draws for i in range(source.channels)]
    mean, above = (np.stack([side[row, 0] for side in sides]) for row in (0, 1))
    half = 0.5 * _NORMAL_90 * np.abs(above - mean)
    inside = np.arange(gap[1] - gap[0])
    return Raw(
        "waveform",
        family.from_bounds(mean - half, mean, mean + half),
        np.ones(mean.shape, dtype=bool),
        {
            "gap_s": np.asarray(length_s),
            "edge_s": (np.minimum(inside, inside[::-1]) / rate)[None],
        },
        {"time_s": (gap[0] + inside) / rate},
    )


def check_phase(gap_s: float) -> None:
    """Raise CalibrationError for a gap too long for an interval on its waveform."""
    if gap_s > PHASE_S:
        raise CalibrationError(
            f"The waveform of a gap of {1e3 * gap_s:.0f} ms can't be bounded: beyond {1e3 * PHASE_S:.0f} ms phases "
            "can't be predicted. Ask for band_level_db or bin_level_db."
        )


def truth(clean: Source, gap: Gap, raw: Raw) -> Array:
    """What `raw` bounds, from the undamaged recording."""
    if raw.domain == "waveform":
        return clean.read(*gap)
    whole, known, start = window(clean, gap, [gap])
    own = np.zeros(len(whole), dtype=bool)
    own[gap[0] - start : gap[1] - start] = True
    grid = Grid(len(whole), clean.sample_rate)
    touched = gap_levels.frames_of(known, np.ones_like(known), own, grid)[1]
    if raw.domain == "band_level_db":
        return np.maximum(grid.levels(whole)[:, touched], raw.floor)
    power = np.abs(grid.transform(whole)[: len(raw.interval.point), touched]) ** 2
    return np.maximum(to_db(power / (0.25 * grid.n_fft) ** 2), raw.floor)


def predicted_distance_db(bands: Raw, filled_db: Array) -> float:
    """Band distance to be expected of a fill: its departure from the point, and the width of the bounds."""
    spread = (bands.interval.upper - np.maximum(bands.interval.lower, bands.floor)) / _NORMAL_90
    squares = (np.maximum(filled_db, bands.floor) - bands.interval.point) ** 2 + spread**2
    return float(np.sqrt(squares[bands.counts].mean())) if bands.counts.any() else float("nan")


@dataclass(frozen=True)
class _Channel:
    """One channel of a source."""

    source: Source
    index: int
    channels: int = 1

    @property
    def sample_rate(self) -> int:
        return self.source.sample_rate

    @property
    def n_samples(self) -> int:
        return self.source.n_samples

    def read(self, start: int, stop: int) -> Array:
        return self.source.read(start, stop)[self.index : self.index + 1]


def _one_deviation(part: Window) -> Fill:
    """The AR posterior's mean, and the mean plus one standard deviation."""
    posterior, wanted = posterior_of(part)
    mean = posterior.mean[wanted]
    return Fill(np.stack([mean, mean + posterior.deviation()[wanted]]))


def _where(seen: View, frequency_hz: Array) -> dict[str, Array]:
    return {
        "gap_s": np.asarray(seen.gap_s),
        "frequency_hz": frequency_hz[:, None],
        "edge_s": seen.edge_s[None],
    }


@lru_cache(maxsize=1)
def _rice() -> tuple[Array, Array]:
    """5, 50 and 95 % quantiles of ``|m + n|² / E|n|²`` in dB, by the ratio ``|m|² / E|n|²`` in dB; n complex Gaussian.

    The square is half a noncentral chi-square variable of two degrees of freedom [1]_.
    """
    ratio_db = np.arange(-40.0, 60.1, 0.5)
    centre = 2.0 * 10.0 ** (ratio_db / 10.0)
    return ratio_db, np.stack([to_db(np.asarray(0.5 * ncx2.ppf(q, 2, centre))) for q in (0.05, 0.5, 0.95)])


def rice_db(fixed: Array, noise: Array) -> tuple[Array, Array, Array]:
    """5, 50 and 95 % quantiles of a bin's power in dB; its mean has the power `fixed`, its Gaussian part `noise`."""
    ratio_db, table = _rice()
    noise_db, fixed_db = to_db(noise), to_db(fixed)
    beyond = np.maximum(fixed_db - noise_db - ratio_db[-1], 0.0)  # there the noise hardly counts
    at = np.maximum(fixed_db - noise_db, ratio_db[0]) - beyond
    lower, middle, upper = (noise_db + beyond + np.interp(at, ratio_db, row) for row in table)
    return lower, middle, upper
