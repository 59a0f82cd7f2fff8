"""Latents of prompted sounds, as a spectrogram autoencoder gives them: what a latent generator is trained on.

The items are those of `data.prompted`, as many as the settings say, over and over; each is encoded when it first comes
up and kept in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfumato.data import prompted
from sfumato.data.examples import share
from sfumato.data.manifest import Row, Split
from sfumato.data.prompted import Prompted, told
from sfumato.networks.mel_vae import MelVae
from sfumato.systems.make_an_audio import Config, training_picture, vae_of

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sfumato.data.examples import DataSettings, Progress

Kept = tuple[Tensor, tuple[str, float, int]]


@dataclass(frozen=True)
class MelLatents:
    """Windows of latents and what is wanted of a generator to draw them; a data set for `sfumato.train.fit`."""

    sounds: Prompted
    vae: MelVae
    config: Config
    n: int
    """Items before the first one comes again."""
    _kept: dict[tuple[int, int], Kept] = field(default_factory=dict, repr=False, compare=False)

    def batch(self, seed: int, step: int, size: int, rank: int, world: int) -> dict[str, Tensor]:
        """Items [rank, rank + 1) * size / world of a step: "latents" (items, c, rows, frames), fields of `Wanted`."""
        items = [self.item(seed, (step * size + i) % self.n) for i in share(size, rank, world)]
        return {"latents": torch.stack([latents.float() for latents, _ in items])} | told([asked for _, asked in items])

    def item(self, seed: int, number: int) -> Kept:
        """Latents of item `number` of a training, in half precision; its caption, tempo and key."""
        if (seed, number) not in self._kept:
            audio, caption, bpm, key = self.sounds.item(seed, number)
            with torch.no_grad():
                latents = self.vae.encode(training_picture(torch.from_numpy(audio)[None], self.config))[0]
            self._kept[seed, number] = latents.half(), (caption, bpm, key)
        return self._kept[seed, number]


def examples(
    rows: Sequence[Row],
    root: Path,
    folder: Path,
    split: Split,
    config: BaseModel,
    settings: DataSettings,
    progress: Progress,
) -> MelLatents:
    """The latents of one split's sounds (see `sfumato.preset`).

    Raises
    ------
    InputError
        There is no sound to be heard.
    ModelError
        The autoencoder is missing, or doesn't fit the configuration.
    """
    assert isinstance(config, Config)
    sounds = prompted.examples(rows, root, folder, split, config, settings, progress)
    n = settings.examples if split == "train" else settings.validation_examples
    return MelLatents(sounds, vae_of(config), config, n)
