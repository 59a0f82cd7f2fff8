"""Files that appear whole or not at all: written under an unguessable name beside their place, synced, renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from sfumato.errors import ResourceError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[int]:
    """Descriptor of a file that takes the place of `path` at the end, and vanishes on any error or interrupt.

    Raises
    ------
    ResourceError
        The disk is full or the folder can't be written; an older file stays as it was.
    """
    part = path.with_name(f".sfumato-{secrets.token_hex(8)}.part")
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            try:
                yield descriptor
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise ResourceError(f"{path} can't be written: {error.strerror}.") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one, never a part.

    Raises
    ------
    ResourceError
        The disk is full or the folder can't be written; nothing is left behind.
    """
    with replacing(path) as descriptor, os.fdopen(descriptor, "wb", closefd=False) as file:
        file.write(data)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (fsync of the directory)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
