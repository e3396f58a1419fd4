"""Packing: the same bytes after kills and with any number of workers, and refusals."""

import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from realisvsr_jax.data import pack as program
from realisvsr_jax.data import packing, records
from realisvsr_jax.data.packing import Options, pack
from realisvsr_jax.data.sources import index_clips
from realisvsr_jax.errors import InputError, run_flags

FOOTAGE = Path(__file__).parent.parent / "footage"
SLOW = """
import sys, time
from pathlib import Path
from realisvsr_jax.data import packing

def slow(function):
    return lambda *arguments: (time.sleep(0.1), function(*arguments))[1]

packing._describe, packing._write_shard = slow(packing._describe), slow(packing._write_shard)
packing.pack(Path(sys.argv[1]), Path(sys.argv[2]), packing.Options(clips=1, workers=2))
"""


def copy(path, extra=b""):
    """A video at `path`; `extra`, in a box that players skip, makes its bytes another's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    box = (8 + len(extra)).to_bytes(4, "big") + b"free" + extra if extra else b""
    path.write_bytes((FOOTAGE / "mouse.mp4").read_bytes() + box)
    return path


@pytest.fixture
def videos(tmp_path):
    """Three videos, one of them in a folder of its own, a folder of frames, and two captions."""
    folder = tmp_path / "videos"
    copy(folder / "a.mp4", b"one")
    copy(folder / "deep" / "b.mp4")
    shutil.copy(FOOTAGE / "squirrel.mp4", folder / "c.mp4")
    shutil.copytree(FOOTAGE / "seeds", folder / "seeds")
    (folder / "a.txt").write_text("a chinchilla é\n", encoding="utf-8")
    (folder / "seeds.txt").write_text("seedlings")
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def packed(folder):
    """Header and payload of each record, in order."""
    table = records.open_table(folder)
    return [table.record(row, folder) for row in range(table.total)]


def run(*arguments):
    """The program as on a command line; its exit status."""
    before, sys.argv = sys.argv, ["pack", *map(str, arguments)]
    try:
        return run_flags(program.main, program.FLAGS)
    finally:
        sys.argv = before
        program.FLAGS.unparse_flags()


def test_records_are_the_files_as_they_are_with_their_captions(videos, tmp_path):
    manifest = pack(videos, tmp_path / "records")
    found = packed(tmp_path / "records")
    names = ["a.mp4", "c.mp4", "deep/b.mp4", "seeds"]
    assert [header["name"] for header, _ in found] == names
    assert [header["caption"] for header, _ in found] == ["a chinchilla é", "", "", "seedlings"]
    for name, (header, payload) in zip(names[:3], found):
        assert payload == (videos / name).read_bytes()
        assert "pictures" not in header
    pictures = sorted((videos / "seeds").iterdir())
    header, payload = found[3]
    assert header["pictures"] == [[path.name, path.stat().st_size] for path in pictures]
    assert payload == b"".join(path.read_bytes() for path in pictures)
    assert [header[key] for key in ("frames", "height", "width")] == [6, 128, 128]
    captions = json.loads((tmp_path / "records" / "captions.json").read_text())
    assert captions == ["a chinchilla é", "seedlings"]
    assert manifest["clips"] == manifest["inputs"] == 4
    assert len(manifest["shards"]) == 1


def test_the_bytes_do_not_depend_on_the_workers(videos, tmp_path):
    for workers in (1, 3):
        pack(videos, tmp_path / f"by {workers}", Options(clips=1, workers=workers))
    alone = contents(tmp_path / "by 1")
    assert len(alone) == 4 + 3
    assert contents(tmp_path / "by 3") == alone


def test_a_shard_ends_at_so_many_bytes(videos, tmp_path):
    size = (videos / "a.mp4").stat().st_size + (videos / "c.mp4").stat().st_size
    manifest = pack(videos, tmp_path / "records", Options(bytes=size))
    assert [shard["clips"] for shard in manifest["shards"]] == [2, 1, 1]
    manifest = pack(videos, tmp_path / "tiny", Options(bytes=1))
    assert [shard["clips"] for shard in manifest["shards"]] == [1] * 4


def test_a_damaged_shard_is_no_finished_packing(videos, tmp_path):
    target = tmp_path / "records"
    manifest = pack(videos, target)
    whole = contents(target)
    shard = target / manifest["shards"][0]["name"]
    os.truncate(shard, 3000)
    with pytest.raises(
        InputError, match=r"array_record is cut short at 3,000 of .* packs all anew"
    ):
        pack(videos, target)
    pack(videos, target, overwrite=True)
    assert contents(target) == whole


def test_what_was_killed_goes_on_to_the_same_bytes(tmp_path):
    videos, target = tmp_path / "videos", tmp_path / "killed"
    for k in range(12):
        copy(videos / f"{k:02}.mp4", bytes([k]))
    (videos / "bad.mp4").write_text("not a video")
    wanted = pack(videos, tmp_path / "whole", Options(clips=1))
    for journal in ("survey.jsonl", "shards.jsonl"):
        killed = subprocess.Popen(
            [sys.executable, "-c", SLOW, str(videos), str(target)], stderr=subprocess.DEVNULL
        )
        path, deadline = target / ".packing" / journal, time.monotonic() + 60
        while not path.exists() or path.read_bytes().count(b"\n") < 3:
            assert killed.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    with pytest.raises(InputError, match="packing did not end; the same"):
        index_clips([target])
    shards = {path: path.stat().st_mtime_ns for path in target.glob("clips-*")}
    assert 3 <= len(shards) < 12
    # What a kill in the middle of a line and of a shard leaves.
    with (target / ".packing" / "shards.jsonl").open("a") as file:
        file.write('{"name": "clips-0')
    (target / ".clips-00011-of-00012.array_record.partial").write_bytes(b"half a shard")
    assert pack(videos, target, Options(clips=1)) == wanted
    kept = [path for path, written in shards.items() if path.stat().st_mtime_ns == written]
    assert len(kept) >= 3
    assert contents(target) == contents(tmp_path / "whole")


def test_a_shard_that_is_gone_is_written_again(videos, tmp_path):
    target = tmp_path / "records"
    wanted = pack(videos, tmp_path / "whole", Options(clips=1))
    whole = contents(tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "write_index", stopped)
        with pytest.raises(KeyboardInterrupt):
            pack(videos, target, Options(clips=1))
    next(target.glob("clips-*")).unlink()
    assert pack(videos, target, Options(clips=1)) == wanted
    assert contents(target) == whole


def stopped(*_):
    raise KeyboardInterrupt


def test_a_finished_folder_stays_as_it_is(videos, tmp_path):
    target = tmp_path / "records"
    first = pack(videos, target)
    times = {path.name: path.stat().st_mtime_ns for path in target.iterdir()}
    (target / ".packing").mkdir()  # of a run that was killed at its very end
    assert pack(videos, target) == first
    assert {path.name: path.stat().st_mtime_ns for path in target.iterdir()} == times


def test_what_is_there_twice_is_named_and_left_out(videos, tmp_path, caplog):
    copy(videos / "z.mp4", b"one")
    caplog.set_level(logging.INFO)
    assert run("--input", videos, "--output", tmp_path / "once") == 0
    assert "left out: 1 that are there twice, such as z.mp4, which is a.mp4" in caplog.text
    manifest = records.read_manifest(tmp_path / "once")
    assert [(clip["name"], clip["same_as"]) for clip in manifest["left_out"]] == [
        ("z.mp4", "a.mp4")
    ]
    assert [header["name"] for header, _ in packed(tmp_path / "once")][-1] == "seeds"
    assert run("--input", videos, "--output", tmp_path / "all", "--keep_duplicates") == 0
    assert [header["name"] for header, _ in packed(tmp_path / "all")][-1] == "z.mp4"


def test_of_clips_that_are_there_twice_the_one_with_a_caption_stays(videos, tmp_path, caplog):
    bare, told = copy(videos / "y.mp4", b"two"), copy(videos / "z.mp4", b"two")
    told.with_suffix(".txt").write_text("a told clip")
    pack(videos, tmp_path / "once")
    captions = {header["name"]: header.get("caption") for header, _ in packed(tmp_path / "once")}
    assert captions["z.mp4"] == "a told clip"
    assert bare.name not in captions
    # Of two captions one has to go: that is a word, and its text is kept.
    bare.with_suffix(".txt").write_text("another text")
    assert run("--input", videos, "--output", tmp_path / "two") == 0
    assert "captions that are left out with them: 1, such as that of z.mp4" in caplog.text
    (left,) = [e for e in records.read_manifest(tmp_path / "two")["left_out"] if "caption" in e]
    assert (left["name"], left["same_as"], left["caption"]) == ("z.mp4", "y.mp4", "a told clip")


def test_records_are_verified_by_their_checksums(videos, tmp_path, capsys, caplog):
    caplog.set_level(logging.INFO)
    target = tmp_path / "records"
    pack(videos, target, Options(clips=2))
    assert run("--verify", target) == 0
    assert "4 clips, all as they were packed" in caplog.text
    first, second = sorted(target.glob("clips-*"))
    data = bytearray(first.read_bytes())
    data[len(data) // 2] ^= 1
    first.write_bytes(data)
    second.unlink()
    assert run("--verify", target) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{first.name} has other bytes than were packed, {second.name} is missing" in error
    assert run("--verify", target, "--output", target) == 1
    assert "--verify only reads records; leave --output out" in capsys.readouterr().err


def test_what_cannot_be_read_is_named_and_the_exit_status_says_so(videos, tmp_path, capsys):
    (videos / "bad.mp4").write_text("not a video")
    copy(videos / "odd.mp4", b"odd")
    (videos / "odd.txt").write_bytes(b"\xff\xfe\xff")
    for _ in range(2):  # also when there is nothing left to do
        assert run("--input", videos, "--output", tmp_path / "records") == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: 2 of 6 clips cannot be read and are left out; ")
        assert error.endswith("records.json says why")
    reasons = [clip["reason"] for clip in records.read_manifest(tmp_path / "records")["left_out"]]
    assert "bad.mp4 is not a video" in reasons[0]
    assert "odd.txt cannot be read as UTF-8 text" in reasons[1]
    assert len(index_clips([tmp_path / "records"])) == 4


def test_overwrite_packs_anew_and_takes_nothing_else_away(videos, tmp_path):
    target = tmp_path / "records"
    pack(videos, target, Options(clips=1))
    (target / "notes.md").write_text("mine")
    (videos / "c.mp4").unlink()
    with pytest.raises(InputError, match=r"the clips are others than when it was begun; take"):
        pack(videos, target, Options(clips=1))
    with pytest.raises(InputError, match=r"the clips are others"):
        pack(videos, target, Options(clips=2))
    assert pack(videos, target, Options(clips=2), overwrite=True)["clips"] == 3
    assert [path.name for path in sorted(target.glob("clips-*"))] == [
        "clips-00000-of-00002.array_record",
        "clips-00001-of-00002.array_record",
    ]
    assert (target / "notes.md").read_text() == "mine"
    with pytest.raises(InputError, match=r"shard is 1000000000 bytes, it was 2 clips when it was"):
        pack(videos, target)


def test_a_clip_that_changes_meanwhile_stops_packing(videos, tmp_path, monkeypatch):
    describe = packing._describe

    def change(path, name):
        entry = describe(path, name)
        if name == "c.mp4":
            data = path.read_bytes()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        return entry

    monkeypatch.setattr(packing, "_describe", change)
    with pytest.raises(InputError, match=r"c\.mp4 has changed since packing began; --overwrite"):
        pack(videos, tmp_path / "records")
    assert not list((tmp_path / "records").glob("*.array_record"))


def test_long_clips_are_said(videos, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(packing, "LARGE", 12_000)
    pack(videos, tmp_path / "records")
    assert "3 clips have more than 0 MB, such as a.mp4 with 16 frames" in caplog.text


def test_of_two_processes_one_packs(videos, tmp_path):
    unfinished = tmp_path / "records" / ".packing"
    unfinished.mkdir(parents=True)
    handle = os.open(unfinished, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(InputError, match="another process packs into it"):
            pack(videos, tmp_path / "records")
    finally:
        os.close(handle)


def test_folders_that_cannot_serve_are_one_clear_line(videos, tmp_path):
    empty, full, file = tmp_path / "empty", tmp_path / "full", tmp_path / "file"
    empty.mkdir()
    full.mkdir()
    (full / "letter.txt").write_text("mine")
    file.write_text("mine")
    for source, target, message in (
        (tmp_path / "none", tmp_path / "out", "none is no folder; name one of videos or frames"),
        (empty, tmp_path / "out", "empty has no videos and no folders of frames"),
        (videos, file, "file is a file; name a folder"),
        (videos, tmp_path / "no" / "out", "no does not exist; create it first"),
        (videos, videos / "out", "is inside --input; name a folder beside it"),
        (videos, full, "full is not empty and has no records; name a new folder"),
    ):
        with pytest.raises(InputError, match=message):
            pack(source, target)
    with pytest.raises(InputError, match="full is not empty and has no records"):
        pack(videos, full, overwrite=True)
    assert sorted(path.name for path in full.iterdir()) == ["letter.txt"]
    (empty / "bad.mp4").write_text("not a video")
    with pytest.raises(InputError, match=r"no clip can be read, the first: .*bad\.mp4"):
        pack(empty, tmp_path / "out")


def test_a_full_disk_is_one_clear_line(videos, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "write_index", full)
    with pytest.raises(InputError, match=r"no space left while writing .*the same command goes on"):
        pack(videos, tmp_path / "records")


def test_flags(capsys):
    assert run("--input", "videos") == 1
    assert "give --input VIDEOS and --output RECORDS" in capsys.readouterr().err
    assert program.shard_limit("1000") == (1000, None)
    assert program.shard_limit("1.5 GB") == (None, 1_500_000_000)
    assert program.shard_limit("512kb") == (None, 512_000)
    for text in ("0", "0MB", "many", "1.5", "-1"):
        with pytest.raises(InputError, match="give clips, as 1000, or bytes, as 512MB"):
            program.shard_limit(text)
