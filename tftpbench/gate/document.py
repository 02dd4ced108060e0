"""A GateResult for programs: gate.json, written and read back as the same result, and the folder that it is kept in.

It must never decide or draw. What is read is hostile: it may have been altered, and whatever is wrong with it is one
line.

<out>/<UTC>-gate-<scenario>/
  pairs.jsonl      a line per finished pair, on the disk before the next pair begins
  gate.json        the whole, at the end; reports are written beside it
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from tftpbench.gate.result import GateResult, Pair
from tftpbench.model.arguments import path_of
from tftpbench.model.errors import ResultsError
from tftpbench.model.escape import visible_line
from tftpbench.model.regular_file import UnfitFile, read_regular
from tftpbench.model.strict import dotted
from tftpbench.store.format import encodable, plain
from tftpbench.store.writer import first_free

SCHEMA = "tftpbench.gate/2"
SCHEMA_1 = "tftpbench.gate/1"
# What schema 1 calls otherwise: of the whole, and of each judgement.
_WHOLE_1, _JUDGEMENT_1 = {"word": "verdict", "blocks": "pairs"}, {"word": "verdict"}
FILE = "gate.json"
# A thousand pairs in twenty cells; the default gate has 200 KiB.
SIZE_MAX_BYTES = 64 * 1024 * 1024


def document(result: GateResult) -> dict[str, Any]:
    """Plain JSON values: `schema`, then the fields of GateResult as they are called. What is no number is null."""
    return {"schema": SCHEMA, **encodable(plain(asdict(result)))}


def text(result: GateResult) -> str:
    """The document as it is stored and printed."""
    return json.dumps(document(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def load(path: Path | str) -> GateResult:
    """The gate in a folder, or in its gate.json, of this schema or the one before. Newer keys are passed over.

    Raises ResultsError, one line, for a file that is absent or too large, is not this document, or was altered.
    """
    found, content = _content(path_of(path, "a gate's folder or gate.json", ResultsError))
    try:
        known = json.loads(content.decode("utf-8"), parse_constant=_no_number, parse_float=_finite, parse_int=_whole)
        schema = known.get("schema") if isinstance(known, dict) else None
        content = _from_schema_1(known) if schema == SCHEMA_1 else content
    except RecursionError:
        raise ResultsError(f"{found}: is not JSON: is nested too deep") from None
    except ValueError as error:
        raise ResultsError(f"{found}: is not JSON: {error}") from None
    if schema not in (SCHEMA, SCHEMA_1):
        shown = repr(schema)[:60]
        allowed = f"{SCHEMA!r} and {SCHEMA_1!r}"
        raise ResultsError(f"{found}: has the schema {shown}, which this tftpbench can't read; allowed: {allowed}")
    try:
        return _adapter().validate_json(content, strict=True)
    except ValidationError as error:
        raise ResultsError(f"{found}: {_first_mistake(error, schema)}") from None


@cache
def _adapter() -> TypeAdapter[GateResult]:
    return TypeAdapter(GateResult)


def _content(path: Path) -> tuple[Path, bytes]:
    """The file that is meant, and what is in it."""
    found = path / FILE if os.path.isdir(path) else path
    try:
        return found, read_regular(found, SIZE_MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise ResultsError(
            f"{path}: is no gate, there is no {found.name}; allowed: the folder of a gate, or {FILE}"
        ) from None
    except UnfitFile as error:
        raise ResultsError(f"{found}: {error.strerror}; allowed: the folder of a gate, or its {FILE}") from None
    except OSError as error:
        raise ResultsError(f"{path}: can't be read: {error.strerror}") from None


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:20]} is too large for a number")
    return value


def _whole(digits: str) -> int:
    """Only what fits a float: a figure that is whole may be written as either."""
    _finite(digits)
    return int(digits)


def _from_schema_1(known: Mapping[str, Any]) -> bytes:
    """The same document with the names of schema 2."""
    renamed, judgements = _renamed(known, _WHOLE_1), known.get("judgements")
    if isinstance(judgements, list):
        renamed["judgements"] = [
            _renamed(each, _JUDGEMENT_1) if isinstance(each, dict) else each for each in judgements
        ]
    return json.dumps(renamed).encode()


def _renamed(part: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A key that already had the new name meant nothing."""
    return {names.get(key, key): value for key, value in part.items() if key not in names.values()}


def _first_mistake(error: ValidationError, schema: str) -> str:
    """The first mistake: where, and what is allowed."""
    fault = error.errors(include_url=False, include_input=False)[0]
    loc = fault["loc"]
    if schema == SCHEMA_1 and loc:  # by the names that stand in the file
        names = {new: old for old, new in _WHOLE_1.items()}
        loc = (names.get(str(loc[0]), loc[0]), *("word" if part == "verdict" else part for part in loc[1:]))
    where = dotted(loc)
    return visible_line(f"{where}: {fault['msg']}" if where else fault["msg"])


PAIRS = "pairs.jsonl"


class GateFolder:
    """One gate's folder; there is none before `make`, and never one where `out` is None."""

    def __init__(self, out: Path | None, scenario: str) -> None:
        self.path: Path | None = None
        self._out = out
        self._scenario = scenario

    def make(self) -> None:
        """Make a folder of its own in `out`. Raises ResultsError where that can't be done."""
        if self._out is not None:
            with _explained(self._out):
                self._out.mkdir(parents=True, exist_ok=True)
                name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-gate-{self._scenario}"
                self.path = first_free(self._out / name, Path.mkdir)

    def append(self, pair: Pair) -> None:
        """On the disk when this returns. Raises ResultsError."""
        if self.path is None:
            return
        with _explained(self.path), (self.path / PAIRS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(pair), allow_nan=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResultsError(f"{folder}: can't be written: {error.strerror}; choose another place with -o") from None
