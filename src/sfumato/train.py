"""The one training loop, for every system: `fit(system, config, settings, dataset, out)`.

Everything random is a pure function of (seed, step, item), so the state of a training is its weights, its average,
its optimizer and a step number; resuming is bit-exact on the same device, threads and versions. Under torchrun each
process takes its share of every batch and gradients are averaged, so n processes do what one does, up to rounding.

Written to `out`: `checkpoint-<step>.safetensors` (the last two), `log.jsonl`, `tensorboard/`, `demos/` and, at the
end, the folder `model/`.
"""

from __future__ import annotations

import contextlib
import copy
import math
import signal
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from sfumato import checkpoint
from sfumato.checkpoint import Identity, State
from sfumato.config import Settings
from sfumato.diffusion.noise import BatchNoise
from sfumato.errors import InputError, SfumatoError
from sfumato.journal import Journal
from sfumato.model import Card, Model, load, save
from sfumato.processes import Stop, anywhere, average_gradients, group, mean, only_writer, stop_signals

MAX_SKIPPED = 50
"""Steps in a row whose gradient may be non-finite (and are skipped) before the training gives up."""


class TrainSettings(Settings):
    """How long, how fast and how carefully to train."""

    seed: int = Field(0, ge=0, description="seed of weights, batches and noise")
    steps: int = Field(10_000, ge=1, description="training steps; the learning rate decays over them")
    batch_size: int = Field(16, ge=1, description="items per step, over all processes")
    learning_rate: float = Field(3e-4, gt=0, description="highest learning rate of AdamW")
    decay_to: float = Field(0.01, ge=0, le=1, description="last learning rate as a part of the highest")
    warmup_steps: int = Field(500, ge=0, description="steps of linear warm-up")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's decay of matrices and kernels (never of vectors)")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="decay per step of the weights' moving average")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="arithmetic of the network")
    channels_last: bool = Field(False, description="store images channels-last (faster 2-D convolutions)")
    compile: bool = Field(False, description="compile the network with torch.compile")
    device: str = Field("cpu", pattern=r"^(cpu|cuda)$", description="where to train: cpu or cuda")
    minutes: float | None = Field(None, ge=0, description="stop at the first step border after this wall time")
    log_every: int = Field(50, ge=1, description="steps between log lines")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    validate_every: int = Field(1000, ge=1, description="steps between validations, where a validation set is given")
    validation_batches: int = Field(8, ge=1, description="batches per validation, always the same ones")
    demo_every: int = Field(0, ge=0, description="steps between demos as audio; 0 for none")
    start_from: str | None = Field(None, description="model whose weights to start from: a shipped one, or a folder")
    tensorboard: bool = Field(False, description="also write TensorBoard events (extra: train)")

FINISH_BATCHES = 32
"""Training batches that a system's `finish` may look at."""

_MAY_CHANGE = frozenset(
    {"steps", "minutes", "device", "compile", "tensorboard", "log_every", "checkpoint_every", "demo_every"}
    | {"validate_every", "validation_batches"}
)
"""Settings that a resumed training may have different."""


class Dataset(Protocol):
    """Batches as a pure function of their arguments."""

    def batch(self, seed: int, step: int, size: int, rank: int, world: int) -> dict[str, Tensor]:
        """Items [rank, rank + 1) * size / world of the `size` items of step `step`, stacked by name."""
        ...


class System(Protocol):
    """What the loop needs of a system's module. With several TURNS, each names the child module it trains."""

    NAME: str
    TURNS: Sequence[str]

    def build(self, config: Any) -> nn.Module:
        """The network with its initial weights."""
        ...

    def loss(
        self, network: nn.Module, batch: dict[str, Tensor], config: Any, noise: BatchNoise, turn: str
    ) -> dict[str, Tensor]:
        """Scalar losses, means over the batch; "total" is the one stepped. Empty: this turn rests."""
        ...


@dataclass(frozen=True)
class Fitted:
    """What a training came to."""

    step: int
    stopped_by: Literal["steps", "minutes"]
    checkpoint: Path
    model: Path


