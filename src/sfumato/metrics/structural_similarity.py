"""SSIM: how alike two pictures are to the eye, from -1 to 1, 1 for the same picture.

Silence in both inflates it: places where nothing sounds are alike whatever sounds elsewhere.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from sfumato.errors import InputError

SIGMA, TRUNCATE = 1.5, 3.5
K1, K2 = 0.01, 0.03


def structural_similarity(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return the mean SSIM of two pictures of grey levels 0 to 255, both of shape (rows, columns).

    Raises
    ------
    InputError
        If they are not of one shape, or smaller than the window of 11 pixels.

    References
    ----------
    Z. Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 13(4), 2004,
    eq. 13 to 17, with its Gaussian window; pixels less than 5 from an edge are left out, as the authors' code does.
    """
    if first.shape != second.shape or min(first.shape) < 11:
        raise InputError(f"Pictures of {first.shape} and {second.shape} can't be compared. Give two alike, 11 x 11 up.")
    a, b = first.astype(float), second.astype(float)

    def smooth(x: NDArray[np.float64]) -> NDArray[np.float64]:
        out: NDArray[np.float64] = gaussian_filter(x, SIGMA, truncate=TRUNCATE)[5:-5, 5:-5]
        return out

    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    both = smooth(a * b) - mean_a * mean_b
    c1, c2 = (K1 * 255) ** 2, (K2 * 255) ** 2
    likeness = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(likeness.mean())
