"""A boot: the transfers of one machine in order, as a real client asks for them, read from boots/NAME.yaml.

Data about one client; it must never send a datagram.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic import Strict as StrictType

from tftpbench.model import strict, yaml
from tftpbench.model.axes import BLKSIZE_DEFAULT
from tftpbench.model.errors import BootError, nearest, suggest
from tftpbench.model.regular_file import is_regular
from tftpbench.model.strict import Allowed, KeyFault, Strict, raise_all
from tftpbench.model.units import DURATION_ALLOWED, SIZE_ALLOWED, format_bytes, listed, parse_duration_ns
from tftpbench.model.values import MS, Count, DurationNs, Operation, SizeBytes
from tftpbench.model.yaml import Document, KeyPath

SCHEMA = "tftpbench.boot/1"
BUNDLED = Path(__file__).parents[1] / "_bundled" / "boots"
# A Raspberry Pi asks 40 times, and ours have 4 KiB: these are far from any honest file.
FILE_MAX_BYTES = 64 * 1024
STEPS_MAX = 1000
AFTER_MAX = 5
SIZE_MAX_BYTES = 4 << 30
WAIT_MIN_NS, WAIT_MAX_NS = MS, 3_600_000 * MS
WAITS_MAX = 1000
REQUEST_MAX_BYTES = 512  # RFC 2347 section 2
# Of names of files in a sentence: a client has some that differ in one word.
_NAMES_MAX = 3
# What the native core takes as well: a profile that it refuses must be refused here, before a run.
NAME_MAX_BYTES, OPTIONS_MAX = 255, 16
BLOCK_MAX = 65535  # RFC 1350: 16 bits
# Of the options that RFCs 2348, 2349 and 7440 define; "{size}" is the size of the file that is written.
OPTION_RANGES = {"blksize": (8, 65464), "timeout": (1, 255), "windowsize": (1, 65535)}
SIZE_OF_PUT = "{size}"
# What a name may hold of its machine, and how long the longest of it is. `machine_name` of the native core fills it in.
MACHINE_VARIABLES = {
    "n": 10, "mac": 12, "mac-": 17, "mac:": 17, "MAC": 12, "ip_hex": 8, "uuid": 36, "serial": 8,
}  # fmt: skip
_PART = re.compile(r"^ip_hex\[([1-8])(?:\.\.([1-8]))?\]$")
_VARIABLE = re.compile(r"\{([^{}]*)\}")
_WAIT = re.compile(r"\s*(\d[\d.]*\s*[a-zµ]+)(?:\s*\+\s*(\d[\d.]*\s*[a-zµ]+))?(?:\s+x\s*(\d{1,4}))?\s*")
_WAITS_ALLOWED = "1ms to 1h each, as in 4s x 6, or 400ms + 20ms x 40 (each 20ms longer), or a list of such"
_OPTIONS_ALLOWED = "a list of options with their values in the order of the wire, as in [tsize 0, blksize 1468]"

Ends = Literal["whole", "missing", "stop"]
Then = Literal["give_up", "restart_transfer", "restart_boot"]
Nack = Literal["gap", "block", "none"]
Certainty = Literal["documented", "less certain"]
Options = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Step:
    """One request of a boot. Times in ns.

    `name`: with variables of the machine alone. `options`: in the order of the wire; a put's tsize is "{size}".
    `size_bytes`: of the file that is read or written; None for an expected miss. `file`: the number of its contents,
    equal for equal names; -1 for a miss. `ends`: read or written to its end, expected to be refused with an ERROR, or
    ended by the client after the first answer (`stop_after` 0) or after DATA block k, by ERROR `stop_code` and
    `stop_text`; `stop_acks`: it acknowledges that answer or block first. `think_ns`: pause after the step before it.
    `waits_ns`: how long each sending of the request waits for an answer; `reading_waits_ns`: the same of every later
    datagram. `then`: what follows when they are used up, at most `restarts_max` times. `nack`: what it answers to DATA
    out of order: an ACK for each gap, for each such block, or nothing. `contents`: compared with this file instead of
    made contents.
    """

    operation: Operation
    name: str
    options: Options
    size_bytes: int | None
    file: int
    ends: Ends
    stop_after: int
    stop_code: int
    stop_text: str
    think_ns: int
    waits_ns: tuple[int, ...]
    reading_waits_ns: tuple[int, ...]
    then: Then
    restarts_max: int
    nack: Nack
    contents: Path | None = None
    stop_acks: bool = False

    @property
    def blksize(self) -> int:
        """Bytes of data in a block, where the server agrees."""
        return int(_lowered(self.options).get("blksize", BLKSIZE_DEFAULT))

    @property
    def blocks(self) -> int:
        """DATA blocks of it on the wire, each once."""
        if self.ends == "missing" or self.size_bytes is None:
            return 0
        whole = self.size_bytes // self.blksize + 1  # RFC 1350 section 6: the last is shorter than the others
        return whole if self.ends == "whole" else min(self.stop_after, whole)

    @property
    def bytes(self) -> int:
        """Bytes of data in those blocks."""
        return min(self.size_bytes or 0, self.blocks * self.blksize)


@dataclass(frozen=True)
class Boot:
    """A boot profile. `sources` by name; `step_sources` and `step_clients`: such a name, and a client's, for each step.

    `names`: the parts of file names that `mapped` replaces.
    """

    name: str
    description: str
    certainty: Certainty
    steps: tuple[Step, ...]
    sources: Mapping[str, str] = field(default_factory=dict)
    step_sources: tuple[str, ...] = ()
    step_clients: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    _file: "BootFile | None" = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Share:
    """One part of a mix; a single boot is one share of weight 1."""

    name: str
    weight: int
    steps: tuple[Step, ...]


class File(NamedTuple):
    """A file that a root must hold: the template of its name from the root, the number of its contents, its size."""

    name: str
    file: int
    size_bytes: int
    operation: Operation


class BootFacts(NamedTuple):
    """What one machine asks for, the mean of a mix.

    `files`: transferred whole, each time; `blocks`: DATA at each step's blksize, each once.
    """

    requests: float
    files: float
    misses: float
    bytes: float
    blocks: float


def load_boot(name_or_path: str | Path) -> Boot:
    """The boot profile in a file, or the bundled one of this name. Raises BootError, a line for each mistake."""
    file = strict.parse(_read(_find(str(name_or_path)), ()), BootFile)
    return _made(file, file.names)


def bundled_boots() -> dict[str, Path]:
    """The boot profiles that come with tftpbench, by name."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.yaml"), key=lambda path: path.stem)}


