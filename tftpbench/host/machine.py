"""What the machine, the kernel and the build are: the facts that may change a figure.

Facts only; it judges nothing and changes nothing. No fact is ever a reason to fail: one that can't be known is None.
"""

import contextlib
import os
import platform
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tftpbench.model.keys import stable_key

# Facts that last: a run on the same machine another day has the same ones (docs/results-format.md lists them).
HOST_KEY_FACTS = (
    "architecture",
    "cpu_model",
    "cpus",
    "cpu_quota",
    "governor",
    "kernel_release",
    "loopback_mtu",
    "memory_gib",
    "python",
    "rmem_max",
    "virtualisation",
    "wmem_max",
)
GIT_TIMEOUT_S = 5.0

Fact = str | int | float | bool | None


def facts(root: Path = Path("/")) -> dict[str, Fact]:
    """What is known about this machine. `root` holds proc and sys; only tests have another."""
    memory_kib = _number(_field(root / "proc/meminfo", "MemTotal", ":"))
    return {
        "architecture": platform.machine(),
        "cpu_model": _cpu_model(root),
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_quota": _cpu_quota(root),
        "cpu_mhz": _decimal(_field(root / "proc/cpuinfo", "cpu MHz", ":")),
        "governor": _line(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "hostname": socket.gethostname(),
        "kernel": platform.release(),
        "kernel_release": ".".join(platform.release().split(".")[:2]),
        "load_1min": load_average(),
        "loopback_mtu": _number(_line(root / "sys/class/net/lo/mtu")),
        "memory_bytes": memory_kib * 1024 if memory_kib is not None else None,
        "memory_gib": round(memory_kib / 1024**2) if memory_kib is not None else None,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "python_full": platform.python_version(),
        "rmem_default": _number(_line(root / "proc/sys/net/core/rmem_default")),
        "rmem_max": _number(_line(root / "proc/sys/net/core/rmem_max")),
        "virtualisation": _virtualisation(root),
        "wmem_max": _number(_line(root / "proc/sys/net/core/wmem_max")),
    }


def host_key(known: Mapping[str, object]) -> str:
    """Equal for runs on machines alike: from the lasting facts, not from name, clock speed or load."""
    return stable_key({name: known.get(name) for name in HOST_KEY_FACTS})


def host_keys(machines: Iterable[Mapping[str, object]]) -> str:
    """Equal for machines alike, in whatever order they are named."""
    return stable_key({"host_keys": sorted(map(host_key, machines))})


def build() -> dict[str, Fact]:
    """Which tftpbench measured: versions of both halves, build profile, git commit where it runs from a clone."""
    # Inside, so that everything else here works before the native half is built.
    from tftpbench import _core

    commit, dirty = _git_commit()
    return {
        "tftpbench": _installed_version(),
        "core": _core.VERSION,
        "build_profile": _core.BUILD_PROFILE,
        "git_commit": commit,
        "git_dirty": dirty,
    }


def stolen_ticks(cores: Sequence[int], root: Path = Path("/")) -> tuple[int, int]:
    """Ticks that the hypervisor took from the cores, and all their ticks so far (proc_stat(5))."""
    stolen = total = 0
    wanted = {f"cpu{core}" for core in cores}
    try:
        lines = (root / "proc/stat").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return 0, 0
    for name, *fields in (line.split() for line in lines):
        if name in wanted:
            # Guest time, which follows, is in user time already; kernels before 2.6.11 have no time stolen.
            ticks = [int(field) for field in fields[:8] if field.isdecimal()] + [0] * (8 - len(fields))
            stolen, total = stolen + ticks[7], total + sum(ticks)
    return stolen, total


def cpu_pressure_ns(root: Path = Path("/")) -> int | None:
    """For how long something has waited for a core so far (PSI, some); None where the kernel does not say."""
    for line in (_line(root / "proc/pressure/cpu") or "").splitlines():
        kind, _, fields = line.partition(" ")
        total = _number(fields.rpartition("total=")[2])
        if kind == "some" and total is not None:
            return total * 1000
    return None


class CpuLimit(NamedTuple):
    """Cores' worth of time that a control group grants, and the command that lifts it."""

    cores: float
    remedy: str


def cpu_limit(root: Path = Path("/")) -> CpuLimit | None:
    """The narrowest quota of this process's control group and those above it; None where there is none."""
    found = []
    for folder in _cpu_groups(root):
        words = (_line(folder / "cpu.max") or "").split()
        name, lifted = "cpu.max", "max"
        if not words:
            words = [_line(folder / f"cpu.cfs_{each}_us") or "" for each in ("quota", "period")]
            name, lifted = "cpu.cfs_quota_us", "-1"
        quota, period = (_number(word) for word in words[:2]) if len(words) >= 2 else (None, None)
        if quota and period:
            path = f"/{(folder / name).relative_to(root)}"
            found.append(CpuLimit(quota / period, f"echo {lifted} | sudo tee {path}"))
    return min(found, default=None)


def throttled_ns(root: Path = Path("/")) -> int | None:
    """For how long this process's control group, or one above it, was held back so far; None where that is not known.

    Summed over cores (kernel's cgroup-v2 document, cpu.stat; sched-bwc).
    """
    found = []
    for folder in _cpu_groups(root):
        fields = dict(
            pair for line in (_line(folder / "cpu.stat") or "").splitlines() if len(pair := line.split()) == 2
        )
        for name, unit_ns in (("throttled_usec", 1000), ("throttled_time", 1)):
            value = _number(fields.get(name))
            found += [] if value is None else [value * unit_ns]
    return max(found, default=None)


def _cpu_groups(root: Path) -> Iterator[Path]:
    """Folders of the control group that has this process's CPU time, the innermost first, of both versions."""
    for line in (_line(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = (
            ("sys/fs/cgroup", "sys/fs/cgroup/unified")
            if not controllers
            else ("sys/fs/cgroup/cpu", f"sys/fs/cgroup/{controllers}")
        )
        for mount in dict.fromkeys(mounts):
            group = PurePosixPath(path.lstrip("/"))
            parents = [] if ".." in group.parts else [group, *group.parents]
            yield from (root / mount / each for each in parents if (root / mount / each).is_dir())


def _installed_version() -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("tftpbench")
    return None


def _cpu_model(root: Path) -> str | None:
    # x86 names a model; ARM kernels tell only numbers of implementer and part (man 5 proc, cpuinfo).
    cpuinfo = root / "proc/cpuinfo"
    named = _field(cpuinfo, "model name", ":")
    if named is not None:
        return named
    numbers = [_field(cpuinfo, key, ":") for key in ("CPU implementer", "CPU part")]
    return " ".join(number for number in numbers if number) or None


def _cpu_quota(root: Path) -> float | None:
    """Cores' worth of time that the control group grants (kernel's cgroup-v2 document, cpu.max); None: no limit."""
    words = (_line(root / "sys/fs/cgroup/cpu.max") or "max").split()
    if len(words) != 2 or words[0] == "max":
        return None
    quota, period = _number(words[0]), _number(words[1])
    return quota / period if quota and period else None


def _virtualisation(root: Path) -> str | None:
    if any((root / marker).exists() for marker in (".dockerenv", "run/.containerenv")):
        return "container"
    vendor = _line(root / "sys/hypervisor/type") or _line(root / "sys/class/dmi/id/sys_vendor")
    is_guest = " hypervisor" in (_field(root / "proc/cpuinfo", "flags", ":") or "")
    return f"virtual machine ({vendor or 'unknown'})" if is_guest else None


def _git_commit() -> tuple[str | None, bool | None]:
    """Commit of the clone that this package lies in; of no other repository around an installed one."""
    clone = Path(__file__).resolve().parents[2]
    if not (clone / "pyproject.toml").is_file():
        return None, None
    commit = _git(clone, "rev-parse", "HEAD")
    changes = _git(clone, "status", "--porcelain", "--untracked-files=no") if commit else None
    return commit, None if changes is None else bool(changes)


def _git(clone: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(clone), *words], capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def load_average() -> float | None:
    """How many processes ran or waited for a core in the last minute, on average (getloadavg(3))."""
    with contextlib.suppress(OSError):
        return round(os.getloadavg()[0], 2)
    return None


def _line(path: Path) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").strip() or None
    return None


def _field(path: Path, key: str, separator: str) -> str | None:
    for line in (_line(path) or "").splitlines():
        name, _, value = line.partition(separator)
        if name.strip() == key:
            return value.strip() or None
    return None


def _number(text: str | None) -> int | None:
    word = (text or "").split()[:1]
    return int(word[0]) if word and word[0].isdecimal() else None


def _decimal(text: str | None) -> float | None:
    with contextlib.suppress(ValueError):
        return float(text) if text else None
    return None
