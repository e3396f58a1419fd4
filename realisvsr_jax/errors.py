"""One line for the user: what is wrong, where, and what to do."""

import ast
import contextlib
import logging
import sys
from collections.abc import Callable
from typing import Any, NoReturn


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one clear line."""


def program(main: Callable[[], int | None], values: Any) -> NoReturn:
    """A console script: `plain_messages`, then `run_flags`, then exit."""
    plain_messages()
    sys.exit(run_flags(main, values))


def plain_messages() -> None:
    """This project's messages go to stderr as they are; of what it is built on, errors alone."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    for noisy in ("absl", "orbax", "jax"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


def run_flags(main: Callable[[], int | None], values: Any) -> int:
    """Parses the command line with absl, then `report(main)`.

    A flag that is unknown, misspelt or of a wrong type is one line as well. `values` are the
    program's own FlagValues. `--help` lists them; `--a-b` is `--a_b`.
    """
    from absl import flags

    if "--help" in sys.argv[1:]:
        about = sys.modules[main.__module__].__doc__
        sys.stdout.write(f"{about}\n{values.get_help(include_special_flags=False)}\n")
        return 0
    if "" not in sys.path:
        sys.path.insert(0, "")  # as with `python -m`: a configuration may import its neighbours
    try:
        rest = values([_underscored(argument) for argument in sys.argv])[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        # ml_collections names the nearest key itself, on a line of its own.
        text = str(error)
        if text[:1] in ("'", '"'):  # a KeyError's text is the repr of its message
            with contextlib.suppress(ValueError, SyntaxError):
                text = str(ast.literal_eval(text))
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        sys.stderr.write(f"error: {' '.join(lines)}\n")
        return 1
    if rest:
        sys.stderr.write(f"error: {rest[0]!r} is not expected; every option is a --flag\n")
        return 1
    return report(main)


def _underscored(argument: str) -> str:
    """A flag's dashes, which other programs have, as absl's underscores; values stay."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def report(main: Callable[[], int | None]) -> int:
    """Runs `main`; an `InputError` becomes one line on stderr and exit status 1."""
    try:
        return main() or 0
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
