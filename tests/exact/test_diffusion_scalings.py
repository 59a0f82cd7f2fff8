"""Preconditioners and schedules against closed forms."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from sfumato.diffusion import noise, precondition, schedule
from sfumato.errors import InputError

SIGMAS = torch.logspace(-3, 2, 26, dtype=torch.float64)
MAKERS = precondition.PRECONDITIONERS


def probe(maker, sigma_data):
    """What the network is given and asked for, as coefficients on unit clean and unit noise: std = norm."""
    clean = torch.tensor([[[sigma_data, 0.0]]], dtype=torch.float64).expand(len(SIGMAS), 1, 2)
    noisy = clean + SIGMAS[:, None, None] * torch.tensor([[[0.0, 1.0]]], dtype=torch.float64)
    seen = []

    def nothing(x, c_noise, condition):
        seen.append(x)
        return torch.zeros_like(x)

    def ones(x, c_noise, condition):
        return torch.ones_like(x)

    skipped = maker(nothing, None, sigma_data)(noisy, SIGMAS)
    out = maker(ones, None, sigma_data)(noisy, SIGMAS) - skipped
    return seen[0].norm(dim=-1), ((clean - skipped) / out).norm(dim=-1), out[:, 0, 0]


@pytest.mark.parametrize("name", ["edm", "v", "eps"])
@pytest.mark.parametrize("sigma_data", [0.063, 0.5, 1.0])
def test_input_and_target_have_unit_variance_at_every_sigma(name, sigma_data):
    given, target, _ = probe(MAKERS[name], sigma_data)
    assert torch.allclose(given, torch.ones_like(given), atol=1e-12)
    assert torch.allclose(target, torch.ones_like(target), atol=1e-6)


def test_flow_has_the_variances_of_a_straight_path():
    given, target, _ = probe(MAKERS["flow"], 0.5)
    t = (SIGMAS / (SIGMAS + 0.5))[:, None]
    assert torch.allclose(given, ((1 - t) ** 2 + t**2).sqrt(), atol=1e-12)
    assert torch.allclose(target, torch.full_like(target, math.sqrt(2)), atol=1e-9)


def test_edm_weight_undoes_the_output_scale():
    _, _, out = probe(MAKERS["edm"], 0.5)
    weight = precondition.edm_weight(SIGMAS, 0.5)
    assert torch.allclose(weight * out**2, torch.ones_like(out), rtol=1e-6)


def test_edm_skip_amplifies_the_network_least():
    """Karras et al., App. B.6: among all skips with a unit-variance target, EDM's makes `out` smallest."""
    scalings = precondition.edm_scalings(SIGMAS, 0.5)
    for nudge in (-0.01, 0.01):
        skip = scalings.skip + nudge
        assert (((1 - skip) * 0.5) ** 2 + (skip * SIGMAS) ** 2 > scalings.out**2).all()


