"""The metrics: every figure of a trial, one record each, and the tables of results that they stand in.

A record makes the column of results and of the frames, the line of the JSON Schema and of docs, the columns of reports,
the axis of plots, and what the gate judges. A column is never renamed or removed within schema number 1; new ones are
added at the end of a table. Pure data. To add a metric: a record here, and the line that puts the figure into the row.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from tftpbench.model.axes import LOAD_HOSTS, in_order
from tftpbench.model.shown import Across, Column, Dtype
from tftpbench.model.units import MIB, format_bytes, format_count, format_duration

# What a time is whose end did not come.
NEVER = "never"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Gated:
    """What the gate does with a metric. `place`: in the order of its tables.

    `budget`: what it may lose unless a scenario says otherwise, as a share; None: not gated unless a scenario does.
    `is_judged` False: reported beside the others, and never gated, since a tail of identical code differs from itself
    more than any budget. `floor`: no budget is less than this, in the metric's unit. `needs_clock`: a pair whose clock
    can't be trusted does not count for it.
    """

    place: int
    budget: float | None = None
    floor: float = 0.0
    needs_clock: bool = True
    is_judged: bool = True


@dataclass(frozen=True)
class Headline:
    """How a metric stands among the first figures of a run, whatever shows them.

    `place`: in their order. `histogram`: the kind of histogram and the percentile that it is, so that trials are merged
    and no percentile is averaged. `is_spoken`: it stands in a sentence about a server alone.
    """

    place: int
    histogram: tuple[str, float] | None = None
    is_spoken: bool = False


@dataclass(frozen=True)
class Metric(Column):
    """A figure of a trial.

    `better`: which way is better, None where neither is. `is_count`: it counts events, so it is judged in every
    trial and never by a median. `is_share`: of 1, so that people read it in per cent. `short`: its heading in a
    table; `words`: in a sentence and at an axis. `tables`: of a report, that it stands in. `headline`: its place
    among the first figures, `in_open_loop` among those of an open loop, `in_boots` of boots. `is_max`: the largest of
    several trials is their common figure. `most`: no true figure is larger, and `beyond` says what one is
    that surely is. `derived`: how it follows from a row that does not hold it. `name` is set below.
    """

    name: str = ""
    better: Literal["higher", "lower"] | None = None
    is_count: bool = False
    is_share: bool = False
    short: str = ""
    words: str = ""
    tables: tuple[str, ...] = ()
    headline: Headline | None = None
    in_open_loop: Headline | None = None
    in_boots: Headline | None = None
    is_max: bool = False
    most: float | None = None
    beyond: str = ""
    gate: Gated | None = None
    derived: Callable[[Row], float | None] | None = None

    @property
    def heading(self) -> str:
        """Above its column in a table."""
        return self.short or self.name.replace("_", " ")

    @property
    def lower_is_better(self) -> bool:
        """Whether a larger figure is a worse one."""
        return self.better == "lower"

    @property
    def floor(self) -> float:
        """No budget of the gate is less than this, in the metric's unit."""
        return self.gate.floor if self.gate else 0.0

    @property
    def needs_clock(self) -> bool:
        """Whether a pair whose clock can't be trusted does not count for it."""
        return self.gate is None or self.gate.needs_clock

    @property
    def histogram(self) -> tuple[str, float] | None:
        """The kind of histogram and the percentile that it is, where it is one."""
        place = self.headline or self.in_open_loop or self.in_boots
        return place.histogram if place else None

    @property
    def may_be_never(self) -> bool:
        """Whether it is a time over a cohort: of what did not complete it is infinite, and null in documents."""
        return f"{self.name}_is_never" in COLUMNS

    def of(self, row: Row) -> Any:
        """The figure of a row of results; None where it is not known, infinite where it is never."""
        if row.get(f"{self.name}_is_never"):
            return math.inf
        return row.get(self.name) if self.derived is None else self.derived(row)

    def mark(self, surely: float | None) -> str:
        """What makes a figure that is surely (by its interval, or by all pairs) so large unusable; "" where nothing."""
        return self.beyond if self.most is not None and surely is not None and surely > self.most else ""

    @property
    def combined(self) -> str:
        """How trials of one cell give one figure, in words."""
        if self.is_count:
            return "sum over all trials"
        if self.is_max:
            return "largest of the valid trials"
        if self.histogram:
            return "of all valid trials together"
        return "median of the valid trials"

    def text(self, value: float) -> str:
        """A figure for people, with its unit where the heading does not say it."""
        if math.isinf(value):
            return NEVER
        if self.is_share:
            return f"{100 * value:.0f} %"
        if self.unit in _TEXTS:
            return _TEXTS[self.unit](value)
        if self.dtype == "int":
            return f"{value:,.0f}"
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


