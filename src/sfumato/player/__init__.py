"""A codec at play time, in NumPy alone: no torch is loaded, and one thread is enough.

>>> import numpy as np
>>> from sfumato import player
>>> codec = player.load("rave-piano")                                        # doctest: +SKIP
>>> state = codec.init(batch=1)                                              # doctest: +SKIP
>>> y, state = codec.step(np.zeros((1, 1, 512), np.float32), state)          # doctest: +SKIP

A stream's memory is an argument and a result, never the player's own: a `State` is frozen, so keeping an older one
is a way back, using one twice is a copy, `init` is a reset, and one player serves any number of streams. Sound that
comes in pieces gives what it gives at once.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import InputError
from sfumato.folder import find, read_header
from sfumato.player import program
from sfumato.player.program import Pasts, Program, kept
from sfumato.player.weights import Array, Conv, Recipe, Weights, read

__all__ = ["Player", "State", "load"]

LONGEST = 16384
"""Samples of a stream that are worked on at once: more of them leave the processor's cache."""

_STATE_FORMAT = 1
_MAX_PROGRAMS = 64
_UNREADABLE = (
    *(OSError, EOFError, ValueError, KeyError, RuntimeError, SyntaxError, OverflowError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error, TokenError),
)
"""What numpy and zipfile raise on broken files."""


@dataclass(frozen=True)
class State:
    """All that one or more streams of a codec remember; its arrays are read-only.

    Attributes
    ----------
    digest
        Which model it belongs to.
    block
        Samples of every piece, a multiple of the hop; None: pieces of any length, through a queue.
    encoder, decoder
        Last inputs of each convolution, (batch, frames, channels), read-only.
    waiting
        Samples that don't fill a frame yet, (batch, channels, samples).
    ready
        Samples made and not handed over yet.
    """

    digest: str
    block: int | None
    encoder: Pasts
    decoder: Pasts
    waiting: Array
    ready: Array

    @property
    def batch(self) -> int:
        """Number of streams."""
        return len(self.waiting)


