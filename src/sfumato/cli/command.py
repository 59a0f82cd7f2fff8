"""What every command shares: its own errors as one line and an exit code, and options that several have."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from sfumato.errors import InputError, ResourceError, SfumatoError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from sfumato.config import SettingsT

Debug = Annotated[bool, typer.Option("--debug", help="show the trace of an error")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Folder = Annotated[Path | None, typer.Option(help="folder; default: the user's cache")]


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """`function`, its own errors as one line on stderr and an exit code; with --debug as a trace."""

    @functools.wraps(function)
    def wrapped(**values: Any) -> None:
        try:
            function(**values)
        except (SfumatoError, MemoryError) as error:
            if values.get("debug"):
                raise
            known = error if isinstance(error, SfumatoError) else ResourceError("Memory ran out.")
            sys.stderr.write(f"error: {' '.join(str(known).split())}\n")
            raise typer.Exit(known.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    wrapped.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {name: p.annotation for name, p in inspect.signature(wrapped).parameters.items()}
    return wrapped


class OneLine(TyperCommand):
    """A command that says of a value of the wrong kind what it was and what it should be, in one line."""

    def make_context(self, *values: Any, **extra: Any) -> Any:
        """Read the command's words, the second of `values`; one of the wrong kind is wrong usage."""
        given = list(values[1])
        try:
            return super().make_context(*values, **extra)
        except typer.BadParameter as error:
            if type(error) is not typer.BadParameter or error.param is None:
                raise  # one that is missing
            reason = error.message.removeprefix("Value error, ").rstrip(".")
            reason = f"{reason[:1].lower()}{reason[1:]}."
            for i, word in reversed(list(enumerate(given))):
                flag, _, value = word.partition("=")
                if flag in error.param.opts:
                    usage(f"{flag} = {value or ' '.join(given[i + 1 : i + 1 + error.param.nargs])}: {reason}")
            usage(f"{' '.join(error.format_message().split()).rstrip('.')}.")


def with_flags(
    function: Callable[..., None], fields: Mapping[str, FieldInfo], names: Mapping[str, str] | None = None
) -> Callable[..., None]:
    """`function(…, settings)` as a command with one flag per field; its `settings` gets them as a dictionary.

    Parameters
    ----------
    function
        Its parameters other than `settings` stay as they are.
    fields
        Fields of a settings class, or of several, by name: annotation, default and description.
    names
        Flags that are called otherwise than their field, such as ``{"kind": "--class"}``.
    """
    fixed = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "settings"]
    flags = []
    for name, field in fields.items():
        words = " ".join(filter(None, (field.description, range_of(field))))
        option = typer.Option((names or {}).get(name, f"--{name.replace('_', '-')}"), help=words)
        kind = Annotated[field.annotation, option]  # type: ignore[name-defined]
        default = inspect.Parameter.empty if field.is_required() else field.default
        flags.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind))

    def command(**values: Any) -> None:
        settings = {name: values.pop(name) for name in fields}
        function(**values, settings=settings)

    command.__signature__ = inspect.Signature(fixed + flags)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in fixed + flags}
    return command


def range_of(field: FieldInfo) -> str:
    """The range of a field in words, such as "(1 to 256)"; empty where there is none."""
    limits = {name: getattr(rule, name) for rule in field.metadata for name in _LIMITS if hasattr(rule, name)}
    if limits.keys() == {"ge", "le"}:
        return f"({limits['ge']:g} to {limits['le']:g})"
    if limits.get("lt", 0) >= 2**53:
        del limits["lt"]
    return f"({' and '.join(f'{_LIMITS[name]} {value:g}' for name, value in limits.items())})" if limits else ""


_LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def typed(values: Mapping[str, Any], cls: type[SettingsT]) -> SettingsT:
    """`values` of flags as checked settings; one out of its range is wrong usage."""
    from sfumato.config import parse

    try:
        return parse(values, cls, "sfumato")
    except InputError as error:
        usage(str(error).removeprefix("sfumato: "))


def was_typed(context: typer.Context, name: str) -> bool:
    """Whether a flag was given, be it with its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def usage(text: str) -> NoReturn:
    """Refuse a command that was typed wrongly."""
    sys.stderr.write(f"error: {text}\n")
    raise typer.Exit(2)
