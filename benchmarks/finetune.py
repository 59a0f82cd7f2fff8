"""What fine-tuning on a handful of clips does: how near to them it comes, and to others of their kind; what else moves.

    python benchmarks/finetune.py --data DIR --out runs/finetune

Six recordings of neighing horses of the split `test` are learnt as "sks horse", by the command's defaults; five
others are held out. Likeness is the mean cosine between embeddings of drawn sounds and of clips, each in the middle
of three seconds, as long as what is drawn, by musicnn, and by the text-audio embedding, which was
trained on the same recordings as the model. Intervals are 95 % bootstrap intervals over drawn sounds. Everything is
drawn twice with the same seeds, before and after.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile as sf

from music_sets import RATE, STYLES, rows_of, shown
from sfumato.data.oneshots import read_sound
from sfumato.finetune import finetune
from sfumato.lesson import Settings
from sfumato.metrics.embedders import embedder
from sfumato.model import load
from sfumato.networks.text_audio import embed_audio
from sfumato.tasks.generate import generate

SOUND, WORD = "neighing horse", "sks horse"
LEARNT, SECONDS = 6, 3.0


def main() -> None:
    """Teach, draw, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=16, help="sounds per prompt")
    options = parser.parse_args()
    rows = [row for row in rows_of(options, "test") if row.labels.get("sound") == SOUND and row.seconds > 0.8]
    rows = sorted(rows, key=lambda row: row.path)
    clips = options.out / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    for row in rows[:LEARNT]:
        sf.write(clips / f"{Path(row.path).stem}.wav", read_sound(options.data / row.path, 1, RATE, 60.0)[0], RATE)
    made = finetune(clips, Settings(word=WORD, licence="stated in the manifest"), options.out / "tuned")
    own, network = embedder("musicnn"), load("text-audio").network
    embed = {
        "musicnn": lambda x: own(x, RATE).mean(axis=0),
        "text-audio": lambda x: embed_audio(network, x[None], RATE).double().numpy(),
    }

    def features(sounds: list[np.ndarray]) -> dict[str, np.ndarray]:
        found = {name: np.stack([of(x) for x in sounds]) for name, of in embed.items()}
        return {name: x / np.linalg.norm(x, axis=1, keepdims=True) for name, x in found.items()}

    def drawn(model: str, prompts: list[str]) -> dict[str, np.ndarray]:
        asked = ({"prompt": prompt, "seed": i, "seconds": SECONDS} for i, prompt in enumerate(prompts))
        return features([next(generate(model, one)).audio[0] for one in asked])

    placed = [in_silence(read_sound(options.data / row.path, 1, RATE, SECONDS)[0]) for row in rows]
    learnt, held = features(placed[:LEARNT]), features(placed[LEARNT:])
    sets = {"the clips that were learnt": learnt}
    for prompt in (WORD, SOUND):
        for name, model in (("before", "riffusion"), ("after", str(made.model))):
            sets[f"'{prompt}', {name}"] = drawn(model, [prompt] * options.count)
    likeness = {}
    for to, clip in (("learnt", learnt), ("held-out", held)):
        for name, x in sets.items():
            if x is not clip:
                likeness[f"{name}, to {to} clips"] = {j: shown((x[j] @ clip[j].T).mean(axis=1)) for j in embed}
    styles = [STYLES[i % len(STYLES)] for i in range(options.count)]
    before, after = drawn("riffusion", styles), drawn(str(made.model), styles)
    other = {judge: np.roll(before[judge], len(STYLES), axis=0) for judge in embed}
    kept = {
        "before and after, same seeds": {j: shown((before[j] * after[j]).sum(axis=1)) for j in embed},
        "before, other seeds": {j: shown((before[j] * other[j]).sum(axis=1)) for j in embed},
    }
    found = {"n": [LEARNT, len(rows) - LEARNT, options.count], "figures": made.figures}
    (options.out / "finetune.json").write_text(json.dumps(found | {"likeness": likeness, "kept": kept}, indent=1))
    print(f"{LEARNT} clips learnt, {len(rows) - LEARNT} held out, {options.count} sounds a prompt; {made.figures}\n")
    for head, table in (("likeness to clips", likeness), ("likeness of other prompts' sounds", kept)):
        print(f"| {head} | musicnn | text-audio |\n|---|---|---|")
        for name, row in table.items():
            cells = " | ".join(f"{row[j][0]:.3f} [{row[j][1]:.3f}, {row[j][2]:.3f}]" for j in embed)
            print(f"| {name} | {cells} |")
        print()


def in_silence(audio: np.ndarray) -> np.ndarray:
    """A clip in the middle of silence, as long as what is drawn."""
    missing = round(SECONDS * RATE) - len(audio)
    return np.pad(audio, (missing // 2, missing - missing // 2))


if __name__ == "__main__":
    main()
