"""Every command and snippet of the documents runs, and their tables say what the code says."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import soundfile as sf

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    "README.md", "docs/repair.md", "docs/uasrm.md", "docs/dance.md", "docs/riffusion.md", "docs/everyday.md",
    "docs/make-an-audio.md", "docs/noise2music.md", "docs/architecture.md",
)  # fmt: skip
DEMO = ROOT / "examples" / "only_300_stood_damaged.flac"

# Reaches for a package archive, so only its words are checked.
NEEDS_NETWORK = {"sfumato data build warzone2100 --out data"}

NEEDS_CHECKPOINT = {
    "sfumato models convert maestro_22k_8s-750000.pt cqtdiff": "maestro_22k_8s-750000.pt",
    "sfumato repair piano.flac repaired.flac --gap 12.30:12.55 --method cqtdiff --model cqtdiff "
    "--draws 1": "piano.flac",
    "sfumato models convert glitch.ckpt glitch --system dance_diffusion --set sample_rate=48000 "
    "--set n_samples=65536": "glitch.ckpt",
    "sfumato models convert pipeline maestro --system dance_diffusion": "pipeline",
    "sfumato generate out.wav --model glitch --sampler iplms --grid crash --steps 100": "glitch",
}
"""Commands about a published checkpoint, which isn't here, and what they miss: all else about them is right."""

BRIEF = {"dance": "steps=1 batch_size=1 validation_batches=1 warmup_steps=1"}
"""What is set besides, so that a training of a full-sized preset takes seconds."""


NEEDS_FIRST = {
    "sfumato decode concert.sfz back.wav": "sfumato encode concert.flac concert.sfz --model rave-piano --fidelity 0.9",
    "sfumato image image-to-audio concert.png heard.wav": "sfumato image audio-to-image concert.flac concert.png",
}
"""Commands that go on from an earlier one."""


def blocks(language: str) -> list[tuple[str, str]]:
    """(document, text) of each fenced block in `language`."""
    found = []
    for name in DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        found += [(name, block) for block in re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)]
    return found


