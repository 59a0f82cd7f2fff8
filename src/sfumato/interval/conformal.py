"""Split conformal bounds: on a number per clip, such as the quality of a fill, with or without a prediction of it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfumato.errors import CalibrationError, InputError
from sfumato.interval.bounds import check_share

Array = NDArray[np.float64]
Score = Literal["plain", "ratio", "difference"]

_ROUNDING = 1e-9
"""Slack for (n + 1) * alpha in floating point: 0.1 means one tenth."""


def rank(n: int, alpha: float) -> int:
    """Which of n sorted scores is the bound, counted from 1: ceil((n + 1)(1 - alpha)).

    Raises
    ------
    CalibrationError
        Fewer than 1 / alpha - 1 clips: no finite bound holds.
    """
    check_share("alpha", alpha)
    k = int(np.ceil((n + 1) * (1 - alpha) - _ROUNDING))
    if k > n:
        raise CalibrationError(
            f"{n} calibration clips can't promise a level of {1 - alpha:g}: at least {least(alpha)} are needed. "
            "Calibrate on more clips or ask for a lower level."
        )
    return k


def least(alpha: float) -> int:
    """Fewest clips that can promise the level 1 - alpha on average: 1 / alpha - 1, rounded up."""
    check_share("alpha", alpha)
    return int(np.ceil(1 / alpha - 1 - _ROUNDING))


def quantile(scores: ArrayLike, alpha: float) -> float:
    """Number that the score of a new clip stays at or below with chance at least 1 - alpha.

    The chance is over calibration clips and new clip together, which must be exchangeable. Given one calibration
    set, the chance that it holds is itself random, Beta(k, n + 1 - k) with k = `rank`.

    Parameters
    ----------
    scores
        One per clip.
    alpha
        Chance of exceeding it, between 0 and 1.

    Raises
    ------
    CalibrationError
        Too few clips; says how many are needed. Or the bound would be infinite.

    References
    ----------
    Vovk, Gammerman, Shafer, "Algorithmic learning in a random world", 2005, ch. 4; Vovk, "Conditional validity of
    inductive conformal predictors", 2012, for the Beta distribution.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or np.isnan(values).any():
        raise InputError(f"Scores must be one number per clip; their shape is {values.shape}.")
    k = rank(values.size, alpha)
    value = float(np.partition(values, k - 1)[k - 1])
    if value == np.inf:
        raise CalibrationError(
            f"{np.count_nonzero(values == np.inf)} of {values.size} clips lie outside every member of the family, so "
            f"a level of {1 - alpha:g} can't be promised. Give zero-width bounds a floor, or use the family 'add'."
        )
    return value


def quality_scores(true: ArrayLike, predicted: ArrayLike | None = None, score: Score = "plain") -> Array:
    """Scores whose `quantile` bounds a quality from above, one per clip; small quality is good, as a distance in dB.

    Parameters
    ----------
    true
        Measured quality of each calibration clip.
    predicted
        The same as predicted without the truth; not for "plain".
    score
        "plain" the quality itself; "ratio" true / predicted, so that the bound follows the prediction in proportion;
        "difference" true - predicted.

    References
    ----------
    Normalised scores: Papadopoulos, Gammerman, Vovk, "Normalized nonconformity measures for regression conformal
    prediction", 2008; Lei et al., "Distribution-free predictive inference for regression", JASA 2018, sec. 5.2.
    """
    values = np.asarray(true, np.float64)
    if not np.isfinite(values).all():
        raise InputError("A measured quality isn't finite. Leave such clips out before looking at any quality.")
    if score == "plain":
        return values
    predictions = _predictions(predicted, score)
    if predictions.shape != values.shape:
        raise InputError(f"{values.size} qualities but {predictions.size} predictions. Give one per clip.")
    return values / predictions if score == "ratio" else values - predictions


def quality_bound(value: float, predicted: ArrayLike | None = None, score: Score = "plain") -> Array:
    """Upper bound on the quality of new clips, in the quality's unit.

    Parameters
    ----------
    value
        `quantile` of the `quality_scores` of the calibration clips.
    predicted
        Predicted quality of each new clip; not for "plain".
    score
        As in calibration.

    Examples
    --------
    >>> scores = quality_scores([2.0, 6.0, 3.0, 5.0], [2.0, 4.0, 4.0, 5.0], "ratio")
    >>> float(quality_bound(quantile(scores, 0.4), 3.0, "ratio"))
    3.0
    """
    if score == "plain":
        return np.asarray(value, np.float64)
    predictions = _predictions(predicted, score)
    return np.asarray(value * predictions if score == "ratio" else value + predictions)


def _predictions(predicted: ArrayLike | None, score: Score) -> Array:
    """Predicted qualities that the score can use, or InputError."""
    if score not in ("ratio", "difference"):
        raise InputError(f"There is no score '{score}'. Possible: plain, ratio, difference.")
    if predicted is None:
        raise InputError(f"The score '{score}' needs a predicted quality per clip.")
    values = np.asarray(predicted, np.float64)
    if not np.isfinite(values).all() or (score == "ratio" and not (values > 0).all()):
        raise InputError("A predicted quality isn't finite, or not above 0 as a ratio needs.")
    return values
