"""`sfumato repair`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sfumato.cli.command import Debug, usage, with_flags
from sfumato.errors import InputError
from sfumato.screen import as_dict, progress_bar, say, show_outcome

HELP = "Fill the gaps of a recording, found by itself or given, and leave every other sample as it is."


def flagged() -> Callable[..., None]:
    """The command with one flag per field of its settings."""
    from sfumato.tasks.repair import Settings

    return with_flags(repair, Settings.model_fields)


def repair(
    source: Annotated[Path, typer.Argument(metavar="IN", help="damaged recording", show_default=False)],
    destination: Annotated[Path, typer.Argument(metavar="OUT", help="repaired file", show_default=False)],
    *,
    gap: Annotated[
        list[str] | None, typer.Option(help="gap START:STOP in seconds, such as 12.30:12.55; may be repeated")
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(help="region START:STOP:F_LOW:F_HIGH (s, Hz), such as 1.2:1.7:300:2000; may be repeated"),
    ] = None,
    gaps: Annotated[
        Literal["auto"] | None, typer.Option(help="auto finds the damage (default without --gap and --region)")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="folder for a picture and an excerpt per draw")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
    debug: Debug = False,
    settings: Mapping[str, Any],
) -> None:
    """Fill the gaps of a recording."""
    if gaps and (gap or region):
        usage("Give --gap and --region, or --gaps auto, not both.")
    chosen = [_gap(text) for text in gap] if gap else None
    boxes = [_region(text) for text in region or ()]
    from sfumato.config import parse
    from sfumato.tasks.repair import Settings
    from sfumato.tasks.repair_file import repair_file

    checked = parse(settings, Settings, "sfumato repair")
    with progress_bar() as progress:
        outcome = repair_file(source, destination, chosen, checked, report, progress, boxes)
    if as_json:
        say(json.dumps(as_dict(outcome), indent=2))
    else:
        show_outcome(outcome)


def _region(text: str) -> tuple[float, float, float, float]:
    """(start, stop, f_low, f_high) from START:STOP:F_LOW:F_HIGH."""
    from sfumato.tasks.regions import parse

    try:
        return parse(text)
    except InputError as error:
        usage(str(error))


def _gap(text: str) -> tuple[float, float]:
    """(start, stop) in seconds from START:STOP."""
    start, colon, stop = text.partition(":")
    try:
        if colon:
            return float(start), float(stop)
    except ValueError:
        pass
    usage(f"'{text}' is no gap. Write START:STOP in seconds, such as --gap 12.30:12.55.")
