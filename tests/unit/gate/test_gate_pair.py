"""A pair, slice by slice, with a load that exists only here: which arm is stopped when, and what is made of it."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tftpbench.gate import pair
from tftpbench.gate.pair import ArmFailed, Work
from tftpbench.gate.pair_figures import SEVERE
from tftpbench.gate.pilot import SLOW_FACTOR, work
from tftpbench.gate.result import BASE, HEAD
from tftpbench.host.generator import LoadConfig, LoadResult
from tftpbench.host.server import EdgeReader, Samples, Usage
from tftpbench.measure import Tools
from tftpbench.model.scenario import Scenario
from tftpbench.model.scenario_files import load_scenario

MS = 1_000_000
WORK = Work(transfers=100, slices=20, slice_ns=100 * MS, slow_factor=3.0)
BLOCKS = 129 * WORK.transfers
PORTS = {BASE: 1, HEAD: 2}


@dataclass
class World:
    """Two servers: `times_ns` is what a slice takes each; `stuck`: whose transfers stop in the middle of each slice."""

    times_ns: dict[int, float]
    stuck: set[int] = field(default_factory=set)
    silent: set[int] = field(default_factory=set)
    loads: list[LoadConfig] = field(default_factory=list)
    on_load: Callable[[LoadConfig], object] = lambda _: None

    def run(self, config: LoadConfig, _stop: object, *_: object) -> LoadResult:
        self.on_load(config)
        self.loads.append(config)
        needed_ns = self.times_ns[config.port]
        is_stuck = config.port in self.stuck
        is_stopped = needed_ns > config.limit_ns or is_stuck or config.port in self.silent
        moved = 0 if config.port in self.silent else BLOCKS
        if is_stopped and moved:
            moved = BLOCKS // 2 if is_stuck else round(BLOCKS * config.limit_ns / needed_ns)
        rows = config.limit_ns // (100 * MS) + 1 if is_stopped else 1
        blocks = np.zeros(rows, dtype=np.int64)
        blocks[: 1 if is_stuck else rows] = moved // (1 if is_stuck else rows)
        ended = 10 if is_stopped else 0
        timed_out = ended if config.port in self.silent or is_stuck else 0
        figures: dict[str, int | float | None] = {
            "started": 100, "completed": 100 - ended if moved else 0, "failed": 0,
            "timed_out": timed_out, "interrupted": ended - timed_out, "blocks_to_window_end": int(blocks.sum()),
            "duration_s": (config.limit_ns if is_stopped else needed_ns) / 1e9, "data_pps": 1e5,
            "goodput_bytes_per_s": 1e7,
        }  # fmt: skip
        transfers = {"end_ns": np.array([config.limit_ns if is_stopped else round(needed_ns)])}
        return LoadResult(figures, transfers, {"blocks": blocks, "bytes": blocks * 512}, "", ())


def arms(timeout_ns: int) -> dict[str, Any]:
    """Both arms as `block` has them while a pair lasts."""
    [cell] = load_scenario("gate").cells()
    made = {}
    for name, port in PORTS.items():
        config = LoadConfig(
            host="127.0.0.1", port=port, operation="read", name="f", file_size_bytes=65536, concurrency=100,
            timeout_ns=timeout_ns,
        )  # fmt: skip
        server = SimpleNamespace(
            edges=lambda window, _: EdgeReader(lambda: Usage(0, 0), window), check_alive=lambda: None
        )
        sampler = SimpleNamespace(samples=Samples(rss_bytes_max=1, processes_max=1))
        trial = SimpleNamespace(cell=cell)
        made[name] = pair._Loaded(trial, server, sampler, config, Path(), SimpleNamespace())  # type: ignore[arg-type]
    return made


def pair_of(world: World, timeout_ns: int = 100 * MS) -> tuple[int, dict[str, dict[str, float | None]]]:
    """How many slices counted, and the figures of both."""
    bench: Any = SimpleNamespace(pinning=SimpleNamespace(server=(1,), generator=(0,), spare=()), tools=Tools(world))
    loaded = arms(timeout_ns)
    order = random.Random(1).sample(list(loaded), 2)
    done = pair._take_turns(order, loaded, WORK, bench)
    return done, {name: pair._figures(arm, pair._counted(loaded)) for name, arm in loaded.items()}


def test_equal_arms_do_all_their_work_and_neither_is_stopped() -> None:
    done, found = pair_of(World({1: 100 * MS, 2: 104 * MS}))
    assert done == WORK.slices
    assert [found[arm]["slices_stopped"] for arm in (BASE, HEAD)] == [0, 0]
    assert found[BASE]["started"] == found[HEAD]["started"] == 100 * WORK.slices


@pytest.mark.parametrize("slow", [6, 20, 1000])
def test_an_arm_that_is_slower_by_far_is_stopped_and_what_it_moved_by_then_is_its_figure(slow: int) -> None:
    world = World({1: 100 * MS, 2: 100 * MS * slow})
    done, found = pair_of(world)
    assert done < WORK.slices
    assert (found[BASE]["slices_stopped"], found[HEAD]["slices_stopped"]) == (0, 1)
    base, head = (found[arm]["data_pps"] or 0 for arm in (BASE, HEAD))
    assert base / head == pytest.approx(slow, rel=0.1)
    assert found[HEAD]["lost"] == 0, "it is slow, and loses nothing"


@pytest.mark.parametrize("slow", [3.5, 6, 20, 1000])
def test_a_pair_takes_no_longer_however_slow_an_arm_is(slow: float) -> None:
    world = World({1: 100 * MS, 2: 100 * MS * slow})
    pair_of(world)
    waited_ns = sum(min(world.times_ns[config.port], config.limit_ns) for config in world.loads)
    assert waited_ns <= (WORK.slices + 1) * 100 * MS * (1 + WORK.slow_factor) + 2 * 200 * MS


def test_the_rule_is_the_same_for_both_arms() -> None:
    """Whoever is the slow one: base and head exchanged give exactly the opposite."""
    there, back = pair_of(World({1: 100 * MS, 2: 600 * MS})), pair_of(World({1: 600 * MS, 2: 100 * MS}))
    assert there[0] == back[0]
    assert (there[1][BASE], there[1][HEAD]) == (back[1][HEAD], back[1][BASE])


def test_both_arms_slow_alike_are_as_fast_as_each_other() -> None:
    _, found = pair_of(World({1: 600 * MS, 2: 600 * MS}))
    base, head = (found[arm]["data_pps"] or 0 for arm in (BASE, HEAD))
    assert 1 / SEVERE < base / head < SEVERE


def test_a_datagram_that_was_lost_stops_no_arm() -> None:
    """A slice that waits for a timeout or two, once: the arm's time is that of all its slices."""
    world = World({1: 100 * MS, 2: 100 * MS})
    times = iter([100 * MS] * 5 + [2000 * MS] + [100 * MS] * 50)

    def once_late(config: LoadConfig) -> None:
        if config.port == PORTS[HEAD]:
            world.times_ns[config.port] = next(times)

    world.on_load = once_late
    done, found = pair_of(world, timeout_ns=1000 * MS)
    assert (done, found[HEAD]["slices_stopped"]) == (WORK.slices, 0)


