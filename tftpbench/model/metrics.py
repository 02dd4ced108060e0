"""The columns of results: name, unit, type and meaning. The one list that code, documents and schemas follow.

A column is never renamed or removed within schema number 1; new ones are added at the end of a table. Pure
data.
"""

from dataclasses import dataclass
from typing import Literal

Dtype = Literal["int", "float", "text", "time", "list"]


@dataclass(frozen=True)
class Column:
    """What a figure is. unit "" means a plain number, key or word."""

    unit: str
    meaning: str
    dtype: Dtype
    nullable: bool = True
    is_count: bool = False  # counts events: judged in every trial, never by a median

    @property
    def is_number(self) -> bool:
        """Whether it can be compared with a number."""
        return self.dtype in {"int", "float"}


def _count(unit: str, meaning: str) -> Column:
    return Column(unit, meaning, "int", is_count=True)


COLUMNS: dict[str, Column] = {
    "trial": Column("", "Number of the trial in its run, from 1; names its folder trials/<trial>/.", "int", False),
    "order": Column("", "Place in the order in which the run's trials were done, from 1.", "int", False),
    "started_at": Column("UTC", "When the trial began, ISO 8601.", "time", False),
    "cell_key": Column("", "Equal for equal work; see Keys.", "text", False),
    "server": Column("", "Name of the server's manifest.", "text", False),
    "variant": Column("", "Variant of the server (as_shipped); null for the usual one.", "text"),
    "operation": Column("", "read (RRQ) or write (WRQ).", "text", False),
    "concurrency": Column("", "Transfers in flight at once.", "int", False),
    "transfers": Column("", "Transfers asked for; null where a duration was.", "int"),
    "distinct_files": Column("", "Different files that were read in turn.", "int", False),
    "file_size_bytes": Column("bytes", "Size of each file.", "int", False),
    "blksize": Column("bytes", "Asked-for bytes of a DATA block (RFC 2348); 512 asks for no option.", "int", False),
    "windowsize": Column("blocks", "Asked-for blocks per ACK (RFC 7440); 1 asks for no option.", "int", False),
    "verify": Column("", "How much was compared: full, sample or off.", "text", False),
    "server_cpus": Column(
        "", "Numbers of the cores the server ran on, as in 0,1; null for one that ran already.", "text"
    ),
    "generator_cpus": Column("", "Numbers of the cores the generator ran on, as in 0,1.", "text"),
    "busy_poll_us": Column("us", "How long the generator polled before it slept.", "int"),
    "duration_s": Column("s", "The measured window: the denominator of every rate.", "float"),
    "started": _count("transfers", "Transfers begun."),
    "completed": _count("transfers", "Transfers that ended with the last ACK."),
    "failed": _count("transfers", "Transfers that ended with an ERROR or a broken rule."),
    "timed_out": _count(
        "transfers",
        "Transfers that ran out of retries, or whose server was silent for the client's timeout at the end.",
    ),
    "interrupted": _count("transfers", "Transfers that the end of the trial cut off."),
    "retransmissions": _count("datagrams", "Datagrams that the generator sent again."),
    "duplicates": _count("datagrams", "Datagrams that the generator received and that brought nothing new."),
    "bytes_verified": _count("bytes", "File bytes that were compared with what they must be."),
    "content_mismatches": _count("transfers", "Transfers whose bytes were not what they must be, or too many."),
    "data_pps": Column("1/s", "DATA blocks acknowledged in order, per second.", "float"),
    "pps": Column("1/s", "Datagrams per second, both ways.", "float"),
    "goodput_bytes_per_s": Column("bytes/s", "File bytes per second.", "float"),
    "transfers_per_s": Column("1/s", "Transfers completed per second.", "float"),
    "block_rtt_ns_p50": Column("ns", "Block round trip, median; retransmitted blocks left out.", "float"),
    "block_rtt_ns_p99": Column("ns", "Block round trip, 99th percentile.", "float"),
    "block_rtt_ns_p999": Column("ns", "Block round trip, 99.9th percentile.", "float"),
    "transfer_ns_p50": Column("ns", "Duration of a transfer, median.", "float"),
    "transfer_ns_p99": Column("ns", "Duration of a transfer, 99th percentile.", "float"),
    "transfer_ns_max": Column("ns", "Duration of the slowest transfer.", "float"),
    "first_response_ns_p50": Column("ns", "Request to first answer, median.", "float"),
    "first_response_ns_p99": Column("ns", "Request to first answer, 99th percentile.", "float"),
    "server_cpu_s": Column(
        "s", "CPU time of all processes of the server, from READY to the end of the window.", "float"
    ),
    "server_cpu_ns_per_block": Column("ns", "That CPU time per DATA block acknowledged in order.", "float"),
    "server_rss_bytes_ready": Column(
        "bytes", "Resident memory of all its processes, added up, when it was ready.", "int"
    ),
    "server_rss_bytes_max": Column("bytes", "Largest such sum; pages that its processes share count in each.", "int"),
    "server_threads_max": Column("", "Most threads (and processes) of the server at once.", "int"),
    "generator_busy_fraction": Column("", "Productive share of the generator's loop, 0 to 1.", "float"),
    "generator_lag_ns_p99": Column("ns", "Kernel's stamp of a datagram to our reading it, 99th percentile.", "float"),
    "udp_drops_server": _count(
        "datagrams", "Datagrams dropped at the server's sockets; what the kernel joined to one (UDP_GRO) counts once."
    ),
    "udp_drops_generator": _count("datagrams", "Datagrams dropped at the generator's sockets; joined ones count once."),
    "ceiling_data_pps": Column(
        "1/s", "What the bare kernel did with these datagrams, no TFTP and no file, in the same round.", "float"
    ),
    "ceiling_ratio": Column("", "data_pps / ceiling_data_pps.", "float"),
    "fairness": Column("", "Slowest / median transfer time.", "float"),
    "amplification": Column("", "UDP payload bytes on the wire, both ways / file bytes.", "float"),
    "verdict": Column("", "valid or invalid.", "text", False),
    "verdict_reason": Column("", "Why a trial is invalid, else null.", "text"),
    "generator_sockets": Column("", "shared or per-transfer: how the clients came to their sockets.", "text"),
    "server_busy_fraction": Column(
        "", "Share of its cores that the server used inside the window, 0 to 1; null where it never sleeps.", "float"
    ),
    "round": Column("", "Which trial of its cell and server it is, from 1; a round's trials are pairs.", "int"),
    "server_fds_max": Column("", "Most open file descriptors of the server at once.", "int"),
    "server_context_switches": Column(
        "", "Context switches of all its processes, wanted and forced, from READY to the end of the window.", "int"
    ),
    "server_receive_buffer_bytes": Column("bytes", "Receive buffer that the kernel granted the server.", "int"),
    "server_send_buffer_bytes": Column("bytes", "Send buffer that the kernel granted the server.", "int"),
    "server_end": Column("", "How the server ended, in words.", "text"),
    "server_left_over": Column("", "Processes of the server that outlived its stop and were killed.", "int"),
    "protocol_faults": Column(
        "", "What the server did against the RFCs: list of {kind, count, example, rfc_section}.", "list"
    ),
    "server_pss_bytes_ready": Column(
        "bytes", "Proportional share of memory over all its processes (shared pages split), when it was ready.", "int"
    ),
    "server_pss_bytes_max": Column("bytes", "Largest such share, looked at once a second at most.", "int"),
    "server_processes_max": Column("", "Most processes of the server at once.", "int"),
    "udp_drops_host": _count(
        "datagrams", "Datagrams dropped for want of buffer at all UDP sockets of this network namespace."
    ),
    "blksize_granted": Column("bytes", "Smallest blksize that a transfer which was answered got.", "int"),
    "windowsize_granted": Column("blocks", "Smallest windowsize that a transfer which was answered got.", "int"),
    "server_findings": Column("", "What the server did wrong, for people: list of {kind, count, text}.", "list"),
    "unanswered": _count("transfers", "Transfers that never got an answer, timed out or cut off by the trial's end."),
    "generator_gap_ns_max": Column(
        "ns", "Longest time that a loop of the generator stood still, warm-up and drain included.", "int"
    ),
    "generator_gap_ns_sum": Column(
        "ns", "For how long in the window the worst loop stood still, 5 ms or more at once.", "int"
    ),
    "runner_gap_ns_max": Column("ns", "Longest time by which the runner was late in watching the trial.", "int"),
}