_TEXTS: Mapping[str, Callable[[float], str]] = {
    "ns": format_duration,
    "s": lambda value: format_duration(value * 1e9),
    "s/MiB": lambda value: format_duration(value * 1e9),
    "bytes": format_bytes,
    "1/s": format_count,
    "bytes/s": lambda value: format_count(value / MIB),
}


def _count(unit: str, meaning: str, dtype: Dtype = "int", **more: Any) -> Metric:
    return Metric(unit, meaning, dtype, is_count=True, **more)


def _cohort(
    name: str, meaning: str, first: int | None = None, *, percents: str = "p50 p95 p99 max"
) -> dict[str, Column]:
    """Percentiles over a cohort, each beside the column that tells whether it is never.

    `first`: where they stand among the first figures of an open loop, or of boots.
    """
    found: dict[str, Column] = {}
    time = name.replace("_", " ")
    for at in percents.split():
        column, percent = f"{name}_ns_{at}", _PERCENTS[at]
        place = None if first is None else Headline(first + len(found), histogram=(name, percent))
        found[column] = Metric(
            "ns",
            f"{meaning.format(_PERCENT_WORDS[at])}; null where never.",
            "int",
            better="lower",
            short=at if at != "p50" else f"{time} p50",
            words=f"{time} time {at}",
            is_max=at == "max",
            across="recompute",
            in_open_loop=place if name == "response" else None,
            in_boots=place if name == "boot" else None,
        )
        found[f"{column}_is_never"] = Column(
            "", f"Whether {column} is never: so many did not complete.", "bool", across="recompute"
        )
    return found


_PERCENTS = {"p50": 50, "p95": 95, "p99": 99, "max": 100}
_PERCENT_WORDS = {"p50": "median", "p95": "95th percentile", "p99": "99th percentile", "max": "the longest"}


def _cpu_s_per_mib(row: Row) -> float | None:
    """A server may have granted smaller blocks than were asked for."""
    size, per_block = row.get("blksize_granted") or row.get("blksize"), row.get("server_cpu_ns_per_block")
    return per_block / 1e9 / size * MIB if per_block and size else None


def _switches_per_block(row: Row) -> float | None:
    """Both are counted from READY to the end of the window; the blocks are what the CPU time was divided by."""
    switches, cpu_s, per_block = (
        row.get(name) for name in ("server_context_switches", "server_cpu_s", "server_cpu_ns_per_block")
    )
    if switches is None or not cpu_s or not per_block:
        return None
    return float(switches / (cpu_s * 1e9 / per_block))


