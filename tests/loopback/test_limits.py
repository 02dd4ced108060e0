"""The bundled servers as processes that the system allows little."""

import re
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

RRQ = b"\0\1f\0octet\0"
PATIENCE_S = 10


@contextmanager
def started(name: str, root: Path, files: int, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A server that may have so many open files."""
    argv = [sys.executable, "-P", "-m", "tftpbench.serve", name, "--root", str(root), *arguments]
    limited = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *argv]
    with subprocess.Popen(limited, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "f").write_bytes(bytes(1000))
    return tmp_path


def opcode(client: socket.socket, port: int) -> int:
    client.settimeout(PATIENCE_S)
    client.sendto(RRQ, ("127.0.0.1", port))
    return int(struct.unpack("!H", client.recv(2000)[:2])[0])


@pytest.mark.parametrize("name", ["epoll", "threads"])
def test_a_server_with_few_open_files_says_how_many_transfers_fit_and_holds_them(name: str, root: Path) -> None:
    # Nothing is given up while the clients wait for one another.
    with started(name, root, 256, "--timeout", "60") as process, ExitStack() as clients:
        assert process.stdout is not None
        assert process.stderr is not None
        port = int(process.stdout.readline().split()[2])
        said = process.stderr.readline()
        match = re.search(r"room for (\d+) transfers at once, not \d+: the limit is 256 open files", said)
        assert match, said
        room = int(match[1])
        assert room > 50
        opened = [clients.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(room + 1)]
        assert [opcode(client, port) for client in opened] == [3] * room + [5]


def test_a_client_whose_thread_cannot_be_made_is_told_and_the_server_goes_on(root: Path) -> None:
    with started("threads", root, 256) as process, ExitStack() as clients:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[2])

        def answer() -> int:
            return opcode(clients.enter_context(socket.socket(type=socket.SOCK_DGRAM)), port)

        assert answer() == 3
        # No room for another stack.
        status = Path(f"/proc/{process.pid}/status").read_text()
        used = re.search(r"VmSize:\s+(\d+) kB", status)
        assert used
        resource.prlimit(process.pid, resource.RLIMIT_AS, (int(used[1]) * 1024, resource.RLIM_INFINITY))
        assert answer() == 5
        resource.prlimit(process.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert answer() == 3


@pytest.mark.parametrize("name", ["epoll", "threads"])
def test_a_server_with_too_few_open_files_does_not_start(name: str, root: Path) -> None:
    with started(name, root, 80) as process:
        said = process.communicate(timeout=PATIENCE_S)[1]
        assert process.returncode == 2
    assert re.fullmatch(
        rf"tftpbench: error: {name}: the limit of 80 open files leaves room for \d transfers at once, less than 16: "
        r"raise it \(ulimit -Hn \d+\) or ask for so few with --max-transfers \d\n",
        said,
    )
    few = re.findall(r"\d", said)[-1]
    with started(name, root, 80, "--max-transfers", few) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("READY ")
