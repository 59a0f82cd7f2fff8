"""Conffusion-Audio's steps end to end on a miniature of MAESTRO v3, with its own kind of JSON file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from sfumato import cli
from sfumato.config import load_yaml
from sfumato.data import loaders, manifest
from sfumato.errors import CalibrationError, InputError
from sfumato.interval import family
from sfumato.interval.record import Calibration
from sfumato.model import Card, Model, load, save
from sfumato.networks import unet2d
from sfumato.networks.cqt_unet import Config as CqtShape
from sfumato.pipeline import assess, excerpts, extract, finetune, seed_config
from sfumato.pipeline.split import split
from sfumato.systems import conffusion, cqtdiff
from sfumato.tasks import waveform
from sfumato.tasks.calibration import Measured
from sfumato.tasks.looks import Raw
from sfumato.train import TrainSettings

RATE = 8000
SECONDS = 13.5
GAP_MS = 60.0
COUNTS = {"train": 3, "validation": 2, "calibration": 10, "test": 6}
YEARS = {"train": 2018, "validation": 2017, "calibration": 2008, "test": 2018}
QUICK = ["--set", "steps=4", "--set", "batch_size=2", "--set", "warmup_steps=1"]


def table() -> list[dict[str, str]]:
    rows = []
    for part, count in COUNTS.items():
        for i in range(count):
            published = ("validation" if i % 2 else "test") if part == "calibration" else part
            rows.append({
                "canonical_composer": "Nobody", "canonical_title": f"{part} {i}", "split": published,
                "year": str(YEARS[part]), "midi_filename": "none.midi",
                "audio_filename": f"{YEARS[part]}/{part}-{i}.wav", "duration": f"{SECONDS}",
            })  # fmt: skip
    return rows


def write_csv(root: Path, rows: list[dict[str, str]]) -> None:
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    (root / "maestro-v3.0.0.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def maestro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Partials and noise, other ones in each recording, and one recording of the table that isn't there."""
    root = tmp_path_factory.mktemp("maestro-v3.0.0")
    rows = table()
    for number, row in enumerate(rows):
        random, path = np.random.default_rng(number), root / row["audio_filename"]
        path.parent.mkdir(exist_ok=True)
        t = np.arange(int(SECONDS * RATE)) / RATE
        tone = np.sin(2 * np.pi * random.uniform(100, 1500) * t) * np.exp(-np.mod(t, 0.5))
        audio = 0.1 * tone + 0.02 * random.standard_normal(len(t))
        soundfile.write(path, np.stack([audio, 0.5 * audio], axis=1), RATE)
    write_csv(root, [*rows, {**rows[0], "audio_filename": "2018/absent.wav"}])
    split(root)
    return root