def mapped(boot: Boot, names: Mapping[str, str]) -> Boot:
    """The boot with other parts of its file names, as in {"loader": "pxelinux.0"}. Raises BootError."""
    for key, value in names.items():
        if key not in boot.names or boot._file is None:  # noqa: SLF001 (its own)
            hint = suggest(key, boot.names) if boot.names else "; it has none"
            raise BootError(f"--map {key}={value}: the boot {boot.name} has no name {key!r}{hint}")
        try:
            boot = _made(boot._file, {**boot.names, key: value})  # noqa: SLF001 (its own)
        except KeyFault as fault:
            raise BootError(f"--map {key}={value}: {fault}") from None
    return boot


def shares(parts: Sequence[tuple[Boot, int]]) -> tuple[Share, ...]:
    """The shares of a mix, their files numbered over all of them.

    Raises BootError where one name has two sizes, or is read by one boot and expected to be absent by another.
    """
    known: dict[str, tuple[int | None, str]] = {}
    numbers: dict[str, int] = {}
    found = []
    for boot, weight in parts:
        for step in boot.steps:
            size, other = known.setdefault(_from_root(step.name), (step.size_bytes, boot.name))
            if size != step.size_bytes:
                sizes = [f"{_size(size)} in {other}", f"{_size(step.size_bytes)} in {boot.name}"]
                raise BootError(f"{step.name} is {' and '.join(sizes)}; map one of them to another name")
        steps = [replace(each, file=_number(numbers, each)) for each in boot.steps]
        found.append(Share(boot.name, weight, tuple(steps)))
    return tuple(found)


