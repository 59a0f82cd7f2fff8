"""What is asked of a generator of music: words, a tempo, a key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfumato.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

NOTES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
KEYS = ("any", *NOTES, *(f"{note}m" for note in NOTES))
"""Keys by their numbers; "Am" is A minor."""
SLOWEST_BPM, FASTEST_BPM = 30.0, 300.0

_SAME = {"Db": "C#", "D#": "Eb", "Gb": "F#", "G#": "Ab", "A#": "Bb", "Cb": "B", "B#": "C", "E#": "F", "Fb": "E"}
_MODES = {
    "": "", "major": "", "maj": "", "ionian": "", "mixolydian": "", "lydian": "",
    "m": "m", "minor": "m", "min": "m", "aeolian": "m", "dorian": "m", "phrygian": "m",
}  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """What b sounds are to be."""

    sentence: Float[Tensor, "b w"]
    """Sentence vectors; 0 for no prompt."""
    tokens: Float[Tensor, "b n w"]
    """States of the word pieces."""
    valid: Bool[Tensor, "b n"]
    """True where there is a word piece; nowhere for no prompt."""
    bpm: Float[Tensor, " b"]
    """Beats per minute; 0 for any."""
    key: Int[Tensor, " b"]
    """Number of the key in `KEYS`; 0 for any."""

    def only(self, given: Bool[Tensor, " b"]) -> Wanted:
        """The same, but nothing wanted of those that are not `given`."""
        tell = given.to(self.sentence.dtype)
        return Wanted(
            self.sentence * tell[:, None],
            self.tokens,
            self.valid & given[:, None],
            self.bpm * tell,
            self.key * given,
        )

    def rows(self, n: int) -> Wanted:
        """Its first item, n times over."""
        parts = (self.sentence, self.tokens, self.valid, self.bpm, self.key)
        return Wanted(*(part[:1].expand(n, *part.shape[1:]) for part in parts))


def nothing(n: int, width: int) -> Wanted:
    """Nothing in particular, `n` times; `width` is that of the sentence encoder's states."""
    empty = torch.zeros(n, 0, width), torch.zeros(n, 0, dtype=torch.bool)
    return Wanted(torch.zeros(n, width), *empty, torch.zeros(n), torch.zeros(n, dtype=torch.long))


def key_number(name: str) -> int:
    """Number of a key in `KEYS`, from names such as "Cm", "C minor", "Db", "f# maj".

    Raises
    ------
    InputError
        There is no such key.

    Examples
    --------
    >>> KEYS[key_number("D# minor")]
    'Ebm'
    """
    match = re.fullmatch(r"\s*([A-Ga-g])\s*(#|b|♯|♭|sharp|flat)?\s*([A-Za-z]*)\s*", name)
    if match:
        accidental = {"♯": "#", "♭": "b", "sharp": "#", "flat": "b", None: ""}.get(match[2], match[2])
        note = match[1].upper() + accidental
        note, mode = _SAME.get(note, note), match[3] if match[3] in ("m", "M") else match[3].lower()
        if note in NOTES and (mode == "M" or mode in _MODES):
            return KEYS.index(note + _MODES.get(mode, ""))
    raise InputError(
        f"There is no key '{name}'. Give a note from A to G, # or b behind it where it has one, and m where it is "
        "minor: C, F#, Bb, Am, C#m or 'Eb minor'. The German H is B."
    )