def test_a_perfect_network_gives_back_the_clean_signal():
    """Each network is told its own target in its own method's terms (angle, noise, velocity)."""
    clean, z = torch.randn(2, 26, 1, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noisy = clean + SIGMAS[:, None, None] * z
    angle = torch.atan(SIGMAS)[:, None, None]
    targets = {"v": angle.cos() * z - angle.sin() * clean, "eps": z, "flow": z - clean}
    for name, target in targets.items():
        found = MAKERS[name](lambda x, c, condition, target=target: target)(noisy, SIGMAS)
        assert torch.allclose(found, clean, atol=1e-10), name


def test_labels_are_the_times_of_each_method():
    sigma = torch.tensor([0.25, 1.0, 4.0], dtype=torch.float64)
    trained = schedule.trained_sigmas()
    assert precondition.edm_scalings(sigma, 0.5).label.tolist() == pytest.approx([math.log(s) / 4 for s in sigma])
    assert float(precondition.v_scalings(sigma, 1.0).label[1]) == pytest.approx(0.5)
    assert precondition.flow_scalings(sigma, 1.0).label.tolist() == pytest.approx([0.2, 0.5, 0.8])
    labels = precondition.eps_scalings(trained[[0, 17, 999]] * 0.5, 0.5, trained).label
    assert labels.tolist() == pytest.approx([0, 17, 999], abs=1e-8)
    assert precondition.place(torch.tensor([1e-9, 1e9]), trained).tolist() == [0, 999]


def test_the_condition_and_each_items_own_sigma_reach_the_network():
    def network(x, c_noise, condition):
        return x * condition + c_noise[:, None, None]

    x, sigma = torch.ones(3, 2, 4, dtype=torch.float64), torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    for name, maker in MAKERS.items():
        denoise = maker(network, 2.0)
        one_by_one = torch.cat([denoise(x[i : i + 1], sigma[i : i + 1]) for i in range(3)])
        assert torch.equal(denoise(x, sigma), one_by_one), name
        assert not torch.equal(denoise(x, sigma), maker(network, 1.0)(x, sigma)), name


def test_lognormal_sigma_has_the_quantiles_of_scipy():
    u = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    expected = scipy.stats.lognorm.ppf(u.numpy(), s=1.2, scale=math.exp(-1.2))
    assert np.allclose(precondition.lognormal_sigma(u), expected, rtol=1e-10)


def test_lognormal_sigma_of_our_uniform_numbers_is_always_finite_and_positive():
    drawn = precondition.lognormal_sigma(noise.uniform((100_000,), seed=0, item=0, step=0))
    assert bool(((drawn > 0) & (drawn < math.inf)).all())
    assert float(drawn.log().mean()) == pytest.approx(-1.2, abs=0.02)
    assert float(drawn.log().std()) == pytest.approx(1.2, abs=0.02)


@pytest.mark.parametrize("name", schedule.SCHEDULES)
@pytest.mark.parametrize("n_steps", [1, 2, 7, 100])
def test_every_schedule_decreases_to_zero(name, n_steps):
    sigmas = schedule.SCHEDULES[name](n_steps)
    assert sigmas.shape == (n_steps + 1,)
    assert sigmas.dtype == torch.float64
    assert bool((sigmas.diff() < 0).all())
    assert float(sigmas[-1]) == 0


def test_karras_has_its_ends_and_is_even_in_the_root():
    sigmas = schedule.karras(20, 1e-4, 1.0, 13.0)[:-1]
    assert float(sigmas[0]) == pytest.approx(1.0, rel=1e-12)
    assert float(sigmas[-1]) == pytest.approx(1e-4, rel=1e-12)
    assert torch.allclose((sigmas ** (1 / 13)).diff(), torch.tensor((1e-4 ** (1 / 13) - 1) / 19, dtype=torch.float64))


def test_cosine_flow_and_vp_linear_are_even_in_their_own_time():
    angles, times = torch.atan(schedule.cosine(9)[:-1]), schedule.flow(9, 0.9)
    assert torch.allclose(angles.diff(), angles.diff()[:1].expand(8))
    assert torch.allclose((times / (1 + times)).diff(), torch.tensor(-0.1, dtype=torch.float64))
    assert torch.allclose(schedule.vp_linear(28)[:-1], schedule.trained_sigmas().flip(0)[::37])


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedule.karras(0),
        lambda: schedule.karras(5, 2.0, 1.0),
        lambda: schedule.karras(5, 0.0, 1.0),
        lambda: schedule.karras(5, rho=0),
        lambda: schedule.cosine(5, -1.0, 1.0),
        lambda: schedule.vp_linear(0),
        lambda: schedule.trained_sigmas(0.1, 1.0),
        lambda: schedule.flow(5, 1.0),
        lambda: schedule.flow(5, shift=0),
    ],
)
def test_an_impossible_schedule_is_an_input_error(make):
    with pytest.raises(InputError, match="Give"):
        make()
