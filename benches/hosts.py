"""What 10, 100 and 1,000 load hosts cost the coordinator, and what a call to one costs over Dask.

    python -m benches.hosts [--hosts 10 100 1000] [--seconds N] [--rows N] [--repeats N]
    python -m benches.hosts --dask [--hosts 10 50]

The coordinator is the real one. Its hosts load nothing: each is an object that answers every call as an agent does, a
progress each second and in the end a result with histograms of thousands of buckets, a row for each transfer and an
interval for each 100 ms. Without --dask they are in this process, and calls take no time on the way: what is measured
is the coordinator's own work. With it they are Dask's own workers behind its own scheduler, with certificates, all on
this machine; the hosts share its cores with the coordinator, so that times are longer than with hosts apart.

Each row is of a process of its own. CPU time is that of all threads, less what the hosts in it took; medians, with the
lowest and the highest, of the repeats.
"""

import argparse
import asyncio
import contextvars
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

from tftpbench.host.generator import LoadConfig, LoadResult, Stop
from tftpbench.host.hosts import calls, carrier
from tftpbench.host.hosts.carrier import Carrier
from tftpbench.host.hosts.generator import HostsGenerator
from tftpbench.model.errors import TftpbenchError
from tftpbench.model.metrics import ACROSS_HOSTS, OUTCOMES

SECOND = 1_000_000_000
KINDS = ("block_rtt", "transfer", "first_response", "response", "service")
SAMPLES, LOGS = 10_000, 4  # of a histogram, and how many unlike logs there are
RATE_PER_S = 100_000.0  # of all hosts together
# As the load goes: the calls that each of its parts has.
PARTS = {"prepare": ("prepare", 0), "clock": ("clock", 0), "go": ("go", 1), "poll": ("poll", 1), "clock again":
         ("clock", 1), "collect": ("collect", 1)}  # fmt: skip
_WORKER: contextvars.ContextVar[str] = contextvars.ContextVar("worker")


def main() -> int:
    """Print a table for each number of hosts, or be one of its processes."""
    parser = argparse.ArgumentParser(prog="python -m benches.hosts", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, nargs="+", help="how many (default: 10 100 1000, with --dask 10 50)")
    parser.add_argument("--seconds", type=int, default=10, help="of the load (default: 10)")
    parser.add_argument("--rows", type=int, default=1_000, help="transfers of each host (default: 1,000)")
    parser.add_argument("--repeats", type=int, default=3, help="how often (default: 3)")
    parser.add_argument("--dask", action="store_true", help="over Dask on this machine")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--workers", nargs=5, help=argparse.SUPPRESS)  # the arguments of work()
    asked = parser.parse_args()
    if asked.workers:
        asyncio.run(work(*asked.workers))
    elif asked.one:
        hosts = asked.hosts[0]
        with over_dask(hosts, asked.rows) if asked.dask else in_process(hosts, asked.rows) as counted:
            sys.stdout.write(json.dumps(measured(counted, asked.seconds)))
    else:
        for hosts in asked.hosts or ([10, 50] if asked.dask else [10, 100, 1_000]):
            words = ["--one", "--hosts", hosts, "--seconds", asked.seconds, "--rows", asked.rows]
            command = [sys.executable, "-m", "benches.hosts", *map(str, words), *(["--dask"] if asked.dask else [])]
            found = [json.loads(subprocess.check_output(command)) for _ in range(asked.repeats)]
            sys.stdout.write(table(hosts, found))
            sys.stdout.flush()
    return 0


def table(hosts: int, found: list[dict[str, float]]) -> str:
    """A line for each figure, with its spread over the repeats."""
    lines = [f"{hosts} hosts, {len(found)} repeats: median (lowest to highest)"]
    for name in found[0]:
        values = [each.get(name, 0) for each in found]
        lines.append(f"  {name:28}{statistics.median(values):14,.3f} ({min(values):,.3f} to {max(values):,.3f})")
    return "\n".join(lines) + "\n"


# Hosts that load nothing -----------------------------------------------------------------------------------------


