"""`gate baseline`: what may be compared, the verdicts, the exit codes, and what is said."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from tests.loopback.machine import tiny
from tests.unit.builders import RUN as FIXTURE
from tests.unit.builders import asked, manifest, store
from tftpbench.analysis.stats import trimmed
from tftpbench.cli.gate import commands, options
from tftpbench.gate.baseline import difference, figure, judge
from tftpbench.gate.document import load, text
from tftpbench.gate.result import GateResult, Judgement, Verdict
from tftpbench.gate.stored import baseline, refuse_here, stored
from tftpbench.host import machine
from tftpbench.model.errors import BaselineMissing, NotComparable, ResultsError, TftpbenchError, UsageError
from tftpbench.model.scenario import Scenario
from tftpbench.render.sections import Paragraph
from tftpbench.store import load_run, recording

pytestmark = pytest.mark.usefixtures("any_machine")

REFERENCE = Path(__file__).parents[3] / "results" / "reference"
SERVERS = ["epoll", "threads"]
Change = Callable[[dict[str, Any]], dict[str, Any]]


def question(**changes: object) -> Scenario:
    return asked(SERVERS, concurrency=(10,), **{"trials": 20, **changes})


def made(
    out: Path,
    scenario: Scenario | None = None,
    change: Change = lambda row: row,
    *,
    seed: int = 1,
    noise: float = 0.005,
    **facts: object,
) -> Path:
    """A run in which every trial is off by a little; `change` alters each row."""
    scenario = scenario or question()
    rng = np.random.default_rng(seed)
    here = machine.facts()
    keys = {"method_key": scenario.method_key, "host_key": machine.host_key(here)}
    rows: list[dict[str, Any]] = []
    for round_ in range(scenario.trials):
        for cell in scenario.cells():
            for contender in scenario.servers:
                rows.append(change(_row(len(rows) + 1, round_ + 1, cell, contender, float(rng.normal(0, noise)))))
    return store(out, manifest(scenario, machine=here, keys=keys, **facts), rows)


def _row(trial: int, round_: int, cell: Any, contender: str, off: float) -> dict[str, Any]:
    pps = 100_000 * float(np.exp(off))
    server, _, variant = contender.partition("@")
    return {
        "trial": trial,
        "order": trial,
        "round": round_,
        "started_at": f"2026-01-02T03:{trial // 60:02}:{trial % 60:02}.000+00:00",
        "cell_key": cell.key,
        "server": server,
        "variant": variant or None,
        "operation": cell.operation,
        "concurrency": cell.concurrency,
        "file_size_bytes": cell.file_size_bytes,
        "blksize": cell.blksize,
        "windowsize": cell.windowsize,
        "duration_s": 1.0,
        "failed": 0,
        "timed_out": 0,
        "content_mismatches": 0,
        "data_pps": pps,
        "server_cpu_ns_per_block": 9e8 / pps,
        "server_rss_bytes_max": 4_000_000,
        "verdict": "valid",
    }


def scaled(name: str, factor: float, server: str | None = None) -> Change:
    return lambda row: {**row, name: row[name] * factor} if server in (None, row["server"]) else row


def replaced(server: str | None = None, **figures: object) -> Change:
    return lambda row: {**row, **figures} if server in (None, row["server"]) else row


def judged(base: Path, head: Path) -> GateResult:
    return judge(baseline(base), stored(head))


def of(result: GateResult, metric: str, server: str = "epoll") -> Judgement:
    [found] = [each for each in result.judgements if each.metric == metric and each.cell.startswith(f"{server}, ")]
    return found


def test_a_server_called_as_a_verdict_stays_in_the_command_that_repeats_the_gate() -> None:
    words = options.command("baseline", "runs/a", server=["regressed", "epoll"], fail_on=options.FailOn.regressed)
    assert words[3:] == ["runs/a", "--server", "regressed", "--server", "epoll"]
    assert options.command("baseline", None, fail_on=options.FailOn.suspected)[3:] == ["--fail-on", "suspected"]


def test_quick_runs_are_not_held_against_each_other(tmp_path: Path) -> None:
    quick, whole = made(tmp_path / "a", question(quick=True)), made(tmp_path / "b")
    for base, head in ((quick, quick), (quick, whole), (whole, quick)):
        with pytest.raises(NotComparable, match=r"/a/[^:]+: not comparable: a quick run judges"):
            judged(base, head)
    with pytest.raises(NotComparable, match="a quick run judges no speed"):
        refuse_here(baseline(quick), SERVERS)


# ---- verdicts


def test_equal_runs_pass(tmp_path: Path) -> None:
    result = judged(made(tmp_path / "a"), made(tmp_path / "b", seed=2))
    assert (result.method, result.verdict, result.exit_code("inconclusive")) == ("baseline", "pass", 0)
    assert [(each.metric, each.cell, each.verdict) for each in result.gated] == [
        ("server_cpu_s_per_mib", "epoll, read, 10 at once, 64 KiB", "pass"),
        ("server_cpu_s_per_mib", "threads, read, 10 at once, 64 KiB", "pass"),
        ("data_pps", "epoll, read, 10 at once, 64 KiB", "pass"),
        ("data_pps", "threads, read, 10 at once, 64 KiB", "pass"),
    ]
    cpu = of(result, "server_cpu_s_per_mib")
    assert cpu.base == pytest.approx(9000 / 512 * 2**20 / 1e9, rel=0.01)
    assert cpu.low is not None
    assert cpu.high is not None
    assert cpu.ratio is not None
    assert cpu.low < cpu.ratio < cpu.high
    assert cpu.smallest_effect == pytest.approx(0.06, abs=0.01)
    assert (cpu.pairs, cpu.budget, cpu.detail.endswith("; 20 and 20 trials")) == (20, 0.05, True)
    assert (result.pairs, result.noise, result.failure) == ((), (), None)
    assert "another time (2026-01-02T03:00:01)" in result.remarks[0]
    assert "gate ab" in result.remarks[0]


@pytest.mark.parametrize(
    ("change", "metric", "verdict", "code"),
    [
        (scaled("server_cpu_ns_per_block", 1.2, "epoll"), "server_cpu_s_per_mib", "regressed", 3),
        (scaled("data_pps", 0.8, "epoll"), "data_pps", "regressed", 3),
        (scaled("server_cpu_ns_per_block", 0.8, "epoll"), "server_cpu_s_per_mib", "improved", 0),
        (scaled("data_pps", 1.2, "epoll"), "data_pps", "improved", 0),
        (scaled("data_pps", 0.948, "epoll"), "data_pps", "suspected", 0),
        (scaled("data_pps", 0.98, "epoll"), "data_pps", "pass", 0),
    ],
)
def test_the_word_is_of_the_server_and_the_metric_that_moved(
    tmp_path: Path, change: Change, metric: str, verdict: str, code: int
) -> None:
    result = judged(made(tmp_path / "a"), made(tmp_path / "b", change=change, seed=2))
    assert (result.verdict, result.exit_code()) == (verdict, code)
    assert of(result, metric).verdict == verdict
    assert of(result, metric, "threads").verdict == "pass"
    assert result.sentence.startswith(f"{verdict}: ")
    if verdict != "pass":
        assert "of epoll, read, 10 at once, 64 KiB" in result.sentence


def test_a_suspicion_fails_where_that_is_asked_for(tmp_path: Path) -> None:
    result = judged(made(tmp_path / "a"), made(tmp_path / "b", change=scaled("data_pps", 0.948), seed=2))
    assert [result.exit_code(fail_on) for fail_on in ("regressed", "suspected", "inconclusive")] == [0, 3, 3]


@pytest.mark.parametrize("factor", [0.8, 0.948, 0.97, 1.0, 1.03, 1.06, 1.25])
@pytest.mark.parametrize("name", ["data_pps", "server_cpu_ns_per_block"])
def test_swapping_the_runs_mirrors_the_verdict(tmp_path: Path, name: str, factor: float) -> None:
    a, b = made(tmp_path / "a"), made(tmp_path / "b", change=scaled(name, factor), seed=2)
    there, back = judged(a, b), judged(b, a)
    worse = {"regressed", "suspected"}
    for one, other in zip(there.gated, back.gated, strict=True):
        assert one.ratio == pytest.approx(1 / (other.ratio or 0))
        assert (one.low, one.high) == pytest.approx((1 / (other.high or 0), 1 / (other.low or 0)))
        assert not ({one.verdict, other.verdict} <= worse)
        assert not (one.verdict == other.verdict == "improved")
        assert (other.verdict == "improved") >= (one.verdict in worse)
        assert (one.verdict == "improved") >= (other.verdict in worse)


def test_noise_that_hides_twice_the_budget_is_no_verdict(tmp_path: Path) -> None:
    result = judged(made(tmp_path / "a", noise=0.2), made(tmp_path / "b", noise=0.2, seed=2))
    assert (result.verdict, result.exit_code()) == ("invalid", 6)
    details = {each.verdict: each.detail for each in result.gated}
    assert "too noisy" in details[Verdict.INVALID]


def test_identical_runs_alarm_no_more_often_than_promised(tmp_path: Path) -> None:
    """At the noise of real trials: one false alarm in a hundred, at the most."""
    scenario = question(trials=7)
    runs = [made(tmp_path / str(seed), scenario, seed=seed, noise=0.08) for seed in range(15)]
    opened = [baseline(path) for path in runs]
    verdicts = [judge(one, other).verdict for one in opened for other in opened if one is not other]
    assert len(verdicts) == 210
    assert sum(verdict in ("regressed", "suspected") for verdict in verdicts) <= 2


def test_a_difference_of_trimmed_means_has_the_degrees_of_freedom_of_welch() -> None:
    one, other = trimmed(np.arange(10.0)), trimmed(np.arange(20.0) * 3)
    found = difference(one, other)
    assert float(found.mean) == pytest.approx(4.5 - 28.5)
    assert float(found.error) == pytest.approx(np.hypot(one.error, other.error))
    assert min(one.freedom, other.freedom) <= found.freedom <= one.freedom + other.freedom
    alike = difference(one, one)
    assert (float(alike.mean), alike.freedom) == (0, 2 * one.freedom)
    still = difference(trimmed(np.ones(6)), trimmed(np.zeros(6)))
    assert (float(still.mean), float(still.error), float(still.p_above(0.5))) == (1, 0, 0)


# ---- figures that are not there


@pytest.mark.parametrize("value", [None, float("nan"), 0, float("inf")])
def test_a_figure_that_is_absent_is_inconclusive_and_says_so(tmp_path: Path, value: object) -> None:
    gone = replaced("epoll", server_cpu_ns_per_block=value)
    result = judged(made(tmp_path / "a"), made(tmp_path / "b", change=gone, seed=2))
    cpu = of(result, "server_cpu_s_per_mib")
    assert (cpu.verdict, cpu.head, cpu.ratio, cpu.pairs) == ("inconclusive", None, None, 0)
    assert "20 of 20 trials of the stored run and 0 of 20 of the new one" in cpu.detail
    assert (result.verdict, result.exit_code(), result.exit_code("inconclusive")) == ("inconclusive", 0, 4)
    assert json.loads(text(result))["verdict"] == "inconclusive"


def test_a_server_that_moves_nothing_any_more_has_failed(tmp_path: Path) -> None:
    still = replaced("epoll", data_pps=0, server_cpu_ns_per_block=None)
    result = judged(made(tmp_path / "a"), made(tmp_path / "b", change=still))
    assert (result.verdict, result.exit_code()) == ("regressed", 3)
    assert result.failure == (
        "epoll, read, 10 at once, 64 KiB: the server moved nothing in any trial, and did in the stored run"
    )


def test_a_server_that_dies_in_every_trial_has_failed_and_one_that_was_disturbed_has_not(tmp_path: Path) -> None:
    base = made(tmp_path / "a")
    bad = {"verdict": "invalid", "data_pps": None}
    died = replaced("epoll", **bad, server_findings=[{"kind": "died", "count": 1, "text": "exit code 1"}])
    assert judged(base, made(tmp_path / "b", change=died)).exit_code() == 3
    result = judged(base, made(tmp_path / "c", change=replaced("epoll", **bad, verdict_reason="the host was busy")))
    assert (result.verdict, result.exit_code(), result.failure) == ("inconclusive", 0, None)


def test_wrong_contents_fail_whatever_the_figures_say(tmp_path: Path) -> None:
    wrong: Change = lambda row: {**row, "verdict": "invalid", "content_mismatches": 2} if row["trial"] == 3 else row  # noqa: E731
    result = judged(made(tmp_path / "a"), made(tmp_path / "b", change=wrong))
    assert (result.verdict, result.exit_code()) == ("regressed", 3)
    assert result.failure == "epoll, read, 10 at once, 64 KiB: wrong contents in 2 transfers"


def test_fewer_than_six_valid_trials_of_a_side_are_inconclusive(tmp_path: Path) -> None:
    few: Change = lambda row: {**row, "verdict": "valid" if row["round"] <= 5 else "invalid", "data_pps": 1.0}  # noqa: E731
    result = judged(made(tmp_path / "a"), made(tmp_path / "b", change=few))
    pps = of(result, "data_pps")
    assert (result.verdict, pps.verdict, pps.low, pps.smallest_effect) == ("inconclusive", "inconclusive", None, None)
    assert pps.detail == (
        "too few to judge: 20 of 20 trials of the stored run and 5 of 20 of the new one are valid and know it; "
        "6 of each are needed"
    )


def test_system_calls_are_reported_as_unmeasured_and_not_judged(tmp_path: Path) -> None:
    calls = of(judged(made(tmp_path / "a"), made(tmp_path / "b")), "syscalls_per_block")
    assert (calls.verdict, calls.budget, calls.detail) == (None, None, "not measured in a run")


def test_a_budget_of_the_stored_scenario_counts(tmp_path: Path) -> None:
    budgets = {"data_pps": "30%", "server_rss_bytes_max": "10%", "server_cpu_s_per_mib": "off"}
    base = made(tmp_path / "a", question(gate={"budgets": budgets}))
    result = judged(base, made(tmp_path / "b", change=scaled("data_pps", 0.8), seed=2))
    assert (result.verdict, of(result, "data_pps").budget, of(result, "server_cpu_s_per_mib").verdict) == (
        "pass",
        0.3,
        None,
    )
    larger = [made(tmp_path / str(rss), change=replaced(server_rss_bytes_max=rss)) for rss in (4_800_000, 6_000_000)]
    under_one_mib, half_more = (of(judged(base, path), "server_rss_bytes_max") for path in larger)
    assert under_one_mib.verdict == "pass"
    assert under_one_mib.ratio == pytest.approx(1.2)
    assert under_one_mib.budget == pytest.approx(2**20 / 4_000_000)  # as it was judged: no less than 1 MiB
    assert half_more.verdict == "regressed"


def test_smaller_blocks_than_were_asked_for_cost_more_a_mebibyte() -> None:
    row = {"blksize": 1024, "server_cpu_ns_per_block": 1000.0}
    assert figure(row, "server_cpu_s_per_mib") == pytest.approx(1024 * 1000 / 1e9)
    assert figure({**row, "blksize_granted": 512}, "server_cpu_s_per_mib") == pytest.approx(2048 * 1000 / 1e9)
    assert figure({**row, "blksize": None}, "server_cpu_s_per_mib") is None
    assert figure({"data_pps": True}, "data_pps") is None


# ---- what may be compared


def with_fact(name: str, value: object) -> Mapping[str, object]:
    return {**machine.facts(), name: value}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trials": 8}, "method_key differs: trials (20 and 8)"),
        ({"duration": "2s"}, "method_key differs: duration (1s and 2s)"),
        ({"warm_up": "1s"}, "method_key differs: warm_up (200ms and 1s)"),
        ({"matrix": {"operation": "read", "concurrency": 11, "file_size": "64KiB"}},
         "cell_key differs: concurrency (10 and 11)"),
        ({"verify": "off"}, "cell_key differs: verify (full and off)"),
        ({"client": {"retries": 4}}, "cell_key differs: client.retries (5 and 4)"),
    ],
)  # fmt: skip
def test_other_work_or_another_method_is_refused_by_name(
    tmp_path: Path, changes: Mapping[str, object], said: str
) -> None:
    a, b = made(tmp_path / "a"), made(tmp_path / "b", question(**changes))
    with pytest.raises(NotComparable) as refused:
        judged(a, b)
    assert str(refused.value).startswith(f"{a} and {b} can't be compared: {said}; ")
    assert (refused.value.exit_code, "\n" in str(refused.value)) == (5, False)


def test_another_machine_is_refused_by_name_before_anything_is_measured(tmp_path: Path) -> None:
    facts = with_fact("cpus", 3)
    path = made(tmp_path / "a")
    whole = json.loads((path / "manifest.json").read_text())
    whole["machine"], whole["keys"]["host_key"] = facts, machine.host_key(facts)
    (path / "manifest.json").write_text(json.dumps(whole))
    said = f"can't be compared: host_key differs: cpus (3 and {machine.facts()['cpus']})"
    with pytest.raises(NotComparable, match=r"a run here and now can't be compared: host_key differs: cpus"):
        refuse_here(baseline(path), SERVERS)
    with pytest.raises(NotComparable) as refused:
        judged(path, made(tmp_path / "b"))
    assert said in str(refused.value)


def test_a_run_like_the_stored_one_is_not_refused(tmp_path: Path) -> None:
    refuse_here(baseline(made(tmp_path / "a")), ["epoll", "other"])


def test_servers_that_the_stored_run_has_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotComparable, match=r"the servers differ \(epoll, threads and other\)"):
        refuse_here(baseline(made(tmp_path / "a")), ["other"])


def test_an_unknown_machine_is_not_the_same_machine(tmp_path: Path) -> None:
    path = made(tmp_path / "a")
    whole = json.loads((path / "manifest.json").read_text())
    del whole["keys"]["host_key"]
    (path / "manifest.json").write_text(json.dumps(whole))
    with pytest.raises(NotComparable, match="host_key is not known of the first"):
        judged(path, path)


def test_another_version_of_the_estimator_is_refused_as_such() -> None:
    """The golden run was measured before the estimator had its present name."""
    with pytest.raises(NotComparable, match=r"order of trials or estimator, as versions of tftpbench do \(0\.1\.0 at "):
        refuse_here(baseline(FIXTURE), ["epoll"])


def test_what_only_one_run_has_is_reported_and_not_judged(tmp_path: Path) -> None:
    alone = asked(["epoll"], concurrency=(10,), trials=20)
    result = judged(made(tmp_path / "a"), made(tmp_path / "b", alone))
    assert {each.cell.partition(",")[0] for each in result.judgements} == {"epoll"}
    assert "Only in the stored run, so not judged: threads, read, 10 at once, 64 KiB." in result.remarks
    assert (result.base.name, result.head.version, result.head.argv) == ("epoll", "1.0", ("x", "{port}"))
    with pytest.raises(NotComparable, match=r"no server and cell in common \(epoll, threads in the first, tftpy in"):
        judged(made(tmp_path / "c"), made(tmp_path / "d", asked(["tftpy"], concurrency=(10,), trials=20)))


def test_reference_runs_are_judged_on_the_cells_that_both_have() -> None:
    result = judged(REFERENCE / "attribution", REFERENCE / "concurrency")
    assert len(result.gated) == 2 * 2 * 3
    assert any(
        remark.startswith("Only in the stored run, so not judged: epoll@unbatched, ") for remark in result.remarks
    )
    own = judged(REFERENCE / "concurrency", REFERENCE / "concurrency")
    assert "Both are the same run." in own.remarks
    assert not {each.verdict for each in own.gated} & {"regressed", "suspected", "improved"}
    assert all(each.ratio in (None, 1) for each in own.judgements)


# ---- no baseline


def test_what_is_no_baseline_says_how_to_make_one(tmp_path: Path) -> None:
    none_valid = made(tmp_path / "invalid", change=replaced(verdict="invalid"))
    torn = made(tmp_path / "torn")
    (torn / "manifest.json").write_text("{")
    unanswered = made(tmp_path / "unanswered")
    whole = json.loads((unanswered / "manifest.json").read_text())
    (unanswered / "manifest.json").write_text(json.dumps({**whole, "scenario": {"name": "x"}}))
    newer = made(tmp_path / "newer")
    (newer / "manifest.json").write_text(json.dumps({**whole, "schema": "tftpbench.run/2"}))
    seedless = made(tmp_path / "seedless")
    (seedless / "manifest.json").write_text(json.dumps({**whole, "schema": "tftpbench.run/1", "seed": -1}))
    empty = made(tmp_path / "empty")
    (empty / "trials.jsonl").write_text("")
    for path, why in (
        (tmp_path / "nowhere", "is no run folder"),
        (none_valid, "none of its 40 trials is valid"),
        (torn, "is not JSON"),
        (unanswered, "manifest.json"),
        (newer, "has the schema 'tftpbench.run/2'"),
        (seedless, "seed is -1"),
        (empty, "none of its 0 trials is valid"),
    ):
        with pytest.raises(BaselineMissing) as missing:
            baseline(path)
        text = str(missing.value)
        assert (text.startswith("no baseline: "), why in text, missing.value.exit_code) == (True, True, 5), text
        assert text.endswith("make one on this machine with: tftpbench run SCENARIO, and keep the folder that it names")


def test_a_scenario_that_gates_what_no_run_measures_is_refused(tmp_path: Path) -> None:
    budgets = {"data_pps": "off", "server_cpu_s_per_mib": "off"}
    with pytest.raises(UsageError, match="its scenario gates syscalls_per_block only"):
        baseline(made(tmp_path / "a", question(gate={"budgets": budgets})))


# ---- the command


@pytest.fixture
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written for people, in one line."""
    monkeypatch.setattr(
        "tftpbench.render.gate.sections", lambda result, _width: [Paragraph((f"brief: {result.verdict}",))]
    )


