"""Sound and subtitles of one file into another, packet by packet and in step with the frames."""

import io
import itertools
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from typing import Any

import av
from av.container import OutputContainer

from realisvsr_jax.video.info import opened, start_of
from realisvsr_jax.video.reading import PathLike

log = logging.getLogger(__name__)

_AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)
# Seconds by which packets may stand before or behind their time in a file.
_SLACK = 10


class Tracks:
    """Copies the sound and the subtitles of `source` from `start` to `end` into `output`.

    Seconds count as in `read_video`; `start` becomes 0. Sound that the container cannot hold is
    re-encoded as AAC, subtitles that it cannot hold are left out; the log says so in a line.
    One packet at most is held back.
    """

    def __init__(
        self,
        source: PathLike,
        output: OutputContainer,
        start: Fraction = Fraction(0),
        end: Fraction | None = None,
    ):
        self._source, self._output, self._start = source, output, start
        self._length = None if end is None else end - start
        self._stack = ExitStack()
        self._input = self._stack.enter_context(opened(source))
        self._tracks: dict[int, _Track] = {}
        for stream in self._input.streams:
            track = _track(stream, output, source)
            if track is not None:
                self._tracks[stream.index] = track
            else:
                stream.discard = av.stream.Discard.all
        self._packets = self._within()
        self._held: Any = next(self._packets, None)

    def copy_until(self, time: Fraction | None) -> None:
        """Writes what comes before `time`, in seconds of the output; None: all that is left."""
        while self._held is not None and (time is None or _time(self._held) < time):
            self._write(self._held.stream.index, self._held)
            self._held = next(self._packets, None)
        for index in list(self._tracks) if time is None else ():
            self._write(index, None)

    def close(self) -> None:
        """Closes the source."""
        self._packets.close()
        self._stack.close()

    def _within(self) -> Iterator[Any]:
        """Packets from the start to the end, with timestamps that count from the start."""
        if not self._tracks:
            return
        origin = start_of(self._input) + self._start
        self._seek()
        try:
            for packet in self._input.demux(*(self._input.streams[k] for k in self._tracks)):
                track = self._tracks.get(packet.stream.index)
                if track is None or not packet.size or not track.shift(packet, origin):
                    continue
                if self._start and _end(packet) <= 0:
                    continue
                if self._length is not None and _time(packet) >= self._length:
                    if _time(packet) >= self._length + _SLACK:
                        return
                    continue
                if packet.stream.type == "subtitle":
                    _clip(packet, self._length)
                yield packet
        except (av.FFmpegError, OSError):
            log.warning("%s is damaged; its sound ends early in the output", self._source)

    def _seek(self) -> None:
        """Skips what is long before the start, in formats whose index can be trusted."""
        if self._start > _SLACK and {"mp4", "matroska"} & set(self._input.format.name.split(",")):
            self._input.seek(int((self._start - _SLACK) * av.time_base))

    def _write(self, index: int, packet: Any) -> None:
        track = self._tracks.get(index)
        if track is None:
            return
        try:
            for ready in track.ready(packet):
                self._output.mux(ready)
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, OSError):
                raise
            del self._tracks[index]
            log.warning("%s: track %d is damaged and ends early in the output", self._source, index)


class _Track:
    """A stream whose packets are copied as they are."""

    def __init__(self, stream: Any, target: Any):
        self._stream, self._target = stream, target
        self._last: Fraction | None = None
        self._step = Fraction(0)
        self._exact = _packet_time(stream)
        target.metadata.update(stream.metadata)
        target.disposition = stream.disposition

    def shift(self, packet: Any, origin: Fraction) -> bool:
        """Makes timestamps count from `origin`, and never run back; False if there are none."""
        unit, stamp = packet.time_base, packet.pts if packet.pts is not None else packet.dts
        time = self._next(None if stamp is None else stamp * unit - origin, unit)
        if time is None:
            return False
        if self._exact:
            packet.time_base = unit = Fraction(1, self._stream.rate)
            packet.duration = round(self._exact / unit)
        self._last, self._step = time, max(packet.duration or 0, 1) * unit
        packet.pts = packet.dts = round(time / unit)
        return True

    def _next(self, time: Fraction | None, unit: Fraction) -> Fraction | None:
        """When a packet is heard: what the file says in steps of `unit`, mended by the last one."""
        if self._last is None:
            return time
        if self._stream.type == "subtitle":
            return self._last if time is None else max(time, self._last)
        follows = self._last + self._step
        # Within what the source rounds, samples are counted, so that no jitter is copied.
        rounded = time is not None and self._exact and abs(time - follows) <= unit
        return follows if time is None or time <= self._last or rounded else time

    def ready(self, packet: Any) -> list[Any]:
        """What goes into the output for a packet of the source, or for None at its end."""
        if packet is None:
            return []
        packet.stream = self._target
        return [packet]


