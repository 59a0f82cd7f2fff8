"""Prompts, tempi and keys as what a generator is asked for, and what is to be known about a prompt."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import torch
from pydantic import Field, field_validator

from sfumato import order_prompts
from sfumato.config import Settings
from sfumato.errors import InputError
from sfumato.networks import text
from sfumato.wanted import FASTEST_BPM, KEYS, SLOWEST_BPM, Wanted, key_number

if TYPE_CHECKING:
    from sfumato.networks.text import Encoded

NOTHING_LEFT = 0.8
"""Share of unknown word pieces from which on a prompt is refused: nothing of it would be read."""
FOREIGN = 1 / 3
"""Share of letters that aren't Latin beyond which a prompt is taken to be in a language that isn't read."""


class Asked(Settings):
    """What is wanted of a generator that reads words."""

    prompt: str | None = Field(
        None, description='what is to be heard, in English; (word:1.3) weighs more, <a & start>@<b & end> is an order'
    )
    negative: str | None = Field(None, description="what is not to be heard")
    then: str | None = Field(None, description="prompt to arrive at: the sound travels there, or stands at --alpha")
    alpha: float | None = Field(None, ge=0, le=1, description="with then: stand here between the two, 0 to 1")
    bpm: float | None = Field(None, ge=SLOWEST_BPM, le=FASTEST_BPM, description="beats per minute; a loop's, exactly")
    key: str | None = Field(None, description="key, such as C, Am or 'Eb minor'")

    @field_validator("key")
    @classmethod
    def _known(cls, key: str | None) -> str | None:
        if key is not None:
            try:
                key_number(key)
            except InputError as error:
                raise ValueError(str(error).rstrip(".")) from None
        return key


def wanted_of(asked: Asked, alpha: float = 0.0, start: Encoded | None = None) -> Wanted | None:
    """What is asked for, `alpha` of the way to the second prompt; None for nothing in particular.

    Parameters
    ----------
    start
        Where the way begins, in place of the first prompt: what `said_of` gave.

    Raises
    ------
    InputError
        A prompt can't be read.
    MissingExtraError
        The sentence encoder isn't installed.
    """
    said = said_of(asked, alpha, start)
    if said is None and asked.bpm is None and asked.key is None:
        return None
    return _wanted(said, asked.bpm, asked.key)


def said_of(asked: Asked, alpha: float = 0.0, start: Encoded | None = None) -> Encoded | None:
    """What the words say there; errors as for `wanted_of`."""
    said = start or _encoded(asked.prompt)
    if asked.then is None or alpha == 0:
        return said
    return text.morph(said or text.load().encode([""]), text.load().encode([asked.then], weighted=True), alpha)


def unwanted_of(asked: Asked) -> Wanted | None:
    """What guidance is to lead away from; errors as for `wanted_of`."""
    said = _encoded(asked.negative)
    return None if said is None else _wanted(said, None, None)


def notes_on(asked: Asked) -> tuple[str, ...]:
    """What of the prompts isn't read.

    Raises
    ------
    InputError
        Next to nothing of a prompt is, or one holds < or > other than to order events.
    """
    notes = []
    for prompt in (asked.prompt, asked.then, asked.negative):
        if not prompt or not prompt.strip():
            continue
        words = "".join(part for part, _ in text.parts(prompt))
        order_prompts.check(words)
        pieces = text.load().pieces(words)
        read = len(pieces.ids) - 2
        if pieces.unknown >= NOTHING_LEFT * max(1, read):
            raise InputError(f"Nothing of the prompt '{prompt:.40}' can be read. Write it in English.")
        if pieces.unknown:
            notes.append(f"{pieces.unknown} of {read} word pieces of '{prompt:.40}' are unknown and say nothing")
        letters = [one for one in words if one.isalpha()]
        other = sum("LATIN" not in unicodedata.name(one, "") for one in letters)
        if other > FOREIGN * len(letters):
            notes.append(
                f"{other} of {len(letters)} letters of '{prompt:.40}' are not Latin; the sentence encoder has read "
                "English only and gets little of them: write it in English"
            )
        if pieces.cut:
            notes.append(f"only the first {read} word pieces of '{prompt:.40} …' are read; {pieces.cut} are left out")
    return tuple(notes)


def _encoded(prompt: str | None) -> Encoded | None:
    """What is said; None for nothing."""
    return text.load().encode([prompt], weighted=True) if prompt and prompt.strip() else None


def _wanted(said: Encoded | None, bpm: float | None, key: str | None) -> Wanted:
    """One item of what is wanted."""
    tempo = torch.tensor([float(bpm or 0.0)])
    number = torch.tensor([key_number(key) if key else KEYS.index("any")])
    if said is None:
        width = text.WIDTH
        none = torch.zeros(1, 0, width), torch.zeros(1, 0, dtype=torch.bool)
        return Wanted(torch.zeros(1, width), *none, tempo, number)
    return Wanted(said.sentence, said.tokens, said.valid, tempo, number)