def files(parts: Sequence[Share]) -> list[File]:
    """What a root must hold, each once: the files that are read."""
    found = {
        _from_root(step.name): File(_from_root(step.name), step.file, step.size_bytes, step.operation)
        for part in parts for step in part.steps if step.size_bytes is not None and step.operation == "read"
    }  # fmt: skip
    return list(found.values())


def is_served(step: Step) -> bool:
    """Whether the step reads a file that must be there."""
    return step.operation == "read" and step.ends != "missing"


def not_comparable(shares: Sequence[Share]) -> str:
    """Which names differ from machine to machine, and why no copy tells what their files hold; "" where none does."""
    found = dict.fromkeys(
        (share.name, step.name) for share in shares for step in share.steps if is_served(step) and "{" in step.name
    )
    if not found:
        return ""
    names = [name for _, name in found]
    more = [f"{len(names) - _NAMES_MAX} more"] if len(names) > _NAMES_MAX else []
    who = listed([*dict.fromkeys(share for share, _ in found)])
    return f"each machine of {who} has files of its own, which may differ: {listed([*names[:_NAMES_MAX], *more])}"


def boot_facts(parts: Sequence[Share]) -> BootFacts:
    """What a machine asks for: the mean over the weights."""
    return mean(
        (
            BootFacts(
                len(part.steps),
                sum(step.ends == "whole" for step in part.steps),
                sum(step.ends == "missing" for step in part.steps),
                sum(step.bytes for step in part.steps),
                sum(step.blocks for step in part.steps),
            ),
            part.weight,
        )
        for part in parts
    )


def mean(parts: Iterable[tuple[BootFacts, int]]) -> BootFacts:
    """What a machine of a mix asks for, by the weights."""
    known = list(parts)
    total = sum(weight for _, weight in known)
    weighted = ([weight * figure / total for figure in facts] for facts, weight in known)
    return BootFacts(*map(sum, zip(*weighted, strict=True)))


def _size(size: int | None) -> str:
    return "absent" if size is None else format_bytes(size)


def _from_root(name: str) -> str:
    """A name as servers look for it: GRUB and some phones start theirs with a slash, which is the root's."""
    return name.removeprefix("/")


def _number(numbers: dict[str, int], step: Step) -> int:
    return -1 if step.size_bytes is None else numbers.setdefault(_from_root(step.name), len(numbers))


def _as_waits(value: object) -> object:
    texts = value if isinstance(value, list) else [value]
    waits: list[int] = []
    for text in texts:
        found = _WAIT.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise ValueError(f"is {str(text)[:40]!r}; allowed: {_WAITS_ALLOWED}")
        first, longer = parse_duration_ns(found[1]), parse_duration_ns(found[2] or "0s")
        waits += [first + longer * index for index in range(int(found[3] or 1))]
        if len(waits) > WAITS_MAX:
            raise ValueError(f"has more than {WAITS_MAX} waits; allowed: {_WAITS_ALLOWED}")
    if not waits or not all(WAIT_MIN_NS <= wait <= WAIT_MAX_NS for wait in waits):
        raise ValueError(f"has a wait beyond what is allowed; allowed: {_WAITS_ALLOWED}")
    return tuple(waits)


def _as_options(value: object) -> object:
    if not isinstance(value, list):
        raise ValueError(f"is {str(value)[:40]!r}; allowed: {_OPTIONS_ALLOWED}")
    found: dict[str, str] = {}
    if len(value) > OPTIONS_MAX:
        raise ValueError(f"has {len(value)} options; allowed: {OPTIONS_MAX} at most")
    for text in value:
        name, space, setting = text.partition(" ") if isinstance(text, str) else ("", "", "")
        if not space or not f"{name}{setting}".isprintable() or not text.isascii():
            raise ValueError(f"has {str(text)[:40]!r}, which is no option with its value; allowed: {_OPTIONS_ALLOWED}")
        if name.lower() in _lowered(found.items()):
            raise ValueError(f"has {name} twice; RFC 2347 allows each once")
        found[name] = setting
        _check_option(name.lower(), setting)
    return tuple(found.items())


def _lowered(options: Iterable[tuple[str, str]]) -> dict[str, str]:
    """By names as they are compared: RFC 2347 makes no difference between large and small letters."""
    return {name.lower(): setting for name, setting in options}


