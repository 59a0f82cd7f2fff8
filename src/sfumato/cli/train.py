"""`sfumato train`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.command import Debug
from sfumato.screen import progress_bar, say


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
