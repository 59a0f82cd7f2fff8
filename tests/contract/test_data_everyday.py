"""Everyday sounds carry words that say what is heard; takes of one sound never part; what lies beside comes along."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sfumato.data import fetch, manifest
from sfumato.data.build import Built, Skipped, build_source
from sfumato.data.everyday_labels import CLASSES, cleaned, everyday_labels, named_class, sound_of
from sfumato.data.everyday_sources import EVERYDAY
from sfumato.data.recipe import KINDS, Source, recording_id, split_of, work_of
from sfumato.data.sources import SOURCES, sources

TINY = Source(
    name="tiny",
    package="tiny-data",
    version="1",
    sha256="0" * 64,
    megabytes=1,
    folder="usr/share/tiny",
    patterns=("**/*.ogg",),
    attribution="Somebody",
    variant=EVERYDAY["widelands-sounds"].variant,
    licences=(("*", "CC0"),),
    min_seconds=0.15,
    min_rate=22050,
    kind="everyday",
    words=(("animals/*", "barking {}"),),
    classes=(("odd/*", "machine"),),
    leave_out=("*_desc*",),
)


def ogg(seconds: float, rate: int = 44100, hz: float = 440) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate), rate, format="OGG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wolf-growl-3", "wolf growl"),
        ("Footstep_Grass_Running3", "footstep grass running"),
        ("civfemscream02a", "woman's scream"),
        ("bullet-smg-15x", "bullet submachine gun"),
        ("door1-close", "door close"),
        ("7", ""),
    ],
)
def test_names_become_words(name: str, words: str) -> None:
    assert cleaned(name) == words


@pytest.mark.parametrize(
    ("source", "path", "sound", "kind"),
    [
        ("tuxpaint-sounds", "animals/mammals/dogs/dog.ogg", "barking dog", "animal"),
        ("tuxpaint-sounds", "household/kettle.ogg", "whistling kettle", "water"),
        ("ufoai-sounds", "sound/footsteps/gravel2.ogg", "footstep on gravel", "footsteps"),
        ("ufoai-sounds", "sound/ambience/thunder3.ogg", "thunder", "weather"),
        ("wesnoth-sounds", "wolf-growl-2.ogg", "growling wolf", "animal"),
        ("wesnoth-sounds", "sword-1.ogg", "sword", "weapon"),
        ("widelands-sounds", "atlanteans/saw/benchsaw_01.ogg", "bench saw", "tool"),
        ("minetest-sounds", "mods/doors/sounds/doors_glass_door_open.ogg", "opening a glass door", "door"),
        ("openarena-sounds", "sound/world/waterfall.wav", "waterfall", "water"),
        ("oxygen-sounds", "Oxygen-Im-Phone-Ring.ogg", "ringing phone", "signal"),
        ("freedesktop-sounds", "camera-shutter.oga", "shutter of a camera", "signal"),
        ("0ad-sounds", "audio/resource/mining/mine_stone_04.ogg", "mining stone with a pickaxe", "tool"),
    ],
)
def test_what_is_heard(source: str, path: str, sound: str, kind: str) -> None:
    recipe = EVERYDAY[source]
    labels = everyday_labels(recipe, path, work_of(recipe, recording_id(recipe, path)))
    assert (labels["sound"], labels["class"]) == (sound, kind)
    assert sound_of(recipe, path) == sound


def test_takes_of_a_sound_share_a_work() -> None:
    def works(source: str, *paths: str) -> int:
        recipe = EVERYDAY[source]
        return len({work_of(recipe, recording_id(recipe, path)) for path in paths})

    assert works("wesnoth-sounds", "bow.ogg", "bow-miss.ogg", "bow-puny-fire-miss.ogg", "crossbow.ogg") == 1
    assert works("wesnoth-sounds", "axe.ogg", "mace.ogg") == 2
    assert works("widelands-sounds", "animals/wolf_00.ogg", "animals/wolf_02.ogg") == 1
    assert works("0ad-sounds", "audio/attack/weapon/sword_attack_09.ogg", "audio/attack/weapon/swordhit_1.ogg") == 1
    assert works("ufoai-sounds", "sound/weapons/bullet-smg-5x.ogg", "sound/weapons/bullet-smg.ogg") == 1
    lava, flame = "mods/default/sounds/default_cool_lava.1.ogg", "mods/fire/sounds/fire_extinguish_flame.2.ogg"
    assert works("minetest-sounds", lava, flame) == 1, "the same file under two names"
    assert split_of(EVERYDAY["widelands-sounds"], "fisher_fisher_pull_net") == "train"
    assert split_of(EVERYDAY["wesnoth-sounds"], "squishy") == "train", "the same sound in two packages"


def test_recipes_of_everyday_sounds_are_complete() -> None:
    assert {source.kind for source in sources()} == set(KINDS) and set(EVERYDAY) < set(SOURCES)
    for source in EVERYDAY.values():
        assert source.kind == "everyday" and source.min_rate <= 22050 and source.attribution
        assert {kind for _, kind in source.classes} <= set(CLASSES)
    assert named_class("a loud thunder") == "weather" and named_class("qwerty") == "other"


def test_one_package_may_be_two_sources(tmp_path: Path) -> None:
    def folder(name: str) -> Path:
        return fetch.unpacked_folder(SOURCES[name], tmp_path)

    assert folder("0ad") == folder("0ad-sounds"), "the same archive is unpacked once"
    assert folder("widelands") != folder("widelands-sounds")
    assert folder("widelands").name == "widelands-data_2%3a1.1-3"


def test_sounds_are_built_with_what_lies_beside_them(tmp_path: Path) -> None:
    root = tmp_path / "in" / TINY.folder
    for name, content in {
        "animals/dog_01.ogg": ogg(0.5),
        "animals/dog_02.ogg": ogg(0.5, hz=500),
        "animals/dog_02.wav": b"not wanted",
        "animals/dog_01_desc.ogg": ogg(0.5),
        "odd/thing.ogg": ogg(0.5, rate=22050),
        "odd/click.ogg": ogg(0.05),
        "odd/phone.ogg": ogg(0.5, rate=8000),
        "animals/dog_01.png": b"picture",
        "animals/dog_01.txt": b"A dog.\nde=Ein Hund.\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    doc = tmp_path / "in/usr/share/doc/tiny-data/copyright"
    doc.parent.mkdir(parents=True)
    doc.write_text("Files: *\nLicense: MIT\n")
    out = tmp_path / "out"
    events = list(build_source(TINY, tmp_path / "in", out))
    rows = {event.row.recording: event.row for event in events if isinstance(event, Built)}
    assert set(rows) == {"animals_dog_01", "animals_dog_02", "odd_thing"}
    assert {event.path for event in events if isinstance(event, Skipped)} == {"odd/click.ogg", "odd/phone.ogg"}
    first, second, odd = (rows[name] for name in ("animals_dog_01", "animals_dog_02", "odd_thing"))
    assert first.labels["sound"] == second.labels["sound"] == "barking dog" and first.licence == "CC0"
    assert first.work == second.work == "tiny/animals_dog" and first.split == second.split
    assert first.labels["group"] == "animals_dog"
    assert (first.labels["class"], odd.labels["class"]) == ("animal", "machine")
    assert (out / first.labels["image"]).read_bytes() == b"picture" and first.labels["text"] == "A dog."
    assert "image" not in second.labels and odd.sample_rate == 44100 and odd.labels["source_rate"] == "22050"
    assert manifest.read(out / "manifest.jsonl") == list(rows.values())


def test_two_files_of_one_name_give_one_recording(tmp_path: Path) -> None:
    root = tmp_path / TINY.folder
    root.mkdir(parents=True)
    for name in ("mace.ogg", "mace.wav"):
        (root / name).write_bytes(ogg(0.5))
    doc = tmp_path / "usr/share/doc/tiny-data/copyright"
    doc.parent.mkdir(parents=True)
    doc.write_text("Files: *\nLicense: MIT\n")
    recipe = dataclasses.replace(TINY, patterns=("*.ogg", "*.wav"))
    built = [event for event in build_source(recipe, tmp_path, tmp_path / "out") if isinstance(event, Built)]
    assert len(built) == 1 and len(manifest.read(tmp_path / "out/manifest.jsonl")) == 1
