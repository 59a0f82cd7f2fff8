"""Timbre transfer: a sound through the codec of another domain, which says it in its own voice.

Between encoding and decoding, `latent_axes` says what happens to the latent.

References
----------
.. [1] A. Caillon, P. Esling, "RAVE", arXiv 2111.05011, sec. 5.3.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sfumato import __version__
from sfumato.audio import Recording, open_recording, write_blocks
from sfumato.files import write_atomically
from sfumato.folder import FORMAT, Header
from sfumato.model import Model
from sfumato.player import Player, axes
from sfumato.player.weights import Array, build
from sfumato.tasks.latent_axes import Settings, alter, pairs
from sfumato.tasks.provenance import provenance, tags
from sfumato.tasks.streams import BLOCK, resampled, skipped, streams
from sfumato.tasks.streams import recording as recorded
from sfumato.tasks.takes import SUBTYPE, Progress, Written, check, record_of

__all__ = ["NAME", "Settings", "alter", "pairs", "player_of", "transform"]

NAME = "timbre"


def player_of(model: Model) -> Player:
    """The player of a model at hand.

    Raises
    ------
    ModelError
        The model is no codec.
    """
    tensors = {key: value.numpy() for key, value in model.network.state_dict().items()}
    config = model.config.model_dump(mode="json")
    header = Header(format=FORMAT, name=model.name, system=model.system, config=config, card=model.card)
    return Player(build(header, tensors, model.name))


def transform(model: Model, source: Path, destination: Path, settings: Settings, progress: Progress) -> Written:
    """The file of what the codec makes of `source`, as long, and the record of how (see `tasks.transform`).

    Raises
    ------
    InputError
        The sound or an axis can't be used.
    ResourceError
        The disk is full or the folder can't be written.
    """
    codec = player_of(model)
    with open_recording(source) as recording:
        info = recording.info
        recording.must_be_finite()
        check(destination, 1, info.sample_rate, info.channels, info.n_samples, source)
        alter(codec.weights, np.zeros((1, codec.recipe.network.latent, 1), np.float32), *_how(settings))
        record_of(destination).unlink(missing_ok=True)  # an older one is not of what is written now
        clipped: list[int] = []
        blocks = _counted(_transferred(codec, recording, settings, progress), clipped)
        told = tags(provenance(model.name, codec.digest, settings, {"input": str(source)}).line())
        write_blocks(destination, blocks, info.sample_rate, info.channels, info.n_samples, SUBTYPE, told)
    kept = axes.keep(codec.weights, settings.fidelity)
    length = {"samples": info.n_samples, "seconds": info.n_samples / info.sample_rate}
    body = {
        "sfumato": __version__,
        "model": {"name": model.name, "system": model.system, "sha256": codec.digest},
        "settings": settings.model_dump(mode="json"),
        "input": str(source),
        "sample_rate": info.sample_rate,
        "dims": kept.dims,
        "fidelity_of_variance": kept.of_variance,
        "takes": [{"file": destination.name} | length | {"clipped_values": sum(clipped)}],
    }
    write_atomically(record_of(destination), (json.dumps(body, indent=2, ensure_ascii=True) + "\n").encode())
    return Written((destination,), record_of(destination), sum(clipped))


def _counted(blocks: Iterator[Array], clipped: list[int]) -> Iterator[Array]:
    """The blocks; of each, how many values lie beyond full scale, where they will be clipped, goes into `clipped`."""
    for block in blocks:
        clipped.append(int((np.abs(block) > 1.0).sum()))
        yield block


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
                yield recorded(audio, info.channels)

    done = 0
    for block in resampled(skipped(played(), delay, n), rate, info.sample_rate, info.n_samples):
        done += block.shape[1]
        progress(done, info.n_samples, "transferring")
        yield block
