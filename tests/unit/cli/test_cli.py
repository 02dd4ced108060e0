"""The command line: what is typed, what is said, and the exit code."""

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.loopback.machine import tiny
from tests.unit.builders import said
from tests.unit.builders import scenario as scenario_of
from tftpbench import cli, serve
from tftpbench.cli.load import _pieces
from tftpbench.host.choice import bundled_manifests
from tftpbench.host.network import NetworkRefused
from tftpbench.host.target import numeric_address
from tftpbench.model.boot import bundled_boots
from tftpbench.model.programs import typed
from tftpbench.model.scenario_files import bundled_scenarios, load_scenario
from tftpbench.model.workload import Shaped
from tftpbench.render import terminal

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
    path = tmp_path / "typed.yaml"
    path.write_text(SCENARIO.format(server=tiny(tmp_path, "ok")))
    return path


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["frobnicate"], "no command is called 'frobnicate'; allowed: run, serve, "),
        (["rum"], "no command is called 'rum'; did you mean 'run'?\n"),
        (["gate", "bc"], "no command of gate is called 'bc'; allowed: ab, baseline, slo, selftest"),
        (["gate", "ab", "--base", "epoll"], "gate ab needs --head SERVER, as in: tftpbench gate ab --base "),
        (["run"], "run needs a SCENARIO, as in: tftpbench run smoke; all of them: tftpbench scenarios"),
        (["run", "x.yaml", "--bogus"], "run has no option --bogus; all of them: tftpbench run --help"),
        (["run", "x.yaml", "--trial", "3"], "run has no option --trial; did you mean '--trials'?; all of them: "),
        (["run", "x.yaml", "--trials"], "--trials needs a value"),
        (["run", "x.yaml", "--json=3"], "--json takes no value"),
        (["run", "x.yaml", "--trials", "0"], "--trials is '0'; allowed: a whole number, 1 to 1000"),
        (["ceiling", "--trials=x"], "--trials is 'x'; allowed: a whole number, 1 to 1000"),
        (["schema", "scenario", "results"], "schema: nothing is expected at 'results'; see: tftpbench schema --help"),
        (["run", "nowhere.yaml"], "nowhere.yaml"),
        (["run", "--resume", "/nowhere"], "/nowhere: is no run folder"),
        (["run", "--resume", "/nowhere", "--seed", "1"], "leave --seed and further scenarios out"),
        (["run", "--resume", "/nowhere", "--quick"], "leave --set, --trials, --server, --server-host and --quick out"),
        (["load"], "load needs HOST:PORT, or --server SERVER to start one, as in: "),
        (["run", "smoke", "--set", "matrix.concurency=1"], "--set matrix.concurency=1: unknown key; did you mean "),
        (["run", "smoke", "--server", "epol"], "no server is called 'epol'; did you mean 'epoll'?\n"),
        (["load", "a..b", "--read", "a"], "the host 'a..b' was not found: that is no name of a host; give HOST:PORT"),
        (["load", "127.0.0.1:69"], "name one file: --read NAME or --write NAME"),
        (["load", "127.0.0.1:69", "--read", "a", "--write", "b"], "name one file: --read NAME or --write NAME"),
        (["load", "127.0.0.1:69", "--read", "a", "--read", "b"], "name one file: --read NAME or --write NAME"),
        (["load", "127.0.0.1:69", "--read", "a", "--qps", "1"], "load has no option --qps; all of them: "),
        (["load", "127.0.0.1:0", "--read", "a"], "'127.0.0.1:0' has no port from 1 to 65535"),
        (["load", "127.0.0.1:x", "--read", "a"], "'127.0.0.1:x' has no port from 1 to 65535"),
        (["load", "127.0.0.1", "--read", "a", "--duration", "5"], "is '5', without a unit; did you mean '5s'?"),
        (
            ["load", "127.0.0.1:9", "--read", "a", "-d", "99999999999999h"],
            "--duration is '99999999999999h'; allowed: 8760h at most",
        ),
        (["load", "127.0.0.1:9", "--read", "a", "--timeout", "8761h"], "--timeout is '8761h'; allowed: 8760h at most"),
        (["load", "127.0.0.1:9", "--write", "a", "--size", "2TiB"], "--size is '2TiB'; allowed: 1TiB at most"),
        (["load", "127.0.0.1", "--read", "a", "--duration", "1s", "--transfers", "1"], "exclude each other"),
        (["load", "127.0.0.1", "--read", "a", "-z", "1s", "-n", "1"], "--transfers and --duration exclude each other"),
        (["load", "127.0.0.1", "--read", "a", "-n", "1", "--warm-up", "1s"], "--warm-up goes with --duration"),
        (["load", "127.0.0.1", "--read", "a", "--size", "1"], "--size is of files to write"),
        (["load", "127.0.0.1", "--read", "a", "--distinct-files", "2"], "--distinct-files counts {n}"),
        (["load", "127.0.0.1", "--read", "a-{n}", "--verify", "full"], "compares several reads of a file"),
        (["load", "127.0.0.1", "--read", "a", "--verify-against", "b", "--verify", "off"], "exclude each other"),
        (["load", "127.0.0.1", "--write", "a", "--rows", "failed"], "--rows failed keeps no upload to compare"),
        (["load", "127.0.0.1", "--read", "a", "--verify-against", "b-{n}"], "--verify-against has {n}"),
        (["load", "192.0.2.1", "--read", "a", "--verify", "full"], "192.0.2.1 is not a loopback address; pass"),
        (["load", "127.0.0.1", "--read", "a", "--verify-against", "/nowhere"], "/nowhere: No such file"),
        (["load", "127.0.0.1", "--write", "a", "--verify-against", "/etc/hostname"], "it goes with --read"),
        (["load", "127.0.0.1", "--read", "a", "--verify-against", "/"], "--verify-against /: is no regular file"),
        (["load", "127.0.0.1", "--read", "a", "--timeout", "0s"], "--timeout is 0; allowed: longer than that"),
        (["load", "127.0.0.1", "--read", "a", "--seed", str(2**64)], f"--seed is {2**64}; allowed: 0 to 2^64 - 1"),
        (["load", "127.0.0.1", "--read", os.fsdecode(b"caf\xe9"), "--transfers", "1"], "name: "),
        (["serve", "epoll", "--root", ".", "--port", "0", "--retries", str(10**20)], "retries: "),
        (["run", "x.yaml", "--seed", str(2**64)], f"--seed is {2**64}; allowed: 0 to 2^64 - 1"),
        (["load", "192.0.2.1:69", "--read", "a", "--transfers", "1"], "192.0.2.1 is not a loopback address; pass"),
        (
            ["load", "127.0.0.1", "--read", "a", "--rate", "5/s", "-c", "1"],
            "give only one of --concurrency, --rate, --machines and --shape",
        ),
        *(
            (["load", "127.0.0.1", *words.split()], said)
            for words, said in [
                (
                    "--boot uefi --read a",
                    "name one file: --read NAME or --write NAME; {n} in NAME makes many of it. Or",
                ),
                ("--boot nosuch", "no boot is called 'nosuch'; allowed: a file, or "),
                ("--boot uefi --map loader", "--map is 'loader'; allowed: NAME=FILE, as in --map loader=pxelinux.0"),
                ("--boot uefi --map x=y", "the boot uefi has no name 'x'; allowed: loader"),
                ("--read a --map x=y", "--map goes with --boot"),
                ("--boot uefi --blksize 1024", "a boot says itself what is asked for, and how: it goes with none of"),
                ("--boot uefi --machines 3 -c 2", "give only one of --concurrency, --rate, --machines and --shape"),
                ("--boot uefi --machines 3 -d 1s", "--transfers, --duration and --warm-up do not go with --machines"),
                ("--read a --over 1s", "--over and --spread go with --machines"),
                ("--boot uefi --machines 3 --deadline 1ns", "--deadline is '1ns'; allowed: 1ms to 1h"),
                *(
                    (f"--read a --shape {shape}", f"--shape has {shape!r}; allowed: pieces such as ramp ")
                    for shape in ("0", "burst", "10/s..20/s")
                ),
                ("--read a --machines 0", "--machines is '0'; allowed: a whole number, 1 to 1000000"),
                ("--read a --machines 1000000000", "allowed: a whole number, 1 to 1000000"),
                ("--read a --shape 5/s", "--shape has '5/s'; allowed: pieces such as ramp 10/s..500/s for 60s, hold"),
            ]
        ),
        *(
            (["load", "127.0.0.1", "--read", "a", "--rate", rate], f"--rate is '{rate}'; allowed: 0.001/s to 1000000/s")
            for rate in ("0/s", "-5/s", "1000000000/s", "1000001/s", "200", "nan/s")
        ),
        *(
            (
                ["load", "127.0.0.1", "--read", "a", "--shape", shape],
                f"--shape has {shape!r}; allowed: pieces such as ramp 10/s..500/s for 60s, hold 500/s for 5min, burst",
            )
            for shape in (
                "0/s for 1s",
                "-5/s for 1s",
                "1000000000/s for 1s",
                "5/s for 0s",
                "0/s..0/s in 1s",
                "",
                "1/s..1000000000/s in 1s",
                "burst 0",
                "burst 1000000000",
                f"burst {'9' * 60}",
                "5/s for 5",
                "hold 5/s",
                "ramp 5/s for 1s",
                "hold 1/s..5/s for 1s",
                "burst 5 for 1s",
            )
        ),
        (["load", "127.0.0.1", "--read", "a", "--shape", "[{hold: 5/s}]"], "--shape has \"{'hold': '5/s'}\"; allowed"),
        (["load", "127.0.0.1", "--read", "a", "--shape", "[{hold: 5/s, hold: 6/s}]"], "--shape: "),
        (["load", "127.0.0.1", "--read", "a", "--shape", "[{hold"], "--shape"),
        (["load", "127.0.0.1", "--boot", "pi4", "--machines", "50001"], "--machines is 50001 at once; allowed: 50000"),
        (
            ["load", "127.0.0.1", "--boot", "pi4", "--machines", "50001", "--over", "0s"],
            "--machines is 50001 at once",
        ),
        (["load", "127.0.0.1", "--read", "a", "--deadline", "1s"], "--deadline and --in-flight-max go with --rate"),
        (
            ["load", "127.0.0.1", "--read", "a", "--rate", "5/s", "--deadline", "0s"],
            "--deadline is '0s'; allowed: 1ms ",
        ),
        (["load", "127.0.0.1", "--read", "a", "--rate", "5/s", "--arrivals", "x"], "allowed: even, poisson"),
        (
            ["load", "127.0.0.1", "--read", "a", "--rate", "5/s", "--in-flight-max", "1000000000"],
            " in flight are more ",
        ),
        *(
            (["load", host, "--read", "a", "--allow-remote"], f"{address} is {kind} address, not one server's; give")
            for host, address, kind in (
                ("224.0.0.1:69", "224.0.0.1", "a multicast"),
                ("[ff02::1]:69", "ff02::1", "a multicast"),
                ("255.255.255.255", "255.255.255.255", "a broadcast"),
                ("0.0.0.0:69", "0.0.0.0", "the unspecified"),
                ("[::]:69", "::", "the unspecified"),
            )
        ),
        (
            ["run", "smoke", "--target", "224.0.0.1", "--target-file", "a", "--allow-remote"],
            "224.0.0.1 is a multicast address",
        ),
        (["serve", "epoll", "--root", "/nowhere", "--port", "0"], "/nowhere"),
        (["serve", "threads", "--root", ".", "--port", "0", "--sockets", "per-transfer"], "--sockets: is for epoll; "),
        (["serve", "threads", "--root", ".", "--port", "0", "--batch", "1"], "--batch: is for epoll; "),
        (["serve", "threads", "--root", ".", "--port", "0", "--workers", "2"], "--workers: is for epoll; "),
        (
            ["serve", "epoll", "--root", ".", "--port", "0", "--sockets", "own"],
            "--sockets is 'own'; allowed: shared, per-transfer",
        ),
        (["serve", "epoll", "--root", ".", "--port", "0", "--batch", "65"], "--batch is '65'; allowed: "),
        (
            ["serve", "epoll", "--root", ".", "--port", "0", "--workers", "0"],
            "--workers is '0'; allowed: a whole number, 1 to 256",
        ),
        (
            ["serve", "unknown", "--root", "/", "--port", "0"],
            "no bundled server is called 'unknown'; allowed: epoll, threads",
        ),
        (["schema", "nothing"], "SCHEMA is 'nothing'; allowed: scenario, server, "),
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


