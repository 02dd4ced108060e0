"""What conditions of this machine do to figures, measured by fixed amounts of work. Some milliseconds to seconds each.

Work that stands for the user space of a server (a hash), for its kernel side (datagrams over loopback), and for its
sleeps; what a receive buffer holds; what two equal loads differ by. Threads that are pinned are made for it and end
with it. It must never change a setting of the machine, judge what it measured, or send a datagram to another one.
"""

import contextlib
import hashlib
import math
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from tftpbench.host.choice import choose_manifest
from tftpbench.host.generator import LoadConfig, LoadResult, best_sockets, run_load, write_contents
from tftpbench.host.pinning import Pinning
from tftpbench.host.presence import Missing, locate
from tftpbench.host.roots import roots
from tftpbench.host.server import ServerProcess
from tftpbench.model.errors import TftpbenchError
from tftpbench.model.scenario import Scenario, from_document
from tftpbench.model.scenario_files import load_scenario

T = TypeVar("T")

LOOPBACK = "127.0.0.1"
# Hashing releases the GIL, so threads of it run in parallel; 64 KiB take 40 to 200 us.
_CHUNK = bytes(64 * 1024)
_USER_ROUNDS = 16
KERNEL_ROUNDS = 150
_DATAGRAM = bytes(516)  # a DATA of 512 bytes
_REQUEST = b"\x00\x01snponly.efi\x00octet\x00tsize\x000\x00blksize\x001468\x00"
# A calibration that others keep off its core for longer than this is extrapolated.
CALIBRATION_LIMIT_NS = 50_000_000
_SPIN_CORES_MAX = 8
_SLEEP_S = 100e-6
_TIMEOUT_S = 0.5
# linux/udp.h
_UDP_SEGMENT, _UDP_GRO = 103, 104
# Two-sided 95 % quantiles of Student's t for n - 1 degrees of freedom, of n = 5 to 12 pairs.
_T_95 = {5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262, 11: 2.228, 12: 2.201}
PAIRS = 10
# A machine on which loads take longer gets fewer of them.
_SELF_TEST_S = 2.5


class Calibration(NamedTuple):
    """How long fixed amounts of work took on the clock: a hash of 1 MiB, and 150 datagrams to itself. ns."""

    user_ns: int
    kernel_ns: int


def calibrate(cores: Sequence[int]) -> Calibration | None:
    """The same work each time, on these cores, as a server would be pinned. 5 to 100 ms; None where it can't run."""
    return on_cores(cores, lambda: Calibration(_timed(_hash, _USER_ROUNDS), _datagrams_ns()))


def _datagrams_ns() -> int:
    with _receiver() as one:
        address = one.getsockname()

        def exchange() -> None:
            one.sendto(_DATAGRAM, address)
            one.recv(1024)

        return _timed(exchange, KERNEL_ROUNDS)


def _hash() -> None:
    hashlib.sha256(_CHUNK).digest()


def _timed(work: Callable[[], object], rounds: int) -> int:
    """How long all rounds take on the clock, ns; where the limit comes first, by what was done until then."""
    began_ns = time.perf_counter_ns()
    for done in range(1, rounds + 1):
        work()
        taken_ns = time.perf_counter_ns() - began_ns
        if taken_ns > CALIBRATION_LIMIT_NS:
            return taken_ns * rounds // done
    return time.perf_counter_ns() - began_ns


def on_cores(cores: Sequence[int], work: Callable[[], T]) -> T | None:
    """What `work` returns in a thread of its own, pinned to these cores where that is allowed; None where it fails."""
    found: list[T] = []

    def run() -> None:
        with contextlib.suppress(OSError):
            if cores:
                os.sched_setaffinity(0, cores)  # of this thread alone (sched_setaffinity(2))
        with contextlib.suppress(OSError):
            found.append(work())

    thread = threading.Thread(target=run, name="tftpbench-effects")
    thread.start()
    thread.join()
    return found[0] if found else None


class Spun(NamedTuple):
    """What one thread got that wanted a core for itself: time on the clock, time on the core, hashes done."""

    wall_ns: int
    cpu_ns: int
    rounds: int

    @property
    def missing(self) -> float:
        """The share of the time for which it had no core."""
        return max(0.0, 1 - self.cpu_ns / self.wall_ns)


