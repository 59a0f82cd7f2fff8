"""Schedules: decreasing grids of the noise's standard deviation, float64, shape (n_steps + 1,), ending in 0.

All in one space: noisy = clean + sigma * noise. A variance-preserving state is the same divided by
sqrt(1 + sigma^2), a flow's by 1 + sigma; a sampler never sees either. `cosine`, `crash`, `vp_linear` and `flow` speak
of data of unit variance: multiply their grid by `sigma_data` otherwise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sfumato.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float


def _check(n_steps: int, sigma_min: float, sigma_max: float) -> None:
    if n_steps < 1:
        raise InputError(f"{n_steps} steps were asked for. Give at least 1.")
    if not 0 < sigma_min <= sigma_max < math.inf or (n_steps > 1 and sigma_min == sigma_max):
        raise InputError(f"Noise levels {sigma_max} … {sigma_min} don't decrease. Give 0 < sigma_min < sigma_max.")


def _close(sigmas: Tensor) -> Tensor:
    """The grid with its final 0."""
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def karras(
    n_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Float[Tensor, " {n_steps}+1"]:
    """Grid evenly spaced in sigma^(1/rho), then 0.

    Parameters
    ----------
    n_steps
        Number of steps, at least 1; a single step goes from `sigma_max` straight to 0.
    sigma_min, sigma_max
        Last level above 0 and first level, in the unit of the data.
    rho
        Above 0. 1 is linear, 7 the paper's; larger spends more steps at low noise.

    References
    ----------
    Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models",
    arXiv 2206.00364, eq. 5.

    Examples
    --------
    >>> karras(3, 1.0, 9.0, 2.0).tolist()
    [9.0, 4.0, 1.0, 0.0]
    """
    _check(n_steps, sigma_min, sigma_max)
    if rho <= 0:
        raise InputError(f"rho {rho} isn't above 0. Give 1 for a linear grid, 7 for the paper's.")
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return _close(torch.linspace(high, low, n_steps, dtype=torch.float64) ** rho)


def cosine(n_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Float[Tensor, " {n_steps}+1"]:
    """Grid evenly spaced in the angle atan(sigma), the time of v-prediction's cosine schedule; then 0.

    References
    ----------
    Salimans & Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", arXiv 2202.00512,
    §2 and App. D: alpha = cos(phi), sigma_vp = sin(phi), hence sigma = tan(phi).
    """
    _check(n_steps, sigma_min, sigma_max)
    angles = torch.linspace(math.atan(sigma_max), math.atan(sigma_min), n_steps, dtype=torch.float64)
    return _close(torch.tan(angles))


def crash_sigma(t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Noise level of the crash schedule at time `t` in (0, 1): s / sqrt(1 - s^2), where s = sin^2(pi t / 2).

    References
    ----------
    Harmonai, sample-generator, `get_crash_schedule`: in a variance-preserving state the noise is s.
    """
    quarter = t * (math.pi / 2)
    # 1 - s^2 = cos^2 (1 + sin^2), which loses no digits close to t = 1.
    return quarter.sin().square() / (quarter.cos() * (1 + quarter.sin().square()).sqrt())


def crash(n_steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Float[Tensor, " {n_steps}+1"]:
    """Grid evenly spaced in the time of the crash schedule from `sigma_max` to `sigma_min`, then 0.

    Upstream's grid starts from time 1, where sigma is infinite, with the same steps in between.

    References
    ----------
    As `crash_sigma`, whose inverse is t = 2 / pi * asin((sigma^2 / (1 + sigma^2))^(1/4)).
    """
    _check(n_steps, sigma_min, sigma_max)
    first, last = (
        2 / math.pi * math.asin((sigma**2 / (1 + sigma**2)) ** 0.25) for sigma in (sigma_max, sigma_min)
    )
    return _close(crash_sigma(torch.linspace(first, last, n_steps, dtype=torch.float64)))


def trained_sigmas(
    beta_min: float = 1e-4, beta_max: float = 0.02, n_trained: int = 1000, root: bool = False
) -> Float[Tensor, " {n_trained}"]:
    """The increasing noise levels that a discrete-time network was trained on: sqrt((1 - abar_t) / abar_t).

    Parameters
    ----------
    beta_min, beta_max
        First and last variance of the forward chain, in (0, 1).
    n_trained
        Length of the chain.
    root
        False: betas evenly spaced (DDPM). True: their square roots (latent diffusion, "scaled linear").

    References
    ----------
    Ho et al., "Denoising Diffusion Probabilistic Models", arXiv 2006.11239, §2 and §4;
    Rombach et al., arXiv 2112.10752, for the roots.
    """
    if not 0 < beta_min <= beta_max < 1 or n_trained < 2:
        raise InputError(
            f"Betas {beta_min} … {beta_max}, {n_trained} steps. Give 0 < min ≤ max < 1 and at least 2 steps."
        )
    power = 2 if root else 1
    low, high = beta_min ** (1 / power), beta_max ** (1 / power)
    betas = torch.linspace(low, high, n_trained, dtype=torch.float64) ** power
    kept = torch.cumprod(1 - betas, 0)
    return ((1 - kept) / kept).sqrt()


def vp_linear(
    n_steps: int, beta_min: float = 1e-4, beta_max: float = 0.02, n_trained: int = 1000, root: bool = False
) -> Float[Tensor, " {n_steps}+1"]:
    """Grid evenly spaced in the discrete time of `trained_sigmas` (log-linear between its levels), then 0."""
    trained = trained_sigmas(beta_min, beta_max, n_trained, root)
    _check(n_steps, float(trained[0]), float(trained[-1]))
    place = torch.linspace(n_trained - 1, 0, n_steps, dtype=torch.float64)
    below = place.floor().long().clamp(max=n_trained - 2)
    return _close(torch.lerp(trained.log()[below], trained.log()[below + 1], place - below).exp())


def flow(n_steps: int, t_max: float = 0.999, shift: float = 1.0) -> Float[Tensor, " {n_steps}+1"]:
    """Grid evenly spaced in the time t of the straight path (1 - t) clean + t noise: t / (1 - t).

    Parameters
    ----------
    n_steps
        Number of steps, at least 1.
    t_max
        First time, in (0, 1). At t = 1 sigma would be infinite; .999 is sigma 999.
    shift
        Above 0; multiplies every sigma. Above 1 it spends more steps at high noise.

    References
    ----------
    Lipman et al., arXiv 2210.02747; Esser et al., arXiv 2403.03206, eq. 23:
    t' = shift t / (1 + (shift - 1) t), which in sigma is a plain factor.
    """
    if not 0 < t_max < 1 or shift <= 0 or n_steps < 1:
        raise InputError(
            f"{n_steps} steps from t {t_max}, shift {shift}. Give at least 1 step, 0 < t < 1 and shift > 0."
        )
    t = torch.linspace(t_max, 0, n_steps + 1, dtype=torch.float64)
    return shift * t / (1 - t)


SCHEDULES = {"karras": karras, "cosine": cosine, "crash": crash, "vp_linear": vp_linear, "flow": flow}
