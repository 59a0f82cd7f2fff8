"""Takes: several sounds made in one go, each written whole, and one record of how they were made."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sfumato import __version__
from sfumato.audio import write
from sfumato.encoding import choose
from sfumato.errors import InputError, ModelError, ResourceError
from sfumato.files import write_atomically
from sfumato.model import Model, digest
from sfumato.signal import strength_map
from sfumato.tasks.provenance import Provenance, provenance, tags

if TYPE_CHECKING:
    from pydantic import BaseModel

Array = NDArray[np.float64]
Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and a word."""

FULL_SCALE = 0.999
SUBTYPE = "PCM_24"


@dataclass(frozen=True)
class Take:
    """One sound."""

    audio: Array
    """``(channels, samples)``, within full scale."""
    sample_rate: int
    item: int
    """Number of its noise: with the seed it makes the same sound again, however many are made."""
    gain: float
    """What the model's own sound was multiplied by to stay within full scale; 1 mostly."""
    how: dict[str, Any]
    """What is particular to this take."""


@dataclass(frozen=True)
class Written:
    """Files of a set of takes."""

    files: tuple[Path, ...]
    json: Path
    clipped_values: int = 0
    """Values beyond full scale that were held within it; the record has them, too."""
    notes: tuple[str, ...] = ()
    """What the user should know."""
    pictures: tuple[Path, ...] = ()
    """PNG files."""
    provenance: Provenance | None = None
    """What the files say of themselves."""


def take(audio: Array, sample_rate: int, item: int, **how: Any) -> Take:
    """A sound as a take: turned down as a whole if it goes beyond full scale.

    Raises
    ------
    ModelError
        It holds values that are not finite.
    """
    gain = room_for(audio)
    return Take(audio * gain, sample_rate, item, gain, how)


def joined(kept: Array, new: Array, sample_rate: int, item: int, **how: Any) -> Take:
    """A take of what is kept of a sound and what is new: the new alone is turned down, slowly, to stay in full scale.

    Raises
    ------
    ModelError
        What is new holds values that are not finite.
    """
    room_for(new)
    factor = strength_map.room(kept, new, sample_rate)
    made = kept + factor * new
    told = {"least_gain": float(factor.min()), "clipped_values": int((np.abs(made) > 1).sum())}
    return Take(made, sample_rate, item, 1.0, how | told)


def room_for(audio: Array) -> float:
    """What a model's sound is to be multiplied by to stay within full scale; 1 mostly.

    Raises
    ------
    ModelError
        It holds values that are not finite.
    """
    loudest = float(np.abs(audio).max(initial=0.0))
    if not np.isfinite(loudest):
        raise ModelError("The model's sound is not finite. Its weights don't fit its configuration.")
    return 1.0 if loudest <= FULL_SCALE else FULL_SCALE / loudest


def names(out: Path, count: int) -> tuple[Path, ...]:
    """`out` itself for one take; for several OUT-1.wav, OUT-2.wav and on."""
    if count == 1:
        return (out,)
    return tuple(out.with_name(f"{out.stem}-{number}{out.suffix}") for number in range(1, count + 1))


def check(
    out: Path,
    count: int,
    sample_rate: int,
    channels: int,
    n_samples: int,
    source: Path | None = None,
    beside: Iterable[Path] = (),
    read: Iterable[Path] = (),
) -> None:
    """Refuse what could only fail after the work.

    Parameters
    ----------
    source, read
        The input, and what else is read: never written over.
    beside
        What else is to be written.

    Raises
    ------
    InputError
        A file to be written is the input or no ordinary file, or its suffix can't hold the sounds.
    ResourceError
        The folder is missing or can't be written to.
    """
    if not out.name:
        raise InputError(f"{out} is a folder. Give the name of a file to write, such as sound.wav.")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise ResourceError(f"The folder {out.parent} does not exist or can't be written to. Choose another.")
    inputs = [path for path in (*([] if source is None else [source]), *read) if path.exists()]
    for path in (*names(out, count), record_of(out), *beside):
        if path.exists() and (not path.is_file() or any(path.samefile(one) for one in inputs)):
            raise InputError(f"{path} is the input itself or no ordinary file. Choose another name.")
    choose(out.suffix, "", SUBTYPE, 24, sample_rate, channels, n_samples)


def record_of(out: Path) -> Path:
    """The record's file."""
    return out.with_name(out.name + ".json")


def write_all(
    out: Path,
    takes: Iterable[Take],
    count: int,
    model: Model,
    settings: BaseModel,
    about: dict[str, Any],
    save: Callable[[Path, Take, Mapping[str, str]], None] | None = None,
) -> Written:
    """Write each take as soon as it is made, by `save` if that is given, then the record of all.

    Each file's tags tell what made it (`tasks.provenance`).

    An older record goes before the first file does. If the making ends early, by an error or an interrupt, the record
    tells of the files made so far; a process that is killed leaves none.

    Raises
    ------
    InputError, ResourceError
        A file can't be written; those before it are whole.
    """
    files: tuple[Path, ...] = ()
    rows: list[dict[str, Any]] = []
    made_by: Provenance | None = None
    try:
        for path, one in zip(names(out, count), takes, strict=True):
            if made_by is None:
                made_by = provenance(model.name, digest(model), settings, about)
                record_of(out).unlink(missing_ok=True)
            told = tags(made_by.line(one.how, item=one.item))
            if save is not None:
                save(path, one, told)
            else:
                write(path, one.audio, one.sample_rate, SUBTYPE, told)
            length = one.audio.shape[1]
            row = {"file": path.name, "item": one.item, "samples": length, "seconds": length / one.sample_rate}
            rows.append(row | {"gain": one.gain} | one.how)
            files = (*files, path)
    finally:
        if rows and made_by:
            _write_record(out, rows, model, made_by.sha256, settings, about)
    return Written(files, record_of(out), sum(row.get("clipped_values", 0) for row in rows), provenance=made_by)


def _write_record(
    out: Path,
    rows: list[dict[str, Any]],
    model: Model,
    sha256: str,
    settings: BaseModel,
    about: dict[str, Any],
) -> None:
    """How the files of `rows` were made."""
    body = {
        "sfumato": __version__,
        "model": {"name": model.name, "system": model.system, "sha256": sha256},
        "settings": settings.model_dump(mode="json"),
        **about,
        "takes": rows,
    }
    write_atomically(record_of(out), (json.dumps(body, indent=2, ensure_ascii=True) + "\n").encode())
