"""Plain mappings to frozen dataclasses; an unknown key is an error that names the nearest."""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from realisvsr_jax.errors import InputError

T = TypeVar("T")


def from_mapping(cls: type[T], mapping: Mapping[str, Any], where: str = "") -> T:
    """Builds the dataclass `cls` from a (nested) mapping: parsed JSON, or a ConfigDict's dict.

    Lists become tuples where the field is a tuple. `where` is the dotted path of the
    mapping, for messages. Raises InputError for a key that `cls` does not have, a value of
    another kind (nested, list, length), and whatever `cls` itself refuses.
    """
    hints = typing.get_type_hints(cls)
    known = {field.name for field in dataclasses.fields(cls)}  # pyright: ignore
    values: dict[str, Any] = {}
    for key, value in mapping.items():
        path = f"{where}.{key}" if where else key
        if key not in known:
            raise InputError(f"unknown setting {path!r}{nearest(key, known)}")
        values[key] = _convert(hints[key], value, path)
    try:
        return cls(**values)
    except TypeError as error:
        raise InputError(f"incomplete settings {where or cls.__name__!r}: {error}") from error
    except ValueError as error:
        raise InputError(str(error)) from error


def from_config(cls: type[T], mapping: Mapping[str, Any], whose: str) -> T:
    """`from_mapping` of what a `--config` holds; `whose` settings `cls` has, as "training".

    A configuration of another program is named as one.
    """
    known = {field.name for field in dataclasses.fields(cls)}  # pyright: ignore
    strange = [key for key in mapping if key not in known]
    if 2 * len(strange) > len(mapping):
        raise InputError(
            f"--config is none of {whose}: it has {', '.join(map(repr, strange[:3]))}, which "
            f"{whose} does not know"
        )
    return from_mapping(cls, mapping)


def nearest(key: str, known: typing.Iterable[str]) -> str:
    """'; did you mean …?' for the known name closest to `key`, else the list of names."""
    known = sorted(known)
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def to_mapping(settings: Any) -> dict[str, Any]:
    """The JSON-ready inverse of `from_mapping`."""
    return dataclasses.asdict(settings)


def flatten(mapping: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Nested settings as one level, whose names are those of the levels, joined."""
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, dict):
            inner = flatten(value, separator)
            flat |= {f"{key}{separator}{name}": below for name, below in inner.items()}
        else:
            flat[key] = value
    return flat


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """'NAME was …, now it is …' of the first setting in which two nested mappings differ, or ''.

    Both as JSON has them: a list is equal to a tuple.
    """
    flat_old, flat_new = (flatten(json.loads(json.dumps(values)), " ") for values in (old, new))
    for name in [*flat_new, *(name for name in flat_old if name not in flat_new)]:
        before, now = flat_old.get(name), flat_new.get(name)
        if before != now:
            return f"{name} was {_short(before)}, now it is {_short(now)}"
    return ""


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def _convert(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(value):
        return value
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise InputError(f"{path!r} takes a group of settings, not {value!r}")
        return from_mapping(hint, value, path)  # pyright: ignore
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = [h for h in typing.get_args(hint) if h is not type(None)]
        return None if value is None else _convert(options[0], value, path)
    if origin is tuple:
        args = typing.get_args(hint)
        if not isinstance(value, list | tuple):
            raise InputError(f"{path!r} takes a list of values, not {value!r}")
        if args[-1] is Ellipsis:
            args = (args[0],) * len(value)
        if len(args) != len(value):
            raise InputError(f"{path!r} takes {len(args)} values, {len(value)} are given: {value}")
        return tuple(_convert(h, item, path) for h, item in zip(args, value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
