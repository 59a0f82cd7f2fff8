"""Packages are fetched, verified, unpacked without harm and decoded as their recipe says; made-up packages only."""

import dataclasses
import io
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sfumato.data import build as build_module
from sfumato.data import fetch as fetch_module
from sfumato.data import manifest
from sfumato.data.build import Built, Skipped, build, build_source, standardise
from sfumato.data.fetch import extract, fetch
from sfumato.data.one_shot_labels import CLASSES, one_shot_labels
from sfumato.data.recipe import Source, licence_of, recording_id, split_of, work_of
from sfumato.data.sources import SOURCES, sources
from sfumato.errors import InputError

COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: everyone
License: GPL-2+

Files: data/music/b*.ogg
 data/music/c.ogg
Copyright: someone
License: CC-BY-SA-3.0

Files: data/music/b2.ogg
License: CC0
"""
RECIPE = Source(
    name="tiny",
    package="tiny-data",
    version="1:1.0-1",
    sha256="0" * 64,
    megabytes=1,
    folder="usr/share/games/tiny",
    patterns=("music/*.ogg", "music/*.wav"),
    upstream="data/",
    attribution="Somebody",
    variant="_fast$",
    labels=(("style", "test"),),
    min_seconds=1.0,
)
HAVE_DPKG = shutil.which("dpkg-deb") is not None


def encoded(
    seconds: float, rate: int, channels: int = 2, kind: str = "OGG", level: float = 0.3, hz: float = 441
) -> bytes:
    t = np.arange(int(seconds * rate)) / rate
    file = io.BytesIO()
    audio = np.tile(level * np.sin(2 * np.pi * hz * t)[:, None], channels)
    soundfile.write(file, audio, rate, format=kind, subtype="VORBIS" if kind == "OGG" else "FLOAT")
    return file.getvalue()


FILES = {
    "music/a.ogg": encoded(1.5, 44100),
    "music/a_fast.ogg": encoded(1.2, 48000, hz=500),
    "music/mono.ogg": encoded(1.5, 44100, channels=1, hz=700),
    "music/loud.wav": encoded(1.5, 44100, kind="WAV", level=1.6, hz=900),
    "music/nan.wav": encoded(1.5, 44100, kind="WAV", level=float("nan")),
    "music/short.ogg": encoded(0.5, 44100),
    "music/phone.ogg": encoded(1.5, 8000),
    "music/four.wav": encoded(1.5, 44100, kind="WAV", channels=4),
    "music/broken.ogg": b"OggS nothing",
    "sound/door.ogg": encoded(1.5, 44100),
}


def tree(root: Path) -> Path:
    for name, content in FILES.items():
        path = root / RECIPE.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    doc = root / "usr/share/doc/tiny-data/copyright"
    doc.parent.mkdir(parents=True, exist_ok=True)
    doc.write_text(COPYRIGHT)
    return root


def test_recipes_are_complete() -> None:
    assert [source.name for source in sources()] == list(SOURCES)
    for source in sources():
        assert len(source.sha256) == 64 and source.attribution and source.patterns and source.megabytes > 0
    assert len({source.sha256 for source in sources()}) == len({source.package for source in sources()})
    assert [source.name for source in fetch_module.named(())] == [s.name for s in sources() if s.kind == "music"]
    assert all(source.min_seconds < 0.1 for source in sources() if source.kind == "one-shots")


def test_versions_of_a_piece_share_a_work() -> None:
    def same(name: str, *recordings: str) -> bool:
        return len({work_of(SOURCES[name], recording) for recording in recordings}) == 1

    assert same("supertuxkart", "celtic", "celtic_fast") and same("supertuxkart", "farm", "farm_f")
    assert same("warzone2100", "menu", "aftermath_soundtrack_menu_enhanced")
    assert same("warzone2100", "original_soundtrack_track3", "aftermath_soundtrack_track3_enhanced")
    assert same("ufoai", "Crystan-Battlescape01", "Crystan-Battlescape06") and same("ufoai", "ufo1", "ufo2")
    assert same("0ad", "Taiko_1", "Taiko_2") and same("widelands", "menu", "ingame_14")
    assert not same("widelands", "ingame_01", "ingame_02") and not same("ufoai", "David01", "David02")
    assert recording_id(SOURCES["0ad"], "audio/music/Water's_Edge.ogg") == "Water_s_Edge"
    assert recording_id(SOURCES["warzone2100"], "albums/x/track1.opus") == "x_track1"


def test_the_last_paragraph_that_matches_gives_the_licence() -> None:
    found = [licence_of(RECIPE, f"music/{name}.ogg", COPYRIGHT) for name in ("a", "b", "c", "b2")]
    assert found == ["GPL-2+", "CC-BY-SA-3.0", "CC-BY-SA-3.0", "CC0"]
    own = dataclasses.replace(RECIPE, licences=(("music/a*", "MIT"),))
    assert licence_of(own, "music/a.ogg", COPYRIGHT) == "MIT"
    assert licence_of(RECIPE, "music/a.ogg", "no paragraphs") == ""


def test_music_is_decoded_and_everything_else_is_named(tmp_path: Path) -> None:
    unpacked, out = tree(tmp_path / "in"), tmp_path / "out"
    events = list(build_source(RECIPE, unpacked, out))
    rows = {event.row.recording: event.row for event in events if isinstance(event, Built)}
    skipped = {event.path: event.reason for event in events if isinstance(event, Skipped)}
    assert set(rows) == {"a", "a_fast", "mono", "loud"}
    assert "0.5 s long" in skipped["music/short.ogg"] and "8000 Hz" in skipped["music/phone.ogg"]
    assert "4 channels" in skipped["music/four.wav"] and "not finite" in skipped["music/nan.wav"]
    assert "can't be decoded" in skipped["music/broken.ogg"] and len(skipped) == 5
    for row in rows.values():
        info = soundfile.info(str(out / row.path))
        assert (info.samplerate, info.channels, info.subtype) == (44100, 2, "PCM_16")
        assert info.frames / 44100 == row.seconds and row.sha256 == manifest.sha256_of(out / row.path)
        assert row.licence == "GPL-2+" and row.attribution == "Somebody" and not row.rendered
    assert rows["a"].split == rows["a_fast"].split and rows["a"].work == "tiny/a"
    assert rows["a_fast"].seconds == pytest.approx(1.2, abs=1e-3) and rows["a_fast"].labels["source_rate"] == "48000"
    assert rows["mono"].labels["mono"] == "true" and float(rows["loud"].labels["gain_db"]) == pytest.approx(
        -4.09, abs=0.02
    )
    loud, _ = soundfile.read(out / rows["loud"].path)
    assert np.abs(loud).max() == pytest.approx(0.999, abs=1e-3)
    assert manifest.read(out / "manifest.jsonl") == list(rows.values())
    again = list(build_source(RECIPE, unpacked, out))
    assert not any(isinstance(event, Built) for event in again)


@pytest.mark.parametrize(
    ("source", "path", "kind"),
    [
        ("hydrogen-drumkits", "Millo_MultiLayered3/bd_01.flac", "kick"),
        ("hydrogen-drumkits", "The Black Pearl 1.0/PearlSnareRimshot-Hard.wav", "snare"),
        ("hydrogen-drumkits", "The Black Pearl 1.0/HandClap.wav", "clap"),
        ("hydrogen-drumkits", "ForzeeStereo/HiHatSemiopen-0.wav", "hat"),
        ("hydrogen-drumkits", "Millo_MultiLayered2/floortom_01.flac", "tom"),
        ("hydrogen-drumkits", "BJA_Pacific/CB2_01.aiff", "cymbal"),
        ("hydrogen-drumkits", "circAfrique v4/Djembe1 Bass.wav", "hand"),
        ("hydrogen-drumkits", "Gimme A Hand 1.0/Cowbell-Soft.wav", "percussion"),
        ("sonic-pi-samples", "drum_bass_hard.flac", "kick"),
        ("sonic-pi-samples", "loop_amen.flac", "loop"),
        ("sonic-pi-samples", "elec_blup.flac", "other"),
        ("lmms-common", "basses/rave_bass01.ogg", "bass"),
        ("lmms-common", "drums/snare_rim01.ogg", "snare"),
        ("lmms-common", "instruments/piano01.ogg", "tone"),
    ],
)
def test_the_class_of_a_one_shot(source: str, path: str, kind: str) -> None:
    found = one_shot_labels(SOURCES[source], path, "kit", 0.5)
    assert found == {"kit": "kit", "class": kind, "form": "loop" if kind == "loop" else "one-shot"}


def test_recipes_of_one_shots_name_known_classes() -> None:
    for source in sources():
        if source.kind == "one-shots":
            assert {kind for _, kind in source.classes} <= set(CLASSES)
    assert one_shot_labels(SOURCES["sonic-pi-samples"], "drum_splash.flac", "drum", 4.5)["form"] == "long"
    assert one_shot_labels(SOURCES["sonic-pi-samples"], "loop_x.flac", "loop", 4.5)["form"] == "loop"


def test_kits_go_to_one_split_each_and_every_split_has_some() -> None:
    source = SOURCES["hydrogen-drumkits"]
    kits = [work for _, work in source.works]
    assert {work for work, _ in source.splits} == set(kits)
    assert {split_of(source, kit) for kit in kits} == set(manifest.SPLITS)
    assert work_of(source, "Gimme_A_Hand_1.0_HandClap-Soft") == work_of(source, "The_Black_Pearl_1.0_HandClap")
    assert work_of(SOURCES["sonic-pi-samples"], "tabla_ghe1") == "tabla"
    assert work_of(SOURCES["lmms-common"], "drums_kick02") == "drums"
    other = SOURCES["lmms-common"]
    assert split_of(other, "drums") == manifest.split_of("lmms-common/drums")


def test_one_shots_are_labelled_and_silence_is_left_out(tmp_path: Path) -> None:
    unpacked, out = tree(tmp_path / "in"), tmp_path / "out"
    for name in ("Kick-0", "empty", "crash"):
        content = encoded(0.06 if name == "Kick-0" else 5, 44100, kind="WAV", level=0 if name == "empty" else 0.3)
        (unpacked / RECIPE.folder / f"music/{name}.wav").write_bytes(content)
    recipe = dataclasses.replace(
        RECIPE, kind="one-shots", min_seconds=0.03, works=(("*", "kit"),), splits=(("kit", "calibration"),)
    )
    events = list(build_source(recipe, unpacked, out))
    rows = {event.row.recording: event.row for event in events if isinstance(event, Built)}
    skipped = {event.path: event.reason for event in events if isinstance(event, Skipped)}
    assert skipped["music/empty.wav"] == "is silent" and "short" in rows
    labels = [(rows[name].labels["class"], rows[name].labels["form"]) for name in ("Kick-0", "crash")]
    assert labels == [("kick", "one-shot"), ("cymbal", "long")]
    assert {(row.work, row.labels["kit"], row.split) for row in rows.values()} == {("tiny/kit", "kit", "calibration")}


def test_resampling_keeps_a_sine() -> None:
    t = np.arange(48000) / 48000
    audio, gain_db = standardise(np.sin(2 * np.pi * 1000 * t)[None].astype(np.float32) * 0.5, 48000)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(44100) / 44100)
    assert audio.shape == (2, 44100) and gain_db == 0
    np.testing.assert_allclose(audio[:, 2000:-2000], np.tile(expected, (2, 1))[:, 2000:-2000], atol=2e-5)


def test_music_inside_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = tree(tmp_path / "in")
    recipe = dataclasses.replace(RECIPE, archive="all.zip")
    with pytest.raises(InputError, match=r"all\.zip can't be read"):
        list(build_source(recipe, unpacked, tmp_path / "out"))
    with zipfile.ZipFile(unpacked / RECIPE.folder / "all.zip", "w") as archive:
        archive.writestr("music/a.ogg", FILES["music/a.ogg"])
        archive.writestr("music/../../escape.ogg", FILES["music/a.ogg"])
    built = [event.row for event in build_source(recipe, unpacked, tmp_path / "out") if isinstance(event, Built)]
    assert "a" in {row.recording for row in built}
    assert all(path.is_relative_to(tmp_path / "out/tiny") for path in (tmp_path / "out").rglob("*.wav"))
    monkeypatch.setattr(build_module, "MAX_FILE_BYTES", 100)
    with pytest.raises(InputError, match="claims"):
        list(build_source(recipe, unpacked, tmp_path / "other"))


def test_an_empty_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no copyright file"):
        list(build_source(RECIPE, tmp_path, tmp_path / "out"))
    unpacked = tree(tmp_path / "in")
    with pytest.raises(InputError, match="No music of tiny"):
        list(build_source(dataclasses.replace(RECIPE, patterns=("*.opus",)), unpacked, tmp_path / "out"))


def archive_of(*members: tuple[str, bytes, bytes]) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), "/etc/passwd"
            archive.addfile(info, io.BytesIO(content))
    stream.seek(0)
    return stream


def test_only_plain_wanted_files_are_unpacked(tmp_path: Path) -> None:
    stream = archive_of(
        ("./usr/share/games/tiny/a.ogg", tarfile.REGTYPE, b"music"),
        ("./usr/share/games/tiny/link.ogg", tarfile.SYMTYPE, b""),
        ("./usr/share/games/tiny/hard.ogg", tarfile.LNKTYPE, b""),
        ("./usr/share/games/tiny/pipe.ogg", tarfile.FIFOTYPE, b""),
        ("./etc/cron.d/job", tarfile.REGTYPE, b"evil"),
    )
    assert extract(stream, tmp_path, ("usr/share/games/tiny/",)) == 1
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == [tmp_path / "usr/share/games/tiny/a.ogg"]


@pytest.mark.parametrize("name", ["/usr/share/games/tiny/a.ogg", "usr/share/games/tiny/../../../../../x"])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="leaves its folder"):
        extract(archive_of((name, tarfile.REGTYPE, b"x")), tmp_path, ("usr/",))
    with pytest.raises(InputError, match="broken"):
        extract(io.BytesIO(b"not a tar" * 200), tmp_path, ("usr/",))


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "MAX_UNPACKED_BYTES", 10)
    with pytest.raises(InputError, match="more than"):
        extract(archive_of(("usr/a", tarfile.REGTYPE, b"x" * 11)), tmp_path, ("usr/",))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A real .deb of the made-up recipe, served by a made-up apt-get; `SOURCES` holds that recipe alone."""
    if not HAVE_DPKG:
        pytest.skip("dpkg-deb is not installed")
    root = tree(tmp_path / "deb")
    control = root / "DEBIAN/control"
    control.parent.mkdir()
    control.write_text(
        "Package: tiny-data\nVersion: 1:1.0-1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: x\n"
    )
    path = tmp_path / "tiny-data_1%3a1.0-1_all.deb"
    subprocess.run(["dpkg-deb", "--build", "-Znone", str(root), str(path)], check=True, capture_output=True)
    recipe = dataclasses.replace(RECIPE, sha256=manifest.sha256_of(path))
    monkeypatch.setitem(fetch_module.SOURCES, "tiny", recipe)
    programs = tmp_path / "bin"
    programs.mkdir()
    script = '#!/bin/sh\n[ "$2" = tiny-data=1:1.0-1 ] || { echo "E: Version not found" >&2; exit 100; }\n'
    (programs / "apt-get").write_text(script + f'cp "{path}" .\n')
    (programs / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return path


def test_fetch_then_build(package: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (fetched,) = fetch(["tiny"], cache)
    assert fetched.n_files == len(FILES) + 1
    assert not (fetched.folder / "DEBIAN").exists()
    package.unlink()
    assert list(fetch(["tiny"], cache)) == [fetched]
    built = [event for event in build(["tiny"], cache) if isinstance(event, Built)]
    assert len(built) == 4 and len(manifest.read(cache / "built/manifest.jsonl")) == 4
    assert [path.name for path in (cache / "packages").iterdir()] == ["tiny-data_1%3a1.0-1_all.deb"]
    assert len(list((cache / "unpacked").iterdir())) == 1


def test_a_package_that_is_not_the_recipes_is_refused(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = fetch_module.SOURCES["tiny"]
    monkeypatch.setitem(fetch_module.SOURCES, "tiny", dataclasses.replace(recipe, sha256="f" * 64))
    with pytest.raises(InputError, match="is not the file that the recipe"):
        list(fetch(["tiny"], tmp_path / "cache"))
    monkeypatch.setitem(fetch_module.SOURCES, "tiny", dataclasses.replace(recipe, version="2"))
    with pytest.raises(InputError, match="Version not found"):
        list(fetch(["tiny"], tmp_path / "cache"))
    with pytest.raises(InputError, match="no source 'huge'"):
        list(fetch(["huge"], tmp_path / "cache"))
    junk = tmp_path / "junk.deb"
    junk.write_bytes(b"!<arch>\n")
    with pytest.raises(InputError, match=r"can't be unpacked|broken"):
        fetch_module.unpack(recipe, junk, tmp_path / "unpacked/junk")
    assert list((tmp_path / "unpacked").iterdir()) == []
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="there is no apt-get here"):
        fetch_module.download(recipe, tmp_path / "elsewhere")


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch_module.cache_folder() == tmp_path / "sfumato"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch_module.cache_folder() == tmp_path / ".cache/sfumato"
