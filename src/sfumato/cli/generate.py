"""`sfumato generate`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sfumato.cli.command import Debug, typed, with_flags
from sfumato.screen import progress_bar, say

HELP = "Draw new sounds: one-shots, longer ones, or loops that are as long as their bars to the sample."


def flagged() -> Callable[..., None]:
    """The command with one flag per field of its settings."""
    from sfumato.tasks.generate import Settings

    return with_flags(generate, Settings.model_fields, {"kind": "--class", "loop": "--loop"})


def generate(
    destination: Annotated[Path, typer.Argument(metavar="OUT", help="file to write", show_default=False)],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="print the record's path and the files as JSON")] = False,
    debug: Debug = False,
    settings: Mapping[str, Any],
) -> None:
    """Draw new sounds."""
    from sfumato.tasks.generate import Settings, generate_files

    checked = typed(settings, Settings)
    with progress_bar() as progress:
        written = generate_files(destination, checked, progress)
    show(written.files, written.json, as_json)


def show(files: tuple[Path, ...], record: Path, as_json: bool) -> None:
    """Say what was written."""
    if as_json:
        say(json.dumps({"files": [str(path) for path in files], "json": str(record)}, indent=2))
        return
    for path in files:
        say(str(path))
    say(f"record   {record}")
