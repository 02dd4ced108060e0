"""The calls between the coordinator and the agents, as data: their names, their documents, their bounds.

A document is one line of JSON and, behind its line end, bytes: files, a chunk of a result. What comes from another
host is held to its model and to bounds before anything works on it; `BadDocument` says in one line what does not fit.
Nothing is pickled. It must never open a file or a socket.
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from tftpbench.host.generator import Column, Fault, LoadConfig, LoadResult, PeerError, Progress
from tftpbench.model.errors import LoadError
from tftpbench.model.escape import one_line
from tftpbench.model.metrics import (
    ACROSS_HOSTS,
    BOOT_COLUMNS,
    BOOT_OUTCOMES,
    BOOT_REASONS,
    INTERVAL_COLUMNS,
    OUTCOMES,
    TRANSFER_COLUMNS,
)
from tftpbench.model.strict import Strict

PROTOCOL = 2
"""Raised with every change of what follows; hosts of another one are refused."""
Call = Literal["hello", "clock", "file", "prepare", "go", "poll", "stop", "collect", "end",
               # To a server's host, after `open`; server_agent.py has their documents.
               "open", "look", "room", "root", "clear", "start", "usage", "answers", "alive", "sample", "sampled",
               "window", "close", "compare", "counts", "calibrate", "log"]  # fmt: skip
# An agent that hears nothing for so long sends nothing more, and ends.
POLL_LOST_S = 10.0
# Of a file, or of a result, in one document: what a control path of 100 Mbit/s carries in some seconds.
CHUNK_MAX_BYTES = 4 << 20  # the slowest path has 10 s for one, after which an agent ends
# Beside a chunk: the JSON of a mix of large boot profiles has some megabytes.
HEAD_MAX_BYTES = 32 << 20
FRAME_MAX_BYTES = CHUNK_MAX_BYTES + HEAD_MAX_BYTES
FILES_MAX_BYTES = 256 << 20
# Rows of 5 million transfers, and of as many machines, have 1 GiB.
RESULT_MAX_BYTES = 1 << 30
# Threads of one agent.
WORKERS_MAX = 256
# Of all hosts together, without a common factor.
WEIGHTS_MAX = 10_000
LONGEST_POLL_MS = 5_000
WORD_MAX, LINE_MAX = 200, 500
# Kinds of protocol faults there are some 30; of ERRORs each worker keeps 16 codes.
FAULTS_MAX, ERRORS_MAX = 200, 16 * WORKERS_MAX
MISSES_MAX = 100_000
LOG_MAX_BYTES = 64 << 20
INT_MAX = 2**63 - 1
# As crates/tftpbench-load has them (INTERVAL_NS), in runs of up to many years.
INTERVALS_NS = frozenset(100_000_000 << power for power in range(32))

_LENGTHS = struct.Struct(">II")
"""What goes before a frame on a pipe: the bytes of its body, and the number of the question that it is or answers."""


class BadDocument(ValueError):
    """What came is no document of ours; the message says in one line what of it is not."""


class Refused(Exception):
    """The other side says no: `kind` is one of REFUSALS, `why` one line."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind, self.why = kind, why


Refusal = Literal["load", "used", "busy", "gone", "bad", "internal", "root", "not_ready", "died", "port_taken"]
"""load: the generator can't run so (a LoadError). used: this id had its load. busy: another load is still there.
gone: the agent has ended, or never was. bad: no document of ours. internal: a fault of ours. root: the folder to serve
can't be made. The others are of a server: ServerNotReady, ServerDied, PortTaken."""
FAULTS: frozenset[Refusal] = frozenset({"used", "gone", "bad", "internal"})
"""Those after which a host is of no use."""


class Problem(Strict):
    """In the place of any answer."""

    error: Refusal
    why: Annotated[str, Field(max_length=LINE_MAX)]


