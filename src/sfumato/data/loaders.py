"""Manifest rows of data sets that people have at home: MAESTRO v3, MusicNet, and any folder of recordings.

Paths are relative to the data set's folder, so its manifest belongs there.
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

from sfumato.data.manifest import SHARES, Row, Split, sha256_of, split_of
from sfumato.errors import InputError

AUDIO_ENDINGS = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff"})
MUSICNET_RATE = 44100
_BLOCK = 1 << 18
_QUIETEST = 1e-5
"""A peak below this is silence."""


def maestro(root: Path, absent: Literal["refuse", "leave out"] = "refuse") -> Iterator[Row]:
    """The rows of MAESTRO v3: `maestro-v3.0.0.csv`, or the same as JSON, beside one folder per year.

    The published train, validation and test splits are kept. Calibration is cut from train, whole pieces at a time.

    Parameters
    ----------
    root
        Its folder.
    absent
        What to do about recordings of the table that aren't there.

    Raises
    ------
    InputError
        If the table or a recording is missing or malformed.

    References
    ----------
    Hawthorne et al., "Enabling factorized piano music modeling and generation with the MAESTRO dataset", ICLR 2019.
    """
    tables = [*sorted(root.glob("maestro-v3*.csv")), *sorted(root.glob("maestro-v3*.json"))]
    if not tables:
        raise InputError(f"{root} holds no maestro-v3*.csv or .json. Give the folder that MAESTRO v3 was unpacked to.")
    columns = ("canonical_composer", "canonical_title", "split", "year", "midi_filename", "audio_filename")
    for record in (_table if tables[0].suffix == ".csv" else _columns)(tables[0], columns):
        if absent == "leave out" and not (root / record["audio_filename"]).is_file():
            continue
        work = f"maestro/{record['canonical_composer']}: {record['canonical_title']}"
        published = record["split"]
        split: Split
        if published == "train":
            split = "calibration" if _into_calibration(work) else "train"
        elif published == "validation":
            split = "validation"
        elif published == "test":
            split = "test"
        else:
            raise InputError(f"{tables[0]}: split {published!r} is not one of train, validation, test.")
        labels = {
            "composer": record["canonical_composer"],
            "title": record["canonical_title"],
            "year": record["year"],
            "midi": record["midi_filename"],
            "instrument": "piano",
            "published_split": published,
        }
        yield _row(
            root,
            root / record["audio_filename"],
            source="maestro",
            work=work,
            split=split,
            labels=labels,
            licence="CC-BY-NC-SA-4.0",
            attribution="MAESTRO v3, Hawthorne et al. 2019, International Piano-e-Competition",
        )


def musicnet(root: Path) -> Iterator[Row]:
    """The rows of MusicNet: `train_data/*.wav`, `test_data/*.wav`, their `*_labels/*.csv` and the metadata table.

    The published test recordings are test. Training recordings of a movement that the test set also holds go to
    test as well (their label `published_split` says train); the others are split by movement.

    Raises
    ------
    InputError
        If the layout, the table, a label file or a recording is missing or malformed.

    References
    ----------
    Thickstun, Harchaoui & Kakade, "Learning features of music from scratch", ICLR 2017.
    """
    columns = ("id", "composer", "composition", "movement", "ensemble")
    about = {record["id"]: record for record in _table(root / "musicnet_metadata.csv", columns)}
    found = {part: sorted((root / f"{part}_data").glob("*.wav")) for part in ("train", "test")}
    if not found["train"] and not found["test"]:
        raise InputError(f"{root} holds no train_data/*.wav or test_data/*.wav. Give the folder that holds both.")

    def work(path: Path) -> str:
        if path.stem not in about:
            raise InputError(f"{path} is not in {root / 'musicnet_metadata.csv'}. Give the table that belongs to it.")
        record = about[path.stem]
        return f"musicnet/{record['composer']}: {record['composition']}: {record['movement']}"

    held_out = {work(path) for path in found["test"]}
    for part, paths in found.items():
        for path in paths:
            record = about.get(path.stem, {})
            piece = work(path)
            split = "test" if piece in held_out else _without_test(piece)
            labels = {key: record[key] for key in columns[1:]} | {"published_split": part}
            yield _row(
                root,
                path,
                source="musicnet",
                work=piece,
                split=split,
                labels=labels | _notes(root / f"{part}_labels" / f"{path.stem}.csv"),
                licence="CC-BY-4.0",
                attribution="MusicNet, Thickstun, Harchaoui & Kakade 2017",
            )


def folder(
    root: Path,
    name: str,
    licence: str = "unknown",
    by_folder: bool = False,
    left_out: list[tuple[Path, str]] | None = None,
) -> Iterator[Row]:
    """The rows of every recording below a folder, in alphabetical order.

    Parameters
    ----------
    root
        The folder.
    name
        Name of the source in the manifest.
    licence
        Licence of everything in it.
    by_folder
        Recordings in one sub-folder (an album, a performer) share a split.
    left_out
        Where given, each recording is decoded, and those that are broken, silent or of one sample are left out: they
        go into this list with the reason.

    Raises
    ------
    InputError
        If it holds no recording, one can't be opened, or with `left_out` all are left out.
    """
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in AUDIO_ENDINGS and path.is_file())
    if not paths:
        raise InputError(f"{root} holds no recording ({', '.join(sorted(AUDIO_ENDINGS))}). Give a folder that does.")
    for path in paths:
        fault = None if left_out is None else _fault(path)
        if left_out is not None and fault is not None:
            left_out.append((path, fault))
            continue
        relative = path.relative_to(root)
        piece = relative.parent.as_posix() if by_folder and relative.parent.parts else relative.as_posix()
        work = f"{name}/{piece}"
        labels = {"title": path.stem, "folder": relative.parent.as_posix()}
        yield _row(root, path, source=name, work=work, split=split_of(work), labels=labels, licence=licence)
    if left_out is not None and len(left_out) == len(paths):
        path, fault = left_out[0]
        raise InputError(f"Nothing in {root} can be used: {len(paths)} recordings, the first {path.name}: {fault}.")


def _fault(path: Path) -> str | None:
    """Why a recording can't be learnt from; None if it can."""
    loudest, n_samples = 0.0, 0
    try:
        with soundfile.SoundFile(str(path)) as file:
            for block in file.blocks(_BLOCK, dtype="float32", always_2d=True):
                loudest, n_samples = max(loudest, float(abs(block).max(initial=0.0))), n_samples + len(block)
                if not np.isfinite(block).all():
                    return "holds samples that are NaN or infinite"
            if n_samples < file.frames:
                return f"ends after {n_samples} of {file.frames} samples"
    except (soundfile.LibsndfileError, OSError, RuntimeError) as error:
        return f"can't be read as audio ({str(error).rstrip('.').removeprefix(f'Error opening {str(path)!r}: ')})"
    if n_samples < 2:
        return "holds one sample" if n_samples else "holds no audio"
    return "is silent" if loudest < _QUIETEST else None


