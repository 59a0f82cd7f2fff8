"""The walk down the family: hand-made tables, the kept promise on drawn clips, refusals that say how many clips."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from sfumato.errors import CalibrationError, InputError
from sfumato.interval import calibrate, family
from sfumato.interval.bounds import passes
from sfumato.interval.calibrate import choose, clips_needed, crc, rcps


def table(means, n):
    return np.repeat(np.asarray(means)[:, None], n, axis=1)


def test_the_smallest_member_below_the_limit_is_taken():
    # at n = 200 Hoeffding–Bentkus passes a mean of 0.060, risk control 0.0955
    means = [0.2, 0.11, 0.096, 0.095, 0.07, 0.0605, 0.0595, 0.01]
    assert rcps(table(means, 200), 0.1, 0.1, "hoeffding_bentkus") == 6
    assert crc(table(means, 200), 0.1) == 3
    assert rcps(table([0.01, 0.0], 200), 0.1, 0.1, "hoeffding_bentkus") == 0


def test_a_loss_that_rises_again_counts_for_every_smaller_member():
    means = [0.01, 0.02, 0.2, 0.03, 0.01]
    assert rcps(table(means, 200), 0.1, 0.1, "hoeffding_bentkus") == 3
    assert crc(table(means, 200), 0.1) == 3
    half = np.arange(200) < 100
    losses = 0.18 * np.stack([half, ~half])  # 0.09 each, but a nested family would lose 0.18 with the smaller member
    assert crc(losses, 0.1) == 1
    assert rcps(losses, 0.14, 0.1, "hoeffding_bentkus") == 1


def test_the_walk_stops_at_the_first_failure(monkeypatch):
    """A betting bound need not fall with the losses; the walk must not get past a failure."""
    monkeypatch.setattr(calibrate, "passes", lambda *_: np.array([True, True, False, True, True]))
    assert rcps(table([0.0] * 5, 60), 0.1, 0.1, "wsr") == 3


def test_the_order_of_clips_comes_from_the_seed():
    """Clips sorted by their losses would break the betting bound's promise: 8 of 60 lose all, which is over 0.1."""
    losses = (np.arange(60) >= 52).astype(float)
    members = np.stack([losses, np.zeros(60)])
    assert passes(losses, 0.1, 0.1, "wsr")
    chosen = [rcps(members, 0.1, 0.1, "wsr", seed) for seed in range(20)]
    assert np.mean(chosen) > 0.8
    assert chosen == [rcps(members, 0.1, 0.1, "wsr", seed) for seed in range(20)]


CALIBRATIONS, CLIPS, CELLS = 400, 60, 40
VALUES = np.linspace(0.2, 6.0, 120)


@pytest.fixture(scope="module")
def drawn():
    """(losses of each calibration, true mean loss of each member): cells of a clip share most of their error."""
    rng = np.random.default_rng(4)
    shared = rng.standard_normal((CALIBRATIONS, CLIPS, 1))
    error = np.sqrt(0.8) * shared + np.sqrt(0.2) * rng.standard_normal((CALIBRATIONS, CLIPS, CELLS))
    return [family.losses(np.abs(e), VALUES) for e in error], 2 * norm.sf(VALUES)


@pytest.mark.parametrize("kind", ["hoeffding_bentkus", "wsr"])
def test_the_chance_of_a_broken_promise_is_at_most_delta(drawn, kind):
    tables, truth = drawn
    broken = sum(truth[rcps(losses, 0.1, 0.2, kind)] > 0.1 for losses in tables)
    assert binom.sf(broken - 1, CALIBRATIONS, 0.2) > 1e-3


def test_risk_control_keeps_its_promise_on_average(drawn):
    tables, truth = drawn
    risks = np.array([truth[crc(losses, 0.1)] for losses in tables])
    error = risks.std() / np.sqrt(len(risks))
    assert 0.1 - 1.5 / (CLIPS + 1) - 3 * error - 0.005 < risks.mean() < 0.1 + 3 * error
    assert np.mean(risks > 0.1) > 0.1, "a promise on average is no promise for each calibration"


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
@pytest.mark.parametrize(("kind", "delta"), [("hoeffding_bentkus", 0.1), ("wsr", 0.05), ("crc", None)])
def test_the_number_of_clips_needed_is_enough_and_no_fewer_are(alpha, kind, delta):
    n = clips_needed(alpha, kind, delta)
    assert choose(np.zeros((1, n)), alpha, delta, kind) == 0
    with pytest.raises(CalibrationError, match=f"at least {n} are needed"):
        choose(np.zeros((1, n - 1)), alpha, delta, kind)


def test_clips_needed_in_closed_form():
    assert clips_needed(0.1, "conformal") == clips_needed(0.1, "crc") == 9
    for alpha, delta in ((0.1, 0.1), (0.05, 0.01)):
        assert clips_needed(alpha, "hoeffding_bentkus", delta) == np.ceil(np.log(delta) / np.log(1 - alpha))


def test_a_refusal_says_how_many_clips_like_these_would_do():
    """(0.05 n + 1) / (n + 1) <= 0.1 from n = 18 on."""
    with pytest.raises(CalibrationError, match="About 18 clips"):
        crc(np.full((1, 12), 0.05), 0.1)
    crc(np.full((1, 18), 0.05), 0.1)
    with pytest.raises(CalibrationError, match=r"loses 0\.3 on average\. Add wider members"):
        rcps(np.full((3, 500), 0.3), 0.1, 0.1, "hoeffding_bentkus")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: crc(np.zeros(50), 0.1), "shape"),
        (lambda: rcps(np.full((2, 50), np.nan), 0.1, 0.1, "wsr"), r"\[0, 1\]"),
        (lambda: choose(np.zeros((2, 50)), 0.1, None, "wsr"), "needs delta"),
        (lambda: choose(np.zeros((2, 50)), 0.1, 0.1, "conformal"), "hoeffding_bentkus, wsr, crc"),
        (lambda: crc(np.zeros((2, 50)), 1.0), "alpha"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