class _Reencoded(_Track):
    """A stream of sound that becomes AAC."""

    def __init__(self, stream: Any, target: Any):
        super().__init__(stream, target)
        self._heard: Fraction | None = None

    def ready(self, packet: Any) -> list[Any]:
        try:
            frames = self._stream.codec_context.decode(packet)
        except av.error.InvalidDataError:
            return []
        for frame in frames:
            self._count(frame)
        packets = [ready for frame in frames for ready in self._target.encode(frame)]
        return packets if packet is not None else packets + self._target.encode(None)

    def _count(self, frame: Any) -> None:
        """Times a frame by the samples before it; a gap of more than 0.1 s stays a gap."""
        unit, time = Fraction(1, frame.sample_rate), self._heard
        if frame.pts is not None:
            stamp = frame.pts * frame.time_base
            time = stamp if time is None or stamp - time > Fraction(1, 10) else time
        time = time or Fraction(0)
        frame.time_base, frame.pts = unit, round(time / unit)
        self._heard = time + frame.samples * unit


def _track(stream: Any, output: OutputContainer, source: PathLike) -> _Track | None:
    """A stream's way into the output; None for what is not sound and for what is left out."""
    if stream.type not in ("audio", "subtitle"):
        return None
    name = "unknown" if stream.codec_context is None else stream.codec_context.name
    what = f"{source}: {stream.type} track {stream.index} ({name})"
    if _taken(stream, output.format.name, source):
        return _Track(stream, _twin(stream, output))
    if stream.type == "audio" and stream.codec_context is not None:
        log.warning("%s does not fit into %s and is re-encoded as AAC", what, output.format.name)
        return _Reencoded(stream, _aac(stream, output))
    log.warning("%s does not fit into %s and is left out", what, output.format.name)
    return None


def _taken(stream: Any, container: str, source: PathLike) -> bool:
    """Whether a container takes a stream as it is: tried with a packet of it, in memory."""
    try:
        with opened(source) as again, av.open(io.BytesIO(), "w", format=container) as trial:
            target = _twin(stream, trial)
            trial.start_encoding()
            packets = again.demux(again.streams[stream.index]) if stream.type == "audio" else ()
            for packet in itertools.islice(packets, 1):
                packet.stream, packet.pts, packet.dts = target, 0, 0
                trial.mux(packet)
            trial.close()
    except (ValueError, av.FFmpegError):
        return False
    return True


def _twin(stream: Any, output: OutputContainer) -> Any:
    """A stream of the output for packets of `stream`."""
    target = output.add_stream_from_template(stream)
    if stream.type == "audio":
        target.layout = _layout(stream)
    return target


def _layout(stream: Any) -> str:
    """The speakers of a stream; mono and stereo where the file gives only their number."""
    name = str(stream.layout.name)
    return {"1 channels": "mono", "2 channels": "stereo"}.get(name, name)


def _packet_time(stream: Any) -> Fraction:
    """Seconds of a packet where the codec fixes them and the file rounds them; else 0."""
    size = getattr(stream.codec_context, "frame_size", 0)
    if not size or not stream.rate or stream.time_base <= Fraction(1, stream.rate):
        return Fraction(0)
    return Fraction(size, stream.rate)


def _aac(stream: Any, output: OutputContainer) -> Any:
    """An AAC stream like `stream`, at 96 kbit/s a channel."""
    rate = stream.rate if stream.rate in _AAC_RATES else 48000
    target = output.add_stream("aac", rate=rate)
    target.layout = _layout(stream) if stream.layout.nb_channels <= 2 else "stereo"
    target.bit_rate = 96_000 * target.layout.nb_channels
    return target


def _clip(packet: Any, length: Fraction | None) -> None:
    """Shows a subtitle from 0 at the earliest and to `length` at the latest."""
    last = packet.pts + (packet.duration or 0)
    if length is not None:
        last = min(last, round(length / packet.time_base))
    packet.pts = packet.dts = max(packet.pts, 0)
    packet.duration = max(last - packet.pts, 0)


def _time(packet: Any) -> Fraction:
    return packet.pts * packet.time_base


def _end(packet: Any) -> Fraction:
    return _time(packet) + (packet.duration or 0) * packet.time_base
