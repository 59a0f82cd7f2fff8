"""P-values against enumeration, the promise per clip, and corrections against their definitions."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binom

from sfumato.errors import InputError
from sfumato.interval.conformal import quantile
from sfumato.interval.pvalues import adjust, clip_max, conformal_p


def test_a_clean_clip_has_each_p_value_equally_often():
    scores = np.arange(10.0)
    p = [conformal_p(scores[i], np.delete(scores, i)) for i in range(10)]
    assert sorted(p) == pytest.approx(np.arange(1, 11) / 10)


def test_ties_count_against_suspicion():
    assert conformal_p([2.0, 2.1], [1.0, 2.0, 2.0, 3.0]).tolist() == [0.8, 0.4]


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.23])
def test_p_at_most_alpha_is_a_score_above_the_quantile(alpha):
    rng = np.random.default_rng(10)
    clean = rng.integers(0, 30, 47).astype(float)
    scores = np.arange(-1.0, 31.0)
    assert np.array_equal(conformal_p(scores, clean) <= alpha, scores > quantile(clean, alpha))


def test_the_false_alarm_rate_is_that_of_clips_not_of_windows():
    """200 windows a clip, each like its neighbours: an alarm anywhere in 5 % of clean clips, as promised."""
    rng = np.random.default_rng(11)
    alarms = naive = 0
    for _ in range(1000):
        windows = rng.standard_normal((40, 1)) + rng.standard_normal((40, 200))
        p = conformal_p(windows[-1], clip_max(windows[:-1]))
        alarms += bool((p <= 0.05).any())
        naive += bool((conformal_p(windows[-1], windows[:-1, 0]) <= 0.05).any())
    assert 1e-3 < binom.cdf(alarms, 1000, 2 / 40) < 1 - 1e-3
    assert naive > 300


def test_holm_is_the_closure_of_bonferroni():
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.2])
    expected = [
        max(
            min(1.0, len(group) * min(p[list(group)]))
            for size in range(1, 6)
            for group in combinations(range(5), size)
            if i in group
        )
        for i in range(5)
    ]
    assert adjust(p, "holm") == pytest.approx(expected, abs=1e-12)


def test_benjamini_hochberg_rejects_what_its_rule_says():
    rng = np.random.default_rng(12)
    p = rng.random(20) ** 3
    ordered = np.sort(p)
    for q in (0.05, 0.1, 0.3):
        below = np.flatnonzero(ordered <= q * np.arange(1, 21) / 20)
        limit = ordered[below.max()] if below.size else -1.0
        assert np.array_equal(adjust(p, "bh") <= q, p <= limit)
    assert (adjust(p, "by") >= adjust(p, "bh")).all()
    assert adjust([], "bh").size == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conformal_p([1.0], []), "no clean"),
        (lambda: conformal_p([np.nan], [1.0]), "isn't a number"),
        (lambda: clip_max([[1.0], []]), "no score"),
        (lambda: adjust([0.5, 1.2], "holm"), r"\[0, 1\]"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
