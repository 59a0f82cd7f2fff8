"""Band levels of a signal over time, and the shaping of a random fill to wanted levels.

A level is the mean power of one band in one frame, in dB. The grid is fixed in seconds and Hz (windows of 46.4 ms
every 11.6 ms, bins 21.5 Hz apart: 2048 and 512 samples at 44.1 kHz), so a network that predicts levels works at any
sample rate; bands above a signal's Nyquist frequency are silent.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import get_window

Array = NDArray[np.float64]
Known = NDArray[np.bool_]

WINDOW_S = 2048 / 44100
HOP_S = 512 / 44100
N_BANDS = 64
N_BINS = 1025
FLOOR_DB = -140.0

# Gains of one round of shaping stay within these bounds, in dB: a fill is shaped, not invented.
_GAIN_DB = (-40.0, 30.0)


@lru_cache(maxsize=1)
def band_edges() -> NDArray[np.int64]:
    """Edges of the bands in bins of 21.5 Hz, ``(N_BANDS + 1,)``: single bins at the bottom, geometric above."""
    for start in np.arange(4.0, 40.0, 0.25):
        ratio = (start + 1.0) / start
        edges = [0, *range(2, int(start) + 1)]
        position = float(edges[-1])
        while round(position) < N_BINS:
            position = max(position * ratio, position + 1.0)
            edges.append(min(round(position), N_BINS))
        if len(edges) >= N_BANDS + 1:
            merged = edges[: N_BANDS + 1]
            merged[-1] = N_BINS
            return np.array(merged)
    raise AssertionError("no band layout found")


@dataclass(frozen=True)
class Grid:
    """Frames of one window of `n_samples` at `sample_rate`; frame `i` is centred on sample ``i * hop_length``."""

    n_samples: int
    sample_rate: int

    @property
    def n_fft(self) -> int:
        """Samples in one analysis window (even)."""
        return 2 * round(WINDOW_S * self.sample_rate / 2)

    @property
    def hop_length(self) -> int:
        """Samples between frames."""
        return round(HOP_S * self.sample_rate)

    @property
    def n_frames(self) -> int:
        """Frames whose centres cover the window."""
        return self.n_samples // self.hop_length + 1

    def transform(self, x: Array) -> NDArray[np.complex128]:
        """Hann STFT with zero padding, ``(n_fft // 2 + 1, n_frames)``."""
        padded = np.pad(x, (self.n_fft // 2, self.n_fft // 2 + self.hop_length))
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.n_fft)[:: self.hop_length][: self.n_frames]
        return np.fft.rfft(frames * _hann(self.n_fft), axis=1).T

    def inverse(self, spectrum: NDArray[np.complex128]) -> Array:
        """Least-squares inverse of `transform` (overlap-add over the summed squared window)."""
        window = _hann(self.n_fft)
        frames = np.fft.irfft(spectrum.T, n=self.n_fft, axis=1) * window
        total = np.zeros(self.n_fft + self.hop_length * self.n_frames)
        weight = np.full_like(total, 1e-8)
        for i, frame in enumerate(frames):
            at = i * self.hop_length
            total[at : at + self.n_fft] += frame
            weight[at : at + self.n_fft] += window**2
        return np.asarray((total / weight)[self.n_fft // 2 : self.n_fft // 2 + self.n_samples])

    def bands(self, per_bin: Array) -> Array:
        """Sums over the bins of each band, ``(N_BANDS, n_frames)``; bins past the top band are dropped."""
        out = np.zeros((N_BANDS, per_bin.shape[1]))
        edges = np.minimum(band_edges(), len(per_bin))
        present = edges[1:] > edges[:-1]
        out[present] = np.add.reduceat(per_bin[: edges[-1]], edges[:-1][present], axis=0)
        return out

    def touched(self, known: Known) -> Known:
        """Frames whose window holds at least one missing sample, ``(n_frames,)``."""
        missing = np.concatenate([[0], np.cumsum(~known)])
        centre = np.arange(self.n_frames) * self.hop_length
        lo = np.clip(centre - self.n_fft // 2, 0, self.n_samples)
        hi = np.clip(centre + self.n_fft // 2, 0, self.n_samples)
        return np.asarray(missing[hi] > missing[lo])

    def levels(self, x: Array) -> Array:
        """Mean power per bin of each band and frame, in dB re a full-scale sine's bin, ``(N_BANDS, n_frames)``."""
        return to_db(self.bands(np.abs(self.transform(x)) ** 2) / self._scale())

    def _scale(self) -> Array:
        width = np.diff(band_edges()).astype(np.float64)
        return width[:, None] * (0.25 * self.n_fft) ** 2


def to_db(power: Array) -> Array:
    """``10 log10(power)``, floored at `FLOOR_DB`."""
    return np.asarray(10.0 * np.log10(np.maximum(power, 10.0 ** (FLOOR_DB / 10.0))))


@lru_cache(maxsize=8)
def _hann(n: int) -> Array:
    return np.asarray(get_window("hann", n))


def shape(
    mean: Array, innovation: Array, known: Known, wanted_db: Array, grid: Grid, rounds: int = 3, seam_s: float = 0.004
) -> Array:
    """`mean` plus `innovation` filtered so that the levels of the sum follow `wanted_db`.

    Only the innovation is scaled, and by a gain that is the same for its mirror image, so the mean over draws stays
    the mean. In each band and frame the gain g solves ``|M|^2 + g^2 |W|^2 = wanted``: mean and innovation are
    independent, so their cross term is zero on average. Gains are interpolated over bins and the result is kept
    inside the gap. Near the gap's edges the unshaped innovation takes over, which joins the known samples by
    construction.

    Parameters
    ----------
    mean, innovation
        ``(n_samples,)``; `mean` holds the known samples, `innovation` is zero there.
    known
        ``(n_samples,)``, True = observed.
    wanted_db
        ``(N_BANDS, n_frames)``; used only in frames that touch a gap.
    rounds
        Repetitions: each meets the levels more closely, as overlapping frames disagree.
    seam_s
        Length of the take-over at the edges, in seconds.
    """
    frames = np.flatnonzero(grid.touched(known))
    if not len(frames):
        return mean
    # Only the frames around the gaps matter: work on that stretch, cut on the grid.
    margin = 2 * grid.n_fft // grid.hop_length
    first, last = max(int(frames[0]) - margin, 0), min(int(frames[-1]) + margin, grid.n_frames - 1)
    lo, hi = first * grid.hop_length, min((last + 1) * grid.hop_length - 1, grid.n_samples)
    part = Grid(hi - lo, grid.sample_rate)
    shaped = innovation.copy()
    shaped[lo:hi] = _shape(
        mean[lo:hi], innovation[lo:hi], known[lo:hi], wanted_db[:, first : first + part.n_frames], part, rounds, seam_s
    )
    return np.asarray(mean + shaped)


def _shape(
    mean: Array, innovation: Array, known: Known, wanted_db: Array, grid: Grid, rounds: int, seam_s: float
) -> Array:
    """The shaped innovation of one stretch."""
    touched = grid.touched(known)
    wanted = 10.0 ** (wanted_db / 10.0) * grid._scale()
    spectrum_mean = grid.transform(mean)
    energy_mean = grid.bands(np.abs(spectrum_mean) ** 2)
    seam = _seam(known, max(1, round(seam_s * grid.sample_rate)))
    shaped = innovation
    for _ in range(rounds):
        spectrum = grid.transform(shaped)
        energy = grid.bands(np.abs(spectrum) ** 2) + 1e-30
        gain = np.sqrt(np.maximum(wanted - energy_mean, 0.0) / energy)
        gain_db = np.clip(20.0 * np.log10(np.maximum(gain, 1e-9)), *_GAIN_DB)
        gain_db[:, ~touched] = 0.0
        shaped = np.where(known, 0.0, grid.inverse(spectrum * _over_bins(gain_db, len(spectrum))))
        shaped = seam * shaped + (1.0 - seam) * innovation
    return np.asarray(shaped)


def _over_bins(gain_db: Array, n_bins: int) -> Array:
    """Band gains in dB interpolated linearly over bins, as factors ``(n_bins, n_frames)``."""
    edges = band_edges()
    centre = 0.5 * (edges[:-1] + edges[1:] - 1)
    position = np.clip(np.arange(n_bins), centre[0], centre[-1])
    index = np.clip(np.searchsorted(centre, position, side="right") - 1, 0, len(centre) - 2)
    share = ((position - centre[index]) / (centre[index + 1] - centre[index]))[:, None]
    return np.asarray(10.0 ** (((1 - share) * gain_db[index] + share * gain_db[index + 1]) / 20.0))


def _seam(known: Known, length: int) -> Array:
    """0 at the known samples, rising to 1 inside each gap over `length` samples from both edges."""
    n = len(known)
    index = np.arange(n)
    last = np.maximum.accumulate(np.where(known, index, -n))
    following = np.minimum.accumulate(np.where(known, index, 3 * n)[::-1])[::-1]
    distance = np.minimum(index - last, following - index)
    return np.asarray(np.sin(0.5 * np.pi * np.clip(distance / (length + 1), 0.0, 1.0)) ** 2)
