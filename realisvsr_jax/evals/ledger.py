"""Scores kept as soon as they are known: a long evaluation goes on where it was stopped."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from realisvsr_jax.files import append_lines


class Ledger:
    """Scores by what they are of, in a file of one JSON object a line.

    A last line that was cut off is dropped.
    """

    def __init__(self, path: Path):
        self.path = path
        append_lines(path).close()
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        self.rows = {tuple(row["of"]): row["scores"] for row in rows}

    def get(self, of: Sequence[str | int], make: Callable[[], Any]) -> Any:
        """The scores of `of`, made by `make` and kept where they are not there yet."""
        key = tuple(of)
        if key not in self.rows:
            self.put(key, make())
        return self.rows[key]

    def put(self, of: Sequence[str | int], scores: Any) -> None:
        """Keeps the scores of `of`."""
        key = tuple(of)
        self.rows[key] = scores
        with append_lines(self.path) as file:
            file.write(json.dumps({"of": key, "scores": scores}) + "\n")
