"""`sfumato transform`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sfumato.cli.command import Debug, usage, with_flags
from sfumato.cli.generate import show
from sfumato.errors import InputError
from sfumato.screen import progress_bar

HELP = "Vary a sound, or give it a codec's voice: blends, gaps and ends drawn anew (dance), timbre transfer (rave)."


def flagged() -> Callable[..., None]:
    """The command with one flag per setting of every system that transforms."""
    from sfumato.tasks.transform import FLAGS, fields

    return with_flags(transform, fields(), FLAGS)


def transform(
    source: Annotated[Path, typer.Argument(metavar="IN", help="sound to start from", show_default=False)],
    destination: Annotated[Path, typer.Argument(metavar="OUT", help="file to write", show_default=False)],
    *,
    model: Annotated[str, typer.Option(help="name or folder of the model")] = "dance",
    as_json: Annotated[bool, typer.Option("--json", help="print the record's path and the files as JSON")] = False,
    debug: Debug = False,
    settings: Mapping[str, Any],
) -> None:
    """Make something else of a sound."""
    from sfumato.config import parse
    from sfumato.model import load
    from sfumato.tasks.transform import settings_of
    from sfumato.tasks.transform import transform as run

    loaded = load(model)
    known = settings_of(loaded)
    given = {name: value for name, value in settings.items() if value is not None}
    foreign = [_flag(name) for name in given if name not in known.model_fields]
    if foreign:
        own = ", ".join(sorted(_flag(name) for name in known.model_fields))
        usage(f"{loaded.name} takes no {' or '.join(foreign)}. It takes: {own}.")
    try:
        parse(given, known, "")
    except InputError as error:
        usage(_as_typed(str(error).removeprefix(": "), given, known.model_fields))
    with progress_bar() as progress:
        written = run(source, destination, loaded, given, progress)
    if written.clipped_values:
        what = f"{written.clipped_values} values lay beyond full scale and were clipped"
        sys.stderr.write(f"warning: {what}; a quieter input or gentler settings avoid it\n")
    show(written.files, written.json, as_json)


def _flag(name: str) -> str:
    """The flag of a setting."""
    from sfumato.tasks.transform import FLAGS

    return FLAGS.get(name, f"--{name.replace('_', '-')}")


def _as_typed(text: str, given: Iterable[str], known: Iterable[str]) -> str:
    """A text with settings named as their flags: those that were given, and any whose name is no English word."""
    for name in {*given, *(name for name in known if "_" in name)}:
        text = re.sub(rf"(?<![\w-]){name}\b", _flag(name), text)
    return text
