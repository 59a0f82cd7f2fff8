"""A preset is one YAML file that says everything about a model to be trained: system, configuration, training, data.

system: conffusion
summary: Fills gaps from 20 ms to 1 s in music.
licence: CC-BY-SA-4.0
config: {sigma_data: 0.8}
train: {steps: 20000, batch_size: 16}
data: {examples: 6144}
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from sfumato.config import Settings, override, parse, read_yaml
from sfumato.data import (
    captioned,
    codec,
    fill_traces,
    inpainting,
    latents,
    loaders,
    manifest,
    mel_latents,
    oneshots,
    prompted,
    sampled_bounds,
    spectrograms,
    unprompted,
)
from sfumato.data.examples import Builder, DataSettings, Progress
from sfumato.data.manifest import Row, Split
from sfumato.errors import InputError
from sfumato.model import SYSTEMS, Card, shipped_folder
from sfumato.train import Fitted, TrainSettings, fit

EXAMPLES: dict[str, Builder] = {
    "conffusion": inpainting.examples,
    "dance_diffusion": oneshots.examples,
    "fill_detector": fill_traces.examples,
    "make_an_audio": mel_latents.examples,
    "mel_vae": unprompted.examples,
    "mel_vocoder": unprompted.examples,
    "n_conffusion": sampled_bounds.examples,
    "noise2music": prompted.examples,
    "rave": codec.examples,
    "rave_prior": latents.examples,
    "riffusion": prompted.examples,
    "text_audio": captioned.examples,
    "uasrm": spectrograms.examples,
}
"""Name of each system -> the function that makes its training examples."""


class Preset(Settings):
    """Everything about a model to be trained."""

    system: str = Field(description="name of the system")
    summary: str = Field("", description="one sentence: what the model does")
    licence: str = Field("unstated", description="licence of the weights")
    limits: str = Field("", description="what the model can't do")
    config: dict[str, Any] = Field(default_factory=dict, description="configuration of the system")
    train: TrainSettings = Field(TrainSettings(), description="how to train")
    data: DataSettings = Field(DataSettings(), description="what to train on")


@dataclass(frozen=True)
class Plan:
    """A preset that has been found and checked."""

    name: str
    preset: Preset
    config: BaseModel
    """Configuration of the preset's system."""


def names() -> list[str]:
    """Names of the shipped presets, sorted."""
    root = shipped_folder("presets")
    return sorted(path.stem for path in root.glob("*.yaml")) if root else []


def load(name_or_path: str, assignments: Iterable[str] = ()) -> Plan:
    """A shipped preset by name, or any by path, with dotted `key=value` assignments laid over it.

    Raises
    ------
    InputError
        There is no such preset, or a key or value in it is wrong; says what is possible.
    """
    root = shipped_folder("presets")
    path = Path(name_or_path)
    if root is not None and name_or_path in names():
        path = root / f"{name_or_path}.yaml"
    elif not path.is_file():
        known = ", ".join(names()) or "none"
        raise InputError(f"There is no preset '{name_or_path}'. Shipped presets: {known}; or give a YAML file.")
    preset = parse(override(read_yaml(path), assignments), Preset, str(path))
    if preset.system not in EXAMPLES:
        raise InputError(f"{path}: system = {preset.system}; possible are: {', '.join(EXAMPLES)}.")
    config: BaseModel = parse(preset.config, _system(preset).Config, f"{path}: config")
    return Plan(path.stem, preset, config)


