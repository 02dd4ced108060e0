"""The server in pure Python: whole transfers by our generator, the protocol by hand, the timers in virtual time."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.loopback.peer import ACK, DATA, ERROR, OACK, RRQ, WRQ, ack, data, opcode
from tftpbench.host import generator
from tftpbench.host.generator import LoadConfig
from tftpbench.host.server import ServerProcess
from tftpbench.model.manifest import load_manifest

FOLDER = Path(__file__).parents[2] / "servers" / "pyepoll"

PATIENT = {"timeout": "60"}  # no timer of the server's comes while a test looks for silence


@contextmanager
def running(root: Path, *, write: bool = True, host: str = "127.0.0.1", concurrency: int = 100) -> Iterator[Server]:
    root.mkdir(exist_ok=True)
    log = root.with_name("server.log")
    manifest = load_manifest(FOLDER / "server.yaml")
    with ServerProcess(manifest, root=root, log=log, host=host, write=write, concurrency=concurrency) as process:
        yield Server(root, (process.host, process.port))
        process.check_alive()


@dataclass
class Client:
    """A socket of its own, and whom it talks to: the listening port, until an answer comes from another."""

    server: tuple[str, int]
    socket: socket.socket

    def ask(self, operation: int, name: str, options: dict[str, str] | None = None, mode: str = "octet") -> bytes:
        self.socket.sendto(request(operation, name, options, mode), self.server)
        return self.receive()

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.socket.sendto(datagram, self.server)

    def receive(self) -> bytes:
        datagram, address = self.socket.recvfrom(65536)
        self.server = address[:2]
        return datagram

    def receive_ack(self) -> int:
        answer = self.receive()
        assert opcode(answer) == ACK, answer
        return int.from_bytes(answer[2:4])

    def receive_data(self) -> tuple[int, bytes]:
        answer = self.receive()
        assert opcode(answer) == DATA, answer
        return int.from_bytes(answer[2:4]), answer[4:]

    def hears_nothing(self, stranger: Client) -> bool:
        """Now that a stranger's datagram to the same port is answered, all that came before it is, too."""
        stranger.socket.sendto(ack(1), self.server)
        assert code(stranger.receive()) == 5
        self.socket.setblocking(False)
        try:
            self.socket.recv(65536)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(10)
        return False


@dataclass
class Server:
    root: Path
    address: tuple[str, int]
    clients: list[socket.socket] = field(default_factory=list)

    def client(self) -> Client:
        made = socket.socket(socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET, socket.SOCK_DGRAM)
        made.settimeout(10)
        self.clients.append(made)
        return Client(self.address, made)

    def load(self, operation: str, size: int, transfers: int = 3, concurrency: int = 3, **changes: Any) -> None:
        """Transfers by the generator; every one must complete with every byte right."""
        name = f"{operation}-{size}-{{n}}"
        if operation == "read":
            generator.write_contents(self.root / name.replace("{n}", "0"), 1, 0, size)
        host, port = self.address
        result = generator.run_load(
            LoadConfig(
                host=host, port=port, operation="read" if operation == "read" else "write", name=name,
                distinct_files=1 if operation == "read" else 0, file_size_bytes=size, concurrency=concurrency,
                transfers=transfers, **changes,
            )
        )  # fmt: skip
        figures = result.figures
        assert (figures["completed"], figures["content_mismatches"]) == (transfers, 0), (figures, result.faults)
        if operation == "read":
            assert figures["bytes_verified"] == transfers * size
        else:
            for n in range(transfers):
                assert generator.first_difference(self.root / name.replace("{n}", str(n)), 1, n, size) is None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running(tmp_path / "root") as started:
        yield started
        for client in started.clients:
            client.close()


def request(operation: int, name: str, options: dict[str, str] | None = None, mode: str = "octet") -> bytes:
    return operation.to_bytes(2) + f"{name}\0{mode}\0".encode() + oack(options or {})[2:]


