"""One trial: a fresh root, a fresh server, one load, and the row of results that comes of it.

Whatever the server does wrong is part of the row; only a fault of ours, or Ctrl-C, leaves here as an exception, and
then too nothing stays behind. It must never print, and never start a second server beside the first. Called by the
runner.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tftpbench import checks, findings, loadgen
from tftpbench.columns import COLUMNS
from tftpbench.errors import ServerDied, ServerError
from tftpbench.findings import ServerFinding
from tftpbench.loadgen import LoadConfig, LoadResult, Stop
from tftpbench.process import RunningServer, ServerProcess, answers, udp_drops_host
from tftpbench.runner import ceilings
from tftpbench.runner.ceilings import Probes
from tftpbench.runner.files import TargetFiles, keeps_its_files, upload_config
from tftpbench.runner.order import Trial
from tftpbench.runner.placement import Pinning
from tftpbench.runner.roots import Roots
from tftpbench.runner.rows import Observed, Row, busy_poll_us, row_of, server_columns
from tftpbench.scenario import Cell
from tftpbench.servers import Target

# To a server a transfer goes on until it has seen the last ACK; until then the client's next one is one more. So its
# limit is lifted to twice the concurrency, but not by more than ever overlapped so.
HEAD_ROOM_MIN, HEAD_ROOM_MAX = 16, 1024
# The load is over: a server that would linger over finished transfers (dallying) is not waited for.
STOP_GRACE_S = 0.3
# One that lost transfers is asked once more; a server that is only slow gets to it within this.
DEAF_TIMEOUT_S = 2.0
# Some servers acknowledge the last block before they have written it: that much later it must be there.
SETTLE_S = 1.0
# What does not come back by then is not compared: it may be that nothing does.
READ_BACK_NS_MAX = 20_000_000_000
# With verify: sample, every so many-th upload is compared.
SAMPLE_EVERY = 16


@dataclass(frozen=True)
class Tools:
    """The ways in which a trial touches the world; tests replace them."""

    server: Callable[..., ServerProcess] = ServerProcess
    run_load: Callable[[LoadConfig, Stop, Callable[[str], object]], LoadResult] = loadgen.run_load
    write_contents: Callable[[Path, int, int, int], None] = loadgen.write_contents
    first_difference: Callable[[Path, int, int, int], int | None] = loadgen.first_difference
    answers: Callable[[str, int, float], bool] = answers
    probes: Probes = field(default_factory=Probes)


@dataclass(frozen=True)
class Bench:
    """What stays the same for all trials of a run."""

    roots: Roots
    target_files: TargetFiles
    pinning: Pinning
    seed: int
    tools: Tools
    allow_remote: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a trial leaves: its row, what is wrong with it, and the raw material for its files."""

    row: Row
    findings: tuple[checks.Finding, ...]
    result: LoadResult | None
    server_log: bytes


def run_trial(trial: Trial, bench: Bench, ceiling_data_pps: float | None = None) -> Outcome:
    """Do the trial. Raises LoadError where the generator itself can't run."""
    row = row_of(trial, bench.pinning)
    log = bench.roots.base / "server.log"
    log.unlink(missing_ok=True)
    with bench.roots.fresh(trial.cell, empty=keeps_its_files(trial.contender.server)) as root:
        try:
            seen = _measure(trial, bench, root, log)
        except ServerError as error:
            finding = findings.of_a_lost_server(_unnamed(error, trial), died=isinstance(error, ServerDied))
            row["server_findings"] = [asdict(finding)]
            row |= ceilings.columns(row, None, ceiling_data_pps)
            found = checks.findings(row, checks.Surroundings(server_lost=str(error)))
            return _outcome(row, found, None, log)
    row |= {name: value for name, value in seen.result.figures.items() if name in COLUMNS} | seen.uploads
    row["unanswered"] = findings.unanswered(seen.result.transfers)
    row |= server_columns(seen, len(bench.pinning.server), busy_polls=trial.contender.busy_polls)
    row |= ceilings.columns(row, seen.config.host, ceiling_data_pps)
    died = _unnamed(seen.lost, trial) if seen.lost is not None else None
    wrong = findings.of_a_load(row, seen.result.transfers, seen.config.timeout_ns, died=died, is_deaf=seen.is_deaf)
    row["server_findings"] = [asdict(finding) for finding in (*wrong, *seen.not_read_back)]
    around = checks.Surroundings(
        mean_transfer_ns=seen.result.figures.get("transfer_ns_mean"),
        steal_fraction=seen.stolen[0] / seen.stolen[1] if seen.stolen[1] else 0.0,
        steal_ticks=seen.stolen[0],
        server_lost=str(seen.lost) if seen.lost is not None else None,
        debug_build=loadgen.IS_DEBUG_BUILD,
    )
    return _outcome(row, checks.findings(row, around), seen.result, log)


