"""`tftpbench report` and `tftpbench run --report`: where it is written, what is printed, how it fails."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.loopback.manifests import tiny
from tests.report.runs import asked, manifest, rows, store
from tftpbench import cli

pytestmark = pytest.mark.usefixtures("any_machine")

pytestmark = pytest.mark.timeout(120)  # drawing takes seconds where other things run too

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


def said(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.exit_code(list(arguments))
    captured = capfd.readouterr()
    return code, captured.out, captured.err


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
