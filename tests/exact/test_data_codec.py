"""Codec examples: patterns and levels are what they say, and a pure function of (seed, step, item)."""

import numpy as np
import pytest
import soundfile as sf
import soxr

from sfumato import preset
from sfumato.data import codec, loaders, manifest
from sfumato.data.crops import Crops
from sfumato.errors import InputError


@pytest.fixture
def data(tmp_path):
    generator = np.random.default_rng(0)
    for name, seconds in (("a", 2.0), ("b", 0.2)):
        folder = tmp_path / name
        folder.mkdir()
        sf.write(folder / f"{name}.wav", 0.05 * generator.standard_normal((round(44100 * seconds), 1)), 44100)
    return tmp_path, list(loaders.folder(tmp_path, "mine", licence="CC0-1.0"))


def build(data, name="rave-tiny", **changes):
    root, rows = data
    plan = preset.load(name)
    settings = plan.preset.data.model_copy(update=changes)
    return codec.examples(rows, root, root, "train", plan.config, settings, lambda *_: None)


def test_crops_come_at_the_level_that_was_drawn(data):
    crops = build(data)
    assert isinstance(crops, Crops)
    batch = crops.batch(0, 0, 16, 0, 1)["clean"]
    levels = 20 * np.log10(batch.square().mean(dim=(1, 2)).sqrt().numpy())
    assert (levels > codec.LEVELS_DB[0] - 0.01).all() and (levels < codec.LEVELS_DB[1] + 0.01).all()
    assert levels.std() > 2
    assert np.array_equal(crops.batch(0, 0, 16, 1, 2)["clean"], batch[8:])


def test_a_peak_never_leaves_full_scale(tmp_path):
    audio = np.zeros((44100, 1))
    audio[::2000] = 0.9  # far above its level
    sf.write(tmp_path / "peaks.wav", audio, 44100)
    rows = list(loaders.folder(tmp_path, "mine", licence="CC0-1.0"))
    crop = Crops(rows, tmp_path, 8000, 1, (-3.0, -3.0)).crop(0, 0, 0)
    assert np.abs(crop).max() == pytest.approx(1.0, abs=1e-4)


def test_patterns_hold_the_sounds_and_nothing_else(data):
    patterns = build(data, patterns=True)
    assert [sound.shape[1] for sound in patterns.sounds] == pytest.approx([88200, 8820], rel=0.01)
    ticks = codec.Patterns([np.ones((1, 1), np.float32)], 1000, 2000)
    windows = np.stack([ticks.item(0, i) for i in range(40)])
    onsets = (windows != 0).sum(axis=(1, 2))
    assert abs(onsets.mean() - codec.ONSETS_PER_S * 2) < 1.5  # 5 a second, for 2 seconds
    peaks = 20 * np.log10(np.abs(windows).max(axis=(1, 2)))
    assert peaks.min() > codec.PEAK_DB[0] - 0.01 and peaks.max() < codec.PEAK_DB[1] + 0.01


def test_no_pattern_is_silent():
    ticks = codec.Patterns([np.ones((1, 3), np.float32)], 1000, 200)  # a window in five has none at first
    windows = [ticks.item(0, i) for i in range(60)]
    peaks = 20 * np.log10([np.abs(window).max() + 1e-9 for window in windows])
    assert peaks.min() > codec.PEAK_DB[0] - 0.01
    assert all(np.array_equal(window, ticks.item(0, i)) for i, window in enumerate(windows))
    with pytest.raises(InputError, match="silent"):
        codec.Patterns([np.full((1, 3), 1e-6, np.float32)], 1000, 200).item(0, 0)


def test_a_sound_may_have_begun_before_its_window():
    rings = codec.Patterns([np.ones((1, 900), np.float32)], 1000, 1000)
    assert np.mean([rings.item(0, i)[0, 0] != 0 for i in range(20)]) > 0.8


def test_patterns_depend_on_seed_and_item_alone(data):
    patterns = build(data, patterns=True)
    whole = patterns.batch(3, 5, 4, 0, 1)["clean"]
    assert np.array_equal(patterns.batch(3, 5, 4, 1, 2)["clean"], whole[2:])
    assert not np.array_equal(patterns.batch(4, 5, 4, 0, 1)["clean"], whole)


def test_a_recording_of_another_rate_is_resampled_in_its_place(tmp_path):
    generator = np.random.default_rng(1)
    t = np.arange(3 * 48000) / 48000
    sweep = np.sin(2 * np.pi * (200 * t + 500 * t**2)) * (0.2 + 0.1 * np.sin(40 * t + generator.random()))
    sf.write(tmp_path / "sweep.wav", sweep, 48000, subtype="FLOAT")
    rows = list(loaders.folder(tmp_path, "mine", licence="CC0-1.0"))
    crops = Crops(rows, tmp_path, 9000, 1, sample_rate=44100)
    whole = soxr.resample(sweep, 48000, 44100)
    for item in range(5):
        _, start = crops.place(0, 0, item)
        np.testing.assert_allclose(crops.crop(0, 0, item)[0], whole[start : start + 9000], atol=2e-3)


def test_silence_is_refused(data, tmp_path):
    root, rows = data
    sf.write(tmp_path / "a" / "a.wav", np.zeros((44100, 1)), 44100)
    silent = [row for row in rows if manifest.Row.model_validate(row).recording.endswith("a")]
    with pytest.raises(InputError, match="holds a sound"):
        build((root, silent), patterns=True)
