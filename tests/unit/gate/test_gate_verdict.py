"""From pairs to verdicts: what is called what, when it is looked at, and what no figure leads to."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.unit.gate.gate_results import BUDGETS, LOOKS, made_pairs
from tftpbench.analysis.stats import trimmed
from tftpbench.gate.decision import Decision, decide
from tftpbench.gate.pair import p_values
from tftpbench.gate.result import BASE, BY_SEVERITY, CONTROL, HEAD, Arm, Judgement, Pair, Verdict
from tftpbench.gate.verdict import Loss, Sample, held_budgets, look, overall, overall_verdict
from tftpbench.gate.verdict import verdicts as verdicts_of
from tftpbench.model.gate_settings import METRICS

CPU, CALLS, RATE, MEMORY = BUDGETS


def verdicts(found: Decision) -> dict[str, str | None]:
    return {each.metric: each.verdict for each in found.judgements if each.budget is not None}


def of(found: Decision, metric: str) -> Judgement:
    return next(each for each in found.judgements if each.metric == metric)


def with_figure(pair: Pair, arm: str, metric: str, value: float | None) -> Pair:
    arms = {**pair.arms, arm: Arm({**pair.arms[arm].figures, metric: value})}
    return replace(pair, arms=arms)


def test_equal_code_passes_at_the_first_look() -> None:
    found = decide(made_pairs(40), BUDGETS, LOOKS)
    assert (found.verdict, found.pairs, found.is_final) == ("pass", 12, True)
    assert set(verdicts(found).values()) == {"pass"}


def test_a_loss_of_three_budgets_is_regressed_at_the_first_look() -> None:
    found = decide(made_pairs(12, effects={CPU: 0.15}), BUDGETS, LOOKS)
    assert (found.verdict, found.pairs) == ("regressed", 12)
    assert verdicts(found) == {CPU: "regressed", CALLS: "pass", RATE: "pass", MEMORY: "pass"}
    assert of(found, CPU).worse == pytest.approx(math.expm1(0.15), abs=0.02)


def test_a_rate_that_falls_is_as_bad_as_a_cost_that_rises() -> None:
    found = decide(made_pairs(12, effects={RATE: 0.15}), BUDGETS, LOOKS)
    assert verdicts(found)[RATE] == "regressed"
    ratio = of(found, RATE).ratio
    assert ratio is not None
    assert ratio < 0.9


def test_a_better_head_is_improved_and_no_red() -> None:
    found = decide(made_pairs(12, effects={CPU: -0.2}), BUDGETS, LOOKS)
    assert found.verdict == "improved"
    assert verdicts(found)[CPU] == "improved"


def test_worse_for_certain_but_not_beyond_the_budget_for_certain_is_suspected_and_goes_on() -> None:
    found = decide(made_pairs(12, effects={CPU: 0.056}), BUDGETS, LOOKS)
    assert verdicts(found)[CPU] == found.verdict == "suspected"
    assert not found.is_final


def test_noise_that_could_hide_twice_the_budget_is_invalid_after_the_last_look_only() -> None:
    noisy = made_pairs(30, noise=12)
    assert "invalid" not in verdicts(decide(noisy[:12], BUDGETS, LOOKS)).values()
    last = decide(noisy, BUDGETS, LOOKS)
    assert last.verdict == "invalid"
    effect = of(last, CPU).smallest_effect
    assert effect is not None
    assert effect > 2 * BUDGETS[CPU]


def test_two_starts_of_the_base_that_differ_make_it_invalid() -> None:
    differs = [
        with_figure(pair, CONTROL, CPU, (pair.arms[BASE].figures[CPU] or 0) * 1.3) if CONTROL in pair.arms else pair
        for pair in made_pairs(12)
    ]
    assert verdicts(decide(differs, BUDGETS, LOOKS))[CPU] == "invalid"


def test_fewer_pairs_than_the_first_look_wants_are_no_verdict() -> None:
    found = decide(made_pairs(11, effects={CPU: 0.5}), BUDGETS, LOOKS)
    assert (found.verdict, found.pairs, found.is_final) == ("invalid", 11, False)
    assert set(verdicts(found).values()) == {None}
    assert decide((), BUDGETS, LOOKS).verdict == "invalid"


def test_blocks_that_do_not_count_are_not_looked_at() -> None:
    good = made_pairs(12)
    spoilt = [replace(pair, invalid="head: the host took 9 % of the cores' time") for pair in made_pairs(8, seed=2)]
    found = decide([*spoilt, *good], BUDGETS, LOOKS)
    assert (found.verdict, found.pairs) == ("pass", 12)


def test_a_failure_ends_it_whatever_the_figures_say() -> None:
    failed = replace(made_pairs(1)[0], failure="head: 3 transfers had wrong contents", invalid="the same")
    found = decide([failed], BUDGETS, LOOKS)
    assert (found.verdict, found.failure, found.is_final) == ("regressed", "head: 3 transfers had wrong contents", True)


@pytest.mark.parametrize("value", [None, 0.0, -1.0, math.nan, math.inf])
def test_a_figure_that_is_none_is_never_passed(value: float | None) -> None:
    odd = [with_figure(pair, HEAD, RATE, value) for pair in made_pairs(12)]
    found = decide(odd, BUDGETS, LOOKS)
    assert of(found, RATE).ratio is None
    assert (of(found, RATE).verdict, found.verdict, found.is_final) == ("inconclusive", "inconclusive", False)


def test_system_calls_that_could_not_be_counted_leave_the_verdict_to_the_others() -> None:
    few = [with_figure(pair, HEAD, CALLS, None) if pair.number > 4 else pair for pair in made_pairs(12)]
    found = decide(few, BUDGETS, LOOKS)
    assert of(found, CALLS).verdict is None
    assert (found.verdict, found.is_final) == ("pass", True)


def test_what_is_not_sure_when_no_more_pairs_come_is_invalid() -> None:
    unsure = made_pairs(12, noise=8)
    assert decide(unsure, BUDGETS, LOOKS).verdict == "inconclusive"
    assert decide(unsure, BUDGETS, LOOKS, has_ended=True).verdict == "invalid"


@pytest.mark.parametrize(("head", "base", "verdict"), [(2, 0, "pass"), (3, 0, "regressed"), (5, 1, "pass")])
def test_a_head_that_often_does_not_start_is_regressed(head: int, base: int, verdict: str) -> None:
    names = [HEAD] * head + [BASE] * base
    failed = [
        replace(pair, arms={}, invalid="it did not start", unstarted=name)
        for pair, name in zip(made_pairs(9, seed=4), names, strict=False)
    ]
    assert decide([*failed, *made_pairs(12)], BUDGETS, LOOKS).verdict == verdict


@pytest.mark.parametrize(("lossy", "verdict"), [(0, "pass"), (1, "pass"), (10, "pass"), (11, "regressed")])
def test_a_head_that_loses_transfers_pair_after_pair_is_regressed_and_one_burst_is_not(
    lossy: int, verdict: str
) -> None:
    good = [with_figure(with_figure(pair, BASE, "started", 300), HEAD, "started", 300) for pair in made_pairs(12)]
    pairs = [with_figure(pair, HEAD, "lost", 20) if pair.number <= lossy else pair for pair in good]
    found = decide(pairs, BUDGETS, LOOKS)
    assert found.verdict == verdict
    assert (found.failure is not None) == (verdict == "regressed")


def losing(pairs: list[Pair], *arms: str) -> list[Pair]:
    """The same pairs, invalid, in which these arms lost transfers."""
    for arm in arms:
        pairs = [with_figure(pair, arm, "lost", 20) for pair in pairs]
    return [replace(pair, invalid="head: the host was busy") for pair in pairs]


def test_transfers_that_only_the_head_loses_are_evidence_on_a_busy_machine_and_those_that_both_lose_are_not() -> None:
    assert decide([*losing(made_pairs(12), HEAD), *made_pairs(12)], BUDGETS, LOOKS).failure is not None
    assert decide([*losing(made_pairs(12), BASE, HEAD), *made_pairs(12)], BUDGETS, LOOKS).failure is None
    turns = [losing([pair], HEAD if pair.number % 2 else BASE)[0] for pair in made_pairs(30)]
    assert decide(turns, BUDGETS, LOOKS).failure is None


def slowed(pairs: list[Pair], *arms: str, factor: float = 6.0) -> list[Pair]:
    """The same pairs, invalid, in which these arms were so much slower; as a slice that was stopped has it."""
    for arm in arms:
        for metric, by in ((CPU, factor), (RATE, 1 / factor)):
            pairs = [
                with_figure(pair, arm, metric, by * (pair.arms[arm].figures[metric] or 0)) if arm in pair.arms else pair
                for pair in pairs
            ]
    return [replace(pair, invalid="head: the generator read answers 64 ms late (p99)") for pair in pairs]


def test_a_head_that_is_slower_by_far_in_pair_after_pair_is_regressed_whatever_the_clock_says() -> None:
    few, enough = (decide(slowed(made_pairs(count), HEAD), BUDGETS, LOOKS) for count in (10, 11))
    assert (few.verdict, few.is_final) == ("invalid", False)
    assert (enough.verdict, enough.is_final, enough.pairs) == ("regressed", True, 11)
    assert verdicts(enough) == {CPU: "regressed", CALLS: None, RATE: "regressed", MEMORY: None}
    assert of(enough, RATE).detail == "worse by more than 52 % in 11 of 11 pairs, for certain"
    assert of(enough, RATE).worse == pytest.approx(5 / 6, abs=0.02)
    assert of(enough, RATE).pairs == 11


def test_pairs_in_which_both_sides_are_slow_or_the_control_is_say_nothing_of_the_head() -> None:
    for count in (11, 30):
        assert decide(slowed(made_pairs(count), BASE, HEAD), BUDGETS, LOOKS).verdict != "regressed"
    odd = [pair for pair in made_pairs(60) if CONTROL in pair.arms]
    assert decide(slowed(odd, HEAD, CONTROL), BUDGETS, LOOKS).verdict != "regressed"
    assert decide(slowed(odd, BASE), BUDGETS, LOOKS).verdict != "regressed"
    turns = [slowed([pair], HEAD if pair.number % 2 else BASE)[0] for pair in made_pairs(30)]
    assert decide(turns, BUDGETS, LOOKS).verdict != "regressed"


def test_a_loss_within_the_budget_is_never_severe() -> None:
    """However large the budget is: what it allows is no evidence."""
    budgets = {**BUDGETS, CPU: 0.9, RATE: 0.9}
    assert decide(slowed(made_pairs(30), HEAD, factor=1.8), budgets, LOOKS, has_ended=True).verdict == "invalid"


def test_a_loss_of_many_budgets_ends_the_gate_at_its_first_look_though_others_are_undecided() -> None:
    found = decide(made_pairs(12, effects={CPU: 0.6, RATE: 0.056}), BUDGETS, LOOKS)
    assert (verdicts(found)[CPU], verdicts(found)[RATE]) == ("regressed", "suspected")
    assert (found.verdict, found.is_final) == ("regressed", True)


def spoilt(pairs: list[Pair]) -> list[Pair]:
    return [replace(pair, invalid="base: the generator read answers 64 ms late (p99)") for pair in pairs]


def test_what_needs_no_clock_is_judged_where_the_clock_can_not_be_trusted() -> None:
    calls = spoilt(made_pairs(12, effects={CALLS: math.log(1.469)}))
    goes_on = decide(calls, BUDGETS, LOOKS)
    assert (goes_on.verdict, goes_on.is_final, of(goes_on, CALLS).pairs) == ("regressed", False, 12)
    ended = decide(calls, BUDGETS, LOOKS, has_ended=True)
    assert verdicts(ended) == {CPU: "invalid", CALLS: "regressed", RATE: "invalid", MEMORY: "pass"}
    assert ended.verdict == "regressed"
    assert of(ended, CALLS).worse == pytest.approx(0.469, abs=0.002)
    assert of(ended, RATE).detail == "not measured"


def test_where_the_clock_can_not_be_trusted_nothing_passes_by_what_needs_none() -> None:
    equal = spoilt(made_pairs(30))
    assert decide(equal, BUDGETS, LOOKS).verdict == "inconclusive"
    ended = decide(equal, BUDGETS, LOOKS, has_ended=True)
    assert (ended.verdict, verdicts(ended)[CALLS], verdicts(ended)[MEMORY]) == ("invalid", "pass", "pass")


def test_metrics_that_have_not_pairs_enough_yet_share_the_error_of_a_look() -> None:
    """Else what is looked at first would have more of it than was promised for all."""
    rng = np.random.default_rng(1)
    losses = {name: Loss(METRICS[name], trimmed(rng.normal(0.0, 0.02, (2000, 12))), 1e-9) for name in (CALLS, MEMORY)}
    regressed = Verdict.REGRESSED.severity
    alone, waiting = (
        sum(int((each == regressed).sum()) for each in verdicts_of(losses, last=(), waiting=count).values())
        for count in (0, 20)
    )
    assert waiting < alone


def test_no_figure_at_all_is_no_verdict() -> None:
    nothing = [replace(pair, arms={BASE: Arm({}), HEAD: Arm({})}) for pair in made_pairs(12)]
    assert decide(nothing, BUDGETS, LOOKS).verdict == "invalid"


def test_what_was_regressed_at_one_look_stays_so() -> None:
    undecided = made_pairs(12, effects={CPU: 0.15, RATE: 0.056})
    better = made_pairs(8, seed=3, effects={CPU: -0.4, RATE: 0.056})
    first = decide(undecided, BUDGETS, LOOKS)
    assert (verdicts(first)[CPU], first.is_final) == ("regressed", False)
    both = decide([*undecided, *better], BUDGETS, LOOKS)
    assert both.pairs > 12
    assert verdicts(both)[CPU] == "regressed"


def test_many_cells_are_judged_together_and_each_by_itself() -> None:
    both = [*made_pairs(12, cell="read"), *made_pairs(12, seed=2, cell="write", effects={CPU: 0.15})]
    found = decide(both, BUDGETS, LOOKS)
    said = {(each.cell, each.metric): each.verdict for each in found.judgements if each.budget is not None}
    assert (said["read", CPU], said["write", CPU]) == ("pass", "regressed")
    assert len(said) == 2 * len(BUDGETS)


def test_no_budget_is_less_than_its_floor() -> None:
    held = held_budgets({"read": made_pairs(12)}, BUDGETS)
    assert held[CPU, "read"] == 0.05
    assert held[CALLS, "read"] == pytest.approx(0.01 / 0.07, rel=0.01)


def test_what_is_not_gated_has_no_verdict() -> None:
    found = decide(made_pairs(12), {CPU: 0.05}, LOOKS)
    assert {each.metric for each in found.judgements if each.verdict} == {CPU}
    assert of(found, RATE).ratio is not None


def sampled(gates: int, rng: np.random.Generator) -> dict[tuple[str, str], Sample]:
    """Samples of many gates, from no loss to a large one; a second base in some pairs, and one that differs in some."""
    found = {}
    for name, budget in BUDGETS.items():
        shifts, spreads = rng.choice([-0.2, 0.0, 0.05, 0.12, 0.9], gates), rng.choice([0.001, 0.03, 0.3], gates)
        logs = rng.normal(shifts[:, np.newaxis], spreads[:, np.newaxis], (gates, 12))
        controls = rng.normal(rng.choice([0.0, 0.4], gates)[:, np.newaxis], 0.01, (gates, 12))
        controls[rng.random(controls.shape) < 0.5] = np.nan
        found[name, "read"] = Sample(name, budget, logs, controls)
    return found


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_look_at_many_gates_is_the_look_at_each_of_them(*, has_ended: bool) -> None:
    samples = sampled(200, np.random.default_rng(5))
    last = [key for key in samples if key[0] != RATE]
    before, _ = look(sampled(200, np.random.default_rng(6)), {}, looks=3, last=())
    together, is_over = look(samples, before, looks=3, last=last, has_ended=has_ended)
    assert len({int(each) for found in together.values() for each in found}) >= 5
    for gate in range(200):
        one = {
            key: replace(each, logs=each.logs[gate : gate + 1], controls=each.controls[gate : gate + 1])
            for key, each in samples.items()
        }
        earlier = {key: each[gate : gate + 1] for key, each in before.items()}
        alone, ends = look(one, earlier, looks=3, last=last, has_ended=has_ended)
        assert {key: int(each[0]) for key, each in alone.items()} == {
            key: int(each[gate]) for key, each in together.items()
        }
        assert ends[0] == is_over[gate]
        words = [BY_SEVERITY[int(each[0])] for each in alone.values()]
        assert overall_verdict(words, None) == BY_SEVERITY[int(overall(together)[gate])]


@pytest.mark.parametrize(
    ("worse", "better", "is_certain"),
    [(10, 0, False), (11, 0, True), (14, 1, False), (15, 1, True), (0, 30, False), (30, 30, False)],
)
def test_eleven_pairs_to_none_or_fifteen_to_one_are_certain_at_one_in_a_thousand(
    worse: int, better: int, is_certain: bool
) -> None:
    signs = np.array([-1] * better + [1] * worse)
    assert (p_values(signs)[-1] < 0.001) == is_certain


def test_pairs_that_say_nothing_change_nothing_and_what_was_certain_stays_so() -> None:
    signs = np.array([0, 1, 0, 1, -1, 0, -1])
    found = p_values(signs)
    assert found[0] == 1.0
    assert (np.diff(found) <= 0).all()
    assert found[-1] == pytest.approx(1 / 1.9**2)


def test_looked_at_after_each_of_a_hundred_pairs_it_errs_as_seldom_as_it_promises() -> None:
    signs = np.random.default_rng(1).choice([-1, 1], size=(20_000, 100))
    for error in (0.05, 0.01, 0.001):
        share = float((p_values(signs)[:, -1] < error).mean())
        assert 0 < share <= error
