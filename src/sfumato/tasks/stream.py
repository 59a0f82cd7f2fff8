"""Music without end: drawn stretch after stretch, faster than it plays, and steered by prompts on the way.

Each stretch is drawn with the end of the one before it in view (`tasks.stretches`), so there is no seam, and what is
wanted is asked anew for each. On the way from one prompt to the next the wish is between the two. To the sound card, a
few seconds are drawn ahead; to a file, as many as it lasts.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from sfumato.audio import write_blocks
from sfumato.errors import InputError, ResourceError
from sfumato.model import Model, load
from sfumato.tasks import play
from sfumato.tasks.music import How, Walked, config_of, denoiser_of, sigmas_of
from sfumato.tasks.prompts import Asked, notes_on, said_of
from sfumato.tasks.stretches import Walk, pictures, sounds
from sfumato.tasks.takes import SUBTYPE, Array, Progress, check

if TYPE_CHECKING:
    from sfumato.networks.text import Encoded

NAME = "stream"
LONGEST_S = 24 * 3600.0
WAIT_S = 0.1


class Settings(Walked):
    """What to play, and how."""

    model: str = Field("riffusion", description="name or folder of the model")
    over: float = Field(30.0, gt=0, le=3600, description="seconds that the way from one prompt to the next takes")
    steps: int = Field(8, ge=2, le=100, description="steps of the sampler")
    cfg_scale: float = Field(2.5, ge=0, le=20, description="how strictly prompts are kept to; 1 is fastest")
    ahead: float = Field(6.0, gt=0, le=120, description="seconds drawn ahead; a new prompt is heard after them")
    seconds: float | None = Field(None, gt=0, le=LONGEST_S, description="stop after so long [play until Ctrl-C]")
    output: str | None = Field(None, description="device to play on: its number, or part of its name [the system's]")


class Steering:
    """What is wanted at each second: one prompt, the way to the next, and the next."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._lock = settings, threading.Lock()
        self._begun, self._now = 0.0, 0.0
        self._start: Encoded | None = None

    def towards(self, prompt: str) -> tuple[str, ...]:
        """Go to another prompt from the next stretch on; what is to be known about it.

        Raises
        ------
        InputError
            It can't be read.
        """
        notes = notes_on(Asked(prompt=prompt))
        with self._lock:
            self._start = said_of(self._settings, self._way(self._now), self._start)
            self._settings = self._settings.model_copy(update={"then": prompt, "alpha": None})
            self._begun = self._now
        return notes

    def at(self, second: float) -> tuple[Settings, float, Encoded | None]:
        """What is wanted, how far the way to the next prompt is gone, and where it began if not at a prompt."""
        with self._lock:
            self._now = second
            return self._settings, self._way(second), self._start

    def _way(self, second: float) -> float:
        """How far the way to the next prompt is gone."""
        if self._settings.then is None:
            return 0.0
        if self._settings.alpha is not None:
            return self._settings.alpha
        return min(1.0, max(0.0, (second - self._begun) / self._settings.over))


def blocks(model: Model, settings: Settings, steering: Steering) -> Iterator[Array]:
    """Sound without end, (1, samples) at a time, within full scale."""
    config = config_of(model)
    chosen = How(settings.steps, settings.cfg_scale, settings.guided)

    def denoise(second: float) -> Any:
        wanted, way, start = steering.at(second)
        return denoiser_of(model, wanted, chosen, way, start)

    walk = Walk(denoise, sigmas_of(config, settings.steps), settings.sampler, settings.seed, 0)
    for block in sounds(pictures(config, walk, None), config):
        yield np.clip(block, -1.0, 1.0)


@dataclass(frozen=True)
class Streamed:
    """What a stream came to."""

    seconds: float
    """Of sound that was drawn."""
    drawing_s: float
    """That drawing it took."""
    dropouts: int
    """Times that the sound card found nothing to play."""


