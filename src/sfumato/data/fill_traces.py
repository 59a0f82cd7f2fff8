"""Training examples of the detector: traces of crops with fills and without, and which frames are filled.

Of each crop of `data.fills` there are four: as it is, processed, its clean self processed, and an untouched crop of
another recording. So every fill is seen beside what was there, and clean music outweighs fills, as it does outside.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from threadpoolctl import threadpool_limits
from torch import Tensor

from sfumato.data.examples import DataSettings, Progress
from sfumato.data.fills import CROP_S, PROCESSES, crop, excerpt, random_of
from sfumato.data.inpainting import choices
from sfumato.data.manifest import Row, Split
from sfumato.errors import InputError
from sfumato.files import replacing
from sfumato.model import Model, load
from sfumato.signal.traces import HOP, RATE, Traces, at_rate, traces
from sfumato.tasks.windows import Gap

VERSION = 1
SHARD = 8
N_FRAMES = int(CROP_S * RATE) // HOP + 1

FITTED = 0.6
"""Share of the training pieces that the detector is trained on; the others tell what clean music scores."""

_SHARES = {"as it is": 0.34, "MP3": 0.16, "Opus": 0.16, "Vorbis": 0.1, "48 kHz": 0.08, "22.05 kHz": 0.08, "mono": 0.08}


def fitted(work: str) -> bool:
    """Whether a training piece is one that the detector is trained on."""
    return int(hashlib.sha256(f"detect {work}".encode()).hexdigest()[:8], 16) / 2**32 < FITTED


def labelled(
    audio: NDArray[np.float64], sample_rate: int, gaps: Sequence[Gap], process: str
) -> tuple[Traces, NDArray[np.bool_]]:
    """Traces of a crop after a process, and its frames that are centred in a gap."""
    found = traces(at_rate(*PROCESSES[process](audio, sample_rate)))[:, :N_FRAMES]
    centre = np.arange(found.shape[1]) * HOP / RATE * sample_rate
    inside = np.zeros(found.shape[1], dtype=bool)
    for start, stop in gaps:
        inside |= (centre >= start) & (centre < stop)
    return found, inside


def examples_of(
    rows: Sequence[Row], root: Path, model: Model, seed: int, index: int
) -> list[tuple[Traces, NDArray[np.bool_]]]:
    """The four examples of one crop."""
    made, random = crop(rows, root, model, seed, index), random_of(seed + 1, index)
    rate = made.sample_rate
    other, _ = excerpt(rows, root, random)
    first, second, third = random.choice(list(_SHARES), size=3, p=list(_SHARES.values()))
    return [
        labelled(made.filled, rate, made.gaps, "as it is"),
        labelled(made.filled, rate, made.gaps, str(first)),
        labelled(made.clean, rate, (), str(second)),
        labelled(other, rate, (), str(third)),
    ]


_Job = tuple[Sequence[Row], Path, int, range, Path]


def _make_shard(job: _Job) -> Path:
    """Write one shard unless it is there; the file appears whole."""
    rows, root, seed, indices, path = job
    if path.exists():
        return path
    model = load("conffusion")
    with threadpool_limits(limits=1, user_api="blas"):
        made = [example for index in indices for example in examples_of(rows, root, model, seed, index)]
    with replacing(path) as descriptor, os.fdopen(descriptor, "wb", closefd=False) as file:
        np.savez(file, traces=np.stack([t for t, _ in made]).astype(np.float16), filled=np.stack([f for _, f in made]))
    return path


class Bank:
    """Batches out of shards: a pure function of (seed, step)."""

    def __init__(self, shards: Sequence[Path], drawn: bool = True) -> None:
        loaded = [np.load(path) for path in shards]
        self.traces = np.concatenate([shard["traces"] for shard in loaded])
        self.filled = np.concatenate([shard["filled"] for shard in loaded])
        self.drawn = drawn

    def batch(self, seed: int, step: int, size: int, rank: int, world: int) -> dict[str, Tensor]:
        """Items ``rank * size / world`` and on of step `step`: "traces" and "filled", see `fill_detector.loss`."""
        share, count = size // world, len(self.traces)
        numbers = [step * size + rank * share + i for i in range(share)]
        chosen = [int(choices(seed, n)[0] * count) if self.drawn else n % count for n in numbers]
        return {
            "traces": torch.from_numpy(self.traces[chosen].astype(np.float32)),
            "filled": torch.from_numpy(self.filled[chosen][:, None].astype(np.float32)),
        }


def examples(
    rows: Sequence[Row],
    root: Path,
    folder: Path,
    split: Split,
    config: BaseModel,
    settings: DataSettings,
    progress: Progress,
) -> Bank:
    """The bank of one split, made where missing (see `sfumato.preset`); `settings.examples` counts crops."""
    count = settings.examples if split == "train" else settings.validation_examples
    used = [row for row in rows if split != "train" or fitted(row.work)]
    if not used:
        raise InputError("No recording to make examples from. Build data with `sfumato data build`.")
    folder.mkdir(parents=True, exist_ok=True)
    of = hashlib.sha256(f"{VERSION} {[(row.sha256, row.seconds) for row in used]}".encode()).hexdigest()[:12]
    shards = [range(first, min(first + SHARD, count)) for first in range(0, count, SHARD)]
    jobs = [(used, root, settings.seed, s, folder / f"{of}-{settings.seed}-{s.start}-{s.stop}.npz") for s in shards]
    made = []
    for path in _each(jobs, settings.processes):
        made.append(path)
        progress(min(len(made) * SHARD, count), count, f"making {split} examples")
    return Bank(made, drawn=split == "train")


def _deaf() -> None:
    """Leave Ctrl-C to the parent, which ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _each(jobs: Sequence[_Job], processes: int) -> Iterator[Path]:
    """Shards in order, by so many processes."""
    if processes == 1:
        yield from map(_make_shard, jobs)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=_deaf) as pool:
        yield from pool.map(_make_shard, jobs)
