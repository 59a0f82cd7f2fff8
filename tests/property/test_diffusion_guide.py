"""Guides: known samples exact, windows seamless, guidance towards the closed-form posterior."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.diffusion import guide, noise, sample, schedule
from sfumato.diffusion.precondition import spread
from sfumato.errors import InputError

N = 24
GRID = torch.arange(N, dtype=torch.float64)
COVARIANCE = 0.25 * torch.exp(-((GRID[:, None] - GRID) ** 2) / 18) + 1e-6 * torch.eye(N, dtype=torch.float64)
KNOWN = (GRID < 9) | (GRID >= 15)
WALK = noise.walk((1, N), seed=4, items=[0, 1])
CLEAN = WALK(1000).double() @ torch.linalg.cholesky(COVARIANCE).T


def gaussian(x, sigma):
    """The exact denoiser of data N(0, COVARIANCE): C (C + sigma^2 I)^-1 x."""
    eye = torch.eye(N, dtype=x.dtype)
    noisy = COVARIANCE.to(x) + spread(sigma, x).square() * eye
    return (COVARIANCE.to(x) @ torch.linalg.solve(noisy, x.mT)).mT


def measure(clean):
    return clean[..., KNOWN]


def pointwise(x, sigma):
    return torch.tanh(x) / (1 + spread(sigma, x))


def posterior_mean(x, sigma):
    """E[clean | x = clean + sigma z, measure(clean) = observed]: the known samples as almost exact measurements."""
    precision = torch.linalg.inv(COVARIANCE) + torch.eye(N, dtype=x.dtype) / sigma**2 + torch.diag(KNOWN * 1e8)
    return torch.linalg.solve(precision, (x / sigma**2 + CLEAN * KNOWN * 1e8).mT).mT


@pytest.mark.parametrize("name", sample.SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keep_makes_known_samples_exact_under_every_sampler(name, dtype):
    observed, known = CLEAN.to(dtype), KNOWN.expand(2, 1, N)
    denoise = guide.keep(gaussian, guide.known_samples(observed, known))
    sigmas = schedule.karras(8, 0.01, 5.0)
    filled = sample.last(sample.SAMPLERS[name](denoise, WALK(0).to(dtype) * 5, sigmas, WALK))
    assert torch.equal(filled[known], observed[known])
    assert bool((filled[~known] != observed[~known]).all())


def test_strength_is_the_published_loop():
    """Which puts the noised source into the state before each step."""
    sigmas = schedule.karras(10, 0.01, 5.0).double()
    start, hold = WALK(0).double(), torch.linspace(0, 0.999, N, dtype=torch.float64)
    x = CLEAN + sigmas[0] * start
    for i in range(10):
        x = torch.where(hold > i / 10, CLEAN + sigmas[i] * start, x)
        x = x + (sigmas[i + 1] - sigmas[i]) * (x - gaussian(x, sigmas[i].expand(2))) / sigmas[i]
    held = guide.strength(gaussian, CLEAN, hold, sigmas)
    found = sample.last(sample.SAMPLERS["euler"](held, CLEAN + sigmas[0] * start, sigmas))
    assert torch.allclose(found, x, atol=1e-12)


@pytest.mark.parametrize("name", sample.SAMPLERS)
def test_more_hold_changes_less(name):
    """Of the same noise, under every sampler: the whole held for longer ends nearer to its source."""
    sigmas = schedule.karras(10, 0.01, 5.0).double()
    distances = []
    for hold in (0.0, 0.25, 0.5, 0.75, 1.0):
        denoise = guide.strength(gaussian, CLEAN, torch.tensor(hold, dtype=torch.float64), sigmas)
        made = sample.last(sample.SAMPLERS[name](denoise, CLEAN + 5 * WALK(0).double(), sigmas, WALK))
        distances.append(float((made - CLEAN).square().mean()))
    assert distances == sorted(distances, reverse=True) and distances[-1] == 0 < distances[-2]


def test_cfg_is_linear_in_the_score():
    def conditional(x, sigma):
        return x * 0.5 + 1

    x, sigma = WALK(1), torch.tensor([0.5, 2.0])
    assert guide.cfg(conditional, pointwise, 1) is conditional
    assert torch.equal(guide.cfg(conditional, pointwise, 0)(x, sigma), pointwise(x, sigma))
    scores = [(d(x, sigma) - x) / spread(sigma, x) ** 2 for d in (conditional, pointwise)]
    found = (guide.cfg(conditional, pointwise, 3.0)(x, sigma) - x) / spread(sigma, x) ** 2
    assert torch.allclose(found, 3 * scores[0] - 2 * scores[1], atol=1e-5)


def normal_denoiser(mean, std):
    """The exact denoiser of independent N(mean, std²) samples."""

    def denoise(x, sigma):
        gain = std**2 / (std**2 + spread(sigma, x) ** 2)
        return mean + gain * (x - mean)

    return denoise


@pytest.mark.parametrize("scale", [0.0, 2.5, 4.0])
def test_guidance_between_gaussians_of_one_spread_moves_their_mean(scale):
    """The guided denoiser of N(a, s²) against N(b, s²) is that of N(b + scale (a - b), s²): samples show its mean."""
    a, b, std = 0.7, -0.2, 0.5
    guided = guide.cfg(normal_denoiser(a, std), normal_denoiser(b, std), scale)
    x, sigma = WALK(2).double(), torch.tensor([0.3, 2.0], dtype=torch.float64)
    torch.testing.assert_close(guided(x, sigma), normal_denoiser(b + scale * (a - b), std)(x, sigma))
    start = 20.0 * noise.normal((1, 1, 4000), seed=1, item=0, step=0)
    drawn = sample.last(sample.heun(guided, start, schedule.karras(40, 0.01, 20.0).float()))
    arrived = 1 - std / math.hypot(std, 20.0)  # the noise that the sampler starts from has no mean
    assert float(drawn.mean()) == pytest.approx(arrived * (b + scale * (a - b)), abs=0.02)
    assert float(drawn.std()) == pytest.approx(std, rel=0.03)


def test_outside_its_interval_guidance_costs_and_changes_nothing():
    calls = []

    def unconditional(x, sigma):
        calls.append(sigma.clone())
        return pointwise(x, sigma)

    conditional = normal_denoiser(1.0, 0.5)
    guided = guide.cfg(conditional, unconditional, 3.0, interval=(0.5, 2.0))
    for outside in (0.5, 2.0001):
        assert torch.equal(guided(WALK(3), torch.full((2,), outside)), conditional(WALK(3), torch.full((2,), outside)))
    assert not calls
    mixed = torch.tensor([2.0, 0.4])
    found, everywhere = guided(WALK(3), mixed), guide.cfg(conditional, pointwise, 3.0)(WALK(3), mixed)
    assert len(calls) == 1
    assert torch.equal(found[0], everywhere[0])
    assert torch.equal(found[1], conditional(WALK(3), mixed)[1])
    with pytest.raises(InputError, match="low < high"):
        guide.cfg(conditional, pointwise, 3.0, interval=(1.0, 1.0))


@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_rescaling_brings_each_item_to_the_conditional_one_s_spread(share):
    conditional = normal_denoiser(0.0, 0.9)
    plain, scaled = (guide.cfg(conditional, pointwise, 6.0, rescale=r) for r in (0.0, share))
    x, sigma = WALK(4).double(), torch.tensor([0.3, 2.0], dtype=torch.float64)
    before, after = plain(x, sigma), scaled(x, sigma)
    wanted = share * conditional(x, sigma).flatten(1).std(dim=1) + (1 - share) * before.flatten(1).std(dim=1)
    torch.testing.assert_close(after.flatten(1).std(dim=1), wanted)
    torch.testing.assert_close(after / after.flatten(1).norm(dim=1)[:, None, None],
                               before / before.flatten(1).norm(dim=1)[:, None, None])  # fmt: skip
    alone = guide.cfg(conditional, pointwise, 6.0, rescale=share)(x[:1], sigma[:1])
    torch.testing.assert_close(alone, after[:1])
    with pytest.raises(InputError, match="rescale"):
        guide.cfg(conditional, pointwise, 6.0, rescale=1.1)


@given(st.integers(1, 80), st.integers(1, 40), st.data())
@settings(max_examples=100)
def test_windows_are_exact_for_a_pointwise_denoiser(total, length, data):
    overlap = data.draw(st.integers(0, length - 1))
    x = noise.normal((2, 1, total), seed=0, item=total, step=length).double()
    sigma = torch.tensor([0.3, 3.0], dtype=torch.float64)
    found = guide.windows(pointwise, length, overlap)(x, sigma)
    assert torch.allclose(found, pointwise(x, sigma), atol=1e-14)


@given(st.integers(1, 40))
@settings(max_examples=20)
def test_a_signal_no_longer_than_a_window_is_denoised_whole(total):
    def context(x, sigma):
        return x.cumsum(-1) - x.mean(-1, keepdim=True)

    x, sigma = noise.normal((2, 1, total), seed=0, item=0, step=0), torch.ones(2)
    assert torch.equal(guide.windows(context, 40, 10)(x, sigma), context(x, sigma))


def test_windows_see_no_more_than_their_length_and_cross_by_a_raised_cosine():
    seen = []

    def index(x, sigma):
        seen.append(x.shape[-1])
        return torch.full_like(x, len(seen) - 1.0)

    found = guide.windows(index, 16, 8)(torch.zeros(1, 1, 24, dtype=torch.float64), torch.ones(1))
    ramp = [math.sin(math.pi / 2 * (k + 0.5) / 8) ** 2 for k in range(8)]
    assert seen == [16, 16]
    assert found.flatten().tolist() == pytest.approx([0.0] * 8 + ramp + [1.0] * 8, abs=1e-12)


def test_each_window_is_told_its_own_part_of_what_is_given():
    """A denoiser that answers what it is given draws the whole of it, whatever the windows."""
    given = torch.randn(1, 2, 61, dtype=torch.float64)
    lengths = []

    def bind(part):
        lengths.append(part.shape[-1])
        return lambda x, sigma: part.sum(dim=1, keepdim=True).expand_as(x)

    x, sigma = torch.zeros(1, 3, 61, dtype=torch.float64), torch.ones(1)
    found = guide.windows_given(bind, given, 16, 6)(x, sigma)
    torch.testing.assert_close(found, given.sum(dim=1, keepdim=True).expand_as(x))
    assert set(lengths) == {16} and len(lengths) == 6
    short = guide.windows_given(bind, given, 61, 6)(x, sigma)
    assert torch.equal(short, given.sum(dim=1, keepdim=True).expand_as(x))


@pytest.mark.parametrize(("length", "overlap"), [(8, 8), (8, -1), (0, 0)])
def test_impossible_windows_are_an_input_error(length, overlap):
    with pytest.raises(InputError, match="Give 0 ≤ overlap < length"):
        guide.windows(pointwise, length, overlap)


def test_posterior_step_is_the_normalised_gradient_in_closed_form():
    """For the linear denoiser J x the gradient is J^T A^T (A J x - y); the step's root mean square is xi sigma."""
    sigma = torch.tensor([0.2, 1.0], dtype=torch.float64)
    x = CLEAN + spread(sigma, CLEAN) * WALK(7).double()
    found = guide.posterior(gaussian, measure, measure(CLEAN), 0.25)(x, sigma)
    plain = gaussian(x, sigma)
    gradient = gaussian((plain - CLEAN) * KNOWN, sigma)  # J is symmetric
    step = 0.25 * spread(sigma, x) * math.sqrt(N) * gradient / gradient.norm(dim=-1, keepdim=True)
    assert torch.allclose(found, plain - step, atol=1e-10)


