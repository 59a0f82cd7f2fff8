"""What the command line shows: lines, tables, a progress bar, and the outcome of a repair."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from sfumato.tasks.repair_file import Outcome


WIDE = 100_000
"""Columns of an output that is no terminal."""


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "output": str(outcome.output),
        "json": str(outcome.json),
        "picture": str(outcome.picture) if outcome.picture else None,
        "draws": [str(path) for path in outcome.draws],
        "truncated": outcome.truncated,
        "gaps": outcome.gaps,
        "regions": outcome.regions,
        "skipped": outcome.skipped,
        "seconds": round(outcome.seconds, 3),
    }


def show_outcome(outcome: Outcome) -> None:
    """Print what was found, how each gap was filled, how long it took, and where the files are."""
    if outcome.gaps:
        table = table_of("gap", "at", "length", "kind", "method", "took")
        for number, gap in enumerate(outcome.gaps, start=1):
            length = f"{1e3 * (gap['stop'] - gap['start']):.1f} ms"
            took = f"{gap['seconds']:.2f} s"
            table.add_row(str(number), clock(gap["start"]), length, gap["kind"], gap["method"], took)
        show(table)
    if outcome.regions:
        table = table_of("region", "at", "length", "band", "method", "leak", "took")
        for number, part in enumerate(outcome.regions, start=1):
            length = f"{1e3 * (part['stop'] - part['start']):.1f} ms"
            leak = "none" if part["leak_db"] is None else f"{part['leak_db']:.0f} dB"
            band = f"{part['f_low']:.0f}–{part['f_high']:.0f} Hz"
            cells = (clock(part["start"]), length, band, part["method"], leak, f"{part['seconds']:.2f} s")
            table.add_row(str(number), *cells)
        show(table)
    if not outcome.gaps and not outcome.regions:
        found = "Damage was found that can't be filled" if outcome.skipped else "No damage found"
        say(f"{found}; every sample is kept.")
    if outcome.truncated:
        say("the input ends early: it is shorter than its header says, or broken; what could be read was kept")
    for part in sorted((*outcome.gaps, *outcome.regions, *outcome.skipped), key=lambda part: float(part["start"])):
        for line in _promises(part):
            say(f"at {clock(part['start'])}: {line}")
        if "reason" in part:
            say(f"left alone at {clock(part['start'])} ({part['kind']}): {part['reason']}")
    places = [("repaired", outcome.output), ("record", outcome.json), ("picture", outcome.picture)]
    for name, path in places:
        if path is not None:
            say(f"{name:<9}{path}")
    if outcome.draws:
        say(f"{'draws':<9}{len(outcome.draws)} excerpts in {outcome.draws[0].parent}{_of_few(outcome.gaps)}")
    say(f"{'took':<9}{outcome.seconds:.1f} s")


def _of_few(gaps: Sequence[Mapping[str, Any]]) -> str:
    """A word on methods that make one fill, or few, however many draws are asked for."""
    few = sorted({gap["method"] for gap in gaps if gap["method"] in ("ar mean", "janssen", "aspain")})
    return f" ({', '.join(few)}: nothing is random, so alike fills are written once)" if few else ""


def _promises(part: Mapping[str, Any]) -> Iterator[str]:
    """What is promised of a gap, or why not: the interval and the bound on quality, each on its own."""
    refused = part.get("refused", {})
    if (sure := part.get("interval")) is not None:
        yield f"interval of {sure['domain']}, {sure['level']:.0%} inside ({sure['guarantee']}): {sure['file']}"
    if (bound := part.get("quality")) is not None:
        yield f"quality: {bound['metric']} at most {bound['upper']:.1f} dB, chance {bound['level']:.0%}"
    if refused and len(refused) == 2 and len(set(refused.values())) == 1:
        yield f"no interval and no bound on quality: {refused['interval']}"
    else:
        names = {"interval": "no interval", "quality": "no bound on quality"}
        yield from (f"{names[what]}: {why}" for what, why in refused.items())


def clock(seconds: float) -> str:
    """Minutes and seconds, such as 1:02.345."""
    minutes, rest = divmod(round(1e3 * seconds), 60_000)
    return f"{minutes}:{rest / 1e3:06.3f}"


def table_of(*columns: str) -> Table:
    """An empty table."""
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False, show_header=any(columns))
    return table


def show(table: Table) -> None:
    """Show a table; names of files or makers are never read as markup. In a pipe, rows are as long as they are."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDE
    console = Console(markup=False, highlight=False, width=width)
    with console.capture() as text:
        console.print(table)
    sys.stdout.write("".join(line.rstrip() + "\n" for line in text.get().splitlines()))


def say(text: str) -> None:
    """Print one line."""
    sys.stdout.write(text + "\n")


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int, str], None]]:
    """A bar with time left on a terminal's stderr; elsewhere nothing. Call with (done, total, text)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, text: bar.update(task, completed=done, total=total or None, description=text)
