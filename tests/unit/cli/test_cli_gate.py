"""The gate on a terminal: the sentence first, a line for each metric; and `gate slo`, thresholds as limits."""

import io
import json
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import typer

from tests.loopback.machine import tiny
from tests.unit.builders import RUN as FIXTURE
from tests.unit.builders import asked, manifest, rows, store
from tests.unit.gate.gate_results import BUDGETS, LOOKS, every, gate, made_pairs
from tftpbench import cli
from tftpbench.cli.gate import commands
from tftpbench.cli.gate.watch import watch
from tftpbench.gate import GateStarted, InterimLook, PairFinished, decide
from tftpbench.gate.result import Arm, FailOn, GateResult, Side, Verdict
from tftpbench.gate.slo import judge
from tftpbench.gate.stored import stored
from tftpbench.gate.text import change, remarks, sentence
from tftpbench.measure import Pinning
from tftpbench.model.errors import TftpbenchError, UsageError
from tftpbench.model.scenario_files import load_scenario
from tftpbench.render.gate import sections
from tftpbench.render.plain import plain, table_lines
from tftpbench.render.sections import Table

RESULTS = every()
APART, TOGETHER = Pinning((1,), (0,), ()), Pinning((0,), (0,), ())


def render(result: GateResult, *, colour: bool) -> str:
    return plain(sections(result), colour=colour)


@pytest.mark.parametrize("name", RESULTS)
def test_the_sentence_comes_first_and_every_metric_has_a_line(name: str) -> None:
    result = RESULTS[name]
    lines = render(result, colour=False).splitlines()
    assert lines[0] == result.sentence or name == "hostile"
    table = [line for line in lines if "blocks per second" in line and not line.startswith("  pairs")]
    assert len(table) >= len({each.cell for each in result.judgements})


def test_nothing_from_outside_moves_the_terminal() -> None:
    text = render(RESULTS["hostile"], colour=False)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text)


def test_colour_is_only_where_it_is_asked_for() -> None:
    assert "\x1b[31m" in render(RESULTS["regressed"], colour=True)
    assert "\x1b" not in render(RESULTS["regressed"], colour=False)


def test_the_command_and_the_folder_stand_at_the_end() -> None:
    lines = render(replace(RESULTS["pass"], folder="results/x"), colour=False).splitlines()
    assert lines[-2] == "Files:  results/x"
    assert lines[-1].startswith("Repeat: tftpbench gate ab --base ./base")


@pytest.mark.parametrize(
    ("verdict", "fail_on", "code"),
    [
        ("pass", "inconclusive", 0), ("improved", "inconclusive", 0), ("regressed", "regressed", 3),
        ("suspected", "regressed", 0), ("suspected", "suspected", 3), ("suspected", "inconclusive", 3),
        ("inconclusive", "suspected", 0), ("inconclusive", "inconclusive", 4), ("invalid", "regressed", 6),
    ],
)  # fmt: skip
def test_each_verdict_has_its_exit_code(verdict: str, fail_on: FailOn, code: int) -> None:
    assert replace(gate(), verdict=Verdict(verdict)).exit_code(fail_on) == code


def said(effects: dict[str, float], names: tuple[str, str] = ("old", "new")) -> str:
    sides = Side(names[0], "tftpd", "1", (), ""), Side(names[1], "tftpd", "2", (), "")
    return sentence(decide(made_pairs(12, effects=effects), BUDGETS, LOOKS), sides, load_scenario("gate"), APART.phrase)


def test_the_sentence_says_the_verdict_by_how_much_and_of_which_server() -> None:
    text = said({"server_cpu_s_per_mib": 0.2})
    assert re.match(r"regressed: CPU time per MiB \+2\d\.\d % \(\+\d+\.\d to \+\d+\.\d; budget 5 %\); tftpd", text)
    assert text.endswith("tftpd (new) against tftpd (old), read, 100 at once, 64 KiB, 12 pairs, on separate cores.")
    assert said({}, ("tftpd", "tftpd")).startswith("no regression in 4 figures (CPU time per MiB ")
    assert "tftpd against tftpd" in said({}, ("tftpd", "tftpd"))
    assert said({"data_pps": -0.2}).startswith("no regression, and better: ")


def test_too_little_is_said_to_be_no_verdict() -> None:
    sides = Side("a", "a", "1", (), ""), Side("b", "b", "2", (), "")
    found = decide(made_pairs(3), BUDGETS, LOOKS)
    assert sentence(found, sides, load_scenario("gate"), "on one core").startswith("no verdict: too few valid pairs")


