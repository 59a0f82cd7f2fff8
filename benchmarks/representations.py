"""Which representation should the inpainter diffuse? Seven small models at one CPU budget, and three fills without one.

    python benchmarks/representations.py --data DIR --out DIR [--budget-s 180]

The folder given as data holds a manifest of recordings at 44.1 kHz (`sfumato data build`); only its train and
validation splits are read. The output folder keeps the examples, the scores of each variant and the table; a variant
whose scores are there is not trained again. One thread; the budget is CPU time of this process, from the first example
that a variant prepares to its last step, so a costlier representation gets fewer steps.

Longer than the house's files, since the variants are comparable only by what they share, examples, training and score,
and that is easiest to check in one place.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile as sf
import torch
from numpy.typing import NDArray
from scipy.signal import lfilter, lfiltic
from torch import Tensor, nn

from sfumato.data import manifest
from sfumato.diffusion import guide, noise, precondition, sample, schedule
from sfumato.metrics.band_distance import band_errors_db
from sfumato.metrics.bootstrap import bootstrap
from sfumato.metrics.log_spectral_distance import log_spectral_distance_db
from sfumato.metrics.sdr import sdr_db
from sfumato.networks import unet1d, unet2d
from sfumato.signal import gap_levels
from sfumato.signal.autoregressive import burg, posterior
from sfumato.signal.levels import Grid
from sfumato.signal.mdct import imdct, mdct
from sfumato.signal.stft import istft, stft
from sfumato.systems import conffusion

Array = NDArray[np.float64]

RATE = 44100
N = 2**16 - 1  # samples of a clip: 1.49 s
GAP_S, TEST_GAPS_S = (0.05, 0.5), (0.1, 0.2, 0.4)
ORDER, CONTEXT = 512, 4096
N_TRAIN = 384
STEPS, BATCH, LEARNING_RATE = 8, 4, 8e-4
WIDTHS_2D, WIDTHS_1D = (24, 48, 96, 128), (32, 64, 128, 160)
FOLD = 8  # neighbouring bins folded into channels
WHITENER = 32  # order of the waveform's linear predictor
LIMIT = 8.0  # whitened values are cut here
SEAM = round(0.004 * RATE)


class Example(NamedTuple):
    """A clip with one gap, its AR posterior mean and one draw, all ``(N,)``."""

    clean: Array
    mean: Array
    draw: Array
    gap: tuple[int, int]
    recording: str

    @property
    def known(self) -> NDArray[np.bool_]:
        """True = observed."""
        return (np.arange(N) < self.gap[0]) | (np.arange(N) >= self.gap[1])

    def backwards(self) -> Example:
        """The example reversed in time."""
        start, stop = self.gap
        return Example(self.clean[::-1], self.mean[::-1], self.draw[::-1], (N - stop, N - start), self.recording)


class Item(NamedTuple):
    """What a network predicts and gets for one example; `view` is what the way back to sound needs."""

    clean: Tensor
    condition: Tensor
    touched: Tensor
    start: Tensor
    view: Any


class Sigmas(NamedTuple):
    """Noise levels of training (log-normal) and sampling."""

    data: float = 1.0
    mean: float = -0.4
    std: float = 1.2
    max: float = 5.0
    min: float = 0.03


White = Callable[[Array], Tensor]


def _item(example: Example, white: White, channels: list[Tensor], touched: Tensor, with_ar: bool, view: Any) -> Item:
    """The target, and the AR fills as conditions and as the sampler's start if they are to be used."""
    target, mean, draw = (white(x) * touched for x in (example.clean, example.mean, example.draw))
    condition = torch.cat([*channels, mean, draw] if with_ar else channels)
    return Item(target.half(), condition.half(), touched, draw if with_ar else torch.zeros_like(draw), view)


