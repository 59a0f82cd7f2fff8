"""A codec's latent on its principal axes, of which a fidelity keeps as many as it needs.

References
----------
.. [1] A. Caillon, P. Esling, "RAVE", arXiv 2111.05011, sec. 3.3: fidelity is a share of the sum of singular values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfumato.errors import InputError
from sfumato.player.weights import Array, Weights


@dataclass(frozen=True)
class Kept:
    """Which axes are kept.

    Attributes
    ----------
    dims
        How many, the strongest.
    share
        What the last of them is multiplied by, at most 1: what makes fidelity continuous.
    fidelity
        Sum of the singular values kept, the last by its share, over the sum of all [1]_.
    of_variance
        The same of their squares.
    """

    dims: int
    share: float
    fidelity: float
    of_variance: float


def keep(weights: Weights, fidelity: float | None = None, dims: int | None = None) -> Kept:
    """The fewest axes that have the fidelity, the last of them only as far as it is asked for; or just `dims` axes.

    Raises
    ------
    InputError
        The fidelity is not above 0 and up to 1, or there aren't as many axes.
    """
    scale = weights.scale.astype(np.float64)
    total = scale.sum()
    if fidelity is not None and dims is not None:
        raise InputError("A fidelity and a number of dimensions are two answers to one question. Give one of them.")
    if total <= 0:
        raise InputError(f"{weights.name} has no analysis of its latent space. Finish its training first.")
    share = 1.0
    if dims is None:
        fidelity = 1.0 if fidelity is None else fidelity
        if not 0 < fidelity <= 1:
            raise InputError(f"A fidelity of {fidelity:g} is not above 0 and up to 1.")
        sums = np.cumsum(scale)
        dims = min(int(np.searchsorted(sums, fidelity * total * (1 - 1e-9))) + 1, int(np.count_nonzero(scale)))
        share = min(1.0, float((fidelity * total - (sums[dims - 1] - scale[dims - 1])) / scale[dims - 1]))
    elif not 1 <= dims <= len(scale):
        raise InputError(f"{dims} dimensions can't be kept: {weights.name} has {len(scale)}. Give 1 to {len(scale)}.")
    return kept(weights, dims, share)


def kept(weights: Weights, dims: int, share: float) -> Kept:
    """`dims` axes, the last multiplied by `share`."""
    scale = weights.scale.astype(np.float64)
    held = np.where(np.arange(len(scale)) < dims, scale, 0)
    held[dims - 1] *= share
    return Kept(dims, share, float(held.sum() / scale.sum()), float((held**2).sum() / (scale**2).sum()))


def coordinates(weights: Weights, latent: Array) -> Array:
    """Distances (batch, axes, frames) of a latent (batch, latent, frames) from the mean along each axis."""
    return np.asarray(weights.basis @ (latent - weights.mean[:, None]), np.float32)


def latent(weights: Weights, coordinates: Array) -> Array:
    """The inverse of `coordinates`; axes that are left out, the last ones, are at the mean."""
    basis = weights.basis[: coordinates.shape[1]]
    return np.asarray(basis.T @ coordinates + weights.mean[:, None], np.float32)


def deviations(weights: Weights, dims: int) -> Array:
    """Standard deviations of the strongest `dims` coordinates; none counts as less than a thousandth of the first."""
    return np.asarray(np.maximum(weights.scale[:dims], 1e-3 * weights.scale[0]), np.float32)
