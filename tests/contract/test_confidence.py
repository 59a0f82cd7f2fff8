"""What `--level` gives: promises from calibrated records, the files they go to, and refusals that say why."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from sfumato.config import dump_yaml
from sfumato.errors import CalibrationError
from sfumato.interval.groups import Axis
from sfumato.interval.record import values_at
from sfumato.model import Card, Model, digest, load, save
from sfumato.networks import unet2d
from sfumato.systems import n_conffusion
from sfumato.tasks import looks
from sfumato.tasks.calibration import Measured, calibrate_interval, calibrate_quality
from sfumato.tasks.confidence import Promises, Sure, made_with, promises, widened
from sfumato.tasks.methods import choose
from sfumato.tasks.repair import Settings, repair
from sfumato.tasks.repair_file import repair_file
from sfumato.tasks.windows import Clip, fill_group

RATE = 22050
GAPS = Axis(name="gap_s", edges=(0.02, 0.05, 0.2))
FREQUENCIES = Axis(name="frequency_hz", edges=(0.0, 1000.0, RATE))
AXES = {
    "band_level_db": (GAPS, FREQUENCIES),
    "bin_level_db": (GAPS, FREQUENCIES),
    "waveform": (Axis(name="gap_s", edges=(0.02, 0.05)), Axis(name="edge_s", edges=(0.0, 0.03))),
}
SETTINGS = Settings(method="ar", draws=2, level=0.8)


@pytest.fixture(scope="module")
def bounds(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A bounds model with random weights, as it is read from its folder."""
    torch.manual_seed(0)
    network = unet2d.Config(condition_channels=7, widths=(8, 16), embedding=16, attention_heads=2)
    config = n_conffusion.Config(network=network)
    network = n_conffusion.build(config).eval()
    torch.nn.init.normal_(network.last[-1].weight, std=0.05)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(Model("tiny", "n_conffusion", config, network, Card()), folder)
    return load(folder)


def music(seed: int) -> np.ndarray:
    """Four seconds of coloured noise with a tone, in stereo."""
    random = np.random.default_rng(seed)
    t = np.arange(4 * RATE) / RATE
    noise = np.cumsum(random.standard_normal((2, len(t))), axis=1)
    noise -= np.apply_along_axis(lambda x: np.convolve(x, np.ones(500) / 500, "same"), 1, noise)
    return 0.05 * noise / noise.std() + 0.05 * np.sin(2 * np.pi * random.uniform(100, 2000) * t)


def measured(seed: int, bounds: Model) -> Measured:
    """Every domain of one gap; odd seeds have gaps short enough for the waveform."""
    clean = music(seed)
    span_s = (0.021, 0.049) if seed % 2 else (0.06, 0.19)
    length = int(np.random.default_rng(seed).uniform(*span_s) * RATE)
    gap = (2 * RATE, 2 * RATE + length)
    damaged = clean.copy()
    damaged[:, gap[0] : gap[1]] = 0.0
    source = Clip(damaged, RATE)
    filled = fill_group(source, [gap], [gap], choose(SETTINGS, None, length / RATE)[1], seed=seed)
    view = looks.view(source, gap, [gap], filled)
    seen = {"band_level_db": looks.band_bounds(view, bounds)}
    seen["bin_level_db"] = looks.bin_bounds(view, seen["band_level_db"])
    if seed % 2:
        seen["waveform"] = looks.waveform_bounds(source, gap, [gap])
    truth = {domain: looks.truth(Clip(clean, RATE), gap, raw) for domain, raw in seen.items()}
    bands = seen["band_level_db"]
    fill_db = np.maximum(view.levels(filled.draws[0]), bands.floor)
    distance = float(np.sqrt(np.mean((fill_db - truth["band_level_db"])[bands.counts] ** 2)))
    predicted = looks.predicted_distance_db(bands, fill_db)
    return Measured(f"r{seed}", f"{seed:064x}", RATE, length / RATE, seen, truth, {"ar": distance}, {"ar": predicted})


@pytest.fixture(scope="module")
def clips(bounds: Model) -> list[Measured]:
    return [measured(seed, bounds) for seed in range(80)]


