"""Scores are rendered only under terms that allow it, with sound, and always marked; the program's absence is said."""

import hashlib
import itertools
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sfumato.data import leaks, manifest, renders
from sfumato.data.build import Built, Skipped
from sfumato.data.fetch import Fetched
from sfumato.data.recipe import Source
from sfumato.data.sources import SOUNDFONTS
from sfumato.errors import InputError

SCORE = """<?xml version="1.0"?>
<score-partwise version="3.1"><identification>{rights}</identification>
<part-list><score-part id="P1"><part-name>Piano</part-name></score-part></part-list>
<part id="P1">{measures}</part></score-partwise>"""
MEASURE = """<measure number="{i}"><attributes><divisions>1</divisions><time><beats>4</beats><beat-type>4</beat-type>
</time></attributes>{notes}</measure>"""
NOTE = "<note><pitch><step>{step}</step><octave>4</octave></pitch><duration>1</duration></note>"


def score(path: Path, rights: str = "", measures: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    notes = "".join(NOTE.format(step=step) for step in "CEGA")
    path.write_text(
        SCORE.format(rights=rights, measures="".join(MEASURE.format(i=i + 1, notes=notes) for i in range(measures)))
    )
    return path


@pytest.mark.parametrize(
    ("rights", "licence"),
    [
        ("", renders.UNSTATED),
        ("<rights>released under the CC BY-SA 4.0 license.</rights>", "CC-BY-SA-4.0"),
        ("<rights>© 2014, Creative Commons License (CC-BY)</rights>", "CC-BY"),
        ("<rights>Copyright © 1998. Released to Public Domain in 1998</rights>", "public-domain"),
    ],
)
def test_terms_are_read_from_the_score(tmp_path: Path, rights: str, licence: str) -> None:
    plain = score(tmp_path / "a.xml", rights)
    assert renders.terms_of(plain) == licence
    with zipfile.ZipFile(tmp_path / "a.mxl", "w") as archive:
        archive.writestr("META-INF/container.xml", "<rights>Copyright</rights>")
        archive.writestr("a.xml", plain.read_text())
    assert renders.terms_of(tmp_path / "a.mxl") == licence


@pytest.mark.parametrize(
    "rights",
    [
        "<rights>© 2004 Somebody</rights>",
        "Rights to all derivative electronic formats reserved.",
        "CC BY-NC-SA non-commercial",
    ],
)
def test_reserved_scores_are_refused(tmp_path: Path, rights: str) -> None:
    with pytest.raises(InputError, match="reserves rights"):
        renders.terms_of(score(tmp_path / "a.xml", rights))
    (tmp_path / "a.mxl").write_bytes(b"no zip")
    with pytest.raises(InputError, match="can't be read as a score"):
        renders.terms_of(tmp_path / "a.mxl")


def midi(n: int = 400, seconds: float = 0.5):  # type: ignore[no-untyped-def]
    pretty_midi = pytest.importorskip("pretty_midi")
    made = pretty_midi.PrettyMIDI()
    piano = pretty_midi.Instrument(program=0)
    for i in range(n):
        start = 1 + i * seconds
        piano.notes.append(pretty_midi.Note(velocity=64, pitch=48 + i % 24, start=start, end=start + seconds))
    made.instruments.append(piano)
    return made


def test_players_are_inexact_by_the_stated_amount() -> None:
    first, second, other = midi(), midi(), midi()
    renders.humanise(first, 1)
    renders.humanise(second, 1)
    renders.humanise(other, 2)
    notes = first.instruments[0].notes
    starts = np.array([note.start for note in notes])
    assert [note.start for note in second.instruments[0].notes] == list(starts)
    assert [note.start for note in other.instruments[0].notes] != list(starts)
    offsets = starts - (1 + 0.5 * np.arange(400))
    assert offsets.std() == pytest.approx(0.012, rel=0.15) and abs(offsets.mean()) < 0.002
    assert np.std([note.velocity for note in notes]) == pytest.approx(14, rel=0.15)
    assert np.allclose([note.end - note.start for note in notes], 0.5)


def test_absent_programs_and_soundfonts_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("fluidsynth"):
        with pytest.raises(InputError, match="fluid-soundfont-gm or timgm6mb-soundfont"):
            renders.synthesise(midi(4), tmp_path / "none.sf2")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="apt-get install fluidsynth"):
        renders.synthesise(midi(4), tmp_path / "none.sf2")


