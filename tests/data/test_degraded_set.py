"""Degraded test sets: the same bytes from the same seed, going on after a kill, and refusals."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from realisvsr_jax import video
from realisvsr_jax.data import degraded_set
from realisvsr_jax.data.degradation import DegradationPlan, apply_plan
from realisvsr_jax.data.degraded_set import Recipe, degrade_set
from realisvsr_jax.data.set_folder import UNFINISHED, unfinished
from realisvsr_jax.data.set_manifest import file_digest, frames_digest, read_manifest, verify
from realisvsr_jax.data.testset import find_clips
from realisvsr_jax.errors import InputError

LIGHT = Recipe("light", 3, 2)


def texture(count, height, width, seed=0):
    field = np.random.default_rng(seed).standard_normal((height, width + count, 3))
    field = cv2.GaussianBlur(field, (0, 0), 2)
    field = np.clip(128 + 40 * field / field.std(), 0, 255).astype(np.uint8)
    return np.stack([field[:, t : t + width] for t in range(count)])


def pictures(folder, frames):
    folder.mkdir(parents=True)
    for k, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"im{k + 1}.png"), frame[..., ::-1])
    return folder


@pytest.fixture
def truths(tmp_path):
    """Two folders of frames, one with a dot in its name and odd sides, and a video."""
    folder = tmp_path / "gt"
    pictures(folder / "walk.01", texture(3, 33, 46))
    pictures(folder / "city", texture(11, 32, 48, 1))
    movie = texture(4, 32, 32, 2)
    (folder / "day").mkdir()
    video.write_video(folder / "day" / "bus.mp4", movie, Fraction(24), lossless=True)
    return folder


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def make(truths, target, recipe=LIGHT, **options):
    return degrade_set(find_clips(truths), target, recipe, workers=1, **options)


def test_each_clip_is_what_its_plan_makes_of_the_truth(truths, tmp_path, caplog):
    low = tmp_path / "lq"
    with caplog.at_level(logging.INFO):
        make(truths, low)
    assert caplog.messages == [
        "1 of 3 clips, walk.01 first, have sides that 2 does not divide: their last rows and "
        "columns are left out; `evaluate --mod_crop 2` leaves them out of the truth"
    ]
    manifest = read_manifest(low)
    assert list(manifest["clips"]) == ["city", "day/bus", "walk.01"]
    assert list(find_clips(low)) == list(find_clips(truths))
    clip = manifest["clips"]["walk.01"]
    assert clip["input"] == {
        "sha256": file_digest(truths / "walk.01"),
        **{"frames": 3, "height": 33, "width": 46},
    }
    assert clip["truth"] == {"height": 32, "width": 46}
    for name, path in find_clips(truths).items():
        clip = manifest["clips"][name]
        frames = video.read_video(path).frames
        frames = frames[:, : clip["truth"]["height"], : clip["truth"]["width"]]
        plan = DegradationPlan.from_json(json.dumps(clip["plan"]))
        lead = np.pad(frames, ((10, 0), (0, 0), (0, 0), (0, 0)), mode="reflect")
        expected = apply_plan(plan, lead)[10:]
        found = video.read_video(low / clip["output"]["path"])
        np.testing.assert_array_equal(found.frames, expected)
        assert clip["output"]["frames_sha256"] == frames_digest(expected)
        assert clip["output"]["sha256"] == file_digest(low / clip["output"]["path"])
        assert found.info.rate == video.probe(path).rate
    assert not (low / UNFINISHED).exists()


def test_workers_and_other_clips_change_nothing(truths, tmp_path):
    one = make(truths, tmp_path / "one")
    degrade_set(find_clips(truths), tmp_path / "two", LIGHT, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    shutil.rmtree(truths / "city")
    make(truths, tmp_path / "fewer")
    fewer = contents(tmp_path / "fewer")
    before = contents(tmp_path / "one")
    assert {name: before[name] for name in fewer if name != "manifest.json"} == {
        name: content for name, content in fewer.items() if name != "manifest.json"
    }
    other = make(truths, tmp_path / "other", Recipe("light", 4, 2))
    plans = [manifest["clips"]["walk.01"]["plan"] for manifest in (other, one)]
    assert plans[0] != plans[1]


def test_plans_differ_between_clips_of_the_same_frames(tmp_path):
    for name in ("a", "b"):
        pictures(tmp_path / "gt" / name, texture(1, 32, 32))
    clips = make(tmp_path / "gt", tmp_path / "lq")["clips"]
    assert clips["a"]["input"]["sha256"] == clips["b"]["input"]["sha256"]
    assert clips["a"]["plan"] != clips["b"]["plan"]


def test_checksums_are_those_of_sha256sum(tmp_path):
    folder = pictures(tmp_path / "walk", texture(2, 8, 8))
    names = ["im1.png", "im2.png"]
    printed = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, check=True)
    again = subprocess.run("sha256sum", input=printed.stdout, capture_output=True, check=True)
    assert again.stdout.split()[0].decode() == file_digest(folder)


def test_what_is_made_is_not_made_again(truths, tmp_path, monkeypatch):
    low, made = tmp_path / "lq", []
    whole = make(truths, low)
    before = contents(low)
    made_one = degraded_set._make
    monkeypatch.setattr(
        degraded_set, "_make", lambda name, *rest: made.append(name) or made_one(name, *rest)
    )
    assert make(truths, low) == whole
    assert made == []
    shutil.rmtree(low / "city")
    assert make(truths, low) == whole
    assert made == ["city"]
    assert contents(low) == before
    make(truths, low, overwrite=True)
    assert made == ["city", "city", "day/bus", "walk.01"]
    assert contents(low) == before


def test_a_clip_that_breaks_off_is_named_and_the_others_are_made(truths, tmp_path):
    broken = truths / "city" / "im5.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:90])
    low = tmp_path / "lq"
    with pytest.raises(InputError) as raised:
        make(truths, low)
    assert str(raised.value) == (
        f"1 of 3 clips are not made, city first: {broken} is not a picture that can be read; "
        "remove or replace it"
    )
    assert [name for name, clip in read_manifest(low)["clips"].items() if clip] == [
        "day/bus",
        "walk.01",
    ]
    with pytest.raises(InputError, match=r"is not the set of .*: city was never made"):
        verify(low)
    broken.write_bytes(whole)
    make(truths, low)
    assert verify(low) == 3
    make(truths, tmp_path / "whole")
    assert contents(low) == contents(tmp_path / "whole")


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path):
    truths, low = tmp_path / "gt", tmp_path / "lq"
    for k in range(6):
        pictures(truths / f"{k:03}", texture(6, 128, 128, k))
    command = [sys.executable, "-m", "realisvsr_jax.degrade", "--workers", "2"]
    command += ["--input", str(truths), "--output", str(low)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not list(low.glob("0*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = {path.name: path.stat().st_mtime_ns for path in low.glob("0*")}
    assert 0 < len(done) < 6
    deadline = time.time() + 20
    while _alive(process.pid) and time.time() < deadline:  # its workers end with it
        time.sleep(0.05)
    assert not _alive(process.pid)
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert {name: (low / name).stat().st_mtime_ns for name in done} == done
    degrade_set(find_clips(truths), tmp_path / "whole", workers=1)
    assert contents(low) == contents(tmp_path / "whole")


def _alive(session):
    """Processes of a session that are not zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(of) == session and state != "Z":
            found.append(stat.parent.name)
    return found


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe("light", 4, 2), "was made with seed 3, not 4"),
        (Recipe("paper", 3, 2), "was made with preset light, not paper"),
        (Recipe("light", 3, 4), "was made with scale 2, not 4"),
    ],
)
def test_another_recipe_is_refused_unless_told_otherwise(truths, tmp_path, recipe, message):
    low = tmp_path / "lq"
    shutil.rmtree(truths / "city")
    make(truths, low)
    before = contents(low)
    with pytest.raises(InputError) as raised:
        make(truths, low, recipe)
    assert str(raised.value) == (f"{low} {message}; name another --output, or add --overwrite")
    assert contents(low) == before
    make(truths, low, recipe, overwrite=True)
    make(truths, tmp_path / "new", recipe)
    assert contents(low) == contents(tmp_path / "new")


