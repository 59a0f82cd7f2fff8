"""Drum grooves of studies: patterns of a bar on General MIDI's drums, with a fill at the end."""

from dataclasses import dataclass

import numpy as np

KICK, STICK, SNARE, CLAP, CLOSED, OPEN, CRASH, RIDE, LOW, MIDDLE, HIGH, COWBELL, SHAKER = (
    36, 37, 38, 39, 42, 46, 49, 51, 45, 47, 50, 56, 70,
)  # fmt: skip


@dataclass(frozen=True)
class Groove:
    """A bar: beats it has, steps a beat has, and per drum a string of steps: x hit, o soft hit, - rest."""

    metre: int
    steps: int
    drums: dict[int, str]
    swing: float = 0.0
    """Of a step, by how much every other one comes late."""


GROOVES = {
    "rock": Groove(4, 2, {KICK: "x---x-x-", SNARE: "--x---x-", CLOSED: "xoxoxoxo"}),
    "four-on-the-floor": Groove(4, 4, {KICK: "x---x---x---x---", CLAP: "----x-------x---", OPEN: "--x---x---x---x-"}),
    "hip hop": Groove(
        4, 4, {KICK: "x------x--x-----", SNARE: "----x-------x---", CLOSED: "x-o-x-o-x-o-x-oo"}, swing=0.25
    ),
    "funk": Groove(4, 4, {KICK: "x--x--x---x--x--", SNARE: "----x--o-o--x--o", CLOSED: "xoxoxoxoxoxoxoxo"}),
    "bossa nova": Groove(4, 2, {KICK: "x--xx--x", STICK: "x--x--x-", CLOSED: "xxxxxxxx", SHAKER: "oooooooo"}),
    "swing": Groove(4, 3, {KICK: "o-----o-----", RIDE: "x--x-ox--x-o", CLOSED: "---x-----x--", SNARE: "-----o------"}),
    "march": Groove(4, 4, {KICK: "x-------x-------", SNARE: "x-x-xxx-x-x-xxxx"}),
    "disco": Groove(
        4,
        4,
        {KICK: "x---x---x---x---", SNARE: "----x-------x---", CLOSED: "x-oox-oox-oox-oo", COWBELL: "x---x---x---x---"},
    ),
    "waltz": Groove(3, 2, {KICK: "x-----", SNARE: "--o-o-", CLOSED: "x-x-x-"}),
    "jazz waltz": Groove(3, 3, {KICK: "x--------", RIDE: "x--x-ox--", CLOSED: "---x-----"}),
}
LEVELS = {"x": 1.0, "o": 0.6}
FILL = (SNARE, SNARE, HIGH, HIGH, MIDDLE, MIDDLE, LOW, LOW)


def groove(
    name: str, tempo: float, start: int, stop: int, random: np.random.Generator
) -> list[tuple[float, int, float]]:
    """Hits from bar `start` to bar `stop`: beat from the start of the piece, drum, level from 0 to 1.

    The first bar begins with a crash and the last one may end in a fill over its last beat, except in quiet grooves.
    """
    made = GROOVES[name]
    hits = []
    fill = bool(random.random() < 0.5) and name not in ("swing", "jazz waltz", "bossa nova") and stop - start > 1
    for bar in range(start, stop):
        last = fill and bar == stop - 1
        for drum, pattern in made.drums.items():
            for step, sign in enumerate(pattern):
                beat = (step + (made.swing if step % 2 else 0.0)) / made.steps
                if sign in LEVELS and not (last and beat >= made.metre - 1):
                    hits.append((bar * made.metre + beat, drum, LEVELS[sign]))
        if last:
            count = 4 if tempo > 90 else 8
            hits += [
                (bar * made.metre + made.metre - 1 + i / count, FILL[i * 8 // count], 0.7 + 0.3 * i / count)
                for i in range(count)
            ]
    if random.random() < 0.5 and name not in ("swing", "jazz waltz", "bossa nova"):
        hits.append((float(start * made.metre), CRASH, 0.9))
    return sorted(hits)
