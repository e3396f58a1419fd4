"""The evaluation program, as its users call it, on two small clips of real footage."""

import csv
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from realisvsr_jax import evaluate as program
from realisvsr_jax.errors import run_flags
from realisvsr_jax.evals import comparison, meters
from realisvsr_jax.video import read_video, write_video
from realisvsr_jax.video.folders import write_picture

FOOTAGE = Path(__file__).parent / "footage"


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """GT and bicubic as lossless videos, noisy as PNGs, half at half the size; four frames each."""
    root = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    for name in ("mouse", "squirrel"):
        frames = read_video(FOOTAGE / f"{name}.mp4", 0, 4).frames[:, :96, :128]
        for kind in ("GT", "bicubic", "half"):
            (root / kind).mkdir(exist_ok=True)
        low = [cv2.resize(f, (32, 24), interpolation=cv2.INTER_AREA) for f in frames]
        large = [cv2.resize(f, (128, 96), interpolation=cv2.INTER_CUBIC) for f in low]
        half = [cv2.resize(f, (64, 48), interpolation=cv2.INTER_AREA) for f in frames]
        for kind, clip in (("GT", frames), ("bicubic", np.stack(large)), ("half", np.stack(half))):
            write_video(root / kind / f"{name}.mkv", clip, lossless=True)
        noisy = np.clip(frames + rng.normal(0, 9, frames.shape), 0, 255).astype(np.uint8)
        (root / "noisy" / name).mkdir(parents=True)
        for k, frame in enumerate(noisy):
            write_picture(root / "noisy" / name / f"{k:03}.png", frame)
    return root


@pytest.fixture
def here(in_process, caplog):
    """Calls the program in this process; returns its exit status and its lines of errors."""

    def call(*arguments):
        with caplog.at_level("INFO"):
            status, lines = in_process(program, *arguments)
        return status, [line for line in lines if line.startswith("error")]

    return call


def test_systems_stand_side_by_side(sets, tmp_path, here):
    report = tmp_path / "report"
    place = ("--restored", sets / "bicubic", "--restored", f"grain={sets / 'noisy'}")
    names = "psnr_rgb,ssim_y,lpips_alex,niqe,musiq,ewarp,flicker"
    found = here(
        *(*place, "--reference", sets / "GT", "--output", report, "--metrics", names),
        *("--window", 2, "--title", "Two clips"),
    )
    assert found == (0, [])
    data = json.loads((report / "scores.json").read_text())
    assert list(data["systems"]) == ["bicubic", "grain"]
    for system, folder in (("bicubic", "bicubic"), ("grain", "noisy")):
        for clip in ("mouse", "squirrel"):
            path = sets / folder / (clip if folder == "noisy" else f"{clip}.mkv")
            pair = read_video(path).frames, read_video(sets / "GT" / f"{clip}.mkv").frames
            expected = np.mean([peak_signal_noise_ratio(a, b) for a, b in zip(*pair)])
            scores = data["systems"][system]["clips"][clip]["scores"]
            assert scores["psnr_rgb"] == pytest.approx(expected, abs=1e-9)
            assert {"ssim_y", "lpips_alex", "ewarp"} <= scores.keys()
    means = {name: system["mean"] for name, system in data["systems"].items()}
    assert means["grain"]["psnr_rgb"] > means["bicubic"]["psnr_rgb"]
    assert means["grain"]["ewarp"] > 1.3 * means["bicubic"]["ewarp"]
    absent = data["systems"]["grain"]["absent"]
    assert absent["niqe"].startswith("needs frames of")
    assert absent["musiq"].startswith("not asked for: give --pyiqa PYTHON")
    assert absent["flicker"].startswith("no border of windows of 2")
    table = (report / "table.md").read_text()
    assert table.startswith("| Two clips | bicubic | grain |\n")
    assert "musiq" in table
    assert "– <sup>" in table
    assert "\\begin{tabular}{lcc}" in (report / "table.tex").read_text()
    assert len(list(csv.reader((report / "scores.csv").open()))) == 5
    text = (report / "index.html").read_text()
    page = json.loads(text.split('id="data">')[1].split("</script>")[0])
    for clip in page["clips"]:
        shown = [clip["truth"], *(one["media"] for one in clip["systems"])]
        truth = read_video(sets / "GT" / f"{clip['name']}.mkv").frames
        frame, profile = (cv2.imread(str(report / shown[0][k])) for k in ("frame", "profile"))
        np.testing.assert_array_equal(frame[..., ::-1], truth[2])
        np.testing.assert_array_equal(profile[..., ::-1], truth[:, 48])
        assert all((report / media["frame"]).is_file() for media in shown)
        assert len(clip["crops"]) == 2


