"""One-pass bounds: the pinball loss has the quantiles as its minimum, bounds never cross, weights are taken over."""

import numpy as np
import pytest
import torch
from torch import nn

from sfumato.diffusion import precondition
from sfumato.diffusion.noise import BatchNoise
from sfumato.networks import unet2d
from sfumato.signal import gap_levels
from sfumato.signal.levels import N_BANDS
from sfumato.systems import conffusion, n_conffusion

FRAMES = gap_levels.N_FRAMES
TINY = unet2d.Config(condition_channels=7, widths=(8, 16), embedding=16, attention_heads=2)


def view(seed: int = 0) -> gap_levels.Picture:
    touched = np.zeros(FRAMES, dtype=bool)
    touched[100:160] = True
    random = np.random.default_rng(seed)
    mean, draw = (-40 + 10 * random.standard_normal((N_BANDS, FRAMES)) for _ in range(2))
    return gap_levels.picture(mean, draw, ~touched, touched)


class Constants(nn.Module):
    """A network that answers the same everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return self.raw[None, :, None, None] + torch.zeros_like(x)


def test_the_loss_is_least_at_the_quantiles_and_the_mean() -> None:
    config = n_conffusion.Config()
    clean = np.random.default_rng(1).gamma(2.0, 0.5, (4, 1, N_BANDS, FRAMES))
    condition = torch.from_numpy(np.stack([view().condition] * 4))
    batch = {"clean": torch.from_numpy(clean).float(), "condition": condition}
    network = Constants()
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        total = n_conffusion.loss(network, batch, config, BatchNoise(0, 0, 4), "bounds")["total"]
        total.backward()
        return total

    optimizer.step(closure)
    inside = clean[..., view().touched]
    bounds = n_conffusion.bound_levels(network, config, [view()])[0]
    at = np.flatnonzero(view().touched)[0]
    found = [(part[0, at] - view().base_db[0, at]) / gap_levels.SCALE_DB for part in vars(bounds).values()]
    assert found[0] == pytest.approx(np.quantile(inside, 0.05), abs=0.02)
    assert found[2] == pytest.approx(np.quantile(inside, 0.95), abs=0.05)
    covered = np.mean((inside >= found[0]) & (inside <= found[2]))
    assert covered == pytest.approx(0.9, abs=0.01)


def test_bounds_never_cross_whatever_the_weights() -> None:
    torch.manual_seed(3)
    network = n_conffusion.build(n_conffusion.Config(network=TINY))
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.5)
    for bounds in n_conffusion.bound_levels(network, n_conffusion.Config(network=TINY), [view(1), view(2)]):
        assert (bounds.lower_db <= bounds.point_db).all() and (bounds.point_db <= bounds.upper_db).all()
        assert (bounds.upper_db - bounds.lower_db)[:, view().touched].max() > 1.0
        np.testing.assert_array_equal(bounds.upper_db[:, ~view().touched], bounds.point_db[:, ~view().touched])


def test_it_starts_as_the_inpainters_point_estimate() -> None:
    torch.manual_seed(4)
    config = conffusion.Config(network=TINY)
    trained = conffusion.build(config).eval()
    nn.init.normal_(trained.last[-1].weight, std=0.1)
    network = n_conffusion.build(n_conffusion.Config(network=TINY)).eval()
    n_conffusion.start(network, trained)
    bounds = n_conffusion.bound_levels(network, n_conffusion.Config(network=TINY), [view()])[0]
    condition = torch.from_numpy(view().condition)[None]
    denoise = precondition.edm(trained, condition, config.sigma_data)
    point = denoise(torch.zeros(1, 1, N_BANDS, FRAMES), torch.tensor([config.sigma_max]))[0, 0].detach().numpy()
    wanted = view().base_db + gap_levels.SCALE_DB * point * view().touched
    np.testing.assert_allclose(bounds.point_db, wanted, atol=1e-3)
    assert np.ptp(bounds.point_db[:, view().touched] - view().base_db[:, view().touched]) > 1.0


def test_the_student_learns_the_bounds_it_is_taught() -> None:
    config = n_conffusion.Config(target="sampled")
    condition = torch.from_numpy(np.stack([view().condition] * 2))
    clean = torch.full((2, 1, N_BANDS, FRAMES), 0.3)
    batch = {"clean": clean, "condition": condition, "lower": clean - 0.7, "upper": clean + 0.4}
    network = Constants()
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        total = n_conffusion.loss(network, batch, config, BatchNoise(0, 0, 2), "bounds")["total"]
        total.backward()
        return total

    optimizer.step(closure)
    bounds = n_conffusion.bound_levels(network, config, [view()])[0]
    at = np.flatnonzero(view().touched)[0]
    found = [(part[0, at] - view().base_db[0, at]) / gap_levels.SCALE_DB for part in vars(bounds).values()]
    np.testing.assert_allclose(found, [-0.4, 0.3, 0.7], atol=0.01)


def test_sampled_bounds_are_quantiles_over_draws() -> None:
    torch.manual_seed(0)
    config = conffusion.Config(network=TINY)
    network = conffusion.build(config).eval()
    torch.nn.init.normal_(network.last[-1].weight, std=0.05)
    keys = {"seed": 3, "item": 5, "steps": 4}
    bounds = conffusion.sample_bounds(network, config, view(), (0.0, 0.5, 1.0), draws=5, **keys)
    draws = np.stack(conffusion.draw_levels(network, config, [view()] * 5, temperature=1.0, **keys))
    np.testing.assert_array_equal(bounds[0], draws.min(axis=0))
    np.testing.assert_array_equal(bounds[1], np.median(draws, axis=0))
    touched = view().touched
    assert (bounds[2] - bounds[0])[:, touched].min() > 0.1
    np.testing.assert_allclose(bounds[:, :, ~touched], np.broadcast_to(view().base_db[:, ~touched], (3, N_BANDS, 196)))
