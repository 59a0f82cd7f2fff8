"""Finding clicks: short outliers of the prediction error that end as suddenly as they begin and stand out of the music.

Autoregressive prediction whitens music, so a click a few samples long towers above the prediction error around it
([1]_, chapter 5). So do drums, plucks and consonants; what tells them apart is weighed in `Suspect.evidence`.

References
----------
.. [1] S. Godsill, P. Rayner, "Digital Audio Restoration", Springer, 1998.
.. [2] J. Makhoul, "Linear prediction: a tutorial review", Proc. IEEE 63(4), 1975.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.linalg import hankel, solve_toeplitz
from scipy.ndimage import maximum_filter1d
from scipy.signal import lfilter

Audio = NDArray[np.float64]

ORDER = 32
"""Order of the autoregressive models."""

SUSPECT = 6.5
"""A sample is suspected where its prediction error exceeds this many times the local deviation."""

OUTLIER = 4.5
"""A sample of a suspected group belongs to the click where its error exceeds this many deviations, predicted from
the past and from the future alike; samples up to 12 ms away join it at `COMPANION` deviations."""

COMPANION = 5.0

JOIN_S, LONGEST_S, CONTEXT_S, GUARD_S, REACH_S = 0.008, 0.035, 0.025, 0.001, 0.012

MARGIN_S = 0.0005
"""What a find covers beyond the outermost outliers, on either side, in seconds."""

EVIDENCE = ("outlier", "lopsided", "excess", "length", "unlike", "ringing", "local", "rough")

BIAS = -17.0711
WEIGHTS = np.array([2.3824, 1.849, 2.044, -0.2747, 0.6122, -1.42, 1.435, 1.5001])
"""Logistic regression on the evidence; `benchmarks/detection.py --fit` prints these from the training recordings."""


@dataclass(frozen=True)
class Suspect:
    """A suspected click [start, stop) in samples, and the evidence on it.

    All evidence is in natural logarithms: of the largest error in deviations, predicted from the past or the future,
    whichever is less ("outlier"), and the ratio of the two ("lopsided": an onset surprises the past, not the future);
    the peak of what stands out from the extrapolated music over the music's RMS ("excess"); the length in
    milliseconds; the error the two sides have under each other's model, over 25 ms ("unlike") and over the nearest
    3 ms ("ringing": music goes on as before after a click, not after an onset); the largest error over the local
    deviation ("local"); the RMS of the excess's first difference over its own ("rough").
    """

    start: int
    stop: int
    evidence: tuple[float, ...]


def hop_length(sample_rate: int) -> int:
    """Samples between the frames whose prediction models find suspects: the power of two next to 23 ms."""
    return int(2 ** max(6, round(np.log2(0.0232 * sample_rate))))


def find_clicks(x: Audio, first: int, last: int, sample_rate: int) -> list[tuple[int, int]]:
    """Clicks (start, stop) whose suspects start in [first, last), with `MARGIN_S` around them, in samples.

    Parameters
    ----------
    x
        Finite signal of a multiple of ``hop_length(sample_rate)`` samples.
    first, last
        Range of starts, in samples, `first` a multiple of the hop; reads up to 8 hops beyond.
    sample_rate
        In Hz.
    """
    margin = max(2, round(MARGIN_S * sample_rate))
    return [
        (s.start - margin, s.stop + margin)
        for s in suspects(x, first, last, sample_rate)
        if BIAS + float(WEIGHTS @ np.array(s.evidence)) > 0
    ]


def prediction_error(x: Audio, hop: int) -> Audio:
    """The error of predicting each sample from the 32 before it, by one model for each hop of samples.

    The models are fitted to Hann-windowed frames of two hops (autocorrelation method [2]_). The first and the last
    half hop of the signal have no frame around them and are 0.

    Parameters
    ----------
    x
        Signal of a multiple of `hop` samples.
    hop
        In samples.
    """
    frames = np.lib.stride_tricks.sliding_window_view(x, 2 * hop)[::hop]
    spectrum = fft.rfft(frames, axis=1)
    # A Hann window is a convolution with (-1/4, 1/2, -1/4) in frequency: one transform serves both uses.
    windowed = 0.5 * spectrum
    windowed[:, 1:-1] -= 0.25 * (spectrum[:, :-2] + spectrum[:, 2:])
    windowed[:, 0] -= 0.5 * spectrum[:, 1].real
    windowed[:, -1] -= 0.5 * spectrum[:, -2].real
    power = windowed.real**2 + windowed.imag**2
    power[:, 1:-1] *= 2
    # A product with 33 cosines is cheaper than an inverse transform for all lags.
    lags = power @ np.cos(np.pi / hop * np.outer(np.arange(hop + 1), np.arange(ORDER + 1))) / (2 * hop)
    filters = fft.rfft(levinson(lags), 2 * hop, axis=1)
    # Circular filtering spoils the first 32 samples of a frame only; the middle hop is kept.
    error = fft.irfft(spectrum * filters, axis=1)
    out = np.zeros_like(x)
    half = hop // 2
    out[half : half + hop * len(frames)] = error[:, half : half + hop].ravel()
    return out


def levinson(lags: Audio) -> Audio:
    """Prediction error filters (frames, order + 1) of many autocorrelations at once, by Levinson's recursion [2]_.

    A white noise floor of 1e-10 of the power, and 1e-12 absolute, keeps tones and silence solvable.
    """
    r = lags.copy()
    r[:, 0] = r[:, 0] * (1 + 1e-10) + 1e-12
    a = np.zeros_like(r)
    a[:, 0] = 1
    variance = r[:, 0].copy()
    for k in range(1, r.shape[1]):
        reflection = -np.einsum("fi,fi->f", a[:, :k], r[:, k:0:-1]) / variance
        a[:, 1 : k + 1] += reflection[:, None] * a[:, k - 1 :: -1] if k > 1 else reflection[:, None]
        variance = np.maximum(variance * (1 - reflection**2), 1e-14 * r[:, 0])
    return a


def suspects(x: Audio, first: int, last: int, sample_rate: int) -> list[Suspect]:
    """Groups of outliers that start in [first, last); arguments as for `find_clicks`."""
    hop = hop_length(sample_rate)
    lo, hi = max(0, first - 5 * hop), min(len(x), -(-last // hop) * hop + 5 * hop)
    error = np.abs(prediction_error(x[lo:hi], hop))
    deviation = _deviation(error, hop // 8)
    high = np.flatnonzero(error > SUSPECT * deviation)
    if not high.size:
        return []
    breaks = np.flatnonzero(np.diff(high) > JOIN_S * sample_rate)
    found = []
    for start, stop in zip(high[np.r_[0, breaks + 1]], high[np.r_[breaks, high.size - 1]] + 1, strict=True):
        if first <= start + lo < last and stop - start <= LONGEST_S * sample_rate:
            peak = float(np.max(error[start:stop] / deviation[start:stop]))
            suspect = _weigh(x, int(start) + lo, int(stop) + lo, peak, sample_rate)
            if suspect is not None:
                found.append(suspect)
    return found


def _deviation(error: Audio, block: int) -> Audio:
    """Robust deviation around each sample: the largest of seven blocks' medians, within four blocks either side."""
    medians = np.median(error[::2].reshape(-1, block // 2), axis=1)
    largest = medians.copy()
    for reach in (2, 3, 4):
        np.maximum(largest[reach:], medians[:-reach], out=largest[reach:])
        np.maximum(largest[:-reach], medians[reach:], out=largest[:-reach])
    # 2e-6 is a fifth of the rounding noise of 16 bits: below it there is no music to hide a click.
    return np.repeat(largest / 0.6745, block) + 2e-6


def _weigh(x: Audio, start: int, stop: int, peak: float, sample_rate: int) -> Suspect | None:
    """The evidence on a group of outliers, from models of the 25 ms before and after it."""
    guard, context = round(GUARD_S * sample_rate), max(4 * ORDER, round(CONTEXT_S * sample_rate))
    reach = round(REACH_S * sample_rate)
    near = max(8, round(0.003 * sample_rate))
    lo, hi = start - guard - context, stop + guard + context
    if lo < reach or hi + reach > len(x):
        return None
    y = x[lo:hi]
    model, past, deviation = predict(y, context)
    model_back, future, deviation_back = predict(y[::-1], context)
    future = future[::-1]
    size_past, size_future = np.abs(past), np.abs(future)
    # An outlier shows up to an order later in one direction than in the other.
    agreed = np.minimum(maximum_filter1d(size_past, ORDER + 1), maximum_filter1d(size_future, ORDER + 1))
    outliers = np.flatnonzero(np.minimum(agreed, np.maximum(size_past, size_future))[context:-context] > OUTLIER)
    if not outliers.size:
        return None
    a, b = int(outliers[0]) + context, int(outliers[-1]) + 1 + context
    excess = _excess(y, a - max(2, guard // 4), b + max(2, guard // 4), model, model_back)
    left, right = y[:context], y[-context:]
    music = np.sqrt((_rms(left) ** 2 + _rms(right) ** 2) / 2)
    around = max(_rms(y[max(0, a - 2 * near) : a]), _rms(y[b : b + 2 * near]))
    loudest = float(np.max(np.abs(excess)))
    outlier, outlier_back = float(size_past[a:b].max()), float(size_future[a:b].max())
    evidence = (
        min(outlier, outlier_back),
        max(outlier, outlier_back) / min(outlier, outlier_back),
        loudest / max(float(music), around),
        (b - a) / sample_rate * 1e3,
        max(_rms(past[-context + ORDER :]), _rms(future[: context - ORDER])),
        max(_rms(past[b + ORDER + 4 :][:near]), _rms(future[: a - ORDER - 4][-near:])),
        peak,
        _rms(np.diff(excess)) / _rms(excess),
    )
    after = np.abs(_filter(model, x[lo : hi + reach])) / deviation
    before = np.abs(_filter(model_back, x[lo - reach : hi][::-1])) / deviation_back
    b = b + _companion(after[b + ORDER : b + ORDER + reach])
    a = a - _companion(before[len(y) - a + ORDER : len(y) - a + ORDER + reach])
    return Suspect(lo + a, lo + b, tuple(float(v) for v in np.clip(np.log(evidence), -5, 8)))


def _companion(error: Audio) -> int:
    """How far a click must be extended to take in the outliers beyond its end (0: there are none)."""
    high = np.flatnonzero(error > COMPANION * max(1.0, float(np.median(error)) / 0.6745))
    return ORDER + int(high[-1]) + 1 if high.size else 0


def predict(y: Audio, context: int) -> tuple[Audio, Audio, float]:
    """The model of the first `context` samples, its error over the deviation there, and that deviation."""
    spectrum = fft.rfft(y[:context] * np.hanning(context), 2 * context)
    lags = fft.irfft(spectrum.real**2 + spectrum.imag**2)[: ORDER + 1]
    lags[0] = lags[0] * (1 + 1e-9) + 1e-10
    model = np.r_[1.0, solve_toeplitz(lags[:-1], -lags[1:])]
    error = _filter(model, y)
    deviation = _rms(error[ORDER:context]) + 3e-5
    return model, error / deviation, deviation


def _excess(y: Audio, a: int, b: int, model: Audio, model_back: Audio) -> Audio:
    """What [a, b) holds beyond the music extrapolated into it from both sides and cross-faded."""
    n = b - a
    ahead = _extrapolate(model, y[a - 1 :: -1][:ORDER], n)
    back = _extrapolate(model_back, y[b : b + ORDER], n)[::-1]
    weight = np.cos(np.linspace(0, np.pi / 2, n)) ** 2
    return np.asarray(y[a:b] - (ahead * weight + back * (1 - weight)))


def _extrapolate(model: Audio, recent: Audio, n: int) -> Audio:
    """The next n samples of an autoregressive process without innovation, from its last, latest first."""
    state = -hankel(model[1:]) @ recent
    return np.asarray(lfilter([1.0], model, np.zeros(n), zi=state)[0])


def _filter(model: Audio, y: Audio) -> Audio:
    return np.convolve(y, model)[: len(y)]


def _rms(v: Audio) -> float:
    return float(np.sqrt(np.mean(v * v))) + 1e-9
