"""`finetune`: the bounds network, taught on the excerpts of one part by the pinball loss or by the sampled bounds.

It starts from the shipped inpainter and answers in one pass; the loop, its checkpoints and its log are those of every
training (`sfumato.train.fit`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sfumato.config import override, parse
from sfumato.data.inpainting import Bank
from sfumato.data.sampled_bounds import Taught
from sfumato.errors import InputError
from sfumato.files import write_atomically
from sfumato.model import Card, load
from sfumato.pipeline.excerpts import Recordings, kept, made_alike
from sfumato.pipeline.seed_config import SeedConfig
from sfumato.signal.gap_levels import SCALE_DB
from sfumato.systems import conffusion, n_conffusion
from sfumato.train import Fitted, TrainSettings, fit

Target = Literal["pinball", "sampled"]

TARGETS: dict[str, Target] = {
    "pinball": "pinball", "sampled": "sampled", "quantile_regression": "pinball", "l2": "sampled"
}  # fmt: skip
"""What a target may be called; the last two are the project's names."""

RECORDINGS = "recordings.json"
"""File in the model's folder, and while it is trained beside it: what it was taught on, name -> SHA-256 and work."""


@dataclass(frozen=True)
class Lesson:
    """What to teach, and from whom the network starts."""

    target: Target
    gaps_ms: tuple[float, ...]
    start_from: str = "conffusion"


def settings_of(config: SeedConfig, start_from: str, seed: int, assignments: Iterable[str]) -> TrainSettings:
    """How to train: the configuration's iterations and rates, and `key=value` over them."""
    train = config.train
    given = {
        "steps": train.n_iter,
        "learning_rate": train.lr,
        "validate_every": train.val_freq,
        "log_every": train.print_freq,
        "seed": seed,
        "start_from": start_from,
    }
    return parse(override(given, assignments), TrainSettings, "--set")


def finetune(
    train: Recordings, validation: Recordings | None, lesson: Lesson, settings: TrainSettings, out: Path, command: str
) -> Fitted:
    """The fine-tuned model, in `out`.

    Parameters
    ----------
    train, validation
        Parts whose excerpts are taught and watched; excerpts that `extract` hasn't made are passed over.
    lesson, settings
        What to teach and how.
    out
        Folder of the training; one that was interrupted goes on.
    command
        What was typed, for the model's card.

    Raises
    ------
    InputError
        The part is one that a promise rests on, it has no excerpts, they have no sampled bounds or were not made
        alike, or `out` has learnt from other recordings.
    """
    if train.part in ("calibration", "test"):
        raise InputError(
            f"The part {train.part} can't be taught: what is promised on it would no longer hold. Possible: train, "
            "validation."
        )
    inpainter = load(lesson.start_from)
    if not isinstance(inpainter.config, conffusion.Config):
        raise InputError(f"{lesson.start_from} can't be started from: it is of the system {inpainter.system}.")
    config = n_conffusion.Config(
        network=inpainter.config.network,
        sigma_data=inpainter.config.sigma_data,
        sigma=inpainter.config.sigma_max,
        target=lesson.target,
    )
    made_alike(train, lesson.gaps_ms)
    taught = train.files(lesson.gaps_ms)
    if not taught:
        raise InputError(
            f"{train.bounds} holds nothing of these gap lengths. Make it with `sfumato conffusion extract -p "
            f"{train.part}`; --draws 0 is enough for the pinball loss."
        )
    apart = validation is not None and validation.part != train.part
    watched = validation.files(lesson.gaps_ms) if apart and validation else []
    if watched and validation:
        made_alike(validation, lesson.gaps_ms)
    banks = _dataset(taught, lesson.target), _dataset(watched, lesson.target, augment=False) if watched else None
    parts = (train, validation) if watched and validation else (train,)
    names = {
        f"{row.source}/{row.recording}": {"sha256": row.sha256, "work": row.work}
        for part in parts
        for gap_ms in lesson.gaps_ms
        for row in part.made(gap_ms)
    }
    if (out / RECORDINGS).exists() and taught_on(out) != names:
        raise InputError(f"{out} was taught on other recordings than these {len(names)}. Choose another folder.")
    out.mkdir(parents=True, exist_ok=True)
    listed = json.dumps(names, indent=2).encode()
    write_atomically(out / RECORDINGS, listed)
    lengths = ", ".join(f"{gap:g}" for gap in lesson.gaps_ms)
    card = Card(
        summary=f"Bounds on the band levels in gaps of {lengths} ms, in one pass; to be calibrated before they promise "
        "anything.",
        data=(f"{train.root.name}, {train.part}: {len(taught)} excerpts",),
        command=command,
    )
    system: Any = n_conffusion
    fitted = fit(system, config, settings, banks[0], out, validation=banks[1], card=card)
    write_atomically(fitted.model / RECORDINGS, listed)
    return fitted


def taught_on(folder: Path) -> dict[str, dict[str, str]]:
    """Recordings that a model of `finetune` has learnt from, name -> SHA-256 and work; none are known of any other.

    Parameters
    ----------
    folder
        Of the model, as `model.find` gives it, or of its training.

    Raises
    ------
    InputError
        The list can't be read.
    """
    beside = folder.parent if folder.name == "model" else folder
    path = next((place / RECORDINGS for place in (folder, beside) if (place / RECORDINGS).is_file()), None)
    if path is None:
        return {}
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): {key: str(of[key]) for key in ("sha256", "work")} for name, of in listed.items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path} can't be read: {error}.") from None


def _dataset(paths: Sequence[Path], target: Target, augment: bool = True) -> Bank | Taught:
    """Batches of excerpts, with their sampled bounds where those are the target."""
    if target == "pinball":
        return Bank(paths, augment)
    bank, bounds = Bank(paths, augment=False), []
    for index, path in enumerate(paths):
        sampled, view = kept(path).sampled_db, bank.view(index)
        if not len(sampled):
            raise InputError(f"{path} has no sampled bounds: it was made with --draws 0. Make it again elsewhere.")
        bounds.append(np.where(view.touched, sampled[[0, 2]] - view.base_db, 0.0) / SCALE_DB)
    return Taught(bank, np.stack(bounds).astype(np.float16))
