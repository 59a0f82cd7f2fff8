"""`sfumato play`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfumato.cli.command import Debug, typed, with_flags
from sfumato.screen import say, show, table_of

if TYPE_CHECKING:
    from sfumato.tasks.play import Played, Started

HELP = "Play live: sound from the input through a codec to the output, until Ctrl-C."


def flagged() -> Callable[..., None]:
    """The command with one flag per field of its settings."""
    from sfumato.tasks.play import Settings

    return with_flags(play, Settings.model_fields)


def play(
    *,
    listed: Annotated[bool, typer.Option("--list", help="list devices and stop")] = False,
    debug: Debug = False,
    settings: Mapping[str, Any],
) -> None:
    """Play live."""
    from sfumato.tasks.play import Settings, run

    checked = typed(settings, Settings)
    if listed:
        show_devices()
        return
    done = run(checked, started, dropped)
    say(f"played {done.seconds:.1f} s, {done.blocks} blocks, longest {done.worst_ms:.2f} ms; {dropouts(done)}")


def show_devices() -> None:
    """Every device, one a line."""
    from sfumato.tasks.play import devices

    table = table_of("number", "device", "system", "in", "out", "Hz", "default")
    for one in devices():
        ports = (str(one.inputs), str(one.outputs), f"{one.sample_rate:g}")
        table.add_row(str(one.number), one.name, one.system, *ports, one.default)
    if table.row_count:
        show(table)
    else:
        say("PortAudio finds no device.")


def started(now: Started) -> None:
    """The ledger, and how to stop."""
    ledger = now.ledger
    table = table_of("part", "samples", "ms")
    for name in ("block", "queue", "filter_bank", "total"):
        samples = getattr(ledger, name)
        table.add_row(name.replace("_", " "), str(samples), f"{ledger.ms(samples):.2f}")
    for name, milliseconds in zip(("card's input", "card's output"), now.card_ms, strict=True):
        table.add_row(name, "", f"{milliseconds:.2f}")
    show(table)
    say(
        f"{ledger.model} at {ledger.sample_rate} Hz, channels in {now.inputs}, out {now.outputs}; computing a block "
        f"takes {ledger.compute_median_ms:.2f} ms, at worst {ledger.compute_worst_ms:.2f} ms. Ctrl-C ends it."
    )


def dropped(so_far: Played) -> None:
    """That there were dropouts."""
    say(f"after {so_far.seconds:.1f} s: {dropouts(so_far)}")


def dropouts(played: Played) -> str:
    """Dropouts in words."""
    if not played.late and not played.xruns:
        return "no dropouts"
    return f"dropouts: {played.late} blocks computed too late, {played.xruns} reported by the sound card"
