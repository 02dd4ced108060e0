"""`RemoteServerHost`: a host of the cluster on which servers under test are started, in the place of this machine.

Its agent (server_agent.py) does there what `LocalServerHost` does here; this sends it short questions. Contents are
made there from their seed, and uploads compared there: neither travels. A time of the window is translated by the
offset between the two clocks, which is measured before and after. A thread asks once a second how the server is, so
that the agent knows that this process lives. It must never judge a server.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Self, TypeGuard, TypeVar

from tftpbench.host.effects import Calibration
from tftpbench.host.hosts import calls, server_agent
from tftpbench.host.hosts.calls import BadDocument, Call, Hello, Refused
from tftpbench.host.hosts.carrier import Carrier, HostLost, ServerCarrier, check_hello
from tftpbench.host.hosts.clock import Offset, apart_ns
from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.host.presence import Found, Missing
from tftpbench.host.roots import RootPlan, room_needed_bytes, root_plan
from tftpbench.host.server import (
    STOP_GRACE_S,
    Buffers,
    Ended,
    PortTaken,
    Samples,
    TemporaryFolder,
    UdpCounts,
    Usage,
)
from tftpbench.host.server_host import Stored
from tftpbench.model.errors import HostsError, ServerDied, ServerError, ServerHostLost, ServerNotReady, UsageError
from tftpbench.model.escape import one_line
from tftpbench.model.manifest import BUNDLED, Manifest
from tftpbench.model.strict import Strict
from tftpbench.model.workload import Cell

Answer = TypeVar("Answer", bound=Strict)
# A start is three attempts of READY_TIMEOUT_S at most, each with the ends of processes.
START_S = 90.0
# Contents of many GiB are written, or compared.
FILES_S = 600.0
# So much of uploads is compared in one call.
COMPARED_BYTES = 1 << 30
# Of a folder there, whose real path is no matter of this machine.
_ROOT = Path("/the/server's/host")
_KINDS: Mapping[str, type[ServerError]] = {"not_ready": ServerNotReady, "died": ServerDied, "port_taken": PortTaken}


@dataclass(frozen=True)
class Waits:
    """Times in seconds: between two looks at a host, until one that does not answer a look is lost, for other calls.

    `busy_s`: for the agent of a run that is gone to end.
    """

    poll_s: float = 1.0
    silence_s: float = 3.0
    call_s: float = 10.0
    busy_s: float = calls.POLL_LOST_S + 5.0


def knows_addresses(carrier: Carrier) -> TypeGuard[ServerCarrier]:
    """Whether it knows where servers on its hosts can be reached."""
    return hasattr(carrier, "reached_at")


@contextmanager
def server_host(
    carrier: ServerCarrier, name: str, load_hosts: Sequence[Hello], waits: Waits
) -> Iterator["RemoteServerHost"]:
    """The host of this name; its agent, and so all that it started, has ended afterwards.

    `load_hosts`: what is on those that will load it. Raises HostsError where it can't be used, UsageError where they
    don't reach it.
    """
    host = RemoteServerHost(carrier, name, waits)
    hello = host.hello()
    elsewhere = {(each.boot_id, each.network) for each in load_hosts} - {(hello.boot_id, hello.network)}
    if ip_address(host.address).is_loopback and elsewhere:
        raise UsageError(
            f"{name} is known by the address {host.address}, which load hosts on other machines do not reach; "
            "allowed: a worker with an address that they reach (--host)"
        )
    try:
        host.open()
        yield host
    finally:
        host.close()


class RemoteServerHost:
    """See `OtherServerHost`; between `open` and `close`."""

    def __init__(self, carrier: ServerCarrier, name: str, waits: Waits) -> None:
        self.name, self.address = name, carrier.reached_at(name)
        self.cores: tuple[int, ...] = ()
        self.machine: Mapping[str, str | int | float | bool | None] = {}
        self.on_death: Callable[[], object] = lambda: None
        """Called on a thread of its own when no process of a watched server is left, or the host is lost."""
        self._carrier, self._waits, self._id = carrier, waits, secrets.token_hex(16)
        self._lost: str | None = None
        self._ended = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="tftpbench-server-host", daemon=True)

    def hello(self) -> Hello:
        """What is there. Raises HostsError where it can't be reached, or has another tftpbench."""
        try:
            asked = calls.packed(calls.Done())
            return check_hello(self.name, self._carrier.call(self.name, self._id, "hello", asked, self._waits.call_s))
        except HostLost as error:
            raise HostsError(f"{self.name}: can't be used as a server's host: {one_line(error.why)}") from None

    def open(self) -> None:
        """Start its agent. Raises HostsError where it can't be used."""
        until_s = time.monotonic() + self._waits.busy_s
        while True:
            try:
                opened, _ = self._ask("open", calls.Done(), server_agent.Opened, START_S)
                break
            except Refused as refused:
                if refused.kind != "busy" or time.monotonic() >= until_s:
                    raise HostsError(f"{self.name}: can't be used as a server's host: {refused}") from None
            except ServerHostLost as error:
                raise HostsError(f"{error}; it can't be used as a server's host") from None
            self._ended.wait(min(0.5, self._waits.poll_s))  # the agent of a run that is gone ends by itself
        self.cores = opened.cores
        self.machine = {
            one_line(name): one_line(fact) if isinstance(fact, str) else fact for name, fact in opened.machine.items()
        }
        self._poller.start()

    def close(self) -> None:
        """End its agent, as far as it can be reached."""
        self._ended.set()
        if self._poller.is_alive():
            self._poller.join()
        with contextlib.suppress(ServerHostLost, Refused):
            self._ask("end", calls.Done(), calls.Done)

    def ask(
        self, call: Call, model: Strict, expected: type[Answer], timeout_s: float | None = None
    ) -> tuple[Answer, memoryview]:
        """The answer, and the bytes behind it. Raises ServerHostLost, and what a server's own methods raise."""
        try:
            return self._ask(call, model, expected, timeout_s)
        except Refused as refused:
            raise _KINDS.get(refused.kind, ServerError)(one_line(refused.why)) from None

    def offset(self) -> Offset:
        """How far its clock is from this one's. Raises ServerHostLost."""

        def there() -> int:
            return self.ask("clock", calls.Done(), calls.Clock, self._waits.silence_s)[0].monotonic_ns

        return Offset.measured(there, time.monotonic_ns)

    def _ask(
        self, call: Call, model: Strict, expected: type[Answer], timeout_s: float | None = None
    ) -> tuple[Answer, memoryview]:
        """The answer. Raises ServerHostLost from the first on that is none, and Refused where the host says no."""
        if self._lost is None:
            try:
                document, timeout_s = calls.packed(model), timeout_s or self._waits.call_s
                return calls.unpacked(self._carrier.call(self.name, self._id, call, document, timeout_s), expected)
            except HostLost as error:
                self._lost = one_line(error.why)
            except HostsError as error:  # of the carrier itself
                self._lost = one_line(error)
            except BadDocument as error:
                self._lost = one_line(f"answered {call} with no document of ours: {error}")
            except Refused as refused:
                if refused.kind not in calls.FAULTS:
                    raise
                self._lost = one_line(refused.why)
        raise ServerHostLost(f"{self.name}: {self._lost}")

    def _poll(self) -> None:
        """Ask how the server is, so that the agent knows that it is not alone."""
        has_died = False
        while not self._ended.wait(self._waits.poll_s):
            try:
                died = self.ask("poll", calls.Done(), server_agent.Standing, self._waits.silence_s)[0].died
            except ServerError:
                self.on_death()
                return
            if died and not has_died:
                self.on_death()
            has_died = died

    # What a runner asks ------------------------------------------------------------------------------------------

    def locate(self, server: Manifest) -> Found | Missing:
        """Whether the server is there and can be started now; see `presence.locate`."""
        asked = server_agent.Look(wanted=_wanted(server), address=self.address)
        found, _ = self.ask("look", asked, server_agent.Looked, START_S)
        if found.reason is not None:
            return Missing(f"on {self.name}: {one_line(found.reason)}", one_line(found.get))
        return Found(one_line(found.version), one_line(found.executable))

    @contextmanager
    def roots(self, cells: Sequence[Cell], seed: int) -> Iterator["_Roots"]:
        """Folders there."""
        asked = server_agent.Room(seed=seed, needed_bytes=min(room_needed_bytes(cells), calls.INT_MAX))
        with TemporaryFolder("tftpbench-server-host-") as folder:
            try:
                made, _ = self.ask("room", asked, server_agent.RoomMade)
            except ServerHostLost:
                raise
            except ServerError as error:
                raise UsageError(f"{self.name}: {error}") from None
            facts = {"path": one_line(made.path), "file_system": one_line(made.file_system)}
            yield _Roots(self, folder.path, facts)

    def server(
        self,
        manifest: Manifest,
        *,
        root: Path,
        log: Path,
        host: str,
        concurrency: int,
        write: bool,
        variant: str | None,
        cpus: Sequence[int],
        in_network: bool = False,
    ) -> "RemoteServer":
        """A server of the manifest on the last root, not yet started; its log comes back to `log`."""
        assert root == _ROOT
        assert not in_network, "a scenario with both is refused"
        asked = server_agent.Start(
            wanted=_wanted(manifest), address=host, concurrency=concurrency, write=write, variant=variant,
            cpus=tuple(cpus),
        )  # fmt: skip
        return RemoteServer(self, asked, log)

    def wrong(self, uploads: Sequence[Stored], seed: int) -> list[Stored]:
        """Those that do not hold what they must there, or are absent; `seed` is that of its roots."""
        del seed
        found: list[Stored] = []
        for part in _parts(uploads):
            files = tuple((each.path.relative_to(_ROOT).as_posix(), each.number, each.size_bytes) for each in part)
            wrong, _ = self.ask("compare", server_agent.Compare(files=files), server_agent.Wrong, FILES_S)
            found += [part[place] for place in wrong.places if place < len(part)]
        return found

    def udp_drops(self) -> int | None:
        """Datagrams dropped at all its UDP sockets so far; None where it does not say."""
        return self._counts(()).udp_drops

    def stolen_ticks(self, cores: Sequence[int]) -> tuple[int, int]:
        """Ticks that its hypervisor took from the cores, and all their ticks so far."""
        return self._counts(cores).stolen_ticks

    def waited_ns(self) -> tuple[int | None, int | None]:
        """Pressure and throttling there so far."""
        counts = self._counts(())
        return counts.pressure_ns, counts.throttled_ns

    def calibrate(self, cores: Sequence[int]) -> Calibration | None:
        """How long fixed work takes there."""
        asked = server_agent.Cores(cores=tuple(cores))
        found, _ = self.ask("calibrate", asked, server_agent.Calibrated)
        if found.user_ns is None or found.kernel_ns is None:
            return None
        return Calibration(found.user_ns, found.kernel_ns)

    def _counts(self, cores: Sequence[int]) -> server_agent.Counts:
        return self.ask("counts", server_agent.Cores(cores=tuple(cores)), server_agent.Counts)[0]


