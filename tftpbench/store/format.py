"""What writing and reading a run folder share: names of files, the schema number, JSON lines, error lines."""

import contextlib
import errno
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tftpbench.model.capacity import FoundCapacity
from tftpbench.model.errors import ResultsError
from tftpbench.model.escape import one_line
from tftpbench.model.latency import encoded_histograms
from tftpbench.model.metrics import COLUMNS
from tftpbench.model.regular_file import UnfitFile, read_regular

SCHEMA_FAMILY = "tftpbench.run"
SCHEMA_MAJOR = 1
SCHEMA = f"{SCHEMA_FAMILY}/{SCHEMA_MAJOR}"
PACKED_SCHEMA = f"{SCHEMA}+packed"  # an older reader refuses it, where it would find no trials.jsonl
MANIFEST = "manifest.json"
TRIALS = "trials.jsonl"
TRIAL_FILES = "trials"
TRANSFERS = "transfers.parquet"
BOOTS = "boots.parquet"  # of trials whose machines boot
INTERVALS = "intervals.parquet"
LATENCY = "latency.hlog"
SERVER_LOG = "server.log"
ANSWER = "answer.txt"
CAPACITY = "capacity.json"  # of runs that searched for capacities
# Of a packed run: its rows and histograms; its other files keep their names, with all trials in one.
PACKED_TRIALS = "trials.jsonl.xz"
PACKED_LATENCY = "latency.parquet"
MERGED_TRIALS = "merged_trials"  # in its manifest: trials that share a histogram
# In its manifest: its transfers lack INTENDED_START, for each is 0 or the end of the transfer that made room.
CLOSED_LOOP_STARTS = "closed_loop_starts"
INTENDED_START = "intended_start_ns"
# In its manifest: its transfers say actual start and end from the row before, and the first response from the start.
RELATIVE_TIMES = "relative_times"
# A run may be kept without them.
OPTIONAL = (TRANSFERS, BOOTS, INTERVALS, LATENCY)

# Bounds of what is read, so that no folder takes minutes or all memory (docs/results-format.md, "Bounds"). The largest
# recorded run has a manifest of 16 KB, 226 rows of 2 KB, and logs of 17 KB for windows of 2 s.
MANIFEST_MAX_BYTES = 16 << 20
TRIALS_MAX_BYTES = 128 << 20
ROW_MAX_BYTES = 1 << 20
ROWS_MAX = 50_000
# After so many lines that are none, the file is no trials.jsonl.
FAULTS_MAX = 100
LATENCY_MAX_BYTES = 64 << 20
ANSWER_MAX_BYTES = 1 << 20
CAPACITY_MAX_BYTES = 16 << 20
_FAULT_SHOWN_MAX = 200
_XZ_MEMORY_BYTES = 64 << 20  # xz -6, with which runs are packed, needs 9 MiB (man 1 xz)

# What makes a line of trials.jsonl a trial.
_NEEDED = ("trial", "server", "cell_key", "verdict")
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "text": (str,),
    "time": (str,),
    "list": (list,),
    "bool": (bool,),
}

# What readers take from each item of a list, beside its count.
_TEXTS_OF_ITEMS = {"server_findings": ("kind", "text"), "protocol_faults": ("kind", "example")}

_INT_MAX = 2**63 - 1  # of a data frame's integers

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
    with explained(folder, "read"):
        try:
            content = read_regular(path, MANIFEST_MAX_BYTES)
        except UnfitFile as error:
            raise ResultsError(f"{path}: can't be read: it {error.strerror}") from None
        except (FileNotFoundError, NotADirectoryError):
            why = f"it has no {MANIFEST}" if folder.exists() else "there is nothing of that name"
            raise ResultsError(f"{folder}: is no run folder: {why}") from None
    try:
        manifest = parse(content)
    except ValueError as error:
        raise ResultsError(f"{path}: is not JSON: {error}") from None
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema not in (SCHEMA, PACKED_SCHEMA):
        raise ResultsError(
            f"{path}: has the schema {schema!r}, which this tftpbench can't read; "
            f"allowed: {SCHEMA!r} and {PACKED_SCHEMA!r}"
        )
    fault = _part_fault(manifest)
    if fault is not None:
        raise ResultsError(f"{path}: {fault}")
    return dict(manifest)


