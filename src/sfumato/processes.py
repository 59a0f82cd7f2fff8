"""Being one process among others: signals answered at a safe point, one writer per folder, torchrun's group."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor, distributed, nn

from sfumato.errors import InputError, ResourceError


@dataclass
class Stop:
    """Which signal asked this process to stop; 0 for none."""

    number: int = 0


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """A `Stop` that SIGTERM and SIGINT set; a second signal exits at once with 128 + its number.

    Outside the main thread, where Python allows no handlers, it stays 0.
    """
    stop = Stop()

    def answer(number: int, frame: FrameType | None) -> None:
        if stop.number:
            os._exit(128 + number)
        stop.number = number

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, answer) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process; the kernel frees it if the process dies.

    Raises
    ------
    InputError
        Another process holds it.
    ResourceError
        The folder can't be written.
    """
    try:
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise ResourceError(f"{folder} can't be written: {error.strerror}.") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"Another process is writing to {folder}. Wait for it or choose another folder.") from None
        yield


@contextlib.contextmanager
def group(device: str) -> Iterator[tuple[int, int]]:
    """Rank and number of the processes torchrun started (0 and 1 without it); joins and leaves their group."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if distributed.is_initialized():
        yield distributed.get_rank(), distributed.get_world_size()
        return
    if world == 1:
        yield 0, 1
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield distributed.get_rank(), world
    finally:
        distributed.destroy_process_group()


def average_gradients(weights: Sequence[nn.Parameter], world: int) -> None:
    """Replace each gradient by its mean over `world` processes."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if world > 1 and gradients:
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        parts = torch.split(flat.div_(world), [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))


def anywhere(condition: bool, device: str, world: int) -> bool:
    """True on every one of `world` processes if it is on one, so that all stop at the same step."""
    if world == 1:
        return condition
    flag = torch.tensor(int(condition), device=device)
    distributed.all_reduce(flag, distributed.ReduceOp.MAX)
    return bool(flag)


def mean(value: Tensor, world: int) -> float:
    """Mean of a scalar over `world` processes."""
    value = value.detach().clone().double() / world
    if world > 1:
        distributed.all_reduce(value)
    return float(value)
