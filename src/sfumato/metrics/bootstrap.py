"""Bootstrap intervals over recordings: how far a benchmark's figure would move with other music."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval, in the unit of the statistic.

    Parameters
    ----------
    value : float
        The statistic of all clips.
    lower, upper : float
        Ends of the interval.
    """

    value: float
    lower: float
    upper: float


def mean(values: Array) -> float:
    """Return the mean over clips."""
    return float(np.mean(values))


def reduction(values: Array) -> float:
    """Return 1 − mean(first column) / mean(second column): by what share the first lies below the second."""
    return float(1 - np.mean(values[:, 0]) / np.mean(values[:, 1]))


def bootstrap(
    values: NDArray[np.floating],
    recordings: Sequence[Any],
    statistic: Callable[[Array], float] = mean,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Return a statistic over clips with a percentile-bootstrap interval that resamples whole recordings.

    Parameters
    ----------
    values : ndarray, shape (clips,) or (clips, columns)
        One row per clip; give paired figures as columns, or their difference, so that pairs stay together.
    recordings : sequence, length clips
        The recording each clip comes from: clips of one recording are dependent and are drawn together.
    statistic : callable
        Of rows, to a number: `mean` (default), `reduction` or your own.
    level : float
        Coverage, 0 to 1.
    n_resamples, seed : int
        Number of resamples and their seed.

    Raises
    ------
    InputError
        If a value isn't finite, lengths differ, or there are fewer than two recordings.

    References
    ----------
    Efron, Tibshirani, "An introduction to the bootstrap", 1993, ch. 13. Whole clusters: Davison, Hinkley,
    "Bootstrap methods and their application", 1997, sec. 3.8.
    """
    rows = np.asarray(values, dtype=np.float64)
    if len(rows) != len(recordings):
        raise InputError(f"{len(rows)} values but {len(recordings)} recordings. Give one recording per value.")
    if not np.isfinite(rows).all():
        raise InputError("A value is undefined (NaN) or infinite. Leave such clips out and say how many.")
    labels, membership = np.unique(np.asarray(recordings), return_inverse=True)
    if len(labels) < 2:
        raise InputError(f"{len(labels)} recording. An interval over recordings needs at least 2.")
    members = [np.flatnonzero(membership == i) for i in range(len(labels))]
    rng = np.random.default_rng(seed)
    resampled = [
        statistic(rows[np.concatenate([members[i] for i in rng.integers(len(labels), size=len(labels))])])
        for _ in range(n_resamples)
    ]
    lower, upper = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(statistic(rows), float(lower), float(upper))
