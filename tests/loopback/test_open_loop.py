"""Open loops on real sockets: what is intended, what is shed, and that a server that stands still or drops shows it."""

import json
import math
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

import tftpbench
from tests.loopback.peer import (
    ACK,
    ERROR,
    RRQ,
    Address,
    Peer,
    Place,
    contents,
    data,
    error,
    opcode,
    peer,
    placed,
    serve_bytes,
)
from tftpbench import _core
from tftpbench.host import generator
from tftpbench.host.generator import LoadConfig, LoadResult, run_load
from tftpbench.model.boot import Share, Step
from tftpbench.model.errors import LoadError
from tftpbench.model.metrics import BOOT_COLUMNS, BOOT_OUTCOMES, BOOT_REASONS, COLUMNS, OUTCOMES
from tftpbench.model.scenario import Scenario
from tftpbench.model.workload import Piece
from tftpbench.render import load_report

SIZE = 2_000
SECOND = 1_000_000_000
# Longer than any stall here: what is asked again is answered again, and the arithmetic is about the server.
PATIENT_NS = 20 * SECOND


def config(port: int, **changes: object) -> LoadConfig:
    """Reads of one file at 200 a second for a second, by clients that repeat nothing."""
    values: dict[str, object] = {
        "host": "127.0.0.1", "port": port, "operation": "read", "name": "f-0", "file_size_bytes": SIZE,
        "rate_per_s": 200, "concurrency": 1_000, "duration_ns": SECOND, "timeout_ns": PATIENT_NS, "sockets": "shared",
    }  # fmt: skip
    return LoadConfig(**(values | changes))  # type: ignore[arg-type]  # values are checked by the native side


def figure(result: LoadResult, name: str) -> float:
    """A figure that must be known."""
    value = result.figures[name]
    assert value is not None, name
    return value


def nearest_rank(values: "np.typing.NDArray[np.int64]", share: float) -> int:
    return int(np.sort(values)[math.ceil(share * values.size) - 1])


def assert_adds_up(result: LoadResult) -> None:
    """Counters, rows and intervals say the same."""
    started, shed = figure(result, "started"), figure(result, "shed")
    assert figure(result, "intended") == started + shed
    assert started == sum(figure(result, name) for name in OUTCOMES) == len(result.transfers["outcome"])
    assert (result.intervals["started"].sum(), result.intervals["shed"].sum()) == (started, shed)


