"""The row of results of a trial: what is known before it has run, and what was seen of its server.

Pure. The generator's figures go into the row as they are; these are the others.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from tftpbench.host.effects import Calibration
from tftpbench.host.generator import LoadConfig, LoadResult
from tftpbench.host.pinning import Pinning
from tftpbench.host.server import Buffers, Ended, Samples, UdpCounts, Usage
from tftpbench.host.target import Target
from tftpbench.measure.findings import ServerFinding
from tftpbench.measure.plan import Trial
from tftpbench.model.axes import LOAD_HOSTS
from tftpbench.model.errors import ServerDied
from tftpbench.model.workload import Cell

Row = dict[str, object]


class Waited(NamedTuple):
    """What the machine did to the load: its time, ns that something waited for a core, ns throttled; None: unknown."""

    wall_ns: int
    pressure_ns: int | None
    throttled_ns: int | None


@dataclass(frozen=True)
class Observed:
    """What was seen of a load and its server, from READY to its end."""

    config: LoadConfig
    result: LoadResult
    ready: Usage
    cpu_ns: tuple[int | None, int | None]
    """When the window opened, and when it closed."""
    context_switches: int | None
    """When it closed."""
    waited_ns: tuple[int | None, int | None]
    """Of its threads for a core, when the window opened, and when it closed."""
    udp_drops_host: tuple[int | None, int | None]
    """After the load, and before."""
    udp: UdpCounts | None
    """Of the load, in the server's own network; None where it has none."""
    strays: int | None
    """Datagrams that came to the generator's side of it and found no socket; None where it has none."""
    samples: Samples
    buffers: Buffers | None
    lost: ServerDied | None
    silent_s: float
    """For how long it answered no new request after the load; 0 where it did soon, inf where it was given up."""
    uploads: Row
    """What came of comparing them."""
    not_read_back: tuple[ServerFinding, ...]
    ended: Ended | None
    stolen: tuple[int, int]
    """Ticks, and ticks of the cores in all."""
    waited: Waited


def row_of(trial: Trial, pinning: Pinning) -> Row:
    """The columns that are known before anything has run."""
    cell, contender = trial.cell, trial.contender
    return {
        "trial": trial.number,
        "order": trial.order,
        "round": trial.round,
        "started_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "cell_key": cell.key,
        "server": contender.server.name,
        "variant": contender.variant,
        **cell.point,
        "transfers": cell.transfers,
        "distinct_files": cell.distinct_files,
        "verify": cell.verify,
        "server_cpus": None if isinstance(contender.server, Target) else _numbers(pinning.server),
        "generator_cpus": None if cell.generators else _numbers(pinning.generator),
        LOAD_HOSTS: cell.load_hosts,
        "network": cell.placement.network,
        "busy_poll_us": busy_poll_us(cell, pinning),
        "deadline_ns": cell.open_loop.deadline_ns if cell.open_loop else None,
    }


def busy_poll_us(cell: Cell, pinning: Pinning) -> int:
    """How long the cell's generator polls before it sleeps."""
    return cell.client.busy_poll_us(own_cores=pinning.separate)


def server_columns(seen: Observed, cores: int, *, busy_polls: bool) -> Row:
    """CPU time and blocks are both counted from READY, when there were none, to the end of the window.

    The CPU time of a server that polls without sleeping tells nothing about it.
    """
    opened_ns, closed_ns = seen.cpu_ns
    cpu_ns, in_window_ns = since(closed_ns, seen.ready.cpu_ns), since(closed_ns, opened_ns)
    if busy_polls:
        cpu_ns = in_window_ns = None
    figures = seen.result.figures
    waited_ns = since(seen.waited_ns[1], seen.waited_ns[0])  # a thread that ended takes its count with it
    blocks, window_s = figures.get("blocks_to_window_end"), figures.get("duration_s")
    return {
        "server_busy_fraction": _share(in_window_ns, window_s, cores),
        "server_cpu_s": None if cpu_ns is None else cpu_ns / 1e9,
        "server_cpu_ns_per_block": cpu_ns / blocks if cpu_ns is not None and blocks else None,
        "server_rss_bytes_ready": seen.ready.rss_bytes,
        "server_rss_bytes_max": seen.samples.rss_bytes_max,
        "server_pss_bytes_ready": seen.ready.pss_bytes,
        "server_pss_bytes_max": seen.samples.pss_bytes_max,
        "server_processes_max": seen.samples.processes_max,
        "server_threads_max": seen.samples.threads_max,
        "server_fds_max": seen.samples.fds_max,
        "server_wait_ns": None if waited_ns is None else max(0, waited_ns),
        "server_context_switches": since(seen.context_switches, seen.ready.context_switches),
        "server_receive_buffer_bytes": seen.buffers.receive_bytes if seen.buffers else None,
        "server_send_buffer_bytes": seen.buffers.send_bytes if seen.buffers else None,
        "server_end": seen.ended.text if seen.ended else None,
        "server_left_over": seen.ended.left_over if seen.ended else None,
        "udp_drops_server": seen.samples.udp_drops,
        "udp_drops_host": since(*seen.udp_drops_host),
        **udp_columns(seen.udp),
        "generator_sockets": seen.config.sockets,
        "steal_fraction": seen.stolen[0] / seen.stolen[1] if seen.stolen[1] else None,
        "cpu_pressure_fraction": _fraction(seen.waited.pressure_ns, seen.waited.wall_ns),
        "throttled_ns": seen.waited.throttled_ns,
        "protocol_faults": [asdict(fault) for fault in seen.result.faults],
        "hosts_lost": seen.result.hosts_lost,
    }


def udp_columns(counts: UdpCounts | None) -> Row:
    """What the server's network counted."""
    known = counts._asdict() if counts is not None else dict.fromkeys(UdpCounts._fields)
    return {f"server_udp_{name}": count for name, count in known.items()}


def calibration_columns(found: Calibration | None) -> Row:
    """How long fixed amounts of work took before the trial."""
    return {
        "calibration_user_ns": found.user_ns if found else None,
        "calibration_kernel_ns": found.kernel_ns if found else None,
    }


def _fraction(part_ns: int | None, whole_ns: int) -> float | None:
    return None if part_ns is None or whole_ns <= 0 else min(1.0, part_ns / whole_ns)


def since(later: int | None, earlier: int | None) -> int | None:
    """What was counted between two looks; None where one of them saw nothing."""
    return later - earlier if later is not None and earlier is not None else None


def _numbers(cores: Sequence[int]) -> str:
    return ",".join(map(str, cores))


def _share(cpu_ns: int | None, window_s: float | None, cores: int) -> float | None:
    return cpu_ns / 1e9 / window_s / cores if cpu_ns is not None and window_s else None
