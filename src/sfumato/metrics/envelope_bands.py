"""An embedding of one-shots that needs no network: band levels in stretches that grow with time after the onset."""

import itertools

import numpy as np
import torch
from numpy.typing import NDArray

from sfumato.signal.mel import mel_spectrogram

Array = NDArray[np.float64]

BANDS, N_FFT, HOP = 20, 1024, 256
EDGES_S = (0.0, 0.02, 0.08, 0.25, 0.75)
FLOOR_DB = -70.0


def envelope_bands(audio: NDArray[np.floating], sample_rate: float) -> Array:
    """Return the levels of 20 mel bands in four stretches, shape (80,), in units of 10 dB.

    Parameters
    ----------
    audio : ndarray, shape (samples,)
        One sound, from its onset on. Its loudness as a whole doesn't matter.
    sample_rate : float
        Hz.

    Notes
    -----
    Levels are relative to the loudest band of any frame and at least -70 dB; what lies beyond the end of the sound is
    at that floor. The stretches end 20, 80, 250 and 750 ms after the beginning.
    """
    sound = np.asarray(audio, dtype=np.float64)
    wanted = int(EDGES_S[-1] * sample_rate) + N_FFT
    padded = torch.from_numpy(np.pad(sound[:wanted], (0, max(0, wanted - len(sound)))))
    power = mel_spectrogram(padded, sample_rate, n_fft=N_FFT, hop_length=HOP, n_mels=BANDS).numpy()
    level = 10 * np.log10(np.maximum(power, 1e-20))
    level = np.maximum(level - level.max(), FLOOR_DB)
    edges = [round(edge * sample_rate / HOP) for edge in EDGES_S]
    stretches = [level[:, a : max(b, a + 1)].mean(axis=1) for a, b in itertools.pairwise(edges)]
    return np.concatenate(stretches) / 10.0
