"""The held-out table: scored once, kept by weights, put where the pages have a place for it."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def scoring(monkeypatch):
    """The script, with one small window of the tests' own footage and two seeds."""
    monkeypatch.syspath_prepend(str(ROOT / "demo"))
    import score_held_out

    window = score_held_out.Window("mouse.mp4", score_held_out.MARGIN, 0, 0, 64, 64)
    monkeypatch.setattr(score_held_out, "WINDOWS", {"mouse": window})
    monkeypatch.setattr(score_held_out, "SEEDS", (0, 1))
    monkeypatch.setattr(score_held_out, "FRAMES", 1)
    yield score_held_out
    del sys.modules["score_held_out"]


def unwanted(*_):
    raise AssertionError("scored again")


def test_scores_are_kept_and_belong_to_their_weights(scoring, tiny_release, tmp_path, monkeypatch):
    footage = ROOT / "tests" / "footage"
    arguments = (footage, str(tiny_release), None)
    ledger = scoring.Ledger(tmp_path / "scores.jsonl")
    scores = scoring.all_scores(*arguments, ledger)
    counts = {system: len(rows) for (_, system), rows in scores.items()}
    assert counts == {scoring.OURS: 2, scoring.BICUBIC: 2, scoring.CEILING: 1}
    first, second = scores["mouse", scoring.BICUBIC]
    assert first != second  # another seed is another degradation
    monkeypatch.setattr(scoring, "score", unwanted)
    again = scoring.Ledger(tmp_path / "scores.jsonl")
    assert scoring.all_scores(*arguments, again) == scores
    monkeypatch.setattr(scoring, "identity", lambda checkpoint: "other weights")
    with pytest.raises(AssertionError, match="scored again"):
        scoring.all_scores(*arguments, again)


def test_without_its_features_nothing_of_the_input_remains(scoring, tiny_release, tmp_path):
    ledger = scoring.Ledger(tmp_path / "scores.jsonl")
    row = scoring.all_controls(ROOT / "tests" / "footage", str(tiny_release), ledger)["mouse"]
    assert row["remains"] == 0
    assert row["own"] != row["none"]


def test_the_best_rival_is_bold_and_the_ceiling_is_none(scoring):
    better = {"psnr": 30.0, "ssim": 0.9, "lpips": 0.1, "dists": 0.1}
    worse = {"psnr": 20.0, "ssim": 0.5, "lpips": 0.5, "dists": 0.5}
    scores = {
        ("mouse", scoring.OURS): [better, better | {"psnr": 32.0}],
        ("mouse", scoring.BICUBIC): [worse, worse],
        ("mouse", scoring.CEILING): [better | {"psnr": 50.0}],
    }
    lines = scoring.long_table(scores).splitlines()
    assert lines[2].startswith("| mouse | ours | **31.00 ± 1.41** | **0.9000 ± 0.0000** |")
    assert lines[3].startswith("|  | bicubic | 20.00 ± 0.00 |")
    assert lines[4].startswith("|  | VAE alone (ceiling) | 50.00 |")


def test_the_window_is_the_clips_own_pixels_behind_its_lead(scoring):
    low, truth = scoring.pair(ROOT / "tests" / "footage", "mouse", 0)
    whole = scoring.WINDOWS["mouse"].truth(ROOT / "tests" / "footage")
    assert low.shape == (1, 16, 16, 3)
    np.testing.assert_array_equal(truth, whole[scoring.MARGIN :])
