"""Conditions that are injected: each is named, and where it can be made for real, its size is that of what it does.

Many are files of a made-up root. Those that a user can make are made in a process of their own, which measures in a
way of its own what they change: without them, and with them. The stated size is within twice of the latter.
"""

import gzip
import json
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from jsonschema import Draft202012Validator

from tftpbench import cli
from tftpbench.host import effects, looks
from tftpbench.host.conditions import BRIEF, CONDITIONS, EFFECTS, Diagnosis, Needs, diagnose, document, needs_of, worst
from tftpbench.host.effects import Delivered, SelfTest, Spread, Spun
from tftpbench.host.looks import Examined, NotKnown, Seen
from tftpbench.model.scenario import from_document
from tftpbench.model.scenario_files import load_scenario
from tftpbench.render.schema import json_schema

IDS = [each.id for each in CONDITIONS]
LOOKS = {each.id: each.look for each in CONDITIONS}
CORES = sorted(os.sched_getaffinity(0))
WANTED = min(2, len(CORES))
GOOD = {
    "proc/self/cgroup": "0::/job\n",
    "sys/fs/cgroup/cgroup.procs": "",
    "sys/fs/cgroup/job/cpu.max": "max 100000\n",
    "sys/fs/cgroup/job/cpu.stat": "usage_usec 1\nnr_throttled 0\nthrottled_usec 0\n",
    "proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 total=0\n",
    "proc/stat": "".join(f"cpu{core} 1 0 1 100 0 0 0 0 0 0\n" for core in CORES),
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
    "proc/sys/net/core/rmem_default": "212992\n",
    "proc/sys/net/core/rmem_max": "212992\n",
    "proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
    "proc/self/limits": "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024   20000   files\n",
    "proc/sys/kernel/perf_event_paranoid": "1\n",
    "proc/sys/user/max_user_namespaces": "15000\n",
    f"boot/config-{platform.release()}": "CONFIG_NET=y\n# CONFIG_KASAN is not set\n",
    "proc/meminfo": "MemTotal: 9000000 kB\nMemFree: 8000000 kB\nMemAvailable: 8000000 kB\n",
    "proc/self/mountinfo": "1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / /dev/shm rw - tmpfs x rw\n",
    "dev/shm/here": "",
    **{f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list": f"{core}\n" for core in CORES},
    **{f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor": "performance\n" for core in CORES},
}
# What others do on a machine, no file of a made-up root changes.
PASSING = {"cpu.cores", "cpu.others", "cpu.clock", "timer.sleep", "timer.wake", "measure.strace", "measure.build"}


def machine(folder: Path, **files: str) -> Path:
    """A good machine's files, but for these; __ stands for a slash."""
    for name, text in (GOOD | {name.replace("__", "/"): text for name, text in files.items()}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def seen(identity: str, root: Path, needs: Needs = Needs(), effort: looks.Effort = BRIEF) -> Seen:  # noqa: B008
    return LOOKS[identity](Examined(needs, root, effort))


def test_on_a_good_machine_every_file_is_ok(tmp_path: Path) -> None:
    found = {each.id: each for each in diagnose(root=machine(tmp_path), effort=BRIEF)}
    assert list(found) == IDS
    assert {name: each for name, each in found.items() if name not in PASSING and each.effect != "ok"} == {
        name: found[name] for name in ("self.difference", "self.generator")
    }
    assert all(each.remedy == each.costs == "" for each in found.values() if each.effect == "ok")


def test_a_machine_that_shows_nothing_is_not_known_and_no_error(tmp_path: Path) -> None:
    found = {each.id: each.effect for each in diagnose(root=tmp_path, effort=BRIEF)}
    assert {name for name, effect in found.items() if effect == "not known"} >= {
        "cpu.throttled", "cpu.siblings", "cpu.governor", "cpu.steal", "cpu.pressure", "cpu.clock", "udp.buffer_default",
        "udp.buffer_max", "udp.ports", "udp.files", "measure.perf", "measure.namespaces", "measure.kernel",
        "measure.memory", "measure.roots",
    }  # fmt: skip


def test_what_is_no_number_is_not_known(tmp_path: Path) -> None:
    junk = {name.replace("/", "__"): "\x1b[2J\udcff -"[:6] for name in GOOD if not name.startswith("boot")}
    root = machine(tmp_path, **{name: text.encode("utf-8", "replace").decode() for name, text in junk.items()})
    found = diagnose(root=root, effort=BRIEF)
    assert {each.effect for each in found} <= set(EFFECTS)
    assert "\x1b" not in "".join(each.found for each in found)


CLOCK = "sys__devices__system__clocksource__clocksource0__current_clocksource"
PORTS = "proc__sys__net__ipv4__ip_local_port_range"
NAMESPACES = "proc__sys__user__max_user_namespaces"
LITTLE = GOOD["proc/meminfo"].replace("8000000", "60000")
SIBLINGS = {f"sys__devices__system__cpu__cpu{core}__topology__thread_siblings_list": "0-8191" for core in CORES}
GOVERNORS = {f"sys__devices__system__cpu__cpu{core}__cpufreq__scaling_governor": "powersave" for core in CORES}


@pytest.mark.parametrize(
    ("identity", "files", "effect", "size", "remedy"),
    [
        ("cpu.quota", {"sys__fs__cgroup__job__cpu.max": "10000 100000"}, "spoils", 1 - 0.1 / WANTED,
         "echo max | sudo tee /sys/fs/cgroup/job/cpu.max"),
        ("cpu.quota", {"sys__fs__cgroup__cpu.max": "10000 100000"}, "spoils", 1 - 0.1 / WANTED,
         "echo max | sudo tee /sys/fs/cgroup/cpu.max"),
        ("cpu.quota", {"proc__self__cgroup": "3:cpu,cpuacct:/a\n", "sys__fs__cgroup__cpu__a__cpu.cfs_quota_us": "50000",
                       "sys__fs__cgroup__cpu__a__cpu.cfs_period_us": "100000"}, "spoils", 1 - 0.5 / WANTED,
         "echo -1 | sudo tee /sys/fs/cgroup/cpu/a/cpu.cfs_quota_us"),
        ("cpu.governor", GOVERNORS, "costs", None, "scaling_governor"),
        ("cpu.clock", {CLOCK: "hpet"}, "costs", None, "tsc"),
        ("udp.buffer_default", {"proc__sys__net__core__rmem_default": "4608"}, "spoils", None, "rmem_default="),
        ("udp.buffer_max", {"proc__sys__net__core__rmem_max": "4608"}, "costs", None, "rmem_max="),
        ("udp.ports", {PORTS: "40000 40009"}, "spoils", 10, "ip_local_port_range"),
        ("udp.files", {"proc__self__limits": "Max open files 256 256 files"}, "spoils", 64, "prlimit"),
        ("measure.perf", {"proc__sys__kernel__perf_event_paranoid": "4"}, "costs", 2, "perf_event_paranoid"),
        ("measure.perf", {"proc__sys__kernel__perf_event_paranoid": "2"}, "costs", 1, "perf_event_paranoid"),
        ("measure.namespaces", {NAMESPACES: "0"}, "costs", 1, "user.max_user_namespaces=15000"),
        ("measure.namespaces", {"proc__sys__kernel__unprivileged_userns_clone": "0"}, "costs", 1,
         "kernel.unprivileged_userns_clone=1"),
        ("measure.memory", {"proc__meminfo": LITTLE}, "spoils", 60000 * 1024, "ps"),
        ("measure.roots", {"proc__self__mountinfo": "1 0 0:1 / / rw - ext4 x rw\n"}, "costs", None, "mount"),
    ],
)  # fmt: skip
def test_a_condition_of_a_file_is_named_with_its_size_and_remedy(
    identity: str, files: dict[str, str], effect: str, size: float | None, remedy: str, tmp_path: Path
) -> None:
    root = machine(tmp_path, **files)
    (found,) = (each for each in diagnose(root=root, effort=BRIEF) if each.id == identity)
    assert found.effect == effect
    assert found.costs
    assert remedy in found.remedy
    assert found.size is not None
    if size is not None:
        assert found.size == pytest.approx(size)


def test_two_threads_of_one_core_are_named(tmp_path: Path) -> None:
    found = seen("cpu.siblings", machine(tmp_path, **SIBLINGS))
    assert found.effect == ("ok" if WANTED < 2 else "costs")


def test_a_kernel_for_finding_faults_is_named(tmp_path: Path) -> None:
    root = machine(tmp_path)
    (root / "proc/config.gz").write_bytes(gzip.compress(b"CONFIG_KASAN=y\nCONFIG_PROVE_LOCKING=y\n"))
    found = seen("measure.kernel", root)
    assert (found.effect, found.found) == ("costs", "KASAN, PROVE_LOCKING")
    (root / "proc/config.gz").write_bytes(b"no gzip")
    assert seen("measure.kernel", root).effect == "ok", "the one in /boot is taken"


def grows(path: Path, text: str, result: Any) -> Callable[..., Any]:
    """Work during which a file of the kernel becomes another."""

    def work(*_: object) -> Any:
        path.write_text(text)
        return result

    return work


def test_what_counts_up_meanwhile_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machine(tmp_path)
    spun = [Spun(10**9, 5 * 10**8, 10)] * WANTED
    stolen = "".join(f"cpu{core} 1 0 1 160 0 0 0 40 0 0\n" for core in CORES)
    monkeypatch.setattr(effects, "spin", grows(root / "proc/stat", stolen, spun))
    found = seen("cpu.steal", root)
    assert (found.effect, found.size) == ("spoils", 0.4)

    root = machine(tmp_path)
    stat = root / "sys/fs/cgroup/job/cpu.stat"
    monkeypatch.setattr(effects, "spin", grows(stat, f"throttled_usec {250_000 * WANTED}\n", spun))
    found = seen("cpu.throttled", root)
    assert (found.effect, found.size) == ("costs", 0.25)

    pressure = "some avg10=9.00 avg60=0.00 avg300=0.00 total=999999999\n"
    monkeypatch.setattr(effects, "sleeps", grows(root / "proc/pressure/cpu", pressure, Spread(1.0, 2.0)))
    assert seen("cpu.pressure", root).effect == "spoils"

    tracked = root / "proc/sys/net/netfilter/nf_conntrack_count"
    tracked.parent.mkdir(parents=True)
    tracked.write_text("5\n")
    (tracked.parent / "nf_conntrack_max").write_text("205\n")
    monkeypatch.setattr(effects, "flows", grows(tracked, "69\n", Delivered(64, 64)))
    found = seen("udp.conntrack", root)
    assert (found.effect, found.size) == ("costs", 0.5)


def test_what_the_kernel_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = machine(tmp_path)
    monkeypatch.setattr(effects, "_UDP_SEGMENT", 9999)
    assert seen("udp.gso", root).effect == "costs"
    assert seen("udp.gro", root).effect == "costs"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert seen("measure.strace", root).effect == "costs"
    monkeypatch.setattr(looks, "IS_DEBUG_BUILD", True)
    assert seen("measure.build", root).effect == "spoils"


def test_a_self_test_says_what_can_be_seen_and_what_the_generator_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(differences: tuple[float, ...], boots: float | None) -> Examined:
        made = SelfTest("one", differences, "uefi", boots)
        monkeypatch.setattr(effects, "self_test", lambda *_: made)
        return Examined(Needs(boots_per_s=200.0))

    # Half the interval of these: 2.262 * 0.0527 / sqrt(10).
    exact = LOOKS["self.difference"](found((0.05, -0.05) * 5, 250.0))
    assert exact.size == pytest.approx(math.expm1(2.262 * 0.0527046 / math.sqrt(10)), rel=1e-4)
    assert exact.effect == "ok"
    assert LOOKS["self.difference"](found((0.8, -0.8) * 5, 250.0)).effect == "spoils"
    assert LOOKS["self.generator"](found((), 250.0)).effect == "ok"
    assert LOOKS["self.generator"](found((), 150.0)).effect == "spoils"
    with pytest.raises(NotKnown):
        LOOKS["self.generator"](found((), None))
    with pytest.raises(NotKnown):
        LOOKS["self.difference"](found((0.1,), None))


def test_needs_are_those_of_the_scenario() -> None:
    storm = from_document(
        {
            "schema": "tftpbench.scenario/1",
            "name": "storm",
            "description": "A storm.",
            "servers": ["epoll"],
            "matrix": {"boot": "uefi", "machines": [10, 700], "over": "10s"},
        },
        "test",
    )
    needs = needs_of(storm)
    assert (needs.concurrency, needs.boots_per_s, needs.profile) == (700, 70.0, "uefi")
    assert needs.at_once == 4, "of 70 a second, in 50 ms"
    assert needs.roots_bytes >= 430 * 1024
    assert needs_of(load_scenario("smoke", ["matrix.concurrency=[3, 900]"])).at_once == 900


def test_the_document_follows_its_schema_and_holds_the_worst(tmp_path: Path) -> None:
    root = machine(tmp_path, proc__self__limits="Max open files 256 256 files")
    found = diagnose(root=root, effort=BRIEF)
    made = document(found, Needs())
    Draft202012Validator(json_schema("doctor")).validate(made)
    json.dumps(made, allow_nan=False)
    assert made["effect"] == worst(found) == "spoils"
    assert worst([each for each in found if each.effect in ("ok", "not known")]) == "ok"
    unlimited = Diagnosis("udp.files", "no limit", "", "ok", math.inf, "", "", "")
    assert unlimited.document["size"] is None


CHILD = """
import contextlib, json, os, shutil, socket, subprocess, sys, tempfile, time
from pathlib import Path
from tftpbench.host import effects
from tftpbench.host.conditions import CONDITIONS, FULL, Needs
from tftpbench.host.looks import Examined
root = Path("/")
def udp():
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
{figure}
def guarded(work):
    try:
        exec(work, globals())
    except (OSError, subprocess.CalledProcessError) as why:
        print(why, file=sys.stderr)
        sys.exit(77)
ended = []
guarded({setup!r})
without = figure()
guarded({inject!r})
look = next(each.look for each in CONDITIONS if each.id == "{identity}")
try:
    for _ in range(5):
        seen = look(Examined({needs}, root, FULL))
        present = figure()
        if seen.size is None or present / 2 <= seen.size <= 2 * present or ({is_timed} and without > present / 1.5):
            break
finally:
    for each in ended:
        each.kill()
        each.communicate()
print(json.dumps([seen.effect, seen.size, without, present]))
"""


class Injected(NamedTuple):
    """A condition as a process makes it for itself, in Python, and a figure that it changes there.

    `figure`: defines figure(), which measures what doctor states, in a way of its own. `grows`: it is more with the
    condition, else less. `is_timed`: others on the machine can make it as bad without the condition.
    """

    figure: str
    inject: str
    grows: bool = True
    is_timed: bool = False
    setup: str = ""
    needs: str = "Needs()"
    wrapper: tuple[str, ...] = ()


# Threads that want a core, each in a process of its own: the share of the time for which the worst has none.
BUSY = """
spin = ("import os, sys, time; core = int(sys.argv[1]); core >= 0 and os.sched_setaffinity(0, [core])\\n"
        "b, u = time.perf_counter(), time.process_time()\\n"
        "while time.perf_counter() < b + 0.4: pass\\n"
        "print((time.process_time() - u) / (time.perf_counter() - b))")
def figure():
    some = [subprocess.Popen([sys.executable, "-c", spin, "{core}"], stdout=subprocess.PIPE) for _ in range({count})]
    return 1 - min(float(each.communicate()[0]) for each in some)
"""
# Programs that want every core, so many to a core.
NEIGHBOURS = """
for core in sorted(os.sched_getaffinity(0)) * {each}:
    endless = f"import os\\nos.sched_setaffinity(0, [{{core}}])\\nprint(flush=True)\\n"
    endless += f"while os.getppid() == {{os.getpid()}}: sum(range(10_000))"  # whatever becomes of this test
    ended.append(subprocess.Popen([sys.executable, "-c", endless], stdout=subprocess.PIPE))
for each in ended:
    each.stdout.readline()
"""
# For how long the neighbours waited for a core, all together; one of them at least, if that is less.
WAITED = """
def waits_s():
    return sum(int(Path(f"/proc/{each.pid}/schedstat").read_text().split()[1]) for each in ended) / 1e9
def figure():
    began, waited = time.perf_counter(), waits_s()
    time.sleep(0.4)
    return min(1.0, (waits_s() - waited) / (time.perf_counter() - began))
"""
LATE = """
def figure():
    late = []
    for _ in range(50):
        began = time.perf_counter_ns()
        time.sleep(0.0001)
        late.append(time.perf_counter_ns() - began - 100_000)
    return max(late)
"""
# Requests that wait in a socket which is not read.
HELD = """
size = None
def figure():
    with udp() as server, udp() as client:
        if size is not None:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        server.bind(("127.0.0.1", 0))
        for _ in range(500):
            client.sendto(b"\\0\\1pxelinux.0\\0octet\\0", server.getsockname())
        server.setblocking(False)
        held = 0
        with contextlib.suppress(BlockingIOError):
            while server.recv(99):
                held += 1
        return held
"""
SMALL = """
root, size = Path(tempfile.mkdtemp()), {asked}
core = root / "proc/sys/net/core"
core.mkdir(parents=True)
(core / "{name}").write_text("{bytes}")
"""
PORTS_HAD = """
def figure():
    with contextlib.ExitStack() as kept:
        for count in range(1000):
            one = kept.enter_context(udp())
            try:
                one.bind(("127.0.0.1", 0))
            except OSError:
                return count
    return 1000
"""
OPENED = """
def figure():
    with contextlib.ExitStack() as kept:
        for count in range(3000):
            try:
                kept.enter_context(socket.socket())
                kept.enter_context(open(os.devnull))
            except OSError:
                return count
    return 3000
"""
FILES = """
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
most = {0} if hard < 0 else min(hard, {0})
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
"""
# As the kernel takes them: 32 datagrams, in ns at best; and a window of 8, in messages.
SENT = """
def figure():
    best = []
    with udp() as server, udp() as client:
        server.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        for _ in range(50):
            began = time.perf_counter_ns()
            with contextlib.suppress(OSError):
                client.setsockopt(socket.IPPROTO_UDP, effects._UDP_SEGMENT, 516)
                client.send(bytes(516 * 32))
                best.append(time.perf_counter_ns() - began)
                continue
            for _ in range(32):
                client.send(bytes(516))
            best.append(time.perf_counter_ns() - began)
    return min(best)
"""
GATHERED = """
def figure():
    with udp() as server, udp() as client:
        server.bind(("127.0.0.1", 0))
        with contextlib.suppress(OSError):
            server.setsockopt(socket.IPPROTO_UDP, effects._UDP_GRO, 1)
        client.setsockopt(socket.IPPROTO_UDP, 103, 516)
        client.sendto(bytes(516 * 8), server.getsockname())
        server.setblocking(False)
        count = 0
        with contextlib.suppress(BlockingIOError):
            while server.recv(65535):
                count += 1
        return count
"""
LOST = """
def figure():
    with udp() as server, udp() as client:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        came = 0
        for _ in range(20):
            with contextlib.suppress(OSError):
                client.sendto(b"x", server.getsockname())
                came += len(server.recv(9))
        return 1 - came / 20
"""
REFUSED = """
def figure():
    with contextlib.suppress(OSError):
        return int(subprocess.run({words}, capture_output=True, check=False).returncode != 0)
    return 1
"""
NAMESPACE = ("unshare", "-Urn")
UP = 'subprocess.run(["ip", "link", "set", "lo", "up"], check=True)'
GROUP = 'open(os.environ["TFTPBENCH_TEST_GROUP"] + "/cgroup.procs", "w").write("0")'
INJECTED: dict[str, Injected] = {
    "cpu.cores": Injected(
        BUSY.format(core=-1, count=2), "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])", is_timed=True
    ),
    "cpu.others": Injected(BUSY.format(core=CORES[-1], count=1), NEIGHBOURS.format(each=3), is_timed=True),
    "cpu.pressure": Injected(WAITED, NEIGHBOURS.format(each=2)),
    "cpu.quota": Injected(BUSY.format(core=-1, count=WANTED), GROUP, is_timed=True),
    "cpu.throttled": Injected(BUSY.format(core=-1, count=WANTED), GROUP, is_timed=True),
    # A timer slack (prctl(2), PR_SET_TIMERSLACK) of 20 ms lets the kernel be late by as much.
    "timer.sleep": Injected(LATE, "import ctypes\nctypes.CDLL(None).prctl(29, 20_000_000, 0, 0, 0)", is_timed=True),
    "udp.buffer_default": Injected(HELD, SMALL.format(name="rmem_default", bytes=16384, asked=8192), grows=False),
    "udp.buffer_max": Injected(HELD, SMALL.format(name="rmem_max", bytes=4608, asked=4608), grows=False),
    "udp.ports": Injected(
        PORTS_HAD, 'open("/proc/sys/net/ipv4/ip_local_port_range", "w").write("40000 40049")', grows=False, setup=UP,
        wrapper=NAMESPACE,
    ),
    "udp.files": Injected(
        OPENED, FILES.format(512), grows=False, setup=FILES.format(8192), needs="Needs(concurrency=1000)"
    ),
    "udp.gso": Injected(SENT, "effects._UDP_SEGMENT = 9999", is_timed=True),
    "udp.gro": Injected(GATHERED, "effects._UDP_GRO = 9999"),
    "udp.filters": Injected(LOST, UP.replace('"up"', '"down"'), setup=UP, wrapper=NAMESPACE),
    "measure.namespaces": Injected(
        REFUSED.format(words=["unshare", "-U", "true"]), 'open("/proc/sys/user/max_user_namespaces", "w").write("0")',
        wrapper=NAMESPACE,
    ),
    "measure.strace": Injected(REFUSED.format(words=["strace", "-V"]), 'os.environ["PATH"] = "/nowhere"'),
}  # fmt: skip


def test_twelve_conditions_and_more_are_made_for_real() -> None:
    assert len(INJECTED) >= 12
    assert INJECTED.keys() < set(IDS)


@pytest.mark.parametrize("identity", INJECTED)
def test_a_condition_changes_what_it_is_said_to_change_by_as_much(identity: str, tmp_path: Path) -> None:
    asked = INJECTED[identity]
    _skip_where_it_can_not_be_made(identity, asked)
    with _group(identity) as group:
        done = subprocess.run(
            [*asked.wrapper, sys.executable, "-c", CHILD.format(identity=identity, **asked._asdict())],
            capture_output=True, text=True, timeout=100, check=False,
            env={**os.environ, "TMPDIR": str(tmp_path), "TFTPBENCH_TEST_GROUP": str(group)},
        )  # fmt: skip
    if done.returncode == 77:
        pytest.skip(f"this machine lets no user make that: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    effect, size, without, present = json.loads(done.stdout)
    if asked.is_timed and without > present / 1.5:
        pytest.skip(f"this machine is as busy without it: {without:.3g}, and {present:.3g} with it")
    assert present > without if asked.grows else present < without
    assert effect in ("costs", "spoils")
    assert present / 2 <= size <= 2 * present


def _skip_where_it_can_not_be_made(identity: str, asked: Injected) -> None:
    if len(CORES) < 2 and identity in ("cpu.cores", "cpu.others"):
        pytest.skip("server and generator share the only core")
    if identity == "measure.strace" and shutil.which("strace") is None:
        pytest.skip("strace is not here, so that it can't be taken away")
    if identity == "cpu.pressure" and not (
        Path("/proc/pressure/cpu").exists() and Path("/proc/self/schedstat").exists()
    ):
        pytest.skip("this kernel counts no waiting for a core")
    if asked.wrapper:
        done = shutil.which("unshare") and subprocess.run(
            [*NAMESPACE, "true"], capture_output=True, text=True, check=False
        )
        if not done or done.returncode:
            pytest.skip(f"no network namespace can be made here: {done.stderr.strip() if done else 'no unshare'}")


@contextmanager
def _group(identity: str) -> Iterator[Path | None]:
    """A control group with half a core for those that need one."""
    if identity not in ("cpu.quota", "cpu.throttled"):
        yield None
        return
    name = f"tftpbench-test-{os.getpid()}"
    for parent, file, text in (
        (Path("/sys/fs/cgroup"), "cpu.max", "50000 100000"),
        (Path("/sys/fs/cgroup/cpu"), "cpu.cfs_quota_us", "50000"),
    ):
        group = parent / name
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / file).exists():  # the kernel makes it where the controller is there
                (group / file).write_text(text)
                yield group
                return
        finally:
            group.rmdir()
    pytest.skip("no control group with a quota can be made here: that takes root")


def test_the_command_says_all_within_ten_seconds_and_its_code_is_that_of_the_worst(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of CPU time, its server's included: a busy machine makes it wait, but not work. It sleeps for half a second."""
    before_s = sum(os.times()[:4])
    code = cli.exit_code(["doctor", "--for", "smoke", "--json"])
    assert sum(os.times()[:4]) - before_s < 10 - looks.FULL.sleeps_s
    made = json.loads(capsys.readouterr().out)
    Draft202012Validator(json_schema("doctor")).validate(made)
    assert made["scenario"] == "smoke"
    assert code == (6 if made["effect"] == "spoils" else 0)
    by_id = {each["id"]: each for each in made["conditions"]}
    assert by_id["self.generator"]["size"] is None or by_id["self.generator"]["size"] > 0

    fine = [Diagnosis(name, "fine", "", "ok", 0.0, "", "", "") for name in IDS]
    monkeypatch.setattr("tftpbench.host.conditions.diagnose", lambda *_: fine)
    assert cli.exit_code(["doctor"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"ok"}

    bad = [*fine, Diagnosis("cpu.steal", "9 %", "none", "spoils", 0.09, "", "lost", "vmstat"),
           Diagnosis("cpu.governor", "hidden", "", "not known", None, "", "", "")]  # fmt: skip
    monkeypatch.setattr("tftpbench.host.conditions.diagnose", lambda *_: bad)
    assert cli.exit_code(["doctor"]) == 6
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "spoils  cpu.steal           9 %: lost",
        "        expected: none",
        "        remedy:   vmstat",
        "Not known here: cpu.governor (hidden)",
    ]