def is_packed(manifest: Mapping[str, Any]) -> bool:
    """Whether the run's trials are packed into one file of each kind."""
    return bool(manifest["schema"] == PACKED_SCHEMA)


def refuse_packed(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Raises ResultsError for a packed run, which is whole and written once."""
    if is_packed(manifest):
        raise ResultsError(f"{folder}: is a packed run, which can't be resumed; start a new run")


@dataclass(frozen=True)
class Trials:
    """What trials.jsonl holds: whole rows, and lines that are none as (number, fault)."""

    rows: list[dict[str, Any]]
    faults: list[tuple[int, str]]
    length: int  # of the whole lines, in bytes
    torn: int | None  # number of the last line, where it has no end


def read_trials(folder: Path, *, packed: bool = False) -> Trials:
    """Everything in trials.jsonl that can be read, up to the bounds. Raises ResultsError where the file can't be."""
    path = folder / (PACKED_TRIALS if packed else TRIALS)
    content = _trials_content(path, packed=packed)
    length = content.rfind(b"\n") + 1
    count = content.count(b"\n")
    torn = count + 1 if content[length:] else None
    rows: dict[int, dict[str, Any]] = {}
    faults: list[tuple[int, str]] = []
    for number, line in enumerate(_lines(content), start=1):
        if len(faults) == FAULTS_MAX:
            faults.append((number, f"reading stopped: {FAULTS_MAX} lines before it are no trials, {count} there are"))
            torn = None
            break
        if len(rows) == ROWS_MAX:
            raise ResultsError(f"{path}: holds more than {ROWS_MAX} trials, {count} lines; no run has so many")
        try:
            row = _row(line)
            if row["trial"] in rows:
                raise ValueError(f"trial {row['trial']} is there twice")  # noqa: TRY301 # as any other fault of a line
        except ValueError as error:
            faults.append((number, one_line(error, _FAULT_SHOWN_MAX)))
        else:
            rows[row["trial"]] = row
    return Trials(list(rows.values()), faults, length, torn)


def _trials_content(path: Path, *, packed: bool) -> bytes:
    """What is in the file, unpacked; nothing where a run has just begun and has none."""
    with explained(path.parent, "read"):
        try:
            content = read_regular(path, TRIALS_MAX_BYTES)
        except UnfitFile as error:
            raise ResultsError(f"{path}: can't be read: it {error.strerror}") from None
        except FileNotFoundError:
            if packed:  # it was whole when it was packed
                raise ResultsError(f"{path}: is not there, so the packed run is not whole; copy it again") from None
            return b""
        return _unpacked(path, content) if packed else content


def _unpacked(path: Path, content: bytes) -> bytes:
    """What an xz file holds, never more than trials.jsonl may: its own word for its size is not believed."""
    import lzma

    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
    try:
        text = decoder.decompress(content, TRIALS_MAX_BYTES + 1)
    except lzma.LZMAError as error:
        raise ResultsError(f"{path}: can't be read: {one_line(error, _FAULT_SHOWN_MAX)}") from None
    if len(text) > TRIALS_MAX_BYTES:
        raise ResultsError(f"{path}: can't be read: it is larger than {TRIALS_MAX_BYTES >> 20} MiB unpacked")
    if not decoder.eof:
        raise ResultsError(f"{path}: can't be read: its end is missing")
    return text


def _lines(content: bytes) -> Iterator[bytes]:
    """Whole lines, one after the other: three million at once would be more than the file itself."""
    start = 0
    while (end := content.find(b"\n", start)) >= 0:
        yield content[start:end]
        start = end + 1


def read_histograms(path: Path, kind: str) -> list[str]:
    """Encoded histograms of one tag of an interval log: lines `Tag=<kind>,start,length,max,payload`.

    Raises FileNotFoundError where there is no log, ResultsError where it can't be read.
    """
    # Not hdrh's own log reader: it decodes every tag's histogram to choose one.
    try:
        text = read_regular(path, LATENCY_MAX_BYTES).decode("utf-8")
    except FileNotFoundError:
        raise
    except UnfitFile as error:
        raise ResultsError(f"can't be read: it {error.strerror}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ResultsError(f"can't be read: {reason}") from None
    return encoded_histograms(text, kind)


def read_answer(folder: Path) -> str | None:
    """The first line of what the run said in the end; None where it has not."""
    try:
        return next(iter(read_regular(folder / ANSWER, ANSWER_MAX_BYTES).decode("utf-8").splitlines()), None)
    except (OSError, ValueError):
        return None


def read_searches(folder: Path) -> tuple[FoundCapacity, ...]:
    """What searches for capacities found, from capacity.json; none where there is none. Raises ResultsError."""
    path = folder / CAPACITY
    with explained(folder, "read"):
        try:
            content = read_regular(path, CAPACITY_MAX_BYTES)
        except FileNotFoundError:
            return ()
        except UnfitFile as error:
            raise ResultsError(f"{path}: can't be read: it {error.strerror}") from None
    try:
        known = parse(content)
        searches = known.get("searches", [known]) if isinstance(known, dict) else known
        return tuple(map(FoundCapacity.model_validate, searches if isinstance(searches, list) else [None]))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"])) or "its document"
        raise ResultsError(f"{path}: is no result of a search: {where}: {error.errors()[0]['msg']}") from None
    except ValueError as error:
        raise ResultsError(f"{path}: is not JSON: {error}") from None


def has_file(row: Mapping[str, Any], name: str) -> bool:
    """Whether the trial's run writes this file of it: the rows of machines only where machines boot."""
    return name != BOOTS or row.get("boot") is not None or row.get("mix") is not None


def is_run(folder: Path) -> bool:
    """Whether there is a manifest. Raises ResultsError where that can't be seen."""
    with explained(folder, "read"):
        try:
            return stat.S_ISREG((folder / MANIFEST).stat().st_mode)
        except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
            return False


def parse(text: bytes) -> Any:
    """The JSON value; NaN and infinity are unknown: None. Raises ValueError."""
    try:
        return plain(json.loads(text))
    except RecursionError:
        raise ValueError("is nested too deep") from None


def _part_fault(manifest: Mapping[str, Any]) -> str | None:
    """What is wrong with the parts that readers go by; absent ones are allowed."""
    servers, placement, skipped = (
        manifest.get("servers", {}),
        manifest.get("placement", {}),
        manifest.get("skipped", []),
    )
    if not isinstance(servers, dict) or not all(isinstance(facts, dict) for facts in servers.values()):
        return "servers is not an object of objects"
    if not isinstance(placement, dict):
        return "placement is no object"
    if not isinstance(skipped, list) or not all(isinstance(skip, dict) for skip in skipped):
        return "skipped is no list of objects"
    for skip in skipped:
        for name, types in (("server", str), ("reason", str), ("cell_key", (str, type(None)))):
            if not isinstance(skip.get(name), types):
                return f"skipped: {name} is {skip.get(name)!r}"
    return _left_out_fault(manifest.get("left_out", [])) or _merged_fault(manifest.get(MERGED_TRIALS, []))


def _merged_fault(merged: object) -> str | None:
    """What is wrong with the list of trials that share a histogram: of lists of numbers, each number once."""
    if not isinstance(merged, list) or not all(isinstance(group, list) and group for group in merged):
        return f"{MERGED_TRIALS} is no list of lists"
    numbers = [number for group in merged for number in group]
    if any(type(number) is not int for number in numbers) or len({*numbers}) < len(numbers):
        return f"{MERGED_TRIALS} holds what is no number of a trial, or a trial twice"
    return None


def _left_out_fault(left_out: object) -> str | None:
    """What is wrong with the list of servers that did not start."""
    if not isinstance(left_out, list) or not all(isinstance(each, dict) for each in left_out):
        return "left_out is no list of objects"
    for each in left_out:
        known = isinstance(each.get("server"), str) and isinstance(each.get("reason"), str)
        failed, not_done = each.get("failed_trials"), each.get("not_done")
        if not known or type(not_done) is not int or not_done < 0:
            return f"left_out: names no server, reason and number of trials: {str(each)[:80]!r}"
        if not isinstance(failed, list) or any(type(number) is not int for number in failed):
            return "left_out: failed_trials is no list of numbers"
    return None


def _row(line: bytes) -> dict[str, Any]:
    """The row; ValueError says what is wrong with one that some hand, or a failing disk, has altered."""
    if len(line) > ROW_MAX_BYTES:
        raise ValueError(f"is longer than {ROW_MAX_BYTES >> 20} MiB")
    try:
        row = parse(line)
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError("is no object; allowed: one JSON object per line")
    if b"\\ud" in line or b"\\uD" in line:
        row = dict(encodable(row))
    for name in _NEEDED:
        if row.get(name) is None:
            raise ValueError(f"has no {name}")
    for name, column in COLUMNS.items():
        if row.get(name) is not None and not _fits(row[name], column.dtype):
            raise ValueError(f"{name} is {row[name]!r}")
    _check_items(row)
    return {name: row.get(name) for name in COLUMNS} | row  # older runs lack the newer columns


def _check_items(row: Mapping[str, Any]) -> None:
    for name, texts in _TEXTS_OF_ITEMS.items():
        for item in row.get(name) or ():
            if not _is_item(item, texts):
                raise ValueError(f"{name} holds {item!r}; allowed: objects with count, {' and '.join(texts)}")


def _is_item(item: object, texts: Sequence[str]) -> bool:
    """Whether it is an object with a count and these texts; what breaks no RFC has null for its section."""
    if not isinstance(item, dict) or not _fits(item.get("count"), "int"):
        return False
    return all(isinstance(item.get(name), str) for name in texts) and isinstance(
        item.get("rfc_section"), (str, type(None))
    )


def _fits(value: object, dtype: str) -> bool:
    """Figures count or measure, every one: none is ever below zero."""
    if isinstance(value, bool) != (dtype == "bool") or not isinstance(value, _TYPES[dtype]):
        return False
    if isinstance(value, (int, float)):
        return value >= 0 and (isinstance(value, float) or value <= _INT_MAX)
    if dtype == "time":
        try:
            datetime.fromisoformat(str(value))
        except ValueError:
            return False
    return True


def encodable(value: Any) -> Any:
    """Lone surrogates, which an escape of JSON can hold and no data frame, as text that shows them."""
    if isinstance(value, dict):
        return {encodable(key): encodable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [encodable(item) for item in value]
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value


def json_text(value: object, indent: int | None = None) -> str:
    """JSON of plain values and numpy scalars. NaN and infinity, which JSON lacks, are unknown: null."""
    text = json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False)
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
        mend = _MENDS.get(error.errno or 0, "") if doing == "written" else ""
        raise ResultsError(f"{folder}: can't be {doing}: {reason}{mend}") from error


def plain(value: Any) -> Any:
    """Plain JSON values of mappings, lists, paths and numpy scalars; NaN and infinity, which JSON lacks, are None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    scalar = value.item() if hasattr(value, "item") else value
    return None if isinstance(scalar, float) and not math.isfinite(scalar) else scalar
