"""Looks at this machine: a function for each condition that can make figures wrong, and what they share.

Each takes the machine as it is examined, and returns what it found, what that does to figures, and how much. Reading
goes through a root folder, so that tests have another one; effects are measured on the machine itself. It must never
change the machine, run a remedy, or guess: what can't be known is NotKnown.

It is long because it is a list: 29 short functions, one for each row of the table in conditions.py.
"""

import gzip
import math
import os
import platform
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil

from tftpbench.host import effects, machine
from tftpbench.host.effects import SelfTest, Spread, Spun
from tftpbench.host.generator import IS_DEBUG_BUILD
from tftpbench.host.pinning import Pinning, pin
from tftpbench.host.roots import file_system, places, room_needed_bytes
from tftpbench.model.errors import TftpbenchError
from tftpbench.model.scenario import Scenario
from tftpbench.model.units import counted, format_bytes, format_duration
from tftpbench.model.values import IN_FLIGHT_LIMIT
from tftpbench.model.workload import Cell, Placement, Shaped, Storm

Effect = Literal["ok", "costs", "spoils", "not known"]
EFFECTS: tuple[Effect, ...] = ("ok", "costs", "spoils", "not known")

# What a share of the time, or of what is sent, may be: the first is within the noise that pairs and intervals deal
# with, beyond the second one side may have stood still while the other ran.
_COSTS, _SPOILS = 0.05, 0.25
_STEAL_COSTS = 0.01
# A sleep that is too long by more makes starts of an open loop late (validity.SCHEDULE_LAG_NS_MAX), or stalls a trial.
_LATE_NS, _STALLED_NS = 1_000_000, 50_000_000
_CLOCK_NS_MAX = 300.0
_FAST_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "xen", "timebase", "tod")
# Of a run with no scenario named: of both sides and of what goes on beside them.
_MEMORY_BYTES = 512 * 1024**2
# Open files of a server: a socket and a file for each transfer; and its program, libraries, logs and listening sockets.
FILES_PER_TRANSFER, OTHER_FILES = 2, 128
_DEBUG_OPTIONS = (
    "KASAN", "KCSAN", "KMSAN", "PROVE_LOCKING", "LOCK_STAT", "DEBUG_LOCK_ALLOC", "DEBUG_KMEMLEAK", "SLUB_DEBUG_ON",
    "DEBUG_PAGEALLOC_ENABLE_DEFAULT", "DEBUG_OBJECTS",
)  # fmt: skip
_TRACKED = "proc/sys/net/netfilter/nf_conntrack_count"
_PARANOID = "proc/sys/kernel/perf_event_paranoid"
IDLE = "sudo tuned-adm profile latency-performance"


@dataclass(frozen=True)
class Needs:
    """What is to be run asks of the machine; the defaults are of an ordinary scenario.

    `at_once`: requests that may come at the same moment. `concurrency`: transfers or machines in flight at most.
    `roots_bytes`: what the served folders hold. `boots_per_s`: machines that are to be started a second, of `profile`.
    `scenario`: its name, "" for none.
    """

    scenario: str = ""
    placement: Placement = field(default_factory=Placement)
    concurrency: int = 100
    at_once: int = 100
    roots_bytes: int = 0
    profile: str = "uefi"
    boots_per_s: float | None = None


ORDINARY = Needs()


def needs_of(scenario: Scenario) -> Needs:
    """What a scenario asks of the machine. Raises what its boot profiles do.

    How many transfers a rate keeps in flight is the server's to say: a second of them, unless fewer may be.
    """
    cells = scenario.cells()
    boots = [cell for cell in cells if cell.is_boots]
    rates = [rate for cell in boots if (rate := _starts_per_s(cell)) is not None]
    return Needs(
        scenario=scenario.name,
        placement=scenario.placement,
        concurrency=max(map(_in_flight, cells)),
        at_once=max(map(_at_once, cells)),
        roots_bytes=room_needed_bytes(cells),
        profile=boots[0].parts[0][0] if boots else ORDINARY.profile,
        boots_per_s=max(rates, default=None),
    )


