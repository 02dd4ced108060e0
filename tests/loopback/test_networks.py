"""The bundled servers and the generator over more than loopback: a narrow hop, and addresses of one link."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.networks import CLIENT, SERVER, Namespace, Network, narrow_network, python

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
