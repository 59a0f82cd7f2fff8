"""Crops are a pure function of their arguments and cover recordings evenly."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import stats

from sfumato.data.crops import Crops, read
from sfumato.data.manifest import Row
from sfumato.errors import InputError

RATE = 8000


def row(name: str, n: int, channels: int = 2, rate: int = RATE) -> Row:
    return Row(
        source="s",
        recording=name,
        work=f"s/{name}",
        path=f"{name}.wav",
        sha256="0" * 64,
        seconds=n / rate,
        sample_rate=rate,
        channels=channels,
        licence="CC0",
        split="train",
    )


@pytest.fixture
def crops(tmp_path: Path) -> Crops:
    """Two recordings whose samples tell their own position: left ramp up, right ramp down."""
    rows = []
    for name, n in (("a", 3000), ("b", 1000), ("short", 60)):
        ramp = (np.arange(n) + 1000) / 32768
        soundfile.write(tmp_path / f"{name}.wav", np.stack([ramp, -ramp], axis=1), RATE, subtype="PCM_16")
        rows.append(row(name, n))
    return Crops(rows, tmp_path, n_samples=100)


def test_a_crop_is_the_file_at_its_place(crops: Crops) -> None:
    for item in range(20):
        chosen, start = crops.place(1, 2, item)
        audio = crops.crop(1, 2, item)
        assert audio.shape == (2, 100)
        expected = (np.arange(start, start + 100) + 1000) / 32768
        np.testing.assert_allclose(audio, np.stack([expected, -expected]), atol=1e-7)
        assert start + 100 <= chosen.seconds * RATE


def test_batches_do_not_depend_on_the_number_of_processes(crops: Crops) -> None:
    whole = crops.batch(7, 3, 8, 0, 1)["clean"]
    parts = [crops.batch(7, 3, 8, rank, 4)["clean"] for rank in range(4)]
    assert np.array_equal(whole, np.concatenate(parts))
    assert not np.array_equal(whole, crops.batch(7, 4, 8, 0, 1)["clean"])
    assert not np.array_equal(whole, crops.batch(8, 3, 8, 0, 1)["clean"])
    with pytest.raises(InputError, match="can't be shared by 3"):
        crops.batch(7, 3, 8, 0, 3)


def test_every_start_is_equally_likely(crops: Crops) -> None:
    places = [crops.place(0, step, 0) for step in range(4000)]
    share = np.mean([chosen.recording == "a" for chosen, _ in places])
    assert share == pytest.approx(2901 / (2901 + 901), abs=0.03)
    assert {chosen.recording for chosen, _ in places} == {"a", "b"}
    starts = [start / 2901 for chosen, start in places if chosen.recording == "a"]
    assert stats.kstest(starts, "uniform").pvalue > 1e-3


def test_the_first_and_the_last_sample_can_be_drawn(tmp_path: Path) -> None:
    crops = Crops([row("tiny", 102)], tmp_path, n_samples=100)
    assert {crops.place(0, step, 0)[1] for step in range(60)} == {0, 1, 2}


def test_silence_is_drawn_again(tmp_path: Path) -> None:
    audio = np.zeros((1000, 1))
    audio[500:] = 0.1
    soundfile.write(tmp_path / "half.wav", audio, RATE)
    crops = Crops([row("half", 1000, channels=1)], tmp_path, n_samples=100, channels=1)
    loud = [np.abs(crops.crop(0, step, 0)).max() > 0 for step in range(40)]
    assert sum(loud) >= 38
    assert sum(crops.place(0, step, 0)[1] + 100 <= 500 for step in range(40)) > 5


def test_channels_are_doubled_or_averaged(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "m.wav", np.full((200, 1), 0.25), RATE)
    soundfile.write(tmp_path / "s.wav", np.tile([0.5, 0.25], (200, 1)), RATE)
    np.testing.assert_array_equal(read(tmp_path / "m.wav", 10, 20, 2), np.full((2, 10), 0.25))
    np.testing.assert_array_equal(read(tmp_path / "s.wav", 10, 20, 1), np.full((1, 10), 0.375))


def test_what_cannot_be_cut_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="different sample rates"):
        Crops([row("a", 900), row("b", 900, rate=16000)], tmp_path, 100)
    with pytest.raises(InputError, match="None of 1 recordings is 1000 samples"):
        Crops([row("a", 900)], tmp_path, 1000)
    with pytest.raises(InputError, match="None of 0"):
        Crops([], tmp_path, 1000)
    with pytest.raises(InputError, match="can't be read"):
        Crops([row("absent", 900)], tmp_path, 100).crop(0, 0, 0)
    soundfile.write(tmp_path / "cut.wav", np.zeros((50, 2)), RATE)
    with pytest.raises(InputError, match="has 50 samples"):
        Crops([row("cut", 900)], tmp_path, 100).crop(0, 0, 0)
    with pytest.raises(InputError, match="seed -1"):
        Crops([row("a", 900)], tmp_path, 100).place(-1, 0, 0)
