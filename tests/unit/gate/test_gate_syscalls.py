"""System calls per block: what strace's summary says, what makes a pass tell nothing, and no strace at all."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from tests.unit.builders import contender, scenario
from tftpbench.gate import syscalls
from tftpbench.gate.syscalls import Counted, SyscallsUnknown, count, per_block, unavailable
from tftpbench.host.generator import LoadConfig
from tftpbench.host.presence import Found
from tftpbench.host.roots import roots
from tftpbench.host.server_host import LocalServerHost
from tftpbench.host.target import Target
from tftpbench.measure import Pinning, Tools, Trial
from tftpbench.measure.files import TargetFiles
from tftpbench.measure.plan import Contender
from tftpbench.measure.session import Bench
from tftpbench.model.errors import LoadError, ServerDied, ServerNotReady

STRACE_6 = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 75.00    0.000300           0      1200           recvmmsg
 25.00    0.000100           3        34         5 openat
  0.00    0.000000           0         1           syscall_0x1c8
------ ----------- ----------- --------- --------- ----------------
100.00    0.000400           0      1235         5 total
"""
STRACE_4 = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
  nan     0.000000           0        30           read
  nan     0.000000           0        12         2 open
------ ----------- ----------- --------- --------- ----------------
100.00    0.000000                    42         2 total
"""
TWO_TABLES = STRACE_6 + "System call usage summary for 32 bit mode:\n" + STRACE_4


@pytest.fixture(autouse=True)
def _looked_for_anew() -> Iterator[None]:
    unavailable.cache_clear()
    yield
    unavailable.cache_clear()


def read(folder: Path, text: str) -> int:
    (folder / "summary").write_text(text, encoding="utf-8")
    return syscalls._read(folder / "summary")


@pytest.mark.parametrize(("text", "calls"), [(STRACE_6, 1235), (STRACE_4, 42), (TWO_TABLES, 1277)])
def test_a_summary_of_any_version_is_read_table_by_table(tmp_path: Path, text: str, calls: int) -> None:
    assert read(tmp_path, text) == calls


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no whole summary"),
        ("total\n", "strace's total is not the sum of its calls, 0: 'total'"),
        ("100.00 0.000 0 total\n", "no whole summary"),
        (STRACE_6.replace("1235", "1236"), "strace's total is not the sum of its calls, 1235: '100.00 "),
        (STRACE_6.rpartition("100.00")[0], "no whole summary"),
        (STRACE_6 + "  1.00    0.000300           0         7           read\n", "no whole summary"),
        ("\x00\x1b[2J total\n" * 9, r"calls, 0: '\\x00\\x1b\[2J total'"),
    ],
)
def test_a_summary_that_does_not_add_up_tells_nothing(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SyscallsUnknown, match=said) as raised:
        read(tmp_path, text)
    assert len(str(raised.value).splitlines()) == 1


def test_no_summary_tells_nothing(tmp_path: Path) -> None:
    with pytest.raises(SyscallsUnknown, match="wrote no summary"):
        syscalls._read(tmp_path / "absent")


def test_calls_of_start_and_ready_are_no_blocks_calls() -> None:
    assert per_block(Counted(1500, 200), Counted(1100, 0)) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("counted", "said"),
    [(Counted(1500, 0), "no DATA block"), (Counted(1100, 200), "counted 1100 calls under load, and 1100 without")],
)
def test_a_pass_without_blocks_or_calls_has_no_figure(counted: Counted, said: str) -> None:
    with pytest.raises(SyscallsUnknown, match=said):
        per_block(counted, Counted(1100, 0))


def put_strace(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """A program by the name of strace, the only one of this name in PATH; $SUMMARY is where it is to write."""
    path = folder / "bin" / "strace"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nSUMMARY="$6"\n{script}\n', encoding="ascii")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}/bin{os.pathsep}/usr/bin")
    return path


def test_without_strace_its_absence_and_the_mend_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert unavailable() == "strace is not in PATH; get it: apt install strace"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo first >&2; echo 'strace: ptrace: Operation not permitted' >&2; exit 1", "ptrace: Operation not permit"),
        ("exit 1", "strace can't be used here: it said nothing"),
        ("printf '\\033[2Jgone' >&2; exit 1", "here: \\u001b[2Jgone"),
        ("exec sleep 1000", "did not end within 0.2 s"),
        ("exit 0", "strace wrote no summary"),
        ("echo nonsense >$SUMMARY", "strace wrote no whole summary"),
    ],
)
def test_a_strace_that_does_not_do_is_reported_by_its_own_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    put_strace(tmp_path, monkeypatch, script)
    monkeypatch.setattr(syscalls, "_PROBE_TIMEOUT_S", 0.2 if "sleep" in script else 10.0)
    reason = unavailable()
    assert reason is not None
    assert said in reason


def test_a_program_that_is_no_strace_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put_strace(tmp_path, monkeypatch, "")
    path.write_bytes(b"\0\0\0\0")
    assert unavailable() == "strace can't be used here: Exec format error"


def test_strace_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_strace(tmp_path, monkeypatch, f"echo tried >>{tmp_path}/tried; exit 1")
    assert unavailable() == unavailable()
    assert (tmp_path / "tried").read_text() == "tried\n"


@dataclass
class World:
    """A server and a load that exist only here, and what was done to them."""

    summary: str | None = STRACE_6
    fails: Exception | None = None
    dies: bool = False
    figures: dict[str, int | None] = field(default_factory=dict)
    configs: list[LoadConfig] = field(default_factory=list)
    commands: list[list[str]] = field(default_factory=list)
    graces: list[float] = field(default_factory=list)
    alive: int = 0

    def tools(self) -> Tools:
        return Tools(self, FakeHost(self))

    def run(self, config: LoadConfig, _stop: object, *_: object) -> Any:
        self.configs.append(config)
        usual = {"started": 30, "completed": 30, "blocks_to_window_end": 500, "retransmissions": 5}
        return SimpleNamespace(figures={**usual, **self.figures})


class FakeHost(LocalServerHost):
    def __init__(self, world: World) -> None:
        self.world = world

    def server(self, manifest: Any, **options: Any) -> Any:
        return FakeServer(self.world, manifest, **options)


class FakeServer:
    host, port = "127.0.0.1", 1234
    network = None

    def __init__(self, world: World, manifest: Any, **options: Any) -> None:
        self.world = world
        self.command = manifest.command("127.0.0.1", 1234, options["root"], options["concurrency"], options["write"])

    def __enter__(self) -> Self:
        self.world.commands.append(self.command)
        if self.world.fails is not None:
            raise self.world.fails
        self.world.alive += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.world.alive -= 1

    def check_alive(self) -> None:
        if self.world.dies:
            raise ServerDied("one: died with SIGSEGV; it said nothing")

    def stop(self, grace_s: float) -> None:
        self.world.graces.append(grace_s)
        if self.world.summary is not None:
            Path(self.command[self.command.index("-o") + 1]).write_text(self.world.summary)


def write_contents(path: Path, _seed: int, _file: int, size: int) -> None:
    path.write_bytes(b"x" * size)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    put_strace(tmp_path, monkeypatch, f"cat >$SUMMARY <<'END'\n{STRACE_6}END")
    cells = scenario().cells()
    with roots(cells, 1, write_contents, [tmp_path]) as base:
        yield Bench(base, TargetFiles(tmp_path), Pinning((1,), (0,), ()), 1, Tools())


def trial(number: int = 1, server: Contender | None = None) -> Trial:
    """A cell of 10 at once, and by a window of time."""
    return Trial(1, 1, 1, scenario().cells()[number], server or contender("one"))


def test_a_pass_is_fixed_work_on_a_server_that_strace_starts(bench: Bench, tmp_path: Path) -> None:
    world = World()
    assert count(trial(), replace(bench, tools=world.tools()), 30) == Counted(1235, 500)
    (config,), (command,) = world.configs, world.commands
    assert command[:7] == [f"{tmp_path}/bin/strace", "-f", "-qq", "-c", "-I2", "-o", command[6]]
    assert command[7:9] == ["--", "x"], "the server's own command follows"
    assert (config.transfers, config.duration_ns, config.warm_up_ns, config.concurrency) == (30, None, 0, 10)
    assert config.ramp_ns == syscalls.SPREAD_NS, "clients in step would read a shared file again by luck"
    assert config.limit_ns <= 60_000_000_000, "a server that is stuck under strace does not hold the gate for long"
    assert (world.alive, world.graces) == (0, [syscalls.STOP_GRACE_S])
    assert list(bench.roots.base.glob("root-*")) == []


def test_less_work_than_clients_is_done_by_fewer(bench: Bench) -> None:
    world = World()
    count(trial(), replace(bench, tools=world.tools()), 4)
    assert (world.configs[0].concurrency, world.configs[0].transfers) == (4, 4)


def test_a_pass_of_no_transfers_has_no_load(bench: Bench) -> None:
    world = World()
    assert count(trial(), replace(bench, tools=world.tools()), 0) == Counted(1235, 0)
    assert world.configs == []


def test_the_summary_of_an_earlier_pass_is_not_taken_for_this_ones(bench: Bench) -> None:
    count(trial(), replace(bench, tools=World().tools()), 30)
    with pytest.raises(SyscallsUnknown, match="wrote no summary"):
        count(trial(), replace(bench, tools=World(summary=None).tools()), 30)


@pytest.mark.parametrize(
    ("world", "said"),
    [
        (World(figures={"completed": 29}), "only 29 of 30 transfers completed under strace"),
        (World(figures={"started": 0, "completed": 0}), "only 0 of 0 transfers"),
        (World(figures={"completed": None}), "only 0 of 30"),
        (World(figures={"retransmissions": 6}), "6 datagrams were sent again for 500 blocks"),
        (World(dies=True, figures={"completed": 2}), "under strace, one: died with SIGSEGV; it said nothing"),
        (World(fails=ServerNotReady("one: printed no READY line in time")), "under strace, one: printed no READY"),
    ],
)
def test_a_pass_that_went_wrong_tells_nothing_but_why(bench: Bench, world: World, said: str) -> None:
    with pytest.raises(SyscallsUnknown, match=said):
        count(trial(), replace(bench, tools=world.tools()), 30)
    assert world.alive == 0
    assert list(bench.roots.base.glob("root-*")) == []


def test_a_generator_that_can_not_run_is_no_fault_of_strace(bench: Bench) -> None:
    world = World()

    class Refuses:
        def run(self, *_: object) -> Any:
            raise LoadError("20128 open files are needed")

    with pytest.raises(LoadError, match="open files"):
        count(trial(), replace(bench, tools=replace(world.tools(), generator=Refuses())), 30)
    assert world.alive == 0


def test_what_runs_already_can_not_be_traced(bench: Bench) -> None:
    target = Contender(Target("127.0.0.1", 69, "boot.0"), None, Found("unknown", ""))
    with pytest.raises(SyscallsUnknown, match=r"127\.0\.0\.1:69 runs already"):
        count(trial(server=target), bench, 30)


def test_without_strace_no_server_is_started(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SyscallsUnknown, match="strace is not in PATH"):
        count(trial(), replace(bench, tools=world.tools()), 30)
    assert world.commands == []
