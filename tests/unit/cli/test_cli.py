"""The command line: what is typed, what is said, and the exit code."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from tests.unit.builders import said
from tftpbench import cli, serve
from tftpbench.cli.address import numeric_address

SCENARIO = """\
schema: tftpbench.scenario/1
name: typed
description: What is typed?
servers: [{server}]
matrix: {{operation: read, concurrency: [1, 2], file_size: 1KiB}}
transfers: 2
trials: 3
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    from tests.loopback.manifests import tiny

    path = tmp_path / "typed.yaml"
    path.write_text(SCENARIO.format(server=tiny(tmp_path, "ok")))
    return path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["frobnicate"], "No such command 'frobnicate'."),
        (["run"], "no scenario given; name a file or a bundled scenario, as in: tftpbench run concurrency"),
        (["run", "x.yaml", "--bogus"], "No such option: --bogus"),
        (["run", "x.yaml", "--trials", "0"], "Invalid value for '--trials'"),
        (["run", "nowhere.yaml"], "nowhere.yaml"),
        (["run", "--resume", "/nowhere"], "/nowhere: is no run folder"),
        (["run", "--resume", "/nowhere", "--seed", "1"], "leave --seed and further scenarios out"),
        (["run", "--resume", "/nowhere", "--quick"], "leave --set, --trials, --server and --quick out"),
        (["load"], "Missing argument 'HOST:PORT'."),
        (["load", "127.0.0.1:69"], "name one file: --read NAME or --write NAME"),
        (["load", "127.0.0.1:69", "--read", "a", "--write", "b"], "name one file: --read NAME or --write NAME"),
        (["load", "127.0.0.1:0", "--read", "a"], "'127.0.0.1:0' has no port from 1 to 65535"),
        (["load", "127.0.0.1:x", "--read", "a"], "'127.0.0.1:x' has no port from 1 to 65535"),
        (["load", "127.0.0.1", "--read", "a", "--duration", "5"], "--duration is '5'; allowed: a number with a unit"),
        (["load", "127.0.0.1", "--read", "a", "--duration", "1s", "--transfers", "1"], "exclude each other"),
        (["load", "127.0.0.1", "--read", "a", "-z", "1s", "-n", "1"], "--transfers and --duration exclude each other"),
        (["load", "127.0.0.1", "--read", "a", "-n", "1", "--warm-up", "1s"], "--warm-up goes with --duration"),
        (["load", "127.0.0.1", "--read", "a", "--size", "1"], "--size is of files to write"),
        (["load", "127.0.0.1", "--read", "a", "--distinct-files", "2"], "--distinct-files counts {n}"),
        (["load", "127.0.0.1", "--read", "a-{n}", "--verify", "full"], "compares several reads of a file"),
        (["load", "127.0.0.1", "--read", "a", "--verify-against", "b", "--verify", "off"], "exclude each other"),
        (["load", "127.0.0.1", "--read", "a", "--verify-against", "b-{n}"], "--verify-against has {n}"),
        (["load", "192.0.2.1", "--read", "a", "--verify", "full"], "192.0.2.1 is not a loopback address; pass"),
        (["load", "127.0.0.1", "--read", "a", "--verify-against", "/nowhere"], "/nowhere: No such file"),
        (["load", "127.0.0.1", "--write", "a", "--verify-against", "/etc/hostname"], "it goes with --read"),
        (["load", "127.0.0.1", "--read", "a", "--verify-against", "/"], "--verify-against /: is no regular file"),
        (["load", "127.0.0.1", "--read", "a", "--timeout", "0s"], "--timeout is 0; allowed: longer than that"),
        (["load", "127.0.0.1", "--read", "a", "--seed", str(2**64)], "'--seed'"),
        (["load", "127.0.0.1", "--read", os.fsdecode(b"caf\xe9"), "--transfers", "1"], "name: "),
        (["serve", "epoll", "--root", ".", "--port", "0", "--retries", str(10**20)], "retries: "),
        (["run", "x.yaml", "--seed", str(2**64)], "'--seed'"),
        (["load", "192.0.2.1:69", "--read", "a", "--transfers", "1"], "192.0.2.1:69 is not a loopback address; pass"),
        (["serve", "epoll", "--root", "/nowhere", "--port", "0"], "/nowhere"),
        (["serve", "threads", "--root", ".", "--port", "0", "--sockets", "per-transfer"], "--sockets: is for epoll; "),
        (["serve", "threads", "--root", ".", "--port", "0", "--batch", "1"], "--batch: is for epoll; "),
        (["serve", "threads", "--root", ".", "--port", "0", "--workers", "2"], "--workers: is for epoll; "),
        (
            ["serve", "epoll", "--root", ".", "--port", "0", "--sockets", "own"],
            "sockets: own is not one of shared, per-",
        ),
        (["serve", "epoll", "--root", ".", "--port", "0", "--batch", "65"], "--batch: 65 is not in the range 1<=x<=64"),
        (
            ["serve", "epoll", "--root", ".", "--port", "0", "--workers", "0"],
            "--workers: 0 is not in the range",
        ),
        (["serve", "unknown", "--root", "/", "--port", "0"], "unknown is not one of"),
        (["schema", "nothing"], "Invalid value"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    code, out, err = said(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("tftpbench: error: ")
    assert expected in err
    assert err.count("\n") == 1


def test_no_command_is_the_help_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys)
    assert (code, out) == (2, "")
    assert "Commands:" in err
    assert err.count("\n") > 5


@pytest.mark.parametrize(("output", "code", "words"), [("|", 0, ""), ("/dev/full", 2, "No space left on device")])
def test_an_output_that_can_not_be_written_is_no_traceback(output: str, code: int, words: str) -> None:
    closed, pipe = os.pipe()
    os.close(closed)
    full = os.open(output, os.O_WRONLY) if output != "|" else pipe
    command = [sys.executable, "-m", "tftpbench", "schema", "scenario"]
    done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    for descriptor in {pipe, full}:
        os.close(descriptor)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1 if words else 0)
    assert words in done.stderr


