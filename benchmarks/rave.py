"""RAVE: how fast it plays, how well it keeps held-out sounds, and what a transfer of timbre keeps.

    python benchmarks/rave.py speed --model rave-piano
    python benchmarks/rave.py rebuild --data DIR --model rave-piano [--phase-one FOLDER] --out runs/rave
    python benchmarks/rave.py transfer --data DIR --of OTHER --model rave-piano --out runs/rave
    python benchmarks/rave.py rates --data DIR --model rave-piano --out runs/rave
    python benchmarks/rave.py table --out runs/rave
    python benchmarks/rave.py picture --out runs/rave

`rebuild` takes one excerpt of ten seconds of each work of the test split (30 s of each recording for the distances of
sets), encodes and decodes it with the model (and with the same network as it was before its adversarial phase), with
fewer principal directions, and with Opus; `transfer` sends recordings of another folder's test split through the model;
`rates` writes `.sfz` files of the same excerpts at several fidelities and steps. Each writes a JSON file that `table`
prints; `picture` draws what `rates` found. Nothing of the test split was used in training. `speed` prints its table at
once: all on one thread, in one run.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
SECONDS = 10.0
FIDELITIES = (0.99, 0.95, 0.9, 0.8)
OPUS_KBPS = (6, 12, 24, 64)
METRICS = {
    "spectral": "multi-scale spectral distance",
    "mel": "mel distance",
    "si_sdr": "SI-SDR, dB",
    "zimtohrli": "Zimtohrli",
}


def excerpts(
    data: Path, seconds: float, seed: int, limit: int, every: bool = False, patterns: bool = False
) -> list[tuple[str, Array, int]]:
    """(work, mono audio, sample rate): one excerpt of each test work (or every recording), where there is sound.

    With `patterns`, 40 patterns of the test sounds, laid out as in training.
    """
    from sfumato.data import manifest
    from sfumato.data.crops import Crops

    rows = manifest.select(manifest.read(data / "manifest.jsonl"), "test")
    if patterns:
        return laid_out(rows, data, seconds, seed)
    works: dict[str, Any] = {}
    for row in sorted(rows, key=lambda row: row.recording):
        if row.seconds > seconds + 1:
            works.setdefault(row.recording if every else row.work, []).append(row)
    found = []
    for item, (work, versions) in enumerate(sorted(works.items())[:limit]):
        row = versions[item % len(versions)]  # soundfonts by turns
        crops = Crops([row], data, round(seconds * row.sample_rate), 1, (-22.0, -22.0))
        found.append((work, crops.crop(seed, 0, item)[0], row.sample_rate))
    return found


def laid_out(rows: list[Any], data: Path, seconds: float, seed: int) -> list[tuple[str, Array, int]]:
    """(name, mono audio, sample rate) of patterns of short sounds."""
    from sfumato.data.codec import LONGEST_S, Patterns
    from sfumato.data.oneshots import read_sound, trimmed

    rate = 44100
    sounds = [trimmed(read_sound(data / row.path, 1, rate, LONGEST_S)) for row in rows]
    laid = Patterns([sound for sound in sounds if sound is not None], rate, round(seconds * rate))
    return [(f"pattern {number}", laid.item(seed, number)[0], rate) for number in range(40)]


def through(player: Any, audio: Array, keep: int | None = None) -> Array:
    """Audio encoded and decoded as one block, aligned with the input; only `keep` principal directions."""
    from sfumato.player import axes

    hop, delay = player.hop_length, player.latency(player.hop_length)
    n = -(-(len(audio) + delay) // hop) * hop
    padded = np.pad(audio, (0, n - len(audio)))[None, None].astype(np.float32)

    def alter(latent: Array) -> Array:
        return axes.latent(player.weights, axes.coordinates(player.weights, latent)[:, :keep])

    made, _ = player.step(padded, player.init(1, block=n), alter if keep is not None else None)
    result: Array = made[0, 0, delay : delay + len(audio)]
    return result


def opus(audio: Array, sample_rate: int, kbps: int) -> tuple[Array, float]:
    """Audio through Opus at a variable rate of about `kbps`, aligned; and the rate it really took, kbit/s."""
    import av
    import soxr

    at48 = soxr.resample(audio, sample_rate, 48000).astype(np.float32)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=48000, options={"vbr": "on", "application": "audio"})
        stream.layout, stream.bit_rate = "mono", kbps * 1000
        frame = av.AudioFrame.from_ndarray(at48[None], format="flt", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    size = sum(len(packet) for packet in packets(buffer))
    buffer.seek(0)
    with av.open(buffer) as container:
        back = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])
    decoded = soxr.resample(back[: len(at48)], 48000, sample_rate).astype(np.float32)
    decoded = np.pad(decoded, (0, max(0, len(audio) - len(decoded))))[: len(audio)]
    return decoded, 8 * size / len(audio) * sample_rate / 1000


def packets(buffer: io.BytesIO) -> list[bytes]:
    """The packets of an Ogg file, without its container."""
    import av

    buffer.seek(0)
    with av.open(buffer) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def score(truth: Array, made: Array, sample_rate: int) -> dict[str, float]:
    """Every metric of one excerpt."""
    import torch

    from sfumato.metrics.mel_distance import mel_distance
    from sfumato.metrics.multiscale_spectral import multiscale_spectral
    from sfumato.metrics.si_sdr import si_sdr_db
    from sfumato.metrics.zimtohrli import zimtohrli_distance

    pair = [torch.from_numpy(np.ascontiguousarray(x, np.float32)) for x in (truth, made)]
    whole = (0, len(truth))
    return {
        "spectral": float(multiscale_spectral(pair[0][None, None], pair[1][None, None])),
        "mel": mel_distance(pair[0], pair[1], sample_rate),
        "si_sdr": si_sdr_db(truth, made),
        "zimtohrli": zimtohrli_distance(truth[None], made[None], whole, sample_rate),
    }


def ways_of(model: Any, first: Any, audio: Array, rate: int) -> dict[str, tuple[Array, float | None]]:
    """Name of each way of coding -> audio after it, and kbit/s where they are known."""
    from sfumato.player import axes

    frames = rate / model.hop_length
    ways: dict[str, tuple[Array, float | None]] = {"RAVE": (through(model, audio), None)}
    if first is not None:
        ways["RAVE before phase two"] = (through(first, audio), None)
    for fidelity in FIDELITIES:
        kept = axes.keep(model.weights, fidelity).dims
        name = f"RAVE, fidelity {fidelity:g}: {kept} numbers, {kept * frames:.0f} a second"
        ways[name] = (through(model, audio, kept), None)
    for kbps in OPUS_KBPS:
        ways[f"Opus, {kbps} kbit/s"] = opus(audio, rate, kbps)
    return ways


def sets_of(options: argparse.Namespace) -> list[tuple[str, Array, int]]:
    """What the distances of sets are measured on."""
    if options.patterns:
        return excerpts(options.data, SECONDS, options.seed + 1, options.limit, patterns=True)
    return excerpts(options.data, 30.0, options.seed, options.limit, every=True)


def rebuild(options: argparse.Namespace) -> None:
    """Measure every way of coding: on ten seconds of every test work, and as a set on 30 s of every recording."""
    from sfumato import player
    from sfumato.metrics.embedders import embedder
    from sfumato.metrics.frechet import frechet_distance, gaussian
    from sfumato.metrics.kernel_distance import kernel_distance

    model = player.load(options.model)
    first = player.load(options.phase_one) if options.phase_one else None
    rows, embed = [], embedder()
    for work, audio, rate in excerpts(options.data, SECONDS, options.seed, options.limit, patterns=options.patterns):
        if rate != model.recipe.sample_rate:
            raise SystemExit(f"{work} is at {rate} Hz, the model at {model.recipe.sample_rate} Hz.")
        for way, (made, kbps) in ways_of(model, first, audio, rate).items():
            rows.append({"work": work, "way": way, "kbps": kbps, **score(audio, made, rate)})
        print(work, flush=True)
    sets: dict[str, list[Array]] = {}
    for recording, audio, rate in sets_of(options):
        for way, made in {"": (audio, None), **ways_of(model, first, audio, rate)}.items():
            sets.setdefault(way, []).append(embed(made[0], rate))
        print(recording, flush=True)
    truth, found = np.concatenate(sets.pop("")), {way: np.concatenate(parts) for way, parts in sets.items()}
    target = gaussian(truth)
    distances = {
        way: {"frechet": frechet_distance(*gaussian(e), *target), "kernel": kernel_distance(e, truth)}
        for way, e in found.items()
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "rebuild.json").write_text(
        json.dumps({"rows": rows, "sets": distances, "embeddings": len(truth)}, indent=1)
    )


def transfer(options: argparse.Namespace) -> None:
    """Send other music through the model: how near it comes to the model's domain, what of pitch and loudness stays."""
    import librosa

    from sfumato import player
    from sfumato.metrics.embedders import embedder
    from sfumato.metrics.frechet import frechet_distance, gaussian

    model, embed = player.load(options.model), embedder()
    rate = model.recipe.sample_rate
    domain = by_turns(options, embed)
    rows, before, after = [], [], []
    for work, audio, own_rate in excerpts(options.of, 30.0, options.seed, options.limit):
        if own_rate != rate:
            continue
        made = through(model, audio)
        chroma = [librosa.feature.chroma_stft(y=x, sr=rate, n_fft=4096, hop_length=2048) for x in (audio, made)]
        shuffled = np.roll(chroma[0], chroma[0].shape[1] // 2, axis=1)
        levels = [librosa.feature.rms(y=x, frame_length=4096, hop_length=2048)[0] for x in (audio, made)]
        loudness = [20 * np.log10(level + 1e-4) for level in levels]
        rows.append(
            {
                "work": work,
                "chroma": cosine(chroma[0], chroma[1]),
                "chroma of another place": cosine(shuffled, chroma[1]),
                "loudness": float(np.corrcoef(*loudness)[0, 1]),
            }
        )
        before.append(embed(audio, rate))
        after.append(embed(made, rate))
        print(work, flush=True)
    sets = [*domain, np.concatenate(before), np.concatenate(after)]
    n = min(map(len, sets))  # the distance depends on the sets' size, so all have one
    target, *others = [gaussian(one[np.linspace(0, len(one) - 1, n).round().astype(int)]) for one in sets]
    names = ("other works of the domain", "source", "transferred")
    distances = {name: frechet_distance(*other, *target) for name, other in zip(names, others, strict=True)}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "transfer.json").write_text(json.dumps({"rows": rows, "frechet": distances, "n": n}, indent=1))


