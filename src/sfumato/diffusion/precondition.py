"""Preconditioning: makers that turn a raw network into `denoise(x, sigma)`, all that samplers know.

Every maker is the same sentence with four numbers per item (`Scalings`):
denoised = skip * x + out * network(into * x, label, condition).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from sfumato.diffusion import schedule

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped


@runtime_checkable
class Denoiser(Protocol):
    """The waist of the diffusion core: models make one, guides wrap one, samplers consume one."""

    def __call__(self, x: Float[Tensor, "b c *t"], sigma: Float[Tensor, " b"], /) -> Float[Tensor, "b c *t"]:
        """Best guess of the clean signal behind `x`, whose noise has standard deviation `sigma`."""


@runtime_checkable
class Network(Protocol):
    """A raw network. `condition` is whatever its architecture takes, bound once by the maker."""

    def __call__(
        self, x: Float[Tensor, "b c *t"], c_noise: Float[Tensor, " b"], condition: Any, /
    ) -> Float[Tensor, "b c *t"]:
        """The raw output for the scaled noisy input `x` and noise label `c_noise`."""


@dataclass(frozen=True)
class Scalings:
    """The four numbers per item that stand between a network and a denoiser, each of shape (b,)."""

    skip: Tensor
    out: Tensor
    into: Tensor
    label: Tensor


def spread(values: Shaped[Tensor, " b"], like: Float[Tensor, "b ..."]) -> Shaped[Tensor, "b ..."]:
    """`values`, one per item, shaped to broadcast over `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def edm_scalings(sigma: Float[Tensor, " b"], sigma_data: float) -> Scalings:
    """Input and training target of unit variance, errors of the network amplified least.

    References
    ----------
    Karras et al., arXiv 2206.00364, Table 1 and App. B.6.
    """
    total = (sigma**2 + sigma_data**2).sqrt()
    return Scalings(sigma_data**2 / total**2, sigma * sigma_data / total, 1 / total, sigma.log() / 4)


def v_scalings(sigma: Float[Tensor, " b"], sigma_data: float) -> Scalings:
    """The network guesses v = alpha noise - sigma_vp clean; its label is the cosine time in (0, 1).

    References
    ----------
    Salimans & Ho, arXiv 2202.00512, App. D, for data divided by `sigma_data`.
    """
    total = (sigma**2 + sigma_data**2).sqrt()
    time = torch.atan(sigma / sigma_data) * (2 / math.pi)
    return Scalings(sigma_data**2 / total**2, -sigma * sigma_data / total, 1 / total, time)


def eps_scalings(sigma: Float[Tensor, " b"], sigma_data: float, trained: Float[Tensor, " n"]) -> Scalings:
    """The network guesses the noise; its label is the (fractional) index of sigma among the `trained` levels.

    References
    ----------
    Ho et al., arXiv 2006.11239, eq. 9-12; Karras et al., arXiv 2206.00364, Table 1, column VP.
    """
    total = (sigma**2 + sigma_data**2).sqrt()
    return Scalings(torch.ones_like(sigma), -sigma, 1 / total, place(sigma / sigma_data, trained))


def flow_scalings(sigma: Float[Tensor, " b"], sigma_data: float) -> Scalings:
    """The network guesses the straight path's velocity noise - clean; its label is the path's time in (0, 1).

    Notes
    -----
    By the method's definition the input's variance is between 1/2 and 1, and the target's is 2.

    References
    ----------
    Lipman et al., arXiv 2210.02747, eq. 20-23 with the ends swapped; Liu et al., arXiv 2209.03003, eq. 1;
    for data divided by `sigma_data`.
    """
    total = sigma + sigma_data
    return Scalings(sigma_data / total, -sigma * sigma_data / total, 1 / total, sigma / total)


def place(sigma: Float[Tensor, " b"], trained: Float[Tensor, " n"]) -> Float[Tensor, " b"]:
    """Fractional index of `sigma` in the increasing levels `trained`: log-linear, held at both ends."""
    levels, wanted = trained.to(sigma.device).log(), sigma.to(torch.float64).log()
    wanted = wanted.clamp(levels[0], levels[-1])
    above = torch.searchsorted(levels, wanted).clamp(1, len(levels) - 1)
    low, high = levels[above - 1], levels[above]
    return (above - 1 + (wanted - low) / (high - low)).to(sigma.dtype)


def _make(network: Network, condition: Any, scalings: Callable[[Tensor], Scalings]) -> Denoiser:
    def denoise(x: Tensor, sigma: Tensor, /) -> Tensor:
        s = scalings(sigma)
        raw = network(spread(s.into, x) * x, s.label, condition)
        return spread(s.skip, x) * x + spread(s.out, x) * raw

    return denoise


def edm(network: Network, condition: Any = None, sigma_data: float = 0.5) -> Denoiser:
    """Denoiser of a network preconditioned as in EDM; the label is ln(sigma) / 4.

    Parameters
    ----------
    network
        Called as `network(x, c_noise, condition)`.
    condition
        Handed to the network unchanged.
    sigma_data
        Standard deviation of the clean data.
    """
    return _make(network, condition, lambda sigma: edm_scalings(sigma, sigma_data))


def v(network: Network, condition: Any = None, sigma_data: float = 1.0) -> Denoiser:
    """Denoiser of a network that predicts v; parameters as for `edm`."""
    return _make(network, condition, lambda sigma: v_scalings(sigma, sigma_data))


def eps(
    network: Network,
    condition: Any = None,
    sigma_data: float = 1.0,
    trained: Float[Tensor, " n"] | None = None,
) -> Denoiser:
    """Denoiser of a network that predicts the noise; parameters as for `edm`.

    `trained` are the levels that its integer labels stand for (default: `schedule.trained_sigmas()`, DDPM's).
    """
    levels = schedule.trained_sigmas() if trained is None else trained
    return _make(network, condition, lambda sigma: eps_scalings(sigma, sigma_data, levels))


def flow(network: Network, condition: Any = None, sigma_data: float = 1.0) -> Denoiser:
    """Denoiser of a network that predicts a straight path's velocity; parameters as for `edm`."""
    return _make(network, condition, lambda sigma: flow_scalings(sigma, sigma_data))


PRECONDITIONERS = {"edm": edm, "v": v, "eps": eps, "flow": flow}


def edm_weight(sigma: Float[Tensor, " b"], sigma_data: float) -> Float[Tensor, " b"]:
    """Weight 1 / out^2 of a denoiser's squared error, so that the network's own error weighs 1.

    References
    ----------
    Karras et al., arXiv 2206.00364, Table 1 (loss weighting).
    """
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def lognormal_sigma(uniform: Float[Tensor, " b"], mean: float = -1.2, std: float = 1.2) -> Float[Tensor, " b"]:
    """Training noise levels exp(mean + std * z), where z is the normal quantile of `uniform`, inside (0, 1).

    References
    ----------
    Karras et al., arXiv 2206.00364, Table 1 (noise distribution).
    """
    z: Tensor = torch.special.ndtri(uniform)
    return (mean + std * z).exp()
