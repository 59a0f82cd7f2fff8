"""Distances of coded sounds against closed forms and another implementation."""

import librosa
import numpy as np
import pytest
import torch

from sfumato.metrics.mel_distance import RESOLUTIONS, mel_distance
from sfumato.metrics.si_sdr import si_sdr_db


def noise(seed, n=22050):
    return np.random.default_rng(seed).standard_normal(n)


def test_si_sdr_of_noise_at_a_known_level():
    x, y = noise(0), noise(1)
    y -= (x @ y) / (x @ x) * x  # nothing in common
    y *= np.sqrt((x @ x) / (y @ y))
    for scale in (1.0, -3.0):
        assert si_sdr_db(x, scale * (x + 0.1 * y)) == pytest.approx(20.0)
    assert np.isnan(si_sdr_db(0 * x, x))
    assert si_sdr_db(x, 0 * x) == -np.inf
    assert si_sdr_db(x, -2 * x) == np.inf


def test_mel_distance_of_a_change_of_level():
    x = torch.from_numpy(noise(0))
    assert mel_distance(x, x, 22050) == 0
    # Some of the narrowest filters hold no bin; the others all see the factor.
    tenth = mel_distance(x, 0.1 * x, 22050)
    assert 0.8 * len(RESOLUTIONS) < tenth <= len(RESOLUTIONS)


def test_mel_distance_is_that_of_librosas_spectrograms():
    x, y = noise(0), 0.3 * noise(1)
    wanted = 0.0
    for n_fft, n_mels in RESOLUTIONS[3:6]:
        pair = [
            librosa.feature.melspectrogram(
                y=np.pad(z, (0, -len(z) % (n_fft // 4))), sr=22050, n_fft=n_fft, hop_length=n_fft // 4, n_mels=n_mels,
                power=1.0, center=True, pad_mode="constant",
            )
            for z in (x, y)
        ]
        wanted += np.abs(np.diff(np.log10(np.maximum(pair, 1e-5)), axis=0)).mean()
    total = mel_distance(torch.from_numpy(x), torch.from_numpy(y), 22050)
    rest = 0.0
    from sfumato.metrics import mel_distance as module

    kept = module.RESOLUTIONS
    try:
        module.RESOLUTIONS = kept[:3] + kept[6:]
        rest = mel_distance(torch.from_numpy(x), torch.from_numpy(y), 22050)
    finally:
        module.RESOLUTIONS = kept
    assert total - rest == pytest.approx(wanted, rel=1e-4)