_ROW: dict[str, Column] = {
    "trial": Column("", "Number of the trial in its run, from 1; names its folder trials/<trial>/.", "int", False),
    "order": Column("", "Place in the order in which the run's trials were done, from 1.", "int", False),
    "started_at": Column("UTC", "When the trial began, ISO 8601.", "time", False),
    "cell_key": Column("", "Equal for equal work; see Keys.", "text", False),
    "server": Column("", "Name of the server's manifest.", "text", False),
    "variant": Column("", "Variant of the server (as_shipped); null for the usual one.", "text"),
    "transfers": Column("", "Transfers asked for; null where a duration was.", "int"),
    "distinct_files": Column("", "Different files that were read in turn.", "int", False),
    "verify": Column("", "How much was compared: full, sample or off.", "text", False),
    "server_cpus": Column(
        "", "Numbers of the cores the server ran on, as in 0,1; null for one that ran already.", "text"
    ),
    "generator_cpus": Column(
        "", "Numbers of the cores the generator ran on, as in 0,1; null where load hosts made the load.", "text"
    ),
    "busy_poll_us": Column("us", "How long the generator polled before it slept.", "int"),
    "duration_s": Metric("s", "The measured window: the denominator of every rate.", "float", across="recompute"),
    "started": _count("transfers", "Transfers begun.", headline=Headline(1), across="sum"),
    "completed": _count(
        "transfers",
        "Transfers that ended with the last ACK.",
        tables=("trials",),
        headline=Headline(2),
        in_open_loop=Headline(2),
        across="sum",
    ),
    "failed": _count(
        "transfers",
        "Transfers that ended with an ERROR or a broken rule.",
        short="failed",
        tables=("trials", "losses"),
        headline=Headline(3),
        in_open_loop=Headline(24),
        across="sum",
    ),
    "timed_out": _count(
        "transfers",
        "Transfers that ran out of retries, or whose server was silent for the client's timeout at the end.",
        short="timed out",
        tables=("trials", "losses"),
        across="sum",
    ),
    "interrupted": _count(
        "transfers", "Transfers that the end of the trial cut off.", short="cut off", tables=("losses",), across="sum"
    ),
    "retransmissions": _count(
        "datagrams",
        "Datagrams that the generator sent again.",
        short="sent again",
        tables=("cost", "losses"),
        across="sum",
    ),
    "duplicates": _count(
        "datagrams",
        "Datagrams that the generator received and that brought nothing new.",
        tables=("losses",),
        across="sum",
    ),
    "bytes_verified": _count("bytes", "File bytes that were compared with what they must be.", across="sum"),
    "content_mismatches": _count(
        "transfers",
        "Transfers whose bytes were not what they must be, or too many.",
        short="wrong bytes",
        tables=("losses",),
        across="sum",
    ),
    "data_pps": Metric(
        "1/s",
        "DATA blocks acknowledged in order, per second.",
        "float",
        better="higher",
        short="data/s",
        words="blocks per second",
        tables=("trials",),
        headline=Headline(9),
        gate=Gated(3, budget=0.05),
        across="recompute",
    ),
    "pps": Metric(
        "1/s",
        "Datagrams per second, both ways.",
        "float",
        better="higher",
        words="datagrams per second",
        across="recompute",
    ),
    "goodput_bytes_per_s": Metric(
        "bytes/s",
        "File bytes per second.",
        "float",
        better="higher",
        short="MiB/s",
        words="file bytes per second",
        headline=Headline(8, is_spoken=True),
        in_open_loop=Headline(30),
        in_boots=Headline(40),
        across="recompute",
    ),
    "transfers_per_s": Metric(
        "1/s",
        "Transfers completed per second.",
        "float",
        better="higher",
        short="files/s",
        words="transfers per second",
        headline=Headline(7, is_spoken=True),
        across="recompute",
    ),
    "block_rtt_ns_p50": Metric(
        "ns",
        "Block round trip, median; retransmitted blocks left out.",
        "float",
        better="lower",
        short="block rtt p50",
        words="block round trip p50",
        tables=("trials",),
        headline=Headline(11, histogram=("block_rtt", 50)),
        gate=Gated(5, is_judged=False),
        across="recompute",
    ),
    "block_rtt_ns_p99": Metric(
        "ns",
        "Block round trip, 99th percentile.",
        "float",
        better="lower",
        short="p99",
        words="block round trip p99",
        tables=("trials",),
        headline=Headline(12, histogram=("block_rtt", 99)),
        gate=Gated(6, is_judged=False),
        across="recompute",
    ),
    "block_rtt_ns_p999": Metric(
        "ns",
        "Block round trip, 99.9th percentile.",
        "float",
        better="lower",
        words="block round trip p99.9",
        across="recompute",
    ),
    "transfer_ns_p50": Metric(
        "ns",
        "Duration of a transfer, median.",
        "float",
        better="lower",
        short="time p50",
        words="transfer time p50",
        tables=("trials",),
        headline=Headline(4, histogram=("transfer", 50), is_spoken=True),
        across="recompute",
    ),
    "transfer_ns_p99": Metric(
        "ns",
        "Duration of a transfer, 99th percentile.",
        "float",
        better="lower",
        short="p99",
        words="transfer time p99",
        headline=Headline(5, histogram=("transfer", 99), is_spoken=True),
        gate=Gated(7, is_judged=False),
        across="recompute",
    ),
    "transfer_ns_max": Metric(
        "ns",
        "Duration of the slowest transfer.",
        "float",
        better="lower",
        short="max",
        words="longest transfer time",
        headline=Headline(6, is_spoken=True),
        is_max=True,
        across="recompute",
    ),
    "first_response_ns_p50": Metric(
        "ns",
        "Request to first answer, median.",
        "float",
        better="lower",
        short="first answer",
        words="first answer p50",
        tables=("cost",),
        across="recompute",
    ),
    "first_response_ns_p99": Metric(
        "ns",
        "Request to first answer, 99th percentile.",
        "float",
        better="lower",
        words="first answer p99",
        across="recompute",
    ),
    "server_cpu_s": Metric(
        "s",
        "CPU time of all processes of the server, from READY to the end of the window.",
        "float",
        better="lower",
        words="CPU time",
    ),
    "server_cpu_ns_per_block": Metric(
        "ns",
        "CPU time of the server per DATA block acknowledged in order.",
        "float",
        better="lower",
        short="CPU/block",
        words="CPU time per block",
        tables=("cost", "trials"),
        headline=Headline(10),
        in_open_loop=Headline(31),
        in_boots=Headline(41),
    ),
    "server_rss_bytes_ready": Metric(
        "bytes",
        "Resident memory of all its processes, added up, when it was ready.",
        "int",
        better="lower",
        words="memory when ready",
    ),
    "server_rss_bytes_max": Metric(
        "bytes",
        "Largest such sum; pages that its processes share count in each.",
        "int",
        better="lower",
        short="memory",
        words="peak memory",
        tables=("cost",),
        # One page more or less is no regression, and a small server has few pages.
        gate=Gated(4, floor=1024 * 1024, needs_clock=False),
    ),
    "server_threads_max": Metric(
        "", "Most threads (and processes) of the server at once.", "int", short="threads", tables=("cost",)
    ),
    "generator_busy_fraction": Metric(
        "",
        "Productive share of the generator's loop, 0 to 1.",
        "float",
        short="generator busy",
        is_share=True,
        tables=("cost", "trials"),
        across="max",
    ),
    "generator_lag_ns_p99": Metric(
        "ns", "Kernel's stamp of a datagram to our reading it, 99th percentile.", "float", across="max"
    ),
    "udp_drops_server": _count(
        "datagrams",
        "Datagrams dropped at the server's sockets; what the kernel joined to one (UDP_GRO) counts once.",
        short="drops: server",
        tables=("losses",),
    ),
    "udp_drops_generator": _count(
        "datagrams",
        "Datagrams dropped at the generator's sockets; joined ones count once.",
        short="generator",
        tables=("losses",),
        across="sum",
    ),
    "ceiling_data_pps": Metric(
        "1/s",
        "Raw UDP throughput for the same datagrams over the same network, without TFTP and files, in the same round.",
        "float",
        words="ceiling",
    ),
    "ceiling_ratio": Metric(
        "",
        "data_pps / ceiling_data_pps.",
        "float",
        better="higher",
        short="of ceiling",
        words="share of the ceiling",
        is_share=True,
        headline=Headline(13),
        # A server can't move more than raw UDP does: then the ceiling was measured while the machine was slower.
        most=1.0,
        beyond="the machine changed; not usable",
    ),
    "fairness": Metric(
        "",
        "Slowest / median transfer time.",
        "float",
        better="lower",
        short="slowest/median",
        words="fairness",
        tables=("cost",),
        across="recompute",
    ),
    "amplification": Metric(
        "", "UDP payload bytes on the wire, both ways / file bytes.", "float", better="lower", across="recompute"
    ),
    "verdict": Column("", "valid or invalid.", "text", False),
    "verdict_reason": Column("", "Why a trial is invalid, else null.", "text"),
    "generator_sockets": Column("", "shared, per-transfer or ring: how the clients came to their sockets.", "text"),
    "server_busy_fraction": Metric(
        "",
        "Share of its cores that the server used inside the window, 0 to 1; null where it never sleeps.",
        "float",
        short="server busy",
        is_share=True,
        tables=("cost",),
    ),
    "round": Column("", "Which trial of its cell and server it is, from 1; a round's trials are pairs.", "int"),
    "server_fds_max": Metric("", "Most open file descriptors of the server at once.", "int"),
    "server_context_switches": Metric(
        "", "Context switches of all its processes, wanted and forced, from READY to the end of the window.", "int"
    ),
    "server_receive_buffer_bytes": Column("bytes", "Receive buffer that the kernel granted the server.", "int"),
    "server_send_buffer_bytes": Column("bytes", "Send buffer that the kernel granted the server.", "int"),
    "server_end": Column("", "How the server ended, in words.", "text"),
    "server_left_over": Column("", "Processes of the server that outlived its stop and were killed.", "int"),
    "protocol_faults": Column(
        "", "What the server did against the RFCs: list of {kind, count, example, rfc_section}.", "list"
    ),
    "server_pss_bytes_ready": Metric(
        "bytes", "Proportional share of memory over all its processes (shared pages split), when it was ready.", "int"
    ),
    "server_pss_bytes_max": Metric("bytes", "Largest such share, looked at once a second at most.", "int"),
    "server_processes_max": Metric("", "Most processes of the server at once.", "int"),
    "udp_drops_host": _count(
        "datagrams",
        "Datagrams dropped for want of buffer at all UDP sockets of this network namespace.",
        short="host",
        tables=("losses",),
    ),
    "blksize_granted": Column("bytes", "Smallest blksize that a transfer which was answered got.", "int", across="min"),
    "windowsize_granted": Column(
        "blocks", "Smallest windowsize that a transfer which was answered got.", "int", across="min"
    ),
    "server_findings": Column("", "What the server did wrong, for people: list of {kind, count, text}.", "list"),
    "unanswered": _count(
        "transfers",
        "Transfers that never got an answer until they timed out, were late or were cut off by the trial's end.",
        tables=("losses",),
        across="sum",
    ),
    "generator_gap_ns_max": Metric(
        "ns", "Longest time that a loop of the generator stood still, warm-up and drain included.", "int", across="max"
    ),
    "generator_gap_ns_sum": Metric(
        "ns", "For how long in the window the worst loop stood still, 5 ms or more at once.", "int", across="max"
    ),
    "runner_gap_ns_max": Metric(
        "ns", "Longest time by which the runner was late in watching the trial.", "int", across="max"
    ),
    "in_flight_max": Metric(
        "transfers",
        "Most transfers in flight at once, warm-up included: client.start may keep it below concurrency.",
        "int",
        short="peak in flight",
        words="transfers in flight",
        across="recompute",
    ),
    "intended": _count(
        "transfers", "Transfers that were to start: those begun and those shed.", in_open_loop=Headline(1), across="sum"
    ),
    "shed": _count(
        "transfers",
        "Transfers that were to start while as many were in flight as may be, and did not.",
        in_open_loop=Headline(22),
        across="sum",
    ),
    "late": _count(
        "transfers",
        "Transfers that had not ended at their deadline, and were ended.",
        in_open_loop=Headline(23),
        across="sum",
    ),
    "deadline_ns": Column("ns", "When a transfer of an open loop was ended; null for a closed loop.", "int"),
    "offered_per_s": Metric(
        "1/s",
        "Starts intended inside the window / the window; of an open loop only.",
        "float",
        short="offered/s",
        in_open_loop=Headline(20),
        across="recompute",
    ),
    "achieved_per_s": Metric(
        "1/s",
        "Of these, what started inside the window / the window.",
        "float",
        short="achieved/s",
        in_open_loop=Headline(21),
        across="recompute",
    ),
    "schedule_lag_ns_p50": Metric("ns", "Intended to actual start of a transfer, median.", "int", across="recompute"),
    "schedule_lag_ns_p99": Metric(
        "ns", "Intended to actual start of a transfer, 99th percentile.", "int", across="recompute"
    ),
    **_cohort("response", "Response time, from the intended start: {} of all transfers intended inside the window", 3),
    **_cohort(
        "service",
        "Service time, from the request: {} of those of them that were begun",
        percents="p50 p95 p99",
    ),
    "machines": _count(
        "machines", "Machines that were to boot: the sum of the five that follow.", in_boots=Headline(1), across="sum"
    ),
    "booted": _count("machines", "Machines that got all that they asked for.", in_boots=Headline(2), across="sum"),
    "boots_failed": _count(
        "machines",
        "Machines that gave up, at one step of their boot.",
        short="failed",
        in_boots=Headline(20),
        across="sum",
    ),
    "boots_late": _count(
        "machines",
        "Machines that were not up at their deadline, and were ended.",
        short="late",
        in_boots=Headline(21),
        across="sum",
    ),
    "boots_shed": _count(
        "machines",
        "Machines that were to start while as many booted as may, and did not.",
        short="shed",
        in_boots=Headline(22),
        across="sum",
    ),
    "boots_interrupted": _count(
        "machines", "Machines that the end of the trial cut off.", short="cut off", in_boots=Headline(23), across="sum"
    ),
    **_cohort(
        "boot",
        "Time until a machine is up, from its intended start: {} of all machines that were to start",
        3,
        percents="p50 p99 max",
    ),
    **_cohort(
        "boot_service",
        "The same from its first request: {} of those of them that started",
        percents="p50 p99",
    ),
    "miss_ns_p50": Metric(
        "ns",
        "Request for a file that is not there to its ERROR, median of those answered.",
        "int",
        better="lower",
        across="recompute",
    ),
    "miss_ns_p99": Metric(
        "ns",
        "Request for a file that is not there to its ERROR, 99th percentile of those answered.",
        "int",
        better="lower",
        short="miss p99",
        words="time of a miss p99",
        in_boots=Headline(30, histogram=("miss", 99)),
        across="recompute",
    ),
    "misses": _count("requests", "Requests for a file that is expected to be absent.", across="sum"),
    "misses_unanswered": _count(
        "requests",
        "Of these, those that got no answer.",
        short="misses unanswered",
        in_boots=Headline(31),
        across="sum",
    ),
    "restarts": _count("restarts", "Transfers, or boots, that a machine began anew, as its client does.", across="sum"),
    "burst_ns": Metric(
        "ns",
        "First to last actual start of a storm: how long the generator's own burst took.",
        "int",
        across="recompute",
    ),
    "in_flight_mean": Metric(
        "transfers",
        "Mean of what was in flight over the window's time; of machines where they boot.",
        "float",
        across="recompute",
    ),
    "rows_kept": Metric(
        "transfers", "Transfers that have a row of their own; figures are of all.", "int", across="recompute"
    ),
    "rows_every": Metric(
        "", "One in so many of those that completed has a row; null where none was to have one.", "int", across="max"
    ),
    "rows_every_failed": Metric("", "One in so many of those that did not complete has a row.", "int", across="max"),
    "backlog_growth": Metric(
        "transfers",
        "By how many what is in flight grew over the starts of a rate, as it did over their second half; of machines "
        "where they boot. 0 where it did not grow, null where not every start has a row.",
        "float",
        better="lower",
    ),
    "backlog_growth_steady": Metric(
        "transfers",
        "The same, by the median of how it grew from each eighth of the starts to the next: a stall does not move it.",
        "float",
        better="lower",
    ),
    "network": Column("", "What lay between server and generator: loopback, or namespace.", "text"),
    "datagrams_sent": _count(
        "datagrams", "All that the generator sent, before and after the window too.", across="sum"
    ),
    "datagrams_received": _count("datagrams", "All that the generator received.", across="sum"),
    "server_udp_received": _count("datagrams", "Datagrams that the server read, as its network namespace counts them."),
    "server_udp_sent": _count("datagrams", "Datagrams that the server sent, as its network namespace counts them."),
    "server_udp_no_buffer": _count("datagrams", "Datagrams dropped there, as a socket's buffer was full."),
    "server_udp_no_port": _count("datagrams", "Datagrams dropped there, as nothing listened on their port."),
    "server_udp_bad_checksum": _count("datagrams", "Datagrams dropped there for a wrong checksum."),
    "steal_fraction": Metric(
        "",
        "Share of the time of the cores of both sides that the hypervisor took during the load.",
        "float",
        is_share=True,
    ),
    "cpu_pressure_fraction": Metric(
        "",
        "Share of the load's time in which something on the machine waited for a core (PSI), both sides included.",
        "float",
        is_share=True,
    ),
    "throttled_ns": Metric(
        "ns", "For how long a quota held back the control group of tftpbench during the load, summed over cores.", "int"
    ),
    "server_wait_ns": Metric(
        "ns",
        "For how long threads of the server's first process were ready to run in the window and had no core, together; "
        "null where the kernel does not count it.",
        "int",
    ),
    "calibration_user_ns": Metric(
        "ns", "A fixed amount of user-space work on the server's cores, directly before the server starts.", "int"
    ),
    "calibration_kernel_ns": Metric("ns", "The same of kernel work: 150 datagrams over loopback.", "int"),
    "generator_headroom": Metric(
        "",
        "Rate of the generator when its core is full / data_pps; null where that was not measured.",
        "float",
        short="generator could do",
        words="times as much as the generator did",
        tables=("cost", "trials"),
    ),
    LOAD_HOSTS: Column("hosts", "Hosts that the load came from; null in runs of older versions, which had one.", "int"),
    "clock_error_ns_max": Metric(
        "ns",
        "By how much the clock of a load host, or of the server's, may be taken wrong, the worst of them; null where "
        "this machine made the load.",
        "int",
        short="clock error",
        tables=("trials",),
        is_max=True,
    ),
    "start_spread_ns": Metric(
        "ns",
        "How far the first start of a load host may lie from its intended time, the error of its clock included; of "
        "the worst.",
        "int",
        short="start spread",
        tables=("trials",),
        is_max=True,
    ),
    "hosts_lost": Column("", "Load hosts that were lost in the trial, each with the reason; null for none.", "text"),
}
# Figures that no row holds: they follow from it, or belong to the gate alone.
_BESIDE: dict[str, Metric] = {
    "server_cpu_s_per_mib": Metric(
        "s/MiB",
        "CPU time of the server per MiB of the files.",
        "float",
        better="lower",
        words="CPU time per MiB",
        gate=Gated(1, budget=0.05),
        derived=_cpu_s_per_mib,
    ),
    # A server of batches makes few: a call in a hundred blocks costs less than 10 ns a block, and moves by itself.
    "syscalls_per_block": Metric(
        "calls",
        "System calls of the server per DATA block, under strace.",
        "float",
        better="lower",
        words="system calls per block",
        gate=Gated(2, budget=0.02, floor=0.01, needs_clock=False),
    ),
    "switches_per_block": Metric(
        "",
        "Context switches of the server for each DATA block acknowledged in order.",
        "float",
        better="lower",
        short="switches/block",
        tables=("cost",),
        derived=_switches_per_block,
    ),
}

