"""How fast a codec streams: the NumPy player, ONNX Runtime and torch on the same network, one thread, by turns.

Used by `benchmarks/rave.py speed`. ONNX Runtime gets one graph for one block, pasts going in and coming out, and its
rows need the packages onnx and onnxruntime, which sfumato doesn't. Each way computes for a moment, then the next one
does, over and over: whatever else the machine has to do meets all of them alike. Beside the wall clock stands the
thread's processor time, which leaves out waiting for a processor, though not what others do to its cache.
"""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from sfumato import model as models
from sfumato import player, preset
from sfumato.model import Card, Model
from sfumato.signal import pqmf
from sfumato.systems import rave
from sfumato.tasks.timbre import player_of

Array = NDArray[np.float32]
Play = Callable[[], Array]
TURN_S, WARM = 0.25, 3
"""Wall time of a way's turn, and steps at its start that aren't counted: another way's weights are in the cache."""
HEAD = (
    *("what", "block, samples", "its length, ms", "median, ms", "99 %", "worst", "jitter", "× real time"),
    *("processor: median, ms", "99 %", "worst", "jitter", "× real time", "n"),
)


class Step(nn.Module):
    """A block through the torch network: audio and pasts in, audio and pasts out."""

    def __init__(self, codec: rave.Codec) -> None:
        super().__init__()
        self.codec, self.n = codec, len(codec.encoder.layers)

    def begun(self, batch: int = 1) -> list[Tensor]:
        """Empty pasts."""
        codec = self.codec
        banks = [codec.bank.init(batch), codec.bank.init(batch)]
        return banks + codec.encoder.init(batch) + codec.decoder.init(batch)

    def forward(self, audio: Tensor, *pasts: Tensor) -> tuple[Tensor, ...]:
        """What comes out, and the pasts after it."""
        bands, a = self.codec.bank.analyse(audio, pasts[0])
        raw, into = self.codec.encoder(bands, list(pasts[2 : 2 + self.n]))
        made, back = self.codec.decoder(self.codec.posterior(raw)[0], list(pasts[2 + self.n :]))
        y, b = self.codec.bank.synthesise(made, pasts[1])
        return (y, a, b, *into, *back)


def random_model(name: str) -> Model:
    """A preset's codec with its first weights."""
    config = preset.load(name).config
    assert isinstance(config, rave.Config)
    torch.manual_seed(0)
    config = config.model_copy(update={"judges": None})
    network = rave.build(config).eval().requires_grad_(False)
    return Model(f"{name}-random", rave.NAME, config, network, Card(sample_rate=config.sample_rate))


def in_numpy(codec: player.Player, audio: Array) -> Play:
    """A step of the player."""
    state = codec.init(1, block=audio.shape[-1])

    def play() -> Array:
        nonlocal state
        made, state = codec.step(audio, state)
        return made

    return play


def in_torch(step: Step, audio: Array) -> Play:
    """A step of the network itself."""
    pasts = step.begun()

    def play() -> Array:
        nonlocal pasts
        with torch.inference_mode():
            made, *pasts = step(torch.from_numpy(audio), *pasts)
        return made.numpy()

    return play