class Player:
    """A codec's network; holds weights and buffers, but nothing of any stream.

    Audio is (batch, channels, samples), latent (batch, latent, frames), both float32.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._programs: dict[tuple[str, int, int], list[Program]] = {}

    @property
    def name(self) -> str:
        """The model's name."""
        return self.weights.name

    @property
    def digest(self) -> str:
        """SHA-256 of weights and architecture: what is written with one codec can be read with its equal only.

        Unlike `sfumato.model.digest`, it leaves out how the model was trained and what its card says.
        """
        return self.weights.digest

    @property
    def recipe(self) -> Recipe:
        """The configuration."""
        return self.weights.recipe

    @property
    def hop_length(self) -> int:
        """Samples of a latent frame."""
        return self.recipe.network.hop_length

    @property
    def channels(self) -> int:
        """Channels of the audio."""
        return self.recipe.network.channels

    def latency(self, block: int | None = None) -> int:
        """Samples from what goes into `step` to what comes out: the filter bank's, and without a block the queue's."""
        return self.recipe.network.delay + (self.hop_length - 1 if block is None else 0)

    def init(self, batch: int = 1, block: int | None = None) -> State:
        """The state of streams that begin.

        Parameters
        ----------
        batch
            Number of streams that are played together.
        block
            Samples of every piece, a multiple of the hop. Without it pieces may have any length, and what `step`
            gives comes `hop_length` - 1 samples later.

        Raises
        ------
        InputError
            There is no stream, or the block is no multiple of the hop.
        """
        if batch < 1:
            raise InputError(f"{batch} streams can't be played. Give at least 1.")
        if block is not None and (block < 1 or block % self.hop_length):
            raise InputError(f"A block of {block} samples is no multiple of the hop, {self.hop_length} samples.")
        pasts = []
        for kind in ("encoder", "decoder"):
            made = self._program(kind, batch, 1)
            pasts.append(made.empty())
            self._keep(kind, batch, 1, made)
        channels, queue = self.channels, 0 if block else self.hop_length - 1
        waiting, ready = (kept(np.zeros((batch, channels, n), np.float32)) for n in (0, queue))
        return State(self.digest, block, pasts[0], pasts[1], waiting, ready)

    def encode(self, audio: NDArray[Any], state: State) -> tuple[Array, State]:
        """The latent frames that `audio` completes, always the posterior's mean, and the state after it.

        Raises
        ------
        InputError
            The audio has another shape than the state promises, or the state is another model's.
        """
        raw, state = self._encode(audio, state)
        return self._mean(raw), state

    def posterior(self, audio: NDArray[Any], state: State) -> tuple[Array, Array | None, State]:
        """As `encode`, with the posterior's spread; None where the bottleneck has none."""
        raw, state = self._encode(audio, state)
        if self.recipe.bottleneck != "gaussian":
            return self._mean(raw), None, state
        spread = raw[:, self.recipe.network.latent :]
        return self._mean(raw), np.logaddexp(0, spread) + np.float32(1e-4), state

    def decode(self, latent: NDArray[Any], state: State) -> tuple[Array, State]:
        """The audio of latent frames, `Shape.delay` samples late, and the state after it.

        Raises
        ------
        InputError
            The latent has a wrong shape, or the state is another model's.
        """
        self._check(state)
        wanted = (state.batch, self.recipe.network.latent)
        if latent.ndim != 3 or latent.shape[:2] != wanted:
            raise InputError(f"The latent has shape {latent.shape}; expected is {(*wanted, 'frames')}.")
        made, pasts = self._run("decoder", latent, 1, state.decoder)
        return _joined(made, (state.batch, self.channels, 0)), replace(state, decoder=pasts)

    def step(
        self, x: NDArray[Any], state: State, alter: Callable[[Array], Array] | None = None
    ) -> tuple[Array, State]:
        """As many samples as `x` has, `latency` samples later, encoded and decoded; and the state after them.

        Parameters
        ----------
        x
            Audio.
        state
            The state before it.
        alter
            What to do to the latent in between.

        Raises
        ------
        InputError
            The audio has another shape than the state promises, or the state is another model's.
        """
        latent, state = self.encode(x, state)
        if self.weights.codebooks is not None:
            latent = self.latent_of(self.codes_of(latent))
        if alter is not None:
            latent = alter(latent)
        made, state = self.decode(latent, state)
        if state.block is not None:
            return made, state
        ready = np.concatenate([state.ready, made], axis=-1)
        n = x.shape[-1]
        return ready[..., :n].copy(), replace(state, ready=kept(ready[..., n:]))

    def codes_of(self, latent: NDArray[Any]) -> NDArray[np.int64]:
        """Whole numbers (batch, codebooks, frames) of the discrete bottleneck."""
        books = self._codebooks()
        frames = latent.transpose(0, 2, 1)
        rest = _affine(frames, books.into)
        codes = np.empty((len(frames), len(books.books), frames.shape[1]), np.int64)
        for number, book in enumerate(books.books):
            distance = np.square(book).sum(axis=1) - 2 * (rest @ book.T)
            codes[:, number] = distance.argmin(axis=-1)
            rest = rest - book[codes[:, number]]
        return codes

    def latent_of(self, codes: NDArray[np.integer[Any]]) -> Array:
        """The latent that codes (batch, codebooks, frames) stand for; fewer codebooks give a coarser one."""
        books = self._codebooks()
        total = sum(books.books[number][codes[:, number]] for number in range(codes.shape[1]))
        return _affine(np.asarray(total, np.float32), books.back).transpose(0, 2, 1)

    def save_state(self, state: State) -> bytes:
        """The state as bytes of an .npz file, which `load_state` of the same model reads."""
        self._check(state)
        arrays: dict[str, Any] = {}
        for kind in ("encoder", "decoder"):
            arrays |= {f"{kind}_{i}": past for i, past in enumerate(getattr(state, kind))}
        file = io.BytesIO()
        arrays |= {"format": _STATE_FORMAT, "digest": state.digest, "block": state.block or 0}
        np.savez(file, waiting=state.waiting, ready=state.ready, **arrays)
        return file.getvalue()

    def load_state(self, data: bytes) -> State:
        """The state that `save_state` made.

        Raises
        ------
        InputError
            The bytes are damaged or no state, or the state is another model's.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                found = {key: file[key] for key in file.files}
        except _UNREADABLE:
            raise InputError("These bytes are no state, or damaged. Give what save_state returned.") from None
        if not found.keys() >= {"format", "digest", "block", "waiting", "ready"}:
            raise InputError("This file holds no state of a codec. Give what save_state returned.")
        if not np.array_equal(found["format"], _STATE_FORMAT):
            raise InputError(f"The state has format {found['format']}; possible is {_STATE_FORMAT}.")
        if str(found["digest"]) != self.digest:
            raise InputError(f"The state is another model's, not one of {self.name}. Begin with init().")
        fresh = self.init(max(1, len(found["waiting"])), int(found["block"]) or None)
        pasts = []
        for kind in ("encoder", "decoder"):
            arrays = [found.get(f"{kind}_{i}") for i in range(len(getattr(fresh, kind)))]
            if [None if a is None else (a.shape, a.dtype) for a in arrays] != [
                (a.shape, a.dtype) for a in getattr(fresh, kind)
            ]:
                raise InputError("The state's arrays have wrong shapes. It is damaged.")
            pasts.append(tuple(kept(array) for array in arrays if array is not None))
        waiting, ready = (kept(found[key]) for key in ("waiting", "ready"))
        state = replace(fresh, encoder=pasts[0], decoder=pasts[1], waiting=waiting, ready=ready)
        expected = fresh.waiting.shape[:2]
        queued = state.waiting.shape[-1] + state.ready.shape[-1]
        if (
            state.waiting.shape[:2] != expected
            or state.ready.shape[:2] != expected
            or queued != fresh.ready.shape[-1]
            or not all(np.isfinite(array).all() for array in (state.waiting, state.ready, *pasts[0], *pasts[1]))
        ):
            raise InputError("The state's queue has a wrong length or holds no numbers. It is damaged.")
        return state

    def _encode(self, audio: NDArray[Any], state: State) -> tuple[Array, State]:
        """Raw encoder outputs (batch, outputs, frames)."""
        self._check(state)
        wanted = (state.batch, self.channels)
        if audio.ndim != 3 or audio.shape[:2] != wanted:
            raise InputError(f"The audio has shape {audio.shape}; expected is {(*wanted, 'samples')}.")
        if state.block is not None:
            if audio.shape[-1] != state.block:
                raise InputError(
                    f"A block of {audio.shape[-1]} samples; {state.block} were promised. init(block=None) takes any."
                )
            waiting = state.waiting
        else:
            audio = np.concatenate([state.waiting, audio], axis=-1)
            whole = audio.shape[-1] // self.hop_length * self.hop_length
            waiting, audio = kept(audio[..., whole:].astype(np.float32)), audio[..., :whole]
        made, pasts = self._run("encoder", audio, self.hop_length, state.encoder)
        outputs = self.weights.encoder[-1].conv.after
        return _joined(made, (state.batch, outputs, 0)), replace(state, encoder=pasts, waiting=waiting)

    def _mean(self, raw: Array) -> Array:
        if self.recipe.bottleneck == "gaussian":
            return raw[:, : self.recipe.network.latent]
        if self.recipe.bottleneck == "spherical":
            length = np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12)
            return np.asarray(raw / length * np.sqrt(raw.shape[1]), np.float32)
        return raw

    def _codebooks(self) -> Any:
        if self.weights.codebooks is None:
            raise InputError(f"{self.name} has no codes: its bottleneck is {self.recipe.bottleneck}, not discrete.")
        return self.weights.codebooks

    def _check(self, state: State) -> None:
        if state.digest != self.digest:
            raise InputError(f"The state is another model's, not one of {self.name}. Begin with init().")

    def _run(self, kind: str, x: NDArray[Any], unit: int, pasts: Pasts) -> tuple[list[Array], Pasts]:
        """Run programs over all of `x`, whose frames are `unit` long; what each made, and the pasts after them."""
        made, at, frames, batch = [], 0, x.shape[-1] // unit, len(x)
        most = max(1, LONGEST // self.hop_length)
        while at < frames:
            n = min(most, 1 << ((frames - at).bit_length() - 1))
            does = self._program(kind, batch, n)
            np.copyto(does.input, x[..., at * unit : (at + n) * unit], casting="same_kind")
            pasts = does.run(pasts)
            made.append(does.output.copy())
            self._keep(kind, batch, n, does)
            at += n
        return made, pasts

    def _program(self, kind: str, batch: int, frames: int) -> Program:
        """A program nobody is running: buffers belong to one thread at a time."""
        free = self._programs.get((kind, batch, frames))
        if free:
            with contextlib.suppress(IndexError):
                return free.pop()
        make = program.encoder if kind == "encoder" else program.decoder
        return make(self.weights, batch, frames)

    def _keep(self, kind: str, batch: int, frames: int, does: Program) -> None:
        """Put a program back for the next that wants it."""
        if len(self._programs) >= _MAX_PROGRAMS:
            self._programs.clear()
        self._programs.setdefault((kind, batch, frames), []).append(does)


def load(name_or_folder: str | Path) -> Player:
    """The codec of a shipped name or of a model's folder.

    Raises
    ------
    InputError
        There is no such model; names the shipped ones.
    ModelError
        The folder is broken, or holds no codec.
    """
    folder = find(name_or_folder)
    return Player(read(folder, read_header(folder)))


def _joined(parts: list[Array], empty: tuple[int, int, int]) -> Array:
    """The parts one after the other."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts, axis=-1) if parts else np.zeros(empty, np.float32)


def _affine(x: Array, conv: Conv | None) -> Array:
    """A pointwise convolution of (batch, frames, channels); none leaves it."""
    return x if conv is None else np.asarray(x @ conv.matrix[:-1] + conv.matrix[-1], np.float32)
