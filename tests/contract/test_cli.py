"""The command line: exit codes, one-line errors, and what is printed."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sfumato import cli, errors, model
from sfumato.data import inpainting, manifest
from sfumato.screen import show_outcome
from sfumato.tasks import repair as repair_task
from sfumato.tasks import repair_file


@pytest.fixture
def run(capsys, monkeypatch):
    """Run one command in this process: (exit code, stdout, stderr)."""

    def command(*arguments):
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main([str(word) for word in arguments])
        finally:
            signal.signal(signal.SIGTERM, before)
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return command


@pytest.fixture
def damaged(tmp_path):
    """Half a second of two tones with 20 ms of silence in them."""
    t = np.arange(11025) / 22050
    audio = 0.2 * np.sin(2 * np.pi * 440 * t) + 0.1 * np.sin(2 * np.pi * 1234.5 * t)
    audio[6000:6441] = 0.0
    path = tmp_path / "damaged.wav"
    sf.write(path, audio, 22050, subtype="PCM_16")
    return path


def test_help_names_every_command(run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for name in ("repair", "train", "data", "models"):
        assert f"  {name} " in out


def test_repair_has_a_flag_per_setting_with_its_description(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    code, out, _ = run("repair", "--help")
    assert code == 0
    for name, field in repair_task.Settings.model_fields.items():
        assert f"--{name}" in out
        assert field.description[:30] in " ".join(out.split())


def test_repair_finds_fills_and_reports(run, damaged, tmp_path):
    code, out, err = run("repair", damaged, tmp_path / "out.wav", "--method", "janssen", "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert [gap["method"] for gap in result["gaps"]] == ["janssen"]
    assert result["gaps"][0]["start"] == pytest.approx(6000 / 22050, abs=1e-3)
    assert json.loads((tmp_path / "out.wav.json").read_text())["provenance"]["settings"]["method"] == "janssen"
    before, after = sf.read(damaged)[0], sf.read(tmp_path / "out.wav")[0]
    assert np.array_equal(before[:5900], after[:5900])
    assert np.abs(after[6050:6400]).max() > 0.1


def test_given_gaps_and_settings_reach_the_task(run, damaged, tmp_path):
    words = ("--gap", "0.1:0.12", "--gap", "0.3:0.31", "--method", "ar", "--seed", "7", "--draws", "2")
    code, out, err = run("repair", damaged, tmp_path / "out.wav", *words)
    assert (code, err) == (0, "")
    assert "20.0 ms" in out
    assert "0:00.300" in out
    settings = json.loads((tmp_path / "out.wav.json").read_text())["provenance"]["settings"]
    assert (settings["method"], settings["seed"], settings["draws"]) == ("ar", 7, 2)


def test_nothing_to_repair_is_said(run, tmp_path):
    t = np.arange(22050) / 22050
    sf.write(tmp_path / "fine.wav", 0.3 * np.sin(2 * np.pi * 300 * t), 22050)
    code, out, _ = run("repair", tmp_path / "fine.wav", tmp_path / "out.wav")
    assert code == 0
    assert "No damage found" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--gap", "1-2"), 2, "'1-2' is no gap"),
        (("--gap", "a:b"), 2, "'a:b' is no gap"),
        (("--gap", "0.1:0.2", "--gaps", "auto"), 2, "not both"),
        (("--gap", "5:6"), 3, "not inside the audio"),
        (("--gap", "0.3:0.2"), 3, "ends before"),
        (("--gap", "nan:0.2"), 3, "nan"),
        (("--draws", "0"), 2, "draws = 0"),
        (("--draws", "many"), 2, "--draws = many: input should be a valid integer"),
        (("--level=much",), 2, "--level = much: input should be a valid number"),
        (("--level", "1"), 2, "level = 1"),
        (("--temperature", "2.5"), 2, "temperature = 2.5"),
        (("--domain", "band_level_db"), 2, "Without --level nothing is promised, so --domain has no effect"),
        (("--guarantee", "wsr"), 2, "so --guarantee has no effect"),
        (("--gap", "1:30:1:40:1"), 2, "is no gap"),
        (("--gap", "0:61:0:62"), 2, "is no gap"),
        (("--gap", "1:02:03.5"), 3, "Gap 1–123.5 s"),
        (("--model", "nope"), 3, "no model 'nope'"),
        (("--model", "uasrm", "--gap", "0.1:0.2"), 3, "Add --method uasrm"),
        (("--model", "n_conffusion"), 3, "which fills nothing"),
        (("--model", "nope", "--gap", "0.1:0.2"), 3, "no model 'nope'"),
    ],
)
def test_wrong_words_are_one_line_and_a_code(run, damaged, tmp_path, words, code, message):
    ended, out, err = run("repair", damaged, tmp_path / "out.wav", *words)
    assert (ended, out) == (code, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.wav"]


def test_gaps_are_read_as_the_table_prints_them(run, damaged, tmp_path):
    """0:00.300 and a gap's start in the table are the same words; mixed with seconds, as long as only one way fits."""
    starts = []
    for text in ("0.3:0.31", "0:00.300:0:00.310", "0:00.300:0.31", "0.3:0:00.310"):
        code, out, err = run("repair", damaged, tmp_path / "out.wav", "--gap", text, "--method", "ar", "--json")
        assert (code, err) == (0, "")
        starts.append([(gap["start"], gap["stop"]) for gap in json.loads(out)["gaps"]])
    assert starts == [starts[0]] * 4 and starts[0][0] == pytest.approx((0.3, 0.31), abs=1e-4)


