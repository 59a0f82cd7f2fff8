"""UASRM: a spectrogram is a picture, damage is a hole in it, and a U-Net paints the hole.

The seed's pipeline: STFT of 2048 samples every 512, levels in dB, damaged bins overwritten, a U-Net, its output
spliced into the damaged bins, mean squared error, and back to audio. `view` says what the network sees and predicts:

- ``seed``: levels below the loudest bin, floored at -80 dB, damaged bins at 0 dB (the maximum, as published), and the
  level itself predicted; the error is averaged over the whole picture, nearly all of which is copied.
- ``honest``: levels whitened by the mean of each bin's known frames, holes bridged by a straight line in dB, flags that
  say what is known and what is wanted, and the deviation from that line predicted; the error counts in the holes only.

Where it departs from the seed, in both views: holes at any place and of any shape, not 0.25 s columns at one place;
the loudest bin is taken from what is known; the optimizer is the house's AdamW; training recordings are never tested
on. The seed gives the output the phase of the *clean* file, which nobody has: `tasks.spectrogram` starts from the phase
of an autoregressive draw and makes it consistent with the predicted levels.

References
----------
.. [1] T. Goldfarb, "UASRM: Unet Audio Spectrogram Repair Model", github.com/Todd-C-Goldfarb/UASRM, 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from sfumato.config import Settings
from sfumato.networks import uasrm_unet

if TYPE_CHECKING:
    from sfumato.diffusion.noise import BatchNoise

Array = NDArray[np.float64]
Known = NDArray[np.bool_]

NAME = "uasrm"
PAPER = {
    "title": "UASRM: Unet Audio Spectrogram Repair Model",
    "arxiv": "",
    "code": "github.com/Todd-C-Goldfarb/UASRM",
    "licence": "MIT",
}
TURNS = ("repair",)

HOP_S = 512 / 44100
N_BINS = 1025
N_FRAMES = 513
"""Frames of a picture, 5.94 s; like the bins a multiple of 64, plus one: the published network fits it exactly."""

RANGE_DB = 80.0
SCALE_DB = 10.0
_BRIDGE_FRAMES = 6.0
_CENTRE_FRAMES = 40.0

HONEST_CHANNELS = 5


class Config(Settings):
    """The network and what it is shown."""

    network: uasrm_unet.Config = Field(uasrm_unet.Config(), description="the U-Net")
    view: Literal["seed", "honest"] = Field("seed", description="what the network sees and predicts")


def build(config: Config) -> nn.Module:
    """The network with its initial weights."""
    return uasrm_unet.UasrmUNet(config.network)


def hop_length(sample_rate: int) -> int:
    """Samples between frames; a window has four times as many."""
    return max(1, round(HOP_S * sample_rate))


def window_samples(sample_rate: int) -> int:
    """Samples of a window that gives a picture of `N_FRAMES` frames."""
    return (N_FRAMES - 1) * hop_length(sample_rate)


@dataclass(frozen=True)
class Picture:
    """One channel's spectrogram with holes, and what the network is shown of it."""

    condition: NDArray[np.float32]
    """``(channels, bins, frames)``: the seed's one channel, or filled levels, known, wanted, loudness, height."""
    base_db: Array
    """``(n_bins, n_frames)``: known levels, and in the holes the straight line, in dB."""
    missing: Known
    """``(n_bins, n_frames)``: the holes."""
    loudest_db: float
    """Of the known bins."""


def levels_db(spectrum: NDArray[np.complex128]) -> Array:
    """Levels of complex bins, in dB."""
    return np.asarray(20.0 * np.log10(np.maximum(np.abs(spectrum), 1e-15)))


def picture(levels: Array, known: Known, missing: Known, config: Config) -> Picture:
    """What the network sees of a spectrogram; nothing that is not `known` has an influence.

    Parameters
    ----------
    levels
        ``(n_bins, N_FRAMES)``, in dB. Any number of bins, 21.5 Hz apart: the network sees the first `N_BINS`, or where
        there are fewer, the last one over and over.
    known
        Bins that can be relied on.
    missing
        Bins to be filled; what is neither known nor missing lies outside the recording.
    """
    loudest = float(levels[known].max()) if known.any() else 0.0
    levels = np.where(known, np.maximum(levels, loudest - RANGE_DB), loudest - RANGE_DB)
    base = bridge(levels, known, missing)
    if config.view == "seed":
        condition = np.where(missing, 0.0, levels - loudest)[None]
    else:
        centre = _centre(levels, known, missing)
        shown = np.where(known | missing, (base - centre) / SCALE_DB, 0.0)
        loudness = np.broadcast_to((centre - loudest) / (4.0 * SCALE_DB) + 1.0, levels.shape)
        height = np.broadcast_to(2.0 * np.arange(len(levels))[:, None] / (N_BINS - 1) - 1.0, levels.shape)
        condition = np.stack([shown, known, missing, loudness, height])
    return Picture(_fit(condition, config, "edge"), base, missing, loudest)


def _fit(stack: Array, config: Config, padding: Literal["edge", "constant"]) -> NDArray[np.float32]:
    """``(channels, bins, frames)`` cut or padded to what the network takes: the seed's odd sides, or even ones."""
    bins, frames = (N_BINS, N_FRAMES) if config.view == "seed" else (N_BINS - 1, N_FRAMES - 1)
    cut = stack[:, :bins, :frames]
    return np.pad(cut, ((0, 0), (0, bins - cut.shape[1]), (0, 0)), mode=padding).astype(np.float32)


