"""Studies hold what their labels say: notes in range and in their bars, the key and tempo found again, never silent."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sfumato.data import manifest, studies
from sfumato.data.build import Built
from sfumato.data.composer import DYNAMICS, TONICS, Study, mode_heard, study
from sfumato.data.grooves import CRASH, FILL, GROOVES, KICK, groove
from sfumato.data.instruments import BASSES, KITS, PIANO, PITCHED
from sfumato.data.renders import SOUNDFONTS
from sfumato.data.textures import MODES, TEXTURES
from sfumato.errors import InputError
from sfumato.order_prompts import Event, parse

MANY = [study(3, number) for number in range(250)]
# Krumhansl & Kessler 1982: how well a note fits a key, from its tonic up.
FITS = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}


def key_of(weights: np.ndarray) -> tuple[str, str]:
    fits = {
        (TONICS[k], mode): np.corrcoef(np.roll(fit, k), weights)[0, 1] for mode, fit in FITS.items() for k in range(12)
    }
    return max(fits, key=lambda key: fits[key])


def pitched(made: Study) -> list:  # type: ignore[type-arg]
    return [part for part in made.parts if part.instrument.family != "drums"]


def test_a_study_is_a_function_of_its_number() -> None:
    assert study(3, 7) == MANY[7] and study(4, 7) != MANY[7]
    assert len({json.dumps(made.labels, sort_keys=True) for made in MANY}) > 240


def test_notes_lie_in_their_instruments_ranges_and_in_their_bars() -> None:
    assert all(made.parts and all(part.notes for part in made.parts) for made in MANY)
    for made in MANY:
        end = max(part.stop for part in made.parts)
        assert 8 <= made.seconds <= 12 and made.seconds - 2.1 < end < made.seconds, "little silence at the end"
        for part in made.parts:
            for note in part.notes:
                assert part.instrument.low <= note.pitch <= part.instrument.high
                assert part.start - 1e-9 <= note.start < part.stop and note.start + note.length < part.stop + 0.2
                assert note.length > 0 and 1 <= note.velocity <= 127


def test_everything_is_played_sooner_or_later() -> None:
    many = [part for number in range(1500) for part in study(0, number).parts]
    assert {part.instrument for part in many} == {*PITCHED, *BASSES, *KITS}
    assert {part.texture for part in many} == {*TEXTURES, *(f"{name} beat" for name in GROOVES)}
    piano = [note for part in many if part.instrument is PIANO for note in part.notes]
    assert {note.pitch for note in piano} >= set(range(24, 106)) and any(part.pedal for part in many)
    assert {note.velocity // 16 for note in piano} == set(range(8))


def test_labels_tell_the_order_of_events() -> None:
    for made in MANY:
        form, parts = made.labels["form"], made.parts
        places = [event.place for event in studies.events_of(made)]
        if form == "solo":
            assert len(parts) == 1 and places == ["all"]
        elif form == "together":
            assert places == ["all", "all"] and parts[0].start == parts[1].start == 0
        elif form == "sequence":
            assert places == ["start", "end"] and parts[0].stop == parts[1].start > 0
        else:
            assert places == ["all", "end"] and parts[0].stop == parts[1].stop and parts[1].start > 0
        assert len({part.instrument.name for part in parts}) == len(parts)
    one = next(made for made in MANY if made.labels["form"] == "sequence" and made.parts[0].instrument in KITS)
    words = studies.events_of(one)[0].words
    assert words.endswith(f" beat on {one.parts[0].instrument.name}")


def test_loudness_is_the_players_touch() -> None:
    means: dict[str, list[float]] = {}
    for made in MANY:
        if made.labels["dynamics"] == "steady" and pitched(made):
            means.setdefault(made.labels["loudness"], []).append(
                float(np.mean([note.velocity for part in pitched(made) for note in part.notes]))
            )
    levels = [means[name] for name in DYNAMICS]
    assert all(max(softer) < min(louder) for softer, louder in pairwise(levels))
    for made in MANY:
        course = [note.velocity for part in pitched(made) for note in sorted(part.notes, key=lambda n: n.start)]
        if made.labels["dynamics"] != "steady" and made.labels["form"] == "solo" and len(course) > 12:
            rises = np.mean(course[-4:]) > np.mean(course[:4])
            assert rises == (made.labels["dynamics"] == "crescendo")


def test_the_key_is_found_again_in_the_notes() -> None:
    right = total = 0
    for made in MANY:
        steps = [(note, part) for part in pitched(made) for note in part.notes]
        if not steps:
            assert "key" not in made.labels
            continue
        tonic = TONICS.index(made.labels["key"])
        found = {(note.pitch - tonic) % 12 for note, _ in steps}
        assert made.labels.get("mode", "") == mode_heard(found)
        if made.labels.get("mode") in FITS:
            weights = np.bincount([n.pitch % 12 for n, _ in steps], [n.length for n, _ in steps], 12)
            right, total = right + (key_of(weights) == (made.labels["key"], made.labels["mode"])), total + 1
    assert total > 100 and right > 0.6 * total, f"{right} of {total}; chance is 1 of 24"


@pytest.mark.parametrize(("mode", "heard"), [("major", "major"), ("dorian", "dorian"), ("minor", "minor")])
def test_a_mode_is_told_only_if_the_notes_tell_it(mode: str, heard: str) -> None:
    assert mode_heard(set(MODES[mode])) == heard
    assert mode_heard({0, 7}) == "" and mode_heard({0, 4, 7}) == "major" and mode_heard({0, 3, 7}) == "minor"
    assert mode_heard({0, 4, 10}) == "mixolydian"


def test_grooves_end_in_fills_and_keep_their_beat() -> None:
    for name, made in GROOVES.items():
        assert all(len(pattern) == made.metre * made.steps for pattern in made.drums.values())
        hits = groove(name, 120, 2, 4, np.random.default_rng(1))
        assert all(2 * made.metre <= beat < 4 * made.metre and 0 < level <= 1 for beat, _, level in hits)
        assert (2.0 * made.metre, KICK) in {(beat, drum) for beat, drum, _ in hits}
    many = [groove("rock", 120, 0, 2, np.random.default_rng(seed)) for seed in range(20)]
    drums = {(beat, drum) for hits in many for beat, drum, _ in hits}
    assert (0.0, CRASH) in drums and {drum for _, drum in drums} > set(FILL)


def test_counts_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--count from 1"):
        list(studies.render(0, tmp_path, tmp_path))


def test_renders_are_as_labelled(tmp_path: Path) -> None:
    pytest.importorskip("pretty_midi")
    librosa = pytest.importorskip("librosa")
    fonts = [font for font in SOUNDFONTS if font.path.is_file()]
    if not fonts or not shutil.which("fluidsynth"):
        pytest.skip("fluidsynth or a soundfont is not installed")
    import soundfile

    drums = next(n for n in range(99) if study(0, n).labels["textures"] in ("disco beat", "rock beat"))
    wanted = {"textures": "scale", "instruments": "piano", "mode": "major"}
    scale = next(n for n in range(999) if wanted.items() <= study(0, n).labels.items())
    numbers = (drums, scale)
    rows = [event.row for event in studies.build_studies(numbers, tmp_path, fonts) if isinstance(event, Built)]
    assert manifest.read(tmp_path / "manifest.jsonl") == rows and len({row.work for row in rows}) == 2
    assert list(studies.build_studies(numbers, tmp_path, fonts)) == [], "what is there is passed over"
    audio = {}
    for row in rows:
        sound, rate = soundfile.read(tmp_path / row.path, dtype="float32")
        assert row.rendered and row.licence.startswith("score: CC0-1.0; soundfont: ")
        assert row.seconds == len(sound) / rate and 0.005 < np.abs(sound).max() < 0.9995
        assert len(parse(row.labels["events"])) == len(row.labels["times"].split(";"))
        audio[row.recording] = sound.mean(axis=1)
    beat = float(np.ravel(librosa.beat.beat_track(y=audio[rows[0].recording], sr=44100)[0])[0])
    ratio = beat / int(rows[0].labels["tempo"])
    assert any(abs(ratio / octave - 1) < 0.05 for octave in (0.5, 1, 2))
    low = librosa.resample(audio[rows[1].recording], orig_sr=44100, target_sr=22050)
    chroma = librosa.feature.chroma_cqt(y=low, sr=22050)
    assert key_of(chroma.mean(axis=1)) == (rows[1].labels["key"], rows[1].labels["mode"])


def test_silent_and_clipped_renders_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pretty_midi")
    tone = np.sin(np.arange(44100 * 9) / 20, dtype=np.float32)
    levels = iter((1.5, 1e-4, 0.5))
    monkeypatch.setattr(studies, "synthesise", lambda midi, font: np.clip(np.tile(next(levels) * tone, (2, 1)), -1, 1))
    events = list(studies.build_studies((0, 1, 2), tmp_path, SOUNDFONTS[:1]))
    assert [getattr(event, "reason", "") for event in events] == ["is clipped", "is silent", ""]
    assert len(manifest.read(tmp_path / "manifest.jsonl")) == 1


def test_the_pedal_and_the_drums_reach_the_synthesiser() -> None:
    pytest.importorskip("pretty_midi")
    pedalled = next(made for made in MANY if any(part.pedal for part in made.parts))
    midi = studies.midi_of(pedalled)
    changes = [change for instrument in midi.instruments for change in instrument.control_changes]
    assert {(change.number, change.value) for change in changes} == {(64, 127), (64, 0)}
    with_drums = next(made for made in MANY if made.labels["families"] == "drums")
    (instrument,) = studies.midi_of(with_drums).instruments
    assert instrument.is_drum and instrument.program == with_drums.parts[0].instrument.program
    assert studies.events_of(with_drums) == (Event(studies.heard_in(with_drums.parts[0]), "all"),)
