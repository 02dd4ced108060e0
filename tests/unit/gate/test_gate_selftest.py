"""The self-test: what the recorded one says, again and again, and what can't be tested."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.fixtures.unpacked import GATES as RECORDED
from tftpbench import cli
from tftpbench.gate import GateInterrupted
from tftpbench.gate.decision import decide
from tftpbench.gate.document import load
from tftpbench.gate.selftest.faults import METRIC_OF
from tftpbench.gate.selftest.resampling import mirrored, permuted
from tftpbench.gate.selftest.run import SelfTested, evaluate
from tftpbench.model.scenario import from_document

# Of every recorded gate and metric, as it has been judged since the error was split over looks and sign tests.
SMALLEST_EFFECTS = Path(__file__).parents[2] / "fixtures/gate-smallest-effects.json"
FAULTS = ("cpu", "syscalls", "drops", "memory")


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

    monkeypatch.setattr("tftpbench.gate.selftest.run.evaluate", once)
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

    monkeypatch.setattr("tftpbench.gate.selftest.run.record", record)
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