def _starts_per_s(cell: Cell) -> float | None:
    """The most starts a second of an open loop; None where all start at once, or each waits for an end."""
    load = cell.load
    if isinstance(load, Storm):
        return load.machines / (load.over_ns / 1e9) if load.over_ns else None
    if isinstance(load, Shaped):
        return max((piece.starts / (piece.for_ns / 1e9) for piece in load.pieces if piece.for_ns), default=None)
    return cell.rate_per_s


def _in_flight(cell: Cell) -> int:
    if cell.machines_asked is not None:
        return min(cell.concurrency, cell.machines_asked)
    rate = _starts_per_s(cell)
    return cell.concurrency if rate is None else min(cell.concurrency, math.ceil(rate))


def _at_once(cell: Cell) -> int:
    """Requests that come while a server does something else for as long as a trial may stand still."""
    rate = _starts_per_s(cell)
    return _in_flight(cell) if rate is None else min(_in_flight(cell), math.ceil(rate * _STALLED_NS / 1e9))


class Effort(NamedTuple):
    """How long is measured: the whole of it, or the little that every run can afford before its first trial."""

    spin_s: float
    sleeps_s: float
    wakes: int
    requests: int
    has_self_test: bool


FULL = Effort(0.5, 0.5, 500, 4096, has_self_test=True)
BRIEF = Effort(0.03, 0.02, 50, 512, has_self_test=False)


class Seen(NamedTuple):
    """What a look found. `size`: the effect as a number of the record's unit; `remedy`: where the record's is too wide.

    `costs`: the same for people, "" where there is nothing to say.
    """

    found: str
    effect: Effect
    size: float | None = None
    costs: str = ""
    remedy: str = ""


class NotKnown(Exception):
    """The machine does not say; the text is why."""


@dataclass(frozen=True)
class Examined:
    """The machine as it is looked at. `root` holds proc, sys, boot and dev; only tests have another one.

    What is measured is measured once, whatever asks for it, on the machine that this process runs on.
    """

    needs: Needs = field(default_factory=Needs)
    root: Path = Path("/")
    effort: Effort = FULL

    @cached_property
    def pinning(self) -> Pinning:
        """The cores that server and generator would get."""
        return pin(self.needs.placement)

    @cached_property
    def cores(self) -> tuple[int, ...]:
        """Those of both sides."""
        return tuple(sorted({*self.pinning.server, *self.pinning.generator}))

    def text(self, path: str) -> str:
        """A file's text. NotKnown where it can't be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace").strip()
        except OSError as error:
            raise NotKnown(
                f"/{path} {'is not there' if isinstance(error, FileNotFoundError) else 'is closed'}"
            ) from None

    def number(self, path: str) -> int:
        """A file's first number. NotKnown where it has none."""
        word = (self.text(path).split() or [""])[0]
        if not word.removeprefix("-").isdecimal():
            raise NotKnown(f"/{path} has no number")
        return int(word)

    @contextmanager
    def psutil(self) -> Iterator[Any]:
        """psutil, reading the proc of `root`."""
        before = psutil.PROCFS_PATH
        psutil.PROCFS_PATH = str(self.root / "proc")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # figures that it lacks are not asked for here
                yield psutil
        except (psutil.Error, OSError, ValueError, KeyError, IndexError) as error:
            raise NotKnown(f"/proc does not say: {type(error).__name__}") from None
        finally:
            psutil.PROCFS_PATH = before

    @cached_property
    def busy(self) -> "Busy":
        """All cores of both sides wanted at once."""
        return _busied(self)

    @cached_property
    def quiet(self) -> "Quiet":
        """A while in which this process mostly sleeps."""
        return _quieted(self)

    @cached_property
    def self_test(self) -> SelfTest:
        """NotKnown where it can't be done, or is not worth its time."""
        if not self.effort.has_self_test:
            raise NotKnown("measured by tftpbench doctor only")
        try:
            return effects.self_test(self.pinning, self.needs.profile)
        except (TftpbenchError, OSError) as error:
            raise NotKnown(str(error)) from None