def test_no_command_is_three_things_to_do_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys)
    assert (code, out) == (2, "")
    typed = [line.split()[1:] for line in err.splitlines() if line.startswith("    tftpbench ")]
    assert len(typed) == 3
    for words in typed:
        name = " ".join(words[:2]) if words[0] == "gate" else words[0]
        ALL[name].make_context(name, words[len(name.split()) :])
    assert "All commands: tftpbench --help" in err


def test_a_group_without_a_command_is_its_help_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "gate")
    assert (code, out) == (2, "")
    assert err.startswith("Usage: tftpbench gate ")
    assert "..." not in err.partition("Commands:")[2], "each says its whole sentence"


def test_printed_commands_can_be_pasted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "a b" / "bin" / "tftpbench"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    monkeypatch.chdir(tmp_path)
    words = ["tftpbench", "report", "results/a b"]
    monkeypatch.setenv("PATH", str(program.parent))
    for argv_0, expected in (
        ("a b/bin/tftpbench", "tftpbench"),
        (str(program), "tftpbench"),
        ("/x/pytest", "tftpbench"),
    ):
        monkeypatch.setattr(sys, "argv", [argv_0])
        assert typed(words) == f"{expected} report 'results/a b'"
    monkeypatch.setenv("PATH", "/nowhere")
    for argv_0 in ("a b/bin/tftpbench", str(program)):
        monkeypatch.setattr(sys, "argv", [argv_0])
        assert typed(words) == "'a b/bin/tftpbench' report 'results/a b'"
    monkeypatch.setattr(sys, "argv", ["/lib/tftpbench/__main__.py"])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert typed(words) == "./python -m tftpbench report 'results/a b'"


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
HEAVY = {
    "distributed", "hdrh", "jinja2", "matplotlib", "multiprocessing", "numpy", "pandas", "pyarrow", "rich", "scipy",
    "yaml",
}  # fmt: skip


