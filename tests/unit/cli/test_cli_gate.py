"""What the gate says on a terminal: the sentence first, a line for each metric, and nothing that moves the terminal."""

import io
import re
import shlex
from dataclasses import replace

import pytest
import typer

from tests.unit.gate.gate_results import BUDGETS, LOOKS, every, gate, made_pairs
from tftpbench import cli
from tftpbench.cli.gate.watch import watch
from tftpbench.gate import GateStarted, InterimLook, PairFinished, decide
from tftpbench.gate.result import Arm, FailOn, GateResult, Side, Verdict
from tftpbench.gate.text import change, remarks, sentence
from tftpbench.measure import Pinning
from tftpbench.model.scenario_files import load_scenario
from tftpbench.render.gate.sections import sections
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
