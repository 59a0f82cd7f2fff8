"""Draw: sounds out of noise without words, as long as is wanted, or loops that go on where they began.

A sound no longer than the model's window is drawn in one and cut. A longer one is one state, denoised in windows that
cross over half their length. A loop is a state on a circle: its windows run over the seam and lie elsewhere at each
evaluation, so that no sample is its first or last, and it has exactly the samples that its bars last.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from sfumato.config import Settings as BaseSettings
from sfumato.diffusion import guide, noise, sample, schedule
from sfumato.errors import InputError
from sfumato.model import Model
from sfumato.systems import dance_diffusion, rave_prior
from sfumato.tasks import latent_draws
from sfumato.tasks.takes import Array, Progress, Take, Written, check, take, write_all

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.diffusion.precondition import Denoiser

NAME = "draw"

Sampler = Literal["dpmpp_2m", "dpmpp_2m_sde", "heun", "euler", "ancestral", "ddim", "iplms"]
Grid = Literal["karras", "crash", "cosine"]

FADE_S = 0.005
"""Fade at the end of a sound that is cut: any but a whole window and a loop."""
BEATS = 4
LONGEST_S = 3600.0


class Settings(BaseSettings):
    """What to generate, and how."""

    seconds: float | None = Field(
        None, gt=0, le=LONGEST_S, description="length in seconds; by default the model's window, with noise2music 30"
    )
    count: int = Field(1, ge=1, le=100_000, description="how many sounds; several are OUT-1.wav, OUT-2.wav and on")
    seed: int = Field(0, ge=0, lt=2**63, description="seed: sound 3 of a seed is the same however many are made")
    kind: str | None = Field(None, description="kind of sound, such as kick or snare, if the model knows any")
    cfg_scale: float = Field(1.0, ge=0, le=20, description="how strictly the kind is kept to; costs twice unless 1")
    steps: int = Field(24, ge=1, le=1000, description="steps of the sampler")
    sampler: Sampler = Field("dpmpp_2m", description="sampler; the published ones are ddim and iplms")
    grid: Grid = Field("karras", description="noise levels of the steps; the published ones are crash")
    loop: bool = Field(False, description="make loops: as long as their bars, their end going on at their start")
    bpm: float | None = Field(None, gt=0, le=1000, description="beats per minute of a loop")
    bars: int | None = Field(None, ge=1, le=1000, description="bars of a loop; by default 1")
    beats: int | None = Field(None, ge=1, le=64, description=f"beats of a bar of a loop; by default {BEATS}")

    @model_validator(mode="after")
    def _length(self) -> Settings:
        if self.loop and (self.bpm is None) == (self.seconds is None):
            raise ValueError("a loop takes either bpm, with bars, or seconds")
        if not self.loop and (self.bpm, self.bars, self.beats) != (None, None, None):
            raise ValueError("bpm, bars and beats are for a loop: ask for one, or give seconds")
        if (self.bars is not None or self.beats is not None) and self.bpm is None:
            raise ValueError("bars and beats take a bpm")
        if self.cfg_scale != 1 and self.kind is None:
            raise ValueError("cfg_scale says how strictly a kind is kept to: ask for a kind")
        return self


def files(model: Model, out: Path, settings: Settings, progress: Progress) -> Written:
    """The sounds as files, and the record of how they were made (see `tasks.generate`).

    Raises
    ------
    InputError
        There is no such kind, or a loop is too short.
    ResourceError
        The disk is full or the folder can't be written; files made before are whole.
    """
    config = model.config
    assert isinstance(config, dance_diffusion.Config | rave_prior.Config)
    n = length_of(settings, config)
    channels = config.network.channels if isinstance(config, dance_diffusion.Config) else 1
    check(out, settings.count, config.sample_rate, channels, n)
    about = {"sample_rate": config.sample_rate, "loop_samples": n if settings.loop else None}
    return write_all(out, takes(model, settings, progress), settings.count, model, settings, about)


def takes(
    model: Model, settings: Settings, progress: Progress = lambda done, total, text: None
) -> Iterator[Take]:
    """The sounds that a loaded model draws. Each is computed alone, so that its bits don't depend on the others."""
    config = model.config
    if isinstance(config, rave_prior.Config):
        n = length_of(settings, config)
        for item in range(settings.count):
            told = partial(_told, settings, item, progress)
            yield take(latent_draws.draw(model, settings, n, item, told), config.sample_rate, item)
        return
    assert isinstance(config, dance_diffusion.Config)
    n, label = length_of(settings, config), label_of(settings.kind, config)
    for item in range(settings.count):
        audio = _draw(model, config, settings, n, label, item, progress)
        yield take(audio, config.sample_rate, item)