COLUMNS: dict[str, Column] = in_order(
    {name: replace(each, name=name) if isinstance(each, Metric) else each for name, each in _ROW.items()}
)
METRICS: dict[str, Metric] = {
    **{name: each for name, each in COLUMNS.items() if isinstance(each, Metric)},
    **{name: replace(each, name=name) for name, each in _BESIDE.items()},
}


# Figures of a load generator that no row has, and how those of several load hosts give one.
_WITHOUT_COLUMN: Mapping[str, Across] = {
    "strays": "sum",
    "late_datagrams": "sum",
    "generator_unsent": "sum",
    "blocks_to_window_end": "recompute",
    "block_rtt_left_out": "recompute",
    "generator_receive_buffer_bytes": "min",
    "first_start_late_ns": "max",
    "transfer_ns_mean": "recompute",
    "first_start_ns": "recompute",
    "window_open_ns": "recompute",
    "window_close_ns": "recompute",
}
ACROSS_HOSTS: Mapping[str, Across] = {
    **{name: column.across for name, column in COLUMNS.items() if column.across is not None},
    **_WITHOUT_COLUMN,
}
"""Each figure of a load generator, and how those of several load hosts give one."""


def _first(kind: str) -> dict[str, Metric]:
    """The first figures of every table, sentence, page and document, in their order."""
    placed = [(place.place, metric) for metric in METRICS.values() if (place := getattr(metric, kind)) is not None]
    return {metric.name: metric for _, metric in sorted(placed, key=lambda each: each[0])}


