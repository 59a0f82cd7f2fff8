"""Generate: sounds that a model makes of noise, and of words where it reads any. Each system has its own way, in a
module with `Settings`, `takes(model, settings, progress)` and `files(model, out, settings, progress)`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sfumato.config import parse
from sfumato.model import Model
from sfumato.tasks.by_system import BySystem, loaded
from sfumato.tasks.takes import Progress, Take, Written

NAME = "generate"

WAYS = BySystem(
    verb="generates",
    modules={
        "dance_diffusion": "sfumato.tasks.draw",
        "rave_prior": "sfumato.tasks.draw",
        "riffusion": "sfumato.tasks.music",
        "make_an_audio": "sfumato.tasks.latent_music",
        "noise2music": "sfumato.tasks.cascade",
        "published_riffusion": "sfumato.tasks.published_riffusion",
    },
    kinds={
        "dance_diffusion": "dance",
        "rave_prior": "dance",
        "riffusion": "riffusion",
        "make_an_audio": "make-an-audio",
        "noise2music": "noise2music",
        "published_riffusion": "published",
    },
    flags={"kind": "--class", "loop": "--loop"},
)
"""Who generates, and how."""


def generate(
    model: str | Path | Model = "dance",
    settings: Mapping[str, Any] | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Iterator[Take]:
    """Sounds, one after another; memory grows with the length of one, not with their number.

    Parameters
    ----------
    model
        Name or folder, or a loaded one.
    settings
        Names and values of the settings of the model's system, such as ``{"kind": "kick", "count": 4}``.
    progress
        Called with steps done, steps in all, and a word.

    Raises
    ------
    InputError
        There is no such model, it generates nothing, or a setting can't be used.
    ModelError
        The model is broken.

    Examples
    --------
    >>> first = next(generate("dance", {"kind": "kick", "seconds": 0.3, "steps": 4, "count": 8}))
    >>> first.audio.shape
    (1, 13230)
    """
    own = loaded(model)
    checked = parse(settings or {}, WAYS.settings_of(own), f"generate with {own.name}")
    made: Iterator[Take] = WAYS.module(own).takes(own, checked, progress)
    return made


def generate_files(
    out: str | Path,
    model: str | Path | Model = "dance",
    settings: Mapping[str, Any] | None = None,
    progress: Progress = lambda done, total, text: None,
) -> Written:
    """The sounds as files, and the record of how they were made; the rest as for `generate`.

    Raises
    ------
    ResourceError
        The disk is full or the folder can't be written; files made before are whole.
    """
    own = loaded(model)
    checked = parse(settings or {}, WAYS.settings_of(own), f"generate with {own.name}")
    written: Written = WAYS.module(own).files(own, Path(out), checked, progress)
    return written
