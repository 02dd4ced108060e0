"""Base and head: what they may be, and a pair of them, slice by slice, with a load that exists only here."""

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.unit.builders import contender, scenario
from tftpbench.gate import pair
from tftpbench.gate.loop import SLOW_FACTOR, work
from tftpbench.gate.pair import SEVERE, ArmFailed, Work
from tftpbench.gate.result import BASE, HEAD, Side
from tftpbench.gate.sides import describe, refuse_unfit, side, takes_like
from tftpbench.host.generator import LoadConfig, LoadResult
from tftpbench.host.presence import Found, locate
from tftpbench.host.server import EdgeReader, Samples, Usage
from tftpbench.measure import Contender, Tools
from tftpbench.model.errors import ManifestError, ServerMissing, UsageError
from tftpbench.model.manifest import Manifest, load_manifest
from tftpbench.model.scenario import Scenario
from tftpbench.model.scenario_files import load_scenario

TEXT = """\
schema: tftpbench.server/1
name: mine
homepage: https://example.org
license: MIT
model: one thread
capabilities: {operations: [read], options: [blksize]}
argv: ["{program}", "--port={port}", "{root}"]
find: {program: ./tftpd}
get: ask for it
variants:
  spinning: {argv: ["{program}", "--spin", "{port}", "{root}"], busy_polls: true}
  scripted: {argv: [node, "{port}", "{root}"]}
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A manifest, its program beside it, and another build of that elsewhere."""
    (tmp_path / "server.yaml").write_text(TEXT, encoding="utf-8")
    (tmp_path / "new").mkdir()
    for path in (tmp_path / "tftpd", tmp_path / "new/tftpd"):
        program(path)
    return tmp_path / "server.yaml"


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def manifest(of: Contender) -> Manifest:
    assert isinstance(of.server, Manifest)
    return of.server


def command(of: Contender) -> list[str]:
    return manifest(of).command("127.0.0.2", 4069, "/srv", 116, write=False, variant=of.variant)


def test_a_manifest_is_chosen_by_name_path_folder_and_variant(mine: Path) -> None:
    assert side("threads").name == "threads"
    assert side("epoll@unbatched").name == "epoll@unbatched"
    for entry in (str(mine), str(mine.parent)):
        assert command(side(entry)) == [f"{mine.parent}/tftpd", "--port=4069", "/srv"]


def test_two_sides_may_be_the_same_manifest() -> None:
    assert side("threads").name == side("threads").name


@pytest.mark.parametrize("entry", ["tftp://127.0.0.1:69/boot.0", "tftp://127.0.0.1:{port}"])
def test_a_server_that_runs_already_is_refused(entry: str) -> None:
    with pytest.raises(ManifestError, match=r"the gate starts its servers itself; allowed: a manifest's name"):
        side(entry)


