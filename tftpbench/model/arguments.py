"""What callers of the public API give: the right type, or an error of tftpbench's own in one line.

A notebook has no type checker, and a list where a path belongs should not end deep inside.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

SEED_MAX = 2**64 - 1  # the native core's word


def path_of(value: object, what: str, error: type[Exception]) -> Path:
    """The path; raises `error` for what is none, or can name no file. `what`: whose path is allowed."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise error(f"{_shown(value)} is no path; allowed: the path of {what}, as text or a Path")
    if "\0" in os.fspath(value):
        raise error(f"{_shown(value)} is no path: it holds a NUL; allowed: the path of {what}")
    return Path(value)


def texts_of(value: object, name: str, error: type[Exception]) -> list[str]:
    """The texts; one text alone is refused: its letters are never meant."""
    texts = list(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes)) else [None]
    if not all(isinstance(each, str) for each in texts):
        raise error(f"{name} is {_shown(value)}; allowed: a list of texts")
    return [str(each) for each in texts]


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
