"""Energy above 11 kHz in a gap: does a fill have the bandwidth of the truth?"""

import numpy as np
from numpy.typing import NDArray

from sfumato.metrics.gap_frames import Array, Gap, as_pair

F_MIN_HZ = 11000.0
MIN_WIDTH_HZ = 1000.0
FLOOR_DB = 70.0


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
        the sample rate is below 12 kHz, or the truth's energy above 11 kHz lies more than 70 dB below its
        whole energy in the gap. The fill's energy counts as at least that floor: silence stays finite.

    Notes
    -----
    Spectrum of the gap's samples under one Hann window: what counts is the fill's inside, not a click at its edges
    (`sfumato.metrics.seam` finds that). The whole energy is taken under the same window.
    """
    truth, filled = (_spectrum(clip, gap) for clip in as_pair(reference, fill, gap))
    high = np.fft.rfftfreq(gap[1] - gap[0], 1 / sample_rate) >= F_MIN_HZ
    floor = float(truth.sum()) * 10 ** (-FLOOR_DB / 10)
    energy = float(truth[high].sum())
    if sample_rate / 2 < F_MIN_HZ + MIN_WIDTH_HZ or energy <= floor:
        return float("nan")
    return float(10 * np.log10(max(float(filled[high].sum()), floor) / energy))


def _spectrum(clip: Array, gap: Gap) -> Array:
    """Return the power spectrum of the gap under a Hann window, summed over channels."""
    length = gap[1] - gap[0]
    window = np.sin(np.pi * (np.arange(length) + 0.5) / length) ** 2
    power: Array = np.sum(np.abs(np.fft.rfft(clip[:, gap[0] : gap[1]] * window)) ** 2, axis=0)
    return power
