"""Flags of verbs that each system has its own settings for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sfumato.cli.command import usage
from sfumato.errors import InputError

if TYPE_CHECKING:
    from sfumato.model import Model
    from sfumato.tasks.by_system import BySystem


def given(settings: Mapping[str, Any], model: Model, ways: BySystem) -> dict[str, Any]:
    """Settings that were typed, once a model takes them all; anything else is wrong usage, said in flags."""
    from sfumato.config import parse

    known = ways.settings_of(model)
    typed = {name: value for name, value in settings.items() if value is not None}
    foreign = [_flag(name, ways) for name in typed if name not in known.model_fields]
    if foreign:
        own = ", ".join(sorted(_flag(name, ways) for name in known.model_fields))
        usage(f"{model.name} takes no {' or '.join(foreign)}. It takes: {own}.")
    try:
        parse(typed, known, "")
    except InputError as error:
        usage(_as_typed(str(error).removeprefix(": "), typed, known.model_fields, ways))
    return typed


def _flag(name: str, ways: BySystem) -> str:
    """The flag of a setting."""
    return ways.flags.get(name, f"--{name.replace('_', '-')}")


def _as_typed(text: str, typed: Iterable[str], known: Iterable[str], ways: BySystem) -> str:
    """A text with settings named as their flags: those that were typed, and any whose name is no English word."""
    for name in {*typed, *(name for name in known if "_" in name)}:
        text = re.sub(rf"(?<![\w-]){name}\b", _flag(name, ways), text)
    return text
