"""What makes a trial's figures untrue: each way is a finding, with its numbers and what to do about it.

Pure: a row of results and what was noticed around it go in, findings come out. It must never look at the machine, and
never judge a server: lost datagrams, failed transfers and a slow server are findings *about* the server and leave a
trial valid.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tftpbench.model import invariants
from tftpbench.model.invariants import Row, number
from tftpbench.model.units import counted, format_duration
from tftpbench.model.workload import Piece

# The productive share of the generator's loop. At 2 % idle a closed loop waits for itself, not for the server: the
# figure is then the generator's. (Its CPU time says nothing, because busy-polling fills it.)
GENERATOR_BUSY_FRACTION_MAX = 0.98
# Two that take turns can both be busy. Where the server has less than this left of its cores, it could not have done
# more however fast the generator was, and the figure is the server's to within that share.
SERVER_BUSY_FRACTION_FULL = 0.95
# Kernel's receive stamp to our reading. A generator that has a core reads a full batch in well under 1 ms; one that
# shares a core waits for a few time slices of 3 to 6 ms. Beyond this it was not running when it should have been.
GENERATOR_LAG_NS_MAX = 50_000_000
# A loop that stands still, at once or together. In a window of 2 s 2 % is 40 ms: both are what a rate may be wrong by
# before it is more than the noise between trials. Longer gaps also make timers late and queues overflow.
GAP_NS_MAX = 50_000_000
GAP_FRACTION_MAX = 0.02
# Share of the cores' time that the hypervisor took. Less than this is part of the noise that pairs and intervals deal
# with; more, and one of the two sides may have stood still while the other ran.
STEAL_FRACTION_MAX = 0.05
# /proc/stat counts in ticks of 10 ms: fewer than this is the grain of the clock, not a theft.
STEAL_TICKS_MIN = 3
# Of an open loop. Fewer starts than these were another load than the one asked for.
STARTS_FRACTION_MIN = 0.99
# Intended to actual start, as a time and as a part of the deadline: what waits for seconds is not distorted by ms.
SCHEDULE_LAG_NS_MAX = 1_000_000
SCHEDULE_LAG_FRACTION_MAX = 0.01
# From the first start of a storm to its last, beyond what was asked for: a burst that takes us longer is another one.
BURST_NS_MAX = 100_000_000
BURST_FRACTION_MAX = 0.01
# Load hosts whose first starts lie further apart than this, or whose clocks may, made another load than one host would:
# a twentieth of an interval's 100 ms, or this part of a shape's shortest piece.
HOSTS_APART_NS_MAX = 5_000_000
HOSTS_APART_FRACTION_MAX = 0.01
# Largest distance of the distribution of gaps from the exponential one (Kolmogorov). Of 2,000 gaps that really are, one
# sample in a thousand lies further than 0.044; of 500, further than 0.087.
GAP_DISTANCE_MAX = 0.1
GAPS_MIN, GAPS_MAX = 500, 2_000


class Kind(Enum):
    """What can be wrong with a trial; the value is what to do about it where no more is known."""

    DEBUG_BUILD = "build the native core with make setup, which makes a release build"
    SERVER_LOST = "look at the server's log in the trial's folder"
    CONTENT_MISMATCH = (
        "the server delivers wrong bytes, or stores them; compare a file by hand with tftpbench load --verify-against"
    )
    COUNTERS = "a fault of tftpbench: please report it with the run's folder"
    UDP_COUNTS = (
        "a fault of tftpbench or of this kernel's counters; repeat, and report it with the run's folder if it stays"
    )
    LITTLES_LAW = "a fault of the clock or of tftpbench; repeat, and report it with the run's folder if it stays"
    GENERATOR_SATURATED = (
        "give the generator more cores (placement.generator_cpus, client.workers), or lower the concurrency"
    )
    GENERATOR_LAG = "stop other programs"
    GENERATOR_STOPPED = "do not suspend tftpbench while it measures, stop other programs, and repeat"
    GENERATOR_GAPS = "stop other programs and repeat"
    RUNNER_STOPPED = "do not suspend tftpbench or fill all cores while it measures, and repeat"
    GENERATOR_DROPS = "raise net.core.rmem_max and net.core.rmem_default, or lower windowsize or concurrency"
    STARTS_MISSING = "stop other programs and repeat, and report it with the run's folder if it stays"
    SCHEDULE_LAG = "stop other programs, give the generator cores of its own (placement), or lower the rate"
    BURST = "stop other programs, give the generator cores of its own (placement), or give the starts more time (over)"
    ARRIVALS = "stop other programs, give the generator cores of its own (placement), or offer even arrivals"
    HOST_LOST = "see that the host and its worker run"
    SERVER_HOST_LOST = "see that the server's host and its worker run"
    CLOCKS_APART = "measure with hosts to which the way is shorter and quieter: clocks are compared by round trips"
    STARTED_LATE = "stop other programs on the load hosts, or give the generator cores of its own there (generators)"
    STEAL = "the machine's host is busy: repeat later, or on a machine that is yours"


STALLS = frozenset({Kind.GENERATOR_STOPPED, Kind.RUNNER_STOPPED})
"""One long time in which nothing was measured, by our own doing or the machine's."""
LIMITS = STALLS | {
    Kind.GENERATOR_SATURATED, Kind.GENERATOR_LAG, Kind.GENERATOR_GAPS, Kind.GENERATOR_DROPS, Kind.STEAL,
    Kind.SCHEDULE_LAG, Kind.BURST, Kind.ARRIVALS, Kind.CLOCKS_APART, Kind.STARTED_LATE,
}  # fmt: skip
"""What a rate is wrong by. A quick run, whose rates are not judged, is not invalid by it."""
SERVER_HOST_LOST = "server host lost"
_TOO_BUSY = "this machine was too busy for tftpbench's load generator"
# Words that the text of a finding has, by which the reason in a row is known again; what it means, for people; and
# whose advice fits. Those first that explain the ones after them.
_CAUSES: tuple[tuple[str, str, Kind], ...] = (
    ("is a debug build", "tftpbench's native core is a debug build", Kind.DEBUG_BUILD),
    ("load host lost", "a load host was lost", Kind.HOST_LOST),
    (SERVER_HOST_LOST, "the server's host was lost", Kind.SERVER_HOST_LOST),
    ("had wrong contents", "bytes were wrong", Kind.CONTENT_MISMATCH),
    ("counted in the server's network", "the kernel's counts contradict the generator's", Kind.UDP_COUNTS),
    ("are accounted for", "the counts of transfers do not add up", Kind.COUNTERS),
    ("the host took", "the host of this machine gave its cores to others", Kind.STEAL),
    ("the generator stood still for", _TOO_BUSY, Kind.GENERATOR_GAPS),
    ("the runner watched the trial", _TOO_BUSY, Kind.GENERATOR_GAPS),
    ("the generator read answers", _TOO_BUSY, Kind.GENERATOR_GAPS),
    ("dropped at the generator's sockets", "tftpbench's load generator lost answers", Kind.GENERATOR_DROPS),
    ("the generator was saturated", "tftpbench's load generator was the limit", Kind.GENERATOR_SATURATED),
    ("the intended starts were made or shed", "starts are missing", Kind.STARTS_MISSING),
    ("clocks apart", "the clocks of hosts were apart", Kind.CLOCKS_APART),
    ("started late", "load hosts started late", Kind.STARTED_LATE),
    ("starts were", "starts were late", Kind.SCHEDULE_LAG),
    ("the starts took", "a storm's starts took too long", Kind.BURST),
    ("the gaps between starts", "the arrivals were not random as asked for", Kind.ARRIVALS),
    ("in flight on average, not", "rates and times contradict each other", Kind.LITTLES_LAW),
    ("transfers in flight, not", "rates and transfer times contradict each other", Kind.LITTLES_LAW),
)


