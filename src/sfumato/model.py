"""A model is a folder: `model.safetensors` (float16 weights), `model.yaml` (system, config, card), `README.md`.

Nothing in a folder is ever executed: weights are safetensors only, checked before the library sees them, and the
configuration names a system out of `SYSTEMS`, a fixed list, never an import path.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from sfumato.config import Settings, parse, read_yaml, to_yaml
from sfumato.errors import InputError, ModelError, ResourceError
from sfumato.files import sync_folder, write_atomically

FORMAT = 1
MAX_HEADER_BYTES = 8 << 20
MAX_TENSORS = 20_000
SYSTEMS = {
    "conffusion": "sfumato.systems.conffusion",
    "cqtdiff": "sfumato.systems.cqtdiff",
    "dance_diffusion": "sfumato.systems.dance_diffusion",
    "fill_detector": "sfumato.systems.fill_detector",
    "n_conffusion": "sfumato.systems.n_conffusion",
    "rave": "sfumato.systems.rave",
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


@dataclass(frozen=True)
class Model:
    """Everything one folder holds: network, the configuration that built it, and its card."""

    name: str
    system: str
    config: BaseModel
    network: nn.Module
    card: Card


class _Header(Settings):
    """The shape of `model.yaml`."""

    format: int = Field(description="version of the folder's layout")
    name: str = Field(description="name of the model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    system: str = Field(description="name of the system that built it")
    config: dict[str, Any] = Field(description="configuration of the system")
    card: Card = Field(description="what a user must know")


def save(model: Model, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write `model` as `folder`, weights as `dtype`, replacing an older one in two renames.

    Raises
    ------
    ModelError
        A weight is not finite as `dtype`.
    ResourceError
        The folder can't be written; an older one stays as it was.
    """
    tensors = {}
    for key, value in model.network.state_dict().items():
        small = value.detach().cpu().to(dtype) if value.is_floating_point() else value.detach().cpu()
        if small.is_floating_point() and not bool(torch.isfinite(small).all()):
            raise ModelError(f"The weight {key} is not finite as {str(dtype)[6:]}. It can't be saved.")
        tensors[key] = small
    header = _Header(
        format=FORMAT,
        name=model.name,
        system=model.system,
        config=model.config.model_dump(mode="json"),
        card=model.card,
    )
    fresh = folder.with_name(f".{folder.name}.tmp")
    old = folder.with_name(f".{folder.name}.old")
    try:
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh.mkdir(parents=True)
        write_tensors(fresh / "model.safetensors", tensors, {"name": model.name})
        write_atomically(fresh / "model.yaml", to_yaml(header.model_dump(mode="json")).encode())
        write_atomically(fresh / "README.md", _readme(header, tensors).encode())
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise ResourceError(f"{folder} can't be written: {error.strerror}.") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)


def load(name_or_folder: str | Path) -> Model:
    """The model of a shipped name (see `shipped`) or of a folder, its network in eval mode, float32, on the CPU.

    Raises
    ------
    InputError
        There is no such model; names the shipped ones.
    ModelError
        The folder is broken, foreign or newer than this version; names the file and the key.
    """
    folder = find(name_or_folder)
    header = read_header(folder)
    module = importlib.import_module(SYSTEMS[header.system])
    try:
        config = parse(header.config, module.Config, f"{folder / 'model.yaml'}: config")
    except InputError as error:
        raise ModelError(str(error)) from None
    network: nn.Module = module.build(config)
    path = folder / "model.safetensors"
    tensors, _ = read_tensors(path)
    fill_network(network, tensors, path)
    return Model(header.name, header.system, config, network.eval().requires_grad_(False), header.card)


def read_header(folder: Path) -> _Header:
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
        header = parse(values, _Header, str(path))
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


def digest(model: Model) -> str:
    """SHA-256 of a model's weights, configuration and figures: everything its results depend on."""
    total = hashlib.sha256()
    for name, value in sorted(model.network.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    rest = {"config": model.config.model_dump(mode="json"), "figures": model.card.figures}
    total.update(json.dumps(rest, sort_keys=True).encode())
    return total.hexdigest()


def fill_network(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy `tensors` into `network`, which changes only if every key, shape and value is right.

    Raises
    ------
    ModelError
        Naming the first missing, extra, wrongly shaped or non-finite key.
    """
    own = network.state_dict()
    for key, value in own.items():
        if key not in tensors:
            raise ModelError(f"{path}: the weight {key} is missing.")
        given = tensors[key]
        if given.shape != value.shape:
            raise ModelError(f"{path}: {key} has shape {tuple(given.shape)}, expected {tuple(value.shape)}.")
        if given.is_floating_point() != value.is_floating_point():
            raise ModelError(f"{path}: {key} has type {given.dtype}, expected {value.dtype}.")
        if given.is_floating_point() and not bool(torch.isfinite(given).all()):
            raise ModelError(f"{path}: {key} holds values that are not finite.")
    extra = sorted(tensors.keys() - own.keys())
    if extra:
        raise ModelError(f"{path}: the weight {extra[0]} is not part of this network.")
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(tensors[key])


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write `tensors` as safetensors: whole or not at all (see `write_atomically`)."""
    plain = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    write_atomically(path, serialise(plain, dict(metadata)))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata of a safetensors file whose header has been checked first.

    Raises
    ------
    ModelError
        The file is missing, a pickle, truncated, or its header lies.
    """
    _check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} can't be read: {' '.join(str(error).split())}.") from None


def _check_header(path: Path) -> None:
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


def _readme(header: _Header, tensors: Mapping[str, Tensor]) -> str:
    """The card as Markdown."""
    card = header.card
    weights = sum(value.numel() for value in tensors.values())
    rate = f"{card.sample_rate} Hz" if card.sample_rate else "unstated"
    lines = [f"# {header.name}", "", card.summary or f"A {header.system} model.", ""]
    lines += [f"- System: {header.system}", f"- Weights: {weights} values", f"- Sample rate: {rate}"]
    lines += [f"- Licence of the weights: {card.licence}"]
    lines += [f"- Training: {card.steps} steps, {card.minutes:.0f} minutes, seed {card.seed}, `{card.command}`"]
    lines += ["", "## Data", "", *[f"- {source}" for source in card.data or ("unstated",)]]
    lines += ["", "## Figures", "", *[f"- {key}: {value:g}" for key, value in card.figures.items()]]
    lines += ["", "## Limits", "", card.limits or "unstated", ""]
    return "\n".join(lines)
