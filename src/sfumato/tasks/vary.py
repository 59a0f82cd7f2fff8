"""What Dance Diffusion makes of a given sound: variations, sounds between two, a gap filled, an end gone on with.

- A variation is the sound with noise of some level added and taken off again: the level, the strength, says how much of
  the sound is drawn anew. The same item has the same noise at every strength.
- Between two sounds: both are followed up the probability-flow ODE, which is deterministic, to the noise that they
  would be drawn from; the way between these noises is an arc, channel by channel, and its points are followed down.
  The ODE begins at the lowest level, `sigma_min`, whose noise, the same for both, is therefore added first: without it
  a silent or noiseless stretch would stay so all the way up, and the end would be no noise that a sound is drawn from.
- A gap or an extension is drawn while every guess is made to agree with what is known (`diffusion.guide.keep`). Known
  samples are then the recording's own.

All come at the recording's own rate, with its channels, and as long as it is but for what was asked for.

A model of one channel treats each channel of a sound alike, with the same noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soxr
import torch
from pydantic import Field, model_validator
from torch import Tensor

from sfumato.audio import Recording, open_recording, to_channels, write_edited, write_extended
from sfumato.config import Settings as BaseSettings
from sfumato.diffusion import guide, noise, sample
from sfumato.diffusion.noise import slerp
from sfumato.errors import InputError
from sfumato.model import Model
from sfumato.systems.dance_diffusion import Config
from sfumato.tasks.draw import Sampler, denoiser, label_of, levels
from sfumato.tasks.takes import Array, Progress, Take, Written, check, take, write_all

if TYPE_CHECKING:
    from jaxtyping import Float

    from sfumato.diffusion.precondition import Denoiser

PEAK = 0.7
"""Peak that a sound is brought to before the model sees it; it was trained on peaks of 0.32 to 0.9."""

STRENGTH, BETWEEN = 0.3, 3
"""Where none is given."""

LONGEST_S = 600.0
QUIETEST = 1e-5
LATE_S = 0.008
"""A sound that begins within this starts its window."""


class Settings(BaseSettings):
    """What to make of a sound, and how."""

    strength: float | None = Field(
        None, gt=0, le=1, description=f"variations: 0.1 hardly changes it, 1 is another one; by default {STRENGTH}"
    )
    count: int = Field(1, ge=1, le=10_000, description="how many; several are OUT-1.wav, OUT-2.wav and on")
    seed: int = Field(0, ge=0, lt=2**63, description="seed: take 3 of a seed is the same however many are made")
    other: str | None = Field(None, description="sound to go towards, instead of varying")
    steps_between: int | None = Field(
        None, ge=1, le=1000, description=f"with another sound: how many lie between the two; by default {BETWEEN}"
    )
    gap: str | None = Field(None, description="START:STOP in seconds: draw this anew, keep the rest")
    extend: float | None = Field(None, gt=0, le=LONGEST_S, description="seconds to go on after the end, keeping all")
    kind: str | None = Field(None, description="kind of sound to make of it, such as kick, if the model knows any")
    cfg_scale: float = Field(1.0, ge=0, le=20, description="how strictly the kind is kept to; costs twice unless 1")
    steps: int = Field(24, ge=2, le=1000, description="steps of the sampler")
    sampler: Sampler = Field("dpmpp_2m", description="sampler; sounds between two always take heun, the exactest")

    @model_validator(mode="after")
    def _one_thing(self) -> Settings:
        wanted = {"other": self.other, "gap": self.gap, "extend": self.extend}
        given = [name for name, value in wanted.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are different things to do: ask for one")
        if self.other is not None and self.count != 1:
            raise ValueError("with another sound, it is steps_between that says how many")
        if self.other is not None and (self.seed != 0 or self.sampler not in ("dpmpp_2m", "heun")):
            raise ValueError("sounds between two take no seed, and no sampler but heun")
        if self.strength is not None and given:
            raise ValueError(f"strength is for variations, and {given[0]} asks for something else: leave one out")
        if self.steps_between is not None and self.other is None:
            raise ValueError("steps_between is for sounds between two: give another sound with it")
        if self.cfg_scale != 1 and self.kind is None:
            raise ValueError("cfg_scale says how strictly a kind is kept to: ask for a kind")
        return self


@dataclass(frozen=True)
class _Clip:
    """A sound as the model takes it."""

    x: Tensor
    """``(items, channels, n)``, n a window or more; each channel is an item of a model of one channel."""
    n: int
    """Samples of it that are the sound's."""
    gain: float
    """What it was multiplied by."""
    starts: bool
    """Whether it is one window in which a sound starts."""