class Cause(NamedTuple):
    """Why trials are invalid, in plain words: the commonest reason, in how many trials, and what kind it is of.

    `kind` None: the text of the reason itself, such as how the server was lost.
    """

    text: str
    trials: int
    kind: Kind | None

    @property
    def advice(self) -> str:
        """What to do about it; "" where that depends."""
        return self.kind.value if self.kind else ""

    @property
    def is_of_rates(self) -> bool:
        """Whether what was counted is true all the same, and only rates and times are not."""
        return self.kind in LIMITS or self.kind is Kind.LITTLES_LAW


def commonest(reasons: Iterable[str]) -> Cause | None:
    """The cause of most of these, which are the column verdict_reason of invalid trials; None of none."""
    counts = Counter(map(_cause, reasons))
    return next((Cause(text, count, kind) for (text, kind), count in counts.most_common(1)), None)


def _cause(reason: str) -> tuple[str, Kind | None]:
    return next(((text, kind) for words, text, kind in _CAUSES if words in reason), (reason, None))


@dataclass(frozen=True)
class Finding:
    """One reason why a trial's figures must not be used."""

    kind: Kind
    text: str
    hint: str = ""
    """What to do about it as it was seen; "" for what the kind says."""

    @property
    def advice(self) -> str:
        """What to do about it."""
        return self.hint or self.kind.value


