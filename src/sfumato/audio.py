"""Reading and writing recordings of any length in bounded memory.

Every input is decoded by a supervised child process (:mod:`sfumato.decoding`) into an unnamed temporary file of
raw samples, in a type that holds the file's samples exactly. From there it is read by window, and copied into new
files block by block. POSIX systems only.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

import numpy as np
import soundfile
from numpy.typing import NDArray

from sfumato.decoding import Limits, decode, open_regular, shown
from sfumato.encoding import BLOCK_FRAMES, INTEGER_BITS, Target, choose, encode, quantise
from sfumato.errors import InputError, ResourceError
from sfumato.files import replacing

FloatT = TypeVar("FloatT", bound=np.floating[Any])
Edit = tuple[int, NDArray[np.floating[Any]]]

_KEEP_FREE_BYTES = 256 << 20


@dataclass(frozen=True)
class AudioInfo:
    """What a recording is.

    Parameters
    ----------
    path
        The file as given.
    sample_rate
        In Hz.
    channels
        Number of channels.
    n_samples
        Samples per channel that were really decoded, whatever the header says.
    container, subtype
        libsndfile's names, such as WAV and PCM_16; otherwise FFmpeg's, such as M4A and AAC.
    nonfinite
        Number of NaN and infinite values.
    truncated
        Whether the file ends early or holds parts that couldn't be decoded.
    tags
        Title, artist and the like.
    """

    path: Path
    sample_rate: int
    channels: int
    n_samples: int
    container: str
    subtype: str
    nonfinite: int = 0
    truncated: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)


class Recording:
    """A decoded file, read by window. Close it, or use it as a context manager.

    Parameters
    ----------
    info
        What it is.
    raw
        Interleaved samples.
    dtype
        NumPy type of the samples in `raw`.
    bits
        Bits that the format uses of each integer sample, 0 for floating point.
    """

    def __init__(self, info: AudioInfo, raw: IO[bytes], dtype: str, bits: int) -> None:
        self.info, self.dtype, self.bits = info, np.dtype(dtype), bits
        self._raw = raw

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the temporary file back."""
        self._raw.close()

    def read(self, start: int, stop: int) -> NDArray[np.float64]:
        """Return samples `start` to `stop` (exclusive), shape (channels, samples), full scale 1.

        Raises
        ------
        InputError
            If the window isn't inside the recording.
        """
        return to_float(self.read_raw(start, stop)).T.copy()

    def read_raw(self, start: int, stop: int) -> NDArray[Any]:
        """Return samples `start` to `stop` as stored, shape (samples, channels)."""
        if not 0 <= start <= stop <= self.info.n_samples:
            raise InputError(
                f"Samples {start} to {stop} are not inside the recording of {self.info.n_samples} samples."
            )
        raw = np.empty((stop - start, self.info.channels), self.dtype)
        left = raw.reshape(-1).view(np.uint8).data
        offset = start * self.dtype.itemsize * self.info.channels
        while left:
            n_bytes = os.preadv(self._raw.fileno(), [left], offset)
            left, offset = left[n_bytes:], offset + n_bytes
        return raw

    def must_be_finite(self) -> None:
        """Raise an InputError if samples are NaN or infinite."""
        if self.info.nonfinite:
            held = f"{self.info.path} holds {self.info.nonfinite} samples that are NaN or infinite"
            raise InputError(f"{held}. Repair it first.")

    def whole(self, longest_s: float) -> NDArray[np.float64]:
        """Return all samples, shape (channels, samples), full scale 1.

        Raises
        ------
        InputError
            If it lasts longer than `longest_s`, or samples are NaN or infinite.
        """
        self.must_be_finite()
        seconds = self.info.n_samples / self.info.sample_rate
        if seconds > longest_s:
            raise InputError(f"{self.info.path} lasts {seconds:.0f} s. Give up to {longest_s:g} s.")
        return self.read(0, self.info.n_samples)

    def blocks(self, n: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Yield (start, block) for consecutive blocks of `n` samples; the last may be shorter."""
        if n < 1:
            raise InputError(f"A block needs at least 1 sample, got {n}.")
        for start in range(0, self.info.n_samples, n):
            yield start, self.read(start, min(start + n, self.info.n_samples))


def to_float(raw: NDArray[Any]) -> NDArray[np.float64]:
    """Return samples as floating point; integers over their type's full scale, a power of two, so exactly."""
    if raw.dtype.kind == "f":
        return raw.astype(np.float64)
    return raw / -float(np.iinfo(raw.dtype).min)


def open_recording(path: os.PathLike[str] | str | bytes, limits: Limits | None = None) -> Recording:
    """Return the recording in a file of any audio format.

    Parameters
    ----------
    path
        A regular file.
    limits
        What decoding may cost.

    Raises
    ------
    InputError
        If it isn't a regular file, isn't audio, holds no samples, crashes or stalls its decoder, or outgrows
        the limits.
    ResourceError
        If it can't be read for lack of permission, or its samples don't fit on the disk.
    MissingExtraError
        If only FFmpeg can decode it and PyAV isn't installed.
    """
    limits = limits or Limits()
    named = Path(os.fsdecode(path))
    source = open_regular(named)
    try:
        with contextlib.ExitStack() as stack:
            try:
                raw = stack.enter_context(tempfile.TemporaryFile(buffering=0))
                free_bytes = max(0, shutil.disk_usage(tempfile.gettempdir()).free - _KEEP_FREE_BYTES)
            except OSError as error:
                raise ResourceError(
                    f"Can't make a temporary file: {error.strerror}. Set TMPDIR to a folder."
                ) from error
            head, end = decode(named, source, raw.fileno(), limits, free_bytes)
            recording = _recording(named, head, end, raw)
            stack.pop_all()
            return recording
    finally:
        os.close(source)


def _recording(path: Path, head: dict[str, Any], end: dict[str, Any], raw: IO[bytes]) -> Recording:
    info = AudioInfo(
        path=path,
        sample_rate=head["sample_rate"],
        channels=head["channels"],
        n_samples=end["n_samples"],
        container=head["container"],
        subtype=head["subtype"],
        nonfinite=end["nonfinite"],
        truncated=end["truncated"],
        tags=head["tags"],
    )
    return Recording(info, raw, head["dtype"], head["bits"])


def write_edited(
    recording: Recording,
    destination: os.PathLike[str] | str | bytes,
    edits: Sequence[Edit],
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write a copy of a recording with some samples replaced; either the whole new file appears, or nothing does.

    Sample rate, channels and tags stay. Container and subtype stay where the destination's suffix allows: see
    :func:`sfumato.encoding.choose`. In formats without loss, every sample outside the edits is the recording's
    own, bit for bit. Edits are rounded without dither and, but for floating-point formats, held within full
    scale.

    Parameters
    ----------
    recording
        An open recording.
    destination
        New file, or one to replace; never the recording's own.
    edits
        Pairs of the first sample to replace and its replacement, shape (channels, samples), full scale 1. They
        may come in any order and must not overlap.
    tags
        More tags; they replace the recording's of the same names.

    Raises
    ------
    InputError
        If an edit isn't finite, has the wrong shape, overlaps another or lies outside the recording, or if the
        destination is the recording's file, isn't a regular file, or has a suffix that can't hold it.
    ResourceError
        If the disk is full or the folder can't be written to.
    """
    info, path = recording.info, Path(os.fsdecode(destination))
    target = choose(
        path.suffix, info.container, info.subtype, recording.bits, info.sample_rate, info.channels, info.n_samples
    )
    ordered = _checked(edits, info)
    with _replacing(path, not_file=info.path) as file:
        encode(file, target, {**info.tags, **(tags or {})}, _edited(recording, target, ordered), info.n_samples)


def write_extended(
    recording: Recording,
    destination: os.PathLike[str] | str | bytes,
    more: NDArray[np.floating[Any]],
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write a copy of a recording that goes on with `more`, (channels, samples), after its end; as `write_edited`."""
    info, path = recording.info, Path(os.fsdecode(destination))
    if more.ndim != 2 or len(more) != info.channels or not np.isfinite(more).all():
        raise InputError(f"What goes on needs the shape ({info.channels}, samples) and finite values.")
    n = info.n_samples + more.shape[1]
    target = choose(path.suffix, info.container, info.subtype, recording.bits, info.sample_rate, info.channels, n)
    added = more if target.holds_any_float else np.clip(more, -1.0, 1.0)
    ends = (added[:, at : at + BLOCK_FRAMES] for at in range(0, more.shape[1], BLOCK_FRAMES))
    rest = (quantise(end.T.astype(np.float64), target) for end in ends)
    whole = itertools.chain(_edited(recording, target, []), rest)
    with _replacing(path, not_file=info.path) as file:
        encode(file, target, {**info.tags, **(tags or {})}, whole, n)


def write(
    path: os.PathLike[str] | str | bytes,
    audio: NDArray[np.floating[Any]],
    sample_rate: int,
    subtype: str = "PCM_24",
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write samples as a new file; either the whole file appears, or nothing does.

    Parameters
    ----------
    path
        Its suffix decides the container.
    audio
        Shape (channels, samples), full scale 1; beyond it, integer formats clip.
    sample_rate
        In Hz.
    subtype
        Such as PCM_16, PCM_24 or FLOAT. Where the container hasn't got it, it is replaced as
        :func:`sfumato.encoding.choose` says.
    tags
        Such as title, artist and comment; a format without them goes without.

    Raises
    ------
    InputError
        If there are no samples, or the format can't hold them.
    ResourceError
        If the disk is full or the folder can't be written to.
    """
    if audio.ndim != 2 or not audio.size:
        raise InputError(f"Audio to write needs the shape (channels, samples), got {audio.shape}.")
    channels, n_samples = audio.shape
    blocks = (audio[:, at : at + BLOCK_FRAMES] for at in range(0, n_samples, BLOCK_FRAMES))
    write_blocks(path, blocks, sample_rate, channels, n_samples, subtype, tags)


def write_blocks(
    path: os.PathLike[str] | str | bytes,
    blocks: Iterable[NDArray[np.floating[Any]]],
    sample_rate: int,
    channels: int,
    n_samples: int,
    subtype: str = "PCM_24",
    tags: Mapping[str, str] | None = None,
) -> None:
    """As `write`, of samples that come in blocks, (channels, samples), `n_samples` in all."""
    path = Path(os.fsdecode(path))
    if subtype not in soundfile.available_subtypes():
        raise InputError(f"'{subtype}' is no sample type. Use PCM_16, PCM_24, PCM_32, FLOAT or DOUBLE.")
    bits = INTEGER_BITS.get(subtype, 0)
    target = choose(path.suffix, "", subtype, bits, sample_rate, channels, n_samples)
    quantised = (quantise(block.T.astype(np.float64), target) for block in blocks)
    with _replacing(path) as file:
        encode(file, target, tags or {}, quantised, n_samples)


def _checked(edits: Sequence[Edit], info: AudioInfo) -> list[Edit]:
    """Return the edits in order of time."""
    ordered, reached = sorted(edits, key=lambda edit: edit[0]), 0
    for start, audio in ordered:
        if audio.ndim != 2 or len(audio) != info.channels:
            raise InputError(f"An edit needs the shape ({info.channels}, samples), got {audio.shape}.")
        if start < 0 or start + audio.shape[1] > info.n_samples:
            stop = start + audio.shape[1]
            raise InputError(f"Edit {start} to {stop} is not inside the recording of {info.n_samples} samples.")
        if start < reached:
            raise InputError(f"The edit at sample {start} overlaps the one before it, which ends at {reached}.")
        if not np.isfinite(audio).all():
            raise InputError(f"The edit at sample {start} holds NaN or infinite values.")
        reached = start + audio.shape[1]
    return ordered


def _edited(recording: Recording, target: Target, edits: list[Edit]) -> Iterator[NDArray[Any]]:
    """Yield the recording in the target's type, with the edits pasted in."""
    same = recording.dtype == target.dtype and (recording.bits <= target.bits)
    for start in range(0, recording.info.n_samples, BLOCK_FRAMES):
        stop = min(start + BLOCK_FRAMES, recording.info.n_samples)
        raw = recording.read_raw(start, stop)
        block = raw if same else to_float(raw)
        first = bisect_right(edits, start, key=lambda edit: edit[0] + edit[1].shape[1])
        for at, audio in edits[first : bisect_left(edits, stop, key=lambda edit: edit[0])]:
            low, high = max(start, at), min(stop, at + audio.shape[1])
            if low < high:
                piece = audio[:, low - at : high - at].T.astype(np.float64)
                if not target.holds_any_float:
                    piece = np.clip(piece, -1.0, 1.0)
                block[low - start : high - start] = quantise(piece, target) if same else piece
        if same and block.dtype.kind == "i":
            yield block
        else:
            yield quantise(block, target)


def to_channels(audio: NDArray[FloatT], channels: int) -> NDArray[FloatT]:
    """Audio with so many channels: their mean, or the first ones, the last one again where there are too few."""
    if channels == 1:
        return np.asarray(audio.mean(axis=0, keepdims=True))
    missing = max(0, channels - len(audio))
    return np.concatenate([audio, np.repeat(audio[-1:], missing, axis=0)])[:channels]


@contextlib.contextmanager
def _replacing(destination: Path, not_file: Path | None = None) -> Iterator[int]:
    """`files.replacing`, once it is sure that the destination may be replaced."""
    name = shown(destination)
    if destination.exists():
        if not destination.is_file():
            raise InputError(f"{name} is not a regular file. Choose another name.")
        if not_file and not_file.exists() and destination.samefile(not_file):
            raise InputError(f"{name} is the recording itself. Write to another file.")
    if not destination.parent.is_dir():
        raise InputError(f"The folder {shown(destination.parent)} does not exist. Make it first.")
    with replacing(destination) as file:
        yield file
