"""What `tftpbench load` says of a server that fails: the reason, one example, and an exit code that a CI step sees."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import tftpbench.cli.load as cli_load
from tests.loopback.machine import written
from tests.loopback.peer import ACK, ERROR, RRQ, WRQ, Address, Peer, ack, data, error, oack, opcode, peer
from tests.unit.builders import said
from tftpbench.render.terminal import CLEAR_LINE

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

    @property
    def fault(self) -> dict[str, Any]:
        """The only one."""
        (fault,) = self.document["protocol_faults"]
        return dict(fault)


def done(port: int, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error, none of them a terminal."""
    command = [sys.executable, "-m", "tftpbench", "load", f"127.0.0.1:{port}", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS_MAX)
    return ended.returncode, ended.stdout, ended.stderr


def load(port: int, *arguments: str) -> Loaded:
    code, out, err = done(port, "--json", *arguments)
    assert err == "", "a document, and nothing else"
    document = json.loads(out)
    ended = sum(document[name] for name in ("completed", "failed", "timed_out", "interrupted"))
    assert document["started"] == ended, "counters add up"
    return Loaded(code, document)


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
    shown = "" if wrong.startswith(data(1, b"")[:2]) else f": {wrong[:64].hex()}"
    assert f"[{len(wrong)} bytes{shown}" in loaded.fault["example"]


@pytest.mark.parametrize("option", [(), ("--show-payload",)])
def test_file_contents_are_shown_on_request_only_and_the_first_wrong_byte_always(
    tmp_path: Path, option: tuple[str, ...]
) -> None:
    expected, secret = tmp_path / "expected", b"secret" * 50
    expected.write_bytes(secret[:7] + b"?" + secret[8:])
    with peer(answers(data(1, secret))) as server:
        words = ("--read", "f", "--transfers", "2", "--verify-against", str(expected), *option, *PATIENT)
        code, out, err = done(server.port, *words)
    example = next(line for line in out.splitlines() if "wrong_contents" in line)
    hexadecimal = f": {data(1, secret)[:64].hex()}..." if option else ""
    assert example == (
        f"  wrong_contents: 2 times, for example: DATA block 1, 300 bytes [304 bytes{hexadecimal}], "
        "first wrong byte at offset 7 of the file"
    )
    assert (code, err, "0 lost in our sockets" in out) == (3, "", True)


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
        _, text, _ = done(server.port, "--read", "f", "--transfers", "2", *PATIENT)
    assert loaded.code == 3
    assert loaded.document["error_messages"] == {"2": "no such luck\\x1b[2J"}
    assert 'ERROR 2 (access violation): 2 times, for example: "no such luck\\x1b[2J"' in text
    assert "\x1b" not in text
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
    assert loaded.fault["example"].startswith("DATA block")


def test_a_file_that_never_ends_and_of_which_nothing_is_known_ends_with_the_load() -> None:
    with peer(endless) as server:
        loaded = load(server.port, "--read", "f", "-c", "2", "--duration", "200ms", *PATIENT)
    assert (loaded.code, loaded.document["interrupted"]) == (3, 2)
    [warning] = [each for each in loaded.document["warnings"] if "kept answering" in each]
    assert warning.startswith("none of 2 transfers ended, though the server kept answering: ")


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
    assert any(warning.startswith(sentence) for warning in figures["warnings"])


def test_a_server_that_load_started_and_that_dies_ends_the_load_and_is_named(tmp_path: Path) -> None:
    program = Path(__file__).with_name("misbehaving_server.py")
    argv = [sys.executable, str(program), "dies", "{host}", "{port}", "{root}"]
    server = written(tmp_path, "dies", argv, "answer", "{operations: [read]}")
    # Without its end the load would wait for longer than the test may take.
    words = ["--read", "f", "--size", "1KiB", "-c", "2", "--transfers", "99", "--timeout", "1h", "--json"]
    command = [sys.executable, "-m", "tftpbench", "load", "--server", str(server), *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS_MAX)
    document = json.loads(ended.stdout)
    assert (ended.returncode, ended.stderr, document["verdict"]) == (3, "", "invalid")
    assert 0 < document["completed"] < 99
    assert "dies: died with SIGSEGV; " in document["verdict_reason"]
    assert not [warning for warning in document["warnings"] if "check that it still runs" in warning]


