"""The entry point: a clip in, the same degraded clip out for the same seed."""

import subprocess
import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest

from realisvsr_jax import video
from realisvsr_jax.data.degradation import DegradationPlan, apply_plan


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
    assert "cropped to 64x48, which divides by 4" in result.stderr
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
        (("--scale", 65), "below scale 65"),
        (("--picture", "p.jpg"), "name it .png"),
        (("--frames", 1, "--plan", "missing/plan.json"), "cannot write missing/plan.json"),
    ],
)
def test_what_cannot_be_done_is_one_line(source, tmp_path, arguments, message):
    result = degrade("--input", source, "--output", tmp_path / "low.mkv", *arguments)
    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in result.stderr


def test_an_output_that_exists_is_kept_unless_told_otherwise(source, tmp_path):
    low = tmp_path / "low.mkv"
    low.write_bytes(b"mine")
    result = degrade("--input", source, "--output", low, "--frames", 1)
    assert result.returncode == 1
    assert "exists; name another output, or add --overwrite" in result.stderr
    assert low.read_bytes() == b"mine"
