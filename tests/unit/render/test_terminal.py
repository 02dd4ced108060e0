"""The border of printing: no control characters of others get out, and a stream that is gone stops no work."""

import ast
import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tftpbench.cli import exit_code
from tftpbench.render import terminal

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
    from tests.loopback.manifests import tiny

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