def oack(options: dict[str, str]) -> bytes:
    return OACK.to_bytes(2) + b"".join(f"{name}\0{value}\0".encode() for name, value in options.items())


def code(datagram: bytes) -> int | None:
    """Of an ERROR, whose text must be ended and short; None for anything else."""
    if opcode(datagram) != ERROR:
        return None
    assert datagram.endswith(b"\0")
    assert len(datagram) < 64
    return int.from_bytes(datagram[2:4])


# Whole transfers.


@pytest.mark.parametrize("operation", ["read", "write"])
def test_sizes_around_the_block_border_survive(server: Server, operation: str) -> None:
    for size in (0, 1, 511, 512, 513, 1 << 20):
        server.load(operation, size)


@pytest.mark.parametrize("operation", ["read", "write"])
def test_windows_and_large_blocks_survive(server: Server, operation: str) -> None:
    server.load(operation, 100_000, windowsize=16, blksize=1468, tsize=True)
    server.load(operation, 16 * 1468, windowsize=16, blksize=1468)
    server.load(operation, 1_000_000, blksize=65464)
    server.load(operation, 300_000, transfers=1, concurrency=1, windowsize=400, receive_buffer_bytes=4 << 20)


@pytest.mark.parametrize("operation", ["read", "write"])
def test_block_numbers_roll_over_to_0(server: Server, operation: str) -> None:
    server.load(operation, 8 * 65_600 + 3, transfers=1, concurrency=1, blksize=8, windowsize=16)


@pytest.mark.parametrize("operation", ["read", "write"])
def test_many_transfers_run_at_once(server: Server, operation: str) -> None:
    server.load(operation, 20_000, transfers=300, concurrency=100)


@pytest.mark.parametrize("operation", ["read", "write"])
def test_ipv6_is_served(tmp_path: Path, operation: str) -> None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with running(tmp_path / "root", host="::1") as server:
        server.load(operation, 20_000, blksize=1024, windowsize=4)


# Requests.


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ({"blksize": "8"}, {"blksize": "8"}),
        ({"blksize": "65464", "windowsize": "16"}, {"blksize": "65464", "windowsize": "16"}),
        ({"windowsize": "65535"}, {"windowsize": "256"}),
        ({"TSize": "0", "BLKSIZE": "1468"}, {"tsize": "1000", "blksize": "1468"}),
        ({"timeout": "255", "utimeout": "5", "rollover": "0"}, {"timeout": "255"}),
        ({"blksize": "65465", "tsize": "0", "windowsize": "65536"}, {"tsize": "1000"}),
        ({"blksize": "7", "windowsize": "0", "timeout": "256", "multicast": "", "tsize": "-1"}, {}),
        ({"blksize": "5e2", "timeout": "0", "tsize": str(2**64)}, {}),
        ({"blksize": "9" * 400}, {}),
        ({}, {}),
    ],
)
def test_exactly_what_can_be_granted_is_granted(server: Server, asked: dict[str, str], granted: dict[str, str]) -> None:
    (server.root / "f").write_bytes(bytes(1000))
    client = server.client()
    first = client.ask(RRQ, "f", asked)
    if granted:
        assert first == oack(granted)
        client.send(ack(0))
        while first == oack(granted):  # a busy machine may give its timer the time to come
            first = client.receive()
    assert opcode(first) == DATA
    assert int.from_bytes(first[2:4]) == 1


def test_a_writer_has_its_size_echoed_and_needs_no_options(server: Server) -> None:
    client = server.client()
    asked = {"tsize": "777", **PATIENT}
    assert client.ask(WRQ, "f", asked) == oack(asked)
    client.send(data(1, b"x"))
    assert client.receive() == ack(1)
    assert server.client().ask(WRQ, "g") == ack(0)
    assert code(server.client().ask(WRQ, "h", {"tsize": str(2**64 - 1)})) == 3


