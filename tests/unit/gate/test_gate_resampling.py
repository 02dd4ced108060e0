"""The gate without a machine: its decision on recorded pairs, as often as one likes, and seeded: the same always."""

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.gate.gate_results import BUDGETS, LEVELS, LOOKS, NOISE, made_pairs
from tftpbench.gate.decision import decide
from tftpbench.gate.result import BASE, CONTROL, HEAD, Arm, Verdict
from tftpbench.gate.selftest.resampling import Rate, _draw, detected, drawn, mirrored, permuted
from tftpbench.gate.verdict import is_early
from tftpbench.model.budgets import METRICS

DRAWS = 10_000


def test_identical_code_alarms_in_at_most_one_permutation_in_a_hundred() -> None:
    rates = permuted(made_pairs(120), BUDGETS, LOOKS, DRAWS)
    assert rates.draws == sum(rates.verdicts.values()) == DRAWS
    alarms = rates.rate(Verdict.REGRESSED)
    assert alarms.share is not None
    assert alarms.share <= 0.01
    assert alarms.high <= 0.01
    assert rates.verdicts[Verdict.PASS] > 0.9 * DRAWS


def test_identical_code_alarms_seldom_where_budgets_are_next_to_nothing() -> None:
    """Then nothing but the error of 1 % a run keeps it from alarming: it must, and it must be used."""
    rates = permuted(made_pairs(120), dict.fromkeys(BUDGETS, 1e-9), LOOKS, DRAWS)
    assert rates.rate(Verdict.REGRESSED).low <= 0.01
    assert rates.rate(Verdict.REGRESSED).alarms > 0


def test_exchanging_all_labels_mirrors_every_verdict() -> None:
    opposite = {"regressed": {"improved"}, "improved": {"regressed", "suspected", "pass", "inconclusive"},
                "suspected": {"improved"}, "pass": {"pass", "improved"}}  # fmt: skip
    recorded = made_pairs(30, effects={"server_cpu_s_per_mib": 0.15, "data_pps": -0.15})
    there, back = decide(recorded, BUDGETS, LOOKS), decide(mirrored(recorded), BUDGETS, LOOKS)
    for one, other in zip(there.judgements, back.judgements, strict=True):
        assert one.metric == other.metric
        if one.verdict is not None:
            assert other.verdict in opposite[one.verdict], one.metric
    found = (
        {each.metric: each.verdict for each in there.judgements},
        {each.metric: each.verdict for each in back.judgements},
    )
    assert (found[0]["server_cpu_s_per_mib"], found[1]["server_cpu_s_per_mib"]) == ("regressed", "improved")
    assert (found[0]["data_pps"], found[1]["data_pps"]) == ("improved", "regressed")


def test_exchanging_twice_is_nothing() -> None:
    recorded = made_pairs(6)
    once = mirrored(recorded)
    assert mirrored(once) == [replace(pair, arms={name: pair.arms[name] for name in (BASE, HEAD)}) for pair in recorded]
    assert [pair.first for pair in once] == [HEAD if pair.first == BASE else BASE for pair in recorded]
    assert all(CONTROL not in pair.arms for pair in once)


def test_a_faster_head_is_never_regressed() -> None:
    for effect in (0.01, 0.05, 0.5):
        better = dict.fromkeys(BUDGETS, -effect)
        rates = drawn(made_pairs(90, effects=better), BUDGETS, LOOKS, 2_000)
        assert rates.rate(Verdict.REGRESSED).alarms == rates.rate(Verdict.SUSPECTED).alarms == 0
    assert rates.rate(Verdict.IMPROVED).share == 1


