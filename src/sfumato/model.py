"""A model is a folder: `model.safetensors` (float16 weights), `model.yaml` (system, config, card), `README.md`.

What of it needs no torch is in `sfumato.folder`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from sfumato.config import parse, to_yaml
from sfumato.errors import InputError, ModelError, ResourceError
from sfumato.files import sync_folder, write_atomically
from sfumato.folder import (
    FORMAT,
    SYSTEMS,
    Card,
    Header,
    check_weights,
    find,
    read_header,
    shipped,
    shipped_folder,
    size_megabytes,
)

__all__ = [
    "SYSTEMS",
    "Card",
    "Model",
    "digest",
    "fill_network",
    "find",
    "load",
    "read_header",
    "read_tensors",
    "save",
    "shipped",
    "shipped_folder",
    "size_megabytes",
    "write_tensors",
]


@dataclass(frozen=True)
class Model:
    """Everything one folder holds: network, the configuration that built it, and its card."""

    name: str
    system: str
    config: BaseModel
    network: nn.Module
    card: Card


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
    header = Header(
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
    check_weights(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} can't be read: {' '.join(str(error).split())}.") from None


def _readme(header: Header, tensors: Mapping[str, Tensor]) -> str:
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
