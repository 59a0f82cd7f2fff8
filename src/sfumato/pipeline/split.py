"""`split`: which recording of MAESTRO v3 belongs to which part. Nothing is moved or copied: the result is a list.

Calibration is taken from the published validation and test parts, by year, as the project did it, since models for
piano were trained on the published train part. A year doesn't keep a piece together, so a recording whose piece was
also played in another year stays where it was published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sfumato.data import loaders, manifest
from sfumato.data.manifest import Row, Split
from sfumato.errors import InputError

CALIBRATION_YEARS = ("2004", "2006", "2008", "2011", "2013", "2014")
"""The project's choice; the other years are 2009, 2015, 2017 and 2018."""

LIST = "manifest.jsonl"


def split(
    root: Path, years: Sequence[str] = CALIBRATION_YEARS, progress: Callable[[int, int, str], None] = lambda *_: None
) -> list[Row]:
    """The rows of the list, which is written into `root`.

    Parameters
    ----------
    root
        MAESTRO's folder: a table beside one folder per year. Recordings that aren't there are left out.
    years
        Years that become calibration.
    progress
        Called with recordings done, 0 and the last one's name; each is read once, for its hash.

    Raises
    ------
    InputError
        The table is missing or malformed, no recording is there, or none remains to calibrate or to test on.
    """
    found = []
    for row in loaders.maestro(root, absent="leave out"):
        found.append(row)
        progress(len(found), 0, row.recording)
    elsewhere = {row.work for row in found if row.labels["year"] not in years}
    rows = []
    for row in found:
        published = row.labels["published_split"]
        moved = published != "train" and row.labels["year"] in years and row.work not in elsewhere
        rows.append(Row(**(row.model_dump() | {"split": "calibration" if moved else published})))
    needed: tuple[Split, ...] = ("calibration", "test")
    for part in needed:
        if not manifest.select(rows, part):
            raise InputError(
                f"{root}: none of {len(rows)} recordings is for {part}. Calibration years: {', '.join(years)}; the "
                "other years' published test recordings are tested on."
            )
    manifest.write(root / LIST, rows)
    return rows
