"""Loaders read miniatures in the layouts of MAESTRO v3 and MusicNet, and plain folders."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sfumato.data import loaders, manifest
from sfumato.data.manifest import Row
from sfumato.errors import InputError

MAESTRO_HEAD = "canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration\n"
MUSICNET_HEAD = "id,composer,composition,movement,ensemble,source,transcriber,catalog_name,seconds\n"
LABELS_HEAD = "start_time,end_time,instrument,note,start_beat,end_beat,note_value\n"


def tone(path: Path, seconds: float = 0.5, rate: int = 44100, channels: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full((int(seconds * rate), channels), 0.1), rate)


@pytest.fixture
def maestro(tmp_path: Path) -> Path:
    lines = [
        '"Alban Berg","Sonata Op. 1",train,2018,2018/a.midi,2018/a.wav,0.5',
        '"Alban Berg","Sonata Op. 1",train,2008,2008/b.midi,2008/b.wav,0.5',
        '"Franz Liszt","Étude, ""La Campanella""",validation,2008,2008/c.midi,2008/c.wav,0.5',
        '"Franz Schubert","Impromptu",test,2018,2018/d.midi,2018/d.wav,0.5',
    ]
    for i in range(60):
        lines.append(f'"J. S. Bach","Fugue {i}",train,2004,2004/{i}.midi,2004/{i}.wav,0.5')
        tone(tmp_path / f"2004/{i}.wav", 0.01)
    (tmp_path / "maestro-v3.0.0.csv").write_text(MAESTRO_HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    for name in ("2018/a.wav", "2008/b.wav", "2008/c.wav", "2018/d.wav"):
        tone(tmp_path / name)
    return tmp_path


def test_maestro(maestro: Path) -> None:
    rows = list(loaders.maestro(maestro))
    by_path = {row.path: row for row in rows}
    assert len(rows) == 64
    first = by_path["2018/a.wav"]
    assert (first.sample_rate, first.channels, first.seconds) == (44100, 2, 0.5)
    assert first.sha256 == manifest.sha256_of(maestro / "2018/a.wav")
    assert first.licence == "CC-BY-NC-SA-4.0"
    assert first.labels["midi"] == "2018/a.midi"
    assert first.work == by_path["2008/b.wav"].work and first.split == by_path["2008/b.wav"].split
    assert by_path["2008/c.wav"].labels["title"] == 'Étude, "La Campanella"'
    assert [row.path for row in rows if row.split == "test"] == ["2018/d.wav"]
    assert [row.path for row in rows if row.split == "validation"] == ["2008/c.wav"]
    calibration = sum(row.split == "calibration" for row in rows)
    assert 4 <= calibration <= 25
    assert all(row.labels["published_split"] == "train" for row in rows if row.split == "calibration")
    manifest.write(maestro / "manifest.jsonl", rows)
    assert manifest.read(maestro / "manifest.jsonl") == rows


def test_maestro_says_what_is_wrong(maestro: Path) -> None:
    with pytest.raises(InputError, match=r"no maestro-v3\*.csv"):
        list(loaders.maestro(maestro / "2018"))
    (maestro / "2018/a.wav").write_bytes(b"not audio")
    with pytest.raises(InputError, match=r"a\.wav can't be opened as audio"):
        list(loaders.maestro(maestro))
    table = maestro / "maestro-v3.0.0.csv"
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace(",train,", ",dev,").replace("a.wav", "b.wav"), encoding="utf-8")
    with pytest.raises(InputError, match="split 'dev'"):
        list(loaders.maestro(maestro))
    table.write_text(text.replace("audio_filename", "sound"), encoding="utf-8")
    with pytest.raises(InputError, match="lacks the columns audio_filename"):
        list(loaders.maestro(maestro))
    table.write_text(MAESTRO_HEAD + "Berg,Sonata\n", encoding="utf-8")
    with pytest.raises(InputError, match="too few columns"):
        list(loaders.maestro(maestro))
    outside = maestro.parent / "outside.wav"
    tone(outside)
    table.write_text(MAESTRO_HEAD + f"Berg,Sonata,train,2018,a.midi,../{outside.name},0.5\n", encoding="utf-8")
    with pytest.raises(InputError, match="lies outside"):
        list(loaders.maestro(maestro))


