"""`sfumato data list | fetch | build | render | captions`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfumato.cli.command import AsJson, Debug, Folder
from sfumato.errors import InputError
from sfumato.screen import say, show, table_of

if TYPE_CHECKING:
    from sfumato.data.build import Built, Skipped


def list_sources(as_json: AsJson = False, debug: Debug = False) -> None:
    """Sources of music, one-shots and everyday sounds: megabytes, makers; with --json packages and versions, too."""
    from sfumato.data.sources import sources

    if as_json:
        names = ("name", "kind", "package", "version", "megabytes", "attribution")
        rows = [{n: getattr(one, n) for n in names} for one in sources()]
        say(json.dumps(rows, indent=2))
        return
    table = table_of("source", "kind", "MB", "made by")
    for source in sources():
        table.add_row(source.name, source.kind, str(source.megabytes), source.attribution)
    show(table)


def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="sources; none means all music")] = None,
    to: Folder = None,
    debug: Debug = False,
) -> None:
    """Download, verify and unpack sources."""
    from sfumato.data.fetch import fetch as download

    for fetched in download(names or [], to):
        say(f"{fetched.source}: {fetched.n_files} files in {fetched.folder}")


def build(
    names: Annotated[list[str] | None, typer.Argument(help="sources; none means all music")] = None,
    to: Folder = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for audio and manifest; default: built, in the cache")
    ] = None,
    debug: Debug = False,
) -> None:
    """Fetch and decode sources, label them, and split them by piece."""
    from sfumato.data.build import build as building

    _tell(building(names or [], to, out))


def render(
    arrangement: Annotated[str, typer.Argument(help="piano (all parts on one), ensemble (as written), or studies")],
    to: Folder = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for audio and manifest; default: built, in the cache")
    ] = None,
    seed: Annotated[int, typer.Option(help="seed of timing and velocity; of studies, of the music")] = 0,
    count: Annotated[int, typer.Option(min=1, help="how many studies")] = 1500,
    debug: Debug = False,
) -> None:
    """Render music whose notes are known: the scores that music21 brings, or short studies made up for training."""
    if arrangement == "studies":
        from sfumato.data.studies import render as rendering_studies

        _tell(rendering_studies(count, to, out, seed))
        return
    from sfumato.data.renders import ARRANGEMENTS
    from sfumato.data.renders import render as rendering

    if arrangement not in ARRANGEMENTS:
        choices = ", ".join((*ARRANGEMENTS, "studies"))
        raise InputError(f"There is nothing called {arrangement!r} to render. Choose from: {choices}.")
    _tell(rendering(arrangement, to, out, seed))


def captions(
    folder: Annotated[Path, typer.Argument(help="folder of a manifest.jsonl")],
    count: Annotated[int, typer.Option(min=1, max=64, help="captions of each recording")] = 6,
    seed: Annotated[int, typer.Option(help="seed of templates and synonyms")] = 0,
    tags: Annotated[bool, typer.Option(help="hear tags of recorded music with musicnn")] = False,
    model: Annotated[str | None, typer.Option(help="text-audio model that ranks captions: a folder or a name")] = None,
    debug: Debug = False,
) -> None:
    """Write captions.jsonl beside a manifest: texts for every recording, from its labels and tags."""
    from sfumato.data import caption_file

    written = caption_file.caption(folder, count, seed, tags, model)
    n = len({one.recording for one in written})
    say(f"{len(written)} captions of {n} recordings in {folder / caption_file.NAME}")


def _tell(events: Iterable[Built | Skipped]) -> None:
    """One line for every recording that was built or left out."""
    from sfumato.data.build import Built

    for event in events:
        if isinstance(event, Built):
            say(f"{event.row.source}/{event.row.recording}: {event.row.seconds:.0f} s, {event.row.split}")
        else:
            say(f"{event.source}/{event.path}: left out, {event.reason}")
