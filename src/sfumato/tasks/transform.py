"""Transform: what a model makes of a given sound. Each system has its own ways, in a module with `Settings` and
`transform(model, source, destination, settings, progress) -> Written`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfumato.config import parse
from sfumato.model import Model
from sfumato.tasks.by_system import BySystem, loaded
from sfumato.tasks.takes import Progress, Written

NAME = "transform"

WAYS = BySystem(
    verb="transforms",
    modules={
        "dance_diffusion": "sfumato.tasks.vary",
        "rave": "sfumato.tasks.timbre",
        "riffusion": "sfumato.tasks.restyle",
        "make_an_audio": "sfumato.tasks.latent_change",
        "published_riffusion": "sfumato.tasks.published_riffusion",
    },
    kinds={
        "dance_diffusion": "dance",
        "rave": "rave",
        "riffusion": "riffusion",
        "make_an_audio": "make-an-audio",
        "published_riffusion": "published",
    },
    flags={"kind": "--class", "other": "--with"},
)
"""Who transforms, and how."""

def transform(
    source: str | Path,
    destination: str | Path,
    model: str | Path | Model = "dance",
    settings: Mapping[str, Any] | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Written:
    """Files of what `model` makes of the sound `source`, and the record of how it was made.

    Parameters
    ----------
    source, destination
        Different files. Several results are numbered: OUT-1.wav, OUT-2.wav and on.
    model
        Name or folder, or a loaded one.
    settings
        Names and values of the settings of the model's system, such as ``{"strength": 0.3, "count": 4}``.
    progress
        Called with steps done, steps in all, and a word.

    Raises
    ------
    InputError
        The sound, the model or a setting can't be used.
    ResourceError
        The disk is full or the folder can't be written; what was written before is whole.
    """
    own = loaded(model)
    checked = parse(settings or {}, WAYS.settings_of(own), f"transform with {own.name}")
    written: Written = WAYS.module(own).transform(
        own, Path(source), Path(destination), checked, progress
    )
    return written
