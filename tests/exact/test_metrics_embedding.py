"""The embedders' checkpoint reader and network, and the perceptual distance, on what is installed."""

import struct
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from sfumato.errors import InputError, MissingExtraError, ModelError
from sfumato.metrics import musicnn
from sfumato.metrics.embedders import embedder
from sfumato.metrics.zimtohrli import zimtohrli_distance


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """A LevelDB block whose keys share prefixes, with one restart point, uncompressed, without checksum."""
    body, last = b"", b""
    for key, value in entries:
        shared = next((i for i, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), min(len(key), len(last)))
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return body + struct.pack("<II", 0, 1)


def write_checkpoint(folder, arrays: dict[str, np.ndarray]) -> None:
    data, entries = b"", [(b"", b"\x08\x01")]
    for name in sorted(arrays):
        array = arrays[name]
        shape = b"".join(b"\x12" + varint(len(d)) + d for d in (b"\x08" + varint(n) for n in array.shape))
        message = b"\x08\x01\x12" + varint(len(shape)) + shape + b"\x20" + varint(len(data))
        message += b"\x28" + varint(array.nbytes) + b"\x35" + struct.pack("<I", 0)
        entries.append((name.encode(), message))
        data += array.astype("<f4").tobytes()
    values = block(entries)
    handle = varint(0) + varint(len(values))
    index = block([(b"zzz", handle)])
    table = values + bytes(5) + index + bytes(5)
    footer = varint(0) + varint(0) + varint(len(values) + 5) + varint(len(index))
    table += footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")
    (folder / ".index").write_bytes(table)
    (folder / ".data-00000-of-00001").write_bytes(data)


def test_reader_returns_what_was_written(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "conv2d/kernel": rng.standard_normal((7, 300, 1, 3)).astype(np.float32),
        "conv2d/bias": rng.standard_normal(3).astype(np.float32),
        "power": np.float32(2.5).reshape(()),
    }
    write_checkpoint(tmp_path, arrays)
    found = musicnn.read_checkpoint(tmp_path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:-48] + b"\xff" * 48])
def test_reader_refuses_damaged_files(tmp_path, damage):
    write_checkpoint(tmp_path, {"a": np.ones(4, np.float32)})
    index = tmp_path / ".index"
    index.write_bytes(damage(index.read_bytes()))
    with pytest.raises(ModelError, match="checkpoint"):
        musicnn.read_checkpoint(tmp_path)


def test_reader_refuses_a_missing_folder(tmp_path):
    with pytest.raises(ModelError, match="can't be read"):
        musicnn.read_checkpoint(tmp_path / "none")


def random_weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {"conv2d": (7, 38, 1, 204), "conv2d_1": (7, 67, 1, 204), "dense": (1506, 200), "dense_1": (200, 50)}
    sizes |= {f"conv2d_{i}": (length, 1, 1, 51) for i, length in ((2, 128), (3, 64), (4, 32))}
    sizes |= {"conv2d_5": (7, 561, 1, 64), "conv2d_6": (7, 64, 1, 64), "conv2d_7": (7, 64, 1, 64)}
    weights = {}
    for layer, size in sizes.items():
        fan_in = int(np.prod(size[:-1]))
        weights[f"{layer}/kernel"] = torch.randn(size, generator=generator) / fan_in**0.5
        weights[f"{layer}/bias"] = 0.1 * torch.randn(size[-1], generator=generator)
    for i, channels in enumerate([1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200]):
        name = f"batch_normalization_{i}" if i else "batch_normalization"
        for part in ("moving_mean", "beta"):
            weights[f"{name}/{part}"] = 0.1 * torch.randn(channels, generator=generator)
        for part in ("moving_variance", "gamma"):
            weights[f"{name}/{part}"] = 1 + torch.rand(channels, generator=generator)
    return weights


