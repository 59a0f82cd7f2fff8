"""A codec's weights as matrices: one per convolution, read from a model's folder without torch."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sfumato.config import Settings, parse
from sfumato.errors import InputError, ModelError
from sfumato.folder import Header, check_weights
from sfumato.signal import pqmf

Array = NDArray[np.float32]
Kind = Literal["plain", "last", "unit", "down", "up"]

SYSTEM = "rave"
Ratio = Annotated[int, Field(ge=1, le=64)]
Dilation = Annotated[int, Field(ge=1, le=4096)]
Dilations = Annotated[tuple[Dilation, ...], Field(max_length=16)]
LONGEST_HOP = 1 << 16
"""Most samples of a latent frame."""
STEEP = 4.0
"""Slope of the loudness, as in `networks.vae`, which needs torch."""
_LINE = 16
"""Numbers of a line of the processor's cache."""


class Shape(Settings):
    """What `networks.vae.Config` says of the network, every value of it as written in the folder."""

    model_config = ConfigDict(extra="ignore")

    channels: int = Field(ge=1, le=2, description="channels of the audio")
    bands: int = Field(ge=2, le=128, description="bands of the filter bank")
    taps: int = Field(ge=5, le=2048, description="length of the filter bank's prototype")
    attenuation_db: float = Field(gt=21, le=200, description="stop band of the prototype")
    capacity: int = Field(ge=4, le=1024, description="channels of the finest level")
    capacity_max: int = Field(ge=4, le=4096, description="most channels of a level")
    ratios: tuple[Ratio, ...] = Field(min_length=1, max_length=8, description="steps between levels, finest first")
    latent: int = Field(ge=1, le=1024, description="numbers per latent frame")
    encoder_dilations: tuple[Dilations, ...] = Field(description="dilations on the way in, finest level first")
    decoder_dilations: tuple[Dilations, ...] = Field(description="dilations on the way back, finest first")
    kernel: int = Field(ge=2, le=64, description="length of the residual units' convolutions")

    @property
    def hop_length(self) -> int:
        """Samples of one latent frame."""
        return self.bands * math.prod(self.ratios)

    @property
    def delay(self) -> int:
        """Samples by which decoded audio comes after the input, beyond the frame that has to be complete."""
        return self.taps - self.bands

    def width(self, level: int) -> int:
        """Channels of a level, 0 being the finest."""
        wide: int = self.capacity * 2**level
        return min(wide, self.capacity_max)


class Recipe(Settings):
    """What `systems.rave.Config` says of a finished codec."""

    model_config = ConfigDict(extra="ignore")

    sample_rate: int = Field(gt=0, description="sample rate of the audio, Hz")
    network: Shape = Field(description="shape of the network")
    bottleneck: Literal["gaussian", "wasserstein", "spherical", "discrete"] = Field(description="what the latent is")
    n_codebooks: int = Field(ge=1, le=64, description="codebooks of a discrete bottleneck")
    codebook_size: int = Field(ge=2, le=1 << 16, description="codes of each codebook")


@dataclass(frozen=True)
class Conv:
    """A causal convolution as a matrix: ``kernel * before`` rows, oldest tap first, and a last one for any bias."""

    matrix: Array
    before: int
    kernel: int = 1
    dilation: int = 1

    @property
    def after(self) -> int:
        """Channels it gives."""
        columns: int = self.matrix.shape[1]
        return columns


@dataclass(frozen=True)
class Layer:
    """One layer of `networks.vae`: what kind it is, its convolutions, and the step between levels."""

    kind: Kind
    conv: Conv
    point: Conv | None = None
    factor: int = 1


@dataclass(frozen=True)
class Codebooks:
    """A residual vector quantiser: the way into its space, the codes of each book, the way back."""

    into: Conv | None
    books: Array
    back: Conv | None


@dataclass(frozen=True)
class Weights:
    """All that a player plays with."""

    name: str
    digest: str
    recipe: Recipe
    analysis: Conv
    encoder: tuple[Layer, ...]
    decoder: tuple[Layer, ...]
    synthesis: Conv
    codebooks: Codebooks | None
    mean: Array
    basis: Array
    """(principal directions, latent), orthonormal rows, strongest first."""
    scale: Array


