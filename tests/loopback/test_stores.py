"""The bundled servers' stores, each server as a process: what is left on the disk, what it costs, and who waits."""

import ctypes
import os
import platform
import resource
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.loopback.machine import until
from tests.loopback.peer import DATA, ERROR, OACK, RRQ, WRQ, ack, data, opcode

PATIENCE_S = 20.0
PROMPT_S = 2.0  # for an answer on a busy machine; what is tested here took 5 to 22 s, or for ever
HIDDEN = ".tftpbench-upload-"
OPENAT = {"x86_64": 257, "aarch64": 56}  # syscalls(2)
O_TMPFILE_BIT = 0o20000000  # open(2): what O_TMPFILE has beside O_DIRECTORY

pytestmark = pytest.mark.parametrize("name", ["epoll", "threads"])


@dataclass
class Running:
    """A server as a process of its own."""

    process: subprocess.Popen[str]
    address: tuple[str, int]
    sockets: ExitStack

    def rss_bytes(self) -> int:
        """Resident now, of itself and of what it shares."""
        resident = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(resident) * resource.getpagesize()

    def threads(self) -> int:
        """How many there are."""
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def client(self) -> "Client":
        return Client(self)


class Client:
    """One socket, which talks to the listening port until another has answered."""

    def __init__(self, server: Running) -> None:
        self.socket = server.sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.socket.settimeout(PATIENCE_S)
        self.listening = self.peer = server.address
        self.last = b""

    def ask(self, operation: int, name: str, options: dict[str, int] | None = None, mode: str = "octet") -> bytes:
        """The answer to a request."""
        self.post(operation, name, options, mode)
        return self.receive()

    def post(self, operation: int, name: str, options: dict[str, int] | None = None, mode: str = "octet") -> None:
        """A request; its answer is for later."""
        words = [name, mode, *(str(word) for option in (options or {}).items() for word in option)]
        self.socket.sendto(
            struct.pack("!H", operation) + b"".join(word.encode() + b"\0" for word in words), self.listening
        )

    def send(self, datagram: bytes) -> bytes:
        """The answer to it: on a busy machine the server may have sent its last one again meanwhile."""
        self.socket.sendto(datagram, self.peer)
        return self.next()

    def next(self) -> bytes:
        """The answer to what was sent last, which is none of before."""
        before = self.last
        while (answer := self.receive()) == before:
            pass
        return answer

    def receive(self) -> bytes:
        self.last, self.peer = self.socket.recvfrom(65536)
        return self.last

    def write(self, name: str, contents: bytes, **options: int) -> bytes:
        """The last answer: the last ACK, or an ERROR. `options` with a blksize other than 512 is for an OACK."""
        blksize = options.get("blksize", 512)
        answer = self.ask(WRQ, name, options)
        for block in range(len(contents) // blksize + 1):
            if opcode(answer) == ERROR:
                break
            answer = self.send(data((block + 1) & 0xFFFF, contents[block * blksize : (block + 1) * blksize]))
        return answer


CONTAINER = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child")


@contextmanager
def serving(
    name: str, root: Path, *options: str, prepare: Callable[[], None] | None = None, within: tuple[str, ...] = ()
) -> Iterator[Running]:
    """A server that may be killed meanwhile. `prepare` is called before it starts; `within` goes before its command."""
    command = [*within, sys.executable, "-m", "tftpbench.serve", name, "--root", str(root), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=prepare)  # noqa: PLW1509
    assert process.stdout is not None
    try:
        assert select.select([process.stdout], [], [], PATIENCE_S)[0], "not ready"
        _, host, port, _ = process.stdout.readline().split()
        with ExitStack() as sockets:
            yield Running(process, (host, int(port)), sockets)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait(PATIENCE_S)
        process.stdout.close()


def refuse_o_tmpfile() -> None:
    """As on a file system without it: a filter, seccomp(2), answers EOPNOTSUPP in this process from now on."""
    load, equal, both, answer = 0x20, 0x15, 0x54, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_ALU|AND|K, BPF_RET|K
    program = [
        (load, 0, 0, 0),  # the number of the call
        (equal, 0, 4, OPENAT[platform.machine()]),
        (load, 0, 0, 16 + 2 * 8),  # its third argument
        (both, 0, 0, O_TMPFILE_BIT),
        (equal, 1, 0, 0),
        (answer, 0, 0, 0x00050000 | 95),  # SECCOMP_RET_ERRNO, EOPNOTSUPP
        (answer, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    ]
    steps = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    whole = ctypes.create_string_buffer(struct.pack("@HxxxxxxP", len(program), ctypes.addressof(steps)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, whole, 0, 0) == 0, os.strerror(ctypes.get_errno())  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def code(datagram: bytes) -> int | None:
    """Of an ERROR."""
    return int.from_bytes(datagram[2:4], "big") if opcode(datagram) == ERROR else None


def hidden(root: Path) -> list[str]:
    return sorted(each for each in os.listdir(root) if each.startswith(HIDDEN))


@pytest.mark.skipif(platform.machine() not in OPENAT, reason="the filter knows this machine's calls not")
def test_what_a_killed_server_left_is_removed_at_the_next_start_and_a_living_servers_is_not(
    name: str, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    (root / "below").mkdir(parents=True)
    options = ("--write", "--overwrite")
    with serving(name, root, *options, prepare=refuse_o_tmpfile) as living:
        client = living.client()
        client.ask(WRQ, "f")
        assert client.send(data(1, b"1" * 512)) == ack(1)
        kept = hidden(root)
        with serving(name, root, *options, prepare=refuse_o_tmpfile) as killed:
            for path in ("f", "below/f"):
                lost = killed.client()
                lost.ask(WRQ, path)
                assert lost.send(data(1, b"2" * 512)) == ack(1)
            assert (len(hidden(root)), len(hidden(root / "below"))) == (2, 1)
            killed.process.kill()
            killed.process.wait(PATIENCE_S)
        with serving(name, root, *options) as next_one:
            assert (hidden(root), hidden(root / "below")) == (kept, [])
            assert next_one.client().write("f", b"next") == ack(1)
            assert client.send(data(2, b"end")) == ack(2)
    assert (root / "f").read_bytes() == b"1" * 512 + b"end"
    assert hidden(root) == []


def test_a_server_that_may_not_write_removes_nothing(name: str, tmp_path: Path) -> None:
    left = tmp_path / (HIDDEN + "0" * 32)
    left.touch()
    with serving(name, tmp_path):
        assert left.exists()
    with serving(name, tmp_path, "--write"):
        assert not left.exists()


@pytest.mark.parametrize("has_o_tmpfile", [True, False])
def test_two_servers_with_one_process_id_do_each_other_no_harm(name: str, tmp_path: Path, has_o_tmpfile: bool) -> None:
    """As in two containers. Whatever the other one has made, an upload that was sent whole is there."""
    if not has_o_tmpfile and platform.machine() not in OPENAT:
        pytest.skip("the filter knows this machine's calls not")
    prepare = None if has_o_tmpfile else refuse_o_tmpfile
    with serving(name, tmp_path, "--write", "--overwrite", prepare=prepare) as server:
        others = [f"{HIDDEN}{server.process.pid}-{serial}" for serial in range(3)]
        for other in others:
            (tmp_path / other).touch()
        for contents in (b"one", b"two"):
            assert server.client().write("f", contents) == ack(1)
            assert (tmp_path / "f").read_bytes() == contents
        assert hidden(tmp_path) == others


@pytest.mark.skipif(platform.machine() not in OPENAT, reason="the filter knows this machine's calls not")
def test_two_containers_on_one_root_take_the_same_upload_at_once(name: str, tmp_path: Path) -> None:
    """In each the server is process 1."""
    if subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may make no namespaces of processes (unshare)")
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                serving(name, tmp_path, "--write", "--overwrite", prepare=refuse_o_tmpfile, within=CONTAINER)
            )
            for _ in range(2)
        ]
        clients = [server.client() for server in servers]
        for client, byte in zip(clients, (b"1", b"2"), strict=True):
            assert client.ask(WRQ, "f") == ack(0)
            assert client.send(data(1, byte * 512)) == ack(1)
        assert len(hidden(tmp_path)) == 2
        for client, byte in zip(clients, (b"1", b"2"), strict=True):
            assert client.send(data(2, byte)) == ack(2)
            assert (tmp_path / "f").read_bytes() == byte * 513
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("store", ["disk", "memory"])
def test_a_file_larger_than_there_is_room_for_is_error_3_and_leaves_nothing(
    name: str, tmp_path: Path, store: str
) -> None:
    """RLIMIT_FSIZE is a disk that is full as far as one process goes; Python ignores the signal for it."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    options = ("--write", "--overwrite", "--store", store)
    with serving(name, tmp_path, *options, prepare=limit) as server:
        for _ in range(2):
            assert server.client().write("f", bytes(400_000), blksize=8192)[:4] == b"\0\5\0\3"
        assert os.listdir(tmp_path) == []
        assert server.client().write("f", b"fits") == ack(1)


def longest_wait_s(server: Running, reads: int) -> float:
    """Of honest clients' round trips, one client after the other."""
    waits = []
    for _ in range(reads):
        client = server.client()
        began = time.monotonic()
        assert client.ask(RRQ, "small") == data(1, b"small")
        waits.append(time.monotonic() - began)
        client.socket.sendto(ack(1), client.peer)
    return max(waits)


def test_a_text_of_any_size_makes_nobody_wait(name: str, tmp_path: Path) -> None:
    """1 TiB, of which a read would never end; a stop is heard while it is served."""
    (tmp_path / "small").write_bytes(b"small")
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(1 << 40)
    with serving(name, tmp_path, "--grace", "0.1") as server:
        clients = [server.client() for _ in range(5)]
        for client in clients:
            client.post(RRQ, "huge", {"tsize": 0, "blksize": 1024}, mode="netascii")
        assert longest_wait_s(server, 50) < PROMPT_S
        for client in clients:
            assert client.receive() == b"\0\6blksize\x001024\0"
            for block in range(20):
                assert client.send(ack(block)) == data(block + 1, bytes(1024))
        server.process.terminate()
        assert opcode(clients[0].send(ack(20))) in {DATA, ERROR}
        assert server.process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("size", [3 << 30, 300_000])
def test_a_file_is_loaded_into_memory_while_it_is_served(name: str, tmp_path: Path, size: int) -> None:
    (tmp_path / "small").write_bytes(b"small")
    with (tmp_path / "large").open("wb") as large:
        large.truncate(size)
    with serving(name, tmp_path, "--store", "memory") as server:
        before, client = server.rss_bytes(), server.client()
        client.post(RRQ, "large", {"blksize": 8192})
        assert longest_wait_s(server, 50) < PROMPT_S
        assert client.receive() == b"\0\6blksize\x008192\0"
        for block in range(35):
            assert client.send(ack(block)) == data(block + 1, bytes(8192))
        assert server.rss_bytes() - before < 4 << 20


BOUND_BYTES = 12 << 20
AT_ONCE = 20
UPLOADS_MAX = 100_000  # more than have room by any account


def upload_at_once(clients: list[Client], names: range, contents: bytes) -> int:
    """How many of these uploads, one of each client, are taken; others are ERROR 3. All announce 65,000 bytes."""
    for client, name in zip(clients, names, strict=True):
        client.post(WRQ, f"f-{name}", {"tsize": 65_000})
    opened = [client for client in clients if opcode(client.receive()) == OACK]
    for client in opened:
        client.socket.sendto(data(1, contents), client.peer)
    answers = [client.next() for client in opened]
    assert all(code(answer) in {None, 3} for answer in answers)
    return answers.count(ack(1))


@pytest.mark.parametrize("size", [1, 500])
def test_the_bound_of_the_memory_store_is_what_it_takes(name: str, tmp_path: Path, size: int) -> None:
    """Resident memory stays within 1.2 times the bound, and the bound is not used up by less than half of it."""
    options = ("--store", "memory", "--write", "--overwrite", "--memory-max", str(BOUND_BYTES))
    # With a short timeout a transfer that is over is soon gone; in threads each has a stack until then.
    with serving(name, tmp_path, *options, "--timeout", "0.05") as server:
        clients, contents = [server.client() for _ in range(AT_ONCE)], bytes(size)
        most = 0
        for _ in range(200):  # what serving itself takes, whatever is stored
            upload_at_once(clients, range(AT_ONCE), contents)
            most = max(most, server.threads())
        before, taken = server.rss_bytes(), 0
        while upload_at_once(clients, range(taken, taken + AT_ONCE), contents) == AT_ONCE:
            taken += AT_ONCE
            # On a busy machine transfers end late, and the stacks of more threads than before would be no store.
            until(lambda: server.threads() <= most, "transfers do not end")
            assert taken < UPLOADS_MAX, "the store is never full"
        until(lambda: server.threads() < 10, "transfers do not end")
        assert server.rss_bytes() - before <= 1.2 * BOUND_BYTES, taken
        assert taken * (size + 500) > BOUND_BYTES / 2
        # Files that are replaced, and uploads that are refused, take no more.
        for first in range(0, 2000, AT_ONCE):
            upload_at_once(clients, range(first, first + AT_ONCE), contents)
        until(lambda: server.threads() < 10, "transfers do not end")
        assert server.rss_bytes() - before <= 1.2 * BOUND_BYTES, taken
