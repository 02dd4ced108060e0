"""Searches for capacities in virtual time: a server of known capacity, noise, death, a budget's end, Ctrl-C."""

import itertools
import json
import math
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from MLRsearch import MeasurementResult
from MLRsearch.target_spec import TargetSpec
from MLRsearch.target_stat import TargetStat

from tests.unit.builders import contender, scenario
from tftpbench import plots
from tftpbench.analysis.capacity import compared, frame, sentence
from tftpbench.host.generator import LoadResult, LocalGenerator
from tftpbench.host.presence import Found
from tftpbench.host.target import Target
from tftpbench.measure import Bench, RunInterrupted, RunReport, Tools, Trial
from tftpbench.measure.capacity import Asked, Result, Search, recovered_s
from tftpbench.measure.capacity_trials import ServerTrials, found_of, seen_of, wait_until_quiet
from tftpbench.measure.findings import GIVEN_UP
from tftpbench.measure.plan import Contender, plan
from tftpbench.measure.rows import row_of
from tftpbench.measure.search import (
    Bounds,
    Measured,
    SearchEnded,
    Seen,
    classes,
    classify,
    relevant,
    search,
    second_opinion,
)
from tftpbench.measure.trial import Outcome, backlog_growth
from tftpbench.model.capacity import Bound, Capacity, Find, FoundCapacity, FoundLoad, Goal, documents, goal_of
from tftpbench.model.errors import HostsError, NotComparable, ScenarioError
from tftpbench.model.metrics import INTERVAL_COLUMNS, TRANSFER_COLUMNS
from tftpbench.model.workload import OpenLoop, Sought, Storm
from tftpbench.render import capacity as rendered
from tftpbench.render.schema import json_schema
from tftpbench.store.format import read_searches
from tftpbench.store.recording import run

ROOT = Path(__file__).parents[3]
RATE = 412.0
BOOT_S = 0.2
DEADLINE_NS = 30_000_000_000


@dataclass
class Machine:
    """A server that serves `rate` a second in turn, and holds `socket` requests; the clock goes on as it serves.

    `noise`: of its rate, from trial to trial. `held_up_s`: for how long it stands still at the end of a trial, by its
    number; where `says` it is in the trial's row. `waits`: for its core, as a share of the time, in small parts.
    """

    rate: float = RATE
    socket: float = math.inf
    noise: float = 0.0
    seed: int = 1
    dies_above: float = math.inf
    generator_max: float = math.inf
    interrupted_after: int = 10**9
    dead_after: int = 10**9
    stalls: set[int] = field(default_factory=set)
    held_up_s: Callable[[int], float] = lambda _: 0.0
    says: bool = True
    waits: float = 0.0
    now: float = 0.0
    asked: list[Asked] = field(default_factory=list)

    def now_s(self) -> float:
        return self.now

    def run(self, asked: Asked) -> Seen:
        self.asked.append(asked)
        number = len(self.asked)
        if number > self.interrupted_after:
            raise KeyboardInterrupt
        load = asked.arriving
        starts, lasts_s, per_s = self._starts(asked)
        rate = self.rate * (1 + random.Random(f"{self.seed} {number}").gauss(0, self.noise))
        backlog = max(0.0, (per_s - rate) * lasts_s) if lasts_s else float(starts)
        held_up_s = self.held_up_s(number)
        held_up_backlog = 2 * per_s * held_up_s if lasts_s else 0.0
        backlog += held_up_backlog
        took_s = max(lasts_s, starts / rate) + BOOT_S
        lost = max(0.0, starts - self.socket) if isinstance(load, Storm) and not lasts_s else 0.0
        lost = max(lost, min(starts, max(0.0, backlog - rate * load.deadline_ns / 1e9)))
        fault, reason = "", ""
        if number > self.dead_after:
            fault, reason = "dead target", "the server no longer answers"
        elif per_s > self.dies_above:
            fault, reason = "died", "the server died with SIGSEGV"
        elif per_s > self.generator_max:
            fault, reason = "generator", "starts were 40.0 ms after their time (p99)"
        elif number in self.stalls:
            fault, reason = "machine", "the generator stood still for 300 ms at once"
        elif took_s > asked.limit_s + 1e-6 and asked.limit_s < lasts_s + load.deadline_ns / 1e9 - 1e-6:
            fault, reason = "cut", "the budget ended it"
        self.now += min(took_s, asked.limit_s) + 0.4
        wait_ns = (backlog / rate + BOOT_S) * 1e9
        return Seen(
            number, asked.stage, asked.load, asked.duration_s, starts, math.ceil(lost),
            growth=0.0 if isinstance(load, Storm) or asked.stage == "recovery" else backlog, fault=fault,  # type: ignore[arg-type] # its words
            reason=reason, done_per_s=min(starts, starts - lost) / took_s, service_ns_p50=BOOT_S * 1e9,
            response_ns_p50=BOOT_S * 1e9, response_ns_p99=wait_ns, took_s=took_s,
            held_up_s=held_up_s + self.waits * lasts_s if self.says else 0.0, steady=backlog - held_up_backlog,
            starts_ns=np.arange(300, dtype=np.int64) * 10**8,
            ends_ns=np.arange(300, dtype=np.int64) * 10**8 + _waits(),
        )  # fmt: skip

    @staticmethod
    def _starts(asked: Asked) -> tuple[int, float, float]:
        load = asked.arriving
        if isinstance(load, Storm):
            over_s = load.over_ns / 1e9
            return load.machines, over_s, load.machines / over_s if over_s else math.inf
        return asked.starts or 0, asked.duration_s, asked.load


