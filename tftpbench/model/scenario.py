"""A whole scenario: its keys, the rules between them, and what follows from it."""

import contextlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Tag,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    create_model,
    model_validator,
)
from pydantic import Strict as StrictType
from pydantic_core import PydanticCustomError

from tftpbench.model import strict, yaml
from tftpbench.model.axes import AXES, CELL, LOAD_HOSTS, OPTIONS, Axis
from tftpbench.model.boot import BootFacts
from tftpbench.model.capacity import Capacity
from tftpbench.model.errors import BootError, ScenarioError, ThresholdError, suggest
from tftpbench.model.gate_settings import Gate
from tftpbench.model.keys import ESTIMATOR, Added, stable_key, with_implied
from tftpbench.model.strict import INCOMPLETE, MISTAKES_MAX, Allowed, KeyFault, Strict, raise_all
from tftpbench.model.thresholds import GRAMMAR as THRESHOLD_GRAMMAR
from tftpbench.model.thresholds import Threshold
from tftpbench.model.thresholds import parse as parse_threshold
from tftpbench.model.units import DURATION_ALLOWED, counted, duration_text
from tftpbench.model.values import IN_FLIGHT_LIMIT, MS, Count, DurationNs, MixPart, OneOrMore, Rows, TextOrList, Verify
from tftpbench.model.workload import (
    DEADLINE_NS,
    DEADLINE_NS_MAX,
    DEADLINE_NS_MIN,
    DRAIN_NS,
    IN_FLIGHT_MAX,
    MACHINES_IN_FLIGHT_MAX,
    Cell,
    Client,
    Generators,
    Placement,
    Profiles,
    Sought,
    too_many_at_once,
)

SCHEMA = "tftpbench.scenario/1"
# How trials are ordered; part of method_key, to be changed with the order itself.
ORDER = "rounds; in each, cells shuffled; in each, servers shuffled/1"
CELLS_MAX = 10_000
# Work that is not done by then is not coming: 10,000 files of 64 KiB take the slowest server that does it 2 minutes.
TIME_LIMIT_NS = 300_000 * MS
# --quick shortens windows to these.
QUICK_DURATION_NS = 200 * MS
QUICK_WARM_UP_NS = 50 * MS
# And fixed work of an open loop to this; of a closed one to a transfer for each in flight.
QUICK_TRANSFERS = 100
# A storm to so many machines, the time that it starts within and a shape to this in all.
QUICK_MACHINES = 100
QUICK_SHAPE_NS = 1000 * MS
# A search to what shows that it works.
QUICK_BUDGET_NS = 20_000 * MS


class _Matrix(Strict):
    """What is varied. Each key is one value or a list; the product of the lists is the matrix."""

    # By a name that comes below.
    model_config = ConfigDict(json_schema_extra=lambda schema: _schema_of(schema))  # noqa: PLW0108

    if TYPE_CHECKING:
        boot: tuple[str, ...] | None
        mix: tuple[MixPart, ...] | None

    def points(self) -> Iterator[dict[str, Any]]:
        """Every point: a value for each axis, by its name; the load varies fastest."""
        values = [self._values(name) for name in CELL]
        return (dict(zip(CELL, point, strict=True)) for point in itertools.product(*values))

    @property
    def size(self) -> int:
        """How many cells the product has."""
        return math.prod(len(self._values(name)) for name in CELL)

    @property
    def concurrency_max(self) -> int:
        """The most transfers that any closed loop has in flight; 0 where there is none."""
        return max(self._values("concurrency")) or 0

    @property
    def loads(self) -> list[str]:
        """The keys that say how transfers or boots come to start; a sound matrix has one."""
        return [key for key in LOADS if getattr(self, key) is not None]

    @property
    def boots(self) -> list[tuple[tuple[str | int, ...], str]]:
        """The boot profiles that it names, each with its place; none where it is transfers that start."""
        parts = enumerate(self.mix or ())
        return [
            *((("boot", index), name) for index, name in enumerate(self.boot or ())),
            *((("mix", index, "boot"), part.boot) for index, part in parts),
        ]

    def faults(self, *, is_sought: bool = False) -> Iterator[KeyFault]:
        """What is wrong between its keys. `is_sought`: the load is asked for, and so is none given."""
        loads = self.loads
        if is_sought:
            for key in loads:
                yield KeyFault((key,), "has no meaning beside capacity, which looks for it; allowed: without capacity")
        elif len(loads) != 1:
            wrong = f"is given beside {' and '.join(loads[1:])}" if loads else "is missing"
            yield KeyFault((loads[0] if loads else LOADS[0],), f"{wrong}; allowed: exactly one of {_LOADS_WORDS}")
        if self.boot is not None and self.mix is not None:
            yield KeyFault(("mix",), "is given beside boot; allowed: one of the two")
        names = [part.boot for part in self.mix or ()]
        for index, name in enumerate(names):
            if name in names[:index]:
                yield KeyFault(
                    ("mix", index, "boot"), f"names {name!r} twice; allowed: each boot once, with its weight"
                )
        for key, loads_of in (("arrivals", ("rate", "shape")), ("over", ("machines",)), ("spread", ("machines",))):
            if getattr(self, key) is not None and (is_sought or not set(loads_of) & set(loads)):
                words = " or ".join(loads_of)
                yield KeyFault((key,), f"has no meaning without {words}; allowed: only beside {words}")

    def _values(self, name: str) -> tuple[Any, ...]:
        """The values of an axis; None for one that says nothing of the load."""
        values: tuple[Any, ...] | None = getattr(self, AXES[name].key)
        if values is None:
            return (None,)
        if name == "mix":
            return (tuple((part.boot, part.weight) for part in values),)
        return (values,) if AXES[name].is_one else values