def spin(cores: Sequence[int | Sequence[int]], seconds: float) -> list[Spun]:
    """A thread for each entry, pinned to that core or those cores, all at once, each busy for so long."""
    found: list[Spun] = []
    limit_ns = int(seconds * 1e9)

    def work() -> Spun:
        began_ns, used_ns, rounds = time.perf_counter_ns(), time.thread_time_ns(), 0
        while (wall_ns := time.perf_counter_ns() - began_ns) < limit_ns:
            _hash()
            rounds += 1
        return Spun(max(1, wall_ns), time.thread_time_ns() - used_ns, rounds)

    def run(entry: int | Sequence[int]) -> None:
        spun = on_cores([entry] if isinstance(entry, int) else entry, work)
        if spun is not None:
            found.append(spun)

    threads = [threading.Thread(target=run, args=(entry,)) for entry in cores[:_SPIN_CORES_MAX]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def clock_ns() -> float:
    """What one reading of the clock costs, at best of five batches, with Python's call around it."""
    count, best = 2_000, math.inf
    for _ in range(5):
        began_ns = time.perf_counter_ns()
        for _ in range(count):
            time.monotonic_ns()
        best = min(best, (time.perf_counter_ns() - began_ns) / count)
    return best


class Spread(NamedTuple):
    """Of many times, in ns."""

    p50: float
    p99: float


def _spread(times_ns: Sequence[int]) -> Spread:
    ordered = sorted(times_ns)
    return Spread(ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)))])


def sleeps(seconds: float) -> Spread:
    """By how much sleeps of 100 us were too long, one after another for so long."""
    found: list[int] = []
    end_ns = time.perf_counter_ns() + int(seconds * 1e9)
    while not found or time.perf_counter_ns() < end_ns:
        began_ns = time.perf_counter_ns()
        time.sleep(_SLEEP_S)
        found.append(time.perf_counter_ns() - began_ns - int(_SLEEP_S * 1e9))
    return _spread(found)


def wakes(count: int) -> Spread:
    """From sending a datagram over loopback to a thread that sleeps, to its answer: half of that, which is one wake."""
    with _receiver() as near, _receiver() as far:

        def echo() -> None:
            with contextlib.suppress(OSError):
                for _ in range(count):
                    data, address = far.recvfrom(64)
                    far.sendto(data, address)

        thread = threading.Thread(target=echo, name="tftpbench-echo")
        thread.start()
        found, address = [], far.getsockname()
        try:
            for _ in range(count):
                began_ns = time.perf_counter_ns()
                near.sendto(b"x", address)
                near.recv(64)
                found.append((time.perf_counter_ns() - began_ns) // 2)
        finally:
            thread.join()
    return _spread(found)


class Held(NamedTuple):
    """Of a burst of requests that is not read: how many waited, of how many; and the buffer as the kernel counts."""

    requests: int
    sent: int
    buffer_bytes: int


def waiting_requests(sent: int, buffer_bytes: int | None = None) -> Held:
    """How many of a burst of requests a socket keeps whose program is busy. `buffer_bytes`: asked for, socket(7)."""
    with _receiver() as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        if buffer_bytes is not None:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, min(buffer_bytes, 2**30))
        client.connect(server.getsockname())
        for _ in range(sent):
            client.send(_REQUEST)
        server.setblocking(False)
        held = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                server.recv(64)
                held += 1
        return Held(held, sent, server.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))


class Segmented(NamedTuple):
    """What 32 datagrams cost in one call and in 32, ns; None where the kernel refuses it in one call."""

    one_call_ns: float | None
    many_calls_ns: float


def segments() -> Segmented:
    """UDP_SEGMENT (udp(7)): many datagrams as one message."""
    count, many, one = 32, math.inf, math.inf
    with _receiver() as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(server.getsockname())
        for _ in range(5):
            began_ns = time.perf_counter_ns()
            for _ in range(count):
                client.send(_DATAGRAM)
            many = min(many, time.perf_counter_ns() - began_ns)
            _emptied(server)
        try:
            client.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, len(_DATAGRAM))
            for _ in range(5):
                began_ns = time.perf_counter_ns()
                client.send(_DATAGRAM * count)
                one = min(one, time.perf_counter_ns() - began_ns)
                if _emptied(server) != count:
                    return Segmented(None, many)
        except OSError:
            return Segmented(None, many)
    return Segmented(one, many)


def gathers() -> bool:
    """Whether a window of datagrams arrives as one message where that is asked for (UDP_GRO, udp(7))."""
    with _receiver() as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        try:
            server.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
            client.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, len(_DATAGRAM))
            client.connect(server.getsockname())
            client.send(_DATAGRAM * 8)
            return len(server.recv(65_535)) == 8 * len(_DATAGRAM)
        except OSError:
            return False


def _emptied(server: socket.socket) -> int:
    count = 0
    server.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while server.recv(2048):
            count += 1
    server.settimeout(_TIMEOUT_S)
    return count


class Delivered(NamedTuple):
    """Of datagrams from so many addresses and ports of loopback, each a flow of its own."""

    sent: int
    arrived: int


