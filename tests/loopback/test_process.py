"""Servers under test as processes: ready when seen to answer, gone for certain, and what misbehaves is the finding."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.machine import runs, tiny_manifest, until, written
from tftpbench import cli
from tftpbench.host.server import ServerProcess
from tftpbench.host.server.client import SupervisorClient
from tftpbench.host.server.readiness import Place, PortTaken, wait_for_answer
from tftpbench.host.server.sockets import UdpSocket, program_at, udp_sockets
from tftpbench.model.errors import ServerDied, ServerNotReady

# Nothing here lasts as long, on a busy machine either: a run that goes on to its time limit of ten minutes does.
pytestmark = pytest.mark.timeout(150)


def server(folder: Path, mode: str, ready: str = "line", **options: object) -> ServerProcess:
    manifest = tiny_manifest(folder, mode, ready)
    settings = {"root": folder, "log": folder / "server.log", "ready_timeout_s": 60.0, **options}
    return ServerProcess(manifest, **settings)  # type: ignore[arg-type]


def has_socket(port: int) -> bool:
    return any(row.port == port for row in udp_sockets())


@pytest.mark.parametrize("ready", ["line", "answer"])
def test_a_started_server_answers_on_its_port(tmp_path: Path, ready: str) -> None:
    with server(tmp_path, "ok", ready) as running, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(60)
        client.sendto(b"\0\1absent\0octet\0", (running.host, running.port))
        assert client.recv(100)[:4] == b"\0\5\0\1"
        assert has_socket(running.port)
    assert not has_socket(running.port)


def test_an_ipv6_server_is_started_and_probed(tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with server(tmp_path, "ok", "answer", host="::1") as running:
        assert has_socket(running.port)


@pytest.mark.parametrize("ready", ["line", "answer"])
def test_a_server_that_exits_at_once_is_named_with_its_last_log_line(tmp_path: Path, ready: str) -> None:
    with pytest.raises(ServerDied) as raised:
        server(tmp_path, "exits", ready).start()
    assert str(raised.value) == (
        "exits: ended with exit code 3 before it was ready; its last log line: cannot open the configuration"
    )


@pytest.mark.parametrize("ready", ["line", "answer"])
@pytest.mark.parametrize("mode", ["silent", "garbage"])
def test_a_server_that_never_answers_is_given_up_in_time(tmp_path: Path, mode: str, ready: str) -> None:
    started = time.monotonic()
    with pytest.raises(ServerNotReady, match=rf"^{mode}: .* in time; "):
        server(tmp_path, mode, ready, ready_timeout_s=0.6).start()
    assert time.monotonic() - started < 30


def test_a_command_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    manifest = tiny_manifest(tmp_path, "ok").model_copy(update={"argv": ("/nowhere/tftpd", "{port}", "{root}")})
    with pytest.raises(ServerNotReady, match="ok: could not be started: No such file or directory: /nowhere/tftpd"):
        ServerProcess(manifest, root=tmp_path, log=tmp_path / "log").start()


@pytest.mark.parametrize(("mode", "said"), [("wrong-pid", "names process 1"), ("wrong-port", "names port 9")])
def test_a_ready_line_that_lies_is_found_out(tmp_path: Path, mode: str, said: str) -> None:
    with pytest.raises(ServerNotReady, match=said):
        server(tmp_path, mode).start()


def test_an_answer_from_a_port_that_somebody_else_has_is_not_the_servers(tmp_path: Path) -> None:
    with server(tmp_path, "ok") as other:
        late = SupervisorClient(["sleep", "1000"], tmp_path / "late.log", [])
        try:
            with pytest.raises(ServerNotReady, match=f"port {other.port} belongs to another process"):
                wait_for_answer(late, other.host, other.port, time.monotonic() + 60)
        finally:
            late.stop(0)


@pytest.mark.parametrize(
    ("family", "bound", "taken", "free"),
    [
        (socket.AF_INET, "127.0.0.1", ["127.0.0.1", "0.0.0.0"], ["127.0.0.2", "::1"]),
        (socket.AF_INET, "0.0.0.0", ["127.0.0.1", "127.0.0.2"], []),
        (socket.AF_INET6, "::", ["127.0.0.1", "::1"], []),
        (socket.AF_INET6, "::1", ["::1"], ["127.0.0.1"]),
    ],
)
def test_who_has_a_port_is_named_by_address_and_in_one_line(
    family: socket.AddressFamily, bound: str, taken: list[str], free: list[str]
) -> None:
    comm = Path("/proc/self/comm")
    before = comm.read_text(encoding="utf-8")
    with socket.socket(family, socket.SOCK_DGRAM) as holder:
        holder.bind((bound, 0))
        port = holder.getsockname()[1]
        try:
            comm.write_text("a\x1b[31m\nb", encoding="utf-8")
            found = {program_at(host, port) for host in taken}
            missing = [program_at(host, port) for host in free]
        finally:
            comm.write_text(before.strip(), encoding="utf-8")
    assert found == {rf"a\u001b[31m b (process {os.getpid()})"}
    assert missing == [None] * len(free)


def test_a_socket_that_one_look_misses_is_looked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def some_rows(_: str) -> list[UdpSocket]:
        looks.append(len(looks))
        rows = udp_sockets()
        return rows if len(looks) > 3 else [UdpSocket(1, 1, 0)]

    monkeypatch.setattr("tftpbench.host.server.readiness.udp_sockets", some_rows)
    for ready in ("line", "answer"):
        looks.clear()
        with server(tmp_path, "ok", ready) as running:
            assert running.alive()
        assert len(looks) == 4


def test_a_port_that_another_process_took_meanwhile_is_left_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def answered_by_another_once(
        supervisor: SupervisorClient, host: str, port: int, deadline: float, place: Place
    ) -> None:
        asked.append(port)
        if len(asked) == 1:
            raise PortTaken(f"port {port} belongs to another process")
        wait_for_answer(supervisor, host, port, deadline, place)

    monkeypatch.setattr("tftpbench.host.server.process.wait_for_answer", answered_by_another_once)
    with server(tmp_path, "ok", "answer") as running:
        assert [running.port] == asked[1:]


@pytest.mark.parametrize("fixed", [True, False])
def test_a_port_that_somebody_has_is_one_line_before_anything_is_started(tmp_path: Path, fixed: bool) -> None:
    with server(tmp_path, "ok") as other:
        manifest = tiny_manifest(tmp_path / "late", "silent", "answer")
        if fixed:
            manifest = manifest.model_copy(update={"fixed_port": other.port})
        log = tmp_path / "late.log"
        late = ServerProcess(manifest, root=tmp_path, log=log, port=None if fixed else other.port)
        with pytest.raises(ServerNotReady) as raised:
            late.start()
    taken = f"UDP port {other.port} on 127.0.0.1 is taken by another process; stop that first"
    assert str(raised.value) == f"silent: {taken}"
    assert not log.exists()


def test_a_flood_of_output_neither_blocks_the_server_nor_grows_the_log(tmp_path: Path) -> None:
    with server(tmp_path, "noisy") as running:
        assert running.alive()
    log = (tmp_path / "server.log").read_bytes()
    assert len(log) < 400_000
    assert b"bytes left out" in log
    assert log.splitlines()[-1].startswith(b"READY ")


def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    with server(tmp_path, "ignores-sigterm") as running:
        ended = running.stop(grace_s=0.1)
    assert (ended.exit_code, ended.signal, ended.left_over) == (None, "SIGKILL", 0)


def test_a_server_that_obeys_sigterm_is_not_killed(tmp_path: Path) -> None:
    with server(tmp_path, "ok") as running:
        assert running.stop().signal == "SIGTERM"
        assert running.stop().signal == "SIGTERM", "asking again gives the same answer"


@pytest.mark.parametrize("ready", ["line", "answer"])
@pytest.mark.parametrize("mode", ["daemon", "daemon-twice"])
def test_a_daemon_is_alive_after_its_first_process_has_gone_and_ends_too(tmp_path: Path, mode: str, ready: str) -> None:
    with server(tmp_path, mode, ready) as running:
        daemon = settled_daemon(running)
        assert running.alive()
        assert running.usage().processes == 1
        ended = running.stop()
        assert (ended.signal, ended.left_over) == ("SIGTERM", 0)
    assert not runs(daemon)
    assert not has_socket(running.port)


def test_a_daemon_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    with server(tmp_path, "daemon-ignores-sigterm") as running:
        daemon = settled_daemon(running)
        ended = running.stop(grace_s=0.1)
    assert (ended.signal, ended.left_over) == ("SIGKILL", 0)
    assert not runs(daemon)


def test_a_daemon_that_dies_is_named_with_what_it_died_of(tmp_path: Path) -> None:
    with server(tmp_path, "daemon") as running:
        os.kill(settled_daemon(running), signal.SIGSEGV)
        until(lambda: not running.alive(), "it lives on")
        with pytest.raises(ServerDied, match=r"^daemon: died with SIGSEGV; "):
            running.check_alive()


def settled_daemon(running: ServerProcess) -> int:
    """The process that serves, once those that started it have gone."""
    supervisor = running._running()[0]
    until(
        lambda: supervisor.alive() and supervisor.ended.exit_code == 0 and len(supervisor.process_tree()) == 1,
        "its first process stayed",
    )
    return supervisor.process_tree()[0]


def test_workers_that_outlive_an_ended_server_are_all_told_to_end(tmp_path: Path) -> None:
    with server(tmp_path, "headless") as running:
        supervisor = running._running()[0]
        until(lambda: supervisor.alive() and supervisor.ended.exit_code == 0, "its first process stayed")
        workers = supervisor.process_tree()
        assert len(workers) == 2
        assert running.stop().left_over == 0
    assert not [pid for pid in workers if runs(pid)]


def test_descendants_in_sessions_of_their_own_are_killed_and_counted(tmp_path: Path) -> None:
    with server(tmp_path, "forks") as running:
        tree = running._running()[0].process_tree()
        assert len(tree) == 2
        assert running.stop().left_over == 1
    assert not [pid for pid in tree if runs(pid)]


def test_cpu_time_of_children_that_nobody_waited_for_is_counted(tmp_path: Path) -> None:
    with server(tmp_path, "forks") as running:
        cpu_ns = running.usage().cpu_ns
        if cpu_ns is None:
            pytest.skip("this kernel refuses perf events, and this user may make no cgroup")
        assert cpu_ns >= 300_000_000


def test_usage_speaks_of_memory_threads_descriptors_and_buffers(tmp_path: Path) -> None:
    with server(tmp_path, "ok") as running:
        usage = running.usage()
        assert usage.rss_bytes is not None
        assert 1_000_000 < usage.rss_bytes < 500_000_000
        assert (usage.processes, usage.threads) == (1, 1)
        assert usage.fds is not None
        assert usage.fds >= 4
        assert usage.udp_drops == 0
        assert running.buffers is not None
        assert running.buffers.receive_bytes > 1000


def test_datagrams_dropped_at_the_servers_socket_are_counted(tmp_path: Path) -> None:
    with server(tmp_path, "ok") as running, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        pid = running._running()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        for _ in range(3000):
            client.sendto(b"x" * 1000, (running.host, running.port))
        drops = running.usage().udp_drops
        os.kill(pid, signal.SIGCONT)
    assert drops is not None
    assert drops > 1000


def test_a_server_that_dies_while_it_is_watched_is_reported_at_once_and_named(tmp_path: Path) -> None:
    died = threading.Event()
    with server(tmp_path, "dies") as running, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        with running.sampler(on_death=died.set) as sampler:
            client.sendto(b"\0\1x\0octet\0", (running.host, running.port))
            assert died.wait(60)
        assert sampler.samples.died
        with pytest.raises(ServerDied, match=r"^dies: died with SIGSEGV; its last log line: segmentation fault"):
            running.check_alive()


def test_a_harness_that_is_killed_takes_its_server_along(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tests.loopback.test_process import server\n"
        "running = server(Path(sys.argv[1]), 'forks'); running.start()\n"
        "print(*running._running()[0].process_tree(), running.port, flush=True); time.sleep(60)"
    )
    harness = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert harness.stdout is not None
    *tree, port = (int(word) for word in harness.stdout.readline().split())
    assert len(tree) == 2
    assert all(map(runs, tree))
    harness.kill()
    harness.wait()
    harness.stdout.close()
    until(lambda: not any(map(runs, tree)), "the server outlived its harness")
    assert not has_socket(port)


def test_a_supervisor_that_is_killed_takes_the_server_along(tmp_path: Path) -> None:
    with server(tmp_path, "ok") as running:
        supervisor = running._running()[0]
        pid = supervisor.pid
        assert pid is not None
        supervisor._process.kill()
        until(lambda: not runs(pid), "the server outlived its supervisor")
        assert not running.alive()


def test_the_server_runs_on_the_cores_it_was_given(tmp_path: Path) -> None:
    core = max(os.sched_getaffinity(0))
    with server(tmp_path, "ok", cpus=[core]) as running:
        pid = running._running()[0].pid
        assert pid is not None
        assert os.sched_getaffinity(pid) == {core}


SERVER = Path(__file__).with_name("misbehaving_server.py")
TRANSFERS = 30
RFC_2348 = "RFC 2348, Blocksize Option Specification"
# An answer comes in time on a busy machine, and nothing is repeated; what is lost on purpose is waited for once.
PATIENT = {"timeout": "3s", "retries": 3, "backoff": "constant"}
# 30 transfers that are lost, 5 at a time, take 4.5 s. Where an answer comes first, it comes within that time.
SHORT = {"timeout": "250ms", "retries": 2, "backoff": "constant"}


def manifest(folder: Path, mode: str) -> Path:
    argv = [sys.executable, str(SERVER), mode, "{host}", "{port}", "{root}"]
    return written(folder, mode, argv, "answer", "{operations: [read], options: [blksize]}")


def run(folder: Path, *modes: str, **changes: object) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and each server's row."""
    document = {
        "schema": "tftpbench.scenario/1",
        "name": "misbehaving",
        "description": "What does each do wrong?",
        "servers": [str(manifest(folder, mode)) for mode in modes],
        "matrix": {"operation": "read", "concurrency": 5, "file_size": "4KiB", "blksize": 1024},
        "transfers": TRANSFERS,
        "distinct_files": 2,
        "client": PATIENT,
        "trials": 1,
        **changes,
    }
    document = {key: value for key, value in document.items() if value is not None}
    path = folder / "misbehaving.yaml"
    path.write_text(json.dumps(document))  # JSON is YAML
    code = cli.exit_code(["run", str(path), "--quiet", "--out", str(folder / "out")])
    (trials,) = (folder / "out").glob("*/trials.jsonl")
    rows = [json.loads(line) for line in trials.read_text().splitlines()]
    return code, {row["server"]: row for row in rows}