def learning_rate(settings: TrainSettings, step: int) -> float:
    """The rate of step `step` (from 0): linear warm-up, then half a cosine down to `decay_to` of the highest."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    low = settings.decay_to
    return settings.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def fit(
    system: System,
    config: BaseModel,
    settings: TrainSettings,
    dataset: Dataset,
    out: Path,
    *,
    validation: Dataset | None = None,
    card: Card | None = None,
    name: str | None = None,
) -> Fitted:
    """Train a network of `system` and write its averaged weights as the model folder `out/model`.

    Starts from the newest checkpoint in `out` if there is one. SIGTERM or SIGINT stops at the next step border, writes
    a checkpoint and raises SystemExit(143 or 130); a second one exits at once.

    Parameters
    ----------
    system : the system's module.
    config : its configuration; `config.sample_rate`, if any, goes into the card.
    settings : how to train.
    dataset : where batches come from.
    out : folder for everything written; created.
    validation : a second dataset, whose loss under the averaged weights is logged as `validation`.
    card : licence, data and command for its card; steps, minutes, seed and the data of `start_from` are filled in.
    name : the model's name; default is the name of `out`.

    Raises
    ------
    InputError
        `out` belongs to a training with other settings, or another process is writing to it.
    SfumatoError
        The loss stayed non-finite for 50 steps in a row.
    """
    out.mkdir(parents=True, exist_ok=True)
    devices = [torch.cuda.current_device()] if settings.device == "cuda" else []
    with (
        group(settings.device) as (rank, world),
        only_writer(out) if rank == 0 else contextlib.nullcontext(),
        torch.random.fork_rng(devices),
        stop_signals() as stop,
    ):
        run = _Run(system, config, settings, out, rank, world)
        checkpoint.resume(out, run.state, run.identity)
        fitted = run.loop(dataset, validation, stop)
        if rank == 0:
            run.export(card or Card(), name or out.resolve().name, dataset)
    return fitted


def start(system: System, network: nn.Module, trained: nn.Module) -> None:
    """Give `network` the weights of a trained one: as the system's own `start` does it, or all of them.

    Raises
    ------
    InputError
        The two are not built alike.
    """
    try:
        own = getattr(system, "start", None)
        if own is not None:
            own(network, trained)
        else:
            network.load_state_dict(trained.state_dict())
    except (RuntimeError, KeyError) as error:
        raise InputError(f"start_from: the weights don't fit this network ({str(error).splitlines()[0]}).") from None


class _Run:
    """One training on its way: network, average, optimizers, step, and what is written about them."""

    def __init__(
        self, system: System, config: BaseModel, settings: TrainSettings, out: Path, rank: int, world: int
    ) -> None:
        if settings.batch_size % world:
            raise InputError(f"batch_size = {settings.batch_size} can't be shared by {world} processes.")
        self.system, self.config, self.settings, self.out = system, config, settings, out
        self.rank, self.world = rank, world
        self.identity = Identity(system.NAME, config, settings, _MAY_CHANGE)
        torch.manual_seed(settings.seed)
        network = system.build(config)
        self.inherited: tuple[str, ...] = ()
        if settings.start_from is not None:
            base = load(settings.start_from)
            start(system, network, base.network)
            lines = base.card.data or ("data unstated",)  # what it was trained on is in these weights, too
            self.inherited = tuple(f"started from {base.name}: {line}" for line in lines)
        network = network.to(settings.device)
        if settings.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        average = copy.deepcopy(network).eval().requires_grad_(False)
        if settings.compile:
            network.compile()
        optimizers = {turn: self._optimizer(network, turn) for turn in system.TURNS}
        self.state = State(network, average, optimizers, {})
        self.skipped = 0

    def _optimizer(self, network: nn.Module, turn: str) -> torch.optim.AdamW:
        """AdamW over what `turn` trains: all weights, or with several turns the child module of that name."""
        module = network if len(self.system.TURNS) == 1 else network.get_submodule(turn)
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        matrices, vectors = [w for w in weights if w.ndim >= 2], [w for w in weights if w.ndim < 2]
        parts = [{"params": matrices, "weight_decay": self.settings.weight_decay}] if matrices else []
        parts += [{"params": vectors, "weight_decay": 0.0}] if vectors else []
        return torch.optim.AdamW(parts, betas=(0.9, 0.99))

    def loop(self, dataset: Dataset, validation: Dataset | None, stop: Stop) -> Fitted:
        """Train until the last step, the time limit or a signal; always ends on a checkpoint."""
        settings, begun, before = self.settings, time.monotonic(), self.state.seconds
        saved = -1
        stopped_by: Literal["steps", "minutes"] = "steps"
        log = Journal(self.out, self.state.step, settings.steps, tensorboard=settings.tensorboard, quiet=self.rank != 0)
        with log, ThreadPoolExecutor(1) as pool:
            share = (settings.batch_size, self.rank, self.world)
            coming = pool.submit(dataset.batch, settings.seed, self.state.step, *share)
            while self.state.step < settings.steps:
                if self._anywhere(stop.number != 0):
                    break
                if self._anywhere(settings.minutes is not None and time.monotonic() - begun >= 60 * settings.minutes):
                    stopped_by = "minutes"
                    break
                batch = coming.result()
                if self.state.step + 1 < settings.steps:
                    coming = pool.submit(dataset.batch, settings.seed, self.state.step + 1, *share)
                self.train_step(batch)
                self.state.seconds = before + time.monotonic() - begun
                log.advance(self.state.step)
                if self._due(settings.log_every):
                    log.report(self.state.step, self.state.seconds, self._means())
                if validation is not None and self._due(settings.validate_every):
                    log.report(self.state.step, self.state.seconds, self.validate(validation))
                if self.rank == 0 and settings.demo_every and self.state.step % settings.demo_every == 0:
                    self.demo()
                if self.state.step % settings.checkpoint_every == 0:
                    saved = self.save()
            coming.cancel()
        if saved != self.state.step:
            self.save()
        if self._anywhere(stop.number != 0):
            raise SystemExit(128 + (stop.number or signal.SIGTERM))
        return Fitted(self.state.step, stopped_by, checkpoint.path_of(self.out, self.state.step), self.out / "model")

    def train_step(self, batch: dict[str, Tensor]) -> None:
        """One step of every turn, then of the average."""
        torch.manual_seed(
            _mix(self.settings.seed, self.state.step, self.rank)
        )  # dropout, too, depends on the step alone
        self.state.network.train()
        rate = learning_rate(self.settings, self.state.step)
        noise = self._noise(self.settings.seed, self.state.step)
        batch = {key: value.to(self.settings.device) for key, value in batch.items()}
        finite = True
        for turn, optimizer in self.state.optimizers.items():
            with self._arithmetic():
                losses = self.system.loss(self.state.network, batch, self.config, noise, turn)
            if not losses:
                continue
            losses["total"].backward()  # type: ignore[no-untyped-call]
            weights = [weight for part in optimizer.param_groups for weight in part["params"]]
            average_gradients(weights, self.world)
            norm = nn.utils.clip_grad_norm_(weights, self.settings.clip_norm)
            finite = finite and bool(torch.isfinite(norm))
            if finite:
                for part in optimizer.param_groups:
                    part["lr"] = rate
                optimizer.step()
                self._add(losses | {"gradient_norm": norm}, turn)
            self.state.network.zero_grad(set_to_none=True)
        self.skipped = 0 if finite else self.skipped + 1
        if self.skipped >= MAX_SKIPPED:
            raise SfumatoError(
                f"The gradient was not finite for {MAX_SKIPPED} steps up to step {self.state.step}. "
                f"Lower learning_rate ({self.settings.learning_rate:g}) or use precision float32."
            )
        self.state.step += 1
        self._update_average()

    @torch.no_grad()
    def _update_average(self) -> None:
        """Move the averaged weights towards the new ones; faster at first, as the first weights are worthless."""
        decay = min(self.settings.ema_decay, self.state.step / (self.state.step + 9))
        torch._foreach_lerp_(list(self.state.average.parameters()), list(self.state.network.parameters()), 1 - decay)
        for old, new in zip(self.state.average.buffers(), self.state.network.buffers(), strict=True):
            old.copy_(new)

    @torch.no_grad()
    def validate(self, validation: Dataset) -> dict[str, float]:
        """Mean losses of the averaged weights over the first batches of `validation`, with fixed noise."""
        total: dict[str, float] = {}
        n_batches = self.settings.validation_batches
        for i in range(n_batches):
            batch = validation.batch(0, i, self.settings.batch_size, self.rank, self.world)
            batch = {key: value.to(self.settings.device) for key, value in batch.items()}
            with self._arithmetic():
                for turn in self.system.TURNS:
                    losses = self.system.loss(self.state.average, batch, self.config, self._noise(0, i), turn)
                    for key, value in losses.items():
                        label = f"validation/{self._label(key, turn)}"
                        total[label] = total.get(label, 0.0) + mean(value, self.world) / n_batches
        return total

    def demo(self) -> None:
        """Let the system write what it can do now, if it defines `demo`."""
        demo = getattr(self.system, "demo", None)
        if demo is not None:
            folder = self.out / "demos"
            folder.mkdir(exist_ok=True)
            with torch.no_grad():
                demo(self.state.average, self.config, self.settings, folder, self.state.step)

    def save(self) -> int:
        """Write a checkpoint; the step."""
        if self.rank == 0:
            checkpoint.write(self.out, self.state, self.identity)
        return self.state.step

    def export(self, card: Card, name: str, dataset: Dataset) -> None:
        """Write the averaged weights as a model folder, after what the system's own `finish` does to them."""
        network, config = self.state.average, self.config
        finish = getattr(self.system, "finish", None)
        if finish is not None:
            size = self.settings.batch_size
            batches = [dataset.batch(self.settings.seed, step, size, 0, 1) for step in range(FINISH_BATCHES)]
            network, config = finish(network.cpu(), config, batches)
        full = card.model_copy(
            update={
                "seed": self.settings.seed,
                "steps": self.state.step,
                "minutes": round(self.state.seconds / 60, 1),
                "sample_rate": card.sample_rate or getattr(self.config, "sample_rate", None),
                "data": (*card.data, *self.inherited),
            }
        )
        save(Model(name, self.system.NAME, config, network, full), self.out / "model")

    def _noise(self, seed: int, step: int) -> BatchNoise:
        """The noise of this process's share of the items of `step`."""
        share = self.settings.batch_size // self.world
        first = step * self.settings.batch_size + self.rank * share
        return BatchNoise(seed, first, share, self.settings.device, self.state.step)

    def _arithmetic(self) -> torch.autocast:
        """Autocast to bfloat16, or nothing."""
        wanted = self.settings.precision == "bfloat16"
        return torch.autocast(self.settings.device, torch.bfloat16, enabled=wanted)

    def _anywhere(self, condition: bool) -> bool:
        """True on every process if it is on one."""
        return anywhere(condition, self.settings.device, self.world)

    def _label(self, key: str, turn: str) -> str:
        """Name of a loss in the log: the turn's name stands before it where there are several."""
        return key if len(self.system.TURNS) == 1 else f"{turn}/{key}"

    def _add(self, losses: Mapping[str, Tensor], turn: str) -> None:
        """Add to the sums since the last log line; no waiting for the device."""
        for key, value in losses.items():
            for label, term in (
                (self._label(key, turn), value),
                (f"n.{self._label(key, turn)}", value * 0 + 1),
            ):
                self.state.sums[label] = (
                    self.state.sums.get(label, torch.zeros_like(value, dtype=torch.float64)) + term.detach()
                )

    def _means(self) -> dict[str, float]:
        """Means since the last log line, which starts anew."""
        sums, self.state.sums = self.state.sums, {}
        keys = [key for key in sums if not key.startswith("n.")]
        return {key: mean(sums[key] / sums[f"n.{key}"], self.world) for key in keys}

    def _due(self, every: int) -> bool:
        """Whether this is one of every `every` steps, or the last."""
        return self.state.step % every == 0 or self.state.step == self.settings.steps


def _mix(seed: int, step: int, rank: int) -> int:
    """A seed for torch's own generator that differs by step and process (odd multipliers modulo 2^63)."""
    return (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + rank * 0x94D049BB133111EB) % 2**63
