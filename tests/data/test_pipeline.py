import dataclasses
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from realisvsr_jax.data.pipeline import ATTEMPTS, DataConfig, PairMaker, make_batches
from realisvsr_jax.data.sources import SourceClip, index_clips
from realisvsr_jax.errors import InputError
from realisvsr_jax.video import read_video

FOOTAGE = Path(__file__).parent.parent / "footage"
CONFIG = DataConfig(
    sources=(str(FOOTAGE),), buckets=((5, 96, 96), (1, 96, 128)), batch_size=2, seed=4
)


def same(a: dict, b: dict) -> bool:
    return a["caption"] == b["caption"] and all(
        np.array_equal(a[name], b[name]) for name in ("gt", "lq", "index")
    )


def test_a_batch_has_one_bucket_and_its_low_quality_side():
    shapes = [(batch["gt"].shape, batch["lq"].shape) for batch in make_batches(CONFIG, num_steps=4)]
    large = ((2, 5, 96, 96, 3), (2, 5, 24, 24, 3))
    still = ((2, 1, 96, 128, 3), (2, 1, 24, 32, 3))
    assert sorted(shapes) == sorted([large, still] * 2)


def test_a_step_is_the_same_whatever_came_before_it():
    whole = list(make_batches(CONFIG, num_steps=6))
    resumed = list(make_batches(CONFIG, start_step=3, num_steps=3))
    assert all(same(a, b) for a, b in zip(whole[3:], resumed, strict=True))
    assert not same(whole[0], whole[2])


def test_worker_processes_change_nothing():
    alone = list(make_batches(CONFIG, num_steps=4))
    workers = dataclasses.replace(CONFIG, workers=2)
    for a, b in zip(alone, make_batches(workers, num_steps=4), strict=True):
        assert same(a, b)


def test_the_ground_truth_is_a_crop_of_the_file():
    config = dataclasses.replace(CONFIG, buckets=((5, 96, 96),), horizontal_flip=False)
    clips = [clip for clip in index_clips(config.sources) if clip.path.name == "squirrel.mp4"]
    gt = PairMaker(config, clips)(0)["gt"]
    whole = read_video(clips[0].path).frames
    crops = []
    for start in range(len(whole) - len(gt) + 1):
        found = cv2.matchTemplate(whole[start], gt[0], cv2.TM_SQDIFF)
        y, x = np.unravel_index(np.argmin(found), found.shape)
        crops.append(whole[start : start + 5, y : y + 96, x : x + 96])
    assert any(np.array_equal(gt, crop) for crop in crops)


def test_every_clip_comes_once_an_epoch():
    config = dataclasses.replace(CONFIG, buckets=((1, 96, 96),), batch_size=3)
    captions = [sorted(b["caption"]) for b in make_batches(config, num_steps=4)]
    assert captions == [sorted(clip.caption for clip in index_clips(config.sources))] * 4


def test_clips_that_are_too_small_are_left_out():
    wide = dataclasses.replace(CONFIG, buckets=((8, 96, 160),))
    assert {c for b in make_batches(wide, num_steps=3) for c in b["caption"]} == {
        "a red squirrel in front of a burrow"
    }
    with pytest.raises(InputError, match=r"none of 3 clips is as large as bucket \(8, 480, 832\)"):
        make_batches(dataclasses.replace(CONFIG, buckets=((8, 480, 832),)), num_steps=1)


def test_sides_that_the_scale_does_not_divide_are_an_error():
    with pytest.raises(InputError, match="do not divide by the scale 4"):
        make_batches(dataclasses.replace(CONFIG, buckets=((1, 90, 96),)), num_steps=1)


def test_a_clip_that_cannot_be_read_is_replaced_in_the_same_way_every_time(tmp_path):
    for name in ("good", "gone"):
        shutil.copy(FOOTAGE / "mouse.mp4", tmp_path / f"{name}.mp4")
    maker = PairMaker(dataclasses.replace(CONFIG, buckets=((5, 96, 96),)), index_clips([tmp_path]))
    (tmp_path / "gone.mp4").write_bytes(b"")
    first, second = maker(0), maker(1)
    reasons = [reason for index in range(4) for reason in maker(index)["replaced"]]
    assert reasons
    assert all("gone.mp4" in reason for reason in reasons)
    assert {maker(index)["clip"] for index in range(4)} == {str(tmp_path / "good.mp4")}
    assert same({**maker(0), "index": 0}, {**first, "index": 0})
    assert not np.array_equal(first["gt"], second["gt"])


def test_when_nothing_can_be_read_training_stops():
    clip = SourceClip(FOOTAGE / "missing.mp4", 16, 128, 128)
    maker = PairMaker(dataclasses.replace(CONFIG, buckets=((5, 96, 96),)), [clip])
    with pytest.raises(InputError, match=f"{ATTEMPTS} clips in a row cannot be read"):
        maker(0)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'paper'"):
        make_batches(dataclasses.replace(CONFIG, degradation="papr"), num_steps=1)


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_workers_do_not_outlive_a_training_that_was_killed():
    program = (
        "import multiprocessing, time\n"
        "from realisvsr_jax.data.pipeline import DataConfig, make_batches\n"
        f"config = DataConfig(sources=({str(FOOTAGE)!r},), buckets=((1, 96, 96),), workers=2)\n"
        "batches = make_batches(config, num_steps=100)\n"
        "next(batches)\n"
        "print(*(p.pid for p in multiprocessing.active_children()), flush=True)\n"
        "time.sleep(60)\n"
    )
    training = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert training.stdout is not None
    workers = [int(pid) for pid in training.stdout.readline().split()]
    assert len(workers) == 2
    training.kill()
    training.wait()
    training.stdout.close()
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in workers):
            return
        time.sleep(0.1)
    raise AssertionError("a worker lives on")
