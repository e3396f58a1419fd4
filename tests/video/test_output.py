"""Where output goes: what must not be overwritten, folders of frames, and no room left."""

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from making import make_video, numbered

from realisvsr_jax import video
from realisvsr_jax.errors import InputError

INFO = video.VideoInfo(48, 32, Fraction(25), Fraction(1, 25))


def refuses(path, message, **kwargs):
    """Before the work and at the writing, in the same single line, and nothing is left."""
    before = sorted(path.parent.rglob("*")) if path.parent.exists() else []
    for attempt in (
        lambda: video.check_output(path, **kwargs),
        lambda: video.write_video(
            path,
            numbered(2),
            source=next(iter(kwargs.get("inputs", ())), None),
            overwrite=kwargs.get("overwrite", False),
        ),
    ):
        with pytest.raises(InputError, match=message) as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert before == (sorted(path.parent.rglob("*")) if path.parent.exists() else [])


def test_a_folder_that_does_not_exist(tmp_path):
    refuses(tmp_path / "no" / "out.mp4", "the folder .*no does not exist; create it first")
    refuses(tmp_path / "no" / "frames", "the folder .*no does not exist; create it first")


@pytest.mark.parametrize("name", ["out.avi", "out.webm", "out.v2"])
def test_a_format_that_cannot_be_written(tmp_path, name):
    refuses(tmp_path / name, r"is no format that can be written; name it .mp4, .m4v, .mov, .mkv,")


def test_the_input_is_never_the_output(clip, tmp_path):
    content = clip.read_bytes()
    (tmp_path / "link.mp4").symlink_to(clip)
    os.link(clip, tmp_path / "hard.mp4")
    for path in (clip, tmp_path / "link.mp4", tmp_path / "hard.mp4"):
        for overwrite in (False, True):
            refuses(path, "is the input itself; name another", inputs=(clip,), overwrite=overwrite)
    assert clip.read_bytes() == content


def test_what_exists_is_replaced_on_demand_alone(clip, tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"precious")
    refuses(path, "exists; name another output, or add --overwrite")
    video.write_video(path, numbered(3), overwrite=True)
    assert len(video.read_video(path).frames) == 3
    (tmp_path / "plain").write_bytes(b"precious")
    refuses(tmp_path / "plain", "exists and is no video file", overwrite=True)


def test_a_device_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    refuses(tmp_path / "pipe.mp4", "exists and is no video file", overwrite=True)


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out.mp4").symlink_to(tmp_path / "disk" / "film.mp4")
    video.write_video(tmp_path / "out.mp4", numbered(3))
    assert (tmp_path / "out.mp4").is_symlink()
    assert len(video.read_video(tmp_path / "disk" / "film.mp4").frames) == 3


def test_a_place_that_may_not_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    refuses(tmp_path / "out.mp4", "may not be written; check the permissions of its folder")


def test_a_path_without_suffix_is_a_folder_of_frames(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 3), np.uint8)
    video.write_video(tmp_path / "frames", frames)
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == ["00000000.png", "00000001.png", "00000002.png"]
    np.testing.assert_array_equal(video.read_video(tmp_path / "frames").frames, frames)
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]


def test_folders_are_replaced_only_if_they_hold_nothing_else(tmp_path):
    (tmp_path / "new.d").mkdir()
    video.write_video(tmp_path / "new.d", numbered(3))
    refuses(tmp_path / "new.d", "exists and is not empty; name another, or add --overwrite")
    video.write_video(tmp_path / "new.d", numbered(2), overwrite=True)
    assert len(video.read_video(tmp_path / "new.d").frames) == 2
    (tmp_path / "new.d" / "holiday.png").write_bytes(b"precious")
    refuses(tmp_path / "new.d", "has other files than numbered frames in it", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["new.d"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_named_as_a_video_is_refused(tmp_path, overwrite):
    (tmp_path / "fold.MKV").mkdir()
    message = r"fold\.MKV is a folder, though named as a video file; name another output"
    refuses(tmp_path / "fold.MKV", message, overwrite=overwrite)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "frames"])
def test_an_error_leaves_the_old_output_and_nothing_else(clip, tmp_path, name):
    video.write_video(tmp_path / name, numbered(2))
    before = video.read_video(tmp_path / name).frames

    def interrupted():
        with video.VideoWriter(tmp_path / name, INFO, source=clip, overwrite=True) as writer:
            for k, frame in enumerate(numbered(30)):
                writer.write(frame, Fraction(k, 25))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert {path.name for path in tmp_path.iterdir()} == {"clip.mp4", name}
    np.testing.assert_array_equal(video.read_video(tmp_path / name).frames, before)


def test_no_frames_at_all(tmp_path):
    with (
        pytest.raises(InputError, match="there are no frames to write"),
        video.VideoWriter(tmp_path / "out.mp4", INFO),
    ):
        pass
    assert not list(tmp_path.iterdir())


FULL = """
import resource, sys
import numpy as np
from realisvsr_jax import video
from realisvsr_jax.errors import report
frames = np.random.default_rng(0).integers(0, 256, (30, 96, 96, 3), np.uint8)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for path, limit in zip(sys.argv[1::2], sys.argv[2::2]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard))
    if report(lambda: video.write_video(path, frames)) != 1:
        sys.exit(path)
"""


def test_no_room_is_one_line_and_leaves_nothing(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (30, 96, 96, 3), np.uint8)
    video.write_video(tmp_path / "whole.mp4", frames)
    # Met by the header, by the frames, by the index behind all frames, and by a picture.
    limits = {
        tmp_path / "header.mkv": 10,
        tmp_path / "frames.mkv": 60_000,
        tmp_path / "index.mp4": (tmp_path / "whole.mp4").stat().st_size - 100,
        tmp_path / "frames": 9000,
    }
    (tmp_path / "whole.mp4").unlink()
    arguments = [str(word) for pair in limits.items() for word in pair]
    result = subprocess.run(
        [sys.executable, "-c", FULL, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0
    assert result.stderr.splitlines() == [
        f"error: {path}: no space left while writing (file too large); "
        "free some or name an output elsewhere"
        for path in limits
    ]
    assert not list(tmp_path.iterdir())


def test_sources_and_outputs_of_many_kinds_go_together(tmp_path):
    source = make_video(tmp_path / "in.mkv", numbered(5), sound="aac")
    video.write_video(tmp_path / "frames", numbered(5), source=source)
    video.write_video(tmp_path / "out.mp4", numbered(5), source=tmp_path / "frames")
    clip = video.read_video(tmp_path / "out.mp4")
    assert clip.times == tuple(Fraction(k, 25) for k in range(5))
    assert not clip.info.has_audio
