"""Dance Diffusion: how its sounds, loops and variations compare with real ones, and what they cost.

    python benchmarks/dance.py quality  --data DIR --out runs/dance-figures     # goes on where it was stopped
    python benchmarks/dance.py audit    --data DIR --out runs/dance-figures
    python benchmarks/dance.py loops    --out runs/dance-figures
    python benchmarks/dance.py strength --data DIR --out runs/dance-figures
    python benchmarks/dance.py speed    --threads 1 --out runs/dance-figures    # of a machine that does nothing else
    python benchmarks/dance.py picture  --to docs/images/dance.png
    python benchmarks/dance.py table    --out runs/dance-figures

Held-out sounds are those of the manifest's split `test`: kits and folders that nothing was trained on. Generated sounds
are of the held-out ones' kinds, as often. Two embeddings: `envelope_bands`, which needs nothing, and musicnn. Every set
compared has the same number of sounds; the reference is all held-out sounds, but for held-out sounds themselves, whose
reference is the other ones. The floor is real sounds of other kits, the training's, of the same kinds; a model that
sounded like yet another kit would reach it. The ceiling is white noise.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sfumato.data import manifest, oneshots
from sfumato.diffusion import noise, sample
from sfumato.metrics.embedders import embedder
from sfumato.metrics.envelope_bands import envelope_bands
from sfumato.metrics.frechet import frechet_distance, gaussian
from sfumato.metrics.kernel_distance import kernel_distance
from sfumato.model import Card, Model, digest, load
from sfumato.systems import dance_diffusion
from sfumato.tasks import vary
from sfumato.tasks.draw import Settings, levels, takes

EVALUATIONS = (4, 8, 16, 32, 100)
SAMPLERS = {"dpmpp_2m": "karras", "dpmpp_2m_sde": "karras", "heun": "karras", "ddim": "crash", "iplms": "crash"}
BATCH = 16
SPEEDS = 2.0 ** (np.arange(-3, 4) / 12)
AUDIT_RATE = 11025
LOOPS = (16, 120.0)
STRENGTHS = tuple(round(0.1 * k, 1) for k in range(1, 10))


def identity(model: Model) -> str:
    """Hash of weights and configuration; the card may come to hold figures that are measured here."""
    return digest(replace(model, card=Card()))


def windows(model: Model, data: Path, split: str) -> tuple[np.ndarray, list[int], list[str]]:
    """One window ``(n, samples)`` for each sound of a split, their labels, their names."""
    config = model.config
    rows = manifest.select(manifest.read(data / "manifest.jsonl"), split)
    if split == "train":
        rows += manifest.select(manifest.read(data / "manifest.jsonl"), "calibration")
    dataset = oneshots.OneShots(oneshots.load_sounds(rows, data, config), config, augment=False)
    items = [dataset.item(0, i)[0].mean(axis=0) for i in range(len(dataset.sounds))]
    return np.stack(items), [s.label for s in dataset.sounds], [s.name for s in dataset.sounds]


@torch.no_grad()
def drawn(model: Model, labels: list[int], sampler: str, evaluations: int, seed: int) -> np.ndarray:
    """One sound per label, ``(n, samples)``, for about so many evaluations each."""
    config, out = model.config, []
    steps = (evaluations + 1) // 2 if sampler == "heun" else evaluations
    sigmas = levels(SAMPLERS[sampler], steps, config, config.sigma_max)
    for first in range(0, len(labels), BATCH):
        some = torch.tensor(labels[first : first + BATCH])
        shape = (config.network.channels, config.n_samples)
        stream = noise.walk(shape, seed=seed, items=range(first, first + len(some)))
        denoise = dance_diffusion.denoiser(model.network, config, some)
        x = stream(0) * float(sigmas[0])
        out.append(sample.last(sample.SAMPLERS[sampler](denoise, x, sigmas, stream)).mean(dim=1).numpy())
    return np.concatenate(out)


def embeddings(sounds: np.ndarray, rate: int) -> dict[str, np.ndarray]:
    """Both embeddings of each sound; all have a peak of 1."""
    musicnn, sets = embedder("musicnn"), {"envelope": [], "musicnn": []}
    for sound in sounds:
        plain = sound / max(float(np.abs(sound).max()), 1e-9)
        sets["envelope"].append(envelope_bands(plain, rate))
        sets["musicnn"].append(musicnn(plain, rate)[0])
    return {name: np.stack(rows) for name, rows in sets.items()}


def distances(found: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> dict[str, float]:
    """Fréchet and kernel distance; Fréchet only where a set has about as many sounds as dimensions."""
    pair = (found["envelope"], reference["envelope"])
    return {
        "frechet_envelope": frechet_distance(*gaussian(pair[0]), *gaussian(pair[1])),
        "kernel_envelope": kernel_distance(*pair),
        "kernel_musicnn": kernel_distance(found["musicnn"], reference["musicnn"]),
    }


def matched(rng: np.random.Generator, labels: list[int], among: list[int]) -> list[int]:
    """Places in `among` of one sound per label, of the same kind where there is one, without repetition."""
    left = {label: rng.permutation([i for i, other in enumerate(among) if other == label]).tolist() for label in among}
    rest = rng.permutation(len(among)).tolist()
    chosen: list[int] = []
    for label in labels:
        own = [i for i in left.get(label, []) if i not in chosen] or [i for i in rest if i not in chosen]
        chosen.append(own[0])
    return chosen


def quality(options: argparse.Namespace) -> dict[str, Any]:
    """Distances to held-out sounds for each sampler and number of evaluations, between floor and ceiling."""
    model = load(options.model)
    rate = model.config.sample_rate
    held, labels, _ = windows(model, options.data, "test")
    train, train_labels, _ = windows(model, options.data, "train")
    rng = np.random.default_rng(0)
    wanted = [labels[i] for i in rng.permutation(len(labels))[: options.count]]
    reference = embeddings(held, rate)
    real = train[matched(rng, wanted, train_labels)]
    hiss = rng.normal(0, 0.2, (len(wanted), held.shape[1]))
    order = rng.permutation(len(held))
    some, others = ({name: rows[part] for name, rows in reference.items()}
                    for part in (order[: len(wanted)], order[len(wanted) :]))  # fmt: skip
    fixed = {"reference": len(held), "count": len(wanted), "kinds": dict(Counter(wanted)), "model": identity(model)}
    made: dict[str, Callable[[], dict[str, float]]] = {
        "floor: real, other kits": lambda: distances(embeddings(real, rate), reference),
        f"held-out, against the other {len(held) - len(wanted)}": lambda: distances(some, others),
        "ceiling: white noise": lambda: distances(embeddings(hiss, rate), reference),
    }

    def row_of(sampler: str, evaluations: int, labels: list[int]) -> Callable[[], dict[str, float]]:
        return lambda: distances(embeddings(drawn(model, labels, sampler, evaluations, seed=1), rate), reference)

    made["dpmpp_2m, 32, no kind asked for"] = row_of("dpmpp_2m", 32, [0] * len(wanted))
    for evaluations in EVALUATIONS:
        for sampler in SAMPLERS:
            made[f"{sampler}, {evaluations}"] = row_of(sampler, evaluations, wanted)
    path = options.out / "quality.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    known = before["rows"] if {k: before.get(k) for k in fixed} == json.loads(json.dumps(fixed)) else {}
    rows = {name: known[name] for name in made if name in known}
    for name, make in made.items():
        if name not in rows:
            rows[name] = make()
            rows = {key: rows[key] for key in made if key in rows}
            path.write_text(json.dumps(fixed | {"rows": rows}, indent=1) + "\n")
            print(name, {key: round(value, 2) for key, value in rows[name].items()}, flush=True)
    return fixed | {"rows": rows}


def spectra(sounds: np.ndarray, rate: int) -> torch.Tensor:
    """Spectra of unit-energy sounds at `AUDIT_RATE`, long enough for every lag."""
    low = oneshots.resampled(sounds.astype(np.float32), rate, AUDIT_RATE)
    low /= np.linalg.norm(low, axis=1, keepdims=True) + 1e-9
    return torch.fft.rfft(torch.from_numpy(low), n=2 * low.shape[1])


def nearest(sounds: np.ndarray, train: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """For each sound the smallest embedding distance and the largest correlation at any lag and speed to training."""
    known = np.stack([envelope_bands(t, rate) for t in train])
    own = np.stack([envelope_bands(s, rate) for s in sounds])
    near = np.sqrt(((own[:, None] - known) ** 2).sum(axis=2)).min(axis=1)
    best = np.zeros(len(sounds))
    for speed in SPEEDS:
        length = train.shape[1]
        faster = np.stack([np.pad(r, (0, max(0, length - len(r))))[:length] for r in (
            oneshots.resampled(t[None].astype(np.float32), speed, 1.0)[0] for t in train
        )])  # fmt: skip
        against = spectra(faster, rate)
        for i, one in enumerate(spectra(sounds, rate)):
            best[i] = max(best[i], float(torch.fft.irfft(against * one.conj(), dim=1).abs().max()))
    return near, best


def audit(options: argparse.Namespace) -> dict[str, Any]:
    """How close generated sounds come to training sounds, beside how close held-out ones come."""
    model = load(options.model)
    rate = model.config.sample_rate
    held, labels, _ = windows(model, options.data, "test")
    train, _, _ = windows(model, options.data, "train")
    rng = np.random.default_rng(0)
    some = rng.permutation(len(held))[: options.count]
    sounds = drawn(model, [labels[i] for i in some], "dpmpp_2m", 24, seed=2)
    result: dict[str, Any] = {"count": len(some), "train": len(train)}
    for name, given in (("held-out", held[some]), ("generated", sounds)):
        near, best = nearest(given, train, rate)
        result[name] = {"distance": near.tolist(), "correlation": best.tolist()}
    # A sound of the training itself, played 1.5 semitones faster and turned down: what a copy would look like.
    copies = oneshots.resampled(train[some % len(train)].astype(np.float32), 2 ** (1.5 / 12), 1.0)
    copies = np.pad(copies, ((0, 0), (0, max(0, train.shape[1] - copies.shape[1]))))[:, : train.shape[1]]
    near, best = nearest(0.3 * copies, train, rate)
    result["copies"] = {"distance": near.tolist(), "correlation": best.tolist()}
    return result


def percentile_of_the_wrap(loop: np.ndarray) -> tuple[float, float]:
    """Percentiles, among all places of a loop, of the sample jump and of the spectral flux across its seam."""
    around = np.concatenate([loop[-2048:], loop, loop[:2048]])
    jumps = np.abs(np.diff(loop))
    jump = abs(loop[0] - loop[-1])
    frames = np.lib.stride_tricks.sliding_window_view(around, 1024)[::256] * np.hanning(1024)
    level = np.log10(np.abs(np.fft.rfft(frames, axis=1)) + 1e-4)
    flux = np.maximum(np.diff(level, axis=0), 0).sum(axis=1)
    centres = 256 * np.arange(len(flux)) + 512 + 128 - 2048
    across = np.abs(centres) < 512
    inside = (centres > 1024) & (centres < len(loop) - 1024)
    return 100 * float((jumps < jump).mean()), 100 * float((flux[inside] < flux[across].mean()).mean())


def loops(options: argparse.Namespace) -> dict[str, Any]:
    """Where the seam of a loop lies among its other places; as a check, that of a sound that isn't a loop."""
    count, bpm = LOOPS
    result: dict[str, Any] = {"bpm": bpm}
    loop = Settings(loop=True, bpm=bpm, count=count, seed=3)
    straight = Settings(seconds=4 * 60 / bpm, count=count, seed=3)
    for name, settings in (("loops", loop), ("sounds of that length", straight)):
        both = np.array([percentile_of_the_wrap(take.audio[0]) for take in takes(load(options.model), settings)])
        result[name] = {"jump": both[:, 0].tolist(), "flux": both[:, 1].tolist()}
    return result


