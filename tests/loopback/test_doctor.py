"""Conditions that are injected: each is named, and where it can be made for real, its size is that of what it does.

Most are files of a made-up root. Those that a user can make are made in a process of their own, which measures the
same thing in a way of its own; sizes are then within twice of each other, however busy the machine is. What needs a
machine at rest is in benches/doctor.py.
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
from typing import Any

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
import json, os, sys
from tftpbench.host.conditions import CONDITIONS
from tftpbench.host.looks import FULL, Examined
{before}
look = next(each.look for each in CONDITIONS if each.id == "{identity}")
seen = look(Examined(effort=FULL))
{after}
print(json.dumps([seen.effect, seen.size, measured]))
"""


def real(identity: str, before: str, after: str, wrapper: tuple[str, ...] = ()) -> tuple[str, float, float]:
    """What doctor says where a condition was made, and what it really does. Skips where it can't be made."""
    script = CHILD.format(identity=identity, before=before, after=after)
    argv = [*wrapper, sys.executable, "-c", script]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode == 77:
        pytest.skip(f"this machine lets no user make that: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    effect, size, measured = json.loads(done.stdout)
    return effect, size, measured


def within_twice(size: float, measured: float) -> bool:
    return measured / 2 <= size <= 2 * measured


# Threads that want a core, each in a process of its own: the share of the time for which the worst has none.
BUSY = """
import subprocess
spin = ("import time; b, u = time.perf_counter(), time.process_time()\\n"
        "while time.perf_counter() < b + 0.4: pass\\n"
        "print((time.process_time() - u) / (time.perf_counter() - b))")
some = [subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) for _ in range({count})]
measured = 1 - min(float(each.communicate()[0]) for each in some)
"""


def test_one_core_for_both_sides() -> None:
    effect, size, measured = real("cpu.cores", "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])",
                                  BUSY.format(count=2))  # fmt: skip
    assert effect in ("costs", "spoils")
    assert within_twice(size, measured)


@contextmanager
def neighbours(each: int) -> Iterator[None]:
    """Programs that want every core of ours, so many to a core."""
    spin = "import os, sys\nos.sched_setaffinity(0, [int(sys.argv[1])])\nprint(flush=True)\nwhile True: pass"
    started = [
        subprocess.Popen([sys.executable, "-c", spin, str(core)], stdout=subprocess.PIPE)
        for core in CORES
        for _ in range(each)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in started:
            process.kill()
            process.communicate()


PINNED = "import os\nos.sched_setaffinity(0, [{core}])\n" + BUSY.format(count=1)


@pytest.mark.skipif(len(CORES) < 2, reason="server and generator share the only core")
def test_busy_neighbours() -> None:
    with neighbours(3):
        effect, size, measured = real("cpu.others", "", PINNED.format(core=CORES[-1]))
    assert effect == "spoils"
    assert within_twice(size, measured)


def test_few_open_files() -> None:
    before = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))"
    after = """
import socket
kept = []
try:
    while True:
        kept.append((socket.socket(), open(os.devnull)))
except OSError:
    measured = len(kept)
kept.clear()
"""
    effect, size, measured = real("udp.files", before, after)
    assert effect == "ok", "for 100 at once they are enough"
    assert within_twice(size, measured)


def test_few_ports() -> None:
    before = """
import subprocess
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
open("/proc/sys/net/ipv4/ip_local_port_range", "w").write("40000 40049")
"""
    after = """
import socket
kept = []
try:
    while len(kept) < 1000:
        kept.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        kept[-1].bind(("127.0.0.1", 0))
except OSError:
    measured = len(kept) - 1
"""
    effect, size, measured = real("udp.ports", guarded(before), after, NAMESPACE)
    assert effect == "spoils"
    assert (size, measured) == (50, 50)


def test_a_loopback_that_carries_nothing() -> None:
    after = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 0))
server.settimeout(0.1)
client, lost = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0
try:
    client.sendto(b"x", server.getsockname())
    server.recv(9)
except OSError:
    lost = 1
measured = lost
"""
    effect, size, measured = real("udp.filters", guarded(""), after, NAMESPACE)
    assert (effect, size, measured) == ("spoils", 1.0, 1)


def test_no_namespaces() -> None:
    before = 'open("/proc/sys/user/max_user_namespaces", "w").write("0")'
    after = 'import subprocess\nmeasured = int(subprocess.run(["unshare", "-U", "true"], check=False).returncode != 0)'
    effect, size, measured = real("measure.namespaces", guarded(before), after, NAMESPACE)
    assert (effect, size, measured) == ("costs", 1.0, 1)


NAMESPACE = ("unshare", "-Urn")


def guarded(before: str) -> str:
    """Ends with 77 where the machine refuses."""
    lines = "\n".join(f"    {line}" for line in (before or "pass").splitlines())
    return (
        f"import subprocess\ntry:\n{lines}\nexcept (OSError, subprocess.CalledProcessError) as why:\n"
        "    print(why, file=sys.stderr)\n    sys.exit(77)\n"
    )


@pytest.fixture(autouse=True)
def _namespaces(request: pytest.FixtureRequest) -> None:
    if request.node.name in ("test_few_ports", "test_a_loopback_that_carries_nothing", "test_no_namespaces"):
        program = shutil.which("unshare")
        done = program and subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True, check=False)
        if not done or done.returncode:
            pytest.skip(f"no network namespace can be made here: {done.stderr.strip() if done else 'no unshare'}")


def test_late_sleeps() -> None:
    """A timer slack (prctl(2), PR_SET_TIMERSLACK) of 20 ms lets the kernel be late by as much."""
    before = "import ctypes\nctypes.CDLL(None).prctl(29, 20_000_000, 0, 0, 0)"
    after = """
import time
late = []
for _ in range(50):
    began = time.perf_counter_ns()
    time.sleep(0.0001)
    late.append(time.perf_counter_ns() - began - 100_000)
measured = max(late)
"""
    effect, size, measured = real("timer.sleep", before, after)
    assert effect in ("costs", "spoils")
    assert size > 1e6
    assert within_twice(size, measured) or measured > 4e7, "unless the machine stood still meanwhile"


def test_a_small_buffer(tmp_path: Path) -> None:
    root = machine(tmp_path, proc__sys__net__core__rmem_default="16384")
    found = seen("udp.buffer_default", root)
    after = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
server.bind(("127.0.0.1", 0))
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(500):
    client.sendto(b"\\0\\1pxelinux.0\\0octet\\0", server.getsockname())
server.setblocking(False)
measured = 0
try:
    while server.recv(99):
        measured += 1
except BlockingIOError:
    pass
"""
    _, _, measured = real("udp.buffer_default", "", after)
    assert found.effect == "costs"
    assert found.size is not None
    assert within_twice(found.size, measured)


def quota_group() -> Path | None:
    """A control group with half a core, where one can be made; the caller removes it."""
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
        if (group / file).exists():  # the kernel makes it where the controller is there
            (group / file).write_text(text)
            return group
        group.rmdir()
    return None


def test_a_quota() -> None:
    group = quota_group()
    if group is None:
        pytest.skip("no control group with a quota can be made here: that takes root")
    try:
        before = f'open("{group}/cgroup.procs", "w").write("0")'
        effect, size, measured = real("cpu.quota", before, BUSY.format(count=WANTED))
    finally:
        group.rmdir()
    assert effect == "spoils"
    assert within_twice(size, measured)


def test_the_command_says_all_within_ten_seconds_and_its_code_is_that_of_the_worst(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = cli.exit_code(["doctor", "--for", "smoke", "--json"])
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
