"""What one instrument plays in a study: melodies, scales, arpeggios, chords, figures, drones, bass lines.

Degrees, chords and rhythms are in beats and steps of a mode.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from sfumato.data.instruments import Instrument

T = TypeVar("T")

MODES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
SHAPES = {"steady": (0, 0), "crescendo": (-24, 14), "diminuendo": (12, -26)}
"""Course of the loudness: what is added to the velocity at the beginning and at the end."""

RHYTHMS = (
    (1, 1, 1, 1), (1, 0.5, 0.5, 1, 1), (0.5, 0.5, 1, 0.5, 0.5, 1), (1.5, 0.5, 1, 1), (2, 1, 1), (1, 1, 2),
    (1.5, 0.5, 2), (0.5, 0.5, 0.5, 0.5, 1, 1),
)  # fmt: skip
"""Rhythms of a melody in one bar of four beats."""


@dataclass(frozen=True)
class Frame:
    """What all parts of a study share: time in bars of `metre` beats, key, chords (a degree a bar), style, loudness."""

    tempo: int
    metre: int
    bars: int
    tonic: int
    mode: str
    chords: tuple[int, ...]
    style: str
    velocity: int
    shape: str

    @property
    def bar_s(self) -> float:
        """Length of a bar in seconds."""
        return self.metre * 60 / self.tempo

    def pitch(self, degree: int, octave: int = 0) -> int:
        """MIDI note of a degree of the mode, from 0 at the tonic above middle C; degrees go on beyond the octave."""
        steps = MODES[self.mode]
        return 60 + self.tonic + 12 * (octave + degree // 7) + steps[degree % 7]

    def loudness(self, beat: float, random: np.random.Generator) -> int:
        """Velocity at a beat from the start: level, course, and stress on the first beat of a bar."""
        first, last = SHAPES[self.shape]
        course = first + (last - first) * beat / (self.bars * self.metre)
        stress = 9 if beat % self.metre == 0 else 3 if beat % 1 == 0 else 0
        return int(np.clip(self.velocity + course + stress + random.normal(0, 3), 8, 124))


def into(pitch: int, instrument: Instrument) -> int:
    """The pitch, moved by octaves into the instrument's range."""
    while pitch < instrument.low:
        pitch += 12
    while pitch > instrument.high:
        pitch -= 12
    return pitch


Written = list[tuple[float, float, int]]
"""Notes before they are performed: beat, length in beats, pitch."""


def _octave(instrument: Instrument, frame: Frame, random: np.random.Generator, span: int = 12) -> int:
    """An octave, relative to middle C's, from which `span` semitones above the tonic lie in the instrument's range."""
    base = 60 + frame.tonic
    able = [o for o in range(-4, 5) if base + 12 * o >= instrument.low and base + 12 * o + span <= instrument.high]
    return one_of(able, random) if able else (instrument.low - base + 11) // 12


def _melody(instrument: Instrument, frame: Frame, start: int, stop: int, random: np.random.Generator) -> Written:
    """A walk along the mode that rests on chord tones at the strong beats and ends on the tonic; rhythms come back."""
    octave, rhythms = _octave(instrument, frame, random), [_rhythm(frame, random) for _ in range(2)]
    written: Written = []
    degree = int(random.integers(0, 5))
    for bar in range(start, stop):
        beat = float(bar * frame.metre)
        for i, length in enumerate(rhythms[bar % 2]):
            if i == 0:
                tones = np.array([frame.chords[bar] % 7 + step for step in (-7, -5, -3, 0, 2, 4)])
                degree = int(tones[np.argmin(np.abs(tones - degree))])
            elif not (bar == stop - 1 and i == len(rhythms[bar % 2]) - 1):
                degree += int(random.choice((-2, -1, -1, 1, 1, 2)))
            else:
                degree = 7 if degree > 3 else 0
            degree = int(np.clip(degree, -1, 8))
            written.append((beat, length, frame.pitch(degree, octave)))
            beat += length
    return written


def _rhythm(frame: Frame, random: np.random.Generator) -> tuple[float, ...]:
    """Lengths of the notes of a bar, in beats."""
    if frame.metre == 3:
        return one_of(((1, 1, 1), (2, 1), (1.5, 0.5, 1), (1, 0.5, 0.5, 1)), random)
    return one_of(RHYTHMS, random)


def _scale(instrument: Instrument, frame: Frame, start: int, stop: int, random: np.random.Generator) -> Written:
    """Up and down the mode, over one octave or more; the tonic, held, at the end."""
    octaves = 1 + int(random.integers(3)) if instrument.high - instrument.low > 40 else 1
    octave = _octave(instrument, frame, random, 12 * octaves)
    degrees = [*range(7 * octaves + 1), *range(7 * octaves - 1, 0, -1)]
    if random.random() < 0.5:
        degrees = degrees[7 * octaves :] + degrees[: 7 * octaves]
    step = 0.5 if frame.tempo > 100 else 0.25 if frame.tempo < 75 else one_of((0.25, 0.5), random)
    count, begin = int(((stop - start) * frame.metre - 1) / step), float(start * frame.metre)
    written = [(begin + i * step, step, frame.pitch(degrees[i % len(degrees)], octave)) for i in range(count)]
    final = 7 * octaves if degrees[(count - 1) % len(degrees)] > 3.5 * octaves else 0
    return [*written, (begin + count * step, 1.0, frame.pitch(final, octave))]


def _tones(frame: Frame, bar: int) -> list[int]:
    """Degrees of a bar's chord: a triad, in jazz with a seventh."""
    return [frame.chords[bar] + step for step in ((0, 2, 4, 6) if frame.style == "jazz" else (0, 2, 4))]


