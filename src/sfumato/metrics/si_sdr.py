"""Scale-invariant signal-to-distortion ratio of a whole sound, dB: higher is better."""

import numpy as np
from numpy.typing import NDArray


def si_sdr_db(reference: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return 10 log10 of the energy of what `other` shares with the reference over that of the rest.

    Parameters
    ----------
    reference, other : ndarray, any shape, the same
        True and coded sound.

    Returns
    -------
    float
        dB; NaN (undefined) if the reference is silent, -inf if `other` has nothing of it or is silent, inf if it has
        nothing else.

    References
    ----------
    Le Roux, Wisdom, Erdogan, Hershey, "SDR - half-baked or well done?", ICASSP 2019, arXiv 1811.02508, eq. 3, without
    removing means.
    """
    truth, made = np.asarray(reference, np.float64).ravel(), np.asarray(other, np.float64).ravel()
    energy = float(truth @ truth)
    if energy == 0.0:
        return float("nan")
    shared = (made @ truth) / energy * truth
    rest = made - shared
    if not shared.any():
        return -float("inf")
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(np.float64(shared @ shared) / np.float64(rest @ rest)))
