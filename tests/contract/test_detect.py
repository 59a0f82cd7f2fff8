"""`sfumato detect`: what it prints and returns, at any length, and what it refuses."""

import dataclasses
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

import sfumato
from sfumato import cli, preset
from sfumato.data import fill_traces, manifest
from sfumato.data.examples import DataSettings
from sfumato.data.manifest import Row
from sfumato.errors import CalibrationError, InputError, ModelError
from sfumato.model import load
from sfumato.signal.traces import HOP, RATE, traces
from sfumato.systems import fill_detector
from sfumato.tasks import detect as task
from sfumato.tasks.repair import Settings as RepairSettings

SLOW = 8000


def music(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    """Tones and noise, ``(2, samples)``."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    partials = np.stack([np.sin(2 * np.pi * 220 * k * time + random.uniform(0, 6)) / k for k in (1, 2, 3, 5)])
    return 0.15 * random.uniform(0.3, 1.0, (2, 4)) @ partials + 0.01 * random.standard_normal((2, len(time)))


DEMO = Path(__file__).resolve().parents[2] / "examples" / "only_300_stood_damaged.flac"
GAP = (2.699, 3.001)


@pytest.fixture(scope="module")
def filled() -> tuple[np.ndarray, tuple[float, float]]:
    """Six seconds of the demo with its dropout of 300 ms filled, and where."""
    audio, rate = sf.read(DEMO, start=round(5.3 * RATE), stop=round(11.3 * RATE), always_2d=True)
    assert rate == RATE
    result = sfumato.repair(audio.T, [GAP], sample_rate=RATE, settings=RepairSettings(draws=1))
    return result.audio, GAP


@pytest.fixture
def run(capsys, monkeypatch):
    """Run `sfumato detect` in this process: (exit code, stdout, stderr)."""

    def command(*arguments):
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        with pytest.raises(SystemExit) as ended:
            cli.main(["detect", *map(str, arguments)])
        return ended.value.code or 0, *capsys.readouterr()

    return command


def test_a_planted_fill_is_found_and_music_without_one_is_not_accused(filled):
    audio, (start, stop) = filled
    found = sfumato.detect(audio, sample_rate=RATE, alpha=0.05)
    assert found.clip_p <= 0.05 and len(found.segments) == 1
    (one,) = found.segments
    assert min(one.stop, stop) - max(one.start, start) > 0.5 * (max(one.stop, stop) - min(one.start, start))
    clean = sfumato.detect(audio[:, round(3.1 * RATE) :], sample_rate=RATE, alpha=0.05)
    assert clean.clip_p > 0.05 and clean.segments == ()


def test_the_result_is_the_same_every_time_and_from_a_file(filled, tmp_path):
    audio, _ = filled
    sf.write(tmp_path / "a.wav", audio.T, RATE, subtype="DOUBLE")
    first, again = (sfumato.detect(audio, sample_rate=RATE) for _ in range(2))
    assert first == again == sfumato.detect(tmp_path / "a.wav")


def test_json_holds_what_was_promised(run, filled, tmp_path):
    sf.write(tmp_path / "a.flac", filled[0].T, RATE)
    code, out, _ = run(tmp_path / "a.flac", "--alpha", "0.1", "--json")
    result = json.loads(out)
    assert code == 0 and {"clip_p", "segments", "least_p", "stretches", "model", "settings", "sfumato"} <= set(result)
    assert result["settings"]["alpha"] == 0.1 and len(result["model"]["sha256"]) == 64
    for one in result["segments"]:
        assert set(one) == {"start", "stop", "p"}
        assert 0 <= one["start"] < one["stop"] <= 6 and result["clip_p"] <= one["p"] <= 0.1
    code, out, _ = run(tmp_path / "a.flac")
    assert code == 0 and "0:02." in out and "the whole: p 0.0" in out


def test_clean_music_is_told_so(run, tmp_path):
    sf.write(tmp_path / "a.wav", music(4.0, SLOW).T, SLOW)
    code, out, err = run(tmp_path / "a.wav")
    assert (code, err) == (0, "") and "Nothing seems filled in (alpha 0.05)." in out


@pytest.mark.parametrize(
    ("audio", "rate"),
    [
        (music(task.SHORTEST_S, SLOW), SLOW),
        (music(11.0, 16000)[:1], 16000),
        (music(11.0, SLOW)[0], SLOW),
        (np.concatenate([music(4.0, 96000)] * 3), 96000),
        (music(65.0, SLOW)[:1], SLOW),
    ],
    ids=["shortest", "mono", "flat array", "six channels, 96 kHz", "two stretches"],
)
def test_any_length_rate_and_number_of_channels(audio, rate):
    found = sfumato.detect(audio, sample_rate=rate, alpha=0.2)
    seconds = np.shape(audio)[-1] / rate
    assert 0 < found.least_p <= found.clip_p <= 1
    assert found.n_stretches == (2 if seconds > task.STRETCH_S else 1)
    assert all(0 <= one.start < one.stop <= seconds + 0.01 and one.p <= 0.2 for one in found.segments)


def test_silence_is_not_suspicious():
    found = sfumato.detect(np.zeros((2, 4 * SLOW)), sample_rate=SLOW)
    assert found.clip_p == 1.0 and found.segments == ()


def test_what_cannot_be_looked_at_is_refused(run, tmp_path):
    with pytest.raises(InputError, match=r"lasts 1\.50 s; 2 s are needed"):
        sfumato.detect(music(1.5, SLOW), sample_rate=SLOW)
    with pytest.raises(InputError, match="int16"):
        sfumato.detect(np.zeros(4 * SLOW, np.int16), sample_rate=SLOW)
    with pytest.raises(InputError, match="sample_rate"):
        sfumato.detect(music(4.0, SLOW))
    with pytest.raises(InputError, match="NaN"):
        sfumato.detect(np.full(4 * SLOW, np.nan), sample_rate=SLOW)
    with pytest.raises(InputError, match="channels, samples"):
        sfumato.detect(music(4.0, SLOW).T, sample_rate=SLOW)
    for alpha in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="alpha"):
            sfumato.detect(music(4.0, SLOW), sample_rate=SLOW, alpha=alpha)
    with pytest.raises(InputError, match=r"A sample is \d\.\d+e\+199; full scale is 1"):
        sfumato.detect(1e200 * music(4.0, SLOW) / 0.9, sample_rate=SLOW)
    with pytest.raises(CalibrationError, match=r"alpha 0\.001 takes 999 clean pieces of music .* there are \d+\. Give"):
        sfumato.detect(music(4.0, SLOW), sample_rate=SLOW, alpha=0.001)
    (tmp_path / "a.wav").write_bytes(b"RIFF but no more")
    code, out, err = run(tmp_path / "a.wav")
    assert code == 3 and not out and err.startswith("error: ") and err.count("\n") == 1
    assert run(tmp_path / "nowhere.wav")[0] == 3
    assert run(tmp_path / "a.wav", "--alpha", "2")[0] == 2


def test_another_model_and_foreign_clean_scores_are_refused(tmp_path):
    with pytest.raises(ModelError, match="detects nothing"):
        task.load_detector("conffusion")
    config = fill_detector.Config()
    detector = load("detect")
    from sfumato.model import Model, save

    save(Model("mine", "fill_detector", config, fill_detector.build(config), detector.card), tmp_path / "mine")
    with pytest.raises(CalibrationError, match=r"clean\.yaml is missing"):
        task.load_detector(tmp_path / "mine")
    from sfumato.model import find

    (tmp_path / "mine" / "clean.yaml").write_bytes((find("detect") / "clean.yaml").read_bytes())
    with pytest.raises(CalibrationError, match="another detector"):
        task.load_detector(tmp_path / "mine")


@given(st.integers(3 * SLOW, 1000 * SLOW))
def test_stretches_cover_a_recording_and_overlap(n):
    parts = task.stretches(n, SLOW)
    assert parts[0][0] == 0 and parts[-1][1] == n
    lengths = {stop - start for start, stop in parts}
    assert max(lengths) <= task.STRETCH_S * SLOW and max(lengths) - min(lengths) <= 1
    for (_, stop), (start, _) in itertools.pairwise(parts):
        assert stop - start == round(2 * task.EDGE_S * SLOW)
    assert len(parts) == 1 or min(lengths) > 0.5 * task.STRETCH_S * SLOW


def test_segments_reach_from_their_peak_to_where_scores_have_fallen():
    votes = task.Reference([[score] for score in np.linspace(-9, 0, 99)])
    scores = np.full(100, -8.0)
    scores[20:30], scores[24] = -1.5, 3.0
    scores[60:63] = -0.5
    scores[80:90] = -1.5
    first, second = task.segments_of(scores, votes, 0.1)
    assert (first.start, first.stop) == pytest.approx((19.5 * HOP / RATE, 29.5 * HOP / RATE))
    assert first.p == pytest.approx(0.01) and second.p == pytest.approx(0.07)
    assert task.segments_of(scores, votes, 0.005) == []
    (only,) = task.segments_of(scores, dataclasses.replace(votes, windows=3), 0.1)
    assert only.p == pytest.approx(0.03), "three windows are looked at, and 3 × 0.07 is above 0.1"
    assert task.segments_of(scores, dataclasses.replace(votes, windows=5), 0.05)[0].p == pytest.approx(0.05)


def pieces(count: int, score: float) -> dict[str, tuple[float, ...]]:
    return {f"{score} {i}": (score,) for i in range(count)}


def test_a_recording_is_compared_with_windows_that_cover_it():
    table = {10.0: pieces(19, 1.0), 60.0: pieces(18, 2.0), 110.0: pieces(14, 3.0)}
    clean = task.Clean(model="0" * 64, recordings={}, mono=table, stereo={10.0: pieces(19, 4.0)})
    detector = task.Detector(load("detect"), clean)

    def compared(length_s: float, channels: int = 1) -> tuple[float, int, float]:
        found = detector.reference(channels, length_s)
        return found.pieces[0][0], found.windows, found.least_p

    assert [compared(seconds) for seconds in (3.0, 10.0)] == [(1.0, 1, 1 / 20)] * 2
    assert compared(10.1) == compared(60.0) == (2.0, 1, 1 / 19)
    assert compared(60.1) == compared(110.0) == (3.0, 1, 1 / 15)
    assert compared(119.5) == (2.0, 2, 2 / 19), "two short windows reach less than two long ones"
    assert compared(119.6) == (3.0, 2, 2 / 15), "windows overlap by half a second"
    assert compared(1e5) == (3.0, 914, 1.0)
    assert compared(3.0, 2) == (4.0, 1, 1 / 20) and compared(3.0, 6) == (1.0, 1, 1 / 20)


def test_of_clean_recordings_no_more_than_alpha_get_any_segment():
    """Recordings of three windows each, as calm or wild as the pieces are; a rule of single windows accuses many."""
    random = np.random.default_rng(0)
    accused = {1: 0, 3: 0}
    trials = 1500
    for _ in range(trials):
        own = task.Reference([[top] for top in random.standard_normal((79, 40)).max(axis=1)], windows=3)
        scores = random.standard_normal(3 * 40)
        for windows in accused:
            reference = dataclasses.replace(own, windows=windows)
            accused[windows] += bool(task.segments_of(scores, reference, 0.05))
    assert accused[3] <= 0.05 * trials + 2 * np.sqrt(0.05 * trials)
    assert accused[1] > 0.1 * trials


def test_segments_that_meet_where_stretches_do_are_one_with_the_p_value_of_its_higher_peak():
    first, second, third = (task.Segment(a, b, p) for a, b, p in ((1.0, 2.0, 0.04), (1.8, 2.5, 0.02), (2.6, 3.0, 0.03)))
    assert task._apart([third, second, first]) == [task.Segment(1.0, 2.5, 0.02), third]
    inner = task.Segment(1.2, 1.4, 0.01)
    assert task._apart([inner, first]) == [task.Segment(1.0, 2.0, 0.01)]
    reference = task.Reference([[score] for score in np.linspace(-9, 0, 99)])
    whole = np.full(60, -20.0)
    whole[20:30], whole[25] = -1.0, 3.0
    (uncut,) = task.segments_of(whole, reference, 0.2)
    halves = [task.segments_of(whole[:24], reference, 0.2), task.segments_of(whole[22:], reference, 0.2)]
    moved = [task._moved(one, 22 * HOP / RATE) for one in halves[1]]
    assert halves[0][0].p > uncut.p and task._apart([*halves[0], *moved]) == [uncut]


class Scripted(task.Detector):
    """Says 5 in the middle of every stretch that begins with a sample above 0."""

    def scores(self, audio: np.ndarray, sample_rate: int) -> np.ndarray:
        scores = np.full(100, -50.0)
        scores[50] = 5.0 if audio[0, 0] > 0 else -50.0
        return scores


def test_the_whole_is_judged_by_the_windows_that_cover_it(run, tmp_path):
    known = {str(i): (-9.0,) for i in range(99)}
    clean = task.Clean(model="0" * 64, recordings={}, mono={task.STRETCH_S: known}, stereo={})
    audio = np.full((1, 150 * SLOW), -0.1)
    starts = [start / SLOW for start, _ in task.stretches(audio.shape[1], SLOW)]
    audio[0, round(starts[1] * SLOW)] = 0.1
    detector = Scripted(load("detect"), clean)
    found = task.look(task.Clip(audio, SLOW), detector, task.Settings(), lambda *_: None)
    assert found.n_stretches == len(starts) == 3
    assert found.clip_p == found.least_p == pytest.approx(0.03)
    (one,) = found.segments
    assert one.p == found.clip_p and one.start == pytest.approx(starts[1] + 49.5 * HOP / RATE)
    found = task.look(task.Clip(audio, SLOW), detector, task.Settings(alpha=0.02), lambda *_: None)
    assert found.segments == () and found.clip_p == found.least_p > 0.02, "too long for this alpha"
    sf.write(tmp_path / "a.wav", np.tile(music(4.0, SLOW)[0], 100), SLOW)
    code, out, _ = run(tmp_path / "a.wav")
    assert code == 0 and "Nothing can be listed at alpha 0.05" in out and "alpha of" in out


def test_clean_pieces_were_in_no_other_split_and_not_trained_on():
    """The shipped record names pieces; none is one that the detector learnt from, unless of the calibration split."""
    clean = task.load_detector("detect").clean
    assert len(clean.stereo[task.STRETCH_S]) == len(clean.mono[task.STRETCH_S]) >= 30
    allowed = {"train", "calibration"}
    for work in clean.stereo[task.STRETCH_S]:
        split = manifest.split_of(work)
        assert split in allowed and (split == "calibration" or not fill_traces.fitted(work)), work


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of two recordings to train on and one to validate with."""
    root = tmp_path_factory.mktemp("built")
    names = ["a", "b", "c", "d"]
    assert {fill_traces.fitted(f"s/{name}") for name in names} == {True, False}
    for number, name in enumerate(names):
        sf.write(root / f"{name}.wav", music(9.0, SLOW, seed=number).T, SLOW)
        row = Row(
            source="s",
            recording=name,
            work=f"s/{name}",
            path=f"{name}.wav",
            sha256=f"{number:064d}",
            seconds=9.0,
            sample_rate=SLOW,
            channels=2,
            licence="CC0-1.0",
            split="validation" if name == "d" else "train",
        )
        manifest.append(root / "manifest.jsonl", row)
    return root


def test_the_tiny_preset_trains_on_its_own_examples_to_a_model_that_scores(data: Path, tmp_path: Path) -> None:
    fitted = preset.train(preset.load("detect-tiny"), data, tmp_path / "run", command="sfumato train detect-tiny")
    model = load(fitted.model)
    scores = fill_detector.logits(model.network, traces(music(3.0, RATE)))
    assert model.system == "fill_detector" and scores.shape == (3 * RATE // HOP + 1,) and np.isfinite(scores).all()
    rows = manifest.select(manifest.read(data / "manifest.jsonl"), "train")
    bank = fill_traces.examples(
        rows, data, tmp_path / "run" / "bank" / "train", "train", model.config, preset.load("detect-tiny").preset.data,
        lambda *_: None,
    )  # fmt: skip
    assert bank.filled.any(axis=1).tolist() == [True, True, False, False] * 2
    whole, halves = bank.batch(1, 2, 4, 0, 1), [bank.batch(1, 2, 4, rank, 2) for rank in range(2)]
    for key, value in whole.items():
        np.testing.assert_array_equal(np.concatenate([half[key] for half in halves]), value)


def test_recordings_held_back_for_clean_scores_are_not_trained_on(data: Path, tmp_path: Path) -> None:
    rows = manifest.select(manifest.read(data / "manifest.jsonl"), "train")
    held_back = [row for row in rows if not fill_traces.fitted(row.work)]
    with pytest.raises(InputError, match="No recording"):
        few = DataSettings(examples=1, processes=1)
        fill_traces.examples(held_back, data, tmp_path, "train", fill_detector.Config(), few, print)