def _waits() -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Of an overload: slow for 3.5 s after it."""
    starts_s = np.arange(300) / 10
    return np.where((starts_s > 5) & (starts_s < 13.5), 3 * 10**9, 2 * 10**8).astype(np.int64)


def sought(find: Find = "rate", **changes: object) -> Sought:
    return Sought(find, Capacity.model_validate({"find": find, **changes}), DEADLINE_NS)


def done(machine: Machine, find: Find = "rate", **changes: object) -> Result:
    return Search(sought(find, **changes), machine, lambda load: f"{load:.0f}/s").run()


def document(result: Result) -> FoundCapacity:
    return found_of(
        result, unit="boots/s", server="epoll", cell_key="0" * 16, cell="machines of uefi", boot="uefi", round=1
    )


@pytest.mark.parametrize("rate", [7.3, 50.0, 412.0, 9_000.0])
def test_a_known_rate_lies_between_bounds_that_are_close(rate: float) -> None:
    result = done(Machine(rate))
    assert result.lower is not None
    assert result.upper is not None
    assert 0.98 * result.lower <= rate <= 1.02 * result.upper
    assert result.upper / result.lower <= 1.06
    assert result.is_regular
    assert result.is_confirmed
    assert not result.reasons


def test_a_search_finds_its_bounds_within_three_minutes_of_load() -> None:
    machine = Machine()
    result = done(machine)
    bounds = [seen for seen in result.trials if seen.stage in ("ramp", "bounds")]
    assert sum(seen.took_s for seen in bounds) < 180


@pytest.mark.parametrize("seed", range(10))
def test_noise_of_one_in_a_hundred_leaves_the_rate_near_the_bounds(seed: int) -> None:
    result = done(Machine(noise=0.01, seed=seed))
    assert result.lower is not None
    assert result.upper is not None
    assert 0.94 * result.lower <= RATE <= 1.06 * result.upper
    assert result.upper / result.lower <= 1.06


def test_a_deadline_alone_would_have_said_four_times_as_much() -> None:
    """At 1500 a second for 10 s the last one waits 26 s, and 30 s are allowed."""
    seen = Machine().run(_asked(1500.0))
    assert seen.lost == 0
    assert seen.missing > 0.7 * seen.intended


def test_one_straggler_is_no_backlog() -> None:
    assert Seen(1, "bounds", 100.0, 10.0, 1000, 0, growth=1.9).missing == 0
    assert Seen(1, "bounds", 100.0, 10.0, 1000, 0, growth=2.1).missing == 3


def test_every_stage_that_the_budget_has_no_room_for_is_named() -> None:
    result = done(Machine(), budget="3min")
    assert result.is_regular
    assert [stage for stage, _ in result.omitted] == ["confirmation"]
    assert "the budget has no more" in result.omitted[0].reason
    assert len(result.latencies) == 3


@pytest.mark.parametrize("find", ["rate", "machines", "spread"])
@pytest.mark.parametrize("rate", [20.0, RATE])
def test_a_budget_bounds_the_time_of_everything(find: Find, rate: float) -> None:
    for seconds in (10, 30, 60, 180, 600):
        machine = Machine(rate, socket=530)
        result = done(machine, find, budget=f"{seconds}s")
        assert machine.now <= seconds + 1
        assert result.took_s <= seconds + 1
        assert len(result.trials) == len(machine.asked)


def test_a_spent_budget_gives_an_irregular_result_with_what_was_found() -> None:
    result = done(Machine(rate=3.0), budget="40s")
    assert not result.is_regular
    assert result.reasons == ["the budget was spent"]
    assert document(result).exit_code == 6


def test_ctrl_c_keeps_every_trial_and_the_bounds_so_far() -> None:
    whole = done(Machine())
    at = next(place for place, seen in enumerate(whole.trials) if seen.stage == "confirmation")
    result = done(Machine(interrupted_after=at))
    assert (result.lower, result.upper) == (whole.lower, whole.upper)
    assert not result.is_regular
    assert result.is_interrupted
    assert len(result.trials) == at
    assert [stage for stage, _ in result.omitted] == ["confirmation", "latencies", "recovery"]
    early = done(Machine(interrupted_after=at - 4))
    assert early.reasons == ["interrupted"]
    assert early.classes
    assert document(early).exit_code == 130


def test_a_server_that_dies_in_the_ramp_is_searched_below_and_that_is_said() -> None:
    result = done(Machine(rate=500.0, dies_above=900.0))
    assert result.is_regular
    assert "died with SIGSEGV" in result.remarks[0]


def test_a_server_that_dies_at_its_limit_gives_an_irregular_result_with_bounds() -> None:
    result = done(Machine(rate=500.0, dies_above=300.0))
    assert result.lower is not None
    assert result.upper is not None
    assert result.lower <= 300 <= result.upper
    assert not result.is_regular
    assert "died with SIGSEGV" in result.reasons[0]


def test_a_target_that_no_longer_answers_ends_the_search_at_once() -> None:
    machine = Machine(dead_after=6)
    result = done(machine)
    assert len(machine.asked) == 7
    assert result.is_dead
    assert document(result).exit_code == 3


def test_the_generators_limit_makes_it_at_least_so_much() -> None:
    result = done(Machine(rate=50_000.0, generator_max=3000.0))
    assert result.upper is None
    assert result.lower is not None
    assert 1000 < result.lower <= 3000
    assert not result.is_regular
    assert result.limit is not None
    assert "more could not be offered" in result.reasons[0]


def test_a_stall_of_the_machine_is_repeated_and_no_limit() -> None:
    calm, stalled = done(Machine()), done(Machine(stalls={3, 5, 7, 9}))
    assert (stalled.lower, stalled.upper, stalled.is_regular) == (calm.lower, calm.upper, True)
    assert len(stalled.trials) == len(calm.trials) + 3
    assert stalled.limit is None


def test_a_machine_that_never_is_quiet_ends_the_search_and_says_so() -> None:
    result = done(Machine(stalls={*range(1, 1000)}))
    assert "too busy" in result.reasons[0]
    assert result.limit is None


def noisy(number: int) -> float:
    """150 ms in six of ten trials."""
    return 0.15 if number % 10 < 6 else 0.0


@pytest.mark.parametrize("rate", [100.0, RATE])
def test_what_the_machine_held_up_is_not_the_servers_loss(rate: float) -> None:
    found = done(Machine(rate, held_up_s=noisy), budget="1h")
    assert found.lower is not None
    assert found.upper is not None
    assert 0.98 * found.lower <= rate <= 1.02 * found.upper
    assert found.upper / found.lower <= 1.06
    assert found.is_regular
    assert any(seen.fault == "machine" and "held server or generator up" in seen.reason for seen in found.trials)
    wrong = done(Machine(rate, held_up_s=noisy, says=False), budget="1h")
    assert wrong.upper is not None
    assert wrong.upper * 1.02 < rate, "as a search would say that did not look"


def test_a_server_that_waits_for_its_core_now_and_then_is_still_found() -> None:
    found = done(Machine(40.0, waits=0.02))
    assert found.lower is not None
    assert found.upper is not None
    assert 0.98 * found.lower <= 40.0 <= 1.02 * found.upper
    assert found.is_regular
    assert not any(seen.fault for seen in found.trials)
    busier = done(Machine(40.0, waits=0.05))
    assert any(seen.fault == "machine" for seen in busier.trials)


def test_a_machine_that_holds_up_every_trial_gives_no_figure_but_a_reason() -> None:
    result = done(Machine(100.0, held_up_s=lambda _: 0.4), budget="5min")
    assert not result.is_regular
    (tried,) = re.findall(r"too busy for (\d+) trials in a row: this machine held server or", result.reasons[0])
    assert int(tried) >= 5
    assert 30 <= result.took_s < 60, "a tenth of the budget may make it better"


def test_a_loss_that_is_more_than_the_machine_explains_is_the_servers() -> None:
    machine = Machine(100.0, held_up_s=lambda _: 0.01)
    result = done(machine)
    assert result.is_regular
    assert any(seen.stage == "bounds" and seen.counts and seen.missing for seen in result.trials)
    assert not any(seen.fault for seen in result.trials if seen.load > 103)


@pytest.mark.parametrize(
    ("changes", "held_up_s"),
    [
        ({}, 0.0),
        ({"steal_fraction": 0.01}, 0.2),
        ({"throttled_ns": 3e8}, 0.3),
        ({"generator_gap_ns_sum": 4e7}, 0.04),
        ({"server_wait_ns": 5e8}, 0.5),
        ({"server_wait_ns": 5e8, "server_busy_fraction": 0.99}, 0.1),
        ({"server_wait_ns": 5e8, "generator_gap_ns_sum": 4e7, "generator_cpus": "0"}, 0.0),
        ({"server_wait_ns": 5e8, "server_cpus": None, "steal_fraction": 0.01}, 0.6),
        ({"server_wait_ns": None, "server_busy_fraction": None, "steal_fraction": None}, 0.0),
    ],
)
def test_a_row_says_for_how_long_the_machine_kept_a_side_from_running(
    changes: dict[str, object], held_up_s: float
) -> None:
    row = {"duration_s": 10.0, "server_cpus": "0", "generator_cpus": "1", "server_busy_fraction": 0.3, **changes}
    assert seen_of(row, _asked(10.0)).held_up_s == pytest.approx(held_up_s)


class Budgeted:
    """Trials of a target on a clock of their own; what was asked of each."""

    def __init__(self) -> None:
        self.now, self.done, self.quiet_s = 100.0, list[Trial](), list[float]()
        whole = plan(
            scenario(servers=["one"], matrix={"boot": "uefi"}, duration=None, capacity={}), (contender("one"),), 1
        )
        target = Target("192.0.2.1", 69, "boot.0")
        base = replace(whole.trials[0], contender=Contender(target, None, Found("", "")))
        self.trials = ServerTrials(base, self._do, [], itertools.count(1), self._quiet)
        self.trials.now_s = lambda: self.now  # type: ignore[method-assign] # a clock that stands still

    def _do(self, trial: Trial) -> Outcome:
        self.done.append(trial)
        return Outcome({"verdict": "valid"}, (), None, b"")

    def _quiet(self, most_s: float) -> None:
        self.quiet_s.append(most_s)
        self.now += 5


def test_a_trial_on_a_target_ends_with_the_budget_whatever_comes_before_it() -> None:
    world = Budgeted()
    for _ in range(2):
        world.trials.run(_asked(10.0)._replace(left_s=8.0, limit_s=8.0))
    assert [trial.ends_s for trial in world.done] == [108.0, 108.0]
    assert world.quiet_s == [8.0], "none before the first"
    assert [trial.cell.limit_ns for trial in world.done] == [8 * 10**9, 3 * 10**9]


def test_starts_that_the_budget_left_no_time_for_are_not_lost() -> None:
    row = {"trial": 1, "intended": 60, "completed": 60, "interrupted": 0, "verdict": "valid", "deadline_ns": 3e10}
    assert seen_of(row, _asked(10.0)._replace(limit_s=6.0)).fault == "cut"


def test_machines_at_once_are_those_that_the_socket_holds() -> None:
    result = done(Machine(socket=530), "machines")
    found = document(result)
    assert found.is_regular
    assert found.lower_machines is not None
    assert found.upper_machines is not None
    assert found.lower_machines <= 530 < found.upper_machines
    assert found.upper_machines / found.lower_machines <= 1.06
    assert "lower_per_s" not in found.document()


def test_more_machines_than_a_server_starts_for_are_no_bound() -> None:
    """As where a process may have too few open files."""

    class Limited(Machine):
        def run(self, asked: Asked) -> Seen:
            seen = super().run(asked)
            return seen if seen.load <= 9000 else replace(seen, fault="not started", reason="too few open files")

    found = document(done(Limited(), "machines"))
    assert found.upper_machines is None
    assert 4096 <= (found.lower_machines or 0) <= 9000
    assert found.generator_limit is not None
    assert not found.is_regular
    none = document(done(Limited(), "machines"))
    assert none.exit_code == 6


def test_a_spread_is_the_shortest_time_in_which_none_is_lost() -> None:
    class Spread(Machine):
        def run(self, asked: Asked) -> Seen:
            seen = super().run(asked)
            over_s = asked.arriving.over_ns / 1e9 if isinstance(asked.arriving, Storm) else 0
            lost = 0 if over_s >= 12 else 100
            return Seen(seen.trial, seen.stage, seen.load, 1.0, seen.intended, lost, done_per_s=60.0, took_s=13.0)

    found = document(done(Spread(), "spread"))
    assert found.is_regular
    assert found.lower_over_s is not None
    assert found.upper_over_s is not None
    assert found.lower_over_s <= 12 <= found.upper_over_s
    assert found.machines == 1000


def test_machines_that_need_no_time_to_start_in_end_a_spread_at_once() -> None:
    found = document(done(Machine(), "spread"))
    assert (found.lower_over_s, found.upper_over_s, found.is_regular) == (0.0, 0.0, True)


def test_strict_is_one_trial_of_sixty_seconds_without_a_loss() -> None:
    goal = goal_of(Capacity(strict=True), "rate")
    assert (goal.lost, goal.exceed, goal.trial_s, goal.sum_s) == (0.0, 0.0, 60.0, 60.0)


def test_a_slow_boot_makes_trials_longer() -> None:
    assert goal_of(Capacity(), "rate").trial_s == 10
    assert goal_of(Capacity(), "rate", boot_s=4.0).trial_s == 20
    assert goal_of(Capacity(), "rate", starts_s=30.0).short_s == 30


def test_two_classifiers_agree_on_every_load_of_a_thousand_searches() -> None:
    """The library's, and ours from RFC 9971 Appendix A: loads, bounds and what follows from them."""
    random_ = random.Random(1)
    loads = 0
    for number in range(1000):
        rate = math.exp(random_.uniform(1, 10))
        goal = Goal(
            lost=random_.choice([0.0, 0.001, 0.01]), width=random_.choice([0.02, 0.05, 0.2]),
            exceed=random_.choice([0.0, 0.3, 0.5]), trial_s=10.0, short_s=random_.choice([1.0, 2.0, 10.0]),
            sum_s=random_.choice([10.0, 21.0, 60.0]),
        )  # fmt: skip
        found, trials = _simulated(goal, rate, random_.choice([0.0, 0.01, 0.05]), number)
        assert found.classes == classes(goal, trials)
        assert (found.lower, found.upper) == relevant(found.classes)
        loads += len(found.classes)
    assert loads > 5000


