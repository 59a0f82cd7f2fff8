"""Spectrograms of takes as PNG, one each and all on a sheet."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sfumato.files import write_atomically
from sfumato.signal.stft import stft
from sfumato.tasks.provenance import Provenance
from sfumato.tasks.takes import Array, Take, Written, check, names, write_all

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sfumato.model import Model
    from sfumato.tasks.music import Walked

N_FFT, HOP = 2048, 512
FLOOR_DB, LOWEST_HZ = -80.0, 40.0
COLUMNS = 4
MOST_ON_SHEET = 64


def write_seen(
    out: Path,
    takes: Iterable[Take],
    model: Model,
    settings: Walked,
    about: Mapping[str, Any],
    shape: tuple[int, int, int],
    notes: tuple[str, ...],
    source: Path | None = None,
    read: Iterable[Path] = (),
) -> Written:
    """Takes as files, their record and, where asked for, their pictures; what can't be written is refused first.

    Parameters
    ----------
    shape
        Sample rate, channels and samples of each take.
    notes
        What the user should know; goes into the record, too.
    source, read
        The input, and what else is read: never written over.

    Raises
    ------
    InputError, ResourceError
        As for `takes.check` and `takes.write_all`.
    """
    keep = Sheet(out, settings.count) if settings.pictures else None
    check(out, settings.count, *shape, source, keep.files() if keep else (), read)
    seen = keep.seen(takes) if keep else takes
    written = write_all(out, seen, settings.count, model, settings, {**about, "notes": list(notes)})
    title = settings.prompt or (source.stem if source else "no prompt")
    return replace(written, notes=notes, pictures=keep.write(title, written.provenance) if keep else ())


class Sheet:
    """Takes that are seen on their way to their files, and then drawn."""

    def __init__(self, out: Path, count: int) -> None:
        self._out, self._count = out, count
        self._seen: list[Take] = []

    def files(self) -> tuple[Path, ...]:
        """Files to be written: one beside each sound, and for several a sheet."""
        each = [path.with_suffix(".png") for path in names(self._out, self._count)[:MOST_ON_SHEET]]
        return (*each, *([] if self._count == 1 else [self._out.with_name(f"{self._out.stem}-sheet.png")]))

    def seen(self, takes: Iterable[Take]) -> Iterator[Take]:
        """The takes, the first `MOST_ON_SHEET` of them kept."""
        for one in takes:
            if len(self._seen) < MOST_ON_SHEET:
                self._seen.append(one)
            yield one

    def write(self, title: str, made_by: Provenance | None = None) -> tuple[Path, ...]:
        """Draw what was seen (see `files`), and say inside what made it.

        Raises
        ------
        ResourceError
            The disk is full.
        """
        files = self.files()
        for path, one in zip(files, self._seen, strict=False):
            line = made_by.line(one.how, item=one.item) if made_by else ""
            write_atomically(path, drawn([one], [title], line=line))
        if len(self._seen) > 1:
            line = made_by.line(count=self._count) if made_by else ""
            write_atomically(files[-1], drawn(self._seen, [str(1 + one.item) for one in self._seen], title, line))
        return files


def drawn(takes: list[Take], titles: list[str], title: str = "", line: str = "") -> bytes:
    """Spectrograms side by side, as a PNG with `line` among its texts."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(takes))
    rows = -(-len(takes) // columns)
    size = (6.4, 3.6) if len(takes) == 1 else (3.2 * columns, 2.1 * rows + (0.4 if title else 0))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, one, name in zip(axes, takes, titles, strict=False):
        _spectrogram(axis, one.audio, one.sample_rate)
        axis.set_title(name if len(name) <= 60 else name[:57] + "…", fontsize=9)
    for axis in axes[len(takes) :]:
        axis.set_axis_off()
    if title:
        figure.suptitle(title if len(title) <= 100 else title[:97] + "…", fontsize=10)
    kept = io.BytesIO()
    texts = {"Software": "sfumato"} | ({"sfumato": line} if line else {})
    figure.savefig(kept, dpi=150, format="png", metadata=texts)
    return kept.getvalue()


def _spectrogram(axis: Axes, audio: Array, sample_rate: int) -> None:
    """Level over time and log frequency, the loudest place at 0 dB."""
    spectrum = stft(torch.from_numpy(audio.mean(axis=0)), N_FFT, HOP).abs().numpy()
    level = 20 * np.log10(np.maximum(spectrum, 1e-12) / max(float(spectrum.max()), 1e-9))
    seconds = np.arange(level.shape[1]) * HOP / sample_rate
    hertz = np.arange(level.shape[0]) * sample_rate / N_FFT
    axis.pcolormesh(seconds, hertz, level, vmin=FLOOR_DB, vmax=0, cmap="magma", shading="nearest", rasterized=True)
    axis.set_yscale("log")
    axis.set_ylim(LOWEST_HZ, sample_rate / 2)
    axis.set_yticks([100, 1000, 10_000], ["100", "1k", "10k"])
    axis.tick_params(labelsize=7)
