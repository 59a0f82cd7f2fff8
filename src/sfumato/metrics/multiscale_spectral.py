"""Multi-scale spectral distance: how far two sounds' spectrograms are apart at several window lengths.

Unitless; 0 is equal, lower is better; differentiable, so it is a loss, too. It doesn't compare phases.

References
----------
A. Caillon, P. Esling, "RAVE", arXiv 2111.05011, eq. 4: per scale, spectral convergence plus a distance of logarithms.

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
FLOOR = 3e-6
"""Added to magnitudes before the logarithm; a full-scale sine has a magnitude of 0.5."""

SILENT = 3e-4
"""Least norm of a frame that convergence divides by: a reference below -70 dB counts as one of that level. A frame's
norm over the square root of their number is about a sound's root mean square, whatever the window."""


def multiscale_spectral(
    reference: Float[Tensor, "b c t"], other: Float[Tensor, "b c t"], scales: Sequence[int] = SCALES
) -> Tensor:
    """Mean over sounds and `scales` of spectral convergence plus mean distance of log magnitudes, a scalar.

    Parameters
    ----------
    reference, other
        Sounds of one shape, at most about ±1; the channels (or bands) of a sound share its spectral convergence.
    scales
        Window lengths in samples; the hop is a quarter.
    """
    x, y = reference.float(), other.float()
    total = x.new_zeros(())
    for n_fft in scales:
        a, b = _magnitudes(x, n_fft), _magnitudes(y, n_fft)
        size = torch.linalg.vector_norm(a, dim=1).clamp_min(SILENT * (x.shape[-1] * 4 / n_fft) ** 0.5)
        convergence = torch.linalg.vector_norm(a - b, dim=1) / size
        logarithms = ((a + FLOOR).log() - (b + FLOOR).log()).abs().mean(dim=1)
        total = total + (convergence + logarithms).mean()
    return total / len(scales)


def _magnitudes(x: Tensor, n_fft: int) -> Tensor:
    """Magnitudes of each sound's spectrogram, over the window's sum: (sounds, everything)."""
    window = torch.hann_window(n_fft, device=x.device)
    flat = x.reshape(-1, x.shape[-1])
    spectrum = torch.stft(flat, n_fft, n_fft // 4, window=window, pad_mode="constant", return_complex=True)
    power = spectrum.real.square() + spectrum.imag.square()
    # The root of a square has no gradient at 0, which silence would meet.
    return (power + 1e-16).sqrt().reshape(len(x), -1) / window.sum()