def by_turns(options: argparse.Namespace, embed: Any) -> list[Array]:
    """Embeddings of the domain's recordings in two sets, work by work: none is in both."""
    from sfumato.data import manifest

    work_of = {row.recording: row.work for row in manifest.read(options.data / "manifest.jsonl")}
    found = excerpts(options.data, 30.0, options.seed, options.limit, every=True)
    works = sorted({work_of[name] for name, _, _ in found})
    sets: tuple[list[Array], list[Array]] = ([], [])
    for name, audio, rate in found:
        sets[works.index(work_of[name]) % 2].append(embed(audio, rate))
    return [np.concatenate(one) for one in sets]


def cosine(a: Array, b: Array) -> float:
    """Mean cosine of the columns of two matrices."""
    norms = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    return float(np.mean((a * b).sum(axis=0)[norms > 0] / norms[norms > 0]))


def speed(options: argparse.Namespace) -> None:
    """Real-time factors of streaming encode + decode, one thread; the filter bank's quality and delay."""
    from rave_speed import speed as run

    run(options.model, options.rate, options.seconds)


def rebuild_table(out: Path) -> None:
    """Print what `rebuild` found."""
    from sfumato.metrics.bootstrap import bootstrap

    rebuilt = json.loads((out / "rebuild.json").read_text())
    rows = rebuilt["rows"]
    ways = list(dict.fromkeys(row["way"] for row in rows))
    n = len({row["work"] for row in rows})
    print(f"n = {n} works, {SECONDS:g} s of each; mean [95 % bootstrap over works]\n")
    print(f"| way | kbit/s | {' | '.join(METRICS.values())} | Fréchet | kernel |\n|{'---|' * (len(METRICS) + 4)}")
    for way in ways:
        own = [row for row in rows if row["way"] == way]
        cells = ["–" if own[0]["kbps"] is None else f"{np.mean([row['kbps'] for row in own]):.2f}"]
        for metric in METRICS:
            got = bootstrap(np.array([row[metric] for row in own]), [row["work"] for row in own])
            places = 4 if metric == "zimtohrli" else 2
            cells.append(f"{got.value:.{places}f} [{got.lower:.{places}f}, {got.upper:.{places}f}]")
        cells += [f"{rebuilt['sets'][way][name]:.2f}" for name in ("frechet", "kernel")]
        print(f"| {way} | {' | '.join(cells)} |")
    print(f"\nFréchet and kernel distance: {rebuilt['embeddings']} musicnn embeddings of each way.")


