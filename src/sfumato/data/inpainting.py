"""Training examples of the inpainter: level pictures of seeded gaps in seeded crops, kept in a bank on disk.

An example is a pure function of (recordings, seed, index). Making one costs an AR fill, so they are made once, by as
many processes as there are cores, and read back for every later epoch with cheap changes (time reversal, low-pass).
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from threadpoolctl import threadpool_limits
from torch import Tensor

from sfumato.data.examples import DataSettings, Progress
from sfumato.data.manifest import Row, Split
from sfumato.diffusion import noise
from sfumato.errors import InputError
from sfumato.files import replacing
from sfumato.signal import gap_levels
from sfumato.signal.autoregressive import burg, feasible_order, order_of, posterior, runs
from sfumato.signal.levels import N_BANDS, Grid
from sfumato.systems import conffusion

SHARD = 256
"""Examples per file of the bank."""

VERSION = 2
"""Of what `example` makes of a recording, AR models and grid of levels included: raise it when that changes."""

_GAP_S = (0.02, 1.0)


def _random(seed: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))


def example(rows: Sequence[Row], root: Path, seed: int, index: int) -> tuple[NDArray[np.float16], NDArray[np.int8]]:
    """Levels ``(3, bands, frames)`` (clean, AR mean, AR draw; dB) and flags ``(2, frames)`` (known, touched).

    Gap lengths are log-uniform from 20 ms to 1 s; one example in five has a second gap, one in ten lies at an edge
    of its recording. Orders and contexts vary, so that the network does not learn to lean on one.
    """
    random = _random(seed, index)
    weights = np.sqrt([row.seconds for row in rows])
    while True:
        row = rows[int(random.choice(len(rows), p=weights / weights.sum()))]
        rate = row.sample_rate
        n = gap_levels.window_samples(rate)
        total = int(row.seconds * rate)
        if total < n + rate:
            continue
        start = int(random.integers(0, total - n))
        try:
            stereo, _ = sf.read(root / row.path, start=start, frames=n, always_2d=True)
        except sf.LibsndfileError as error:
            raise InputError(f"{root / row.path} is in the manifest but can't be read: {error.error_string}") from error
        if len(stereo) == n and np.sqrt(np.mean(stereo**2)) > 1e-4:
            break
    angle = random.uniform(-np.pi, np.pi)
    x = stereo[:, 0] * np.cos(angle) + stereo[:, -1] * np.sin(angle)
    known, inside = np.ones(n, dtype=bool), np.ones(n, dtype=bool)
    length = int(rate * np.exp(random.uniform(*np.log(_GAP_S))))
    at = (n - length) // 2 + int(random.integers(-rate // 10, rate // 10))
    known[at : at + length] = False
    if random.random() < 0.2:
        second = int(rate * np.exp(random.uniform(np.log(0.02), np.log(0.2))))
        other = int(random.integers(0, n - second))
        known[other : other + second] = False
    if random.random() < 0.1:  # the recording begins shortly before the gap, or within it
        cut = int(random.integers(max(at - rate // 2, 0), at + length // 2))
        inside[:cut] = False
        known[:cut] = False
    x = np.where(inside, x, 0.0)
    context = int(random.choice([4096, 8192]))
    order = order_of(float(random.choice(conffusion.orders_s(length / rate))), rate)
    mean, draw = _fill(x, known, inside, context, order, random)
    grid = Grid(n, rate)
    levels = np.stack([grid.levels(signal) for signal in (x, mean, draw)])
    flags = np.stack(gap_levels.frames_of(known, inside, inside & ~known, grid))
    return levels.astype(np.float16), flags.astype(np.int8)


def _fill(
    x: NDArray[np.float64],
    known: NDArray[np.bool_],
    inside: NDArray[np.bool_],
    context: int,
    order: int,
    random: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AR posterior mean and draw for every gap of a window, each from its own context."""
    mean, draw = np.where(known, x, 0.0), np.where(known, x, 0.0)
    missing = inside & ~known
    limits = np.flatnonzero(inside)
    for start, stop in runs(missing):
        lo, hi = max(start - context, int(limits[0])), min(stop + context, int(limits[-1]) + 1)
        part = known[lo:hi]
        if not part.any():
            continue
        coefficients, variance = burg([x[lo + i : lo + j] for i, j in runs(part)], feasible_order(part, order))
        fill = posterior(x[lo:hi], part, coefficients, variance)
        where = np.flatnonzero(~part) + lo
        own = (where >= start) & (where < stop)
        mean[start:stop] = fill.mean[own]
        draw[start:stop] = fill.draw(random.standard_normal(len(fill.mean)))[own]
    return mean, draw


