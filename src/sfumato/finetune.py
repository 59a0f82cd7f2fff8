"""Fine-tuning: a handful of clips and a new word, so that a model of music knows what the word stands for.

DreamBooth [1]_ with low-rank adapters [2]_: the clips are learnt with prompts around the word; beside them the model
goes on learning sounds that it drew itself, before anything changed, for what the word is a kind of (prior
preservation), so that this doesn't become the clips, too. All that is trained is the factors of a small change of its
matrices. What comes out is an ordinary model, with the change in its weights, and the factors alone as a small file.

Where it departs from the published way:

- The sentence encoder is frozen, and the word has no embedding of its own: its pieces tell it from others.
- Every eighth of the model's own sounds is drawn, and learnt, without a prompt: what guidance leads away from is to
  stay, too. No sound is drawn with guidance, so that the model's own stay what it does best, in the sense of its loss.

References
----------
.. [1] N. Ruiz et al., "DreamBooth: fine tuning text-to-image diffusion models for subject-driven generation", arXiv
       2208.12242, eq. 2.
.. [2] E. Hu et al., "LoRA: low-rank adaptation of large language models", arXiv 2106.09685.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from sfumato.config import Settings as BaseSettings
from sfumato.config import parse
from sfumato.data.few_clips import PRIOR, Clip, FewClips, encoded, read_clips
from sfumato.data.own_sounds import TEMPLATES, own_prompts, own_sounds
from sfumato.diffusion.noise import BatchNoise
from sfumato.errors import InputError, ModelError
from sfumato.model import (
    Card,
    Model,
    digest,
    find,
    load,
    read_header,
    read_tensors,
    save,
    shipped,
    write_tensors,
)
from sfumato.networks import lora, text
from sfumato.systems import riffusion
from sfumato.train import TrainSettings, fit

if TYPE_CHECKING:
    from sfumato.data.examples import Progress

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
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate of AdamW")
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
class Lesson:
    """Everything that a training takes."""

    base: Model
    config: riffusion.Config
    """The model's."""
    settings: Settings
    tuning: Tuning
    clips: tuple[Clip, ...]
    dataset: FewClips
    out: Path


@dataclass(frozen=True)
class Finetuned:
    """What a fine-tuning came to."""

    model: Path
    adapter: Path
    step: int
    figures: dict[str, float]
    """Losses on clips and on the model's own sounds, before and after, with the same noise."""


class Taught:
    """Riffusion with adapters, as `sfumato.train.fit` takes a system."""

    NAME = riffusion.NAME
    TURNS = riffusion.TURNS

    def __init__(self, network: nn.Module, config: riffusion.Config) -> None:
        self.network, self.config = network, config
        self.told = config.model_copy(update={"unprompted": 0.0})  # what is wanted is told, or it is nothing
        self.factors: dict[str, Tensor] = {}

    def build(self, config: Tuning) -> nn.Module:
        """The network with adapters that change nothing yet."""
        return lora.adapt(self.network, config.rank, config.scale * config.rank)

    def loss(
        self, network: nn.Module, batch: dict[str, Tensor], config: Tuning, noise: BatchNoise, turn: str
    ) -> dict[str, Tensor]:
        """The loss of the clips and, weighted, that of the model's own sounds [1]_."""
        clips = riffusion.loss(network, batch, self.told, noise, turn)["total"]
        own = {name.removeprefix(PRIOR): value for name, value in batch.items() if name.startswith(PRIOR)}
        if not own:
            return {"total": clips, "clips": clips.detach()}
        apart = replace(noise, seed=noise.seed + PRIOR_STREAM)
        prior = riffusion.loss(network, own, self.told, apart, turn)["total"]
        return {"total": clips + config.prior_weight * prior, "clips": clips.detach(), "prior": prior.detach()}

    def finish(self, network: lora.Adapted, config: Tuning, batches: object) -> tuple[nn.Module, Any]:
        """The network with the change in its weights; the factors, as they are kept, stay behind."""
        self.factors = {name: value.half() for name, value in lora.low_rank_state(network).items()}
        rounded = {name: value.float() for name, value in self.factors.items()}
        return lora.merge(lora.adapt_as(network.network, rounded, config.scale)), self.config


