"""Fine-tuning of published checkpoints in diffusers' format: the same lesson, taught to their U-Net.

As in `sfumato.finetune`, but clips are pictures of spectrograms, brought to latents once by the checkpoint's own
autoencoder; what learns is the U-Net's linear layers and convolutions [1]_ [2]_, and the words are read by the
checkpoint's frozen text encoder. What comes out is a folder in diffusers' format, which anything that reads such
folders takes, and the factors alone.

References
----------
.. [1] N. Ruiz et al., "DreamBooth", arXiv 2208.12242, eq. 2.
.. [2] E. Hu et al., "LoRA: low-rank adaptation of large language models", arXiv 2106.09685.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from sfumato.data.examples import share
from sfumato.data.few_clips import PRIOR, Clip, read_clips
from sfumato.data.own_sounds import FILE, TEMPLATES, kept, own_prompts
from sfumato.diffusion import precondition
from sfumato.diffusion.noise import BatchNoise, chooser
from sfumato.errors import InputError, ModelError, ResourceError
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
    train_settings,
    tuning_of,
)
from sfumato.model import read_tensors, write_tensors
from sfumato.networks import lora
from sfumato.signal.spectrogram_image import Parameters
from sfumato.tasks import images, published_pictures
from sfumato.tasks.published_checkpoint import NETWORKS, SYSTEM, PublishedRiffusion, load_published, window_denoiser
from sfumato.train import fit

if TYPE_CHECKING:
    from jaxtyping import Float

    from sfumato.data.examples import Progress

LEARNING_RATE = 1e-4
RECORD = "finetune.json"
PARTS = (*NETWORKS, "tokenizer", "scheduler", "feature_extractor")
"""Folders of a checkpoint that are taken over, where they are there."""


@dataclass(frozen=True)
class FewPictures:
    """Pairs of windows of clips' latents and of the checkpoint's own; a data set for `sfumato.train.fit`."""

    clips: Sequence[Float[Tensor, "c h w"]]
    """A window's columns or more."""
    words: Float[Tensor, "k n s"]
    """States of prompts around the word, any of which is said of any clip."""
    prior: Float[Tensor, "m c h w"]
    """Windows that the untouched checkpoint drew; none for no prior."""
    prior_words: Float[Tensor, "m n s"]
    """What each was drawn for."""
    width: int
    """Columns of a window."""

    def batch(self, seed: int, step: int, size: int, rank: int, world: int) -> dict[str, Tensor]:
        """Pairs [rank, rank + 1) * size / world of a step: "latents" and "states", and the same after "prior."."""
        windows, said, recalled = [], [], []
        for i in share(size, rank, world):
            choose = chooser(seed=seed, item=step * size + i)
            clip = self.clips[int(choose.integers(len(self.clips)))]
            first = int(choose.integers(clip.shape[-1] - self.width + 1))
            windows.append(clip[..., first : first + self.width])
            said.append(int(choose.integers(len(self.words))))
            recalled.append(int(choose.integers(max(1, len(self.prior)))))
        batch = {"latents": torch.stack(windows), "states": self.words[said]}
        if len(self.prior):
            batch |= {f"{PRIOR}latents": self.prior[recalled], f"{PRIOR}states": self.prior_words[recalled]}
        return batch


