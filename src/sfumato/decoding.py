"""Supervising the decoder process: it gets one file, one place for the samples, and not much time.

A codec is the part of an audio program most likely to crash, hang or fill the disk on a broken file, so none runs in
this process. See :mod:`sfumato.decode_child` for the other side.
"""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sfumato.errors import InputError, MissingExtraError, ResourceError

_CHILD = Path(__file__).with_name("decode_child.py")


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


def shown(path: os.PathLike[str] | str) -> str:
    """Return a path as one printable line, whatever bytes its name holds."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in os.fspath(path))


def open_regular(path: Path) -> int:
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
    raise InputError(f"{shown(path)} is not a regular file. Give an audio file, not a folder, pipe or device.")


def decode(
    path: Path, source: int, raw: int, limits: Limits, free_bytes: int, **what: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the decoder process and return what it says first and last; `what` is wanted in the place of samples."""
    reading, report = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as messages:
        order = {
            "source": source, "raw": raw, "report": report, "memory_bytes": limits.memory_bytes,
            "channel_seconds": limits.channel_seconds, "max_bytes": free_bytes, **what,
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
    if status != 0 or "end" not in said:
        how = signal.Signals(-status).name if status < 0 else f"exit code {status}"
        raise InputError(f"{shown(path)} can't be decoded: it crashes the decoder ({how}).")
    return said["head"], said["end"]


def _messages(path: Path, messages: IO[bytes], silence_s: float) -> Iterator[tuple[str, Any]]:
    """Yield the decoder's messages until it closes the pipe."""
    pending, poll = b"", select.poll()
    poll.register(messages, select.POLLIN)
    while True:
        if not poll.poll(silence_s * 1_000):
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
