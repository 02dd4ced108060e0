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


LASTS, PASSES = True, False
_Row = tuple[str, str, str, str, str, Callable[[Examined], Seen], str, bool]
# The fields of `Condition`, in their order.
_TABLE: tuple[_Row, ...] = (
    ("cpu.cores", "the cores that this process may use (sched_getaffinity)", "one for each side, server and generator",
     "as many threads as both sides want are busy at once; the share of the time for which one has no core",
     "taskset -acp 0-$(($(nproc --all)-1)) $$", looks.cores, "", LASTS),
    ("cpu.quota", "cpu.max, or cpu.cfs_quota_us, of the control group and those above it",
     "no quota, or enough for both sides", "the share of the time for which threads that want all cores have none",
     "systemctl set-property --runtime user.slice CPUQuota=", looks.quota, "", LASTS),
    ("cpu.throttled", "cpu.stat of the control group", "nothing",
     "the time that is added to it while threads want all cores",
     "systemctl set-property --runtime user.slice CPUQuota=", looks.throttled, "", PASSES),
    ("cpu.siblings", "thread_siblings_list of the cores of both sides", "cores of their own, not two threads of one",
     "the same work on one of them alone, and on all at once",
     "echo off | sudo tee /sys/devices/system/cpu/smt/control", looks.siblings, "", LASTS),
    ("cpu.governor", "scaling_governor of the cores of both sides", "performance",
     "the same work after a pause, and after half a second of work",
     "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor", looks.governor, "", LASTS),
    ("cpu.steal", "steal of /proc/stat", "under 1 %",
     "the share of the cores' time that is added to it while threads want all cores", "vmstat -w 1 60", looks.steal,
     "", PASSES),
    ("cpu.pressure", "some of /proc/pressure/cpu", "under 5 %", "what is added to it while this program sleeps",
     "top -b -n 1 -o %CPU", looks.pressure, "", PASSES),
    ("cpu.others", "CPU time of all other programs (psutil)", "under 5 % of a core",
     "the share of the time for which a thread waited for its core, without quota and hypervisor",
     "top -b -n 1 -o %CPU", looks.others, "", PASSES),
    ("cpu.clock", "current_clocksource", "one that is read without a system call, such as tsc",
     "readings of the clock, the best of five batches",
     "echo tsc | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource", looks.clock, "ns", LASTS),
    ("timer.sleep", "sleeps of 100 us", "1 in 100 at most 1 ms too long", "half a second of them", IDLE, looks.sleep,
     "ns", PASSES),
    ("timer.wake", "a datagram over loopback to a thread that sleeps", "1 in 100 takes at most 1 ms",
     "half of the time until its answer, 500 times over", IDLE, looks.wake, "ns", PASSES),
    ("udp.buffer_default", "net.core.rmem_default", "room for all requests that may come at once",
     "a burst of requests to a socket with such a buffer that is not read; those that wait in it",
     "sudo sysctl -w net.core.rmem_default=4194304", lambda m: looks.buffer(m, "rmem_default"), "requests", LASTS),
    ("udp.buffer_max", "net.core.rmem_max", "room for all requests that may come at once",
     "the same of a socket that asks for as much as it may have", "sudo sysctl -w net.core.rmem_max=4194304",
     lambda m: looks.buffer(m, "rmem_max"), "requests", LASTS),
    ("udp.ports", "net.ipv4.ip_local_port_range", "one for each transfer at once", "how many there are",
     'sudo sysctl -w net.ipv4.ip_local_port_range="10000 65535"', looks.ports, "transfers", LASTS),
    ("udp.files", "Max open files of /proc/self/limits, the hard one",
     f"{FILES_PER_TRANSFER} for each transfer at once",
     f"how many transfers that is, after {OTHER_FILES} for the server itself",
     "sudo prlimit --pid $$ --nofile=1048576", looks.files, "transfers", LASTS),
    ("udp.gso", "UDP_SEGMENT (udp(7))", "many datagrams in one call", "32 datagrams in one call, and in 32",
     "sudo ethtool -K lo tx-udp-segmentation on", looks.gso, "ns", LASTS),
    ("udp.gro", "UDP_GRO (udp(7))", "a window arrives as one message", "messages for a window of 8 datagrams",
     "sudo ethtool -K lo gro on", looks.gro, "messages", LASTS),
    ("udp.conntrack", "nf_conntrack_count and nf_conntrack_max", "loopback not tracked, or a table that stays empty",
     "how many entries 64 flows on loopback make; the share of the table that transfers at once fill",
     "sudo iptables -t raw -I OUTPUT -o lo -j NOTRACK", looks.conntrack, "", LASTS),
    ("udp.filters", "tables of netfilter, and what arrives", "every datagram on loopback arrives",
     "the share of 200 datagrams, each from a port of its own, that does not arrive",
     "sudo iptables -I INPUT -i lo -j ACCEPT", looks.filters, "", PASSES),
    ("measure.perf", "kernel.perf_event_paranoid", "1 or less, or root",
     "how many figures of a server can't be counted", "sudo sysctl -w kernel.perf_event_paranoid=1", looks.perf,
     "figures", LASTS),
    ("measure.cgroup", "the control group of this process (version 2)",
     "a server can have one of its own, or a perf event", "whether its folder can be written",
     "systemd-run --user --scope -p Delegate=yes $SHELL", looks.cgroup, "figures", LASTS),
    ("measure.strace", "strace in PATH", "there", "how many figures of a gate can't be counted",
     "sudo apt install strace", looks.strace, "figures", LASTS),
    ("measure.namespaces", "settings of user namespaces in /proc/sys", "allowed", "whether one of them refuses it",
     "sudo sysctl -w user.max_user_namespaces=15000", looks.namespaces, "settings", LASTS),
    ("measure.kernel", "the kernel's configuration", "no debugging that slows it down",
     "150 datagrams to the same socket", "sudo apt install linux-image-generic", looks.kernel, "ns", LASTS),
    ("measure.build", "the native core's build profile", "release", "whether trials are valid", "make setup",
     looks.build, "builds", LASTS),
    ("measure.roots", "the file system of served folders", "in memory (tmpfs), with room for all files",
     "20 files of 64 KiB written and read there", "sudo mount -o remount,size=80% /dev/shm", looks.roots, "ms", LASTS),
    ("measure.memory", "available memory (psutil)", "room for served folders and both sides", "how much there is",
     "ps -eo rss,pid,comm --sort=-rss", looks.memory, "bytes", PASSES),
    ("self.difference", "pairs of equal loads on the first bundled server", "5 % can be seen",
     "half the 95 % interval of the mean difference of 10 pairs of 80 ms",
     "tftpbench run concurrency --until 5% --budget 30min", looks.difference, "", PASSES),
    ("self.generator", "machines that boot from that server for half a second", "as many as a scenario asks for",
     "machines that are up each second, 32 at once",
     "tftpbench run concurrency --set placement.generator_cpus=2 --set client.workers=2", looks.generator, "boots/s",
     PASSES),
)  # fmt: skip
CONDITIONS = tuple(Condition(*row) for row in _TABLE)


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