class _Roots:
    """Folders there, one at a time. `base`: a folder here."""

    def __init__(self, host: RemoteServerHost, base: Path, facts: Mapping[str, str]) -> None:
        self.base, self.facts = base, facts
        self._host = host

    @contextmanager
    def fresh(self, cell: Cell, *, empty: bool = False) -> Iterator[Path]:
        """A root for the cell there; its path is for methods of the host and its servers."""
        plan = root_plan(cell, empty=empty)
        try:
            self._host.ask("root", _root(plan), calls.Done, FILES_S)
        except ServerHostLost:
            raise
        except ServerError as error:
            raise UsageError(
                f"{self._host.name}: the files of {cell.label} can't be written: {error}; free some space there"
            ) from None
        try:
            yield _ROOT
        finally:
            with contextlib.suppress(ServerHostLost):
                self._host.ask("clear", calls.Done(), calls.Done, FILES_S)


class RemoteServer:
    """One server there; see the protocol `Server`. Its methods raise ServerHostLost."""

    network = None

    def __init__(self, host: RemoteServerHost, asked: server_agent.Start, log: Path) -> None:
        self.host, self.port = asked.address, 0
        self.buffers: Buffers | None = None
        self._host, self._asked, self._log = host, asked, log

    def start(self) -> None:
        """Start it and wait for its first answer. Raises ServerNotReady or ServerDied."""
        try:
            started, _ = self._host.ask("start", self._asked, server_agent.Started, START_S)
        except ServerError:
            self._keep_log()
            raise
        self.port = started.port
        self.buffers = Buffers(*started.buffers) if started.buffers else None

    def usage(self) -> Usage:
        """What it uses now; by the clock there."""
        return server_agent.usage_of(self._host.ask("usage", calls.Done(), server_agent.UsageThere)[0])

    def udp_counts(self) -> UdpCounts | None:
        """None: it has no network of its own."""
        return None

    def strays(self) -> int | None:
        """None: it has no network of its own."""
        return None

    def answers(self, timeout_s: float, on_silence: Callable[[float], object] = lambda _: None) -> bool:
        """Whether it answers a new request on its own host in time."""
        del on_silence  # is for running servers, which may be waited for long
        asked = server_agent.Ask(timeout_ms=min(round(timeout_s * 1e3), server_agent.ANSWER_MAX_MS))
        return self._host.ask("answers", asked, server_agent.Answers, timeout_s + START_S)[0].answers

    def edges(self, window: MeasuredWindow, cpus: Iterable[int] = ()) -> "RemoteEdges":
        """A context manager that has CPU time read there where the window opens and closes."""
        return RemoteEdges(self._host, window, tuple(cpus))

    def sampler(self, cpus: Iterable[int] = (), on_death: Callable[[], object] = lambda: None) -> "_RemoteSampling":
        """A context manager that has it looked at there. `on_death` is called where the host is lost, too."""
        return _RemoteSampling(self._host, tuple(cpus), on_death)

    def check_alive(self) -> None:
        """Raises ServerDied once none of its processes is left."""
        try:
            self._host.ask("alive", calls.Done(), calls.Done)
        except ServerDied:
            self._keep_log()
            raise

    def stop(self, grace_s: float = STOP_GRACE_S) -> Ended:
        """End it; how it ended."""
        stopped, _ = self._host.ask("stop", server_agent.Stop(grace_ms=round(grace_s * 1e3)), server_agent.Stopped,
                                    START_S)  # fmt: skip
        self._keep_log()
        return Ended(stopped.exit_code, stopped.signal and one_line(stopped.signal), stopped.left_over)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ServerHostLost):  # the server ends with it
            self.stop(STOP_GRACE_S if kind is None else 0)

    def _keep_log(self) -> None:
        with contextlib.suppress(ServerHostLost):
            _, content = self._host.ask("log", calls.Done(), calls.Done)
            self._log.write_bytes(content[-server_agent.LOG_MAX_BYTES :])