def example(clean_db: Array, view: Picture, config: Config) -> dict[str, NDArray[np.float32]]:
    """What `loss` needs of one picture whose true levels are known: condition, clean, missing."""
    clean_db = np.maximum(clean_db, view.loudest_db - RANGE_DB)
    if config.view == "seed":
        clean = clean_db - view.loudest_db
    else:
        clean = np.where(view.missing, (clean_db - view.base_db) / SCALE_DB, 0.0)
    return {
        "condition": view.condition,
        "clean": _fit(clean[None], config, "constant"),
        "missing": _fit(view.missing[None].astype(np.float64), config, "constant"),
    }


def loss(
    network: nn.Module, batch: dict[str, Tensor], config: Config, noise: BatchNoise, turn: str
) -> dict[str, Tensor]:
    """Mean squared error of the spliced picture: in dB² over all of it (seed), or in (10 dB)² over the holes (honest).

    `hole_db` is the root mean square error in the holes in dB, the same figure for both.
    """
    missing = batch["missing"]
    squared = (network(batch["condition"]).float() - batch["clean"]) ** 2 * missing
    share = missing.mean(dim=(1, 2, 3))
    in_holes = (squared.mean(dim=(1, 2, 3)) / share.clamp(min=1e-9)).mean()
    if config.view == "seed":
        return {"total": squared.mean(), "hole_db": in_holes.sqrt()}
    return {"total": in_holes, "hole_db": SCALE_DB * in_holes.sqrt()}


@torch.no_grad()
def predict(network: nn.Module, config: Config, views: Sequence[Picture]) -> list[Array]:
    """Levels in dB ``(n_bins, n_frames)`` of each picture, the network's output spliced into the holes."""
    out = []
    for view in views:
        painted = network(torch.from_numpy(view.condition)[None])[0, 0].double().numpy()
        levels = view.base_db.copy()
        bins, frames = min(len(levels), painted.shape[0]), painted.shape[1]
        reached = levels[:bins, :frames]
        spliced = painted[:bins] + view.loudest_db if config.view == "seed" else reached + SCALE_DB * painted[:bins]
        hole = view.missing[:bins, :frames]
        reached[hole] = np.clip(spliced, view.loudest_db - RANGE_DB, view.loudest_db + 6.0)[hole]
        out.append(levels)
    return out


def bridge(levels: Array, known: Known, missing: Known) -> Array:
    """`levels` with the holes of each bin bridged in time by a straight line in dB.

    Its ends are means of the known frames on each side whose weight falls by e every 70 ms; a hole at an edge continues
    its one side. A bin without a known frame gets the lowest level.
    """
    out = levels.copy()
    rows = np.packbits(np.concatenate([known, missing], axis=1), axis=1)
    _, group = np.unique(rows, axis=0, return_inverse=True)
    for number in range(int(group.max()) + 1):
        members = np.flatnonzero(group.reshape(-1) == number)
        wanted = np.flatnonzero(missing[members[0]])
        if len(wanted):
            weights = _weights(known[members[0]], missing[members[0]])
            out[np.ix_(members, wanted)] = levels[members] @ weights[:, wanted] + np.where(
                weights[:, wanted].sum(axis=0) > 0.5, 0.0, levels.min()
            )
    return out


def _weights(known: Known, missing: Known) -> Array:
    """``(frames, frames)``: how much each known frame counts in each missing one; columns sum to 1, or to 0."""
    n = len(known)
    weights = np.zeros((n, n))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], missing.astype(np.int8), [0]])))
    for start, stop in edges.reshape(-1, 2):
        sides = []
        for distance in (start - 1 - np.arange(n), np.arange(n) - stop):
            side = np.where(known & (distance >= 0), np.exp(-np.maximum(distance, 0) / _BRIDGE_FRAMES), 0.0)
            sides.append(side / side.sum() if side.sum() > 1e-12 else None)
        left = sides[0] if sides[0] is not None else sides[1]
        right = sides[1] if sides[1] is not None else sides[0]
        if left is not None and right is not None:
            share = (np.arange(stop - start) + 1.0) / (stop - start + 1.0)
            weights[:, start:stop] = np.outer(left, 1.0 - share) + np.outer(right, share)
    return weights


def _centre(levels: Array, known: Known, missing: Known) -> Array:
    """Mean level of each bin's known frames ``(bins, 1)``, those near the holes counting most."""
    frames = np.flatnonzero(missing.any(axis=0))
    index = np.arange(known.shape[1])
    place = np.searchsorted(frames, index)
    after = np.abs(frames[np.minimum(place, len(frames) - 1)] - index)
    before = np.abs(index - frames[np.maximum(place - 1, 0)])
    weight = known / (1.0 + np.minimum(after, before) / _CENTRE_FRAMES)
    total = weight.sum(axis=1, keepdims=True)
    mean = (levels * weight).sum(axis=1, keepdims=True) / np.maximum(total, 1e-9)
    return np.asarray(np.where(total > 0.0, mean, levels.min()))
