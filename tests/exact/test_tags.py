"""Tags: the bias that is taken off, the gate, words said once, and tags that musicnn really hears."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from sfumato.data import tags
from sfumato.data.manifest import Row
from sfumato.errors import InputError


def table(**heard: list[float]) -> np.ndarray:
    n = max(map(len, heard.values()))
    p = np.full((n, len(tags.HEARD)), 0.01)
    for word, values in heard.items():
        p[: len(values), tags.HEARD.index(word)] = values
    return p


def test_what_is_heard_in_everything_says_less() -> None:
    p = table(techno=[0.8, 0.8, 0.8], piano=[0.6, 0.01, 0.01], harp=[0.01, 0.3, 0.2])
    assert tags.debiased(p, gate=0.25, top=2) == [["piano", "techno"], ["harp", "techno"], ["techno"]]
    assert tags.debiased(p, gate=0.25, top=2, strength=0) == [["techno", "piano"], ["techno", "harp"], ["techno"]]
    assert tags.debiased(p, gate=0.9) == [[], [], []] and tags.debiased(p, gate=0.25, top=1)[0] == ["piano"]


def test_the_formula() -> None:
    p = np.random.default_rng(0).uniform(0.05, 0.95, (6, 50))
    logit = np.log(p / (1 - p))
    for i, own in enumerate(tags.debiased(p, gate=0.3, top=50, strength=0.7)):
        score = {t: logit[i, t] - 0.7 * np.mean(logit[:, t]) for t in range(50) if p[i, t] >= 0.3 and tags.HEARD[t]}
        words = [tags.HEARD[t] for t in sorted(score, key=lambda t: -score[t])]
        assert own == list(dict.fromkeys(words)) and "" not in own


@pytest.mark.parametrize("p", [np.zeros((2, 49)), np.full((1, 50), 1.5), np.full((1, 50), np.nan), np.zeros(50)])
def test_impossible_probabilities_are_refused(p: np.ndarray) -> None:
    with pytest.raises(InputError, match="Probabilities of shape"):
        tags.debiased(p)
    with pytest.raises(InputError, match="gate"):
        tags.debiased(np.zeros((1, 50)), gate=2)


def test_excerpts_are_spread_over_a_recording(tmp_path: Path) -> None:
    rate = 8000
    soundfile.write(tmp_path / "a.wav", np.repeat(np.linspace(0, 0.9, 60), rate), rate, subtype="FLOAT")
    found = tags._excerpts(tmp_path / "a.wav")
    assert len(found) == tags.EXCERPTS and {len(audio) for audio, _ in found} == {round(9.5 * rate)}
    assert found[0][0][0] == 0 and found[-1][0][-1] == pytest.approx(0.9) and {r for _, r in found} == {rate}
    with pytest.raises(InputError, match="can't be read"):
        tags._excerpts(tmp_path / "none.wav")


def test_what_musicnn_hears(tmp_path: Path) -> None:
    pytest.importorskip("musicnn", reason="the package that ships the weights is not installed")
    rate, t = 16000, np.arange(16000 * 6) / 16000
    plucked = sum(np.sin(2 * np.pi * f * t) * np.exp(-3 * (t % 0.5)) for f in (262, 330, 392)) * 0.2
    soundfile.write(tmp_path / "a.wav", plucked, rate)
    row = Row(
        source="s", recording="a", work="s/a", path="a.wav", sha256="0" * 64, seconds=6, sample_rate=rate, channels=1,
        licence="CC0", split="train",
    )  # fmt: skip
    p = tags.probabilities([row], tmp_path)
    assert p.shape == (1, 50) and ((p >= 0) & (p <= 1)).all()
    assert tags.tags_of([row], tmp_path, gate=0.0, top=3).keys() == {"s/a"}
    quietest = [tags.HEARD[i] for i in np.argsort(p[0])[-8:]]
    assert not {"vocals", "metal", "opera"} & set(quietest)
