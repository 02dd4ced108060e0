"""Servers on a host of their own: agents as processes on this machine, and a Dask cluster of it."""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.hosts.test_agents import QUICK, Local
from tests.hosts.test_dask import home, known, up
from tests.loopback.machine import PROGRAM, bundled, runs, until, written
from tests.unit.builders import said, scenario
from tftpbench.host.hosts import calls, cluster, server_agent, servers
from tftpbench.host.hosts.clock import Offset
from tftpbench.host.hosts.cluster import Process
from tftpbench.host.hosts.generator import HostsGenerator
from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.host.roots import PREFIX
from tftpbench.host.server import Usage
from tftpbench.measure import Tools
from tftpbench.model.errors import HostsError, TftpbenchError, UsageError
from tftpbench.model.scenario import Scenario
from tftpbench.render.schema import json_schema
from tftpbench.store import load_run, recording

__all__ = ["home", "up"]  # fixtures

MISBEHAVING = Path(__file__).parents[1] / "loopback/misbehaving_server.py"
pytestmark = pytest.mark.usefixtures("any_machine")
needs_dask = pytest.mark.skipif(not cluster._has_dask(), reason="the extra `hosts` is not installed")


class Hosts(Local):
    """Hosts that know where servers on them are reached."""

    def reached_at(self, _host: str) -> str:
        return "127.0.0.1"


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    carrier = Hosts("a", "b", "c")
    yield carrier
    carrier.close()
    for pid in carrier.pids.values():
        assert not runs(pid)


