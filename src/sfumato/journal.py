"""What a long run tells while it goes: a line of JSON per report, TensorBoard events, a progress bar with time left."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sfumato.errors import MissingExtraError
from sfumato.files import write_atomically

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Journal:
    """Reports of a run of `steps` steps, starting at `start`, kept in `folder`; a quiet one writes nothing.

    Lines of `log.jsonl` later than `start` are dropped, as a resumed run writes them anew.

    Raises
    ------
    MissingExtraError
        `tensorboard` is wanted but not installed.
    """

    def __init__(self, folder: Path, start: int, steps: int, *, tensorboard: bool, quiet: bool) -> None:
        self._path = folder / "log.jsonl"
        self._quiet = quiet
        self._events: SummaryWriter | None = None
        if quiet:
            return
        if self._path.exists():
            kept = [line for line in self._path.read_text().splitlines() if _step(line) <= start]
            write_atomically(self._path, "".join(f"{line}\n" for line in kept).encode())
        if tensorboard:
            self._events = _events(folder / "tensorboard", start)
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._bar = Progress(
            *columns,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("training", total=steps, completed=start)

    def __enter__(self) -> Journal:
        """Show the bar."""
        if not self._quiet:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away and close the events."""
        if not self._quiet:
            self._bar.stop()
        if self._events is not None:
            self._events.close()

    def advance(self, step: int) -> None:
        """Move the bar to `step`."""
        if not self._quiet:
            self._bar.update(self._task, completed=step)

    def report(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        """Write one line, and show the total loss beside the bar."""
        if self._quiet:
            return
        rounded = {key: float(f"{value:.6g}") for key, value in values.items()}
        line = json.dumps({"step": step, "seconds": round(seconds, 1), **rounded})
        with self._path.open("a") as file:
            file.write(line + "\n")
        if "total" in values:
            self._bar.update(self._task, description=f"loss {values['total']:.4g}")
        if self._events is not None:
            for key, value in values.items():
                self._events.add_scalar(key, value, step)


def _step(line: str) -> float:
    """The step of a log line; infinite for one cut off by a kill."""
    try:
        value: Any = json.loads(line)["step"]
        return float(value)
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _events(folder: Path, start: int) -> SummaryWriter:
    """A writer of TensorBoard events that hides what an earlier run wrote after `start`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingExtraError("TensorBoard", "train") from None
    return SummaryWriter(str(folder), purge_step=start + 1)