def commands(command: Any, name: str = "") -> dict[str, Any]:
    """Every command, by what is typed; the program itself is ""."""
    below = getattr(command, "commands", {})
    return {name: command} | {
        full: each for word, inner in below.items() for full, each in commands(inner, f"{name} {word}".strip()).items()
    }


ALL = commands(typer.main.get_group(cli.app))
COMMANDS = [name for name in ALL if name]
# Where --out is one file, and not a folder to make others in.
ONE_FILE = {"report", "compare"}
ARGUMENTS = {"BOOT", "HOST:PORT", "RUN", "RUN_A", "RUN_B", "SCENARIO", "SCHEMA", "SERVER", "USER@HOST:PYTHON"}


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


@pytest.mark.parametrize("command", ALL)
def test_help_ends_with_two_examples_that_are_understood(capsys: pytest.CaptureFixture[str], command: str) -> None:
    text = said(capsys, *command.split(), "--help")[1]
    assert not re.search(r"<(int|str|path|list|float)\b", text), "a type is no metavar"
    examples = text.partition("\nExamples:\n")[2].splitlines()
    assert len(examples) == 2
    for example in examples:
        program, *words = shlex.split(example.partition(">")[0])
        assert program == "tftpbench"
        name = " ".join(words[:2]) if words[0] in {"gate", "boots", "hosts"} else words[0]
        assert name.startswith(command)
        if command == "serve":
            assert serve._parser(program, 0).parse_args(words[1:]).root
        else:
            ALL[name].make_context(name, words[len(name.split()) :])


