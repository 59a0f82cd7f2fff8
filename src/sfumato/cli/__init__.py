"""The command line, a file each: `sfumato repair | detect | generate | transform | encode | decode | play` and more.

Exit codes: 0 ok · 1 a bug · 2 usage · 3 bad input · 4 disk or memory ran out · 5 part of a batch failed · 129, 130,
143 stopped by a signal.
Nothing heavy is imported before it is known which command is wanted; a command's flags come from its settings class.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Annotated, NoReturn

import typer

from sfumato import __version__
from sfumato.cli import (
    conffusion,
    data,
    decode,
    detect,
    encode,
    finetune,
    generate,
    image,
    models,
    play,
    repair,
    train,
    transform,
)
from sfumato.cli.command import OneLine, guarded
from sfumato.screen import say


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
    """All commands; flags that come from settings only where they are `wanted`, as they cost the import of torch."""
    app = typer.Typer(
        name="sfumato",
        help="Audio diffusion that knows how sure it is: repair, detect, generate, transform, encode, play.",
        add_completion=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    app.command("repair", help=repair.HELP)(guarded(repair.flagged() if wanted == "repair" else _nothing))
    app.command("generate", help=generate.HELP)(guarded(generate.flagged() if wanted == "generate" else _nothing))
    app.command("transform", help=transform.HELP)(guarded(transform.flagged() if wanted == "transform" else _nothing))
    app.command("encode", help=encode.HELP)(guarded(encode.flagged() if wanted == "encode" else _nothing))
    app.command("decode")(guarded(decode.decode))
    app.command("play", help=play.HELP)(guarded(play.flagged() if wanted == "play" else _nothing))
    app.command("detect")(guarded(detect.detect))
    app.command("train")(guarded(train.train))
    app.command("finetune", help=finetune.HELP)(guarded(finetune.flagged() if wanted == "finetune" else _nothing))
    music = typer.Typer(help="Music to train on: list, fetch and build it.", no_args_is_help=True)
    music.command("list")(guarded(data.list_sources))
    music.command("fetch")(guarded(data.fetch))
    music.command("build")(guarded(data.build))
    music.command("render")(guarded(data.render))
    music.command("captions")(guarded(data.captions))
    shipped = typer.Typer(help="Models that come with sfumato, or lie in a folder.", no_args_is_help=True)
    shipped.command("list")(guarded(models.list_shipped))
    shipped.command("show")(guarded(models.show_card))
    shipped.command("convert")(guarded(models.convert))
    shipped.command("latency")(guarded(models.latency))
    shipped.command("export")(guarded(models.export))
    steps = typer.Typer(help="The four steps of Conffusion-Audio, on MAESTRO v3.", no_args_is_help=True)
    steps.command("split")(guarded(conffusion.split))
    steps.command("extract")(guarded(conffusion.extract))
    steps.command("finetune")(guarded(conffusion.finetune))
    steps.command("test")(guarded(conffusion.test))
    pictures = typer.Typer(help="Sounds as pictures and back, as Riffusion draws them.", no_args_is_help=True)
    draws = image.drawn if wanted == "image" else lambda function: _nothing
    pictures.command("audio-to-image", help=image.DRAW)(guarded(draws(image.audio_to_image)))
    pictures.command("image-to-audio")(guarded(image.image_to_audio))
    pictures.command("mask")(guarded(image.mask))
    pictures.command("sample-clips")(guarded(image.sample_clips))
    pictures.command("print-exif")(guarded(image.print_exif))
    pictures.command("audio-to-images-batch", help=image.DRAW_ALL)(guarded(draws(image.audio_to_images_batch)))
    pictures.command("sample-clips-batch")(guarded(image.sample_clips_batch))
    for part in (app, music, shipped, steps, pictures):
        for one in part.registered_commands:
            one.cls = OneLine
    app.add_typer(pictures, name="image")
    app.add_typer(steps, name="conffusion")
    app.add_typer(music, name="data")
    app.add_typer(shipped, name="models")
    return app


def _nothing() -> None:
    """Stand in for a command whose flags aren't needed."""


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


def _terminated(number: int, frame: object) -> NoReturn:
    """Leave on SIGTERM or SIGHUP as on an exit, so that temporary files are removed."""
    raise SystemExit(128 + number)


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report a bug in one line; Python then exits with 1."""
    sys.stderr.write(f"error: unexpected {kind.__name__}: {' '.join(str(error).split())} (--debug shows the trace)\n")
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
