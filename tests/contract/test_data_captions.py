"""Captions say what the labels say and no more, depend on seed and name alone, and come back from their file."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sfumato.data import caption_file, manifest
from sfumato.data.build import SAMPLE_RATE
from sfumato.data.caption_file import Caption, captions_of, parts_of, read_captions
from sfumato.data.captions import INSTRUMENTS, LOUDNESS, TEXTURES, candidates, in_words, name_of, pace
from sfumato.data.composer import DYNAMICS, TONICS, study
from sfumato.data.instruments import BASSES, KITS, PITCHED
from sfumato.data.manifest import Row
from sfumato.data.studies import events_of
from sfumato.data.textures import TEXTURES as PLAYED
from sfumato.errors import InputError
from sfumato.order_prompts import parse, write


def row(source: str, recording: str, labels: dict[str, str], rendered: bool = False) -> Row:
    return Row(
        source=source, recording=recording, work=f"{source}/{recording}", path=f"{recording}.wav", sha256="0" * 64,
        seconds=10, sample_rate=SAMPLE_RATE, channels=2, licence="CC0", labels=labels, split="train", rendered=rendered,
    )  # fmt: skip


def study_row(number: int) -> Row:
    made = study(0, number)
    return row("studies", f"{number}", made.labels | {"events": write(events_of(made))}, rendered=True)


SOUND = row("everyday", "wolf_1", {"sound": "growling wolf", "class": "animal", "text": "A wolf."})
MUSIC = row("game", "tune", {"style": "orchestral, folk", "title": "t"})
KICK = row("kit", "kick1", {"kit": "k", "class": "kick", "form": "one-shot"})
PIANO = row("piano", "op1", {"composer": "joplin", "arrangement": "piano"}, rendered=True)
ROWS = [*(study_row(number) for number in range(40)), SOUND, MUSIC, KICK, PIANO]


def ways_of(instrument: str) -> list[str]:
    return [way.removeprefix("a ") for way in INSTRUMENTS.get(instrument, (instrument,))]


def test_captions_depend_on_seed_and_name_alone() -> None:
    together = captions_of(ROWS, {}, 5, 4)
    apart = [caption for one in reversed(ROWS) for caption in captions_of([one], {}, 5, 4)]
    assert sorted(map(str, together)) == sorted(map(str, apart))
    assert [c.caption for c in together] != [c.caption for c in captions_of(ROWS, {}, 6, 4)]


def test_captions_are_drawn_for_each_name() -> None:
    alike = [SOUND.model_copy(update={"recording": f"wolf_{i}"}) for i in range(12)]
    assert len({tuple(candidates(one, count=3)) for one in alike}) > 3


@pytest.mark.parametrize("number", range(40))
def test_a_study_is_described_by_its_labels_and_nothing_else(number: int) -> None:
    one = study_row(number)
    labels = one.labels
    texts = candidates(one, seed=1, count=24)
    assert len(texts) == len(set(texts)) > 5 and texts == sorted(texts, key=len)
    other_keys = {f" in {tonic} " for tonic in TONICS if tonic != labels.get("key")}
    own = LOUDNESS[labels["loudness"]]
    other_levels = {way for ways in LOUDNESS.values() for way in ways if not any(way in mine for mine in own)}
    for text in texts:
        assert "{" not in text and ";" not in text and "  " not in text and text.strip() == text
        assert not any(key in f"{text} " for key in other_keys)
        assert "bpm" not in text.lower() or f"{labels['tempo']} bpm" in text.lower()
        assert ("three-four" not in text) or labels["metre"] == "3/4"
        told = text.partition(" in ")[0].replace("powerful drums", "").replace("soft synthesizer", "")
        assert not any(re.search(rf"(?<!growing ){way}\b", told) for way in other_levels)
        assert all(any(way in text for way in ways_of(name)) for name in labels["instruments"].split("; "))
    full = [text for text in texts if f"{labels['tempo']} bpm" in text.lower()]
    assert full and ("key" not in labels or all(f" in {labels['key']}" in text for text in full))


def test_order_of_two_parts_is_told() -> None:
    for one in ROWS[:40]:
        names = one.labels["instruments"].split("; ")
        parts = parts_of(one)
        assert [part.words for part in parts] == [event.words for event in parse(one.labels["events"])]
        if one.labels["form"] != "sequence":
            continue
        assert parts[0].stop_s == parts[1].start_s and parts[0].start_s == 0
        first, second = map(ways_of, names)
        told = [text for text in candidates(one, seed=2, count=24) if "then" in text or "followed" in text]
        for text in told:
            assert min(text.find(w) for w in first if w in text) <= max(text.rfind(w) for w in second if w in text)
        assert told


def test_every_label_of_a_study_has_words() -> None:
    assert set(LOUDNESS) == set(DYNAMICS) and set(TEXTURES) == set(PLAYED)
    assert set(INSTRUMENTS) <= {instrument.name for instrument in (*PITCHED, *BASSES, *KITS)}
    assert pace(60) == ("slow",) and "fast" in pace(180) and "moderate" in pace(100)


def test_other_recordings_have_captions_too() -> None:
    assert candidates(SOUND, count=1) == ["growling wolf"] or "growling wolf" in candidates(SOUND, count=8)
    assert all("growling wolf" in text for text in candidates(SOUND, count=16))
    assert all("kick drum" in text for text in candidates(KICK, count=8))
    assert any("Joplin" in text for text in candidates(PIANO, count=8))
    plain, tagged = candidates(MUSIC, count=8), candidates(MUSIC, ("harp", "slow"), count=8)
    assert any("orchestral" in text for text in plain) and not any("harp" in text for text in plain)
    assert any("harp" in text for text in tagged)
    with pytest.raises(InputError, match="1 to 64"):
        candidates(SOUND, count=65)


def test_a_model_ranks_candidates() -> None:
    heard = []

    def read(one: Row) -> tuple[np.ndarray, int]:
        heard.append(name_of(one))
        return np.full((2, 8), len(one.recording), np.float32), 44100

    def similarity(audio: np.ndarray, rate: int, texts: list[str]) -> list[float]:
        assert audio.shape == (2, 8) and rate == 44100
        return [float(len(text)) for text in texts]

    longer = captions_of(ROWS, {}, 1, 3, read, similarity)
    assert heard == [name_of(one) for one in ROWS]
    for one in ROWS[:40]:
        offered = sorted(candidates(one, seed=1, count=12), key=len)
        own = [c.caption for c in longer if c.recording == name_of(one) and c.caption != one.labels["events"]]
        assert len(own) == min(3, len(offered)) and set(own) <= set(offered)
        # Of twelve, the six that the model likes best are drawn from.
        assert min(map(len, own)) >= len(offered[-6:][0])


def test_the_file_comes_back(tmp_path: Path) -> None:
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    rows = [ROWS[0].model_copy(update={"path": "a.wav"}), SOUND.model_copy(update={"path": "a.wav"})]
    soundfile.write(tmp_path / "a.wav", 0.3 * np.sin(2 * np.pi * 440 * t), SAMPLE_RATE)
    manifest.write(tmp_path / "manifest.jsonl", rows)
    written = caption_file.caption(tmp_path, count=3, seed=2)
    read = read_captions(tmp_path / caption_file.NAME)
    assert [caption for own in read.values() for caption in own] == written
    assert set(read) == {name_of(one) for one in rows} and len(written) >= 6
    first = json.loads((tmp_path / caption_file.NAME).read_text().splitlines()[0])
    assert set(first) == {"recording", "caption", "parts"}
    (tmp_path / "bad.jsonl").write_text('{"recording": "x"}\n')
    with pytest.raises(InputError, match="line 1 is not a caption"):
        read_captions(tmp_path / "bad.jsonl")
    with pytest.raises(InputError, match="sfumato data captions"):
        read_captions(tmp_path / "none.jsonl")


def test_the_model_that_ranks_is_a_text_audio_model(tmp_path: Path) -> None:
    manifest.write(tmp_path / "manifest.jsonl", [SOUND])
    with pytest.raises(InputError, match="is a model of conffusion, not of text_audio"):
        caption_file.caption(tmp_path, model="conffusion")
    assert not (tmp_path / caption_file.NAME).exists()


def test_recorded_music_alone_is_tagged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    manifest.write(tmp_path / "manifest.jsonl", ROWS)
    asked = []

    def tags_of(rows: list[Row], root: Path) -> dict[str, list[str]]:
        asked.extend(rows)
        return {name_of(MUSIC): ["harp"]}

    monkeypatch.setattr("sfumato.data.tags.tags_of", tags_of)
    written = caption_file.caption(tmp_path, count=4, tags=True)
    assert asked == [MUSIC]
    assert any("harp" in c.caption for c in written if c.recording == name_of(MUSIC))


def test_structured_captions_are_kept_for_two_parts() -> None:
    two = next(one for one in ROWS[:40] if one.labels["form"] == "sequence")
    texts = [caption.caption for caption in captions_of([two], {}, 0, 2)]
    assert texts[-1] == two.labels["events"] and ", then " in in_words(texts[-1]) and in_words("a piano") == "a piano"
    solo = next(one for one in ROWS[:40] if one.labels["form"] == "solo")
    assert not any(caption.caption.startswith("<") for caption in captions_of([solo], {}, 0, 2))
    assert Caption(recording="a/b", caption="c").parts == ()
