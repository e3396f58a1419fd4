"""The entry point: a clip in, the same degraded clip out for the same seed."""

import functools
import subprocess
import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest

from realisvsr_jax import degrade as program
from realisvsr_jax import video
from realisvsr_jax.data.degradation import DegradationPlan, apply_plan
from realisvsr_jax.errors import InputError, run_flags


@pytest.fixture
def source(tmp_path):
    """Fourteen frames of a moving pattern, 64 × 50, stored without loss."""
    y, x = np.mgrid[:50, :64]
    frames = [np.stack([2 * x + 5 * t, 3 * y, x + y], -1) for t in range(14)]
    path = tmp_path / "clip.mkv"
    video.write_video(path, np.uint8(frames), Fraction(25), lossless=True)
    return path


def degrade(*arguments):
    command = [sys.executable, "-m", "realisvsr_jax.degrade", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_file_holds_what_the_plan_makes_of_the_clip(source, tmp_path):
    low, plan_path, picture = tmp_path / "low.mkv", tmp_path / "plan.json", tmp_path / "p.png"
    result = degrade(
        *("--input", source, "--output", low, "--start", 10, "--frames", 3, "--seed", 5),
        *("--plan", plan_path, "--picture", picture),
    )
    assert result.returncode == 0, result.stderr
    assert "cropped to 64×48, which divides by 4" in result.stderr
    written = video.read_video(low).frames
    assert written.shape == (3, 12, 16, 3)
    plan = DegradationPlan.from_json(plan_path.read_text())
    frames = video.read_video(source).frames[:13, :48]
    error = np.abs(apply_plan(plan, frames)[10:].astype(int) - written)
    assert error.max() <= 3  # rounding between RGB and YUV
    assert cv2.imread(str(picture)) is not None


def test_a_clip_without_frames_before_it_opens_behind_a_mirrored_margin(source, tmp_path):
    low, again = tmp_path / "low.mkv", tmp_path / "again.mkv"
    for path in (low, again):
        result = degrade("--input", source, "--output", path, "--frames", 2, "--preset", "light")
        assert result.returncode == 0, result.stderr
    assert low.read_bytes() == again.read_bytes()
    assert len(video.read_video(low).frames) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "papre"), "unknown degradation preset 'papre'; did you mean 'paper'?"),
        (("--scale", 65), "frames of 64×50 are below scale 65"),
        (("--picture", "p.jpg"), "name it .png"),
        (("--plan", "missing/plan.json"), "--plan missing/plan.json: the folder missing does not"),
        (("--picture", "missing/p.png"), "--picture missing/p.png: the folder missing does not"),
        (("--plan", "p.png", "--picture", "p.png"), "--picture p.png collides with --plan; name"),
        (("--start", 14), "clip.mkv has 14 frames; start 14 is beyond its end"),
        (("--start", 17, "--frames", 2), "clip.mkv has 14 frames; start 17 is beyond its end"),
        (("--start", 30), "clip.mkv has 14 frames; start 30 is beyond its end"),
        (("--from_plan", "no.json"), "--from_plan: no.json cannot be read: No such file"),
        (("--from_plan", "README.md"), "--from_plan: README.md: not a degradation plan: "),
        (("--from_plan", "x", "--seed", 0), "--from_plan decides the seed; leave --seed out"),
    ],
)
def test_what_cannot_be_done_is_one_line(source, tmp_path, arguments, message):
    result = degrade("--input", source, "--output", tmp_path / "low.mkv", *arguments)
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mkv"]


@pytest.fixture
def here(in_process):
    """Calls the program in this process; returns its exit status and its lines of errors."""
    return functools.partial(in_process, program)


