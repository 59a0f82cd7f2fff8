"""Raw intervals against what they should be by theory: Gaussian noise, whose posterior is known."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato.errors import CalibrationError
from sfumato.interval import family
from sfumato.model import load
from sfumato.tasks import looks, routing
from sfumato.tasks.methods import choose
from sfumato.tasks.repair import Settings, repair
from sfumato.tasks.windows import Clip, Filled, fill_group

RATE = 22050
SETTINGS = Settings(method="ar", draws=2)


def coloured(seed: int) -> np.ndarray:
    """Four seconds of a second-order autoregressive process, resonant at 2.2 kHz."""
    from scipy.signal import lfilter

    return 0.05 * lfilter([1.0], [1.0, -1.5, 0.9], np.random.default_rng(seed).standard_normal((1, 4 * RATE)))


def with_gap(audio: np.ndarray, length: int) -> tuple[Clip, tuple[int, int]]:
    gap = (2 * RATE, 2 * RATE + length)
    damaged = audio.copy()
    damaged[:, gap[0] : gap[1]] = 0.0
    return Clip(damaged, RATE), gap


def test_the_closed_form_interval_of_the_waveform_covers_nearly_nine_tenths() -> None:
    """Nearly: a long model fitted to a short context takes its errors for too small, which calibration makes up for."""
    inside = []
    for seed in range(30):
        audio = coloured(seed)
        source, gap = with_gap(audio, 800)
        raw = looks.waveform_bounds(source, gap, [gap])
        truth = looks.truth(Clip(audio, RATE), gap, raw)
        np.testing.assert_array_equal(truth, audio[:, gap[0] : gap[1]])
        inside.append(((raw.interval.lower <= truth) & (truth <= raw.interval.upper)).mean())
        width = (raw.interval.upper - raw.interval.lower)[0]
        assert width[0] < 0.6 * width[400] and width[-1] < 0.6 * width[400]  # sure at the edges
    assert np.mean(inside) == pytest.approx(0.85, abs=0.03)


def test_long_gaps_have_no_interval_on_the_waveform() -> None:
    source, gap = with_gap(coloured(0), 3000)
    with pytest.raises(CalibrationError, match="gap of 136 ms can't be bounded: beyond 50 ms"):
        looks.waveform_bounds(source, gap, [gap])


def test_bins_of_noise_of_known_level_follow_rice() -> None:
    """Band levels are handed over without any uncertainty; what is left is the fading of bins.

    A little less than nine tenths: how a band's power is spread over its bins is estimated from one draw.
    """
    inside = []
    for seed in range(8):
        audio = 0.05 * np.random.default_rng(seed).standard_normal((1, 4 * RATE))
        source, gap = with_gap(audio, 8000)
        filled = fill_group(source, [gap], [gap], choose(SETTINGS, None, 0.3)[1], seed=seed)
        view = looks.view(source, gap, [gap], filled)
        level = view.grid.levels(audio[0, : view.grid.n_samples])[:, 20:-20].mean(axis=1)
        known = np.broadcast_to(level[:, None], (len(level), view.grid.n_frames))
        bands = looks.band_interval(view, known, known, known)
        raw = looks.bin_bounds(view, bands)
        truth = looks.truth(Clip(audio, RATE), gap, raw)
        inner = view.edge_s > 0.03
        hit = (raw.interval.lower <= truth) & (truth <= raw.interval.upper)
        inside.append(hit[20:-20, inner].mean())
    assert np.mean(inside) == pytest.approx(0.87, abs=0.03)


def test_quantiles_of_a_bin_are_those_of_a_constant_plus_complex_noise() -> None:
    random = np.random.default_rng(0)
    noise = (random.standard_normal(200_000) + 1j * random.standard_normal(200_000)) / np.sqrt(2.0)
    for ratio in (0.01, 1.0, 30.0, 1e8):
        power = 4.0 * np.abs(np.sqrt(ratio) + noise) ** 2
        expected = 10.0 * np.log10(np.quantile(power, (0.05, 0.5, 0.95)))
        found = looks.rice_db(np.array([4.0 * ratio]), np.array([4.0]))
        np.testing.assert_allclose(np.ravel(found), expected, atol=0.1)


def test_the_expected_distance_counts_departure_and_width() -> None:
    point = np.full((2, 3), -30.0)
    raw = family.from_bounds(point - 3.2898, point, point + 3.2898)  # 90 % of a normal deviation of 2 dB
    bands = looks.Raw("band_level_db", raw, np.ones((2, 3), dtype=bool), {}, {}, -90.0)
    assert looks.predicted_distance_db(bands, point) == pytest.approx(2.0)
    assert looks.predicted_distance_db(bands, point + 1.5) == pytest.approx(2.5)
    floored = looks.Raw("band_level_db", raw, bands.counts, {}, {}, -30.0)
    assert looks.predicted_distance_db(floored, point - 50.0) == pytest.approx(1.0)


def fills_of(source: Clip, gap: tuple[int, int]) -> tuple[Filled, Filled]:
    """The posterior's mean, as a mixture of little random part nearly is, and a draw."""
    draw = fill_group(source, [gap], [gap], choose(SETTINGS, None, 0.03)[1], seed=0)
    assert draw.source is not None
    return Filled(draw.source[:1], draw.source), draw


def test_where_no_waveform_can_be_kept_the_better_fill_is_taken() -> None:
    bounds = load("n_conffusion")
    noise = 0.05 * np.random.default_rng(1).standard_normal((1, 4 * RATE))
    source, gap = with_gap(noise, 900)
    mean, draw = fills_of(source, gap)
    assert routing.predictability_db(mean, np.zeros((1, 1))) < -3.0
    assert routing.better(source, gap, [gap], "ar mean", mean, {"ar": lambda: draw}, bounds)[0] == "ar"
    assert routing.better(source, gap, [gap], "ar", draw, {"silence": lambda: mean}, bounds)[0] == "ar"


def test_direct_current_predicts_no_waveform() -> None:
    noise = 0.05 * np.random.default_rng(1).standard_normal((1, 4 * RATE)) + 0.2
    source, gap = with_gap(noise, 900)
    mean, draw = fills_of(source, gap)
    assert routing.predictability_db(mean, np.zeros((1, 1))) > 3.0
    assert routing.better(source, gap, [gap], "ar mean", mean, {"ar": lambda: draw}, load("n_conffusion"))[0] == "ar"


def test_where_the_waveform_is_predicted_it_is_kept() -> None:
    tone = 0.1 * np.sin(2 * np.pi * 440.0 * np.arange(4 * RATE) / RATE)[None]
    tone = tone + 1e-4 * np.random.default_rng(0).standard_normal(tone.shape)
    source, gap = with_gap(tone, 900)
    mean, _ = fills_of(source, gap)

    def never() -> Filled:
        raise AssertionError("made though the waveform is predicted")

    assert routing.better(source, gap, [gap], "ar mean", mean, {"ar": never}, load("n_conffusion"))[0] == "ar mean"


def test_auto_says_which_fill_it_took() -> None:
    noise = 0.05 * np.random.default_rng(1).standard_normal((1, 4 * RATE))
    noise[:, 2 * RATE : 2 * RATE + 900] = 0.0
    (gap,) = repair(noise, [(2.0, 2.0 + 900 / RATE)], sample_rate=RATE, settings=Settings(draws=1)).gaps
    assert gap.method in routing.OTHERS
