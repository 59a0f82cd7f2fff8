"""Encode a recording as a small file of latents, and decode it again.

The latent of `player` (the posterior's mean) is turned onto the principal axes that the model's analysis found; the
fewest that have the wanted fidelity are kept, the last of them scaled by what of it is wanted; their coordinates
are rounded to multiples of one step, the same on every axis since that makes the squared error smallest for the bits
spent [1]_, and entropy-coded (`entropy`). A discrete model's codes are stored as they are. Axes that are left out are
at their mean when decoded, or drawn at random as in RAVE's paper [2]_, by a seed.

Channels that the model doesn't take together are streams of their own; other sample rates are resampled to the model's
and back. Length, rate and channels come back exactly, the codec's delay is taken off, memory doesn't grow with length.

References
----------
.. [1] T. Cover, J. Thomas, "Elements of Information Theory", sec. 10.3.3 (reverse water-filling).
.. [2] A. Caillon, P. Esling, "RAVE", arXiv 2111.05011, sec. 3.3.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from sfumato.audio import open_recording, write_blocks
from sfumato.config import Settings as BaseSettings
from sfumato.entropy import LARGEST, Decoder, Encoder, Numbers
from sfumato.errors import InputError, ModelError
from sfumato.files import replacing
from sfumato.folder import shipped
from sfumato.player import Player, axes, load
from sfumato.player.weights import Array
from sfumato.tasks import sfz
from sfumato.tasks.coded import Decoded, Encoded
from sfumato.tasks.streams import BLOCK, recording, resampled, skipped, streams

Progress = Callable[[int, int, str], None]

NAME = "codec"
USED_NATS = 0.1
"""Divergence from the prior above which a dimension of the latent counts as used [2]_."""


class Settings(BaseSettings):
    """How to encode."""

    model: str = Field(description="name or folder of the codec")
    fidelity: float | None = Field(None, ge=1e-3, le=1, description="share of the latent's singular values kept [0.99]")
    dims: int | None = Field(None, ge=1, description="dimensions of the latent kept, instead of a fidelity")
    step: float = Field(
        0.1, ge=1e-4, le=10, description="quantiser's step, over the standard deviation of the strongest dimension"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Settings:
        if self.fidelity is not None and self.dims is not None:
            raise ValueError("fidelity and dims are two answers to one question: give one")
        return self


def encode(
    audio: str | Path | NDArray[np.floating[Any]],
    destination: str | Path,
    *,
    sample_rate: int | None = None,
    settings: Settings | None = None,
    model: str | Path | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Encoded:
    """The file `destination`, which holds a recording's latents; either the whole file appears, or nothing does.

    Parameters
    ----------
    audio
        A file, or samples (channels, samples) with their `sample_rate` in Hz.
    destination
        A name that ends in .sfz.
    settings, model
        How to encode; or just the codec's name or folder.
    progress
        Called with samples done, samples in all, and a word.

    Raises
    ------
    InputError
        The recording or a setting can't be used.
    ModelError
        The model is broken or no codec.
    ResourceError
        The disk is full or the folder can't be written.
    """
    if settings is None:
        if model is None:
            raise InputError("Nothing says which codec to use. Give model=, such as model='rave-piano'.")
        settings = Settings(model=str(model))
    out, codec = Path(destination), load(settings.model)
    if out.suffix.lower() != ".sfz":
        raise InputError(f"{out.name} is to hold latents, not sound. Name it {out.stem}.sfz.")
    same = isinstance(audio, str | Path) and Path(audio).exists() and out.exists() and out.samefile(audio)
    if same or (out.exists() and not out.is_file()):
        raise InputError(f"{out} is the recording itself or no ordinary file. Choose another name.")
    if not out.parent.is_dir():
        raise InputError(f"The folder {out.parent} does not exist. Make it first.")
    if isinstance(audio, str | Path):
        with open_recording(audio) as opened:
            info = opened.info
            opened.must_be_finite()
            blocks = (block for _, block in opened.blocks(BLOCK))
            return _encode(blocks, info.sample_rate, info.channels, info.n_samples, out, codec, settings, progress)
    if not isinstance(sample_rate, int | np.integer):
        raise InputError("Samples need sample_rate=, a whole number of Hz.")
    if audio.ndim != 2 or not audio.size or not np.isfinite(audio).all():
        raise InputError("Samples need the shape (channels, samples) and finite values.")
    cut = (np.asarray(audio[:, at : at + BLOCK]) for at in range(0, audio.shape[1], BLOCK))
    return _encode(cut, int(sample_rate), len(audio), audio.shape[1], out, codec, settings, progress)


def _encode(
    blocks: Iterable[NDArray[Any]],
    sample_rate: int,
    channels: int,
    n_samples: int,
    out: Path,
    codec: Player,
    settings: Settings,
    progress: Progress,
) -> Encoded:
    began = time.perf_counter()
    weights, books = codec.weights, codec.weights.codebooks
    scale = float(weights.scale[0])
    chosen = None
    if books is None:
        fidelity = 0.99 if settings.fidelity is None and settings.dims is None else settings.fidelity
        chosen = axes.keep(weights, fidelity, settings.dims)
        dims, share, step = chosen.dims, chosen.share, float(np.float32(settings.step * scale))
    else:
        if settings.fidelity is not None:
            raise InputError(f"{codec.name} has codes, no fidelity. Give --dims, the number of codebooks.")
        dims, share, step = settings.dims or len(books.books), 1.0, 0.0
        if dims > len(books.books):
            raise InputError(f"{codec.name} has {len(books.books)} codebooks, not {dims}.")
    header = sfz.Header(codec.name, codec.digest, sample_rate, channels, n_samples, dims, share, step)
    numbers, waiting, n_frames = Numbers(), [], 0
    divergence = np.zeros(codec.recipe.network.latent)
    with replacing(out) as descriptor, os.fdopen(descriptor, "wb", closefd=False) as file:
        crc = sfz.write_header(file, header)
        for latent, spread, done in _latents(codec, blocks, sample_rate, n_samples):
            n_frames += latent.shape[-1]
            if spread is not None:
                each = 0.5 * (np.square(latent) + np.square(spread) - 1) - np.log(spread)
                divergence += each.sum(axis=-1).mean(axis=0)
            if books is None:
                found = axes.coordinates(weights, latent)[:, :dims]
                found[:, -1] *= np.float32(share)
                if np.abs(found).max(initial=0) >= (LARGEST - 1) * step:
                    raise InputError(f"A step of {settings.step:g} is too fine for this sound. Give a greater one.")
                whole = np.rint(found / step).astype(np.int64)
            else:
                whole = codec.codes_of(latent)[:, :dims]
            waiting.append(whole)
            while sum(part.shape[-1] for part in waiting) >= sfz.FRAMES:
                joined = np.concatenate(waiting, axis=-1)
                waiting = [joined[..., sfz.FRAMES :]]
                crc = sfz.write_chunk(file, _pack(codec, numbers, joined[..., : sfz.FRAMES]), crc)
            progress(min(done, n_samples), n_samples, "encoding")
        joined = np.concatenate(waiting, axis=-1)
        if joined.shape[-1]:
            sfz.write_chunk(file, _pack(codec, numbers, joined), crc)
        n_bytes = file.tell()
    has_spread = codec.recipe.bottleneck == "gaussian"
    nats = tuple(float(f"{value:.4g}") for value in divergence / max(1, n_frames))
    return Encoded(
        output=out,
        model=codec.name,
        digest=codec.digest,
        sample_rate=sample_rate,
        channels=channels,
        n_samples=n_samples,
        frames=n_frames,
        dims=dims,
        share=share,
        fidelity=None if chosen is None else chosen.fidelity,
        fidelity_of_variance=None if chosen is None else chosen.of_variance,
        step=settings.step if books is None else 0.0,
        duration_s=n_samples / sample_rate,
        bytes=n_bytes,
        kbit_s=8 * n_bytes / 1000 / (n_samples / sample_rate),
        kl_nats=nats if has_spread else None,
        kl_dims=sum(value > USED_NATS for value in nats) if has_spread else None,
        took_s=time.perf_counter() - began,
    )


def decode(
    source: str | Path,
    destination: str | Path | None = None,
    *,
    model: str | Path | None = None,
    seed: int | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Decoded:
    """The recording that an encoded file holds, as a file, or as samples where no `destination` is given.

    Parameters
    ----------
    source, destination
        Different files.
    model
        The codec's folder, where it is none of the shipped ones.
    seed
        Draws the dimensions that were left out, each at its own size; without one they are at their mean.
    progress
        Called with samples done, samples in all, and a word.

    Raises
    ------
    InputError
        The file is none of ours, cut short or damaged, at whatever byte.
    ModelError
        The model is another one than the file was encoded with.
    ResourceError
        The disk is full or the folder can't be written.
    """
    began, path = time.perf_counter(), Path(source)
    with sfz.open_file(path) as file:
        header, crc = sfz.read_header(file, path)
        if model is None and header.name not in shipped():
            raise InputError(f"There is no model '{header.name}', which encoded {path}, in sfumato. Give its folder.")
        codec = load(model or header.name)
        if codec.digest != header.digest:
            raise ModelError(
                f"{path} was encoded with another model than {codec.name} as it is here "
                f"({header.name}, {header.digest[:12]}…, not {codec.digest[:12]}…). Give its folder as the model."
            )
        if header.dims > (codec.recipe.network.latent if codec.weights.codebooks is None else codec.recipe.n_codebooks):
            raise InputError(f"{path} holds a header that makes no sense.")
        at = file.tell()
        for _ in sfz.read_chunks(file, path, _frames(codec, _at_model(codec, header)), crc):
            pass  # all of it is whole before anything is written
        file.seek(at)
        blocks = _decoded(codec, header, file, path, crc, seed, progress)
        audio = None
        if destination is None:
            audio = np.concatenate(list(blocks), axis=-1)
        else:
            out = Path(destination)
            if out.exists() and out.samefile(path):
                raise InputError(f"{out} is the encoded file itself. Choose another name.")
            write_blocks(out, blocks, header.sample_rate, header.channels, header.n_samples)
    named = None if destination is None else Path(destination)
    took = time.perf_counter() - began
    rate, n_samples = header.sample_rate, header.n_samples
    return Decoded(named, audio, codec.name, rate, header.channels, n_samples, n_samples / rate, took)


def _at_model(codec: Player, header: sfz.Header) -> int:
    """Samples at the model's rate."""
    return -(-header.n_samples * codec.recipe.sample_rate // header.sample_rate)


def _frames(codec: Player, n: int) -> int:
    """Latent frames of `n` samples and of the delay that is taken off again."""
    return -(-(n + codec.recipe.network.delay) // codec.hop_length)


def _latents(
    codec: Player, blocks: Iterable[NDArray[Any]], sample_rate: int, n_samples: int
) -> Iterator[tuple[Array, Array | None, int]]:
    """Means and spreads (streams, latent, frames), and samples done."""
    rate = codec.recipe.sample_rate
    n = -(-n_samples * rate // sample_rate)
    state, done = None, 0
    for block in resampled(blocks, sample_rate, rate, n):
        x = streams(block, codec.channels)
        state = state or codec.init(len(x))
        latent, spread, state = codec.posterior(x, state)
        done += block.shape[1]
        yield latent, spread, done * sample_rate // rate
    assert state is not None
    rest = np.zeros((state.batch, codec.channels, _frames(codec, n) * codec.hop_length - n), np.float32)
    latent, spread, _ = codec.posterior(rest, state)
    yield latent, spread, n_samples


def _pack(codec: Player, numbers: Numbers, whole: NDArray[np.int64]) -> bytes:
    """(streams, dimensions, frames) as bytes."""
    coder, n_bits = Encoder(), (codec.recipe.codebook_size - 1).bit_length()
    for frame in whole.reshape(-1, whole.shape[-1]).T.tolist():
        for line, value in enumerate(frame):
            if codec.weights.codebooks is None:
                numbers.number(coder, line, value)
            else:
                numbers.code(coder, line, n_bits, value)
    return coder.finish()


def _unpack(codec: Player, numbers: Numbers, data: bytes, n_lines: int, n_frames: int) -> NDArray[np.int64]:
    """(frames, lines) of a chunk."""
    coder, n_bits = Decoder(data), (codec.recipe.codebook_size - 1).bit_length()
    if codec.weights.codebooks is None:
        rows = [[numbers.number(coder, line) for line in range(n_lines)] for _ in range(n_frames)]
    else:
        rows = [[numbers.code(coder, line, n_bits) for line in range(n_lines)] for _ in range(n_frames)]
    found = np.array(rows, np.int64)
    if np.abs(found).max(initial=0) >= (LARGEST if codec.weights.codebooks is None else codec.recipe.codebook_size):
        raise InputError("The coded numbers are damaged.")
    return found


def _decoded(
    codec: Player, header: sfz.Header, file: BinaryIO, path: Path, crc: int, seed: int | None, progress: Progress
) -> Iterator[Array]:
    """The recording, block by block."""
    n = _at_model(codec, header)
    at_model = skipped(_played(codec, header, file, path, crc, seed), codec.recipe.network.delay, n)
    done = 0
    for block in resampled(at_model, codec.recipe.sample_rate, header.sample_rate, header.n_samples):
        done += block.shape[1]
        progress(done, header.n_samples, "decoding")
        yield block


def _played(
    codec: Player, header: sfz.Header, file: BinaryIO, path: Path, crc: int, seed: int | None
) -> Iterator[Array]:
    """What the codec makes of the chunks, (channels, samples), with its delay."""
    weights, numbers = codec.weights, Numbers()
    n_streams = -(-header.channels // codec.channels)
    random = None if seed is None else np.random.Generator(np.random.Philox(seed))
    state = codec.init(n_streams)
    for n_frames, data in sfz.read_chunks(file, path, _frames(codec, _at_model(codec, header)), crc):
        rows = _unpack(codec, numbers, data, n_streams * header.dims, n_frames)
        whole = rows.T.reshape(n_streams, header.dims, n_frames)
        if weights.codebooks is not None:
            latent = codec.latent_of(whole)
        else:
            places = np.zeros((n_streams, len(weights.scale), n_frames), np.float32)
            places[:, : header.dims] = whole * header.step
            if random is not None:
                drawn = random.standard_normal((n_frames, *places.shape[:2]), np.float32).transpose(1, 2, 0)
                missing = np.where(np.arange(len(weights.scale)) < header.dims, 0, 1).astype(np.float32)
                missing[header.dims - 1] = np.sqrt(1 - header.share**2)
                places += drawn * (missing * weights.scale)[:, None]
            latent = axes.latent(weights, places)
        audio, state = codec.decode(latent, state)
        yield recording(audio, header.channels)
