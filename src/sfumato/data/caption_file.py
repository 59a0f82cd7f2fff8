"""`captions.jsonl`: the texts of a manifest's recordings, and what is heard when, one caption a line."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sfumato.data import manifest
from sfumato.data.caption_choice import Similarity, choose, scores_of
from sfumato.data.captions import MAX_CAPTIONS, candidates, name_of
from sfumato.data.manifest import Row
from sfumato.errors import InputError
from sfumato.files import write_atomically
from sfumato.order_prompts import parse

NAME = "captions.jsonl"
RANKED_S = 10.0
"""How much of a recording, from its middle, is heard by the model that ranks its captions."""


class CaptionPart(BaseModel):
    """What is heard from one second to another."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: str = Field(min_length=1, description="What is heard.")
    start_s: float = Field(ge=0, description="From this second on.")
    stop_s: float = Field(gt=0, description="Until this second.")


class Caption(BaseModel):
    """One line of `captions.jsonl`: a text for a recording. A recording has several."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recording: str = Field(min_length=1, description="source/recording of the manifest.")
    caption: str = Field(min_length=1, description="The text.")
    parts: tuple[CaptionPart, ...] = Field(default=(), description="What of it is heard when, if that is known.")


def caption(folder: Path, count: int = 6, seed: int = 0, tags: bool = False, model: str | None = None) -> list[Caption]:
    """Write `captions.jsonl` beside a folder's manifest, and return what is in it.

    Parameters
    ----------
    folder
        Of `manifest.jsonl`.
    count, seed
        Captions of each recording, beside the structured one; choice of templates and synonyms.
    tags
        Hear tags of what is music and no render (`sfumato.data.tags`).
    model
        A text–audio model that ranks four times as many candidates: folder or name. None takes them as they come.

    Raises
    ------
    InputError
        If the manifest or a recording can't be read, or the model is no text–audio model.
    MissingExtraError
        If the packages for tags or for the model are not installed.
    """
    rows = manifest.read(folder / "manifest.jsonl")
    heard: Mapping[str, Sequence[str]] = {}
    if tags:
        from sfumato.data.tags import tags_of

        heard = tags_of([row for row in rows if is_music(row)], folder)
    written = captions_of(rows, heard, seed, count, lambda row: _middle(folder / row.path), _similarity(model))
    write_captions(folder / NAME, written)
    return written


def is_music(row: Row) -> bool:
    """Whether a row is recorded music, whose labels say little."""
    return not row.rendered and "sound" not in row.labels and "kit" not in row.labels


def _similarity(name: str | None) -> Similarity | None:
    """How a text–audio model judges; None without a model."""
    if name is None:
        return None
    import torch

    from sfumato.model import load
    from sfumato.systems import text_audio

    model = load(name)
    if model.system != text_audio.NAME:
        raise InputError(f"{name} is a model of {model.system}, not of {text_audio.NAME}. Give one that ranks texts.")

    def judge(audio: NDArray[np.float32], sample_rate: int, texts: Sequence[str]) -> list[float]:
        with torch.inference_mode():
            return [float(score) for score in text_audio.similarity(model.network, audio, sample_rate, texts)]

    return judge


def _middle(path: Path) -> tuple[NDArray[np.float32], int]:
    """The middle of a recording, (channels, samples), and its sample rate."""
    try:
        with soundfile.SoundFile(str(path)) as file:
            n = round(RANKED_S * file.samplerate)
            file.seek(max(0, (file.frames - n) // 2))
            return file.read(n, dtype="float32", always_2d=True).T, file.samplerate
    except (soundfile.LibsndfileError, OSError) as error:
        raise InputError(f"{path} can't be read: {error}. Build its source again.") from error


def parts_of(row: Row) -> tuple[CaptionPart, ...]:
    """What is heard when, as the labels of a study say; elsewhere nothing is known."""
    if "events" not in row.labels or "times" not in row.labels:
        return ()
    spans = [tuple(map(float, span.split("-"))) for span in row.labels["times"].split("; ")]
    words = [event.words for event in parse(row.labels["events"])]
    return tuple(
        CaptionPart(words=said, start_s=start, stop_s=stop) for said, (start, stop) in zip(words, spans, strict=True)
    )


def captions_of(
    rows: Sequence[Row],
    tags: Mapping[str, Sequence[str]],
    seed: int,
    count: int,
    read: Callable[[Row], tuple[NDArray[np.float32], int]] | None = None,
    similarity: Similarity | None = None,
) -> list[Caption]:
    """Captions of every row, in the rows' order.

    Parameters
    ----------
    rows
        Recordings.
    tags
        Tags by `name_of`.
    seed, count
        As for `candidates`.
    read, similarity
        Audio and sample rate of a row, and how well texts fit a sound. With both, four times as many candidates are
        made and ranked, and `count` chosen so that no caption is chosen too often.
    """
    if read is None or similarity is None:
        texts = [candidates(row, tags.get(name_of(row), ()), seed, count) for row in rows]
    else:
        offered = [
            candidates(row, tags.get(name_of(row), ()), seed, min(4 * count, MAX_CAPTIONS)) for row in rows
        ]
        scores, vocabulary = scores_of(rows, offered, read, similarity)
        picked = choose(scores, top=2 * count, pick=count, seed=seed, names=[name_of(row) for row in rows])
        texts = [sorted((vocabulary[i] for i in own), key=len) for own in picked]
    made = []
    for row, own in zip(rows, texts, strict=True):
        parts = parts_of(row)
        structured = [row.labels["events"]] if len(parts) > 1 else []
        made += [Caption(recording=name_of(row), caption=text, parts=parts) for text in (*own, *structured)]
    return made


def write_captions(path: Path, captions: Sequence[Caption]) -> None:
    """Write `captions.jsonl` as a whole."""
    write_atomically(path, "".join(caption.model_dump_json() + "\n" for caption in captions).encode())


def read_captions(path: Path) -> dict[str, list[Caption]]:
    """Captions by recording.

    Raises
    ------
    InputError
        If the file is missing or a line is malformed.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read: {error}. Write it with `sfumato data captions`.") from error
    found: dict[str, list[Caption]] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                caption = Caption.model_validate(json.loads(line))
            except (json.JSONDecodeError, ValidationError) as error:
                reason = str(error).replace("\n", " ")
                raise InputError(f"{path}, line {number} is not a caption: {reason}") from error
            found.setdefault(caption.recording, []).append(caption)
    return found
