"""One line for the user: what is wrong, where, and what to do."""

import sys
from collections.abc import Callable


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one clear line."""


def report(main: Callable[[], int | None]) -> int:
    """Runs `main`; an `InputError` becomes one line on stderr and exit status 1."""
    try:
        return main() or 0
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
