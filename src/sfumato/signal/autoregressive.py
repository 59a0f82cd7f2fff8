"""Autoregressive interpolation of missing samples: estimation, closed-form posterior, Janssen, extrapolation.

A music signal is modelled over a short window as an autoregressive (AR) process
``sum_k a[k] x[n-k] = e[n]``, ``a[0] = 1``, ``e ~ N(0, variance)``. Given the model, the missing samples are
jointly Gaussian given the observed ones; everything in this file follows from that one fact.

All functions take one channel as float64 and a boolean ``known`` (True = observed).

References
----------
.. [1] A. Janssen, R. Veldhuis, L. Vries, "Adaptive interpolation of discrete-time signals that can be modeled
   as autoregressive processes", IEEE Trans. ASSP 34(2), 1986.
.. [2] J. P. Burg, "Maximum entropy spectral analysis", 1967; several segments at once: S. de Waele,
   P. Broersen, "The Burg algorithm for segments", IEEE Trans. SP 48(10), 2000.
.. [3] I. Kauppinen, K. Roth, "Audio signal extrapolation: theory and applications", DAFx 2002.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve_banded, cholesky_banded, solve_toeplitz
from scipy.linalg.lapack import dtbtrs, dtrtri
from scipy.signal import fftconvolve, lfilter, lfiltic

Array = NDArray[np.float64]
Known = NDArray[np.bool_]
Estimator = Callable[[Sequence[Array], int], tuple[Array, float]]

MAX_ORDER = 2048
_MAX_NUMBERS = 1 << 26

# Added to the precision's diagonal, relative to it, where Cholesky needs it: pure tones, digital silence. Its smallest
# eigenvalues belong to the strongest partials, so the ridge starts far below 120 dB and grows only if it must.
_RIDGE, _LARGEST_RIDGE = 1e-12, 1e-6


def burg(segments: Sequence[Array], order: int) -> tuple[Array, float]:
    """AR coefficients and innovation variance by Burg's method over several separate segments [2]_.

    Parameters
    ----------
    segments
        Observed stretches of one process; segments shorter than two samples add nothing.
    order
        Number of coefficients after ``a[0] = 1``; lowered where no segment is long enough.

    Returns
    -------
    coefficients, variance
        ``(order + 1,)`` with ``a[0] = 1``, always a stable model; innovation variance in squared signal units.
    """
    forward = [np.array(s, dtype=np.float64) for s in segments if len(s) > 1]
    total = sum(len(s) for s in forward)
    power = sum(float(s @ s) for s in forward)
    a = np.ones(1)
    if power <= 0.0:
        return np.concatenate([a, np.zeros(order)]), 0.0
    variance = power / total
    backward = [f[:-1].copy() for f in forward]
    forward = [f[1:] for f in forward]
    for _ in range(order):
        numerator = denominator = 0.0
        for f, b in zip(forward, backward, strict=True):
            numerator += float(f @ b)
            denominator += float(f @ f) + float(b @ b)
        if denominator <= 1e-14 * power:
            break
        k = -2.0 * numerator / denominator
        a = np.append(a, 0.0)
        a = a + k * a[::-1]
        variance *= 1.0 - k * k
        pairs = [(f + k * b, b + k * f) for f, b in zip(forward, backward, strict=True)]
        forward = [f[1:] for f, _ in pairs]
        backward = [b[:-1] for _, b in pairs]
    return np.concatenate([a, np.zeros(order + 1 - len(a))]), variance


def lpc(segments: Sequence[Array], order: int) -> tuple[Array, float]:
    """AR coefficients and innovation variance by the autocorrelation method (Yule-Walker, Levinson)."""
    total = sum(len(s) for s in segments)
    r = np.zeros(order + 1)
    for s in segments:
        n = min(order + 1, len(s))
        r[:n] += fftconvolve(s, s[::-1])[len(s) - 1 : len(s) - 1 + n]
    if r[0] <= 0.0:
        return np.concatenate([np.ones(1), np.zeros(order)]), 0.0
    r[0] *= 1.0 + _RIDGE
    a = np.concatenate([np.ones(1), -solve_toeplitz(r[:-1], r[1:])])
    return a, max(float(a @ r), 0.0) / total


@dataclass(frozen=True)
class GapPosterior:
    """Gaussian posterior of the missing samples of one window, given an AR model.

    ``missing ~ N(mean, variance * B^-1)``, where ``B`` is the missing block of ``A^T A`` and ``A`` the model's
    convolution matrix. ``B`` is banded (Toeplitz for one gap), so one banded Cholesky factor gives the mean,
    exact draws and the covariance in O(missing * order^2).
    """

    mean: Array
    variance: float
    factor: Array
    """Lower banded Cholesky factor of B, ``(bandwidth + 1, missing)``."""

    def draw(self, normal: Array) -> Array:
        """One exact draw, made from `normal` ``(missing,)`` standard normal numbers; ``-normal`` gives its mirror."""
        z, _ = dtbtrs(self.factor, normal, uplo="L", trans="T")
        return np.asarray(self.mean + np.sqrt(self.variance) * z.reshape(-1))

    def deviation(self) -> Array:
        """Standard deviation of each missing sample; dense inverse of the factor, so for short gaps."""
        missing = len(self.mean)
        dense = np.zeros((missing, missing), order="F")
        for offset, diagonal in enumerate(self.factor):
            dense.ravel("K")[offset :: missing + 1][: missing - offset] = diagonal[: missing - offset]
        inverse, _ = dtrtri(dense, lower=1, overwrite_c=1)
        return np.asarray(np.sqrt(self.variance * np.einsum("ki,ki->i", inverse, inverse)))

    def covariance(self) -> Array:
        """Dense covariance ``(missing, missing)``; for short gaps and tests."""
        return np.asarray(self.variance * cho_solve_banded((self.factor, True), np.eye(len(self.mean))))


def posterior(x: Array, known: Known, coefficients: Array, variance: float) -> GapPosterior:
    """Posterior of the samples of `x` where `known` is False, given an AR model and the observed rest.

    The joint precision of a stationary AR window is banded (Gohberg-Semencul), which makes the posterior exact at
    the window's edges too and symmetric in time: a gap at an edge is extrapolated from its one side. Inside, its
    mean is the minimiser of the summed squared residuals, eq. 8 of [1]_. Values of `x` at missing samples are
    ignored.
    """
    missing = np.flatnonzero(~known)
    right = -_precision_times(np.where(known, x, 0.0), coefficients)[missing]
    factor = _cholesky(lambda: _precision_bands(missing, len(x), coefficients))
    mean = np.asarray(cho_solve_banded((factor, True), right, check_finite=False))
    return GapPosterior(mean, variance, factor)


def _cholesky(bands: Callable[[], Array]) -> Array:
    """Lower banded Cholesky factor, in place as it may be large, with the smallest ridge that gives one."""
    ridge = _RIDGE
    while True:
        lifted = bands()
        lifted[0] += ridge * max(float(lifted[0].max(initial=0.0)), 1.0)
        try:
            return np.asarray(cholesky_banded(lifted, lower=True, overwrite_ab=True, check_finite=False))
        except np.linalg.LinAlgError:
            ridge *= 100.0
            if ridge > _LARGEST_RIDGE:
                raise


def _precision_times(x: Array, a: Array) -> Array:
    """Q x for the (unit innovation) precision Q = A1 A1^T - A2 A2^T of a stationary AR window (Gohberg-Semencul)."""
    n, p = len(x), len(a) - 1
    product = fftconvolve(fftconvolve(x, a[::-1])[p : p + n], a)[:n]
    if p == 0:
        return np.asarray(product)
    tail = a[:0:-1]
    w = fftconvolve(x[n - p :], tail[::-1])[p - 1 :]
    product[n - p :] -= fftconvolve(tail, w)[:p]
    return np.asarray(product)


def _precision_bands(missing: NDArray[np.int64], n: int, a: Array) -> Array:
    """Lower banded form of the missing block of Q, ``(bandwidth + 1, missing)``; Toeplitz for one inner gap."""
    p, count = len(a) - 1, len(missing)
    bandwidth = min(p, count - 1)
    contiguous = missing[-1] - missing[0] == count - 1
    if contiguous and missing[0] >= p and missing[-1] < n - p:
        autocorrelation = fftconvolve(a, a[::-1])[p:]
        return np.array(np.broadcast_to(autocorrelation[: bandwidth + 1, None], (bandwidth + 1, count)), order="F")
    sums = np.zeros((p + 1, p + 1))  # sums[d, k] = a[0] a[d] + ... + a[k] a[k + d]
    for d in range(p + 1):
        sums[d, : p + 1 - d] = np.cumsum(a[: p + 1 - d] * a[d:])
    bands = np.zeros((bandwidth + 1, count), order="F")
    for offset in range(bandwidth + 1):
        i, j = missing[: count - offset], missing[offset:]
        d = np.minimum(j - i, p)
        value = sums[d, np.minimum(i, p - d)] + sums[d, np.minimum(n - 1 - j, p - d)] - sums[d, p - d]
        bands[offset, : count - offset] = np.where(j - i <= p, value, 0.0)
    return bands


def runs(known: Known) -> list[tuple[int, int]]:
    """Half-open (start, stop) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    return [(int(i), int(j)) for i, j in edges.reshape(-1, 2)]


