"""Settings: frozen, described, and read from YAML or `key=value` with errors that say what is possible.

Every default, range and meaning stands once, in a `Settings` class. Preset files, command-line flags and the
JSON schema come from it.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from sfumato.errors import InputError
from sfumato.files import write_atomically

MAX_YAML_BYTES = 1 << 20


class Settings(BaseModel):
    """Base of every settings class: frozen, refuses unknown keys, and each field must carry a description."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Refuse a subclass with a field nobody explained."""
        bare = [name for name, field in cls.model_fields.items() if not field.description]
        if bare:
            raise TypeError(f"{cls.__name__} has fields without a description: {', '.join(bare)}.")


SettingsT = TypeVar("SettingsT", bound=BaseModel)


class _StrictLoader(yaml.SafeLoader):
    """Plain data only: no tags, no aliases (they can expand without end), no key given twice."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases; everything else as usual."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key given twice; everything else as usual."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError("a key must be a plain word")
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping a YAML file holds.

    Raises
    ------
    InputError
        The file is missing, larger than 1 MiB, not UTF-8, not YAML, or no mapping of names to values.
    """
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise InputError(f"{path} is larger than {MAX_YAML_BYTES} bytes. A settings file is a few lines.")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist. Give the path of a YAML file.") from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text.") from None
    try:
        values = yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{path} must hold a mapping of names to values.")
    return values


def parse(values: Mapping[str, Any], cls: type[SettingsT], where: str) -> SettingsT:
    """`values` as checked settings of type `cls`.

    Parameters
    ----------
    values : the raw names and values.
    cls : the settings class.
    where : how to name the source in an error, such as a file name or "--set".

    Raises
    ------
    InputError
        Naming the first wrong key, the value given, and what is possible.
    """
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(f"{where}: {_explain(error, cls)}") from None


def load_yaml(path: Path, cls: type[SettingsT]) -> SettingsT:
    """The settings of type `cls` a YAML file holds; raises InputError as `read_yaml` and `parse` do."""
    return parse(read_yaml(path), cls, str(path))


class _Dumper(yaml.SafeDumper):
    """Escapes the separators of lines that a reader would take for another one."""


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    style = '"' if {"\x85", "\u2028", "\u2029"} & set(value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(values: Mapping[str, Any]) -> str:
    """`values` as YAML text, keys in the order given."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def dump_yaml(settings: BaseModel, path: Path) -> None:
    """Write every setting, defaults included, to `path` as YAML; atomic."""
    write_atomically(path, to_yaml(settings.model_dump(mode="json")).encode())


def override(values: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """`values` with dotted `key=value` assignments laid over them; values are read as YAML.

    Raises
    ------
    InputError
        An assignment without "=", with an empty key, or into something that is no mapping.
    """
    result = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        *parents, last = dotted.strip().split(".")
        if not equals or not last or not all(parents):
            raise InputError(f"'{assignment}' is no setting. Write key=value, such as train.steps=1000.")
        place: Any = result
        for parent in parents:
            child = place.get(parent, {})
            if not isinstance(child, Mapping):
                raise InputError(f"'{assignment}': {parent} is a single value, not a group of settings.")
            place[parent] = dict(child)
            place = place[parent]
        try:
            place[last] = yaml.load(text, Loader=_StrictLoader)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise InputError(f"'{assignment}': '{text}' can't be read as a value.") from None
    return result


def _explain(error: ValidationError, cls: type[BaseModel]) -> str:
    """The first fault of a validation as one sentence for the user."""
    first = error.errors(include_url=False)[0]
    place, fault = first["loc"], first["msg"].removeprefix("Value error, ")
    dotted = ".".join(str(part) for part in place)
    if first["type"] == "extra_forbidden":
        fields = _fields_at(cls, place[:-1])
        near = difflib.get_close_matches(str(place[-1]), fields, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        return f"unknown setting '{dotted}'.{hint} Possible here: {', '.join(sorted(fields))}."
    if first["type"] == "missing":
        return f"the setting '{dotted}' is missing."
    if not place and first["type"] == "value_error":  # of settings that don't go together; its text says which
        return f"{fault}."
    given = str(first["input"])
    given = given if len(given) <= 60 else given[:57] + "..."
    return f"{dotted or cls.__name__} = {given}: {fault[0].lower() + fault[1:]}."


def _fields_at(cls: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the settings group at `place` inside `cls`."""
    for part in place:
        field = cls.model_fields.get(str(part))
        kind = field.annotation if field is not None else None
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return []
        cls = kind
    return list(cls.model_fields)
