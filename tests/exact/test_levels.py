"""Band levels against an independent transform, and shaping against the levels it was asked for."""

import librosa
import numpy as np
import pytest

from sfumato.signal.levels import FLOOR_DB, N_BANDS, N_BINS, Grid, band_edges, shape


def test_bands_partition_the_bins() -> None:
    edges = band_edges()
    assert len(edges) == N_BANDS + 1
    assert edges[0] == 0 and edges[-1] == N_BINS
    assert (np.diff(edges) >= 1).all()


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000, 96000])
def test_transform_inverts(rate: int) -> None:
    x = np.random.default_rng(0).standard_normal(rate)
    grid = Grid(len(x), rate)
    np.testing.assert_allclose(grid.inverse(grid.transform(x))[: -grid.hop_length], x[: -grid.hop_length], atol=1e-6)


def test_transform_is_librosas() -> None:
    x = np.random.default_rng(1).standard_normal(20000)
    grid = Grid(len(x), 44100)
    ours = grid.transform(x)
    theirs = librosa.stft(x, n_fft=2048, hop_length=512, window="hann", center=True, pad_mode="constant")
    np.testing.assert_allclose(ours, theirs[:, : ours.shape[1]], atol=1e-4)


def test_level_of_a_tone_and_of_silence() -> None:
    grid = Grid(44100, 44100)
    bin_hz = 44100 / 2048
    tone = np.sin(2 * np.pi * 8 * bin_hz * np.arange(44100) / 44100)  # band 7 holds bin 8 alone
    band = int(np.searchsorted(band_edges(), 8, side="right")) - 1
    assert grid.levels(tone)[band, 40] == pytest.approx(0.0, abs=0.1)
    assert (grid.levels(np.zeros(44100)) == FLOOR_DB).all()


@pytest.mark.parametrize("rate", [44100, 48000])
def test_levels_do_not_depend_on_the_sample_rate(rate: int) -> None:
    t = np.arange(2 * rate) / rate
    x = sum(np.sin(2 * np.pi * f * t) for f in (150.0, 1000.0, 5000.0))
    reference = np.arange(2 * 44100) / 44100
    y = sum(np.sin(2 * np.pi * f * reference) for f in (150.0, 1000.0, 5000.0))
    a, b = Grid(len(x), rate).levels(x)[:, 20:100], Grid(len(y), 44100).levels(y)[:, 20:100]
    loud = b > -40
    np.testing.assert_allclose(a[loud], b[loud], atol=0.5)


def test_touched_frames_are_those_whose_window_meets_the_gap() -> None:
    grid = Grid(20480, 44100)
    known = np.ones(20480, dtype=bool)
    known[10000:10001] = False
    touched = np.flatnonzero(grid.touched(known))
    expected = [i for i in range(grid.n_frames) if i * 512 - 1024 <= 10000 < i * 512 + 1024]
    assert touched.tolist() == expected


def test_shaping_meets_the_levels_and_keeps_the_rest() -> None:
    random = np.random.default_rng(2)
    rate, n = 44100, 44100
    x = random.standard_normal(n)
    known = np.ones(n, dtype=bool)
    known[15000:28000] = False
    grid = Grid(n, rate)
    tilt = np.linspace(6.0, -12.0, N_BANDS)[:, None]
    wanted = grid.levels(x).mean(axis=1, keepdims=True) + tilt + np.zeros((1, grid.n_frames))
    mean = np.where(known, x, 0.0)
    innovation = np.where(known, 0.0, random.standard_normal(n))
    shaped = shape(mean, innovation, known, wanted, grid, rounds=6)
    np.testing.assert_array_equal(shaped[known], x[known])
    inner = slice(33, 52)  # frames wholly inside the gap
    wide = np.diff(band_edges()) >= 4
    errors = (grid.levels(shaped) - wanted)[wide, inner]
    assert np.sqrt(np.mean(errors**2)) < 1.5
    before = (grid.levels(mean + innovation) - wanted)[wide, inner]
    assert np.sqrt(np.mean(before**2)) > 5.0


def test_mirrored_innovations_shape_to_mirrored_fills() -> None:
    random = np.random.default_rng(3)
    n = 20000
    known = np.ones(n, dtype=bool)
    known[8000:12000] = False
    mean = random.standard_normal(n)
    innovation = np.where(known, 0.0, random.standard_normal(n))
    grid = Grid(n, 44100)
    wanted = grid.levels(mean) + 3.0
    up, down = (shape(mean, sign * innovation, known, wanted, grid) for sign in (1.0, -1.0))
    np.testing.assert_allclose(up + down, 2 * mean, atol=1e-9)
