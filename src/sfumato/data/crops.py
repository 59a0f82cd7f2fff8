"""Training crops: which stretch of which recording is a pure function of (seed, step, item)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.data.examples import share
from sfumato.data.manifest import Row
from sfumato.errors import InputError

QUIETEST_DB = -60.0
ATTEMPTS = 8
MARGIN = 256
"""Samples read beyond either end of a crop that is resampled."""


@dataclass(frozen=True)
class Crops:
    """Crops of a manifest's recordings, drawn evenly over time; a data set for `sfumato.train.fit`.

    Attributes
    ----------
    rows
        Recordings to draw from; all of one sample rate unless one is given, at least one long enough.
    root
        The manifest's folder.
    n_samples
        Length of a crop in samples.
    channels
        1 (the mean of a recording's channels) or 2 (a mono recording is doubled).
    levels_db
        Each crop is brought to a level (RMS) drawn evenly from this range, unless a peak would leave ±1; None for as
        it is.
    sample_rate
        Rate of the crops, Hz; recordings of other rates are resampled as they are read. None for the recordings' own.
    """

    rows: Sequence[Row]
    root: Path
    n_samples: int
    channels: int = 2
    levels_db: tuple[float, float] | None = None
    sample_rate: int | None = None
    _ends: NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.n_samples < 1 or self.channels not in (1, 2):
            raise InputError(
                f"Crops of {self.n_samples} samples, {self.channels} channels can't be cut. Give 1 or 2 channels."
            )
        rates = sorted({row.sample_rate for row in self.rows})
        if len(rates) > 1 and self.sample_rate is None:
            raise InputError(f"The recordings have different sample rates ({rates} Hz). Build them at one rate.")
        lengths = [int(row.seconds * (self.sample_rate or row.sample_rate) + 0.5) for row in self.rows]
        starts = [max(0, length - self.n_samples + 1) for length in lengths]
        ends = np.cumsum(starts, dtype=np.int64)
        if not len(ends) or not ends[-1]:
            raise InputError(f"None of {len(self.rows)} recordings is {self.n_samples} samples long. Give longer ones.")
        object.__setattr__(self, "_ends", ends)

    def place(self, seed: int, step: int, item: int, attempt: int = 0) -> tuple[Row, int]:
        """The recording and the first sample of one crop; every possible start is equally likely."""
        for name, value in (("seed", seed), ("step", step), ("item", item)):
            if not 0 <= value < 2**63:
                raise InputError(f"{name} {value} is outside 0 … 2^63 - 1. Give a whole number inside.")
        key, counter = np.array([seed, 0], np.uint64), np.array([0, attempt, item, step], np.uint64)
        at = int(np.random.Generator(np.random.Philox(key=key, counter=counter)).integers(self._ends[-1]))
        index = int(np.searchsorted(self._ends, at, side="right"))
        return self.rows[index], at - (int(self._ends[index - 1]) if index else 0)

    def crop(self, seed: int, step: int, item: int) -> NDArray[np.float32]:
        """Audio (channels, samples) of one crop; silence below -60 dB is drawn again, up to eight times."""
        audio = np.zeros((self.channels, self.n_samples), np.float32)
        for attempt in range(ATTEMPTS):
            row, start = self.place(seed, step, item, attempt)
            audio = crop(row, self.root, start, self.n_samples, self.channels, self.sample_rate)
            level = float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))
            if level > 10 ** (QUIETEST_DB / 20):
                return audio * np.float32(self._gain(level, float(np.abs(audio).max()), seed, step, item))
        return audio

    def _gain(self, level: float, peak: float, seed: int, step: int, item: int) -> float:
        """What brings a crop of this level and peak to the level that its number draws."""
        if self.levels_db is None:
            return 1.0
        key, counter = np.array([seed, 1], np.uint64), np.array([0, 0, item, step], np.uint64)
        wanted_db = np.random.Generator(np.random.Philox(key=key, counter=counter)).uniform(*self.levels_db)
        return float(min(10 ** (wanted_db / 20) / level, 1.0 / peak))

    def batch(self, seed: int, step: int, size: int, rank: int, world: int) -> dict[str, Tensor]:
        """Items [rank, rank + 1) · size / world of a step's `size` crops, as {"clean": (items, channels, samples)}."""
        crops = [self.crop(seed, step, item) for item in share(size, rank, world)]
        return {"clean": torch.from_numpy(np.stack(crops))}


def crop(
    row: Row, root: Path, start: int, n_samples: int, channels: int, sample_rate: int | None = None
) -> NDArray[np.float32]:
    """Samples [start, start + n_samples) of a recording at `sample_rate`, as (channels, n_samples).

    Only what is needed is read and resampled; None is the recording's own rate.
    """
    stop = start + n_samples
    if sample_rate in (None, row.sample_rate):
        return read(root / row.path, start, stop, channels)
    ratio = row.sample_rate / sample_rate
    length = int(row.seconds * row.sample_rate + 0.5)
    grid = row.sample_rate // math.gcd(row.sample_rate, sample_rate)  # here both rates have a sample
    first = max(0, (int(start * ratio) - MARGIN) // grid * grid)
    audio = read(root / row.path, first, min(length, int(stop * ratio) + MARGIN), channels)
    made = soxr.resample(audio.T, row.sample_rate, sample_rate).T.astype(np.float32)
    begin = round(start - first / ratio)
    wanted = made[:, begin : begin + n_samples]
    return np.pad(wanted, ((0, 0), (0, n_samples - wanted.shape[1])))


def read(path: Path, start: int, stop: int, channels: int) -> NDArray[np.float32]:
    """Samples [start, stop) of a file, as (channels, samples); reads nothing else.

    Raises
    ------
    InputError
        If the file is missing, broken or shorter than `stop`.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            if stop > file.frames:
                raise InputError(f"{path} has {file.frames} samples, {stop} are needed. Build its source again.")
            file.seek(start)
            audio: NDArray[np.float32] = file.read(stop - start, dtype="float32", always_2d=True).T
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path} can't be read: {error}. Build its source again.") from error
    if channels == 1:
        audio = audio.mean(axis=0, keepdims=True, dtype=np.float32)
        return audio
    return np.ascontiguousarray(np.repeat(audio, 2, axis=0) if audio.shape[0] == 1 else audio[:2])