class _Spectral:
    """STFT or MDCT, whitened by the mean power of each bin over the known frames, near ones first."""

    def __init__(self, kind: str, with_ar: bool) -> None:
        self.with_ar, self.hop = with_ar, 512 if kind == "STFT" else 1024
        self.parts = 2 if kind == "STFT" else 1
        self.sigmas = Sigmas(max=1.0 if with_ar else 5.0)

    def network(self) -> nn.Module:
        channels = self.parts * FOLD
        condition = channels * (3 if self.with_ar else 1) + FOLD + 1
        return unet2d.UNet2d(unet2d.Config(channels=channels, condition_channels=condition, widths=WIDTHS_2D))

    def transform(self, x: Array) -> Tensor:
        """``(parts, 1024, frames)``, without the STFT's top bin and the last frame, which is known."""
        signal = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
        if self.parts == 2:
            return torch.view_as_real(stft(signal, 2048, self.hop)[:-1, :-1]).permute(2, 0, 1)
        return mdct(signal, self.hop)[None, :, :-1]

    def inverse(self, spectrum: Tensor) -> Array:
        padded = nn.functional.pad(spectrum, (0, 1, 0, self.parts - 1))
        if self.parts == 2:
            complex_ = torch.view_as_complex(padded.permute(1, 2, 0).contiguous())
            return istft(complex_, 2048, self.hop, N).double().numpy()
        return imdct(padded[0], N).double().numpy()

    def prepare(self, example: Example) -> Item:
        observed = self.transform(_observed(example))
        centre = np.arange(observed.shape[-1]) * self.hop
        start, stop = example.gap
        away = np.maximum(start - 1024 - centre, centre - 1024 - stop + 1) / RATE  # from gap to frame, in seconds
        weight = torch.from_numpy(np.where(away >= 0, 1.0 / (1.0 + away / 0.23), 0.0)).float()
        power = (observed.square().mean(dim=0) * weight).sum(dim=1) / weight.sum()
        rms = power.sqrt() + 3e-5 * power.max().sqrt() + 1e-9
        touched = torch.from_numpy(away < 0).float().expand(1, 1, -1)

        def white(signal: Array) -> Tensor:
            return _fold((self.transform(signal) / rms[:, None]).clamp(-LIMIT, LIMIT))

        level = _fold((torch.log10(rms / rms.max()) / 2 + 1)[None, :, None].expand(1, -1, len(away)))
        channels = [white(_observed(example)), level, touched.expand(1, *level.shape[1:])]
        return _item(example, white, channels, touched, self.with_ar, rms[:, None])

    def audio(self, x: Tensor, example: Example, item: Item) -> Array:
        observed = self.transform(_observed(example))
        return self.inverse(torch.where(item.touched > 0, _unfold(x) * item.view, observed))

    def project(self, x: Tensor, example: Example, item: Item) -> Tensor:
        """`x` made consistent with the known samples."""
        consistent = np.where(example.known, example.clean, self.audio(x[0], example, item))
        return (_fold(self.transform(consistent) / item.view) * item.touched)[None]

    def render(self, x: Tensor, example: Example, item: Item) -> Array:
        return _paste(self.audio(x, example, item), example)


class _Waveform:
    """Samples, whitened by a linear predictor of order 32 over the clip's known part and its residual's power."""

    def __init__(self, with_ar: bool) -> None:
        self.with_ar = with_ar
        self.sigmas = Sigmas(max=1.0 if with_ar else 5.0)

    def network(self) -> nn.Module:
        condition = 4 if self.with_ar else 2
        return unet1d.UNet1d(unet1d.Config(channels=1, condition_channels=condition, widths=WIDTHS_1D))

    def prepare(self, example: Example) -> Item:
        start, stop = example.gap
        a, variance = burg([example.clean[:start], example.clean[stop:]], WHITENER)
        scale = np.sqrt(variance) + 1e-9
        touched = torch.zeros(1, N + 1)
        touched[:, start : stop + WHITENER] = 1.0

        def white(signal: Array) -> Tensor:
            residual = np.clip(lfilter(a, [1.0], signal) / scale, -LIMIT, LIMIT)
            return torch.from_numpy(np.append(residual, 0.0)).float()[None]

        channels = [white(_observed(example)) * (1 - touched), touched]
        return _item(example, white, channels, touched, self.with_ar, (a, scale))

    def render(self, x: Tensor, example: Example, item: Item) -> Array:
        start, stop = example.gap
        a, scale = item.view
        state = lfiltic([1.0], a, example.clean[start - WHITENER : start][::-1])
        fill = _observed(example)
        fill[start:stop] = lfilter([1.0], a, scale * x[0, start:stop].double().numpy(), zi=state)[0]
        return _paste(fill, example)