def by_the_library(goal: Goal, trials: Iterable[Measured]) -> Bound:
    """What MLRsearch makes of the trials at one load, without a search around them."""
    target = TargetSpec(
        loss_ratio=goal.lost, exceed_ratio=goal.exceed, discrete_width=None, trial_duration=goal.trial_s,
        duration_sum=goal.sum_s, expansion_coefficient=2, fail_fast=False, preceding=None,
    )  # fmt: skip
    stat = TargetStat(target)
    for each in trials:
        stat.add(
            MeasurementResult(
                intended_duration=each.duration_s,
                intended_load=each.load,
                intended_count=each.intended,
                offered_count=each.intended,
                loss_count=each.lost,
                duration_with_overheads=each.duration_s,
            )
        )
    optimistic, pessimistic = stat.estimates()
    return "undecided" if optimistic != pessimistic else "lower" if optimistic else "upper"


_Trial = tuple[float, int, int]
# Real searches of the bundled epoll server, whose trials counted however busy the machine was: good for no figure.
# Of each load its bound, as the library had it at the end, and its trials: seconds, starts, and how many were missing.
RECORDED: dict[str, tuple[Goal, dict[float, tuple[Bound, tuple[_Trial, ...]]]]] = {
    "rate of bios-pxelinux": (
        Goal(0.001, 0.1, 0.5, 1.5, 0.3, 9.0),
        {
            406.49213614492476: ("undecided", ((0.3, 122, 0), (1.5, 610, 0))),
            451.3381381848652: ("lower", ((1.5, 677, 0), (1.5, 677, 46), (1.5, 677, 0), (1.5, 677, 6), (1.5, 677, 0))),
            501.1317486042438: ("upper", ((1.5, 752, 12), (1.5, 752, 83), (1.5, 752, 173), (1.5, 752, 294))),
            617.8053820200149: ("undecided", ((0.3, 185, 5),)),
            938.9689396520494: ("undecided", ((0.3, 282, 160),)),
        },
    ),
    "rate of uefi": (
        Goal(0.001, 0.1, 0.5, 1.5, 0.3, 9.0),
        {
            287.86778062243593: ("undecided", ((1.5, 432, 0),)),
            319.6266215177596: ("lower", ((1.5, 479, 0), (1.5, 479, 0), (1.5, 479, 0))),
            354.8892375588588: ("lower", ((1.5, 532, 3), (1.5, 532, 3), (1.5, 532, 0), (1.5, 532, 0), (1.5, 532, 0))),
            437.51464878349105: ("lower", ((0.3, 131, 0), (1.5, 656, 6), (1.5, 656, 0), (1.5, 656, 0), (1.5, 656, 0))),
            539.3769312837909: ("undecided", ((1.5, 809, 4),)),
            664.9548187930225: ("lower", ((0.3, 199, 4), (1.5, 997, 0), (1.5, 997, 0), (1.5, 997, 13), (1.5, 997, 0))),
            1536.0: ("undecided", ((0.3, 461, 256), (1.5, 2304, 1218), (1.5, 2304, 1360))),
        },
    ),
}