def strength(options: argparse.Namespace) -> dict[str, Any]:
    """Distance of variations from their source over strength, with the same noise at every strength."""
    from scipy.stats import spearmanr

    model = load(options.model)
    rate = model.config.sample_rate
    held, _, names = windows(model, options.data, "test")
    chosen = np.random.default_rng(2).permutation(len(held))[:10]
    rows = {}
    for i in chosen:
        clip = vary.clip_of(held[i][None].astype(np.float64), rate, model.config)
        source, found = envelope_bands(held[i], rate), []
        for value in STRENGTHS:
            settings = vary.Settings(strength=value, count=2, seed=4)
            takes = vary.variations(model, clip, settings, lambda *_: None)
            found.append([float(np.linalg.norm(envelope_bands(t.audio[0], rate) - source)) for t in takes])
        rho = [float(spearmanr(STRENGTHS, column).statistic) for column in np.array(found).T]
        rows[names[i]] = {"distance": found, "spearman": rho}
        print(names[i], np.round(np.mean(found, axis=1), 2).tolist(), np.round(rho, 3).tolist(), flush=True)
    return {"strengths": STRENGTHS, "rows": rows}


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of audio per second on the clock and per second of one processor, and how busy the machine was."""
    model, result = load(options.model), {}
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name, settings in (
            ("a window", Settings(count=4)),
            ("10 s", Settings(seconds=10.0)),
            ("loop, 2 bars at 96", Settings(loop=True, bpm=96, bars=2)),
        ):
            list(takes(model, settings.model_copy(update={"steps": 1}), lambda *_: None))
            began, busy = time.perf_counter(), time.process_time()
            made = sum(take.audio.shape[1] for take in takes(model, settings, lambda *_: None))
            took, worked = time.perf_counter() - began, time.process_time() - busy
            seconds = made / model.config.sample_rate
            row = [seconds / took, seconds / worked, os.getloadavg()[0] / (os.cpu_count() or 1)]
            result[f"{name}, threads: {threads}"] = row
            print(name, threads, row, flush=True)
    result["steps"] = Settings().steps
    return result


def picture(options: argparse.Namespace) -> None:
    """Draw sounds of several kinds, variations of one of them, and a loop joined to itself."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    model = load(options.model)
    rate = model.config.sample_rate
    kinds = ("kick", "snare", "tom", "hat", "cymbal")
    sounds = [next(takes(load(options.model), Settings(kind=k, seed=7))).audio[0] for k in kinds]
    clip = vary.clip_of(sounds[1][None], rate, model.config)
    varied = []
    for value in (0.1, 0.3, 0.5, 0.7, 0.9):
        settings = vary.Settings(strength=value, seed=7)
        varied.append(next(iter(vary.variations(model, clip, settings, lambda *_: None))).audio[0])
    loop = next(takes(load(options.model), Settings(loop=True, bpm=120, seed=7))).audio[0]
    figure, axes = plt.subplots(3, 5, figsize=(13, 7), layout="constrained", height_ratios=(1, 1, 0.8))
    for row, (sounds_of_row, names) in enumerate(
        ((sounds, kinds), (varied, [f"the snare, strength {s}" for s in (0.1, 0.3, 0.5, 0.7, 0.9)]))
    ):
        for axis, sound, name in zip(axes[row], sounds_of_row, names, strict=True):
            axis.specgram(sound + 1e-6, NFFT=512, noverlap=384, Fs=rate, vmin=-130, vmax=-40, cmap="magma")
            axis.set(title=name, ylim=(0, 16000), yticks=[0, 8000, 16000], yticklabels=["0", "8", "16 kHz"])
            axis.xaxis.set_major_formatter("{x:g} s")
    for axis in axes[2]:
        axis.remove()
    wide = figure.add_subplot(axes[2, 0].get_gridspec()[2, :])
    seconds = np.arange(2 * len(loop)) / rate
    wide.plot(seconds, np.concatenate([loop, loop]), lw=0.3, color="black")
    wide.axvline(len(loop) / rate, color="tab:red", lw=1)
    wide.xaxis.set_major_formatter("{x:g} s")
    wide.set(title="one bar at 120, twice; the seam in red", xlim=(0, seconds[-1]), yticks=[])
    options.to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.to, dpi=80)


