"""Music from words: sounds of any length, and loops, drawn by a model of the system riffusion."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from sfumato.diffusion import schedule
from sfumato.errors import InputError
from sfumato.model import Model
from sfumato.networks import band_unet
from sfumato.signal import complex_spectrogram
from sfumato.systems.riffusion import Config
from sfumato.tasks import budget, loops, sheet
from sfumato.tasks.draw import faded, turns
from sfumato.tasks.loops import Looped
from sfumato.tasks.prompts import Asked, notes_on, unwanted_of, wanted_of
from sfumato.tasks.stretches import Walk, frames_of, loop, n_stretches, overlap_of, pictures, sounds
from sfumato.tasks.takes import Array, Progress, Take, Written, take

if TYPE_CHECKING:
    from sfumato.diffusion.precondition import Denoiser
    from sfumato.networks.text import Encoded

Sampler = Literal["dpmpp_2m", "dpmpp_2m_sde", "heun", "euler", "ancestral", "ddim", "iplms"]


class Walked(Asked):
    """What is wanted, and how it is drawn."""

    cfg_scale: float = Field(3.0, ge=0, le=20, description="how strictly what is asked for is kept to; 1 is fastest")
    guided: tuple[float, float] = Field(
        (0.3, 20.0), description="noise levels between which it is kept to so strictly; the others cost half"
    )
    steps: int = Field(16, ge=2, le=1000, description="steps of the sampler")
    sampler: Sampler = Field("dpmpp_2m", description="sampler")
    budget: str | None = Field(
        None, description="time that a sound may take, such as 2s: steps and guidance follow, the noise is the same"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed: sound 3 of a seed is the same however many are made")
    count: int = Field(1, ge=1, le=100_000, description="how many sounds; several are OUT-1.wav, OUT-2.wav and on")
    pictures: bool = Field(False, description="also write each sound's spectrogram, and a sheet of all, as PNG")

    @model_validator(mode="after")
    def _asked(self) -> Walked:
        if self.budget is not None:
            budget.parsed(self.budget)
        if self.then is not None and not self.prompt:
            raise ValueError("then is where prompt leads to: give a prompt, too")
        if self.alpha is not None and self.then is None:
            raise ValueError("alpha stands between prompt and then: give then")
        if not 0 <= self.guided[0] < self.guided[1]:
            raise ValueError("guided takes two noise levels, the lower one first")
        return self


class Settings(Walked, Looped):
    """What to generate, and how."""

    then_seed: int | None = Field(None, ge=0, lt=2**63, description="with then: seed to arrive at, too")

    @model_validator(mode="after")
    def _arrives(self) -> Settings:
        if self.then_seed is not None and self.then is None:
            raise ValueError("then_seed goes with then: give a prompt to arrive at")
        return self


def takes(
    model: Model, settings: Settings, progress: Progress = lambda done, total, text: None
) -> Iterator[Take]:
    """The sounds (see `tasks.generate`). Each is computed alone, so that its bits don't depend on the others."""
    notes_on(settings)
    config, n = config_of(model), length_of(settings, config_of(model))
    frames = frames_of(n, config)
    if settings.then is not None and settings.alpha is None and n_stretches(config, frames) == 1:
        least = config.window * config.half / config.sample_rate
        raise InputError(f"A way to another prompt takes more than {least:.1f} s. Give more seconds, or alpha.")
    chosen = how(model, settings, windows_of(settings, config, n))
    for item in range(settings.count):
        audio, tuned = _drawn(model, settings, chosen, n, item, progress)
        told = {"steps": chosen.steps, "cfg_scale": chosen.cfg_scale, "guided": list(chosen.guided)}
        yield take(audio, config.sample_rate, item, **told, **({"tuned_cents": tuned} if settings.loop else {}))


def files(model: Model, out: Path, settings: Settings, progress: Progress) -> Written:
    """The sounds as files, and the record of how they were made (see `tasks.generate`)."""
    config = config_of(model)
    n = length_of(settings, config)
    cents = loops.cents_of(loops.frames_of(config.half, n) * config.half, n) if settings.loop else 0.0
    notes = (*notes_on(settings), *loops.notes_on_tuning(cents))
    about: dict[str, Any] = {"sample_rate": config.sample_rate, "loop_samples": n if settings.loop else None}
    about["arithmetic"] = arithmetic()
    made = takes(model, settings, progress)
    return sheet.write_seen(out, made, model, settings, about, (config.sample_rate, 1, n), notes)


def config_of(model: Model) -> Config:
    """The configuration of a model that draws music."""
    assert isinstance(model.config, Config)
    return model.config


@dataclass(frozen=True)
class How:
    """How a sound is drawn."""

    steps: int
    cfg_scale: float
    guided: tuple[float, float]


