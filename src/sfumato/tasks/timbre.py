"""Timbre transfer: a sound through the codec of another domain, which says it in its own voice.

Between encoding and decoding the latent stands on its principal axes, in standard deviations: each can be moved (bias)
and stretched (scale), and those that a fidelity leaves out are put to their mean.

References
----------
.. [1] A. Caillon, P. Esling, "RAVE", arXiv 2111.05011, sec. 5.3.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from pydantic import Field, field_validator

from sfumato import __version__
from sfumato.audio import Recording, open_recording, write_blocks
from sfumato.config import Settings as BaseSettings
from sfumato.errors import InputError
from sfumato.files import write_atomically
from sfumato.folder import FORMAT, Header
from sfumato.model import Model
from sfumato.player import Player, axes
from sfumato.player.weights import Array, Weights, build
from sfumato.tasks.streams import BLOCK, resampled, skipped, streams
from sfumato.tasks.takes import SUBTYPE, Progress, Written, check, record_of

NAME = "timbre"
_FARTHEST = 100.0


class Settings(BaseSettings):
    """What to do to the latent."""

    fidelity: float = Field(1.0, gt=0, le=1, description="share of the latent's singular values kept")
    bias: list[str] | None = Field(
        None, description="axis=value, such as 0=1.5: moves an axis, 0 the strongest, by standard deviations"
    )
    scale: list[str] | None = Field(None, description="axis=value, such as 1=2: stretches an axis about its mean")

    @field_validator("bias", "scale")
    @classmethod
    def _pairs(cls, given: list[str] | None) -> list[str] | None:
        pairs(given)
        return given


def pairs(given: list[str] | None) -> dict[int, float]:
    """Axis -> value, from texts such as 0=1.5.

    Raises
    ------
    ValueError
        A text is no such pair.
    """
    found = {}
    for text in given or ():
        axis, equals, value = text.partition("=")
        try:
            found[int(axis)] = float(value)
        except ValueError:
            equals = ""
        if not equals or int(axis) < 0 or not abs(float(value)) <= _FARTHEST:
            raise ValueError(f"'{text}' is no axis=value, such as 0=1.5, with a value up to {_FARTHEST:g}")
    return found


def alter(
    weights: Weights, latent: Array, fidelity: float, bias: Mapping[int, float], scale: Mapping[int, float]
) -> Array:
    """A latent (batch, latent, frames) with its axes moved, stretched and left out.

    Raises
    ------
    InputError
        There is no such axis.
    """
    n = len(weights.scale)
    for axis in {*bias, *scale}:
        if not 0 <= axis < n:
            raise InputError(f"There is no axis {axis}: {weights.name} has 0 to {n - 1}.")
    kept = axes.keep(weights, fidelity)
    places = axes.coordinates(weights, latent)
    for axis, factor in scale.items():
        places[:, axis] *= factor
    for axis, deviations in bias.items():
        places[:, axis] += deviations * weights.scale[axis]
    places[:, kept.dims - 1] *= kept.share
    return axes.latent(weights, places[:, : kept.dims])


def transform(model: Model, source: Path, destination: Path, settings: Settings, progress: Progress) -> Written:
    """The file of what the codec makes of `source`, as long, and the record of how (see `tasks.transform`).

    Raises
    ------
    InputError
        The sound or an axis can't be used.
    ResourceError
        The disk is full or the folder can't be written.
    """
    tensors = {key: value.numpy() for key, value in model.network.state_dict().items()}
    config = model.config.model_dump(mode="json")
    header = Header(format=FORMAT, name=model.name, system=model.system, config=config, card=model.card)
    codec = Player(build(header, tensors, model.name))
    with open_recording(source) as recording:
        info = recording.info
        if info.nonfinite:
            raise InputError(f"{source} holds {info.nonfinite} samples that are NaN or infinite. Repair it first.")
        check(destination, 1, info.sample_rate, info.channels, info.n_samples, source)
        alter(codec.weights, np.zeros((1, codec.recipe.network.latent, 1), np.float32), *_how(settings))
        blocks = _transferred(codec, recording, settings, progress)
        write_blocks(destination, blocks, info.sample_rate, info.channels, info.n_samples, SUBTYPE)
    kept = axes.keep(codec.weights, settings.fidelity)
    body = {
        "sfumato": __version__,
        "model": {"name": model.name, "system": model.system, "sha256": codec.digest},
        "settings": settings.model_dump(mode="json"),
        "input": str(source),
        "sample_rate": info.sample_rate,
        "dims": kept.dims,
        "fidelity_of_variance": kept.of_variance,
        "takes": [{"file": destination.name, "samples": info.n_samples, "seconds": info.n_samples / info.sample_rate}],
    }
    write_atomically(record_of(destination), (json.dumps(body, indent=2, ensure_ascii=True) + "\n").encode())
    return Written((destination,), record_of(destination))


def _how(settings: Settings) -> tuple[float, dict[int, float], dict[int, float]]:
    return settings.fidelity, pairs(settings.bias), pairs(settings.scale)


def _transferred(codec: Player, recording: Recording, settings: Settings, progress: Progress) -> Iterator[Array]:
    """The recording through the codec, block by block, at its own rate."""
    info, rate = recording.info, codec.recipe.sample_rate
    n, delay, how = -(-info.n_samples * rate // info.sample_rate), codec.recipe.network.delay, _how(settings)

    def played() -> Iterator[Array]:
        state, padding = None, -(n + delay) % codec.hop_length + delay
        ends = [np.zeros((info.channels, padding), np.float32)]
        blocks = resampled((block for _, block in recording.blocks(BLOCK)), info.sample_rate, rate, n)
        for source in (blocks, ends):
            for block in source:
                x = streams(block, codec.channels)
                state = state or codec.init(len(x))
                latent, state = codec.encode(x, state)
                if codec.weights.codebooks is not None:
                    latent = codec.latent_of(codec.codes_of(latent))
                audio, state = codec.decode(alter(codec.weights, latent, *how), state)
                yield audio.reshape(-1, audio.shape[-1])[: info.channels]

    done = 0
    for block in resampled(skipped(played(), delay, n), rate, info.sample_rate, info.n_samples):
        done += block.shape[1]
        progress(done, info.n_samples, "transferring")
        yield block
