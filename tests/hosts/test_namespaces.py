"""Load hosts, and the server, as network namespaces of their own on a bridge: what goes over it is one load.

Agents are processes in those namespaces. All of them have one clock, the machine's, and a socket beside the server
hears each request. What is expected is counted of the hosts' own rows; it must never be taken from what merges them.
"""

import inspect
import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from ctypes import addressof, create_string_buffer
from functools import partial
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from tests.hosts.test_agents import QUICK, Local
from tests.loopback.machine import PROGRAM, runs, until, written
from tests.loopback.test_namespaces import holders, namespace_of
from tests.unit.builders import buckets, scenario
from tftpbench.host.choice import manifest
from tftpbench.host.generator import LoadConfig, LoadResult, Stop, write_contents
from tftpbench.host.hosts import calls, cluster
from tftpbench.host.hosts.generator import HostsGenerator
from tftpbench.host.network import GENERATOR, SERVER, Network, NetworkRefused, broker
from tftpbench.host.server import ServerProcess, UdpCounts
from tftpbench.host.server.readiness import Place
from tftpbench.host.server.sockets import udp_counts
from tftpbench.host.server.supervisor import descendants
from tftpbench.host.server_host import LocalServerHost
from tftpbench.measure import Tools
from tftpbench.model.errors import HostsError
from tftpbench.model.manifest import Manifest
from tftpbench.store import Run, load_run, recording

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("any_machine")]

SECOND = 1_000_000_000
HOSTS = ("a", "b", "c")
# In the order of their addresses on the bridge; one more makes no load, and asks the others to.
PLACES = ("server", *HOSTS, "coordinator")
FILES, SIZE, RATE = 240, 1_300, 300
APART_NS = 5_000_000
# How often a load is tried until this machine starts all hosts in time.
TIMES = 5
INT = npt.NDArray[np.int64]


# What a broker's process does in the place of laying its one cable. It gets the text of these functions, and nothing
# else from here.


def join(made: Any) -> None:
    """A bridge in a namespace of its own, and a cable to it from each of PLACES."""
    places = [(made.server, made._near), (made.generator, made._far)]
    places += [(made._made(), broker._netlink()) for _ in PLACES[2:]]
    made._made()
    switch = broker._netlink()
    with broker._step("a bridge"):
        ports = lay_cables(switch, [namespace for namespace, _ in places])
    with broker._step("addresses on the bridge"):
        ends = [give_addresses(near, namespace, str(last)) for last, (namespace, near) in enumerate(places, 1)]
        made.server_interface, made.interface = (index for _, index, _ in ends[:2])
        made.ipv6 = all(len(own) == 2 for _, _, own in ends)
        ends += [(switch, port, []) for port in ports]
        deadline = time.monotonic() + broker.UP_S
        while not all(near.is_up(index) and all(map(near.is_own, own)) for near, index, own in ends):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not up within {broker.UP_S:g} s")
            time.sleep(0.001)
    for name, (namespace, _) in zip(PLACES, places, strict=True):
        thread = broker._Side(namespace)
        broker._write(f"/proc/self/task/{thread.native_id}/comm", name.encode())
    broker.enter(made.server)
    made.low_ports = broker._write("/proc/sys/net/ipv4/ip_unprivileged_port_start", b"0")


def lay_cables(switch: Any, namespaces: list[int]) -> list[int]:
    """The bridge's ends of them; rtnetlink(7), and IFLA_MASTER of the kernel's if_link.h."""
    attribute, kind = broker._attribute, broker._INFO_KIND

    def made(name: bytes, info: bytes) -> int:
        word = attribute(broker._IFLA_IFNAME, name + b"\0")
        switch.ask(broker._NEW_LINK, broker._link(0) + word + attribute(broker._IFLA_LINKINFO, info))
        index = socket.if_nametoindex(name.decode())
        switch.up(index)
        return index

    bridge = made(b"bridge", attribute(kind, b"bridge"))
    ports = []
    for number, namespace in enumerate(namespaces):
        far = broker._link(0) + attribute(broker._IFLA_IFNAME, broker.INTERFACE.encode() + b"\0")
        far += attribute(broker._IFLA_NET_NS_FD, struct.pack("=I", namespace))
        data = attribute(broker._INFO_DATA, attribute(broker._VETH_INFO_PEER, far))
        ports.append(made(b"port%d" % number, attribute(kind, b"veth") + data))
        switch.ask(broker._NEW_LINK, broker._link(ports[-1]) + attribute(10, struct.pack("=I", bridge)), flags=0)
    return ports