def started(port: int, *arguments: str) -> subprocess.Popen[str]:
    """A load that would take a minute to give up; no terminal anywhere."""
    command = [sys.executable, "-m", "tftpbench", "load", f"127.0.0.1:{port}", "--read", "f", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_port_where_nothing_listens_is_one_line_at_once_and_the_end_of_the_load() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    began = time.monotonic()
    with started(port, "--json") as loading:
        out, err = loading.communicate()
    # All that takes time is to start Python; given up by retries, it would be a minute.
    assert time.monotonic() - began < LONG_S
    assert err == ""
    document = json.loads(out)
    assert [each for each in document["warnings"] if str(port) in each] == [
        f"nothing listens on 127.0.0.1:{port} (ICMP port unreachable): start the server, or correct the address"
    ]
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
    assert "  served         0 of 10 transfers, 10 " in out


@pytest.mark.parametrize("is_document", [False, True])
def test_that_a_load_waits_for_open_transfers_is_told_once_and_beside_a_document_not_at_all(is_document: bool) -> None:
    """One transfer never ends. Its client's patience is longer than the 5 s for which a load waits."""

    def answer(self: Peer, datagram: bytes, client: Address) -> None:
        if opcode(datagram) == RRQ and len(self.received) > 1:
            self.send(data(1, b"whole"), client)

    options = ("--json",) if is_document else ()
    with peer(answer) as server:
        code, out, err = done(server.port, "--read", "f", "-c", "2", "-d", "100ms", "--timeout", "30s", *options)
    assert code == 0
    if is_document:
        assert (err, json.loads(out)["interrupted"]) == ("", 1)
    else:
        assert err == "The time is over; waiting up to 4 s for 1 open transfer.\n"


def store(files: dict[str, list[bytes]]) -> Any:
    """Serves files of one block; of each the first contents once, and so on: the last ones for ever."""

    def answer(self: Peer, datagram: bytes, client: Address) -> None:
        if opcode(datagram) == RRQ:
            contents = files.get(datagram[2:].split(b"\0")[0].decode())
            if contents is None:
                self.send(error(1, b"none"), client)
            else:
                self.send(data(1, contents[0]), client)
                del contents[: len(contents) > 1]

    return answer


VERIFIED = ("--verify", "full", "-n", "6", "-c", "1", *PATIENT)


def test_reads_are_compared_with_a_first_read_where_that_is_asked_for() -> None:
    right = b"x" * 100
    with peer(store({"f": [right]})) as server:
        same = load(server.port, "--read", "f", *VERIFIED)
        by_default = load(server.port, "--read", "f", "-n", "6", *PATIENT)
    assert (same.code, same.document["bytes_verified"], same.document["content_mismatches"]) == (0, 600, 0)
    assert (by_default.code, by_default.document["bytes_verified"], by_default.document["verify"]) == (0, 0, "off")
    with peer(store({"f": [right, right, right[:-1] + b"y"]})) as server:
        other = load(server.port, "--read", "f", *VERIFIED)
    assert (other.code, other.document["content_mismatches"]) == (3, 5)
    assert other.fault["example"].endswith("first wrong byte at offset 99 of the file")
    with peer(store({"f": [right, right, right[:-1]]})) as server:
        shorter = load(server.port, "--read", "f", *VERIFIED)
    assert (shorter.code, shorter.document["content_mismatches"]) == (3, 5)


def test_each_of_several_files_is_compared_with_its_own_first_read_or_its_own_copy(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"copy-{number}").write_bytes(b"%d" % number)
    files = {"f-0": [b"0"], "f-1": [b"1"], "f-2": [b"2", b"2", b"?"]}
    numbered = ("--read", "f-{n}", "--distinct-files", "3", "-c", "1", "-n", "6", *PATIENT)
    with peer(store(files)) as server:
        found = load(server.port, *numbered, "--verify", "full")
        copied = load(server.port, *numbered, "--verify-against", str(tmp_path / "copy-{n}"))
    assert (found.code, found.document["content_mismatches"], found.document["bytes_verified"]) == (3, 1, 6)
    assert (copied.code, copied.document["content_mismatches"]) == (3, 2)


def test_files_that_the_load_never_asks_for_are_not_read_first(tmp_path: Path) -> None:
    (tmp_path / "0").write_bytes(b"0")
    (tmp_path / "1").write_bytes(b"?")
    few = ("--read", "f-{n}", "--distinct-files", "100000", "-c", "1", "-n", "2", *PATIENT)
    with peer(store({"f-0": [b"0"], "f-1": [b"1"]})) as server:
        found = load(server.port, *few, "--verify", "full")
        copied = load(server.port, *few, "--verify-against", str(tmp_path / "{n}"))
    warnings = [each for each in found.document["warnings"] if "stood still" not in each]  # a busy machine's
    assert (found.code, warnings, found.document["bytes_verified"]) == (0, [], 2)
    assert (copied.code, copied.document["content_mismatches"]) == (3, 1)


def test_more_first_reads_than_anyone_waits_for_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("load", "127.0.0.1:9", "--read", "f-{n}", "--distinct-files", "10001", "--verify", "full")
    assert said(capsys, *words) == (2, "", (
        "tftpbench: error: --verify full reads each of 10,001 files once before the load; "
        "allowed: 10,000 at most, or --verify-against FILE\n"
    ))  # fmt: skip


def test_a_file_that_can_not_be_read_first_is_told_and_no_success() -> None:
    with peer(store({})) as server:
        loaded = load(server.port, "--read", "f", *VERIFIED, "--blksize", "1428")
    assert (loaded.code, loaded.document["failed"], loaded.document["verify"]) == (3, 6, "off")
    assert loaded.document["warnings"][-1] == (
        "nothing was compared: f was to be read before the load, and the server answered with ERROR 1, 'none'"
    )


def test_a_first_read_waits_as_a_client_does_and_its_failure_is_said_before_the_load() -> None:
    with peer(answers()) as server:
        code, out, err = done(server.port, "--read", "f", *VERIFIED, "--timeout", "500ms", "--retries", "1")
    line = "f was to be read before the load, and the server did not answer within 1 s"
    assert (code, err.splitlines()[0]) == (3, f"The load goes on, but nothing will be compared: {line}.")
    assert f"Warning: nothing was compared: {line}" in out


def test_a_file_too_large_to_be_compared_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_load, "COMPARED_BYTES_MAX", 150)
    with peer(store({"f-0": [b"x" * 100], "f-1": [b"x" * 100]})) as server:
        words = ("load", f"127.0.0.1:{server.port}", "--read", "f-{n}", "--distinct-files", "2", *VERIFIED)
        code, out, err = said(capsys, *words)
    assert (code, out) == (2, "")
    assert err == (
        "tftpbench: error: f-1 is too large: --verify full holds what it compares in memory, 150 B at most; "
        "name a copy with --verify-against FILE\n"
    )


