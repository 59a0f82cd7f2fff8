"""Reading and writing recordings of any length in bounded memory.

Every input is decoded by a supervised child process (:mod:`sfumato.decode_child`) into an unnamed temporary file of
raw samples, in a type that holds the file's samples exactly. From there it is read by window. POSIX systems only.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import InputError, MissingExtraError, ResourceError

_CHILD = Path(__file__).with_name("decode_child.py")
_KEEP_FREE_BYTES = 256 << 20


@dataclass(frozen=True)
class Limits:
    """What decoding one file may cost.

    Parameters
    ----------
    silence_s
        Seconds that the decoder may go without decoding a further block before it is ended.
    channel_seconds
        Longest decoded length, in seconds times channels. A small file can decode to any length.
    memory_bytes
        Address space of the decoder.
    """

    silence_s: float = 30.0
    channel_seconds: float = 12 * 3_600.0 * 2
    memory_bytes: int = 2 << 30


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
    tags: Mapping[str, str] | None = None


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
        left, offset = (
            memoryview(raw.reshape(-1).view(np.uint8)),
            start * self.dtype.itemsize * self.info.channels,
        )
        while left:
            n_bytes = os.preadv(self._raw.fileno(), [left], offset)
            left, offset = left[n_bytes:], offset + n_bytes
        return raw

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


def shown(path: os.PathLike[str] | str) -> str:
    """Return a path as one printable line, whatever bytes its name holds."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in os.fspath(path))


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
        If it isn't a regular file, isn't audio, holds no samples, crashes or stalls its decoder, or outgrows the limits.
    ResourceError
        If it can't be read for lack of permission, or its samples don't fit on the disk.
    MissingExtraError
        If only FFmpeg can decode it and PyAV isn't installed.
    """
    limits = limits or Limits()
    named = Path(os.fsdecode(path))
    source = _open_regular(named)
    try:
        with contextlib.ExitStack() as stack:
            try:
                raw = stack.enter_context(tempfile.TemporaryFile(buffering=0))
                free_bytes = max(0, shutil.disk_usage(tempfile.gettempdir()).free - _KEEP_FREE_BYTES)
            except OSError as error:
                raise ResourceError(
                    f"Can't make a temporary file: {error.strerror}. Set TMPDIR to a folder."
                ) from error
            head, end = _decode(named, source, raw.fileno(), limits, free_bytes)
            recording = _recording(named, head, end, raw)
            stack.pop_all()
            return recording
    finally:
        os.close(source)


def _open_regular(path: Path) -> int:
    """Return a descriptor of a regular file that isn't empty. Opening a FIFO or a device doesn't wait."""
    try:
        source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except PermissionError as error:
        raise ResourceError(f"{shown(path)} can't be read: no permission.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{shown(path)} can't be opened: {reason}.") from error
    status = os.fstat(source)
    if stat.S_ISREG(status.st_mode) and status.st_size > 0:
        return source
    os.close(source)
    if stat.S_ISREG(status.st_mode):
        raise InputError(f"{shown(path)} is empty (0 bytes). Give a file that holds audio.")
    raise InputError(
        f"{shown(path)} is not a regular file. Give an audio file, not a folder, pipe or device."
    )


def _decode(
    path: Path, source: int, raw: int, limits: Limits, free_bytes: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the decoder process and return what it says first and last."""
    reading, report = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as messages:
        order = {
            "source": source, "raw": raw, "report": report, "memory_bytes": limits.memory_bytes,
            "channel_seconds": limits.channel_seconds, "max_bytes": free_bytes,
        }  # fmt: skip
        try:
            # By path and with -P: nothing here shadows the standard library, and the package isn't imported.
            child = subprocess.Popen(
                [sys.executable, "-P", str(_CHILD), json.dumps(order)],
                pass_fds=(source, raw, report),
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise ResourceError(f"Can't start the decoder: {error.strerror}.") from error
        finally:
            os.close(report)
        try:
            said = dict(_messages(path, messages, limits.silence_s))
            status = child.wait(limits.silence_s)
        except subprocess.TimeoutExpired as error:
            raise InputError(f"{shown(path)} can't be decoded: the decoder does not end.") from error
        finally:
            child.kill()
            child.wait()
    if "refused" in said:
        _raise_refusal(path, said["refused"]["kind"], said["refused"]["message"])
    if status != 0 or "head" not in said or "end" not in said:
        how = signal.Signals(-status).name if status < 0 else f"exit code {status}"
        raise InputError(f"{shown(path)} can't be decoded: it crashes the decoder ({how}).")
    return said["head"], said["end"]


def _messages(path: Path, messages: IO[bytes], silence_s: float) -> Iterator[tuple[str, Any]]:
    """Yield the decoder's messages until it closes the pipe."""
    pending = b""
    while True:
        if not select.select([messages], [], [], silence_s)[0]:
            raise InputError(f"{shown(path)} can't be decoded: no progress within {silence_s:g} s.")
        data = messages.read(65_536)
        if not data:
            return
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            yield from json.loads(line).items()


def _raise_refusal(path: Path, kind: str, message: str) -> None:
    """Raise the error that the decoder process asks for."""
    text = f"{shown(path)} can't be decoded: {message.rstrip('.')}."
    if kind == "missing":
        raise MissingExtraError(f"PyAV to decode {shown(path)}", "media")
    raise ResourceError(text) if kind == "resource" else InputError(text)


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