Word = Annotated[str, Field(max_length=WORD_MAX)]
Line = Annotated[str, Field(max_length=LINE_MAX)]
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Facts = Annotated[
    dict[Word, Word | bool | Integer | Annotated[float, Field(allow_inf_nan=False)] | None], Field(max_length=100)
]
Ns = Annotated[int, Field(ge=0, le=INT_MAX)]
Count = Annotated[int, Field(ge=0, le=INT_MAX)]


class Hello(Strict):
    """Which tftpbench is there, and on what machine.

    `code`: equal for equal Python sources. `facts`: see `machine.facts`. `boot_id`,
    `network`: together they name one network namespace of one machine, as long as it runs.
    """

    protocol: int
    version: Word
    core: Word
    build_profile: Word
    code: Word
    python: Word
    facts: Facts
    boot_id: Word
    network: Word


class Clock(Strict):
    """CLOCK_MONOTONIC there, as the question was read."""

    monotonic_ns: Ns


class FileChunk(Strict):
    """Part of a file that what is read is compared with: the bytes behind the document, from `offset` on."""

    file: Annotated[int, Field(ge=0, le=100_000)]
    offset: Annotated[int, Field(ge=0, le=FILES_MAX_BYTES)]


class Prepare(Strict):
    """Open all that the load needs.

    `against`: the file for `verify_against`, and `each` one for each number; `contents`: (share, step, file).
    """

    config: dict[str, Any]
    against: tuple[Count, ...] = ()
    each: bool = False
    contents: Annotated[tuple[tuple[Count, Count, Count], ...], Field(max_length=MISSES_MAX)] = ()


class Go(Strict):
    """Start then, on CLOCK_MONOTONIC of the agent."""

    start_ns: Ns


class Went(Strict):
    """What the first `go` did, and `why` where it started nothing."""

    started: bool
    why: Annotated[str, Field(max_length=LINE_MAX)] = ""


State = Literal["opening", "ready", "running", "over"]


class Poll(Strict):
    """How is it? To be answered as soon as it is otherwise than known here, and after `wait_ms` at last.

    Known is its `state`, whether the window has `closed`, and its progress up to `elapsed_ns`.
    """

    state: State
    closed: bool = False
    elapsed_ns: Ns = 0
    wait_ms: Annotated[int, Field(ge=0, le=LONGEST_POLL_MS)] = 0


class Standing(Strict):
    """How it is. `closed_ns`: when the measured window closed, on the agent's clock; `stopped` as in LoadResult.

    `problem`: why it is over without a result.
    """

    state: State
    progress: Annotated[tuple[Count | None, ...], Field(min_length=10, max_length=10)] | None = None
    closed_ns: Ns | None = None
    stopped: Word | None = None
    problem: Problem | None = None

    @property
    def counters(self) -> Progress | None:
        """How far it is; None before the first look."""
        if self.progress is None:
            return None
        elapsed_ns, draining_ns, *counts = self.progress
        return Progress(elapsed_ns or 0, draining_ns, *(count or 0 for count in counts))


class StopAsked(Strict):
    """End, by so many requests since the load began: the first asks for an orderly end, the second for one at once."""

    requests: Annotated[int, Field(ge=1, le=100)] = 1


class Collect(Strict):
    """A part of the result."""

    offset: Annotated[int, Field(ge=0, le=RESULT_MAX_BYTES)]
    bytes_max: Annotated[int, Field(ge=1, le=CHUNK_MAX_BYTES)]


class Chunk(Strict):
    """The bytes behind the document, of so many in all."""

    total: Annotated[int, Field(ge=1, le=RESULT_MAX_BYTES)]


class Done(Strict):
    """An answer that says nothing else."""


Model = TypeVar("Model", bound=Strict)


def packed(model: Strict, payload: bytes = b"") -> bytes:
    """The document of a call or an answer."""
    return model.model_dump_json().encode() + b"\n" + payload


def problem(kind: Refusal, why: object) -> Problem:
    """What to answer instead; the reason is cut to one line."""
    return Problem(error=kind, why=one_line(why, LINE_MAX - 100)[:LINE_MAX])


def refusal(error: Exception) -> bytes:
    """The answer to a call that raised this: whatever it is, it is the other side's to read."""
    match error:
        case Refused():
            return packed(problem(error.kind, error.why))  # type: ignore[arg-type] # of ours
        case BadDocument():
            return packed(problem("bad", error))
    return packed(problem("internal", f"{type(error).__name__}: {error}"))


def unpacked(document: bytes | bytearray, model: type[Model]) -> tuple[Model, memoryview]:
    """The document and the bytes behind it. Raises BadDocument, or Refused where it is a problem."""
    head, payload = _split(document)
    if head.startswith(b'{"error":'):
        said = _parsed(head, Problem)
        raise Refused(said.error, one_line(said.why, LINE_MAX))
    return _parsed(head, model), payload


def frame(number: int, *body: bytes) -> bytes:
    """A question or an answer for a pipe."""
    return b"".join((_LENGTHS.pack(sum(map(len, body)), number), *body))


FRAME_HEAD_BYTES = _LENGTHS.size


def frame_head(head: bytes) -> tuple[int, int]:
    """Bytes and number of the frame that follows. Raises BadDocument for one that is too long."""
    size, number = _LENGTHS.unpack(head)
    if size > FRAME_MAX_BYTES:
        raise BadDocument(f"a frame of {size} bytes; allowed: {FRAME_MAX_BYTES}")
    return size, number


class Frames:
    """Frames out of the bytes of a pipe, as they come."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, read: bytes) -> Iterator[tuple[int, bytes]]:
        """Number and body of each frame that is whole by now. Raises BadDocument."""
        self._bytes += read
        while len(self._bytes) >= FRAME_HEAD_BYTES:
            size, number = frame_head(bytes(self._bytes[:FRAME_HEAD_BYTES]))
            end = FRAME_HEAD_BYTES + size
            if len(self._bytes) < end:
                return
            body = bytes(self._bytes[FRAME_HEAD_BYTES:end])
            del self._bytes[:end]
            yield number, body


def question(call: Call, document: bytes) -> bytes:
    """The body of a frame that asks."""
    return call.encode() + b"\n" + document


def asked(body: bytes) -> tuple[str, bytes]:
    """Call and document of such a body. Raises BadDocument."""
    call, end, document = body.partition(b"\n")
    if not end or len(call) > WORD_MAX or not call.isalpha():
        raise BadDocument("a frame without a call")
    return call.decode("ascii", "replace"), document


# The configuration ----------------------------------------------------------------------------------------------------

_CONFIG = TypeAdapter(LoadConfig)
# What only this machine has: its descriptors, its interfaces, its cores.
_LOCAL = {"network_fd": None, "ring_interface": 0, "ring_mac": b"", "server_mac": b"", "machines_network": ""}


@dataclass(frozen=True)
class Files:
    """The files of this machine that a load compares with, and where they stand in it."""

    paths: tuple[Path, ...] = ()
    against: tuple[int, ...] = ()
    each: bool = False
    contents: tuple[tuple[int, int, int], ...] = ()


def files_of(config: LoadConfig) -> Files:
    """Those that have to travel. Raises LoadError where they are too large, or not to be read."""
    numbers: dict[Path, int] = {}
    each = config.verify_against is not None and "{n}" in str(config.verify_against)
    against: list[Path] = []
    if config.verify_against is not None and config.verify != "off":
        names = range(config.distinct_files) if each else ("",)
        against = [Path(str(config.verify_against).replace("{n}", str(number))) for number in names]
    places = [
        (share, step, made.contents)
        for share, part in enumerate(config.boots)
        for step, made in enumerate(part.steps)
        if made.contents is not None
    ]
    for path in (*against, *(path for _, _, path in places)):
        numbers.setdefault(path, len(numbers))
    try:
        total = sum(path.stat().st_size for path in numbers)
    except OSError as error:
        raise LoadError(f"{error.filename}: can't be read: {error.strerror}") from None
    if total > FILES_MAX_BYTES:
        raise LoadError(
            f"the files to compare with have {total >> 20} MiB; several load hosts take {FILES_MAX_BYTES >> 20} MiB: "
            "compare fewer, or none (verify: off)"
        )
    contents = tuple((share, step, numbers[path]) for share, step, path in places)
    return Files(tuple(numbers), tuple(numbers[path] for path in against), each and bool(against), contents)


def prepare(config: LoadConfig, files: Files) -> bytes:
    """The call for a host's part of a load. Raises LoadError for what only this machine has."""
    for name, without in _LOCAL.items():
        if getattr(config, name) != without:
            raise LoadError(f"{name}: is of this machine, so other load hosts can't use it; allowed: none with --dask")
    if config.sockets == "ring":
        raise LoadError("sockets: ring is of this machine's own network; allowed with --dask: shared, per-transfer")
    head = {name: value for name, value in asdict(config).items() if name not in _LOCAL}
    head["verify_against"] = None
    for share, step, _ in files.contents:
        head["boots"][share]["steps"][step]["contents"] = None
    return packed(Prepare(config=head, against=files.against, each=files.each, contents=files.contents))


