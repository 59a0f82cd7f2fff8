"""Split conformal bounds: the exact law of their coverage, and bounds on quality that follow a prediction."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from scipy.stats import beta, binom, kstest

from sfumato.errors import CalibrationError, InputError
from sfumato.interval.conformal import quality_bound, quality_scores, quantile, rank


@pytest.mark.parametrize("tenths", ["0.01", "0.05", "0.07", "0.1", "0.29", "0.3", "0.5"])
def test_the_rank_is_that_of_exact_fractions(tenths):
    alpha = Fraction(tenths)
    for n in range(ceil(1 / alpha - 1), 400):
        assert rank(n, float(alpha)) == ceil((n + 1) * (1 - alpha))


@pytest.mark.parametrize(("n", "alpha", "needed"), [(8, 0.1, 9), (18, 0.05, 19), (0, 0.5, 1)])
def test_too_few_clips_are_refused_with_the_number_needed(n, alpha, needed):
    with pytest.raises(CalibrationError, match=f"{n} calibration clips .* at least {needed} are needed"):
        quantile(np.zeros(n), alpha)
    quantile(np.zeros(needed), alpha)


@pytest.mark.parametrize(("n", "alpha"), [(19, 0.1), (60, 0.25)])
def test_the_coverage_of_one_calibration_is_beta(n, alpha):
    """Of uniform scores, the quantile is the coverage itself."""
    rng = np.random.default_rng(5)
    coverage = [quantile(rng.random(n), alpha) for _ in range(2000)]
    k = rank(n, alpha)
    assert kstest(coverage, beta(k, n + 1 - k).cdf).pvalue > 1e-3
    assert np.mean(coverage) == pytest.approx(k / (n + 1), abs=4 * np.std(coverage) / np.sqrt(2000))


def test_a_bound_that_would_be_infinite_is_refused():
    with pytest.raises(CalibrationError, match="3 of 20 clips lie outside every member"):
        quantile(np.r_[np.zeros(17), np.full(3, np.inf)], 0.1)
    assert quantile(np.r_[np.zeros(19), np.inf], 0.1) == 0


@pytest.mark.parametrize("score", ["plain", "ratio", "difference"])
def test_the_bound_holds_as_often_as_promised(score):
    """Quality = difficulty x luck, the difficulty predicted: the bound covers 18 / 20 of new clips."""
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(1500):
        predicted = rng.uniform(2, 8, 20)
        true = predicted * rng.lognormal(0, 0.3, 20)
        scores = quality_scores(true[:19], None if score == "plain" else predicted[:19], score)
        bound = quality_bound(quantile(scores, 0.1), None if score == "plain" else predicted[19], score)
        held += bool(true[19] <= bound)
    assert 1e-3 < binom.cdf(held, 1500, 0.9) < 1 - 1e-3


def test_a_ratio_follows_the_prediction_and_serves_easy_and_hard_clips_alike():
    rng = np.random.default_rng(7)
    predicted = rng.uniform(2, 8, 4000)
    true = predicted * rng.lognormal(0, 0.3, 4000)
    bound = quality_bound(quantile(quality_scores(true, predicted, "ratio"), 0.1), predicted, "ratio")
    plain = quality_bound(quantile(quality_scores(true), 0.1))
    hard = predicted > 6
    assert np.mean((true <= bound)[hard]) == pytest.approx(0.9, abs=0.03)
    assert np.mean((true <= plain)[hard]) < 0.8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quality_scores([1.0, np.nan]), "isn't finite"),
        (lambda: quality_scores([1.0], [0.0], "ratio"), "above 0"),
        (lambda: quality_scores([1.0, 2.0], [1.0], "ratio"), "2 qualities but 1"),
        (lambda: quality_scores([1.0], None, "difference"), "needs a predicted"),
        (lambda: quality_bound(1.0, [1.0], "log"), "plain, ratio, difference"),
        (lambda: quantile([[1.0]], 0.5), "one number per clip"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