class Taught:
    """A published U-Net with adapters, as `sfumato.train.fit` takes a system."""

    NAME = SYSTEM
    TURNS = ("denoise",)

    def __init__(self, published: PublishedRiffusion) -> None:
        self.unet, self.schedule = published.part("unet"), published.schedule
        self.factors: dict[str, Tensor] = {}

    def build(self, config: Tuning) -> nn.Module:
        """The network with adapters that change nothing yet."""
        return lora.adapt(self.unet, config.rank, config.scale * config.rank)

    def loss(
        self, network: nn.Module, batch: dict[str, Tensor], config: Tuning, noise: BatchNoise, turn: str
    ) -> dict[str, Tensor]:
        """The network's own squared error on the clips and, weighted, on what the checkpoint drew [1]_."""
        clips = self._error(network, batch["latents"], batch["states"], noise)
        if f"{PRIOR}latents" not in batch:
            return {"total": clips, "clips": clips.detach()}
        apart = replace(noise, seed=noise.seed + PRIOR_STREAM)
        prior = self._error(network, batch[f"{PRIOR}latents"], batch[f"{PRIOR}states"], apart)
        return {"total": clips + config.prior_weight * prior, "clips": clips.detach(), "prior": prior.detach()}

    def _error(self, network: nn.Module, clean: Tensor, states: Tensor, noise: BatchNoise) -> Tensor:
        """Its mean over trained levels, all of which weigh the same."""
        trained = self.schedule.trained().to(clean)
        sigma = trained[(noise.stratified(0) * len(trained)).long().clamp(max=len(trained) - 1)]
        noisy = clean + precondition.spread(sigma, clean) * noise(1, clean.shape[1:])
        squared = (window_denoiser(network, self.schedule, states)(noisy, sigma) - clean).square().mean(dim=(1, 2, 3))
        epsilon = self.schedule.prediction_type == "epsilon"
        weight = sigma**-2 if epsilon else precondition.edm_weight(sigma, 1.0)
        return (weight * squared).mean()

    def finish(self, network: lora.Adapted, config: Tuning, batches: object) -> tuple[nn.Module, Tuning]:
        """The factors, as they are kept."""
        self.factors = {name: value.half() for name, value in lora.low_rank_state(network).items()}
        return network, config


@dataclass(frozen=True)
class Lesson:
    """Everything that a training takes."""

    base: PublishedRiffusion
    settings: Settings
    tuning: Tuning
    clips: tuple[Clip, ...]
    dataset: FewPictures
    out: Path


def prepare(folder: Path, settings: Settings, out: Path, progress: Progress = lambda done, total, text: None) -> Lesson:
    """Clips become latents, and the untouched checkpoint draws its own; errors as for `sfumato.finetune.finetune`."""
    check_new(settings)
    base = load_published(settings.model)
    pictures = published_pictures.parameters_of(base, published_pictures.Settings())
    clips = tuple(read_clips(folder, pictures.sample_rate))
    tuning = tuning_of(base, settings, clips)
    prompts = own_prompts(settings.kind_of, settings.prior)
    said = base.text([*(template.format(settings.word) for template in TEMPLATES), *prompts])
    words, prior_words = torch.cat(said[: len(TEMPLATES)]), torch.cat([*said[len(TEMPLATES) :], said[0][:0]])
    latents = [_latents(base, clip, pictures) for clip in clips]
    prior = _own(base, tuning, prompts, settings, out, progress)
    return Lesson(base, settings, tuning, clips, FewPictures(latents, words, prior, prior_words, base.shape[2]), out)


