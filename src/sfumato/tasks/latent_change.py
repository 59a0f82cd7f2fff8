"""What a latent generator (make_an_audio) makes of a given sound: personalised generation, and audio inpainting.

The sound is brought to latents, and drawn on from there towards a prompt: all of it, noised as far as is asked [1]_, or
what a mask leaves open of its picture, in time, frequency or both, while the rest is kept. What comes back is what the
model draws: one channel at its rate, as long as the sound and about as loud.

References
----------
.. [1] C. Meng et al., "SDEdit", arXiv 2108.01073: what Make-An-Audio's personalised generation is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field, model_validator
from torch.nn import functional

from sfumato.audio import open_recording
from sfumato.errors import InputError
from sfumato.networks.mel_vae import STEP
from sfumato.signal import complex_spectrogram, strength_map
from sfumato.signal.complex_spectrogram import LEVEL
from sfumato.signal.log_mel import HOP, SILENCE, centres, log_mel
from sfumato.tasks import sheet, sight
from sfumato.tasks import strength as maps
from sfumato.tasks.latent_music import (
    LONGEST_S,
    Drawn,
    Parts,
    about,
    config_of,
    drawn,
    how,
    led,
    parts_of,
    picture_of,
    seen_in,
    sound_of,
)
from sfumato.tasks.music import How, arithmetic, told
from sfumato.tasks.takes import Array, Progress, Take, Written, joined
from sfumato.tasks.vary import resampled

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from sfumato.model import Model
    from sfumato.systems.make_an_audio import Config

QUIETEST = 1e-5
STRENGTH = 0.6
OPEN = 0.5
"""Cells whose strength on the map is at least this are drawn anew."""
FINE = 512
"""Bins of the map of the sound itself: 15.6 Hz at 16 kHz; as many samples from frame to frame."""


class Settings(Drawn):
    """What to make of a sound, and how."""

    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        description=f"how much changes: 0.1 hardly anything, 1 all; by default {STRENGTH}, or 1 where there is a mask",
    )
    mask: str | None = Field(
        None,
        description="where it changes, the rest is kept: "
        + ", ".join(maps.SELECTORS[1:])
        + "; boxes of seconds and hertz such as 1:2.5@200:4000; or a grey PNG, white kept, black changed",
    )
    invert: bool = Field(False, description="turn the mask round")

    @model_validator(mode="after")
    def _masked(self) -> Settings:
        if self.invert and self.mask is None:
            raise ValueError("invert turns a mask round: give one")
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
    config = config_of(model)
    with open_recording(source) as recording:
        info, audio = recording.info, recording.whole(LONGEST_S)
    read = [Path(settings.mask)] if settings.mask and settings.mask.lower().endswith(".png") else []
    read += [sight.file_and_time(settings.image)[0]] if settings.image else []
    rate, image = config.sample_rate, seen_in(settings)
    settings, notes = led(settings)
    if (info.sample_rate, info.channels) != (rate, 1):
        had = f"the sound has {info.channels} at {info.sample_rate} Hz"
        notes += (f"{model.name} draws one channel at {rate} Hz; {had}",)
    made = changed(model, audio, info.sample_rate, settings, progress)
    shape = rate, 1, round(info.n_samples * rate / info.sample_rate)
    told_of = {"input": str(source), "sample_rate": rate, "arithmetic": arithmetic(), **image}
    return sheet.write_seen(destination, made, model, settings, told_of, shape, notes, source, read)


def changed(
    model: Model,
    audio: Array,
    sample_rate: int,
    settings: Settings,
    progress: Progress = lambda done, total, text: None,
) -> Iterator[Take]:
    """What becomes of a sound ``(channels, samples)``, take by take: one channel at the model's rate.

    Where a mask keeps the sound, in time and in frequency, it stays what it is: what comes out of the model takes its
    place elsewhere alone (`strength_map.limited`).

    Raises
    ------
    InputError
        It is silent, too long, or holds values that are not finite; or the mask can't be used.
    """
    config, parts, (settings, _) = config_of(model), parts_of(model), led(settings)
    own, gain = heard(audio, sample_rate, config)
    mel = log_mel(own, config.sample_rate)
    kept = torch.zeros(mel.shape[1:], dtype=torch.bool) if settings.mask is None else kept_by(settings, own, config)
    strength = settings.strength or (STRENGTH if settings.mask is None else 1.0)
    free = None if settings.mask is None else free_by(settings, own, config)
    rest = own - exchanged(own, free)
    chosen = how(model, parts, settings, latents_of(parts, mel, config).shape[3], own.shape[1])
    for item in range(settings.count):
        step_done = told(progress, item, settings.count, max(1, round(strength * chosen.steps)))
        picture = paint(model, parts, mel, kept, settings, chosen, item, strength, step_done)
        new = exchanged(torch.from_numpy(sound_of(parts, picture, own.shape[1], settings, item)), free)
        left, put = (x.double().numpy() / gain for x in (rest, new))
        yield joined(left, put, config.sample_rate, item, strength=strength, **about(chosen, settings))


def exchanged(audio: Float[Tensor, "1 n"], free: Bool[Tensor, "bins frames"] | None) -> Float[Tensor, "1 n"]:
    """What of a sound is exchanged: all of it, or what there is of it where a map is free."""
    return audio if free is None else strength_map.limited(audio.double(), free)


def free_by(settings: Settings, own: Float[Tensor, "1 n"], config: Config) -> Bool[Tensor, "bins frames"]:
    """Where the sound itself may change, finer than its picture's bands.

    Raises
    ------
    InputError
        So little of it is free that nothing is left inside the margins.
    """
    bins = complex_spectrogram.bins(own, FINE)[0]
    free = torch.from_numpy(maps.of(settings.mask or "all", bins, config.sample_rate, settings.invert)) >= OPEN
    if not strength_map.inner(free).any():
        hertz, seconds = (
            2 * strength_map.MARGIN_BINS * config.sample_rate / 2 / FINE,
            2 * strength_map.MARGIN_FRAMES * FINE / config.sample_rate,
        )
        raise InputError(
            f"The mask leaves too little free: a change ends {hertz / 2:.0f} Hz and {1000 * seconds / 2:.0f} ms before "
            f"what is kept. Open more than {hertz:.0f} Hz and {1000 * seconds:.0f} ms."
        )
    return free


def kept_by(settings: Settings, own: Float[Tensor, "1 n"], config: Config) -> Bool[Tensor, "80 s"]:
    """The cells of a sound's picture that its mask keeps: those all of which it keeps.

    Raises
    ------
    InputError
        There is no such mask, or it keeps everything.
    """
    rate, bins = config.sample_rate, complex_spectrogram.bins(own, HOP)[0]
    strength = torch.from_numpy(maps.of(settings.mask or "all", bins, rate, settings.invert))
    hertz, centre = complex_spectrogram.frequencies(HOP, rate).double(), centres(rate)
    band = (hertz[:, None] - centre).abs().argmin(dim=1)  # whose centre is nearest to each bin
    own_bin = (hertz[:, None] - centre).abs().argmin(dim=0)
    kept = strength[own_bin].scatter_reduce(0, band[:, None].expand_as(strength), strength, "amax") < OPEN
    if bool(kept.all()):
        raise InputError("The mask keeps everything: nothing would change. Give another, or --invert.")
    return kept


def paint(
    model: Model,
    parts: Parts,
    mel: Float[Tensor, "1 80 s"],
    kept: Bool[Tensor, "80 s"],
    settings: Drawn,
    chosen: How,
    item: int,
    strength: float = 1.0,
    step_done: Callable[[], None] = lambda: None,
) -> Float[Tensor, "1 80 s"]:
    """A picture with the cells drawn anew that aren't kept; the kept ones are exactly what they were.

    Latents are held where the picture is kept and so are its neighbours, as each latent sees more than its own cells.
    At a strength of 1, cells that are drawn anew are bridged by each band's mean before they are encoded.
    """
    config, s = config_of(model), mel.shape[2]
    count = kept.sum(dim=1, keepdim=True)
    mean = torch.where(count > 0, (mel[0] * kept).sum(dim=1, keepdim=True) / count.clamp(min=1), SILENCE)
    source = latents_of(parts, mel if strength < 1 else torch.where(kept, mel, mean), config)
    spare = source.shape[3] * STEP - s
    missing = functional.pad((~kept).float(), (0, spare))[None, None]
    near = functional.max_pool2d(functional.max_pool2d(missing, STEP), 3, stride=1, padding=1)[0, 0] > 0
    latents = drawn(
        model, settings, chosen, source.shape[3], item, step_done, source=source, known=~near, strength=strength
    )
    return torch.where(kept, mel, picture_of(parts, latents)[..., :s])


def latents_of(parts: Parts, mel: Float[Tensor, "1 f s"], config: Config) -> Float[Tensor, "1 c g t"]:
    """Latents of a picture, a window or more: silence follows it."""
    frames = max(config.n_frames, -(-mel.shape[2] // STEP))
    return parts.vae.encode(functional.pad(mel, (0, frames * STEP - mel.shape[2]), value=SILENCE))


def heard(audio: Array, sample_rate: int, config: Config) -> tuple[Float[Tensor, "1 n"], float]:
    """A sound's mean over channels at the model's rate and level, and what it was multiplied by; errors as above."""
    if audio.shape[1] > LONGEST_S * sample_rate:
        raise InputError(f"The sound lasts {audio.shape[1] / sample_rate:.0f} s. Give up to {LONGEST_S:g} s.")
    if not np.isfinite(audio).all():
        raise InputError("The sound holds values that are NaN or infinite. Repair it first.")
    own = resampled(audio.mean(axis=0, keepdims=True), sample_rate, config.sample_rate)
    if not own.shape[1]:
        raise InputError(f"The sound has {audio.shape[1]} samples at {sample_rate} Hz. Give one that can be heard.")
    rms = float(np.sqrt(np.mean(np.square(own))))
    if rms < QUIETEST:
        raise InputError(f"The sound is silent (RMS {rms:.1e}). Give one that can be heard.")
    return torch.from_numpy(np.ascontiguousarray(LEVEL / rms * own, np.float32)), LEVEL / rms
