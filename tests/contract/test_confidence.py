"""What `--level` gives: promises from calibrated records, the files they go to, and refusals that say why."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from sfumato.config import dump_yaml
from sfumato.errors import CalibrationError
from sfumato.interval.record import values_at
from sfumato.model import Card, Model, load, save
from sfumato.networks import unet2d
from sfumato.systems import n_conffusion
from sfumato.tasks import confidence, repair
from sfumato.tasks.confidence import Measured, calibrate_interval, calibrate_quality, look, promises, true_levels
from sfumato.tasks.repair import Settings
from sfumato.tasks.repair_file import repair_file
from sfumato.tasks.windows import Clip, fill_group

RATE = 22050
GAP_EDGES_S = (0.05, 0.2)
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
    clean = music(seed)
    length = int(np.random.default_rng(seed).uniform(0.06, 0.19) * RATE)
    gap = (2 * RATE, 2 * RATE + length)
    damaged = clean.copy()
    damaged[:, gap[0] : gap[1]] = 0.0
    name, fill = repair.choose(SETTINGS, None, length / RATE)
    filled = fill_group(Clip(damaged, RATE), [gap], [gap], fill, seed=seed)
    seen = look(Clip(damaged, RATE), gap, [gap], filled, bounds)
    truth = true_levels(Clip(clean, RATE), gap, seen)
    distance = float(np.sqrt(np.mean((seen.filled_db - truth)[seen.counts] ** 2)))
    return Measured(f"r{seed}", f"{seed:064x}", RATE, seen, truth, {name: distance}, {name: seen.predicted_db})


@pytest.fixture(scope="module")
def clips(bounds: Model) -> list[Measured]:
    return [measured(seed, bounds) for seed in range(60)]


@pytest.fixture(scope="module")
def records(clips: list[Measured], bounds: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calibrations of the first 30 clips."""
    folder = tmp_path_factory.mktemp("calibrations")
    interval = calibrate_interval(
        clips[:30],
        bounds,
        level=0.8,
        delta=0.1,
        kind="wsr",
        gap_edges_s=GAP_EDGES_S,
        frequency_edges_hz=(0.0, 1000.0, RATE),
    )
    quality = calibrate_quality(clips[:30], bounds, level=0.8, settings=SETTINGS, gap_edges_s=GAP_EDGES_S)
    dump_yaml(interval, folder / "interval.yaml")
    dump_yaml(quality, folder / "quality.yaml")
    save(bounds, folder / "tiny")
    return folder


def promised(records: Path, settings: Settings = SETTINGS) -> confidence.Promises:
    return promises(0.8, settings, bounds=str(records / "tiny"), folder=records)


def test_bounds_hold_on_other_clips_and_never_cross(clips: list[Measured], records: Path) -> None:
    sure = promised(records)
    shares, held = [], []
    for clip in clips[30:]:
        where = {"gap_s": clip.seen.gap_s, "frequency_hz": clip.seen.frequency_hz}
        bounded = confidence.widened(clip.seen, values_at(sure.interval, where), 0.8)
        counts = clip.seen.counts
        assert (bounded.lower[counts] <= bounded.point[counts]).all()
        assert (bounded.point[counts] <= bounded.upper[counts]).all()
        assert np.isnan(bounded.lower[~counts]).all()
        shares.append(((bounded.lower <= clip.truth_db) & (clip.truth_db <= bounded.upper))[counts].mean())
        ratio = float(values_at(sure.quality, {"gap_s": clip.seen.gap_s}))
        held.append(clip.distance_db["ar"] <= ratio * clip.predicted_db["ar"])
    assert 0.78 < np.mean(shares) < 0.95
    assert np.mean(held) > 0.6


def test_a_repair_with_a_level_writes_what_it_promises(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sure = promised(records)
    monkeypatch.setattr("sfumato.tasks.repair_file.load_promises", lambda settings: sure)
    audio = music(99)
    audio[:, 2 * RATE : 2 * RATE + 2000] = 0.0
    sf.write(tmp_path / "in.wav", audio.T, RATE)
    gaps = [(2.0, 2.0 + 2000 / RATE), (0.1, 0.2)]
    outcome = repair_file(tmp_path / "in.wav", tmp_path / "out.wav", gaps, SETTINGS, tmp_path / "report")
    edge, inner = json.loads(outcome.json.read_text())["gaps"]
    assert "interval" not in edge and "end of the recording" in edge["refused"]
    assert inner["interval"] == {"domain": "band_level_db", "level": 0.8, "file": "out.wav.gap-02.npz"}
    assert inner["quality"]["metric"] == "band_distance_db" and inner["quality"]["upper"] > 0
    stored = np.load(tmp_path / inner["interval"]["file"])
    assert stored["lower"].shape == (len(stored["edges_hz"]) - 1, len(stored["time_s"]))
    assert 1.9 < stored["time_s"].min() < 2.0 < stored["time_s"].max() < 2.2
    assert outcome.picture is not None and outcome.picture.stat().st_size > 1000


def test_what_was_not_calibrated_is_refused(records: Path, bounds: Model) -> None:
    with pytest.raises(CalibrationError, match=r"Calibrated levels: 0\.8"):
        promises(0.99, SETTINGS, bounds=str(records / "tiny"), folder=records)
    other = promised(records, Settings(method="janssen", level=0.8))
    assert other.quality is None and "janssen" in other.reason and "ar" in other.reason
    audio = music(7)
    source, sure = Clip(audio, RATE), promised(records)

    def ask(gap: tuple[int, int], unknown: list[tuple[int, int]]) -> None:
        fill = repair.choose(SETTINGS, None, 0.1)[1]
        sure.of(source, gap, unknown, fill_group(source, [gap], unknown, fill, seed=0), SETTINGS)

    with pytest.raises(CalibrationError, match="A gap of 272"):
        ask((2 * RATE, 2 * RATE + 6000), [(2 * RATE, 2 * RATE + 6000)])
    with pytest.raises(CalibrationError, match="stand alone"):
        ask((2 * RATE, 2 * RATE + 2000), [(2 * RATE, 2 * RATE + 2000), (50000, 50010)])
    with pytest.raises(CalibrationError, match="was not calibrated"):
        torch.manual_seed(1)
        torch.nn.init.normal_(sure.bounds.network.last[-1].weight)
        changed = confidence.Promises(0.8, sure.bounds, sure.interval, sure.quality, "", "0" * 64)
        gap = (2 * RATE, 2 * RATE + 2000)
        fill = repair.choose(SETTINGS, None, 0.1)[1]
        changed.of(source, gap, [gap], fill_group(source, [gap], [gap], fill, seed=0), SETTINGS)
