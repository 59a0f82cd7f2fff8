"""What codecs are trained on: crops of recordings, or one-shots laid out as patterns nobody played."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.data.crops import Crops
from sfumato.data.examples import share
from sfumato.data.manifest import Row, Split
from sfumato.data.oneshots import read_sound, trimmed
from sfumato.diffusion.noise import chooser
from sfumato.errors import InputError
from sfumato.systems.rave import Config

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sfumato.data.examples import DataSettings, Progress
    from sfumato.train import Dataset

Audio = NDArray[np.float32]

LEVELS_DB = (-30.0, -14.0)
"""Levels at which a codec hears its training crops."""
LONGEST_S = 4.0
"""Of a one-shot, at most this much is laid out."""
ONSETS_PER_S = 5.0
SOFTEST_DB = -24.0
PEAK_DB = (-20.0, -1.0)
"""Levels between which the peak of a pattern lies."""
_AUDIBLE = 1e-4
"""Least peak of a pattern as it was drawn: a quieter one is drawn again."""
_TRIES = 1000


@dataclass(frozen=True)
class Patterns:
    """Windows in which short sounds start at random, each at a level of its own; a data set for `sfumato.train.fit`."""

    sounds: Sequence[Audio]
    """(channels, samples) each, peak 1."""
    sample_rate: int
    n_samples: int

    def batch(self, seed: int, step: int, size: int, rank: int, world: int) -> dict[str, Tensor]:
        """Items [rank, rank + 1) * size / world of a step, as {"clean": (items, channels, samples)}."""
        items = [self.item(seed, step * size + place) for place in share(size, rank, world)]
        return {"clean": torch.from_numpy(np.stack(items))}

    def item(self, seed: int, number: int) -> Audio:
        """Window (channels, samples) of item `number`, counted from the start of the training."""
        choose = chooser(seed=seed, item=number)
        for _ in range(_TRIES):
            window = self._laid(choose)
            peak = float(np.abs(window).max())
            if peak > _AUDIBLE:
                return window * np.float32(10 ** (choose.uniform(*PEAK_DB) / 20) / peak)
        raise InputError(f"{_TRIES} patterns of the sounds at hand were silent. Give longer or louder ones.")

    def _laid(self, choose: np.random.Generator) -> Audio:
        """A window as it was drawn, now and then without a sound."""
        before = self.sample_rate  # sounds that began up to a second earlier ring on in the window
        window = np.zeros((len(self.sounds[0]), before + self.n_samples), np.float32)
        for _ in range(1 + choose.poisson(ONSETS_PER_S * window.shape[1] / self.sample_rate)):
            sound = self.sounds[int(choose.integers(len(self.sounds)))]
            start = int(choose.integers(window.shape[1]))
            n = min(sound.shape[1], window.shape[1] - start)
            window[:, start : start + n] += np.float32(10 ** (choose.uniform(SOFTEST_DB, 0) / 20)) * sound[:, :n]
        return window[:, before:]


def examples(
    rows: Sequence[Row],
    root: Path,
    folder: Path,
    split: Split,
    config: BaseModel,
    settings: DataSettings,
    progress: Progress,
) -> Dataset:
    """Crops of the recordings of one split, or where the settings ask for it patterns of its short sounds.

    Raises
    ------
    InputError
        No recording is as long as a crop, or no sound could be laid out.
    """
    assert isinstance(config, Config)
    if not settings.patterns:
        return Crops(rows, root, config.n_samples, config.network.channels, LEVELS_DB, config.sample_rate)
    sounds = []
    for number, row in enumerate(rows):
        progress(number, len(rows), "reading sounds")
        read = read_sound(root / row.path, config.network.channels, config.sample_rate, LONGEST_S)
        sound = trimmed(read)
        if sound is not None:
            sounds.append(sound)
    if not sounds:
        raise InputError(f"None of {len(rows)} {split} recordings in {root} holds a sound. Give audible ones.")
    return Patterns(sounds, config.sample_rate, config.n_samples)
