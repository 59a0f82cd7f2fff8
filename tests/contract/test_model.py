"""A model's folder: round trip, and every broken or foreign one refused by name."""

import json
import pickle
import struct
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml
from pydantic import Field
from torch import nn

from sfumato import model as models
from sfumato.config import Settings
from sfumato.errors import InputError, ModelError, ResourceError
from sfumato.model import Card, Model, load, read_header, read_tensors, save, shipped, write_tensors


class Config(Settings):
    width: int = Field(3, ge=1, le=64, description="width")


class Network(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.layer = nn.Linear(2, config.width)
        self.norm = nn.BatchNorm1d(config.width)

    def forward(self, x):
        return self.norm(self.layer(x))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "toy_system", SimpleNamespace(Config=Config, build=Network))
    monkeypatch.setitem(models.SYSTEMS, "conffusion", "toy_system")
    torch.manual_seed(0)
    card = Card(licence="CC-BY-4.0", data=("some music",), figures={"SDR at 50 ms, dB": 9.5}, sample_rate=44100)
    save(Model("small", "conffusion", Config(width=5), Network(Config(width=5)), card), tmp_path / "small")
    return tmp_path / "small"


def test_a_folder_gives_back_its_model(folder):
    model = load(folder)
    torch.manual_seed(0)
    original = Network(Config(width=5)).state_dict()
    assert (model.name, model.system, model.config) == ("small", "conffusion", Config(width=5))
    assert model.card.figures == {"SDR at 50 ms, dB": 9.5}
    assert not model.network.training
    for key, value in model.network.state_dict().items():
        assert value.dtype == original[key].dtype
        assert torch.equal(value, original[key].half().to(value.dtype))


def test_weights_are_stored_as_float16_and_the_card_is_readable(folder):
    tensors, _ = read_tensors(folder / "model.safetensors")
    assert tensors["layer.weight"].dtype == torch.float16
    assert tensors["norm.num_batches_tracked"].dtype == torch.int64
    readme = (folder / "README.md").read_text()
    assert "CC-BY-4.0" in readme
    assert "some music" in readme
    assert "SDR at 50 ms, dB: 9.5" in readme


def test_a_wider_type_keeps_every_bit_and_what_float16_cannot_hold(folder):
    torch.manual_seed(0)
    network = Network(Config(width=5))
    network.layer.bias.data[0] = 1e5
    save(Model("small", "conffusion", Config(width=5), network, Card()), folder, torch.float32)
    found = load(folder).network.state_dict()
    assert all(torch.equal(found[key], value) for key, value in network.state_dict().items())


def test_saving_again_replaces_the_folder_and_leaves_nothing_else(folder):
    save(Model("other", "conffusion", Config(), Network(Config()), Card()), folder)
    assert load(folder).name == "other"
    assert [path.name for path in folder.parent.iterdir()] == ["small"]


def test_a_failed_save_leaves_the_old_folder(folder, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(ResourceError, match="No space left"):
        patch.setattr("os.fsync", full)
        save(Model("other", "conffusion", Config(), Network(Config()), Card()), folder)
    assert load(folder).name == "small"
    assert [path.name for path in folder.parent.iterdir()] == ["small"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_weights_that_float16_cannot_hold_are_refused(tmp_path, value):
    network = Network(Config())
    nn.init.constant_(network.layer.bias, value)
    with pytest.raises(ModelError, match=r"layer\.bias is not finite as float16"):
        save(Model("bad", "conffusion", Config(), network, Card()), tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def change_tensors(folder, change):
    tensors, _ = read_tensors(folder / "model.safetensors")
    change(tensors)
    write_tensors(folder / "model.safetensors", tensors, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("layer.bias"), r"layer\.bias is missing"),
        (lambda t: t.update(spare=torch.zeros(1)), "spare is not part"),
        (lambda t: t.update({"layer.bias": torch.zeros(4)}), r"layer\.bias has shape \(4,\), expected \(5,\)"),
        (lambda t: t.update({"layer.bias": torch.zeros(5, dtype=torch.int64)}), r"layer\.bias has type torch.int64"),
        (lambda t: t.update({"layer.bias": torch.full((5,), torch.nan)}), r"layer\.bias holds values that are not"),
    ],
)
def test_wrong_weights_name_their_key(folder, change, message):
    change_tensors(folder, change)
    with pytest.raises(ModelError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format = 2, but this version reads up to 1"),
        ({"format": 0}, "format = 0; possible is 1"),
        ({"format": "1; import os"}, "format"),
        ({"system": "os"}, "system = os; possible are: conffusion"),
        ({"system": "sfumato.systems.conffusion"}, "possible are: conffusion"),
        ({"name": "../../etc"}, "name"),
        ({"config": {"width": 0}}, r"config: width = 0"),
        ({"config": {"widht": 5}}, "Did you mean 'width'"),
        ({"config": {"width": 6}}, r"layer\.weight has shape"),
        ({"surprise": 1}, "unknown setting 'surprise'"),
    ],
)
def test_a_wrong_header_names_its_key(folder, changes, message):
    path = folder / "model.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))
    with pytest.raises(ModelError, match=message):
        load(folder)