# Of closed loops, of open ones, and of boots: none of the latter two leaves out what did not complete.
HEADLINE = _first("headline")
OPEN_LOOP = _first("in_open_loop")
BOOTS = _first("in_boots")


def with_never(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Figures for documents, which have no infinity: null, beside a name that says whether it is never."""
    found: dict[str, Any] = {}
    for name, value in figures.items():
        if name in METRICS and METRICS[name].may_be_never:
            is_never = None if value is None else math.isinf(value)
            found |= {name: None if is_never else value, f"{name}_is_never": is_never}
        else:
            found[name] = value
    return found


def in_table(name: str) -> list[Metric]:
    """The metrics of one of a report's tables: trials, cost, losses."""
    return [metric for metric in METRICS.values() if name in metric.tables]


OUTCOMES = ("completed", "failed", "timed_out", "interrupted", "late")
# Of a boot, and why it failed, "" where it did not; `BootOutcome::NAMES` and `BootReason::NAMES` have the same.
BOOT_OUTCOMES = ("booted", "failed", "late", "shed", "interrupted")
BOOT_REASONS = ("", "refused", "no answer", "fell silent", "broke the protocol", "wrong bytes")

TRANSFER_COLUMNS: dict[str, Column] = {
    "intended_start_ns": Column("ns", "When the schedule wanted the transfer to start.", "int", False),
    "actual_start_ns": Column("ns", "When its request was sent.", "int", False),
    "first_response_ns": Column("ns", "When the first answer came; null if none did.", "int"),
    "end_ns": Column(
        "ns", "When it was decided: the answer's arrival, or when retries ran out; null if it never was.", "int"
    ),
    "bytes": Column("bytes", "File bytes transferred in order.", "int", False),
    "retransmissions": Column("datagrams", "Datagrams that the generator sent again for it.", "int", False),
    "outcome": Column("", f"One of {', '.join(OUTCOMES)}.", "text", False),
    "error_code": Column("", "Code of the ERROR that ended it, else null.", "int"),
    "machine": Column("", "Number of the machine whose boot it is part of, from 0; null without boots.", "int"),
    "step": Column("", "Which step of its boot it is, from 1; null without boots.", "int"),
    "host": Column("", "Number of the load host that made it, from 0; null where there was one.", "int"),
}

BOOT_COLUMNS: dict[str, Column] = {
    "machine": Column("", "Number of the machine, from 0, in the order of intended starts.", "int", False),
    "boot": Column("", "The boot profile that it boots.", "text", False),
    "intended_start_ns": Column("ns", "When the schedule wanted it to start.", "int", False),
    "actual_start_ns": Column("ns", "When its first request was sent; null if it was shed.", "int"),
    "end_ns": Column("ns", "When it was up, or given up; null if it never was decided.", "int"),
    "bytes": Column("bytes", "File bytes transferred in order.", "int", False),
    "requests": Column("requests", "Transfers that it began.", "int", False),
    "misses": Column("requests", "Requests for a file that is expected to be absent.", "int", False),
    "misses_unanswered": Column("requests", "Of these, those that got no answer.", "int", False),
    "retransmissions": Column("datagrams", "Datagrams that it sent again.", "int", False),
    "restarts": Column("restarts", "Transfers, or whole boots, that it began anew.", "int", False),
    "outcome": Column("", f"One of {', '.join(BOOT_OUTCOMES)}.", "text", False),
    "failed_step": Column("", "The step, from 1, that it failed at, was late at or was cut off at; else null.", "int"),
    "reason": Column("", f"Why it failed: {', '.join(BOOT_REASONS[1:])}; else empty.", "text", False),
    "error_code": Column("", "Code of the ERROR that ended it, else null.", "int"),
    "host": Column("", "Number of the load host that it was of, from 0; null where there was one.", "int"),
}

INTERVAL_COLUMNS: dict[str, Column] = {
    "blocks": Column("blocks", "DATA blocks acknowledged in order.", "int", False, across="sum"),
    "bytes": Column("bytes", "File bytes of those blocks.", "int", False, across="sum"),
    "in_flight": Column("transfers", "Transfers in flight at the interval's end.", "int", False, across="sum"),
    "retransmissions": Column("datagrams", "Datagrams that the generator sent again.", "int", False, across="sum"),
    "duration_ns": Column(
        "ns", "How long the interval is; null in runs of older versions, which had 100 ms only.", "int"
    ),
    "started": Column(
        "transfers", "Transfers that started in it; null in runs of older versions.", "int", across="sum"
    ),
    "shed": Column(
        "transfers", "Transfers that were intended in it and shed; null in runs of older versions.", "int", across="sum"
    ),
}

LATENCY_KINDS = {
    "block_rtt": "Block round trip, ns.",
    "transfer": "Duration of a transfer, ns.",
    "first_response": "Request to first answer, ns.",
    "response": "Intended start to end of a transfer that completed, ns.",
    "service": "Request to end of a transfer that completed, ns.",
    "boot": "Intended start of a machine until it was up, ns.",
    "boot_service": "First request of a machine until it was up, ns.",
    "miss": "Request for a file that is not there to its ERROR, ns.",
}
