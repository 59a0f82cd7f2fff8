"""Intervals around a point estimate, the nested family that calibration walks along, and what a clip loses.

Lower and upper bounds, point and truth are arrays of cells (samples, bins, bands) in the unit of one domain.
A *score* is the smallest parameter of the family at which a cell's interval covers the truth; it holds all that
calibration needs to know about a clip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfumato.errors import InputError

Array = NDArray[np.float64]
Family = Literal["scale", "add"]
"""What the parameter does: multiply the raw half-widths, or add to them in the domain's unit."""


@dataclass(frozen=True)
class Interval:
    """Bounds of each cell around its point estimate; lower <= point <= upper, all of one shape and unit.

    A bound may be infinite: nothing is known on that side. The point is finite.
    """

    lower: Array
    point: Array
    upper: Array


def from_bounds(lower: ArrayLike, point: ArrayLike, upper: ArrayLike) -> Interval:
    """Raw bounds of a model as an interval around its point estimate.

    The rule for bad bounds is the same in calibration and in use, and looks at no truth: NaN becomes infinite (nothing
    is known on that side), crossed bounds are swapped, and a bound on the wrong side of the point moves to the point.

    Raises
    ------
    InputError
        Shapes differ, or a point isn't finite.
    """
    low, middle, high = (np.asarray(x, np.float64) for x in (lower, point, upper))
    if not low.shape == middle.shape == high.shape:
        raise InputError(f"Lower {low.shape}, point {middle.shape} and upper {high.shape} differ in shape.")
    if not np.isfinite(middle).all():
        raise InputError(f"{np.count_nonzero(~np.isfinite(middle))} point estimates aren't finite.")
    low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
    return Interval(np.minimum(np.minimum(low, high), middle), middle, np.maximum(np.maximum(low, high), middle))


def widen(raw: Interval, value: ArrayLike, family: Family = "scale", floor: float = 0.0) -> Interval:
    """The member of the family with parameter `value`; larger values give intervals that contain the smaller ones.

    Half-widths below and above the point become value * (raw + floor) for "scale", raw + value for "add", and never
    less than 0: bounds can't cross, whatever the value.

    Parameters
    ----------
    raw
        The model's interval.
    value
        At least 0 for "scale"; in the domain's unit, of either sign, for "add". One, or one for each cell.
    family
        "scale" keeps zero-width raw bounds at zero width unless there is a floor; "add" does not.
    floor
        For "scale": added to both raw half-widths first, in the domain's unit.

    References
    ----------
    Scaling about the prediction: Angelopoulos et al., "Image-to-image regression with distribution-free uncertainty
    quantification", arXiv 2202.05265. Adding: Romano, Patterson, Candès, "Conformalized quantile regression",
    2019.
    """
    given = np.asarray(value, np.float64)
    if not np.isfinite(given).all() or (family == "scale" and (given < 0).any()):
        raise InputError(f"The parameter {given} gives no interval. Give finite numbers, for 'scale' at least 0.")
    factor, term = (given, np.zeros(())) if family == "scale" else (np.ones(()), given)
    below, above = (
        np.where(np.isinf(half), np.inf, np.maximum(factor * np.where(np.isinf(half), 0.0, half) + term, 0.0))
        for half in _half_widths(raw, family, floor)
    )
    return Interval(raw.point - below, raw.point, raw.point + above)


def scores(raw: Interval, truth: ArrayLike, family: Family = "scale", floor: float = 0.0) -> Array:
    """Smallest parameter at which each cell's interval covers the truth; infinite if none does.

    Parameters
    ----------
    raw
        The model's interval.
    truth
        The true cells.
    family, floor
        As in `widen`.

    Raises
    ------
    InputError
        The truth isn't finite or has another shape.
    """
    true = np.asarray(truth, np.float64)
    if true.shape != raw.point.shape or not np.isfinite(true).all():
        raise InputError(f"The truth must be finite and of shape {raw.point.shape}; its shape is {true.shape}.")
    below, above = _half_widths(raw, family, floor)
    half = np.where(true < raw.point, below, above)
    miss = np.abs(true - raw.point)
    if family == "add":
        return np.where(miss == 0, -np.inf, miss - half)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(miss == 0, 0.0, miss / half)


def losses(clip_scores: ArrayLike, values: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Loss of each clip at each parameter: the weighted share of its cells outside their interval.

    Parameters
    ----------
    clip_scores
        `scores` of each clip, shape (clips, cells).
    values
        Parameters of the family, increasing.
    weights
        Of each cell, at least 0, broadcast to the scores; all 1 by default. Cells a clip lacks get 0.

    Returns
    -------
    Array, shape (values, clips)
        Falling along the first axis, in [0, 1].

    Raises
    ------
    InputError
        The values don't increase, or a clip has no cell with weight.
    """
    table, grid = np.asarray(clip_scores, np.float64), np.asarray(values, np.float64)
    if table.ndim != 2 or np.isnan(table).any():
        raise InputError(f"Scores must be numbers of shape (clips, cells); their shape is {table.shape}.")
    if grid.ndim != 1 or grid.size == 0 or not (np.diff(grid) > 0).all():
        raise InputError("The parameters of the family must increase.")
    weight = np.broadcast_to(np.ones(()) if weights is None else np.asarray(weights, np.float64), table.shape)
    total = weight.sum(axis=1)
    if not ((weight >= 0).all() and np.isfinite(total).all() and (total > 0).all()):
        raise InputError("Weights must be at least 0, and every clip needs a cell with weight.")
    clips = len(table)
    place = np.searchsorted(grid, table)  # how many parameters are too small for the cell
    flat = place + (grid.size + 1) * np.arange(clips)[:, None]
    missed = np.bincount(flat.ravel(), None if weights is None else weight.ravel(), clips * (grid.size + 1))
    too_small = np.cumsum(missed.reshape(clips, -1)[:, :0:-1], axis=1)[:, ::-1]
    return np.asarray(np.clip(too_small / total[:, None], 0.0, 1.0).T)


def joint_scores(clip_scores: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Score of each clip for the simultaneous promise "no cell of the gap lies outside": the largest of its cells.

    Parameters
    ----------
    clip_scores
        `scores` of each clip, shape (clips, cells).
    weights
        Cells of weight 0 don't count.
    """
    table = np.asarray(clip_scores, np.float64)
    counts = np.broadcast_to(np.ones(()) if weights is None else np.asarray(weights), table.shape) > 0
    if table.ndim != 2 or np.isnan(table).any() or not counts.any(axis=1).all():
        raise InputError("Scores must be numbers of shape (clips, cells), and every clip needs a cell that counts.")
    return np.asarray(np.where(counts, table, -np.inf).max(axis=1))


def outside(clip: Interval, truth: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Loss of one clip: the weighted share of its cells whose truth lies outside the interval, in [0, 1]."""
    true = np.asarray(truth, np.float64)
    missed = (true < clip.lower) | (true > clip.upper)
    return float(np.average(missed, weights=None if weights is None else np.broadcast_to(weights, missed.shape)))


def _half_widths(raw: Interval, family: Family, floor: float) -> tuple[Array, Array]:
    """Raw half-widths below and above the point, with the floor."""
    if family not in ("scale", "add"):
        raise InputError(f"There is no family '{family}'. Possible: scale, add.")
    if not 0 <= floor < np.inf or (family == "add" and floor):
        raise InputError(f"A floor of {floor} can't be used. Give at least 0, and 0 for the family 'add'.")
    return raw.point - raw.lower + floor, raw.upper - raw.point + floor
