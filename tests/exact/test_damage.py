"""Damage laid by hand on synthetic music is found where it is; what only resembles damage is not."""

import numpy as np
import pytest
from scipy.linalg import solve_toeplitz
from scipy.signal import lfilter

from sfumato.data.damage import damage
from sfumato.errors import InputError
from sfumato.signal import clicks
from sfumato.signal.damage import Find, find_gaps

RATE = 44100
AT = 3 * RATE


def music(seconds: float = 8.0, channels: int = 1, rate: int = RATE) -> np.ndarray:
    """Coloured noise and a chord, at about -17 dBFS."""
    rng = np.random.default_rng(5)
    n = round(seconds * rate)
    noise = lfilter([1.0], [1.0, -1.8, 0.85], rng.standard_normal((channels, n))) * 0.01
    chord = sum(np.sin(2 * np.pi * f * np.arange(n) / rate + f) for f in (110.0, 277.2, 329.6))
    return noise + 0.06 * np.asarray(chord)


def find(audio: np.ndarray, rate: int = RATE) -> list[Find]:
    return find_gaps([(0, audio)], rate, len(audio))


def only(audio: np.ndarray, start: int, stop: int, kind: str, over: float = 0.002, rate: int = RATE) -> None:
    finds = find(audio, rate)
    assert [f.kind for f in finds] == [kind]
    reach = round(over * rate)
    assert start - reach <= finds[0].start <= start
    assert stop <= finds[0].stop <= stop + reach


def test_music_has_no_damage() -> None:
    assert find(music(20, channels=2)) == []


@pytest.mark.parametrize("rate", [8000, 44100, 96000])
@pytest.mark.parametrize("length_s", [0.003, 0.06, 1.5])
def test_zeros(rate: int, length_s: float) -> None:
    audio = music(channels=2, rate=rate)
    at = 3 * rate
    stop = at + round(length_s * rate)
    audio[:, at:stop] = 0
    only(audio, at, stop, "zeros", rate=rate)


def test_one_channel_is_enough() -> None:
    audio = music(channels=3)
    audio[1, AT : AT + 2000] = 0
    only(audio, AT, AT + 2000, "zeros")


@pytest.mark.parametrize("length", [1, 500, 5 * RATE])
def test_non_finite_samples(length: int) -> None:
    audio = music(10)
    audio[0, AT : AT + length : 2] = np.nan
    audio[0, AT + 1 : AT + length : 2] = -np.inf
    only(audio, AT, AT + length, "nan")


@pytest.mark.parametrize("length", [400, 9000, 5 * RATE])
def test_stuck_value(length: int) -> None:
    audio = music(10)
    at = AT + int(np.argmin(np.abs(audio[0, AT : AT + 500] - 0.05)))
    audio[0, at : at + length] = audio[0, at - 1]
    only(audio, at, at + length, "stuck")


@pytest.mark.parametrize("gain_db", [-40, -60])
@pytest.mark.parametrize("length", [600, 13230])
def test_dropout(gain_db: float, length: int) -> None:
    audio = music(channels=2)
    audio[:, AT : AT + length] *= 10 ** (gain_db / 20)
    only(audio, AT, AT + length, "dropout", over=0.0035)


def test_click() -> None:
    audio = music(channels=2)
    audio[:, AT] += 0.7
    audio[:, AT + 90 : AT + 100] -= 0.5
    only(audio, AT, AT + 100, "click")


def test_everything_is_damaged() -> None:
    assert find(np.full((1, 3 * RATE), np.nan)) == [Find(0, 3 * RATE, "nan")]


@pytest.mark.parametrize("n", [0, 1, 100])
def test_hardly_any_audio(n: int) -> None:
    assert find(np.full((2, n), 0.1)) == []


def test_silence_around_music_is_no_damage() -> None:
    audio = np.concatenate([np.zeros((1, RATE)), music(3), np.zeros((1, RATE))], axis=1)
    assert find(audio) == []


def test_silence_with_an_offset_is_no_damage() -> None:
    audio = np.concatenate([np.zeros((1, RATE)), music(3), np.zeros((1, RATE))], axis=1) + 0.01
    audio[0, 4 * RATE - 4000 : 4 * RATE] = 0.01 + (audio[0, 4 * RATE - 4000 : 4 * RATE] - 0.01) * np.linspace(
        1, 0, 4000
    )
    assert find(audio) == []


