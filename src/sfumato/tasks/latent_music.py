"""Sounds from words by a latent generator (make_an_audio): a picture of levels is drawn, and then gets its sound.

The generator draws latents, in windows that are one state; the autoencoder makes a log-mel picture of them, and the
vocoder a sound that has its levels. What becomes of a given sound is `tasks.latent_change`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from sfumato.diffusion import guide, noise, sample, schedule
from sfumato.networks.mel_vae import STEP, MelVae
from sfumato.signal import ring
from sfumato.signal.log_mel import HOP, SILENCE
from sfumato.systems import make_an_audio, mel_vocoder
from sfumato.tasks import budget, loops, sheet, sight
from sfumato.tasks.draw import faded, turns
from sfumato.tasks.loops import Looped
from sfumato.tasks.music import How, Walked, arithmetic, half_precision, told
from sfumato.tasks.prompts import notes_on, unwanted_of, wanted_of
from sfumato.tasks.takes import Array, Progress, Take, Written, take

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from sfumato.diffusion.precondition import Denoiser
    from sfumato.model import Model
    from sfumato.systems.make_an_audio import Config

LONGEST_S = 300.0
SOUNDING = 1 << 40
"""Added to an item's number for the noise that its sound, rather than its picture, is drawn from."""

DrawnT = TypeVar("DrawnT", bound="Drawn")


class Drawn(Walked):
    """What is wanted, how its picture is drawn, and how that gets its sound."""

    vocoder_steps: int = Field(8, ge=2, le=1000, description="steps of the sampler on the way from picture to sound")
    roughness: float = Field(
        0.4, ge=0, le=1, description="how far the picture is taken to be blurred and wrong there; 0 takes it as real"
    )

    image: str | None = Field(
        None,
        description="picture, or video such as clip.mp4@2.5 (its middle if no second is given), that leads beside the "
        "prompt or in its place: what it shows (extra vision, for videos media)",
    )

    @model_validator(mode="after")
    def _stands(self) -> Drawn:
        if self.then is not None and self.alpha is None:
            raise ValueError("then takes alpha here: a place between the two prompts")
        return self


def led(settings: DrawnT) -> tuple[DrawnT, tuple[str, ...]]:
    """Settings whose prompt says what their picture shows, too; and what the user should know of the prompts.

    Raises
    ------
    InputError
        The picture or a prompt can't be read.
    MissingExtraError
        The extra `vision` or `text` isn't installed.
    """
    if settings.image is None:
        return settings, notes_on(settings)
    words, note = sight.words_of(settings.image)
    whole = settings.model_copy(update={"prompt": f"{settings.prompt or ''} {words}".strip(), "image": None})
    return whole, (note, *notes_on(whole))


def seen_in(settings: Drawn) -> dict[str, Any]:
    """What a record says of the picture that led, beside the prompt that was made of it."""
    return {} if settings.image is None else {"image": settings.image, "prompt_beside_the_image": settings.prompt}


class Settings(Drawn, Looped):
    """What to generate, and how."""

    seconds: float | None = Field(
        None, gt=0, le=LONGEST_S, description="length in seconds; by default the model's window"
    )


@dataclass(frozen=True)
class Parts:
    """The models that a generator needs beside itself."""

    vae: MelVae
    vocoder: Model


def parts_of(model: Model) -> Parts:
    """They, loaded.

    Raises
    ------
    ModelError
        One is missing, or doesn't fit; says what to do.
    """
    config = config_of(model)
    return Parts(make_an_audio.vae_of(config), make_an_audio.vocoder_of(config))


def config_of(model: Model) -> Config:
    """The configuration of a latent generator."""
    assert isinstance(model.config, make_an_audio.Config)
    return model.config


