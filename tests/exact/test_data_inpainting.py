"""What the bank of examples draws is independent of what the training draws."""

import numpy as np
from scipy.stats import spearmanr

from sfumato.data import inpainting
from sfumato.diffusion.noise import BatchNoise

N = 4000


def test_the_choice_of_an_example_says_nothing_of_its_noise_level() -> None:
    chosen = np.stack([inpainting.choices(0, number) for number in range(N)])
    level = BatchNoise(0, 0, N).uniform(0).numpy()
    for column in chosen.T:
        assert abs(spearmanr(column, level).statistic) < 4 / np.sqrt(N)
    assert chosen[:, 0].min() < 0.01 and chosen[:, 0].max() > 0.99
