"""The first pass: scenes, damage, headers that lie, and what is refused or warned about."""

import logging
from fractions import Fraction

import cv2
import numpy as np
import pytest
from making import make_video, numbered, numbers, packets
from standin import Standin

from realisvsr_jax import video
from realisvsr_jax.errors import InputError
from realisvsr_jax.jobs.plan import make_steps
from realisvsr_jax.jobs.single import Request, restore_file
from realisvsr_jax.jobs.survey import Survey, survey
from realisvsr_jax.video.encoding import Coding


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 48, 3), np.uint8)


def moving(count, seed):
    """A picture that slides by a pixel a frame."""
    picture = cv2.resize(noise(1, seed)[0, :8, :12], (200, 64), interpolation=cv2.INTER_CUBIC)
    return np.stack([picture[:48, k : k + 64] for k in range(count)])


def test_cuts_are_found_and_slow_change_is_none(tmp_path):
    scenes = [moving(40, 1), moving(30, 2), moving(25, 3)]
    source = make_video(tmp_path / "in.mp4", np.concatenate(scenes))
    found = survey(source)
    assert found.cuts == (40, 70)
    assert survey(source, 10, 50).cuts == (30,)
    assert survey(source, scenes=False).cuts == ()
    again = Survey.from_json(found.to_json())
    assert (again.info, list(again.times)) == (found.info, list(found.times))
    steps = make_steps(found, Standin().outlook(found.info))
    assert [k for step in steps for k in step.writes] == list(range(95))
    assert [step.first for step in steps if not step.window.index] == [0, 40, 70]


def test_a_scene_begins_without_what_the_one_before_left(tmp_path):
    source = make_video(tmp_path / "in.mp4", np.concatenate([moving(20, 1), moving(20, 2)]))
    standin = Standin()  # asserts that a state comes with every window but a scene's first
    restore_file(Request(str(source), str(tmp_path / "out.mp4")), standin)
    assert standin.calls == [0, 1, 2, 3, 4, 20, 21, 22, 23, 24]


def cut_short(path):
    data = make_video(path, noise(12), container={"movflags": "+faststart"}).read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def cut_off_the_index(path):
    make_video(path, noise(40))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("name", "break_it"), [("in.mp4", cut_short), ("in.mkv", cut_off_the_index)]
)
def test_what_can_be_read_of_a_broken_video_is_restored(tmp_path, name, break_it):
    source = tmp_path / name
    break_it(source)
    report = restore_file(Request(str(source), str(tmp_path / "out.mp4")), Standin())
    assert 1 < report.frames < 40
    assert (
        f"{report.frames} of {12 if name == 'in.mp4' else 40} frames could be read" in report.damage
    )
    assert len(video.read_video(tmp_path / "out.mp4").frames) == report.frames


def test_a_stream_that_breaks_in_the_middle(tmp_path):
    """The fourteenth of thirty PNG frames is overwritten, which no decoder mends."""
    source = make_video(
        tmp_path / "in.mov", noise(30), codec="png", pix_fmt="rgb24", tags=(0, 1, 1, 2)
    )
    whole = video.read_video(source)
    data = source.read_bytes()
    broken = packets(source, "video")[13][1]
    source.write_bytes(data.replace(broken, bytes(len(broken))))
    request = Request(str(source), str(tmp_path / "out.mkv"), coding=Coding(lossless=True))
    report = restore_file(request, Standin(1, window=30))
    total = f"{report.frames} of 30 frames could be read; copy or download it again"
    assert report.damage == f"{source} is damaged: {total}"
    assert 10 < report.frames <= 13
    frames = video.read_video(tmp_path / "out.mkv").frames
    np.testing.assert_array_equal(frames, whole.frames[: report.frames])


def test_a_header_that_lies_about_its_length(tmp_path):
    """A Matroska file that says an hour has its twelve frames, no more."""
    source = make_video(tmp_path / "in.mkv", noise(12))
    data = bytearray(source.read_bytes())
    place = data.index(b"\x44\x89\x88") + 3  # Duration, a double in milliseconds
    data[place : place + 8] = np.array(3.6e6, ">f8").tobytes()
    stamp = data.index(b"00:00:00.4")
    data[stamp : stamp + 8] = b"01:00:00"
    source.write_bytes(data)
    assert survey(source).frames == 12
    report = restore_file(Request(str(source), str(tmp_path / "out.mp4")), Standin(1))
    assert (report.frames, report.damage) == (12, None)


def refuses(source, message):
    with pytest.raises(InputError, match=message) as caught:
        restore_file(Request(str(source), str(source.with_name("out.mp4"))), Standin())
    assert "\n" not in str(caught.value)
    assert not [path for path in source.parent.iterdir() if "out" in path.name]


def test_interlaced_video_is_refused(tmp_path):
    options = {"x264-params": "tff=1", "flags": "+ildct+ilme"}
    source = make_video(tmp_path / "in.mp4", numbered(4), options=options)
    refuses(source, "in.mp4 is interlaced, and its comb of lines would be enlarged; make whole")


def test_a_size_that_changes_is_refused(tmp_path):
    source = tmp_path / "in.ts"
    parts = [make_video(tmp_path / f"{k}.ts", noise(4)[:, : 32 - 16 * k]) for k in range(2)]
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    refuses(source, r"frame 4 is 48×16, the first 48×32; split the video where its size changes")


@pytest.mark.parametrize(
    ("tags", "word"),
    [((9, 9, 16, 1), r"HDR \(PQ\): it is restored"), ((9, 9, 18, 1), r"HDR \(HLG")],
)
def test_hdr_is_restored_with_a_word(tmp_path, caplog, tags, word):
    source = make_video(tmp_path / "in.mp4", numbered(2), tags=tags, pix_fmt="yuv420p10le")
    with caplog.at_level(logging.WARNING):
        restore_file(Request(str(source), str(tmp_path / "out.mp4")), Standin())
    assert len(caplog.records) == 1
    assert caplog.text.count(word.replace("\\", "")) == 1
    info = video.probe(tmp_path / "out.mp4")
    assert (info.colorspace, info.primaries, info.transfer) == tags[:3]
    assert info.bit_depth == 10


def test_transparency_is_left_out_with_a_word(tmp_path, caplog):
    cv2.imwrite(str(tmp_path / "in.png"), np.full((8, 8, 4), 99, np.uint8))
    with caplog.at_level(logging.WARNING):
        restore_file(Request(str(tmp_path / "in.png"), str(tmp_path / "out.png")), Standin(1))
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'in.png'}: its transparency is left out"
    ]
    assert (cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED) == 99).all()


def test_a_part_that_is_shorter_than_asked_for(tmp_path, caplog):
    source = make_video(tmp_path / "in.mp4", numbered(10))
    with caplog.at_level(logging.INFO):
        found = survey(source, 6, 9)
    assert (found.frames, found.end) == (4, None)
    assert f"{source} has only 4 of the 9 frames asked for from 6 on" in caplog.text
    assert survey(source, 2, 3).end == Fraction(5, 25)
    assert numbers(video.read_video(source, 6).frames) == [6, 7, 8, 9]
