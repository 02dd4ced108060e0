"""`tftpbench report`, `run --report` and `compare`: what is typed, where it is written, what is said, how it fails."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.loopback.machine import tiny
from tests.unit.builders import asked, made, manifest, rows, said, store

pytestmark = pytest.mark.usefixtures("any_machine")

SCENARIO = """\
schema: tftpbench.scenario/1
name: typed
description: What is typed?
servers: [{server}]
matrix: {{operation: read, concurrency: [1, 2], file_size: 1KiB}}
transfers: 2
trials: {trials}
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    question = asked(["epoll", "threads"], thresholds=["failed == 0"])
    return store(tmp_path, manifest(question), rows(question))


def test_the_page_lies_in_the_run_and_its_path_is_printed(capfd: pytest.CaptureFixture[str], run: Path) -> None:
    assert said(capfd, "report", str(run)) == (0, f"{run}/report.html\n", "")
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in run.iterdir()) == ["manifest.json", "report.html", "trials", "trials.jsonl"]


def test_other_forms_are_printed(capfd: pytest.CaptureFixture[str], run: Path) -> None:
    code, out, _ = said(capfd, "report", str(run), "-f", "json")
    assert (code, json.loads(out)["schema"]) == (0, "tftpbench.summary/1")
    assert ET.fromstring(said(capfd, "report", str(run), "-f", "junit")[1]).tag == "testsuites"
    assert said(capfd, "report", str(run), "-f", "csv")[1].count("\n") == 29
    assert said(capfd, "report", str(run), "-f", "md")[1].startswith("# ")


