"""Intervals never cross, contain their smaller ones, and lose exactly what their scores say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sfumato.errors import InputError
from sfumato.interval.family import from_bounds, joint_scores, losses, outside, scores, widen

SLACK = 1e-6
FINITE = st.floats(-1e3, 1e3, allow_subnormal=False)
ANY = FINITE | st.sampled_from([np.nan, np.inf, -np.inf])
FAMILIES = st.sampled_from([("scale", 0.0), ("scale", 0.5), ("add", 0.0)])


@st.composite
def raw_intervals(draw):
    n = draw(st.integers(1, 6))
    lower, upper = draw(arrays(float, n, elements=ANY)), draw(arrays(float, n, elements=ANY))
    return from_bounds(lower, draw(arrays(float, n, elements=FINITE)), upper)


def parameters(family):
    return st.floats(0, 10) if family == "scale" else st.floats(-50, 50)


@settings(max_examples=150)
@given(raw_intervals(), FAMILIES, st.data())
def test_bounds_never_cross_and_wider_contains_narrower(raw, family, data):
    kind, floor = family
    small, large = sorted([data.draw(parameters(kind)), data.draw(parameters(kind))])
    inner, outer = widen(raw, small, kind, floor), widen(raw, large, kind, floor)
    for made in (raw, inner, outer):
        assert (made.lower <= made.point).all() and (made.point <= made.upper).all()
    assert (outer.lower <= inner.lower).all() and (inner.upper <= outer.upper).all()


@settings(max_examples=150)
@given(raw_intervals(), FAMILIES, st.data())
def test_a_score_is_where_the_interval_begins_to_cover(raw, family, data):
    kind, floor = family
    truth = data.draw(arrays(float, raw.point.shape, elements=FINITE))
    value = data.draw(parameters(kind))
    score = scores(raw, truth, kind, floor)
    clear = (np.abs(score - value) > SLACK * (1 + np.abs(value))) & (np.abs(truth - raw.point) > SLACK)
    made = widen(raw, value, kind, floor)
    covered = (made.lower <= truth) & (truth <= made.upper)
    assert np.array_equal(covered[clear], (score <= value)[clear])
    assert np.all(scores(raw, raw.point, kind, floor) == (0.0 if kind == "scale" else -np.inf))


@pytest.mark.parametrize("family", ["scale", "add"])
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_are_the_shares_counted_one_interval_at_a_time(family, weighted):
    rng = np.random.default_rng(13)
    point, truth = rng.standard_normal((2, 7, 23))
    weights = rng.integers(0, 3, (7, 23)).astype(float) if weighted else None
    raws = [from_bounds(p - rng.random(23), p, p + rng.random(23)) for p in point]
    grid = np.linspace(0, 3, 31)
    table = losses([scores(raw, t, family) for raw, t in zip(raws, truth, strict=True)], grid, weights)
    expected = [
        [
            outside(widen(raws[i], value, family), truth[i], None if weights is None else weights[i])
            for i in range(len(raws))
        ]
        for value in grid
    ]
    assert table == pytest.approx(np.array(expected), abs=1e-12)
    assert table.shape == (31, 7) and (np.diff(table, axis=0) <= 0).all() and np.ptp(table) > 0.5


def test_the_joint_score_covers_every_cell_and_nothing_smaller_does():
    rng = np.random.default_rng(14)
    point, truth = np.zeros((5, 11)), rng.standard_normal((5, 11))
    raw = from_bounds(point - 1, point, point + 2)
    weights = np.ones(11)
    weights[3] = 0
    joint = joint_scores(scores(raw, truth), weights)
    for i, value in enumerate(joint):
        counts = weights > 0
        for factor, all_in in ((1 + 1e-9, True), (1 - 1e-9, False)):
            made = widen(raw, value * factor)
            inside = (made.lower[i] <= truth[i]) & (truth[i] <= made.upper[i])
            assert inside[counts].all() == all_in


def test_bad_raw_bounds_follow_the_rule():
    raw = from_bounds([3.0, np.nan, -1.0, 2.0, np.inf], [2.0, 0.0, 0.0, 1.0, 0.0], [1.0, 1.0, np.nan, 3.0, -np.inf])
    assert raw.lower.tolist() == [1.0, -np.inf, -1.0, 1.0, -np.inf]
    assert raw.upper.tolist() == [3.0, 1.0, np.inf, 3.0, np.inf]
    narrow = widen(raw, 0.0)
    assert narrow.lower.tolist() == [2.0, -np.inf, 0.0, 1.0, -np.inf], "what is unknown stays unknown"


def test_zero_width_bounds_can_be_calibrated_with_a_floor_or_by_adding():
    raw = from_bounds([0.0], [0.0], [0.0])
    assert scores(raw, [0.7]).tolist() == [np.inf]
    assert scores(raw, [0.7], "scale", 0.5) == pytest.approx([1.4])
    assert scores(raw, [-0.7], "add") == pytest.approx([0.7])
    assert widen(raw, 1.4, "scale", 0.5).upper == pytest.approx([0.7])
    assert widen(raw, 0.7, "add").lower == pytest.approx([-0.7])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda raw: from_bounds([0.0], [np.nan], [1.0]), "1 point estimates"),
        (lambda raw: from_bounds([0.0], [0.0, 1.0], [1.0]), "differ in shape"),
        (lambda raw: widen(raw, -1.0), "at least 0"),
        (lambda raw: widen(raw, np.nan, "add"), "finite"),
        (lambda raw: widen(raw, 1.0, "add", 0.5), "floor of 0.5"),
        (lambda raw: widen(raw, 1.0, "power"), "scale, add"),
        (lambda raw: scores(raw, [np.inf]), "finite"),
        (lambda raw: losses([[1.0]], [2.0, 1.0]), "must increase"),
        (lambda raw: losses([[1.0, 2.0]], [1.0], [0.0, 0.0]), "cell with weight"),
        (lambda raw: joint_scores([[np.nan]]), "cell that counts"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call(from_bounds([0.0], [0.5], [1.0]))
