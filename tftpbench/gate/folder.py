"""The folder of a gate: every finished pair is on the disk before the next begins.

<out>/<UTC>-gate-<scenario>/
  pairs.jsonl      a line per finished pair
  gate.json        the whole, at the end; reports are written beside it
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from tftpbench.gate.result import Pair
from tftpbench.model.errors import ResultsError
from tftpbench.store.writer import first_free

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