def read(folder: Path, header: Header) -> Weights:
    """The weights of the codec in `folder`.

    Raises
    ------
    ModelError
        The folder is broken, or of another system; names the key.
    """
    path = folder / "model.safetensors"
    check_weights(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise ModelError(f"{path} can't be read: {' '.join(str(error).split())}.") from None
    return build(header, tensors, str(folder))


def build(header: Header, tensors: Mapping[str, NDArray[Any]], where: str) -> Weights:
    """The weights in `tensors`; errors say `where` they are from.

    Raises
    ------
    ModelError
        A tensor is missing, wrong or too much, or the system is another one; names the key.
    """
    if header.system != SYSTEM:
        raise ModelError(f"{header.name} is of the system {header.system}. Give a codec, of the system {SYSTEM}.")
    try:
        recipe = parse(header.config, Recipe, f"{where}: config")
        shape = recipe.network
        bank = pqmf.bank(shape.bands, shape.taps, shape.attenuation_db)
    except InputError as error:
        raise ModelError(str(error)) from None
    if shape.hop_length > LONGEST_HOP:
        raise ModelError(f"{where}: a hop of {shape.hop_length} samples; the longest is {LONGEST_HOP}.")
    if not len(shape.ratios) == len(shape.encoder_dilations) == len(shape.decoder_dilations):
        raise ModelError(f"{where}: ratios and dilations name different numbers of levels.")
    shelf = _Shelf(where, tensors)
    outputs = shape.latent * (2 if recipe.bottleneck == "gaussian" else 1)
    basis = shelf.take("codec.latent_basis", (shape.latent, shape.latent)).astype(np.float64)
    left, _, right = np.linalg.svd(basis)  # stored as float16, it is orthonormal to three digits only
    into = (Layer("plain", _conv(bank.analysis, None)), *_encoder(shelf, shape, outputs))
    back = (*_with_tanh_only(tuple(_decoder(shelf, shape))), Layer("plain", _conv(bank.synthesis / 2, None)))
    layers = _side_by_side((*into, *back))
    weights = Weights(
        name=header.name,
        digest="",
        recipe=recipe,
        analysis=layers[0].conv,
        encoder=layers[1 : len(into)],
        decoder=layers[len(into) : -1],
        synthesis=layers[-1].conv,
        codebooks=_codebooks(shelf, recipe) if recipe.bottleneck == "discrete" else None,
        mean=shelf.take("codec.latent_mean", (shape.latent,)),
        basis=np.asarray(left @ right, np.float32),
        scale=shelf.take("codec.latent_scale", (shape.latent,)),
    )
    shelf.all_taken()
    return replace(weights, digest=_digest(shelf, recipe))


class _Shelf:
    """Tensors that must all be there, of the right shape, finite, and used."""

    def __init__(self, where: str, tensors: Mapping[str, NDArray[Any]]) -> None:
        self.where, self.tensors, self.taken = where, tensors, set[str]()

    def take(self, key: str, shape: tuple[int, ...]) -> Array:
        if key not in self.tensors:
            raise ModelError(f"{self.where}: the weight {key} is missing.")
        value = self.tensors[key]
        if value.shape != shape:
            raise ModelError(f"{self.where}: {key} has shape {value.shape}, expected {shape}.")
        if value.dtype.kind != "f" or not np.isfinite(value).all():
            raise ModelError(f"{self.where}: {key} holds values that are no finite numbers.")
        self.taken.add(key)
        return value.astype(np.float32)

    def conv(self, name: str, before: int, after: int, kernel: int, dilation: int = 1) -> Conv:
        weight = self.take(f"{name}.weight", (after, before, kernel))
        return _conv(weight, self.take(f"{name}.bias", (after,)), dilation)

    def all_taken(self) -> None:
        extra = sorted(key for key in self.tensors if key not in self.taken and ".quantiser." not in key)
        if extra:
            raise ModelError(f"{self.where}: the weight {extra[0]} is not part of this network.")


def _conv(weight: NDArray[Any], bias: Array | None, dilation: int = 1) -> Conv:
    """From (after, before, kernel) as torch has it."""
    after, before, kernel = weight.shape
    rows = [weight.transpose(2, 1, 0).reshape(-1, after), *([] if bias is None else [bias[None]])]
    return Conv(np.ascontiguousarray(np.concatenate(rows), np.float32), before, kernel, dilation)


def _unit(shelf: _Shelf, name: str, width: int, kernel: int, dilation: int) -> Layer:
    dilated = shelf.conv(f"{name}.dilated.conv", width, width, kernel, dilation)
    return Layer("unit", dilated, shelf.conv(f"{name}.point", width, width, 1))


def _encoder(shelf: _Shelf, shape: Shape, outputs: int) -> Iterator[Layer]:
    names = (f"codec.encoder.layers.{i}" for i in range(10_000))
    yield Layer("plain", shelf.conv(f"{next(names)}.conv", shape.channels * shape.bands, shape.width(0), 7))
    for level, (ratio, dilations) in enumerate(zip(shape.ratios, shape.encoder_dilations, strict=True)):
        width = shape.width(level)
        for dilation in dilations:
            yield _unit(shelf, next(names), width, shape.kernel, dilation)
        yield Layer(
            "down", shelf.conv(f"{next(names)}.folded.conv", width * ratio, shape.width(level + 1), 2), factor=ratio
        )
    yield Layer("last", shelf.conv(f"{next(names)}.conv", shape.width(len(shape.ratios)), outputs, 3))


def _decoder(shelf: _Shelf, shape: Shape) -> Iterator[Layer]:
    names = (f"codec.decoder.layers.{i}" for i in range(10_000))
    yield Layer("plain", shelf.conv(f"{next(names)}.conv", shape.latent, shape.width(len(shape.ratios)), 3))
    for level in reversed(range(len(shape.ratios))):
        ratio, width = shape.ratios[level], shape.width(level)
        yield Layer(
            "up", shelf.conv(f"{next(names)}.folded.conv", shape.width(level + 1), width * ratio, 2), factor=ratio
        )
        for dilation in shape.decoder_dilations[level]:
            yield _unit(shelf, next(names), width, shape.kernel, dilation)
    yield Layer("last", shelf.conv(f"{next(names)}.conv", shape.width(0), 2 * shape.channels * shape.bands, 7))


def _with_tanh_only(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The decoder with 2 sigmoid(4 x) = 1 + tanh(2 x) in mind: loudness is doubled here, the sound halved later."""
    last = layers[-1].conv
    halves = np.repeat(np.array([1, STEEP / 2], np.float32), last.after // 2)
    conv = Conv(last.matrix * halves, last.before, last.kernel)
    return (*layers[:-1], Layer("last", conv))


def _side_by_side(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """The layers, their matrices in one piece of memory in playing order: in large pages, they are read faster."""
    convs = [conv for layer in layers for conv in (layer.conv, layer.point) if conv is not None]
    rooms = [-(-conv.matrix.size // _LINE) * _LINE for conv in convs]
    memory = np.zeros(sum(rooms) + _LINE, np.float32)
    at = -(memory.ctypes.data // memory.itemsize) % _LINE
    placed = {}
    for conv, room in zip(convs, rooms, strict=True):
        matrix = memory[at : at + conv.matrix.size].reshape(conv.matrix.shape)
        matrix[...] = conv.matrix
        placed[id(conv)] = replace(conv, matrix=matrix)
        at += room
    return tuple(
        replace(layer, conv=placed[id(layer.conv)], point=placed.get(id(layer.point))) for layer in layers
    )


def _codebooks(shelf: _Shelf, recipe: Recipe) -> Codebooks:
    """The residual quantiser of vector-quantize-pytorch."""
    latent, inner = recipe.network.latent, min(8, recipe.network.latent)
    into = back = None
    if inner != latent:
        ends = []
        for name, before, after in (("project_in", latent, inner), ("project_out", inner, latent)):
            key = f"codec.quantiser.{name}"
            weight = shelf.take(f"{key}.weight", (after, before))
            ends.append(_conv(weight[:, :, None], shelf.take(f"{key}.bias", (after,))))
        into, back = ends
    keys = (f"codec.quantiser.layers.{i}._codebook.embed" for i in range(recipe.n_codebooks))
    books = [shelf.take(key, (1, recipe.codebook_size, inner))[0] for key in keys]
    return Codebooks(into, np.stack(books), back)


def _digest(shelf: _Shelf, recipe: Recipe) -> str:
    """SHA-256 of the weights that are played with and of the recipe: how it was trained and its card don't matter."""
    total = hashlib.sha256()
    for name in sorted(shelf.taken):
        total.update(name.encode())
        total.update(np.ascontiguousarray(shelf.tensors[name], np.float32).tobytes())
    total.update(json.dumps({"system": SYSTEM, **recipe.model_dump(mode="json")}, sort_keys=True).encode())
    return total.hexdigest()
