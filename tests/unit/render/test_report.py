"""What a report says of a stored run, in each of its forms, and that nothing of a run is ever markup."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.unit.builders import asked, manifest, rows, scenario, store, store_storm
from tftpbench.model.errors import ResultsError
from tftpbench.model.escape import markdown, markdown_block, visible, xml
from tftpbench.model.scenario import Scenario
from tftpbench.render.report import FORMATS, report
from tftpbench.store import Run, load_run

# Drawing some ten plots takes seconds on a machine that does other things too.
pytestmark = pytest.mark.timeout(120)

HOSTILE = (
    "</script><script>alert(1)</script> \"quoted\" 'single' ]]> <!-- --> | `tick` $x^2$ {{ 7*7 }} &amp; "
    "\x00\x07\x1b[31m \u202e @everyone *bold* [link](javascript:alert(1))"
)


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._open[-1:]):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def stored(tmp_path: Path, question: Scenario | None = None, **changes: object) -> Run:
    question = question or asked(["epoll", "threads"], thresholds=["failed == 0"])
    return load_run(store(tmp_path, manifest(question, **changes), rows(question)))


def hostile(tmp_path: Path) -> Run:
    question = asked(["epoll", "threads"])
    found = rows(question)
    for row in found:
        if row["server"] == "threads":
            row |= {"server": HOSTILE, "server_findings": [{"kind": "died", "count": 1, "text": HOSTILE}]}
            row |= {"protocol_faults": [{"kind": HOSTILE, "count": 1, "example": HOSTILE}], "server_end": HOSTILE}
            row |= {"failed": 1, "completed": 497}
    found[0] |= {"verdict": "invalid", "verdict_reason": HOSTILE}
    facts = manifest(
        question,
        servers={"epoll": {"version": HOSTILE, "model": HOSTILE, "argv": [HOSTILE]}, HOSTILE: {}},
        skipped=[{"server": HOSTILE + "2", "cell_key": None, "reason": HOSTILE}],
        argv=["tftpbench", "run", HOSTILE],
        machine={"cpu_model": HOSTILE, "hostname": HOSTILE},
        placement={"phrase": HOSTILE},
    )
    return load_run(store(tmp_path, facts, found, transfers=20))


def test_the_page_goes_from_the_answer_to_the_command_to_repeat_it(tmp_path: Path) -> None:
    page = Page(report(stored(tmp_path)))
    places = [page.text.index(word) for word in (
        "threads is 0.", "on separate cores", "Thresholds", "failed == 0", "Figures", "Validity",
        "28 of 28 trials count", "What it cost the server", "Plots", "Loss: what went wrong, and where",
        "Environment", "Test CPU", "To repeat it", "tftpbench run order --seed 3",
    )]  # fmt: skip
    assert places == sorted(places)


def test_the_page_asks_the_network_for_nothing(tmp_path: Path) -> None:
    text = report(hostile(tmp_path))
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "form"}
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:text/csv", "data:image/png")), (
                tag,
                attributes[name],
            )
    assert "url(http" not in text
    assert "@import" not in text
    policy = next(attributes["content"] for tag, attributes in page.elements if attributes.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")


def test_each_plot_has_its_data_and_words_for_who_can_not_see_it(tmp_path: Path) -> None:
    question = asked(["epoll", "threads"])
    found = [{**row, "transfer_ns_max": 10**9 + row["trial"]} for row in rows(question)]
    page = Page(report(load_run(store(tmp_path, manifest(question), found, transfers=50))))
    figures = [attributes["id"] for tag, attributes in page.elements if tag == "figure"]
    assert {
        "throughput",
        "slowest-transfers",
        "ratios",
        "pairs",
        "round-trips",
        "cpu-per-block",
        "transfer-times",
        "losses",
    } <= set(figures)
    pictures = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert len(pictures) == len(figures)
    assert all(attributes.get("aria-label") for attributes in pictures)
    names = [attributes["download"] for tag, attributes in page.elements if tag == "a"]
    assert {f"{figure}.csv" for figure in figures} <= set(names)


def test_what_can_not_be_drawn_is_said_in_one_line(tmp_path: Path) -> None:
    text = Page(report(stored(tmp_path))).text
    assert "Not drawn:" in text
    assert "round-trips: " in text


def test_absurd_figures_are_not_drawn(tmp_path: Path) -> None:
    question = asked(["epoll", "threads"])
    found = [{**row, "data_pps": 1e308 * (1 + row["round"] / 10)} for row in rows(question)]
    text = Page(report(load_run(store(tmp_path, manifest(question), found)))).text
    assert "throughput: its figures are too large or too small to be drawn" in text


def test_what_is_not_drawn_is_named_once(tmp_path: Path) -> None:
    question = asked(["epoll"])
    found = [{**row, "data_pps": None} for row in rows(question)]
    text = Page(report(load_run(store(tmp_path, manifest(question), found)))).text
    assert "throughput: no trial has a known data_pps" in text
    assert "throughput: throughput" not in text


def test_files_that_a_run_is_kept_without_are_no_alarm(tmp_path: Path) -> None:
    page = Page(report(stored(tmp_path)))
    assert "28 trials have no transfers.parquet, kept without" in page.text.partition("Validity")[2]
    assert not any(attributes.get("class") == "problems" for _, attributes in page.elements)


def test_a_hostile_run_gives_an_inert_page(tmp_path: Path) -> None:
    text = report(hostile(tmp_path))
    question = asked(["epoll", "threads"])
    plain = Page(report(load_run(store(tmp_path / "other", manifest(question), rows(question), transfers=20))))
    page = Page(text)
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in plain.elements} | {"ul", "li", "details", "summary"}
    handlers = [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert handlers == []
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert "{{ 7*7 }}" in page.text
    assert "\\u001b[31m" in page.text


def test_a_hostile_run_gives_well_formed_junit(tmp_path: Path) -> None:
    root = ET.fromstring(report(hostile(tmp_path), "junit"))
    names = [case.get("name") for case in root.iter("testcase")]
    assert any("</script>" in str(name) for name in names)


def test_a_hostile_run_keeps_to_its_cells_in_markdown(tmp_path: Path) -> None:
    text = report(hostile(tmp_path), "md")
    tables = [block for block in text.split("\n\n") if block.startswith("| ")]
    assert len(tables) == 3
    for block in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block
    outside = re.sub(r"```sh\n.*?\n```", "", text, flags=re.DOTALL)
    assert "<script" not in outside
    assert not re.search(r"(?<!\\)[`$]", outside)
    assert "@everyone" not in outside
    assert not re.search(r"(?<!\\)\]\(", outside)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a|b", r"a\|b"),
        ("two\nlines", "two lines"),
        ("<b>&amp;", "&lt;b&gt;&amp;amp;"),
        (r"back\slash", r"back\\slash"),
        ("name@as_shipped", r"name@as\_shipped"),
        ("@you", "@\u200byou"),
        ("\x1b[0m", r"\\u001b\[0m"),
    ],
)
def test_text_in_markdown_is_shown_as_it_is(text: str, written: str) -> None:
    assert markdown(text) == written


@pytest.mark.parametrize(
    ("text", "written"), [("- a", r"\- a"), ("1. a", r"1\. a"), ("# a", r"\# a"), ("a - b", "a - b")]
)
def test_text_at_the_start_of_a_block_begins_no_list(text: str, written: str) -> None:
    assert markdown_block(text) == written


def test_characters_that_can_not_be_seen_are_told() -> None:
    assert visible("a\tb\x00\x85\u202e\udcff") == "a\tb\\u0000\\u0085\\u202e\\udcff"
    assert xml("a\tb\x00\ufffe\udcff\U0001f600") == "a\tb\\u0000\\ufffe\\udcff\U0001f600"


def test_junit_has_a_case_per_threshold_and_one_per_server_and_cell(tmp_path: Path) -> None:
    question = asked(
        ["epoll", "threads", "gone"], thresholds=["failed == 0", "epoll.data_pps > 1e9", "epoll.ceiling_ratio > 0"]
    )
    found = [row for row in rows(question) if row["server"] != "gone"]
    for row in found:
        if row["server"] == "threads" and row["concurrency"] == 10:
            row |= {"verdict": "invalid", "verdict_reason": "the host was busy"}
    facts = manifest(question, skipped=[{"server": "gone", "cell_key": None, "reason": "gone was not found"}])
    root = ET.fromstring(report(load_run(store(tmp_path, facts, found)), "junit"))
    thresholds, validity = root.findall("testsuite")
    assert thresholds.get("name") == "order.thresholds"
    assert {name: thresholds.get(name) for name in ("failures", "skipped")} == {"failures": "2", "skipped": "0"}
    assert int(thresholds.get("errors", 0)) >= 2
    assert {name: validity.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "6", "failures": "0", "errors": "1", "skipped": "2",
    }  # fmt: skip
    assert [case.get("name") for case in validity if case.find("error") is not None] == [
        "threads, read, 10 at once, 64 KiB"
    ]
    assert root.get("tests") == str(len(list(root.iter("testcase"))))


def test_json_is_the_summary_with_the_environment(tmp_path: Path) -> None:
    run = stored(tmp_path)
    document = json.loads(report(run, "json"))
    lines = [json.loads(line) for line in (run.path / "trials.jsonl").read_text().splitlines()]
    assert document["schema"] == "tftpbench.summary/1"
    assert document["trials"] == lines
    assert document["environment"]["machine"]["cpu_model"] == "Test CPU"
    assert document["cells"][1]["ratio"]["n"] == 7
    assert (document["reference"], document["faults"]) == ("epoll", [])
    assert document["headline"] == "read, 1000 at once, 64 KiB"


def test_csv_is_a_line_per_trial(tmp_path: Path) -> None:
    run = hostile(tmp_path)
    found = list(csv.DictReader(io.StringIO(report(run, "csv"))))
    assert len(found) == 28
    assert found[1]["server"] == visible(HOSTILE)
    assert float(found[0]["data_pps"]) == run.trials["data_pps"].iloc[0]
    assert json.loads(found[1]["server_findings"])[0]["kind"] == "died"
    assert found[0]["ceiling_data_pps"] == ""


def test_csv_has_our_contender_where_a_row_holds_its_own(tmp_path: Path) -> None:
    question = asked(["epoll"])
    found = [{**row, "contender": "other", "newer": number} for number, row in enumerate(rows(question))]
    text = report(load_run(store(tmp_path, manifest(question), found)), "csv")
    first = next(csv.DictReader(io.StringIO(text)))
    assert (first["newer"], first["contender"]) == ("0", "epoll")
    assert text.partition("\n")[0].endswith(",newer,contender")


@pytest.mark.parametrize("form", FORMATS)
def test_an_empty_run_says_so(tmp_path: Path, form: str) -> None:
    question = asked(["epoll", "threads"], thresholds=["failed == 0"])
    text = report(load_run(store(tmp_path, manifest(question), [])), form)
    if form in ("html", "md", "json"):
        assert "No answer: nothing was measured" in text
        assert "0 of 28 planned trials are there" in text


def test_an_interrupted_run_says_so_and_tells_what_is_there(tmp_path: Path) -> None:
    question = asked(["epoll", "threads"])
    run = load_run(store(tmp_path, manifest(question), rows(question)[:17]))
    text = Page(report(run)).text
    assert "17 of 28 planned trials are there: the run was cut off" in text
    assert "17 of 17 trials count; 28 were planned" in text
    assert "threads is 0.5" in text


def test_a_run_of_one_server_has_no_ratios(tmp_path: Path) -> None:
    question = asked(["epoll"])
    text = report(load_run(store(tmp_path, manifest(question), rows(question))))
    assert "against" not in Page(text).text.partition("Plots")[0]
    assert (
        "With 10 at once epoll did not finish <1 %, with 1000 it did not finish <1 %. With 1000 reads at once: "
        in Page(text).text
    )


def test_a_trial_of_no_cell_is_told_of_and_left_out(tmp_path: Path) -> None:
    question = asked(["epoll", "threads"])
    found = rows(question)
    found[0] |= {"cell_key": "f" * 16}
    run = load_run(store(tmp_path, manifest(question), found))
    assert "epoll: 1 trial of no cell of the scenario" in Page(report(run)).text


def test_a_run_without_a_scenario_is_one_clear_line(tmp_path: Path) -> None:
    question = asked(["epoll"])
    facts: dict[str, Any] = {**manifest(question), "scenario": {"name": "x"}}
    with pytest.raises(ResultsError, match=r"manifest.json"):
        report(load_run(store(tmp_path, facts, rows(question))))


def test_another_form_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allowed: html, md, json, csv, junit"):
        report(stored(tmp_path), "pdf")


def test_many_servers_are_still_one_page(tmp_path: Path) -> None:
    question = asked([f"server-{number}" for number in range(17)], concurrency=(10, 100, 1000))
    text = report(load_run(store(tmp_path, manifest(question), rows(question))))
    assert len(text) < 5_000_000
    assert text.count('class="wide card"') >= 5


def test_the_share_of_the_ceiling_stands_beside_the_comparison_where_it_is_known(tmp_path: Path) -> None:
    question = asked(["epoll", "threads"])
    assert "of ceiling" not in report(stored(tmp_path, question), "md")
    known = [row | {"ceiling_data_pps": 2 * row["data_pps"], "ceiling_ratio": 0.5} for row in rows(question)]
    shown = report(load_run(store(tmp_path / "known", manifest(question), known)), "md")
    assert "of ceiling" in shown
    assert "| 50 % |" in shown


def test_a_run_that_asks_for_the_ceiling_is_told_against_it(tmp_path: Path) -> None:
    question = asked(["epoll", "threads"], compare_with="ceiling")
    known = [row | {"ceiling_data_pps": 2 * row["data_pps"], "ceiling_ratio": 0.5} for row in rows(question)]
    shown = report(load_run(store(tmp_path, manifest(question), known)), "html")
    assert "against the ceiling" in shown
    assert "of the ceiling" in shown
    assert "raw loopback UDP throughput for the same datagrams" in shown
    assert "one of each server" not in shown


def test_what_is_unknown_of_all_servers_is_said_once(tmp_path: Path) -> None:
    question = asked(["epoll", "threads"])
    found = [row | {"server_cpu_ns_per_block": None, "server_rss_bytes_max": None} for row in rows(question)]
    run = load_run(store(tmp_path, manifest(question), found))
    for form in ("html", "md"):
        tables = report(run, form).partition("Figures")[2]
        assert tables.count("Not known of any server: CPU/block, first answer") == 0
        assert re.search(r"Not known of any server: [^.]*CPU/block[^.]*\.", tables)
        assert re.search(r"Not known of any server: [^.]*memory[^.]*\.", tables)
        heads = re.findall(r"^(?:<th.*|\| cell .*)$", tables, re.MULTILINE)
        assert not [head for head in heads if ">memory<" in head or "| memory |" in head]


def test_invalid_trials_are_folded_behind_the_first_figures(tmp_path: Path) -> None:
    run = hostile(tmp_path)
    for form, mark in (("html", "1 invalid trial, and why"), ("md", "1: Invalid trials, kept and never used")):
        text = report(run, form)
        before, _, after = text.partition(f"<details><summary>{mark}</summary>")
        assert "Figures" in before
        assert "trial 1, epoll" in after.partition("</details>")[0]
        assert not re.search(r"of \d+ trials? count", text), "it is said once, with why"
        assert text.count("invalid and not used") == 1
        assert form == "md" or ". Each is kept.</p>" in text


def test_a_report_of_rates_shows_response_times_and_none_of_completed_transfers_alone(tmp_path: Path) -> None:
    question = asked(["epoll", "threads"], matrix={"operation": "read", "rate": ["50/s", "200/s"], "file_size": "1KiB"})
    found = rows(question)
    rate_of = {cell.key: cell.rate_per_s for cell in question.cells()}
    for row in found:
        is_never = row["server"] == "threads"
        row |= {
            "rate_per_s": rate_of[row["cell_key"]], "arrivals": "even", "intended": 500, "shed": 0, "late": 2,
            "interrupted": 0, "transfer_ns_p50": 7_777_000, "transfer_ns_p99": 8_888_000,
            "response_ns_p99": None if is_never else 3_100_000, "response_ns_p99_is_never": is_never,
        }  # fmt: skip
    text = report(load_run(store(tmp_path, manifest(question), found)))
    page = Page(text).text
    assert "Response time p99 against rate" in page
    assert 'At a rate "served" is of those that were intended' in page
    trials = text.partition('<table id="trials"')[2].partition("</table>")[0]
    assert trials.count(">never<") == 14, "each trial of threads"
    assert "7.78 ms" not in page
    assert "8.89 ms" not in page
    assert "Duration of transfers" not in page


@pytest.fixture(scope="module", name="storm")
def _storm(tmp_path_factory: pytest.TempPathFactory) -> Run:
    matrix = {"boot": "uefi-grub", "machines": [50, 200], "over": "0s"}
    question = scenario(servers=["epoll", "threads"], matrix=matrix, trials=2, duration=None, description="Who is up?")
    return load_run(store_storm(tmp_path_factory.mktemp("runs"), question, {"threads": 5}))


def test_the_page_has_the_answer_the_wire_and_the_plots_of_machines(storm: Run) -> None:
    page = report(storm, "html")
    assert "With 200 machines of uefi-grub at once, epoll has its last machine up first" in page
    assert "The wire alone needs" in page
    assert re.findall(r'<figure id="([a-z-]+)">', page)[:3] == ["machines-up", "response-and-service", "arrivals"]
    assert "wire, 1 Gb/s" in page
    assert "threads: 5 machines stopped at" in page
    assert "booted" in page
    assert ">never<" in page


def test_the_plots_are_of_the_hardest_load(storm: Run) -> None:
    page = report(storm, "html")
    assert "200 of 200 after" in page
    assert "50 of 50 after" not in page


def test_markdown_has_the_answer_the_wire_and_the_table(storm: Run) -> None:
    text = report(storm, "md")
    assert "**With 200 machines of uefi-grub at once" in text
    assert "The wire alone needs" in text
    assert "| cell | server | booted |" in text
    assert "| 390 of 400 (98 %) |" in text


def test_programs_get_machines_and_never(storm: Run) -> None:
    document = json.loads(report(storm, "json"))
    rows = list(csv.DictReader(io.StringIO(report(storm, "csv"))))
    assert {row["machines_asked"] for row in rows} == {"50", "200"}
    assert {row["boot_ns_max_is_never"] for row in rows} == {"False", "True"} or len(rows) == 8
    assert "uefi-grub" in json.dumps(document)
