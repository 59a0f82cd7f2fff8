"""A-SPAIN: known samples untouched, sparse signals recovered, scale, shift and locality."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.errors import InputError
from sfumato.signal.sparse import aspain

SMALL = {"window_length": 256, "hop_length": 64}


def tones(n_samples: int, sample_rate: float = 16000.0) -> np.ndarray:
    t = np.arange(n_samples) / sample_rate
    parts = [(0.3, 440.3, 0.1), (0.2, 1234.5, 2.0), (0.1, 2500.7, 4.0), (0.05, 333.3, 1.0)]
    return sum(a * np.sin(2 * np.pi * f * t + p) for a, f, p in parts)


def sdr(truth: np.ndarray, fill: np.ndarray, known: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(truth[~known] ** 2) / np.sum((truth - fill)[~known] ** 2)))


def gapped(n_samples: int, *gaps: tuple[int, int]) -> np.ndarray:
    known = np.ones(n_samples, dtype=bool)
    for start, stop in gaps:
        known[start:stop] = False
    return known


@pytest.mark.parametrize("gaps", [[(7000, 7320)], [(5000, 5200), (5600, 5700), (5701, 5800)]])
def test_sinusoids_come_back_by_more_than_20_db(gaps):
    x, known = tones(14000), gapped(14000, *gaps)
    assert sdr(x, aspain(np.where(known, x, 0.0), known), known) > 20


def test_a_fill_beats_silence_in_noise():
    x = tones(8000) + 0.01 * np.random.default_rng(0).standard_normal(8000)
    known = gapped(8000, (4000, 4040))
    assert sdr(x, aspain(x, known, 1024, 256), known) > 10


@settings(max_examples=15)
@given(
    seed=st.integers(0, 1000),
    gaps=st.lists(st.tuples(st.integers(0, 799), st.integers(1, 120)), max_size=4),
)
def test_known_samples_are_bit_identical_and_the_fill_is_finite(seed, gaps):
    x = np.random.default_rng(seed).standard_normal(800)
    known = gapped(800, *[(start, start + length) for start, length in gaps])
    before = x.copy()
    damaged = np.where(known, x, np.nan)
    y = aspain(damaged, known, **SMALL)
    assert np.array_equal(y[known], before[known])
    assert np.isfinite(y).all()


def test_what_lies_in_the_gap_does_not_matter():
    x, known = tones(2000), gapped(2000, (900, 960))
    expected = aspain(np.where(known, x, 0.0), known, **SMALL)
    assert np.array_equal(aspain(np.where(known, x, 1e6), known, **SMALL), expected)


def test_level_and_position_do_not_matter():
    x, known = tones(2000), gapped(2000, (900, 960))
    expected = aspain(x, known, **SMALL)
    np.testing.assert_allclose(aspain(2.0**-12 * x, known, **SMALL), 2.0**-12 * expected, rtol=1e-12, atol=0)
    moved = aspain(x[37:], known[37:], **SMALL)
    assert np.array_equal(moved, expected[37:])


def test_only_the_windows_that_touch_the_gap_count():
    x, known = tones(4000), gapped(4000, (2000, 2050))
    far = x.copy()
    far[: 2000 - 256] = far[2050 + 256 :] = 0.0
    assert np.array_equal(aspain(x, known, **SMALL)[2000:2050], aspain(far, known, **SMALL)[2000:2050])


@pytest.mark.parametrize("gap", [(0, 30), (1970, 2000), (0, 1999)])
def test_gaps_at_the_ends_are_filled(gap):
    x, known = tones(2000), gapped(2000, gap)
    y = aspain(x, known, **SMALL)
    assert np.isfinite(y).all()
    assert np.max(np.abs(y)) < 3 * np.max(np.abs(x))
    if gap[1] - gap[0] == 30:
        assert sdr(x, y, known) > 3


def test_nothing_to_do_nothing_known_and_silence():
    x = tones(600)
    assert np.array_equal(aspain(x, np.ones(600, dtype=bool), **SMALL), x)
    assert not aspain(np.zeros(600), gapped(600, (200, 300)), **SMALL).any()
    with pytest.raises(InputError, match="No sample is known"):
        aspain(x, np.zeros(600, dtype=bool), **SMALL)
    with pytest.raises(InputError, match="1-D"):
        aspain(x[None], np.ones((1, 600), dtype=bool), **SMALL)
    with pytest.raises(InputError, match="NaN"):
        aspain(np.where(np.arange(600) == 7, np.nan, x), gapped(600, (200, 300)), **SMALL)
