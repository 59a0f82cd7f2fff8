"""The parts of Make-An-Audio alone: what the autoencoder keeps of levels, and what the vocoder makes of them.

    python benchmarks/mel.py --data DIR --out runs/mel [--vae mel-vae] [--vocoder mel-vocoder]

On held-out recordings (split `test` of DIR, docs/data.md), 5 s each. Errors are mean absolute differences of log-mel
levels, dB, between a sound and the recording whose picture it was made of; the kernel distance is between features of
musicnn. Beside the vocoder stand Griffin and Lim's iterations of the same pictures (librosa), and both are given, too,
what the autoencoder leaves of them. Intervals are 95 % bootstrap intervals over recordings.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import librosa
import numpy as np
import torch

from music_sets import RATE, clip, embedded, everyday_sounds, kernel_with_interval, shown, studies
from sfumato.diffusion import noise
from sfumato.model import load
from sfumato.signal.complex_spectrogram import LEVEL
from sfumato.signal.log_mel import CENTRE_DB, HOP, N_FFT, SCALE_DB, log_mel
from sfumato.systems import mel_vocoder
from sfumato.tasks.vary import resampled

OWN = 16000
STEPS = (2, 4, 8, 16)
ROUGHNESS = (0.0, 0.2, 0.4)
SEEN = 8
"""The first so many studies and everyday sounds were looked at while `log_mel.levelled` was made; they are left out."""


def griffin_lim(mel: torch.Tensor, n: int) -> np.ndarray:
    """The sound of a picture by librosa: non-negative least squares to a linear spectrum, then 32 iterations."""
    power = 10 ** ((mel[0].double().numpy() * SCALE_DB + CENTRE_DB) / 10)
    shape = {"sr": OWN, "n_fft": N_FFT, "hop_length": HOP, "pad_mode": "constant"}
    return librosa.feature.inverse.mel_to_audio(power, **shape)[:n]


def main() -> None:
    """Measure, write JSON, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vae", default="mel-vae")
    parser.add_argument("--vocoder", default="mel-vocoder")
    parser.add_argument("--count", type=int, default=40, help="recordings: half of them studies, half everyday sounds")
    options = parser.parse_args()
    vae, vocoder = load(options.vae).network, load(options.vocoder)
    half = options.count // 2
    sounds = [clip(options, row) for row in studies(options, "test")[SEEN : SEEN + half]]
    sounds += [audio for _, audio in everyday_sounds(options, "test", SEEN + half)[SEEN:]]
    originals, mels, kept = [], [], []
    for audio in sounds:
        own = resampled(audio[None], RATE, OWN)
        own *= LEVEL / np.sqrt(np.mean(own**2))
        originals.append(own[0])
        mels.append(log_mel(torch.from_numpy(own).float(), OWN))
        with torch.no_grad():
            kept.append(vae.decode(vae.encode(mels[-1]))[..., : mels[-1].shape[2]])
    reference = embedded([resampled(one[None], OWN, RATE)[0] for one in originals])
    rows = {}

    def measure(name: str, made: list[np.ndarray], seconds: float) -> None:
        found = [log_mel(torch.from_numpy(x)[None].float(), OWN) for x in made]
        error = [float((a - b).abs().mean()) * SCALE_DB for a, b in zip(found, mels, strict=True)]
        far = kernel_with_interval(embedded([resampled(x[None], OWN, RATE)[0] for x in made]), reference)
        rate = sum(map(len, made)) / OWN / seconds
        rows[name] = {"error_db": shown(error), "kernel": far, "seconds per second": rate}
        print(name, rows[name], flush=True)

    def vocoded(pictures: list[torch.Tensor], steps: int, roughness: float) -> list[np.ndarray]:
        made = []
        for i, (mel, own) in enumerate(zip(pictures, originals, strict=True)):
            t = mel_vocoder.frames_of(len(own), vocoder.config)
            stream = noise.scroll((2, vocoder.config.hop), 0, t, seed=0, item=i)
            with torch.autocast("cpu", torch.bfloat16):
                x = mel_vocoder.vocode(vocoder.network, vocoder.config, mel, len(own), stream, steps, roughness)
            made.append(x[0].double().numpy())
        return made

    error = [float((a - b).abs().mean()) * SCALE_DB for a, b in zip(kept, mels, strict=True)]
    rows["the autoencoder's pictures"] = {"error_db": shown(error)}
    for name, pictures in (("recordings' pictures", mels), ("the autoencoder's", kept)):
        began = time.perf_counter()
        made = [griffin_lim(mel, len(own)) for mel, own in zip(pictures, originals, strict=True)]
        measure(f"{name}, Griffin-Lim", made, time.perf_counter() - began)
        for steps, roughness in [(steps, ROUGHNESS[0]) for steps in STEPS] + [(8, r) for r in ROUGHNESS[1:]]:
            began = time.perf_counter()
            made = vocoded(pictures, steps, roughness)
            measure(f"{name}, {steps} steps, roughness {roughness:g}", made, time.perf_counter() - began)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "mel.json").write_text(json.dumps({"n": len(sounds), "rows": rows}, indent=1))
    print(f"\n{len(sounds)} held-out recordings\n")
    print("| pictures, way to sound | error, dB | kernel distance | × real time |\n|---|---|---|---|")
    for name, row in rows.items():
        spans = [row.get(key) for key in ("error_db", "kernel")]
        cells = [f"{span[0]:.2f} [{span[1]:.2f}, {span[2]:.2f}]" if span else "" for span in spans]
        speed = f"{row['seconds per second']:.1f}" if "seconds per second" in row else ""
        print(f"| {name} | {cells[0]} | {cells[1]} | {speed} |")


if __name__ == "__main__":
    main()
