"""What `tftpbench load` says in the end: a calm report for people, one document for programs.

Pure: figures in, text out; keys are those of trials.jsonl. Called by the command line.
"""

from collections.abc import Mapping

from tftpbench import checks
from tftpbench.loadgen import LoadConfig, LoadResult
from tftpbench.units import format_bytes, format_duration, format_rate

SCHEMA = "tftpbench.load/1"

_COUNTS = {
    "retransmissions": "sent again",
    "duplicates": "received twice",
    "udp_drops_generator": "dropped at our sockets",
}

_QUANTILES = {"p999": "p99.9"}

Figures = Mapping[str, int | float | None]


def has_failures(result: LoadResult) -> bool:
    """Whether any transfer failed, timed out, or brought wrong bytes."""
    return any(result.figures.get(name) for name in ("failed", "timed_out", "content_mismatches"))


def document(config: LoadConfig, result: LoadResult) -> dict[str, object]:
    """Plain JSON values."""
    found = checks.findings({**result.figures}, checks.Surroundings())
    verdict, reason = checks.verdict(found)
    return {
        "schema": SCHEMA,
        "host": config.host,
        "port": config.port,
        "operation": config.operation,
        "concurrency": config.concurrency,
        "transfers": config.transfers,
        "blksize": config.blksize,
        "windowsize": config.windowsize,
        "busy_poll_us": config.busy_poll_us,
        **result.figures,
        "verdict": verdict,
        "verdict_reason": reason,
        "protocol_faults": [
            {"kind": fault.kind, "count": fault.count, "example": fault.example} for fault in result.faults
        ],
    }


def render(config: LoadConfig, result: LoadResult) -> str:
    """A heading, figures by topic, then what went wrong and what to do about it."""
    figures = result.figures
    lines = [
        f"{config.concurrency} at once, {config.operation} {config.name}, {_where(config)}",
        "",
        *_figures(config, figures),
    ]
    if result.faults:
        lines += ["", "Protocol faults of the server:"]
        lines += [f"  {fault.kind}: {fault.count} times, as in: {fault.example}" for fault in result.faults]
    warnings = [f"{finding.text}: {finding.advice}" for finding in checks.findings({**figures}, checks.Surroundings())]
    if warnings:
        lines += ["", *(f"Warning: {warning}" for warning in warnings)]
    return "\n".join(lines)


def _figures(config: LoadConfig, figures: Figures) -> list[str]:
    parts = [
        ("transfers", _counts(figures, ("completed", "failed", "timed_out", "interrupted"))),
        ("rate", _rates(figures)),
        ("window", _time(figures, "duration_s", 1e9)),
        ("block rtt", _times(figures, "block_rtt_ns", ("p50", "p99", "p999"))),
        ("transfer", _times(figures, "transfer_ns", ("p50", "p99", "max"))),
        ("first reply", _times(figures, "first_response_ns", ("p50", "p99"))),
        ("datagrams", _counts(figures, ("retransmissions", "duplicates", "udp_drops_generator"))),
        ("contents", _contents(config, figures)),
    ]
    return [f"  {name:<12} {text}" for name, text in parts]


def _counts(figures: Figures, names: tuple[str, ...]) -> str:
    return ", ".join(f"{_count(figures, name)} {_COUNTS.get(name, name.replace('_', ' '))}" for name in names)


def _rates(figures: Figures) -> str:
    goodput = figures.get("goodput_bytes_per_s")
    moved = "-" if goodput is None else f"{format_bytes(goodput)}/s"
    return f"{_rate(figures, 'data_pps', 'blocks')}, {moved}, {_rate(figures, 'transfers_per_s', 'transfers')}"


def _contents(config: LoadConfig, figures: Figures) -> str:
    if config.verify == "off":
        return (
            "not compared" if config.operation == "write" else "not compared; --verify-against FILE compares every byte"
        )
    verified = format_bytes(figures.get("bytes_verified") or 0)
    return f"{verified} compared, {_count(figures, 'content_mismatches')} transfers with wrong bytes"


def _where(config: LoadConfig) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"{host}:{config.port}"


def _times(figures: Figures, prefix: str, names: tuple[str, ...]) -> str:
    return ", ".join(f"{_QUANTILES.get(name, name)} {_time(figures, f'{prefix}_{name}')}" for name in names)


def _time(figures: Figures, name: str, scale: float = 1) -> str:
    value = figures.get(name)
    return "-" if value is None else format_duration(value * scale)


def _rate(figures: Figures, name: str, unit: str) -> str:
    value = figures.get(name)
    return "-" if value is None else format_rate(value, unit)


def _count(figures: Figures, name: str) -> str:
    value = figures.get(name)
    return "-" if value is None else f"{value:,.0f}"
