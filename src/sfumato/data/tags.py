"""Pseudo-labels of music: the tags that musicnn hears, less what it hears in everything, and only if it is sure.

With p(i, t) the probability of tag t in recording i, averaged over excerpts, and m(t) the mean over the recordings of
logit p(i, t), the tags of recording i are those with p(i, t) ≥ gate, by falling logit p(i, t) − strength · m(t).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from sfumato.data.manifest import Row
from sfumato.errors import InputError
from sfumato.metrics import musicnn

# In the order of the network's outputs (MagnaTagATune's fifty most frequent tags), as spoken of; empty: says nothing
# that a caption could use, or what another tag says better.
HEARD = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano", "ambient",
    "beat", "violin", "vocals", "synth", "female voice", "indian", "opera", "male voice", "vocals", "vocals", "",
    "harpsichord", "loud", "quiet", "flute", "female voice", "male voice", "", "pop", "soft", "sitar", "solo",
    "male voice", "classical", "choir", "vocals", "new age", "dance", "male voice", "female voice", "beat", "harp",
    "cello", "", "weird", "country", "metal", "female voice", "choir",
)  # fmt: skip
GATE, TOP = 0.25, 5
EXCERPTS, EXCERPT_S = 5, 9.5


def probabilities(rows: Sequence[Row], root: Path) -> NDArray[np.float64]:
    """Probabilities (recordings, 50) of musicnn's tags: means over five excerpts of 9.5 s spread over each recording.

    Raises
    ------
    InputError
        If a recording can't be read.
    MissingExtraError
        If the package that ships the weights isn't installed.
    """
    weights = musicnn.load_weights()
    found = np.zeros((len(rows), len(HEARD)))
    for i, row in enumerate(rows):
        with torch.inference_mode():
            patches = [musicnn.log_mel_patches(*excerpt) for excerpt in _excerpts(root / row.path)]
            heard = [musicnn.tags(weights, musicnn.penultimate(weights, patch)).double().numpy() for patch in patches]
        found[i] = np.concatenate(heard).mean(axis=0)
    return found


def debiased(
    probability: NDArray[np.floating], gate: float = GATE, top: int = TOP, strength: float = 1.0
) -> list[list[str]]:
    """The tags of each recording, surest first, by the formula at the top of this file; each word once.

    Parameters
    ----------
    probability
        (recordings, 50), in the order of `HEARD`.
    gate
        Least probability of a tag, from 0 to 1.
    top
        At most so many tags.
    strength
        How much of the mean over the recordings is taken off: 0 none, 1 all.

    Raises
    ------
    InputError
        If the shape or a value is not possible.
    """
    p = np.asarray(probability, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] != len(HEARD) or not ((p >= 0) & (p <= 1)).all():
        raise InputError(f"Probabilities of shape {p.shape}: give (recordings, {len(HEARD)}) of them, from 0 to 1.")
    if not 0 <= gate <= 1 or top < 1:
        raise InputError(f"gate={gate:g}, top={top}: give a gate from 0 to 1 and a top of 1 or more.")
    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    logit = np.log(clipped / (1 - clipped))
    score = logit - strength * logit.mean(axis=0, keepdims=True)
    tags = []
    for i in range(len(p)):
        order = [t for t in np.argsort(-score[i], kind="stable") if p[i, t] >= gate and HEARD[t]]
        tags.append([*dict.fromkeys(HEARD[t] for t in order)][:top])
    return tags


def tags_of(rows: Sequence[Row], root: Path, gate: float = GATE, top: int = TOP) -> Mapping[str, list[str]]:
    """Debiased tags by "source/recording" (see `probabilities` and `debiased`)."""
    found = debiased(probabilities(rows, root), gate, top)
    return {f"{row.source}/{row.recording}": own for row, own in zip(rows, found, strict=True)}


def _excerpts(path: Path) -> list[tuple[NDArray[np.float64], int]]:
    """Mono excerpts and their sample rate: the whole of a short recording, else several at equal distances."""
    try:
        with soundfile.SoundFile(str(path)) as file:
            length, n = file.frames, round(EXCERPT_S * file.samplerate)
            starts = [0] if length <= n else [round(s) for s in np.linspace(0, length - n, EXCERPTS)]
            found = []
            for start in starts:
                file.seek(start)
                found.append((file.read(n, dtype="float64", always_2d=True).mean(axis=1), file.samplerate))
            return found
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path} can't be read: {error}. Build its source again.") from error