def test_finished_scores_are_kept_and_only_of_unchanged_files(sets, tmp_path, here, monkeypatch):
    counted = []

    def measure(pair, names, *rest):
        counted.append((pair.restored.path.name, list(names)))
        if len(counted) == 2 and not (tmp_path / "second").exists():
            raise KeyboardInterrupt
        return meters.measure(pair, names, *rest)

    monkeypatch.setattr(comparison, "measure", measure)
    restored = tmp_path / "ours"
    for name in ("mouse", "squirrel"):
        (restored / name).mkdir(parents=True)
        for k, frame in enumerate(read_video(sets / "GT" / f"{name}.mkv").frames):
            write_picture(restored / name / f"{k}.png", frame)
    report = tmp_path / "report"
    call = ("--restored", restored, "--reference", sets / "GT", "--output", report)
    assert here(*call, "--metrics", "psnr_rgb") == (130, [])
    assert not (report / "index.html").exists()
    (tmp_path / "second").touch()
    counted.clear()
    assert here(*call, "--metrics", "psnr_rgb") == (0, [])
    assert [name for name, _ in counted] == ["squirrel"]
    counted.clear()
    assert here(*call, "--metrics", "psnr_rgb,ssim_y") == (0, [])
    assert counted == [("mouse", ["ssim_y"]), ("squirrel", ["ssim_y"])]
    frame = read_video(sets / "GT" / "mouse.mkv").frames[0]
    write_picture(restored / "mouse" / "0.png", 255 - frame)
    counted.clear()
    assert here(*call, "--metrics", "psnr_rgb") == (0, [])
    assert [name for name, _ in counted] == ["mouse"]
    clips = json.loads((report / "scores.json").read_text())["systems"]["ours"]["clips"]
    assert clips["squirrel"]["scores"]["psnr_rgb"] == "inf"
    # what the old frame was part of is gone, and what is shown is there
    assert len(list((report / "media").iterdir())) == 2 * 2 * 2


def test_without_a_reference_only_what_needs_none_is_scored(sets, tmp_path, here):
    report = tmp_path / "report"
    names = ("--metrics", "psnr_rgb,ewarp", "--nopictures")
    assert here("--restored", sets / "noisy", "--output", report, *names) == (0, [])
    system = json.loads((report / "scores.json").read_text())["systems"]["noisy"]
    assert system["mean"]["psnr_rgb"] is None
    assert system["absent"] == {"psnr_rgb": "needs a reference"}
    assert system["mean"]["ewarp"] > 0
    assert not (report / "media").exists()
    assert here("--restored", sets / "noisy", "--output", report, "--nopictures") == (0, [])
    rows = (report / "table.md").read_text().split("\n\n")[0].splitlines()[2:]
    assert [row.split(" (")[0] for row in rows] == [
        *("| DOVER", "| MUSIQ", "| NIQE", "| CLIP-IQA", "| E_warp")
    ]


def test_smaller_clips_need_a_flag_and_are_marked(sets, tmp_path, here, caplog):
    place = ("--restored", sets / "half", "--reference", sets / "GT", "--metrics", "psnr_rgb")
    status, errors = here(*place, "--output", tmp_path / "report")
    assert status == 1
    assert len(errors) == 1
    assert "mouse.mkv is 64×48, " in errors[0]
    assert "mouse.mkv is 128×96; " in errors[0]
    assert "--upscale_bicubic" in errors[0]
    assert here(*place, "--output", tmp_path / "report", "--upscale_bicubic") == (0, [])
    assert "bicubic from its own size (64×48)" in (tmp_path / "report" / "table.md").read_text()


def test_lossy_and_shifted_clips_are_said_in_table_and_log(sets, tmp_path, here, caplog):
    (tmp_path / "ours").mkdir()
    for name in ("mouse", "squirrel"):
        frames = read_video(sets / "GT" / f"{name}.mkv").frames
        write_video(tmp_path / "ours" / f"{name}.mp4", np.roll(frames, 1, axis=2))
    place = ("--restored", tmp_path / "ours", "--reference", sets / "GT")
    assert here(*place, "--output", tmp_path / "report", "--metrics", "psnr_rgb") == (0, [])
    table = (tmp_path / "report" / "table.md").read_text()
    assert "lossy input: H.264 yuv420p" in table
    assert "not aligned with the reference in 2 of 2 clips" in table
    assert "ours, mouse: lossy input (H.264 yuv420p)" in caplog.messages
    assert any("(whole: 1, 0)" in message for message in caplog.messages)


