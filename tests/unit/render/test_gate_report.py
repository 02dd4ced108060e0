"""The gate's report for people and for CI servers: verdict first, all of it there, nothing from outside is markup."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.unit.gate.gate_results import CELL, HOSTILE, every, gate
from tftpbench.gate.document import load
from tftpbench.gate.result import FailOn, Judgement, Verdict
from tftpbench.model.errors import ResultsError
from tftpbench.model.escape import visible
from tftpbench.render.gate import write, write_junit, write_markdown
from tftpbench.render.gate_figures import passing, save_figures

# Drawing takes seconds on a machine that does other things too.
pytestmark = pytest.mark.timeout(120)

RESULTS = every()
each_result = pytest.mark.parametrize("name", RESULTS)
GITHUB_COMMENT_MAX = 65_536


def rows(text: str) -> list[list[str]]:
    """Cells of the table's lines, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def row_of(text: str, words: str) -> list[str]:
    [found] = [row for row in rows(text) if words in row[0]]
    return found


@pytest.mark.parametrize(
    ("name", "mark"),
    [("pass", "✅"), ("regressed", "❌"), ("improved", "🚀"), ("suspected", "⚠️"), ("inconclusive", "❔"),
     ("invalid", "🚫"), ("failure", "❌")],
)  # fmt: skip
def test_the_verdict_is_the_first_line(name: str, mark: str) -> None:
    first = write_markdown(RESULTS[name]).splitlines()[0]
    assert first == f"**{mark} {RESULTS[name].sentence}**"


def test_a_pass_says_that_it_ran_and_found_nothing() -> None:
    assert (
        "It ran, and found nothing: 12 pairs of fresh processes, 1 min 34 s; 1 of 13 pairs was invalid."
        in write_markdown(RESULTS["pass"])
    )
    for name in ("regressed", "failure", "invalid"):
        assert "found nothing" not in write_markdown(RESULTS[name])


def test_trials_against_a_stored_run_are_called_trials_a_side() -> None:
    assert "12 trials a side" in write_markdown(replace(RESULTS["pass"], method="baseline"))


def test_the_table_has_figures_with_units_interval_budget_verdict_pairs_and_what_would_have_been_caught() -> None:
    result = RESULTS["regressed"]
    [judged] = [each for each in result.judgements if each.metric == "server_cpu_s_per_mib"]
    assert judged.ratio is not None
    assert judged.low is not None
    assert judged.high is not None
    row = row_of(write_markdown(result), "❌ CPU time per MiB")
    assert row[1:3] == ["12.2 ms", "13.9 ms"]
    changes = [100 * (ratio - 1) for ratio in (judged.ratio, judged.low, judged.high)]
    assert row[3] == "{:+.1f} % ({:+.1f} to {:+.1f})".format(*changes)
    assert row[4:6] == ["5 %", "regressed"]
    assert re.fullmatch(r"[5-9](\.\d)? %", row[6])
    assert row[7] == "12"
    assert row_of(write_markdown(result), "blocks per second")[1] == "131 k"
    assert row_of(write_markdown(result), "peak memory")[1] == "5.01 MiB"


def test_the_most_severe_stands_first_and_what_is_never_gated_last() -> None:
    found = [(row[0].split()[0], row[5]) for row in rows(write_markdown(gate({"data_pps": "suspected"})))]
    assert found[:3] == [("❔", "suspected"), ("✅", "pass"), ("✅", "pass")]
    assert [verdict for _, verdict in found[3:]] == ["not gated"] * 4


def test_what_was_not_measured_is_not_nought() -> None:
    text = write_markdown(RESULTS["no syscalls"])
    assert row_of(text, "❔ system calls per block")[1:] == ["-", "-", "-", "2 %", "not judged", "", "0"]
    assert "- ❔ system calls per block: not measured" in text
    assert "strace is not installed" in text


