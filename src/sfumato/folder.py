"""A model's folder as far as it can be read without torch: header, card, weights' file checked, shipped ones found.

Nothing in a folder is ever executed: weights are safetensors only, checked before the library sees them, and the
configuration names a system out of `SYSTEMS`, a fixed list, never an import path.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from pydantic import Field

from sfumato.config import Settings, parse, read_yaml
from sfumato.errors import InputError, ModelError

FORMAT = 1
NAMES = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What a model may be called."""
MAX_HEADER_BYTES = 8 << 20
MAX_TENSORS = 20_000
SYSTEMS = {
    "conffusion": "sfumato.systems.conffusion",
    "cqtdiff": "sfumato.systems.cqtdiff",
    "dance_diffusion": "sfumato.systems.dance_diffusion",
    "fill_detector": "sfumato.systems.fill_detector",
    "make_an_audio": "sfumato.systems.make_an_audio",
    "mel_vae": "sfumato.systems.mel_vae",
    "mel_vocoder": "sfumato.systems.mel_vocoder",
    "n_conffusion": "sfumato.systems.n_conffusion",
    "noise2music": "sfumato.systems.noise2music",
    "rave": "sfumato.systems.rave",
    "rave_prior": "sfumato.systems.rave_prior",
    "riffusion": "sfumato.systems.riffusion",
    "text_audio": "sfumato.systems.text_audio",
    "uasrm": "sfumato.systems.uasrm",
}
"""Name of each system -> its module, imported when a model of it is loaded. Systems lie above this module, so they
are named here and not imported: the one place where the house points up."""

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"\x1f\x8b")


class Card(Settings):
    """What a user must know about a model before trusting it."""

    summary: str = Field("", description="one sentence: what it does")
    licence: str = Field("unstated", description="licence of the weights")
    data: tuple[str, ...] = Field((), description="recordings it was trained on, with their licences")
    command: str = Field("", description="the command that trained it")
    seed: int = Field(0, description="seed of the training")
    steps: int = Field(0, ge=0, description="training steps done")
    minutes: float = Field(0.0, ge=0, description="wall-clock minutes of training")
    sample_rate: int | None = Field(None, gt=0, description="sample rate it works at, Hz")
    figures: dict[str, float] = Field(default_factory=dict, description="measured figures, name with unit -> value")
    limits: str = Field("", description="what it can't do")


class Header(Settings):
    """The shape of `model.yaml`."""

    format: int = Field(description="version of the folder's layout")
    name: str = Field(description="name of the model", pattern=NAMES)
    system: str = Field(description="name of the system that built it")
    config: dict[str, Any] = Field(description="configuration of the system")
    card: Card = Field(description="what a user must know")


def read_header(folder: Path) -> Header:
    """What `model.yaml` in `folder` says, without touching the weights.

    Raises
    ------
    ModelError
        It is missing, broken, of a newer format, or names an unknown system.
    """
    path = folder / "model.yaml"
    if not path.is_file():
        foreign = [file.name for file in sorted(folder.glob("*")) if file.suffix in {".pt", ".pth", ".ckpt", ".bin"}]
        hint = f" {foreign[0]} is a pickle, which is never loaded." if foreign else ""
        raise ModelError(f"{folder} holds no model.yaml.{hint} Give a folder that sfumato train wrote.")
    try:
        values = read_yaml(path)
        found = values.get("format")
        if isinstance(found, int) and found > FORMAT:
            raise ModelError(f"{path}: format = {found}, but this version reads up to {FORMAT}. Update sfumato.")
        header = parse(values, Header, str(path))
    except InputError as error:
        raise ModelError(str(error)) from None
    if header.format != FORMAT:
        raise ModelError(f"{path}: format = {header.format}; possible is {FORMAT}.")
    if header.system not in SYSTEMS:
        raise ModelError(f"{path}: system = {header.system}; possible are: {', '.join(SYSTEMS)}.")
    return header


def shipped() -> list[str]:
    """Names of the models that come with sfumato, sorted."""
    root = shipped_folder("weights")
    return sorted(path.parent.name for path in root.glob("*/model.yaml")) if root else []


def find(name_or_folder: str | Path) -> Path:
    """The folder of a shipped name, of a path, or of the model in a training's folder.

    Raises
    ------
    InputError
        There is no such model; names the shipped ones.
    """
    root = shipped_folder("weights")
    if root is not None and str(name_or_folder) in shipped():
        return root / str(name_or_folder)
    folder = Path(name_or_folder)
    if folder.is_dir():
        trained = folder / "model"  # where a training writes it
        return trained if trained.is_dir() and not (folder / "model.yaml").exists() else folder
    names = ", ".join(shipped()) or "none"
    raise InputError(f"There is no model '{name_or_folder}'. Shipped models: {names}; or give a model's folder.")


def size_megabytes(folder: Path) -> float:
    """Size of a model's weights in MB.

    Raises
    ------
    ModelError
        They are missing.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ModelError(f"{path} is missing.")
    return path.stat().st_size / 1e6


def shipped_folder(kind: str) -> Path | None:
    """The folder "weights" or "presets" beside this file (installed) or at the root of the source tree, or None."""
    here = Path(__file__).resolve().parent
    for folder in (here / kind, here.parent.parent / kind):
        if folder.is_dir():
            return folder
    return None


def check_weights(path: Path) -> None:
    """Refuse what could exhaust memory or mislead the library: sizes, counts, offsets, types."""
    try:
        if not path.is_file():
            raise ModelError(f"{path} is missing.")
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if start.startswith(_PICKLES):
                raise ModelError(f"{path} is a pickle or an archive, which could run code. Only safetensors is read.")
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise ModelError(f"{path} is truncated or no safetensors file (header of {length} bytes).")
            header = json.loads(file.read(length))
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise ModelError(f"{path}: its header is no JSON.") from None
    if not isinstance(header, dict) or len(header) > MAX_TENSORS + 1:
        raise ModelError(f"{path}: its header is no mapping of at most {MAX_TENSORS} tensors.")
    spans = sorted(_span(path, key, entry) for key, entry in header.items() if key != "__metadata__")
    end = 0
    for start_byte, stop_byte, key in spans:
        if start_byte != end:
            raise ModelError(f"{path}: {key} begins at byte {start_byte}, expected {end}.")
        end = stop_byte
    if end != size - 8 - length:
        raise ModelError(f"{path} holds {size - 8 - length} bytes of weights, its header says {end}.")


def _span(path: Path, key: str, entry: object) -> tuple[int, int, str]:
    """First and last byte of one tensor, after checking that its entry is consistent."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(stop)]} if (
            dtype in _BYTES and all(type(n) is int and n >= 0 for n in shape)
        ):
            if stop - start == _BYTES[dtype] * math.prod(shape):
                return start, stop, key
    raise ModelError(f"{path}: the header's entry for {key} is inconsistent.")
