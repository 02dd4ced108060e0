"""One trial: a fresh root, a fresh server, one load, and the row of results that comes of it.

Whatever the server does wrong is part of the row; only a fault of ours, or Ctrl-C, leaves here as an exception, and
then too nothing stays behind. It must never print, and never start a second server beside the first.
"""

import math
import os
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tftpbench.host import generator, machine
from tftpbench.host.generator import LoadConfig, LoadResult, Progress, Stop
from tftpbench.host.server import PortTaken
from tftpbench.host.server_host import Server
from tftpbench.host.target import Target
from tftpbench.measure import ceilings, findings, validity
from tftpbench.measure.events import LoadProgressed, RecoveryAwaited
from tftpbench.measure.plan import Trial
from tftpbench.measure.rows import Observed, Row, Waited, calibration_columns, row_of, server_columns
from tftpbench.measure.session import (
    Bench,
    Counted,
    approach_once,
    compared_uploads,
    fewer_at_once,
    how_lost,
    load_config,
    run_watched,
    server_of,
)
from tftpbench.model.errors import ServerDied, ServerError, ServerHostLost
from tftpbench.model.metrics import COLUMNS
from tftpbench.model.workload import Shaped

# The load is over: a server that would linger over finished transfers (dallying) is not waited for.
STOP_GRACE_S = 0.3
# One that lost transfers is asked once more; a server that is only slow gets to it within this.
UNRESPONSIVE_TIMEOUT_S = 2.0
# A running server has no fresh start before the next trial: it is waited for, until it has worked off what clients have
# given up. A dnsmasq of 50 at once took up to 87 s after 1000 at once, on two busy cores.
RECOVERY_TIMEOUT_S = 120.0
# A shorter one is over before anyone looks, and drawing costs it more.
LONG_TRIAL_NS = 10_000_000_000

# What a server says that lacks them: strerror(EMFILE), and ours.
_OPEN_FILES = "open files"

OnEvent = Callable[[RecoveryAwaited | LoadProgressed], None]


@dataclass(frozen=True)
class Outcome:
    """What a trial leaves: its row, what is wrong with it, and the raw material for its files.

    `failed_start`: why its server never was ready, as the end of a sentence; None where it was. `server_host_lost`:
    which host it ran on, and why that was lost.
    """

    row: Row
    findings: tuple[validity.Finding, ...]
    result: LoadResult | None
    server_log: bytes
    failed_start: str | None = None
    server_host_lost: str | None = None


def run_trial(
    trial: Trial,
    bench: Bench,
    ceiling_data_pps: float | None = None,
    on_event: OnEvent = lambda _: None,
    full_data_pps: float | None = None,
) -> Outcome:
    """Do the trial, with what was measured beside it. Raises LoadError where the generator itself can't run."""
    calibration = bench.tools.calibrate(bench.pinning.server) if trial.is_observed else None
    row = row_of(trial, bench.pinning) | calibration_columns(calibration)
    log = bench.roots.base / "server.log"
    log.unlink(missing_ok=True)
    has_started = False
    with bench.folder_of(trial) as root:
        try:
            with server_of(trial, bench, root, log) as server:
                has_started = True
                seen = _measure(trial, bench, root, server, on_event)
        except ServerHostLost as error:
            lost_host = str(error)
            row |= {"server_findings": []} | ceilings.columns(row, None, None) | ceilings.headroom_columns(row, None)
            found = validity.findings(row, validity.Surroundings(server_host_lost=lost_host))
            return replace(_outcome(row, found, None, log), server_host_lost=lost_host)
        except ServerError as error:
            said = str(error) if has_started else _lacks_files(trial, str(error))
            why = _unnamed(said, trial)
            taken = isinstance(error, PortTaken)
            kind: Literal["died", "not_ready", "port_taken"] = "port_taken" if taken else "not_ready"
            lost = findings.of_a_lost_server(why, "died" if isinstance(error, ServerDied) else kind)
            row["server_findings"] = [asdict(lost)]
            row |= ceilings.columns(row, None, ceiling_data_pps) | ceilings.headroom_columns(row, None)
            found = validity.findings(row, validity.Surroundings(server_lost=said))
            return replace(_outcome(row, found, None, log), failed_start=None if has_started else why)
    row |= {name: value for name, value in seen.result.figures.items() if name in COLUMNS} | seen.uploads
    row |= server_columns(seen, len(bench.pinning.server), busy_polls=trial.contender.busy_polls)
    row |= ceilings.columns(row, seen.config.host, ceiling_data_pps) | ceilings.headroom_columns(row, full_data_pps)
    row |= _growth(trial, seen.result)
    died = _unnamed(str(seen.lost), trial) if seen.lost is not None else None
    wrong = _server_findings(trial, row, seen, died)
    row["server_findings"] = [asdict(finding) for finding in (*wrong, *seen.not_read_back)]
    around = validity.Surroundings(
        mean_transfer_ns=seen.result.figures.get("transfer_ns_mean"),
        mean_in_flight_ns=_mean_in_flight_ns(seen.result) if trial.cell.open_loop else None,
        steal_fraction=seen.stolen[0] / seen.stolen[1] if seen.stolen[1] else 0.0,
        steal_ticks=seen.stolen[0],
        server_lost=str(seen.lost) if seen.lost is not None else None,
        debug_build=generator.IS_DEBUG_BUILD,
        gap_distance=_gap_distance(trial, seen.result),
        load_1min=None if trial.cell.generators else machine.load_average(),
        cpus=None if trial.cell.generators else os.cpu_count(),
        shortest_piece_ns=validity.shortest_piece_ns(seen.config.shape),
        is_quick=bench.is_quick,
        strays=seen.strays,
        was_cut_off=bool(seen.lost or seen.result.stopped or seen.result.hosts_lost) or _left_s(trial) <= 0,
    )
    return _outcome(row, validity.findings(row, around), seen.result, log)


