"""The report's files, replaced when all of them are made, the page last."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from realisvsr_jax.data.set_folder import check_beside
from realisvsr_jax.errors import InputError
from realisvsr_jax.evals import tables
from realisvsr_jax.evals.comparison import LEDGER, Comparison
from realisvsr_jax.evals.media import remove_others
from realisvsr_jax.evals.page import page
from realisvsr_jax.files import replacing

FILES = {
    "scores.json": tables.as_json,
    "scores.csv": tables.by_clip,
    "table.md": tables.markdown,
    "table.tex": tables.latex,
}


def write(found: Comparison, output: Path) -> None:
    """scores.json, scores.csv, table.md, table.tex and index.html with its pictures."""
    texts = {name: make(found) for name, make in FILES.items()}
    texts["index.html"] = page(found, output)
    with contextlib.ExitStack() as stack:
        for name, text in reversed(texts.items()):  # what is entered first is renamed last
            stack.enter_context(replacing(output / name)).write_text(text, encoding="utf-8")
    media = [clip.media for clips in found.systems.values() for clip in clips.values()]
    shown = [m for m in (*media, *found.truth.values()) if m is not None]
    remove_others(output, {path for m in shown for path in (m.frame, m.profile)})


def check_output(output: Path, inputs: Sequence[Path]) -> None:
    """Raises InputError where a report cannot be written, or would lie among the clips."""
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file; name a folder")
    if not output.parent.is_dir():
        raise InputError(f"--output {output}: the folder {output.parent} does not exist; create it")
    if output.is_dir() and any(output.iterdir()) and not (output / LEDGER).is_file():
        raise InputError(
            f"--output {output} is not empty and has no report in it; name another folder"
        )
    if not os.access(output if output.exists() else output.parent, os.W_OK | os.X_OK):
        raise InputError(f"--output {output} may not be written; check its permissions")
    for folder in inputs:
        check_beside(output, folder, str(folder))
