"""What a training asks of its examples: the settings, and the function each system makes them with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from sfumato.config import Settings
from sfumato.data.manifest import Row, Split
from sfumato.errors import InputError

if TYPE_CHECKING:
    from sfumato.train import Dataset

Progress = Callable[[int, int, str], None]
"""Called with examples made, examples in all, and a word."""


class DataSettings(Settings):
    """Training examples and where they are kept. A system that makes examples as it goes needs only the seed."""

    examples: int = Field(6144, ge=1, description="training examples, made once and read again every epoch")
    validation_examples: int = Field(256, ge=0, description="validation examples; 0 for no validation")
    seed: int = Field(1, ge=0, description="seed of the examples")
    renders: bool = Field(False, description="also train on renders of scores, whose licences are their own")
    unstated: bool = Field(True, description="also train on recordings whose licence is stated nowhere")
    calibration: bool = Field(False, description="also train on the split calibration, where nothing is calibrated")
    patterns: bool = Field(False, description="codecs only: lay short sounds out as patterns instead of cropping")
    processes: int = Field(2, ge=1, description="processes that make the examples")
    bank: str | None = Field(None, description="folder of the examples; default: bank in the output folder")


def share(size: int, rank: int, world: int) -> range:
    """Places in a batch of `size` of the items that process `rank` of `world` takes.

    Raises
    ------
    InputError
        The batch can't be shared evenly.
    """
    if size % world:
        raise InputError(f"A batch of {size} can't be shared by {world} processes. Give a multiple of {world}.")
    return range(rank * size // world, (rank + 1) * size // world)


Builder = Callable[[Sequence[Row], Path, Path, Split, BaseModel, DataSettings, Progress], "Dataset"]
"""``(recordings of one split, folder of their paths, folder for what is made, split, the system's configuration,
settings, progress)`` to a data set for `sfumato.train.fit`."""