class _BandLevels:
    """The system `sfumato.systems.conffusion`: diffused band levels shape the random part of the AR draw."""

    grid = Grid(N, RATE)

    def __init__(self) -> None:
        c = conffusion.Config(network=unet2d.Config(channels=1, condition_channels=7, widths=WIDTHS_2D))
        self.config = c
        self.sigmas = Sigmas(c.sigma_data, c.sigma_mean, c.sigma_std, c.sigma_max, c.sigma_min)

    def network(self) -> nn.Module:
        return conffusion.build(self.config)

    def prepare(self, example: Example) -> Item:
        known, touched = gap_levels.frames_of(example.known, np.ones(N, dtype=bool), ~example.known, self.grid)
        view = gap_levels.picture(self.grid.levels(example.mean), self.grid.levels(example.draw), known, touched)
        target = torch.from_numpy(gap_levels.target(self.grid.levels(example.clean), view))
        flag = torch.from_numpy(touched).float().expand(1, 1, -1)
        return Item(target.half(), torch.from_numpy(view.condition).half(), flag, torch.zeros_like(target), view)

    def render(self, x: Tensor, example: Example, item: Item) -> Array:
        wanted = item.view.base_db + gap_levels.SCALE_DB * x[0].double().numpy()
        return conffusion.apply_levels(example.mean, example.draw, example.known, wanted, self.grid)


def _observed(example: Example) -> Array:
    return np.where(example.known, example.clean, 0.0)


