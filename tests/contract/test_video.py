"""Pictures of videos: the one that is shown at a time, the way up that it is shown, and what is no video."""

import sys
from pathlib import Path

import av
import numpy as np
import pytest
import sklearn.datasets
import soundfile as sf
from PIL import Image

from sfumato import decode_child, video
from sfumato.errors import InputError
from sfumato.tasks import sight

PHOTOS = Path(sklearn.datasets.__file__).parent / "images"
RATE = 10
GREYS = np.repeat(np.arange(20, 240, 20), 2)
"""Of the pictures of a video of 2.2 s, in order."""


def film(path, pictures):
    """Write pictures, shape (n, height, width, 3), as a video of 10 a second with a key frame only at the start."""
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE, options={"sc_threshold": "1000000000"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.bit_rate, stream.gop_size = "yuv420p", 4_000_000, 100
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def greys(tmp_path_factory):
    pictures = [np.full((64, 96, 3), grey, np.uint8) for grey in GREYS]
    return film(tmp_path_factory.mktemp("video") / "greys.mp4", pictures)


def photo(name):
    with Image.open(PHOTOS / name) as picture:
        return np.array(picture.convert("RGB").resize((640, 416)))


@pytest.mark.parametrize("at_s", [0, 0.05, 0.4, 1.0, 1.57, 2.15])
def test_the_picture_is_the_one_that_is_shown_at_the_time(greys, at_s):
    shown = video.frame(greys, at_s)
    number = int(at_s * RATE + 1e-9)
    assert shown.pixels.shape == (64, 96, 3) and shown.at_s == pytest.approx(number / RATE)
    assert abs(shown.pixels.astype(float) - GREYS[number]).max() < 6


def test_without_a_time_it_is_the_middle_one(greys):
    assert video.frame(greys).at_s == pytest.approx(1.1)


def test_a_video_that_was_taken_upright_is_shown_upright(tmp_path):
    """The track's matrix (ISO/IEC 14496-12, 8.3.2) says that players turn it by 90 degrees to the right."""
    upright = photo("china.jpg")
    path = film(tmp_path / "phone.mp4", [np.rot90(upright)] * 3)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    turn = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 416 << 16, 0, 1 << 30], ">i4").tobytes()
    content[at : at + 36] = turn
    path.write_bytes(content)
    pixels = video.frame(path, 0).pixels
    assert pixels.shape == upright.shape
    assert abs(pixels.astype(float) - upright).mean() < 8


def test_a_film_leads_by_what_it_shows_then(tmp_path):
    path = film(tmp_path / "film.mp4", [photo("flower.jpg")] * 10 + [photo("china.jpg")] * 12)
    assert sight.words_of(f"{path}@0.3")[0].startswith("(daisy:1.00)")
    words, note = sight.words_of(str(path))
    assert words.startswith("(palace:1.00)") and note.startswith("film.mp4 is taken for palace")


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("clip.mp4@2.5", ("clip.mp4", 2.5)), ("a@b.mp4", ("a@b.mp4", None)), ("clip.mp4", ("clip.mp4", None)),
        ("a@1.mp4@0", ("a@1.mp4", 0.0)), ("real@1", ("real@1", None)),
    ],
)  # fmt: skip
def test_a_time_stands_behind_the_name(image, found, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("real@1").touch()
    path, at_s = sight.file_and_time(image)
    assert (str(path), at_s) == found


def test_what_is_no_picture_of_a_video_is_refused(greys, tmp_path):
    sf.write(tmp_path / "sound.wav", np.zeros(100), 8000)
    (tmp_path / "text.mp4").write_text("no video")
    cut = greys.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(cut[: len(cut) // 4])
    refused = {f"{greys}@9": "ends at 2.20 s, before 9 s", f"{greys}@-1": "no time", f"{greys}@nan": "no time"}
    refused |= {f"{tmp_path / 'sound.wav'}@0": "no pictures", f"{tmp_path / 'text.mp4'}": "can't be decoded"}
    refused |= {f"{tmp_path / 'cut.mp4'}": "can't be decoded", f"{tmp_path / 'missing.mp4'}": "can't be opened"}
    for image, said in refused.items():
        with pytest.raises(InputError, match=said):
            sight.words_of(image)


def test_without_pyav_the_extra_is_asked_for(greys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with greys.open("rb") as source, pytest.raises(decode_child.Refused) as refused:
        decode_child.decode_frame(source, source, None, None)
    assert refused.value.kind == "missing"
