"""Upper confidence bounds on the mean of losses in [0, 1] of independent clips, and tests that the mean is small."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, xlogy

from sfumato.errors import InputError

Array = NDArray[np.float64]
Bound = Literal["hoeffding_bentkus", "wsr"]
BOUNDS: tuple[Bound, ...] = get_args(Bound)

_HALVINGS = 50
"""Bisection steps of `upper_bound`: to 1e-15, from above."""


def hoeffding_bentkus_p(total: ArrayLike, n: int, alpha: ArrayLike) -> Array:
    """P-value of "the mean loss exceeds `alpha`": the chance of losses this small if their mean is `alpha`.

    The smaller of Hoeffding's exp(-n h(min(r, alpha), alpha)), with r the mean of the losses and h the relative
    entropy of two coins, and Bentkus' e P(Binomial(n, alpha) <= ceil(n r)).

    Parameters
    ----------
    total
        Sum of the losses, each in [0, 1].
    n
        Number of clips.
    alpha
        Mean loss to rule out, strictly between 0 and 1.

    Notes
    -----
    With floor for ceil, as in some published code, Bentkus' inequality does not hold for losses between 0 and 1.

    References
    ----------
    Bates, Angelopoulos, Lei, Malik, Jordan, "Distribution-free, risk-controlling prediction sets", J. ACM 68(6),
    2021, sec. 3.1.2; Angelopoulos et al., "Learn then test", arXiv 2110.01052, Proposition 1.
    """
    total, alpha = np.asarray(total, np.float64), np.asarray(alpha, np.float64)
    r = np.minimum(total / n, alpha)
    entropy = xlogy(r, r / alpha) + xlogy(1 - r, (1 - r) / (1 - alpha))
    bentkus = np.e * bdtr(np.minimum(np.ceil(total), n), n, alpha)
    return np.asarray(np.minimum(np.minimum(np.exp(-n * entropy), bentkus), 1.0))


def wsr_log_wealth(losses: ArrayLike, alpha: ArrayLike, delta: float) -> Array:
    """Largest log wealth of a gambler who bets, clip after clip, that the mean loss lies below `alpha`.

    If the mean is `alpha` or more, wealth is a supermartingale from 1, so it exceeds 1 / delta with chance at most
    delta (Ville). The bet on a clip uses only the clips before it, so losses must come in an order that does not
    depend on them; the result depends on that order.

    Parameters
    ----------
    losses
        In [0, 1], clips along the last axis.
    alpha
        Mean loss to rule out, in (0, 1]; broadcast against the leading axes.
    delta
        Chance of error the bets are tuned to.

    References
    ----------
    Waudby-Smith, Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86(1), 2024,
    sec. 3 (predictable plug-in); Bates et al. (see `hoeffding_bentkus_p`), sec. 3.1.3.
    """
    losses = np.asarray(losses, np.float64)
    n = losses.shape[-1]
    count = 1.0 + np.arange(1, n + 1)
    mean = (0.5 + np.cumsum(losses, axis=-1)) / count
    variance = (0.25 + np.cumsum((losses - mean) ** 2, axis=-1)) / count
    before = np.concatenate([np.full_like(variance[..., :1], 0.25), variance[..., :-1]], axis=-1)
    bets = np.minimum(1.0, np.sqrt(2 * np.log(1 / delta) / (n * before)))
    gains = np.log1p(-bets * (losses - np.asarray(alpha, np.float64)[..., None]))
    return np.asarray(np.cumsum(gains, axis=-1).max(axis=-1))


def passes(losses: ArrayLike, alpha: ArrayLike, delta: float, kind: Bound) -> NDArray[np.bool_]:
    """Whether clips show that their mean loss is below `alpha`; wrong with chance at most `delta`.

    Parameters
    ----------
    losses
        In [0, 1], clips along the last axis, in an order that does not depend on them.
    alpha
        The claim, strictly between 0 and 1; broadcast against the leading axes.
    delta
        Chance of error, strictly between 0 and 1.
    kind
        "hoeffding_bentkus", or "wsr", which is tighter where losses vary little.

    Raises
    ------
    InputError
        A loss outside [0, 1], no clips, or alpha or delta not between 0 and 1.
    """
    values = _checked(losses)
    check_share("alpha", alpha)
    check_share("delta", delta)
    return _TESTS[_known(kind)](values, np.asarray(alpha, np.float64), delta)


def upper_bound(losses: ArrayLike, delta: float, kind: Bound) -> Array:
    """Number that the mean loss of all clips exceeds with chance at most `delta`, in [0, 1].

    Parameters
    ----------
    losses
        In [0, 1], clips along the last axis, in an order that does not depend on them; one bound per leading index.
    delta
        Chance of error, strictly between 0 and 1.
    kind
        "hoeffding_bentkus" or "wsr".

    Raises
    ------
    InputError
        As `passes`.

    Examples
    --------
    >>> import numpy as np
    >>> float(upper_bound(np.zeros(100), 0.1, "hoeffding_bentkus").round(4))  # 1 - 0.1 ** (1 / 100)
    0.0228
    """
    values = _checked(losses)
    check_share("delta", delta)
    test = _TESTS[_known(kind)]
    low, high = np.zeros(values.shape[:-1]), np.ones(values.shape[:-1])
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = test(values, middle, delta)
        low, high = np.where(below, low, middle), np.where(below, middle, high)
    return np.asarray(high)


def check_share(name: str, value: ArrayLike) -> None:
    """Raise InputError unless every value lies strictly between 0 and 1."""
    values = np.asarray(value, np.float64)
    if not ((values > 0) & (values < 1)).all():
        raise InputError(f"{name} {values} isn't between 0 and 1. Give a share such as 0.1.")


def _hoeffding_bentkus(losses: Array, alpha: Array, delta: float) -> NDArray[np.bool_]:
    return np.asarray(hoeffding_bentkus_p(losses.sum(axis=-1), losses.shape[-1], alpha) <= delta)


def _wsr(losses: Array, alpha: Array, delta: float) -> NDArray[np.bool_]:
    return np.asarray(wsr_log_wealth(losses, alpha, delta) > np.log(1 / delta))


_TESTS: dict[Bound, Callable[[Array, Array, float], NDArray[np.bool_]]] = {
    "hoeffding_bentkus": _hoeffding_bentkus,
    "wsr": _wsr,
}


def _known(kind: Bound) -> Bound:
    """`kind`, or InputError if there is no such bound."""
    if kind not in BOUNDS:
        raise InputError(f"There is no bound '{kind}'. Possible: {', '.join(BOUNDS)}.")
    return kind


def _checked(losses: ArrayLike) -> Array:
    """The losses as float64, or InputError."""
    values = np.asarray(losses, np.float64)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise InputError("There are no losses. Give one per clip.")
    if not ((values >= 0) & (values <= 1)).all():
        worst = values.ravel()[~((values >= 0) & (values <= 1)).ravel()][0]
        raise InputError(f"A loss of {worst} isn't in [0, 1]. Give the share of a clip's cells outside its interval.")
    return values
