"""Every code block of README and docs is run: what a reader pastes works, and what is shown is what would be printed.

Commands are parsed by the real command line, and those that are quick and need nothing outside do run, on small loads;
Python runs against recorded runs, YAML is read by what reads it for users. The page about CI is held to its files.
"""

import ast
import contextlib
import functools
import importlib.util
import inspect
import os
import re
import shlex
import shutil
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import typer.main
import yaml

import tftpbench
from tests.ci.shell import ACTION, COMMENT, GITLAB, PULL_REQUEST, ROOT, document
from tests.loopback.machine import bundled
from tests.unit.builders import GATES
from tftpbench import api, cli
from tftpbench.host.generator import LoadConfig, best_sockets, run_load
from tftpbench.host.hosts import cluster
from tftpbench.model.boot import files, load_boot, shares
from tftpbench.model.errors import ManifestError, ScenarioError
from tftpbench.model.manifest import load_manifest
from tftpbench.model.scenario_files import load_scenario
from tftpbench.pytest_plugin import Gate

pytestmark = pytest.mark.timeout(200)
CI_PAGE = ROOT / "docs/ci.md"
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
         "results/reference/README.md"]  # fmt: skip
CONCURRENCY = ROOT / "results/reference/concurrency"
# They serve until they are ended, need a network, or take many minutes.
PARSED_ONLY = {"capacity", "hosts", "serve", "servers --fetch", "gate selftest", "ceiling", "doctor"}
SMALL_GATE = ["matrix.concurrency=5", "matrix.file_size=16KiB", "duration=null", "transfers=60", "gate.looks=[6]",
              "gate.slice=10ms", "gate.budgets.server_cpu_s_per_mib=90%", "gate.budgets.data_pps=90%",
              "gate.budgets.syscalls_per_block=off", "gate.budgets.server_rss_bytes_max=off"]  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, and its text."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(language: str, pages: list[str] = PAGES) -> list[Block]:
    texts = {page: (ROOT / page).read_text(encoding="utf-8") for page in pages}
    return [
        Block(page, text[: match.start()].count("\n") + 1, match[2])
        for page, text in texts.items()
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        if match[1] == language
    ]


def commands() -> list[Any]:
    """Each command of the shell blocks, as words."""
    found = []
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            for part in line.partition(" # ")[0].split(" && "):
                words = shlex.split(part, comments=True)
                if words:
                    found.append(pytest.param(words, id=f"{block}: {' '.join(words)[:60]}"))
    return found


