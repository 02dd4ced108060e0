"""The self-test: its faults and their size, what the recorded one says again, and gates drawn from recorded pairs."""

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from tests.unit.builders import GATES as RECORDED
from tests.unit.gate.gate_results import BUDGETS, LEVELS, LOOKS, NOISE, made_pairs
from tftpbench import cli
from tftpbench.gate import GateInterrupted
from tftpbench.gate.decision import decide
from tftpbench.gate.document import load
from tftpbench.gate.result import BASE, CONTROL, HEAD, Arm, Pair, Verdict
from tftpbench.gate.selftest import SelfTested, evaluate, faults
from tftpbench.gate.selftest.faults import METRIC_OF, FaultsUnavailable, calibrated, compile_shim, with_fault
from tftpbench.gate.selftest.resampling import Rate, _draw, detected, drawn, permuted
from tftpbench.gate.verdict import is_early
from tftpbench.host.choice import choose_manifest
from tftpbench.host.presence import locate
from tftpbench.measure import Contender
from tftpbench.model.errors import UsageError
from tftpbench.model.gate_settings import METRICS
from tftpbench.model.scenario import from_document
from tftpbench.model.scenario_files import load_scenario
from tftpbench.model.workload import Cell

# Of every recorded gate and metric, as it has been judged since the error was split over looks and sign tests.
SMALLEST_EFFECTS = Path(__file__).parents[2] / "fixtures/gate-smallest-effects.json"
FAULTS = ("cpu", "syscalls", "drops", "memory")


def mirrored(pairs: Iterable[Pair]) -> list[Pair]:
    """The same pairs with base and head exchanged in all of them.

    Without controls: a second start of what is the head now says nothing of what is the base.
    """
    names = {BASE: HEAD, HEAD: BASE}
    return [
        replace(
            pair,
            arms={names[name]: arm for name, arm in pair.arms.items() if name in names},
            first=names.get(pair.first, pair.first),
        )
        for pair in pairs
    ]


def recorded(folder: str) -> list[Path]:
    return sorted((RECORDED / folder).glob("*/gate.json"))


@pytest.fixture(scope="module")
def judged() -> SelfTested:
    """The recorded self-test, judged once for all tests, with fewer permutations than `make soak` has."""
    return evaluate(RECORDED, draws=2_000)


def test_recorded_gates_over_equal_code_alarm_as_seldom_as_promised(judged: SelfTested) -> None:
    found = judged
    assert found.alarms.draws >= 30
    assert found.alarms.alarms <= 1
    assert found.permuted is not None
    assert (found.permuted.rate().share or 0) <= 0.01


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_ten_thousand_permutations_of_the_recorded_pairs_alarm_as_seldom_as_promised() -> None:
    found = evaluate(RECORDED)
    assert found.permuted is not None
    assert found.permuted.draws == 10_000
    assert found.permuted.rate().high <= 0.01
    assert all(fault.found.alarms >= 18 for fault in found.faults)


def test_recorded_faults_of_twice_the_budget_are_caught_by_the_metric_meant_for_them(judged: SelfTested) -> None:
    found = {fault.name: fault for fault in judged.faults}
    assert set(found) == set(FAULTS)
    for name, fault in found.items():
        assert fault.metric == METRIC_OF[name]
        assert fault.found.draws == 20
        assert fault.found.alarms >= 18, name


def test_recorded_pairs_say_the_same_with_base_and_head_exchanged() -> None:
    results = [load(path) for path in recorded("aa")]
    gate = from_document(results[0].facts.scenario, "recorded").gate
    pairs = mirrored(pair for result in results for pair in result.pairs)
    assert (permuted(pairs, gate.gated, gate.looks, draws=2_000).rate().share or 0) <= 0.01


def test_a_recorded_fault_exchanged_is_better_and_never_red() -> None:
    for name in FAULTS:
        result = load(recorded(name)[0])
        gate = from_document(result.facts.scenario, "recorded").gate
        back = decide(mirrored(result.pairs), gate.gated, gate.looks)
        verdicts = {each.metric: each.verdict for each in back.judgements}
        assert verdicts[METRIC_OF[name]] == "improved", name
        assert back.verdict != "regressed", name