def test_an_executable_takes_the_place_of_its_manifests_program(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = mine.parent / "new/tftpd"
    assert command(side(str(new), str(mine)))[0] == str(new)
    monkeypatch.chdir(mine.parent)
    assert command(side("new/tftpd", "server.yaml"))[0] == str(new), "and where tftpbench is run, it does not matter"
    monkeypatch.setenv("PATH", str(new.parent))
    assert command(side("tftpd", "server.yaml"))[0] == str(new)


def test_a_link_to_an_executable_stays_a_link(mine: Path) -> None:
    """A python in an environment is one, and what it leads to knows nothing of the environment."""
    link = mine.parent / "link"
    link.symlink_to(mine.parent / "new/tftpd")
    assert command(side(str(link), str(mine)))[0] == str(link)


def test_a_python_takes_the_place_of_the_one_that_would_be_found(tmp_path: Path) -> None:
    python = program(tmp_path / "python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    found = side(str(python), "threads@as_shipped")
    assert (found.name, command(found)[0]) == ("threads@as_shipped", str(python))
    assert isinstance(found.found, Found)
    assert (found.found.executable, found.found.version[:10]) == (str(python), "tftpbench ")


def test_an_executable_alone_is_refused_with_what_to_add(mine: Path) -> None:
    with pytest.raises(UsageError, match=r"new/tftpd: is an executable, .*; add --as NAME"):
        side(str(mine.parent / "new/tftpd"))


@pytest.mark.parametrize("entry", ["threads", "server.yaml", "absent/tftpd", "new"])
def test_what_is_no_executable_is_not_started_as_something(
    mine: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    monkeypatch.chdir(mine.parent)
    with pytest.raises(UsageError, match="is no executable file, so it can't be started as mine"):
        side(entry, "mine")


def test_an_executable_that_its_manifest_would_not_start_is_refused(mine: Path) -> None:
    with pytest.raises(ManifestError, match=r"the command in .* has no \{program\}, so .*new/tftpd would not be"):
        side(str(mine.parent / "new/tftpd"), f"{mine}@scripted")


@pytest.mark.parametrize("like", ["unheard-of", "threads@fast", "tftp://127.0.0.1:69"])
def test_a_wrong_as_is_a_manifest_error(mine: Path, like: str) -> None:
    with pytest.raises(ManifestError, match="allowed"):
        side(str(mine.parent / "new/tftpd"), like)


def test_only_an_executable_takes_an_as(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert takes_like(str(mine.parent / "new/tftpd"))
    program(mine.parent / "threads")
    monkeypatch.setenv("PATH", str(mine.parent))
    no = ["threads", "threads@as_shipped", str(mine), str(mine.parent), "tftpd {port} {root}", "absent", "tftp://[::1]"]
    assert [entry for entry in no if takes_like(entry)] == []


def test_a_command_becomes_a_server_of_its_programs_name(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine.parent)
    found = side("new/tftpd --listen '{host} {port}' --max {concurrency} {root}")
    assert (found.name, found.variant) == ("tftpd", None)
    assert command(found) == [f"{mine.parent}/new/tftpd", "--listen", "127.0.0.2 4069", "--max", "116", "/srv"]
    assert manifest(found).cannot("write", 1428, 16, options=("tsize", "timeout", "rollover")) is None
    assert manifest(found).cannot(ipv6=True) == "has no IPv6"


@pytest.mark.parametrize(
    ("called", "name"),
    [("TFTP Server (new).bin", "tftp-server-new-bin"), ("x" * 60, "x" * 40), ("_-", "server"), ("+é+", "server")],
)
def test_any_program_has_a_name_that_results_can_bear(tmp_path: Path, called: str, name: str) -> None:
    path = program(tmp_path / called)
    found = side(f"'{path}' {{port}} {{root}}")
    assert (found.name, command(found)[0]) == (name, str(path))


def test_a_command_is_looked_for_in_path_before_fetched_servers(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = mine.parent / "peers/tftpd/bin"
    fetched.mkdir(parents=True)
    program(fetched / "tftpd")
    monkeypatch.setenv("TFTPBENCH_PEERS", str(mine.parent / "peers"))
    monkeypatch.setenv("PATH", str(mine.parent / "new"))
    assert command(side("tftpd {port} {root}"))[0] == str(mine.parent / "new/tftpd")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("sh -p {port}", r"argv: has no \{root\}, so the server can't know which files to serve"),
        ("sh {port} {root} {prt}", r"argv: has the placeholder \{prt\}; did you mean 'port'\?"),
        ("sh '{port} {root}", "can't be split into words: no closing quotation"),
        ("{python} -m x {port} {root}", r"starts with \{python\}; allowed: a program in PATH"),
        ("sh --root {root}", r"as a command it has no \{port\}; allowed: a manifest's name, .* with --as NAME; or"),
        ("'' {port} {root}", "find.program: is ''; allowed: the name or path of a program"),
        ("thraeds", "no server is called 'thraeds'; did you mean 'threads'?.* or an executable with --as NAME"),
        ("absent/server.yaml", "there is no such file"),
        ("threads@fast", "threads has no variant 'fast'; allowed: threads@as_shipped"),
    ],
)
def test_an_unclear_entry_is_one_line_that_says_what_is_allowed(entry: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        side(entry)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("entry", ["absent-tftpd {port} {root}", "/nowhere/absent-tftpd {port} {root}"])
def test_a_command_whose_program_is_not_here_is_missing(entry: str) -> None:
    with pytest.raises(ServerMissing, match=r"^absent-tftpd: .*absent-tftpd was not found; get it: install it, or"):
        side(entry)


def test_a_manifest_whose_server_is_not_here_says_how_to_get_it(mine: Path) -> None:
    (mine.parent / "tftpd").unlink()
    with pytest.raises(ServerMissing, match=r"^mine: \./tftpd was not found; get it: ask for it$"):
        side(str(mine))


@pytest.mark.parametrize("absent", [True, False])
def test_a_server_that_never_sleeps_is_refused(mine: Path, absent: bool) -> None:
    if absent:
        (mine.parent / "tftpd").unlink()
    with pytest.raises(UsageError, match=r"^mine@spinning: polls without ever sleeping, so its CPU time says nothing"):
        side(f"{mine}@spinning")


def test_a_side_is_described_as_it_was_typed_and_found(mine: Path) -> None:
    found = replace(side(str(mine)), found=Found("mine 1.2", "/bin/mine"))
    argv = ("{program}", "--port={port}", "{root}")
    assert describe(found, "./x") == Side("./x", "mine", "mine 1.2", argv, "one thread")
    shipped = side("threads@as_shipped")
    assert "--max-transfers" not in describe(shipped, "threads@as_shipped").argv


def test_sides_that_can_do_all_cells_are_let_through() -> None:
    refuse_unfit(contender("one"), contender("two"), scenario().cells())


def test_a_cell_that_a_side_can_not_do_names_both() -> None:
    cells = scenario(matrix={"operation": ["read"], "concurrency": [10], "file_size": 1024, "windowsize": [1, 4]})
    able = contender("one", options=["windowsize"])
    with pytest.raises(
        UsageError, match=r"^head \(two\) does not know windowsize, which the cell 'read, 10 .* windowsize 4' needs; "
    ):
        refuse_unfit(able, contender("two"), cells.cells())
    with pytest.raises(UsageError, match=r"^base \(two\) does not know windowsize"):
        refuse_unfit(contender("two"), able, cells.cells())


def test_an_open_loop_says_nothing_of_a_servers_speed() -> None:
    cells = scenario(matrix={"operation": ["read"], "rate": ["50/s"], "file_size": 1024}).cells()
    with pytest.raises(UsageError, match=r"^the cell 'read, 50/s, 1 KiB' has a rate, .*; choose a scenario with"):
        refuse_unfit(contender("one"), contender("two"), cells)


def test_what_clients_ask_for_beside_is_needed_too() -> None:
    asked = scenario(client={"tsize": True}).cells()
    with pytest.raises(UsageError, match=r"^base \(one\) does not know tsize"):
        refuse_unfit(contender("one"), contender("two"), asked)


def test_another_executable_leaves_the_manifest_as_it_was(mine: Path) -> None:
    old = load_manifest(mine)
    new = old.with_executable(mine.parent / "new/tftpd")
    assert old.command("h", 1, "/r", 9, write=False)[0] == f"{mine.parent}/tftpd"
    assert locate(new) == Found("unknown", str(mine.parent / "new/tftpd"))
    assert (new.source, new.name) == (old.source, old.name)


def test_an_executable_that_is_gone_is_missing_and_never_another(mine: Path) -> None:
    gone = load_manifest(mine).with_executable(mine.parent / "absent")
    assert not isinstance(locate(gone), Found)


def test_a_wrapper_comes_before_the_command_and_the_outermost_first(mine: Path) -> None:
    old = load_manifest(mine)
    inner = old.wrapped(["strace", "-f"])
    outer = inner.wrapped(["nice"])
    words = [f"{mine.parent}/tftpd", "--port=1", "/r"]
    assert old.command("h", 1, "/r", 9, write=False) == words
    assert inner.command("h", 1, "/r", 9, write=False) == ["strace", "-f", *words]
    assert outer.command("h", 1, "/r", 9, write=False) == ["nice", "strace", "-f", *words]
    assert outer.command("h", 1, "/r", 9, write=False, handover=7) == ["nice", "strace", "-f", *words]
    assert outer.argv_of(None) == old.argv_of(None), "results show the server's own command"


def test_a_wrapper_and_an_executable_go_together(mine: Path) -> None:
    new = mine.parent / "new/tftpd"
    wrapped = load_manifest(mine).with_executable(new).wrapped(["nice"])
    assert wrapped.command("h", 1, "/r", 9, write=False)[:2] == ["nice", str(new)]


def test_more_variables_are_added_to_a_copy_and_win(mine: Path) -> None:
    mine.write_text(TEXT + 'env: {KEPT: "{port}", CHANGED: old}\n')
    old = load_manifest(mine)
    new = old.with_executable(mine.parent / "new/tftpd").with_env({"CHANGED": "new", "ROOT": "{root}"})
    assert new.environment("h", 1, "/r", 9) == {"KEPT": "1", "CHANGED": "new", "ROOT": "/r"}
    assert old.environment("h", 1, "/r", 9) == {"KEPT": "1", "CHANGED": "old"}
    assert new.command("h", 1, "/r", 9, write=False)[0] == str(mine.parent / "new/tftpd")


MS = 1_000_000
WORK = Work(transfers=100, slices=20, slice_ns=100 * MS, slow_factor=3.0)
BLOCKS = 129 * WORK.transfers
PORTS = {BASE: 1, HEAD: 2}


@dataclass
class World:
    """Two servers: `times_ns` is what a slice takes each; `stuck`: whose transfers stop in the middle of each slice."""

    times_ns: dict[int, float]
    stuck: set[int] = field(default_factory=set)
    silent: set[int] = field(default_factory=set)
    loads: list[LoadConfig] = field(default_factory=list)
    on_load: Callable[[LoadConfig], object] = lambda _: None

    def run(self, config: LoadConfig, _stop: object, *_: object) -> LoadResult:
        self.on_load(config)
        self.loads.append(config)
        needed_ns = self.times_ns[config.port]
        is_stuck = config.port in self.stuck
        is_stopped = needed_ns > config.limit_ns or is_stuck or config.port in self.silent
        moved = 0 if config.port in self.silent else BLOCKS
        if is_stopped and moved:
            moved = BLOCKS // 2 if is_stuck else round(BLOCKS * config.limit_ns / needed_ns)
        rows = config.limit_ns // (100 * MS) + 1 if is_stopped else 1
        blocks = np.zeros(rows, dtype=np.int64)
        blocks[: 1 if is_stuck else rows] = moved // (1 if is_stuck else rows)
        ended = 10 if is_stopped else 0
        timed_out = ended if config.port in self.silent or is_stuck else 0
        figures: dict[str, int | float | None] = {
            "started": 100, "completed": 100 - ended if moved else 0, "failed": 0,
            "timed_out": timed_out, "interrupted": ended - timed_out, "blocks_to_window_end": int(blocks.sum()),
            "duration_s": (config.limit_ns if is_stopped else needed_ns) / 1e9, "data_pps": 1e5,
            "goodput_bytes_per_s": 1e7,
        }  # fmt: skip
        transfers = {"end_ns": np.array([config.limit_ns if is_stopped else round(needed_ns)])}
        return LoadResult(figures, transfers, {"blocks": blocks, "bytes": blocks * 512}, "", ())


def arms(timeout_ns: int) -> dict[str, Any]:
    """Both arms as `block` has them while a pair lasts."""
    [cell] = load_scenario("gate").cells()
    made = {}
    for name, port in PORTS.items():
        config = LoadConfig(
            host="127.0.0.1", port=port, operation="read", name="f", file_size_bytes=65536, concurrency=100,
            timeout_ns=timeout_ns,
        )  # fmt: skip
        server = SimpleNamespace(
            edges=lambda window, _: EdgeReader(lambda: Usage(0, 0), window), check_alive=lambda: None,
            udp_counts=lambda: None, strays=lambda: None,
        )  # fmt: skip
        sampler = SimpleNamespace(samples=Samples(rss_bytes_max=1, processes_max=1))
        trial = SimpleNamespace(cell=cell)
        made[name] = pair._Loaded(trial, server, sampler, config, Path(), SimpleNamespace())  # type: ignore[arg-type]
    return made


def pair_of(world: World, timeout_ns: int = 100 * MS) -> tuple[int, dict[str, dict[str, float | None]]]:
    """How many slices counted, and the figures of both."""
    bench: Any = SimpleNamespace(pinning=SimpleNamespace(server=(1,), generator=(0,), spare=()), tools=Tools(world))
    loaded = arms(timeout_ns)
    order = random.Random(1).sample(list(loaded), 2)
    done = pair._take_turns(order, loaded, WORK, bench)
    return done, {name: pair._figures(arm, pair._counted(loaded)) for name, arm in loaded.items()}


def test_equal_arms_do_all_their_work_and_neither_is_stopped() -> None:
    done, found = pair_of(World({1: 100 * MS, 2: 104 * MS}))
    assert done == WORK.slices
    assert [found[arm]["slices_stopped"] for arm in (BASE, HEAD)] == [0, 0]
    assert found[BASE]["started"] == found[HEAD]["started"] == 100 * WORK.slices


@pytest.mark.parametrize("slow", [6, 20, 1000])
def test_an_arm_that_is_slower_by_far_is_stopped_and_what_it_moved_by_then_is_its_figure(slow: int) -> None:
    world = World({1: 100 * MS, 2: 100 * MS * slow})
    done, found = pair_of(world)
    assert done < WORK.slices
    assert (found[BASE]["slices_stopped"], found[HEAD]["slices_stopped"]) == (0, 1)
    base, head = (found[arm]["data_pps"] or 0 for arm in (BASE, HEAD))
    assert base / head == pytest.approx(slow, rel=0.1)
    assert found[HEAD]["lost"] == 0, "it is slow, and loses nothing"


@pytest.mark.parametrize("slow", [3.5, 6, 20, 1000])
def test_a_pair_takes_no_longer_however_slow_an_arm_is(slow: float) -> None:
    world = World({1: 100 * MS, 2: 100 * MS * slow})
    pair_of(world)
    waited_ns = sum(min(world.times_ns[config.port], config.limit_ns) for config in world.loads)
    assert waited_ns <= (WORK.slices + 1) * 100 * MS * (1 + WORK.slow_factor) + 2 * 200 * MS


def test_the_rule_is_the_same_for_both_arms() -> None:
    """Whoever is the slow one: base and head exchanged give exactly the opposite."""
    there, back = pair_of(World({1: 100 * MS, 2: 600 * MS})), pair_of(World({1: 600 * MS, 2: 100 * MS}))
    assert there[0] == back[0]
    assert (there[1][BASE], there[1][HEAD]) == (back[1][HEAD], back[1][BASE])


def test_both_arms_slow_alike_are_as_fast_as_each_other() -> None:
    _, found = pair_of(World({1: 600 * MS, 2: 600 * MS}))
    base, head = (found[arm]["data_pps"] or 0 for arm in (BASE, HEAD))
    assert 1 / SEVERE < base / head < SEVERE


def test_a_datagram_that_was_lost_stops_no_arm() -> None:
    """A slice that waits for a timeout or two, once: the arm's time is that of all its slices."""
    world = World({1: 100 * MS, 2: 100 * MS})
    times = iter([100 * MS] * 5 + [2000 * MS] + [100 * MS] * 50)

    def once_late(config: LoadConfig) -> None:
        if config.port == PORTS[HEAD]:
            world.times_ns[config.port] = next(times)

    world.on_load = once_late
    done, found = pair_of(world, timeout_ns=1000 * MS)
    assert (done, found[HEAD]["slices_stopped"]) == (WORK.slices, 0)


def test_transfers_that_are_stuck_when_their_time_is_up_are_lost() -> None:
    done, found = pair_of(World({1: 100 * MS, 2: 100 * MS}, stuck={PORTS[HEAD]}))
    assert done == 1
    assert (found[BASE]["lost"], found[HEAD]["lost"]) == (0, 10)


def test_an_arm_that_moves_nothing_is_asked_again_and_longer_before_it_is_called_silent() -> None:
    world = World({1: 100 * MS, 2: 100 * MS}, silent={PORTS[HEAD]})
    with pytest.raises(ArmFailed, match="head: completed none of 100 transfers"):
        pair_of(world)
    limits = [config.limit_ns for config in world.loads if config.port == PORTS[HEAD]]
    assert limits == [500 * MS, pair.SILENT_NS]


def test_an_arm_that_the_machine_kept_waiting_once_goes_on() -> None:
    world = World({1: 100 * MS, 2: 100 * MS}, silent={PORTS[HEAD]})

    def once_silent(config: LoadConfig) -> None:
        if config.limit_ns == pair.SILENT_NS:
            world.silent.clear()

    world.on_load = once_silent
    assert pair_of(world)[0] == WORK.slices


def test_transfers_that_time_out_by_themselves_stop_no_arm() -> None:
    result = LoadResult({"timed_out": 3, "interrupted": 0}, {"end_ns": np.array([10, 499 * MS])}, {}, "", ())
    assert not pair._is_stopped(result, 500 * MS)
    assert pair._is_stopped(result, 499 * MS)


@pytest.mark.parametrize(("budget", "factor"), [("5%", SLOW_FACTOR / 0.95), ("90%", 10 * SLOW_FACTOR), ("off", 3.0)])
def test_no_arm_is_stopped_for_a_loss_that_its_budget_allows(budget: str, factor: float) -> None:
    asked: Scenario = load_scenario("gate", [f"gate.budgets.data_pps={budget}"])
    [cell] = asked.cells()
    found = work(cell, asked.gate, transfer_s=0.001)
    assert found.slow_factor == pytest.approx(factor)
    assert found.slice_ns == pytest.approx(1e6 * found.transfers)
