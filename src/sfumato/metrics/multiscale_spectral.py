"""Multi-scale spectral distance: how far two sounds' spectrograms are apart at several window lengths.

Unitless; 0 is equal, lower is better; differentiable, so it is a loss, too. It doesn't compare phases.

References
----------
A. Caillon, P. Esling, "RAVE", arXiv 2111.05011, eq. 4: per scale, the spectral convergence plus a distance of logarithms.

Notes
-----
The paper's second term is the logarithm of the L1 distance; here, as in the papers it goes back to (Arık et al.,
arXiv 1808.06719), it is the mean L1 distance of the logarithms, which stays finite and bounded for equal sounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

SCALES = (2048, 1024, 512, 256, 128)
FLOOR = 1e-5
"""Added to magnitudes before the logarithm; a full-scale sine has a magnitude of 0.5."""


def multiscale_spectral(
    reference: Float[Tensor, "*b t"], other: Float[Tensor, "*b t"], scales: Sequence[int] = SCALES
) -> Tensor:
    """Mean over `scales` of spectral convergence plus mean distance of log magnitudes, a scalar.

    Parameters
    ----------
    reference, other
        Sounds of one shape, at most about ±1.
    scales
        Window lengths in samples; the hop is a quarter.
    """
    x, y = (sound.float().reshape(-1, sound.shape[-1]) for sound in (reference, other))
    total = x.new_zeros(())
    for n_fft in scales:
        a, b = _magnitudes(x, n_fft), _magnitudes(y, n_fft)
        convergence = torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(a).clamp_min(1e-6)
        logarithms = ((a + FLOOR).log() - (b + FLOOR).log()).abs().mean()
        total = total + convergence + logarithms
    return total / len(scales)


def _magnitudes(x: Tensor, n_fft: int) -> Tensor:
    """Magnitudes of the spectrogram, over the window's sum."""
    window = torch.hann_window(n_fft, device=x.device)
    spectrum = torch.stft(x, n_fft, n_fft // 4, window=window, pad_mode="constant", return_complex=True)
    # The root of a square has no gradient at 0, which silence would meet.
    return (spectrum.real.square() + spectrum.imag.square() + 1e-16).sqrt() / window.sum()
