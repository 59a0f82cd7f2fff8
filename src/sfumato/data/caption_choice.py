"""Chooses captions by how well they fit a sound, without choosing the same few for everything.

A text–audio model favours some captions whatever it hears. With score s(i, c) of caption c for recording i:

    T(i) = the K captions of recording i with the highest s(i, c)            (ties: the earlier caption)
    f(c) = number of recordings i with c in T(i)
    k captions are drawn from T(i) one after another, without replacement, with weights f(c)^-strength.

Strength 0 draws uniformly from the top K; 1 inversely to frequency. The draw of a recording depends on the seed and on
its name, not on the order of the recordings. K = k takes the best, whatever the strength.

References
----------
Huang et al., "Noise2Music", arXiv 2302.03917, on pseudo-labelling: captions are drawn from the top K by a joint
embedding, balanced by their frequency. The formula above is this project's reading of it.
Efraimidis & Spirakis, "Weighted random sampling with a reservoir", 2006: the keys that draw without replacement.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sfumato.data.manifest import Row
from sfumato.errors import InputError

Similarity = Callable[[NDArray[np.float32], int, Sequence[str]], Sequence[float]]
"""How well each text fits audio (channels, samples) of a sample rate in Hz; higher is better."""


def choose(
    scores: NDArray[np.floating], top: int, pick: int, seed: int, names: Sequence[str], strength: float = 1.0
) -> list[list[int]]:
    """Numbers of the captions chosen for each recording, in the order in which they are drawn.

    Parameters
    ----------
    scores
        (recordings, captions); minus infinity where a caption is no candidate.
    top, pick
        K and k above. A recording with fewer candidates gets fewer.
    seed, names
        Of the draws; one name for each recording.
    strength
        How strongly frequent captions are avoided, from 0.

    Raises
    ------
    InputError
        If the numbers don't fit each other, or a score is not a number.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or len(names) != len(scores):
        raise InputError(f"Scores of shape {scores.shape} for {len(names)} names. Give (recordings, captions).")
    if not 1 <= pick <= top or not strength >= 0:
        raise InputError(f"pick={pick} of top={top} with strength {strength:g}: give 1 ≤ pick ≤ top and strength ≥ 0.")
    if np.isnan(scores).any() or (scores == np.inf).any():
        raise InputError("A score is NaN or infinite. Give finite scores, or minus infinity for what is no candidate.")
    best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    offered = [[int(c) for c in order if scores[i, c] > -np.inf] for i, order in enumerate(best)]
    frequency = np.bincount([c for own in offered for c in own], minlength=scores.shape[1])
    return [_drawn(own, frequency, pick, strength, seed, name) for own, name in zip(offered, names, strict=True)]


def _drawn(
    own: Sequence[int], frequency: NDArray[np.int64], pick: int, strength: float, seed: int, name: str
) -> list[int]:
    """The captions with the smallest keys E / w, E exponential: successive draws with weights w."""
    key = int(hashlib.sha256(f"choice {name}".encode()).hexdigest()[:16], 16)
    random = np.random.Generator(np.random.Philox(key=np.array([seed, key], np.uint64)))
    weights = frequency[list(own)].astype(np.float64) ** -strength
    keys = random.exponential(size=len(own)) / weights
    return [own[i] for i in np.argsort(keys, kind="stable")[:pick]]


def scores_of(
    rows: Sequence[Row],
    offered: Sequence[Sequence[str]],
    read: Callable[[Row], tuple[NDArray[np.float32], int]],
    similarity: Similarity,
) -> tuple[NDArray[np.float64], list[str]]:
    """Scores (recordings, captions) of the texts that are offered to each recording, and all texts in order.

    Parameters
    ----------
    rows, offered
        Recordings and the candidates of each.
    read
        Audio (channels, samples) and sample rate of a row.
    similarity
        A text–audio model's judgement.
    """
    vocabulary = sorted({text for own in offered for text in own})
    number = {text: i for i, text in enumerate(vocabulary)}
    scores = np.full((len(rows), len(vocabulary)), -np.inf)
    for i, (row, own) in enumerate(zip(rows, offered, strict=True)):
        if own:
            audio, sample_rate = read(row)
            scores[i, [number[text] for text in own]] = similarity(audio, sample_rate, own)
    return scores, vocabulary
