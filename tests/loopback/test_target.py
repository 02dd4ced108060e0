"""Measuring a server that runs already: read, copied, written to only where that is allowed, and never stopped."""

import importlib
import json
import re
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tftpbench
from tests.loopback.machine import bundled, tiny, written
from tests.loopback.peer import ACK, DATA, ERROR, RRQ, WRQ, Address, Answer, Peer, ack, data, error, oack, opcode, peer
from tftpbench import cli, measure
from tftpbench.host.server import NothingListens, RunningServer, download, request
from tftpbench.host.server.readiness import free_port
from tftpbench.host.target import Target
from tftpbench.model.errors import ServerNotReady
from tftpbench.model.scenario import Scenario

pytestmark = pytest.mark.timeout(200)
SCENARIO = """\
schema: tftpbench.scenario/1
name: target
description: Is it running?
servers: [epoll]
matrix: {operation: [read, write], concurrency: 3, file_size: 4KiB}
transfers: 20
distinct_files: 2
trials: 1
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "boot.0").write_bytes(bytes(range(256)) * 37 + b"end")
    return folder


@pytest.fixture
def running(tmp_path: Path, root: Path) -> Iterator[tftpbench.Server]:
    with tftpbench.Server(str(bundled(tmp_path, "threads")), root, write=True) as server:
        yield server


def run(folder: Path, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code of a run, and its rows in the scenario's order."""
    path = folder / "target.yaml"
    path.write_text(SCENARIO)
    code = cli.exit_code(["run", str(path), "--quiet", "--out", str(folder / "out"), *arguments])
    files = (folder / "out").glob("*/trials.jsonl")
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return code, sorted(rows, key=lambda row: row["trial"])


def test_its_file_is_read_over_and_over_and_nothing_is_written(
    tmp_path: Path, root: Path, running: tftpbench.Server
) -> None:
    address = f"127.0.0.1:{running.port}"
    code, rows = run(tmp_path, "--target", address, "--target-file", "boot.0")
    assert code == 0
    assert [(row["server"], row["operation"], row["verdict"]) for row in rows] == [(address, "read", "valid")]
    size = (root / "boot.0").stat().st_size
    assert (rows[0]["file_size_bytes"], rows[0]["bytes_verified"]) == (size, 20 * size)
    assert rows[0]["server_cpu_s"] is None
    assert [path.name for path in root.iterdir()] == ["boot.0"]
    manifest = json.loads(next((tmp_path / "out").glob("*/manifest.json")).read_text())
    assert manifest["servers"][address]["model"] == "running already"
    assert manifest["scenario"]["servers"] == [f"tftp://{address}/boot.0"]


def test_with_leave_to_write_it_is_read_and_written_and_every_byte_is_compared(
    tmp_path: Path, root: Path, running: tftpbench.Server, capsys: pytest.CaptureFixture[str]
) -> None:
    code, rows = run(tmp_path, "--target", f"127.0.0.1:{running.port}", "--target-write")
    assert code == 0, capsys.readouterr().err
    assert [(row["operation"], row["bytes_verified"], row["content_mismatches"]) for row in rows] == [
        ("read", 20 * 4096, 0),
        ("write", 20 * 4096, 0),
    ]
    names = {path.name for path in root.iterdir()} - {"boot.0"}
    assert len(names) == 2 + 20
    assert all(name.startswith("tftpbench-") for name in names)


def test_it_is_compared_with_servers_of_ours_on_files_of_the_same_size(
    tmp_path: Path, root: Path, running: tftpbench.Server
) -> None:
    arguments = ["--target", f"127.0.0.1:{running.port}", "--target-file", "boot.0", "-s", "epoll"]
    code, rows = run(tmp_path, *arguments)
    assert code == 0
    reads = [row for row in rows if row["operation"] == "read"]
    assert {row["file_size_bytes"] for row in reads} == {(root / "boot.0").stat().st_size}
    assert {row["server"] for row in reads} == {"epoll", f"127.0.0.1:{running.port}"}


