"""`sfumato encode`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sfumato.cli.command import Debug, typed, with_flags
from sfumato.screen import progress_bar, say

HELP = "Encode a recording as a small file of a codec's latents."


def flagged() -> Callable[..., None]:
    """The command with one flag per field of its settings."""
    from sfumato.tasks.codec import Settings

    return with_flags(encode, Settings.model_fields)


def encode(
    source: Annotated[Path, typer.Argument(metavar="IN", help="recording", show_default=False)],
    destination: Annotated[Path, typer.Argument(metavar="OUT.sfz", help="file to write", show_default=False)],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="print the record as JSON")] = False,
    debug: Debug = False,
    settings: Mapping[str, Any],
) -> None:
    """Encode a recording."""
    from sfumato.tasks.codec import Settings
    from sfumato.tasks.codec import encode as run
    from sfumato.tasks.coded import as_dict

    checked = typed(settings, Settings)
    with progress_bar() as progress:
        done = run(source, destination, settings=checked, progress=progress)
    if as_json:
        say(json.dumps(as_dict(done), indent=2))
        return
    of = "codebooks" if done.fidelity is None else f"dimensions (fidelity {done.fidelity:.3f})"
    say(f"{done.output}: {done.bytes} bytes, {done.kbit_s:.2f} kbit/s, {done.dims} {of}, took {done.took_s:.1f} s")
