"""Traces of fills: each tells what it is named for, and nothing of loudness."""

import numpy as np
import pytest
from scipy.signal import lfilter

from sfumato.signal import traces as t

N_FINE, N_COARSE = len(t.FINE_HZ) - 1, len(t.COARSE_HZ) - 1
LEVEL = slice(0, N_FINE)
FLATNESS, ADVANCE, TOGETHER, BALANCE = (slice(N_FINE + i * N_COARSE, N_FINE + (i + 1) * N_COARSE) for i in range(4))
INNOVATION = slice(N_FINE + 4 * N_COARSE, t.N_TRACES - 1)


def noise(seconds: float, channels: int = 2, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return lfilter([0.02], [1.0, -0.9], random.standard_normal((channels, round(seconds * t.RATE))))


def frames(start_s: float, stop_s: float) -> slice:
    return slice(round(start_s * t.RATE / t.HOP), round(stop_s * t.RATE / t.HOP))


@pytest.mark.parametrize("n", [3 * t.RATE, 3 * t.RATE + 1, 3 * t.RATE + t.HOP - 1, 1050 * t.HOP])
def test_there_is_a_frame_for_every_hop(n):
    found = t.traces(noise(13)[:, :n])
    assert found.shape == (t.N_TRACES, n // t.HOP + 1) and found.dtype == np.float32
    assert np.abs(found).max() <= t.LARGEST


def test_loudness_is_no_trace():
    x = noise(4)
    loud = t.traces(x)
    np.testing.assert_allclose(loud, t.traces(0.25 * x), atol=0.05)
    assert np.abs(np.median(loud, axis=1)).max() < 0.5


def test_one_channel_has_nothing_to_be_together_with():
    found = t.traces(noise(3, channels=1))
    assert not found[TOGETHER].any() and not found[BALANCE].any() and found[LEVEL].any()


def test_two_channels_that_part_are_seen_and_so_is_one_that_moves():
    x = noise(6, channels=1)
    shared = np.concatenate([x, x]) + 0.05 * noise(6, seed=1)
    parted, moved = shared.copy(), shared.copy()
    at = slice(3 * t.RATE, round(3.3 * t.RATE))
    parted[1, at] = noise(6, seed=2)[0, at]
    moved[1, at] *= 0.5
    inside = frames(3.05, 3.25)
    assert t.traces(parted)[TOGETHER, inside].mean() > 3.0 > abs(t.traces(shared)[TOGETHER, inside].mean())
    assert t.traces(moved)[BALANCE, inside].mean() > 3.0


def test_sound_that_can_be_foreseen_has_no_innovation():
    time = np.arange(6 * t.RATE) / t.RATE
    tone = np.sin(2 * np.pi * 440 * time)
    x = (tone + noise(6, channels=1)[0])[None]
    at = slice(3 * t.RATE, round(3.3 * t.RATE))
    x[0, at] = tone[at]
    found = t.traces(x)
    inside, outside = frames(3.05, 3.25), frames(1.0, 2.8)
    own = int(np.searchsorted(t.INNOVATION_HZ, 440.0)) - 1  # the tone's own band: foreseen, it is not in the way
    for part in (found[INNOVATION], found[INNOVATION][own : own + 1]):
        assert part[:, inside].mean() < -4.0 < part[:, outside].mean()
    band = int(np.searchsorted(t.COARSE_HZ, 440.0)) - 1
    assert found[FLATNESS, inside][band].mean() < -2.0 < found[FLATNESS, outside][band].mean()


def test_a_tone_that_turns_on_as_it_did_is_foreseen():
    time = np.arange(6 * t.RATE) / t.RATE
    x = np.sin(2 * np.pi * 1000 * time)[None] + noise(6, channels=1) * 0.01
    x[:, 3 * t.RATE : 3 * t.RATE + t.RATE // 10] *= -1.0
    band = int(np.searchsorted(t.COARSE_HZ, 1000.0)) - 1
    advance = t.traces(x)[ADVANCE][band]
    assert advance[frames(2.98, 3.02)].max() == t.LARGEST and abs(advance[frames(2.0, 2.9)].mean()) < 1.0


def test_every_rate_and_number_of_channels_is_brought_to_one():
    x = noise(1, channels=3)
    assert t.at_rate(x, t.RATE).shape == (1, t.RATE)
    time = np.arange(48000) / 48000
    tone = t.at_rate(np.sin(2 * np.pi * 440 * time)[None], 48000)
    expected = np.sin(2 * np.pi * 440 * np.arange(t.RATE) / t.RATE)
    np.testing.assert_allclose(tone[0, 2000:-2000], expected[2000:-2000], atol=2e-3)