def _measure(trial: Trial, bench: Bench, root: Path, log: Path) -> Observed:
    stop = Stop()
    with _server(trial, bench, root, log) as server:
        config = _load_config(trial, bench, server, stop)
        ready = server.usage()  # after uploads that the load needs, for they are no part of it
        cores = sorted({*bench.pinning.server, *bench.pinning.generator})
        before = _stolen_ticks(cores)
        dropped = udp_drops_host()
        edges: list[tuple[int | None, int | None]] = []  # of the window: CPU time, context switches
        # The sampler looks five times a second at most, from a core of its own if there is one.
        with server.sampler(bench.pinning.spare or bench.pinning.generator, stop.request) as sampler:
            result = bench.tools.run_load(
                config, stop, lambda _edge: edges.append((server.cpu_ns(), server.context_switches()))
            )
        after = _stolen_ticks(cores)
        lost = _how_lost(server)
        uploads, not_read_back = _uploads(trial, bench, root, config, result) if lost is None else ({}, ())
        return Observed(
            config=config,
            result=result,
            ready=ready,
            cpu_ns=(edges[0][0], edges[1][0]),
            context_switches=edges[1][1],
            udp_drops_host=(udp_drops_host(), dropped),
            samples=sampler.samples,
            buffers=server.buffers,
            lost=lost,
            is_deaf=lost is None and _is_deaf(server, result, bench.tools),
            uploads=uploads,
            not_read_back=not_read_back,
            ended=server.stop(STOP_GRACE_S),
            stolen=(after[0] - before[0], after[1] - before[1]),
        )


def _server(trial: Trial, bench: Bench, root: Path, log: Path) -> ServerProcess | RunningServer:
    cell, server = trial.cell, trial.contender.server
    if isinstance(server, Target):
        return RunningServer(server)
    return bench.tools.server(
        server,
        root=root,
        log=log,
        concurrency=cell.concurrency + HEAD_ROOM_MIN + min(cell.concurrency, HEAD_ROOM_MAX),
        write=cell.operation == "write" or keeps_its_files(server),
        variant=trial.contender.variant,
        cpus=bench.pinning.server,
    )


def _how_lost(server: ServerProcess | RunningServer) -> ServerDied | None:
    try:
        server.check_alive()
    except ServerDied as error:
        return error
    return None


def _unnamed(error: ServerError, trial: Trial) -> str:
    """What went wrong, for a row that names the server already."""
    return str(error).removeprefix(f"{trial.contender.server.name}: ")


def _is_deaf(server: ServerProcess | RunningServer, result: LoadResult, tools: Tools) -> bool:
    """Whether a server that lost transfers answers nobody any more."""
    if result.figures.get("completed") == result.figures.get("started"):
        return False
    return not tools.answers(server.host, server.port, DEAF_TIMEOUT_S)


def _load_config(trial: Trial, bench: Bench, server: ServerProcess | RunningServer, stop: Stop) -> LoadConfig:
    config = _any_load(trial.cell, bench, server.host, server.port)

    def upload(name: str, number: int) -> LoadResult:
        return bench.tools.run_load(upload_config(config, name, number), stop, lambda _edge: None)

    files = bench.target_files.of(trial, upload)
    return replace(config, name=files.name, distinct_files=files.distinct, verify_against=files.contents)


