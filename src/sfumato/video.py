"""Pictures of videos, decoded where a crash ends nothing but the decoder (see :mod:`sfumato.decoding`)."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.decoding import Limits, decode, open_regular


@dataclass(frozen=True)
class Frame:
    """A picture of a video."""

    pixels: NDArray[np.uint8]
    """Red, green and blue, shape ``(height, width, 3)``, the way up that it is shown."""
    at_s: float
    """When it begins to be shown, seconds."""


def frame(path: Path, at_s: float | None = None, limits: Limits | None = None) -> Frame:
    """What a video shows at a time in seconds, by default in its middle.

    Raises
    ------
    InputError
        It is no video, ends before, or can't be decoded.
    MissingExtraError
        The extra `media` isn't installed.
    ResourceError
        It can't be read for lack of permission, or the picture doesn't fit on the disk.
    """
    source = open_regular(path)
    try:
        with tempfile.TemporaryFile(buffering=0) as raw:
            head, _ = decode(path, source, raw.fileno(), limits or Limits(), 0, frame_s=at_s)
            raw.seek(0)
            pixels = np.frombuffer(raw.read(), np.uint8)
    finally:
        os.close(source)
    return Frame(pixels.reshape(head["height"], head["width"], 3), head["at_s"])
