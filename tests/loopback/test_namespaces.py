"""Servers in networks of their own: made without privileges, refused in one line, and gone whatever is killed."""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.loopback import machine
from tests.loopback.machine import TINY, bundled, runs, tiny, tiny_manifest, until, written
from tests.loopback.test_run import PATIENCE_S, done, rows, tftpbench, write_scenario
from tftpbench.host.ceiling import CeilingCell, CeilingNetwork, candidates, measure
from tftpbench.host.choice import manifest
from tftpbench.host.generator import LoadConfig, in_network
from tftpbench.host.headroom import WINDOW_NS, load_null_server
from tftpbench.host.network import GENERATOR, SERVER, Network, NetworkGone, NetworkRefused, broker
from tftpbench.host.presence import Missing, locate
from tftpbench.host.server import ServerProcess
from tftpbench.host.server.sockets import udp_counts
from tftpbench.host.server.supervisor import descendants
from tftpbench.model.errors import ServerDied, ServerNotReady
from tftpbench.model.manifest import Manifest, load_manifest

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[2]
# A user namespace of one user, in which further namespaces of these kinds are refused (namespaces(7)).
_CONFINED = """
import os, sys
sys.path.insert(0, sys.argv[1])
import broker
inside, kinds, argv, uid, gid = sys.argv[2], sys.argv[3].split(), sys.argv[4:], os.geteuid(), os.getegid()
broker.unshare(broker._CLONE_NEWUSER)
broker._write_or_raise("/proc/self/setgroups", b"deny")
broker._write_or_raise("/proc/self/uid_map", f"{inside} {uid} 1".encode())
broker._write_or_raise("/proc/self/gid_map", f"{inside} {gid} 1".encode())
for kind in kinds:
    broker._write_or_raise(f"/proc/sys/user/max_{kind}_namespaces", b"0")
os.execvp(argv[0], argv)
"""
_MAKE = """
from tftpbench.host.network import Network, NetworkRefused
try:
    with Network() as made:
        print("made", made.ids, made.packet_refusal)
except NetworkRefused as error:
    print("refused", error)
"""


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    """Skips where this machine makes none."""
    try:
        Network().close()
    except NetworkRefused as error:
        pytest.skip(f"this machine makes no network namespaces: {error}")