@pytest.mark.parametrize("metric", list(BUDGETS))
def test_a_loss_of_twice_the_budget_is_detected_by_the_metric_meant_for_it(metric: str) -> None:
    budget = max(BUDGETS[metric], METRICS[metric].floor / LEVELS[metric])
    worse = -np.log1p(-2 * budget) if metric == "data_pps" else np.log1p(2 * budget)
    recorded = made_pairs(60, effects={metric: float(worse)})
    found = detected(recorded, metric, BUDGETS, LOOKS, 2_000)
    assert found.low >= 0.9
    others = drawn(recorded, BUDGETS, LOOKS, 500)
    assert all(others.rate(Verdict.REGRESSED, name).alarms == 0 for name in BUDGETS if name != metric)


def test_much_noise_is_mostly_no_verdict_and_lets_no_loss_pass() -> None:
    noise = 0.15 / NOISE["data_pps"] / 2**0.5  # of a pair: 15 %
    rates = permuted(made_pairs(120, noise=noise), BUDGETS, LOOKS, 2_000)
    assert rates.rate(Verdict.REGRESSED).alarms == 0
    assert rates.rate(Verdict.INVALID).alarms + rates.rate(Verdict.INCONCLUSIVE).alarms > 0.5 * rates.draws
    lossy = drawn(made_pairs(120, noise=noise, effects={"data_pps": -float(np.log1p(-0.1))}), BUDGETS, LOOKS, 2_000)
    assert lossy.rate(Verdict.PASS, "data_pps").high < 0.01


def test_two_starts_of_the_base_that_differ_make_it_invalid() -> None:
    recorded = [
        replace(
            pair, arms={**pair.arms, CONTROL: Arm({name: 2.0 * LEVELS[name] for name in LEVELS})}
        ) if CONTROL in pair.arms else pair
        for pair in made_pairs(60)
    ]  # fmt: skip
    assert permuted(recorded, BUDGETS, LOOKS, 500).rate(Verdict.INVALID).share == 1


@pytest.mark.parametrize(
    ("effect", "noise", "straced"),
    [
        (0.0, 0.5, None),
        (0.06, 2.0, None),
        (0.06, 5.0, None),
        (0.12, 2.0, None),
        (0.12, 5.0, 20),
        (0.06, 0.5, 3),
        (0.6, 10.0, None),
    ],
)
def test_a_draw_is_what_the_decision_says_of_its_blocks(effect: float, noise: float, straced: int | None) -> None:
    """The resampling decides many gates at once; each must be the gate that `decide` would have been."""
    spoilt = replace(made_pairs(1, 9)[0], number=34, invalid="head: stolen")
    recorded = made_pairs(33, 5, {"data_pps": effect, "server_rss_bytes_max": effect}, noise, straced)
    budgets = BUDGETS if straced is None else {name: BUDGETS[name] for name in BUDGETS if name != "syscalls_per_block"}
    said = drawn([*recorded, spoilt], budgets, LOOKS, 10, seed=3)
    orders = _draw([CONTROL in pair.arms for pair in recorded], 10, np.random.default_rng(3), swaps=False).order
    for draw, order in enumerate(orders):
        decision = decide([recorded[place] for place in order], budgets, LOOKS)
        verdicts = {each.metric: each.verdict for each in decision.judgements if each.verdict is not None}
        assert {name: each[draw] for name, each in said.by_metric.items()} == verdicts
        assert said.said[draw] == decision.verdict


@pytest.mark.parametrize(("effect", "noise"), [(1.2, 20.0), (0.8, 60.0), (0.0, 100.0)])
def test_a_draw_ends_by_a_severe_loss_where_the_decision_does(effect: float, noise: float) -> None:
    """Pair after pair, as a gate that goes on: the verdict of the whole is the same, and that of what decided."""
    recorded = made_pairs(33, 5, {"data_pps": effect}, noise)
    said = drawn(recorded, BUDGETS, LOOKS, 8, seed=3)
    orders = _draw([CONTROL in pair.arms for pair in recorded], 8, np.random.default_rng(3), swaps=False).order
    for draw, order in enumerate(orders):
        pairs = [recorded[place] for place in order]
        early = next((count for count in range(1, 34) if is_early(pairs[:count], BUDGETS)), len(pairs))
        decision = decide(pairs[:early] if early < LOOKS[0] else pairs, BUDGETS, LOOKS)
        assert said.said[draw] == decision.verdict
        if decision.verdict == "regressed":
            assert said.by_metric["data_pps"][draw] == "regressed"


