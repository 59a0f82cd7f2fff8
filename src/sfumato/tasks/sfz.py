"""The `.sfz` file: a header, and chunks of entropy-coded latent frames, each with a checksum over all before it.

All numbers are little-endian. Header: ``93 53 46 5A`` (magic), version 1, length of the model's name, the name, SHA-256
of the model, sample rate (4 bytes), channels (2), samples (8), dimensions (2), what the last of them was multiplied by
(a float), the quantiser's step (a float), CRC-32. Then for every `FRAMES` latent frames the length of a chunk (4), its
CRC-32 begun with the one before (4), and its bytes. Nothing follows. (A text file of a sampler's instruments, also
called .sfz, is told by its first bytes.)
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from sfumato.errors import InputError, ResourceError
from sfumato.folder import NAMES

MAGIC = b"\x93SFZ"
VERSION = 1
FRAMES = 512
"""Latent frames of a chunk."""

_START = struct.Struct("<4sBB")
_FIELDS = struct.Struct("<32sIHQHff")
_CRC = struct.Struct("<I")
_CHUNK = struct.Struct("<II")
MAX_SAMPLES = 1 << 40
_MAX_CHUNK = 64 << 20


@dataclass(frozen=True)
class Header:
    """What is said once.

    Attributes
    ----------
    name, digest
        The model's name and SHA-256.
    sample_rate, channels, n_samples
        Of the recording, and of what is made of the file.
    dims
        Numbers per latent frame and stream that are stored.
    share
        What the last of them was multiplied by.
    step
        Distance of two values of a number, in the latent's unit; 0 for codes.
    """

    name: str
    digest: str
    sample_rate: int
    channels: int
    n_samples: int
    dims: int
    share: float
    step: float


def write_header(file: BinaryIO, header: Header) -> int:
    """Write it; its checksum.

    Raises
    ------
    InputError
        Sample rate, channels or length don't fit.
    """
    rate, channels, n = header.sample_rate, header.channels, header.n_samples
    if not (0 < rate < 1 << 32 and 0 < channels < 1 << 16 and 0 < n <= MAX_SAMPLES):
        raise InputError(f"{channels} channels of {n} samples at {rate} Hz don't go into an encoded file.")
    name = header.name.encode()
    data = _START.pack(MAGIC, VERSION, len(name)) + name
    data += _FIELDS.pack(
        bytes.fromhex(header.digest),
        *(header.sample_rate, header.channels, header.n_samples, header.dims, header.share, header.step),
    )
    crc = zlib.crc32(data)
    file.write(data + _CRC.pack(crc))
    return crc


def write_chunk(file: BinaryIO, data: bytes, crc: int) -> int:
    """Write a chunk after the one that has the checksum `crc`; its own."""
    crc = zlib.crc32(data, crc)
    file.write(_CHUNK.pack(len(data), crc) + data)
    return crc


def read_header(file: BinaryIO, path: Path) -> tuple[Header, int]:
    """The header and its checksum.

    Raises
    ------
    InputError
        The file is none of ours, of a newer version, cut short or damaged.
    """
    start = file.read(_START.size)
    if len(start) < _START.size or not start.startswith(MAGIC):
        raise InputError(f"{path} is no sound that sfumato encoded. Give a file that sfumato encode wrote.")
    _, version, n_name = _START.unpack(start)
    if version != VERSION:
        raise InputError(f"{path} has version {version}; this sfumato reads {VERSION}. Update sfumato.")
    rest = file.read(n_name + _FIELDS.size + _CRC.size)
    if len(rest) < n_name + _FIELDS.size + _CRC.size:
        raise InputError(f"{path} is cut short in its header. Encode the recording again.")
    body, crc = rest[: -_CRC.size], zlib.crc32(start + rest[: -_CRC.size])
    if _CRC.unpack(rest[-_CRC.size :]) != (crc,):
        raise InputError(f"{path} is damaged in its header. Encode the recording again.")
    digest, rate, channels, n_samples, dims, share, step = _FIELDS.unpack(body[n_name:])
    name = body[:n_name].decode(errors="replace")
    if not re.fullmatch(NAMES, name):
        raise InputError(f"{path} names no model.")
    if not (rate and channels and 0 < n_samples <= MAX_SAMPLES and dims and 0 < share <= 1 and 0 <= step < 1e9):
        raise InputError(f"{path} holds a header that makes no sense.")
    return Header(name, digest.hex(), rate, channels, n_samples, dims, share, step), crc


def read_chunks(file: BinaryIO, path: Path, n_frames: int, crc: int) -> Iterator[tuple[int, bytes]]:
    """Frames and bytes of each chunk, in order.

    Raises
    ------
    InputError
        The file is cut short, damaged, or goes on after its end.
    """
    for start in range(0, n_frames, FRAMES):
        head = file.read(_CHUNK.size)
        if len(head) < _CHUNK.size:
            raise InputError(f"{path} is cut short: {start} of {n_frames} latent frames are there.")
        length, expected = _CHUNK.unpack(head)
        if length > _MAX_CHUNK:
            raise InputError(f"{path} is damaged after {start} of {n_frames} latent frames.")
        data = file.read(length)
        crc = zlib.crc32(data, crc)
        if len(data) < length:
            raise InputError(f"{path} is cut short: {start} of {n_frames} latent frames are there.")
        if crc != expected:
            raise InputError(f"{path} is damaged after {start} of {n_frames} latent frames.")
        yield min(FRAMES, n_frames - start), data
    if file.read(1):
        raise InputError(f"{path} goes on after its end. Something was appended to it.")


def open_file(path: Path) -> BinaryIO:
    """The file, opened for reading.

    Raises
    ------
    InputError
        It is missing or no regular file.
    ResourceError
        It can't be read.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file.")
    try:
        return path.open("rb")
    except OSError as error:
        raise ResourceError(f"{path} can't be read: {os.strerror(error.errno or 0)}.") from None
