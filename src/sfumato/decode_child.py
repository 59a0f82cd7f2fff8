"""The decoder process: turns one open audio file into raw samples, and tells :mod:`sfumato.audio` how.

Of a video it can also give one picture, to :mod:`sfumato.video`.

It is run by path and imports nothing of this package, only NumPy and soundfile or PyAV, so it starts fast. A
crash, a hang or an endless stream in a codec ends this process alone. It gets its files as descriptors in one JSON
argument and writes JSON lines: one ``head``, ``frames`` now and then, at last ``end`` or ``refused``.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, TextIO

import numpy as np
import soundfile
from numpy.typing import NDArray

REPORT_FRAMES = 65_536
READ_FRAMES = 4_096
CPU_SECONDS = 3_600
SAMPLE_RATES = (1_000, 768_000)
MAX_CHANNELS = 64
MAX_PIXELS = 8192 * 8192
MAX_TAG_LENGTH = 4_096
TAGS = (
    "title", "copyright", "software", "artist", "comment", "date", "album", "license", "tracknumber", "genre",
)  # fmt: skip
# FFmpeg opens only these: playlists and concatenation scripts, which name other files, are left out.
DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,ac3,eac3,asf,ape,tta,tak,amr,amrnb,amrwb,mp3,flac,ogg,wav,aiff,"
    "au,caf,avi,flv,mpegts,mpeg,dsf,iff,w64,dts,truehd,mpc,mpc8,wv"
)
SOUNDFILE_INTEGER_BITS = {
    "PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "ULAW": 16, "ALAW": 16,
    "IMA_ADPCM": 16, "MS_ADPCM": 16, "VOX_ADPCM": 16, "NMS_ADPCM_16": 16, "NMS_ADPCM_24": 16,
    "NMS_ADPCM_32": 16, "GSM610": 16, "G721_32": 16, "G723_24": 16, "G723_40": 16, "DPCM_8": 8, "DPCM_16": 16,
    "DWVW_12": 12, "DWVW_16": 16, "DWVW_24": 24, "ALAC_16": 16, "ALAC_20": 20, "ALAC_24": 24, "ALAC_32": 32,
}  # fmt: skip
# FFmpeg's sample formats: (packed format asked for, NumPy type), each of which holds every value exactly.
FFMPEG_FORMATS = {"u8": ("s16", "<i2"), "s16": ("s16", "<i2"), "s32": ("s32", "<i4"), "dbl": ("dbl", "<f8")}
FFMPEG_FORMATS_DEFAULT = ("flt", "<f4")

# How files begin that FFmpeg may read: magic words, and the types of an MP4's first box.
FFMPEG_STARTS = (
    b"\x1aE\xdf\xa3", b"\x0bw", b"0&\xb2u", b"MAC ", b"TTA", b"tBaK", b"#!AMR", b"ID3", b"FORM", b"FRM8", b"FLV",
    b"DSD ", b"riff", b"MP+", b"MPCK", b"wvpk", b"\x7f\xfe\x80\x01", b"\xfe\x7f\x01\x80", b"\0\0\x01\xba",
    b"\0\0\x01\xb3",
)  # fmt: skip
FFMPEG_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"\xf8ro\xba")

Block = NDArray[Any]


class Refused(Exception):
    """The file can't be decoded within the limits; `kind` is input, resource or missing."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Head:
    """What is known of a stream before its samples are decoded; `bits` is 0 for floating point."""

    sample_rate: int
    channels: int
    container: str
    subtype: str
    dtype: str
    bits: int
    tags: dict[str, str]


class Sink:
    """Appends blocks to the raw file within the limits, counts what isn't finite, reports progress."""

    def __init__(self, raw: BinaryIO, report: TextIO, max_channel_seconds: float, max_bytes: int) -> None:
        self._raw, self._report = raw, report
        self._max_channel_seconds, self._max_bytes = max_channel_seconds, max_bytes
        self.frames = self.nonfinite = self._reported = self._max_frames = 0

    def send(self, **message: Any) -> None:
        """Write one line to the parent."""
        self._report.write(json.dumps(message) + "\n")
        self._report.flush()

    def start(self, head: Head) -> None:
        """Check and report what the stream says of itself."""
        low, high = SAMPLE_RATES
        if not low <= head.sample_rate <= high:
            raise Refused("input", f"sample rate {head.sample_rate} Hz is outside {low} to {high} Hz")
        if not 1 <= head.channels <= MAX_CHANNELS:
            raise Refused("input", f"{head.channels} channels are outside 1 to {MAX_CHANNELS}")
        self._head, self._frame_bytes = head, np.dtype(head.dtype).itemsize * head.channels
        self._max_frames = int(self._max_channel_seconds * head.sample_rate / head.channels)
        self.send(head=head.__dict__)

    def put(self, block: Block) -> None:
        """Append a block of shape (frames, channels)."""
        self.frames += len(block)
        if self.frames > self._max_frames:
            limit_s = self._max_frames / self._head.sample_rate
            channels = self._head.channels
            raise Refused("input", f"it decodes to more than {limit_s:g} s of {channels} channels, the limit")
        if self.frames * self._frame_bytes > self._max_bytes:
            free = f"{self._max_bytes} bytes free for temporary files"
            raise Refused("resource", f"it decodes to more than the {free}")
        if block.dtype.kind == "f":
            self.nonfinite += block.size - int(np.count_nonzero(np.isfinite(block)))
        self._raw.write(np.ascontiguousarray(block).data)
        if self.frames - self._reported >= REPORT_FRAMES:
            self._reported = self.frames
            self.send(frames=self.frames)

    def finish(self, truncated: bool, n_samples: int | None = None) -> None:
        """Report the end; `n_samples` cuts a codec's padding off."""
        n_samples = self.frames if n_samples is None else n_samples
        if n_samples == 0:
            raise Refused("input", "it holds no samples")
        self._raw.flush()
        self._raw.truncate(n_samples * self._frame_bytes)
        self.send(end={"n_samples": n_samples, "nonfinite": self.nonfinite, "truncated": truncated})


