"""Seeded damage for clean recordings: what `signal.damage.find_gaps` is measured against; demos are made of it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sfumato.errors import InputError
from sfumato.signal.damage import Find, Kind

Audio = NDArray[np.float64]

KINDS: tuple[Kind, ...] = ("click", "zeros", "stuck", "nan", "dropout")

LENGTHS_S: dict[Kind, tuple[float, float]] = {
    "click": (0.0002, 0.020),
    "zeros": (0.005, 0.500),
    "stuck": (0.005, 0.300),
    "nan": (0.00002, 0.100),
    "dropout": (0.010, 0.500),
}
"""Shortest and longest gap of each kind, in seconds; lengths are log-uniform between them."""

AUDIBLE_DB = -50.0
"""Damage is laid only where the music around and under it has at least this level (dBFS, RMS): elsewhere it is
no damage that anyone, or any detector, could tell from silence."""

SPACING_S = 0.25
"""Shortest stretch of undamaged audio between two gaps, and before the first and after the last, in seconds."""


def damage(
    audio: Audio, sample_rate: int, n_gaps: int, seed: int, kinds: Sequence[Kind] = KINDS
) -> tuple[Audio, list[Find]]:
    """A damaged copy of the audio and the true gaps, sorted; a pure function of its arguments.

    Kinds take turns, so each appears equally often. Four gaps in five hit all channels, one in five hits one.

    - ``click``: a burst of pulses (one per 2 ms on average, each of one sample to 0.7 ms, a raised-cosine lobe or a
      burst of noise), added, peaking 10 to 30 dB above the local RMS level, clipped to full scale.
    - ``zeros``: exact zeros. ``stuck``: the last good sample, held. ``nan``: NaN, +inf or -inf.
    - ``dropout``: the music attenuated by 40 to 70 dB, or white noise that far below it, with edges of at most 0.2 ms.

    The finite samples of the gaps are rounded to 16 bits, as a damaged file would hold them.

    Parameters
    ----------
    audio : (channels, samples), full scale 1.
    sample_rate : in Hz.
    n_gaps : how many gaps to lay. Fewer are returned where the music is too short or too quiet to hold them.
    seed : of the positions, lengths, kinds and contents.
    kinds : which kinds to lay.
    """
    if audio.ndim != 2:
        raise InputError(f"Damage needs audio of shape (channels, samples), not {audio.shape}.")
    rng = np.random.default_rng([0xDA3A6E, seed])
    damaged = audio.copy()
    n_samples = audio.shape[1]
    spacing = round(SPACING_S * sample_rate)
    free = np.ones(n_samples, bool)
    gaps: list[Find] = []
    for i in range(n_gaps):
        kind = kinds[i % len(kinds)]
        for _ in range(50):
            length = _length(kind, sample_rate, rng)
            if length + 2 * spacing >= n_samples:
                continue
            start = int(rng.integers(spacing, n_samples - spacing - length))
            stop = start + length
            every = rng.random() < 0.8
            hit = np.arange(len(audio)) if every else rng.integers(len(audio), size=1)
            near = slice(start - spacing, stop + spacing)
            if free[near].all() and _audible(audio[hit], start, stop, sample_rate):
                break
        else:
            continue
        free[start:stop] = False
        level = np.sqrt(np.mean(audio[hit, start - spacing // 5 : stop + spacing // 5] ** 2))
        damaged[hit, start:stop] = _content(kind, audio[hit, start - 1 : stop], float(level), sample_rate, rng)
        gaps.append(Find(start, stop, kind))
    return damaged, sorted(gaps)


def _length(kind: Kind, sample_rate: int, rng: np.random.Generator) -> int:
    shortest, longest = LENGTHS_S[kind]
    return max(1, round(float(np.exp(rng.uniform(np.log(shortest), np.log(longest)))) * sample_rate))


def _audible(audio: Audio, start: int, stop: int, sample_rate: int) -> bool:
    """Whether every channel is audible in the 50 ms before, the 50 ms after, and the gap itself."""
    reach = round(0.05 * sample_rate)
    middle = (start + stop) // 2
    half = max(stop - start, round(0.01 * sample_rate)) // 2
    parts = ((start - reach, start), (stop, stop + reach), (middle - half, middle + half))
    floor = 10 ** (AUDIBLE_DB / 10)
    return all(bool((np.mean(audio[:, a:b] ** 2, axis=1) > floor).all()) for a, b in parts)


def _content(kind: Kind, before: Audio, level: float, sample_rate: int, rng: np.random.Generator) -> Audio:
    """What a gap holds; `before` is one good sample and then the music under the gap."""
    music = before[:, 1:]
    n = music.shape[1]
    if kind == "zeros":
        return np.zeros_like(music)
    if kind == "stuck":
        return np.repeat(before[:, :1], n, axis=1)
    if kind == "nan":
        return np.broadcast_to(rng.choice([np.nan, np.nan, np.inf, -np.inf], size=n), music.shape)
    if kind == "click":
        pulses = _pulses(n, sample_rate, rng) * level * 10 ** (rng.uniform(10, 30) / 20)
        loudest = int(np.argmax(np.abs(pulses)))
        if pulses[loudest] * music[0, loudest] > 0 and abs(pulses[loudest] + music[0, loudest]) > 1:
            pulses = -pulses
        return _sixteen_bits(music + pulses)
    gain = 10 ** (-rng.uniform(40, 70) / 20)
    low = music * gain if rng.random() < 0.5 else rng.standard_normal(music.shape) * level * gain
    edge = int(rng.integers(0, max(1, round(0.0002 * sample_rate)) + 1))
    away = np.minimum(np.arange(n), np.arange(n)[::-1]) + 1
    weight = np.minimum(1.0, away / (edge + 1))
    return _sixteen_bits(music * (1 - weight) + low * weight)


def _pulses(n: int, sample_rate: int, rng: np.random.Generator) -> Audio:
    """A burst of pulses over n samples, its largest magnitude 1, something at both its ends."""
    burst = np.zeros(n)
    count = 2 + int(rng.poisson(n / sample_rate / 0.002))
    for i in range(count):
        width = int(rng.integers(1, max(2, min(n, round(0.0007 * sample_rate)) + 1)))
        at = 0 if i == 0 else n - width if i == 1 else int(rng.integers(0, n - width + 1))
        lobe = np.sin(np.pi * (np.arange(width) + 0.5) / width)
        if rng.random() < 0.5:
            lobe = lobe * rng.standard_normal(width)
        burst[at : at + width] += lobe * rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 1)
    return burst / max(1e-12, float(np.max(np.abs(burst))))


def _sixteen_bits(audio: Audio) -> Audio:
    return np.clip(np.round(audio * 32768), -32768, 32767) / 32768
