"""`sfumato finetune`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sfumato.cli.command import Debug, typed, usage, with_flags
from sfumato.screen import progress_bar, say

HELP = "Teach a model of music a new word from a few clips; an interrupted training goes on where it stopped."


def flagged() -> Callable[..., None]:
    """The command with one flag per field of its settings."""
    from sfumato.lesson import FLAGS, Settings

    return with_flags(finetune, Settings.model_fields, FLAGS)


def finetune(
    source: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="folder of clips, or an adapter.safetensors to put on", show_default=False),
    ],
    *,
    out: Annotated[Path | None, typer.Option(help="folder of the training; default: runs/WORD")] = None,
    debug: Debug = False,
    settings: Mapping[str, Any],
) -> None:
    """Teach a model a word, or put on what another has learnt."""
    from sfumato import finetune as own
    from sfumato import finetune_published
    from sfumato.lesson import Settings, slug
    from sfumato.tasks.published_checkpoint import is_published

    checked = typed(settings, Settings)
    way: Any = finetune_published if is_published(checked.model) else own
    if source.suffix == ".safetensors":
        if out is None or checked != Settings(model=checked.model):
            usage("an adapter takes --out, the folder of the model that it makes, and --model; nothing else.")
        say(f"Model: {way.put_on(source, checked.model, out)}")
        return
    with progress_bar() as progress:
        lesson = way.prepare(source, checked, out or Path("runs") / slug(checked.word), progress)
    made = way.teach(lesson)
    say(f"Step {made.step}. Model: {made.model}, the change alone: {made.adapter}")
    for label, value in made.figures.items():
        say(f"{label}: {value:g}")
