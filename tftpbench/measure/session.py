"""A fresh server and the load on it: what a trial is made of, and what the gate loads in turn.

It must never judge, print, or keep a server.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from tftpbench.host.brake import USUAL, Limits, approach, at_once, braked, leaves_machine
from tftpbench.host.conditions import Diagnosis, Needs, in_brief
from tftpbench.host.effects import Calibration, calibrate
from tftpbench.host.generator import (
    LoadConfig,
    LoadGenerator,
    LoadResult,
    LocalGenerator,
    Progress,
    Stop,
    best_sockets,
    in_network,
    is_of_hosts,
    machine_name,
    read_back,
)
from tftpbench.host.looks import FILES_PER_TRANSFER, OTHER_FILES
from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.host.pinning import Pinning
from tftpbench.host.server import RunningServer, UdpCounts
from tftpbench.host.server_host import (
    Edges,
    LocalServerHost,
    RootFolders,
    Server,
    ServerHost,
    Stored,
    is_other_host,
)
from tftpbench.host.target import Target
from tftpbench.measure import findings
from tftpbench.measure.ceilings import Probes
from tftpbench.measure.files import TargetFiles, keeps_its_files, upload_config
from tftpbench.measure.findings import ServerFinding
from tftpbench.measure.plan import LISTENS_ON, Trial
from tftpbench.measure.rows import Row, busy_poll_us, since
from tftpbench.model.axes import BLKSIZE_DEFAULT, WINDOWSIZE_DEFAULT
from tftpbench.model.boot import not_comparable
from tftpbench.model.errors import HostsError, LoadError, ServerDied
from tftpbench.model.metrics import BOOT_OUTCOMES
from tftpbench.model.workload import DEADLINE_NS, Cell, Shaped

# To a server a transfer goes on until it has seen the last ACK; until then the client's next one is one more. So its
# limit is lifted to twice the concurrency, but not by more than ever overlapped so.
HEAD_ROOM_MIN, HEAD_ROOM_MAX = 16, 1024
# Some servers acknowledge the last block before they have written it: that much later it must be there.
SETTLE_S = 1.0
# Datagrams that the server has not read when the load has ended: nothing else keeps it from them.
COUNTS_SETTLE_S, COUNTS_STEP_S = 0.2, 0.005
# What does not come back by then is not compared: it may be that nothing does.
READ_BACK_NS_MAX = 20_000_000_000
# With verify: sample, every so many-th upload is compared.
SAMPLE_EVERY = 16


@dataclass(frozen=True)
class Tools:
    """The ways in which a trial touches the world; tests replace them.

    `generator`: one on another machine is a class with `run`, which sends the configuration there, announces the window
    in this machine's time, and brings the result back; of several machines a `HostsLoad`. `host`: another machine for
    servers is a class with the methods of `ServerHost`; its servers read what they used by their own clock, at the
    window's edges. `probes` are of this machine: a row of a server, or a load, elsewhere has no ceiling. `conditions`:
    what is found of this machine before; `calibrate`: how long fixed work takes on it before each trial.
    """

    generator: LoadGenerator = field(default_factory=LocalGenerator)
    host: ServerHost = field(default_factory=LocalServerHost)
    probes: Probes = field(default_factory=Probes)
    conditions: Callable[[Needs], Sequence[Diagnosis]] = in_brief
    calibrate: Callable[[Sequence[int]], Calibration | None] = calibrate

    @property
    def is_from_hosts(self) -> bool:
        """Whether the load comes from hosts of a cluster, and none of it from this machine."""
        return is_of_hosts(self.generator)

    def at_hand(self, config: LoadConfig) -> tuple[LoadConfig, LoadGenerator]:
        """What puts files at a server, or reads them back, unmeasured: never load hosts, which begin seconds later."""
        return (replace(config, cpus=()), LocalGenerator()) if self.is_from_hosts else (config, self.generator)


@dataclass(frozen=True)
class Bench:
    """What stays the same for all trials of a run.

    The folders of `roots` and the server's cores of `pinning` are those of the server's host. Where the load comes from
    hosts, they choose their cores themselves.
    """

    roots: RootFolders
    target_files: TargetFiles
    pinning: Pinning
    seed: int
    tools: Tools
    allow_remote: bool = False
    is_quick: bool = False
    """Whether no rate is judged."""
    limits: Limits = USUAL
    approached: dict[str, int] = field(default_factory=dict)
    """Other machines, and how many at once they have shown that they bear."""

    def folder_of(self, trial: Trial) -> AbstractContextManager[Path]:
        """The folder that the trial's server serves, as nothing has used it; empty where it keeps files elsewhere."""
        return self.roots.fresh(trial.cell, empty=keeps_its_files(trial.contender.server))


