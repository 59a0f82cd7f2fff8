"""Repairing a file: reads it by window, writes the repaired file, its JSON, and a report if asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato.audio import Recording, open_recording, write, write_edited
from sfumato.encoding import choose
from sfumato.errors import InputError, ResourceError
from sfumato.files import write_atomically
from sfumato.tasks import repair_report
from sfumato.tasks.gaps import Skipped, wanted_of
from sfumato.tasks.methods import check_model, load_model
from sfumato.tasks.repair import (
    BLOCK,
    Progress,
    Repaired,
    Settings,
    fill_all,
    load_promises,
    provenance,
)

LISTING = "report.json"
"""What a report holds: beside its picture and excerpts."""

_REPORT_FILE = re.compile(r"repair\.png|report\.json|(gap|region)-\d+-draw-\d+\.wav", re.IGNORECASE)
_INTERVAL_FILE = re.compile(r"\.gap-\d+\.npz")

AROUND_S = 2.0
"""Sound on both sides of a gap in the report's excerpts."""


@dataclass(frozen=True)
class Outcome:
    """What repairing a file came to."""

    output: Path
    json: Path
    picture: Path | None
    draws: tuple[Path, ...]
    """Excerpts around each gap and group of regions, one per draw."""
    gaps: tuple[dict[str, Any], ...]
    regions: tuple[dict[str, Any], ...]
    skipped: tuple[dict[str, Any], ...]
    truncated: bool
    """Whether the input ended before its time."""
    seconds: float


@dataclass(frozen=True)
class _Source:
    """A recording as a source of windows."""

    recording: Recording
    sample_rate: int = field(init=False)
    channels: int = field(init=False)
    n_samples: int = field(init=False)

    def __post_init__(self) -> None:
        for name in ("sample_rate", "channels", "n_samples"):
            object.__setattr__(self, name, getattr(self.recording.info, name))

    def read(self, start: int, stop: int) -> NDArray[np.float64]:
        return self.recording.read(start, stop)


