"""Writing: containers, tags, refusals, and that a failure at any point leaves what was there."""

import errno
import os
import resource

import numpy as np
import pytest
import soundfile

from sfumato.audio import Recording, open_recording, to_channels, write, write_edited, write_extended
from sfumato.errors import InputError, ResourceError

SUFFIXES = [".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".m4a"]


def noise(channels: int, n_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (channels, n_samples))


def smooth(n_samples: int) -> np.ndarray:
    return np.tile(0.4 * np.sin(2 * np.pi * 440 / 48_000 * np.arange(n_samples)), (2, 1))


@pytest.mark.parametrize(
    ("suffix", "subtype", "closeness"),
    [(".ogg", "PCM_16", 0.02), (".opus", "PCM_16", 0.02), (".mp3", "PCM_16", 0.02), (".m4a", "FLOAT", 0.02)],
)
def test_lossy_formats_keep_form_length_and_sound(tmp_path, suffix, subtype, closeness):
    source, out = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write(source, smooth(150_001), 48_000, subtype)
    with open_recording(source) as recording:
        before, edit = recording.info, np.zeros((2, 20_000))
        write_edited(recording, out, [(60_000, edit)])
        decoded = recording.read(0, before.n_samples)
    with open_recording(out) as copy:
        after, samples = copy.info, copy.read(0, copy.info.n_samples)
    assert (after.container, after.subtype) == (before.container, before.subtype)
    assert (after.sample_rate, after.channels, after.n_samples) == (48_000, 2, 150_001)
    assert np.abs(samples[:, 5_000:55_000] - decoded[:, 5_000:55_000]).max() < closeness
    assert np.abs(samples[:, 63_000:77_000]).max() < closeness


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tags_are_kept(tmp_path, suffix):
    source, out = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write(source, noise(1, 5_000), 48_000)
    tags = {"title": "Prélude", "artist": "Anon", "comment": "Side B"}
    with open_recording(source) as recording:
        recording.info.tags.update(tags)
        write_edited(recording, source.with_stem("tagged"), [])
    with open_recording(source.with_stem("tagged")) as recording:
        write_edited(recording, out, [])
    if suffix == ".m4a":
        with open_recording(out) as copy:
            found = copy.info.tags
    else:
        with soundfile.SoundFile(out) as file:
            found = file.copy_metadata()
    assert tags.items() <= dict(found).items()


@pytest.mark.parametrize(
    ("subtype", "suffix", "container", "expected"),
    [
        ("PCM_16", ".flac", "FLAC", "PCM_16"),
        ("PCM_32", ".flac", "FLAC", "PCM_24"),
        ("FLOAT", ".flac", "FLAC", "PCM_24"),
        ("DOUBLE", ".aiff", "AIFF", "DOUBLE"),
        ("PCM_24", ".ogg", "OGG", "VORBIS"),
        ("PCM_24", ".opus", "OGG", "OPUS"),
        ("PCM_24", ".MP3", "MP3", "MPEG_LAYER_III"),
        ("PCM_24", ".w64", "W64", "PCM_24"),
    ],
)
def test_the_suffix_decides_the_container(tmp_path, subtype, suffix, container, expected):
    soundfile.write(tmp_path / "a.wav", noise(2, 5_000).T, 48_000, subtype)
    with open_recording(tmp_path / "a.wav") as recording:
        write_edited(recording, tmp_path / f"b{suffix}", [])
    with soundfile.SoundFile(tmp_path / f"b{suffix}") as file:
        assert (file.format, file.subtype, file.frames) == (container, expected, 5_000)


def test_lossy_to_wav_keeps_every_decoded_value(tmp_path):
    write(tmp_path / "a.ogg", noise(2, 5_000), 48_000)
    with open_recording(tmp_path / "a.ogg") as recording:
        write_edited(recording, tmp_path / "b.wav", [])
        decoded = recording.read(0, 5_000)
    assert np.array_equal(soundfile.read(tmp_path / "b.wav")[0].T, decoded)


def test_conversion_rounds_to_the_nearest_step(tmp_path):
    exact = noise(1, 4_000)
    soundfile.write(tmp_path / "a.wav", exact.T, 48_000, "DOUBLE")
    with open_recording(tmp_path / "a.wav") as recording:
        write_edited(recording, tmp_path / "b.flac", [])
    stored = soundfile.read(tmp_path / "b.flac", dtype="int32")[0] >> 8
    assert np.array_equal(stored, np.rint(exact[0] * 2**23))


def test_edits_are_held_within_full_scale(tmp_path):
    write(tmp_path / "a.wav", noise(1, 100), 48_000, "PCM_16")
    with open_recording(tmp_path / "a.wav") as recording:
        write_edited(recording, tmp_path / "b.wav", [(10, np.array([[1.5, -1.5, 1.0, -1.0]]))])
    stored = soundfile.read(tmp_path / "b.wav", dtype="int16")[0]
    assert stored[10:14].tolist() == [32_767, -32_768, 32_767, -32_768]


def test_nan_passes_into_float_files_and_nowhere_else(tmp_path):
    samples = noise(1, 200).astype(np.float32)
    samples[0, 50:60] = np.nan
    soundfile.write(tmp_path / "a.wav", samples.T, 48_000, "FLOAT")
    with open_recording(tmp_path / "a.wav") as recording:
        write_edited(recording, tmp_path / "b.wav", [])
        for name in ("c.flac", "c.ogg", "c.m4a"):
            with pytest.raises(InputError, match="NaN"):
                write_edited(recording, tmp_path / name, [])
        write_edited(recording, tmp_path / "d.flac", [(50, np.zeros((1, 10)))])
    raw = soundfile.read(tmp_path / "b.wav", dtype="float32")[0]
    assert raw.tobytes() == samples.tobytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.wav", "b.wav", "d.flac"]


@pytest.mark.parametrize(
    ("edits", "text"),
    [
        ([(95, np.zeros((1, 10)))], "not inside"),
        ([(-1, np.zeros((1, 10)))], "not inside"),
        ([(0, np.zeros((2, 10)))], "shape"),
        ([(0, np.zeros(10))], "shape"),
        ([(0, np.full((1, 2), np.nan))], "NaN"),
        ([(20, np.zeros((1, 10))), (11, np.zeros((1, 10)))], "overlaps"),
    ],
)
def test_edits_that_do_not_fit_are_refused(tmp_path, edits, text):
    write(tmp_path / "a.wav", noise(1, 100), 48_000)
    with open_recording(tmp_path / "a.wav") as recording, pytest.raises(InputError, match=text):
        write_edited(recording, tmp_path / "b.wav", edits)
    assert not (tmp_path / "b.wav").exists()


def test_the_recording_itself_is_never_overwritten(tmp_path):
    write(tmp_path / "a.wav", noise(1, 100), 48_000)
    (tmp_path / "link.wav").symlink_to("a.wav")
    os.link(tmp_path / "a.wav", tmp_path / "hard.wav")
    before = (tmp_path / "a.wav").read_bytes()
    with open_recording(tmp_path / "a.wav") as recording:
        for name in ("a.wav", "link.wav", "hard.wav", "../" + tmp_path.name + "/a.wav"):
            with pytest.raises(InputError, match="the recording itself"):
                write_edited(recording, tmp_path / name, [])
    assert (tmp_path / "a.wav").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("b", InputError, "does not say how"),
        ("b.txt", InputError, "does not say how"),
        ("gone/b.wav", InputError, "does not exist"),
        ("folder.wav", InputError, "not a regular file"),
        ("fifo.wav", InputError, "not a regular file"),
        ("b.opus", InputError, "44100 Hz"),
        ("b.mp3", InputError, "7 channels"),
        ("b.m4a", InputError, "7 channels"),
    ],
)
def test_destinations_that_can_not_be_are_refused(tmp_path, name, error, text):
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "fifo.wav")
    write(tmp_path / "a.wav", noise(7, 100), 44_100)
    before = sorted(tmp_path.iterdir())
    with open_recording(tmp_path / "a.wav") as recording, pytest.raises(error, match=text):
        write_edited(recording, tmp_path / name, [])
    assert sorted(tmp_path.iterdir()) == before


