"""Latent sequences of recordings, as a codec gives them: what its prior is trained on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.data.crops import read
from sfumato.data.examples import share
from sfumato.data.manifest import Row, Split
from sfumato.diffusion.noise import chooser
from sfumato.errors import InputError
from sfumato.files import write_atomically
from sfumato.player import axes
from sfumato.systems.rave_prior import Config, codec_of

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sfumato.data.examples import DataSettings, Progress
    from sfumato.player import Player

Array = NDArray[np.float32]

BLOCK_FRAMES = 64


@dataclass(frozen=True)
class Latents:
    """Windows of latent sequences, drawn evenly over time; a data set for `sfumato.train.fit`."""

    sequences: Sequence[Array]
    """(dims, frames) each, of unit variance over all of them."""
    frames: int

    def batch(self, seed: int, step: int, size: int, rank: int, world: int) -> dict[str, Tensor]:
        """Items [rank, rank + 1) * size / world of a step, as {"clean": (items, dims, frames)}."""
        ends = np.cumsum([sequence.shape[1] - self.frames + 1 for sequence in self.sequences])
        windows = []
        for place in share(size, rank, world):
            at = int(chooser(seed=seed, item=step * size + place).integers(ends[-1]))
            number = int(np.searchsorted(ends, at, side="right"))
            start = at - (int(ends[number - 1]) if number else 0)
            windows.append(self.sequences[number][:, start : start + self.frames])
        return {"clean": torch.from_numpy(np.stack(windows))}


def coordinates(codec: Player, audio: Array, dims: int) -> Array:
    """The strongest principal coordinates (dims, frames) of mono audio, each over its standard deviation.

    The audio's last, unfinished frame is left out.
    """
    hop, weights = codec.hop_length, codec.weights
    state = codec.init(1, block=BLOCK_FRAMES * hop)
    n = len(audio) // hop
    padded = np.zeros(-(-n // BLOCK_FRAMES) * BLOCK_FRAMES * hop, np.float32)
    padded[: n * hop] = audio[: n * hop]
    parts = []
    for block in padded.reshape(-1, BLOCK_FRAMES * hop):
        latent, state = codec.encode(block[None, None], state)
        parts.append(latent[0])
    latents = np.concatenate(parts, axis=1)[:, :n]
    turned = axes.coordinates(weights, latents)[:dims]
    return np.asarray(turned / axes.deviations(weights, dims)[:, None], np.float32)


def examples(
    rows: Sequence[Row],
    root: Path,
    folder: Path,
    split: Split,
    config: BaseModel,
    settings: DataSettings,
    progress: Progress,
) -> Latents:
    """The latent sequences of one split's recordings, kept in `folder` so that they are made once.

    Raises
    ------
    InputError
        No recording is at the codec's rate and long enough.
    ModelError
        The codec is missing, or has fewer coordinates than are asked for.
    """
    assert isinstance(config, Config)
    codec = codec_of(config)
    sequences = []
    for number, row in enumerate(rows):
        progress(number, len(rows), "encoding")
        if row.sample_rate != codec.recipe.sample_rate:
            continue
        kept = folder / f"{codec.digest[:12]}-{row.sha256[:16]}-{config.dims}.npy"
        if kept.exists():
            sequence = np.load(kept)
        else:
            audio = read(root / row.path, 0, int(row.seconds * row.sample_rate), 1)[0]
            sequence = coordinates(codec, audio, config.dims)
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, _npy(sequence))
        if sequence.shape[1] >= config.frames:
            sequences.append(sequence)
    if not sequences:
        raise InputError(
            f"None of {len(rows)} {split} recordings is at {codec.recipe.sample_rate} Hz and "
            f"{config.frames * codec.hop_length / codec.recipe.sample_rate:.1f} s long. Give some that are."
        )
    return Latents(sequences, config.frames)


def _npy(array: Array) -> bytes:
    """An array as the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
