"""A training's whole state as one safetensors file: written atomically, the last two kept, taken up bit-exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn

from sfumato.errors import InputError, ModelError
from sfumato.model import fill_network, read_tensors, write_tensors


@dataclass
class State:
    """What a training carries from step to step."""

    network: nn.Module
    average: nn.Module
    optimizers: dict[str, torch.optim.AdamW]
    """One per turn."""
    sums: dict[str, Tensor]
    """Sums of losses since the last log line."""
    step: int = 0
    seconds: float = 0.0
    """Wall time so far, over all resumptions."""


@dataclass(frozen=True)
class Identity:
    """What must be the same for a checkpoint to be taken up: the system, its configuration, the way of training."""

    system: str
    config: BaseModel
    settings: BaseModel
    may_change: frozenset[str]
    """Settings that don't matter."""


def path_of(folder: Path, step: int) -> Path:
    """File of the checkpoint of `step`."""
    return folder / f"checkpoint-{step:08d}.safetensors"


def newest_last(folder: Path) -> list[Path]:
    """Checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("checkpoint-????????.safetensors"))


def write(folder: Path, state: State, identity: Identity) -> None:
    """Write the checkpoint of the state's step; all but the last two are removed afterwards."""
    tensors = {f"network.{key}": value for key, value in state.network.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in state.average.state_dict().items()}
    tensors |= {f"sums.{key}": value for key, value in state.sums.items()}
    for turn, optimizer in state.optimizers.items():
        for i, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{turn}.{i}.{key}": value for key, value in moments.items()}
    metadata = {
        "step": str(state.step),
        "seconds": f"{state.seconds:.3f}",
        "system": identity.system,
        "config": identity.config.model_dump_json(),
        "settings": identity.settings.model_dump_json(),
    }
    write_tensors(path_of(folder, state.step), tensors, metadata)
    for old in newest_last(folder)[:-2]:
        old.unlink()


def resume(folder: Path, state: State, identity: Identity) -> None:
    """Bring `state` to the newest checkpoint in `folder`; no change if there is none.

    Raises
    ------
    InputError
        The checkpoint is of another system, configuration or way of training.
    ModelError
        The file is broken or no checkpoint.
    """
    found = newest_last(folder)
    if not found:
        return
    path = found[-1]
    tensors, metadata = read_tensors(path)
    try:
        state.step, state.seconds = int(metadata["step"]), float(metadata["seconds"])
        _check_same(folder, metadata, identity)
    except (KeyError, ValueError):
        raise ModelError(f"{path} is no training checkpoint.") from None
    groups: dict[str, dict[str, Tensor]] = {"network": {}, "average": {}, "sums": {}, "optimizer": {}}
    for key, value in tensors.items():
        kind, _, rest = key.partition(".")
        groups.setdefault(kind, {})[rest] = value
    fill_network(state.network, groups["network"], path)
    fill_network(state.average, groups["average"], path)
    device = next(state.network.parameters()).device
    state.sums = {key: value.to(device) for key, value in groups["sums"].items()}
    for turn, optimizer in state.optimizers.items():
        _resume_optimizer(optimizer, f"{turn}.", groups["optimizer"], path)


def _resume_optimizer(optimizer: torch.optim.AdamW, prefix: str, saved: Mapping[str, Tensor], path: Path) -> None:
    """Give `optimizer` its saved moments, laid out in memory like the weights they belong to."""
    weights = [weight for part in optimizer.param_groups for weight in part["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.items():
        if not key.startswith(prefix):
            continue
        number, _, moment = key.removeprefix(prefix).partition(".")
        if not (number.isdecimal() and int(number) < len(weights)):
            raise ModelError(f"{path}: optimizer.{key} belongs to no weight of this network.")
        weight = weights[int(number)]
        if moment != "step":
            if value.shape != weight.shape:
                raise ModelError(f"{path}: optimizer.{key} has shape {tuple(value.shape)}, not its weight's.")
            value = torch.empty_like(weight).copy_(value)
        state.setdefault(int(number), {})[moment] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _check_same(folder: Path, metadata: Mapping[str, str], identity: Identity) -> None:
    """Refuse a checkpoint of another training; KeyError or ValueError if it is none at all."""
    before, now = json.loads(metadata["settings"]), identity.settings.model_dump(mode="json")
    if metadata["system"] != identity.system or not _same_config(metadata["config"], identity.config):
        raise InputError(f"{folder} holds a training of another configuration. Choose another folder.")
    for key, value in now.items():
        if key not in identity.may_change and before.get(key) != value:
            raise InputError(
                f"{folder} holds a training with {key} = {before.get(key)}, now {key} = {value}. "
                "Keep it or choose another folder."
            )


def _same_config(before: str, now: BaseModel) -> bool:
    """Whether a configuration that was written as JSON is this one; keys that weren't there yet had their defaults."""
    try:
        return type(now).model_validate_json(before) == now
    except ValidationError:
        return False
