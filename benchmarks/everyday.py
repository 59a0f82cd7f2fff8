"""Of everyday sounds: how far they change by strength, what stays, and the published figures of Mask-Based Diffusion.

    python benchmarks/everyday.py calibrate --data DIR --out runs/music   # on validation sounds: the curve of strengths
    python benchmarks/everyday.py everyday  --data DIR --out runs/music   # the rest: held-out sounds
    python benchmarks/everyday.py strength  --data DIR --out runs/music
    python benchmarks/everyday.py kept      --data DIR --out runs/music
    python benchmarks/music_table.py runs/music

DIR holds everyday sounds and studies (docs/data.md); sounds are those of its split `test`, but for the calibration.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.signal.windows import blackmanharris
from scipy.stats import spearmanr

from music_sets import RATE, STYLES, clip, embedded, everyday_sounds, shown, studies
from sfumato.data.captions import name_of
from sfumato.metrics.kernel_distance import kernel_distance
from sfumato.metrics.structural_similarity import structural_similarity
from sfumato.metrics.text_score import text_scorer
from sfumato.model import load
from sfumato.signal import spectrogram_image
from sfumato.tasks import images, restyle
from sfumato.tasks.strength import boxes

DOWNSHIFTS = (0, 40, 100, 150, 200)
ARMS = {"no brightness": {"brightness": 1.0}, "no contrast": {"contrast": 1.0}}
MASKS = ("1:2", "0.8:2@500:3000", "0:9@2000:8000")
STRENGTHS = tuple(round(k / 9, 3) for k in range(1, 10))


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


def held_out(options: argparse.Namespace) -> list[tuple[Any, np.ndarray]]:
    """Twelve everyday sounds and eight studies of the split `test`."""
    return everyday_sounds(options, "test", 12) + [(r, clip(options, r)) for r in studies(options, "test")[:8]]


def strength(options: argparse.Namespace) -> dict[str, Any]:
    """Change over nine strengths, per sound and with one noise."""
    model, found = load(options.model), {}
    for i, (row, audio) in enumerate(held_out(options)):
        far = []
        for value in STRENGTHS:
            settings = restyle.Settings(prompt=STYLES[i % len(STYLES)], strength=value, seed=i)
            far.append(apart(audio, next(restyle.restyled(model, audio[None], RATE, settings)).audio[0]))
        found[name_of(row)] = {"change": far, "spearman": float(spearmanr(STRENGTHS, far).statistic)}
        print(row.recording, found[name_of(row)]["spearman"], flush=True)
    return {"strengths": STRENGTHS, "rows": found}


def kept(options: argparse.Namespace) -> dict[str, Any]:
    """What is left of a change of strength 1 where a map keeps the sound."""
    model = load(options.model)
    found: dict[str, list[list[float]]] = {mask: [] for mask in MASKS}
    for i, (row, audio) in enumerate(held_out(options)):
        long = np.pad(audio, (0, max(0, 4 * RATE - len(audio))))
        for mask, own in found.items():
            settings = restyle.Settings(prompt=STYLES[i % len(STYLES)], mask=mask, strength=1.0, seed=i)
            made = next(restyle.restyled(model, long[None], RATE, settings)).audio[0]
            own.append(left(long, made - long, mask))
        print(row.recording, [own[-1] for own in found.values()], flush=True)
    return found


def left(audio: np.ndarray, change: np.ndarray, mask: str) -> list[float]:
    """Change where a map keeps, dB relative to the sound there, and relative to the change itself.

    The window's side lobes lie 92 dB down, so that what is read there is there; only frames that lie wholly within the
    sound are read, as its first and last sample are steps, whose spectrum is everywhere.
    """
    window = torch.from_numpy(blackmanharris(2048, sym=False))
    both = torch.from_numpy(np.stack([audio, change]))
    a, b = torch.stft(both, 2048, 1024, window=window, center=False, return_complex=True).abs()[:, :1024]
    keep = torch.from_numpy(boxes(mask, 1024, a.shape[1] + 2, RATE)[:, 1:-1] == 0)
    rest = (b[keep] ** 2).sum()
    return [float(10 * torch.log10(rest / (whole + 1e-30) + 1e-30)) for whole in ((a[keep] ** 2).sum(), (b**2).sum())]


PARTS = {"calibrate": calibrate, "everyday": everyday, "strength": strength, "kept": kept}


def main() -> None:
    """Measure a part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="riffusion")
    parser.add_argument("--count", type=int, default=66, help="sounds")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found = PARTS[options.part](options)
    (options.out / f"{options.part}.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