@pytest.mark.parametrize("level", [0.1, 0.3, 1.0])
def test_posterior_moves_towards_the_measurement_and_the_closed_form_mean(level):
    sigma = torch.full((2,), level, dtype=torch.float64)
    x = CLEAN + level * WALK(5).double()
    plain, guided = gaussian(x, sigma), guide.posterior(gaussian, measure, measure(CLEAN), 0.1)(x, sigma)
    mean = posterior_mean(x, level)
    for item in range(2):
        assert (measure(guided - CLEAN)[item].norm() < measure(plain - CLEAN)[item].norm()).item()
        assert ((guided - mean)[item].norm() < (plain - mean)[item].norm()).item()


def test_sampling_with_posterior_nears_the_closed_form_where_nothing_was_measured():
    """64 draws at xi 0.5 from sigma 3. The exact gap is the kriging mean ± 0.03; unguided draws are 0.6 from it."""
    gap, draws = ~KNOWN, 64
    observed = CLEAN[:1].expand(draws, 1, N)
    weights = torch.linalg.solve(COVARIANCE[KNOWN][:, KNOWN], COVARIANCE[KNOWN][:, gap])
    walk, sigmas = noise.walk((1, N), seed=4, items=range(draws)), schedule.karras(30, 1e-3, 3.0)
    missed, distance, bias = [], [], []
    for denoise in (gaussian, guide.posterior(gaussian, measure, measure(observed), 0.5)):
        drawn = sample.last(sample.heun(denoise, walk(0).double() * 3, sigmas))
        away = drawn[..., gap] - measure(observed) @ weights
        missed.append(float(measure(drawn - observed).square().mean().sqrt()))
        distance.append(float(away.square().mean().sqrt()))
        bias.append(float(away.mean(0).square().mean().sqrt()))
    assert missed[1] < 0.1 * missed[0]
    assert distance[1] < 0.5 * distance[0]
    assert bias[1] < 0.3 * bias[0]