@pytest.fixture(autouse=True)
def _busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine round trips take long, by which clocks are compared."""
    monkeypatch.setattr("tftpbench.measure.validity.HOSTS_APART_NS_MAX", math.inf)


def tools(hosts: Hosts) -> Tools:
    return Tools(generator=HostsGenerator(hosts, (), QUICK))


def asked(*entries: str, **changes: Any) -> Scenario:
    work = {"operation": "read", "concurrency": 4, "file_size": 3_000}
    return scenario(
        **{"servers": list(entries), "trials": 1, "duration": None, "transfers": 40, "matrix": work,
           "placement": {"server_host": "b"}, **changes}
    )  # fmt: skip


def command_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")


def serving(agent: int) -> tuple[int, Path]:
    """The server below an agent, and the folder that it serves."""
    leader = Process.of(agent)
    assert leader is not None
    for process in leader.descendants():
        words = command_of(process.pid)
        roots = [Path(word) for word in words if f"/{PREFIX}" in word and "/root-" in word]
        if roots and "--control" not in words:
            return process.pid, roots[0]
    raise AssertionError("no server runs below it")


def test_a_server_on_another_host_is_measured_as_one_here(hosts: Hosts, tmp_path: Path) -> None:
    forgets = [sys.executable, str(MISBEHAVING), "forgets", "{host}", "{port}", "{root}"]
    entries = [
        str(bundled(tmp_path, "epoll")),
        str(written(tmp_path, "forgets", forgets, "answer", "{operations: [read, write]}")),
        str(written(tmp_path, "absent", ["{program}", "{port}", "{root}"], "answer", "{operations: [read]}")),
    ]
    absent = Path(entries[2])
    absent.write_text(absent.read_text().replace("{python_module: sys}", "{program: no-such-program}"))
    seen: list[tuple[int, Path]] = []

    def before(host: str, call: str) -> None:
        if (host, call) == ("b", "sampled") and not seen:
            seen.append(serving(hosts.pids["b"]))

    hosts.before = before
    whole = asked(*entries, matrix={"operation": ["read", "write"], "concurrency": 4, "file_size": 3_000})
    report = recording.run(whole, seed=1, out=tmp_path / "results", tools=tools(hosts))
    run = load_run(report.folder)
    [(pid, root)] = seen
    assert not runs(pid)
    assert not root.parent.exists()
    assert not runs(hosts.pids["b"])
    rows = {(row["server"], row["operation"]): row for row in run.rows}
    assert len(rows) == 4
    schema = Draft202012Validator(json_schema("results"))
    for (name, operation), row in rows.items():
        schema.validate(row)
        assert (row["load_hosts"], row["completed"], row["generator_cpus"]) == (2, 40, None)
        assert row["server_cpu_s"] > 0
        assert row["server_rss_bytes_max"] >= row["server_rss_bytes_ready"] > 0
        assert row["server_receive_buffer_bytes"] > 0
        assert (row["udp_drops_server"], row["server_left_over"]) == (0, 0)
        assert row["udp_drops_host"] is not None
        assert row["calibration_user_ns"] > 0
        assert 0 < row["clock_error_ns_max"] < 50_000_000
        if (name, operation) == ("forgets", "write"):
            assert row["verdict_reason"] == "40 transfers had wrong contents"
        else:
            assert (row["verdict"], row["bytes_verified"]) == ("valid", 40 * 3_000)
    facts = run.manifest["server_host"]
    assert (facts["name"], facts["address"], facts["machine"]["cpus"]) == ("b", "127.0.0.1", os.cpu_count())
    assert run.manifest["placement"]["phrase"] == "the server on 1 core of b (127.0.0.1)"
    assert run.manifest["placement"]["load_hosts"] == ["a", "c"]
    skipped = {each["server"]: each["reason"] for each in run.manifest["skipped"]}
    assert skipped == {"absent": "on b: no-such-program was not found"}
    log = (report.folder / f"trials/{rows['epoll', 'read']['trial']}/server.log").read_bytes()
    assert log.startswith(b"READY 127.0.0.1 ")


def test_only_a_server_on_a_host_of_its_own_has_other_keys() -> None:
    there, elsewhere, here = (
        asked("epoll"),
        asked("epoll", placement={"server_host": "c"}),
        asked("epoll", placement={}),
    )
    assert there.cells()[0].key == elsewhere.cells()[0].key != here.cells()[0].key
    assert there.method_key == elsewhere.method_key != here.method_key
    assert "server_host" not in here.document()["placement"]


@pytest.mark.parametrize(
    ("changes", "names", "why"),
    [
        ({"placement": {"server_host": "bb"}}, "abc", "placement.server_host: the cluster has no host 'bb'"),
        ({}, "b", "'b', the only host of the cluster, so none is left for the load"),
        ({"servers": ["tftp://127.0.0.1:69/f"]}, "ab", "runs already, so placement.server_host 'b' can't start it"),
        ({"generators": {"hosts": 2}}, "ab", "generators.hosts is 2, and the cluster has 1 load host: a"),
    ],
)
def test_what_can_not_be_is_one_line_before_anything_starts(
    changes: dict[str, Any], names: str, why: str, tmp_path: Path
) -> None:
    carrier = Hosts(*names)
    try:
        with pytest.raises(UsageError) as error:
            recording.run(asked("epoll", **changes), seed=1, out=tmp_path / "results", tools=tools(carrier))
    finally:
        carrier.close()
    assert why in str(error.value)
    assert not carrier.pids
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            ["--server-host", "b"],
            "placement.server_host is 'b', a host of a cluster; allowed: with a cluster",
        ),
        (
            ["--server-host", "b", "--set", "placement.network=namespace"],
            "placement.network=namespace: is namespace, which is of",
        ),
        (
            ["--server-host", "b", "--set", "generators.hosts=[a, b]"],
            "has 'b', which serves (placement.server_host); allow",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], why: str) -> None:
    code, out, err = said(capsys, "run", "smoke", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert why in err


def killing(hosts: Hosts, call: str, nth: int) -> Callable[[str, str], None]:
    """Kills the server's agent before it is asked this for the nth time."""
    seen: list[str] = []

    def before(host: str, asked_now: str) -> None:
        if (host, asked_now) == ("b", call):
            seen.append(call)
            if len(seen) == nth:
                os.kill(hosts.pids["b"], signal.SIGKILL)

    return before


@pytest.mark.parametrize("call", ["start", "close"])
def test_a_server_host_that_is_lost_ends_the_run_and_its_trial_is_invalid(
    hosts: Hosts, tmp_path: Path, call: str
) -> None:
    hosts.before = killing(hosts, call, 2)
    whole = asked("epoll", trials=3)
    why = "server host lost: b: its agent was ended by SIGKILL"
    with pytest.raises(HostsError, match=rf"^{why}; 2 of 3 trials are finished, in .*; go on with: ") as error:
        recording.run(whole, seed=1, out=tmp_path / "results", tools=tools(hosts))
    assert error.value.exit_code == 3
    [folder] = (tmp_path / "results").iterdir()
    hosts.before = lambda _host, _call: None
    recording.run(recording.recorded(folder)[0], seed=1, out=tmp_path, resume=folder, tools=tools(hosts))
    rows = load_run(folder).rows
    assert [row["verdict"] for row in rows] == ["valid", "invalid", "valid"]
    assert (rows[1]["verdict_reason"], rows[1]["server_findings"]) == (why, [])


