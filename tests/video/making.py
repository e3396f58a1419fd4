"""Small videos made on the spot: frame k is a grey that says k, with a coloured corner."""

from fractions import Fraction

import av
import numpy as np

from realisvsr_jax.video.color import from_rgb, tag


def numbered(count, height=32, width=48):
    """uint8 [T, H, W, 3]; frame k is grey 20 + 4k, the corner at the top left is orange."""
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[:] = 20 + 4 * np.arange(count)[:, None, None, None]
    frames[:, : height // 4, : width // 4] = (230, 120, 30)
    return frames


def numbers(frames):
    """Which frames of `numbered` these are, from their middle."""
    middle = frames[:, frames.shape[1] // 2 :, frames.shape[2] // 2 :].mean((1, 2, 3))
    return np.round((middle - 20) / 4).astype(int).tolist()


def make_video(
    path,
    frames,
    times=None,
    *,
    rate=Fraction(25),
    codec="libx264",
    pix_fmt="yuv420p",
    tags=(6, 6, 6, 1),
    aspect=Fraction(1),
    rotation=0,
    sound=None,
    subtitles=(),
    options=None,
    container=None,
):
    """Encodes with PyAV alone; `tags` are matrix, primaries, transfer and range."""
    unit = Fraction(1, 90_000) if codec == "libx264" else 1 / rate
    times = [k / rate for k in range(len(frames))] if times is None else times
    with av.open(str(path), "w", container_options=container or {}) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pix_fmt
        context = stream.codec_context
        stream.time_base = context.time_base = unit
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = tags
        context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(-rotation)
        tone = output.add_stream(sound, rate=48_000, bit_rate=128_000) if sound else None
        if tone is not None:
            tone.layout = "stereo"
        words = _subtitle_stream(output, subtitles)
        matrix = 6 if tags[0] == 2 else tags[0]
        for rgb, time in zip(frames, times):
            frame = from_rgb(rgb, pix_fmt, matrix, tags[3], av.video.reformatter.VideoReformatter())
            frame.colorspace = tags[0]
            tag(frame, tags[1], tags[2])
            frame.pts, frame.time_base = round(time / unit), unit
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if tone is not None:
            _add_tone(output, tone, float(times[-1] + 1 / rate))
        for text, begin, length in subtitles:
            _add_subtitle(output, words, text, begin, length)
    return path


def packets(path, kind):
    """(seconds, bytes) of each packet of the first stream of a kind."""
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams if s.type == kind)
        return [
            (packet.pts * packet.time_base, bytes(packet))
            for packet in container.demux(stream)
            if packet.size
        ]


def _add_tone(output, stream, seconds):
    wave = 0.3 * np.sin(2 * np.pi * 440 / 48_000 * np.arange(round(48_000 * seconds)))
    for first in range(0, wave.size, 1024):
        piece = np.repeat(wave[None, first : first + 1024], 2, 0).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
        frame.rate, frame.pts, frame.time_base = 48_000, first, Fraction(1, 48_000)
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def _subtitle_stream(output, subtitles):
    if not subtitles:
        return None
    codec = "subrip" if output.format.name == "matroska" else "mov_text"
    stream = output.add_mux_stream(codec)
    stream.time_base = Fraction(1, 1000)
    stream.metadata["language"] = "fra"
    return stream


def _add_subtitle(output, stream, text, begin, length):
    data = text.encode()
    if output.format.name != "matroska":
        data = len(data).to_bytes(2, "big") + data
    packet = av.Packet(data)
    packet.stream, packet.time_base = stream, Fraction(1, 1000)
    packet.pts = packet.dts = round(1000 * begin)
    packet.duration = round(1000 * length)
    output.mux(packet)
