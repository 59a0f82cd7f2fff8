"""The JSON files of Conffusion-Audio: every key it knows, with what it means here, or why it means nothing.

The defaults are those of its files. A key without a meaning is accepted, so that old files can be used as they are, and
reported; a key it doesn't know is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sfumato.config import Settings, parse
from sfumato.errors import InputError

PARTS = ("train", "validation", "calibration", "test")
Part = Literal["train", "validation", "calibration", "test"]

MAX_BYTES = 1 << 20
MAX_GAP_MS = 2000.0

_UNUSED = "not used: "
_COMMENTS = re.compile(r'("(?:\\.|[^"\\\n])*")|//[^\n]*')
_FOLDER = _UNUSED + "a training writes everything into one folder"
_MODEL = _UNUSED + "a model's folder says what it is"
_LOADER = _UNUSED + "excerpts are read one by one"
_REPORT = _UNUSED + "progress goes to log.jsonl, and to TensorBoard with --set tensorboard=true"


class LongGap(Settings):
    """One gap."""

    gap_length: float = Field(250.0, gt=0, le=MAX_GAP_MS, description="length of the gap, ms")
    start_gap_idx: float | Literal["none"] = Field("none", description="where it starts, ms; none: in the middle")


class ShortGaps(Settings):
    """Several gaps, which the project never used."""

    num_gaps: int = Field(4, description=_UNUSED + "an interval is promised for a gap that stands alone")
    gap_length: float = Field(3000.0, description=_UNUSED + "see num_gaps")
    start_gap_idx: float | list[float] | Literal["none"] = Field("none", description=_UNUSED + "see num_gaps")


class Damage(Settings):
    """What is taken out of an excerpt."""

    mask_mode: str = Field("long", description="long: one gap; nothing else is possible")
    long: LongGap = Field(LongGap(), description="the gap")
    short: ShortGaps = Field(ShortGaps(), description="several gaps")


class Arguments(Settings):
    """The recordings of one part."""

    data_root: str = Field("", description="folder of the part's recordings, or any folder in MAESTRO's")
    sampled_bounds_path: str = Field("", description="folder for what `extract` makes, by gap length")
    data_len: int = Field(-1, description="how many recordings a worker of `extract` takes, -1 for all")
    sample_rate: int = Field(22050, gt=0, description="unit of audio_len; recordings keep their own rate")
    audio_len: int = Field(184184, gt=0, description="length of an excerpt in samples of sample_rate")
    load_len: int = Field(405000, description=_UNUSED + "audio_len says how much is read")
    mask_config: Damage = Field(Damage(), description="what is taken out")


class WhichDataset(Settings):
    """Wrapper of the recordings' description."""

    name: str | list[str] = Field("InpaintDataset", description=_UNUSED + "there is one way to read excerpts")
    args: Arguments = Field(Arguments(), description="the recordings")


class Loader(Settings):
    """How batches were made."""

    default_file_name: str = Field("", description=_LOADER)
    validation_split: float = Field(2, description=_UNUSED + "`split` makes the parts")
    args: dict[str, Any] = Field(default_factory=dict, description=_LOADER + "; --set batch_size=… for a training")
    val_args: dict[str, Any] = Field(default_factory=dict, description=_LOADER)


class Dataset(Settings):
    """One part."""

    which_dataset: WhichDataset = Field(WhichDataset(), description="its recordings")
    dataloader: Loader = Field(Loader(), description="how batches were made")


class Datasets(Settings):
    """The parts."""

    train: Dataset = Field(
        Dataset(), description=_UNUSED + "a leftover of another project; MAESTRO's train part, cut as calibration is"
    )
    validation: Dataset = Field(Dataset(), description="watched while fine-tuning")
    calibration: Dataset = Field(Dataset(), description="calibrated on")
    test: Dataset = Field(Dataset(), description="tested on")


class Paths(Settings):
    """Where models are."""

    base_dir: str = Field("experiments", description="folder of the trainings")
    code: str = Field("code", description=_FOLDER)
    tb_logger: str = Field("tb_logger", description=_FOLDER)
    results: str = Field("results", description=_FOLDER)
    checkpoint: str = Field("checkpoint", description=_FOLDER)
    resume_state: str | None = Field(None, description="the model that fills; none: the shipped inpainter")
    bounds_resume_state: str | None = Field(None, description="the fine-tuned model that `test` tries")


class Training(Settings):
    """How to fine-tune."""

    n_iter: int = Field(10_000, ge=1, description="training steps")
    val_freq: int = Field(200, ge=1, description="steps between validations")
    print_freq: int = Field(200, ge=1, description="steps between lines of the log")
    lr: float = Field(1e-4, gt=0, description="highest learning rate")
    finetune_loss: Literal["quantile_regression", "l2"] = Field(
        "quantile_regression", description="quantile_regression: the pinball loss; l2: regress the sampled bounds"
    )
    n_epoch: float = Field(0, description=_UNUSED + "n_iter counts steps")
    val_epoch: float = Field(0, description=_UNUSED + "val_freq counts steps")
    save_checkpoint_epoch: float = Field(0, description=_UNUSED + "checkpoints are written every 500 steps")
    log_iter: float = Field(0, description=_REPORT)
    tensorboard: bool = Field(False, description=_REPORT)
    prediction_time_step: int = Field(155, description=_UNUSED + "the model is told its highest noise level, always")


class SeedConfig(Settings):
    """One of the project's JSON files."""

    name: str = Field("conffusion", min_length=1, description="name of the training's folder in path.base_dir")
    seed: int = Field(-1, description="seed of every random number; below 0: 0")
    path: Paths = Field(Paths(), description="where models are")
    datasets: Datasets = Field(Datasets(), description="recordings")
    train: Training = Field(Training(), description="how to fine-tune")
    gpu_ids: list[int] = Field(default_factory=list, description=_UNUSED + "see --set device=cuda")
    finetune_norm: bool = Field(False, description=_UNUSED + "all weights are fine-tuned")
    model: dict[str, Any] = Field(default_factory=dict, description=_MODEL)
    debug: dict[str, Any] = Field(default_factory=dict, description=_UNUSED + "see --set")
    wandb: dict[str, Any] = Field(default_factory=dict, description=_UNUSED + "nothing is sent anywhere")


def read(path: Path) -> SeedConfig:
    """What a JSON file with ``//`` comments says.

    Raises
    ------
    InputError
        It is missing, no JSON, has a key the project doesn't know, or a value that can't be.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} is larger than {MAX_BYTES} bytes. A configuration is a few hundred lines.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read: {error}. Give one of the project's JSON files.") from None
    try:
        values = json.loads(_COMMENTS.sub(lambda found: found[1] or "", text))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {error}.") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold an object of keys and values.")
    return parse(values, SeedConfig, str(path))


def unused(config: SeedConfig) -> dict[str, str]:
    """Keys that were given and mean nothing here, with the reason; those of several parts as one, with a ``*``."""
    return dict(_unused(config, ""))


def _unused(settings: Settings, before: str) -> Iterator[tuple[str, str]]:
    for name in sorted(settings.model_fields_set):
        value = getattr(settings, name)
        description = type(settings).model_fields[name].description or ""
        if description.startswith(_UNUSED):
            yield f"{before}{name}", description.removeprefix(_UNUSED)
        elif isinstance(value, Settings):
            yield from _unused(value, f"{before}{'*' if isinstance(settings, Datasets) else name}.")
