"""Music from words and of sounds: how well it follows, how it sounds, what stays, what it costs.

    python benchmarks/music.py calibrate --data DIR --out runs/music   # on validation sounds: the curve of strengths
    python benchmarks/music.py text      --data DIR --out runs/music   # the rest: held-out prompts and sounds
    python benchmarks/music.py facts     --data DIR --out runs/music
    python benchmarks/music.py quality   --data DIR --out runs/music
    python benchmarks/music.py everyday  --data DIR --out runs/music
    python benchmarks/music.py strength  --data DIR --out runs/music
    python benchmarks/music.py loops     --out runs/music
    python benchmarks/music.py speed     --out runs/music              # of a machine that does nothing else
    python benchmarks/music.py picture   --data DIR --out docs         # docs/images, docs/sounds
    python benchmarks/music.py table     --out runs/music

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
from scipy.stats import spearmanr

from sfumato.data import caption_file, manifest
from sfumato.data.captions import name_of
from sfumato.data.manifest import Row
from sfumato.data.oneshots import read_sound
from sfumato.metrics import tag_agreement
from sfumato.metrics.bootstrap import bootstrap
from sfumato.metrics.embedders import embedder
from sfumato.metrics.kernel_distance import kernel_distance
from sfumato.metrics.structural_similarity import structural_similarity
from sfumato.metrics.text_score import text_scorer
from sfumato.model import load
from sfumato.signal import spectrogram_image
from sfumato.tasks import budget, images, music, restyle
from sfumato.tasks.generate import generate
from sfumato.wanted import KEYS, key_number

RATE = 44100
SCALES = (1.0, 2.0, 3.0, 5.0, 8.0)
EVALUATIONS = (4, 8, 16, 50)
DOWNSHIFTS = (0, 40, 100, 150, 200)
ARMS = {"no brightness": {"brightness": 1.0}, "no contrast": {"contrast": 1.0}}
STYLES = (
    "piano melody", "string ensemble chords", "rock beat on rock drums", "music box arpeggio", "electric piano chords",
)  # fmt: skip
STRENGTHS = tuple(round(k / 9, 3) for k in range(1, 10))
INSTRUMENTS = (
    "piano", "choir", "flute", "violin", "harpsichord", "music box", "distorted guitar", "rock drums", "church organ",
    "electric bass",
)  # fmt: skip
PLAYED = {"rock drums": "rock beat on rock drums", "electric bass": "bass line on electric bass"}


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


def sound(prompt: str | None, seed: int = 0, **settings: Any) -> np.ndarray:
    """One sound of the model, mono."""
    return next(generate(OPTIONS.model, {"prompt": prompt, "seed": seed} | settings)).audio[0]


def judges() -> dict[str, Any]:
    """Functions from a sound and texts to scores."""
    _, tagger = tag_agreement.musicnn_tagger()
    usual = tag_agreement.usual([tagger(clip(OPTIONS, row), RATE) for row in studies(OPTIONS, "train")[:60]])
    return {"musicnn tags": tag_agreement.tag_scorer("musicnn", usual), "text-audio": text_scorer()}


def retrieval(sounds: list[np.ndarray], texts: list[str], judge: Any) -> dict[str, Any]:
    """Share of sounds whose own prompt is among the first 1 and 5 of all, and the score of its own."""
    scores = np.stack([judge(audio[None], RATE, texts) for audio in sounds])
    assert np.isfinite(scores).all()
    own = np.diag(scores)[:, None]
    rank = (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
    return {"R@1": shown(rank < 1), "R@5": shown(rank < 5), "score": shown(np.diag(scores))}


def text_following(options: argparse.Namespace) -> dict[str, Any]:
    """Retrieval of prompts by what was drawn for them, over guidance scales, between chance and real recordings."""
    pairs, judge = prompts(options, options.count), judges()
    texts = [caption for _, caption in pairs]
    real = [clip(options, row) for row, _ in pairs]
    result: dict[str, Any] = {"n": len(texts), "chance": [1 / len(texts), 5 / len(texts)], "rows": {}}
    result["rows"]["real recordings"] = {name: retrieval(real, texts, own) for name, own in judge.items()}
    for scale in SCALES:
        sounds = [sound(caption, seed=i, cfg_scale=scale) for i, caption in enumerate(texts)]
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

    n = options.count // 4
    tests = studies(options, "test")
    real_solo = [row for row in tests if row.labels.get("instruments") in INSTRUMENTS and row.labels["form"] == "solo"]
    real_tempo = [row for row in tests if "drum" in row.labels.get("instruments", "")][:60]
    real_key = [row for row in tests if row.labels.get("mode") in ("major", "minor")][:60]
    chance = {"instrument": 1 / len(INSTRUMENTS), "tempo": "another's", "key": 1 / 24}
    result: dict[str, Any] = {"chance": chance}
    played = [(k, name) for k, name in enumerate(INSTRUMENTS) for _ in range(max(1, n // 3))]
    drawn = [instrument(sound(PLAYED.get(name, f"{name} melody"), seed=i)) == k for i, (k, name) in enumerate(played)]
    heard = [instrument(clip(options, row)) == INSTRUMENTS.index(row.labels["instruments"]) for row in real_solo]
    result["instrument"] = {"drawn": shown(drawn), "real": shown(heard), "n": [len(drawn), len(heard)]}
    tempi = [float(t) for t in np.random.default_rng(3).integers(70, 160, n)]
    beats = [sound("rock beat on rock drums", seed=i, bpm=t, seconds=8.0) for i, t in enumerate(tempi)]
    result["tempo"] = {
        "drawn": shown([tempo_right(audio, t) for audio, t in zip(beats, tempi, strict=True)]),
        "another": shown([tempo_right(audio, t) for audio, t in zip(beats, np.roll(tempi, 1), strict=True)]),
        "real": shown([tempo_right(clip(options, row, 8.0), float(row.labels["tempo"])) for row in real_tempo]),
        "n": [n, len(real_tempo)],
    }
    keys = np.random.default_rng(4).integers(1, 25, n).tolist()
    chords = [sound("piano chords", seed=i, key=KEYS[k], seconds=8.0) for i, k in enumerate(keys)]
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


def embedded(sounds: list[np.ndarray]) -> np.ndarray:
    """musicnn's features, one row a sound of peak 1."""
    embed = embedder("musicnn")
    return np.stack([embed(audio / max(float(np.abs(audio).max()), 1e-9), RATE).mean(axis=0) for audio in sounds])