def test_absurd_figures_are_written_and_are_no_crash() -> None:
    result = RESULTS["pass"]
    huge = 1e308
    judgements = tuple(
        replace(each, base=huge, head=-huge, ratio=huge, low=0.0, worse=huge, budget=huge, smallest_effect=huge)
        for each in result.judgements
    )
    absurd = replace(result, judgements=judgements, facts=replace(result.facts, duration_s=1e308))
    assert len(rows(write_markdown(absurd))) == len(judgements)
    assert write_junit(absurd)


def test_a_failure_stands_beneath_the_verdict() -> None:
    assert (
        write_markdown(RESULTS["failure"]).splitlines()[2] == "❌ head: 3 of 640 transfers had wrong contents in pair 4"
    )


def test_too_few_pairs_have_a_ratio_and_no_interval() -> None:
    assert re.fullmatch(r"[+-]\d\.\d %", row_of(write_markdown(RESULTS["failure"]), "blocks per second")[3])


def test_the_noise_floor_stands_with_its_range() -> None:
    text = write_markdown(RESULTS["pass"])
    change = r"[+-]\d\.\d %"
    assert "**Noise: a second start of the base against the first, in 5 pairs**" in text
    assert re.search(rf"^- blocks per second {change} \({change} to {change}\)$", text, re.MULTILINE)


def test_the_report_ends_with_the_environment_the_command_and_where_it_is_explained() -> None:
    text = write_markdown(RESULTS["pass"])
    places = [text.index(word) for word in (
        "<details>", "base: ./base", "head: ./head", "invalid: pair 2: the machine was taken away", "Test CPU",
        "</details>", "tftpbench gate ab --base ./base --head ./head --seed 7", "docs/gate.md",
    )]  # fmt: skip
    assert places == sorted(places)


def test_a_cell_is_named_where_there_are_several() -> None:
    report = write_markdown(RESULTS["cells"])
    [row] = [each for each in rows(report) if each[0].endswith(CELL) and each[1] == "blocks per second"]
    assert row[0] == f"❌ {CELL}"
    assert row[6] == "regressed"
    assert f"- ❌ blocks per second of {CELL}: " in report
    assert CELL not in "".join(cell for row in rows(write_markdown(RESULTS["pass"])) for cell in row)


def test_a_gate_without_pairs_says_so() -> None:
    assert "No figure was measured." in write_markdown(RESULTS["empty"])


def test_nothing_from_outside_is_markup_in_markdown() -> None:
    text = write_markdown(RESULTS["hostile"])
    assert all(char.isprintable() or char in "\n\u200b" for char in text)
    before, fence, after = text.rpartition("```sh\n")
    assert fence
    pair, end, rest = after.partition("\n```\n")
    assert end
    assert "\n" not in pair
    assert "```" not in pair
    prose = before + rest
    assert prose.count("<") == len(re.findall(r"<details>|<summary>|</summary>|</details>", prose)) == 4
    assert "@everyone" not in prose
    assert not re.search(r"(?<!\\)[`$]", prose.replace("```sh", ""))
    assert not re.search(r"(?<!\\)\[link", prose)
    assert all(len(row) == 9 for row in rows(before))


def test_a_gate_of_many_cells_still_fits_a_comment() -> None:
    cells = [(f"read, {number} at once, {'very long name of a cell, ' * 8}", f"{number:016x}") for number in range(100)]
    text = write_markdown(gate({"data_pps": "inconclusive"}, pairs=6, cells=cells))
    assert "640 rows more in gate.json" in text
    assert len(text) < GITHUB_COMMENT_MAX


def suites(name: str, fail_on: FailOn = "regressed") -> ET.Element:
    root = ET.fromstring(write_junit(RESULTS[name], fail_on))
    [suite] = root.findall("testsuite")
    for count, kind in (("tests", "testcase"), ("failures", "testcase/failure"), ("errors", "testcase/error"),
                        ("skipped", "testcase/skipped")):  # fmt: skip
        assert root.get(count) == suite.get(count) == str(len(suite.findall(kind)))
    return suite


def case(suite: ET.Element, name: str) -> ET.Element:
    [found] = [each for each in suite.findall("testcase") if str(each.get("name")).startswith(name)]
    return found


