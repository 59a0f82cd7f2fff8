"""P-values of "this is clean", calibrated on clean clips, so that the rate of false alarms is a promise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

from sfumato.errors import InputError

Array = NDArray[np.float64]


def clip_max(windows: Iterable[ArrayLike]) -> Array:
    """Score of each clip: the largest of its windows', so that one alarm anywhere counts as one.

    Clips must have one length: a longer clip has more windows to be alarmed by, and is not exchangeable.
    """
    values = [np.asarray(scores, np.float64) for scores in windows]
    if not all(scores.size and not np.isnan(scores).any() for scores in values):
        raise InputError("A clip has no score, or one that isn't a number.")
    return np.array([scores.max() for scores in values])


def conformal_p(scores: ArrayLike, clean: ArrayLike) -> Array:
    """P-value of each score: (1 + number of clean clips that score as high) / (1 + number of clean clips).

    For a new clean clip it is at most a with chance at most a, for every a. With `clip_max` scores for `clean`, all
    segments of a clip may be tested without correction: the chance that a clean clip gets any segment with p <= a is at
    most a, since no segment scores above its clip. p <= alpha exactly if the score exceeds
    `conformal.quantile(clean, alpha)`.

    Parameters
    ----------
    scores
        Of clips, or of segments of clips; large is suspicious.
    clean
        One score per clean calibration clip.

    References
    ----------
    Vovk, Gammerman, Shafer, "Algorithmic learning in a random world", 2005, ch. 2; the maximum over windows:
    Westfall, Young, "Resampling-based multiple testing", 1993, ch. 2.

    Examples
    --------
    >>> conformal_p([0.5, 9.0], [1.0, 2.0, 3.0]).tolist()
    [1.0, 0.25]
    """
    new, known = np.asarray(scores, np.float64), np.sort(np.asarray(clean, np.float64).ravel())
    if known.size == 0 or np.isnan(known).any() or np.isnan(new).any():
        raise InputError("There are no clean scores, or a score isn't a number.")
    return np.asarray((1.0 + known.size - np.searchsorted(known, new, side="left")) / (1.0 + known.size))


def voted_p(scores: ArrayLike, clean: Sequence[ArrayLike]) -> Array:
    """P-value of each score where clean clips come in groups: (1 + sum of the groups' votes) / (1 + number of groups).

    A group's vote is the share of its clips that score as high. Clips of one piece of music resemble each other, so the
    piece is what is independent, and has one vote however many clips were cut from it. For a clip of a new clean
    piece, the p-value is at most a with chance at most a, for every a.

    Parameters
    ----------
    scores
        Of new clips, or of segments of them (see `clip_max`); large is suspicious.
    clean
        For each group, the scores of its clips.

    References
    ----------
    Lee, Barber, Willett, "Distribution-free inference with hierarchical data", arXiv 2306.06342, sec. 3: the p-value of
    their "hierarchical conformal prediction".

    Examples
    --------
    >>> voted_p([0.5, 9.0, 2.5], [[1.0, 3.0], [2.0]]).tolist()
    [1.0, 0.3333333333333333, 0.5]
    """
    new = np.asarray(scores, np.float64)
    groups = [np.sort(np.asarray(group, np.float64).ravel()) for group in clean]
    if not groups or any(group.size == 0 or np.isnan(group).any() for group in groups) or np.isnan(new).any():
        raise InputError("There are no clean scores, or a score isn't a number.")
    votes = [1.0 - np.searchsorted(group, new, side="left") / group.size for group in groups]
    return np.asarray((1.0 + np.sum(votes, axis=0)) / (1.0 + len(groups)))


def adjust(p: ArrayLike, method: Literal["holm", "bh", "by"]) -> Array:
    """P-values adjusted for being looked at together.

    "holm" keeps the chance of any false alarm among all; "bh" and "by" keep the expected share of false alarms among
    the alarms. Conformal p-values that share clean clips depend positively, as "bh" needs; "by" needs nothing.

    References
    ----------
    Holm, "A simple sequentially rejective multiple test procedure", 1979; Benjamini, Hochberg, 1995; Benjamini,
    Yekutieli, 2001; for conformal p-values: Bates, Candès, Lei, Romano, Sesia, "Testing for outliers with conformal
    p-values", Ann. Stat. 51(1), 2023, Theorem 2.
    """
    values = np.asarray(p, np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise InputError("P-values must be a list of numbers in [0, 1].")
    if values.size == 0:
        return values
    if method != "holm":
        return np.asarray(false_discovery_control(values, method=method))
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted
