"""What a trial does: how clients behave, which cores each side gets, and the cell, one point of the matrix."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic import Strict as StrictType

from tftpbench.model import axes
from tftpbench.model.axes import AXES
from tftpbench.model.boot import Boot, BootFacts, Share, Step, boot_facts, load_boot, mapped, mean, shares
from tftpbench.model.capacity import MACHINES, Capacity, Find
from tftpbench.model.errors import ScenarioError
from tftpbench.model.keys import Added, key_fields, stable_key
from tftpbench.model.strict import Allowed, Strict
from tftpbench.model.units import rate_ratio
from tftpbench.model.values import (
    HOSTS_ALLOWED,
    IN_FLIGHT_LIMIT,
    MS,
    Arrivals,
    BusyPollNs,
    Count,
    Cpus,
    DurationNs,
    Hosts,
    Operation,
    RampNs,
    Rows,
    ShapePiece,
    Spread,
    Verify,
)

# How long an `auto` generator polls before it sleeps: longer than a scheduler's wake-up, shorter than a pause.
BUSY_POLL_AUTO_NS = 1 * MS
# What an open loop has in flight at most unless a scenario says otherwise: more than any server here was seen to hold.
IN_FLIGHT_MAX = 10_000
# And of machines: a server that keeps up has far fewer, and one with a file and a socket for each still has room for
# them where a process may have 20,000 open files, as is usual.
MACHINES_IN_FLIGHT_MAX = 2_000
# Longer than the retries of any usual client take.
DEADLINE_NS = 30_000 * MS
DEADLINE_NS_MIN, DEADLINE_NS_MAX = MS, 3_600_000 * MS
# How long transfers in flight may go on after a window: longer than any takes at a server that keeps up.
DRAIN_NS = 5_000 * MS


class Client(Strict):
    """How each virtual client behaves, and the generator that carries them."""

    timeout_ns: Annotated[DurationNs, Allowed("1ms to 1h")] = Field(
        default=1000 * MS, alias="timeout", ge=MS, le=3_600_000 * MS,
        description="First wait for an answer before a datagram is sent again.",
    )  # fmt: skip
    retries: Annotated[Count, Allowed("0 to 100")] = Field(
        default=5, ge=0, le=100, description="Timeouts without progress before a transfer counts as timed out."
    )
    backoff: Annotated[Literal["exponential", "constant"], Allowed("exponential, constant")] = Field(
        default="exponential", description="Whether the wait doubles after each timeout."
    )
    ramp_ns: Annotated[RampNs, Allowed("burst, or a duration up to 1h")] = Field(
        default=0, alias="start", le=3_600_000 * MS,
        description="burst: all clients start at once; a duration: their first starts are spread over it.",
    )  # fmt: skip
    tsize: Annotated[bool, StrictType(), Allowed("true, false")] = Field(
        default=False, description="Ask for tsize (RFC 2349)."
    )
    timeout_option_s: Annotated[Count | None, Allowed("1 to 255 seconds, or null")] = Field(
        default=None, alias="timeout_option", ge=1, le=255, description="Ask for timeout (RFC 2349), in seconds."
    )
    rollover: Annotated[Literal[0, 1] | None, Allowed("0, 1 or null")] = Field(
        default=None, description="Ask for the rollover extension: the block number that follows 65535."
    )
    busy_poll_ns: Annotated[BusyPollNs, Allowed("auto, or a duration up to 1s")] = Field(
        default=None, alias="busy_poll",
        description="How long the generator polls before it sleeps; auto: 1 ms where it has cores of its own, else 0.",
    )  # fmt: skip
    sockets: Annotated[
        Literal["auto", "shared", "per-transfer", "ring"], Allowed("auto, shared, per-transfer, ring")
    ] = Field(
        default="auto",
        description="shared: few sockets carry many clients, each with an address of its own. ring: packet rings in "
        "the place of sockets, for lock-step in a network namespace; what they can't carry goes over shared sockets. "
        "auto: ring in a network namespace, shared where the server is on 127.0.0.0/8, else one for each transfer.",
    )
    workers: Annotated[Count, Allowed("1 to 256")] = Field(
        default=1, ge=1, le=256, description="Threads of the generator."
    )

    def busy_poll_us(self, own_cores: bool) -> int:
        """How long to poll, in microseconds; `own_cores`: the generator shares no core with the server."""
        if self.busy_poll_ns is not None:
            return self.busy_poll_ns // 1000
        return BUSY_POLL_AUTO_NS // 1000 if own_cores else 0


class Placement(Strict):
    """How many cores each side gets, and what lies between the two."""

    server_cpus: Annotated[Cpus, Allowed("a number of cores from 1, or all")] = Field(
        default=1, description="Cores for the server under test."
    )
    generator_cpus: Annotated[Cpus, Allowed("a number of cores from 1, or all")] = Field(
        default=1, description="Cores for the load generator."
    )
    network: Annotated[
        Literal["loopback", "namespace", "auto"], Added("loopback"), Allowed("loopback, namespace, auto")
    ] = Field(
        default="loopback",
        description="namespace: each server gets a network of its own, and the generator another, with a veth pair "
        "between them; auto: that where this machine allows it, else loopback.",
    )
    server_host: Annotated[str | None, Added(None), Allowed("the name of a host of the cluster, or null")] = Field(
        default=None, pattern=r"^\S[^\n]*$", max_length=200,
        description="The host of the cluster (--dask) on which servers are started, while the others carry the load; "
        "this machine unless given.",
    )  # fmt: skip

    @property
    def key_fields(self) -> dict[str, object]:
        """What goes into keys: whether the server has a host of its own, whatever that is called."""
        there = {"server_host": True} if self.server_host is not None else {}
        return {**key_fields(self.model_copy(update={"server_host": None})), **there}


class Generators(Strict):
    """The load hosts that carry a load together, in place of this machine."""

    hosts: Annotated[Hosts, Allowed(HOSTS_ALLOWED)] = Field(
        description="How many of the cluster's hosts carry the load, or the names of those that do."
    )
    weights: Annotated[
        tuple[Annotated[Count, Field(ge=1, le=1000)], ...],
        Allowed("a list of numbers from 1 to 1000, one for each host"),
    ] = Field(default=(), description="Each host's share of the load; equal shares unless given.")
    cores: Annotated[
        tuple[Annotated[Count, Field(ge=0, le=4095)], ...],
        Allowed("a list of numbers of cores, as in [1, 2]"),
    ] = Field(default=(), description="The cores of each host that carry its generator; the host chooses unless given.")

    @property
    def count(self) -> int:
        """How many hosts there are."""
        return self.hosts if isinstance(self.hosts, int) else len(self.hosts)


@dataclass(frozen=True)
class ClosedLoop:
    """A fixed number of transfers in flight: each that ends is followed by the next at once."""

    concurrency: int


@dataclass(frozen=True)
class OpenLoop:
    """Transfers start at a fixed rate, whatever becomes of the others.

    `arrivals`: how the starts lie in time. What is due while `in_flight_max` are in flight is shed, and what has not
    ended `deadline_ns` after its intended start is late.
    """

    rate_per_s: float
    arrivals: Arrivals
    in_flight_max: int
    deadline_ns: int = DEADLINE_NS


@dataclass(frozen=True)
class Storm:
    """So many machines, or transfers, start within `over_ns`, once each: `spread` says how they lie in it.

    `in_flight_max`: all of them unless it is given, as far as any load may.
    """

    machines: int
    over_ns: int
    spread: Spread = "even"
    deadline_ns: int = DEADLINE_NS
    in_flight_max: int = IN_FLIGHT_LIMIT

    def __post_init__(self) -> None:
        object.__setattr__(self, "in_flight_max", min(self.in_flight_max, self.machines))


@dataclass(frozen=True)
class Piece:
    """A piece of a shape. Rates are exact: so many starts in so many ns; a burst has none, and the others no `count`.

    A hold has the same rate at both ends.
    """

    kind: Literal["ramp", "hold", "burst"]
    from_ratio: tuple[int, int] | None = None
    to_ratio: tuple[int, int] | None = None
    for_ns: int = 0
    count: int = 0

    @property
    def starts(self) -> float:
        """How many start in it, at random on average."""
        ends = [count / per_ns for count, per_ns in filter(None, (self.from_ratio, self.to_ratio))]
        return self.count + sum(ends) / 2 * self.for_ns

    @classmethod
    def of(cls, written: ShapePiece) -> "Piece":
        """The piece as a scenario has it."""
        if written.burst is not None:
            return cls("burst", count=written.burst)
        first, last = (rate_ratio(per_s) / 10**9 for per_s in written.ramp or (written.hold or 0,) * 2)
        kind: Literal["ramp", "hold"] = "ramp" if written.ramp else "hold"
        return cls(kind, first.as_integer_ratio(), last.as_integer_ratio(), written.for_ns or 0)


@dataclass(frozen=True)
class Shaped:
    """Starts at a rate that changes, piece by piece; what is late or shed is as in an open loop of one rate."""

    pieces: tuple[Piece, ...]
    arrivals: Arrivals = "even"
    in_flight_max: int = IN_FLIGHT_MAX
    deadline_ns: int = DEADLINE_NS
    text: str = field(default="", compare=False)
    """Its pieces in words."""

    @property
    def starts(self) -> float:
        """How many start, at random on average."""
        return sum(piece.starts for piece in self.pieces)

    @property
    def length_ns(self) -> int:
        """From its first start to its last."""
        return sum(piece.for_ns for piece in self.pieces)


@dataclass(frozen=True)
class Sought:
    """No load yet: what a server can bear is looked for, by trials of the other loads.

    `asked`: how. `deadline_ns` and `in_flight_max` are those of its trials.
    """

    find: Find
    asked: Capacity
    deadline_ns: int = DEADLINE_NS
    in_flight_max: int = IN_FLIGHT_MAX

    @property
    def key_fields(self) -> dict[str, object]:
        """What makes one search another, beside its cell: what is found, and what counts as bearing it."""
        machines = {"machines": self.asked.machines or MACHINES} if self.find == "spread" else {}
        return {"find": self.find, "lost": self.asked.lost, "strict": self.asked.strict, **machines}


# Loads whose starts lie in time by a schedule of their own, whatever becomes of what was started.
Arriving = OpenLoop | Storm | Shaped | Sought
# How transfers, or boots, come to start. A further kind of load is a class here, and its axis in axes.py.
Load = ClosedLoop | Arriving


def too_many_at_once(machines: int, over: str = "over", most: str = "in_flight_max") -> str:
    """What is wrong with a storm that can't all be in flight at once; `over` and `most` are the caller's words."""
    return (
        f"is {machines} at once; allowed: {IN_FLIGHT_LIMIT} in flight, {over} more than 0s, or {most}, beyond which "
        "machines are shed"
    )


def in_flight_usual(machines: int | None, *, boots: bool) -> int:
    """What may be in flight where starts wait for no other, unless it is said; of a storm of `machines` all of it."""
    if machines is not None:
        return min(machines, IN_FLIGHT_LIMIT)
    return MACHINES_IN_FLIGHT_MAX if boots else IN_FLIGHT_MAX


def _load(point: Mapping[str, Any], in_flight_max: int | None, deadline_ns: int) -> Load:
    arrivals: Arrivals = point["arrivals"] or "even"
    boots = point["boot"] is not None or point["mix"] is not None
    most = in_flight_usual(point["machines_asked"], boots=boots) if in_flight_max is None else in_flight_max
    if point["machines_asked"] is not None:
        return Storm(point["machines_asked"], point["over_ns"] or 0, point["spread"] or "even", deadline_ns, most)
    if point["shape"] is not None:
        pieces: tuple[ShapePiece, ...] = point["shape"]
        return Shaped(tuple(map(Piece.of, pieces)), arrivals, most, deadline_ns, ", ".join(map(str, pieces)))
    if point["rate_per_s"] is not None:
        return OpenLoop(point["rate_per_s"], arrivals, most, deadline_ns)
    return ClosedLoop(point["concurrency"])


class Profiles:
    """The boot profiles of a scenario by name or path, each read once.

    `names`: what their files are called there (`map`). `recorded`: the hashes that a run wrote down; a profile that
    has changed since is refused when it is to be booted, and the run's keys stay what they were. `asked`: what a
    machine of each asked for in that run, where it was written down.
    """

    def __init__(
        self,
        names: Mapping[str, str] | None = None,
        recorded: Mapping[str, str] | None = None,
        asked: Mapping[str, BootFacts] | None = None,
    ) -> None:
        self.names = dict(names or {})
        self._asked = dict(asked or {})
        self._recorded = frozenset(recorded or ())
        self._hashes = dict(recorded or {})
        self._read: dict[str, Boot] = {}

    def boot(self, name: str) -> Boot:
        """The profile with its files' names there.

        Raises BootError, or ScenarioError for one that has changed.
        """
        boot = self._boot(name)
        if self.hash(name) != _hash(boot.steps):
            raise ScenarioError(f"the boot profile {name} has changed since the run began; allowed: a new run")
        return mapped(boot, {key: name for key, name in self.names.items() if key in boot.names})

    def hash(self, name: str) -> str:
        """Equal for equal steps, whatever they are called. Raises BootError."""
        if name not in self._hashes:
            self._hashes[name] = _hash(self._boot(name).steps)
        return self._hashes[name]

    def facts(self, name: str) -> BootFacts:
        """What a machine asks for. Raises BootError, or ScenarioError for a profile that has changed."""
        if name not in self._asked:
            self._asked[name] = boot_facts(self.shares([(name, 1)]))
        return self._asked[name]

    def is_recorded(self, name: str) -> bool:
        """Whether a run wrote down its hash: then it need not be there any more."""
        return name in self._recorded

    def shares(self, parts: Iterable[tuple[str, int]]) -> tuple[Share, ...]:
        """What the machines of a mix do. Raises BootError, or ScenarioError for a profile that has changed."""
        return shares([(self.boot(name), weight) for name, weight in parts])

    def _boot(self, name: str) -> Boot:
        if name not in self._read:
            self._read[name] = load_boot(name)
        return self._read[name]


def _hash(steps: Sequence[Step]) -> str:
    """Of what the machine asks for; what its files are compared with is no part of that, nor an ACK before a stop."""
    asked = [{name: value for name, value in asdict(step).items() if name != "stop_acks"} for step in steps]
    return stable_key({"steps": [{**step, "contents": None} for step in asked]})


@dataclass(frozen=True)
class Cell:
    """One point of the matrix: the work of a trial on any server.

    Exactly one of transfers, duration_ns is set; neither for a storm or a shape, whose extent is its own. What starts
    is a transfer, or a boot where one of boot, mix is set (`is_boots`): that says itself which files are moved how, so
    operation, file_size_bytes, blksize and windowsize are then None, which no type here says.
    """

    operation: Operation
    load: Load
    file_size_bytes: int
    blksize: int
    windowsize: int
    transfers: int | None
    duration_ns: int | None
    warm_up_ns: int
    limit_ns: int
    drain_ns: int
    """How long transfers that are in flight when a window closes may go on."""
    distinct_files: int
    client: Client
    placement: Placement
    verify: Verify
    boot: str | None = None
    mix: tuple[tuple[str, int], ...] | None = None
    """Names with their weights."""
    rows: Rows = "all"
    generators: Generators | None = None
    """The hosts that its load comes from; None for this machine."""
    profiles: Profiles = field(default_factory=Profiles, compare=False, repr=False)

    @classmethod
    def at(
        cls,
        point: Mapping[str, Any],
        *,
        in_flight_max: int | None = None,
        deadline_ns: int = DEADLINE_NS,
        sought: tuple[Find, Capacity] | None = None,
        **rest: Any,
    ) -> "Cell":
        """The cell at a point of the matrix: a value for each axis, by name; `rest` are the other fields.

        `sought`: what is looked for there, where the load is not known but asked.
        """
        work = {name: value for name, value in point.items() if not AXES[name].is_load}
        load = _load(point, in_flight_max, deadline_ns) if sought is None else None
        if sought is not None:
            boots = point["boot"] is not None or point["mix"] is not None
            most = in_flight_usual(None, boots=boots) if in_flight_max is None else in_flight_max
            load = Sought(*sought, deadline_ns, most)
        return cls(load=load, **work, **rest)  # type: ignore[arg-type] # one of the two has made it

    @property
    def open_loop(self) -> Arriving | None:
        """Its load, where starts do not wait for ends: at a rate, in a storm, in a shape."""
        return None if isinstance(self.load, ClosedLoop) else self.load

    @property
    def is_boots(self) -> bool:
        """Whether what starts is a boot."""
        return self.boot is not None or self.mix is not None

    @property
    def concurrency(self) -> int:
        """Transfers, or machines, in flight at once; of an open loop, at most."""
        return self.load.concurrency if isinstance(self.load, ClosedLoop) else self.load.in_flight_max

    @property
    def rate_per_s(self) -> float | None:
        """Starts a second; None where they have no one rate."""
        return self.load.rate_per_s if isinstance(self.load, OpenLoop) else None

    @property
    def arrivals(self) -> Arrivals | None:
        """How the starts lie in time; None in a closed loop and in a storm."""
        return self.load.arrivals if isinstance(self.load, OpenLoop | Shaped) else None

    @property
    def machines_asked(self) -> int | None:
        """How many start in a storm; None in other loads."""
        return self.load.machines if isinstance(self.load, Storm) else None

    @property
    def over_ns(self) -> int | None:
        """Within what time a storm starts; None in other loads."""
        return self.load.over_ns if isinstance(self.load, Storm) else None

    @property
    def spread(self) -> Spread | None:
        """How the starts of a storm lie in its time; None in other loads."""
        return self.load.spread if isinstance(self.load, Storm) else None

    @property
    def shape(self) -> str | None:
        """The pieces of a shape in words; None in other loads."""
        return self.load.text if isinstance(self.load, Shaped) else None

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """The boot profiles of its machines with their weights, without a common factor; () for transfers."""
        mix = self.mix or (((self.boot, 1),) if self.boot is not None else ())
        common = math.gcd(*(weight for _, weight in mix)) or 1
        return tuple((name, weight // common) for name, weight in mix)

    @cached_property
    def shares(self) -> tuple[Share, ...]:
        """What its machines do; () for transfers. Raises BootError for a profile that can't be read."""
        return self.profiles.shares(self.parts)

    @property
    def boot_facts(self) -> BootFacts:
        """What a machine asks for, the mean of a mix. Raises BootError, or ScenarioError for one that has changed."""
        return mean((self.profiles.facts(name), weight) for name, weight in self.parts)

    @property
    def point(self) -> dict[str, Any]:
        """Where it is in the matrix: its value of each axis, by name, as results have it."""
        point = {name: getattr(self, name) for name in AXES}
        return point | {"mix": None if self.mix is None else axes.mix_text(self.mix)}

    @property
    def load_hosts(self) -> int:
        """How many hosts its load comes from."""
        return self.generators.count if self.generators else 1

    @property
    def labelled(self) -> dict[str, Any]:
        """What a label is made of: its point, and how many hosts its load comes from."""
        return self.point | {axes.LOAD_HOSTS: self.load_hosts}

    @property
    def key_fields(self) -> dict[str, object]:
        """The fields of its cell_key, as plain JSON values (docs/results-format.md lists them)."""
        point = {
            name: value
            for name, value in self.point.items()
            if (added := AXES[name].added) is None or value != added.implied
        }
        if self.is_boots:  # by what the machines do, not by what that is called
            point = {name: value for name, value in point.items() if name not in ("boot", "mix")}
            point["boots"] = [[self.profiles.hash(name), weight] for name, weight in self.parts]
            point |= {"map": self.profiles.names} if self.profiles.names else {}
        return {
            **point,
            **({"deadline_ns": self.open_loop.deadline_ns} if self.open_loop else {}),
            **({"capacity": self.load.key_fields} if isinstance(self.load, Sought) else {}),
            **({axes.LOAD_HOSTS: self.load_hosts} if self.load_hosts != 1 else {}),
            "transfers": self.transfers,
            "distinct_files": self.distinct_files,
            "client": key_fields(self.client),
            "placement": self.placement.key_fields,
            "verify": self.verify,
        }

    @property
    def key(self) -> str:
        """cell_key: equal for equal work."""
        return stable_key(self.key_fields)

    @property
    def label(self) -> str:
        """For people: "read, 100 at once, 64 KiB", with options only where they differ from RFC 1350."""
        return self.label_without(())

    def label_without(self, options: Sequence[str]) -> str:
        """The label without these options."""
        if isinstance(self.load, Sought):
            return f"{axes.label(self.labelled, (*options, 'concurrency'))}, {self.load.find} sought"
        return axes.label(self.labelled, options)

    @property
    def writes(self) -> bool:
        """Whether its clients upload anything."""
        return self.operation == "write" or any(
            step.operation == "write" for share in self.shares for step in share.steps
        )

    @property
    def options(self) -> dict[str, str]:
        """Options that differ from RFC 1350, for people."""
        return {name: text for name, text in axes.parts(self.point).items() if AXES[name].is_option}
