"""The bundled servers as processes: what one client may cost the others, and a system that allows them little."""

import contextlib
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tftpbench.host.generator import LoadConfig, run_load

NAMES = ["epoll", "threads"]
PATIENCE_S = 20.0
AGAIN_S = 1.0
IP_PKTINFO = 8  # linux/in.h; Python 3.14 is the first to name it
WINDOW = b"blksize\x001468\0windowsize\x0065535\0"
LARGE_BYTES = 65_535 * 1468  # a window of 65,535 blocks, if it were granted
BLOCKS_BYTES = 512 * 400 + 1
UNBOUNDED = ["--windowsize-max", "65535", "--window-max", "4294967295"]


class Served:
    """A bundled server in a process of its own."""

    def __init__(self, root: Path, name: str, *options: str) -> None:
        self.log = root.parent / "server.log"
        command = [sys.executable, "-P", "-m", "tftpbench", "serve", name, "--port", "0", "--root", str(root)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        ready = self.process.stdout.readline().split()
        assert ready[:1] == ["READY"], self.log.read_text()
        self.address = (ready[1], int(ready[2]))

    def rss_bytes(self) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) * 1024

    def stop(self) -> dict[str, int]:
        """Its counters; those that are 0 are left out."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0, self.log.read_text()
        words = [word.split() for word in self.log.read_text().strip().splitlines()[-1].split(", ")]
        return {name: int(value) for name, value in words}


@contextlib.contextmanager
def served(root: Path, name: str, *options: str) -> Iterator[Served]:
    server = Served(root, name, *options)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        assert server.process.stdout is not None
        server.process.stdout.close()


def client() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(PATIENCE_S)
    return made


def ask(made: socket.socket, datagram: bytes, to: tuple[str, int]) -> tuple[bytes, tuple[str, int]]:
    """The answer and whose it is; sent again each second, as clients do, since a full receive buffer drops it."""
    patient_until = time.monotonic() + PATIENCE_S
    made.settimeout(AGAIN_S)
    try:
        while True:
            made.sendto(datagram, to)
            with contextlib.suppress(TimeoutError):
                return made.recvfrom(2048)
            assert time.monotonic() < patient_until, f"no answer to {datagram[:40]!r} within {PATIENCE_S:.0f} s"
    finally:
        made.settimeout(PATIENCE_S)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "small").write_bytes(b"x" * 700)
    (folder / "blocks").write_bytes(os.urandom(BLOCKS_BYTES))
    sparse(folder / "large", LARGE_BYTES)
    return folder


def sparse(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        file.truncate(size_bytes)


def draw_windows(server: Served, stack: contextlib.ExitStack, clients: int, names: Sequence[bytes] = ()) -> None:
    """Starts reads whose clients acknowledge the OACK, and then nothing any more."""
    opened = []
    for _, name in zip(range(clients), names or [b"large"] * clients, strict=True):
        made = stack.enter_context(client())
        oack, tid = ask(made, b"\0\1" + name + b"\0octet\0" + WINDOW, server.address)
        assert oack[:2] == b"\0\6", oack
        opened.append((made, tid))
    for made, tid in opened:
        made.sendto(b"\0\4\0\0", tid)
    while opened and opened[-1][0].recv(2048)[:2] != b"\0\3":  # the OACK may have come again
        pass


def next_data(made: socket.socket, block: int, tid: tuple[str, int]) -> bytes:
    """The DATA after `block`, which is acknowledged until that comes: copies of older DATA may come before it."""
    acknowledgement = b"\0\4" + struct.pack("!H", block)
    while True:
        data, _ = ask(made, acknowledgement, tid)
        if data[:4] != b"\0\3" + struct.pack("!H", block):
            return data


def read(server: Served, name: str) -> bytes:
    """A whole file, block by block."""
    contents = b""
    with client() as made:
        data, tid = ask(made, b"\0\1" + name.encode() + b"\0octet\0", server.address)
        block = 1
        while True:
            assert data[:4] == b"\0\3" + struct.pack("!H", block), data[:40]
            contents += data[4:]
            if len(data) < 516:
                made.sendto(b"\0\4" + data[2:4], tid)
                return contents
            data, block = next_data(made, block, tid), block + 1


@pytest.mark.parametrize("name", NAMES)
def test_a_silent_reader_costs_a_quarter_of_a_megabyte_at_most(root: Path, name: str) -> None:
    clients = 100
    for index in range(clients):  # each its own: what readers of one file are sent is shared
        sparse(root / f"large-{index}", LARGE_BYTES)
    with served(root, name) as server, contextlib.ExitStack() as stack:
        read(server, "blocks")
        before = server.rss_bytes()
        draw_windows(server, stack, clients, [b"large-%d" % index for index in range(clients)])
        each = (server.rss_bytes() - before) / clients
        assert each <= 256 << 10


@pytest.mark.parametrize("name", NAMES)
def test_a_silent_writer_costs_a_quarter_of_a_megabyte_at_most(root: Path, name: str) -> None:
    clients = 60
    with served(root, name, "--write") as server, contextlib.ExitStack() as stack:
        read(server, "blocks")
        before = server.rss_bytes()
        for index in range(clients):
            made = stack.enter_context(client())
            oack, tid = ask(made, b"\0\2new-%d\0octet\0" % index + WINDOW, server.address)
            assert oack[:2] == b"\0\6", oack
            # Blocks from the future, the longest that there are: none is taken, and each has to be read.
            for _ in range(64):
                made.sendto(b"\0\3\x7f\xff" + bytes(60_000), tid)
            made.sendto(b"\0\3\0\1" + bytes(1468), tid)
        # Behind all that has been read by now.
        read(server, "blocks")
        each = (server.rss_bytes() - before) / clients
        assert each <= 256 << 10


def median_round_trip_ns(server: Served) -> float:
    """Of ten readers, block by block."""
    host, port = server.address
    load = LoadConfig(
        host=host,
        port=port,
        operation="read",
        name="blocks",
        file_size_bytes=BLOCKS_BYTES,
        concurrency=10,
        verify="off",
        duration_ns=300_000_000,
    )
    median = run_load(load).figures["block_rtt_ns_p50"]
    assert median, "no block was acknowledged"
    return median


@pytest.mark.parametrize("name", NAMES)
def test_others_are_answered_as_ever_beside_twenty_silent_windows(root: Path, name: str) -> None:
    ratios = []
    for _ in range(5):  # the machine may have had other work to do in one of the two
        with served(root, name) as server, contextlib.ExitStack() as stack:
            alone = median_round_trip_ns(server)
            draw_windows(server, stack, 20)
            ratios.append(median_round_trip_ns(server) / alone)
        if ratios[-1] <= 2:
            return
    pytest.fail(f"the median round trip is {ratios} times as long")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [[], UNBOUNDED], ids=["as-shipped", "unbounded"])
def test_a_stop_is_obeyed_within_its_grace_beside_silent_windows(root: Path, name: str, options: list[str]) -> None:
    grace_s = 0.5
    with served(root, name, "--grace", str(grace_s), *options) as server, contextlib.ExitStack() as stack:
        draw_windows(server, stack, 300)
        asked = time.monotonic()
        counters = server.stop()
        # Half a second more on a quiet machine.
        assert time.monotonic() - asked < grace_s + 4
        assert counters["transfers_interrupted"] == 300


@pytest.mark.parametrize("name", NAMES)
def test_200_000_requests_with_forged_senders_take_places_and_nothing_else(root: Path, name: str) -> None:
    requests, places = 200_000, 1000
    options = ["--max-transfers", str(places), "--grace", "0"]
    with served(root, name, *options) as server, client() as honest, forger() as forged:
        data, tid = ask(honest, b"\0\1blocks\0octet\0", server.address)
        before, contents, block = server.rss_bytes(), data[4:], 1
        for index in range(requests):
            forge(forged, index, b"\0\1small\0octet\0timeout\x00255\0", server.address)
            if index % 500 == 499:  # its transfer goes on meanwhile, one block at a time
                data, block = next_data(honest, block, tid), block + 1
                assert data[:4] == b"\0\3" + struct.pack("!H", block), data[:40]
                contents += data[4:]
        honest.sendto(b"\0\4" + struct.pack("!H", block), tid)
        assert contents == (root / "blocks").read_bytes()
        # No request is silently ignored: a newcomer gets an ERROR that there is no room.
        with client() as late:
            answer, _ = ask(late, b"\0\1small\0octet\0", server.address)
            assert answer[:2] in (b"\0\5", b"\0\3")
        assert server.rss_bytes() - before <= places * (64 << 10)
        counters = server.stop()
        assert counters["transfers_started"] <= places + 2
        # An OACK each, repeated by a timer, or an ERROR; and at the end an ERROR to each that is left.
        sent = counters["datagrams_out"] - 403 - counters.get("retransmissions", 0) - places
        assert sent <= counters["requests"]
        assert counters["requests"] > requests / 10, "the server was hardly reached"


def forger() -> socket.socket:
    """Sends from any address of 127.0.0.0/8; what is answered to those comes back here, and is dropped."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("0.0.0.0", 0))
    return made