def transform(model: Model, source: Path, destination: Path, settings: Settings, progress: Progress) -> Written:
    """Files of what becomes of the sound `source`, and the record of how (see `tasks.transform`).

    Raises
    ------
    InputError
        A sound, a gap or the kind can't be used.
    ResourceError
        The disk is full or the folder can't be written.
    """
    config = _config(model)
    with open_recording(source) as recording:
        info = recording.info
        recording.must_be_finite()
        if settings.gap is not None:
            return _fill_file(model, recording, destination, settings, progress)
        if settings.extend is not None:
            return _extend_file(model, recording, destination, settings, progress)
        audio = recording.whole(LONGEST_S)
        n, about = info.n_samples, {"input": str(source), "sample_rate": info.sample_rate}
        if settings.other is None:
            check(destination, settings.count, info.sample_rate, info.channels, n, source)
            clip = clip_of(audio, info.sample_rate, config, math.ceil(n * config.sample_rate / info.sample_rate))
            made = _returned(variations(model, clip, settings, progress), info.sample_rate, info.channels, n)
            return write_all(destination, made, settings.count, model, settings, about)
    with open_recording(settings.other) as recording:
        rate, second = recording.info.sample_rate, recording.whole(LONGEST_S)
    channels, count = max(len(audio), len(second)), settings.steps_between or BETWEEN
    n = max(n, math.ceil(second.shape[1] * info.sample_rate / rate))
    check(destination, count, info.sample_rate, channels, n, source)
    wanted = math.ceil(n * config.sample_rate / info.sample_rate)
    first, last = (
        clip_of(to_channels(one, channels), own_rate, config, wanted)
        for one, own_rate in ((audio, info.sample_rate), (second, rate))
    )
    made = _returned(between(model, first, last, settings, progress), info.sample_rate, channels, n)
    used = settings.model_copy(update={"sampler": "heun", "steps_between": count})
    return write_all(destination, made, count, model, used, about | {"other": settings.other})


def _returned(takes: Iterator[Take], sample_rate: int, channels: int, n: int) -> Iterator[Take]:
    """Takes at a recording's rate, with its channels and `n` samples."""
    for one in takes:
        audio = resampled(to_channels(one.audio, channels), one.sample_rate, sample_rate)[:, :n]
        audio = np.pad(audio, ((0, 0), (0, n - audio.shape[1])))
        back = take(audio, sample_rate, one.item, **one.how)
        yield replace(back, gain=back.gain * one.gain)


def clip_of(audio: Array, sample_rate: int, config: Config, n: int | None = None) -> _Clip:
    """A sound ``(channels, samples)`` as the model takes it, padded by silence to `n` samples and to a window.

    Raises
    ------
    InputError
        It is silent, or shorter than two samples of the model's.
    """
    loudest = float(np.abs(audio).max(initial=0.0))
    if loudest < QUIETEST:
        raise InputError(f"The sound is silent (peak {loudest:.1e}). Give one that can be heard.")
    at_rate = resampled(audio, sample_rate, config.sample_rate)
    if at_rate.shape[1] < 2:
        raise InputError(f"A sound of {audio.shape[1]} samples at {sample_rate} Hz is too short. Make it longer.")
    n = max(n or 0, at_rate.shape[1])
    channels = config.network.channels
    items = at_rate[:, None] if channels == 1 else to_channels(at_rate, channels)[None]
    x = np.zeros((*items.shape[:2], max(n, config.n_samples)))
    x[..., : items.shape[2]] = items * (PEAK / loudest)
    onset = int(np.argmax(np.abs(at_rate).max(axis=0) > 0.01 * loudest))
    starts = x.shape[2] == config.n_samples and onset <= LATE_S * config.sample_rate
    return _Clip(torch.from_numpy(x).float(), n, PEAK / loudest, starts)


def strength_sigma(strength: float, config: Config) -> float:
    """Noise level of a strength: from 40 dB below the model's sounds at 0, evenly in dB, to 40 dB above them at 1."""
    return float(config.sigma_data * 10 ** (4 * strength - 2))


@torch.no_grad()
def variations(model: Model, clip: _Clip, settings: Settings, progress: Progress) -> Iterator[Take]:
    """The clip with noise added and taken off again, once per take."""
    config = _config(model)
    denoise = _denoiser(model, clip, settings)
    strength = settings.strength or STRENGTH
    sigmas = levels("karras", settings.steps, config, strength_sigma(strength, config))
    for item in range(settings.count):
        stream = _noise(clip, settings.seed, item)
        x = clip.x + float(sigmas[0]) * stream(0)
        steps = sample.SAMPLERS[settings.sampler](denoise, x, sigmas, stream)
        drawn = _followed(steps, item, settings.count, len(sigmas) - 1, progress)
        how = {"strength": strength, "sigma": float(sigmas[0])}
        yield take(_audio(drawn, clip.n) / clip.gain, config.sample_rate, item, **how)