def _arpeggio(instrument: Instrument, frame: Frame, start: int, stop: int, random: np.random.Generator) -> Written:
    """The chord's notes one by one, in one pattern all through; keyboards and harps hold the root below."""
    octave = _octave(instrument, frame, random, 19)
    pattern = one_of(((0, 1, 2, 3), (0, 1, 2, 3, 2, 1), (3, 2, 1, 0), (0, 2, 1, 2), (0, 2, 3, 2)), random)
    step = 0.5 if frame.tempo > 110 else 0.25 if frame.tempo < 80 else one_of((0.25, 0.5), random)
    written: Written = []
    for bar in range(start, stop):
        tones = [*_tones(frame, bar)[:3], frame.chords[bar] + 7]
        root = frame.pitch(frame.chords[bar], octave - 1)
        if instrument.high - instrument.low > 48 and root >= instrument.low:
            written.append((float(bar * frame.metre), float(frame.metre), root))
        for i in range(int(frame.metre / step)):
            degree = tones[pattern[i % len(pattern)]]
            written.append((bar * frame.metre + i * step, step, frame.pitch(degree, octave)))
    return written


def _voiced(frame: Frame, bar: int, centre: float) -> list[int]:
    """The chord's notes around a centre, so that chords follow each other without leaps."""
    return sorted(p + 12 * round((centre - p) / 12) for p in (frame.pitch(d) for d in _tones(frame, bar)))


def _centre(instrument: Instrument, random: np.random.Generator) -> float:
    return float(random.uniform(max(instrument.low + 7, 45), min(instrument.high - 7, 76)))


def _chords(instrument: Instrument, frame: Frame, start: int, stop: int, random: np.random.Generator) -> Written:
    """Chords in one rhythm all through."""
    centre = _centre(instrument, random)
    rhythm = (4,) if frame.style == "ambient" else one_of(((4,), (2, 2), (1, 1, 1, 1), (1.5, 1.5, 1)), random)
    rhythm = ((3,) if rhythm == (4,) else (1, 1, 1)) if frame.metre == 3 else rhythm
    written: Written = []
    for bar in range(start, stop):
        beat = float(bar * frame.metre)
        for length in rhythm:
            written += [(beat, length, pitch) for pitch in _voiced(frame, bar, centre)]
            beat += length
    return written


def _melody_with_chords(
    instrument: Instrument, frame: Frame, start: int, stop: int, random: np.random.Generator
) -> Written:
    """A melody above held chords, both by one instrument."""
    lower = replace(instrument, high=min(instrument.high, max(60, instrument.low + 17)))
    upper = replace(instrument, low=max(instrument.low, min(65, instrument.high - 24)))
    centre = (lower.low + lower.high) / 2 if lower.high - lower.low < 24 else float(random.uniform(48, 55))
    held = [
        (float(bar * frame.metre), float(frame.metre), pitch)
        for bar in range(start, stop)
        for pitch in _voiced(frame, bar, centre)
    ]
    return held + _melody(upper, frame, start, stop, random)


def _ostinato(instrument: Instrument, frame: Frame, start: int, stop: int, random: np.random.Generator) -> Written:
    """One bar of a figure on a few notes, repeated without change."""
    octave = _octave(instrument, frame, random)
    eighths, mixed = (0.5,) * (2 * frame.metre), (1.0, 0.5, 0.5) + (1.0,) * (frame.metre - 2)
    rhythm = one_of((eighths, mixed), random)
    degrees = [0, *random.choice((0, 2, 4, 4, 6, 7), len(rhythm) - 1)]
    written: Written = []
    for bar in range(start, stop):
        beat = float(bar * frame.metre)
        for length, degree in zip(rhythm, degrees, strict=True):
            written.append((beat, length, frame.pitch(int(degree), octave)))
            beat += length
    return written


def _drone(instrument: Instrument, frame: Frame, start: int, stop: int, random: np.random.Generator) -> Written:
    """Tonic and fifth, held; an instrument of one note at a time holds the tonic."""
    octave = _octave(instrument, frame, random, 7)
    degrees = (0, 4) if instrument.chords else (0,)
    return [(float(start * frame.metre), float((stop - start) * frame.metre), frame.pitch(d, octave)) for d in degrees]


def _bass(instrument: Instrument, frame: Frame, start: int, stop: int, random: np.random.Generator) -> Written:
    """Roots, octaves and fifths of the chords; in jazz, walking in quarters."""
    written: Written = []
    root_steps = (0, 2, 4, 5) if frame.style == "jazz" else one_of(((0, 0, 4, 0), (0, 0, 0, 0), (0, 4, 7, 4)), random)
    half = frame.style == "pop" and random.random() < 0.5
    for bar in range(start, stop):
        for i in range(frame.metre * (2 if half else 1)):
            step = 0.5 if half else 1.0
            degree = frame.chords[bar] + (0 if half else root_steps[i % 4])
            written.append((bar * frame.metre + i * step, step, into(frame.pitch(degree, -2), instrument)))
    return written


TEXTURES: dict[str, Callable[[Instrument, Frame, int, int, np.random.Generator], Written]] = {
    "melody": _melody,
    "scale": _scale,
    "arpeggio": _arpeggio,
    "chords": _chords,
    "ostinato": _ostinato,
    "drone": _drone,
    "melody with chords": _melody_with_chords,
    "bass line": _bass,
}


def one_of(among: Sequence[T], random: np.random.Generator) -> T:
    """One of these, each as likely."""
    return among[int(random.integers(len(among)))]
