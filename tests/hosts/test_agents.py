"""Real agents on this machine, each a process of its own, under one coordinator: what they send, and how they end."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from tests.loopback.machine import runs, until
from tests.loopback.peer import RRQ, Peer, opcode, peer, serve_bytes
from tests.unit.builders import buckets, scenario
from tftpbench import Server
from tftpbench.host.generator import LoadConfig, LoadResult, Progress, Stop, run_load, write_contents
from tftpbench.host.hosts import calls
from tftpbench.host.hosts.carrier import AGENT, Agents, HostLost
from tftpbench.host.hosts.generator import HostsGenerator, Limits
from tftpbench.measure import Tools
from tftpbench.model.boot import Share, Step
from tftpbench.model.errors import HostsError, LoadError
from tftpbench.model.workload import Piece
from tftpbench.render.schema import json_schema
from tftpbench.store import load_run, recording

SECOND = 1_000_000_000
MS = 1_000_000
SIZE = 1_300
FILES = 240
# Clients ask once: what a server hears twice was sent twice.
PATIENT: dict[str, Any] = {"timeout_ns": 20 * SECOND, "retries": 1}
QUICK = Limits(lead_s=1.0, poll_s=0.2, silence_s=10)
READ = Step("read", "f-0", (), SIZE, 0, "whole", 0, 0, "", 0, (SECOND,), (SECOND,), "give_up", 0, "gap")


class Local:
    """A carrier to agents on this machine: a worker's end for each host, on an event loop of this process.

    `before`: called with host and call before each. `entering`: what a host's agent is started by.
    """

    def __init__(
        self, *hosts: str, poll_lost_s: float = 10.0, entering: Callable[[str], Sequence[str]] = lambda _: ()
    ) -> None:
        self.hosts = hosts
        self.before: Callable[[str, str], object] = lambda _host, _call: None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        command = (*AGENT, "--poll-lost-s", str(poll_lost_s))
        self.agents = {host: Agents((*entering(host), *command), orphan_s=poll_lost_s + 1) for host in hosts}
        self.pids: dict[str, int] = {}

    def call(self, host: str, load_id: str, call: calls.Call, document: bytes, timeout_s: float) -> bytes:
        self.before(host, call)
        asked = asyncio.run_coroutine_threadsafe(self.agents[host].answer(load_id, call, document), self._loop)
        try:
            answer = asked.result(timeout_s)
        except TimeoutError:
            asked.cancel()
            raise HostLost(host, f"did not answer within {timeout_s:g} s") from None
        for child in self.agents[host]._children.values():
            if child._process is not None:
                self.pids[host] = child._process.pid
        return answer

    def close(self) -> None:
        async def close() -> None:
            await asyncio.gather(*(each.close() for each in self.agents.values()))
            await self._loop.shutdown_default_executor()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def local() -> Iterator[Local]:
    carrier = Local("a", "b", "c")
    yield carrier
    carrier.close()
    for pid in carrier.pids.values():
        assert not runs(pid)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Our own, with a file for each transfer."""
    root = tmp_path_factory.mktemp("root")
    for number in range(FILES):
        write_contents(root / f"f-{number}", 1, number, SIZE)
    with Server("epoll", root) as running:
        yield running


def config(host: str, port: int, **changes: object) -> LoadConfig:
    """Reads of a file each, 400 a second."""
    values: dict[str, Any] = {
        "host": host, "port": port, "operation": "read", "name": "f-{n}", "distinct_files": 0, "rate_per_s": 400.0,
        "file_size_bytes": SIZE, "concurrency": 1_000, "transfers": FILES, "sockets": "shared", **PATIENT,
    }  # fmt: skip
    return LoadConfig(**(values | changes))


