"""The text-audio embedding: retrieval both ways and labels without training, beside chance and two baselines.

    python benchmarks/text_audio.py --data DIR --model text-audio --split validation
    python benchmarks/text_audio.py --data DIR --model text-audio --split test       # once, at the end

Every recording of the split has one caption, its first. Text to sound: for each distinct caption all recordings are
ranked; a hit at k has one of that caption's among the first k. Sound to text: for each recording the distinct captions
are ranked; a hit at k has its own among the first k. Labels: the values of one label, as words, are ranked for each
recording that has one value of it. Baselines: musicnn's tags through the sentence encoder (`metrics.tag_agreement`,
what is usual taken from the split itself, in the baseline's favour), and a linear map from the means and deviations of
a sound's mel bands to the sentence vector of its caption, fitted on the split train. Intervals are 95 % bootstrap
intervals over the queries.
"""

from __future__ import annotations

import argparse
import json
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from sfumato.data import captioned, manifest
from sfumato.data.oneshots import read_sound
from sfumato.metrics import tag_agreement
from sfumato.model import load
from sfumato.networks import text
from sfumato.networks.text_audio import embed_audio, log_mel
from sfumato.systems.text_audio import embed_text

LABELS = ("instruments", "families", "class", "style", "textures", "register", "mode", "loudness")
SECONDS = 20.0
RIDGE = 0.1
MOST_TRAINING = 1500


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


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="text-audio")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--sources", help="comma-separated; only these")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    options = parser.parse_args()
    model = load(options.model)
    rows = [r for r in manifest.read(options.data / "manifest.jsonl") if "unstated" not in r.licence]
    if options.sources:
        rows = [row for row in rows if row.source in options.sources.split(",")]
    held, training = (manifest.select(rows, split) for split in (options.split, "train"))
    picked = np.random.default_rng(0).permutation(len(training))[:MOST_TRAINING]
    training = [training[i] for i in sorted(picked)]
    captions = [own[0] for own in captioned.captions_of(held, options.data)]
    distinct = sorted(set(captions))
    encoder, network = text.load(), model.config.network

    def sound(row: manifest.Row) -> np.ndarray:
        return read_sound(options.data / row.path, 1, network.sample_rate, SECONDS)

    sounds = [sound(row) for row in held]
    pictures = [log_mel(audio, network.sample_rate, network).numpy() for audio in sounds]
    own = [o[0] for o in captioned.captions_of(training, options.data)]
    shown_first = {caption: encoder.encode([caption]).sentence[0].double().numpy() for caption in sorted(set(own))}
    taught = [log_mel(sound(row), network.sample_rate, network).numpy() for row in training]
    weights = linear_map(taught, np.stack([shown_first[caption] for caption in own]))
    mapped = np.stack([bag(picture) for picture in pictures]) @ weights
    heard = {
        "ours": np.stack([embed_audio(model.network, audio, network.sample_rate).numpy() for audio in sounds]),
        "linear": mapped / np.linalg.norm(mapped, axis=1, keepdims=True),
    }
    if find_spec("musicnn"):
        tags, tagger = tag_agreement.musicnn_tagger()
        shares = np.stack([tagger(audio[0], network.sample_rate) for audio in sounds])
        vectors = encoder.encode(tags).sentence.double().numpy()
        means = np.maximum(shares - shares.mean(axis=0), 0) @ vectors
        heard["musicnn tags"] = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)

    def said(texts: list[str], name: str) -> np.ndarray:
        return embed_text(model.network, texts).numpy() if name == "ours" else encoder.encode(texts).sentence.numpy()

    figures: dict[str, object] = {"split": options.split, "n": len(held), "captions": len(distinct)}
    right = np.array([[caption == other for other in distinct] for caption in captions])
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
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