class Stream(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file read strictly forwards: soundfile seeks after every block, where libsndfile can hang."""

    def seekable(self) -> bool:
        """Return False."""
        return False


def decode_soundfile(source: BinaryIO, sink: Sink) -> None:
    """Decode with libsndfile."""
    with Stream(source.fileno(), closefd=False) as file:
        bits = SOUNDFILE_INTEGER_BITS.get(file.subtype, 0)
        if bits:
            dtype = "int16" if bits <= 16 else "int32"
        else:
            dtype = "float64" if file.subtype == "DOUBLE" else "float32"
        tags = {key: value[:MAX_TAG_LENGTH] for key, value in file.copy_metadata().items()}
        buffer = np.empty((READ_FRAMES, file.channels), dtype)
        sink.start(Head(file.samplerate, file.channels, file.format, file.subtype, buffer.dtype.str, bits, tags))
        broken = False
        while True:
            try:
                n = file.buffer_read_into(buffer, dtype)
            except soundfile.LibsndfileError:
                broken = True
                break
            if n <= 0:
                break
            sink.put(buffer[:n])
        declared = file.frames if file.frames < 2**62 else 0
        ends_early = sink.frames < declared or _header_promises_more(file.extra_info)
        sink.finish(broken or ends_early or (file.format == "OGG" and not _ogg_has_end(source)))


def _header_promises_more(log: str) -> bool:
    """Whether libsndfile's log says that a chunk is longer than the file; all ones mean "length unknown"."""
    pairs = re.findall(r"(?i)(?:data|ssnd|size|riff|form) *: *(\d+) \(should be (\d+)\)", log)
    return any(int(actual) < int(said) < 0xFFFFFFF0 for said, actual in pairs)


def _ogg_has_end(source: BinaryIO) -> bool:
    """Whether the last page is whole and carries the end-of-stream flag (RFC 3533, section 6)."""
    size = source.seek(0, os.SEEK_END)
    source.seek(max(0, size - 131_072))
    tail = source.read()
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27:
        return False
    lengths = tail[at + 27 : at + 27 + tail[at + 26]]
    return bool(tail[at + 5] & 4) and at + 27 + len(lengths) + sum(lengths) <= len(tail)


def decode_ffmpeg(source: BinaryIO, sink: Sink) -> None:
    """Decode with FFmpeg through PyAV."""
    import av

    options = {"protocol_whitelist": "pipe", "format_whitelist": DEMUXERS}
    with av.open(source, options=options, metadata_errors="replace") as container:
        if not container.streams.audio:
            raise Refused("input", "it holds no audio stream")
        stream = container.streams.audio[0]
        sample_format = stream.codec_context.format.name.removesuffix("p")
        packed, dtype = FFMPEG_FORMATS.get(sample_format, FFMPEG_FORMATS_DEFAULT)
        channels, rate = stream.codec_context.channels, stream.codec_context.sample_rate
        names = container.format.name.split(",")
        metadata = {**container.metadata, **stream.metadata}
        metadata = {key.lower(): value[:MAX_TAG_LENGTH] for key, value in metadata.items()}
        head = Head(
            sample_rate=rate,
            channels=channels,
            container="M4A" if "m4a" in names else names[0].upper(),
            subtype=stream.codec_context.name.upper(),
            dtype=dtype,
            bits=_integer_bits(stream, dtype),
            tags={key: metadata[key] for key in TAGS if key in metadata},
        )
        sink.start(head)
        # Converting to packed samples first matters: PyAV crashes on every planar frame of 8 channels.
        resampler, damage = av.AudioResampler(format=packed), [0]
        for frame in _frames(container, stream, damage):
            frame.pts = None
            try:
                pieces = resampler.resample(frame)
            except ValueError:  # the stream changes its rate or its channels on the way
                damage[0] += 1
                break
            for piece in pieces:
                sink.put(piece.to_ndarray().reshape(-1, channels))
        n_samples = declared = sink.frames
        if stream.duration and stream.time_base:
            declared = round(stream.duration * stream.time_base * rate)
        if 0 < sink.frames - declared < 2_048:  # the last AAC frame is padded; the edit list says by how much
            n_samples = declared
        sink.finish(damage[0] > 0 or declared > sink.frames + max(2_048, rate // 20), n_samples)


def _frames(container: Any, stream: Any, damage: list[int]) -> Iterator[Any]:
    """Yield decoded frames, counting the packets that can't be decoded."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.FFmpegError:
            damage[0] += 1
            return
        try:
            yield from packet.decode()
        except av.FFmpegError:
            damage[0] += 1


def _integer_bits(stream: Any, dtype: str) -> int:
    """Return the bits an integer stream uses of each sample, 0 for floating point."""
    if "i" not in dtype:
        return 0
    said = getattr(stream.codec_context, "bits_per_raw_sample", 0) or 0
    return said if 8 <= said <= 8 * int(dtype[-1]) else 8 * int(dtype[-1])


def decode_frame(source: BinaryIO, raw: BinaryIO, sink: Sink, at_s: float | None) -> None:
    """Write the picture that a video shows at a time, or in its middle: packed RGB, the way up that it is shown."""
    try:
        import av
    except ImportError:
        raise Refused("missing", "") from None
    try:
        options = {"protocol_whitelist": "pipe", "format_whitelist": DEMUXERS}
        with av.open(source, "r", options=options, metadata_errors="replace") as container:
            if not container.streams.video:
                raise Refused("input", "it holds no pictures")
            stream, length_s = container.streams.video[0], (container.duration or 0) / av.time_base
            start_s = float((stream.start_time or 0) * (stream.time_base or 0))
            if at_s is not None and length_s and at_s > length_s:
                raise Refused("input", f"it ends at {length_s:.2f} s, before {at_s:g} s")
            wanted = start_s + (length_s / 2 if at_s is None else at_s)
            if wanted > start_s:
                container.seek(int(wanted / (stream.time_base or 1)), stream=stream)
            shown = None
            for frame in _frames(container, stream, [0]):  # the last one that begins by then
                if shown is not None and frame.time is not None and frame.time > wanted + 1e-6:
                    break
                shown = frame
            if shown is None:
                raise Refused("input", "none of its pictures can be decoded")
            if shown.width * shown.height > MAX_PIXELS:
                raise Refused("input", f"{shown.width} by {shown.height} pixels are more than {MAX_PIXELS}")
            pixels = np.rot90(shown.to_ndarray(format="rgb24"), round(shown.rotation / 90))
            sink.send(head={"height": pixels.shape[0], "width": pixels.shape[1], "at_s": shown.time or 0.0})
            raw.write(np.ascontiguousarray(pixels).data)
            sink.send(end={})
    except av.FFmpegError as error:
        raise Refused("input", f"FFmpeg: {error.strerror}") from None


def decode(source: BinaryIO, sink: Sink) -> None:
    """Decode with libsndfile, or, where it doesn't know the format, with FFmpeg."""
    try:
        return decode_soundfile(source, sink)
    except soundfile.LibsndfileError as error:
        reason = error.error_string
    source.seek(0)
    head = source.read(400)
    native = head[:4] in (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"caff", b".snd")
    known = _needs_ffmpeg(head)
    source.seek(0)
    try:
        import av
    except ImportError:
        if native:
            raise Refused("input", f"libsndfile: {reason}") from None
        if not known:
            raise Refused("input", f"it is no audio file ({reason.rstrip('.')})") from None
        raise Refused("missing", reason) from None
    try:
        decode_ffmpeg(source, sink)
    except av.FFmpegError as error:
        what = "" if native or known else "it is no audio file; "
        raise Refused("input", f"{what}libsndfile: {reason} FFmpeg: {error.strerror}") from None


def _needs_ffmpeg(head: bytes) -> bool:
    """Whether a file begins as one of the containers and streams of `DEMUXERS` does, or like MPEG audio."""
    frame = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    transport = len(head) > 188 and head[0] == head[188] == 0x47
    return head.startswith(FFMPEG_STARTS) or head[4:8] in FFMPEG_BOXES or frame or transport


def main(order: dict[str, Any]) -> None:
    """Set this process's limits, then decode as `order` says."""
    resource.setrlimit(resource.RLIMIT_AS, (order["memory_bytes"],) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with (
        os.fdopen(order["report"], "w", encoding="ascii") as report,
        os.fdopen(order["raw"], "wb") as raw,
        os.fdopen(order["source"], "rb", buffering=0) as source,
    ):
        sink = Sink(raw, report, order["channel_seconds"], order["max_bytes"])
        try:
            if "frame_s" in order:
                decode_frame(source, raw, sink, order["frame_s"])
            else:
                decode(source, sink)
        except Refused as refused:
            sink.send(refused={"kind": refused.kind, "message": str(refused)})
        except MemoryError:
            message = f"decoding it needs more than {order['memory_bytes'] >> 20} MiB of memory"
            sink.send(refused={"kind": "input", "message": message})
        except OSError as error:
            sink.send(refused={"kind": "resource", "message": f"no room for what it holds: {error.strerror}"})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
