"""Sounds by a prior over a codec's latents: coordinates drawn by diffusion, played by the codec."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sfumato.diffusion import guide, noise, sample, schedule
from sfumato.errors import InputError, ModelError
from sfumato.player import axes
from sfumato.systems import rave_prior

if TYPE_CHECKING:
    from collections.abc import Callable

    from sfumato.model import Model
    from sfumato.tasks.draw import Settings
    from sfumato.tasks.takes import Array

SECONDS = 8.0
"""Length of a sound where none is asked for."""


def length_of(settings: Settings, config: rave_prior.Config) -> int:
    """Samples of each sound.

    Raises
    ------
    InputError
        What was asked for is not this model's to give.
    """
    if settings.loop or settings.kind is not None or settings.grid != "karras":
        raise InputError(f"The prior of {config.codec} knows no loops, kinds or grids but karras. Leave them out.")
    return max(1, round((settings.seconds or SECONDS) * config.sample_rate))


@torch.no_grad()
def draw(model: Model, settings: Settings, n_samples: int, item: int, step_done: Callable[[int], None]) -> Array:
    """One sound, ``(1, n_samples)``: the same for an item of a seed whatever else is drawn.

    Raises
    ------
    ModelError
        The codec is missing, broken, or another one than the prior was trained with.
    """
    config = model.config
    assert isinstance(config, rave_prior.Config)
    codec = rave_prior.codec_of(config)
    if not config.codec_digest:
        raise ModelError(
            f"{model.name} doesn't say which codec it was trained with. If it was {config.codec} as it is here, write "
            f"codec_digest: {codec.digest} below config in its model.yaml."
        )
    hop, delay = codec.hop_length, codec.latency(codec.hop_length)
    frames = max(-(-(n_samples + delay) // hop), config.frames)
    stream = noise.walk((config.dims, frames), seed=settings.seed, items=[item])
    sigmas = schedule.karras(settings.steps, config.sigma_min, config.sigma_max).float()
    denoise = guide.windows(rave_prior.denoiser(model.network), config.frames, config.frames // 2)
    x = stream(0) * config.sigma_max
    for step in sample.SAMPLERS[settings.sampler](denoise, x, sigmas, stream):
        step_done(step.i)
        x = step.x
    latent = axes.latent(codec.weights, x.numpy() * axes.deviations(codec.weights, config.dims)[:, None])
    made, _ = codec.decode(latent, codec.init(1, block=frames * hop))
    return np.asarray(made[0, :, delay : delay + n_samples], np.float64)
