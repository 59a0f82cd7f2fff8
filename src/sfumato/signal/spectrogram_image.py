"""Sound as a picture and back, with Riffusion's parameters.

Amplitudes of a short-time Fourier transform are gathered on a mel scale, raised to a power, and drawn with the loudest
as black: a picture of 512 rows, low sounds at the bottom, one column every 10 ms. The way back spreads the mel
amplitudes over the spectrum again and finds phases that fit by the fast Griffin-Lim algorithm.

References
----------
.. [1] S. Forsgren, H. Martiros, "Riffusion", 2022, github.com/riffusion/riffusion-hobby (MIT): the parameters, the
       image and its tags.
.. [2] D. Griffin, J. Lim, "Signal estimation from modified short-time Fourier transform", IEEE TASSP 32(2), 1984.
.. [3] N. Perraudin, P. Balazs, P. Søndergaard, "A fast Griffin-Lim algorithm", WASPAA 2013.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sfumato.signal.mel import mel_filters

if TYPE_CHECKING:
    from jaxtyping import Complex, Float

    Image = NDArray[np.uint8]

MOMENTUM = 0.99
COLUMNS = 512
"""Columns transformed at a time, so that long recordings need little memory."""


@dataclass(frozen=True)
class Parameters:
    """How a picture is read; the defaults are Riffusion's [1]_."""

    sample_rate: int = 44100
    """Hz."""
    stereo: bool = False
    """Two channels, in green and blue; otherwise one, in all three colours."""
    step_ms: int = 10
    """Width of a pixel."""
    window_ms: int = 100
    padded_ms: int = 400
    """Length of the transform; the window is centred in it and the rest is zeros."""
    n_mels: int = 512
    """Height of the picture."""
    f_min: int = 0
    f_max: int = 10_000
    """Hz."""
    power: float = 0.25

    @property
    def n_fft(self) -> int:
        """Length of the transform, samples."""
        return self.padded_ms * self.sample_rate // 1000

    @property
    def win_length(self) -> int:
        """Length of the window, samples."""
        return self.window_ms * self.sample_rate // 1000

    @property
    def hop_length(self) -> int:
        """Step between columns, samples."""
        return self.step_ms * self.sample_rate // 1000


@lru_cache(maxsize=4)
def _filters(parameters: Parameters) -> Tensor:
    """Mel filters (n_mels, bins) whose peaks are 1, on HTK's scale."""
    p = parameters
    return mel_filters(p.sample_rate, p.n_fft, p.n_mels, p.f_min, p.f_max, "htk", unit_area=False).float()


@lru_cache(maxsize=4)
def _spread(parameters: Parameters) -> Tensor:
    """The filters' pseudo-inverse (bins, n_mels): neighbours overlap, so a small matrix is inverted."""
    filters = _filters(parameters).double()
    inverse: Tensor = torch.linalg.pinv(filters @ filters.T, rtol=1e-10, hermitian=True)
    return (filters.T @ inverse).float()


def mel_amplitudes(audio: Float[Tensor, "c n"], parameters: Parameters) -> Float[Tensor, "c m s"]:
    """Amplitudes on the mel scale, for audio at the parameters' sample rate; 1 + n // hop columns.

    The signal is mirrored at its ends, so it has to be longer than half a transform.
    """
    p, filters = parameters, _filters(parameters).to(audio.device)
    window = torch.hann_window(p.win_length, device=audio.device)
    padded = functional.pad(audio[None], (p.n_fft // 2, p.n_fft // 2), mode="reflect")[0]
    columns = 1 + audio.shape[-1] // p.hop_length
    parts = []
    for first in range(0, columns, COLUMNS):
        last = min(first + COLUMNS, columns) - 1
        stretch = padded[:, first * p.hop_length : last * p.hop_length + p.n_fft]
        spectrum = torch.stft(
            stretch, p.n_fft, p.hop_length, p.win_length, window, center=False, return_complex=True
        )
        parts.append(filters @ spectrum.abs())
    return torch.cat(parts, dim=-1)


def linear_amplitudes(mel: Float[Tensor, "c m s"], parameters: Parameters) -> Float[Tensor, "c f s"]:
    """Amplitudes of every bin that come nearest to mel amplitudes; none is below 0."""
    return (_spread(parameters).to(mel.device) @ mel).clamp_min(0.0)


def griffin_lim(
    magnitude: Float[Tensor, "c f s"],
    n_fft: int,
    hop_length: int,
    start: Complex[Tensor, "c f s"],
    n_iter: int = 32,
    momentum: float = MOMENTUM,
) -> Float[Tensor, "c n"]:
    """A signal whose spectrogram comes near to `magnitude`, (frames - 1) * hop samples long.

    Parameters
    ----------
    magnitude
        Of frames under a Hann window as long as the transform.
    n_fft, hop_length
        Samples.
    start
        Phases to begin with, as numbers of modulus 1.
    n_iter
        Iterations.
    momentum
        Share of the last change that is added again [3]_; 0 is the plain algorithm [2]_.
    """
    window = torch.hann_window(n_fft, device=magnitude.device)
    phases, before = start, torch.zeros_like(start)
    for _ in range(n_iter):
        signal = torch.istft(magnitude * phases, n_fft, hop_length, window=window, center=True)
        now = torch.stft(signal, n_fft, hop_length, window=window, pad_mode="constant", return_complex=True)
        phases = now - momentum / (1 + momentum) * before
        phases = phases / phases.abs().clamp_min(1e-16)
        before = now
    return torch.istft(magnitude * phases, n_fft, hop_length, window=window, center=True)


def audio_of(mel: Float[Tensor, "c m s"], parameters: Parameters, seed: int, n_iter: int = 32) -> Float[Tensor, "c n"]:
    """Audio whose mel amplitudes come near to `mel`.

    The padding only draws the spectrum on a finer grid, so where it is a whole multiple of the window, phases are
    sought on the window's own grid: the same error in a third of the time.
    """
    p = parameters
    magnitude, n_fft = linear_amplitudes(mel, p), p.n_fft
    if p.n_fft % p.win_length == 0:
        magnitude, n_fft = magnitude[:, :: p.n_fft // p.win_length], p.win_length
    generator = torch.Generator().manual_seed(seed)
    turns = 2 * torch.pi * torch.rand(magnitude.shape, generator=generator).to(mel.device)
    start = torch.polar(torch.ones_like(turns), turns)
    return griffin_lim(magnitude, n_fft, p.hop_length, start, n_iter)


def image_of(mel: Float[Tensor, "c m s"], parameters: Parameters) -> tuple[Image, float]:
    """The picture (n_mels, columns, 3) of mel amplitudes, and its loudest value; silence is white."""
    loudest = float(mel.max())
    drawn = 255.0 - 255.0 * (mel.double() / (loudest or 1.0)) ** parameters.power
    pixels = drawn.numpy().astype(np.uint8)[:, ::-1]
    colours = (np.zeros_like(pixels[0]), pixels[0], pixels[-1]) if parameters.stereo else (pixels[0],) * 3
    return np.stack(colours, axis=-1), loudest


def amplitudes_of(image: Image, parameters: Parameters, loudest: float) -> Float[Tensor, "c m s"]:
    """Mel amplitudes of a picture (n_mels, columns, 3), to its 256 steps."""
    pixels = image[::-1, :, [1, 2] if parameters.stereo else [0]].transpose(2, 0, 1)
    shares = (255.0 - torch.from_numpy(np.ascontiguousarray(pixels)).double()) / 255.0
    amplitudes: Tensor = loudest * shares ** (1 / parameters.power)
    return amplitudes.float()
