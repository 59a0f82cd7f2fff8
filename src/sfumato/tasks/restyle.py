"""Music of a sound: what a model of the system riffusion makes of it towards a prompt, where a map lets it change.

The sound is brought to the level that the model knows, drawn anew in stretches (`tasks.stretches`) at its own phases,
and brought back: to its own level, rate and channels. What is kept is the sound's own; each channel is treated alike,
with the same noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from sfumato.audio import open_recording
from sfumato.errors import InputError
from sfumato.model import Model
from sfumato.signal import complex_spectrogram, spectrogram_image, strength_map
from sfumato.signal.complex_spectrogram import LEVEL
from sfumato.systems import everyday
from sfumato.systems.riffusion import Config
from sfumato.tasks import images, sheet
from sfumato.tasks import strength as maps
from sfumato.tasks.music import Walked, config_of, denoiser_of, how, sigmas_of, told
from sfumato.tasks.prompts import notes_on
from sfumato.tasks.strength import Map
from sfumato.tasks.stretches import Edit, Walk, frames_of, n_stretches, pictures, sounds
from sfumato.tasks.takes import Array, Progress, Take, Written, joined
from sfumato.tasks.vary import resampled

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

LONGEST_S = 300.0
QUIETEST = 1e-5
PEAK = 0.95
STRENGTH = 0.7
LOUDNESS = "loudness"
"""The published mask."""


class Settings(Walked):
    """What to make of a sound, and how."""

    strength: float | None = Field(
        None, gt=0, le=1, description=f"how much changes: 0.1 hardly anything, 1 all; by default {STRENGTH}"
    )
    mask: str | None = Field(
        None,
        description="where it changes: loudness (the published mask), "
        + ", ".join(maps.SELECTORS[1:])
        + "; boxes of seconds, hertz and strength such as 1:2.5@200:4000=0.8; or a grey PNG, white kept, black changed",
    )
    invert: bool = Field(False, description="turn the mask round")
    brightness: float | None = Field(
        None, ge=0, description=f"mask loudness: how light greys become; by default {strength_map.BRIGHTNESS}"
    )
    contrast: float | None = Field(
        None, ge=0, description=f"mask loudness: a threshold at the mean if large; by default {strength_map.CONTRAST}"
    )
    downshift: int | None = Field(
        None, ge=0, le=255, description=f"mask loudness: loud parts stay for (255 - this) / 255 of the steps; "
        f"by default {strength_map.DOWNSHIFT}"
    )

    @model_validator(mode="after")
    def _of_a_sound(self) -> Settings:
        knobs = {"brightness": self.brightness, "contrast": self.contrast, "downshift": self.downshift}
        given = [name for name, value in knobs.items() if value is not None]
        if given and self.mask != LOUDNESS:
            raise ValueError(f"{' and '.join(given)} is for the mask loudness: ask for it")
        if self.invert and self.mask in (None, LOUDNESS):
            raise ValueError("invert turns a mask round: give one other than loudness")
        if self.then is not None and self.alpha is None:
            raise ValueError("then takes alpha here: a place between the two prompts")
        return self


def transform(model: Model, source: Path, destination: Path, settings: Settings, progress: Progress) -> Written:
    """Files of what becomes of the sound `source`, and the record of how (see `tasks.transform`).

    Raises
    ------
    InputError
        The sound is silent, too long or damaged, or the mask can't be used.
    ResourceError
        The disk is full or the folder can't be written.
    """
    notes = notes_on(settings)
    with open_recording(source) as recording:
        info, audio = recording.info, recording.whole(LONGEST_S)
    read = [Path(settings.mask)] if settings.mask and settings.mask.lower().endswith(".png") else []
    made = restyled(model, audio, info.sample_rate, settings, progress)
    about = {"input": str(source), "sample_rate": info.sample_rate}
    shape = info.sample_rate, info.channels, info.n_samples
    return sheet.write_seen(destination, made, model, settings, about, shape, notes, source, read)


@dataclass(frozen=True)
class Given:
    """A sound as the model takes it."""

    audio: Float[Tensor, "c n"]
    """At the model's rate and level."""
    gain: float
    """What the sound was multiplied by."""
    source: Float[Tensor, "c 2 f t"]
    """Its pictures."""


