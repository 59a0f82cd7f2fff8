"""Mel distance: how far two sounds' mel spectrograms are apart at several resolutions, in log10 of magnitude.

0 is equal, lower is better; one unit is 20 dB, summed over the resolutions.
"""

import torch
from torch import Tensor

from sfumato.signal.mel import mel_filters
from sfumato.signal.stft import stft

RESOLUTIONS = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
"""(window in samples, number of mel bands)."""
FLOOR = 1e-5


def mel_distance(reference: Tensor, other: Tensor, sample_rate: float) -> float:
    """Return the sum over resolutions of the mean distance of log mel magnitudes.

    Parameters
    ----------
    reference, other : Tensor, shape (..., samples)
        Sounds of one shape, full scale ±1.
    sample_rate : float
        Hz.

    Notes
    -----
    The hop is a quarter of the window. Filters are those of `signal.mel` (Slaney), magnitudes are floored at 1e-5;
    windows aren't normalised. Where a filter is narrower than a bin its band stays at the floor in both sounds.

    References
    ----------
    R. Kumar et al., "High-fidelity audio compression with improved RVQGAN" (DAC), arXiv 2306.06546, sec. 3.5 and 4.3:
    the loss, which also serves as its metric; resolutions and floor are theirs.
    """
    total = 0.0
    for n_fft, n_mels in RESOLUTIONS:
        filters = mel_filters(sample_rate, n_fft, n_mels)
        logarithms = [
            torch.matmul(filters.to(sound.dtype), stft(sound, n_fft, n_fft // 4).abs()).clamp_min(FLOOR).log10()
            for sound in (reference, other)
        ]
        total += float((logarithms[0] - logarithms[1]).abs().mean())
    return total