@pytest.fixture(scope="module")
def inpainter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    shape = unet2d.Config(channels=1, condition_channels=7, widths=(8, 8, 8, 16), embedding=16, attention_heads=2)
    config = conffusion.Config(network=shape)
    network = conffusion.build(config).eval()
    torch.nn.init.normal_(network.last[-1].weight, std=0.05)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(Model("tiny", "conffusion", config, network, Card()), folder)
    return folder


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CQT-Diff+ in miniature."""
    torch.manual_seed(0)
    shape = CqtShape(
        sample_rate=4000, n_samples=8192, bins_per_octave=8, widths=(8, 8, 8), dilations=(1, 1, 1),
        attention=(False,) * 4, embedding=8,
    )  # fmt: skip
    config = cqtdiff.Config(network=shape)
    network = cqtdiff.build(config).eval()
    for name, value in network.named_parameters():
        if "leave" in name:
            value.data *= 0.05
    folder = tmp_path_factory.mktemp("models") / "painter"
    save(Model("painter", "cqtdiff", config, network, Card()), folder)
    return folder


def write_config(folder: Path, root: Path, model: Path, **train: object) -> Path:
    """A JSON file as the project has them, with its comments and with keys that mean nothing here."""
    parts = {
        part: {
            "which_dataset": {
                "name": ["data.dataset", "InpaintDataset"],
                "args": {
                    "data_root": f"{root}/splits/{part}/ground_truth",
                    "sampled_bounds_path": f"{folder}/{part}",
                    "data_len": -1, "sample_rate": 22050, "audio_len": 70560, "load_len": 405000,
                    "mask_config": {
                        "mask_mode": "long",
                        "long": {"gap_length": GAP_MS, "start_gap_idx": "none"},
                        "short": {"num_gaps": 4, "gap_length": 3000, "start_gap_idx": "none"},
                    },
                },
            },
            "dataloader": {"args": {"batch_size": 1, "num_workers": 0}},
        }
        for part in COUNTS
    }  # fmt: skip
    values = {
        "name": "tiny", "gpu_ids": [0], "seed": 3,
        "path": {"base_dir": f"{folder}/experiments", "resume_state": str(model)},
        "datasets": parts,
        "train": {"n_iter": 10000, "val_freq": 2, "print_freq": 2, **train},
        "wandb": {"project": "x"},
    }  # fmt: skip
    path = folder / "config.json"
    text = json.dumps(values, indent=4).replace('"gpu_ids"', '// the project\'s comments: "x"\n    "gpu_ids"')
    path.write_text(text)
    return path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(["conffusion", *map(str, words)])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_the_four_steps(
    maestro: Path, inpainter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "split", maestro)
    assert code == 0 and "21 recordings" in out
    config = write_config(tmp_path, maestro, inpainter)
    for part in COUNTS:
        code, out, err = run(capsys, "extract", "-c", config, "-p", part, "--draws", 4, "--steps", 2)
        assert code == 0 and f"{COUNTS[part]} made" in out, err
        assert "gpu_ids" in err and "datasets.*.which_dataset.args.load_len" in err and "resume_state" not in err
    assert len(list((tmp_path / "test" / "60").glob("*.npz"))) == COUNTS["test"]

    for target, out_folder in (("pinball", tmp_path / "experiments" / "tiny"), ("sampled", tmp_path / "student")):
        where = [] if target == "pinball" else ["--out", out_folder]
        code, out, _ = run(
            capsys, "finetune", "-c", config, "--target", target, "--start-from", inpainter, *QUICK, *where
        )
        assert code == 0 and "Step 4" in out
        model = load(out_folder)
        assert model.system == "n_conffusion" and model.config.target == target and model.card.seed == 3
        assert str(tmp_path) not in model.card.command
        assert len(json.loads((out_folder / "recordings.json").read_text())) == COUNTS["train"] + COUNTS["validation"]

    asked = ["test", "-c", config, "--bounds", tmp_path / "student", "--level", 0.5, "--delta", 0.4]
    code, out, err = run(capsys, *asked, "--json", "--to", tmp_path / "records")
    assert code == 0, err
    trials = json.loads(out)
    assert [(t["bounds"], t["rule"]) for t in trials] == [
        ("one pass", "clips"), ("one pass", "cells"), ("sampled", "clips"), ("sampled", "cells"),
    ]  # fmt: skip
    for trial in trials:
        assert (trial["gap_ms"], trial["n_calibration"], trial["n_test"]) == (60, 10, 6)
        assert 0 <= trial["covered_low"] <= trial["covered"] <= trial["covered_high"] <= 1
        assert 0 <= trial["held_low"] <= trial["held"] / 6 <= trial["held_high"] <= 1
        assert trial["width_db"] > 0 and trial["strata"]
    assert trials[0]["width_db"] > trials[1]["width_db"], "counting clips asks for more than counting cells"
    record = load_yaml(next((tmp_path / "records").glob("*.yaml")), Calibration)
    assert (record.level, record.n_clips, record.domain) == (0.5, 10, "band_level_db")
    code, out, _ = run(capsys, *asked)
    assert code == 0 and "60 ms" in out and "one pass" in out


def test_a_split_by_year_never_parts_a_piece(maestro: Path) -> None:
    rows = manifest.read(maestro / "manifest.jsonl")
    assert {part: len(manifest.select(rows, part)) for part in COUNTS} == COUNTS
    assert all((maestro / row.path).is_file() for row in rows)
    both = table()
    both[-1]["canonical_title"] = "calibration 0"  # played in 2008 for calibration, and in 2018 for the test
    write_csv(maestro, both)
    try:
        again = {row.recording: row.split for row in split(maestro)}
        assert again["2008/calibration-0"] == again["2018/test-5"] == "test"
        assert again["2008/calibration-2"] == "calibration"
        with pytest.raises(InputError, match="for calibration"):
            split(maestro, years=["1999"])
    finally:
        write_csv(maestro, table())
        split(maestro)


def test_the_table_as_json_says_the_same(maestro: Path, tmp_path: Path) -> None:
    rows = table()[:3]
    (tmp_path / "2018").symlink_to(maestro / "2018")
    columns = {name: {str(i): row[name] for i, row in enumerate(rows)} for name in rows[0]}
    columns["year"] = {number: int(year) for number, year in columns["year"].items()}
    (tmp_path / "maestro-v3.0.0.json").write_text(json.dumps(columns))
    with pytest.raises(InputError, match="lies outside"):  # of another folder; so it was found
        list(loaders.maestro(tmp_path))
    (tmp_path / "2018").unlink()
    with pytest.raises(InputError, match="can't be opened"):
        list(loaders.maestro(tmp_path))
    assert list(loaders.maestro(tmp_path, absent="leave out")) == []
    (tmp_path / "maestro-v3.0.0.json").write_text('{"canonical_composer": {"0": "x"}}')
    with pytest.raises(InputError, match="canonical_title"):
        list(loaders.maestro(tmp_path))


def test_folders_that_the_project_filled_are_read_as_they_are(maestro: Path, tmp_path: Path) -> None:
    moved = tmp_path / "splits" / "test" / "ground_truth"
    moved.mkdir(parents=True)
    (moved / "a.wav").write_bytes((maestro / "2018" / "test-0.wav").read_bytes())
    arguments = {"data_root": str(moved), "audio_len": 70560}
    config = seed_config.SeedConfig.model_validate({"datasets": {"test": {"which_dataset": {"args": arguments}}}})
    found = excerpts.locate(config, "test")
    assert [row.recording for row in found.rows] == ["a"]
    assert found.bounds == tmp_path / "splits" / "test" / "sampled_bounds"
    excerpt = excerpts.cut(found, found.rows[0], 100.0)
    assert excerpt is not None and excerpt.clean.n_samples == 25600 and excerpt.gap == (12400, 13200)
    whole = soundfile.read(moved / "a.wav")[0][10 * RATE :][:25600].mean(axis=1)
    np.testing.assert_allclose(excerpt.clean.audio[0], whole, atol=1e-6)
    with pytest.raises(InputError, match="not inside an excerpt"):
        excerpts.cut(found, found.rows[0], 9000.0)
    with pytest.raises(InputError, match="conffusion split"):
        excerpts.locate(config, "calibration")


def test_the_train_part_is_cut_as_calibration_is(maestro: Path, inpainter: Path, tmp_path: Path) -> None:
    config = seed_config.read(write_config(tmp_path, maestro, inpainter))
    train, calibration = excerpts.locate(config, "train"), excerpts.locate(config, "calibration")
    assert (train.gap_ms, train.bounds, len(train.rows)) == (GAP_MS, tmp_path / "train", COUNTS["train"])
    assert not {row.sha256 for row in train.rows} & {row.sha256 for row in calibration.rows}
    assert "datasets.train" in seed_config.unused(config)
    moved = tmp_path / "mine"
    moved.mkdir()
    (moved / "a.wav").write_bytes((maestro / "2018" / "test-0.wav").read_bytes())
    only = {"which_dataset": {"args": {"data_root": str(moved)}}}
    with pytest.raises(InputError, match="conffusion split"):  # never calibration's own folder
        excerpts.locate(seed_config.SeedConfig.model_validate({"datasets": {"calibration": only}}), "train")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"path": {"resume": "x"}}', r"unknown setting 'path.resume'. Did you mean 'resume_state'"),
        ('{"datasets": {"test": {"which_dataset": {"args": {"gap_length": 3}}}}}', r"'datasets\S*args.gap_length'"),
        ('{"gap_length": 250}', r"unknown setting 'gap_length'.*Possible here: datasets"),
        ('{"seed": "x"}', r"seed = x"),
        ('{"train": {"finetune_loss": "l3"}}', r"finetune_loss = l3.*quantile_regression"),
        ('{"name": ', r"is no JSON"),
        ("[1]", r"an object"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(text: str, match: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InputError, match=match):
        seed_config.read(tmp_path / "c.json")


def test_comments_end_a_line_but_not_an_address(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{ // one\n"name": "http://x", // two: "y"\n"seed": 7 }')
    config = seed_config.read(tmp_path / "c.json")
    assert (config.name, config.seed) == ("http://x", 7)
    assert seed_config.unused(config) == {}


def test_models_that_cannot_draw_are_refused(tmp_path: Path, inpainter: Path) -> None:
    (tmp_path / "maestro.pt").write_bytes(b"PK")
    for name in ("maestro", "maestro.pt"):
        with pytest.raises(InputError, match=r"sfumato models convert \S*maestro.pt \S*maestro`"):
            extract.model_of(str(tmp_path / name))
    with pytest.raises(InputError, match="no model"):
        extract.model_of(str(tmp_path / "none"))
    assert extract.model_of(str(inpainter)).name == "tiny"


def recordings(maestro: Path, tmp_path: Path, model: Path, part: seed_config.Part) -> excerpts.Recordings:
    config = seed_config.read(write_config(tmp_path, maestro, model))
    found = excerpts.locate(config, part)
    return dataclasses.replace(found, rows=found.rows[:2])


def with_gap_at(part: excerpts.Recordings, start_ms: float) -> excerpts.Recordings:
    """The same part, its configuration's gap elsewhere."""
    damage = part.arguments.mask_config
    moved = damage.model_copy(update={"long": seed_config.LongGap(gap_length=GAP_MS, start_gap_idx=start_ms)})
    return dataclasses.replace(part, arguments=part.arguments.model_copy(update={"mask_config": moved}))