@pytest.mark.parametrize("command", COMMANDS)
def test_ranges_and_choices_have_one_form(capsys: pytest.CaptureFixture[str], command: str) -> None:
    text = said(capsys, *command.split(), "--help")[1]
    assert not re.search(r"x>=|<=x|<\w+\|", text)
    for each in ALL[command].params:
        if each.param_type_name == "argument":
            assert each.metavar in ARGUMENTS or command == "serve"


def test_one_option_has_one_metavar_over_all_commands() -> None:
    metavars: dict[str, set[str | None]] = {}
    for name, command in ALL.items():
        for each in command.params:
            for option in each.opts if each.param_type_name == "option" and name not in ONE_FILE else ():
                metavars.setdefault(option, set()).add(each.metavar)
    for field in dataclasses.fields(serve.ServeConfig):
        if field.type not in (bool, str):
            metavars.setdefault(serve.option_name(field.name), set()).add(field.metadata["option"].metavar)
    assert metavars["--timeout"] == {"TIME"}
    assert metavars["--server"] == metavars["--base"] == metavars["--head"] == {"SERVER"}
    assert {option: found for option, found in metavars.items() if len(found) > 1} == {}


@pytest.mark.parametrize("words", [{}, {"COMP_WORDS": "tftpbench "}, {"COMP_WORDS": "tftpbench", "COMP_CWORD": "x"}])
def test_a_half_asked_completion_is_one_line(
    words: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"_TFTPBENCH_COMPLETE": "complete_bash", **words}.items():
        monkeypatch.setenv(name, value)
    code, out, err = said(capsys)
    assert (code, out) == (2, "")
    assert err.startswith("tftpbench: error: _TFTPBENCH_COMPLETE is for a shell, which sets COMP_WORDS and")
    assert err.count("\n") == 1


