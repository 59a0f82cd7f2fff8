"""`sfumato models list | show | convert | latency | export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sfumato.cli.command import AsJson, Debug
from sfumato.screen import say, show, table_of


def list_shipped(as_json: AsJson = False, debug: Debug = False) -> None:
    """Shipped models: rate, size, licence."""
    from sfumato.model import find, read_header, shipped, size_megabytes

    if as_json:
        say(json.dumps([_about(name) for name in shipped()], indent=2))
        return
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


def _about(name: str) -> dict[str, Any]:
    """A shipped model as `--json` prints it; a rate of null serves any."""
    from sfumato.model import find, read_header, size_megabytes

    header, size = read_header(find(name)), size_megabytes(find(name))
    own = {"name": name, "system": header.system, "sample_rate": header.card.sample_rate or None}
    return own | {"megabytes": round(size, 3), "licence": header.card.licence, "summary": header.card.summary}


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
        Path,
        typer.Argument(
            metavar="FILE", help="published checkpoint: a pickle, or a folder of diffusers", show_default=False
        ),
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


def latency(
    model: Annotated[str, typer.Argument(help="name or folder of a codec", show_default=False)],
    block: Annotated[int, typer.Option(min=1, help="samples handed over at a time")] = 2048,
    rate: Annotated[int | None, typer.Option(min=1, help="sample rate it is played at, Hz; default: its own")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the ledger as JSON")] = False,
    debug: Debug = False,
) -> None:
    """What a codec adds between playing and hearing, part by part, and how long computing takes here."""
    import json
    from dataclasses import asdict

    from sfumato.player import load
    from sfumato.tasks.latency import measure

    found = measure(load(model), block, rate)
    if as_json:
        say(json.dumps(asdict(found), indent=2))
        return
    table = table_of("part", "samples", "ms")
    for name in ("block", "queue", "filter_bank", "total", "hop"):
        samples = getattr(found, name)
        table.add_row(name.replace("_", " "), str(samples), f"{found.ms(samples):.2f}")
    show(table)
    say(
        f"computing a block: median {found.compute_median_ms:.2f} ms, worst {found.compute_worst_ms:.2f} ms of "
        f"{found.n_measured} (jitter {found.jitter_ms:.2f} ms), {found.times_real_time:.1f} times real time"
    )


def export(
    model: Annotated[str, typer.Argument(help="name or folder of a codec", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT.ts", help="file to write", show_default=False)],
    debug: Debug = False,
) -> None:
    """Write a codec as TorchScript, for hosts of nn~ in Max and Pure Data."""
    from sfumato.model import load
    from sfumato.tasks.export import export as write

    write(load(model), out)
    say(f"{out}: {out.stat().st_size / 1e6:.1f} MB; methods encode, decode, forward; attribute fidelity")