def test_long_pause_is_no_damage() -> None:
    audio = music(10)
    audio[:, AT : AT + round(2.1 * RATE)] = 0
    assert find(audio) == []


def test_faded_rest_is_no_damage() -> None:
    audio = music()
    fade = np.linspace(1, 0, round(0.03 * RATE))
    stop = AT + RATE // 2
    audio[0, AT - len(fade) : AT] *= fade
    audio[0, AT:stop] = 0
    audio[0, stop : stop + len(fade)] *= fade[::-1]
    assert find(np.round(audio * 32768) / 32768) == []


def test_short_releases_are_no_dropouts() -> None:
    audio = music()
    ramp = 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, round(0.004 * RATE)))
    for at in range(RATE, 7 * RATE, RATE // 4):
        stop = at + round(0.08 * RATE)
        audio[0, at - len(ramp) : at] *= ramp
        audio[0, at:stop] *= 0.001
        audio[0, stop : stop + len(ramp)] *= ramp[::-1]
    assert [f for f in find(audio) if f.kind in ("dropout", "zeros")] == []


def test_quiet_passage_is_no_damage() -> None:
    t = np.arange(8 * RATE) / RATE
    level = 10 ** (-(30 + 30 * np.cos(2 * np.pi * t / 4)) / 20)
    assert find(np.round(music() * level * 32768) / 32768) == []


@pytest.mark.parametrize("length_ms", [5, 18])
def test_clipping_is_not_stuck(length_ms: float) -> None:
    t = np.arange(4 * RATE) / RATE
    frequency = 500 / length_ms * 0.8
    clipped = np.clip(np.sin(2 * np.pi * frequency * t) * 1.5 + 0.01 * music(4)[0], -1, 1)
    assert [f for f in find(clipped[None]) if f.kind == "stuck"] == []


def test_a_hit_with_decay_is_no_click() -> None:
    audio = music()
    rng = np.random.default_rng(2)
    for at in range(RATE, 7 * RATE, RATE // 3):
        audio[0, at : at + 4000] += 0.5 * rng.standard_normal(4000) * np.exp(-np.arange(4000) / 600)
    assert find(audio) == []


def test_a_woodblock_is_no_click() -> None:
    audio = music()
    t = np.arange(4000) / RATE
    for at in range(RATE, 7 * RATE, RATE // 3):
        audio[0, at : at + 4000] += 0.3 * np.sin(2 * np.pi * 2500 * t) * np.exp(-t / 0.002)
    assert find(audio) == []


def test_levinson_solves_the_normal_equations() -> None:
    x = music(1)[0]
    lags = np.array([np.correlate(x, x, "full")[len(x) - 1 : len(x) + 32], np.r_[1.0, np.zeros(32)]])
    expected = [solve_toeplitz(np.r_[r[0] * (1 + 1e-10) + 1e-12, r[1:-1]], -r[1:]) for r in lags]
    np.testing.assert_allclose(clicks.levinson(lags)[:, 1:], expected, atol=1e-6)


def test_prediction_error_of_an_autoregression_is_its_innovation() -> None:
    innovation = np.random.default_rng(0).standard_normal(64 * 1024)
    x = lfilter([1.0], [1.0, -1.8, 0.85], innovation)
    error = clicks.prediction_error(x, 1024)[512:-1024]
    assert np.corrcoef(error, innovation[512:-1024])[0, 1] > 0.98


def test_blocks_must_follow_on() -> None:
    audio = music(1)
    with pytest.raises(InputError, match="at sample 100 is needed"):
        find_gaps([(0, audio[:, :100]), (101, audio[:, 101:])], RATE, 1)
    with pytest.raises(InputError, match=r"\(2, n\)"):
        find_gaps([(0, audio)], RATE, 2)


def test_seeded_damage_is_found() -> None:
    clean = music(60, channels=2)
    damaged, gaps = damage(clean, RATE, 30, seed=7)
    finds = find(damaged)
    covered = np.zeros(clean.shape[1], bool)
    for f in finds:
        covered[f.start : f.stop] = True
    assert len(gaps) == 30
    assert sum(covered[g.start : g.stop].mean() >= 0.9 for g in gaps) >= 28
    assert all(any(f.start < g.stop and g.start < f.stop for g in gaps) for f in finds)
