"""The bundled servers and the generator over more than loopback: a narrow hop, and addresses of one link.

Networks of network namespaces, a server and a client with a router between them, without privileges: all of it lives in
a user namespace of its own (user_namespaces(7), network_namespaces(7)), and goes with the processes that hold it. Where
the machine allows none, `narrow_network` skips the test with the reason.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SERVER, CLIENT = "10.9.1.2", "10.9.2.2"
LINK_MTU, HOP_MTU = 1500, 1420
_HOLD = "echo held; exec sleep 600"  # longer than any test may take
# Two routers with the narrow link between them, and the server's and the client's usual ones at their other sides.
_LINK = """
ip link set lo up
ip link add {device} type veth peer name {peer_device} netns {peer}
"""
_ROUTER = """
ip link set lo up
ip addr add {outer}/24 dev {device}
ip link set {device} mtu {mtu} up
ip addr add {inner}/24 dev {hop}
ip link set {hop} mtu {hop_mtu} up
ip route add {beyond}/24 via {gateway}
echo 1 > /proc/sys/net/ipv4/ip_forward
ip rule add pref 5 iif lo ipproto icmp blackhole
"""
_END = """
ip link set lo up
ip addr add {address}/24 dev {device}
ip -6 addr add fe80::{number}/64 dev {device} nodad
ip link set {device} mtu {mtu} up
ip route add default via {gateway}
"""


@dataclass(frozen=True)
class Namespace:
    """Where commands run: the user and network namespaces of a process that holds them."""

    pid: int

    def command(self, *argv: str) -> list[str]:
        """The command that does `argv` there."""
        return ["nsenter", "-t", str(self.pid), "-U", "-n", "--preserve-credentials", *argv]

    def shell(self, script: str) -> None:
        """Run a script there; skips the test where the machine refuses it."""
        argv = self.command("sh", "-ec", script)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode != 0:
            pytest.skip(f"this machine makes no such network: {done.stderr.strip()[-200:]}")


@dataclass(frozen=True)
class Network:
    """A server's and a client's end. Between them, a narrow link joins two routers that send no ICMP."""

    server: Namespace
    client: Namespace


@contextmanager
def narrow_network() -> Iterator[Network]:
    """The network, as long as the block lasts."""
    with ExitStack() as held:
        near = _hold(held, ["unshare", "-Urn"])
        far, server, client = (_hold(held, near.command("unshare", "-n")) for _ in range(3))
        near.shell(_LINK.format(device="s0", peer_device="s1", peer=server.pid))
        near.shell(_LINK.format(device="near", peer_device="far", peer=far.pid))
        far.shell(_LINK.format(device="c0", peer_device="c1", peer=client.pid))
        mtu = {"mtu": LINK_MTU, "hop_mtu": HOP_MTU}
        near.shell(
            _ROUTER.format(
                device="s0",
                outer="10.9.1.1",
                hop="near",
                inner="10.9.3.1",
                beyond="10.9.2.0",
                gateway="10.9.3.2",
                **mtu,
            )
        )
        far.shell(
            _ROUTER.format(
                device="c0", outer="10.9.2.1", hop="far", inner="10.9.3.2", beyond="10.9.1.0", gateway="10.9.3.1", **mtu
            )
        )
        server.shell(_END.format(address=SERVER, device="s1", gateway="10.9.1.1", number=1, mtu=LINK_MTU))
        client.shell(_END.format(address=CLIENT, device="c1", gateway="10.9.2.1", number=2, mtu=LINK_MTU))
        yield Network(server, client)


def _hold(held: ExitStack, unshare: list[str]) -> Namespace:
    try:
        process = held.enter_context(
            subprocess.Popen([*unshare, "sh", "-c", _HOLD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    except FileNotFoundError as error:
        pytest.skip(f"{error.filename} is missing here: apt install util-linux iproute2")
    held.callback(process.kill)
    assert process.stdout is not None
    assert process.stderr is not None
    if process.stdout.readline() != "held\n":
        pytest.skip(f"this machine allows no namespaces: {process.stderr.read().strip()[-200:]}")
    return Namespace(process.pid)


def python(module: str, *arguments: str) -> list[str]:
    """This interpreter running a module."""
    return [sys.executable, "-P", "-m", module, *arguments]


FILE_BYTES = 200_000
LIMIT_S = 30  # a read that lost no DATA takes less than one; a server that waits in vain gives up later


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with narrow_network() as network:
        yield network


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "f").write_bytes(os.urandom(FILE_BYTES))
    return folder


@contextmanager
def served(where: Namespace, name: str, root: Path, host: str) -> Iterator[int]:
    """The port of a bundled server in a namespace."""
    argv = where.command(*python("tftpbench.serve", name, "--host", host, "--root", str(root), "--write"))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            word, its_host, port, _ = process.stdout.readline().split()
            assert (word, its_host) == ("READY", host)
            yield int(port)
        finally:
            process.send_signal(signal.SIGTERM)


def load(where: Namespace, *arguments: str) -> dict[str, Any]:
    """What `tftpbench load` finds from a namespace."""
    argv = where.command(*python("tftpbench", "load", *arguments, "--allow-remote", "--json"))
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", ["epoll", "threads"])
@pytest.mark.parametrize("windowsize", ["1", "8"])
def test_a_read_over_a_narrower_hop_that_tells_nobody_ends(
    name: str, windowsize: str, network: Network, root: Path
) -> None:
    with served(network.server, name, root, SERVER) as port:
        options = ["--read", "f", "--verify-against", str(root / "f"), "--transfers", "4", "-c", "2"]
        found = load(network.client, f"{SERVER}:{port}", *options, "--blksize", "1468", "--windowsize", windowsize)
    assert found["completed"] == 4
    # Fragmented on the way, not sent once more after a timeout.
    assert found["transfer_ns_max"] < 5_000_000_000


@pytest.mark.parametrize("windowsize", ["1", "8"])
def test_an_upload_over_a_narrower_hop_that_tells_nobody_ends(windowsize: str, network: Network, root: Path) -> None:
    with served(network.client, "epoll", root, CLIENT) as port:
        options = ["--write", "up-{n}", "--size", "200kB", "--transfers", "4", "-c", "2"]
        found = load(network.server, f"{CLIENT}:{port}", *options, "--blksize", "1468", "--windowsize", windowsize)
    assert found["completed"] == 4
    assert found["transfer_ns_max"] < 5_000_000_000


@pytest.mark.parametrize("name", ["epoll", "threads"])
@pytest.mark.parametrize("host", ["fe80::1%s1", "::"])
def test_a_link_local_address_is_served_and_loaded_with_its_zone(
    name: str, host: str, network: Network, root: Path
) -> None:
    with served(network.server, name, root, host) as port:
        options = ["--read", "f", "--verify-against", str(root / "f"), "--transfers", "3", "-c", "2"]
        found = load(network.server, f"[fe80::1%s1]:{port}", *options)
    assert found["completed"] == 3


def test_what_will_be_done_to_another_machine_is_said_before_anything_is_asked_of_it(
    network: Network, root: Path
) -> None:
    with served(network.server, "epoll", root, SERVER) as port:
        words = ["load", f"{SERVER}:{port}", "--boot", "uefi", "--machines", "100", "--allow-remote"]
        argv = network.client.command(*python("tftpbench", *words))
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    first, second = done.stderr.splitlines()
    assert first.startswith(f"{SERVER} is another machine: first 1 boot, then 10 boots at once, ")
    assert "lacks" in second
    assert done.returncode == 2
