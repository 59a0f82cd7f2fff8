"""Sounds with captions, as the log-mel pictures and sentence states that text and audio are compared with.

Captions come from `captions.jsonl` beside the manifest, rows such as {"recording": "…", "caption": "…"}, several for a
recording if you like; a recording that has none there is described by its labels. Recordings with the same facts form a
group; a batch takes each group and each caption once, as far as there are enough, and rare groups as readily as full
ones. Which crop, caption and change an item gets is a pure function of (seed, step, item).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from sfumato.data.manifest import Row, Split
from sfumato.data.oneshots import read_sound
from sfumato.diffusion.noise import chooser
from sfumato.errors import InputError, ModelError
from sfumato.model import read_tensors, write_tensors
from sfumato.networks import text
from sfumato.networks.text_audio import QUIETEST_DB, log_mel
from sfumato.networks.text_audio import Config as Network
from sfumato.systems.text_audio import Config

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sfumato.data.examples import DataSettings, Progress

LONGEST_S = 20.0
"""Of a recording, its first so many seconds are used."""
MOST_CAPTIONS = 4
"""Of a recording, the first ones."""
TILT_DB = 6.0
"""Largest difference that a training crop's tilt makes between lowest and highest band."""
STRIPE_SHARE = 0.5
"""Of the training crops, this share lose a run of bands and a run of frames."""
ASIDE = {
    "arrangement", "codec", "composer", "events", "gain_db", "group", "image", "kit", "mono", "notes", "programs",
    "soundfont", "source_rate", "text", "times", "title",
}  # fmt: skip
"""Labels that don't say what is heard."""

SAID = (
    "sound", "instruments", "class", "form", "style", "textures", "register", "loudness", "dynamics", "key", "mode",
    "tempo", "metre",
)  # fmt: skip
"""Labels that captions are made from where there are any of them, in this order."""
HEADS = ("sound", "instruments", "class", "style")
"""The first of these that is there is a caption by itself."""


@dataclass(frozen=True)
class Texts:
    """Captions as the sentence encoder sees them; tokens are kept at half precision."""

    captions: tuple[str, ...]
    sentences: Tensor
    """(captions, e)"""
    tokens: tuple[Tensor, ...]
    """(n, e) each"""