@dataclass(frozen=True)
class Surroundings:
    """What a row does not hold: `mean_transfer_ns` of completed transfers, stolen time, how the server was lost.

    `server_host_lost`: which host it ran on, and why that was lost.
    `mean_in_flight_ns`: of an open loop, of what started inside its window, whatever became of it.
    `gap_distance`: of Poisson arrivals, as `gap_distance()` has it.
    `load_1min`: the load average of the machine, whose cores are `cpus`; None where load hosts made the load.
    `shortest_piece_ns`: of a shape, 0 of one with bursts. `is_quick`: no rate is judged.
    `was_cut_off`: the load was ended before its time, so that starts are missing for no fault of its generator.
    `strays`: datagrams that reached the generator's network namespace and found none of its sockets; None: not known.
    """

    mean_transfer_ns: float | None = None
    mean_in_flight_ns: float | None = None
    steal_fraction: float = 0.0
    steal_ticks: int = 0
    server_lost: str | None = None
    server_host_lost: str | None = None
    debug_build: bool = False
    gap_distance: float | None = None
    load_1min: float | None = None
    cpus: int | None = None
    shortest_piece_ns: int = 0
    is_quick: bool = False
    was_cut_off: bool = False
    strays: int | None = 0


def findings(row: Row, around: Surroundings) -> tuple[Finding, ...]:
    """Everything that makes the row's figures untrue, the most severe first."""
    found = (finding for check in _CHECKS for finding in check(row, around))
    return tuple(finding for finding in found if not (around.is_quick and finding.kind in LIMITS))


def is_open_loop(row: Row) -> bool:
    """Whether starts did not wait for ends: at a rate, in a storm, in a shape."""
    return any(row.get(name) is not None for name in ("rate_per_s", "machines_asked", "shape"))


def gap_distance(
    starts_ns: npt.NDArray[np.int64], rate_per_s: float | None, pieces: Sequence[Piece] = ()
) -> float | None:
    """Largest distance of the gaps between these starts from exponential ones; None where they are too few to tell.

    `pieces`: of a shape, which has no one rate; its longest hold is looked at. Starts are in ns since the first one.
    """
    if rate_per_s is None:
        begins_ns = np.cumsum([0, *(piece.for_ns for piece in pieces)])
        holds = [(piece, begin) for piece, begin in zip(pieces, begins_ns, strict=False) if piece.kind == "hold"]
        if not holds:
            return None
        hold, begin_ns = max(holds, key=lambda each: each[0].for_ns)
        starts_ns = starts_ns[(starts_ns >= begin_ns) & (starts_ns < begin_ns + hold.for_ns)]
        rate_per_s = hold.starts / hold.for_ns * 1e9
    gaps = np.diff(np.sort(starts_ns))
    if gaps.size < GAPS_MIN:
        return None
    sample = np.sort(gaps[np.linspace(0, gaps.size - 1, min(gaps.size, GAPS_MAX)).astype(int)])
    expected, count = -np.expm1(-sample * rate_per_s / 1e9), sample.size
    steps = np.arange(count + 1) / count
    return float(max(np.max(expected - steps[:-1]), np.max(steps[1:] - expected)))


def verdict(found: tuple[Finding, ...]) -> tuple[str, str | None]:
    """The columns verdict and verdict_reason: ("valid", None), or ("invalid", why)."""
    return ("invalid", "; ".join(finding.text for finding in found)) if found else ("valid", None)


