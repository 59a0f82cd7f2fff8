"""Filling gaps and time-frequency regions with UASRM: levels from the network, phase from consistency.

The network predicts how loud each missing bin is; nothing predicts its phase. So an autoregressive draw fills the
stretch first, which carries the partials through and joins both sides; then fast Griffin-Lim rounds move it towards the
predicted levels, every known bin and every known sample put back in each. Draws differ by the autoregressive draw.

References
----------
.. [1] D. Griffin, J. Lim, "Signal estimation from modified short-time Fourier transform", IEEE TASSP 32(2), 1984.
.. [2] N. Perraudin, P. Balazs, P. Søndergaard, "A fast Griffin-Lim algorithm", WASPAA 2013.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from sfumato.errors import InputError
from sfumato.signal.autoregressive import runs
from sfumato.systems import uasrm
from sfumato.tasks import fill as fills
from sfumato.tasks.regions import Box, Grid, confine, finite, grid_around, stretch
from sfumato.tasks.windows import Gap, Source, fill_group, joined

if TYPE_CHECKING:
    from sfumato.model import Model

Array = NDArray[np.float64]
Known = NDArray[np.bool_]

ROUNDS = 32
_ACCELERATION = 0.99


def fill_boxes(
    source: Source, boxes: Sequence[Box], unknown: Sequence[Gap], n_draws: int, seed: int, model: Model | None
) -> Array:
    """Draws ``(draws, channels, stop - start)`` of the stretch of one group of boxes; ``Box(start, stop)`` is a gap.

    Parameters
    ----------
    source
        The recording.
    boxes
        One of the lists of `regions.group`.
    unknown
        Every damaged stretch in samples: other groups', and gaps.
    n_draws, seed
        How many fills, and the seed of their phases.
    model
        Of the system uasrm.

    Raises
    ------
    InputError
        The model is another system's, or there is next to no sound around the boxes.
    """
    if model is None or not isinstance(model.config, uasrm.Config):
        raise InputError("The method uasrm needs a model of the system uasrm.")
    start, stop = stretch(boxes)
    damaged = joined([*unknown, (start, stop)])
    whole = fill_group(
        source, [(start, stop)], damaged, lambda window: fills.fill_ar(window, n_draws, seed, None)
    ).draws
    observed = finite(source.read(start, stop), boxes, source.sample_rate)
    first = observed + confine(whole - observed, boxes, source.sample_rate)
    levels = predict_levels(source, boxes, damaged, model)
    fill = consistent(source, boxes, first, levels)
    return np.asarray(observed + confine(fill - observed, boxes, source.sample_rate))


def predict_levels(source: Source, boxes: Sequence[Box], damaged: Sequence[Gap], model: Model) -> list[Array]:
    """Levels in dB of each channel on the frames of `window_around`, the network's in the boxes."""
    if not isinstance(model.config, uasrm.Config):
        raise InputError(f"The model {model.name} is of the system {model.system}; uasrm is needed.")
    grid = window_around(boxes, source.sample_rate)
    audio = _read(source, grid)
    touched = ~grid.known(boxes)
    others = [Box(a, b) for a, b in damaged if (a, b) != stretch(boxes)]
    others += [Box(grid.start + a, grid.start + b) for a, b in runs(np.asarray(~np.isfinite(audio).all(axis=0)))]
    centre = grid.start + np.arange(uasrm.N_FRAMES) * grid.hop_length
    inside = (centre >= 0) & (centre <= source.n_samples)
    half = grid.n_fft // 2
    whole = (centre >= half) & (centre <= source.n_samples - half)
    known = grid.known([*boxes, *others]) & whole
    with_silence = np.where(np.isfinite(audio), audio, 0.0)
    views = [
        uasrm.picture(uasrm.levels_db(bins.numpy()), known, touched & inside, model.config)
        for bins in grid.forward(with_silence)
    ]
    return uasrm.predict(model.network, model.config, views)


def window_around(boxes: Sequence[Box], sample_rate: int) -> Grid:
    """The window whose picture the network sees, its middle at the boxes' middle; frames as in `grid_around`."""
    start, stop = stretch(boxes)
    hop, n = uasrm.hop_length(sample_rate), uasrm.window_samples(sample_rate)
    first = ((start + stop) // 2 // hop) * hop - n // 2 // hop * hop
    return Grid(first, first + n, sample_rate)


def consistent(source: Source, boxes: Sequence[Box], first: Array, levels: Sequence[Array]) -> Array:
    """Fills ``(draws, channels, stop - start)`` that start at `first` and come near the `levels` of each channel.

    Parameters
    ----------
    first
        As returned: a first fill of each draw and channel.
    levels
        Per channel, in dB, on the frames of `window_around`.
    """
    rate = source.sample_rate
    start, stop = stretch(boxes)
    window, grid = window_around(boxes, rate), grid_around(boxes, rate)
    at = (grid.start - window.start) // grid.hop_length
    frames = (grid.stop - grid.start) // grid.hop_length + 1
    around = np.nan_to_num(_read(source, grid), nan=0.0, posinf=0.0, neginf=0.0)
    own = slice(start - grid.start, stop - grid.start)
    touched = torch.from_numpy(~grid.known(boxes))
    wanted = torch.from_numpy(10.0 ** (np.stack([level[:, at : at + frames] for level in levels]) / 20.0))
    observed = grid.forward(around)
    whole = np.broadcast_to(around, (len(first), *around.shape)).copy()
    whole[..., own] = first
    spectrum = grid.forward(whole)
    before = spectrum
    for _ in range(ROUNDS):
        painted = wanted * torch.sgn(spectrum)
        whole[..., own] = grid.backward(torch.where(touched, painted, observed))[..., own]
        now = grid.forward(whole)
        spectrum, before = now + _ACCELERATION * (now - before), now
    return np.asarray(whole[..., own])


def _read(source: Source, grid: Grid) -> Array:
    """Samples ``(channels, stop - start)`` of a grid, zeros where it reaches out of the recording."""
    lo, hi = max(grid.start, 0), min(grid.stop, source.n_samples)
    audio = np.zeros((source.channels, grid.stop - grid.start))
    audio[:, lo - grid.start : hi - grid.start] = source.read(lo, hi)
    return audio