def confined(*argv: str, root: bool = False, without: str = "") -> "subprocess.CompletedProcess[str]":
    """What a command does as a user without privileges, or as one that is root there, refused these namespaces."""
    words = [sys.executable, "-I", "-S", "-c", _CONFINED, str(Path(broker.__file__).parent)]
    done = subprocess.run(
        [*words, "0" if root else "1000", without, *argv],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    if "broker.unshare" in done.stderr or "_write_or_raise" in done.stderr:
        pytest.skip(f"this machine does not let a test confine itself: {done.stderr.splitlines()[-1]}")
    return done


def changed(folder: Path, *lines: str) -> Path:
    """The broker with some of its calls replaced: a failure where the kernel is asked."""
    path = folder / "changed.py"
    head = ["import errno, os, socket, sys", f"sys.path.insert(0, {str(Path(broker.__file__).parent)!r})"]
    path.write_text("\n".join([*head, "import broker", *lines, "os._exit(broker.main(sys.argv[1:]))"]))
    return path


def server(folder: Path, made_of: Manifest, **options: Any) -> ServerProcess:
    settings = {"root": folder, "log": folder / "log", "ready_timeout_s": 60.0, "in_network": True, **options}
    return ServerProcess(made_of, **settings)


def asked(running: ServerProcess, name: str = "absent") -> bytes:
    """What a client of the server's own network gets as its first answer."""
    assert running.network is not None
    with running.network.socket(GENERATOR, socket.AF_INET) as client:
        client.settimeout(60)
        client.sendto(b"\0\1%s\0octet\0" % name.encode(), (running.host, running.port))
        return client.recv(1000)


def holders(namespace: tuple[int, int]) -> list[int]:
    """Processes that are in a network namespace."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            status = os.stat(f"/proc/{pid}/ns/net")
            found += [int(pid)] * ((status.st_dev, status.st_ino) == namespace)
    return found


def namespace_of(pid: int) -> tuple[int, int]:
    status = os.stat(f"/proc/{pid}/ns/net")
    return status.st_dev, status.st_ino


@pytest.mark.parametrize(("family", "machines"), [
    (socket.AF_INET, ["10.128.0.1", "10.150.2.3"]),
    (socket.AF_INET6, ["fd74:6674:7000:2::1", "fd74:6674:7000:2:3::4"]),
])  # fmt: skip
def test_machines_have_addresses_of_their_own_and_the_kernel_counts_each_side(
    family: socket.AddressFamily, machines: list[str]
) -> None:
    with Network() as network:
        if family == socket.AF_INET6 and not network.has_ipv6:
            pytest.skip("this machine has no IPv6")
        listening = network.socket(SERVER, family)
        listening.bind((network.server_address(ipv6=family == socket.AF_INET6), 69))
        listening.settimeout(60)
        for address in machines:
            with network.socket(GENERATOR, family) as client:
                client.bind((address, 0))
                client.settimeout(60)
                client.sendto(b"there", listening.getsockname())
                data, peer = listening.recvfrom(100)
                assert (data, peer[0]) == (b"there", address)
                listening.sendto(b"back", peer)
                assert client.recv(100) == b"back"
        ours, theirs = udp_counts(network.server_proc), udp_counts(network.generator_proc)
        assert ours is not None
        assert theirs is not None
        assert (ours.received, ours.sent, theirs.received, theirs.sent) == (2, 2, 2, 2)
        listening.close()
        with network.socket(GENERATOR, family) as client:
            client.sendto(b"late", (network.server_address(ipv6=family == socket.AF_INET6), 69))
        until(lambda: (found := udp_counts(network.server_proc)) and found.no_port == 1, "it was not counted")


def test_a_network_is_gone_when_it_is_closed() -> None:
    network = Network()
    pid, namespace = network.pid, namespace_of(network.pid)
    network.close()
    network.close()
    assert not runs(pid)
    assert holders(namespace) == []


def test_a_broker_answers_what_is_no_request_with_an_error() -> None:
    with Network() as network:
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            network.socket(7, socket.AF_INET)
        with pytest.raises(OSError, match=os.strerror(errno.EAFNOSUPPORT)):
            network.socket(GENERATOR, 4242)
        network.socket(GENERATOR, socket.AF_INET).close()


@pytest.mark.parametrize(("root", "without", "said"), [
    (False, "", "made single"),
    (True, "", "made single"),
    (True, "user", "made outside"),
    (False, "user", "refused user namespaces: no more than user.max_user_namespaces allows"),
    (False, "user net", "refused user namespaces: no more than user.max_user_namespaces allows"),
    (True, "user net", "refused network namespaces: no more than user.max_net_namespaces allows"),
    (False, "net", "refused network namespaces: no more than user.max_net_namespaces allows"),
])  # fmt: skip
def test_what_a_machine_refuses_is_the_reason_in_one_line(root: bool, without: str, said: str) -> None:
    done = confined(sys.executable, "-c", _MAKE, root=root, without=without)
    assert done.stdout.strip() == said, done.stderr


@pytest.mark.parametrize(("lines", "said"), [
    (["def add_cable(*_): raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))",
      "broker.Netlink.add_cable = add_cable"], "a veth pair: Operation not supported"),
    (["def up(*_): raise OSError(errno.EPERM, 'Operation not permitted')", "broker.Netlink.up = up"],
     "addresses of the pair: Operation not permitted"),
    (["def opened(*_): raise OSError(errno.EACCES, 'Permission denied')", "broker.Netlink.__init__ = opened"],
     "netlink sockets: Permission denied"),
    (["def enter(_): raise OSError(errno.EPERM, 'Operation not permitted')", "broker.enter = enter"],
     "entering a namespace: Operation not permitted"),
    (["def fork(): raise OSError(errno.EAGAIN, 'Resource temporarily unavailable')", "os.fork = fork"],
     "two namespaces: Resource temporarily unavailable"),
    (["broker.Netlink.is_up, broker.UP_S = lambda *_: False, 0.0"], "a veth pair: not up within 0 s"),
    (["os._exit(3)"], "the process that makes it ended before it was ready"),
])  # fmt: skip
def test_a_network_that_can_not_be_made_is_refused_with_nothing_left(
    tmp_path: Path, lines: list[str], said: str
) -> None:
    before = set(descendants(os.getpid()))
    with pytest.raises(NetworkRefused, match=f"^{said}$"):
        Network(program=changed(tmp_path, *lines))
    assert set(descendants(os.getpid())) <= before


def test_a_network_that_is_not_ready_in_time_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wait in ("START_S", "END_S"):
        monkeypatch.setattr(f"tftpbench.host.network.{wait}", 0.0)
    waits = changed(tmp_path, "import select", "select.poll().poll()")
    with pytest.raises(NetworkRefused, match=r"^the process that makes it was not ready within 0 s$"):
        Network(program=waits)


@pytest.mark.parametrize("call", ["is_up", "is_own"])
def test_a_network_is_not_ready_before_both_its_ends_receive(tmp_path: Path, call: str) -> None:
    asked = tmp_path / "asked"
    asked.write_text("")
    lines = [
        f"call, pending = broker.Netlink.{call}, {{}}",
        "def late(self, what):",
        f"    print('asked', file=open({str(asked)!r}, 'a'))",
        "    pending[self] = pending.get(self, 3) - 1",
        "    return pending[self] < 0 and call(self, what)",
        f"broker.Netlink.{call} = late",
    ]
    with Network(program=changed(tmp_path, *lines)):
        assert len(asked.read_text().splitlines()) >= 8


def test_a_machine_without_ipv6_or_packet_sockets_has_the_rest(tmp_path: Path) -> None:
    lines = [
        "add, opened = broker.Netlink.add_address, socket.socket",
        "def add_address(self, index, address):",
        "    if ':' in address: raise OSError(errno.EOPNOTSUPP, 'Operation not supported')",
        "    add(self, index, address)",
        "class Opened(opened):",
        "    def __init__(self, family=-1, *rest, **more):",
        "        if family == socket.AF_PACKET: raise OSError(errno.EPERM, 'Operation not permitted')",
        "        super().__init__(family, *rest, **more)",
        "broker.Netlink.add_address, broker.socket.socket = add_address, Opened",
    ]
    with Network(program=changed(tmp_path, *lines)) as network:
        assert not network.has_ipv6
        assert network.packet_refusal == "Operation not permitted"
        with network.socket(SERVER, socket.AF_INET) as listening, network.socket(GENERATOR, socket.AF_INET) as client:
            listening.bind((network.server_address(), 0))
            listening.settimeout(60)
            client.sendto(b"there", listening.getsockname())
            assert listening.recv(100) == b"there"


@pytest.mark.parametrize("ready", ["line", "answer"])
def test_a_server_is_started_probed_and_ended_in_its_network(tmp_path: Path, ready: str) -> None:
    running = server(tmp_path, tiny_manifest(tmp_path, "ok", ready))
    with running:
        assert running.network is not None
        namespace = namespace_of(running.network.pid)
        assert namespace != namespace_of(os.getpid())
        assert asked(running)[:4] == b"\0\5\0\1"
        assert running.answers(60)
        assert running.usage().cpu_ns
        assert running.buffers is not None
        counts = running.udp_counts()
        assert counts is not None
        assert counts.received >= 2
    assert vars(running)["network"] is None
    until(lambda: not holders(namespace), "something is left in the namespace")


def fixed(folder: Path, *arguments: str, ready: str = "answer", port: str = "fixed_port: 69") -> Manifest:
    """A server that can listen on port 69 alone."""
    path = written(folder, "fixed", [sys.executable, str(TINY), *arguments, "{root}"], ready, "{operations: [read]}")
    path.write_text(f"{path.read_text()}\n{port}\n")
    return load_manifest(path)


def test_servers_of_one_fixed_port_run_side_by_side(tmp_path: Path) -> None:
    only = fixed(tmp_path, "ok", "{host}", "69")
    with server(tmp_path, only) as one, server(tmp_path, only, log=tmp_path / "other") as other:
        assert one.port == other.port == 69
        assert asked(one)[:2] == asked(other)[:2] == b"\0\5"


@pytest.mark.parametrize("ready", ["answer", "line"])
def test_a_server_that_insists_on_loopback_is_one_line_that_says_so(tmp_path: Path, ready: str) -> None:
    patience_s = 3.0 if ready == "answer" else 60.0
    with pytest.raises(ServerNotReady) as raised:
        server(tmp_path, fixed(tmp_path, "ok", "127.0.0.1", "69", ready=ready), ready_timeout_s=patience_s).start()
    assert "listens on loopback, and not on 10.255.255.1" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_server_that_exits_leaves_no_network(tmp_path: Path) -> None:
    before = set(descendants(os.getpid()))
    with pytest.raises(ServerDied, match="exit code 3"):
        server(tmp_path, tiny_manifest(tmp_path, "exits")).start()
    assert set(descendants(os.getpid())) <= before


def test_many_networks_stand_side_by_side(tmp_path: Path) -> None:
    made = tiny_manifest(tmp_path, "ok")
    with contextlib.ExitStack() as stack:
        all_of_them = [stack.enter_context(server(tmp_path, made, log=tmp_path / f"log-{n}")) for n in range(10)]
        networks = [each.network for each in all_of_them if each.network is not None]
        namespaces = [namespace_of(network.pid) for network in networks]
        assert len({*namespaces}) == 10
        assert {asked(each)[:2] for each in all_of_them} == {b"\0\5"}
    until(lambda: not any(map(holders, namespaces)), "something is left in a namespace")


@pytest.mark.parametrize("victim", ["broker", "server", "supervisor"])
def test_whoever_is_killed_nothing_is_left(tmp_path: Path, victim: str) -> None:
    with server(tmp_path, tiny_manifest(tmp_path, "ok")) as running:
        network, own = running.network, running._supervisor
        assert network is not None
        assert own is not None
        assert own.pid is not None
        namespace = namespace_of(network.pid)
        pid = {"broker": network.pid, "server": own.pid, "supervisor": own._process.pid}[victim]
        os.kill(pid, signal.SIGKILL)
        if victim == "broker":
            until(lambda: not runs(pid), "the broker lives")
            with pytest.raises(NetworkGone, match="was killed"):
                network.socket(GENERATOR, socket.AF_INET)
            assert running.udp_counts() is None
            running.check_alive()
        else:
            until(lambda: not running.alive(), "the server is still there")
            with pytest.raises(ServerDied):
                running.check_alive()
    until(lambda: not holders(namespace), "something is left in the namespace")


def test_when_the_runner_is_killed_nothing_is_left(tmp_path: Path) -> None:
    path = tiny(tmp_path, "ok")
    script = [
        "import signal, sys; from pathlib import Path",
        "from tftpbench.host.server import ServerProcess; from tftpbench.model.manifest import load_manifest",
        f"folder = Path({str(tmp_path)!r}); made = load_manifest(Path({str(path)!r}))",
        "running = ServerProcess(made, root=folder, log=folder / 'log', in_network=True)",
        "running.start(); print(running.network.pid, flush=True); signal.pause()",
    ]
    process = subprocess.Popen([sys.executable, "-c", "\n".join(script)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as stream:
        namespace = namespace_of(int(stream.readline()))
    tree = descendants(process.pid)
    assert len(holders(namespace)) == 2, "the broker and the server"
    process.kill()
    process.wait(60)
    until(lambda: not any(map(runs, tree)) and not holders(namespace), "something outlived the runner")


@pytest.fixture(params=["dnsmasq", "busybox", "tftpd-hpa", "atftpd"])
def other(request: pytest.FixtureRequest) -> Manifest:
    chosen = manifest(request.param)
    found = locate(chosen, in_network=True)
    if isinstance(found, Missing):
        pytest.skip(f"{chosen.name}: {found.reason}; get it: {found.get}")
    return chosen


def test_other_peoples_servers_run_there_without_root(other: Manifest, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o055)
    (tmp_path / "f").write_bytes(b"hello")
    (tmp_path / "f").chmod(0o644)
    script = [
        "import sys; from pathlib import Path; from tests.loopback.test_namespaces import asked, server",
        "from tftpbench.host.choice import manifest",
        "with server(Path(sys.argv[2]), manifest(sys.argv[1])) as running: print(asked(running, 'f'))",
    ]
    argv = [sys.executable, "-c", "\n".join(script), other.name, str(tmp_path)]
    is_confined = other.privileges is None  # a user alone is no root that knows other users
    done = confined(*argv) if is_confined else subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )  # fmt: skip
    assert done.stdout.strip() == repr(b"\0\3\0\1hello"), done.stderr


def one_read(folder: Path, network: str) -> list[str]:
    changes: dict[str, object] = {"operation": "read", "concurrency": 3, "file_size": "16KiB"}
    path = write_scenario(
        folder,
        [tiny(folder, "ok")],
        matrix=changes,
        trials=1,
        placement={"network": network},
        client={"sockets": "shared"},
    )
    return [sys.executable, "-c", machine.PROGRAM, "run", str(path), "--out", str(folder / "results"), "--seed", "1"]


def test_auto_measures_over_loopback_where_namespaces_are_refused_and_says_so(tmp_path: Path) -> None:
    done = confined(*one_read(tmp_path, "auto"), without="user")
    assert done.returncode == 0, done.stderr
    assert "measured over loopback: this machine makes no namespaces (user namespaces: " in done.stderr
    assert " over loopback." in done.stdout
    (path,) = (tmp_path / "results").glob("*/trials.jsonl")
    assert {json.loads(line)["network"] for line in path.read_text().splitlines()} == {"loopback"}


def test_who_insists_on_a_namespace_that_is_refused_gets_one_line(tmp_path: Path) -> None:
    done = confined(*one_read(tmp_path, "namespace"), without="user")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "placement.network is namespace, and this machine makes none (user namespaces: " in line
    assert "allowed: loopback" in line
    assert not (tmp_path / "results").exists()


def test_a_run_in_a_namespace_counts_what_the_kernel_counts(tmp_path: Path) -> None:
    scenario = write_scenario(
        tmp_path, [bundled(tmp_path, "epoll")], placement={"network": "namespace"}, matrix={
            "operation": ["read", "write"], "concurrency": [3, 30], "file_size": "16KiB"}, transfers=60, trials=1,
    )  # fmt: skip
    status, out, err = done(tmp_path, "run", str(scenario), "--seed", "1")
    assert status == 0, out + err
    assert "in network namespaces." in out
    found = rows(tmp_path)
    assert {(row["network"], row["verdict"]) for row in found} == {("namespace", "valid")}
    for row in found:
        assert row["datagrams_sent"] == row["server_udp_received"]
        assert row["datagrams_received"] == row["server_udp_sent"]
        assert row["generator_sockets"] in ("ring", "shared")
        known = row["ceiling_data_pps"]
        assert row["ceiling_ratio"] == (None if known is None else pytest.approx(row["data_pps"] / known))
    manifest = json.loads(next(tmp_path.glob("results/*/manifest.json")).read_text())
    assert {each["cell_key"] for each in manifest["generator_full"]} == {row["cell_key"] for row in found}
    assert [row["generator_headroom"] for row in found] == [
        pytest.approx(each["data_pps"] / row["data_pps"]) if each["data_pps"] else None
        for row in found for each in manifest["generator_full"] if each["cell_key"] == row["cell_key"]
    ]  # fmt: skip


@pytest.mark.parametrize("operation", ["read", "write"])
def test_every_arrangement_of_a_ceiling_moves_datagrams_in_a_network(operation: Literal["read", "write"]) -> None:
    with Network() as network:
        cell = CeilingCell(operation=operation, flows=20, network=CeilingNetwork.of(network))
        found = candidates(cell)
        assert any(each.ring for each in found) == (not network.packet_refusal)
        for arrangement in found:
            assert moved(lambda ns, way=arrangement: measure(cell, way, warm_up_ns=0, window_ns=ns).data_pps > 0)  # type: ignore[misc]
        windows = replace(cell, windowsize=8, blksize=1428)
        way = candidates(windows)[0]
        assert moved(lambda ns: measure(windows, way, warm_up_ns=0, window_ns=ns).data_pps > 0)


@pytest.mark.parametrize("operation", ["read", "write"])
@pytest.mark.parametrize(("sockets", "ipv6"), [("ring", False), ("ring", True), ("shared", False)])
@pytest.mark.parametrize("blksize", [512, 1400])
def test_a_null_server_serves_whole_transfers(
    operation: Literal["read", "write"], sockets: Literal["ring", "shared"], ipv6: bool, blksize: int
) -> None:
    with Network() as network:
        if network.packet_refusal:
            pytest.skip(f"packet sockets are refused: {network.packet_refusal}")
        if ipv6 and not network.has_ipv6:
            pytest.skip("this machine has no IPv6")
        asked = LoadConfig(
            host=network.server_address(ipv6=ipv6), port=0, operation=operation, name="", file_size_bytes=20_000,
            concurrency=5, blksize=blksize, sockets=sockets, timeout_ns=100_000_000, duration_ns=WINDOW_NS,
        )  # fmt: skip
        config = in_network(asked, network)

        def went_well(window_ns: int) -> bool:
            found = load_null_server(config, network, None, window_ns=window_ns)
            assert 0 <= found.null_busy_fraction <= 1
            return found.is_whole and found.data_pps > 0

        assert moved(went_well)
        counts = udp_counts(network.server_proc)
        assert counts is not None
        assert counts.received > 0, "its datagrams go to a socket, as a server's do"


def moved(in_a_window: Callable[[int], bool]) -> bool:
    """On a busy machine a side may not get to run inside a short window, so the next one is longer."""
    return any(in_a_window(window_ms * 1_000_000) for window_ms in (20, 100, 500, 2_500, 10_000))


def test_windows_large_blocks_and_boots_of_them_go_over_sockets(tmp_path: Path) -> None:
    changes: dict[str, object] = {"windowsize": [1, 4], "blksize": [512, 4096], "operation": "read", "concurrency": 3}
    scenario = write_scenario(
        tmp_path, [bundled(tmp_path, "epoll")], placement={"network": "namespace"},
        matrix=[{**changes, "file_size": "16KiB"}], transfers=12, trials=1,
    )  # fmt: skip
    status, out, err = done(tmp_path, "run", str(scenario), "--seed", "1")
    assert status == 0, out + err
    used = {(row["windowsize"], row["blksize"]): row["generator_sockets"] for row in rows(tmp_path)}
    assert {asked for asked, sockets in used.items() if sockets == "ring"} <= {(1, 512)}
    [row] = booted(tmp_path, {"boot": "uefi", "machines": 5})
    assert row["generator_sockets"] == "shared", "it asks for windows"


def booted(folder: Path, matrix: dict[str, object], **changes: object) -> list[dict[str, Any]]:
    """The rows of a storm in a namespace, in which every machine came up."""
    scenario = write_scenario(
        folder, [bundled(folder, "epoll")], placement={"network": "namespace"}, matrix=matrix, transfers=None, trials=1,
        thresholds=[f"booted == {matrix['machines']}", "content_mismatches == 0"], **changes,
    )  # fmt: skip
    document = json.loads(scenario.read_text())
    scenario.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    (folder / "boots").mkdir()
    status, out, err = done(folder / "boots", "run", str(scenario), "--seed", "1")
    assert status == 0, out + err
    return rows(folder / "boots")


@pytest.mark.usefixtures("network")
def test_a_thousand_machines_boot_at_once_from_one_ring(tmp_path: Path) -> None:
    """docs/network.md has the command for 10,000."""
    [row] = booted(tmp_path, {"boot": "bios-pxelinux", "machines": 1000, "over": "0s"}, deadline="120s")
    assert (row["generator_sockets"], row["verdict"]) == ("ring", "valid"), row["verdict_reason"]
    assert (row["machines"], row["booted"], row["boots_failed"]) == (1000, 1000, 0)


@pytest.mark.parametrize("victim", ["runner", "broker"])
def test_a_run_whose_runner_or_broker_is_killed_leaves_nothing(tmp_path: Path, victim: str) -> None:
    scenario = write_scenario(
        tmp_path, [bundled(tmp_path, "epoll")], placement={"network": "namespace"}, transfers=None, duration="5s",
        matrix={"operation": "read", "concurrency": 3, "file_size": "16KiB"}, trials=1, thresholds=[],
    )  # fmt: skip
    document = json.loads(scenario.read_text())
    scenario.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    process = tftpbench(tmp_path, "run", str(scenario), "--seed", "1")
    found: list[int] = []
    until(lambda: found.__iadd__(loaded_brokers(process.pid)), "no load came to begin", PATIENCE_S)
    namespace, tree = namespace_of(found[0]), descendants(process.pid)
    os.kill(process.pid if victim == "runner" else found[0], signal.SIGKILL)
    out, err = process.communicate(timeout=PATIENCE_S)
    if victim == "broker":
        assert process.returncode == 0, out + err
        (row,) = rows(tmp_path)
        assert row["verdict"] == "invalid"
        assert "nothing was counted in the server's network: its process was killed" in row["verdict_reason"]
    until(lambda: not any(map(runs, tree)) and not holders(namespace), "something outlived the run")


@pytest.mark.parametrize("network", ["loopback", "namespace"])
@pytest.mark.parametrize("words", [["--read", "f-{n}", "--size", "2KiB"], ["--write", "f-{n}"]])
def test_load_starts_a_server_for_itself(network: str, words: list[str], tmp_path: Path) -> None:
    argv = ["load", "--server", "epoll", "--network", network, *words, "--transfers", "40", "-c", "3", "--json"]
    status, out, err = done(tmp_path, *argv)
    assert status == 0, out + err
    found = json.loads(out)
    assert (found["completed"], found["content_mismatches"]) == (40, 0)
    assert found["bytes_verified"] > 0


@pytest.mark.parametrize(("words", "said"), [
    (["127.0.0.1:69", "--network", "namespace", "--read", "f"], "a running one is loaded where it is"),
    (["127.0.0.1:69", "--server", "epoll", "--read", "f"], "--server SERVER to start one, not both"),
    (["--server", "epoll", "--server", "threads", "--read", "f"], "give --server once: load starts one server"),
    (["--read", "f"], "load needs HOST:PORT, or --server SERVER to start one, as in: "),
    (["--server", "epoll", "--read", "../f"], "--read ../f leaves the folder that the server serves"),
    (["--server", "dnsmasq", "--network", "namespace", "--write", "f"], "dnsmasq: has no write"),
    (["--server", "epoll", "--boot", "uefi"], "it goes with none of --boot"),
])  # fmt: skip
def test_what_can_not_be_loaded_so_is_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    if "dnsmasq" in words and isinstance(locate(manifest("dnsmasq"), in_network=True), Missing):
        pytest.skip("dnsmasq is not here")
    status, _, err = done(tmp_path, "load", *words)
    (line,) = err.splitlines()
    assert status == 2, err
    assert said in line


def loaded_brokers(runner: int) -> list[int]:
    """Brokers of a runner whose servers have been asked for something; a server is in its broker's namespace."""
    found = []
    for pid in descendants(runner):
        with contextlib.suppress(OSError):  # gone meanwhile
            is_broker = broker.__file__.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if is_broker and namespace_of(pid) != namespace_of(os.getpid()):
                if len(holders(namespace_of(pid))) == 1:
                    continue  # of what is measured beside the trials
                counts = udp_counts(f"/proc/{pid}")
                found += [pid] * (counts is not None and counts.received > 100)
    return found