def _server_findings(trial: Trial, row: Row, seen: Observed, died: str | None) -> list[findings.ServerFinding]:
    if trial.cell.is_boots:
        return findings.of_boots(
            row, seen.result.boots, trial.cell.shares, seen.result.served_misses, died=died, silent_s=seen.silent_s
        )
    return findings.of_a_load(row, seen.result.transfers, seen.config.timeout_ns, died=died, silent_s=seen.silent_s)


def _measure(trial: Trial, bench: Bench, root: Path, server: Server, on_event: OnEvent) -> Observed:
    stop = Stop()
    config = load_config(trial, bench, server, stop)
    approach_once(config, bench, stop)
    ready = server.usage()  # after uploads that the load needs, for they are no part of it
    cores = sorted({*bench.pinning.server, *bench.pinning.generator}) if trial.is_observed else []
    before = bench.tools.host.stolen_ticks(cores)
    counted, dropped = Counted.of(server), _drops(trial, bench)
    waited, began_ns = _waited(trial, bench), time.monotonic_ns()
    # The sampler looks five times a second at most, from a core of its own if there is one.
    with server.sampler(bench.pinning.spare or bench.pinning.generator, stop.request) as sampler:
        report = _ended_in_time(trial, stop, reporter(trial, config, on_event))
        result, edges = run_watched(config, stop, bench, server, report)
    after = bench.tools.host.stolen_ticks(cores)
    lasted_ns, waited_now = time.monotonic_ns() - began_ns, _waited(trial, bench)
    udp, strays = counted.now(server, result)
    lost = how_lost(server)
    is_whole = lost is None and result.hosts_lost is None
    uploads, not_read_back = compared_uploads(trial, bench, root, config, result) if is_whole else ({}, ())
    return Observed(
        config=config,
        result=result,
        ready=ready,
        cpu_ns=(edges.opened.cpu_ns, edges.closed.cpu_ns),
        context_switches=edges.closed.context_switches,
        waited_ns=(edges.opened.waited_ns, edges.closed.waited_ns),
        udp_drops_host=(_drops(trial, bench), dropped) if udp is None else (udp.no_buffer, 0),
        udp=udp,
        strays=strays,
        samples=sampler.samples,
        buffers=server.buffers,
        lost=lost,
        silent_s=_silence_s(trial, server, result, on_event) if is_whole else 0.0,
        uploads=uploads,
        not_read_back=not_read_back,
        ended=server.stop(STOP_GRACE_S),
        waited=Waited(
            lasted_ns,
            *(None if b is None or a is None else a - b for b, a in zip(waited, waited_now, strict=True)),
        ),
        stolen=(after[0] - before[0], after[1] - before[1]),
    )


def _waited(trial: Trial, bench: Bench) -> tuple[int | None, int | None]:
    """Pressure and throttling so far, where they are of the trial's machine."""
    return bench.tools.host.waited_ns() if trial.is_observed else (None, None)


def _drops(trial: Trial, bench: Bench) -> int | None:
    """Datagrams that the sockets of this network namespace dropped so far, where some of them are the trial's."""
    return bench.tools.host.udp_drops() if trial.is_observed else None


def _mean_in_flight_ns(result: LoadResult) -> float | None:
    """From actual start to end, of all that started inside the window; None where not all of them have a row."""
    table, figures = result.boots or result.transfers, result.figures
    shed = figures.get("boots_shed") or 0
    started = (figures.get("machines") or 0) - shed if result.boots else figures.get("started")
    opened, closed = figures.get("window_open_ns"), figures.get("window_close_ns")
    starts, ends = table["actual_start_ns"], table["end_ns"]
    if opened is None or closed is None or np.count_nonzero(starts >= 0) != started:
        return None
    inside = (starts >= opened) & (starts < closed) & (ends >= 0)
    return float(np.mean(ends[inside] - starts[inside])) if inside.any() else None


