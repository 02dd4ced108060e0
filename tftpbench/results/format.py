"""What writing and reading a run folder share: names of files, the schema number, JSON lines, error lines.

Only `tftpbench.results` may ask for this.
"""

import contextlib
import errno
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tftpbench.columns import COLUMNS
from tftpbench.errors import ResultsError

SCHEMA_FAMILY = "tftpbench.run"
SCHEMA_MAJOR = 1
SCHEMA = f"{SCHEMA_FAMILY}/{SCHEMA_MAJOR}"
MANIFEST = "manifest.json"
TRIALS = "trials.jsonl"
TRIAL_FILES = "trials"
TRANSFERS = "transfers.parquet"
INTERVALS = "intervals.parquet"
LATENCY = "latency.hlog"
SERVER_LOG = "server.log"

# What makes a line of trials.jsonl a trial.
_NEEDED = ("trial", "server", "cell_key", "verdict")
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "text": (str,),
    "time": (str,),
    "list": (list,),
}

# What to do about it, by errno; other reasons speak for themselves.
_MENDS = {
    errno.ENOSPC: "; free some space, then --resume it, or choose another place with --out",
    errno.EDQUOT: "; free some of your quota, then --resume it, or choose another place with --out",
    errno.EACCES: "; choose another place with --out",
    errno.EROFS: "; choose another place with --out",
    errno.ENOTDIR: "; choose another place with --out",
    errno.EEXIST: "; choose another place with --out",
}


def read_manifest(folder: Path) -> dict[str, Any]:
    """manifest.json of a run folder; refuses what is no run, and runs of an unknown major schema number."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ResultsError(f"{folder}: is no run folder, it has no {MANIFEST}")
    with explained(folder, "read"):
        content = path.read_bytes()
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise ResultsError(f"{path}: is not JSON: {error}") from None
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise ResultsError(f"{path}: has the schema {schema!r}, which this tftpbench can't read; allowed: {SCHEMA!r}")
    return dict(manifest)


def read_trials(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """The finished trials, and the length in bytes of the lines that hold them: a torn last line is left out."""
    path = folder / TRIALS
    with explained(folder, "read"):
        content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    rows: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ResultsError(f"{path}:{number}: is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ResultsError(f"{path}:{number}: is no object; allowed: one JSON object per line")
        if fault := _row_fault(row) or (f"trial {row['trial']} is there twice" if row["trial"] in rows else None):
            raise ResultsError(f"{path}:{number}: {fault}; remove the line, and --resume does the trial again")
        rows[row["trial"]] = row
    return list(rows.values()), len(whole)


def _row_fault(row: dict[str, Any]) -> str | None:
    """What is wrong with a row that some hand has altered."""
    for name in _NEEDED:
        if row.get(name) is None:
            return f"has no {name}"
    for name, column in COLUMNS.items():
        value = row.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, _TYPES[column.dtype])):
            return f"{name} is {value!r}"
    return None


def json_text(value: object, indent: int | None = None) -> str:
    """JSON of plain values and numpy scalars. NaN and infinity, which JSON lacks, are unknown: null."""
    text = json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)
    # A file name need not be UTF-8: its odd bytes are lone surrogates, which only an escape can hold (RFC 8259 8.2).
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@contextlib.contextmanager
def explained(folder: Path, doing: str) -> Iterator[None]:
    """Turn an operating system's refusal into one line that names the folder and the mend."""
    try:
        yield
    except OSError as error:
        # By number: pyarrow puts a text of its own in the place of the system's.
        reason = os.strerror(error.errno) if error.errno else (str(error).splitlines() or ["input/output error"])[0]
        mend = _MENDS.get(error.errno or 0, "")
        raise ResultsError(f"{folder}: can't be {doing}: {reason}{mend}") from error


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    scalar = value.item() if hasattr(value, "item") else value
    return None if isinstance(scalar, float) and not math.isfinite(scalar) else scalar