def repair_file(
    source: str | Path,
    destination: str | Path,
    gaps: Sequence[tuple[float, float]] | None = None,
    settings: Settings | None = None,
    report: Path | None = None,
    progress: Progress = lambda done, total, text: None,
    regions: Sequence[tuple[float, float, float, float]] = (),
) -> Outcome:
    """The repaired file at `destination`, beside it its JSON, and in `report` a picture and excerpts of every draw.

    Memory does not grow with the length of the recording. Nothing is left half-written.

    Parameters
    ----------
    source, destination
        Two different files; `destination` keeps format, rate, channels and tags where its suffix allows.
    gaps
        Half-open (start, stop) in seconds; None finds them, unless regions are given.
    settings
        How to repair.
    report
        Folder for the report; created.
    progress
        Called with gaps done, gaps in all, and a word.
    regions
        (start, stop, f_low, f_high) in seconds and Hz, where only what sounds inside is replaced.

    Raises
    ------
    InputError
        The file, a gap or a region can't be used.
    ResourceError
        The disk is full or a folder can't be written.
    """
    began = time.perf_counter()
    settings = settings or Settings()
    destination = Path(destination)
    _check_writable(destination.parent)
    promised = load_promises(settings)
    with open_recording(source) as recording:
        cut = _Source(recording)
        _check_destination(Path(source), destination, recording)
        check_model(settings)
        if report is not None:
            _check_report(report, Path(source), destination)
            _make(report)
        decoded = time.perf_counter()
        progress(0, 0, "looking for damage" if gaps is None and not regions else "checking gaps")
        wanted = wanted_of(cut, gaps, regions, recording.blocks(BLOCK))
        found = time.perf_counter()
        model = load_model(settings) if wanted.gaps or wanted.regions else None
        done: list[Repaired] = []
        skipped = wanted.skipped.copy()
        for gap in fill_all(cut, wanted, settings, model, progress, promised):
            if isinstance(gap, Skipped):
                skipped.append(gap)
            else:  # without a report, only the draw that is pasted is kept
                done.append(gap if report else dataclasses.replace(gap, draws=gap.draws[:1].copy()))
        filled = time.perf_counter()
        write_edited(recording, destination, [(gap.start, gap.draws[0]) for gap in done])
        rate = cut.sample_rate
        picture, excerpts = None, []
        if report is not None and done:
            excerpts = [path for name, gap in _named(done) for path in _excerpts(cut, gap, name, report)]
            picture = report / "repair.png"
            repair_report.draw(cut, done, picture)
        if report is not None:
            _list_report(report, [path.name for path in (*excerpts, *([picture] if picture else []))])
        rows = tuple(
            _row(gap, rate, _interval_file(gap, name, destination)) for name, gap in _named(done) if not gap.boxes
        )
        parts = tuple(row for gap in done if gap.boxes for row in _region_rows(gap, rate))
        left = tuple(_skipped_row(stretch, rate) for stretch in skipped)
        path = destination.with_name(destination.name + ".json")
        _remove_old_intervals(path, destination, rows)
        finished = time.perf_counter()
        body = {
            "input": os.fspath(source),
            "input_sha256": _sha256(Path(source)),
            "output": os.fspath(destination),
            "sample_rate": rate,
            "channels": cut.channels,
            "seconds": cut.n_samples / rate,
            "container": recording.info.container,
            "subtype": recording.info.subtype,
            "truncated": recording.info.truncated,
            "gaps": rows,
            "regions": parts,
            "skipped": left,
            "timings_s": {
                "decode": round(decoded - began, 3),
                "find": round(found - decoded, 3),
                "fill": round(filled - found, 3),
                "write": round(finished - filled, 3),
            },
            "provenance": provenance(settings, model, promised),
        }
        write_atomically(path, (json.dumps(body, indent=2, ensure_ascii=True) + "\n").encode())
    ended_early, took = recording.info.truncated, time.perf_counter() - began
    return Outcome(destination, path, picture, tuple(excerpts), rows, parts, left, ended_early, took)