def test_a_newer_format_is_told_even_if_its_keys_are_unknown(folder):
    (folder / "model.yaml").write_text("format: 9\nnovelty: 1\n")
    with pytest.raises(ModelError, match="Update sfumato"):
        read_header(folder)


class _Canary:
    """Touches a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        from pathlib import Path

        return (Path.touch, (self.path,))


def test_pickles_are_refused_whatever_their_name(folder, tmp_path):
    canary = tmp_path / "canary"
    for protocol in (2, 3, 4, 5):
        (folder / "model.safetensors").write_bytes(pickle.dumps(_Canary(canary), protocol))
        with pytest.raises(ModelError, match="could run code"):
            load(folder)
    torch.save({"layer.weight": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="could run code"):
        load(folder)
    assert not canary.exists()
    (folder / "model.yaml").unlink()
    (folder / "model.safetensors").rename(folder / "weights.ckpt")
    with pytest.raises(ModelError, match=r"weights\.ckpt is a pickle"):
        load(folder)


def test_every_truncation_is_a_typed_error(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for i in range(64):
        path.write_bytes(whole[: len(whole) * i // 64])
        with pytest.raises(ModelError):
            load(folder)


def test_every_flipped_header_bit_is_a_typed_error_or_harmless(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    refused = 0
    for place in range(0, 8 + length, 5):
        broken = bytearray(whole)
        broken[place] ^= 1 << (place % 8)
        path.write_bytes(broken)
        try:
            load(folder)
        except ModelError:
            refused += 1
    assert refused > 0.8 * (8 + length) / 5


def write_raw(path, header, body):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 12, "holds 12 bytes"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, b"\0" * 12, "begins at byte 4"),
        ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"\0" * 8, "inconsistent"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}, b"", "inconsistent"),
        ({"a": {"dtype": "PY", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8, "inconsistent"),
        ({"a": "text"}, b"", "inconsistent"),
        (
            {k: {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]} for k in "ab"},
            b"\0" * 4,
            "begins at byte 0, expected 4",
        ),
        ([1, 2], b"", "no mapping"),
        (b"[" * 100_000, b"", "no JSON"),
        (b"\xff\xfe not json", b"", "no JSON"),
        ({str(i): {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(20_002)}, b"", "at most 20000"),
    ],
)
def test_headers_that_lie_are_refused_before_the_library_sees_them(tmp_path, header, body, message):
    write_raw(tmp_path / "x.safetensors", header, body)
    with pytest.raises(ModelError, match=message):
        read_tensors(tmp_path / "x.safetensors")


def test_a_header_beyond_8_mb_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    write_raw(path, b" " * (9 << 20), b"")
    with pytest.raises(ModelError, match="truncated or no safetensors"):
        read_tensors(path)


def test_an_unknown_name_says_what_is_possible(tmp_path):
    with pytest.raises(InputError, match=r"no model 'nope'. Shipped models: "):
        load("nope")
    with pytest.raises(ModelError, match=r"holds no model\.yaml"):
        load(tmp_path)


def test_every_shipped_model_loads_and_states_its_card():
    for name in shipped():
        model = load(name)
        assert model.name == name
        assert model.card.licence != "unstated"
        assert model.card.data
