"""The copy of a running server's file: what counts as an answer, what is acknowledged, and how long it waits."""

import importlib
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.peer import ACK, RRQ, Address, Peer, ack, data, error, oack, opcode, peer
from tftpbench.host.server import NothingListens, download
from tftpbench.host.server.readiness import free_port
from tftpbench.host.target import Target


def copied(server: Peer, path: Path, **options: int) -> bytes:
    download(Target("127.0.0.1", server.port, "f"), options, path)
    return path.read_bytes()


def test_what_another_host_sends_before_the_servers_first_answer_is_ignored(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.2", 0))

        def answer(self: Peer, datagram: bytes, address: Address) -> None:
            if opcode(datagram) == RRQ:
                for each in (data(1, b"wrong"), error(1), oack(blksize=8)):
                    stranger.sendto(each, address)
                self.send(data(1, b"right"), address)

        with peer(answer) as server:
            assert copied(server, tmp_path / "f") == b"right"


@pytest.mark.parametrize(
    ("options", "sent", "acks"),
    [
        ({}, [data(1, bytes(512)), data(1, bytes(512)), data(1, bytes(512)), data(2, b"")], [1, 1, 1, 2]),
        ({"windowsize": 2}, [*2 * [data(1, bytes(512)), data(2, bytes(512))], data(3, b"")], [0, 2, 2, 3]),
    ],
)
def test_each_copy_of_a_block_is_acknowledged_in_lock_step_and_a_window_sent_anew_once(
    tmp_path: Path, options: dict[str, int], sent: list[bytes], acks: list[int]
) -> None:
    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        if opcode(datagram) == RRQ:
            for each in ([oack(**options)] if options else []) + sent:
                self.send(each, address)

    with peer(answer) as server:
        copied(server, tmp_path / "f", **options)
    assert [each for each in server.received if opcode(each) == ACK] == [ack(block) for block in acks]


def test_an_oack_that_comes_late_leaves_the_server_its_time_for_the_first_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = importlib.import_module("tftpbench.host.server.plain_client")
    clock = _Clock()
    monkeypatch.setattr(module, "time", clock)
    almost_s = 0.9 * module.TRIES * module.WAIT_S
    answers = {RRQ: oack(blksize=600), ACK: data(1, b"whole")}

    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        if (late := answers.pop(opcode(datagram), None)) is not None:
            clock.now_s += almost_s
            self.send(late, address)

    with peer(answer) as server:
        assert copied(server, tmp_path / "f", blksize=600) == b"whole"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_where_nothing_listens_is_known_from_icmp_and_not_waited_for(tmp_path: Path, host: str) -> None:
    with pytest.raises(NothingListens, match=r"^nothing listens on \S+ \(ICMP port unreachable\): start the server"):
        download(Target(host, free_port(host), "f"), {}, tmp_path / "f")


class _Clock:
    """In the place of the module `time`: it stands still unless it is set."""

    def __init__(self) -> None:
        self.now_s = time.monotonic()

    def monotonic(self) -> float:
        return self.now_s