def quality(options: argparse.Namespace) -> dict[str, Any]:
    """Kernel and Fréchet distance to held-out recordings of the same prompts, by the number of evaluations."""
    pairs = prompts(options, options.count)
    reference = embedded([clip(options, row) for row, _ in pairs])
    others = [row for row in studies(options, "train")][: len(pairs)]
    noise = np.random.default_rng(0).normal(0, 0.1, (len(pairs), 5 * RATE))
    sets = {"recordings of other prompts": embedded([clip(options, row) for row in others])}
    sets["noise"] = embedded(list(noise))
    standard, config, counted = music.Settings(), load(options.model).config, {}
    for evaluations in EVALUATIONS:
        guidance = evaluations > 8
        steps, _ = budget.share(evaluations, guidance, standard.guided, partial(music.sigmas_of, config))
        how = {"steps": steps, "cfg_scale": standard.cfg_scale if guidance else 1.0}
        sounds = [sound(caption, seed=i, **how) for i, (_, caption) in enumerate(pairs)]
        sets[f"{evaluations} evaluations"], counted[f"{evaluations} evaluations"] = embedded(sounds), how
        print(evaluations, kernel_distance(sets[f"{evaluations} evaluations"], reference), flush=True)
    rows = {}
    for name, found in sets.items():
        rows[name] = {"kernel": kernel_with_interval(found, reference)}
    return {"n": len(pairs), "steps": counted, "rows": rows}