def found(row: dict[str, Any]) -> dict[str, tuple[int, str]]:
    return {each["kind"]: (each["count"], each["text"]) for each in row["server_findings"]}


def is_servers_fault(row: dict[str, Any]) -> bool:
    """Whether a trial is invalid for what its server did. A busy machine makes it invalid in other words."""
    reason = row["verdict_reason"] or ""
    return any(word in reason for word in ("contents", "died", "server", "do not add up"))


@pytest.mark.parametrize(
    ("mode", "client", "kind", "count", "text"),
    [
        ("refuses", PATIENT, "refused", TRANSFERS, "refused 30 of 30 transfers (ERROR 0, not defined)"),
        ("breaks", PATIENT, "failed", TRANSFERS, "broke off 30 of 30 transfers (ERROR 0, not defined)"),
        (
            "overgrants",
            PATIENT,
            "failed",
            TRANSFERS,
            f"broke off 30 of 30 transfers (protocol fault: option_above_asked, {RFC_2348})",
        ),
        ("endless", PATIENT, "wrong_bytes", TRANSFERS, "wrong bytes in 30 of 30 transfers"),
        ("endless", PATIENT, "failed", TRANSFERS, "broke off 30 of 30 transfers (longer than expected)"),
        ("silent", SHORT, "silent", TRANSFERS, "never answered 30 of 30 transfers"),
        ("stalls", SHORT, "timed_out", TRANSFERS, "fell silent in 30 of 30 transfers"),
        ("lies", PATIENT, "wrong_bytes", TRANSFERS, "wrong bytes in 30 of 30 transfers"),
        ("lowers", PATIENT, "not_granted", 1, "granted blksize 600 where 1024 was asked for"),
        ("unresponsive", SHORT, "unresponsive", 1, "answered no new request after the load"),
        ("dies", PATIENT, "died", 1, "died with SIGSEGV; it said nothing"),
    ],
)
def test_each_fault_has_its_name(
    tmp_path: Path, mode: str, client: dict[str, object], kind: str, count: int, text: str
) -> None:
    code, rows = run(tmp_path, mode, client=client)
    assert code == 0, "a server that fails is a finding, not an error of the run"
    assert found(rows[mode])[kind] == (count, text)


