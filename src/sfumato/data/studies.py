"""Renders studies: short pieces of sfumato's own making, with exact labels and free of anyone's rights.

`sfumato.data.composer` writes them; here they are played (onsets and velocities moved as in `sfumato.data.renders`),
synthesised with the soundfonts by turns, and given a manifest row. Needs fluidsynth and the extra `data`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sfumato.data import manifest
from sfumato.data.build import SAMPLE_RATE, Built, Skipped, keep_render
from sfumato.data.composer import Part, Study, study
from sfumato.data.fetch import cache_folder
from sfumato.data.renders import Soundfont, humanise, release_before_restriking, soundfonts, synthesise
from sfumato.errors import InputError, MissingExtraError
from sfumato.order_prompts import Event, Place, write

if TYPE_CHECKING:
    import pretty_midi

SOURCE = "studies"
FADE_S = 0.05
QUIETEST = 2e-3
"""Peak below which a render is taken for a failure."""
FULL_SCALE = 32767 / 32768
SUSTAIN = 64
MAX_COUNT = 1_000_000


def render(count: int, to: Path | None = None, out: Path | None = None, seed: int = 0) -> Iterator[Built | Skipped]:
    """Render the first `count` studies of a seed, one event each; those that the manifest has are passed over.

    Parameters
    ----------
    count
        How many, from number 0.
    to
        Folder for the soundfonts; the cache folder when absent.
    out
        Folder for the audio and `manifest.jsonl`; `built` below `to` when absent.
    seed
        Of the compositions and of their playing.

    Raises
    ------
    InputError
        If the count is not from 1 to a million, or fluidsynth or a soundfont is missing.
    MissingExtraError
        If pretty_midi is not installed.
    """
    if not 1 <= count <= MAX_COUNT:
        raise InputError(f"{count} studies can't be rendered. Give --count from 1 to {MAX_COUNT}.")
    yield from build_studies(range(count), out or (to or cache_folder()) / "built", soundfonts(to), seed)


def build_studies(
    numbers: Sequence[int], out: Path, fonts: Sequence[Soundfont], seed: int = 0
) -> Iterator[Built | Skipped]:
    """Render studies into `out/studies`, appending rows to `out/manifest.jsonl`.

    A composition is a work; number `i` is played with soundfont `i` of the given ones, by turns.
    """
    path = out / "manifest.jsonl"
    have = {row.recording for row in manifest.read(path) if row.source == SOURCE} if path.exists() else set()
    for number in numbers:
        font = fonts[number % len(fonts)]
        recording = f"{seed}_{number:06d}_{font.name}"
        if recording in have:
            continue
        made = study(seed, number)
        midi = midi_of(made)
        humanise(midi, int(hashlib.sha256(f"{seed} {number}".encode()).hexdigest()[:12], 16))
        release_before_restriking(midi)
        audio = _cut(synthesise(midi, font.path), made.seconds)
        reason = "is silent" if np.abs(audio).max() < QUIETEST else "is clipped" if is_clipped(audio) else ""
        if reason:
            yield Skipped(SOURCE, recording, reason)
            continue
        row = keep_render(
            out,
            SOURCE,
            recording,
            f"{SOURCE}/{seed}-{number}",
            audio,
            licence=f"score: CC0-1.0; soundfont: {font.licence}",
            attribution=f"composed by sfumato, rendered with {font.name}",
            labels=made.labels
            | {
                "events": write(events_of(made)),
                "soundfont": font.name,
                "programs": " ".join(str(part.instrument.program) for part in made.parts),
                "notes": str(sum(len(part.notes) for part in made.parts)),
            },
        )
        yield Built(row)


def events_of(made: Study) -> tuple[Event, ...]:
    """What happens in a study, in order: what begins, what ends it, or what goes on all through."""
    end = max(part.stop for part in made.parts)
    events = []
    for part in made.parts:
        whole = part.start == 0 and part.stop == end
        place: Place = "all" if whole else "start" if part.start == 0 else "end"
        events.append(Event(heard_in(part), place))
    return tuple(events)


def heard_in(part: Part) -> str:
    """A part in words: "piano arpeggio", "rock beat on acoustic drums", "double bass line"."""
    name, texture = part.instrument.name, part.texture
    if part.instrument.family == "drums":
        return f"{texture} on {name}"
    return f"{name} line" if texture == "bass line" else f"{name} {texture}"


def midi_of(made: Study) -> "pretty_midi.PrettyMIDI":
    """The notes of a study, as written.

    Raises
    ------
    MissingExtraError
        If pretty_midi is not installed.
    """
    try:
        import pretty_midi
    except ImportError as error:
        raise MissingExtraError("pretty_midi", "data") from error
    midi = pretty_midi.PrettyMIDI(initial_tempo=float(made.labels["tempo"]))
    for part in made.parts:
        drums = part.instrument.family == "drums"
        one = pretty_midi.Instrument(part.instrument.program, is_drum=drums, name=part.texture)
        one.notes = [pretty_midi.Note(n.velocity, n.pitch, n.start, n.start + n.length) for n in part.notes]
        for down, up in part.pedal:
            one.control_changes.append(pretty_midi.ControlChange(SUSTAIN, 127, down))
            one.control_changes.append(pretty_midi.ControlChange(SUSTAIN, 0, up))
        midi.instruments.append(one)
    return midi


def is_clipped(audio: NDArray[np.float32]) -> bool:
    """Whether more than three samples lie at full scale, where fluidsynth cuts what is louder."""
    return int((np.abs(audio).max(axis=0) >= FULL_SCALE).sum()) > 3


def _cut(audio: NDArray[np.float32], seconds: float) -> NDArray[np.float32]:
    """Audio of exactly this length: cut with a short fade, or silence added."""
    n, fade = round(seconds * SAMPLE_RATE), round(FADE_S * SAMPLE_RATE)
    audio = np.pad(audio[:, :n], ((0, 0), (0, max(0, n - audio.shape[1]))))
    audio[:, n - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return audio