def test_out_is_a_file_or_standard_output(capfd: pytest.CaptureFixture[str], run: Path, tmp_path: Path) -> None:
    path = tmp_path / "there.md"
    assert said(capfd, "report", str(run), "-f", "md", "-o", str(path)) == (0, f"{path}\n", "")
    assert path.read_text(encoding="utf-8") == said(capfd, "report", str(run), "-f", "md", "-o", "-")[1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["/nowhere"], "/nowhere: is no run folder: there is nothing of that name"),
        (["RUN", "-f", "pdf"], "--format is 'pdf'; allowed: html, md, json, csv, junit"),
        (["RUN", "-f", "md", "-o", "/nowhere/x.md"], "/nowhere/x.md: can't be written: No such file or directory"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capfd: pytest.CaptureFixture[str], run: Path, arguments: list[str], expected: str
) -> None:
    code, out, err = said(capfd, "report", *(str(run) if word == "RUN" else word for word in arguments))
    assert (code, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1


def test_a_run_that_is_not_whole_is_reported_without_noise(capfd: pytest.CaptureFixture[str], run: Path) -> None:
    with (run / "trials.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"trial": 9')
    code, out, err = said(capfd, "report", str(run), "-f", "md")
    assert (code, err) == (0, "")
    assert "torn" in out


def scenario(tmp_path: Path, trials: int = 2) -> Path:
    path = tmp_path / "typed.yaml"
    path.write_text(SCENARIO.format(server=tiny(tmp_path, "ok"), trials=trials), encoding="utf-8")
    return path


def test_a_run_ends_by_naming_the_command(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, text, _ = said(capfd, "run", str(scenario(tmp_path)), "-o", str(out))
    (folder,) = out.iterdir()
    assert code in (0, 6)
    assert f"Report: tftpbench report {folder}\n" in text
    assert not (folder / "report.html").exists()


def test_a_run_writes_its_report_where_asked(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, text, err = said(capfd, "run", str(scenario(tmp_path)), "-o", str(out), "--report", "--json")
    (folder,) = out.iterdir()
    assert code in (0, 6)
    assert json.loads(text)["run"] == str(folder)
    assert f"Report written: {folder}/report.html" in err
    assert "Figures" in (folder / "report.html").read_text(encoding="utf-8")


def test_an_interrupted_run_writes_its_report_too(tmp_path: Path) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        pytest.skip("SIGINT is ignored here, as in a shell's background job, and children inherit that")
    out = tmp_path / "out"
    command = ["run", str(scenario(tmp_path, trials=500)), "-o", str(out), "--report"]
    with subprocess.Popen(
        [sys.executable, "-m", "tftpbench", *command],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "99"},
    ) as process:
        try:
            deadline = time.monotonic() + 30
            # A second line: the first may be on the disk just before it is remembered.
            while not any(path.read_bytes().count(b"\n") > 1 for path in out.glob("*/trials.jsonl")):
                assert process.poll() is None, "it ended by itself"
                assert time.monotonic() < deadline, "no trial was finished"
                os.sched_yield()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Report written" in err, err
    (page,) = out.glob("*/report.html")
    assert f"Report written: {page}" in err
    assert "the run was cut off" in page.read_text(encoding="utf-8")


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    a = made(tmp_path / "a", {"epoll": 100_000, "threads": 50_000})
    b = made(tmp_path / "b", {"epoll": 108_000, "threads": 50_000}, seed=2)
    return str(a), str(b)


def test_the_text_is_the_default_and_the_exit_code_0(capsys: pytest.CaptureFixture[str], runs: tuple[str, str]) -> None:
    code, out, err = said(capsys, "compare", *runs)
    assert (code, err) == (0, "")
    assert out.startswith("B against A in 2 comparisons: faster in 1, the same within 5 % in 1. Largest difference ")
    assert "difference that is certain: epoll, read, 100 at once, 64 KiB: B is 1.08 times as fast as A " in out


def test_what_counts_as_the_same_can_be_widened(capsys: pytest.CaptureFixture[str], runs: tuple[str, str]) -> None:
    _, out, _ = said(capsys, "compare", *runs, "--within", "12.5%")
    assert out.startswith("B against A in 2 comparisons: the same within 12.5 % in 2. Largest difference seen, ")


def test_every_format_tells_the_same(capsys: pytest.CaptureFixture[str], runs: tuple[str, str]) -> None:
    _, text, _ = said(capsys, "compare", *runs)
    _, markdown, _ = said(capsys, "compare", *runs, "-f", "md")
    _, document, _ = said(capsys, "compare", *runs, "-f", "json")
    _, table, _ = said(capsys, "compare", *runs, "-f", "csv")
    parsed = json.loads(document)
    rows = list(csv.DictReader(io.StringIO(table)))
    assert text.splitlines()[0] == parsed["sentence"]
    assert markdown.splitlines()[0] == f"**{parsed['sentence']}**"
    assert [row["verdict"] for row in rows] == [cell["verdict"] for cell in parsed["cells"]] == ["faster", "same"]
    assert [float(row["ratio"]) for row in rows] == [cell["ratio"] for cell in parsed["cells"]]
    assert sum(line.startswith("| read, 100 at once, 64 KiB | ") for line in markdown.splitlines()) == 2


def test_it_is_written_to_a_file_and_nothing_is_printed(
    capsys: pytest.CaptureFixture[str], runs: tuple[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "out.md"
    path.write_text("older")
    assert said(capsys, "compare", *runs, "-f", "md", "-o", str(path)) == (0, "", "")
    assert path.read_text().startswith("**B against A")


def test_nothing_in_common_is_exit_code_5_and_a_line_for_each_reason(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    a, b = made(tmp_path / "a", {"epoll": 1.0}), made(tmp_path / "b", {"threads": 1.0})
    code, out, err = said(capsys, "compare", str(a), str(b))
    assert (code, out) == (5, "")
    assert [line.removeprefix("tftpbench: error: ") for line in err.splitlines()] == [
        f"{a} (A) and {b} (B) can't be compared:",
        "epoll: only in A",
        "threads: only in B",
    ]


def test_a_run_that_is_not_whole_is_in_the_notes_and_not_as_a_warning_of_python(
    capsys: pytest.CaptureFixture[str], runs: tuple[str, str]
) -> None:
    trials = Path(runs[0]) / "trials.jsonl"
    trials.write_text(trials.read_text() + "{torn")
    code, out, err = said(capsys, "compare", *runs)
    assert (code, err) == (0, "")
    assert "A: trials.jsonl:17: the last line is torn" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["."], "compare needs RUN_B, as in: tftpbench compare "),
        (["/nowhere", "/nowhere"], "/nowhere: is no run folder"),
        (["a", "b", "--within", "5"], "--within is '5'; allowed: 0% to under 100%, as in 5%"),
        (["a", "b", "--within", "-1%"], "--within is '-1%'"),
        (["a", "b", "--within", "nan%"], "--within is 'nan%'"),
        (["a", "b", "--within", "much"], "--within is 'much'"),
        (["a", "b", "--within", "100%"], "--within is '100%'; allowed: 0% to under 100%"),
        (["a", "b", "-f", "html"], "--format is 'html'; allowed: text, md, json, csv"),
    ],
)
def test_a_mistake_in_compare_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    code, out, err = said(capsys, "compare", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("tftpbench: error: ")
    assert expected in err
    assert err.count("\n") == 1


def test_a_file_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str], runs: tuple[str, str]) -> None:
    code, _, err = said(capsys, "compare", *runs, "-o", "/nowhere/out")
    assert code == 2
    assert err.startswith("tftpbench: error: /nowhere/out: can't be written: No such file or directory")
    assert err.count("\n") == 1
