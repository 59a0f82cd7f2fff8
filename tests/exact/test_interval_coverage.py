"""Measures of a kept promise against scipy's own tests, enumeration of all orders, and hand-made cells."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from sfumato.errors import InputError
from sfumato.interval.conformal import quantile
from sfumato.interval.coverage import (
    clopper_pearson,
    conformal_coverage_p,
    mean_loss_interval,
    size_stratified,
    spearman,
)


@pytest.mark.parametrize(("hits", "n", "level"), [(0, 10, 0.95), (10, 10, 0.95), (452, 500, 0.95), (3, 7, 0.8)])
def test_clopper_pearson_is_scipys_exact_interval(hits, n, level):
    theirs = binomtest(hits, n).proportion_ci(level, method="exact")
    assert clopper_pearson(hits, n, level) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_coverage_p_is_the_share_of_orders():
    """Calibration and test clips of distinct scores: all orders are equally likely."""
    n, m, alpha = 6, 5, 0.3
    counts = np.zeros(m + 1)
    for test in combinations(range(n + m), m):
        rest = [i for i in range(n + m) if i not in test]
        counts[sum(i <= quantile(rest, alpha) for i in test)] += 1
    counts /= counts.sum()
    for covered in range(m + 1):
        expected = min(1.0, 2 * min(counts[: covered + 1].sum(), counts[covered:].sum()))
        assert conformal_coverage_p(covered, m, n, alpha) == pytest.approx(expected, rel=1e-9)


def test_too_much_coverage_is_a_fault_too():
    assert conformal_coverage_p(450, 500, 500, 0.1) > 0.5
    assert conformal_coverage_p(420, 500, 500, 0.1) < 0.01
    assert conformal_coverage_p(480, 500, 500, 0.1) < 0.01


def test_the_interval_of_a_mean_loss_holds_for_the_worst_distribution():
    """Of losses 0 or 1, exactly: missed no more often than promised."""
    n = 40
    hits = np.arange(n + 1)
    ends = np.array([mean_loss_interval(np.arange(n) < k, 0.9) for k in hits])
    for chance in (0.02, 0.1, 0.5, 0.93):
        missed = (ends[:, 0] > chance) | (ends[:, 1] < chance)
        assert np.sum(binom.pmf(hits, n, chance) * missed) <= 0.1
    assert ends[20, 1] - ends[20, 0] < 0.4


def test_strata_hold_cells_of_like_width():
    widths = np.array([1.0, 2.0, 3.0, 4.0, 1.1, 2.1, 3.1, 4.1])
    inside = np.array([1, 1, 1, 0, 1, 0, 1, 0], bool)
    strata = size_stratified(widths, inside, np.repeat(["a", "b"], 4))
    assert [s.coverage for s in strata] == [1.0, 0.5, 1.0, 0.0]
    assert [(s.width_min, s.width_max) for s in strata] == [(1.0, 1.1), (2.0, 2.1), (3.0, 3.1), (4.0, 4.1)]
    assert all(s.n_cells == 2 and s.n_clips == 2 for s in strata)


def test_equal_widths_are_never_parted_and_infinite_ones_have_a_place():
    strata = size_stratified([1, 1, 1, 1, 1, 1, 5, np.inf], np.ones(8), np.arange(8))
    assert [s.n_cells for s in strata] == [6, 2] and strata[-1].width_max == np.inf
    assert size_stratified([1, 2], [True, True], ["one", "one"], 1)[0].standard_error == np.inf


def test_the_error_of_a_stratum_counts_clips_not_cells():
    """Clips of 25 cells that all hit or all miss: the error is that of the clips."""
    rng = np.random.default_rng(8)
    hits = rng.random(400) < 0.8
    stratum = size_stratified(np.ones(10000), np.repeat(hits, 25), np.repeat(np.arange(400), 25))[0]
    assert stratum.standard_error == pytest.approx(np.std(hits, ddof=1) / np.sqrt(400), rel=1e-9)


def test_spearman_is_the_formula_of_rank_differences():
    rng = np.random.default_rng(9)
    widths, errors = rng.random(30), rng.random(30)
    d = np.argsort(np.argsort(widths)) - np.argsort(np.argsort(errors))
    assert spearman(widths, errors) == pytest.approx(1 - 6 * np.sum(d**2) / (30 * (30**2 - 1)), abs=1e-12)
    assert spearman(widths, np.exp(widths)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: clopper_pearson(3, 2), "3 of 2"),
        (lambda: conformal_coverage_p(0, 0, 20, 0.1), "0 of 0"),
        (lambda: spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), "constant"),
        (lambda: size_stratified([1.0], [True, False], [0]), "one of each"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
