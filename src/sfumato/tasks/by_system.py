"""Verbs that each system has its own way of: a module a system, with `Settings` and what the verb needs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Optional

from pydantic.fields import FieldInfo

from sfumato.config import Settings
from sfumato.errors import InputError
from sfumato.model import Model, load
from sfumato.tasks.published_checkpoint import is_published, load_published


def loaded(model: str | Path | Model) -> Model:
    """A model by its name or folder, one in diffusers' format included; a loaded one as it is.

    Raises
    ------
    InputError
        There is no such model.
    MissingExtraError
        It is in diffusers' format, and the extra `hub` isn't installed.
    ModelError
        It is broken.
    """
    if isinstance(model, Model):
        return model
    return load_published(model) if is_published(model) else load(model)


@dataclass(frozen=True)
class BySystem:
    """A verb and who says how."""

    verb: str
    """As in "x transforms nothing"."""
    modules: Mapping[str, str]
    """Name of each system -> its module."""
    kinds: Mapping[str, str]
    """What models of a system are called in the flags' help."""
    flags: Mapping[str, str]
    """Flags that are called otherwise than their setting."""

    def module(self, model: Model) -> ModuleType:
        """The module of a model's system.

        Raises
        ------
        InputError
            There is none.
        """
        if model.system not in self.modules:
            kind, known = f"{model.name} is of the system {model.system}", ", ".join(self.modules)
            raise InputError(f"{kind} and {self.verb} nothing. Give a model of: {known}.")
        return importlib.import_module(self.modules[model.system])

    def settings_of(self, model: Model) -> type[Settings]:
        """The class of the settings that a model takes; error as for `module`."""
        settings: type[Settings] = self.module(model).Settings
        return settings

    def fields(self) -> dict[str, FieldInfo]:
        """Settings of all systems by name, each None by default: which a model takes is known once it is loaded.

        Descriptions begin with the kinds of models that take them, such as "(dance)".
        """
        modules = {system: importlib.import_module(name) for system, name in self.modules.items()}
        classes: dict[str, dict[str, FieldInfo]] = {}
        for system, module in modules.items():
            classes.setdefault(self.kinds[system], module.Settings.model_fields)
        every: dict[str, FieldInfo] = {}
        for own in classes.values():
            for name, field in own.items():
                takers = [kind for kind, others in classes.items() if name in others]
                told = f"({', '.join(takers)}) " if len(takers) < len(classes) else ""
                standards = {kind: others[name].default for kind, others in classes.items() if name in others}
                standard = _standard(standards)
                kind: Any = Optional[field.annotation]  # noqa: UP045 (a type at run time)
                info = FieldInfo(annotation=kind, default=None, description=f"{told}{field.description}{standard}")
                info.metadata = field.metadata
                every.setdefault(name, info)
        return every


def _standard(standards: Mapping[str, Any]) -> str:
    """Defaults of one setting by kind, in words: once if they agree."""
    if all(value is None for value in standards.values()):
        return ""
    if len(set(map(str, standards.values()))) == 1:
        return f" [default: {next(iter(standards.values()))}]"
    return f" [default: {', '.join(f'{kind} {value}' for kind, value in standards.items())}]"
