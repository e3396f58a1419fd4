"""Clips of a test set by name: any depth, the benchmarks' layouts, names that collide."""

import logging
from fractions import Fraction

import cv2
import numpy as np
import pytest

from realisvsr_jax import video
from realisvsr_jax.data.testset import LAYOUTS, find_clips, layout_named
from realisvsr_jax.errors import InputError


def pictures(folder, count=2):
    folder.mkdir(parents=True)
    for k in range(count):
        cv2.imwrite(str(folder / f"{k:08}.png"), np.full((8, 8, 3), k, np.uint8))
    return folder


def movie(path, count=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    video.write_video(path, np.zeros((count, 16, 16, 3), np.uint8), Fraction(25), lossless=True)
    return path


def test_clips_are_named_by_their_paths_without_a_videos_suffix(tmp_path):
    frames = pictures(tmp_path / "walk.01")
    movies = [movie(tmp_path / "day" / "city.mp4"), movie(tmp_path / "a.b.mkv")]
    pictures(tmp_path / ".hidden")
    pictures(tmp_path / "__MACOSX" / "walk")
    (tmp_path / "notes.txt").write_text("no clip")
    assert find_clips(tmp_path) == {"a.b": movies[1], "day/city": movies[0], "walk.01": frames}
    assert list(find_clips(tmp_path)) == ["a.b", "day/city", "walk.01"]


def test_pictures_in_the_folder_itself_are_one_clip(tmp_path, caplog):
    folder = pictures(tmp_path / "walk")
    assert find_clips(folder) == {"walk": folder}
    inner = pictures(folder / "city")
    with caplog.at_level(logging.WARNING):
        assert find_clips(folder) == {"city": inner}
    assert caplog.messages == [f"{folder}: the pictures beside the clips are left out"]


@pytest.mark.parametrize(
    ("layout", "place", "other"),
    [
        ("reds", "val/val_sharp/{}", "val/val_sharp_bicubic/X4/{}"),
        ("spmcs", "SPMCS/GT/{}", "SPMCS/LQ/{}"),
        ("spmcs", "test_set/{}/truth", "test_set/{}/input4"),
        ("udm10", "{}/truth", "{}/blur4"),
        ("youhq40", "YouHQ40-Test/{}", "YouHQ-Train/{}"),
        ("vid4", "GT/{}", "BIx4/{}"),
        ("realisvideo-720p", "gt/{}", "lq/{}"),
        ("videolq", "VideoLQ/{}", "restored/{}"),
    ],
)
def test_layouts_find_the_truth_by_its_place(tmp_path, layout, place, other):
    truths = {name: pictures(tmp_path / place.format(name)) for name in ("000", "001")}
    pictures(tmp_path / other.format("000"))
    assert find_clips(tmp_path, layout) == truths


def test_layouts_of_videos_and_the_place_itself(tmp_path):
    clips = {name: movie(tmp_path / "test" / "origin" / f"{name}.mp4") for name in ("a", "b")}
    movie(tmp_path / "test" / "lq" / "a.mp4")
    assert find_clips(tmp_path, "realisvideo-4k") == clips
    assert find_clips(tmp_path / "test" / "origin", "realisvideo-4k") == clips


def test_numbers_that_are_not_the_benchmarks_are_warned_of(tmp_path, caplog):
    for name, count in (("calendar", 41), ("city", 34), ("foliage", 3)):
        pictures(tmp_path / name, count)
    movie(tmp_path / "walk.mkv", 47)
    with caplog.at_level(logging.WARNING):
        assert len(find_clips(tmp_path, "vid4")) == 4
    assert caplog.messages == [f"{tmp_path}: foliage has 3 frames, vid4 has 34 to 49"]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        find_clips(tmp_path, "realisvideo-720p")
    assert caplog.messages == [f"{tmp_path} has 4 clips, realisvideo-720p has 140"]


def test_two_clips_of_one_name_are_refused(tmp_path):
    one, two = movie(tmp_path / "city.mkv"), movie(tmp_path / "city.mp4")
    with pytest.raises(InputError) as raised:
        find_clips(tmp_path)
    assert str(raised.value) == (f"{one} and {two} are both the clip 'city'; take one of them away")
    two.unlink()
    pictures(tmp_path / "city")
    with pytest.raises(InputError, match="are both the clip 'city'"):
        find_clips(tmp_path)


def test_what_has_no_clips_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no clip")
    for folder, message in (
        (tmp_path, "has no clips; expected videos or folders of pictures in it"),
        (tmp_path / "missing", "does not exist; name a folder of clips"),
        (tmp_path / "notes.txt", "is no folder; name a folder of clips"),
    ):
        with pytest.raises(InputError) as raised:
            find_clips(folder)
        assert str(raised.value) == f"{folder} {message}"


def test_an_unknown_layout_lists_the_known(tmp_path):
    with pytest.raises(InputError, match=r"unknown layout 'red'; known: reds, spmcs, udm10, "):
        find_clips(tmp_path, "red")
    assert [name for name in LAYOUTS if not layout_named(name).truth] == ["videolq"]
