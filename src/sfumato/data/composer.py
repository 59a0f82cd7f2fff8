"""Composes studies: short pieces whose instruments, texture, key, tempo, loudness and order of events are known.

A study is a pure function of (seed, number): seconds and MIDI notes, before a player's inexactness.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sfumato.data.grooves import GROOVES, groove
from sfumato.data.instruments import BASSES, KITS, PIANO, PITCHED, Instrument
from sfumato.data.textures import MODES, SHAPES, TEXTURES, Frame, into, one_of

TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
PROGRESSIONS: dict[str, dict[str, tuple[tuple[int, ...], ...]]] = {
    "pop": {"major": ((0, 4, 5, 3), (0, 5, 3, 4), (3, 0, 4, 5)), "minor": ((0, 5, 2, 6), (0, 3, 5, 6))},
    "classical": {"major": ((0, 3, 4, 0), (0, 4, 0, 4), (0, 5, 1, 4)), "minor": ((0, 3, 4, 0), (0, 5, 3, 4))},
    "jazz": {"major": ((1, 4, 0, 5), (0, 5, 1, 4)), "minor": ((1, 4, 0, 0), (0, 3, 6, 2))},
    "folk": {"dorian": ((0, 3, 0, 6), (0, 6, 0, 0)), "mixolydian": ((0, 6, 3, 0),), "major": ((0, 3, 0, 4),)},
    "ambient": {"major": ((0, 3), (0, 4)), "minor": ((0, 5), (0, 6)), "dorian": ((0, 3),)},
}
"""Style, mode and chords, as degrees from 0, a bar each, over and over."""

DYNAMICS = {"very quiet": 40, "quiet": 56, "moderately loud": 74, "loud": 94, "very loud": 114}
"""Loudness and the MIDI velocity of its unstressed notes."""

HARMONIC = ("chords", "arpeggio", "melody with chords", "bass line")
"""Textures that let the chords, and with them the style, be heard."""

SOLO_TEXTURES = ("melody", "scale", "arpeggio", "chords", "ostinato", "drone", "melody with chords")
FORMS = {"solo": 0.5, "together": 0.2, "sequence": 0.18, "joining": 0.12}
"""One part; two at once; one after the other; one, then both. With how often."""

PIANO_SHARE, DRUMS_SHARE, BASS_SHARE = 0.28, 0.14, 0.06
SHORTEST_S, LONGEST_S, RING_S = 8.0, 12.0, 1.4
REGISTERS = ("low", "middle", "high")


@dataclass(frozen=True)
class Note:
    """One note: start and length in seconds, MIDI pitch and velocity."""

    start: float
    length: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Part:
    """What one instrument plays: texture, notes, when the pedal is down, its first and last second."""

    instrument: Instrument
    texture: str
    notes: tuple[Note, ...]
    pedal: tuple[tuple[float, float], ...]
    start: float
    stop: float


@dataclass(frozen=True)
class Study:
    """A piece: its parts, its length in seconds with the last notes' ringing, and its exact labels."""

    parts: tuple[Part, ...]
    seconds: float
    labels: dict[str, str]