def _server_lost(row: Row, around: Surroundings) -> Iterator[Finding]:
    lost = around.server_lost
    if lost is None:
        return
    hint = ""
    if "taken by another process" in lost:
        hint = "the program that has the port must end before the server can be measured"
    elif row.get("server") is not None and row.get("server_cpus") is None:  # one that was running already
        hint = "see whether that server still runs, and what its own log says"
    elif row.get("trial") is None:  # of `load`, which keeps no folder
        hint = "the figures can't be used; start the server by hand and see what it says"
    elif lost.endswith("it said nothing"):
        hint = "its log is empty: start it by hand, with its argv in the run's manifest.json"
    else:
        hint = f"look at its log, trials/{row['trial']}/server.log in the run's folder"
    yield Finding(Kind.SERVER_LOST, lost, hint)


def _debug_build(_row: Row, around: Surroundings) -> Iterator[Finding]:
    if around.debug_build:
        yield Finding(Kind.DEBUG_BUILD, "the native core is a debug build, many times slower than a release build")


def _contents(row: Row, _around: Surroundings) -> Iterator[Finding]:
    wrong = number(row, "content_mismatches")
    hints = {
        "read": "the server delivers wrong bytes; compare a file by hand with tftpbench load --verify-against",
        "write": "the server stores wrong bytes; upload a file by hand, and compare what is stored with it",
    }
    if wrong:
        hint = hints.get(str(row.get("operation")), "")
        yield Finding(Kind.CONTENT_MISMATCH, f"{wrong:.0f} transfers had wrong contents", hint)


def _counters(row: Row, _around: Surroundings) -> Iterator[Finding]:
    fault = invariants.counters_fault(row)
    if fault is not None:
        yield Finding(Kind.COUNTERS, fault)


def _udp_counts(row: Row, around: Surroundings) -> Iterator[Finding]:
    """In lock-step the generator and the kernel count the same, but for what is in flight when both are read.

    The kernel counts a run of datagrams that it gave or took in one piece once, so windows can't be held to this. It
    counts a datagram when it is read, and a server that lost transfers may have left some unread.
    """
    sent, received = number(row, "datagrams_sent"), number(row, "datagrams_received")
    if row.get("network") != "namespace" or sent is None or received is None or around.server_lost is not None:
        return
    if max(number(row, name) or 1 for name in ("windowsize", "windowsize_granted")) > 1:
        return
    if any(row.get(name) is not None for name in ("boot", "mix")):  # clients that ask for windows may be among them
        return
    arrived = [number(row, f"server_udp_{name}") for name in ("received", "no_buffer", "no_port", "bad_checksum")]
    answered, in_flight = number(row, "server_udp_sent"), number(row, "concurrency") or 0
    if answered is None or None in arrived or around.strays is None:
        text = "nothing was counted in the server's network: its process was killed"
        yield Finding(Kind.UDP_COUNTS, text, "let all processes of tftpbench live while it measures, and repeat")
        return
    came = received + (number(row, "udp_drops_generator") or 0) + around.strays
    may_be_unread = any(number(row, name) for name in ("failed", "timed_out", "late"))
    for what, ours, theirs, is_bounded in (
        ("sent", sent, sum(each for each in arrived if each is not None), not may_be_unread),
        ("received", came, answered, True),
    ):
        if theirs - ours > in_flight or (is_bounded and ours - theirs > in_flight):
            text = f"the generator {what} {ours:,.0f} datagrams, and {theirs:,.0f} were counted in the server's network"
            yield Finding(Kind.UDP_COUNTS, text)


def _hosts(row: Row, around: Surroundings) -> Iterator[Finding]:
    """Whether all load hosts were there to the end, and began together as far as their clocks can tell.

    The spread of starts has the error of the clocks in it, which is no host's lateness where it is large alone.
    """
    if around.server_host_lost is not None:
        yield Finding(Kind.SERVER_HOST_LOST, f"{SERVER_HOST_LOST}: {around.server_host_lost}")
    if lost := row.get("hosts_lost"):
        yield Finding(Kind.HOST_LOST, f"load host lost: {lost}")
    error_ns, spread_ns = number(row, "clock_error_ns_max"), number(row, "start_spread_ns")
    most_ns = max(HOSTS_APART_NS_MAX, HOSTS_APART_FRACTION_MAX * around.shortest_piece_ns)
    if error_ns is not None and error_ns > HOSTS_APART_NS_MAX:
        text = f"clocks apart: those of hosts are known to within {error_ns / 1e6:.1f} ms"
        yield Finding(Kind.CLOCKS_APART, text)
    elif spread_ns is not None and spread_ns > most_ns:
        text = f"started late: a load host began up to {spread_ns / 1e6:.1f} ms off the common start"
        yield Finding(Kind.STARTED_LATE, text)


