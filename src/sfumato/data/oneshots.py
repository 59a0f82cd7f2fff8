"""One-shots: short sounds, held in memory, as training windows that are a pure function of (seed, step, item).

Most windows hold one sound that starts where the window does. The rest lie anywhere in something longer: up to three
sounds that start before or in the window. Windows of a long sound or of a loop are of that second kind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.audio import to_channels
from sfumato.data.examples import share
from sfumato.data.manifest import Row, Split
from sfumato.diffusion.noise import chooser
from sfumato.errors import InputError
from sfumato.systems.dance_diffusion import ANYWHERE, START, Config

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sfumato.data.examples import DataSettings, Progress

Audio = NDArray[np.float32]

ONSET_DB, TAIL_DB = -46.0, -72.0
"""Levels below its peak at which a sound begins and is over."""

QUIETEST = 10 ** (-66 / 20)
"""A sound whose peak is below this is silence."""

SHORTEST = 64
"""Samples; a shorter sound is a click or a broken file."""

ANYWHERE_SHARE = 0.3
LATEST_S = 0.004
"""A sound that starts its window begins up to this late."""

SEMITONES = 3.0
TILT = 0.3
"""Of the sample before that is added at most: up to 3 dB at either end of the spectrum."""
DAMPED_SHARE = 0.25
DECAYS_S = (0.03, 0.6)
"""Shortest and longest time constant of what a damped sound is multiplied by."""
GAIN_DB = 9.0
PEAK = 0.9
FADE_S = 0.02
"""Fade at the end of a window that a sound outlasts."""

_BREAK = re.compile(r"\bbeats?.?\d", re.IGNORECASE)
"""A name of slices of a breakbeat, whatever drum comes first in a slice."""

_SAME = {"loop": "break"}
"""Labels that are another kind's name."""

_NAMES = (
    ("break", r"beats?|break\w*|loop\w*|jungle|amen"),
    ("kick", r"kick\w*|bd\d*|bass ?drum|kdrum"),
    ("clap", r"clap\w*|cp\d*|snap\w*"),
    ("snare", r"\w*snare\w*|sn\d*|sd\d*|snr|rim\w*|side ?stick|rs|sr"),
    ("tom", r"tom\w*|tm\d*|ft|t[1-4]|floor"),
    ("hat", r"\w*hat\w*|hh\w*|chh|ohh|ho|ch|oh"),
    ("cymbal", r"crash\w*|ride\w*|rd\d*|cymbal\w*|cym|china|splash|cc|rc|gong"),
    ("hand", r"djembe\w*|conga\w*|bongo\w*|tabla\w*|dun\w*|kenkeni\w*|sangban\w*|cajon|timbale\w*"),
    ("percussion", r"cow\w*|shak\w*|tamb\w*|perc\w*|click|stick\w*|wood\w*|clave\w*|triangle|maraca\w*|agogo|cabasa"),
    ("bass", r"\w*bass\w*|sub"),
    ("tone", r"synth\w*|pad\w*|string\w*|guit\w*|piano|organ|bell\w*|lead|stab|chord|note|flute|voice|choir"),
    ("effect", r"fx\w*|effect\w*|glitch\w*|scratch\w*|noise|sweep|riser|vinyl"),
)
"""Kinds and what they are called, first match first; whole words of a recording's labels and name."""


@dataclass(frozen=True)
class Sound:
    """One sound, its silence trimmed, its peak 1."""

    audio: Audio
    """(channels, samples)"""
    label: int
    """Number of its kind among the model's, from 1; 0 if none fits."""
    name: str