def test_a_granted_blksize_and_window_are_kept_to(server: Server) -> None:
    (server.root / "f").write_bytes(bytes(100))
    client = server.client()
    client.ask(RRQ, "f", {"blksize": "10", "windowsize": "4", **PATIENT})
    client.send(ack(0))
    assert [client.receive_data() for _ in range(4)] == [(n, bytes(10)) for n in range(1, 5)]
    assert client.hears_nothing(server.client())
    client.send(ack(4))
    assert [client.receive_data()[0] for _ in range(4)] == [5, 6, 7, 8]
    client.send(ack(8))
    assert [client.receive_data() for _ in range(3)] == [(9, bytes(10)), (10, bytes(10)), (11, b"")]


def test_a_copy_of_a_request_is_ignored_and_another_one_ends_the_old_transfer(server: Server) -> None:
    (server.root / "f").write_bytes(b"f")
    (server.root / "g").write_bytes(b"g")
    client, again = server.client(), server.client()
    assert client.ask(RRQ, "f", PATIENT) == oack(PATIENT)
    again.socket, listening = client.socket, server.address
    client.socket.sendto(request(RRQ, "f", PATIENT), listening)
    stranger = server.client()
    assert code(stranger.ask(RRQ, "absent")) == 1  # the listening port has been read up to here
    assert client.hears_nothing(server.client())
    assert again.ask(RRQ, "g") == data(1, b"g")


@pytest.mark.parametrize("mode", ["netascii", "mail", "binary"])
def test_other_modes_than_octet_are_refused(server: Server, mode: str) -> None:
    (server.root / "f").write_bytes(b"x")
    assert code(server.client().ask(RRQ, "f", mode=mode)) == 4
    assert server.client().ask(RRQ, "f", mode="OcTeT") == data(1, b"x")


def test_one_transfer_too_many_is_refused_until_a_place_is_free(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "f").write_bytes(b"x")
    with subprocess.Popen(command(tmp_path / "root", "--max-transfers", "1"), stdout=subprocess.PIPE) as process:
        server = Server(tmp_path / "root", ready(process))
        first = server.client()
        assert first.ask(RRQ, "f") == data(1, b"x")
        assert code(server.client().ask(RRQ, "f")) == 0
        first.send(ack(1))
        assert server.client().ask(RRQ, "f") == data(1, b"x")
        for client in server.clients:
            client.close()
        process.kill()


# Files.


def test_nothing_but_regular_files_below_the_root_is_read_or_written(server: Server, tmp_path: Path) -> None:
    root, outside = server.root, tmp_path / "secret"
    outside.write_bytes(b"secret")
    (root / "sub").mkdir()
    (root / "sub" / "f").write_bytes(b"deep")
    (root / "link").symlink_to(outside)
    (root / "inside").symlink_to("sub/f")
    (root / "linked").symlink_to(tmp_path)
    (root / "sub" / "up").symlink_to("../..")
    os.mkfifo(root / "fifo")
    denied = [
        "../secret", "/../secret", "sub/../../secret", "..", "sub/..", "..//secret", "link", "inside", "linked/secret",
        "sub/up/secret", "sub", "sub/", "fifo", "/", ".", "./", ".tftpbench-upload-1-1",
    ]  # fmt: skip
    for operation in (RRQ, WRQ):
        assert {name: code(server.client().ask(operation, name)) for name in denied} == dict.fromkeys(denied, 2)
        for name in (str(outside), "absent/f", "sub/f/f"):
            assert code(server.client().ask(operation, name)) == 1
    for name in ("absent", "n" * 300):
        assert code(server.client().ask(RRQ, name)) == 1
    for name in ("sub/f", "/sub/f", "//sub/./f"):
        assert server.client().ask(RRQ, name) == data(1, b"deep")
    assert outside.read_bytes() == b"secret"