def study(seed: int, number: int) -> Study:
    """The study of this number: a form, one or two parts, and labels that say exactly what is in them."""
    random = np.random.Generator(np.random.Philox(key=np.array([seed, (0x57D << 40) + number], np.uint64)))
    form = str(random.choice(list(FORMS), p=list(FORMS.values())))
    frame = _frame(random)
    bars = frame.bars
    first, second = _instruments(form, random)
    cut = bars if form in ("solo", "together") else max(1, bars // 2)
    chosen = [(first, 0, cut if form == "sequence" else bars)]
    if second is not None:
        chosen.append((second, 0 if form == "together" else cut, bars))
    parts: list[Part] = []
    for instrument, start, stop in chosen:
        others = {part.texture for part in parts}
        parts.append(_part(instrument, frame, start, stop, others, random))
    end = bars * frame.bar_s
    seconds = float(np.clip(end + RING_S, SHORTEST_S, LONGEST_S))
    return Study(tuple(parts), seconds, _labels(form, frame, parts))


def _frame(random: np.random.Generator) -> Frame:
    """Key, tempo, metre, chords, style and loudness."""
    style = one_of(tuple(PROGRESSIONS), random)
    mode = one_of(tuple(PROGRESSIONS[style]), random)
    slow = style == "ambient"
    tempo = int(random.integers(60, 91 if slow else 181))
    metre = 3 if not slow and random.random() < 0.15 else 4
    bars = max(2, int((LONGEST_S - RING_S) // (metre * 60 / tempo)))
    if bars > 4 and bars % 2:
        bars -= 1
    progression = one_of(PROGRESSIONS[style][mode], random)
    # Rests on the tonic at the end, so that the key is heard; two bars are too few to begin there as well.
    chords = (*(progression[(i + (bars == 2)) % len(progression)] for i in range(bars - 1)), 0)
    velocity = DYNAMICS[one_of(tuple(DYNAMICS), random)]
    shape = str(random.choice(list(SHAPES), p=[0.7, 0.15, 0.15]))
    return Frame(tempo, metre, bars, int(random.integers(12)), mode, chords, style, velocity, shape)


def _instruments(form: str, random: np.random.Generator) -> tuple[Instrument, Instrument | None]:
    """Who plays: one instrument, or two different ones of which at most one is drums or a bass."""

    def pitched() -> Instrument:
        return PIANO if random.random() < PIANO_SHARE else one_of(PITCHED[1:], random)

    u = random.random()
    if form == "solo":
        kind = KITS if u < DRUMS_SHARE else BASSES if u < DRUMS_SHARE + BASS_SHARE else ()
        return (one_of(kind, random) if kind else pitched()), None
    one = pitched()
    other = one_of(KITS, random) if u < 0.5 else one_of(BASSES, random) if u < 0.65 else pitched()
    while other.name == one.name:
        other = one_of(PITCHED, random)
    return (one, other) if random.random() < 0.5 else (other, one)


def _part(
    instrument: Instrument, frame: Frame, start: int, stop: int, others: set[str], random: np.random.Generator
) -> Part:
    """What one instrument plays from bar `start` to bar `stop`."""
    bounds = (start * frame.bar_s, stop * frame.bar_s)
    if instrument.family == "drums":
        fitting = [name for name, made in GROOVES.items() if made.metre == frame.metre]
        name = one_of(fitting, random)
        hits = groove(name, frame.tempo, start, stop, random)
        notes = [Note(at * 60 / frame.tempo, 0.1, pitch, _hit(frame, at, level, random)) for at, pitch, level in hits]
        return Part(instrument, f"{name} beat", tuple(notes), (), *bounds)
    if instrument.family == "bass":
        texture = "bass line"
    else:
        able = [name for name in SOLO_TEXTURES if _can(instrument, name) and name not in others]
        texture = one_of(able, random)
    written = TEXTURES[texture](instrument, frame, start, stop, random)
    articulation = 0.4 if instrument.family != "bass" and texture != "drone" and random.random() < 0.2 else 0.92
    beat_s = 60 / frame.tempo
    notes = [
        Note(beat * beat_s, length * beat_s * articulation, into(pitch, instrument), frame.loudness(beat, random))
        for beat, length, pitch in written
    ]
    pedal: tuple[tuple[float, float], ...] = ()
    if instrument is PIANO and texture not in ("scale", "drone") and articulation > 0.5 and random.random() < 0.6:
        pedal = tuple((bar * frame.bar_s + 0.04, (bar + 1) * frame.bar_s) for bar in range(start, stop))
    return Part(instrument, texture, tuple(notes), pedal, *bounds)


def _hit(frame: Frame, beat: float, level: float, random: np.random.Generator) -> int:
    return int(np.clip(level * frame.loudness(beat, random), 8, 124))


def _can(instrument: Instrument, texture: str) -> bool:
    """Whether an instrument can play a texture: chords need several notes at once, drones held ones."""
    if texture in ("chords", "melody with chords"):
        return instrument.chords
    return texture != "drone" or instrument.held


def _labels(form: str, frame: Frame, parts: Sequence[Part]) -> dict[str, str]:
    """What is in a study, in words and numbers."""
    level = next(name for name, velocity in DYNAMICS.items() if velocity == frame.velocity)
    labels = {
        "form": form,
        "instruments": "; ".join(part.instrument.name for part in parts),
        "families": "; ".join(part.instrument.family for part in parts),
        "textures": "; ".join(part.texture for part in parts),
        "tempo": str(frame.tempo),
        "metre": f"{frame.metre}/4",
        "loudness": level,
        "dynamics": frame.shape,
        "times": "; ".join(f"{part.start:.3f}-{part.stop:.3f}" for part in parts),
    }
    pitched = [part for part in parts if part.instrument.family != "drums"]
    if pitched:
        labels["key"] = TONICS[frame.tonic]
        mode = mode_heard({(note.pitch - frame.tonic) % 12 for part in pitched for note in part.notes})
        if mode:
            labels["mode"] = mode
        if any(part.texture in HARMONIC for part in pitched):
            labels["style"] = frame.style
        if len(parts) == 1:
            mean = float(np.mean([note.pitch for note in parts[0].notes]))
            labels["register"] = REGISTERS[int(np.digitize(mean, (52, 72)))]
    return labels


def mode_heard(steps: set[int]) -> str:
    """The mode that notes, in semitones above the tonic, tell; empty if they could be of major and of minor.

    Notes that do not tell major from mixolydian are called major; minor from dorian, minor.
    """
    able = [name for name, scale in MODES.items() if steps <= set(scale)]
    if len(able) == 1:
        return able[0]
    for plain, other in (("major", "mixolydian"), ("minor", "dorian")):
        if set(able) == {plain, other}:
            return plain
    return ""
