"""The short-time Fourier transform and its exact inverse."""

import torch
from torch import Tensor


def stft(x: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Return the complex spectrogram, shape (..., n_fft // 2 + 1, frames), of real signals.

    Parameters
    ----------
    x : Tensor, shape (..., samples)
        Any number of leading dimensions.
    n_fft : int
        Length of the periodic Hann window and of the DFT, samples; even.
    hop_length : int
        Step between frames, samples; at most n_fft / 2.

    Notes
    -----
    Frame i is centred on sample i · hop_length. The signal is continued by zeros on both sides, so every
    length ≥ 1 works; there are ⌈samples / hop_length⌉ + 1 frames.
    """
    flat = x.reshape(-1, x.shape[-1])
    flat = torch.nn.functional.pad(flat, (0, -x.shape[-1] % hop_length))
    window = torch.hann_window(n_fft, dtype=x.dtype, device=x.device)
    spectrum = torch.stft(
        flat, n_fft, hop_length, window=window, center=True, pad_mode="constant", return_complex=True
    )
    return spectrum.reshape(*x.shape[:-1], *spectrum.shape[-2:])


def istft(spectrum: Tensor, n_fft: int, hop_length: int, n_samples: int) -> Tensor:
    """Return the signal, shape (..., n_samples), whose spectrogram is nearest to `spectrum`.

    It is the exact inverse of `stft` and, for any other spectrum, the least-squares signal.

    Parameters
    ----------
    spectrum : Tensor, shape (..., n_fft // 2 + 1, frames)
        Complex.
    n_fft, hop_length : int
        As given to `stft`.
    n_samples : int
        Length of the signal, samples.

    References
    ----------
    Griffin, Lim, "Signal estimation from modified short-time Fourier transform", IEEE TASSP 32(2), 1984.
    """
    flat = spectrum.reshape(-1, *spectrum.shape[-2:])
    window = torch.hann_window(n_fft, dtype=spectrum.real.dtype, device=spectrum.device)
    n_padded = n_samples + -n_samples % hop_length
    x = torch.istft(flat, n_fft, hop_length, window=window, center=True, length=n_padded)
    return x[:, :n_samples].reshape(*spectrum.shape[:-2], n_samples)
