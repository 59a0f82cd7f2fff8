"""Mixes and sequences labelled sounds, and writes what is then heard when: captions whose order of events is exact.

References
----------
Huang et al., "Make-An-Audio", ICML 2023, arXiv 2301.12661, section 3.2: programs that recombine sounds and captions.
Huang et al., "Make-An-Audio 2", arXiv 2305.18474, section 3.1: structured captions of the order of events.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfumato.data.caption_file import CaptionPart
from sfumato.errors import InputError
from sfumato.order_prompts import SPANS, Event, Place, spoken, write

Audio = NDArray[np.float32]

PLANS: tuple[tuple[Place, ...], ...] = (
    ("all",), ("start", "end"), ("start", "mid"), ("mid", "end"), ("start", "mid", "end"), ("all", "start"),
    ("all", "mid"), ("all", "end"), ("all", "all"),
)  # fmt: skip
"""Where the sounds of a mixture lie."""
BACKGROUND_DB, FOREGROUND_DB = -9.0, -1.0
"""Peaks of a sound that lasts all through beside others, and of the others, relative to full scale."""
FADE_S = 0.02
QUIETEST = 1e-4


@dataclass(frozen=True)
class Sound:
    """A sound (channels, samples) and what it is in words."""

    audio: Audio
    words: str


@dataclass(frozen=True)
class Mixture:
    """A mixture, its captions (structured, and in plain words), and what is heard from when to when."""

    audio: Audio
    structured: str
    plain: str
    parts: tuple[CaptionPart, ...]


def mixture(sounds: Sequence[Sound], seconds: float, sample_rate: int, seed: int, item: int) -> Mixture:
    """Mixture number `item`: one to three of the sounds, each where its caption says.

    Parameters
    ----------
    sounds
        To choose from; all with the same number of channels, at `sample_rate`.
    seconds
        Length of the mixture.
    sample_rate
        In Hz.
    seed, item
        The mixture is a pure function of these and the sounds.

    Raises
    ------
    InputError
        If there are no sounds, they are silent or not alike in channels, or the mixture is shorter than 0.3 s.
    """
    if not sounds or len({sound.audio.shape[0] for sound in sounds}) != 1:
        raise InputError(f"{len(sounds)} sounds can't be mixed. Give at least one, all with as many channels.")
    n = round(seconds * sample_rate)
    if seconds < 0.3:
        raise InputError(f"A mixture of {seconds:g} s is too short for an order of events. Give 0.3 s or more.")
    random = np.random.Generator(np.random.Philox(key=np.array([seed, (0x313 << 40) + item], np.uint64)))
    plans = [plan for plan in PLANS if len(plan) <= len(sounds)]
    plan = plans[int(random.integers(len(plans)))]
    chosen = [sounds[int(i)] for i in random.permutation(len(sounds))[: len(plan)]]
    audio = np.zeros((sounds[0].audio.shape[0], n), np.float32)
    parts, events = [], []
    for place, sound in zip(plan, chosen, strict=True):
        first, last = (round(share * n) for share in SPANS[place])
        level = BACKGROUND_DB if place == "all" and len(plan) > 1 else FOREGROUND_DB
        start, heard = _placed(sound, first, last, place, sample_rate, level, random)
        audio[:, start : start + heard.shape[1]] += heard
        stop = start + heard.shape[1]
        parts.append(CaptionPart(words=sound.words, start_s=start / sample_rate, stop_s=stop / sample_rate))
        events.append(Event(sound.words, place))
    peak = float(np.abs(audio).max())
    if peak > 1:
        audio /= np.float32(peak)
    return Mixture(audio, write(events), plain(events, random), tuple(parts))


def plain(events: Sequence[Event], random: np.random.Generator) -> str:
    """The events in plain words, by one of several templates."""
    order: tuple[Place, ...] = ("start", "mid", "end")
    through = [event.words for event in events if event.place == "all"]
    told = [event.words for place in order for event in events if event.place == place]
    ways: tuple[str, ...]
    if len(through) == 2:
        ways = ("{0} and {1}", "{0} with {1}", "{0} together with {1}")
        return _one(ways, random).format(*through)
    if through and told:
        ways = ("{0} while {1}", "{0}, with {1} in the background", "{1} in the background, {0}")
        return _one(ways, random).format(*told, *through)
    if len(told) == 2:
        ways = ("{0} followed by {1}", "{0}, then {1}", "first {0}, then {1}", "{1} after {0}")
        return _one(ways, random).format(*told)
    return spoken(events)


def _placed(
    sound: Sound, first: int, last: int, place: Place, sample_rate: int, level_db: float, random: np.random.Generator
) -> tuple[int, Audio]:
    """First sample, and the sound as it is heard there: cut to its span or, all through, repeated; faded, levelled."""
    room = last - first
    peak = float(np.abs(sound.audio).max(initial=0.0))
    if peak < QUIETEST:
        raise InputError(f"The sound {sound.words!r} is silent. Leave it out.")
    audio = _faded(sound.audio * np.float32(10 ** (level_db / 20) / peak), sample_rate)
    if place == "all" and audio.shape[1] < room:
        audio = np.tile(audio, (1, -(-room // audio.shape[1])))
    audio = _faded(audio[:, :room], sample_rate)
    return first + int(random.integers(room - audio.shape[1] + 1)), audio


def _faded(audio: Audio, sample_rate: int) -> Audio:
    """Audio whose last 20 ms are faded out."""
    fade = min(round(FADE_S * sample_rate), audio.shape[1])
    audio = audio.copy()
    audio[:, audio.shape[1] - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return audio


def _one(among: Sequence[str], random: np.random.Generator) -> str:
    return among[int(random.integers(len(among)))]
