"""Loops as rings: before their start lies their end, and after their end their start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def around(x: Float[Tensor, "*b n"], more: int) -> Float[Tensor, "*b m"]:
    """A loop with what lies before and after it: `more` places of the last axis either side, if need be many turns.

    Examples
    --------
    >>> around(torch.tensor([1, 2, 3]), 2).tolist()
    [2, 3, 1, 2, 3, 1, 2]
    """
    n = x.shape[-1]
    return x[..., torch.arange(-more, n + more, device=x.device) % n]
