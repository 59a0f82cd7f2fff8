"""Sounds alone, without what is said of them: what networks that read no words are trained on.

They are those of `data.prompted`, crops and mixtures with their levels, but nothing is encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sfumato.data import prompted
from sfumato.data.examples import share
from sfumato.data.manifest import Row, Split

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sfumato.data.examples import DataSettings, Progress
    from sfumato.data.prompted import Prompted


@dataclass(frozen=True)
class Unprompted:
    """Windows of sounds; a data set for `sfumato.train.fit`."""

    sounds: Prompted

    def batch(self, seed: int, step: int, size: int, rank: int, world: int) -> dict[str, Tensor]:
        """Items [rank, rank + 1) * size / world of a step, as {"audio": (items, n_samples)}."""
        items = [self.sounds.item(seed, step * size + i)[0] for i in share(size, rank, world)]
        return {"audio": torch.from_numpy(np.stack(items))}


def examples(
    rows: Sequence[Row],
    root: Path,
    folder: Path,
    split: Split,
    config: BaseModel,
    settings: DataSettings,
    progress: Progress,
) -> Unprompted:
    """The sounds of one split (see `sfumato.preset`).

    Raises
    ------
    InputError
        There is no sound to be heard.
    """
    return Unprompted(prompted.examples(rows, root, folder, split, config, settings, progress))
