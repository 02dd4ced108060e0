"""A whole run, with a server and a load that exist only here: no process, no network."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from tests.unit.builders import contender, scenario
from tftpbench import measure
from tftpbench.analysis import summary
from tftpbench.analysis.comparison import compare
from tftpbench.host.ceiling import NEVER_SLEEP_US, QUICK, Arrangement, Ceiling, CeilingCell
from tftpbench.host.generator import Fault, LoadConfig, LoadResult, is_of_hosts
from tftpbench.host.headroom import Loaded
from tftpbench.host.machine import facts, host_keys
from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.host.network import NetworkRefused
from tftpbench.host.presence import Found, Missing
from tftpbench.host.server import (
    Buffers,
    EdgeReader,
    Ended,
    PortTaken,
    RunningServer,
    Samples,
    Usage,
)
from tftpbench.host.server_host import LocalServerHost
from tftpbench.host.target import Target
from tftpbench.measure import (
    CeilingUnknown,
    Event,
    Pinning,
    Probes,
    RunInterrupted,
    ServerLeftOut,
    Tools,
    TrialStarted,
    Until,
    pin,
)
from tftpbench.measure.ceilings import Headrooms, ProbeNetwork, columns, headroom_columns
from tftpbench.measure.files import TargetFiles
from tftpbench.measure.plan import Contender, Trial, plan
from tftpbench.model.errors import (
    CeilingError,
    HostsError,
    LoadError,
    NotComparable,
    ResultsError,
    ServerDied,
    ServerNotReady,
    UsageError,
)
from tftpbench.model.manifest import Manifest
from tftpbench.model.metrics import INTERVAL_COLUMNS
from tftpbench.model.scenario import Scenario
from tftpbench.render.report.contents import Fact, contents_of
from tftpbench.render.schema import json_schema
from tftpbench.store import load_run
from tftpbench.store.recording import recorded, recorded_until, run

OPENED_NS, CLOSED_NS = 10, 20
ARRANGEMENT = Arrangement(1, 1, 64, waits_in_receive=True)


@dataclass
class World:
    """What the fake server and the fake load do, and what was done to them."""

    starts: int = 0
    alive: int = 0
    fails_at: dict[int, Exception] = field(default_factory=dict)
    load_fails_at: dict[int, BaseException] = field(default_factory=dict)
    dies: bool = False
    wrong_uploads: int = 0
    configs: list[LoadConfig] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    probed: list[CeilingCell] = field(default_factory=list)
    calibrated: list[CeilingCell] = field(default_factory=list)
    probe_fails: bool = False
    lost_in_probes: int = 0
    late_ns: int = 0
    window_ns: int = 0

    def tools(self) -> Tools:
        return Tools(self, FakeHost(self), Probes(self.calibrate, self.measure))

    def calibrate(self, work: CeilingCell, **_: object) -> Arrangement:
        self.calibrated.append(work)
        return ARRANGEMENT

    def measure(self, work: CeilingCell, arrangement: Arrangement, *, window_ns: int, **_: object) -> Ceiling:
        self.window_ns = window_ns
        assert (arrangement, self.alive) == (ARRANGEMENT, 0), "no server runs beside a probe"
        if self.probe_fails:
            raise CeilingError("the ceiling can't be measured: 20128 open files are needed")
        self.probed.append(work)
        self.done.append(f"probe of {work.flows}")
        self.lost_in_probes -= 1
        return Ceiling(2000.0 * work.flows, arrangement, restarts=int(self.lost_in_probes >= 0))

    def run(self, config: LoadConfig, _stop: object, window: MeasuredWindow | None = None, *_: object) -> LoadResult:
        self.configs.append(config)
        self.done.append(f"trial of {config.concurrency}")
        assert self.alive == 1, "one server at a time"
        if self.starts in self.load_fails_at:
            raise self.load_fails_at[self.starts]
        if window is not None:
            window.announce(OPENED_NS, None)
            window.close(CLOSED_NS)
        return result(config)


class FakeHost(LocalServerHost):
    """The machine of the fake servers."""

    def __init__(self, world: World) -> None:
        self.world = world

    def server(self, manifest: object, **options: Any) -> Any:
        del manifest
        return FakeServer(self.world, **options)

    def first_difference(self, _path: Path, _seed: int, file: int, _size: int) -> int | None:
        return 0 if file < self.world.wrong_uploads else None

    def write_contents(self, path: Path, _seed: int, _file: int, size: int) -> None:
        path.write_bytes(b"x" * size)


@dataclass
class FakeServer:
    world: World
    root: Path
    log: Path
    concurrency: int
    write: bool
    variant: str | None
    cpus: tuple[int, ...]
    host: str = "127.0.0.1"
    port: int = 1234
    in_network: bool = False
    network: None = None
    buffers: Buffers = field(default_factory=lambda: Buffers(1000, 2000))
    cpu: Iterator[int] = field(default_factory=lambda: iter((1_500_000, 2_000_000)))

    def __enter__(self) -> Self:
        self.world.starts += 1
        self.log.write_text("hello")
        if self.world.starts in self.world.fails_at:
            raise self.world.fails_at[self.world.starts]
        self.world.alive += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.world.alive -= 1

    def usage(self) -> Usage:
        return Usage(0, 1_000_000, 5000, 1, 4, 0, 4000, 1, 10)

    def udp_counts(self) -> None:
        pass

    def strays(self) -> None:
        pass

    def edges(self, window: MeasuredWindow, _cpus: object) -> EdgeReader:
        return EdgeReader(self.counted, window)

    def counted(self) -> Usage:
        cpu_ns = next(self.cpu)
        return Usage(CLOSED_NS + self.world.late_ns, cpu_ns, context_switches=52, waited_ns=cpu_ns // 1000)

    def sampler(self, *_: object) -> Any:
        class Context:
            samples = Samples(
                rss_bytes_max=6000, threads_max=3, fds_max=9, udp_drops=2, pss_bytes_max=5500, processes_max=2
            )

            def __enter__(self) -> Self:
                return self

            def __exit__(self, *_: object) -> None:
                pass

        return Context()

    def check_alive(self) -> None:
        if self.world.dies:
            raise ServerDied("fake: died with SIGSEGV")

    def stop(self, _grace_s: float) -> Ended:
        return Ended(0, None, 0)


def result(config: LoadConfig) -> LoadResult:
    n = 4
    numbers = np.arange(n, dtype=np.int64)
    columns = ("intended_start_ns", "actual_start_ns", "first_response_ns", "end_ns", "bytes", "retransmissions")
    transfers = dict.fromkeys(columns, numbers) | {
        "number": numbers,
        "outcome": np.zeros(n, np.int64),
        "error_code": np.full(n, -1),
    }
    intervals = dict.fromkeys(("start_ns", *INTERVAL_COLUMNS), numbers)
    figures: dict[str, int | float | None] = {
        "started": n,
        "completed": n,
        "failed": 0,
        "timed_out": 0,
        "interrupted": 0,
        "bytes_verified": 100,
        "content_mismatches": 0,
        "data_pps": 1000.0 * config.concurrency,
        "duration_s": 1.0,
        "blocks_to_window_end": 100,
        "not_a_column": 1,
    }
    return LoadResult(
        figures, transfers, intervals, "", (Fault("stray_tid", 1, "DATA block 1"),), (), (OPENED_NS, CLOSED_NS)
    )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    servers = (contender("one"), contender("two"))
    monkeypatch.setattr("tftpbench.measure.runner.contenders", lambda _, **_host: servers)
    return World()


def question(**changes: object) -> Scenario:
    base: dict[str, object] = {"servers": ["one", "two"], "trials": 2}
    matrix = {"operation": ["read"], "concurrency": [1, 10], "file_size": 1024}
    return scenario(**{**base, "matrix": matrix, **changes})


def saved(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]


def test_every_trial_becomes_a_row_with_its_files(world: World, tmp_path: Path) -> None:
    report = run(question(), seed=3, out=tmp_path, tools=world.tools())
    assert [row["trial"] for row in saved(report.folder)] == [trial.number for trial in report.plan.trials]
    assert sorted(path.name for path in (report.folder / "trials").iterdir()) == [str(n) for n in range(1, 9)]
    assert (report.folder / "trials/1/server.log").read_text() == "hello"
    assert world.starts == 8
    assert world.alive == 0


def test_a_row_holds_what_was_asked_what_was_seen_and_what_it_cost(world: World, tmp_path: Path) -> None:
    row = run(question(trials=1), seed=3, out=tmp_path, tools=world.tools()).rows[0]
    assert (row["verdict"], row["verdict_reason"]) == ("valid", None)
    assert row["server_cpu_s"] == pytest.approx(0.001), "from READY to the end of the window, not of the drain"
    assert row["server_cpu_ns_per_block"] == pytest.approx(10_000)
    assert row["server_busy_fraction"] == pytest.approx(0.0005), "between the edges of the window, per core"
    assert row["server_wait_ns"] == 500, "the same"
    assert (row["server_rss_bytes_ready"], row["server_rss_bytes_max"], row["udp_drops_server"]) == (5000, 6000, 2)
    assert (row["server_end"], row["server_context_switches"]) == ("exit code 0", 42)
    assert row["protocol_faults"] == [{"kind": "stray_tid", "count": 1, "example": "DATA block 1", "rfc_section": None}]
    assert "not_a_column" not in row


def test_a_server_that_is_read_late_makes_the_trial_invalid(tmp_path: Path, world: World) -> None:
    world.late_ns = 60_000_000
    row = run(question(trials=1), seed=3, out=tmp_path, tools=world.tools()).rows[0]
    assert row["runner_gap_ns_max"] == 60_000_000 + CLOSED_NS - OPENED_NS
    assert (row["verdict"], row["verdict_reason"]) == ("invalid", "the runner watched the trial 60 ms late")


def test_the_load_does_what_the_cell_says_and_the_server_gets_head_room(world: World, tmp_path: Path) -> None:
    client = {"timeout": "2s", "retries": 3, "backoff": "constant", "start": "10ms"}
    run(question(trials=1, client=client, warm_up="50ms"), seed=3, out=tmp_path, tools=world.tools())
    config = next(config for config in world.configs if config.concurrency == 10)
    assert (config.operation, config.file_size_bytes, config.distinct_files, config.seed) == ("read", 1024, 16, 3)
    assert (config.timeout_ns, config.retries, config.backoff, config.ramp_ns) == (2 * 10**9, 3, "constant", 10**7)
    assert (config.duration_ns, config.warm_up_ns, config.transfers) == (10**9, 5 * 10**7, None)


def test_a_server_that_does_not_start_is_an_invalid_row_and_the_run_goes_on(world: World, tmp_path: Path) -> None:
    world.fails_at = {2: ServerNotReady("two: did not answer"), 5: ServerDied("one: ended")}
    rows = run(question(), seed=3, out=tmp_path, tools=world.tools()).rows
    assert len(rows) == 8
    assert {row["verdict_reason"] for row in rows if row["verdict"] == "invalid"} == {
        "two: did not answer",
        "one: ended",
    }
    assert rows[1]["started"] is None


def test_a_port_that_another_program_took_meanwhile_is_no_fault_of_the_server(world: World, tmp_path: Path) -> None:
    world.fails_at = {
        1: PortTaken("two: UDP port 69 on 127.0.0.1 is taken by another process; stop that first"),
        2: ServerNotReady("one: did not answer"),
        3: ServerDied("one: ended"),
    }
    rows = run(question(), seed=3, out=tmp_path, tools=world.tools()).rows
    kinds = [[finding["kind"] for finding in row["server_findings"]] for row in rows[:4]]
    assert kinds == [["port_taken"], ["not_ready"], ["died"], []]


@pytest.mark.parametrize(
    ("matrix", "limit", "said"),
    [
        ({"rate": "5/s"}, 20_000, "10000 at once: raise the limit (ulimit -Hn), or pass --set in_flight_max=8896"),
        (
            {"concurrency": 5000},
            4096,
            "5000 at once: raise the limit (ulimit -Hn), or pass --set matrix.concurrency=984",
        ),
        ({"concurrency": 5000}, 100, "5000 at once: raise the limit (ulimit -Hn)"),
    ],
)
def test_a_server_that_lacks_open_files_says_how_many_at_once_it_has_room_for(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, matrix: dict[str, object], limit: int, said: str
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, limit))
    lacks = "ended with exit code 2 before it was ready; its last log line: 22147 open files are needed"
    world.fails_at = {1: ServerDied(lacks), 2: ServerDied("ended")}
    asked = question(matrix={"operation": "read", "file_size": 1024, **matrix}, servers=["one", "two"])
    rows = run(asked, seed=3, out=tmp_path, tools=world.tools()).rows
    found = [row["server_findings"][0]["text"] for row in rows[:2]]
    assert found == [f"did not start, as {limit} open files are too few for {said}", "ended"]
    assert rows[0]["verdict_reason"] == f"{rows[0]['server']}: {found[0]}", "and so in the line of the trial"


def test_a_quick_run_of_several_trials_is_not_invalid_by_its_generator_and_probes_for_a_short_time(
    world: World, tmp_path: Path
) -> None:
    world.late_ns = 60_000_000
    rows = run(question().quick(keeps_trials=True), seed=3, out=tmp_path, tools=world.tools()).rows
    assert [row["verdict"] for row in rows] == ["valid"] * 8
    assert world.window_ns == QUICK.window_ns


def fails_to_start(name: str, times: set[int]) -> dict[int, Exception]:
    """Which starts of the fake world are those of a server, counted from 1, in the order of seed 3."""
    whole = plan(question(), (contender("one"), contender("two")), 3)
    orders = [trial.order for trial in whole.trials if trial.contender.name == name]
    return {orders[time - 1]: ServerNotReady(f"{name}: did not answer") for time in times}


def test_a_server_is_left_out_after_two_failed_starts_in_a_row(world: World, tmp_path: Path) -> None:
    world.fails_at = fails_to_start("two", {1, 2})
    events: list[Event] = []
    report = run(question(), seed=3, out=tmp_path, tools=world.tools(), on_event=events.append)
    assert [row["server"] for row in report.rows].count("two") == 2
    assert [row["verdict"] for row in report.rows if row["server"] == "one"] == ["valid"] * 4
    (event,) = (event for event in events if isinstance(event, ServerLeftOut))
    assert (event.left_out.reason, event.left_out.not_done, event.is_last) == ("did not answer", 2, False)
    manifest = json.loads((report.folder / "manifest.json").read_text())
    assert [each["server"] for each in manifest["left_out"]] == ["two"]


def test_a_start_between_two_failed_ones_keeps_a_server_in(world: World, tmp_path: Path) -> None:
    world.fails_at = fails_to_start("two", {1, 3})
    report = run(question(), seed=3, out=tmp_path, tools=world.tools())
    assert len(report.rows) == 8
    assert "left_out" not in json.loads((report.folder / "manifest.json").read_text())


def test_what_fails_after_the_start_leaves_no_server_out(world: World, tmp_path: Path) -> None:
    world.load_fails_at = dict.fromkeys(range(1, 9), ServerNotReady("one: took 0 of the 2 files that are to be read"))
    assert len(run(question(), seed=3, out=tmp_path, tools=world.tools()).rows) == 8


def test_a_run_ends_when_no_server_is_left(world: World, tmp_path: Path) -> None:
    world.fails_at = dict.fromkeys(range(1, 9), ServerDied("it: ended with exit code 3"))
    events: list[Event] = []
    report = run(question(), seed=3, out=tmp_path, tools=world.tools(), on_event=events.append)
    assert len(report.rows) == 4
    last = [event for event in events if isinstance(event, ServerLeftOut)][-1]
    assert (last.is_last, isinstance(events[-1], measure.RunFinished)) == (True, True)


def test_resume_tries_a_server_that_was_left_out_again(world: World, tmp_path: Path) -> None:
    world.fails_at = fails_to_start("two", {1, 2})
    folder = run(question(), seed=3, out=tmp_path, tools=world.tools()).folder
    again = World(fails_at={1: ServerNotReady("two: x"), 2: ServerNotReady("two: x")})
    rows = run(question(), seed=3, out=tmp_path, resume=folder, tools=again.tools()).rows
    assert len(rows) == 8
    (left_out,) = json.loads((folder / "manifest.json").read_text())["left_out"]
    assert sorted(left_out["failed_trials"]) == sorted(row["trial"] for row in rows if row["server"] == "two")
    assert left_out["not_done"] == 0


def test_a_server_that_dies_under_load_is_an_invalid_row_with_its_figures(world: World, tmp_path: Path) -> None:
    world.dies = True
    row = run(question(trials=1), seed=3, out=tmp_path, tools=world.tools()).rows[0]
    assert (row["verdict"], row["verdict_reason"]) == ("invalid", "fake: died with SIGSEGV")
    assert row["completed"] == 4


def test_each_row_has_the_ceiling_that_was_measured_in_its_round_before_its_cell(world: World, tmp_path: Path) -> None:
    rows = run(question(), seed=3, out=tmp_path, tools=world.tools()).rows
    assert {(row["ceiling_data_pps"], row["concurrency"]) for row in rows} == {(2000.0, 1), (20_000.0, 10)}
    assert {row["ceiling_ratio"] for row in rows} == {0.5}
    assert len(world.done) == 4 * 3
    for probe, *trials in zip(*[iter(world.done)] * 3, strict=True):
        assert probe.startswith("probe")
        assert trials == [probe.replace("probe", "trial")] * 2


def test_a_trial_is_said_to_start_when_its_ceiling_has_been_measured(world: World, tmp_path: Path) -> None:
    probed: list[int] = []

    def note(event: Event) -> None:
        if isinstance(event, TrialStarted):
            probed.append(len(world.probed))

    run(question(trials=1), seed=3, out=tmp_path, tools=world.tools(), on_event=note)
    assert probed == [1, 1, 2, 2]


def test_the_probe_does_the_cells_datagrams_where_the_cell_is_measured(world: World, tmp_path: Path) -> None:
    pinning = pin(question().placement)
    run(question(trials=1), seed=3, out=tmp_path, tools=world.tools())
    work = next(work for work in world.probed if work.flows == 10)
    assert (work.operation, work.windowsize, work.blksize, work.answering_spin_us) == ("read", 1, 512, 0)
    assert (work.answering_cpus, work.asking_cpus) == (pinning.server, pinning.generator)


def test_an_arrangement_is_chosen_once_a_cell_and_kept_in_the_manifest(world: World, tmp_path: Path) -> None:
    folder = run(question(), seed=3, out=tmp_path, tools=world.tools()).folder
    assert sorted(work.flows for work in world.calibrated) == [1, 10]
    manifest = json.loads((folder / "manifest.json").read_text())
    Draft202012Validator(json_schema("manifest")).validate(manifest)
    kept = manifest["ceilings"]
    assert sorted(each["cell_key"] for each in kept) == sorted(cell.key for cell in question().cells())
    assert {(each["server_busy_polls"], each["text"]) for each in kept} == {(False, str(ARRANGEMENT))}


def test_resume_measures_with_the_arrangements_of_the_run(world: World, tmp_path: Path) -> None:
    world.load_fails_at = {6: KeyboardInterrupt()}
    with pytest.raises(RunInterrupted) as raised:
        run(question(), seed=3, out=tmp_path, tools=world.tools())
    again = World()
    report = run(question(), seed=3, out=tmp_path, resume=raised.value.report.folder, tools=again.tools())
    assert again.calibrated == []
    assert {row["ceiling_ratio"] for row in report.rows} == {0.5}


def test_a_probe_that_fails_is_a_warning_and_costs_no_trial(world: World, tmp_path: Path) -> None:
    world.probe_fails = True
    events: list[Event] = []
    rows = run(question(trials=1), seed=3, out=tmp_path, tools=world.tools(), on_event=events.append).rows
    assert [(row["ceiling_data_pps"], row["ceiling_ratio"], row["verdict"]) for row in rows] == [
        (None, None, "valid")
    ] * 4
    warnings = [event.reason for event in events if isinstance(event, CeilingUnknown)]
    assert len(warnings) == 2
    assert "open files" in warnings[0]


@pytest.mark.parametrize(("lost", "probes", "is_known"), [(2, 3, True), (3, 3, False)])
def test_a_probe_that_lost_datagrams_is_made_again_but_not_for_ever(
    world: World, tmp_path: Path, lost: int, probes: int, is_known: bool
) -> None:
    world.lost_in_probes = lost
    events: list[Event] = []
    one = question(trials=1, matrix={"operation": "read", "concurrency": 1, "file_size": 1024})
    rows = run(one, seed=3, out=tmp_path, tools=world.tools(), on_event=events.append).rows
    assert len(world.probed) == probes
    assert {row["ceiling_data_pps"] is not None for row in rows} == {is_known}
    assert [event.reason for event in events if isinstance(event, CeilingUnknown)] == (
        [] if is_known else ["datagrams were lost in each of 3 probes, the last time 1"]
    )


@pytest.mark.parametrize(("network", "host", "is_known"), [
    ("loopback", "127.0.0.1", True),
    ("loopback", "10.255.255.1", False),
    ("loopback", "::1", False),
    ("namespace", "10.255.255.1", True),
    ("namespace", "127.0.0.1", False),
    ("namespace", "fd74:6674:7000::1", False),
])  # fmt: skip
def test_a_ceiling_of_another_way_than_the_trials_is_no_figure(network: str, host: str, is_known: bool) -> None:
    found = columns({"network": network, "data_pps": 5.0}, host, 10.0)
    assert found == {"ceiling_data_pps": 10.0 if is_known else None, "ceiling_ratio": 0.5 if is_known else None}


@pytest.mark.parametrize(
    ("reached", "full", "due"), [(5.0, 7.0, 1.4), (None, 7.0, None), (0.0, 7.0, None), (5.0, None, None)]
)
def test_the_headroom_is_the_rate_of_a_full_generator_over_the_trials(
    reached: float | None, full: float | None, due: float | None
) -> None:
    assert headroom_columns({"data_pps": reached}, full) == {"generator_headroom": due}


class NoNetwork(ProbeNetwork):
    """One that is not there, though its address is known."""

    packet_refusal, requests_fd, ring_interface = "", 0, 2
    refused = ""

    def get(self) -> Any:
        if self.refused:
            raise NetworkRefused(self.refused)
        return self

    def server_address(self) -> str:
        return "10.255.255.1"


@dataclass
class NullServer:
    """What each load of a generator comes to, by its number in flight."""

    rates: dict[int, list[float]]
    busy: float = 1.0
    waits_with: tuple[int, ...] = ()
    asked: list[int] = field(default_factory=list)

    def __call__(self, config: LoadConfig, *_: object) -> Loaded:
        assert (config.sockets, config.network_fd) == ("ring", 0)
        self.asked.append(config.concurrency)
        busy = 0.5 if config.concurrency in self.waits_with else self.busy
        return Loaded(self.rates[config.concurrency].pop(0), busy, 0.5)


def in_namespaces(**matrix: object) -> tuple[Trial, ...]:
    asked = question(
        placement={"network": "namespace"}, client={"sockets": "ring"}, trials=3,
        matrix={"operation": "read", "concurrency": [1, 10], "file_size": 1024, **matrix},
    )  # fmt: skip
    able = ["blksize", "windowsize"]
    return plan(asked, (contender("one", options=able), contender("two", options=able)), 3).trials


@dataclass
class Asked:
    """Headrooms with what they kept and said."""

    trials: tuple[Trial, ...]
    null: NullServer
    network: NoNetwork = field(default_factory=NoNetwork)
    stored: object = None
    pinning: Pinning = field(default_factory=lambda: Pinning((1,), (0,), ()))
    kept: list[dict[str, object]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def found(self) -> list[float | None]:
        def load(cell: Any, host: str) -> LoadConfig:
            return LoadConfig(
                host=host, port=0, operation="read", name="", file_size_bytes=1024, concurrency=cell.concurrency,
                windowsize=cell.windowsize, blksize=cell.blksize, sockets="ring",
            )  # fmt: skip

        probes = Probes(load_null_server=self.null)
        made = Headrooms(
            self.network, self.trials, load, self.pinning, 3, 3, probes, self.stored,
            store=lambda found: self.kept.__setitem__(slice(None), found),
            warn=lambda cell, reason: self.said.append(f"{cell.concurrency}: {reason}"),
        )  # fmt: skip
        return [made.before(trial) for trial in self.trials]


def test_full_generators_are_measured_once_a_run_in_interleaved_rounds_and_kept() -> None:
    trials = in_namespaces()
    null = NullServer({1: [5.0, 1.0, 3.0], 10: [60.0, 70.0, 90.0]})
    asked = Asked(trials, null)
    found = asked.found()
    assert found == [{1: 3.0, 10: 70.0}[trial.cell.concurrency] for trial in trials]
    assert [sorted(null.asked[n : n + 2]) for n in (0, 2, 4)] == [[1, 10]] * 3
    assert len(null.asked) == 6
    assert sorted((each["data_pps"], each["text"], each["in_flight"]) for each in asked.kept) == [
        (3.0, "", 1),
        (70.0, "", 10),
    ]
    again = Asked(trials, NullServer({}), stored=json.loads(json.dumps(asked.kept)))
    assert (again.found(), again.null.asked) == (found, [])


def test_without_a_full_generator_no_headroom_is_known_and_each_cell_says_why_once() -> None:
    trials, rates = in_namespaces(), {1: [1.0] * 3, 10: [1.0] * 3, 100: [1.0] * 6}
    idle = Asked(trials, NullServer(rates, busy=0.6))
    refused = Asked(trials, NullServer({}))
    refused.network.refused = "user namespaces: EPERM"
    shared = Asked(trials, NullServer({}), pinning=Pinning((0,), (0,), ()))
    for each, why in ((idle, "busy 60%"), (refused, "user namespaces: EPERM"), (shared, "share a core")):
        assert set(each.found()) == {None}
        assert [why in text for text in each.said] == [True, True], each.said


def test_a_generator_that_few_in_flight_do_not_fill_is_filled_by_more() -> None:
    trials = in_namespaces(concurrency=[1, 1000])
    null = NullServer({1: [9.0] * 3, 100: [60.0, 80.0, 70.0], 1000: [7.0] * 3}, waits_with=(1,))
    asked = Asked(trials, null)
    assert set(asked.found()) == {70.0, 7.0}
    assert null.asked[-3:] == [100] * 3
    assert {each["in_flight"] for each in asked.kept} == {100, 1000}
    assert asked.said == []


def test_what_a_null_server_can_not_serve_has_no_headroom() -> None:
    for changes in ({"windowsize": 4}, {"blksize": 4096}):
        asked = Asked(in_namespaces(**changes), NullServer({}))
        assert (set(asked.found()), asked.said) == ({None}, [])
    over_loopback = plan(question(), (contender("one"),), 3).trials
    assert set(Asked(over_loopback, NullServer({})).found()) == {None}


def test_a_trial_without_figures_has_a_ceiling_and_no_ratio(world: World, tmp_path: Path) -> None:
    world.fails_at = {1: ServerNotReady("one: did not answer")}
    rows = run(question(trials=1), seed=3, out=tmp_path, tools=world.tools()).rows
    assert rows[0]["ceiling_data_pps"] is not None
    assert rows[0]["ceiling_ratio"] is None


def test_a_server_that_never_sleeps_has_a_ceiling_of_its_own_and_no_cpu_figure(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = contender("one")
    usual = sleeper.server
    assert isinstance(usual, Manifest)
    variants = {"spins": {"argv": ["x", "{port}", "{root}"], "busy_polls": True}}
    document = {**usual.model_dump(mode="json", by_alias=True), "variants": variants}
    spinner = Contender(Manifest.model_validate(document), "spins", Found("1", "/bin/x"))
    monkeypatch.setattr("tftpbench.measure.runner.contenders", lambda _, **_host: (sleeper, spinner))
    monkeypatch.setattr("tftpbench.measure.runner.pin", lambda _, **__: Pinning((1,), (0,), ()))
    asked = question(servers=["one", "one@spins"], trials=1)
    rows = run(asked, seed=3, out=tmp_path, tools=world.tools()).rows
    assert sorted(work.answering_spin_us for work in world.probed) == [0, 0, NEVER_SLEEP_US, NEVER_SLEEP_US]
    names = ("server_cpu_s", "server_cpu_ns_per_block", "server_busy_fraction")
    known = {row["variant"]: [row[name] is not None for name in names] for row in rows}
    assert known == {None: [True, True, True], "spins": [False, False, False]}


def test_uploads_are_compared_in_the_servers_root(world: World, tmp_path: Path) -> None:
    world.wrong_uploads = 1
    write = {"operation": "write", "concurrency": 1, "file_size": 1024}
    row = run(question(trials=1, matrix=write), seed=3, out=tmp_path, tools=world.tools()).rows[0]
    assert row["bytes_verified"] == 100 + 3 * 1024
    assert row["content_mismatches"] == 1
    assert row["verdict_reason"] == "1 transfers had wrong contents"
    assert world.configs[0].distinct_files == 0, "every upload is a file of its own"


def test_ctrl_c_discards_the_trial_it_hits_and_keeps_all_finished_ones(world: World, tmp_path: Path) -> None:
    world.load_fails_at = {4: KeyboardInterrupt()}
    with pytest.raises(RunInterrupted, match="go on with: tftpbench run --resume") as raised:
        run(question(), seed=3, out=tmp_path, tools=world.tools())
    assert raised.value.exit_code == 130
    assert len(saved(raised.value.report.folder)) == 3
    assert world.alive == 0


def test_resume_does_what_is_left_in_the_same_order(world: World, tmp_path: Path) -> None:
    whole = [row["trial"] for row in run(question(), seed=3, out=tmp_path / "whole", tools=world.tools()).rows]
    cut = World(load_fails_at={4: KeyboardInterrupt()})
    with pytest.raises(RunInterrupted) as raised:
        run(question(), seed=3, out=tmp_path / "cut", tools=cut.tools())
    folder = raised.value.report.folder
    again = World()
    report = run(question(), seed=99, out=tmp_path, resume=folder, tools=again.tools())
    assert again.starts == 5
    assert [row["trial"] for row in report.rows] == whole
    assert report.seed == 3


def test_rounds_are_added_until_the_interval_is_narrow_enough(world: World, tmp_path: Path) -> None:
    widths = iter([None, 0.5, 0.04])
    until = Until(0.05, 1e6, lambda _: next(widths))
    report = run(question(), seed=3, out=tmp_path, tools=world.tools(), until=until)
    assert [row["round"] for row in report.rows] == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    assert [row["order"] for row in report.rows] == [*range(1, 17)]
    manifest = json.loads((report.folder / "manifest.json").read_text())
    assert manifest["trials_planned"] == 16
    assert (manifest["until"]["width"], manifest["until"]["reached"]) == (0.05, 0.04)
    assert recorded_until(report.folder) == (0.05, 1e6)
    assert load_run(report.folder).problems == ()


def test_no_round_begins_that_the_budget_would_not_see_end(world: World, tmp_path: Path) -> None:
    report = run(question(), seed=3, out=tmp_path, tools=world.tools(), until=Until(0.05, 0.001, lambda _: None))
    assert len(report.rows) == 8, "the scenario's rounds are done in any case"


def test_an_added_round_that_was_cut_off_is_gone_on_with(world: World, tmp_path: Path) -> None:
    cut = World(load_fails_at={11: KeyboardInterrupt()})
    with pytest.raises(RunInterrupted) as raised:
        run(question(), seed=3, out=tmp_path, tools=cut.tools(), until=Until(0.05, 1e6, lambda _: None))
    folder = raised.value.report.folder
    assert len(raised.value.report.rows) == 10
    asked = recorded_until(folder)
    assert asked is not None
    until = Until(*asked, lambda _: 0.01)
    report = run(question(), seed=3, out=tmp_path, resume=folder, tools=world.tools(), until=until)
    assert [row["round"] for row in report.rows] == [1] * 4 + [2] * 4 + [3] * 4
    assert len({row["trial"] for row in report.rows}) == 12


def test_resume_refuses_another_scenario_and_touches_nothing(world: World, tmp_path: Path) -> None:
    folder = run(question(), seed=3, out=tmp_path, tools=world.tools()).folder
    before = saved(folder)
    with pytest.raises(ResultsError, match="was made with another version of 'order'"):
        run(question(trials=3), seed=3, out=tmp_path, resume=folder, tools=world.tools())
    with pytest.raises(ResultsError, match="is a run of 'order'"):
        run(question(name="other"), seed=3, out=tmp_path, resume=folder, tools=world.tools())
    assert saved(folder) == before


def test_a_run_can_be_read_back_for_resuming(world: World, tmp_path: Path) -> None:
    folder = run(question(), seed=3, out=tmp_path, command=["tftpbench", "x"], tools=world.tools()).folder
    assert recorded(folder) == (question(), 3, ("tftpbench", "x"))


def test_resume_refuses_trials_of_unknown_cells_and_an_altered_manifest(world: World, tmp_path: Path) -> None:
    folder = run(question(), seed=3, out=tmp_path, tools=world.tools()).folder
    lines = (folder / "trials.jsonl").read_text().splitlines()
    (folder / "trials.jsonl").write_text(json.dumps(json.loads(lines[0]) | {"cell_key": "other"}) + "\n")
    with pytest.raises(ResultsError, match=r"trial \d+ is of no cell of its scenario"):
        run(question(), seed=3, out=tmp_path, resume=folder, tools=world.tools())
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"argv": 5}))
    with pytest.raises(ResultsError, match="has no scenario and seed to go on with"):
        run(question(), seed=3, out=tmp_path, resume=folder, tools=world.tools())


def test_a_torn_line_is_told_when_a_run_goes_on(world: World, tmp_path: Path) -> None:
    folder = run(question(), seed=3, out=tmp_path, tools=world.tools()).folder
    trials = folder / "trials.jsonl"
    trials.write_bytes(trials.read_bytes()[:-1])
    events: list[measure.Event] = []
    run(question(), seed=3, out=tmp_path, resume=folder, on_event=events.append, tools=world.tools())
    assert isinstance(events[0], measure.RunStarted)
    assert "the last line was torn" in events[0].notes[0]


def test_a_generator_that_can_not_run_ends_the_run_with_what_was_finished(world: World, tmp_path: Path) -> None:
    world.load_fails_at = {3: LoadError("10100 file descriptors are needed")}
    with pytest.raises(LoadError, match="10100"):
        run(question(), seed=3, out=tmp_path, tools=world.tools())
    assert len(saved(next(tmp_path.iterdir()))) == 2
    assert world.alive == 0


def test_nothing_to_run_is_one_line_with_every_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    none_left = (contender("one", Missing("was not found", "apt install one")), contender("two", operations=["write"]))
    monkeypatch.setattr("tftpbench.measure.runner.contenders", lambda _, **_host: none_left)
    with pytest.raises(UsageError, match=r"one: was not found \(get it: apt install one\); two: has no read$"):
        run(question(), seed=3, out=tmp_path, tools=World().tools())
    assert not list(tmp_path.iterdir())


def test_the_manifest_tells_what_is_needed_to_repeat_the_run(world: World, tmp_path: Path) -> None:
    report = run(question(), seed=3, out=tmp_path, command=["tftpbench", "run", "x"], tools=world.tools())
    manifest = json.loads((report.folder / "manifest.json").read_text())
    assert manifest["seed"] == 3
    assert manifest["argv"] == ["tftpbench", "run", "x"]
    assert manifest["scenario"] == question().document()
    assert manifest["servers"]["one"]["version"] == "1"
    assert manifest["keys"].keys() == {"method_key", "host_key"}
    assert manifest["roots"]["file_system"]
    assert manifest["build"]["build_profile"] in {"release", "debug"}


@pytest.mark.parametrize(("network", "said"), [("auto", " over loopback"), ("loopback", "")])
def test_the_answer_says_loopback_where_auto_came_to_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str, said: str
) -> None:
    def refused() -> str:
        raise NetworkRefused("no veth")

    monkeypatch.setattr("tftpbench.measure.plan.packet_refusal", refused)
    placement = {"server_cpus": "all", "generator_cpus": "all", "network": network}
    report = run(question(placement=placement), seed=1, out=tmp_path, tools=world.tools())
    phrase = json.loads((report.folder / "manifest.json").read_text())["placement"]["phrase"]
    assert phrase.removesuffix(" over loopback") + said == phrase


def test_events_come_in_order_and_say_what_is_on_the_disk(world: World, tmp_path: Path) -> None:
    events: list[measure.Event] = []
    counts: list[int] = []

    def on_event(event: measure.Event) -> None:
        events.append(event)
        if isinstance(event, measure.TrialFinished):
            counts.append(len(saved(next(tmp_path.iterdir()))))

    run(question(trials=1), seed=3, out=tmp_path, on_event=on_event, tools=world.tools())
    names = [type(event).__name__ for event in events]
    assert names == ["RunStarted", *["TrialStarted", "TrialFinished"] * 4, "RunFinished"]
    assert counts == [1, 2, 3, 4]


def test_two_servers_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    same = contender("one").server
    monkeypatch.setattr("tftpbench.measure.plan.choose", lambda _: (same, None))
    monkeypatch.setattr("tftpbench.measure.plan.locate", lambda _, **_ask: SimpleNamespace())
    with pytest.raises(UsageError, match="both call themselves 'one'"):
        measure.contenders(question())


@dataclass
class Hosts(World):
    """Load hosts in the place of this machine: what they bring back is merged to one result."""

    hosts: tuple[str, ...] = ("a", "b", "c")
    is_here: bool = True
    weights: tuple[int, ...] = ()
    clock_error_ns: int = 200_000
    spread_ns: int = 900_000
    lost_at: int = 0
    """The trial in which the second host is lost; 0 for none."""

    cpus: int = 4

    @property
    def machines(self) -> tuple[dict[str, int], ...]:
        return tuple({"cpus": self.cpus} for _ in self.hosts)

    def taking(self, hosts: Sequence[str], weights: Sequence[int]) -> Self:
        self.hosts, self.weights = tuple(hosts), tuple(weights)
        return self

    def run(self, config: LoadConfig, *rest: Any) -> LoadResult:
        found = super().run(config, *rest)
        figures = {
            **found.figures, "load_hosts": len(self.hosts), "clock_error_ns_max": self.clock_error_ns,
            "start_spread_ns": self.spread_ns,
        }  # fmt: skip
        rows = {**found.transfers, "host": np.array([0, 1, 0, 1])}
        is_lost = self.lost_at and self.starts == self.lost_at
        lost = f"{self.hosts[1]}: no answer for 3 s" if is_lost else None
        return replace(
            found, figures=figures, transfers=rows, hosts_lost=lost, stopped=None if lost is None else "load host lost"
        )


def from_hosts(count: int = 2, **changes: object) -> Scenario:
    return question(generators={"hosts": count, **changes})


def test_a_trial_from_load_hosts_says_how_many_and_how_far_apart_they_were(world: World, tmp_path: Path) -> None:
    hosts = Hosts()
    assert [is_of_hosts(each) for each in (hosts, world)] == [True, False]
    folder = run(from_hosts(2, weights=[2, 1], cores=[5]), seed=3, out=tmp_path, tools=hosts.tools()).folder
    assert (hosts.hosts, hosts.weights) == (("a", "b"), (2, 1))
    assert {config.cpus for config in hosts.configs} == {(5,)}, "those of each host"
    rows = saved(folder)
    columns = ("load_hosts", "clock_error_ns_max", "start_spread_ns", "hosts_lost", "generator_cpus", "verdict")
    assert {tuple(row[name] for name in columns) for row in rows} == {(2, 200_000, 900_000, None, None, "valid")}
    assert {(row["ceiling_ratio"], row["generator_headroom"]) for row in rows} == {(None, None)}
    assert hosts.probed == [], "a ceiling of this machine is none of theirs"
    stored = load_run(folder)
    assert stored.transfers["host"].tolist()[:4] == [0, 1, 0, 1]
    assert stored.trials["load_hosts"].tolist() == [2] * 8
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["placement"]["load_hosts"] == ["a", "b"]
    assert manifest["placement"]["generator_cpus"] == []
    assert manifest["load_hosts"] == {"a": {"cpus": 4}, "b": {"cpus": 4}}
    assert manifest["keys"]["load_hosts_key"] == host_keys([{"cpus": 4}] * 2) != host_keys([{"cpus": 8}] * 2)
    Draft202012Validator(json_schema("manifest")).validate(manifest)
    Draft202012Validator(json_schema("results")).validate(rows[0])


def test_resume_refuses_other_machines_and_other_load_hosts(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run(from_hosts(2), seed=3, out=tmp_path, tools=Hosts().tools()).folder
    with pytest.raises(ResultsError, match="came from a, b, and this one would come from b, c; give the same hosts"):
        run(from_hosts(2), seed=3, out=tmp_path, resume=folder, tools=Hosts(hosts=("b", "c")).tools())
    with pytest.raises(ResultsError, match="from a, b, and this one would come from this machine"):
        run(question(), seed=3, out=tmp_path, resume=folder, tools=world.tools())
    with pytest.raises(ResultsError, match="its load hosts are other machines now"):
        run(from_hosts(2), seed=3, out=tmp_path, resume=folder, tools=Hosts(cpus=8).tools())
    run(from_hosts(2), seed=3, out=tmp_path, resume=folder, tools=Hosts().tools())
    here = {**facts(), "cpus": 77}
    monkeypatch.setattr("tftpbench.measure.runner.machine.facts", lambda: here)
    with pytest.raises(ResultsError, match=r"begun on another machine \(cpus was \d+, is 77\); start a new run"):
        run(from_hosts(2), seed=3, out=tmp_path, resume=folder, tools=Hosts().tools())


def test_only_a_load_of_several_hosts_has_other_keys(world: World, tmp_path: Path) -> None:
    here = run(question(), seed=3, out=tmp_path, tools=world.tools()).rows
    one = run(question(), seed=3, out=tmp_path, tools=Hosts(hosts=("a",)).tools())
    two = run(question(), seed=3, out=tmp_path, tools=Hosts(hosts=("a", "b")).tools())
    assert [row["cell_key"] for row in here] == [row["cell_key"] for row in one.rows]
    assert {row["cell_key"] for row in here}.isdisjoint(row["cell_key"] for row in two.rows)
    assert {row["load_hosts"] for row in here} == {1}
    kept = json.loads((two.folder / "manifest.json").read_text())["scenario"]
    assert kept["generators"]["hosts"] == 2, "all of the cluster where the scenario does not say"
    assert two.plan.trials[0].cell.label.endswith(", from 2 load hosts")
    with pytest.raises(
        NotComparable, match=r"measured over loopback, and .* from 2 load hosts, so their figures can't"
    ):
        compare(one.folder, two.folder)


def test_every_table_and_sentence_says_from_how_many_load_hosts(world: World, tmp_path: Path) -> None:
    del world
    stored = load_run(run(from_hosts(2), seed=3, out=tmp_path, tools=Hosts().tools()).folder)
    answer = summary.answer_of(stored)
    assert "from 2 load hosts" in answer.sentence
    assert answer.conditions.endswith(", loaded from 2 hosts.")
    assert all(line.label.endswith("from 2 load hosts") for line in answer.lines)
    contents = contents_of(stored)
    for table in (contents.headline, contents.cost, contents.trials):
        assert all(any("from 2 load hosts" in value.text for value in row) for row in table.rows), table.name
    assert "clock error" in [heading.title for heading in contents.trials.headings]
    assert Fact("load hosts", "a, b") in contents.facts["Placement"]
    assert answer.to_frame()["load_hosts"].tolist() == [2] * 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clock_error_ns": 6_200_000}, "clocks apart: those of hosts are known to within 6.2 ms"),
        ({"spread_ns": 7_100_000}, "started late: a load host began up to 7.1 ms off the common start"),
    ],
)
def test_load_hosts_that_were_apart_make_a_trial_invalid_and_the_run_goes_on(
    world: World, tmp_path: Path, changes: dict[str, int], said: str
) -> None:
    del world
    rows = run(from_hosts(2), seed=3, out=tmp_path, tools=Hosts(**changes).tools()).rows  # type: ignore[arg-type]
    assert {(row["verdict"], row["verdict_reason"]) for row in rows} == {("invalid", said)}
    assert len(rows) == 8


def test_a_lost_load_host_ends_the_run_with_its_trial_kept_as_invalid(world: World, tmp_path: Path) -> None:
    del world
    events: list[Event] = []
    command = ["tftpbench", "run", "x", "--dask", "tls://h:8786", "--seed", "3"]
    with pytest.raises(HostsError) as raised:
        run(from_hosts(2), seed=3, out=tmp_path, command=command, tools=Hosts(lost_at=3).tools(),
            on_event=events.append)  # fmt: skip
    [folder] = tmp_path.iterdir()
    assert raised.value.exit_code == 3
    assert str(raised.value) == (
        f"load host lost: b: no answer for 3 s; 3 of 8 trials are finished, in {folder}; "
        f"go on with: tftpbench run --resume {folder} --dask tls://h:8786"
    )
    rows = saved(folder)
    assert [row["verdict"] for row in rows] == ["valid", "valid", "invalid"]
    assert (rows[2]["hosts_lost"], rows[2]["verdict_reason"]) == (
        "b: no answer for 3 s", "load host lost: b: no answer for 3 s",
    )  # fmt: skip
    assert events[-1] == measure.RunFinished(folder, interrupted=True)
    assert not any(isinstance(event, ServerLeftOut) for event in events), "it is not the server's doing"
    again = Hosts()
    elsewhere = ["tftpbench", "run", "--dask", "tls://i:1", "--dask-ca", "c.pem"]
    rest = run(recorded(folder)[0], seed=9, out=tmp_path, resume=folder, command=elsewhere, tools=again.tools())
    assert (again.starts, len(rest.rows)) == (5, 8)
    assert [row["verdict"] for row in rest.rows].count("invalid") == 1, "and it stays"
    assert rest.command == ("tftpbench", "run", "x", "--seed", "3", "--dask", "tls://i:1", "--dask-ca", "c.pem")


def test_what_this_machine_does_is_no_part_of_a_load_from_elsewhere_on_a_server_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    target = Contender(Target("192.0.2.1", 69, None), None, Found("", ""))
    monkeypatch.setattr("tftpbench.measure.runner.contenders", lambda _, **_host: (target,))
    hosts = Hosts(is_here=False, late_ns=60_000_000)
    monkeypatch.setattr(TargetFiles, "running", lambda *_: FakeRunning(hosts))
    asked = from_hosts(2).with_servers(["tftp://192.0.2.1:69"])
    asked = Scenario.from_dict({**asked.document(), "matrix": {"operation": "write", "file_size": 9, "concurrency": 3}})
    monkeypatch.setattr("tftpbench.measure.trial.compared_uploads", lambda *_: ({}, ()))
    tools = replace(hosts.tools(), calibrate=lambda _: pytest.fail("no server runs here"))
    rows = run(asked, seed=3, out=tmp_path, tools=tools, allow_remote=True).rows
    names = ("steal_fraction", "cpu_pressure_fraction", "throttled_ns", "calibration_user_ns", "udp_drops_host")
    assert {tuple(row[name] for name in names) for row in rows} == {(None,) * 5}
    assert {(row["verdict"], row["runner_gap_ns_max"]) for row in rows} == {("valid", 0)}
    steps = [(config.transfers, config.concurrency) for config in hosts.configs[:2]]
    assert steps == [(1, 1), (None, 3)], "the first step towards another machine comes from the hosts, too"


class FakeRunning(RunningServer):
    """One that answers, and whose load is the fake one."""

    def __init__(self, world: World) -> None:
        super().__init__(Target("192.0.2.1", 69, None))
        self.world = world

    def start(self) -> None:
        self.world.alive, self.silent_s = 1, 0.0

    def stop(self, _grace_s: float = 0) -> None:
        self.world.alive = 0
