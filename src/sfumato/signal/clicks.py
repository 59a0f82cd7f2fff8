"""Finding clicks: short outliers of the prediction error between two stretches that are alike."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.linalg import solve_toeplitz
from scipy.signal import lfilter

Audio = NDArray[np.float64]

ORDER = 32
"""Order of the autoregressive models."""

SUSPECT = 7.0
"""A sample is suspected where its prediction error exceeds this many times the local deviation."""

OUTLIER = 8.0
"""A suspect is kept if its error exceeds this many deviations, predicted from its past and from its future alike."""

ALIKE = 2.5
"""Largest ratio of prediction error deviation between the stretches after and before a click, each under the model
of the other: an onset brings new sound, a click leaves the old one."""

JOIN_S = 0.004
LONGEST_S = 0.030
CONTEXT_S = 0.025
GUARD_S = 0.001


@dataclass(frozen=True)
class Suspect:
    """A suspected click and the evidence on it."""

    start: int
    stop: int
    past: float
    future: float
    alike: float


def hop_length(sample_rate: int) -> int:
    """Samples between the frames whose prediction models find suspects: the power of two next to 23 ms."""
    return int(2 ** max(6, round(np.log2(0.0232 * sample_rate))))


def prediction_error(x: Audio, hop: int) -> Audio:
    """The error of predicting each sample from its past, by a model of order 32 for each hop of samples.

    The models are fitted to frames of two hops under a Hann window (autocorrelation method, Levinson's recursion over
    all frames at once). The first and last half hop of the signal have none and are 0.

    Parameters
    ----------
    x : signal of a multiple of `hop` samples.
    hop : hop length in samples.

    References
    ----------
    Makhoul, "Linear prediction: a tutorial review", Proc. IEEE 63(4), 1975.
    """
    frames = np.lib.stride_tricks.sliding_window_view(x, 2 * hop)[::hop]
    spectrum = fft.rfft(frames * np.hanning(2 * hop), axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    lags = fft.irfft(power, axis=1)[:, : ORDER + 1]
    a = _levinson(lags)
    error = fft.irfft(fft.rfft(frames, axis=1) * fft.rfft(a, 2 * hop, axis=1), axis=1)
    out = np.zeros_like(x)
    half = hop // 2
    out[half : half + hop * len(frames)] = error[:, half : half + hop].ravel()
    return out


def _levinson(lags: Audio) -> Audio:
    """Prediction error filters (frames, order + 1) from autocorrelations, with a floor of -100 dB white noise."""
    r = lags.copy()
    r[:, 0] = r[:, 0] * (1 + 1e-10) + 1e-12
    a = np.zeros_like(r)
    a[:, 0] = 1
    variance = r[:, 0].copy()
    for k in range(1, r.shape[1]):
        reflection = -np.einsum("fi,fi->f", a[:, :k], r[:, k:0:-1]) / variance
        a[:, 1 : k + 1] += reflection[:, None] * a[:, k - 1 :: -1][:, :k] if k > 1 else reflection[:, None] * a[:, :1]
        variance *= 1 - reflection**2
        np.maximum(variance, 1e-14 * r[:, 0], out=variance)
    return a


def find_clicks(x: Audio, first: int, last: int, sample_rate: int) -> list[tuple[int, int]]:
    """Clicks (start, stop) that start in [first, last), in samples, covered with a margin of 0.5 ms.

    Parameters
    ----------
    x : signal of a multiple of `hop_length(sample_rate)` samples, finite.
    first, last : range of starts, in samples; needs 5 hops of context either side.
    sample_rate : in Hz.
    """
    margin = max(2, round(0.0005 * sample_rate))
    return [
        (s.start - margin, s.stop + margin)
        for s in suspects(x, first, last, sample_rate)
        if s.past > OUTLIER and s.future > OUTLIER and s.alike < ALIKE
    ]


def suspects(x: Audio, first: int, last: int, sample_rate: int) -> list[Suspect]:
    """Groups of outliers that start in [first, last), each with the evidence for and against a click."""
    hop = hop_length(sample_rate)
    lo, hi = max(0, first - 5 * hop), min(len(x), -(-last // hop) * hop + 5 * hop)
    error = np.abs(prediction_error(x[lo:hi], hop))
    block = hop // 8
    medians = np.median(error.reshape(-1, block), axis=1)
    local = medians.copy()
    for reach in (2, 3, 4):
        np.maximum(local[reach:], medians[:-reach], out=local[reach:])
        np.maximum(local[:-reach], medians[reach:], out=local[:-reach])
    deviation = np.repeat(local / 0.6745, block) + 2e-6
    high = np.flatnonzero(error > SUSPECT * deviation)
    if not high.size:
        return []
    breaks = np.flatnonzero(np.diff(high) > JOIN_S * sample_rate)
    starts, stops = high[np.r_[0, breaks + 1]] + lo, high[np.r_[breaks, high.size - 1]] + lo + 1
    found = []
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        if first <= start < last and stop - start <= LONGEST_S * sample_rate:
            suspect = _weigh(x, start, stop, sample_rate)
            if suspect is not None:
                found.append(suspect)
    return found


def _weigh(x: Audio, start: int, stop: int, sample_rate: int) -> Suspect | None:
    """The evidence on a group of outliers, from models of the 25 ms before and after it."""
    guard = round(GUARD_S * sample_rate)
    context = round(CONTEXT_S * sample_rate)
    lo, hi = start - guard - context, stop + guard + context
    if lo < 0 or hi > len(x):
        return None
    y = x[lo:hi]
    forward, backward = _one_way(y, context), _one_way(y[::-1], context)
    core = slice(context, len(y) - context)
    past, future = np.abs(forward[0][core]), np.abs(backward[0][::-1][core])
    both = np.flatnonzero((past > 4) | (future > 4))
    if not both.size:
        return None
    # A pulse rings on in the error for as long as the model is: its true end is where the backward error ends.
    begin = np.flatnonzero(past > 4)
    end = np.flatnonzero(future > 4)
    a = int(begin[0]) if begin.size else int(both[0])
    b = int(end[-1]) + 1 if end.size else int(both[-1]) + 1
    a, b = min(a, start - lo - context), max(b, a + 1)
    return Suspect(
        lo + context + a,
        lo + context + b,
        float(past.max()),
        float(future.max()),
        max(forward[1], backward[1]),
    )


def _one_way(y: Audio, context: int) -> tuple[Audio, float]:
    """The error over the deviation it has in the first `context` samples, and its ratio in the last `context`."""
    window = y[:context] * np.hanning(context)
    spectrum = fft.rfft(window, 2 * context)
    lags = fft.irfft(spectrum.real**2 + spectrum.imag**2)[: ORDER + 1]
    lags[0] = lags[0] * (1 + 1e-9) + 1e-10
    a = np.r_[1.0, solve_toeplitz(lags[:-1], -lags[1:])]
    error = lfilter(a, [1.0], y)
    own = float(np.sqrt(np.mean(error[ORDER:context] ** 2))) + 3e-5
    other = float(np.sqrt(np.mean(error[-context + ORDER :] ** 2))) + 3e-5
    return error / own, other / own
