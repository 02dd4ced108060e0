"""The load generator, seen from Python: one frozen configuration in, one result out.

`LoadGenerator` is what the runner asks of one, `LocalGenerator` the native one in this process, and another machine's
would be one more class. It must never know scenarios, servers or results on disk; the caller
says what to send where, and judges what comes back.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, Self, TypeGuard

import numpy as np
import numpy.typing as npt

from tftpbench import _core
from tftpbench.host.machine import Fact
from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.host.network import ROUTER_MAC, SERVER_MAC, Network, machines_network
from tftpbench.model.axes import BLKSIZE_DEFAULT, WINDOWSIZE_DEFAULT
from tftpbench.model.boot import Share
from tftpbench.model.errors import LoadError
from tftpbench.model.metrics import BOOT_COLUMNS, OUTCOMES
from tftpbench.model.units import rate_ratio
from tftpbench.model.values import Arrivals
from tftpbench.model.workload import DRAIN_NS, Piece

# Columns of machines, as the native side names them; it gives none where no machine came to start.
_BOOTS = (*(name for name in BOOT_COLUMNS if name not in ("boot", "host")), "share")
IS_DEBUG_BUILD = _core.BUILD_PROFILE != "release"
# What the code of each ERROR means: RFC 1350 section 5, and 8 of RFC 2347.
ERROR_MEANINGS: Mapping[int, str] = dict(enumerate(_core.error_meanings()))
"""Whether the native core is a debug build, whose figures must not be used."""

Column = npt.NDArray[np.int64]
Stop = _core.Stop

Sockets = Literal["shared", "per-transfer", "ring"]


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    """One load run. Times in nanoseconds unless the name says otherwise; sizes in bytes.

    `name` is the file asked for, with `{n}` replaced by the file's number: the transfer's own number modulo
    `distinct_files`, or the transfer's own number where `distinct_files` is 0. Give exactly one of `transfers`
    (fixed work, ended after `limit_ns` at the latest) and `duration_ns` (a window that opens after `warm_up_ns`).
    `rate_per_s`: None is a closed loop, with `concurrency` transfers in flight throughout. A rate is an open loop,
    whose starts lie in time as `arrivals` says: at most `concurrency` are in flight, what is due beyond that is shed,
    and what has not ended `deadline_ns` after its intended start is ended, as late.
    `over_ns`: a storm, an open loop of `transfers` starts within that time, spread as `spread` says: evenly, or
    normally about the middle. `shape`: an open loop whose rate changes, and which is as long as its pieces. Neither
    has a warm-up, and all that they start is measured.
    `share`: where several hosts put on one load, which part of it this one starts, as (first, width, of): its j-th
    start, from 0, is number j // width * of + first + j % width of the one schedule. Intended start, name, contents
    and boot follow from the number. Of the whole load, the same on all hosts, are `transfers`, `rate_per_s`, `over_ns`,
    `shape` and `seed`; of this host alone `concurrency`, `workers` and `bytes_per_s_max`, and all that it finds.
    `rows`: which transfers and machines have a row in the result: "all", "failed" (what did not complete or boot), or
    "sample" (that, and every k-th of the others). More than `rows_max` become a sample. Figures are always of all.
    `verify_against`: what is read is compared with this file; with `{n}` in its path, each of the `distinct_files` with
    one of its own. `show_payload`: examples of faults show file contents, too.
    `size_is_known`: a file that is read must have `file_size_bytes`, even where nothing is compared.
    `stops_when_failing`: the load ends where most of the last 100 (machines, where they boot) failed for 3 s, or ICMP
    says that nothing listens. `bytes_per_s_max`: while more UDP payload moves, both ways, no transfer starts (a closed
    loop) or what is due is shed (an open loop); what has begun is not slowed down.
    `boots`: what starts is a machine that boots as its share says, and not one transfer. What is said of operation,
    name, file, options and timeouts is ignored then; `concurrency`, `transfers`, rate and deadline are of machines.
    `sockets`: "shared" lets few sockets carry many clients, each with an address of 127.0.0.0/8, or of
    `machines_network`; see `best_sockets`. "ring": packet rings on the interface `ring_interface`, from `ring_mac` to
    `server_mac`.
    `network_fd`: a connection to the broker of the server's network, which opens all sockets (`Network.requests_fd`);
    None for those of this process's own network.
    """

    host: str
    port: int
    operation: Literal["read", "write"]
    name: str
    file_size_bytes: int
    concurrency: int
    rate_per_s: float | None = None
    arrivals: Arrivals = "even"
    share: tuple[int, int, int] = (0, 1, 1)
    deadline_ns: int = 30_000_000_000
    over_ns: int | None = None
    spread: Literal["even", "normal"] = "even"
    shape: tuple[Piece, ...] = ()
    rows: Literal["all", "failed", "sample"] = "all"
    rows_max: int = 5_000_000
    size_is_known: bool = False
    distinct_files: int = 1
    seed: int = 1
    verify: Literal["full", "sample", "off"] = "full"
    verify_against: Path | None = None
    show_payload: bool = False
    allow_remote: bool = False
    workers: int = 1
    cpus: tuple[int, ...] = ()
    transfers: int | None = None
    limit_ns: int = 600_000_000_000
    duration_ns: int | None = None
    warm_up_ns: int = 0
    drain_ns: int = DRAIN_NS
    ramp_ns: int = 0
    blksize: int = BLKSIZE_DEFAULT
    windowsize: int = WINDOWSIZE_DEFAULT
    tsize: bool = False
    timeout_option_s: int | None = None
    rollover: int | None = None
    timeout_ns: int = 1_000_000_000
    retries: int = 5
    backoff: Literal["exponential", "constant"] = "exponential"
    sockets: Sockets = "per-transfer"
    busy_poll_us: int = 1_000
    receive_buffer_bytes: int = 0
    stops_when_failing: bool = False
    bytes_per_s_max: int | None = None
    boots: tuple[Share, ...] = ()
    network_fd: int | None = None
    ring_interface: int = 0
    ring_mac: bytes = b""
    server_mac: bytes = b""
    machines_network: str = ""

    @property
    def is_open_loop(self) -> bool:
        """Whether starts wait for no end: at a rate, in a storm, in a shape."""
        return self.rate_per_s is not None or self.over_ns is not None or bool(self.shape)

    @property
    def rate_ratio(self) -> tuple[int, int] | None:
        """The rate as transfers in so many nanoseconds, exactly."""
        if self.rate_per_s is None:
            return None
        if not 0 < self.rate_per_s < 1e9:
            return 0, 1  # refused with the others that can't be meant
        rate = rate_ratio(self.rate_per_s)
        return rate.numerator, rate.denominator * 10**9

    def window_ns(self, start_ns: int) -> tuple[int, int | None]:
        """When the measured window of a load that starts then opens and closes; None where its work ends it."""
        opens_ns = start_ns + (self.warm_up_ns if self.duration_ns is not None else 0)
        length_ns = sum(piece.for_ns for piece in self.shape) or self.duration_ns
        return opens_ns, None if length_ns is None else opens_ns + length_ns

    @property
    def options(self) -> dict[str, int]:
        """The options of its requests whose grant is counted: a default is not asked for (RFC 2347)."""
        return {
            **({"blksize": self.blksize} if self.blksize != BLKSIZE_DEFAULT else {}),
            **({"windowsize": self.windowsize} if self.windowsize != WINDOWSIZE_DEFAULT else {}),
            **({"tsize": 0 if self.operation == "read" else self.file_size_bytes} if self.tsize else {}),
        }


@dataclass(frozen=True)
class Fault:
    """One kind of protocol fault of the server: how often, and the first datagram that showed it.

    `example`: decoded, its length and, of other datagrams than DATA, at most 64 of its bytes in hexadecimal, in
    printable ASCII; of wrong contents the offset of the first wrong byte. `show_payload` shows the bytes of DATA, too.
    `rfc_section`: what it breaks, as in "RFC 7440 section 3"; None for wrong contents, of which no RFC speaks.
    """

    kind: str
    count: int
    example: str
    rfc_section: str | None = None


@dataclass(frozen=True)
class PeerError:
    """The ERRORs of one code that ended transfers: how many, and the first one's message in printable ASCII."""

    code: int
    count: int
    message: str


