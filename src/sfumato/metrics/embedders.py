"""Embedders by name: what turns audio into the vectors that the Fréchet distance compares."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from sfumato.errors import InputError
from sfumato.metrics import musicnn

Embed = Callable[[NDArray[np.floating], float], NDArray[np.float64]]
"""(mono audio of shape (samples,), sample rate in Hz) to embeddings (n, d)."""


def _musicnn(name: str) -> Embed:
    """Return the embedder of one of the musicnn networks."""
    weights = musicnn.load_weights(name)

    def embed(audio: NDArray[np.floating], sample_rate: float) -> NDArray[np.float64]:
        with torch.inference_mode():
            return musicnn.penultimate(weights, musicnn.log_mel_patches(audio, sample_rate)).double().numpy()

    return embed


EMBEDDERS: dict[str, Callable[[], Embed]] = {
    "musicnn": lambda: _musicnn("MTT_musicnn"),
    "musicnn-msd": lambda: _musicnn("MSD_musicnn"),
}


def embedder(name: str = "musicnn") -> Embed:
    """Return a function from (mono audio, sample rate) to embeddings, shape (n, d).

    Parameters
    ----------
    name : str
        "musicnn" (MagnaTagATune) or "musicnn-msd" (Million Song Dataset): d = 200, one row for every 3 s; audio
        shorter than 3 s gives one row.

    Raises
    ------
    InputError
        If there is no embedder of that name.
    MissingExtraError
        If the package that ships its weights isn't installed; it says how to.
    """
    if name not in EMBEDDERS:
        raise InputError(f"No embedder is called {name!r}. Choose one of: {', '.join(EMBEDDERS)}.")
    return EMBEDDERS[name]()
