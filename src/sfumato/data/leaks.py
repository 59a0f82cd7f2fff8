"""Shows that the splits of a manifest share nothing: no file, no piece, no passage."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import soundfile

from sfumato.data.fingerprint import fingerprint, matches
from sfumato.data.manifest import Row
from sfumato.errors import InputError

RENDERED_S = 20.0
Reason = Literal["same file", "same work", "shared passage"]


@dataclass(frozen=True)
class Leak:
    """Two recordings in different splits that must not be, why, and how much they share."""

    first: str
    second: str
    splits: tuple[str, str]
    reason: Reason
    detail: str

    def __str__(self) -> str:
        return f"{self.first} ({self.splits[0]}) and {self.second} ({self.splits[1]}): {self.reason}, {self.detail}"


def find(rows: Sequence[Row], root: Path, listen: bool = True) -> list[Leak]:
    """Every leak between the splits of a manifest; empty when they are disjoint.

    Parameters
    ----------
    rows
        The manifest.
    root
        Its folder.
    listen
        Also compare the sound of all recordings, about one second for five minutes of audio. Of renders, at least
        20 s must be alike: one sampler that holds the same few notes sounds the same in any piece.

    Raises
    ------
    InputError
        If a recording can't be read.
    """
    leaks = [*_shared(rows, "same file"), *_shared(rows, "same work")]
    if not listen:
        return leaks
    by_name = {f"{row.source}/{row.recording}": row for row in rows}
    prints = {}
    for name, row in by_name.items():
        try:
            audio, sample_rate = soundfile.read(str(root / row.path), dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError) as error:
            raise InputError(f"{root / row.path} can't be read: {error}. Build {row.source} again.") from error
        prints[name] = fingerprint(audio.T, sample_rate)
    known = {frozenset((leak.first, leak.second)) for leak in leaks}
    for match in matches(prints):
        first, second = by_name[match.first], by_name[match.second]
        if first.rendered and second.rendered and match.seconds < RENDERED_S:
            continue
        if first.split != second.split and frozenset((match.first, match.second)) not in known:
            detail = f"{match.seconds:.0f} s from {match.first_s:.0f} s and {match.second_s:.0f} s"
            splits = (first.split, second.split)
            leaks.append(Leak(match.first, match.second, splits, "shared passage", detail))
    return leaks


def require_none(rows: Sequence[Row], root: Path, listen: bool = True) -> None:
    """Raise InputError, naming the first few leaks, unless the splits are disjoint."""
    leaks = find(rows, root, listen)
    if leaks:
        shown = "; ".join(map(str, leaks[:3]))
        raise InputError(
            f"{len(leaks)} leaks between splits: {shown}. Give versions of one piece the same work in the recipe."
        )


def _shared(rows: Sequence[Row], reason: Literal["same file", "same work"]) -> list[Leak]:
    """Pairs in different splits with equal SHA-256 or equal work; each recording against the first of its kind."""
    first: dict[str, Row] = {}
    leaks = []
    for row in rows:
        key = row.sha256 if reason == "same file" else row.work
        other = first.setdefault(key, row)
        if other.split != row.split:
            names = (f"{other.source}/{other.recording}", f"{row.source}/{row.recording}")
            detail = f"SHA-256 {key[:16]}…" if reason == "same file" else key
            leaks.append(Leak(*names, (other.split, row.split), reason, detail))
    return leaks
