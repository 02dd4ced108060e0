"""The conditions of a machine that make figures wrong: one record each, and what was found of all of them.

A record says what is looked at, what is expected, how its effect is measured on this machine, and what mends it as one
command. `tftpbench doctor`, the manifest of a run, `compare` and docs/doctor.md iterate over them. To add a condition:
its record here, and the function of looks.py that it names. It must never change a setting, run a remedy, or fail.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tftpbench.host import looks
from tftpbench.host.looks import (
    BRIEF,
    EFFECTS,
    FILES_PER_TRANSFER,
    FULL,
    IDLE,
    ORDINARY,
    OTHER_FILES,
    Effect,
    Effort,
    Examined,
    Needs,
    NotKnown,
    Seen,
    needs_of,
)
from tftpbench.model.escape import one_line
from tftpbench.model.programs import PROGRAM, typed

__all__ = [
    "BRIEF",
    "CONDITIONS",
    "EFFECTS",
    "FULL",
    "ORDINARY",
    "SCHEMA",
    "Condition",
    "Diagnosis",
    "Effect",
    "Needs",
    "diagnose",
    "document",
    "in_brief",
    "needs_of",
    "worst",
]

SCHEMA = "tftpbench.doctor/1"


@dataclass(frozen=True)
class Condition:
    """One thing that can make figures wrong.

    `looks_at`: files, calls or work. `measured`: how its effect is measured here. `unit`: of its size, "" for a share
    of 1. `remedy`: one command, which nothing here runs. `lasts`: it is a setting, the same tomorrow unless changed.
    """

    id: str
    looks_at: str
    expected: str
    measured: str
    remedy: str
    look: "Callable[[Examined], Seen]" = field(repr=False)
    unit: str = ""
    lasts: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """What was found of one condition; the fields of `tftpbench doctor --json`."""

    id: str
    found: str
    expected: str
    effect: Effect
    size: float | None
    unit: str
    costs: str
    remedy: str

    @property
    def document(self) -> dict[str, object]:
        """Plain values; a size that is no number is None."""
        known = self.size is not None and math.isfinite(self.size)
        return {**self.__dict__, "size": self.size if known else None}


CONDITIONS: tuple[Condition, ...] = (
    Condition(
        id="cpu.cores",
        looks_at="the cores that this process may use (sched_getaffinity)",
        expected="one for each side, server and generator",
        measured="as many threads as both sides want are busy at once; the share of the time for which one has no core",
        remedy="taskset -acp 0-$(($(nproc --all)-1)) $$",
        look=looks.cores,
        lasts=True,
    ),
    Condition(
        id="cpu.quota",
        looks_at="cpu.max, or cpu.cfs_quota_us, of the control group and those above it",
        expected="no quota, or enough for both sides",
        measured="the share of the time for which threads that want all cores have none",
        remedy="systemctl set-property --runtime user.slice CPUQuota=",
        look=looks.quota,
        lasts=True,
    ),
    Condition(
        id="cpu.throttled",
        looks_at="cpu.stat of the control group",
        expected="nothing",
        measured="the time that is added to it while threads want all cores",
        remedy="systemctl set-property --runtime user.slice CPUQuota=",
        look=looks.throttled,
    ),
    Condition(
        id="cpu.siblings",
        looks_at="thread_siblings_list of the cores of both sides",
        expected="cores of their own, not two threads of one",
        measured="the same work on one of them alone, and on all at once",
        remedy="echo off | sudo tee /sys/devices/system/cpu/smt/control",
        look=looks.siblings,
        lasts=True,
    ),
    Condition(
        id="cpu.governor",
        looks_at="scaling_governor of the cores of both sides",
        expected="performance",
        measured="the same work after a pause, and after half a second of work",
        remedy="echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        look=looks.governor,
        lasts=True,
    ),
    Condition(
        id="cpu.steal",
        looks_at="steal of /proc/stat",
        expected="under 1 %",
        measured="the share of the cores' time that is added to it while threads want all cores",
        remedy="vmstat -w 1 60",
        look=looks.steal,
    ),
    Condition(
        id="cpu.pressure",
        looks_at="some of /proc/pressure/cpu",
        expected="under 5 %",
        measured="what is added to it while this program sleeps",
        remedy="top -b -n 1 -o %CPU",
        look=looks.pressure,
    ),
    Condition(
        id="cpu.others",
        looks_at="CPU time of all other programs (psutil)",
        expected="under 5 % of a core",
        measured="the share of the time for which a thread waited for its core, without quota and hypervisor",
        remedy="top -b -n 1 -o %CPU",
        look=looks.others,
    ),
    Condition(
        id="cpu.clock",
        looks_at="current_clocksource",
        expected="one that is read without a system call, such as tsc",
        measured="readings of the clock, the best of five batches",
        remedy="echo tsc | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource",
        look=looks.clock,
        unit="ns",
        lasts=True,
    ),
    Condition(
        id="timer.sleep",
        looks_at="sleeps of 100 us",
        expected="1 in 100 at most 1 ms too long",
        measured="half a second of them",
        remedy=IDLE,
        look=looks.sleep,
        unit="ns",
    ),
    Condition(
        id="timer.wake",
        looks_at="a datagram over loopback to a thread that sleeps",
        expected="1 in 100 takes at most 1 ms",
        measured="half of the time until its answer, 500 times over",
        remedy=IDLE,
        look=looks.wake,
        unit="ns",
    ),
    Condition(
        id="udp.buffer_default",
        looks_at="net.core.rmem_default",
        expected="room for all requests that may come at once",
        measured="a burst of requests to a socket with such a buffer that is not read; those that wait in it",
        remedy="sudo sysctl -w net.core.rmem_default=4194304",
        look=lambda m: looks.buffer(m, "rmem_default"),
        unit="requests",
        lasts=True,
    ),
    Condition(
        id="udp.buffer_max",
        looks_at="net.core.rmem_max",
        expected="room for all requests that may come at once",
        measured="the same of a socket that asks for as much as it may have",
        remedy="sudo sysctl -w net.core.rmem_max=4194304",
        look=lambda m: looks.buffer(m, "rmem_max"),
        unit="requests",
        lasts=True,
    ),
    Condition(
        id="udp.ports",
        looks_at="net.ipv4.ip_local_port_range",
        expected="one for each transfer at once",
        measured="how many there are",
        remedy='sudo sysctl -w net.ipv4.ip_local_port_range="10000 65535"',
        look=looks.ports,
        unit="transfers",
        lasts=True,
    ),
    Condition(
        id="udp.files",
        looks_at="Max open files of /proc/self/limits, the hard one",
        expected=f"{FILES_PER_TRANSFER} for each transfer at once",
        measured=f"how many transfers that is, after {OTHER_FILES} for the server itself",
        remedy="sudo prlimit --pid $$ --nofile=1048576",
        look=looks.files,
        unit="transfers",
        lasts=True,
    ),
    Condition(
        id="udp.gso",
        looks_at="UDP_SEGMENT (udp(7))",
        expected="many datagrams in one call",
        measured="32 datagrams in one call, and in 32",
        remedy="sudo ethtool -K lo tx-udp-segmentation on",
        look=looks.gso,
        unit="ns",
        lasts=True,
    ),
    Condition(
        id="udp.gro",
        looks_at="UDP_GRO (udp(7))",
        expected="a window arrives as one message",
        measured="messages for a window of 8 datagrams",
        remedy="sudo ethtool -K lo gro on",
        look=looks.gro,
        unit="messages",
        lasts=True,
    ),
    Condition(
        id="udp.conntrack",
        looks_at="nf_conntrack_count and nf_conntrack_max",
        expected="loopback not tracked, or a table that stays empty",
        measured="how many entries 64 flows on loopback make; the share of the table that transfers at once fill",
        remedy="sudo iptables -t raw -I OUTPUT -o lo -j NOTRACK",
        look=looks.conntrack,
        lasts=True,
    ),
    Condition(
        id="udp.filters",
        looks_at="tables of netfilter, and what arrives",
        expected="every datagram on loopback arrives",
        measured="the share of 200 datagrams, each from a port of its own, that does not arrive",
        remedy="sudo iptables -I INPUT -i lo -j ACCEPT",
        look=looks.filters,
    ),
    Condition(
        id="measure.perf",
        looks_at="kernel.perf_event_paranoid",
        expected="1 or less, or root",
        measured="how many figures of a server can't be counted",
        remedy="sudo sysctl -w kernel.perf_event_paranoid=1",
        look=looks.perf,
        unit="figures",
        lasts=True,
    ),
    Condition(
        id="measure.cgroup",
        looks_at="the control group of this process (version 2)",
        expected="a server can have one of its own, or a perf event",
        measured="whether its folder can be written",
        remedy="systemd-run --user --scope -p Delegate=yes $SHELL",
        look=looks.cgroup,
        unit="figures",
        lasts=True,
    ),
    Condition(
        id="measure.strace",
        looks_at="strace in PATH",
        expected="there",
        measured="how many figures of a gate can't be counted",
        remedy="sudo apt install strace",
        look=looks.strace,
        unit="figures",
        lasts=True,
    ),
    Condition(
        id="measure.namespaces",
        looks_at="settings of user namespaces in /proc/sys",
        expected="allowed",
        measured="whether one of them refuses it",
        remedy="sudo sysctl -w user.max_user_namespaces=15000",
        look=looks.namespaces,
        unit="settings",
        lasts=True,
    ),
    Condition(
        id="measure.kernel",
        looks_at="the kernel's configuration",
        expected="no debugging that slows it down",
        measured="150 datagrams to the same socket",
        remedy="sudo apt install linux-image-generic",
        look=looks.kernel,
        unit="ns",
        lasts=True,
    ),
    Condition(
        id="measure.build",
        looks_at="the native core's build profile",
        expected="release",
        measured="whether trials are valid",
        remedy="make setup",
        look=looks.build,
        unit="builds",
        lasts=True,
    ),
    Condition(
        id="measure.roots",
        looks_at="the file system of served folders",
        expected="in memory (tmpfs), with room for all files",
        measured="20 files of 64 KiB written and read there",
        remedy="sudo mount -o remount,size=80% /dev/shm",
        look=looks.roots,
        unit="ms",
        lasts=True,
    ),
    Condition(
        id="measure.memory",
        looks_at="available memory (psutil)",
        expected="room for served folders and both sides",
        measured="how much there is",
        remedy="ps -eo rss,pid,comm --sort=-rss",
        look=looks.memory,
        unit="bytes",
    ),
    Condition(
        id="self.difference",
        looks_at="pairs of equal loads on the first bundled server",
        expected="5 % can be seen",
        measured="half the 95 % interval of the mean difference of 10 pairs of 80 ms",
        remedy="tftpbench run concurrency --until 5% --budget 30min",
        look=looks.difference,
    ),
    Condition(
        id="self.generator",
        looks_at="machines that boot from that server for half a second",
        expected="as many as a scenario asks for",
        measured="machines that are up each second, 32 at once",
        remedy="tftpbench run concurrency --set placement.generator_cpus=2 --set client.workers=2",
        look=looks.generator,
        unit="boots/s",
    ),
)


def diagnose(needs: Needs = ORDINARY, root: Path = Path("/"), effort: Effort = FULL) -> tuple[Diagnosis, ...]:
    """What was found of every condition, in the order of the records; some 6 s with FULL, 0.1 s with BRIEF.

    `root`: where proc, sys, boot and dev are looked for. Nothing is raised, and nothing is changed.
    """
    m = Examined(needs, root, effort)
    return tuple(_diagnosed(each, m) for each in CONDITIONS)


def in_brief(needs: Needs) -> tuple[Diagnosis, ...]:
    """The same in the little time that every run can afford before its first trial."""
    return diagnose(needs, effort=BRIEF)


def _diagnosed(condition: Condition, m: Examined) -> Diagnosis:
    try:
        seen = condition.look(m)
    except NotKnown as why:
        seen = Seen(str(why), "not known")
    except (
        OSError,
        ValueError,
        LookupError,
        ArithmeticError,
        RuntimeError,
    ) as error:  # a kernel that answers as none before it did
        seen = Seen(f"{type(error).__name__}: {error}", "not known")
    is_bad = seen.effect in ("costs", "spoils")
    remedy = seen.remedy or condition.remedy
    if remedy.startswith(f"{PROGRAM} "):
        remedy = typed(remedy.split())  # so that it can be pasted here
    return Diagnosis(
        condition.id, one_line(seen.found), condition.expected, seen.effect, seen.size, condition.unit,
        one_line(seen.costs) if is_bad else "", remedy if is_bad else "",
    )  # fmt: skip


def document(found: Sequence[Diagnosis], needs: Needs) -> dict[str, object]:
    """The one JSON document of `tftpbench doctor --json`."""
    return {
        "schema": SCHEMA,
        "scenario": needs.scenario or None,
        "effect": worst(found),
        "conditions": [each.document for each in found],
    }


def worst(found: Sequence[Diagnosis]) -> Effect:
    """The most severe effect; what is not known is none."""
    return max((each.effect for each in found if each.effect != "not known"), key=EFFECTS.index, default="ok")
