"""The picture of a repair: each gap before and after, as waveform and spectrogram, with the spread of its draws."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sfumato.files import write_atomically
from sfumato.signal.levels import Grid, to_db

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from sfumato.tasks.repair import Repaired
    from sfumato.tasks.windows import Source

Array = NDArray[np.float64]

MAX_COLUMNS = 4
_INK, _GAP, _FILL, _DRAWS, _PAPER = "#2b2d42", "#ef476f", "#118ab2", "#f6bd60", "#fbfaf8"
_SPAN_DB = 80.0
_TOP_KHZ = 20.0


def draw(source: Source, gaps: Sequence[Repaired], path: Path) -> None:
    """Write the picture of the longest gaps and groups of regions (four at most) as a PNG.

    Parameters
    ----------
    source
        The damaged recording.
    gaps
        Filled gaps and groups of regions.
    path
        The PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = sorted(sorted(gaps, key=lambda gap: gap.start - gap.stop)[:MAX_COLUMNS], key=lambda gap: gap.start)
    sure = any(gap.interval is not None or gap.refused for gap in shown)
    labels = ["before", "after, with draws", "before, kHz", "after, kHz", *(["interval"] if sure else [])]
    heights = (1.0, 1.0, 1.5, 1.5, 1.3)[: len(labels)]
    figure = Figure(figsize=(4.2 * len(shown) + 0.8, 1.8 * sum(heights)), facecolor=_PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(labels), len(shown), squeeze=False, height_ratios=heights)
    for column, gap in zip(axes.T, shown, strict=True):
        _column(column[:4], source, gap)
        if sure:
            _sure(column[4], source, gap)
    for row, label in enumerate(labels):
        axes[row, 0].set_ylabel(label, color=_INK)
    more = f" (the {len(shown)} longest of {len(gaps)})" if len(gaps) > len(shown) else ""
    figure.suptitle(f"sfumato repair: {_counted(gaps)} filled{more}", color=_INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomically(path, buffer.getvalue())


def _counted(gaps: Sequence[Repaired]) -> str:
    """How many gaps and regions, in words."""
    counts = {"gap": sum(not gap.boxes for gap in gaps), "region": sum(len(gap.boxes) for gap in gaps)}
    return " and ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items() if count)


def _column(axes: Any, source: Source, gap: Repaired) -> None:
    """One gap, top to bottom."""
    rate, length = source.sample_rate, gap.stop - gap.start
    around = max(min(round(0.12 * rate), round(0.05 * rate) + 2 * length), length // 2)
    wide = around + round(0.05 * rate)  # a window more than is shown, so that spectrograms reach the frame's edges
    start, stop = max(gap.start - wide, 0), min(gap.stop + wide, source.n_samples)
    before = np.nan_to_num(source.read(start, stop), posinf=0.0, neginf=0.0)
    inside = slice(gap.start - start, gap.stop - start)
    after = before.copy()
    after[:, inside] = gap.draws[0]
    mono, repaired = before.mean(axis=0), after.mean(axis=0)
    draws = gap.draws.mean(axis=1)
    time_s = np.arange(start, stop) / rate
    shown_s = (max(gap.start - around, 0) / rate, min(gap.stop + around, source.n_samples) / rate)
    peak = 1.7 * max(float(np.abs(repaired).max()), float(np.abs(draws).max(initial=0.0)), 1e-6)
    for axis, signal in ((axes[0], mono), (axes[1], repaired)):
        axis.plot(time_s, signal, color=_INK, linewidth=0.6)
        axis.set_ylim(-peak, peak)
        axis.axvspan(gap.start / rate, gap.stop / rate, color=_GAP, alpha=0.12, linewidth=0)
        axis.set_yticks([])
    title = f"{gap.start / rate:.3f} s · {1e3 * length / rate:.0f} ms · {gap.kind} → {gap.method}"
    nearby = [slice(max(inside.start - around, 0), inside.start), inside, slice(inside.stop, inside.stop + around)]
    parts = " | ".join(f"{to_db(np.mean(repaired[part] ** 2)):.1f}" if repaired[part].size else "–" for part in nearby)
    axes[0].set_title(f"{title}\nbefore | fill | after: {parts} dBFS", fontsize=9, color=_INK)
    low, high = draws.min(axis=0), draws.max(axis=0)
    several = f"all {len(draws)} draws" if len(draws) > 1 else "one fill"
    axes[1].fill_between(time_s[inside], low, high, color=_DRAWS, linewidth=1.2, edgecolor=_DRAWS, label=several)
    axes[1].plot(time_s[inside], repaired[inside], color=_FILL, linewidth=0.4, label="the one pasted")
    _legend(axes[1])
    pictures = [_spectrogram(signal, rate) for signal in (mono, repaired)]
    top = max(float(picture.max()) for picture in pictures)
    for axis, picture in zip(axes[2:], pictures, strict=True):
        _image(axis, picture, top, (time_s[0], time_s[-1]), rate)
        for edge in () if gap.boxes else (gap.start, gap.stop):
            axis.axvline(edge / rate, color="white", linewidth=0.8, linestyle=":")
        for box in gap.boxes:
            low, high = box.f_low_hz / 1e3, min(box.f_high_hz, rate / 2) / 1e3
            axis.fill_between(
                (box.start / rate, box.stop / rate), low, high, facecolor="none", edgecolor="white", linestyle=":"
            )
    for axis in axes:
        axis.set_xlim(*shown_s)
    for axis in axes[2:]:
        axis.set_ylim(0.0, min(rate / 2e3, _TOP_KHZ))
    axes[3].set_xlabel("seconds", color=_INK)


def _sure(axis: Axes, source: Source, gap: Repaired) -> None:
    """The calibrated interval, and the fill beside it: over frequency in the middle of the gap, or over time."""
    bounded, quality = gap.interval, gap.quality
    title = _note("no bound on quality", gap.refused.get("quality", ""))
    if quality is not None:
        title = f"{quality.metric.removesuffix('_db').replace('_', ' ')} ≤ {quality.upper:.1f} dB ({quality.level:.0%})"
    if bounded is None:
        why, same = gap.refused.get("interval", ""), gap.refused.get("interval") == gap.refused.get("quality")
        text = _note("no interval, no bound on quality" if same else "no interval", why)
        axis.text(0.5, 0.5, text, ha="center", va="center", fontsize=9, transform=axis.transAxes, color=_INK)
        axis.set_title("" if same else title, fontsize=9, color=_INK)
        axis.set_axis_off()
        return
    if bounded.domain == "waveform":
        at, filled = bounded.axes["time_s"], gap.draws[0, 0]
        lower, point, upper = bounded.lower[0], bounded.point[0], bounded.upper[0]
        axis.set_xlabel("seconds, first channel", color=_INK)
    else:
        middle = bounded.lower.shape[1] // 2
        time_s = float(bounded.axes["time_s"][middle])
        at, filled = _levels_at(source, gap, time_s, bounded.axes)
        lower, point, upper = (part[:, middle] for part in (bounded.lower, bounded.point, bounded.upper))
        filled = np.where(np.isfinite(point), np.maximum(filled, bounded.axes["floor_db"]), np.nan)
        axis.set_xscale("log")
        axis.set_xlim(30.0, source.sample_rate / 2)
        axis.set_xlabel(f"Hz, at {time_s:.3f} s", color=_INK)
    label = f"where {bounded.level:.0%} of the truth lies"
    axis.fill_between(at, lower, upper, color=_FILL, alpha=0.25, linewidth=0, step="mid", label=label)
    axis.plot(at, point, color=_FILL, linewidth=1.0, label="estimate")
    axis.plot(at, filled, color=_GAP, linewidth=0.9, label="the fill")
    axis.set_title(title, fontsize=9, color=_INK)
    _legend(axis)


def _legend(axis: Axes) -> None:
    """Names of the lines, below the axis, where they cover nothing."""
    below = -0.32 if axis.get_xlabel() else -0.16
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, below), ncols=3, fontsize=7, frameon=False)