def test_writing_is_off_unless_asked_for(tmp_path: Path) -> None:
    with running(tmp_path / "root", write=False) as server:
        assert code(server.client().ask(WRQ, "f")) == 2
        assert os.listdir(server.root) == []
        server.clients[0].close()


def test_an_upload_has_its_name_only_when_complete_and_takes_no_other(server: Server) -> None:
    client, late = server.client(), server.client()
    client.ask(WRQ, "f", PATIENT)
    late.ask(WRQ, "f", PATIENT)
    client.send(data(1, bytes(512)))
    assert client.receive() == ack(1)
    assert os.listdir(server.root) == []
    client.send(data(2, b"end"))
    assert client.receive() == ack(2)
    assert (server.root / "f").read_bytes() == bytes(512) + b"end"
    late.send(data(1, b"late"))
    assert code(late.receive()) == 6
    assert code(server.client().ask(WRQ, "f")) == 6
    assert os.listdir(server.root) == ["f"]


@pytest.mark.parametrize("change", ["cut short", "rewritten"])
def test_a_file_that_changes_while_it_is_served_is_an_error(server: Server, change: str) -> None:
    path = server.root / "f"
    path.write_bytes(bytes(40_000))
    os.utime(path, (0, 0))  # the grain of a file's times is a tick of the kernel
    client = server.client()
    client.ask(RRQ, "f", PATIENT)
    client.send(ack(0))
    assert client.receive_data()[0] == 1
    if change == "cut short":
        os.truncate(path, 30_000)
    else:
        path.write_bytes(b"x" * 40_000)
    for block in range(1, 80):
        client.send(ack(block))
        if code(answer := client.receive()) is not None:
            assert code(answer) == 0
            return
    pytest.fail("all of it was served")


# Lost, repeated and strange datagrams.


def test_a_repeated_ack_triggers_nothing(server: Server) -> None:
    (server.root / "f").write_bytes(bytes(2000))
    client = server.client()
    client.ask(RRQ, "f", PATIENT)
    client.send(ack(0))
    assert client.receive_data()[0] == 1
    client.send(*[ack(1)] * 5)
    assert client.receive_data()[0] == 2
    client.send(ack(1), ack(0), ack(3), ack(40_000))
    assert client.hears_nothing(server.client())


def test_a_gap_is_reported_once_and_a_repeated_block_acknowledged_again(server: Server) -> None:
    client = server.client()
    client.ask(WRQ, "f", {"windowsize": "4", "blksize": "8", **PATIENT})
    client.send(data(1, bytes(8)), data(3, bytes(8)), data(4, bytes(8)))
    assert client.receive_ack() == 1
    assert client.hears_nothing(server.client())
    client.send(*(data(block, bytes(8)) for block in range(2, 6)))
    assert client.receive_ack() == 5
    client.send(data(6, b"end"))
    for _ in range(3):  # dallying: the last ACK may have been lost
        assert client.receive_ack() == 6
        client.send(data(6, b"end"))
    assert client.receive_ack() == 6
    assert (server.root / "f").read_bytes() == bytes(40) + b"end"


def test_a_repeated_block_is_acknowledged_again(server: Server) -> None:
    client = server.client()
    client.ask(WRQ, "f", PATIENT)
    client.send(*[data(1, bytes(512))] * 3)
    assert [client.receive_ack() for _ in range(3)] == [1, 1, 1]
    client.send(data(2, b""))
    assert client.receive_ack() == 2
    assert (server.root / "f").read_bytes() == bytes(512)


def test_blocks_outside_the_window_are_ignored_and_one_too_large_ends_the_upload(server: Server) -> None:
    client = server.client()
    client.ask(WRQ, "f", PATIENT)
    client.send(*(data(block, bytes(512)) for block in (2, 3, 1000, 40_000, 65_535, 0)))
    assert client.hears_nothing(server.client())
    client.send(data(1, bytes(513)))
    assert code(client.receive()) == 4
    assert os.listdir(server.root) == []