class Busy(NamedTuple):
    """While threads wanted the cores: what each got, ns throttled, the share stolen, CPU ns of other programs."""

    spun: Sequence[Spun]
    throttled_ns: int | None
    steal: float | None
    others: Mapping[str, float]

    @property
    def missing(self) -> float:
        """The share of its core that the thread that got least did not get."""
        return max((each.missing for each in self.spun), default=0.0)

    @property
    def missing_of_all(self) -> float:
        """The share of the time of all threads for which they had no core."""
        wall_ns, cpu_ns = (sum(getattr(each, name) for each in self.spun) for name in ("wall_ns", "cpu_ns"))
        return max(0.0, 1 - cpu_ns / wall_ns) if wall_ns else 0.0

    @property
    def throttled(self) -> float | None:
        """The share of the time of all that the control group was held back."""
        wall_ns = sum(each.wall_ns for each in self.spun)
        return None if self.throttled_ns is None or not wall_ns else min(1.0, self.throttled_ns / wall_ns)


class Quiet(NamedTuple):
    """Sleeps, and what waited for a core meanwhile, as a share of the time; None where the kernel does not say."""

    late: Spread
    pressure: float | None


def _busied(m: Examined) -> Busy:
    """As many threads as both sides want; where they have too few cores, on all of them."""
    wanted = _cores_wanted(m.needs.placement, len(m.cores))
    entries: list[int | Sequence[int]] = list(m.cores) if wanted <= len(m.cores) else [m.cores] * wanted
    throttled, stolen = machine.throttled_ns(m.root), machine.stolen_ticks(m.cores, m.root)
    used = _used_by_others(m) if m.effort.has_self_test else {}
    spun = effects.spin(entries, m.effort.spin_s)
    after = machine.stolen_ticks(m.cores, m.root)
    ticks = after[1] - stolen[1]
    throttled_now = machine.throttled_ns(m.root)
    wall_s = max((each.wall_ns for each in spun), default=1) / 1e9
    now = _used_by_others(m) if used else {}
    more = {name: (now[name] - before) / wall_s for name, before in used.items() if name in now}
    return Busy(
        spun,
        None if throttled is None or throttled_now is None else throttled_now - throttled,
        (after[0] - stolen[0]) / max(1, ticks) if after[1] else None,
        dict(sorted(((name, share) for name, share in more.items() if share >= 0.01), key=lambda each: -each[1])[:3]),
    )


def _used_by_others(m: Examined) -> dict[str, float]:
    """CPU seconds of every other process so far, by name and number."""
    found = {}
    with m.psutil() as ps:
        for process in ps.process_iter(["name", "cpu_times"]):
            times = process.info["cpu_times"]
            if process.pid != os.getpid() and times is not None:
                found[f"{process.info['name']} ({process.pid})"] = times.user + times.system
    return found


def _quieted(m: Examined) -> Quiet:
    before, began_ns = machine.cpu_pressure_ns(m.root), time.monotonic_ns()
    late = effects.sleeps(m.effort.sleeps_s)
    after, now_ns = machine.cpu_pressure_ns(m.root), time.monotonic_ns()
    return Quiet(late, None if before is None or after is None else (after - before) / max(1, now_ns - began_ns))


def _cores_wanted(placement: Placement, allowed: int) -> int:
    wanted = (placement.server_cpus, placement.generator_cpus)
    return allowed if "all" in wanted else sum(each for each in wanted if isinstance(each, int))


def _by(size: float, costs: float = _COSTS, spoils: float = _SPOILS) -> Effect:
    return "spoils" if size > spoils else "costs" if size > costs else "ok"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.095 or share == 0 else f"{100 * share:.1f} %"


def cores(m: Examined) -> Seen:
    """Whether there are as many cores as both sides want."""
    wanted, here = _cores_wanted(m.needs.placement, len(m.cores)), len(m.cores)
    found = f"{counted(here, 'core')} for server and generator"
    if here >= wanted:
        return Seen(found, "ok", 0.0)
    shared = m.busy.missing
    return Seen(
        f"{found}, which want {wanted}", _by(shared, spoils=1.0), shared, f"each waits {_percent(shared)} of its time"
    )