def _check_option(name: str, setting: str) -> None:
    known = [*OPTION_RANGES, "tsize"]
    if name not in known and (near := nearest(name, known)) is not None:
        raise ValueError(f"has the option {name!r}; did you mean {near!r}?")
    if name == "tsize" and setting not in ("0", SIZE_OF_PUT):
        raise ValueError(f"has tsize {setting}; allowed: 0 to read, {SIZE_OF_PUT} to write")
    low, high = OPTION_RANGES.get(name, (0, 0))
    if high and not (setting.isdecimal() and len(setting) <= len(str(high)) and low <= int(setting) <= high):
        raise ValueError(f"has {name} {setting[:40]}; allowed: {name} from {low} to {high}")


def _within(size: int) -> int:
    if size > SIZE_MAX_BYTES:
        raise ValueError(f"is {size}; allowed: 0 to 4GiB")
    return size


def _as_stop(value: object) -> object:
    if value in (None, "oack") or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= BLOCK_MAX):
        return value
    raise ValueError(f"is {repr(value)[:40]}; allowed: oack, or the number of a DATA block, 1 to {BLOCK_MAX}")


_STOP_SCHEMA = {"anyOf": [{"const": "oack"}, {"type": "integer", "minimum": 1, "maximum": BLOCK_MAX}, {"type": "null"}]}
_WAITS_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
_Waits = Annotated[tuple[int, ...], BeforeValidator(_as_waits), WithJsonSchema(_WAITS_SCHEMA)]
_Options = Annotated[
    Options, BeforeValidator(_as_options), WithJsonSchema({"type": "array", "items": {"type": "string"}})
]
_Line = Annotated[str, Field(pattern=r"^\S[^\n]{0,299}$"), Allowed("one line of text, at most 300 characters")]
_Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,29}$")]
_Name = Annotated[str, Field(min_length=1, max_length=300), Allowed("a file's name, at most 300 characters")]
_KEYS_ALLOWED = "small letters, digits and _, at most 30 of them"


class _Probe(Strict):
    """How a client asks only for a size: it ends the transfer itself, with an ERROR."""

    options: Annotated[_Options | None, Allowed(_OPTIONS_ALLOWED)] = Field(
        default=None, description="Options of such a request; null: the same as of others."
    )
    error: Annotated[Literal[0, 8], Allowed("0, 8")] = Field(description="Code of its ERROR.")
    text: Annotated[str, Field(pattern=r"^[ -~]{0,48}$"), Allowed("text, at most 48 characters of ASCII")] = Field(
        description="Message of its ERROR."
    )
    acks: Annotated[bool, StrictType(), Allowed("true, false")] = Field(
        default=False, description="Whether it acknowledges the OACK, or the block, before that."
    )


class _Client(Strict):
    """One program that asks: its options, timers and habits."""

    source: Annotated[_Key, Allowed("a key of sources")] = Field(description="Where they come from: a key of sources.")
    options: Annotated[_Options, Allowed(_OPTIONS_ALLOWED)] = Field(
        default=(), description="Options of its requests with their values, in the order of the wire."
    )
    probe: _Probe | None = Field(default=None, description="How it asks only for a size; null: it never does.")
    waits: Annotated[_Waits, Allowed(_WAITS_ALLOWED)] = Field(
        description="How long each sending of a request waits for the first answer; as many sendings as waits."
    )
    reading_waits: Annotated[_Waits | None, Allowed(_WAITS_ALLOWED)] = Field(
        default=None,
        description="The same for every later datagram; a single wait: it never sends again. null: as waits.",
    )
    then: Annotated[Then, Allowed("give_up, restart_transfer, restart_boot")] = Field(
        default="give_up", description="What follows when the waits are used up."
    )
    restarts: Annotated[Count, Allowed("0 to 1000")] = Field(
        default=0, ge=0, le=1000, description="Most restarts; 0 with give_up."
    )
    nack: Annotated[Nack, Allowed("gap, block, none")] = Field(
        description="What it answers to DATA out of order: an ACK for each gap, for each such block, or nothing."
    )

    @model_validator(mode="after")
    def _restarts(self) -> Self:
        if (self.then == "give_up") != (self.restarts == 0):
            raise KeyFault(("restarts",), f"is {self.restarts} with then: {self.then}; allowed: 1 or more to restart")
        return self


