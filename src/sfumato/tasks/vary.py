"""What Dance Diffusion makes of a given sound: variations, sounds between two, a gap filled, an end gone on with.

- A variation is the sound with noise of some level added and taken off again: the level, the strength, says how much of
  the sound is drawn anew. The same item has the same noise at every strength.
- Between two sounds: both are followed up the probability-flow ODE, which is deterministic, to the noise that they
  would be drawn from; the way between these noises is an arc, channel by channel, and its points are followed down.
- A gap or an extension is drawn while every guess is made to agree with what is known (`diffusion.guide.keep`). Known
  samples are then the recording's own.

A model of one channel treats each channel of a sound alike, with the same noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soxr
import torch
from pydantic import Field, model_validator
from torch import Tensor

from sfumato.audio import Recording, open_recording, write, write_edited
from sfumato.config import Settings as BaseSettings
from sfumato.diffusion import guide, noise, sample
from sfumato.diffusion.noise import slerp
from sfumato.errors import InputError
from sfumato.model import Model
from sfumato.systems.dance_diffusion import Config
from sfumato.tasks.generate import Sampler, denoiser, label_of, levels
from sfumato.tasks.takes import SUBTYPE, Array, Progress, Take, Written, check, take, write_all

if TYPE_CHECKING:
    from jaxtyping import Float

    from sfumato.diffusion.precondition import Denoiser

PEAK = 0.7
"""Peak that a sound is brought to before the model sees it; it was trained on peaks of 0.32 to 0.9."""

LONGEST_S = 600.0
QUIETEST = 1e-5
LATE_S = 0.008
"""A sound that begins within this starts its window."""


class Settings(BaseSettings):
    """What to make of a sound, and how."""

    strength: float = Field(0.3, gt=0, le=1, description="variations: 0.1 hardly touches the sound, 1 is another one")
    count: int = Field(1, ge=1, le=10_000, description="how many; several are OUT-1.wav, OUT-2.wav and on")
    seed: int = Field(0, ge=0, lt=2**63, description="seed: take 3 of a seed is the same however many are made")
    other: str | None = Field(None, description="sound to go towards, instead of varying")
    steps_between: int = Field(3, ge=1, le=1000, description="with another sound: how many sounds lie between the two")
    gap: str | None = Field(None, description="START:STOP in seconds: draw this anew, keep the rest")
    extend: float | None = Field(None, gt=0, le=LONGEST_S, description="seconds to go on after the end, keeping all")
    kind: str | None = Field(None, description="kind of sound to make of it, such as kick, if the model knows any")
    cfg_scale: float = Field(1.0, ge=0, le=20, description="how strictly the kind is kept to; costs twice unless 1")
    steps: int = Field(24, ge=2, le=1000, description="steps of the sampler")
    sampler: Sampler = Field("dpmpp_2m", description="sampler; sounds between two always take heun, the exactest")

    @model_validator(mode="after")
    def _one_thing(self) -> Settings:
        wanted = {"with": self.other, "gap": self.gap, "extend": self.extend}
        given = [name for name, value in wanted.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are different things to do: ask for one")
        if self.other is not None and self.count != 1:
            raise ValueError("with another sound, steps_between says how many")
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
        if info.nonfinite:
            raise InputError(f"{source} holds {info.nonfinite} samples that are NaN or infinite. Repair it first.")
        if settings.gap is not None:
            return _fill_file(model, recording, destination, settings, progress)
        if info.n_samples > LONGEST_S * info.sample_rate:
            raise InputError(f"{source} lasts {info.n_samples / info.sample_rate:.0f} s. Give up to {LONGEST_S:g} s.")
        audio = recording.read(0, info.n_samples)
        if settings.extend is not None:
            return _extend_file(model, recording, audio, destination, settings, progress)
        clip = clip_of(audio, info.sample_rate, config)
        about = {"input": str(source), "sample_rate": config.sample_rate}
        if settings.other is None:
            check(destination, settings.count, config.sample_rate, info.channels, clip.n, source)
            takes = variations(model, clip, settings, progress)
            return write_all(destination, takes, settings.count, model, settings, about)
    with open_recording(settings.other) as recording:
        rate = recording.info.sample_rate
        if recording.info.nonfinite or recording.info.n_samples > LONGEST_S * rate:
            raise InputError(f"{settings.other} is longer than {LONGEST_S:g} s or holds NaN. Cut or repair it.")
        second = recording.read(0, recording.info.n_samples)
    first, other = _alike(audio, info.sample_rate, second, rate, config)
    check(destination, settings.steps_between, config.sample_rate, len(first.x), first.n, source)
    takes = between(model, first, other, settings, progress)
    return write_all(destination, takes, settings.steps_between, model, settings, about | {"other": settings.other})


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
        raise InputError(f"A sound of {audio.shape[1]} samples at {sample_rate} Hz is too short. Give 2 or more.")
    n = max(n or 0, at_rate.shape[1])
    channels = config.network.channels
    items = at_rate[:, None] if channels == 1 else _channels(at_rate, channels)[None]
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
    sigmas = levels("karras", settings.steps, config, strength_sigma(settings.strength, config))
    for item in range(settings.count):
        stream = _noise(clip, settings.seed, item)
        x = clip.x + float(sigmas[0]) * stream(0)
        steps = sample.SAMPLERS[settings.sampler](denoise, x, sigmas, stream)
        drawn = _followed(steps, item, settings.count, len(sigmas) - 1, progress)
        yield take(_audio(drawn, clip.n) / clip.gain, config.sample_rate, item, sigma=float(sigmas[0]))


@torch.no_grad()
def between(model: Model, first: _Clip, second: _Clip, settings: Settings, progress: Progress) -> Iterator[Take]:
    """Sounds on the arc from the noise of `first` to that of `second`, the ends left out."""
    config = _config(model)
    denoise = _denoiser(model, first, settings)
    count, steps = settings.steps_between, settings.steps
    sigmas = levels("karras", steps, config, config.sigma_max)
    ends = []
    for number, clip in enumerate((first, second)):
        upwards = sample.heun(denoise, clip.x, sigmas[:-1].flip(0))
        ends.append(_followed(upwards, number, count + 2, steps, progress))
    for item in range(count):
        weight = (item + 1) / (count + 1)
        downwards = sample.heun(denoise, slerp(ends[0], ends[1], weight), sigmas)
        drawn = _followed(downwards, item + 2, count + 2, steps, progress)
        gain = math.exp((1 - weight) * math.log(first.gain) + weight * math.log(second.gain))
        yield take(_audio(drawn, first.n) / gain, config.sample_rate, item, weight=weight)


@torch.no_grad()
def fills(
    model: Model, audio: Array, sample_rate: int, gap: tuple[int, int], settings: Settings, progress: Progress
) -> Iterator[Array]:
    """Draws ``(channels, stop - start)`` of the samples [start, stop) of `audio`; what is there now is not looked at.

    The draws have the rate and the channels of `audio`; `stop` may lie beyond its end.

    Raises
    ------
    InputError
        All that is known is silent, or there is nothing known.
    """
    config, (start, stop) = _config(model), gap
    rest = audio.copy()
    rest[:, start:stop] = 0.0
    ratio = config.sample_rate / sample_rate
    clip = clip_of(rest, sample_rate, config, math.ceil(max(stop, audio.shape[1]) * ratio))
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
        here = resampled(_channels(drawn, len(audio)), config.sample_rate, sample_rate)
        here = np.pad(here, ((0, 0), (0, max(0, stop - here.shape[1]))))[:, start:stop]
        yield np.clip(here, -1.0, 1.0)


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
    takes = (Take(fill, info.sample_rate, item, 1.0, {}) for item, fill in enumerate(made))
    about = {"input": str(info.path), "sample_rate": info.sample_rate, "gap_samples": [start, stop]}
    save = partial(_paste, recording, start)
    return write_all(destination, takes, settings.count, model, settings, about, save)


def _paste(recording: Recording, start: int, path: Path, fill: Take) -> None:
    write_edited(recording, path, [(start, fill.audio)])


def _extend_file(
    model: Model, recording: Recording, audio: Array, destination: Path, settings: Settings, progress: Progress
) -> Written:
    """The recording, gone on with."""
    info, config = recording.info, _config(model)
    more = round((settings.extend or 0.0) * info.sample_rate)
    if more < 1:
        raise InputError(f"An extension of {settings.extend} s is less than a sample at {info.sample_rate} Hz.")
    check(destination, settings.count, info.sample_rate, info.channels, info.n_samples + more, info.path)
    # What lies further back than a window can't be seen from the end.
    kept = min(info.n_samples, math.ceil(config.n_samples * info.sample_rate / config.sample_rate))
    made = fills(model, audio[:, -kept:], info.sample_rate, (kept, kept + more), settings, progress)
    takes = (
        Take(np.concatenate([audio, fill], axis=1), info.sample_rate, item, 1.0, {}) for item, fill in enumerate(made)
    )
    about = {"input": str(info.path), "sample_rate": info.sample_rate, "from_sample": info.n_samples}
    subtype = SUBTYPE if recording.bits else "DOUBLE" if recording.dtype == np.float64 else "FLOAT"
    save = partial(_save, subtype)
    return write_all(destination, takes, settings.count, model, settings, about, save)


def _save(subtype: str, path: Path, one: Take) -> None:
    write(path, one.audio, one.sample_rate, subtype)


def _alike(first: Array, rate: int, second: Array, other_rate: int, config: Config) -> tuple[_Clip, _Clip]:
    """Two sounds as clips of one length and one number of channels."""
    channels = max(len(first), len(second))
    n = max(round(audio.shape[1] * config.sample_rate / r) for audio, r in ((first, rate), (second, other_rate)))
    clips = [clip_of(_channels(audio, channels), r, config, n) for audio, r in ((first, rate), (second, other_rate))]
    longest = max(clip.n for clip in clips)  # a resampler may round up
    one, other = (clip_of(_channels(a, channels), r, config, longest) for a, r in ((first, rate), (second, other_rate)))
    return one, other


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


def _channels(audio: Array, channels: int) -> Array:
    """Audio with so many channels: their mean, or the first ones, the last one again where there are too few."""
    if channels == 1:
        return np.asarray(audio.mean(axis=0, keepdims=True))
    missing = max(0, channels - len(audio))
    return np.concatenate([audio, np.repeat(audio[-1:], missing, axis=0)])[:channels]


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
