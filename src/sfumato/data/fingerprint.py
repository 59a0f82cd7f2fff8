"""Acoustic fingerprints: finds passages that two recordings share even when they were encoded differently.

Two recordings in different splits that share a passage are a leak, which a SHA-256 of the files can't see.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

RATE = 5512.5
FRAME = 2048
HOP = 128
BANDS = 33
FRAME_S = HOP / RATE
BLOCK = 192
MAX_ERROR = 0.30
MIN_BITS = 0.10
MAX_OWNERS = 64
MIN_COINCIDENCES = 4


@dataclass(frozen=True)
class Match:
    """A passage that two recordings share.

    Attributes
    ----------
    first, second
        Names of the recordings.
    first_s, second_s
        Where the best matching block begins in each, in seconds.
    seconds
        How much of the two recordings matches at this alignment, in seconds.
    error
        Share of differing bits in the best block; 0.5 is chance.
    """

    first: str
    second: str
    first_s: float
    second_s: float
    seconds: float
    error: float


def fingerprint(audio: NDArray[np.floating], sample_rate: int) -> NDArray[np.uint32]:
    """One 32-bit word per 23.2 ms of audio (channels, samples): signs of energy differences over time and frequency.

    References
    ----------
    Haitsma & Kalker, "A highly robust audio fingerprinting system", ISMIR 2002, eq. 1: 33 logarithmic bands
    between 300 and 2000 Hz, frames of 0.37 s. The hop here is twice theirs.
    """
    mono = soxr.resample(np.asarray(audio, np.float32).mean(axis=0), sample_rate, RATE, quality="HQ")
    if mono.size < FRAME + HOP:
        return np.zeros(0, np.uint32)
    frames = np.lib.stride_tricks.sliding_window_view(mono, FRAME)[::HOP]
    edges = np.round(np.geomspace(300.0, 2000.0, BANDS + 1) / RATE * FRAME).astype(int)
    window = np.hanning(FRAME).astype(np.float32)
    energy = np.empty((len(frames), BANDS), np.float64)
    for start in range(0, len(frames), 4096):
        power = np.abs(np.fft.rfft(frames[start : start + 4096] * window, axis=1)) ** 2
        energy[start : start + 4096] = np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1)
    slope = energy[:, :-1] - energy[:, 1:]
    bits = (slope[1:] - slope[:-1]) > 0
    words: NDArray[np.uint32] = np.packbits(bits, axis=1).view(">u4").ravel().astype(np.uint32)
    return words


def matches(prints: Mapping[str, NDArray[np.uint32]]) -> list[Match]:
    """Pairs of recordings that share at least 4.5 s of sound, each with its best block.

    Parameters
    ----------
    prints
        Fingerprint by name of recording, from `fingerprint`.

    Notes
    -----
    A pair is looked at where several words are equal at one alignment; it is a match when fewer than 30 % of the
    bits of a block differ (the paper uses 35 % of 256 frames of 11.6 ms). Words that many recordings share, such as
    silence, propose nothing. A passage whose tempo or pitch was changed is not found.
    """
    names = list(prints)
    words = np.concatenate([prints[name] for name in names]) if names else np.zeros(0, np.uint32)
    owner = np.concatenate([np.full(len(prints[name]), i) for i, name in enumerate(names)]) if names else words
    frame = np.concatenate([np.arange(len(prints[name])) for name in names]) if names else words
    order = np.argsort(words, kind="stable")
    words, owner, frame = words[order], owner[order].astype(np.int64), frame[order].astype(np.int64)
    starts = np.flatnonzero(np.r_[True, words[1:] != words[:-1]]) if words.size else words.astype(np.int64)
    sizes = np.diff(np.r_[starts, words.size])
    group_size = np.repeat(sizes, sizes)
    left, right = [], []
    for lag in range(1, MAX_OWNERS):
        ok = np.flatnonzero((words[lag:] == words[:-lag]) & (group_size[:-lag] <= MAX_OWNERS))
        ok = ok[owner[ok] != owner[ok + lag]]
        if not ok.size:
            continue
        left.append(ok)
        right.append(ok + lag)
    if not left:
        return []
    i, j = np.concatenate(left), np.concatenate(right)
    swap = owner[i] > owner[j]
    i, j = np.where(swap, j, i), np.where(swap, i, j)
    span = int(max(len(prints[name]) for name in names)) + 1
    shift = frame[j] - frame[i] + span
    key = (owner[i] * len(names) + owner[j]) * (2 * span) + shift
    found, counts = np.unique(key, return_counts=True)
    best: dict[tuple[int, int], Match] = {}
    for k in np.flatnonzero(counts >= MIN_COINCIDENCES):
        pair, lag = divmod(int(found[k]), 2 * span)
        a, b = divmod(pair, len(names))
        match = _compare(names[a], names[b], prints[names[a]], prints[names[b]], lag - span)
        if match and ((a, b) not in best or match.error < best[a, b].error):
            best[a, b] = match
    return sorted(best.values(), key=lambda match: match.error)


def _compare(first: str, second: str, a: NDArray[np.uint32], b: NDArray[np.uint32], lag: int) -> Match | None:
    """The match of two fingerprints when frame f of the first meets frame f + lag of the second."""
    start, stop = max(0, -lag), min(len(a), len(b) - lag)
    if stop - start < BLOCK:
        return None
    x, y = a[start:stop], b[start + lag : stop + lag]
    wrong = np.r_[0, np.cumsum(np.bitwise_count(x ^ y), dtype=np.int64)]
    flat = np.r_[0, np.cumsum(np.bitwise_count(x), dtype=np.int64)]
    error = (wrong[BLOCK:] - wrong[:-BLOCK]) / (32 * BLOCK)
    density = (flat[BLOCK:] - flat[:-BLOCK]) / (32 * BLOCK)
    error = np.where((density > MIN_BITS) & (density < 1 - MIN_BITS), error, 1.0)
    at = int(error.argmin())
    if error[at] > MAX_ERROR:
        return None
    covered = np.zeros(stop - start, bool)
    for block in np.flatnonzero(error <= MAX_ERROR):
        covered[block : block + BLOCK] = True
    seconds = float(covered.sum() * FRAME_S)
    return Match(first, second, (start + at) * FRAME_S, (start + at + lag) * FRAME_S, seconds, float(error[at]))
