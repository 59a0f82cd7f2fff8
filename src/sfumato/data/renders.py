"""Renders scores with soundfonts: music whose notes, instruments and composer are known. Always marked `rendered`.

As written for its instruments, or arranged for one piano. Needs the fluidsynth program, soundfonts (`soundfonts`
fetches them) and the extra `data`.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import soundfile

from sfumato.data import leaks, manifest
from sfumato.data.build import SAMPLE_RATE, Built, Skipped, keep_render
from sfumato.data.fetch import cache_folder, fetch_source
from sfumato.data.sources import SOUNDFONTS as PACKAGES
from sfumato.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    import pretty_midi

Arrangement = Literal["ensemble", "piano"]
ARRANGEMENTS: tuple[Arrangement, ...] = get_args(Arrangement)
SCORES = (".mxl", ".xml", ".musicxml", ".krn")
KEYBOARD = (21, 108)
UNISON_S = 0.03
TIMING_SD_S = 0.012
VELOCITY_SD = 14.0
MAX_SECONDS = 1200.0
RENDER_TIMEOUT_S = 600
PARSE_S = 90
GAIN = "0.4"
UNSTATED = "unstated (music21 corpus, distributed with the encoder's permission)"
_RESERVED = re.compile(r"rights [^\n<]*reserved|non-?commercial|copyright|©", re.IGNORECASE)
_GRANTS = (
    (re.compile(r"CC[ -]BY-SA[ -]4\.0", re.IGNORECASE), "CC-BY-SA-4.0"),
    (re.compile(r"\(CC-BY\)", re.IGNORECASE), "CC-BY"),
    (re.compile(r"public domain", re.IGNORECASE), "public-domain"),
)

# In a process of its own, as music21 unfolds some repeats forever.
_PARSE = """
import resource, sys
score, target, seconds = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
import music21
music21.converter.parse(score, forceSource=True).write("midi", fp=target)
"""


@dataclass(frozen=True)
class Soundfont:
    """A soundfont: its name in the manifest, the Debian package that brings it, its file and its licence."""

    name: str
    package: str
    path: Path
    licence: str


SOUNDFONTS = (
    Soundfont("fluidr3", "fluid-soundfont-gm", Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"), "MIT"),
    Soundfont("timgm6mb", "timgm6mb-soundfont", Path("/usr/share/sounds/sf2/TimGM6mb.sf2"), "GPL-2"),
)

# Folders of music21's corpus with pieces of at least 20 s for the concert hall; the rest are tunes, songs and vocal
# polyphony of one or few voices.
COMPOSERS = (
    "bach", "beethoven", "chopin", "corelli", "cpebach", "handel", "haydn", "johnson_j_r", "joplin", "liliuokalani",
    "mozart", "schoenberg", "schumann_clara", "schumann_robert", "verdi", "weber", "webern",
)  # fmt: skip

# Scores of one piece under two names; they share a work.
VERSIONS: dict[tuple[str, ...], tuple[str, str]] = {
    ("bach", "bwv59.3"): ("bach", "bwv175.7"),
    ("bach", "bwv190.7-inst"): ("bach", "bwv190.7"),
    ("bach", "bwv248.64-s"): ("bach", "bwv248.64-6"),
    ("schumann_robert", "opus48no2"): ("schumann_robert", "dichterliebe_no2"),
}


def soundfonts(to: Path | None = None) -> tuple[Soundfont, ...]:
    """Every soundfont, fetched and verified as a Debian package, so that a render can be repeated.

    Raises
    ------
    InputError
        If a package is not to be had or is not the one that its recipe names.
    """
    base = to or cache_folder()
    folders = {font.name: fetch_source(PACKAGES[font.name], base).folder for font in SOUNDFONTS}
    return tuple(replace(font, path=folders[font.name] / font.path.relative_to("/")) for font in SOUNDFONTS)


def corpus_of() -> Path:
    """The folder of scores that music21 brings.

    Raises
    ------
    MissingExtraError
        If music21 is not installed.
    """
    try:
        import music21
    except ImportError as error:
        raise MissingExtraError("music21", "data") from error
    return Path(str(music21.__file__)).parent / "corpus"


def scores_of(corpus: Path) -> list[Path]:
    """One score file of every piece of `COMPOSERS`, in alphabetical order.

    Raises
    ------
    InputError
        If there are none.
    """
    found = [path for name in COMPOSERS for path in (corpus / name).rglob("*") if path.suffix in SCORES]
    if not found:
        raise InputError(f"There are no scores below {corpus}. music21 may have been installed without its corpus.")
    # Some movements lie there in two formats, under one name.
    return sorted({path.with_suffix(""): path for path in sorted(found, reverse=True)}.values())


def terms_of(score: Path) -> str:
    """The licence that a score file states for its encoding, or that it states none.

    Raises
    ------
    InputError
        If it reserves rights without granting a licence: such a score is not rendered.
    """
    try:
        if score.suffix == ".mxl":
            with zipfile.ZipFile(score) as archive:
                names = [name for name in archive.namelist() if not name.startswith("META-INF")]
                text = archive.read(names[0]).decode(errors="replace")
        else:
            text = score.read_text(errors="replace")
    except (OSError, zipfile.BadZipFile, IndexError) as error:
        raise InputError(f"{score} can't be read as a score: {error}.") from error
    for pattern, licence in _GRANTS:
        if pattern.search(text):
            return licence
    reserved = _RESERVED.search(text)
    if reserved:
        line = text[max(0, reserved.start() - 20) : reserved.end() + 60].split("\n")[0].strip()
        raise InputError(f"{score.name} reserves rights ({line!r}) and grants no licence. Choose another score.")
    return UNSTATED


def midi_of(score: Path) -> "pretty_midi.PrettyMIDI":
    """The notes of a score as it is written, repeats played.

    Raises
    ------
    InputError
        If music21 can't make sense of it (impossible repeats are the usual reason) in a minute and a half.
    MissingExtraError
        If music21 or pretty_midi is not installed.
    """
    try:
        import pretty_midi
    except ImportError as error:
        raise MissingExtraError("pretty_midi", "data") from error
    corpus_of()
    # music21 writes 10080 ticks a quarter note; pretty_midi takes a long movement of that for a broken file.
    pretty_midi.pretty_midi.MAX_TICK = 1e10
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "score.mid"
        command = [sys.executable, "-W", "ignore", "-c", _PARSE, str(score), str(target), str(PARSE_S)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20 * PARSE_S, check=False)
            if done.returncode < 0:
                raise InputError(f"{score.name} can't be played: music21 takes more than {PARSE_S} s for it.")
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise InputError(f"{score.name} can't be played: {reason}.")
            return pretty_midi.PrettyMIDI(str(target))
        except (subprocess.TimeoutExpired, ValueError, KeyError, IndexError, EOFError, OSError) as error:
            raise InputError(f"{score.name} can't be played: {type(error).__name__}: {error}.") from error


def arrange_for_piano(midi: "pretty_midi.PrettyMIDI") -> None:
    """Give all parts to one piano, in place; keys that several parts strike together are struck once.

    Raises
    ------
    InputError
        If a note is not on the 88 keys.
    """
    import pretty_midi

    notes = [note for instrument in midi.instruments if not instrument.is_drum for note in instrument.notes]
    low, high = KEYBOARD
    outside = [note.pitch for note in notes if not low <= note.pitch <= high]
    if outside:
        raise InputError(f"{len(outside)} of {len(notes)} notes are not on a piano's keys ({low} to {high}).")
    piano = pretty_midi.Instrument(program=0, name="piano")
    for note in sorted(notes, key=lambda note: (note.pitch, note.start, note.end)):
        last = piano.notes[-1] if piano.notes else None
        if last is not None and last.pitch == note.pitch and note.start - last.start < UNISON_S:
            last.end, last.velocity = max(last.end, note.end), max(last.velocity, note.velocity)
        else:
            piano.notes.append(note)
    midi.instruments[:] = [piano]


def release_before_restriking(midi: "pretty_midi.PrettyMIDI") -> None:
    """End every note where its key is struck again, in place: a late note-off would silence the new note."""
    for instrument in midi.instruments:
        instrument.notes.sort(key=lambda note: (note.pitch, note.start))
        for note, following in pairwise(instrument.notes):
            if note.pitch == following.pitch:
                note.end = min(note.end, following.start)
        instrument.notes[:] = [note for note in instrument.notes if note.end > note.start]


def humanise(midi: "pretty_midi.PrettyMIDI", seed: int) -> None:
    """Move every onset (normal, 12 ms) and velocity (normal, 14 of 127) in place, as no player is exact."""
    random = np.random.Generator(np.random.Philox(key=np.array([seed, 0x5C0], np.uint64)))
    for instrument in midi.instruments:
        for note in instrument.notes:
            length = max(note.end - note.start, 0.02)
            note.start = max(0.0, note.start + TIMING_SD_S * float(random.standard_normal()))
            note.end = note.start + length
            note.velocity = int(np.clip(round(note.velocity + VELOCITY_SD * random.standard_normal()), 1, 127))


def synthesise(midi: "pretty_midi.PrettyMIDI", soundfont: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Stereo audio (2, samples) at 44.1 kHz that fluidsynth makes of the notes.

    Raises
    ------
    InputError
        If fluidsynth or the soundfont is missing, or fluidsynth fails.
    """
    program = shutil.which("fluidsynth")
    if program is None:
        raise InputError("Rendering needs the fluidsynth program. On Debian: apt-get install fluidsynth.")
    if not soundfont.is_file():
        packages = " or ".join(font.package for font in SOUNDFONTS)
        raise InputError(f"There is no soundfont {soundfont}. On Debian: apt-get install {packages}.")
    with tempfile.TemporaryDirectory() as scratch:
        score, audio = Path(scratch) / "score.mid", Path(scratch) / "audio.wav"
        midi.write(str(score))
        command = [program, "-ni", "-q", "-g", GAIN, "-r", str(SAMPLE_RATE), "-F", str(audio)]
        command += [str(soundfont), str(score)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=RENDER_TIMEOUT_S, check=False)
            rendered, _ = soundfile.read(str(audio), dtype="float32", always_2d=True)
        except (subprocess.TimeoutExpired, soundfile.LibsndfileError, OSError) as error:
            raise InputError(f"fluidsynth made no audio with {soundfont.name}: {error}.") from error
        if done.returncode or not np.abs(rendered).max(initial=0.0) > 1e-3:
            raise InputError(f"fluidsynth made only silence with {soundfont.name}: {done.stderr.strip()[-200:]}.")
        return np.ascontiguousarray(rendered.T)