def completed(*words: str) -> list[str]:
    """What a shell offers for the last word, by the protocol of bash."""
    asked = {"_TFTPBENCH_COMPLETE": "complete_bash", "COMP_WORDS": shlex.join(words), "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-X", "importtime", "-m", "tftpbench"]
    done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=True)
    assert not re.search(r"\| +(pandas|numpy|matplotlib|scipy)$", done.stderr, re.MULTILINE), "a shell waits for it"
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("re",), {"report"}),
        (("gate", "b"), {"baseline"}),
        (("run", "conc"), {"concurrency"}),
        (("gate", "slo", "smo"), {"smoke"}),
        (("run", "smoke", "--server", "epo"), {"epoll"}),
        (("run", "smoke", "-s", "epoll@un"), {"epoll@unbatched"}),
        (("gate", "ab", "--head", "dns"), {"dnsmasq"}),
        (("servers", "tftp-"), {"tftp-now"}),
        (("serve", "e"), {"epoll"}),
        (("boots", "show", "uefi-g"), {"uefi-grub", "uefi-grub-kernel"}),
        (("run", "smoke", "--set", "matrix.f"), {"matrix.file_size="}),
        (("run", "smoke", "--tri"), {"--trials"}),
    ],
)
def test_a_shell_completes_commands_servers_scenarios_and_keys(words: tuple[str, ...], expected: set[str]) -> None:
    assert set(completed("tftpbench", *words)) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_had_for_each_shell(shell: str) -> None:
    asked = os.environ | {"_TFTPBENCH_COMPLETE": f"source_{shell}"}
    done = subprocess.run([sys.executable, "-m", "tftpbench"], env=asked, capture_output=True, text=True, check=True)
    assert f"_TFTPBENCH_COMPLETE=complete_{shell}" in done.stdout


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "--version")
    assert code == 0
    assert out.startswith("tftpbench 0.")


def test_a_dry_run_prints_the_trials_in_their_order_and_starts_nothing(
    capsys: pytest.CaptureFixture[str], scenario: Path
) -> None:
    code, out, _ = said(capsys, "run", str(scenario), "--dry-run", "--seed", "5")
    assert code == 0
    *trials, last = out.splitlines()
    assert len(trials) == 6
    assert re.fullmatch(r"6 trials, about \d+ s", last)
    assert out == said(capsys, "run", str(scenario), "--dry-run", "--seed", "5")[1]
    assert all(" ok, read, " in line for line in trials)