def test_a_noisy_machine_is_given_its_noise_floor() -> None:
    sides = Side("a", "a", "1", (), ""), Side("b", "b", "2", (), "")
    noisy = decide(made_pairs(30, noise=12), BUDGETS, LOOKS)
    text = sentence(noisy, sides, load_scenario("gate"), "on one core")
    assert text.startswith("no verdict, as this machine is too noisy: CPU time per MiB: only a loss of ")
    assert "% or more would have been caught (budget 5 %)" in text


def test_remarks_tell_what_makes_the_figures_weaker() -> None:
    recorded = made_pairs(3)
    recorded[0] = replace(recorded[0], invalid="base: the host took 9.0% of the cores' time")
    found = remarks(recorded, ["System calls were not counted: why."], TOGETHER)
    assert found[0] == "System calls were not counted: why."
    assert found[1].startswith("1 of 3 pairs was invalid: pair 1, base: the host took")
    assert "on one core" in found[2]
    assert remarks(made_pairs(3), [], APART) == ()
    forking = replace(recorded[1], arms={"base": Arm({"server_processes_max": 40.0})})
    assert remarks([forking], [], APART)[0].startswith("Peak memory was not judged")


def events() -> list[object]:
    recorded = made_pairs(12, effects={"data_pps": 0.056})
    begun = GateStarted(LOOKS, {"k": "read: 20 slices of 100 transfers"}, "on separate cores", ("A note.",))
    odd = replace(recorded[0], invalid="head: \x1b[2J")
    return [
        begun,
        *(PairFinished(pair, 1) for pair in (*recorded, odd)),
        InterimLook(decide(recorded, BUDGETS, LOOKS)),
    ]


