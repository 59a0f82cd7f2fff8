"""An invertible constant-Q transform: a nonstationary Gabor frame over frequency, sampled octave by octave.

Each band is a window laid over the DFT of the whole signal, its width proportional to its centre; the inverse DFT of
what it cuts out is the band's signal over time. The bands of an octave get as many time frames, a power of two, so
that an octave is a picture. The windows overlap so little that the frame operator is diagonal ("painless"), and the
dual windows are the windows divided by that diagonal [1]_.

References
----------
.. [1] G. A. Velasco, N. Holighaus, M. Dörfler, T. Grill, "Constructing an invertible constant-Q transform with
   nonstationary Gabor frames", DAFx 2011.
.. [2] N. Holighaus, M. Dörfler, G. A. Velasco, T. Grill, "A framework for invertible, real-time constant-Q
   transforms", IEEE TASLP 21(4), 2013, arXiv 1210.0084.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import i0
from torch import Tensor, nn

from sfumato.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Complex, Float

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

MIN_WIDTH = 4
"""DFT bins of the narrowest window."""
BELOW_NYQUIST_HZ = 1e-6
"""How far below the Nyquist frequency the uppermost band is centred, before it is moved to make room."""


@dataclass(frozen=True)
class _Band:
    """One window over the DFT."""

    bins: Indices
    """``(width,)``: where it lies, in DFT bins; may reach below 0 or beyond the Nyquist bin."""
    window: Array
    """``(width,)``."""
    n_frames: int
    """Length of the band's signal; at least `width`, which is what makes the frame painless."""

    @property
    def centre(self) -> int:
        """The bin that the band is centred on, and that is shifted to frequency 0."""
        return int(self.bins[len(self.bins) // 2])


class ConstantQ(nn.Module):
    """The transform of signals of one length, a differentiable module without weights.

    ``forward`` gives a list of octaves, lowest first, each ``(..., bins_per_octave, frames)``, complex; ``inverse``
    takes it back. Frames double from octave to octave, give or take the rounding to powers of two. What lies below
    the lowest band (and half a band below the Nyquist frequency) is in no octave: ``inverse(forward(x))`` is `x`
    without it.

    Parameters
    ----------
    n_octaves, bins_per_octave
        The bands' centres are spaced evenly in log frequency from ``sample_rate / 2 ** (n_octaves + 1)`` to
        ``sample_rate / 2``, both ends included.
    sample_rate
        Hz.
    n_samples
        Length of the signals.
    beta
        How much the windows taper: a window is ``I0(beta cos(pi d / width)) / (2 I0(beta))`` at `d` bins from its
        centre. 0 is a rectangle.

    Raises
    ------
    InputError
        The signals are too short for so many bands.

    Notes
    -----
    Equal to the octave mode of the transform that CQT-Diff+ was trained with, whence the window (a Kaiser window in a
    warped variable), windows of odd width being centred half a bin below their middle, the rules for widths, and the
    frames of the mirror images, which are those of the band below: they count where an image meets the Nyquist bin.
    """

    kept: Tensor

    def __init__(
        self, n_octaves: int, bins_per_octave: int, sample_rate: float, n_samples: int, beta: float = 1.0
    ) -> None:
        super().__init__()
        if n_octaves < 1 or bins_per_octave < 2 or sample_rate <= 0 or beta < 0:
            raise InputError(
                f"{n_octaves} octaves of {bins_per_octave} bands at {sample_rate} Hz, beta {beta}. Give at least "
                "1 octave, 2 bands, a rate above 0 and a beta of 0 or more."
            )
        self.n_octaves, self.bins_per_octave = n_octaves, bins_per_octave
        self.sample_rate, self.n_samples = sample_rate, n_samples
        bands = _bands(n_octaves, bins_per_octave, sample_rate, n_samples, beta)
        diagonal = np.zeros(n_samples)
        for band in bands:
            np.add.at(diagonal, band.bins % n_samples, band.n_frames * band.window**2)
        inner = bands[1 : n_octaves * bins_per_octave + 1]
        self.centres_hz = [band.centre * sample_rate / n_samples for band in inner]
        for octave in range(n_octaves):
            tables = _tables(inner[octave * bins_per_octave : (octave + 1) * bins_per_octave], diagonal)
            for name, table in zip(("index", "analysis", "synthesis"), tables, strict=True):
                self.register_buffer(f"{name}{octave}", torch.from_numpy(table), persistent=False)
        low, high = bands[0], bands[len(inner) + 1]
        self.register_buffer("kept", torch.from_numpy(_kept(low, high, diagonal)), persistent=False)

    @property
    def n_frames(self) -> list[int]:
        """Frames of each octave, lowest first."""
        return [self.get_buffer(f"index{octave}").shape[1] for octave in range(self.n_octaves)]

    def forward(self, x: Float[Tensor, "*b t"]) -> list[Complex[Tensor, "*b bins frames"]]:
        """The octaves of real signals, lowest first."""
        self._check(x.shape[-1])
        spectrum = torch.fft.rfft(x)
        octaves = []
        for octave in range(self.n_octaves):
            index, analysis = self.get_buffer(f"index{octave}"), self.get_buffer(f"analysis{octave}")
            cut = spectrum.index_select(-1, index.flatten()).unflatten(-1, index.shape)
            octaves.append(torch.fft.ifft(cut * analysis))
        return octaves

    def inverse(self, octaves: list[Complex[Tensor, "*b bins frames"]]) -> Float[Tensor, "*b t"]:
        """The signals of octaves, real."""
        lead = octaves[0].shape[:-2]
        spectrum = octaves[0].new_zeros(*lead, self.n_samples // 2 + 1)
        for octave, coefficients in enumerate(octaves):
            index, synthesis = self.get_buffer(f"index{octave}"), self.get_buffer(f"synthesis{octave}")
            laid = (torch.fft.fft(coefficients) * synthesis).flatten(-2)
            spectrum = spectrum.index_add(-1, index.flatten(), laid)
        x: Tensor = torch.fft.irfft(spectrum, n=self.n_samples)
        return x

    def covered(self, x: Float[Tensor, "*b t"]) -> Float[Tensor, "*b t"]:
        """`x` without the bands at frequency 0 and at the Nyquist frequency, which are in no octave.

        Notes
        -----
        It is ``inverse(forward(x))`` but for a handful of bins at the borders of the two bands, whose products
        CQT-Diff+'s own filter lays one bin aside when they are of odd width, and whose images it counts otherwise. A
        checkpoint deserves the filter it was tried with.
        """
        self._check(x.shape[-1])
        rest: Tensor = torch.fft.irfft(torch.fft.rfft(x) * self.kept, n=self.n_samples)
        return rest

    def _check(self, n_samples: int) -> None:
        if n_samples != self.n_samples:
            raise InputError(f"A signal of {n_samples} samples. This transform is for {self.n_samples} samples.")


def _bands(n_octaves: int, bins_per_octave: int, sample_rate: float, n_samples: int, beta: float) -> list[_Band]:
    """All windows around the circle of DFT bins: at 0, upwards, at the Nyquist bin, and the mirror images."""
    n_bands = n_octaves * bins_per_octave
    top = sample_rate / 2 - BELOW_NYQUIST_HZ
    ratio = 2.0 ** (n_octaves / (n_bands - 1))
    lowest = top / 2.0**n_octaves
    up = lowest * ratio ** np.arange(n_bands)
    place = np.concatenate([[0.0], up, [sample_rate / 2], sample_rate - up[::-1]]) * (n_samples / sample_rate)

    width = np.zeros(n_bands + 2)
    width[0] = 2 * place[1]
    width[1] = place[1] * 2 * (ratio - 1) / np.sqrt(ratio)
    width[2:-1] = place[3 : n_bands + 2] - place[1:n_bands]
    width[-1] = width[-2]
    widths = np.maximum(np.round(width).astype(np.int64), MIN_WIDTH)

    # The two bands beside the Nyquist band move to the middle between their neighbours.
    place[n_bands] = (place[n_bands - 1] + place[n_bands + 1]) / 2
    place[n_bands + 2] = n_samples - place[n_bands]
    centres = np.round(place).astype(np.int64)

    frames = widths.copy()
    for first in range(1, n_bands + 1, bins_per_octave):
        octave = slice(first, first + bins_per_octave)
        frames[octave] = 2 ** int(np.ceil(np.log2(widths[octave].max())))
    # From the Nyquist band on, the frames of the band below: see the notes of `ConstantQ`.
    late = np.concatenate([[0, widths[1]], frames[1:-1]])
    bands = [_band(int(centres[k]), int(widths[k]), int(frames[k]), beta) for k in range(n_bands + 1)]
    for k in range(n_bands + 1, 0, -1):
        bands.append(_band(int(centres[len(bands)]), int(widths[k]), int(late[k]), beta))
    if any(band.bins[0] < 0 or band.bins[-1] > n_samples // 2 for band in bands[1 : n_bands + 1]):
        raise InputError(
            f"{n_octaves} octaves of {bins_per_octave} bands in {n_samples} samples: a band reaches beyond the "
            "spectrum. Give longer signals, an even length, or fewer bands."
        )
    return bands


def _band(centre: int, width: int, n_frames: int, beta: float) -> _Band:
    offset = np.arange(-(width // 2), width - width // 2)
    bend = np.cos(np.pi * (offset + (width % 2) / 2) / width)
    return _Band(centre + offset, i0(beta * bend) / (2 * i0(beta)), n_frames)


def _tables(bands: list[_Band], diagonal: Array) -> tuple[Indices, NDArray[np.float32], NDArray[np.float32]]:
    """``(bands, frames)`` each: DFT bin behind every coefficient's own DFT, its window and its dual, 0 where none."""
    index = np.zeros((len(bands), bands[0].n_frames), np.int64)
    analysis, synthesis = np.zeros(index.shape, np.float32), np.zeros(index.shape, np.float32)
    for row, band in enumerate(bands):
        place = (band.bins - band.centre) % band.n_frames
        index[row, place] = band.bins
        analysis[row, place] = band.window
        synthesis[row, place] = band.n_frames * band.window / diagonal[band.bins]
    return index, analysis, synthesis


def _kept(low: _Band, high: _Band, diagonal: Array) -> NDArray[np.float32]:
    """Response of `ConstantQ.covered` at the bins of a real signal's DFT."""
    n = len(diagonal)
    response = np.ones(n)
    for band, shift in ((low, -(len(low.bins) % 2)), (high, 0)):
        share = band.n_frames * band.window**2 / diagonal[band.bins % n]
        response[(band.bins + shift) % n] -= np.roll(share, len(share) % 2)
    mirrored = response[-np.arange(n) % n]
    return np.asarray((response + mirrored)[: n // 2 + 1] / 2, dtype=np.float32)