def test_a_stranger_gets_error_5_and_the_transfer_goes_on(server: Server) -> None:
    (server.root / "f").write_bytes(bytes(1000))
    client, stranger = server.client(), server.client()
    client.ask(RRQ, "f", PATIENT)
    client.send(ack(0))
    assert client.receive_data()[0] == 1
    stranger.server = client.server
    for datagram in (data(1, b"?"), ack(1), b"\0\6", b"\0\x09", request(RRQ, "f")):
        stranger.send(b"\0\5\0\0no\0", b"", b"\0", b"\0\4\0", datagram)  # only the last of these is answered
        assert code(stranger.receive()) == 5
    assert stranger.hears_nothing(server.client())
    client.send(ack(1))
    assert client.receive_data() == (2, bytes(488))


def test_garbage_is_answered_once_or_not_at_all(server: Server) -> None:
    (server.root / "f").write_bytes(b"x")
    client = server.client()
    answered = {
        4: [
            b"\0\0", b"\0\x09what", b"\0\1", b"\0\1f", b"\0\1f\0", b"\0\1f\0octet", b"\0\1\0octet\0",
            b"\0\1f\0octet\0blksize", b"\0\1f\0octet\0blksize\0", b"\0\1f\0octet\0blksize\x008",
            b"\0\1f\0octet\0" + b"a\0" * 300, b"\xff" * 60_000,
        ],
        5: [data(1, b"x"), ack(0), b"\0\6blksize\x00512\0"],
    }  # fmt: skip
    for expected, datagrams in answered.items():
        for datagram in datagrams:
            client.send(b"", b"\0", b"\1", b"\0\4\0", b"\0\5\0", b"\0\5\0\1gone\0", datagram)
            assert code(client.receive()) == expected, datagram[:40]
    assert client.hears_nothing(server.client())
    assert client.ask(RRQ, "f") == data(1, b"x")


def test_garbage_on_a_transfer_does_not_end_it_but_an_error_does(server: Server) -> None:
    (server.root / "f").write_bytes(bytes(600))
    client = server.client()
    client.ask(RRQ, "f", PATIENT)
    client.send(ack(0))
    assert client.receive_data()[0] == 1
    client.send(b"", b"\0", b"\0\x09", b"\0\1f\0", b"\xff\xff\xff\xff", request(RRQ, "f"))
    assert client.hears_nothing(server.client())
    client.send(ack(1))
    assert client.receive_data()[0] == 2
    client.send(b"\0\5\0\0gone\0", ack(2))
    assert code(client.receive()) == 5  # the transfer had gone before its last ACK came


# Starting and stopping.


