"""Samplers against closed forms: Gaussian data has an exact path, a mixture keeps its quantiles."""

import math

import numpy as np
import pytest
import torch

from sfumato.diffusion import noise, sample, schedule
from sfumato.diffusion.precondition import spread

SIGMA_DATA = 0.5


def gaussian(x, sigma):
    """The exact denoiser of data N(0, SIGMA_DATA^2)."""
    return x * SIGMA_DATA**2 / (SIGMA_DATA**2 + spread(sigma, x) ** 2)


def mixture(x, sigma):
    """The exact denoiser of data at ±1 with spread SIGMA_DATA, half each."""
    total = SIGMA_DATA**2 + spread(sigma, x) ** 2
    centre = torch.tanh(x / total)
    return centre + (x - centre) * SIGMA_DATA**2 / total


def quantile(x, sigma):
    """The mixture's cumulative distribution at noise `sigma`: the probability-flow ODE keeps it constant."""
    total = math.sqrt(SIGMA_DATA**2 + sigma**2)
    return (torch.special.ndtr((x - 1) / total) + torch.special.ndtr((x + 1) / total)) / 2


def order(steps, errors):
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


STEPS = (24, 48, 96, 192)
DETERMINISTIC = [("euler", 1), ("ddim", 1), ("heun", 2), ("dpmpp_2m", 2), ("iplms", 2)]


@pytest.mark.parametrize(("name", "expected"), DETERMINISTIC)
def test_order_of_convergence_on_gaussian_data(name, expected):
    start = torch.linspace(-2, 2, 8, dtype=torch.float64).reshape(1, 1, 8)
    errors = []
    for n in STEPS:
        sigmas = schedule.karras(n, 0.01, 10.0)[:-1]
        ends = [math.sqrt(SIGMA_DATA**2 + float(s) ** 2) for s in (sigmas[0], sigmas[-1])]
        found = sample.last(sample.SAMPLERS[name](gaussian, start * ends[0], sigmas))
        errors.append(float((found - start * ends[1]).abs().max()))
    assert order(STEPS, errors) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize(("name", "expected"), DETERMINISTIC)
def test_order_of_convergence_on_a_mixture(name, expected):
    start = torch.linspace(-15, 15, 16, dtype=torch.float64).reshape(1, 1, 16)
    errors = []
    for n in STEPS:
        sigmas = schedule.karras(n, 0.05, 10.0)[:-1]
        found = sample.last(sample.SAMPLERS[name](mixture, start, sigmas))
        drift = quantile(found, float(sigmas[-1])) - quantile(start, float(sigmas[0]))
        errors.append(float(drift.abs().max()))
    assert order(STEPS, errors) == pytest.approx(expected, abs=0.25)


def linear_std(sampler, n, **settings):
    """Exact standard deviation of a sampler's result on Gaussian data.

    The denoiser is linear, so the state is carried as its coefficients on the start and on each step's noise,
    which are independent and of unit variance: the norm of the coefficients is the standard deviation.
    """
    sigmas = schedule.karras(n, 0.002, 80.0)
    unit = torch.eye(n + 1, dtype=torch.float64).reshape(n + 1, 1, 1, n + 1)
    start = unit[0] * math.sqrt(SIGMA_DATA**2 + float(sigmas[0]) ** 2)
    return float(sample.last(sampler(gaussian, start, sigmas, unit.__getitem__, **settings)).norm())


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("ancestral", {}, 1),
        ("ddim", {"eta": 0.5}, 1),
        ("dpmpp_2m_sde", {}, 2),
        ("dpmpp_2m_sde", {"eta": 0.5}, 2),
        ("heun", {"churn": 8.0}, 2),
    ],
)
def test_stochastic_samplers_converge_to_the_standard_deviation_of_the_data(name, settings, expected):
    stds = [linear_std(sample.SAMPLERS[name], n, **settings) for n in STEPS]
    errors = [abs(std - SIGMA_DATA) for std in stds]
    assert stds[-1] == pytest.approx(SIGMA_DATA, rel=0.04)
    assert order(STEPS, errors) > expected - 0.25


@pytest.mark.parametrize(
    ("name", "tolerance"), [("ancestral", 0.035), ("dpmpp_2m_sde", 0.025), ("heun", 0.025), ("dpmpp_2m", 0.025)]
)
def test_samples_drawn_with_real_noise_have_the_mixtures_distribution(name, tolerance):
    """8,000 seeded draws: sampling alone gives a Kolmogorov distance of 0.017 at 98 %."""
    walk, sigmas = noise.walk((1, 8_000), seed=3, items=[0]), schedule.karras(100, 0.01, 40.0)
    drawn = sample.last(sample.SAMPLERS[name](mixture, walk(0).double() * sigmas[0], sigmas, walk))
    levels = quantile(drawn.flatten(), 0.0).sort().values
    distance = float((levels - torch.linspace(0, 1, 8_000, dtype=torch.float64)).abs().max())
    assert distance < tolerance


def test_gaussian_std_in_distribution():
    """Tolerances: the samplers' own errors at 200 steps (0.1 and 3 %) and three of 10,000 draws (0.7 %)."""
    walk, sigmas = noise.walk((1, 10_000), seed=5, items=[0]), schedule.karras(200)
    for name, tolerance in (("dpmpp_2m_sde", 0.025), ("ancestral", 0.05)):
        drawn = sample.last(sample.SAMPLERS[name](gaussian, walk(0).double() * sigmas[0], sigmas, walk))
        assert float(drawn.std()) == pytest.approx(SIGMA_DATA, rel=tolerance)


@pytest.mark.parametrize("name", sample.SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_walk_reports_every_step_keeps_dtype_and_ends_in_the_guess(name, dtype):
    walk, sigmas = noise.walk((2, 5), seed=1, items=[3, 4]), schedule.karras(6, 0.01, 10.0)
    steps = list(sample.SAMPLERS[name](mixture, walk(0).to(dtype) * 10, sigmas, walk))
    assert [step.i for step in steps] == list(range(6))
    assert [step.sigma for step in steps] == sigmas[1:].tolist()
    assert {step.x.dtype for step in steps} == {dtype}
    assert torch.equal(steps[-1].x, steps[-1].denoised)


def test_float32_follows_float64():
    walk, sigmas = noise.walk((1, 64), seed=2, items=[0]), schedule.karras(30)
    for sampler in sample.SAMPLERS.values():
        runs = [
            sample.last(sampler(mixture, walk(0).to(t) * sigmas[0], sigmas, walk)).double()
            for t in (torch.float32, torch.float64)
        ]
        assert torch.allclose(*runs, atol=2e-3)


@pytest.mark.parametrize("name", ["ancestral", "dpmpp_2m_sde"])
def test_a_stochastic_sampler_without_noise_says_so(name):
    with pytest.raises(ValueError, match="pass noise"):
        sample.last(sample.SAMPLERS[name](gaussian, torch.ones(1, 1, 2), schedule.karras(3)))


def test_last_of_no_steps_says_so():
    with pytest.raises(ValueError, match="no step"):
        sample.last(sample.euler(gaussian, torch.ones(1, 1, 2), torch.tensor([1.0])))