def test_extracting_goes_on_where_it_was_stopped(maestro: Path, inpainter: Path, tmp_path: Path) -> None:
    part = recordings(maestro, tmp_path, inpainter, "test")
    sampling = extract.Sampling(load(inpainter), draws=3, steps=2, seed=5)

    def stop(done: int, total: int, text: str) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract.extract(part, [GAP_MS], sampling, stop)
    (first,) = part.files([GAP_MS])
    before = first.read_bytes()
    assert extract.extract(part, [GAP_MS], sampling) == {
        extract.MADE: 1, extract.THERE: 1, extract.SHORT: 0, extract.QUIET: 0,
    }  # fmt: skip
    assert first.read_bytes() == before
    kept = excerpts.kept(first)
    lower, middle, upper = kept.sampled_db[:, :, kept.flags[1]]
    assert (lower <= middle).all() and (middle <= upper).all() and (upper - lower).max() > 0.1
    np.testing.assert_array_equal(kept.levels[0][:, kept.flags[0]], kept.levels[1][:, kept.flags[0]])
    with pytest.raises(InputError, match="Choose another folder"):
        extract.extract(part, [GAP_MS], extract.Sampling(sampling.model, 3, 2, seed=6))


def test_draws_of_cqtdiff_are_kept_one_by_one(
    maestro: Path, painter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waveform.cqtdiff, "SHORT_GAPS", cqtdiff.Sampling(steps=3, sigma_min=0.02, fade=20))
    sampling = extract.Sampling(load(painter), draws=3, steps=1, seed=5)
    whole, broken = (recordings(maestro, folder, painter, "test") for folder in _two(tmp_path))
    said: list[str] = []
    extract.extract(whole, [GAP_MS], sampling, lambda done, total, text: said.append(text))
    assert any("3 of 3, draw 1 of 1, step 3 of 3" in text for text in said)

    def stop(done: int, total: int, text: str) -> None:
        if "3 of 3, draw" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract.extract(broken, [GAP_MS], sampling, stop)
    assert broken.files([GAP_MS]) == [] and len(list(broken.bounds.rglob("*.draws.npz"))) == 1
    again: list[str] = []
    extract.extract(broken, [GAP_MS], sampling, lambda done, total, text: again.append(text))
    assert not any("test-0" in text and "2 of 3, draw" in text for text in again), "drawn anew"
    for one, other in zip(whole.files([GAP_MS]), broken.files([GAP_MS]), strict=True):
        np.testing.assert_array_equal(excerpts.kept(one).sampled_db, excerpts.kept(other).sampled_db)
    assert not list(broken.bounds.rglob("*.draws.npz"))
    sampled = excerpts.kept(one).sampled_db
    assert (sampled[2] - sampled[0])[:, excerpts.kept(one).flags[1]].max() > 0.1


