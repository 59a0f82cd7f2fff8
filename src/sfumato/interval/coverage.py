"""Whether a promise was kept: coverage on test clips with exact intervals, and what the widths are worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from sfumato.errors import InputError
from sfumato.interval.bounds import check_share, upper_bound
from sfumato.interval.conformal import rank

Array = NDArray[np.float64]


def clopper_pearson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a chance of which `hits` of n independent clips came true.

    References
    ----------
    Clopper, Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", 1934.
    """
    _check_counts(hits, n)
    check_share("level", level)
    tail = (1 - level) / 2
    lower = stats.beta.ppf(tail, hits, n - hits + 1) if hits else 0.0
    upper = stats.beta.ppf(1 - tail, hits + 1, n - hits) if hits < n else 1.0
    return float(lower), float(upper)


def conformal_coverage_p(covered: int, n_test: int, n_calibration: int, alpha: float) -> float:
    """Two-sided p-value of a conformal bound's coverage on test clips: too little and too much are both faults.

    Given exchangeable clips and scores without ties, the coverage of one calibration is Beta(k, n + 1 - k),
    so the count of covered test clips is beta-binomial.

    Parameters
    ----------
    covered, n_test
        Test clips at or below the bound, and all.
    n_calibration, alpha
        What the bound was made from: `conformal.quantile`.

    References
    ----------
    Marques, "Universal distribution of the empirical coverage in split conformal prediction", arXiv 2303.02770.
    """
    _check_counts(covered, n_test)
    k = rank(n_calibration, alpha)
    count = stats.betabinom(n_test, k, n_calibration + 1 - k)
    return float(min(1.0, 2 * min(count.cdf(covered), count.sf(covered - 1))))


def mean_loss_interval(losses: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of losses in [0, 1] of independent clips, valid for any distribution and any n.

    Hoeffding–Bentkus on either side, `bounds.upper_bound`, at half the chance of error.
    """
    values = np.asarray(losses, np.float64)
    tail = (1 - level) / 2
    lower = 1 - float(upper_bound(1 - values, tail, "hoeffding_bentkus"))
    return lower, float(upper_bound(values, tail, "hoeffding_bentkus"))


@dataclass(frozen=True)
class Stratum:
    """Cells of similar interval width, and how often their truth lies inside.

    `standard_error` takes the clip for the unit; it is infinite if all cells come from one clip.
    """

    width_min: float
    width_max: float
    coverage: float
    standard_error: float
    n_cells: int
    n_clips: int


def size_stratified(widths: ArrayLike, inside: ArrayLike, clips: ArrayLike, n_strata: int = 4) -> list[Stratum]:
    """Coverage by interval width: flat where narrow intervals hold as often as wide ones.

    Parameters
    ----------
    widths
        Of each cell.
    inside
        Whether its truth lies inside, bool.
    clips
        Label of the clip each cell belongs to.
    n_strata
        Of as equal size as ties allow; equal widths are never parted, so there may be fewer.

    References
    ----------
    Angelopoulos, Bates, Malik, Jordan, "Uncertainty sets for image classifiers using conformal prediction", 2021,
    arXiv 2009.14193 (size-stratified coverage); the error of a ratio: Cochran, "Sampling techniques", 1977, ch. 6.
    """
    width, hit = np.asarray(widths, np.float64).ravel(), np.asarray(inside, bool).ravel()
    labels, clip = np.unique(np.asarray(clips).ravel(), return_inverse=True)
    if not width.size == hit.size == clip.size or width.size == 0 or np.isnan(width).any():
        raise InputError(f"{width.size} widths, {hit.size} outcomes and {clip.size} clips. Give one of each per cell.")
    cuts = np.quantile(width, np.arange(1, n_strata) / n_strata, method="inverted_cdf")
    strata = np.searchsorted(np.unique(cuts), width, side="left")
    result = []
    for i in np.unique(strata):
        own = strata == i
        cells = np.bincount(clip[own], minlength=len(labels))
        hits = np.bincount(clip[own], hit[own], minlength=len(labels))
        cells, hits = cells[cells > 0], hits[cells > 0]
        share, n = hits.sum() / cells.sum(), len(cells)
        spread = np.sum((hits - share * cells) ** 2) * n / (n - 1) if n > 1 else np.inf
        error = np.sqrt(spread) / cells.sum()
        w = width[own]
        result.append(Stratum(float(w.min()), float(w.max()), float(share), float(error), int(cells.sum()), n))
    return result


def spearman(widths: ArrayLike, errors: ArrayLike) -> float:
    """Rank correlation of interval width and absolute error, -1 to 1: whether wide means unsure.

    Raises
    ------
    InputError
        Fewer than 3 pairs, or one side is constant: there is no order to compare.
    """
    width, error = np.asarray(widths, np.float64).ravel(), np.asarray(errors, np.float64).ravel()
    if width.size != error.size or width.size < 3 or np.ptp(width) == 0 or np.ptp(error) == 0:
        raise InputError(f"{width.size} widths and {error.size} errors give no rank correlation: too few or constant.")
    return float(stats.spearmanr(width, error).statistic)


def _check_counts(hits: int, n: int) -> None:
    """Raise InputError unless 0 <= hits <= n and n > 0."""
    if not 0 <= hits <= n or n == 0:
        raise InputError(f"{hits} of {n} clips is no count. Give 0 to n of at least 1.")