def _note(what: str, why: str) -> str:
    """What is not promised and the short of why, in lines as wide as a column."""
    return "\n".join([what, *textwrap.wrap(why.split(";")[0], 52)])


def _levels_at(source: Source, gap: Repaired, time_s: float, axes: Mapping[str, Array]) -> tuple[Array, Array]:
    """Frequencies in Hz, and the fill's levels there in the frame at `time_s`: of bands, or of bins."""
    rate = source.sample_rate
    half = Grid(1, rate).n_fft
    start, stop = max(gap.start - half, 0), min(gap.stop + half, source.n_samples)
    audio = np.nan_to_num(source.read(start, stop), posinf=0.0, neginf=0.0)
    audio[:, gap.start - start : gap.stop - start] = gap.draws[0]
    grid = Grid(stop - start, rate)
    frame = round((time_s * rate - start) / grid.hop_length)
    if "edges_hz" in axes:
        edges_hz = axes["edges_hz"]
        return 0.5 * (edges_hz[:-1] + edges_hz[1:]), grid.levels(audio.mean(axis=0))[:, frame]
    spectrum = grid.transform(audio.mean(axis=0))[: len(axes["frequency_hz"]), frame]
    return axes["frequency_hz"], to_db(np.abs(spectrum / (0.25 * grid.n_fft)) ** 2)


def _spectrogram(signal: Array, sample_rate: int) -> Array:
    """Power in dB, ``(bins, frames)``."""
    padded = np.pad(signal, (0, max(0, 2048 - len(signal))))
    return to_db(np.abs(Grid(len(padded), sample_rate).transform(padded)) ** 2)


def _image(axis: Axes, picture: Array, top: float, span_s: tuple[float, float], sample_rate: int) -> None:
    axis.imshow(
        picture,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=top - _SPAN_DB,
        vmax=top,
        extent=(span_s[0], span_s[1], 0.0, sample_rate / 2e3),
        interpolation="bilinear",
    )