def test_a_stored_self_test_is_judged_again_without_measuring(
    judged: SelfTested, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def once(folder: Path, *_: object) -> SelfTested:
        assert folder == RECORDED
        return judged

    monkeypatch.setattr("tftpbench.gate.selftest.evaluate", once)
    assert cli.exit_code(["gate", "selftest", "--replay", str(RECORDED), "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["holds"] is True
    assert "Gates over equal code: 30 gates (30 pass).\nFalse alarms: 0 of 30 (0 to 12 %)" in err
    assert "The gate keeps its promise here." in err


def test_a_gate_with_false_alarms_does_not_keep_its_promise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):  # a fault, filed as equal code
        shutil.copytree(recorded("cpu")[0].parent, tmp_path / "aa" / str(number))
    assert cli.exit_code(["gate", "selftest", "--replay", str(tmp_path)]) == 3
    assert "does not keep its promise" in capsys.readouterr().out


def test_gates_that_could_not_judge_keep_no_promise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nothing = json.loads(recorded("aa")[0].read_text()) | {"word": "invalid", "blocks": []}
    for kind in ("aa", "cpu"):
        (tmp_path / kind / "1").mkdir(parents=True)
        (tmp_path / kind / "1/gate.json").write_text(json.dumps(nothing))
    assert cli.exit_code(["gate", "selftest", "--replay", str(tmp_path)]) == 6
    assert "Nothing can be said" in capsys.readouterr().out


@pytest.mark.parametrize("finished", [0, 2])
def test_an_interrupted_self_test_says_what_its_finished_gates_gave(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, finished: int
) -> None:
    def record(*_: object, folder: Path, **__: object) -> None:
        for path in recorded("aa")[:finished]:
            shutil.copytree(path.parent, folder / "aa" / path.parent.name)
        raise GateInterrupted(3, folder)

    monkeypatch.setattr("tftpbench.gate.selftest.record", record)
    assert cli.exit_code(["gate", "selftest", "-o", str(tmp_path)]) == 130
    out, err = capsys.readouterr()
    if finished:
        assert out.startswith("Gates over equal code: 2 gates (2 pass).\nFalse alarms: 0 of 2 ")
        assert "\nInterrupted: these are the gates that had ended.\n" in out
    else:
        assert out == ""
        assert "interrupted after 3 pairs" in err


@pytest.mark.parametrize("kind", ["aa", *FAULTS])
def test_recorded_gates_are_judged_as_they_were_verdict_for_verdict_and_figure_for_figure(kind: str) -> None:
    """But for the smallest effect: its error was split otherwise since, and what it is now is a golden file."""
    golden = json.loads(SMALLEST_EFFECTS.read_text(encoding="utf-8"))
    for path in recorded(kind):
        result = load(path)
        gate = from_document(result.facts.scenario, "recorded").gate
        found = decide(result.pairs, gate.gated, gate.looks, has_ended=True)
        assert (found.verdict, found.failure) == (result.verdict, result.failure), path
        effects = golden[str(path.parent.relative_to(RECORDED))]
        before = [replace(each, smallest_effect=effects.get(each.metric)) for each in result.judgements]
        for now, then in zip(found.judgements, before, strict=True):
            same_figures(asdict(now), asdict(then))
        for noise, earlier in zip(found.noise, result.noise, strict=True):
            same_figures(asdict(noise), asdict(earlier))


def same_figures(now: dict[str, object], then: dict[str, object]) -> None:
    """Whether both say the same; figures may differ by what another version of a library rounds otherwise."""
    figures = {name for name, value in then.items() if isinstance(value, float)}
    for name, value in then.items():
        assert now[name] == (pytest.approx(value, rel=1e-9, abs=0) if name in figures else value), (name, then)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--replay", "ABSENT"], "holds no gate of a self-test"),
        (["--fault", "magic"], "'magic' is no fault; allowed: cpu"),
        (["--aa", "0"], "--aa is 0; allowed: 1 at least"),
        (["-s", "a" * 5000], "is no server"),
        (["-s", "absent"], "no server is called 'absent'"),
        (["--set", "gate.looks=[3]"], "gate.looks[0]"),
    ],
)
def test_what_can_not_be_tested_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    arguments = [str(tmp_path) if word == "ABSENT" else word for word in words]
    assert cli.exit_code(["gate", "selftest", *arguments, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


FIGURES: dict[str, float | None] = {
    "server_cpu_s_per_mib": 0.008192, "syscalls_per_block": 2.0, "data_pps": 200_000.0,
    "server_rss_bytes_max": 50 * 1024 * 1024,
}  # fmt: skip
KIB = 1024


def cell(**changes: object) -> Cell:
    [found] = load_scenario("gate").cells()
    return replace(found, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "variable", "size"),
    [
        ("cpu", "TFTPBENCH_FAULT_SPIN_NS", 400),  # a tenth of the 4000 ns that 512 bytes cost
        ("syscalls", "TFTPBENCH_FAULT_SYSCALLS_PER_1000", 80),  # 4 % of two calls a block
        ("pause", "TFTPBENCH_FAULT_PAUSE_NS", 556),  # the 5000 ns of a block take a ninth longer
        ("drops", "TFTPBENCH_FAULT_DROP_PER_MILLION", 1),  # each costs a second, and 2 s are 400,000 blocks
        ("memory", "TFTPBENCH_FAULT_MEMORY_BYTES", 10 * KIB * KIB),
    ],
)
def test_a_fault_is_twice_the_budget_of_its_metric(name: str, variable: str, size: int) -> None:
    fault = calibrated(name, BUDGETS, FIGURES, cell())
    assert fault.environment == {variable: str(size)}
    assert fault.metric == METRIC_OF[name]


def test_a_fault_is_twice_the_floor_where_that_is_more() -> None:
    few = {**FIGURES, "syscalls_per_block": 0.1, "server_rss_bytes_max": 2 * KIB * KIB}
    assert calibrated("syscalls", BUDGETS, few, cell()).environment == {"TFTPBENCH_FAULT_SYSCALLS_PER_1000": "20"}
    memory = calibrated("memory", BUDGETS, few, cell()).environment["TFTPBENCH_FAULT_MEMORY_BYTES"]
    assert int(memory) == 2 * KIB * KIB


def test_a_floor_that_is_less_than_the_budget_changes_nothing() -> None:
    some = {**FIGURES, "syscalls_per_block": 0.6}  # 2 % of it are 0.012 calls, and the floor is 0.01
    assert calibrated("syscalls", BUDGETS, some, cell()).environment == {"TFTPBENCH_FAULT_SYSCALLS_PER_1000": "24"}


def test_a_rate_can_lose_nine_tenths_at_most_and_a_cost_can_more_than_double() -> None:
    wide = dict.fromkeys(BUDGETS, 0.8)
    assert calibrated("pause", wide, FIGURES, cell()).environment == {"TFTPBENCH_FAULT_PAUSE_NS": "45000"}
    assert calibrated("cpu", wide, FIGURES, cell()).environment == {"TFTPBENCH_FAULT_SPIN_NS": "6400"}


def test_a_server_that_receives_sends_an_ack_for_a_window() -> None:
    written = calibrated("cpu", BUDGETS, FIGURES, cell(operation="write", windowsize=4))
    assert written.environment == {"TFTPBENCH_FAULT_SPIN_NS": "1600"}


def test_a_fault_can_be_made_larger_and_never_nothing() -> None:
    fault = calibrated("cpu", BUDGETS, FIGURES, cell())
    assert fault.scaled(1.5).environment == {"TFTPBENCH_FAULT_SPIN_NS": "600"}
    assert fault.scaled(0).environment == {"TFTPBENCH_FAULT_SPIN_NS": "1"}
    assert "400 ns" in fault.words


@pytest.mark.parametrize(
    ("name", "budgets", "base", "kind", "said"),
    [
        ("magic", BUDGETS, FIGURES, UsageError, "is no fault; allowed: cpu"),
        ("memory", {"data_pps": 0.05}, FIGURES, FaultsUnavailable, "server_rss_bytes_max has no budget"),
        ("cpu", BUDGETS, {}, FaultsUnavailable, "the base has no server_cpu_s_per_mib"),
        ("cpu", BUDGETS, {"server_cpu_s_per_mib": float("nan")}, FaultsUnavailable, "can.t be sized"),
    ],
)
def test_what_has_no_size_is_refused(
    name: str, budgets: dict[str, float], base: dict[str, float | None], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as error:
        calibrated(name, budgets, base, cell())
    assert "\n" not in str(error.value)


def test_without_a_compiler_there_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FaultsUnavailable, match=r"no C compiler in PATH.*apt install gcc") as error:
        compile_shim(tmp_path)
    assert "\n" not in str(error.value)


def test_a_source_that_does_not_compile_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not any(shutil.which(name) for name in faults.COMPILERS):
        pytest.skip("no C compiler here")
    broken = tmp_path / "broken.c"
    broken.write_text("int main(void) { return nothing; }\n")
    monkeypatch.setattr(faults, "SOURCE", broken)
    with pytest.raises(FaultsUnavailable, match=r"can't compile broken\.c") as error:
        compile_shim(tmp_path)
    assert "\n" not in str(error.value)


def test_a_fault_is_added_to_what_the_server_s_environment_has(tmp_path: Path) -> None:
    manifest, variant = choose_manifest("epoll")
    preloaded = manifest.with_env({"LD_PRELOAD": "/other.so", "KEPT": "1"})
    side = Contender(preloaded, variant, locate(preloaded))
    worse = with_fault(side, tmp_path / "fault.so", calibrated("cpu", BUDGETS, FIGURES, cell()))
    env = worse.server.environment("127.0.0.1", 1, tmp_path, 1)  # type: ignore[union-attr]
    assert env == {"LD_PRELOAD": f"{tmp_path}/fault.so:/other.so", "KEPT": "1", "TFTPBENCH_FAULT_SPIN_NS": "400"}
    assert "TFTPBENCH_FAULT_SPIN_NS" not in preloaded.env


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
