"""A whole scenario: its keys, the rules between them, and what follows from it."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, WithJsonSchema, create_model, model_validator
from pydantic import Strict as StrictType

from tftpbench.model import strict, yaml
from tftpbench.model.axes import AXES, CELL, OPTIONS, Axis
from tftpbench.model.errors import ScenarioError, ThresholdError, suggest
from tftpbench.model.gate_settings import Gate
from tftpbench.model.keys import ESTIMATOR, Added, stable_key, with_implied
from tftpbench.model.strict import MISTAKES_MAX, Allowed, KeyFault, Strict, raise_all
from tftpbench.model.thresholds import GRAMMAR as THRESHOLD_GRAMMAR
from tftpbench.model.thresholds import Threshold
from tftpbench.model.thresholds import parse as parse_threshold
from tftpbench.model.units import DURATION_ALLOWED, duration_text
from tftpbench.model.values import MS, Count, DurationNs, OneOrMore, TextOrList, Verify
from tftpbench.model.workload import (
    DEADLINE_NS,
    DEADLINE_NS_MAX,
    DEADLINE_NS_MIN,
    DRAIN_NS,
    IN_FLIGHT_MAX,
    Cell,
    Client,
    Placement,
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


class _Matrix(Strict):
    """What is varied. Each key is one value or a list; the product of the lists is the matrix."""

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

    def _values(self, name: str) -> tuple[Any, ...]:
        """The values of an axis; None for one that says nothing of the load."""
        values: tuple[Any, ...] | None = getattr(self, AXES[name].key)
        return (None,) if values is None else values


def _key_of(axis: Axis) -> tuple[Any, Any]:
    """The type and the default of an axis's key in the matrix."""
    more = () if axis.added is None or axis.is_load else (Added((axis.added.implied,)),)
    values = Annotated[(tuple[axis.value, ...], OneOrMore, Allowed(axis.allowed), *more)]  # type: ignore[name-defined]
    default: Any = None if axis.is_load else ... if axis.default is None else (axis.default,)
    return values, Field(default=default, description=axis.description)


if TYPE_CHECKING:

    class Matrix(_Matrix):
        """A key for each axis: a tuple of its values."""

        def __getattr__(self, name: str) -> tuple[Any, ...] | None: ...

else:
    Matrix = create_model(
        "Matrix", __base__=_Matrix, __doc__=_Matrix.__doc__, **{axis.key: _key_of(axis) for axis in AXES.values()}
    )


def _option(value: str) -> str:
    if value not in OPTIONS:
        raise ValueError(f"is {value!r}; allowed: a list of {', '.join(OPTIONS)}")
    return value


