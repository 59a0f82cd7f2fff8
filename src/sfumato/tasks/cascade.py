"""Music from words in stages (noise2music): little fidelity first, then each stage adds what the one before lacks.

The generator's configuration names the stages that go on from it. Between them there is sound, and how far each stage
relies on it is up to the user; the first stages alone are a preview of the same piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from sfumato import model as models
from sfumato.diffusion import noise, sample, schedule
from sfumato.errors import InputError, ModelError
from sfumato.model import Model
from sfumato.networks import band_unet
from sfumato.signal import log_mel
from sfumato.systems import mel_vocoder, noise2music
from sfumato.tasks import budget, loops, sheet
from sfumato.tasks.draw import faded, turns
from sfumato.tasks.loops import Looped
from sfumato.tasks.music import How, Walked, arithmetic, half_precision, told
from sfumato.tasks.prompts import notes_on, unwanted_of, wanted_of
from sfumato.tasks.takes import Array, Progress, Take, Written, take
from sfumato.tasks.vary import resampled

if TYPE_CHECKING:
    from jaxtyping import Float

    from sfumato.diffusion.noise import Noise
    from sfumato.diffusion.precondition import Denoiser
    from sfumato.systems.noise2music import Config

STANDARD_S, LONGEST_S = 30.0, 300.0
STAGE = 1 << 40
"""Between the items of neighbouring stages in the noise's numbering."""
OVER = 8
"""Added to a stage's number for the noise that is laid over what it is given."""


class Settings(Walked, Looped):
    """What to generate, and how; the sampler's steps and guidance are the first stage's."""

    seconds: float | None = Field(
        None, gt=0, le=LONGEST_S, description=f"length in seconds; by default {STANDARD_S:g}"
    )
    stages: int | None = Field(
        None, ge=1, le=3, description="go through the first so many stages only: a preview; by default all"
    )
    later_steps: tuple[int, int] = Field((8, 4), description="steps of the second stage, and of the third")
    later_cfg: tuple[float, float] = Field(
        (1.5, 1.0), description="guidance of the second stage and of the third, where they read words"
    )
    later_roughness: tuple[float, float] = Field(
        (0.4, 0.0),
        description="how far the second stage and the third distrust what they are given, 0 to 1: that much noise is "
        "laid over it; at 0 a sound's band stays what it is",
    )
    rho: tuple[float, float, float] = Field(
        (7.0, 7.0, 7.0),
        description="spacing of each stage's noise levels: 1 is even, the larger the more steps for fine detail",
    )

    @model_validator(mode="after")
    def _stands(self) -> Settings:
        if self.then is not None and self.alpha is None:
            raise ValueError("then takes alpha here: a place between the two prompts")
        if min(self.later_steps) < 2 or max(self.later_steps) > 1000:
            raise ValueError("later_steps takes 2 to 1000 steps for each stage")
        if not (min(self.later_cfg) >= 0 and max(self.later_cfg) <= 20):
            raise ValueError("later_cfg takes scales from 0 to 20")
        if not (min(self.later_roughness) >= 0 and max(self.later_roughness) <= 1):
            raise ValueError("later_roughness takes two numbers from 0 to 1")
        if not (min(self.rho) >= 1 and max(self.rho) <= 100):
            raise ValueError("rho takes three numbers from 1 to 100")
        return self


def config_of(model: Model) -> Config:
    """The configuration of a stage."""
    assert isinstance(model.config, noise2music.Config)
    return model.config


def stages_of(model: Model, wanted: int | None) -> tuple[Model, ...]:
    """The generator and the stages that go on from it, loaded: the first `wanted`, or all.

    Raises
    ------
    InputError
        There are fewer, or the first one's pictures would have no sound.
    ModelError
        One is missing, or can't go on from what it is given; says what to do.
    """
    config = config_of(model)
    if config.given_rate:
        raise InputError(f"{model.name} needs a sound to go on from. Give the first stage of a cascade instead.")
    count = 1 + len(config.then) if wanted is None else wanted
    if count > 1 + len(config.then):
        raise InputError(f"{model.name} has {1 + len(config.then)} stages, {count} were asked for. Give up to those.")
    if count == 1 and config.draws == "levels":
        raise InputError(f"The first stage of {model.name} draws levels without sound. Give at least 2 stages.")
    found = [model]
    for name in config.then[: count - 1]:
        found.append(_after(found[-1], name))
    return tuple(found)