def typed(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    app = typer.Typer()
    app.command()(commands.baseline)
    try:
        code = app([str(argument) for argument in arguments], standalone_mode=False)
    except TftpbenchError as error:
        code = error.exit_code
        print(error, file=sys.stderr)
    captured = capsys.readouterr()
    return int(code or 0), captured.out, captured.err


@pytest.mark.usefixtures("_brief")
def test_a_stored_run_is_judged_and_its_reports_lie_in_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a, b = made(tmp_path / "a"), made(tmp_path / "b", change=scaled("data_pps", 0.8), seed=2)
    assert typed(capsys, a, "--run", b) == (3, "\nbrief: regressed\n", "")
    assert {"gate.json", "report.md", "junit.xml"} <= {path.name for path in (b / "gate").iterdir()}
    kept = load(b / "gate")
    assert (kept.verdict, kept.folder) == ("regressed", str(b / "gate"))
    assert kept.facts.command == ("tftpbench", "gate", "baseline", str(a), "--run", str(b))
    assert load_run(b).problems == load_run(a).problems
    assert typed(capsys, a, "--run", b, "--report-only", "--quiet") == (0, "brief: regressed\n", "")


@pytest.mark.usefixtures("_brief")
def test_json_is_the_document_and_nothing_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a = made(tmp_path / "a")
    code, out, err = typed(capsys, a, "--run", a, "--json")
    assert (code, json.loads(out)["method"], err) == (0, "baseline", "\nbrief: pass\n")
    assert typed(capsys, a, "--run", a, "--json", "--quiet")[2] == ""


@pytest.mark.usefixtures("_brief")
def test_fail_on_is_obeyed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a, b = made(tmp_path / "a"), made(tmp_path / "b", change=replaced(server_cpu_ns_per_block=None))
    assert typed(capsys, a, "--run", b)[0] == 0
    assert typed(capsys, a, "--run", b, "--fail-on", "inconclusive")[0] == 4
    assert typed(capsys, a, "--run", b, "--fail-on", "inconclusive", "--report-only")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere"], 5, "no baseline: nowhere: is no run folder"),
        (["{a}", "--run", "nowhere"], 2, "nowhere: is no run folder"),
        (["{a}", "--run", "{a}", "--seed", "1", "-s", "epoll"], 2, "leave --server and --seed out"),
        (["{a}", "--run", "{a}", "-o", "x"], 2, "leave --out out"),
        (["{fixture}"], 5, "method_key differs"),
        (["{a}", "-s", "absent"], 2, "absent"),
    ],
)
def test_what_cannot_be_judged_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    a = made(tmp_path / "a")
    found = typed(capsys, *(each.format(a=a, fixture=FIXTURE) for each in arguments))
    assert (found[0], found[1], said in found[2], found[2].count("\n")) == (code, "", True, 1), found


