"""Excerpts: one of each recording of a part, ten seconds in, with a gap; and the files that `extract` keeps of them.

A file is also a shard of `data.inpainting.Bank`, so that a training reads it as it is.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfumato.data import crops, loaders, manifest
from sfumato.data.manifest import Row
from sfumato.errors import InputError
from sfumato.files import write_atomically
from sfumato.pipeline.seed_config import Arguments, Part, SeedConfig
from sfumato.pipeline.split import LIST
from sfumato.tasks.windows import Clip, Filled, Gap

Array = NDArray[np.float64]

OFFSET_S = 10.0
"""Where an excerpt starts in its recording, as the project cut them."""

QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Recordings:
    """One part's recordings, and where `extract` keeps what it makes of them."""

    part: Part
    rows: tuple[Row, ...]
    root: Path
    arguments: Arguments
    bounds: Path

    @property
    def gap_ms(self) -> float:
        """Length of the gap that the configuration asks for, ms."""
        return self.arguments.mask_config.long.gap_length

    def file(self, row: Row, gap_ms: float) -> Path:
        """The file of one excerpt."""
        return self.bounds / f"{gap_ms:g}" / f"{row.recording.replace('/', '__')}.npz"

    def files(self, gaps_ms: Sequence[float]) -> list[Path]:
        """Those that `extract` has made."""
        return [self.file(row, gap_ms) for gap_ms in gaps_ms for row in self.made(gap_ms)]

    def made(self, gap_ms: float) -> list[Row]:
        """Recordings that `extract` has made an excerpt of; the others are too short, too quiet, or not done yet."""
        return [row for row in self.rows if self.file(row, gap_ms).exists()]

    def place(self, row: Row, gap_ms: float) -> dict[str, str | float]:
        """Which excerpt of which recording a file is of, as `Extracted.made_with` says it."""
        arguments = self.arguments
        return {
            "recording": row.sha256,
            "gap_ms": gap_ms,
            "start_ms": arguments.mask_config.long.start_gap_idx,
            "length_s": arguments.audio_len / arguments.sample_rate,
        }


@dataclass(frozen=True)
class Excerpt:
    """Undamaged mono sound and the gap that is put into it."""

    clean: Clip
    gap: Gap

    @property
    def damaged(self) -> Clip:
        """The same with silence in the gap."""
        audio = self.clean.audio.copy()
        audio[:, self.gap[0] : self.gap[1]] = 0.0
        return Clip(audio, self.clean.sample_rate)


@dataclass(frozen=True)
class Extracted:
    """What is kept of an excerpt; levels in dB of the picture around the gap, ``(bands, frames)``."""

    levels: Array
    """``(3, bands, frames)``: clean, and with the mean and a draw of the AR posterior in the gap."""
    flags: NDArray[np.bool_]
    """``(2, frames)``: frames that are known, and that hold missing samples."""
    sampled_db: Array
    """``(3, bands, frames)``: 5, 50 and 95 % quantiles over draws; ``(0, bands, frames)`` if there were no draws."""
    fill: Array
    """``(1, missing)``: the first draw."""
    source: Array
    """``(2, 1, missing)``: the AR posterior's mean and a draw."""
    made_with: str
    """Model, draws, steps, seed, place and content of the recording."""

    @property
    def filled(self) -> Filled:
        """The fill with its source."""
        return Filled(self.fill[None], self.source)


def locate(config: SeedConfig, part: Part, data: Path | None = None, worker: int | None = None) -> Recordings:
    """A part's recordings: those in its `data_root`, or those that the list of `split` gives it.

    Parameters
    ----------
    config
        `data_root` may be the folder that the project's script moved recordings to, or any path in MAESTRO's folder.
    part
        Which.
    data
        MAESTRO's folder, whatever the configuration says.
    worker
        Which `data_len` of the recordings, from 0; None: all of them, whatever `data_len`.

    Raises
    ------
    InputError
        There is neither, or the part is empty.
    """
    arguments = _arguments(config, part)
    if arguments.mask_config.mask_mode != "long":
        raise InputError(f"mask_mode = {arguments.mask_config.mask_mode} for {part}; possible: long, one gap.")
    moved = Path(arguments.data_root or "nowhere")
    if data is None and moved.is_dir() and not (moved / LIST).exists():
        found = loaders.folder(moved, name=part)
        rows, root = [Row(**(row.model_dump() | {"split": part})) for row in found], moved
        bounds = moved.parent / "sampled_bounds"
    else:
        root = data or _listed(config)
        if not (root / LIST).is_file():
            raise InputError(f"{root} holds no {LIST}. Write it with `sfumato conffusion split {root}`.")
        rows = manifest.select(manifest.read(root / LIST), part)
        bounds = root / "splits" / part / "sampled_bounds"
    if worker is not None and arguments.data_len > 0:
        rows = rows[worker * arguments.data_len :][: arguments.data_len]
    if not rows:
        raise InputError(f"There is no recording for {part} in {root}.")
    if arguments.sampled_bounds_path:
        bounds = Path(arguments.sampled_bounds_path)
    return Recordings(part, tuple(rows), root, arguments, bounds)


