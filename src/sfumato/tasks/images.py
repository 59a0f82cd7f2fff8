"""Sounds as pictures in PNG files and back: the tools that came with Riffusion.

A picture holds the parameters it was drawn with, in the tags that Riffusion's files have. They are honoured when it is
read back, the loudest value too, so that a sound comes back at its level and parts of a longer one fit together.

References
----------
.. [1] S. Forsgren, H. Martiros, "Riffusion", 2022, github.com/riffusion/riffusion-hobby, riffusion/cli.py and
       spectrogram_params.py (MIT).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import Field

from sfumato.audio import Recording, open_recording, write
from sfumato.config import Settings as BaseSettings
from sfumato.diffusion.noise import chooser
from sfumato.errors import InputError
from sfumato.files import write_atomically
from sfumato.signal import spectrogram_image as images
from sfumato.signal import strength_map
from sfumato.signal.spectrogram_image import Parameters

TAGS = {
    "sample_rate": 11000,
    "stereo": 11005,
    "step_ms": 11010,
    "window_ms": 11020,
    "padded_ms": 11030,
    "n_mels": 11040,
    "f_min": 11050,
    "f_max": 11060,
    "power": 11070,
}
"""Parameter -> tag of the file."""
LOUDEST = 11080
"""Tag of the loudest mel amplitude, of a sound whose full scale is 32768."""
FULL_SCALE = 32768.0
WIDEST = 24_000
"""Columns of a picture: four minutes at the usual step, and about a gigabyte on the way back into sound."""
PEAK = 0.9
"""Peak of a sound whose picture doesn't say how loud it was."""
Array = NDArray[np.float64]
Progress = Callable[[int, int, str], None]


class Settings(BaseSettings):
    """How a sound is drawn."""

    step_size_ms: int = Field(10, ge=1, le=1000, description="width of a pixel, ms")
    num_frequencies: int = Field(512, ge=8, le=4096, description="height of the picture, mel bands")
    min_frequency: int = Field(0, ge=0, description="lowest frequency, Hz")
    max_frequency: int = Field(10_000, gt=0, description="highest frequency, Hz; 20000 for Riffusion's stereo variant")
    window_duration_ms: int = Field(100, ge=1, le=2000, description="length of the window, ms")
    padded_duration_ms: int = Field(400, ge=1, le=4000, description="length of the transform, ms")
    power_for_image: float = Field(0.25, gt=0, le=4, description="power that amplitudes are raised to")
    sample_rate: int = Field(44100, ge=1000, le=768_000, description="rate at which the sound is looked at, Hz")
    stereo: bool = Field(False, description="draw two channels, in green and blue")

    def parameters(self) -> Parameters:
        """The same as the picture's parameters.

        Raises
        ------
        InputError
            They don't fit together.
        """
        return checked(
            Parameters(
                sample_rate=self.sample_rate,
                stereo=self.stereo,
                step_ms=self.step_size_ms,
                window_ms=self.window_duration_ms,
                padded_ms=self.padded_duration_ms,
                n_mels=self.num_frequencies,
                f_min=self.min_frequency,
                f_max=self.max_frequency,
                power=self.power_for_image,
            )
        )


@dataclass(frozen=True)
class Picture:
    """A picture as it lies in a file."""

    pixels: NDArray[np.uint8]
    parameters: Parameters
    loudest: float | None
    """None if the file doesn't say."""
    tagged: bool
    """Whether the parameters are the file's own; otherwise they are Riffusion's."""


def checked(parameters: Parameters) -> Parameters:
    """`parameters`, if a picture can be drawn with them.

    Raises
    ------
    InputError
        Says which of them don't fit together.
    """
    p = parameters
    if not 0 <= p.f_min < p.f_max <= p.sample_rate / 2:
        raise InputError(
            f"Frequencies from {p.f_min} to {p.f_max} Hz at {p.sample_rate} Hz. Give a lowest one below the highest, "
            f"and that at most half the sample rate ({p.sample_rate // 2} Hz)."
        )
    if not p.step_ms * 2 <= p.window_ms <= p.padded_ms or not p.hop_length or p.n_fft > 1 << 20:
        raise InputError(
            f"A step of {p.step_ms} ms, a window of {p.window_ms} ms and a transform of {p.padded_ms} ms. The window "
            "must be at least two steps long and the transform at least as long as the window."
        )
    if not 1 <= p.n_mels <= 1 << 13 or not 0 < p.power <= 16:
        raise InputError(f"{p.n_mels} bands raised to {p.power:g}. Give up to 8192 bands, and a power of up to 16.")
    return p