def test_bad_commands_are_one_line(sets, tmp_path, here):
    gt, ours = sets / "GT", sets / "bicubic"
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    out = ("--output", tmp_path / "report")
    for arguments, message in (
        ((), "give --restored DIR"),
        (("--restored", ours), "give --restored DIR"),
        (("--restored", ours, *out, "--metrics", "psnr"), "unknown metric 'psnr'; known: psnr_rgb"),
        (("--restored", ours, *out, "--flow", "raft"), "torchvision"),
        (("--restored", ours, "--restored", ours, *out), "two systems are called 'bicubic'"),
        (("--restored", f"={ours}", *out), "the system has no name"),
        (("--restored", ours, "--output", tmp_path / "file"), "is a file; name a folder"),
        (("--restored", ours, "--output", tmp_path / "mine"), "is not empty and has no report in"),
        (("--restored", ours, "--output", ours / "report"), "is inside"),
        (("--restored", ours, "--output", tmp_path / "a" / "b"), "does not exist; create it"),
        (("--restored", tmp_path / "empty", *out), "empty has no clips"),
        (("--restored", tmp_path / "none", *out), "none does not exist"),
        (("--restored", ours, "--reference", tmp_path / "empty", *out), "empty has no clips"),
        (("--restored", ours, "--reference", gt, *out, "--clips", "cat"), "has no clip 'cat'"),
        (("--restored", ours, *out, "--pyiqa", "/none", "--metrics", "musiq"), "cannot be run"),
        (("--restored", ours, *out, "--dover", "python"), "expected PYTHON:FOLDER"),
        (("--restored", ours, *out, "--window", 4, "--window_overlap", 4), "cannot overlap by 4"),
        (("--restored", ours, *out, "--row", 2), "a share of the height, 0 to 1, not 2.0"),
        (("--restored", ours, *out, "--layout", "imagenet"), "unknown layout"),
    ):
        status, errors = here(*arguments)
        assert status == 1, arguments
        assert len(errors) == 1, arguments
        assert message in errors[0], errors


def test_help_opens_with_a_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["evaluate", "--help"])
    assert run_flags(program.main, program.FLAGS) == 0
    assert "realisvsr_jax.evaluate --restored DIR --reference GT_DIR" in capsys.readouterr().out


def test_a_benchmark_goes_from_its_truth_to_the_table(tmp_path, here):
    """From a truth that the scale does not divide; by hand, --mod_crop does what --config does."""
    frames = read_video(FOOTAGE / "mouse.mp4", 0, 2).frames[:, :67]
    for folder, clip in (("GT", frames), ("grain", frames[:, :64] ^ 4)):
        (tmp_path / folder).mkdir()
        write_video(tmp_path / folder / "mouse.mkv", clip, lossless=True)
    names = ("--metrics=psnr_rgb", "--nopictures")
    options = (f"--config.truth={tmp_path / 'GT'}", "--config.ours=", *names)
    call = ("--config=configs/eval_set.py", *options, "--output", tmp_path / "out")
    assert here(*call, "--restored", tmp_path / "grain") == (0, [])
    data = json.loads((tmp_path / "out" / "report" / "scores.json").read_text())
    assert list(data["systems"]) == ["bicubic", "grain"]
    assert data["systems"]["bicubic"]["mean"]["psnr_rgb"] < 40
    expected = 20 * np.log10(255 / 4)
    assert data["systems"]["grain"]["mean"]["psnr_rgb"] == pytest.approx(expected, abs=0.01)
    assert (tmp_path / "out" / "low" / "manifest.json").is_file()
    table = (tmp_path / "out" / "report" / "table.md").read_text()
    assert "cropped to multiples of 4 pixels at the bottom and the right in 1 of 1 clips" in table

    place = ("--restored", tmp_path / "grain", "--reference", tmp_path / "GT", *names)
    status, errors = here(*place, "--output", tmp_path / "report")
    assert status == 1
    assert "mouse.mkv is 128×67; " in errors[0]
    assert "--mod_crop 4" in errors[0]
    # A clip that is as large as the truth was is cropped as the truth is.
    place += ("--restored", tmp_path / "GT")
    assert here(*place, "--output", tmp_path / "report", "--mod_crop=4") == (0, [])
    again = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert again["systems"]["GT"]["mean"]["psnr_rgb"] == "inf"
    assert again["systems"]["grain"]["mean"] == data["systems"]["grain"]["mean"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--restored=bicubic=GT", "bicubic is a system of --config; name it otherwise"),
        ("--reference=GT", "--config decides the reference; leave --reference out"),
        ("--layout=reds", "--config decides the layout; leave --layout out"),
        ("--config.sed=1", "sed"),
    ],
)
def test_what_a_benchmark_has_already(tmp_path, here, given, message):
    call = ("--config=configs/eval_heldout.py", "--output", tmp_path / "out", given)
    status, errors = here(*call)
    assert (status, len(errors)) == (1, 1)
    assert message in errors[0]
    assert not (tmp_path / "out").exists()