@pytest.fixture(scope="module")
def records(clips: list[Measured], bounds: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calibrations on the first 40 clips."""
    folder, model = tmp_path_factory.mktemp("calibrations"), digest(bounds)
    for domain, axes in AXES.items():
        record = calibrate_interval(clips[:40], domain, axes, level=0.8, kind="crc", delta=None, model=model)
        dump_yaml(record, folder / f"{domain}.yaml")
    wsr = calibrate_interval(
        clips[:40], "band_level_db", AXES["band_level_db"], level=0.8, kind="wsr", delta=0.1, model=model
    )
    dump_yaml(wsr, folder / "wsr.yaml")
    made = made_with(SETTINGS, None)
    quality = calibrate_quality(clips[:40], "ar", GAPS, level=0.8, model=model, made_with=made)
    dump_yaml(quality, folder / "quality.yaml")
    save(bounds, folder / "tiny")
    return folder


def promised(records: Path, **changes: object) -> Promises:
    return promises(SETTINGS.model_copy(update=changes), bounds=load(records / "tiny"), folder=records)


@pytest.mark.parametrize("domain", AXES)
def test_bounds_hold_on_other_clips_and_never_cross(domain: str, clips: list[Measured], records: Path) -> None:
    sure = promised(records, domain=domain)
    shares = []
    for clip in clips[40:]:
        if domain not in clip.seen:
            continue
        bounded, counts = widened(clip.seen[domain], sure.interval), clip.seen[domain].counts
        assert (bounded.lower[counts] <= bounded.point[counts]).all()
        assert (bounded.point[counts] <= bounded.upper[counts]).all()
        assert np.isnan(bounded.lower[~counts]).all()
        truth = clip.truth[domain]
        shares.append(((bounded.lower <= truth) & (truth <= bounded.upper))[counts].mean())
    assert 0.78 < np.mean(shares) < 0.95


def test_a_guarantee_for_the_calibration_itself_is_wider(clips: list[Measured], records: Path) -> None:
    raw = clips[0].seen["band_level_db"]
    narrow, wide = (widened(raw, promised(records, guarantee=kind).interval) for kind in ("crc", "wsr"))
    counts = raw.counts
    assert ((wide.upper - wide.lower)[counts] >= (narrow.upper - narrow.lower)[counts]).all()
    assert (wide.upper - wide.lower)[counts].mean() > 1.05 * (narrow.upper - narrow.lower)[counts].mean()


def test_the_bound_on_quality_holds_as_often_as_promised(clips: list[Measured], records: Path) -> None:
    (record,) = promised(records).qualities
    ratios = [float(values_at(record, {"gap_s": clip.gap_s})) for clip in clips[40:]]
    held = [c.distance_db["ar"] <= r * c.predicted_db["ar"] for c, r in zip(clips[40:], ratios, strict=True)]
    assert 0.65 < np.mean(held) < 0.97


@pytest.mark.parametrize("domain", AXES)
def test_a_repair_with_a_level_writes_what_it_promises(
    domain: str, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sure = promised(records, domain=domain)
    monkeypatch.setattr("sfumato.tasks.repair_file.load_promises", lambda settings: sure)
    audio = music(99)
    audio[:, 2 * RATE : 2 * RATE + 900] = 0.0
    sf.write(tmp_path / "in.wav", audio.T, RATE)
    gaps = [(2.0, 2.0 + 900 / RATE), (0.1, 0.14)]
    settings = SETTINGS.model_copy(update={"domain": domain})
    outcome = repair_file(tmp_path / "in.wav", tmp_path / "out.wav", gaps, settings, tmp_path / "report")
    edge, inner = json.loads(outcome.json.read_text())["gaps"]
    assert "interval" not in edge and edge["refused"].keys() == {"interval", "quality"}
    assert all("end of the recording" in why for why in edge["refused"].values()) and "refused" not in inner
    assert inner["interval"] == {
        "domain": domain,
        "level": 0.8,
        "guarantee": "crc",
        "file": "out.wav.gap-02.npz",
    }
    assert inner["quality"].keys() == {"metric", "upper", "level", "guarantee"}
    assert inner["quality"]["metric"] == "band_distance_db" and 0.1 < inner["quality"]["upper"] < 60
    with np.load(tmp_path / inner["interval"]["file"]) as file:
        stored = dict(file)
    rows = {"band_level_db": 64, "bin_level_db": 513, "waveform": 2}[domain]
    assert stored["lower"].shape == stored["upper"].shape == stored["point"].shape == (rows, len(stored["time_s"]))
    assert 1.9 < stored["time_s"].min() < 2.02 < stored["time_s"].max() < 2.2
    assert outcome.picture is not None and outcome.picture.stat().st_size > 1000


def ask(
    sure: Promises,
    gap: tuple[int, int],
    others: tuple[tuple[int, int], ...] = (),
    method: str = "ar",
    domain: str = "band_level_db",
) -> Sure:
    settings = SETTINGS.model_copy(update={"method": method, "domain": domain})
    source, unknown = Clip(music(7), RATE), [gap, *others]
    filled = fill_group(source, [gap], unknown, choose(settings, None, 0.1)[1], seed=0)
    return sure.of(source, gap, unknown, filled, settings, None)


def test_what_was_not_calibrated_is_refused(records: Path) -> None:
    with pytest.raises(CalibrationError, match=r"level 0\.99 by crc\. Calibrated levels: 0\.8 by crc, 0\.8 by wsr"):
        promised(records, level=0.99)
    with pytest.raises(CalibrationError, match=r"bin_level_db for the level 0\.8 by wsr"):
        promised(records, domain="bin_level_db", guarantee="wsr")
    sure, gap = promised(records), (2 * RATE, 2 * RATE + 2000)
    whole = ask(sure, gap)
    assert whole.interval is not None and whole.quality is not None and not whole.refused
    other = ask(sure, gap, method="janssen")
    assert other.interval is not None and other.quality is None
    assert list(other.refused) == ["quality"] and "fills by janssen" in other.refused["quality"]
    assert "shipped model and defaults: ar" in other.refused["quality"]
    wave = ask(promised(records, domain="waveform"), gap, domain="waveform")
    assert wave.interval is None and wave.quality == whole.quality and list(wave.refused) == ["interval"]
    assert "beyond 50 ms phases can't be predicted" in wave.refused["interval"]
    for refused, reason in (
        (ask(sure, (2 * RATE, 2 * RATE + 6000)), "A gap of 272"),
        (ask(sure, gap, ((50000, 50010),)), "stand alone"),
        (ask(sure, (4 * RATE - 12000, 4 * RATE - 10000)), "within 1.5 s of an end"),
        (ask(Promises(0.8, sure.bounds, sure.interval, sure.qualities, "0" * 64), gap), "was not calibrated"),
    ):
        assert refused.interval is None and refused.quality is None
        assert refused.refused.keys() == {"interval", "quality"}
        assert all(reason in why for why in refused.refused.values())


def test_a_fill_longer_than_its_method_was_calibrated_for_keeps_its_interval(clips: list, records: Path) -> None:
    """Quality of a method known for short gaps only: a longer fill by it has an interval all the same."""
    made, model = made_with(SETTINGS.model_copy(update={"method": "janssen"}), None), digest(load(records / "tiny"))
    short = [replace(clip, distance_db={"janssen": clip.distance_db["ar"]}, predicted_db={"janssen": 1.0})
             for clip in clips[:40] if clip.gap_s < 0.05]  # fmt: skip
    quality = calibrate_quality(short, "janssen", GAPS, level=0.8, model=model, made_with=made)
    sure = replace(promised(records), qualities=(quality,))
    longer = ask(sure, (2 * RATE, 2 * RATE + 3000), method="janssen")
    assert longer.interval is not None and longer.quality is None
    assert longer.refused.keys() == {"quality"} and "possible: 20 to 50 ms" in longer.refused["quality"]


def test_what_an_older_run_wrote_and_this_one_does_not_is_removed(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what its own record and listing name: other files stay, whatever they are called."""
    sure = promised(records)
    monkeypatch.setattr("sfumato.tasks.repair_file.load_promises", lambda s: sure if s.level else None)
    sf.write(tmp_path / "in.wav", music(9).T, RATE)
    source, out, report = tmp_path / "in.wav", tmp_path / "out.wav", tmp_path / "report"
    strangers = [tmp_path / "other.wav.gap-01.npz", tmp_path / "out.wav.gap-07.npz", report / "gap-09-draw-1.wav"]
    repair_file(source, out, [(2.0, 2.1)], SETTINGS.model_copy(update={"draws": 4}), report)
    for path in strangers:
        path.write_bytes(b"mine")
    assert (tmp_path / "out.wav.gap-01.npz").exists() and (report / "gap-01-draw-4.wav").exists()
    repair_file(source, out, [(2.0, 2.1)], Settings(method="ar", draws=2), report)
    assert not (tmp_path / "out.wav.gap-01.npz").exists()
    left = {"gap-01-draw-1.wav", "gap-01-draw-2.wav", "gap-09-draw-1.wav", "repair.png", "report.json"}
    assert {path.name for path in report.iterdir()} == left
    assert all(path.read_bytes() == b"mine" for path in strangers)
    record = json.loads((tmp_path / "out.wav.json").read_text())
    record["gaps"][0]["interval"] = {"file": "../stranger.npz"}
    (tmp_path / "out.wav.json").write_text(json.dumps(record))
    (report / "report.json").write_text("no JSON")
    repair_file(source, out, [], Settings(method="ar"), report)
    assert {path.name for path in report.iterdir()} == left


@pytest.mark.parametrize("domain", ["band_level_db", "bin_level_db"])
def test_the_documented_check_counts_what_the_calibration_counts(
    domain: str, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The snippet of the document, on a recording whose truth is known: the same share as from `looks.truth`."""
    sure = promised(records, domain=domain)
    monkeypatch.setattr("sfumato.tasks.repair_file.load_promises", lambda settings: sure)
    monkeypatch.chdir(tmp_path)
    clean, gap = music(11), (2 * RATE, 2 * RATE + 2000)
    damaged = clean.copy()
    damaged[:, gap[0] : gap[1]] = 0.0
    sf.write("undamaged.flac", clean.T, RATE, subtype="PCM_24")
    sf.write("in.flac", damaged.T, RATE, subtype="PCM_24")
    settings = SETTINGS.model_copy(update={"domain": domain})
    repair_file("in.flac", "sure.flac", [(2.0, 2.0 + 2000 / RATE)], settings)
    text = (Path(__file__).resolve().parents[2] / "docs" / "confidence.md").read_text(encoding="utf-8")
    (snippet,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "sure.flac" in block)
    exec(compile(snippet, "docs/confidence.md", "exec"), {})
    source = Clip(damaged, RATE)
    filled = fill_group(source, [gap], [gap], choose(settings, None, 0.09)[1], seed=0)
    raw = looks.band_bounds(looks.view(source, gap, [gap], filled), sure.bounds)
    if domain == "bin_level_db":
        raw = looks.bin_bounds(looks.view(source, gap, [gap], filled), raw)
    bounded, truth = widened(raw, sure.interval), looks.truth(Clip(clean, RATE), gap, raw)
    share = ((bounded.lower <= truth) & (truth <= bounded.upper))[raw.counts].mean()
    said = re.fullmatch(r"([\d.]+)% of (\d+) levels inside\n", capsys.readouterr().out)
    assert said is not None and int(said[2]) == raw.counts.sum()
    assert float(said[1]) == pytest.approx(100 * share, abs=0.3)
    time_s = raw.axes["time_s"]
    assert -0.024 < time_s[0] - 2.0 < 0.0 < time_s[-1] - gap[1] / RATE < 0.024


BURST = 0.4 * np.tile(np.array([1.0, -1.0, 0.0, -1.0, 1.0, 0.0, 0.0]), 6)


@pytest.mark.parametrize(
    ("inside", "damage", "start_s", "stop_s"),
    [
        ("music", "dropout", 2.05, 2.3),
        ("zeros", "dropout", 2.1, 2.3),
        ("zeros", "dropout", 1.8, 2.0),
        ("music", "burst", 2.2, 2.205),
        ("zeros", "burst", 1.2, 1.205),
        ("noise", "zeros", 2.3, 2.31),
        ("uproar", "dropout", 2.11, 2.2),
    ],
)
def test_damage_that_was_not_listed_voids_a_promise(
    inside: str, damage: str, start_s: float, stop_s: float, records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A given gap is 2.0 to 2.1 s; a dropout that goes on beyond it, or a click or a hole near it, was not given."""
    sure = promised(records)
    monkeypatch.setattr("sfumato.tasks.repair.load_promises", lambda settings: sure)
    clean = music(5)
    alone = repair(clean, [(2.0, 2.1)], sample_rate=RATE, settings=SETTINGS).gaps[0]
    assert alone.interval is not None and alone.quality is not None and not alone.refused
    audio, hurt = clean.copy(), slice(round(start_s * RATE), round(stop_s * RATE))
    if inside != "music":
        n = round(2.1 * RATE) - 2 * RATE
        noise = np.random.default_rng(0).normal(0, 0.9 if inside == "uproar" else 0.1, n)
        audio[:, 2 * RATE : 2 * RATE + n] = 0.0 if inside == "zeros" else noise
    if damage == "burst":
        audio[:, hurt.start : hurt.start + len(BURST)] += BURST
    else:
        audio[:, hurt] *= 1e-3 if damage == "dropout" else 0.0
    gap = repair(audio, [(2.0, 2.1)], sample_rate=RATE, settings=SETTINGS).gaps[0]
    assert gap.interval is None and gap.quality is None
    assert gap.refused.keys() == {"interval", "quality"}
    (a, b) = re.search(r"other damage within 1\.5 s \(([\d.]+)–([\d.]+) s", gap.refused["interval"]).groups()
    low, high = (2.1, stop_s) if start_s < 2.1 < stop_s else (start_s, stop_s)
    assert abs(float(a) - low) < 0.01 and abs(float(b) - high) < 0.015


def test_the_own_damage_of_a_gap_is_no_other_damage(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given exactly, damaged any way; and what lies farther off than the window is none of its business."""
    sure = promised(records)
    monkeypatch.setattr("sfumato.tasks.repair.load_promises", lambda settings: sure)
    for damage in (0.0, 1e-3, np.nan):
        audio = music(5)
        audio[:, 2 * RATE : round(2.1 * RATE)] *= damage
        audio[:, round(0.2 * RATE) : round(0.25 * RATE)] = 0.0
        gap = repair(audio, [(2.0, 2.1)], sample_rate=RATE, settings=SETTINGS).gaps[0]
        assert gap.interval is not None and gap.quality is not None, (damage, gap.refused)


def test_too_few_clips_say_how_many_are_needed(clips: list[Measured], bounds: Model) -> None:
    with pytest.raises(CalibrationError, match="at least 4 are needed"):
        calibrate_interval(
            clips[:6], "band_level_db", AXES["band_level_db"], level=0.8, kind="crc", delta=None, model=digest(bounds)
        )


def test_a_recording_has_one_vote(clips: list[Measured], bounds: Model) -> None:
    with pytest.raises(CalibrationError, match="two clips to one range"):
        calibrate_interval(
            [*clips[:20], clips[3]], "band_level_db", AXES["band_level_db"], level=0.8, kind="crc", delta=None,
            model=digest(bounds),
        )


def test_where_nothing_is_heard_nothing_is_promised(records: Path) -> None:
    quiet, gap = 1e-4 * music(7), (2 * RATE, 2 * RATE + 2000)
    filled = fill_group(Clip(quiet, RATE), [gap], [gap], choose(SETTINGS, None, 0.1)[1], seed=0)
    sure = promised(records).of(Clip(quiet, RATE), gap, [gap], filled, SETTINGS, None)
    assert sure.interval is None and sure.quality is None and "next to no sound" in sure.refused["interval"]


def test_ranges_that_few_clips_reach_are_calibrated_together(clips: list[Measured], bounds: Model) -> None:
    """Half of the clips are too short for a centre 30 ms from both ends."""
    axes = (Axis(name="gap_s", edges=(0.02, 0.2)), Axis(name="edge_s", edges=(0.0, 0.03, 1.0)))
    made = {"level": 0.8, "kind": "crc", "delta": None, "model": digest(bounds)}
    record = calibrate_interval(clips[:40], "band_level_db", axes, **made)
    (edge, centre) = record.groups
    assert edge.value == centre.value and edge.n_clips == centre.n_clips == 40
    longer = [clip for clip in clips[:40] if clip.gap_s > 0.08]
    (edge, centre) = calibrate_interval(longer, "band_level_db", axes, **made).groups
    assert edge.value != centre.value
    assert (record.gap_min_s, record.gap_max_s) == (0.02, 0.2)
