"""The demo's table and picture: what it says of bicubic is what bicubic scores."""

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from realisvsr_jax.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("run_demo", ROOT / "demo" / "run_demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def clips():
    """Low quality [2, 16, 16, 3] and ground truth [2, 64, 64, 3]."""
    image = cv2.imread(str(ROOT / "tests" / "evals" / "images" / "ex_ref.png"))[..., ::-1]
    truth = np.stack([image, image[:, ::-1]])
    small = [cv2.resize(frame, (16, 16), interpolation=cv2.INTER_AREA) for frame in truth]
    return np.stack(small), truth


def test_what_equals_bicubic_scores_as_bicubic(demo, clips, tmp_path):
    low, truth = clips
    scores = demo.compare(low, demo.enlarge(low, 64, 64), truth, tmp_path)
    assert scores["ours"] == scores["bicubic"]
    assert json.loads((tmp_path / "metrics.json").read_text()) == scores
    assert set(scores["ours"]) == {"psnr", "ssim", "lpips", "dists"}
    assert cv2.imread(str(tmp_path / "comparison.png")).shape[1] > 3 * 500


def test_what_is_nearer_to_the_truth_scores_better(demo, clips, tmp_path):
    low, truth = clips
    enlarged = demo.enlarge(low, 64, 64)
    nearer = ((enlarged.astype(int) + truth) // 2).astype(np.uint8)
    scores = demo.compare(low, nearer, truth, tmp_path)
    for name, better in {"psnr": 1, "ssim": 1, "lpips": -1, "dists": -1}.items():
        assert better * scores["ours"][name] > better * scores["bicubic"][name]


def test_a_clip_of_another_size_is_refused(demo, clips, tmp_path):
    low, truth = clips
    with pytest.raises(InputError, match=r"restored \(1, 64, 64, 3\), but the ground truth"):
        demo.compare(low, truth[:1], truth, tmp_path)