def server_of(trial: Trial, bench: Bench, root: Path, log: Path, host: str = LISTENS_ON) -> Server:
    """The trial's server, not yet started; `host` is where one of ours shall listen, unless it is on another host."""
    cell, server = trial.cell, trial.contender.server
    if is_other_host(bench.tools.host):
        host = bench.tools.host.address
    if isinstance(server, Target):
        return bench.target_files.running(server, trial)
    return bench.tools.host.server(
        server,
        root=root,
        log=log,
        host=host,
        concurrency=cell.concurrency + _head_room(cell.concurrency),
        write=cell.writes or keeps_its_files(server),
        variant=trial.contender.variant,
        cpus=bench.pinning.server,
        in_network=cell.placement.network == "namespace",
    )


def _head_room(concurrency: int) -> int:
    return HEAD_ROOM_MIN + min(concurrency, HEAD_ROOM_MAX)


def fewer_at_once(cell: Cell, open_files: int) -> str:
    """How to ask for so few that a server has room for them within a limit of open files, as in "--set KEY=N"."""
    room = (open_files - OTHER_FILES) // FILES_PER_TRANSFER - HEAD_ROOM_MIN
    fits = min(cell.concurrency - 1, max(room // 2, room - HEAD_ROOM_MAX))
    key = "in_flight_max" if cell.open_loop else "matrix.concurrency"
    return f"--set {key}={fits}" if fits > 0 else ""


def load_config(trial: Trial, bench: Bench, server: Server, stop: Stop) -> LoadConfig:
    """The load of the trial. Where files must be uploaded before they can be read, that is done now.

    What boots is read from the plan: their roots hold it already.
    """
    config = load_of(trial.cell, bench, server.host, server.port)
    config = braked(config if server.network is None else in_network(config, server.network), bench.limits)
    if is_other_host(bench.tools.host):  # asked for; and what a server of ours fails at is a finding
        config = replace(config, allow_remote=True, stops_when_failing=False)

    def upload(name: str, number: int) -> LoadResult:
        asked = upload_config(config, name, number)
        approach_once(asked, bench, stop)
        asked, generator = bench.tools.at_hand(asked)
        return generator.run(asked, stop)

    files = bench.target_files.of(trial, upload)
    if files.shares and isinstance(trial.contender.server, Target) and not_comparable(files.shares):
        config = replace(config, verify="off", size_is_known=False)
    config = replace(
        config,
        name=files.name,
        distinct_files=files.distinct,
        verify_against=files.contents,
        boots=files.shares,
    )
    return config if server.network is None else in_network(config, server.network)


def approach_once(config: LoadConfig, bench: Bench, stop: Stop) -> None:
    """Before a load on another machine that is larger than it has borne: by the steps that lie between.

    None of those to a server of ours on another host, which is there to be overloaded. Raises LoadError where it does
    not bear one, HostsError where a load host is lost.
    """
    where = f"{config.host}:{config.port}"
    borne = bench.approached.get(where, 0)
    if not leaves_machine(config) or is_other_host(bench.tools.host) or at_once(config) <= borne:
        return

    held = approach(config, lambda step: bench.tools.generator.run(step, stop), borne)
    if held is not None and held.result.hosts_lost:
        raise HostsError(f"load host lost: {held.result.hosts_lost}; no more was sent to {where}")
    if held is not None:
        raise LoadError(f"{where}: {held.why}; see what it says, or ask with: tftpbench load")
    bench.approached[where] = at_once(config)


def run_watched(
    config: LoadConfig,
    stop: Stop,
    bench: Bench,
    server: Server,
    on_progress: Callable[[Progress], object] | None = None,
) -> tuple[LoadResult, Edges]:
    """Run the load; its result, and the server's readings where the measured window opened and closed.

    The result's `runner_gap_ns_max` holds how late they were, too: a figure that was read late is not the window's.
    """
    window = MeasuredWindow()
    with server.edges(window, bench.pinning.spare) as edges:
        result = bench.tools.generator.run(config, stop, window, on_progress)
    late_ns = result.figures.get("runner_gap_ns_max") or 0
    if not (bench.tools.is_from_hosts and isinstance(server, RunningServer)):  # nothing of it is read here
        late_ns = max(late_ns, edges.late_ns(window.edges_ns))
    figures = {**result.figures, "runner_gap_ns_max": late_ns}
    if edges.clock_error_ns is not None:
        figures["clock_error_ns_max"] = max(figures.get("clock_error_ns_max") or 0, edges.clock_error_ns)
    return replace(result, figures=figures), edges


def compared_uploads(
    trial: Trial, bench: Bench, root: Path, config: LoadConfig, result: LoadResult
) -> tuple[Row, tuple[ServerFinding, ...]]:
    """Compare what was written: columns, and whether some could not be compared. Reads were compared as they came."""
    cell = trial.cell
    if not cell.writes or cell.verify == "off":
        return {}, ()
    if keeps_its_files(trial.contender.server):
        if cell.shares:
            return {}, ()  # a boot's are out of reach: read back they would be another boot's work
        asked, generator = bench.tools.at_hand(replace(config, limit_ns=READ_BACK_NS_MAX))
        back = read_back(asked, result, generator=generator)
        lost = back.files - back.compared
        finding = (findings.of_uploads(lost, back.files),) if lost else ()
        return {"bytes_verified": back.bytes, "content_mismatches": back.mismatches}, finding
    written = _written(trial, root, config, result)[:: SAMPLE_EVERY if cell.verify == "sample" else 1]
    wrong = bench.tools.host.wrong(written, bench.seed)
    deadline = time.monotonic() + SETTLE_S
    while wrong and time.monotonic() < deadline:
        wrong = bench.tools.host.wrong(wrong, bench.seed)
    figures = result.figures
    right = sum(each.size_bytes for each in written) - sum(each.size_bytes for each in wrong)
    verified = (figures.get("bytes_verified") or 0) + right
    mismatches = (figures.get("content_mismatches") or 0) + len(wrong)
    return {"bytes_verified": verified, "content_mismatches": mismatches}, ()


class Counted(NamedTuple):
    """What was counted of UDP in a server's own network; None where it has none, or that is gone.

    `strays`: datagrams that came to the generator's side of it and found no socket.
    """

    udp: UdpCounts | None
    strays: int | None

    @classmethod
    def of(cls, server: Server) -> "Counted":
        """So far."""
        return cls(server.udp_counts(), server.strays())

    def now(self, server: Server, result: LoadResult) -> "Counted":
        """What the load since then came to; a datagram counts when it is read, so that is waited for shortly."""
        return Counted(_settled(server, self.udp, result), since(server.strays(), self.strays))


def _settled(server: Server, before: UdpCounts | None, result: LoadResult) -> UdpCounts | None:
    deadline = time.monotonic() + COUNTS_SETTLE_S
    while before is not None and (now := server.udp_counts()) is not None:
        counts = now.since(before)
        sent, received = (result.figures.get(name) for name in ("datagrams_sent", "datagrams_received"))
        is_even = sent is None or (counts.arrived >= sent and counts.sent <= (received or 0))
        if is_even or time.monotonic() > deadline:
            return counts
        time.sleep(COUNTS_STEP_S)
    return None


def how_lost(server: Server) -> ServerDied | None:
    """How it died, if it has."""
    try:
        server.check_alive()
    except ServerDied as error:
        return error
    return None


def load_of(cell: Cell, bench: Bench, host: str, port: int) -> LoadConfig:
    """The load of the cell, on files of any name; of a boot, its steps say what is asked for instead."""
    return LoadConfig(
        host=host,
        port=port,
        allow_remote=bench.allow_remote,
        operation="read" if cell.is_boots else cell.operation,
        name="",
        file_size_bytes=cell.file_size_bytes or 0,
        size_is_known=True,
        concurrency=cell.concurrency,
        rate_per_s=cell.rate_per_s,
        arrivals=cell.arrivals or "even",
        deadline_ns=cell.open_loop.deadline_ns if cell.open_loop else DEADLINE_NS,
        over_ns=cell.over_ns,
        spread=cell.spread or "even",
        shape=cell.load.pieces if isinstance(cell.load, Shaped) else (),
        rows=cell.rows,
        seed=bench.seed,
        verify=cell.verify,
        workers=min(cell.client.workers, cell.concurrency),
        cpus=cell.generators.cores if cell.generators else bench.pinning.generator,
        transfers=cell.transfers if cell.machines_asked is None else cell.machines_asked,
        duration_ns=cell.duration_ns,
        warm_up_ns=cell.warm_up_ns,
        limit_ns=cell.limit_ns,
        drain_ns=cell.drain_ns,
        ramp_ns=cell.client.ramp_ns,
        blksize=cell.blksize or BLKSIZE_DEFAULT,
        windowsize=cell.windowsize or WINDOWSIZE_DEFAULT,
        tsize=cell.client.tsize,
        timeout_option_s=cell.client.timeout_option_s,
        rollover=cell.client.rollover,
        timeout_ns=cell.client.timeout_ns,
        retries=cell.client.retries,
        backoff=cell.client.backoff,
        sockets=best_sockets(host) if cell.client.sockets == "auto" else cell.client.sockets,
        busy_poll_us=busy_poll_us(cell, bench.pinning),
    )


def _written(trial: Trial, root: Path, config: LoadConfig, result: LoadResult) -> list[Stored]:
    """What completed transfers, or machines that booted, have written; of several to one name the last counts."""
    shares = trial.cell.shares
    if not shares:
        size = config.file_size_bytes
        return [Stored(root / config.name.format(n=number), number, size) for number in result.completed_numbers]
    booted = result.boots["outcome"] == BOOT_OUTCOMES.index("booted")
    found = {}
    for machine, share in zip(*(result.boots[name][booted].tolist() for name in ("machine", "share")), strict=True):
        for step in shares[share].steps:
            if step.operation == "write":
                path = root / machine_name(step.name, machine).lstrip("/")
                found[path] = Stored(path, step.file, step.size_bytes or 0)
    return [*found.values()]
