"""Samplers: generators that walk a denoiser down a grid of sigmas, one `Step` at a time.

All have the signature `sampler(denoise, x, sigmas, noise=None)`, where `x` is noisy by `sigmas[0]`. Iterating
is the progress bar, the preview and the cancel; `last` is the result. Coefficients are computed in float64 on
the CPU; the state keeps the dtype and device of `x`. A step to sigma 0 returns the denoiser's guess itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor

from sfumato.diffusion.noise import Noise
from sfumato.diffusion.precondition import Denoiser

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True)
class Step:
    """A finished step: the state `x`, whose noise is now `sigma`, and the guess `denoised` that led to it."""

    i: int
    sigma: float
    x: Tensor
    denoised: Tensor


def last(steps: Iterable[Step]) -> Tensor:
    """The state after the last step: the sample."""
    step: Step | None = None
    for step in steps:  # noqa: B007
        pass
    if step is None:
        raise ValueError("The sampler made no step: its grid needs two levels or more.")
    return step.x


def _pairs(sigmas: Tensor) -> Iterator[tuple[int, float, float]]:
    levels = sigmas.double().tolist()
    return ((i, a, b) for i, (a, b) in enumerate(pairwise(levels)))


def _at(denoise: Denoiser, x: Tensor, sigma: float) -> Tensor:
    return denoise(x, x.new_full((x.shape[0],), sigma))


def _towards(x: Tensor, denoised: Tensor, ratio: float) -> Tensor:
    """`x` moved along the line to `denoised` until `ratio` of its noise is left."""
    return denoised + ratio * (x - denoised) if ratio else denoised


def _draw(noise: Noise | None, i: int, x: Tensor) -> Tensor:
    if noise is None:
        raise ValueError("This sampler adds noise: pass noise, for example sfumato.diffusion.noise.walk(…).")
    return noise(i + 1).to(x)


def euler(
    denoise: Denoiser, x: Float[Tensor, "b c *t"], sigmas: Float[Tensor, " n"], noise: Noise | None = None
) -> Iterator[Step]:
    """Euler steps along the probability-flow ODE; order 1, one evaluation a step, `noise` unused.

    References
    ----------
    Karras et al., arXiv 2206.00364, Algorithm 1 without its correction.
    """
    for i, sigma, target in _pairs(sigmas):
        denoised = _at(denoise, x, sigma)
        x = _towards(x, denoised, target / sigma)
        yield Step(i, target, x, denoised)


def heun(
    denoise: Denoiser,
    x: Float[Tensor, "b c *t"],
    sigmas: Float[Tensor, " n"],
    noise: Noise | None = None,
    *,
    churn: float = 0.0,
) -> Iterator[Step]:
    """Heun steps along the probability-flow ODE; order 2, two evaluations a step (one for the last).

    Parameters
    ----------
    churn
        Amount of noise added before each step, spread over the whole grid (S_churn; 0 needs no `noise`).

    References
    ----------
    Karras et al., arXiv 2206.00364, Algorithm 1 (churn 0) and Algorithm 2.

    Notes
    -----
    Algorithm 2's S_tmin, S_tmax and S_noise are left at their neutral 0, infinity and 1.
    """
    gamma = min(churn / (len(sigmas) - 1), math.sqrt(2) - 1)
    for i, sigma, target in _pairs(sigmas):
        if gamma > 0:
            raised = sigma * (1 + gamma)
            x = x + math.sqrt(raised**2 - sigma**2) * _draw(noise, i, x)
            sigma = raised
        denoised = _at(denoise, x, sigma)
        guess = _towards(x, denoised, target / sigma)
        if target > 0:
            slope, slope_there = (x - denoised) / sigma, (guess - _at(denoise, guess, target)) / target
            guess = x + (target - sigma) * (slope + slope_there) / 2
        x = guess
        yield Step(i, target, x, denoised)


def dpmpp_2m(
    denoise: Denoiser, x: Float[Tensor, "b c *t"], sigmas: Float[Tensor, " n"], noise: Noise | None = None
) -> Iterator[Step]:
    """DPM-Solver++(2M): exponential integrator in log sigma that extrapolates from the previous guess.

    Order 2 with one evaluation a step; `noise` unused. The first step and the one to 0 are of order 1.

    References
    ----------
    Lu et al., "DPM-Solver++", arXiv 2211.01095, Algorithm 2.
    """
    yield from dpmpp_2m_sde(denoise, x, sigmas, noise, eta=0.0)


def dpmpp_2m_sde(
    denoise: Denoiser,
    x: Float[Tensor, "b c *t"],
    sigmas: Float[Tensor, " n"],
    noise: Noise | None = None,
    *,
    eta: float = 1.0,
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M): `dpmpp_2m` along the diffusion SDE, one evaluation and one draw of noise a step.

    Parameters
    ----------
    eta
        Share of fresh noise: 0 is the ODE (and needs no `noise`), 1 the reverse SDE.

    References
    ----------
    Lu et al., arXiv 2211.01095, SDE-DPM-Solver++(2M); eta as in Karras et al., arXiv 2206.00364, eq. 6 with
    beta(t) = eta sigma'(t) / sigma(t).
    """
    before, h_before = None, 0.0
    for i, sigma, target in _pairs(sigmas):
        denoised = _at(denoise, x, sigma)
        if target == 0:
            yield Step(i, target, denoised, denoised)
            return
        h = math.log(sigma / target)
        ratio = math.exp(-(1 + eta) * h)
        aim = denoised if before is None else denoised + (h / h_before / 2) * (denoised - before)
        x = _towards(x, aim, ratio)
        if eta > 0:
            x = x + target * math.sqrt(-math.expm1(-2 * eta * h)) * _draw(noise, i, x)
        before, h_before = denoised, h
        yield Step(i, target, x, denoised)