@pytest.mark.parametrize(
    ("options", "said_of_writes", "size"),
    [
        ([], 0, 0),
        (["--set", "matrix.operation=[read,write]"], 1, 0),
        (["--set", "matrix.file_size=[1KiB,1MiB]"], 0, 0),
        (["--target-write"], 0, 8),
    ],
)
def test_a_file_to_read_chooses_reads_and_its_size_is_not_made_up(
    capsys: pytest.CaptureFixture[str], options: list[str], said_of_writes: int, size: int
) -> None:
    file = [] if size else ["--target-file", "boot.0"]
    code, out, _ = said(
        capsys, "run", "concurrency", "--target", "127.0.0.1:9", *file, "--trials", "1", "--dry-run", *options
    )
    reads = [line for line in out.splitlines() if " 127.0.0.1:9, read, " in line]
    assert (code, len(reads), out.count("left out")) == (0, 4, said_of_writes)
    assert [line.split(", ")[2] for line in reads] == [f"{n} at once" for n in (3, 10, 100, 1000)]
    assert (out.count(" 64 KiB"), out.count("iB")) == (size, size)


@pytest.mark.parametrize(
    "written",
    [
        "ramp 10/s..500/s for 60s, hold 500/s for 5min, burst 2000",
        "10/s..500/s in 60s, 500/s for 5min, burst 2000",
        "[{ramp: 10/s..500/s, for: 60s}, {hold: 500/s, for: 5min}, {burst: 2000}]",
    ],
)
def test_a_shape_is_written_as_scenarios_have_it_or_in_their_words(written: str) -> None:
    shape = [{"ramp": "10/s..500/s", "for": "60s"}, {"hold": "500/s", "for": "5min"}, {"burst": 2000}]
    (cell,) = scenario_of(matrix={"operation": "read", "file_size": "1KiB", "shape": shape}, duration=None).cells()
    assert isinstance(cell.load, Shaped)
    assert _pieces(written) == cell.load.pieces


def test_the_cell_of_a_running_servers_file_has_no_key_before_its_size_is_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["run", "concurrency", "--trials", "1", "--dry-run", "--json", "--target", "127.0.0.1:9"]
    read = json.loads(said(capsys, *asked, "--target-file", "boot.0")[1])["trials"]
    assert {trial["cell_key"] for trial in read} == {None}
    assert None not in {trial["cell_key"] for trial in json.loads(said(capsys, *asked, "--target-write")[1])["trials"]}


def test_every_mistake_of_a_file_is_a_line_on_standard_error(
    capsys: pytest.CaptureFixture[str], scenario: Path
) -> None:
    text = scenario.read_text().replace("trials:", "trails: 1\ntrials: 0 #")
    scenario.write_text(text)
    code, out, err = said(capsys, "run", str(scenario))
    first, second = err.splitlines()
    assert (code, out) == (2, "")
    assert first.startswith(f"tftpbench: error: {scenario}:")
    assert "trails: unknown key; did you mean 'trials'?" in first
    assert second.startswith(f"tftpbench: error: {scenario}:")
    assert "trials: is 0; allowed: 1 to 1000" in second


def test_trials_set_quick_and_server_change_the_scenario(
    capsys: pytest.CaptureFixture[str], scenario: Path, tmp_path: Path
) -> None:
    def planned(*options: str) -> dict[str, list[dict[str, str]]]:
        return dict(json.loads(said(capsys, "run", str(scenario), "--dry-run", "--json", *options)[1]))

    assert len(planned("--trials", "2")["trials"]) == 4
    assert len(planned("--quick")["trials"]) == 2
    assert len(planned("--quick", "--trials", "3")["trials"]) == 6
    assert len(planned("--quick", "--set", "trials=2")["trials"]) == 4
    assert len(planned("--set", "matrix.concurrency=1")["trials"]) == 3
    other = planned("--server", str(tiny(tmp_path, "ignores-sigterm")))
    assert {trial["server"] for trial in other["trials"]} == {"ignores-sigterm"}


def test_scenarios_are_listed_with_question_cells_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    listed = {each["name"]: each for each in json.loads(said(capsys, "scenarios", "--json")[1])["scenarios"]}
    code, text, _ = said(capsys, "scenarios")
    assert code == 0
    for name, path in bundled_scenarios().items():
        scenario, each = load_scenario(path), listed[name]
        assert (each["question"], each["cells"]) == (scenario.description, len(scenario.cells()))
        assert (each["estimated_s"] > 0) == (each["trials"] > 0)
        assert re.search(rf"^ {name} .* {each['cells']} ", text, re.MULTILINE)
    assert re.search(r"^ concurrency .* 8 +about 4 min", text, re.MULTILINE)
    assert listed["noise"]["trials"] == 40
    rest = [name for name in listed if name not in ("smoke", "how-many", "concurrency")]
    assert list(listed)[-len(rest) :] == rest, "what is run first stands first"
    assert next(iter(listed)) == "smoke"


