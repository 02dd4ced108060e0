"""What the README tells a stranger to type is understood, and what it promises is there."""

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from tftpbench import cli
from tftpbench.scenario import load_scenario
from tftpbench.servers import bundled_manifests, load_manifest

ROOT = Path(__file__).parents[2]
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
