"""Fingerprints find planted passages, in another encoding and at another place, and nothing else."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from sfumato.data import leaks
from sfumato.data.fingerprint import fingerprint, matches
from sfumato.data.manifest import Row, sha256_of
from sfumato.errors import InputError

RATE = 22050


def music(seed: int, seconds: float) -> NDArray[np.float64]:
    """Four random notes a second, each of five harmonics that decay: (1, samples)."""
    random = np.random.default_rng(seed)
    n = int(seconds * RATE)
    out = np.zeros(n + 2 * RATE)
    t = np.arange(RATE) / RATE
    for start in range(0, n, RATE // 4):
        pitch = 110 * 2 ** (random.integers(0, 36) / 12)
        note = sum(np.sin(2 * np.pi * pitch * h * t) / h for h in range(1, 6)) * np.exp(-3 * t)
        out[start : start + RATE] += 0.1 * note
    return out[None, :n]


def as_vorbis(audio: NDArray[np.float64]) -> NDArray[np.float64]:
    file = io.BytesIO()
    soundfile.write(file, audio.T, RATE, format="OGG", subtype="VORBIS")
    return soundfile.read(io.BytesIO(file.getvalue()), always_2d=True)[0].T


def test_a_passage_is_found_in_another_encoding_level_and_place() -> None:
    passage = music(1, 12)
    first = np.concatenate([music(2, 7), passage], axis=1)
    second = 0.3 * as_vorbis(np.concatenate([passage, music(3, 9)], axis=1))
    found = matches(
        {"a": fingerprint(first, RATE), "b": fingerprint(second, RATE), "c": fingerprint(music(4, 20), RATE)}
    )
    assert [(match.first, match.second) for match in found] == [("a", "b")]
    assert found[0].first_s - found[0].second_s == pytest.approx(7, abs=0.06)
    assert 9 < found[0].seconds < 15
    assert found[0].error < 0.2


def test_different_music_silence_and_hum_do_not_match() -> None:
    t = np.arange(9 * RATE) / RATE
    prints = {f"m{seed}": fingerprint(music(seed, 12), RATE) for seed in range(4)}
    prints |= {
        "zeros": fingerprint(np.zeros((1, 12 * RATE)), RATE),
        "zeros2": fingerprint(np.zeros((1, 9 * RATE)), RATE),
    }
    prints["hum"] = fingerprint(np.sin(2 * np.pi * 50 * t)[None], RATE)
    assert matches(prints) == []
    assert matches({}) == []
    assert fingerprint(np.zeros((2, 100)), RATE).size == 0


def rows(tmp_path: Path, audio: dict[str, NDArray[np.float64]], works: dict[str, str] | None = None) -> list[Row]:
    made = []
    for name, x in audio.items():
        soundfile.write(tmp_path / f"{name}.wav", x.T, RATE)
        split = name.split("_")[0]
        made.append(
            Row.model_validate(
                {
                    "source": "s",
                    "recording": name,
                    "work": (works or {}).get(name, f"s/{name}"),
                    "path": f"{name}.wav",
                    "sha256": sha256_of(tmp_path / f"{name}.wav"),
                    "seconds": x.shape[1] / RATE,
                    "sample_rate": RATE,
                    "channels": 1,
                    "licence": "CC0",
                    "split": split,
                }
            )
        )
    return made


def test_planted_leaks_fail_and_clean_splits_pass(tmp_path: Path) -> None:
    clean = {"train_a": music(1, 8), "train_b": music(2, 8), "test_c": music(3, 8)}
    leaks.require_none(rows(tmp_path, clean), tmp_path)
    within = rows(tmp_path, clean | {"train_copy": clean["train_a"]})
    leaks.require_none(within, tmp_path)

    copied = rows(tmp_path, clean | {"test_copy": clean["train_a"]})
    assert [(leak.second, leak.reason) for leak in leaks.find(copied, tmp_path)] == [("s/test_copy", "same file")]
    assert len(leaks.find(copied, tmp_path, listen=False)) == 1

    louder = rows(tmp_path, clean | {"calibration_loud": as_vorbis(1.4 * clean["train_a"])})
    assert leaks.find(louder, tmp_path, listen=False) == []
    with pytest.raises(InputError, match=r"1 leaks between splits: s/train_a \(train\) and s/calibration_loud"):
        leaks.require_none(louder, tmp_path)

    version = rows(tmp_path, clean | {"test_fast": music(9, 8)}, {"test_fast": "s/train_a"})
    with pytest.raises(InputError, match="same work"):
        leaks.require_none(version, tmp_path, listen=False)


def test_a_missing_recording_is_said(tmp_path: Path) -> None:
    made = rows(tmp_path, {"train_a": music(1, 6)})
    (tmp_path / "train_a.wav").unlink()
    with pytest.raises(InputError, match="Build s again"):
        leaks.find(made, tmp_path)
