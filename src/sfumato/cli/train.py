"""`sfumato train`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sfumato.cli.command import Debug
from sfumato.screen import progress_bar, say

LISTED = 5
"""Files that are named one by one."""


def train(
    preset: Annotated[str, typer.Argument(help="name of a shipped preset, or a YAML file", show_default=False)],
    data: Annotated[
        Path | None,
        typer.Option(help="folder that `sfumato data build` wrote, or any folder of sounds; default: in the cache"),
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
    with progress_bar() as progress:
        fitted = presets.train(
            plan,
            data or cache_folder() / "built",
            folder,
            command=_recorded(preset, changes),
            progress=progress,
            left_out=_tell,
        )
    say(f"Step {fitted.step}, stopped by {fitted.stopped_by}. Model: {fitted.model}")


def _tell(files: Sequence[tuple[Path, str]]) -> None:
    """Which sounds of a folder are left out, and why: the first few, and how many more."""
    for path, reason in files[:LISTED]:
        sys.stderr.write(f"left out: {path} {reason}\n")
    if len(files) > LISTED:
        sys.stderr.write(f"left out: {len(files) - LISTED} more\n")


def _recorded(preset: str, changes: Sequence[str]) -> str:
    """The command for the model's card. Folders are the word DIR: where they lie says nothing to others."""
    words = ["sfumato", "train", Path(preset).name, "--data", "DIR"]
    for change in changes:
        key, _, value = change.partition("=")
        words += ["--set", f"{key}=DIR" if value.startswith(("/", "~")) else change]
    return shlex.join(words)