@dataclass(frozen=True)
class LoadResult:
    """What one run found.

    `figures`: the generator's columns of trials.jsonl, None where a figure can't be known. Beside these,
    `first_start_late_ns`: how much later than intended the first start came; of several workers, the latest one's.
    `transfers` (those that have a row, see `LoadConfig.rows`), `intervals`: columns of equal length; times are
    nanoseconds since the start of the load, -1 for never. That is the time that `run_load` was given, or that of its
    own first start.
    `boots`: of machines, shed ones too, the same; `outcome` is an index of BOOT_OUTCOMES, `reason` of BOOT_REASONS.
    Empty where no machine was to boot.
    `served_misses`: of each share and step, both from 0, that expects no file, how many machines were served one.
    `latency_hlog`: an HdrHistogram V2 interval log, in nanoseconds.
    `window_ns`: when the measured window really opened and closed, on CLOCK_MONOTONIC of the machine that asked.
    `errors`: of more than 16 codes for each worker the later ones are not kept.
    `answered`: transfers that the server answered; `granted`: in how many of them it granted each of blksize,
    windowsize and tsize.
    `hosts_lost`: which load hosts were lost, each as "NAME: WHY"; all else is then of what the others brought back. Of
    several hosts the rows say by `host`, from 0, which made them, and intervals are those of all together.
    """

    figures: dict[str, int | float | None]
    transfers: dict[str, Column] = field(repr=False)
    intervals: dict[str, Column] = field(repr=False)
    latency_hlog: str = field(repr=False)
    faults: tuple[Fault, ...]
    errors: tuple[PeerError, ...] = ()
    window_ns: tuple[int, int] = (0, 0)
    answered: int = 0
    granted: Mapping[str, int] = field(default_factory=dict)
    stopped: str | None = None
    boots: dict[str, Column] = field(default_factory=dict, repr=False)
    served_misses: tuple[tuple[int, int, int], ...] = ()
    hosts_lost: str | None = None

    @property
    def has_every_start(self) -> bool:
        """Whether each start intended in this share has a row with its time: none was shed, and no row is left out."""
        if self.boots:
            return len(self.boots["machine"]) == self.figures.get("machines") and not self.figures.get("boots_shed")
        return len(self.transfers["number"]) == self.figures.get("intended")

    @property
    def completed_numbers(self) -> list[int]:
        """Numbers of the transfers that completed, in order of their ends."""
        completed = self.transfers["outcome"] == OUTCOMES.index("completed")
        return [int(number) for number in self.transfers["number"][completed]]


