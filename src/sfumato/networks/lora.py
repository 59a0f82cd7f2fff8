"""Low-rank adapters: a frozen network whose matrices learn a change of small rank [1]_.

Linear layers, 2-D convolutions (their kernels as matrices of outputs by everything else) and stacks of matrices in a
list, such as a band network's, get two factors each; everything else stays as it is. The network itself is never
touched: its weights and the changes are put together whenever it is evaluated, so what is saved, averaged and optimised
is the factors alone, and the network that `merge` makes is, weight by weight, the one that was trained.

References
----------
.. [1] E. Hu et al., "LoRA: low-rank adaptation of large language models", arXiv 2106.09685, section 4.1.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

if TYPE_CHECKING:
    from jaxtyping import Float


class Adapted(nn.Module):
    """A frozen network and the factors of its changes, which are all the parameters that it has.

    Called as the network is. A change is ``alpha / rank * up @ down``; one factor is 0 at first, so nothing is changed.
    """

    def __init__(self, network: nn.Module, rank: int, alpha: float) -> None:
        super().__init__()
        self._frozen = (network.requires_grad_(False),)  # in a tuple: no child, so no part of the state
        self.scale = alpha / rank
        self.up, self.down = nn.ParameterDict(), nn.ParameterDict()
        for name, inputs_first in adaptable(network).items():
            *stack, m, n = _matrix(network.get_parameter(name)).shape
            r = rank_of(rank, m, n)
            self.up[_key(name)], self.down[_key(name)] = (
                (torch.randn(*stack, m, r) / math.sqrt(m), torch.zeros(*stack, r, n))
                if inputs_first
                else (torch.zeros(*stack, m, r), torch.randn(*stack, r, n) / math.sqrt(n))
            )

    @property
    def network(self) -> nn.Module:
        """The frozen network."""
        return self._frozen[0]

    def forward(self, *inputs: Any) -> Any:
        """What the network gives with changed weights."""
        return functional_call(self.network, self.weights(), inputs)

    def weights(self) -> dict[str, Tensor]:
        """The changed weights, by their names in the network."""
        changed = {}
        for key in self.up:
            weight = self.network.get_parameter(_name(key))
            with torch.autocast(weight.device.type, enabled=False):
                changed[_name(key)] = weight + self.change(_name(key)).reshape(weight.shape)
        return changed

    def change(self, name: str) -> Float[Tensor, "*stack m n"]:
        """The change of a weight, as a matrix or a stack of them."""
        product: Tensor = self.up[_key(name)] @ self.down[_key(name)]
        return self.scale * product

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Adapted:
        """Move or convert the frozen network along with the factors."""
        self.network._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def adaptable(network: nn.Module) -> dict[str, bool]:
    """Names of the weights that get factors, and whether their inputs are the rows (``x @ W``) or columns (``W @ x``).

    The factor at the inputs is random at first, the one at the outputs 0, as published.
    """
    found = {}
    for place, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            found[f"{place}.weight"] = False
        elif isinstance(module, nn.ParameterList):
            found |= {f"{place}.{i}": True for i, weight in enumerate(module) if weight.ndim == 3}
    return found


def rank_of(rank: int, m: int, n: int) -> int:
    """Rank of the change of an m by n matrix: `rank`, but at most an eighth of the full one, and at least 1.

    Else the factors of small matrices, of which a band network has many, would hold as much as these themselves.
    """
    return min(rank, max(1, min(m, n) // 8))


def adapt(network: nn.Module, rank: int, alpha: float) -> Adapted:
    """`network`, frozen, with factors of rank `rank` (see `rank_of`); it changes nothing yet."""
    return Adapted(network, rank, alpha)


def merge(adapted: Adapted) -> nn.Module:
    """A network of the same kind that holds the changed weights: no factor, no cost."""
    merged = copy.deepcopy(adapted.network)
    with torch.no_grad():
        for name, weight in adapted.weights().items():
            merged.get_parameter(name).copy_(weight)
    return merged


def low_rank_state(adapted: Adapted) -> dict[str, Tensor]:
    """The factors alone, named after their weights: ``<weight>.up`` and ``<weight>.down``."""
    pairs = ((key, part) for key in adapted.up for part in ("up", "down"))
    return {f"{_name(key)}.{part}": getattr(adapted, part)[key].detach() for key, part in pairs}


def adapt_as(network: nn.Module, state: Mapping[str, Tensor], scale: float) -> Adapted:
    """`network`, frozen, with the factors that `low_rank_state` gave, the change of each ``scale * up @ down``.

    Raises
    ------
    KeyError, RuntimeError
        They are not the factors of such a network: one is missing, too many or of another shape.
    """
    rank = max((value.shape[-1] for name, value in state.items() if name.endswith(".up")), default=1)
    adapted = adapt(network, rank, scale * rank)
    own = low_rank_state(adapted)
    if own.keys() != state.keys():
        raise KeyError(min(own.keys() ^ state.keys()))
    with torch.no_grad():
        for name, value in own.items():
            if value.shape != state[name].shape:
                raise RuntimeError(f"{name} has shape {tuple(state[name].shape)}, expected {tuple(value.shape)}")
            value.copy_(state[name])
    return adapted


def _matrix(weight: Tensor) -> Tensor:
    """A weight as a matrix, or a stack of them as it is."""
    return weight if weight.ndim == 3 else weight.flatten(1)


def _key(name: str) -> str:
    """A weight's name as that of a parameter, which can't hold dots."""
    return name.replace(".", "/")


def _name(key: str) -> str:
    """The way back."""
    return key.replace("/", ".")
