"""UASRM from recordings to repaired audio: training by preset, examples, methods on gaps and regions."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from sfumato import preset
from sfumato.data import manifest, spectrograms
from sfumato.data.examples import DataSettings
from sfumato.data.manifest import Row
from sfumato.errors import InputError
from sfumato.model import Card, Model, load
from sfumato.systems import uasrm
from sfumato.tasks import spectrogram
from sfumato.tasks.regions import Box
from sfumato.tasks.windows import Clip

RATE = 8000
TINY = preset.load("uasrm-tiny").config
assert isinstance(TINY, uasrm.Config)


def music(seconds: float, channels: int = 2, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    partials = np.stack([np.sin(2 * np.pi * 220 * k * t + random.uniform(0, 6)) / k for k in (1, 2, 3, 5, 9)])
    return 0.2 * random.uniform(0.3, 1.0, (channels, 5)) @ partials + 0.01 * random.standard_normal((channels, len(t)))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of three recordings, one a split; that of the test split is not there at all."""
    root = tmp_path_factory.mktemp("built")
    for number, split in enumerate(("train", "validation", "test")):
        if split != "test":
            sf.write(root / f"{split}.wav", music(8.0, seed=number).T, RATE)
        row = Row(
            source="s",
            recording=split,
            work=f"s/{split}",
            path=f"{split}.wav",
            sha256=f"{number:064d}",
            seconds=8.0,
            sample_rate=RATE,
            channels=2,
            licence="CC0-1.0",
            split=split,
        )
        manifest.append(root / "manifest.jsonl", row)
    return root


@pytest.fixture(scope="module")
def untrained() -> Model:
    torch.manual_seed(0)
    return Model("tiny", "uasrm", TINY, uasrm.build(TINY).eval().requires_grad_(False), Card())


def test_the_tiny_preset_trains_to_a_model_that_loads_and_repairs(data: Path, tmp_path: Path) -> None:
    fitted = preset.train(preset.load("uasrm-tiny"), data, tmp_path / "run", command="sfumato train uasrm-tiny")
    assert fitted.step == 6
    model = load(fitted.model)
    assert model.system == "uasrm" and "s: 1 recordings" in model.card.data[0]
    assert not (tmp_path / "run" / "bank").exists()
    draws = spectrogram.fill_boxes(Clip(music(3.0), RATE), [Box(12000, 14000)], [], 1, 0, model)
    assert draws.shape == (1, 2, 2000) and np.isfinite(draws).all()


def test_examples_are_a_pure_function_of_seed_and_number(data: Path) -> None:
    rows = manifest.select(manifest.read(data / "manifest.jsonl"), "train")
    made = spectrograms.examples(rows, data, data, "train", TINY, DataSettings(), lambda *_: None)
    whole = made.batch(3, 5, 4, 0, 1)
    halves = [made.batch(3, 5, 4, rank, 2) for rank in (0, 1)]
    for key, value in whole.items():
        assert torch.equal(value, torch.cat([half[key] for half in halves]))
        assert value.shape == (4, 5 if key == "condition" else 1, 1024, 512)
    assert not torch.equal(whole["clean"], made.batch(4, 5, 4, 0, 1)["clean"])
    assert not torch.equal(whole["clean"], made.batch(3, 6, 4, 0, 1)["clean"])


def test_validation_examples_are_fixed_whatever_the_seed_of_the_training(data: Path) -> None:
    rows = manifest.select(manifest.read(data / "manifest.jsonl"), "validation")
    settings = DataSettings(validation_examples=2)
    made = spectrograms.examples(rows, data, data, "validation", TINY, settings, lambda *_: None)
    assert torch.equal(made.batch(0, 0, 2, 0, 1)["clean"], made.batch(9, 7, 2, 0, 1)["clean"])


def test_recordings_of_another_split_are_refused(data: Path) -> None:
    rows = manifest.read(data / "manifest.jsonl")
    with pytest.raises(InputError, match="not in the split train"):
        spectrograms.examples(rows, data, data, "train", TINY, DataSettings(), lambda *_: None)