class RemoteEdges:
    """Readings there where a window of this machine's time opens and closes; `opened` and `closed` by its clock."""

    def __init__(self, host: RemoteServerHost, window: MeasuredWindow, cpus: tuple[int, ...]) -> None:
        self.opened = self.closed = Usage(0)
        self.clock_error_ns: int | None = None
        self._host, self._window, self._cpus = host, window, cpus
        self._before = Offset(0, 0)
        self._read: server_agent.Read | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._kept, name="tftpbench-edges", daemon=True)

    def late_ns(self, edges_ns: tuple[int, int]) -> int:
        """How late the later reading was, for a window that opened and closed then."""
        opened_ns, closed_ns = map(self._before.there, edges_ns)
        return max(0, self.opened.at_ns - opened_ns, self.closed.at_ns - closed_ns)

    def __enter__(self) -> Self:
        self._before = self._host.offset()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._window.close(time.monotonic_ns())
        self._thread.join()
        if error is not None:
            return
        if self._failure is not None:
            raise self._failure
        assert self._read is not None
        self.opened, self.closed = map(server_agent.usage_of, (self._read.opened, self._read.closed))
        self.clock_error_ns = apart_ns(self._before, self._host.offset())

    def _kept(self) -> None:
        """What goes wrong in a thread would end in a traceback beside a trial without figures."""
        try:
            self._follow()
        except BaseException as error:
            self._failure = error

    def _follow(self) -> None:
        """Say when it opens as soon as that is known, and that it is over when it is."""
        now_ns = time.monotonic_ns()
        open_ns, close_ns = self._window.wait_announced() or (now_ns, now_ns)
        there = self._before.there
        asked = server_agent.Window(
            open_ns=max(0, there(open_ns)), close_ns=None if close_ns is None else max(0, there(close_ns)),
            cpus=self._cpus,
        )  # fmt: skip
        self._host.ask("window", asked, calls.Done)
        self._window.wait_open()
        self._window.wait_close()
        over = server_agent.Close(at_ns=max(0, there(time.monotonic_ns() if close_ns is None else close_ns)))
        self._read, _ = self._host.ask("close", over, server_agent.Read)


