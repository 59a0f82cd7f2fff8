"""Regions of time and frequency, and whole gaps by UASRM, from Python and from the command line."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from sfumato import cli, preset
from sfumato.errors import InputError
from sfumato.model import Card, Model, save
from sfumato.systems import conffusion, uasrm
from sfumato.tasks import gaps, methods, regions
from sfumato.tasks.repair import Result, Settings, repair
from sfumato.tasks.repair_file import repair_file
from sfumato.tasks.windows import Clip

RATE = 16000
REGION = (1.2, 1.6, 500.0, 2500.0)
METHODS = ("ar", "janssen", "aspain", "diffusion", "auto", "uasrm")


def music(seconds: float, channels: int = 1, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    partials = np.stack([np.sin(2 * np.pi * 220 * k * t + random.uniform(0, 6)) / k for k in (1, 2, 3, 5, 9)])
    mixed = random.uniform(0.3, 1.0, (channels, 5)) @ partials
    return 0.1 * mixed + 0.01 * random.standard_normal((channels, len(t)))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Untrained models by method."""
    torch.manual_seed(0)
    folders = {}
    for system, module in (("conffusion", conffusion), ("uasrm", uasrm)):
        config = preset.load(f"{system}-tiny").config
        network = module.build(config).eval().requires_grad_(False)
        folders[system] = str(tmp_path_factory.mktemp("models") / system)
        save(Model(f"{system}-tiny", system, config, network, Card()), Path(folders[system]))
    return {"diffusion": folders["conffusion"], "auto": folders["conffusion"], "uasrm": folders["uasrm"]}


def run(audio: np.ndarray, models: dict[str, str], method: str, gaps=None, boxes=(REGION,), **how) -> Result:
    how = {"draws": 2, "model": models.get(method), "method": method} | how
    return repair(audio, gaps, regions=boxes, sample_rate=RATE, settings=Settings(**how))