def commands() -> list[str]:
    """Each command of the documents once, in order."""
    lines = [line for _, block in blocks("sh") for line in block.splitlines() if line.strip()]
    return list(dict.fromkeys(lines))


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what the documents speak of: a concert.flac of six seconds, damaged at 1.00 to 1.06 and 3.80 to
    4.10 s; a kick and a snare, and the same two in my_sounds; a photo.jpg."""
    audio, rate = sf.read(DEMO, start=round(4.2 * 44100), stop=round(10.2 * 44100), dtype="int16")
    sf.write(tmp_path / "concert.flac", audio, rate)
    (tmp_path / "my_sounds").mkdir()
    time = np.arange(9000) / 44100
    for name, sound in (
        ("kick.wav", 0.6 * np.sin(400 * time)),
        ("snare.wav", np.random.default_rng(0).normal(0, 0.2, len(time))),
    ):
        for path in (tmp_path / name, tmp_path / "my_sounds" / name):
            sf.write(path, sound * np.exp(-20 * time), 44100)
    shutil.copy(Path(sklearn.datasets.__file__).parent / "images" / "flower.jpg", tmp_path / "photo.jpg")
    return tmp_path


def music(folder: Path) -> None:
    """A data folder as `sfumato data build` leaves it, of one recording per split."""
    from sfumato.data import loaders, manifest

    noise = np.random.default_rng(0).standard_normal((2, 10 * 44100))
    for split in ("train", "validation"):
        (folder / split).mkdir(parents=True)
        sf.write(folder / split / f"{split}.wav", 0.1 * noise.T, 44100)
    rows = loaders.folder(folder, "mine", licence="CC0-1.0")
    named = [row.model_copy(update={"split": Path(row.path).stem}) for row in rows]
    manifest.write(folder / "manifest.jsonl", named)


@pytest.mark.parametrize("command", commands())
def test_every_command_runs(command: str, folder: Path) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        recipe = run(["make", "--dry-run", "--always-make", *words[1:]], ROOT)
        assert recipe.returncode == 0, recipe.stderr
        assert "sfumato" in recipe.stdout or "pytest" in recipe.stdout
        return
    if command in NEEDS_NETWORK:
        from sfumato.data.sources import SOURCES

        usage = run([*words[:3], "--help"], folder)
        assert usage.returncode == 0 and "--out" in usage.stdout and words[3] in SOURCES
        return
    if command in NEEDS_CHECKPOINT:
        refused = run(words, folder)
        assert refused.returncode == 3 and NEEDS_CHECKPOINT[command] in refused.stderr
        return
    if words[:2] == ["sfumato", "train"]:
        music(folder / "data")
        words += [word for brief in BRIEF.get(words[2], "").split() for word in ("--set", f"train.{brief}")]
    if command in NEEDS_FIRST:
        assert NEEDS_FIRST[command] in commands()
        run(shlex.split(NEEDS_FIRST[command]), folder)
    done = run(words, folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and "Traceback" not in done.stderr


def test_what_needs_a_network_is_in_the_documents() -> None:
    assert set(commands()) >= NEEDS_NETWORK | set(NEEDS_CHECKPOINT)


@pytest.mark.parametrize(
    ("name", "code"), [pytest.param(n, c, id=f"{n}-{i}") for i, (n, c) in enumerate(blocks("python"))]
)
def test_every_snippet_runs(name: str, code: str, folder: Path) -> None:
    done = run([sys.executable, "-W", "error", "-c", code], folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_demo_finds_its_three_gaps(tmp_path: Path) -> None:
    recipe = run(["make", "--dry-run", "--always-make", "demo"], ROOT).stdout
    line = next(line for line in recipe.splitlines() if "sfumato repair" in line)
    words = shlex.split(line)
    assert (ROOT / words[2]).is_file()
    done = run(["sfumato", "repair", str(ROOT / words[2]), "out.flac", *words[4:], "--json"], tmp_path)
    assert done.returncode == 0, done.stderr
    import json

    gaps = json.loads(done.stdout)["gaps"]
    found = [(gap["start"], gap["stop"], gap["kind"]) for gap in gaps]
    expected = [(2.400, 2.408, "click"), (5.200, 5.260, "zeros"), (8.000, 8.300, "dropout")]
    assert [kind for *_, kind in found] == [kind for *_, kind in expected]
    assert np.allclose([row[:2] for row in found], [row[:2] for row in expected], atol=0.002)
    damaged, _ = sf.read(DEMO, dtype="int16")
    repaired, rate = sf.read(tmp_path / "out.flac", dtype="int16")
    changed = np.flatnonzero((damaged != repaired).any(axis=1))
    inside = np.zeros(len(damaged), bool)
    for start, stop, _ in found:
        inside[round(start * rate) : round(stop * rate)] = True
    assert len(changed) and inside[changed].all()


def test_the_demo_recording_is_made_by_its_script(tmp_path: Path) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("make_damaged", ROOT / "examples" / "make_damaged.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    clean, rate = sf.read(script.CLEAN, dtype="int16")
    stored, _ = sf.read(script.DAMAGED, dtype="int16")
    assert np.array_equal(script.damage(clean, rate), stored)


def rows(document: str, heading: str) -> list[list[str]]:
    """Cells of the first table under a heading, without its head."""
    text = (ROOT / document).read_text(encoding="utf-8").split(f"## {heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", text, re.M)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


def test_exit_codes_are_those_of_the_errors() -> None:
    from sfumato import errors

    documented = {
        name: int(code)
        for code, text in rows("docs/repair.md", "Exit codes")
        if code.isdigit()
        for name in re.findall(r"`(\w+Error)`", text)
    }
    real = {cls.__name__: cls.exit_code for cls in errors.SfumatoError.__subclasses__()}
    assert documented == real
    assert {code for code, _ in rows("docs/repair.md", "Exit codes")} >= {"0", "1", "2", "129, 130, 143"}


def test_options_are_those_of_the_settings() -> None:
    from sfumato.tasks.repair import Settings

    documented = {flag.strip("`"): default.strip("`") for flag, default, _ in rows("docs/repair.md", "Options")}
    for name, field in Settings.model_fields.items():
        assert documented[f"--{name}"] == str(field.default)
    usage = run(["sfumato", "repair", "--help"], ROOT).stdout
    assert set(re.findall(r"--[a-z-]+", usage)) - {"--help"} == {flag.split()[0] for flag in documented}


def test_the_level_that_the_readme_asks_for_is_promised(folder: Path) -> None:
    import json

    (command,) = (line for line in commands() if "--level" in line)
    done = run([*shlex.split(command), "--json"], folder)
    assert done.returncode == 0, done.stderr
    (gap,) = json.loads(done.stdout)["gaps"]
    assert gap["interval"]["level"] == gap["quality"]["level"] == 0.9 and "refused" not in gap
    assert (folder / gap["interval"]["file"]).is_file()


def test_methods_are_those_of_the_settings() -> None:
    from typing import get_args

    from sfumato.tasks.repair import Method

    assert {name.strip("`") for name, _ in rows("docs/repair.md", "Methods")} == set(get_args(Method))


def test_the_record_is_as_documented(folder: Path) -> None:
    import json

    done = run(["sfumato", "repair", "concert.flac", "out.flac", "--method", "ar"], folder)
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "out.flac.json").read_text(encoding="utf-8"))
    table = rows("docs/repair.md", "The record")
    assert set(record) == {name for cell, _ in table for name in re.findall(r"`(\w+)`", cell)}
    meaning = {cell.strip("`"): set(re.findall(r"`(\w+)`", text)) for cell, text in table}
    assert record["gaps"] and set(record["gaps"][0]) <= meaning["gaps"]
    assert set(record["timings_s"]) == meaning["timings_s"]
    assert set(record["provenance"]) <= meaning["provenance"] >= set(record["provenance"]["model"] or {"name"})


def test_links_lead_somewhere() -> None:
    for name in (*DOCUMENTS, "docs/data.md", "docs/conffusion.md", "examples/README.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)", text):
            if not target.startswith("http"):
                assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"