def _two(folder: Path) -> list[Path]:
    for name in ("a", "b"):
        (folder / name).mkdir()
    return [folder / "a", folder / "b"]


def test_what_a_promise_rests_on_is_not_taught(
    maestro: Path, inpainter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, maestro, inpainter)
    code, _, err = run(capsys, "finetune", "-c", config, "--start-from", inpainter, *QUICK)
    assert code == 3 and "conffusion extract -p train" in err and "--draws 0" in err
    assert run(capsys, "finetune", "-c", config, "-p", "calibration")[0] == 2
    part = recordings(maestro, tmp_path, inpainter, "calibration")
    with pytest.raises(InputError, match="calibration can't be taught"):
        lesson = finetune.Lesson("pinball", (GAP_MS,), str(inpainter))
        finetune.finetune(part, None, lesson, TrainSettings(steps=1), tmp_path / "out", "")
    assert run(capsys, "extract", "-c", config, "-p", "train", "--draws", 0)[0] == 0
    code, _, err = run(capsys, "finetune", "-c", config, "--target", "l2", "--start-from", inpainter, *QUICK)
    assert code == 3 and "no sampled bounds" in err
    code, _, err = run(capsys, "test", "-c", config, "--bounds", inpainter)
    assert code == 3 and "extract -p calibration --gap-length 60" in err


