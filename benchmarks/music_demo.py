"""Pictures and sounds of the documents: six prompts, and an everyday sound with what becomes of it.

    python benchmarks/music_demo.py --data DIR --out docs    # docs/images, docs/sounds
"""

from __future__ import annotations

import argparse
from pathlib import Path

import soundfile as sf

from music_sets import RATE, everyday_sounds
from sfumato.model import load
from sfumato.tasks import restyle
from sfumato.tasks.generate import generate
from sfumato.tasks.sheet import drawn
from sfumato.tasks.takes import Take


def picture(options: argparse.Namespace) -> None:
    """Draw six prompts, and an everyday sound with what becomes of it; keep some of them as sounds."""
    said = ("piano melody", "rock beat on rock drums", "flute melody", "church organ chords", "music box arpeggio",
            "growling wolf")  # fmt: skip
    made = [next(generate(options.model, {"prompt": prompt, "seed": 7})) for prompt in said]
    (options.out / "images").mkdir(exist_ok=True)
    (options.out / "images" / "riffusion.png").write_bytes(drawn(made, list(said), "six prompts, one seed"))
    model = load(options.model)
    row, audio = next((row, audio) for row, audio in everyday_sounds(options, "test", 40) if row.seconds > 4)
    takes = [Take(audio[None], RATE, 0, 1.0, {})]
    names = [row.labels.get("sound", row.recording)]
    for name, settings in (
        ("mask loudness", {"mask": "loudness"}),
        ("strength 0.5", {"strength": 0.5}),
        ("1 to 2 s, 500 to 4000 Hz", {"mask": "1:2@500:4000", "strength": 1.0}),
    ):
        wanted = restyle.Settings(prompt="piano melody", seed=7, **settings)
        takes.append(next(restyle.restyled(model, audio[None], RATE, wanted)))
        names.append(name)
    (options.out / "images" / "everyday.png").write_bytes(drawn(takes, names, "an everyday sound, towards a piano"))
    kept = {"riffusion-piano": made[0], "riffusion-drums": made[1], "riffusion-flute": made[2]}
    kept |= {"everyday-source": takes[0], "everyday-loudness": takes[1]}
    for name, one in kept.items():
        sf.write(options.out / "sounds" / f"{name}.ogg", one.audio[0], RATE, format="OGG", subtype="VORBIS")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="riffusion")
    picture(parser.parse_args())