@torch.no_grad()
def between(model: Model, first: _Clip, second: _Clip, settings: Settings, progress: Progress) -> Iterator[Take]:
    """Sounds on the arc from the noise of `first` to that of `second`, the ends left out.

    Each sound goes up as the model knows it: as one that starts its window, or lies anywhere in it. Where the two
    differ, what lies between them is guessed as both, by their weights.
    """
    config = _config(model)
    own = [_denoiser(model, clip, settings) for clip in (first, second)]
    count, steps = settings.steps_between or BETWEEN, settings.steps
    sigmas = levels("karras", steps, config, config.sigma_max)
    ends = []
    for number, (clip, denoise) in enumerate(zip((first, second), own, strict=True)):
        lowest = clip.x + float(sigmas[-2]) * _noise(clip, settings.seed, 0)(0)
        upwards = sample.heun(denoise, lowest, sigmas[:-1].flip(0))
        ends.append(_followed(upwards, number, count + 2, steps, progress))
    for item in range(count):
        weight = (item + 1) / (count + 1)
        mixed = own[0] if first.starts == second.starts else guide.cfg(own[1], own[0], weight)
        downwards = sample.heun(mixed, slerp(ends[0], ends[1], weight), sigmas)
        drawn = _followed(downwards, item + 2, count + 2, steps, progress)
        gain = math.exp((1 - weight) * math.log(first.gain) + weight * math.log(second.gain))
        yield take(_audio(drawn, first.n) / gain, config.sample_rate, item, weight=weight)


@torch.no_grad()
def fills(
    model: Model, audio: Array, sample_rate: int, gap: tuple[int, int], settings: Settings, progress: Progress
) -> Iterator[Array]:
    """Draws ``(channels, stop - start)`` of the samples [start, stop) of `audio`; what is there now is not looked at.

    The draws have the rate and the channels of `audio`; `stop` may lie beyond its end. They may go beyond full scale.

    Raises
    ------
    InputError
        All that is known is silent, or there is nothing known.
    """
    config, (start, stop) = _config(model), gap
    ratio = config.sample_rate / sample_rate
    clip = clip_of(_bridged(audio, start, stop), sample_rate, config, math.ceil(max(stop, audio.shape[1]) * ratio))
    known = torch.zeros(clip.x.shape[-1], dtype=torch.bool)
    known[: math.floor(audio.shape[1] * ratio)] = True
    known[math.floor(start * ratio) : math.ceil(stop * ratio)] = False
    project = guide.known_samples(clip.x, known.expand(clip.x.shape))
    denoise = guide.keep(_denoiser(model, clip, settings), project)
    sigmas = levels("karras", settings.steps, config, config.sigma_max)
    for item in range(settings.count):
        stream = _noise(clip, settings.seed, item)
        x = clip.x * known + float(sigmas[0]) * stream(0)
        steps = sample.SAMPLERS[settings.sampler](denoise, x, sigmas, stream)
        drawn = _audio(_followed(steps, item, settings.count, len(sigmas) - 1, progress), clip.n) / clip.gain
        here = resampled(to_channels(drawn, len(audio)), config.sample_rate, sample_rate)
        yield np.pad(here, ((0, 0), (0, max(0, stop - here.shape[1]))))[:, start:stop]


def _bridged(audio: Array, start: int, stop: int) -> Array:
    """Audio up to `stop` or its end, a straight line in [start, stop): a jump there would ring on, resampled, outside.

    At an end of the audio the line is level; where nothing is known, it is 0.
    """
    out = np.pad(audio, ((0, 0), (0, max(0, stop - audio.shape[1]))))
    sides = [audio[:, place] for place in (start - 1, stop) if 0 <= place < audio.shape[1]] or [np.zeros(len(audio))]
    out[:, start:stop] = np.linspace(sides[0], sides[-1], stop - start + 2, axis=1)[:, 1:-1]
    return out


def resampled(audio: Array, sample_rate: int, wanted: int) -> Array:
    """Audio ``(channels, samples)`` at another sample rate, in time with what it was."""
    if sample_rate == wanted:
        return audio
    return np.asarray(soxr.resample(audio.T, sample_rate, wanted, quality="VHQ").T)