def test_noise_in_which_half_of_all_pairs_are_severe_alarms_seldom() -> None:
    """A machine so busy that equal code is twice as slow as itself now and then: the sign test is all that is asked."""
    rates = permuted(made_pairs(120, noise=1.0 / NOISE["data_pps"]), BUDGETS, LOOKS, DRAWS)
    assert rates.rate(Verdict.REGRESSED).high <= 0.01


def test_draws_have_controls_where_gates_have_them() -> None:
    recorded = made_pairs(36)
    controlled = np.array([CONTROL in pair.arms for pair in recorded])
    order = _draw(controlled.tolist(), 20, np.random.default_rng(1), swaps=True).order
    assert (np.sort(order, axis=1) == np.arange(36)).all()
    assert (controlled[order] == controlled).all()


def test_passes_under_strace_that_ended_early_are_spread_over_the_draws() -> None:
    rates = permuted(made_pairs(60, straced=24), BUDGETS, LOOKS, 200)
    assert set(rates.by_metric["syscalls_per_block"]) == {"pass"}
    few = permuted(made_pairs(60, straced=11), BUDGETS, LOOKS, 200)
    assert "syscalls_per_block" not in few.by_metric


def test_a_metric_that_no_pair_has_is_left_out() -> None:
    rates = permuted(made_pairs(30, straced=0), BUDGETS, LOOKS, 50)
    assert set(rates.by_metric) == BUDGETS.keys() - {"syscalls_per_block"}
    assert rates.rate(Verdict.REGRESSED, "syscalls_per_block") == Rate(0, 0)


def test_several_cells_are_one_gate() -> None:
    bad = {"data_pps": 0.2}
    rates = drawn(made_pairs(30) + made_pairs(30, effects=bad, cell="write"), BUDGETS, LOOKS, 50)
    assert rates.rate(Verdict.REGRESSED).alarms == rates.rate(Verdict.REGRESSED, "data_pps").alarms == 50


def test_too_few_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="needs 12 valid pairs of each cell, and there are 11"):
        permuted(made_pairs(11), BUDGETS, LOOKS)
    with pytest.raises(ValueError, match="and there are 0"):
        permuted([], BUDGETS, LOOKS)


def test_the_same_seed_draws_the_same() -> None:
    recorded = made_pairs(40, noise=10)
    assert permuted(recorded, BUDGETS, LOOKS, 200, seed=7) == permuted(recorded, BUDGETS, LOOKS, 200, seed=7)
    assert permuted(recorded, BUDGETS, LOOKS, 200, seed=7) != permuted(recorded, BUDGETS, LOOKS, 200, seed=8)


def test_every_verdict_can_be_asked_for() -> None:
    assert tuple(permuted(made_pairs(30), BUDGETS, LOOKS, 5).verdicts) == tuple(Verdict)


@pytest.mark.parametrize(
    ("alarms", "draws", "low", "high"),
    # Clopper & Pearson 1934; 0 of n: 1 - 0.025^(1/n)
    [(0, 300, 0.0, 0.01222), (18, 20, 0.683, 0.98765), (20, 20, 0.83157, 1.0), (1, 30, 0.00084, 0.17217), (0, 0, 0, 1)],
)
def test_a_rate_has_an_exact_interval(alarms: int, draws: int, low: float, high: float) -> None:
    rate = Rate(alarms, draws)
    assert rate.low == pytest.approx(low, abs=1e-4)
    assert rate.high == pytest.approx(high, abs=1e-4)


def test_a_rate_is_printed_with_its_interval() -> None:
    assert str(Rate(1, 30)) == "1 of 30 (0.084 to 17 %)"
    assert str(Rate(0, 0)) == "none"
    assert Rate(0, 0).share is None
