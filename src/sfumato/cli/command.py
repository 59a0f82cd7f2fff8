"""What every command shares: its own errors as one line and an exit code, and options that several have."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from sfumato.errors import ResourceError, SfumatoError

Debug = Annotated[bool, typer.Option("--debug", help="show the trace of an error")]
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


def usage(text: str) -> NoReturn:
    """Refuse a command that was typed wrongly."""
    sys.stderr.write(f"error: {text}\n")
    raise typer.Exit(2)