def train(
    plan: Plan,
    data: Path,
    out: Path,
    *,
    command: str = "",
    progress: Progress = lambda done, total, text: None,
    left_out: Callable[[Sequence[tuple[Path, str]]], None] = lambda files: None,
) -> Fitted:
    """The model of a preset, trained on the recordings of `data` and written to `out` (see `sfumato.train.fit`).

    Parameters
    ----------
    plan
        From `load`.
    data
        Folder with `manifest.jsonl`, as `sfumato data build` writes it, whose splits train and validation are used; or
        any folder of sounds (see `recordings`).
    out
        Folder of the training; one that was interrupted goes on where it stopped.
    command
        What was typed, for the model's card.
    progress
        Called with examples made, examples in all, and a word.
    left_out
        Called once, where a plain folder holds sounds that can't be used, with their paths and the reasons.
    """
    faulty: list[tuple[Path, str]] = []
    rows = recordings(data, faulty)
    if faulty:
        left_out(faulty)
    preset = plan.preset
    rendered = None if preset.data.renders else False
    used = manifest.select(rows, "train", rendered)
    if preset.data.calibration:
        used += manifest.select(rows, "calibration", rendered)
    if not preset.data.unstated:
        used = [row for row in used if "unstated" not in row.licence]
    if not used:
        raise InputError(
            f"{data} holds no recording to train on: of its {_counted(rows)}, none that the preset takes has the split "
            "train. At least one work must be in train, and another in validation for the model to be tried on. "
            'Name splits in manifest.jsonl ("split": "train"; docs/data.md shows how), or take renders too '
            "(--set data.renders=true), or those of unstated licence (--set data.unstated=true)."
        )
    folder = Path(preset.data.bank) if preset.data.bank else out / "bank"
    build = EXAMPLES[preset.system]
    examples = build(used, data, folder / "train", "train", plan.config, preset.data, progress)
    validation = None
    held_out = manifest.select(rows, "validation", rendered)
    if preset.data.validation_examples and held_out:
        validation = build(held_out, data, folder / "validation", "validation", plan.config, preset.data, progress)
    card = Card(
        summary=preset.summary,
        licence=preset.licence,
        limits=preset.limits,
        command=command,
        data=_attributions(used),
    )
    system = _system(preset)
    return fit(system, plan.config, preset.train, examples, out, validation=validation, card=card, name=plan.name)


def _counted(rows: Sequence[Row]) -> str:
    """How many recordings of how many works there are in each split, in words."""
    splits = [(split, [row.work for row in rows if row.split == split]) for split in manifest.SPLITS]
    each = ", ".join(f"{split} {len(works)} of {len(set(works))}" for split, works in splits if works) or "none"
    return f"{len(rows)} recordings of {len({row.work for row in rows})} works ({each})"


def recordings(data: Path, left_out: list[tuple[Path, str]] | None = None) -> list[Row]:
    """The rows of a folder's manifest; without one, every sound below it: about one in ten validates, the others train.

    With `left_out`, sounds of a plain folder that can't be used are left out and listed there (see `loaders.folder`).

    Raises
    ------
    InputError
        The manifest is broken, or the folder holds no sound that can be read.
    """
    path = data / "manifest.jsonl"
    if path.exists() or not data.is_dir():
        return manifest.read(path)
    rows = loaders.folder(data, data.resolve().name or "sounds", left_out=left_out)
    return [row.model_copy(update={"split": _SPLITS.get(row.split, row.split)}) for row in rows]


_SPLITS: dict[Split, Split] = {"validation": "validation", "calibration": "train", "test": "train"}
"""A plain folder is there to be learnt from: nothing of it is put aside for tests."""


def _attributions(rows: Sequence[Row]) -> tuple[str, ...]:
    """One line per source: who made it, how many recordings, under which licences."""
    lines = []
    for source in sorted({row.source for row in rows}):
        own = [row for row in rows if row.source == source]
        makers = "; ".join(sorted({row.attribution for row in own if row.attribution})) or "unknown"
        licences = ", ".join(sorted({row.licence for row in own}))
        lines.append(f"{source}: {len(own)} recordings, {makers} ({licences})")
    return tuple(lines)


def _system(preset: Preset) -> Any:
    """The module of a preset's system."""
    return importlib.import_module(SYSTEMS[preset.system])