class Progress(NamedTuple):
    """How far a load is, as it was up to 50 ms ago: time since its start, and since the measured window closed.

    `machines`: those that have begun to boot; `booted` of them are up, and `lost` of them ended otherwise.
    """

    elapsed_ns: int
    draining_ns: int | None
    started: int
    ended: int
    completed: int
    bytes: int
    shed: int = 0
    machines: int = 0
    booted: int = 0
    lost: int = 0

    @property
    def open(self) -> int:
        """Machines that boot, or transfers in flight where none is to."""
        return max(0, self.machines - self.booted - self.lost if self.machines else self.started - self.ended)

    @property
    def machines_text(self) -> str:
        """What became of the machines: "120 up, 880 booting, 3 lost"."""
        return f"{self.booted:,} up, {self.open:,} booting, {self.lost:,} lost"


@dataclass(frozen=True)
class ReadBack:
    """What came back when completed uploads were read again. A file that several uploads wrote counts once.

    `compared` of `files` came back whole; `mismatches` of those hold wrong bytes. `errors`: codes of the ERRORs that
    the others were refused with, without any where the server fell silent.
    """

    files: int
    compared: int
    bytes: int
    mismatches: int
    errors: tuple[int, ...]


class LoadGenerator(Protocol):
    """What puts load on a server.

    Another machine's needs, beside this: a clock whose offset to this one is known, and `verify_against`, which is a
    path of this machine, as a copy.
    """

    def run(
        self,
        config: LoadConfig,
        stop: Stop,
        window: MeasuredWindow | None = None,
        on_progress: Callable[[Progress], object] | None = None,
    ) -> LoadResult:
        """Run one load to its end; see `run_load`."""


