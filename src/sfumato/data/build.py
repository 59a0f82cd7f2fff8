"""Decodes the recordings of a fetched source to 44.1 kHz, 16-bit stereo WAV files and writes their manifest rows."""

import io
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from sfumato.data import leaks, manifest
from sfumato.data.everyday_labels import everyday_labels
from sfumato.data.fetch import cache_folder, fetch_source, named
from sfumato.data.manifest import Row
from sfumato.data.one_shot_labels import one_shot_labels
from sfumato.data.recipe import Source, licence_of, recording_id, split_of, work_of
from sfumato.errors import InputError, ResourceError
from sfumato.files import replacing

SAMPLE_RATE = 44100
MAX_FILE_BYTES = 256 << 20
PEAK = 0.999
SILENT = 1e-4


@dataclass(frozen=True)
class Built:
    """One recording is ready and its row is in the manifest."""

    row: Row


@dataclass(frozen=True)
class Skipped:
    """One file was left out, and why."""

    source: str
    path: str
    reason: str


def build(names: Iterable[str] = (), to: Path | None = None, out: Path | None = None) -> Iterator[Built | Skipped]:
    """Fetch and decode sources, one event per recording, then show that the splits share nothing.

    Parameters
    ----------
    names
        Sources; none means all music.
    to
        Folder for the packages; the cache folder when absent.
    out
        Folder for the audio and `manifest.jsonl`; `built` below `to` when absent.

    Raises
    ------
    InputError
        If a source can't be had or the splits share a file, a piece or a passage.
    ResourceError
        If a folder can't be written.
    """
    base = to or cache_folder()
    target = out or base / "built"
    for source in named(names):
        yield from build_source(source, fetch_source(source, base).folder, target)
    leaks.require_none(manifest.read(target / "manifest.jsonl"), target)


def files_of(source: Source, unpacked: Path) -> Iterator[tuple[str, bytes]]:
    """Path and content of every wanted file of an unpacked package, in alphabetical order.

    Raises
    ------
    InputError
        If the package holds none, or its inner archive is missing, broken or larger than anything expected.
    """
    folder = unpacked / source.folder
    found = 0
    if source.archive:
        try:
            with zipfile.ZipFile(folder / source.archive) as archive:
                for member in sorted(archive.infolist(), key=lambda member: member.filename):
                    if not any(fnmatchcase(member.filename, pattern) for pattern in source.patterns):
                        continue
                    if _left_out(source, member.filename):
                        continue
                    if member.file_size > MAX_FILE_BYTES:
                        raise InputError(f"{source.archive}: {member.filename} claims {member.file_size} bytes.")
                    found += 1
                    yield member.filename, archive.read(member)
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{folder / source.archive} can't be read: {error}. Fetch {source.name} again.") from error
    else:
        paths = sorted({path for pattern in source.patterns for path in folder.glob(pattern)})
        for path in paths:
            if path.is_symlink() or path.stat().st_size > MAX_FILE_BYTES:
                continue
            if _left_out(source, path.relative_to(folder).as_posix()):
                continue
            found += 1
            yield path.relative_to(folder).as_posix(), path.read_bytes()
    if not found:
        raise InputError(f"No music of {source.name} below {folder}. Fetch {source.name} again.")


def _left_out(source: Source, path: str) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in source.leave_out)


def decode(content: bytes) -> tuple[NDArray[np.float32], int, str]:
    """Audio (channels, samples), sample rate in Hz and codec of an encoded file."""
    with soundfile.SoundFile(io.BytesIO(content)) as file:
        audio = file.read(dtype="float32", always_2d=True).T
        return np.ascontiguousarray(audio), file.samplerate, file.subtype


def standardise(audio: NDArray[np.float32], sample_rate: int) -> tuple[NDArray[np.float32], float]:
    """Stereo audio at 44.1 kHz whose peak fits 16 bits, and the gain in dB that this took (0 or negative).

    A lossy decoder overshoots full scale; the whole recording is turned down instead of clipped.
    """
    stereo = np.repeat(audio, 2, axis=0) if audio.shape[0] == 1 else audio
    if sample_rate != SAMPLE_RATE:
        stereo = soxr.resample(stereo.T, sample_rate, SAMPLE_RATE, quality="VHQ").T
    peak = float(np.abs(stereo).max(initial=0.0))
    gain = PEAK / peak if peak > PEAK else 1.0
    return np.ascontiguousarray(stereo * np.float32(gain)), float(20 * np.log10(gain))