def give_addresses(near: Any, namespace: int, last: str) -> tuple[Any, int, list[str]]:
    """What a namespace's end of its cable is: netlink, the interface, its addresses. The kernel may have no IPv6."""
    broker.enter(namespace)
    broker.Namespaces._quieten(near)  # it looks at nothing but this thread's namespace
    index = socket.if_nametoindex(broker.INTERFACE)
    own: list[str] = []
    near.up(1)
    near.up(index)
    for prefix, network in (("10.77.0.", "10.77.0.0/24"), ("fd77::", "fd77::/64")):
        try:
            near.add_address(index, prefix + last)
            near.add_route(index, network)
            own.append(prefix + last)
        except OSError:
            if not own:
                raise
    return near, index, own


# A program in one of the namespaces; who is in their user namespace already can't enter that once more (setns(2)).
_ENTER = """
import os, sys
sys.path.insert(0, sys.argv[1])
import broker
user, network = (os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in sys.argv[2:4])
if not os.path.sameopenfile(user, os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)):
    broker.enter(user)
broker.enter(network)
os.execvp(sys.argv[4], sys.argv[4:])
"""


class Request(NamedTuple):
    """A read request that came to the server: when, by the clock of all hosts, from where, and for what."""

    at_ns: int
    source: str
    name: str


