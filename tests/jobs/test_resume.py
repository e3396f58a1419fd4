"""A job that ends before its time: what is kept, what goes on, what is refused, what is equal."""

import errno
import fcntl
import json
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import standin
from making import make_video, numbered
from standin import Standin

from realisvsr_jax import video
from realisvsr_jax.errors import InputError
from realisvsr_jax.jobs import journal, runner
from realisvsr_jax.jobs.single import Request, restore_file
from realisvsr_jax.video.encoding import Coding

WINDOWS = 8


class Interrupted(Standin):
    """Stops before a window."""

    def __init__(self, at, **options):
        super().__init__(**options)
        self.at = at

    def restore(self, window, frames, state, **where):
        if len(self.calls) == self.at:
            raise KeyboardInterrupt
        return super().restore(window, frames, state, **where)


@pytest.fixture
def request_of(clip, tmp_path):
    return lambda name="out.mp4", **more: Request(clip, str(tmp_path / name), scenes=False, **more)


def interrupted(request, at=3):
    with pytest.raises(KeyboardInterrupt):
        restore_file(request, Interrupted(at))


def refuses(request, message):
    with pytest.raises(InputError, match=message) as caught:
        restore_file(request, Standin())
    assert "\n" not in str(caught.value)


def left(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_killed_twice_the_same_bytes_come_out_of_no_more_than_a_window_again(
    clip, tmp_path, request_of, name
):
    whole = request_of(f"whole{Path(name).suffix}")
    restore_file(whole, Standin())
    calls, output = tmp_path / "calls", tmp_path / name
    for reached in (3, 6):
        before = done(output)
        command = [sys.executable, standin.__file__, clip, str(output), str(calls)]
        process = subprocess.Popen(command + ["resume"] * (reached > 3))
        until = time.monotonic() + 60
        while started(calls) < reached and process.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not output.exists()
        # One window was under way, and of the finished ones all but one were on the disk.
        assert before < done(output)
        assert started(calls) <= done(output) + 2 + (2 if reached > 3 else 0)
    before, last = done(output), Standin()
    restore_file(replace(request_of(name), resume=True), last)
    assert last.calls == list(range(before, WINDOWS))
    assert output.read_bytes() == Path(whole.output).read_bytes()
    assert {"calls", "in.mp4", name, Path(whole.output).name} == set(left(tmp_path))


def started(calls):
    return len(calls.read_text().split()) if calls.exists() else 0


def done(output):
    lines = journal.folder_of(output) / "windows.jsonl"
    return lines.read_bytes().count(b"\n") if lines.exists() else 0


@pytest.mark.parametrize("name", ["out.mkv", "frames"])
def test_a_job_goes_on_where_it_was(tmp_path, request_of, name):
    request, rest = request_of(name, coding=Coding(lossless=True)), Standin()
    interrupted(request)
    assert left(tmp_path) == [f".{name}.job", "in.mp4"]
    restore_file(replace(request, resume=True), rest)
    assert rest.calls == [3, 4, 5, 6, 7]
    assert left(tmp_path) == sorted(["in.mp4", name])
    whole = Standin()
    restore_file(replace(request, output=str(tmp_path / f"whole{Path(name).suffix}")), whole)
    frames = video.read_video(tmp_path / name).frames
    np.testing.assert_array_equal(
        frames, video.read_video(tmp_path / f"whole{Path(name).suffix}").frames
    )


def test_a_journal_is_neither_passed_over_nor_taken_for_another(tmp_path, clip, request_of):
    request = request_of()
    interrupted(request)
    refuses(request, r"\.out\.mp4\.job has an unfinished job .*; give --resume .* or --overwrite")
    again = replace(request, resume=True)
    refuses(
        replace(again, coding=Coding(crf=20)), "another command: coding crf was 16, now it is 2"
    )
    refuses(replace(again, settings={"seed": 1}), "seed was None, now it is 1; give the same")
    refuses(replace(again, frames=20), "frames was None, now it is 20")
    refuses(replace(again, overwrite=True), "--resume goes on, --overwrite begins anew; give one")
    with (tmp_path / "in.mp4").open("ab") as file:
        file.write(b"more")
    refuses(again, "another command: input bytes was ")
    anew = Standin()
    restore_file(replace(request, overwrite=True), anew)
    assert anew.calls == list(range(WINDOWS))


def test_what_came_to_the_name_meanwhile_stays(tmp_path, request_of):
    interrupted(request_of())
    (tmp_path / "out.mp4").write_bytes(b"precious")
    refuses(request_of(resume=True), "out.mp4 exists; name another output, or add --overwrite")
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"


def test_a_job_that_may_replace_may_do_so_when_resumed(tmp_path, request_of):
    (tmp_path / "out.mp4").write_bytes(b"old")
    interrupted(request_of(overwrite=True))
    assert (tmp_path / "out.mp4").read_bytes() == b"old"
    restore_file(request_of(resume=True), Standin())
    assert video.read_video(tmp_path / "out.mp4").frames.shape == (30, 64, 96, 3)


def test_a_line_that_a_kill_cut_off_does_not_count(tmp_path, request_of):
    interrupted(request_of())
    lines = tmp_path / ".out.mp4.job" / "windows.jsonl"
    lines.write_bytes(lines.read_bytes()[:-9])
    rest = Standin()
    restore_file(request_of(resume=True), rest)
    assert rest.calls == [2, 3, 4, 5, 6, 7]


def test_a_job_killed_at_its_very_end_is_only_joined_again(tmp_path, request_of, monkeypatch):
    for where in ("put", "sync_folder"):
        request = request_of(f"{where}.mp4")
        with monkeypatch.context() as patch:
            patch.setattr(journal.Journal, "remove", lambda _: None)
            restore_file(request, Standin())
        if where == "put":
            Path(request.output).unlink()
        rest = Standin()
        restore_file(replace(request, resume=True), rest)
        assert rest.calls == []
        assert len(video.read_video(request.output).frames) == 30
    assert left(tmp_path) == ["in.mp4", "put.mp4", "sync_folder.mp4"]


def test_two_jobs_on_one_output(tmp_path, request_of):
    interrupted(request_of())
    with (tmp_path / ".out.mp4.job" / "lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        refuses(request_of(resume=True), "another process works on this output; wait for it, or")
        refuses(request_of(overwrite=True), "another process works on this output")
    restore_file(request_of(resume=True), Standin())


def test_no_space_left_in_the_middle_and_then_there_is(tmp_path, request_of, monkeypatch):
    restore_file(request_of("whole.mp4"), Standin())

    def full(number):
        def write(path, *rest):
            if path.name.startswith(f".{number:05d}"):
                raise OSError(errno.ENOSPC, "No space left on device")
            return write_segment(path, *rest)

        return write

    write_segment = runner.write_segment
    monkeypatch.setattr(runner, "write_segment", full(4))
    refuses(
        request_of(),
        r"out\.mp4: no space left while writing \(no space left on device\); free some, then give "
        "--resume to go on",
    )
    monkeypatch.setattr(runner, "write_segment", write_segment)
    rest = Standin()
    restore_file(request_of(resume=True), rest)
    assert rest.calls == [4, 5, 6, 7]
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_an_error_before_the_first_window_leaves_nothing(tmp_path, request_of, monkeypatch):
    def broken(*_, **__):
        raise InputError("no memory")

    monkeypatch.setattr(Standin, "restore", broken)
    refuses(request_of(), "no memory")
    assert left(tmp_path) == ["in.mp4"]


def test_states_come_back_bit_by_bit_and_two_are_kept(tmp_path):
    import ml_dtypes

    random = np.random.default_rng(0)
    with journal.opened(tmp_path / "out.mp4", {}, resume=False, overwrite=False) as kept:
        for number in range(4):
            arrays = {
                "a": random.normal(size=(2, 3)).astype(np.float32),
                "b": random.normal(size=5).astype(ml_dtypes.bfloat16),
                "empty": np.zeros((0, 2), np.int64),
            }
            kept.save_state(number, arrays)
        again = kept.load_state(3)
        assert {name: array.dtype for name, array in again.items()} == {
            name: array.dtype for name, array in arrays.items()
        }
        assert all(again[name].tobytes() == arrays[name].tobytes() for name in arrays)
        assert left(kept.folder / "state") == ["00002.npz", "00003.npz"]


def test_two_results_and_a_bounded_queue_are_held_whatever_the_length(tmp_path, monkeypatch):
    """What a run holds: results that are alive, and frames that were decoded ahead."""
    source = str(make_video(tmp_path / "long.mp4", np.zeros((120, 32, 48, 3), np.uint8)))
    alive, ahead, decoded = weakref.WeakSet(), [], []

    class Watching(Standin):
        def restore(self, window, frames, state, **where):
            ahead.append(len(decoded) - window.reads.stop)
            assert len(alive) <= 2
            result, state = super().restore(window, frames, state, **where)
            result = result.view(Array)
            alive.add(result)
            time.sleep(0.002)
            return result, state

    def counted(*arguments, **options):
        info, frames = video.stream_video(*arguments, **options)
        return info, ((frame, decoded.append(time)) for frame, time in frames)

    monkeypatch.setattr(runner, "stream_video", counted)
    restore_file(Request(source, str(tmp_path / "out.mkv"), scenes=False), Watching())
    assert len(decoded) == 120
    assert max(ahead) <= standin.WINDOW + 1


class Array(np.ndarray):
    """One that can be watched."""

    __hash__ = object.__hash__


def test_the_journal_says_what_was_done(tmp_path, request_of):
    interrupted(request_of(settings={"seed": 5}))
    folder = tmp_path / ".out.mp4.job"
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["command"]["seed"] == 5
    assert plan["command"]["input"]["bytes"] == (tmp_path / "in.mp4").stat().st_size
    lines = [json.loads(line) for line in (folder / "windows.jsonl").read_text().splitlines()]
    assert [line["frames"] for line in lines] == [4, 4, 4]
    assert left(folder / "segments") == ["00000.nut", "00001.nut", "00002.nut"]


def test_numbers_are_those_of_a_plain_run(tmp_path, request_of):
    """The stand-in's windows add 0, 1, 2 …: a state that was lost would show."""
    restore_file(request_of("frames"), Standin())
    frames = video.read_video(tmp_path / "frames").frames[:, 40, 60, 0].astype(int)
    source = numbered(30)[:, 20, 30, 0].astype(int)
    assert np.abs(frames - source - np.arange(30) // standin.WINDOW).max() <= 2