def test_other_versions_do_not_go_on_with_a_set(truths, tmp_path, monkeypatch):
    low = tmp_path / "lq"
    make(truths, low)
    now = {**degraded_set.versions(), "numpy": "1.0"}
    monkeypatch.setattr(degraded_set, "versions", lambda: now)
    make(truths, low)  # nothing is left to do
    shutil.rmtree(low / "city")
    with pytest.raises(InputError, match=r"was begun with numpy .*, this is 1\.0; --overwrite"):
        make(truths, low)


def test_a_checksum_that_does_not_match_is_an_error(truths, tmp_path):
    low = tmp_path / "lq"
    make(truths, low)
    picture = low / "city" / "00000002.png"
    frame = cv2.imread(str(picture))
    cv2.imwrite(str(picture), frame, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    assert verify(low) == 3  # other bytes, the same frames
    cv2.imwrite(str(picture), frame + np.uint8(1))
    with pytest.raises(InputError) as raised:
        verify(low)
    manifest = low / "manifest.json"
    assert str(raised.value) == f"{low} is not the set of {manifest}: city has other frames"
    with pytest.raises(InputError) as raised:
        make(truths, low)
    assert str(raised.value) == (
        f"{low}: the clip city has other frames by manifest.json; remove it to have it made again"
    )
    picture.write_bytes(b"no picture")
    (low / "day" / "bus.mkv").unlink()
    pictures(low / "new", texture(1, 8, 8))
    with pytest.raises(InputError) as raised:
        verify(low)
    assert str(raised.value) == (
        f"{low} is not the set of {manifest}: city cannot be read, day/bus is missing, new is "
        "not in it (3 clips in all)"
    )


def test_a_set_is_compared_with_a_manifest_from_elsewhere(truths, tmp_path):
    make(truths, tmp_path / "lq")
    make(truths, tmp_path / "other", Recipe("light", 4, 2))
    copy = tmp_path / "published.json"
    shutil.copy(tmp_path / "other" / "manifest.json", copy)
    assert verify(tmp_path / "other", copy) == 3
    with pytest.raises(InputError, match=r"published\.json: city has other frames, day/bus has"):
        verify(tmp_path / "lq", copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{", "is no manifest of a degraded set: "),
        ('{"format": 9}', "is of format 9, not 1"),
        ('{"format": 1, "preset": "light", "seed": 0, "scale": 4}', "it has no versions"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=message):
        verify(tmp_path)


def test_a_manifest_never_leads_out_of_its_folder(truths, tmp_path):
    low = tmp_path / "lq"
    make(truths, low)
    mine = pictures(tmp_path / "mine", texture(1, 8, 8))
    text = (low / "manifest.json").read_text()
    (low / "manifest.json").write_text(text.replace('"path": "city"', '"path": "../mine"'))
    with pytest.raises(InputError, match=r"\.\./mine is no path in the set"):
        make(truths, low, overwrite=True)
    assert (mine / "im1.png").exists()


def test_a_truth_that_changed_is_refused(truths, tmp_path):
    make(truths, tmp_path / "lq")
    cv2.imwrite(str(truths / "city" / "im2.png"), np.zeros((32, 48, 3), np.uint8))
    with pytest.raises(InputError, match=r"city has changed since .*lq was made of it; name"):
        make(truths, tmp_path / "lq")


def test_pictures_of_16_bits_are_refused(truths, tmp_path):
    for suffix in ("png", "tiff"):
        deep = truths / "city" / f"im12.{suffix}"
        cv2.imwrite(str(deep), np.zeros((32, 48, 3), np.uint16))
        with pytest.raises(InputError) as raised:
            make(truths, tmp_path / "lq")
        assert str(raised.value) == (
            f"{deep} has 16 bits a channel, and scores are of 8: convert the frames to 8 bits "
            "first and take them as the truth"
        )
        deep.unlink()
    assert not (tmp_path / "lq").exists()


def test_clips_that_cannot_be_used_leave_nothing(truths, tmp_path):
    (truths / "day" / "empty.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty\.mp4 is empty \(0 bytes\)"):
        make(truths, tmp_path / "lq")
    (truths / "day" / "empty.mp4").unlink()
    with pytest.raises(InputError, match="frames of 48×32 are below scale 33"):
        make(truths, tmp_path / "lq", Recipe("light", 0, 33))
    pictures(truths / "city" / "thumbs", texture(1, 8, 8))
    with pytest.raises(InputError, match=r"city has pictures of its own and the clip .*thumbs"):
        make(truths, tmp_path / "lq")
    assert not (tmp_path / "lq").exists()


def test_what_is_not_of_the_set_is_kept_unless_told_otherwise(truths, tmp_path):
    low = tmp_path / "lq"
    mine = pictures(low / "city", texture(1, 8, 8))
    with pytest.raises(InputError, match=r"lq is not empty and has no manifest\.json; name"):
        make(truths, low)
    with pytest.raises(InputError, match=r"city has other files than numbered frames in it"):
        make(truths, low, overwrite=True)
    assert [path.name for path in mine.iterdir()] == ["im1.png"]
    os.rename(mine / "im1.png", mine / "00000000.png")
    make(truths, low, overwrite=True)
    assert verify(low) == 3
    pictures(truths / "later", texture(1, 32, 32))
    pictures(low / "later", texture(1, 8, 8))
    with pytest.raises(InputError, match="later exists and is not of this set; move it, or add"):
        make(truths, low)


def test_targets_that_cannot_serve_are_refused(truths, tmp_path):
    (tmp_path / "file").write_text("mine")
    for target, message in (
        (tmp_path / "file", "is a file; name a folder"),
        (tmp_path / "no" / "lq", "does not exist; create it first"),
        (tmp_path, "has the input in it; name a folder beside it"),
    ):
        with pytest.raises(InputError, match=message):
            make(truths, target, overwrite=True)


def test_two_processes_do_not_work_on_one_set(truths, tmp_path):
    with (
        unfinished(tmp_path / "lq"),
        pytest.raises(InputError, match="lq: another process works on this output; wait for it"),
    ):
        make(truths, tmp_path / "lq")
    assert not (tmp_path / "lq").exists()
