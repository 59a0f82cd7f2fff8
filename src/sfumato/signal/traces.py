"""What a fill may leave behind in a recording: a few dozen traces per frame, each against its own surroundings.

A fill is made to sound like what is around it, so no quantity gives it away by its value; only by its departure from
what the recording does just before and after. Each trace is therefore centred and scaled by the median and the median
deviation of the four seconds around it: loudness, colour and habits of the music drop out.

- *level*: power of a band. A classical fill decays towards its middle; a learned one is too even.
- *flatness*: how far the geometric lies below the arithmetic mean of a band's bins. Sparse fills dig holes between
  partials; noisy ones close the holes that music, or a lossy codec, leaves.
- *advance*: how far bins are from where the two frames before would have them. Phases of a fill jitter.
- *together*, *balance*: coherence and level difference of two channels. Fills are drawn along principal axes, so sound
  that came from one side, or from the middle, loses its place.
- *innovation*: what a long linear prediction can't foresee, by band, and how peaked it is. A mean prediction has none,
  a drawn one is Gaussian; music strikes, breathes and rattles.

Frames are 11.6 ms apart; every rate is resampled to 44.1 kHz first. All traces are in dB before they are scaled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg import solve_toeplitz
from scipy.signal import get_window, oaconvolve, resample_poly

Array = NDArray[np.float64]
Traces = NDArray[np.float32]

RATE = 44100
HOP = 512
N_FFT = 2048
FINE_HZ = np.array([40.0, *np.geomspace(100.0, 20000.0, 24), 22050.0])
COARSE_HZ = np.array([40.0, *np.geomspace(160.0, 20000.0, 12)])
INNOVATION_HZ = np.array([40.0, *np.geomspace(400.0, 20000.0, 8)])
N_TRACES = (len(FINE_HZ) - 1) + 4 * (len(COARSE_HZ) - 1) + (len(INNOVATION_HZ) - 1) + 1

ORDER = 512
AROUND_S = 4.0
LARGEST = 6.0

_FLOOR = 1e-13
"""Power per bin, of a full-scale sine's: near the rounding of 16 bits. What is softer counts as this."""

_SMALLEST_DB = 0.25
"""Deviations are never scaled by less."""

_AR_HOP, _AR_WINDOW = RATE // 2, 3 * (RATE // 2)
_KNOT = RATE // (2 * HOP)
_BLOCK = 1024


