"""Writing: what is read back is what was written, at its times, in its colours."""

from fractions import Fraction

import av
import numpy as np
import pytest
from making import make_video, numbered, numbers

from realisvsr_jax import video
from realisvsr_jax.errors import InputError

VARIABLE = tuple(Fraction(k, 1000) for k in (0, 40, 60, 160, 161, 500, 540, 1540))


def noise(count, height=32, width=48):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def pixel_format(path):
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).format.name


@pytest.mark.parametrize("name", ["out.mp4", "out.m4v", "out.mov", "out.MKV"])
def test_every_frame_comes_back_once_and_on_time(tmp_path, name):
    video.write_video(tmp_path / name, numbered(40))
    clip = video.read_video(tmp_path / name)
    assert numbers(clip.frames) == list(range(40))
    assert clip.times == tuple(Fraction(k, 25) for k in range(40))
    assert clip.info.rate == 25
    assert video.count_frames(tmp_path / name) == 40


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
@pytest.mark.parametrize(("height", "width"), [(32, 48), (31, 47), (1, 3), (2, 2)])
def test_lossless_is_equal_byte_for_byte(tmp_path, name, height, width):
    frames = noise(4, height, width)
    video.write_video(tmp_path / name, frames, lossless=True)
    np.testing.assert_array_equal(video.read_video(tmp_path / name).frames, frames)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(32, 48, "yuv420p"), (32, 47, "yuv444p"), (31, 48, "yuv444p"), (1, 1, "yuv444p")],
)
def test_odd_sizes_keep_their_size_with_full_chroma(tmp_path, height, width, expected):
    frames = np.broadcast_to(np.uint8([200, 90, 40]), (3, height, width, 3))
    video.write_video(tmp_path / "out.mp4", frames)
    clip = video.read_video(tmp_path / "out.mp4")
    assert clip.frames.shape == frames.shape
    assert np.abs(clip.frames.astype(int) - frames).max() <= 4
    assert pixel_format(tmp_path / "out.mp4") == expected


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
def test_a_variable_rate_is_kept(tmp_path, name, lossless):
    rate = Fraction(123_457, 5003)  # an average that no unit of time divides
    video.write_video(tmp_path / name, numbered(8), rate, times=VARIABLE, lossless=lossless)
    clip = video.read_video(tmp_path / name)
    assert clip.times == VARIABLE
    assert numbers(clip.frames) == list(range(8))


def test_ntsc_is_exact_in_mp4_and_within_half_a_millisecond_in_matroska(tmp_path):
    rate = Fraction(30000, 1001)
    times = tuple(k / rate for k in range(60))
    for name, error in (("out.mp4", Fraction(0)), ("out.mkv", Fraction(1, 2000))):
        video.write_video(tmp_path / name, numbered(60, 16, 16), rate)
        clip = video.read_video(tmp_path / name)
        assert max(abs(a - b) for a, b in zip(clip.times, times, strict=True)) <= error
        assert clip.info.rate == rate


def test_a_late_first_frame_stays_late(tmp_path):
    times = [Fraction(1, 3) + Fraction(k, 24) for k in range(6)]
    video.write_video(tmp_path / "out.mp4", numbered(6), Fraction(24), times=times)
    assert video.read_video(tmp_path / "out.mp4").times == tuple(times)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_the_last_frame_is_shown_as_long_as_the_rate_says(tmp_path, name):
    for count in (1, 25):
        video.write_video(tmp_path / name, numbered(count), Fraction(25), overwrite=True)
        with av.open(str(tmp_path / name)) as container:
            assert container.duration == count * 40_000


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
@pytest.mark.parametrize("tags", [(1, 1, 1, 1), (6, 5, 6, 1), (9, 9, 16, 1), (5, 5, 6, 2)])
def test_tags_and_pixel_aspect_are_those_of_the_input(tmp_path, name, tags):
    source = make_video(
        tmp_path / "in.mp4", numbered(4), tags=tags, aspect=Fraction(16, 11), options={"crf": "5"}
    )
    clip = video.read_video(source)
    video.write_video(tmp_path / name, clip.frames, source=source)
    again = video.read_video(tmp_path / name)
    info = again.info
    assert (info.colorspace, info.primaries, info.transfer, info.color_range) == tags
    assert info.sample_aspect_ratio == Fraction(16, 11)
    assert (
        np.abs(clip.frames[..., :24, 24:, :].astype(int) - again.frames[..., :24, 24:, :]).max()
        <= 3
    )


