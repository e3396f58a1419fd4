"""Every comparison of the report is within its tolerance, and the report says where one is not."""

import math
import sys

import pytest

from tests.parity import report
from tests.parity.peers import Row


@pytest.mark.parametrize("measure", report.MEASURES, ids=lambda m: f"{m.__module__}.{m.__name__}")
def test_all_rows_are_within_their_tolerance(measure):
    rows = measure()
    assert any(row.tolerance is not None for row in rows)
    assert [row for row in rows if report.fails(row) or not math.isfinite(row.error)] == []


def rows(error: float) -> list[Row]:
    return [
        Row("block", "diffusers", "2×3", error, 1e-5),
        Row("its rounding", "diffusers", "2×3", 0.0123, None),
        Row("tokens", "transformers", "7 prompts", 0, 0),
    ]


TABLE = """\
| component | reference | shape | error | tolerance |
| --- | --- | --- | --- | --- |
| block | diffusers | 2×3 | 2.0e-06 | 1.0e-05 |
| its rounding | diffusers | 2×3 | 1.2e-02 | – |
| tokens | transformers | 7 prompts | 0 | 0 |
"""


@pytest.fixture
def page(monkeypatch, tmp_path):
    """A page with a place for the table, which `main` writes."""
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- parity -->\nold\n<!-- /parity -->\nafter\n")
    monkeypatch.setattr(report, "PAGE", path)
    monkeypatch.setattr(sys, "argv", ["report", "--write"])
    return path


def test_the_table_is_printed_and_written(page, monkeypatch, capsys):
    monkeypatch.setattr(report, "MEASURES", (lambda: rows(2e-6),))
    report.main()
    assert capsys.readouterr().out == TABLE
    assert page.read_text() == f"before\n<!-- parity -->\n{TABLE}<!-- /parity -->\nafter\n"


@pytest.mark.parametrize("error", [2e-5, math.nan])
def test_an_error_above_its_tolerance_stops_the_report(page, monkeypatch, error):
    monkeypatch.setattr(report, "MEASURES", (lambda: rows(error),))
    with pytest.raises(SystemExit, match=r"above their tolerance: block$"):
        report.main()
    assert "old" in page.read_text()
