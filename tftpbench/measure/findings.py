"""What was noticed of a server in a trial, in words: with how many transfers or machines it hit, and whose it is.

A server that misbehaves is a finding about it and no fault of the run: nothing here makes a trial invalid (that is
`validity`). What the test did, and what the RFCs allow, must never count as the server's: `ORIGINS` says which. Pure:
figures and transfers in, findings out.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tftpbench.host.generator import ERROR_MEANINGS
from tftpbench.model.boot import Share
from tftpbench.model.invariants import number
from tftpbench.model.metrics import BOOT_OUTCOMES, BOOT_REASONS, OUTCOMES
from tftpbench.model.units import counted, format_duration

Kind = Literal[
    "died",
    "not_ready",
    "unresponsive",
    "wrong_bytes",
    "not_read_back",
    "refused",
    "failed",
    "silent",
    "timed_out",
    "late",
    "shed",
    "unfinished",
    "not_granted",
    "unfair",
    "port_taken",
    "boots_refused",
    "boots_unanswered",
    "boots_silent",
    "boots_broken",
    "boots_late",
    "boots_shed",
    "boots_unfinished",
    "misses_unanswered",
    "misses_served",
]
Origin = Literal["server", "test", "option", "profile", "unmeasured"]
ORIGINS: dict[Kind, Origin] = {
    "died": "server",
    "not_ready": "server",
    "unresponsive": "server",
    "wrong_bytes": "server",
    "not_read_back": "server",
    "refused": "server",
    "failed": "server",
    "silent": "server",
    "timed_out": "server",
    "late": "server",
    "shed": "server",
    "unfinished": "test",  # its time was over: a server that was silent by then has "timed_out" or "silent"
    "not_granted": "option",  # RFC 2347: a server may leave an option out, or answer with less
    "unfair": "server",
    "port_taken": "unmeasured",
    "boots_refused": "server",
    "boots_unanswered": "server",
    "boots_silent": "server",
    "boots_broken": "server",
    "boots_late": "server",
    "boots_shed": "server",
    "boots_unfinished": "test",
    "misses_unanswered": "server",
    "misses_served": "profile",  # it has the file: a machine of the profile's kind may boot otherwise there
}
"""Whose doing each kind is. server: it did wrong. test: the trial was too short. option: what was asked for was not
granted, which is legal. profile: the server has what a boot profile expects to be absent. unmeasured: another program
stood in the way."""
# What is said of an unresponsive server that was waited for in vain.
GIVEN_UP = "answered no new request after the load"
# Why a machine's boot failed, as BOOT_REASONS has it.
_OF_REASON: dict[str, Kind] = {
    "refused": "boots_refused",
    "no answer": "boots_unanswered",
    "fell silent": "boots_silent",
    "broke the protocol": "boots_broken",
    "wrong bytes": "wrong_bytes",
}
# Of a trial; the places of a boot at which so few machines stopped that no more are listed are added up.
_STOPPED_MAX = 8
# Kinds under the names that older rows have, and their names now.
FORMER_KINDS = {"deaf": "unresponsive"}
# A client that needs ten times as long as the median one, and longer than its own timer, was passed over.
FAIRNESS_MAX = 10.0
# Of so few transfers the slowest says nothing about fairness.
FAIRNESS_TRANSFERS_MIN = 20

_STOPPED = re.compile(r"\d+ machines? stopped at (.+): ([^:]+)")
_SERVED = re.compile(r"\d+ machines? (?:was|were) served (.+), which .+")
# Where a machine stopped, and why: columns of boots.parquet.
_PLACE = ("share", "failed_step", "reason")

Row = Mapping[str, object]
Columns = Mapping[str, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class ServerFinding:
    """One thing that was noticed. `count`: transfers or machines that it hit, 1 where it hit the trial as a whole."""

    kind: Kind
    count: int
    text: str


def of_a_lost_server(why: str, kind: Literal["died", "not_ready", "port_taken"]) -> ServerFinding:
    """The finding where a server ended by itself, never was ready, or could not have its port."""
    return ServerFinding(kind, 1, why)


def of_uploads(lacking: int, files: int) -> ServerFinding:
    """The finding where uploads could not be read again."""
    return ServerFinding("not_read_back", lacking, f"did not give {lacking} of {files} uploads back: not compared")


def stopped_at(text: str) -> tuple[str, str] | None:
    """The step at which the machines of a finding stopped, and the reason; None where its text says neither."""
    found = _STOPPED.fullmatch(text)
    return (found[1], found[2]) if found else None


def place_of(text: str) -> tuple[str, ...]:
    """What sets a finding apart from others of its kind: where machines stopped and why, or what they were served."""
    served = _SERVED.match(text)
    return stopped_at(text) or (served.groups() if served else ())


def of_boots(
    row: Row,
    boots: Columns,
    shares: Sequence[Share],
    served: Sequence[tuple[int, int, int]] = (),
    *,
    died: str | None = None,
    silent_s: float = 0,
) -> list[ServerFinding]:
    """All findings of a load of boots, the most severe first: machines by the place at which they stopped.

    `boots` has the columns of boots.parquet, outcome and reason as numbers; `served` is `LoadResult.served_misses`; the
    rest is as for `of_a_load`.
    """
    misses = int(number(row, "misses_unanswered") or 0)
    stopped = list(_stopped(boots, shares))
    has_wrong = any(finding.kind == "wrong_bytes" for finding in stopped)
    found = [
        *(finding for finding in _whole(row, died, silent_s) if not (has_wrong and finding.kind == "wrong_bytes")),
        *stopped,
        *_past_the_deadline(row, boots, shares),
        *_boots_shed(row, boots),
        ServerFinding("misses_unanswered", misses, f"left {counted(misses, 'request')} for absent files unanswered"),
        *_boots_unfinished(boots, shares, has_died=died is not None),
        *_misses_served(shares, served),
    ]
    return [finding for finding in found if finding.count]


def of_a_load(
    row: Row, transfers: Columns, timeout_ns: int, *, died: str | None = None, silent_s: float = 0
) -> list[ServerFinding]:
    """All findings of a load, the most severe first.

    `row` has the figures of trials.jsonl, `transfers` the columns of transfers.parquet with -1 for never. `timeout_ns`:
    the client's first wait. `died`: how the server did, in words; `silent_s`: for how long it answered no new request
    after the load, inf where it was given up.
    """
    found = [
        *_whole(row, died, silent_s),
        *_transfers(row, transfers, has_died=died is not None),
        *_shed(row),
        *_not_granted(row),
        *_unfair(row, timeout_ns),
    ]
    return [finding for finding in found if finding.count]


def _stopped(boots: Columns, shares: Sequence[Share]) -> Iterator[ServerFinding]:
    """Machines that failed, by step and reason, the most frequent first."""
    failed = boots["outcome"] == BOOT_OUTCOMES.index("failed")
    places = Counter(
        (_step(shares, share, step), BOOT_REASONS[reason])
        for share, step, reason in zip(*(boots[name][failed].tolist() for name in _PLACE), strict=True)
    ).most_common()
    for (step, reason), count in places[:_STOPPED_MAX]:
        yield ServerFinding(_OF_REASON[reason], count, f"{counted(count, 'machine')} stopped at {step}: {reason}")
    if more := places[_STOPPED_MAX:]:
        count = sum(count for _, count in more)
        text = f"{counted(count, 'machine')} more stopped at {counted(len(more), 'other place')}"
        yield ServerFinding(_OF_REASON[more[0][0][1]], count, text)


def _past_the_deadline(row: Row, boots: Columns, shares: Sequence[Share]) -> Iterator[ServerFinding]:
    count, where = _at(boots, shares, "late")
    deadline = format_duration(number(row, "deadline_ns") or 0)
    text = f"{counted(count, 'machine')} had not booted {deadline} after the intended start: {where}"
    yield ServerFinding("boots_late", count, text + _longer(count, number(row, "machines")))


def _boots_unfinished(boots: Columns, shares: Sequence[Share], *, has_died: bool) -> Iterator[ServerFinding]:
    count, where = _at(boots, shares, "interrupted")
    end = "the server died" if has_died else "the trial ended"  # its silence, or the test's end
    text = f"{counted(count, 'machine')} had not booted when {end}: {where}"
    yield ServerFinding("boots_silent" if has_died else "boots_unfinished", count, text)


def _misses_served(shares: Sequence[Share], served: Sequence[tuple[int, int, int]]) -> Iterator[ServerFinding]:
    """Files that a profile expects to be absent and that were there, the most frequent first."""
    files: Counter[str] = Counter()
    for share, step, machines in served:
        # One that asks for the same name twice is served twice, and counts once.
        name = shares[share].steps[step].name
        files[name] = max(files[name], machines)
    for name, count in files.most_common()[:_STOPPED_MAX]:
        text = f"{counted(count, 'machine')} {'was' if count == 1 else 'were'} served {name}"
        yield ServerFinding("misses_served", count, f"{text}, which the profile expects to be absent")


def _boots_shed(row: Row, boots: Columns) -> Iterator[ServerFinding]:
    count, all_ = int(number(row, "boots_shed") or 0), int(number(row, "machines") or len(boots["outcome"]))
    full = f"as {number(row, 'concurrency') or 0:.0f} were booting"
    text = f"did not keep up: {count} of {counted(all_, 'machine')} did not begin, {full}"
    yield ServerFinding("boots_shed", count, text)


def _at(boots: Columns, shares: Sequence[Share], outcome: str) -> tuple[int, str]:
    """How many machines ended so, and at which steps they were: "12 at vmlinuz, 1 at grub.cfg"."""
    ended = boots["outcome"] == BOOT_OUTCOMES.index(outcome)
    columns = (boots[name][ended].tolist() for name in _PLACE[:2])
    steps = Counter(_step(shares, share, step) for share, step in zip(*columns, strict=True)).most_common()
    named = [f"{count} at {step}" for step, count in steps[:_STOPPED_MAX]]
    return _count(ended), ", ".join(named + (["the rest elsewhere"] if len(steps) > _STOPPED_MAX else []))


def _step(shares: Sequence[Share], share: int, step: int) -> str:
    """The name that the step asks for, with the variables in it; steps count from 1."""
    return shares[share].steps[step - 1].name if step > 0 else "its start"


def _whole(row: Row, died: str | None, silent_s: float) -> Iterator[ServerFinding]:
    if died is not None:
        yield of_a_lost_server(died, "died")
    if silent_s:
        for_so_long = f"answered no new request for {silent_s:.0f} s after the load"
        yield ServerFinding("unresponsive", 1, GIVEN_UP if math.isinf(silent_s) else for_so_long)
    wrong = int(number(row, "content_mismatches") or 0)
    judged = number(row, "started") or number(row, "completed")  # one that sends too much never completes
    yield ServerFinding("wrong_bytes", wrong, f"wrong bytes in {_of(wrong, judged)}")


def _transfers(row: Row, transfers: Columns, *, has_died: bool) -> Iterator[ServerFinding]:
    outcome, errors = transfers["outcome"], transfers["error_code"]
    started = number(row, "started") or len(outcome)  # not every transfer need have a row
    answered = transfers["first_response_ns"] >= 0
    failed, timed_out, cut_off = (outcome == OUTCOMES.index(name) for name in ("failed", "timed_out", "interrupted"))
    refused = failed & (errors >= 0) & (transfers["first_response_ns"] == transfers["end_ns"])
    count = _count(refused)
    yield ServerFinding("refused", count, f"refused {_of(count, started)} ({_codes(errors[refused], row)})")
    broken_off = failed & ~refused
    count = _count(broken_off)
    yield ServerFinding("failed", count, f"broke off {_of(count, started)} ({_codes(errors[broken_off], row)})")
    if has_died:
        timed_out, cut_off = timed_out | cut_off, np.zeros_like(cut_off)  # its silence, and not the test's end
    count = _count(timed_out & ~answered)
    yield ServerFinding("silent", count, f"never answered {_of(count, started)}")
    count = _count(timed_out & answered)
    yield ServerFinding("timed_out", count, f"fell silent in {_of(count, started)}")
    late = outcome == OUTCOMES.index("late")
    if count := _count(late):
        yield ServerFinding("late", count, _late(row, count, started, _count(late & ~answered)))
    if count := _count(cut_off):
        yield ServerFinding("unfinished", count, _done_in(row, transfers, cut_off))


def _late(row: Row, count: int, started: float, unanswered: int) -> str:
    deadline = format_duration(number(row, "deadline_ns") or 0)
    silent = f", {unanswered} of them without any answer" if unanswered else ""
    text = f"had not finished {_of(count, started)} at their deadline, {deadline} after their intended start{silent}"
    return text + _longer(count, started)


def _longer(late: int, started: float | None) -> str:
    """Where all were late the deadline says nothing of the server."""
    return "; give a longer deadline" if late and late == started else ""


def _done_in(row: Row, transfers: Columns, cut_off: npt.NDArray[np.bool_]) -> str:
    """A transfer that is cut off had waited for less than the client's timer: the trial's end came first."""
    done = number(row, "completed") or _count(transfers["outcome"] == OUTCOMES.index("completed"))
    asked = max(len(transfers["outcome"]), int(number(row, "started") or 0), int(number(row, "transfers") or 0))
    return f"{done:.0f} of {asked} done in {format_duration(int(transfers['end_ns'][cut_off].max()))}"


def _shed(row: Row) -> Iterator[ServerFinding]:
    count = int(number(row, "shed") or 0)
    full = f"as {number(row, 'concurrency') or 0:.0f} were in flight"
    yield ServerFinding("shed", count, f"did not keep up: {_of(count, number(row, 'intended'))} not begun, {full}")


def _not_granted(row: Row) -> Iterator[ServerFinding]:
    for option in ("blksize", "windowsize"):
        asked, granted = number(row, option), number(row, f"{option}_granted")
        if asked is not None and granted is not None and granted < asked:
            yield ServerFinding("not_granted", 1, f"granted {option} {granted:.0f} where {asked:.0f} was asked for")


def _unfair(row: Row, timeout_ns: int) -> Iterator[ServerFinding]:
    fairness, slowest_ns = number(row, "fairness") or 0, number(row, "transfer_ns_max") or 0
    many = (number(row, "completed") or 0) >= FAIRNESS_TRANSFERS_MIN
    if many and fairness > FAIRNESS_MAX and slowest_ns > timeout_ns:
        yield ServerFinding("unfair", 1, f"the slowest transfer took {fairness:.0f} times as long as the median one")


def _of(count: int, total: float | None) -> str:
    return f"{count} of {total or 0:.0f} transfers"


def _codes(errors: npt.NDArray[np.int64], row: Row) -> str:
    """Which ERRORs, the most frequent first; a transfer without one we ended ourselves, for what the server sent."""
    codes, counts = np.unique(errors, return_counts=True)
    ordered = [int(code) for _, code in sorted(zip(-counts, codes, strict=True))]
    named = [f"ERROR {code}, {ERROR_MEANINGS.get(code, 'unknown')}" if code >= 0 else _faults(row) for code in ordered]
    return "; ".join(named[:3])


def _faults(row: Row) -> str:
    """The kinds of faults of the row, the most frequent first, with the RFC that each breaks."""
    faults = row.get("protocol_faults")
    listed = [fault for fault in faults if isinstance(fault, Mapping)] if isinstance(faults, list) else []
    listed.sort(key=lambda fault: -int(fault["count"]))
    named = ["longer than expected" for fault in listed if fault["kind"] == "longer_than_expected"]
    broken = [f"{fault['kind']}, {fault['rfc_section']}" for fault in listed if fault.get("rfc_section")]
    if broken or not named:
        named.append(": ".join(["protocol fault", *broken[:1]]) + "".join(f"; {each}" for each in broken[1:2]))
    return "; ".join(named)


def _count(mask: npt.NDArray[Any]) -> int:
    return int(np.count_nonzero(mask))