def test_what_the_terminal_can_not_show_is_escaped(scenario: Path) -> None:
    odd = scenario.with_name("caf\xe9.yaml")
    scenario.rename(odd)
    command = [sys.executable, "-m", "tftpbench", "run", str(odd), "--quiet", "--out", str(odd.parent / "out")]
    done = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=False)
    assert done.returncode in (0, 6), done.stderr
    assert rb"caf\u00e9.yaml" in done.stdout


def test_an_error_of_many_lines_is_still_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli._fail("first\n  second", 1) == 1
    assert capsys.readouterr().err == "tftpbench: error: first second\n"


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("127.0.0.1:6969", ("127.0.0.1", 6969)),
        ("127.0.0.1", ("127.0.0.1", 69)),
        ("[::1]:6969", ("::1", 6969)),
        ("[::1]", ("::1", 69)),
        ("::1", ("::1", 69)),
        ("[fe80::1%lo]:6969", ("fe80::1%lo", 6969)),
        ("fe80::1%lo", ("fe80::1%lo", 69)),
    ],
)
def test_a_target_is_a_host_and_perhaps_a_port(target: str, address: tuple[str, int]) -> None:
    assert numeric_address(target) == address


# What takes tenths of a second to import, each; `python -m benches.help` has the times.
HEAVY = {"hdrh", "jinja2", "matplotlib", "multiprocessing", "numpy", "pandas", "pyarrow", "rich", "scipy", "yaml"}
COMMANDS = (
    "run", "serve", "load", "compare", "report", "gate", "gate ab", "gate baseline", "gate slo", "gate selftest",
    "servers", "ceiling", "schema",
)  # fmt: skip


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_loads_nothing_heavy(command: str) -> None:
    """What makes --help slow is what it imports: that is the same on a machine that has no time."""
    script = (
        "import sys; from tftpbench.cli import exit_code; exit_code(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command.split(), "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"Usage: tftpbench {command}".rstrip())
    if not command:
        assert all(f"  {name} " in done.stdout for name in COMMANDS if " " not in name)
    modules = done.stderr.split()
    # typer asks pydantic to read values, where a command has any; the help of the whole needs none.
    heavy = HEAVY if command else HEAVY | {"pydantic"}
    assert not heavy & {name.partition(".")[0] for name in modules}
    assert len(modules) < (450 if command else 300), "191 and 288 when this was written"


@pytest.mark.parametrize("command", [name for name in COMMANDS if not name.startswith("gate")])
def test_help_ends_with_examples_that_are_understood(capsys: pytest.CaptureFixture[str], command: str) -> None:
    text = said(capsys, command, "--help")[1]
    assert not re.search(r"<(int|str|path|list|float)\b", text), "a type is no metavar"
    examples = text.partition("\nExamples:\n")[2].splitlines()
    assert examples
    for example in examples:
        program, name, *words = shlex.split(example.partition(">")[0])
        assert (program, name) == ("tftpbench", command)
        if command == "serve":
            assert serve._parser(program, 0).parse_args(words).root
        else:
            group = typer.main.get_group(cli.app)
            group.commands[name].make_context(name, words)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "--version")
    assert code == 0
    assert out.startswith("tftpbench 0.")


def test_a_dry_run_prints_the_trials_in_their_order_and_starts_nothing(
    capsys: pytest.CaptureFixture[str], scenario: Path
) -> None:
    code, out, _ = said(capsys, "run", str(scenario), "--dry-run", "--seed", "5")
    assert code == 0
    assert len(out.splitlines()) == 6
    assert out == said(capsys, "run", str(scenario), "--dry-run", "--seed", "5")[1]
    assert all(" ok, read, " in line for line in out.splitlines())


def test_trials_set_quick_and_server_change_the_scenario(
    capsys: pytest.CaptureFixture[str], scenario: Path, tmp_path: Path
) -> None:
    from tests.loopback.manifests import tiny

    def planned(*options: str) -> dict[str, list[dict[str, str]]]:
        return dict(json.loads(said(capsys, "run", str(scenario), "--dry-run", "--json", *options)[1]))

    assert len(planned("--trials", "2")["trials"]) == 4
    assert len(planned("--quick")["trials"]) == 2
    assert len(planned("--set", "matrix.concurrency=1")["trials"]) == 3
    other = planned("--server", str(tiny(tmp_path, "ignores-sigterm")))
    assert {trial["server"] for trial in other["trials"]} == {"ignores-sigterm"}


def test_servers_say_what_they_are_and_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "servers", "--json")
    assert code == 0
    listed = {each["name"]: each for each in json.loads(out)["servers"]}
    assert listed
    for each in listed.values():
        assert each["version"] or (each["missing"] and each["get"])
    text = said(capsys, "servers")[1]
    assert all(name in text for name in listed)


@pytest.mark.parametrize("which", ["scenario", "server", "results"])
def test_a_schema_is_a_json_schema(capsys: pytest.CaptureFixture[str], which: str) -> None:
    code, out, _ = said(capsys, "schema", which)
    assert code == 0
    assert json.loads(out)["properties"]