def test_a_kept_plan_gives_the_same_bytes(source, tmp_path, here):
    names = ("low.mkv", "again.mkv", "plan.json", "copy.json")
    low, again, plan, copy = (tmp_path / name for name in names)
    part = ("--input", source, "--start", 3, "--frames", 4)
    drawn = ("--preset", "light", "--seed", 9, "--scale", 2)
    assert here(*part, "--output", low, "--plan", plan, *drawn) == (0, [])
    assert here(*part, "--output", again, "--from_plan", plan, "--plan", copy) == (0, [])
    assert again.read_bytes() == low.read_bytes()
    assert copy.read_bytes() == plan.read_bytes()
    assert video.read_video(again).frames.shape == (4, 25, 32, 3)
    status, errors = here("--input", source, "--output", tmp_path / "no.mkv", "--from_plan", plan)
    assert status == 1
    assert errors == [
        f"error: {plan} is for 4 frames of 64×50, these are 14 of 64×50; name the clip, --start "
        "and --frames that it was made with"
    ]
    damaged = plan.read_text().replace('"scale": 2', '"scale": 0')
    plan.write_text(damaged)
    status, errors = here(*part, "--output", tmp_path / "no.mkv", "--from_plan", plan)
    assert (status, errors) == (1, [f"error: --from_plan: {plan}: its scale is 0"])
    assert not (tmp_path / "no.mkv").exists()


@pytest.mark.parametrize("name", ["plan.json", "sheet.png"])
def test_files_beside_the_video_are_kept_unless_told_otherwise(source, tmp_path, here, name):
    path = tmp_path / name
    path.write_bytes(b"mine")
    flag = "--plan" if name == "plan.json" else "--picture"
    place = ("--input", source, "--output", tmp_path / "low.mkv", "--frames", 2, flag)
    status, errors = here(*place, path)
    assert status == 1
    assert errors == [f"error: {flag} {path} exists; name another file, or add --overwrite"]
    assert path.read_bytes() == b"mine"
    assert not (tmp_path / "low.mkv").exists()
    assert here(*place, path, "--overwrite") == (0, [])
    assert path.read_bytes() != b"mine"


