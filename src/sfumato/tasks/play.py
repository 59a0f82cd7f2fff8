"""Sound that comes in at one end of a sound card and goes out at the other, through a codec in between.

The sound card calls `Live` with a block of input whenever it wants one of output; the codec's step runs right there,
in NumPy on one thread, and its state goes from block to block. What comes out is what the same blocks give offline.
A block that takes longer to compute than it lasts is late: the card has nothing to play, which is heard as a dropout.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
from pydantic import Field
from threadpoolctl import threadpool_limits

from sfumato.errors import InputError, MissingExtraError, ResourceError, SfumatoError
from sfumato.player import Player, load
from sfumato.player.weights import Array
from sfumato.tasks import latent_axes
from sfumato.tasks.latency import Ledger, measure

NAME = "play"
EXTRA = "live"
CHECKED_S = 0.25
"""How often it is looked whether something was late."""
MEASURED_S = 0.5
"""Wall-clock time for which computing is measured before the card is started."""
_XRUNS = ("input_underflow", "input_overflow", "output_underflow", "output_overflow")


class Settings(latent_axes.Settings):
    """How to play."""

    model: str = Field("rave-piano", description="name or folder of the codec")
    block: int | None = Field(
        None, ge=1, le=1 << 20, description="samples handed over at a time [the codec's hop]; others wait in a queue"
    )
    input: str | None = Field(None, description="device to listen to: its number, or part of its name [the system's]")
    output: str | None = Field(None, description="device to play on: its number, or part of its name [the system's]")
    seconds: float | None = Field(None, gt=0, description="stop after so long [play until Ctrl-C]")


@dataclass(frozen=True)
class Device:
    """A device as PortAudio names it."""

    number: int
    name: str
    system: str
    inputs: int
    outputs: int
    sample_rate: float
    """The one it prefers, Hz."""
    default: str
    """What of it is the system's choice: "input", "output", "both" or nothing."""


@dataclass(frozen=True)
class Started:
    """What plays, once it does."""

    ledger: Ledger
    card_ms: tuple[float, float]
    """What the sound card says it adds at its input and its output."""
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Played:
    """What playing came to."""

    seconds: float
    blocks: int
    late: int
    """Blocks that took longer than they last."""
    xruns: int
    """Blocks before which the sound card says that something was lost."""
    worst_ms: float
    """Longest time to compute a block."""


class Live:
    """What the sound card calls: a block in, a block out, and the codec's state from one to the next."""

    def __init__(self, codec: Player, settings: Settings) -> None:
        self.block = settings.block or codec.hop_length
        self.length_s = self.block / codec.recipe.sample_rate
        self.blocks = self.late = self.xruns = 0
        self.worst_s = 0.0
        self.failure: SfumatoError | None = None
        self._codec, self._alter = codec, alteration(codec, settings)
        promised = self.block if self.block % codec.hop_length == 0 else None
        self._state = codec.init(1, block=promised)

    def __call__(self, indata: Array, outdata: Array, frames: int, when: Any, status: Any) -> None:
        """Fill `outdata` (samples, channels) from `indata`; any number of channels each."""
        began = time.perf_counter()
        if status and any(getattr(status, kind) for kind in _XRUNS):
            self.xruns += 1
        try:
            heard = fitted(indata.T, self._codec.channels)[None]
            played, self._state = self._codec.step(heard, self._state, self._alter)
        except SfumatoError as error:
            self.failure = self.failure or error
            outdata.fill(0)
            return
        outdata[:] = fitted(played[0], outdata.shape[1]).T
        took = time.perf_counter() - began
        self.blocks += 1
        self.late += took > self.length_s
        self.worst_s = max(self.worst_s, took)


def fitted(audio: Array, channels: int) -> Array:
    """Audio (channels, samples) on another number of channels: one is copied to all, all are averaged to one, and of
    other numbers the first ones are taken, the last repeated."""
    if channels == 1 and len(audio) > 1:
        audio = np.asarray(audio.mean(axis=0, keepdims=True), np.float32)
    return audio[np.minimum(np.arange(channels), len(audio) - 1)]


def alteration(codec: Player, settings: latent_axes.Settings) -> Callable[[Array], Array] | None:
    """What happens to the latent; None where nothing does.

    Raises
    ------
    InputError
        There is no such axis.
    """
    bias, scale = latent_axes.pairs(settings.bias), latent_axes.pairs(settings.scale)
    if settings.fidelity == 1 and not bias and not scale:
        return None
    change = partial(latent_axes.alter, codec.weights, fidelity=settings.fidelity, bias=bias, scale=scale)
    change(np.zeros((1, codec.recipe.network.latent, 1), np.float32))
    return change