def test_it_goes_on_afterwards(tmp_path: Path, running: tftpbench.Server) -> None:
    assert run(tmp_path, "--target", f"127.0.0.1:{running.port}", "--target-file", "boot.0")[0] == 0
    assert running.usage().threads


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target-file", "absent"], "'absent' can't be read: it answered with ERROR 1, 'file"),
        ([], "--target needs a file to read"),
        (["--target-file", "boot.0", "--target-write"], "not both"),
        (["--target-file", ""], "--target-file is ''; allowed: the name of one file"),
    ],
)
def test_what_can_not_be_asked_of_it_is_one_line(
    tmp_path: Path, running: tftpbench.Server, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    code, rows = run(tmp_path, "--target", f"127.0.0.1:{running.port}", *arguments)
    assert (code, rows) == (2, [])
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_another_machine_needs_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--target", "192.0.2.1:69", "--target-file", "f") == (2, [])
    assert "192.0.2.1:69 is another machine than this one; allow it with --allow-remote" in capsys.readouterr().err


def test_a_target_option_without_a_target_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--target-write") == (2, [])
    assert "--target-file and --target-write go with --target HOST:PORT" in capsys.readouterr().err


def test_a_server_that_takes_no_uploads_is_a_finding(tmp_path: Path, root: Path) -> None:
    with tftpbench.Server(str(tiny(tmp_path, "ok")), root) as server:
        code, rows = run(tmp_path, "--target", f"127.0.0.1:{server.port}", "--target-write")
    assert code == 0
    read, write = rows
    assert read["verdict"] == "invalid"
    assert read["server_findings"][0]["text"].startswith("took 0 of the 2 files that are to be read")
    assert write["verdict"] == "valid"
    assert [(each["kind"], each["count"]) for each in write["server_findings"]] == [("refused", 20)]


def test_a_server_that_keeps_files_in_memory_gets_them_by_upload(tmp_path: Path) -> None:
    path = bundled(tmp_path, "epoll")
    # It takes uploads only with the words for writing, which its readers' files need, too.
    text = path.read_text().replace(", '--write'", "")
    path.write_text(f"{text}\nargv_write: [--write]\nstore: memory")
    code, rows = run(tmp_path, "-s", str(path))
    assert code == 0
    assert [(row["operation"], row["completed"], row["bytes_verified"]) for row in rows] == [
        ("read", 20, 20 * 4096),
        ("write", 20, 20 * 4096),
    ]
    assert all(row["server_findings"] == [] and row["content_mismatches"] == 0 for row in rows)


def test_uploads_that_do_not_come_back_are_told(tmp_path: Path, root: Path) -> None:
    argv = [
        sys.executable,
        str(Path(__file__).with_name("misbehaving_server.py")),
        "forgets",
        "{host}",
        "{port}",
        "{root}",
    ]
    path = written(tmp_path, "forgets", argv, "answer", "{operations: [read, write]}")
    with tftpbench.Server(str(path), root) as server:
        _, rows = run(
            tmp_path, "--target", f"127.0.0.1:{server.port}", "--target-write", "--set", "matrix.operation=write"
        )
    (row,) = rows
    assert (row["completed"], row["bytes_verified"]) == (20, 0)
    assert [(each["kind"], each["count"]) for each in row["server_findings"]] == [("not_read_back", 20)]


def named_only(contents: bytes, files: set[bytes], blksize_min: int = 8) -> Answer:
    """A server that is silent for every name but these, and refuses DATA blocks below a size (ERROR 8, RFC 2347).

    It grants blksize alone, never sends a block number twice, and answers a WRQ for any name.
    """
    blksizes: dict[Address, int] = {}

    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        words = datagram[2:].split(b"\0")
        if opcode(datagram) == RRQ and words[0] in files:
            asked = dict(zip(words[2::2], words[3::2], strict=False)).get(b"blksize")
            blksizes[address] = int(asked or 512)
            if blksizes[address] < blksize_min:
                self.send(error(8, b"\x1b[31mtoo small\n"), address)
            elif asked:
                self.send(oack(blksize=int(asked)), address)
            else:
                self.send(data(1, contents[:512]), address)
        elif opcode(datagram) == ACK and address in blksizes:
            block, blksize = int.from_bytes(datagram[2:4], "big"), blksizes[address]
            if block * blksize <= len(contents) and block < 65_535:
                self.send(data(block + 1, contents[block * blksize : (block + 1) * blksize]), address)
        elif opcode(datagram) in {WRQ, DATA}:
            self.send(ack(int.from_bytes(datagram[2:4], "big") if opcode(datagram) == DATA else 0), address)

    return answer


def requests(made: Peer) -> list[list[bytes]]:
    """The words of all RRQs and WRQs, in their order."""
    return [datagram[2:].split(b"\0") for datagram in made.received if opcode(datagram) in {RRQ, WRQ}]


def test_a_server_that_is_silent_for_unknown_names_is_asked_for_none(tmp_path: Path) -> None:
    contents = bytes(range(256)) * 30
    with peer(named_only(contents, {b"boot.0"})) as server:
        code, rows = run(
            tmp_path, "--target", f"127.0.0.1:{server.port}", "--target-file", "boot.0",
            "--set", "matrix.blksize=1024", "--set", "client.tsize=true", "--set", "transfers=5",
        )  # fmt: skip
    assert code == 0
    assert [(row["completed"], row["bytes_verified"], row["verdict"]) for row in rows] == [(5, 5 * 7680, "valid")]
    asked = requests(server)
    assert len(asked) >= 1 + 5, "a busy machine may make a client ask twice"
    assert asked[0] == [b"boot.0", b"octet", b"tsize", b"0", b"blksize", b"1024", b""]
    assert all(each == asked[0] for each in asked), "the clients' requests are the same"


def test_a_file_that_is_served_with_large_blocks_only_is_copied_with_the_scenarios(tmp_path: Path) -> None:
    contents = secrets.token_bytes(1024) * 32 * 1024 + b"more than 65,535 blocks of 512 bytes"
    with peer(named_only(contents, {b"boot.0"})) as server:
        code, rows = run(
            tmp_path, "--target", f"127.0.0.1:{server.port}", "--target-file", "boot.0",
            "--set", "matrix.blksize=16384", "--set", "matrix.concurrency=1", "--set", "transfers=1",
        )  # fmt: skip
    assert code == 0
    assert [(row["completed"], row["bytes_verified"]) for row in rows] == [(1, len(contents))]


def test_the_options_of_a_further_cell_are_tried_where_those_of_the_first_fail(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    serve = named_only(bytes(700), {b"boot.0"})
    files = ["--target-file", "boot.0", "--set", "matrix.concurrency=1", "--set", "transfers=2"]

    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        if b"windowsize\x004" in datagram:
            self.send(error(8, b"no windows"), address)
        else:
            serve(self, datagram, address)

    with peer(answer) as server:
        path = tmp_path / "target.yaml"
        path.write_text(SCENARIO)
        code = cli.exit_code(
            ["run", str(path), "--out", str(tmp_path / "out"), "--target", f"127.0.0.1:{server.port}", *files,
             "--set", "matrix.windowsize=[4,1]", "--set", "matrix.operation=read"]
        )  # fmt: skip
    assert code == 0
    text = f"127.0.0.1:{server.port}: 'boot.0' was copied with no options: with windowsize 4 it answered with ERROR 8"
    assert f"{text}, 'no windows'.\n" in capfd.readouterr().err


def test_an_error_is_quoted_in_one_line_and_reaches_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with peer(named_only(b"", {b"boot.0"}, blksize_min=1000)) as server:
        arguments = ["--target-file", "boot.0", "--set", "matrix.blksize=[512,600]"]
        assert run(tmp_path, "--target", f"127.0.0.1:{server.port}", *arguments) == (2, [])
    (line,) = capsys.readouterr().err.splitlines()
    assert "'boot.0' can't be read: with blksize 600 it answered with ERROR 8, '\\x1b[31mtoo small\\n'; check" in line
    asked = dict.fromkeys(tuple(each[2:4]) for each in requests(server))
    assert list(asked) == [(b"blksize", b"600"), (b"",)]


def test_with_leave_to_write_no_file_is_asked_for_that_is_not_ours(tmp_path: Path) -> None:
    with peer(named_only(b"", set())) as server:
        code, rows = run(
            tmp_path, "--target", f"127.0.0.1:{server.port}", "--target-write", "--set", "matrix.operation=write",
            "--set", "verify=off",
        )  # fmt: skip
    assert (code, [row["completed"] for row in rows]) == (0, [20])
    first, *others = requests(server)
    assert first[0].startswith(b"tftpbench-")
    assert all(each[0].startswith(b"tftpbench-") for each in others)
    assert {opcode(each) for each in server.received if each} == {WRQ, DATA, ERROR}, (
        "what begins with the first is ended"
    )


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([oack(blksize=2048)], "granted blksize 2048 where 1024 was asked for"),
        ([oack(blksize=1024, windowsize=9)], "granted 'windowsize' b'9', which was not asked for (RFC 2347)"),
        ([data(1, bytes(1024))], "sent a DATA block of 1024 bytes where 512 were agreed (RFC 2348)"),
        ([oack(blksize=1024, tsize=1000), data(1, bytes(1024))], "sent more than the 1000 bytes that it announced"),
    ],
)
def test_a_server_that_breaks_a_rule_while_its_file_is_copied_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answers: list[bytes], said: str
) -> None:
    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        for each in answers if opcode(datagram) == RRQ else []:
            self.send(each, address)

    with peer(answer) as server:
        arguments = ["--set", "matrix.blksize=1024", "--set", "client.tsize=true", "--target-file", "f"]
        assert run(tmp_path, "--target", f"127.0.0.1:{server.port}", *arguments) == (2, [])
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_a_file_is_copied_in_windows_and_each_is_acknowledged_once(tmp_path: Path, running: tftpbench.Server) -> None:
    arguments = ["--set", "matrix.windowsize=8", "--set", "matrix.blksize=64", "--target-file", "boot.0"]
    code, rows = run(tmp_path, "--target", f"127.0.0.1:{running.port}", *arguments)
    assert (code, [row["completed"] for row in rows]) == (0, [20])


def overloaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, recovers: bool
) -> tuple[list[measure.Event], list[dict[str, Any]]]:
    """A run of three trials on a server that falls silent in the first, perhaps until it is waited for."""
    for name, limit_s in (
        ("trial.UNRESPONSIVE_TIMEOUT_S", 0.02),
        ("trial.RECOVERY_TIMEOUT_S", 60 if recovers else 0.2),
    ):
        monkeypatch.setattr(f"tftpbench.measure.{name}", limit_s)
    monkeypatch.setattr("tftpbench.host.server.external.REPEATS_S", (0.01, 0.04))
    monkeypatch.setattr("tftpbench.host.server.external.ANSWER_TIMEOUT_S", 0.1)
    serve, seen = named_only(bytes(700), {b"boot.0"}), list[measure.Event]()

    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        if len(requests(self)) <= 10 or (recovers and any(isinstance(each, measure.RecoveryAwaited) for each in seen)):
            serve(self, datagram, address)

    asked = Scenario.from_dict(
        {
            "name": "target",
            "description": "Is it running?",
            "servers": ["epoll"],
            "matrix": {"operation": "read", "concurrency": 20, "file_size": "4KiB"},
            "transfers": 20,
            "trials": 3,
            "client": {"timeout": "50ms", "retries": 4},
        }
    )
    with peer(answer) as server:
        done = tftpbench.run(
            asked, target=f"127.0.0.1:{server.port}", target_file="boot.0", out=folder,
            on_event=seen.append, progress=False,
        )  # fmt: skip
    rows = [json.loads(line) for line in (done.path / "trials.jsonl").read_text().splitlines()]
    return seen, sorted(rows, key=lambda row: row["trial"])