def _make_shard(job: tuple[Sequence[Row], Path, int, range, Path]) -> Path:
    """Write one shard unless it is there; the file appears whole."""
    rows, root, seed, indices, path = job
    if path.exists():
        return path
    with threadpool_limits(limits=1, user_api="blas"):
        made = [example(rows, root, seed, index) for index in indices]
    with replacing(path) as descriptor, os.fdopen(descriptor, "wb", closefd=False) as file:
        np.savez(file, levels=np.stack([m[0] for m in made]), flags=np.stack([m[1] for m in made]))
    return path


def _deaf() -> None:
    """Leave Ctrl-C to the parent, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def build_bank(
    rows: Sequence[Row],
    root: Path,
    folder: Path,
    *,
    count: int,
    seed: int,
    processes: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Shards of a bank of `count` examples, made where missing.

    Parameters
    ----------
    rows, root
        Recordings of one split, and the folder their paths are relative to.
    folder
        Where the shards go.
    """
    if not rows:
        raise InputError("No recording to make examples from. Build data with `sfumato data build`.")
    folder.mkdir(parents=True, exist_ok=True)
    shards = [range(first, min(first + SHARD, count)) for first in range(0, count, SHARD)]
    of = hashlib.sha256(f"{VERSION} {[(row.sha256, row.seconds) for row in rows]}".encode()).hexdigest()[:12]
    jobs = [(rows, root, seed, shard, folder / f"{of}-{seed}-{shard.start}-{shard.stop}.npz") for shard in shards]
    fresh = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(processes, mp_context=fresh, initializer=_deaf) as pool:
        done = []
        coming = [pool.submit(_make_shard, job) for job in jobs]
        try:
            for shard in coming:
                done.append(shard.result())
                progress(len(done), len(jobs))
        finally:
            if len(done) < len(jobs):  # above all after an interrupt: the shards under way would take minutes
                for worker in set(multiprocessing.active_children()) - others:
                    worker.terminate()
    return done


def choices(seed: int, number: int) -> NDArray[np.float64]:
    """Four uniform numbers that choose item `number` of a training and how it is changed."""
    return np.asarray(noise.uniform((4,), seed=seed, item=number, step=0, data=True))


class Bank:
    """Batches out of shards: a pure function of (seed, step), each item reversed or low-passed at random."""

    def __init__(self, shards: Sequence[Path], augment: bool = True) -> None:
        if not shards:
            raise InputError("The bank of examples is empty.")
        self.shards = tuple(shards)
        loaded = [np.load(path) for path in shards]
        self.levels = np.concatenate([shard["levels"] for shard in loaded])
        self.flags = np.concatenate([shard["flags"] for shard in loaded]).astype(bool)
        self.augment = augment

    def batch(self, seed: int, step: int, size: int, rank: int, world: int) -> dict[str, Tensor]:
        """Items ``rank * size / world`` and on of step `step`: "clean" and "condition", see `conffusion.loss`."""
        share = size // world
        items = [self._chosen(seed, step * size + rank * share + i) for i in range(share)]
        return {key: torch.from_numpy(np.stack([item[key] for item in items])) for key in items[0]}

    def item(self, index: int) -> dict[str, NDArray[np.float32]]:
        """Example `index` as it is: "clean" and "condition"."""
        return _seen(self.levels[index].astype(np.float64), self.flags[index])

    def view(self, index: int) -> gap_levels.Picture:
        """The picture of example `index` as it is."""
        _, mean, draw = self.levels[index].astype(np.float64)
        return gap_levels.picture(mean, draw, self.flags[index][0], self.flags[index][1])

    def _chosen(self, seed: int, number: int) -> dict[str, NDArray[np.float32]]:
        u = choices(seed, number)
        index = int(u[0] * len(self.levels)) if self.augment else number % len(self.levels)
        levels, flags = self.levels[index].astype(np.float64), self.flags[index]
        if self.augment:
            if u[1] < 0.5:  # an autoregressive process reads the same backwards
                levels, flags = levels[:, :, ::-1], flags[:, ::-1]
            if u[2] < 0.15:
                levels = levels.copy()
                levels[:, int((0.5 + 0.5 * u[3]) * N_BANDS) :] = -140.0
        return _seen(levels, flags)


def _seen(levels: NDArray[np.float64], flags: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
    """What the loss sees of an example."""
    clean, mean, draw = levels
    view = gap_levels.picture(mean, draw, flags[0], flags[1])
    return {"clean": gap_levels.target(clean, view), "condition": view.condition}


def examples(
    rows: Sequence[Row],
    root: Path,
    folder: Path,
    split: Split,
    config: BaseModel,
    settings: DataSettings,
    progress: Progress,
) -> Bank:
    """The bank of one split, made where missing (see `sfumato.preset`)."""
    count = settings.examples if split == "train" else settings.validation_examples

    def shards(done: int, total: int) -> None:
        progress(done * SHARD, total * SHARD, f"making {split} examples")

    paths = build_bank(
        rows, root, folder, count=count, seed=settings.seed, processes=settings.processes, progress=shards
    )
    return Bank(paths, augment=split == "train")