def test_scores_become_marked_rows_that_share_a_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the synthesiser, so that only the rows are looked at."""
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    paths = [score(corpus / f"composer/opus1/movement{i}.xml") for i in (1, 2)]
    paths += [score(corpus / "composer/song.xml", "<rights>© 1990</rights>"), score(corpus / "composer/jingle.xml")]
    played = []

    def play(score: Path) -> object:
        played.append(score.name)
        return midi(60) if score.name != "jingle.xml" else midi(6)

    monkeypatch.setattr(renders, "midi_of", play)
    tone = np.full((2, 44100 * 21), 0.2, np.float32)
    monkeypatch.setattr(renders, "synthesise", lambda _midi, font: tone * (0.5 if "Tim" in font.name else 1.0))
    events = list(renders.build_renders(paths, corpus, out))
    rows = [event.row for event in events if isinstance(event, Built)]
    reasons = [event.reason for event in events if isinstance(event, Skipped)]
    assert [row.recording for row in rows] == [
        f"composer_opus1_movement{i}_{font}" for i in (1, 2) for font in ("fluidr3", "timgm6mb")
    ]
    assert all(row.rendered for row in rows) and len({(row.work, row.split) for row in rows}) == 1
    assert len({row.sha256 for row in rows}) == 2 and rows[0].labels["notes"] == "60"
    assert "soundfont: GPL-2" in rows[1].licence
    assert "reserves rights" in reasons[0] and "s long" in reasons[1]
    assert manifest.read(out / "manifest.jsonl") == rows
    played.clear()
    list(renders.build_renders(paths[:2], corpus, out))
    assert played == []


def test_one_piano_plays_all_parts() -> None:
    """Drums are left out, keys struck together are struck once, and what no piano has is refused."""
    pretty_midi = pytest.importorskip("pretty_midi")
    made = midi(0)
    made.instruments = [pretty_midi.Instrument(program=p, is_drum=d) for p, d in ((40, False), (42, False), (0, True))]

    def note(pitch: int, start: float, end: float, velocity: int = 64) -> object:
        return pretty_midi.Note(velocity=velocity, pitch=pitch, start=start, end=end)

    made.instruments[0].notes = [note(60, 0, 1), note(64, 1, 2)]
    made.instruments[1].notes = [note(60, 0.01, 3, 90), note(60, 2, 3), note(21, 0, 1)]
    made.instruments[2].notes = [note(36, 0, 1)]
    renders.arrange_for_piano(made)
    (piano,) = made.instruments
    assert piano.program == 0 and not piano.is_drum
    played = sorted((n.pitch, n.start, n.end, n.velocity) for n in piano.notes)
    assert played == [(21, 0, 1, 64), (60, 0, 3, 90), (60, 2, 3, 64), (64, 1, 2, 64)]
    renders.release_before_restriking(made)
    assert sorted((n.pitch, n.start, n.end) for n in piano.notes)[1:3] == [(60, 0, 2), (60, 2, 3)]
    made.instruments[0].notes.append(note(20, 0, 1))
    with pytest.raises(InputError, match="1 of 5 notes are not on a piano's keys"):
        renders.arrange_for_piano(made)


def test_both_arrangements_of_a_score_share_a_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    paths = [score(corpus / "composer/opus1/movement1.xml")]
    heard = []

    def play(made: object, font: Path) -> object:
        heard.append(made)
        return np.full((2, 44100 * 21), 0.1 + 0.01 * len(heard), np.float32)

    monkeypatch.setattr(renders, "midi_of", lambda _score: midi(60))
    monkeypatch.setattr(renders, "synthesise", play)
    kinds = ("ensemble", "piano")
    rows = [
        event.row
        for kind in kinds
        for event in renders.build_renders(paths, corpus, out, renders.SOUNDFONTS, 0, kind)
        if isinstance(event, Built)
    ]
    assert [row.source for row in rows] == ["renders", "renders", "piano", "piano"]
    assert len({(row.work, row.split) for row in rows}) == 1 and len({row.path for row in rows}) == 4
    assert [row.labels["arrangement"] for row in rows] == ["ensemble"] * 2 + ["piano"] * 2
    notes = sorted(heard[2].instruments[0].notes, key=lambda note: (note.pitch, note.start))
    assert all(a.end <= b.start for a, b in itertools.pairwise(notes) if a.pitch == b.pitch)
    assert len(manifest.read(out / "manifest.jsonl")) == 4


def test_rendering_ends_by_comparing_the_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same sound for every score: a shared passage, once scores of two splits have it."""
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    score(corpus / "bach/a.xml")
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, 44100 * 21)).astype(np.float32)
    monkeypatch.setattr(renders, "corpus_of", lambda: corpus)
    monkeypatch.setattr(renders, "soundfonts", lambda _to: renders.SOUNDFONTS[:1])
    monkeypatch.setattr(renders, "midi_of", lambda _score: midi(60))
    monkeypatch.setattr(renders, "synthesise", lambda _midi, _font: noise * np.float32(1 + 0.01 * midi_count()))
    counter = itertools.count()

    def midi_count() -> int:
        return next(counter)

    assert len(list(renders.render("piano", tmp_path, out))) == 1
    here = manifest.split_of("renders/bach/a")
    other = next(name for name in "bcdefgh" if manifest.split_of(f"renders/bach/{name}") != here)
    score(corpus / f"bach/{other}.xml")
    with pytest.raises(InputError, match="shared passage"):
        list(renders.render("piano", tmp_path, out))
    monkeypatch.setattr(leaks, "RENDERED_S", 30)
    assert not list(renders.render("piano", tmp_path, out))
    with pytest.raises(InputError, match="no arrangement 'organ'"):
        list(renders.render("organ", tmp_path, out))


