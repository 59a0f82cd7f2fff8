"""Training examples of UASRM: spectrograms of seeded crops with seeded holes, made when they are needed.

A crop is 5.94 s. Most have a hole of all bins near the middle, 0.1 to 1 s long (0.32 s in the mean of the logarithm);
most have boxes, too: up to 1 s and from a third of an octave to all of the spectrum. Nothing is kept on disk: an
example is a pure function of (recordings, seed, number), and costs one read and one transform.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor

from sfumato.data.crops import read
from sfumato.data.examples import DataSettings, Progress
from sfumato.data.manifest import Row, Split
from sfumato.diffusion import noise
from sfumato.errors import InputError
from sfumato.signal.stft import stft
from sfumato.systems import uasrm

Array = NDArray[np.float64]
Known = NDArray[np.bool_]

_QUIETEST = 1e-4
_ATTEMPTS = 100
_COLUMNS_S = (0.1, 1.0)
_BOX_S = (0.1, 1.0)
_BOX_LOW_HZ = (40.0, 10_000.0)
_BOX_OCTAVES = (1.0 / 3.0, 5.0)


def crop(rows: Sequence[Row], root: Path, random: np.random.Generator) -> tuple[Array, int]:
    """One channel of a stretch of 5.94 s, and its sample rate; recordings weigh by the root of their length.

    Raises
    ------
    InputError
        No recording is long enough, or all is silence.
    """
    long = [row for row in rows if int(row.seconds * row.sample_rate) > uasrm.window_samples(row.sample_rate)]
    if not long:
        raise InputError(f"None of {len(rows)} recordings lasts 6 s. Build data with `sfumato data build`.")
    weights = np.sqrt([row.seconds for row in long])
    for _ in range(_ATTEMPTS):
        row = long[int(random.choice(len(long), p=weights / weights.sum()))]
        n = uasrm.window_samples(row.sample_rate)
        start = int(random.integers(0, int(row.seconds * row.sample_rate) - n))
        stereo = read(root / row.path, start, start + n, 2).astype(np.float64)
        angle = random.uniform(-np.pi, np.pi)
        x = stereo[0] * np.cos(angle) + stereo[1] * np.sin(angle)
        if np.sqrt(np.mean(x**2)) > _QUIETEST:
            return x, row.sample_rate
    raise InputError(f"{_ATTEMPTS} crops in a row were silent. Train on recordings that sound.")


def holes(n_bins: int, sample_rate: int, random: np.random.Generator) -> tuple[Known, Known]:
    """Holes ``(n_bins, N_FRAMES)`` and the frames ``(N_FRAMES,)`` inside the recording; a tenth begin or end in it."""
    frame_s = uasrm.hop_length(sample_rate) / sample_rate
    bin_hz = 0.25 / frame_s
    missing = np.zeros((n_bins, uasrm.N_FRAMES), dtype=bool)
    kind = random.random()  # 0 to 0.35 columns, to 0.7 columns and boxes, to 1 boxes
    middle = uasrm.N_FRAMES // 2

    def span(limits_s: tuple[float, float], at: int) -> slice:
        # A gap of s seconds touches the four frames of a window more.
        length = round(float(np.exp(random.uniform(*np.log(limits_s)))) / frame_s) + 4
        return slice(max(0, at - length // 2), at - length // 2 + length)

    if kind < 0.7:
        missing[:, span(_COLUMNS_S, middle + int(random.integers(-40, 41)))] = True
    if kind >= 0.35:
        for number in range(int(random.integers(1, 3))):
            at = middle + int(random.integers(-40, 41)) if number == 0 and kind >= 0.7 else int(random.integers(513))
            low = float(np.exp(random.uniform(*np.log(_BOX_LOW_HZ)))) * (random.random() > 0.1)
            high = max(low, 40.0) * 2.0 ** random.uniform(*_BOX_OCTAVES)
            missing[int(np.ceil(low / bin_hz)) : int(high / bin_hz) + 6, span(_BOX_S, at)] = True
    inside = np.ones(uasrm.N_FRAMES, dtype=bool)
    if random.random() < 0.1:
        edge = middle + int(random.choice([-1, 1])) * int(random.integers(10, middle))
        inside[slice(0, edge) if edge < middle else slice(edge, None)] = False
    missing &= inside
    if not missing.any():
        missing[:, middle - 10 : middle + 10] = True
    return missing, inside


@dataclass(frozen=True)
class Spectrograms:
    """Batches of `uasrm.example`: a pure function of (seed, step).

    Attributes
    ----------
    rows, root
        Recordings of one split, and the folder their paths are relative to.
    config
        Says what the network sees.
    count
        Number of different examples; 0 for as many as there are steps and items.
    seed
        Of the examples, where `count` is not 0.
    """

    rows: Sequence[Row]
    root: Path
    config: uasrm.Config
    count: int = 0
    seed: int = 0

    def batch(self, seed: int, step: int, size: int, rank: int, world: int) -> dict[str, Tensor]:
        """Items ``rank * size / world`` and on of step `step`: "condition", "clean", "missing", see `uasrm.loss`."""
        share = size // world
        first = step * size + rank * share
        items = [self.item(seed, number) for number in range(first, first + share)]
        return {key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0]}

    def item(self, seed: int, number: int) -> dict[str, NDArray[np.float32]]:
        """Example `number`."""
        own = (self.seed, number % self.count) if self.count else (seed, number)
        random = noise.chooser(seed=own[0], item=own[1])
        x, rate = crop(self.rows, self.root, random)
        hop = uasrm.hop_length(rate)
        levels = uasrm.levels_db(stft(torch.from_numpy(x), 4 * hop, hop).numpy())
        missing, inside = holes(len(levels), rate, random)
        view = uasrm.picture(levels, ~missing & inside, missing, self.config)
        return uasrm.example(levels, view, self.config)


def examples(
    rows: Sequence[Row],
    root: Path,
    folder: Path,
    split: Split,
    config: BaseModel,
    settings: DataSettings,
    progress: Progress,
) -> Spectrograms:
    """The examples of one split for a training of the system uasrm (see `sfumato.preset`).

    Training examples are never repeated; validation examples are `settings.validation_examples` fixed ones.

    Raises
    ------
    InputError
        A recording is of another split: what a model is judged on must not have trained it.
    """
    if not isinstance(config, uasrm.Config):
        raise InputError(f"Examples of spectrograms need a configuration of uasrm, not {type(config).__module__}.")
    strangers = [row.recording for row in rows if row.split != split]
    if strangers:
        raise InputError(f"{strangers[0]} is not in the split {split}.")
    return Spectrograms(rows, root, config, 0 if split == "train" else settings.validation_examples, settings.seed)
