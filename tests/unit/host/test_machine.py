"""Facts of the machine, and which cores each side gets."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import tftpbench
from tftpbench.host import machine
from tftpbench.host.pinning import pin
from tftpbench.model.workload import Placement


def fake_root(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


def test_facts_are_plain_values_that_hold_for_any_linux() -> None:
    facts = machine.facts()
    assert set(machine.HOST_KEY_FACTS) <= set(facts)
    assert isinstance(facts["cpus"], int)
    assert facts["cpus"] >= 1
    assert isinstance(facts["memory_bytes"], int)
    assert all(value is None or isinstance(value, (str, int, float)) for value in facts.values())


def test_nothing_known_is_no_error(tmp_path: Path) -> None:
    facts = machine.facts(tmp_path)
    assert (facts["cpu_model"], facts["memory_bytes"], facts["rmem_max"], facts["virtualisation"]) == (None,) * 4


def test_files_of_the_kernel_are_understood(tmp_path: Path) -> None:
    root = fake_root(
        tmp_path,
        proc__cpuinfo="processor\t: 0\nmodel name\t: Fast CPU\ncpu MHz\t\t: 2596.1\nflags\t\t: fpu hypervisor lm\n",
        proc__meminfo="MemTotal:       16384000 kB\n",
        proc__sys__net__core__rmem_max="212992\n",
        sys__class__dmi__id__sys_vendor="ACME\n",
        sys__class__net__lo__mtu="65536\n",
        sys__fs__cgroup__cpu_max="",
    )
    (root / "sys/fs/cgroup/cpu.max").write_text("150000 100000\n")
    facts = machine.facts(root)
    assert facts["cpu_model"] == "Fast CPU"
    assert facts["cpu_mhz"] == 2596.1
    assert facts["memory_gib"] == 16
    assert facts["rmem_max"] == 212_992
    assert facts["loopback_mtu"] == 65_536
    assert facts["cpu_quota"] == 1.5
    assert facts["virtualisation"] == "virtual machine (ACME)"


def test_a_build_is_versions_profile_and_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    core = SimpleNamespace(VERSION="9.9.9", BUILD_PROFILE="debug")
    monkeypatch.setattr(tftpbench, "_core", core, raising=False)
    build = machine.build()
    assert (build["core"], build["build_profile"]) == ("9.9.9", "debug")
    assert set(build) == {"tftpbench", "core", "build_profile", "git_commit", "git_dirty"}


def test_the_host_key_is_of_lasting_facts_alone() -> None:
    facts = machine.facts()
    key = machine.host_key(facts)
    assert re.fullmatch("[0-9a-f]{16}", key)
    passing = {"hostname": "other", "cpu_mhz": 1.0, "load_1min": 99.0, "kernel": "0.0", "memory_bytes": 1}
    assert machine.host_key({**facts, **passing}) == key
    for name in machine.HOST_KEY_FACTS:
        assert machine.host_key({**facts, name: "other"}) != key


@pytest.mark.parametrize(
    ("server", "generator", "allowed", "expected", "phrase"),
    [
        (1, 1, [0, 1], ((1,), (0,), ()), "on separate cores"),
        (1, 1, [0, 1, 2, 3], ((3,), (0,), (1, 2)), "on separate cores"),
        (2, 1, [4, 5, 6, 9], ((6, 9), (4,), (5,)), "on separate cores"),
        (1, 1, [5], ((5,), (5,), ()), "on one core"),
        (2, 1, [0, 1], ((0, 1), (0, 1), ()), "on the same 2 cores"),
        ("all", "all", [0, 1, 2], ((0, 1, 2), (0, 1, 2), ()), "on the same 3 cores"),
        ("all", 1, [0, 1, 2], ((0, 1, 2), (0,), ()), "on the same 3 cores"),
        (1, "all", [0, 1], ((1,), (0, 1), ()), "on the same 2 cores"),
        ("all", "all", [0], ((0,), (0,), ()), "on one core"),
    ],
)
def test_server_and_generator_get_cores_of_their_own_where_there_are_enough(
    server: object, generator: object, allowed: list[int], expected: tuple[object, ...], phrase: str
) -> None:
    placement = Placement.model_validate({"server_cpus": server, "generator_cpus": generator})
    pinning = pin(placement, allowed)
    assert (pinning.server, pinning.generator, pinning.spare) == expected
    assert pinning.phrase == phrase
    assert pinning.separate is (phrase == "on separate cores")


def test_the_cores_of_this_machine_are_used_unless_told() -> None:
    assert pin(Placement()).server
