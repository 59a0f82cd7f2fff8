"""What is known of the band levels around a gap: the picture that networks see, and the target they predict.

The picture is whitened per clip by the levels of its own context, and a target is the deviation from a straight line
between the levels at both edges of the gap, both in units of 10 dB. So loudness and colour of a recording don't matter.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfumato.signal.levels import HOP_S, WINDOW_S, Grid

Array = NDArray[np.float64]
Known = NDArray[np.bool_]

N_FRAMES = 256
"""Frames of a picture: 2.97 s."""

SCALE_DB = 10.0
RANGE_DB = 90.0
_EDGE_FRAMES = 4


@dataclass(frozen=True)
class Picture:
    """What the network sees and predicts for one clip, all in whitened levels (units of 10 dB)."""

    condition: NDArray[np.float32]
    """``(7, bands, frames)``: known levels, known flag, to-be-filled flag, AR mean, AR draw, line, loudness."""
    base_db: Array
    """``(bands, frames)``: the straight line between the edges, in dB; a prediction is added to it."""
    touched: Known
    """``(frames,)``: frames that hold missing samples and are to be filled."""


def picture(mean_db: Array, draw_db: Array, known: Known, touched: Known) -> Picture:
    """The network's view of a clip.

    Parameters
    ----------
    mean_db, draw_db
        Levels of the clip filled with the AR posterior's mean and with one of its draws, ``(bands, frames)``. In
        `known` frames both are the recording's own levels.
    known
        Frames of the recording that nothing is missing from; neither known nor `touched` is outside the recording.
    touched
        Frames to fill.
    """
    loudest = float(mean_db[:, known].max()) if known.any() else float(draw_db[:, touched].max())
    mean_db, draw_db = (np.maximum(level, loudest - RANGE_DB) for level in (mean_db, draw_db))
    distance = _distance(touched)
    if known.any():
        weight = known / (1.0 + distance / 20.0)
        centre = (mean_db * weight).sum(axis=1, keepdims=True) / weight.sum()
    else:
        centre = draw_db[:, touched].mean(axis=1, keepdims=True)
    base = _straight(np.where(known, mean_db, draw_db), known, touched)
    channels = [
        np.where(known, (mean_db - centre) / SCALE_DB, 0.0),
        np.broadcast_to(known, mean_db.shape),
        np.broadcast_to(touched, mean_db.shape),
        np.where(touched, (mean_db - centre) / SCALE_DB, 0.0),
        np.where(touched, (draw_db - centre) / SCALE_DB, 0.0),
        np.where(touched, (base - centre) / SCALE_DB, 0.0),
        np.broadcast_to((centre - loudest) / (4.0 * SCALE_DB) + 1.0, mean_db.shape),
    ]
    return Picture(np.stack(channels).astype(np.float32), base, touched)


def target(clean_db: Array, view: Picture) -> NDArray[np.float32]:
    """The deviation to be predicted, ``(1, bands, frames)``, for a clip whose true levels are known."""
    deviation = np.maximum(clean_db, view.base_db - RANGE_DB) - view.base_db
    return np.where(view.touched, np.clip(deviation / SCALE_DB, -6.0, 6.0), 0.0)[None].astype(np.float32)


def _distance(touched: Known) -> Array:
    """Frames to the nearest touched frame."""
    index = np.flatnonzero(touched)
    frames = np.arange(len(touched))
    return np.asarray(np.min(np.abs(frames[:, None] - index[None, :]), axis=1), dtype=np.float64)


def _straight(levels: Array, known: Known, touched: Known) -> Array:
    """`levels` with each run of touched frames replaced by a line between the mean levels just outside it."""
    base = levels.copy()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], touched, [False]]).astype(np.int8)))
    for start, stop in edges.reshape(-1, 2):
        before, after = known.copy(), known.copy()
        before[start:], after[:stop] = False, False
        left, right = np.flatnonzero(before)[-_EDGE_FRAMES:], np.flatnonzero(after)[:_EDGE_FRAMES]
        left = left[left >= start - 4 * _EDGE_FRAMES]
        right = right[right < stop + 4 * _EDGE_FRAMES]
        if len(left) or len(right):
            a = levels[:, left if len(left) else right].mean(axis=1, keepdims=True)
            b = levels[:, right if len(right) else left].mean(axis=1, keepdims=True)
            share = (np.arange(stop - start) + 1.0) / (stop - start + 1.0)
            base[:, start:stop] = a * (1.0 - share) + b * share
    return base


def frames_of(known: Known, inside: Known, own: Known, grid: Grid) -> tuple[Known, Known]:
    """Known and touched frames of a window.

    Parameters
    ----------
    known
        Observed samples; False also where the window reaches out of the recording.
    inside
        Samples of the recording.
    own
        Missing samples that are to be filled.
    """
    centre = np.minimum(np.arange(grid.n_frames) * grid.hop_length, grid.n_samples - 1)
    return ~grid.touched(known | ~inside) & inside[centre], grid.touched(~own) & inside[centre]


def wholly_missing(touched: Known) -> Known:
    """Touched frames whose whole analysis window lies in the gap: the others show known sound too."""
    reach = round(WINDOW_S / HOP_S)
    padded = np.pad(touched, reach)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).all(axis=1))


def window_samples(sample_rate: int) -> int:
    """Samples of a window that gives a picture of `N_FRAMES` frames."""
    return N_FRAMES * round(HOP_S * sample_rate) - 1
