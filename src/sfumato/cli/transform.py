"""`sfumato transform`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sfumato.cli.command import Debug, typed, with_flags
from sfumato.cli.generate import show
from sfumato.screen import progress_bar

HELP = "Make something else of a sound: variations, sounds between two, a gap drawn anew, more after its end."


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
    from sfumato.model import load
    from sfumato.tasks.transform import settings_of
    from sfumato.tasks.transform import transform as run

    loaded = load(model)
    known = settings_of(loaded)
    given = {name: value for name, value in settings.items() if value is not None}
    typed({name: value for name, value in given.items() if name in known.model_fields}, known)
    with progress_bar() as progress:
        written = run(source, destination, loaded, given, progress)
    if written.clipped_values:
        what = f"{written.clipped_values} values lay beyond full scale and were clipped"
        sys.stderr.write(f"warning: {what}; a quieter input or gentler settings avoid it\n")
    show(written.files, written.json, as_json)
