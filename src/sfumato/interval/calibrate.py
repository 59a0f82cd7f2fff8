"""Choosing the smallest interval of a nested family whose promise holds: RCPS and conformal risk control.

Losses come as an array (members of the family, clips), the smallest interval first: along the first axis they
fall. Where a loss rises instead, both rules take for it the largest loss of any wider member, which is
never smaller, so the promise holds for the loss as given.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfumato.errors import CalibrationError, InputError
from sfumato.interval import conformal
from sfumato.interval.bounds import BOUNDS, Bound, check_share, passes

Array = NDArray[np.float64]
Kind = Literal["hoeffding_bentkus", "wsr", "crc", "conformal"]
"""How a promise is made: RCPS with either bound, conformal risk control, or a conformal quantile."""
KINDS: tuple[Kind, ...] = get_args(Kind)

_MOST_CLIPS = 100_000
"""Where the search for a sufficient number of clips ends."""


def rcps(losses: ArrayLike, alpha: float, delta: float, kind: Bound, seed: int = 0) -> int:
    """Index of the smallest interval such that, with chance 1 - delta, its mean loss on new clips is at most alpha.

    From the widest member down, each mean loss is bounded from above; the walk stops at the first bound above alpha.
    Because the members are nested, one delta pays for the whole walk.

    Parameters
    ----------
    losses
        In [0, 1], shape (members, clips), one column per independent clip.
    alpha
        Largest mean loss allowed, between 0 and 1.
    delta
        Chance, over the draw of the calibration clips, that the promise fails.
    kind
        Bound: "hoeffding_bentkus", or "wsr", which depends on the order of the clips.
    seed
        Of the order in which the clips are taken; fix it before seeing losses.

    Raises
    ------
    CalibrationError
        Not even the widest member passes; says how many clips are needed.

    References
    ----------
    Bates, Angelopoulos, Lei, Malik, Jordan, "Distribution-free, risk-controlling prediction sets", J. ACM 68(6), 2021,
    eq. 4 and Theorem 1.
    """
    table = _nested(losses)[:, np.random.default_rng(seed).permutation(np.shape(losses)[1])]
    passed = passes(table, alpha, delta, kind)
    if not passed[-1]:
        raise CalibrationError(_refusal(table[-1], alpha, delta, kind))
    return _first_of_last_run(passed)


def crc(losses: ArrayLike, alpha: float) -> int:
    """Index of the smallest interval whose loss on a new clip is at most alpha on average.

    The average is over calibration clips and new clip together: a single calibration may do worse, and often
    does. The rule: (sum of losses + 1) / (n + 1) <= alpha.

    Parameters
    ----------
    losses
        In [0, 1], shape (members, clips).
    alpha
        Largest mean loss allowed, between 0 and 1.

    Raises
    ------
    CalibrationError
        Not even the widest member passes; says how many clips are needed.

    References
    ----------
    Angelopoulos, Bates, Fisch, Lei, Schuster, "Conformal risk control", ICLR 2024, eq. 4 and Theorem 1.
    """
    table = _nested(losses)
    check_share("alpha", alpha)
    n = table.shape[1]
    passed = (table.sum(axis=1) + 1) / (n + 1) <= alpha + 1e-12
    if not passed[-1]:
        raise CalibrationError(_refusal(table[-1], alpha, None, "crc"))
    return _first_of_last_run(passed)


def choose(losses: ArrayLike, alpha: float, delta: float | None, kind: Kind, seed: int = 0) -> int:
    """Index of the smallest interval that `kind` allows: `rcps` or `crc` by name; delta is for `rcps` only."""
    if kind == "crc":
        return crc(losses, alpha)
    if kind not in BOUNDS:
        raise InputError(f"'{kind}' calibrates no mean loss. Possible: {', '.join((*BOUNDS, 'crc'))}.")
    if delta is None:
        raise InputError(f"'{kind}' needs delta, the chance that the calibration fails. Give one such as 0.1.")
    return rcps(losses, alpha, delta, kind, seed)


def clips_needed(alpha: float, kind: Kind, delta: float | None = None) -> int:
    """Fewest clips with which `kind` can promise anything, reached if no clip loses anything.

    Parameters
    ----------
    alpha
        Largest mean loss, or 1 - level of a conformal quantile.
    kind
        The rule.
    delta
        Chance that the calibration fails; for "hoeffding_bentkus" and "wsr".

    Examples
    --------
    >>> clips_needed(0.1, "crc"), clips_needed(0.1, "hoeffding_bentkus", 0.1)
    (9, 22)
    """
    if kind in ("crc", "conformal"):
        return conformal.least(alpha)
    if delta is None:
        raise InputError(f"'{kind}' needs delta, the chance that the calibration fails. Give one such as 0.1.")
    enough = _enough(np.zeros(1), alpha, delta, kind)
    if enough is None:
        raise CalibrationError(f"No {_MOST_CLIPS} clips can promise alpha {alpha:g} with delta {delta:g}.")
    return enough


def _nested(losses: ArrayLike) -> Array:
    """The losses, each replaced by the largest of any wider member."""
    table = np.asarray(losses, np.float64)
    if table.ndim != 2 or 0 in table.shape or not ((table >= 0) & (table <= 1)).all():
        raise InputError(f"Losses must lie in [0, 1] and have the shape (members, clips); theirs is {table.shape}.")
    return np.asarray(np.maximum.accumulate(table[::-1], axis=0)[::-1])


def _first_of_last_run(passed: NDArray[np.bool_]) -> int:
    """Start of the run of passes that reaches the last member."""
    failed = np.flatnonzero(~passed)
    return int(failed[-1]) + 1 if failed.size else 0


def _enough(losses: Array, alpha: float, delta: float | None, kind: Kind) -> int | None:
    """Fewest clips, repeating these losses, that pass; None if there are none below `_MOST_CLIPS`."""

    def fails(n: int) -> bool:
        again = np.resize(losses, n)
        if delta is not None and (kind == "hoeffding_bentkus" or kind == "wsr"):
            return not passes(again, alpha, delta, kind)
        return bool((again.sum() + 1) / (n + 1) > alpha)

    low, high = 0, 1
    while fails(high):
        if high > _MOST_CLIPS:
            return None
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fails(middle) else (low, middle)
    return high


def _refusal(losses: Array, alpha: float, delta: float | None, kind: Kind) -> str:
    """Why the widest member can't be promised, and what would do."""
    n, mean = losses.size, float(losses.mean())
    needed = clips_needed(alpha, kind, delta)
    said = f"{n} calibration clips can't promise a mean loss of at most {alpha:g}"
    if delta is not None:
        said += f" with chance {1 - delta:g}"
    if n < needed:
        return f"{said}: at least {needed} are needed, even if none loses anything. Calibrate on more clips."
    said += f": the widest interval loses {mean:.3g} on average."
    more = _enough(losses, alpha, delta, kind) if mean < alpha else None
    if more is None:
        return f"{said} Add wider members to the family."
    return f"{said} About {max(more, n + 1)} clips like these are needed, or wider members in the family."
