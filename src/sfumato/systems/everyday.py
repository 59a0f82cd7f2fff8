"""Mask-Based Diffusion: an everyday sound becomes music, and a map of its spectrogram says where how much of it stays.

The published system [1]_ noises a Riffusion picture of the sound, and takes the noise off again towards a prompt while
loud places are put back from the noised source before each step, for a share of the steps that the map says: it is
differential diffusion [2]_ with a map made of the picture itself. The map is `signal.strength_map.loudness`, the loop
`diffusion.guide.strength`; both are reproduced exactly. Its three knobs come to two: a threshold of loudness, and the
share of the walk for which what is louder is held (`signal.strength_map.meaning`).

Any model of the system riffusion does it. What is opened up here:

- A map of strengths, from 0 to 1, in place of held shares: the strength of a place says at which noise level it is let
  go, by a curve measured for the model, on which equal steps of strength change a sound by equal steps. It means the
  same for any number of steps and any sampler.
- Strength 0 is a promise: such places are the sound's own in what comes out (`signal.strength_map.limited`).

Where it departs from the published system: complex spectrograms (`systems.riffusion`) in place of pictures of
magnitudes in a variational autoencoder's space, so that the sound's own phases are held, too, and the level is kept.

References
----------
.. [1] "Mask-Based Diffusion for Music Generation From Everyday Sounds", ECAI 2025.
.. [2] E. Levin, O. Fried, "Differential diffusion: giving each pixel its strength", arXiv 2306.00950.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

NAME = "everyday"
PAPER = {
    "title": "Mask-Based Diffusion for Music Generation From Everyday Sounds",
    "arxiv": "2306.00950 (differential diffusion)",
    "code": "the authors' notebook Generate.ipynb",
    "licence": "MIT",
}


def release(strength: Float[Tensor, "*m"], curve: Sequence[float]) -> Float[Tensor, "*m"]:
    """Noise level at which places of a strength are let go; 0 for those that are kept.

    Parameters
    ----------
    strength
        From 0 to 1.
    curve
        Noise levels of strengths that are even from 0 to 1, rising; between them their logarithm is interpolated.
    """
    places = np.linspace(0, 1, len(curve))
    level = np.exp(np.interp(strength.double().numpy(), places, np.log(curve)))
    return torch.where(strength > 0, torch.as_tensor(level).to(strength), 0.0)


def hold(release: Float[Tensor, "*m"], sigmas: Float[Tensor, " n"]) -> Float[Tensor, "*m"]:
    """Share of a walk down `sigmas` for which places are held that are let go at a noise level; 1 where that is 0.

    A place is free from the first level of the walk on that isn't above its own, and half a step is added, so that
    rounding never decides.
    """
    n = len(sigmas) - 1
    above = (sigmas[:-1].double() > release.double()[..., None] * (1 + 1e-6)).sum(dim=-1)
    return torch.where(release > 0, ((above + 0.5) / n).clamp(max=1 - 0.25 / n), 1.0).to(release)