@each_result
def test_junit_counts_add_up_and_there_is_a_case_per_gated_metric_and_one_for_the_contents(name: str) -> None:
    gated = [each for each in RESULTS[name].judgements if each.budget is not None]
    assert len(suites(name).findall("testcase")) == 1 + len(gated)


@pytest.mark.parametrize(
    ("name", "fail_on", "outcome"),
    [
        ("pass", "inconclusive", "system-out"),
        ("regressed", "regressed", "failure"),
        ("suspected", "regressed", "system-out"),
        ("suspected", "suspected", "failure"),
        ("suspected", "inconclusive", "failure"),
        ("inconclusive", "regressed", "skipped"),
        ("inconclusive", "suspected", "skipped"),
        ("inconclusive", "inconclusive", "failure"),
        ("invalid", "inconclusive", "skipped"),
    ],
)
def test_a_case_ends_as_its_word_and_fail_on_have_it(name: Verdict, fail_on: FailOn, outcome: str) -> None:
    found = case(suites(name, fail_on), "data_pps")
    [child] = found
    assert child.tag == outcome
    assert (child.get("message") or child.text or "").startswith(f"{name}: ")
    if RESULTS[name].exit_code(fail_on) in {3, 4}:
        assert outcome == "failure"


def test_wrong_contents_fail_a_case_of_their_own() -> None:
    assert case(suites("pass"), "contents").find("failure") is None
    failed = case(suites("failure"), "contents").find("failure")
    assert failed is not None
    assert failed.get("message") == RESULTS["failure"].failure


def test_what_was_not_measured_is_skipped() -> None:
    assert case(suites("no syscalls"), "syscalls_per_block").find("skipped") is not None


def test_nothing_from_outside_is_markup_in_junit() -> None:
    case(suites("hostile"), "contents")
    text = write_junit(RESULTS["hostile"])
    assert not re.search("[^\t\n\r\x20-\ud7ff\ue000-\ufffd]", text)
    messages = {each.get("message") for each in ET.fromstring(text).iter("failure")}
    assert visible(HOSTILE) in messages


def test_a_written_gate_is_document_report_junit_and_pictures(tmp_path: Path) -> None:
    write(RESULTS["regressed"], tmp_path)
    names = ["forest.csv", "forest.png", "forest.svg", "gate.json", "junit.xml", "pairs.csv", "pairs.png", "pairs.svg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names, "report.md"]
    assert load(tmp_path) == RESULTS["regressed"]
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == write_markdown(RESULTS["regressed"])
    assert ET.parse(tmp_path / "junit.xml").getroot().get("failures") == "2"


def test_fail_on_reaches_the_junit_file(tmp_path: Path) -> None:
    write(RESULTS["suspected"], tmp_path, "suspected")
    assert ET.parse(tmp_path / "junit.xml").getroot().get("failures") == "1"


def test_a_gate_without_figures_is_written_without_pictures(tmp_path: Path) -> None:
    write(RESULTS["empty"], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gate.json", "junit.xml", "report.md"]
    assert save_figures(RESULTS["empty"], tmp_path) == []


@pytest.mark.parametrize("name", ["gate.json", "report.md", "junit.xml", "forest.svg"])
def test_a_file_that_can_not_be_written_is_one_line_and_leaves_no_part(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(ResultsError, match=rf"^[^\n]+{re.escape(name)}: can't be written: [^\n]+$"):
        write(RESULTS["pass"], tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="No such file"):
        write(RESULTS["pass"], tmp_path / "absent")


def judgement(metric: str, **changes: Any) -> Judgement:
    [found] = [each for each in RESULTS["memory"].judgements if each.metric == metric]
    return replace(found, **changes)


def test_the_drawn_budget_is_more_of_a_cost_or_less_of_a_rate() -> None:
    assert passing(judgement("server_cpu_s_per_mib")) == (None, 1.05)
    assert passing(judgement("data_pps")) == (0.95, None)
    assert passing(judgement("block_rtt_ns_p99")) == (None, None)