def draw(audio: Array, sample_rate: int, parameters: Parameters) -> Picture:
    """The picture of audio (channels, samples).

    Raises
    ------
    InputError
        The audio is too short for the transform, or not finite.
    """
    p = parameters
    sound = audio[:2] if p.stereo else audio.mean(axis=0, keepdims=True)
    sound = np.repeat(sound, 2, axis=0) if p.stereo and len(sound) == 1 else sound
    if sample_rate != p.sample_rate:
        sound = soxr.resample(sound.T, sample_rate, p.sample_rate).T
    if sound.shape[1] <= p.n_fft // 2:
        least = (p.n_fft // 2 + 1) / p.sample_rate
        raise InputError(
            f"{audio.shape[1] / sample_rate:.3f} s of sound. A transform of {p.padded_ms} ms takes {least:.3f} s or "
            "more; give a longer sound or a shorter transform."
        )
    if not np.isfinite(sound).all():
        raise InputError("The sound has values that aren't finite. Repair it first: sfumato repair finds them.")
    mel = images.mel_amplitudes(torch.from_numpy(np.ascontiguousarray(sound, np.float32)), p)
    pixels, loudest = images.image_of(mel, p)
    return Picture(pixels, p, loudest, tagged=True)


def sound_of(picture: Picture, seed: int = 0, n_iter: int = 32) -> Array:
    """The sound (channels, samples) of a picture, at its parameters' rate.

    At the level that the picture tells, where that leaves it within full scale; otherwise its peak is 0.9.

    Raises
    ------
    InputError
        The picture is too wide, or its height isn't that of its parameters.
    """
    p, (height, width) = picture.parameters, picture.pixels.shape[:2]
    if height != p.n_mels:
        whose = "its parameters" if picture.tagged else "it doesn't say how it was drawn, and Riffusion's parameters"
        raise InputError(f"The picture has {height} rows; {whose} have {p.n_mels} bands. Scale it to {p.n_mels} rows.")
    if not 2 <= width <= WIDEST:
        raise InputError(f"The picture is {width} columns wide. From 2 to {WIDEST} can be turned into sound at once.")
    mel = images.amplitudes_of(picture.pixels, p, 1.0 if picture.loudest is None else picture.loudest)
    made = images.audio_of(mel, p, seed, n_iter).double().numpy()
    peak = float(np.abs(made).max())
    if picture.loudest is None or peak > 1:
        made *= PEAK / max(peak, 1e-12)
    return made


def write_picture(path: Path, picture: Picture) -> None:
    """A PNG file with its parameters as tags.

    Raises
    ------
    InputError
        The name isn't one of a PNG file.
    ResourceError
        It can't be written.
    """
    _check_png(path)
    image = Image.fromarray(picture.pixels)
    tags = image.getexif()
    for name, tag in TAGS.items():
        tags[tag] = getattr(picture.parameters, name)
    if picture.loudest is not None:
        tags[LOUDEST] = float(picture.loudest * FULL_SCALE)
    made = io.BytesIO()
    image.save(made, format="PNG", exif=tags)
    write_atomically(path, made.getvalue())


def _check_png(path: Path) -> None:
    """Refuse a name that isn't one of a PNG file."""
    if path.suffix.lower() != ".png":
        raise InputError(f"{path.name}: pictures are written as PNG, which loses nothing. Name it {path.stem}.png.")


def tags_of(path: Path) -> dict[str, float]:
    """Parameters by name as a picture's tags tell them, with `loudest`; empty where it has none.

    Raises
    ------
    InputError
        The file is no picture.
    """
    with _opened(path) as image:
        tags = image.getexif()
    found = {name: tags[tag] for name, tag in (*TAGS.items(), ("loudest", LOUDEST)) if tag in tags}
    try:
        return {name: float(value) for name, value in found.items()}
    except (TypeError, ValueError, ZeroDivisionError):
        raise InputError(f"{path}: its tags aren't numbers. Remove them, or give another file.") from None


def read_picture(path: Path) -> Picture:
    """A picture with its parameters; one that tells none is read with Riffusion's.

    Raises
    ------
    InputError
        The file is no picture, or its parameters can't be.
    """
    with _opened(path) as image:
        try:
            pixels = np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(f"{path} is a broken picture: {error}.") from None
    told = tags_of(path)
    loudest = told.pop("loudest", None)
    tagged = told.keys() == TAGS.keys()
    usual = asdict(Parameters())
    if not all(np.isfinite(value) for value in told.values()):
        raise InputError(f"{path}: its parameters aren't finite. Give another file.")
    if tagged:
        usual |= {name: type(usual[name])(value) for name, value in told.items()}
    parameters = Parameters(**usual)
    if loudest is not None and not 0 <= loudest < np.inf:
        loudest = None
    return Picture(pixels, checked(parameters), None if loudest is None else loudest / FULL_SCALE, tagged)


def _opened(path: Path) -> Image.Image:
    """An image that isn't read yet."""
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise InputError(f"{path} doesn't exist.") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path} is no picture that can be read ({type(error).__name__}).") from None


