"""Whole gates from the command line, with real servers: short ones, whose verdict matters where a fault is clear."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.manifests import bundled, written
from tftpbench import cli
from tftpbench.gate import Decision, decide
from tftpbench.gate.document import load
from tftpbench.gate.result import Pair, Verdict
from tftpbench.gate.selftest.faults import FaultsUnavailable, compile_shim
from tftpbench.gate.text import signed
from tftpbench.measure.validity import Finding, Kind

MISBEHAVING = Path(__file__).with_name("misbehaving_server.py")
TINY = ["matrix.concurrency=5", "matrix.file_size=16KiB", "duration=null", "transfers=60", "gate.looks=[6]",
        "gate.slice=10ms", "gate.budgets.server_cpu_s_per_mib=90%", "gate.budgets.data_pps=90%",
        "gate.budgets.syscalls_per_block=off", "gate.budgets.server_rss_bytes_max=off",
        "client.timeout=100ms", "client.retries=2"]  # fmt: skip


def misbehaving(folder: Path, mode: str) -> str:
    argv = [sys.executable, str(MISBEHAVING), mode, "{host}", "{port}", "{root}"]
    return str(written(folder, mode, argv, "answer", "{operations: [read], options: [blksize]}"))


def words(folder: Path, base: str, head: str, *more: str) -> list[str]:
    sets = [word for assignment in TINY for word in ("--set", assignment)]
    return ["gate", "ab", "--base", base, "--head", head, *sets, "--seed", "1", "-o", str(folder / "out"), *more]


def gate(folder: Path, base: str, head: str, *more: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the document of the gate."""
    code = cli.exit_code(words(folder, base, head, "--quiet", *more))
    found = sorted((folder / "out").glob("*-gate-gate/gate.json"))
    return code, json.loads(found[-1].read_text()) if found else {}


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pair is spoilt by what else this machine does: for tests that are not about that."""
    monkeypatch.setattr("tftpbench.measure.validity.findings", lambda *_: ())


@pytest.fixture
def one_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate ends after its first pair, whatever else this machine does."""
    monkeypatch.setattr("tftpbench.measure.validity.findings", lambda *_: ())

    def final(pairs: Sequence[Pair], *arguments: Any, has_ended: bool = False) -> Decision:
        return replace(decide(pairs, *arguments, has_ended=has_ended), is_final=bool(pairs))

    monkeypatch.setattr("tftpbench.gate.loop.is_early", lambda *_: True)
    monkeypatch.setattr("tftpbench.gate.loop.decide", final)


@pytest.mark.usefixtures("quiet")
def test_a_server_against_itself_leaves_everything_that_a_job_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    code, document = gate(tmp_path, "epoll", "epoll", "--report-only")
    assert code == 0
    [folder] = (tmp_path / "out").iterdir()
    names = {path.name for path in folder.iterdir()}
    assert {"gate.json", "pairs.jsonl", "report.md", "junit.xml", "forest.png", "pairs.svg", "pairs.csv"} <= names
    assert (tmp_path / "summary.md").read_text().strip() == (folder / "report.md").read_text().strip()
    result = load(folder)
    assert result.verdict == document["verdict"]
    assert [pair.invalid for pair in result.pairs] == [None] * 6
    lines = (folder / "pairs.jsonl").read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == list(range(1, len(lines) + 1))
    assert any("control" in pair.arms for pair in result.pairs)
    assert f"Files:  {folder}" in capsys.readouterr().out


@pytest.mark.usefixtures("one_pair")
def test_both_sides_get_exactly_the_same_work(tmp_path: Path) -> None:
    _, document = gate(tmp_path, "epoll", "threads", "--report-only", "--set", "client.timeout=1s")
    [pair] = document["pairs"]
    done = {(arm["figures"]["started"], arm["figures"]["bytes_verified"]) for arm in pair["arms"].values()}
    assert len(done) == 1


