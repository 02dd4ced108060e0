"""What a report of machines that boot shows, in each of its forms."""

import csv
import io
import json
import re

import pytest

from tests.report import runs
from tests.unit.builders import scenario
from tftpbench import load_run
from tftpbench.render.report import report
from tftpbench.store import Run


@pytest.fixture(scope="module", name="storm")
def _storm(tmp_path_factory: pytest.TempPathFactory) -> Run:
    matrix = {"boot": "uefi-grub", "machines": [50, 200], "over": "0s"}
    question = scenario(servers=["epoll", "threads"], matrix=matrix, trials=2, duration=None, description="Who is up?")
    return load_run(runs.store_storm(tmp_path_factory.mktemp("runs"), question, {"threads": 5}))


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
