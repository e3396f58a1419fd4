"""Sound and subtitles: packet by packet, in step, cut with the frames; what does not fit."""

import logging
from fractions import Fraction

import av
import numpy as np
import pytest
from making import make_video, numbered, packets

from realisvsr_jax import video

LINES = (("one", 0.2, 0.3), ("two", 0.6, 0.4), ("three", 1.1, 0.1))


def kinds(path):
    with av.open(str(path)) as container:
        return [(s.type, s.codec_context.codec.canonical_name) for s in container.streams]


def sound(path):
    """Samples of the first channel and the second at which the first one is heard."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
        rate = container.streams.audio[0].rate
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]), frames[0].time, rate


@pytest.mark.parametrize("output", ["out.mp4", "out.mov", "out.mkv"])
@pytest.mark.parametrize("source", ["in.mp4", "in.mkv"])
def test_packets_of_sound_are_copied_as_they_are(tmp_path, source, output):
    source = make_video(tmp_path / source, numbered(30), sound="aac")
    video.write_video(tmp_path / output, numbered(30), source=source)
    expected, copied = packets(source, "audio"), packets(tmp_path / output, "audio")
    assert [data for _, data in copied] == [data for _, data in expected]
    shift = [abs(a - b) for (a, _), (b, _) in zip(copied, expected)]
    assert max(shift) <= Fraction(1, 1000)
    assert video.read_video(tmp_path / output).times == tuple(Fraction(k, 25) for k in range(30))


def test_all_tracks_are_kept_with_their_languages(tmp_path):
    for suffix in ("mp4", "mkv"):
        source = make_video(tmp_path / f"in.{suffix}", numbered(30), sound="aac", subtitles=LINES)
        output = tmp_path / f"out.{suffix}"
        video.write_video(output, numbered(30), source=source)
        assert kinds(output) == kinds(source)
        lines = [(time, data) for time, data in packets(source, "subtitle") if len(data) > 2]
        assert [line for line in packets(output, "subtitle") if len(line[1]) > 2] == lines
        with av.open(str(output)) as container:
            assert container.streams.subtitles[0].language == "fra"


@pytest.mark.parametrize("output", ["out.mp4", "out.mkv"])
def test_a_cut_takes_the_sound_and_the_lines_of_its_frames(tmp_path, output):
    suffix = output[-4:]
    source = make_video(tmp_path / f"in{suffix}", numbered(30), sound="aac", subtitles=LINES)
    start, end = Fraction(8, 25), Fraction(20, 25)
    cut = video.read_video(source, 8, 12)
    video.write_video(
        tmp_path / output,
        cut.frames,
        times=cut.times,
        info=cut.info,
        source=source,
        start=start,
        end=end,
    )
    expected = packets(source, "audio")
    copied = packets(tmp_path / output, "audio")
    first = next(k for k, (_, data) in enumerate(expected) if data == copied[0][1])
    assert [data for _, data in copied] == [d for _, d in expected[first : first + len(copied)]]
    for (time, _), (original, _) in zip(copied, expected[first:]):
        assert abs(time - (original - start)) <= Fraction(1, 500)
    assert -Fraction(1024, 48_000) <= copied[0][0] <= Fraction(1, 1000)
    assert end - start - Fraction(1024, 48_000) <= copied[-1][0] < end - start
    lines = [(t, d) for t, d in packets(tmp_path / output, "subtitle") if len(d) > 2]
    assert [data.strip(b"\0")[-3:] for _, data in lines] == [b"one", b"two"]
    assert [float(time) for time, _ in lines] == pytest.approx([0, 0.28], abs=2e-3)
    assert video.read_video(tmp_path / output).times[0] == 0


def test_a_cut_deep_in_a_file_is_found_by_seeking(tmp_path):
    rate = Fraction(1)
    source = make_video(tmp_path / "in.mp4", numbered(34, 16, 16), rate=rate, sound="aac")
    video.write_video(
        tmp_path / "out.mkv", numbered(2, 16, 16), rate, source=source, start=Fraction(30)
    )
    copied, expected = packets(tmp_path / "out.mkv", "audio"), packets(source, "audio")
    first = next(k for k, (_, data) in enumerate(expected) if data == copied[0][1])
    assert abs(expected[first][0] - 30) <= Fraction(1024, 48_000)
    assert [data for _, data in copied] == [d for _, d in expected[first : first + len(copied)]]
    assert 1.95 < copied[-1][0] < 2


@pytest.mark.parametrize("name", ["in.mpg", "in.ts"])
def test_streams_that_start_anywhere_stay_in_step(tmp_path, name):
    options = {"qmin": "1", "qmax": "2"}
    source = make_video(
        tmp_path / name, numbered(30), codec="mpeg2video", sound="mp2", options=options
    )
    clip = video.read_video(source)
    video.write_video(tmp_path / "out.mp4", clip.frames, source=source)
    assert video.read_video(tmp_path / "out.mp4").times == clip.times
    delay = packets(source, "audio")[0][0] - packets(source, "video")[0][0]
    copied = packets(tmp_path / "out.mp4", "audio")[0][0] - clip.times[0]
    assert abs(copied - delay) < Fraction(1, 1000)


def test_sound_that_does_not_fit_becomes_aac(tmp_path, caplog):
    options = {"qmin": "1", "qmax": "2"}
    source = make_video(
        tmp_path / "in.avi", numbered(30), codec="mpeg4", sound="wmav2", options=options
    )
    with caplog.at_level(logging.WARNING):
        video.write_video(tmp_path / "out.mp4", numbered(30), source=source)
    assert kinds(tmp_path / "out.mp4") == [("video", "h264"), ("audio", "aac")]
    assert [record.getMessage() for record in caplog.records] == [
        f"{source}: audio track 1 (wmav2) does not fit into mp4 and is re-encoded as AAC"
    ]
    wave, begin, rate = sound(tmp_path / "out.mp4")
    assert abs(begin) < 0.1  # WMA's decoder opens two packets late
    assert begin + len(wave) / rate == pytest.approx(1.2, abs=0.1)
    spectrum = np.abs(np.fft.rfft(wave[4800:43200]))
    assert spectrum.argmax() * rate / 38400 == pytest.approx(440, abs=2)


def test_subtitles_that_do_not_fit_are_left_out_with_a_word(tmp_path, caplog):
    source = make_video(tmp_path / "in.mkv", numbered(30), sound="aac", subtitles=LINES)
    with caplog.at_level(logging.WARNING):
        video.write_video(tmp_path / "out.mp4", numbered(30), source=source)
    assert kinds(tmp_path / "out.mp4") == [("video", "h264"), ("audio", "aac")]
    assert [record.getMessage() for record in caplog.records] == [
        f"{source}: subtitle track 2 (srt) does not fit into mp4 and is left out"
    ]


def test_uncompressed_sound_survives(tmp_path):
    source = make_video(tmp_path / "in.mkv", numbered(10), sound="pcm_s16le")
    for name in ("out.mp4", "out.mov", "out.mkv"):
        video.write_video(tmp_path / name, numbered(10), source=source)
        expected, copied = (sound(path)[0] for path in (source, tmp_path / name))
        np.testing.assert_array_equal(copied, expected)


def test_sound_longer_than_the_frames_ends_with_them_where_they_are_fewer(tmp_path):
    source = make_video(tmp_path / "in.mp4", numbered(50), sound="aac")
    video.write_video(tmp_path / "out.mp4", numbered(10), source=source)
    assert packets(tmp_path / "out.mp4", "audio")[-1][0] < Fraction(10, 25)


def test_sound_lies_beside_its_frames_in_the_file(tmp_path):
    source = make_video(tmp_path / "in.mp4", numbered(100, 64, 64), rate=Fraction(4), sound="aac")
    video.write_video(tmp_path / "out.mp4", numbered(100, 64, 64), source=source)
    with av.open(str(tmp_path / "out.mp4")) as container:
        places = {
            stream.type: [(e.pos, e.timestamp * stream.time_base) for e in stream.index_entries]
            for stream in container.streams
        }
    for position, time in places["audio"][::50]:
        nearest = min(places["video"], key=lambda place: abs(place[0] - position))
        assert abs(nearest[1] - time) < 12


def test_damaged_sound_does_not_cost_the_frames(tmp_path, caplog):
    source = make_video(tmp_path / "in.mkv", numbered(30), sound="mp2")
    data = bytearray(source.read_bytes())
    for _, packet in packets(source, "audio")[10:20]:
        place = data.find(packet)
        data[place : place + 40] = b"\xff" * 40
    source.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        video.write_video(tmp_path / "out.mp4", numbered(30), source=source)
    assert len(video.read_video(tmp_path / "out.mp4").frames) == 30