def test_posterior_knows_nothing_of_its_batch_and_needs_no_grad_mode():
    sigma, x = torch.tensor([0.2, 1.0], dtype=torch.float64), CLEAN + 0.5 * WALK(9).double()
    both = guide.posterior(gaussian, measure, measure(CLEAN), 0.25)(x, sigma)
    for i in range(2):
        alone = guide.posterior(gaussian, measure, measure(CLEAN)[i : i + 1], 0.25)
        with torch.inference_mode():
            found = alone(x[i : i + 1] * 1.0, sigma[i : i + 1] * 1.0)
        assert torch.allclose(found, both[i : i + 1], atol=1e-12)
    assert not both.requires_grad


def test_posterior_without_strength_or_without_error_changes_nothing():
    x, sigma = CLEAN + WALK(3).double(), torch.ones(2, dtype=torch.float64)
    plain = gaussian(x, sigma)
    assert torch.equal(guide.posterior(gaussian, measure, measure(CLEAN), 0.0)(x, sigma), plain)
    assert torch.equal(guide.posterior(gaussian, measure, measure(plain), 0.5)(x, sigma), plain)


@given(st.integers(1, 80), st.integers(1, 40), st.data())
@settings(max_examples=100)
def test_a_circle_is_exact_for_a_pointwise_denoiser(total, length, data):
    overlap = data.draw(st.integers(0, length - 1))
    x = noise.normal((2, 1, total), seed=0, item=total, step=length).double()
    sigma = torch.tensor([0.3, 3.0], dtype=torch.float64)
    assert torch.allclose(guide.circle(pointwise, length, overlap)(x, sigma), pointwise(x, sigma), atol=1e-14)