@pytest.mark.usefixtures("_brief")
def test_without_a_run_the_stored_scenario_is_measured_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, asked_for = made(tmp_path / "a"), []

    def measured(scenario: Scenario, *, seed: int, out: Path, **_: object) -> object:
        asked_for.append((scenario.servers, seed, out))
        return type("Report", (), {"folder": made(out, scenario, seed=5)})

    monkeypatch.setattr(recording, "run", measured)
    assert typed(capsys, base, "-o", tmp_path / "out", "--quiet") == (0, "brief: pass\n", "")
    assert typed(capsys, base, "-s", "epoll", "--seed", "9", "-o", tmp_path / "out", "--quiet")[0] == 0
    assert asked_for == [(("epoll", "threads"), 3, tmp_path / "out"), (("epoll",), 9, tmp_path / "out")]


@pytest.mark.usefixtures("_brief")
def test_a_run_is_measured_and_held_against_one_that_was_measured_before(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Live, with a server that answers a few blocks: whatever the verdict is, it comes of six trials a side."""
    scenario = asked(
        [str(tiny(tmp_path, "ok"))], matrix={"operation": "read", "concurrency": 1, "file_size": "1KiB"},
        duration=None, transfers=2, trials=6,
    )  # fmt: skip
    base = recording.run(scenario, seed=1, out=tmp_path / "out").folder
    code, out, err = typed(capsys, base, "-o", tmp_path / "out", "--report-only")
    assert (code, out.startswith("\nbrief: ")) == (0, True)
    assert "[6/6]" in err
    [new] = [path for path in (tmp_path / "out").iterdir() if path != base]
    kept = load(new / "gate")
    assert {each.pairs for each in kept.gated if each.metric == "data_pps"} == {6}
    assert kept.facts.command[:3] == ("tftpbench", "gate", "baseline")


@pytest.mark.usefixtures("_brief")
def test_reports_that_cannot_be_written_leave_the_verdict_on_the_screen(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    a, b = made(tmp_path / "a"), made(tmp_path / "b")
    (b / "gate").write_text("in the way")
    code, out, err = typed(capsys, a, "--run", b)
    assert (code, out, err.count("\n")) == (2, "\nbrief: pass\n", 1)
    assert str(b / "gate") in err


def test_a_torn_trial_of_either_run_is_reported(tmp_path: Path) -> None:
    a = made(tmp_path / "a")
    b = Path(shutil.copytree(a, tmp_path / "b"))
    lines = (b / "trials.jsonl").read_text().splitlines()
    (b / "trials.jsonl").write_text("\n".join(lines[:-1]) + "\n{torn")
    with pytest.warns(UserWarning, match="torn"):
        result = judged(a, b)
    assert any(remark.startswith("The new run: ") and "torn" in remark for remark in result.remarks)


def test_a_new_run_that_is_none_is_a_file_error_and_no_missing_baseline(tmp_path: Path) -> None:
    with pytest.raises(ResultsError) as refused:
        stored(tmp_path)
    assert refused.value.exit_code == 2