class Idle:
    """An agent that loads nothing: it is ready at once, and over when its time is."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._config: LoadConfig | None = None
        self._start_ns: int | None = None

    def due_s(self, document: bytes) -> float:
        """In how many seconds a poll has an answer: with the next progress, or when it has waited."""
        poll, _ = calls.unpacked(document, calls.Poll)
        now_ns, wait_s = time.monotonic_ns(), poll.wait_ms / 1e3
        standing = self._standing(now_ns)
        elapsed_ns = standing.counters.elapsed_ns if standing.counters else 0
        if standing.state != poll.state or elapsed_ns > poll.elapsed_ns:
            return 0.0
        if self._start_ns is None or standing.state == "over":
            return wait_s
        due_ns = (poll.elapsed_ns // SECOND + 1) * SECOND if now_ns >= self._start_ns else 0
        closes_ns = self._config.duration_ns if self._config and self._config.duration_ns else due_ns
        return min(wait_s, max(0.0, (self._start_ns + min(due_ns, closes_ns) - now_ns) / 1e9))

    def answer(self, call: str, document: bytes) -> bytes:
        """What an agent says, at once."""
        if call == "hello":
            return calls.packed(carrier.ours())
        if call == "clock":
            return calls.packed(calls.Clock(monotonic_ns=time.monotonic_ns()))
        if call == "prepare":
            self._config = calls.config_of(calls.unpacked(document, calls.Prepare)[0])
        if call == "go":
            self._start_ns = calls.unpacked(document, calls.Go)[0].start_ns
            is_early = self._start_ns > time.monotonic_ns()
            return calls.packed(calls.Went(started=is_early, why="" if is_early else "go came late"))
        if call == "poll":
            return calls.packed(self._standing(time.monotonic_ns()))
        if call == "collect" and self._config is not None:
            asked, _ = calls.unpacked(document, calls.Collect)
            whole = calls.result_bytes(calls.Returned(result(self._config, self._rows), was_stopped=False))
            part = whole[asked.offset : asked.offset + asked.bytes_max]
            return calls.packed(calls.Chunk(total=len(whole)), part)
        return calls.packed(calls.Done())

    def _standing(self, now_ns: int) -> calls.Standing:
        if self._start_ns is None or self._config is None or self._config.duration_ns is None:
            return calls.Standing(state="ready")
        elapsed_ns, closes_ns = now_ns - self._start_ns, self._config.duration_ns
        if elapsed_ns < 0:
            return calls.Standing(state="running")
        done = 1_000_000 + elapsed_ns // SECOND
        shown = (min(elapsed_ns, closes_ns) // SECOND * SECOND, None, done, done, done, 1_000 * done, 0, 0, 0, 0)
        if elapsed_ns < closes_ns:
            return calls.Standing(state="running", progress=shown)
        return calls.Standing(state="over", progress=shown, closed_ns=self._start_ns + closes_ns)


def result(config: LoadConfig, rows: int) -> LoadResult:
    """What a host may have found: all its rows completed, spread over the load."""
    first, _, of = config.share
    length_ns = config.duration_ns or SECOND
    rng = np.random.default_rng(first)
    start_ns = np.sort(rng.integers(0, length_ns, rows))
    zeros = np.zeros(rows, np.int64)
    transfers = dict.fromkeys(calls.TABLES["transfers"], zeros) | {
        "number": first + of * np.arange(rows), "intended_start_ns": start_ns, "actual_start_ns": start_ns + 1_000,
        "first_response_ns": start_ns + 100_000, "end_ns": start_ns + 2_000_000, "error_code": zeros - 1,
        "bytes": zeros + 65_536,
    }  # fmt: skip
    count = length_ns // (SECOND // 10)
    intervals = {name: rng.integers(0, 1_000, count) for name in calls.TABLES["intervals"]}
    intervals["duration_ns"] = np.full(count, SECOND // 10)
    figures: dict[str, int | float | None] = {
        **{name: 1 for name in ACROSS_HOSTS if not name.startswith(("boot", "machines", "miss", "restarts"))},
        **dict.fromkeys(OUTCOMES, 0), "intended": rows, "started": rows, "completed": rows, "shed": 0,
        "window_open_ns": 0, "window_close_ns": length_ns, "rows_every": 1, "first_start_late_ns": 1_000,
    }  # fmt: skip
    return LoadResult(figures, transfers, intervals, log(first % LOGS, length_ns // SECOND), ())


@cache
def log(seed: int, seconds: int) -> str:
    """A log of a histogram for each second and kind."""
    rng, lines = np.random.default_rng(seed), []
    for kind in KINDS:
        for second in range(seconds):
            histogram = HdrHistogram(64, 3_600 * SECOND, 3)
            values, counts = np.unique(rng.lognormal(14, 1.5, SAMPLES).astype(np.int64), return_counts=True)
            for value, times in zip(values.tolist(), counts.tolist(), strict=True):
                histogram.record_value(value, times)
            packed = histogram.encode().decode("ascii")
            lines.append(f"Tag={kind},{second}.000,1.000,{histogram.get_max_value() / 1e6:.3f},{packed}")
    return "\n".join(lines) + "\n"


# Counting --------------------------------------------------------------------------------------------------------


class Counting:
    """A carrier that counts the calls of another one, and what they carry, and when."""

    def __init__(self, inner: Carrier) -> None:
        self.hosts = inner.hosts
        self.calls: Counter[str] = Counter()
        self.bytes_out = self.bytes_back = self.in_flight = self.in_flight_max = 0
        self.began: dict[tuple[str, int], tuple[float, float]] = {}
        self.ended: dict[tuple[str, int], tuple[float, float]] = {}
        self.trips: dict[str, list[float]] = {}
        self.apart_s = 0.0
        self._heard: dict[str, float] = {}
        self._inner, self._lock, self._part = inner, threading.Lock(), 0

    @property
    def now(self) -> tuple[float, float]:
        """Wall and CPU time of the coordinator, in seconds."""
        return time.monotonic(), time.process_time() - getattr(self._inner, "cpu_s", 0.0)

    def call(self, host: str, load_id: str, call: calls.Call, document: bytes, timeout_s: float) -> bytes:
        """The other one's answer."""
        with self._lock:
            now = self.now
            self._part |= call == "go"
            key = (call, self._part)
            self.began.setdefault(key, now)
            self.calls[call] += 1
            self.bytes_out += len(document)
            self.in_flight += 1
            self.in_flight_max = max(self.in_flight_max, self.in_flight)
            if host in self._heard and call != "end":
                self.apart_s = max(self.apart_s, now[0] - self._heard[host])
            self._heard[host] = now[0]
        answer = self._inner.call(host, load_id, call, document, timeout_s)
        with self._lock:
            self.in_flight -= 1
            self.bytes_back += len(answer)
            self.ended[key] = self.now
            self.trips.setdefault(call, []).append(self.ended[key][0] - now[0])
        return answer

    def close(self) -> None:
        """Close the other one."""
        self._inner.close()

    @property
    def others_s(self) -> float:
        """CPU time of a scheduler, where there is one."""
        return float(getattr(self._inner, "others_s", 0.0))


