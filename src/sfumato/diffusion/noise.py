"""Random numbers as arguments: a pure function of (seed, item, step), whatever the batch, rank or order.

A counter-based generator (Philox) is keyed by (seed, item); `step` is a word of its counter, far above the
word that counts draws, so no two streams overlap. By convention step 0 is a sample's starting noise and
step i + 1 is what a stochastic sampler adds in its step i.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sfumato.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float

Noise = Callable[[int], Tensor]
"""`noise(step)` returns fresh standard normal numbers of the shape of the sampler's state."""

_NORMAL, _UNIFORM, _DATA = 0, 1, 2


def _generator(kind: int, seed: int, item: int, step: int) -> np.random.Generator:
    for name, value in (("seed", seed), ("item", item), ("step", step)):
        if not 0 <= value < 2**64:
            raise InputError(f"{name} {value} is outside 0 … 2^64 - 1. Give a whole number inside.")
    key, counter = np.array([seed, item], np.uint64), np.array([0, 0, kind, step], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def normal(shape: Sequence[int], *, seed: int, item: int, step: int) -> Float[Tensor, "*shape"]:
    """Standard normal numbers (float32, CPU) of one item.

    Parameters
    ----------
    shape
        Shape of the item, without a batch axis.
    seed, item, step
        Whole numbers in [0, 2^64): the run's seed, the item's own number (never its place in a batch),
        the step.

    References
    ----------
    Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox).

    Examples
    --------
    >>> bool((normal((2,), seed=1, item=7, step=0) == normal((2,), seed=1, item=7, step=0)).all())
    True
    """
    return torch.from_numpy(np.asarray(_generator(_NORMAL, seed, item, step).standard_normal(tuple(shape), np.float32)))


def uniform(
    shape: Sequence[int], *, seed: int, item: int, step: int, data: bool = False
) -> Float[Tensor, "*shape"]:
    """Uniform numbers (float64, CPU) strictly inside (0, 1), independent of `normal`.

    With `data` they come from streams of their own, for choosing examples: the choice of an item and the noise level it
    is trained at must not be the same number.
    """
    whole = _generator(_DATA if data else _UNIFORM, seed, item, step).integers(0, 2**52, tuple(shape), np.int64)
    return torch.from_numpy(np.asarray((whole + 0.5) / 2.0**52))


def chooser(*, seed: int, item: int) -> np.random.Generator:
    """A generator of an item's own for making examples, apart from every stream of noise."""
    return _generator(_DATA, seed, item, 1)


def walk(shape: Sequence[int], *, seed: int, items: Sequence[int]) -> Noise:
    """A sampler's noise for a batch: `walk(…)(step)` stacks `normal` of each item to (len(items), *shape).

    Examples
    --------
    >>> noise = walk((1, 8), seed=1, items=[4, 5])
    >>> start = noise(0)  # times sigmas[0]; then pass `noise` itself to the sampler
    >>> tuple(start.shape)
    (2, 1, 8)
    """

    def noise(step: int) -> Tensor:
        return torch.stack([normal(shape, seed=seed, item=item, step=step) for item in items])

    return noise


BLOCK = 16
"""Columns of a scroll that are drawn at once."""


def scroll(shape: Sequence[int], first: int, n: int, *, seed: int, item: int) -> Noise:
    """A sampler's noise for columns [first, first + n) of a state without end: (1, *shape, n).

    A column's noise is its own, wherever a stretch begins and however long it is.

    Examples
    --------
    >>> long, short = scroll((2,), 0, 40, seed=1, item=0)(0), scroll((2,), 10, 5, seed=1, item=0)(0)
    >>> bool((long[..., 10:15] == short).all())
    True
    """
    blocks = range(first // BLOCK, -(-(first + n) // BLOCK))
    offset = first - blocks.start * BLOCK

    def noise(step: int) -> Tensor:
        whole = [normal((*shape, BLOCK), seed=seed, item=item, step=(step << 32) + block) for block in blocks]
        return torch.cat(whole, dim=-1)[None, ..., offset : offset + n]

    return noise


def slerp(first: Float[Tensor, "*b n"], second: Float[Tensor, "*b n"], weight: float) -> Float[Tensor, "*b n"]:
    """The point at `weight` of the way from `first` (0) to `second` (1) on the arc between the two (last axis).

    Lengths go evenly on the logarithmic scale; directions as Shoemake's slerp, so that noise stays as loud as noise.
    Where the arc is straight, or where opposite vectors have none, the way is the line.

    References
    ----------
    K. Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985.
    """
    lengths = [v.norm(dim=-1, keepdim=True).clamp(min=1e-12) for v in (first, second)]
    a, b = first / lengths[0], second / lengths[1]
    angle = (a * b).sum(dim=-1, keepdim=True).clamp(-1, 1).acos()
    straight = angle.sin() < 1e-4
    sine = torch.where(straight, 1.0, angle.sin())
    left = torch.where(straight, 1 - weight, ((1 - weight) * angle).sin() / sine)
    right = torch.where(straight, weight, (weight * angle).sin() / sine)
    met: Tensor = (left * a + right * b) * lengths[0] ** (1 - weight) * lengths[1] ** weight
    return met


@dataclass(frozen=True)
class BatchNoise:
    """Random tensors for the items of one batch; each item's stream is its own, whatever batch or process it is in.

    `noise(tag, shape)` is standard normal with the batch in front: (n_items, *shape). Different tags, different noise.
    """

    seed: int
    first: int
    n_items: int
    device: str = "cpu"
    training_step: int = 0
    """Steps that the training has done, for losses that change on the way."""

    def __call__(self, tag: int, shape: Sequence[int] = ()) -> Tensor:
        """Standard normal noise, float32, (n_items, *shape)."""
        rows = [normal(shape, seed=self.seed, item=item, step=tag) for item in self._items()]
        return torch.stack(rows).to(self.device)

    def uniform(self, tag: int, shape: Sequence[int] = ()) -> Tensor:
        """Uniform numbers in [0, 1), float32, (n_items, *shape), independent of the normal ones of the same tag."""
        rows = [uniform(shape, seed=self.seed, item=item, step=tag) for item in self._items()]
        return torch.stack(rows).float().clamp(max=1 - 2.0**-24).to(self.device)

    def stratified(self, tag: int) -> Tensor:
        """Uniform numbers in (0, 1), float64, (n_items,), spread evenly over any run of items.

        The radical inverse of the item's number, which is the first dimension of Sobol's sequence, shifted as a whole
        by a random number of `tag` (modulo 1): each aligned run of 2^k items has one in each 2^k-th of the interval.

        References
        ----------
        Cranley & Patterson, SIAM J. Numer. Anal. 13(6), 1976, for the shift; Kingma et al., arXiv 2107.00630, App. I.1,
        for what it does to the variance of a diffusion model's loss.
        """
        shift = float(uniform((), seed=self.seed, item=2**64 - 1, step=tag))
        inverse = [int(f"{item:052b}"[::-1], 2) / 2.0**52 for item in self._items()]
        drawn = (torch.tensor(inverse, dtype=torch.float64) + shift) % 1.0
        return drawn.clamp(2.0**-52, 1 - 2.0**-52).to(self.device)

    def _items(self) -> range:
        """Numbers of the items, counted from the start of the training."""
        return range(self.first, self.first + self.n_items)