def clip(number: int, errors: np.ndarray, name: str = "", work: str = "") -> Measured:
    """A clip of unit widths whose errors are known."""
    zero = np.zeros((1, len(errors)))
    interval = family.Interval(zero - 1.0, zero, zero + 1.0)
    where = {"gap_s": np.asarray(0.06), "frequency_hz": np.full((1, 1), 500.0)}
    raw = Raw("band_level_db", interval, np.ones(zero.shape, dtype=bool), where, {})
    content = f"{number:064x}"
    return Measured(
        name or f"r{number}", content, RATE, 0.06, {assess.ONE_PASS: raw}, {"band_level_db": errors[None]}, {}, {},
        work=work,
    )  # fmt: skip


def test_counting_cells_promises_what_does_not_hold() -> None:
    """Clips whose cells err alike: 40 clips say little, 40 × 50 "independent" cells claim to say much."""
    model = Model("none", "none", seed_config.SeedConfig(), torch.nn.Identity(), Card())
    random = np.random.default_rng(0)

    def clips(first: int, count: int) -> list[Measured]:
        scale = np.exp(random.standard_normal(count))
        return [clip(first + i, scale[i] * random.standard_normal(50)) for i in range(count)]

    promise, test = assess.Promise(level=0.9, delta=0.1), clips(10_000, 400)
    failed = {"clips": 0, "cells": 0}
    for trial in range(20):
        trials, record = assess.assess(clips(100 * trial, 40), test, 60.0, model, promise)
        assert record.n_clips == 40
        for found in trials:
            failed[found.rule] += found.covered < 0.9
            assert found.covered_low < found.covered < found.covered_high
    assert failed["clips"] <= 2, "one in ten may fail"
    assert failed["cells"] >= 6


def test_the_same_recording_in_two_parts_is_refused() -> None:
    model = Model("none", "none", seed_config.SeedConfig(), torch.nn.Identity(), Card())
    known = [clip(i, np.linspace(-1, 1, 50)) for i in range(40)]
    with pytest.raises(CalibrationError, match="stand in two splits"):
        assess.assess(known, [clip(3, np.zeros(50), "copy")], 60.0, model, assess.Promise())
    with pytest.raises(CalibrationError, match="stand in two splits"):
        assess.assess(
            known, [clip(99, np.zeros(50))], 60.0, model, assess.Promise(),
            taught={"x": {"sha256": f"{7:064x}", "work": ""}},
        )  # fmt: skip


