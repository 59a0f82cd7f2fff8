"""Reading: the samples and facts of a file against soundfile and scipy, and the decoder's supervision."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile
import soundfile

from sfumato import audio, decoding
from sfumato.audio import open_recording, write
from sfumato.decoding import Limits
from sfumato.errors import InputError, MissingExtraError, ResourceError

SOUNDFILE_FORMATS = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAV", "ULAW"),
    ("WAVEX", "PCM_24"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("AIFF", "PCM_24"),
    ("AIFF", "FLOAT"),
    ("CAF", "PCM_16"),
    ("AU", "PCM_16"),
    ("W64", "PCM_16"),
    ("RF64", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


def tone(channels: int, n_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (channels, n_samples))


def read_all(path: Path) -> tuple[audio.AudioInfo, np.ndarray]:
    with open_recording(path) as recording:
        return recording.info, recording.read(0, recording.info.n_samples)


@pytest.mark.parametrize(("container", "subtype"), SOUNDFILE_FORMATS)
def test_samples_and_facts_equal_those_of_soundfile(tmp_path, container, subtype):
    path = tmp_path / "a.bin"
    with soundfile.SoundFile(path, "w", 48_000, 2, subtype, format=container) as file:
        file.write(tone(2, 70_001).T)
    info, samples = read_all(path)
    assert np.array_equal(samples, soundfile.read(path, dtype="float64", always_2d=True)[0].T)
    facts = (info.container, info.subtype, info.sample_rate, info.channels, info.n_samples, info.truncated)
    assert facts == (container, subtype, 48_000, 2, 70_001, False)


@pytest.mark.parametrize(("dtype", "scale"), [("int16", 2**15), ("int32", 2**31), ("float32", 1), ("float64", 1)])
def test_samples_equal_those_of_scipy(tmp_path, dtype, scale):
    expected = tone(3, 5_000) * 0.9
    stored = (expected * scale).astype(dtype)
    scipy.io.wavfile.write(tmp_path / "a.wav", 44_100, stored.T)
    assert np.array_equal(read_all(tmp_path / "a.wav")[1], stored.astype(np.float64) / scale)


@pytest.mark.parametrize("sample_rate", [8_000, 11_025, 16_000, 22_050, 44_100, 96_000, 192_000])
def test_sample_rate_is_kept(tmp_path, sample_rate):
    write(tmp_path / "a.wav", tone(1, 100), sample_rate, "FLOAT")
    info, samples = read_all(tmp_path / "a.wav")
    assert (info.sample_rate, samples.shape) == (sample_rate, (1, 100))


def test_32_channels_stay_in_order(tmp_path):
    expected = tone(32, 1_000).astype(np.float32)
    write(tmp_path / "a.wav", expected, 48_000, "FLOAT")
    assert np.array_equal(read_all(tmp_path / "a.wav")[1], expected)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".m4a"])
def test_a_single_sample_is_a_recording(tmp_path, suffix):
    write(tmp_path / f"a{suffix}", np.full((1, 1), 0.25), 48_000)
    assert read_all(tmp_path / f"a{suffix}")[0].n_samples == 1


def test_no_samples_are_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((0, 2)), 48_000)
    with pytest.raises(InputError, match="no samples"):
        open_recording(tmp_path / "a.wav")
    with pytest.raises(InputError, match="shape"):
        write(tmp_path / "b.wav", np.zeros((2, 0)), 48_000)


def test_windows_and_blocks_agree_with_the_whole(tmp_path):
    write(tmp_path / "a.flac", tone(2, 10_001), 48_000)
    with open_recording(tmp_path / "a.flac") as recording:
        whole = recording.read(0, 10_001)
        assert np.array_equal(recording.read(777, 9_000), whole[:, 777:9_000])
        assert recording.read(10_001, 10_001).shape == (2, 0)
        blocks = list(recording.blocks(4_096))
        assert [start for start, _ in blocks] == [0, 4_096, 8_192]
        assert np.array_equal(np.concatenate([block for _, block in blocks], axis=1), whole)
        for start, stop in [(-1, 5), (5, 4), (0, 10_002)]:
            with pytest.raises(InputError, match="not inside"):
                recording.read(start, stop)


def test_values_that_are_not_finite_pass_and_are_counted(tmp_path):
    samples = tone(2, 100).astype(np.float32)
    samples[0, 3], samples[1, 50], samples[1, 51] = np.nan, np.inf, -np.inf
    soundfile.write(tmp_path / "a.wav", samples.T, 48_000, "FLOAT")
    info, read = read_all(tmp_path / "a.wav")
    assert info.nonfinite == 3
    assert np.array_equal(read, samples, equal_nan=True)


def test_eight_channels_of_aac(tmp_path):
    """PyAV's own conversion crashes on eight planar channels."""
    expected = np.tile(np.sin(np.arange(20_000) * 0.05) * 0.3, (8, 1))
    write(tmp_path / "a.m4a", expected, 48_000, "FLOAT")
    info, samples = read_all(tmp_path / "a.m4a")
    assert (info.container, info.subtype, samples.shape) == ("M4A", "AAC", (8, 20_000))
    assert np.abs(samples[0, 4_000:16_000] - expected[0, 4_000:16_000]).max() < 0.02


