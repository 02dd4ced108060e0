"""What a server used, counted rightly whatever its model: a process or a thread per transfer, or one loop."""

import dataclasses
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.loopback.machine import runs, until, written
from tftpbench.host.server import Samples, ServerProcess, Usage, supervisor, udp_drops_host
from tftpbench.host.server.client import Counter, SupervisorClient, process_cpu_ns
from tftpbench.host.server.sampler import (
    LOOK_SHARE_MAX,
    PSS_INTERVAL_S,
    PSS_SHARE_MAX,
    SAMPLE_INTERVAL_S,
    Pace,
    Sampler,
)
from tftpbench.host.server.sockets import DropCount, UdpSocket
from tftpbench.model.manifest import load_manifest

MODELS = ["forks", "threads", "loop"]
BURNING = Path(__file__).with_name("misbehaving_server.py")
BURN_NS = 50_000_000
BURNS = 20
HOLDS = 5


def burning(folder: Path, model: str, wrapper: tuple[str, ...] = ()) -> ServerProcess:
    argv = [*wrapper, sys.executable, str(BURNING), model, "{host}", "{port}", "{root}"]
    manifest = load_manifest(written(folder, model, argv, "line", "{operations: [read]}"))
    return ServerProcess(manifest, root=folder, log=folder / "server.log")


def supervisor_of(server: ServerProcess) -> SupervisorClient:
    return server._running()[0]


def ask(server: ServerProcess, name: str, times: int) -> list[int]:
    """One request after the other; the CPU time that each of them took, by its own account."""
    spent = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(20)
        client.connect((server.host, server.port))  # what another test's server still sends to this port is not for us
        for _ in range(times):
            client.send(struct.pack("!H", 1) + name.encode() + b"\0octet\0")
            spent.append(int(client.recv(100)[4:-1]))
    return spent


@dataclasses.dataclass(frozen=True)
class Cgroup:
    """The kernel's account of CPU time: a folder, and the file and unit of its figure."""

    folder: Path
    file: str
    field: str
    unit_ns: int

    def cpu_ns(self) -> int:
        for line in (self.folder / self.file).read_text().splitlines():
            *name, value = line.split()
            if "".join(name) == self.field:
                return int(value) * self.unit_ns
        raise AssertionError(f"{self.folder / self.file} has no {self.field!r}")

    @classmethod
    def made(cls, mount: str, file: str, field: str, unit_ns: int) -> Self | None:
        try:
            folder = Path(tempfile.mkdtemp(prefix="tftpbench-test-", dir=mount))
        except OSError:
            return None
        made = cls(folder, file, field, unit_ns)
        if (folder / file).exists() and os.access(folder / "cgroup.procs", os.W_OK):
            return made
        made.is_removed()
        return None

    def is_removed(self) -> bool:
        try:
            self.folder.rmdir()
        except OSError:
            return False
        return True

    @property
    def is_version_1(self) -> bool:
        return self.file == "cpuacct.usage"

    @property
    def wrapper(self) -> tuple[str, ...]:
        """Words before a command: it starts inside."""
        return ("sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs"))


@pytest.fixture
def cgroup() -> Iterator[Cgroup | None]:
    """A cgroup that counts CPU time, where this machine lets the test make one: root, mostly."""
    kinds = [("/sys/fs/cgroup/cpuacct", "cpuacct.usage", "", 1), ("/sys/fs/cgroup/cpu,cpuacct", "cpuacct.usage", "", 1)]
    kinds += [(mount, "cpu.stat", "usage_usec", 1000) for mount in supervisor.CGROUP_MOUNTS]
    made = next((found for kind in kinds if (found := Cgroup.made(*kind)) is not None), None)
    yield made
    if made is not None:
        until(made.is_removed, "the test's cgroup can't be removed")


NO_EVENT, NO_CGROUP = "module._SYS_PERF_EVENT_OPEN.clear()", "module.CGROUP_MOUNTS = ()"