def test_a_server_that_dies_is_its_own_fault(hosts: Hosts, tmp_path: Path) -> None:
    argv = [sys.executable, str(MISBEHAVING.with_name("tiny_server.py")), "dies", "{host}", "{port}", "{root}"]
    entry = str(written(tmp_path, "dies", argv, "line", "{operations: [read]}"))
    report = recording.run(asked(entry), seed=1, out=tmp_path / "results", tools=tools(hosts))
    [row] = report.rows
    assert row["verdict_reason"].startswith("dies: died with SIGSEGV; its last log line: segmentation fault")
    assert row["server_findings"][0]["kind"] == "died"


# What the agent is asked, and what it answers ------------------------------------------------------------------------


def test_the_agent_works_on_no_document_that_leaves_its_folder(hosts: Hosts) -> None:
    load_id = os.urandom(16).hex()

    def ask(call: calls.Call, document: dict[str, Any]) -> bytes:
        answer = hosts.call("b", load_id, call, json.dumps(document).encode() + b"\n", 30)
        return bytes(calls.unpacked(answer, calls.Done)[1]) if call in ("root", "clear") else answer

    ask("open", {})
    wanted = {"is_bundled": True, "path": "epoll/server.yaml", "digest": "0"}
    start = {"wanted": wanted, "address": "127.0.0.1", "concurrency": 1, "write": False, "variant": None, "cpus": []}
    for call, document in (
        ("root", {"files": [], "uploads": [], "mode": 0o755}),
        ("room", {"seed": -1, "needed_bytes": 0}),
        ("start", start),
        ("usage", {}),
        ("nonsense", {}),
    ):
        with pytest.raises(calls.Refused) as error:
            calls.unpacked(ask(call, document), calls.Done)  # type: ignore[arg-type] # nonsense
        assert error.value.kind == "bad"
    ask("room", {"seed": 1, "needed_bytes": 0})
    for name in ("../up", "/etc/passwd", "a/../../b", "", "a\0b", "."):
        for document in (
            {"files": [[[name], 0, 1]], "uploads": [], "mode": 0o755},
            {"files": [], "uploads": [name], "mode": 0o755},
        ):
            with pytest.raises(calls.Refused) as error:
                ask("root", document)
            assert error.value.kind == "bad", name
    ask("root", {"files": [[["f"], 0, 1]], "uploads": [], "mode": 0o755})
    compared = calls.unpacked(ask("compare", {"files": [["f", 0, 1], ["g", 0, 1]]}), server_agent.Wrong)[0]
    assert compared.places == (1,)
    with pytest.raises(calls.Refused, match="has no such manifest, or another one"):
        calls.unpacked(ask("start", start), server_agent.Started)


class Answering:
    """A host whose clock is an hour ahead."""

    AHEAD_NS = 3_600 * 10**9

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def offset(self) -> Offset:
        return Offset(self.AHEAD_NS, 700)

    def ask(self, call: str, model: Any, _expected: object, _timeout_s: float | None = None) -> Any:
        self.asked.append(model)
        if call == "window":
            return None, b""
        at = [Usage(self.AHEAD_NS + ns) for ns in (10_000_100, 20_000_300)]
        opened, closed = (server_agent.UsageThere(**asdict(each)) for each in at)
        return server_agent.Read(opened=opened, closed=closed), b""


