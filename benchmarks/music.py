"""Music from words and of sounds: how well it follows, how it sounds, what stays, what it costs.

    python benchmarks/music.py text    --data DIR --out runs/music
    python benchmarks/music.py facts   --data DIR --out runs/music
    python benchmarks/music.py quality --data DIR --out runs/music
    python benchmarks/music.py stages  --data DIR --out runs/noise2music --model noise2music   # cascades alone
    python benchmarks/music.py loops   --out runs/music                                        # riffusion alone
    python benchmarks/music.py speed   --out runs/music   # of a machine that does nothing else; any --model
    python benchmarks/music_table.py runs/music

DIR holds sounds with captions (docs/data.md): studies, everyday sounds, one-shots. Prompts, references and sounds are
those of its split `test`; of its captions only those are prompts that no recording of the training has word for word.
Judges: musicnn's tags through the sentence encoder, which know nothing of our sounds; and our text-audio embedding,
which was trained on the same training recordings as the model, with captions by the same grammar: it is no independent
judge, and is shown to compare settings. Intervals are 95 % bootstrap intervals over prompts or sounds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from music_sets import (
    RATE,
    STYLES,
    clip,
    embedded,
    judges,
    kernel_with_interval,
    prompts,
    retrieval,
    shown,
    sound,
    studies,
)
from sfumato.diffusion import schedule
from sfumato.errors import InputError
from sfumato.metrics.embedders import embedder
from sfumato.metrics.kernel_distance import kernel_distance
from sfumato.model import Model, load
from sfumato.signal import complex_spectrogram
from sfumato.tasks import budget, music, stream
from sfumato.tasks.stretches import frames_of
from sfumato.wanted import KEYS, key_number

SCALES = (1.0, 2.0, 3.0, 5.0, 8.0)
EVALUATIONS = (4, 8, 16, 50)
INSTRUMENTS = (
    "piano", "choir", "flute", "violin", "harpsichord", "music box", "distorted guitar", "rock drums", "church organ",
    "electric bass",
)  # fmt: skip
PLAYED = {"rock drums": "rock beat on rock drums", "electric bass": "bass line on electric bass"}


def text_following(options: argparse.Namespace) -> dict[str, Any]:
    """Retrieval of prompts by what was drawn for them, over guidance scales, between chance and real recordings."""
    pairs, judge = prompts(options, options.count), judges(options)
    texts = [caption for _, caption in pairs]
    real = [clip(options, row) for row, _ in pairs]
    result: dict[str, Any] = {"n": len(texts), "chance": [1 / len(texts), 5 / len(texts)], "rows": {}}
    result["rows"]["real recordings"] = {name: retrieval(real, texts, own) for name, own in judge.items()}
    for scale in SCALES:
        sounds = [sound(options, caption, seconds=5.0, seed=i, cfg_scale=scale) for i, caption in enumerate(texts)]
        result["rows"][f"scale {scale:g}"] = {name: retrieval(sounds, texts, own) for name, own in judge.items()}
        print(scale, result["rows"][f"scale {scale:g}"], flush=True)
    return result


def facts(options: argparse.Namespace) -> dict[str, Any]:
    """Instrument, tempo and key of what was drawn, by judges that never saw ours, beside held-out recordings."""
    import librosa

    embed = embedder("musicnn")
    training = [row for row in studies(options, "train") if row.labels.get("form") == "solo"]
    centres = []
    for name in INSTRUMENTS:
        own = [row for row in training if row.labels["instruments"] == name][:12]
        centres.append(np.mean([embed(clip(options, row), RATE).mean(axis=0) for row in own], axis=0))
    spread = np.std(centres, axis=0) + 1e-6

    def instrument(audio: np.ndarray) -> int:
        return int(np.argmin(np.linalg.norm((embed(audio, RATE).mean(axis=0) - centres) / spread, axis=1)))

    def tempo_right(audio: np.ndarray, bpm: float) -> float:
        found = float(np.atleast_1d(librosa.feature.tempo(y=audio, sr=RATE))[0])
        return float(min(abs(np.log2(found / bpm / octave)) for octave in (0.5, 1, 2)) < np.log2(1.06))

    def key_right(audio: np.ndarray, key: int) -> float:
        chroma = librosa.feature.chroma_cens(y=audio, sr=RATE).mean(axis=1)
        profiles = [np.roll(profile, k) for profile in (MAJOR, MINOR) for k in range(12)]
        return float(1 + int(np.argmax([np.corrcoef(chroma, p)[0, 1] for p in profiles])) == key)

    n = options.count
    tests = studies(options, "test")
    real_solo = [row for row in tests if row.labels.get("instruments") in INSTRUMENTS and row.labels["form"] == "solo"]
    real_tempo = [row for row in tests if "drum" in row.labels.get("instruments", "")][:60]
    real_key = [row for row in tests if row.labels.get("mode") in ("major", "minor")][:60]
    chance = {"instrument": 1 / len(INSTRUMENTS), "tempo": "another's", "key": 1 / 24}
    result: dict[str, Any] = {"chance": chance}
    played = [(k, name) for k, name in enumerate(INSTRUMENTS) for _ in range(max(1, n // 8))]
    drawn = [
        instrument(sound(options, PLAYED.get(name, f"{name} melody"), seed=i, seconds=5.0)) == k
        for i, (k, name) in enumerate(played)
    ]
    heard = [instrument(clip(options, row)) == INSTRUMENTS.index(row.labels["instruments"]) for row in real_solo]
    result["instrument"] = {"drawn": shown(drawn), "real": shown(heard), "n": [len(drawn), len(heard)]}
    tempi = [float(t) for t in np.random.default_rng(3).integers(70, 160, n)]
    beats = [sound(options, "rock beat on rock drums", seed=i, bpm=t, seconds=8.0) for i, t in enumerate(tempi)]
    result["tempo"] = {
        "drawn": shown([tempo_right(audio, t) for audio, t in zip(beats, tempi, strict=True)]),
        "another": shown([tempo_right(audio, t) for audio, t in zip(beats, np.roll(tempi, 1), strict=True)]),
        "real": shown([tempo_right(clip(options, row, 8.0), float(row.labels["tempo"])) for row in real_tempo]),
        "n": [n, len(real_tempo)],
    }
    keys = np.random.default_rng(4).integers(1, 25, n).tolist()
    chords = [sound(options, "piano chords", seed=i, key=KEYS[k], seconds=8.0) for i, k in enumerate(keys)]
    names = [key_number(f"{row.labels['key']} {row.labels['mode']}") for row in real_key]
    result["key"] = {
        "drawn": shown([key_right(audio, k) for audio, k in zip(chords, keys, strict=True)]),
        "another": shown([key_right(audio, k) for audio, k in zip(chords, np.roll(keys, 1), strict=True)]),
        "real": shown([key_right(clip(options, row, 8.0), k) for row, k in zip(real_key, names, strict=True)]),
        "n": [n, len(real_key)],
    }
    return result


MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
"""C. Krumhansl, "Cognitive foundations of musical pitch", 1990, table 2.1: profiles of C major and C minor."""


def quality(options: argparse.Namespace) -> dict[str, Any]:
    """Kernel distance to held-out recordings of the same prompts, by the number of evaluations."""
    pairs = prompts(options, options.count)
    reference = embedded([clip(options, row) for row, _ in pairs])
    others = [row for row in studies(options, "train")][: len(pairs)]
    noise = np.random.default_rng(0).normal(0, 0.1, (len(pairs), 5 * RATE))
    sets = {"recordings of other prompts": embedded([clip(options, row) for row in others])}
    sets["noise"] = embedded(list(noise))
    standard, config, counted = music.Settings(), load(options.model).config, {}
    grid = partial(schedule.karras, sigma_min=config.sigma_min, sigma_max=config.sigma_max)
    for evaluations in EVALUATIONS:
        guidance = evaluations > 8
        steps, _ = budget.share(evaluations, guidance, standard.guided, grid)
        how = {"steps": steps, "cfg_scale": standard.cfg_scale if guidance else 1.0}
        sounds = [sound(options, caption, seed=i, seconds=5.0, **how) for i, (_, caption) in enumerate(pairs)]
        sets[f"{evaluations} evaluations"], counted[f"{evaluations} evaluations"] = embedded(sounds), how
        print(evaluations, kernel_distance(sets[f"{evaluations} evaluations"], reference), flush=True)
    rows = {}
    for name, found in sets.items():
        rows[name] = {"kernel": kernel_with_interval(found, reference)}
    return {"n": len(pairs), "steps": counted, "rows": rows}


def stages(options: argparse.Namespace) -> dict[str, Any]:
    """A cascade against its first stages: retrieval and kernel distance of the same sounds after each."""
    pairs, judge = prompts(options, options.count), judges(options)
    texts = [caption for _, caption in pairs]
    reference, rows = embedded([clip(options, row) for row, _ in pairs]), {}
    least = 2 if load(options.model).config.draws == "levels" else 1
    for count in range(least, 2 + len(load(options.model).config.then)):
        sounds = [sound(options, text, seed=i, seconds=5.0, stages=count) for i, text in enumerate(texts)]
        rows[f"{count} stages"] = {
            "kernel": kernel_with_interval(embedded(sounds), reference),
            **{name: retrieval(sounds, texts, own) for name, own in judge.items()},
        }
        print(count, rows[f"{count} stages"], flush=True)
    return {"n": len(texts), "rows": rows}


def loops(options: argparse.Namespace) -> dict[str, Any]:
    """Where a loop's seam lies among its other places, and a stretch's among those of a long sound."""
    from dance import percentile_of_the_wrap

    result: dict[str, Any] = {}
    bar = round(240 / 110 * RATE)
    longer = {"seconds": 240 / 110 + 1}  # cut to length: where a sound ends, it fades out
    for name, settings in (("loops", {"loop": True, "bpm": 110.0}), ("sounds of that length", longer)):
        number = min(16, options.count)
        some = [sound(options, STYLES[i % len(STYLES)], seed=i, **settings)[:bar] for i in range(number)]
        both = np.array([percentile_of_the_wrap(one) for one in some])
        result[name] = {"jump": both[:, 0].tolist(), "flux": both[:, 1].tolist()}
    config, far = load(options.model).config, []
    for i in range(min(4, options.count)):
        audio = sound(options, STYLES[i], seed=i, seconds=30.0)
        level = np.abs(np.diff(np.sqrt(np.convolve(audio**2, np.ones(1024) / 1024, "valid"))[::1024]))
        pairs = np.maximum(level[:-1], level[1:])  # a seam lies at either of two places
        seams = [config.window + k * (config.window - 64) for k in range(20)]
        places = [s for s in seams if s < len(level)]
        far += [float((pairs < pairs[s - 1]).mean()) for s in places]
    result["seams of stretches"] = far
    return result


def picture_to_sound(model: Model) -> tuple[float, float]:
    """Seconds of sound, and seconds that a drawn picture takes to become it: the best of 5."""
    config, took = music.config_of(model), []
    n = 5 * config.sample_rate
    drawn = torch.randn(1, 2, config.half, frames_of(n, config), generator=torch.Generator().manual_seed(0))
    for _ in range(5):
        began = time.perf_counter()
        complex_spectrogram.sound(complex_spectrogram.unpicture(drawn.double(), config.sample_rate), n)
        took.append(time.perf_counter() - began)
    return 5.0, min(took)


def endless(model: Model) -> tuple[float, float]:
    """Seconds of sound, 20 or a few more, and of drawing, of the stream that `sfumato play` has as it is set."""
    settings, done = stream.Settings(prompt="piano melody", model=model.name), 0
    began, rate = time.perf_counter(), music.config_of(model).sample_rate
    for block in stream.blocks(model, settings, stream.Steering(settings)):
        done += block.shape[1]
        if done >= 20 * rate:
            break
    return done / rate, time.perf_counter() - began


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds that sounds take on the clock, and the most memory; cases that a model hasn't are left out."""
    torch.set_num_threads(2)
    cases = {
        "5 s, 8 steps, no guidance": {"seconds": 5.0, "steps": 8, "cfg_scale": 1.0},
        "5 s, as set": {"seconds": 5.0},
        "5 s, budget of 2 s": {"seconds": 5.0, "budget": "2s"},
        "30 s, 8 steps, no guidance": {"seconds": 30.0, "steps": 8, "cfg_scale": 1.0},
        "30 s, as set": {"seconds": 30.0},
        "120 s, as set": {"seconds": 120.0},
    }
    sound(options, "piano", steps=2, seconds=5.0)
    result: dict[str, Any] = {}

    def row(name: str, seconds: float, took: float) -> None:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        result[name] = [took, seconds / took, memory, os.getloadavg()[0]]
        print(name, result[name], flush=True)

    for name, settings in cases.items():
        if settings["seconds"] > options.longest:
            continue
        began = time.perf_counter()
        try:
            sound(options, "piano melody", **settings)
        except InputError as error:
            print(f"{name}: {error}", flush=True)
            continue
        row(name, settings["seconds"], time.perf_counter() - began)
    model = load(options.model)
    if model.system == "riffusion":
        row("20 s, endless, as play is set", *endless(model))
        row("5 s, picture to sound alone", *picture_to_sound(model))
    return result


PARTS = {
    "text": text_following, "facts": facts, "quality": quality, "stages": stages, "loops": loops, "speed": speed,
}  # fmt: skip


def main() -> None:
    """Measure a part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="riffusion")
    parser.add_argument("--count", type=int, default=48, help="prompts")
    parser.add_argument("--longest", type=float, default=120.0, help="seconds of the longest sound that is timed")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found = PARTS[options.part](options)
    (options.out / f"{options.part}.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
