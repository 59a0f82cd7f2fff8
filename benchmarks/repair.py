"""How good are the fills? Every method on the same gaps of recordings nobody trained on, and the table it makes.

    python benchmarks/repair.py measure --data DIR --out runs/repair          # resumable; one file per clip and family
    python benchmarks/repair.py measure --data DIR --out runs/repair --families aspain      # hours
    python benchmarks/repair.py table --out runs/repair
    python benchmarks/repair.py measure --data DIR --out runs/risk --families risk --clips 24 --seed 5
    python benchmarks/repair.py risk --out runs/risk                          # what `method auto` goes by
    python benchmarks/repair.py ship --model runs/conffusion/model --out runs/risk --to weights/conffusion
    python benchmarks/repair.py measure --data DIR --out runs/levels --families levels --clips 24 --seed 11 --embed

Each clip is 5 s of one recording, its channels averaged to mono, with one gap near the middle, at every length in turn.
Methods come in families, measured one at a time: a model that changes leaves the classical fills as they are.
Intervals are 95 % percentile bootstraps over recordings.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from repair_table import LISTENED_MS, SPREADS, print_risk, print_table, read, risks

LENGTHS_MS = (20, 50, 100, 200, 300, 500, 750)
CLIP_S = 5.0
FAMILIES = ("classical", "aspain", "learned", "risk", "levels")

LEVELS = (*((0.0, share) for share in (0.0, 0.4, 0.6, 0.8, 1.0)), (0.3, 0.6), (0.5, 0.6))
"""Temperatures and power shares of the drawn levels, to choose among."""


def clips(rows: list[Any], root: Path, count: int, seed: int) -> Iterator[tuple[int, Any, int]]:
    """(number, manifest row, first sample) of `count` clips, recordings taking turns; silent places are passed over."""
    import soundfile as sf

    random = np.random.default_rng(seed)
    rows = sorted(rows, key=lambda row: (row.source, row.recording))
    number = silent = 0
    while number < count:
        row = rows[number % len(rows)]
        start = int(random.integers(0, int((row.seconds - CLIP_S) * row.sample_rate)))
        audio, _ = sf.read(root / row.path, start=start, frames=int(CLIP_S * row.sample_rate), always_2d=True)
        middle = audio.mean(axis=1)[len(audio) // 2 - len(audio) // 10 : len(audio) // 2 + len(audio) // 10]
        if np.sqrt(np.mean(middle**2)) < 3e-3:
            silent += 1
            if silent > 100:
                raise SystemExit(f"{row.recording} is silent wherever it is cut.")
            continue
        silent = 0
        yield number, row, start
        number += 1


def measure_clip(job: tuple[Any, ...]) -> str:
    """Measure one family on one clip at every length and write its file, unless it is there."""
    import soundfile as sf
    from threadpoolctl import threadpool_limits

    number, row, start, family, options = job
    path = options.out / f"clip-{number:04d}.{family}.json"
    if path.exists():
        return str(path.name)
    torch.set_num_threads(1)
    rate = row.sample_rate
    audio, _ = sf.read(options.data / row.path, start=start, frames=int(CLIP_S * rate), always_2d=True)
    clean = audio.mean(axis=1)[None]
    results, embeddings = [], {}
    with threadpool_limits(limits=1):
        for length_ms in options.lengths:
            length = round(length_ms * 1e-3 * rate)
            offset = int(np.random.default_rng([options.seed, number]).integers(-rate // 4, rate // 4))
            first = clean.shape[1] // 2 - length // 2 + offset
            gap = (first, first + length)
            for name, samples in FILLS[family](clean, gap, rate, length_ms, number, options):
                fill = clean.copy()
                fill[:, gap[0] : gap[1]] = samples
                figures = judge(clean, fill, gap, rate, length_ms, family)
                results.append({"length_ms": length_ms, "method": name, **figures})
                if options.embed and length_ms in LISTENED_MS and name not in ("zero", "auto, mean of 16"):
                    embeddings[f"{length_ms}|{name}"] = embed(fill[0], rate)
        if options.embed and family == "classical":
            embeddings["clean"] = embed(clean[0], rate)
    if embeddings:
        np.savez(path.with_suffix(".npz"), **embeddings)
    body = {"clip": number, "source": row.source, "recording": row.recording, "start": start, "results": results}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(body))
    temporary.replace(path)
    return str(path.name)


Named = Iterator[tuple[str, np.ndarray]]


def classical_fills(
    clean: np.ndarray, gap: tuple[int, int], rate: int, length_ms: int, number: int, options: argparse.Namespace
) -> Named:
    """Silence, extrapolation, Janssen, and a draw of the AR posterior."""
    from sfumato.tasks import fill as fills

    yield "zero", np.zeros((1, gap[1] - gap[0]))
    seed = seed_of(number, options)
    for name, function in (
        ("extrapolation", fills.fill_extrapolate),
        ("janssen", fills.fill_janssen),
        ("ar draw", fills.fill_ar),
    ):
        yield name, filled(clean, gap, rate, lambda window, function=function: function(window, 1, seed, None))[0]


def aspain_fills(
    clean: np.ndarray, gap: tuple[int, int], rate: int, length_ms: int, number: int, options: argparse.Namespace
) -> Named:
    """A-SPAIN, by far the slowest."""
    from sfumato.tasks.fill import fill_aspain

    yield "aspain", filled(clean, gap, rate, lambda window: fill_aspain(window, 1, 0, None))[0]


def learned_fills(
    clean: np.ndarray, gap: tuple[int, int], rate: int, length_ms: int, number: int, options: argparse.Namespace
) -> Named:
    """A single diffusion draw, what `method auto` pastes, and the mean of 16 draws of that."""
    from sfumato.tasks.gaps import GIVEN
    from sfumato.tasks.methods import choose
    from sfumato.tasks.repair import fill_gaps
    from sfumato.tasks.windows import Clip

    model, auto = loaded(options.model), settings_of(number, options, "auto")
    known = clean.copy()
    known[:, gap[0] : gap[1]] = 0.0
    (routed,) = fill_gaps(Clip(known, rate), [gap], [GIVEN], auto, model)
    if routed.method == "diffusion":
        yield "diffusion", routed.draws[0]
    else:
        yield "diffusion", filled(clean, gap, rate, choose(settings_of(number, options), model, length_ms / 1e3)[1])[0]
    straight = dataclasses.replace(model, network=Straight())
    yield (
        "straight line",
        filled(clean, gap, rate, choose(settings_of(number, options), straight, length_ms / 1e3)[1])[0],
    )
    yield "auto", routed.draws[0]
    yield "auto, mean of 16", routed.draws.mean(axis=0)


class Straight(nn.Module):
    """In the network's place: the levels go straight from one edge to the other, and are sure of it."""

    def forward(self, x: torch.Tensor, c_noise: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """No deviation, no variance."""
        return torch.cat([0 * x, 0 * x - 30], dim=1)


def risk_fills(
    clean: np.ndarray, gap: tuple[int, int], rate: int, length_ms: int, number: int, options: argparse.Namespace
) -> Named:
    """Spreads of the random part, from the AR mean to a full draw: what `method auto` chooses among."""
    from sfumato.tasks import fill as fills
    from sfumato.tasks.methods import choose

    seed = seed_of(number, options)
    whole = filled(clean, gap, rate, choose(settings_of(number, options), loaded(options.model), length_ms / 1e3)[1])
    mean = filled(clean, gap, rate, lambda window: fills.fill_ar_mean(window, 2, seed, None))[0]
    for spread in SPREADS:
        yield f"spread {spread:g}", mean + spread * (whole[0] - mean)
    yield "ar draw", filled(clean, gap, rate, lambda window: fills.fill_ar(window, 1, seed, None))[0]


def level_fills(
    clean: np.ndarray, gap: tuple[int, int], rate: int, length_ms: int, number: int, options: argparse.Namespace
) -> Named:
    """One draw at several temperatures and power shares, and the AR draw: what their defaults were chosen by."""
    from unittest.mock import patch

    from sfumato.systems import conffusion
    from sfumato.tasks import fill as fills
    from sfumato.tasks.methods import choose

    for temperature, share in LEVELS:
        settings = settings_of(number, options).model_copy(update={"temperature": temperature})
        with patch.object(conffusion, "POWER_SHARE", share):
            draws = filled(clean, gap, rate, choose(settings, loaded(options.model), length_ms / 1e3)[1])
        yield f"temperature {temperature:g}, share {share:g}", draws[0]
    seed = seed_of(number, options)
    yield "ar draw", filled(clean, gap, rate, lambda window: fills.fill_ar(window, 1, seed, None))[0]


FILLS: dict[str, Callable[..., Named]] = {
    "classical": classical_fills,
    "aspain": aspain_fills,
    "learned": learned_fills,
    "risk": risk_fills,
    "levels": level_fills,
}


def seed_of(number: int, options: argparse.Namespace) -> int:
    """A clip's own seed."""
    return int(options.seed * 1_000_003 + number)


def settings_of(number: int, options: argparse.Namespace, method: str = "diffusion") -> Any:
    """Settings of a repair: 16 draws where they are averaged."""
    from sfumato.tasks.repair import Settings

    draws = 16 if method == "auto" else 2
    given = {name: getattr(options, name) for name in ("temperature", "steps") if getattr(options, name) is not None}
    return Settings(method=method, draws=draws, seed=seed_of(number, options), **given)


def filled(clean: np.ndarray, gap: tuple[int, int], rate: int, fill: Any) -> np.ndarray:
    """Draws ``(draws, 1, samples of the gap)``."""
    from sfumato.tasks.windows import Clip, fill_group

    known = clean.copy()
    known[:, gap[0] : gap[1]] = 0.0  # nothing of the truth is handed over
    return fill_group(Clip(known, rate), [gap], [gap], fill).draws


_MODELS: dict[str, Any] = {}


def loaded(name: str) -> Any:
    """The model, loaded once per process."""
    from sfumato.model import load

    if name not in _MODELS:
        _MODELS[name] = load(name)
    return _MODELS[name]


def judge(
    clean: np.ndarray, fill: np.ndarray, gap: tuple[int, int], rate: int, length_ms: int, family: str
) -> dict[str, float]:
    """Every figure of one fill."""
    from sfumato.metrics.band_distance import band_distance_db, band_errors_db
    from sfumato.metrics.high_band import high_band_bias_db
    from sfumato.metrics.log_spectral_distance import log_spectral_distance_db
    from sfumato.metrics.sdr import sdr_db
    from sfumato.metrics.seam import seam
    from sfumato.metrics.zimtohrli import zimtohrli_distance

    errors = band_errors_db(clean, fill, gap, rate)
    out = {
        "sdr": sdr_db(clean, fill, gap),
        "band": band_distance_db(clean, fill, gap, rate),
        "bias": float("nan") if errors is None else float(errors.mean()),
        "lsd": log_spectral_distance_db(clean, fill, gap),
        "high": high_band_bias_db(clean, fill, gap, rate),
    }
    if family == "risk" or length_ms in LISTENED_MS:
        out["zimtohrli"] = zimtohrli_distance(clean, fill, gap, rate)
    if family != "risk":
        edges = seam(clean, fill, gap, rate, n_places=300)
        out |= {"jump": edges.jump, "spike": edges.spike, "step": edges.step}
    return out


def embed(audio: np.ndarray, rate: int) -> np.ndarray:
    """musicnn embedding of the 3 s around the middle."""
    from sfumato.metrics.embedders import embedder

    if "embedder" not in _MODELS:
        _MODELS["embedder"] = embedder("musicnn")
    middle = len(audio) // 2
    half = int(1.52 * rate)
    return np.asarray(_MODELS["embedder"](audio[middle - half : middle + half], rate))


def ship(model: str, out: Path, to: Path) -> None:
    """Write the model with its risks on its card."""
    from sfumato.model import load, save

    trained = load(model)
    card = trained.card.model_copy(update={"figures": risks(read(out)[0])})
    save(dataclasses.replace(trained, card=card), to)
    print(f"{to}: {len(card.figures)} figures")


def keep_to(options: argparse.Namespace) -> None:
    """Refuse to mix results of different options in one folder."""
    for family in options.families:
        fixed = ["split", "lengths", "seed", "embed"]
        if family in ("learned", "risk", "levels"):
            fixed += ["model", "temperature", "steps"]
        given = json.dumps({name: str(getattr(options, name)) for name in fixed}, indent=1)
        path = options.out / f"options.{family}.json"
        if path.exists() and path.read_text() != given:
            raise SystemExit(f"{options.out} holds results of other options ({path}). Choose another folder.")
        path.write_text(given)


def main() -> None:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("measure", "table", "risk", "ship"))
    parser.add_argument("--data", type=Path, help="folder of a built manifest")
    parser.add_argument("--out", type=Path, required=True, help="folder for one result file per clip")
    parser.add_argument("--model", default="conffusion", help="name or folder")
    parser.add_argument("--to", type=Path, help="folder of the shipped model")
    parser.add_argument("--split", default="validation", choices=("validation", "test"))
    parser.add_argument("--clips", type=int, default=104)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS_MS), metavar="MS")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=["classical", "learned"])
    parser.add_argument("--temperature", type=float, help="default: that of sfumato repair")
    parser.add_argument("--steps", type=int, help="default: that of sfumato repair")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--embed", action="store_true", help="also store embeddings for the Fréchet distance")
    options = parser.parse_args()
    if options.what == "measure":
        from sfumato.data import manifest

        if {"risk", "levels"} & {*options.families} and options.split != "validation":
            parser.error(
                "risk and levels are measured on validation: what auto goes by must not have seen the test split"
            )
        options.out.mkdir(parents=True, exist_ok=True)
        keep_to(options)
        rows = [row for row in manifest.read(options.data / "manifest.jsonl") if row.split == options.split]
        rows = [row for row in rows if row.seconds > CLIP_S + 1 and not row.rendered]
        chosen = list(clips(rows, options.data, options.clips, options.seed))
        jobs = [(*clip, family, options) for family in options.families for clip in chosen]
        with ProcessPoolExecutor(options.processes) as pool:
            for done, name in enumerate(pool.map(measure_clip, jobs), start=1):
                print(f"{done}/{len(jobs)} {name}", flush=True)
    elif options.what == "ship":
        ship(options.model, options.out, options.to)
    elif options.what == "table":
        print_table(options.out)
    else:
        print_risk(options.out)


if __name__ == "__main__":
    main()
