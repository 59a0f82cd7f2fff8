"""Tolerance accuracy against its closed form, and UASRM's published figure against what it really measures."""

import numpy as np
import pytest

from sfumato.errors import InputError
from sfumato.metrics.tolerance_accuracy import published_accuracy, tolerance_accuracy

RATE, GAP = 16000, (8000, 40000)


def noise(seed: int, n: int = 48000) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, n))


def pasted(reference: np.ndarray, fill: np.ndarray) -> np.ndarray:
    out = reference.copy()
    out[:, GAP[0] : GAP[1]] = fill[:, GAP[0] : GAP[1]]
    return out


def test_two_draws_of_one_process_agree_as_often_as_exponential_variables_do() -> None:
    """The ratio of two exponentials lies within a and 1/a with chance (a - 1) / (a + 1)."""
    shares = tolerance_accuracy(noise(0), noise(1), GAP, RATE)
    ratio = 10 ** (np.array([1.0, 3.0, 6.0]) / 10)
    np.testing.assert_allclose(shares, (ratio - 1) / (ratio + 1), atol=0.012)


def test_a_gain_counts_within_its_own_tolerance_only() -> None:
    louder = noise(2) * 10 ** (2.0 / 20)
    assert tolerance_accuracy(noise(2), louder, GAP, RATE, (1.9, 2.1)) == (0.0, 1.0)
    assert tolerance_accuracy(noise(2), noise(2), GAP, RATE, (0.0,)) == (1.0,)


def test_a_band_counts_alone() -> None:
    """A fill that is right above 4 kHz only."""
    reference = noise(3)
    spectrum = np.fft.rfft(reference)
    frequency = np.fft.rfftfreq(reference.shape[1], 1 / RATE)
    spectrum[:, frequency < 4000] *= 10
    wrong_below = np.fft.irfft(spectrum, reference.shape[1])
    assert tolerance_accuracy(reference, wrong_below, GAP, RATE, (3.0,), (4200, 8000))[0] > 0.99
    assert tolerance_accuracy(reference, wrong_below, GAP, RATE, (3.0,), (0, 3800))[0] < 0.01


def test_silence_earns_nothing() -> None:
    """A clip without anything above 4 kHz: those bins are left out, not counted as right."""
    reference = noise(4)
    spectrum = np.fft.rfft(reference)
    spectrum[:, np.fft.rfftfreq(reference.shape[1], 1 / RATE) > 4000] = 0
    low = np.fft.irfft(spectrum, reference.shape[1])
    assert tolerance_accuracy(low, np.zeros_like(low), GAP, RATE, (6.0,))[0] < 0.01
    assert np.isnan(tolerance_accuracy(0 * low, 0 * low, GAP, RATE, (6.0,))[0])


def test_the_published_figure_measures_what_was_left_alone() -> None:
    """5 s with 0.5 s damaged: a perfect and a dreadful repair score the same, doing nothing scores best."""
    clean = -40 + 8 * np.random.default_rng(5).standard_normal((1025, 431))
    damaged = clean.copy()
    damaged[:, 200:243] = 0.0
    dreadful = damaged.copy()
    dreadful[:, 200:243] = 77.0
    untouched = 1 - 43 / 431
    assert published_accuracy(damaged, clean) == pytest.approx(untouched)
    assert published_accuracy(damaged, dreadful) == pytest.approx(untouched)
    assert published_accuracy(damaged, damaged) == 1.0
    assert published_accuracy(damaged, damaged + 0.4, close_db=0.5) == 1.0
    with pytest.raises(InputError, match="differ in shape"):
        published_accuracy(damaged, clean[:10])
