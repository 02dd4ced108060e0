"""Errors and their exit codes."""

import re

import pytest

from tftpbench.model import errors
from tftpbench.model.keys import stable_key

ALL = [
    error
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, Exception) and not issubclass(error, Warning)
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_the_tree_in_the_docstring_is_the_tree(error: type[errors.TftpbenchError]) -> None:
    assert issubclass(error, errors.TftpbenchError)
    line = next(line for line in str(errors.__doc__).splitlines() if re.search(rf"\b{error.__name__}\b", line))
    code = re.search(rf"{error.__name__} +(\d)", line)
    if code is not None:
        assert error.exit_code == int(code[1])
    else:
        assert error.exit_code == error.__base__.exit_code  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("word", "near"),
    [("--rate", None), ("rum", "run"), ("cat", None), ("epol", "epoll"), ("smok", "smoke"), ("--wrte", "--write")],
)
def test_only_a_word_that_is_much_alike_is_suggested_and_then_no_list_of_all(word: str, near: str | None) -> None:
    known = ["--write", "run", "epoll", "smoke"]
    assert errors.suggest(word, known) == (f"; did you mean {near!r}?" if near else f"; allowed: {', '.join(known)}")
    assert errors.suggest(word, known, "!") == (f"; did you mean {near!r}?" if near else "!")


def test_a_key_does_not_depend_on_the_order_of_its_fields() -> None:
    assert stable_key({"a": 1, "b": [2, None]}) == stable_key({"b": [2, None], "a": 1}) == "cc243773f70c3dff"
    assert stable_key({"a": 1}) != stable_key({"a": 2})