@contextmanager
def served(folder: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The bundled epoll server, its port, and a file f-0."""
    generator.write_contents(folder / "f-0", 1, 0, SIZE)
    words = ["serve", "epoll", "--root", str(folder), "--port", "0", *more]
    with subprocess.Popen([sys.executable, "-m", "tftpbench", *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline().split()[2])
        finally:
            process.kill()


def stalled(loaded: LoadConfig, server: subprocess.Popen[str], after_s: float, for_s: float) -> tuple[LoadResult, int]:
    """What a load finds whose server stands still for a while, and when it went on, in ns since the first start."""
    went_on_ns = []

    def stall() -> None:
        threading.Event().wait(after_s)
        server.send_signal(signal.SIGSTOP)
        threading.Event().wait(for_s)
        went_on_ns.append(time.monotonic_ns())
        server.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=stall)
    thread.start()
    result = run_load(loaded)
    thread.join()
    return result, went_on_ns[0] - int(figure(result, "first_start_ns"))


def test_a_stall_of_the_server_is_in_the_response_times_of_an_open_loop(tmp_path: Path) -> None:
    """A tenth of all arrivals waits for the rest of the stall: the 95th percentile is half of it, by arithmetic."""
    with served(tmp_path) as (server, port):
        result, went_on_ns = stalled(config(port, duration_ns=4 * SECOND), server, 1.0, 0.4)
    assert_adds_up(result)
    assert figure(result, "completed") == figure(result, "intended")
    intended, ended = result.transfers["intended_start_ns"], result.transfers["end_ns"]
    # Who waited: those that ended after it went on, and had begun before.
    waited = (intended < went_on_ns) & (ended >= went_on_ns)
    expected = np.where(waited, went_on_ns - intended, 0)
    assert np.count_nonzero(waited) > 0.06 * intended.size
    p95, arithmetic = figure(result, "response_ns_p95"), nearest_rank(expected, 0.95)
    assert p95 >= arithmetic
    if nearest_rank(ended - intended - expected, 0.99) < 0.03 * arithmetic:  # a machine that is busy answers later
        assert p95 <= 1.05 * arithmetic
    assert p95 == pytest.approx(nearest_rank(ended - intended, 0.95), rel=0.002)
    assert arithmetic > 0.1 * SECOND
    assert figure(result, "response_ns_p50") < arithmetic


def test_a_closed_loop_over_the_same_stall_shows_its_usual_percentiles(tmp_path: Path) -> None:
    with served(tmp_path) as (server, port):
        loaded = config(port, rate_per_s=None, concurrency=1, duration_ns=4 * SECOND)
        result, _ = stalled(loaded, server, 1.0, 0.4)
    assert figure(result, "response_ns_max") > 0.35 * SECOND
    assert figure(result, "response_ns_p95") < 0.04 * SECOND, "a tenth of the time, and one transfer of many"
    assert result.figures["offered_per_s"] is None


@pytest.mark.parametrize("sockets", ["shared", "per-transfer"])
def test_a_server_that_drops_two_in_a_hundred_never_has_a_99th_percentile(sockets: str) -> None:
    answer = serve_bytes(contents())

    def drops(self: Peer, datagram: bytes, address: Address) -> None:
        if opcode(datagram) == RRQ and int(datagram[4:].split(b"\0")[0]) % 50 == 0:
            return
        answer(self, datagram, address)

    with peer(drops) as server:
        loaded = config(
            server.port, name="f-{n}", distinct_files=0, verify="off", duration_ns=None, transfers=200,
            deadline_ns=3 * SECOND, sockets=sockets,
        )  # fmt: skip
        result = run_load(loaded)
    assert_adds_up(result)
    assert (figure(result, "late"), figure(result, "completed")) == (4, 196)
    assert result.figures["response_ns_p99"] is None
    assert result.figures["response_ns_p99_is_never"] is True
    assert result.figures["response_ns_p95_is_never"] is False
    assert figure(result, "response_ns_p95") < 3 * SECOND
    assert figure(result, "transfer_ns_p99") < 3 * SECOND, "over those that completed, as ever"


def test_what_reaches_its_deadline_is_ended_with_error_0() -> None:
    def begins(self: Peer, datagram: bytes, address: Address) -> None:
        if opcode(datagram) == RRQ:
            self.send(data(1, contents()[:512]), address)

    with peer(begins) as server:
        result = run_load(config(server.port, duration_ns=SECOND // 5, verify="off", deadline_ns=SECOND // 2))
    assert_adds_up(result)
    errors = [datagram for datagram in server.received if opcode(datagram) == ERROR]
    assert len(errors) == figure(result, "late") == 40
    assert set(errors) == {b"\0\x05\0\0the deadline has passed\0"}
    assert (result.transfers["end_ns"] - result.transfers["intended_start_ns"] >= SECOND // 2).all()


def test_what_finds_no_room_is_shed_and_told_with_its_time() -> None:
    with peer(lambda *_: None) as server:
        result = run_load(config(server.port, duration_ns=SECOND // 2, concurrency=5, deadline_ns=2 * SECOND))
    assert_adds_up(result)
    assert (figure(result, "started"), figure(result, "shed"), figure(result, "late")) == (5, 95, 5)
    assert result.intervals["shed"][:5].tolist() == [15, 20, 20, 20, 20]
    assert figure(result, "offered_per_s") == 200
    assert figure(result, "achieved_per_s") == 10


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_shed_what_one_would_however_unlike_their_transfers_are(workers: int) -> None:
    """Every second one is never answered: with two workers, or four, half of them have all of these."""
    answer = serve_bytes(contents())

    def drops(self: Peer, datagram: bytes, address: Address) -> None:
        if opcode(datagram) != RRQ or int(datagram[4:].split(b"\0")[0]) % 2:
            answer(self, datagram, address)

    with peer(drops) as server:
        loaded = config(
            server.port, name="f-{n}", distinct_files=0, verify="off", workers=workers, concurrency=20,
            duration_ns=SECOND // 2, deadline_ns=2 * SECOND,
        )  # fmt: skip
        result = run_load(loaded)
    assert_adds_up(result)
    assert figure(result, "intended") == 100
    assert figure(result, "in_flight_max") == 20
    # All room is taken by what is never answered, but for what an answered one took when the last of it went.
    assert 18 <= figure(result, "late") <= 20


def by_number(result: LoadResult, name: str) -> "np.typing.NDArray[np.int64]":
    return result.transfers[name][np.argsort(result.transfers["number"])]


def storm(port: int, **changes: object) -> LoadConfig:
    """A storm of 300 reads in half a second."""
    values = {"rate_per_s": None, "duration_ns": None, "transfers": 300, "over_ns": SECOND // 2, "spread": "even"}
    return config(port, **(values | changes))


@pytest.mark.parametrize("workers", [1, 4])
def test_a_storm_starts_as_many_as_asked_for_each_at_its_time_and_is_all_measured(tmp_path: Path, workers: int) -> None:
    with served(tmp_path) as (_, port):
        even, normal, at_once = (
            run_load(storm(port, workers=workers, **changes)) for changes in ({}, {"spread": "normal"}, {"over_ns": 0})
        )
    for result in (even, normal, at_once):
        assert_adds_up(result)
        assert figure(result, "completed") == figure(result, "intended") == 300
        starts = result.transfers["actual_start_ns"]
        assert (starts >= result.transfers["intended_start_ns"]).all()
        assert figure(result, "burst_ns") == starts.max() - starts.min()
        assert figure(result, "window_open_ns") == 0
        assert figure(result, "window_close_ns") == result.transfers["end_ns"].max()
    numbers = np.arange(300)
    assert by_number(even, "intended_start_ns").tolist() == (numbers * (SECOND // 2) // 300).tolist()
    assert figure(even, "offered_per_s") == 600
    assert not by_number(at_once, "intended_start_ns").any()
    assert at_once.figures["offered_per_s"] is None
    # The quantiles of a normal distribution that is cut three standard deviations from its middle.
    cut = NormalDist().cdf(-3)
    expected = [NormalDist(0.25, 0.5 / 6).inv_cdf(cut + (n + 0.5) / 300 * (1 - 2 * cut)) * SECOND for n in range(300)]
    assert np.abs(by_number(normal, "intended_start_ns") - np.array(expected)).max() < 2


def test_a_shape_is_all_measured_and_as_long_as_its_pieces(tmp_path: Path) -> None:
    rate = (200, SECOND)
    ramp, hold = Piece("ramp", (0, 1), rate, SECOND // 2), Piece("hold", rate, None, SECOND // 4)
    with served(tmp_path) as (_, port):
        pieces = (ramp, hold, Piece("burst", count=30))
        result = run_load(config(port, rate_per_s=None, duration_ns=None, shape=pieces, workers=2))
    assert_adds_up(result)
    assert figure(result, "completed") == figure(result, "intended") == 50 + 50 + 30
    assert figure(result, "duration_s") == 0.75
    assert figure(result, "offered_per_s") == pytest.approx(130 / 0.75)
    assert 0 < figure(result, "achieved_per_s") <= figure(result, "offered_per_s")
    times = by_number(result, "intended_start_ns")
    assert times[:3].tolist() == [0, math.ceil(0.5 * SECOND / math.sqrt(50)), math.ceil(0.5 * SECOND / 5)]
    assert times[50:100].tolist() == [SECOND // 2 + n * SECOND // 200 for n in range(50)]
    assert (times[100:] == 3 * SECOND // 4).all()
    assert result.figures["burst_ns"] is None


def test_transfers_without_a_row_are_in_every_figure() -> None:
    answer = serve_bytes(contents())

    def drops(self: Peer, datagram: bytes, address: Address) -> None:
        if opcode(datagram) != RRQ or int(datagram[4:].split(b"\0")[0]) % 50:
            answer(self, datagram, address)

    def load(**changes: object) -> LoadResult:
        with peer(drops) as server:
            asked = {"name": "f-{n}", "distinct_files": 0, "verify": "off", "deadline_ns": SECOND, **changes}
            return run_load(storm(server.port, **asked))

    whole, failed, sample = load(), load(rows="failed"), load(rows_max=60, workers=2)
    rows = [result.transfers["outcome"] for result in (whole, failed, sample)]
    late = OUTCOMES.index("late")
    assert [len(each) for each in rows] == [figure(result, "rows_kept") for result in (whole, failed, sample)]
    assert (len(rows[0]), rows[1].tolist()) == (300, [late] * 6)
    assert np.count_nonzero(rows[2] == late) == 6
    assert len(rows[2]) <= 60
    assert [result.figures["rows_every"] for result in (whole, failed, sample)] == [1, None, 8]
    assert {"rows_kept", "rows_every", "rows_every_failed"} <= whole.figures.keys() & COLUMNS.keys()
    for result in (whole, failed, sample):
        counts = [figure(result, name) for name in ("intended", "completed", "late", "unanswered", "retransmissions")]
        assert counts == [300, 294, 6, 6, 0]
        assert (result.intervals["started"].sum(), result.answered) == (300, 294)
        assert result.figures["response_ns_p99_is_never"] is True
        assert figure(result, "service_ns_p95") <= figure(result, "response_ns_p95") < SECOND
        assert 6 <= figure(result, "in_flight_max") <= 300
        # Six were in flight for nearly a second each.
        assert figure(result, "in_flight_mean") > 1
    assert [result.has_every_start for result in (whole, failed, sample)] == [True, False, False]
    table = whole.transfers
    inside = np.minimum(table["end_ns"], figure(whole, "window_close_ns")) - table["actual_start_ns"]
    mean = inside.clip(0).sum() / figure(whole, "window_close_ns")
    assert figure(whole, "in_flight_mean") == pytest.approx(mean)


def step(name: str = "f-0", **changes: object) -> Step:
    """A read of the file f-0 by a client that sends each datagram once."""
    values: dict[str, object] = {
        "operation": "read", "name": name, "options": (), "size_bytes": SIZE, "file": 0, "ends": "whole",
        "stop_after": 0, "stop_code": 0, "stop_text": "", "think_ns": 0, "waits_ns": (PATIENT_NS,),
        "reading_waits_ns": (PATIENT_NS,), "then": "give_up", "restarts_max": 0, "nack": "gap",
    }  # fmt: skip
    return Step(**(values | changes))  # type: ignore[arg-type]  # as above


PROBE = step("f-0", options=(("tsize", "0"), ("blksize", "1468")), ends="stop", stop_code=8, stop_text="User aborted")
WHOLE = step("f-0", options=(("blksize", "1468"), ("windowsize", "4"), ("x", "y")))
MISS = step("cfg/01-{mac-}", ends="missing", size_bytes=None, file=-1)


def booting(port: int, *steps: Step, **changes: object) -> LoadConfig:
    """Fifty machines at 200 a second."""
    values: dict[str, object] = {"boots": (Share("made-up", 1, steps),), "transfers": 50, "duration_ns": None}
    return placed(config(port, **(values | changes)))


@pytest.fixture(params=["shared", "ring"])
def way(request: pytest.FixtureRequest) -> None:
    """On loopback, and over rings."""
    if request.param == "ring":
        request.getfixturevalue("over_rings")


def assert_boots_add_up(result: LoadResult) -> None:
    """Counters and rows of machines and of their transfers say the same."""
    names = ("booted", *(f"boots_{name}" for name in BOOT_OUTCOMES[1:]))
    rows, transfers = result.boots, result.transfers
    assert figure(result, "machines") == sum(figure(result, name) for name in names) == rows["machine"].size
    assert [figure(result, name) for name in names] == np.bincount(rows["outcome"], minlength=5).tolist()
    assert sorted(rows["machine"]) == list(range(rows["machine"].size))
    assert figure(result, "started") == rows["requests"].sum() == transfers["machine"].size
    assert (figure(result, "intended"), figure(result, "shed")) == (figure(result, "started"), 0)
    for name in ("bytes", "retransmissions"):
        assert rows[name].sum() == transfers[name].sum()


@pytest.mark.parametrize("sockets", ["shared", "per-transfer"])
@pytest.mark.parametrize("workers", [1, 2])
def test_machines_boot_from_a_server_step_by_step(tmp_path: Path, sockets: str, workers: int) -> None:
    with served(tmp_path) as (_, port):
        result = run_load(booting(port, PROBE, WHOLE, MISS, sockets=sockets, workers=workers))
    assert_boots_add_up(result)
    assert (figure(result, "booted"), figure(result, "misses"), figure(result, "misses_unanswered")) == (50, 50, 0)
    assert figure(result, "completed") == 150, (
        "a probe that was stopped and a miss that was refused ended as they should"
    )
    assert figure(result, "bytes_verified") == 50 * SIZE
    assert result.errors == ()
    for name in ("boot_ns_p50", "boot_ns_p99", "boot_service_ns_p50", "miss_ns_p99"):
        assert 0 < figure(result, name) < PATIENT_NS
    steps, ended = result.transfers["step"], result.transfers["end_ns"]
    for machine in range(50):
        mine = result.transfers["machine"] == machine
        assert steps[mine][np.argsort(ended[mine])].tolist() == [1, 2, 3]
    assert {"Tag=boot,", "Tag=boot_service,", "Tag=miss,"} <= {line[: line.find(",") + 1] for line in
                                                              result.latency_hlog.splitlines()}  # fmt: skip


@pytest.mark.usefixtures("way")
def test_a_machine_keeps_its_address_changes_its_port_and_asks_as_its_client_does() -> None:
    windows = (("windowsize", "4"),) if Place.network is None else ()  # which rings do not carry
    whole = replace(WHOLE, options=(WHOLE.options[0], *windows, WHOLE.options[-1]))
    asked: dict[str, list[tuple[int, bytes]]] = {}
    serves = serve_bytes(contents(), blksize=1468)

    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        if opcode(datagram) == RRQ:
            asked.setdefault(address[0], []).append((address[1], datagram))
        if opcode(datagram) == RRQ and b"cfg/" in datagram:
            self.send(error(1), address)
        else:
            serves(self, datagram, address)

    with peer(answer) as server:
        loaded = booting(server.port, PROBE, whole, MISS, workers=2)
        result = run_load(loaded)
    assert loaded.sockets == ("ring" if Place.network else "shared")
    assert_boots_add_up(result)
    assert figure(result, "booted") == len(asked) == 50
    for requests in asked.values():
        ports, datagrams = zip(*requests, strict=True)
        assert len(set(ports)) == 3
        assert datagrams[:2] == (
            b"\0\1f-0\0octet\0tsize\x000\0blksize\x001468\0",
            b"\0\1f-0\0octet\0blksize\x001468\0" + b"windowsize\x004\0" * len(windows) + b"x\0y\0",
        )
    misses = {requests[2][1] for requests in asked.values()}
    names = (_core.machine_name("cfg/01-{mac-}", number).encode() for number in range(50))
    assert misses == {b"\0\1" + name + b"\0octet\0" for name in names}
    errors = [datagram for datagram in server.received if opcode(datagram) == ERROR]
    assert errors == [b"\0\5\0\x08User aborted\0"] * 50
    acks = [datagram for datagram in server.received if opcode(datagram) == ACK]
    assert len(acks) == 50 * 3, "the OACK and both blocks of the whole file; the probe has none"


@pytest.mark.usefixtures("way")
def test_a_miss_that_is_not_answered_costs_its_timers_and_the_boot_goes_on() -> None:
    serves = serve_bytes(contents())
    wait_ns = SECOND // 20

    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        if b"cfg/" not in datagram:
            serves(self, datagram, address)

    with peer(answer) as server:
        miss = replace(MISS, waits_ns=(wait_ns, 2 * wait_ns))
        pausing = step("f-0", think_ns=wait_ns)
        result = run_load(booting(server.port, miss, pausing, transfers=5))
    assert_boots_add_up(result)
    assert (figure(result, "booted"), figure(result, "misses"), figure(result, "misses_unanswered")) == (5, 5, 5)
    assert result.figures["miss_ns_p99"] is None
    assert (figure(result, "timed_out"), result.boots["retransmissions"].tolist()) == (5, [1] * 5)
    assert (result.boots["end_ns"] - result.boots["actual_start_ns"] >= 4 * wait_ns).all()
    order = np.lexsort((result.transfers["step"], result.transfers["machine"]))
    intended, ended = (result.transfers[name][order] for name in ("intended_start_ns", "end_ns"))
    pauses = intended[1::2] - ended[::2]
    assert pauses.tolist() == [wait_ns] * 5, "a request is due when its client has thought"


@pytest.mark.parametrize("sockets", ["shared", "per-transfer"])
def test_a_client_may_think_for_longer_than_its_request_waits(tmp_path: Path, sockets: str) -> None:
    """The timer of a request that was answered comes when the machine has no request under way."""
    wait_ns = SECOND // 20
    first = replace(WHOLE, waits_ns=(wait_ns,) * 20, reading_waits_ns=(wait_ns,) * 20)
    with served(tmp_path) as (_, port):
        result = run_load(booting(port, first, replace(first, think_ns=8 * wait_ns), sockets=sockets))
    assert_boots_add_up(result)
    assert figure(result, "booted") == 50


@pytest.mark.usefixtures("way")
def test_machines_that_a_server_drops_never_boot_and_are_told_with_where_they_stopped() -> None:
    serves = serve_bytes(contents())
    dropped = _core.machine_name("{mac}", 7).encode()

    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        if dropped not in datagram:
            serves(self, datagram, address)

    machine = step("{mac}", then="restart_transfer", restarts_max=2, waits_ns=(SECOND // 20,))
    with peer(answer) as server:
        result = run_load(booting(server.port, step("f-0"), machine))
        late = run_load(booting(server.port, step("f-0"), replace(machine, waits_ns=(PATIENT_NS,)),
                                deadline_ns=SECOND))  # fmt: skip
    assert_boots_add_up(result)
    assert (figure(result, "booted"), figure(result, "boots_failed"), figure(result, "restarts")) == (49, 1, 2)
    assert (result.figures["boot_ns_p99"], result.figures["boot_ns_p99_is_never"]) == (None, True)
    assert result.figures["boot_ns_p50_is_never"] is False
    row = {name: int(column[result.boots["machine"] == 7][0]) for name, column in result.boots.items()}
    assert (row["failed_step"], BOOT_REASONS[row["reason"]], row["requests"]) == (2, "no answer", 4)
    assert_boots_add_up(late)
    assert (figure(late, "booted"), figure(late, "boots_late")) == (49, 1)
    assert late.boots["failed_step"][late.boots["outcome"] == BOOT_OUTCOMES.index("late")].tolist() == [2]
    ends = late.boots["end_ns"] - late.boots["intended_start_ns"]
    assert SECOND <= ends.max() < PATIENT_NS


def test_of_a_load_in_which_no_machine_came_to_start_there_is_a_table_without_rows() -> None:
    with peer(lambda *_: None) as server:
        loaded = booting(server.port, step("f-0"), transfers=None, duration_ns=SECOND // 100)
        result = run_load(replace(loaded, rate_per_s=0.001, arrivals="poisson"))
    assert figure(result, "machines") == 0
    assert {*result.boots} == {*BOOT_COLUMNS} - {"boot", "host"} | {"share"}
    assert all(not len(column) for column in result.boots.values())
    assert "0 of 0 machines" in load_report.render(load_report.Loaded(loaded, result))


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("after", [1, 2])
def test_a_probe_that_wants_some_blocks_is_stopped_after_them(after: int) -> None:
    serves = serve_bytes(contents(size=5_000))
    with peer(serves) as server:
        probe = step(ends="stop", stop_after=after, stop_text="closed", size_bytes=None)
        result = run_load(booting(server.port, probe, transfers=3))
        early = run_load(booting(server.port, replace(probe, stop_after=50), transfers=1))
    assert_boots_add_up(result)
    assert (figure(result, "booted"), result.boots["bytes"].tolist()) == (3, [after * 512] * 3)
    assert [datagram for datagram in server.received if opcode(datagram) == ERROR] == [b"\0\5\0\0closed\0"] * 3
    assert figure(result, "bytes_verified") == 3 * after * 512
    assert (figure(early, "booted"), early.boots["bytes"].tolist()) == (1, [5_000]), "it had ended before"


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("sockets", ["shared", "per-transfer", "ring"])
def test_a_client_that_acknowledges_what_it_stops_at_does_so_once_and_then_stops(
    after: int, sockets: str, request: pytest.FixtureRequest
) -> None:
    if sockets == "ring":
        request.getfixturevalue("over_rings")
    with peer(serve_bytes(contents(size=5_000), blksize=1024)) as server:
        probe = step(ends="stop", stop_after=after, stop_text="closed", options=(("blksize", "1024"),), size_bytes=None)
        result = run_load(booting(server.port, replace(probe, stop_acks=True), transfers=1, sockets=sockets))
    assert_boots_add_up(result)
    assert (figure(result, "booted"), figure(result, "retransmissions")) == (1, 0)
    sent = [datagram for datagram in server.received if opcode(datagram) != RRQ]
    assert sent == [*(struct.pack("!HH", ACK, block) for block in range(after + 1)), b"\0\5\0\0closed\0"]


def test_a_machine_that_is_given_other_bytes_does_not_boot_and_a_file_that_is_there_after_all_does_no_harm(
    tmp_path: Path,
) -> None:
    given = tmp_path / "given"
    given.write_bytes(contents(seed=9))
    with peer(serve_bytes(contents(seed=9))) as server:
        again = step(then="restart_transfer", restarts_max=3)
        wrong = run_load(booting(server.port, again, transfers=3))
        short = run_load(booting(server.port, replace(again, size_bytes=SIZE + 1), verify="sample", transfers=1))
        long = run_load(booting(server.port, replace(again, size_bytes=SIZE - 600), transfers=1))
        right = run_load(booting(server.port, replace(again, contents=given), MISS, transfers=3))
    for result, machines in ((wrong, 3), (short, 1), (long, 1)):
        assert_boots_add_up(result)
        assert (figure(result, "boots_failed"), figure(result, "content_mismatches")) == (machines, machines)
        assert {BOOT_REASONS[reason] for reason in result.boots["reason"]} == {"wrong bytes"}
        assert figure(result, "restarts") == 0, "a client does not know"
    assert_boots_add_up(right)
    assert (figure(right, "booted"), figure(right, "misses"), figure(right, "bytes_verified")) == (3, 0, 3 * SIZE)


def test_machines_upload_files_of_their_own(tmp_path: Path) -> None:
    put = step("up-{n}", operation="write", options=(("tsize", "{size}"), ("blksize", "1024")), file=7)
    with served(tmp_path, "--write") as (_, port):
        result = run_load(booting(port, WHOLE, put, transfers=10))
    assert_boots_add_up(result)
    assert (figure(result, "booted"), figure(result, "completed")) == (10, 20)
    for number in range(10):
        assert generator.first_difference(tmp_path / f"up-{number}", 1, 7, SIZE) is None


@pytest.mark.usefixtures("way")
def test_what_comes_late_for_a_request_finds_no_other_request_of_the_machine() -> None:
    """The first transfer's last block comes again, behind its port, while the machine reads the next file."""
    serves = serve_bytes(contents())
    first: dict[str, Address] = {}

    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        if opcode(datagram) == RRQ and address[0] in first:
            self.send(data(1, b"not its file"), first[address[0]])
        first.setdefault(address[0], address)
        serves(self, datagram, address)

    with peer(answer) as server:
        result = run_load(booting(server.port, step(), step(), transfers=20))
    assert_boots_add_up(result)
    assert (figure(result, "booted"), figure(result, "late_datagrams"), result.faults) == (20, 20, ())


def test_a_storm_of_machines_is_over_when_the_last_one_is_up(tmp_path: Path) -> None:
    with served(tmp_path) as (_, port):
        storm = booting(port, PROBE, WHOLE, MISS, transfers=500, rate_per_s=None, over_ns=SECOND // 5)
        result = run_load(storm)
    assert_boots_add_up(result)
    assert figure(result, "booted") == 500
    assert result.boots["intended_start_ns"].max() < SECOND // 5
    assert figure(result, "offered_per_s") == 2_500, "of machines"
    starts, ends = (result.boots[name] for name in ("actual_start_ns", "end_ns"))
    assert result.has_every_start
    assert figure(result, "burst_ns") == starts.max() - starts.min()
    assert 1 <= figure(result, "in_flight_max") <= 500
    closes = figure(result, "window_close_ns")
    mean = (np.minimum(ends, closes) - starts).clip(0).sum() / closes
    assert figure(result, "in_flight_mean") == pytest.approx(mean), "machines, their pauses included"


def test_rates_of_a_storm_in_which_no_machine_comes_up_are_of_the_time_that_it_took() -> None:
    """Its first requests are answered at once, and the last one never."""
    serves = serve_bytes(contents())

    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        if b"absent" not in datagram:
            serves(self, datagram, address)

    with peer(answer) as server:
        steps, asked = (step(), step("absent")), {"transfers": 30, "rate_per_s": None, "over_ns": 0}
        late = run_load(booting(server.port, *steps, **asked, deadline_ns=SECOND, workers=2))
        gone = replace(step("absent"), waits_ns=(SECOND // 2,))
        failed = run_load(booting(server.port, step(), gone, **asked))
    for result, outcome, after_s in ((late, "boots_late", 1), (failed, "boots_failed", 0.5)):
        assert_boots_add_up(result)
        assert (figure(result, outcome), figure(result, "completed")) == (30, 30)
        assert figure(result, "duration_s") == pytest.approx(result.boots["end_ns"].max() / SECOND)
        assert after_s <= figure(result, "duration_s") < after_s + 1
        assert figure(result, "transfers_per_s") == pytest.approx(30 / figure(result, "duration_s"))
        assert figure(result, "in_flight_mean") == pytest.approx(30, rel=0.5)


def test_boots_without_a_row_are_in_every_figure() -> None:
    serves = serve_bytes(contents())
    dropped = [_core.machine_name("{mac}", number).encode() for number in range(0, 300, 50)]

    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        if not any(name in datagram for name in dropped):
            serves(self, datagram, address)

    def load(**changes: object) -> LoadResult:
        with peer(answer) as server:
            asked = {"transfers": 300, "rate_per_s": None, "over_ns": SECOND // 2, "deadline_ns": SECOND, **changes}
            return run_load(booting(server.port, step(), step("own-{mac}"), verify="off", **asked))

    whole, failed, sample = load(), load(rows="failed"), load(rows_max=60, workers=2)
    rows = [result.boots["outcome"] for result in (whole, failed, sample)]
    late = BOOT_OUTCOMES.index("late")
    assert_boots_add_up(whole)
    assert (len(rows[0]), rows[1].tolist()) == (300, [late] * 6)
    assert np.count_nonzero(rows[2] == late) == 6
    assert 6 < len(rows[2]) <= 60
    for result in (whole, failed, sample):
        counts = [figure(result, name) for name in ("machines", "booted", "boots_late", "completed", "misses")]
        assert counts == [300, 294, 6, 594, 0]
        assert result.figures["boot_ns_p99_is_never"] is True
        assert figure(result, "boot_service_ns_p50") <= figure(result, "boot_ns_p50") < SECOND
        assert 0 <= figure(result, "burst_ns") < SECOND
        assert figure(result, "in_flight_mean") > 1
        assert figure(result, "offered_per_s") == 600
    assert [result.has_every_start for result in (whole, failed, sample)] == [True, False, False]
    nothing = load(rows="failed", boots=(Share("made-up", 1, (step(),)),), transfers=20)
    assert (figure(nothing, "booted"), [len(column) for column in nothing.boots.values()]) == (20, [0] * 15)
    shed = load(rows_max=10, concurrency=2)
    assert len(shed.boots["machine"]) <= 10
    assert sum(figure(shed, name) for name in ("booted", "boots_late", "boots_shed")) == 300
    assert figure(shed, "boots_shed") > 100


def test_machines_beyond_the_most_in_flight_are_shed_and_those_that_a_stop_finds_are_interrupted() -> None:
    stop = generator.Stop()
    with peer(lambda *_: None) as server:
        loaded = booting(server.port, step("f-0"), concurrency=5, deadline_ns=SECOND // 2)
        result = run_load(loaded)
        timer = threading.Timer(0.3, stop.request)
        timer.start()
        stopped = run_load(booting(server.port, step("f-0"), concurrency=5), stop)
    for found in (result, stopped):
        assert_boots_add_up(found)
    assert (figure(result, "boots_late"), figure(result, "boots_shed"), figure(result, "machines")) == (5, 45, 50)
    assert set(result.boots["actual_start_ns"][result.boots["outcome"] == BOOT_OUTCOMES.index("shed")]) == {-1}
    assert figure(stopped, "boots_interrupted") == 5


def test_a_closed_loop_of_boots_and_a_mix_keep_their_order(tmp_path: Path) -> None:
    with served(tmp_path) as (_, port):
        shares = (Share("often", 8, (PROBE, WHOLE)), Share("seldom", 2, (WHOLE,)))
        result = run_load(booting(port, boots=shares, rate_per_s=None, concurrency=3))
    assert_boots_add_up(result)
    assert figure(result, "booted") == 50
    by_number = result.boots["share"][np.argsort(result.boots["machine"])]
    assert np.bincount(by_number).tolist() == [40, 10]
    assert by_number[:10].tolist() == [0, 0, 1, 0, 0] * 2


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"name": "{ip}"}, r"^boots: step 1 of made-up: name: \{ip\} is no variable"),
        ({"waits_ns": ()}, "waits: there must be 1 to 1000"),
        ({"ends": "sometimes"}, "ends: sometimes is not one of whole, missing, stop"),
        ({"size_bytes": -1}, "^boots: "),
        ({"size_bytes": None}, "size_bytes: is needed"),
    ],
)
def test_boots_that_cannot_be_meant_are_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(LoadError, match=text):
        run_load(booting(1, replace(step(), **changes)))  # type: ignore[arg-type]  # as above


def test_more_machines_than_fit_are_refused_with_the_number_that_does() -> None:
    with pytest.raises(LoadError, match=r"machines in flight are more than .* at most [0-9]+ fit"):
        run_load(booting(1, WHOLE, sockets="per-transfer", concurrency=10_000_000))
    with pytest.raises(LoadError, match="at most 1048576 machines"):
        run_load(booting(1, WHOLE, concurrency=10_000_000))


def test_a_run_of_a_scenario_with_rates_has_their_figures_in_its_rows_and_frames(tmp_path: Path) -> None:
    document = {
        "schema": "tftpbench.scenario/1", "name": "rates", "description": "How long at a fixed rate?",
        "servers": ["epoll"], "trials": 1, "duration": "400ms", "warm_up": "100ms", "in_flight_max": 500,
        "matrix": {"operation": "read", "rate": ["50/s", "500/s"], "arrivals": "poisson", "file_size": "4KiB"},
    }  # fmt: skip
    run = tftpbench.run(Scenario.from_dict(document), out=tmp_path, seed=7)
    cells = run.trials.set_index("rate_per_s").sort_index()
    assert cells.index.tolist() == [50.0, 500.0]
    for name, value in (("concurrency", 500), ("deadline_ns", 30 * SECOND), ("arrivals", "poisson")):
        assert cells[name].tolist() == [value, value]
    assert (cells["intended"] == cells["started"] + cells["shed"]).all()
    assert (cells["completed"] == cells["started"]).all()
    assert cells["response_ns_p99_is_never"].tolist() == [False, False]
    assert (cells["response_ns_p99"] >= cells["service_ns_p50"]).all()
    assert (cells["offered_per_s"] > 0).all()
    for kind in ("response", "service"):
        assert run.latency(kind, rate_per_s=500.0, valid_only=False).count > 0
    assert run.intervals["started"].sum() == cells["started"].sum() == len(run.transfers)
    assert set(run.transfers["rate_per_s"]) == {50.0, 500.0}


@pytest.mark.parametrize(
    ("rate_per_s", "ratio"),
    [(200, (200, SECOND)), (3 / 60, (1, 20 * SECOND)), (7 / 60, (7, 60 * SECOND)), (0.001, (1, 1_000 * SECOND))],
)
def test_a_rate_is_a_ratio_of_whole_numbers(rate_per_s: float, ratio: tuple[int, int]) -> None:
    assert config(1, rate_per_s=rate_per_s).rate_ratio == ratio


@pytest.mark.parametrize("rate_per_s", [0, -1, 1e9, 1e-4, math.nan, math.inf])
def test_a_rate_that_cannot_be_meant_is_refused(rate_per_s: float) -> None:
    with pytest.raises(LoadError, match=r"^rate: must be between 0\.001/s and 1000000/s$"):
        run_load(config(1, rate_per_s=rate_per_s))


STORM: dict[str, object] = {"rate_per_s": None, "duration_ns": None, "transfers": 5, "over_ns": SECOND}
SHAPE: dict[str, object] = {"rate_per_s": None, "duration_ns": None}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"deadline_ns": 0}, "deadline: must be longer than 0"),
        ({"arrivals": "normal"}, "arrivals: normal is not one of even, poisson"),
        ({"ramp_ns": 1}, "ramp_ns: the rate of an open loop spreads its starts already"),
        ({"sockets": "per-transfer", "concurrency": 10_000_000}, "at most [0-9]+ fit; a "),
        ({"over_ns": 1}, "rate_per_s, over_ns and shape: give one at most"),
        ({"share": (0, 0, 1)}, "^share: width and of must be at least 1$"),
        ({"share": (0, 1, 0)}, "^share: width and of must be at least 1$"),
        ({"share": (3, 2, 4)}, r"^share: first \+ width must be at most of, and 3 \+ 2 is more than 4$"),
        ({"share": (0, 1, 10_001)}, "^share: of must be at most 10000$"),
        ({"share": (-1, 1, 1)}, "^share: "),
        ({"rows_max": 0}, "rows_max: must be at least 1"),
        ({"rows": "some"}, "rows: some is not one of all, failed, sample"),
        ({"rate_per_s": None, "over_ns": 1}, "a storm needs only transfers, a shape neither"),
        ({**STORM, "over_ns": 86_400_000_000_001}, "over: must be at most 24 hours"),
        ({**STORM, "transfers": 10_000_001}, "machines: must be between 1 and 10000000"),
        ({**STORM, "transfers": 0}, "machines: must be between 1 and 10000000"),
        ({**STORM, "spread": "wide"}, "spread: wide is not one of even, normal"),
        ({**STORM, "warm_up_ns": 1}, "warm_up_ns: a storm and a shape have none"),
        ({**STORM, "over_ns": -1}, "^over_ns: "),
        ({**SHAPE, "shape": (Piece("burst", count=5),)}, "shape: has no length"),
        ({**SHAPE, "shape": (Piece("hold", (5, SECOND)),)}, "shape: `for` of piece 1 must be longer than 0"),
        ({**SHAPE, "shape": (Piece("ramp", (5, SECOND), None, 5),)}, "shape: a ramp needs to_ratio"),
        ({**SHAPE, "shape": (Piece("jump", None, None, 5),)}, "jump is not one of ramp, hold, burst"),  # type: ignore[arg-type]
    ],
)
def test_an_open_loop_that_cannot_be_run_is_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(LoadError, match=text):
        run_load(config(1, **changes))


