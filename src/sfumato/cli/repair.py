"""`sfumato repair`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from sfumato.cli.command import Debug, typed, usage, was_typed, with_flags
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
    context: typer.Context,
    gap: Annotated[
        list[str] | None, typer.Option(help="gap START:STOP, such as 12.30:12.55 or 0:12.300:0:12.550; may be repeated")
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
    if settings["level"] is None and (idle := [name for name in ("domain", "guarantee") if was_typed(context, name)]):
        usage(f"Without --level nothing is promised, so --{idle[0]} has no effect. Add --level 0.9, or leave it out.")
    chosen = [_gap(text) for text in gap] if gap else None
    boxes = [_region(text) for text in region or ()]
    from sfumato.tasks.repair import Settings
    from sfumato.tasks.repair_file import repair_file

    checked = typed(settings, Settings)
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
    """(start, stop) in seconds from START:STOP, each in seconds or in minutes and seconds as the tables print them."""
    words = text.split(":")
    read = [(_seconds(words[:at]), _seconds(words[at:])) for at in range(1, len(words))]
    found = [(start, stop) for start, stop in read if start is not None and stop is not None]
    ahead = [pair for pair in found if pair[0] < pair[1]]
    if len(found) == 1 or len(ahead) == 1:
        return (ahead or found)[0]
    if len(ahead) > 1:
        usage(f"'{text}' can be read in two ways. Write both ends in seconds, or both as minutes:seconds.")
    usage(f"'{text}' is no gap. Write START:STOP in seconds, such as --gap 12.30:12.55, or 0:12.300:0:12.550.")


def _seconds(words: Sequence[str]) -> float | None:
    """Seconds from one word, or from minutes and a word below 60; None where that is no time."""
    try:
        if len(words) == 1:
            return float(words[0])
        minutes, rest = words
        return 60.0 * int(minutes) + float(rest) if minutes.isdecimal() and 0 <= float(rest) < 60 else None
    except ValueError:
        return None
