"""Our samplers = diffusers' schedulers on the same raw network; theirs run in float32, hence tolerances near 1e-5."""

import math

import diffusers
import numpy as np
import pytest
import torch

from sfumato.diffusion import noise, precondition, sample, schedule

# Their beta schedules pass a tensor to numpy in a way that numpy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WALK = noise.walk((2, 16), seed=11, items=[0, 1, 2])


def network(x, c_noise, condition=None):
    """A smooth, nonlinear, label-dependent stand-in for a trained network."""
    c_noise = torch.as_tensor(c_noise, dtype=x.dtype).reshape(-1, 1, 1)
    return 0.6 * torch.tanh(1.3 * x + 0.2 * torch.cos(c_noise)) + 0.1 * x.roll(1, -1)


def ours(maker, sampler, sigmas, **settings):
    return sample.last(sampler(maker(network), WALK(0) * sigmas[0].float(), sigmas, WALK, **settings))


def theirs(scheduler, start):
    x = start
    for t in scheduler.timesteps:
        raw = network(scheduler.scale_model_input(x, t), t)
        x = scheduler.step(raw, t, x).prev_sample
    return x


def close(found, expected):
    return torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_euler_is_edm_euler():
    scheduler = diffusers.EDMEulerScheduler()
    scheduler.set_timesteps(18)
    sigmas = schedule.karras(18)
    assert torch.allclose(scheduler.sigmas.double(), sigmas, rtol=1e-5)
    assert close(ours(precondition.edm, sample.euler, sigmas), theirs(scheduler, WALK(0) * 80.0))


@pytest.mark.parametrize("n", [6, 18])
def test_dpmpp_2m_is_edm_multistep(n):
    scheduler = diffusers.EDMDPMSolverMultistepScheduler()
    scheduler.set_timesteps(n)
    assert close(ours(precondition.edm, sample.dpmpp_2m, schedule.karras(n)), theirs(scheduler, WALK(0) * 80.0))


def test_dpmpp_2m_sde_is_edm_multistep_sde(monkeypatch):
    module = "diffusers.schedulers.scheduling_edm_dpmsolver_multistep.randn_tensor"
    scheduler = diffusers.EDMDPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")
    scheduler.set_timesteps(18)
    monkeypatch.setattr(module, lambda *a, **k: WALK(scheduler.step_index + 1))
    sigmas = schedule.karras(18)
    assert close(ours(precondition.edm, sample.dpmpp_2m_sde, sigmas), theirs(scheduler, WALK(0) * 80.0))


@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
def test_vp_linear_euler_is_euler_discrete(kind):
    """28 steps, so that the evenly spaced times 999, 962, … are the trained ones and no interpolation differs."""
    scheduler = diffusers.EulerDiscreteScheduler(beta_schedule=kind)
    scheduler.set_timesteps(28)
    sigmas = schedule.vp_linear(28, root=kind == "scaled_linear")
    assert torch.allclose(scheduler.sigmas.double(), sigmas, rtol=1e-4)

    def maker(net):
        return precondition.eps(net, trained=schedule.trained_sigmas(root=kind == "scaled_linear"))

    found = ours(maker, sample.euler, sigmas)
    assert torch.allclose(found, theirs(scheduler, WALK(0) * sigmas[0].float()), rtol=1e-4, atol=1e-4)


def test_ancestral_is_euler_ancestral(monkeypatch):
    module = "diffusers.schedulers.scheduling_euler_ancestral_discrete.randn_tensor"
    scheduler = diffusers.EulerAncestralDiscreteScheduler(prediction_type="v_prediction")
    scheduler.set_timesteps(28)
    monkeypatch.setattr(module, lambda *a, **k: WALK(scheduler.step_index + 1))
    sigmas = scheduler.sigmas.double()

    def maker(net):
        trained = schedule.trained_sigmas()
        return precondition.v(
            lambda x, c, condition: net(x, precondition.place(torch.tan(c * math.pi / 2), trained), condition)
        )

    assert torch.allclose(
        ours(maker, sample.ancestral, sigmas), theirs(scheduler, WALK(0) * sigmas[0].float()), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_is_ddim(eta):
    """Theirs keeps the variance-preserving state, ours times sqrt(1 + sigma^2); the noise is shared."""
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(50)
    trained = schedule.trained_sigmas()
    sigmas = torch.cat([trained[scheduler.timesteps], torch.zeros(1, dtype=torch.float64)])
    x = WALK(0) * float(sigmas[0] / (1 + sigmas[0] ** 2).sqrt())
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(network(x, t), t, x, eta=eta, variance_noise=WALK(i + 1)).prev_sample
    assert torch.allclose(ours(precondition.eps, sample.ddim, sigmas, eta=eta), x, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_euler_is_flow_match_euler(shift):
    """Theirs keeps the state (1 - t) clean + t noise, ours times 1 + sigma = 1 / (1 - t)."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(0.98, 0, 21)[:-1].tolist())
    sigmas = schedule.flow(20, 0.98, shift)
    times = sigmas / (1 + sigmas)
    assert torch.allclose(scheduler.sigmas.double(), times, atol=1e-6)
    x = WALK(0) * float(times[0])
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t / 1000), t, x).prev_sample
    assert close(ours(precondition.flow, sample.euler, sigmas), x)


def test_every_schedule_of_ours_that_diffusers_has_agrees():
    edm = diffusers.EDMEulerScheduler(sigma_min=0.01, sigma_max=5.0, rho=3.0)
    edm.set_timesteps(9)
    assert torch.allclose(edm.sigmas.double(), schedule.karras(9, 0.01, 5.0, 3.0), rtol=1e-5)


@pytest.mark.parametrize("n", [3, 12, 50])
def test_iplms_on_the_crash_grid_is_dance_diffusion_s_scheduler(n):
    """Without both ends: theirs begins at an infinite sigma, and its last step is a multistep one."""
    scheduler = diffusers.IPNDMScheduler()
    scheduler.set_timesteps(n + 1)
    times = scheduler.timesteps.double()
    sigmas = torch.tan(times[1:] * math.pi / 2)
    torch.testing.assert_close(schedule.crash(n, float(sigmas[-1]), float(sigmas[0]))[:-1], sigmas, rtol=1e-4, atol=0)
    start = WALK(0) * sigmas[0].float()
    scheduler.set_begin_index(1)
    x = start / math.sqrt(1 + float(sigmas[0]) ** 2)
    for t in scheduler.timesteps[1:-1]:
        x = scheduler.step(network(x, t), t, x).prev_sample
    found = sample.last(sample.iplms(precondition.v(network), start, sigmas))
    expected = x * math.sqrt(1 + float(sigmas[-1]) ** 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
