"""`sfumato detect`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.command import Debug, typed
from sfumato.screen import clock, progress_bar, say, show, table_of

ALPHA = 0.05


def detect(
    source: Annotated[Path, typer.Argument(metavar="IN", help="recording to look at", show_default=False)],
    alpha: Annotated[
        float, typer.Option(help="share of clean recordings that may get any segment; above 0 and below 1")
    ] = ALPHA,
    model: Annotated[str, typer.Option(help="name or folder of the detector")] = "detect",
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
    debug: Debug = False,
) -> None:
    """Say where a recording seems filled in, with p-values that clean recordings vouch for."""
    from sfumato.tasks.detect import Settings, as_dict
    from sfumato.tasks.detect import detect as look

    settings = typed({"alpha": alpha, "model": model}, Settings)
    with progress_bar() as progress:
        found = look(source, settings=settings, progress=progress)
    if as_json:
        say(json.dumps(as_dict(found), indent=2))
        return
    if found.segments:
        table = table_of("part", "at", "length", "p")
        for number, one in enumerate(found.segments, start=1):
            table.add_row(str(number), clock(one.start), f"{1e3 * (one.stop - one.start):.0f} ms", f"{one.p:.3f}")
        show(table)
    elif found.least_p > alpha + 1e-12:
        least = math.ceil(1e3 * found.least_p - 1e-9) / 1e3
        say(f"Nothing can be listed at alpha {alpha:g} in a recording so long. It takes an alpha of {least:g} or more.")
    else:
        say(f"Nothing seems filled in (alpha {alpha:g}).")
    stretches = "" if found.n_stretches == 1 else f", {found.n_stretches} stretches"
    say(f"the whole: p {found.clip_p:.3f} (the least there can be {found.least_p:.3f}{stretches})")
