"""Our transforms against torch, scipy and librosa."""

import librosa
import numpy as np
import pytest
import scipy.fft
import torch
from scipy.signal.windows import kaiser_bessel_derived

from sfumato.signal.mdct import mdct, mdct_window
from sfumato.signal.mel import hz_to_mel, mel_filters, mel_spectrogram, mel_to_hz
from sfumato.signal.stft import stft


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize(("n_fft", "hop_length", "n_samples"), [(512, 128, 4096), (1024, 512, 5120)])
def test_stft_equals_librosa(n_fft, hop_length, n_samples):
    x = noise(n_samples)
    expected = librosa.stft(x.numpy(), n_fft=n_fft, hop_length=hop_length, pad_mode="constant", dtype=np.complex128)
    np.testing.assert_allclose(stft(x, n_fft, hop_length).numpy(), expected, atol=1e-10)


def test_stft_of_a_length_off_the_grid_equals_that_of_the_zero_padded_signal():
    x = noise(2, 1000)
    padded = torch.nn.functional.pad(x, (0, 24))
    torch.testing.assert_close(stft(x, 256, 128), stft(padded, 256, 128))
    assert stft(x, 256, 128).shape == (2, 129, 9)


@pytest.mark.parametrize("window", ["sine", "kbd"])
def test_mdct_equals_its_defining_sum(window):
    n_bins, x = 16, noise(100)
    padded = torch.nn.functional.pad(x, (16, 28)).numpy()
    n, k = np.arange(32)[:, None], np.arange(16)
    basis = np.sqrt(2 / 16) * np.cos(np.pi / 16 * (n + 0.5 + 8) * (k + 0.5))
    w = mdct_window(n_bins, window).numpy()
    expected = np.stack([(w * padded[i * 16 : i * 16 + 32]) @ basis for i in range(8)], axis=1)
    np.testing.assert_allclose(mdct(x, n_bins, window).numpy(), expected, atol=1e-12)


def test_mdct_of_the_first_frame_is_scipys_dct4_of_the_folded_block():
    n_bins, x = 8, noise(8, seed=3)
    # The first frame holds silence, then the signal under the window's falling half.
    c, d = np.split((mdct_window(n_bins)[n_bins:] * x).numpy(), 2)
    expected = scipy.fft.dct(np.concatenate((-c[::-1] - d, np.zeros(4))), type=4, norm="ortho")
    np.testing.assert_allclose(mdct(x, n_bins)[:, 0].numpy(), expected, atol=1e-12)


def test_kbd_window_equals_scipys():
    expected = kaiser_bessel_derived(256, np.pi * 4)
    np.testing.assert_allclose(mdct_window(128, "kbd").numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("htk", [False, True])
@pytest.mark.parametrize(
    ("sample_rate", "n_fft", "n_mels", "f_min", "f_max"),
    [(22050, 1024, 80, 0.0, None), (16000, 512, 64, 125.0, 7500.0), (44100, 2048, 128, 20.0, 20000.0)],
)
def test_mel_filters_equal_librosas(sample_rate, n_fft, n_mels, f_min, f_max, htk):
    expected = librosa.filters.mel(
        sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=f_min, fmax=f_max, htk=htk, dtype=np.float64
    )
    ours = mel_filters(sample_rate, n_fft, n_mels, f_min, f_max, "htk" if htk else "slaney")
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-14)


@pytest.mark.parametrize("scale", ["slaney", "htk"])
def test_mel_scale_equals_librosas_and_its_inverse_inverts(scale):
    frequencies = np.array([0.0, 60.0, 999.0, 1000.0, 1001.0, 12345.0])
    mels = hz_to_mel(frequencies, scale)
    np.testing.assert_allclose(mels, librosa.hz_to_mel(frequencies, htk=scale == "htk"), atol=1e-12)
    np.testing.assert_allclose(mel_to_hz(mels, scale), frequencies, atol=1e-9)


def test_mel_spectrogram_equals_librosas():
    x = noise(8192, seed=1)
    expected = librosa.feature.melspectrogram(
        y=x.numpy(), sr=16000, n_fft=512, hop_length=256, n_mels=96, pad_mode="constant"
    )
    np.testing.assert_allclose(mel_spectrogram(x, 16000, 512, 256, 96).numpy(), expected, rtol=1e-6)