class Agreed:
    """A start soon after so many hosts are ready."""

    def __init__(self, hosts: int = 1) -> None:
        self.start_ns = 0
        self._all_ready = threading.Barrier(hosts, self._agree, timeout=60)

    def on_ready(self) -> int:
        self._all_ready.wait()
        return self.start_ns

    def _agree(self) -> None:
        self.start_ns = time.monotonic_ns() + SECOND // 2


def on_hosts(loaded: LoadConfig, *widths: int) -> tuple[list[LoadResult], int]:
    """What hosts find that put on one load in shares of these widths, and the start on which they agreed."""
    agreed = Agreed(len(widths))

    shares = [(sum(widths[:host]), width, sum(widths)) for host, width in enumerate(widths)]
    with ThreadPoolExecutor(len(widths)) as hosts:
        runs = [hosts.submit(run_load, replace(loaded, share=share), on_ready=agreed.on_ready) for share in shares]
        return [run.result() for run in runs], agreed.start_ns


def starts(*results: LoadResult) -> list[tuple[int, int]]:
    """Number and intended start of all that these results have rows of, machines or transfers, by number."""
    pairs: list[tuple[int, int]] = []
    for result in results:
        table = result.boots or {"machine": result.transfers["number"], **result.transfers}
        pairs += zip(table["machine"].tolist(), table["intended_start_ns"].tolist(), strict=True)
    return sorted(pairs)