def _latents(base: PublishedRiffusion, clip: Clip, pictures: Parameters) -> Float[Tensor, "c h w"]:
    """A clip's latents; a shorter one lies in the middle of a window of silence."""
    window = base.shape[2] * base.factor * pictures.hop_length
    missing = max(0, window - len(clip.audio))
    audio = np.pad(clip.audio, (missing // 2, missing - missing // 2)).astype(np.float64)
    return published_pictures.latents_of(base, images.draw(audio[None], pictures.sample_rate, pictures))[0]


def _own(
    base: PublishedRiffusion, tuning: Tuning, prompts: Sequence[str], settings: Settings, out: Path, progress: Progress
) -> Float[Tensor, "m c h w"]:
    """Latents that the untouched checkpoint draws without guidance, kept in the folder `out`."""
    what = json.dumps({"model": tuning.base, "prompts": prompts, "steps": tuning.prior_steps, "seed": settings.seed})
    before = kept(out, what)
    if before is not None:
        return before["latents"]
    width, drawn = base.shape[2], [torch.zeros(0, *base.shape)]
    for i, prompt in enumerate(prompts):
        progress(i, len(prompts), "drawing the model's own sounds")
        how = {"prompt": prompt, "steps": tuning.prior_steps, "cfg_scale": 1.0, "seed": settings.seed}
        asked = published_pictures.Settings(**how)
        drawn.append(published_pictures.riffuse(base, asked, columns=width * base.factor, item=i).latents[..., :width])
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{out} can't be made: {error.strerror}.") from None
    write_tensors(out / FILE, {"latents": torch.cat(drawn)}, {"what": what})
    return torch.cat(drawn)


def teach(lesson: Lesson) -> Finetuned:
    """The training, and what it came to: `out/model` is a folder in diffusers' format."""
    settings, out, taught = lesson.settings, lesson.out, Taught(lesson.base)
    system: Any = taught
    fitted = fit(system, lesson.tuning, train_settings(settings, LEARNING_RATE), lesson.dataset, out)
    lesson.base.network.cpu()
    shutil.rmtree(fitted.model)  # the loop's own form of it, which is the factors alone
    rounded = {name: value.float() for name, value in taught.factors.items()}
    merged = lora.merge(lora.adapt_as(taught.unet, rounded, lesson.tuning.scale))
    figures = compared(taught, taught.unet, merged, lesson.dataset, lesson.tuning, settings.batch_size)
    about: dict[str, Any] = {
        "word": settings.word,
        "kind": settings.kind_of,
        "command": command_of(settings),
        "steps": fitted.step,
        "clips": [{"name": clip.name, "sha256": clip.sha256, "licence": settings.licence} for clip in lesson.clips],
        "base": {"name": lesson.base.name, "sha256": lesson.tuning.base},
        "scale": lesson.tuning.scale,
        "figures": figures,
    }
    write_folder(lesson.base, merged, out / "model", about)
    told = {"about": json.dumps(about), "sha256": lesson.tuning.base, "scale": repr(lesson.tuning.scale)}
    write_tensors(out / ADAPTER, taught.factors, told)
    return Finetuned(out / "model", out / ADAPTER, fitted.step, figures)


def put_on(adapter: Path, model: str, out: Path) -> Path:
    """The folder, `out`, of the checkpoint that `adapter`, a file of `teach`, makes of the one it was trained on.

    Raises
    ------
    InputError
        The checkpoint is not that one, or `out` is there already.
    ModelError
        The file is no adapter, or broken.
    """
    if out.exists():
        raise InputError(f"{out} is there already. Choose another name.")
    factors, told = read_tensors(adapter)
    if not {"about", "sha256", "scale"} <= told.keys():
        raise ModelError(f"{adapter} is no adapter of a checkpoint in diffusers' format.")
    base = load_published(model)
    if identity_of(base) != told["sha256"]:
        raise InputError(f"{adapter} was trained on another checkpoint than {model}. Give that one.")
    try:
        rounded = {name: value.float() for name, value in factors.items()}
        adapted = lora.adapt_as(base.part("unet"), rounded, float(told["scale"]))
        about = json.loads(told["about"])
    except (ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{adapter} is broken: {' '.join(str(error).split())}.") from None
    write_folder(base, lora.merge(adapted), out, about)
    return out


def write_folder(base: PublishedRiffusion, unet: Any, out: Path, about: dict[str, Any]) -> None:
    """A checkpoint's folder with another U-Net in it, whole or not at all.

    Raises
    ------
    ResourceError
        It can't be written.
    """
    part = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name in PARTS:
            if name != "unet" and (base.folder / name).is_dir():
                skipped = shutil.ignore_patterns("*.bin", "*.ckpt", "*.pt", "*.pth", "*.msgpack")
                shutil.copytree(base.folder / name, part / name, ignore=skipped)
        shutil.copy(base.folder / "model_index.json", part)
        unet.save_pretrained(part / "unet", safe_serialization=True)
        (part / RECORD).write_text(json.dumps(about, indent=1), encoding="utf-8")
        shutil.rmtree(out, ignore_errors=True)
        part.rename(out)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise ResourceError(f"{out} can't be written: {error}. Free some space.") from None
