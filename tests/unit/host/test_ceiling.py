"""The ceiling seen from Python: candidates, the choice among them, the survey, and what people read of it."""

import itertools
import random
from collections import Counter
from collections.abc import Callable

import pytest

from tftpbench import _core
from tftpbench.host.ceiling import (  # fmt: skip
    Arrangement,
    Ceiling,
    CeilingCell,
    Effort,
    calibrate,
    candidates,
    limits,
    measure,
    usual_cells,
)
from tftpbench.model.errors import CeilingError

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