class HostsLoad(LoadGenerator, Protocol):
    """A generator whose load comes from hosts of a cluster; this machine makes none of it.

    A host that is lost in `run`, after it has said hello, is part of the result and no exception.
    """

    @property
    def hosts(self) -> tuple[str, ...]:
        """Their names, in a stable order."""

    @property
    def is_here(self) -> bool:
        """Whether each is this machine in this network namespace, and so reaches what listens on its loopback.

        Raises HostsError where one can't be reached, or has another tftpbench.
        """

    @property
    def machines(self) -> tuple[Mapping[str, Fact], ...]:
        """What is known of the machine of each (`machine.facts`). Raises HostsError as `is_here` does."""

    def taking(self, hosts: Sequence[str], weights: Sequence[int]) -> Self:
        """The same with these hosts alone, whose shares are as their weights; () is equal shares."""


def is_of_hosts(generator: LoadGenerator) -> TypeGuard[HostsLoad]:
    """Whether its load comes from hosts of a cluster. No host is asked for that."""
    return hasattr(generator, "taking")


class LocalGenerator:
    """The native generator, in this process."""

    def run(
        self,
        config: LoadConfig,
        stop: Stop,
        window: MeasuredWindow | None = None,
        on_progress: Callable[[Progress], object] | None = None,
    ) -> LoadResult:
        """Run one load to its end."""
        return run_load(config, stop, window, on_progress=on_progress)


def run_load(
    config: LoadConfig,
    stop: Stop | None = None,
    window: MeasuredWindow | None = None,
    on_answer: Callable[[str], object] | None = None,
    on_progress: Callable[[Progress], object] | None = None,
    on_ready: Callable[[], int | None] | None = None,
) -> LoadResult:
    """Runs one load to its end and returns what it found.

    `stop.request()` from any thread ends it early; what is in flight then counts as interrupted, or as timed out where
    the server had been silent for the client's timeout.
    `window` is announced as soon as all sockets are open, and closed when it is over, before the result is made.
    `on_answer` is called once on this thread, with "answered", "unanswered" (nothing came for a second; the run goes
    on) or "refused" (nothing listens on the port; the run goes on). `on_progress` is called on this thread, once a
    second since the start, and then since the end of the window.
    `on_ready` is called on this thread once all sockets are open, for several hosts to agree on a start, and may block.
    It returns that start on CLOCK_MONOTONIC of this machine, in ns, from which all times of the result count; or None
    to give up. A stop that is requested before the start leaves an empty result, as nothing is sent.
    Raises LoadError where the generator itself cannot run, where the start that it is given is past or more than ten
    minutes ahead, and where it is given up; nothing was sent then. Whatever the server does is part of the result.
    """
    measured = window or MeasuredWindow()

    def announce(start_ns: int) -> None:
        measured.announce(*config.window_ns(start_ns))

    with _refusals():
        outcome = _core.run_load(
            config, stop or Stop(), announce, lambda: measured.close(time.monotonic_ns()), on_answer,
            (lambda *counts: on_progress(Progress(*counts))) if on_progress else None, on_ready,
        )  # fmt: skip
    return LoadResult(
        figures=outcome.figures,
        transfers=_columns(outcome.transfers),
        intervals=_columns(outcome.intervals),
        latency_hlog=outcome.latency_hlog,
        faults=tuple(Fault(*fault) for fault in outcome.faults),
        errors=tuple(PeerError(*error) for error in outcome.errors),
        window_ns=measured.edges_ns,
        answered=outcome.answered,
        granted=outcome.granted,
        stopped=outcome.stopped,
        boots=_columns(outcome.boots or dict.fromkeys(_BOOTS if config.boots else (), b"")),
        served_misses=tuple(outcome.served_misses),
    )