def _fold(spectrum: Tensor) -> Tensor:
    """``(parts * FOLD, bins / FOLD, frames)``."""
    parts, bins, frames = spectrum.shape
    return spectrum.reshape(parts, bins // FOLD, FOLD, frames).transpose(1, 2).flatten(0, 1)


def _unfold(x: Tensor) -> Tensor:
    channels, rows, frames = x.shape
    return x.reshape(channels // FOLD, FOLD, rows, frames).transpose(1, 2).flatten(1, 2)


def _paste(fill: Array, example: Example) -> Array:
    """The known samples, and `fill` in the gap, which over 4 ms at both edges emerges from the AR draw."""
    start, stop = example.gap
    distance = np.minimum(np.arange(stop - start), np.arange(stop - start)[::-1]) + 1
    fade = np.sin(0.5 * np.pi * np.minimum(distance / (SEAM + 1), 1.0)) ** 2
    filled = example.draw.copy()
    filled[start:stop] += fade * (fill[start:stop] - filled[start:stop])
    return filled


LEVELS = _BandLevels()
Way = _Spectral | _Waveform | _BandLevels
VARIANTS: dict[str, Way] = {
    "complex STFT": _Spectral("STFT", with_ar=False),
    "complex STFT + AR": _Spectral("STFT", with_ar=True),
    "MDCT": _Spectral("MDCT", with_ar=False),
    "MDCT + AR": _Spectral("MDCT", with_ar=True),
    "waveform": _Waveform(with_ar=False),
    "waveform + AR": _Waveform(with_ar=True),
    "band levels + AR source": LEVELS,
}


UNTRAINED: dict[str, Callable[[Example], Array]] = {
    "AR mean": lambda example: example.mean,
    "AR draw": lambda example: example.draw,
    "straight-line levels + AR source": lambda e: LEVELS.render(torch.zeros(1, 1, 1), e, LEVELS.prepare(e)),
}


def centred(seconds: float, shift: int = 0) -> tuple[int, int]:
    """A gap in the middle of a clip, moved by `shift` samples."""
    start = (N - round(seconds * RATE)) // 2 + shift
    return start, start + round(seconds * RATE)


def fill_ar(x: Array, gap: tuple[int, int], random: np.random.Generator, recording: str) -> Example:
    """AR mean and draw of order 512 from 4096 samples on each side."""
    part, inner = slice(gap[0] - CONTEXT, gap[1] + CONTEXT), slice(*gap)
    known = np.ones(part.stop - part.start, dtype=bool)
    known[CONTEXT:-CONTEXT] = False
    fill = posterior(x[part], known, *burg([x[part][:CONTEXT], x[part][-CONTEXT:]], ORDER))
    mean, draw = x.copy(), x.copy()
    mean[inner], draw[inner] = fill.mean, fill.draw(random.standard_normal(len(fill.mean)))
    return Example(x, mean, draw, gap, recording)


def make(rows: list[manifest.Row], root: Path, count: int, seed: int) -> list[Example]:
    """`count` crops of random recordings with a random gap each; for 0, one crop of each with every test gap."""
    random = np.random.default_rng(seed)
    weights = np.sqrt([row.seconds for row in rows])
    made: list[Example] = []
    turn = 0
    while len(made) < count if count else turn < len(rows):
        row = rows[int(random.choice(len(rows), p=weights / weights.sum())) if count else turn]
        begin = int(random.integers(0, int(row.seconds * RATE) - N))
        x = sf.read(root / row.path, start=begin, frames=N, always_2d=True)[0].mean(axis=1)
        if len(x) < N or np.std(x[slice(*centred(min(TEST_GAPS_S)))]) < 1e-3:  # silent where the gap will be
            continue
        gaps = [centred(seconds) for seconds in TEST_GAPS_S]
        if count:
            gaps = [centred(float(np.exp(random.uniform(*np.log(GAP_S)))), int(random.integers(-4410, 4410)))]
        made += [fill_ar(x, gap, random, row.recording) for gap in gaps]
        turn += 1
    return made


def bank(path: Path, data: Path, split: manifest.Split, count: int, seed: int) -> list[Example]:
    """`make` on a split's recordings (no renders), kept in a file."""
    if not path.exists():
        rows = manifest.select(manifest.read(data / "manifest.jsonl"), split, rendered=False)
        made = make([r for r in rows if r.sample_rate == RATE and r.seconds > 4], data, count, seed)
        signals, gaps = np.array([e[:3] for e in made], dtype=np.float32), [e.gap for e in made]
        np.savez(path, signals=signals, gaps=gaps, recordings=[e.recording for e in made])
    with np.load(path) as kept:
        parts = (kept["signals"].astype(np.float64), kept["gaps"].tolist(), kept["recordings"].tolist())
        return [Example(x[0], x[1], x[2], (gap[0], gap[1]), name) for x, gap, name in zip(*parts, strict=True)]


def train(way: Way, examples: list[Example], budget_s: float) -> tuple[nn.Module, dict[str, Any]]:
    """A network trained for `budget_s` of CPU time by Adam, its rate warmed up, then lowered to 0; and its record."""
    begun = time.process_time()
    torch.manual_seed(0)
    random, sigmas, network = np.random.default_rng(0), way.sigmas, way.network()
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    prepare = cache(lambda i: way.prepare(examples[i // 2].backwards() if i % 2 else examples[i // 2]))
    losses: list[float] = []
    while (spent := (time.process_time() - begun) / budget_s) < 1.0:
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1.0, spent / 0.05 + 0.01, (1.0 - spent) / 0.5)
        items = [prepare(int(i)) for i in random.integers(0, 2 * len(examples), BATCH)]
        clean, condition, touched = (torch.stack([i[part] for i in items]).float() for part in range(3))
        uniform = noise.uniform((BATCH,), seed=0, item=0, step=len(losses))
        sigma = precondition.lognormal_sigma(uniform, sigmas.mean, sigmas.std).float()
        noisy = (clean + precondition.spread(sigma, clean) * torch.randn_like(clean)) * touched
        with torch.autocast("cpu", torch.bfloat16):
            denoised = precondition.edm(network, condition, sigmas.data)(noisy, sigma).float()
        squared = ((denoised - clean).square() * touched).flatten(1).sum(1) / touched.expand_as(clean).flatten(1).sum(1)
        loss = (precondition.edm_weight(sigma, sigmas.data) * squared).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    size, last = sum(p.numel() for p in network.parameters()), float(np.mean(losses[-len(losses) // 5 :]))
    return network.eval(), {"parameters": size, "steps": len(losses), "loss": last}


@torch.inference_mode()
def draw(way: Way, network: nn.Module, example: Example, number: int, expected: bool = False) -> Array:
    """One fill, sampled from noise, or with the AR condition from the AR draw plus noise; or rendered from the mean."""
    item, sigmas = way.prepare(example), way.sigmas
    denoise = precondition.edm(network, item.condition[None].float(), sigmas.data)
    denoise = guide.keep(denoise, lambda x: x * item.touched)
    if isinstance(way, _Spectral):
        denoise = guide.keep(denoise, lambda x: way.project(x, example, item))
    if expected:
        return way.render(denoise(torch.zeros_like(item.start)[None], torch.tensor([sigmas.max]))[0], example, item)
    start = item.start + sigmas.max * noise.normal(item.start.shape, seed=1, item=number, step=0)
    levels = schedule.karras(STEPS, sigmas.min, sigmas.max)
    return way.render(sample.last(sample.dpmpp_2m(denoise, (start * item.touched)[None], levels))[0], example, item)


def score(fill: Array, example: Example) -> dict[str, float]:
    """Every figure of one fill, in dB."""
    errors = band_errors_db(example.clean, fill, example.gap, RATE)
    assert errors is not None  # no example is silent
    return {
        "band": float(np.sqrt(np.mean(errors**2))),
        "lsd": log_spectral_distance_db(example.clean, fill, example.gap),
        "sdr": sdr_db(example.clean, fill, example.gap),
        "bias": float(errors.mean()),
    }


def table(results: dict[str, dict[str, Any]], examples: list[Example], budget_s: float) -> str:
    """Markdown: means by gap length, and over all with 95 % intervals over recordings."""
    names = [e.recording for e in examples]
    at = [[i for i, e in enumerate(examples) if e.gap == centred(s)] for s in TEST_GAPS_S]
    bar = np.array([s["band"] for s in results["AR draw"]["scores"]])

    def cell(values: Array) -> str:
        e = bootstrap(values, names)
        return f"{e.value:.2f} [{e.lower:.2f}, {e.upper:.2f}]"

    lines = [
        f"{len(examples)} fills of {len(set(names))} recordings; {budget_s:.0f} s of CPU time each.\n",
        "| dB | M par., steps | band distance 100 / 200 / 400 ms | all | minus AR draw | LSD | SDR | energy bias |",
        "|" + "---|" * 8,
    ]
    for name, result in results.items():
        band, *rest = (np.array([s[key] for s in result["scores"]]) for key in ("band", "lsd", "sdr", "bias"))
        size = f"{result['parameters'] / 1e6:.1f}, {result['steps']}" if "steps" in result else "–"
        lengths = " / ".join(f"{band[i].mean():.2f}" for i in at)
        lines.append("| " + " | ".join([name, size, lengths, *map(cell, (band, band - bar, *rest))]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Make the examples, train and score each variant, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="folder for examples, scores and table")
    parser.add_argument("--budget-s", type=float, default=180.0, help="CPU seconds of training per variant")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    test = bank(given.out / "validation.npz", given.data, "validation", 0, seed=2)
    results: dict[str, dict[str, Any]] = {k: {"scores": [score(f(e), e) for e in test]} for k, f in UNTRAINED.items()}
    for name, way in VARIANTS.items():
        path = given.out / f"{name.replace(' ', '-')}-{given.budget_s:.0f}s.json"
        if not path.exists():
            examples = bank(given.out / "train.npz", given.data, "train", N_TRAIN, seed=1)
            network, result = train(way, examples, given.budget_s)
            result["scores"] = [score(draw(way, network, e, i), e) for i, e in enumerate(test)]
            if isinstance(way, _BandLevels):  # levels can be averaged without losing energy: the system's default
                result["expected"] = [score(draw(way, network, e, i, expected=True), e) for i, e in enumerate(test)]
            path.write_text(json.dumps(result))
        results[name] = json.loads(path.read_text())
        print(name, {k: v for k, v in results[name].items() if k != "scores"}, flush=True)
        if "expected" in results[name]:
            results[f"{name}, expected levels"] = results[name] | {"scores": results[name]["expected"]}
    text = table(results, test, given.budget_s)
    (given.out / f"table-{given.budget_s:.0f}s.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
