"""Complex spectrograms as pictures that a network can draw, and their exact way back to sound.

A frame of 2n samples has n complex bins, half-way between the usual ones, so that there is neither a bin at 0 nor one
at half the sample rate, and the 2n samples and the n complex numbers hold the same. Phases are counted from a common
start, so a steady tone turns by less than a quarter from frame to frame. Magnitudes are compressed by a power and
divided by a curve that falls with frequency as music's does, so that all bins are about as large.

References
----------
.. [1] S. Welker et al., "Speech enhancement with score-based generative models in the complex STFT domain", arXiv
       2203.17004, eq. 9: magnitudes are compressed, phases kept.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Complex, Float

POWER = 1 / 3
"""Power that magnitudes are raised to."""
LARGE, KNEE_HZ, FALL = 0.52, 4000.0, 0.75
"""Size of compressed bins of music whose level (RMS) is 0.1: LARGE / (1 + frequency / KNEE_HZ) ** FALL."""
TURN = 4
"""Frames after which phases repeat: loops have a multiple of them."""
LEVEL = 0.1
"""RMS of sounds whose bins have about unit variance."""


def bins(audio: Float[Tensor, "b n"], half: int, ends: bool = True) -> Complex[Tensor, "b half frames"]:
    """Complex bins of a sound.

    Parameters
    ----------
    half
        Bins, samples from frame to frame, and half a frame.
    ends
        Whether the sound begins and ends here: the first frame is then centred on its first sample, silence around it,
        and there are ``ceil(n / half) + 1`` frames. Else the frames are those that lie in it, ``n / half - 1``.
    """
    padded = torch.nn.functional.pad(audio, (half, half + -audio.shape[1] % half)) if ends else audio
    return _turned(torch.fft.fft(padded.unfold(1, 2 * half, half) * _window(half, audio)))


def circular_bins(audio: Float[Tensor, "b n"], half: int) -> Complex[Tensor, "b half frames"]:
    """Complex bins of a loop of ``frames * half`` samples, whose end goes on at its start; `TURN` divides `frames`."""
    around = torch.cat([audio[:, -half:], audio, audio[:, :half]], dim=1).unfold(1, 2 * half, half)[:, :-1]
    return _turned(torch.fft.fft(around * _window(half, audio)))


def sound(bins: Complex[Tensor, "b half frames"], n: int) -> Float[Tensor, "b n"]:
    """The sound of ``n`` samples whose bins are nearest to these."""
    half = bins.shape[1]
    pieces = _pieces(bins)
    first, second = pieces[..., :half], pieces[..., half:]
    return (first[:, 1:] + second[:, :-1]).flatten(1)[:, :n]


def circular_sound(bins: Complex[Tensor, "b half frames"]) -> Float[Tensor, "b n"]:
    """The loop of ``frames * half`` samples whose bins are nearest to these."""
    half = bins.shape[1]
    pieces = _pieces(bins)
    return (pieces[..., half:] + pieces[..., :half].roll(-1, dims=1)).flatten(1)


def picture(bins: Complex[Tensor, "b f t"], sample_rate: float) -> Float[Tensor, "b 2 f t"]:
    """Real and imaginary parts, compressed and of even size."""
    magnitude = bins.abs().clamp(min=1e-12)
    even = bins * (magnitude ** (POWER - 1) / _size(bins.shape[1], sample_rate, magnitude))
    return torch.stack([even.real, even.imag], dim=1)


def unpicture(picture: Float[Tensor, "b 2 f t"], sample_rate: float) -> Complex[Tensor, "b f t"]:
    """What `picture` was made of."""
    even = torch.complex(*(picture * _size(picture.shape[2], sample_rate, picture)).unbind(1))
    return even * even.abs().clamp(min=1e-12) ** (1 / POWER - 1)


def frequencies(half: int, sample_rate: float) -> Float[Tensor, " half"]:
    """Centre of each bin, Hz."""
    return (torch.arange(half) + 0.5) * (sample_rate / (2 * half))


def _size(half: int, sample_rate: float, like: Tensor) -> Float[Tensor, "half 1"]:
    """How large compressed bins of music are."""
    return (LARGE / (1 + frequencies(half, sample_rate) / KNEE_HZ) ** FALL).to(like)[:, None]


def _window(half: int, like: Tensor) -> Tensor:
    """Sine window that moves bins by half a bin, scaled so that white noise of variance 1 has bins of variance 1."""
    at = torch.arange(2 * half, dtype=torch.float64)
    window = torch.sin(math.pi * (at + 0.5) / (2 * half)) * torch.exp(-0.5j * math.pi * at / half) / math.sqrt(half)
    return window.to(torch.complex128 if like.dtype == torch.float64 else torch.complex64).to(like.device)


def _turned(spectra: Tensor) -> Tensor:
    """The lower half of (b, frames, 2 half) spectra as (b, half, frames), phases counted from the first frame."""
    half = spectra.shape[-1] // 2
    turns = spectra.new_tensor([1, -1j, -1, 1j])[torch.arange(spectra.shape[1]) % 4]
    odd = 1 - 2 * ((torch.arange(half)[:, None] * torch.arange(spectra.shape[1])) % 2)
    return spectra[..., :half].transpose(1, 2) * turns * odd.to(spectra.device)


def _pieces(bins: Tensor) -> Tensor:
    """Windowed frames ``(b, frames, 2 half)`` of bins."""
    half, frames = bins.shape[1:]
    turns = bins.new_tensor([1, 1j, -1, -1j])[torch.arange(frames) % 4]
    odd = 1 - 2 * ((torch.arange(half)[:, None] * torch.arange(frames)) % 2)
    spectra = (bins * turns * odd.to(bins.device)).transpose(1, 2)
    whole = torch.cat([spectra, torch.zeros_like(spectra)], dim=2)
    # A real frame's upper half mirrors its lower one, so its part is the conjugate's: twice the real part.
    pieces: Tensor = 2 * half * (torch.fft.ifft(whole) * _window(half, bins.real).conj()).real
    return pieces