@pytest.fixture
def musicnet(tmp_path: Path) -> Path:
    head = tmp_path / "musicnet_metadata.csv"
    lines = [
        "1,Bach,Cello Suite 1,Prelude,Solo Cello,x,y,BWV 1007,1",
        "2,Bach,Cello Suite 1,Prelude,Solo Cello,x,y,z,1",
    ]
    lines += [f"{i},Mozart,Quartet {i},Allegro,String Quartet,x,y,z,1" for i in range(3, 60)]
    head.write_text(MUSICNET_HEAD + "\n".join(lines) + "\n")
    for i in range(1, 60):
        part = "test" if i == 1 else "train"
        tone(tmp_path / f"{part}_data/{i}.wav", 0.01, channels=1)
        labels = tmp_path / f"{part}_labels/{i}.csv"
        labels.parent.mkdir(exist_ok=True)
        labels.write_text(LABELS_HEAD + "0,22050,43,60,0,1,Quarter\n0,44100,41,64,0,2,Half\n")
    return tmp_path


def test_musicnet(musicnet: Path) -> None:
    rows = {row.recording: row for row in loaders.musicnet(musicnet)}
    assert len(rows) == 59
    assert rows["test_data/1"].split == "test"
    assert rows["test_data/1"].labels["instruments"] == "41 43"
    assert rows["test_data/1"].labels["notes"] == "2"
    assert rows["test_data/1"].labels["last_note_s"] == "1.00"
    other = rows["train_data/2"]
    assert other.split == "test" and other.labels["published_split"] == "train"
    rest = [row.split for row in rows.values() if row.labels["composer"] == "Mozart"]
    assert set(rest) == {"train", "validation", "calibration"}
    assert rows["train_data/3"].channels == 1


def test_musicnet_says_what_is_wrong(musicnet: Path) -> None:
    (musicnet / "train_labels/5.csv").write_text(LABELS_HEAD + "0,x,43,60,0,1,Quarter\n")
    with pytest.raises(InputError, match="not a whole number"):
        list(loaders.musicnet(musicnet))
    (musicnet / "train_labels/5.csv").unlink()
    with pytest.raises(InputError, match=r"5\.csv can't be read"):
        list(loaders.musicnet(musicnet))
    tone(musicnet / "test_data/999.wav", 0.01)
    with pytest.raises(InputError, match=r"999\.wav is not in"):
        list(loaders.musicnet(musicnet))
    empty = musicnet / "empty"
    empty.mkdir()
    (empty / "musicnet_metadata.csv").write_text(MUSICNET_HEAD)
    with pytest.raises(InputError, match="holds no train_data"):
        list(loaders.musicnet(empty))


def test_folder(tmp_path: Path) -> None:
    for i in range(30):
        tone(tmp_path / f"album{i % 10}/track {i}.flac", 0.02, 22050, 1)
    (tmp_path / "cover.png").write_bytes(b"x")
    single: list[Row] = list(loaders.folder(tmp_path, "mine", licence="CC0-1.0"))
    assert len(single) == 30 and len({row.work for row in single}) == 30
    assert single[0].recording == "album0/track 0" and single[0].licence == "CC0-1.0"
    assert single == list(loaders.folder(tmp_path, "mine", licence="CC0-1.0"))
    albums = list(loaders.folder(tmp_path, "mine", by_folder=True))
    assert len({row.work for row in albums}) == 10
    assert all(len({row.split for row in albums if row.work == work}) == 1 for work in {row.work for row in albums})
    with pytest.raises(InputError, match="holds no recording"):
        list(loaders.folder(tmp_path / "album0" / "none", "mine"))


def test_what_can_not_be_learnt_from_is_left_out_of_a_folder_with_its_reason(tmp_path: Path) -> None:
    tone(tmp_path / "good.wav", 0.1)
    tone(tmp_path / "one.wav", 1 / 44100)
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 1)), 44100)
    soundfile.write(tmp_path / "silent.flac", np.zeros(900), 44100)
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan]), 44100, subtype="FLOAT")
    (tmp_path / "broken.wav").write_bytes((tmp_path / "good.wav").read_bytes()[:20])
    left_out: list[tuple[Path, str]] = []
    rows = list(loaders.folder(tmp_path, "mine", left_out=left_out))
    assert [row.path for row in rows] == ["good.wav"]
    reasons = {path.name: reason for path, reason in left_out}
    assert reasons.pop("broken.wav").startswith("can't be read as audio (")
    assert reasons == {
        "nan.wav": "holds samples that are NaN or infinite",
        "none.wav": "holds no audio",
        "one.wav": "holds one sample",
        "silent.flac": "is silent",
    }
    (tmp_path / "good.wav").unlink()
    with pytest.raises(InputError, match=r"5 recordings, the first broken\.wav"):
        list(loaders.folder(tmp_path, "mine", left_out=[]))
    with pytest.raises(InputError, match=r"broken\.wav can't be opened as audio: .*Remove it"):
        list(loaders.folder(tmp_path, "mine"))