def _table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The records of a CSV file that must have these columns."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path} lacks the columns {', '.join(missing)}. Give the data set's own table.")
            records = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} can't be read: {error}. Give the data set's own folder.") from error
    if any(record.get(column) is None for record in records for column in columns):
        raise InputError(f"{path} has rows with too few columns. Give the data set's own table.")
    return records


def _columns(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The records of a JSON file that holds, for each column, an object of row numbers and values."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return [{name: str(table[name][number]) for name in columns} for number in table[columns[0]]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path} can't be read: {reason}. Give the data set's own table.") from error


def _notes(path: Path) -> dict[str, str]:
    """Number of notes and instruments (General MIDI programs from 1) of a MusicNet label file."""
    records = _table(path, ("start_time", "end_time", "instrument", "note"))
    try:
        programs = sorted({int(record["instrument"]) for record in records})
        last = max((int(record["end_time"]) for record in records), default=0)
    except ValueError as error:
        raise InputError(f"{path} holds a value that is not a whole number: {error}.") from error
    return {
        "instruments": " ".join(map(str, programs)),
        "notes": str(len(records)),
        "last_note_s": f"{last / MUSICNET_RATE:.2f}",
    }


def _into_calibration(work: str) -> bool:
    """Whether a piece of a published training set becomes calibration data: our share of it, by its name alone."""
    share = SHARES["calibration"] / (SHARES["train"] + SHARES["calibration"])
    return int(hashlib.sha256(f"calibration:{work}".encode()).hexdigest()[:16], 16) / 2.0**64 < share


def _without_test(work: str) -> Split:
    """The split of a piece that must not be test: by its name, again and again until it is not."""
    name, split = work, split_of(work)
    while split == "test":
        name += "'"
        split = split_of(name)
    return split


def _row(
    root: Path,
    path: Path,
    *,
    source: str,
    work: str,
    split: Split,
    labels: dict[str, str],
    licence: str,
    attribution: str = "",
) -> Row:
    """A row whose facts about the audio are read from the file."""
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path} can't be opened as audio: {str(error).rstrip('.')}. Remove it.") from error
    if info.frames < 1:
        raise InputError(f"{path} holds no audio. Remove it.")
    try:
        relative = path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError as error:
        raise InputError(f"{path} lies outside {root}. Give a folder that holds its own recordings.") from error
    return Row(
        source=source,
        recording=Path(relative).with_suffix("").as_posix(),
        work=work,
        path=relative,
        sha256=sha256_of(path),
        seconds=info.frames / info.samplerate,
        sample_rate=info.samplerate,
        channels=info.channels,
        licence=licence,
        attribution=attribution,
        labels=labels,
        split=split,
    )