def kernel_with_interval(found: np.ndarray, reference: np.ndarray) -> list[float]:
    """Kernel distance and its 95 % interval, of halves drawn without replacement from both: their spread is scaled to
    that of the whole (subsampling, Politis and Romano, Annals of Statistics 22(4), 1994)."""
    rng, whole, some = np.random.default_rng(5), kernel_distance(found, reference), []
    for _ in range(200):
        a, b = (rng.permutation(len(x))[: len(x) // 2] for x in (found, reference))
        some.append(kernel_distance(found[a], reference[b]))
    low, high = np.quantile(some, [0.025, 0.975]) - np.mean(some)
    return [whole, whole + low / np.sqrt(2), whole + high / np.sqrt(2)]


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


def drawn_as_picture(audio: np.ndarray) -> np.ndarray:
    """Riffusion's grey picture of a sound."""
    return images.draw(audio[None], RATE, spectrogram_image.Parameters()).pixels[..., 0]


def everyday(options: argparse.Namespace) -> dict[str, Any]:
    """The published figures: likeness to the original over the downshift, and its ablations with the same noise."""
    import librosa

    model, scorer = load(options.model), text_scorer()
    sounds = everyday_sounds(options, "test", max(65, options.count))

    def cens(audio: np.ndarray) -> np.ndarray:
        return librosa.feature.chroma_cens(y=audio, sr=RATE).flatten()

    def measured(audio: np.ndarray, prompt: str, seed: int, **knobs: Any) -> tuple[list[float], np.ndarray]:
        settings = restyle.Settings(prompt=prompt, mask="loudness", seed=seed, strength=0.8, **knobs)
        made = next(restyle.restyled(model, audio[None], RATE, settings)).audio[0]
        a, b = cens(audio), cens(made)
        likeness = structural_similarity(drawn_as_picture(audio), drawn_as_picture(made))
        chroma = float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12))
        return [likeness, chroma, float(scorer(made[None], RATE, [prompt])[0])], made

    result: dict[str, Any] = {"n": len(sounds), "downshift": {}, "arms": {}}
    published = np.zeros((len(sounds), 3))
    reference = embedded([clip(options, row) for row in studies(options, "test")[: len(sounds)]])
    for shift in DOWNSHIFTS:
        found = [measured(a, STYLES[i % len(STYLES)], i, downshift=shift) for i, (_, a) in enumerate(sounds)]
        values = np.array([value for value, _ in found])
        published = values if shift == 40 else published
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
        far = kernel_distance(embedded([made for _, made in found]), reference)
        result["downshift"][shift] = [values.mean(axis=0).tolist(), error.tolist(), far]
        print(shift, result["downshift"][shift], flush=True)
    result["originals"] = kernel_distance(embedded([audio for _, audio in sounds]), reference)
    result["originals text score"] = shown(
        [float(scorer(a[None], RATE, [STYLES[i % len(STYLES)]])[0]) for i, (_, a) in enumerate(sounds)]
    )
    for name, knobs in ARMS.items():
        arm = np.array([measured(a, STYLES[i % len(STYLES)], i, downshift=40, **knobs)[0]
                        for i, (_, a) in enumerate(sounds)])  # fmt: skip
        result["arms"][name] = [arm.mean(axis=0).tolist(), [shown(column) for column in (arm - published).T]]
        print(name, result["arms"][name], flush=True)
    return result


