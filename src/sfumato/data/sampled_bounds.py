"""Training examples of the bounds model: the inpainter's, and where they are wanted the bounds over a teacher's draws.

Sampling bounds costs many network evaluations per example, so they are made once, an example at a time, and what an
interrupt leaves is gone on with.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import Tensor

from sfumato.data import inpainting
from sfumato.data.examples import DataSettings, Progress
from sfumato.data.manifest import Row, Split
from sfumato.errors import InputError
from sfumato.files import replacing
from sfumato.model import Model, digest, load
from sfumato.signal.gap_levels import SCALE_DB
from sfumato.systems import conffusion, n_conffusion


class Taught:
    """Batches of examples with a teacher's bounds: a pure function of (seed, step)."""

    def __init__(self, bank: inpainting.Bank, bounds: NDArray[np.float16]) -> None:
        self.bank, self.bounds = bank, bounds

    def batch(self, seed: int, step: int, size: int, rank: int, world: int) -> dict[str, Tensor]:
        """As `inpainting.Bank.batch`, of as many examples as have bounds, with "lower" and "upper"."""
        share = size // world
        numbers = [(step * size + rank * share + i) % len(self.bounds) for i in range(share)]
        items = [self.bank.item(number) for number in numbers]
        stacked = {key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0]}
        chosen = self.bounds[numbers].astype(np.float32)
        return stacked | {"lower": torch.from_numpy(chosen[:, :1]), "upper": torch.from_numpy(chosen[:, 1:])}


def examples(
    rows: Sequence[Row],
    root: Path,
    folder: Path,
    split: Split,
    config: BaseModel,
    settings: DataSettings,
    progress: Progress,
) -> inpainting.Bank | Taught:
    """The bank of one split, with a teacher's bounds if the configuration asks for them (see `sfumato.preset`)."""
    bank = inpainting.examples(rows, root, folder, split, config, settings, progress)
    if not isinstance(config, n_conffusion.Config) or config.target == "pinball":
        return bank
    plain = inpainting.Bank(bank.shards, augment=False)
    teacher = load(config.teacher)
    made = hashlib.sha256("".join([digest(teacher), *(shard.name for shard in bank.shards)]).encode()).hexdigest()[:12]
    path = folder / f"bounds-{made}-{config.lower:g}-{config.upper:g}-{config.draws}-{config.steps}-{settings.seed}.npz"
    return Taught(plain, _bounds(plain, teacher, config, settings.seed, path, progress))


def _bounds(
    bank: inpainting.Bank, teacher: Model, config: n_conffusion.Config, seed: int, path: Path, progress: Progress
) -> NDArray[np.float16]:
    """The teacher's bounds on each example's deviations, ``(examples, 2, bands, frames)``, units of 10 dB."""
    if not isinstance(teacher.config, conffusion.Config):
        raise InputError(f"{teacher.name} can't teach bounds: it is of the system {teacher.system}, not conffusion.")
    done = np.load(path)["bounds"] if path.exists() else np.zeros((0, 2, *bank.levels.shape[-2:]), np.float16)
    made, total = list(done), len(bank.levels)
    for index in range(len(made), total):
        view = bank.view(index)
        levels = conffusion.sample_bounds(
            teacher.network,
            teacher.config,
            view,
            (config.lower, config.upper),
            draws=config.draws,
            seed=seed,
            item=index,
            steps=config.steps,
        )
        made.append((np.where(view.touched, levels - view.base_db, 0.0) / SCALE_DB).astype(np.float16))
        progress(index + 1, total, "drawing a teacher's bounds")
        if (index + 1) % 32 == 0 or index + 1 == total:
            with replacing(path) as descriptor, os.fdopen(descriptor, "wb", closefd=False) as file:
                np.savez(file, bounds=np.stack(made))
    return np.stack(made)