def measured(counted: Counting, seconds: int) -> dict[str, float]:
    """The figures of one load."""
    config = LoadConfig(
        host="192.0.2.1", port=69, operation="read", name="f-{n}", file_size_bytes=65_536, concurrency=100_000,
        rate_per_s=RATE_PER_S, duration_ns=seconds * SECOND, sockets="shared", verify="off", allow_remote=True,
    )  # fmt: skip
    before = _resident_kib()
    others_s, begin = counted.others_s, counted.now
    generator = HostsGenerator(counted)
    generator.greet()
    greeted = counted.now
    found = generator.run(config, Stop())
    end = counted.now
    if found.hosts_lost:
        sys.stderr.write(f"benches.hosts: {found.hosts_lost[:500]}\n")
    figures: dict[str, float] = {}
    spans = {"greet": (begin, greeted)}
    for name, key in PARTS.items():
        if key in counted.began and key in counted.ended:
            spans[name] = (counted.began[key], counted.ended[key])
    if "collect" in spans:
        spans["merge"] = (spans["collect"][1], end)
    for name, (first, last) in spans.items():
        figures |= {f"{name}, s": last[0] - first[0], f"{name}, CPU s": last[1] - first[1]}
    trips = sorted(trip for call, each in counted.trips.items() if call in ("clock", "go") for trip in each)
    figures |= {
        "all, s": end[0] - begin[0], "all, CPU s": end[1] - begin[1], "scheduler, CPU s": counted.others_s - others_s,
        **{f"calls: {call}": count for call, count in sorted(counted.calls.items())},
        "calls": counted.calls.total(), "calls in flight, most": counted.in_flight_max,
        "MB to hosts": counted.bytes_out / 1e6, "MB from hosts": counted.bytes_back / 1e6,
        "clock and go, ms, median": 1e3 * trips[len(trips) // 2], "clock and go, ms, longest": 1e3 * trips[-1],
        "s between calls to a host": counted.apart_s,
        "clock error, ms": (found.figures.get("clock_error_ns_max") or 0) / 1e6,
        "hosts lost": (found.hosts_lost or "").count(";") + bool(found.hosts_lost),
        "memory, MB more": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3,
    }  # fmt: skip
    return figures


def _resident_kib() -> int:
    """What this process holds now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize() // 1024


# In this process -------------------------------------------------------------------------------------------------


class InProcess:
    """A carrier to idle agents here. `cpu_s`: what their answers took."""

    def __init__(self, hosts: int, rows: int) -> None:
        self._agents = {f"h{number:04}": Idle(rows) for number in range(hosts)}
        self.hosts = tuple(self._agents)
        self.cpu_s = 0.0
        self._lock = threading.Lock()

    def call(self, host: str, _load_id: str, call: calls.Call, document: bytes, _timeout_s: float) -> bytes:
        """As an agent answers it; a poll waits for news."""
        began_s, there = time.thread_time(), self._agents[host]
        if call == "poll":
            time.sleep(there.due_s(document))
        answer = there.answer(call, document)
        with self._lock:
            self.cpu_s += time.thread_time() - began_s
        return answer

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def in_process(hosts: int, rows: int) -> Iterator[Counting]:
    """Hosts whose logs are made before anything is measured."""
    for seed in range(LOGS):
        log(seed, 10)
    carrier.ours()
    yield Counting(InProcess(hosts, rows))


# Over Dask -------------------------------------------------------------------------------------------------------


@contextmanager
def over_dask(hosts: int, rows: int) -> Iterator[Counting]:
    """Dask's own scheduler, and workers in a process for each core."""
    from tftpbench.host.hosts import cluster
    from tftpbench.host.hosts.dask import DaskCarrier, make_keys

    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"XDG_CONFIG_HOME": folder, **cluster.SETTINGS}
        keys = make_keys()
        tls = ["--tls-ca-file", str(keys.ca), "--tls-cert", str(keys.cert), "--tls-key", str(keys.key)]
        where = Path(folder) / "scheduler.json"
        scheduler = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "tls://127.0.0.1", "--port", "0",
             "--no-dashboard", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(where), *tls]
        )  # fmt: skip
        started = [scheduler]
        try:
            while not where.exists():
                time.sleep(0.05)
            address = json.loads(where.read_text(encoding="utf-8"))["address"]
            processes = min(hosts, os.cpu_count() or 1)
            ends = [hosts * number // processes for number in range(processes + 1)]
            started += [
                subprocess.Popen(
                    [sys.executable, "-m", "benches.hosts", "--workers", address, folder, str(first), str(end),
                     str(rows)]
                )
                for first, end in pairwise(ends)
            ]  # fmt: skip
            carrying = DaskCarrier(address, keys, hosts, 300)
            try:
                yield _WithScheduler(carrying, scheduler.pid)
            finally:
                carrying.close()
        finally:
            for process in started:
                process.kill()
                process.wait()


class _WithScheduler(Counting):
    """A carrier that knows what its scheduler takes."""

    def __init__(self, inner: Carrier, pid: int) -> None:
        super().__init__(inner)
        self._pid = pid

    @property
    def others_s(self) -> float:
        fields = Path(f"/proc/{self._pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def work(address: str, folder: str, first: str, end: str, rows: str) -> None:
    """Workers of Dask, each with an idle agent of its own."""
    import distributed
    from distributed.security import Security

    class Here(distributed.Worker):
        """One whose calls say which worker it is."""

        async def run(self, comm: Any, function: Any, args: Any = (), wait: Any = True, kwargs: Any = None) -> Any:
            _WORKER.set(str(self.name))
            return await super().run(comm, function, args, wait, kwargs)  # type: ignore[no-untyped-call]

    class Agents:
        """In the place of the children of a worker."""

        def __init__(self) -> None:
            self._there: dict[tuple[str, str], Idle] = {}

        async def answer(self, load_id: str, call: str, document: bytes) -> bytes:
            """As an agent answers it; a poll waits for news."""
            there = self._there.setdefault((_WORKER.get(), load_id), Idle(int(rows)))
            if call == "poll":
                await asyncio.sleep(there.due_s(document))
            return there.answer(call, document)

    for seed in range(LOGS):
        log(seed, 10)
    carrier._AGENTS = Agents()  # type: ignore[assignment] # noqa: SLF001 # as far as calls go
    ca, cert, key = (str(Path(folder) / "tftpbench/hosts" / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    security = Security(tls_ca_file=ca, tls_worker_cert=cert, tls_worker_key=key, require_encryption=True)
    made = [
        Here(address, name=f"h{number:04}", nthreads=1, memory_limit=0, security=security, dashboard=False,
             host="127.0.0.1", protocol="tls://")
        for number in range(int(first), int(end))
    ]  # fmt: skip
    await asyncio.gather(*made)
    await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (TftpbenchError, OSError) as error:
        sys.exit(f"benches.hosts: {error}")