PIECES = (
    Piece("ramp", (0, 1), (200, SECOND), SECOND // 2),
    Piece("burst", count=30),
    Piece("hold", (100, SECOND), None, SECOND // 4),
)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"arrivals": "poisson"},
        {"transfers": 60, "duration_ns": None},
        {**STORM, "transfers": 90, "over_ns": SECOND // 4, "spread": "even"},
        {**STORM, "transfers": 90, "over_ns": SECOND // 4, "spread": "normal"},
        {**SHAPE, "shape": PIECES},
        {**SHAPE, "shape": PIECES, "arrivals": "poisson"},
    ],
    ids=["even", "poisson", "fixed-work", "storm", "normal-storm", "shape", "poisson-shape"],
)
def test_hosts_that_share_a_load_intend_together_what_one_does(tmp_path: Path, changes: dict[str, object]) -> None:
    with served(tmp_path) as (_, port):
        loaded = config(port, workers=2, **changes)
        alone, (results, start_ns) = run_load(loaded), on_hosts(loaded, 1, 3)
    assert starts(*results) == starts(alone)
    for host, result in enumerate(results):
        assert_adds_up(result)
        assert result.has_every_start
        assert figure(result, "completed") == figure(result, "intended") > 0
        assert set(result.transfers["number"] % 4) <= ({1, 2, 3} if host else {0})
        assert figure(result, "first_start_ns") == start_ns
        assert result.window_ns[0] == start_ns
        assert (result.transfers["actual_start_ns"] >= result.transfers["intended_start_ns"]).all()
    for name in ("intended", "offered_per_s"):
        assert sum(figure(result, name) for result in results) == pytest.approx(figure(alone, name))


def test_hosts_that_share_a_closed_loop_start_each_number_once() -> None:
    with peer(serve_bytes(contents())) as server:
        loaded = config(
            server.port, rate_per_s=None, duration_ns=None, transfers=23, concurrency=2, workers=2, name="f-{n}",
            distinct_files=0, verify="off",
        )  # fmt: skip
        results, _ = on_hosts(loaded, 2, 1, 1)
    asked = [int(datagram[4:].split(b"\0")[0]) for datagram in server.received if opcode(datagram) == RRQ]
    assert sorted(asked) == list(range(23))
    assert [sorted(result.transfers["number"] % 4) for result in results] == [[0] * 6 + [1] * 6, [2] * 6, [3] * 5]
    assert [figure(result, "intended") for result in results] == [12, 6, 5]


def test_machines_of_a_mix_boot_on_several_hosts_what_they_boot_on_one(tmp_path: Path) -> None:
    shares = (Share("often", 8, (PROBE, WHOLE)), Share("seldom", 2, (WHOLE,)))
    with served(tmp_path) as (_, port):
        loaded = booting(port, boots=shares, rate_per_s=None, over_ns=SECOND // 5, concurrency=50)
        alone, (results, _) = run_load(loaded), on_hosts(loaded, 2, 1)
    assert starts(*results) == starts(alone)
    assert [figure(result, "booted") for result in results] == [34, 16]
    together = {
        int(machine): int(share)
        for result in results
        for machine, share in zip(result.boots["machine"], result.boots["share"], strict=True)
    }
    by_number = alone.boots["share"][np.argsort(alone.boots["machine"])]
    assert [together[machine] for machine in range(50)] == by_number.tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {"transfers": 3, "duration_ns": None},
        {"duration_ns": SECOND // 100, "rate_per_s": 1},
        {**STORM, "transfers": 3},
        {**SHAPE, "shape": (Piece("hold", (300, SECOND), None, SECOND // 100),)},
        {"rate_per_s": None, "duration_ns": None, "transfers": 3, "concurrency": 2},
        {"boots": (Share("made-up", 1, (WHOLE,)),), "transfers": 3, "duration_ns": None},
    ],
    ids=["fixed-work", "rate", "storm", "shape", "closed", "boots"],
)
def test_a_share_without_a_start_ends_with_nothing_found(changes: dict[str, object]) -> None:
    with peer(lambda *_: None) as server:
        result = run_load(config(server.port, share=(9, 1, 10), workers=2, **changes))
    assert server.received == []
    assert result.has_every_start
    counts = ["intended", "shed", *OUTCOMES, "started", "in_flight_max", "datagrams_sent", "bytes_verified"]
    assert [figure(result, name) for name in counts] == [0] * len(counts)
    assert (result.figures["first_start_late_ns"], result.figures["response_ns_p50"]) == (None, None)
    assert not result.intervals["started"].any()
    assert not any(isinstance(value, float) and not math.isfinite(value) for value in result.figures.values())


@pytest.mark.parametrize(
    ("ready", "text"),
    [
        (lambda: time.monotonic_ns() - 1, "^start: [0-9]+ ns is past by [0-9]+ ns: agree on a later one$"),
        (lambda: -1, "^start: 0 ns is past by"),
        (lambda: time.monotonic_ns() + 602 * SECOND, "^start: [0-9]+ ns is 601 s ahead: at most 600 s are allowed$"),
        (lambda: None, "^given up before the start: nothing was sent$"),
        (lambda: 1.5, "^on_ready: must return a time in ns"),
        (lambda: 1 << 64, "^on_ready: must return a time in ns"),
    ],
)
def test_a_load_that_gets_no_start_that_it_can_keep_sends_nothing(ready: object, text: str) -> None:
    with peer(lambda *_: None) as server, pytest.raises(LoadError, match=text):
        run_load(config(server.port), on_ready=ready)  # type: ignore[arg-type]  # as above
    assert server.received == []


def test_an_exception_before_the_start_is_the_callers_and_nothing_is_sent() -> None:
    def fail() -> int:
        raise KeyboardInterrupt

    with peer(lambda *_: None) as server, pytest.raises(KeyboardInterrupt):
        run_load(config(server.port), on_ready=fail)
    assert server.received == []


def test_a_stop_ends_the_wait_for_the_start() -> None:
    stop, before_s = generator.Stop(), time.monotonic()

    def on_ready() -> int:
        threading.Timer(0.2, stop.request).start()
        return time.monotonic_ns() + 300 * SECOND

    with peer(lambda *_: None) as server:
        result = run_load(config(server.port, workers=2), stop, on_ready=on_ready)
    assert time.monotonic() - before_s < 100
    assert server.received == []
    assert (figure(result, "started"), figure(result, "shed"), figure(result, "duration_s")) == (0, 0, 0)
    assert result.window_ns[0] == result.window_ns[1]


@pytest.mark.parametrize("changes", [{"rate_per_s": None, "concurrency": 1}, {}], ids=["closed", "open"])
def test_the_first_start_comes_at_the_agreed_time(tmp_path: Path, changes: dict[str, object]) -> None:
    """To the millisecond in one of some runs: others may find the machine busy."""
    late_ns: list[int] = []
    with served(tmp_path) as (_, port):
        while not late_ns or (late_ns[-1] > SECOND // 1_000 and len(late_ns) < 20):
            agreed = Agreed()
            result = run_load(config(port, duration_ns=SECOND // 5, **changes), on_ready=agreed.on_ready)
            assert figure(result, "first_start_ns") == agreed.start_ns
            first = np.lexsort((result.transfers["actual_start_ns"], result.transfers["intended_start_ns"]))[0]
            actual, intended = (int(result.transfers[f"{kind}_start_ns"][first]) for kind in ("actual", "intended"))
            assert figure(result, "first_start_late_ns") == actual - intended
            assert intended == 0
            late_ns.append(actual)
    assert min(late_ns) <= SECOND // 1_000, late_ns


def test_progress_is_heard_once_a_second_since_the_agreed_start(tmp_path: Path) -> None:
    agreed = Agreed()
    heard: list[tuple[int, int]] = []
    with served(tmp_path) as (_, port):
        run_load(
            config(port, duration_ns=3 * SECOND // 2),
            on_progress=lambda now: heard.append((time.monotonic_ns() - agreed.start_ns, now.elapsed_ns)),
            on_ready=agreed.on_ready,
        )
    assert heard
    assert all(SECOND <= elapsed_ns <= heard_ns for heard_ns, elapsed_ns in heard)


def test_load_at_a_rate_is_reported_and_what_was_lost_is_exit_code_3(tmp_path: Path) -> None:
    def load(port: int, *words: str) -> tuple[int, dict[str, object]]:
        asked = ["load", f"127.0.0.1:{port}", "--read", "f-0", "--rate", "200/s", "--json", *words]
        done = subprocess.run([sys.executable, "-m", "tftpbench", *asked], capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout)

    with served(tmp_path) as (_, port):
        code, found = load(port, "--arrivals", "poisson", "-d", "500ms")
    assert (code, found["rate_per_s"], found["arrivals"], found["concurrency"]) == (0, 200.0, "poisson", 10_000)
    assert found["completed"] == found["intended"]
    assert found["response_ns_p99_is_never"] is False
    with peer(lambda *_: None) as silent:
        code, found = load(silent.port, "-n", "20", "--deadline", "200ms", "--in-flight-max", "5")
    assert (code, found["late"], found["shed"], found["intended"]) == (3, 5, 15, 20)
    assert (found["response_ns_p50"], found["response_ns_p50_is_never"]) == (None, True)
