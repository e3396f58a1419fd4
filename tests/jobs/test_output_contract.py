"""What goes through a job and back: size, count, times, tracks, labels, colours, depth, kinds."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from making import make_video, numbered, numbers, packets
from standin import Standin

from realisvsr_jax import video
from realisvsr_jax.errors import InputError
from realisvsr_jax.jobs.single import Request, restore_file
from realisvsr_jax.video.encoding import Coding

VARIABLE = tuple(Fraction(k, 1000) for k in (0, 40, 60, 160, 161, 500, 540, 1540, 1580, 1700))


def restore(source, output, scale=1, **more):
    restore_file(Request(str(source), str(output), **more), Standin(scale))
    return output


def bars(height=48, width=64, levels=256):
    """Eight colours, and a ramp of every level below; uint8, or uint16 above 256 levels."""
    dtype = np.uint8 if levels == 256 else np.uint16
    colours = np.array([[r, g, b] for r in (0, 1) for g in (0, 1) for b in (0, 1)], dtype)
    picture = np.repeat(colours, width // 8, 0)[None].repeat(height, 0) * dtype(levels - 1)
    picture[height // 2 :] = np.linspace(0, levels - 1, width)[None, :, None].round()
    return picture[None].repeat(3, 0)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(("height", "width", "scale"), [(48, 64, 2), (64, 36, 1.5), (31, 47, 1)])
def test_size_count_times_and_sound(tmp_path, suffix, height, width, scale):
    """Landscape, portrait, odd sides; a variable rate over joints of segments with B-frames."""
    even = numbered(10, height, width)
    pixels = {"pix_fmt": "yuv444p"} if height % 2 else {}
    source = make_video(tmp_path / "in.mkv", even, VARIABLE, sound="aac", **pixels)
    clip = video.read_video(restore(source, tmp_path / f"out{suffix}", scale))
    assert clip.frames.shape == (10, round(scale * height), round(scale * width), 3)
    assert clip.times == VARIABLE
    assert np.abs(np.diff(numbers(clip.frames)) - 1).max() <= 1  # the stand-in adds a little
    assert clip.info.num_frames in (None, 10)
    sound = [data for _, data in packets(tmp_path / f"out{suffix}", "audio")]
    assert sound == [data for _, data in packets(source, "audio")]


def ends(path):
    """When the last frame begins, when it ends by the file, and what the file and its track say."""
    with av.open(str(path)) as container:
        stream, (start, length) = container.streams.video[0], (0, 0)
        for frame in container.decode(stream):
            start, length = frame.pts * frame.time_base, frame.duration * frame.time_base
        track = stream.duration and stream.duration * stream.time_base
        return start, start + length, Fraction(container.duration, 1_000_000), track


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_the_last_frame_of_a_variable_rate_is_shown_as_long_as_before(tmp_path, suffix):
    source = make_video(tmp_path / "in.mp4", numbered(10), VARIABLE, options={"bf": "0"})
    last, end, whole, track = ends(source)
    assert last == VARIABLE[-1] < end == whole == track
    found = ends(restore(source, tmp_path / f"out{suffix}"))
    assert found[0] == last
    assert abs(found[2] - whole) < Fraction(1, 500)
    if suffix != ".mkv":
        assert found[3] == track
    part = ends(restore(source, tmp_path / f"part{suffix}", frames=7))
    assert (part[0], float(part[2])) == (VARIABLE[6], pytest.approx(float(VARIABLE[7]), abs=0.002))


def labelled(path, seconds):
    """Title, two chapters and a subtitle."""
    lines = (("hello", 0.1, 0.3),)
    plain = make_video(
        path.with_name("plain.mkv"),
        numbered(30),
        subtitles=lines,
        sound="aac",
        options={"bf": "0"},
    )
    with av.open(str(plain)) as source, av.open(str(path), "w") as output:
        kept = [s for s in source.streams if path.suffix == ".mkv" or s.type != "subtitle"]
        streams = {s.index: output.add_stream_from_template(s) for s in kept}
        output.metadata.update({"title": "A film", "comment": "of numbers"})
        output.set_chapters(
            [
                {
                    "id": k,
                    "start": 1000 * k * seconds // 2,
                    "end": 1000 * (k + 1) * seconds // 2,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": f"part {k}"},
                }
                for k in range(2)
            ]
        )
        for packet in source.demux(*kept):
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    return path


def chapters(path):
    with av.open(str(path)) as container:
        return [
            (c["metadata"]["title"], float(c["start"] * c["time_base"]))
            for c in container.chapters()
        ]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_title_chapters_and_subtitles(tmp_path, suffix):
    source = labelled(tmp_path / f"in{suffix}", 2)
    output = restore(source, tmp_path / f"out{suffix}")
    with av.open(str(output)) as container:
        labels = {key.lower(): value for key, value in container.metadata.items()}
        kinds = [stream.type for stream in container.streams]
    assert (labels["title"], labels["comment"]) == ("A film", "of numbers")
    assert chapters(output) == [("part 0", 0), ("part 1", 1)]
    assert kinds.count("video") == kinds.count("audio") == 1
    if suffix == ".mkv":
        assert [data for _, data in packets(output, "subtitle")] == [b"hello"]
    part = restore(source, tmp_path / f"part{suffix}", start=20, frames=8)
    assert [(title, round(time, 1)) for title, time in chapters(part)] == [
        ("part 0", 0),
        ("part 1", 0.2),
    ]


@pytest.mark.parametrize("tags", [(1, 1, 1, 1), (6, 5, 6, 2), (9, 9, 14, 1)])
def test_colour_bars_come_back_within_a_level(tmp_path, tags):
    """Decoded and encoded without a model, in lossless 4:4:4, with the source's own tags."""
    options = {"qp": "0"}
    source = make_video(tmp_path / "in.mkv", bars(), tags=tags, pix_fmt="yuv444p", options=options)
    restore(source, tmp_path / "out.mkv", coding=Coding(lossless=True))
    clip, before = video.read_video(tmp_path / "out.mkv"), video.read_video(source)
    np.testing.assert_array_equal(clip.frames, before.frames)
    assert np.abs(clip.frames.astype(int) - bars()).max() <= 2  # 8 bits of YUV hold no more
    yuv = restore(source, tmp_path / "yuv.mp4", coding=Coding(crf=0, pix_fmt="yuv444p"))
    again = video.read_video(yuv)
    assert np.abs(again.frames.astype(int) - before.frames).max() <= 1
    info = again.info
    assert (info.colorspace, info.primaries, info.transfer, info.color_range) == tags


