"""Fréchet distance between two sets of embeddings: does a set of fills sound like real music, as a whole?"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, eigvalsh

from sfumato.errors import InputError

Array = NDArray[np.float64]


def gaussian(embeddings: NDArray[np.floating]) -> tuple[Array, Array]:
    """Return the mean (d,) and unbiased covariance (d, d) of embeddings (n, d), n ≥ 2.

    Raises
    ------
    InputError
        If there are fewer than two embeddings or one isn't finite.
    """
    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < 2:
        raise InputError(f"Embeddings of shape {rows.shape} have no covariance. Give at least 2 rows.")
    if not np.isfinite(rows).all():
        raise InputError("An embedding is NaN or infinite.")
    return rows.mean(axis=0), np.cov(rows, rowvar=False).reshape(rows.shape[1], rows.shape[1])


def frechet_distance(mu1: Array, cov1: Array, mu2: Array, cov2: Array) -> float:
    """Return the squared Fréchet (2-Wasserstein) distance between two Gaussians.

    Parameters
    ----------
    mu1, mu2 : ndarray, shape (d,)
        Means.
    cov1, cov2 : ndarray, shape (d, d)
        Covariances, symmetric, positive semidefinite; singular ones
        (fewer embeddings than dimensions) are fine.

    Returns
    -------
    float
        ‖μ1 − μ2‖² + tr(C1 + C2 − 2 (C1^½ C2 C1^½)^½), in squared units of the embedding,
        ≥ 0; lower is better.

    Notes
    -----
    Estimated from n embeddings it is biased upwards, the more the smaller n: compare sets of equal
    size made by the same embedder, never with figures of another.

    References
    ----------
    Dowson, Landau, "The Fréchet distance between multivariate normal distributions", J. Multivariate Analysis
    12, 1982. For audio: Kilgour et al., "Fréchet audio distance", arXiv 1812.08466.
    """
    values, vectors = eigh(cov1)
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    cross = np.sqrt(np.maximum(eigvalsh(root @ cov2 @ root), 0.0)).sum()
    distance = np.sum((mu1 - mu2) ** 2) + np.trace(cov1) + np.trace(cov2) - 2 * cross
    return float(max(distance, 0.0))
