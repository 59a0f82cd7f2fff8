"""Energy above 11 kHz in a gap: does a fill have the bandwidth of the truth?"""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from sfumato.metrics.gap_frames import Array, Gap, as_pair

F_MIN_HZ = 11000.0
FLOOR_DB = 70.0


def high_pass(clip: Array, sample_rate: float, f_min: float) -> Array:
    """Return the clip above f_min, Hz, by a Butterworth filter of order 8 run both ways (zero phase)."""
    sections = butter(8, f_min, "highpass", fs=sample_rate, output="sos")
    return np.asarray(sosfiltfilt(sections, clip, axis=-1, padtype=None))


def high_band_bias_db(
    reference: NDArray[np.floating], fill: NDArray[np.floating], gap: Gap, sample_rate: float
) -> float:
    """Return the fill's energy above 11 kHz over the truth's, within the gap and summed over channels, in dB.

    Parameters
    ----------
    reference, fill : ndarray, shape (channels, samples)
        The whole clip, true and repaired.
    gap : tuple of int
        (start, stop), samples, half-open.
    sample_rate : float
        Hz.

    Returns
    -------
    float
        dB; 0 is best, negative means a duller fill. NaN (undefined) where the material isn't full-band: half
        the sample rate is at most 11 kHz, or the truth's energy above 11 kHz lies more than 70 dB below its
        whole energy in the gap. The fill's energy counts as at least that floor: silence stays finite.
    """
    reference, fill = as_pair(reference, fill, gap)
    inside = slice(*gap)
    floor = float(np.sum(reference[:, inside] ** 2)) * 10 ** (-FLOOR_DB / 10)
    if sample_rate / 2 <= F_MIN_HZ or floor == 0.0:
        return float("nan")
    truth, energy = (
        float(np.sum(high_pass(clip, sample_rate, F_MIN_HZ)[:, inside] ** 2)) for clip in (reference, fill)
    )
    return float("nan") if truth < floor else float(10 * np.log10(max(energy, floor) / truth))
