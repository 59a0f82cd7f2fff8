"""Text score: how well a sound fits a text, by the text-audio embedding that comes with sfumato.

A cosine, from -1 to 1, higher is better. It is a proxy: a small network's opinion, learnt from the captions of a few
hours of sound, and of use for comparing systems on the same prompts. A system that was trained on it, or chosen by it,
needs another judge (`tag_agreement`). Never compare it with a published CLAP score.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sfumato.errors import InputError
from sfumato.model import load
from sfumato.networks import text
from sfumato.networks.text_audio import TextAudio, embed_audio

Scorer = Callable[[NDArray[np.floating], float, Sequence[str]], NDArray[np.float64]]
"""(audio of shape (channels, samples), sample rate in Hz, texts) to one figure per text."""


def text_scorer(model: str | Path = "text-audio") -> Scorer:
    """Return the function that scores a sound against texts: cosines of shape (texts,).

    Parameters
    ----------
    model
        A shipped model's name or a folder, of the system text_audio.

    Raises
    ------
    InputError
        There is no such model, or it is of another system; when scoring, empty audio or a text that can't be read.
    MissingExtraError
        When scoring, if the sentence encoder isn't installed.
    """
    network = load(model).network
    if not isinstance(network, TextAudio):
        raise InputError(f"{model} doesn't compare sounds with texts. Give a model of the system text_audio.")

    def score(audio: NDArray[np.floating], sample_rate: float, texts: Sequence[str]) -> NDArray[np.float64]:
        sound = embed_audio(network, audio, sample_rate)
        words = []
        with torch.no_grad():
            for one in texts:
                encoded = text.load().encode([one])
                words.append(network.text(encoded.sentence, encoded.tokens, encoded.valid)[0])
        return (torch.stack(words) @ sound).double().numpy()

    return score