def test_sigterm_ends_it_at_once_tells_its_peers_and_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with subprocess.Popen(command(root, "--write"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        server = Server(root, ready(process))
        client = server.client()
        client.ask(WRQ, "f", PATIENT)
        client.send(data(1, bytes(512)))
        assert client.receive_ack() == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert code(client.receive()) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
        client.socket.close()
    assert os.listdir(root) == []


def test_what_it_cannot_start_with_is_one_line(tmp_path: Path) -> None:
    for arguments in (["--host", "192.0.2.1"], ["--port", "70000"], ["--root", str(tmp_path / "absent")]):
        ended = subprocess.run(command(tmp_path, *arguments), capture_output=True, timeout=20, check=False)
        assert (ended.returncode, ended.stderr.count(b"\n")) == (2, 1), ended.stderr


def command(root: Path, *more: str) -> list[str]:
    return [sys.executable, str(FOLDER / "server.py"), "--root", str(root), *more]


def ready(process: subprocess.Popen[bytes]) -> tuple[str, int]:
    assert process.stdout is not None
    word, host, port, pid = process.stdout.readline().decode().split()
    assert (word, int(pid)) == ("READY", process.pid)
    return host, int(port)


# Timers, in virtual time: the server's sockets are real, its clock is ours.


@dataclass
class Clock:
    """A server in this process, and its only client; nothing happens but when a test says so."""

    module: ModuleType
    server: Any
    client: Client
    now: float = 1000.0

    def ask(self, operation: int, options: dict[str, str] | None = None) -> bytes:
        self.client.send(request(operation, "f", options))
        self.server.admit()
        return self.client.receive()

    def send(self, *datagrams: bytes) -> None:
        self.client.send(*datagrams)
        self.server.receive(self.server.ports[0])

    def heard(self, after_s: float) -> list[bytes]:
        """What has come when the clock has moved on."""
        self.now += after_s
        self.server.expire()
        self.client.socket.setblocking(False)
        datagrams = []
        try:
            while True:
                datagrams.append(self.client.socket.recv(65536))
        except BlockingIOError:
            return datagrams
        finally:
            self.client.socket.settimeout(10)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def clock(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    spec = importlib.util.spec_from_file_location("pyepoll_server", FOLDER / "server.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (root / "f").write_bytes(bytes(8_000))
    server = module.Server("127.0.0.1", 0, str(root), True, 300)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        made = Clock(module, server, Client(server.listening.getsockname(), client))
        monkeypatch.setattr(module, "monotonic", lambda: made.now)
        yield made
    server.stop()


def test_a_lost_datagram_is_sent_again_ever_more_slowly_and_then_given_up(clock: Clock) -> None:
    first = clock.ask(RRQ)
    for wait_s in (1, 2, 4, 8, 8):
        assert clock.heard(wait_s - 0.01) == []
        assert clock.heard(0.01) == [first]
    assert len(clock.server.transfers) == 1
    assert clock.heard(8) == []
    assert clock.server.transfers == {}
    assert clock.heard(1000) == []
    assert clock.server.timers == []


def test_the_interval_follows_the_round_trip_but_not_an_agreed_one(clock: Clock) -> None:
    clock.ask(RRQ)
    clock.now += 0.001
    clock.send(ack(1))
    assert clock.heard(0.19) == [data(2, bytes(512))]
    assert clock.heard(0.01) == [data(2, bytes(512))]
    clock.client.server = clock.server.listening.getsockname()
    clock.ask(RRQ, {"timeout": "30"})
    clock.now += 0.001
    clock.send(ack(0))
    assert clock.heard(29.9) == [data(1, bytes(512))]
    assert clock.heard(0.1) == [data(1, bytes(512))]


def test_one_lost_block_of_a_window_costs_one_resend(clock: Clock) -> None:
    clock.ask(RRQ, {"windowsize": "4"})
    clock.now += 0.001
    clock.send(ack(0))
    assert [datagram[3] for datagram in clock.heard(0.001)] == [1, 2, 3, 4]
    clock.send(ack(1))  # block 2 was lost
    assert [datagram[3] for datagram in clock.heard(0)] == [2, 3, 4, 5]
    clock.send(ack(1))  # sent before the resend came
    assert clock.heard(0) == []
    clock.send(ack(2))  # from a receiver that acknowledges every block
    assert [datagram[3] for datagram in clock.heard(0)] == [6]
    clock.now += 0.001
    clock.send(ack(4))  # block 5 was lost
    assert [datagram[3] for datagram in clock.heard(0)] == [5, 6, 7, 8]


def test_a_window_whose_first_block_was_lost_is_sent_again_once(clock: Clock) -> None:
    clock.ask(RRQ, {"windowsize": "4"})
    clock.now += 0.001
    clock.send(ack(0))
    assert [datagram[3] for datagram in clock.heard(0.001)] == [1, 2, 3, 4]
    clock.send(ack(0))
    assert [datagram[3] for datagram in clock.heard(0.001)] == [1, 2, 3, 4]
    clock.send(ack(0), ack(0))
    assert clock.heard(0.001) == []


def test_an_answer_to_a_datagram_that_was_sent_twice_tells_no_round_trip(clock: Clock) -> None:
    first = clock.ask(RRQ)
    assert clock.heard(1) == [first]
    clock.now += 0.001
    clock.send(ack(1))
    assert clock.heard(1.99) == [data(2, bytes(512))]  # Karn: the longer interval stays for one exchange
    assert clock.heard(0.01) == [data(2, bytes(512))]


def test_a_transfer_has_one_port_and_is_a_stranger_at_any_other(clock: Clock) -> None:
    clock.ask(RRQ)
    clock.client.server = clock.server.ports[1].getsockname()
    clock.client.send(ack(1))
    clock.server.receive(clock.server.ports[1])
    assert [code(datagram) for datagram in clock.heard(0)] == [5]


def test_a_window_that_lost_its_first_block_is_answered_with_ack_0_from_then_on(clock: Clock, root: Path) -> None:
    (root / "f").unlink()
    clock.ask(WRQ, {"windowsize": "4", "blksize": "8"})
    clock.send(data(2, bytes(8)))
    assert clock.heard(0) == [ack(0)]
    assert clock.heard(1) == [ack(0)]


def test_in_a_window_only_a_late_copy_shows_that_an_ack_was_lost(clock: Clock, root: Path) -> None:
    (root / "f").unlink()
    clock.ask(WRQ, {"windowsize": "2", "blksize": "8"})
    clock.now += 0.001
    clock.send(data(1, bytes(8)), data(2, bytes(8)), data(2, bytes(8)))
    assert clock.heard(0.01) == [ack(2)]
    clock.send(data(2, bytes(8)))
    assert clock.heard(0) == [ack(2)]


def test_a_silent_upload_is_given_up_and_leaves_nothing(clock: Clock, root: Path) -> None:
    (root / "f").unlink()
    clock.ask(WRQ)
    clock.send(data(1, bytes(512)))
    assert [clock.heard(wait_s) for wait_s in (0, 1, 2, 4, 8, 8, 8)] == [[ack(1)]] * 6 + [[]]
    assert clock.server.transfers == {}
    assert os.listdir(root) == []


def test_a_complete_upload_dallies_for_a_while(clock: Clock, root: Path) -> None:
    for name, repeats in (("f", 1), ("f", 6)):
        (root / name).unlink()
        clock.client.server = clock.server.listening.getsockname()
        clock.ask(WRQ)
        clock.send(data(1, b"x"))
        assert clock.heard(1.4) == [ack(1)]
        for _ in range(repeats):
            assert clock.server.dallying == 1
            clock.send(data(1, b"x"))
            assert clock.heard(0) == [ack(1)]
        assert len(clock.server.transfers) == (repeats == 1)
        clock.heard(2.9)
        assert len(clock.server.transfers) == (repeats == 1)
        assert clock.heard(0.2) == []
        assert (clock.server.transfers, clock.server.dallying) == ({}, 0)


@pytest.mark.parametrize("ending", ["complete", "aborted"])
def test_where_no_nameless_file_can_be_made_a_hidden_one_serves(
    clock: Clock, root: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    real: Callable[..., int] = os.open

    def refusing(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(clock.module.errno.EOPNOTSUPP, "no O_TMPFILE here")
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", refusing)
    (root / "f").unlink()
    clock.ask(WRQ)
    clock.send(data(1, bytes(512)))
    assert [name.startswith(".tftpbench-upload-") for name in os.listdir(root)] == [True]
    clock.send(data(2, b"end") if ending == "complete" else b"\0\5\0\0gone\0")
    assert os.listdir(root) == (["f"] if ending == "complete" else [])


def test_a_file_whose_name_goes_while_it_is_read_is_served_to_its_end(clock: Clock, root: Path) -> None:
    (root / "f").write_bytes(bytes(1000))
    clock.ask(RRQ)
    (root / "f").unlink()
    clock.send(ack(1))
    assert clock.heard(0) == [data(2, bytes(488))]
