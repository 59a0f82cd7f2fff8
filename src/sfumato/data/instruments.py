"""General MIDI instruments that studies are played on: their names, programs, comfortable ranges and families."""

from dataclasses import dataclass
from typing import Literal

Family = Literal[
    "keyboard", "mallets", "organ", "guitar", "bass", "strings", "voices", "brass", "winds", "synth", "drums"
]  # fmt: skip


@dataclass(frozen=True)
class Instrument:
    """One instrument.

    Attributes
    ----------
    name
        As people call it.
    program
        General MIDI program, from 0; of drums, the number of the kit.
    low, high
        Lowest and highest MIDI note that it plays here.
    family
        Its family.
    held
        Its notes last as long as they are held, rather than die away.
    chords
        It plays several notes at once.
    """

    name: str
    program: int
    low: int
    high: int
    family: Family
    held: bool = False
    chords: bool = False


PIANO = Instrument("piano", 0, 21, 108, "keyboard", chords=True)

PITCHED = (
    PIANO,
    Instrument("electric piano", 4, 36, 88, "keyboard", chords=True),
    Instrument("harpsichord", 6, 36, 84, "keyboard", chords=True),
    Instrument("celesta", 8, 60, 96, "mallets", chords=True),
    Instrument("music box", 10, 60, 90, "mallets", chords=True),
    Instrument("vibraphone", 11, 53, 86, "mallets", chords=True),
    Instrument("marimba", 12, 45, 90, "mallets", chords=True),
    Instrument("xylophone", 13, 65, 96, "mallets"),
    Instrument("church organ", 19, 36, 84, "organ", held=True, chords=True),
    Instrument("accordion", 21, 53, 86, "organ", held=True, chords=True),
    Instrument("acoustic guitar", 24, 40, 79, "guitar", chords=True),
    Instrument("electric guitar", 27, 40, 82, "guitar", chords=True),
    Instrument("distorted guitar", 30, 40, 79, "guitar", held=True),
    Instrument("violin", 40, 55, 91, "strings", held=True),
    Instrument("cello", 42, 36, 72, "strings", held=True),
    Instrument("pizzicato strings", 45, 43, 84, "strings", chords=True),
    Instrument("harp", 46, 36, 91, "strings", chords=True),
    Instrument("string ensemble", 48, 40, 84, "strings", held=True, chords=True),
    Instrument("choir", 52, 48, 77, "voices", held=True, chords=True),
    Instrument("trumpet", 56, 55, 82, "brass", held=True),
    Instrument("trombone", 57, 40, 70, "brass", held=True),
    Instrument("french horn", 60, 43, 74, "brass", held=True),
    Instrument("brass section", 61, 43, 77, "brass", held=True, chords=True),
    Instrument("saxophone", 65, 50, 80, "winds", held=True),
    Instrument("oboe", 68, 58, 86, "winds", held=True),
    Instrument("clarinet", 71, 50, 84, "winds", held=True),
    Instrument("flute", 73, 60, 93, "winds", held=True),
    Instrument("pan flute", 75, 60, 88, "winds", held=True),
    Instrument("synth lead", 81, 48, 84, "synth", held=True),
    Instrument("synth pad", 89, 43, 79, "synth", held=True, chords=True),
    Instrument("sitar", 104, 48, 77, "guitar"),
    Instrument("kalimba", 108, 55, 86, "mallets"),
)
"""Instruments of melodies and chords."""

BASSES = (
    Instrument("double bass", 32, 28, 55, "bass"),
    Instrument("electric bass", 33, 28, 55, "bass"),
    Instrument("synth bass", 38, 28, 55, "bass", held=True),
)
"""Instruments of bass lines."""

KITS = (
    Instrument("acoustic drums", 0, 35, 81, "drums"),
    Instrument("rock drums", 16, 35, 81, "drums"),
    Instrument("electronic drums", 24, 35, 81, "drums"),
    Instrument("808 drum machine", 25, 35, 81, "drums"),
    Instrument("jazz drums", 32, 35, 81, "drums"),
    Instrument("brushed drums", 40, 35, 81, "drums"),
)
"""Drum kits, on General MIDI's tenth channel; both soundfonts have them all."""