def _sha256(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _row(gap: Repaired, rate: int, file: Path | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "start": gap.start / rate,
        "stop": gap.stop / rate,
        "kind": gap.kind,
        "method": gap.method,
        "seconds": round(gap.seconds, 3),
    }
    if gap.interval is not None and file is not None:
        sure = gap.interval
        row["interval"] = {
            "domain": sure.domain,
            "level": sure.level,
            "guarantee": sure.guarantee,
            "file": file.name,
        }
    if gap.quality is not None:
        row["quality"] = dataclasses.asdict(gap.quality)
    if gap.refused:
        row["refused"] = dict(gap.refused)
    return row


def _region_rows(group: Repaired, rate: int) -> list[dict[str, Any]]:
    """One row per region; those that were filled together share their time and their leak."""
    refused = {"refused": dict(group.refused)} if group.refused else {}
    return [
        {
            "start": box.start / rate,
            "stop": box.stop / rate,
            "f_low": box.f_low_hz,
            "f_high": min(box.f_high_hz, rate / 2),
            "method": group.method,
            "leak_db": None if group.leak_db is None else round(group.leak_db, 2),
            "seconds": round(group.seconds / len(group.boxes), 3),
            **refused,
        }
        for box in group.boxes
    ]


def _named(done: Sequence[Repaired]) -> list[tuple[str, Repaired]]:
    """Gaps and groups of regions with the names of their files."""
    gaps = [gap for gap in done if not gap.boxes]
    groups = [group for group in done if group.boxes]
    named = [(f"gap-{i:02d}", gap) for i, gap in enumerate(gaps, start=1)]
    return named + [(f"region-{i:02d}", group) for i, group in enumerate(groups, start=1)]


def _interval_file(gap: Repaired, name: str, destination: Path) -> Path | None:
    """Write the interval of a gap beside the output: axes, lower, upper, point."""
    if gap.interval is None:
        return None
    path = destination.with_name(f"{destination.name}.{name}.npz")
    bounded, buffer = gap.interval, io.BytesIO()
    parts = {"lower": bounded.lower, "point": bounded.point, "upper": bounded.upper, **bounded.axes}
    np.savez(buffer, allow_pickle=False, **parts)
    write_atomically(path, buffer.getvalue())
    return path


def _remove_old_intervals(record: Path, destination: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Remove intervals that the record about to be replaced names as its own, and that this one doesn't."""
    kept = {row["interval"]["file"] for row in rows if "interval" in row}
    for row in _listed(record, "gaps"):
        interval = row.get("interval") if isinstance(row, dict) else None
        name = interval.get("file") if isinstance(interval, dict) else None
        if not isinstance(name, str) or not name.startswith(destination.name) or name in kept:
            continue
        if _INTERVAL_FILE.fullmatch(name.removeprefix(destination.name)):
            destination.with_name(name).unlink(missing_ok=True)


def _list_report(report: Path, names: Sequence[str]) -> None:
    """Write which files of a folder are the report, and remove those that only an earlier one had."""
    for name in _listed(report / LISTING, "files"):
        if isinstance(name, str) and name not in (*names, LISTING) and _REPORT_FILE.fullmatch(name):
            (report / name).unlink(missing_ok=True)
    write_atomically(report / LISTING, (json.dumps({"files": sorted(names)}, indent=2) + "\n").encode())


def _listed(path: Path, key: str) -> list[Any]:
    """What an earlier run wrote under `key`; nothing where there was none, or the file is someone else's."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    values = found.get(key) if isinstance(found, dict) else None
    return values if isinstance(values, list) else []


def _skipped_row(stretch: Skipped, rate: int) -> dict[str, Any]:
    return {
        "start": stretch.start / rate,
        "stop": stretch.stop / rate,
        "kind": stretch.kind,
        "reason": stretch.reason,
    }


def _excerpts(source: _Source, gap: Repaired, name: str, folder: Path) -> list[Path]:
    """One WAV per draw of a gap, with sound on both sides."""
    around = round(AROUND_S * source.sample_rate)
    start, stop = max(gap.start - around, 0), min(gap.stop + around, source.n_samples)
    audio = np.nan_to_num(source.read(start, stop), posinf=0.0, neginf=0.0)
    paths = []
    for number, draw in enumerate(gap.draws):
        audio[:, gap.start - start : gap.stop - start] = draw
        path = folder / f"{name}-draw-{number + 1}.wav"
        write(path, audio, source.sample_rate)
        paths.append(path)
    return paths


def _check_report(report: Path, source: Path, destination: Path) -> None:
    """Refuse a report whose files would replace the input or the output."""
    for path in (source, destination, destination.with_name(destination.name + ".json")):
        if path.resolve().parent == report.resolve() and _REPORT_FILE.fullmatch(path.resolve().name):
            raise InputError(f"{path} would be replaced by a file of the report. Choose another folder for the report.")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"The folder {folder} can't be made: {error.strerror}.") from error
    _check_writable(folder)


def _check_destination(source: Path, destination: Path, recording: Recording) -> None:
    """Refuse a destination that could only fail after the work: the input itself, a folder, an unknown suffix."""
    for path in (destination, destination.with_name(destination.name + ".json")):
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is a folder or another thing that is no file. Choose another destination.")
        if path.exists() and path.samefile(source):
            raise InputError(f"{path} is the input itself. Choose another destination.")
    info = recording.info
    choose(
        destination.suffix,
        info.container,
        info.subtype,
        recording.bits,
        info.sample_rate,
        info.channels,
        info.n_samples,
    )


def _check_writable(folder: Path) -> None:
    """Fail before computing, not after."""
    if not folder.is_dir():
        raise ResourceError(f"The folder {folder} does not exist. Make it first, or choose another destination.")
    if not os.access(folder, os.W_OK):
        raise ResourceError(f"The folder {folder} can't be written to. Choose another destination.")