@pytest.mark.parametrize(
    ("granted", "text", "documented"),
    [
        ({"blksize": 2263}, "blksize 8192 -> 2263, windowsize 16 -> not granted, tsize -> not granted", (2263, None)),
        ({"blksize": 8192, "windowsize": 16, "tsize": 3}, "blksize 8192 granted, windowsize 16 granted, tsize granted",
         (8192, 16)),
        ({}, "blksize 8192 -> not granted, windowsize 16 -> not granted, tsize -> not granted", (None, None)),
    ],
)  # fmt: skip
def test_what_was_granted_of_what_was_asked_for_is_told(
    granted: dict[str, int], text: str, documented: tuple[int | None, int | None]
) -> None:
    def answer(self: Peer, datagram: bytes, client: Address) -> None:
        if opcode(datagram) == RRQ and granted:
            self.send(oack(**granted), client)
        elif opcode(datagram) == RRQ or datagram == ack(0):
            self.send(data(1, b"abc"), client)

    asked = ("--read", "f", "-n", "4", "--blksize", "8192", "--windowsize", "16", "--tsize", *PATIENT)
    with peer(answer) as server:
        options = load(server.port, *asked).document["options"]
        _, out, _ = done(server.port, *asked)
    assert f"  options        {text}\n" in out
    assert (options["blksize"]["granted"], options["windowsize"]["granted"]) == documented
    assert {each["transfers_answered"] for each in options.values()} == {4}


def test_a_person_at_a_terminal_sees_a_live_line_each_second_and_is_left_a_clean_screen() -> None:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with peer(answers(data(1, b"whole"))) as server:
        command = [sys.executable, "-m", "tftpbench", "load", f"127.0.0.1:{server.port}", "--read", "f", "--json"]
        with subprocess.Popen([*command, "-d", "2300ms", *PATIENT], stdout=subprocess.PIPE, stderr=theirs) as loading:
            out, _ = loading.communicate()
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert json.loads(out)["failed"] == 0
    lines = [line for line in shown.split(CLEAR_LINE) if line]
    assert re.fullmatch(r"1 s: [\d,]+ done, 0 errors, [\d.]+( k)? files/s, [\d.]+ [KM]?i?B/s, [\d,]+ open", lines[0])
    assert all(len(line) < 80 for line in lines)
    assert len(lines) <= 3, "at most one a second"
    assert shown.endswith(CLEAR_LINE), "the cursor is left on an empty line"
