"""Scores kept as soon as they are known: a long evaluation goes on where it was stopped."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class Ledger:
    """Scores by what they are of, in a file of one JSON object a line.

    A last line that was cut off is dropped.
    """

    def __init__(self, path: Path):
        self.path = path
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if len(whole) < len(text):
            os.truncate(path, len(whole.encode()))
        rows = [json.loads(line) for line in whole.splitlines()]
        self.rows = {tuple(row["of"]): row["scores"] for row in rows}

    def get(self, of: Sequence[str | int], make: Callable[[], Any]) -> Any:
        """The scores of `of`, made by `make` and kept where they are not there yet."""
        key = tuple(of)
        if key not in self.rows:
            self.rows[key] = make()
            with self.path.open("a") as file:
                file.write(json.dumps({"of": key, "scores": self.rows[key]}) + "\n")
        return self.rows[key]
