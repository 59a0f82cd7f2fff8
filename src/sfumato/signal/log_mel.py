"""Log-mel pictures of sounds: what is drawn where phases are left to a vocoder.

The published layout [1]_: 80 bands, windows of 1024 samples every 256, meant for 16 kHz. Levels are held above a floor
and brought to about unit variance, so that a picture is what a network may be given and may draw.

References
----------
.. [1] R. Huang et al., "Make-An-Audio", ICML 2023, arXiv 2301.12661, section 4.1.
.. [2] D. Griffin, J. Lim, "Signal estimation from modified short-time Fourier transform", IEEE TASSP 32(2), 1984.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sfumato.signal.complex_spectrogram import frequencies
from sfumato.signal.mel import hz_to_mel, mel_spectrogram, mel_to_hz
from sfumato.signal.ring import around
from sfumato.signal.stft import istft, stft

if TYPE_CHECKING:
    from jaxtyping import Float

N_FFT, HOP, N_MELS = 1024, 256, 80
"""Samples of a window and from frame to frame; bands."""
FLOOR_DB = -70.0
"""Lower levels count as silence. Music at the RMS that networks are trained at, 0.1, is below it in 3 % of places."""
CENTRE_DB, SCALE_DB = -29.0, 20.0
"""Mean and standard deviation of such music's levels: what becomes 0, and the difference that becomes 1."""
MOST_UP_DB, MOST_DOWN_DB = 12.0, 30.0
"""How far a band is turned up or down at a time, by `levelled`: what isn't there can't be made by turning it up."""
SILENCE = (FLOOR_DB - CENTRE_DB) / SCALE_DB
"""What silence becomes."""


def log_mel(audio: Float[Tensor, "b n"], sample_rate: float) -> Float[Tensor, "b 80 frames"]:
    """Levels of mel bands, of about unit variance; frame i is centred on sample 256 i, silence around the sound.

    There are ``ceil(n / 256) + 1`` frames.
    """
    with torch.autocast(audio.device.type, enabled=False):
        power = mel_spectrogram(audio, sample_rate, N_FFT, HOP, N_MELS)
    level_db = 10 * power.clamp(min=10 ** (FLOOR_DB / 10)).log10()
    return (level_db - CENTRE_DB) / SCALE_DB


def centres(sample_rate: float) -> Float[Tensor, " 80"]:
    """Centre of each band, Hz."""
    lowest, highest = hz_to_mel(np.array([0.0, sample_rate / 2]))
    return torch.from_numpy(mel_to_hz(np.linspace(lowest, highest, N_MELS + 2)[1:-1]))


def levelled(
    audio: Float[Tensor, "b n"], mel: Float[Tensor, "b 80 frames"], sample_rate: float, times: int = 4
) -> Float[Tensor, "b n"]:
    """Sounds brought nearer to the levels of pictures: `times` over, each band is turned up or down where it is off.

    As Griffin and Lim's iterations [2]_ it goes to a spectrogram that has the levels and back to the sound whose
    spectrogram is nearest; but only a band's level is set, and what lies within the band, and all phases, stay what
    they are: so it is for sounds that are nearly right. Picture and sound begin together; where the picture ends, the
    sound does.
    """
    frequencies = torch.fft.rfftfreq(N_FFT, 1 / sample_rate).to(audio)
    centre = centres(sample_rate).to(audio)
    above = torch.searchsorted(centre, frequencies).clamp(1, N_MELS - 1)
    share = ((frequencies - centre[above - 1]) / (centre[above] - centre[above - 1])).clamp(0, 1)[:, None]
    for _ in range(times):
        made = log_mel(audio, sample_rate)
        t = min(made.shape[2], mel.shape[2])
        gain_db = (SCALE_DB * (mel[..., :t] - made[..., :t])).clamp(-MOST_DOWN_DB, MOST_UP_DB)
        over = gain_db[:, above - 1] * (1 - share) + gain_db[:, above] * share
        spectrum = stft(audio, N_FFT, HOP)[..., :t] * 10 ** (over / 20)
        audio = istft(spectrum, N_FFT, HOP, audio.shape[1])
    return audio


def levelled_loop(
    audio: Float[Tensor, "b n"], mel: Float[Tensor, "b 80 frames"], sample_rate: float, times: int = 4
) -> Float[Tensor, "b n"]:
    """As `levelled`, for loops of ``frames * 256`` samples and their pictures, whose end goes on at their start."""
    edge = times * N_FFT // HOP  # that far a sound's ends reach into it
    long = levelled(around(audio, edge * HOP), around(mel, edge), sample_rate, times)
    return long[:, edge * HOP : edge * HOP + audio.shape[1]]


def over_bins(mel: Float[Tensor, "b 80 frames"], half: int, sample_rate: float) -> Float[Tensor, "b k half t"]:
    """Levels of mel bands at the bins and frames of `complex_spectrogram`: between bands on a straight line.

    A frame of the spectrogram, `half` samples after the last one, takes k = half / 256 frames of the picture: the one
    that has its centre, and those between it and the next one. The picture's frames are a multiple of k.
    """
    b, _, t = mel.shape
    lowest, highest = hz_to_mel(np.array([0.0, sample_rate / 2]))
    step = (highest - lowest) / (N_MELS + 1)
    at = torch.from_numpy((hz_to_mel(frequencies(half, sample_rate).double().numpy()) - lowest) / step - 1)
    at = at.clamp(0, N_MELS - 1)
    below = at.floor().long().clamp(max=N_MELS - 2)
    share = (at - below).to(mel)[:, None]
    bins = mel[:, below] * (1 - share) + mel[:, below + 1] * share
    k = half // HOP
    return bins.reshape(b, half, t // k, k).permute(0, 3, 1, 2)
