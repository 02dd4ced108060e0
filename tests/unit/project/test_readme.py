"""What the README promises is there: its figures are of recorded runs, and its address is the project's.

What it tells a stranger to type is run by tests/loopback/test_documents.py.
"""

import re
import statistics
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tftpbench import load_run
from tftpbench.analysis import summary
from tftpbench.host.choice import bundled_manifests
from tftpbench.model.scenario import from_document
from tftpbench.render import answer as rendered

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "results/reference/landscape"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_address_stands_in_pyproject_alone() -> None:
    """Until there is one, README and recipes say ADDRESS, and OWNER where GitHub wants the last two parts of it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "ADDRESS")
    action = "/".join(address.split("/")[-2:]) if "/" in address else "OWNER/tftpbench"
    release = f"v{project['version']}"
    assert f"git clone {address} tftpbench" in README
    wanted = {"ci.md": action, "ci/github-pull-request.yml": action, "ci/gitlab-ci.yml": f"git+{address}"}
    for name, source in wanted.items():
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        assert re.findall(r"(?:uses: |TFTPBENCH: \")(\S*(?:tftpbench|ADDRESS)\S*@[^\s\"]+)", text) == [
            f"{source}@{release}"
        ]


def test_it_names_the_servers_that_need_root_and_no_others() -> None:
    (paragraph,) = (part for part in README.split("\n\n") if part.startswith("Two servers need root"))
    needy = {name for name, each in bundled_manifests().items() if each.privileges or (each.fixed_port or 1024) < 1024}
    assert set(re.findall(r"`([a-z-]+)`", paragraph)) == needy
    assert len(needy) == 2


def test_no_page_says_that_a_registry_has_it() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert not re.search(r"(?i)pip install tftpbench|\bpypi\b(?!`)", page.read_text(encoding="utf-8")), page


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="no reference run yet")
def test_its_landscape_is_the_reference_run() -> None:
    for line in landscape(REFERENCE):
        assert line in README.splitlines(), f"renew it: {line}"


def test_its_first_result_is_a_run_that_is_kept() -> None:
    (block,) = re.findall(r"```\n(With 1000 reads .*?)```", README, re.DOTALL)
    answer = summary.answer_of(load_run(REFERENCE.parent / "concurrency"))
    said = rendered.text(answer, "", "", width=100)
    sentence, _, rest = block.partition("\n\n")
    assert " ".join(sentence.split()) == answer.sentence
    assert [line for line in rest.splitlines() if line not in said.splitlines()] == []


def landscape(folder: Path) -> list[str]:
    """The rows of the README's table, from a run: ratios to the first server at blksize 512, the fastest first."""
    run = load_run(folder)
    scenario = from_document(run.manifest["scenario"], str(folder))
    rows = run.rows
    skipped = [(each["server"], each["cell_key"], each["reason"]) for each in run.manifest["skipped"]]
    found = summary.summarise(scenario, list(run.manifest["servers"]), rows, "", skipped).lines
    lines = {(line.server, line.cell.concurrency): line for line in found if line.cell.blksize == 512}
    servers = sorted({server for server, _ in lines}, key=lambda server: -(lines[server, 100].figures["data_pps"] or 0))
    return [_row(server, run.manifest["servers"][server]["model"], lines, rows) for server in servers]


def _row(server: str, model: str, lines: dict[tuple[str, int], summary.Line], rows: list[dict[str, Any]]) -> str:
    ratios = [_ratio(lines[server, concurrency]) for concurrency in (3, 10, 100, 1000)]
    cpu_ns = lines[server, 100].figures["server_cpu_ns_per_block"]
    cell = lines[server, 1000].cell.key
    shares = [_lost(row) for row in rows if row["server"] == server and row["cell_key"] == cell]
    lost = statistics.median(shares)
    cpu = f"{cpu_ns / 1000:.1f}" if cpu_ns else "-"
    return f"| {server} | {model} | {' | '.join(ratios)} | {cpu} | {f'{lost:.0%}' if lost else 'none'} |"


def _ratio(line: summary.Line) -> str:
    if line.ratio is None:
        data_pps = line.figures["data_pps"]
        return f"{data_pps / 1000:.0f} k/s" if data_pps else "-"
    if line.ratio.low is None or line.ratio.high is None:
        return f"{line.ratio.ratio:.2f} (of {line.ratio.n})"
    return f"{line.ratio.ratio:.2f} ({line.ratio.low:.2f} to {line.ratio.high:.2f})"


def _lost(row: dict[str, Any]) -> float:
    kinds = {"silent", "timed_out", "refused", "failed"}
    lost = sum(each["count"] for each in row["server_findings"] if each["kind"] in kinds)
    return float(lost / row["started"]) if row.get("started") else 1.0