def test_an_input_or_a_folder_is_never_a_file_beside(source, tmp_path, here):
    (tmp_path / "frames").mkdir()
    place = ("--input", source, "--overwrite", "--frames", 1)
    for flag, path, output, message in (
        ("--plan", source, "low.mkv", "is an input; name another file"),
        ("--plan", tmp_path / "frames", "low.mkv", "exists; name another file"),
        ("--plan", tmp_path / "frames" / "p.json", "frames", "collides with --output; name"),
    ):
        status, errors = here(*place, "--output", tmp_path / output, flag, path)
        assert status == 1
        assert len(errors) == 1
        assert message in errors[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mkv", "frames"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failure_leaves_nothing_of_this_run(source, tmp_path, here, monkeypatch, overwrite):
    def full(*_, **__):
        raise InputError("low.mkv: no space left while writing")

    old = {tmp_path / name: b"mine" for name in ("low.mkv", "plan.json", "sheet.png")}
    for path, content in old.items() if overwrite else ():
        path.write_bytes(content)
    monkeypatch.setattr(video, "write_video", full)
    place = ("--input", source, "--output", tmp_path / "low.mkv", "--frames", 1)
    beside = ("--plan", tmp_path / "plan.json", "--picture", tmp_path / "sheet.png")
    status, errors = here(*place, *beside, *(("--overwrite",) if overwrite else ()))
    assert (status, errors) == (1, ["error: low.mkv: no space left while writing"])
    found = {path: path.read_bytes() for path in tmp_path.iterdir() if path != source}
    assert found == (old if overwrite else {})


def test_help_opens_with_a_command_that_works(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["degrade", "--help"])
    assert run_flags(program.main, program.FLAGS) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert "realisvsr_jax.degrade --input clip.mp4 --output low.mkv" in first
    assert "--help" not in first


def test_an_output_that_exists_is_kept_unless_told_otherwise(source, tmp_path):
    low = tmp_path / "low.mkv"
    low.write_bytes(b"mine")
    result = degrade("--input", source, "--output", low, "--frames", 1)
    assert result.returncode == 1
    assert "exists; name another output, or add --overwrite" in result.stderr
    assert low.read_bytes() == b"mine"


@pytest.fixture
def truths(tmp_path):
    """A folder as REDS comes: two clips of frames in val/val_sharp."""
    folder = tmp_path / "REDS"
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    for name in ("000", "001"):
        clip = folder / "val" / "val_sharp" / name
        clip.mkdir(parents=True)
        for k, frame in enumerate(frames):
            cv2.imwrite(str(clip / f"{k:08}.png"), frame)
    return folder


def test_a_folder_of_clips_becomes_a_test_set(truths, tmp_path, here, caplog):
    low, again = tmp_path / "lq", tmp_path / "again"
    made = ("--preset", "light", "--seed", 7, "--workers", 1)
    with caplog.at_level("INFO"):
        assert here("--input", truths, "--output", low, "--layout", "reds", *made)[0] == 0
        assert here("--verify", low)[0] == 0
    assert caplog.messages[0] == f"{truths} has 2 clips, reds has 30"
    assert caplog.messages[-2:] == [
        f"{low}: 2 clips, {low / 'manifest.json'}",
        f"{low}: 2 clips, all as the manifest says",
    ]
    assert sorted(path.name for path in low.iterdir()) == ["000", "001", "manifest.json"]
    assert video.read_video(low / "001").frames.shape == (2, 8, 8, 3)
    # Without the layout's name its clips are found as well, under longer names.
    assert here("--input", truths, "--output", again, *made)[0] == 0
    assert (again / "val" / "val_sharp" / "000" / "00000001.png").is_file()
    assert here("--verify", again, "--manifest", low / "manifest.json")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--layout", "red"), "unknown layout 'red'; known: reds, spmcs, udm10, youhq40, vid4, "),
        (("--layout", "videolq"), "videolq is low-quality footage without a truth: there is noth"),
        (("--preset", "papre"), "unknown degradation preset 'papre'; did you mean 'paper'?"),
        (("--frames", 3), "--frames is for one clip, {} is a folder of them"),
        (("--from_plan", "p.json"), "--from_plan is for one clip, {} is a folder of them"),
        (("--output", "lq.mkv"), "--output lq.mkv: {} is a folder of clips; name a folder"),
        (("--output", "{}/lq"), "--output {}/lq is inside --input; name a folder beside it"),
        (("--input", "missing", "--layout", "reds"), "missing does not exist; name a folder of cl"),
        (("--manifest", "m.json"), "--manifest goes with --verify LQ_DIR"),
        (("--verify", "lq"), "--verify only reads a set; leave --input out"),
        (("--input", "{}/val/val_sharp/000", "--workers", 2), "--workers is for a folder of clips"),
    ],
)
def test_a_set_that_cannot_be_made_is_one_line(truths, tmp_path, here, arguments, message):
    place = ("--input", truths, "--output", tmp_path / "lq")
    status, errors = here(*place, *(str(item).format(truths) for item in arguments))
    assert status == 1
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {message.format(truths)}")
    assert [path.name for path in tmp_path.iterdir()] == ["REDS"]


def test_a_missing_input_is_named_before_an_output_that_exists(tmp_path, here):
    place = ("--input", tmp_path / "missing", "--output", tmp_path)
    assert here(*place) == (1, [f"error: --input {tmp_path / 'missing'} does not exist"])


def test_an_empty_set_and_clips_of_one_name_are_refused(tmp_path, here, source):
    place = ("--input", tmp_path / "gt", "--output", tmp_path / "lq")
    (tmp_path / "gt").mkdir()
    empty = f"error: {tmp_path / 'gt'} has no clips; expected videos or folders of pictures in it"
    assert here(*place) == (1, [empty])
    for name in ("city.mkv", "city.mov"):
        (tmp_path / "gt" / name).write_bytes(source.read_bytes())
    status, errors = here(*place)
    assert status == 1
    assert "are both the clip 'city'; take one of them away" in errors[0]
    assert not (tmp_path / "lq").exists()
