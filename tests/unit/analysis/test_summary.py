"""What a run says in the end."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit import builders
from tests.unit.builders import scenario
from tftpbench.analysis import summary
from tftpbench.analysis.stats import Ratio, paired_ratio
from tftpbench.analysis.summary import Answer, answer_of
from tftpbench.model.errors import ResultsError
from tftpbench.model.metrics import HEADLINE
from tftpbench.model.scenario import Scenario
from tftpbench.render import answer as rendered
from tftpbench.render.report import report
from tftpbench.store import Latency, load_run

PLACE = "on separate cores"
BUSY = "the generator stood still for 80 ms at once; the generator read answers 60 ms late (p99)"
TOO_BUSY = "this machine was too busy for tftpbench's load generator. Stop other programs and repeat."
SERVED: dict[str, Any] = {"started": 100, "completed": 100, "bytes_verified": 6_553_600, "verdict": "invalid"}
SERVED["verdict_reason"] = BUSY


def asked(concurrency: object = (3, 1000), **changes: object) -> Scenario:
    listed = list(concurrency) if isinstance(concurrency, tuple) else concurrency
    matrix: dict[str, object] = {"operation": "read", "concurrency": listed, "file_size": "64KiB"}
    changes = {"servers": ["epoll", "threads"], "matrix": matrix, "trials": 7, **changes}
    return scenario(**changes)


def rows(question: Scenario, rates: dict[str, float], rounds: int = 7, **changes: object) -> list[dict[str, Any]]:
    """Every cell on every server, with a little noise that both sides of a pair share."""
    made: list[dict[str, Any]] = []
    for number in range(rounds):
        for cell in question.cells():
            for server, rate in rates.items():
                made.append(
                    {
                        "trial": len(made) + 1,
                        "round": number + 1,
                        "cell_key": cell.key,
                        "server": server,
                        "variant": None,
                        "data_pps": rate * (1 + number / 100),
                        "server_cpu_ns_per_block": 5000.0,
                        "failed": 0,
                        "timed_out": 0,
                        "content_mismatches": 0,
                        "verdict": "valid",
                        "verdict_reason": None,
                        **changes,
                    }
                )
    return made


def answer(question: Scenario, found: list[dict[str, Any]], **options: Any) -> Answer:
    return summary.summarise(question, ["epoll", "threads"], found, PLACE, **options)


def test_the_sentence_has_the_ratio_the_interval_and_the_placement() -> None:
    question = asked()
    found = answer(question, rows(question, {"epoll": 100_000, "threads": 61_000}))
    assert found.sentence == (
        "With 1000 reads at once, threads is 0.61 times as fast as epoll (95 % interval 0.61 to 0.61). At 3: 0.61."
    )
    assert found.conditions == "Compared by blocks per second, 64 KiB, on separate cores."


def test_an_answer_says_how_much_more_the_generator_could_have_done_beside_the_server_that_left_it_least() -> None:
    question = asked()
    found = rows(question, {"epoll": 100_000, "threads": 61_000})
    assert answer(question, found).headroom == "", "unknown in older runs"
    for row in found:
        row["generator_headroom"] = (1.4 if row["server"] == "epoll" else 2.3) + (row["round"] - 4) / 10
    found[-1] |= {"verdict": "invalid", "verdict_reason": "generator saturated", "generator_headroom": 0.1}
    said = answer(question, found)
    label = said.headline
    assert said.headroom == f"The generator could have done 1.4 times as much as it did with epoll ({label})."
    assert said.headroom in rendered.text(said, "folder", "repeat", width=200)
    assert summary.document(said, "folder", 1, [])["headroom"] == said.headroom
    alone = [row for row in found if row["server"] == "epoll"]
    assert (
        answer(asked(servers=["epoll"]), alone).headroom
        == f"The generator could have done 1.4 times as much ({label})."
    )
    busy = [row | {"generator_busy_fraction": 0.8} for row in alone]
    assert "1.2 times as much" in answer(asked(servers=["epoll"]), busy).headroom, "the smaller of the two"


def test_under_six_pairs_there_is_a_range_and_no_interval() -> None:
    question = asked(1000)
    found = answer(question, rows(question, {"epoll": 100_000, "threads": 61_000}, rounds=5))
    assert "(range of 5: 0.61 to 0.61)" in found.sentence
    assert "interval" not in found.sentence


def test_a_difference_that_the_interval_does_not_show_is_not_claimed() -> None:
    question = asked(1000)
    found = rows(question, {"epoll": 100_000, "threads": 100_000})
    for index, row in enumerate(found):
        row["data_pps"] *= 1 + (0.1 if index % 4 == 1 else -0.09 if index % 4 == 3 else 0)
    assert answer(question, found).sentence.startswith(
        "With 1000 reads at once, threads is about as fast as epoll (1.02 times, "
    )


def test_other_operations_and_other_axes_are_told_beside_the_headline() -> None:
    question = asked(
        matrix={"operation": ["read", "write"], "concurrency": 5, "file_size": ["4KiB", "1MiB"], "blksize": 1428}
    )
    found = answer(question, rows(question, {"epoll": 2.0, "threads": 1.0}))
    assert found.sentence.startswith("With 5 reads at once (1 MiB), threads is 0.50 times as fast as epoll")
    assert found.sentence.endswith(". At 4 KiB: 0.50. Writes: 0.50.")
    assert found.conditions == "Compared by blocks per second, blksize 1428, on separate cores."


def test_several_servers_are_each_compared_with_the_first() -> None:
    question = asked(10, servers=["epoll", "threads", "tftpy"])
    found = rows(question, {"epoll": 4.0, "threads": 2.0, "tftpy": 1.0})
    sentence = summary.summarise(question, ["epoll", "threads", "tftpy"], found, "on one core").sentence
    assert sentence.startswith("With 10 reads at once, threads is 0.50 times as fast as epoll")
    assert ". With 10 reads at once, tftpy is 0.25 times as fast as epoll" in sentence


def test_a_server_alone_is_told_in_absolute_figures() -> None:
    question = asked(1, servers=["epoll"])
    seen = {"started": 1200, "completed": 1200, "transfer_ns_p50": 8e6, "transfer_ns_max": 21e6}
    rates = {"transfers_per_s": 1024.0, "goodput_bytes_per_s": 64 * 2.0**20}
    measured = rows(question, {"epoll": 131_072.0}, rounds=1, **seen, **rates)
    found = summary.summarise(question, ["epoll"], measured, "on one core")
    assert found.sentence == (
        "With one read at a time, epoll served all 1,200 transfers: time p50 8 ms, max 21 ms, 1.02 k files/s, "
        "64 MiB/s (one trial)."
    )


def test_an_invalid_trial_is_told_and_never_used() -> None:
    question = asked(1000)
    found = rows(question, {"epoll": 100_000, "threads": 61_000}, rounds=8)
    spoilt = found[-1]
    spoilt |= {"data_pps": 1e9, "verdict": "invalid", "verdict_reason": "the host took 9 % of the cores' time"}
    said = answer(question, found)
    assert "0.61 times" in said.sentence
    assert said.lines[1].ratio is not None
    assert said.lines[1].ratio.n == 7
    assert [(each.trial, each.server, each.reason) for each in said.invalid] == [
        (spoilt["trial"], "threads", "the host took 9 % of the cores' time")
    ]
    line = next(line for line in said.lines if line.server == "threads")
    assert (line.valid, line.trials) == (7, 8)


def test_pairs_are_of_the_same_round() -> None:
    question = asked(1000)
    found = rows(question, {"epoll": 100.0, "threads": 50.0}, rounds=8)
    for row in found:
        row["data_pps"] *= 10 ** row["round"]
    assert answer(question, list(reversed(found))).lines[1].ratio == answer(question, found).lines[1].ratio
    assert "0.50 times" in answer(question, found).sentence


@pytest.mark.parametrize(
    ("threshold", "failed", "code"),
    [("failed == 0", 0, 0), ("threads.failed == 0", 3, 3), ("epoll.ceiling_ratio > 0.5", 0, 6)],
)
def test_the_exit_code_follows_the_thresholds(threshold: str, failed: int, code: int) -> None:
    question = asked(1000, thresholds=[threshold])
    assert answer(question, rows(question, {"epoll": 2.0, "threads": 1.0}, failed=failed)).exit_code == code


def test_a_missed_threshold_goes_before_a_cell_with_too_few_valid_trials() -> None:
    question = asked(1000, thresholds=["failed == 0"])
    found = rows(question, {"epoll": 2.0, "threads": 1.0}, failed=1, verdict="invalid", verdict_reason="x")
    assert answer(question, found).exit_code == 3


def test_a_cell_without_a_valid_trial_is_incomplete() -> None:
    question = asked(1000)
    found = rows(question, {"epoll": 2.0, "threads": 1.0})
    for row in found:
        if row["server"] == "threads":
            row |= {"verdict": "invalid", "verdict_reason": "x"}
    said = answer(question, found)
    assert said.exit_code == 6
    assert said.sentence == "No answer: no cell has valid trials of epoll and threads to compare."
    assert said.incomplete == ("threads, read, 1000 at once, 64 KiB: none of 7 trials is valid",)


def test_one_trial_a_cell_is_a_look_and_not_a_judgement() -> None:
    question = asked(1000, trials=1)
    found = rows(question, {"epoll": 2.0, "threads": 1.0}, rounds=1, verdict="invalid", verdict_reason="x")
    assert answer(question, found).exit_code == 0


def test_a_server_that_is_left_out_is_told_and_asked_nothing() -> None:
    question = asked(1000, thresholds=["threads.failed == 0", "epoll.failed == 0"])
    found = rows(question, {"epoll": 2.0})
    said = answer(question, found, skipped=[("threads", None, "was not found")])
    assert said.exit_code == 0
    assert said.skipped == ("threads: was not found",)
    assert [str(each.threshold) for each in said.thresholds] == ["epoll.failed == 0"]
    assert said.sentence.startswith("With 1000 reads at once, epoll served ")


def test_nothing_measured_is_said_so() -> None:
    question = asked(1000)
    absent = [("epoll", None, "gone"), ("threads", None, "gone")]
    assert answer(question, [], skipped=absent).sentence == "No answer: nothing was measured."


def histogram(*values_ns: int) -> Latency:
    return Latency.from_steps(np.diff(values_ns, prepend=0), np.ones(len(values_ns), np.int64))


def text(colour: bool = False, width: int = 200) -> str:
    question = asked((3, 1000), thresholds=["epoll.failed == 0", "threads.data_pps > 1e6"])
    found = rows(question, {"epoll": 100_000, "threads": 61_000})
    found[0] |= {"verdict": "invalid", "verdict_reason": BUSY}
    said = answer(question, found, merged=lambda _kind, _key, _server: histogram(13_400, 62_000))
    return rendered.text(said, "results/x", "tftpbench run x --seed 1", colour=colour, width=width)


def test_the_text_goes_from_the_answer_to_the_command_to_repeat_it() -> None:
    lines = text().splitlines()
    assert lines[0].startswith("With 1000 reads at once, threads is 0.61 times")
    marks = [
        "✓ epoll.failed == 0",
        "✗ threads.data_pps > 1000000",
        "read, 3 at once, 64 KiB",
        f"1 of 28 trials is invalid and not used: {TOO_BUSY}",
        "Files:  results/x",
        "Report: tftpbench report results/x",
        "Repeat: tftpbench run x --seed 1",
    ]
    places = [lines.index(mark) for mark in marks]
    assert places == sorted(places)
    row = next(line.split("  ") for line in lines if line.startswith("  threads "))
    assert [each.strip() for each in row if each] == [
        "threads", "13.4 us", "62 us", "62.8 k", "0.61x (0.61 to 0.61)", "5 us", "13.4 us", "62 us", "0", "0", "7/7"
    ]  # fmt: skip
    assert "Not known of any server: served, max, files/s, MiB/s." in lines


def test_colour_only_where_asked_for() -> None:
    assert "\x1b[" not in text()
    assert "\x1b[32m✓" in text(colour=True)


def test_the_document_has_the_same_answer_under_the_names_of_the_columns() -> None:
    question = asked(1000, thresholds=["failed == 0"])
    found = rows(question, {"epoll": 100_000, "threads": 61_000})
    said = summary.document(answer(question, found), "results/x", 5, found)
    assert json.loads(json.dumps(said)) == said
    assert said["seed"] == 5
    assert said["trials"] == found
    cells: Any = said["cells"]
    assert cells[1]["server"] == "threads"
    assert cells[1]["ratio"]["n"] == 7
    assert cells[1]["data_pps"] == pytest.approx(62_830)


def test_faults_of_a_server_are_told_once_a_kind_with_an_example() -> None:
    question = asked(1000)
    fault = {"kind": "wrong_contents", "count": 2, "example": "DATA block 3"}
    rates = {"epoll": 2.0, "threads": 1.0}
    assert answer(question, rows(question, rates, protocol_faults=[fault])).faults == ()
    found = answer(question, rows(question, rates, rounds=2, failed=1, protocol_faults=[fault]))
    assert found.faults == tuple(
        f"{server}, wrong_contents: 4 times, as in: DATA block 3" for server in ("epoll", "threads")
    )
    known = fault | {"kind": "data_too_large", "rfc_section": "RFC 2348"}
    assert answer(question, rows(question, rates, failed=1, protocol_faults=[known])).faults[0] == (
        "epoll, data_too_large (RFC 2348): 14 times, as in: DATA block 3"
    )
    assert "Protocol faults where transfers failed:" in rendered.text(found, "results/x", "tftpbench run x")


def many(rates: dict[str, float], **changes: Any) -> Answer:
    question = asked((3, 1000), servers=list(rates), **changes)
    found = rows(question, {server: rate or 1.0 for server, rate in rates.items()})
    for row in found:
        if rates[row["server"]] == 0:
            finding = {"kind": "died", "count": 1, "text": "died with SIGSEGV"}
            row |= {"verdict": "invalid", "verdict_reason": "x", "data_pps": None, "server_findings": [finding]}
    return summary.summarise(question, list(rates), found, PLACE)


def test_many_servers_are_ranked_and_the_last_and_the_lost_are_named() -> None:
    found = many({"one": 100.0, "two": 50.0, "three": 90.0, "four": 80.0, "five": 70.0, "six": 1.0, "dead": 0})
    interval = "(95 % interval {0} to {0})"
    assert found.sentence == (
        "With 1000 reads at once, one is the fastest of 6 servers. Times as fast as one: "
        f"three 0.90 {interval.format('0.90')}, four 0.80 {interval.format('0.80')}, "
        f"five 0.70 {interval.format('0.70')}, two 0.50 {interval.format('0.50')}. "
        "Last is six with 0.01. No figures of dead."
    )
    assert [line.server for line in found.lines][:7] == ["one", "three", "four", "five", "two", "six", "dead"]


def test_a_first_server_that_others_overtake_is_not_called_the_best() -> None:
    found = many({"one": 100.0, "two": 150.0, "three": 50.0, "four": 120.0})
    assert found.sentence.startswith(
        "With 1000 reads at once, 2 of 4 servers are faster than one. Times as fast as one: two 1.50 "
    )


def test_the_best_of_many_is_not_claimed_where_an_interval_does_not_show_it() -> None:
    question = asked(1000, servers=["one", "two", "three", "four"])
    found = rows(question, {"one": 100.0, "two": 100.0, "three": 50.0, "four": 20.0})
    for row in found:
        if row["server"] == "two":
            row["data_pps"] *= 1.1 if row["round"] % 2 else 0.9
    sentence = summary.summarise(question, ["one", "two", "three", "four"], found, PLACE).sentence
    assert "none of 4 servers is surely faster than one. Times as fast as one: two" in sentence


def test_a_server_that_was_lost_by_its_own_doing_is_a_finding_and_leaves_nothing_to_judge() -> None:
    found = many({"one": 100.0, "two": 50.0, "dead": 0})
    assert found.exit_code == 0
    assert found.findings == ("dead: died with SIGSEGV (read, 3 at once, 64 KiB, and in 1 other cell; 14 trials)",)
    assert "What servers did wrong:" in rendered.text(found, "results/x", "tftpbench run x")


def test_a_finding_is_told_by_its_worst_trial() -> None:
    question = asked(1000)
    found = rows(question, {"epoll": 2.0, "threads": 1.0})
    for count, row in enumerate(row for row in found if row["server"] == "threads"):
        row["server_findings"] = [{"kind": "silent", "count": count, "text": f"never answered {count} of 9 transfers"}]
    assert answer(question, found).findings == (
        "threads: never answered 6 of 9 transfers (read, 1000 at once, 64 KiB; 7 trials)",
    )


@pytest.mark.parametrize(("text_", "said"), [
    ("never ready; its last log line: bind: ", "never ready; its last log line: bind"),
    ("word " * 30 + "or a manifest; its last log line: help", "word " * 30 + "or a ..."),
    ("x" * 170, "x" * 156 + " ..."),
])  # fmt: skip
def test_a_long_finding_is_cut_at_a_word_and_never_ends_in_a_colon(text_: str, said: str) -> None:
    question = asked(1000, trials=1)
    found = rows(question, {"epoll": 2.0, "threads": 1.0}, rounds=1)
    found[0]["server_findings"] = [{"kind": "not_ready", "count": 1, "text": text_}]
    assert answer(question, found).findings == (f"epoll: {said} (read, 1000 at once, 64 KiB; 1 trial)",)


def test_a_kind_of_finding_under_its_former_name_is_the_same_kind() -> None:
    """A run that was begun with an older version and went on with this one."""
    question = asked(1000)
    found = rows(question, {"epoll": 2.0, "threads": 1.0})
    for count, row in enumerate(row for row in found if row["server"] == "threads"):
        kind = "unresponsive" if count % 2 else "deaf"
        row["server_findings"] = [{"kind": kind, "count": 1, "text": "answered no new request after the load"}]
    assert answer(question, found).findings == (
        "threads: answered no new request after the load (read, 1000 at once, 64 KiB; 7 trials)",
    )


def test_each_server_is_compared_at_its_own_best_by_the_bytes_it_moves() -> None:
    matrix = {
        "operation": "read",
        "concurrency": 10,
        "file_size": "1MiB",
        "blksize": [512, 8192],
        "windowsize": [1, 16],
    }
    question = asked(matrix=matrix, best_of=["blksize", "windowsize"])
    found = rows(question, {"epoll": 1000.0, "threads": 1000.0})
    cells = {cell.key: cell for cell in question.cells()}
    for row in found:
        cell = cells[row["cell_key"]]
        speed = cell.blksize * (cell.windowsize if row["server"] == "epoll" else 1 / cell.windowsize)
        row["goodput_bytes_per_s"] = speed * (1 + row["round"] / 100)
    said = answer(question, found)
    assert [(line.cell.blksize, line.cell.windowsize) for line in said.lines] == [(8192, 16), (8192, 1)]
    assert {line.label for line in said.lines} == {"read, 10 at once, 1 MiB"}
    assert said.sentence.startswith(
        "With 10 reads at once, threads is 0.06 times as fast as epoll, each at its best blksize and windowsize (range "
    )
    text = rendered.text(said, "results/x", "tftpbench run x")
    assert "blksize 8192, windowsize 16" in text
    assert "at its best" in text


def test_what_is_left_out_for_one_reason_is_told_once() -> None:
    question = asked((3, 1000))
    left_out = [("threads", cell.key, "threads does not know blksize") for cell in question.cells()]
    said = answer(question, rows(question, {"epoll": 2.0}), skipped=left_out)
    assert said.skipped == ("threads, 2 cells: threads does not know blksize",)


def test_a_stored_run_gives_the_same_answer_as_its_trials(tmp_path: Path) -> None:
    question = builders.asked(["epoll", "threads", "gone"], thresholds=["failed == 0"])
    found = [row for row in builders.rows(question) if row["server"] != "gone"]
    facts = builders.manifest(question, skipped=[{"server": "gone", "cell_key": None, "reason": "gone was not found"}])
    run = load_run(builders.store(tmp_path, facts, found, transfers=20))
    said = summary.answer_of(run)
    skipped = [("gone", None, "gone was not found")]
    by_hand = summary.summarise(question, question.servers, found, PLACE, skipped, lambda *_: histogram(1, 2))
    assert (said.sentence, said.thresholds, said.skipped) == (by_hand.sentence, by_hand.thresholds, by_hand.skipped)
    assert [line.ratio for line in said.lines] == [line.ratio for line in by_hand.lines]
    for line in said.lines:
        p50, p99 = line.figures["block_rtt_ns_p50"], line.figures["block_rtt_ns_p99"]
        assert p50 is not None
        assert p99 is not None
        assert p50 < p99
    assert said.headline == "read, 1000 at once, 64 KiB"


def test_the_rows_of_a_stored_run_are_the_lines_of_its_file(tmp_path: Path) -> None:
    question = builders.asked(["epoll", "threads"])
    found = builders.rows(question)
    found[0] |= {"server_findings": [{"kind": "died", "count": 1, "text": "x"}], "newer": 5}
    run = load_run(builders.store(tmp_path, builders.manifest(question), found))
    lines = [json.loads(line) for line in (run.path / "trials.jsonl").read_text().splitlines()]
    known = [{name: value for name, value in row.items() if name != "newer"} for row in run.rows]
    assert known == [{name: value for name, value in row.items() if name != "newer"} for row in lines]
    assert json.loads(json.dumps(known)) == known
    assert run.rows[0]["newer"] == 5


@pytest.mark.parametrize("scenario_", [None, "x", {"name": "x"}])
def test_a_stored_run_without_a_scenario_is_one_clear_line(tmp_path: Path, scenario_: object) -> None:
    question = builders.asked(["epoll"])
    run = load_run(builders.store(tmp_path, builders.manifest(question, scenario=scenario_), builders.rows(question)))
    with pytest.raises(ResultsError, match=r"manifest\.json: "):
        summary.answer_of(run)


def test_a_server_that_ran_already_is_not_pinned() -> None:
    phrase = {"phrase": PLACE}
    ours, running = {"model": "epoll"}, {"model": "running already"}
    assert summary.placement_of({"placement": phrase, "servers": {"a": ours}}) == PLACE
    assert summary.placement_of({"placement": phrase, "servers": {"b": running}}) == "b not pinned to cores"
    mixed = {"placement": phrase, "servers": {"a": ours, "b": running}}
    assert summary.placement_of(mixed) == f"{PLACE}, b not pinned to cores"


def test_an_answer_is_a_frame_of_its_lines() -> None:
    question = asked(1000)
    found = answer(question, rows(question, {"epoll": 100_000, "threads": 61_000}))
    frame = found.to_frame()
    assert list(frame["contender"]) == ["epoll", "threads"]
    assert frame["ratio"].isna().tolist() == [True, False]
    assert frame.loc[1, "n"] == 7
    assert list(summary.summarise(question, [], [], PLACE).to_frame().columns) == list(frame.columns)


def test_an_answer_in_a_notebook_is_escaped() -> None:
    question = asked(1000, servers=["epoll", "<b>x</b>"])
    found = rows(question, {"epoll": 2.0, "<b>x</b>": 1.0})
    text = summary.summarise(question, ["epoll", "<b>x</b>"], found, "on <one> core")._repr_html_()
    assert "<b>" not in text
    assert "<one>" not in text
    assert "&lt;b&gt;x&lt;/b&gt;" in text


def test_counters_that_do_not_add_up_are_no_share() -> None:
    question = asked(1000)
    found = rows(question, {"epoll": 2.0, "threads": 1.0}, completed=10, started=5)
    assert [line.served for line in answer(question, found).lines] == ["-", "-"]


def test_a_quick_run_has_no_interval_however_many_its_trials_are() -> None:
    question = asked(1000, quick=True)
    ratio = answer(question, rows(question, {"epoll": 2.0, "threads": 1.0})).lines[1].ratio
    assert ratio is not None
    assert (ratio.n, ratio.low, ratio.high, ratio.differs) == (7, None, None, None)


def test_pairs_without_a_round_or_a_rate_are_no_pairs() -> None:
    question = asked(1000)
    found = rows(question, {"epoll": 2.0, "threads": 1.0})
    found[0] |= {"round": None}
    found[2] |= {"data_pps": -1.0}
    ratio = answer(question, found).lines[1].ratio
    assert ratio is not None
    assert ratio.n == 5


def against_the_ceiling(rounds: int = 7, **changes: object) -> tuple[Scenario, list[dict[str, Any]]]:
    question = asked(compare_with="ceiling", **changes)
    found = rows(question, {"epoll": 90_000, "threads": 50_000}, rounds)
    for row in found:
        is_large = row["cell_key"] == question.cells()[-1].key
        row["ceiling_data_pps"] = row["data_pps"] / (0.8 if is_large and row["server"] == "epoll" else 0.9)
        row["ceiling_ratio"] = row["data_pps"] / row["ceiling_data_pps"]
    return question, found


def test_against_the_ceiling_each_server_is_told_where_it_is_furthest_from_it() -> None:
    found = answer(*against_the_ceiling())
    assert found.sentence == (
        "With 1000 reads at once, epoll reaches 0.80 of the ceiling (95 % interval 0.80 to 0.80), its lowest share. "
        "Its highest share is 0.90, with 3 reads at once. "
        "With 3 reads at once, threads reaches 0.90 of the ceiling (95 % interval 0.90 to 0.90), its lowest share."
    )
    assert found.headline == "read, 1000 at once, 64 KiB"
    assert [line.ratio.ratio for line in found.lines if line.ratio] == pytest.approx([0.9, 0.9, 0.8, 0.9])
    assert "against the ceiling" in rendered.text(found, "folder", "repeat")
    assert summary.document(found, "folder", 1, [])["reference"] == "the ceiling"
    assert found.exit_code == 0


UNUSABLE = "the machine changed; not usable"


def test_a_share_that_is_surely_above_the_ceiling_is_marked_and_is_no_headline(tmp_path: Path) -> None:
    question, found = against_the_ceiling()
    for row in found:
        if row["cell_key"] == question.cells()[0].key:
            row["ceiling_data_pps"] = row["data_pps"] / 1.2
            row["ceiling_ratio"] = 1.2
    said = answer(question, found)
    assert f"Share of epoll with 3 reads at once: {UNUSABLE}." in said.sentence
    assert "Its highest share" not in said.sentence
    assert said.headline == "read, 1000 at once, 64 KiB"
    for asked_ in (question, asked()):
        shown = rendered.text(answer(asked_, found), "folder", "repeat", width=200)
        assert f"* share of the ceiling: {UNUSABLE}" in shown
        assert ("1.20x (1.20 to 1.20)*" if asked_ is question else "120 %*") in shown
        assert "80 %*" not in shown
        if asked_ is not question:
            narrow = rendered.text(answer(asked_, found), "folder", "repeat", width=50)
            assert "of ceiling" not in narrow.splitlines()[0]
            assert UNUSABLE not in narrow, "what is not shown needs no note"
    marks = [cell["ceiling_mark"] for cell in summary.document(said, "folder", 1, [])["cells"]]  # type: ignore[attr-defined]
    assert marks == [UNUSABLE, UNUSABLE, None, None]
    question = builders.asked(["epoll", "threads"])
    known = [row | {"ceiling_data_pps": row["data_pps"] / 1.2, "ceiling_ratio": 1.2} for row in builders.rows(question)]
    run = load_run(builders.store(tmp_path, builders.manifest(question), known))
    assert all(f"* share of the ceiling: {UNUSABLE}" in report(run, form) for form in ("html", "md"))


def test_a_marked_share_holds_no_threshold() -> None:
    for limit in (">= 95%", "<= 95%"):
        question, found = against_the_ceiling(thresholds=[f"ceiling_ratio {limit}"])
        for row in found:
            row |= {"ceiling_data_pps": row["data_pps"] / 1.2, "ceiling_ratio": 1.2}
        said = answer(question, found)
        assert {(each.state, each.text) for each in said.thresholds} == {("not known", UNUSABLE)}
        assert said.exit_code == 6


def test_only_a_share_above_the_ceiling_costs_a_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(a: list[float], b: list[float]) -> Ratio:
        calls.append(1)
        return paired_ratio(a, b)

    monkeypatch.setattr("tftpbench.analysis.summary.lines.paired_ratio", counted)
    question, found = against_the_ceiling()
    answer(question, found)
    assert len(calls) == 4, "one for each server and cell, and none more for the mark"
    calls.clear()
    answer(asked(), found)
    assert len(calls) == 2, "the second server's ratio to the first in each cell"


def test_a_share_that_is_perhaps_above_the_ceiling_is_not_marked() -> None:
    question, found = against_the_ceiling()
    for row in found:
        row["ceiling_data_pps"] = row["data_pps"] / (1.2 if row["round"] % 2 else 0.9)
    assert {line.ceiling_mark for line in answer(question, found).lines} == {""}


def test_a_server_alone_is_compared_with_the_ceiling_too() -> None:
    question, found = against_the_ceiling(servers=["epoll"])
    shown = summary.summarise(question, ["epoll"], [row for row in found if row["server"] == "epoll"], PLACE)
    assert shown.sentence.startswith("With 1000 reads at once, epoll reaches 0.80 of the ceiling")
    assert "against the ceiling" in rendered.text(shown, "folder", "repeat")


def test_under_six_rounds_the_ceiling_has_a_range_and_no_interval() -> None:
    assert "(range of 5: 0.80 to 0.80), its lowest share" in answer(*against_the_ceiling(rounds=5)).sentence


def test_trials_without_a_ceiling_leave_a_cell_unjudged() -> None:
    question, found = against_the_ceiling()
    for row in found:
        if row["server"] == "threads":
            row["ceiling_data_pps"] = row["ceiling_ratio"] = None
    shown = answer(question, found)
    assert "threads" not in shown.sentence
    assert shown.incomplete[0].startswith("threads, read, 3 at once, 64 KiB: no pair of valid trials")
    assert shown.exit_code == 6
    nothing = answer(question, [row | {"ceiling_data_pps": None} for row in found])
    assert nothing.sentence.startswith("No answer: no cell has valid trials of epoll and threads and a ceiling")


def test_the_usual_table_has_the_share_of_the_ceiling_where_it_is_known() -> None:
    question, found = against_the_ceiling()
    assert "  80 %" in rendered.text(answer(asked(), found), "folder", "repeat", width=200)
    assert "of ceiling" not in rendered.text(answer(question, found), "folder", "repeat"), "it is compared there"
    unknown = [row | {"ceiling_ratio": None} for row in found]
    assert "of ceiling" not in rendered.text(answer(asked(), unknown), "folder", "repeat", width=200)


def test_a_threshold_on_the_share_of_the_ceiling_is_judged_in_each_cell() -> None:
    question, found = against_the_ceiling(thresholds=["epoll.ceiling_ratio >= 0.85"])
    shown = answer(question, found)
    assert [(each.cell, each.state) for each in shown.thresholds] == [
        ("read, 3 at once, 64 KiB", "held"),
        ("read, 1000 at once, 64 KiB", "missed"),
    ]
    assert shown.exit_code == 3


def unstarted(found: list[dict[str, Any]], server: str) -> tuple[list[dict[str, Any]], summary.LeftOut]:
    """Rows in which a server failed to start twice and then had no more trials."""
    failed = [row for row in found if row["server"] == server][:2]
    nothing = {"data_pps": None, "failed": None, "timed_out": None, "verdict": "invalid"}
    died = [{"kind": "died", "count": 1, "text": "ended with exit code 3; its last log line: no port"}]
    for row in failed:
        row.update(nothing, verdict_reason=f"{server}: ended with exit code 3", server_findings=died)
    left = [row for row in found if row["server"] != server or row in failed]
    numbers = [row["trial"] for row in failed]
    return left, summary.LeftOut(server, "ended with exit code 3; its last log line: no port", numbers, 12)


@pytest.mark.parametrize(("server", "other"), [("epoll", "threads"), ("threads", "epoll")])
def test_a_server_that_did_not_start_is_told_once_and_leaves_the_answer_to_the_others(server: str, other: str) -> None:
    question = asked(thresholds=[f"{server}.failed == 0"])
    left, gone = unstarted(rows(question, {"epoll": 100_000, "threads": 61_000}), server)
    found = answer(question, left, unstarted=[gone])
    assert found.sentence.startswith(f"With 1000 reads at once, {other} served ")
    assert (found.findings, found.invalid, found.incomplete) == ((), (), ())
    why = "ended with exit code 3; its last log line: no port"
    assert found.skipped == (f"{server}: did not start in 2 trials (12 more were not tried): {why}",)
    assert {each.state for each in found.thresholds} == {"not known"}, "a threshold never holds for want of it"
    assert found.exit_code == 6
    assert answer(asked(), left, unstarted=[gone]).exit_code == 0


def test_what_was_measured_of_a_server_before_it_did_not_start_any_more_counts() -> None:
    question = asked(concurrency=3)
    found = rows(question, {"epoll": 100_000, "threads": 61_000})
    later = [row for row in found if row["round"] > 3]
    left, gone = unstarted(later, "threads")
    shown = answer(question, [*(row for row in found if row["round"] <= 3), *left], unstarted=[gone])
    assert shown.sentence.startswith("With 3 reads at once, threads is 0.61 times as fast as epoll")
    assert [(line.server, line.valid, line.trials) for line in shown.lines] == [("epoll", 7, 7), ("threads", 3, 5)]
    assert shown.incomplete == ()


def test_where_no_server_started_there_is_no_answer_and_no_success() -> None:
    question = asked(concurrency=3)
    found = rows(question, {"epoll": 100_000, "threads": 61_000})
    (some, one), (others, other) = unstarted(found, "epoll"), unstarted(found, "threads")
    left = [row for row in found if row in some and row in others]
    shown = answer(question, left, unstarted=[one, other])
    assert (shown.sentence, shown.exit_code) == ("No answer: no server could be started.", 6)


QUICK_THRESHOLDS = ["failed == 0", "data_pps > 1e9", "udp_drops_generator == 0"]


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({}, 0, "Quick run: no speed, ratio or generator limit was judged"),
        ({"verdict": "invalid", "verdict_reason": "x", "udp_drops_generator": 9}, 0, "Quick run: "),
        ({"failed": 2}, 3, "Quick run: "),
        ({"failed": None}, 0, "Quick run: "),
        ({"data_pps": 0.0}, 3, "Nothing was served by epoll (read, 3 at once, 64 KiB); threads (read, 3 at once"),
        ({"data_pps": None, "verdict": "invalid", "verdict_reason": "died"}, 3, "Nothing was served by epoll"),
        (
            {"data_pps": None, "server_findings": [{"kind": "port_taken", "count": 1, "text": "x"}]},
            0,
            "Quick run: ",
        ),
    ],
    ids=["well", "invalid", "missed", "not known", "nothing moved", "died", "port taken"],
)
def test_a_quick_run_judges_what_was_lost_and_no_speed(changes: dict[str, object], code: int, said: str) -> None:
    question = asked(thresholds=QUICK_THRESHOLDS).quick()
    found = answer(question, rows(question, {"epoll": 1000, "threads": 500}, rounds=1, **changes))
    assert (found.exit_code, found.note.startswith(said)) == (code, True), found.note
    assert {str(each.threshold) for each in found.thresholds} == {"failed == 0"}
    assert not found.incomplete
    assert rendered.text(found, "results/x", "tftpbench run x --quick").splitlines()[-1] == found.note
    assert summary.document(found, "results/x", 1, [])["quick"] is True


def test_a_quick_run_of_several_trials_has_too_few_of_none(tmp_path: Path) -> None:
    question = asked(trials=3, thresholds=QUICK_THRESHOLDS).quick(keeps_trials=True)
    found = rows(question, {"epoll": 1000, "threads": 500}, rounds=3, verdict="invalid", verdict_reason="x")
    assert answer(question, found).exit_code == 0
    stored = answer_of(load_run(builders.store(tmp_path, builders.manifest(question), builders.rows(question))))
    assert stored.is_quick


def test_a_missed_threshold_has_its_figure_and_its_limit_with_a_unit() -> None:
    question = asked(3, thresholds=["transfer_ns_max <= 5s"])
    found = answer(question, rows(question, {"epoll": 1000}, transfer_ns_max=7_280_000_000))
    [judged] = summary.judgements(found.thresholds)
    assert (judged.threshold, judged.state) == ("transfer_ns_max <= 5s", "missed")
    assert judged.reasons == ("epoll, read, 3 at once, 64 KiB: 7.28 s, limit 5 s, largest of 7 valid trials",)
    written: Any = summary.document(found, "results/x", 1, [])
    [document] = written["thresholds"]
    assert (document["threshold"], document["value"]) == ("transfer_ns_max <= 5s", 7_280_000_000)


def test_where_starts_are_spread_the_peak_in_flight_is_said() -> None:
    question = asked(1000, client={"start": "2s"})
    found = rows(question, {"epoll": 1000}, rounds=2, in_flight_max=412)
    found[0]["in_flight_max"] = 399
    assert answer(question, found).in_flight == ("epoll, read, 1000 at once, 64 KiB: 412",)
    assert "  epoll, read, 1000 at once, 64 KiB: 412\n" in rendered.text(answer(question, found), "x", "y")
    assert answer(asked(1000), found).in_flight == ()


def golden() -> Answer:
    """A running dnsmasq that lost 3,362 of 5,000 transfers at 5,000 at once, as it was met; figures of that order."""
    question = asked((10, 5000), servers=["epoll", "dnsmasq"], trials=1)
    found = rows(question, {"epoll": 250_000, "dnsmasq": 160_000}, rounds=1)
    for row in found:
        begun = 400 if row["cell_key"] == question.cells()[0].key else 5000
        lost = 3362 if begun == 5000 and row["server"] == "dnsmasq" else 0
        row |= {"started": begun, "completed": begun - lost, "timed_out": lost, "goodput_bytes_per_s": 8e7}
        row |= {"transfer_ns_p50": 1.4e9, "transfer_ns_p99": 7.1e9, "transfer_ns_max": 7_280_000_000}
        row |= {"transfers_per_s": 1250.0, "block_rtt_ns_p50": 315e3, "block_rtt_ns_p99": 4e6, "ceiling_ratio": 0.9}
        silent = {"kind": "silent", "count": lost, "text": f"never answered {lost} of 5000 transfers"}
        row |= {"server_findings": [silent] if lost else []}
    return summary.summarise(question, ["epoll", "dnsmasq"], found, PLACE)


@pytest.mark.parametrize("width", [80, 120])
def test_what_is_looked_for_is_in_the_table_whatever_the_width(width: int) -> None:
    table = next(
        block for block in rendered.text(golden(), "x", "y", width=width).split("\n\n") if "  server " in block
    ).splitlines()
    assert table[0].split()[:5] == ["server", "served", "time", "p50", "p99"]
    assert any(line.startswith("  dnsmasq  1,638 of 5,000 (33 %)     1.4 s  7.1 s  7.28 s") for line in table)
    assert any(line.startswith("  epoll                all 5,000     1.4 s") for line in table)
    assert max(map(len, table)) <= width
    assert "against epoll" in table[0]
    assert [("data/s" in table[0]), ("lost" in table[0])] == [width == 120] * 2, "what was served says the loss, too"
    missing = (
        "files/s, MiB/s, data/s, CPU/block, block rtt p50,\np99, of" if width == 80 else "CPU/block, block rtt p50"
    )
    assert f"Not shown for lack of room: {missing}" in "\n".join(table)


def test_a_column_of_no_losses_makes_room_first() -> None:
    whole = golden()
    unhurt = replace(whole, lines=tuple(replace(line, lost=0) for line in whole.lines))
    heads = [rendered.text(each, "x", "y", width=95).split("  server ")[1].splitlines()[0] for each in (whole, unhurt)]
    assert ["lost" in head for head in heads] == [True, False]
    assert ["MiB/s" in head for head in heads] == [False, True]


@pytest.mark.parametrize("width", [80, None])
def test_sentences_and_lists_are_wrapped_for_a_terminal_and_nowhere_else(width: int | None) -> None:
    lines = rendered.text(golden(), "x" * 100, "y", width=width).splitlines()
    assert ("  dnsmasq: never answered 3362 of 5000 transfers (read, 5000 at once, 64 KiB; 1" in lines) is (width == 80)
    assert (lines[0] == golden().sentence) is (width is None)
    assert f"Files:  {'x' * 100}" in lines, "people copy it"
    assert width is None or max(len(line) for line in lines if "xx" not in line) <= width


def test_a_loss_is_in_the_sentence() -> None:
    assert golden().sentence.endswith(" dnsmasq served 1,638 of 5,000 (33 %) with 5000 reads at once.")


def test_the_loss_of_a_server_alone_is_in_the_sentence_wherever_it_was() -> None:
    question = asked((10, 1000), servers=["epoll"])
    found = rows(question, {"epoll": 100.0}, rounds=1, started=10, completed=10)
    found[0] |= {"completed": 9, "failed": 1}
    said = summary.summarise(question, ["epoll"], found, PLACE).sentence
    assert said.startswith("With 10 at once epoll lost 10 %. With 1000 reads at once: ")


@pytest.mark.parametrize(
    ("completed", "said"),
    [
        ((100, 100, 100, 100), "x served every transfer up to 1000 at once (slowest 4 s)."),
        (
            (100, 100, 100, 36),
            "x served every transfer up to 300 at once (slowest 3 s); with 1000 at once it lost 64 %. With 300 reads",
        ),
        (
            (100, 99.9, 100, 0.1),
            "x served every transfer up to 10 at once (slowest 1 s); with 100 at once it lost <1 %, with 1000 it ",
        ),
        ((90, 90, 90, 0), "With 10 at once x lost 10 %, with 1000 it lost 100 %. With 1000 reads at once: "),
        (
            (100, 100, None, None),
            "x served every transfer up to 100 at once (slowest 2 s); 300 and 1000 at once could not be measured.",
        ),
    ],
    ids=["all", "some of the most", "some in between", "some of the fewest", "some were not measured"],
)
def test_of_a_server_alone_the_answer_is_how_many_it_served_at_once_and_the_slowest(
    completed: tuple[float | None, ...], said: str
) -> None:
    question = asked((10, 100, 300, 1000), servers=["x"], trials=2)
    found = rows(question, {"x": 100.0}, rounds=2)
    for row in found:
        level = next(n for n, cell in enumerate(question.cells()) if cell.key == row["cell_key"])
        done = completed[level]
        if done is None:
            row |= {"started": None, "completed": None, "data_pps": None, "verdict": "invalid", "verdict_reason": "x"}
        else:
            row |= {"started": 1000, "completed": round(10 * done), "timed_out": 1000 - round(10 * done)}
            row |= {"transfer_ns_max": (level + 1) * 10**9}
    sentence = summary.summarise(question, ["x"], found, PLACE).sentence
    assert sentence.startswith(said)
    assert sentence.endswith(f" at once: max {(re.findall('slowest ([0-9])', sentence) or ['4'])[0]} s (2 trials).")


def test_what_a_trials_end_cut_off_is_not_called_lost() -> None:
    question = asked((10, 100), servers=["x"], trials=1)
    found = rows(question, {"x": 100.0}, rounds=1, started=100, completed=100)
    found[1] |= {"completed": 80}
    for timed_out, said in ((0, "did not finish 20 %"), (5, "lost 5 %")):
        found[1] |= {"timed_out": timed_out}
        sentence = summary.summarise(question, ["x"], found, PLACE).sentence
        assert f"; with 100 at once it {said}. With 10 reads" in sentence


def test_the_slowest_of_a_trial_that_must_not_be_used_is_not_said() -> None:
    question = asked((10, 100), servers=["x"], trials=1)
    found = rows(question, {"x": 100.0}, rounds=1, started=100, completed=100, transfer_ns_max=10**9)
    found[1] |= {"verdict": "invalid", "verdict_reason": "x"}
    sentence = summary.summarise(question, ["x"], found, PLACE).sentence
    assert sentence == "x served every transfer up to 100 at once (slowest not known: no valid trial)."


def test_of_many_servers_that_lost_the_worst_is_named() -> None:
    servers = ["one", "two", "three", "four", "five"]
    question = asked(10, servers=servers)
    found = rows(question, dict.fromkeys(servers, 100.0), started=10, completed=10)
    for row in found:
        if row["server"] != "one":
            row |= {"completed": 9 - (row["server"] == "four"), "failed": 1 + (row["server"] == "four")}
    said = summary.summarise(question, servers, found, PLACE).sentence
    assert said.endswith("4 servers lost transfers, four most: it served 56 of 70 (80 %) with 10 reads at once.")


@pytest.mark.parametrize(
    ("completed", "text_"),
    [(5000, "all 5,000"), (4999, "4,999 of 5,000 (>99 %)"), (1, "1 of 5,000 (<1 %)"), (0, "0 of 5,000 (0 %)")],
)
def test_no_loss_is_rounded_away(completed: int, text_: str) -> None:
    question = asked(1000, trials=1)
    found = rows(question, {"epoll": 2.0, "threads": 1.0}, rounds=1, started=5000, completed=completed)
    assert {line.served for line in answer(question, found).lines} == {text_}


def combined(**options: Any) -> dict[str, Any]:
    """The figures of epoll over three valid trials and an invalid one."""
    question = asked(1000)
    found = rows(question, {"epoll": 100.0, "threads": 50.0}, rounds=4, started=10, completed=9, failed=1)
    for row in found:
        row |= {"transfer_ns_p50": row["round"] ** 2, "transfer_ns_max": row["round"], "transfers_per_s": row["round"]}
    for row in found[-2:]:
        row |= {"verdict": "invalid", "verdict_reason": "x"}
    return dict(answer(question, found, **options).lines[0].figures)


def test_counts_are_sums_over_all_trials_and_the_rest_is_of_valid_ones() -> None:
    figures = combined()
    assert (figures["started"], figures["completed"], figures["failed"]) == (40, 36, 4)
    assert (figures["transfer_ns_max"], figures["transfers_per_s"]) == (3, 2)
    assert figures["transfer_ns_p50"] == 4, "the median of the trials' own, as there are no histograms"
    assert figures["transfer_ns_p99"] is None


def test_percentiles_are_those_of_merged_histograms_where_there_are_any() -> None:
    asked_for: list[tuple[str, str]] = []

    def merged(kind: str, _key: str, server: str) -> Latency:
        asked_for.append((kind, server))
        return histogram(100, 700) if kind == "transfer" else histogram(5, 9)

    figures = combined(merged=merged)
    assert (figures["transfer_ns_p50"], figures["transfer_ns_p99"]) == (100, 700)
    assert (figures["block_rtt_ns_p50"], figures["block_rtt_ns_p99"]) == (5, 9)
    assert set(asked_for) == {(kind, server) for kind in ("transfer", "block_rtt") for server in ("epoll", "threads")}


FIRST = [
    "started", "completed", "failed", "transfer_ns_p50", "transfer_ns_p99", "transfer_ns_max", "transfers_per_s",
    "goodput_bytes_per_s",
]  # fmt: skip


def test_the_first_columns_are_the_same_in_every_form(tmp_path: Path) -> None:
    assert list(HEADLINE)[: len(FIRST)] == FIRST
    question = builders.asked(["epoll", "threads"])
    found = [
        row | {"ceiling_data_pps": 2e5, "ceiling_ratio": 0.5, "transfers_per_s": 9.0, "transfer_ns_max": 9}
        | {"transfer_ns_p50": 7, "transfer_ns_p99": 8}
        for row in builders.rows(question)
    ]  # fmt: skip
    run = load_run(builders.store(tmp_path, builders.manifest(question), found))
    said = summary.answer_of(run)
    cells: Any = summary.document(said, "x", 1, found)["cells"]
    assert [name for name in cells[0] if name in HEADLINE] == list(HEADLINE)
    assert [name for name in said.to_frame().columns if name in HEADLINE] == list(HEADLINE)
    page = report(run)
    columns = [name for names in re.findall(r'data-columns="([^"]*)"', page) for name in names.split()]
    assert columns[:7] == [name for name in FIRST if name != "failed"]
    assert set(columns) >= set(HEADLINE)


def test_what_the_test_did_is_not_said_of_the_server(tmp_path: Path) -> None:
    kinds = {"unfinished": "had not finished 9", "not_granted": "granted blksize 512", "silent": "never answered 3"}
    found = [{"kind": kind, "count": 1, "text": said} for kind, said in {**kinds, "newer": "what it is"}.items()]
    question = builders.asked(["epoll", "threads"])
    run = load_run(
        builders.store(
            tmp_path, builders.manifest(question), [row | {"server_findings": found} for row in builders.rows(question)]
        )
    )
    said = summary.answer_of(run)
    assert {origin: len(lines) for origin, lines in said.findings_by_origin.items()} == {
        "server": 4, "test": 2, "option": 2, "profile": 0, "unmeasured": 0,
    }  # fmt: skip
    assert len(said.findings) == 8
    titles = ["What servers did wrong", "Where the test was too short", "Options that were not granted"]
    for shown in (rendered.text(said, "x", "y"), report(run), report(run, "md")):
        places = [shown.index(each) for each in (titles[0], "never answered 3", titles[1], "had not finished 9")]
        places += [shown.index(each) for each in (titles[2], "granted blksize 512")]
        assert places == sorted(places)
        assert "What could not be measured" not in shown
    document = summary.document(said, "x", 1, [])
    assert document["findings_by_origin"]["test"][0].startswith("epoll: had not finished 9")  # type: ignore[index]


def test_why_trials_are_invalid_is_one_line_with_what_to_do() -> None:
    question = asked(1000)
    found = rows(question, {"epoll": 2.0, "threads": 1.0}, rounds=8)
    for row in found[:6]:
        row |= {"verdict": "invalid", "verdict_reason": BUSY}
    found[0]["verdict_reason"] = "7 datagrams were dropped at the generator's sockets"
    shown = rendered.text(answer(question, found), "results/x", "y")
    assert f"6 of 16 trials are invalid and not used: in 5 of them {TOO_BUSY}" in shown.splitlines()
    assert "trial 1, epoll" not in shown


@pytest.mark.parametrize("trials", [1, 7])
def test_trials_that_show_no_speed_still_show_that_all_was_served_right(trials: int) -> None:
    question = asked(thresholds=["content_mismatches == 0", "failed == 0"], trials=trials)
    found = answer(question, rows(question, {"epoll": 2.0, "threads": 1.0}, **SERVED))
    assert found.sentence == (
        "Works: all 2,800 transfers served, every byte right. Which server is faster is not known: "
        f"{TOO_BUSY.rstrip('.')}, or use --quick."
    )
    assert {each.state for each in found.thresholds} == {"held"}
    assert found.exit_code == 6, "what was asked is who is faster"
    shown = rendered.text(found, "results/x", "y").splitlines()
    assert "28 of 28 trials are invalid and not used." in shown, "why and what to do are said in the sentence"
    assert not any("none of 7 trials is valid" in line for line in shown)


def test_what_made_a_trial_invalid_beside_rates_is_no_sentence_of_what_was_served() -> None:
    question = asked()
    found = answer(question, rows(question, {"epoll": 2.0, "threads": 1.0}, **SERVED | {"verdict_reason": "x"}))
    assert found.sentence == "No answer: no cell has valid trials of epoll and threads to compare."
    assert found.why_invalid == "28 of 28 trials are invalid and not used: x."


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "Works: all 400 transfers served, every byte right."),
        ({"bytes_verified": 0}, "Works: all 400 transfers served."),
        ({"server_findings": [{"kind": "not_read_back", "count": 1, "text": "x"}]}, "Works: all 400 transfers served."),
        ({"completed": 99, "interrupted": 1}, "Works: 396 of 400 transfers served and none lost, every byte right."),
        ({"completed": 0, "data_pps": 0.0}, "epoll served 0 of 100 (0 %) with 3 reads at once."),
        ({"started": 0, "completed": 0}, "No transfer was served to its end."),
        (
            {"content_mismatches": 2},
            "epoll moved wrong bytes in 4 transfers. threads moved wrong bytes in 4 transfers.",
        ),
        (
            {"completed": 97, "failed": 3},
            "12 of 400 transfers were lost: epoll served 97 of 100 (97 %) with 3 reads at once. threads served 97 of ",
        ),
    ],
    ids=["all", "not compared", "not read back", "cut off", "nothing", "none begun", "wrong", "lost"],
)
def test_a_quick_run_says_what_was_served_or_lost_and_no_ratio(changes: dict[str, Any], sentence: str) -> None:
    question = asked().quick()
    found = rows(question, {"epoll": 2.0, "threads": 1.0}, rounds=1, **{**SERVED, "verdict": "valid", **changes})
    said = answer(question, found)
    assert said.sentence.startswith(sentence)
    assert "times as fast" not in said.sentence
    assert "0.50x" in rendered.text(said, "x", "y") or not changes.get("data_pps", 1), "the table has it"


@pytest.mark.parametrize("figures", [{"started": 0}, {"started": None}])
@pytest.mark.parametrize(("idle_cells", "where"), [(1, "with 3 reads at once"), (2, "in 2 cells")])
def test_what_works_is_not_said_where_a_server_served_nothing(
    figures: dict[str, Any], idle_cells: int, where: str
) -> None:
    question = asked().quick()
    found = rows(question, {"epoll": 2.0, "threads": 1.0}, rounds=1, **{**SERVED, "verdict": "valid"})
    for row in [row for row in found if row["server"] == "epoll"][:idle_cells]:
        row |= {**figures, "completed": figures["started"], "data_pps": None, "verdict": "invalid"}
    said = answer(question, found)
    rest = 400 - 100 * idle_cells
    assert said.sentence == f"epoll served nothing {where}. Otherwise all {rest} transfers served, every byte right."
    assert said.exit_code == 3
    assert {line.served for line in said.lines} == {"all 100", "0" if figures["started"] == 0 else "-"}


def test_a_rate_of_files_is_unknown_where_no_end_of_a_transfer_fell_into_the_window() -> None:
    question = asked(1000, servers=["epoll"])
    found = rows(question, {"epoll": 100.0}, started=5, completed=5, transfers_per_s=0.0, goodput_bytes_per_s=1e6)
    said = summary.summarise(question, ["epoll"], found, PLACE)
    assert said.lines[0].figures["transfers_per_s"] is None
    assert "files/s" not in said.sentence
    assert said.lines[0].served in said.sentence
    nothing = [row | {"completed": 0} for row in found]
    assert summary.summarise(question, ["epoll"], nothing, PLACE).lines[0].figures["transfers_per_s"] == 0


def test_a_threshold_says_apart_what_was_missed_and_what_is_not_known() -> None:
    question = asked(thresholds=["timed_out == 0"])
    found = rows(question, {"epoll": 2.0, "threads": 1.0}, rounds=1, timed_out=None)
    found[1]["timed_out"] = 3
    [judged] = summary.judgements(answer(question, found).thresholds)
    assert judged.cases == "missed in 1, not known in 3 of 4 cases"
    assert judged.reasons[0] == "threads, read, 3 at once, 64 KiB: 3, missed in 1 of 1 trial"
    assert "✗ timed_out == 0 (missed in 1, not known in 3 of 4 cases)" in rendered.text(
        answer(question, found), "x", "y"
    )


def test_a_threshold_of_a_cell_without_trials_names_no_server() -> None:
    question = asked(3, thresholds=["failed == 0"])
    [judged] = summary.judgements(answer(question, []).thresholds)
    assert judged.reasons == ("read, 3 at once, 64 KiB: no trial of it was done",)


def at_rates(dropped: int = 50, **changes: object) -> tuple[Scenario, list[dict[str, Any]]]:
    """Two trials of 1000 arrivals a cell: epoll serves all, threads drops some of them at 200/s."""
    matrix = {"operation": "read", "rate": ["50/s", "200/s"], "file_size": "4KiB"}
    question = asked(matrix=matrix, trials=2, **changes)
    found = rows(question, {"epoll": 1800.0, "threads": 1700.0}, rounds=2, duration_s=5.0, offered_per_s=200.0)
    rate_of = {cell.key: cell.rate_per_s for cell in question.cells()}
    for row in found:
        rate = rate_of[row["cell_key"]]
        lost = dropped if row["server"] == "threads" and rate == 200 else 0
        never = lost > 10  # one in a hundred
        row |= {
            "rate_per_s": rate, "intended": 1000, "shed": lost and 10, "started": 1000 - (lost and 10),
            "completed": 1000 - lost, "late": max(lost - 10, 0), "deadline_ns": 30_000_000_000,
            "transfer_ns_p50": 9e5, "transfer_ns_p99": 1e6, "transfer_ns_max": 2e6, "achieved_per_s": 200.0,
            "response_ns_p50": 1_000_000, "response_ns_p50_is_never": False,
            "response_ns_p95": 2_000_000, "response_ns_p95_is_never": False,
            "response_ns_p99": None if never else 3_100_000, "response_ns_p99_is_never": never,
            "response_ns_max": None if lost else 4_000_000, "response_ns_max_is_never": lost > 0,
        }  # fmt: skip
    return question, found


def test_at_a_rate_the_answer_is_who_served_what_was_intended_and_how_long_nearly_all_waited() -> None:
    said = answer(*at_rates())
    assert said.sentence == (
        "At 200/s, epoll served all 2,000; response time p99 3.1 ms. threads served 1,900 of 2,000 (95 %); "
        "response time p99 never. Served in full: epoll at every rate, threads up to 50/s."
    )
    assert said.conditions == (
        "Compared by response time, from each transfer's intended start, reads, 4 KiB, on separate cores."
    )
    assert said.headline == "read, 200/s, 4 KiB"
    assert (said.incomplete, said.exit_code) == ((), 0)
    assert all(line.ratio is None for line in said.lines), "a rate is not the server's doing"
    assert [line.lost for line in said.lines] == [0, 0, 0, 100]


def test_a_rate_at_which_a_server_was_not_measured_is_none_that_it_served() -> None:
    question, found = at_rates()
    known = [row for row in found if row["server"] != "epoll" or row["rate_per_s"] < 200]
    assert "Served in full: epoll up to 50/s, threads up to 50/s." in answer(question, known).sentence


def test_where_this_machine_was_too_busy_the_waits_at_a_rate_are_not_known() -> None:
    question, found = at_rates()
    for row in found:
        row |= {"verdict": "invalid", "verdict_reason": BUSY}
    sentence = answer(question, found).sentence
    assert sentence.startswith(
        "100 of 8000 transfers were lost: threads served 1,900 of 2,000 (95 %) at 200/s. How long "
    )
    assert f" clients waited is not known: {TOO_BUSY.rstrip('.')}, or" in sentence


def test_the_table_of_rates_shows_no_time_that_leaves_out_what_was_dropped() -> None:
    table = rendered.headline_table(answer(*at_rates()))
    titles = [heading.title for heading in table.headings]
    assert titles[:9] == [
        "cell", "server", "served", "response p50", "p95", "p99", "max", "offered/s", "achieved/s",
    ]  # fmt: skip
    assert not {"time p50", "against epoll", "data/s"} & set(titles)
    last = dict(zip(titles, table.rows[-1], strict=True))
    assert {name: last[name].text for name in ("served", "p99", "shed", "late", "lost")} == {
        "served": "1,900 of 2,000 (95 %)", "p99": "never", "shed": "20", "late": "80", "lost": "100",
    }  # fmt: skip
    assert last["p99"].sort is not None
    assert 1e300 < last["p99"].sort < float("inf"), "it sorts behind all numbers, in a page too"


def test_never_is_null_in_the_document_and_infinity_in_the_frame() -> None:
    question, found = at_rates()
    said = answer(question, found)
    document = json.loads(json.dumps(summary.document(said, "run", 1, found), allow_nan=False))
    cell = document["cells"][-1]
    assert (cell["response_ns_p99"], cell["response_ns_p99_is_never"]) == (None, True)
    assert (cell["response_ns_p95"], cell["response_ns_p95_is_never"]) == (2_000_000, False)
    frame = said.to_frame()
    assert frame["response_ns_p99"].tolist() == [3.1e6, 3.1e6, 3.1e6, float("inf")]
    assert "response_ns_p99" not in json.dumps(summary.document(answer(*closed_loop()), "run", 1, [])["cells"])


def closed_loop() -> tuple[Scenario, list[dict[str, Any]]]:
    question = asked(1000)
    return question, rows(question, {"epoll": 100_000, "threads": 61_000})


@pytest.mark.parametrize(("missing", "p99"), [(0, 990.0), (10, 990.0), (11, float("inf"))])
def test_a_percentile_of_several_trials_is_over_all_that_was_intended_in_them(missing: int, p99: float) -> None:
    """The histogram has completed transfers only; of 1000 intended ones, 99 % are 990."""
    question, found = at_rates(dropped=missing)

    def merged(kind: str, _key: str, _server: str) -> Latency | None:
        return histogram(*(ms * 1_000_000 for ms in range(1, 1001 - missing))) if kind == "response" else None

    for row in found:
        row["offered_per_s"] = 100.0  # 500 in each of two trials
    line = answer(question, found, merged=merged).lines[-1]
    value = line.figures["response_ns_p99"]
    assert value is not None
    assert value / 1e6 == pytest.approx(p99, rel=0.001)


def test_of_many_servers_at_a_rate_the_first_and_the_last_are_told() -> None:
    question, found = at_rates()
    names = ["epoll", "threads", "tftpy", "atftpd"]
    of_epoll, of_threads = ([row for row in found if row["server"] == name] for name in names[:2])
    others = [{**row, "server": name} for name in names[2:] for row in of_epoll]
    every = [*of_epoll, *of_threads, *others]
    sentence = summary.summarise(question, names, every, PLACE).sentence
    assert sentence.startswith(
        "At 200/s, 3 of 4 servers served all that was intended. First is epoll: it served all 2,000; response time p99 "
        "3.1 ms. Last is threads: it served 1,900 of 2,000 (95 %); response time p99 never."
    )


def calibrated(user_ns: list[int], **changes: object) -> Answer:
    question = asked(3)
    found = rows(question, {"epoll": 1000.0, "threads": 500.0})
    for row, taken_ns in zip(found, user_ns * len(found), strict=False):
        row |= {"calibration_user_ns": taken_ns, "calibration_kernel_ns": 2_000_000, **changes}
    return answer(question, found)


def test_a_machine_at_rest_is_called_quiet_with_the_width_of_the_interval() -> None:
    found = calibrated([1_000_000, 1_040_000])
    assert found.noise.startswith("The machine was quiet: fixed work took the same time within 4 %.")
    assert found.interval_width == pytest.approx(0.0, abs=1e-9)
    assert "The headline's interval is" in found.noise
    assert answer(asked(3), rows(asked(3), {"epoll": 1000.0, "threads": 500.0})).noise == "", "an older run"


def test_a_noisy_machine_is_said_with_its_causes_and_what_helps() -> None:
    found = calibrated([1_000_000, 3_000_000], steal_fraction=0.1, cpu_pressure_fraction=0.5)
    assert found.noise.startswith(
        "The machine was noisy: fixed work took up to 3.0 times as long "
        "(10 % of the time stolen by the hypervisor, 50 % of the time under pressure for a core)."
    )
    assert "--until 5%" in found.noise
    held_back = calibrated([1_000_000], throttled_ns=5_000_000).noise
    assert "held back by a quota for" in held_back
    assert "tftpbench doctor" in held_back


def test_the_width_of_a_server_alone_is_that_of_its_median() -> None:
    question = asked(3, servers=["epoll"])
    found = summary.summarise(question, ["epoll"], rows(question, {"epoll": 1000.0}), PLACE)
    assert found.interval_width == pytest.approx(0.05, abs=0.03)
    few = summary.summarise(question, ["epoll"], rows(question, {"epoll": 1000.0}, rounds=5), PLACE)
    assert few.interval_width is None
