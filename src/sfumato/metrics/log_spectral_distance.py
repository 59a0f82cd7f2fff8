"""Log-spectral distance in and around a gap, bin by bin, in dB."""

import numpy as np
from numpy.typing import NDArray

from sfumato.metrics.gap_frames import Gap, as_pair, floored_db, gap_power

FLOOR_DB = 70.0


def log_spectral_distance_db(reference: NDArray[np.floating], fill: NDArray[np.floating], gap: Gap) -> float:
    """Return the mean over frames of the root-mean-square difference of log power spectra, in dB.

    Parameters
    ----------
    reference, fill : ndarray, shape (channels, samples)
        The whole clip, true and repaired; channels are averaged to mono.
    gap : tuple of int
        (start, stop), samples, half-open.

    Returns
    -------
    float
        dB (10·log10 of power), lower is better, 0 only for equal spectra. Two independent draws of one
        Gaussian process, both perfect, differ by 7.9 dB. NaN (undefined) if the reference is silent there.

    Notes
    -----
    Slice from 1024 samples before the gap to 1024 after it (zeros beyond the clip), at the file's own rate;
    Hann frames of 2048 every 512; all bins; both floored 70 dB below the loudest bin of the reference slice.
    In-gap values, thus an order of magnitude above the clip-wide averages of some papers.

    References
    ----------
    Gray, Markel, "Distance measures for speech processing", IEEE TASSP 24(5), 1976.
    """
    reference, fill = as_pair(reference, fill, gap)
    levels = floored_db(gap_power(reference, gap), gap_power(fill, gap), FLOOR_DB)
    if levels is None:
        return float("nan")
    return float(np.mean(np.sqrt(np.mean((levels[1] - levels[0]) ** 2, axis=1))))
