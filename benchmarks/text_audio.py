"""The text-audio embedding: retrieval both ways and labels without training, beside chance and two baselines.

    python benchmarks/text_audio.py --data DIR --out runs/text-audio-figures --model text-audio --split validation
    python benchmarks/text_audio.py --data DIR --out runs/text-audio-figures --model text-audio --split test  # once

Every recording of the split has one caption, its first, which is the shortest, or its last, which says most. Text to
sound: for each distinct caption all recordings are ranked; a hit at k has one of that caption's among the first k.
Sound to text: for each recording the distinct captions are ranked; a hit at k has its own among the first k. Labels:
the values of one label, as words, are ranked for each recording that has one value of it. Baselines: musicnn's tags
through the sentence encoder (`metrics.tag_agreement`), also with what is usual in the split taken off, and a linear map
from the means and deviations of a sound's mel bands to the sentence vector of its caption, fitted on the split train.
Intervals are 95 % bootstrap intervals over the queries.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from sfumato.data import captioned, manifest
from sfumato.data.oneshots import read_sound
from sfumato.metrics import tag_agreement
from sfumato.model import load
from sfumato.networks import text
from sfumato.networks.text_audio import Config, embed_audio, log_mel
from sfumato.systems.text_audio import embed_text

LABELS = ("instruments", "families", "class", "style", "textures", "register", "mode", "loudness")
SECONDS = 20.0
RIDGE = 0.1
MOST_TRAINING, MOST_HELD = 400, 240
"""Recordings that the linear map is fitted on, and that are compared, drawn with seed 0."""


def bag(picture: np.ndarray) -> np.ndarray:
    """Means and deviations of a picture's bands over time, and 1."""
    return np.concatenate([picture.mean(axis=1), picture.std(axis=1), [80.0]]) / 80.0


def linear_map(pictures: list[np.ndarray], sentences: np.ndarray) -> np.ndarray:
    """Ridge regression from bags of bands to sentence vectors."""
    x = np.stack([bag(picture) for picture in pictures])
    return np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ sentences)


def chance(matches: int, total: int, k: int) -> float:
    """Chance that one of `matches` among `total` is within the first k of a random order."""
    return 1 - math.comb(total - matches, k) / math.comb(total, k) if k <= total else 1.0


