"""Encoding blocks of samples into an open file: what a file name asks for, and the codecs.

Used by :mod:`sfumato.audio`, which owns files, errors of the disk and edits.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from sfumato.errors import InputError, MissingExtraError

# libsndfile's Vorbis encoder overflows its stack on long blocks, so nothing hands it more than this.
BLOCK_FRAMES = 65_536
# The first container of a suffix is the one made when the recording has none of them.
CONTAINERS = {
    ".wav": ("WAV", "WAVEX", "RF64"),
    ".wave": ("WAV", "WAVEX", "RF64"),
    ".rf64": ("RF64",),
    ".w64": ("W64",),
    ".flac": ("FLAC",),
    ".aif": ("AIFF",),
    ".aiff": ("AIFF",),
    ".aifc": ("AIFF",),
    ".au": ("AU",),
    ".caf": ("CAF",),
    ".ogg": ("OGG",),
    ".oga": ("OGG",),
    ".opus": ("OGG",),
    ".mp3": ("MP3",),
    ".m4a": ("M4A",),
}
INTEGER_BITS = {
    "PCM_S8": 8,
    "PCM_U8": 8,
    "PCM_16": 16,
    "PCM_24": 24,
    "PCM_32": 32,
    "ULAW": 16,
    "ALAW": 16,
}
# libsndfile's scale from 0, the best, to 1. What is encoded a second time should lose little more.
COMPRESSION_LEVEL = {"VORBIS": 0.1, "OPUS": 0.1, "MPEG_LAYER_III": 0.0}
LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
AAC_BITS_PER_CHANNEL = 160_000
_WAV_MAX_BYTES = 2**32 - 2**20
_SYSTEM_ERROR = 2  # libsndfile's SF_ERR_SYSTEM


@dataclass(frozen=True)
class Target:
    """How samples are stored; `bits` are those used of each integer sample, 0 for floating point."""

    container: str
    subtype: str
    sample_rate: int
    channels: int
    dtype: np.dtype[Any]
    bits: int

    @property
    def holds_any_float(self) -> bool:
        """Whether values beyond full scale, NaN and infinity can be stored."""
        return self.subtype in ("FLOAT", "DOUBLE")


def choose(
    suffix: str, container: str, subtype: str, bits: int, sample_rate: int, channels: int, n_samples: int
) -> Target:
    """Return how to store a recording under a file name with `suffix`.

    Container and subtype stay where the suffix allows. Otherwise integers become integers of at least as many
    bits where the container has them, floating point stays floating point or becomes 24 bits, and lossy formats
    take all: Vorbis for .ogg, Opus for .opus, MP3 for .mp3; .m4a is ALAC for integers, else AAC.

    Parameters
    ----------
    suffix
        With its dot.
    container, subtype, bits
        Of the recording; `bits` is 0 for floating point.
    sample_rate, channels, n_samples
        Of the recording, in Hz, and samples per channel.

    Raises
    ------
    InputError
        If nothing is known of the suffix.
    """
    allowed = CONTAINERS.get(suffix.lower())
    if allowed is None:
        known = " ".join(CONTAINERS)
        raise InputError(f"A file name ending in '{suffix}' does not say how to store audio. Use one of: {known}.")
    container = container if container in allowed else allowed[0]
    subtype = _subtype(container, suffix.lower(), subtype, bits)
    if subtype == "ALAC" and container == "M4A":
        kept_bits = 16 if 0 < bits <= 16 else 24
    else:
        kept_bits = INTEGER_BITS.get(subtype, 16 if subtype == "ALAC_16" else 0)
    if container == "WAV" and n_samples * channels * (kept_bits or 64) // 8 > _WAV_MAX_BYTES:
        container = "RF64"
    if kept_bits:
        dtype = np.dtype(np.int16 if kept_bits <= 16 else np.int32)
    else:
        dtype = np.dtype(np.float64 if subtype == "DOUBLE" else np.float32)
    return Target(container, subtype, sample_rate, channels, dtype, kept_bits)


def _subtype(container: str, suffix: str, subtype: str, bits: int) -> str:
    """Return the subtype that a container gets for a recording of `subtype`."""
    if container == "M4A":
        return subtype if subtype in ("AAC", "ALAC") else ("ALAC" if bits else "AAC")
    if container == "MP3":
        return "MPEG_LAYER_III"
    if container == "OGG":
        return "OPUS" if suffix == ".opus" or subtype == "OPUS" else "VORBIS"
    # Not CAF's ALAC of more than 16 bits: libsndfile corrupts the heap when it writes that.
    keep = (*INTEGER_BITS, "FLOAT", "DOUBLE", "ALAC_16")
    if subtype in keep and soundfile.check_format(container, subtype):
        return subtype
    if bits:
        wanted = ["PCM_16"] if bits <= 16 else ["PCM_24"] if bits <= 24 else ["PCM_32", "PCM_24"]
    else:
        wanted = ["FLOAT", "PCM_24"]
    return next(name for name in wanted if soundfile.check_format(container, name))


def quantise(audio: NDArray[np.float64], target: Target) -> NDArray[Any]:
    """Return samples as they are stored: rounded to the nearest step, held within full scale, without dither.

    Raises
    ------
    InputError
        If a value isn't finite and the format can't store that.
    """
    if target.holds_any_float:
        return audio.astype(target.dtype)
    if not np.isfinite(audio).all():
        name = f"{target.container} {target.subtype}"
        raise InputError(f"{name} can't store NaN or infinite samples. Repair them all, or write a FLOAT .wav.")
    if not target.bits:
        return audio.astype(target.dtype)
    scale = 2.0 ** (target.bits - 1)
    steps = np.clip(np.rint(audio * scale), -scale, scale - 1)
    steps *= 2.0 ** (8 * target.dtype.itemsize - target.bits)
    return steps.astype(target.dtype)


def encode(file: int, target: Target, tags: Mapping[str, str], blocks: Iterable[NDArray[Any]], n_samples: int) -> None:
    """Encode blocks of shape (samples, channels), in the target's type, into an open file.

    Raises
    ------
    InputError
        If the format can't hold this sample rate or number of channels.
    MissingExtraError
        If PyAV is needed and not installed.
    OSError
        If the file can't be written.
    """
    if target.container == "M4A":
        _encode_ffmpeg(file, target, tags, blocks)
    else:
        _encode_soundfile(file, target, tags, blocks, n_samples)


def _encode_soundfile(
    file: int, target: Target, tags: Mapping[str, str], blocks: Iterable[NDArray[Any]], n_samples: int
) -> None:
    try:
        sound = soundfile.SoundFile(
            file,
            "w",
            target.sample_rate,
            target.channels,
            target.subtype,
            format=target.container,
            closefd=False,
            compression_level=COMPRESSION_LEVEL.get(target.subtype),
        )
    except soundfile.LibsndfileError as error:
        if error.code == _SYSTEM_ERROR:
            raise _failed(file) from error
        raise _unsuited(target, error.error_string) from error
    try:
        with sound:
            for name, value in tags.items():
                with suppress(soundfile.LibsndfileError):  # a container without that tag
                    setattr(sound, name, value)
            for block in blocks:
                sound.write(block)
        os.lseek(file, 0, os.SEEK_SET)
        with soundfile.SoundFile(file, closefd=False) as written:
            whole = written.frames == n_samples
    except (
        soundfile.LibsndfileError,
        AssertionError,
    ) as error:  # soundfile asserts that a block went out whole
        raise _failed(file) from error
    if not whole:
        raise _failed(file)


def _failed(file: int) -> OSError:
    """Return what the disk did: libsndfile keeps no error number, so ask for one more byte."""
    try:
        os.lseek(file, 0, os.SEEK_END)
        os.write(file, bytes(65_536))
    except OSError as error:
        return error
    return OSError(errno.EIO, os.strerror(errno.EIO))


def _unsuited(target: Target, reason: str) -> InputError:
    return InputError(
        f"{target.container} {target.subtype} can't hold {target.channels} channels at {target.sample_rate} Hz: "
        f"{reason.removeprefix('Error : ').rstrip('.')}. Choose another file name ending, such as .wav."
    )


def _encode_ffmpeg(file: int, target: Target, tags: Mapping[str, str], blocks: Iterable[NDArray[Any]]) -> None:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("PyAV to write M4A", "media") from error
    if target.channels not in LAYOUTS:
        raise _unsuited(target, f"it has layouts for {', '.join(map(str, LAYOUTS))} channels")
    layout = LAYOUTS[target.channels]
    packed = {"int16": "s16", "int32": "s32", "float32": "flt"}[target.dtype.name]
    with os.fdopen(file, "wb", closefd=False) as sink:
        try:
            # A time scale of one sample makes the edit list, and with it the decoded length, exact.
            options = {"movie_timescale": str(target.sample_rate)}
            with av.open(sink, "w", format="ipod", options=options) as container:
                container.metadata.update(tags)
                stream: Any = container.add_stream(target.subtype.lower(), rate=target.sample_rate)
                stream.layout = layout
                stream.format = packed + "p"
                if target.subtype == "AAC":
                    stream.bit_rate = AAC_BITS_PER_CHANNEL * target.channels
                at = 0
                for block in blocks:
                    packed_block = np.ascontiguousarray(block).reshape(1, -1)
                    frame = av.AudioFrame.from_ndarray(packed_block, format=packed, layout=layout)
                    frame.sample_rate, frame.pts = target.sample_rate, at
                    at += len(block)
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
        except av.FFmpegError as error:
            if isinstance(error, av.error.PyAVCallbackError):  # the sink failed
                raise _failed(file) from error
            raise _unsuited(target, str(error)) from error