def found_as(goal: Goal, loads: dict[float, tuple[Bound, tuple[_Trial, ...]]]) -> FoundCapacity:
    base = document(done(Machine(), budget="10s"))
    one = base.trials[0].model_copy(update={"stage": "bounds", "counts": True, "fault": ""})
    return base.model_copy(
        update={
            "goal": base.goal.model_copy(update=asdict(goal)),
            "loads": tuple(FoundLoad(load=load, bound=bound) for load, (bound, _) in loads.items()),
            "trials": tuple(
                one.model_copy(update={"load": load, "duration_s": seconds, "intended": starts, "missing": missing})
                for load, (_, trials) in loads.items()
                for seconds, starts, missing in trials
            ),
        }
    )


def recorded() -> dict[str, FoundCapacity]:
    """Real searches: those below, and each of a recorded run in results/reference."""
    found = {name: found_as(*each) for name, each in RECORDED.items()}
    for path in sorted((ROOT / "results/reference").glob("**/capacity.json")):
        for each in read_searches(path.parent):
            found[f"{path.parent.name}: {each.server}, {each.cell}, {each.find}, {each.round}"] = each
    return found


@pytest.mark.parametrize("found", [pytest.param(each, id=name) for name, each in recorded().items()])
def test_two_classifiers_agree_on_every_load_of_a_recorded_search(found: FoundCapacity) -> None:
    goal, measured = found.goal.goal, dict[float, list[Measured]]()
    for each in found.trials:
        if each.stage == "bounds" and each.counts and each.load is not None:
            trial = Measured(each.load, each.duration_s, each.intended, each.missing)
            measured.setdefault(each.load, []).append(trial)
    # Where a search began anew above or below, its loads are those of the last part.
    assert {each.load: each.bound for each in found.loads} == {
        each.load: by_the_library(goal, measured[each.load]) for each in found.loads
    }
    assert second_opinion(found) == ()
    assert measured or found.reasons or found.bounds == (0.0, 0.0), "and there is something to agree on"


