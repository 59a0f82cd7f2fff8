"""Dance Diffusion's objective and schedules against the formulas of its published code, and its labels."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from sfumato.diffusion import noise, schedule
from sfumato.diffusion.noise import BatchNoise
from sfumato.networks import unet1d
from sfumato.systems import dance_diffusion as dance

TINY = dance.Config(
    network=unet1d.Config(
        patch=4, factor=2, kernel=3, widths=(8, 8), attention_heads=2, embedding=16, labels=(14, 2), relative=True
    ),
    sample_rate=8000,
    n_samples=64,
    sigma_data=0.3,
)


def published_crash(t):
    """The published schedule: time in, cosine time out."""
    sigma = torch.sin(t * math.pi / 2) ** 2
    alpha = (1 - sigma**2) ** 0.5
    return torch.atan2(sigma, alpha) / math.pi * 2


class Recording(nn.Module):
    """A network that remembers what it was called with and answers with a fixed field."""

    def forward(self, x, c_noise, condition):
        self.x, self.c_noise, self.condition = x, c_noise, condition
        return torch.cos(3.0 * x) + 0.1


def batch(n=16):
    stream = BatchNoise(5, 0, n)
    return {"clean": 0.3 * stream(7, (1, 64)), "labels": torch.tensor([[1 + i % 10, i % 2] for i in range(n)])}


@pytest.mark.parametrize("levels", ["crash", "lognormal"])
def test_the_loss_is_the_published_v_objective(levels):
    """In the published terms: alpha and sigma of a cosine time, v = alpha noise - sigma clean, mean squared error."""
    config = dance.Config(**(TINY.model_dump() | {"levels": levels}))
    network, stream, data = Recording(), BatchNoise(0, 32, 16), batch()
    total = dance.loss(network, data, config, stream, "denoise")["total"]
    time = network.c_noise.double()
    alpha, sigma = (f(time * math.pi / 2)[:, None, None] for f in (torch.cos, torch.sin))
    clean, fresh = data["clean"].double() / config.sigma_data, stream(1, (1, 64)).double()
    torch.testing.assert_close(network.x.double(), alpha * clean + sigma * fresh, rtol=1e-5, atol=1e-5)
    v = alpha * fresh - sigma * clean
    assert float(total) == pytest.approx(float((network(network.x, time, None) - v).square().mean()), rel=1e-4)


def test_crash_levels_of_training_are_the_published_ones():
    config = dance.Config(**(TINY.model_dump() | {"levels": "crash"}))
    network, stream = Recording(), BatchNoise(0, 0, 16)
    dance.loss(network, batch(), config, stream, "denoise")
    torch.testing.assert_close(network.c_noise.double(), published_crash(stream.stratified(0)), rtol=1e-5, atol=1e-6)


def test_the_crash_grid_is_the_published_one():
    """Theirs starts at time 1, an infinite sigma; from its second level on the two agree."""
    times = torch.linspace(1, 0, 101, dtype=torch.float64)[1:-1]
    theirs = torch.tan(published_crash(times) * math.pi / 2)
    ours = schedule.crash(99, float(theirs[-1]), float(theirs[0]))
    torch.testing.assert_close(ours[:-1], theirs, rtol=1e-9, atol=0)


def test_kinds_are_left_out_as_often_as_asked_and_places_never():
    network, n = Recording(), 4000
    data = {"clean": torch.zeros(n, 1, 64), "labels": torch.tensor([[3, 1]]).expand(n, 2)}
    dance.loss(network, data, TINY, BatchNoise(0, 0, n), "denoise")
    assert bool((network.condition[:, 1] == 1).all())
    assert set(network.condition[:, 0].tolist()) == {0, 3}
    assert float((network.condition[:, 0] == 0).float().mean()) == pytest.approx(TINY.unlabelled, abs=0.03)
    assert bool((data["labels"][:, 0] == 3).all())


def awake():
    torch.manual_seed(0)
    network = dance.build(TINY).eval()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return network


@torch.no_grad()
def test_guidance_goes_from_no_kind_to_the_kind_and_beyond():
    network = awake()
    x, sigma = noise.walk((1, 64), seed=1, items=[0, 1])(0), torch.tensor([0.2, 2.0])
    kinds = torch.tensor([2, 5])
    none, full, double = (
        dance.denoiser(network, TINY, labels, cfg_scale=scale)(x, sigma)
        for labels, scale in ((None, 1.0), (kinds, 1.0), (kinds, 2.0))
    )
    assert (full - none).abs().max() > 1e-4
    torch.testing.assert_close(double, none + 2 * (full - none))
    other_place = dance.denoiser(network, TINY, kinds, place=dance.ANYWHERE)(x, sigma)
    assert (full - other_place).abs().max() > 1e-4


def test_a_window_or_labels_that_do_not_fit_the_network_are_refused():
    with pytest.raises(ValidationError, match="multiple of the network's 8"):
        dance.Config(**(TINY.model_dump() | {"n_samples": 60}))
    with pytest.raises(ValidationError, match="labels of sizes 3 and 2"):
        dance.Config(**(TINY.model_dump() | {"kinds": ["a", "b"]}))
