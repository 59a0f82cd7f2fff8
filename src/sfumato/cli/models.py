"""`sfumato models list | show | convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.command import Debug
from sfumato.screen import say, show, table_of


def list_shipped(debug: Debug = False) -> None:
    """Shipped models: rate, size, licence."""
    from sfumato.model import find, read_header, shipped, size_megabytes

    table = table_of("model", "system", "rate", "MB", "licence", "what it does")
    for name in shipped():
        folder = find(name)
        header = read_header(folder)
        rate = f"{header.card.sample_rate} Hz" if header.card.sample_rate else "any"
        table.add_row(
            name, header.system, rate, f"{size_megabytes(folder):.1f}", header.card.licence, header.card.summary
        )
    if table.row_count:
        show(table)
    else:
        say("No model is shipped with this installation.")


def show_card(
    model: Annotated[str, typer.Argument(help="name of a shipped model, or a folder", show_default=False)],
    debug: Debug = False,
) -> None:
    """A model's card: training, data, figures, limits."""
    from sfumato.model import find, read_header, size_megabytes

    folder = find(model)
    header = read_header(folder)
    table = table_of("", "")
    table.add_row("name", header.name)
    table.add_row("system", header.system)
    table.add_row("size", f"{size_megabytes(folder):.1f} MB")
    for name, value in header.card.model_dump().items():
        if name == "figures":
            for figure, number in value.items():
                table.add_row(figure, f"{number:g}")
        elif value not in ("", None):
            table.add_row(name.replace("_", " "), "\n".join(value) if isinstance(value, tuple) else str(value))
    show(table)


def convert(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="FILE", help="published checkpoint: a pickle, or a folder for diffusers", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="model's folder to write", show_default=False)],
    system: Annotated[str, typer.Option(help="system whose published layout it is in")] = "cqtdiff",
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value of the configuration, where the file doesn't tell; may be repeated"),
    ] = None,
    debug: Debug = False,
) -> None:
    """Turn a published checkpoint into a model's folder; it is read as plain data, in a sealed process."""
    from sfumato.convert import convert as turn

    done = turn(checkpoint, out, system, assignments or [])
    say(f"{out}: {done.weights} weights" + (f", the checkpoint's '{done.part}'" if done.part else ""))