def write_wav(path: Path, audio: NDArray[np.float32]) -> None:
    """Write a 16-bit WAV at 44.1 kHz that appears under its name only when it is complete."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as descriptor, os.fdopen(descriptor, "wb", closefd=False) as file:
            soundfile.write(file, audio.T, SAMPLE_RATE, subtype="PCM_16", format="WAV")
    except (OSError, soundfile.LibsndfileError) as error:
        raise ResourceError(f"{path} can't be written: {error}.") from error


def build_source(source: Source, unpacked: Path, out: Path) -> Iterator[Built | Skipped]:
    """Decode one unpacked package into `out/<source>/*.wav`, appending each row to `out/manifest.jsonl`.

    Recordings that the manifest already has are passed over, so an interrupted build goes on where it stopped.

    Raises
    ------
    InputError
        If the package does not hold what its recipe says.
    ResourceError
        If `out` can't be written.
    """
    path = out / "manifest.jsonl"
    have = {(row.source, row.recording) for row in manifest.read(path)} if path.exists() else set()
    try:
        copyright_text = (unpacked / "usr/share/doc" / source.package / "copyright").read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{source.package} has no copyright file below {unpacked}. Fetch it again.") from error
    for name, content in files_of(source, unpacked):
        recording = recording_id(source, name)
        if (source.name, recording) in have:
            continue
        try:
            audio, sample_rate, codec = decode(content)
        except soundfile.LibsndfileError as error:
            yield Skipped(source.name, name, f"can't be decoded: {error}")
            continue
        reason = _unfit(audio, sample_rate, source)
        if reason:
            yield Skipped(source.name, name, reason)
            continue
        have.add((source.name, recording))
        labels = dict(source.labels) | {"title": Path(name).stem.replace("_", " "), "codec": codec}
        labels["source_rate"] = str(sample_rate)
        if audio.shape[0] == 1:
            labels["mono"] = "true"
        stereo, gain_db = standardise(audio, sample_rate)
        if gain_db:
            labels["gain_db"] = f"{gain_db:.2f}"
        work = work_of(source, recording)
        if source.kind == "one-shots":
            labels |= one_shot_labels(source, name, work, stereo.shape[1] / SAMPLE_RATE)
        elif source.kind == "everyday":
            labels |= everyday_labels(source, name, work)
        relative = Path(source.name) / f"{recording}.wav"
        write_wav(out / relative, stereo)
        if source.kind == "everyday":
            labels |= _beside(unpacked / source.folder / name, out, recording, source)
        row = Row(
            source=source.name,
            recording=recording,
            work=f"{source.name}/{work}",
            path=relative.as_posix(),
            sha256=manifest.sha256_of(out / relative),
            seconds=stereo.shape[1] / SAMPLE_RATE,
            sample_rate=SAMPLE_RATE,
            channels=2,
            licence=licence_of(source, name, copyright_text) or "unknown",
            attribution=source.attribution,
            labels=labels,
            split=split_of(source, work),
        )
        manifest.append(path, row)
        yield Built(row)


def _beside(path: Path, out: Path, recording: str, source: Source) -> dict[str, str]:
    """What lies beside a sound under its name: "image", copied to `out`, and "text", a description's first line."""
    labels = {}
    image, text = path.with_suffix(".png"), path.with_suffix(".txt")
    if image.is_file() and not image.is_symlink() and image.stat().st_size <= MAX_FILE_BYTES:
        relative = Path(source.name) / f"{recording}.png"
        try:
            shutil.copyfile(image, out / relative)
        except OSError as error:
            raise ResourceError(f"{out / relative} can't be written: {error.strerror}.") from error
        labels["image"] = relative.as_posix()
    if text.is_file() and not text.is_symlink():
        with text.open(encoding="utf-8", errors="replace") as file:
            labels["text"] = file.readline(200).strip()
    return labels


def _unfit(audio: NDArray[np.float32], sample_rate: int, source: Source) -> str:
    """Why a decoded file is left out, or an empty string."""
    seconds = audio.shape[1] / sample_rate
    if sample_rate < source.min_rate:
        return f"sample rate {sample_rate} Hz, below {source.min_rate} Hz"
    if seconds < source.min_seconds:
        return f"{seconds:.3g} s long, below {source.min_seconds:g} s"
    if audio.shape[0] > 2:
        return f"{audio.shape[0]} channels, at most 2 are used"
    if not np.isfinite(audio).all():
        return "holds samples that are not finite numbers"
    if np.abs(audio).max() < SILENT:
        return "is silent"
    return ""


def keep_render(
    out: Path,
    source: str,
    recording: str,
    work: str,
    rendered: NDArray[np.float32],
    *,
    licence: str,
    attribution: str,
    labels: dict[str, str],
) -> Row:
    """Write a render, (channels, samples) at `SAMPLE_RATE`, below `out` and append its row to the manifest there."""
    audio, _ = standardise(rendered, SAMPLE_RATE)
    relative = Path(source) / f"{recording}.wav"
    write_wav(out / relative, audio)
    row = Row(
        source=source,
        recording=recording,
        work=work,
        path=relative.as_posix(),
        sha256=manifest.sha256_of(out / relative),
        seconds=audio.shape[1] / SAMPLE_RATE,
        sample_rate=SAMPLE_RATE,
        channels=2,
        licence=licence,
        attribution=attribution,
        labels=labels,
        split=manifest.split_of(work),
        rendered=True,
    )
    manifest.append(out / "manifest.jsonl", row)
    return row