# The keys that load a matrix: exactly one.
LOADS = ("concurrency", "rate", "machines", "shape")
# Of these, those that go on until they are ended; a storm and a shape end by themselves.
ENDLESS = {"concurrency", "rate"}
_ENDLESS_WORDS = "matrix.concurrency or rate"
_LOADS_WORDS = f"{', '.join(LOADS[:-1])} and {LOADS[-1]}"


def _of_files(axis: Axis) -> WrapValidator:
    """What an axis of files means beside boots, which name their files themselves: nothing. Else it has its default.

    A key of boots that is wrong itself is not there (`info.data`): then nothing is known.
    """

    def check(value: object, read: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
        boots = [info.data.get(key, ...) for key in ("boot", "mix")]
        is_boot = any(given is not None for given in boots)
        if value is not None and is_boot and ... not in boots:
            key = "boot" if boots[0] else "mix"
            raise ValueError(f"has no meaning beside {key}, which says it itself; allowed: only without {key}")
        if value is not None:
            return read(value)
        if is_boot or (axis.default is None and info.context is INCOMPLETE):
            return None
        if axis.default is None:
            raise PydanticCustomError("missing", "Field required")
        return (axis.default,)

    return WrapValidator(check)


def _key_of(axis: Axis) -> tuple[Any, Any]:
    """The type and the default of an axis's key in the matrix."""
    if axis.is_one:
        return Annotated[axis.value | None, Allowed(axis.allowed)], Field(default=None, description=axis.description)
    more: list[object] = []
    if axis.added is not None and axis.added.implied is not None:
        more = [Added((axis.added.implied,))]
    if axis.of_files:
        more = [_of_files(axis)]
    values = Annotated[(tuple[axis.value, ...], OneOrMore, Allowed(axis.allowed), *more)]  # type: ignore[name-defined]
    default: Any = None if axis.default is None or axis.of_files else (axis.default,)
    return values, Field(default=default, validate_default=axis.of_files, description=axis.description)


def _schema_of(schema: dict[str, Any]) -> None:
    """What no type says: which keys are required, and the defaults that depend on others."""
    files = [axis for axis in AXES.values() if axis.of_files]
    for axis in files:
        schema["properties"][axis.key].pop("default", None)
        if axis.default is not None:
            schema["properties"][axis.key]["default"] = [axis.default]
    required = [axis.key for axis in files if axis.default is None]
    schema["anyOf"] = [{"required": keys} for keys in (required, ["boot"], ["mix"])]


if TYPE_CHECKING:

    class Matrix(_Matrix):
        """A key for each axis: a tuple of its values."""

        def __getattr__(self, name: str) -> tuple[Any, ...] | None: ...

else:
    Matrix = create_model(
        "Matrix",
        __base__=_Matrix,
        __doc__=_Matrix.__doc__,
        # Those of files last: what they may be depends on the others.
        **{axis.key: _key_of(axis) for axis in sorted(AXES.values(), key=lambda axis: axis.of_files)},
    )


def _option(value: str) -> str:
    if value not in OPTIONS:
        raise ValueError(f"is {value!r}; allowed: a list of {', '.join(OPTIONS)}")
    return value


Option = Annotated[str, AfterValidator(_option), WithJsonSchema({"enum": list(OPTIONS), "type": "string"})]


def _as_facts(value: object) -> BootFacts:
    """As `asks` of a document has it, or as it is."""
    if isinstance(value, BootFacts):
        return value
    figures = value if isinstance(value, Mapping) else {}
    if set(figures) != set(BootFacts._fields) or not all(
        isinstance(each, (int, float)) and not isinstance(each, bool) and 0 <= each < math.inf
        for each in figures.values()
    ):
        raise ValueError(f"is {repr(value)[:40]}; allowed: a number for each of {', '.join(BootFacts._fields)}")
    return BootFacts(**figures)


MachineFacts = Annotated[
    BootFacts,
    PlainValidator(_as_facts),
    PlainSerializer(lambda facts: facts._asdict()),
    WithJsonSchema({
        "type": "object", "additionalProperties": False, "required": [*BootFacts._fields],
        "properties": {name: {"type": "number", "minimum": 0} for name in BootFacts._fields},
    }),
]  # fmt: skip


_OPEN = "matrix.rate, machines or shape"
_FILE_NAME = r"^\S[^\n]*$"


class Scenario(Strict):
    """A whole scenario file. Built by load_scenario or from_document."""

    schema_id: Annotated[Literal["tftpbench.scenario/1"], Allowed(SCHEMA)] = Field(
        alias="schema", description="The version of this format."
    )
    name: Annotated[str, Allowed("small letters, digits and -, at most 60 of them")] = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,59}$", description="Names the run's folder."
    )
    description: Annotated[str, Allowed("the scenario's question, one line")] = Field(
        pattern=r"^\S[^\n]{0,299}$", description="The question that the run answers."
    )
    servers: Annotated[
        tuple[Annotated[str, Field(pattern=r"^\S[^\n]*$")], ...],
        OneOrMore,
        Allowed("names of servers, name@as_shipped, or paths of server.yaml files"),
    ] = Field(description="Who is compared. The first is the one the others are compared with.")
    matrix: Annotated[
        Annotated[Matrix, Tag("<one>")] | Annotated[tuple[Matrix, ...], Tag("<list>"), Field(min_length=1)],
        Discriminator(lambda given: "<list>" if isinstance(given, (list, tuple)) else "<one>"),
        Allowed("a mapping of keys to values, or a list of such mappings"),
    ] = Field(description="What is varied; a list of them is their union.")
    duration_ns: Annotated[DurationNs | None, Allowed(f"10ms to 24h; {DURATION_ALLOWED}")] = Field(
        default=None, alias="duration", ge=10 * MS, le=86_400_000 * MS,
        description="The measured window after warm-up. Either this or transfers.",
    )  # fmt: skip
    transfers: Annotated[Count | None, Allowed("1 to 10000000, at least the largest concurrency")] = Field(
        default=None, ge=1, le=10_000_000, description="A fixed number of transfers per trial. Either this or duration."
    )
    warm_up_ns: Annotated[DurationNs | None, Allowed(f"0s to 1h, only with duration; {DURATION_ALLOWED}")] = Field(
        default=None, alias="warm_up", le=3_600_000 * MS,
        description="Load before the window that is not counted; 200ms unless given. Only with duration.",
    )  # fmt: skip
    time_limit_ns: Annotated[
        DurationNs | None, Allowed(f"100ms to 24h; {DURATION_ALLOWED}")
    ] = Field(
        default=None, alias="time_limit", ge=100 * MS, le=86_400_000 * MS,
        description="When a trial ends, done or not. With transfers counted from its start, 5min unless given; with "
        "duration from the end of the window, 5s unless given.",
    )  # fmt: skip
    in_flight_max: Annotated[Count | None, Allowed(f"1 to {IN_FLIGHT_LIMIT}, only with {_OPEN}")] = Field(
        default=None, ge=1, le=IN_FLIGHT_LIMIT,
        description="Transfers, or machines, in flight at most; what is due beyond that is shed. Unless given, "
        f"{IN_FLIGHT_MAX}, of boots {MACHINES_IN_FLIGHT_MAX}, and with matrix.machines all of them. Only with {_OPEN}.",
    )  # fmt: skip
    deadline_ns: Annotated[DurationNs | None, Allowed(f"1ms to 1h, only with {_OPEN}; {DURATION_ALLOWED}")] = Field(
        default=None, alias="deadline", ge=DEADLINE_NS_MIN, le=DEADLINE_NS_MAX,
        description="How long after its intended start a transfer, or a boot, is ended, and counts as late; "
        f"{duration_text(DEADLINE_NS)} unless given. Only with {_OPEN}.",
    )  # fmt: skip
    rows: Annotated[Rows, Allowed("all, failed, sample")] = Field(
        default="all",
        description="Which transfers and boots have a row of their own. all: each, and as sample beyond 5 million. "
        "failed: those that did not complete. sample: these, and one of several of the others. Figures are of all.",
    )
    names: Annotated[
        dict[Annotated[str, Field(pattern=_FILE_NAME)], Annotated[str, Field(pattern=_FILE_NAME)]],
        Allowed("names of a boot's files, each with its name at the server, as in {loader: pxelinux.0}"),
    ] = Field(
        default={}, alias="map",
        description="What a boot's files are called at the server. Only with matrix.boot or mix.",
    )  # fmt: skip
    distinct_files: Annotated[Count, Allowed("1 to 100000")] = Field(
        default=16, ge=1, le=100_000, description="Different files that readers ask for in turn."
    )
    client: Client = Field(default=Client(), description="How each virtual client behaves.")
    placement: Placement = Field(default=Placement(), description="Where each side runs, and what lies between.")
    generators: Annotated[Generators | None, Allowed("a mapping of keys to values")] = Field(
        default=None,
        description="The hosts of a cluster (--dask) that carry the load together; this machine does unless given.",
    )
    trials: Annotated[Count, Allowed("1 to 1000")] = Field(
        default=7,
        ge=1,
        le=1000,
        description="Trials of each cell on each server, interleaved in random order; 1 of searches unless given.",
    )
    verify: Annotated[Verify, Allowed("full, sample, off")] = Field(
        default="full", description="How much of each transfer is compared with what it must be."
    )
    best_of: Annotated[tuple[Option, ...], Allowed(f"a list of {', '.join(OPTIONS)}")] = Field(
        default=(),
        description="Compare each server at its own best value of these, by the bytes of the files it moves.",
    )
    compare_with: Annotated[Literal["first", "ceiling"], Allowed("first, ceiling")] = Field(
        default="first",
        description="first: servers are compared with the first one; ceiling: each with the raw UDP "
        "throughput for the same datagrams, measured in the same run.",
    )
    thresholds: Annotated[tuple[str, ...], TextOrList, Allowed(THRESHOLD_GRAMMAR)] = Field(
        default=(), description="Each must hold in every cell; one that is missed means exit code 3."
    )
    capacity: Annotated[
        tuple[Capacity, ...],
        BeforeValidator(lambda given: given if isinstance(given, (list, tuple)) else (given,)),
        Allowed("a mapping of keys to values, or a list of such mappings"),
    ] = Field(
        default=(),
        description="In place of a load: look for what each server can bear in each cell. A list is several searches.",
    )
    gate: Gate = Field(default=Gate(), description="How `tftpbench gate` judges; nothing else reads it.")
    is_quick: Annotated[bool, StrictType(), Allowed("true, false")] = Field(
        default=False,
        alias="quick",
        description="As --quick sets it: no speed, ratio or limit of the generator is judged, what was lost is.",
    )
    recorded: Annotated[dict[str, str], Allowed("what a run wrote down")] = Field(
        default={}, alias="profiles",
        description="As a run writes it: what each boot profile was, by a hash of its steps.",
    )  # fmt: skip
    asked: Annotated[dict[str, MachineFacts], Allowed("what a run wrote down")] = Field(
        default={}, alias="asks",
        description="As a run writes it: what a machine of each boot profile asked for, with the sizes of its files.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.capacity and "trials" not in self.model_fields_set:
            self.__dict__["trials"] = 1  # a search is many trials already; frozen from here on
        raise_all(
            [
                *self._faults_of_load(),
                *self._faults_of_capacity(),
                *self._faults_of_boots(),
                *self._faults_of_work(),
                *self._faults_of_generators(),
                *self._faults_of_server_host(),
                *self._faults_of_cells(),
                *self._faults_of_thresholds(),
            ]
        )
        return self

    def _faults_of_load(self) -> Iterator[KeyFault]:
        for place, matrix in self._places():
            found = matrix.faults(is_sought=bool(self.capacity))
            yield from (KeyFault((*place, *fault.path), str(fault)) for fault in found)
        loads = [key for matrix in self.matrices for key in matrix.loads if key != "concurrency"]
        for key, value in (("in_flight_max", self.in_flight_max), ("deadline", self.deadline_ns)):
            if value is not None and not loads and not self.capacity:
                yield KeyFault((key,), f"has no meaning without {_OPEN}; allowed: only beside one of them")
        if self.in_flight_max is None:
            yield from self._faults_of_storms()
        yield from self._faults_of_shapes()
        if loads and self.client.ramp_ns:
            yield KeyFault(("client", "start"), f"has no meaning with matrix.{loads[0]}, which spreads all starts")
        if self.compare_with == "ceiling" and (of := [*loads, *self._boot_keys()]):
            yield KeyFault(("compare_with",), f"is ceiling, which has no meaning with matrix.{of[0]}; allowed: first")

    def _faults_of_storms(self) -> Iterator[KeyFault]:
        """Machines that start at once and can't all be in flight: most would be shed without a word before."""
        for place, matrix in self._places():
            if 0 not in (matrix.over or (0,)):
                continue
            for index, machines in enumerate(matrix.machines or ()):
                if machines > IN_FLIGHT_LIMIT:
                    yield KeyFault((*place, "machines", index), too_many_at_once(machines))

    def _faults_of_shapes(self) -> Iterator[KeyFault]:
        """Bursts alone are over as they begin: there is no rate to speak of."""
        for place, matrix in self._places():
            if matrix.shape and all(piece.for_ns is None for piece in matrix.shape):
                allowed = "with a ramp or a hold; bursts alone are machines over 0s"
                yield KeyFault((*place, "shape"), f"has no length; allowed: {allowed}")

    def _faults_of_capacity(self) -> Iterator[KeyFault]:
        """What says how long a trial is, or what it is compared with: a search says it itself."""
        if not self.capacity:
            return
        given = {
            "duration": self.duration_ns, "transfers": self.transfers, "warm_up": self.warm_up_ns,
            "time_limit": self.time_limit_ns, "best_of": self.best_of, "thresholds": self.thresholds,
        }  # fmt: skip
        said = "has no meaning beside capacity; allowed: without capacity"
        yield from (KeyFault((key,), said) for key, value in given.items() if value)
        if self.rows != "all":
            yield KeyFault(("rows",), f"is {self.rows}, beside capacity, which looks at every start; allowed: all")
        if self.client.ramp_ns:
            yield KeyFault(("client", "start"), "has no meaning beside capacity, which spreads all starts")
        for index, each in enumerate(self.capacity):
            if each.machines is not None and "spread" not in each.find:
                yield KeyFault(("capacity", index, "machines"), "has no meaning without find: spread")
            for name in (name for name in each.servers or () if not _runs(name, self.servers)):
                hint = suggest(name, self.servers)
                yield KeyFault(("capacity", index, "servers"), f"names {name!r}, which doesn't run here{hint}")

    def _places(self) -> Iterator[tuple[tuple[str | int, ...], Matrix]]:
        for index, matrix in enumerate(self.matrices):
            yield (("matrix", index) if isinstance(self.matrix, tuple) else ("matrix",)), matrix

    def _boot_keys(self) -> list[str]:
        return [str(path[0]) for matrix in self.matrices for path, _ in matrix.boots]

    def _faults_of_boots(self) -> Iterator[KeyFault]:
        """A profile that can't be read, at each of its places; and what means nothing without boots, or beside them."""
        known: dict[str, set[str]] = {}
        for place, matrix in self._places():
            yield from (KeyFault((*place, *path), line) for path, line in self._unreadable(matrix, known))
        keys = self._boot_keys()
        if self.names and not keys:
            yield KeyFault(("map",), "has no meaning without matrix.boot or mix; allowed: only beside one of them")
        if all(name in known for matrix in self.matrices for _, name in matrix.boots):
            names = set[str]().union(*known.values())
            hint = "" if names else "; they have none"
            for key in (key for key in self.names if keys and key not in names):
                yield KeyFault(("map", key), f"is no name of these boots{hint or suggest(key, names)}", ["matrix"])
        if keys and all(matrix.boots for matrix in self.matrices):
            said = f"has no meaning with matrix.{keys[0]}, which says it itself; allowed: only without {keys[0]}"
            usual = Client()
            for name in ("timeout_ns", "retries", "backoff", "tsize", "timeout_option_s", "rollover"):
                if getattr(self.client, name) != getattr(usual, name):
                    yield KeyFault(("client", Client.model_fields[name].alias or name), said)
            if self.best_of:
                yield KeyFault(("best_of",), said)

    def _unreadable(self, matrix: Matrix, known: dict[str, set[str]]) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """What is wrong with its profiles, each with its place; those of their names that `map` can change to `known`.

        One that a run wrote down need not be there any more.
        """
        news = [(path, name) for path, name in matrix.boots if not self.profiles.is_recorded(name)]
        is_sound = bool(news)
        for path, name in news:
            try:
                known[name] = {*self.profiles.boot(name).names}
            except BootError as error:
                is_sound = False
                yield from ((path, line) for line in str(error).splitlines())
        if is_sound and matrix.mix is not None:
            try:
                self.profiles.shares((part.boot, part.weight) for part in matrix.mix)
            except BootError as error:
                yield ("mix",), str(error)

    def _faults_of_work(self) -> Iterator[KeyFault]:
        loads = {key for matrix in self.matrices for key in matrix.loads}
        if self.capacity:
            return
        is_clear = all(len(matrix.loads) == 1 for matrix in self.matrices)
        if is_clear and not loads & ENDLESS:
            extents = {"duration": self.duration_ns, "transfers": self.transfers, "warm_up": self.warm_up_ns}
            for key, value in {**extents, "time_limit": self.time_limit_ns}.items():
                if value is not None:
                    which = next(load for load in LOADS if load in loads)
                    yield KeyFault(
                        (key,),
                        f"has no meaning with matrix.{which}, which ends by itself; allowed: with {_ENDLESS_WORDS}",
                    )
        elif (is_clear or self.transfers is not None) and (self.duration_ns is None) == (self.transfers is None):
            wrong = "is missing" if self.duration_ns is None else "is given beside transfers"
            yield KeyFault(("duration",), f"{wrong}; allowed: exactly one of duration and transfers", ["transfers"])
        is_compared = self.verify != "off" and any("write" in (matrix.operation or ()) for matrix in self.matrices)
        if self.rows == "failed" and is_compared:
            said = "is failed, which keeps no upload to compare; allowed: all or sample, or verify: off"
            yield KeyFault(("rows",), said, ["verify"])
        if self.transfers is not None and self.transfers < self.concurrency_max:
            yield KeyFault(
                ("transfers",),
                f"is {self.transfers}, so {self.concurrency_max} can't be in flight; "
                f"allowed: {self.concurrency_max} or more",
                ["duration"],
            )
        if self.transfers is not None and self.warm_up_ns is not None:
            yield KeyFault(("warm_up",), "has no meaning with transfers; allowed: only beside duration", ["transfers"])
        if self.compare_with == "ceiling" and self.best_of:
            yield KeyFault(
                ("compare_with",),
                "is ceiling, which has no meaning beside best_of; allowed: one of the two",
                ["best_of"],
            )

    def _faults_of_generators(self) -> Iterator[KeyFault]:
        """What load hosts can't do, who have no way into a network of this machine, nor rings in it."""
        asked = self.generators
        if asked is None:
            return
        if asked.weights and len(asked.weights) != asked.count:
            said = f"has {counted(len(asked.weights), 'weight')} for {counted(asked.count, 'host')}"
            yield KeyFault(("generators", "weights"), f"{said}; allowed: one for each host")
        if self.placement.network == "namespace":
            said = "is namespace, into which load hosts have no way; allowed: loopback, or no generators and no --dask"
            yield KeyFault(("placement", "network"), said, ["generators"])
        if self.client.sockets == "ring":
            said = "is ring, which load hosts do not have; allowed: auto, shared, per-transfer"
            yield KeyFault(("client", "sockets"), said, ["generators"])

    def _faults_of_server_host(self) -> Iterator[KeyFault]:
        """What a server on a host of its own can't be, nor be loaded by."""
        name, hosts = self.placement.server_host, self.generators.hosts if self.generators else 0
        if name is None:
            return
        if self.placement.network == "namespace":
            said = "is namespace, which is of this machine alone; allowed: loopback, or no server_host"
            yield KeyFault(("placement", "network"), said)
        if not isinstance(hosts, int) and name in hosts:
            said = f"has {name!r}, which serves (placement.server_host); allowed: other hosts"
            yield KeyFault(("generators", "hosts"), said, ["placement"])

    def _faults_of_cells(self) -> Iterator[KeyFault]:
        """Their number first, which bounds the work; of each matrix the first cell that it repeats."""
        searches = sum(len(each.find) for each in self.capacity) or 1
        cells = sum(matrix.size for matrix in self.matrices) * searches
        if cells > CELLS_MAX:
            yield KeyFault(("matrix",), f"has {cells} cells; allowed: {CELLS_MAX} at most")
            return
        if self.is_quick:  # which makes one of several
            return
        seen: dict[Cell, int] = {}
        for index, matrix in enumerate(self.matrices):
            for cell in self._cells_of(matrix):
                if seen.setdefault(cell, index) != index:
                    yield KeyFault(
                        ("matrix", index),
                        f"repeats a cell of matrix[{seen[cell]}]: {cell.label}; allowed: each cell once",
                    )
                    break

    def _faults_of_thresholds(self) -> Iterator[KeyFault]:
        wrong = 0
        for index, text in enumerate(self.thresholds):
            is_brief = wrong >= MISTAKES_MAX  # so it is counted and not shown
            try:
                threshold = parse_threshold(text, is_brief=is_brief)
            except ThresholdError as error:
                wrong += 1
                yield KeyFault(("thresholds", index), str(error))
                continue
            if threshold.server is not None and not _runs(threshold.server, self.servers):
                wrong += 1
                hint = "" if is_brief else suggest(threshold.server, self.servers)
                said = f"{text!r} names the server {threshold.server!r}, which doesn't run here{hint}"
                yield KeyFault(("thresholds", index), said, ["servers"])

    @cached_property
    def profiles(self) -> Profiles:
        """Its boot profiles, each read once."""
        return Profiles(self.names, self.recorded, self.asked)

    def cells(self) -> tuple[Cell, ...]:
        """Every cell, matrix by matrix, concurrency varying fastest; the order is a matter of the file alone."""
        return tuple(dict.fromkeys(cell for matrix in self.matrices for cell in self._cells_of(matrix)))

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The matrix, or those whose union it is."""
        return self.matrix if isinstance(self.matrix, tuple) else (self.matrix,)

    @property
    def concurrency_max(self) -> int:
        """The most transfers that any closed loop has in flight; 0 where there is none."""
        return max(matrix.concurrency_max for matrix in self.matrices)

    def _cells_of(self, matrix: Matrix) -> Iterator[Cell]:
        is_window = ENDLESS & {*matrix.loads}
        rest: dict[str, Any] = {
            "transfers": self.transfers if is_window else None,
            "duration_ns": self.duration_ns if is_window else None,
            "warm_up_ns": self.warm_up_effective_ns if is_window else 0,
            "limit_ns": self.time_limit_ns if self.time_limit_ns and self.transfers else TIME_LIMIT_NS,
            "drain_ns": self.time_limit_ns if self.time_limit_ns and self.duration_ns else DRAIN_NS,
            "in_flight_max": self.in_flight_max,
            "deadline_ns": DEADLINE_NS if self.deadline_ns is None else self.deadline_ns,
            "distinct_files": self.distinct_files,
            "client": self.client,
            "placement": self.placement,
            "generators": self.generators,
            "verify": self.verify,
            "rows": self.rows,
            "profiles": self.profiles,
        }
        for point in matrix.points():
            if not self.capacity:
                yield Cell.at(point, **rest)
            for asked in self.capacity:
                yield from (Cell.at(point, sought=(find, asked), **rest) for find in asked.find)

    def is_left_out(self, cell: Cell, server: str) -> bool:
        """Whether the search of `cell` is not for this `server`, which goes by its name in results."""
        only = cell.load.asked.servers if isinstance(cell.load, Sought) else None
        return only is not None and not _runs(server, only)

    @property
    def warm_up_effective_ns(self) -> int:
        """What is really waited: nothing with a fixed number of transfers, else 200 ms unless given."""
        if self.duration_ns is None:
            return 0
        return 200 * MS if self.warm_up_ns is None else self.warm_up_ns

    @property
    def load_hosts(self) -> int:
        """How many hosts its load comes from."""
        return self.generators.count if self.generators else 1

    @property
    def checks(self) -> tuple[Threshold, ...]:
        """The thresholds, understood."""
        return tuple(parse_threshold(text) for text in self.thresholds)

    @property
    def judged_checks(self) -> tuple[Threshold, ...]:
        """The thresholds that decide: of a quick run those on counts, but for what the generator itself dropped."""
        return tuple(
            check
            for check in self.checks
            if not self.is_quick or (check.is_count and not check.column.endswith("_generator"))
        )

    @property
    def method_key(self) -> str:
        """method_key: equal for figures that were measured the same way (docs/results-format.md)."""
        return stable_key(
            {
                "duration_ns": self.duration_ns,
                "warm_up_ns": self.warm_up_effective_ns,
                "trials": self.trials,
                "order": ORDER,
                "estimator": ESTIMATOR,
                **({LOAD_HOSTS: self.load_hosts} if self.load_hosts != 1 else {}),
                **({"server_host": True} if self.placement.server_host is not None else {}),
            }
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> "Scenario":
        """The scenario of a mapping with the keys of a scenario file (docs/scenario-format.md); `schema` may be absent.

        `data` is not changed. Durations and sizes have their units in the text, as in "2s" and "64KiB". Raises
        ScenarioError with one line: the key, what is wrong, what is allowed.
        """
        if not isinstance(data, Mapping):
            raise ScenarioError(
                f"the scenario is a value of type {type(data).__name__}; allowed: a mapping of keys to values"
            )
        return _read({"schema": SCHEMA, **data}, "the scenario")

    def document(self) -> dict[str, Any]:
        """The scenario as plain JSON values, for a run's manifest; from_document reads it back equal."""
        document = self.model_dump(mode="json", exclude_none=True)
        boots = {name for matrix in self.matrices for _, name in matrix.boots}
        document["profiles"] = {name: self.profiles.hash(name) for name in sorted(boots)}
        document["asks"] = dict(self._asks(sorted(boots)))
        usual = {"capacity": not self.capacity}
        usual |= {"gate": self.gate == Gate(), "quick": not self.is_quick, "rows": self.rows == "all"}
        usual |= {"map": not self.names, "profiles": not boots, "asks": not document["asks"]}
        # So that a run made before there were these keys can be gone on with.
        return {key: value for key, value in document.items() if not usual.get(key)}

    def _asks(self, boots: Sequence[str]) -> Iterator[tuple[str, dict[str, float]]]:
        """What a machine of each profile asks for, where it is known.

        A run may not have written it down, and the profile may have changed since.
        """
        for name in boots:
            with contextlib.suppress(BootError, ScenarioError):
                yield name, self.profiles.facts(name)._asdict()

    def asking(self, asked: Mapping[str, BootFacts]) -> "Scenario":
        """The same question at a server that has files of its own: `asked` is what a machine asks for, by profile."""
        return _read({**self.document(), "asks": {name: facts._asdict() for name, facts in asked.items()}}, "--target")

    def with_servers(self, servers: Sequence[str]) -> "Scenario":
        """The same question for other servers; thresholds that name none of them are dropped."""
        kept = [str(check) for check in self.checks if check.server is None or _runs(check.server, servers)]
        return _read({**self.document(), "servers": list(servers), "thresholds": kept}, "--server")

    def reading(self) -> "Scenario":
        """The same question about reads alone; as it is where it has none."""
        reads = [matrix for matrix in self.matrices if "read" in (matrix.operation or ())]
        matrix = [{**each.model_dump(mode="json", exclude_none=True), "operation": ["read"]} for each in reads]
        return _read({**self.document(), "matrix": matrix}, "--target-file") if reads else self

    def with_file_size(self, size_bytes: int) -> "Scenario":
        """The same question about one file of `size_bytes`, which is there already."""
        document = self.document()
        known, sized = document["matrix"], {"file_size": [size_bytes]}
        matrix = [{**each, **sized} for each in known] if isinstance(known, list) else {**known, **sized}
        changes = {"matrix": matrix, "distinct_files": 1}
        return _read({**document, **changes}, "--target-file")

    @property
    def in_network(self) -> bool:
        """Whether servers may come to run in networks of their own."""
        return self.placement.network != "loopback"

    def over(self, network: str, sockets: str | None = None) -> "Scenario":
        """The same question over this network, with these sockets where the scenario leaves them open."""
        document = self.document()
        placement = {**document["placement"], "network": network}
        client = document["client"]
        if sockets is not None and client["sockets"] == "auto":
            client = {**client, "sockets": sockets}
        return _read({**document, "placement": placement, "client": client}, "placement.network")

    def on_hosts(self, hosts: int) -> "Scenario":
        """The same question, its load from so many hosts, by equal shares. Raises ScenarioError where it can't be."""
        return _read({**self.document(), "generators": {"hosts": hosts}}, "--dask")

    def quick(self, *, keeps_trials: bool = False) -> "Scenario":
        """Every cell in short windows, once unless `keeps_trials`: to see that it works, not to judge its speed."""
        changes: dict[str, Any] = {"quick": True, "trials": self.trials if keeps_trials else 1}
        if self.capacity:
            quick = {"budget": duration_text(QUICK_BUDGET_NS)}
            changes["capacity"] = [
                {**each.model_dump(mode="json", exclude_none=True), **quick} for each in self.capacity
            ]
        matrix = [_quick(each) for each in self.matrices]
        changes["matrix"] = matrix if isinstance(self.matrix, tuple) else matrix[0]
        if self.duration_ns is not None:
            changes["duration"] = duration_text(min(self.duration_ns, QUICK_DURATION_NS))
            changes["warm_up"] = duration_text(min(self.warm_up_effective_ns, QUICK_WARM_UP_NS))
        elif self.transfers is not None:
            changes["transfers"] = self.concurrency_max or min(self.transfers, QUICK_TRANSFERS)
        return _read({**self.document(), **changes}, "--quick")


def from_document(data: Mapping[str, object], source: str) -> Scenario:
    """Read back what Scenario.document() gave; `source` names it in errors.

    A key that is later than the run that wrote it has the value that such runs implied, whatever is usual today.
    """
    known = dict(data)
    for name, model in (("client", Client), ("placement", Placement), ("matrix", Matrix)):
        part = known.get(name)
        if isinstance(part, Mapping):
            known[name] = with_implied(part, model)
        elif isinstance(part, list):
            known[name] = [with_implied(each, model) if isinstance(each, Mapping) else each for each in part]
    return _read(known, source)


def _quick(matrix: Matrix) -> dict[str, Any]:
    """The matrix as plain values, its storms of few machines, its shapes short."""
    document = matrix.model_dump(mode="json", exclude_none=True)
    if machines := document.get("machines"):
        document["machines"] = list(dict.fromkeys(min(each, QUICK_MACHINES) for each in machines))
    if over := getattr(matrix, "over", None):
        document["over"] = [duration_text(each) for each in dict.fromkeys(min(each, QUICK_SHAPE_NS) for each in over)]
    pieces = getattr(matrix, "shape", None) or ()
    length_ns = max(QUICK_SHAPE_NS, sum(piece.for_ns or 0 for piece in pieces))
    for piece, short in zip(pieces, document.get("shape", ()), strict=True):
        if piece.burst is not None:
            short["burst"] = min(piece.burst, QUICK_MACHINES)
        else:
            short["for"] = duration_text(max(MS, piece.for_ns * QUICK_SHAPE_NS // length_ns // MS * MS))
    return document


def _read(data: Mapping[str, object], source: str) -> Scenario:
    return strict.parse(yaml.from_data(data, source, ScenarioError), Scenario)


def _runs(server: str, entries: Sequence[str]) -> bool:
    """Whether the server that a threshold names is among a scenario's entries; a path goes by its folder or file."""
    for entry in entries:
        name, at, variant = entry.partition("@")
        names = [name, Path(name).stem, Path(name).parent.name] if "/" in name else [name]
        if server in names or server in [f"{each}{at}{variant}" for each in names]:
            return True
    return False
