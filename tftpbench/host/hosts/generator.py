"""`HostsGenerator`: one load from several hosts, each with its share of the one schedule, all from the same start.

A load in order: who is there (`hello`, once), all open what they need (`prepare`), how far their clocks are from this
one (`clock`), one start in each host's own time (`go`), how they are, once a second (`poll`), what they found
(`collect`), and one result (merge.py). A host that is lost ends the load of all, and the result says so: another
host with its share would be another load. It must never send a share's load twice.
"""

import math
import queue
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar, get_args

from tftpbench.host.generator import LoadConfig, LoadResult, Progress, Stop
from tftpbench.host.hosts import calls, merge
from tftpbench.host.hosts.agent import requests
from tftpbench.host.hosts.calls import BadDocument, Call, Refused, Standing, State
from tftpbench.host.hosts.carrier import END_S, Carrier, HostLost, check_hello, ours
from tftpbench.host.hosts.clock import TRIPS_MAX, WITHIN_S, Offset, apart_ns
from tftpbench.host.hosts.servers import RemoteServerHost, Waits, knows_addresses, server_host
from tftpbench.host.machine import Fact
from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.model.errors import HostsError, LoadError, suggest
from tftpbench.model.escape import one_line
from tftpbench.model.strict import Strict
from tftpbench.model.units import counted

Answer = TypeVar("Answer", bound=Strict)
# Round trips to one host, fewer where all hosts together would have more than these.
_CLOCK_TRIPS_MIN, _CLOCK_TRIPS_ALL = 8, 3_200
# Hosts that are asked at a time, beside their polls: as many keep a scheduler busy, and more only wait there. Results
# are large. Clocks are read one by one as far as the way to a host allows, for a trip that waits tells little.
_AT_ONCE, _RESULTS_AT_ONCE, _CLOCKS_AT_ONCE = 64, 16, 2


@dataclass(frozen=True)
class Limits:
    """How long what may take; tests have shorter ones. In seconds.

    `lead_s`: from the `go` to the start. `poll_s`: between two looks at a host. `host_s`: for each host, what all its
    calls take of a way that they share: `lead_s` grows by that, and `poll_s` is no shorter than that of all. `keep_s`:
    how long an agent is left without a call while others are asked. `silence_s`: a host that has not
    answered for so long is lost. `call_s`: any other call. `prepare_s`: to open all that a load needs.
    `busy_s`: for the agent of a load whose coordinator is gone to end. `stop_s`: from a stop to the last result.
    `collect_s`: for a chunk of a result. `clock_s`: for the round trips of one measurement of a clock, `clocks_s`: of
    all clocks.
    """

    lead_s: float = 2.5
    poll_s: float = 1.0
    host_s: float = 0.004  # more than twice what a scheduler of Dask takes for a call (benches/hosts.py)
    keep_s: float = calls.POLL_LOST_S * 0.4
    silence_s: float = 3.0
    call_s: float = 10.0
    prepare_s: float = 60.0
    busy_s: float = calls.POLL_LOST_S + 5.0
    stop_s: float = 30.0
    collect_s: float = 60.0
    clock_s: float = WITHIN_S
    clocks_s: float = 30.0