def _growth(trial: Trial, result: LoadResult) -> Row:
    """Columns of what is in flight, over the starts of a rate whose rows are all there."""
    table, per_s = result.boots or result.transfers, trial.cell.rate_per_s
    names = ("backlog_growth", "backlog_growth_steady")
    if per_s is None or not result.has_every_start or not len(table["end_ns"]):
        return dict.fromkeys(names)
    starts_ns = table["intended_start_ns"]
    grown = backlog_growth(starts_ns, table["end_ns"], float(starts_ns.max()) + 1e9 / per_s)
    return {name: max(0.0, by) for name, by in zip(names, grown, strict=True)}


def backlog_growth(starts_ns: NDArray[np.int64], ends_ns: NDArray[np.int64], lasts_ns: float) -> tuple[float, float]:
    """By how many what is in flight grew over the time of its starts, were it to grow as over the second half of it.

    And the same by the median of how it grew from each eighth of the time to the next, which a stall does not move. In
    flight is averaged over an eighth: one moment says little. Starts are intended ones, in ns from the first;
    `lasts_ns`: from the first to one gap after the last. An end below 0 never came.
    """
    ends, eighth = np.where(ends_ns < 0, np.inf, ends_ns.astype(float)), lasts_ns / 8

    def mean_in(part: int) -> float:
        first, last = part * eighth, (part + 1) * eighth
        inside = np.clip(ends, first, last) - np.clip(starts_ns, first, last)
        return float(inside.sum() / (last - first)) if last > first else 0.0

    means = [mean_in(part) for part in range(8)]
    return 2 * (means[7] - means[3]), 8 * float(np.median(np.diff(means)))


def reporter(trial: Trial, config: LoadConfig, on_event: OnEvent) -> Callable[[Progress], None]:
    """What passes the progress of a load on, as far as its trial is a long one."""
    planned_ns = None if config.duration_ns is None else config.warm_up_ns + config.duration_ns
    planned_ns = planned_ns or sum(piece.for_ns for piece in config.shape) or None

    def report(now: Progress) -> None:
        if max(now.elapsed_ns, planned_ns or 0) >= LONG_TRIAL_NS:
            on_event(LoadProgressed(trial, now, planned_ns and max(0, planned_ns - now.elapsed_ns)))

    return report


def _ended_in_time(trial: Trial, stop: Stop, report: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """`report`, once a second, and the end of a load that would else go on until the last deadline of its machines."""

    def look(now: Progress) -> None:
        report(now)
        if _left_s(trial) <= 0:
            stop.request()

    return look


def _left_s(trial: Trial) -> float:
    return trial.ends_s - time.monotonic()


def _gap_distance(trial: Trial, result: LoadResult) -> float | None:
    """Of Poisson arrivals of which none is missing between two others."""
    cell = trial.cell
    if cell.arrivals != "poisson" or not result.has_every_start:
        return None
    pieces = cell.load.pieces if isinstance(cell.load, Shaped) else ()
    return validity.gap_distance((result.boots or result.transfers)["actual_start_ns"], cell.rate_per_s, pieces)


def _unnamed(said: str, trial: Trial) -> str:
    """What went wrong, for a row that names the server already."""
    return said.removeprefix(f"{trial.contender.server.name}: ")


def _lacks_files(trial: Trial, why: str) -> str:
    """Why a server did not start; for want of open files in our words, with what to do."""
    if _OPEN_FILES not in why:
        return why
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    fewer = fewer_at_once(trial.cell, limit)
    return (
        f"{trial.contender.server.name}: did not start, as {limit} open files are too few for {trial.cell.concurrency} "
        f"at once: raise the limit (ulimit -Hn){f', or pass {fewer}' if fewer else ''}"
    )


def _silence_s(trial: Trial, server: Server, result: LoadResult, on_event: OnEvent) -> float:
    """For how long a server that lost transfers answers no new request: 0 for not long, inf where it was given up.

    One that is not waited for to the end, as the trial has to end, is not given up.
    """
    if result.figures.get("completed") == result.figures.get("started"):
        return 0.0
    is_running = isinstance(trial.contender.server, Target)
    patience_s = RECOVERY_TIMEOUT_S if is_running else UNRESPONSIVE_TIMEOUT_S
    timeout_s = min(patience_s, max(UNRESPONSIVE_TIMEOUT_S, _left_s(trial)))

    def silent(waited_s: float) -> None:
        if is_running and waited_s >= UNRESPONSIVE_TIMEOUT_S:
            on_event(RecoveryAwaited(trial, waited_s, timeout_s))

    began_s = time.monotonic()
    if not server.answers(timeout_s, silent):
        return math.inf if timeout_s == patience_s else timeout_s
    silent_s = time.monotonic() - began_s
    return silent_s if silent_s >= UNRESPONSIVE_TIMEOUT_S else 0.0


def _outcome(row: Row, found: tuple[validity.Finding, ...], result: LoadResult | None, log: Path) -> Outcome:
    row["verdict"], row["verdict_reason"] = validity.verdict(found)
    try:
        server_log = log.read_bytes()
    except OSError:
        server_log = b""
    return Outcome(row, found, result, server_log)