class Bridge:
    """The namespaces, as long as it is open. Raises NetworkRefused."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "bridge.py"
        head = ["import os, socket, struct, sys, time", f"sys.path.insert(0, {str(Path(broker.__file__).parent)!r})"]
        head += ["import broker", "from typing import Any", f"PLACES = {PLACES!r}"]
        texts = [inspect.getsource(each) for each in (join, lay_cables, give_addresses)]
        tail = ["broker.Namespaces.join = join", "os._exit(broker.main(sys.argv[1:]))"]
        path.write_text("\n".join([*head, *texts, *tail]))
        self.network = Network(wants_root=True, program=path)
        named = {task.joinpath("comm").read_text().strip(): str(task)
                 for task in Path(f"/proc/{self.network.pid}/task").iterdir()}  # fmt: skip
        self.procs = {name: named[name] for name in PLACES}
        status = {name: os.stat(f"{proc}/ns/net") for name, proc in self.procs.items()}
        self.namespaces = {name: (each.st_dev, each.st_ino) for name, each in status.items()}
        assert len({*self.namespaces.values(), namespace_of(os.getpid())}) == 6

    def address(self, name: str, *, ipv6: bool = False) -> str:
        return f"{'fd77::' if ipv6 else '10.77.0.'}{PLACES.index(name) + 1}"

    def entering(self, name: str) -> list[str]:
        """What a command is put behind to run there."""
        where = [str(Path(broker.__file__).parent), f"/proc/{self.network.pid}/ns/user", f"{self.procs[name]}/ns/net"]
        return [sys.executable, "-I", "-S", "-c", _ENTER, *where]

    def counts(self) -> dict[str, UdpCounts]:
        found = {name: udp_counts(proc) for name, proc in self.procs.items()}
        return {name: each for name, each in found.items() if each is not None}

    def listener(self, *, ipv6: bool) -> socket.socket:
        """What gets each datagram to port 69 of the server (packet(7)), and has room for some hundreds of them."""
        made = self.network.socket(SERVER, socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        # Linux's filter.rst: is it UDP (17), and is its port 69?
        protocol, port = (6, [(0x28, 0, 0, 42)]) if ipv6 else (9, [(0xB1, 0, 0, 0), (0x48, 0, 0, 2)])
        steps = [(0x30, 0, 0, protocol), (0x15, 0, len(port) + 2, 17), *port, (0x15, 0, 1, 69), (0x06, 0, 0, 65535)]
        code = create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in [*steps, (0x06, 0, 0, 0)]))
        made.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", len(steps) + 1, addressof(code)))  # SO_ATTACH_FILTER
        made.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        made.bind((broker.INTERFACE, 0x86DD if ipv6 else 0x0800))
        made.setblocking(False)
        return made

    def close(self) -> list[int]:
        """The processes that were left in it, which are ended."""
        left = [pid for each in self.namespaces.values() for pid in holders(each) if pid != self.network.pid]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.network.close()
        return left


def requests(listener: socket.socket) -> list[Request]:
    """What it has heard since it was asked last."""
    found = []
    # CLOCK_REALTIME of the packet's time less CLOCK_MONOTONIC of the loads.
    ahead_ns = min(_ahead_ns() for _ in range(9))
    while True:
        try:
            packet, control, _, _ = listener.recvmsg(65536, 256)
        except BlockingIOError:
            break
        [(_, _, stamp)] = control
        seconds, ns = struct.unpack("=qq", stamp)
        head, source = (40, packet[8:24]) if packet[0] >> 4 == 6 else (4 * (packet[0] & 15), packet[12:16])
        tftp = packet[head + 8 :]
        if tftp[:2] == b"\0\1":
            name = tftp[2:].split(b"\0")[0].decode()
            found.append(Request(seconds * SECOND + ns - ahead_ns, str(ip_address(source)), name))
    _, dropped = struct.unpack("=II", listener.getsockopt(263, 6, 8))  # SOL_PACKET, PACKET_STATISTICS
    assert dropped == 0
    return found


def _ahead_ns() -> int:
    before_ns, ns = time.monotonic_ns(), time.time_ns()
    return ns - before_ns


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    """Skips where this machine makes none. In the end nothing is left in it."""
    try:
        made = Bridge(tmp_path)
    except NetworkRefused as error:
        pytest.skip(f"this machine makes no bridge of network namespaces: {error}")
    try:
        if made.network.packet_refusal:
            pytest.skip(f"packet sockets are refused: {made.network.packet_refusal}")
        yield made
    finally:
        left = made.close()
    assert left == []
    assert not runs(made.network.pid)
    for name, namespace in made.namespaces.items():
        assert holders(namespace) == [], f"something is left in the namespace of {name}"
        assert not openers(namespace), f"something holds the namespace of {name}"


def openers(namespace: tuple[int, int]) -> list[str]:
    """Descriptors by which a process holds it (network_namespaces(7))."""
    found = []
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(path) == f"net:[{namespace[1]}]":
                found.append(str(path))
        except OSError:
            continue
    return found


class BridgedServer(ServerProcess):
    """A server at its place on the bridge, which goes on when it ends."""

    def __init__(self, bridge: Bridge, address: str, manifest: Manifest, **options: Any) -> None:
        super().__init__(manifest, **{**options, "host": address, "port": 69, "in_network": True})
        self._bridge = bridge

    def _make_network(self) -> None:
        network = self._bridge.network
        self._place = Place(partial(network.socket, SERVER), partial(network.socket, GENERATOR), network.server_proc)

    def _namespaces(self) -> tuple[int, ...]:
        return self._bridge.network.descriptors[::-1]

    def udp_counts(self) -> UdpCounts | None:
        return self._bridge.counts()["server"]

    def strays(self) -> int | None:
        return sum(self._bridge.counts()[host].no_port for host in HOSTS)


class Bridged(LocalServerHost):
    """Where the runner starts its servers."""

    def __init__(self, bridge: Bridge, *, ipv6: bool = False) -> None:
        self._bridge, self._address = bridge, bridge.address("server", ipv6=ipv6)

    def server(self, manifest: Manifest, **options: Any) -> BridgedServer:
        return BridgedServer(self._bridge, self._address, manifest, **options)


class Kept(Local):
    """Agents in the namespaces. What they send is kept: each host's start, and its own result before it is merged."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(*HOSTS, entering=bridge.entering)
        self.starts_ns: dict[str, int] = {}
        self.results: dict[str, bytes] = {}

    def call(self, host: str, load_id: str, call: calls.Call, document: bytes, timeout_s: float) -> bytes:
        answer = super().call(host, load_id, call, document, timeout_s)
        if call == "go":
            self.starts_ns[host] = json.loads(document)["start_ns"]
            self.results.pop(host, None)
        elif call == "collect":
            self.results[host] = self.results.get(host, b"") + answer.partition(b"\n")[2]
        return answer


@pytest.fixture
def hosts(bridge: Bridge) -> Iterator[Kept]:
    made = Kept(bridge)
    try:
        yield made
    finally:
        made.close()
        assert not any(map(runs, made.pids.values()))