def test_boots_are_listed_with_what_one_machine_asks_for(capsys: pytest.CaptureFixture[str]) -> None:
    listed = {each["name"]: each for each in json.loads(said(capsys, "boots", "--json")[1])["boots"]}
    code, text, _ = said(capsys, "boots")
    assert code == 0
    assert list(listed) == list(bundled_boots())
    assert max(map(len, text.rstrip().splitlines())) <= 80
    for name, each in listed.items():
        mark = r"\*" if each["certainty"] == "less certain" else ""
        figures = " +".join(str(each[key]) for key in ("requests", "files", "misses"))
        assert re.search(rf"^ {name}{mark} +{figures} ", text, re.MULTILINE)
    assert listed["uefi-grub"]["clients"] == ["firmware", "shim", "grub"]
    assert (listed["uefi"]["bytes"], listed["uefi"]["blocks"]) == (440320, 300)


def test_a_boot_is_shown_with_options_timers_ends_and_sources(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = said(capsys, "boots", "show", "uefi-grub")
    assert code == 0
    for line in (
        r" 1 +shimx64\.efi +firmware +after OACK +930 KiB +edk2",
        r" 8 +/grub/grub\.cfg-01-\{mac-\} +grub +not found +grub",
        r"22 +/grub/grub\.cfg +grub +whole +600 B +grub",
        r"  options: blksize 1024, tsize 0",
        r"  to ask, but not to read: tsize 0, blksize 1468, windowsize 4; ended by ERROR 8\s+'User aborted",
        r"  to open: 40 x 400 ms to 1\.18 s \(31\.6 s in all\); then it gives up",
        r"  later: 1 x 33\.6 s; it never sends again",
        r"Names that --map can change: loader=shimx64\.efi, grub=grubx64\.efi, folder=grub",
        r"In all: 22 requests: 3 files, 17 not found, 2 ended early; 3\.35 MiB in 5651\s+blocks\.",
        r"  grub: rhboot/grub2 grub-core/net/tftp\.c",
    ):
        assert re.search(line, text), line
    table_ends = text.index("firmware:")
    assert max(map(len, text[table_ends:].splitlines())) <= 80
    shown = json.loads(said(capsys, "boots", "show", "uefi-grub", "--json")[1])
    assert [step["step"] for step in shown["steps"]] == list(range(1, 23))
    first = shown["steps"][0]
    assert (first["options"][0], first["stop_code"], first["waits_ns"]) == (["tsize", "0"], 8, [4 * 10**9] * 6)
    assert {step["source"] for step in shown["steps"]} <= set(shown["sources"])
    assert sum(step["blocks"] for step in shown["steps"]) == shown["blocks"]
    assert "then it starts the whole boot again, at most 10 times" in said(capsys, "boots", "show", "pi4")[1]
    assert re.search(r" 8 +put \{mac\}-boot\.log ", said(capsys, "boots", "show", "polycom-phone")[1])


BAD_BOOT = """\
{schema: tftpbench.boot/1, name: bad, description: A client., certainty: less certain, sources: {test: this test},
 sizes: {a: 10}, clients: {rom: {source: test, waits: 1s x 3, nack: gap}}, STEPS}
"""


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ("after: ./bad.yaml, steps: [{get: a}]", "after: './bad.yaml' makes a loop; allowed: a boot that does not"),
        ("steps: [{get: a, like: b}]", "steps[0].like: unknown key; allowed: get, put, "),
        ('steps: [{get: a}, {get: "{serail}", miss: expected}]', "has the variable {serail}; did you mean 'serial'?"),
        ("steps: [{get: a}, {get: ../b, miss: expected}]", "is '../b', which leaves the root; allowed: a name without"),
        (f"steps: [{', '.join(['{get: a}'] * 1001)}]", "steps: are 1001 requests; allowed: 1 to 1000"),
        (f"steps: [{', '.join(['{get: a}'] * 10_000)}]", "bad.yaml: is larger than 64 KiB"),
    ],
)
def test_a_bad_boot_is_one_line_wherever_it_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(BAD_BOOT.replace("STEPS", steps))
    Path("storm.yaml").write_text(
        "{schema: tftpbench.scenario/1, name: storm, description: It is refused., servers: [epoll], trials: 1,"
        " matrix: {boot: ./bad.yaml, machines: 3}}"
    )
    for arguments in (
        ("boots", "show", "./bad.yaml"),
        ("load", "127.0.0.1:9", "--boot", "./bad.yaml"),
        ("run", "./storm.yaml", "--dry-run"),
    ):
        code, out, err = said(capsys, *arguments)
        assert (code, out) == (2, ""), arguments
        assert err.startswith("tftpbench: error: ")
        assert words in err
        assert len(err.splitlines()) == 1, err