def audio_to_image(source: Path, destination: Path, settings: Settings) -> Picture:
    """Draw a recording."""
    parameters = settings.parameters()
    _check_png(destination)
    with open_recording(source) as recording:
        info = recording.info
        columns = 1 + 1000 * info.n_samples // (info.sample_rate * parameters.step_ms)
        if columns > WIDEST:
            raise InputError(
                f"{source} would be {columns} columns wide, and {WIDEST} fit into a picture. Cut it "
                "(sfumato image sample-clips), or give a longer step."
            )
        picture = draw(recording.read(0, info.n_samples), info.sample_rate, parameters)
    write_picture(destination, picture)
    return picture


def image_to_audio(source: Path, destination: Path, seed: int = 0, n_iter: int = 32) -> tuple[Picture, Array]:
    """Turn a picture into a recording."""
    picture = read_picture(source)
    audio = sound_of(picture, seed, n_iter)
    write(destination, audio, picture.parameters.sample_rate)
    return picture, audio


def draw_mask(
    source: Path, destination: Path, brightness: float, contrast: float, downshift: int
) -> strength_map.Meaning:
    """Draw the published map of a picture, white where it is held to its source throughout; what it comes to.

    Raises
    ------
    InputError
        The file is no picture, or the name isn't one of a PNG file.
    """
    _check_png(destination)
    grey = np.asarray(Image.fromarray(read_picture(source).pixels).convert("L"))
    held = strength_map.loudness(grey, brightness, contrast, downshift)
    made = io.BytesIO()
    Image.fromarray(held).save(made, format="PNG")
    write_atomically(destination, made.getvalue())
    return strength_map.meaning(grey, held)


def sample_clips(
    source: Path, folder: Path, count: int, duration_ms: int, mono: bool, extension: str, seed: int
) -> Iterator[Path]:
    """Cut `count` clips of a recording at random places and write them, named by place and length.

    Raises
    ------
    InputError
        The recording is shorter than a clip.
    """
    with open_recording(source) as recording:
        yield from _clips(recording, source.stem, folder, count, duration_ms, mono, extension, seed)


def _clips(
    recording: Recording, stem: str, folder: Path, count: int, duration_ms: int, mono: bool, extension: str, seed: int
) -> Iterator[Path]:
    """The clips of an open recording."""
    info = recording.info
    n = round(duration_ms * info.sample_rate / 1000)
    if info.n_samples < n:
        raise InputError(f"{info.path.name} lasts {info.n_samples / info.sample_rate:.3f} s, a clip {duration_ms} ms.")
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        start = int(chooser(seed=seed, item=number).integers(info.n_samples - n + 1))
        audio = recording.read(start, start + n)
        name = f"{stem}_{number}_start_{round(1000 * start / info.sample_rate)}_ms_dur_{duration_ms}_ms.{extension}"
        write(folder / name, audio.mean(axis=0, keepdims=True) if mono else audio, info.sample_rate, "PCM_16")
        yield folder / name
