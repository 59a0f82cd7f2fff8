"""Zimtohrli: a perceptual distance between a fill and the truth."""

import numpy as np
import soxr
from numpy.typing import NDArray

from sfumato.errors import MissingExtraError
from sfumato.metrics.gap_frames import Gap, as_pair

CONTEXT_S = 0.5
SAMPLE_RATE = 48000


def zimtohrli_distance(
    reference: NDArray[np.floating], fill: NDArray[np.floating], gap: Gap, sample_rate: float
) -> float:
    """Return the Zimtohrli distance around the gap, averaged over channels.

    Parameters
    ----------
    reference, fill : ndarray, shape (channels, samples)
        The whole clip, true and repaired, full scale ±1.
    gap : tuple of int
        (start, stop), samples, half-open.
    sample_rate : float
        Hz.

    Returns
    -------
    float
        No unit, 0 (same) upwards; lower is better.

    Raises
    ------
    MissingExtraError
        Without the zimtohrli package.

    Notes
    -----
    Slice from 0.5 s before the gap to 0.5 s after, or to the clip's ends, resampled to 48 kHz by soxr.
    The share of the gap in the slice grows with its length: compare at equal gap lengths only.

    References
    ----------
    Alakuijala et al., "Zimtohrli: an efficient psychoacoustic audio similarity metric", arXiv 2509.26133;
    the package zimtohrli.
    """
    try:
        from zimtohrli import Pyohrli
    except ImportError as error:
        raise MissingExtraError("zimtohrli", "eval") from error
    reference, fill = as_pair(reference, fill, gap)
    context = round(CONTEXT_S * sample_rate)
    span = slice(max(0, gap[0] - context), gap[1] + context)
    distances = [
        Pyohrli().distance(*(_resample(channel[span], sample_rate) for channel in pair))
        for pair in zip(reference, fill, strict=True)
    ]
    return float(np.mean(distances))


def _resample(channel: NDArray[np.float64], sample_rate: float) -> NDArray[np.float32]:
    """Return the channel at 48 kHz as float32."""
    resampled: NDArray[np.float32] = soxr.resample(channel, sample_rate, SAMPLE_RATE).astype(np.float32)
    return resampled
