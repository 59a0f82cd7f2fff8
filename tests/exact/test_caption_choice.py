"""The debiased choice of captions against its formula, computed by brute force over all orders of drawing."""

from itertools import permutations

import numpy as np
import pytest

from sfumato.data.caption_choice import choose, scores_of
from sfumato.errors import InputError


def included(weights: list[float], pick: int) -> np.ndarray:
    """Chance of each to be among `pick` successive draws without replacement: the sum over all orders."""
    chance = np.zeros(len(weights))
    for order in permutations(range(len(weights)), pick):
        p, left = 1.0, sum(weights)
        for i in order:
            p, left = p * weights[i] / left, left - weights[i]
        chance[list(order)] += p
    return chance


def by_hand(scores: np.ndarray, top: int) -> tuple[list[list[int]], np.ndarray]:
    offered = []
    for line in scores:
        best = sorted((c for c in range(len(line)) if line[c] > -np.inf), key=lambda c: (-line[c], c))[:top]
        offered.append(best)
    return offered, np.array([sum(c in own for own in offered) for c in range(scores.shape[1])])


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("pick", [1, 2, 3])
def test_draws_follow_the_formula(strength: float, pick: int) -> None:
    scores = np.array([[5, 4, 3, 2, 1], [5, 4, 0, 3, 1], [5, 1, 4, 0, 3], [9, -np.inf, -np.inf, 8, -np.inf]], float)
    top, n = 3, 4000
    offered, frequency = by_hand(scores, top)
    assert frequency.tolist() == [4, 2, 2, 2, 1]
    counts = np.zeros_like(scores)
    for seed in range(n):
        for i, own in enumerate(choose(scores, top, pick, seed, "abcd", strength)):
            assert len(own) == len(set(own)) == min(pick, len(offered[i])) and set(own) <= set(offered[i])
            counts[i, own] += 1
    for i, own in enumerate(offered):
        expected = included([float(frequency[c]) ** -strength for c in own], min(pick, len(own)))
        deviation = np.sqrt(np.clip(expected * (1 - expected), 0, None) / n)
        assert (np.abs(counts[i, own] / n - expected) <= 4.5 * deviation + 1e-9).all()


def test_choice_depends_on_name_and_scores_not_on_order() -> None:
    random = np.random.default_rng(0)
    scores, names = random.normal(size=(12, 9)), [f"r{i}" for i in range(12)]
    order = random.permutation(12)
    one = choose(scores, 5, 2, 7, names)
    other = choose(scores[order], 5, 2, 7, [names[i] for i in order])
    assert other == [one[i] for i in order] and choose(scores, 5, 2, 8, names) != one


def test_a_caption_that_fits_everything_is_chosen_less() -> None:
    random = np.random.default_rng(1)
    scores = random.normal(size=(300, 40))
    scores[:, 0] += 9
    plain = sum(0 in own for own in choose(scores, 6, 1, 0, [str(i) for i in range(300)], 0.0))
    debiased = sum(0 in own for own in choose(scores, 6, 1, 0, [str(i) for i in range(300)], 1.0))
    best = choose(scores, 1, 1, 0, [str(i) for i in range(300)])
    assert plain > 30 > 3 * debiased and all(own == [0] for own in best)


@pytest.mark.parametrize(
    ("scores", "top", "pick", "strength", "reason"),
    [
        (np.zeros(3), 1, 1, 1.0, "shape"),
        (np.zeros((2, 3)), 1, 1, 1.0, "names"),
        (np.zeros((1, 3)), 1, 2, 1.0, "pick ≤ top"),
        (np.zeros((1, 3)), 1, 1, -1.0, "strength"),
        (np.array([[0.0, np.nan]]), 1, 1, 1.0, "NaN"),
    ],
)
def test_impossible_choices_are_refused(scores: np.ndarray, top: int, pick: int, strength: float, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        choose(scores, top, pick, 0, "a", strength)


def test_scores_are_asked_for_candidates_alone() -> None:
    asked = []

    def similarity(audio: np.ndarray, rate: int, texts: list[str]) -> list[float]:
        asked.append((rate, texts))
        return [float(len(text)) for text in texts]

    rows = ["x", "y", "z"]
    scores, words = scores_of(rows, [["bb", "a"], [], ["a", "ccc"]], lambda row: (np.zeros((1, 4)), 8000), similarity)
    assert words == ["a", "bb", "ccc"] and asked == [(8000, ["bb", "a"]), (8000, ["a", "ccc"])]
    inf = np.inf
    np.testing.assert_array_equal(scores, [[1, 2, -inf], [-inf, -inf, -inf], [1, -inf, 3]])
    assert choose(scores, 2, 2, 0, rows)[1] == []
