"""A codec at play time: pieces give what the whole gives, equal to the torch network, and a state is a value."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato import player
from sfumato.errors import InputError, ModelError
from sfumato.folder import read_header
from sfumato.model import Card, Model, load, save
from sfumato.networks import vae
from sfumato.player import weights
from sfumato.signal import pqmf
from sfumato.systems import rave
from sfumato.tasks.timbre import player_of

SMALL = {
    "capacity": 6,
    "capacity_max": 12,
    "ratios": (2, 4),
    "bands": 4,
    "taps": 41,
    "latent": 5,
    "encoder_dilations": ((1, 3), (2,)),
    "decoder_dilations": ((1, 3), (2,)),
}
HOP = 32
KINDS = {
    "gaussian": {},
    "stereo": {"channels": 2},
    "spherical": {"bottleneck": "spherical"},
    "wasserstein": {"bottleneck": "wasserstein"},
    "discrete": {"bottleneck": "discrete", "latent": 12},
}


def make(folder: Path, seed: int = 0, bottleneck: str = "gaussian", **network) -> Path:
    """A model's folder with random weights, loud enough to bend every activation."""
    torch.manual_seed(seed)
    shape = vae.Config(**{**SMALL, **network})
    config = rave.Config(
        sample_rate=8000, judges=None, network=shape, bottleneck=bottleneck, n_codebooks=3, codebook_size=16
    )
    built = rave.build(config).eval()
    with torch.no_grad():
        for parameter in built.codec.parameters():
            parameter.mul_(0.7).add_(0.05 * torch.randn(parameter.shape))
        for book in built.codec.quantiser.layers if bottleneck == "discrete" else ():
            book._codebook.embed.normal_(0, 0.3)
            book._codebook.initted.fill_(True)
        built.codec.latent_basis.copy_(torch.linalg.qr(torch.randn(shape.latent, shape.latent))[0])
        built.codec.latent_scale.copy_(torch.logspace(0, -2, shape.latent))
    save(Model("random", "rave", config, built, Card(sample_rate=8000)), folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("codecs")
    return {kind: make(root / kind, **changes) for kind, changes in KINDS.items()}


@pytest.fixture(scope="module")
def codecs(folders) -> dict[str, player.Player]:
    return {kind: player.load(folder) for kind, folder in folders.items()}


def sound(codec: player.Player, n: int, batch: int = 2, seed: int = 0) -> np.ndarray:
    shape = (batch, codec.channels, n)
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def whole(codec: player.Player, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latent and audio of a whole sound at once."""
    state = codec.init(len(x), block=x.shape[-1])
    latent, _ = codec.encode(x, state)
    return latent, codec.step(x, state)[0]


@torch.no_grad()
def by_torch(folder: Path, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """The same, and the spread, by the network that was trained."""
    codec = load(folder).network.codec
    bands, _ = codec.bank.analyse(torch.from_numpy(x), codec.bank.init(len(x)))
    mean, spread = codec.posterior(codec.encoder(bands)[0])
    latent = mean if codec.quantiser is None else codec.latent_of(codec.codes_of(mean))
    audio, _ = codec.bank.synthesise(codec.decoder(latent)[0], codec.bank.init(len(x)))
    return mean.numpy(), None if spread is None else spread.numpy(), audio.numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_it_plays_what_the_network_was_trained_to(kind, codecs, folders):
    codec = codecs[kind]
    x = sound(codec, 40 * HOP)
    mean, spread, audio = by_torch(folders[kind], x)
    latent, played = whole(codec, x)
    assert np.abs(latent - mean).max() < 1e-5
    assert np.abs(played - audio).max() < 1e-5
    assert np.abs(audio).max() > 1e-3
    _, own, _ = codec.posterior(x, codec.init(2, block=x.shape[-1]))
    assert (own is None) == (spread is None)
    if own is not None:
        assert np.abs(own - spread).max() < 1e-5


def test_the_digest_is_of_weights_and_architecture(folders, tmp_path):
    first = player.load(folders["gaussian"])
    trained = load(folders["gaussian"])
    assert player_of(trained).digest == first.digest

    def changed(card=trained.card, **changes):
        config = trained.config.model_copy(update=changes)
        save(Model("renamed", "rave", config, trained.network, card), tmp_path / "m")
        return player.load(tmp_path / "m").digest

    assert changed() == first.digest
    assert changed(card=Card(figures={"a": 1.0})) == first.digest  # what it is worth is not what it is
    assert changed(seconds=9.0, prior_weight=1.0) == first.digest  # nor is how it came about
    assert changed(sample_rate=8001) != first.digest
    other_bank = trained.config.network.model_copy(update={"attenuation_db": 60.0})
    assert changed(network=other_bank) != first.digest
    with torch.no_grad():
        trained.network.codec.latent_mean[0] += 1
    assert changed() != first.digest


def test_a_level_may_keep_its_rate(tmp_path):
    """With one step a frame at the coarsest level, dilated convolutions of a block of one hop, too, reach back."""
    folder = make(tmp_path / "m", ratios=(8, 1), bands=4)
    codec = player.load(folder)
    x = sound(codec, 20 * HOP)
    _, _, audio = by_torch(folder, x)
    state, made = codec.init(2, block=HOP), []
    for at in range(0, x.shape[-1], HOP):
        y, state = codec.step(x[..., at : at + HOP], state)
        made.append(y)
    assert np.abs(np.concatenate(made, axis=-1) - audio).max() < 1e-5


@pytest.mark.parametrize(
    "change",
    [
        *({"bands": 130, "taps": 301}, {"taps": 20001}, {"taps": 40}, {"taps": 5}, {"attenuation_db": 1e9}),
        *({"capacity": 10**6}, {"capacity_max": 10**6}, {"latent": 10**6}, {"kernel": 100}, {"ratios": (0, 8)}),
        *({"ratios": (-2, -4)}, {"ratios": (64, 64), "bands": 32, "taps": 65}, {"ratios": (2,) * 9}),
        {"encoder_dilations": ((10**6,), (1,))},
        {"decoder_dilations": ((1,) * 17, (1,))},
    ],
)
def test_a_foreign_shape_is_refused_at_once(change, folders):
    header = read_header(folders["gaussian"])
    network = {**header.config["network"], **change}
    given = header.model_copy(update={"config": {**header.config, "network": network}})
    began = time.perf_counter()
    with pytest.raises(ModelError) as refused:
        weights.build(given, {}, "here")
    assert "is missing" not in str(refused.value)
    assert time.perf_counter() - began < 2
    with pytest.raises(ValueError, match=r"network|Config"):
        vae.Config(**network)


def test_the_longest_filter_bank_is_made_quickly():
    began = time.perf_counter()
    bank = pqmf.bank(2, 2047, 80.0)
    assert time.perf_counter() - began < 10 and bank.delay == 2045


@given(st.lists(st.integers(0, 3 * HOP + 5), min_size=1, max_size=30), st.integers(0, 3))
@settings(max_examples=25)
def test_pieces_of_any_length_give_the_whole(codecs, lengths, seed):
    for kind in ("gaussian", "stereo"):
        codec = codecs[kind]
        total = -(-sum(lengths) // HOP) * HOP + HOP
        x = sound(codec, total, seed=seed)
        latent, audio = whole(codec, x)
        state, coding, at = codec.init(2), codec.init(2), 0
        for n in lengths:
            piece = x[..., at : at + n]
            y, state = codec.step(piece, state)
            z, coding = codec.encode(piece, coding)
            assert y.shape == piece.shape
            late = np.pad(audio, ((0, 0), (0, 0), (HOP - 1, 0)))[..., at : at + n]
            assert np.abs(y - late).max(initial=0) < 1e-5
            first = at // HOP
            assert np.abs(z - latent[..., first : first + z.shape[-1]]).max(initial=0) < 1e-5
            assert z.shape[-1] == (at + n) // HOP - first
            at += n


@pytest.mark.parametrize("hops", [1, 2, 3, 7, 64])
def test_promised_blocks_have_no_queue(codecs, hops):
    codec = codecs["gaussian"]
    x = sound(codec, 128 * HOP)
    _, audio = whole(codec, x)
    state, block = codec.init(2, block=hops * HOP), hops * HOP
    for at in range(0, x.shape[-1] // block * block, block):
        y, state = codec.step(x[..., at : at + block], state)
        assert np.abs(y - audio[..., at : at + block]).max() < 1e-5
    assert codec.latency(block) == SMALL["taps"] - SMALL["bands"]
    assert codec.latency() == SMALL["taps"] - SMALL["bands"] + HOP - 1


def test_one_sample_at_a_time(codecs):
    codec = codecs["gaussian"]
    x = sound(codec, 4 * HOP)
    _, audio = whole(codec, x)
    state, made = codec.init(2), []
    for at in range(x.shape[-1]):
        y, state = codec.step(x[..., at : at + 1], state)
        made.append(y)
    made = np.concatenate(made, axis=-1)
    assert np.abs(made[..., HOP - 1 :] - audio[..., : 1 - HOP]).max() < 1e-5
    assert not made[..., : HOP - 1].any()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 50)), min_size=1, max_size=40))
@settings(max_examples=15)
def test_streams_that_take_turns_do_not_hear_each_other(codecs, turns):
    codec = codecs["gaussian"]
    sounds = [sound(codec, 2048, batch=1, seed=i) for i in range(3)]
    states, places, made = [codec.init() for _ in range(3)], [0] * 3, [[], [], []]
    for stream, n in turns:
        y, states[stream] = codec.step(sounds[stream][..., places[stream] : places[stream] + n], states[stream])
        places[stream] += n
        made[stream].append(y)
    for stream, parts in enumerate(made):
        if parts:
            alone, _ = codec.step(sounds[stream][..., : places[stream]], codec.init())
            assert np.abs(np.concatenate(parts, axis=-1) - alone).max() < 1e-5


def test_a_batch_is_its_streams(codecs):
    codec = codecs["stereo"]
    x = sound(codec, 6 * HOP, batch=3)
    _, together = whole(codec, x)
    for i in range(3):
        assert np.abs(whole(codec, x[i : i + 1])[1] - together[i]).max() < 1e-5


def test_a_state_is_a_value(codecs):
    codec = codecs["gaussian"]
    x = sound(codec, 200)
    _, before = codec.step(x, codec.init(2))
    first, _ = codec.step(x, before)
    codec.step(-x, before)
    again, _ = codec.step(x, before)
    put_away, _ = codec.step(x, codec.load_state(codec.save_state(before)))
    assert np.array_equal(first, again) and np.array_equal(first, put_away)
    with pytest.raises(ValueError, match="read-only"):
        before.encoder[0][:] = 0
    assert not np.array_equal(first, codec.step(x, codec.init(2))[0])


def test_a_foreign_state_is_refused(codecs, folders, tmp_path):
    codec = codecs["gaussian"]
    other = player.load(make(tmp_path / "other", seed=1))
    with pytest.raises(InputError, match="another model"):
        codec.step(sound(codec, 10), other.init(2))
    with pytest.raises(InputError, match="another model"):
        codec.load_state(other.save_state(other.init()))


def test_a_damaged_state_is_refused_at_every_byte(codecs):
    codec = codecs["gaussian"]
    _, state = codec.step(sound(codec, 77), codec.init(2))
    data = codec.save_state(state)
    for stop in range(0, len(data), 97):
        with pytest.raises(InputError):
            codec.load_state(data[:stop])
    random = np.random.default_rng(0)
    for at in random.integers(0, len(data), 200):
        broken = bytearray(data)
        broken[at] ^= 0x40
        try:
            read = codec.load_state(bytes(broken))
        except InputError:
            continue
        assert codec.save_state(read) == data  # only what nobody reads was hit


@pytest.mark.parametrize(
    ("shape", "block"), [((1, 1, 64), None), ((2, 2, 64), None), ((2, 64), None), ((2, 1, 33), HOP), ((2, 1, 64), HOP)]
)
def test_wrong_shapes_are_refused(codecs, shape, block):
    with pytest.raises(InputError, match=r"shape|block"):
        codecs["gaussian"].step(np.zeros(shape, np.float32), codecs["gaussian"].init(2, block))


@pytest.mark.parametrize(("batch", "block"), [(0, None), (1, 0), (1, 33), (1, -32)])
def test_wrong_streams_are_refused(codecs, batch, block):
    with pytest.raises(InputError):
        codecs["gaussian"].init(batch, block)


def test_codes_are_the_trained_quantisers(codecs, folders):
    codec, trained = codecs["discrete"], load(folders["discrete"]).network.codec
    latent = np.random.default_rng(0).normal(size=(2, 12, 50)).astype(np.float32)
    with torch.no_grad():
        codes = trained.codes_of(torch.from_numpy(latent)).numpy()
        back = trained.latent_of(torch.from_numpy(codes)).numpy()
    own = codec.codes_of(latent)
    assert np.array_equal(own, codes) and np.abs(codec.latent_of(own) - back).max() < 1e-5
    with pytest.raises(InputError, match="not discrete"):
        codecs["gaussian"].codes_of(latent)


def test_other_models_and_broken_ones_are_refused(folders, tmp_path):
    with pytest.raises(ModelError, match="conffusion"):
        player.load("conffusion")
    with pytest.raises(InputError, match="no model"):
        player.load("nonsense")
    source = folders["gaussian"]
    for name, old, new in (
        ("missing", "latent: 5", "latents: 5"),
        ("shape", "latent: 5", "latent: 6"),
        ("levels", "ratios:\n    - 2\n    - 4", "ratios:\n    - 8"),
    ):
        broken = tmp_path / name
        broken.mkdir()
        (broken / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
        text = (source / "model.yaml").read_text()
        assert old in text
        (broken / "model.yaml").write_text(text.replace(old, new))
        with pytest.raises(ModelError):
            player.load(broken)
    (broken / "model.yaml").write_text((source / "model.yaml").read_text())
    (broken / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:-5])
    with pytest.raises(ModelError):
        player.load(broken)


def test_playing_loads_no_torch(folders):
    code = (
        "import sys, numpy as np\nfrom sfumato import player\n"
        f"codec = player.load({str(folders['discrete'])!r})\n"
        "y, state = codec.step(np.zeros((1, 1, 100), np.float32), codec.init())\n"
        "codec.load_state(codec.save_state(state))\n"
        "assert not [m for m in ('torch', 'soundfile', 'onnxruntime') if m in sys.modules]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
