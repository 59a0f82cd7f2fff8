"""Kernel distance between two sets of embeddings: the squared maximum mean discrepancy, unbiased for any set sizes."""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist

from sfumato.errors import InputError

Array = NDArray[np.float64]


def kernel_distance(found: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Return the squared maximum mean discrepancy of two sets under a Gaussian kernel, times 100.

    Parameters
    ----------
    found, reference : ndarray, shapes (n, d) and (m, d)
        Embeddings, two or more each.

    Returns
    -------
    float
        0 on average for two draws of one distribution (single values may be negative), up to 200; lower is better.

    Raises
    ------
    InputError
        If a set has fewer than two rows, the dimensions differ, a value isn't finite, or all references are one point.

    Notes
    -----
    The kernel's width is the median distance between references. Unlike the Fréchet distance it assumes no Gaussian and
    doesn't grow as sets get smaller.

    References
    ----------
    Chung et al., "KAD: No More FAD! An effective and efficient evaluation metric for audio generation", arXiv
    2502.15602, eq. 3-5; Gretton et al., "A kernel two-sample test", JMLR 13, 2012, eq. 3.
    """
    x, y = (np.asarray(rows, dtype=np.float64) for rows in (found, reference))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1:] != y.shape[1:] or min(len(x), len(y)) < 2:
        raise InputError(f"Embeddings of shapes {x.shape} and {y.shape} can't be compared. Give 2 rows or more.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("An embedding is NaN or infinite.")
    width = float(np.median(pdist(y)))
    if width == 0:
        raise InputError("The reference embeddings are all the same. Give sounds that differ.")

    def alike(a: Array, b: Array) -> Array:
        return np.asarray(np.exp(-cdist(a, b, "sqeuclidean") / (2 * width**2)))

    def within(a: Array) -> float:
        return float((alike(a, a).sum() - len(a)) / (len(a) * (len(a) - 1)))

    return 100.0 * (within(x) + within(y) - 2.0 * float(alike(x, y).mean()))