def measured(
    bridge: Bridge, hosts: Kept, folder: Path, *, ipv6: bool = False, rate: int = RATE, **changes: object
) -> Run:
    """One trial of our epoll server on the bridge. Neither side asks twice: what is counted twice was sent twice."""
    argv = ["{python}", "-P", "-m", "tftpbench.serve", "epoll", "--host", "{host}", "--port", "{port}",
            "--root", "{root}", "--max-transfers", "{concurrency}", "--timeout", "20s"]  # fmt: skip
    patient = written(bridge.folder, "patient", argv, "line", "{operations: [read], ipv6: true}")
    asked = scenario(
        servers=[str(patient)], trials=1, duration=None, transfers=FILES, distinct_files=FILES,
        matrix={"operation": "read", "rate": f"{rate}/s", "file_size": SIZE},
        client={"timeout": "20s", "retries": 1}, **changes,
    )  # fmt: skip
    place = Bridged(bridge, ipv6=ipv6)
    tools = Tools(generator=HostsGenerator(hosts, (), QUICK), host=place, conditions=lambda _: ())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tftpbench.measure.plan.LISTENS_ON", bridge.address("server"))  # so that hosts reach it
        patch.setattr("tftpbench.measure.session.approach", lambda *_: None)  # three more loads before it
        recording.run(asked, seed=1, out=folder, tools=tools, allow_remote=True)
    [path] = folder.iterdir()
    return load_run(path)


class Raw(NamedTuple):
    """What one host sent as its result."""

    figures: dict[str, Any]
    rows: dict[str, INT]

    @classmethod
    def of(cls, document: bytes) -> "Raw":
        line, _, payload = document.partition(b"\n")
        head = json.loads(line)
        values = np.frombuffer(payload[head["log_bytes"] :], "<i8")
        columns = values[: head["rows"]["transfers"] * len(calls.TABLES["transfers"])]
        each = columns.reshape(len(calls.TABLES["transfers"]), -1)
        return cls(head["figures"], dict(zip(calls.TABLES["transfers"], each, strict=True)))

    @property
    def schedule(self) -> list[tuple[int, int]]:
        """Each start, and when it was intended."""
        return list(zip(self.rows["number"].tolist(), self.rows["intended_start_ns"].tolist(), strict=True))

    def first(self, name: str) -> int:
        """Of its first start."""
        return int(self.rows[name][np.argmin(self.rows["intended_start_ns"])])