class _RemoteSampling:
    """Looks there while its `with` block runs."""

    def __init__(self, host: RemoteServerHost, cpus: tuple[int, ...], on_death: Callable[[], object]) -> None:
        self.samples = Samples()
        self._host, self._cpus, self._on_death = host, cpus, on_death

    def __enter__(self) -> Self:
        self._host.ask("sample", server_agent.Watch(cpus=self._cpus), calls.Done)
        self._host.on_death = self._on_death
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._host.on_death = lambda: None
        try:
            there, _ = self._host.ask("sampled", calls.Done(), server_agent.SamplesThere)
        except ServerHostLost:
            if error is None:
                raise
        else:
            self.samples = server_agent.samples_of(there)


def _wanted(manifest: Manifest) -> server_agent.Wanted:
    """Which one is meant. Raises UsageError where its file is not to be read."""
    bundled, source = BUNDLED.resolve(), manifest.source
    is_bundled = source.is_relative_to(bundled)
    try:
        digest = server_agent.digest(source)
    except OSError as error:
        raise UsageError(f"{source}: {error.strerror}") from None
    path = source.relative_to(bundled) if is_bundled else source
    return server_agent.Wanted(is_bundled=is_bundled, path=str(path), digest=digest)


def _root(plan: RootPlan) -> server_agent.Root:
    files = tuple((tuple(file.names), file.number, file.size_bytes) for file in plan.files)
    names = len(plan.uploads) + sum(len(file.names) for file in plan.files)
    if names > server_agent.NAMES_MAX:
        raise UsageError(f"{names} names are too many for another host; allowed: {server_agent.NAMES_MAX}")
    return server_agent.Root(files=files, uploads=plan.uploads, mode=0o777 if plan.mode == 0o777 else 0o755)


def _parts(uploads: Sequence[Stored]) -> Iterator[Sequence[Stored]]:
    """As many as one call compares."""
    first, size = 0, 0
    for place, each in enumerate(uploads):
        if place > first and (place - first == server_agent.UPLOADS_MAX or size + each.size_bytes > COMPARED_BYTES):
            yield uploads[first:place]
            first, size = place, 0
        size += each.size_bytes
    if first < len(uploads):
        yield uploads[first:]