def findings_of(row: dict[str, Any]) -> dict[str, str]:
    return {each["kind"]: each["text"] for each in row["server_findings"]}


def test_after_an_overload_it_is_waited_for_until_it_answers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, (loaded, *after) = overloaded(tmp_path, monkeypatch, recovers=True)
    assert loaded["completed"] < 20
    assert re.fullmatch(r"answered no new request for \d+ s after the load", findings_of(loaded)["unresponsive"])
    assert [(row["completed"], row["server_findings"]) for row in after] == [(20, []), (20, [])]
    waits = [each for each in seen if isinstance(each, measure.RecoveryAwaited)]
    assert {(each.trial.number, each.timeout_s) for each in waits} == {(1, 60)}
    assert all(each.waited_s >= 0.02 for each in waits)


def test_one_that_does_not_recover_is_said_to_be_busy_and_not_to_be_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (loaded, *after) = overloaded(tmp_path, monkeypatch, recovers=False)
    assert findings_of(loaded)["unresponsive"] == "answered no new request after the load"
    assert [findings_of(row) for row in after] == [
        {"not_ready": f"still busy with the load before it, or stopped (no answer in {asked_s} s)"}
        for asked_s in ("0.3", "0.4")
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_one_that_has_ended_is_known_from_icmp_and_not_waited_for(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tftpbench.host.server.readiness.REFUSED_S", 0.0)
    monkeypatch.setattr("tftpbench.host.server.external.REPEATS_S", (0.05, 0.05))
    server = RunningServer(Target(host, free_port(host), "f"))
    server.asked, server.silent_s = request("read", "f", {}), 0.0
    assert not server.answers(3600)
    assert server.silent_s > 0
    with pytest.raises(ServerNotReady, match=r"^nothing listens on \S+ \(ICMP port unreachable\): start the server"):
        server.start()


def test_one_that_refuses_for_a_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tftpbench.host.server.external.REPEATS_S", (0.05, 0.05))
    monkeypatch.setattr("tftpbench.host.server.readiness.REFUSED_S", 3600.0)
    place = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server = RunningServer(Target("127.0.0.1", free_port("127.0.0.1"), "f"))
    server.asked, silences = request("read", "f", {}), []

    def starts(waited_s: float) -> None:
        silences.append(waited_s)
        if len(silences) == 3:
            place.bind(("127.0.0.1", server.port))
        if len(silences) > 3:
            _, client = place.recvfrom(600)
            place.sendto(data(1, b"f"), client)

    with place:
        assert server.answers(60, starts)
    assert not server.is_refused


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


def test_a_capacity_of_a_running_server_has_its_form_whatever_the_machine_does(
    running: tftpbench.Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures are for a quiet machine; here: exit code, document, and that each trial is one of the run."""
    words = ["capacity", "--target", f"127.0.0.1:{running.port}", "--target-file", "boot.0"]
    code = cli.exit_code([*words, "--budget", "10s", "--json", "--quiet", "--out", str(tmp_path / "runs")])
    found = json.loads(capsys.readouterr().out)
    (folder,) = (tmp_path / "runs").iterdir()
    assert code == (0 if found["is_regular"] else 6)
    assert (found["find"], found["unit"], found["boot"]) == ("rate", "transfers/s", None)
    assert found.keys() >= {"lower_per_s", "upper_per_s", "conditional_per_s", "trials", "reasons"}
    assert json.loads((folder / "capacity.json").read_text()) == found
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    assert [row["trial"] for row in rows] == [each["trial"] for each in found["trials"]]
    assert {each["stage"] for each in found["trials"]} >= {"ramp"}
    assert all(row["rate_per_s"] and row["backlog_growth"] is not None for row in rows if row["verdict"] == "valid")
    assert found["took_s"] < 60
    assert bool(found["reasons"]) != found["is_regular"]
    assert cli.exit_code(["report", str(folder), "--format", "md", "--out", "-"]) == 0
    assert "Trials" in capsys.readouterr().out or found["trials"]


def test_a_capacity_of_a_target_that_is_not_there_is_exit_code_three(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["capacity", "--target", f"127.0.0.1:{free_port('127.0.0.1')}", "--target-file", "boot.0"]
    assert cli.exit_code([*words, "--quiet", "--out", str(tmp_path)]) == 3
    assert "nothing listens" in capsys.readouterr().err


def test_a_capacity_of_a_target_that_falls_silent_ends_with_its_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its machines might go on for two minutes, and it would be waited for as long."""
    serve = named_only(bytes(700), {b"boot.0"})

    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        if len(requests(self)) <= 10:
            serve(self, datagram, address)

    with peer(answer) as server:
        words = ["capacity", "--target", f"127.0.0.1:{server.port}", "--target-file", "boot.0", "--find", "machines"]
        words += ["--deadline", "2min", "--set", "client.retries=100", "--budget", "10s", "--json", "--quiet"]
        assert cli.exit_code([*words, "--out", str(tmp_path)]) == 6
    found = json.loads(capsys.readouterr().out)
    assert found["took_s"] < 60
    assert not found["is_target_dead"], "it was not waited for to the end"
    assert found["reasons"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name servers"),
        (["epoll"], "say what starts"),
        (["epoll", "--boot", "uefi", "--file-size", "1KiB"], "only one of --boot and --file-size"),
        (["--target", "127.0.0.1:69"], "--target needs what starts there"),
        (["epoll", "--boot", "uefi", "--lost", "90%"], "allowed: 0% to 50%"),
        (["epoll", "--boot", "uefi", "--machines", "5"], "has no meaning without find: spread"),
    ],
)
def test_a_capacity_that_can_not_be_meant_is_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.exit_code(["capacity", *words]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert any(said in line for line in lines)
    assert all(line.startswith("tftpbench: error: ") for line in lines)