OUTCOMES = ("completed", "failed", "timed_out", "interrupted")

TRANSFER_COLUMNS: dict[str, Column] = {
    "intended_start_ns": Column("ns", "When the schedule wanted the transfer to start.", "int", False),
    "actual_start_ns": Column("ns", "When its request was sent.", "int", False),
    "first_response_ns": Column("ns", "When the first answer came; null if none did.", "int"),
    "end_ns": Column(
        "ns", "When it was decided: the answer's arrival, or the end of our patience; null if it never was.", "int"
    ),
    "bytes": Column("bytes", "File bytes transferred in order.", "int", False),
    "retransmissions": Column("datagrams", "Datagrams that the generator sent again for it.", "int", False),
    "outcome": Column("", f"One of {', '.join(OUTCOMES)}.", "text", False),
    "error_code": Column("", "Code of the ERROR that ended it, else null.", "int"),
}

INTERVAL_COLUMNS: dict[str, Column] = {
    "blocks": Column("blocks", "DATA blocks acknowledged in order.", "int", False),
    "bytes": Column("bytes", "File bytes of those blocks.", "int", False),
    "in_flight": Column("transfers", "Transfers in flight at the interval's end.", "int", False),
    "retransmissions": Column("datagrams", "Datagrams that the generator sent again.", "int", False),
    "duration_ns": Column(
        "ns", "How long the interval is; null in runs of older versions, which had 100 ms only.", "int"
    ),
}

LATENCY_KINDS = {
    "block_rtt": "Block round trip, ns.",
    "transfer": "Duration of a transfer, ns.",
    "first_response": "Request to first answer, ns.",
}