def _arguments(config: SeedConfig, part: Part) -> Arguments:
    """What the configuration says of a part; the train part's excerpts are cut as those of calibration."""
    own: Arguments = getattr(config.datasets, "calibration" if part == "train" else part).which_dataset.args
    if part != "train":
        return own

    def beside(path: str) -> str:
        here = [word if word != "calibration" else "train" for word in Path(path).parts]
        return str(Path(*here)) if "train" in here else ""

    changes = {"data_root": beside(own.data_root), "sampled_bounds_path": beside(own.sampled_bounds_path)}
    return own.model_copy(update={**changes, "data_len": -1})


def _listed(config: SeedConfig) -> Path:
    """The folder with the list of `split`, above any part's `data_root`."""
    for dataset in (config.datasets.calibration, config.datasets.validation, config.datasets.test):
        here = Path(dataset.which_dataset.args.data_root or "nowhere")
        for folder in (here, *here.parents):
            if (folder / LIST).is_file():
                return folder
    raise InputError(
        f"No {LIST} lies above a data_root of the configuration. Write one with `sfumato conffusion split FOLDER`, "
        "and give the folder with --data."
    )


def cut(recordings: Recordings, row: Row, gap_ms: float) -> Excerpt | None:
    """The excerpt of a recording, or None if it is too short for one.

    Raises
    ------
    InputError
        The gap reaches out of the excerpt, or the file can't be read.
    """
    arguments, rate = recordings.arguments, row.sample_rate
    n, first = round(arguments.audio_len / arguments.sample_rate * rate), round(OFFSET_S * rate)
    start_ms = arguments.mask_config.long.start_gap_idx
    length = round(gap_ms * rate / 1000)
    start = (n - length) // 2 if start_ms == "none" else round(start_ms * rate / 1000)
    if length < 1 or start < 0 or start + length > n:
        raise InputError(f"A gap of {gap_ms:g} ms at {start / rate:g} s is not inside an excerpt of {n / rate:g} s.")
    if first + n > int(row.seconds * rate):
        return None
    audio = crops.read(recordings.root / row.path, first, first + n, 1).astype(np.float64)
    return Excerpt(Clip(audio, rate), (start, start + length))


def made_alike(recordings: Recordings, gaps_ms: Sequence[float]) -> str:
    """The settings (model, draws, steps, seed, as JSON) that all files of a part have; empty if there are none.

    Raises
    ------
    InputError
        A file is of another recording or place than the configuration says, or two were made otherwise.
    """
    settings: dict[str, Path] = {}
    for gap_ms in gaps_ms:
        for row in recordings.made(gap_ms):
            path, place = recordings.file(row, gap_ms), recordings.place(row, gap_ms)
            found = _made_with(path)
            if wrong := [name for name, value in place.items() if found.pop(name, None) != value]:
                raise InputError(
                    f"{path} is not what the configuration asks for: {', '.join(wrong)} differ. Give the configuration "
                    "it was made with, or make it again elsewhere."
                )
            settings.setdefault(json.dumps(found, sort_keys=True), path)
    if len(settings) > 1:
        (one, first), (other, second), *_ = settings.items()
        raise InputError(f"{first} was made with {one}, {second} with {other}. Make all of a part alike.")
    return next(iter(settings), "")


def _made_with(path: Path) -> dict[str, object]:
    """Everything a file depends on."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(json.loads(str(stored["made_with"])))
    except (OSError, ValueError, KeyError, EOFError, TypeError) as error:
        raise InputError(f"{path} is no file that `sfumato conffusion extract` wrote: {error}. Remove it.") from None


def number(row: Row, seed: int, draw: int = 0) -> int:
    """A recording's own seed, whatever its place in a list."""
    return int.from_bytes(hashlib.sha256(f"{seed} {draw} {row.sha256}".encode()).digest()[:7])


def keep(path: Path, extracted: Extracted) -> None:
    """Write one file, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        levels=extracted.levels[None].astype(np.float32),
        flags=extracted.flags[None].astype(np.int8),
        sampled_db=extracted.sampled_db.astype(np.float32),
        fill=extracted.fill,
        source=extracted.source,
        made_with=np.array(extracted.made_with),
    )
    write_atomically(path, buffer.getvalue())


def kept(path: Path) -> Extracted:
    """What a file holds.

    Raises
    ------
    InputError
        It is missing, or none that `extract` wrote.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Extracted(
                stored["levels"][0].astype(np.float64),
                stored["flags"][0].astype(bool),
                stored["sampled_db"].astype(np.float64),
                stored["fill"],
                stored["source"],
                str(stored["made_with"]),
            )
    except FileNotFoundError:
        raise InputError(f"{path} is missing. Make it with `sfumato conffusion extract`.") from None
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"{path} is no file that `sfumato conffusion extract` wrote: {error}. Remove it.") from None
