"""Maps of how long each place of a picture of sound is held to its source while it is turned into something else.

Mask-Based Diffusion [1]_ makes its map of the picture itself: what is loud is held. Its three knobs are brightness,
contrast and downshift; `meaning` says what they come to. With the defaults the map is all but a threshold: contrast 200
tears the levels apart about their mean, of which brightness .05 has left 13, and the downshift says for what share of
the walk the loud places are held.

References
----------
.. [1] "Mask-Based Diffusion for Music Generation From Everyday Sounds", ECAI 2025: invert, brightness, contrast,
       downshift. Nested thresholds over the steps: `diffusion.guide.strength`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.ndimage
import scipy.signal
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

Grey = NDArray[np.uint8]

BRIGHTNESS, CONTRAST, DOWNSHIFT = 0.05, 200.0, 150

N_FFT, HOP = 4.0, 0.5
"""Of the transform that a change is limited with, in frames of the map; its window is Hann's, squared, whose side lobes
fall fast."""
MARGIN_BINS, MARGIN_FRAMES = 6, 2
"""How far from what is kept a change ends, in places of the map."""
EASE_S = 0.1
"""How slowly what is new is turned down."""
SEGMENT = 512
"""Steps of the transform that are limited at a time."""


@dataclass(frozen=True)
class Meaning:
    """What a map comes to."""

    held: float
    """Share of the picture that is held at all."""
    hold: float
    """Share of the walk for which the longest-held places are held."""
    threshold: int | None
    """The lightest grey of the picture that is still held, of 0 (loudest) to 255; None if none is."""
    levels: int
    """Different values of the map."""


def loudness(
    picture: Grey, brightness: float = BRIGHTNESS, contrast: float = CONTRAST, downshift: int = DOWNSHIFT
) -> Grey:
    """The published map of a picture (rows, columns) whose loud places are dark; 255 is held throughout.

    Parameters
    ----------
    picture
        Grey levels, as `spectrogram_image.image_of` draws them.
    brightness, contrast
        Factors as Pillow's ImageEnhance takes them.
    downshift
        Taken off at the end, 0 to 255.
    """
    inverted = ImageOps.invert(Image.fromarray(picture))
    raised = ImageEnhance.Contrast(ImageEnhance.Brightness(inverted).enhance(brightness)).enhance(contrast)
    held: Grey = np.maximum(np.asarray(raised).astype(int) - downshift, 0).astype(np.uint8)
    return held


def meaning(picture: Grey, held: Grey) -> Meaning:
    """What a map made of a picture comes to."""
    at_all = held > 0
    return Meaning(
        held=float(at_all.mean()),
        hold=float(held.max()) / 255,
        threshold=int(picture[at_all].max()) if at_all.any() else None,
        levels=len(np.unique(held)),
    )


def inner(free: Bool[Tensor, "bins frames"]) -> Bool[Tensor, "bins frames"]:
    """What of a free place lies so far inside that a change of it ends before what is kept."""
    sides = 2 * MARGIN_BINS + 1, 2 * MARGIN_FRAMES + 1
    return torch.from_numpy(scipy.ndimage.binary_erosion(free.numpy(), np.ones(sides, bool), border_value=1))


def limited(
    change: Float[Tensor, "c n"], free: Bool[Tensor, "bins frames"]
) -> Float[Tensor, "c n"]:
    """What there is of a sound, or of a change of one, where a sound may change.

    It ends `MARGIN_BINS` and `MARGIN_FRAMES` before the places that are kept, and what leaks there lies some 100 dB
    below it, so that taken out or put in it leaves these places what they are.

    Parameters
    ----------
    change
        The sound or the change.
    free
        Where it may be: the map's bins from 0 to half the sample rate, its frames one every `bins` samples from the
        first sample on.
    """
    clear = inner(free)
    bins, frames = clear.shape
    n_fft, hop = round(N_FFT * bins), round(HOP * bins)
    window = torch.hann_window(n_fft, dtype=change.dtype) ** 2
    row = (torch.arange(n_fft // 2 + 1) * 2 * bins / n_fft).long().clamp(max=bins - 1)
    out = torch.empty_like(change)
    for start in range(0, change.shape[1], SEGMENT * hop):
        before, stop = min(start, n_fft), start + SEGMENT * hop
        piece = change[:, start - before : stop + n_fft]
        n = piece.shape[1]
        spectrum = torch.stft(piece, n_fft, hop, window=window, pad_mode="constant", return_complex=True)
        centre = start - before + torch.arange(spectrum.shape[-1]) * hop
        column = ((centre + bins // 2) // bins).clamp(max=frames - 1)
        mask = clear[row][:, column].to(change.dtype)
        kept = torch.istft(spectrum * mask, n_fft, hop, window=window, length=n)
        out[:, start:stop] = kept[:, before : before + SEGMENT * hop]
    return out


def room(kept: NDArray[np.float64], new: NDArray[np.float64], sample_rate: int) -> NDArray[np.float64]:
    """What `new`, added to `kept`, is multiplied by, sample by sample, so that the sum stays within full scale.

    It moves slowly, so that what is new stays in its band, and what is kept is not turned down at all: where that is
    beyond full scale by itself, so is the sum.

    Parameters
    ----------
    kept, new
        Shape (channels, samples), full scale 1.

    Returns
    -------
    Shape (samples,), 0 to 1.
    """
    left = np.maximum(1.0 - np.abs(kept), 0.0)
    beyond = (np.abs(kept + new) > 1.0) & (left > 0)
    if not beyond.any():
        return np.ones(kept.shape[1])
    least = np.where(beyond, np.minimum(left / np.maximum(np.abs(new), 1e-12), 1.0), 1.0).min(axis=0)
    length = 2 * round(EASE_S * sample_rate / 2) + 1
    lowest = scipy.ndimage.minimum_filter1d(least, length, mode="nearest")
    shape = scipy.signal.windows.hann(length + 2)[1:-1]
    eased = scipy.signal.fftconvolve(np.pad(lowest, length // 2, mode="edge"), shape / shape.sum(), mode="valid")
    return np.asarray(np.clip(eased, 0.0, least))