def to_file(
    destination: Path, settings: Settings, progress: Progress = lambda done, total, text: None
) -> Streamed:
    """So many seconds of the stream as a file; nothing is left of it if it ends early.

    Raises
    ------
    InputError
        No length is given, or the model draws no music.
    ResourceError
        The disk is full or the folder can't be written.
    """
    if settings.seconds is None:
        raise InputError("A file ends somewhere: say how long it is to be, with --seconds.")
    model = _loaded(settings)
    rate = config_of(model).sample_rate
    n = round(settings.seconds * rate)
    check(destination, 1, rate, 1, n)
    began = time.perf_counter()

    def cut() -> Iterator[Array]:
        done = 0
        for block in blocks(model, settings, Steering(settings)):
            yield block[:, : n - done]
            done += block.shape[1]
            progress(min(done, n), n, "drawing")
            if done >= n:
                return

    write_blocks(destination, cut(), rate, 1, n, SUBTYPE)
    return Streamed(n / rate, time.perf_counter() - began, 0)


class Buffer:
    """What was drawn and not yet played."""

    def __init__(self) -> None:
        self._blocks: queue.SimpleQueue[Array] = queue.SimpleQueue()
        self._rest = np.zeros((1, 0))
        self._lock = threading.Lock()
        self.samples = 0
        self.played = 0
        self.dropouts = 0

    def put(self, block: Array) -> None:
        """Add what was drawn."""
        self._blocks.put(block)
        with self._lock:
            self.samples += block.shape[1]

    def __call__(self, outdata: Array, frames: int, when: Any, status: Any) -> None:
        """Fill `outdata` (samples, channels); silence where nothing is there, which is counted."""
        while self._rest.shape[1] < frames:
            try:
                self._rest = np.concatenate([self._rest, self._blocks.get_nowait()], axis=1)
            except queue.Empty:
                break
        now = self._rest[:, :frames]
        self._rest = self._rest[:, frames:]
        outdata[: now.shape[1]] = now.T
        outdata[now.shape[1] :] = 0
        self.dropouts += now.shape[1] < frames
        self.played += now.shape[1]
        with self._lock:
            self.samples -= now.shape[1]


def to_card(
    settings: Settings,
    started: Callable[[Steering], None] = lambda steering: None,
    dropped: Callable[[int], None] = lambda so_far: None,
) -> Streamed:
    """Play until interrupted, or for so many seconds.

    Parameters
    ----------
    started
        Called once, when it can be heard; what it is given takes other prompts.
    dropped
        Called with the number of dropouts whenever there are more.

    Raises
    ------
    InputError, MissingExtraError, ResourceError
        As for `play.run`.
    """
    cards, model = play.portaudio(), _loaded(settings)
    rate, steering, buffer = config_of(model).sample_rate, Steering(settings), Buffer()
    over, spent, stopped = threading.Event(), [0.0], threading.Event()

    def draw() -> None:
        made = blocks(model, settings, steering)
        while not over.is_set():
            if buffer.samples > settings.ahead * rate:
                time.sleep(WAIT_S / 4)
                continue
            began = time.perf_counter()
            buffer.put(next(made))
            spent[0] += time.perf_counter() - began

    artist = ThreadPoolExecutor(1).submit(draw)
    try:
        while not buffer.samples and not artist.done():
            over.wait(WAIT_S)
        if artist.done():
            artist.result()  # raises what went wrong
        given = int(settings.output) if settings.output and settings.output.isdecimal() else settings.output
        with cards.OutputStream(
            samplerate=rate, device=given, channels=1, dtype="float32", callback=buffer, finished_callback=stopped.set
        ):
            started(steering)
            began, seen = time.perf_counter(), 0
            while settings.seconds is None or time.perf_counter() - began < settings.seconds:
                over.wait(WAIT_S)
                if artist.done():
                    artist.result()
                if stopped.is_set():
                    raise ResourceError("The sound card stopped by itself. Is it still plugged in?")
                if buffer.dropouts > seen:
                    seen = buffer.dropouts
                    dropped(seen)
    except KeyboardInterrupt:
        pass
    except (cards.PortAudioError, ValueError) as error:
        raise ResourceError(f"The sound card can't play it: {error}. sfumato play --list shows devices.") from None
    finally:
        over.set()  # the stretch that is being drawn ends by itself
    return Streamed((buffer.played + buffer.samples) / rate, spent[0], buffer.dropouts)


def _loaded(settings: Settings) -> Model:
    """The model, once it is known that it draws music and that the prompts can be read."""
    model = load(settings.model)
    if model.system != "riffusion":
        raise InputError(f"{model.name} is of the system {model.system} and reads no prompts. Give a riffusion model.")
    notes_on(settings)
    return model
