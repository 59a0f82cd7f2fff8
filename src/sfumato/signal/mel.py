"""Mel filters and mel spectrograms."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.signal.stft import stft

Scale = Literal["slaney", "htk"]
Array = NDArray[np.float64]

_KNEE_HZ = 1000.0
_KNEE_MEL = 15.0
_LOG_STEP = np.log(6.4) / 27.0


def hz_to_mel(frequency: Array, scale: Scale = "slaney") -> Array:
    """Return frequencies, Hz, on the mel scale.

    Parameters
    ----------
    frequency : ndarray
        Hz, ≥ 0.
    scale : {"slaney", "htk"}
        Slaney: linear below 1 kHz (200/3 Hz per mel), logarithmic above (27 mel per factor 6.4).
        HTK: 2595 · log10(1 + f / 700).

    References
    ----------
    Slaney, "Auditory toolbox", Interval Research TR 1998-010. Young et al., "The HTK book", sec. 5.4.
    """
    if scale == "htk":
        return 2595.0 * np.log10(1.0 + np.asarray(frequency) / 700.0)
    linear = np.asarray(frequency) * _KNEE_MEL / _KNEE_HZ
    return np.where(
        linear < _KNEE_MEL, linear, _KNEE_MEL + np.log(np.maximum(frequency, _KNEE_HZ) / _KNEE_HZ) / _LOG_STEP
    )


def mel_to_hz(mel: Array, scale: Scale = "slaney") -> Array:
    """Return mel values as frequencies, Hz: the inverse of `hz_to_mel`."""
    if scale == "htk":
        return 700.0 * (10.0 ** (np.asarray(mel) / 2595.0) - 1.0)
    linear = np.asarray(mel) * _KNEE_HZ / _KNEE_MEL
    above = _KNEE_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _KNEE_MEL) - _KNEE_MEL))
    return np.where(np.asarray(mel) < _KNEE_MEL, linear, above)


def mel_filters(
    sample_rate: float,
    n_fft: int,
    n_mels: int,
    f_min: float = 0.0,
    f_max: float | None = None,
    scale: Scale = "slaney",
    unit_area: bool = True,
) -> Tensor:
    """Return triangular filters, shape (n_mels, n_fft // 2 + 1), float64.

    Parameters
    ----------
    sample_rate : float
        Hz.
    n_fft : int
        DFT length of the spectra that the filters weigh, samples.
    n_mels : int
        Number of filters; their corners are equally spaced on the mel scale.
    f_min, f_max : float
        Lowest and highest corner, Hz; f_max None means half the sample rate.
    scale : {"slaney", "htk"}
        See `hz_to_mel`.
    unit_area : bool
        Whether each filter has an area of 1, rather than a peak of 1.
    """
    top = sample_rate / 2 if f_max is None else f_max
    lowest, highest = hz_to_mel(np.array([f_min, top]), scale)
    corners = mel_to_hz(np.linspace(lowest, highest, n_mels + 2), scale)[:, None]
    frequencies = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    rise = (frequencies - corners[:-2]) / (corners[1:-1] - corners[:-2])
    fall = (corners[2:] - frequencies) / (corners[2:] - corners[1:-1])
    area = (corners[2:] - corners[:-2]) / 2
    return torch.from_numpy(np.maximum(0.0, np.minimum(rise, fall)) / (area if unit_area else 1.0))


def mel_spectrogram(
    x: Tensor,
    sample_rate: float,
    n_fft: int,
    hop_length: int,
    n_mels: int,
    f_min: float = 0.0,
    f_max: float | None = None,
    scale: Scale = "slaney",
) -> Tensor:
    """Return the mel power spectrogram, shape (..., n_mels, frames), of real signals.

    Parameters
    ----------
    x : Tensor, shape (..., samples)
        Framed as by `sfumato.signal.stft.stft`.
    sample_rate, n_fft, hop_length, n_mels, f_min, f_max, scale
        See `mel_filters` and `stft`.
    """
    power = stft(x, n_fft, hop_length).abs() ** 2
    filters = mel_filters(sample_rate, n_fft, n_mels, f_min, f_max, scale)
    return torch.matmul(filters.to(power), power)
