"""What a trial does: how clients behave, which cores each side gets, and the cell, one point of the matrix."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic import Strict as StrictType

from tftpbench.model import axes
from tftpbench.model.axes import AXES
from tftpbench.model.keys import key_fields, stable_key
from tftpbench.model.strict import Allowed, Strict
from tftpbench.model.values import MS, BusyPollNs, Count, Cpus, DurationNs, Operation, RampNs, Verify

# How long an `auto` generator polls before it sleeps: longer than a scheduler's wake-up, shorter than a pause.
BUSY_POLL_AUTO_NS = 1 * MS
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
    sockets: Annotated[Literal["auto", "shared", "per-transfer"], Allowed("auto, shared, per-transfer")] = Field(
        default="auto",
        description="shared: few sockets carry many clients, each with a loopback address of its own; "
        "auto: shared where the server is on 127.0.0.0/8, else one for each transfer.",
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
    """How many cores each side gets."""

    server_cpus: Annotated[Cpus, Allowed("a number of cores from 1, or all")] = Field(
        default=1, description="Cores for the server under test."
    )
    generator_cpus: Annotated[Cpus, Allowed("a number of cores from 1, or all")] = Field(
        default=1, description="Cores for the load generator."
    )


@dataclass(frozen=True)
class ClosedLoop:
    """A fixed number of transfers in flight: each that ends is followed by the next at once."""

    concurrency: int


# How transfers come to start. A further kind of load is a class here, and its axis in axes.py.
Load = ClosedLoop


@dataclass(frozen=True)
class Cell:
    """One point of the matrix: the work of a trial on any server. Exactly one of transfers, duration_ns is set."""

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

    @classmethod
    def at(cls, point: Mapping[str, Any], **rest: Any) -> "Cell":
        """The cell at a point of the matrix: a value for each axis, by name; `rest` are the other fields."""
        work = {name: value for name, value in point.items() if not AXES[name].is_load}
        return cls(load=ClosedLoop(point["concurrency"]), **work, **rest)

    @property
    def concurrency(self) -> int:
        """Transfers in flight at once."""
        return self.load.concurrency

    @property
    def point(self) -> dict[str, Any]:
        """Where it is in the matrix: its value of each axis, by name."""
        return {name: getattr(self, name) for name in AXES}

    @property
    def key_fields(self) -> dict[str, object]:
        """The fields of its cell_key, as plain JSON values (docs/results-format.md lists them)."""
        point = {
            name: value
            for name, value in self.point.items()
            if (added := AXES[name].added) is None or value != added.implied
        }
        return {
            **point,
            "transfers": self.transfers,
            "distinct_files": self.distinct_files,
            "client": key_fields(self.client),
            "placement": key_fields(self.placement),
            "verify": self.verify,
        }

    @property
    def key(self) -> str:
        """cell_key: equal for equal work."""
        return stable_key(self.key_fields)

    @property
    def label(self) -> str:
        """For people: "read, 100 at once, 64 KiB", with options only where they differ from RFC 1350."""
        return axes.label(self.point)

    def label_without(self, options: Sequence[str]) -> str:
        """The label without these options."""
        return axes.label(self.point, options)

    @property
    def options(self) -> dict[str, str]:
        """Options that differ from RFC 1350, for people."""
        return {name: text for name, text in axes.parts(self.point).items() if AXES[name].is_option}
