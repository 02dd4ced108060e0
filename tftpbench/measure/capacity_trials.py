"""Searches for capacities on real servers: the trials of each, what a row says of one, and the document of the result.

A trial of a search is a trial as any other: a fresh server, kept before the next begins. It must never decide which
load comes next.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from tftpbench.host.generator import LoadResult
from tftpbench.host.server import udp_strays_host
from tftpbench.host.target import Target
from tftpbench.measure.capacity import Asked, Result, Search
from tftpbench.measure.findings import GIVEN_UP
from tftpbench.measure.plan import Trial
from tftpbench.measure.search import Seen, second_opinion
from tftpbench.measure.trial import Outcome
from tftpbench.measure.validity import SERVER_HOST_LOST, Kind, commonest, cores_of
from tftpbench.model import axes
from tftpbench.model.capacity import (
    MACHINES,
    Fault,
    FoundCapacity,
    FoundGoal,
    FoundLatency,
    FoundLoad,
    FoundTrial,
    OmittedStage,
    Recovery,
)
from tftpbench.model.errors import LoadError
from tftpbench.model.invariants import Row, number
from tftpbench.model.units import format_count, format_duration
from tftpbench.model.workload import Cell, Sought, Storm

# A running server is left until nothing came for so long; at most so long, for others may be asking this machine, too.
QUIET_S, QUIET_MAX_S, LOOK_S = 2.0, 20.0, 0.1
# What makes a trial invalid at any load.
_OF_THE_MACHINE = (
    Kind.STEAL, Kind.GENERATOR_GAPS, Kind.GENERATOR_STOPPED, Kind.RUNNER_STOPPED, Kind.CLOCKS_APART, Kind.STARTED_LATE
)  # fmt: skip
# The columns of a row that count what was intended, done and cut off, and the name of its times.
_OF_TRANSFERS = ("intended", "completed", "interrupted")


def search_all(
    searches: Iterable[Trial],
    do: Callable[[Trial], Outcome],
    rows: Sequence[Row],
    kept: Sequence[FoundCapacity],
) -> Iterator[tuple[Trial, list[FoundCapacity] | None]]:
    """Do those of `searches` that `kept` lacks: each when it begins, with None, and with all that are found by its end.

    `do` does a trial and keeps it, `rows` are those that a run has already. One that was interrupted is done again, but
    for the trials that it has. An interrupted one is the last.
    """
    numbers = itertools.count(max((int(number(row, "trial") or 0) for row in rows), default=0) + 1)
    found = [each for each in kept if not each.is_interrupted]
    known = {(each.server, each.cell_key, each.round) for each in found}
    for base in searches:
        cell, load = base.cell, base.cell.load
        if not isinstance(load, Sought) or (base.contender.name, cell.key, base.round) in known:
            continue
        yield base, None
        # What comes too late to load hosts is not counted here.
        strays = (lambda: None) if cell.generators else udp_strays_host
        trials = ServerTrials(base, do, rows, numbers, partial(wait_until_quiet, strays))
        result = Search(load, trials, partial(load_text, load)).run()
        where = {
            "cell_key": cell.key,
            "cell": axes.label(cell.labelled, ("concurrency",)),
            axes.LOAD_HOSTS: cell.load_hosts,
            "round": base.round,
            "boot": cell.point["boot"] or cell.point["mix"],
        }
        found.append(_with_second_opinion(found_of(result, unit=unit_of(cell), server=base.contender.name, **where)))
        yield base, found
        if result.is_interrupted:
            return


class ServerTrials:
    """The trials of one search on a real server; each is kept before the next begins.

    `recorded`: rows of an earlier part of the run, which stand for trials that would be done again. `numbers`: of the
    trials to come. `quiet`: returns when a running server is at rest, or after so many seconds.
    """

    def __init__(
        self,
        base: Trial,
        do: Callable[[Trial], Outcome],
        recorded: Sequence[Row],
        numbers: Iterator[int],
        quiet: Callable[[float], object],
    ) -> None:
        self._base, self._do, self._numbers, self._quiet = base, do, numbers, quiet
        self._recorded = [
            row
            for row in recorded
            if not number(row, "interrupted") and not _has_lost_a_host(row) and _is_of(row, base)
        ]
        self._has_loaded = False

    def now_s(self) -> float:
        """Monotonic."""
        return time.monotonic()

    def run(self, asked: Asked) -> Seen:
        """Do it, or find it done."""
        ends_s = self.now_s() + asked.left_s
        cell = replace(self._base.cell, load=asked.arriving, transfers=asked.starts)
        for row in self._recorded:
            if row["cell_key"] == cell.key:
                self._recorded.remove(row)
                return seen_of(row, asked)
        is_running = isinstance(self._base.contender.server, Target)
        if is_running and self._has_loaded:
            self._quiet(asked.left_s)
        self._has_loaded, began_s = True, self.now_s()
        asked = asked._replace(limit_s=max(0.1, min(asked.limit_s, ends_s - began_s)))
        cell = replace(cell, limit_ns=round(asked.limit_s * 1e9))
        count = next(self._numbers)
        try:
            outcome = self._do(replace(self._base, number=count, order=count, cell=cell, ends_s=ends_s))
        except LoadError as error:  # too many open files, or another machine that bears no load
            fault: Fault = "dead target" if is_running else "generator"
            starts = asked.starts or cell.machines_asked or 0
            return Seen(0, asked.stage, asked.load, asked.duration_s, starts, starts, fault=fault, reason=str(error))
        seen = seen_of(outcome.row, asked, outcome.result, is_running=is_running)
        return replace(seen, took_s=self.now_s() - began_s)


def _with_second_opinion(found: FoundCapacity) -> FoundCapacity:
    if not (loads := second_opinion(found)):
        return found
    line = (
        f"RFC 9971 Appendix A classifies {', '.join(f'{load:.4g}' for load in loads)} otherwise: a fault of tftpbench"
    )
    return found.model_copy(update={"is_regular": False, "reasons": (*found.reasons, line)})


def unit_of(cell: Cell) -> str:
    """What is counted, in words: "boots/s", "transfers", "s"."""
    if isinstance(cell.load, Sought) and cell.load.find == "spread":
        return "s"
    thing = "boots" if cell.is_boots else "transfers"
    if isinstance(cell.load, Sought) and cell.load.find == "machines":
        return "machines" if cell.is_boots else thing
    return f"{thing}/s"


def load_text(asked: Sought, load: float) -> str:
    """A load as people read it: "409/s", "500 at once", "1,000 within 12 s"."""
    if asked.find == "rate":
        return f"{format_count(load)}/s"
    if asked.find == "machines":
        return f"{round(load):,} at once"
    machines = asked.asked.machines or MACHINES
    if math.isinf(load):
        return f"{machines:,} at once"
    return f"{machines:,} within {format_duration(round(machines / load * 1e9))}"


def seen_of(row: Row, asked: Asked, result: LoadResult | None = None, *, is_running: bool = False) -> Seen:
    """A trial's row as a search sees it; `result`, where it is at hand, has the times of each start."""
    is_boots = number(row, "machines") is not None
    known, ended, cut = ("machines", "booted", "boots_interrupted") if is_boots else _OF_TRANSFERS
    load = asked.arriving
    intended = int(asked.starts or (load.machines if isinstance(load, Storm) else number(row, known)) or 0)
    done, cut_off = int(number(row, ended) or 0), int(number(row, cut) or 0)
    was_cut = cut_off > 0 or (number(row, known) or 0) < intended
    was_stopped = bool(result and result.stopped)
    fault, reason = _fault(row, asked, was_cut=was_cut, is_running=is_running, was_stopped=was_stopped)
    lasts_s = number(row, "duration_s")
    table = (result.boots or result.transfers) if result is not None and result.has_every_start else None
    return Seen(
        trial=int(number(row, "trial") or 0),
        stage=asked.stage,
        load=asked.load,
        duration_s=asked.duration_s,
        intended=intended,
        lost=max(0, intended - done),
        growth=number(row, "backlog_growth") or 0.0,
        fault=fault,
        reason=reason,
        done_per_s=done / lasts_s if lasts_s else 0.0,
        service_ns_p50=number(row, "boot_service_ns_p50" if is_boots else "service_ns_p50"),
        response_ns_p50=_time(row, "boot_ns_p50" if is_boots else "response_ns_p50"),
        response_ns_p99=_time(row, "boot_ns_p99" if is_boots else "response_ns_p99"),
        held_up_s=held_up_s(row),
        steady=number(row, "backlog_growth_steady"),
        starts_ns=table["intended_start_ns"] if table else None,
        ends_ns=np.where(table["outcome"] == 0, table["end_ns"], -1) if table else None,
    )