def keep_with(folder: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """A supervisor on a machine that refuses something."""
    program = folder / "supervisor.py"
    program.write_text(
        f"import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('launch', {supervisor.__file__!r})\n"
        f"module = importlib.util.module_from_spec(spec)\n"
        f"spec.loader.exec_module(module)\n{change}\nsys.exit(module.main(sys.argv[1:]))\n"
    )
    monkeypatch.setattr(supervisor, "__file__", str(program))


def burnt_ns(server: ServerProcess, cgroup: Cgroup | None) -> tuple[int, int]:
    """CPU time of twenty requests: by our clock, and by a cgroup's or their own account, which know nothing of it."""
    before, theirs_before = server.cpu_ns(), cgroup.cpu_ns() if cgroup else 0
    reported = sum(ask(server, "burn", BURNS))
    after, theirs_after = server.cpu_ns(), cgroup.cpu_ns() if cgroup else reported
    assert before is not None
    assert after is not None
    return after - before, theirs_after - theirs_before


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("refused", [NO_EVENT, NO_CGROUP], ids=["cgroup", "event"])
def test_cpu_time_agrees_with_an_independent_account(
    model: str, refused: str, cgroup: Cgroup | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_with(tmp_path, monkeypatch, refused)
    theirs = cgroup if refused == NO_CGROUP or (cgroup and cgroup.is_version_1) else None
    with burning(tmp_path, model, theirs.wrapper if theirs else ()) as server:
        counter = supervisor_of(server).counter
        if counter is None or counter.cpu_ns() is None:
            pytest.skip("this kernel refuses perf events" if refused == NO_CGROUP else "this user may make no cgroup")
        ours_ns, theirs_ns = burnt_ns(server, theirs)
        if refused == NO_EVENT:
            assert server.context_switches() is None
    assert theirs_ns >= BURNS * BURN_NS
    assert abs(ours_ns - theirs_ns) <= max(0.05 * theirs_ns, 20_000_000)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_the_servers_cgroup_ends_with_it_even_if_the_supervisor_is_killed(tmp_path: Path, end: int) -> None:
    with burning(tmp_path, "forks") as server:
        folder = cgroup_of(server)
        ask(server, "hold", 1)
        tree = supervisor_of(server).process_tree()
        if end == signal.SIGKILL:
            if not (folder / "cgroup.kill").exists():
                pytest.skip("this kernel can't kill a cgroup")
            supervisor_of(server)._process.kill()
    assert len(tree) == 2
    assert not folder.exists()
    assert not [pid for pid in tree if runs(pid)]


def test_a_server_that_was_moved_to_another_cgroup_is_not_counted_by_ours(
    cgroup: Cgroup | None, tmp_path: Path
) -> None:
    if cgroup is None or cgroup.is_version_1:
        cgroup = Cgroup.made(supervisor.CGROUP_MOUNTS[-1], "cpu.stat", "usage_usec", 1000)
    if cgroup is None:
        pytest.skip("this user may make no cgroup of version 2 at the top")
    try:
        with burning(tmp_path, "loop", cgroup.wrapper) as server:
            before = server.cpu_ns()
            ask(server, "burn", 2)
            after = server.cpu_ns()
    finally:
        until(cgroup.is_removed, "the test's cgroup can't be removed")
    assert before is not None
    assert after is not None
    assert after - before >= 2 * BURN_NS


def cgroup_of(server: ServerProcess) -> Path:
    counter = supervisor_of(server).counter
    if counter is None or not counter._cgroup:
        pytest.skip("this user may make no cgroup")
    return Path(counter._cgroup)


def test_with_nothing_to_count_a_process_tree_its_cpu_time_is_unknown_and_that_of_one_process_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_with(tmp_path, monkeypatch, f"{NO_EVENT}; {NO_CGROUP}")
    for model in MODELS:
        with burning(tmp_path, model) as server:
            ask(server, "hold", 1)
            assert (server.cpu_ns() is None) is (model == "forks")
            assert server.context_switches() is None


def test_an_event_that_the_kernel_took_off_the_server_is_given_up(tmp_path: Path) -> None:
    """As it does when a user's server gains privileges by exec: the event says what it said then, for ever."""
    with burning(tmp_path, "loop") as server:
        supervisor = supervisor_of(server)
        assert supervisor.pid is not None
        stuck = os.memfd_create("an event that counts no more")
        os.write(stuck, struct.pack("QQQ", 1, 500_000, 500_000) * 10)
        os.lseek(stuck, 0, os.SEEK_SET)
        counter = Counter(supervisor.pid, 500_000, stuck, counts_switches=True, cgroup="")
        assert (counter.cpu_ns(), counter.context_switches()) == (500_000, 1)
        counter.check()
        assert (counter.cpu_ns(), counter.context_switches()) == (None, None)


def test_an_event_that_counts_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_with(tmp_path, monkeypatch, NO_CGROUP)
    with burning(tmp_path, "loop") as server:
        supervisor = supervisor_of(server)
        if supervisor.counter is None or supervisor.counter.cpu_ns() is None:
            pytest.skip("this kernel refuses perf events")
        own_ns = process_cpu_ns(supervisor.pid or 0)
        assert own_ns is not None
        assert own_ns > 10_000_000, "it has not used enough to tell"
        supervisor.counter.check()
        assert (supervisor.counter.cpu_ns() or 0) > own_ns / 2


@pytest.mark.parametrize(("model", "processes", "threads"), [("forks", 6, 6), ("threads", 1, 6), ("loop", 1, 1)])
def test_processes_threads_and_descriptors_are_counted_over_the_process_tree(
    model: str, processes: int, threads: int, tmp_path: Path
) -> None:
    with burning(tmp_path, model) as server:
        ready = server.usage()
        assert (ready.processes, ready.threads) == (1, 1)
        assert ready.fds is not None
        with server.sampler() as sampler:
            ask(server, "hold", HOLDS)
        now, most = server.usage(), sampler.samples
    assert (now.processes, now.threads, now.fds) == (processes, threads, processes * ready.fds)
    assert (most.processes_max, most.threads_max, most.fds_max) == (processes, threads, processes * ready.fds)


@pytest.mark.parametrize("model", MODELS)
def test_memory_that_processes_share_counts_once_in_pss_and_in_each_in_rss(model: str, tmp_path: Path) -> None:
    shared = 16 << 20
    with burning(tmp_path, model) as server:
        with server.sampler() as sampler:
            ask(server, "hold", HOLDS)
        now, most = server.usage(), sampler.samples
    assert now.rss_bytes is not None
    assert now.pss_bytes is not None
    assert shared < now.pss_bytes <= now.rss_bytes
    assert (most.rss_bytes_max or 0) >= 0.9 * now.rss_bytes
    assert (most.pss_bytes_max or 0) >= 0.9 * now.pss_bytes
    if model == "forks":
        assert now.rss_bytes > (1 + HOLDS) * shared
        assert now.pss_bytes < now.rss_bytes / 2
    else:
        assert now.rss_bytes < 4 * shared


@pytest.mark.parametrize(("model", "each"), [("forks", 2), ("threads", 2), ("loop", 1)])
def test_context_switches_are_counted_over_every_process_and_thread(model: str, each: int, tmp_path: Path) -> None:
    with burning(tmp_path, model) as server:
        ready = server.usage().context_switches
        if ready is None:
            pytest.skip("this kernel lets this user count no context switches (perf_event_paranoid above 1, no root)")
        ask(server, "hold", HOLDS)
        # The server sleeps until each request comes, and whoever holds it goes to sleep after.
        until(lambda: (server.context_switches() or 0) - ready >= each * HOLDS, "switches are missing")


@pytest.mark.parametrize("model", MODELS)
def test_drops_are_the_servers_where_they_are_and_the_hosts_hold_them_all(model: str, tmp_path: Path) -> None:
    host_before = udp_drops_host()
    if host_before is None:
        pytest.skip("this kernel shows no /proc/net/snmp")
    with burning(tmp_path, model) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bystander:
        bystander.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        bystander.bind((server.host, 0))
        ask(server, "hold", HOLDS)
        assert server.usage().udp_drops == 0
        flood(bystander.getsockname(), 300)
        assert server.usage().udp_drops == 0, "another program's"
        host_between = udp_drops_host()
        assert supervisor_of(server).pid is not None
        os.kill(supervisor_of(server).pid or 0, signal.SIGSTOP)
        flood((server.host, server.port), 300)
        drops, host_after = server.usage().udp_drops, udp_drops_host()
        server.stop(grace_s=0)  # it can't handle SIGTERM now
    assert drops is not None
    assert host_between is not None
    assert host_after is not None
    assert 200 < drops <= 300
    assert host_between - host_before > 200
    assert host_after - host_between >= drops


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel counts no waiting for a core")
def test_the_wait_of_a_server_for_its_core_is_what_a_neighbour_takes(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    spin = f"import os\nos.sched_setaffinity(0, [{core}])\nprint(flush=True)\nwhile True: pass"
    with burning(tmp_path, "loop") as server:
        reader = server._running()[1]
        os.sched_setaffinity(supervisor_of(server).pid or 0, [core])
        with subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) as neighbour:
            try:
                assert neighbour.stdout is not None
                neighbour.stdout.readline()
                before_ns, began_ns = reader.waited_ns(), time.monotonic_ns()
                spent_ns = sum(ask(server, "burn", 6))
                after_ns, lasted_ns = reader.waited_ns(), time.monotonic_ns() - began_ns
            finally:
                neighbour.kill()
    assert before_ns is not None
    assert after_ns is not None
    assert spent_ns / 4 < after_ns - before_ns < lasted_ns


def flood(address: tuple[str, int], datagrams: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(datagrams):
            client.sendto(b"x" * 512, address)


def test_drops_on_ipv6_are_among_the_hosts() -> None:
    before = udp_drops_host()
    if before is None:
        pytest.skip("this kernel shows no /proc/net/snmp")
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as full,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client,
    ):
        full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            full.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
        for _ in range(300):
            client.sendto(b"x" * 512, full.getsockname())
        assert (udp_drops_host() or 0) - before > 200


def test_while_nobody_drops_anything_no_socket_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of sockets and descriptors cost nothing then."""
    rows, host, looks = [UdpSocket(69, 1, 0), UdpSocket(70, 2, 0)], [0], [0, 0]

    def sockets(_: object) -> list[UdpSocket]:
        looks[0] += 1
        return rows

    def inodes(_: object) -> dict[int, tuple[int, int]]:
        looks[1] += 1
        return {1: (0, 0)}

    monkeypatch.setattr("tftpbench.host.server.sockets.udp_sockets", sockets)
    monkeypatch.setattr("tftpbench.host.server.sockets.socket_inodes", inodes)
    monkeypatch.setattr("tftpbench.host.server.sockets.udp_drops_host", lambda _: host[0])
    count = DropCount()
    assert (count.count([1]), count.count([1]), looks) == (0, 0, [1, 0])
    rows[:], host[0] = [UdpSocket(69, 1, 5), UdpSocket(70, 2, 9)], 14
    assert (count.count([1]), count.count([1]), looks) == (5, 5, [2, 1])
    rows[:], host[0] = [UdpSocket(70, 2, 9)], 15
    assert (count.count([1]), looks) == (5, [3, 1]), "a socket since closed is remembered"


def test_a_look_comes_five_times_a_second_at_most_and_rarer_the_dearer_it_is() -> None:
    now = [100.0]
    pace = Pace(SAMPLE_INTERVAL_S, LOOK_SHARE_MAX, lambda: now[0])
    assert pace.pause_s() == pytest.approx(SAMPLE_INTERVAL_S)
    for cost_s, pause_s in ((0.0001, 0.2), (0.001, 0.2), (0.0012, 0.2), (0.03, 5.0), (0.3, 50.0)):
        pace.done(cost_s)
        assert pace.pause_s() == pytest.approx(pause_s)
        assert cost_s / pace.pause_s() <= LOOK_SHARE_MAX * 1.000001
        now[0] += pause_s + 0.001
        assert pace.pause_s() == 0
    assert LOOK_SHARE_MAX + PSS_SHARE_MAX < 0.01


def test_proportional_memory_is_looked_at_once_a_second_at_most_and_only_when_its_share_allows() -> None:
    now = [100.0]
    pace = Pace(PSS_INTERVAL_S, PSS_SHARE_MAX, lambda: now[0])
    now[0] += 0.999
    assert pace.allowance_s() == 0
    now[0] += 0.002
    assert pace.allowance_s() == pytest.approx(1.001 * PSS_SHARE_MAX)
    pace.done(0.06)
    now[0] += 19.9
    assert pace.allowance_s() == 0
    now[0] += 0.2
    assert pace.allowance_s() == pytest.approx(20.1 * PSS_SHARE_MAX)


def test_proportional_memory_of_a_process_tree_too_large_to_look_at_is_left_out(tmp_path: Path) -> None:
    with burning(tmp_path, "forks") as server:
        reader = server._running()[1]
        one = reader.look()
        cost_s = reader.pss_cost_s
        assert cost_s > 0
        assert reader.look(2 * cost_s).pss_bytes is not None
        ask(server, "hold", HOLDS)
        several = reader.look(0.0)
        assert reader.pss_cost_s == 0
    assert one.pss_bytes is not None
    assert several.pss_bytes is None
    assert (several.rss_bytes or 0) > (one.rss_bytes or 0)


def test_the_most_proportional_memory_is_unknown_where_only_few_processes_were_looked_at() -> None:
    looks = [(1, 100), (10, None), (6, 400), (7, 300), (15, None)]
    samples, known = Samples(), []
    for processes, pss_bytes in looks:
        samples.take(Usage(0, processes=processes, pss_bytes=pss_bytes))
        known.append(samples.pss_bytes_max)
    assert known == [100, None, 400, 400, None]


@pytest.mark.parametrize("model", ["forks", "threads"])
def test_the_sampler_costs_less_than_one_percent_of_a_core(model: str, tmp_path: Path) -> None:
    spent: list[tuple[float, float]] = []
    enough = threading.Event()
    with burning(tmp_path, model) as server:
        ask(server, "hold", 80)
        supervisor, reader = server._running()

        class Watched:
            """The reader, whose looks are noted when they begin: what was spent until then, and in how long."""

            pss_cost_s = property(lambda _: reader.pss_cost_s)

            def look(self, *arguments: float) -> Usage:
                if threading.current_thread() is not threading.main_thread():
                    spent.append((time.thread_time(), time.monotonic()))
                if len(spent) == 6:
                    enough.set()
                return reader.look(*arguments)

        watched: Any = Watched()
        began_s = time.monotonic()
        with Sampler(watched, supervisor, (), lambda: None) as sampler:
            assert enough.wait(25)
    assert sampler.samples.threads_max == 81
    # What the thread itself costs weighs less the longer it looks; the first second alone says little.
    cpu_s, at_s = spent[-1]
    assert cpu_s / (at_s - began_s) < 0.01


def test_a_servers_environment_reaches_it_and_harms_no_supervisor(tmp_path: Path) -> None:
    log = tmp_path / "log"
    env = {"TFTP_GREETING": "hello from afar", "PYTHONHOME": "/nowhere", "PYTHONPATH": "/nowhere"}
    supervisor = SupervisorClient(["sh", "-c", 'echo "$TFTP_GREETING $HOME"'], log, [], env)
    try:
        supervisor.wait_started()
        until(lambda: not supervisor.alive(), "it has not ended")
        assert supervisor.ended.exit_code == 0
    finally:
        supervisor.stop(0)
    assert log.read_text() == f"hello from afar {os.environ.get('HOME', '')}\n"
