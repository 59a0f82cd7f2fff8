"""Transform: what a model makes of a given sound. Each system has its own ways, in a module with `Settings` and
`transform(model, source, destination, settings, progress) -> Written`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Optional

from pydantic.fields import FieldInfo

from sfumato.config import Settings, parse
from sfumato.errors import InputError
from sfumato.model import Model, load
from sfumato.tasks.takes import Progress, Written

NAME = "transform"

SYSTEMS = {"dance_diffusion": "sfumato.tasks.vary", "rave": "sfumato.tasks.timbre"}
"""Name of each system that transforms sounds -> the module that says how."""

KINDS = {"dance_diffusion": "dance", "rave": "rave"}
"""What models of a system are called in the flags' help."""

FLAGS = {"kind": "--class", "other": "--with"}
"""Flags that are called otherwise than their setting."""


def transform(
    source: str | Path,
    destination: str | Path,
    model: str | Path | Model = "dance",
    settings: Mapping[str, Any] | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Written:
    """Files of what `model` makes of the sound `source`, and the record of how it was made.

    Parameters
    ----------
    source, destination
        Different files. Several results are numbered: OUT-1.wav, OUT-2.wav and on.
    model
        Name or folder, or a loaded one.
    settings
        Names and values of the settings of the model's system, such as ``{"strength": 0.3, "count": 4}``.
    progress
        Called with steps done, steps in all, and a word.

    Raises
    ------
    InputError
        The sound, the model or a setting can't be used.
    ResourceError
        The disk is full or the folder can't be written; what was written before is whole.
    """
    loaded = model if isinstance(model, Model) else load(model)
    checked = parse(settings or {}, settings_of(loaded), f"transform with {loaded.name}")
    run = _module(loaded.system).transform
    written: Written = run(loaded, Path(source), Path(destination), checked, progress)
    return written


def settings_of(model: Model) -> type[Settings]:
    """The class of the settings that a model takes.

    Raises
    ------
    InputError
        It transforms nothing.
    """
    if model.system not in SYSTEMS:
        kind, known = f"{model.name} is of the system {model.system}", ", ".join(SYSTEMS)
        raise InputError(f"{kind} and transforms nothing. Give a model of: {known}.")
    settings: type[Settings] = _module(model.system).Settings
    return settings


def fields() -> dict[str, FieldInfo]:
    """Settings of all systems by name, each None by default: which of them a model takes is known once it is loaded.

    Descriptions begin with the kinds of models that take them, such as "(dance)".
    """
    classes = {system: _module(system).Settings.model_fields for system in SYSTEMS}
    every: dict[str, FieldInfo] = {}
    for own in classes.values():
        for name, field in own.items():
            takers = ", ".join(KINDS[system] for system, others in classes.items() if name in others)
            standard = "" if field.default is None else f" [default: {field.default}]"
            kind: Any = Optional[field.annotation]  # noqa: UP045 (a type at run time)
            info = FieldInfo(annotation=kind, default=None, description=f"({takers}) {field.description}{standard}")
            info.metadata = field.metadata
            every.setdefault(name, info)
    return every


def _module(system: str) -> ModuleType:
    return importlib.import_module(SYSTEMS[system])
