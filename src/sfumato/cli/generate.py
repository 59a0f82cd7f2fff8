"""`sfumato generate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfumato.cli.by_system import given
from sfumato.cli.command import Debug, with_flags
from sfumato.screen import progress_bar, say

if TYPE_CHECKING:
    from sfumato.tasks.takes import Written

HELP = "Draw new sounds: music from words, drum hits, textures, and loops as long as their bars to the sample."


def flagged() -> Callable[..., None]:
    """The command with one flag per setting of every system that generates."""
    from sfumato.tasks.generate import WAYS

    return with_flags(generate, WAYS.fields(), WAYS.flags)


def generate(
    destination: Annotated[Path, typer.Argument(metavar="OUT", help="file to write", show_default=False)],
    *,
    model: Annotated[
        str | None, typer.Option(help="name or folder [default: dance; with a prompt riffusion, image make-an-audio]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the record's path and the files as JSON")] = False,
    debug: Debug = False,
    settings: Mapping[str, Any],
) -> None:
    """Draw new sounds."""
    from sfumato.tasks.by_system import loaded
    from sfumato.tasks.generate import WAYS, generate_files

    by_words = "dance" if settings["prompt"] is None else "riffusion"
    own = loaded(model or (by_words if settings["image"] is None else "make-an-audio"))
    typed = given(settings, own, WAYS)
    with progress_bar() as progress:
        written = generate_files(destination, own, typed, progress)
    show(written, as_json)


def show(written: Written, as_json: bool) -> None:
    """Say what was written, and what is to be known about it."""
    for note in written.notes:
        sys.stderr.write(f"note: {note}\n")
    if as_json:
        files = [str(path) for path in written.files]
        say(json.dumps({"files": files, "json": str(written.json)}, indent=2))
        return
    for path in (*written.files, *written.pictures):
        say(str(path))
    say(f"record   {written.json}")
