"""Tables of results in the project's pages, where the page has a place for them."""

import os
from pathlib import Path

from realisvsr_jax.errors import InputError


def replace_between(path: Path, name: str, text: str) -> None:
    """Puts `text` between `<!-- name -->` and `<!-- /name -->`; raises InputError without them."""
    first, last = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    page = path.read_text()
    if first not in page or last not in page:
        raise InputError(f"{path} has no place for the table: {first.strip()} … {last}")
    before, after = page.split(first)[0], page.split(last)[1]
    partial = path.with_suffix(".partial")
    partial.write_text(f"{before}{first}{text}{last}{after}")
    os.replace(partial, path)