class _Request(Strict):
    """One request, or several where its name has {ip_hex[8..1]}."""

    get: Annotated[_Name | None, Allowed("a file's name, at most 300 characters")] = Field(
        default=None, description="The file to read. Either this or put."
    )
    put: Annotated[_Name | None, Allowed("a file's name, at most 300 characters")] = Field(
        default=None, description="The file to write. Either this or get."
    )
    as_: Annotated[str | None, Allowed("a key of clients")] = Field(
        default=None, alias="as", description="Which of clients asks; may be left out where there is one."
    )
    miss: Annotated[Literal["expected"] | None, Allowed("expected")] = Field(
        default=None, description="expected: the file is absent, and an ERROR is the right answer."
    )
    stop: Annotated[int | Literal["oack"] | None, PlainValidator(_as_stop), WithJsonSchema(_STOP_SCHEMA)] = Field(
        default=None, description="Ended by the client: after the OACK, or after this DATA block."
    )
    think: Annotated[
        DurationNs, Field(ge=0, le=WAIT_MAX_NS), Allowed(f"0s to 1h; {DURATION_ALLOWED}"),
    ] = Field(default=0, description="Pause of the client before it.")  # fmt: skip
    source: Annotated[str | None, Allowed("a key of sources")] = Field(
        default=None, description="Where it comes from, a key of sources; null: as its client."
    )

    @model_validator(mode="after")
    def _clear(self) -> Self:
        if (self.get is None) == (self.put is None):
            raise KeyFault((), "is not clear; allowed: exactly one of get and put")
        if self.put is not None and (self.miss or self.stop):
            raise KeyFault(("put",), "has miss or stop; allowed: those with get")
        if self.miss and self.stop:
            raise KeyFault(("stop",), "stands beside miss; allowed: one of the two")
        return self

    @property
    def template(self) -> str:
        """The name as it is written."""
        return self.get or self.put or ""


