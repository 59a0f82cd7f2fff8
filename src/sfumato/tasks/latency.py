"""The latency ledger of a codec: what each part adds between playing and hearing, and how long computing takes here."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from sfumato.errors import InputError
from sfumato.player import Player

NAME = "latency"
MEASURED_S = 2.0
"""Wall-clock time of the measurement."""


@dataclass(frozen=True)
class Ledger:
    """Samples at the model's rate, unless it says ms.

    Attributes
    ----------
    block
        Samples that the sound card, or whoever plays, hands over at a time.
    filter_bank
        Delay of analysis and synthesis together.
    hop
        A latent frame.
    queue
        What a block that is no multiple of the hop waits for more; 0 else.
    total
        Block, queue and filter bank: from the first sample of a block to its echo, computing aside.
    compute_median_ms, compute_worst_ms
        Encoding and decoding one block, measured on this machine, one stream.
    jitter_ms
        The worst less the median.
    times_real_time
        Length of a block over the median time of computing it.
    """

    model: str
    sample_rate: int
    block: int
    filter_bank: int
    hop: int
    queue: int
    total: int
    compute_median_ms: float
    compute_worst_ms: float
    jitter_ms: float
    times_real_time: float
    n_measured: int

    def ms(self, samples: int) -> float:
        """Samples as ms."""
        return 1e3 * samples / self.sample_rate


def measure(codec: Player, block: int, sample_rate: int | None = None, seconds: float = MEASURED_S) -> Ledger:
    """The ledger of `codec` for blocks of so many samples.

    Parameters
    ----------
    codec
        The codec.
    block
        Samples of a block.
    sample_rate
        Rate that it is played at, the model's by default: at another one sounds are higher or lower, and latencies in
        ms shorter or longer.
    seconds
        How long to measure.

    Raises
    ------
    InputError
        The block is empty, or the rate isn't positive.
    """
    rate = codec.recipe.sample_rate if sample_rate is None else sample_rate
    if block < 1 or rate < 1:
        raise InputError(f"A block of {block} samples at {rate} Hz can't be played. Give positive numbers.")
    promised = block if block % codec.hop_length == 0 else None
    state = codec.init(block=promised)
    noise = np.random.default_rng(0).normal(0, 0.1, (1, codec.channels, block)).astype(np.float32)
    took: list[float] = []
    per_frame = -(-codec.hop_length // block)
    for _ in range(3 * per_frame):
        _, state = codec.step(noise, state)  # buffers are made at first
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(took) < 10 * per_frame:
        began = time.perf_counter()
        _, state = codec.step(noise, state)
        took.append(time.perf_counter() - began)
    # Blocks shorter than a frame mostly wait: those that complete one are what has to be in time.
    working = np.sort(took)[-max(1, len(took) // per_frame) :]
    median, worst = 1e3 * float(np.median(working)), 1e3 * float(working[-1])
    delay = codec.recipe.network.delay
    queue = codec.latency(promised) - delay
    return Ledger(
        model=codec.name,
        sample_rate=rate,
        block=block,
        filter_bank=delay,
        hop=codec.hop_length,
        queue=queue,
        total=block + queue + delay,
        compute_median_ms=median,
        compute_worst_ms=worst,
        jitter_ms=worst - median,
        times_real_time=1e3 * max(block, codec.hop_length if promised is None else 0) / rate / median,
        n_measured=len(working),
    )
