"""One trial: a fresh root, a fresh server, one load, and the row of results that comes of it.

Whatever the server does wrong is part of the row; only a fault of ours, or Ctrl-C, leaves here as an exception, and
then too nothing stays behind. It must never print, and never start a second server beside the first. Called by the
runner.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tftpbench import checks, loadgen
from tftpbench.columns import COLUMNS
from tftpbench.errors import ServerDied, ServerError
from tftpbench.loadgen import LoadConfig, LoadResult, Stop
from tftpbench.process import Ended, Samples, ServerProcess, Usage
from tftpbench.runner.order import Trial
from tftpbench.runner.placement import Pinning
from tftpbench.runner.roots import Roots
from tftpbench.scenario import Cell

FILE_NAME = "f-{n}"
# To a server a transfer goes on until it has seen the last ACK; until then the client's next one is one more. So its
# limit is lifted to twice the concurrency, but not by more than ever overlapped so.
HEAD_ROOM_MIN, HEAD_ROOM_MAX = 16, 1024
# The load is over: a server that would linger over finished transfers (dallying) is not waited for.
STOP_GRACE_S = 0.3
# With verify: sample, every so many-th upload is compared.
SAMPLE_EVERY = 16

Row = dict[str, object]


@dataclass(frozen=True)
class Tools:
    """The ways in which a trial touches the world; tests replace them."""

    server: Callable[..., ServerProcess] = ServerProcess
    run_load: Callable[[LoadConfig, Stop, Callable[[str], object]], LoadResult] = loadgen.run_load
    write_contents: Callable[[Path, int, int, int], None] = loadgen.write_contents
    first_difference: Callable[[Path, int, int, int], int | None] = loadgen.first_difference


@dataclass(frozen=True)
class Bench:
    """What stays the same for all trials of a run."""

    roots: Roots
    pinning: Pinning
    seed: int
    tools: Tools


@dataclass(frozen=True)
class Outcome:
    """What a trial leaves: its row, what is wrong with it, and the raw material for its files."""

    row: Row
    findings: tuple[checks.Finding, ...]
    result: LoadResult | None
    server_log: bytes


@dataclass(frozen=True)
class _Observed:
    """What was seen of the server, from READY to its end."""

    config: LoadConfig
    ready: Usage
    cpu_ns: tuple[int | None, int | None]
    """When the window opened, and when it closed."""
    samples: Samples
    ended: Ended
    lost: str | None
    stolen: tuple[int, int]  # ticks, ticks of the cores in all
    buffers: tuple[int, int] | None


def run_trial(trial: Trial, bench: Bench) -> Outcome:
    """Do the trial. Raises LoadError where the generator itself can't run."""
    row = _row_of(trial, bench)
    log = bench.roots.base / "server.log"
    log.unlink(missing_ok=True)
    with bench.roots.fresh(trial.cell) as root:
        try:
            result, observed = _measure(trial, bench, root, log)
        except ServerError as error:
            found = checks.findings(row, checks.Surroundings(server_lost=str(error)))
            return _outcome(row, found, None, log)
        row |= {name: value for name, value in result.figures.items() if name in COLUMNS}
        row |= _uploads(trial.cell, bench, root, result)
        row |= _server_columns(result, observed, len(bench.pinning.server))
        row["generator_sockets"] = observed.config.sockets
        row["protocol_faults"] = [asdict(fault) for fault in result.faults]
    around = checks.Surroundings(
        mean_transfer_ns=result.figures.get("transfer_ns_mean"),
        steal_fraction=observed.stolen[0] / observed.stolen[1] if observed.stolen[1] else 0.0,
        steal_ticks=observed.stolen[0],
        server_lost=observed.lost,
        debug_build=loadgen.IS_DEBUG_BUILD,
    )
    return _outcome(row, checks.findings(row, around), result, log)


def _measure(trial: Trial, bench: Bench, root: Path, log: Path) -> tuple[LoadResult, _Observed]:
    cell, stop = trial.cell, Stop()
    server = bench.tools.server(
        trial.contender.manifest,
        root=root,
        log=log,
        concurrency=cell.concurrency + HEAD_ROOM_MIN + min(cell.concurrency, HEAD_ROOM_MAX),
        write=cell.operation == "write",
        variant=trial.contender.variant,
        cpus=bench.pinning.server,
    )
    with server:
        ready = server.usage()
        config = _load_config(cell, bench, server.host, server.port)
        cores = sorted({*bench.pinning.server, *bench.pinning.generator})
        before = _stolen_ticks(cores)
        cpu_ns: list[int | None] = []  # at both edges of the window
        # The sampler looks five times a second, from a core of its own if there is one.
        with server.sampler(bench.pinning.spare or bench.pinning.generator, stop.request) as sampler:
            result = bench.tools.run_load(config, stop, lambda _edge: cpu_ns.append(server.cpu_ns()))
        after = _stolen_ticks(cores)
        lost = _how_lost(server)
        buffers = (server.buffers.receive_bytes, server.buffers.send_bytes) if server.buffers else None
        ended = server.stop(STOP_GRACE_S)
    stolen = (after[0] - before[0], after[1] - before[1])
    return result, _Observed(config, ready, (cpu_ns[0], cpu_ns[1]), sampler.samples, ended, lost, stolen, buffers)


