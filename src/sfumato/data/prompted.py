"""Sounds with prompts: what a generator of music is trained on, each item a pure function of (seed, step, item).

A recording longer than a window gives crops, resampled where its rate is another one; what its caption says of times is
put in terms of the crop. Shorter sounds are mixed and sequenced (`data.mixing`), so that the caption says what is heard
when. Levels are evened out, as a generator is never asked for one: at 16 kHz or more, so that what draws a lower band
draws it as loud as it is in the whole.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from sfumato.data import caption_file, mixing
from sfumato.data.caption_file import Caption, CaptionPart
from sfumato.data.captioned import described
from sfumato.data.captions import name_of
from sfumato.data.crops import crop
from sfumato.data.examples import share
from sfumato.data.manifest import Row, Split
from sfumato.data.oneshots import read_sound
from sfumato.diffusion.noise import chooser
from sfumato.errors import InputError
from sfumato.networks import text
from sfumato.order_prompts import Event, Place, spoken, write
from sfumato.signal.complex_spectrogram import LEVEL
from sfumato.wanted import KEYS, key_number

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sfumato.data.examples import DataSettings, Progress

Audio = NDArray[np.float32]

MIXED_SHARE = 0.3
"""Of the items, if there are both short and long sounds, this share are mixtures of short ones."""
MOST_MIXED = 3
LEVEL_RATE = 16000
"""Lowest sample rate that levels are measured at, Hz."""
LEVELS_DB = 6.0
"""Largest difference of an item's level from `LEVEL`, dB."""
PEAK = 0.95
SPARE = 2
"""Samples that are read beyond what is wanted where it is brought to a lower rate."""
QUIETEST = 1e-3
"""Peak, or RMS, below which there is nothing to hear."""
ATTEMPTS = 8
TOLD_SHARE = 0.5
"""Of the items whose tempo and key are known, this share are told them by number, too."""
STRUCTURED_SHARE = 0.3
"""Of captions that say what is heard when, this share are structured ones."""
SPANNING = 0.8
"""Share of a crop that what "is heard all through" lasts at least."""


class Windowed(Protocol):
    """A configuration that says what it is trained on."""

    @property
    def sample_rate(self) -> int:
        """In Hz."""

    @property
    def n_samples(self) -> int:
        """Samples of a training example."""


@dataclass(frozen=True)
class Short:
    """A sound shorter than a window."""

    audio: NDArray[np.float16]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Prompted:
    """Windows of sounds and what is wanted of a generator to make them; a data set for `sfumato.train.fit`."""

    long: Sequence[Row]
    captions: Sequence[Sequence[Caption]]
    """Of each long recording."""
    short: Sequence[Short]
    root: Path
    sample_rate: int
    """Of what is read and mixed, `LEVEL_RATE` or more."""
    n_samples: int
    wanted_rate: int
    """Of the items."""
    n_wanted: int

    def batch(self, seed: int, step: int, size: int, rank: int, world: int) -> dict[str, Tensor]:
        """Items [rank, rank + 1) * size / world of a step: "audio" (items, n_wanted) and the fields of `Wanted`."""
        items = [self.item(seed, step * size + i) for i in share(size, rank, world)]
        sounds = {"audio": torch.from_numpy(np.stack([audio for audio, *_ in items]))}
        return sounds | told([item[1:] for item in items])

    def item(self, seed: int, number: int) -> tuple[Audio, str, float, int]:
        """Audio ``(n_wanted,)``, caption, tempo and key (0 where not told) of item `number` of a training."""
        choose = chooser(seed=seed, item=number)
        audio, caption, bpm, key = self._found(choose)
        for _ in range(ATTEMPTS):
            if np.abs(audio).max() > QUIETEST:
                break
            audio, caption, bpm, key = self._found(choose)
        level = LEVEL * 10 ** (choose.uniform(-LEVELS_DB, LEVELS_DB) / 20)
        rms = float(np.sqrt(np.mean(np.square(audio, dtype=np.float64))))
        gain = min(level / max(rms, QUIETEST), PEAK / max(float(np.abs(audio).max()), QUIETEST))
        if choose.random() >= TOLD_SHARE:
            bpm, key = 0.0, 0
        audio = audio * np.float32(gain if choose.random() < 0.5 else -gain)
        if self.sample_rate != self.wanted_rate:
            audio = soxr.resample(audio, self.sample_rate, self.wanted_rate, quality="HQ")[: self.n_wanted]
        return audio, caption, bpm, key

    def _found(self, choose: np.random.Generator) -> tuple[Audio, str, float, int]:
        """A crop or a mixture."""
        if not self.long or (self.short and choose.random() < MIXED_SHARE):
            return (*self._mixture(choose), 0.0, 0)
        number = int(choose.integers(len(self.long)))
        row, captions = self.long[number], self.captions[number]
        first = int(choose.integers(int(row.seconds * self.sample_rate) - self.n_samples + 1))
        audio = crop(row, self.root, first, self.n_samples, 1, self.sample_rate)[0]
        span = first / self.sample_rate, (first + self.n_samples) / self.sample_rate
        bpm = float(row.labels.get("tempo", 0) or 0)
        return audio, said_of(captions, span, choose), bpm, key_of(row)

    def _mixture(self, choose: np.random.Generator) -> tuple[Audio, str]:
        """One to three short sounds and what is heard when."""
        picked = [self.short[int(choose.integers(len(self.short)))] for _ in range(MOST_MIXED)]
        sounds = [
            mixing.Sound(one.audio.astype(np.float32), one.captions[int(choose.integers(len(one.captions)))])
            for one in picked[: int(choose.integers(1, MOST_MIXED + 1))]
        ]
        seed = int(choose.integers(2**62))
        mixed = mixing.mixture(sounds, self.n_samples / self.sample_rate, self.sample_rate, seed, 0)
        caption = mixed.structured if choose.random() < STRUCTURED_SHARE else mixed.plain
        return mixed.audio[0], caption