def given(audio: Array, sample_rate: int, config: Config) -> Given:
    """A sound ``(channels, samples)`` as the model takes it.

    Raises
    ------
    InputError
        It is silent or constant, too short, or holds values that are not finite.
    """
    if not np.isfinite(audio).all():
        raise InputError("The sound holds values that are NaN or infinite. Repair it first.")
    loudest = float(np.abs(audio).max(initial=0.0))
    if loudest < QUIETEST:
        raise InputError(f"The sound is silent (peak {loudest:.1e}). Give one that can be heard.")
    least_s = 2 * config.half / config.sample_rate
    if audio.shape[1] < least_s * sample_rate:
        raise InputError(f"The sound has {audio.shape[1]} samples. Give at least {1000 * least_s:.0f} ms.")
    if float(np.ptp(audio, axis=1).max()) < QUIETEST:
        raise InputError("The sound is constant: nothing of it can be heard. Give one that can be.")
    rms = float(np.sqrt(np.mean(np.square(audio))))
    gain = min(LEVEL / rms, PEAK / loudest)
    own = torch.from_numpy(np.ascontiguousarray(gain * resampled(audio, sample_rate, config.sample_rate)))
    bins = complex_spectrogram.bins(own, config.half)
    return Given(own, gain, complex_spectrogram.picture(bins, config.sample_rate).float())


@dataclass(frozen=True)
class Mapped:
    """A map as a walk takes it."""

    hold: Float[Tensor, "f t"]
    sigmas: Float[Tensor, " n"]
    free: Bool[Tensor, "f t"]
    """Where the sound isn't kept."""
    about: dict[str, float | int | None]


def mapped(sound: Given, settings: Settings, steps: int, config: Config) -> Mapped:
    """Where a sound may change and the walk that changes it there.

    Raises
    ------
    InputError
        There is no such mask, or it keeps everything.
    """
    most = settings.strength or STRENGTH
    mono = sound.audio.mean(dim=0)
    loudest = sound.audio[int(sound.audio.square().mean(dim=1).argmax())]
    if float(mono.square().mean()) < 0.25 * float(loudest.square().mean()):
        mono = loudest  # channels that cancel out
    if settings.mask == LOUDNESS:
        start = float(everyday.release(torch.tensor(most), config.strength))
        sigmas = sigmas_of(config, steps, start)
        held, meaning = loudness(mono, config, settings, sound.source.shape[3])
        hold = torch.from_numpy(held).float()
        told = {"held": meaning.held, "hold": meaning.hold, "threshold": meaning.threshold, "levels": meaning.levels}
        return Mapped(hold, sigmas, hold < 1, told)
    bins = complex_spectrogram.bins(mono[None], config.half)[0]
    asked = maps.of(settings.mask or "all", bins, config.sample_rate, settings.invert)
    changes = torch.from_numpy(asked * most).float()
    if not changes.any():
        raise InputError("The mask keeps everything: nothing would change. Give another, or --invert.")
    release = everyday.release(changes, config.strength)
    sigmas = sigmas_of(config, steps, float(release.max()))
    return Mapped(everyday.hold(release, sigmas), sigmas, changes > 0, {"mean_strength": float(changes.mean())})


