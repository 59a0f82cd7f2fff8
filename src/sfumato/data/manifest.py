"""Manifests: one row per recording, saying where it is, what it is, under which licence and in which split."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sfumato.errors import InputError, ResourceError
from sfumato.files import write_atomically

Split = Literal["train", "validation", "calibration", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SHARES: dict[Split, float] = {"train": 0.55, "validation": 0.10, "calibration": 0.15, "test": 0.20}


class Row(BaseModel):
    """One recording of a manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(min_length=1, description="Name of the recipe or data set it comes from.")
    recording: str = Field(min_length=1, description="Name of the recording, unique in its source.")
    work: str = Field(min_length=1, description="Piece it is a version of, as source/work; never crosses splits.")
    path: str = Field(min_length=1, description="Audio file, relative to the manifest's folder.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the audio file.")
    seconds: float = Field(gt=0, description="Length in seconds.")
    sample_rate: int = Field(gt=0, description="Sample rate in Hz.")
    channels: int = Field(gt=0, description="Number of channels.")
    licence: str = Field(min_length=1, description="Licence, or 'unknown'.")
    attribution: str = Field(default="", description="Who made it, as the licence asks to be named.")
    labels: dict[str, str] = Field(default_factory=dict, description="What is known about it.")
    split: Split = Field(description="train, validation, calibration or test.")
    rendered: bool = Field(default=False, description="Synthesised from a score rather than recorded.")


def split_of(work: str) -> Split:
    """The split of a piece, from the SHA-256 of its name alone: adding sources never moves another piece.

    Parameters
    ----------
    work
        "source/work".
    """
    u = int(hashlib.sha256(work.encode()).hexdigest()[:16], 16) / 2.0**64
    for split in SPLITS:
        u -= SHARES[split]
        if u < 0:
            return split
    return SPLITS[-1]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from error


def append(path: Path, row: Row) -> None:
    """Add one row to a manifest in a single write, so that a reader never sees half a row."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            file.write((row.model_dump_json() + "\n").encode())
    except OSError as error:
        raise ResourceError(f"{path} can't be written: {error.strerror}.") from error


def write(path: Path, rows: Iterable[Row]) -> None:
    """Replace a manifest as a whole: the old one stays until the new one is complete on disk."""
    text = "".join(row.model_dump_json() + "\n" for row in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{path.parent} can't be made: {error.strerror}.") from error
    write_atomically(path, text.encode())


def read(path: Path) -> list[Row]:
    """Every row of a manifest.

    Raises
    ------
    InputError
        If the file is missing, a row is malformed, a recording occurs twice, or a path leaves the manifest's folder.
    """
    try:
        lines = path.read_bytes().decode().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The manifest {path} can't be read: {error}. Build it with `sfumato data build`.") from error
    rows: list[Row] = []
    seen: set[tuple[str, str]] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = Row.model_validate(json.loads(line))
        except (json.JSONDecodeError, ValidationError) as error:
            reason = str(error).replace("\n", " ")
            raise InputError(f"{path}, line {number} is not a manifest row: {reason}") from error
        if Path(row.path).is_absolute() or ".." in Path(row.path).parts:
            raise InputError(f"{path}, line {number}: {row.path} leaves the manifest's folder. Give a path inside it.")
        if (row.source, row.recording) in seen:
            raise InputError(f"{path}, line {number}: {row.source}/{row.recording} occurs twice.")
        seen.add((row.source, row.recording))
        rows.append(row)
    return rows


def select(rows: Iterable[Row], split: Split, rendered: bool | None = None) -> list[Row]:
    """The rows of one split; `rendered` keeps only synthesised (True) or only recorded (False) ones."""
    return [row for row in rows if row.split == split and rendered in (None, row.rendered)]


def minutes(rows: Sequence[Row]) -> dict[str, dict[Split, tuple[int, float]]]:
    """Per source and split: how many recordings and how many minutes."""
    table: dict[str, dict[Split, tuple[int, float]]] = {}
    for row in rows:
        cells = table.setdefault(row.source, dict.fromkeys(SPLITS, (0, 0.0)))
        count, total = cells[row.split]
        cells[row.split] = (count + 1, total + row.seconds / 60)
    return table
