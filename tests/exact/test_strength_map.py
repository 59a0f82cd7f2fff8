"""The published map of a picture, against its formulas written out and what its defaults are known to come to."""

import numpy as np
import pytest

from sfumato.signal import strength_map
from sfumato.signal.strength_map import loudness, meaning


def picture(seed: int = 0) -> np.ndarray:
    """Loud (dark) bands on a quiet ground."""
    levels = np.random.default_rng(seed).normal(200, 25, (64, 80))
    levels[20:30] -= 120
    return levels.clip(0, 255).astype(np.uint8)


def as_published(grey: np.ndarray, brightness: float, contrast: float, downshift: int) -> np.ndarray:
    """Invert; towards black by a factor; away from the rounded mean by a factor; minus the downshift."""
    dimmed = ((255 - grey.astype(float)) * brightness).clip(0, 255).astype(np.uint8)
    mean = int(dimmed.mean() + 0.5)
    apart = (mean + contrast * (dimmed.astype(float) - mean)).clip(0, 255).astype(np.uint8)
    return np.maximum(apart.astype(int) - downshift, 0)


@pytest.mark.parametrize(
    "knobs", [(0.05, 200.0, 150), (0.05, 200.0, 40), (0.6, 1.0, 0), (1.0, 3.5, 20), (2.0, 0.5, 255)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_map_is_the_published_one(knobs, seed):
    brightness, contrast, downshift = knobs
    found = loudness(picture(seed), brightness, contrast, downshift)
    assert np.abs(found.astype(int) - as_published(picture(seed), *knobs)).max() <= (1 if contrast < 100 else 0)


def test_the_defaults_are_a_threshold_and_a_share_of_the_walk():
    grey = picture()
    found = loudness(grey)
    told = meaning(grey, found)
    assert told.levels <= 3 and told.hold == (255 - strength_map.DOWNSHIFT) / 255
    assert (found > 0).sum() == (grey <= told.threshold).sum()  # a threshold: all that is as dark is held
    assert 0.1 < told.held < 0.3 and (found[20:30] > 0).mean() > 0.95


def test_louder_is_held_no_shorter():
    grey = np.sort(picture().ravel())[None]
    for knobs in ((0.05, 200.0, 150), (1.0, 2.0, 30)):
        assert (np.diff(loudness(grey, *knobs)[0].astype(int)) <= 0).all()


def test_a_downshift_of_everything_holds_nothing():
    told = meaning(picture(), loudness(picture(), downshift=255))
    assert (told.held, told.hold, told.threshold) == (0, 0, None)