def config_of(asked: Prepare) -> LoadConfig:
    """The load, without its files. Raises BadDocument."""
    text = json.dumps(asked.config)
    try:
        config = _CONFIG.validate_json(text, strict=True)
    except ValidationError as error:
        raise BadDocument(_first(error)) from None
    known = {each.name for each in fields(LoadConfig)} - _LOCAL.keys()
    if unlike := asked.config.keys() ^ known:
        raise BadDocument(f"config has other keys: {', '.join(sorted(unlike))}")
    if config.verify_against is not None or any(step.contents for part in config.boots for step in part.steps):
        raise BadDocument("config names a file of this host")
    if json.loads(json.dumps({name: value for name, value in asdict(config).items() if name in known})) != asked.config:
        raise BadDocument("config has other keys in its parts")
    if not _is_bounded(asked.config):
        raise BadDocument("config has a number that is too large")
    first, width, of = config.share
    if first < 0 or width < 1 or not first + width <= of <= WEIGHTS_MAX:
        raise BadDocument(f"share {config.share} is none")
    if not 1 <= config.workers <= WORKERS_MAX:
        raise BadDocument(f"{config.workers} workers; allowed: {WORKERS_MAX}")
    return config


def _is_bounded(value: object) -> bool:
    """Whether no number in it is beyond 64 bits."""
    if isinstance(value, (list, dict)):
        return all(map(_is_bounded, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, int) or abs(value) < 2**64


def with_files(config: LoadConfig, asked: Prepare, folder: Path, files: int) -> LoadConfig:
    """The load with its files, which are `folder`/0, /1, ... Raises BadDocument for one that did not come."""
    if any(number >= files for number in (*asked.against, *(file for _, _, file in asked.contents))):
        raise BadDocument("a file is missing")
    if asked.each and asked.against != tuple(range(len(asked.against))):
        raise BadDocument("files are out of order")
    if asked.against:
        config = replace(config, verify_against=folder / ("{n}" if asked.each else str(asked.against[0])))
    boots = [list(part.steps) for part in config.boots]
    for share, step, file in asked.contents:
        if share >= len(boots) or step >= len(boots[share]):
            raise BadDocument("a file is for no step")
        boots[share][step] = replace(boots[share][step], contents=folder / str(file))
    made = (replace(part, steps=tuple(steps)) for part, steps in zip(config.boots, boots, strict=True))
    return replace(config, boots=tuple(made))


# The result -----------------------------------------------------------------------------------------------------------

_TEXTS = tuple[Word, Count, Annotated[str, Field(max_length=4 * LINE_MAX)], Word | None]
_Code = Annotated[int, Field(ge=0, le=65535)]
# Columns as they cross: a number is within these bounds. -1 stands for never, none or not known.
_TIME = (-1, INT_MAX)
_BOUNDS: Mapping[str, tuple[int, int]] = {
    "outcome": (0, 255), "reason": (0, len(BOOT_REASONS) - 1), "error_code": (-1, 65535), "step": (-1, 100_000),
    "failed_step": (-1, 100_000), "machine": (-1, INT_MAX), "first_response_ns": _TIME, "actual_start_ns": _TIME,
    "end_ns": _TIME, "duration_ns": (1, INT_MAX),
}  # fmt: skip
TABLES: Mapping[str, tuple[str, ...]] = {
    "transfers": ("number", *(name for name in TRANSFER_COLUMNS if name != "host")),
    "boots": (*(name for name in BOOT_COLUMNS if name not in ("boot", "host")), "share"),
    "intervals": tuple(INTERVAL_COLUMNS),
}


class _ResultHead(Strict):
    """Before the log and the columns, one after the other, each of little-endian int64."""

    figures: Annotated[dict[str, bool | int | float | None], Field(max_length=1000)]
    rows: Annotated[dict[Word, Count], Field(max_length=10)]
    has_boots: bool
    log_bytes: Annotated[int, Field(ge=0, le=LOG_MAX_BYTES)]
    faults: Annotated[tuple[_TEXTS, ...], Field(max_length=FAULTS_MAX)]
    errors: Annotated[tuple[tuple[_Code, Count, Annotated[str, Field(max_length=LINE_MAX)]], ...],
                      Field(max_length=ERRORS_MAX)]  # fmt: skip
    window_ns: tuple[Ns, Ns]
    answered: Count
    granted: Annotated[dict[Word, Count], Field(max_length=100)]
    stopped: Word | None
    served_misses: Annotated[tuple[tuple[Count, Count, Count], ...], Field(max_length=MISSES_MAX)]
    was_stopped: bool


@dataclass(frozen=True)
class Returned:
    """What one host found. `was_stopped`: something asked it to end before its time."""

    result: LoadResult
    was_stopped: bool


def result_bytes(returned: Returned) -> bytes:
    """The result for `collect`. Raises LoadError where it is too large."""
    result = returned.result
    log = result.latency_hlog.encode()
    tables = {name: getattr(result, name) for name in TABLES}
    rows = {name: len(next(iter(table.values()), ())) for name, table in tables.items()}
    head = _ResultHead(
        figures=result.figures,
        rows=rows,
        has_boots=bool(result.boots),
        log_bytes=len(log),
        faults=tuple((fault.kind, fault.count, fault.example, fault.rfc_section) for fault in result.faults),
        errors=tuple((error.code, error.count, error.message) for error in result.errors),
        window_ns=result.window_ns,
        answered=result.answered,
        granted=dict(result.granted),
        stopped=result.stopped,
        served_misses=result.served_misses,
        was_stopped=returned.was_stopped,
    )
    columns = [
        np.ascontiguousarray(table[name], "<i8").tobytes()
        for kind, table in tables.items() if table for name in TABLES[kind]
    ]  # fmt: skip
    whole = packed(head, b"".join((log, *columns)))
    if len(whole) > RESULT_MAX_BYTES:
        raise LoadError(
            f"the result has {len(whole) >> 20} MiB; a load host sends {RESULT_MAX_BYTES >> 20} MiB: "
            "keep fewer rows (rows: sample)"
        )
    return whole


def result_of(document: bytes | bytearray, config: LoadConfig) -> Returned:
    """What a host found of its part of a load. Raises BadDocument for anything that it can't have found."""
    head, payload = unpacked(document, _ResultHead)
    _check_figures(head.figures)
    names = {kind: TABLES[kind] for kind in TABLES if kind != "boots" or head.has_boots}
    if head.rows.keys() != TABLES.keys() or head.has_boots != bool(config.boots):
        raise BadDocument("the tables are others than this load has")
    expected = head.log_bytes + 8 * sum(head.rows[kind] * len(columns) for kind, columns in names.items())
    if expected != len(payload):
        raise BadDocument(f"{len(payload)} bytes follow, not {expected}")
    try:
        log = str(payload[: head.log_bytes], "utf-8")
    except UnicodeDecodeError:
        raise BadDocument("the latency log is no text") from None
    # A copy, so that the document with its log can go: there may be 1,000 of them.
    values = np.frombuffer(payload[head.log_bytes :], "<i8").copy()
    tables: dict[str, dict[str, Column]] = {"boots": {}}
    at = 0
    for kind, columns in names.items():
        rows = head.rows[kind]
        tables[kind] = {name: values[at + place * rows :][:rows] for place, name in enumerate(columns)}
        at += len(columns) * rows
    _check_tables(tables, config)
    if any(share >= len(config.boots) for share, _, _ in head.served_misses):
        raise BadDocument("a miss is of no share")
    result = LoadResult(
        figures=head.figures,
        transfers=tables["transfers"],
        intervals=tables["intervals"],
        latency_hlog=log,
        faults=tuple(Fault(*map(_plain, fault)) for fault in head.faults),
        errors=tuple(PeerError(*map(_plain, error)) for error in head.errors),
        window_ns=head.window_ns,
        answered=head.answered,
        granted=head.granted,
        stopped=head.stopped,
        boots=tables["boots"],
        served_misses=head.served_misses,
    )
    return Returned(result, head.was_stopped)


def _plain(value: Any) -> Any:
    return one_line(value, 4 * LINE_MAX) if isinstance(value, str) else value


def _check_figures(figures: Mapping[str, bool | float | None]) -> None:
    for name, value in figures.items():
        if name not in ACROSS_HOSTS:
            raise BadDocument(f"the figure {name[:WORD_MAX]!r} is none of a generator")
        if value is not None and not (math.isfinite(value) and 0 <= value <= INT_MAX):
            raise BadDocument(f"{name} is {value}")
    needed = {"started", "completed", "shed", "window_open_ns", "window_close_ns", "first_start_ns", "interrupted"}
    for name in needed:
        value = figures.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise BadDocument(f"{name} is {value}")


def _check_tables(tables: Mapping[str, Mapping[str, Column]], config: LoadConfig) -> None:
    for kind, table in tables.items():
        outcomes = BOOT_OUTCOMES if kind == "boots" else OUTCOMES
        bounds = {**_BOUNDS, "outcome": (0, len(outcomes) - 1), "share": (0, len(config.boots) - 1)}
        for name, column in table.items():
            low, high = bounds.get(name, (0, INT_MAX))
            if column.size and not (low <= column.min() and column.max() <= high):
                raise BadDocument(f"{kind} has a {name} of {column.min() if column.min() < low else column.max()}")
    lengths = np.unique(tables["intervals"]["duration_ns"])
    if lengths.size and (lengths.size > 1 or int(lengths[0]) not in INTERVALS_NS):
        raise BadDocument("intervals are of no one length, of 100 ms times a power of two")
    first, width, of = config.share
    number = tables["boots"]["machine"] if config.boots else tables["transfers"]["number"]
    place = number % of
    if number.size and (place.min() < first or place.max() >= first + width):
        raise BadDocument("it holds rows of another host's share")
    if np.unique(number).size != number.size:
        raise BadDocument("it holds a start twice")


def _split(document: bytes | bytearray) -> tuple[bytes, memoryview]:
    end = document.find(b"\n", 0, HEAD_MAX_BYTES + 1)
    if end < 0:
        raise BadDocument("a document without its line" if len(document) <= HEAD_MAX_BYTES else "a document too long")
    return bytes(document[:end]), memoryview(document)[end + 1 :]


def _parsed(head: bytes, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(head, strict=True)
    except ValidationError as error:
        raise BadDocument(_first(error)) from None


def _first(error: ValidationError) -> str:
    """The first mistake in one line."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, found["loc"]))
    return one_line(f"{where}: {found['msg']}" if where else found["msg"], LINE_MAX)


def chunks(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each part of a file; one empty part of an empty file."""
    for offset in range(0, max(len(content), 1), CHUNK_MAX_BYTES):
        yield offset, content[offset : offset + CHUNK_MAX_BYTES]