def _after(before: Model, name: str) -> Model:
    """The stage of that name, which goes on from what the one before draws."""
    try:
        stage = models.load(name)
    except InputError:
        raise ModelError(
            f"{name}, the stage after {before.name}, is not here. Put its folder there, write where it is into "
            "config.then in the generator's model.yaml, or ask for fewer stages."
        ) from None
    drawn = before.config
    if isinstance(drawn, noise2music.Config) and drawn.draws == "levels":
        if isinstance(stage.config, mel_vocoder.Config) and stage.config.sample_rate == drawn.sample_rate:
            return stage
        raise ModelError(f"{name} is no mel_vocoder at {drawn.sample_rate} Hz. In config.then, give one that is.")
    rate = getattr(drawn, "sample_rate", 0)
    if isinstance(stage.config, noise2music.Config) and stage.config.given_rate == rate:
        return stage
    raise ModelError(f"{name} does not go on from sound at {rate} Hz. In config.then, give a noise2music that does.")


def takes(
    model: Model, settings: Settings, progress: Progress = lambda done, total, text: None
) -> Iterator[Take]:
    """The sounds (see `tasks.generate`). Each is computed alone, so that its bits don't depend on the others."""
    notes_on(settings)
    yield from _taken(stages_of(model, settings.stages), settings, progress)


def files(model: Model, out: Path, settings: Settings, progress: Progress) -> Written:
    """The sounds as files, and the record of how they were made (see `tasks.generate`)."""
    notes, stages = notes_on(settings), stages_of(model, settings.stages)
    rate = rate_of(stages[-1])
    about: dict[str, Any] = {"sample_rate": rate, "arithmetic": arithmetic()}
    about["stages"] = [{"model": one.name, "sha256": models.digest(one)} for one in stages]
    n = length_of(rate, settings)
    about["loop_samples"] = n if settings.loop else None
    shape = rate, 1, n
    if settings.loop:
        notes += loops.notes_on_tuning(_tuning(stages, settings))
    return sheet.write_seen(out, _taken(stages, settings, progress), model, settings, about, shape, notes)


def _taken(stages: tuple[Model, ...], settings: Settings, progress: Progress) -> Iterator[Take]:
    chosen, rate = how(stages, settings), rate_of(stages[-1])
    each = [chosen.steps, *settings.later_steps][: len(stages)]
    for item in range(settings.count):
        audio = sound(stages, settings, chosen, item, told(progress, item, settings.count, sum(each)))
        told_of = {"tuned_cents": _tuning(stages, settings)} if settings.loop else {}
        whole = audio if settings.loop else faded(audio, rate)
        yield take(whole, rate, item, steps=each, cfg_scale=chosen.cfg_scale, **told_of)


def rate_of(stage: Model) -> int:
    """Sample rate of what a stage draws, Hz."""
    return _any(stage).sample_rate


def length_of(rate: int, settings: Settings) -> int:
    """Samples of a sound at a rate; errors as for `loops.length_of`."""
    return loops.length_of(settings, rate, round(STANDARD_S * rate), LONGEST_S)


def loop_of(stages: tuple[Model, ...], settings: Settings) -> int | None:
    """Samples of the loop that the first stage draws, at its rate; None where none is asked for.

    They are whole frames of the first stage that draws a spectrogram; each one after it draws whole frames of its own,
    nearest to what it is given.
    """
    first = config_of(stages[0])
    hop = first.hop if first.draws == "sound" else _any(stages[1]).hop
    return loops.frames_of(hop, length_of(first.sample_rate, settings)) * hop if settings.loop else None


def _tuning(stages: tuple[Model, ...], settings: Settings) -> float:
    """By how many cents a loop is tuned: what the first stage draws as so long, lasts its bars in the end."""
    rates, around = (rate_of(stages[0]), rate_of(stages[-1])), loop_of(stages, settings) or 0
    return loops.cents_of(around / rates[0], length_of(rates[1], settings) / rates[1])


