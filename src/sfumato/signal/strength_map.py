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

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

Grey = NDArray[np.uint8]

BRIGHTNESS, CONTRAST, DOWNSHIFT = 0.05, 200.0, 150


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
