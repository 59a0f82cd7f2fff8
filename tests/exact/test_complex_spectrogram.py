"""Complex spectrograms: exact ways back, tones that stand still, one convention for crops, sounds and loops."""

import math

import numpy as np
import pytest
import torch

from sfumato.signal import complex_spectrogram
from sfumato.signal.complex_spectrogram import (
    bins,
    circular_bins,
    circular_sound,
    frequencies,
    picture,
    sound,
    unpicture,
)

RATE, HALF = 44100, 64


def white(n, items=2):
    return torch.from_numpy(np.random.default_rng(3).standard_normal((items, n)))


@pytest.mark.parametrize("n", [1, 63, 64, 1000, 1024])
def test_the_sound_of_a_sound_s_bins_is_the_sound(n):
    audio = white(n)
    assert bins(audio, HALF).shape == (2, HALF, math.ceil(n / HALF) + 1)
    torch.testing.assert_close(sound(bins(audio, HALF), n), audio, rtol=0, atol=1e-12)


def test_bins_are_those_of_a_plain_sum_at_odd_half_frequencies():
    audio, k, m = white(HALF * 6, 1), 11, 3
    at = np.arange(2 * HALF)
    frame = audio[0, (m - 1) * HALF : (m + 1) * HALF].numpy()
    window = np.sin(np.pi * (at + 0.5) / (2 * HALF)) / np.sqrt(HALF)
    plain = np.sum(frame * window * np.exp(-2j * np.pi * (k + 0.5) * at / (2 * HALF)))
    # Phases from a common start: the frame's own start lies m * HALF samples later.
    turned = plain * np.exp(-2j * np.pi * (k + 0.5) * m * HALF / (2 * HALF))
    assert complex(bins(audio, HALF)[0, k, m]) == pytest.approx(complex(turned), abs=1e-12)


def test_white_noise_has_bins_of_its_own_variance():
    assert float(bins(white(200_000), HALF).abs().square()[..., 1:-1].mean()) == pytest.approx(1.0, rel=0.01)


def test_a_tone_turns_by_its_distance_from_the_bin_s_centre():
    offset = 0.2
    tone = torch.sin(2 * math.pi * (20.5 + offset) / (2 * HALF) * torch.arange(4000, dtype=torch.float64))[None]
    inner = bins(tone, HALF)[0, 20, 5:15]
    turned = torch.angle(inner[1:] / inner[:-1])
    torch.testing.assert_close(turned, torch.full_like(turned, offset * math.pi), atol=0.02, rtol=0)


def test_a_stretch_has_the_frames_that_the_whole_has_there_up_to_a_common_turn():
    audio = white(HALF * 20)
    stretch = bins(audio[:, HALF * 4 : HALF * 12], HALF, ends=False)
    there = bins(audio, HALF)[..., 5:12]
    assert stretch.shape == there.shape
    turn = complex_spectrogram._turned(torch.ones(1, 8, 2 * HALF, dtype=torch.complex128))[..., 5:6]
    first = complex_spectrogram._turned(torch.ones(1, 1, 2 * HALF, dtype=torch.complex128))
    torch.testing.assert_close(stretch.abs(), there.abs())
    torch.testing.assert_close(stretch * turn / first, there)


def test_a_loop_comes_back_and_turning_it_turns_its_frames():
    loop = white(HALF * 8)
    torch.testing.assert_close(circular_sound(circular_bins(loop, HALF)), loop, rtol=0, atol=1e-12)
    turned = circular_bins(loop.roll(4 * HALF, dims=1), HALF)  # phases repeat every four frames
    torch.testing.assert_close(turned, circular_bins(loop, HALF).roll(4, dims=2))


def test_frames_inside_a_loop_are_those_of_the_sound():
    loop = white(HALF * 8)
    torch.testing.assert_close(circular_bins(loop, HALF)[..., 1:7], bins(loop, HALF)[..., 1:7])


def test_pictures_come_back_and_are_of_the_size_that_is_promised():
    found = bins(white(5000), HALF)
    torch.testing.assert_close(unpicture(picture(found, RATE), RATE), found, rtol=1e-9, atol=1e-9)
    one = torch.full((1, HALF, 1), 8.0, dtype=torch.complex128)
    size = 0.52 / (1 + frequencies(HALF, RATE) / 4000) ** 0.75
    torch.testing.assert_close(picture(one, RATE)[0, 0, :, 0], (2.0 / size).double())


def test_silence_stays_silence():
    silence = torch.zeros(1, 500, dtype=torch.float64)
    shown = picture(bins(silence, HALF), RATE)
    assert not shown.any()
    assert not sound(unpicture(shown, RATE), 500).any()
