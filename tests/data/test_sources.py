import shutil
from pathlib import Path

import numpy as np
import pytest

from realisvsr_jax.data.packing import pack
from realisvsr_jax.data.sources import index_clips
from realisvsr_jax.errors import InputError
from realisvsr_jax.video import read_frames, read_video

FOOTAGE = Path(__file__).parent.parent / "footage"


def test_videos_and_frame_folders_are_clips_with_their_captions():
    clips = {clip.path.name: clip for clip in index_clips([FOOTAGE])}
    assert set(clips) == {"mouse.mp4", "seeds", "squirrel.mp4"}
    squirrel, seeds = clips["squirrel.mp4"], clips["seeds"]
    assert (squirrel.num_frames, squirrel.height, squirrel.width) == (16, 128, 160)
    assert squirrel.caption == "a red squirrel in front of a burrow"
    assert (seeds.num_frames, seeds.height, seeds.width, seeds.caption) == (6, 128, 128, "")


def test_a_clip_reads_the_frames_asked_for():
    clips = {clip.path.name: clip for clip in index_clips([FOOTAGE])}
    whole = read_video(FOOTAGE / "mouse.mp4").frames
    np.testing.assert_array_equal(clips["mouse.mp4"].read(5, 4), whole[5:9])
    np.testing.assert_array_equal(clips["seeds"].read(2, 3), read_frames(FOOTAGE / "seeds")[2:5])
    with pytest.raises(InputError, match="has 16 frames"):
        clips["mouse.mp4"].read(14, 4)


def test_folders_inside_are_searched_and_the_order_is_stable(tmp_path):
    for name in ("b/deep/two.mp4", "a/one.mp4"):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(FOOTAGE / "mouse.mp4", tmp_path / name)
    assert [clip.path.name for clip in index_clips([tmp_path])] == ["one.mp4", "two.mp4"]


def test_an_unreadable_clip_is_named_and_left_out(tmp_path, caplog):
    shutil.copy(FOOTAGE / "mouse.mp4", tmp_path / "good.mp4")
    (tmp_path / "bad.mp4").write_text("not a video")
    assert [clip.path.name for clip in index_clips([tmp_path])] == ["good.mp4"]
    assert "bad.mp4 is not a video" in caplog.text


def test_a_caption_that_is_no_text_is_named_and_its_clip_left_out(tmp_path, caplog):
    for name in ("good", "odd"):
        shutil.copy(FOOTAGE / "mouse.mp4", tmp_path / f"{name}.mp4")
    (tmp_path / "odd.txt").write_bytes(b"\xff\xfe\xff")
    assert [clip.path.name for clip in index_clips([tmp_path])] == ["good.mp4"]
    assert "odd.txt cannot be read as UTF-8 text; mend or remove it" in caplog.text


def test_folders_of_files_and_of_records_stand_beside_one_another(tmp_path):
    pack(FOOTAGE, tmp_path / "records")
    names = [clip.path.name for clip in index_clips([FOOTAGE])]
    found = index_clips([tmp_path / "records", FOOTAGE])
    assert [clip.path.name for clip in found] == 2 * names
    np.testing.assert_array_equal(found[2].read(4, 3), found[5].read(4, 3))


def test_nothing_to_train_on_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match=r"data\.sources is empty"):
        index_clips([])
    with pytest.raises(InputError, match=r"nowhere is no folder"):
        index_clips([tmp_path / "nowhere"])
    with pytest.raises(InputError, match=r"no readable clip in .*\(0 tried\)"):
        index_clips([tmp_path])