def loudness(
    mono: Float[Tensor, " n"], config: Config, settings: Settings, frames: int
) -> tuple[Map, strength_map.Meaning]:
    """The published map of a sound's Riffusion picture, on the model's places; and what it comes to.

    Raises
    ------
    InputError
        The sound is too short for a picture.
    """
    parameters = spectrogram_image.Parameters()
    grey = images.draw(mono.numpy()[None], config.sample_rate, parameters).pixels[..., 0]
    knobs = (
        strength_map.BRIGHTNESS if settings.brightness is None else settings.brightness,
        strength_map.CONTRAST if settings.contrast is None else settings.contrast,
        strength_map.DOWNSHIFT if settings.downshift is None else settings.downshift,
    )
    held = strength_map.loudness(grey, *knobs)
    on_places = 1 - maps.from_picture(held, config.half, frames, config.sample_rate, parameters.f_max)
    return on_places, strength_map.meaning(grey, held)


def restyled(
    model: Model,
    audio: Array,
    sample_rate: int,
    settings: Settings,
    progress: Progress = lambda done, total, text: None,
) -> Iterator[Take]:
    """What becomes of a sound ``(channels, samples)``, take by take, at its own rate and level.

    Errors as for `transform`.
    """
    notes_on(settings)
    config = config_of(model)
    sound = given(audio, sample_rate, config)
    frames = frames_of(sound.audio.shape[1], config)
    first = mapped(sound, settings, settings.steps, config)
    windows = n_stretches(config, frames) * len(audio)
    chosen = how(model, settings, windows, float(first.sigmas[0]))
    where = first if chosen.steps == settings.steps else mapped(sound, settings, chosen.steps, config)
    denoise = denoiser_of(model, settings, chosen, settings.alpha or 0.0)
    steps = n_stretches(config, frames) * chosen.steps * len(audio)
    for item in range(settings.count):
        walk = Walk(
            denoise=lambda second: denoise,
            sigmas=where.sigmas,
            sampler=settings.sampler,
            seed=settings.seed,
            item=item,
            step_done=told(progress, item, settings.count, steps),
        )
        drawn = torch.cat([_drawn(config, walk, sound, where, channel) for channel in range(len(audio))])
        gone, new = _exchanged(sound.audio, drawn, where.free)
        back = resampled(torch.cat([gone, new]).numpy() / sound.gain, config.sample_rate, sample_rate)
        back = np.pad(back, ((0, 0), (0, max(0, audio.shape[1] - back.shape[1]))))[:, : audio.shape[1]]
        kept, put = audio - back[: len(audio)], back[len(audio) :]
        about = {"steps": chosen.steps, "cfg_scale": chosen.cfg_scale}
        yield joined(kept, put, sample_rate, item, **about, **where.about)


def _exchanged(
    before: Float[Tensor, "c n"], drawn: Float[Tensor, "c n"], free: Bool[Tensor, "f t"]
) -> tuple[Float[Tensor, "c n"], Float[Tensor, "c n"]]:
    """What leaves a sound and what takes its place, as loud, where it may change; silent channels stay silent."""
    if not bool(free.all()):
        before, drawn = strength_map.limited(before, free), strength_map.limited(drawn, free)
    was, made = (x.square().mean(dim=1, keepdim=True).sqrt() for x in (before, drawn))
    return before, drawn * (was / made.clamp_min(1e-9))


def _drawn(config: Config, walk: Walk, sound: Given, where: Mapped, channel: int) -> Float[Tensor, "1 n"]:
    """One channel, drawn anew where it may be."""
    source, n = sound.source[channel : channel + 1], sound.audio.shape[1]
    made = pictures(config, replace(walk, edit=partial(_edit, source, where.hold)), source.shape[3])
    return torch.from_numpy(np.concatenate(list(sounds(made, config)), axis=1)[:, :n])


def _edit(source: Tensor, hold: Tensor, first: int, n: int) -> Edit:
    """What frames [first, first + n) are made of; beyond the sound's end there is silence, and it is kept."""
    spare = max(0, first + n - source.shape[3])
    end = torch.nn.functional.pad
    return Edit(
        end(source[..., first : first + n], (0, min(spare, n))),
        end(hold[:, first : first + n], (0, min(spare, n)), value=1.0),
    )
