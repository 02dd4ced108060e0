"""How fast the generator is when its core is full: the same load in a network, against a server that costs nothing.

The null server has the server's core and answers each datagram at once (crates/tftpbench-ceiling, `null_server`). It
receives by sockets, as what that costs on the sender's core is part of a trial, too. A figure counts only where the
generator was full; else the null server, or the machine, was the limit.
It must never know scenarios, servers or results.
"""

import contextlib
import statistics
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from tftpbench import _core
from tftpbench.host.generator import LoadConfig, run_load, write_contents
from tftpbench.host.network import GENERATOR_MAC, ROUTER_MAC, SERVER_MAC, Network
from tftpbench.model.errors import LoadError

MS = 1_000_000
WARM_UP_NS, WINDOW_NS = 20 * MS, 80 * MS
# Loads of each kind; each round has all kinds, so that a slow moment of the machine is not one kind's.
ROUNDS = 3
# With so many in flight the core is full however long the way there and back is, and so are the generator's batches.
# Fewer may leave it waiting; and an open loop has no number in flight.
IN_FLIGHT_FULL = 100
# Full: what the loop does beside waiting. It looks at the clock, and at an empty ring before it finds it empty.
BUSY_MIN = 0.97
# A file of more has its block numbers begin anew, which takes a server that counts.
BLOCKS_MAX = 60_000
# Datagrams that may wait: in lock-step each client has one on its way, and few send one again.
_WAITING_MIN = 256
# It has an address of its own, and so every port; one that takes no privilege.
_PORT = 6969


@dataclass(frozen=True)
class NullServerConfig:
    """What a null server is opened with. `answers_mac`: where its answers go."""

    requests_fd: int
    interface: int
    mac: bytes
    answers_mac: bytes
    address: str
    port: int
    contents: bytes
    blksize: int
    waiting: int
    cpu: int | None


@dataclass(frozen=True)
class Loaded:
    """One short load: DATA blocks per second, and what share of the time each side was busy."""

    data_pps: float
    busy_fraction: float
    null_busy_fraction: float
    is_whole: bool = True
    """Whether all of it went well: no transfer failed, and no byte was wrong."""


@dataclass(frozen=True)
class Full:
    """The rate of a full generator, the median of the loads that it was full in; None and a reason where none was.

    `in_flight`: how many transfers these had at once.
    """

    data_pps: float | None
    reason: str = ""
    in_flight: int | None = None


def levels(config: LoadConfig) -> tuple[int, ...]:
    """How many transfers may be in flight in a load that fills the generator: as many as its own, else more."""
    if config.is_open_loop:
        return (min(config.concurrency, IN_FLIGHT_FULL),)
    return tuple(dict.fromkeys((config.concurrency, max(config.concurrency, IN_FLIGHT_FULL))))


def load_null_server(config: LoadConfig, network: Network, cpu: int | None, *, window_ns: int = WINDOW_NS) -> Loaded:
    """One short load of this kind, as `in_network` made it; of time and files it has its own. Raises LoadError.

    `cpu`: the null server's core, which it must have for itself.
    """
    blksize = config.blksize
    size = min(config.file_size_bytes, BLOCKS_MAX * blksize)
    is_ring = config.sockets == "ring"
    concurrency = config.concurrency
    address = network.null_address(ipv6=ip_address(config.host).version == 6)
    with tempfile.TemporaryDirectory(prefix="tftpbench-") as folder:
        path = Path(folder, "file")
        write_contents(path, config.seed, 0, size)
        null = NullServerConfig(
            requests_fd=network.requests_fd,
            interface=network.server_interface,
            mac=SERVER_MAC,
            answers_mac=ROUTER_MAC if is_ring else GENERATOR_MAC,
            address=address,
            port=_PORT,
            contents=path.read_bytes() if config.operation == "read" else b"",
            blksize=blksize,
            waiting=max(_WAITING_MIN, concurrency),
            cpu=cpu,
        )
        asked = replace(
            config, host=address, port=_PORT, name="file", distinct_files=1, file_size_bytes=size,
            verify_against=path if config.operation == "read" else None, concurrency=concurrency, transfers=None,
            rate_per_s=None, over_ns=None, shape=(), boots=(), warm_up_ns=WARM_UP_NS, duration_ns=window_ns,
            drain_ns=window_ns, ramp_ns=0, tsize=False, timeout_option_s=None, rollover=None, rows="failed",
            bytes_per_s_max=None, stops_when_failing=False,
        )  # fmt: skip
        with _answering(null) as answered:
            figures = run_load(asked).figures
    wrong = [figures.get(name) for name in ("failed", "timed_out", "content_mismatches")]
    return Loaded(
        data_pps=float(figures.get("data_pps") or 0.0),
        busy_fraction=float(figures.get("generator_busy_fraction") or 0.0),
        null_busy_fraction=1 - answered["idle_ns"] / max(1, answered["elapsed_ns"]),
        is_whole=not any(wrong),
    )


@contextlib.contextmanager
def _answering(config: NullServerConfig) -> Iterator[dict[str, int]]:
    """A null server in a thread of its own. What it did is in the dictionary when it has ended. Raises LoadError."""
    stop, ready, found, failed = _core.Stop(), threading.Event(), dict[str, int](), list[Exception]()

    def serve() -> None:
        try:
            found.update(_core.answer_datagrams(config, stop, ready.set))
        except (ValueError, OSError, RuntimeError, TypeError) as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=serve, name="null-server", daemon=True)
    thread.start()
    ready.wait()
    try:
        if not failed:
            yield found
    finally:
        stop.request()
        thread.join()
    if failed:
        raise LoadError(f"the null server: {failed[0]}")


def full(loads: Sequence[Loaded]) -> Full:
    """What several loads of one kind come to."""
    rates = [each.data_pps for each in loads if each.is_whole and each.data_pps and each.busy_fraction >= BUSY_MIN]
    if rates:
        return Full(statistics.median(rates))
    if not any(each.is_whole for each in loads):
        return Full(None, "transfers from the null server failed")
    best = max(loads, key=lambda each: each.busy_fraction)
    busy = f"busy {best.busy_fraction:.0%}, that server {best.null_busy_fraction:.0%}"
    return Full(None, f"the generator was not full before a null server ({busy}): that or this machine was the limit")