def run(
    settings: Settings,
    started: Callable[[Started], None] = lambda what: None,
    dropped: Callable[[Played], None] = lambda so_far: None,
) -> Played:
    """Play until interrupted, or for so many seconds.

    Parameters
    ----------
    settings
        What to play, and on what.
    started
        Called once, when the sound card has begun.
    dropped
        Called now and then, when there have been more dropouts.

    Raises
    ------
    InputError
        There is no such device or axis, or it can't be played at the codec's rate.
    MissingExtraError
        The Python package sounddevice is missing.
    ResourceError
        PortAudio or a sound card is missing, or the card stopped.
    """
    codec = load(settings.model)
    cards = portaudio()
    live, over = Live(codec, settings), threading.Event()
    began = time.perf_counter()
    with threadpool_limits(1):
        ledger = measure(codec, live.block, seconds=MEASURED_S)
        stream, inputs, outputs = _opened(cards, codec, live, settings, over)
        try:
            with stream:
                delays = np.broadcast_to(np.asarray(stream.latency, float), 2)
                started(Started(ledger, (1e3 * float(delays[0]), 1e3 * float(delays[1])), inputs, outputs))
                began, seen = time.perf_counter(), 0
                while not _waited(over, began, settings.seconds) and live.failure is None:
                    if live.late + live.xruns > seen:
                        seen = live.late + live.xruns
                        dropped(_so_far(live, began))
        except KeyboardInterrupt:
            return _so_far(live, began)
        except cards.PortAudioError as error:
            raise ResourceError(f"The sound card stopped: {_words(error)}. Is it still plugged in?") from None
    if live.failure is not None:
        raise live.failure
    if over.is_set() and (settings.seconds is None or time.perf_counter() - began < settings.seconds):
        raise ResourceError("The sound card stopped by itself. Is it still plugged in?")
    return _so_far(live, began)


def _waited(over: threading.Event, began: float, seconds: float | None) -> bool:
    """Wait a moment; whether it is over."""
    left = np.inf if seconds is None else began + seconds - time.perf_counter()
    return left <= 0 or over.wait(min(CHECKED_S, float(left)))


def _so_far(live: Live, began: float) -> Played:
    return Played(time.perf_counter() - began, live.blocks, live.late, live.xruns, 1e3 * live.worst_s)


def devices() -> list[Device]:
    """Every device that PortAudio finds.

    Raises
    ------
    MissingExtraError
        The Python package sounddevice is missing.
    ResourceError
        PortAudio is missing.
    """
    cards = portaudio()
    systems = [system["name"] for system in cards.query_hostapis()]
    chosen = [int(number) for number in cards.default.device]
    found = []
    for number, card in enumerate(cards.query_devices()):
        of = [kind for kind, own in zip(("input", "output"), chosen, strict=True) if own == number]
        found.append(
            Device(
                number=number,
                name=str(card["name"]),
                system=systems[card["hostapi"]],
                inputs=card["max_input_channels"],
                outputs=card["max_output_channels"],
                sample_rate=float(card["default_samplerate"]),
                default="both" if len(of) == 2 else "".join(of),
            )
        )
    return found


def portaudio() -> ModuleType:
    """The sounddevice package.

    Raises
    ------
    MissingExtraError
        It is missing.
    ResourceError
        The library below it is missing.
    """
    try:
        import sounddevice
    except ImportError:
        raise MissingExtraError("sounddevice", EXTRA) from None
    except OSError:
        raise ResourceError(
            "The PortAudio library is missing. On Debian or Ubuntu: apt install libportaudio2; on Fedora: dnf install "
            "portaudio. sfumato transform does the same to files."
        ) from None
    module: ModuleType = sounddevice
    return module


def _opened(
    cards: ModuleType, codec: Player, live: Live, settings: Settings, over: threading.Event
) -> tuple[Any, int, int]:
    """The stream, not started yet, and its channels in and out."""
    numbers, channels = [], []
    for kind, wanted in (("input", settings.input), ("output", settings.output)):
        given = int(wanted) if wanted is not None and wanted.isdecimal() else wanted
        try:
            card = cards.query_devices(given, kind)
        except (cards.PortAudioError, ValueError) as error:
            if wanted is None:
                raise ResourceError(
                    f"There is no {kind} device. Plug one in, or name one that sfumato play --list shows with --{kind}."
                ) from None
            raise InputError(
                f"There is no {kind} device '{wanted}': {_words(error)}. sfumato play --list shows them."
            ) from None
        numbers.append(given)
        channels.append(int(card[f"max_{kind}_channels"]))
    inputs, outputs = min(channels[0], codec.channels), min(channels[1], 2)
    rate = codec.recipe.sample_rate
    try:
        stream = cards.Stream(
            samplerate=rate,
            blocksize=live.block,
            device=tuple(numbers),
            channels=(inputs, outputs),
            dtype="float32",
            latency="low",
            callback=live,
            finished_callback=over.set,
        )
    except (cards.PortAudioError, ValueError) as error:
        raise InputError(
            f"The devices can't play {rate} Hz in blocks of {live.block}: {_words(error)}. Give others (sfumato play "
            "--list shows them), or another --block."
        ) from None
    return stream, inputs, outputs


def _words(error: BaseException) -> str:
    """What the library says, on one line and without its full stop."""
    return " ".join(str(error.args[0] if error.args else error).split()).rstrip(".")