def windows_of(settings: Settings, config: Config, n: int) -> int:
    """Windows that are evaluated at each step of a sound of `n` samples."""
    if settings.loop:
        return loops.windows_of(loops.frames_of(config.half, n), config.window)
    return n_stretches(config, frames_of(n, config))


def how(model: Model, settings: Walked, windows: int, sigma_max: float | None = None) -> How:
    """Steps and guidance: as set, or as the budget allows for so many windows a step, from `sigma_max` down."""
    if settings.budget is None:
        return How(settings.steps, settings.cfg_scale, settings.guided)
    config = config_of(model)
    seconds = budget.seconds_of(partial(evaluated_once, model)) * (2 if settings.sampler == "heun" else 1)
    allowed = budget.evaluations(budget.parsed(settings.budget), seconds, windows)
    grid = partial(sigmas_of, config, sigma_max=sigma_max)
    steps, guided = budget.share(allowed, settings.cfg_scale != 1, settings.guided, grid)
    return How(steps, settings.cfg_scale if guided is not None else 1.0, guided or settings.guided)


def evaluated_once(model: Model) -> None:
    """One evaluation of a window: what a budget is counted in."""
    config = config_of(model)
    x = torch.zeros(1, 2, config.half, config.window)
    with torch.no_grad():
        denoiser_of(model)(x, torch.ones(1))


def half_precision() -> bool:
    """Whether the processor computes in half precision."""
    has = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(has and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def arithmetic() -> str:
    """What the networks compute in here, for records: sounds of a seed differ between the two."""
    return "bfloat16" if half_precision() else "float32"


def denoiser_of(
    model: Model,
    asked: Asked | None = None,
    chosen: How | None = None,
    alpha: float = 0.0,
    start: Encoded | None = None,
) -> Denoiser:
    """The denoiser of windows; in half precision where the processor computes with it."""
    config = config_of(model)
    fast = half_precision()
    chosen = chosen or How(2, 1.0, (0.0, math.inf))
    wanted = None if asked is None else wanted_of(asked, alpha, start)
    unwanted = None if asked is None else unwanted_of(asked)
    words = config.network.words
    inner = band_unet.denoiser(model.network, words, wanted, unwanted, chosen.cfg_scale, chosen.guided)

    def denoise(x: Tensor, sigma: Tensor, /) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            return inner(x, sigma).float()

    return denoise


def sigmas_of(config: Config, steps: int, sigma_max: float | None = None) -> Tensor:
    """Noise levels from `sigma_max` down."""
    return schedule.karras(steps, config.sigma_min, sigma_max or config.sigma_max)


@torch.no_grad()
def _drawn(
    model: Model, settings: Settings, chosen: How, n: int, item: int, progress: Progress
) -> tuple[Array, float]:
    """One sound, ``(1, n)``, and by how many cents it was tuned to be exactly as long as it should."""
    config = config_of(model)
    frames = frames_of(n, config)
    stretches = 1 if settings.loop else n_stretches(config, frames)
    last = (stretches - 1) * (config.window - overlap_of(config)) * config.half / config.sample_rate
    travel = partial(_way, settings, last)
    walk = Walk(
        denoise=lambda second: denoiser_of(model, settings, chosen, travel(second)),
        sigmas=sigmas_of(config, chosen.steps),
        sampler=settings.sampler,
        seed=settings.seed,
        item=item,
        other_seed=settings.then_seed,
        blend=travel,
        step_done=told(progress, item, settings.count, stretches * chosen.steps),
    )
    if settings.loop:
        drawn = loop(config, walk, loops.frames_of(config.half, n), turns(settings.seed, item))
        bins = complex_spectrogram.unpicture(drawn.double(), config.sample_rate)
        audio = complex_spectrogram.circular_sound(bins).numpy()
        return loops.resampled(audio, n), loops.cents_of(audio.shape[1], n)
    audio = np.concatenate(list(sounds(pictures(config, walk, frames), config)), axis=1)[:, :n]
    return faded(audio, config.sample_rate), 0.0


def _way(settings: Settings, last: float, second: float) -> float:
    """How far the sound has travelled to its second prompt in the stretch that begins at `second`."""
    if settings.then is None:
        return 0.0
    return settings.alpha if settings.alpha is not None else min(1.0, second / last)


def told(progress: Progress, item: int, count: int, steps: int) -> Callable[[], None]:
    """Report a step of a sound that is done."""
    done = item * steps

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, count * steps, f"sound {item + 1} of {count}")

    return step


def length_of(settings: Settings, config: Config) -> int:
    """Samples of each sound; error as for `loops.length_of`."""
    return loops.length_of(settings, config.sample_rate, (config.window - 1) * config.half)