@dataclass(frozen=True)
class Captioned:
    """Pictures of sounds and their captions; a data set for `sfumato.train.fit`."""

    pictures: Sequence[Tensor]
    """(n_mels, frames) each, dB."""
    captions: Sequence[Sequence[int]]
    """Of each sound, the numbers of its captions in `texts`."""
    groups: Sequence[int]
    """Of each sound, the number of its group, from 0."""
    texts: Texts
    config: Network
    augment: bool = True

    def batch(self, seed: int, step: int, size: int, rank: int, world: int) -> dict[str, Tensor]:
        """Items [rank, rank + 1) * size / world of a step: "log_mel", "sentence", "tokens", "valid", "group"."""
        if size % world:
            raise InputError(f"A batch of {size} can't be shared by {world} processes. Give a multiple of {world}.")
        share = size // world
        pairs = self.pairs(seed, step, size)[rank * share : (rank + 1) * share]
        first = step * size + rank * share
        pictures = [self.picture(sound, seed, first + i) for i, (sound, _) in enumerate(pairs)]
        states = [self.texts.tokens[caption] for _, caption in pairs]
        longest = max(len(own) for own in states)
        return {
            "log_mel": torch.stack(pictures),
            "sentence": torch.stack([self.texts.sentences[caption] for _, caption in pairs]),
            "tokens": torch.stack([pad(own.float(), (0, 0, 0, longest - len(own))) for own in states]),
            "valid": torch.stack([torch.arange(longest) < len(own) for own in states]),
            "group": torch.tensor([self.groups[sound] for sound, _ in pairs]),
        }

    def pairs(self, seed: int, step: int, size: int) -> list[tuple[int, int]]:
        """Sounds and captions of a step's items: no group and no caption twice, as far as there are enough.

        Groups are drawn without putting back, with weights that are the roots of their sizes [1]_.

        References
        ----------
        .. [1] P. Efraimidis, P. Spirakis, "Weighted random sampling with a reservoir", 2006, algorithm A.
        """
        choose = chooser(seed=seed, item=step)
        members: dict[int, list[int]] = {}
        for sound, group in enumerate(self.groups):
            members.setdefault(group, []).append(sound)
        names = sorted(members)
        weights = np.sqrt([len(members[group]) for group in names])
        order = [names[i] for i in np.argsort(-np.log(choose.random(len(names)) + 1e-300) / weights, kind="stable")]
        found: list[tuple[int, int]] = []
        said: set[int] = set()
        spare: list[tuple[int, int]] = []
        for group in order:
            sound = members[group][int(choose.integers(len(members[group])))]
            fresh = [caption for caption in self.captions[sound] if caption not in said]
            among = fresh or self.captions[sound]
            pair = (sound, among[int(choose.integers(len(among)))])
            (found if fresh else spare).append(pair)
            said.add(pair[1])
            if len(found) == size:
                return found
        found += spare[: size - len(found)]
        while len(found) < size:
            sound = int(choose.integers(len(self.groups)))
            found.append((sound, self.captions[sound][int(choose.integers(len(self.captions[sound])))]))
        return found

    def picture(self, sound: int, seed: int, number: int) -> Tensor:
        """A window ``(n_mels, n_frames)`` of a sound for item `number`, counted from the start of the training."""
        choose, n = chooser(seed=seed, item=2**40 + number), self.config.n_frames
        whole = self.pictures[sound]
        spare = whole.shape[1] - n
        start = int(choose.integers(spare + 1)) if spare > 0 and self.augment else max(0, spare) // 2
        x = whole[:, start : start + n].float()
        if self.augment:
            tilt = choose.uniform(-TILT_DB, TILT_DB) * torch.linspace(-0.5, 0.5, len(x))
            x = torch.where(x > QUIETEST_DB, x + tilt[:, None].float(), x)
        x = (x - x.max()).clamp(min=QUIETEST_DB) if bool((x > QUIETEST_DB).any()) else x
        x = pad(x, (0, n - x.shape[1]), value=QUIETEST_DB)
        if self.augment and choose.random() < STRIPE_SHARE:
            for axis in (0, 1):
                width = int(choose.integers(1, max(2, x.shape[axis] // 6)))
                at = int(choose.integers(x.shape[axis] - width + 1))
                x.narrow(axis, at, width).fill_(QUIETEST_DB)
        return x


def facts(row: Row) -> dict[str, str]:
    """What is known of how a recording sounds: its labels, without those that don't say."""
    return {key: value for key, value in sorted(row.labels.items()) if key not in ASIDE and value}


def described(row: Row) -> list[str]:
    """Captions made from a recording's labels: what sounds, then all that is known, as a list of words.

    Examples
    --------
    >>> described(row)  # doctest: +SKIP
    ['snare', 'snare one-shot', 'class: snare, form: one-shot']
    """
    known = facts(row)
    if not known:
        title = re.sub(r"[\W\d_]+", " ", row.labels.get("title", "")).strip()
        return [title or "music"]
    said = {key: known[key] for key in SAID if key in known} or known
    heads = [value for key, value in said.items() if key in HEADS]
    values = ", ".join(dict.fromkeys(said.values()))
    named = ", ".join(f"{key}: {value}" for key, value in said.items())
    return list(dict.fromkeys([*heads[:1], values, named]))[:MOST_CAPTIONS]


def captions_of(rows: Sequence[Row], root: Path) -> list[list[str]]:
    """Of each recording its captions, at most four: those of `captions.jsonl`, or else ones made from its labels.

    Raises
    ------
    InputError
        A line of the file is no caption.
    """
    path = root / "captions.jsonl"
    given: dict[str, list[str]] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        match _json(line):
            case {"recording": str(recording), "caption": str(caption)} if caption.strip():
                own = given.setdefault(recording, [])
                if caption not in own:
                    own.append(caption)
            case _:
                raise InputError(f'{path}, line {number} is no caption. Give {{"recording": "…", "caption": "…"}}.')
    found = []
    for row in rows:
        own = given.get(f"{row.source}/{row.recording}") or given.get(row.recording) or described(row)
        found.append(own[:MOST_CAPTIONS])
    return found


def _json(line: str) -> object:
    """What a line of JSON holds; None if it is none."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def group_numbers(rows: Sequence[Row], captions: Sequence[Sequence[str]]) -> list[int]:
    """Of each recording the number of its group: those with the same facts, or without facts the same captions."""
    names = [json.dumps(facts(row) or sorted(own)) for row, own in zip(rows, captions, strict=True)]
    numbers = {name: i for i, name in enumerate(sorted(Counter(names)))}
    return [numbers[name] for name in names]


def pictures_of(
    rows: Sequence[Row], root: Path, folder: Path, config: Network, progress: Progress
) -> list[Tensor]:
    """The picture of each recording's first 20 s, half precision, kept in `folder` for the next time."""
    shape = [config.sample_rate, config.n_fft, config.hop_length, config.n_mels, LONGEST_S]
    mark = hashlib.sha256(json.dumps([shape, [row.sha256 for row in rows]]).encode()).hexdigest()[:16]
    path = folder / f"pictures-{mark}.safetensors"
    if path.is_file():
        kept, _ = read_tensors(path)
        if len(kept) == len(rows):
            return [kept[f"{i:06d}"] for i in range(len(rows))]
        raise ModelError(f"{path} holds {len(kept)} pictures of {len(rows)}. Delete it.")
    made = []
    for i, row in enumerate(rows):
        progress(i, len(rows), "reading sounds")
        audio = read_sound(root / row.path, 1, config.sample_rate, LONGEST_S)
        made.append(log_mel(audio, config.sample_rate, config).half())
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(path, {f"{i:06d}": picture for i, picture in enumerate(made)}, {})
    return made


def encoded(captions: Sequence[str], folder: Path, progress: Progress) -> Texts:
    """Captions and what the sentence encoder makes of them, kept in `folder` for the next time.

    Raises
    ------
    MissingExtraError
        The sentence encoder isn't installed.
    """
    mark = hashlib.sha256(json.dumps(list(captions)).encode()).hexdigest()[:16]
    path, n = folder / f"texts-{mark}.safetensors", len(captions)
    if path.is_file():
        kept, _ = read_tensors(path)
    else:
        encoder, kept = text.load(), {}
        for i, caption in enumerate(captions):
            progress(i, n, "reading captions")
            one = encoder.encode([caption])
            kept |= {f"sentence-{i}": one.sentence[0], f"tokens-{i}": one.tokens[0].half()}
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(path, kept, {})
    sentences = torch.stack([kept[f"sentence-{i}"] for i in range(n)])
    return Texts(tuple(captions), sentences, tuple(kept[f"tokens-{i}"] for i in range(n)))


def examples(
    rows: Sequence[Row],
    root: Path,
    folder: Path,
    split: Split,
    config: BaseModel,
    settings: DataSettings,
    progress: Progress,
) -> Captioned:
    """The captioned sounds of one split (see `sfumato.preset`)."""
    assert isinstance(config, Config)
    captions = captions_of(rows, root)
    different = sorted({caption for own in captions for caption in own})
    number = {caption: i for i, caption in enumerate(different)}
    pictures = pictures_of(rows, root, folder, config.network, progress)
    texts = encoded(different, folder, progress)
    numbers = [[number[caption] for caption in own] for own in captions]
    return Captioned(pictures, numbers, group_numbers(rows, captions), texts, config.network, split == "train")