def test_performances_of_one_work_are_one_clip(maestro: Path, inpainter: Path, tmp_path: Path) -> None:
    part = recordings(maestro, tmp_path, inpainter, "test")
    rows = [row.model_copy(update={"work": "maestro/the same"}) for row in part.rows]
    part = dataclasses.replace(part, rows=tuple(rows))
    extract.extract(part, [GAP_MS], extract.Sampling(load(inpainter), draws=0, steps=1, seed=0))
    bounds = load("n_conffusion")
    chosen = {assess.measure(part, GAP_MS, bounds, seed=seed)[0].recording for seed in range(4)}
    assert len(chosen) == 2, "drawn by the seed"
    (only,) = assess.measure(part, GAP_MS, bounds)
    assert only.work == "maestro/the same"
    model = Model("none", "none", seed_config.SeedConfig(), torch.nn.Identity(), Card())
    twice = [clip(i, np.linspace(-1, 1, 50), work=f"w{i // 2}") for i in range(40)]
    with pytest.raises(CalibrationError, match="A work gives two clips"):
        assess.assess(twice, [clip(99, np.zeros(50))], 60.0, model, assess.Promise())


def test_another_performance_of_a_work_in_two_parts_is_refused() -> None:
    model = Model("none", "none", seed_config.SeedConfig(), torch.nn.Identity(), Card())
    known = [clip(i, np.linspace(-1, 1, 50), work=f"w{i}") for i in range(40)]
    with pytest.raises(CalibrationError, match="stand in two splits"):
        assess.assess(known, [clip(99, np.zeros(50), work="w3")], 60.0, model, assess.Promise())
    taught = {"x": {"sha256": "f" * 64, "work": "w99"}}
    with pytest.raises(CalibrationError, match="stand in two splits"):
        assess.assess(known, [clip(99, np.zeros(50), work="w99")], 60.0, model, assess.Promise(), taught=taught)


def test_no_clip_to_test_on_is_an_error_that_says_so() -> None:
    model = Model("none", "none", seed_config.SeedConfig(), torch.nn.Identity(), Card())
    known = [clip(i, np.linspace(-1, 1, 50)) for i in range(40)]
    with pytest.raises(CalibrationError, match="40 clips to calibrate on and 0 to test on"):
        assess.assess(known, [], 60.0, model, assess.Promise())