def transfer_table(out: Path) -> None:
    """Print what `transfer` found."""
    from sfumato.metrics.bootstrap import bootstrap

    found = json.loads((out / "transfer.json").read_text())
    print(f"\nTransfer of timbre, n = {len(found['rows'])} recordings, {found['n']} embeddings each:\n")
    print("| what | value |\n|---|---|")
    for name, value in found["frechet"].items():
        print(f"| Fréchet distance to the domain (musicnn): {name} | {value:.2f} |")
    for key in ("chroma", "chroma of another place", "loudness"):
        rows = found["rows"]
        got = bootstrap(np.array([row[key] for row in rows]), [row["work"] for row in rows])
        kind = "correlation" if key == "loudness" else "similarity"
        print(f"| {key}, {kind} | {got.value:.2f} [{got.lower:.2f}, {got.upper:.2f}] |")


def table(options: argparse.Namespace) -> None:
    """Print what was measured."""
    from rave_rates import table as rates_table

    if (options.out / "rebuild.json").exists():
        rebuild_table(options.out)
    if (options.out / "transfer.json").exists():
        transfer_table(options.out)
    rates_table(options.out)


def rates(options: argparse.Namespace) -> None:
    """Rate and distortion of `.sfz` files beside Opus."""
    from rave_rates import rates as run

    run(options)


def picture(options: argparse.Namespace) -> None:
    """Draw what `rates` found."""
    from rave_rates import picture as draw

    draw(options)


PARTS = {
    "speed": speed,
    "rebuild": rebuild,
    "transfer": transfer,
    "rates": rates,
    "table": table,
    "picture": picture,
}


def main() -> None:
    """Run a subcommand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=PARTS)
    parser.add_argument("--data", type=Path, help="folder of a built manifest, of the model's domain")
    parser.add_argument("--of", type=Path, help="folder of a built manifest of other music, for transfer")
    parser.add_argument("--model", default="rave-piano")
    parser.add_argument("--phase-one", help="the same training's model before its second phase")
    parser.add_argument("--out", type=Path, default=Path("runs/rave"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=40, help="most works")
    parser.add_argument("--patterns", action="store_true", help="lay the short sounds of --data out as in training")
    parser.add_argument("--rate", type=int, default=48000, help="sample rate that speed is stated for")
    parser.add_argument("--seconds", type=float, default=5.0, help="wall time of each row of speed")
    options = parser.parse_args()
    PARTS[options.what](options)


if __name__ == "__main__":
    main()
