"""What the README tells a stranger to type is understood, and what it promises is there."""

import re
import shlex
import statistics
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tftpbench import cli, load_run
from tftpbench.analysis import summary
from tftpbench.host.choice import bundled_manifests
from tftpbench.model.manifest import load_manifest
from tftpbench.model.scenario import from_document
from tftpbench.model.scenario_files import load_scenario
from tftpbench.render import answer as rendered

ROOT = Path(__file__).parents[3]
REFERENCE = ROOT / "results/reference/landscape"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(program: str) -> list[list[str]]:
    """Every line of its shell blocks that runs `program`, split into words."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [words[1:] for words in lines if words and Path(words[0]).name == program]


@pytest.mark.parametrize("words", commands("tftpbench"), ids=" ".join)
def test_its_commands_are_understood(words: list[str]) -> None:
    group = typer.main.get_command(cli.app)
    with group.make_context("tftpbench", words[:1], resilient_parsing=True) as context:
        command = group.get_command(context, words[0])  # type: ignore[attr-defined]  # a group, as it has commands
    assert command is not None, words[0]
    command.make_context(words[0], words[1:])


def test_it_names_commands_scenarios_and_servers_that_exist() -> None:
    assert len(commands("tftpbench")) >= 4
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {words[0] for words in commands("make")} <= targets
    for words in commands("tftpbench"):
        if words[0] == "run":
            load_scenario(words[1])


def test_its_manifest_is_a_manifest(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "server.yaml"
    path.write_text(example, encoding="utf-8")
    assert load_manifest(path).name not in bundled_manifests()


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in target or (ROOT / target).exists(), target


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="no reference run yet")
def test_its_landscape_is_the_reference_run() -> None:
    for line in landscape(REFERENCE):
        assert line in README.splitlines(), f"renew it: {line}"


def test_its_first_result_is_a_run_that_is_kept() -> None:
    (block,) = re.findall(r"```\n(With 1000 reads .*?)```", README, re.DOTALL)
    answer = summary.answer_of(load_run(REFERENCE.parent / "concurrency"))
    said = rendered.text(answer, "", "", width=100)
    sentence, _, rest = block.partition("\n\n")
    assert " ".join(sentence.split()) == said.splitlines()[0]
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