def takes(
    model: Model, settings: Settings, progress: Progress = lambda done, total, text: None
) -> Iterator[Take]:
    """The sounds (see `tasks.generate`). Each is computed alone, so that its bits don't depend on the others."""
    config, parts, n = config_of(model), parts_of(model), length_of(settings, config_of(model))
    settings, _ = led(settings)
    around = loop_of(parts.vocoder, n) if settings.loop else None
    frames = frames_of(n, config) if around is None else around // (STEP * HOP)
    chosen = how(model, parts, settings, frames, around or n, around is not None)
    for item in range(settings.count):
        report, told_of = told(progress, item, settings.count, chosen.steps), about(chosen, settings)
        turn = None if around is None else turns(settings.seed, item)
        latents = drawn(model, settings, chosen, frames, item, report, turn=turn)
        if around is None:
            audio = faded(sound_of(parts, picture_of(parts, latents), n, settings, item), config.sample_rate)
        else:
            whole = sound_of(parts, picture_of(parts, latents, True), around, settings, item, True)
            audio, told_of = loops.resampled(whole, n), {**told_of, "tuned_cents": loops.cents_of(around, n)}
        yield take(audio, config.sample_rate, item, **told_of)


def files(model: Model, out: Path, settings: Settings, progress: Progress) -> Written:
    """The sounds as files, and the record of how they were made (see `tasks.generate`)."""
    config, image = config_of(model), seen_in(settings)
    read = [sight.file_and_time(settings.image)[0]] if settings.image else []
    settings, notes = led(settings)
    made, rate, n = takes(model, settings, progress), config.sample_rate, length_of(settings, config)
    about = {"sample_rate": rate, "loop_samples": n if settings.loop else None, "arithmetic": arithmetic(), **image}
    if settings.loop:
        notes += loops.notes_on_tuning(loops.cents_of(loop_of(make_an_audio.vocoder_of(config), n), n))
    return sheet.write_seen(out, made, model, settings, about, (rate, 1, n), notes, read=read)


def length_of(settings: Settings, config: Config) -> int:
    """Samples of each sound; by default as many as one window's frames reach. Error as for `loops.length_of`."""
    return loops.length_of(settings, config.sample_rate, (config.n_frames * STEP - 1) * HOP, LONGEST_S)


def loop_of(vocoder: Model, n: int) -> int:
    """Samples of a loop that is then tuned to `n`: the vocoder's frames, which are whole latent ones."""
    assert isinstance(vocoder.config, mel_vocoder.Config)
    return loops.frames_of(vocoder.config.hop, n) * vocoder.config.hop