def bins(edit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Power of an edit of the whole clip in bins that the region doesn't touch, and in those it does."""
    grid = regions.Grid(0, edit.shape[-1], RATE)
    known = grid.known(regions.check([REGION], RATE, edit.shape[-1]))
    power = grid.forward(edit).abs().numpy() ** 2
    return power[..., known], power[..., ~known]


@pytest.mark.parametrize("method", METHODS)
def test_samples_outside_are_bit_identical_and_bins_outside_hardly_change(method: str, models: dict[str, str]) -> None:
    audio = music(3.0, channels=2)
    result = run(audio, models, method)
    start, stop = round(1.2 * RATE), round(1.6 * RATE)
    np.testing.assert_array_equal(result.audio[:, :start], audio[:, :start])
    np.testing.assert_array_equal(result.audio[:, stop:], audio[:, stop:])
    (part,) = result.regions
    assert not result.gaps and part.draws.shape[1:] == (2, stop - start)
    np.testing.assert_array_equal(result.audio[:, start:stop], part.draws[0])
    outside, inside = (power.sum() for power in bins(result.audio - audio))
    assert inside > 1e-3
    assert part.leak_db is not None and part.leak_db < -45
    assert 10 * np.log10(outside / (outside + inside)) == pytest.approx(part.leak_db, abs=0.5)


@pytest.mark.parametrize("method", ["ar", "janssen", "diffusion", "uasrm"])
def test_a_whistle_in_the_region_goes(method: str, models: dict[str, str]) -> None:
    audio, t = music(3.0), np.arange(3 * RATE) / RATE
    whistle = 0.3 * np.sin(2 * np.pi * 1300 * t) * (np.abs(t - 1.4) < 0.15)
    error = run(audio + whistle, models, method).audio - audio
    assert 10 * np.log10(np.mean(error**2) / np.mean(whistle**2)) < -6


def test_what_the_region_held_before_has_no_influence(models: dict[str, str]) -> None:
    audio, random = music(3.0), np.random.default_rng(3)
    box = regions.check([REGION], RATE, audio.shape[1])
    start, stop = regions.stretch(box)
    other = audio.copy()
    other[:, start:stop] += regions.confine(0.3 * random.standard_normal((1, stop - start)), box, RATE)
    for method in ("ar", "uasrm"):
        a, b = (run(x, models, method, draws=1).audio for x in (audio, other))
        assert 10 * np.log10(np.mean((a - b) ** 2) / np.mean((other - audio) ** 2)) < -25


@pytest.mark.parametrize("method", ["ar", "diffusion", "uasrm"])
def test_seeds(method: str, models: dict[str, str]) -> None:
    audio = music(3.0)
    one, again, other = (run(audio, models, method, seed=seed).audio for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3


def test_overlapping_regions_are_filled_together_and_their_order_does_not_matter(models: dict[str, str]) -> None:
    boxes = [REGION, (1.5, 1.8, 1000.0, 5000.0), (2.2, 2.4, 0.0, math.inf)]
    one, other = (run(music(3.0), models, "ar", boxes=given) for given in (boxes, boxes[::-1]))
    np.testing.assert_array_equal(one.audio, other.audio)
    assert [len(part.boxes) for part in one.regions] == [2, 1]
    assert one.regions[1].leak_db is None


@pytest.mark.parametrize("method", ["ar", "uasrm"])
def test_gaps_and_regions_in_one_run(method: str, models: dict[str, str]) -> None:
    """A gap beside the region is filled as well, and what it held reaches neither."""
    audio, loud = music(3.0), music(3.0)
    loud[:, round(1.62 * RATE) : round(1.7 * RATE)] = 9.0
    quiet, result = (run(x, models, method, gaps=[(1.62, 1.7)]) for x in (audio, loud))
    np.testing.assert_allclose(quiet.audio, result.audio, atol=1e-9)
    assert [(gap.kind, gap.method) for gap in result.gaps] == [(gaps.GIVEN, method)]
    assert len(result.regions) == 1 and np.abs(result.audio).max() < 1.0


def test_uasrm_fills_gaps_with_its_own_model_and_close_ones_each_alone(models: dict[str, str]) -> None:
    audio = music(3.0, channels=2)
    spoilt = audio.copy()
    for start, stop in ((1.0, 1.2), (1.23, 1.3)):
        spoilt[:, round(start * RATE) : round(stop * RATE)] = 5.0
    result = run(spoilt, models, "uasrm", gaps=[(1.0, 1.2), (1.23, 1.3)], boxes=())
    assert [gap.method for gap in result.gaps] == ["uasrm", "uasrm"] and not result.regions
    assert result.provenance["model"]["name"] == "uasrm-tiny"
    changed = np.flatnonzero((result.audio != spoilt).any(axis=0))
    assert (changed[0], changed[-1]) == (round(1.0 * RATE), round(1.3 * RATE) - 1)
    np.testing.assert_array_equal(
        result.audio[:, round(1.2 * RATE) : round(1.23 * RATE)], audio[:, round(1.2 * RATE) : round(1.23 * RATE)]
    )
    assert np.abs(result.audio).max() < 1.0


def test_each_method_has_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato import model

    monkeypatch.setattr(model, "load", lambda name: name)
    loaded = {name: methods.load_model(Settings(method=name)) for name in METHODS}
    nothing = dict.fromkeys(("ar", "janssen", "aspain"))
    assert loaded == nothing | {"diffusion": "conffusion", "auto": "conffusion", "uasrm": "uasrm"}
    assert methods.load_model(Settings(method="uasrm", model="mine")) == "mine"


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((1.6, 1.2, 500, 2500), "is empty"),
        ((1.2, 1.6, 2500, 500), "is empty"),
        ((1.2, 1.6, 9000, 9500), "not inside the audio"),
        ((2.8, 3.2, 500, 2500), "not inside the audio"),
        ((0.4, 0.6, 500, 2500), "overlaps the gap 0.5–0.7 s"),
        ((0.6, 0.65, 500, 2500), "overlaps the gap"),
        ((1.2, 1.6, 500), "seconds and Hz"),
        ((1.2, 1.6, 500, None), "seconds and Hz"),
    ],
)
def test_regions_that_cannot_be_filled_are_refused(box: tuple[float, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        repair(music(3.0), [(0.5, 0.7)], regions=[box], sample_rate=RATE, settings=Settings(method="ar"))


def test_a_region_may_touch_a_gap() -> None:
    touching = [(0.7, 0.9, 500.0, 2500.0)]
    result = repair(music(3.0), [(0.5, 0.7)], regions=touching, sample_rate=RATE, settings=Settings(method="ar"))
    assert len(result.gaps) == len(result.regions) == 1


def test_damage_is_looked_for_only_where_nothing_is_given() -> None:
    audio = music(3.0)
    audio[:, 8000:8800] = 0.0
    blocks = [(0, audio)]
    found = gaps.wanted_of(Clip(audio, RATE), None, (), iter(blocks))
    assert len(found.gaps) == 1 and not found.regions
    given = gaps.wanted_of(Clip(audio, RATE), None, [REGION], iter(blocks))
    assert not given.gaps and given.elsewhere == [(round(1.2 * RATE), round(1.6 * RATE))]


@pytest.mark.parametrize("method", ["ar", "uasrm"])
def test_silence_stays_silence(method: str, models: dict[str, str]) -> None:
    result = run(np.zeros((2, 3 * RATE)), models, method)
    assert not result.audio.any() and result.regions[0].leak_db is None


def test_models_of_other_systems_are_refused(models: dict[str, str]) -> None:
    for method, other in (("uasrm", "diffusion"), ("diffusion", "uasrm")):
        with pytest.raises(InputError, match=f"method {method} needs one of .*Add --method"):
            run(music(3.0), models, method, model=models[other])


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    return int(ended.value.code or 0)


def test_a_file_its_record_and_its_report(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out, report = tmp_path / "in.wav", tmp_path / "out.wav", tmp_path / "report"
    sf.write(source, music(3.0, channels=2).T, RATE, subtype="PCM_16")
    words = ("--region", "1.2:1.6:500:2500", "--region", "2.0:2.3:0:900", "--gap", "0.5:0.6", "--method", "uasrm")
    assert command("repair", source, out, *words, "--model", models["uasrm"], "--draws", 2, "--report", report) == 0
    shown = capsys.readouterr().out
    assert "500–2500 Hz" in shown and "no damage" not in shown.lower()
    record = json.loads((tmp_path / "out.wav.json").read_text())
    assert [(gap["kind"], gap["method"]) for gap in record["gaps"]] == [("given", "uasrm")]
    assert [[part[key] for key in ("start", "stop", "f_low", "f_high")] for part in record["regions"]] == [
        [1.2, 1.6, 500.0, 2500.0],
        [2.0, 2.3, 0.0, 900.0],
    ]
    for part in record["regions"]:
        assert part["method"] == "uasrm" and part["leak_db"] < -40 and part["seconds"] > 0
    assert record["provenance"]["model"]["name"] == "uasrm-tiny"
    assert {path.name for path in report.iterdir()} == {"repair.png", "report.json"} | {
        f"{name}-draw-{number}.wav" for name in ("gap-01", "region-01", "region-02") for number in (1, 2)
    }
    written, read = (sf.read(path, dtype="int16")[0] for path in (out, source))
    changed = np.flatnonzero((written != read).any(axis=1)) / RATE
    assert changed.size
    assert all(0.5 <= t < 0.6 or 1.2 <= t < 1.6 or 2.0 <= t < 2.3 for t in changed)


def test_the_json_on_standard_output_holds_the_regions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sf.write(tmp_path / "in.wav", music(2.0).T, RATE)
    words = ("--region", "1.2:1.6:500:2500", "--method", "ar", "--json")
    assert command("repair", tmp_path / "in.wav", tmp_path / "out.wav", *words) == 0
    printed = json.loads(capsys.readouterr().out)
    assert not printed["gaps"] and len(printed["regions"]) == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--region", "1.2:1.6:500"), 2, "is not start:stop:f_low:f_high"),
        (("--region", "1.2:1.6:500:2500", "--gaps", "auto"), 2, "not both"),
        (("--region", "1.2:1.6:2500:500"), 3, "is empty"),
        (("--region", "1.2:1.6:8000:9000"), 3, "not inside the audio"),
        (("--region", "1.2:1.6:500:2500", "--gap", "1.5:1.7"), 3, "overlaps the gap"),
    ],
)
def test_wrong_words_are_one_line_and_a_code(
    words: tuple[str, ...], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sf.write(tmp_path / "in.wav", music(2.0).T, RATE)
    assert command("repair", tmp_path / "in.wav", tmp_path / "out.wav", "--method", "ar", *words) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out.wav").exists()


def test_a_report_never_replaces_the_output(tmp_path: Path) -> None:
    sf.write(tmp_path / "in.wav", music(2.0).T, RATE)
    report = tmp_path / "report"
    report.mkdir()
    with pytest.raises(InputError, match="another folder for the report"):
        repair_file(
            tmp_path / "in.wav",
            report / "region-01-draw-1.wav",
            settings=Settings(method="ar"),
            report=report,
            regions=[REGION],
        )