def finetune(
    folder: Path, settings: Settings, out: Path, progress: Progress = lambda done, total, text: None
) -> Finetuned:
    """A model that knows what the word stands for, in `out`; an interrupted training goes on.

    Parameters
    ----------
    folder
        Holds the clips.
    settings
        What to teach, and how.
    out
        Folder of the training: the model is `out/model`, the factors alone `out/adapter.safetensors`.
    progress
        Called with sounds drawn before the training, how many in all, and a word.

    Raises
    ------
    InputError
        There is no word, no such model, or one of another system; the folder holds no clips or ones that can't be
        used; or `out` belongs to another training.
    MissingExtraError
        The extra `text` isn't installed.
    """
    return teach(prepare(folder, settings, out, progress))


def prepare(folder: Path, settings: Settings, out: Path, progress: Progress = lambda done, total, text: None) -> Lesson:
    """The first half of `finetune`: clips are read, and the untouched model draws its own sounds."""
    check_word(settings)
    base, config = start_of(settings.model)
    clips = tuple(read_clips(folder, config.sample_rate))
    tuning = Tuning(
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
    words = encoded([template.format(settings.word) for template in TEMPLATES])
    prompts = own_prompts(settings.kind_of, settings.prior)
    prior = own_sounds(
        base.network, config, tuning.base, prompts, settings.prior_steps, settings.seed, out, progress
    )
    dataset = FewClips(clips, words, prior, encoded(prompts or [""]), config.n_samples)
    return Lesson(base, config, settings, tuning, clips, dataset, out)


def teach(lesson: Lesson) -> Finetuned:
    """The second half of `finetune`: the training, and what it came to."""
    settings, out = lesson.settings, lesson.out
    taught = Taught(lesson.base.network, lesson.config)
    system: Any = taught
    train = TrainSettings(
        seed=settings.seed,
        steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
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
    fitted = fit(system, lesson.tuning, train, lesson.dataset, out, card=_card(lesson), name=slug(settings.word))
    lesson.base.network.cpu()
    tuned = load(fitted.model)
    figures = compared(lesson, tuned.network)
    tuned = replace(tuned, card=tuned.card.model_copy(update={"figures": figures}))
    save(tuned, fitted.model)
    about = {"card": tuned.card.model_dump_json(), "scale": repr(lesson.tuning.scale), "name": tuned.name}
    write_tensors(out / ADAPTER, taught.factors, about | {"base": lesson.base.name, "sha256": lesson.tuning.base})
    return Finetuned(fitted.model, out / ADAPTER, fitted.step, figures)


def put_on(adapter: Path, model: str, out: Path) -> Path:
    """The folder, `out`, of the model that `adapter`, a file of `finetune`, makes of the one it was trained on.

    Raises
    ------
    InputError
        The model is not that one, or `out` is there and no model.
    ModelError
        The file is no adapter, or broken.
    ResourceError
        The folder can't be written.
    """
    if out.exists() and not (out / "model.yaml").is_file():
        raise InputError(f"{out} is there already and no model's folder. Choose another name.")
    factors, about = read_tensors(adapter)
    if not {"card", "scale", "name", "base", "sha256"} <= about.keys():
        raise ModelError(f"{adapter} is no adapter. Give the {ADAPTER} that sfumato finetune wrote.")
    base, _ = start_of(model)
    if identity_of(base) != about["sha256"]:
        raise InputError(f"{adapter} was trained on another model than {model}: on {about['base']}. Give that one.")
    try:
        card = parse(json.loads(about["card"]), Card, str(adapter))
        rounded = {name: value.float() for name, value in factors.items()}
        adapted = lora.adapt_as(base.network, rounded, float(about["scale"]))
    except (ValueError, KeyError, RuntimeError, InputError) as error:
        raise ModelError(f"{adapter} is broken: {' '.join(str(error).split())}.") from None
    save(Model(slug(about["name"]), base.system, base.config, lora.merge(adapted), card), out)
    return out


def check_word(settings: Settings) -> None:
    """Refuse a word that says nothing, or nothing new.

    Raises
    ------
    InputError
        There is none, it is what it is to be a kind of, or the sentence encoder doesn't know its letters.
    """
    if not settings.word:
        raise InputError("There is no word. Give one that stands for the clips, such as --word 'sks gamelan'.")
    if settings.word.lower() == settings.kind_of.lower():
        raise InputError(f"'{settings.word}' is a kind of itself. Put a rare word before it: 'sks {settings.word}'.")
    for words in (settings.word, settings.kind_of):
        if text.load().pieces(words).unknown:
            raise InputError(f"The sentence encoder doesn't know all letters of '{words}'. Give Latin ones.")


def start_of(name: str) -> tuple[Model, riffusion.Config]:
    """A model that can learn a word, and its configuration.

    Raises
    ------
    InputError
        There is none of this name, or it is of another system.
    """
    model = load(name)
    if not isinstance(model.config, riffusion.Config):
        own = [name for name in shipped() if read_header(find(name)).system == riffusion.NAME]
        raise InputError(
            f"{name} is a model of {model.system}, which reads no words. Those of {riffusion.NAME} can learn one: "
            f"{', '.join(own) or 'none is shipped'}, or a folder that sfumato train wrote."
        )
    return model, model.config


def compared(lesson: Lesson, tuned: nn.Module) -> dict[str, float]:
    """Losses on the clips and on the model's own sounds, before and after: windows and noise are the same."""
    figures: dict[str, float] = {}
    taught, size = Taught(lesson.base.network, lesson.config), lesson.settings.batch_size
    for when, network in (("before", lesson.base.network), ("after", tuned)):
        for step in range(JUDGE_STEPS):
            batch = lesson.dataset.batch(JUDGE_SEED, step, size, 0, 1)
            own = BatchNoise(JUDGE_SEED, step * size, size)
            with torch.no_grad():
                losses = taught.loss(network, batch, lesson.tuning, own, riffusion.TURNS[0])
            for part in ("clips", "prior"):
                if part in losses:
                    label = f"loss on the {'clips' if part == 'clips' else 'prior'} {when}"
                    figures[label] = figures.get(label, 0.0) + float(losses[part]) / JUDGE_STEPS
    return {label: float(f"{value:.5g}") for label, value in figures.items()}


def _card(lesson: Lesson) -> Card:
    """What can be said before the training; steps and minutes come after."""
    base, settings, clips = lesson.base, lesson.settings, lesson.clips
    licence = base.card.licence
    if settings.licence == "unstated":
        licence = f"{licence}, as far as {base.name} goes; that of the clips is unstated"
    elif settings.licence != licence:
        licence = f"{licence}, as far as {base.name} goes; clips: {settings.licence}"
    inherited = base.card.data or ("data unstated",)
    about = [f"'{settings.word}': {clip.name}, SHA-256 {clip.sha256} ({settings.licence})" for clip in clips]
    if len(lesson.dataset.prior):
        about.append(f"{len(lesson.dataset.prior)} sounds that {base.name} drew for '{settings.kind_of}'")
    return Card(
        summary=f"{base.name}, fine-tuned on {len(clips)} clips that '{settings.word}' stands for.",
        licence=licence,
        data=(*about, *(f"started from {base.name}: {line}" for line in inherited)),
        command=command_of(settings),
        sample_rate=lesson.config.sample_rate,
        limits=f"Learnt from {len(clips)} clips, which it may repeat. {base.card.limits}".strip(),
    )


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
