"""Whole gates with real servers: short ones from the command line, and system calls under a real strace."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.machine import bundled, tiny, written
from tftpbench import cli
from tftpbench.gate import Decision, decide
from tftpbench.gate.document import load
from tftpbench.gate.result import Pair, Verdict
from tftpbench.gate.selftest.faults import FaultsUnavailable, compile_shim
from tftpbench.gate.syscalls import Counted, SyscallsUnknown, count, per_block, unavailable
from tftpbench.gate.text import signed
from tftpbench.host import generator
from tftpbench.host.presence import locate
from tftpbench.host.roots import roots
from tftpbench.host.server import ServerProcess, UdpCounts, supervisor
from tftpbench.measure import Contender, Tools, Trial, pin, validity
from tftpbench.measure.files import target_files
from tftpbench.measure.session import Bench
from tftpbench.measure.validity import Finding, Kind
from tftpbench.model.invariants import Row
from tftpbench.model.manifest import load_manifest
from tftpbench.model.scenario import from_document
from tftpbench.model.workload import Cell

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


@pytest.mark.usefixtures("one_pair", "network")
@pytest.mark.parametrize("operation", ["read", "write"])
@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (ServerProcess.udp_counts, None),
        (lambda _: None, "nothing was counted in the server's network"),
        (lambda _: UdpCounts(), "were counted in the server's network"),
    ],
)
def test_an_arm_of_which_the_kernel_counted_otherwise_spoils_its_pair(
    counts: Callable[[ServerProcess], UdpCounts | None],
    said: str | None,
    operation: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def findings(row: Row, around: validity.Surroundings) -> list[Finding]:
        return [*validity._udp_counts(row, around)]

    monkeypatch.setattr("tftpbench.measure.validity.findings", findings)
    monkeypatch.setattr(ServerProcess, "udp_counts", counts)
    sets = ["--set", "placement.network=namespace", "--set", f"matrix.operation={operation}"]
    _, document = gate(tmp_path, "epoll", "epoll", "--report-only", *sets, "--set", "client.timeout=1s")
    invalid = document["pairs"][0]["invalid"]
    assert invalid is None if said is None else said in invalid, invalid


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


TRANSFERS = 30
BLOCKS = TRANSFERS * 9  # 4 KiB are eight whole blocks and an empty one that ends them (RFC 1350 section 6)

Count = Callable[[Path, str, int], Counted]


@pytest.fixture(autouse=True)
def _strace() -> None:
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def counted() -> Iterator[Count]:
    """Counts a pass on the server of a server.yaml; whatever was started for it is gone afterwards."""

    def once(path: Path, operation: str, transfers: int) -> Counted:
        cell, contender = cell_of(operation), Contender(load_manifest(path), None, locate(load_manifest(path)))
        with target_files([contender], allow_remote=False) as files, roots([cell], 1, generator.write_contents) as base:
            bench = Bench(base, files, pin(cell.placement), 1, Tools())
            return count(Trial(1, 1, 1, cell, contender), bench, transfers)

    before = supervisor.descendants(os.getpid())
    yield once
    assert set(supervisor.descendants(os.getpid())) <= set(before)


def cell_of(operation: str) -> Cell:
    document = {
        "schema": "tftpbench.scenario/1",
        "name": "syscalls",
        "description": "How many?",
        "servers": ["threads"],
        "matrix": {"operation": [operation], "concurrency": [3], "file_size": "4KiB"},
        "transfers": 10,
        "distinct_files": 2,
        "trials": 1,
    }
    (cell,) = from_document(document, "test").cells()
    # A traced server on a busy machine is slow; clients wait long enough.
    return replace(cell, client=cell.client.model_copy(update={"timeout_ns": 10_000_000_000}))


@pytest.mark.parametrize("operation", ["read", "write"])
@pytest.mark.parametrize("name", ["threads", "epoll"])
def test_every_block_costs_a_few_calls(tmp_path: Path, counted: Count, name: str, operation: str) -> None:
    path = bundled(tmp_path, name)
    idle = counted(path, operation, 0)
    loaded = counted(path, operation, TRANSFERS)
    assert (idle.blocks, loaded.blocks) == (0, BLOCKS)
    # Batches of three at best, each with a wait, a receive and a send; nine blocks bear the calls for their file.
    assert 0.3 < per_block(loaded, idle) < 12


def test_a_thread_for_each_transfer_makes_the_same_calls_again(tmp_path: Path, counted: Count) -> None:
    path = bundled(tmp_path, "threads")
    idle = counted(path, "read", 0)
    first, second = (per_block(counted(path, "read", TRANSFERS), idle) for _ in range(2))
    assert first == pytest.approx(second, rel=0.05)


def test_a_server_that_goes_on_in_a_child_is_counted_on(tmp_path: Path, counted: Count) -> None:
    path = tiny(tmp_path, "daemon")
    assert per_block(counted(path, "read", TRANSFERS), counted(path, "read", 0)) > 2, "a send and a receive each"


def test_a_server_that_is_deaf_to_sigterm_is_counted_and_ended(tmp_path: Path, counted: Count) -> None:
    assert counted(tiny(tmp_path, "ignores-sigterm"), "read", TRANSFERS).blocks == BLOCKS


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("exits", r"^under strace, exits: ended with exit code 3 before .*: cannot open the configuration$"),
        ("wrong-pid", r"^under strace, wrong-pid: its READY line names process 1, "),
    ],
)
def test_a_server_that_does_not_start_under_strace_is_one_line(
    tmp_path: Path, counted: Count, mode: str, said: str
) -> None:
    with pytest.raises(SyscallsUnknown, match=said) as raised:
        counted(tiny(tmp_path, mode), "read", TRANSFERS)
    assert "\n" not in str(raised.value)


def test_a_command_that_does_not_exist_is_one_line(tmp_path: Path, counted: Count) -> None:
    path = tiny(tmp_path, "ok")
    path.write_text(path.read_text().replace(f"argv: ['{sys.executable}'", "argv: ['/nowhere/tftpd'"))
    with pytest.raises(SyscallsUnknown, match="/nowhere/tftpd"):
        counted(path, "read", TRANSFERS)
