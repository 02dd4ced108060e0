"""Loads on servers that others may depend on: they come step by step, end by rule, and move no more than allowed."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.loopback.peer import RRQ, Address, Peer, contents, error, opcode, peer, serve_bytes
from tests.unit.builders import scenario
from tftpbench.host.brake import RAMP_NS, Limits, approach, braked, is_elsewhere, plan_text
from tftpbench.host.generator import LoadConfig, LoadResult, Stop, run_load, write_contents
from tftpbench.host.pinning import Pinning
from tftpbench.host.roots import Roots
from tftpbench.measure.files import TargetFiles
from tftpbench.measure.plan import Trial, contenders
from tftpbench.measure.session import Bench, Tools, approach_once, load_config, server_of
from tftpbench.model.boot import Share, Step
from tftpbench.model.workload import Piece

SECOND = 1_000_000_000
BYTES = 2_000


def config(port: int, **changes: object) -> LoadConfig:
    values: dict[str, object] = {
        "host": "127.0.0.1", "port": port, "operation": "read", "name": "f", "file_size_bytes": BYTES, "verify": "off",
        "concurrency": 200, "duration_ns": SECOND, "sockets": "per-transfer",
    }  # fmt: skip
    return LoadConfig(**(values | changes))  # type: ignore[arg-type]  # values are checked by the native side


def requests(server: Peer) -> int:
    return sum(opcode(datagram) == RRQ for datagram in server.received)


def test_a_load_begins_with_one_transfer_then_ten_then_a_ramp() -> None:
    steps: list[tuple[int | None, int, int]] = []

    def run(step: LoadConfig) -> LoadResult:
        steps.append((step.transfers, step.concurrency, step.ramp_ns))
        return run_load(replace(step, ramp_ns=0))

    with peer(serve_bytes(contents(BYTES))) as server:
        assert approach(config(server.port), run) is None
        assert steps == [(1, 1, 0), (10, 10, 0), (100, 100, RAMP_NS)]
        steps.clear()
        assert approach(config(server.port, concurrency=50), run) is None
        assert steps[-1] == (50, 50, RAMP_NS)
        steps.clear()
        assert approach(config(server.port, transfers=5, duration_ns=None), run) is None
        assert steps == [(1, 1, 0)], "fewer than ten are no step less than the load itself"


@pytest.mark.parametrize(("served", "asked"), [(0, 1), (1, 11)])
def test_no_more_is_sent_once_a_step_has_failed(served: int, asked: int) -> None:
    answer, answered = serve_bytes(contents(BYTES)), 0

    def some(self: Peer, datagram: bytes, address: Address) -> None:
        nonlocal answered
        if opcode(datagram) == RRQ:
            answered += 1
        if answered <= served:
            answer(self, datagram, address)
        elif opcode(datagram) == RRQ:
            self.send(error(1), address)

    with peer(some) as server:
        held = approach(config(server.port), run_load)
    assert held is not None
    assert held.config.transfers == asked - served
    assert held.why.startswith("0 of 1")
    assert requests(server) == asked


def test_a_load_whose_transfers_fail_ends_after_three_seconds() -> None:
    def refuse(self: Peer, datagram: bytes, address: Address) -> None:
        if opcode(datagram) == RRQ:
            self.send(error(2), address)

    with peer(refuse) as server:
        result = run_load(config(server.port, duration_ns=60 * SECOND, concurrency=2, stops_when_failing=True))
    assert result.stopped == "failing"
    assert 3 < (result.figures["duration_s"] or 0) < 40, "of a window of 60 s"
    assert result.figures["started"] == sum(
        result.figures[name] or 0 for name in ("completed", "failed", "timed_out", "interrupted", "late")
    )


def test_requests_that_no_server_answers_brake_no_boots_as_long_as_the_machines_come_up() -> None:
    """Three of four requests are for absent files, and time out: for transfers that would be a reason to stop."""
    answer = serve_bytes(contents(BYTES))
    read = Step("read", "f", (), BYTES, 0, "whole", 0, 0, "", 0, (SECOND,), (SECOND,), "give_up", 0, "gap")
    miss = replace(read, name="absent", size_bytes=None, file=-1, ends="missing", waits_ns=(SECOND // 100,))

    def serve(self: Peer, datagram: bytes, address: Address) -> None:
        if b"absent" not in datagram:
            answer(self, datagram, address)

    def load(*steps: Step, machines: int) -> LoadResult:
        boots = (Share("made-up", 1, steps),)
        asked = config(server.port, boots=boots, transfers=machines, duration_ns=None, rate_per_s=100)
        return run_load(replace(asked, stops_when_failing=True))

    with peer(serve) as server:
        fine = load(miss, miss, miss, read, machines=450)
        lost = load(miss, replace(read, name="absent", waits_ns=(SECOND // 100,)), machines=6_000)
    assert (fine.stopped, fine.figures["booted"], fine.figures["misses_unanswered"]) == (None, 450, 1350)
    assert lost.stopped == "failing"
    assert 300 < (lost.figures["boots_failed"] or 0) < 4_000


def test_a_load_ends_when_nothing_listens_any_more() -> None:
    answer, enough = serve_bytes(contents(BYTES)), threading.Event()

    def serve(self: Peer, datagram: bytes, address: Address) -> None:
        answer(self, datagram, address)
        if requests(self) >= 20:
            enough.set()

    def close() -> None:
        enough.wait()
        server.close()

    with peer(serve) as server:
        loaded = config(server.port, duration_ns=60 * SECOND, concurrency=5, timeout_ns=SECOND // 5, retries=200)
        closing = threading.Thread(target=close)
        closing.start()
        result = run_load(replace(loaded, stops_when_failing=True))
        closing.join()
    assert result.stopped == "unreachable"
    assert (result.figures["completed"] or 0) >= 10
    assert (result.figures["duration_s"] or 0) < 40


@pytest.mark.parametrize("rate_per_s", [None, 500])
def test_no_transfer_starts_while_more_is_moved_than_allowed(rate_per_s: float | None) -> None:
    with peer(serve_bytes(contents(BYTES))) as server:
        loaded = config(server.port, concurrency=4, duration_ns=2 * SECOND, rate_per_s=rate_per_s, workers=2)
        result = run_load(replace(loaded, bytes_per_s_max=50_000))
    started, shed = (result.figures[name] or 0 for name in ("started", "shed"))
    # What is in flight when the limit is reached ends all the same: four files at the start, and one for each worker.
    assert 20 < started < 50_000 * 2 / BYTES + 8
    assert (shed > 500) is (rate_per_s is not None)


def test_only_what_leaves_the_machine_is_braked_and_it_is_said_before() -> None:
    assert [is_elsewhere(host) for host in ("127.0.0.9", "::1", "::ffff:127.0.0.1", "192.0.2.1", "2001:db8::1")] == [
        False, False, False, True, True,
    ]  # fmt: skip
    near, far = config(69), config(69, host="192.0.2.1", transfers=1_000, duration_ns=None)
    assert not braked(near, Limits()).stops_when_failing
    assert braked(far, Limits()).stops_when_failing
    assert not braked(far, Limits(stops=False)).stops_when_failing
    assert plan_text(braked(far, Limits(bytes_per_s_max=62_500_000))) == (
        "192.0.2.1 is another machine: first 1 transfer, then 10 transfers at once, then 100 transfers within 5 s; "
        "then 1000 transfers, 200 at once. It ends when more than half of the last 100 fail for 3 s. "
        "No more starts while more than 500 Mbit/s are moved."
    )


def test_what_a_storm_or_a_shape_is_in_all_is_said_before() -> None:
    far = braked(config(69, host="192.0.2.1", duration_ns=None), Limits(stops=False))
    hold = Piece("hold", (50, SECOND), (50, SECOND), 60 * SECOND)
    for changes, said in (
        ({"rate_per_s": 50.0, "duration_ns": SECOND}, "then 50/s, 200 at once at most for 1 s."),
        ({"over_ns": 10 * SECOND, "transfers": 1000}, "then 1000 transfers, 200 at once at most within 10 s."),
        ({"shape": (hold, Piece("burst", count=500))}, "then 3500 transfers, 200 at once at most within 1 min."),
    ):
        assert plan_text(replace(far, **changes)).endswith(said)


class Serving:
    """A generator that sends nothing, and says that all was done."""

    def __init__(self) -> None:
        self.asked: list[LoadConfig] = []

    def run(self, config: LoadConfig, *_: object) -> LoadResult:
        self.asked.append(config)
        number = config.transfers or 0
        rows = {"number": np.arange(number), "outcome": np.zeros(number, np.int64)}
        return LoadResult({"started": number, "completed": number}, rows, {}, "", ())


def test_in_a_run_no_load_is_larger_than_what_the_server_has_borne_and_uploads_are_loads_too(tmp_path: Path) -> None:
    question = scenario(
        servers=["tftp://192.0.2.1:69"],
        matrix={"operation": "read", "machines": [1, 200], "file_size": 1024},
        duration=None, rows="failed",
    )  # fmt: skip
    generator, [target] = Serving(), contenders(question)
    roots = Roots(tmp_path, 1, write_contents)
    bench = Bench(roots, TargetFiles(tmp_path), Pinning((0,), (0,), ()), 1, Tools(generator=generator))
    for number, cell in enumerate(question.cells(), start=1):
        trial = Trial(number, number, 1, cell, target)
        server = server_of(trial, bench, tmp_path, tmp_path / "log")
        approach_once(load_config(trial, bench, server, Stop()), bench, Stop())
    files = question.cells()[0].distinct_files
    assert [(each.operation, each.transfers, each.concurrency) for each in generator.asked] == [
        ("write", 1, 1), ("write", files, 1), ("read", 10, 10), ("read", 100, 100),
    ]  # fmt: skip
    assert generator.asked[0].name != generator.asked[1].name, "some servers take no file twice"
    assert all(each.stops_when_failing for each in generator.asked)
    assert not generator.asked[1].is_open_loop
    assert generator.asked[1].rows == "all"
