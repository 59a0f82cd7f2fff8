"""`sfumato image audio-to-image | image-to-audio | mask | sample-clips | print-exif` and the forms for folders."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sfumato.cli.command import AsJson, Debug, typed, with_flags
from sfumato.errors import InputError, SfumatoError
from sfumato.screen import progress_bar, say

DRAW = "Draw a recording as a spectrogram that can be turned back."
DRAW_ALL = "Draw every recording of a folder."

Seed = Annotated[int, typer.Option(min=0, help="another seed, other places or phases")]
Count = Annotated[int, typer.Option("--num-clips", min=1, help="clips to cut")]
Length = Annotated[int, typer.Option("--duration-ms", min=1, help="length of a clip, ms")]
Mono = Annotated[bool, typer.Option(help="mix to one channel")]
Extension = Annotated[str, typer.Option(help="kind of the files, such as wav or flac")]
Limit = Annotated[int | None, typer.Option(min=1, help="most files that are taken")]
Sound = Annotated[Path, typer.Argument(metavar="IN", help="recording", show_default=False)]
Sounds = Annotated[Path, typer.Argument(metavar="DIR", help="folder of recordings", show_default=False)]
Out = Annotated[Path, typer.Argument(metavar="OUT_DIR", help="folder to write to", show_default=False)]


def drawn(function: Callable[..., None]) -> Callable[..., None]:
    """`function` with one flag per setting of a picture."""
    from sfumato.tasks.images import Settings

    return with_flags(function, Settings.model_fields)


def audio_to_image(
    source: Sound,
    destination: Annotated[Path, typer.Argument(metavar="OUT.png", help="picture to write", show_default=False)],
    *,
    debug: Debug = False,
    settings: Mapping[str, Any],
) -> None:
    """Draw a recording as a spectrogram that can be turned back."""
    from sfumato.tasks import images

    picture = images.audio_to_image(source, destination, typed(settings, images.Settings))
    height, width = picture.pixels.shape[:2]
    say(f"{destination}: {width} × {height} pixels of {picture.parameters.step_ms} ms")


def image_to_audio(
    source: Annotated[Path, typer.Argument(metavar="IN.png", help="picture", show_default=False)],
    destination: Annotated[Path, typer.Argument(metavar="OUT", help="recording to write", show_default=False)],
    seed: Seed = 0,
    iterations: Annotated[int, typer.Option(min=1, max=1000, help="iterations of Griffin-Lim's algorithm")] = 32,
    debug: Debug = False,
) -> None:
    """Turn a picture back into sound, with the parameters that it holds."""
    from sfumato.tasks import images

    picture, audio = images.image_to_audio(source, destination, seed, iterations)
    if not picture.tagged:
        say(f"{source} doesn't say how it was drawn: read with Riffusion's parameters, 10 ms and 0 to 10 kHz.")
    rate = picture.parameters.sample_rate
    say(f"{destination}: {audio.shape[1] / rate:.2f} s at {rate} Hz")


def sample_clips(
    source: Sound,
    folder: Out,
    count: Count = 1,
    duration_ms: Length = 5120,
    mono: Mono = False,
    extension: Extension = "wav",
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Cut clips of a recording at random places."""
    from sfumato.tasks import images

    for path in images.sample_clips(source, folder, count, duration_ms, mono, extension, seed):
        say(str(path))


def mask(
    source: Annotated[Path, typer.Argument(metavar="IN.png", help="picture of a sound", show_default=False)],
    destination: Annotated[Path, typer.Argument(metavar="OUT.png", help="map to write", show_default=False)],
    brightness: Annotated[float, typer.Option(min=0, help="factor on the inverted picture")] = 0.05,
    contrast: Annotated[float, typer.Option(min=0, help="factor on what departs from its mean")] = 200.0,
    downshift: Annotated[int, typer.Option(min=0, max=255, help="taken off at the end; 255 holds nothing")] = 150,
    debug: Debug = False,
) -> None:
    """Draw what Mask-Based Diffusion would hold to the source: white throughout, black not at all."""
    from sfumato.tasks import images

    told = images.draw_mask(source, destination, brightness, contrast, downshift)
    if told.threshold is None:
        say(f"{destination}: nothing is held; a downshift below 255, or more brightness, holds more.")
        return
    say(
        f"{destination}: {100 * told.held:.0f} % of the picture is held, all that is at most {told.threshold} of 255 "
        f"light, for up to {100 * told.hold:.0f} % of the walk; the map has {told.levels} levels"
    )


def print_exif(
    source: Annotated[Path, typer.Argument(metavar="IN.png", help="picture", show_default=False)],
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show the parameters that a picture holds."""
    from sfumato.tasks.images import tags_of

    tags = tags_of(source)
    if as_json:
        say(json.dumps(tags, indent=2))
    elif not tags:
        say(f"{source} holds no parameters.")
    else:
        say("\n".join(f"{name:<12} {value:g}" for name, value in tags.items()))


def audio_to_images_batch(
    source: Sounds,
    folder: Out,
    *,
    limit: Limit = None,
    debug: Debug = False,
    settings: Mapping[str, Any],
) -> None:
    """Draw every recording of a folder."""
    from sfumato.tasks import images

    checked = typed(settings, images.Settings)
    folder.mkdir(parents=True, exist_ok=True)

    def one(path: Path) -> None:
        images.audio_to_image(path, folder / f"{path.stem}.png", checked)

    _each(files(source, limit), one)


def sample_clips_batch(
    source: Sounds,
    folder: Out,
    count: Annotated[int, typer.Option("--num-clips-per-file", min=1, help="clips of each recording")] = 1,
    duration_ms: Length = 5120,
    mono: Mono = False,
    extension: Extension = "wav",
    glob: Annotated[str, typer.Option(help="which files are taken")] = "*",
    limit: Limit = None,
    seed: Seed = 0,
    debug: Debug = False,
) -> None:
    """Cut clips of every recording of a folder."""
    from sfumato.tasks import images

    def one(path: Path) -> None:
        for _ in images.sample_clips(path, folder, count, duration_ms, mono, extension, seed):
            pass

    _each(files(source, limit, glob), one)


def files(folder: Path, limit: int | None, glob: str = "*") -> list[Path]:
    """The files of a folder in order.

    Raises
    ------
    InputError
        There is no such folder, or no file in it.
    """
    found = sorted(path for path in folder.glob(glob) if path.is_file() and path.suffix != ".json")[:limit]
    if not found:
        raise InputError(f"{folder} holds no file {glob}. Give a folder of recordings.")
    return found


def _each(paths: Iterable[Path], one: Callable[[Path], None]) -> None:
    """Do one thing to every file; those that fail are named, and the exit code is then 5."""
    found, failed = list(paths), 0
    with progress_bar() as progress:
        for number, path in enumerate(found):
            progress(number, len(found), path.name)
            try:
                one(path)
            except SfumatoError as error:
                failed += 1
                sys.stderr.write(f"skipped {path.name}: {error}\n")
    say(f"{len(found) - failed} of {len(found)} files done")
    if failed:
        raise typer.Exit(5)