def test_a_log_has_a_line_a_look_and_none_for_a_pair_that_counts() -> None:
    stream = io.StringIO()
    show = watch(stream, quiet=False)
    for event in events():
        show(event)  # type: ignore[arg-type]
    lines = stream.getvalue().splitlines()
    assert lines[:4] == [
        "Base and head have started, on separate cores.", "  A verdict can come after 12, 20 or 30 pairs.",
        "  read: 20 slices of 100 transfers", "  A note.",
    ]  # fmt: skip
    assert lines[4] == "pair 1 is invalid: head: \\u001b[2J"
    assert lines[5] == "after 12 pairs:"
    assert any(line.startswith("  suspected: blocks per second -") for line in lines[6:])
    assert len(lines) == 6 + len(BUDGETS)


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_a_terminal_sees_the_last_pair_with_the_time_left_and_quiet_sees_nothing(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", str(columns))
    live, silent = Terminal(), io.StringIO()
    for stream, quiet in ((live, False), (silent, True)):
        clock = iter(range(0, 1000, 10))
        show = watch(stream, quiet=quiet, clock_s=lambda clock=clock: next(clock))  # type: ignore[misc]
        for event in events():
            show(event)  # type: ignore[arg-type]
    lines = re.findall(r"pair 12 of [^\r\n]*", live.getvalue())
    assert lines == ["pair 12 of at most 30, up to 3 min left, base 202 k, head 188 k blocks/s"[: columns - 1]]
    assert silent.getvalue() == ""


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", sorted(RESULTS.keys() - {"hostile", "empty"}))
def test_the_table_is_no_wider_than_the_terminal_and_has_what_decides(name: str, width: int) -> None:
    result = RESULTS[name]
    [table] = [each for each in sections(result, width) if isinstance(each, Table)]
    lines = [line for line in table_lines(table) if not any(line == each.cell for each in result.judgements)]
    assert max(map(len, lines)) <= width
    titles = [heading.title for heading in table.headings]
    assert {"metric", "change (95 % interval)", "budget", "verdict"} <= {*titles}
    assert ({"base", "head", "caught from"} <= {*titles}) is (width == 120)


def test_a_metric_without_a_figure_says_so() -> None:
    result: GateResult = RESULTS["no syscalls"]
    [calls] = [each for each in result.judgements if each.metric == "syscalls_per_block"]
    assert change(calls) == "system calls per block not measured"


@pytest.mark.parametrize("command", ["ab", "baseline", "slo", "selftest"])
def test_help_ends_with_examples_that_are_understood(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert cli.exit_code(["gate", command, "--help"]) == 0
    examples = capsys.readouterr().out.partition("\nExamples:\n")[2].splitlines()
    assert examples
    group = typer.main.get_group(cli.app).commands["gate"]
    for example in examples:
        program, gate_, name, *words = shlex.split(example)
        assert (program, gate_, name) == ("tftpbench", "gate", command)
        group.commands[name].make_context(name, words)  # type: ignore[attr-defined]


pytestmark = pytest.mark.usefixtures("any_machine")

REFERENCE = Path(__file__).parents[3] / "results" / "reference"
SCENARIO = """\
schema: tftpbench.scenario/1
name: typed
description: What is held?
servers: [{server}]
matrix: {{operation: read, concurrency: 1, file_size: 1KiB}}
transfers: 2
trials: 1
thresholds: ["failed == 0", "content_mismatches == 0"]
"""


def made(
    out: Path,
    thresholds: list[str],
    change: Mapping[str, object] | None = None,
    *,
    only: object = None,
    **facts: object,
) -> Path:
    """Two servers, two cells, seven trials; `change` alters the rows of the server `only`, None: of all."""
    scenario = asked(["epoll", "threads"], thresholds=thresholds)
    altered: list[dict[str, Any]] = [
        {**row, **(change or {})} if only in (None, row["server"]) else row for row in rows(scenario)
    ]
    return store(out, manifest(scenario, **facts), altered)


@pytest.mark.parametrize(
    ("thresholds", "change", "code", "sentence"),
    [
        (["failed == 0"], {}, 0, "held: 1 threshold, judged 4 times"),
        (["failed == 0", "epoll.data_pps > 1000"], {}, 0, "held: 2 thresholds, judged 6 times"),
        (["failed == 0"], {"failed": 3, "completed": 495}, 3,
         "missed: failed == 0 [epoll, read, 10 at once, 64 KiB]: 3, missed in 7 of 7 trials; and 3 more"),
        (["threads.data_pps > 80000"], {}, 3, "missed: threads.data_pps > 80000 [threads, read, 10 at once, 64 KiB]: "),
        (["ceiling_ratio > 0.5"], {}, 6, "not known: ceiling_ratio > 0.5 [epoll, "),
        (["ceiling_ratio >= 95%"], {"data_pps": 12e4, "ceiling_data_pps": 1e5, "ceiling_ratio": 1.2}, 6,
         "not known: ceiling_ratio >= 95% [epoll, read, 10 at once, 64 KiB]: the machine changed; not usable"),
        (["ceiling_ratio > 0.5", "failed == 0"], {"failed": 1, "completed": 497}, 3, "missed: failed == 0 "),
        (["failed == 0"], {"verdict": "invalid"}, 6, "not known: failed == 0 [epoll, "),
        (["content_mismatches == 0"], {"verdict": "invalid", "content_mismatches": 1}, 3, "missed: content_mismatches"),
        (["data_pps > 0"], {"data_pps": float("nan")}, 6, "not known: data_pps > 0 [epoll, "),
        (["data_pps > 0"], {"data_pps": 0}, 3, "missed: data_pps > 0 [epoll, "),
        (["transfer_ns_max <= 5s"], {"transfer_ns_max": 7.28e9}, 3,
         "missed: transfer_ns_max <= 5s [epoll, read, 10 at once, 64 KiB]: 7.28 s, limit 5 s, largest of 7 valid"),
    ],
)  # fmt: skip
def test_every_limit_must_be_kept_and_known(
    tmp_path: Path, thresholds: list[str], change: Mapping[str, object], code: int, sentence: str
) -> None:
    found = judge(stored(made(tmp_path, thresholds, change)))
    assert (found.exit_code, found.sentence.startswith(sentence)) == (code, True), found.sentence


def test_few_valid_trials_hold_nothing_but_can_miss(tmp_path: Path) -> None:
    path = made(tmp_path, ["data_pps > 80000"])
    lines = [json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines()]
    kept = [{**row, "verdict": "valid" if row["round"] <= 3 else "invalid"} for row in lines]
    (path / "trials.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in kept))
    limits = {limit.server: limit for limit in judge(stored(path)).limits}
    assert (limits["epoll"].state, limits["epoll"].detail) == ("not known", "only 3 of 7 trials are valid")
    assert limits["threads"].state == "missed"


def test_a_server_without_a_trial_holds_nothing(tmp_path: Path) -> None:
    path = made(tmp_path, ["failed == 0"])
    kept = [line for line in (path / "trials.jsonl").read_text().splitlines() if '"epoll"' in line]
    (path / "trials.jsonl").write_text("".join(f"{line}\n" for line in kept))
    found = judge(stored(path))
    assert found.exit_code == 6
    assert "[threads, read, 10 at once, 64 KiB]: no trial of it was done" in found.sentence


def test_what_was_left_out_of_one_cell_is_asked_nothing_there(tmp_path: Path) -> None:
    key = asked(["epoll", "threads"]).cells()[1].key
    skipped = [{"server": "threads", "cell_key": key, "reason": "does no such cell"}]
    assert len(judge(stored(made(tmp_path, ["failed == 0"], skipped=skipped))).limits) == 3


def test_a_threshold_that_no_server_was_measured_for_is_not_known(tmp_path: Path) -> None:
    skipped = [{"server": "threads", "cell_key": None, "reason": "is not here"}]
    found = judge(stored(made(tmp_path, ["failed == 0", "threads.failed == 0"], skipped=skipped)))
    assert (found.exit_code, found.sentence) == (
        6,
        "not known: threads.failed == 0 [threads, every cell]: no server was measured for it (threads: is not here)",
    )


def test_of_a_quick_run_only_what_was_lost_is_held(tmp_path: Path) -> None:
    def quick(name: str, thresholds: list[str], **changes: object) -> Path:
        scenario = asked(["epoll", "threads"], thresholds=thresholds).quick()
        return store(tmp_path / name, manifest(scenario), [{**row, **changes} for row in rows(scenario)])

    invalid = {"verdict": "invalid", "verdict_reason": "the generator was saturated"}
    held = judge(stored(quick("held", ["failed == 0", "data_pps > 1e9"], **invalid)))
    assert (held.exit_code, held.sentence) == (0, "held: 1 threshold, judged 4 times")
    assert judge(stored(quick("missed", ["failed == 0"], failed=1, completed=497))).exit_code == 3
    with pytest.raises(UsageError, match="is a quick run, of which no speed is judged; measure it without --quick"):
        judge(stored(quick("speed", ["data_pps > 1e9"])))


def test_a_scenario_without_thresholds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no thresholds, so there is nothing to hold; add some"):
        judge(stored(made(tmp_path, [])))


def test_stored_runs_of_other_days_are_judged() -> None:
    assert judge(stored(FIXTURE)).sentence == "held: 1 threshold, judged 2 times"
    assert judge(stored(REFERENCE / "concurrency")).exit_code == 0
    # Half of its trials were the generator's limit.
    assert judge(stored(REFERENCE / "ceiling")).exit_code == 6


# ---- the command


def typed(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    app = typer.Typer()
    app.command()(commands.slo)
    try:
        code = app([str(argument) for argument in arguments], standalone_mode=False)
    except TftpbenchError as error:
        code = error.exit_code
        print(error, file=sys.stderr)
    captured = capsys.readouterr()
    return int(code or 0), captured.out, captured.err


def test_a_stored_run_is_judged_and_its_reports_lie_in_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = made(tmp_path, ["failed == 0"], {"failed": 1, "completed": 497}, only="threads")
    code, out, _ = typed(capsys, "--run", path)
    assert code == 3
    assert out.startswith("\nmissed: failed == 0 [threads, read, 10 at once, 64 KiB]: 1, missed in 7 of 7 trials; ")
    assert "✗ failed == 0" in out
    failures = ET.fromstring((path / "junit.xml").read_text()).findall(".//failure")
    assert len(failures) == 2
    assert (path / "report.md").read_text().startswith("# ")
    assert not (path / "answer.txt").exists()
    assert typed(capsys, "--run", path, "--report-only")[0] == 0


def test_json_is_the_runs_document_with_the_gates_judgement(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = made(tmp_path, ["ceiling_ratio > 0.5"])
    code, out, err = typed(capsys, "--run", path, "--json", "--quiet")
    document = json.loads(out)
    assert (code, document["exit_code"], document["schema"]) == (6, 6, "tftpbench.summary/1")
    assert (document["slo"][:9], len(document["thresholds"]), len(document["trials"])) == ("not known", 4, 28)
    assert "not known: " not in err


def test_a_scenario_is_measured_and_held(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    scenario = tmp_path / "typed.yaml"
    scenario.write_text(SCENARIO.format(server=tiny(tmp_path, "ok")))
    out = tmp_path / "out"
    code, text, err = typed(capsys, scenario, "-o", out, "--seed", "5")
    [folder] = out.iterdir()
    assert code == 0, text + err
    assert text.startswith("\nheld: 2 thresholds, judged 2 times\n")
    assert f"Repeat: tftpbench gate slo {scenario} --seed 5 --out {out}\n" in text
    assert {"answer.txt", "junit.xml", "report.md"} <= {path.name for path in folder.iterdir()}
    code, text, _ = typed(capsys, scenario, "-o", out, "--set", 'thresholds=["data_pps > 1e12"]', "--quiet")
    assert (code, text.startswith("missed: data_pps > 1000000000000 [ok, ")) == (3, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "name a scenario to measure, or a run that exists with --run RUN"),
        (["concurrency", "--run", "x"], 2, "one of the two"),
        (["--run", "nowhere"], 2, "nowhere: is no run folder"),
        (["--run", "x", "--seed", "1", "--set", "trials=2"], 2, "leave --set and --seed out"),
        (["landscape"], 2, "landscape: has no thresholds, so there is nothing to hold"),
        (["no-such-scenario"], 2, "no-such-scenario"),
        (["concurrency", "--set", "trials=0"], 2, "trials"),
    ],
)
def test_what_cannot_be_held_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    found = typed(capsys, *arguments)
    assert (found[0], found[1], said in found[2], found[2].count("\n")) == (code, "", True, 1), found