def how(stages: tuple[Model, ...], settings: Settings) -> How:
    """Steps and guidance of the first stage: as set, or as the budget allows once the others are paid for."""
    if settings.budget is None:
        return How(settings.steps, settings.cfg_scale, settings.guided)
    twice = 2 if settings.sampler == "heun" else 1
    costs = [twice * _windows(one, settings) * budget.seconds_of(partial(_evaluated_once, one)) for one in stages]
    later = 0.0
    for number, stage in enumerate(stages[1:]):
        guided = settings.guided if _led(stage, settings) and settings.later_cfg[number] != 1 else None
        grid = partial(_sigmas, _any(stage), settings.rho[number + 1])
        later += costs[number + 1] * budget.cost(settings.later_steps[number], guided, grid)
    allowed = budget.evaluations(budget.parsed(settings.budget), costs[0], 1, spent_s=later)
    first = partial(_sigmas, config_of(stages[0]), settings.rho[0])
    guidance = settings.cfg_scale != 1 and _led(stages[0], settings)
    steps, guided = budget.share(allowed, guidance, settings.guided, first)
    return How(steps, settings.cfg_scale if guided is not None else 1.0, guided or settings.guided)


def _led(stage: Model, settings: Settings) -> bool:
    """Whether a stage reads words, and there is something to read."""
    asked = (settings.prompt, settings.negative, settings.bpm, settings.key)
    return isinstance(stage.config, noise2music.Config) and stage.config.unprompted < 1 and any(asked)