def forge(made: socket.socket, index: int, datagram: bytes, to: tuple[str, int]) -> None:
    source = struct.pack("!I", 0x7F400000 + index)  # 127.64.0.0 and on
    info = struct.pack("@I", 0) + source + bytes(4)  # struct in_pktinfo, ip(7)
    made.sendmsg([datagram], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, to)


RRQ = b"\0\1f\0octet\0"


@contextmanager
def started(name: str, small_root: Path, files: int, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A server that may have so many open files."""
    argv = [sys.executable, "-P", "-m", "tftpbench.serve", name, "--root", str(small_root), *arguments]
    limited = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *argv]
    with subprocess.Popen(limited, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def small_root(tmp_path: Path) -> Path:
    (tmp_path / "f").write_bytes(bytes(1000))
    return tmp_path


def opcode(client: socket.socket, port: int) -> int:
    client.settimeout(PATIENCE_S)
    client.sendto(RRQ, ("127.0.0.1", port))
    return int(struct.unpack("!H", client.recv(2000)[:2])[0])


@pytest.mark.parametrize("name", ["epoll", "threads"])
def test_a_server_with_few_open_files_says_how_many_transfers_fit_and_holds_them(name: str, small_root: Path) -> None:
    # Nothing is given up while the clients wait for one another.
    with started(name, small_root, 256, "--timeout", "60") as process, ExitStack() as clients:
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


def test_a_client_whose_thread_cannot_be_made_is_told_and_the_server_goes_on(small_root: Path) -> None:
    with started("threads", small_root, 256) as process, ExitStack() as clients:
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
def test_a_server_with_too_few_open_files_does_not_start(name: str, small_root: Path) -> None:
    with started(name, small_root, 80) as process:
        said = process.communicate(timeout=PATIENCE_S)[1]
        assert process.returncode == 2
    assert re.fullmatch(
        rf"tftpbench: error: {name}: the limit of 80 open files leaves room for \d transfers at once, less than 16: "
        r"raise it \(ulimit -Hn \d+\) or ask for so few with --max-transfers \d\n",
        said,
    )
    few = re.findall(r"\d", said)[-1]
    with started(name, small_root, 80, "--max-transfers", few) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("READY ")