def table(options: argparse.Namespace) -> None:
    """Print what was measured as Markdown."""
    def read(name: str) -> dict[str, Any]:
        return json.loads((options.out / f"{name}.json").read_text())

    found = read("quality")
    print(f"{found['count']} sounds each against {found['reference']} held-out ones.\n")
    cells = {name: " / ".join(f"{value:.{d}f}" for value, d in zip(row.values(), (0, 1, 1), strict=True))
             for name, row in found["rows"].items()}  # fmt: skip
    print("| sounds | Fréchet, envelope / kernel, envelope / kernel, musicnn |\n|---|---|")
    for name in cells:
        if name.split(", ")[-1] not in map(str, EVALUATIONS):
            print(f"| {name} | {cells[name]} |")
    print(f"\n| evaluations | {' | '.join(map(str, EVALUATIONS))} |\n|---{'|---' * len(EVALUATIONS)}|")
    for sampler in SAMPLERS:
        print(f"| {sampler} | {' | '.join(cells.get(f'{sampler}, {n}', '') for n in EVALUATIONS)} |")
    found = read("audit")
    print(f"\n{found['count']} sounds each, nearest of {found['train']} training sounds.\n")
    print("| sounds | distance: least, median | correlation: median, largest |\n|---|---|---|")
    for name in ("held-out", "generated", "copies"):
        d, c = (np.array(found[name][key]) for key in ("distance", "correlation"))
        print(f"| {name} | {d.min():.2f}, {np.median(d):.2f} | {np.median(c):.2f}, {c.max():.2f} |")
    found = read("loops")
    print("\n| seam | jump: median percentile, above the 95th | flux: the same |\n|---|---|---|")
    for name in ("loops", "sounds of that length"):
        seams = [f"{np.median(v):.0f}, {np.sum(np.array(v) > 95)} of {len(v)}" for v in found[name].values()]
        print(f"| {name} | {' | '.join(seams)} |")
    found = read("strength")
    rho = np.array([row["spearman"] for row in found["rows"].values()])
    mean = np.mean([row["distance"] for row in found["rows"].values()], axis=(0, 2))
    print(f"\nSpearman over {len(found['strengths'])} strengths: mean {rho.mean():.3f}, least {rho.min():.3f}")
    print(f"of {rho.size} pairs of sound and seed; mean distance {np.round(mean, 2).tolist()}.")
    print("\n| | seconds of audio per second | per second of a processor | running per processor |\n|---|---|---|---|")
    for name, value in read("speed").items():
        if isinstance(value, list):
            print(f"| {name} | {value[0]:.2f} | {value[1]:.2f} | {value[2]:.1f} |")


PARTS = {"quality": quality, "audit": audit, "loops": loops, "strength": strength, "speed": speed}


def main() -> None:
    """Measure one part, draw the picture, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*PARTS, "picture", "table"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default="dance")
    parser.add_argument("--out", type=Path, default=Path("runs/dance-figures"))
    parser.add_argument("--to", type=Path, default=Path("docs/images/dance.png"))
    parser.add_argument("--count", type=int, default=64, help="sounds of each set")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="speed: numbers of threads")
    options = parser.parse_args()
    if options.part == "table":
        table(options)
    elif options.part == "picture":
        picture(options)
    else:
        options.out.mkdir(parents=True, exist_ok=True)
        found = PARTS[options.part](options) | {"model": identity(load(options.model))}
        (options.out / f"{options.part}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