@pytest.mark.usefixtures("one_pair")
def test_uploads_are_compared_in_every_slice(tmp_path: Path) -> None:
    sets = ["--set", "matrix.operation=write", "--set", "client.timeout=1s"]
    _, document = gate(tmp_path, "epoll", "epoll", "--report-only", *sets)
    arm = document["pairs"][0]["arms"]["base"]["figures"]
    assert arm["bytes_verified"] == arm["started"] * 16 * 1024 > 0


@pytest.mark.parametrize(
    ("mode", "said"),
    [("lies", "transfers had wrong contents"), ("dies", "died with SIGSEGV"), ("silent", "head: completed none of")],
)
def test_a_head_that_serves_nothing_right_is_regressed_at_once(tmp_path: Path, mode: str, said: str) -> None:
    code, document = gate(tmp_path, misbehaving(tmp_path, "ok"), misbehaving(tmp_path, mode))
    assert (code, document["verdict"]) == (3, "regressed")
    assert said in document["failure"]
    assert len([pair for pair in document["pairs"] if pair["unstarted"] is None]) == 1


# Budgets as usual; small work, so that starts are most of the time.
SLOW = ["matrix.concurrency=5", "matrix.file_size=16KiB", "duration=null", "transfers=60", "gate.looks=[12]",
        "gate.slice=10ms", "gate.budgets.syscalls_per_block=off", "gate.budgets.server_rss_bytes_max=off"]  # fmt: skip


@pytest.fixture
def busy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose clock can't be trusted: no slice is valid; or so many processes that take all they get."""
    count: int = request.param
    if not count:
        stall = Finding(Kind.GENERATOR_STOPPED, "the generator stood still for 64 ms at once")
        monkeypatch.setattr("tftpbench.measure.validity.findings", lambda *_: (stall,))
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    yield
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("busy", [0, pytest.param(4, marks=pytest.mark.soak)], indirect=True)
@pytest.mark.usefixtures("busy")
def test_a_head_that_is_many_times_slower_is_regressed_by_the_first_look_on_a_busy_machine_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = written(
        tmp_path, "slow", [sys.executable, "-m", "tftpbench.serve", "epoll", "--host", "{host}", "--port", "{port}",
        "--root", "{root}"], "line", "{operations: [read], options: [blksize]}",
    )  # fmt: skip
    with head.open("a", encoding="utf-8") as manifest:  # twenty times what a pair takes
        manifest.write(f"\nenv: {{LD_PRELOAD: {shim(tmp_path)}, TFTPBENCH_FAULT_SPIN_NS: '200000'}}\n")
    sets = [word for assignment in SLOW for word in ("--set", assignment)]
    out = tmp_path / "out"
    code = cli.exit_code(
        ["gate", "ab", "--base", "epoll", "--head", str(head), *sets, "--seed", "1", "-o", str(out), "--quiet"]
    )
    [folder] = out.iterdir()
    result = load(folder)
    assert (code, result.verdict, result.failure) == (3, "regressed", None)
    assert len(result.pairs) <= 12
    assert result.facts.duration_s < 180
    decided = [each for each in result.judgements if each.verdict == "regressed"]
    assert {each.metric for each in decided} <= {"server_cpu_s_per_mib", "data_pps"}
    for each in decided:  # what the headline says stands in the report, and is of as many pairs
        assert signed(each.ratio or 0) in result.sentence
        assert signed(each.ratio or 0) in (folder / "report.md").read_text().partition("| metric |")[2]
    pairs = f"{max(each.pairs for each in result.judgements)} pairs"
    assert pairs in result.sentence
    assert f"It ran: {pairs} of fresh processes" in (folder / "report.md").read_text()
    assert result.sentence in capsys.readouterr().out


def shim(folder: Path) -> Path:
    try:
        return compile_shim(folder)
    except FaultsUnavailable as reason:
        pytest.skip(str(reason))


def test_a_program_gets_the_document_on_standard_output_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = gate(tmp_path, misbehaving(tmp_path, "ok"), misbehaving(tmp_path, "lies"), "--json")
    out, err = capsys.readouterr()
    assert (code, err) == (3, "")
    assert json.loads(out) == document


