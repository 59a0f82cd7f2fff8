"""What a fine-tuning is told and comes to, whatever it teaches (`sfumato.finetune`, `sfumato.finetune_published`)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import nn

from sfumato.config import Settings as BaseSettings
from sfumato.data.few_clips import Clip
from sfumato.diffusion.noise import BatchNoise
from sfumato.errors import InputError
from sfumato.model import Card, Model, digest
from sfumato.train import TrainSettings

if TYPE_CHECKING:
    from sfumato.train import Dataset

MOST_WORDS = 3
NO_KIND = "music"
"""What a single word is a kind of."""
FLAGS = {"kind": "--class"}
"""Flags that are called otherwise than their setting."""
ADAPTER = "adapter.safetensors"
PRIOR_STREAM = 1 << 62
"""Added to the seed for the noise of the model's own sounds."""
JUDGE_SEED, JUDGE_STEPS = 1 << 61, 8
"""Seed and number of the batches on which the model is compared with what it was."""


class Settings(BaseSettings):
    """What to teach, and how."""

    word: str = Field("", max_length=80, description="new word for the clips: a rare one, then what they are")
    kind: str = Field("", max_length=80, description="what the clips are; by default the word without its first part")
    model: str = Field("riffusion", description="name or folder of the model that learns the word")
    steps: int = Field(400, ge=1, description="training steps")
    rank: int = Field(8, ge=1, le=256, description="rank of the change of each matrix; a small matrix's is smaller")
    alpha: float | None = Field(None, gt=0, description="scale of the change times the rank; by default the rank")
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="highest learning rate of AdamW; 1e-3 unless given, 1e-4 for checkpoints in diffusers' format",
    )
    batch_size: int = Field(2, ge=1, description="clips per step; as many of the model's own sounds come on top")
    prior: int = Field(32, ge=0, le=10_000, description="sounds that the model draws before; 0 for none")
    prior_steps: int = Field(16, ge=1, le=1000, description="steps of the sampler that draws them")
    prior_weight: float = Field(1.0, ge=0, description="weight of their loss beside that of the clips")
    seed: int = Field(0, ge=0, lt=2**60, description="seed of everything random")
    minutes: float | None = Field(None, ge=0, description="stop training after this wall time, on a checkpoint")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="arithmetic of the network")
    device: Literal["cpu", "cuda"] = Field("cpu", description="where to train")
    licence: str = Field("unstated", description="licence of the clips, for the model's card")

    @field_validator("word", "kind")
    @classmethod
    def _plain(cls, value: str) -> str:
        words = value.split()
        if len(words) > MOST_WORDS:
            raise ValueError(f"it has {len(words)} words. Give one to {MOST_WORDS}, such as 'sks gamelan'")
        if re.search(r"[()\[\]{}<>\\]", value):
            raise ValueError("brackets and backslashes weigh words in prompts. Give plain words")
        return " ".join(words)

    @property
    def kind_of(self) -> str:
        """What the word is a kind of: the prompt of the model's own sounds."""
        return self.kind or " ".join(self.word.split()[1:]) or NO_KIND


class Tuning(BaseSettings):
    """What must be the same for a training to go on."""

    base: str = Field(description="SHA-256 of the untouched model's weights and configuration")
    word: str = Field(description="the word")
    kind: str = Field(description="what it is a kind of")
    rank: int = Field(description="rank of the changes")
    scale: float = Field(description="scale of the changes")
    prior: int = Field(description="sounds of the model's own")
    prior_steps: int = Field(description="steps they were drawn with")
    prior_weight: float = Field(description="weight of their loss")
    clips: tuple[str, ...] = Field(description="SHA-256 of each clip")


@dataclass(frozen=True)
class Finetuned:
    """What a fine-tuning came to."""

    model: Path
    adapter: Path
    step: int
    figures: dict[str, float]
    """Losses on clips and on the model's own sounds, before and after, with the same noise."""


def check_new(settings: Settings) -> None:
    """Refuse a word that says nothing new.

    Raises
    ------
    InputError
        There is none, or it is what it is to be a kind of.
    """
    if not settings.word:
        raise InputError("There is no word. Give one that stands for the clips, such as --word 'sks gamelan'.")
    if settings.word.lower() == settings.kind_of.lower():
        raise InputError(f"'{settings.word}' is a kind of itself. Put a rare word before it: 'sks {settings.word}'.")


def tuning_of(base: Model, settings: Settings, clips: Sequence[Clip]) -> Tuning:
    """What must be the same for a training to go on."""
    return Tuning(
        base=identity_of(base),
        word=settings.word,
        kind=settings.kind_of,
        rank=settings.rank,
        scale=(settings.alpha or settings.rank) / settings.rank,
        prior=settings.prior,
        prior_steps=settings.prior_steps,
        prior_weight=settings.prior_weight,
        clips=tuple(clip.sha256 for clip in clips),
    )


def train_settings(settings: Settings, rate: float) -> TrainSettings:
    """How to train; `rate` is the learning rate where none is given."""
    return TrainSettings(
        seed=settings.seed,
        steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate or rate,
        decay_to=0.1,
        warmup_steps=20,
        weight_decay=0.0,
        ema_decay=0.99,
        precision=settings.precision,
        device=settings.device,
        minutes=settings.minutes,
        log_every=10,
        checkpoint_every=50,
    )


def compared(
    taught: Any, before: nn.Module, after: nn.Module, dataset: Dataset, tuning: Tuning, size: int
) -> dict[str, float]:
    """Losses on the clips and on the model's own sounds, before and after: windows and noise are the same."""
    figures: dict[str, float] = {}
    for when, network in (("before", before), ("after", after)):
        for step in range(JUDGE_STEPS):
            batch = dataset.batch(JUDGE_SEED, step, size, 0, 1)
            with torch.no_grad():
                own = BatchNoise(JUDGE_SEED, step * size, size)
                losses = taught.loss(network, batch, tuning, own, taught.TURNS[0])
            for part in ("clips", "prior"):
                if part in losses:
                    label = f"loss on the {part} {when}"
                    figures[label] = figures.get(label, 0.0) + float(losses[part]) / JUDGE_STEPS
    return {label: float(f"{value:.5g}") for label, value in figures.items()}


def command_of(settings: Settings) -> str:
    """The command for the card. Folders are left out: where they lie says nothing to others."""
    words = ["sfumato", "finetune", "DIR"]
    for name, value in settings.model_dump(exclude_defaults=True).items():
        words += [FLAGS.get(name, f"--{name.replace('_', '-')}"), Path(value).name if name == "model" else f"{value}"]
    return shlex.join(words)


def slug(word: str) -> str:
    """A word as the name of a model or folder."""
    return re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-")[:64] or "finetuned"


def identity_of(base: Model) -> str:
    """SHA-256 of weights and configuration, whatever its card says."""
    return digest(replace(base, card=Card()))