@torch.no_grad()
def _draw(
    model: Model,
    config: dance_diffusion.Config,
    settings: Settings,
    n: int,
    label: int,
    item: int,
    progress: Progress,
) -> Array:
    """One sound, ``(channels, n)``."""
    shape = (config.network.channels, n if settings.loop else max(n, config.n_samples))
    one_window = not settings.loop and shape[1] == config.n_samples
    turn = turns(settings.seed, item) if settings.loop else None
    denoise = denoiser(model, label, one_window, turn, settings.cfg_scale)
    sigmas = levels(settings.grid, settings.steps, config, config.sigma_max)
    stream = noise.walk(shape, seed=settings.seed, items=[item])
    x = stream(0) * float(sigmas[0])
    for step in sample.SAMPLERS[settings.sampler](denoise, x, sigmas, stream):
        _told(settings, item, progress, step.i)
        x = step.x
    audio = x[0, :, :n].double().numpy()
    return audio if settings.loop or (one_window and n == shape[1]) else faded(audio, config.sample_rate)


def _told(settings: Settings, item: int, progress: Progress, step: int) -> None:
    """Report a step that is done."""
    done = item * settings.steps + step + 1
    progress(done, settings.count * settings.steps, f"sound {item + 1} of {settings.count}")


def turns(seed: int, item: int) -> Callable[[int], int]:
    """Where a loop's first window begins, evaluation after evaluation: uniform, so that no place of it is special."""
    evaluation = itertools.count()
    return lambda n: int(n * float(noise.uniform((), seed=seed, item=item, step=next(evaluation))))


def denoiser(
    model: Model, label: int, one_window: bool, turn: Callable[[int], int] | None = None, cfg_scale: float = 1.0
) -> Denoiser:
    """The denoiser of states of any length from a window on, of any length at all on a circle.

    Parameters
    ----------
    label
        The kind's label; 0 is none.
    one_window
        Whether the state is one window in which a sound starts, rather than a stretch of something longer.
    turn
        For a loop: where its windows begin, as for `guide.circle`.
    """
    config = model.config
    assert isinstance(config, dance_diffusion.Config)
    place = dance_diffusion.START if one_window else dance_diffusion.ANYWHERE

    def windowed(x: Tensor, sigma: Tensor, /) -> Tensor:
        kinds = torch.full((len(x),), label) if label else None
        return dance_diffusion.denoiser(model.network, config, kinds, place, cfg_scale)(x, sigma)

    if turn is None:
        return guide.windows(windowed, config.n_samples, config.n_samples // 2)
    return guide.circle(windowed, config.n_samples, config.n_samples // 2, turn)


def levels(grid: Grid, steps: int, config: dance_diffusion.Config, sigma_max: float) -> Tensor:
    """Noise levels from `sigma_max` down; the grids but Karras's are for data of unit variance, so scaled."""
    if grid == "karras":
        return schedule.karras(steps, config.sigma_min, sigma_max)
    make = schedule.crash if grid == "crash" else schedule.cosine
    return config.sigma_data * make(steps, config.sigma_min / config.sigma_data, sigma_max / config.sigma_data)


def label_of(kind: str | None, config: dance_diffusion.Config) -> int:
    """Label of a kind; 0 for none.

    Raises
    ------
    InputError
        The model doesn't know it.
    """
    if kind is None:
        return 0
    known = config.kinds if config.network.labels else ()
    if kind not in known:
        raise InputError(f"The model knows no kind '{kind}'. Possible are: {', '.join(known) or 'none'}.")
    return known.index(kind) + 1


def length_of(settings: Settings, config: dance_diffusion.Config | rave_prior.Config) -> int:
    """Samples of each sound; a loop's are its beats' duration, rounded once, for the whole.

    Raises
    ------
    InputError
        There would be none, or more than `LONGEST_S` take.
    """
    rate = config.sample_rate
    if isinstance(config, rave_prior.Config):
        return latent_draws.length_of(settings, config)
    if settings.bpm is not None:
        n = round((settings.bars or 1) * (settings.beats or BEATS) * 60 * rate / settings.bpm)
    else:
        n = config.n_samples if settings.seconds is None else round(settings.seconds * rate)
    if not 1 <= n <= LONGEST_S * rate:
        raise InputError(f"{n} samples at {rate} Hz were asked for. Give from one sample to {LONGEST_S:g} s.")
    least = config.n_samples // 4
    if settings.loop and n < least:
        raise InputError(f"A loop of {n} samples is too short for this model; give at least {least / rate:.2f} s.")
    return n


def faded(audio: Array, sample_rate: int) -> Array:
    """Audio ``(channels, samples)`` whose last `FADE_S` are faded out."""
    n = min(audio.shape[1], round(FADE_S * sample_rate))
    out = audio.copy()
    out[:, audio.shape[1] - n :] *= np.cos((np.arange(n) + 1) / n * np.pi / 2) ** 2
    return out