def around(x, sigma):
    """A denoiser that looks around itself and knows no more than its window."""
    padded = torch.nn.functional.pad(x, (3, 3))
    return (padded.unfold(-1, 7, 1) * torch.linspace(-1, 1, 7, dtype=x.dtype)).sum(-1) / (1 + spread(sigma, x))


def test_no_place_of_a_circle_is_an_end():
    """Turned by the distance of its windows, a loop's guess is turned; and across the seam it sees what is there."""
    x = noise.normal((1, 1, 96), seed=0, item=0, step=0).double()
    joint, sigma = guide.circle(around, 32, 16), torch.tensor([0.5], dtype=torch.float64)
    for turn in (16, 48, 80):
        assert torch.allclose(joint(x.roll(turn, -1), sigma), joint(x, sigma).roll(turn, -1), atol=1e-12)
    for turn in (1, 7, 16):
        turned = guide.circle(around, 32, 16, lambda total, turn=turn: turn)(x.roll(turn, -1), sigma)
        assert torch.allclose(turned, joint(x, sigma).roll(turn, -1), atol=1e-12)
    whole = around(x.repeat(1, 1, 3), sigma)[..., 96:192]
    assert float((joint(x, sigma) - whole).abs()[..., [0, -1]].max()) < 0.05 * float(whole.std())
    straight = guide.windows(around, 32, 16)(x, sigma)
    assert float((straight - whole).abs()[..., [0, -1]].max()) > 0.05 * float(whole.std())


@pytest.mark.parametrize("total", [5, 17, 32])
def test_a_loop_shorter_than_a_window_is_seen_repeated(total):
    x, seen = noise.normal((1, 1, total), seed=0, item=0, step=0), []

    def remember(window, sigma):
        seen.append(window)
        return window

    assert torch.allclose(guide.circle(remember, 32, 8)(x, torch.ones(1)), x, atol=1e-6)
    for window in seen:
        assert window.shape[-1] == 32
        assert torch.equal(window[..., :-total], window[..., total:])


@pytest.mark.parametrize(("length", "overlap"), [(8, 8), (8, -1), (0, 0)])
def test_impossible_circles_are_an_input_error(length, overlap):
    with pytest.raises(InputError, match="Give 0 ≤ overlap < length"):
        guide.circle(pointwise, length, overlap)
