"""A handful of clips that one word stands for, beside sounds of the model's own, which it is not to forget [1]_.

Each item is a pair, a pure function of (seed, step, item): a window of one of the clips with a prompt around the new
word, and a sound that the untouched model drew with the prompt it was drawn for. A clip longer than a window gives
crops, a shorter one lies anywhere in silence. Levels are evened out as in `data.prompted`.

References
----------
.. [1] N. Ruiz et al., "DreamBooth: fine tuning text-to-image diffusion models for subject-driven generation", arXiv
       2208.12242, section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfumato.audio import open_recording, to_channels
from sfumato.data.examples import share
from sfumato.data.loaders import AUDIO_ENDINGS
from sfumato.data.manifest import sha256_of
from sfumato.data.oneshots import resampled
from sfumato.data.prompted import LEVELS_DB, PEAK, QUIETEST
from sfumato.decoding import shown
from sfumato.diffusion.noise import chooser
from sfumato.errors import InputError
from sfumato.networks import text
from sfumato.networks.text import Encoded
from sfumato.signal.complex_spectrogram import LEVEL

if TYPE_CHECKING:
    from jaxtyping import Float

Audio = NDArray[np.float32]

ENDINGS = AUDIO_ENDINGS | {".m4a", ".aac", ".mp4", ".wma", ".webm", ".mka", ".au", ".caf", ".w64"}
MOST = 100
"""Clips that are taken; for more there is `sfumato train`."""
LONGEST_S = 60.0
"""Of a longer clip, the beginning is taken."""
PRIOR = "prior."
"""Beginning of the names of a batch's sounds of the model's own."""


@dataclass(frozen=True)
class Clip:
    """A sound that the word stands for."""

    name: str
    sha256: str
    audio: Audio
    """``(n,)``, at the model's rate."""


@dataclass(frozen=True)
class FewClips:
    """Pairs of clips and sounds of the model's own; a data set for `sfumato.train.fit`."""

    clips: Sequence[Clip]
    words: Encoded
    """Prompts around the word, any of which is said of any clip."""
    prior: Float[Tensor, "n n_samples"]
    """Sounds of the model's own; none for no prior."""
    prior_words: Encoded
    """What each was drawn for."""
    n_samples: int

    def batch(self, seed: int, step: int, size: int, rank: int, world: int) -> dict[str, Tensor]:
        """Pairs [rank, rank + 1) * size / world of a step.

        "audio" ``(pairs, n_samples)`` and the fields of `Wanted` for the clips; the same after "prior." for the rest.
        """
        windows, said, recalled = [], [], []
        for i in share(size, rank, world):
            choose = chooser(seed=seed, item=step * size + i)
            clip = self.clips[int(choose.integers(len(self.clips)))]
            windows.append(window(clip.audio, self.n_samples, choose))
            said.append(int(choose.integers(len(self.words.sentence))))
            recalled.append(int(choose.integers(max(1, len(self.prior)))))
        batch = {"audio": torch.from_numpy(np.stack(windows))} | fields(self.words, said)
        if len(self.prior):
            own = {"audio": self.prior[recalled]} | fields(self.prior_words, recalled)
            batch |= {PRIOR + name: value for name, value in own.items()}
        return batch


def fields(words: Encoded, rows: Sequence[int]) -> dict[str, Tensor]:
    """The fields of `Wanted` for prompts `rows`: no tempo, no key."""
    picked = torch.tensor(rows)
    none = torch.zeros(len(picked))
    told = {"sentence": words.sentence[picked], "tokens": words.tokens[picked], "valid": words.valid[picked]}
    return told | {"bpm": none, "key": none.long()}


def encoded(prompts: Sequence[str]) -> Encoded:
    """What the sentence encoder makes of prompts; for empty ones nothing is wanted (see `Wanted`).

    Raises
    ------
    MissingExtraError
        The extra `text` isn't installed.
    """
    found = text.load().encode(prompts)
    told = torch.tensor([bool(prompt) for prompt in prompts])
    return Encoded(found.tokens, found.valid & told[:, None], found.sentence * told[:, None])


def window(audio: Audio, n_samples: int, choose: np.random.Generator) -> Audio:
    """A window ``(n_samples,)`` of a sound: a crop around a place that is not silent, or all of it in silence."""
    room = len(audio) - n_samples
    if room >= 0:
        heard = np.flatnonzero(np.abs(audio) > QUIETEST)
        place = int(heard[choose.integers(len(heard))])
        first = int(choose.integers(max(0, place - n_samples + 1), min(place, room) + 1))
        cut = audio[first : first + n_samples]
    else:
        first = int(choose.integers(-room + 1))
        cut = np.pad(audio, (first, -room - first))
    level = LEVEL * 10 ** (choose.uniform(-LEVELS_DB, LEVELS_DB) / 20)
    rms = float(np.sqrt(np.mean(np.square(cut, dtype=np.float64))))
    gain = min(level / max(rms, QUIETEST), PEAK / max(float(np.abs(cut).max()), QUIETEST))
    return cut * np.float32(gain if choose.random() < 0.5 else -gain)


def read_clips(folder: Path, sample_rate: int) -> list[Clip]:
    """The sounds that lie in a folder, in alphabetical order, mono.

    Raises
    ------
    InputError
        There is no such folder, it holds no sound or too many, or some can't be used: lists these with the reasons.
    """
    if not folder.is_dir():
        raise InputError(f"{shown(folder)} is no folder. Give one that holds a few clips.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.name[0] != ".")
    if not paths:
        raise InputError(f"{shown(folder)} holds no clip ({', '.join(sorted(ENDINGS))}). Give a folder that does.")
    if len(paths) > MOST:
        raise InputError(
            f"{shown(folder)} holds {len(paths)} clips. A word is learnt from 3 to 20, at most {MOST}; from more, "
            "train a model (sfumato train)."
        )
    clips, faults = [], []
    for path in paths:
        try:
            clips.append(_read(path, sample_rate))
        except InputError as error:
            faults.append(f"{shown(path.name)} ({str(error).rstrip('.')})")
    if faults:
        listed = "; ".join(faults)
        raise InputError(f"{len(faults)} of {len(paths)} clips can't be used: {listed}. Mend them or take them out.")
    return clips


def _read(path: Path, sample_rate: int) -> Clip:
    """A sound that can be learnt from."""
    with open_recording(path) as recording:
        info = recording.info
        if info.nonfinite:
            raise InputError("it holds samples that are NaN or infinite")
        audio = recording.read(0, min(info.n_samples, int(LONGEST_S * info.sample_rate)))
    mono = resampled(to_channels(audio.astype(np.float32), 1), info.sample_rate, sample_rate)[0]
    if np.abs(mono).max(initial=0.0) <= QUIETEST:
        raise InputError("it is silent")
    return Clip(path.name, sha256_of(path), mono)