def test_every_block_is_of_a_kind_that_is_run() -> None:
    kinds = {"sh", "python", "yaml", ""}
    fences = [
        line for page in PAGES for line in (ROOT / page).read_text(encoding="utf-8").splitlines() if "```" in line
    ]
    assert {fence.strip("`") for fence in fences} == kinds
    assert len(fences) == 2 * sum(len(blocks(kind)) for kind in kinds)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder in which a reader is: recorded runs have the names that pages use."""
    folder = tmp_path / "home"
    (folder / "results").mkdir(parents=True)
    for name in ("20260102T120000Z-concurrency", "20260103T120000Z-concurrency", "OLD", "NEW"):
        shutil.copytree(CONCURRENCY, folder / "results" / name)
    shutil.copytree(min((GATES / "aa").iterdir()), folder / "results/20260102T120000Z-gate-gate")
    (folder / "files").mkdir()
    (folder / "scenarios").symlink_to(ROOT / "scenarios")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MPLBACKEND", "Agg")


@pytest.mark.parametrize("words", commands())
def test_a_command_works(words: list[str], tmp_path: Path) -> None:
    program, arguments = Path(words[0]).name, words[1:]
    match program:
        case "tftpbench":
            tftpbench_command(arguments, tmp_path)
        case "make":
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
            assert [word for word in arguments if "=" not in word and word not in targets] == []
            assert [word for word in arguments if "=" in word and f"$({word.partition('=')[0]})" not in makefile] == []
        case "git":
            assert arguments[0] == "clone"  # its address: tests/unit/project/test_readme.py
        case "cd":
            assert arguments == ["tftpbench"]
        case "python":
            assert arguments[0] == "-m"
            assert importlib.util.find_spec(arguments[1]) is not None
        case "tar":
            assert tarfile.is_tarfile(ROOT / arguments[1])
        case "cat":
            assert arguments == ["gate-results/*/report.md"]
        case "dask" | "export" | "kubectl":
            cluster_command(program, arguments)
        case _:
            pytest.fail(f"{program}: a page has this command, and no test knows how to try it")


def cluster_command(program: str, words: list[str]) -> None:
    """What starts load hosts on machines that are not here."""
    if program == "kubectl":
        assert words[:3] == ["create", "secret", "generic"]  # its files: those of hosts init
    elif program == "export":
        name, _, value = words[0].partition("=")
        assert cluster.SETTINGS[name] == value
    else:
        dask_command(words)


def dask_command(words: list[str]) -> None:
    """Dask itself takes options that it does not know, and says nothing."""
    command = importlib.import_module(f"distributed.cli.dask_{words[0]}").main
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    assert [word for word in words if word.startswith("--") and word not in known] == []


def test_the_first_command_takes_as_long_as_the_readme_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.exit_code(["run", "smoke", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 trials, about 5 s"
    assert "tftpbench run smoke  # 5 seconds" in (ROOT / "README.md").read_text(encoding="utf-8")


def tftpbench_command(words: list[str], folder: Path) -> None:
    """Parse a command line as the program does; then run it where that is quick."""
    parse(words)
    name = " ".join(words[:2]) if words[0] == "gate" or "--fetch" in words else words[0]
    if (
        words[0] == "run"
        and "--target" not in words
        and not {"--quick", "--dry-run"} & {*words}
        and words[1] != "smoke"
    ):
        words = [*words, "--dry-run"]
    if words[0] == "run" and "--quick" in words:
        words = [*words, "--set", "matrix.file_size=4KiB"]
    if name in PARSED_ONLY or "--dask" in words or (name == "gate ab" and "epoll" not in words):
        return
    if name == "gate ab":
        words = [*words, *(word for setting in SMALL_GATE for word in ("--set", setting)), "--out", "gate-results"]
    if words[0] == "load" and "--server" in words:
        words = [*words, "--duration", "200ms"]
    if name == "gate baseline":  # a run against itself says nothing
        words = [*words, "--report-only"]
    with contextlib.ExitStack() as stack:
        if any(word.startswith("127.0.0.1:") for word in words):
            words = pointed_at_a_server(words, folder, stack)
        assert cli.exit_code(words) == 0


def parse(words: list[str]) -> None:
    command: Any = typer.main.get_command(cli.app)
    with contextlib.ExitStack() as stack:
        while words and hasattr(command, "get_command"):
            context = stack.enter_context(command.make_context("tftpbench", words[:1], resilient_parsing=True))
            command, words = command.get_command(context, words[0]), words[1:]
            assert command is not None, context.args
        command.make_context("", [*words])


def pointed_at_a_server(words: list[str], folder: Path, stack: contextlib.ExitStack) -> list[str]:
    """The same, small, against a server of ours that is running."""
    root = folder / "root"
    root.mkdir()
    (root / "pxelinux.0").write_bytes(bytes(range(256)) * 40)
    if "--boot" in words:
        for file in files(shares([(load_boot(words[words.index("--boot") + 1]), 1)])):
            path = root / file.name.lstrip("/")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(bytes(file.size_bytes))
    server = stack.enter_context(tftpbench.Server(str(bundled(folder, "epoll")), root))
    less = {
        "10s": "200ms",
        "30s": "300ms",
        "1000": "5",
        "200/s": "20/s",
        "127.0.0.1:69": f"127.0.0.1:{server.port}",
        "127.0.0.1:6969": f"127.0.0.1:{server.port}",
    }
    load = "matrix.rate=20/s" if "open-loop" in words else "matrix.concurrency=3"
    small = ["--quick", "--set", load] if words[0] == "run" else []
    return [*(less.get(word, word) for word in words), *small]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks("python", [page])])
def test_its_python_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One block after another, as in a notebook; loads are short, and of uploads there is one."""
    taken = tftpbench.Server.__iter__

    def one_upload(server: tftpbench.Server) -> Iterator[tftpbench.Upload]:
        sent = run_load(
            LoadConfig(
                host=server.host, port=server.port, operation="write", name="f", concurrency=1, transfers=1, seed=1,
                file_size_bytes=9, timeout_ns=10**9, retries=5, backoff="constant", busy_poll_us=0,
                sockets=best_sockets(server.host),
            )
        )  # fmt: skip
        assert sent.figures["completed"] == 1
        yield next(taken(server))

    monkeypatch.setattr(tftpbench.Server, "__iter__", one_upload)
    monkeypatch.setattr(tftpbench, "run", functools.partial(api.run, quick=True), raising=False)
    batch = SimpleNamespace(SLURMCluster=lambda **_: MagicMock(spec=["scale", "scheduler_address", "wait_for_workers"]))
    monkeypatch.setitem(sys.modules, "dask_jobqueue", batch)  # and a person who waits for it
    monkeypatch.setattr("builtins.input", MagicMock())
    names: dict[str, Any] = {}
    for block in blocks("python", [page]):
        code = "\n" * block.line + block.text
        exec(compile(code, page, "exec"), names)
    values = [value for name, value in names.items() if hasattr(value, "empty")]
    assert not any(value.empty for value in values)


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_its_yaml_is_what_it_is_for(block: Block, tmp_path: Path) -> None:
    found = yaml.safe_load(block.text)
    path = tmp_path / "file.yaml"
    path.write_text(block.text, encoding="utf-8")
    if isinstance(found, list):  # a step that uses the action
        (step,) = found
        assert set(step["with"]) <= set(document(ACTION)["inputs"])
    elif found.get("schema") == "tftpbench.server/1":
        assert load_manifest(path).name not in os.listdir(ROOT / "servers")
    elif found.get("schema") == "tftpbench.scenario/1":
        assert load_scenario(str(path)).name == found["name"]
    elif found.get("schema") == "tftpbench.boot/1":
        assert load_boot(path).name == found["name"]
    elif found.get("kind") == "DaemonSet":
        (container,) = found["spec"]["template"]["spec"]["containers"]
        assert container["command"][0] == "dask"
        dask_command(container["command"][1:])
    else:  # keys of a scenario
        whole = (ROOT / "scenarios/concurrency.yaml").read_text(encoding="utf-8")
        assert set(found) & {"matrix", "gate"}
        rest = yaml.safe_load(whole)
        matrix = found.get("matrix")
        if isinstance(matrix, dict) and {"shape", "machines"} & matrix.keys():  # they end by themselves
            rest = {key: value for key, value in rest.items() if key not in ("duration", "warm_up")}
        if "capacity" in found:
            rest = {key: value for key, value in rest.items() if key not in ("duration", "warm_up", "thresholds")}
        path.write_text(yaml.safe_dump({**rest, **found}), encoding="utf-8")
        load_scenario(str(path))


