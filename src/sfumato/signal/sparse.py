"""A-SPAIN: filling gaps with the signal whose spectrum is sparsest."""

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from sfumato.errors import InputError
from sfumato.signal.autoregressive import runs

Array = NDArray[np.float64]


def _keep_largest(spectrum: NDArray[np.complex128], k: int) -> NDArray[np.complex128]:
    """H_k: zero all but the k largest bins (conjugate pairs of the whole spectrum)."""
    if k >= spectrum.size:
        return spectrum
    magnitude = spectrum.real**2 + spectrum.imag**2
    kept = np.argpartition(magnitude, spectrum.size - k)[spectrum.size - k :]
    sparse = np.zeros_like(spectrum)
    sparse[kept] = spectrum[kept]
    return sparse


def _fill_window(observed: Array, known: NDArray[np.bool_], n_fft: int, s: int, r: int, eps: float) -> Array:
    """ADMM on one windowed segment; the missing samples of `observed` are zero."""
    scale = np.sqrt(n_fft)
    pairs = np.full(n_fft // 2 + 1, 2.0)
    pairs[[0, -1]] = 1.0
    x = observed
    analysis = fft.rfft(x, n_fft) / scale
    dual = np.zeros_like(analysis)
    k = s
    for iteration in range(1, r * (pairs.size // s + 1) + 1):
        z = _keep_largest(analysis + dual, k)
        x = np.where(known, observed, fft.irfft(z - dual, n_fft)[: x.size] * scale)
        analysis = fft.rfft(x, n_fft) / scale
        residual = analysis - z
        if np.sqrt(np.sum(pairs * (residual.real**2 + residual.imag**2))) <= eps:
            break
        dual += residual
        if iteration % r == 0:
            k += s
    return x


def _fill_gap(
    x: Array,
    known: NDArray[np.bool_],
    gap: slice,
    window_length: int,
    hop_length: int,
    redundancy: int,
    s: int,
    r: int,
    eps: float,
) -> Array:
    """Overlap-add of the filled windows that touch one gap, two of them centred hop / 2 beside its middle."""
    first = (gap.start + gap.stop - window_length - hop_length) // 2
    first -= (first + window_length - gap.start - 1) // hop_length * hop_length
    starts = range(first, gap.stop, hop_length)
    level = np.max(np.abs(x[first : starts[-1] + window_length]))
    if level == 0.0:
        return np.zeros(gap.stop - gap.start)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window_length) / window_length)
    total, weight = np.zeros_like(x), np.zeros_like(x)
    for start in starts:
        span = slice(start, start + window_length)
        segment = x[span] * window / level
        total[span] += window * _fill_window(segment, known[span], redundancy * window_length, s, r, eps)
        weight[span] += window**2
    fill: Array = level * total[gap] / weight[gap]
    return fill


def aspain(
    x: Array,
    known: NDArray[np.bool_],
    window_length: int = 4096,
    hop_length: int = 1024,
    redundancy: int = 2,
    s: int = 1,
    r: int = 1,
    eps: float = 0.01,
) -> Array:
    """Return the signal with its missing samples filled; known samples are bit-identical.

    Parameters
    ----------
    x : ndarray, shape (samples,)
        One channel. What the missing samples hold doesn't matter.
    known : ndarray of bool, shape (samples,)
        True = observed.
    window_length, hop_length : int
        Periodic Hann window and its step, samples; hop at most half the window. Even window.
    redundancy : int
        DFT length divided by window length.
    s, r : int
        Every r iterations s more conjugate pairs of coefficients are allowed.
    eps : float
        Stop once ‖A x − z‖ ≤ eps, relative to the loudest known sample around the gap.

    Raises
    ------
    InputError
        If shapes differ, x isn't 1-D, a known sample isn't finite, or none is known.

    Notes
    -----
    Per window, A the unitary zero-padded DFT, H_k keeping the k largest conjugate pairs:
    z = H_k(A x + u); x = projection of A*(z − u) onto the known samples; u += A x − z. For each gap only
    the windows that touch it are processed, placed so that the gap's middle lies between two centres, and
    overlap-added with the canonical dual window. Beyond the signal's ends samples count as missing.
    eps (published: absolute, for audio in ±1) is relative to the loudest known sample of the gap's windows,
    which makes the result independent of level. Windows without a known sample give silence, so gaps
    longer than the window fade to nothing.

    References
    ----------
    Mokrý, Záviška, Rajmic, Veselý, "Introducing SPAIN (SParse Audio INpainter)", EUSIPCO 2019;
    defaults as in Mokrý, Rajmic, "On the use of autoregressive methods for audio inpainting", 2024.
    """
    x, known = np.asarray(x, dtype=np.float64), np.asarray(known, dtype=bool)
    if x.ndim != 1 or x.shape != known.shape:
        raise InputError(f"Signal {x.shape} and known {known.shape} must be 1-D and equally long.")
    if not known.any():
        raise InputError("No sample is known. A-SPAIN needs audio around the gap.")
    if not np.isfinite(x[known]).all():
        raise InputError("A known sample is NaN or infinite. Mark it as missing instead.")
    filled = np.where(known, x, 0.0)
    # Beyond the ends nothing is known either; two windows hold all that may touch a gap.
    padded, inside = np.pad(filled, 2 * window_length), np.pad(known, 2 * window_length)
    for start, stop in runs(~known):
        at = slice(start, stop + 4 * window_length)
        gap = slice(2 * window_length, 2 * window_length + stop - start)
        filled[start:stop] = _fill_gap(padded[at], inside[at], gap, window_length, hop_length, redundancy, s, r, eps)
    return filled
