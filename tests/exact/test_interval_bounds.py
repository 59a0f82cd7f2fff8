"""Bounds on a mean loss against scipy, closed forms, exact enumeration, and the published table."""

import doctest

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import betaincinv
from scipy.stats import binom

from sfumato.errors import InputError
from sfumato.interval import bounds, calibrate, conformal, pvalues
from sfumato.interval.bounds import hoeffding_bentkus_p, passes, upper_bound

CLIPS = (50, 100, 177, 200, 500, 1000)


def entropy(a, b):
    return a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))


@pytest.mark.parametrize(("n", "total", "alpha"), [(50, 2.5, 0.1), (50, 2.5, 0.2), (200, 11.0, 0.1), (30, 7.3, 0.1)])
def test_hoeffding_bentkus_is_the_smaller_of_its_two_tails(n, total, alpha):
    hoeffding = np.exp(-n * entropy(min(total / n, alpha), alpha))
    bentkus = np.e * binom.cdf(np.ceil(total), n, alpha)
    assert hoeffding_bentkus_p(total, n, alpha) == pytest.approx(min(hoeffding, bentkus, 1.0), rel=1e-9)


@pytest.mark.parametrize("kind", bounds.BOUNDS)
def test_the_bound_is_the_root_of_its_test(kind):
    losses = np.random.default_rng(1).beta(1, 9, 80)
    bound = float(upper_bound(losses, 0.1, kind))
    assert losses.mean() < bound < 1
    assert passes(losses, bound, 0.1, kind) and not passes(losses, bound - 1e-9, 0.1, kind)


def test_hoeffding_bentkus_bound_at_half_a_loss_more_than_two():
    """Published code rounds 2.5 down and gets 0.128; losses in [0, 1] need it rounded up."""

    def tail(alpha):
        return min(np.exp(-50 * entropy(0.05, alpha)), np.e * binom.cdf(3, 50, alpha)) - 0.1

    bound = float(upper_bound(np.full(50, 0.05), 0.1, "hoeffding_bentkus"))
    assert bound == pytest.approx(brentq(tail, 0.051, 0.9), abs=1e-9)
    assert bound == pytest.approx(0.144, abs=5e-4)


@pytest.mark.parametrize("n", [5, 30, 100])
def test_no_loss_at_all_gives_the_closed_form(n):
    assert float(upper_bound(np.zeros(n), 0.1, "hoeffding_bentkus")) == pytest.approx(1 - 0.1 ** (1 / n), abs=1e-12)


def betting_bound(losses, delta):
    """The betting bound as its definition reads, one clip at a time."""

    def log_wealth(risk):
        best, wealth, total, squares, variance = -np.inf, 0.0, 0.5, 0.25, 0.25
        for i, loss in enumerate(losses, start=1):
            bet = min(1.0, np.sqrt(2 * np.log(1 / delta) / (len(losses) * variance)))
            wealth += np.log(1 - bet * (loss - risk))
            best = max(best, wealth)
            total += loss
            squares += (loss - total / (i + 1)) ** 2
            variance = squares / (i + 1)
        return best - np.log(1 / delta)

    return brentq(log_wealth, 1e-9, 1 - 1e-12, xtol=1e-13) if log_wealth(1 - 1e-12) > 0 else 1.0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("delta", [0.05, 0.3])
def test_wsr_is_its_definition(seed, delta):
    losses = np.random.default_rng(seed).beta(0.5, 3, 40)
    assert float(upper_bound(losses, delta, "wsr")) == pytest.approx(betting_bound(losses, delta), abs=1e-9)


@pytest.mark.parametrize("step", [1.0, 0.5])
@pytest.mark.parametrize("n", [20, 60])
def test_hoeffding_bentkus_errs_no_more_often_than_promised(n, step):
    """Exactly: the chance, over losses of 0 or `step`, that the bound lies below the mean."""
    hits = np.arange(n + 1)
    table = step * (np.arange(n) < hits[:, None])
    limits = upper_bound(table, 0.1, "hoeffding_bentkus")
    chance = np.linspace(0.01, 0.99, 99)[:, None]
    errs = np.sum(binom.pmf(hits, n, chance) * (limits < step * chance), axis=1)
    assert errs.max() <= 0.1


def test_wsr_errs_no_more_often_than_promised():
    rng = np.random.default_rng(2)
    for draw in (lambda size: rng.beta(2, 18, size), lambda size: (rng.random(size) < 0.1).astype(float)):
        wrong = passes(draw((4000, 60)), 0.1, 0.1, "wsr").sum()
        assert binom.sf(wrong - 1, 4000, 0.1) > 1e-4


def test_largest_risk_that_passes_is_the_published_one():
    """alpha = delta = 0.1; Hoeffding–Bentkus to the printed digits. With every cell of 200 images counted, 0.0998."""
    risks = np.arange(0, 0.1, 0.00005)
    largest = [risks[hoeffding_bentkus_p(risks * n, n, 0.1) <= 0.1].max() for n in CLIPS]
    for found, printed in zip(largest, ("0.023", "0.042", "0.0565", "0.060", "0.074", "0.082"), strict=True):
        assert found == pytest.approx(float(printed), abs=0.0005 if len(printed) < 6 else 0.0001)
    pixels = risks[hoeffding_bentkus_p(risks * 9.8e6, 9_800_000, 0.1) <= 0.1].max()
    assert pixels == pytest.approx(0.0998, abs=5e-5)


@pytest.mark.parametrize(("n", "printed"), list(zip(CLIPS, (0.050, 0.072, 0.084, 0.086, 0.094, 0.096), strict=True)))
def test_wsr_passes_what_the_table_says(n, printed):
    """Losses of standard deviation 0.06, in many orders: most pass 0.001 below the printed mean, few 0.005 above it."""
    u = np.random.default_rng(n).random((40, n))

    def share(mean):
        precision = mean * (1 - mean) / 0.06**2 - 1
        losses = betaincinv(mean * precision, (1 - mean) * precision, u)
        losses *= mean / losses.mean(axis=1, keepdims=True)
        return passes(np.minimum(losses, 1.0), 0.1, 0.1, "wsr").mean()

    assert share(printed - 0.001) > 0.5
    assert share(printed + 0.005) < 0.25


@pytest.mark.parametrize(("n", "printed"), list(zip(CLIPS, (0.082, 0.091, 0.095, 0.0955, 0.098, 0.099), strict=True)))
def test_risk_control_passes_what_the_table_says(n, printed):
    means = np.arange(0.05, 0.1, 0.0001)[::-1]  # one member for each mean loss, the smallest interval first
    first = calibrate.crc(np.repeat(means[:, None], n, axis=1), 0.1)
    assert means[first] == pytest.approx(0.1 - 0.9 / n, abs=1.01e-4)
    assert means[first] == pytest.approx(printed, abs=0.0005)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: passes([0.1, 1.2], 0.1, 0.1, "wsr"), r"1\.2"),
        (lambda: passes([0.1, np.nan], 0.1, 0.1, "wsr"), "nan"),
        (lambda: upper_bound([], 0.1, "wsr"), "no losses"),
        (lambda: upper_bound([0.5], 1.0, "wsr"), "delta 1.0"),
        (lambda: passes([0.5], 0.0, 0.1, "wsr"), "alpha 0.0"),
        (lambda: passes([0.5], 0.1, 0.1, "hoeffding"), "hoeffding_bentkus, wsr"),
    ],
)
def test_wrong_losses_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("module", [bounds, calibrate, conformal, pvalues], ids=lambda module: module.__name__)
def test_examples_are_true(module):
    done = doctest.testmod(module)
    assert done.attempted and not done.failed
