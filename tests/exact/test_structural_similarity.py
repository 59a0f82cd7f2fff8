"""SSIM: the same picture, closed forms of flat pictures, and a plain sum over one window."""

import numpy as np
import pytest

from sfumato.errors import InputError
from sfumato.metrics.structural_similarity import structural_similarity


def test_the_same_picture_is_1_and_a_negative_is_far():
    picture = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
    assert structural_similarity(picture, picture) == pytest.approx(1.0)
    assert structural_similarity(picture, 255 - picture) < -0.5


def test_flat_pictures_differ_in_their_means_alone():
    a, b = np.full((20, 20), 100, np.uint8), np.full((20, 20), 150, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert structural_similarity(a, b) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1))


def test_one_window_is_the_plain_sum():
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 256, (11, 11), np.uint8) for _ in range(2))
    at = np.arange(-5, 6)
    g = np.exp(-(at**2) / (2 * 1.5**2))
    w = np.outer(g, g) / g.sum() ** 2
    x, y = a.astype(float), b.astype(float)
    mx, my = (w * x).sum(), (w * y).sum()
    vx, vy, vxy = (w * (x - mx) ** 2).sum(), (w * (y - my) ** 2).sum(), (w * (x - mx) * (y - my)).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    expected = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert structural_similarity(a, b) == pytest.approx(expected, rel=1e-9)


def test_pictures_that_are_not_alike_are_refused():
    with pytest.raises(InputError, match="can't be compared"):
        structural_similarity(np.zeros((20, 20), np.uint8), np.zeros((20, 21), np.uint8))