def test_a_recorded_search_whose_bounds_were_written_down_wrong_is_found_out() -> None:
    found = next(iter(recorded().values()))
    bound: Bound = "upper" if found.loads[0].bound == "lower" else "lower"
    wrong = (found.loads[0].model_copy(update={"bound": bound}), *found.loads[1:])
    assert second_opinion(found.model_copy(update={"loads": wrong})) == (found.loads[0].load,)


def test_a_search_that_is_ended_keeps_its_bounds() -> None:
    goal = goal_of(Capacity(), "rate")
    whole, trials = _simulated(goal, RATE, 0.0, 1)
    cut, first = _simulated(goal, RATE, 0.0, 1, most=len(trials) - 1)
    assert first == trials[:-1]
    assert isinstance(cut.ended, SearchEnded)
    assert cut.classes == classes(goal, first)
    assert not cut.is_regular
    assert whole.is_regular


def test_no_trial_is_made_above_or_below_what_was_given() -> None:
    _, trials = _simulated(goal_of(Capacity(), "rate"), 5000.0, 0.0, 1)
    assert all(5000.0 / 30 <= trial.load <= 5000.0 * 1.5 for trial in trials)


def test_half_of_the_time_may_exceed_the_loss_and_no_more() -> None:
    goal = Goal(0.0, 0.05, 0.5, 10.0, 2.0, 60.0)
    good, bad = Measured(1.0, 10.0, 100, 0), Measured(1.0, 10.0, 100, 1)
    assert classify(goal, [good] * 2) == "undecided"
    assert classify(goal, [good] * 3) == "lower"
    assert classify(goal, [bad] * 3 + [good] * 2) == "undecided"
    assert classify(goal, [bad] * 4) == "upper"
    assert classify(goal, [Measured(1.0, 2.0, 20, 1)] * 16) == "upper"