@pytest.mark.usefixtures("quiet")
def test_a_faster_head_is_never_red(tmp_path: Path) -> None:
    code, document = gate(tmp_path, misbehaving(tmp_path, "ok"), str(bundled(tmp_path, "epoll")))
    assert (code, document["failure"]) == (0, None)


@pytest.mark.usefixtures("quiet")
def test_what_is_still_open_at_the_last_look_is_inconclusive_and_let_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsure(*arguments: Any, has_ended: bool = False) -> Decision:
        found = decide(*arguments, has_ended=has_ended)
        return (
            replace(found, verdict=Verdict.INVALID if has_ended else Verdict.INCONCLUSIVE) if found.is_final else found
        )

    monkeypatch.setattr("tftpbench.gate.loop.decide", unsure)
    code, document = gate(tmp_path, "epoll", "epoll")
    assert (code, document["verdict"]) == (0, "inconclusive")


@pytest.mark.parametrize(
    ("base", "head", "more", "code", "said"),
    [
        ("epol", "epoll", (), 2, "did you mean 'epoll'?"),
        ("epoll", "epoll@busy_poll", (), 2, "without ever sleeping"),
        ("epoll", "tftp://127.0.0.1:69/x", (), 2, "starts its servers itself"),
        ("epoll", "exits {port} {root}", (), 2, "exits"),
        ("epoll", "epoll", ("--as", "epoll"), 2, "leave it out"),
        ("epoll", "epoll", ("--set", "gate.budgets.data_pps=0"), 2, "as in 5%"),
        ("epoll", "OK", ("--set", "matrix.windowsize=4"), 2, "windowsize"),
        ("epoll", "FALSE", (), 2, "head:"),
        ("FALSE", "epoll", (), 2, "base:"),
    ],
)
def test_what_can_not_be_judged_is_one_line_and_its_code(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    base: str,
    head: str,
    more: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    made = {"OK": misbehaving(tmp_path, "ok"), "FALSE": f"{shutil.which('false')} {{port}} {{root}}"}
    assert gate(tmp_path, made.get(base, base), made.get(head, head), *more) == (code, {})
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1, error


@pytest.mark.usefixtures("one_pair")
def test_on_one_core_it_measures_and_says_so(tmp_path: Path) -> None:
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        _, document = gate(tmp_path, "epoll", "epoll", "--report-only")
    finally:
        os.sched_setaffinity(0, mine)
    assert document["facts"]["placement"] == "on one core"
    assert any("on one core" in remark for remark in document["remarks"])


@pytest.mark.usefixtures("one_pair")
def test_without_strace_system_calls_are_not_judged_and_the_reason_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tftpbench.gate.syscalls.unavailable", lambda: "strace is not in PATH; get it: apt install strace"
    )
    _, document = gate(tmp_path, "epoll", "epoll", "--report-only", "--set", "gate.budgets.syscalls_per_block=2%")
    assert "System calls were not counted: strace is not in PATH; get it: apt install strace." in document["remarks"]
    [calls] = [each for each in document["judgements"] if each["metric"] == "syscalls_per_block"]
    assert (calls["verdict"], calls["ratio"]) == (None, None)


@pytest.fixture
def process(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A gate that would go on for a long time."""
    command = [*words(tmp_path, "epoll", "epoll"), "--set", "gate.looks=[1000]"]
    # A shell lets its background jobs ignore Ctrl-C; what is started here must obey it.
    obeys = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program = f"{obeys}; from tftpbench.cli import main; main(sys.argv[1:])"
    started = subprocess.Popen(
        [sys.executable, "-c", program, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    yield started
    started.kill()
    started.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_gate_keeps_its_pairs_and_gives_no_verdict(
    tmp_path: Path, process: "subprocess.Popen[str]", number: signal.Signals
) -> None:
    assert process.stderr is not None
    assert "Base and head have started" in process.stderr.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert (out, "so there is no verdict" in err) == ("", True)
    [folder] = (tmp_path / "out").iterdir()
    assert not (folder / "gate.json").exists()