def hits(scores: np.ndarray, right: np.ndarray, k: int) -> np.ndarray:
    """Of each row whether one that is right is among the k highest."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(right, best, axis=1).any(axis=1)


def shown(found: np.ndarray) -> str:
    """Mean in per cent and its bootstrap interval."""
    draws = np.random.default_rng(0).choice(found, (1000, len(found))).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{100 * found.mean():.1f} ({100 * low:.1f}–{100 * high:.1f})"


def baselines(
    held: list[manifest.Row], training: list[manifest.Row], options: argparse.Namespace
) -> dict[str, np.ndarray]:
    """Vectors of the held-out sounds by each baseline, kept in a file."""
    config, found = Config(), {}
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"linear-{options.split}-{options.caption}-{len(held)}.npy"
    if not path.is_file():
        weights = linear_map(pictures(training, options), vectors_of(captions_of(training, options)))
        np.save(path, np.stack([bag(picture) for picture in pictures(held, options)]) @ weights)
    found["linear"] = np.load(path)
    path = options.out / f"musicnn-{options.split}-{len(held)}.npy"
    if not path.is_file() and find_spec("musicnn"):
        _, tagger = tag_agreement.musicnn_tagger()
        sounds = (read_sound(options.data / row.path, 1, config.sample_rate, SECONDS)[0] for row in held)
        np.save(path, np.stack([tagger(sound, config.sample_rate) for sound in sounds]))
    if path.is_file():
        shares, names = np.load(path), vectors_of(tag_agreement.MUSICNN_TAGS)
        found["musicnn tags"] = shares @ names
        found["unusual musicnn tags"] = np.maximum(shares - shares.mean(axis=0), 0) @ names
    return {name: x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for name, x in found.items()}


def pictures(rows: list[manifest.Row], options: argparse.Namespace) -> list[np.ndarray]:
    """Log-mel pictures of recordings."""
    config = Config()
    sounds = (read_sound(options.data / row.path, 1, config.sample_rate, SECONDS) for row in rows)
    return [log_mel(sound, config.sample_rate, config).numpy() for sound in sounds]


def vectors_of(texts: Sequence[str]) -> np.ndarray:
    """Sentence vector of each text, each different one encoded once."""
    encoder = text.load()
    known = {one: encoder.encode([one]).sentence[0].double().numpy() for one in sorted(set(texts))}
    return np.stack([known[one] for one in texts])


def captions_of(rows: list[manifest.Row], options: argparse.Namespace) -> list[str]:
    """One caption of each recording."""
    which = 0 if options.caption == "first" else -1
    return [own[which] for own in captioned.captions_of(rows, options.data)]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for baselines and figures")
    parser.add_argument("--model", help="a name or folder; without it baselines alone")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--caption", choices=("first", "last"), default="first")
    options = parser.parse_args()
    rows = [r for r in manifest.read(options.data / "manifest.jsonl") if "unstated" not in r.licence]
    training = some(manifest.select(rows, "train"), MOST_TRAINING)
    held = some(manifest.select(rows, options.split), MOST_HELD)
    heard = baselines(held, training, options)
    texts = captions_of(held, options)
    distinct = sorted(set(texts))
    model = None
    if options.model:
        model, rate = load(options.model), load(options.model).config.sample_rate
        sounds = (read_sound(options.data / row.path, 1, rate, SECONDS) for row in held)
        heard = {"ours": np.stack([embed_audio(model.network, sound, rate).numpy() for sound in sounds])} | heard

    def said(words: list[str], name: str) -> np.ndarray:
        if name == "ours":
            return embed_text(model.network, words).numpy()
        return vectors_of(words)

    figures: dict[str, object] = {"split": options.split, "caption": options.caption}
    figures |= {"n": len(held), "captions": len(distinct)}
    right = np.array([[caption == other for other in distinct] for caption in texts])
    print(f"{options.split}: {len(held)} recordings, {len(distinct)} captions; linear map from {len(training)}\n")
    print("| | text→sound R@1 | R@5 | sound→text R@1 | R@5 |\n|---|---|---|---|---|")
    for name, embedded in heard.items():
        scores = embedded @ said(distinct, name).T
        cells = [hits(s, r, k) for s, r in ((scores.T, right.T), (scores, right)) for k in (1, 5)]
        figures[name] = [float(cell.mean()) for cell in cells]
        print(f"| {name} | " + " | ".join(shown(cell) for cell in cells) + " |")
    random = [[chance(int(row.sum()), len(row), k) for row in r] for r in (right.T, right) for k in (1, 5)]
    print("| chance | " + " | ".join(f"{100 * np.mean(cell):.1f}" for cell in random) + " |")
    print("\n| label | values | n | " + " | ".join(heard) + " | most frequent | chance |")
    print("|" + "---|" * (5 + len(heard)))
    for label in LABELS:
        among = [i for i, row in enumerate(held) if row.labels.get(label) and ";" not in row.labels[label]]
        values = sorted({held[i].labels[label] for i in among})
        if len(values) < 2 or len(among) < 10:
            continue
        right = np.array([[held[i].labels[label] == value for value in values] for i in among])
        cells = [hits(embedded[among] @ said(values, name).T, right, 1) for name, embedded in heard.items()]
        figures[label] = [float(cell.mean()) for cell in cells]
        print(
            f"| {label} | {len(values)} | {len(among)} | " + " | ".join(shown(cell) for cell in cells)
            + f" | {100 * right.mean(axis=0).max():.1f} | {100 / len(values):.1f} |"
        )  # fmt: skip
    if model:
        path = options.out / f"figures-{options.split}-{options.caption}.json"
        path.write_text(json.dumps(figures, indent=1) + "\n")


def some(rows: list[manifest.Row], most: int) -> list[manifest.Row]:
    """At most so many rows, drawn with seed 0, in their order."""
    return [rows[i] for i in sorted(np.random.default_rng(0).permutation(len(rows))[:most])]


if __name__ == "__main__":
    main()
