"""Seams: are a fill's edges any more abrupt than the music itself?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.signal import butter, sosfiltfilt

from sfumato.metrics.band_distance import FLOOR_DB, band_matrix
from sfumato.metrics.gap_frames import Array, Gap, as_pair

F_MIN_HZ = 8000.0
F_MAX_RATIO = 0.36
SHORT_S = 0.001
LONG_S = 0.020
STEP_N_FFT = 1024
QUIET = 1e-8


@dataclass(frozen=True)
class Seam:
    """Percentiles, 0 to 100, of a fill's edges among those of random gaps in the clean clip, equally long.

    Natural edges are uniform on 0–100: mean 50, one in a hundred above 99. A click or a jump of level lies
    near 100. NaN (undefined) if the gap has no edge inside the clip or the clip has no room for a random gap.

    Parameters
    ----------
    jump : float
        Sample-to-sample jump against its surroundings.
    spike : float
        Energy above 8 kHz within 1 ms against its surroundings.
    step : float
        Difference of the band spectra before and after the edge.
    """

    jump: float
    spike: float
    step: float


def _prominence(power: Array, short: int, long: int) -> Array:
    """Return short-time over surrounding power at every sample; both count as −80 dB of the loudest at least."""
    near = uniform_filter1d(power, short, mode="nearest") if short > 1 else power
    around = np.maximum(uniform_filter1d(power, long, mode="nearest") * long - near * short, 0.0) / (long - short)
    quiet = QUIET * float(around.max()) + np.finfo(np.float64).tiny
    ratio: Array = (near + quiet) / (around + quiet)
    return ratio


def _jump(clip: Array, sample_rate: float) -> Array:
    """Return the prominence of |x[n] − x[n−1]|² at every sample n."""
    power = np.sum(np.diff(clip, axis=1, prepend=clip[:, :1]) ** 2, axis=0)
    return _prominence(power, 1, round(LONG_S * sample_rate))


def _spike(clip: Array, sample_rate: float) -> Array:
    """Return the prominence of the power above 8 kHz at every sample."""
    cutoff = min(F_MIN_HZ, F_MAX_RATIO * sample_rate)
    sections = butter(8, cutoff, "highpass", fs=sample_rate, output="sos")
    high = np.asarray(sosfiltfilt(sections, clip, axis=-1, padtype=None))
    return _prominence(np.sum(high**2, axis=0), max(2, round(SHORT_S * sample_rate)), round(LONG_S * sample_rate))


def _band_powers(mono: Array, starts: NDArray[np.int64], bands: Array) -> Array:
    """Return band powers, shape (len(starts), bands), of Hann frames."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(STEP_N_FFT) / STEP_N_FFT)
    frames = mono[starts[:, None] + np.arange(STEP_N_FFT)] * window
    powers: Array = (np.abs(np.fft.rfft(frames, axis=-1)) ** 2) @ bands.T
    return powers


def _steps(clip: Array, places: NDArray[np.int64], sample_rate: float, loudest: float) -> Array:
    """Return the RMS difference, dB, of the band spectra of the 1024 samples before and after each place."""
    mono = clip.mean(axis=0)
    bands = band_matrix(sample_rate, STEP_N_FFT)
    floor = loudest * 10 ** (-FLOOR_DB / 10) + np.finfo(np.float64).tiny
    before, after = (
        10 * np.log10(np.maximum(_band_powers(mono, places + shift, bands), floor)) for shift in (-STEP_N_FFT, 0)
    )
    steps: Array = np.sqrt(np.mean((after - before) ** 2, axis=1))
    return steps


def _percentile(value: float, natural: Array) -> float:
    """Return the mid-rank percentile of a value among natural ones."""
    return float(100 * (np.mean(natural < value) + np.mean(natural == value) / 2))


def seam(
    reference: NDArray[np.floating],
    fill: NDArray[np.floating],
    gap: Gap,
    sample_rate: float,
    n_places: int = 1000,
    seed: int = 0,
) -> Seam:
    """Return how abrupt a fill's edges are, as percentiles of the clean recording's own variation.

    Parameters
    ----------
    reference, fill : ndarray, shape (channels, samples)
        The whole clip, true and repaired; a few seconds give enough natural variation.
    gap : tuple of int
        (start, stop), samples, half-open.
    sample_rate : float
        Hz.
    n_places : int
        Random gaps laid into the clean clip.
    seed : int
        Of the random places.

    Notes
    -----
    Each statistic is taken at both edges and the larger one counts; the same is done for gaps of the same
    length at random places of the clean clip, so that the true audio in the gap is itself uniformly
    distributed. Edges within 1024 samples of the clip's ends are left out, at all places alike. Jump and
    spike are ratios to the power of the 20 ms around, hence independent of level; spike uses the band above
    8 kHz, or above 0.36 × sample_rate if that is lower; step uses the 40 bands and the −70 dB floor of
    `sfumato.metrics.band_distance` with frames of 1024 samples.
    """
    reference, fill = as_pair(reference, fill, gap)
    n_samples, length = reference.shape[1], gap[1] - gap[0]
    offsets = np.array([o for o in (0, length) if STEP_N_FFT <= gap[0] + o <= n_samples - STEP_N_FFT], dtype=np.int64)
    if offsets.size == 0 or not reference.any():
        return Seam(float("nan"), float("nan"), float("nan"))
    lowest, highest = STEP_N_FFT - int(offsets[0]), n_samples - STEP_N_FFT - int(offsets[-1])
    starts = np.random.default_rng(seed).integers(lowest, highest, n_places, endpoint=True)
    natural, edges = (starts[:, None] + offsets).ravel(), gap[0] + offsets
    whole = np.arange(0, n_samples - STEP_N_FFT + 1, STEP_N_FFT // 2)
    loudest = float(_band_powers(reference.mean(axis=0), whole, band_matrix(sample_rate, STEP_N_FFT)).max())

    def percentile(at_edges: Array, at_places: Array) -> float:
        return _percentile(float(at_edges.max()), at_places.reshape(n_places, -1).max(axis=1))

    return Seam(
        jump=percentile(_jump(fill, sample_rate)[edges], _jump(reference, sample_rate)[natural]),
        spike=percentile(_spike(fill, sample_rate)[edges], _spike(reference, sample_rate)[natural]),
        step=percentile(_steps(fill, edges, sample_rate, loudest), _steps(reference, natural, sample_rate, loudest)),
    )