@pytest.mark.parametrize(("height", "matrix"), [(32, 6), (720, 1)])
def test_an_untagged_input_gets_the_tag_of_the_matrix_that_was_used(tmp_path, height, matrix):
    source = make_video(tmp_path / "in.mp4", numbered(2), tags=(2, 2, 2, 0))
    assert video.probe(source).colorspace == 2
    frames = np.broadcast_to(np.uint8([210, 60, 40]), (2, height, 32, 3))
    video.write_video(tmp_path / "out.mp4", frames, source=source)
    clip = video.read_video(tmp_path / "out.mp4")
    assert (clip.info.colorspace, clip.info.primaries, clip.info.color_range) == (matrix, 2, 1)
    assert np.abs(clip.frames.astype(int) - frames).max() <= 3


def test_a_lossless_input_becomes_an_ordinary_video(tmp_path):
    video.write_video(tmp_path / "in.mkv", numbered(3), lossless=True)
    info = video.probe(tmp_path / "in.mkv")
    assert (info.colorspace, info.color_range) == (0, 2)
    video.write_video(tmp_path / "out.mp4", numbered(3), source=tmp_path / "in.mkv")
    info = video.probe(tmp_path / "out.mp4")
    assert (info.pix_fmt, info.colorspace, info.color_range) == ("yuv420p", 6, 1)


def test_the_times_of_the_source_are_taken_where_it_has_as_many_frames(tmp_path):
    source = make_video(tmp_path / "in.mp4", numbered(8), VARIABLE)
    video.write_video(tmp_path / "same.mp4", numbered(8), source=source)
    assert video.read_video(tmp_path / "same.mp4").times == VARIABLE
    video.write_video(tmp_path / "fewer.mp4", numbered(5), source=source)
    rate = video.probe(source).rate
    assert video.read_video(tmp_path / "fewer.mp4").times == tuple(k / rate for k in range(5))


def test_a_cut_starts_at_zero(tmp_path):
    source = make_video(tmp_path / "in.mp4", numbered(8), VARIABLE)
    cut = video.read_video(source, 3, 4)
    with video.VideoWriter(tmp_path / "out.mp4", cut.info, start=cut.times[0]) as writer:
        for frame, time in zip(cut.frames, cut.times):
            writer.write(frame, time)
    clip = video.read_video(tmp_path / "out.mp4")
    assert clip.times == tuple(time - VARIABLE[3] for time in VARIABLE[3:7])
    assert numbers(clip.frames) == [3, 4, 5, 6]


def test_the_same_frames_give_the_same_bytes(tmp_path):
    for name, lossless in (("a.mp4", False), ("a.mkv", False), ("b.mp4", True), ("b.mkv", True)):
        written = []
        for _ in range(2):
            video.write_video(tmp_path / name, noise(5), lossless=lossless, overwrite=True)
            written.append((tmp_path / name).read_bytes())
        assert written[0] == written[1]


def test_a_rate_too_fine_for_a_file_is_rounded_to_microseconds(tmp_path):
    info = video.VideoInfo(48, 32, Fraction(25), Fraction(1, 1_000_000_007))
    with video.VideoWriter(tmp_path / "out.mp4", info) as writer:
        for k, frame in enumerate(numbered(4)):
            writer.write(frame, Fraction(k, 25) + Fraction(k, 1_000_000_007))
    times = video.read_video(tmp_path / "out.mp4").times
    assert max(abs(time - Fraction(k, 25)) for k, time in enumerate(times)) < Fraction(1, 10**6)


def test_another_codec_can_be_named(tmp_path):
    info = video.VideoInfo(48, 32, Fraction(25), Fraction(1, 25))
    with video.VideoWriter(tmp_path / "out.mkv", info, codec="libvpx-vp9", crf=10) as writer:
        for k, frame in enumerate(numbered(6)):
            writer.write(frame, Fraction(k, 25))
    assert numbers(video.read_video(tmp_path / "out.mkv").frames) == list(range(6))
    for name in ("h264x", "aac"):
        with (
            pytest.raises(InputError, match=f"'{name}' is no video codec that .mp4 can hold"),
            video.VideoWriter(tmp_path / "out.mp4", info, codec=name) as writer,
        ):
            writer.write(numbered(1)[0], Fraction(0))
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


def test_frames_of_two_sizes_or_too_few_times_are_the_callers_mistake(tmp_path):
    info = video.VideoInfo(48, 32, Fraction(25), Fraction(1, 25))
    with video.VideoWriter(tmp_path / "out.mp4", info) as writer:
        writer.write(numbered(1)[0], Fraction(0))
        with pytest.raises(ValueError, match=r"\(16, 16, 3\) in a video of \(32, 48, 3\)"):
            writer.write(numbered(1, 16, 16)[0], Fraction(1, 25))
    with pytest.raises(ValueError, match="3 frames, but 2 times"):
        video.write_video(tmp_path / "more.mp4", numbered(3), times=VARIABLE[:2])