def test_transfers_that_are_stuck_when_their_time_is_up_are_lost() -> None:
    done, found = pair_of(World({1: 100 * MS, 2: 100 * MS}, stuck={PORTS[HEAD]}))
    assert done == 1
    assert (found[BASE]["lost"], found[HEAD]["lost"]) == (0, 10)


def test_an_arm_that_moves_nothing_is_asked_again_and_longer_before_it_is_called_silent() -> None:
    world = World({1: 100 * MS, 2: 100 * MS}, silent={PORTS[HEAD]})
    with pytest.raises(ArmFailed, match="head: completed none of 100 transfers"):
        pair_of(world)
    limits = [config.limit_ns for config in world.loads if config.port == PORTS[HEAD]]
    assert limits == [500 * MS, pair.SILENT_NS]


def test_an_arm_that_the_machine_kept_waiting_once_goes_on() -> None:
    world = World({1: 100 * MS, 2: 100 * MS}, silent={PORTS[HEAD]})

    def once_silent(config: LoadConfig) -> None:
        if config.limit_ns == pair.SILENT_NS:
            world.silent.clear()

    world.on_load = once_silent
    assert pair_of(world)[0] == WORK.slices


def test_transfers_that_time_out_by_themselves_stop_no_arm() -> None:
    result = LoadResult({"timed_out": 3, "interrupted": 0}, {"end_ns": np.array([10, 499 * MS])}, {}, "", ())
    assert not pair._is_stopped(result, 500 * MS)
    assert pair._is_stopped(result, 499 * MS)


@pytest.mark.parametrize(("budget", "factor"), [("5%", SLOW_FACTOR / 0.95), ("90%", 10 * SLOW_FACTOR), ("off", 3.0)])
def test_no_arm_is_stopped_for_a_loss_that_its_budget_allows(budget: str, factor: float) -> None:
    asked: Scenario = load_scenario("gate", [f"gate.budgets.data_pps={budget}"])
    [cell] = asked.cells()
    found = work(cell, asked.gate, transfer_s=0.001)
    assert found.slow_factor == pytest.approx(factor)
    assert found.slice_ns == pytest.approx(1e6 * found.transfers)
