"""One line for the user: what is wrong, where, and what to do."""

import ast
import contextlib
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn


class InputError(ValueError):
    """Something the user gave cannot be used; the message is one clear line."""


class Stopped(Exception):
    """The user stopped the work; the message says what is kept and how to go on."""


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
    arguments = [_underscored(argument) for argument in sys.argv]
    if "config" in values and (path := _missing_config(arguments)):
        sys.stderr.write(f"error: --config {path}: no such file; name one, as configs/tiny.py\n")
        return 1
    try:
        rest = values(arguments)[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        sys.stderr.write(f"error: {_flag_message(error, arguments)}\n")
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


def _missing_config(arguments: Sequence[str]) -> str:
    """The file that --config names, if there is none."""
    path = _config(arguments)
    if path is None or Path(path).is_file():
        return ""
    return path or "''"


def _config(arguments: Sequence[str]) -> str | None:
    """The file that --config names, if it does, without what stands behind its colon."""
    for argument, following in zip(arguments, [*arguments[1:], ""]):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            return (value if equals else following).partition(":")[0]
    return None


def _flag_message(error: Exception, arguments: Sequence[str]) -> str:
    """One line for what absl or ml_collections says of a command line."""
    text = str(error)
    if text[:1] in ("'", '"'):  # a KeyError's text is the repr of its message
        with contextlib.suppress(ValueError, SyntaxError):
            text = str(ast.literal_eval(text))
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [repr(error)]
    if any(line.startswith("Traceback") for line in lines):  # of a configuration's own error
        return f"{lines[0].partition(': ')[0]}: {lines[-1].removeprefix('ValueError: ')}"
    unknown = lines[0].strip("'")
    names = [argument[9:].partition("=")[0].split(".") for argument in arguments]
    for argument, parts in zip(arguments, names):
        if argument.startswith("--config.") and unknown in parts:
            *above, _ = found = parts[: parts.index(unknown) + 1]
            path = ".".join(found)
            if near := re.search('Did you mean "(.+?)"', text):
                return f"unknown setting {path!r}; did you mean {'.'.join([*above, near[1]])!r}?"
            return f"unknown setting {path!r}; {_config(arguments)} has none of this name"
    return " ".join(lines)


def report(main: Callable[[], int | None]) -> int:
    """Runs `main`; `InputError` and `Stopped` become one line on stderr and status 1 or 130."""
    try:
        return main() or 0
    except Stopped as stopped:
        sys.stderr.write(f"{stopped}\n")
        return 130
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
