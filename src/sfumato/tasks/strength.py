"""How much each place of a sound may change: maps of time and frequency, from 0 (kept) to 1 (drawn anew).

A map is made by selectors, of what is heard there (loudness, harmonics, hits, onsets), of where it is (boxes, a
gradient), or of a picture. Its values are strengths (`systems.everyday`).

References
----------
D. Fitzgerald, "Harmonic/percussive separation using median filtering", DAFx 2010, for harmonics and hits; with their
squared magnitudes as soft masks.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from sfumato.errors import InputError
from sfumato.signal import complex_spectrogram, spectrogram_image

if TYPE_CHECKING:
    from jaxtyping import Complex
    from torch import Tensor

Map = NDArray[np.float64]
"""(bins, frames), low bins first; 0 is kept, 1 drawn anew."""

SELECTORS = ("all", "loud", "quiet", "harmonic", "percussive", "onset", "gradient", "low", "high")
SECONDS, HERTZ = 0.2, 500.0
"""Lengths of the medians that tell harmonics from hits."""
RANGE_DB = 60.0
"""Levels below the loudest place at which a place counts as silent."""
CROSSOVER_HZ, OCTAVES = 800.0, 1.0
"""Where "low" and "high" part, and over how many octaves they do."""
ONSET_S = 0.08
"""How long an onset lasts."""


def of(asked: str, bins: Complex[Tensor, "f t"], sample_rate: float, invert: bool = False) -> Map:
    """The map that is asked for: a selector's (`selected`), boxes (`boxes`), or a picture's (`pictured`).

    Parameters
    ----------
    bins
        Of `complex_spectrogram.bins`: what the map is laid on, and what selectors go by.
    invert
        Turn it round.

    Raises
    ------
    InputError
        There is no such selector, a box is empty, or the picture can't be used.
    """
    rows, columns = bins.shape
    if is_boxes(asked):
        found = boxes(asked, rows, columns, sample_rate)
    elif asked.lower().endswith(".png"):
        found = pictured(Path(asked), rows, columns, sample_rate, spectrogram_image.Parameters().f_max)
    else:
        found = selected(asked, bins, sample_rate)
    return 1 - found if invert else found


def selected(name: str, bins: Complex[Tensor, "f t"], sample_rate: float) -> Map:
    """Where a sound may change, by what is meant by a word.

    all          everywhere
    loud         the louder, the more it changes; silence is kept
    quiet        the other way round
    harmonic     what sustains changes, hits are kept
    percussive   hits change, what sustains is kept
    onset        the first moments of each note or hit change
    gradient     from nothing at the start to everything at the end
    low, high    below or above 800 Hz

    Parameters
    ----------
    bins
        Of `complex_spectrogram.bins`.

    Raises
    ------
    InputError
        There is no such selector.
    """
    magnitude = bins.abs().double().numpy()
    rows, columns = magnitude.shape
    hertz = complex_spectrogram.frequencies(rows, sample_rate).double().numpy()
    if name == "all":
        return np.ones((rows, columns))
    if name in ("loud", "quiet"):
        level = 20 * np.log10(np.maximum(magnitude, 1e-12) / max(float(magnitude.max()), 1e-12))
        loud = np.clip(1 + level / RANGE_DB, 0, 1)
        return np.asarray(loud if name == "loud" else 1 - loud)
    if name in ("harmonic", "percussive"):
        sustained, hit = _separated(magnitude, sample_rate)
        both = sustained**2 + hit**2
        share = np.where(both > 1e-20, (sustained if name == "harmonic" else hit) ** 2 / np.maximum(both, 1e-20), 0.0)
        return np.asarray(share)
    if name == "onset":
        return np.tile(_onsets(magnitude, sample_rate), (rows, 1))
    if name == "gradient":
        return np.tile(np.linspace(0, 1, columns), (rows, 1))
    if name in ("low", "high"):
        high = np.clip(0.5 + np.log2(hertz / CROSSOVER_HZ) / OCTAVES, 0, 1)
        return np.tile((high if name == "high" else 1 - high)[:, None], (1, columns))
    if Path(name).suffix:
        raise InputError(f"The mask '{name}' is no PNG. A mask file is a grey PNG: white stays, black changes.")
    raise InputError(f"There is no mask '{name}'. Give one of {', '.join(SELECTORS)}, boxes, or a grey picture (.png).")


def _separated(magnitude: Map, sample_rate: float) -> tuple[Map, Map]:
    """What sustains and what hits, by medians over time and over frequency."""
    half = len(magnitude)
    over_time = max(3, round(SECONDS * sample_rate / half) | 1)
    over_frequency = max(3, round(HERTZ / (sample_rate / (2 * half))) | 1)
    sustained = scipy.ndimage.median_filter(magnitude, (1, over_time), mode="nearest")
    return sustained, scipy.ndimage.median_filter(magnitude, (over_frequency, 1), mode="nearest")


def _onsets(magnitude: Map, sample_rate: float) -> Map:
    """For each frame 1 where something begins, falling to 0 within `ONSET_S`."""
    level = np.log1p(100 * magnitude / max(float(magnitude.max()), 1e-12))
    rise = np.maximum(np.diff(level, axis=1, prepend=level[:, :1]), 0).mean(axis=0)
    strongest = float(rise.max())
    if strongest <= 1e-6:
        return np.zeros(magnitude.shape[1])
    frames = max(1, round(ONSET_S * sample_rate / len(magnitude)))
    peak = np.clip(rise / strongest * 2, 0, 1) * (rise > 0.2 * strongest)
    falling = [np.pad(peak, (k, 0))[: len(peak)] * (1 - k / (frames + 1)) for k in range(frames + 1)]
    return np.asarray(np.max(falling, axis=0))


_BOX = re.compile(r"\s*([\d.]*)\s*:\s*([\d.]*)\s*(?:@\s*([\d.]*)\s*:\s*([\d.]*)\s*)?(?:=\s*([\d.]+)\s*)?")


def boxes(text: str, rows: int, columns: int, sample_rate: float) -> Map:
    """A map that is painted: boxes such as ``1:2.5@200:4000=0.8``, parted by commas, the later over the earlier.

    Seconds from and to, then hertz from and to, then the strength; what is left out is the start, the end, all
    frequencies, 1. What lies in no box is kept.

    Raises
    ------
    InputError
        A box can't be read, or is empty.
    """
    seconds = np.arange(columns) * rows / sample_rate
    hertz = complex_spectrogram.frequencies(rows, sample_rate).double().numpy()
    painted = np.zeros((rows, columns))
    for box in text.split(","):
        match = _BOX.fullmatch(box)
        try:
            parts = match.groups() if match else ()
            first, last, low, high, value = (float(part) if part else None for part in parts)
        except ValueError:
            raise InputError(f"'{box}' is no box. Write seconds, hertz, strength, as 1:2.5@200:4000=0.8.") from None
        when = (seconds >= (first or 0)) & (seconds <= (np.inf if last is None else last))
        where = (hertz >= (low or 0)) & (hertz <= (np.inf if high is None else high))
        if not when.any() or not where.any():
            raise InputError(f"Box '{box}' holds nothing of the sound ({seconds[-1]:.2f} s, {sample_rate / 2:.0f} Hz).")
        if value is not None and value > 1:
            raise InputError(f"Box '{box}' has a strength of {value:g}. Give 0 (kept) to 1 (drawn anew).")
        painted[np.ix_(where, when)] = 1.0 if value is None else value
    return painted


def is_boxes(text: str) -> bool:
    """Whether a text is meant for `boxes`."""
    return ":" in text and not text.lower().endswith(".png")


def pictured(path: Path, rows: int, columns: int, sample_rate: float, hertz_max: float) -> Map:
    """The map of a picture: time to the right, frequency as in Riffusion's pictures; white is kept, black changes.

    Parameters
    ----------
    hertz_max
        Frequency of its upper edge; above it the topmost row holds.

    Raises
    ------
    InputError
        It can't be read, or has not one grey level a pixel.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            if image.format != "PNG":
                raise InputError(f"{path} is a {image.format}. Give a PNG: JPEG changes grey levels.")
            if image.mode not in ("1", "L", "P", "RGB"):
                raise InputError(f"{path} has pixels of the mode {image.mode}. Save it as 8-bit grey, without alpha.")
            grey = np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} can't be read as a picture: {error}.") from None
    if (grey != grey[..., :1]).any():
        raise InputError(f"{path} is in colours. A mask is grey: white is kept, black is drawn anew.")
    return from_picture(grey[..., 0], rows, columns, sample_rate, hertz_max)


def from_picture(grey: NDArray[np.uint8], rows: int, columns: int, sample_rate: float, hertz_max: float) -> Map:
    """Strengths of a picture whose rows are mel bands from `hertz_max` down to 0, its columns even in time.

    A place that is in part kept is kept: of the pixels that it covers the lightest counts.
    """
    hertz = np.arange(rows) * sample_rate / (2 * rows)
    mel = np.log10(1 + hertz / 700) / np.log10(1 + hertz_max / 700)
    height, width = grey.shape
    first_row = np.minimum(mel * height, height - 1).astype(int)
    first_column = np.arange(columns) * width // columns
    lightest = np.maximum.reduceat(np.maximum.reduceat(grey[::-1], first_row, axis=0), first_column, axis=1)
    return 1 - lightest / 255.0
