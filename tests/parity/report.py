"""Every comparison with PyTorch as one table: python -m tests.parity.report [--write]

Stops with status 1, and writes nothing, where an error is above its tolerance. `--write` puts the
table into docs/checkpoints.md.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import jax

from realisvsr_jax.evals import pages
from tests.parity import dit, samplers, tokens, umt5, vae
from tests.parity.peers import Row

MEASURES = (
    *(dit.blocks, dit.whole, dit.bfloat16),
    *(vae.encode, vae.decode),
    *(umt5.blocks, umt5.whole, umt5.bfloat16, tokens.tokens),
    *(samplers.steps, samplers.entries),
)
PAGE = Path("docs/checkpoints.md")


def fails(row: Row) -> bool:
    """Also where the error is NaN."""
    return row.tolerance is not None and not row.error <= row.tolerance


def markdown(rows: Iterable[Row]) -> str:
    """The table; a row without a tolerance is there to compare others with."""
    heads = ("component", "reference", "shape", "error", "tolerance")
    return pages.table(heads, ((*row[:3], *map(_number, row[3:])) for row in rows))


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1e}" if isinstance(value, float) else str(value)


def main() -> None:
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"the table of {PAGE}")
    flags = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    rows = [row for measure in MEASURES for row in measure()]
    text = markdown(rows)
    sys.stdout.write(text)
    if wrong := [row.component for row in rows if fails(row)]:
        sys.exit(f"above their tolerance: {'; '.join(wrong)}")
    if flags.write:
        pages.replace_between(PAGE, "parity", text)


if __name__ == "__main__":
    main()
