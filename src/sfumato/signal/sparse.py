"""A-SPAIN: filling gaps with the signal whose spectrum is sparsest."""

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from sfumato.errors import InputError

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
        Stop once ‖A x − z‖ ≤ eps, in units of the loudest known sample of the windows' span.

    Raises
    ------
    InputError
        If shapes differ, x isn't 1-D, a known sample isn't finite, or none is known.

    Notes
    -----
    Per window, A the unitary zero-padded DFT, H_k keeping the k largest conjugate pairs:
    z = H_k(A x + u); x = projection of A*(z − u) onto the known samples; u += A x − z. Windows are placed at
    multiples of hop_length and only those that touch a missing sample are processed. Beyond the signal's
    ends samples count as missing. The scale of eps (published: absolute, for audio in ±1) makes the result
    independent of level. In windows without a known sample the result is silence, so gaps longer than the
    window fade to nothing.

    References
    ----------
    Mokrý, Záviška, Rajmic, Veselý, "Introducing SPAIN (SParse Audio INpainter)", EUSIPCO 2019, algorithm 2;
    defaults as in Mokrý, Rajmic, "On the use of autoregressive methods for audio inpainting", 2024.
    """
    x, known = np.asarray(x, dtype=np.float64), np.asarray(known, dtype=bool)
    if x.ndim != 1 or x.shape != known.shape:
        raise InputError(f"Signal {x.shape} and known {known.shape} must be 1-D and equally long.")
    if known.all():
        return x.copy()
    if not known.any():
        raise InputError("No sample is known. A-SPAIN needs audio around the gap.")
    if not np.isfinite(x[known]).all():
        raise InputError("A known sample is NaN or infinite. Mark it as missing instead.")
    pad = window_length
    inside = np.pad(known, pad)
    touched = np.pad(~known, pad)
    padded = np.pad(np.where(known, x, 0.0), pad)
    starts = [
        i
        for i in range(0, padded.size - window_length + 1, hop_length)
        if touched[i : i + window_length].any()
    ]
    level = max(np.max(np.abs(padded[i : i + window_length])) for i in starts)
    if level == 0.0:
        return np.where(known, x, 0.0)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window_length) / window_length)
    total, weight = np.zeros_like(padded), np.zeros_like(padded)
    for i in starts:
        span = slice(i, i + window_length)
        segment = padded[span] * window / level
        total[span] += window * _fill_window(segment, inside[span], redundancy * window_length, s, r, eps)
        weight[span] += window**2
    fill = level * total[pad : pad + x.size] / np.maximum(weight[pad : pad + x.size], np.finfo(float).tiny)
    return np.where(known, x, fill)