def held_up_s(row: Row) -> float:
    """For how long the machine kept server or generator from running in a trial, as far as its row says.

    What the hypervisor took, a quota, gaps of the generator, and the server's wait for a core; of that no more than its
    cores had left for others. Where both sides share a core each waits for the other, so gaps and waits tell nothing.
    """
    server, generator = cores_of(row)
    lasts_s = number(row, "duration_s") or 0.0
    stolen_s = (number(row, "steal_fraction") or 0.0) * lasts_s * len(server | generator)
    found_s = stolen_s + (number(row, "throttled_ns") or 0.0) / 1e9
    if server & generator:
        return found_s
    waited_s, busy = (number(row, "server_wait_ns") or 0.0) / 1e9, number(row, "server_busy_fraction")
    if busy is not None and server:
        waited_s = min(waited_s, max(0.0, 1.0 - busy) * lasts_s * len(server))
    return found_s + waited_s + (number(row, "generator_gap_ns_sum") or 0.0) / 1e9


def wait_until_quiet(
    count: Callable[[], int | None],
    most_s: float = QUIET_MAX_S,
    now_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Return when `count`, of datagrams that came for no socket, has stood still for 2 s, or after 20 s or `most_s`."""
    began_s = since_s = now_s()
    last = count()
    while now_s() - since_s < QUIET_S and now_s() - began_s < min(most_s, QUIET_MAX_S):
        sleep(LOOK_S)
        if (found := count()) != last:
            last, since_s = found, now_s()


def found_of(result: Result, **where: Any) -> FoundCapacity:
    """The result as a document has it; `where`: of which server and cell."""
    find, asked = result.asked.find, result.asked.asked
    machines = asked.machines or MACHINES
    lower, upper = result.lower, result.upper
    bounds: dict[str, Any]
    if find == "rate":
        bounds = {"lower_per_s": lower, "upper_per_s": upper, "conditional_per_s": result.conditional}
    elif find == "machines":
        bounds = {"lower_machines": lower and max(1, round(lower)), "upper_machines": upper and max(1, round(upper))}
    else:  # the more machines a second, the shorter
        bounds = {"lower_over_s": _over_s(machines, upper), "upper_over_s": _over_s(machines, lower)}
        bounds["machines"] = machines
    return FoundCapacity(
        find=find,
        **where,
        **bounds,
        is_regular=result.is_regular,
        is_confirmed=result.is_confirmed,
        is_interrupted=result.is_interrupted,
        is_target_dead=result.is_dead,
        generator_limit=result.limit,
        reasons=tuple(result.reasons),
        remarks=tuple(result.remarks),
        omitted=tuple(OmittedStage(stage=each.stage, reason=each.reason) for each in result.omitted),
        goal=FoundGoal(
            **asdict(result.goal), deadline_s=result.asked.deadline_ns / 1e9, strict=result.asked.asked.strict
        ),
        budget_s=asked.budget_ns / 1e9,
        took_s=round(result.took_s, 3),
        bounds_took_s=round(result.bounds_took_s, 3),
        loads=tuple(FoundLoad(load=load, bound=bound) for load, bound in result.classes),
        latencies=tuple(FoundLatency(share=share, trial=seen.trial) for share, seen in result.latencies),
        recovery=Recovery(recovered_s=result.recovered_s) if result.has_recovery else None,
        trials=tuple(map(_trial, result.trials)),
    )


def _trial(seen: Seen) -> FoundTrial:
    return FoundTrial(
        trial=seen.trial or None,
        stage=seen.stage,
        load=None if math.isinf(seen.load) else seen.load,
        duration_s=seen.duration_s,
        intended=seen.intended,
        lost=seen.lost,
        growth=seen.growth,
        missing=seen.missing,
        counts=seen.counts,
        fault=seen.fault,
        reason=seen.reason,
        held_up_s=round(seen.held_up_s, 3),
        response_ns_p50=seen.response_ns_p50,
        response_ns_p99=seen.response_ns_p99,
    )


def _fault(row: Row, asked: Asked, *, was_cut: bool, is_running: bool, was_stopped: bool) -> tuple[Fault, str]:
    """Why a trial is no plain answer, and in words."""
    reason = str(row.get("verdict_reason") or "")
    of_server = _of_server(row, is_running=is_running)
    if of_server is not None:
        return of_server
    if number(row, "content_mismatches"):
        return "wrong bytes", reason
    if row.get("verdict") != "valid":
        cause = commonest([reason])
        return "machine" if cause is not None and cause.kind in _OF_THE_MACHINE else "generator", reason
    # The brake of a load on another machine ends what fails: that is an answer.
    if was_cut and not was_stopped and not is_full_length(row, asked):
        return "cut", "the budget ended it"
    return "", ""


def _of_server(row: Row, *, is_running: bool) -> tuple[Fault, str] | None:
    """How a server was lost, if it was."""
    listed = row.get("server_findings")
    findings = listed if isinstance(listed, list) else []
    found = {each["kind"]: str(each["text"]) for each in findings if isinstance(each, dict)}
    if number(row, "started") is None and number(row, "intended") is None:
        return "not started", next(iter(found.values()), str(row.get("verdict_reason") or ""))
    if "died" in found:
        return "died", f"the server {found['died']}"
    is_gone = is_running and found.get("unresponsive") == GIVEN_UP
    return ("dead target", "the server no longer answers") if is_gone else None


def is_full_length(row: Row, asked: Asked) -> bool:
    """Whether the trial had the time that its starts and their deadline take."""
    return asked.limit_s >= asked.duration_s + (number(row, "deadline_ns") or 0) / 1e9


def _time(row: Row, name: str) -> float | None:
    return None if row.get(f"{name}_is_never") else number(row, name)


def _has_lost_a_host(row: Row) -> bool:
    """Whether a host of it was lost, so that it says nothing."""
    return bool(row.get("hosts_lost")) or str(row.get("verdict_reason") or "").startswith(SERVER_HOST_LOST)


def _is_of(row: Row, base: Trial) -> bool:
    """Whether a row is of the same server in the same round."""
    contender = base.contender
    same = (row.get("server"), row.get("variant"), row.get("round"))
    return same == (contender.server.name, contender.variant, base.round)


def _over_s(machines: int, per_s: float | None) -> float | None:
    return None if per_s is None else 0.0 if math.isinf(per_s) else machines / per_s