def test_help_says_the_ranges(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    out = " ".join(run("repair", "--help")[1].split())
    for words in ("pasted (1 to 256)", "(above 0 and below 1)", "(0 to 2)", "same bytes (at least 0)"):
        assert words in out


@pytest.mark.parametrize("alpha", ["0", "1", "-0.1", "nan"])
def test_alpha_lies_between_0_and_1(run, damaged, alpha):
    code, out, err = run("detect", damaged, "--alpha", alpha)
    assert (code, out) == (2, "") and "alpha" in err
    assert "above 0 and below 1" in " ".join(run("detect", "--help")[1].split())


def test_promises_and_refusals_are_told_apart_in_order_of_time(capsys):
    both = {"interval": "too near", "quality": "too near"}
    sure = {"domain": "band_level_db", "level": 0.9, "guarantee": "crc", "file": "o.gap-02.npz"}
    bound = {"metric": "band_distance_db", "upper": 7.81, "level": 0.9, "guarantee": "conformal"}
    row = {"stop": 9.0, "kind": "given", "method": "ar", "seconds": 0.1}
    gaps = (
        row | {"start": 1.0, "refused": both},
        row | {"start": 3.0, "interval": sure, "refused": {"quality": "by janssen"}},
        row | {"start": 5.0, "quality": bound, "refused": {"interval": "phases"}},
    )
    region = row | {"start": 2.0, "f_low": 1, "f_high": 2, "leak_db": None, "refused": both}
    left = {"start": 4.0, "stop": 7.0, "kind": "zeros", "reason": "too long"}
    here = Path("o")
    show_outcome(repair_file.Outcome(here, here, None, (), gaps, (region,), (left,), False, 1.0))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("at 0", "left alone"))]
    assert lines == [
        "at 0:01.000: no interval and no bound on quality: too near",
        "at 0:02.000: no interval and no bound on quality: too near",
        "at 0:03.000: interval of band_level_db, 90% inside (crc): o.gap-02.npz",
        "at 0:03.000: no bound on quality: by janssen",
        "left alone at 0:04.000 (zeros): too long",
        "at 0:05.000: quality: band_distance_db at most 7.8 dB, chance 90%",
        "at 0:05.000: no interval: phases",
    ]


def test_damage_that_cannot_be_filled_is_not_no_damage(run, tmp_path):
    sf.write(tmp_path / "nan.wav", np.full(22050, np.nan), 22050, subtype="FLOAT")
    code, out, _ = run("repair", tmp_path / "nan.wav", tmp_path / "out.wav", "--method", "ar")
    assert code == 0
    assert "No damage found" not in out and "Damage was found that can't be filled; every sample is kept." in out
    assert "left alone at 0:00.000 (nan)" in out