def apart(first: np.ndarray, second: np.ndarray) -> float:
    """How far two sounds are apart: mean difference of the grey levels, 0 to 255, of their Riffusion pictures."""
    a, b = (drawn_as_picture(np.pad(x, (0, max(0, RATE // 2 - len(x))))) for x in (first, second))
    return float(np.abs(a.astype(float) - b).mean())


def calibrate(options: argparse.Namespace) -> dict[str, Any]:
    """The curve of strengths: noise levels from which equal steps of change follow, on validation sounds."""
    model = load(options.model)
    sounds = everyday_sounds(options, "validation", 8)
    sounds += [(row, clip(options, row)) for row in studies(options, "validation")[:8]]
    grid = np.geomspace(0.05, model.config.sigma_max, 12)
    config = model.config.model_copy(update={"strength": tuple(grid.tolist())})
    changed = type(model)(model.name, model.system, config, model.network, model.card)
    far = []
    for k in range(len(grid)):
        settings = restyle.Settings(strength=max(k / (len(grid) - 1), 1e-6), steps=8, cfg_scale=1.0, seed=1)
        made = [next(restyle.restyled(changed, a[None], RATE, settings)).audio[0] for _, a in sounds]
        far.append(float(np.mean([apart(a, b) for (_, a), b in zip(sounds, made, strict=True)])))
        print(grid[k], far[-1], flush=True)
    rising = np.maximum.accumulate(far)
    wanted = np.linspace(rising[0], 0.98 * rising[-1], 9)
    curve = np.exp(np.interp(wanted, rising, np.log(grid)))
    return {"n": len(sounds), "sigma": grid.tolist(), "change": far, "curve": [float(f"{x:.3g}") for x in curve]}


def strength(options: argparse.Namespace) -> dict[str, Any]:
    """Change over nine strengths, per sound and with one noise; and what is left of a change where a map keeps."""
    model = load(options.model)
    sounds = everyday_sounds(options, "test", 12) + [(r, clip(options, r)) for r in studies(options, "test")[:8]]
    found, kept = {}, {"time": [], "frequency": [], "box": []}
    masks = {"time": "1:2", "frequency": "0:9@2000:8000", "box": "0.8:2@500:3000"}
    for i, (row, audio) in enumerate(sounds):
        far = []
        for value in STRENGTHS:
            settings = restyle.Settings(prompt=STYLES[i % len(STYLES)], strength=value, seed=i)
            far.append(apart(audio, next(restyle.restyled(model, audio[None], RATE, settings)).audio[0]))
        found[name_of(row)] = {"change": far, "spearman": float(spearmanr(STRENGTHS, far).statistic)}
        long = np.pad(audio, (0, max(0, 4 * RATE - len(audio))))
        for name, mask in masks.items():
            settings = restyle.Settings(prompt=STYLES[i % len(STYLES)], mask=mask, strength=1.0, seed=i)
            made = next(restyle.restyled(model, long[None], RATE, settings)).audio[0]
            kept[name].append(left(long, made - long, mask))
        print(row.recording, found[name_of(row)]["spearman"], [kept[name][-1] for name in masks], flush=True)
    return {"strengths": STRENGTHS, "rows": found, "kept": kept}


def left(audio: np.ndarray, change: np.ndarray, mask: str) -> float:
    """Change where a map keeps, dB relative to the sound there."""
    from sfumato.tasks.strength import boxes

    window = torch.hann_window(2048, dtype=torch.float64)
    both = torch.from_numpy(np.stack([audio, change]))
    a, b = torch.stft(both, 2048, 1024, window=window, pad_mode="constant", return_complex=True).abs()[:, :1024]
    keep = torch.from_numpy(boxes(mask, 1024, a.shape[1], RATE) == 0)
    return float(10 * torch.log10((b[keep] ** 2).sum() / (a[keep] ** 2).sum() + 1e-30))


def loops(options: argparse.Namespace) -> dict[str, Any]:
    """Where a loop's seam lies among its other places, and a stretch's among those of a long sound."""
    from dance import percentile_of_the_wrap

    result: dict[str, Any] = {}
    for name, settings in (("loops", {"loop": True, "bpm": 110.0}), ("sounds of that length", {"seconds": 240 / 110})):
        some = [sound(STYLES[i % len(STYLES)], seed=i, **settings) for i in range(16)]
        both = np.array([percentile_of_the_wrap(one) for one in some])
        result[name] = {"jump": both[:, 0].tolist(), "flux": both[:, 1].tolist()}
    config, far = load(options.model).config, []
    for i in range(4):
        audio = sound(STYLES[i], seed=i, seconds=30.0)
        level = np.abs(np.diff(np.sqrt(np.convolve(audio**2, np.ones(1024) / 1024, "valid"))[::1024]))
        seams = [config.window + k * (config.window - 64) for k in range(20)]
        places = [s for s in seams if s < len(level)]
        far += [float((level < level[s - 1 : s + 1].max()).mean()) for s in places]
    result["seams of stretches"] = far
    return result


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds that sounds take on the clock, and the most memory."""
    torch.set_num_threads(2)
    cases = {
        "5 s, 8 steps, no guidance": {"seconds": 5.0, "steps": 8, "cfg_scale": 1.0},
        "5 s, as set": {"seconds": 5.0},
        "5 s, budget of 2 s": {"seconds": 5.0, "budget": "2s"},
        "30 s, 8 steps, no guidance": {"seconds": 30.0, "steps": 8, "cfg_scale": 1.0},
        "30 s, as set": {"seconds": 30.0},
        "120 s, as set": {"seconds": 120.0},
    }
    sound("piano", steps=2)
    result: dict[str, Any] = {}
    for name, settings in cases.items():
        began = time.perf_counter()
        sound("piano melody", **settings)
        took = time.perf_counter() - began
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        result[name] = [took, settings["seconds"] / took, memory, os.getloadavg()[0]]
        print(name, result[name], flush=True)
    return result


def picture(options: argparse.Namespace) -> None:
    """Draw six prompts, and an everyday sound with what becomes of it; keep some of them as sounds."""
    import soundfile as sf

    from sfumato.tasks.sheet import drawn
    from sfumato.tasks.takes import Take

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


PARTS = {
    "calibrate": calibrate, "text": text_following, "facts": facts, "quality": quality, "everyday": everyday,
    "strength": strength, "loops": loops, "speed": speed,
}  # fmt: skip
OPTIONS = argparse.Namespace()


def main() -> None:
    """Measure a part, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=(*PARTS, "picture", "table"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="riffusion")
    parser.add_argument("--count", type=int, default=64, help="prompts, and sounds")
    options = parser.parse_args(namespace=OPTIONS)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part in ("table", "picture"):
        (table if options.part == "table" else picture)(options)
        return
    found = PARTS[options.part](options)
    (options.out / f"{options.part}.json").write_text(json.dumps(found, indent=1))


def table(options: argparse.Namespace) -> None:
    """Print what was measured as Markdown."""
    found = {part: json.loads(path.read_text()) for part in PARTS if (path := options.out / f"{part}.json").is_file()}

    def span(three: list[float], scale: float = 1.0, digits: int = 2) -> str:
        value, low, high = (scale * x for x in three)
        return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

    if "text" in found:
        own = found["text"]
        print(f"Text following, {own['n']} held-out prompts; chance: R@1 {own['chance'][0]:.3f}, ", end="")
        print(f"R@5 {own['chance'][1]:.3f}\n")
        print("| sounds | judge | R@1 | R@5 | score |\n|---|---|---|---|---|")
        for name, judged in own["rows"].items():
            for judge, row in judged.items():
                print(f"| {name} | {judge} | {span(row['R@1'])} | {span(row['R@5'])} | {span(row['score'])} |")
    if "facts" in found:
        print("\n| what was asked for | drawn | another's | real recordings | chance | n |\n|---|---|---|---|---|---|")
        for name in ("instrument", "tempo", "key"):
            row, chance = found["facts"][name], found["facts"]["chance"][name]
            other = span(row["another"]) if "another" in row else ""
            print(f"| {name} | {span(row['drawn'])} | {other} | {span(row['real'])} | {chance} | {row['n']} |")
    if "quality" in found:
        print(f"\n{found['quality']['n']} sounds each\n\n| sounds | kernel distance |\n|---|---|")
        for name, row in found["quality"]["rows"].items():
            print(f"| {name} | {span(row['kernel'])} |")
    if "everyday" in found:
        own = found["everyday"]
        print(f"\n{own['n']} everyday sounds; originals: kernel distance to music {own['originals']:.2f}, ", end="")
        print(f"text score {span(own['originals text score'])}\n")
        print("| downshift | SSIM | CENS | text score | kernel distance to music |\n|---|---|---|---|---|")
        for shift, (mean, error, far) in own["downshift"].items():
            cells = " | ".join(f"{m:.3f} ± {e:.3f}" for m, e in zip(mean, error, strict=True))
            print(f"| {shift} | {cells} | {far:.2f} |")
        print("\n| arm, downshift 40 | SSIM, change | CENS, change |\n|---|---|---|")
        for name, (mean, change) in own["arms"].items():
            cells = " | ".join(f"{mean[k]:.3f}, {span(change[k], digits=3)}" for k in (0, 1))
            print(f"| {name} | {cells} |")
    if "strength" in found:
        rho = np.array([row["spearman"] for row in found["strength"]["rows"].values()])
        kept = {name: f"{max(values):.0f}" for name, values in found["strength"]["kept"].items()}
        print(f"\nSpearman of strength and change, {len(rho)} sounds: mean {rho.mean():.3f}, ", end="")
        print(f"least {rho.min():.3f}, ", end="")
        print(f"{(rho >= 0.95).sum()} at .95 or more. Change where a map keeps, worst, dB: {kept}")
    if "loops" in found:
        for name in ("loops", "sounds of that length"):
            row = found["loops"][name]
            print(f"{name}: median percentile of the jump {np.median(row['jump']):.0f}, ", end="")
            print(f"of the flux {np.median(row['flux']):.0f}; ", end="")
            print(f"{sum(x > 95 for x in row['jump'])} jumps of {len(row['jump'])} above the 95th")
        seams = found["loops"]["seams of stretches"]
        print(f"seams: median percentile {np.median(seams):.2f}, ", end="")
        print(f"{sum(x > 0.95 for x in seams)} of {len(seams)} above the 95th")
    if "speed" in found:
        print("\n| sound | seconds | seconds of sound per second | most memory, MB |\n|---|---|---|---|")
        for name, (took, ratio, memory, _) in found["speed"].items():
            print(f"| {name} | {took:.2f} | {ratio:.1f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