def test_ten_bits_stay_ten_bits(tmp_path):
    source = make_video(
        tmp_path / "in.mkv",
        bars(levels=65_536),
        tags=(1, 1, 1, 1),
        pix_fmt="yuv444p10le",
        options={"qp": "0"},
    )
    deep = next(video.stream_video(source, deep=True)[1])[0]
    assert deep.dtype == np.uint16
    assert np.unique(deep[40, :, 0]).size > 60  # a level a pixel, as 8 bits would not have
    lossless = restore(source, tmp_path / "out.mkv", coding=Coding(lossless=True))
    info, frames = video.stream_video(lossless, deep=True)
    assert info.bit_depth == 10
    assert np.abs(next(frames)[0].astype(int) - deep).max() <= 64  # of 65,535: a tenth bit
    assert video.probe(restore(source, tmp_path / "out.mp4")).pix_fmt == "yuv420p10le"
    restore(source, tmp_path / "frames")
    picture = cv2.imread(str(tmp_path / "frames" / "00000000.png"), cv2.IMREAD_UNCHANGED)
    assert picture.dtype == np.uint16
    assert np.abs(picture[..., ::-1].astype(int) - deep).max() <= 2


def test_a_turned_video_is_upright_and_no_longer_turned(tmp_path):
    source = make_video(tmp_path / "in.mp4", numbered(3, 32, 48), rotation=90)
    clip = video.read_video(restore(source, tmp_path / "out.mp4", 2))
    assert clip.frames.shape == (3, 96, 64, 3)
    assert clip.info.rotation == 0
    corner = clip.frames[0, 4, -4].astype(int)
    assert np.abs(corner - (230, 120, 30)).max() < 12


@pytest.mark.parametrize("pix_fmt", ["yuv422p", "yuv444p", "yuv420p"])
@pytest.mark.parametrize("name", ["out.mp4", "out.png", "frames"])
def test_one_frame(tmp_path, pix_fmt, name):
    source = make_video(tmp_path / "in.mkv", numbered(1), pix_fmt=pix_fmt)
    clip = video.read_video(restore(source, tmp_path / name, 2))
    assert clip.frames.shape == (1, 64, 96, 3)
    assert numbers(clip.frames) == [0]


def test_a_picture_becomes_a_picture(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "in.png"), picture)
    restore(tmp_path / "in.png", tmp_path / "out.png")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "out.png")), picture)
    deep = picture.astype(np.uint16) * 200
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    restore(tmp_path / "deep.png", tmp_path / "deeper.png")
    again = cv2.imread(str(tmp_path / "deeper.png"), cv2.IMREAD_UNCHANGED)
    assert np.abs(again.astype(int) - deep).max() <= 1
    assert {path.name for path in tmp_path.iterdir()} == {
        *("in.png", "out.png", "deep.png", "deeper.png")
    }


def test_what_cannot_be_stored_is_said_before_the_work(tmp_path):
    source = make_video(tmp_path / "in.mkv", numbered(3, 31, 47), pix_fmt="yuv444p")
    for name, coding, message in (
        ("out.mp4", Coding("x265"), "'x265' is no video codec that .mp4 can hold"),
        ("out.mp4", Coding(pix_fmt="yuv9"), "libx264 has no pixel format 'yuv9'; it has yuv420p,"),
        ("out.mp4", Coding(pix_fmt="yuv420p"), "yuv420p needs even sides, the result has 47×31"),
        ("out.png", Coding(), r"out\.png is one picture, .*in\.mkv has 3 frames; name a video"),
        ("out.jpg", Coding(), r"\.jpg is no format that can be written; name it .*\.png, or"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            restore(source, tmp_path / name, coding=coding)
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]