Option = Annotated[str, AfterValidator(_option), WithJsonSchema({"enum": list(OPTIONS), "type": "string"})]


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
    in_flight_max: Annotated[Count | None, Allowed("1 to 50000, only with matrix.rate")] = Field(
        default=None, ge=1, le=50_000,
        description=f"Transfers of an open loop in flight at most; what is due beyond that is shed. {IN_FLIGHT_MAX} "
        "unless given. Only with matrix.rate.",
    )  # fmt: skip
    deadline_ns: Annotated[DurationNs | None, Allowed(f"1ms to 1h, only with matrix.rate; {DURATION_ALLOWED}")] = Field(
        default=None, alias="deadline", ge=DEADLINE_NS_MIN, le=DEADLINE_NS_MAX,
        description="How long after its intended start a transfer of an open loop is ended, and counts as late; "
        f"{duration_text(DEADLINE_NS)} unless given. Only with matrix.rate.",
    )  # fmt: skip
    distinct_files: Annotated[Count, Allowed("1 to 100000")] = Field(
        default=16, ge=1, le=100_000, description="Different files that readers ask for in turn."
    )
    client: Client = Field(default=Client(), description="How each virtual client behaves.")
    placement: Placement = Field(default=Placement(), description="How many cores each side gets.")
    trials: Annotated[Count, Allowed("1 to 1000")] = Field(
        default=7, ge=1, le=1000, description="Trials of each cell on each server, interleaved in random order."
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
        description="first: servers are compared with the first one; ceiling: each with raw loopback UDP "
        "throughput for the same datagrams, measured in the same run.",
    )
    thresholds: Annotated[tuple[str, ...], TextOrList, Allowed(THRESHOLD_GRAMMAR)] = Field(
        default=(), description="Each must hold in every cell; one that is missed means exit code 3."
    )
    gate: Gate = Field(default=Gate(), description="How `tftpbench gate` judges; nothing else reads it.")
    is_quick: Annotated[bool, StrictType(), Allowed("true, false")] = Field(
        default=False,
        alias="quick",
        description="As --quick sets it: no speed, ratio or limit of the generator is judged, what was lost is.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise_all(
            [*self._faults_of_load(), *self._faults_of_work(), *self._faults_of_cells(), *self._faults_of_thresholds()]
        )
        return self

    def _faults_of_load(self) -> Iterator[KeyFault]:
        for index, matrix in enumerate(self.matrices):
            place: tuple[str | int, ...] = ("matrix", index) if isinstance(self.matrix, tuple) else ("matrix",)
            if (matrix.concurrency is None) == (matrix.rate is None):
                wrong = "is missing" if matrix.rate is None else "is given beside rate"
                yield KeyFault((*place, "concurrency"), f"{wrong}; allowed: exactly one of concurrency and rate")
            if matrix.arrivals is not None and matrix.rate is None:
                yield KeyFault((*place, "arrivals"), "has no meaning without rate; allowed: only beside rate")
        is_open = any(matrix.rate is not None for matrix in self.matrices)
        for key, value in (("in_flight_max", self.in_flight_max), ("deadline", self.deadline_ns)):
            if value is not None and not is_open:
                yield KeyFault((key,), "has no meaning without matrix.rate; allowed: only beside it")
        if is_open and self.client.ramp_ns:
            yield KeyFault(("client", "start"), "has no meaning with matrix.rate, which spreads all starts")
        if is_open and self.compare_with == "ceiling":
            yield KeyFault(("compare_with",), "is ceiling, which has no meaning with matrix.rate; allowed: first")

    def _faults_of_work(self) -> Iterator[KeyFault]:
        if (self.duration_ns is None) == (self.transfers is None):
            wrong = "is missing" if self.duration_ns is None else "is given beside transfers"
            yield KeyFault(("duration",), f"{wrong}; allowed: exactly one of duration and transfers", ["transfers"])
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

    def _faults_of_cells(self) -> Iterator[KeyFault]:
        """Their number first, which bounds the work; of each matrix the first cell that it repeats."""
        cells = sum(matrix.size for matrix in self.matrices)
        if cells > CELLS_MAX:
            yield KeyFault(("matrix",), f"has {cells} cells; allowed: {CELLS_MAX} at most")
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

    def cells(self) -> tuple[Cell, ...]:
        """Every cell, matrix by matrix, concurrency varying fastest; the order is a matter of the file alone."""
        return tuple(cell for matrix in self.matrices for cell in self._cells_of(matrix))

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The matrix, or those whose union it is."""
        return self.matrix if isinstance(self.matrix, tuple) else (self.matrix,)

    @property
    def concurrency_max(self) -> int:
        """The most transfers that any closed loop has in flight; 0 where there is none."""
        return max(matrix.concurrency_max for matrix in self.matrices)

    def _cells_of(self, matrix: Matrix) -> Iterator[Cell]:
        rest: dict[str, Any] = {
            "transfers": self.transfers,
            "duration_ns": self.duration_ns,
            "warm_up_ns": self.warm_up_effective_ns,
            "limit_ns": self.time_limit_ns if self.time_limit_ns and self.transfers else TIME_LIMIT_NS,
            "drain_ns": self.time_limit_ns if self.time_limit_ns and self.duration_ns else DRAIN_NS,
            "in_flight_max": IN_FLIGHT_MAX if self.in_flight_max is None else self.in_flight_max,
            "deadline_ns": DEADLINE_NS if self.deadline_ns is None else self.deadline_ns,
            "distinct_files": self.distinct_files,
            "client": self.client,
            "placement": self.placement,
            "verify": self.verify,
        }
        return (Cell.at(point, **rest) for point in matrix.points())

    @property
    def warm_up_effective_ns(self) -> int:
        """What is really waited: nothing with a fixed number of transfers, else 200 ms unless given."""
        if self.duration_ns is None:
            return 0
        return 200 * MS if self.warm_up_ns is None else self.warm_up_ns

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
        if self.gate == Gate():
            del document["gate"]  # so that a run made before there was a gate can be gone on with
        if not self.is_quick:
            del document["quick"]  # the same for a run made before it was written down
        return document

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

    def quick(self, *, keeps_trials: bool = False) -> "Scenario":
        """Every cell in short windows, once unless `keeps_trials`: to see that it works, not to judge its speed."""
        changes: dict[str, Any] = {"quick": True, "trials": self.trials if keeps_trials else 1}
        if self.duration_ns is not None:
            changes["duration"] = duration_text(min(self.duration_ns, QUICK_DURATION_NS))
            changes["warm_up"] = duration_text(min(self.warm_up_effective_ns, QUICK_WARM_UP_NS))
        else:
            changes["transfers"] = self.concurrency_max or min(self.transfers or 1, QUICK_TRANSFERS)
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