def render(
    arrangement: str, to: Path | None = None, out: Path | None = None, seed: int = 0
) -> Iterator[Built | Skipped]:
    """Render music21's scores with every soundfont, one event each, then show that the splits share nothing.

    Parameters
    ----------
    arrangement
        "ensemble": for the instruments of the score. "piano": all parts on one piano.
    to
        Folder for the soundfonts; the cache folder when absent.
    out
        Folder for the audio and `manifest.jsonl`; `built` below `to` when absent.
    seed
        Of timing and velocity.

    Raises
    ------
    InputError
        If there is no such arrangement, something is missing, or the splits share a piece or a passage.
    """
    kind = next((kind for kind in ARRANGEMENTS if kind == arrangement), None)
    if kind is None:
        raise InputError(f"There is no arrangement {arrangement!r}. Choose from: {', '.join(ARRANGEMENTS)}.")
    corpus, target = corpus_of(), out or (to or cache_folder()) / "built"
    yield from build_renders(scores_of(corpus), corpus, target, soundfonts(to), seed, kind)
    leaks.require_none(manifest.read(target / "manifest.jsonl"), target)


def build_renders(
    scores: Iterable[Path],
    corpus: Path,
    out: Path,
    fonts: Iterable[Soundfont] = SOUNDFONTS,
    seed: int = 0,
    arrangement: Arrangement = "ensemble",
) -> Iterator[Built | Skipped]:
    """Render scores with every soundfont into `out/renders` or `out/piano`, appending rows to `out/manifest.jsonl`.

    The folder that holds a score names its work (all movements of a quartet share a split); a score that lies in its
    composer's folder is a work of its own. Both arrangements of a score are one work.

    Parameters
    ----------
    scores
        Score files below `corpus`, which holds one folder per composer.
    corpus
        The folder that paths are named after.
    out
        The manifest's folder.
    fonts
        Each score is rendered with each, so that no model learns one sampler.
    seed
        Of timing and velocity.
    arrangement
        "ensemble": for the instruments of the score. "piano": all parts on one piano.
    """
    path, source = out / "manifest.jsonl", "piano" if arrangement == "piano" else "renders"
    have = {row.recording for row in manifest.read(path) if row.source == source} if path.exists() else set()
    fonts = tuple(fonts)
    for score in scores:
        parts = score.relative_to(corpus).with_suffix("").parts
        wanted = [font for font in fonts if f"{'_'.join(parts)}_{font.name}" not in have]
        if not wanted:
            continue
        try:
            licence = terms_of(score)
            midi = midi_of(score)
            if arrangement == "piano":
                arrange_for_piano(midi)
        except InputError as error:
            yield Skipped(source, "/".join(parts), str(error))
            continue
        if not 20.0 <= midi.get_end_time() <= MAX_SECONDS:
            reason = f"{midi.get_end_time():.0f} s long, 20 to {MAX_SECONDS:.0f} s fit"
            yield Skipped(source, "/".join(parts), reason)
            continue
        work = "/".join(("renders", *VERSIONS.get(parts, parts[:2])))
        humanise(midi, seed + int(hashlib.sha256("/".join(parts).encode()).hexdigest()[:8], 16))
        if arrangement == "piano":
            release_before_restriking(midi)
        for font in wanted:
            row = keep_render(
                out,
                source,
                f"{'_'.join(parts)}_{font.name}",
                work,
                synthesise(midi, font.path),
                licence=f"score: {licence}; soundfont: {font.licence}",
                attribution=f"{parts[0]}, encoded for the music21 corpus, rendered with {font.name}",
                labels={
                    "composer": parts[0],
                    "title": " ".join(parts[1:]),
                    "soundfont": font.name,
                    "arrangement": arrangement,
                    "programs": " ".join(str(program) for program in sorted({i.program for i in midi.instruments})),
                    "notes": str(sum(len(instrument.notes) for instrument in midi.instruments)),
                },
            )
            yield Built(row)