class HostsGenerator:
    """The generators of several hosts as one, of all that the carrier has unless `hosts` names some.

    `weights`: of each host, equal ones unless given; 0 leaves one out.
    """

    def __init__(
        self,
        carrier: Carrier,
        weights: Sequence[int] = (),
        limits: Limits | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], object] = time.sleep,
        executor: Callable[[int], Executor] = ThreadPoolExecutor,
        hosts: Sequence[str] = (),
    ) -> None:
        hosts = tuple(hosts) or carrier.hosts
        weights = tuple(weights) or (1,) * len(hosts)
        if len(weights) != len(hosts) or min(weights, default=0) < 0 or not any(weights):
            raise HostsError(f"weights: {len(weights)} for {counted(len(hosts), 'load host')}; give one for each")
        common = math.gcd(*weights)
        if sum(weights) > calls.WEIGHTS_MAX * common:
            raise HostsError(f"weights: add up to {sum(weights)}; allowed: {calls.WEIGHTS_MAX} without a common factor")
        self.hosts = hosts
        """Their names; a row's `host` is a place here."""
        self._weights = tuple(weight // common for weight in weights)
        self._carrier, self._limits = carrier, limits or Limits()
        self._clock, self._sleep, self._executor = clock, sleep, executor
        self._greeted: dict[str, calls.Hello] = {}

    def taking(self, hosts: Sequence[str], weights: Sequence[int] = ()) -> "HostsGenerator":
        """The same with these hosts only, by their weights. Raises HostsError for one that is not among them."""
        if unknown := [host for host in hosts if host not in self.hosts]:
            raise HostsError(f"{one_line(unknown[0])}: is no load host{suggest(unknown[0], self.hosts)}")
        made = HostsGenerator(
            self._carrier, weights, self._limits, self._clock, self._sleep, self._executor, tuple(hosts)
        )
        made._greeted = {host: hello for host, hello in self._greeted.items() if host in hosts}
        return made

    def server_host(self, name: str) -> AbstractContextManager[RemoteServerHost]:
        """Another host of the carrier, on which servers are started for this load.

        Raises HostsError where it can't be used, UsageError where its address is one that a load host does not reach.
        """
        if not knows_addresses(self._carrier):
            raise HostsError(f"{name}: at what address it can be reached is not known")
        limits = self._limits
        waits = Waits(limits.poll_s, limits.silence_s, limits.call_s, limits.busy_s)
        return server_host(self._carrier, name, self.greet(), waits)

    @property
    def is_here(self) -> bool:
        """Whether all of them are in this network namespace of this machine: they reach what listens on its loopback.

        Raises HostsError as `greet` does.
        """
        there = {(hello.boot_id, hello.network) for hello in self.greet()}
        return there == {(ours().boot_id, ours().network)}

    @property
    def machines(self) -> tuple[Mapping[str, Fact], ...]:
        """The facts of the machine of each. Raises HostsError as `greet` does."""
        return tuple(hello.facts for hello in self.greet())

    def greet(self) -> tuple[calls.Hello, ...]:
        """What is on each host, asked for once.

        Raises HostsError for one that can't be reached, or whose tftpbench differs from this one.
        """
        talk = self._talk()
        asked = [host for host in self.hosts if host not in self._greeted]
        if asked:
            with self._pool(min(len(asked), _AT_ONCE)) as pool:
                said = _each(pool, talk.hello, asked)
            for host, hello in said.items():
                if isinstance(hello, Exception):
                    raise HostsError(f"{host}: can't be used as a load host: {_why(hello)}")
                self._greeted[host] = hello
        return tuple(self._greeted[host] for host in self.hosts)

    def run(
        self,
        config: LoadConfig,
        stop: Stop,
        window: MeasuredWindow | None = None,
        on_progress: Callable[[Progress], object] | None = None,
    ) -> LoadResult:
        """Run one load to its end on all hosts.

        Where a host is lost, the others are stopped, and the result has `hosts_lost`. Raises LoadError where a
        generator can't run as asked, HostsError where a host can't be used from the beginning.
        """
        measured = window or MeasuredWindow()
        try:
            self.greet()
            parts = split(config, self._weights)
            prepared = {self.hosts[number]: (part, calls.files_of(part)) for number, part in parts.items()}
            # For each host a thread for its poll, and one to end it meanwhile; and those of other calls.
            with self._pool(2 * len(prepared) + min(len(prepared), _AT_ONCE)) as pool:
                load = _Load(self._talk(), pool, self.hosts, config, prepared, self._sleep)
                try:
                    return load.run(stop, measured, on_progress)
                finally:
                    measured.close(self._clock())
                    load.end()
        finally:
            measured.close(self._clock())

    def _talk(self) -> "_Talk":
        return _Talk(self._carrier, secrets.token_hex(16), self._clock, self._limits)

    @contextmanager
    def _pool(self, threads: int) -> Iterator[Executor]:
        """Threads. Where this is left by an exception, calls that still wait are not waited for."""
        pool = self._executor(threads)
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()


def split(config: LoadConfig, weights: Sequence[int]) -> dict[int, LoadConfig]:
    """Each host's part of a load, by the host's number: together exactly what one host would do.

    A host that has nothing to start is left out. Raises LoadError.
    """
    if config.concurrency < 1 or config.workers < 1:
        raise LoadError("concurrency and workers: must be at least 1")
    taking = {number: weight for number, weight in enumerate(weights) if weight}
    while (slots := _split(config.concurrency, taking)) and 0 in slots.values():
        taking.pop(max(number for number, count in slots.items() if not count))
    of, found, first = sum(taking.values()), {}, 0
    bytes_per_s, rows = _split(config.bytes_per_s_max or 0, taking), _split(config.rows_max, taking)
    for number, weight in taking.items():
        if config.transfers is None or first < config.transfers:
            found[number] = replace(
                config,
                share=(first, weight, of),
                concurrency=slots[number],
                workers=min(config.workers, slots[number]),
                bytes_per_s_max=None if config.bytes_per_s_max is None else max(1, bytes_per_s[number]),
                rows_max=max(1, rows[number]),
            )
        first += weight
    if not found:
        raise LoadError("transfers: must be at least 1")
    return found


def _split(count: int, weights: Mapping[int, int]) -> dict[int, int]:
    """A number in parts by weight, which add up to it; the first ones get what is left over."""
    of = sum(weights.values())
    parts = {number: count * weight // of for number, weight in weights.items()}
    left = count - sum(parts.values())
    return {number: part + (place < left) for place, (number, part) in enumerate(parts.items())}


class _Talk:
    """Calls of one load: documents out and in, and no host's fault is more than HostLost."""

    def __init__(self, carrier: Carrier, load_id: str, clock: Callable[[], int], limits: Limits) -> None:
        self.clock, self.limits = clock, limits
        self.asked_ns: dict[str, int] = {}
        """When each host was asked last."""
        self._carrier, self._load_id = carrier, load_id

    def ask(
        self, host: str, call: Call, model: Strict, expected: type[Answer], timeout_s: float | None = None
    ) -> Answer:
        """The answer. Raises HostLost, or Refused where the host says no."""
        return self.ask_bytes(host, call, calls.packed(model), expected, timeout_s)[0]

    def ask_bytes(
        self, host: str, call: Call, document: bytes, expected: type[Answer], timeout_s: float | None = None
    ) -> tuple[Answer, memoryview]:
        """The same of a document that is made, with the bytes behind the answer."""
        self.asked_ns[host] = self.clock()
        try:
            answer = self._carrier.call(host, self._load_id, call, document, timeout_s or self.limits.call_s)
            return calls.unpacked(answer, expected)
        except BadDocument as error:
            raise HostLost(host, f"answered {call} with no document of ours: {error}") from None
        except Refused as refused:
            if refused.kind in ("load", "busy"):
                raise
            raise HostLost(host, refused.why) from None

    def hello(self, host: str) -> calls.Hello:
        """What is there. Raises HostLost, HostsError."""
        asked = calls.packed(calls.Done())
        return check_hello(host, self._carrier.call(host, self._load_id, "hello", asked, self.limits.call_s))

    def offset(self, host: str, trips_max: int, within_s: float) -> Offset:
        """How far the host's clock is from this one's. Raises HostLost, Refused."""

        def there() -> int:
            return self.ask(host, "clock", calls.Done(), calls.Clock, self.limits.silence_s).monotonic_ns

        return Offset.measured(there, self.clock, trips_max, within_s)


class _Load:
    """One load, from its first call to its last. `lost`: hosts and why, in the order in which they were lost."""

    def __init__(
        self,
        talk: _Talk,
        pool: Executor,
        hosts: tuple[str, ...],
        config: LoadConfig,
        parts: Mapping[str, tuple[LoadConfig, calls.Files]],
        sleep: Callable[[float], object],
    ) -> None:
        self._talk, self._pool, self._sleep = talk, pool, sleep
        self._hosts, self._config, self._parts = hosts, config, parts
        self._limits, self._clock = talk.limits, talk.clock
        self._standing: dict[str, Standing] = {}
        self._by_state: dict[State, set[str]] = {state: set() for state in get_args(State)}
        """The hosts that are not lost, by what they said last."""
        self._closed: dict[str, int] = {}
        self._braked = False
        self._polled: set[str] = set()
        """The hosts with a poll on its way."""
        self._idle: list[str] = []
        """Those whose poll has come back since all were looked at."""
        self._answers: queue.SimpleQueue[tuple[str, Future[Standing]]] = queue.SimpleQueue()
        self._agents: set[str] = set()
        """The hosts whose agent must hear something from time to time."""
        self._kept_ns = 0
        self._contents: tuple[bytes, ...] = ()
        self._ends: dict[str, Future[None]] = {}
        self._stops_sent: dict[str, int] = {}
        self._offsets: dict[str, Offset] = {}
        self._start_ns: int | None = None
        self._closed_ns: int | None = None
        self.lost: dict[str, str] = {}

    @property
    def there(self) -> list[str]:
        """The hosts that are not lost."""
        return [host for host in self._parts if host not in self.lost]

    def run(self, stop: Stop, window: MeasuredWindow, on_progress: Callable[[Progress], object] | None) -> LoadResult:
        """Do it; see `HostsGenerator.run`."""
        self._contents = self._read()
        self._all(self._prepare, _AT_ONCE, or_none=True)
        self._contents = ()
        self._await_ready(stop)
        if not self.lost and not requests(stop):
            self._offsets = self._measured()
        if self.lost or requests(stop):
            return self._named(merge.nothing(self._config, self._clock()))
        self._go(window)
        self._watch(stop, window, on_progress)
        after = self._measured()
        found = self._all(self._collect, _RESULTS_AT_ONCE)
        for host in found:  # they are not waited for
            self._end(host)
        return self._merged(found, after, window)

    def end(self) -> None:
        """End what is still there of it on every host, as far as it can be reached."""
        for host in self._parts:
            self._end(host)
        wait(self._ends.values())

    def _end(self, host: str) -> None:
        def end() -> None:
            with suppress(HostLost, Refused):
                self._talk.ask(host, "end", calls.Done(), calls.Done, self._limits.silence_s + END_S)

        if host not in self._ends:
            self._ends[host] = self._pool.submit(end)

    def _lose(self, host: str, why: object) -> None:
        """It is lost from now on; what it still does is ended at once, where that can be done."""
        if host not in self.lost:
            self.lost[host] = one_line(why)
            self._agents.discard(host)
            for hosts in self._by_state.values():
                hosts.discard(host)
            self._end(host)

    # Before the start --------------------------------------------------------------------------------------------

    def _prepare(self, host: str) -> None:
        """Send what its part needs, and the part; it says later that it is ready."""
        config, files = self._parts[host]
        until_ns = self._clock() + round(self._limits.busy_s * 1e9)
        document = calls.prepare(config, files)
        while True:
            try:
                for number, content in enumerate(self._contents):
                    for offset, part in calls.chunks(content):
                        chunk = calls.packed(calls.FileChunk(file=number, offset=offset), part)
                        self._talk.ask_bytes(host, "file", chunk, calls.Done, self._limits.collect_s)
                        self._agents.add(host)
                self._talk.ask_bytes(host, "prepare", document, calls.Done)
                self._agents.add(host)
            except Refused as refused:
                if refused.kind != "busy" or self._clock() >= until_ns:
                    raise
                self._sleep(min(0.5, self._limits.poll_s))  # the agent of a load that is gone ends by itself
            else:
                return

    def _read(self) -> tuple[bytes, ...]:
        """The files that travel, the same ones to each host. Raises LoadError."""
        files = next((files for _, files in self._parts.values()), calls.Files())
        try:
            return tuple(path.read_bytes() for path in files.paths)
        except OSError as error:
            raise LoadError(f"{error.filename}: can't be read: {error.strerror}") from None

    def _measured(self) -> dict[str, Offset]:
        """How far each host's clock is from this one's.

        The first trips say how long the way is: on a long one more hosts are asked while another's answer is under way.
        """
        limits, count = self._limits, len(self._parts)
        trips = min(TRIPS_MAX, max(_CLOCK_TRIPS_MIN, _CLOCK_TRIPS_ALL // count))
        found = self._all(partial(self._talk.offset, trips_max=trips, within_s=limits.clock_s), 1, self.there[:1])
        trip_s = 2e-9 * max((offset.error_ns for offset in found.values()), default=0)
        at_once = min(_AT_ONCE, max(_CLOCKS_AT_ONCE, round(trip_s / limits.host_s)))
        within_s = min(limits.clock_s, limits.clocks_s * at_once / count)
        ask = partial(self._talk.offset, trips_max=trips, within_s=within_s)
        return found | self._all(ask, at_once, [host for host in self.there if host not in found])

    def _await_ready(self, stop: Stop) -> None:
        """Until all have opened what they need, or one of them can't."""
        until_ns = self._clock() + round(self._limits.prepare_s * 1e9)

        def is_done() -> bool:
            if self._clock() >= until_ns:
                for host in self.there:
                    if host not in self._standing or self._standing[host].state == "opening":
                        self._lose(host, f"was not ready within {self._limits.prepare_s:.0f} s")
            if requests(stop) or self.lost or self._by_state["over"]:
                return True
            return len(self._by_state["ready"]) == len(self._parts)

        self._poll_until(is_done, lambda: None)
        self._refuse_problems()
        for host in self.there:
            standing = self._standing.get(host)
            if standing is not None and standing.state == "over" and not requests(stop):
                self._lose(host, "its load was over before it began")

    def _go(self, window: MeasuredWindow) -> None:
        """One start for all, in each host's own time."""
        lead_s = self._limits.lead_s + self._limits.host_s * len(self._parts)
        start_ns = self._start_ns = self._clock() + round(lead_s * 1e9)
        window.announce(*self._config.window_ns(start_ns))

        def go(host: str) -> None:
            asked = calls.Go(start_ns=self._offsets[host].there(start_ns))
            went = self._talk.ask(host, "go", asked, calls.Went, self._limits.silence_s)
            if not went.started:
                raise HostLost(host, f"did not start: {one_line(went.why)}")

        self._all(go, _AT_ONCE)

    # While it runs -----------------------------------------------------------------------------------------------

    def _watch(self, stop: Stop, window: MeasuredWindow, on_progress: Callable[[Progress], object] | None) -> None:
        """Until every host is over or lost: once a second how far they are, and at once when the window has closed."""
        next_ns = (self._start_ns or 0) + 10**9
        until_ns: int | None = None

        def is_done() -> bool:
            nonlocal until_ns
            self._close(window)
            asked = self._stops_asked(stop)
            if asked and until_ns is None:
                until_ns = self._clock() + round(self._limits.stop_s * 1e9)
            self._stop(asked)
            if until_ns is not None and self._clock() >= until_ns:
                for host in self.there:
                    if host not in self._by_state["over"]:
                        self._lose(host, f"did not end within {self._limits.stop_s:.0f} s")
            return len(self._by_state["over"]) + len(self.lost) == len(self._parts)

        def report() -> None:
            nonlocal next_ns
            if on_progress is None or self._clock() < next_ns:
                return
            if all(self._standing[host].progress or self._standing[host].state == "over" for host in self.there):
                next_ns += 10**9
                on_progress(self._progress())

        self._poll_until(is_done, report)
        self._close(window)
        self._refuse_problems()

    def _poll_until(self, is_done: Callable[[], bool], between: Callable[[], None]) -> None:
        """Look at each host again and again, each by itself: none waits for another's answer."""
        self._idle = self.there
        while not is_done():
            idle, self._idle = self._idle, []
            for host in idle:
                self._ask_poll(host, self._poll_s)
            self._take_answers(min(0.05, self._limits.poll_s))
            between()

    @property
    def _poll_s(self) -> float:
        """Between two looks at a host: no shorter than all hosts' calls take."""
        longest_s = max(self._limits.poll_s, 0.8 * calls.LONGEST_POLL_MS / 1e3)
        return min(longest_s, max(self._limits.poll_s, self._limits.host_s * len(self._parts)))

    def _ask_poll(self, host: str, wait_s: float) -> None:
        """Send a poll, unless one is under way."""
        if host not in self._polled and host not in self.lost:
            self._polled.add(host)
            sent = self._pool.submit(self._poll, host, wait_s)
            sent.add_done_callback(lambda answered: self._answers.put((host, answered)))

    def _take_answers(self, timeout_s: float = 0.0) -> None:
        """Take in what polls have brought: all that is there, or the first to come within this time."""
        with suppress(queue.Empty):
            while True:
                host, answered = self._answers.get(block=timeout_s > 0, timeout=timeout_s)
                timeout_s = 0.0
                self._polled.discard(host)
                self._idle.append(host)
                try:
                    self._take(host, answered.result())
                except (HostLost, Refused) as error:
                    self._lose(host, _why(error))

    def _take(self, host: str, standing: Standing) -> None:
        self._standing[host] = standing
        if standing.closed_ns is not None:
            self._closed[host] = standing.closed_ns
        if host not in self.lost:
            for state, hosts in self._by_state.items():
                (hosts.add if state == standing.state else hosts.discard)(host)
            self._braked |= standing.stopped is not None

    def _poll(self, host: str, wait_s: float) -> Standing:
        """What is new: at once where its state is, its progress when that is worth a call."""
        known = self._standing.get(host, Standing(state="opening"))
        seen_ns = known.counters.elapsed_ns if known.counters else 0
        asked = calls.Poll(
            state=known.state,
            closed=known.closed_ns is not None,
            elapsed_ns=seen_ns + max(0, round((wait_s - self._limits.poll_s) * 1e9)),
            wait_ms=round(wait_s * 1e3),
        )
        longest_s = max(self._limits.silence_s, wait_s, wait_s - self._limits.poll_s + self._limits.silence_s)
        return self._talk.ask(host, "poll", asked, Standing, longest_s if wait_s else self._limits.call_s)

    def _stops_asked(self, stop: Stop) -> int:
        """How often all are to be asked to stop: at once where one is lost, or was ended by its brake."""
        ended_early = bool(self._by_state["over"]) and self._braked
        return 2 if self.lost else max(min(requests(stop), 2), int(ended_early))

    def _stop(self, asked: int) -> None:
        if not asked:
            return
        if hosts := [host for host in self.there if self._stops_sent.get(host, 0) < asked]:
            model = calls.StopAsked(requests=asked)
            ask = partial(self._talk.ask, call="stop", model=model, expected=calls.Done)
            self._all(partial(ask, timeout_s=self._limits.silence_s), _AT_ONCE, hosts)
            self._stops_sent |= dict.fromkeys(hosts, asked)

    def _close(self, window: MeasuredWindow) -> None:
        """Close the window when it has closed on every host, at the last one's time."""
        if self._closed_ns is None and len(self._closed) == len(self._parts):
            last_ns = max(self._offsets[host].here(closed_ns) for host, closed_ns in self._closed.items())
            self._closed_ns = min(self._clock(), last_ns)
            window.close(self._closed_ns)

    def _progress(self) -> Progress:
        """How far all of them are."""
        each = [known for standing in self._standing.values() if (known := standing.counters) is not None]
        elapsed_ns = max((known.elapsed_ns for known in each), default=0)
        counts = [sum(part) for part in zip(*(known[2:] for known in each), strict=True)]
        draining_ns = None if self._closed_ns is None else self._clock() - self._closed_ns
        return Progress(elapsed_ns, draining_ns, *(counts or [0] * 8))

    # After it ----------------------------------------------------------------------------------------------------

    def _collect(self, host: str) -> calls.Returned:
        """Its result, chunk by chunk."""
        content, total = bytearray(), 1
        while len(content) < total:
            asked = calls.packed(calls.Collect(offset=len(content), bytes_max=calls.CHUNK_MAX_BYTES))
            chunk, part = self._talk.ask_bytes(host, "collect", asked, calls.Chunk, self._limits.collect_s)
            expected = min(calls.CHUNK_MAX_BYTES, chunk.total - len(content))
            if (content and chunk.total != total) or len(part) != expected:
                raise HostLost(host, f"sent {len(part)} bytes of its result, not {expected}")
            total = chunk.total
            content += part
        self._agents.discard(host)
        try:
            return calls.result_of(content, self._parts[host][0])
        except BadDocument as error:
            raise HostLost(host, f"sent a result that is none of ours: {error}") from None

    def _merged(
        self, found: Mapping[str, calls.Returned], after: Mapping[str, Offset], window: MeasuredWindow
    ) -> LoadResult:
        numbers = {host: number for number, host in enumerate(self._hosts)}
        window.close(self._clock())
        parts = [merge.Part(numbers[host], self._parts[host][0], returned) for host, returned in found.items()]
        while parts:
            try:
                several = len(self._parts) > 1
                result = merge.merge(self._config, parts, self._start_ns or 0, window.edges_ns, of_several=several)
                break
            except merge.Unmergeable as error:
                self._lose(self._hosts[error.host], error.why)
                parts = [part for part in parts if part.host != error.host]
        else:
            result = replace(merge.nothing(self._config, self._start_ns or 0), window_ns=window.edges_ns)
        errors = {numbers[host]: apart_ns(before, after.get(host)) for host, before in self._offsets.items()}
        spread_ns = merge.start_spread_ns(parts, errors)
        figures = {"clock_error_ns_max": max(errors.values()), "start_spread_ns": spread_ns}
        return self._named(replace(result, figures={**result.figures, **figures}))

    def _named(self, result: LoadResult) -> LoadResult:
        """With how many hosts it was, and which were lost."""
        lost = "; ".join(f"{host}: {one_line(why)}" for host, why in self.lost.items()) or None
        stopped = f"load host lost: {lost}" if lost else result.stopped
        figures = {**result.figures, "load_hosts": len(self._parts)}
        return replace(result, figures=figures, hosts_lost=lost, stopped=stopped)

    def _all(
        self, ask: Callable[[str], "Value"], at_once: int, hosts: Sequence[str] | None = None, *, or_none: bool = False
    ) -> "dict[str, Value]":
        """What all of them answer, so many at once; who does not is lost from now on. Raises LoadError.

        Agents of hosts that wait for their turn, or for others, are polled. `or_none`: where one is lost, those that
        have not been asked are not asked any more.
        """
        left = deque(self.there if hosts is None else hosts)
        asked: dict[Future[Value], str] = {}
        found: dict[str, Value] = {}
        while asked or (left and not (or_none and self.lost)):
            while left and len(asked) < at_once:
                host = left.popleft()
                asked[self._pool.submit(ask, host)] = host
            ended, _ = wait(asked, timeout=min(0.5, self._limits.keep_s), return_when=FIRST_COMPLETED)
            for future in ended:
                host = asked.pop(future)
                try:
                    found[host] = future.result()
                except (HostLost, Refused) as error:
                    if isinstance(error, Refused) and error.kind == "load":
                        raise LoadError(f"{host}: {error.why}") from None
                    self._lose(host, _why(error))
            self._keep()
        return {host: found[host] for host in self._parts if host in found}

    def _keep(self) -> None:
        """Poll the agents that have not heard anything for long; they would end by themselves."""
        self._take_answers()
        now_ns, keep_ns = self._clock(), round(self._limits.keep_s * 1e9)
        if now_ns - self._kept_ns < keep_ns // 8:  # looking at each of many hosts takes time, too
            return
        self._kept_ns = now_ns
        for host in tuple(self._agents):
            if self._talk.asked_ns[host] <= now_ns - keep_ns:
                self._ask_poll(host, 0)

    def _refuse_problems(self) -> None:
        """A generator that can't run is an error as it is on one host; any other problem loses the host."""
        for host, standing in self._standing.items():
            problem = standing.problem
            if problem is None or host in self.lost:
                continue
            if problem.error == "load" and not self._stops_sent.get(host):
                raise LoadError(f"{host}: {one_line(problem.why)}")
            self._lose(host, problem.why)


Value = TypeVar("Value")


def _each(pool: Executor, ask: Callable[[str], Value], hosts: Sequence[str]) -> dict[str, Value | Exception]:
    """What each answers, all at once; HostLost and Refused as values."""
    futures = {host: pool.submit(partial(ask, host)) for host in hosts}
    found: dict[str, Value | Exception] = {}
    for host, future in futures.items():
        try:
            found[host] = future.result()
        except (HostLost, Refused) as error:
            found[host] = error
    return found


def _why(error: Exception) -> str:
    return one_line(error.why if isinstance(error, (HostLost, Refused)) else error)
