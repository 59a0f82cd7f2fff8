"""sfumato play on a pretended sound card: what is heard, when, what counts as a dropout, and what is refused."""

import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
from tiny_rave import RATE, make

from sfumato import cli, player
from sfumato.errors import InputError, MissingExtraError, ResourceError
from sfumato.tasks import latency, play
from sfumato.tasks.latent_axes import alter
from sfumato.tasks.play import Settings

HOP = 32
XRUN = types.SimpleNamespace(
    input_underflow=False, input_overflow=False, output_underflow=True, output_overflow=False, priming_output=False
)
PRIMING = types.SimpleNamespace(**{**vars(XRUN), "output_underflow": False, "priming_output": True})


class Card(types.ModuleType):
    """The module sounddevice, with a card that plays a block while it records the next, as fast as it can."""

    class PortAudioError(Exception):
        pass

    def __init__(self, sound, n_outputs=2, statuses=None, dies=False):
        super().__init__("sounddevice")
        self.sound, self.n_outputs, self.statuses = sound, n_outputs, statuses or {}
        self.dies, self.opened, self.closed = dies, None, False
        self.heard, self.default, self.refuses = [], types.SimpleNamespace(device=[0, 1]), False
        self.Stream = lambda **how: Stream(self, how)

    def query_hostapis(self):
        return [{"name": "Pretended"}]

    def query_devices(self, device=None, kind=None):
        cards = [
            {"name": name, "hostapi": 0, "max_input_channels": i, "max_output_channels": o, "default_samplerate": 48e3}
            for name, i, o in (("microphone", len(self.sound), 0), ("speaker", 0, self.n_outputs))
        ]
        if kind is None:
            return cards
        if device is None:
            device = self.default.device[kind == "output"]
            if device < 0:
                raise self.PortAudioError("Error querying device -1")
        if isinstance(device, str):
            found = [card for card in cards if device in card["name"]]
            if not found:
                raise ValueError(f"No {kind} device matching '{device}'")
            return found[0]
        return cards[device]


class Stream:
    latency = (0.010, 0.020)

    def __init__(self, card, how):
        card.opened, self.card, self.how = how, card, how
        if card.refuses:
            raise card.PortAudioError("Invalid sample rate [PaErrorCode -9997]")

    def __enter__(self):
        self.thread = threading.Thread(target=self._play)
        self.thread.start()
        return self

    def _play(self):
        block, (inputs, outputs) = self.how["blocksize"], self.how["channels"]
        waiting = np.zeros((block, outputs), np.float32)  # what was made of a block is played during the next one
        for number in range(self.card.sound.shape[1] // block):
            heard = self.card.sound[:inputs, number * block :][:, :block].T.astype(np.float32)
            made = np.full((block, outputs), np.nan, np.float32)
            self.how["callback"](heard, made, block, None, self.card.statuses.get(number))
            self.card.heard.append(waiting)
            waiting = made
        if self.card.dies:
            self.how["finished_callback"]()

    def __exit__(self, *error):
        self.thread.join()
        self.how["finished_callback"]()
        self.card.closed = True


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("codecs")
    return {channels: make(root / str(channels), channels=channels) for channels in (1, 2)}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(play, "MEASURED_S", 0.01)
    monkeypatch.setattr(play, "CHECKED_S", 0.01)


@pytest.fixture
def carded(monkeypatch):
    def put_in(card):
        monkeypatch.setitem(sys.modules, "sounddevice", card)
        return card

    return put_in


def noise(channels, n):
    return 0.3 * np.random.default_rng(0).standard_normal((channels, n)).astype(np.float32)


def settings(folder, **more):
    return Settings(model=str(folder), **{"seconds": 0.3, **more})


@pytest.mark.parametrize(
    ("block", "how"), [(HOP, {}), (4 * HOP, {}), (50, {}), (7, {"fidelity": 0.7, "bias": ["0=1"]})]
)
def test_what_is_heard_is_the_player_as_late_as_the_ledger_says(block, how, folders, carded):
    codec, x = player.load(folders[1]), noise(1, 60 * HOP)
    card = carded(Card(x))
    ledgers = []
    done = play.run(settings(folders[1], block=block, **how), started=lambda now: ledgers.append(now.ledger))
    heard = np.concatenate(card.heard).T
    assert np.array_equal(heard[0], heard[1])  # a mono codec on both ears
    change = (lambda z: alter(codec.weights, z, 0.7, {0: 1.0}, {})) if how else None
    offline, _ = codec.step(x[None], codec.init(1, block=x.shape[1]), change)
    aligned, total = offline[0, 0, codec.recipe.network.delay :], ledgers[0].total
    n = heard.shape[1] - total
    assert n > 20 * HOP and np.abs(heard[0, total:] - aligned[:n]).max() < 1e-5
    assert np.abs(aligned).max() > 0.01
    assert done.blocks == 60 * HOP // block and card.opened["samplerate"] == RATE and card.closed
    assert card.opened["channels"] == (1, 2) and card.opened["blocksize"] == block


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (1, 2), (2, 1), (6, 8)])
def test_channels_fit_the_card(inputs, outputs, folders, carded):
    codec, x = player.load(folders[2]), noise(inputs, 30 * HOP)
    card = carded(Card(x, n_outputs=outputs))
    play.run(settings(folders[2]))
    both = np.repeat(x, 2, axis=0) if inputs == 1 else x[:2]
    offline, _ = codec.step(both[None], codec.init(1, block=x.shape[1]))
    expected = offline[0].mean(axis=0, keepdims=True) if outputs == 1 else offline[0]
    heard = np.concatenate(card.heard).T
    assert heard.shape[0] == min(outputs, 2)
    assert np.abs(heard[:, HOP:] - expected[:, : heard.shape[1] - HOP]).max() < 1e-5