@pytest.mark.parametrize("command", [("models", "list"), ("data", "list"), ("models", "show", "conffusion")])
def test_tables_in_a_pipe_are_not_wrapped(run, command, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    code, out, _ = run(*command)
    assert code == 0 and max(map(len, out.splitlines())) > 100
    assert all(line == line.rstrip() for line in out.splitlines())
    if command[1] == "list":
        rows = json.loads(run(*command, "--json")[1])
        assert len(rows) == len(out.splitlines()) - 1
        assert [row["name"] for row in rows] == [line.split()[0] for line in out.splitlines()[1:]]


@pytest.mark.parametrize("words", [("nonsense",), ("repair",), ("repair", "a", "b", "--nonsense"), ("train",)])
def test_usage_errors_exit_with_2(run, words):
    assert run(*words)[0] == 2


def test_an_output_that_cannot_be_written_exits_with_4(run, damaged, tmp_path):
    code, _, err = run("repair", damaged, damaged / "out.wav", "--method", "ar")
    assert code == 4
    assert err.startswith("error: ")


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [(MemoryError(), 4, "error: Memory ran out."), (KeyboardInterrupt(), 130, "")],
)
def test_memory_and_interrupts_have_their_codes(run, damaged, tmp_path, monkeypatch, raised, code, message):
    def fail(*arguments):
        raise raised

    monkeypatch.setattr(repair_file, "repair_file", fail)
    ended, _, err = run("repair", damaged, tmp_path / "out.wav")
    assert ended == code
    assert err.strip() == message


def test_sigterm_exits_with_143(run, damaged, tmp_path, monkeypatch):
    monkeypatch.setattr(repair_file, "repair_file", lambda *arguments: os.kill(os.getpid(), signal.SIGTERM))
    assert run("repair", damaged, tmp_path / "out.wav")[0] == 143


def test_a_bug_is_one_line():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, sfumato.cli as c\nsys.excepthook = c._one_line\n1 / 0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "error: unexpected ZeroDivisionError: division by zero (--debug shows the trace)\n"


def test_debug_lets_an_error_through(damaged, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(errors.SfumatoError, match="not inside"):
        cli.main(["repair", str(damaged), str(tmp_path / "out.wav"), "--gap", "5:6", "--debug"])
    signal.signal(signal.SIGTERM, before)


def test_sources_are_listed(run):
    code, out, _ = run("data", "list")
    assert code == 0
    assert "warzone2100" in out and "Warzone 2100 soundtracks" in out
    code, out, _ = run("data", "list", "--json")
    assert code == 0
    assert "warzone2100-music" in {source["package"] for source in json.loads(out)}


def test_an_unknown_source_is_refused(run, tmp_path):
    code, _, err = run("data", "fetch", "nonsense", "--to", tmp_path)
    assert code == 3
    assert "Choose from" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nonsense",), "Shipped presets: conffusion"),
        (("conffusion-tiny", "--set", "train.stepps=3"), "Did you mean 'steps'"),
        (("conffusion-tiny", "--set", "system=os"), "possible are: conffusion"),
        (("conffusion-tiny", "--set", "config.sigma_data=-1"), "sigma_data = -1"),
    ],
)
def test_a_wrong_preset_is_one_line(run, tmp_path, words, message):
    code, _, err = run("train", *words, "--data", tmp_path, "--out", tmp_path / "run")
    assert code == 3
    assert message in err
    assert err.count("\n") == 1


@pytest.fixture
def music(tmp_path):
    """A folder with a manifest of two short recordings of noise."""
    random = np.random.default_rng(0)
    rows = []
    for split in ("train", "validation"):
        sf.write(tmp_path / f"{split}.wav", 0.1 * random.standard_normal((5 * 16000, 2)), 16000)
        row = manifest.Row(
            source="toy",
            recording=split,
            work=f"toy/{split}",
            path=f"{split}.wav",
            sha256=manifest.sha256_of(tmp_path / f"{split}.wav"),
            seconds=5,
            sample_rate=16000,
            channels=2,
            licence="CC0-1.0",
            attribution="A. Nobody",
            split=split,
        )
        rows.append(row)
    manifest.write(tmp_path / "manifest.jsonl", rows)
    return tmp_path


