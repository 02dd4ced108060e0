"""What `tftpbench load` prints at its end: a report for people, one document for programs.

Pure: figures in, text out; keys are those of trials.jsonl.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict

from tftpbench.host.generator import Fault, LoadConfig, LoadResult, ReadBack
from tftpbench.measure import validity
from tftpbench.model.metrics import OUTCOMES
from tftpbench.model.protocol import ERRORS
from tftpbench.model.units import format_bytes, format_duration, format_rate

SCHEMA = "tftpbench.load/1"

_COUNTS = {
    "retransmissions": "sent again",
    "duplicates": "received twice",
    "udp_drops_generator": "dropped at our sockets",
}

_QUANTILES = {"p999": "p99.9"}

Figures = Mapping[str, int | float | None]


def has_failures(config: LoadConfig, result: LoadResult, back: ReadBack | None = None) -> bool:
    """Whether any transfer failed, timed out, moved wrong bytes or was not done, or not even one completed."""
    figures = _with_read_back(result, back)
    return (
        not figures.get("completed")
        or any(figures.get(name) for name in ("failed", "timed_out", "content_mismatches"))
        or _not_done(config, figures) > 0
    )


def unanswered(config: LoadConfig) -> str:
    """The line for a person who has waited for a second."""
    return f"No answer yet from {_where(config)} after 1 s; the load goes on, Ctrl-C ends it."


def refused(config: LoadConfig) -> str:
    """The line for a port that is closed."""
    return f"Nothing listens at {_where(config)} (ICMP port unreachable): start the server, or correct the address."


def document(config: LoadConfig, result: LoadResult, back: ReadBack | None = None) -> dict[str, object]:
    """Plain JSON values."""
    figures = _with_read_back(result, back)
    verdict, reason = validity.verdict(_findings(config, figures))
    warnings = list(_warnings(config, result, figures, back))
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
        "verify": config.verify,
        **figures,
        "verdict": verdict,
        "verdict_reason": reason,
        "read_back": None if back is None else {"files": back.files, "compared": back.compared},
        "warnings": warnings,
        "errors": {str(code): count for code, count in _error_codes(result).items()},
        "error_messages": {str(error.code): error.message for error in result.errors},
        "protocol_faults": [asdict(fault) for fault in result.faults],
    }


def render(config: LoadConfig, result: LoadResult, back: ReadBack | None = None) -> str:
    """A heading, figures by topic, then what went wrong and what to do about it."""
    figures = _with_read_back(result, back)
    lines = [
        f"{config.concurrency} at once, {config.operation} {config.name}, {_where(config)}",
        "",
        *_topics(config, figures, back),
    ]
    if codes := _error_codes(result):
        lines += ["", "ERRORs from the server:"]
        messages = {error.code: error.message for error in result.errors}
        lines += [
            f"  {error_text(code)}: {_times_text(count)}{_quoted(messages.get(code))}" for code, count in codes.items()
        ]
    if result.faults:
        lines += ["", "Protocol faults of the server:"]
        lines += [_fault_text(fault) for fault in result.faults]
    if warnings := list(_warnings(config, result, figures, back)):
        lines += ["", *(f"Warning: {warning}" for warning in warnings)]
    return "\n".join(lines)


def error_text(code: int) -> str:
    """An ERROR in words: "ERROR 1 (file not found)"."""
    return f"ERROR {code} ({ERRORS[code]})" if code in ERRORS else f"ERROR {code}"


def _fault_text(fault: Fault) -> str:
    against = f" ({fault.rfc_section})" if fault.rfc_section else ""
    return f"  {fault.kind}{against}: {_times_text(fault.count)}, as in: {fault.example}"


def _quoted(message: str | None) -> str:
    return f', as in: "{message}"' if message else ""


def _with_read_back(result: LoadResult, back: ReadBack | None) -> dict[str, int | float | None]:
    if back is None:
        return dict(result.figures)
    return result.figures | {"bytes_verified": back.bytes, "content_mismatches": back.mismatches}


def _findings(config: LoadConfig, figures: Figures) -> tuple[validity.Finding, ...]:
    return validity.findings({**figures, "concurrency": config.concurrency}, validity.Surroundings())


def _error_codes(result: LoadResult) -> dict[int, int]:
    """How often each code of ERROR ended a transfer, the commonest first."""
    codes = result.transfers["error_code"][result.transfers["outcome"] == OUTCOMES.index("failed")]
    return dict(Counter(int(code) for code in codes if code >= 0).most_common())


def _warnings(config: LoadConfig, result: LoadResult, figures: Figures, back: ReadBack | None) -> Iterator[str]:
    for finding in _findings(config, figures):
        yield f"{finding.text}: {finding.advice}"
    if (result.transfers["first_response_ns"] < 0).all():
        yield f"nothing answered: look whether a server listens on {_where(config)}"
    elif timed_out := int(figures.get("timed_out") or 0):
        yield (
            f"{timed_out:,} of {_count(figures, 'started')} transfers timed out, since the server did not answer: "
            "look whether it still runs, and what it logged"
        )
    elif config.transfers is None and figures.get("interrupted") and not figures.get("completed"):
        yield (
            f"none of {_count(figures, 'started')} transfers came to its end, though the server went on answering: "
            "ask for a longer --duration, or look whether the file has an end"
        )
    if not_done := _not_done(config, figures):
        yield (
            f"{not_done:,} of {config.transfers:,} transfers were not done when the load ended, which it does after "
            f"{format_duration(config.limit_ns)} at the latest: ask for fewer, or for a --duration"
        )
    if back is not None and back.compared < back.files:
        why = ", ".join(error_text(code) for code in back.errors) or "no answer"
        yield (
            f"{back.files - back.compared:,} of {back.files:,} files could not be read back ({why}): nothing is known "
            "of their contents; let the server serve what it stores, or pass --verify off"
        )


def _topics(config: LoadConfig, figures: Figures, back: ReadBack | None) -> list[str]:
    parts = [
        # Only an open loop has a deadline.
        ("transfers", _counts(figures, tuple(name for name in OUTCOMES if name != "late" or config.rate_per_s))),
        ("rate", _rates(figures)),
        ("window", _time(figures, "duration_s", 1e9)),
        ("block rtt", _times(figures, "block_rtt_ns", ("p50", "p99", "p999"))),
        ("transfer", _times(figures, "transfer_ns", ("p50", "p99", "max"))),
        ("first reply", _times(figures, "first_response_ns", ("p50", "p99"))),
        ("datagrams", _counts(figures, ("retransmissions", "duplicates", "udp_drops_generator"))),
        ("contents", _contents(config, figures, back)),
    ]
    return [f"  {name:<12} {text}" for name, text in parts]


def _contents(config: LoadConfig, figures: Figures, back: ReadBack | None) -> str:
    verified = format_bytes(figures.get("bytes_verified") or 0)
    wrong = _count(figures, "content_mismatches")
    if back is not None:
        return f"{back.compared:,} of {back.files:,} files read back, {verified} compared, {wrong} with wrong bytes"
    if config.operation == "write":
        return "not compared"
    if config.verify == "off":
        return "not compared; --verify-against FILE compares every byte"
    return f"{verified} compared, {wrong} transfers with wrong bytes"


def _counts(figures: Figures, names: tuple[str, ...]) -> str:
    return ", ".join(f"{_count(figures, name)} {_COUNTS.get(name, name.replace('_', ' '))}" for name in names)


def _rates(figures: Figures) -> str:
    goodput = figures.get("goodput_bytes_per_s")
    moved = "-" if goodput is None else f"{format_bytes(goodput)}/s"
    return f"{_rate(figures, 'data_pps', 'blocks')}, {moved}, {_rate(figures, 'transfers_per_s', 'transfers')}"


def _where(config: LoadConfig) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"{host}:{config.port}"


def _not_done(config: LoadConfig, figures: Figures) -> int:
    """Transfers of a fixed number that did not even come to an end."""
    if config.transfers is None:
        return 0
    return config.transfers - int(figures.get("started") or 0) + int(figures.get("interrupted") or 0)


def _times(figures: Figures, prefix: str, names: tuple[str, ...]) -> str:
    return ", ".join(f"{_QUANTILES.get(name, name)} {_time(figures, f'{prefix}_{name}')}" for name in names)


def _times_text(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _time(figures: Figures, name: str, scale: float = 1) -> str:
    value = figures.get(name)
    return "-" if value is None else format_duration(value * scale)


def _rate(figures: Figures, name: str, unit: str) -> str:
    value = figures.get(name)
    return "-" if value is None else format_rate(value, unit)


def _count(figures: Figures, name: str) -> str:
    value = figures.get(name)
    return "-" if value is None else f"{value:,.0f}"