def flows(count: int) -> Delivered:
    """Send a datagram from each of so many sockets, from two addresses of 127.0.0.0/8, and count what arrives."""
    with _receiver() as server:
        sent = 0
        for number in range(count):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, contextlib.suppress(OSError):
                client.bind((f"127.0.0.{1 + number % 2}", 0))
                client.sendto(_REQUEST, server.getsockname())
                sent += 1
        return Delivered(sent, _emptied(server))


def file_ms(folder: Path) -> float:
    """Milliseconds to write and read 20 files of 64 KiB in a folder that is gone afterwards. Raises OSError."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="tftpbench-doctor-", dir=folder) as place:
        began_ns = time.perf_counter_ns()
        for number in range(20):
            path = Path(place) / str(number)
            path.write_bytes(_CHUNK)
            path.read_bytes()
        return (time.perf_counter_ns() - began_ns) / 1e6


def _receiver() -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        found.bind((LOOPBACK, 0))
        found.settimeout(_TIMEOUT_S)
    except OSError:
        found.close()
        raise
    return found


@dataclass(frozen=True)
class SelfTest:
    """What this machine can show of the first bundled server.

    `differences`: ln of the ratio of two loads that were equal, of pairs one after the other. `boots_per_s`: machines
    that the generator and that server got up each second; None where none came up.
    """

    server: str
    differences: tuple[float, ...]
    profile: str
    boots_per_s: float | None

    @property
    def smallest_difference(self) -> float | None:
        """Half the 95 % interval of the mean of these pairs (Student's t), as a share: less can't be seen."""
        size = len(self.differences)
        if size not in _T_95:
            return None
        return math.expm1(_T_95[size] * statistics.stdev(self.differences) / math.sqrt(size))


def self_test(pinning: Pinning, profile: str, pairs: int = PAIRS) -> SelfTest:
    """Loads of 80 ms on the server that the scenario smoke names first, and machines for half a second.

    Raises TftpbenchError where server, profile or generator can't run here.
    """
    server = load_scenario("smoke").servers[0]
    lone = _scenario(server, {"operation": "read", "concurrency": 10, "file_size": "64KiB"})
    booting = _scenario(server, {"boot": profile, "concurrency": 32})
    rates = _loads(server, lone, pinning, [80_000_000] * (2 * pairs))
    boots = _loads(server, booting, pinning, [500_000_000])
    pps = [each.figures.get("data_pps") or 0.0 for each in rates]
    differences = tuple(math.log(b / a) for a, b in zip(pps[::2], pps[1::2], strict=False) if a > 0 and b > 0)
    figures = boots[0].figures
    booted, seconds = figures.get("booted"), figures.get("duration_s")
    return SelfTest(server, differences, profile, booted / seconds if booted and seconds else None)


def _scenario(server: str, matrix: dict[str, object]) -> Scenario:
    return from_document(
        {
            "schema": "tftpbench.scenario/1",
            "name": "doctor",
            "description": "The self-test.",
            "servers": [server],
            "matrix": matrix,
            "duration": "1s",
        },
        "the self-test",
    )


def _loads(server: str, scenario: Scenario, pinning: Pinning, windows_ns: Sequence[int]) -> list[LoadResult]:
    """One load after another on one fresh server, each in a window so long."""
    cell = scenario.cells()[0]
    manifest, variant = choose_manifest(server)
    here = locate(manifest, ask=False)
    if isinstance(here, Missing):
        raise TftpbenchError(f"{server}: {here.reason}")
    with roots([cell], 1, write_contents) as base, base.fresh(cell) as root:
        process = ServerProcess(
            manifest,
            root=root,
            log=base.base / "server.log",
            concurrency=2 * cell.concurrency,
            variant=variant,
            cpus=pinning.server,
        )
        with process:
            asked = LoadConfig(
                host=process.host,
                port=process.port,
                operation="read",
                name="" if cell.is_boots else "f-{n}",
                file_size_bytes=cell.file_size_bytes or 0,
                size_is_known=True,
                concurrency=cell.concurrency,
                distinct_files=cell.distinct_files,
                cpus=pinning.generator,
                verify="off",
                warm_up_ns=10_000_000,
                drain_ns=200_000_000,
                sockets=best_sockets(process.host),
                busy_poll_us=cell.client.busy_poll_us(own_cores=pinning.separate),
                boots=cell.shares,
            )
            found: list[LoadResult] = []
            end_s = time.monotonic() + _SELF_TEST_S
            for window_ns in windows_ns:
                if not found or time.monotonic() < end_s:
                    found.append(run_load(replace(asked, duration_ns=window_ns)))
            return found