def test_what_a_model_learnt_from_is_known_wherever_it_is_named(
    maestro: Path, inpainter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = write_config(tmp_path, maestro, inpainter), tmp_path / "bounds"
    for part in ("validation", "calibration", "test"):
        assert run(capsys, "extract", "-c", config, "-p", part, "--draws", 0)[0] == 0
    teach = ["finetune", "-c", config, "--start-from", inpainter, "--out", out, *QUICK]
    code, said, _ = run(capsys, *teach, "-p", "validation")
    printed = Path(said.split("Model: ")[1].replace("\n", ""))
    assert code == 0 and printed.is_dir()
    learnt = finetune.taught_on(printed)
    assert len(learnt) == COUNTS["validation"] and finetune.taught_on(out) == learnt
    assert finetune.taught_on(tmp_path) == {}
    moved = printed.rename(tmp_path / "moved")
    assert finetune.taught_on(moved) == learnt
    listed = manifest.read(maestro / "manifest.jsonl")
    (maestro / "manifest.jsonl").unlink()
    try:  # what was taught becomes calibration
        for row in listed:
            now = "calibration" if row.split == "validation" else row.split
            manifest.append(maestro / "manifest.jsonl", row.model_copy(update={"split": now}))
        assert run(capsys, "extract", "-c", config, "-p", "calibration", "--draws", 0)[0] == 0
        asked = ["test", "-c", config, "--bounds", moved, "--level", 0.5, "--delta", 0.4]
        code, _, err = run(capsys, *asked)
        assert code != 0 and "stand in two splits" in err
    finally:
        split(maestro)
    assert run(capsys, "extract", "-c", config, "-p", "train", "--draws", 0)[0] == 0
    code, _, err = run(capsys, *teach)
    assert code == 3 and "was taught on other recordings" in err


def test_excerpts_that_are_not_what_was_asked_for_are_refused(
    maestro: Path, inpainter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part, bounds = recordings(maestro, tmp_path, inpainter, "train"), load("n_conffusion")
    sampling = extract.Sampling(load(inpainter), draws=2, steps=1, seed=0)
    extract.extract(part, [GAP_MS], sampling)
    lesson = finetune.Lesson("pinball", (GAP_MS,), str(inpainter))
    moved = with_gap_at(part, 1510.0)
    with pytest.raises(InputError, match="start_ms differ"):
        assess.measure(moved, GAP_MS, bounds)
    with pytest.raises(InputError, match="start_ms differ"):
        finetune.finetune(moved, None, lesson, TrainSettings(steps=1), tmp_path / "out", "")
    first, second = part.files([GAP_MS])
    was = second.read_bytes()
    second.write_bytes(first.read_bytes())
    with pytest.raises(InputError, match="recording differ"):
        assess.measure(part, GAP_MS, bounds)
    second.unlink()
    extract.extract(dataclasses.replace(part, rows=part.rows[1:]), [GAP_MS], dataclasses.replace(sampling, draws=3))
    with pytest.raises(InputError, match="Make all of a part alike"):
        assess.measure(part, GAP_MS, bounds)
    with pytest.raises(InputError, match="Make all of a part alike"):
        finetune.finetune(part, None, lesson, TrainSettings(steps=1), tmp_path / "out", "")
    second.write_bytes(was)
    assert len(assess.measure(part, GAP_MS, bounds)) == 2
    one, other = (clip(i, np.linspace(-1, 1, 50)) for i in range(2))
    other = dataclasses.replace(other, models={"fills": '{"draws": 3}'})
    model = Model("none", "none", seed_config.SeedConfig(), torch.nn.Identity(), Card())
    with pytest.raises(CalibrationError, match="Make them alike"):
        assess.assess([one], [other], GAP_MS, model, assess.Promise())
    code, _, err = run(
        capsys, "finetune", "-c", tmp_path / "config.json", "--start-from", inpainter, "--out", tmp_path / "few", *QUICK
    )
    assert code == 0 and "train, 60 ms: 1 of 3 recordings have no excerpt" in err


def test_data_len_says_what_a_worker_extracts_and_nothing_else(
    maestro: Path, inpainter: Path, tmp_path: Path
) -> None:
    path = write_config(tmp_path, maestro, inpainter)
    path.write_text(path.read_text().replace('"data_len": -1', '"data_len": 4'))
    config = seed_config.read(path)
    every = excerpts.locate(config, "calibration")
    assert len(every.rows) == COUNTS["calibration"]
    shares = [excerpts.locate(config, "calibration", worker=worker).rows for worker in range(3)]
    assert [len(share) for share in shares] == [4, 4, 2] and sum(shares, ()) == every.rows


def test_a_quiet_excerpt_is_left_out_and_the_others_made(maestro: Path, inpainter: Path, tmp_path: Path) -> None:
    part = recordings(maestro, tmp_path, inpainter, "test")
    for row in part.rows:
        (tmp_path / row.path).parent.mkdir(exist_ok=True)
        audio, rate = soundfile.read(maestro / row.path)
        if row is part.rows[0]:
            audio[9 * RATE :] = 0.0
        soundfile.write(tmp_path / row.path, audio, rate)
    part = dataclasses.replace(part, root=tmp_path)
    counts = extract.extract(part, [GAP_MS], extract.Sampling(load(inpainter), draws=2, steps=1, seed=0))
    assert counts == {extract.MADE: 1, extract.THERE: 0, extract.SHORT: 0, extract.QUIET: 1}
    assert part.files([GAP_MS]) == [part.file(part.rows[1], GAP_MS)]
