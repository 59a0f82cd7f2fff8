"""`sfumato image`: sounds as pictures and back, in files."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from PIL import Image

from sfumato import cli
from sfumato.errors import InputError
from sfumato.tasks import images

RATE = 44100


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in words])
    return int(ended.value.code or 0)


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    """One second of two tones, left and right, at -20 dB."""
    time = np.arange(RATE) / RATE
    sf.write(tmp_path / "tone.wav", 0.1 * np.sin(2 * np.pi * np.outer(time, (440, 660))), RATE, subtype="FLOAT")
    return tmp_path / "tone.wav"


@pytest.mark.parametrize("words", [(), ("--stereo", "--max-frequency", 20000), ("--step-size-ms", 20)])
def test_a_sound_comes_back_at_its_level_by_the_pictures_parameters(tone: Path, words: tuple[object, ...]) -> None:
    picture, back = tone.with_suffix(".png"), tone.with_name("back.wav")
    assert command("image", "audio-to-image", tone, picture, *words) == 0
    assert command("image", "image-to-audio", picture, back, "--iterations", 8) == 0
    heard, rate = sf.read(back, always_2d=True)
    given, _ = sf.read(tone, always_2d=True)
    wanted = given if "--stereo" in words else given.mean(axis=1, keepdims=True)
    assert rate == RATE and heard.shape == wanted.shape
    levels = [20 * np.log10(np.sqrt(np.mean(x[4410:-4410] ** 2, axis=0))) for x in (heard, wanted)]
    assert np.abs(levels[0] - levels[1]).max() < 1.0
    strongest = np.abs(np.fft.rfft(heard, axis=0)).argmax(axis=0)
    tones = np.abs(strongest[:, None] - (440, 660)) <= 2  # Hz
    assert tones.any(axis=1).all() and tones.any(axis=0).sum() == heard.shape[1]


def test_the_tags_are_riffusions(tone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tone.with_suffix(".png")
    command("image", "audio-to-image", tone, picture)
    capsys.readouterr()
    assert command("image", "print-exif", picture, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    with Image.open(picture) as image:
        numbers = {11000: 44100, 11005: 0, 11010: 10, 11020: 100, 11030: 400, 11040: 512, 11050: 0, 11060: 10000}
        assert {tag: image.getexif()[tag] for tag in numbers} == numbers and image.getexif()[11070] == 0.25
    loudest = told.pop("loudest")
    assert told == {
        "sample_rate": 44100, "stereo": 0, "step_ms": 10, "window_ms": 100, "padded_ms": 400, "n_mels": 512,
        "f_min": 0, "f_max": 10000, "power": 0.25,
    }  # fmt: skip
    assert 1e5 < loudest < 1e8  # full scale is 32768
    with Image.open(picture) as image:
        assert image.getexif()[11000] == 44100 and image.getexif()[11080] == loudest


def test_a_picture_that_says_nothing_is_read_with_the_usual_parameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.full((512, 40, 3), 255, np.uint8)
    pixels[400:404] = 60
    Image.fromarray(pixels).save(tmp_path / "drawn.png")
    assert command("image", "image-to-audio", tmp_path / "drawn.png", tmp_path / "out.wav", "--iterations", 2) == 0
    assert "doesn't say how it was drawn" in capsys.readouterr().out
    heard, rate = sf.read(tmp_path / "out.wav")
    assert rate == RATE and len(heard) == 39 * 441 and np.abs(heard).max() == pytest.approx(0.9, abs=1e-4)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("image-to-audio", "none.png", "out.wav"), 3, "doesn't exist"),
        (("image-to-audio", "tone.wav", "out.wav"), 3, "no picture"),
        (("image-to-audio", "small.png", "out.wav"), 3, "Riffusion's parameters have 512 bands"),
        (("audio-to-image", "tone.wav", "out.jpg"), 3, "Name it out.png"),
        (("audio-to-image", "short.wav", "out.png"), 3, "shorter transform"),
        (("audio-to-image", "tone.wav", "out.png", "--max-frequency", "30000"), 3, "half the sample rate"),
        (("audio-to-image", "tone.wav", "out.png", "--window-duration-ms", "15"), 3, "two steps"),
        (("audio-to-image", "tone.wav", "out.png", "--num-frequencies", "2"), 2, "num_frequencies"),
        (("sample-clips", "tone.wav", "clips"), 3, "lasts 1.000 s"),
        (("sample-clips-batch", "nowhere", "clips"), 3, "holds no file"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(
    words: tuple[str, ...], code: int, said: str, tone: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tone.parent)
    sf.write("short.wav", np.zeros(1000), RATE)
    Image.new("RGB", (40, 64)).save("small.png")
    before = set(Path().iterdir())
    assert command("image", *words) == code
    assert said in capsys.readouterr().err
    assert set(Path().iterdir()) == before


def test_a_long_recording_is_refused_before_it_is_read(tone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "WIDEST", 100)  # a second makes 101 columns
    monkeypatch.setattr(images, "draw", None)
    with pytest.raises(InputError, match="101 columns wide, and 100 fit"):
        images.audio_to_image(tone, tone.with_suffix(".png"), images.Settings())


def test_a_lying_tag_is_refused(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 512))
    tags = image.getexif()
    for name, tag in images.TAGS.items():
        tags[tag] = 10**9 if name == "padded_ms" else getattr(images.Parameters(), name)
    image.save(tmp_path / "huge.png", exif=tags)
    with pytest.raises(InputError, match="transform of 1000000000 ms"):
        images.read_picture(tmp_path / "huge.png")


def test_the_published_mask_says_what_it_comes_to(tone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, drawn = tone.with_suffix(".png"), tone.with_name("mask.png")
    command("image", "audio-to-image", tone, picture)
    capsys.readouterr()
    assert command("image", "mask", picture, drawn) == 0
    with Image.open(drawn) as image:
        held = np.asarray(image)
    assert held.shape == (512, 101) and set(np.unique(held)) <= set(range(106)) and held.max() == 255 - 150
    assert f"{100 * (held > 0).mean():.0f} % of the picture" in capsys.readouterr().out
    assert command("image", "mask", picture, drawn, "--downshift", 255) == 0
    assert "nothing is held" in capsys.readouterr().out
    assert command("image", "mask", tone, drawn) == 3 and command("image", "mask", picture, "mask.jpg") == 3


def test_clips_are_cut_at_the_places_of_their_seed(tone: Path) -> None:
    folder = tone.parent / "clips"
    for seed in (0, 0, 1):
        words = ("--num-clips", 2, "--duration-ms", 100, "--mono", "--seed", seed)
        assert command("image", "sample-clips", tone, folder, *words) == 0
    names = sorted(path.name for path in folder.iterdir())
    assert len(names) == 4 and all("_dur_100_ms.wav" in name for name in names)
    whole, _ = sf.read(tone)
    for path in folder.iterdir():
        clip, rate = sf.read(path)
        start = round(int(path.name.split("_start_")[1].split("_")[0]) * rate / 1000)
        near = [whole[at : at + 4410].mean(axis=1) for at in range(max(0, start - 45), start + 45)]
        assert min(np.abs(clip - x).max() for x in near if len(x) == len(clip)) < 1e-4


def test_a_folder_is_done_but_for_what_is_broken(tone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tone.parent / "in").mkdir()
    tone.rename(tone.parent / "in" / "tone.wav")
    (tone.parent / "in" / "broken.wav").write_bytes(b"RIFF")
    out = tone.parent / "out"
    assert command("image", "audio-to-images-batch", tone.parent / "in", out, "--num-frequencies", 64) == 5
    said = capsys.readouterr()
    assert "skipped broken.wav" in said.err and "1 of 2 files done" in said.out
    assert [path.name for path in out.iterdir()] == ["tone.png"]
    assert command("image", "sample-clips-batch", tone.parent / "in", out, "--glob", "t*", "--duration-ms", 50) == 0
