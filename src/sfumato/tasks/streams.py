"""Recordings of any rate and number of channels as the streams that a codec takes, block by block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from sfumato.player.weights import Array

BLOCK = 1 << 16
"""Samples taken at a time."""


def streams(audio: NDArray[Any], channels: int) -> Array:
    """Audio as streams (streams, `channels`, samples) of a model; the last channel is repeated where one is missing."""
    n = -(-len(audio) // channels)
    rows = np.minimum(np.arange(n * channels), len(audio) - 1)
    return np.asarray(audio[rows].reshape(n, channels, -1), np.float32)


def recording(audio: Array, channels: int) -> Array:
    """The inverse of `streams`: audio (streams, channels of the model, samples) as the recording's `channels`."""
    n, together, length = audio.shape
    return audio.reshape(n * together, length)[:channels]


def resampled(blocks: Iterable[NDArray[Any]], before: int, after: int, n: int) -> Iterator[Array]:
    """Blocks (channels, samples) at another rate, `n` samples in all: cut, or silent at the end."""
    left, stream, channels = n, None, 1
    for block in blocks:
        x, channels = np.asarray(block, np.float32), len(block)
        if before != after:
            stream = stream or soxr.ResampleStream(before, after, channels, dtype="float32", quality="HQ")
            x = stream.resample_chunk(np.ascontiguousarray(x.T)).T
        x = x[:, :left]
        left -= x.shape[1]
        yield x
    if stream is not None:
        x = stream.resample_chunk(np.zeros((0, channels), np.float32), last=True).T[:, :left]
        left -= x.shape[1]
        yield x
    while left > 0:
        yield np.zeros((channels, min(left, BLOCK)), np.float32)
        left -= BLOCK


def skipped(blocks: Iterable[Array], skip: int, n: int) -> Iterator[Array]:
    """Blocks without their first `skip` samples, and `n` samples in all."""
    for block in blocks:
        kept = block[:, skip:][:, :n]
        skip = max(0, skip - block.shape[1])
        n -= kept.shape[1]
        yield kept
