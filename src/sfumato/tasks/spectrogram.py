"""Filling gaps and time-frequency regions with UASRM: levels from the network, phase from consistency.

The network predicts how loud each missing bin is; nothing predicts its phase. So an autoregressive draw fills the
stretch first, which carries the partials through and joins both sides; then fast Griffin-Lim rounds move it towards the
predicted levels, every known bin and every known sample put back in each. Draws differ by the autoregressive draw.
Other damage nearby is silence to those rounds: what it holds is neither learned from nor joined to.

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
from sfumato.tasks.windows import Filled, Gap, Source, fill_group, joined, within

if TYPE_CHECKING:
    from torch import nn

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
    return _fill(source, boxes, unknown, n_draws, seed, model).draws


def fill_gap(
    source: Source, gap: Gap, unknown: Sequence[Gap], n_draws: int, seed: int, model: Model | None
) -> Filled:
    """Draws of one gap, with the mean and the first draw of the autoregressive posterior; otherwise as `fill_boxes`."""
    return _fill(source, [Box(*gap)], unknown, n_draws, seed, model)


def _fill(
    source: Source, boxes: Sequence[Box], unknown: Sequence[Gap], n_draws: int, seed: int, model: Model | None
) -> Filled:
    if model is None or not isinstance(model.config, uasrm.Config):
        raise InputError("The method uasrm needs a model of the system uasrm.")
    start, stop = own = stretch(boxes)
    others = [gap for gap in unknown if gap != own]
    ar = fill_group(
        source, [own], joined([*others, own]), lambda window: fills.fill_ar(window, n_draws, seed, None), seed
    )
    observed = finite(source.read(start, stop), boxes, source.sample_rate)
    first = observed + confine(ar.draws - observed, boxes, source.sample_rate)
    levels = _predict_levels(source, boxes, others, model.network, model.config)
    fill = consistent(source, boxes, first, levels, others)
    return Filled(np.asarray(observed + confine(fill - observed, boxes, source.sample_rate)), ar.source)


def _predict_levels(
    source: Source, boxes: Sequence[Box], unknown: Sequence[Gap], network: nn.Module, config: uasrm.Config
) -> list[Array]:
    """Levels in dB of each channel on the frames of `window_around`, the network's in the boxes."""
    grid = window_around(boxes, source.sample_rate)
    audio = _read(source, grid)
    touched = ~grid.known(boxes)
    others = [Box(a, b) for a, b in unknown]
    others += [Box(grid.start + a, grid.start + b) for a, b in runs(np.asarray(~np.isfinite(audio).all(axis=0)))]
    centre = grid.start + np.arange(uasrm.N_FRAMES) * grid.hop_length
    inside = (centre >= 0) & (centre <= source.n_samples)
    half = grid.n_fft // 2
    whole = (centre >= half) & (centre <= source.n_samples - half)
    known = grid.known([*boxes, *others]) & whole
    with_silence = np.where(np.isfinite(audio), audio, 0.0)
    views = [
        uasrm.picture(uasrm.levels_db(bins.numpy()), known, touched & inside, config)
        for bins in grid.forward(with_silence)
    ]
    return uasrm.predict(network, config, views)


def window_around(boxes: Sequence[Box], sample_rate: int) -> Grid:
    """The window whose picture the network sees, its middle at the boxes' middle; frames as in `grid_around`."""
    start, stop = stretch(boxes)
    hop, n = uasrm.hop_length(sample_rate), uasrm.window_samples(sample_rate)
    first = ((start + stop) // 2 // hop) * hop - n // 2 // hop * hop
    return Grid(first, first + n, sample_rate)


def consistent(
    source: Source, boxes: Sequence[Box], first: Array, levels: Sequence[Array], unknown: Sequence[Gap] = ()
) -> Array:
    """Fills ``(draws, channels, stop - start)`` that start at `first` and come near the `levels` of each channel.

    Parameters
    ----------
    first
        As returned: a first fill of each draw and channel.
    levels
        Per channel, in dB, on the frames of `window_around`.
    unknown
        Other damaged stretches, in order, none overlapping another.
    """
    rate = source.sample_rate
    start, stop = stretch(boxes)
    window, grid = window_around(boxes, rate), grid_around(boxes, rate)
    at = (grid.start - window.start) // grid.hop_length
    frames = (grid.stop - grid.start) // grid.hop_length + 1
    around = np.nan_to_num(_read(source, grid), nan=0.0, posinf=0.0, neginf=0.0)
    for a, b in within(unknown, grid.start, grid.stop):
        around[:, max(a - grid.start, 0) : b - grid.start] = 0.0
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