def read_back(
    config: LoadConfig, uploads: LoadResult, stop: Stop | None = None, generator: LoadGenerator | None = None
) -> ReadBack:
    """Reads the files of all completed uploads from the server and compares every byte.

    `config` is what the uploads were made with, `generator` this machine's unless given. Raises LoadError where it
    cannot run.
    """
    files = np.unique(np.array(uploads.completed_numbers, np.int64) % (config.distinct_files or 1 << 62))
    if not files.size:
        return ReadBack(0, 0, 0, 0, ())
    transfers = int(files[-1]) + 1  # the generator counts from 0: files that never came to be are asked for as well
    concurrency = min(config.concurrency, transfers)
    asked = replace(
        config, operation="read", verify="full", transfers=transfers, duration_ns=None, warm_up_ns=0, rate_per_s=None,
        over_ns=None, shape=(), rows="all", concurrency=concurrency, workers=min(config.workers, concurrency),
        share=(0, 1, 1),
    )  # fmt: skip
    generator, stop = generator or LocalGenerator(), stop or Stop()
    result = generator.run(asked, stop)
    table = result.transfers
    ours, whole = np.isin(table["number"], files), table["outcome"] == OUTCOMES.index("completed")
    mismatches = int(result.figures.get("content_mismatches") or 0)
    if mismatches:  # files under the names of failed uploads are not for judging: they may be older than this load
        mismatches -= sum(_is_wrong(generator, asked, int(file), stop) for file in table["number"][~ours & whole])
    refused = table["error_code"][ours & ~whole]
    return ReadBack(
        files=files.size,
        compared=int(np.count_nonzero(ours & whole)),
        bytes=int(table["bytes"][ours & whole].sum()),
        mismatches=mismatches,
        errors=tuple(int(code) for code in np.unique(refused[refused >= 0])),
    )


def _is_wrong(generator: LoadGenerator, config: LoadConfig, file: int, stop: Stop) -> bool:
    """Whether this one file comes back otherwise than an upload would have made it."""
    with tempfile.TemporaryFile() as expected:  # without a name: kill -9 leaves nothing
        path = Path(f"/proc/self/fd/{expected.fileno()}")
        write_contents(path, config.seed, file, config.file_size_bytes)
        name = config.name.replace("{n}", str(file))
        one = replace(config, name=name, verify_against=path, transfers=1, concurrency=1, workers=1)
        return bool(generator.run(one, stop).figures.get("content_mismatches"))


def best_sockets(host: str) -> Sockets:
    """The cheaper arrangement that a server at this IP address allows: only IPv4 loopback can be shared."""
    address = ip_address(host)
    return "shared" if address.version == 4 and address.is_loopback else "per-transfer"


def in_network(config: LoadConfig, network: Network) -> LoadConfig:
    """The load through a server's own network. Shared sockets carry what rings can't.

    Raises LoadError for a configuration that no sockets carry.
    """
    sockets = config.sockets
    if sockets == "ring" and ring_refusal(config) is not None:
        sockets = "shared"
    return replace(
        config,
        sockets=sockets,
        allow_remote=True,
        network_fd=network.requests_fd,
        ring_interface=network.ring_interface,
        ring_mac=ROUTER_MAC,
        server_mac=SERVER_MAC,
        machines_network=machines_network(config.host, ring=sockets == "ring"),
    )


def machine_name(template: str, number: int) -> str:
    """The name that machine `number` asks for: the template with the machine's variables filled in."""
    return _core.machine_name(template, number)


def ring_refusal(config: LoadConfig) -> str | None:
    """Why a packet ring can't carry what this load asks for, in one line; None where it can.

    Raises LoadError for a configuration that no sockets carry.
    """
    with _refusals():
        return _core.ring_refusal(config)


@contextmanager
def _refusals() -> Iterator[None]:
    """What the native side refuses is a LoadError."""
    try:
        yield
    except (ValueError, OSError, OverflowError) as error:
        raise LoadError(str(error)) from error
    except TypeError as error:
        # When a field of the configuration does not fit: "... field LoadArguments.seed", why.
        raise LoadError(f"{str(error).splitlines()[0].rpartition('.')[2]}: {error.__cause__ or error}") from error


def write_contents(path: Path, seed: int, file: int, size: int) -> None:
    """Makes the file `path` with the `size` bytes f(seed, file, offset). Raises OSError."""
    _core.write_contents(path, seed, file, size)


def first_difference(path: Path, seed: int, file: int, size: int) -> int | None:
    """Offset of the first byte of `path` that is wrong, missing or too much; None if it is right. Raises OSError."""
    return _core.first_difference(path, seed, file, size)


def _columns(columns: dict[str, bytes]) -> dict[str, Column]:
    return {name: np.frombuffer(column, dtype="<i8") for name, column in columns.items()}