def test_servers_say_what_they_are_and_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "servers", "--json")
    assert code == 0
    listed = {each["name"]: each for each in json.loads(out)["servers"]}
    assert listed
    for each in listed.values():
        assert each["version"] or (each["missing"] and each["get"])
    text = said(capsys, "servers")[1]
    shown = [line.split() for line in text.splitlines()]
    for name, each in listed.items():
        (row,) = [row for row in shown if row[:1] == [name]]
        assert " ".join(row[1:]).startswith(each["state"] if each["missing"] else tuple("0123456789"))
    assert "All about one: " in text
    gone = [each for each in listed.values() if each["state"] == "not here"]
    for fetched, start in ((True, "servers --fetch gets "), (False, "To be got by hand: ")):
        names = ", ".join(each["name"] for each in gone if each["can_fetch"] is fetched)
        assert not names or f"{start}{names}.\n" in text


def test_a_server_that_is_named_is_described_and_one_that_is_not_here_says_how_to_get_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = said(capsys, "servers", "tftpy")[1]
    for line in ("model +one thread, select, pure Python", "does +read write; options: blksize tsize"):
        assert re.search(f"^  {line}$", text, re.MULTILINE)
    manifest = tiny(tmp_path, "ok")
    manifest.write_text(manifest.read_text().replace("python_module: sys", "python_module: absent_tftpd"))
    text = said(capsys, "servers", str(manifest))[1]
    assert re.search(r"not here +.*absent_tftpd was not found\n +to get it +it comes with the tests\n", text)


def test_at_80_columns_each_server_has_one_line_and_its_whole_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "WIDTH_ELSEWHERE", 80)
    table = [line for line in said(capsys, "servers")[1].splitlines() if line[:1] == " " and line.strip()][2:]
    names = [line.split()[0] for line in table]
    assert names == list(bundled_manifests())
    assert all(len(line) <= 80 for line in table)


@pytest.mark.parametrize("which", ["scenario", "server", "results"])
def test_a_schema_is_a_json_schema(capsys: pytest.CaptureFixture[str], which: str) -> None:
    code, out, _ = said(capsys, "schema", which)
    assert code == 0
    assert json.loads(out)["properties"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--until", "5"], "--until is '5'; allowed: above 0% to 100%, as in 5%"),
        (["--until", "0%"], "--until is '0%'; allowed: above 0% to 100%, as in 5%"),
        (["--budget", "1min"], "--budget bounds the rounds that --until adds: give both, as in --until 5%"),
        (["--until", "5%", "--budget", "0s"], "--budget is 0; allowed: a time above 0, as in 10min"),
        (["--until", "5%", "--quick"], "a quick run judges no speed"),
    ],
)
def test_rounds_that_can_not_be_added_are_refused_in_one_line(
    words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.exit_code(["run", "smoke", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line


def test_a_load_whose_network_is_refused_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(**_: object) -> None:
        raise NetworkRefused("a veth pair: Operation not supported")

    monkeypatch.setattr("tftpbench.host.server.process.Network", refused)
    assert cli.exit_code(["load", "--server", "epoll", "--network", "namespace", "--read", "f"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "epoll: has no network of its own: a veth pair: Operation not supported; " in line
    assert line.endswith("or leave out --network")
