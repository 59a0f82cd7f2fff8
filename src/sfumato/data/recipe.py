"""What a recipe of a source says, and what follows from it for one file: its name, its work, its split, its licence."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Literal, get_args

from sfumato.data import manifest
from sfumato.data.manifest import Split

Kind = Literal["music", "one-shots", "everyday"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Source:
    """One Debian package and what is music in it.

    Attributes
    ----------
    name
        What the command line, the manifest and the folders call it.
    package, version, sha256, megabytes
        The Debian package, the SHA-256 of its .deb file, and the size of that file in MB.
    folder
        Folder of the unpacked package below which the audio lies.
    patterns
        Globs of the audio files, relative to `folder` (or inside `archive`).
    archive
        Zip file, relative to `folder`, that holds the audio; empty when the files lie in the folder itself.
    upstream
        What the package's copyright file puts before a pattern's path.
    licences
        (glob, licence) pairs read from the package's own licence files; they win over the Debian copyright file.
    attribution
        Who made the music, as a model card has to say.
    labels
        What is known about every recording of the package.
    variant
        Regular expression of a name's ending that tells versions of one piece apart; removed to name the work.
    works
        (glob, work) pairs for versions that `variant` can't see; recordings of one work share a split.
    min_seconds
        Shorter files are jingles and effects (or, of one-shots, clicks), and are left out.
    min_rate
        Files of a lower sample rate, in Hz, are left out.
    kind
        "music"; "one-shots": a work is a kit, and rows are labelled with kit, class and form; "everyday": sounds other
        than music, labelled with what is heard.
    classes
        (glob, class) pairs for files of one-shots or everyday sounds whose name does not tell; they win over the name.
    words
        (glob, words) pairs: what is heard in everyday sounds; "{}" stands for the words of the file's name.
    leave_out
        Globs of files that match `patterns` and are not wanted.
    splits
        (work, split) pairs, for a source of so few works that their names' hashes would leave a split next to none.
    """

    name: str
    package: str
    version: str
    sha256: str
    megabytes: int
    folder: str
    patterns: tuple[str, ...]
    attribution: str
    archive: str = ""
    upstream: str = ""
    licences: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    variant: str = ""
    works: tuple[tuple[str, str], ...] = ()
    min_seconds: float = 20.0
    min_rate: int = 32000
    kind: Kind = "music"
    classes: tuple[tuple[str, str], ...] = ()
    words: tuple[tuple[str, str], ...] = ()
    leave_out: tuple[str, ...] = ()
    splits: tuple[tuple[str, Split], ...] = ()


def recording_id(source: Source, path: str) -> str:
    """The name of a recording: its path without fixed folders and ending, in letters that any file system takes."""
    stem = PurePosixPath(path).with_suffix("")
    folders = [part for part in stem.parts if part not in ("audio", "music", "albums", "tracks")]
    return re.sub(r"[^A-Za-z0-9.-]+", "_", "_".join(folders)).strip("_")


def work_of(source: Source, recording: str) -> str:
    """The piece that a recording is a version of; recordings of one piece must share a split."""
    for pattern, work in source.works:
        if fnmatchcase(recording, pattern):
            return work
    return re.sub(source.variant, "", recording) if source.variant else recording


def split_of(source: Source, work: str) -> Split:
    """The split of a work: by the hash of its name, or where the recipe says so."""
    return dict(source.splits).get(work) or manifest.split_of(f"{source.name}/{work}")


def licence_of(source: Source, path: str, copyright_text: str) -> str:
    """The licence of one file, from the recipe or else from the package's copyright file.

    Parameters
    ----------
    source
        The recipe.
    path
        Path of the file below the recipe's folder, or in its archive.
    copyright_text
        The package's `usr/share/doc/<package>/copyright`.

    References
    ----------
    Debian, "Machine-readable debian/copyright file", version 1.0: the last paragraph that matches a file counts.
    """
    for pattern, licence in source.licences:
        if fnmatchcase(path, pattern):
            return licence
    found = ""
    for paragraph in re.split(r"\n\s*\n", copyright_text):
        files = re.search(r"^Files:((?:.*\n)(?:[ \t].*\n?)*)", paragraph + "\n", re.MULTILINE)
        licence_line = re.search(r"^License:[ \t]*(\S.*)$", paragraph, re.MULTILINE)
        if files and licence_line and any(fnmatchcase(source.upstream + path, glob) for glob in files.group(1).split()):
            found = licence_line.group(1).strip()
    return found