def shortest_piece_ns(pieces: Sequence[Piece]) -> int:
    """Of a shape; 0 where it has bursts, or no pieces."""
    return min((piece.for_ns for piece in pieces), default=0)


def _littles_law(row: Row, around: Surroundings) -> Iterator[Finding]:
    fault = invariants.littles_law_fault(row, around.mean_transfer_ns)
    fault = fault or invariants.open_loop_law_fault(row, around.mean_in_flight_ns)
    if fault is not None:
        yield Finding(Kind.LITTLES_LAW, fault)


def _generator(row: Row, around: Surroundings) -> Iterator[Finding]:
    busy, lag_ns = number(row, "generator_busy_fraction"), number(row, "generator_lag_ns_p99")
    drops = number(row, "udp_drops_generator")
    moved = number(row, "data_pps")  # a load that ended before it began, refused by the server, saturates nothing
    server_busy = number(row, "server_busy_fraction")
    server_was_full = server_busy is not None and server_busy >= SERVER_BUSY_FRACTION_FULL
    waits = not is_open_loop(row)  # an open loop's rate is not its generator's, however busy it is
    if busy is not None and moved and busy > GENERATOR_BUSY_FRACTION_MAX and waits and not server_was_full:
        text = f"the generator was saturated, busy {busy:.1%} of the time"
        yield Finding(Kind.GENERATOR_SATURATED, text, _room_for_generator(row, around))
    if lag_ns is not None and lag_ns > GENERATOR_LAG_NS_MAX + _round_ns(row):
        text = f"the generator read answers {lag_ns / 1e6:.0f} ms late (p99)"
        yield Finding(Kind.GENERATOR_LAG, text, _other_programs(row, around) or _own_core(row, around))
    if drops:
        lower = "windowsize" if (number(row, "windowsize") or 0) > 1 else "concurrency"
        hint = f"raise net.core.rmem_max and net.core.rmem_default, or lower {lower}"
        yield Finding(Kind.GENERATOR_DROPS, f"{drops:.0f} datagrams were dropped at the generator's sockets", hint)


def _gaps(row: Row, around: Surroundings) -> Iterator[Finding]:
    """What stood still. Where server and generator share a core, short gaps are the server's turns, too."""
    longest_ns, together_ns = number(row, "generator_gap_ns_max"), number(row, "generator_gap_ns_sum")
    window_s, runner_ns = number(row, "duration_s"), number(row, "runner_gap_ns_max")
    others = _other_programs(row, around)
    if longest_ns is not None and longest_ns > GAP_NS_MAX:
        text = f"the generator stood still for {longest_ns / 1e6:.0f} ms at once"
        yield Finding(Kind.GENERATOR_STOPPED, text, others)
    elif together_ns and window_s and together_ns > GAP_FRACTION_MAX * window_s * 1e9 and not _shares_a_core(row):
        share = together_ns / 1e9 / window_s
        text = f"the generator stood still for {share:.1%} of the window, {together_ns / 1e6:.0f} ms together"
        yield Finding(Kind.GENERATOR_GAPS, text, others)
    if runner_ns is not None and runner_ns > GAP_NS_MAX:
        yield Finding(Kind.RUNNER_STOPPED, f"the runner watched the trial {runner_ns / 1e6:.0f} ms late", others)


def cores_of(row: Row) -> tuple[set[str], set[str]]:
    """Cores of the server and of the generator, where they are known."""
    server, generator = (str(row.get(name) or "").split(",") for name in ("server_cpus", "generator_cpus"))
    return {*server} - {""}, {*generator} - {""}


def _shares_a_core(row: Row) -> bool:
    server, generator = cores_of(row)
    return bool(server & generator)


def _other_programs(row: Row, around: Surroundings) -> str:
    """Where more waits for a core than the server's threads, the generator's and one program a core."""
    ours = (number(row, "server_threads_max") or 1) + max(1, len(cores_of(row)[1]))
    if around.load_1min is None or not around.cpus or around.load_1min <= ours + around.cpus:
        return ""
    return f"load average {around.load_1min:.0f} on {counted(around.cpus, 'core')}: stop other programs"