def test_alac_is_exact(tmp_path):
    expected = np.rint(tone(2, 30_000) * 2**15) / 2**15
    write(tmp_path / "a.m4a", expected, 44_100, "PCM_16")
    info, samples = read_all(tmp_path / "a.m4a")
    assert info.subtype == "ALAC"
    assert np.array_equal(samples, expected)


def test_a_file_name_that_is_not_utf8(tmp_path):
    name = os.fsencode(tmp_path) + b"/-caf\xe9 \n\xff.wav"
    write(name, tone(1, 10), 8_000)
    with open_recording(name) as recording:
        assert recording.info.n_samples == 10
    with pytest.raises(InputError) as caught:
        open_recording(name + b".gone")
    assert "\\udce9" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("import os; os.kill(os.getpid(), 11)", "SIGSEGV"),
        ("import sys; sys.exit(5)", "exit code 5"),
        ("import time; time.sleep(60)", "no progress within 0.5 s"),
        ("import os, time; os.close(order['report']); time.sleep(60)", "does not end"),
        ("import os; os.write(order['report'], b'{\"head\": {')", "exit code 0"),
    ],
)
def test_a_decoder_that_misbehaves_is_ended_and_reported(tmp_path, monkeypatch, body, text):
    child = tmp_path / "child.py"
    note = tmp_path / "pid"
    child.write_text(
        "import json, os, sys\n"
        "order = json.loads(sys.argv[1])\n"
        f"open({str(note)!r}, 'w').write(str(os.getpid()))\n{body}"
    )
    write(tmp_path / "a.wav", tone(1, 10), 8_000)
    monkeypatch.setattr(decoding, "_CHILD", child)
    # The interpreter must start within the time, so only the case that waits for it is short.
    with pytest.raises(InputError, match=text):
        open_recording(tmp_path / "a.wav", Limits(silence_s=0.5 if "sleep" in body else 20.0))
    assert not (note.exists() and Path(f"/proc/{note.read_text()}").exists())


def test_a_bomb_is_refused_with_the_limit(tmp_path):
    soundfile.write(tmp_path / "a.flac", np.zeros((400_000, 2), np.int16), 8_000)
    with pytest.raises(InputError, match="more than 20 s of 2 channels"):
        open_recording(tmp_path / "a.flac", Limits(channel_seconds=40.0))
    open_recording(tmp_path / "a.flac", Limits(channel_seconds=100.0)).close()


