"""Sounds that a model draws itself, to go on learning them beside something new (prior preservation [1]_).

References
----------
.. [1] N. Ruiz et al., "DreamBooth: fine tuning text-to-image diffusion models for subject-driven generation", arXiv
       2208.12242, section 3.3.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sfumato.data.few_clips import encoded, fields
from sfumato.diffusion import noise, sample, schedule
from sfumato.errors import InputError, ResourceError
from sfumato.model import read_tensors, write_tensors
from sfumato.networks import band_unet
from sfumato.signal import complex_spectrogram
from sfumato.systems import riffusion
from sfumato.wanted import Wanted

if TYPE_CHECKING:
    from jaxtyping import Float

    from sfumato.data.examples import Progress

TEMPLATES = ("{}", "a recording of {}", "the sound of {}", "music with {}")
"""Prompts around a word."""
UNTOLD_EVERY = 8
"""One sound in so many is drawn without a prompt."""
FILE = "prior.safetensors"


def own_prompts(kind: str, count: int) -> list[str]:
    """What sounds are drawn for: `TEMPLATES` around the kind in turn, and at times nothing, "" ."""
    told = [TEMPLATES[i % len(TEMPLATES)].format(kind) for i in range(count)]
    return ["" if (i + 1) % UNTOLD_EVERY == 0 else prompt for i, prompt in enumerate(told)]


def draw(
    network: nn.Module, config: riffusion.Config, prompts: Sequence[str], steps: int, seed: int, progress: Progress
) -> Float[Tensor, "n n_samples"]:
    """Sounds that a network draws without guidance; sound i is a function of network, prompt, steps, seed and i."""
    frames = config.n_frames + config.network.multiple  # a few more than a window's, which all lie in the sound
    sigmas = schedule.karras(steps, config.sigma_min, config.sigma_max).float()
    sounds = torch.zeros(len(prompts), config.n_samples)
    for i, prompt in enumerate(prompts):
        progress(i, len(prompts), "drawing the model's own sounds")
        x = noise.walk((2, config.half, frames), seed=seed, items=[i])(0) * config.sigma_max
        denoise = band_unet.denoiser(network, config.network.words, Wanted(**fields(encoded([prompt]), [0])))
        with torch.no_grad():
            drawn = sample.last(sample.dpmpp_2m(denoise, x, sigmas))
        bins = complex_spectrogram.unpicture(drawn, config.sample_rate)
        sounds[i] = complex_spectrogram.sound(bins, config.n_samples)[0]
    return sounds


def kept(out: Path, what: str) -> dict[str, Tensor] | None:
    """What was drawn in the folder `out` before, if it is `what`.

    Raises
    ------
    InputError
        It is something else, and a training goes on from it.
    """
    if not (out / FILE).is_file():
        return None
    tensors, about = read_tensors(out / FILE)
    if about.get("what") == what:
        return tensors
    if any(out.glob("checkpoint-*")):
        raise InputError(f"{out} holds a training with other settings. Choose another folder with --out, or delete it.")
    return None


def own_sounds(
    network: nn.Module,
    config: riffusion.Config,
    identity: str,
    prompts: Sequence[str],
    steps: int,
    seed: int,
    out: Path,
    progress: Progress,
) -> Float[Tensor, "n n_samples"]:
    """As `draw`, but kept in the folder `out`, and read from there if they were drawn before.

    Parameters
    ----------
    identity
        What tells network and configuration from others.

    Raises
    ------
    InputError
        The folder is another training's.
    ResourceError
        The folder can't be written.
    """
    what = json.dumps({"model": identity, "prompts": list(prompts), "steps": steps, "seed": seed})
    before = kept(out, what)
    if before is not None:
        return before["audio"]
    drawn = draw(network, config, prompts, steps, seed, progress)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{out} can't be made: {error.strerror}.") from None
    write_tensors(out / FILE, {"audio": drawn}, {"what": what})
    return drawn
