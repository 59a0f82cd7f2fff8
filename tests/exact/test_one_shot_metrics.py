"""Metrics of sets of one-shots against brute force and what they must and must not hear."""

import numpy as np
import pytest

from sfumato.errors import InputError
from sfumato.metrics.envelope_bands import envelope_bands
from sfumato.metrics.kernel_distance import kernel_distance

RNG = np.random.default_rng(0)


def test_kernel_distance_is_gretton_s_sum_over_pairs():
    x, y = RNG.normal(0, 1, (7, 3)), RNG.normal(0.5, 1.3, (9, 3))
    apart = [np.linalg.norm(a - b) for i, a in enumerate(y) for b in y[:i]]

    def k(a, b):
        return np.exp(-(np.linalg.norm(a - b) ** 2) / (2 * np.median(apart) ** 2))

    same_x = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    same_y = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    across = np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y) == pytest.approx(100 * (same_x + same_y - 2 * across), rel=1e-9)


def test_kernel_distance_is_unbiased_and_grows_with_the_difference():
    draws = [kernel_distance(RNG.normal(0, 1, (20, 4)), RNG.normal(0, 1, (30, 4))) for _ in range(200)]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / 200**0.5
    reference = RNG.normal(0, 1, (100, 4))
    moved = [kernel_distance(RNG.normal(shift, 1, (100, 4)), reference) for shift in (0.0, 0.5, 1.0, 3.0)]
    assert moved == sorted(moved)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros((1, 3)), np.ones((4, 3))),
        (np.zeros((4, 3)), np.ones((4, 2))),
        (np.zeros((4, 3)), np.ones((4, 3))),
        (np.full((4, 3), np.nan), RNG.normal(0, 1, (4, 3))),
    ],
)
def test_sets_without_a_distance_are_refused(x, y):
    with pytest.raises(InputError):
        kernel_distance(x, y)


def burst(decay_s=0.05, seconds=0.5, rate=44100):
    t = np.arange(int(seconds * rate)) / rate
    return np.random.default_rng(1).normal(0, 0.1, len(t)) * np.exp(-t / decay_s)


def test_an_embedding_hears_decay_and_band_but_not_loudness_or_padding():
    plain = envelope_bands(burst(), 44100)
    assert plain.shape == (80,)
    np.testing.assert_allclose(envelope_bands(0.01 * burst(), 44100), plain, atol=1e-9)
    np.testing.assert_allclose(envelope_bands(np.pad(burst(), (0, 60000)), 44100), plain, atol=0.3)
    longer = envelope_bands(burst(0.2), 44100)
    assert (longer[60:] > plain[60:] + 0.5).all()
    low = np.convolve(burst(), np.ones(32) / 32, "same")
    assert (envelope_bands(low, 44100) - plain)[15:20].max() < -0.5


def test_a_decay_falls_by_what_it_must():
    """exp(-t / 0.05 s) loses 86.9 dB a second: 0.142 s between the middles of two stretches are 12.3 dB."""
    levels = envelope_bands(burst(0.05), 44100).reshape(4, 20)[:, 5:].mean(axis=1)
    assert 10 * (levels[1] - levels[2]) == pytest.approx(8.686 / 0.05 * (0.165 - 0.05), abs=2.0)


def test_silence_and_a_single_sample_have_an_embedding():
    for audio in (np.zeros(100), np.ones(1)):
        assert np.isfinite(envelope_bands(audio, 44100)).all()
