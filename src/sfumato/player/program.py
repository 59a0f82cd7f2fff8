"""One pass of the network, as a list of array operations on buffers that were made beforehand.

Arrays are channel-last, ``(batch, frames, channels)``, so that folding frames into channels and back is a change of
shape that moves nothing. A convolution is one matrix product: the past and the new frames lie side by side in a buffer,
of which a strided view shows each output all that it needs. Nothing is allocated while playing but the new pasts and
the result; a residual sum, an activation and a hyperbolic tangent are done in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from sfumato.player.weights import Array, Conv, Layer, Weights

SLOPE = np.array(0.2, np.float32)
ROWS_ALONE = 4
"""Up to so many rows a matrix product is faster row by row: a product of few rows copies the whole matrix first."""

Pasts = tuple[Array, ...]


@dataclass(frozen=True)
class Memory:
    """Where a convolution's new frames go, the matrix that it multiplies, and what to copy in between."""

    new: Array
    columns: Array
    gather: tuple[Array, Array] | None = None


class Program:
    """What to do with `batch` streams of `frames` latent frames each."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self._operations: list[Callable[[], Any]] = []
        self._pasts: list[Array] = []
        self._tails: list[Array] = []
        self.input: Array = _zeros(0)
        self.output: Array = _zeros(0)

    def run(self, pasts: Sequence[Array]) -> Pasts:
        """Turn `input` into `output`; the pasts after it."""
        for place, past in zip(self._pasts, pasts, strict=True):
            place[...] = past
        for operation in self._operations:
            operation()
        return tuple([kept(tail) for tail in self._tails])

    def empty(self) -> Pasts:
        """The pasts of streams that begin."""
        return tuple(kept(np.zeros(place.shape, np.float32)) for place in self._pasts)

    def copies(self, source: Array, destination: Array) -> None:
        """Append a copy."""
        self._operations.append(partial(np.copyto, destination, source))

    def does(self, function: Callable[..., Any], *operands: Any) -> None:
        """Append an operation; the last operand is where it puts its result."""
        *given, out = operands
        self._operations.append(partial(function, *given, out=out))

    def memory(self, streams: int, frames: int, conv: Conv) -> Memory:
        """Room for the past and `frames` new frames of a convolution's input."""
        history, n_taps = (conv.kernel - 1) * conv.dilation, conv.kernel * conv.before
        columns = np.ones((streams * frames, len(conv.matrix)), np.float32)  # ones meet the bias
        taps = columns[:, :n_taps]
        at_once = frames == 1 and conv.dilation == 1
        joined = (taps if at_once else _zeros(streams, (history + frames) * conv.before)).reshape(
            streams, history + frames, conv.before
        )
        joined[:] = 0
        self._pasts.append(joined[:, :history])
        self._tails.append(joined[:, frames:])
        if at_once:
            return Memory(joined[:, history:], columns)
        across, along, inside = joined.strides
        shown = as_strided(
            joined,
            (streams, frames, conv.kernel, conv.before),
            (across, along, along * conv.dilation, inside),
            writeable=False,
        )
        return Memory(joined[:, history:], columns, (shown, taps.reshape(shown.shape)))

    def multiply(self, memory: Memory, matrix: Array) -> Array:
        """The product of a convolution."""
        if memory.gather is not None:
            self.copies(*memory.gather)
        product = _zeros(len(memory.columns), matrix.shape[1])
        if 1 < len(product) <= ROWS_ALONE:
            for row, result in zip(memory.columns, product, strict=True):
                self.does(np.matmul, row, matrix, result)
        else:
            self.does(np.matmul, memory.columns, matrix, product)
        return product

    def leaky(self, x: Array, out: Array) -> None:
        """The activation; `out` may not be `x`."""
        self.does(np.multiply, x, SLOPE, out)
        self.does(np.maximum, x, out, out)

    def through(self, layer: Layer, x: Array, frames: int) -> tuple[Array, int]:
        """A layer on `x`, (batch * frames, channels): what comes out, and its number of frames."""
        streams = self.batch
        if layer.kind == "down":
            memory = self.memory(streams, frames // layer.factor, layer.conv)
            self.leaky(x.reshape(streams, frames, -1), memory.new.reshape(streams, frames, x.shape[1]))
            return self.multiply(memory, layer.conv.matrix), frames // layer.factor
        memory = self.memory(streams, frames, layer.conv)
        if layer.kind == "plain":
            self.copies(x.reshape(memory.new.shape), memory.new)
        else:
            self.leaky(x.reshape(memory.new.shape), memory.new)
        y = self.multiply(memory, layer.conv.matrix)
        if layer.kind == "up":
            return y.reshape(len(y) * layer.factor, -1), frames * layer.factor
        if layer.point is not None:
            bent = np.ones((len(y), y.shape[1] + 1), np.float32)
            self.leaky(y, bent[:, :-1])
            z = self.multiply(Memory(bent, bent), layer.point.matrix)
            self.does(np.add, x, z, x)
            return x, frames
        return y, frames


def encoder(weights: Weights, batch: int, frames: int) -> Program:
    """From audio (batch, channels, samples) to (batch, outputs, frames): means first."""
    shape, program = weights.recipe.network, Program(batch)
    steps = frames * shape.hop_length // shape.bands
    streams = batch * shape.channels
    memory = program.memory(streams, steps, weights.analysis)
    program.input = _zeros(batch, shape.channels, frames * shape.hop_length)
    program.copies(program.input.reshape(memory.new.shape), memory.new)
    bands = program.multiply(memory, weights.analysis.matrix)
    if shape.channels > 1:
        side = _zeros(batch, steps, shape.channels, shape.bands)
        program.copies(bands.reshape(batch, shape.channels, steps, -1).transpose(0, 2, 1, 3), side)
        bands = side.reshape(batch * steps, -1)
    x = bands
    for layer in weights.encoder:
        x, steps = program.through(layer, x, steps)
    program.output = x.reshape(batch, frames, -1).transpose(0, 2, 1)
    return program


def decoder(weights: Weights, batch: int, frames: int) -> Program:
    """From latent (batch, latent, frames) to audio (batch, channels, samples)."""
    shape, program = weights.recipe.network, Program(batch)
    x, steps = _zeros(batch * frames, shape.latent), frames
    program.input = x.reshape(batch, frames, -1).transpose(0, 2, 1)
    for layer in weights.decoder:
        x, steps = program.through(layer, x, steps)
    program.does(np.tanh, x, x)
    both = x.reshape(batch, steps, 2, shape.channels, shape.bands)
    wave, loudness = both[:, :, 0], both[:, :, 1]
    memory = program.memory(batch * shape.channels, steps, weights.synthesis)
    parts = memory.new.reshape(batch, shape.channels, steps, shape.bands).transpose(0, 2, 1, 3)
    program.does(np.add, loudness, np.float32(1), loudness)
    program.does(np.multiply, wave, loudness, parts)
    audio = program.multiply(memory, weights.synthesis.matrix)
    program.output = audio.reshape(batch, shape.channels, frames * shape.hop_length)
    return program


def kept(x: Array) -> Array:
    """A copy that nobody can write to."""
    copied = x.copy()
    copied.setflags(write=False)
    return copied


def _zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)
