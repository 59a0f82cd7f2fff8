"""N-Conffusion: the inpainter's network, fine-tuned to give bounds on the levels in one pass.

Sampling an interval costs hundreds of draws. The network that draws has learnt what the interval needs; so it is
shown the picture of `signal.gap_levels` once more, with an empty state at the highest noise level, and taught by the
pinball loss to answer with a lower and an upper quantile beside its point estimate [1]_. The bounds are raw: they
promise nothing before `interval.calibrate` has scaled them about the point.

Where it departs from the paper: the bounds are the point minus and plus a positive width, so they never cross; the
point keeps being trained, by the squared error; the state is empty, as the gap has nothing to show that the condition
lacks; and the quantities are levels in dB of bands over time, not pixels or samples: beyond some 50 ms phases can't be
known, and an interval on samples would be the signal's envelope.

The same network is the student DM_SBA of [1]_ where the configuration's target is "sampled": it is taught by the
squared error to answer with the quantiles over draws (`conffusion.sample_bounds`, DM_SB) instead of the data's own.

References
----------
.. [1] E. Horwitz, Y. Hoshen, "Conffusion: confidence intervals for diffusion models", arXiv 2211.09795, sec. 3.
.. [2] R. Koenker, G. Bassett, "Regression quantiles", Econometrica 46(1), 1978.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sfumato.config import Settings
from sfumato.diffusion import precondition
from sfumato.networks import unet2d
from sfumato.signal.gap_levels import SCALE_DB, Picture

if TYPE_CHECKING:
    from sfumato.diffusion.noise import BatchNoise

Array = NDArray[np.float64]

NAME = "n_conffusion"
PAPER = {
    "title": "Conffusion: Confidence Intervals for Diffusion Models",
    "arxiv": "2211.09795",
    "code": "github.com/eliahuhorwitz/Conffusion",
    "licence": "MIT",
}
TURNS = ("bounds",)


class Config(Settings):
    """The network, which must be the inpainter's, and the quantiles it gives."""

    network: unet2d.Config = Field(
        unet2d.Config(channels=1, condition_channels=7, widths=(16, 48, 128, 256)), description="the U-Net over levels"
    )
    sigma_data: float = Field(0.8, gt=0, description="that of the inpainter")
    sigma: float = Field(10.0, gt=0, description="the noise level it is told: the inpainter's highest")
    lower: float = Field(0.05, gt=0, lt=0.5, description="quantile of the lower bound")
    upper: float = Field(0.95, gt=0.5, lt=1, description="quantile of the upper bound")
    target: Literal["pinball", "sampled"] = Field(
        "pinball", description="taught by the recordings themselves (N-Conffusion) or by the inpainter's draws (DM_SBA)"
    )
    teacher: str = Field("conffusion", description="inpainter whose draws are the target 'sampled'")
    draws: int = Field(16, ge=2, description="draws of the teacher per example")
    steps: int = Field(6, ge=1, description="sampler steps of a teacher's draw")


@dataclass(frozen=True)
class Bounds:
    """Raw bounds on the levels of one picture, in dB, each ``(bands, frames)``; the line itself outside the gap."""

    lower_db: Array
    point_db: Array
    upper_db: Array


def build(config: Config) -> nn.Module:
    """The network with its initial weights. Its outputs: the point, and the widths below and above it."""
    return unet2d.UNet2d(config.network, out_channels=3)


def start(network: nn.Module, trained: nn.Module) -> None:
    """Take over the inpainter's weights: all of them but its second output, which has no part here."""
    weights = dict(network.state_dict())
    for name, value in trained.state_dict().items():
        weights[name] = (
            torch.cat([value[:1], torch.zeros_like(weights[name][1:])]) if name.startswith("last.2") else value
        )
    network.load_state_dict(weights)


def loss(
    network: nn.Module, batch: dict[str, Tensor], config: Config, noise: BatchNoise, turn: str
) -> dict[str, Tensor]:
    """Pinball loss [2]_ of both bounds and squared error of the point, means over the touched frames of each item.

    Where the target is "sampled", `batch` also holds the teacher's "lower" and "upper", in the picture's units, and the
    bounds' loss is the squared distance from them.
    """
    clean, condition = batch["clean"], batch["condition"]
    touched = condition[:, 2:3]
    lower, point, upper = _bounds(network, condition, config)

    def over_gap(per_cell: Tensor) -> Tensor:
        return ((per_cell * touched).sum(dim=(1, 2, 3)) / touched.sum(dim=(1, 2, 3))).mean()

    pinball = over_gap(_pinball(clean - lower, config.lower) + _pinball(clean - upper, config.upper))
    taught = pinball
    if config.target == "sampled":
        taught = over_gap((batch["lower"] - lower) ** 2 + (batch["upper"] - upper) ** 2)
    squared = over_gap((clean - point) ** 2)
    inside = over_gap(((lower <= clean) & (clean <= upper)).float())
    return {
        "total": taught + squared,
        "pinball": pinball.detach(),
        "squared": squared.detach(),
        "covered": inside.detach(),
        "width": over_gap(upper - lower).detach(),
    }


def _pinball(error: Tensor, quantile: float) -> Tensor:
    return torch.maximum(quantile * error, (quantile - 1.0) * error)


def _bounds(network: nn.Module, condition: Tensor, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """Lower bound, point and upper bound of the deviation, in the picture's units."""
    sigma = torch.full((len(condition),), config.sigma, device=condition.device)
    scale = precondition.edm_scalings(sigma, config.sigma_data)
    raw = network(torch.zeros_like(condition[:, :1]), scale.label, condition).float()
    point, below, above = (precondition.spread(scale.out, raw) * raw).chunk(3, dim=1)
    return point - functional.softplus(below), point, point + functional.softplus(above)


@torch.no_grad()
def bound_levels(network: nn.Module, config: Config, views: list[Picture]) -> list[Bounds]:
    """Raw bounds for each view, in one pass."""
    condition = torch.from_numpy(np.stack([view.condition for view in views]))
    parts = [part * condition[:, 2:3] for part in _bounds(network, condition, config)]
    return [
        Bounds(*(view.base_db + SCALE_DB * part[i, 0].double().numpy() for part in parts))
        for i, view in enumerate(views)
    ]
