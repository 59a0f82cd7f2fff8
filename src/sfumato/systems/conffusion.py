"""Conffusion-Audio: diffusion inpainting of damaged recordings, source and filter.

What no classical method knows is how loud each band goes on through the gap; what it knows well is the sound between:
partials, colour, the join with both sides. So the two are split. The *source* is an exact draw of the autoregressive
posterior (`signal.autoregressive`). The *filter* is the picture of band levels over time (`signal.levels`), which a
diffusion model draws given nearly three seconds of context, the known frames, and the levels of the AR mean and
the AR draw. The drawn levels then shape the random part of the source.

The picture is whitened per clip by the levels of its own context, and the model draws its deviation from a straight
line between the levels at both edges of the gap.

Where it departs from the seed: levels instead of a waveform in a constant-Q transform (measured in
`docs/experiments/representation.md`), so any sample rate and full bandwidth; the mean over draws stays the AR
posterior's mean because only the random part is shaped. `temperature` scales how far a draw's levels depart from
their expectation: 1 is the model's own posterior, 0 its mean.

References
----------
.. [1] E. Horwitz, Y. Hoshen, "Conffusion: confidence intervals for diffusion models", arXiv 2211.09795.
.. [2] E. Moliner, V. Välimäki, "Diffusion-based audio inpainting", JAES 72(3), 2024, arXiv 2305.15266.
.. [3] T. Karras et al., "Elucidating the design space of diffusion-based generative models", arXiv 2206.00364.
.. [4] D. Nix, A. Weigend, "Estimating the mean and variance of the target probability distribution", ICNN 1994.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import polygamma
from torch import Tensor, nn

from sfumato.config import Settings
from sfumato.diffusion import guide, noise, precondition, sample, schedule
from sfumato.networks import unet2d
from sfumato.signal import gap_levels
from sfumato.signal.levels import Grid, band_edges, shape

if TYPE_CHECKING:
    from sfumato.diffusion.noise import BatchNoise

Array = NDArray[np.float64]
Known = NDArray[np.bool_]

NAME = "conffusion"
PAPER = {
    "title": "Conffusion: Confidence Intervals for Diffusion Models, carried over to audio inpainting",
    "arxiv": "2211.09795",
    "code": "github.com/shanb1712/reliable-ml",
    "licence": "none stated",
}
TURNS = ("denoise",)

_ORDERS_S = ((0.2, (2048 / 44100, 1024 / 44100)), (0.5, (1024 / 44100, 512 / 44100)), (np.inf, (512 / 44100,)))

_SURPRISE_WEIGHT = 0.1

_FADING = (10.0 / math.log(10.0) / gap_levels.SCALE_DB) ** 2 * polygamma(1, np.diff(band_edges()))
"""Variance of each band's level in steady noise, in the picture's units: the trigamma function of its bins."""

POWER_SHARE = 0.6
"""How much of the difference between the mean of levels in dB and the level of their mean power a fill makes up for;
chosen on validation recordings. 1 has the right energy on average, also where a few loud frames make it, and a larger
distance in dB."""


class Config(Settings):
    """The inpainter's network and its noise levels."""

    network: unet2d.Config = Field(
        unet2d.Config(channels=1, condition_channels=7, widths=(16, 48, 128, 256)), description="the U-Net over levels"
    )
    sigma_data: float = Field(0.8, gt=0, description="standard deviation of the deviations, in units of 10 dB")
    sigma_mean: float = Field(1.0, description="mean of ln(sigma) in training")
    sigma_std: float = Field(1.4, gt=0, description="standard deviation of ln(sigma) in training")
    sigma_max: float = Field(10.0, gt=0, description="first noise level of the sampler")
    sigma_min: float = Field(0.03, gt=0, description="last noise level above 0 of the sampler")


def build(config: Config) -> nn.Module:
    """The network with its initial weights. Its outputs: levels, and the logarithm of their variance."""
    return unet2d.UNet2d(config.network, out_channels=2)


def loss(
    network: nn.Module, batch: dict[str, Tensor], config: Config, noise: BatchNoise, turn: str
) -> dict[str, Tensor]:
    """EDM's weighted squared error [3]_ over the touched frames, and the surprise of the variance it comes with.

    `batch` holds "clean" ``(b, 1, bands, frames)`` and "condition" ``(b, 7, bands, frames)`` from `gap_levels`. The
    surprise is a Gaussian's negative log-likelihood of the error, whose gradient reaches the variance alone [4]_.
    """
    clean, condition = batch["clean"], batch["condition"]
    touched = condition[:, 2:3]
    sigma = precondition.lognormal_sigma(noise.uniform(0).double(), config.sigma_mean, config.sigma_std).float()
    noisy = (clean + precondition.spread(sigma, clean) * noise(1, clean.shape[1:])) * touched
    denoised, log_variance = _guess(network, condition, config)(noisy, sigma)
    squared = (denoised - clean) ** 2 * touched
    surprise = 0.5 * (log_variance + squared.detach() * (-log_variance).exp()) * touched
    per_item, surprise_per_item = (v.sum(dim=(1, 2, 3)) / touched.sum(dim=(1, 2, 3)) for v in (squared, surprise))
    weighted = (precondition.edm_weight(sigma, config.sigma_data) * per_item).mean()
    surprised = surprise_per_item.mean()
    return {
        "total": weighted + _SURPRISE_WEIGHT * surprised,
        "weighted": weighted.detach(),
        "squared": per_item.mean().detach(),
        "surprise": surprised.detach(),
    }


