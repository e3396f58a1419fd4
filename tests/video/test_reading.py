"""Reading: the right frames, upright, in their colours, at their times; bad files in one line."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from making import make_video, numbered, numbers

from realisvsr_jax import video
from realisvsr_jax.errors import InputError


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.avi"])
def test_a_start_gives_the_slice_of_the_whole(tmp_path, name):
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    options = {"g": "12", "bf": "3"} if codec == "libx264" else {"g": "12", "qmax": "2"}
    path = make_video(tmp_path / name, numbered(40), codec=codec, options=options)
    whole = video.read_video(path)
    assert numbers(whole.frames) == list(range(40))
    for start, count in ((0, 5), (7, 9), (12, 1), (23, 4), (39, None)):
        part = video.read_video(path, start, count)
        stop = None if count is None else start + count
        np.testing.assert_array_equal(part.frames, whole.frames[start:stop])
        assert part.times == whole.times[start:stop]
        assert part.start == start
    assert video.count_frames(path) == 40


def test_a_program_stream_has_all_frames_in_order(tmp_path):
    options = {"g": "10", "bf": "2", "qmin": "1", "qmax": "2"}
    path = make_video(tmp_path / "clip.mpg", numbered(30), codec="mpeg2video", options=options)
    clip = video.read_video(path)
    assert numbers(clip.frames) == list(range(30))
    assert 0 <= clip.times[0] < Fraction(1, 5)
    assert {b - a for a, b in zip(clip.times, clip.times[1:])} == {Fraction(1, 25)}
    assert numbers(video.read_video(path, 17, 6).frames) == list(range(17, 23))


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_times_of_a_variable_rate_are_those_of_the_file(tmp_path, name):
    times = [Fraction(k, 1000) for k in (0, 40, 60, 160, 161, 500, 540, 1540)]
    path = make_video(tmp_path / name, numbered(8), times, options={"bf": "2"})
    assert video.read_video(path).times == tuple(times)
    assert video.read_video(path, 3, 3).times == tuple(times[3:6])


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_turned_video_is_read_upright(tmp_path, rotation):
    stored = numbered(2, 32, 48)
    path = make_video(tmp_path / "clip.mp4", stored, rotation=rotation, aspect=Fraction(4, 3))
    clip = video.read_video(path)
    upright = np.rot90(stored, -rotation // 90, axes=(1, 2)).astype(int)
    assert clip.frames.shape == upright.shape
    assert np.abs(clip.frames - upright).mean() < 6
    assert clip.info.rotation == rotation
    assert (clip.info.height, clip.info.width) == upright.shape[1:3]
    aspect = Fraction(4, 3) if rotation == 180 else Fraction(3, 4)
    assert clip.info.sample_aspect_ratio == aspect


@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
def test_colours_come_back_through_the_tagged_matrix(tmp_path, matrix, color_range):
    frames = np.empty((1, 24, 48, 3), np.uint8)
    colors = np.array([[230, 40, 40], [40, 200, 60], [30, 60, 220]], np.uint8)
    frames[0] = colors.repeat(16, 0)
    path = make_video(
        tmp_path / "clip.mp4",
        frames,
        pix_fmt="yuv444p",
        tags=(matrix, 9, 14, color_range),
        options={"qp": "0"},
    )
    clip = video.read_video(path)
    assert np.abs(clip.frames.astype(int) - frames).max() <= 3
    info = clip.info
    tags = (info.colorspace, info.primaries, info.transfer, info.color_range)
    assert tags == (matrix, 9, 14, color_range)


def test_pictures_are_frames_in_natural_order(tmp_path):
    frames = numbered(12)
    for k, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"Frame{k}.png"), frame[..., ::-1])
    (tmp_path / "notes.txt").write_text("not a frame")
    clip = video.read_video(tmp_path, 1, 10)
    np.testing.assert_array_equal(clip.frames, frames[1:11])
    assert clip.times == tuple(Fraction(k, 25) for k in range(1, 11))
    assert clip.info.num_frames == 12


def test_a_missing_file(tmp_path):
    fails(tmp_path / "no.mp4", "no such file; check the path")


def test_text_under_the_name_of_a_video(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("This is no video.\n" * 50)
    fails(path, "is not a video that FFmpeg can read; check the file")


def test_a_file_cut_short_behind_its_index(tmp_path):
    whole = make_video(
        tmp_path / "whole.mp4", noise(20), container={"movflags": "+faststart"}
    ).read_bytes()
    path = tmp_path / "clip.mp4"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    fails(path, r"is cut short: 1\d of 20 frames could be read; copy or download it again")


def test_a_file_cut_short_before_its_index(tmp_path):
    whole = make_video(tmp_path / "whole.mp4", noise(20)).read_bytes()
    path = tmp_path / "clip.mp4"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    fails(path, r"is cut short: its index \(moov\) is missing; copy or download it again")


def test_a_matroska_file_cut_short(tmp_path):
    whole = make_video(tmp_path / "whole.mkv", noise(20)).read_bytes()
    path = tmp_path / "clip.mkv"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    fails(path, r"is cut short: \d+ of 20 frames could be read; copy or download it again")


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi"])
def test_a_video_without_frames(tmp_path, name):
    options = {"movflags": "+empty_moov"} if name == "clip.mp4" else {}
    with av.open(str(tmp_path / name), "w", container_options=options) as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height = 32, 32
        output.start_encoding()
    fails(tmp_path / name, "has no frames; name a video with pictures in it")


def test_a_file_with_sound_alone(tmp_path):
    path = tmp_path / "sound.m4a"
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 4096), np.float32), format="fltp")
        frame.rate = 48_000
        output.mux([*stream.encode(frame), *stream.encode(None)])
    fails(path, "has sound but no video; name a file with pictures")


def test_an_empty_file_and_an_empty_folder(tmp_path):
    (tmp_path / "clip.mp4").touch()
    fails(tmp_path / "clip.mp4", "is empty")
    (tmp_path / "frames").mkdir()
    fails(tmp_path / "frames", "has no frames; expected .png")


def test_pictures_of_two_sizes(tmp_path):
    for k, size in enumerate(((32, 48), (32, 48), (30, 48))):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.zeros((*size, 3), np.uint8))
    with pytest.raises(InputError, match=r"2\.png is 48×30, 0\.png is 48×32; frames of one"):
        video.read_video(tmp_path)


def test_a_start_beyond_the_end(clip):
    with pytest.raises(InputError, match="has 30 frames; start 30 is beyond its end"):
        video.read_video(clip, 30)
    with pytest.raises(InputError, match="has 30 frames; 5 from 28 on are too many"):
        video.read_clip(clip, 28, 5)


def noise(count):
    return np.random.default_rng(0).integers(0, 256, (count, 32, 48, 3), np.uint8)


def fails(path, message):
    """Both ways of opening a file end in the same single line."""
    for read in (video.read_video, video.probe):
        with pytest.raises(InputError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)
