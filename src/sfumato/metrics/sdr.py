"""Signal-to-distortion ratio inside a gap, in dB."""

import numpy as np
from numpy.typing import NDArray

from sfumato.metrics.gap_frames import Gap, as_pair


def sdr_db(reference: NDArray[np.floating], fill: NDArray[np.floating], gap: Gap) -> float:
    """Return 10·log10(‖reference‖² / ‖reference − fill‖²) over the gap's samples of all channels, in dB.

    Parameters
    ----------
    reference, fill : ndarray, shape (channels, samples)
        The whole clip, true and repaired.
    gap : tuple of int
        (start, stop), samples, half-open.

    Returns
    -------
    float
        dB, higher is better; silence in the gap scores 0. NaN (undefined) if the reference is silent there.

    Notes
    -----
    The distortion counts as at least one float64 rounding of the reference, so an exact fill scores 313 dB
    and a mean over clips stays finite.

    References
    ----------
    Vincent, Gribonval, Févotte, "Performance measurement in blind audio source separation", IEEE TASLP 14(4),
    2006: SDR without allowed distortions; restricted to the gap as usual for audio inpainting
    (Adler et al., "Audio inpainting", IEEE TASLP 20(3), 2012).
    """
    reference, fill = as_pair(reference, fill, gap)
    truth = reference[:, gap[0] : gap[1]]
    signal = float(np.sum(truth**2))
    if signal == 0.0:
        return float("nan")
    distortion = float(np.sum((truth - fill[:, gap[0] : gap[1]]) ** 2))
    return float(10 * np.log10(signal / max(distortion, signal * np.finfo(np.float64).eps ** 2)))
