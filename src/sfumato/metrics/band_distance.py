"""Band distance: how far a fill's spectral envelope is from the truth, in dB."""

import numpy as np
from numpy.typing import NDArray

from sfumato.metrics.gap_frames import Array, Gap, as_pair, floored_db, gap_power

N_BANDS = 40
F_MIN_HZ = 60.0
F_MAX_RATIO = 0.45
FLOOR_DB = 70.0


def band_matrix(sample_rate: float, n_fft: int = 2048) -> Array:
    """Return the 0/1 matrix (bands, bins) that sums DFT bins into log-spaced bands; empty bands are dropped.

    Parameters
    ----------
    sample_rate : float
        Hz. Band edges are spaced geometrically from 60 Hz to 0.45 × sample_rate, half-open.
    n_fft : int
        Frame length, samples.
    """
    edges = np.geomspace(F_MIN_HZ, F_MAX_RATIO * sample_rate, N_BANDS + 1)
    frequencies = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    bands = (frequencies >= edges[:-1, None]) & (frequencies < edges[1:, None])
    return bands[bands.any(axis=1)].astype(np.float64)


def band_errors_db(
    reference: NDArray[np.floating], fill: NDArray[np.floating], gap: Gap, sample_rate: float
) -> Array | None:
    """Return fill − reference in dB, shape (frames, bands); None where the reference is silent.

    Its mean is the bias of the fill's energy; its root mean square is the band distance.
    Parameters are those of `band_distance_db`.
    """
    reference, fill = as_pair(reference, fill, gap)
    bands = band_matrix(sample_rate).T
    levels = floored_db(gap_power(reference, gap) @ bands, gap_power(fill, gap) @ bands, FLOOR_DB)
    return None if levels is None else levels[1] - levels[0]


def band_distance_db(
    reference: NDArray[np.floating], fill: NDArray[np.floating], gap: Gap, sample_rate: float
) -> float:
    """Return the root-mean-square level difference over 40 log-spaced bands, in dB.

    Parameters
    ----------
    reference, fill : ndarray, shape (channels, samples)
        The whole clip, true and repaired; channels are averaged to mono.
    gap : tuple of int
        (start, stop), samples, half-open.
    sample_rate : float
        Hz; the metric works at the file's own rate.

    Returns
    -------
    float
        dB, 0 to 70 or, where the fill is louder, more; lower is better, 0 is a perfect envelope.
        NaN (undefined) if the reference is silent around the gap.

    Notes
    -----
    Slice from 1024 samples before the gap to 1024 after it (zeros beyond the clip); Hann frames of 2048 every
    512; power summed in 40 bands with edges spaced geometrically from 60 Hz to 0.45 × rate, empty bands
    dropped; both floored 70 dB below the loudest band value of the reference slice; root mean square over all
    frames and bands.
    """
    errors = band_errors_db(reference, fill, gap, sample_rate)
    return float("nan") if errors is None else float(np.sqrt(np.mean(errors**2)))