def test_a_backlog_grows_by_what_a_server_can_not_serve() -> None:
    """110 a second at a server of 100 a second, for 10 s: 100 are left over."""
    starts = np.arange(1100, dtype=np.int64) * (10**9 // 110)
    ends = np.maximum(starts, np.arange(1100, dtype=np.int64) * 10**7) + 10**7
    assert backlog_growth(starts, ends, 1e10) == pytest.approx((100, 100), rel=0.02)
    assert backlog_growth(starts, starts + 10**7, 1e10) == pytest.approx((0, 0), abs=0.5)
    assert backlog_growth(starts, np.full(1100, -1, np.int64), 1e10) == pytest.approx((1100, 1100), rel=0.02)
    stalled = np.where(
        starts > 8 * 10**9, starts + 10**9, starts + 10**7
    )  # all that came in the last 2 s waits for 1 s
    grown, steady = backlog_growth(starts, stalled, 1e10)
    assert grown > 100
    assert steady == pytest.approx(0, abs=0.5)


def test_a_recovery_is_the_second_from_which_all_is_normal() -> None:
    starts = np.arange(300, dtype=np.int64) * 10**8
    assert recovered_s(starts, starts + _waits(), 5e8) == 4.0
    assert recovered_s(starts, starts + 10**8, 5e8) == 0.0
    assert recovered_s(starts, np.full(300, -1, np.int64), 5e8) is None


def test_a_running_server_is_left_until_nothing_came_for_two_seconds() -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    wait_until_quiet(lambda: int(min(clock[0], 5)), math.inf, lambda: clock[0], sleep)
    assert clock[0] == pytest.approx(7, abs=0.3)
    began = clock[0]
    wait_until_quiet(lambda: int(clock[0] * 10), math.inf, lambda: clock[0], sleep)
    assert clock[0] - began == pytest.approx(20, abs=0.3)
    began = clock[0]
    wait_until_quiet(lambda: int(clock[0] * 10), 3.0, lambda: clock[0], sleep)
    assert clock[0] - began == pytest.approx(3, abs=0.3), "the budget has no more"


def test_a_recorded_trial_stands_for_one_that_would_be_done_again() -> None:
    row = {
        "trial": 4, "machines": 100, "booted": 90, "boots_interrupted": 0, "verdict": "valid", "duration_s": 9.0,
        "backlog_growth": 20.4, "boot_ns_p99": 5, "boot_ns_p99_is_never": True, "boot_ns_p50": 3,
    }  # fmt: skip
    seen = seen_of(row, _asked(10.0))
    assert (seen.lost, seen.missing, seen.response_ns_p99, seen.response_ns_p50) == (10, 21, None, 3)


@pytest.mark.parametrize(
    ("changes", "is_running", "fault"),
    [
        ({}, False, ""),
        ({"server_findings": [{"kind": "died", "text": "died with SIGSEGV", "count": 1}]}, False, "died"),
        (
            {"intended": None, "server_findings": [{"kind": "died", "text": "no files", "count": 1}]},
            False,
            "not started",
        ),
        ({"server_findings": [{"kind": "unresponsive", "text": GIVEN_UP, "count": 1}]}, True, "dead target"),
        ({"server_findings": [{"kind": "unresponsive", "text": "for 50 s", "count": 1}]}, True, ""),
        ({"verdict": "invalid", "verdict_reason": "the generator stood still for 300 ms at once"}, False, "machine"),
        ({"verdict": "invalid", "verdict_reason": "starts were 40.0 ms after their time (p99)"}, False, "generator"),
        ({"verdict": "invalid", "verdict_reason": "x", "content_mismatches": 3}, False, "wrong bytes"),
    ],
)
def test_what_a_trial_is_beside_an_answer_is_read_from_its_row(
    changes: dict[str, object], is_running: bool, fault: str
) -> None:
    row = {"trial": 1, "intended": 100, "completed": 100, "interrupted": 0, "verdict": "valid", **changes}
    assert seen_of(row, _asked(10.0), is_running=is_running).fault == fault


def test_a_document_reads_back_equal() -> None:
    found = document(done(Machine()))
    assert FoundCapacity.model_validate(documents([found])) == found
    assert len(documents([found, found])["searches"]) == 2


def _asked(load: float) -> Asked:
    return Asked("bounds", load, 10.0, OpenLoop(load, "even", 10_000, DEADLINE_NS), round(load * 10), 40.0)


def _simulated(goal: Goal, rate: float, noise: float, seed: int, most: int = 10**9) -> tuple[Bounds, list[Measured]]:
    random_ = random.Random(seed)
    trials: list[Measured] = []

    def measure(duration_s: float, load: float) -> Measured:
        if len(trials) == most:
            raise SearchEnded("enough")
        now = rate * (1 + random_.gauss(0, noise))
        intended = max(1, round(load * duration_s))
        trials.append(Measured(load, duration_s, intended, max(0, round((load - now) * duration_s))))
        return trials[-1]

    return search(goal, rate / 30, rate * 1.5, measure), trials


def test_a_run_of_searches_keeps_every_trial_and_goes_on_where_it_was_interrupted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The controller is asked again what it was asked before; the trials that are there answer."""
    monkeypatch.setattr("tftpbench.measure.runner.contenders", lambda _, **_host: (contender("one"),))
    whole = _run_of(monkeypatch, tmp_path / "whole")
    with pytest.raises(RunInterrupted) as interrupted:
        _run_of(monkeypatch, tmp_path / "cut", ends_at=7)
    folder = interrupted.value.report.folder
    (first,) = read_searches(folder)
    assert first.is_interrupted
    assert len(first.trials) == 6
    again = _run_of(monkeypatch, tmp_path / "cut", resume=folder)
    (done_,), (other,) = read_searches(again.folder), read_searches(whole.folder)
    assert (done_.bounds, done_.is_regular) == (other.bounds, other.is_regular)
    assert [each.load for each in done_.trials] == [each.load for each in other.trials]
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    assert [row["trial"] for row in rows] == [*range(1, len(rows) + 1)]
    assert len(rows) == len(other.trials), "none was done twice"
    schema = Draft202012Validator(json_schema("capacity"))
    schema.validate(json.loads((again.folder / "capacity.json").read_text()))
    assert again.folder.joinpath("manifest.json").exists()


class Cluster(LocalGenerator):
    """Two load hosts that are this machine."""

    hosts = ("a", "b")
    is_here = True
    machines: tuple[dict[str, int], ...] = ({}, {})

    def taking(self, _hosts: Sequence[str], _weights: Sequence[int]) -> "Cluster":
        return self


def test_a_search_ends_where_a_load_host_is_lost_and_goes_on_without_that_trial(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tftpbench.measure.runner.contenders", lambda _, **_host: (contender("one"),))
    monkeypatch.setattr("tftpbench.measure.capacity_trials.wait_until_quiet", lambda *_: None)
    tools = Tools(generator=Cluster())
    with pytest.raises(HostsError, match=r"^load host lost: b: no answer for 3 s; 5 trials are finished, in "):
        _run_of(monkeypatch, tmp_path, lost_at=5, tools=tools)
    [folder] = tmp_path.iterdir()
    assert read_searches(folder) == (), "it has not come to its end"
    _run_of(monkeypatch, tmp_path, resume=folder, tools=tools)
    [found] = read_searches(folder)
    assert found.is_regular
    assert (found.load_hosts, found.cell) == (2, "read, 1 KiB, from 2 load hosts")
    numbers = [each.trial for each in found.trials]
    assert 5 not in numbers, "it was kept, and is no answer"
    assert numbers[:4] == [1, 2, 3, 4]
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    assert [row["trial"] for row in rows if row["hosts_lost"]] == [5]
    assert {row["load_hosts"] for row in rows} == {2}


def _run_of(
    monkeypatch: pytest.MonkeyPatch,
    out: Path,
    *,
    ends_at: int = 10**9,
    lost_at: int = 10**9,
    resume: Path | None = None,
    tools: Tools | None = None,
) -> RunReport:
    """A run whose trials are of a server of 500 transfers a second, and end at once; in one a load host is lost."""
    count = [0]

    def run_trial(trial: Trial, bench: Bench, *_: object) -> Outcome:
        count[0] += 1
        if count[0] == ends_at:
            raise KeyboardInterrupt
        load, starts = trial.cell.load, trial.cell.transfers or 1500
        per_s = load.rate_per_s if isinstance(load, OpenLoop) else 0.0
        row = row_of(trial, bench.pinning) | {
            "verdict": "valid", "intended": starts, "started": starts, "completed": starts, "interrupted": 0,
            "duration_s": starts / min(per_s or 500, 500), "service_ns_p50": 10**7, "response_ns_p99": 10**7,
            "backlog_growth": max(0.0, (per_s - 500) * starts / per_s) if per_s else 0.0, "server_findings": [],
        }  # fmt: skip
        if count[0] != lost_at:
            return Outcome(row, (), None, b"")
        rows, intervals = (
            dict.fromkeys(columns, np.empty(0, np.int64)) for columns in (TRANSFER_COLUMNS, INTERVAL_COLUMNS)
        )
        lost = LoadResult({}, rows, intervals, "", (), hosts_lost="b: no answer for 3 s")
        found = {"verdict": "invalid", "verdict_reason": "load host lost: b", "hosts_lost": lost.hosts_lost}
        return Outcome(row | found, (), lost, b"")

    monkeypatch.setattr("tftpbench.measure.runner.run_trial", run_trial)
    asked = scenario(
        servers=["one"], matrix={"operation": "read", "file_size": 1024}, duration=None, trials=1,
        capacity={"find": "rate", "budget": "1h"},
    )  # fmt: skip
    return run(asked, seed=1, out=out, resume=resume, tools=tools)


def test_a_scenario_of_searches_has_no_load_and_says_so() -> None:
    with pytest.raises(ScenarioError, match=r"matrix\.rate: has no meaning beside capacity"):
        scenario(matrix={"operation": "read", "file_size": 1, "rate": "5/s"}, duration=None, capacity={})
    with pytest.raises(ScenarioError, match="duration: has no meaning beside capacity"):
        scenario(matrix={"operation": "read", "file_size": 1}, capacity={})
    with pytest.raises(ScenarioError, match="machines: has no meaning without find: spread"):
        scenario(matrix={"boot": "uefi"}, duration=None, capacity={"machines": 5})
    with pytest.raises(ScenarioError, match="lost: is '90%'; allowed: 0% to 50%"):
        scenario(matrix={"boot": "uefi"}, duration=None, capacity={"lost": "90%"})


def test_a_search_may_be_of_some_servers_only() -> None:
    asked = scenario(
        matrix={"boot": "uefi"}, duration=None, servers=["one", "two"], trials=1,
        capacity=[{"find": "rate"}, {"find": ["machines", "spread"], "servers": ["two"]}],
    )  # fmt: skip
    trials = plan(asked, (contender("one"), contender("two")), 1).trials
    found = sorted((each.contender.name, each.cell.load.find) for each in trials if isinstance(each.cell.load, Sought))
    assert found == [("one", "rate"), ("two", "machines"), ("two", "rate"), ("two", "spread")]


TOO_MUCH: dict[str, object] = {"lower_per_s": 409.2, "upper_per_s": 430.1}
OVER: dict[str, object] = {"find": "spread", "machines": 1000, "lower_over_s": 11.0, "upper_over_s": 12.0}
AT_ONCE: dict[str, object] = {"find": "machines", "lower_machines": 500, "upper_machines": 525}
READS: dict[str, object] = {"boot": None, "cell": "read, 64 KiB", "lower_per_s": 12_345.6, "upper_per_s": 13_001.0}
IN_TIME = "(uefi-ipxe), 99.9 % within 30 s"
FROM_HOSTS = "(uefi-ipxe, from 3 load hosts), 99.9 % within 30 s"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (TOO_MUCH, f"dnsmasq boots 409 machines a second {IN_TIME}; 430 a second is too much."),
        ({"lower_per_s": 409.2}, f"dnsmasq boots at least 409 machines a second {IN_TIME}."),
        ({"upper_per_s": 20.0}, f"dnsmasq does not boot 20 machines a second {IN_TIME}."),
        ({}, "How many machines dnsmasq boots a second (uefi-ipxe) is not known."),
        (AT_ONCE, f"dnsmasq boots 500 machines at once {IN_TIME}; 525 are too many."),
        (OVER, f"dnsmasq boots 1,000 machines {IN_TIME}, if they start within 12 s or more; 11 s is too short."),
        (
            {**TOO_MUCH, "load_hosts": 3},
            f"dnsmasq boots 409 machines a second {FROM_HOSTS}; 430 a second is too much.",
        ),
        (
            READS,
            "dnsmasq serves 12,350 transfers a second (read, 64 KiB), 99.9 % within 30 s; 13,000 a second is too much.",
        ),
    ],
)
def test_the_sentence_says_what_is_borne_and_what_is_not(changes: dict[str, object], said: str) -> None:
    base = document(done(Machine(), budget="10s"))
    none = dict.fromkeys(("lower_per_s", "upper_per_s", "conditional_per_s"))
    found = base.model_copy(update={**none, "server": "dnsmasq", "boot": "uefi-ipxe", "reasons": (), **changes})
    assert sentence(found) == said


def test_two_runs_differ_where_their_bounds_do_not_overlap() -> None:
    slow, fast, near = (document(done(Machine(rate))) for rate in (412.0, 500.0, 415.0))
    assert [each.verdict for each in compared([slow], [fast])] == ["higher"]
    assert [each.verdict for each in compared([fast], [slow])] == ["lower"]
    assert [each.verdict for each in compared([slow], [near])] == ["same"]
    with pytest.raises(NotComparable, match="no search"):
        compared([slow], [fast.model_copy(update={"server": "other"})])
    elsewhere = fast.model_copy(update={"cell_key": "1" * 16, "load_hosts": 3})
    with pytest.raises(NotComparable, match="in common: A from 1 load host, B from 3 load hosts"):
        compared([slow], [elsewhere])


def test_a_plot_has_a_mark_for_each_trial_that_says_something() -> None:
    found = document(done(Machine(stalls={3})))
    plot = plots.capacity(frame([found]))
    assert len(plot.data) == sum(each.counts and each.stage != "recovery" for each in found.trials)
    assert set(plot.data["lower"]) == {found.lower_per_s}


def test_the_sections_name_what_was_found_omitted_and_tried() -> None:
    found = document(done(Machine(), budget="3min"))
    text = rendered.text([found], "results/x", "tftpbench capacity epoll")
    assert "too much" in text
    assert "Not measured:" in text
    assert "confirmation" in text
    assert "Repeat: tftpbench capacity epoll" in text