def _windows(stage: Model, settings: Settings) -> int:
    """Windows that a step of a stage takes."""
    config = _any(stage)
    frames = length_of(config.sample_rate, settings) // config.hop
    if settings.loop:
        return loops.windows_of(frames, config.n_frames)
    return 1 + -(-max(0, frames - config.n_frames) // (config.n_frames - config.n_frames // 4))


@torch.no_grad()
def _evaluated_once(stage: Model) -> None:
    """One evaluation of a window: what a budget is counted in."""
    config = _any(stage)
    network = config.network
    x = torch.zeros(1, network.channels, network.n_bins, config.n_frames)
    given = torch.zeros(1, network.given, *x.shape[2:]) if network.given else None
    with torch.autocast("cpu", torch.bfloat16, enabled=half_precision()):
        band_unet.denoiser(stage.network, network.words, given=given)(x, torch.ones(1))


def _sigmas(config: Config | mel_vocoder.Config, rho: float, steps: int) -> Tensor:
    """Noise levels of a walk."""
    return schedule.karras(steps, config.sigma_min, config.sigma_max, rho)


@torch.no_grad()
def sound(
    stages: tuple[Model, ...],
    settings: Settings,
    chosen: How,
    item: int,
    step_done: Callable[[], None] = lambda: None,
) -> Array:
    """Sound `item`, ``(1, n)``, as the last of the stages draws it; all stages draw what was begun, to its end."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half_precision()):
        drawn = begun(stages[0], settings, chosen, item, step_done, loop_of(stages, settings))
        for number, stage in enumerate(stages[1:], 1):
            if isinstance(stage.config, mel_vocoder.Config):
                drawn = vocoded(stage, number, drawn, settings, item, step_done)
            else:
                drawn = continued(stage, number, drawn, settings, item, step_done)
    n, audio = length_of(rate_of(stages[-1]), settings), drawn.double().numpy()
    return loops.resampled(audio, n) if settings.loop else audio[:, :n]


def begun(
    stage: Model,
    settings: Settings,
    chosen: How,
    item: int,
    step_done: Callable[[], None] = lambda: None,
    around: int | None = None,
) -> Tensor:
    """What the generator draws: a sound ``(1, n)``, or levels ``(1, 80, t)``; a window or more, or a loop `around`."""
    config = config_of(stage)
    frames = noise2music.frames_of(length_of(config.sample_rate, settings), config)
    if around is not None:
        frames = around // config.hop
    stream, turn = _noise(settings, 0, config.shape, frames, item), _turn(settings, 0, item)
    wanted, unwanted = wanted_of(settings, settings.alpha or 0.0), unwanted_of(settings)
    guidance = chosen.cfg_scale, chosen.guided
    denoise = noise2music.denoiser(stage.network, config, wanted, unwanted, *guidance, turn=turn)
    drawn = _walked(denoise, _sigmas(config, settings.rho[0], chosen.steps), stream, settings, step_done)
    if config.draws == "sound":
        return noise2music.sound_of(drawn, (frames - 1) * config.hop if around is None else None, config)
    return drawn[:, 0].clamp(min=log_mel.SILENCE)


def continued(
    stage: Model,
    number: int,
    audio: Float[Tensor, "1 n"],
    settings: Settings,
    item: int,
    step_done: Callable[[], None] = lambda: None,
) -> Float[Tensor, "1 m"]:
    """The sound that stage `number`, 1 or 2, makes of a sound at the rate that it is given, as long as that.

    Of a loop it makes one of whole frames, as long as can be.
    """
    config, low = config_of(stage), audio.double().numpy()
    if settings.loop:
        frames = loops.frames_of(config.hop, low.shape[1] * config.sample_rate / config.given_rate)
        high = loops.resampled(low, frames * config.hop)
    else:
        high = resampled(low, config.given_rate, config.sample_rate)
        frames = noise2music.frames_of(high.shape[1], config)
    raised, roughness = torch.from_numpy(high).float(), settings.later_roughness[number - 1]
    over = _noise(settings, OVER + number, config.shape, frames, item)
    given = noise2music.given_of(raised, roughness, config, over, settings.loop)
    wanted, unwanted, scale = None, None, 1.0
    if config.unprompted < 1:
        wanted, unwanted = wanted_of(settings, settings.alpha or 0.0), unwanted_of(settings)
        scale = settings.later_cfg[number - 1]
    turn = _turn(settings, number, item)
    denoise = noise2music.denoiser(stage.network, config, wanted, unwanted, scale, settings.guided, given, turn)
    sigmas = _sigmas(config, settings.rho[number], settings.later_steps[number - 1])
    drawn = _walked(denoise, sigmas, _noise(settings, number, config.shape, frames, item), settings, step_done)
    return noise2music.sound_of(drawn, None if settings.loop else raised.shape[1], config)


def vocoded(
    stage: Model,
    number: int,
    mel: Float[Tensor, "1 80 t"],
    settings: Settings,
    item: int,
    step_done: Callable[[], None] = lambda: None,
) -> Float[Tensor, "1 n"]:
    """The sound that stage `number`, a vocoder, gives levels."""
    config, n = _any(stage), (mel.shape[2] - (not settings.loop)) * log_mel.HOP
    assert isinstance(config, mel_vocoder.Config)
    frames = n // config.hop if settings.loop else mel_vocoder.frames_of(n, config)
    stream = _noise(settings, number, (2, config.hop), frames, item)
    made = mel_vocoder.vocode(
        stage.network,
        config,
        mel,
        n,
        stream,
        steps=settings.later_steps[number - 1],
        strength=settings.later_roughness[number - 1],
        sampler=settings.sampler,
        rho=settings.rho[number],
        turn=_turn(settings, number, item),
    )
    for _ in range(settings.later_steps[number - 1]):
        step_done()
    return made


def _walked(
    denoise: Denoiser, sigmas: Tensor, stream: Noise, settings: Settings, step_done: Callable[[], None]
) -> Tensor:
    """What the sampler draws, from noise alone."""
    levels = sigmas.float()
    x = stream(0) * levels[0]
    for step in sample.SAMPLERS[settings.sampler](denoise, x, levels, stream):
        step_done()
        x = step.x
    return x.float()


def _noise(settings: Settings, number: int, shape: tuple[int, int], frames: int, item: int) -> Noise:
    """The noise of stage `number`: each its own, and the same for however many sounds."""
    return noise.scroll(shape, 0, frames, seed=settings.seed, item=number * STAGE + item)


def _turn(settings: Settings, number: int, item: int) -> Callable[[int], int] | None:
    """Where the windows of stage `number` begin, for a loop."""
    return turns(settings.seed, number * STAGE + item) if settings.loop else None


def _any(stage: Model) -> Config | mel_vocoder.Config:
    """The configuration of a stage or a vocoder."""
    assert isinstance(stage.config, noise2music.Config | mel_vocoder.Config)
    return stage.config
