"""CQT-Diff+ as a method of repair: a small checkpoint with random weights, any rate, untouched samples, refusals."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.errors import InputError
from sfumato.model import Card, Model, load, save
from sfumato.networks.cqt_unet import Config as NetworkConfig
from sfumato.systems import cqtdiff
from sfumato.tasks import waveform
from sfumato.tasks.fill import Window, fill_ar
from sfumato.tasks.repair import Settings, repair

RATE = 22050
MODEL_RATE = 11025
QUICK = cqtdiff.Sampling(steps=4, sigma_min=0.02, fade=20)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 0.74 s at 11025 Hz."""
    torch.manual_seed(0)
    shape = NetworkConfig(
        sample_rate=MODEL_RATE, n_samples=8192, bins_per_octave=8, widths=(8, 8, 8), dilations=(1, 1, 1),
        attention=(False,) * 4, embedding=8,
    )  # fmt: skip
    config = cqtdiff.Config(network=shape)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    network = cqtdiff.build(config).eval()
    for name, value in network.named_parameters():
        if "leave" in name or name.startswith("middle_out"):
            value.data *= 0.05  # random weights would blow a fill up
    save(Model("tiny", "cqtdiff", config, network, Card()), folder)
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps instead of the paper's 35 or 70."""
    monkeypatch.setattr(waveform.cqtdiff, "SHORT_GAPS", QUICK)
    monkeypatch.setattr(waveform.cqtdiff, "Sampling", lambda: QUICK)


def music(seconds: float, rate: int = RATE) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    random = np.random.default_rng(0)
    return 0.2 * np.sin(2 * np.pi * 220 * t) * [[1.0], [0.5]] + 0.02 * random.standard_normal((2, len(t)))


@pytest.mark.parametrize("rate", [8000, MODEL_RATE, 44100])
def test_every_other_sample_stays_and_draws_differ(rate: int, tiny: Path) -> None:
    audio, said = music(1.5, rate), []
    settings = Settings(method="cqtdiff", model=str(tiny), draws=2)
    gap = (0.7, 0.75)
    result = repair(
        audio, [gap], sample_rate=rate, settings=settings, progress=lambda done, total, text: said.append(text)
    )
    (filled,) = result.gaps
    outside = np.ones(audio.shape[1], dtype=bool)
    outside[filled.start : filled.stop] = False
    np.testing.assert_array_equal(result.audio[:, outside], audio[:, outside])
    assert filled.method == "cqtdiff" and filled.draws.shape[:2] == (2, 2)
    assert np.isfinite(filled.draws).all() and np.abs(filled.draws[0] - filled.draws[1]).max() > 1e-3
    assert any("draw 2 of 2, step 4 of 4, 0 s left" in text for text in said)
    assert result.provenance["model"]["name"] == "tiny"


def test_a_draw_depends_on_its_number_and_the_seed_alone(tiny: Path) -> None:
    audio = music(1.5)[:1]

    def fill(draws: int, seed: int) -> np.ndarray:
        settings = Settings(method="cqtdiff", model=str(tiny), draws=draws, seed=seed)
        return repair(audio, [(0.7, 0.75)], sample_rate=RATE, settings=settings).gaps[0].draws

    one, two = fill(1, 3), fill(2, 3)
    np.testing.assert_array_equal(one[0], two[0])
    assert np.abs(fill(1, 4)[0] - one[0]).max() > 1e-3


def noise(level: float = 0.1, rate: int = 44100) -> Window:
    n, at = 8192 * rate // MODEL_RATE, 4000 * rate // MODEL_RATE
    known = np.ones(n, dtype=bool)
    known[at : at + rate // 15] = False
    x = np.where(known, level * np.random.default_rng(1).standard_normal(len(known)), 0.0)
    return Window(x, known, np.ones_like(known), ~known, rate, 5)


def test_at_the_models_rate_a_fill_is_what_the_model_paints(tiny: Path) -> None:
    window, model = noise(rate=MODEL_RATE), load(tiny)
    fill = waveform.fill_cqtdiff(window, 2, 7, model)
    x, known = torch.from_numpy(window.x), torch.from_numpy(window.known)
    gain = 0.063 / float(x[known].square().mean().sqrt())
    items = [5 * waveform.MAX_DRAWS, 5 * waveform.MAX_DRAWS + 1]
    for draw, item in zip(fill.draws, items, strict=True):
        painted = cqtdiff.inpaint(model.network, model.config, gain * x[None, None], known, QUICK, seed=7, items=[item])
        np.testing.assert_allclose(draw, painted[0, 0][~known].numpy() / gain, atol=1e-9)


def test_a_loud_window_is_filled_as_a_quiet_one_is(tiny: Path) -> None:
    quiet, loud = (waveform.fill_cqtdiff(noise(level), 1, 0, load(tiny)).draws[0] for level in (0.01, 1.0))
    np.testing.assert_allclose(loud, 100 * quiet, rtol=1e-2, atol=1e-2 * np.abs(loud).max())
    assert 0.1 < loud.std() < 3.0


def test_above_the_models_band_the_autoregressive_draw_goes_on(tiny: Path) -> None:
    window = noise()
    fill = waveform.fill_cqtdiff(window, 1, 0, load(tiny)).draws[0]
    ar = fill_ar(window, 1, 0, None).draws[0]
    assert np.abs(fill - ar).max() > 1e-2, "the model adds nothing"
    spectrum = np.abs(np.fft.rfft((fill - ar) * np.hanning(len(fill)))) ** 2
    hertz = np.fft.rfftfreq(len(fill), 1 / 44100)
    assert spectrum[hertz > 1.1 * MODEL_RATE / 2].sum() < 1e-4 * spectrum.sum()


def test_known_samples_map_to_the_models_rate() -> None:
    known = np.ones(1000, dtype=bool)
    known[400:500], known[700:720], known[:10] = False, False, False
    own = np.zeros_like(known)
    own[400:500] = True
    window = Window(np.zeros(1000), known, np.ones_like(known), own, 44100, 0)
    found = np.flatnonzero(~waveform._known_at(window, 22050, 500))
    assert set(range(200, 250)) <= set(found) and 199 not in found and 250 not in found
    assert set(range(350 - 22, 360 + 22)) <= set(found) and set(range(5 + 22)) <= set(found)
    assert len(found) == 50 + 54 + 27


def test_another_system_is_refused_and_the_way_is_said(tiny: Path) -> None:
    audio = music(1.5)
    with pytest.raises(InputError, match=r"conffusion is a model of the system conffusion.*sfumato models convert"):
        repair(audio, [(0.7, 0.75)], sample_rate=RATE, settings=Settings(method="cqtdiff", model="conffusion"))
    with pytest.raises(InputError, match=r"none was given.*sfumato models convert"):
        repair(audio, [(0.7, 0.75)], sample_rate=RATE, settings=Settings(method="cqtdiff"))
    with pytest.raises(InputError, match="none was given"):
        waveform.fill_cqtdiff(noise(), 1, 0, None)
    with pytest.raises(InputError, match=r"window of 0\.743"):
        repair(audio, [(0.2, 0.93)], sample_rate=RATE, settings=Settings(method="cqtdiff", model=str(tiny)))
