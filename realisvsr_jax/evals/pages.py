"""Tables of results in the project's pages, where the page has a place for them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from realisvsr_jax.errors import InputError
from realisvsr_jax.files import replacing


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def replace_between(path: Path, name: str, text: str) -> None:
    """Puts `text` between `<!-- name -->` and `<!-- /name -->`; raises InputError without them."""
    first, last = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    page = path.read_text()
    if first not in page or last not in page:
        raise InputError(f"{path} has no place for the table: {first.strip()} … {last}")
    before, after = page.split(first)[0], page.split(last)[1]
    with replacing(path) as partial:
        partial.write_text(f"{before}{first}{text}{last}{after}")