def frames_of(n_samples: int, config: Config) -> int:
    """Latent frames that a sound of `n_samples` is drawn as: a window or more."""
    return max(config.n_frames, -(-(-(-n_samples // HOP) + 1) // STEP))


def how(model: Model, parts: Parts, settings: Drawn, frames: int, n: int, loop: bool = False) -> How:
    """Steps and guidance: as set, or as the budget allows once the way from picture to sound is paid for."""
    if settings.budget is None:
        return How(settings.steps, settings.cfg_scale, settings.guided)
    config = config_of(model)
    denoise = make_an_audio.denoiser(model.network, config)
    blank = torch.zeros(1, *config.shape)

    def evaluate() -> None:
        with torch.no_grad(), _quick():
            denoise(blank, torch.ones(1))

    silent = torch.full((1, parts.vae.config.rows, -(-n // HOP)), SILENCE)

    def sound() -> None:
        _sounded(parts, silent, n, settings, 0, 2, loop)

    twice = 2 if settings.sampler == "heun" else 1
    spent = settings.vocoder_steps * budget.seconds_of(sound) / 2
    windows = 1 + -(-max(0, frames - config.n_frames) // (config.n_frames - config.n_frames // 4))
    if loop:
        windows = loops.windows_of(frames, config.n_frames)
    once = twice * budget.seconds_of(evaluate)
    allowed = budget.evaluations(budget.parsed(settings.budget), once, windows, spent_s=spent)
    steps, guided = budget.share(allowed, settings.cfg_scale != 1, settings.guided, partial(_sigmas, config))
    return How(steps, settings.cfg_scale if guided is not None else 1.0, guided or settings.guided)


@torch.no_grad()
def drawn(
    model: Model,
    settings: Drawn,
    chosen: How,
    frames: int,
    item: int,
    step_done: Callable[[], None] = lambda: None,
    source: Float[Tensor, "1 c g s"] | None = None,
    known: Bool[Tensor, "g s"] | None = None,
    strength: float = 1.0,
    turn: Callable[[int], int] | None = None,
) -> Float[Tensor, "1 c g s"]:
    """Latents of what is wanted.

    Parameters
    ----------
    frames
        Latent frames, a window or more; of a loop, any number.
    source
        Latents to start from, and to keep where they are `known`.
    strength
        Share of the walk that is gone, with a source; 1 is all of it, from noise alone.
    turn
        For a loop: where its windows begin, as for `guide.circle`.
    """
    config = config_of(model)
    denoise: Denoiser = make_an_audio.denoiser(
        model.network,
        config,
        wanted_of(settings, settings.alpha or 0.0),
        unwanted_of(settings),
        chosen.cfg_scale,
        chosen.guided,
        turn,
    )
    if source is not None and known is not None:
        denoise = guide.keep(denoise, guide.known_samples(source, known.expand(source.shape)))
    sigmas = _sigmas(config, chosen.steps).float()
    begin = chosen.steps - max(1, round(strength * chosen.steps))
    stream = noise.scroll(config.shape[:2], 0, frames, seed=settings.seed, item=item)
    x = stream(0) * sigmas[begin]
    if source is not None and begin:
        x = x + source
    with _quick():
        for step in sample.SAMPLERS[settings.sampler](denoise, x, sigmas[begin:], stream):
            step_done()
            x = step.x
    return x


@torch.no_grad()
def picture_of(parts: Parts, latents: Float[Tensor, "1 c g t"], loop: bool = False) -> Float[Tensor, "1 f s"]:
    """The log-mel picture of latents; nothing in it is below silence."""
    if not loop:
        return parts.vae.decode(latents).clamp(min=SILENCE)
    edge = parts.vae.config.reach
    picture = parts.vae.decode(ring.around(latents, edge))
    return picture[..., STEP * edge : picture.shape[-1] - STEP * edge].clamp(min=SILENCE)


def sound_of(
    parts: Parts, mel: Float[Tensor, "1 f s"], n: int, settings: Drawn, item: int, loop: bool = False
) -> Array:
    """The sound ``(1, n)`` of a picture."""
    return _sounded(parts, mel, n, settings, item, settings.vocoder_steps, loop).double().numpy()


def _sounded(
    parts: Parts, mel: Tensor, n: int, settings: Drawn, item: int, steps: int, loop: bool = False
) -> Float[Tensor, "1 n"]:
    """The same in so many steps."""
    config = parts.vocoder.config
    assert isinstance(config, mel_vocoder.Config)
    t = n // config.hop if loop else mel_vocoder.frames_of(n, config)
    turn = turns(settings.seed, SOUNDING + item) if loop else None
    stream = noise.scroll((2, config.hop), 0, t, seed=settings.seed, item=SOUNDING + item)
    with _quick():
        return mel_vocoder.vocode(
            parts.vocoder.network, config, mel, n, stream, steps, settings.roughness, settings.sampler, turn=turn
        )


def _sigmas(config: Config, steps: int) -> Tensor:
    """Noise levels of the walk."""
    return schedule.karras(steps, config.sigma_min, config.sigma_max)


def _quick() -> torch.autocast:
    """Half precision where the processor computes with it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=half_precision())


def about(chosen: How, settings: Drawn) -> dict[str, Any]:
    """How a take was drawn."""
    return {"steps": chosen.steps, "cfg_scale": chosen.cfg_scale, "vocoder_steps": settings.vocoder_steps}
