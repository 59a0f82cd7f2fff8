"""Manifests survive a round trip, refuse what is malformed, and split by the name of the piece alone."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.data import manifest
from sfumato.data.manifest import SHARES, SPLITS, Row, split_of
from sfumato.errors import InputError, ResourceError

TEXT = st.text(min_size=1, max_size=12)
ROWS = st.builds(
    Row,
    source=TEXT,
    recording=TEXT,
    work=TEXT,
    path=st.just("a/b.wav"),
    sha256=st.just("ab" * 32),
    seconds=st.floats(0.01, 1e5),
    sample_rate=st.integers(1, 10**6),
    channels=st.integers(1, 64),
    licence=TEXT,
    attribution=st.text(max_size=9),
    labels=st.dictionaries(TEXT, st.text(max_size=9), max_size=3),
    split=st.sampled_from(SPLITS),
    rendered=st.booleans(),
)


def example(**changes: object) -> Row:
    base: dict[str, object] = dict(
        source="s", recording="r", work="s/r", path="s/r.wav", sha256="0" * 64, seconds=60.0, sample_rate=44100
    )
    return Row.model_validate(base | {"channels": 2, "licence": "CC0", "split": "train"} | changes)


@settings(max_examples=25)
@given(rows=st.lists(ROWS, max_size=3, unique_by=lambda row: (row.source, row.recording)))
def test_written_and_appended_rows_are_read_back(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("m")
    manifest.write(folder / "all.jsonl", rows)
    assert manifest.read(folder / "all.jsonl") == rows
    (folder / "one.jsonl").touch()
    for row in rows:
        manifest.append(folder / "one.jsonl", row)
    assert (folder / "one.jsonl").read_bytes() == (folder / "all.jsonl").read_bytes()
    assert {path.name for path in folder.iterdir()} == {"all.jsonl", "one.jsonl"}


def test_line_separators_inside_a_row_do_not_end_it(tmp_path: Path) -> None:
    odd = example(attribution="a\x85b\u2028c\nd")
    manifest.write(tmp_path / "manifest.jsonl", [odd])
    assert manifest.read(tmp_path / "manifest.jsonl") == [odd]


def test_a_failed_write_keeps_the_old_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "manifest.jsonl"
    manifest.write(path, [example()])

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceError, match="No space left"):
        manifest.write(path, [example(recording="other")])
    assert [row.recording for row in manifest.read(path)] == ["r"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not a manifest row"),
        ("[]", "line 2 is not a manifest row"),
        (json.dumps(example().model_dump() | {"split": "dev"}), "split"),
        (json.dumps(example().model_dump() | {"surprise": 1}), "surprise"),
        (json.dumps(example().model_dump() | {"recording": "x", "path": "../x.wav"}), "leaves the manifest's folder"),
        (json.dumps(example().model_dump() | {"recording": "x", "path": "/x.wav"}), "leaves the manifest's folder"),
        (example().model_dump_json(), "occurs twice"),
    ],
)
def test_malformed_rows_are_refused_with_their_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "manifest.jsonl"
    path.write_text(example().model_dump_json() + "\n" + line + "\n")
    with pytest.raises(InputError, match=message):
        manifest.read(path)


def test_a_missing_manifest_says_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="sfumato data build"):
        manifest.read(tmp_path / "none.jsonl")


def test_shares_of_the_splits() -> None:
    splits = [split_of(f"s/{i}") for i in range(5000)]
    for split in SPLITS:
        assert splits.count(split) / 5000 == pytest.approx(SHARES[split], abs=0.025)
    assert sum(SHARES.values()) == pytest.approx(1)


def test_splits_are_pinned() -> None:
    """Models were trained on these splits: a change would leak old test recordings into training."""
    pinned = {
        "widelands/ingame_14": "validation",
        "gamine/BachJSBrandenburgConcertNo2inFMajorBWV1047mvmt1": "calibration",
    }
    assert {work: split_of(work) for work in pinned} == pinned


def test_select_and_minutes() -> None:
    rows = [example(), example(recording="t", split="test"), example(recording="m", rendered=True)]
    assert [row.recording for row in manifest.select(rows, "train")] == ["r", "m"]
    assert [row.recording for row in manifest.select(rows, "train", rendered=False)] == ["r"]
    assert [row.recording for row in manifest.select(rows, "train", rendered=True)] == ["m"]
    assert manifest.minutes(rows)["s"]["train"] == (2, 2.0)
    assert manifest.minutes(rows)["s"]["calibration"] == (0, 0.0)
