"""RAVE's sounds and their picture for docs/rave.md.

    python benchmarks/rave_demo.py --piano DIR --drums DIR

`--piano` and `--drums` are folders of built manifests; only the split `test` is heard. Writes docs/sounds/*.ogg
and docs/images/rave.png: a piano piece and what its codec makes of it, a drum loop likewise, the demo recording
sent through both codecs, and a piece that the prior draws.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from rave import excerpts, through

DOCS = Path(__file__).parents[1] / "docs"
DEMO = Path(__file__).parents[1] / "examples" / "only_300_stood.flac"
SECONDS = 6.0
LEVEL_DB = -20.0
Array = NDArray[np.float32]


def sounds(options: argparse.Namespace) -> dict[str, tuple[str, Array, int]]:
    """File name -> (title, mono audio, sample rate)."""
    from sfumato import player
    from sfumato.tasks.generate import generate

    piano, drums = player.load("rave-piano"), player.load("rave-drums")
    found = {}
    for name, codec, data, wanted in (
        ("piano", piano, options.piano, "joplin"),
        ("drums", drums, options.drums, options.loop),
    ):
        work, audio, rate = next(one for one in excerpts(data, SECONDS, 0, 999, every=True) if wanted in one[0])
        found[f"rave-{name}-original"] = f"{name}, {work.split('/')[-1]}", audio, rate
        found[f"rave-{name}-codec"] = f"through rave-{name}", through(codec, audio), rate
    music, rate = sf.read(DEMO, dtype="float32", always_2d=True)
    demo = soxr.resample(music[: int(SECONDS * rate)].mean(axis=1), rate, piano.recipe.sample_rate)
    found["rave-transfer-original"] = "orchestra, the demo recording", demo, piano.recipe.sample_rate
    found["rave-transfer-piano"] = "through rave-piano", through(piano, demo), piano.recipe.sample_rate
    found["rave-transfer-drums"] = "through rave-drums", through(drums, demo), drums.recipe.sample_rate
    take = next(generate("rave-piano-prior", options.prior_settings))
    found["rave-prior"] = "drawn by rave-piano-prior", take.audio[0], take.sample_rate
    return found


def main() -> None:
    """Write the sounds and draw them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--piano", type=Path, required=True, help="folder of piano renders")
    parser.add_argument("--drums", type=Path, required=True, help="folder of one-shots and loops")
    parser.add_argument("--loop", default="loop_tabla", help="part of the name of the loop to use")
    options = parser.parse_args()
    options.prior_settings = {"seconds": SECONDS, "seed": 7}
    made = sounds(options)
    (DOCS / "sounds").mkdir(exist_ok=True)
    figure = Figure(figsize=(13, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    for plot, (name, (title, audio, rate)) in zip(figure.subplots(2, 4).flat, made.items(), strict=True):
        level = 10 ** (LEVEL_DB / 20) / max(float(np.sqrt(np.mean(audio**2))), 1e-6)
        leveled = audio * min(level, 0.99 / max(float(np.abs(audio).max()), 1e-6))
        sf.write(DOCS / "sounds" / f"{name}.ogg", leveled, rate, format="OGG", subtype="VORBIS")
        plot.specgram(leveled + 1e-7, NFFT=1024, noverlap=768, Fs=rate, vmin=-120, vmax=-40, cmap="magma")
        plot.set(title=title, xlabel="s", ylim=(0, 8000), yticks=[0, 4000, 8000], yticklabels=["0", "4", "8 kHz"])
    figure.savefig(DOCS / "images" / "rave.png", dpi=80)
    for name in made:
        print(DOCS.name, "sounds", f"{name}.ogg")


if __name__ == "__main__":
    main()
