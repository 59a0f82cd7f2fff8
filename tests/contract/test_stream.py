"""Music without end: no seam, no more than is wanted, and prompts that it follows."""

import sys
import types

import numpy as np
import pytest
import soundfile as sf
import tiny_riffusion
import torch

from sfumato import cli
from sfumato.errors import InputError, MissingExtraError
from sfumato.networks import text
from sfumato.tasks import play, stream
from sfumato.tasks.generate import generate
from sfumato.tasks.prompts import wanted_of
from sfumato.tasks.stream import Settings, Steering, blocks, to_card, to_file

TINY, CONFIG = tiny_riffusion.model(), tiny_riffusion.CONFIG
RATE = CONFIG.sample_rate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_riffusion.folder(tmp_path_factory.mktemp("models") / "tiny")


def wanted(**values):
    return Settings(**({"prompt": "piano", "steps": 3, "cfg_scale": 1.0, "seed": 4} | values))


def test_the_stream_is_the_sound_that_generate_draws():
    settings = wanted()
    made, total = [], 0
    for block in blocks(TINY, settings, Steering(settings)):
        made.append(block)
        total += block.shape[1]
        if total > 3 * RATE:
            break
    same = {"prompt": "piano", "steps": 3, "cfg_scale": 1.0, "seed": 4, "seconds": 3.0}
    take = next(generate(TINY, same))
    n = 3 * RATE - 40
    np.testing.assert_allclose(np.concatenate(made, axis=1)[:, :n], (take.audio / take.gain)[:, :n].clip(-1, 1))


def test_the_way_to_the_next_prompt_takes_its_time():
    steering = Steering(wanted(then="drums", over=10.0))
    assert [steering.at(s)[1] for s in (0.0, 5.0, 10.0, 50.0)] == [0.0, 0.5, 1.0, 1.0]
    assert steering.at(50.0)[2] is None
    steering.towards("flute")
    settings, way, start = steering.at(55.0)
    assert (settings.then, way) == ("flute", 0.5)
    torch.testing.assert_close(start.sentence, text.load().encode(["drums"]).sentence)
    with pytest.raises(InputError, match="Write it in English"):
        steering.towards("ᚠᚢᚦ")
    assert steering.at(60.0)[0].then == "flute"
    assert Steering(wanted()).at(9.0)[1] == 0.0


def test_another_prompt_on_the_way_makes_no_jump():
    for settings in (wanted(then="drums", over=10.0), wanted(then="drums", alpha=0.3)):
        steering = Steering(settings)
        before = wanted_of(*steering.at(3.0))
        steering.towards("flute")
        after = wanted_of(*steering.at(3.0))
        torch.testing.assert_close(before.sentence, after.sentence)
        there = wanted_of(*steering.at(100.0))
        torch.testing.assert_close(there.sentence, text.load().encode(["flute"]).sentence)


def test_what_fails_while_drawing_is_raised_and_no_card_is_opened(folder, monkeypatch):
    opened = []
    cards = types.SimpleNamespace(OutputStream=lambda **_: opened.append(1), PortAudioError=OSError)
    monkeypatch.setattr(play, "portaudio", lambda: cards)
    monkeypatch.setattr(stream, "sigmas_of", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        to_card(wanted(model=str(folder), seconds=0.2))
    assert not opened


def test_a_file_is_as_long_as_was_asked(folder, tmp_path):
    done = to_file(tmp_path / "s.wav", wanted(model=str(folder), then="drums", over=1.0, seconds=1.7))
    assert sf.info(tmp_path / "s.wav").frames == round(1.7 * RATE) and done.seconds == pytest.approx(1.7, abs=1e-3)
    with pytest.raises(InputError, match="--seconds"):
        to_file(tmp_path / "t.wav", wanted(model=str(folder)))
    with pytest.raises(InputError, match="reads no prompts"):
        to_file(tmp_path / "t.wav", wanted(model="dance", seconds=1.0))
    assert [path.name for path in tmp_path.iterdir()] == ["s.wav"]


def test_a_buffer_plays_what_it_has_in_order_and_counts_what_it_lacks():
    buffer = stream.Buffer()
    buffer.put(np.arange(1, 6.0)[None])
    out = np.full((4, 1), 9.0)
    buffer(out, 4, None, None)
    assert out[:, 0].tolist() == [1, 2, 3, 4] and (buffer.dropouts, buffer.samples) == (0, 1)
    buffer(out, 4, None, None)
    assert out[:, 0].tolist() == [5, 0, 0, 0] and (buffer.dropouts, buffer.played) == (1, 5)


class Card:
    """A sound card that wants a block at once, again and again."""

    PortAudioError = OSError
    heard = np.zeros((0, 1))

    def __init__(self, samplerate, device, channels, dtype, callback, finished_callback):
        assert (samplerate, channels, dtype) == (RATE, 1, "float32")
        self.callback = callback

    def __enter__(self):
        for _ in range(5):
            block = np.zeros((50, 1))
            self.callback(block, 50, None, None)
            Card.heard = np.concatenate([Card.heard, block])

    def __exit__(self, *_):
        pass


def test_the_card_gets_the_stream(folder, monkeypatch):
    cards = types.SimpleNamespace(OutputStream=Card, PortAudioError=OSError)
    monkeypatch.setattr(play, "portaudio", lambda: cards)
    started = []
    settings = wanted(model=str(folder), seconds=0.2, ahead=0.5)
    done = to_card(settings, started.append)
    assert len(started) == 1 and done.seconds >= 0.1
    first = next(blocks(TINY, settings, Steering(settings)))
    # Another thread may share its work out otherwise, which rounds otherwise.
    np.testing.assert_allclose(Card.heard[:, 0], first[0, : len(Card.heard)], atol=1e-3)


def test_without_the_package_nothing_is_drawn(folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    monkeypatch.setattr(stream, "load", lambda name: pytest.fail("a model was loaded"))
    with pytest.raises(SystemExit) as ended:
        cli.main(["play", "--model", str(folder), "--prompt", "piano"])
    out, err = capsys.readouterr()
    assert ended.value.code and out == "" and "sfumato[live]" in err and err.count("\n") == 1
    with pytest.raises(MissingExtraError):
        to_card(wanted(model=str(folder)))


def test_the_command_says_what_is_not_read(folder, tmp_path, capsys):
    words = ["play", "--model", folder, "--prompt", "пианино", "--seconds", "0.2", "--steps", "2"]
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in [*words, "--out", tmp_path / "p.wav"]])
    assert not ended.value.code and "note: 7 of 7 letters of 'пианино' are not Latin" in capsys.readouterr().err


def test_the_command_draws_into_a_file_and_tells_flags_apart(folder, tmp_path, capsys):
    words = ["play", "--model", folder, "--prompt", "piano", "--then", "drums", "--seconds", "0.5", "--steps", "2"]
    with pytest.raises(SystemExit) as ended:
        cli.main([str(word) for word in [*words, "--out", tmp_path / "p.wav"]])
    assert not ended.value.code
    assert "times as fast as it plays" in capsys.readouterr().out
    wrong = {"--fidelity take no --prompt": ["--prompt", "a", "--fidelity", "0.9"]}
    wrong |= {"--then take a --prompt": ["--then", "a"], "--out take a --prompt": ["--out", "x.wav"]}
    for message, extra in wrong.items():
        with pytest.raises(SystemExit) as ended:
            cli.main(["play", *extra])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
