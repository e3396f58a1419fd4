"""The whole chain of a benchmark at small size, and what it refuses."""

import dataclasses
import importlib
from pathlib import Path

import numpy as np
import pytest

from realisvsr_jax import settings
from realisvsr_jax.errors import InputError
from realisvsr_jax.evals import benchmark
from realisvsr_jax.evals.benchmark import BenchmarkConfig, Cut, prepare
from realisvsr_jax.video import read_video

FOOTAGE = Path(__file__).parents[1] / "footage"
CUTS = (
    Cut("head", "mouse.mp4", 2, 2, 8, 16, 32, 48),
    Cut("tail", "squirrel.mp4", 0, 2, 0, 0, 32, 48),
)
CONFIG = BenchmarkConfig(truth=str(FOOTAGE), cuts=CUTS, ours="")


def test_the_chain_from_windows_to_what_is_scored(tmp_path):
    made = prepare(CONFIG, tmp_path / "out", workers=1)
    assert made.reference == tmp_path / "out" / "truth"
    truth = read_video(made.reference / "head.mkv").frames
    source = read_video(FOOTAGE / "mouse.mp4", 2, 2).frames
    np.testing.assert_array_equal(truth, source[:, 8:40, 16:64])
    assert read_video(tmp_path / "out/low/head.mkv").frames.shape == (2, 8, 12, 3)
    assert read_video(made.restored["bicubic"] / "tail.mkv").frames.shape == (2, 32, 48, 3)


def test_a_second_run_makes_nothing_again(tmp_path):
    prepare(CONFIG, tmp_path / "out", workers=1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.mkv")}
    assert len(before) == 6
    prepare(CONFIG, tmp_path / "out", workers=1)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_ours_is_what_upscale_gives(tmp_path):
    config = dataclasses.replace(
        CONFIG, cuts=CUTS[:1], ours="tiny", baselines=(), upscale=("--steps=1", "--seed=3")
    )
    made = prepare(config, tmp_path / "out", workers=1)
    assert list(made.restored) == ["tiny"]
    assert read_video(made.restored["tiny"] / "head.mkv").frames.shape == (2, 32, 48, 3)


def test_frames_are_restored_clip_by_clip_and_videos_by_folder(tmp_path):
    (tmp_path / "a").mkdir()
    low = {"a": tmp_path / "a", "b/c": tmp_path / "b/c.mkv", "b/d": tmp_path / "b/d.mkv"}
    assert list(benchmark._jobs(low, Path("out"))) == [
        (tmp_path / "a", Path("out/a")),
        (tmp_path / "b", Path("out/b")),
    ]


def test_a_system_that_fails_is_named(tmp_path):
    config = dataclasses.replace(CONFIG, ours="tiny", upscale=("--no-such-flag",))
    with pytest.raises(InputError, match=r"tiny: restoring .* ended with status 1"):
        prepare(config, tmp_path / "out", workers=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": ""}, "give --config.truth=DIR or --config.low_quality=DIR"),
        ({"low_quality": "b"}, "give --config.truth=DIR or --config.low_quality=DIR"),
        ({"layout": "videolq"}, "videolq is a folder for --config.low_quality"),
        ({"layout": "red"}, "unknown layout 'red'"),
        ({"truth": "", "low_quality": "b"}, "cuts are windows of the truth"),
        ({"baselines": ("bilinear",)}, "unknown baseline 'bilinear'; known: bicubic"),
        ({"scale": 2}, "baselines enlarge 4×, the scale is 2"),
        ({"baselines": ()}, "no system to score"),
        ({"cuts": (Cut("x", "mouse.mp4", 0, 2, 0, 0, 4000, 8),)}, "is too small for the window x"),
    ],
)
def test_settings_that_do_not_go_together(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        prepare(dataclasses.replace(CONFIG, **change), tmp_path / "out", workers=1)


def test_another_benchmark_or_other_things_in_the_folder(tmp_path):
    prepare(CONFIG, tmp_path / "out", workers=1)
    with pytest.raises(InputError, match="has the benchmark with seed 0, this is 1"):
        prepare(dataclasses.replace(CONFIG, seed=1), tmp_path / "out")
    (tmp_path / "out" / "benchmark.json").write_text("{")
    with pytest.raises(InputError, match="cannot be understood"):
        prepare(CONFIG, tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="has other things in it"):
        prepare(CONFIG, tmp_path / "other")


@pytest.mark.parametrize("path", sorted(Path("configs").glob("eval_*.py")), ids=lambda p: p.stem)
def test_configurations_are_benchmarks(path):
    config = importlib.import_module(f"configs.{path.stem}").get_config()
    found = settings.from_mapping(BenchmarkConfig, config.to_dict())
    if path.stem == "eval_heldout":
        assert [cut.name for cut in found.cuts] == ["city", "bikes", "carphone", "phone"]
        benchmark.check(found)
    elif path.stem != "eval_set":
        name = "low_quality" if path.stem == "eval_videolq" else "truth"
        benchmark.check(dataclasses.replace(found, **{name: "folder"}))
