"""The machine: its facts, the cores of each side, its ceiling, and the edges of a window; nothing is generated here."""

import itertools
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import tftpbench
from tftpbench import _core
from tftpbench.host import machine
from tftpbench.host.ceiling import (  # fmt: skip
    Arrangement,
    Ceiling,
    CeilingCell,
    CeilingNetwork,
    Effort,
    calibrate,
    candidates,
    limits,
    measure,
    usual_cells,
)
from tftpbench.host.headroom import BUSY_MIN, Full, Loaded, full
from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.host.pinning import pin, placement
from tftpbench.host.server import EdgeReader
from tftpbench.host.server.usage import Usage
from tftpbench.model.errors import CeilingError
from tftpbench.model.workload import Placement


def fake_root(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def test_facts_are_plain_values_that_hold_for_any_linux() -> None:
    facts = machine.facts()
    assert set(machine.HOST_KEY_FACTS) <= set(facts)
    assert isinstance(facts["cpus"], int)
    assert facts["cpus"] >= 1
    assert isinstance(facts["memory_bytes"], int)
    assert all(value is None or isinstance(value, (str, int, float)) for value in facts.values())


def test_nothing_known_is_no_error(tmp_path: Path) -> None:
    facts = machine.facts(tmp_path)
    assert (facts["cpu_model"], facts["memory_bytes"], facts["rmem_max"], facts["virtualisation"]) == (None,) * 4


def test_files_of_the_kernel_are_understood(tmp_path: Path) -> None:
    root = fake_root(
        tmp_path,
        proc__cpuinfo="processor\t: 0\nmodel name\t: Fast CPU\ncpu MHz\t\t: 2596.1\nflags\t\t: fpu hypervisor lm\n",
        proc__meminfo="MemTotal:       16384000 kB\n",
        proc__sys__net__core__rmem_max="212992\n",
        sys__class__dmi__id__sys_vendor="ACME\n",
        sys__class__net__lo__mtu="65536\n",
        sys__fs__cgroup__cpu_max="",
    )
    (root / "sys/fs/cgroup/cpu.max").write_text("150000 100000\n")
    facts = machine.facts(root)
    assert facts["cpu_model"] == "Fast CPU"
    assert facts["cpu_mhz"] == 2596.1
    assert facts["memory_gib"] == 16
    assert facts["rmem_max"] == 212_992
    assert facts["loopback_mtu"] == 65_536
    assert facts["cpu_quota"] == 1.5
    assert facts["virtualisation"] == "virtual machine (ACME)"


def test_a_build_is_versions_profile_and_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    core = SimpleNamespace(VERSION="9.9.9", BUILD_PROFILE="debug")
    monkeypatch.setattr(tftpbench, "_core", core, raising=False)
    build = machine.build()
    assert (build["core"], build["build_profile"]) == ("9.9.9", "debug")
    assert set(build) == {"tftpbench", "core", "build_profile", "git_commit", "git_dirty"}


def test_the_host_key_is_of_lasting_facts_alone() -> None:
    facts = machine.facts()
    key = machine.host_key(facts)
    assert re.fullmatch("[0-9a-f]{16}", key)
    passing = {"hostname": "other", "cpu_mhz": 1.0, "load_1min": 99.0, "kernel": "0.0", "memory_bytes": 1}
    assert machine.host_key({**facts, **passing}) == key
    for name in machine.HOST_KEY_FACTS:
        assert machine.host_key({**facts, name: "other"}) != key


@pytest.mark.parametrize(
    ("server", "generator", "allowed", "expected", "phrase"),
    [
        (1, 1, [0, 1], ((1,), (0,), ()), "on separate cores"),
        (1, 1, [0, 1, 2, 3], ((3,), (0,), (1, 2)), "on separate cores"),
        (2, 1, [4, 5, 6, 9], ((6, 9), (4,), (5,)), "on separate cores"),
        (1, 1, [5], ((5,), (5,), ()), "on one core"),
        (2, 1, [0, 1], ((0, 1), (0, 1), ()), "on the same 2 cores"),
        ("all", "all", [0, 1, 2], ((0, 1, 2), (0, 1, 2), ()), "on the same 3 cores"),
        ("all", 1, [0, 1, 2], ((0, 1, 2), (0,), ()), "on the same 3 cores"),
        (1, "all", [0, 1], ((1,), (0, 1), ()), "on the same 2 cores"),
        ("all", "all", [0], ((0,), (0,), ()), "on one core"),
    ],
)
def test_server_and_generator_get_cores_of_their_own_where_there_are_enough(
    server: object, generator: object, allowed: list[int], expected: tuple[object, ...], phrase: str
) -> None:
    placement = Placement.model_validate({"server_cpus": server, "generator_cpus": generator})
    pinning = pin(placement, allowed)
    assert (pinning.server, pinning.generator, pinning.spare) == expected
    assert pinning.phrase == phrase
    assert pinning.separate is (phrase == "on separate cores")


@pytest.mark.parametrize(
    ("server", "expected", "phrase"),
    [
        (1, ((3,), (), (0, 1, 2)), "the server on 1 core"),
        ("all", ((0, 1, 2, 3), (), ()), "the server on 4 cores"),
        (9, ((0, 1, 2, 3), (), ()), "the server on 4 cores"),
    ],
)
def test_a_load_from_hosts_takes_no_core_here(server: object, expected: tuple[object, ...], phrase: str) -> None:
    pinning = pin(Placement.model_validate({"server_cpus": server}), [0, 1, 2, 3], from_hosts=True)
    assert (pinning.server, pinning.generator, pinning.spare) == expected
    assert (pinning.phrase, pinning.separate) == (phrase, True)


@pytest.mark.parametrize(
    ("running", "servers", "hosts", "said"),
    [
        ([], 2, 0, "on one core"),
        (["a:69"], 2, 0, "on one core, a:69 not pinned to cores"),
        (["a:69"], 1, 0, "a:69 not pinned to cores"),
        (["a:69"], 1, 3, "a:69 not pinned to cores, loaded from 3 hosts"),
        ([], 1, 1, "on one core, loaded from 1 host"),
    ],
)
def test_where_it_is_measured_is_said_with_its_load_hosts(
    running: list[str], servers: int, hosts: int, said: str
) -> None:
    assert placement("on one core", running, servers, hosts) == said


def test_the_cores_of_this_machine_are_used_unless_told() -> None:
    assert pin(Placement()).server


SHAPES = [
    CeilingCell(operation=operation, flows=flows, windowsize=windowsize)
    for operation in ("read", "write")
    for flows in (1, 3, 10, 100, 1000, 10_000)
    for windowsize in (1, 2, 64)
]
EFFORT = Effort()
CELL = CeilingCell(operation="read", flows=10)


class Machine:
    """A machine on which each arrangement has a rate of its own."""

    def __init__(self, rate: Callable[[Arrangement], float], restarts: int = 0) -> None:
        self.rate, self.restarts = rate, restarts
        self.asked: list[tuple[CeilingCell, Arrangement]] = []

    def __call__(self, cell: CeilingCell, arrangement: Arrangement, **_: object) -> Ceiling:
        self.asked.append((cell, arrangement))
        return Ceiling(self.rate(arrangement), arrangement, self.restarts)


@pytest.mark.parametrize("cell", SHAPES, ids=str)
def test_candidates_are_few_and_different_and_never_more_sockets_than_flows(cell: CeilingCell) -> None:
    found = candidates(cell)
    assert 4 <= len(found) <= 10
    assert len(set(found)) == len(found)
    assert all(each.shared_sockets <= cell.flows and each.answering_sockets <= cell.flows for each in found)
    assert all(each.pairs == 1 for each in found)


NETWORK = CeilingNetwork(
    requests_fd=0, server="10.255.255.1", machines="10.128.0.0/10", ring_interface=2, ring_machines="10.0.0.0/9"
)


@pytest.mark.parametrize("cell", SHAPES, ids=str)
def test_in_a_network_each_way_to_answer_is_tried_with_a_ring_before_it_where_frames_carry_the_cell(
    cell: CeilingCell,
) -> None:
    over_loopback, found = candidates(cell), candidates(replace(cell, network=NETWORK))
    on_rings = [each for each in found if each.ring]
    assert [each for each in found if not each.ring] == list(over_loopback), "sockets are tried there, too"
    assert (len(on_rings) >= 3) == (cell.windowsize == 1)
    assert len(set(found)) == len(found)
    assert not any(each.shared_sockets or each.is_connected for each in on_rings)
    ways = {(each.answering_sockets, each.waits_in_receive) for each in over_loopback if each.batch > 1}
    assert not on_rings or {(each.answering_sockets, each.waits_in_receive) for each in on_rings} == ways


@pytest.mark.parametrize(
    "changes", [{"blksize": 1500}, {"network": None}, {"network": replace(NETWORK, ring_interface=0)}]
)
def test_no_ring_is_tried_where_there_is_none_or_no_frame_is_long_enough(changes: dict[str, object]) -> None:
    cell = replace(CELL, network=NETWORK)
    assert any(each.ring for each in candidates(cell))
    assert not any(each.ring for each in candidates(replace(cell, **changes)))  # type: ignore[arg-type]


def test_an_arrangement_is_read_back_from_what_is_recorded_and_older_records_know_no_ring() -> None:
    for each in candidates(replace(CELL, network=NETWORK)):
        assert Arrangement.of(each.recorded) == each
        assert ("ring" in each.recorded) == each.ring
        assert str(each).startswith("a packet ring, ") == each.ring


def loaded(data_pps: float, busy: float = 1.0, null: float = 0.5, *, is_whole: bool = True) -> Loaded:
    return Loaded(data_pps, busy, null, is_whole)


@pytest.mark.parametrize(("loads", "due"), [
    ([loaded(3.0), loaded(1.0), loaded(2.0)], Full(2.0)),
    ([loaded(3.0), loaded(9.0, BUSY_MIN - 0.01), loaded(2.0)], Full(2.5)),
    ([loaded(9.0, is_whole=False), loaded(2.0)], Full(2.0)),
    ([loaded(0.0), loaded(2.0)], Full(2.0)),
])  # fmt: skip
def test_the_rate_of_a_full_generator_is_the_median_of_the_loads_that_it_was_full_in(
    loads: list[Loaded], due: Full
) -> None:
    assert full(loads) == due


def test_a_generator_that_was_never_full_has_no_rate_and_a_reason() -> None:
    busy = "busy 80%, that server 99%"
    reason = f"the generator was not full before a null server ({busy}): that or this machine was the limit"
    assert full([loaded(5.0, 0.7, 0.9), loaded(5.0, 0.8, 0.99)]) == Full(None, reason)
    assert full([loaded(5.0, is_whole=False)]) == Full(None, "transfers from the null server failed")


def test_more_cores_offer_pairs_side_by_side_that_share_the_flows() -> None:
    cell = CeilingCell(operation="read", flows=10, answering_cpus=(2, 3), asking_cpus=(0, 1))
    assert {each.pairs for each in candidates(cell)} == {1, 2}
    assert max(each.answering_sockets for each in candidates(cell) if each.pairs == 2) == 5
    alone = CeilingCell(operation="read", flows=1, answering_cpus=(2, 3), asking_cpus=(0, 1))
    assert {each.pairs for each in candidates(alone)} == {1}


def test_the_fastest_candidate_is_chosen_whatever_the_order() -> None:
    for best, seed in itertools.product(candidates(CELL), (1, 2)):
        machine = Machine(lambda each, best=best: 300_000 if each == best else 280_000)  # type: ignore[misc]
        assert calibrate(CELL, effort=EFFORT, seed=seed, measured=machine) == best


def test_those_far_behind_are_measured_once_and_the_others_in_interleaved_rounds() -> None:
    best, near, *others = candidates(CELL)
    rates = {best: 100.0, near: 90.0}
    machine = Machine(lambda each: rates.get(each, 10.0))
    assert calibrate(CELL, effort=EFFORT, seed=3, measured=machine) == best
    asked = [arrangement for _, arrangement in machine.asked]
    assert Counter(asked) == {best: 3, near: 3} | dict.fromkeys(others, 1)
    assert set(asked[-4:-2]) == set(asked[-2:]) == {best, near}


def test_one_lucky_run_does_not_decide() -> None:
    lucky, steady, *_ = candidates(CELL)
    runs = {lucky: iter([900.0, 700.0, 700.0]), steady: iter([750.0, 750.0, 750.0])}
    chosen = calibrate(CELL, effort=EFFORT, measured=Machine(lambda each: next(runs[each]) if each in runs else 1.0))
    assert chosen == steady


def test_a_rate_that_was_reached_while_flows_lay_silent_counts_less() -> None:
    overrun, sound, *_ = candidates(CELL)

    def measured(_cell: CeilingCell, arrangement: Arrangement, **_: object) -> Ceiling:
        rate = {overrun: 110.0, sound: 100.0}.get(arrangement, 1.0)
        return Ceiling(rate, arrangement, 5 if arrangement == overrun else 0)

    assert calibrate(CELL, effort=EFFORT, measured=measured) == sound


def test_an_arrangement_that_cannot_run_here_is_left_out_and_none_at_all_is_an_error() -> None:
    first, *others = candidates(CELL)

    def refused(_cell: CeilingCell, arrangement: Arrangement, **_: object) -> Ceiling:
        if arrangement == first:
            raise CeilingError("20128 open files are needed")
        return Ceiling(1.0, arrangement, 0)

    assert calibrate(CELL, effort=EFFORT, measured=refused) in others

    def never(*_: object, **__: object) -> Ceiling:
        raise CeilingError("20128 open files are needed")

    with pytest.raises(CeilingError, match="open files"):
        calibrate(CELL, effort=EFFORT, measured=never)


def test_a_survey_measures_every_cell_in_every_round_and_shares_no_run_with_the_calibration() -> None:
    cells = usual_cells((1,), (0,), 1000, may_spin=True)
    noise, steps = random.Random(5), list[tuple[int, int]]()
    machine = Machine(lambda _: 100 + noise.random())
    found = limits(
        cells,
        trials=4,
        effort=EFFORT,
        seed=1,
        measured=machine,
        on_step=lambda done, total: steps.append((done, total)),
    )
    rounds = [cell for cell, _ in machine.asked][-4 * len(cells) :]
    each_round = [rounds[start : start + len(cells)] for start in range(0, len(rounds), len(cells))]
    assert all(set(one) == set(cells) and len(one) == len(cells) for one in each_round)
    assert len({tuple(one) for one in each_round}) > 1, "in random order"
    assert [each.cell for each in found] == list(cells)
    assert all(len(each.trials) == 4 and each.lowest <= each.data_pps <= each.highest for each in found)
    assert steps == [(done, 5 * len(cells)) for done in range(1, 5 * len(cells) + 1)]


def test_without_cores_of_their_own_no_side_is_seen_without_sleeping() -> None:
    assert any(cell.answering_spin_us for cell in usual_cells((1,), (0,), 1000, may_spin=True))
    assert not any(cell.answering_spin_us for cell in usual_cells((0,), (0,), 0, may_spin=False))


def test_arrangements_are_told_in_words() -> None:
    shared = Arrangement(1, 1, 64, waits_in_receive=True)
    assert str(shared) == "1 shared socket, 1 answering socket, batches of 64, waiting in the receiving call"
    own = Arrangement(0, 5, 1, waits_in_receive=False, pairs=2, is_connected=True)
    assert (
        str(own)
        == "a socket a flow, 5 answering sockets, one message a call, waiting in epoll, connected, 2 pairs of threads"
    )


def test_what_the_probe_refuses_is_one_line() -> None:
    with pytest.raises(CeilingError, match=r"^the ceiling can't be measured: flows: must be between 1 and 65536$"):
        measure(
            CeilingCell(operation="read", flows=0),
            Arrangement(1, 1, 1, waits_in_receive=False),
            warm_up_ns=1,
            window_ns=1,
        )


def test_a_stop_before_the_end_is_told_of() -> None:
    stop = _core.Stop()
    stop.request()
    with pytest.raises(CeilingError, match="stopped"):
        measure(CELL, candidates(CELL)[0], stop=stop, warm_up_ns=0, window_ns=10**9)


MS = 1_000_000


class Counted:
    """A server's CPU time: 1, 2, ... at each reading, and when it was read."""

    def __init__(self, at_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.readings = 0
        self.was_read = threading.Semaphore(0)
        self.at_ns = at_ns

    def __call__(self) -> Usage:
        self.readings += 1
        self.was_read.release()
        return Usage(self.at_ns(), self.readings)

    def wait(self) -> None:
        assert self.was_read.acquire(timeout=20), "never read"


def test_a_window_of_a_duration_is_read_at_both_edges_though_the_generator_says_no_more() -> None:
    window, counted = MeasuredWindow(), Counted()
    with EdgeReader(counted, window) as edges:
        open_ns = time.monotonic_ns() + 30 * MS
        window.announce(open_ns, open_ns + 40 * MS)
        counted.wait()
        counted.wait()
    assert (edges.opened.cpu_ns, edges.closed.cpu_ns) == (1, 2)
    assert edges.opened.at_ns >= open_ns
    assert edges.closed.at_ns >= open_ns + 40 * MS


def test_the_end_of_fixed_work_is_read_when_it_is_over_and_not_before() -> None:
    window, counted = MeasuredWindow(), Counted()
    with EdgeReader(counted, window) as edges:
        window.announce(time.monotonic_ns(), None)
        counted.wait()
        assert not counted.was_read.acquire(timeout=0.05)
        window.close(time.monotonic_ns())
        counted.wait()
    assert edges.late_ns(window.edges_ns) < 20_000 * MS


@pytest.mark.parametrize("announced", [None, (60_000 * MS, 120_000 * MS), (-1 * MS, 60_000 * MS), (-1 * MS, None)])
def test_a_load_that_ends_early_is_read_at_its_end(announced: tuple[int, int | None] | None) -> None:
    """Stopped in the warm-up or in the window, or failed before it could announce one."""
    window, counted, now_ns = MeasuredWindow(), Counted(), time.monotonic_ns()
    with EdgeReader(counted, window) as edges:
        if announced is not None:
            opens, closes = announced
            window.announce(now_ns + opens, None if closes is None else now_ns + closes)
    assert (edges.opened.cpu_ns, edges.closed.cpu_ns) == (1, 2)
    opened_ns, closed_ns = window.edges_ns
    assert opened_ns <= closed_ns <= time.monotonic_ns()


def test_a_window_that_was_closed_late_closed_when_it_was_to() -> None:
    window = MeasuredWindow()
    window.announce(10, 20)
    window.close(30)
    window.close(15)
    assert window.edges_ns == (10, 20)


@pytest.mark.parametrize(("edges_ns", "late_ns"), [((10, 20), 85), ((100, 120), 0), ((90, 100), 5), ((105, 70), 35)])
def test_the_later_of_both_readings_says_how_late_they_were(edges_ns: tuple[int, int], late_ns: int) -> None:
    times = iter((95, 105))
    window = MeasuredWindow()
    with EdgeReader(Counted(lambda: next(times)), window) as edges:
        pass
    assert edges.late_ns(edges_ns) == late_ns


def test_an_exception_of_the_load_is_passed_on_and_leaves_no_thread() -> None:
    with pytest.raises(KeyboardInterrupt), EdgeReader(Counted(), MeasuredWindow()):
        raise KeyboardInterrupt
    assert "tftpbench-edges" not in {thread.name for thread in threading.enumerate()}
