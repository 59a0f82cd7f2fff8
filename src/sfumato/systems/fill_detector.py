"""Detection of fills: which frames of a recording were not in it.

Traces of `signal.traces` in, one logit per frame out. The seed project looked for the widest predicted interval, at a
known length; here the length, the number and the place of fills are unknown, and a recording may hold none. What a
score means is not for the network to say: `tasks.detect` turns the largest of a stretch into a p-value by clean
recordings' largest.

References
----------
.. [1] "Con*ffusion*-Audio", github.com/shanb1712/reliable-ml: detection by interval width.
.. [2] Z. Cai et al., "FakeSound: deepfake general audio detection", arXiv 2406.08052: detection per frame, by training
   on inpainted parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sfumato.config import Settings
from sfumato.networks import dilated1d
from sfumato.signal.traces import N_TRACES, Traces

if TYPE_CHECKING:
    from sfumato.diffusion.noise import BatchNoise

NAME = "fill_detector"
PAPER = {
    "title": "Con*ffusion*-Audio's detection, anew",
    "arxiv": "",
    "code": "github.com/shanb1712/reliable-ml",
    "licence": "none stated",
}
TURNS = ("detect",)


class Config(Settings):
    """The network over traces."""

    network: dilated1d.Config = Field(dilated1d.Config(channels=N_TRACES), description="the stack of convolutions")


def build(config: Config) -> nn.Module:
    """The network with its initial weights."""
    return dilated1d.Dilated1d(config.network)


def loss(
    network: nn.Module, batch: dict[str, Tensor], config: Config, noise: BatchNoise, turn: str
) -> dict[str, Tensor]:
    """Cross-entropy per frame. `batch` holds "traces" ``(b, N_TRACES, frames)`` and "filled" ``(b, 1, frames)``."""
    logits, filled = network(batch["traces"]).float(), batch["filled"]
    total = functional.binary_cross_entropy_with_logits(logits, filled)
    called = logits.detach() > 0.0
    right = (called & (filled > 0.5)).sum()
    return {
        "total": total,
        "recall": right / filled.sum().clamp(min=1.0),
        "precision": right / called.sum().clamp(min=1),
    }


@torch.no_grad()
def logits(network: nn.Module, traces: Traces) -> NDArray[np.float64]:
    """Logit that each frame of one stretch lies in a fill, ``(frames,)``."""
    return np.asarray(network(torch.from_numpy(traces)[None])[0, 0].double().numpy())
