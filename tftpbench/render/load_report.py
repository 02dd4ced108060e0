"""What `tftpbench load` says: a line while it goes on, a report for people at its end, one document for programs.

Pure: figures in, text out; keys are those of trials.jsonl.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from tftpbench.host.brake import stopped_text
from tftpbench.host.generator import ERROR_MEANINGS, LoadConfig, LoadResult, Progress, ReadBack
from tftpbench.measure import validity
from tftpbench.measure.findings import of_boots
from tftpbench.model.axes import LOAD_HOSTS, hosts_text
from tftpbench.model.boot import not_comparable
from tftpbench.model.errors import nothing_listens
from tftpbench.model.metrics import BOOT_OUTCOMES, COLUMNS, NEVER, OUTCOMES
from tftpbench.model.units import counted, format_bytes, format_count, format_duration, format_rate, rate_text
from tftpbench.model.workload import Piece
from tftpbench.render.plain import plain
from tftpbench.render.sections import Listing, Paragraph

SCHEMA = "tftpbench.load/1"

_NOTHING_COMPLETED = "no transfer completed, so nothing was measured"
# What takes less after the measured time is no more than a person's blink, and changes no rate that is shown.
_LATE_NS = 100_000_000
# What users judge a server by, before all other figures.
_FIRST = (
    "started", "completed", "failed", "timed_out", "interrupted", "transfer_ns_p50", "transfer_ns_p99",
    "transfer_ns_max", "transfers_per_s", "goodput_bytes_per_s",
)  # fmt: skip
# The same at a rate, where what was late or shed is part of every time.
_FIRST_AT_RATE = (
    "intended", "shed", "started", "completed", "failed", "timed_out", "late", "interrupted", "response_ns_p50",
    "response_ns_p95", "response_ns_p99", "response_ns_max", "offered_per_s", "achieved_per_s",
)  # fmt: skip
# The same of machines that boot.
_FIRST_BOOTS = (
    "machines", "booted", "boots_failed", "boots_late", "boots_shed", "boots_interrupted", "boot_ns_p50", "boot_ns_p99",
    "boot_ns_max", "miss_ns_p99", "misses_unanswered", "offered_per_s", "achieved_per_s", "burst_ns",
)  # fmt: skip


class Option(NamedTuple):
    """An option: the value asked for, the smallest one granted (but of tsize), and in how many transfers it was."""

    asked: int
    granted: float | None
    transfers_answered: int
    transfers_granted: int


@dataclass(frozen=True)
class Loaded:
    """A load that has ended, and what it may have left to say.

    `back`: what came back of the uploads; `refused`: nothing listened on the port; `not_compared`: why reads that were
    to be compared with a first one could not be; `held`: why no more than this first step was sent; `interrupted`: the
    person who started it ended it; `died`: how the server did that was started for it, "" where it lives.
    """

    config: LoadConfig
    result: LoadResult
    back: ReadBack | None = None
    refused: bool = False
    not_compared: str = ""
    held: str = ""
    interrupted: bool = False
    died: str = ""

    @cached_property
    def figures(self) -> dict[str, int | float | None]:
        """Those of the load, the first ones first; of the contents, what reading back found."""
        back = self.back
        compared = {} if back is None else {"bytes_verified": back.bytes, "content_mismatches": back.mismatches}
        first = _FIRST_AT_RATE if self.config.is_open_loop else _FIRST
        first = (*_FIRST_BOOTS, *first) if self.config.boots else first
        names = [each for name in first for each in (name, f"{name}_is_never") if each == name or each in COLUMNS]
        return {name: self.result.figures.get(name) for name in names} | self.result.figures | compared

    @property
    def not_done(self) -> int:
        """Transfers of a fixed number that did not even come to an end."""
        if self.config.transfers is None:
            return 0
        if self.config.boots:
            return self.config.transfers - self.count("machines") + self.count("boots_interrupted")
        return self.config.transfers - self.count("started") - self.count("shed") + self.count("interrupted")

    @property
    def at_once(self) -> int:
        """Transfers that can be in flight together: a fixed number may be less than the concurrency."""
        return min(self.config.concurrency, self.config.transfers or self.config.concurrency)

    @cached_property
    def late_ns(self) -> int:
        """How long the last transfer went on after the measured time; 0 for a fixed number, which has no such time."""
        ends = self.result.transfers.get("end_ns")
        if self.config.duration_ns is None or ends is None or not len(ends):
            return 0
        return max(0, int(ends.max()) - self.config.warm_up_ns - self.config.duration_ns)

    @property
    def has_failures(self) -> bool:
        """Whether any transfer or machine failed, was late or shed, moved wrong bytes or was not done, or none was."""
        lost = ("failed", "timed_out", "late", "shed", "content_mismatches", "boots_failed", "boots_late", "boots_shed")
        return (
            not self.count("booted" if self.config.boots else "completed")
            or any(map(self.count, lost))
            or self.not_done > 0
            or bool(self.not_compared or self.held or self.is_ended or self.died)
        )

    @property
    def is_ended(self) -> bool:
        """Whether it was ended before its time, by its brake or as a load host was lost."""
        return bool(self.result.stopped or self.result.hosts_lost)

    @property
    def load_hosts(self) -> int:
        """How many hosts it came from."""
        return self.count(LOAD_HOSTS) or 1

    @cached_property
    def errors(self) -> dict[int, int]:
        """How often each code of ERROR ended a transfer, the commonest first."""
        codes = self.result.transfers["error_code"][self.result.transfers["outcome"] == OUTCOMES.index("failed")]
        return dict(Counter(int(code) for code in codes if code >= 0).most_common())

    @cached_property
    def findings(self) -> tuple[validity.Finding, ...]:
        """Why the figures may not be trusted."""
        config, gaps = self.config, None
        if config.is_open_loop and config.arrivals == "poisson" and self.result.has_every_start:
            starts = (self.result.boots or self.result.transfers)["actual_start_ns"]
            gaps = validity.gap_distance(starts, config.rate_per_s, config.shape)
        asked = {
            **_load_asked(config), "concurrency": config.concurrency, "hosts_lost": self.result.hosts_lost,
        }  # fmt: skip
        is_ended = bool(self.interrupted or self.is_ended or self.died)
        around = validity.Surroundings(
            gap_distance=gaps,
            was_cut_off=is_ended or bool(self.count("interrupted") or self.count("boots_interrupted")),
            server_lost=self.died or None,
            shortest_piece_ns=validity.shortest_piece_ns(config.shape),
        )
        return validity.findings({**self.figures, **asked}, around)

    @cached_property
    def stopped(self) -> tuple[str, ...]:
        """Where machines that did not boot stopped, a line each."""
        if not self.config.boots:
            return ()
        row = {**self.figures, **_load_asked(self.config), "concurrency": self.config.concurrency}
        return tuple(
            each.text for each in of_boots(row, self.result.boots, self.config.boots, self.result.served_misses)
        )

    def up_after_ns(self, share: float) -> float | None:
        """When this share of all machines was up, since the first was to start; infinite where it never was.

        Of those that booted each row stands for as many. None where they have none, or the load was ended while there
        still were as many that might have come up.
        """
        boots, up = self.result.boots, self.count("booted")
        ends = np.sort(boots["end_ns"][boots["outcome"] == BOOT_OUTCOMES.index("booted")])
        rank = math.ceil(share * max(self.count("machines"), self.config.transfers or 0))
        if not 0 < rank <= up:
            is_open = (self.interrupted or self.is_ended) and 0 < rank <= up + self.not_done
            return None if is_open else math.inf
        if not len(ends):
            return None
        return float(ends[math.ceil(rank * len(ends) / up) - 1] - boots["intended_start_ns"].min())

    @cached_property
    def options(self) -> dict[str, "Option"]:
        """What became of each option that was asked for."""
        result = self.result
        return {
            name: Option(
                asked=value,
                granted=self.figures.get(f"{name}_granted") if result.granted.get(name) else None,
                transfers_answered=result.answered,
                transfers_granted=result.granted.get(name, 0),
            )
            for name, value in self.config.options.items()
        }

    def count(self, name: str) -> int:
        """A figure that counts; 0 where it is not known."""
        return int(self.figures.get(name) or 0)


def unanswered(config: LoadConfig) -> str:
    """The line for a person who has waited for a second."""
    return f"No answer yet from {_where(config)} after 1 s; the load goes on, Ctrl-C ends it."


def waiting(config: LoadConfig, now: Progress) -> str:
    """The line for a person who waits although the measured time is over."""
    drain_ns = config.deadline_ns if config.is_open_loop else config.drain_ns
    left_ns = max(0, drain_ns - (now.draining_ns or 0))
    left = format_duration(round(left_ns, -9))
    awaited = counted(now.open, "machine" if config.boots else "open transfer")
    return f"The time is over; waiting up to {left} for {awaited}."


def live(config: LoadConfig, now: Progress, before: Progress) -> str:
    """The line that a person watches; rates are those since `before`."""
    seconds = max(now.elapsed_ns - before.elapsed_ns, 1) / 1e9
    at, moved = f"{now.elapsed_ns / 1e9:.0f} s", f"{format_bytes((now.bytes - before.bytes) / seconds)}/s"
    if config.boots:
        return f"{at}: {now.machines_text}{f', {now.shed:,} shed' if now.shed else ''}, {moved}"
    total = "" if config.transfers is None else f" of {config.transfers:,}"
    return (
        f"{at}: {now.completed:,}{total} done, {now.ended - now.completed:,} errors, "
        f"{format_rate((now.completed - before.completed) / seconds, 'files')}, "
        f"{moved}, {now.open:,} open"
    )


def document(load: Loaded) -> dict[str, object]:
    """Plain JSON values."""
    config, back = load.config, load.back
    is_nothing = not load.count("completed") and not load.died and not load.result.hosts_lost
    verdict, reason = ("invalid", _NOTHING_COMPLETED) if is_nothing else validity.verdict(load.findings)
    return {
        "schema": SCHEMA,
        "host": config.host,
        "port": config.port,
        "operation": None if config.boots else config.operation,
        "boot": " : ".join(share.name for share in config.boots) or None,
        "concurrency": config.concurrency,
        **_load_asked(config),
        "transfers": config.transfers if config.over_ns is None else None,
        "blksize": None if config.boots else config.blksize,
        "windowsize": None if config.boots else config.windowsize,
        "busy_poll_us": config.busy_poll_us,
        "verify": config.verify,
        **load.figures,
        "options": {name: option._asdict() for name, option in load.options.items()},
        "verdict": verdict,
        "verdict_reason": reason,
        "failures": load.has_failures,
        "braked": None if load.result.hosts_lost else load.result.stopped,
        "hosts_lost": load.result.hosts_lost,
        **({"stopped": list(load.stopped)} if config.boots else {}),
        "read_back": None if back is None else {"files": back.files, "compared": back.compared},
        "warnings": list(_warnings(load)),
        "errors": {str(code): count for code, count in load.errors.items()},
        "error_messages": {str(error.code): error.message for error in load.result.errors},
        "protocol_faults": [asdict(fault) for fault in load.result.faults],
    }


def render(load: Loaded) -> str:
    """What was asked, the figures, then what went wrong and what to do about it."""
    config, result = load.config, load.result
    if load.refused and not load.died:
        return f"Error: {nothing_listens(_where(config))}"
    messages = {error.code: error.message for error in result.errors}
    errors = [f"{error_text(code)}: {_example(count, messages.get(code))}" for code, count in load.errors.items()]
    faults = [
        f"{fault.kind}{f' ({fault.rfc_section})' if fault.rfc_section else ''}: {_times(fault.count)}, "
        f"for example: {fault.example}"
        for fault in result.faults
    ]
    return plain([
        Listing(
            ", ".join(filter(None, (
                _where(config), _work_of(config), _load_of(load), hosts_text(load.load_hosts),
            ))),
            tuple(f"{name:<14} {text}" for name, text in _lines(load)),
        ),
        Listing("Machines:", load.stopped),
        Listing("ERRORs from the server:", tuple(errors)),
        Listing("Wrong answers of the server:", tuple(faults)),
        Paragraph(tuple(f"Warning: {warning}" for warning in _warnings(load))),
    ])  # fmt: skip


def error_text(code: int) -> str:
    """An ERROR in words: "ERROR 1 (file not found)"."""
    return f"ERROR {code} ({ERROR_MEANINGS[code]})" if code in ERROR_MEANINGS else f"ERROR {code}"


def _load_of(load: Loaded) -> str:
    config = load.config
    most = f"{config.concurrency:,} at once at most"
    if config.over_ns is not None:
        thing = "machine" if config.boots else "transfer"
        over = f"within {format_duration(config.over_ns)}, {config.spread} spread" if config.over_ns else "at once"
        return f"{counted(config.transfers or 0, thing)} {over}"
    if config.shape:
        return f"{shape_text(config.shape)}, {config.arrivals}, {most}"
    if config.rate_per_s is None:
        fewer = f" (no more: -n is {config.transfers:,})" if load.at_once < config.concurrency else ""
        return f"{load.at_once:,} at once{fewer}"
    return f"{rate_text(config.rate_per_s)}, {config.arrivals}, {most}"


def _work_of(config: LoadConfig) -> str:
    """What starts: "read pxelinux.0", "boot uefi-grub"."""
    if config.boots:
        return f"boot {' and '.join(share.name for share in config.boots)}"
    return f"{config.operation} {config.name}"


def _load_asked(config: LoadConfig) -> dict[str, object]:
    """What makes it an open loop, under the names of trials.jsonl; all null for a closed one."""
    is_storm, has_arrivals = config.over_ns is not None, config.rate_per_s is not None or bool(config.shape)
    return {
        "rate_per_s": config.rate_per_s,
        "arrivals": config.arrivals if has_arrivals else None,
        "machines_asked": config.transfers if is_storm else None,
        "over_ns": config.over_ns,
        "spread": config.spread if is_storm else None,
        "shape": shape_text(config.shape) if config.shape else None,
        "deadline_ns": config.deadline_ns if config.is_open_loop else None,
    }


def shape_text(pieces: Sequence[Piece]) -> str:
    """A shape in words: "10/s to 500/s in 1 min, 500/s for 5 min, 2,000 at once"."""
    return ", ".join(map(_piece_text, pieces))


def _piece_text(piece: Piece) -> str:
    if piece.kind == "burst":
        return f"{piece.count:,} at once"
    rates = [rate_text(count * 1e9 / per_ns) for count, per_ns in filter(None, (piece.from_ratio, piece.to_ratio))]
    lasts = format_duration(piece.for_ns)
    return f"{rates[0]} for {lasts}" if piece.kind == "hold" else f"{' to '.join(rates)} in {lasts}"


def _lines_of_boots(load: Loaded) -> Iterator[tuple[str, str]]:
    """How many machines are up, since when, and what a boot took."""

    def times(prefix: str, **shown: str) -> str:
        return ", ".join(f"{words} {_never_or_time(load.figures, f'{prefix}_{at}')}" for at, words in shown.items())

    names = {"boots_failed": "failed", "boots_late": "late", "boots_shed": "shed", "boots_interrupted": "interrupted"}
    lost = [f"{load.count(name):,} {word}" for name, word in names.items() if load.count(name)]
    yield "booted", ", ".join([f"{load.count('booted'):,} of {load.count('machines'):,} machines", *lost])
    if load.config.over_ns is not None:
        parts = {"half": 0.5, "99 %": 0.99, "the last": 1.0}
        yield "up", ", ".join(f"{part} {_up(load.up_after_ns(share))}" for part, share in parts.items())
    yield "boot time", times("boot_ns", p50="p50", p99="p99", max="max")
    if load.count("misses"):
        unanswered = load.count("misses_unanswered")
        lacking = f"; {unanswered:,} of {load.count('misses'):,} without an answer" if unanswered else ""
        yield "absent files", f"{times('miss_ns', p50='p50', p99='p99')} until refused{lacking}"
    if load.config.over_ns is None:
        yield "starts", _starts(load)
    elif (burst_ns := load.figures.get("burst_ns")) is not None:
        yield "starts", f"the last {_time(burst_ns)} after the first"
    yield "requests", f"{load.count('completed'):,} of {load.count('started'):,} ended as they should"


def _up(after_ns: float | None) -> str:
    if after_ns is None:
        return "-"
    return NEVER if math.isinf(after_ns) else f"after {format_duration(after_ns)}"


def _lines_at_rate(load: Loaded) -> Iterator[tuple[str, str]]:
    """What was served and how long it took, of all that was intended."""

    def times(prefix: str, *names: str) -> str:
        return ", ".join(f"{name} {_never_or_time(load.figures, f'{prefix}_{name}')}" for name in names)

    lost = [f"{load.count(name):,} {name.replace('_', ' ')}" for name in (*OUTCOMES[1:], "shed") if load.count(name)]
    yield "served", ", ".join([f"{load.count('completed'):,} of {load.count('intended'):,} transfers", *lost])
    yield "response time", times("response_ns", "p50", "p95", "p99", "max")
    yield "service time", times("service_ns", "p50", "p95", "p99")
    yield "starts", _starts(load)


def _starts(load: Loaded) -> str:
    """How the starts lay in time, against what was asked for."""

    def rate(name: str) -> str:
        value = load.figures.get(name)
        return "-" if value is None else f"{format_count(value)}/s"

    lag = _time(load.figures.get("schedule_lag_ns_p99"))
    return f"{rate('offered_per_s')} offered, {rate('achieved_per_s')} achieved; {lag} after their time (p99)"


def _never_or_time(figures: Mapping[str, float | None], name: str) -> str:
    return NEVER if figures.get(f"{name}_is_never") else _time(figures.get(name))


def _lines(load: Loaded) -> Iterator[tuple[str, str]]:
    figures = load.figures

    def quantiles(prefix: str, *names: str) -> str:
        return ", ".join(f"{name} {_time(figures.get(f'{prefix}_{name}'.replace('.', '')))}" for name in names)

    def rate(name: str, unit: str) -> str:
        value = figures.get(name)
        return "-" if value is None else format_rate(value, unit)

    goodput = figures.get("goodput_bytes_per_s")
    lost = [f"{load.count(name):,} {name.replace('_', ' ')}" for name in OUTCOMES[1:] if load.count(name)]
    if load.config.boots:
        yield from _lines_of_boots(load)
    elif load.config.is_open_loop:
        yield from _lines_at_rate(load)
    else:
        yield "served", ", ".join([f"{load.count('completed'):,} of {load.count('started'):,} transfers", *lost])
        yield "transfer time", quantiles("transfer_ns", "p50", "p99", "max")
    yield "files", rate("transfers_per_s", "files")
    yield "bytes", "-" if goodput is None else f"{format_bytes(goodput)}/s"
    yield "blocks", rate("data_pps", "blocks")
    yield "round trip", quantiles("block_rtt_ns", "p50", "p99", "p99.9")
    yield "first answer", quantiles("first_response_ns", "p50", "p99")
    if load.options:
        yield "options", ", ".join(_option(name, option) for name, option in load.options.items())
    yield (
        "datagrams",
        (
            f"{load.count('retransmissions'):,} sent again, {load.count('duplicates'):,} received twice, "
            f"{load.count('udp_drops_generator'):,} lost in our sockets"
        ),
    )
    yield "contents", _contents(load)
    if (error_ns := figures.get("clock_error_ns_max")) is not None:
        spread = _time(figures.get("start_spread_ns"))
        yield "load hosts", f"{load.load_hosts}, clocks known to {_time(error_ns)}, first starts within {spread}"
    measured = _time((figures.get("duration_s") or 0) * 1e9)
    late = f", then {_time(load.late_ns)} for open transfers; rates are of the {measured}"
    yield "measured for", measured + (late if load.late_ns >= _LATE_NS else "")


def _option(name: str, option: Option) -> str:
    """What became of an option: "blksize 8192 -> 2263", "tsize granted"."""
    text = name if name == "tsize" else f"{name} {option.asked}"
    refused = option.transfers_answered - option.transfers_granted
    if not option.transfers_answered:
        return f"{text} -> not known"
    if refused:
        some = f" in {refused:,} of {option.transfers_answered:,} transfers" if option.transfers_granted else ""
        return f"{text} -> not granted{some}"
    return f"{text} granted" if option.granted in (option.asked, None) else f"{text} -> {option.granted}"


def _contents(load: Loaded) -> str:
    verified, wrong, back = format_bytes(load.count("bytes_verified")), load.count("content_mismatches"), load.back
    if back is not None:
        return f"{back.compared:,} of {back.files:,} files read back, {verified} compared, {wrong:,} with wrong bytes"
    if load.config.verify == "off" and (why := not_comparable(load.config.boots)):
        return f"not compared: {why}"
    if load.config.operation == "write" or load.config.verify == "off":
        return "not compared" if load.not_compared else "not compared; --verify full compares every byte"
    return f"{verified} compared, {wrong:,} transfers with wrong bytes"


def _warnings(load: Loaded) -> Iterator[str]:
    back = load.back
    if load.refused and not load.died:
        yield nothing_listens(_where(load.config))
        return
    yield from _warnings_of_brake(load)
    for finding in load.findings:
        yield f"{finding.text}: {finding.advice}"
    if load.not_compared:
        yield load.not_compared
    if not load.died and not load.result.hosts_lost:  # which say why they did not end
        yield from _warnings_of_silence(load)
    if not load.died:
        yield from _warnings_at_rate(load)
    if load.interrupted or (load.not_done and not load.is_ended and not load.died):
        yield _not_done(load)
    if back is not None and back.compared < back.files:
        why = ", ".join(error_text(code) for code in back.errors) or "no answer"
        yield (
            f"{back.files - back.compared:,} of {back.files:,} files could not be read back ({why}), so they were not "
            "compared: let the server serve its uploads, or pass --verify off"
        )


def _warnings_of_silence(load: Loaded) -> Iterator[str]:
    """Why transfers had no end, as far as the network tells."""
    config = load.config
    if not load.count("completed") and (load.result.transfers["first_response_ns"] < 0).all():
        fewer = "try fewer at once, or " if load.at_once > 1 else ""
        yield (
            f"nothing answered and nothing refused (by ICMP) on {_where(config)}: the server is overloaded, "
            f"or something drops its packets; {fewer}check the address"
        )
    elif timed_out := load.count("timed_out"):
        yield (
            f"{timed_out:,} of {load.count('started'):,} transfers timed out, since the server did not answer: "
            "check that it still runs, and read its log"
        )
    elif config.transfers is None and load.count("interrupted") and not load.count("completed"):
        yield (
            f"none of {load.count('started'):,} transfers ended, though the server kept answering: "
            "give a longer --duration, or check that the file has an end"
        )


def _not_done(load: Loaded) -> str:
    """What the end of the load left undone, and what to do about it: nothing, where that end was asked for."""
    config = load.config
    what = "machines" if config.boots else "transfers"
    undone = f"{load.not_done:,} of {config.transfers or 0:,} {what} were not done when the load ended"
    if load.interrupted:
        return f"interrupted: {undone}" if load.not_done else "interrupted: the figures are of the time until then"
    fewer = "ask for fewer" if config.is_open_loop else "ask for fewer, or for a --duration"
    return f"{undone}, {format_duration(config.limit_ns)} after its start at the latest: {fewer}"


def _warnings_of_brake(load: Loaded) -> Iterator[str]:
    if load.held:
        yield load.held
    if load.result.stopped and not load.result.hosts_lost:  # which is a finding
        yield stopped_text(load.result.stopped, _where(load.config))


def _warnings_at_rate(load: Loaded) -> Iterator[str]:
    late, shed, intended = load.count("late"), load.count("shed"), f"{load.count('intended'):,} transfers"
    if load.config.boots:
        late, shed = load.count("boots_late"), load.count("boots_shed")
        intended = f"{load.count('machines'):,} machines"
    slower = "lower the --rate"
    if load.config.over_ns is not None or load.config.shape:
        slower = "spread them by a longer --over" if load.config.shape == () else "lower the rates of --shape"
    if late:
        deadline = format_duration(load.config.deadline_ns)
        advice = f"{slower}, or give a longer --deadline"
        yield f"{late:,} of {intended} had not ended at their deadline of {deadline}: {advice}"
    if shed:
        yield (
            f"{shed:,} of {intended} were not started, as {load.config.concurrency:,} were in flight: "
            f"{slower}, or allow more with --in-flight-max"
        )


def _where(config: LoadConfig) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"{host}:{config.port}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _example(count: int, message: str | None) -> str:
    return f'{_times(count)}, for example: "{message}"' if message else _times(count)


def _time(value_ns: float | None) -> str:
    return "-" if value_ns is None else format_duration(value_ns)