def _own_core(row: Row, around: Surroundings) -> str:
    """What makes a generator wait that shares its core with the server."""
    if not _shares_a_core(row):
        return ""
    if around.cpus == 1:
        return "server and generator share the only core: measure on a machine with two or more"
    return "server and generator share a core: ask for fewer cores under placement"


def _room_for_generator(row: Row, around: Surroundings) -> str:
    if row.get("clock_error_ns_max") is not None:
        return "take more load hosts, or give the generator more cores there (generators.cores, client.workers)"
    server, generator = cores_of(row)
    if not around.cpus or not generator:
        return ""
    more = len(generator) + 1
    if len(server | generator) < around.cpus:
        return f"give the generator more cores: --set placement.generator_cpus={more} --set client.workers={more}"
    return (
        f"this machine's {counted(around.cpus, 'core')} are all in use: lower the concurrency, or take a larger machine"
    )


def _round_ns(row: Row) -> float:
    """How long answers to all transfers in flight take to read, where they may all be waiting at once.

    So it is in a closed loop, and in a storm, of whose machines each may wait for a window of blocks.
    """
    asked, data_pps = number(row, "concurrency"), number(row, "data_pps")
    if machines := number(row, "machines_asked"):
        at_once = min(machines, number(row, "in_flight_max") or machines)  # of a long storm only some boot together
        asked = at_once * (number(row, "windowsize_granted") or 1)
    if is_open_loop(row) and number(row, "machines_asked") is None:
        return 0
    return asked / data_pps * 1e9 if asked and data_pps else 0


def _steal(_row: Row, around: Surroundings) -> Iterator[Finding]:
    if around.steal_fraction > STEAL_FRACTION_MAX and around.steal_ticks >= STEAL_TICKS_MIN:
        yield Finding(Kind.STEAL, f"the host took {around.steal_fraction:.1%} of the cores' time")


def _open_loop(row: Row, around: Surroundings) -> Iterator[Finding]:
    """Whether the starts were those that were asked for. What the server made of them is no matter here."""
    if not is_open_loop(row):
        return
    share, deadline_ns = _starts_share(row), number(row, "deadline_ns") or 0
    if share < STARTS_FRACTION_MIN and not around.was_cut_off:
        yield Finding(Kind.STARTS_MISSING, f"only {share:.1%} of the intended starts were made or shed")
    over_ns, burst_ns = number(row, "over_ns"), number(row, "burst_ns")
    most_ns = max(BURST_NS_MAX, BURST_FRACTION_MAX * deadline_ns)
    if over_ns is not None and burst_ns is not None and burst_ns - over_ns > most_ns:
        text = f"the starts took {format_duration(burst_ns)}, not {format_duration(over_ns)}"
        yield Finding(Kind.BURST, text)
    lag_ns = number(row, "schedule_lag_ns_p99")
    if lag_ns is not None and lag_ns > max(SCHEDULE_LAG_NS_MAX, SCHEDULE_LAG_FRACTION_MAX * deadline_ns):
        yield Finding(Kind.SCHEDULE_LAG, f"starts were {lag_ns / 1e6:.1f} ms after their time (p99)")
    if around.gap_distance is not None and around.gap_distance > GAP_DISTANCE_MAX:
        yield Finding(Kind.ARRIVALS, f"the gaps between starts are {around.gap_distance:.2f} from Poisson arrivals")


def _starts_share(row: Row) -> float:
    """Of the starts that were intended, what was started or shed; of machines, where these boot."""
    machines, asked = number(row, "machines"), number(row, "machines_asked")
    if machines is None:
        intended, started = number(row, "intended"), (number(row, "started") or 0) + (number(row, "shed") or 0)
        return started / intended if intended else 1.0
    if asked:
        return machines / asked
    offered, achieved, window_s = (number(row, name) for name in ("offered_per_s", "achieved_per_s", "duration_s"))
    if not offered or achieved is None or not window_s:
        return 1.0
    return (achieved + (number(row, "boots_shed") or 0) / window_s) / offered


_CHECKS = (
    _debug_build,
    _server_lost,
    _hosts,
    _contents,
    _counters,
    _udp_counts,
    _littles_law,
    _gaps,
    _generator,
    _steal,
    _open_loop,
)
