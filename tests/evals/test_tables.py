"""Tables mark best and second, and give a reason for each score that is absent."""

import csv
import io
import json
from pathlib import Path

import pytest

from realisvsr_jax.errors import InputError
from realisvsr_jax.evals import columns, tables
from realisvsr_jax.evals.alignment import Shift
from realisvsr_jax.evals.comparison import ClipScores, Comparison, Settings
from realisvsr_jax.evals.footage import Footage, Pair
from realisvsr_jax.evals.page import page

METRICS = ("psnr_rgb", "lpips_alex", "dover", "flicker")


def scores(psnr, lpips, small=False, lossy="", shift=(0.0, 0.0), absent=None):
    truth = Footage(Path("gt"), 4, 64, 96, False, "", "v")
    height, width = (32, 48) if small else (64, 96)
    footage = Pair(Footage(Path("a"), 4, height, width, False, lossy, "w"), truth)
    found = {"psnr_rgb": psnr, "lpips_alex": lpips, "flicker": 1.25}
    reasons = {"dover": "not asked for"} | (absent or {})
    for name in absent or {}:
        del found[name]
    return ClipScores(found, reasons, Shift((round(shift[0]), 0), shift, 3.0), footage)


@pytest.fixture
def found():
    return Comparison(
        "A_set",
        Settings(metrics=METRICS, pictures=False),
        {
            "ours": {"a": scores(30.0, 0.2), "b": scores(20.0, 0.4)},
            "b&c": {"a": scores(26.0, 0.1, lossy="H.264 yuv420p"), "b": scores(22.0, 0.1, True)},
            "third": {
                "a": scores(float("inf"), 0.3, shift=(1.2, 0.0)),
                "b": scores(21.0, 0.3, absent={"flicker": "no border"}),
            },
        },
    )


def test_markdown_has_the_papers_rows(found):
    lines = tables.markdown(found).splitlines()
    assert lines[0] == "| A\\_set | ours | b&c <sup>a,b</sup> | third <sup>c</sup> |"
    assert lines[2] == "| PSNR (RGB, dB) ↑ | <u>25.00</u> | 24.00 | **∞** |"
    assert lines[3] == "| LPIPS (AlexNet) ↓ | <u>0.3000</u> | **0.1000** | <u>0.3000</u> |"
    assert lines[4].count("– <sup>d</sup>") == 3
    assert lines[5] == "| Flicker (borders : elsewhere) | 1.250 | 1.250 | – <sup>e</sup> |"
    notes = [line for line in lines if line.startswith("<sup>")]
    assert notes == [
        "<sup>a</sup> bicubic from its own size (48×32) to the reference's",
        "<sup>b</sup> lossy input: H.264 yuv420p; scores include what the codec lost",
        "<sup>c</sup> not aligned with the reference in 1 of 2 clips: a lies 1.20 pixels to the "
        "right and 0.00 down of it",
        "<sup>d</sup> not asked for",
        "<sup>e</sup> no border (1 of 2 clips)",
    ]


def test_a_clip_that_nobody_has_a_score_of_is_left_out_of_the_mean(found):
    small = {"flicker": "no border"}
    for system, psnr in zip(found.systems, (30.0, 26.0, 24.0)):
        found.systems[system]["b"] = scores(psnr, 0.2, absent=small)
    lines = tables.markdown(found).splitlines()
    assert lines[5] == "| Flicker (borders : elsewhere) | 1.250 | 1.250 | 1.250 |"
    assert "Flicker (borders : elsewhere): over 1 of 2 clips; b no border." in lines


def test_latex_is_escaped_and_marked(found):
    text = tables.latex(found)
    assert "A\\_set & ours & b\\&c$^{a,b}$ & third$^{c}$ \\\\" in text
    assert (
        "PSNR (RGB, dB) $\\uparrow$ & \\underline{25.00} & 24.00 & \\textbf{$\\infty$} \\\\" in text
    )
    assert "DOVER (overall, $\\times$100)" in text
    assert text.count("{") == text.count("}")


def test_csv_has_a_line_a_clip(found):
    rows = list(csv.DictReader(io.StringIO(tables.by_clip(found))))
    assert [(row["system"], row["clip"]) for row in rows[:3]] == [
        *(("ours", "a"), ("ours", "b"), ("b&c", "a"))
    ]
    assert (rows[2]["psnr_rgb"], rows[2]["dover"], rows[2]["lossy"]) == ("26", "", "H.264 yuv420p")
    assert (rows[3]["bicubic_from"], rows[3]["width"]) == ("48x32", "96")
    assert (rows[4]["psnr_rgb"], rows[4]["shift_right"]) == ("inf", "1.200")


def test_json_is_json_and_has_reasons(found):
    data = json.loads(tables.as_json(found), parse_constant=pytest.fail)
    assert data["systems"]["ours"]["mean"] == {
        "psnr_rgb": 25.0,
        "lpips_alex": pytest.approx(0.3),
        "dover": None,
        "flicker": 1.25,
    }
    third = data["systems"]["third"]
    assert third["mean"]["psnr_rgb"] == "inf"
    assert third["absent"] == {"dover": "not asked for", "flicker": "no border (1 of 2 clips)"}
    assert third["clips"]["a"]["shift"]["fine"] == [1.2, 0.0]


def test_the_page_cannot_be_broken_by_a_name(found, tmp_path):
    system = "</script><b>x"
    evil = Comparison("t", found.settings, {system: found.systems["ours"]})
    text = page(evil, tmp_path)
    assert text.count("</script>") == 2
    data = text.split('id="data">')[1].split("</script>")[0]
    parsed = json.loads(data)
    assert parsed["systems"][0]["name"] == system
    assert parsed["clips"][1]["systems"][0]["scores"]["psnr_rgb"] == 20.0
    assert "http" not in text.replace(data, "")


def test_ranks_are_of_what_is_printed():
    assert columns.ranks("psnr_rgb", [20.001, 20.004, 19.0, None]) == [1, 1, 2, 0]
    assert columns.ranks("lpips_alex", [0.2, 0.1, 0.3]) == [2, 1, 0]
    assert columns.ranks("psnr_rgb", [20.0, None]) == [0, 0]
    assert columns.ranks("flicker", [1.0, 2.0]) == [0, 0]


def test_metrics_are_chosen_by_name_and_group():
    assert columns.chosen(["ssim_y", "fast", "ssim_y"])[:2] == ("ssim_y", "psnr_rgb")
    assert set(columns.chosen(["all"])) == set(columns.METRICS)
    for wrong in (["psnr"], []):
        with pytest.raises(InputError, match="psnr_rgb, psnr_y"):
            columns.chosen(wrong)
    assert columns.too_small("niqe", 100, 191) == (
        "needs frames of 192×96 or more: two blocks of 96×96"
    )
    assert columns.too_small("niqe", 96, 192) == columns.too_small("psnr_rgb", 1, 1) == ""
    assert columns.too_small("lpips_alex", 30, 99) == "needs frames of 31×31 or more"