@pytest.mark.parametrize("mode", ["dies", "refuses"])
def test_a_server_beside_one_that_fails_has_its_figures(tmp_path: Path, mode: str) -> None:
    code, rows = run(tmp_path, mode, "ok")
    assert code == 0
    assert (found(rows["ok"]), rows["ok"]["completed"]) == ({}, TRANSFERS)
    assert not is_servers_fault(rows["ok"])
    assert is_servers_fault(rows[mode]) == (mode == "dies")


def test_a_file_that_never_ends_is_cut_off_at_once_even_where_nothing_is_compared(tmp_path: Path) -> None:
    _, rows = run(tmp_path, "endless", verify="off")
    row = rows["endless"]
    assert (row["failed"], row["content_mismatches"], row["bytes_verified"]) == (TRANSFERS, TRANSFERS, 0)
    assert [fault["kind"] for fault in row["protocol_faults"]] == ["longer_than_expected"]


def test_a_protocol_fault_is_in_the_row_with_an_example_and_its_rfc(tmp_path: Path) -> None:
    _, rows = run(tmp_path, "overgrants")
    (fault,) = rows["overgrants"]["protocol_faults"]
    assert (fault["kind"], fault["count"]) == ("option_above_asked", TRANSFERS)
    assert fault["rfc_section"] == RFC_2348
    assert fault["example"].startswith("OACK blksize=1025 [15 bytes: 0006")