def test_the_window_is_read_in_the_time_of_the_servers_host() -> None:
    host, window = Answering(), MeasuredWindow()
    edges = servers.RemoteEdges(host, window, (3,))  # type: ignore[arg-type] # what it asks of it is there
    with edges:
        window.announce(10_000_000, 20_000_000)
        window.close(20_000_000)
    ahead = host.AHEAD_NS
    assert host.asked == [
        server_agent.Window(open_ns=ahead + 10_000_000, close_ns=ahead + 20_000_000, cpus=(3,)),
        server_agent.Close(at_ns=ahead + 20_000_000),
    ]
    assert edges.late_ns(window.edges_ns) == 300
    assert edges.clock_error_ns == 700


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("start", b"{}\n"),
        ("start", b'{"port": 0, "buffers": null}\n'),
        ("usage", b"\xff"),
        ("sampled", b'{"died": 7}\n'),
        ("stop", b'{"exit_code": null, "signal": "' + b"x" * 500 + b'", "left_over": 0}\n'),
    ],
)
def test_what_is_no_answer_of_ours_loses_the_host(hosts: Hosts, tmp_path: Path, call: str, answer: bytes) -> None:
    usual = hosts.call

    def false(host: str, load_id: str, asked_now: calls.Call, document: bytes, timeout_s: float) -> bytes:
        true = usual(host, load_id, asked_now, document, timeout_s)
        return answer if (host, asked_now) == ("b", call) else true

    hosts.call = false  # type: ignore[method-assign,assignment]
    with pytest.raises(TftpbenchError) as error:
        recording.run(asked("epoll"), seed=1, out=tmp_path, tools=tools(hosts))
    assert str(error.value).startswith(f"server host lost: b: answered {call} with no document of ours: ")
    assert str(error.value).count("\n") == 0


# Over Dask ------------------------------------------------------------------------------------------------------------

FEW = (
    "{schema: tftpbench.scenario/1, name: few, description: 'Few?', servers: [epoll], TRANSFERS, trials: 1,"
    " matrix: {operation: [read, write], concurrency: 4, file_size: 1KiB}}"
)


def few(tmp_path: Path, transfers: str) -> str:
    path = tmp_path / "few.yaml"
    path.write_text(FEW.replace("TRANSFERS", transfers))
    return str(path)


@pytest.fixture
def server_worker(home: Path, up: str) -> Process:
    """The worker called two."""
    assert up
    return known(home)[2]


@needs_dask
def test_a_run_with_a_server_host_over_dask(
    up: str, server_worker: Process, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--dask", up, "--server-host", "two", "--out", str(tmp_path / "results"), "--quiet")
    code, out, err = said(capsys, "run", few(tmp_path, "transfers: 20"), *options)
    assert (code, err) == (0, "")
    assert "the server on 1 core of two (127.0.0.1), loaded from 1 host." in out.replace("\n", " ")
    [folder] = (tmp_path / "results").iterdir()
    rows = load_run(folder).rows
    assert [(row["verdict_reason"], row["bytes_verified"], row["load_hosts"]) for row in rows] == [
        (None, 20 << 10, 1)
    ] * 2
    assert not server_worker.descendants()


@needs_dask
@pytest.mark.parametrize("what", ["worker", "coordinator"])
def test_a_kill_during_a_trial_ends_the_server_and_its_folder(
    up: str, server_worker: Process, tmp_path: Path, what: str
) -> None:
    options = ["--dask", up, "--server-host", "two", "--out", str(tmp_path / "results"), "--quiet"]
    command = [sys.executable, "-c", PROGRAM, "run", few(tmp_path, "duration: 60s"), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: is_loaded(server_worker), "no load came")
            pid, root = serving(server_worker.pid)
            os.kill(server_worker.pid if what == "worker" else process.pid, signal.SIGKILL)
            said_last = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    until(lambda: not runs(pid), "the server goes on", 20)
    until(lambda: not root.parent.exists(), "its folder is there", 20)
    [folder] = (tmp_path / "results").iterdir()
    rows = load_run(folder).rows
    if what == "coordinator":
        assert not rows
        return
    assert process.returncode == 3
    assert said_last.startswith("tftpbench: error: server host lost: two: its Dask worker has ended; 1 of 2 trials are")
    assert [row["verdict_reason"] for row in rows] == ["server host lost: two: its Dask worker has ended"]


def is_loaded(worker: Process) -> bool:
    """Whether a server runs below the worker, and has used CPU time for transfers."""
    try:
        pid, _ = serving(worker.pid)
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    except (AssertionError, OSError):
        return False
    return sum(map(int, ticks)) > os.sysconf("SC_CLK_TCK") / 2