def _guess(network: nn.Module, condition: Tensor, config: Config) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Denoised deviation and log-variance of its error, both in the picture's units and the shape of `x`.

    EDM's scalings; the second output is the log-variance of the network's own error, before it is scaled.
    """

    def guess(x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        scale = precondition.edm_scalings(sigma, config.sigma_data)
        out = precondition.spread(scale.out, x)
        raw = network(precondition.spread(scale.into, x) * x, scale.label, condition).float()
        denoised = precondition.spread(scale.skip, x) * x + out * raw[:, :1]
        return denoised, 2.0 * out.log() + raw[:, 1:].clamp(-8.0, 4.0)

    return guess


@torch.no_grad()
def draw_levels(
    network: nn.Module,
    config: Config,
    views: list[gap_levels.Picture],
    *,
    seed: int,
    item: int,
    steps: int,
    temperature: float,
) -> list[Array]:
    """Levels in dB ``(bands, frames)`` for each view: expectation plus `temperature` times a draw's departure from it.

    The mean of levels in dB that swing lies below the level of their mean power, by ``ln(10) / 20`` times the variance
    for a Gaussian. In frames that show nothing known, a lift by `POWER_SHARE` of that makes up for what of the swing
    is not drawn. The fading of steady noise is no part of it: the source brings that.

    Views are pairs 0, 1, ... of mirrored draws of one window; both draws of a pair share their levels, so that their
    mean is untouched by them.

    Parameters
    ----------
    seed, item
        Name the window's noise: the same numbers give the same draws in any batch.
    steps
        Of the second-order multistep sampler; not used at temperature 0, where one evaluation is enough.
    """
    condition = torch.from_numpy(np.stack([view.condition for view in views]))
    touched = condition[:, 2:3]
    guess = _guess(network, condition, config)
    top = torch.full((len(views),), config.sigma_max)
    deviation, log_variance = guess(torch.zeros_like(condition[:, :1]), top)
    fading = torch.from_numpy(_FADING).float()[None, None, :, None]
    swing = (log_variance.exp() - fading).clamp(min=0.0)
    undrawn = (1.0 - temperature**2) * swing
    inner = torch.from_numpy(np.stack([gap_levels.wholly_missing(view.touched) for view in views]))[:, None, None, :]
    lift = POWER_SHARE * (math.log(10.0) / 20.0) * gap_levels.SCALE_DB * undrawn * inner
    if temperature > 0.0:
        sigmas = schedule.karras(steps, config.sigma_min, config.sigma_max).float()
        pairs = [
            noise.normal(touched.shape[1:2] + condition.shape[2:], seed=seed, item=item, step=2 * pair + 1)
            for pair in range(len(views))
        ]
        denoise = guide.keep(lambda x, sigma: guess(x, sigma)[0], lambda x: x * touched)
        drawn = sample.last(sample.dpmpp_2m(denoise, config.sigma_max * torch.stack(pairs) * touched, sigmas))
        deviation = deviation + temperature * (drawn - deviation)
    levels = ((deviation + lift) * touched)[:, 0]
    return [v.base_db + gap_levels.SCALE_DB * d.double().numpy() for v, d in zip(views, levels, strict=True)]


def sample_bounds(
    network: nn.Module,
    config: Config,
    view: gap_levels.Picture,
    quantiles: Sequence[float],
    *,
    draws: int,
    seed: int,
    item: int,
    steps: int,
) -> Array:
    """Quantiles over draws of the levels of one picture, in dB, ``(quantiles, bands, frames)``: DM_SB of [1]_.

    Costs ``draws * steps`` network evaluations; `systems.n_conffusion` gives its bounds for one.
    """
    levels = draw_levels(network, config, [view] * draws, seed=seed, item=item, steps=steps, temperature=1.0)
    return np.asarray(np.quantile(levels, quantiles, axis=0))


def orders_s(length_s: float) -> tuple[float, ...]:
    """AR orders of the sources for a gap of `length_s`, both in seconds: long gaps gain nothing from longer models,
    which cost their square."""
    return next(orders for limit, orders in _ORDERS_S if length_s <= limit)


def apply_levels(mean: Array, draw: Array, known: Known, levels_db: Array, grid: Grid) -> Array:
    """The AR draw with its random part shaped to the wanted levels."""
    return shape(mean, np.where(known, 0.0, draw - mean), known, levels_db, grid)


def spread(figures: Mapping[str, float], length_s: float) -> float:
    """How much of the random part `method auto` keeps in a gap of `length_s`: 0 is the AR mean, 1 a full draw.

    Read off the measured risks in a model's card (``risk_<spread>_<length>ms``: the Zimtohrli distance on validation
    recordings; spreads that fall behind the AR mean where it still predicts the waveform are left out): the spread of
    least risk at each measured length, interpolated over the logarithm of the length.
    """
    table: dict[float, dict[float, float]] = {}
    for name, value in figures.items():
        parts = name.split("_")
        if len(parts) == 3 and parts[0] == "risk" and parts[2].endswith("ms"):
            table.setdefault(float(parts[2][:-2]), {})[float(parts[1])] = value
    if not table:
        return 1.0
    lengths = sorted(table)
    best = [min(table[length], key=lambda s: table[length][s]) for length in lengths]
    return float(np.interp(np.log(1e3 * length_s), np.log(lengths), best))