def test_the_default_block_is_the_hop(folders, carded):
    card = carded(Card(noise(1, 10 * HOP)))
    play.run(settings(folders[1]))
    assert card.opened["blocksize"] == HOP and card.opened["device"] == (None, None)


def test_a_block_that_is_late_is_a_dropout(folders, carded, monkeypatch):
    carded(Card(noise(1, 8 * HOP)))
    slow, step, clock = iter([0, 0, 1, 0, 1, 0, 0, 0]), player.Player.step, [0.0]

    def sometimes_slow(*given):
        if threading.current_thread() is not threading.main_thread() and next(slow):
            clock[0] += 1.5 * HOP / RATE
        return step(*given)

    def pretended():  # in the card's thread time goes on only where a step is slow
        return time.perf_counter() if threading.current_thread() is threading.main_thread() else clock[0]

    monkeypatch.setattr(player.Player, "step", sometimes_slow)
    monkeypatch.setattr(play, "time", types.SimpleNamespace(perf_counter=pretended))
    told = []
    done = play.run(settings(folders[1]), dropped=told.append)
    assert done.late == 2 and done.xruns == 0 and done.worst_ms == pytest.approx(1.5e3 * HOP / RATE)
    assert told and told[-1].late == 2


def test_what_the_card_reports_is_a_dropout_but_not_its_beginning(folders, carded):
    carded(Card(noise(1, 8 * HOP), statuses={0: PRIMING, 3: XRUN, 5: XRUN}))
    assert play.run(settings(folders[1])).xruns == 2


def test_an_interrupt_ends_it_and_closes_the_card(folders, carded, monkeypatch, capsys):
    card = carded(Card(noise(1, 8 * HOP)))
    monkeypatch.setattr(play, "_waited", interrupted)
    monkeypatch.setattr(play, "time", types.SimpleNamespace(perf_counter=lambda: 0.0))  # a busy machine is late
    with pytest.raises(SystemExit) as ended:
        cli.main(["play", "--model", str(folders[1])])
    out = capsys.readouterr().out
    assert not ended.value.code and card.closed
    assert "played" in out and "no dropouts" in out and "filter bank" in out


def interrupted(*given):
    raise KeyboardInterrupt


def test_a_card_that_stops_is_said(folders, carded):
    carded(Card(noise(1, 4 * HOP), dies=True))
    with pytest.raises(ResourceError, match="plugged in"):
        play.run(settings(folders[1], seconds=30))


def test_devices_are_listed(carded, monkeypatch, capsys):
    carded(Card(noise(2, HOP)))
    with pytest.raises(SystemExit):
        cli.main(["play", "--list"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["0", "microphone", "Pretended", "2", "0", "48000", "input"]
    assert lines[2].split() == ["1", "speaker", "Pretended", "0", "2", "48000", "output"]


def test_devices_are_chosen_by_number_or_name(folders, carded):
    card = carded(Card(noise(1, 4 * HOP)))
    play.run(settings(folders[1], input="0", output="speak"))
    assert card.opened["device"] == (0, "speak")


def test_what_cannot_be_played_says_what_to_do(folders, carded, monkeypatch):
    card = carded(Card(noise(1, 4 * HOP)))
    with pytest.raises(InputError, match=r"'trumpet'.*--list"):
        play.run(settings(folders[1], input="trumpet"))
    with pytest.raises(InputError, match="no axis 9"):
        play.run(settings(folders[1], scale=["9=2"]))
    card.refuses = True
    with pytest.raises(InputError, match=r"8000 Hz in blocks of 32: Invalid sample rate"):
        play.run(settings(folders[1]))
    card.default.device = [-1, -1]
    with pytest.raises(ResourceError, match=r"no input device.*Plug one in"):
        play.run(settings(folders[1]))
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingExtraError, match=r"sfumato\[live\]"):
        play.run(settings(folders[1]))


def test_a_missing_portaudio_says_how_to_get_it(monkeypatch, tmp_path):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    with pytest.raises(ResourceError, match="apt install libportaudio2"):
        play.devices()


@pytest.mark.parametrize("flags", [("--block", "0"), ("--bias", "x"), ("--fidelity", "2"), ("--seconds", "-1")])
def test_wrong_flags_are_wrong_usage(flags, folders, carded, capsys):
    carded(Card(noise(1, HOP)))
    with pytest.raises(SystemExit) as ended:
        cli.main(["play", "--model", str(folders[1]), *flags])
    assert ended.value.code == 2


def test_the_ledgers_total_is_the_latencys(folders):
    codec = player.load(folders[1])
    found = latency.measure(codec, 50, seconds=0.01)
    assert found.total == 50 + codec.latency()


def test_playing_loads_no_torch(folders):
    code = (
        "import sys, types\nimport numpy as np\nfrom sfumato.tasks import play\nfrom sfumato import player\n"
        f"settings = play.Settings(model={str(folders[1])!r}, fidelity=0.5)\n"
        "live = play.Live(player.load(settings.model), settings)\n"
        "out = np.ones((32, 2), np.float32)\n"
        "live(np.zeros((32, 1), np.float32), out, 32, None, None)\n"
        "assert live.blocks == 1 and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
