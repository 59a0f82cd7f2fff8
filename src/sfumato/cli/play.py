"""`sfumato play`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfumato.cli.command import Debug, typed, usage, with_flags
from sfumato.errors import InputError
from sfumato.screen import progress_bar, say, show, table_of

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from sfumato.tasks.play import Played, Started
    from sfumato.tasks.stream import Steering, Streamed

HELP = "Play live: the input through a codec, or music drawn from prompts without end, until Ctrl-C."


def flagged() -> Callable[..., None]:
    """The command with one flag per field of either settings."""
    return with_flags(play, fields())


def fields() -> dict[str, FieldInfo]:
    """Settings of both ways, each None by default; those that one way takes say so."""
    from sfumato.tasks import stream
    from sfumato.tasks.play import Settings

    ways = {"codec": Settings.model_fields, "prompt": stream.Settings.model_fields}
    every: dict[str, FieldInfo] = {}
    for own in ways.values():
        for name, field in own.items():
            if name in ("count", "budget", "pictures"):
                continue
            takers = [way for way, others in ways.items() if name in others]
            told = f"({takers[0]}) " if len(takers) == 1 else ""
            standards = " or ".join(dict.fromkeys(str(ways[way][name].default) for way in takers))
            words = "" if standards == "None" else f" [default: {standards}]"
            kind: Any = field.annotation | None  # type: ignore[operator]
            made = type(field)(annotation=kind, default=None, description=f"{told}{field.description}{words}")
            made.metadata = field.metadata
            every.setdefault(name, made)
    return every


def play(
    *,
    listed: Annotated[bool, typer.Option("--list", help="list devices and stop")] = False,
    out: Annotated[Path | None, typer.Option(help="(prompt) file to draw into, instead of playing")] = None,
    debug: Debug = False,
    settings: Mapping[str, Any],
) -> None:
    """Play live."""
    from sfumato.tasks import stream
    from sfumato.tasks.play import Settings, portaudio, run
    from sfumato.tasks.prompts import notes_on

    given = {name: value for name, value in settings.items() if value not in (None, [])}
    kind = Settings if "prompt" not in given else stream.Settings
    foreign = [f"--{name.replace('_', '-')}" for name in given if name not in kind.model_fields]
    foreign += ["--out"] if out is not None and kind is Settings else []
    if foreign:
        usage(f"{' and '.join(foreign)} {'take a' if kind is Settings else 'take no'} --prompt.")
    if listed:
        show_devices()
        return
    if kind is Settings:
        done = run(typed(given, Settings), started, dropped)
        say(f"played {done.seconds:.1f} s, {done.blocks} blocks, longest {done.worst_ms:.2f} ms; {dropouts(done)}")
        return
    wanted = typed(given, stream.Settings)
    if out is None:
        portaudio()  # what is missing is said before anything is drawn
    for note in notes_on(wanted):
        sys.stderr.write(f"note: {note}\n")
    if out is not None:
        with progress_bar() as progress:
            streamed = stream.to_file(out, wanted, progress)
        say(str(out))
    else:
        say("drawing the first seconds …")
        streamed = stream.to_card(wanted, steered, lambda seen: say(f"{seen} dropouts: try fewer --steps"))
    say(_streamed(streamed))


def _streamed(done: Streamed) -> str:
    """What a stream came to, in words."""
    speed = done.seconds / max(done.drawing_s, 1e-9)
    lost = f", {done.dropouts} dropouts" if done.dropouts else ""
    return f"{done.seconds:.1f} s of sound, drawn {speed:.1f} times as fast as it plays{lost}"


def steered(steering: Steering) -> None:
    """Say how to steer and how to stop; prompts that are typed are where the music goes."""
    if not sys.stdin.isatty():
        say("Playing. Ctrl-C ends it.")
        return
    say("Playing. Type another prompt and Enter to go there; Ctrl-C ends it.")

    def listen() -> None:
        for line in sys.stdin:
            if line.strip():
                try:
                    for note in steering.towards(line.strip()):
                        say(f"note: {note}")
                except InputError as error:
                    say(str(error))

    threading.Thread(target=listen, daemon=True).start()


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
