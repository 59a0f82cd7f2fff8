"""`sfumato transform`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sfumato.cli.by_system import given
from sfumato.cli.command import Debug, with_flags
from sfumato.cli.generate import show
from sfumato.screen import progress_bar

HELP = (
    "Make something else of a sound: music in the style of a prompt (riffusion), variations, blends, gaps and ends "
    "drawn anew (dance), timbre transfer (rave), "
    "or what a prompt or a picture says (make-an-audio)."
)


def flagged() -> Callable[..., None]:
    """The command with one flag per setting of every system that transforms."""
    from sfumato.tasks.transform import WAYS

    return with_flags(transform, WAYS.fields(), WAYS.flags)


def transform(
    source: Annotated[Path, typer.Argument(metavar="IN", help="sound to start from", show_default=False)],
    destination: Annotated[Path, typer.Argument(metavar="OUT", help="file to write", show_default=False)],
    *,
    model: Annotated[
        str | None, typer.Option(help="name or folder [default: dance; with a prompt riffusion, image make-an-audio]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the record's path and the files as JSON")] = False,
    debug: Debug = False,
    settings: Mapping[str, Any],
) -> None:
    """Make something else of a sound."""
    from sfumato.tasks.by_system import loaded
    from sfumato.tasks.transform import WAYS
    from sfumato.tasks.transform import transform as run

    by_words = "dance" if settings["prompt"] is None else "riffusion"
    own = loaded(model or (by_words if settings["image"] is None else "make-an-audio"))
    typed = given(settings, own, WAYS)
    with progress_bar() as progress:
        written = run(source, destination, own, typed, progress)
    if written.clipped_values:
        what = f"{written.clipped_values} values lay beyond full scale and were clipped"
        sys.stderr.write(f"warning: {what}; a quieter input or gentler settings avoid it\n")
    show(written, as_json)
