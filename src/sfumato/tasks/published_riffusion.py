"""Generating and transforming with published Riffusion checkpoints (see `tasks.published_pictures` for what they do).

Each sound is drawn as a picture and found from it by the fast Griffin-Lim algorithm: its phases are new, and there is
nothing above `max_frequency`. A recording is changed as a whole: it keeps its length, rate, channels and level.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import soxr
from PIL import Image

from sfumato.audio import open_recording, to_channels
from sfumato.errors import InputError
from sfumato.tasks import images
from sfumato.tasks.images import sound_of
from sfumato.tasks.published_checkpoint import PublishedRiffusion, load_published
from sfumato.tasks.published_pictures import (
    CHANGED_STRENGTH,
    LONGEST_S,
    Drawn,
    Map,
    Settings,
    parameters_of,
    riffuse,
)
from sfumato.tasks.takes import Array, Progress, Take, Written, check, take, write_all

__all__ = ["Settings", "change", "draw", "files", "load_published", "pictures", "riffuse", "takes", "transform"]


def draw(
    published: PublishedRiffusion, settings: Settings, progress: Progress = lambda done, total, text: None
) -> Iterator[Take]:
    """Sounds of words, or on the way between two ends, one after another; each is computed alone.

    Raises
    ------
    InputError
        A setting, the prompt, or a picture can't be used.
    ModelError
        The checkpoint gives what is no picture.
    """
    for item, (alpha, drawn) in enumerate(pictures(published, settings, progress)):
        parameters = drawn.picture.parameters
        audio = sound_of(drawn.picture, settings.seed, settings.iterations)
        n = audio.shape[1] if settings.seconds is None else round(settings.seconds * parameters.sample_rate)
        yield take(audio[:, :n], parameters.sample_rate, 0 if settings.frames else item, alpha=alpha)


takes = draw
"""As `tasks.generate` calls it."""


def pictures(
    published: PublishedRiffusion, settings: Settings, progress: Progress
) -> Iterator[tuple[float, Drawn]]:
    """How far each sound of `draw` lies towards the other end, and its picture; errors as for `draw`."""
    if settings.seed_image is None:
        given = {"strength": settings.strength, "then_strength": settings.then_strength, "mask": settings.mask_image}
        for name, value in given.items():
            if value is not None:
                raise InputError(f"{name} says how much of a seed_image is drawn anew. Give one, or leave it out.")
    parameters, source, hold = parameters_of(published, settings), None, None
    columns = published.factor * published.shape[2]
    if settings.seconds is not None:
        columns = 1 + math.ceil(settings.seconds * parameters.sample_rate / parameters.hop_length)
    if settings.seed_image is not None:
        source, hold = images.read_picture(Path(settings.seed_image)), masked(settings)
    total = settings.frames or settings.count
    for number in range(total):
        alpha = (number / (total - 1)) ** settings.alpha_power if settings.frames else settings.alpha or 0.0
        item, told = 0 if settings.frames else number, partial(_told, settings, number, total, progress)
        yield alpha, riffuse(published, settings, source, hold, columns, alpha, item, told)


def masked(settings: Settings) -> Map | None:
    """What `mask_image` keeps: black is kept, as in upstream's masks.

    Raises
    ------
    InputError
        It is no picture.
    """
    if settings.mask_image is None:
        return None
    shown = images.read_picture(Path(settings.mask_image)).pixels
    return 1 - np.asarray(Image.fromarray(shown).convert("L"), np.float32) / 255


def change(
    published: PublishedRiffusion,
    audio: Array,
    sample_rate: int,
    settings: Settings,
    hold: Map | None = None,
    progress: Progress = lambda done, total, text: None,
    item: int = 0,
) -> Take:
    """What the checkpoint makes of a recording ``(channels, samples)``, as long, at its rate and level.

    Parameters
    ----------
    audio, sample_rate
        The recording, up to four minutes, and its rate in Hz.
    settings
        What to make of it; `seed_image`, `seconds` and `frames` are for `draw`.
    hold
        How much of its picture is kept, 1 all of it; of any size, as it is scaled to the picture's. None for what
        `mask_image` keeps, if there is one.
    item
        Number of the noise.

    Raises
    ------
    InputError
        The recording or a setting can't be used.
    """
    given = {"seed_image": settings.seed_image, "seconds": settings.seconds, "frames": settings.frames}
    for name, value in given.items():
        if value is not None:
            raise InputError(f"{name} is for drawing new sounds; a recording is changed as it is. Leave it out.")
    p, n = parameters_of(published, settings), audio.shape[1]
    if not n or not np.isfinite(audio).all():
        raise InputError("The recording is empty or not finite. Repair it first: sfumato repair finds such values.")
    if n > LONGEST_S * sample_rate:
        raise InputError(f"{n / sample_rate:.0f} s are too long for a picture. Give up to {LONGEST_S:g} s at once.")
    heard = np.asarray(soxr.resample(audio.T, sample_rate, p.sample_rate)).T if sample_rate != p.sample_rate else audio
    columns = 1 + heard.shape[1] // p.hop_length
    wide = published.factor * max(published.shape[2], math.ceil((columns + 1) / published.factor))
    padded = np.zeros((len(heard), (wide - 1) * p.hop_length))
    padded[:, : heard.shape[1]] = heard
    kept = masked(settings) if hold is None else hold
    own = {"strength": settings.strength or CHANGED_STRENGTH, "blend": settings.blend or _blend(hold)}
    drawn = riffuse(
        published,
        settings.model_copy(update=own),
        images.draw(padded, p.sample_rate, p),
        kept,
        alpha=settings.alpha or 0.0,
        item=item,
        told=partial(_told, settings, item, settings.count, progress),
        map_columns=columns,
    )
    made = sound_of(drawn.picture, settings.seed, settings.iterations)
    if sample_rate != p.sample_rate:
        made = np.asarray(soxr.resample(made.T, p.sample_rate, sample_rate)).T
    return take(to_channels(made[:, :n], len(audio)), sample_rate, item, alpha=settings.alpha or 0.0)


def files(published: PublishedRiffusion, out: Path, settings: Settings, progress: Progress) -> Written:
    """The sounds of `draw` as files, and the record of how they were made (see `tasks.generate`)."""
    p, count = parameters_of(published, settings), settings.frames or settings.count
    check(out, count, p.sample_rate, 1 + p.stereo, round(LONGEST_S * p.sample_rate))
    about = {"sample_rate": p.sample_rate, "licence": published.card.licence}
    return write_all(out, draw(published, settings, progress), count, published, settings, about)


def transform(
    published: PublishedRiffusion, source: Path, destination: Path, settings: Settings, progress: Progress
) -> Written:
    """Files of what becomes of the sound `source`, and the record of how (see `tasks.transform`)."""
    with open_recording(source) as recording:
        info, audio = recording.info, recording.whole(LONGEST_S)
    count, rate = settings.count, info.sample_rate
    check(destination, count, rate, info.channels, info.n_samples, source)
    made = (change(published, audio, rate, settings, None, progress, item) for item in range(count))
    about = {"input": str(source), "sample_rate": rate, "licence": published.card.licence}
    return write_all(destination, made, count, published, settings, about)


def _blend(hold: Map | None) -> str:
    """How greys are blended unless that is given: upstream's way for upstream's masks."""
    return "published" if hold is None else "graded"


def _told(settings: Settings, number: int, total: int, progress: Progress, done: int) -> None:
    """Report a step that is done."""
    progress(number * settings.steps + done, total * settings.steps, f"sound {number + 1} of {total}")