@dataclass(frozen=True)
class OneShots:
    """Windows of sounds; a data set for `sfumato.train.fit`. Sounds are changed at random if `augment`."""

    sounds: Sequence[Sound]
    config: Config
    augment: bool = True

    def batch(self, seed: int, step: int, size: int, rank: int, world: int) -> dict[str, Tensor]:
        """Items [rank, rank + 1) * size / world of a step: "clean" (items, channels, samples), "labels" (items, 2)."""
        items = [self.item(seed, step * size + i) for i in share(size, rank, world)]
        clean, labels = (list(part) for part in zip(*items, strict=True))
        return {"clean": torch.from_numpy(np.stack(clean)), "labels": torch.tensor(labels)}

    def item(self, seed: int, number: int) -> tuple[Audio, tuple[int, int]]:
        """Window ``(channels, n_samples)`` and labels of item `number`, counted from the start of the training."""
        choose = chooser(seed=seed, item=number)
        if not self.augment:
            sound = self.sounds[number % len(self.sounds)]
            return self._alone(sound.audio, 0) * np.float32(PEAK), (sound.label, START)
        sound = self._chosen(choose)
        if choose.random() >= ANYWHERE_SHARE:
            late = int(choose.integers(round(LATEST_S * self.config.sample_rate) + 1))
            window, label, place = self._alone(self._varied(sound.audio, choose), late), sound.label, START
        else:
            window, label = self._several(sound, choose)
            place = ANYWHERE
        gain = PEAK * 10 ** (-GAIN_DB * choose.random() / 20) / max(float(np.abs(window).max()), 1e-3)
        return window * np.float32(gain), (label, place)

    def _chosen(self, choose: np.random.Generator) -> Sound:
        """A sound; in half of the cases its kind first, so that rare kinds are heard too."""
        among = self.sounds
        if choose.random() < 0.5:
            labels = sorted({sound.label for sound in self.sounds})
            label = labels[int(choose.integers(len(labels)))]
            among = [sound for sound in self.sounds if sound.label == label]
        return among[int(choose.integers(len(among)))]

    def _alone(self, audio: Audio, late: int) -> Audio:
        """A window in which a sound starts after `late` samples; one that outlasts it is faded out."""
        window = _empty(self.config)
        _add(window, audio, late)
        if audio.shape[1] + late > window.shape[1]:
            n = min(round(FADE_S * self.config.sample_rate), window.shape[1])
            window[:, window.shape[1] - n :] *= np.cos(np.linspace(0, np.pi / 2, n, dtype=np.float32)) ** 2
        return window

    def _several(self, first: Sound, choose: np.random.Generator) -> tuple[Audio, int]:
        """A stretch of something longer: one to three sounds, of one kind or of any, starting anywhere."""
        window, n = _empty(self.config), self.config.n_samples
        alike = [s for s in self.sounds if s.label == first.label] if choose.random() < 0.5 else self.sounds
        others = [alike[int(choose.integers(len(alike)))] for _ in range(int(choose.integers(3)))]
        for sound in (first, *others):
            audio = self._varied(sound.audio, choose)
            _add(window, audio, int(choose.integers(-min(audio.shape[1], n) // 2, n)))
        return window, first.label if all(other.label == first.label for other in others) else 0

    def _varied(self, audio: Audio, choose: np.random.Generator) -> Audio:
        """A sound played faster or slower, brighter or duller, maybe damped, its polarity or its channels turned."""
        ratio = 2.0 ** (choose.uniform(-SEMITONES, SEMITONES) / 12)
        audio = audio[:, : int(1.3 * self.config.n_samples)]
        if audio.shape[1] > SHORTEST:
            audio = resampled(audio, ratio, 1.0)
        tilt = choose.uniform(-TILT, TILT)
        audio = np.concatenate([audio[:, :1], audio[:, 1:] + tilt * audio[:, :-1]], axis=1, dtype=np.float32)
        if choose.random() < DAMPED_SHARE:
            decay = math.exp(choose.uniform(*np.log(DECAYS_S))) * self.config.sample_rate
            audio = audio * np.exp(-np.arange(audio.shape[1], dtype=np.float32) / np.float32(decay))
        if choose.random() < 0.5:
            audio = audio[::-1]
        return -audio if choose.random() < 0.5 else audio


def _empty(config: Config) -> Audio:
    return np.zeros((config.network.channels, config.n_samples), np.float32)


def _add(window: Audio, audio: Audio, start: int) -> None:
    """Add `audio`, from sample `start` of the window on, as far as it lies in it."""
    audio = audio[:, max(0, -start) :]
    here = max(0, start)
    n = min(audio.shape[1], window.shape[1] - here)
    window[:, here : here + n] += audio[:, :n]


def resampled(audio: Audio, rate: float, wanted: float) -> Audio:
    """Audio ``(channels, samples)`` at another sample rate."""
    if rate == wanted:
        return audio
    out: Audio = soxr.resample(audio.T, rate, wanted, quality="HQ").T.astype(np.float32)
    return out


def trimmed(audio: Audio) -> Audio | None:
    """A sound without what is silent before and after it, its peak 1; None if nothing is left to hear."""
    if audio.shape[1] < SHORTEST:
        return None
    audio = audio - np.median(audio, axis=1, keepdims=True)
    envelope = np.abs(audio).max(axis=0)
    peak = float(envelope.max())
    if peak < QUIETEST:
        return None
    start = int(np.argmax(envelope > peak * 10 ** (ONSET_DB / 20)))
    stop = len(envelope) - int(np.argmax(envelope[::-1] > peak * 10 ** (TAIL_DB / 20)))
    if stop - start < SHORTEST:
        return None
    return np.ascontiguousarray(audio[:, max(0, start - 8) : stop] / peak, dtype=np.float32)


def kind_of(row: Row, kinds: Sequence[str]) -> int:
    """Number of a recording's kind among `kinds`, from 1; 0 if none fits.

    A label "class" says it outright; otherwise words of the recording's name and labels tell.
    """
    named = _SAME.get(row.labels.get("class", ""), row.labels.get("class"))
    if "break" in kinds and _BREAK.search(row.labels.get("title", row.recording).replace("_", " ")):
        named = "break"
    if named in kinds:
        return kinds.index(named) + 1
    words = " ".join((Path(row.recording).stem, *row.labels.values()))
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z0-9]+|(?<=[a-z]{3})(?=\d)", " ", words).lower()
    for kind, names in _NAMES:
        if kind in kinds and re.search(rf"\b({names})\b", words):
            return kinds.index(kind) + 1
    return kinds.index("other") + 1 if "other" in kinds else 0


def read_sound(path: Path, channels: int, sample_rate: int, seconds: float) -> Audio:
    """Up to `seconds` of a file, as ``(channels, samples)`` at `sample_rate`.

    Raises
    ------
    InputError
        The file can't be read, or holds values that are not finite.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            audio: Audio = file.read(int(seconds * file.samplerate), dtype="float32", always_2d=True).T
            rate = file.samplerate
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        raise InputError(f"{path} can't be read: {error}.") from None
    if not np.isfinite(audio).all():
        raise InputError(f"{path} holds samples that are NaN or infinite. Leave it out.")
    return resampled(to_channels(audio, channels), rate, sample_rate)


def load_sounds(rows: Sequence[Row], root: Path, config: Config, progress: Progress | None = None) -> list[Sound]:
    """The sounds of a manifest's rows, in their order; silent and one-sample ones are left out.

    Raises
    ------
    InputError
        A file can't be read, or there is no sound at all.
    """
    longest_s = 1.5 * config.n_samples / config.sample_rate + 1.0
    sounds = []
    for number, row in enumerate(rows):
        if progress is not None:
            progress(number, len(rows), "reading sounds")
        audio = trimmed(read_sound(root / row.path, config.network.channels, config.sample_rate, longest_s))
        if audio is not None:
            sounds.append(Sound(audio, kind_of(row, config.kinds), f"{row.source}/{row.recording}"))
    if not sounds:
        raise InputError(f"None of {len(rows)} recordings in {root} holds a sound. Give some that aren't silent.")
    return sounds


def examples(
    rows: Sequence[Row],
    root: Path,
    folder: Path,
    split: Split,
    config: BaseModel,
    settings: DataSettings,
    progress: Progress,
) -> OneShots:
    """The sounds of one split (see `sfumato.preset`)."""
    if not isinstance(config, Config):
        raise TypeError(f"One-shots are for dance_diffusion, not for a {type(config).__name__}.")
    return OneShots(load_sounds(rows, root, config, progress), config, augment=split == "train")