def _any_load(cell: Cell, bench: Bench, host: str, port: int) -> LoadConfig:
    """The load of the cell, on files of any name."""
    return LoadConfig(
        host=host,
        port=port,
        allow_remote=bench.allow_remote,
        operation=cell.operation,
        name="",
        file_size_bytes=cell.file_size_bytes,
        concurrency=cell.concurrency,
        seed=bench.seed,
        verify=cell.verify,
        workers=min(cell.client.workers, cell.concurrency),
        cpus=bench.pinning.generator,
        transfers=cell.transfers,
        duration_ns=cell.duration_ns,
        warm_up_ns=cell.warm_up_ns,
        limit_ns=cell.limit_ns,
        ramp_ns=cell.client.ramp_ns,
        blksize=cell.blksize,
        windowsize=cell.windowsize,
        tsize=cell.client.tsize,
        timeout_option_s=cell.client.timeout_option_s,
        rollover=cell.client.rollover,
        timeout_ns=cell.client.timeout_ns,
        retries=cell.client.retries,
        backoff=cell.client.backoff,
        sockets=loadgen.best_sockets(host) if cell.client.sockets == "auto" else cell.client.sockets,
        busy_poll_us=busy_poll_us(cell, bench.pinning),
    )


def _uploads(
    trial: Trial, bench: Bench, root: Path, config: LoadConfig, result: LoadResult
) -> tuple[Row, tuple[ServerFinding, ...]]:
    """Compare what was written: columns, and whether some could not be compared. Reads were compared as they came."""
    cell = trial.cell
    if cell.operation == "read" or cell.verify == "off":
        return {}, ()
    if keeps_its_files(trial.contender.server):
        back = loadgen.read_back(replace(config, limit_ns=READ_BACK_NS_MAX), result)
        lost = back.files - back.compared
        finding = (findings.of_uploads(lost, back.files),) if lost else ()
        return {"bytes_verified": back.bytes, "content_mismatches": back.mismatches}, finding
    numbers = result.completed_numbers[:: SAMPLE_EVERY if cell.verify == "sample" else 1]
    wrong = [number for number in numbers if _differs(bench, root, config, number)]
    deadline = time.monotonic() + SETTLE_S
    while wrong and time.monotonic() < deadline:
        wrong = [number for number in wrong if _differs(bench, root, config, number)]
    figures = result.figures
    verified = (figures.get("bytes_verified") or 0) + (len(numbers) - len(wrong)) * cell.file_size_bytes
    mismatches = (figures.get("content_mismatches") or 0) + len(wrong)
    return {"bytes_verified": verified, "content_mismatches": mismatches}, ()


def _differs(bench: Bench, root: Path, config: LoadConfig, number: int) -> bool:
    path = root / config.name.format(n=number)
    try:
        return bench.tools.first_difference(path, bench.seed, number, config.file_size_bytes) is not None
    except OSError:
        return True  # absent, or not for reading: not what a completed upload must be


def _stolen_ticks(cores: Sequence[int]) -> tuple[int, int]:
    """Ticks that the hypervisor took from the cores, and all their ticks so far (proc_stat(5))."""
    stolen = total = 0
    wanted = {f"cpu{core}" for core in cores}
    try:
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0, 0
    for name, *fields in (line.split() for line in lines):
        if name in wanted:
            ticks = [int(field) for field in fields[:8]]  # guest time, which follows, is in user time already
            stolen, total = stolen + ticks[7], total + sum(ticks)
    return stolen, total


def _outcome(row: Row, found: tuple[checks.Finding, ...], result: LoadResult | None, log: Path) -> Outcome:
    row["verdict"], row["verdict_reason"] = checks.verdict(found)
    try:
        server_log = log.read_bytes()
    except OSError:
        server_log = b""
    return Outcome(row, found, result, server_log)
