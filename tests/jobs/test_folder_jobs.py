"""A folder of videos: what is done is skipped, what fails is written down, processes share it."""

import json
from dataclasses import replace

import pytest
from making import make_video, numbered
from standin import Standin

from realisvsr_jax.errors import InputError
from realisvsr_jax.jobs import folder
from realisvsr_jax.jobs.folder import Share, holds_videos, restore_folder, share_of
from realisvsr_jax.jobs.single import Request
from realisvsr_jax.video import read_video


@pytest.fixture
def request_(tmp_path):
    """Three videos, one of which is none."""
    source = tmp_path / "in"
    source.mkdir()
    for name, codec in (("a.mp4", "libx264"), ("c.avi", "mpeg4")):
        make_video(source / name, numbered(6), codec=codec)
    (source / "b.mkv").write_text("no film")
    (source / "notes.txt").write_text("about them")
    return Request(str(source), str(tmp_path / "out"), scenes=False)


def results(request, name="restored.json"):
    with open(f"{request.output}/{name}") as file:
        return json.load(file)


def test_goes_on_after_a_failure_skips_what_is_done_and_says_so(request_, tmp_path):
    standin = Standin()
    with pytest.raises(InputError, match=r"^1 of 3 files failed; .*restored\.json says why$"):
        restore_folder(request_, standin)
    assert len(standin.calls) == 4
    found = results(request_)
    assert {name: entry["status"] for name, entry in found.items()} == {
        "a.mp4": "done",
        "b.mkv": "failed",
        "c.avi": "done",
    }
    assert "b.mkv is not a video that FFmpeg can read" in found["b.mkv"]["reason"]
    assert len(read_video(tmp_path / "out" / "c.mkv").frames) == 6
    make_video(tmp_path / "in" / "b.mkv", numbered(5))
    again = Standin()
    restore_folder(request_, again)
    assert len(again.calls) == 2
    assert results(request_)["b.mkv"] == {**results(request_)["b.mkv"], "frames": 5}
    third = Standin()
    restore_folder(request_, third)
    assert third.calls == []
    assert {entry["status"] for entry in results(request_).values()} == {"done"}


def test_another_command_does_not_pass_for_done(request_, tmp_path):
    (tmp_path / "in" / "b.mkv").unlink()
    restore_folder(request_, Standin())
    other = replace(request_, settings={"seed": 1})
    with pytest.raises(InputError, match="2 of 2 files failed"):
        restore_folder(other, Standin())
    reason = results(other)["a.mp4"]["reason"]
    assert "a.mp4 exists; name another output, or add --overwrite" in reason
    anew = Standin()
    restore_folder(replace(other, overwrite=True), anew)
    assert len(anew.calls) == 4


def test_an_unfinished_video_goes_on(request_, tmp_path):
    class Stopped(Standin):
        def restore(self, window, *rest, **where):
            if window.index == 1:
                raise KeyboardInterrupt
            return super().restore(window, *rest, **where)

    with pytest.raises(KeyboardInterrupt):
        restore_folder(request_, Stopped())
    (tmp_path / "in" / "b.mkv").unlink()
    rest = Standin()
    restore_folder(request_, rest)
    assert rest.calls == [1, 0, 1]


def test_what_is_no_error_of_the_input_does_not_end_the_others(request_, tmp_path):
    class Broken(Standin):
        def restore(self, window, frames, *rest, **where):
            if len(self.calls) == 0:
                self.calls.append(None)
                raise ZeroDivisionError("one over nothing")
            return super().restore(window, frames, *rest, **where)

    (tmp_path / "in" / "b.mkv").unlink()
    with pytest.raises(InputError, match="1 of 2 files failed"):
        restore_folder(request_, Broken())
    assert results(request_)["a.mp4"]["reason"] == "ZeroDivisionError: one over nothing"
    assert (tmp_path / "out" / "c.mkv").exists()


def test_a_broken_video_counts_as_restored_in_part(request_, tmp_path):
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    whole = make_video(
        tmp_path / "in" / "a.mp4", numbered(40), container={"movflags": "+faststart"}
    )
    whole.write_bytes(whole.read_bytes()[:-300])
    for _ in range(2):
        with pytest.raises(InputError, match=r"^1 of 1 files were restored in part; "):
            restore_folder(request_, Standin())
        assert "is cut short" in results(request_)["a.mp4"]["reason"]


def test_processes_share_the_files(request_, tmp_path):
    (tmp_path / "in" / "b.mkv").unlink()
    calls = []
    for index in range(2):
        restore_folder(request_, Standin(calls=calls), share=Share(index, 2))
        assert len(calls) == 2 * (index + 1)
        assert len(results(request_, f"restored.{index}-of-2.json")) == 1
    alone = Standin()
    restore_folder(request_, alone)  # knows what the two have done
    assert alone.calls == []


def test_which_process_this_is():
    assert share_of(None, None, {}) is None
    slurm = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "8"}
    assert share_of(None, None, slurm) == Share(3, 8)
    assert share_of(1, 2, slurm) == Share(1, 2)
    for index, count, message in ((1, None, "go together"), (2, 2, "goes from 0 to 1")):
        with pytest.raises(InputError, match=message):
            share_of(index, count, {})


def test_names_stay_different(tmp_path):
    for name in ("a.avi", "a.mkv", "b.webm", "b.ts", "c.MP4"):
        (tmp_path / name).touch()
    found = folder.requests(Request(str(tmp_path), "out"))
    assert [one.output for one in found] == [
        *("out/a.avi.mkv", "out/a.mkv", "out/b.mkv", "out/b.webm.mkv", "out/c.MP4")
    ]


def test_a_folder_of_frames_is_none_of_videos(tmp_path):
    (tmp_path / "0.png").touch()
    assert not holds_videos(tmp_path)
    (tmp_path / "film.mp4").touch()
    assert holds_videos(tmp_path)
    request = Request(str(tmp_path), str(tmp_path.with_name("out.mp4")))
    with pytest.raises(InputError, match="is a folder of videos; name a folder as output"):
        restore_folder(request, Standin())
    with pytest.raises(InputError, match="is the input itself; name another folder"):
        restore_folder(replace(request, output=str(tmp_path)), Standin())
