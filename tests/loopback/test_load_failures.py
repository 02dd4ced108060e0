"""What `tftpbench load` says of a server that fails: the reason, one example, and an exit code that a CI step sees."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.peer import ACK, ERROR, RRQ, WRQ, Address, Peer, ack, data, error, oack, opcode, peer

# Only a run that hangs takes as long: each test knows its own end.
SECONDS_MAX = 120
# To repeat a request is never needed here, and on a busy machine an answer may be late.
PATIENT = ("--timeout", "30s")
# More than a busy machine needs to say its first word, and less than five retries take.
LONG_S = 40
pytestmark = pytest.mark.timeout(SECONDS_MAX)


@dataclass(frozen=True)
class Loaded:
    """A finished `tftpbench load --json`."""

    code: int
    document: dict[str, Any]
    text: str

    @property
    def fault(self) -> dict[str, Any]:
        """The only one."""
        (fault,) = self.document["protocol_faults"]
        return dict(fault)


def load(port: int, *arguments: str) -> Loaded:
    command = [sys.executable, "-m", "tftpbench", "load", f"127.0.0.1:{port}", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS_MAX)
    document = json.loads(done.stdout)
    ended = sum(document[name] for name in ("completed", "failed", "timed_out", "interrupted"))
    assert document["started"] == ended, "counters add up"
    return Loaded(done.returncode, document, done.stderr)


def answers(*datagrams: bytes) -> Any:
    """An answer to each request, and to nothing else."""

    def answer(self: Peer, datagram: bytes, client: Address) -> None:
        for back in datagrams if opcode(datagram) in {RRQ, WRQ} else ():
            self.send(back, client)

    return answer


OPTIONS = ("--blksize", "1024", "--windowsize", "4")
TSIZE = ("--tsize",)


@pytest.mark.parametrize(
    ("operation", "options", "wrong", "kind", "rfc"),
    [
        ("--read", OPTIONS, oack(timeout=3), "option_not_asked", "RFC 2347"),
        ("--read", OPTIONS, oack(blksize=1025), "option_above_asked", "RFC 2348"),
        ("--read", OPTIONS, oack(windowsize=5), "option_above_asked", "RFC 7440 section 3"),
        ("--read", OPTIONS, oack(windowsize=0), "option_out_of_range", "RFC 7440 section 3"),
        ("--read", OPTIONS, oack(blksize=8) + b"blksize\x008\0", "option_repeated", "RFC 2347"),
        ("--read", (), oack(blksize=512), "oack_not_asked", "RFC 2347"),
        ("--read", (), data(1, b"x" * 513), "data_too_large", "RFC 2348"),
        ("--read", (), ack(0), "unexpected_opcode", "RFC 1350 section 2"),
        ("--read", (), b"\0\x01f\0octet\0", "unexpected_opcode", "RFC 1350 section 2"),
        ("--write", (), data(1, b""), "unexpected_opcode", "RFC 1350 section 2"),
        ("--write", OPTIONS, oack(blksize=1025), "option_above_asked", "RFC 2348"),
    ],
)
def test_a_wrong_answer_is_told_with_its_kind_the_datagram_and_the_rfc(
    operation: str, options: tuple[str, ...], wrong: bytes, kind: str, rfc: str
) -> None:
    with peer(answers(wrong)) as server:
        loaded = load(server.port, operation, "f", "-c", "2", "--transfers", "3", *PATIENT, *options)
    assert (loaded.code, loaded.document["failed"]) == (3, 3)
    assert (loaded.fault["kind"], loaded.fault["count"]) == (kind, 3)
    assert loaded.fault["rfc_section"].startswith(rfc)
    assert f"[{len(wrong)} bytes: {wrong[:64].hex()}" in loaded.fault["example"]
    assert f"{kind} ({loaded.fault['rfc_section']}): 3 times, as in: {loaded.fault['example']}" in loaded.text


@pytest.mark.parametrize(
    ("size", "payload", "kind", "code"),
    [(511, b"x" * 512, "longer_than_tsize", 3), (513, b"x" * 511, "shorter_than_tsize", 0)],
)
def test_a_file_that_is_not_as_long_as_its_tsize_is_a_failure(size: int, payload: bytes, kind: str, code: int) -> None:
    def answer(self: Peer, datagram: bytes, client: Address) -> None:
        if opcode(datagram) in {RRQ, WRQ}:
            self.send(oack(tsize=size), client)
        elif datagram == ack(0):
            self.send(data(1, payload), client)

    with peer(answer) as server:
        loaded = load(server.port, "--read", "f", "--transfers", "1", "--tsize", *PATIENT)
    assert server.received[-1].startswith(error(code, b"")[:4])
    assert (loaded.code, loaded.document["failed"]) == (3, 1)
    assert (loaded.fault["kind"], loaded.fault["rfc_section"][:8]) == (kind, "RFC 2349")


def test_the_message_of_an_error_is_quoted_and_cannot_reach_the_terminal_as_it_is() -> None:
    with peer(answers(error(2, b"no such luck\x1b[2J"))) as server:
        loaded = load(server.port, "--read", "f", "--transfers", "2", *PATIENT)
    assert loaded.code == 3
    assert loaded.document["error_messages"] == {"2": "no such luck\\x1b[2J"}
    assert 'ERROR 2 (access violation): 2 times, as in: "no such luck\\x1b[2J"' in loaded.text
    assert "\x1b" not in loaded.text
    assert loaded.document["protocol_faults"] == []


def test_an_error_without_its_nul_is_a_fault_and_an_error_all_the_same() -> None:
    with peer(answers(error(1)[:-1])) as server:
        loaded = load(server.port, "--read", "f", "--transfers", "1", *PATIENT)
    assert loaded.document["errors"] == {"1": 1}
    assert (loaded.fault["kind"], loaded.fault["rfc_section"]) == ("unterminated_error", "RFC 1350 section 5")


def endless(self: Peer, datagram: bytes, client: Address) -> None:
    """An answer that never comes to a last block."""
    if opcode(datagram) in {RRQ, ACK}:
        block = int.from_bytes(datagram[2:4], "big") if opcode(datagram) == ACK else 0
        self.send(data((block + 1) % 65536, b"x" * 512), client)


@pytest.mark.parametrize("size", [511, 512, 700])
def test_a_file_that_goes_on_behind_its_end_is_a_failure_at_once(tmp_path: Path, size: int) -> None:
    expected = tmp_path / "expected"
    expected.write_bytes(b"x" * size)
    with peer(endless) as server:
        loaded = load(
            server.port, "--read", "f", "-c", "1", "--transfers", "2", "--verify-against", str(expected), *PATIENT
        )
    assert (opcode(server.received[-1]), server.received[-1][3]) == (ERROR, 3)
    assert len([one for one in server.received if opcode(one) == ACK]) <= 2 * (size // 512)
    assert (loaded.code, loaded.document["failed"], loaded.document["content_mismatches"]) == (3, 2, 2)
    assert (loaded.fault["kind"], loaded.fault["count"]) == ("longer_than_expected", 2)
    assert "longer_than_expected: 2 times, as in: DATA block" in loaded.text


def test_a_file_that_never_ends_and_of_which_nothing_is_known_ends_with_the_load() -> None:
    with peer(endless) as server:
        loaded = load(server.port, "--read", "f", "-c", "2", "--duration", "200ms", *PATIENT)
    assert (loaded.code, loaded.document["interrupted"]) == (3, 2)
    assert "none of 2 transfers came to its end, though the server went on answering: " in loaded.text


def test_a_server_that_stops_answering_does_not_pass_a_ci_step() -> None:
    served: set[Address] = set()

    def answer(self: Peer, datagram: bytes, client: Address) -> None:
        if len(served) < 20 and opcode(datagram) == RRQ:
            served.add(client)
            self.send(data(1, b"whole"), client)

    with peer(answer) as server:
        loaded = load(server.port, "--read", "f", "-c", "4", "--duration", "2s")
    figures = loaded.document
    assert loaded.code == 3
    assert (figures["completed"], figures["timed_out"], figures["interrupted"]) == (20, 4, 0)
    sentence = "4 of 24 transfers timed out, since the server did not answer"
    assert f"Warning: {sentence}" in loaded.text
    assert any(warning.startswith(sentence) for warning in figures["warnings"])


def started(port: int) -> subprocess.Popen[str]:
    """A load that would take a minute to give up; no terminal anywhere."""
    command = [sys.executable, "-m", "tftpbench", "load", f"127.0.0.1:{port}", "--read", "f", "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_port_where_nothing_listens_is_one_line_at_once_and_the_end_of_the_load() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    began = time.monotonic()
    with started(port) as loading:
        out, err = loading.communicate()
    # All that takes time is to start Python; given up by retries, it would be a minute.
    assert time.monotonic() - began < LONG_S
    assert err.splitlines()[0] == (
        f"Nothing listens at 127.0.0.1:{port} (ICMP port unreachable): start the server, or correct the address."
    )
    document = json.loads(out)
    assert (loading.returncode, document["completed"], document["interrupted"]) == (3, 0, document["started"])


def test_a_port_that_is_silent_is_told_while_the_load_goes_on() -> None:
    began = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        with started(port) as loading:
            assert loading.stderr is not None
            line = loading.stderr.readline()
            assert time.monotonic() - began < LONG_S
            assert line == f"No answer yet from 127.0.0.1:{port} after 1 s; the load goes on, Ctrl-C ends it.\n"
            assert loading.poll() is None
            loading.send_signal(signal.SIGINT)
            out, _ = loading.communicate()
    assert loading.returncode == 130
    assert json.loads(out)["completed"] == 0