def penultimate_by_hand(weights: dict[str, torch.Tensor], patch: np.ndarray) -> np.ndarray:
    """The paper's network for one patch (frames, mels), with numpy and channels last as TensorFlow has them."""
    w = {name: value.double().numpy() for name, value in weights.items()}

    def normal(x, i):
        name = f"batch_normalization_{i}" if i else "batch_normalization"
        scale = w[f"{name}/gamma"] / np.sqrt(w[f"{name}/moving_variance"] + 1e-3)
        return (x - w[f"{name}/moving_mean"]) * scale + w[f"{name}/beta"]

    def convolve(x, i, same):
        kernel = w[f"conv2d_{i}/kernel" if i else "conv2d/kernel"][:, :, 0]
        length, width = kernel.shape[:2]
        x = np.pad(x, ((same[0], same[1]), (0, 0)))
        view = np.lib.stride_tricks.sliding_window_view(x, (length, width))
        return np.maximum(np.tensordot(view, kernel, 2) + w[f"conv2d_{i}/bias" if i else "conv2d/bias"], 0)

    x = normal(patch[..., None], 0)[..., 0]
    pads = [(3, 3), (3, 3), (63, 64), (31, 32), (15, 16)]
    low = np.concatenate([normal(convolve(x, i, p), i + 1).max(axis=1) for i, p in enumerate(pads)], axis=1)
    first = normal(convolve(low, 5, (3, 3))[:, 0], 6)
    second = normal(convolve(first, 6, (3, 3))[:, 0], 7) + first
    third = normal(convolve(second, 7, (3, 3))[:, 0], 8) + second
    features = np.concatenate((low, first, second, third), axis=1)
    pooled = np.stack((features.max(axis=0), features.mean(axis=0)), axis=1).ravel()
    return normal(np.maximum(normal(pooled, 9) @ w["dense/kernel"] + w["dense/bias"], 0), 10)


def test_network_equals_a_channels_last_evaluation():
    weights = random_weights()
    patch = np.random.default_rng(1).standard_normal((20, 96))
    found = musicnn.penultimate(weights, torch.from_numpy(patch).float()[None])
    np.testing.assert_allclose(found[0].numpy(), penultimate_by_hand(weights, patch), atol=1e-4)


def test_patches_are_three_seconds_and_the_rest_is_dropped():
    audio = np.random.default_rng(0).standard_normal(7 * 44100)
    assert musicnn.log_mel_patches(audio, 44100).shape == (2, 187, 96)
    assert musicnn.log_mel_patches(audio[:44100], 44100).shape == (1, 64, 96)
    for bad in (np.zeros((2, 100)), np.zeros(0)):
        with pytest.raises(InputError, match="mono"):
            musicnn.log_mel_patches(bad, 44100)


def test_unknown_embedder_and_missing_package_say_what_to_do(monkeypatch):
    with pytest.raises(InputError, match="musicnn"):
        embedder("vggish")
    monkeypatch.setattr(musicnn, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps musicnn==0\.1\.0"):
        embedder("musicnn")


@pytest.mark.skipif(find_spec("musicnn") is None, reason="the optional package musicnn isn't installed")
def test_shipped_embedding_tells_noise_from_a_melody():
    embed = embedder("musicnn")
    t = np.arange(6 * 16000) / 16000
    melody = sum(np.sin(2 * np.pi * f * t) * np.exp(-3 * (t % 0.5)) for f in (262, 330, 392))
    noise = np.random.default_rng(0).standard_normal(t.size)
    found, again, other = embed(0.1 * melody, 16000), embed(0.11 * melody, 16000), embed(0.1 * noise, 16000)
    assert found.shape == (2, 200)
    assert np.linalg.norm(found - again) < 0.3 * np.linalg.norm(found - other)


def test_zimtohrli_ranks_fills_and_needs_its_package(monkeypatch):
    rng = np.random.default_rng(0)
    t = np.arange(3 * 44100) / 44100
    clip = 0.2 * np.stack([np.sin(2 * np.pi * f * t) for f in (440, 550)]) + 0.01 * rng.standard_normal((2, t.size))
    gap = (60000, 75000)
    near, empty = clip.copy(), clip.copy()
    near[:, slice(*gap)] *= 0.9
    empty[:, slice(*gap)] = 0
    distances = [zimtohrli_distance(clip, fill, gap, 44100) for fill in (clip, near, empty)]
    assert distances[0] == 0
    assert 0 < distances[1] < 0.5 * distances[2]
    far = clip.copy()
    far[:, 75000 + 23000 :] = 0
    assert zimtohrli_distance(clip, far, gap, 44100) == 0
    monkeypatch.setitem(sys.modules, "zimtohrli", None)
    with pytest.raises(MissingExtraError, match=r"sfumato\[eval\]"):
        zimtohrli_distance(clip, near, gap, 44100)