def _how_lost(server: ServerProcess) -> str | None:
    try:
        server.check_alive()
    except ServerDied as error:
        return str(error)
    return None


def _load_config(cell: Cell, bench: Bench, host: str, port: int) -> LoadConfig:
    return LoadConfig(
        host=host,
        port=port,
        operation=cell.operation,
        name=FILE_NAME,
        file_size_bytes=cell.file_size_bytes,
        concurrency=cell.concurrency,
        distinct_files=cell.distinct_files if cell.operation == "read" else 0,
        seed=bench.seed,
        verify=cell.verify,
        workers=min(cell.client.workers, cell.concurrency),
        cpus=bench.pinning.generator,
        transfers=cell.transfers,
        duration_ns=cell.duration_ns,
        warm_up_ns=cell.warm_up_ns,
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
        busy_poll_us=_busy_poll_us(cell, bench),
    )


def _busy_poll_us(cell: Cell, bench: Bench) -> int:
    return cell.client.busy_poll_us(own_cores=bench.pinning.separate)


def _row_of(trial: Trial, bench: Bench) -> Row:
    """The columns that are known before anything has run."""
    cell, contender = trial.cell, trial.contender
    return {
        "trial": trial.number,
        "order": trial.order,
        "round": trial.round,
        "started_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "cell_key": cell.key,
        "server": contender.manifest.name,
        "variant": contender.variant,
        "operation": cell.operation,
        "concurrency": cell.concurrency,
        "transfers": cell.transfers,
        "distinct_files": cell.distinct_files,
        "file_size_bytes": cell.file_size_bytes,
        "blksize": cell.blksize,
        "windowsize": cell.windowsize,
        "verify": cell.verify,
        "server_cpus": _numbers(bench.pinning.server),
        "generator_cpus": _numbers(bench.pinning.generator),
        "busy_poll_us": _busy_poll_us(cell, bench),
    }


def _numbers(cores: Sequence[int]) -> str:
    return ",".join(map(str, cores))


def _server_columns(result: LoadResult, seen: _Observed, cores: int) -> Row:
    """CPU time and blocks are both counted from READY, when there were none, to the end of the window."""
    opened_ns, closed_ns = seen.cpu_ns
    cpu_ns = None if closed_ns is None or seen.ready.cpu_ns is None else closed_ns - seen.ready.cpu_ns
    in_window_ns = None if closed_ns is None or opened_ns is None else closed_ns - opened_ns
    blocks, window_s = result.figures.get("blocks_to_window_end"), result.figures.get("duration_s")
    return {
        "server_busy_fraction": _share(in_window_ns, window_s, cores),
        "server_cpu_s": None if cpu_ns is None else cpu_ns / 1e9,
        "server_cpu_ns_per_block": cpu_ns / blocks if cpu_ns is not None and blocks else None,
        "server_rss_bytes_ready": seen.ready.rss_bytes,
        "server_rss_bytes_max": seen.samples.rss_bytes_max,
        "server_threads_max": seen.samples.threads_max,
        "server_fds_max": seen.samples.fds_max,
        "server_context_switches": seen.ended.context_switches,
        "server_receive_buffer_bytes": seen.buffers[0] if seen.buffers else None,
        "server_send_buffer_bytes": seen.buffers[1] if seen.buffers else None,
        "server_end": seen.ended.text,
        "server_left_over": seen.ended.left_over,
        "udp_drops_server": seen.samples.udp_drops,
    }


def _share(cpu_ns: int | None, window_s: float | None, cores: int) -> float | None:
    return cpu_ns / 1e9 / window_s / cores if cpu_ns is not None and window_s else None


def _uploads(cell: Cell, bench: Bench, root: Path, result: LoadResult) -> Row:
    """Compare what arrived in the server's root; reads were compared by the generator as they came."""
    if cell.operation == "read" or cell.verify == "off":
        return {}
    verified, wrong = result.figures.get("bytes_verified") or 0, result.figures.get("content_mismatches") or 0
    numbers = result.completed_numbers[:: SAMPLE_EVERY if cell.verify == "sample" else 1]
    for number in numbers:
        path = root / FILE_NAME.format(n=number)
        try:
            differs = bench.tools.first_difference(path, bench.seed, number, cell.file_size_bytes) is not None
        except OSError:
            differs = True  # absent, or not for reading: not what a completed upload must be
        wrong += differs
        verified += 0 if differs else cell.file_size_bytes
    return {"bytes_verified": verified, "content_mismatches": wrong}


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
