"""The constant-Q transform against what it must be: sinusoids and clicks in closed form, inversion, gradients."""

import math

import numpy as np
import pytest
import torch

from sfumato.errors import InputError
from sfumato.signal.cqt import ConstantQ

SHAPES = [(3, 8, 22050, 2048), (4, 12, 44100, 10000), (7, 64, 22050, 184184), (8, 64, 44100, 184184)]


def centre_bins(transform):
    return np.round(np.array(transform.centres_hz) * transform.n_samples / transform.sample_rate).astype(int)


def inner_signal(transform, dtype=torch.float64):
    """Noise between the lowest and the highest band's centre, where neither of the two bands left out reaches."""
    generator = torch.Generator().manual_seed(3)
    spectrum = torch.zeros(transform.n_samples // 2 + 1, dtype=torch.complex128)
    low, *_, high = centre_bins(transform)
    spectrum[low + 1 : high] = torch.randn(high - low - 1, dtype=torch.complex128, generator=generator)
    return torch.fft.irfft(spectrum, n=transform.n_samples).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_inversion_is_perfect_between_the_outer_bands(shape):
    transform = ConstantQ(*shape)
    x = inner_signal(transform, torch.float32)
    error = transform.inverse(transform(x)) - x
    assert 20 * math.log10(x.norm() / error.norm()) > 125  # dB, in float32


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_covered_is_what_comes_back(shape):
    """But for a few bins at the borders of the two bands left out; see `ConstantQ.covered`."""
    transform = ConstantQ(*shape)
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(transform.n_samples, generator=generator)
    back, covered = (torch.fft.rfft(y) for y in (transform.inverse(transform(x)), transform.covered(x)))
    differ = (back - covered).abs() > 0.02 * torch.fft.rfft(x).abs()
    assert 0 < int(differ.sum()) <= 32
    low, *_, high = centre_bins(transform)
    assert not differ[low + 2 : high].any()
    assert transform.covered(torch.ones(transform.n_samples)).abs().max() < 1e-5


def test_octaves_have_half_the_frames_of_the_one_above():
    assert ConstantQ(*SHAPES[2]).n_frames == [32, 64, 128, 256, 512, 1024, 2048]


def test_centres_are_evenly_spaced_in_log_frequency():
    transform = ConstantQ(*SHAPES[2])
    centres = np.array(transform.centres_hz)
    wanted = np.geomspace(22050 / 2**8, 22050 / 2, 7 * 64)
    assert np.allclose(centres[:-1], wanted[:-1], atol=22050 / 184184)
    assert wanted[-2] < centres[-1] < wanted[-1]


@pytest.mark.parametrize("hz", [200.0, 440.0, 1000.0, 2500.0, 6000.0])
def test_a_sine_is_in_the_bands_beside_it_alone(hz):
    transform = ConstantQ(6, 12, 16000, 16000)
    x = torch.sin(2 * math.pi * hz * torch.arange(16000, dtype=torch.float64) / 16000)
    energy = torch.cat([octave.abs().square().mean(dim=-1) for octave in transform.double()(x)])
    nearest = int(np.argmin(np.abs(np.log(np.array(transform.centres_hz) / hz))))
    assert abs(int(energy.argmax()) - nearest) <= 1
    far = (torch.arange(len(energy)) - nearest).abs() > 2
    assert energy[far].sum() < 1e-20 * energy.sum()


def test_a_sine_turns_in_its_band_by_its_distance_from_the_centre():
    """Closed form: |X[k]| times the window, and a phase that advances by 2 pi (k - centre) / frames a frame."""
    transform = ConstantQ(3, 8, 22050, 2048).double()
    beta_top = 0.5  # the window's peak
    for band in (3, 10, 20):
        k = int(centre_bins(transform)[band])
        for shift in (0, 2):
            x = torch.cos(2 * math.pi * (k + shift) * torch.arange(2048, dtype=torch.float64) / 2048)
            octave, row = divmod(band, 8)
            c = transform(x)[octave][row]
            turned = (c[1:] / c[:-1]).angle()
            assert torch.allclose(turned, torch.full_like(turned, 2 * math.pi * shift / len(c)), atol=1e-6)
            if shift == 0:
                assert float(c.abs().mean()) == pytest.approx(1024 * beta_top / len(c), rel=5e-3)


@pytest.mark.parametrize("place", [300, 1024, 1900])
def test_a_click_is_at_its_time_in_every_octave(place):
    transform = ConstantQ(3, 8, 22050, 2048)
    x = torch.zeros(2048)
    x[place] = 1.0
    for octave in transform(x):
        frames = octave.shape[-1]
        loudest = int(octave.abs().square().sum(dim=0).argmax())
        assert abs(loudest - place * frames / 2048) <= 1


def test_gradients_are_those_of_finite_differences():
    transform = ConstantQ(2, 4, 8000, 128).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 128, dtype=torch.float64, generator=generator, requires_grad=True)

    def bent(x):
        return transform.inverse([octave * octave.abs() for octave in transform(x)])

    assert torch.autograd.gradcheck(bent, (x,), fast_mode=True)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="for 2048 samples"):
        ConstantQ(3, 8, 22050, 2048)(torch.zeros(2047))
    with pytest.raises(InputError, match="reaches beyond the spectrum"):
        ConstantQ(12, 64, 22050, 2048)
    with pytest.raises(InputError, match="at least"):
        ConstantQ(0, 8, 22050, 2048)