def _fill_file(
    model: Model, recording: Recording, destination: Path, settings: Settings, progress: Progress
) -> Written:
    """The recording with a gap drawn anew; only what is around the gap is read at once."""
    info, config = recording.info, _config(model)
    start, stop = _gap(settings.gap or "", info.sample_rate, info.n_samples)
    around = math.ceil(config.n_samples / 2 * info.sample_rate / config.sample_rate)
    first, last = max(0, start - around), min(info.n_samples, stop + around)
    audio = recording.read(first, last)
    check(destination, settings.count, info.sample_rate, info.channels, info.n_samples, info.path)
    made = fills(model, audio, info.sample_rate, (start - first, stop - first), settings, progress)
    about = {"input": str(info.path), "sample_rate": info.sample_rate, "gap_samples": [start, stop]}
    save = partial(_paste, recording, start)
    takes = _filled(made, info.sample_rate, info.n_samples)
    return write_all(destination, takes, settings.count, model, settings, about, save)


def _filled(fills: Iterator[Array], sample_rate: int, n: int) -> Iterator[Take]:
    """Fills of files of `n` samples: turned down they would no longer meet what is around, so they are clipped."""
    for item, fill in enumerate(fills):
        clipped = int((np.abs(fill) > 1.0).sum())
        how = {"samples": n, "seconds": n / sample_rate, "clipped_values": clipped}
        yield Take(np.clip(fill, -1.0, 1.0), sample_rate, item, 1.0, how)


def _paste(recording: Recording, start: int, path: Path, fill: Take, tags: Mapping[str, str]) -> None:
    write_edited(recording, path, [(start, fill.audio)], tags)


def _append(recording: Recording, path: Path, more: Take, tags: Mapping[str, str]) -> None:
    write_extended(recording, path, more.audio, tags)


def _extend_file(
    model: Model, recording: Recording, destination: Path, settings: Settings, progress: Progress
) -> Written:
    """The recording, gone on with."""
    info, config = recording.info, _config(model)
    more = round((settings.extend or 0.0) * info.sample_rate)
    if more < 1:
        raise InputError(f"An extension of {settings.extend} s is less than a sample at {info.sample_rate} Hz.")
    check(destination, settings.count, info.sample_rate, info.channels, info.n_samples + more, info.path)
    # What lies further back than a window can't be seen from the end.
    kept = min(info.n_samples, math.ceil(config.n_samples * info.sample_rate / config.sample_rate))
    audio = recording.read(info.n_samples - kept, info.n_samples)
    made = fills(model, audio, info.sample_rate, (kept, kept + more), settings, progress)
    about = {"input": str(info.path), "sample_rate": info.sample_rate, "from_sample": info.n_samples}
    takes = _filled(made, info.sample_rate, info.n_samples + more)
    return write_all(destination, takes, settings.count, model, settings, about, partial(_append, recording))


def _gap(text: str, sample_rate: int, n_samples: int) -> tuple[int, int]:
    """(start, stop) in samples from START:STOP in seconds."""
    start, colon, stop = text.partition(":")
    try:
        first, last = round(float(start) * sample_rate), round(float(stop) * sample_rate)
    except (ValueError, OverflowError):
        colon = ""
    if not colon:
        raise InputError(f"'{text}' is no gap. Write START:STOP in seconds, such as 0.20:0.45.")
    if not 0 <= first < last <= n_samples:
        length_s = n_samples / sample_rate
        raise InputError(f"Gap {text} is empty or not inside the sound (0 to {length_s:.3f} s). Give one inside it.")
    return first, last


def _config(model: Model) -> Config:
    assert isinstance(model.config, Config)
    return model.config


def _denoiser(model: Model, clip: _Clip, settings: Settings) -> Denoiser:
    label = label_of(settings.kind, _config(model))
    return denoiser(model, label, clip.starts, cfg_scale=settings.cfg_scale)


def _noise(clip: _Clip, seed: int, item: int) -> noise.Noise:
    """The noise of a take: the same for each channel of a model of one."""
    stream = noise.walk(clip.x.shape[1:], seed=seed, items=[item])
    return lambda step: stream(step).expand(clip.x.shape)


def _followed(
    steps: Iterator[sample.Step], item: int, count: int, per_item: int, progress: Progress
) -> Float[Tensor, "b c n"]:
    """The state after the last step."""
    x = None
    for step in steps:
        progress(item * per_item + step.i + 1, count * per_item, f"sound {item + 1} of {count}")
        x = step.x
    assert x is not None
    return x


def _audio(x: Float[Tensor, "b c n"], n: int) -> Array:
    """The first `n` samples of a state as ``(channels, n)``."""
    return np.asarray(x.flatten(0, 1)[:, :n].double().numpy())
