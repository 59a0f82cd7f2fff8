"""Pictures as prompts: what is seen on photographs that everyone has, and what a generator reads of it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from sfumato.errors import InputError, MissingExtraError
from sfumato.networks import text
from sfumato.tasks import latent_music, sight

PHOTOS = Path(sklearn.datasets.__file__).parent / "images"


def test_names_stand_at_their_places():
    eye = sight.eye()
    assert len(eye.names) == len(set(eye.names)) == 1000
    known = {281: "tabby", 402: "acoustic guitar", 486: "cello", 541: "drum", 579: "grand piano", 889: "violin"}
    assert {number: eye.names[number] for number in known} == known


@pytest.mark.parametrize(("photo", "name"), [("flower.jpg", "daisy"), ("china.jpg", "palace")])
def test_photographs_show_what_they_show(photo, name):
    seen = sight.eye().look(sight.opened(PHOTOS / photo))
    assert seen[0].name == name
    assert sum(one.probability for one in seen) == pytest.approx(1, abs=1e-4)
    assert [one.probability for one in seen] == sorted((one.probability for one in seen), reverse=True)


def test_the_middle_of_a_picture_is_what_is_looked_at(tmp_path):
    with Image.open(PHOTOS / "flower.jpg") as picture:
        wide = Image.new("RGB", (picture.width * 3, picture.height), "grey")
        wide.paste(picture, (picture.width, 0))
        alone, beside = sight.eye().look(picture), sight.eye().look(wide)
    assert alone[0].name == beside[0].name == "daisy"
    assert beside[0].probability == pytest.approx(alone[0].probability, abs=0.1)


def test_a_prompt_names_what_is_likely_by_its_weight():
    words, note = sight.words_of(str(PHOTOS / "china.jpg"))
    stretches = [(said.strip(), weight) for said, weight in text.parts(words) if said.strip()]
    assert stretches[0] == ("palace", 1.0) and 1 <= len(stretches) <= sight.MOST
    assert all(sight.LEAST <= weight <= 1 for _, weight in stretches)
    assert note.startswith("china.jpg is taken for palace (0.")
    assert sight.words_of(str(PHOTOS / "flower.jpg"))[0] == "(daisy:1.00)"  # what is far less likely isn't read
    encoder = text.load()
    sentences = encoder.encode([words, "a palace", "a drum beat"]).sentence
    assert float(sentences[0] @ sentences[1]) > float(sentences[0] @ sentences[2]) + 0.2


def test_a_photograph_that_lies_on_its_side_is_stood_up(tmp_path):
    with Image.open(PHOTOS / "china.jpg") as picture:
        exif = picture.getexif()
        exif[0x0112] = 6  # to be turned by 90 degrees to the right
        picture.rotate(90, expand=True).save(tmp_path / "lying.png", exif=exif)
    assert sight.words_of(str(tmp_path / "lying.png"))[0].startswith("(palace:1.00)")


def test_a_picture_stands_beside_the_prompt_or_in_its_place():
    photo = str(PHOTOS / "flower.jpg")
    alone, notes = latent_music.led(latent_music.Settings(image=photo))
    beside, _ = latent_music.led(latent_music.Settings(prompt="rain on", image=photo))
    assert alone.prompt == sight.words_of(str(PHOTOS / "flower.jpg"))[0] and "daisy" in notes[0]
    assert beside.prompt == f"rain on {alone.prompt}"


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    whole = (PHOTOS / "flower.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    Image.fromarray(np.zeros((2, 400, 3), np.uint8)).save(tmp_path / "line.png")
    Image.fromarray(np.zeros((300, 300, 3), np.uint8)).save(tmp_path / "black.png")
    Image.fromarray(np.zeros((300, 300), np.uint16)).save(tmp_path / "deep.png")
    Image.new("1", (10_000, 9000)).save(tmp_path / "huge.png")
    refused = {"text.png": "can't be read", "cut.jpg": "can't be read", "line.png": "less of a line"}
    refused |= {"black.png": "Nothing known", "deep.png": "8 bits", "huge.png": "decompression bomb"}
    for name, said in refused.items():
        with pytest.raises(InputError, match=said):
            sight.words_of(str(tmp_path / name))
    with pytest.raises(InputError, match="can't be read"):
        sight.words_of(str(tmp_path / "missing.png"))


def test_what_is_transparent_is_white(tmp_path):
    with Image.open(PHOTOS / "china.jpg") as picture:
        clear = picture.convert("RGBA")
    clear.putalpha(Image.new("L", clear.size, 0))
    clear.save(tmp_path / "clear.png")
    assert np.array(sight.opened(tmp_path / "clear.png")).min() == 255


def test_without_the_extra_it_is_named(monkeypatch):
    sight.eye.cache_clear()
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(MissingExtraError, match=r"sfumato\[vision\]"):
        sight.words_of(str(PHOTOS / "flower.jpg"))
