"""Transforms invert exactly, keep energy and work at any length."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.signal.mdct import imdct, mdct, mdct_window, n_frames
from sfumato.signal.stft import istft, stft


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


lengths = st.integers(1, 3000)


@settings(max_examples=40)
@given(n_samples=lengths, half=st.sampled_from([8, 64, 250]), steps=st.sampled_from([1, 2, 4]))
def test_stft_round_trip(n_samples, half, steps):
    x = noise(2, 1, n_samples)
    n_fft, hop_length = 2 * half, half // steps
    spectrum = stft(x, n_fft, hop_length)
    assert spectrum.shape == (2, 1, half + 1, -(-n_samples // hop_length) + 1)
    torch.testing.assert_close(istft(spectrum, n_fft, hop_length, n_samples), x, atol=1e-12, rtol=0)


@settings(max_examples=40)
@given(n_samples=lengths, n_bins=st.sampled_from([2, 6, 64, 256]), window=st.sampled_from(["sine", "kbd"]))
def test_mdct_round_trip_and_energy(n_samples, n_bins, window):
    x = noise(2, 1, n_samples)
    coefficients = mdct(x, n_bins, window)
    assert coefficients.shape == (2, 1, n_bins, n_frames(n_samples, n_bins))
    torch.testing.assert_close(imdct(coefficients, n_samples, window), x, atol=1e-12, rtol=0)
    torch.testing.assert_close((coefficients**2).sum(), (x**2).sum())


@pytest.mark.parametrize("window", ["sine", "kbd"])
def test_imdct_is_the_adjoint_of_mdct(window):
    # <mdct(x), c> = <x, imdct(c)> for any c: together with energy it makes the rows orthonormal.
    x, c = noise(96), noise(16, 7, seed=1)
    left = (mdct(x, 16, window) * c).sum()
    right = (x * imdct(c, 96, window)).sum()
    torch.testing.assert_close(left, right)


@pytest.mark.parametrize("window", ["sine", "kbd"])
def test_mdct_window_meets_princen_bradley(window):
    w = mdct_window(96, window)
    torch.testing.assert_close(w[:96] ** 2 + w[96:] ** 2, torch.ones(96, dtype=torch.float64))
    torch.testing.assert_close(w, w.flip(0))


@pytest.mark.parametrize("n_bins", [64, 512])
def test_a_tone_on_a_bins_centre_stays_in_its_neighbourhood(n_bins):
    n = torch.arange(20 * n_bins, dtype=torch.float64)
    tone = torch.cos(torch.pi / n_bins * (n_bins // 4 + 0.5) * n + 0.3)
    energy = mdct(tone, n_bins)[:, 2:-2].square().sum(dim=1)
    assert energy.argmax() in (n_bins // 4 - 1, n_bins // 4, n_bins // 4 + 1)
    near = energy[n_bins // 4 - 2 : n_bins // 4 + 3].sum()
    assert near / energy.sum() > 0.99


def test_transforms_keep_float32_and_pass_gradients():
    x = noise(500).float().requires_grad_()
    loss = imdct(mdct(x, 64), 500).square().sum() + istft(stft(x, 128, 32), 128, 32, 500).square().sum()
    assert loss.dtype == torch.float32
    loss.backward()
    torch.testing.assert_close(x.grad, 4 * x.detach(), atol=1e-4, rtol=1e-4)