def ancestral(
    denoise: Denoiser,
    x: Float[Tensor, "b c *t"],
    sigmas: Float[Tensor, " n"],
    noise: Noise | None = None,
    *,
    eta: float = 1.0,
) -> Iterator[Step]:
    """Ancestral steps: Euler to below the target level, then fresh noise up to it; order 1.

    Parameters
    ----------
    eta
        Share of fresh noise in [0, 1]: 0 is `euler` (and needs no `noise`), 1 is DDPM's posterior.

    References
    ----------
    Ho et al., arXiv 2006.11239, eq. 6-7, and Song et al., arXiv 2010.02502, eq. 12 and 16; both become
    up^2 = eta^2 target^2 (sigma^2 - target^2) / sigma^2 for noisy = clean + sigma noise.
    """
    for i, sigma, target in _pairs(sigmas):
        denoised = _at(denoise, x, sigma)
        up = eta * target * math.sqrt(1 - (target / sigma) ** 2)
        x = _towards(x, denoised, math.sqrt(target**2 - up**2) / sigma)
        if up > 0:
            x = x + up * _draw(noise, i, x)
        yield Step(i, target, x, denoised)


def ddim(
    denoise: Denoiser,
    x: Float[Tensor, "b c *t"],
    sigmas: Float[Tensor, " n"],
    noise: Noise | None = None,
    *,
    eta: float = 0.0,
) -> Iterator[Step]:
    """DDIM steps, deterministic unless `eta` is above 0; order 1.

    References
    ----------
    Song et al., "Denoising Diffusion Implicit Models", arXiv 2010.02502, eq. 12.

    Notes
    -----
    For noisy = clean + sigma noise these are `ancestral` steps; only the default of `eta` differs.
    """
    yield from ancestral(denoise, x, sigmas, noise, eta=eta)


_ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights of the newest slopes, newest first, by how many there are."""


def iplms(
    denoise: Denoiser, x: Float[Tensor, "b c *t"], sigmas: Float[Tensor, " n"], noise: Noise | None = None
) -> Iterator[Step]:
    """Improved pseudo linear multistep: steps along a weighted mean of up to four slopes; `noise` unused.

    One evaluation a step. The weights are those for even steps on any grid, and the first steps, which have fewer
    slopes, are of lower order, so that it converges with order 2, if quickly.

    References
    ----------
    Liu et al., "Pseudo Numerical Methods for Diffusion Models on Manifolds", arXiv 2202.09778, eq. 9 and 12, with
    Adams-Bashforth's lower orders in place of its Runge-Kutta start: crowsonkb's v-diffusion, the published sampler of
    Dance Diffusion.

    Notes
    -----
    In the reference the last step, too, is a multistep one, and doesn't end on a denoiser's guess.
    """
    slopes: list[Tensor] = []
    for i, sigma, target in _pairs(sigmas):
        denoised = _at(denoise, x, sigma)
        slopes = [(x - denoised) / sigma, *slopes][:4]
        if target == 0:
            x = denoised
        else:
            weights = _ADAMS_BASHFORTH[len(slopes) - 1]
            x = x + (target - sigma) * sum(weight * slope for weight, slope in zip(weights, slopes, strict=True))
        yield Step(i, target, x, denoised)


SAMPLERS = {
    "euler": euler,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "ancestral": ancestral,
    "ddim": ddim,
    "iplms": iplms,
}