def at_rate(audio: Array, sample_rate: int) -> Array:
    """`audio` ``(channels, samples)`` at `RATE`; more than two channels are averaged to one."""
    if len(audio) > 2:
        audio = audio.mean(axis=0, keepdims=True)
    if sample_rate == RATE:
        return audio
    shared = int(np.gcd(RATE, sample_rate))
    return np.asarray(resample_poly(audio, RATE // shared, sample_rate // shared, axis=1))


def traces(audio: Array) -> Traces:
    """All traces of `audio` ``(1 or 2 channels, samples)`` at `RATE`: ``(N_TRACES, n_samples // HOP + 1)``, within ±6.

    Frame `i` is centred on sample ``i * HOP``. Those of two channels are 0 where there is one.
    """
    n_frames = audio.shape[1] // HOP + 1
    padded = np.pad(audio.astype(np.float32), ((0, 0), (N_FFT // 2 + 2 * HOP, N_FFT // 2 + 3 * HOP)))
    innovation = _innovation(_main_axis(audio))
    blocks = []
    for start in range(0, n_frames, _BLOCK):
        stop = min(start + _BLOCK, n_frames)
        spectra = _stft(padded[:, start * HOP : (stop + 3) * HOP + N_FFT], N_FFT)[:, : stop - start + 4]
        blocks.append(np.concatenate([_of_spectra(spectra), _of_innovation(innovation, start, stop)], axis=1))
    return _against_surroundings(np.concatenate(blocks)).T.astype(np.float32)


def _stft(x: NDArray[np.float32], n_fft: int) -> NDArray[np.complex64]:
    """Hann spectra ``(channels, frames, bins)``; a full-scale sine has magnitude 1."""
    window = (get_window("hann", n_fft) * (4.0 / n_fft)).astype(np.float32)
    return np.asarray(rfft(np.lib.stride_tricks.sliding_window_view(x, n_fft, axis=1)[:, ::HOP] * window))


def _of_spectra(spectra: NDArray[np.complex64]) -> Array:
    """Traces ``(frames, traces)`` of all but the first two and the last two frames of `spectra`; the first two serve
    to foresee the third, one on either side to smooth."""
    power = np.abs(spectra) ** 2
    mean = power.mean(axis=0)[2:-2] + _FLOOR
    fine, coarse = _bins(FINE_HZ, N_FFT), _bins(COARSE_HZ, N_FFT)
    level = _db(_band_means(mean, fine))
    flatness = _band_means(_db(mean), coarse) - _db(_band_means(mean, coarse))
    surprise = np.abs(spectra[:, 2:-2] - _foreseen(spectra)).mean(axis=0) ** 2
    advance = _db(_band_means(surprise + _FLOOR, coarse)) - _db(_band_means(mean, coarse))
    if len(spectra) == 1:
        together = balance = np.zeros_like(advance)
    else:
        cross, left, right = (_blurred(part) for part in (spectra[0] * np.conj(spectra[1]), *power))
        coherent = (cross.real**2 + cross.imag**2) / (left * right + _FLOOR**2)
        apart = _band_means((1.0 - np.minimum(coherent, 1.0)) * mean, coarse) / _band_means(mean, coarse)
        together = _db(apart + 1e-3)
        sides = [_db(_band_means(side[2:-2] + _FLOOR, coarse)) for side in power]
        balance = sides[0] - sides[1]
    return np.concatenate([level, flatness, advance, together, balance], axis=1).astype(np.float64)


def _foreseen(spectra: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Each frame from the two before it: the last one's magnitude, and a phase that goes on turning as it did."""
    last, before = spectra[:, 1:-3], spectra[:, :-4]
    turn = last * np.conj(before)
    return np.asarray(last * turn / (np.abs(turn) + _FLOOR))


def _blurred(x: NDArray[Any]) -> NDArray[Any]:
    """Sums over three frames and three bins around each cell, less the first two and the last two frames."""
    frames = x[1:-3] + x[2:-2] + x[3:-1]
    padded = np.pad(frames, ((0, 0), (1, 1)), mode="edge")
    return np.asarray(padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:])


def _main_axis(audio: Array) -> Array:
    """The direction of two channels that holds most of their power."""
    if len(audio) == 1:
        return np.asarray(audio[0])
    _, axes = np.linalg.eigh(audio @ audio.T)
    return np.asarray(axes[:, -1] @ audio)


def _innovation(x: Array) -> NDArray[np.float32]:
    """What an AR model of order `ORDER`, fitted anew every half second to the 1.5 s around, doesn't foresee of `x`."""
    out = np.zeros(len(x), np.float32)
    window = get_window("hann", _AR_WINDOW)
    padded = np.pad(x, (_AR_HOP, 2 * _AR_HOP))
    size = next_fast_len(_AR_WINDOW + ORDER, real=True)
    for start in range(0, len(x), _AR_HOP):
        spectrum = rfft(padded[start : start + _AR_WINDOW] * window, size)
        r = irfft(np.abs(spectrum) ** 2, size)[: ORDER + 1]
        r[0] = r[0] * (1.0 + 1e-9) + _AR_WINDOW * _FLOOR
        a = np.concatenate([[1.0], -solve_toeplitz(r[:-1], r[1:])])
        past = padded[start + _AR_HOP - ORDER : start + 2 * _AR_HOP]
        stop = min(start + _AR_HOP, len(x))
        out[start:stop] = oaconvolve(past, a)[ORDER : ORDER + stop - start]
    return np.pad(out, (HOP, 3 * HOP))


def _of_innovation(padded: NDArray[np.float32], start: int, stop: int) -> Array:
    """Band levels of the innovation, and its crest, for frames `start` to `stop`."""
    part = padded[start * HOP : (stop + 1) * HOP]
    power = np.abs(_stft(part[None], 2 * HOP)[0]) ** 2 + _FLOOR
    squares = np.lib.stride_tricks.sliding_window_view(part**2, 2 * HOP)[::HOP]
    crest = _db(squares.max(axis=1) + _FLOOR) - _db(squares.mean(axis=1) + _FLOOR)
    bands = _db(_band_means(power, _bins(INNOVATION_HZ, 2 * HOP)))
    return np.concatenate([bands, crest[:, None]], axis=1)[: stop - start].astype(np.float64)


def _bins(edges_hz: Array, n_fft: int) -> NDArray[np.int64]:
    """First bin of each band, and the bin past the last; every band has one bin at least."""
    bins = np.round(edges_hz * n_fft / RATE).astype(np.int64)
    for i in range(1, len(bins)):
        bins[i] = max(bins[i], bins[i - 1] + 1)
    return bins


def _band_means(per_bin: NDArray[np.float32], bins: NDArray[np.int64]) -> NDArray[np.float32]:
    """Means over the bins of each band, ``(frames, bands)``."""
    sums = np.add.reduceat(per_bin[:, : bins[-1]], bins[:-1], axis=1)
    return np.asarray(sums / np.diff(bins), dtype=per_bin.dtype)


def _db(power: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(10.0 * np.log10(power))


def _against_surroundings(raw: Array) -> Array:
    """Each column less the median of the `AROUND_S` around, over 1.48 times the median deviation from it, within ±6."""
    n, reach = len(raw), round(0.5 * AROUND_S * RATE / HOP)
    knots = np.arange(0, n + _KNOT, _KNOT)
    centre, scale = np.empty((2, len(knots), raw.shape[1]))
    for i, knot in enumerate(knots.tolist()):
        near = raw[max(0, min(knot, n - 1) - reach) : knot + reach]
        centre[i] = np.median(near, axis=0)
        scale[i] = np.median(np.abs(near - centre[i]), axis=0)
    at, share = np.divmod(np.arange(n), _KNOT)
    share = share[:, None] / _KNOT
    middle, spread = ((1.0 - share) * values[at] + share * values[at + 1] for values in (centre, scale))
    return np.asarray(np.clip((raw - middle) / np.maximum(1.4826 * spread, _SMALLEST_DB), -LARGEST, LARGEST))