def janssen(
    x: Array,
    known: Known,
    order: int,
    iterations: int = 10,
    estimator: Estimator = burg,
    tolerance: float = 1e-2,
) -> Array:
    """`x` with its missing samples replaced by gap-wise Janssen interpolation [1]_.

    Alternates between estimating the model from the filled window and solving for the missing samples.
    Starts from the posterior mean under a model of the observed samples alone, not from zeros.

    Parameters
    ----------
    order
        Of the AR model; lowered to a third of the observed samples where those are few.
    iterations
        Most re-estimations on the filled window; 10 in the published comparison this stands beside.
    tolerance
        Stop earlier once the fill moves by less than this part of its own norm (-40 dB by default).
    """
    order = feasible_order(known, order)
    a, variance = estimator([x[i:j] for i, j in runs(known)], order)
    filled = x.copy()
    filled[~known] = posterior(x, known, a, variance).mean
    for _ in range(iterations):
        a, variance = estimator([filled], order)
        before, fill = filled[~known], posterior(x, known, a, variance).mean
        filled[~known] = fill
        if np.linalg.norm(fill - before) <= tolerance * np.linalg.norm(fill):
            break
    return filled


def feasible_order(known: Known, order: int) -> int:
    """`order`, or less: a third of the observed samples at most, and what keeps the posterior's factor below 512 MB."""
    observed = int(known.sum())
    return max(1, min(order, observed // 3, _MAX_NUMBERS // max(1, len(known) - observed)))


def order_of(order_s: float, sample_rate: int) -> int:
    """Coefficients of a model that spans `order_s` seconds: at least 8, at most `MAX_ORDER`."""
    return max(8, min(MAX_ORDER, round(order_s * sample_rate)))


def extrapolate(x: Array, known: Known, order: int, estimator: Estimator = burg) -> Array:
    """`x` with each gap predicted from both sides and cross-faded with a raised cosine [3]_.

    A gap at an edge of the window is predicted from its one side.
    """
    filled = np.where(known, x, 0.0)
    stretches = runs(known)
    for start, stop in runs(~known):
        length = stop - start
        left = next((filled[i:j] for i, j in stretches if j == start), None)
        right = next((filled[i:j][::-1] for i, j in stretches if i == stop), None)
        sides = [None if s is None else _predict(s, length, order, estimator) for s in (left, right)]
        forward, backward = sides[0], None if sides[1] is None else sides[1][::-1]
        if forward is None or backward is None:
            only = backward if forward is None else forward
            filled[start:stop] = 0.0 if only is None else only
        else:
            fade = np.cos(0.5 * np.pi * (np.arange(length) + 0.5) / length) ** 2
            filled[start:stop] = fade * forward + (1.0 - fade) * backward
    return filled


def _predict(past: Array, length: int, order: int, estimator: Estimator) -> Array:
    """The next `length` samples of the mean prediction of an AR model of `past`."""
    a, _ = estimator([past], max(1, min(order, len(past) // 3)))
    state = lfiltic([1.0], a, past[::-1][: len(a) - 1])
    future, _ = lfilter([1.0], a, np.zeros(length), zi=state)
    return np.asarray(future)
