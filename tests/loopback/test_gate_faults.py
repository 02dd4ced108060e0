"""Each fault does to a real server what it says, and nothing else: every byte stays right."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tftpbench.gate import syscalls
from tftpbench.gate.selftest.faults import Fault, FaultsUnavailable, compile_shim, with_fault
from tftpbench.host import generator
from tftpbench.host.choice import choose_manifest
from tftpbench.host.generator import LoadConfig, run_load
from tftpbench.host.presence import locate
from tftpbench.host.roots import roots
from tftpbench.host.server import ServerProcess
from tftpbench.measure import Contender, Tools, Trial, pin
from tftpbench.measure.files import target_files
from tftpbench.measure.session import Bench
from tftpbench.model.scenario_files import load_scenario
from tftpbench.model.workload import ClosedLoop

FILE_BYTES, TRANSFERS = 64 * 1024, 200
BLOCKS = TRANSFERS * 129
MIB = 1024 * 1024


@dataclass(frozen=True)
class Seen:
    """A load of TRANSFERS files of a server."""

    cpu_ns_per_block: float
    rss_bytes: int
    data_pps: float
    retransmissions: float


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return compile_shim(tmp_path_factory.mktemp("fault"))
    except FaultsUnavailable as reason:
        pytest.skip(str(reason))


def epoll(shim: Path | None = None, **settings: object) -> Contender:
    """Our epoll server, made worse by these settings of the shim."""
    manifest, variant = choose_manifest("epoll")
    contender = Contender(manifest, variant, locate(manifest))
    if shim is None:
        return contender
    environment = {f"TFTPBENCH_FAULT_{name}": str(value) for name, value in settings.items()}
    return with_fault(contender, shim, Fault("test", "data_pps", environment))


def seen(folder: Path, contender: Contender, timeout_ns: int = 5_000_000_000) -> Seen:
    """Load a fresh server; every transfer completes, with the right contents. Clients wait long by default."""
    root = folder / "root"
    root.mkdir(exist_ok=True)
    generator.write_contents(root / "f-0", 1, 0, FILE_BYTES)
    manifest, log = contender.server, folder / "log"
    with ServerProcess(manifest, root=root, log=log, concurrency=20) as server:  # type: ignore[arg-type]
        config = LoadConfig(
            host=server.host, port=server.port, operation="read", name="f-{n}", file_size_bytes=FILE_BYTES,
            concurrency=10, transfers=TRANSFERS, timeout_ns=timeout_ns, sockets="shared",
        )  # fmt: skip
        before = server.cpu_ns()
        figures = run_load(config).figures
        after, rss = server.cpu_ns(), server.usage().rss_bytes
        server.check_alive()
    assert figures["completed"] == TRANSFERS
    assert figures["content_mismatches"] == 0
    assert figures["bytes_verified"] == TRANSFERS * FILE_BYTES
    if before is None or after is None:
        pytest.skip("this kernel refuses perf events, and this user may make no cgroup")
    assert rss is not None
    return Seen((after - before) / BLOCKS, rss, known(figures, "data_pps"), known(figures, "retransmissions"))


def known(figures: Mapping[str, int | float | None], name: str) -> float:
    value = figures[name]
    assert value is not None, name
    return value


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return seen(tmp_path_factory.mktemp("base"), epoll())


@pytest.mark.parametrize("settings", [{}, {"DROP_PER_MILLION": "100000x"}, {"DROP_PER_MILLION": 1_000_001}])
def test_without_a_setting_that_it_understands_it_does_nothing(
    tmp_path: Path, shim: Path, settings: dict[str, object]
) -> None:
    again = seen(tmp_path, epoll(shim, **settings)).retransmissions
    assert again < BLOCKS / 100, "a tenth were lost, or all; a busy machine loses one now and then"


def test_time_burnt_at_every_datagram_is_cpu_time(tmp_path: Path, shim: Path, base: Seen) -> None:
    spin_ns = 20_000  # much more than a block costs, so that a busy machine changes little
    more = seen(tmp_path, epoll(shim, SPIN_NS=spin_ns)).cpu_ns_per_block - base.cpu_ns_per_block
    assert spin_ns / 2 < more < spin_ns * 2


def test_time_slept_makes_it_slower_and_is_hardly_cpu_time(tmp_path: Path, shim: Path, base: Seen) -> None:
    pause_ns = 50_000
    slept = seen(tmp_path, epoll(shim, PAUSE_NS=pause_ns))
    assert slept.data_pps < base.data_pps
    assert slept.data_pps < 1.2e9 / pause_ns, "one thread sends, and it sleeps that long for each"
    assert slept.cpu_ns_per_block - base.cpu_ns_per_block < pause_ns / 2


def test_a_rate_of_datagrams_is_never_exceeded(tmp_path: Path, shim: Path) -> None:
    """How near to it a server comes is for a quiet machine; 20 ms of it may be made up for."""
    per_s = 5_000
    limited = seen(tmp_path, epoll(shim, DATAGRAMS_PER_S=per_s))
    assert limited.data_pps < per_s * (1 + 0.03 * per_s / BLOCKS)


def test_lost_datagrams_are_sent_again(tmp_path: Path, shim: Path) -> None:
    lost = BLOCKS * 1_000 / 1e6
    again = seen(tmp_path, epoll(shim, DROP_PER_MILLION=1_000), timeout_ns=100_000_000).retransmissions
    assert 0 < again < 20 * lost  # whether client or server is first to send again, and on a busy machine twice


def test_memory_is_taken_and_kept(tmp_path: Path, shim: Path, base: Seen) -> None:
    more = seen(tmp_path, epoll(shim, MEMORY_BYTES=64 * MIB)).rss_bytes - base.rss_bytes
    assert more == pytest.approx(64 * MIB, abs=4 * MIB)


def test_more_system_calls_are_counted_as_such(shim: Path) -> None:
    reason = syscalls.unavailable()
    if reason is not None:
        pytest.skip(reason)
    calls = 20  # many more than a block takes, which a busy machine changes by one or two
    more = calls_per_block(epoll(shim, SYSCALLS_PER_1000=calls * 1000)) - calls_per_block(epoll())
    assert calls / 2 < more < calls * 2


def calls_per_block(contender: Contender) -> float:
    """As the gate counts them, over a few transfers."""
    [cell] = load_scenario("gate").cells()
    # A traced server on a busy machine is slow; clients wait long enough.
    client = cell.client.model_copy(update={"timeout_ns": 10_000_000_000})
    cell = replace(cell, load=ClosedLoop(3), distinct_files=2, client=client)
    with target_files([contender], allow_remote=False) as files, roots([cell], 1, generator.write_contents) as base:
        bench = Bench(base, files, pin(cell.placement), 1, Tools())
        idle, loaded = (syscalls.count(Trial(1, 1, 1, cell, contender), bench, transfers) for transfers in (0, 10))
    return syscalls.per_block(loaded, idle)