class BootFile(Strict):
    """A whole boots/NAME.yaml. Built by load_boot."""

    schema_id: Annotated[Literal["tftpbench.boot/1"], Allowed(SCHEMA)] = Field(
        alias="schema", description="The version of this format."
    )
    name: Annotated[str, Allowed("small letters, digits and -, at most 40 of them")] = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,39}$", description="What scenarios and results call it."
    )
    description: _Line = Field(description="What boots, in one line.")
    certainty: Annotated[Certainty, Allowed("documented, less certain")] = Field(
        description="documented: from the client's own source or a published capture; less certain: partly assumed."
    )
    after: Annotated[str | None, Allowed("the name of a bundled boot, or the path of a file")] = Field(
        default=None,
        description="A boot whose requests come first; its clients, names, sizes and sources are known here, too.",
    )
    sources: Annotated[dict[_Key, _Line], Allowed(f"keys ({_KEYS_ALLOWED}), each with one line of text")] = Field(
        default={}, description="Where its facts come from."
    )
    names: Annotated[dict[_Key, _Name], Allowed(f"keys ({_KEYS_ALLOWED}), each with a name or a part of one")] = Field(
        default={}, description="Names of files, or parts of them, that --map can change; {key} stands for them."
    )
    sizes: Annotated[
        dict[_Name, Annotated[SizeBytes, AfterValidator(_within)]],
        Allowed(f"names as in steps, each with 0 to 4GiB; {SIZE_ALLOWED}"),
    ] = Field(default={}, description="The size of each file that is read or written. They are typical, not measured.")
    clients: Annotated[dict[_Key, _Client], Allowed(f"keys ({_KEYS_ALLOWED}), each with a client")] = Field(
        default={}, description="Who asks: firmware, boot loader; steps name them."
    )
    steps: Annotated[tuple[_Request, ...], Allowed(f"a list of 1 to {STEPS_MAX} requests")] = Field(
        min_length=1, description="Its requests, in order."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise_all(_Resolution(self, self.names).faults)
        return self


class _Resolution:
    """The steps that follow from a file with these names; `faults` is empty where they can be followed."""

    def __init__(self, file: BootFile, names: Mapping[str, str]) -> None:
        self.file, self.names = file, names
        self.faults: list[KeyFault] = []
        self.steps: list[Step] = []
        self.clients: list[str] = []
        self.sources: list[str] = []
        self._numbers: dict[str, int] = {}
        self._absent: dict[str, int] = {}
        for key, value in names.items():
            self.faults += _faults_of_variables(("names", key), value, {})
        if self.faults:
            return  # every name that has one of them would be wrong, too
        self._sizes = dict(self._sized())
        self._unused = {name: path for name, (path, _) in self._sizes.items()}
        for key, client in file.clients.items():
            self._check_source(("clients", key, "source"), client.source)
        for index, request in enumerate(file.steps):
            self._add(index, request)
        for name, path in {} if self.faults else self._unused.items():
            self.faults.append(KeyFault(path, f"is asked for by no step: {name}", ["steps", "names"]))
        if len(self.steps) > STEPS_MAX:
            self.faults.append(KeyFault(("steps",), f"are {len(self.steps)} requests; allowed: 1 to {STEPS_MAX}"))

    def _sized(self) -> Iterator[tuple[str, tuple[KeyPath, int]]]:
        known = 0
        for template, size in self.file.sizes.items():
            if known > 10 * STEPS_MAX:  # far more than are ever asked for
                return
            path: KeyPath = ("sizes", template)
            faults = _faults_of_variables(path, template, self.names)
            self.faults += faults
            for name in () if faults else self._names_of(path, template):
                known += 1
                yield _from_root(name), (path, size)

    def _names_of(self, path: KeyPath, template: str) -> list[str]:
        """The names that a template stands for, where they are few enough to be requests; else a fault."""
        filled = _filled(template, self.names)
        count = math.prod(len(_lengths(part)) for part in _ranges(filled))
        if count > STEPS_MAX:
            self.faults.append(KeyFault(path, f"stands for {count} names; allowed: {STEPS_MAX} at most", ["names"]))
            return []
        return _expanded(filled)

    def _check_source(self, path: KeyPath, source: str) -> None:
        if source not in self.file.sources:
            hint = suggest(source, self.file.sources, "; allowed: a key of sources")
            self.faults.append(KeyFault(path, f"is {source!r}{hint}", ["sources"]))

    def _add(self, index: int, request: _Request) -> None:
        path: KeyPath = ("steps", index)
        if max(len(self.steps), len(self.faults)) > STEPS_MAX:
            return  # that is said, and each may stand for many
        found = self._client(path, request)
        place = (*path, "put" if request.put else "get")
        faults = _faults_of_variables(place, request.template, self.names)
        self.faults += faults
        if request.source is not None:
            self._check_source((*path, "source"), request.source)
        for name in () if faults else self._names_of(place, request.template):
            size = self._size(path, request, name)
            if found is not None and len(self.steps) <= STEPS_MAX:
                key, client = found
                self.steps.append(self._step(path, request, client, name, size))
                self.clients.append(key)
                self.sources.append(request.source or client.source)

    def _client(self, path: KeyPath, request: _Request) -> tuple[str, _Client] | None:
        known = self.file.clients
        if request.as_ is None and len(known) == 1:
            return next(iter(known.items()))
        if request.as_ in known:
            return request.as_, known[request.as_]
        given = f"is {request.as_!r}" if request.as_ else "is missing"
        hint = suggest(request.as_ or "", known, f"; allowed: {', '.join(known) or 'a key of clients, which has none'}")
        self.faults.append(KeyFault((*path, "as"), f"{given}{hint}", ["clients"]))
        return None

    def _step(self, path: KeyPath, request: _Request, client: _Client, name: str, size: int | None) -> Step:
        operation: Operation = "read" if request.get else "write"
        probe = client.probe
        if request.stop is not None and probe is None:
            message = "needs a client that says how it stops; allowed: with probe in clients"
            self.faults.append(KeyFault((*path, "stop"), message, ["clients"]))
        options = client.options if probe is None or probe.options is None or request.stop is None else probe.options
        self._check_request(path, operation, name, options)
        step = Step(
            operation=operation,
            name=name,
            options=options,
            size_bytes=size,
            file=-1,
            ends="missing" if request.miss else "stop" if request.stop is not None else "whole",
            stop_after=request.stop if isinstance(request.stop, int) else 0,
            stop_code=probe.error if probe and request.stop is not None else 0,
            stop_text=probe.text if probe and request.stop is not None else "",
            think_ns=request.think,
            waits_ns=client.waits,
            reading_waits_ns=client.reading_waits or client.waits,
            then=client.then,
            restarts_max=client.restarts,
            nack=client.nack,
            stop_acks=bool(probe and probe.acks and request.stop is not None),
        )
        return replace(step, file=_number(self._numbers, step))

    def _size(self, path: KeyPath, request: _Request, name: str) -> int | None:
        bare = _from_root(name)
        self._unused.pop(bare, None)
        if bare not in self._sizes:
            if not request.miss:
                key = "put" if request.put else "get"
                self.faults.append(KeyFault((*path, key), f"has no size; allowed: one in sizes for {name}", ["sizes"]))
            return None
        if request.miss:
            where = ".".join(map(str, self._sizes[bare][0]))
            message = f"is expected, but {name} is there: it has a size; allowed: to leave {where} or miss out"
            self.faults.append(KeyFault((*path, "miss"), message, ["sizes"]))
        return self._sizes[bare][1]

    def _check_request(self, path: KeyPath, operation: Operation, name: str, options: Options) -> None:
        path = (*path, "put" if operation == "write" else "get")
        longest = _VARIABLE.sub(lambda found: "x" * _longest(found[1]), name)
        if (wrong := _wrong_name(longest)) is not None:
            self.faults.append(KeyFault(path, f"is {name!r}, which {wrong}", ["names"]))
        setting = _lowered(options).get("tsize")
        if setting is not None and (setting == SIZE_OF_PUT) != (operation == "write"):
            allowed = "tsize 0 with get, tsize {size} with put"
            self.faults.append(KeyFault(path, f"has the option tsize {setting}; allowed: {allowed}", ["clients"]))
        sizes = [len(str(SIZE_MAX_BYTES)) if setting == SIZE_OF_PUT else len(setting) for _, setting in options]
        size = len(longest.encode(errors="surrogatepass"))  # half a character is refused with what can't be printed
        length = 2 + size + len(b"\0octet\0") + sum(len(key) + 2 for key, _ in options) + sum(sizes)
        if length > REQUEST_MAX_BYTES:
            message = f"makes a request of {length} bytes; allowed: {REQUEST_MAX_BYTES} at most (RFC 2347)"
            self.faults.append(KeyFault(path, message))
        elif size > NAME_MAX_BYTES:
            message = f"can be a name of {size} bytes; allowed: {NAME_MAX_BYTES} at most"
            self.faults.append(KeyFault(path, message, ["names"]))


def _faults_of_variables(path: KeyPath, text: str, names: Mapping[str, str]) -> list[KeyFault]:
    """What is no variable of a machine and none of these names."""
    if _VARIABLE.sub("", text).strip("{}") != _VARIABLE.sub("", text) or "{" in _VARIABLE.sub("", text):
        return [KeyFault(path, f"has a brace without its other one in {text!r}; allowed: {{n}} and the like")]
    known = [*names, *MACHINE_VARIABLES, "ip_hex[K]", "ip_hex[8..1]"]
    allowed = f"; allowed: {', '.join(f'{{{each}}}' for each in known)}"
    return [
        KeyFault(path, f"has the variable {{{each}}}{suggest(each, known, allowed)}", ["names"])
        for each in _VARIABLE.findall(text)
        if each not in names and each not in MACHINE_VARIABLES and not _PART.match(each)
    ]


def _filled(template: str, names: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: names.get(found[1], found[0]), template)


def _expanded(name: str) -> list[str]:
    """The names that a name with {ip_hex[8..1]} stands for, or the one that it is."""
    for part in _ranges(name):
        whole = f"{{{part[0]}}}"
        return [each for n in _lengths(part) for each in _expanded(name.replace(whole, f"{{ip_hex[{n}]}}", 1))]
    return [name]


def _ranges(name: str) -> list[re.Match[str]]:
    """The variables in it that stand for several lengths."""
    parts = (_PART.match(variable) for variable in _VARIABLE.findall(name))
    return [part for part in parts if part is not None and part[2] is not None]


def _lengths(part: re.Match[str]) -> range:
    first, last = int(part[1]), int(part[2])
    return range(first, last - 1, -1) if first >= last else range(first, last + 1)


def _longest(variable: str) -> int:
    part = _PART.match(variable)
    return int(part[1]) if part else MACHINE_VARIABLES[variable]


def _wrong_name(name: str) -> str | None:
    """Why a name is none that a client asks for; None where it is one."""
    if not name.isprintable():
        return "has a character that can't be printed; allowed: a name without NUL and the like"
    parts = re.split(r"[/\\]", name)
    if ".." in parts:
        return "leaves the root; allowed: a name without .."
    if "" in name.removeprefix("/").split("/") or "." in parts:
        return "is no name of a file; allowed: folders and a file with one / between"
    return None


def _made(file: BootFile, names: Mapping[str, str]) -> Boot:
    """Raises the first KeyFault, which only other names than its own can cause."""
    found = _Resolution(file, names)
    if found.faults:
        raise found.faults[0]
    return Boot(
        file.name, file.description, file.certainty, tuple(found.steps), file.sources, tuple(found.sources),
        tuple(found.clients), dict(names), file,
    )  # fmt: skip


def _find(path_or_name: str) -> Path:
    path = Path(path_or_name)
    known = bundled_boots()
    if path_or_name in known and not is_regular(path):
        return known[path_or_name]
    if is_regular(path) or "/" in path_or_name or path.suffix in {".yaml", ".yml"}:
        return path
    hint = suggest(path_or_name, known, f"; allowed: a file, or {', '.join(known)}")
    raise BootError(f"no boot is called {path_or_name!r}{hint}")


def _read(path: Path, below: tuple[Path, ...]) -> Document:
    """The file, with what its `after` puts before it; `below` are the files whose `after` leads to it."""
    document = yaml.read(path, BootError, FILE_MAX_BYTES)
    after = document.data.get("after")
    if isinstance(after, str):
        _put_before(document, after, (*below, path.resolve()))
    return document


def _put_before(document: Document, after: str, below: tuple[Path, ...]) -> None:
    """Add what stands in the boot that comes first; lines of the document stay where they are."""
    place = document.origin(("after",))
    path = bundled_boots().get(after, below[-1].parent / after)
    if path.resolve() in below or len(below) > AFTER_MAX:
        wrong = "a loop" if path.resolve() in below else f"a chain of more than {AFTER_MAX}"
        raise BootError(f"{place}: after: {after!r} makes {wrong}; allowed: a boot that does not come after this one")
    if not is_regular(path):
        hint = suggest(after, bundled_boots(), "; allowed: the name of a bundled boot, or the path of a file from here")
        raise BootError(f"{place}: after: no boot is called {after!r}{hint}")
    first = _read(path, below)
    strict.parse(first, BootFile)  # its mistakes have its own lines
    for key in ("sources", "names", "sizes", "clients"):
        own: Any = document.data.get(key, {})
        earlier: Any = first.data.get(key, {})
        document.data[key] = {**earlier, **own} if isinstance(own, dict) else own
    clients: Any = first.data["clients"]
    only = {"as": next(iter(clients))} if len(clients) == 1 else {}  # which its steps may leave out, and ours may not
    steps = [{**only, **each} for each in first.data["steps"]]  # type: ignore[attr-defined] # it has been parsed
    own_steps: Any = document.data.get("steps", [])
    if isinstance(own_steps, list):
        document.data["steps"] = [*steps, *own_steps]
        document.origins = {_later(key, len(steps)): place for key, place in document.origins.items()}


def _later(path: KeyPath, steps: int) -> KeyPath:
    """Where what was written stands after so many other steps."""
    if len(path) > 1 and path[0] == "steps" and isinstance(path[1], int):
        return ("steps", path[1] + steps, *path[2:])
    return path
