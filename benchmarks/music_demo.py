"""Pictures and sounds of the documents: six prompts by two models, an everyday sound changed, a cascade's stages.

    python benchmarks/music_demo.py --data DIR --out docs    # docs/images, docs/sounds
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import soundfile as sf

from music_sets import RATE, everyday_sounds
from sfumato.model import load
from sfumato.tasks import restyle
from sfumato.tasks.generate import generate
from sfumato.tasks.sheet import drawn
from sfumato.tasks.takes import Take

SAID = ("piano melody", "rock beat on rock drums", "flute melody", "church organ chords", "music box arpeggio",
        "growling wolf")  # fmt: skip


def six_prompts(options: argparse.Namespace, model: str, seconds: float) -> None:
    """A picture of six prompts drawn by a model with one seed; the first three are kept as sounds."""
    made = [next(generate(model, {"prompt": prompt, "seed": 7, "seconds": seconds})) for prompt in SAID]
    (options.out / "images" / f"{model}.png").write_bytes(drawn(made, list(SAID), "six prompts, one seed"))
    for name, one in zip(("piano", "drums", "flute"), made, strict=False):
        keep(options, f"{model}-{name}", one)


def everyday(options: argparse.Namespace) -> None:
    """An everyday sound, and what becomes of it by three masks."""
    model = load("riffusion")
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
    keep(options, "everyday-source", takes[0])
    keep(options, "everyday-loudness", takes[1])


def stages(options: argparse.Namespace) -> None:
    """One piece after each stage of the cascade."""
    wanted = {"prompt": "string ensemble chords", "seed": 7, "seconds": 5.0}
    made = [next(generate("noise2music", wanted | {"stages": count})) for count in (1, 2, 3)]
    names = [f"stage {k}, {one.sample_rate / 1000:g} kHz" for k, one in enumerate(made, start=1)]
    (options.out / "images" / "noise2music.png").write_bytes(drawn(made, names, wanted["prompt"]))
    for count, one in enumerate(made, start=1):
        keep(options, f"noise2music-stage-{count}", one)


def keep(options: argparse.Namespace, name: str, one: Take) -> None:
    """Write a take as a sound of the documents."""
    path = options.out / "sounds" / f"{name}.ogg"
    sf.write(path, one.audio[0], one.sample_rate, format="OGG", subtype="VORBIS")


DEMOS = {
    "riffusion": partial(six_prompts, model="riffusion", seconds=5.2),
    "everyday": everyday,
    "make-an-audio": partial(six_prompts, model="make-an-audio", seconds=5.0),
    "noise2music": stages,
}


def main() -> None:
    """Make what the documents show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=DEMOS, nargs="+", default=list(DEMOS))
    options = parser.parse_args()
    for folder in ("images", "sounds"):
        (options.out / folder).mkdir(parents=True, exist_ok=True)
    for name in options.only:
        DEMOS[name](options)


if __name__ == "__main__":
    main()