def told(asked: Sequence[tuple[str, float, int]]) -> dict[str, Tensor]:
    """The fields of `Wanted` of captions, tempi and keys, stacked."""
    states = [_encoded(caption) for caption, _, _ in asked]
    longest = max(len(tokens) for _, tokens in states)
    return {
        "sentence": torch.stack([sentence for sentence, _ in states]),
        "tokens": torch.stack([pad(tokens, (0, 0, 0, longest - len(tokens))) for _, tokens in states]),
        "valid": torch.stack([torch.arange(longest) < len(tokens) for _, tokens in states]),
        "bpm": torch.tensor([bpm for _, bpm, _ in asked], dtype=torch.float32),
        "key": torch.tensor([key for _, _, key in asked]),
    }


def said_of(captions: Sequence[Caption], span: tuple[float, float], choose: np.random.Generator) -> str:
    """What is said of the seconds `span` of a recording: one of its captions, if all of it is heard all through."""
    parts = captions[0].parts
    lasting = [_overlap(part, span) for part in parts]
    if all(share >= SPANNING for share in lasting):
        return captions[int(choose.integers(len(captions)))].caption
    events = [
        Event(part.words, place_of(part, span)) for part, share in zip(parts, lasting, strict=True) if share > 0.1
    ]
    if not events:
        return "silence"
    return write(events) if choose.random() < STRUCTURED_SHARE else spoken(events)


def place_of(part: CaptionPart, span: tuple[float, float]) -> Place:
    """Where in a span of seconds a part of a recording is heard: the third in which its middle lies, or all through."""
    if _overlap(part, span) >= SPANNING:
        return "all"
    middle = (max(part.start_s, span[0]) + min(part.stop_s, span[1])) / 2
    third = 3 * (middle - span[0]) / (span[1] - span[0])
    return "start" if third < 1 else "mid" if third < 2 else "end"


def _overlap(part: CaptionPart, span: tuple[float, float]) -> float:
    """Share of the span for which a part is heard."""
    return max(0.0, min(part.stop_s, span[1]) - max(part.start_s, span[0])) / (span[1] - span[0])


def key_of(row: Row) -> int:
    """Number of a recording's key; 0 where the labels don't say, or don't say whether it is major or minor."""
    if "key" not in row.labels or "mode" not in row.labels:
        return KEYS.index("any")
    return key_number(f"{row.labels['key']} {row.labels['mode']}")


@functools.lru_cache(maxsize=30_000)
def _encoded(caption: str) -> tuple[Tensor, Tensor]:
    """Sentence vector and word pieces' states of a caption."""
    found = text.load().encode([caption])
    return found.sentence[0], found.tokens[0]


def examples(
    rows: Sequence[Row],
    root: Path,
    folder: Path,
    split: Split,
    config: BaseModel,
    settings: DataSettings,
    progress: Progress,
) -> Prompted:
    """The prompted sounds of one split (see `sfumato.preset`).

    Raises
    ------
    InputError
        There is no sound to be heard.
    """
    wanted_rate, n_wanted = config.sample_rate, config.n_samples  # type: ignore[attr-defined]
    rate = max(wanted_rate, LEVEL_RATE)
    n = n_wanted if rate == wanted_rate else math.ceil((n_wanted + SPARE) * rate / wanted_rate)
    path = root / caption_file.NAME
    given = caption_file.read_captions(path) if path.is_file() else {}
    long, captions, short = [], [], []
    for number, row in enumerate(rows):
        progress(number, len(rows), "reading sounds")
        own = given.get(name_of(row)) or [Caption(recording=name_of(row), caption=said) for said in described(row)]
        if row.seconds * rate >= n + 1:
            long.append(row)
            captions.append(own)
            continue
        audio = read_sound(root / row.path, 1, rate, n / rate)
        if np.abs(audio).max(initial=0.0) > QUIETEST:
            plain = tuple(dict.fromkeys(one.caption for one in own if not set(one.caption) & set("<>@&")))
            short.append(Short(audio.astype(np.float16), plain))
    short = [one for one in short if one.captions]
    if not long and not short:
        raise InputError(f"None of {len(rows)} recordings in {root} holds a sound. Give some that aren't silent.")
    return Prompted(long, captions, short, root, rate, n, wanted_rate, n_wanted)