def test_a_folder_without_a_split_says_what_is_there_and_what_is_needed(run, music, tmp_path):
    rows = manifest.read(music / "manifest.jsonl")
    manifest.write(music / "manifest.jsonl", [row.model_copy(update={"split": "test"}) for row in rows])
    code, _, err = run("train", "conffusion-tiny", "--data", music, "--out", tmp_path / "run")
    assert code == 3
    told = "2 recordings of 2 works (test 2 of 2)"
    assert all(words in err for words in (told, "the split train", "one work must be in train", "docs/data.md"))


def test_the_documented_manifest_of_own_recordings_is_complete(tmp_path, monkeypatch, capsys):
    """The snippet runs as it stands, and its splits are those it names."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    (snippet,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "loaders.folder" in block)
    monkeypatch.chdir(tmp_path)
    for album in ("album 1", "album 2", "album 3", "album 4"):
        (tmp_path / "recordings" / album).mkdir(parents=True)
        sf.write(tmp_path / "recordings" / album / "a.wav", np.zeros(8000), 8000)
    exec(compile(snippet, "docs/data.md", "exec"), {})
    rows = manifest.read(tmp_path / "recordings" / "manifest.jsonl")
    assert [row.split for row in rows] == ["train", "validation", "calibration", "test"]
    assert "mine" in capsys.readouterr().out


def test_extract_without_a_list_names_the_step_that_writes_it(run, tmp_path):
    code, _, err = run("conffusion", "extract", "--data", tmp_path)
    assert code == 3
    assert f"Write it with `sfumato conffusion split {tmp_path}`" in err


def test_an_interrupt_ends_the_workers_that_make_examples(music, tmp_path, monkeypatch):
    def interrupt(done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(inpainting, "SHARD", 1)
    rows, bank = manifest.read(music / "manifest.jsonl"), tmp_path / "bank"
    with pytest.raises(KeyboardInterrupt):
        inpainting.build_bank(rows, music, bank, count=60, seed=0, processes=1, progress=interrupt)
    assert 1 <= len(list(bank.glob("*.npz"))) < 60


def test_a_folder_of_sounds_trains_without_those_that_are_broken(run, tmp_path):
    data = tmp_path / "sounds"
    data.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        sf.write(data / f"hit{i}.wav", 0.5 * np.exp(-np.arange(900) / 200) * rng.uniform(-1, 1, 900), 8000)
    for i in range(7):
        (data / f"broken{i}.wav").write_bytes(b"RIFF0000WAVE")
    words = ("train", "dance-tiny", "--data", data, "--out", tmp_path / "run", "--set", "train.steps=1")
    code, _, err = run(*words)
    lines = err.splitlines()
    assert code == 0
    assert [line.split(" can't")[0] for line in lines[:5]] == [f"left out: {data / f'broken{i}.wav'}" for i in range(5)]
    assert lines[5:] == ["left out: 2 more"]
    for path in data.glob("hit*.wav"):
        path.unlink()
    code, _, err = run(*words)
    assert code == 3 and "7 recordings" in err


def test_train_makes_a_model_that_models_show_describes(run, music, tmp_path):
    out = tmp_path / "run"
    changes = (
        "train.steps=3",
        "train.batch_size=2",
        "data.examples=2",
        "data.validation_examples=2",
        "data.processes=1",
        f"data.bank={tmp_path / 'bank'}",
    )
    words = [word for change in changes for word in ("--set", change)]
    code, text, err = run("train", "conffusion-tiny", "--data", music, "--out", out, *words)
    assert (code, err) == (0, "")
    assert f"Step 3, stopped by steps. Model: {out / 'model'}" in text
    trained = model.load(out / "model")
    assert trained.name == "conffusion-tiny"
    assert trained.card.data == ("toy: 1 recordings, A. Nobody (CC0-1.0)",)
    assert trained.card.command.startswith("sfumato train conffusion-tiny --data DIR --set train.steps=3 ")
    assert trained.card.command.endswith(" --set data.bank=DIR") and str(tmp_path) not in trained.card.command
    code, text, _ = run("models", "show", out / "model")
    assert code == 0
    assert "A. Nobody" in text
    assert "conffusion-tiny" in text
    assert run("models", "list")[0] == 0
