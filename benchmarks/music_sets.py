"""What the benchmarks of music are measured on, and with: prompts, recordings, sounds, judges, distances."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from sfumato.data import caption_file, manifest
from sfumato.data.captions import name_of
from sfumato.data.manifest import Row
from sfumato.data.oneshots import read_sound
from sfumato.metrics import tag_agreement
from sfumato.metrics.bootstrap import bootstrap
from sfumato.metrics.embedders import embedder
from sfumato.metrics.kernel_distance import kernel_distance
from sfumato.metrics.text_score import text_scorer
from sfumato.tasks.generate import generate
from sfumato.tasks.vary import resampled

RATE = 44100
"""What everything is judged at, Hz; models of other rates are brought there."""
STYLES = (
    "piano melody", "string ensemble chords", "rock beat on rock drums", "music box arpeggio", "electric piano chords",
)  # fmt: skip


def shown(values: np.ndarray | list[float]) -> list[float]:
    """Mean and 95 % bootstrap interval."""
    found = bootstrap(np.asarray(values, float), list(range(len(values))))
    return [found.value, found.lower, found.upper]


def rows_of(options: argparse.Namespace, split: str) -> list[Row]:
    """Recordings of a split whose licence is stated."""
    rows = manifest.read(options.data / "manifest.jsonl")
    return [row for row in manifest.select(rows, split, None) if "unstated" not in row.licence]


def studies(options: argparse.Namespace, split: str) -> list[Row]:
    """Studies whose caption holds from beginning to end."""
    return [row for row in rows_of(options, split) if row.labels.get("form") in ("solo", "together")]


def clip(options: argparse.Namespace, row: Row, seconds: float = 5.0) -> np.ndarray:
    """The first seconds of a recording, mono."""
    return read_sound(options.data / row.path, 1, RATE, seconds)[0].astype(np.float64)


def prompts(options: argparse.Namespace, count: int) -> list[tuple[Row, str]]:
    """Held-out studies and the shortest caption of each that the training doesn't have, no caption twice."""
    captions, found = caption_file.read_captions(options.data / caption_file.NAME), {}
    learnt = {c.caption for split in ("train", "calibration") for row in rows_of(options, split)
              for c in captions.get(name_of(row), ())}  # fmt: skip
    order = np.random.default_rng(1).permutation(len(rows := studies(options, "test")))
    for i in order:
        own = [c.caption for c in captions[name_of(rows[i])] if not c.caption.startswith("<")]
        unseen = [caption for caption in own[:4] if caption not in learnt]
        if unseen:
            found.setdefault(unseen[0], rows[i])
    return [(row, caption) for caption, row in list(found.items())[:count]]


def sound(options: argparse.Namespace, prompt: str | None, seed: int = 0, **settings: Any) -> np.ndarray:
    """One sound of the model, mono."""
    drawn = next(generate(options.model, {"prompt": prompt, "seed": seed} | settings))
    return resampled(drawn.audio, drawn.sample_rate, RATE)[0]


def judges(options: argparse.Namespace) -> dict[str, Any]:
    """Functions from a sound and texts to scores."""
    _, tagger = tag_agreement.musicnn_tagger()
    usual = tag_agreement.usual([tagger(clip(options, row), RATE) for row in studies(options, "train")[:60]])
    return {"musicnn tags": tag_agreement.tag_scorer("musicnn", usual), "text-audio": text_scorer()}


def retrieval(sounds: list[np.ndarray], texts: list[str], judge: Any) -> dict[str, Any]:
    """Share of sounds whose own prompt is among the first 1 and 5 of all, and the score of its own."""
    scores = np.stack([judge(audio[None], RATE, texts) for audio in sounds])
    assert np.isfinite(scores).all()
    own = np.diag(scores)[:, None]
    rank = (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
    return {"R@1": shown(rank < 1), "R@5": shown(rank < 5), "score": shown(np.diag(scores))}


def embedded(sounds: list[np.ndarray]) -> np.ndarray:
    """musicnn's features, one row a sound of peak 1."""
    embed = embedder("musicnn")
    return np.stack([embed(audio / max(float(np.abs(audio).max()), 1e-9), RATE).mean(axis=0) for audio in sounds])


def kernel_with_interval(found: np.ndarray, reference: np.ndarray) -> list[float]:
    """Kernel distance and its 95 % interval, of halves drawn without replacement from both: their spread is that of the
    whole, as means of m of n have 1 / m - 1 / n of the variance."""
    rng, whole, some = np.random.default_rng(5), kernel_distance(found, reference), []
    for _ in range(200):
        a, b = (rng.permutation(len(x))[: len(x) // 2] for x in (found, reference))
        some.append(kernel_distance(found[a], reference[b]))
    low, high = np.quantile(some, [0.025, 0.975]) - np.mean(some)
    return [whole, whole + low, whole + high]


def everyday_sounds(options: argparse.Namespace, split: str, count: int) -> list[tuple[Row, np.ndarray]]:
    """Everyday sounds of a second or more that can be heard, and what of them is used."""
    kinds = ("0ad", "ufoai", "wesnoth", "minetest", "openarena", "tuxpaint", "widelands", "freedesktop", "oxygen")
    rows = [r for r in rows_of(options, split) if r.source.split("-")[0] in kinds and r.seconds >= 1.0]
    found = []
    for i in np.random.default_rng(6).permutation(len(rows)):
        audio = clip(options, rows[i])
        if np.sqrt(np.mean(audio**2)) > 1e-3:
            found.append((rows[i], audio))
        if len(found) == count:
            break
    return found