@pytest.mark.parametrize("block", [block for block in blocks("") if block.page != "README.md"], ids=str)
def test_what_it_shows_is_what_is_there(block: Block, tmp_path: Path) -> None:
    """The README's first result: tests/unit/project/test_readme.py."""
    lines = block.text.splitlines()
    if ".yaml:" in lines[0]:
        printed = mistakes(lines[0].partition(":")[0], tmp_path)
        for line in lines:
            said = re.sub(r"^[^:]*:\d+:\d+: ", "", line).removesuffix(" ...")
            assert said in printed, line
    else:
        names = [line.split()[0] for line in lines if not line.endswith("/")]
        run = tmp_path / "results"
        if lines[0].startswith("manifest.json"):
            there = {path.name for path in CONCURRENCY.iterdir()}
        else:
            assert cli.exit_code(["run", "smoke", "--quiet", "--report", "--out", str(run)]) == 0
            (folder,) = run.iterdir()
            there = {path.name for path in folder.iterdir()} | {"trials/<trial>/"}
        assert set(names) <= there


def mistakes(name: str, folder: Path) -> str:
    """What is said of a file with the mistakes that the page shows."""
    path = folder / Path(name).name
    if path.name == "server.yaml":
        (example,) = (block.text for block in blocks("yaml") if block.page == "docs/manifest-format.md")
        path.write_text(example.replace("{port}", "{ports}", 1), encoding="utf-8")
        with pytest.raises(ManifestError) as caught:
            load_manifest(path)
        return str(caught.value)
    said = ""
    for old, new in (("blksize: 512", "blocksize: 512"), ("duration: 1s", "duration: 1")):
        text = (ROOT / "scenarios/concurrency.yaml").read_text(encoding="utf-8")
        path.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(ScenarioError) as failed:
            load_scenario(str(path))
        said += f"{failed.value}\n"
    return said


def test_the_page_about_ci_links_to_every_file_of_its_folder() -> None:
    text = CI_PAGE.read_text(encoding="utf-8")
    targets = {(CI_PAGE.parent / target).resolve() for target in re.findall(r"\]\(([^)#]+)\)", text)}
    assert {ACTION, PULL_REQUEST, COMMENT, GITLAB} <= targets
    assert {path.resolve() for path in (ROOT / "docs/ci").iterdir()} <= targets


def test_files_for_ci_say_the_names_that_the_page_copies_them_to() -> None:
    for path in (PULL_REQUEST, COMMENT):
        (place,) = re.findall(rf"{path.name}\)\s*\|\s*`([^`]+)`", CI_PAGE.read_text(encoding="utf-8"))
        assert place in path.read_text(encoding="utf-8")


def test_the_page_about_ci_names_every_input_and_output_of_the_action() -> None:
    words = set(re.findall(r"`([a-z-]+)`", CI_PAGE.read_text(encoding="utf-8")))
    parts = document(ACTION)
    assert set(parts["inputs"]) <= words
    assert set(parts["outputs"]) <= words


def test_the_page_about_ci_calls_the_fixture_with_arguments_that_it_has() -> None:
    (block,) = blocks("python", ["docs/ci.md"])
    (call,) = (node for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.Call))
    parameters = set(inspect.signature(Gate.__call__).parameters) - {"self"}
    assert {word.arg for word in call.keywords} <= parameters
    text = CI_PAGE.read_text(encoding="utf-8")
    assert [name for name in parameters if not re.search(rf"`{name}[`=]", text)] == []
