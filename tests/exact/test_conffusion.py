"""The inpainter's loss and draws against what they must be by construction."""

import numpy as np
import pytest
import torch
from torch import nn

from sfumato.diffusion.noise import BatchNoise
from sfumato.signal import gap_levels
from sfumato.signal.levels import N_BANDS, band_edges
from sfumato.systems import conffusion

FRAMES = gap_levels.N_FRAMES


def levels(seed: int) -> np.ndarray:
    return -40 + 10 * np.random.default_rng(seed).standard_normal((N_BANDS, FRAMES))


def flags(start: int = 100, stop: int = 120) -> tuple[np.ndarray, np.ndarray]:
    touched = np.zeros(FRAMES, dtype=bool)
    touched[start:stop] = True
    return ~touched, touched


class Zero(nn.Module):
    """A network that has learnt nothing."""

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return 0 * torch.cat([x, x], dim=1)


def test_the_loss_of_a_network_that_predicts_nothing_is_one() -> None:
    config = conffusion.Config()
    known, touched = flags(60, 200)
    random = np.random.default_rng(5)
    view = gap_levels.picture(levels(6), levels(7), known, touched)
    clean = config.sigma_data * random.standard_normal((8, 1, N_BANDS, FRAMES)) * touched
    batch = {
        "clean": torch.from_numpy(clean).float(),
        "condition": torch.from_numpy(np.stack([view.condition] * 8)),
    }
    weighted = conffusion.loss(Zero(), batch, config, BatchNoise(0, 0, 8), "denoise")["weighted"]
    assert float(weighted) == pytest.approx(1.0, abs=0.03)


def trained(log_variance: float) -> tuple[conffusion.Config, nn.Module]:
    """A network whose levels are random and whose log-variance, in units of its own error, is a constant."""
    config = conffusion.Config()
    torch.manual_seed(0)
    network = conffusion.build(config).eval()
    last = network.last[-1]
    nn.init.normal_(last.weight[:1], std=0.02)
    nn.init.constant_(last.bias[1], log_variance)
    return config, network


def drawn(log_variance: float, temperature: float) -> tuple[np.ndarray, gap_levels.Picture]:
    config, network = trained(log_variance)
    known, touched = flags()
    view = gap_levels.picture(levels(8), levels(9), known, touched)
    return conffusion.draw_levels(network, config, [view], seed=1, item=2, steps=4, temperature=temperature)[0], view


def test_temperature_scales_the_departure_from_the_expectation() -> None:
    (cold, view), (warm, _), (hot, _) = (drawn(-30.0, temperature) for temperature in (0.0, 0.5, 1.0))
    np.testing.assert_allclose(warm - cold, 0.5 * (hot - cold), atol=5e-3)
    assert np.abs((hot - cold)[:, view.touched]).max() > 0.5
    np.testing.assert_array_equal(hot[:, ~view.touched], view.base_db[:, ~view.touched])


def test_what_is_not_drawn_of_the_swing_is_made_up_for_in_power() -> None:
    """Levels of variance v (dB^2) whose mean is lifted by ln(10)/20 v have the mean power they had before."""
    config = conffusion.Config()
    out = config.sigma_max * config.sigma_data / np.hypot(config.sigma_max, config.sigma_data)
    for log_variance, temperature in ((-1.0, 0.0), (0.3, 0.0), (0.3, 0.6)):
        (lifted, view), (plain, _) = drawn(log_variance, temperature), drawn(-30.0, temperature)
        inner = gap_levels.wholly_missing(view.touched)
        for band in (0, 30, 50, 63):
            steady = np.random.default_rng(1).standard_exponential((20_000, int(np.diff(band_edges())[band])))
            fading = np.var(10.0 * np.log10(steady.mean(axis=1)))
            variance_db = gap_levels.SCALE_DB**2 * out**2 * np.exp(log_variance) - fading
            spread = np.sqrt(max(variance_db, 0.0) * (1.0 - temperature**2))
            swing = np.random.default_rng(0).normal(0.0, spread, 1_000_000)
            wanted = conffusion.POWER_SHARE * 10.0 * np.log10(np.mean(10.0 ** (swing / 10.0)))
            np.testing.assert_allclose((lifted - plain)[band, inner], wanted, atol=0.15)
        np.testing.assert_array_equal((lifted - plain)[:, ~inner], 0.0)
        assert inner.sum() == view.touched.sum() - 8