def in_onnx(step: Step, audio: Array) -> Play:
    """A step of ONNX Runtime, one thread."""
    import onnxruntime

    begun, file = step.begun(), io.BytesIO()
    inputs = ["audio", *(f"past_{i}" for i in range(len(begun)))]
    outputs = ["made", *(f"after_{i}" for i in range(len(begun)))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            step, (torch.from_numpy(audio), *begun), file, input_names=inputs, output_names=outputs, dynamo=False
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    pasts = [past.numpy() for past in begun]

    def play() -> Array:
        nonlocal pasts
        made, *pasts = session.run(None, dict(zip(inputs, [audio, *pasts], strict=True)))
        return made

    return play


def ways_of(model: Model, block: int, with_onnx: bool) -> dict[str, Play]:
    """Each way of computing a block of noise; all of them give the same audio, or this stops."""
    codec = model.network.get_submodule("codec")
    assert isinstance(codec, rave.Codec)
    step, own = Step(codec).eval(), player_of(model)
    audio = (0.1 * np.random.default_rng(0).standard_normal((1, own.channels, block))).astype(np.float32)
    ways = {"NumPy (sfumato.player)": in_numpy(own, audio)}
    if with_onnx:
        ways["ONNX Runtime"] = in_onnx(step, audio)
    ways["torch"] = in_torch(step, audio)
    heard = [np.concatenate([play() for _ in range(4)], axis=-1) for play in ways.values()]
    size = np.abs(heard[-1]).max()
    if any(np.abs(made - heard[-1]).max() > 1e-4 * size + 1e-5 for made in heard):
        raise SystemExit(f"{model.name}: the ways of computing it give different audio.")
    return ways


def measure(ways: dict[str, Play], seconds: float) -> dict[str, tuple[Array, Array]]:
    """Wall and processor time of each way's steps, s: turns until each has had so many seconds."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(max(1, round(seconds / TURN_S))):
        for name, play in ways.items():
            for _ in range(WARM):
                play()
            end = time.perf_counter() + TURN_S
            while time.perf_counter() < end:
                wall, own = time.perf_counter(), time.thread_time()
                play()
                found[name].append((time.perf_counter() - wall, time.thread_time() - own))
    return {name: (np.array(times)[:, 0], np.array(times)[:, 1]) for name, times in found.items()}


def speed(name: str, rate: int, seconds: float) -> None:
    """Print the tables of a model, of the low-latency preset and of RAVE 2's shape."""
    torch.set_num_threads(1)
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401

        with_onnx = True
    except ImportError:
        with_onnx = False
        print("Without ONNX Runtime: pip install onnx onnxruntime\n")
    trained = models.load(name)
    first = True
    for model in (trained, random_model("rave-low-latency"), random_model("rave-v2")):
        hop = model.config.network.hop_length  # type: ignore[attr-defined]
        count = sum(tensor.numel() for tensor in model.network.get_submodule("codec").parameters())
        what = model.name.replace("-random", ", random weights")
        print(f"\n{what}: {count / 1e6:.1f} million weights, a hop of {hop} samples; at {rate} Hz.\n")
        print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
        for block in sorted({hop, 2048, 8192}):
            with threadpool_limits(1):
                for way, (wall, own) in measure(ways_of(model, block, with_onnx), seconds).items():
                    row(way, block, rate, 1e3 * wall, 1e3 * own)
        if first:
            bank_line(trained, rate)
        first = False


def row(way: str, block: int, rate: int, wall: Array, own: Array) -> None:
    """Print one row; times in ms, jitter being the worst less the median."""
    length = 1e3 * block / rate
    cells = [way, str(block), f"{length:.1f}"]
    for times in (wall, own):
        median = float(np.median(times))
        found = (median, float(np.quantile(times, 0.99)), float(times.max()), float(times.max()) - median)
        cells += [*(f"{value:.2f}" for value in found), f"{length / median:.1f}"]
    print(f"| {' | '.join(cells)} | {len(wall)} |", flush=True)


def bank_line(model: Model, rate: int) -> None:
    """Print delay and quality of the filter bank alone."""
    codec = model.network.get_submodule("codec")
    shape = model.config.network  # type: ignore[attr-defined]
    audio = torch.randn(1, shape.channels, 64 * shape.hop_length, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        bands, _ = codec.bank.analyse(audio, codec.bank.init(1))
        back, _ = codec.bank.synthesise(bands, codec.bank.init(1))
    delay = pqmf.bank(shape.bands, shape.taps, shape.attenuation_db).delay
    error = (back[..., delay:] - audio[..., :-delay])[..., 2000:]
    decibels = float(10 * torch.log10(audio[..., 2000:-delay].square().sum() / error.square().sum()))
    print(f"\nFilter bank: {delay} samples of delay, {1e3 * delay / rate:.1f} ms; signal to error {decibels:.1f} dB.")