def quota(m: Examined) -> Seen:
    """Whether a control group grants less than both sides want."""
    group = machine.cpu_limit(m.root)
    if group is None:
        return Seen("no quota", "ok", 0.0)
    wanted = min(_cores_wanted(m.needs.placement, len(m.cores)), len(m.cores))
    found = f"{group.cores:.3g} cores granted, of {wanted} wanted"
    if group.cores >= wanted:
        return Seen(found, "ok", 0.0)
    # A quota is of 100 ms mostly: a look that is shorter says nothing of it.
    withheld = m.busy.missing_of_all if m.effort.spin_s >= 0.3 else 1 - group.cores / wanted
    return Seen(found, _by(withheld, 0.0), withheld, f"{_percent(withheld)} of the CPU time is withheld", group.remedy)


def throttled(m: Examined) -> Seen:
    """Whether the control group was held back just now."""
    share = m.busy.throttled
    if share is None:
        raise NotKnown("no cpu.stat of a control group")
    group = machine.cpu_limit(m.root)
    return Seen(f"held back {_percent(share)} of the time", _by(share, 0.01), share,
                f"{_percent(share)} of the CPU time is withheld", group.remedy if group else "")  # fmt: skip


def siblings(m: Examined) -> Seen:
    """Whether two of the cores of both sides share one physical core."""
    together: list[str] = []
    for core in m.cores:
        listed = m.text(f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        others = set(_numbers(listed)) & set(m.cores) - {core}
        together += [str(core)] if others else []
    if not together:
        return Seen("no two of them share one", "ok", 0.0)
    alone = effects.spin(list(m.cores[:1]), m.effort.spin_s / 2)
    both = [each for each in m.busy.spun if each.cpu_ns]
    speeds = [each.rounds / each.cpu_ns for each in alone if each.cpu_ns], [each.rounds / each.cpu_ns for each in both]
    slower = max(0.0, 1 - min(speeds[1]) / max(speeds[0])) if all(speeds) else 0.0
    found = f"{', '.join(together)} are threads of one core"
    return Seen(found, _by(slower, -1.0, 1.0), slower, f"{_percent(slower)} slower while both are busy")


def governor(m: Examined) -> Seen:
    """Whether the clock of the cores changes with the load."""
    found = {m.text(f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor") for core in m.cores}
    time.sleep(m.effort.sleeps_s / 10)
    cold = effects.spin(list(m.cores[:1]), min(0.01, m.effort.spin_s))
    warm = m.busy.spun
    speeds = [[each.rounds / each.cpu_ns for each in some if each.cpu_ns] for some in (cold, warm)]
    slower = max(0.0, 1 - min(speeds[0]) / max(speeds[1])) if all(speeds) else 0.0
    effect: Effect = "ok" if found == {"performance"} else _by(slower, -1.0, 1.0)
    return Seen(", ".join(sorted(found)), effect, slower, f"{_percent(slower)} slower after a pause")


def steal(m: Examined) -> Seen:
    """Whether the hypervisor gives the cores to others."""
    share = m.busy.steal
    if share is None:
        raise NotKnown("/proc/stat has no such figure")
    return Seen(f"{_percent(share)} taken by the hypervisor", _by(share, _STEAL_COSTS, _COSTS), share,
                "that share of the CPU time is lost")  # fmt: skip


def pressure(m: Examined) -> Seen:
    """Whether anything waits for a core while we sleep."""
    share = m.quiet.pressure
    if share is None:
        raise NotKnown("/proc/pressure/cpu is not there")
    return Seen(f"something waited for a core {_percent(share)} of the time", _by(share), share,
                "a program may wait as long")  # fmt: skip


def others(m: Examined) -> Seen:
    """Whether a thread that wants a core gets it."""
    wanted = _cores_wanted(m.needs.placement, len(m.cores))
    if wanted > len(m.cores):
        raise NotKnown("the cores are too few for both sides already")
    taken = max(0.0, m.busy.missing - (m.busy.throttled or 0.0) - (m.busy.steal or 0.0))
    names = ", ".join(f"{name} {_percent(share)}" for name, share in m.busy.others.items())
    pids = " ".join(name.rpartition("(")[2].rstrip(")") for name in m.busy.others)
    found = f"{_percent(taken)} of a core taken{f': {names} of a core' if names and taken > _COSTS else ''}"
    return Seen(found, _by(taken), taken, f"a thread gets {_percent(1 - taken)} of it",
                f"renice -n 19 -p {pids}" if pids else "")  # fmt: skip


def clock(m: Examined) -> Seen:
    """What a reading of the clock costs."""
    source, cost_ns = m.text("sys/devices/system/clocksource/clocksource0/current_clocksource"), effects.clock_ns()
    is_fast = source in _FAST_CLOCKS
    effect: Effect = "ok" if is_fast and cost_ns < _CLOCK_NS_MAX else "costs"
    return Seen(source, effect, cost_ns, f"each reading takes {cost_ns:.0f} ns")


def sleep(m: Examined) -> Seen:
    """How much too long short sleeps are."""
    late = m.quiet.late
    found = f"100 us sleeps end {_ns(late.p50)} late, 1 in 100 of them {_ns(late.p99)}"
    return Seen(found, _by(late.p99, _LATE_NS, _STALLED_NS), late.p99, f"starts may be {_ns(late.p99)} late")


def wake(m: Examined) -> Seen:
    """How long a thread that sleeps takes to wake for a datagram."""
    taken = effects.wakes(m.effort.wakes)
    found = f"{_ns(taken.p50)}, 1 in 100 of them {_ns(taken.p99)}"
    return Seen(found, _by(taken.p99, _LATE_NS, _STALLED_NS), taken.p99, f"1 answer in 100 is {_ns(taken.p99)} late")


def buffer(m: Examined, name: str) -> Seen:
    """As many requests as a socket keeps with the buffer that the kernel gives; setsockopt's figure is doubled."""
    size, need = m.number(f"proc/sys/net/core/{name}"), m.needs.at_once
    asked = size // 2 if name == "rmem_default" else size
    held = effects.waiting_requests(min(IN_FLIGHT_LIMIT, max(m.effort.requests, 2 * need)), asked)
    at_least = "at least " if held.requests == held.sent else ""
    found = f"{format_bytes(size)}: {at_least}{held.requests:,} requests wait, {need:,} may come at once"
    lost = max(0.0, 1 - held.requests / need)
    effect: Effect = "ok" if held.requests >= need else _by(lost, -1.0, 0.9)
    wanted = 2 ** math.ceil(math.log2(size * max(1.0, 2 * need / max(1, held.requests))))
    costs = f"{_percent(lost)} of a burst of {need:,} is lost while a server is busy"
    return Seen(found, effect, float(held.requests), costs, f"sudo sysctl -w net.core.{name}={wanted}")


def ports(m: Examined) -> Seen:
    """How many transfers can have a port of their own."""
    words = m.text("proc/sys/net/ipv4/ip_local_port_range").split()
    if len(words) != 2 or not all(map(str.isdecimal, words)):
        raise NotKnown("ip_local_port_range has no two numbers")
    ports, need = max(0, int(words[1]) - int(words[0]) + 1), m.needs.concurrency
    return Seen(f"{ports:,}, for {need:,} transfers at once", "ok" if ports >= need else "spoils", float(ports),
                f"a server with a port for each transfer serves {ports:,} at once")  # fmt: skip


def files(m: Examined) -> Seen:
    """How many transfers open files allow."""
    line = next((line for line in m.text("proc/self/limits").splitlines() if line.startswith("Max open files")), "")
    hard = (line.split() or [""])[4:5]
    if hard == ["unlimited"]:
        return Seen("no limit", "ok", math.inf)
    if not hard or not hard[0].isdecimal():
        raise NotKnown("/proc/self/limits has no open files")
    room, need = max(0, (int(hard[0]) - OTHER_FILES) // FILES_PER_TRANSFER), m.needs.concurrency
    return Seen(f"{int(hard[0]):,}, for {need:,} transfers at once", "ok" if room >= need else "spoils", float(room),
                f"at most {room:,} transfers at once",
                f"sudo prlimit --pid $$ --nofile={FILES_PER_TRANSFER * need * 2 + OTHER_FILES}")  # fmt: skip


def gso(_m: Examined) -> Seen:
    """Whether one call sends many datagrams."""
    taken = effects.segments()
    if taken.one_call_ns is None:
        return Seen("refused", "costs", taken.many_calls_ns, f"32 datagrams take 32 calls, {_ns(taken.many_calls_ns)}")
    return Seen(
        f"32 datagrams in one call, {taken.many_calls_ns / taken.one_call_ns:.1f} times as fast",
        "ok",
        taken.one_call_ns,
    )


def gro(_m: Examined) -> Seen:
    """Whether one call receives many datagrams."""
    if effects.gathers():
        return Seen("a window arrives as one message", "ok", 1.0)
    return Seen("refused", "costs", 8.0, "each of the 8 datagrams of a window is a message of its own")


def conntrack(m: Examined) -> Seen:
    """Whether the kernel keeps a table of the flows on loopback."""
    try:
        most, before = m.number("proc/sys/net/netfilter/nf_conntrack_max"), m.number(_TRACKED)
    except NotKnown:
        return Seen("not loaded", "ok", 0.0)
    sent = effects.flows(64).sent
    tracked = max(0, m.number(_TRACKED) - before)
    if tracked < sent / 2:
        return Seen("loopback is not tracked", "ok", 0.0)
    share = m.needs.concurrency / max(1, most - before)
    found = f"{tracked} of {sent} flows on loopback tracked, in a table of {most:,}"
    return Seen(
        found, _by(share, _COSTS, 0.5), share, f"{m.needs.concurrency:,} transfers fill {_percent(share)} of it"
    )


def filters(m: Examined) -> Seen:
    """Whether every datagram on loopback arrives."""
    found = "none that can be seen"
    with suppress(NotKnown):
        tables = m.text("proc/net/ip_tables_names").split()
        found = f"tables {', '.join(tables)}" if tables else "none"
    count = effects.flows(200)
    lost = 1 - count.arrived / count.sent if count.sent else 1.0
    return Seen(f"{found}; {count.arrived} of {count.sent} datagrams arrived", _by(lost, 0.0, 0.0), lost,
                f"{_percent(lost)} of what is sent on loopback is dropped")  # fmt: skip


def perf(m: Examined) -> Seen:
    """Whether CPU time and context switches of a server can be counted."""
    lacking = _columns_unknown(m)
    costs = f"{counted(lacking, 'figure')} of the server not known: context switches{', CPU time' * (lacking > 1)}"
    found = str(m.number(_PARANOID))
    return Seen(found, "costs" if lacking else "ok", float(lacking), costs)


def _columns_unknown(m: Examined) -> int:
    """Of context switches and CPU time, what a perf event may not count (perf_event_open(2), perf_event_paranoid)."""
    level = m.number(_PARANOID)
    is_free = level <= 1 or (os.geteuid() == 0 and m.root == Path("/"))
    return 0 if is_free else 1 if level == 2 else 2


def cgroup(m: Examined) -> Seen:
    """Whether a server can have a control group of its own."""
    for mount in ("sys/fs/cgroup", "sys/fs/cgroup/unified"):
        if (m.root / mount / "cgroup.procs").exists():
            own = next((line[3:] for line in m.text("proc/self/cgroup").splitlines() if line.startswith("0::")), "/")
            if os.access(m.root / mount / own.strip("/"), os.W_OK):
                return Seen("one can be made", "ok", 0.0)
    # Its place is then taken by a perf event (host/server/supervisor.py).
    if _columns_unknown(m) < 2:
        return Seen("none can be made; a perf event counts instead", "ok", 0.0)
    return Seen("none can be made, nor a perf event", "costs", 1.0, "the server's CPU time is not known")


def strace(_m: Examined) -> Seen:
    """Whether system calls can be counted."""
    path = shutil.which("strace")
    if path is not None:
        return Seen(path, "ok", 0.0)
    return Seen("not in PATH", "costs", 1.0, "1 figure of a gate, system calls per block, is not known")


def namespaces(m: Examined) -> Seen:
    """Whether a user may make namespaces."""
    settings = {
        "user/max_user_namespaces": "0", "kernel/unprivileged_userns_clone": "0",
        "kernel/apparmor_restrict_unprivileged_userns": "1",
    }  # fmt: skip
    refused = []
    seen = 0
    for name, refusing in settings.items():
        with suppress(NotKnown):
            value = m.text(f"proc/sys/{name}")
            seen += 1
            refused += [f"{name.rpartition('/')[2]} is {value}"] if value == refusing else []
    if not seen:
        raise NotKnown("no setting of user namespaces in /proc/sys")
    if not refused:
        return Seen("allowed", "ok", 0.0)
    setting, _, value = refused[0].partition(" is ")
    prefix = "user" if setting.startswith("max") else "kernel"
    mended = f"sudo sysctl -w {prefix}.{setting}={15000 if prefix == 'user' else 1 - int(value)}"
    return Seen(", ".join(refused), "costs", 1.0, "no network of namespaces can be made without root", mended)


def kernel(m: Examined) -> Seen:
    """Whether the kernel was built to find faults, and not to be fast."""
    try:
        with gzip.open(m.root / "proc/config.gz", "rt") as file:
            config = file.read()
    except (OSError, EOFError):
        config = m.text(f"boot/config-{platform.release()}")
    lines = set(config.splitlines())
    found = [name for name in _DEBUG_OPTIONS if f"CONFIG_{name}=y" in lines]
    taken = effects.calibrate(m.pinning.server)
    per_datagram = taken.kernel_ns / effects.KERNEL_ROUNDS if taken else math.nan
    return Seen(", ".join(found) or "no debugging", "costs" if found else "ok", per_datagram,
                f"a datagram takes the kernel {_ns(per_datagram)}")  # fmt: skip


def build(_m: Examined) -> Seen:
    """Whether the native core was built to find faults, and not to be fast."""
    if not IS_DEBUG_BUILD:
        return Seen("release", "ok", 0.0)
    return Seen("debug", "spoils", 1.0, "every trial is invalid")


def roots(m: Examined) -> Seen:
    """Whether served folders lie in memory."""
    here = places() if m.root == Path("/") else [m.root / "dev/shm"]
    folder = next((each for each in here if each.is_dir()), None)
    if folder is None:
        raise NotKnown("no folder for them can be written")
    kind = file_system(Path("/") / folder.relative_to(m.root), m.root)
    taken_ms = effects.file_ms(folder)
    room = shutil.disk_usage(folder).free
    effect: Effect = "spoils" if room < m.needs.roots_bytes else "ok" if kind in ("tmpfs", "ramfs") else "costs"
    found = f"{folder} on {kind}, {format_bytes(room)} free"
    return Seen(
        found,
        effect,
        taken_ms,
        f"20 files of 64 KiB take {taken_ms:.1f} ms; {format_bytes(m.needs.roots_bytes)} needed",
    )


def memory(m: Examined) -> Seen:
    """Whether there is memory for served folders and both sides."""
    with m.psutil() as ps:
        free = int(ps.virtual_memory().available)
    need = _MEMORY_BYTES + m.needs.roots_bytes
    share = need / max(1, free)
    effect: Effect = "spoils" if free < m.needs.roots_bytes + _MEMORY_BYTES // 4 else "costs" if free < need else "ok"
    return Seen(
        f"{format_bytes(free)} free", effect, float(free), f"{format_bytes(need)} needed, {share:.1f} times that"
    )


def difference(m: Examined) -> Seen:
    """The smallest difference that this machine can show."""
    share = m.self_test.smallest_difference
    if share is None:
        raise NotKnown("too few of the loads moved anything")
    found = (
        f"{counted(len(m.self_test.differences), 'pair')} of equal loads on {m.self_test.server} tell {_percent(share)}"
    )
    return Seen(found, _by(share), share, f"differences below {_percent(share)} are not seen")


def generator(m: Examined) -> Seen:
    """How many machines a second the generator boots."""
    reached, need = m.self_test.boots_per_s, m.needs.boots_per_s
    if reached is None:
        raise NotKnown("no machine came up")
    effect: Effect = "ok" if need is None or reached >= need else "spoils"
    asked = f", {need:,.0f} asked for" if need is not None else ""
    found = f"the generator starts {reached:,.0f} boots a second of {m.self_test.profile}{asked}"
    return Seen(found, effect, reached, f"at most {reached:,.0f} boots a second here")


def _ns(value: float) -> str:
    return format_duration(round(value))


def _numbers(listed: str) -> list[int]:
    """Of a list as sysfs writes it: 0-3,8."""
    found: list[int] = []
    for part in listed.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            found += range(int(first), min(int(last or first), int(first) + 8192) + 1)
    return found
