"""What callers of the public API give: the right type, or an error of tftpbench's own in one line.

A notebook has no type checker, and a list where a path belongs should not end deep inside.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tftpbench.model.escape import one_line

SEED_MAX = 2**64 - 1  # the native core's word
PORT = 69  # RFC 1350 section 4: of an address that names none


def path_of(value: object, what: str, error: type[Exception]) -> Path:
    """The path; raises `error` for what is none, or can name no file. `what`: whose path is allowed."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise error(f"{_shown(value)} is no path; allowed: the path of {what}, as text or a Path")
    if "\0" in os.fspath(value):
        raise error(f"{_shown(value)} is no path: it holds a NUL; allowed: the path of {what}")
    return Path(value)


def texts_of(value: object, name: str, error: type[Exception], allowed: str = "a list of texts") -> list[str]:
    """The texts; one text alone is refused: its letters are never meant."""
    texts = list(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else [None]
    if not all(isinstance(each, str) for each in texts):
        raise error(f"{name} is {_shown(value)}; allowed: {allowed}")
    return [str(each) for each in texts]


def assignments_of(value: object, name: str, error: type[Exception]) -> list[str]:
    """KEY=VALUE as --set takes it: of such texts, or of a mapping from keys to plain values."""
    if not isinstance(value, Mapping):
        return texts_of(value, name, error, "a list of texts as KEY=VALUE, or a mapping from keys to values")
    return [_assignment(key, given, name, error) for key, given in value.items()]


def _assignment(key: object, value: object, name: str, error: type[Exception]) -> str:
    if not isinstance(key, str) or "=" in key:
        raise error(f"{name}: the key is {_shown(key)}; allowed: keys with dots between, as in matrix.concurrency")
    try:  # JSON is YAML, which is what follows the = of --set
        return f"{key}={json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False)}"
    except (TypeError, ValueError, RecursionError):
        raise error(
            f"{name}: {one_line(key, 40)} is {_shown(value)}; allowed: text, finite numbers, True, False, None, and "
            "lists and mappings of these"
        ) from None


def _plain(value: object) -> object:
    """A path as its text, a numpy scalar or array as Python's own numbers."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError


def whole_of(value: object, name: str, least: int, most: int, error: type[Exception]) -> int:
    """The whole number from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise error(f"{name} is {_shown(value)}; allowed: a whole number from {least} to {most}")
    return value


def wholes_of(value: object, name: str, least: int, most: int, error: type[Exception]) -> list[int]:
    """The whole numbers from `least` to `most`."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise error(f"{name} is {_shown(value)}; allowed: a list of whole numbers from {least} to {most}")
    return [whole_of(each, name, least, most, error) for each in value]


def one_of(value: object, name: str, allowed: Sequence[str], error: type[Exception]) -> str:
    """The word of those that are allowed."""
    if not isinstance(value, str) or value not in allowed:
        raise error(f"{name}: {_shown(value)} is not one of {', '.join(allowed)}")
    return value


def _shown(value: object) -> str:
    try:
        return repr(value)[:40] if isinstance(value, (str, bytes, int, float, type(None))) else _type(value)
    except ValueError:  # an integer of more digits than Python writes
        return _type(value)


def _type(value: object) -> str:
    return f"of type {type(value).__name__}"
