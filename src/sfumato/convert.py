"""Turning a published checkpoint, a pickle, into a model's folder: once, on request, and in a process of its own.

A pickle is a program. This process only ever sees the safetensors that the reader process
(:mod:`sfumato.convert_child`) makes of one, and checks those like any others.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from sfumato.config import override, parse
from sfumato.errors import InputError, ModelError, ResourceError
from sfumato.model import SYSTEMS, Model, fill_network, read_tensors, save

_CHILD = Path(__file__).with_name("convert_child.py")
_ZIP = b"PK\x03\x04"
_MAX_JSON_BYTES = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What reading one checkpoint may cost."""

    seconds: int = 600
    """Processor and wall time."""
    memory_bytes: int = 2 << 30
    """Beyond six times the file, which is mapped, copied and written."""


@dataclass(frozen=True)
class Converted:
    """What became of a checkpoint."""

    model: Model
    part: str
    """Entry of the checkpoint that the weights are from; empty if it was nothing but weights."""
    weights: int
    """How many numbers they are."""


def convert(
    path: Path, out: Path, system: str = "cqtdiff", assignments: Sequence[str] = (), limits: Limits | None = None
) -> Converted:
    """Write the weights of the checkpoint `path`, float32, as the model's folder `out`.

    Parameters
    ----------
    path
        A file that torch.save wrote, in its archive form (torch 1.6 or newer), or safetensors. For systems that are
        published for diffusers (`dance_diffusion`) also a folder as its pipelines write them.
    out
        A folder that doesn't exist yet.
    system
        Name of the system whose published layout it is in.
    assignments
        Dotted ``key=value`` of the system's configuration, over what the file tells.

    Raises
    ------
    InputError
        The file, the folder's name, the system or a setting can't be used.
    ModelError
        The file holds more than plain data, is damaged, or isn't in the system's layout.
    ResourceError
        Disk, memory or permission ran out; nothing is left behind.
    """
    module = _system(system)
    if out.exists():
        raise InputError(f"{out} exists already. Give the name of a folder that doesn't.")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
            tensors_path, folder = Path(scratch) / "weights.safetensors", Path(scratch) / "model"
            weights_path, told = _described(path, module)
            if weights_path.suffix == ".safetensors":
                tensors = {name: value.float() for name, value in read_tensors(weights_path)[0].items()}
                said: dict[str, Any] = {"part": "", "weights": sum(value.numel() for value in tensors.values())}
            else:
                said = _read(weights_path, tensors_path, module.PARTS, limits or Limits())
                tensors, _ = read_tensors(tensors_path)
            values, weights = module.adopt(tensors, told) if told is not None else module.adopt(tensors)
            config = parse(_complete(override(values, assignments)), module.Config, "the configuration")
            network = module.build(config)
            fill_network(network, weights, path)
            network.eval().requires_grad_(False)
            name = re.sub(r"[^A-Za-z0-9._-]+|^[._-]+", "-", out.name).lstrip("-")[:64] or "converted"
            model = Model(name, system, config, network, module.card(config))
            # Published weights stay what they are: float16 would turn phases that are computed from them.
            save(model, folder, torch.float32)
            folder.rename(out)
    except OSError as error:
        raise ResourceError(f"{out} can't be written: {error.strerror}.") from None
    return Converted(model, said["part"], said["weights"])


def _described(path: Path, module: ModuleType) -> tuple[Path, dict[str, Any] | None]:
    """The file of weights that `path` is or, as a pipeline's folder, holds, and what ``config.json`` says in there."""
    if not path.is_dir():
        return path, None
    folder = path / "unet" if (path / "unet").is_dir() else path
    found = [folder / f"diffusion_pytorch_model.{suffix}" for suffix in ("safetensors", "bin")]
    weights = next((file for file in found if file.is_file()), None)
    if weights is None or "told" not in inspect.signature(module.adopt).parameters:
        raise ModelError(f"{path} holds no diffusion_pytorch_model.safetensors of the system {module.NAME}.")
    try:
        with (folder / "config.json").open("rb") as file:
            told = json.loads(file.read(_MAX_JSON_BYTES))
    except OSError as error:
        raise ModelError(f"{folder / 'config.json'} can't be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise ModelError(f"{folder / 'config.json'} is no JSON object of up to {_MAX_JSON_BYTES} bytes.")
    return weights, told


def _system(name: str) -> ModuleType:
    """The module of a system that knows a published layout."""
    if name not in SYSTEMS:
        raise InputError(f"There is no system '{name}'. Possible are: {', '.join(SYSTEMS)}.")
    module = importlib.import_module(SYSTEMS[name])
    if not hasattr(module, "adopt"):
        raise InputError(f"There are no published checkpoints of the system '{name}' to convert.")
    return module


def _complete(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """`values`, refused if a checkpoint left some open (None) that nobody gave."""
    missing = list(_open_ends(values))
    if missing:
        wanted = " ".join(f"--set {name}=…" for name in missing)
        raise InputError(f"The checkpoint doesn't tell {' and '.join(missing)}. Give them: {wanted}")
    return values


def _open_ends(values: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _open_ends(value, f"{before}{key}.")
        elif value is None:
            yield before + key


def _read(path: Path, target: Path, parts: Sequence[str], limits: Limits) -> dict[str, Any]:
    """Run the reader process on `path`; what it says, once `target` is written."""
    source = _open(path)
    try:
        size = os.fstat(source).st_size
        with target.open("wb") as written, tempfile.TemporaryFile() as answer:
            order = {
                "source": source, "target": written.fileno(), "parts": list(parts), "seconds": limits.seconds,
                "memory_bytes": limits.memory_bytes + 6 * size, "max_bytes": 4 * size,
            }  # fmt: skip
            # By path and with -P: nothing here shadows the standard library, and the package isn't imported.
            child = subprocess.run(
                [sys.executable, "-P", str(_CHILD), json.dumps(order)],
                pass_fds=(source, written.fileno()),
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=subprocess.DEVNULL,
                timeout=limits.seconds,
                check=False,
            )
            answer.seek(0)
            text = answer.read(65_536)
    except subprocess.TimeoutExpired:
        raise ModelError(f"{path} can't be converted: reading it takes longer than {limits.seconds} s.") from None
    finally:
        os.close(source)
    if child.returncode != 0 or not text:
        raise ModelError(
            f"{path} can't be converted: its reader ended with {child.returncode}. The file is broken, or this is no "
            "Linux on x86-64 or ARM64, where the reader can be sealed off; folders converted there work everywhere."
        )
    said: dict[str, Any] = json.loads(text)
    if "refused" in said:
        raise ModelError(f"{path} can't be converted: {said['refused']}.")
    return said


def _open(path: Path) -> int:
    """A descriptor of a regular file in torch's archive form; doesn't wait for a pipe."""
    try:
        source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise InputError(f"{path} can't be opened: {error.strerror}.") from None
    if stat.S_ISREG(os.fstat(source).st_mode) and os.pread(source, len(_ZIP), 0) == _ZIP:
        return source
    os.close(source)
    raise ModelError(f"{path} is no checkpoint in torch's archive form (torch.save since version 1.6).")