def test_a_server_that_passes_clients_over_is_unfair(tmp_path: Path) -> None:
    _, rows = run(tmp_path, "unfair", "ok")
    assert "unfair" in found(rows["unfair"])
    assert rows["unfair"]["fairness"] > 10
    assert not is_servers_fault(rows["unfair"])


def test_a_server_that_stops_answering_is_found_even_where_its_clients_would_wait_longer(tmp_path: Path) -> None:
    _, rows = run(tmp_path, "unresponsive", transfers=None, duration="2s", client={"timeout": "1s", "retries": 20})
    row = rows["unresponsive"]
    assert (row["timed_out"], row["interrupted"]) == (5, 0)
    kinds = found(row)
    assert "unresponsive" in kinds
    assert sum(count for kind, (count, _) in kinds.items() if kind in {"silent", "timed_out"}) == 5


def test_a_load_that_nobody_answers_is_cut_off_at_its_time_limit(tmp_path: Path) -> None:
    _, rows = run(tmp_path, "silent", time_limit="300ms", client={"timeout": "1h"})
    row = rows["silent"]
    assert (row["started"], row["interrupted"]) == (5, 5)
    assert 0.3 <= row["duration_s"] < 60, "a busy machine cuts it off later"
    [(kind, (count, text))] = found(row).items()
    assert (kind, count) == ("unfinished", 5), "the test was too short to blame the server"
    assert text.startswith("0 of 30 done in ")


def test_what_a_server_sends_twice_shows_in_the_amplification(tmp_path: Path) -> None:
    _, rows = run(tmp_path, "ok")
    # 4 KiB in 4 blocks and an empty one: each has 4 bytes before it and an ACK of 4; a request and an OACK come first.
    assert rows["ok"]["amplification"] == pytest.approx((4096 + 5 * 8 + 40) / 4096, abs=0.01)


def test_a_port_that_somebody_has_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        path = manifest(tmp_path, "ok")
        path.write_text(f"{path.read_text()}\nfixed_port: {port}")
        arguments = ["--set", "matrix.operation=read", "--out", str(tmp_path / "out")]
        assert cli.exit_code(["run", "smoke", "--server", str(path), *arguments]) == 2, "said before the first trial"
    (line,) = capsys.readouterr().err.splitlines()
    assert f"ok: could not be measured: UDP port {port} is taken by " in line
    assert line.endswith(f"; stop that, or measure it as it runs with --target 127.0.0.1:{port}")