def test_a_full_disk_for_temporary_files_is_a_matter_of_resources(tmp_path, monkeypatch):
    write(tmp_path / "a.wav", tone(1, 20_000), 8_000, "PCM_16")
    usage = audio.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(audio.shutil, "disk_usage", lambda _: usage._replace(free=audio._KEEP_FREE_BYTES + 1_000))
    with pytest.raises(ResourceError, match="1000 bytes free"):
        open_recording(tmp_path / "a.wav")


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    write(tmp_path / "a.m4a", tone(1, 5_000), 44_100)
    (tmp_path / "av.py").write_text("raise ImportError('not installed')\n")
    (tmp_path / "broken.wav").write_bytes(b"RIFF\x10\0\0\0WAVEnothing here")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match=r"sfumato\[media\]"):
        open_recording(tmp_path / "a.m4a")
    with pytest.raises(InputError, match="libsndfile"):
        open_recording(tmp_path / "broken.wav")
    for content in (b"Dear diary,\n", b"GIF89a" + bytes(500), b"\0" * 400):
        (tmp_path / "text.wav").write_bytes(content)
        with pytest.raises(InputError, match="it is no audio file"):
            open_recording(tmp_path / "text.wav")


def test_a_text_is_no_audio_file_with_pyav_too(tmp_path):
    (tmp_path / "text.wav").write_text("Dear diary,\n" * 100)
    with pytest.raises(InputError, match="it is no audio file"):
        open_recording(tmp_path / "text.wav")


def test_the_decoder_is_light_and_limited(tmp_path):
    write(tmp_path / "a.wav", tone(1, 10), 8_000)
    script = (
        "import json, os, resource, runpy, sys\n"
        f"source = os.open({str(tmp_path / 'a.wav')!r}, os.O_RDONLY)\n"
        f"raw = os.open({str(tmp_path / 'raw')!r}, os.O_RDWR | os.O_CREAT)\n"
        f"report = os.open({str(tmp_path / 'report')!r}, os.O_RDWR | os.O_CREAT)\n"
        "order = dict(source=source, raw=raw, report=report, memory_bytes=2**31, channel_seconds=60, max_bytes=2**20)\n"
        "sys.argv = ['child', json.dumps(order)]\n"
        f"runpy.run_path({str(decoding._CHILD)!r}, run_name='__main__')\n"
        "print(order['memory_bytes'] == resource.getrlimit(resource.RLIMIT_AS)[1])\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'sfumato', 'scipy'}))\n"
    )
    run = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["True", "[]"]
    messages = [json.loads(line) for line in (tmp_path / "report").read_text().splitlines()]
    assert messages[-1]["end"]["n_samples"] == 10


def test_memory_does_not_grow_with_the_length(tmp_path):
    """Peak of reading, editing and writing in this process, and the decoder's resident size, for 4 and 60 seconds."""
    for seconds in (4, 60):
        path = tmp_path / f"{seconds}.flac"
        with soundfile.SoundFile(path, "w", 48_000, 8, "PCM_24") as file:
            for _ in range(seconds):
                file.write(np.zeros((48_000, 8), np.int32))
    script = (
        "import resource, sys, tracemalloc\n"
        "import numpy as np\n"
        "from sfumato.audio import open_recording, write_edited\n"
        "with open_recording(sys.argv[1]) as r: write_edited(r, 'warm-up.flac', [])\n"
        "tracemalloc.start()\n"
        "for path in sys.argv[1:]:\n"
        "    tracemalloc.reset_peak()\n"
        "    with open_recording(path) as r:\n"
        "        n = sum(block.shape[1] for _, block in r.blocks(65_536))\n"
        "        write_edited(r, 'out.flac', [(5, np.ones((8, 9)))])\n"
        "    peak = tracemalloc.get_traced_memory()[1]\n"
        "    print(n, peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    command = [sys.executable, "-c", script, tmp_path / "4.flac", tmp_path / "60.flac"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    short, long = ([int(word) for word in line.split()] for line in run.stdout.splitlines())
    assert (short[0], long[0]) == (4 * 48_000, 60 * 48_000)
    assert long[1] < 1.3 * short[1]
    assert long[2] < 1.3 * short[2]
