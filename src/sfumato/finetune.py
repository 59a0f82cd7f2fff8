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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from sfumato.config import parse
from sfumato.data.few_clips import PRIOR, Clip, FewClips, encoded, read_clips
from sfumato.data.own_sounds import TEMPLATES, own_prompts, own_sounds
from sfumato.diffusion.noise import BatchNoise
from sfumato.errors import InputError, ModelError
from sfumato.lesson import (
    ADAPTER,
    PRIOR_STREAM,
    Finetuned,
    Settings,
    Tuning,
    check_new,
    command_of,
    compared,
    identity_of,
    slug,
    train_settings,
    tuning_of,
)
from sfumato.model import (
    Card,
    Model,
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
from sfumato.train import fit

if TYPE_CHECKING:
    from sfumato.data.examples import Progress

LEARNING_RATE = 1e-3


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
    tuning = tuning_of(base, settings, clips)
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
    train = train_settings(settings, LEARNING_RATE)
    fitted = fit(system, lesson.tuning, train, lesson.dataset, out, card=_card(lesson), name=slug(settings.word))
    lesson.base.network.cpu()
    tuned = load(fitted.model)
    network, size = lesson.base.network, settings.batch_size
    figures = compared(taught, network, tuned.network, lesson.dataset, lesson.tuning, size)
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
        As for `check_new`, or the sentence encoder doesn't know its letters.
    """
    check_new(settings)
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