def test_an_unknown_sample_type_is_refused(tmp_path):
    with pytest.raises(InputError, match="PCM_17"):
        write(tmp_path / "a.wav", noise(1, 10), 48_000, "PCM_17")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("limit_bytes", [0, 10_000])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, suffix, limit_bytes):
    """The kernel refuses to let the file grow beyond the limit, as on a full disk."""
    write(tmp_path / "a.wav", noise(2, 30_000), 48_000)
    out = tmp_path / f"b{suffix}"
    out.write_bytes(b"what was there before")
    with open_recording(tmp_path / "a.wav") as recording:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
        try:
            with pytest.raises(ResourceError, match="can't be written"):
                write_edited(recording, out, [])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert out.read_bytes() == b"what was there before"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.wav", out.name]


@pytest.mark.parametrize(
    ("call", "keeps_old"), [("open", True), ("fsync", True), ("rename", True), ("second fsync", False)]
)
def test_every_call_that_fails_is_reported_and_leaves_no_part(tmp_path, monkeypatch, call, keeps_old):
    write(tmp_path / "a.wav", noise(1, 1_000), 48_000)
    out = tmp_path / "b.wav"
    out.write_bytes(b"old")
    calls = {"n": 0}

    def failing(real, at):
        def wrapper(*arguments, **options):
            calls["n"] += 1
            if calls["n"] == at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **options)

        return wrapper

    with open_recording(tmp_path / "a.wav") as recording, monkeypatch.context() as patch:
        if call == "open":
            patch.setattr(os, "open", failing(os.open, 1))
        elif call == "rename":
            patch.setattr(type(out), "replace", failing(type(out).replace, 1))
        else:
            patch.setattr(os, "fsync", failing(os.fsync, 2 if "second" in call else 1))
        with pytest.raises(ResourceError, match="No space left"):
            write_edited(recording, out, [])
    assert (out.read_bytes() == b"old") == keeps_old
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.wav", "b.wav"]


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".m4a"])
def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, suffix):
    write(tmp_path / "a.wav", noise(1, 200_000), 48_000)
    out = tmp_path / f"b{suffix}"
    out.write_bytes(b"old")
    reads = []

    def interrupted(self, start, stop, real=Recording.read_raw):
        reads.append(start)
        if len(reads) == 3:
            raise KeyboardInterrupt
        return real(self, start, stop)

    with open_recording(tmp_path / "a.wav") as recording:
        monkeypatch.setattr(Recording, "read_raw", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_edited(recording, out, [])
    assert reads == [0, 65_536, 131_072]
    assert out.read_bytes() == b"old"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.wav", out.name]


def test_a_new_file_has_the_ordinary_permissions(tmp_path):
    write(tmp_path / "a.wav", noise(1, 10), 48_000)
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.wav").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "shut").mkdir(mode=0o500)
    with pytest.raises(ResourceError, match="Permission denied"):
        write(tmp_path / "shut" / "a.wav", noise(1, 10), 48_000)


def test_channels_become_their_mean_the_first_ones_or_the_last_again():
    audio = np.array([[1.0, 2.0], [3.0, 5.0], [7.0, 0.0]])
    assert to_channels(audio[:2], 1).tolist() == [[2.0, 3.5]]
    assert to_channels(audio, 2).tolist() == audio[:2].tolist()
    assert to_channels(audio[:2], 4).tolist() == [[1.0, 2.0], [3.0, 5.0], [3.0, 5.0], [3.0, 5.0]]
    assert to_channels(audio.astype(np.float32), 5).dtype == np.float32


def test_a_recording_that_goes_on_keeps_itself_its_tags_and_refuses_what_is_no_sound(tmp_path):
    source, out = tmp_path / "a.flac", tmp_path / "b.flac"
    write(source, noise(2, 5_000), 48_000, "PCM_16")
    more = 3 * noise(2, 70_000, seed=1)
    with open_recording(source) as recording:
        recording.info.tags["title"] = "Prélude"
        write_extended(recording, out, more)
        with pytest.raises(InputError, match="goes on"):
            write_extended(recording, tmp_path / "c.flac", more[:1])
        with pytest.raises(InputError, match="goes on"):
            write_extended(recording, tmp_path / "c.flac", np.full((2, 4), np.nan))
        with pytest.raises(InputError, match="recording itself"):
            write_extended(recording, source, more)
        before = recording.read(0, 5_000)
    with open_recording(out) as copy:
        assert (copy.info.subtype, copy.info.n_samples, copy.info.tags["title"]) == ("PCM_16", 75_000, "Prélude")
        after = copy.read(0, 75_000)
    assert np.array_equal(after[:, :5_000], before)
    np.testing.assert_allclose(after[:, 5_000:], np.clip(more, -1, 1), atol=2**-15)
    assert not (tmp_path / "c.flac").exists()