def tops(values: INT) -> INT:
    """The highest value that a histogram of three digits from 64 ns on does not tell from each of these."""
    _, bits = np.frexp(values.astype(float))
    width = 1 << (6 + np.maximum(0, bits - 17)).astype(np.int64)
    found: INT = (values // width + 1) * width - 1
    return found


def assert_histograms_are_those_of_all_rows(run: Run, raws: dict[str, Raw]) -> None:
    log = (run.path / "trials/1/latency.hlog").read_text()
    rows = {name: np.concatenate([raw.rows[name] for raw in raws.values()]) for name in calls.TABLES["transfers"]}
    intended, began, ended = (rows[name] for name in ("intended_start_ns", "actual_start_ns", "end_ns"))
    for kind, values in {
        "response": ended - intended, "service": ended - began, "transfer": ended - began,
        "first_response": rows["first_response_ns"] - began,
    }.items():  # fmt: skip
        assert buckets(log, kind) == Counter(tops(values).tolist()), kind
    ranked = np.sort(tops(ended - intended))
    for percent in (50, 95, 99):
        assert run.rows[0][f"response_ns_p{percent}"] == ranked[-(-len(ranked) * percent // 100) - 1]


def assert_each_start_is_one_request_of_its_host(bridge: Bridge, heard: list[Request], raws: dict[str, Raw],
                                                 *, ipv6: bool) -> None:  # fmt: skip
    expected = {
        (bridge.address(host, ipv6=ipv6), f"f-{number}"): 1
        for host, raw in raws.items() for number in raw.rows["number"].tolist()
    }  # fmt: skip
    assert Counter((each.source, each.name) for each in heard) == expected
    assert {name for _, name in expected} == {f"f-{number}" for number in range(FILES)}


def assert_counters_are_those_of_the_kernel(
    row: dict[str, Any], raws: dict[str, Raw], before: dict[str, UdpCounts], after: dict[str, UdpCounts]
) -> None:
    counted = {name: after[name].since(before[name]) for name in PLACES}
    assert {(each.no_buffer, each.no_port, each.bad_checksum) for each in counted.values()} == {(0, 0, 0)}
    for host, raw in raws.items():
        assert (raw.figures["datagrams_sent"], raw.figures["datagrams_received"]) == (
            counted[host].sent, counted[host].received,
        )  # fmt: skip
    assert row["datagrams_sent"] == row["server_udp_received"] == counted["server"].received
    assert row["datagrams_received"] == row["server_udp_sent"] == counted["server"].sent
    assert (row["started"], row["completed"], row["retransmissions"]) == (FILES, FILES, 0)
    assert row["bytes_verified"] == FILES * SIZE


@pytest.mark.parametrize("ipv6", [False, True], ids=["IPv4", "IPv6"])
def test_three_hosts_on_a_bridge_are_one_load(bridge: Bridge, hosts: Kept, tmp_path: Path, ipv6: bool) -> None:
    if ipv6 and not bridge.network.has_ipv6:
        pytest.skip("this machine has no IPv6")
    alone = measured(bridge, hosts, tmp_path / "alone", ipv6=ipv6, generators={"hosts": ["a"]})
    schedule = sorted(Raw.of(hosts.results["a"]).schedule)
    assert (alone.rows[0]["load_hosts"], len(schedule)) == (1, FILES)
    late, apart = list[str](), list[str]()
    with bridge.listener(ipv6=ipv6) as listener:
        for again in range(TIMES):
            requests(listener)
            before = bridge.counts()
            run = measured(bridge, hosts, tmp_path / str(again), ipv6=ipv6)
            after, heard, [row] = bridge.counts(), requests(listener), run.rows
            raws = {host: Raw.of(hosts.results[host]) for host in HOSTS}
            assert (row["load_hosts"], row["hosts_lost"]) == (3, None)
            assert sorted(pair for raw in raws.values() for pair in raw.schedule) == schedule
            assert_histograms_are_those_of_all_rows(run, raws)
            assert_each_start_is_one_request_of_its_host(bridge, heard, raws, ipv6=ipv6)
            assert_counters_are_those_of_the_kernel(row, raws, before, after)
            spread_ns, came_ns = first_starts(hosts, raws, heard)
            assert spread_ns <= 2 * row["start_spread_ns"]
            text = f"starts {spread_ns / 1e6:.3f} ms, said {row['start_spread_ns'] / 1e6:.3f}, at the server "
            print(f"first {text}{came_ns / 1e6:.3f} ms")
            if row["verdict"] != "valid":
                late.append(row["verdict_reason"])
                continue
            assert row["start_spread_ns"] < APART_NS
            if max(spread_ns, came_ns) < APART_NS:
                return
            apart.append(f"{text}{came_ns / 1e6:.3f} ms")
    assert len(apart) < TIMES, apart
    pytest.skip(f"this machine is too busy for a start of all hosts within 5 ms: {'; '.join(late + apart)}")


def first_starts(hosts: Kept, raws: dict[str, Raw], heard: list[Request]) -> tuple[int, int]:
    """How far apart they were, and came to the server, in ns of the one clock, but for when each was intended."""
    arrived = {each.name: each.at_ns for each in heard}
    intended = {host: raw.first("intended_start_ns") for host, raw in raws.items()}
    began = [hosts.starts_ns[host] + raw.first("actual_start_ns") - intended[host] for host, raw in raws.items()]
    came = [arrived[f"f-{raw.first('number')}"] - intended[host] for host, raw in raws.items()]
    return max(began) - min(began), max(came) - min(came)


def test_an_agent_that_is_killed_ends_the_load_of_all_and_nothing_is_left(
    bridge: Bridge, hosts: Kept, tmp_path: Path
) -> None:
    killed: list[int] = []

    def before(host: str, call: str) -> None:
        if (host, call) == ("a", "poll") and "b" in hosts.starts_ns and not killed:
            at_ns = hosts.starts_ns["b"] + SECOND // 5
            until(lambda: time.monotonic_ns() > at_ns, "its start does not come")
            killed.append(hosts.pids["b"])
            os.kill(killed[0], signal.SIGKILL)

    hosts.before = before
    with bridge.listener(ipv6=False) as listener:
        with pytest.raises(HostsError, match=r"^load host lost: b: its agent was ended by SIGKILL; "):
            measured(bridge, hosts, tmp_path / "out", rate=30)
        heard = requests(listener)
    assert max(Counter(each.name for each in heard).values()) == 1
    assert len(heard) < FILES
    [row] = load_run(next((tmp_path / "out").iterdir())).rows
    assert (row["verdict"], row["hosts_lost"]) == ("invalid", "b: its agent was ended by SIGKILL")
    assert row["verdict_reason"].startswith("load host lost: b: its agent was ended by SIGKILL")
    assert not any(map(runs, hosts.pids.values()))
    for name in PLACES:
        assert holders(bridge.namespaces[name]) == ([bridge.network.pid] if name == "server" else [])


# With Dask's own workers: each command runs in a namespace, and what they say to each other goes over the bridge, too.


class Cluster:
    """`tftpbench hosts up` in the coordinator's namespace, with an `ssh` that enters that of the host it is given."""

    def __init__(self, bridge: Bridge, folder: Path) -> None:
        self._bridge, self._folder = bridge, folder
        here, lines = bridge.address("coordinator"), []
        for host in HOSTS:
            entering = shlex.join(bridge.entering(host))
            lines.append(f"{host}) export SSH_CONNECTION='{here} 9 {bridge.address(host)} 22'; exec {entering} "
                         'sh -c "$last" ;;')  # fmt: skip
        script = ["#!/bin/sh", "for word; do place=$last last=$word; done", 'case "$place" in', *lines, "esac"]
        (folder / "ssh").write_text("\n".join([*script, ""]))
        (folder / "ssh").chmod(0o700)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """A command of tftpbench there."""
        env = {**os.environ, "PATH": f"{self._folder}:{os.environ['PATH']}"}
        env |= {f"XDG_{name}_HOME": str(self._folder / name) for name in ("CONFIG", "STATE")}
        # Without the three smaller loads that go before one to another machine: 20 s, and requests for the same names.
        program = f"from tftpbench.host import brake\nbrake.approach = lambda *_: None\n{PROGRAM}"
        argv = [*self._bridge.entering("coordinator"), sys.executable, "-c", program, *words]
        return subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def done(self, *words: str, meanwhile: Callable[[], object] = lambda: None) -> tuple[int, str, str]:
        """Its exit code, and what it printed."""
        with self.start(*words) as process:
            try:
                meanwhile()
                out, err = process.communicate(timeout=120)
            finally:
                process.kill()
        return process.returncode, out, err

    def agent(self, host: str) -> int:
        """The process below a worker that holds its generator."""
        [path] = (self._folder / "STATE/tftpbench/hosts").glob(f"worker-*-{host}/pid")
        [agent] = descendants(json.loads(path.read_text())[0])
        return agent


@pytest.fixture
def dask(bridge: Bridge, tmp_path: Path) -> Iterator[tuple[Cluster, str]]:
    if not cluster._has_dask():
        pytest.skip("the extra `hosts` is not installed")
    made = Cluster(bridge, tmp_path)
    assert made.done("hosts", "init")[0] == 0
    try:
        code, out, err = made.done("hosts", "up", *(f"{host}:{sys.executable}" for host in HOSTS), "--port", "0")
        assert code == 0, out + err
        [address] = re.findall(r"--dask (tls://\S+)", out)
        assert address.startswith(f"tls://{bridge.address('coordinator')}:")
        yield made, address
    finally:
        assert made.done("hosts", "down")[0] == 0


def test_workers_of_dask_on_a_bridge_do_one_load_and_end_with_the_first_that_is_lost(
    bridge: Bridge, dask: tuple[Cluster, str], tmp_path: Path
) -> None:
    made, address = dask
    (root := tmp_path / "root").mkdir()
    for number in range(FILES):
        write_contents(root / f"f-{number}", 1, number, SIZE)
    load = ["load", f"{bridge.address('server')}:69", "--read", "f-{n}", "--timeout", "20s", "--allow-remote",
            "--busy-poll", "0s", "--dask", address]  # fmt: skip
    with (
        BridgedServer(bridge, bridge.address("server"), manifest("epoll"), root=root, log=tmp_path / "log",
                      concurrency=1_000),
        bridge.listener(ipv6=False) as listener,
    ):  # fmt: skip
        found, heard = one_load(made, load, listener)
        assert (found["load_hosts"], found["started"], found["completed"]) == (3, FILES, FILES)
        assert Counter(each.name for each in heard) == {f"f-{number}": 1 for number in range(FILES)}
        places = {bridge.address(host): place for place, host in enumerate(HOSTS)}
        assert all(int(each.name[2:]) % 3 == places[each.source] for each in heard)
        assert found["verdict"] != "valid" or found["start_spread_ns"] < APART_NS

        names: list[str] = []

        def hears_more() -> bool:
            names.extend(each.name for each in requests(listener))
            return len(names) > 5

        def kill_one() -> None:
            until(hears_more, "no load")
            os.kill(made.agent("b"), signal.SIGKILL)

        code, out, err = made.done(*load, "--rate", "10/s", "-n", str(FILES), meanwhile=kill_one)
        hears_more()
        assert len({*names}) == len(names) < FILES
        assert code == 3
        assert "load host lost: b: its agent was ended by SIGKILL" in out + err


def one_load(made: Cluster, load: list[str], listener: socket.socket) -> tuple[dict[str, Any], list[Request]]:
    """What it found and what came of it: of the first valid one, else of the last.

    Skips where each time a host does not get to answer for 3 s.
    """
    found: list[tuple[dict[str, Any], list[Request]]] = []
    for _ in range(3):
        code, out, err = made.done(*load, "--json", "--rate", f"{RATE}/s", "-n", str(FILES))
        heard = requests(listener)
        if "did not answer within" in out + err or "no answer to" in out + err:
            continue
        assert code == 0, out + err
        found.append((json.loads(out), heard))
        print({name: found[-1][0][name] for name in ("verdict", "start_spread_ns", "clock_error_ns_max")})
        if found[-1][0]["verdict"] == "valid":
            break
    if not found:
        pytest.skip(f"this machine is too busy for its load hosts: {err}")
    return found[-1]


# From two hosts and from one ------------------------------------------------------------------------------------------

REPEATS, TEN_S = 4, 10 * SECOND


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_two_hosts_at_the_rate_of_one_are_the_load_of_one(bridge: Bridge, hosts: Kept, tmp_path: Path) -> None:
    """Prints the figures: they say something of a quiet machine alone, where each host has a core beside the server.

    Each load is held against the one before it: those from as many hosts differ by what this machine does meanwhile.
    """
    (root := tmp_path / "root").mkdir()
    write_contents(root / "f", 1, 0, 65_536)
    asked = LoadConfig(
        host=bridge.address("server"), port=69, operation="read", name="f", file_size_bytes=65_536, verify="off",
        rate_per_s=100.0, duration_ns=TEN_S, concurrency=1_000, busy_poll_us=0, allow_remote=True,
    )  # fmt: skip
    generator = HostsGenerator(hosts, (), QUICK)
    with BridgedServer(bridge, asked.host, manifest("epoll"), root=root, log=tmp_path / "log", concurrency=1_000):
        counts = [1, 1, 2, 2] * REPEATS
        results = [generator.taking(HOSTS[:count]).run(asked, Stop()) for count in counts]
    starts, distances = Counter[int](), defaultdict[str, list[float]](list)
    for count, result in zip(counts, results, strict=True):
        starts[count] += int(result.figures["started"] or 0)
    for (before, one), (after, other) in pairwise(zip(counts, map(responses, results), strict=True)):
        distances[f"{min(before, after)} and {max(before, after)}"].append(ks(one, other))
    print(f"\nstarts {dict(starts)}, of the schedule {2 * REPEATS * 1_000}")
    for what, values in distances.items():
        print(f"KS of responses from {what}: median {np.median(values):.3f}, {min(values):.3f} to {max(values):.3f}")
    for count in (1, 2):
        those = [result for number, result in zip(counts, results, strict=True) if number == count]
        lag = np.array([result.figures["schedule_lag_ns_p99"] or 0 for result in those]) / 1e6
        p50, p99 = (np.median([np.percentile(responses(each), q) for each in those]) / 1e6 for q in (50, 99))
        print(f"from {count}: lag p99 median {np.median(lag):.3f} ms, {lag.min():.3f} to {lag.max():.3f}; "
              f"response p50 {p50:.2f} ms, p99 {p99:.2f} ms")  # fmt: skip
    assert abs(starts[2] - starts[1]) <= starts[1] / 100
    assert np.median(distances["1 and 2"]) <= max(0.1, *distances["1 and 1"], *distances["2 and 2"])


def responses(result: LoadResult) -> INT:
    rows = result.transfers
    done = rows["outcome"] == 0
    return np.sort(rows["end_ns"][done] - rows["intended_start_ns"][done])


def ks(one: INT, other: INT) -> float:
    """The largest distance of two distributions (Kolmogorov, Smirnov)."""
    both = np.concatenate([one, other])
    shares = [np.searchsorted(each, both, side="right") / each.size for each in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())
