"""A stack of dilated convolutions over time: many traces in, one value per frame out.

References
----------
.. [1] A. van den Oord et al., "WaveNet: a generative model for raw audio", arXiv 1609.03499, sec. 2.1; without its
   causality and gates.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from sfumato.config import Settings


class Config(Settings):
    """Size of the stack."""

    channels: int = Field(82, ge=1, description="traces per frame")
    width: int = Field(48, ge=1, description="channels of every layer")
    dilations: tuple[int, ...] = Field((1, 2, 4, 8, 16, 32), description="frames between the taps of each layer")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of traces, and of each layer's channels, left out")


class Dilated1d(nn.Module):
    """``(b, channels, frames)`` to ``(b, 1, frames)``; frames beyond the ends count as zeros."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.into = nn.Conv1d(config.channels, config.width, 3, padding=1)
        self.layers = nn.ModuleList(_Layer(config.width, dilation, config.dropout) for dilation in config.dilations)
        self.out = nn.Conv1d(config.width, 1, 1)
        self.drop = nn.Dropout1d(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """One value per frame."""
        h = self.into(self.drop(x))
        for layer in self.layers:
            h = layer(h)
        out: Tensor = self.out(functional.gelu(h))
        return out

    @property
    def reach(self) -> int:
        """Frames on either side that an output depends on."""
        return 1 + sum(layer.dilation for layer in self.layers if isinstance(layer, _Layer))


class _Layer(nn.Module):
    """A residual: dilated convolution of three taps, then a pointwise one."""

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.dilation = dilation
        self.wide = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv1d(width, width, 1)
        self.drop = nn.Dropout1d(dropout)
        nn.init.zeros_(self.mix.weight)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.mix(self.drop(functional.gelu(self.wide(functional.gelu(x)))))
        return x + h
