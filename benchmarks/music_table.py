"""Print what `benchmarks/music.py` and `benchmarks/everyday.py` measured, as Markdown.

    python benchmarks/music_table.py runs/music
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


def table(folder: Path) -> None:
    """Print what was measured as Markdown."""
    found = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}

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
    if "stages" in found:
        own = found["stages"]
        print(f"\n{own['n']} held-out prompts\n\n| drawn by | kernel distance | R@5, text-audio | R@5, musicnn |")
        print("|---|---|---|---|")
        for name, row in own["rows"].items():
            judged = " | ".join(span(row[judge]["R@5"]) for judge in ("text-audio", "musicnn tags"))
            print(f"| {name} | {span(row['kernel'])} | {judged} |")
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
        print(f"\nSpearman of strength and change, {len(rho)} sounds: mean {rho.mean():.3f}, ", end="")
        print(f"least {rho.min():.3f}, {(rho >= 0.95).sum()} at .95 or more")
    if "kept" in found:
        print("\n| mask | median, dB | worst, dB | above -60 dB | worst, dB to the change |\n|---|---|---|---|---|")
        for mask, rows in found["kept"].items():
            own, change = np.array(rows).T
            print(f"| {mask} | {np.median(own):.0f} | {own.max():.0f} | {(own > -60).sum()} of {len(own)} ", end="")
            print(f"| {change.max():.0f} |")
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
    table(Path(sys.argv[1]))
