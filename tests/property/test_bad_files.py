"""Whatever a file holds, opening it ends: with a recording that can be read, or with an error raised on purpose."""

import os
import socket
import struct

import numpy as np
import pytest
import soundfile

from sfumato.audio import open_recording, write
from sfumato.decoding import Limits
from sfumato.errors import InputError, SfumatoError

SUFFIXES = [".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".caf", ".m4a"]
PATIENCE = Limits(silence_s=20.0, channel_seconds=600.0)


def noise(n_samples: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (2, n_samples))


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    for suffix in SUFFIXES:
        write(folder / f"a{suffix}", noise(6_000), 48_000, "PCM_16")
    return {suffix: (folder / f"a{suffix}").read_bytes() for suffix in SUFFIXES}


def is_handled(path) -> bool:
    """Whether the file opens to finite or counted samples of the length it says; False for an error on purpose."""
    try:
        recording = open_recording(path, PATIENCE)
    except SfumatoError as error:
        assert str(error).isprintable()
        return False
    with recording:
        n_samples = recording.info.n_samples
        samples = recording.read(0, n_samples)
        assert n_samples > 0
        assert samples.shape == (recording.info.channels, n_samples)
        assert np.count_nonzero(~np.isfinite(samples)) == recording.info.nonfinite
    return True


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_mutated_files(tmp_path, originals, suffix):
    """Eight seeded mutants of every format: changed bytes in the header and anywhere, cut and grown files."""
    rng = np.random.default_rng(SUFFIXES.index(suffix))
    outcomes = []
    for number in range(8):
        data = bytearray(originals[suffix])
        reach = 64 if number % 3 == 0 else len(data)
        for _ in range(1 + 2 * number):
            data[int(rng.integers(reach))] = int(rng.integers(256))
        if number % 4 == 3:
            data = data[: int(rng.integers(1, len(data)))]
        if number % 4 == 2:
            at = int(rng.integers(len(data)))
            data[at:at] = rng.bytes(int(rng.integers(1, 500)))
        (tmp_path / "mutant").write_bytes(data)
        outcomes.append(is_handled(tmp_path / "mutant"))
    # Ogg drops every page whose checksum fails, and these short files have one.
    assert any(outcomes) or suffix in (".ogg", ".opus")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff"])
def test_truncated_files_give_what_is_there_and_say_so(tmp_path, originals, suffix):
    data = originals[suffix]
    whole = tmp_path / f"whole{suffix}"
    whole.write_bytes(data)
    with open_recording(whole) as recording:
        full = recording.read(0, recording.info.n_samples)
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: len(data) * 7 // 10])
    try:
        recording = open_recording(path, PATIENCE)
    except InputError:
        # A short Ogg file is a single page, and without its end nothing of it decodes.
        assert suffix in (".ogg", ".opus")
        return
    with recording:
        n_samples = recording.info.n_samples
        assert recording.info.truncated
        assert 0 < n_samples < 6_000
        if suffix not in (".ogg", ".opus", ".mp3"):
            assert np.array_equal(recording.read(0, n_samples), full[:, :n_samples])


def test_a_truncated_ogg_of_many_pages_says_so(tmp_path):
    write(tmp_path / "a.ogg", noise(200_000), 48_000)
    data = (tmp_path / "a.ogg").read_bytes()
    (tmp_path / "b.ogg").write_bytes(data[: len(data) // 2])
    with open_recording(tmp_path / "b.ogg", PATIENCE) as recording:
        assert recording.info.truncated
        assert 0 < recording.info.n_samples < 200_000


def test_a_truncated_m4a_is_refused(tmp_path, originals):
    (tmp_path / "a.m4a").write_bytes(originals[".m4a"][:2_000])
    with pytest.raises(InputError):
        open_recording(tmp_path / "a.m4a", PATIENCE)


@pytest.mark.parametrize(
    ("claimed", "n_samples", "truncated"),
    [(4 * 6_000, 6_000, False), (4 * 60_000, 6_000, True), (0xFFFFFFFF, 6_000, False), (4 * 100, 100, False)],
)
def test_a_wav_header_that_lies_about_the_length(tmp_path, originals, claimed, n_samples, truncated):
    data = bytearray(originals[".wav"])
    at = data.index(b"data")
    data[at + 4 : at + 8] = struct.pack("<I", claimed)
    (tmp_path / "a.wav").write_bytes(data)
    with open_recording(tmp_path / "a.wav") as recording:
        assert (recording.info.n_samples, recording.info.truncated) == (n_samples, truncated)


@pytest.mark.parametrize(("claimed", "truncated"), [(0, False), (6_000, False), (2**35, True)])
def test_a_flac_header_that_lies_about_the_length(tmp_path, originals, claimed, truncated):
    data = bytearray(originals[".flac"])
    word = int.from_bytes(data[18:26], "big") >> 36 << 36  # rate, channels and bits; the low 36 bits count samples
    data[18:26] = (word | claimed).to_bytes(8, "big")
    (tmp_path / "a.flac").write_bytes(data)
    with open_recording(tmp_path / "a.flac", PATIENCE) as recording:
        assert (recording.info.n_samples, recording.info.truncated) == (6_000, truncated)


@pytest.mark.parametrize(
    "content",
    [
        b"\0",
        b"RIFF",
        b"not audio at all\n" * 50,
        b"\xff" * 5_000,
        bytes(100_000),
        np.random.default_rng(5).bytes(50_000),
        b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\x7f" + b"\x01" * 200,
        b"\x89PNG\r\n\x1a\n" + bytes(1_000),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
    ids=["one-byte", "magic", "text", "ones", "zeros", "random", "huge-chunk", "picture", "markup"],
)
def test_content_that_is_not_audio(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    assert not is_handled(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("rate", "channels"), [(0, 2), (1, 2), (2**31, 2), (48_000, 0), (48_000, 1_000)], ids=lambda value: str(value)
)
def test_absurd_rates_and_channels(tmp_path, rate, channels):
    body = bytes(4_000)
    fmt = struct.pack("<HHIIHH", 1, channels, rate, 0, 2 * channels, 16)
    data = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(body)) + body
    (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", len(data)) + data)
    assert not is_handled(tmp_path / "a.wav")


@pytest.mark.parametrize("script", ["ffconcat", "m3u8", "cue"])
def test_playlists_do_not_open_other_files(tmp_path, script):
    soundfile.write(tmp_path / "secret.wav", noise(1_000).T, 48_000)
    text = {
        "ffconcat": "ffconcat version 1.0\nfile secret.wav\n",
        "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n",
        "cue": 'FILE "secret.wav" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    }
    (tmp_path / "list.wav").write_text(text[script])
    assert not is_handled(tmp_path / "list.wav")


def test_things_that_are_not_files(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.wav").touch()
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        names = [tmp_path / name for name in ("fifo", "folder", "empty.wav", "loop", "socket", "gone")]
        for path in [*names, "/dev/zero", "/dev/full", "nul\0.wav", "x" * 5_000, ""]:
            with pytest.raises(InputError):
                open_recording(path, PATIENCE)


def test_a_link_to_a_file_is_followed(tmp_path):
    write(tmp_path / "a.wav", noise(10), 8_000)
    (tmp_path / "link").symlink_to("a.wav")
    assert is_handled(tmp_path / "link")
