"""What a run's folder, a server or a caller says is data to every command: no escapes, no formulas, no markup."""

import csv
import io
import json
import re
import warnings
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import tftpbench
from tests.fixtures.unpacked import GATES
from tests.loopback.peer import peer, serve_bytes
from tests.report.runs import asked, manifest, rows, store
from tftpbench import cli
from tftpbench.model.errors import TftpbenchError

pytestmark = pytest.mark.timeout(120)
EVIL = "=1+1 \x1b]2J\x9b31m\u202e<img src=x onerror=alert(1)>|`@everyone` \ud800"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A run in which everything that others may choose is hostile, and one of another server."""
    question = asked(["epoll", "threads"], concurrency=(10,), trials=3, thresholds=["failed == 0"])
    found = rows(question)
    for row in found:
        row.update({"server_findings": [{"kind": "died", "count": 1, "text": EVIL}], "server_end": EVIL, EVIL: EVIL})
        row.update({"protocol_faults": [{"kind": EVIL, "count": 1, "example": EVIL}], "failed": 1, "completed": 497})
        if row["server"] == "threads":
            row["server"] = EVIL
    found[0] |= {"verdict": "invalid", "verdict_reason": EVIL}
    facts = manifest(
        question, servers={"epoll": {"version": EVIL, "argv": [EVIL]}, EVIL: {}}, argv=["tftpbench", EVIL],
        skipped=[{"server": EVIL, "cell_key": None, "reason": EVIL}], machine={"cpu_model": EVIL, "hostname": EVIL},
        placement={"phrase": EVIL}, build={"tftpbench": EVIL}, keys={"host_key": EVIL, "method_key": EVIL},
    )  # fmt: skip
    out = tmp_path_factory.mktemp("runs")
    other = asked(["threads"], concurrency=(10,), trials=3)
    evil = store(out / "x\x1b]2J\u202e", facts, found)
    return str(evil), str(store(out / "other", manifest(other), rows(other)))


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = cli.exit_code(list(arguments))
    captured = capsys.readouterr()
    assert not CONTROL.search(captured.out + captured.err)
    assert "Traceback" not in captured.err
    return code, captured.out, captured.err


@pytest.mark.parametrize("form", ["md", "json", "csv", "junit"])
def test_a_report_moves_no_terminal(capsys: pytest.CaptureFixture[str], runs: tuple[str, str], form: str) -> None:
    code, out, _ = said(capsys, "report", runs[0], "-f", form)
    assert code == 0
    assert "\\u001b]2J" in out.replace("\\\\u", "\\u").replace("\\]", "]")


@pytest.mark.parametrize("form", ["text", "md", "json", "csv"])
def test_a_comparison_moves_no_terminal(capsys: pytest.CaptureFixture[str], runs: tuple[str, str], form: str) -> None:
    code, out, _ = said(capsys, "compare", runs[0], runs[0], "-f", form)
    assert code == 0
    assert "u001b" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "EVIL", "OTHER"],
        ["run", "--resume", "EVIL", "--quiet"],
        ["gate", "slo", "--run", "EVIL"],
        ["gate", "slo", "--run", "EVIL", "--json"],
        ["gate", "baseline", "EVIL", "--run", "OTHER"],
        ["gate", "baseline", "OTHER", "--run", "EVIL"],
        ["report", "EVIL/\x1b]2J\u202e"],
        ["servers", "./\x1b]2J\u202e"],
        ["run", "\x1b]2J\u202e.yaml"],
        ["load", "127.0.0.1:1", "--read", "a", "--verify-against", "\x1b]2J\u202e"],
    ],
    ids=" ".join,
)
def test_no_command_moves_a_terminal(
    capsys: pytest.CaptureFixture[str], runs: tuple[str, str], arguments: list[str]
) -> None:
    places = {"EVIL": runs[0], "OTHER": runs[1]}
    code, out, err = said(capsys, *(places.get(word, word.replace("EVIL", runs[0])) for word in arguments))
    assert code in (0, 2, 3, 4, 5, 6)
    assert "\\u001b]2J" in out + err


def test_runs_that_can_not_be_compared_are_named_in_visible_lines(
    capsys: pytest.CaptureFixture[str], runs: tuple[str, str]
) -> None:
    code, out, err = said(capsys, "compare", *runs)
    assert (code, out) == (5, "")
    assert all(line.startswith("tftpbench: error: ") for line in err.splitlines())
    assert "can't be compared" in err
    assert "\\u202e" in err


def test_what_a_program_prints_of_a_running_server_moves_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with peer(serve_bytes(b"x")) as server:
        address = f"127.0.0.1:{server.port}"
        code, out, _ = said(capsys, "load", address, "--read", "n\x1b]2J\u202e", "-c", "1", "--transfers", "1")
        assert code == 0
        assert "n\\u001b]2J\\u202e" in out
        code, out, _ = said(capsys, "load", address, "--read", "n\x1b\x9b", "-c", "1", "--transfers", "1", "--json")
        assert json.loads(out)["completed"] == 1


def test_json_keeps_its_values(capsys: pytest.CaptureFixture[str], runs: tuple[str, str]) -> None:
    whole = json.loads(said(capsys, "report", runs[0], "-f", "json")[1])
    assert whole["environment"]["machine"]["cpu_model"] == EVIL
    compared = json.loads(said(capsys, "compare", runs[0], runs[0], "-f", "json")[1])
    assert compared["a"]["path"] == runs[0]


def test_no_cell_of_csv_is_a_formula_and_figures_are_figures(
    capsys: pytest.CaptureFixture[str], runs: tuple[str, str]
) -> None:
    for arguments in (["report", runs[0], "-f", "csv"], ["compare", runs[0], runs[0], "-f", "csv"]):
        head, *lines = list(csv.reader(io.StringIO(said(capsys, *arguments)[1])))
        assert lines
        for cell in (*head, *(cell for line in lines for cell in line)):
            assert not re.match(r"[=+@\t\r]|-(?!\d)", cell), cell
        assert float(lines[1][head.index("data_pps" if "data_pps" in head else "a_data_pps")]) > 0


def test_markdown_has_no_markup_of_others(capsys: pytest.CaptureFixture[str], runs: tuple[str, str]) -> None:
    for arguments in (["report", runs[0], "-f", "md"], ["compare", runs[0], runs[0], "-f", "md"]):
        text = said(capsys, *arguments)[1]
        outside = re.sub(r"```sh\n.*?\n```", "", text, flags=re.DOTALL)
        assert "<img" not in outside
        assert "&lt;img" in outside
        assert "@everyone" not in outside
        assert not re.search(r"(?<!\\)`(?!``)", outside)


def test_junit_is_xml(capsys: pytest.CaptureFixture[str], runs: tuple[str, str]) -> None:
    root = ET.fromstring(said(capsys, "report", runs[0], "-f", "junit")[1])
    assert any("<img" in str(case.get("name")) for case in root.iter("testcase"))


def test_what_is_shown_in_a_notebook_is_visible(runs: tuple[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = tftpbench.load_run(runs[0])
        shown = [repr(run), run._repr_html_(), tftpbench.compare(run, run)._repr_html_()]
        with pytest.raises(TftpbenchError) as error:
            tftpbench.compare(*runs)
    for text in (*shown, str(error.value)):
        assert not CONTROL.search(text)
        assert "<img" not in text or text is shown[0] or text == str(error.value)


VALUES: tuple[Any, ...] = (
    None, 5, -1, 1.5, b"x", [], {}, object(), [5], [None], "a\0b", "x" * 5000, "/dev/zero", "/", 10**5000, True,
)  # fmt: skip
CALLS: dict[str, Any] = {
    "answer": tftpbench.answer,
    "compare": lambda value: tftpbench.compare(value, value),
    "load_gate": tftpbench.load_gate,
    "load_run": tftpbench.load_run,
    "load_runs": tftpbench.load_runs,
    "load_scenario": tftpbench.load_scenario,
    "overrides": lambda value: tftpbench.load_scenario("concurrency", value or [value]),
    "run": tftpbench.run,
    "servers": lambda value: tftpbench.run("concurrency", servers=value or [value], out="/proc/nowhere"),
    "out": lambda value: tftpbench.run("concurrency", out=value, servers=["absent"]),
    "seed": lambda value: tftpbench.run("concurrency", seed=[value], servers=["absent"]),  # type: ignore[arg-type]
    "Server": tftpbench.Server,
    "root": lambda value: tftpbench.Server("absent", root=value),
    "store": lambda value: tftpbench.Server("epoll", store=value),
    "concurrency": lambda value: tftpbench.Server("epoll", concurrency=[value]),  # type: ignore[arg-type]
    "cpus": lambda value: tftpbench.Server("epoll", cpus=[[value]]),  # type: ignore[list-item]
}


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_argument_of_a_public_function_is_one_line_of_our_own(call: str) -> None:
    for value in VALUES:
        with pytest.raises(TftpbenchError) as error:
            CALLS[call](value)
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 2100


def test_a_path_may_be_text() -> None:
    first = next(GATES.rglob("gate.json"))
    assert tftpbench.load_gate(str(first)) == tftpbench.load_gate(first.parent)
