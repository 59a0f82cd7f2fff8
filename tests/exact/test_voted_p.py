"""P-values where one piece has one vote."""

import numpy as np
import pytest

from sfumato.errors import InputError
from sfumato.interval.pvalues import conformal_p, voted_p


def test_groups_of_one_give_the_usual_p_value():
    random = np.random.default_rng(0)
    clean, scores = random.normal(size=20).round(1), random.normal(size=50).round(1)
    np.testing.assert_allclose(voted_p(scores, [[score] for score in clean]), conformal_p(scores, clean))


def test_the_p_value_counted_by_hand():
    groups = [[1.0, 2.0, 3.0, 4.0], [2.0], [0.0, 5.0]]
    # 2.0 is reached by three of four, by one of one, by one of two
    assert voted_p(2.0, groups) == pytest.approx((1 + 0.75 + 1.0 + 0.5) / 4)
    assert voted_p(9.0, groups) == pytest.approx(1 / 4)
    assert voted_p(-1.0, groups) == 1.0


def test_a_piece_cut_into_more_clips_has_no_more_votes():
    assert voted_p(1.0, [[0.0, 2.0] * 50, [2.0]]) == voted_p(1.0, [[0.0, 2.0], [2.0]]) == pytest.approx(2.5 / 3)


@pytest.mark.parametrize("seed", range(5))
def test_no_order_of_the_pieces_breaks_the_promise(seed):
    """Whichever piece is the new one, equally likely, and whichever of its clips: P(p <= a) <= a, for every a."""
    random = np.random.default_rng(seed)
    pieces = [random.normal(random.normal(), 0.3, random.integers(1, 6)).round(1) for _ in range(9)]
    chance = []
    for new, piece in enumerate(pieces):
        others = [other for i, other in enumerate(pieces) if i != new]
        chance += [(p, 1 / len(pieces) / len(piece)) for p in voted_p(piece, others)]
    for alpha, _ in chance:
        assert sum(weight for p, weight in chance if p <= alpha) <= alpha + 1e-9


def test_no_pieces_or_no_number_is_refused():
    for clean in ([], [[1.0], []], [[np.nan]]):
        with pytest.raises(InputError):
            voted_p(0.0, clean)
    with pytest.raises(InputError):
        voted_p(np.nan, [[1.0]])