def bucket(ns: int) -> int:
    """The highest value that the generator's histograms do not tell from this one."""
    width = 64
    while ns >= 2_048 * width:
        width *= 2
    return (ns // width + 1) * width - 1


def column(result: LoadResult, name: str) -> list[int]:
    found: list[int] = (result.boots or result.transfers)[name].tolist()
    return found


def schedule(result: LoadResult) -> dict[int, int]:
    """When each start was intended, by its number."""
    return dict(zip(column(result, "machine" if result.boots else "number"), column(result, "intended_start_ns"),
                    strict=True))  # fmt: skip


def assert_merged(result: LoadResult, hosts: int) -> None:
    """Figures and histograms are those of the rows, counted anew."""
    figures, rows = result.figures, {name: each.tolist() for name, each in result.transfers.items()}
    assert (result.hosts_lost, result.stopped, figures["load_hosts"]) == (None, None, hosts)
    assert set(rows["host"]) == set(range(hosts))
    done = [outcome == 0 for outcome in rows["outcome"]]
    starts, ends, first = rows["actual_start_ns"], rows["end_ns"], rows["first_response_ns"]
    assert figures["completed"] == sum(done) == len(done)
    assert figures["bytes_verified"] == sum(rows["bytes"])
    assert figures["content_mismatches"] == 0
    close_ns = max(ends)
    assert figures["window_close_ns"] == close_ns
    assert figures["duration_s"] == close_ns / 1e9
    assert figures["transfers_per_s"] == pytest.approx(len(done) / (close_ns / 1e9))
    assert figures["goodput_bytes_per_s"] == pytest.approx(sum(rows["bytes"]) / (close_ns / 1e9))
    for kind, times in {
        "response": [end - start for end, start in zip(ends, rows["intended_start_ns"], strict=True)],
        "service": [end - start for end, start in zip(ends, starts, strict=True)],
        "transfer": [end - start for end, start in zip(ends, starts, strict=True)],
        "first_response": [at - start for at, start in zip(first, starts, strict=True)],
    }.items():
        assert buckets(result.latency_hlog, kind) == Counter(map(bucket, times)), kind
        if kind == "response":
            ranked = sorted(times)
            for percent in (50, 95, 99):
                rank = -(-len(ranked) * percent // 100)
                assert figures[f"response_ns_p{percent}"] == bucket(ranked[rank - 1])
    assert sum(result.intervals["started"].tolist()) == len(done)
    assert sum(result.intervals["bytes"].tolist()) == sum(rows["bytes"])
    assert figures["in_flight_max"] == max(sum(s <= at < e for s, e in zip(starts, ends, strict=True)) for at in starts)


LOADS: dict[str, dict[str, Any]] = {
    "even": {},
    "poisson": {"arrivals": "poisson"},
    "a storm": {"rate_per_s": None, "over_ns": 500 * MS, "spread": "normal"},
    "a shape": {
        "rate_per_s": None, "transfers": None,
        "shape": (Piece("ramp", (200, SECOND), (600, SECOND), 500 * MS), Piece("burst", count=20)),
    },
}  # fmt: skip


@pytest.mark.parametrize("weights", [(), (1, 3, 2)], ids=["equal", "unequal"])
@pytest.mark.parametrize("name", LOADS)
def test_several_hosts_start_exactly_the_schedule_of_one(
    local: Local, server: Server, name: str, weights: tuple[int, ...]
) -> None:
    asked = config(server.host, server.port, **LOADS[name])
    result = HostsGenerator(local, weights, QUICK).run(asked, Stop())
    alone = run_load(asked)
    assert schedule(result) == schedule(alone)
    if name != "a shape":
        assert_merged(result, 3)
        assert figures_of(result, "offered_per_s") == pytest.approx(figures_of(alone, "offered_per_s"))
    else:
        assert figures_of(result, "completed") == figures_of(alone, "completed")
    shares = Counter(column(result, "host"))
    expected = weights or (1, 1, 1)
    for host, weight in enumerate(expected):
        assert abs(shares[host] - len(schedule(alone)) * weight / sum(expected)) <= max(expected)
    # All clocks are one here, so that the measured distance is the error of the measurement.
    assert figures_of(result, "clock_error_ns_max") < 50 * MS


def figures_of(result: LoadResult, name: str) -> float:
    value = result.figures[name]
    assert value is not None, name
    return value


def test_a_closed_loop_splits_what_is_in_flight(local: Local, server: Server) -> None:
    asked = config(server.host, server.port, rate_per_s=None, concurrency=7)
    result = HostsGenerator(local, (), QUICK).run(asked, Stop())
    assert_merged(result, 3)
    assert sorted(column(result, "number")) == list(range(FILES))
    assert figures_of(result, "in_flight_max") <= 7


def test_machines_boot_once_each_on_the_host_whose_share_they_are(local: Local, server: Server) -> None:
    boots = (Share("one", 1, (READ, replace(READ, name="f-{n}", file=1))), Share("two", 2, (READ,)))
    asked = config(server.host, server.port, rate_per_s=None, over_ns=300 * MS, transfers=60, boots=boots,
                   verify="off", distinct_files=1)  # fmt: skip
    result = HostsGenerator(local, (), QUICK).run(asked, Stop())
    alone = run_load(asked)
    assert schedule(result) == schedule(alone)
    assert dict(zip(column(result, "machine"), column(result, "share"), strict=True)) == dict(
        zip(column(alone, "machine"), column(alone, "share"), strict=True)
    )
    assert figures_of(result, "machines") == figures_of(result, "booted") == 60
    times = [
        end - start for end, start in zip(column(result, "end_ns"), column(result, "intended_start_ns"), strict=True)
    ]
    assert buckets(result.latency_hlog, "boot") == Counter(map(bucket, times))


def test_what_is_read_is_compared_with_a_copy_that_travels(
    local: Local, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong, there = tmp_path / "right", tmp_path / "wrong", tmp_path / "there"
    there.mkdir()
    monkeypatch.setenv("TMPDIR", str(there))
    write_contents(right, 1, 0, SIZE)
    wrong.write_bytes(right.read_bytes()[:-1] + b"\0")
    asked = config(server.host, server.port, name="f-0", distinct_files=1, transfers=30)
    for copy, mismatches in ((right, 0), (wrong, 30)):
        result = HostsGenerator(local, (), QUICK).run(replace(asked, verify_against=copy), Stop())
        assert (result.figures["completed"], result.figures["content_mismatches"]) == (30, mismatches)
    assert not list(there.iterdir())


def test_a_host_with_an_empty_share_takes_no_part(local: Local, server: Server) -> None:
    result = HostsGenerator(local, (), QUICK).run(config(server.host, server.port, transfers=2), Stop())
    assert sorted(column(result, "number")) == [0, 1]
    assert figures_of(result, "load_hosts") == 2
    assert set(local.pids) == {"a", "b"}


def test_a_generator_that_can_not_run_is_one_line(local: Local) -> None:
    with pytest.raises(LoadError) as error:
        HostsGenerator(local, (), QUICK).run(config("192.0.2.1", 69), Stop())
    assert str(error.value).startswith(("a: ", "b: ", "c: "))
    assert len(str(error.value).splitlines()) == 1


def test_a_stop_ends_all_and_their_results_are_merged(local: Local, server: Server) -> None:
    asked = config(server.host, server.port, transfers=None, rate_per_s=50.0, duration_ns=60 * SECOND, name="f-0",
                   distinct_files=1)  # fmt: skip
    stop, seen = Stop(), list[Progress]()

    def look(now: Progress) -> None:
        seen.append(now)
        stop.request()

    result = HostsGenerator(local, (), QUICK).run(asked, stop, None, look)
    assert result.hosts_lost is None
    assert figures_of(result, "duration_s") < 30
    assert figures_of(result, "started") == len(column(result, "number")) > 0
    assert seen[0].started > 0


# What is lost --------------------------------------------------------------------------------------------------------


@pytest.fixture
def listening() -> Iterator[Peer]:
    """A server that keeps all that it hears."""
    with peer(serve_bytes(b"x" * SIZE)) as made:
        yield made


def heard(listening: Peer) -> Counter[bytes]:
    """How often each name was asked for, by whomever."""
    requests = [datagram for datagram in list(listening.received) if opcode(datagram) == RRQ]
    return Counter(request[2:].split(b"\0")[0] for request in requests)


def long(listening: Peer) -> LoadConfig:
    """A load that goes on until it is ended."""
    return config(
        "127.0.0.1", listening.port, rate_per_s=100.0, transfers=None, duration_ns=120 * SECOND, verify="off"
    )  # fmt: skip


def assert_lost(result: LoadResult, host: str, why: str) -> None:
    assert result.hosts_lost is not None
    assert result.hosts_lost.startswith(f"{host}: {why}"), result.hosts_lost
    assert ";" not in result.hosts_lost
    assert result.stopped == f"load host lost: {result.hosts_lost}"


def kill_one(local: Local, listening: Peer, when: str, killed: str) -> None:
    """A load in which this agent is killed: in all cases it is over for all, and nothing was asked for twice."""
    calls_seen = Counter[tuple[str, str]]()

    def kill() -> None:
        os.kill(local.pids[killed], signal.SIGKILL)

    def before(host: str, call: str) -> None:
        calls_seen[host, call] += 1
        is_due = {"before": ("clock", 3), "at": ("go", 1)}.get(when)
        if host == killed and is_due == (call, calls_seen[host, call]):
            kill()

    def look(now: Progress) -> None:
        if when == "after" and runs(local.pids[killed]) and now.started:
            kill()

    local.before = before
    result = HostsGenerator(local, (), QUICK).run(long(listening), Stop(), None, look)
    assert_lost(result, killed, "its agent was ended by SIGKILL")
    assert max(heard(listening).values(), default=1) == 1
    if when == "before":
        assert not heard(listening)
    if when == "after":
        assert heard(listening)
        assert "abc".index(killed) not in result.transfers["host"]
        assert len(set(result.transfers["host"].tolist())) == 2
    assert not any(runs(pid) for pid in local.pids.values())
    assert [count for (_, call), count in calls_seen.items() if call in ("go", "prepare")] in ([1] * 6, [1] * 3)


@pytest.mark.parametrize("killed", "abc")
@pytest.mark.parametrize("when", ["before", "at", "after"])
def test_an_agent_that_is_killed_ends_the_load_of_all(local: Local, listening: Peer, when: str, killed: str) -> None:
    kill_one(local, listening, when, killed)


@pytest.mark.soak
@pytest.mark.parametrize("again", range(25))
@pytest.mark.parametrize("when", ["before", "at", "after"])
def test_an_agent_that_is_killed_ends_the_load_of_all_again(
    local: Local, listening: Peer, when: str, again: int
) -> None:
    kill_one(local, listening, when, "abc"[again % 3])


def test_an_agent_that_is_suspended_is_lost_and_killed(local: Local, listening: Peer) -> None:
    def look(_now: Progress) -> None:
        if runs(local.pids["b"]):
            os.kill(local.pids["b"], signal.SIGSTOP)

    impatient = replace(QUICK, silence_s=1.5)
    result = HostsGenerator(local, (), impatient).run(long(listening), Stop(), None, look)
    assert_lost(result, "b", "did not answer within 1.5 s")
    assert not any(runs(pid) for pid in local.pids.values())
    assert max(heard(listening).values()) == 1


def begun(local: Local, listening: Peer) -> str:
    """A load that runs on host a, whose coordinator is this test."""
    load_id = os.urandom(16).hex()

    def ask(call: calls.Call, model: Any, expected: Any, document: bytes = b"") -> Any:
        return calls.unpacked(local.call("a", load_id, call, document or calls.packed(model), 20), expected)[0]

    ask("prepare", None, calls.Done, calls.prepare(long(listening), calls.Files()))
    assert ask("poll", calls.Poll(state="opening", wait_ms=5_000), calls.Standing).state == "ready"
    now_ns = ask("clock", calls.Done(), calls.Clock).monotonic_ns
    assert ask("go", calls.Go(start_ns=now_ns + SECOND // 10), calls.Went).started
    until(lambda: heard(listening), "nothing was sent")
    return load_id


def test_without_a_coordinator_an_agent_stops_sending_and_ends(listening: Peer) -> None:
    local = Local("a", poll_lost_s=1.0)
    try:
        begun(local, listening)
        until(lambda: not runs(local.pids["a"]), "the agent goes on")
        assert max(heard(listening).values()) == 1
    finally:
        local.close()


def test_a_load_is_done_once_and_another_waits_until_it_has_ended(local: Local, listening: Peer) -> None:
    load_id = begun(local, listening)
    prepare = calls.prepare(long(listening), calls.Files())
    with pytest.raises(calls.Refused, match="none is done twice"):
        calls.unpacked(local.call("a", load_id, "prepare", prepare, 20), calls.Done)
    with pytest.raises(calls.Refused, match="another load is still there"):
        calls.unpacked(local.call("a", os.urandom(16).hex(), "prepare", prepare, 20), calls.Done)
    calls.unpacked(local.call("a", load_id, "end", calls.packed(calls.Done()), 20), calls.Done)
    assert not runs(local.pids["a"])
    with pytest.raises(calls.Refused, match="none is done twice"):
        calls.unpacked(local.call("a", load_id, "prepare", prepare, 20), calls.Done)
    with pytest.raises(calls.Refused, match="no agent"):
        calls.unpacked(local.call("a", load_id, "poll", calls.packed(calls.Poll(state="over")), 20), calls.Done)
    for wrong in ("", "../x", "A" * 32):
        with pytest.raises(calls.Refused, match="32 hexadecimal digits"):
            calls.unpacked(local.call("a", wrong, "prepare", prepare, 20), calls.Done)


WORKER = """
import asyncio, sys
from tftpbench.host.hosts.carrier import Agents

async def main():
    agents = Agents()
    await agents.answer("0" * 32, "file", b'{"file":0,"offset":0}\\n')
    print(agents._children["0" * 32]._process.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("suspended", [False, True], ids=["running", "suspended"])
def test_an_agent_ends_with_its_worker(suspended: bool) -> None:
    with subprocess.Popen([sys.executable, "-P", "-c", WORKER], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        if suspended:
            os.kill(pid, signal.SIGSTOP)
        worker.kill()
    until(lambda: not runs(pid), "the agent goes on")


def test_a_command_that_is_no_agent_is_one_line() -> None:
    local = Local("a")
    try:
        for command, why in (
            (("/nonexistent/python",), "can't be started: No such file or directory"),
            ((sys.executable, "-c", "raise SystemExit('no such module')"), "status 1: no such module"),
            ((sys.executable, "-c", r"import sys; sys.stdout.write('\xff' * 99)"), "its agent"),
        ):
            local.agents["a"] = Agents(command)
            result = HostsGenerator(local, (), QUICK).run(config("127.0.0.1", 69), Stop())
            assert result.hosts_lost is not None
            assert why in result.hosts_lost
            assert len(result.hosts_lost.splitlines()) == 1
    finally:
        local.close()


def test_first_starts_are_as_close_as_is_said(local: Local, listening: Peer) -> None:
    asked = config("127.0.0.1", listening.port, rate_per_s=None, over_ns=0, transfers=3, verify="off")
    result = HostsGenerator(local, (), QUICK).run(asked, Stop())
    late = np.array(column(result, "actual_start_ns"))
    spread_ns, error_ns = figures_of(result, "start_spread_ns"), figures_of(result, "clock_error_ns_max")
    assert late.max() <= spread_ns <= late.max() + error_ns


def test_a_run_from_hosts_keeps_what_it_has_and_ends_where_one_is_lost(local: Local, tmp_path: Path) -> None:
    asked = scenario(
        servers=["epoll"], trials=3, duration=None, transfers=60,
        matrix={"operation": "read", "rate": "200/s", "file_size": SIZE},
    )  # fmt: skip
    tools = Tools(generator=HostsGenerator(local, (), QUICK), conditions=lambda _: ())
    begun = Counter[str]()

    def before(host: str, call: str) -> None:
        begun[call] += host == "b"
        if (host, call, begun["go"]) == ("b", "go", 2):
            os.kill(local.pids["b"], signal.SIGKILL)

    local.before = before
    with pytest.raises(HostsError, match=r"^load host lost: b: .*; 2 of 3 trials are finished, in .*; go on with: "):
        recording.run(asked, seed=1, out=tmp_path, tools=tools)
    [folder] = tmp_path.iterdir()
    recording.run(recording.recorded(folder)[0], seed=1, out=tmp_path, resume=folder, tools=tools)
    run = load_run(folder)
    assert [(row["hosts_lost"] or "")[:3] for row in run.rows] == ["", "b: ", ""]
    assert run.rows[1]["verdict_reason"].startswith("load host lost: b: ")
    schema = Draft202012Validator(json_schema("results"))
    for row in run.rows:
        schema.validate(row)
        assert (row["load_hosts"], row["generator_cpus"], row["ceiling_ratio"]) == (3, None, None)
    for trial in (1, 3):
        rows = run.transfers[run.transfers["trial"] == trial]
        assert sorted(rows["number"]) == [*range(60)], "each once"
        assert rows["host"].value_counts().to_dict() == {0: 20, 1: 20, 2: 20}
        row = next(row for row in run.rows if row["trial"] == trial)
        assert (row["started"], row["completed"], row["failed"]) == (60, 60, 0)
        assert row["bytes_verified"] == 60 * SIZE
        assert row["start_spread_ns"] >= row["clock_error_ns_max"] > 0
