"""A clip's scores are the means over its frames, whatever the batch; the table says who wins."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from realisvsr_jax.errors import InputError
from realisvsr_jax.evals import fidelity, report

IMAGES = Path(__file__).parent / "images"


@pytest.fixture(scope="module")
def clips():
    """Three uint8 frames of 64×64 and their references."""
    ref, p0, p1 = (
        cv2.imread(str(IMAGES / f"ex_{name}.png"))[..., ::-1] for name in ("ref", "p0", "p1")
    )
    return np.stack([p0, p1, p1]), np.stack([ref, ref, ref])


def test_scores_are_means_over_frames_whatever_the_batch(clips, monkeypatch):
    done = []
    whole = report.score_clip(*clips, progress=done.append)
    assert whole["psnr"] == fidelity.psnr(*clips)
    assert whole["ssim"] == fidelity.ssim(*clips)
    assert whole["lpips"] == pytest.approx((0.7219 + 2 * 0.1376) / 3, abs=1e-4)
    assert 0.0 < whole["dists"] < 1.0
    monkeypatch.setattr(report, "_PIXELS_AT_ONCE", 2 * 64 * 64)
    in_two = report.score_clip(*clips, progress=done.append)
    assert in_two == pytest.approx(whole, rel=1e-5)
    assert done == [3, 2, 1]


def test_bytes_and_floats_score_alike(clips):
    floats = [(frames / 127.5 - 1.0).astype(np.float32) for frames in clips]
    assert report.score_clip(*floats) == pytest.approx(report.score_clip(*clips), rel=1e-4)


def test_clips_of_different_length_are_refused(clips):
    with pytest.raises(InputError, match=r"\(3, 64, 64, 3\) and \(2, 64, 64, 3\)"):
        report.score_clip(clips[0], clips[1][:2])


def test_the_table_marks_the_best_of_each_column():
    rows = {
        "bicubic": {"psnr": 21.5, "ssim": 0.6, "lpips": 0.5, "dists": 0.25},
        "ours": {"psnr": 21.0, "ssim": 0.7, "lpips": 0.3, "dists": 0.125},
    }
    assert report.table(rows).splitlines() == [
        "               PSNR        SSIM       LPIPS       DISTS",
        "          RGB, dB ↑         Y ↑      Alex ↓       VGG ↓",
        "bicubic      21.50*     0.6000      0.5000      0.2500",
        "ours         21.00      0.7000*     0.3000*     0.1250*",
    ]
