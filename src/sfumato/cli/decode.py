"""`sfumato decode`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.command import Debug
from sfumato.screen import progress_bar, say


def decode(
    source: Annotated[Path, typer.Argument(metavar="IN.sfz", help="encoded file", show_default=False)],
    destination: Annotated[Path, typer.Argument(metavar="OUT", help="recording to write", show_default=False)],
    model: Annotated[str | None, typer.Option(help="the codec's folder, where it is none of the shipped ones")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="draw the dimensions that were left out; else they are at their mean")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the record as JSON")] = False,
    debug: Debug = False,
) -> None:
    """Decode a file that sfumato encode wrote, at its own rate, channels and length."""
    from sfumato.tasks.codec import decode as run
    from sfumato.tasks.coded import as_dict

    with progress_bar() as progress:
        done = run(source, destination, model=model, seed=seed, progress=progress)
    if as_json:
        say(json.dumps(as_dict(done), indent=2))
        return
    say(f"{done.output}: {done.duration_s:.2f} s at {done.sample_rate} Hz, took {done.took_s:.1f} s")