def test_holes_are_as_long_as_promised_and_nothing_outside_the_recording_is_wanted() -> None:
    lengths, columns = [], 0
    for number in range(200):
        missing, inside = spectrograms.holes(uasrm.N_BINS, 44100, np.random.default_rng(number))
        assert missing.any() and not missing[:, ~inside].any()
        whole = missing.all(axis=0)
        columns += bool(whole.any())
        if whole.any() and inside.all():
            lengths.append(whole.sum() * 512 / 44100)
        assert (~missing.any(axis=0) & inside).sum() > 0.4 * inside.sum(), "context remains"
    assert 100 < columns < 190
    assert 0.25 < np.median(lengths) < 0.6 and max(lengths) < 2.1


def test_outside_the_stretch_nothing_is_returned_and_seeds_differ(untrained: Model) -> None:
    source = Clip(music(3.0), RATE)
    one, again, other = (
        spectrogram.fill_boxes(source, [Box(12000, 13000)], [], 2, seed, untrained) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-4 and np.abs(one[0] - one[1]).max() > 1e-4


def test_what_lies_in_the_gap_has_no_influence(untrained: Model) -> None:
    audio = music(3.0)
    damaged = audio.copy()
    damaged[:, 12000:13000] = 9.0
    damaged[0, 12100] = np.nan
    a, b = (spectrogram.fill_boxes(Clip(x, RATE), [Box(12000, 13000)], [], 1, 0, untrained) for x in (audio, damaged))
    np.testing.assert_allclose(a, b, atol=1e-12)


class Spy(torch.nn.Module):
    """Keeps what it is shown."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shown = x
        return torch.zeros_like(x[:, :1])


def test_other_damage_and_what_lies_outside_the_recording_are_not_known_to_the_network() -> None:
    audio, box, other = music(3.0, channels=1), [Box(12000, 13000)], (16000, 16100)
    audio[:, slice(*other)] = 9.0
    spy, source = Spy(), Clip(audio, RATE)
    spectrogram._predict_levels(source, box, [other], spy, TINY)
    grid = spectrogram.window_around(box, RATE)
    for frame in range(spy.shown.shape[3]):
        start = grid.start + frame * grid.hop_length - grid.n_fft // 2
        stop = start + grid.n_fft
        hit = any(start + 1 < b and stop > a for a, b in [(12000, 13000), other])
        expected = not hit and start >= 0 and stop <= source.n_samples
        assert bool(spy.shown[0, 1, :, frame].all()) == expected == bool(spy.shown[0, 1, :, frame].any()), frame
    assert 0 < float(spy.shown[0, 1].mean()) < 0.6
    quiet = audio.copy()
    quiet[:, slice(*other)] = 0.0
    shown = spy.shown
    spectrogram._predict_levels(Clip(quiet, RATE), box, [other], spy, TINY)
    torch.testing.assert_close(spy.shown, shown)


def test_the_fill_comes_near_the_levels_it_is_given(untrained: Model) -> None:
    """With the true levels in place of the network's, consistency brings the bins much nearer to the truth."""
    audio = music(3.0, channels=1)
    box, source = [Box(12000, 15000)], Clip(audio, RATE)
    grid = spectrogram.window_around(box, RATE)
    padded = np.zeros((1, grid.stop - grid.start))
    at = max(grid.start, 0)
    padded[:, at - grid.start : at - grid.start + audio.shape[1]] = audio[:, at : grid.stop]
    truth = uasrm.levels_db(grid.forward(padded)[0].numpy())
    first = 0.05 * np.random.default_rng(0).standard_normal((1, 1, 3000))
    fill = spectrogram.consistent(source, box, first, [truth])

    def distance(samples: np.ndarray) -> float:
        whole = padded.copy()
        whole[:, 12000 - grid.start : 15000 - grid.start] = samples[0]
        touched = ~grid.known(box)
        levels = uasrm.levels_db(grid.forward(whole)[0].numpy())
        return float(np.sqrt(np.mean((levels - truth)[touched] ** 2)))

    assert distance(fill) < 0.5 * distance(first)


def test_a_model_of_another_system_is_refused(untrained: Model) -> None:
    source = Clip(music(3.0), RATE)
    for model in (None, Model("x", "conffusion", DataSettings(), untrained.network, Card())):
        with pytest.raises(InputError, match="system uasrm"):
            spectrogram.fill_boxes(source, [Box(12000, 13000)], [], 1, 0, model)
