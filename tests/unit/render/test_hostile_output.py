"""What others say is data to every command: no escapes, formulas or markup; and a stream that is gone stops no work."""

import ast
import csv
import io
import json
import os
import pty
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

import tftpbench
from tests.loopback.peer import peer, serve_bytes
from tests.unit.builders import GATES, asked, manifest, rows, store
from tftpbench import cli
from tftpbench.cli import exit_code
from tftpbench.model.errors import TftpbenchError
from tftpbench.render import terminal

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


PACKAGE = Path(terminal.__file__).parent
HOSTILE = "\x1b[2J\x9b31m\u202e"
SHOWN = "\\u001b[2J\\u009b31m\\u202e"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A stream whose reader is gone, from the second write on."""

    written = 0

    def write(self, text: str) -> int:
        self.written += 1
        if self.written > 1:
            raise BrokenPipeError
        return super().write(text)


def test_what_is_printed_is_escaped_however_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.printing():
        print(HOSTILE)
        sys.stdout.write(HOSTILE)
        sys.stderr.writelines([HOSTILE])
        terminal.console(sys.stdout, width=200).print(HOSTILE, markup=False, highlight=False)
    captured = capsys.readouterr()
    assert captured.out.replace("\n", "") == SHOWN * 3
    assert captured.err == SHOWN


def test_only_our_colours_and_the_live_line_get_through() -> None:
    stream = Terminal()
    output = terminal.Output(stream)
    output.write_painted(f"\x1b[31mred\x1b[0m {HOSTILE} \x1b[38m")
    output.clear_line()
    assert stream.getvalue() == f"\x1b[31mred\x1b[0m {SHOWN} \\u001b[38m{terminal.CLEAR_LINE}"


def test_where_no_colour_is_wanted_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = io.StringIO()
    terminal.Output(plain).write_painted("\x1b[1mbold\x1b[0m")
    terminal.Output(plain).clear_line()
    assert plain.getvalue() == "\\u001b[1mbold\\u001b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert not terminal.Output(Terminal()).has_colour


def test_a_stream_that_is_gone_is_remembered_and_raises_nothing() -> None:
    output = terminal.Output(Gone())
    for _ in range(3):
        print("line", file=output)
        output.unescaped.write("more")
        output.write_document("document")
    assert isinstance(output.failure, BrokenPipeError)
    assert output.unescaped.failure is output.failure


def test_rich_draws_its_own_escapes_and_none_of_a_text() -> None:
    stream = Terminal()
    console = terminal.console(stream, highlight=False, force_terminal=True, width=80, color_system="standard")
    console.print(HOSTILE, style="yellow", markup=False)
    assert "\x1b[33m" in stream.getvalue()
    assert SHOWN in stream.getvalue()


def test_there_is_no_other_way_to_a_terminal() -> None:
    """No file but this one makes a console of rich or writes below the border."""
    for path in PACKAGE.rglob("*.py"):
        if path.name in {"terminal.py", "serve.py", "launch.py"} or "_bundled" in path.parts:
            continue  # the child processes, whose output is a log
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                assert called != "Console", f"{path}:{node.lineno}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
                below = node.value.attr in {"stdout", "stderr"} and node.attr == "buffer"
                assert not below, f"{path}:{node.lineno}: writes below the border"


def run(command: str, **more: object) -> subprocess.CompletedProcess[str]:
    shell = ["bash", "-c", command.replace("tftpbench", f"{sys.executable} -m tftpbench")]
    return subprocess.run(shell, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize(
    ("command", "code", "err"),
    [
        ("tftpbench schema scenario >&-", 0, ""),
        ("tftpbench schema scenario 2>&-", 0, ""),
        ("tftpbench schema scenario <&- >&- 2>&-", 0, ""),
        ("tftpbench frobnicate >&-", 2, "tftpbench: error: no command is called 'frobnicate'"),
        ("tftpbench frobnicate 2>&-", 2, ""),
        ("tftpbench frobnicate 2>/dev/full", 2, ""),
        ("tftpbench frobnicate >/dev/full 2>/dev/full", 2, ""),
        ("tftpbench schema scenario >/dev/full", 2, "tftpbench: error: standard output can't be written: No space"),
        ("tftpbench --help >/dev/full", 2, "tftpbench: error: standard output can't be written: No space"),
        ("tftpbench >/dev/full 2>/dev/full", 2, ""),
        ("set -o pipefail; tftpbench schema scenario | true", 0, ""),
        ("set -o pipefail; tftpbench schema scenario | head -1 > /dev/null", 0, ""),
        ("set -o pipefail; tftpbench frobnicate 2>&1 | true", 2, ""),
    ],
)
def test_a_stream_that_is_closed_or_full_is_no_traceback(command: str, code: int, err: str) -> None:
    done = run(command)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(err)
    assert done.stderr.count("\n") == (1 if err else 0)


def test_a_run_goes_on_although_its_output_is_not_read(tmp_path: Path) -> None:
    from tests.loopback.machine import tiny

    scenario = tmp_path / "s.yaml"
    scenario.write_text(
        f"schema: tftpbench.scenario/1\nname: s\ndescription: d\nservers: [{tiny(tmp_path, 'ok')}]\n"
        "matrix: {operation: read, concurrency: [1], file_size: 1KiB}\ntransfers: 2\ntrials: 2\n"
    )
    done = run(f"set -o pipefail; tftpbench run {scenario} -o {tmp_path}/out 2>&1 | true")
    assert done.returncode in (0, 6), done.stderr
    [trials] = tmp_path.glob("out/*/trials.jsonl")
    assert trials.read_bytes().count(b"\n") == 2
    assert (trials.parent / "answer.txt").exists()


def test_the_first_file_of_a_program_without_standard_output_is_not_what_it_prints_into(tmp_path: Path) -> None:
    script = (
        "import os; from tftpbench.render.terminal import open_standard_streams; open_standard_streams()\n"
        f"fd = os.open({str(tmp_path / 'trials')!r}, os.O_CREAT | os.O_WRONLY); assert fd > 2\n"
        "print('a message')"
    )
    done = subprocess.run(["bash", "-c", f'{sys.executable} -c "$0" >&- 2>&-', script], check=False)
    assert done.returncode == 0
    assert (tmp_path / "trials").read_text() == ""


def _read(master: int) -> str:
    try:
        return os.read(master, 100_000).decode("utf-8", "replace")
    except OSError:  # EIO: the other end is closed
        return ""


def test_on_a_terminal_the_version_of_a_server_moves_nothing(tmp_path: Path) -> None:
    program = tmp_path / "tftpd"
    program.write_text("#!/bin/sh\nprintf '\\033[2J\\342\\200\\256 1.0\\n'\n")
    program.chmod(0o755)
    manifest = tmp_path / "server.yaml"
    manifest.write_text(
        'schema: tftpbench.server/1\nname: odd\nhomepage: h\nlicense: l\nmodel: "m \\e[31m\\u202e"\n'
        "capabilities: {operations: [read]}\nargv: ['{program}', '{root}', '{port}', \"\\e]0;title\\a\"]\n"
        "find: {program: ./tftpd}\n"
        'version: [\'{program}\']\nget: "g \\x9b2J"\ncaps: {limit: "\\e[2J"}\n'
    )
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "tftpbench", "servers", str(manifest)],
        stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, env=os.environ | {"TERM": "xterm", "NO_COLOR": "1"},
    ) as asked:  # fmt: skip
        os.close(slave)
        shown = "".join(iter(lambda: _read(master), ""))
    os.close(master)
    assert asked.returncode == 0, shown
    assert "\\u001b" in shown
    for evil in ("\x1b[2J", "\x1b[31m", "\x1b]0", "\x9b", "\u202e", "\x07"):
        assert evil not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["x" * 200_000],
        ["--" + "x" * 200_000],
        ["run", "x" * 200_000],
        ["run", "y/" + "x" * 200_000],
        ["run", "concurrency", "--set", "x" * 200_000],
        ["run", "concurrency", "--server", "x" * 200_000],
        ["run", "concurrency", "--server", "tftp://" + "9" * 200_000],
        ["run", "concurrency", "--seed", "9" * 200_000],
        ["run", "--resume", "x" * 200_000],
        ["report", "x" * 200_000],
        ["report", "x\x1b[2J\u202e\udcff"],
        ["compare", "x" * 200_000, "y" * 200_000],
        ["compare", ".", ".", "--within", "9" * 200_000 + "%"],
        ["servers", "x" * 200_000],
        ["servers", "./" + "x" * 200_000],
        ["load", "9" * 200_000, "--read", "a"],
        ["load", "127.0.0.1:" + "9" * 200_000, "--read", "a"],
        ["load", "127.0.0.1", "--read", "a", "--duration", "9" * 200_000 + "s"],
        ["load", "127.0.0.1", "--write", "a", "--size", "9" * 200_000],
        ["load", "127.0.0.1", "--read", "a", "--verify-against", "x" * 200_000],
        ["serve", "x" * 200_000, "--root", ".", "--port", "0"],
        ["serve", "epoll", "--root", "x" * 200_000, "--port", "0"],
        ["schema", "x" * 200_000],
        ["gate", "x" * 200_000],
        ["gate", "slo", "--run", "x" * 200_000],
        ["gate", "slo", "x" * 200_000],
        ["gate", "baseline", "x" * 200_000],
        ["gate", "ab", "--base", "x" * 200_000, "--head", "y", "--as", "epoll"],
        ["gate", "selftest", "--replay", "x" * 200_000],
        ["gate", "selftest", "--fault", "x" * 200_000],
        ["run", "concurrency", "--dry-run", "-o", "x\0y", "--target", "\0", "--target-file", "a"],
    ],
    ids=lambda words: " ".join(words)[:40],
)
def test_any_word_is_answered_in_one_line_of_bounded_length(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = exit_code(arguments)
    out, err = capsys.readouterr()
    assert (code, out) == (5 if arguments[:2] == ["gate", "baseline"] else 2, "")
    assert err.startswith("tftpbench: error: ")
    assert err.count("\n") == 1
    assert len(err) < 2200
    assert err[:-1].isprintable()


def test_a_word_that_is_no_utf8_and_as_long_as_the_kernel_takes() -> None:
    word = b"\xff\x1b[2J" * 20_000
    done = subprocess.run([sys.executable, "-m", "tftpbench", "report", word], capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert done.stderr.startswith(b"tftpbench: error: \\udcff\\u001b[2J")
    assert len(done.stderr) < 2200


def test_where_the_locale_has_no_tick_there_are_words() -> None:
    """As in LC_ALL=C, where Python itself goes on in UTF-8."""
    script = """
from tftpbench.render.plain import plain
from tftpbench.render.sections import Checks, Heading, Table, Value
from tftpbench.render.terminal import printing
with printing():
    table = Table("x", "X", (Heading("what", is_figure=False),), ((Value("a"),), (Value("b"),)), marks=("good", "bad"))
    print(plain([Checks((("good", "a == 0", ()), ("bad", "b == 0", ()), ("unclear", "c == 0", ()))), table]))
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
    shown = {}
    for name in ("C", "C.UTF-8"):
        done = subprocess.run(
            [sys.executable, "-c", script], env=clean | {"LC_ALL": name}, capture_output=True, check=True
        )
        shown[name] = done.stdout.decode()
    assert shown["C.UTF-8"].splitlines() == ["✓ a == 0", "✗ b == 0", "? c == 0", "", "  what", "✓ a", "✗ b"]
    assert shown["C"].splitlines() == ["ok a == 0", "missed b == 0", "? c == 0", "", "  what", "+ a", "x b"]
