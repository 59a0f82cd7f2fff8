"""Finds don't depend on how the audio arrives; seeded damage is repeatable and stays inside its gaps."""

import itertools
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.data.damage import KINDS, LENGTHS_S, SPACING_S, damage
from sfumato.errors import InputError
from sfumato.signal.damage import find_gaps

RATE = 8000


def noise(seconds: float, seed: int, channels: int = 2) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal((channels, round(seconds * RATE)))


CLEAN = noise(14, 0)
DAMAGED, GAPS = damage(CLEAN, RATE, 15, seed=1)
WHOLE = find_gaps([(0, DAMAGED)], RATE, 2)


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(0, DAMAGED.shape[1]), max_size=12))
def test_block_size_never_changes_the_result(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), DAMAGED.shape[1]]
    blocks = [(a, DAMAGED[:, a:b]) for a, b in itertools.pairwise(bounds)]
    assert find_gaps(blocks, RATE, 2) == WHOLE


def test_blocks_of_one_size_never_change_the_result() -> None:
    for size in (977, 4096, 65536):
        blocks = ((a, DAMAGED[:, a : a + size]) for a in range(0, DAMAGED.shape[1], size))
        assert find_gaps(blocks, RATE, 2) == WHOLE


def test_finds_are_sorted_disjoint_and_inside() -> None:
    assert len(WHOLE) >= 12
    assert all(a.stop < b.start for a, b in itertools.pairwise(WHOLE))
    assert all(0 <= f.start < f.stop <= DAMAGED.shape[1] for f in WHOLE)


def test_finding_leaves_the_audio_alone() -> None:
    before = DAMAGED.copy()
    find_gaps([(0, DAMAGED)], RATE, 2)
    np.testing.assert_array_equal(before, DAMAGED)


def test_memory_is_bounded() -> None:
    """A long stream is consumed as it comes: the first gap's neighbourhood is gone before the last block is made."""

    def stream(seconds: int) -> Iterator[tuple[int, np.ndarray]]:
        for i in range(seconds):
            yield i * RATE, np.full((1, RATE), 0.1) * np.sin(np.arange(RATE))

    peaks = []
    for seconds in (20, 100):
        tracemalloc.start()
        find_gaps(stream(seconds), RATE, 1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), n_gaps=st.integers(0, 12))
def test_damage_is_a_function_of_its_seed_and_stays_in_its_gaps(seed: int, n_gaps: int) -> None:
    clean = noise(9, 3)
    damaged, gaps = damage(clean, RATE, n_gaps, seed)
    again, gaps_again = damage(clean, RATE, n_gaps, seed)
    np.testing.assert_array_equal(damaged, again)
    assert gaps == gaps_again == sorted(gaps)
    outside = np.ones(clean.shape[1], bool)
    spacing = round(SPACING_S * RATE)
    for gap in gaps:
        outside[gap.start : gap.stop] = False
        shortest, longest = LENGTHS_S[gap.kind]
        assert max(1, shortest * RATE - 1) <= gap.stop - gap.start <= longest * RATE + 1
        inside = slice(gap.start, gap.stop)
        changed = ~np.equal(damaged[:, inside], clean[:, inside])
        assert changed.any()
        if gap.kind != "stuck":
            assert changed[:, [0, -1]].any(axis=0).all() or gap.kind == "click"
    np.testing.assert_array_equal(damaged[:, outside], clean[:, outside])
    for a, b in itertools.pairwise(gaps):
        assert b.start - a.stop >= spacing


def test_kinds_take_turns() -> None:
    _, gaps = damage(noise(60, 4), RATE, 25, seed=0)
    assert {kind: sum(g.kind == kind for g in gaps) for kind in KINDS} == dict.fromkeys(KINDS, 5)


def test_other_seeds_lay_other_damage() -> None:
    assert damage(CLEAN, RATE, 5, seed=2)[1] != damage(CLEAN, RATE, 5, seed=3)[1]


def test_silence_is_never_damaged() -> None:
    audio = noise(8, 1)
    audio[:, 2 * RATE : 6 * RATE] = 0
    _, gaps = damage(audio, RATE, 20, seed=1)
    assert gaps
    assert all(g.stop <= 2 * RATE or g.start >= 6 * RATE for g in gaps)
    assert damage(np.zeros((1, RATE * 3)), RATE, 3, seed=0)[1] == []


def test_contents() -> None:
    for kind, check in {
        "zeros": lambda v: bool((v == 0).all()),
        "nan": lambda v: not np.isfinite(v).any(),
        "stuck": lambda v: bool((np.diff(v, axis=1) == 0).all()),
        "dropout": lambda v: bool(np.sqrt(np.mean(v[:, 2:-2] ** 2)) < 0.0015),
        "click": lambda v: bool(np.max(np.abs(v)) > 0.1),
    }.items():
        damaged, gaps = damage(noise(20, 6, channels=1), RATE, 6, seed=2, kinds=(kind,))
        assert len(gaps) == 6
        assert all(check(damaged[:, g.start : g.stop]) for g in gaps), kind


def test_audio_of_one_dimension_is_refused() -> None:
    with pytest.raises(InputError, match="channels, samples"):
        damage(np.zeros(100), RATE, 1, seed=0)