def test_scores_of_one_piece_share_a_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("bwv59.3", "bwv175.7", "bwv66.6")
    assert manifest.split_of("renders/bach/bwv59.3") != manifest.split_of("renders/bach/bwv175.7")
    monkeypatch.setattr(renders, "midi_of", lambda _score: midi(60))
    monkeypatch.setattr(renders, "synthesise", lambda _midi, _font: np.full((2, 44100 * 21), 0.2, np.float32))
    paths = [score(tmp_path / f"bach/{name}.xml") for name in names]
    events = renders.build_renders(paths, tmp_path, tmp_path / "out", renders.SOUNDFONTS[:1])
    works = [event.row.work for event in events if isinstance(event, Built)]
    assert works == ["renders/bach/bwv175.7", "renders/bach/bwv175.7", "renders/bach/bwv66.6"]


def test_one_file_of_every_piece(tmp_path: Path) -> None:
    for name in ("bach/b1.2.mxl", "bach/b1.2.krn", "bach/b1.3.mxl", "mozart/k1/m1.xml", "tunes/a.mxl", "bach/b.txt"):
        score(tmp_path / name)
    assert [path.name for path in renders.scores_of(tmp_path)] == ["b1.2.krn", "b1.3.mxl", "m1.xml"]
    with pytest.raises(InputError, match="without its corpus"):
        renders.scores_of(tmp_path / "tunes")


def test_scores_that_can_not_be_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("music21")
    pytest.importorskip("pretty_midi")
    (tmp_path / "a.xml").write_text("<score-partwise><part>")
    with pytest.raises(InputError, match=r"a\.xml can't be played"):
        renders.midi_of(tmp_path / "a.xml")
    monkeypatch.setattr(renders, "_PARSE", renders._PARSE.split("import music21")[0] + "while True: pass")
    monkeypatch.setattr(renders, "PARSE_S", 1)
    with pytest.raises(InputError, match="takes more than 1 s"):
        renders.midi_of(score(tmp_path / "b.xml"))


def test_soundfonts_are_fetched_as_their_recipes_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetched(source: Source, to: Path) -> Fetched:
        asked.append((source.package, to))
        return Fetched(source.name, tmp_path / source.package, 1)

    monkeypatch.setattr(renders, "fetch_source", fetched)
    fonts = renders.soundfonts(tmp_path)
    assert asked == [(font.package, tmp_path) for font in fonts]
    for font, installed in zip(fonts, renders.SOUNDFONTS, strict=True):
        recipe = SOUNDFONTS[font.name]
        assert font.package == recipe.package and len(recipe.sha256) == 64
        assert font.path == tmp_path / font.package / installed.path.relative_to("/")
        assert str(installed.path) == f"/{recipe.folder}/{recipe.patterns[0]}"


def test_a_score_is_rendered_to_its_length(tmp_path: Path) -> None:
    pytest.importorskip("music21")
    font = next((font.path for font in renders.SOUNDFONTS[::-1] if font.path.is_file()), None)
    if font is None or not shutil.which("fluidsynth"):
        pytest.skip("fluidsynth or a soundfont is not installed")
    played = renders.midi_of(score(tmp_path / "a.xml"))
    assert sum(len(instrument.notes) for instrument in played.instruments) == 48
    audio = renders.synthesise(played, font)
    assert audio.shape[0] == 2 and 24 <= audio.shape[1] / 44100 < 34
    assert 0.01 < np.abs(audio).max() <= 1
    spectrum = np.abs(np.fft.rfft(audio[0, :22050]))
    partial = np.argmax(spectrum) * 2 / 261.63  # of middle C, the first note
    assert round(partial) in (1, 2, 3) and partial == pytest.approx(round(partial), abs=0.02)
    assert (
        hashlib.sha256(audio.tobytes()).digest() == hashlib.sha256(renders.synthesise(played, font).tobytes()).digest()
    )
