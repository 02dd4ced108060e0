"""The folder of a gate: every finished pair is on the disk before the next begins.

<out>/<UTC>-gate-<scenario>/
  pairs.jsonl      a line per finished pair
  gate.json        the whole, at the end; reports are written beside it
"""

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from tftpbench.gate.result import Pair
from tftpbench.model.errors import ResultsError

PAIRS = "pairs.jsonl"
# More gates of one scenario than this never start within one second.
SAME_SECOND_MAX = 1000


class GateFolder:
    """One gate's folder; there is none before `make`, and never one where `out` is None."""

    def __init__(self, out: Path | None, scenario: str) -> None:
        self.path: Path | None = None
        self._out = out
        self._scenario = scenario

    def make(self) -> None:
        """Make a folder of its own in `out`. Raises ResultsError where that can't be done."""
        if self._out is not None:
            self.path = _made(self._out, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-gate-{self._scenario}")

    def append(self, pair: Pair) -> None:
        """On the disk when this returns. Raises ResultsError."""
        if self.path is None:
            return
        try:
            with (self.path / PAIRS).open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(pair), allow_nan=False) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise ResultsError(
                f"{self.path}: can't be written: {error.strerror}; choose another place with -o"
            ) from None


def _made(out: Path, name: str) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for number in range(1, SAME_SECOND_MAX + 1):
            path = out / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return path
    except OSError as error:
        raise _unwritten(out, error) from None
    raise ResultsError(f"{out / name}: and {SAME_SECOND_MAX} names like it are taken; choose another place with -o")


def _unwritten(path: Path, error: OSError) -> ResultsError:
    return ResultsError(f"{path}: can't be written: {error.strerror}; choose another place with -o")
