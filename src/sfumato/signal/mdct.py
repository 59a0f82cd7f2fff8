"""The modified discrete cosine transform: real, critically sampled, orthonormal, perfectly invertible."""

import math
from typing import Literal

import torch
from torch import Tensor

Window = Literal["sine", "kbd"]
KBD_ALPHA = 4.0


def mdct_window(n_bins: int, window: Window = "sine", dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a symmetric window w of 2·n_bins samples with w[n]² + w[n + n_bins]² = 1 (Princen–Bradley).

    Parameters
    ----------
    n_bins : int
        Half the window's length, samples.
    window : {"sine", "kbd"}
        Sine: narrow main lobe. Kaiser–Bessel-derived with α = 4: stronger far rejection.
    dtype : torch.dtype
        Computed in float64, then rounded.

    References
    ----------
    Princen, Bradley, "Analysis/synthesis filter bank design based on time domain aliasing cancellation",
    IEEE TASSP 34(5), 1986. KBD: Bosi, Goldberg, "Introduction to digital audio coding and standards", 2003.
    """
    if window == "sine":
        n = torch.arange(2 * n_bins, dtype=torch.float64)
        return torch.sin(math.pi / (2 * n_bins) * (n + 0.5)).to(dtype)
    kaiser = torch.kaiser_window(n_bins + 1, periodic=False, beta=math.pi * KBD_ALPHA, dtype=torch.float64)
    rise = torch.sqrt(torch.cumsum(kaiser, 0)[:-1] / kaiser.sum())
    return torch.cat((rise, rise.flip(0))).to(dtype)


def _dct4(x: Tensor) -> Tensor:
    """Orthonormal DCT-IV along the last axis (even length N) by one complex FFT of length N / 2."""
    n = x.shape[-1]
    k = torch.arange(n // 2, dtype=torch.float64, device=x.device)
    angle = -math.pi * (k + 0.125) / n
    twiddle = torch.polar(torch.ones_like(angle), angle).to(x.dtype.to_complex())
    packed = torch.complex(x[..., ::2], x.flip(-1)[..., ::2]) * twiddle
    spectrum = torch.fft.fft(packed) * twiddle * math.sqrt(2 / n)
    return torch.stack((spectrum.real, -spectrum.imag.flip(-1)), dim=-1).flatten(-2)


def n_frames(n_samples: int, n_bins: int) -> int:
    """Return how many frames `mdct` makes of a signal: ⌈n_samples / n_bins⌉ + 1."""
    return -(-n_samples // n_bins) + 1


def mdct(x: Tensor, n_bins: int, window: Window = "sine") -> Tensor:
    """Return the coefficients, shape (..., n_bins, frames), of real signals.

    Parameters
    ----------
    x : Tensor, shape (..., samples)
        Continued by zeros on both sides; any length ≥ 1.
    n_bins : int
        Coefficients per frame and step between frames, samples; even. Bin k is centred on
        (k + ½) · sample_rate / (2 · n_bins).
    window : {"sine", "kbd"}
        See `mdct_window`.

    Notes
    -----
    X[k] = √(2/N) Σ w[n] x[n] cos(π/N (n + ½ + N/2)(k + ½)), n < 2N, N = n_bins. Orthonormal: the sum of
    squares of the coefficients is that of the signal. Frame i covers samples (i − 1)·N to (i + 1)·N.
    """
    frames = n_frames(x.shape[-1], n_bins)
    padded = torch.nn.functional.pad(x, (n_bins, frames * n_bins - x.shape[-1]))
    blocks = padded.unfold(-1, 2 * n_bins, n_bins) * mdct_window(n_bins, window, x.dtype).to(x.device)
    a, b, c, d = blocks.chunk(4, dim=-1)
    return _dct4(torch.cat((-c.flip(-1) - d, a - b.flip(-1)), dim=-1)).transpose(-1, -2)


def imdct(coefficients: Tensor, n_samples: int, window: Window = "sine") -> Tensor:
    """Return the signal, shape (..., n_samples), of MDCT coefficients: the exact inverse of `mdct`.

    Parameters
    ----------
    coefficients : Tensor, shape (..., n_bins, frames)
        As made by `mdct`.
    n_samples : int
        Length of the signal, samples; at most (frames − 1) · n_bins.
    window : {"sine", "kbd"}
        As given to `mdct`.
    """
    n_bins = coefficients.shape[-2]
    first, second = _dct4(coefficients.transpose(-1, -2)).chunk(2, dim=-1)
    blocks = torch.cat((second, -second.flip(-1), -first.flip(-1), -first), dim=-1)
    blocks = blocks * mdct_window(n_bins, window, coefficients.dtype).to(coefficients.device)
    overlapped = blocks[..., :-1, n_bins:] + blocks[..., 1:, :n_bins]
    return overlapped.flatten(-2)[..., :n_samples]
