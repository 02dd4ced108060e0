"""Faults of a known size: how large they are made, and what has none."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tftpbench.gate.selftest import faults
from tftpbench.gate.selftest.faults import METRIC_OF, FaultsUnavailable, calibrated, compile_shim, with_fault
from tftpbench.host.choice import choose_manifest
from tftpbench.host.presence import locate
from tftpbench.measure import Contender
from tftpbench.model.errors import UsageError
from tftpbench.model.scenario_files import load_scenario
from tftpbench.model.workload import Cell

BUDGETS = {"server_cpu_s_per_mib": 0.05, "syscalls_per_block": 0.02, "data_pps": 0.05, "server_rss_bytes_max": 0.10}
BASE: dict[str, float | None] = {
    "server_cpu_s_per_mib": 0.008192, "syscalls_per_block": 2.0, "data_pps": 200_000.0,
    "server_rss_bytes_max": 50 * 1024 * 1024,
}  # fmt: skip
KIB = 1024


def cell(**changes: object) -> Cell:
    [found] = load_scenario("gate").cells()
    return replace(found, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "variable", "size"),
    [
        ("cpu", "TFTPBENCH_FAULT_SPIN_NS", 400),  # a tenth of the 4000 ns that 512 bytes cost
        ("syscalls", "TFTPBENCH_FAULT_SYSCALLS_PER_1000", 80),  # 4 % of two calls a block
        ("pause", "TFTPBENCH_FAULT_PAUSE_NS", 556),  # the 5000 ns of a block take a ninth longer
        ("drops", "TFTPBENCH_FAULT_DROP_PER_MILLION", 1),  # each costs a second, and 2 s are 400,000 blocks
        ("memory", "TFTPBENCH_FAULT_MEMORY_BYTES", 10 * KIB * KIB),
    ],
)
def test_a_fault_is_twice_the_budget_of_its_metric(name: str, variable: str, size: int) -> None:
    fault = calibrated(name, BUDGETS, BASE, cell())
    assert fault.environment == {variable: str(size)}
    assert fault.metric == METRIC_OF[name]


def test_a_fault_is_twice_the_floor_where_that_is_more() -> None:
    few = {**BASE, "syscalls_per_block": 0.1, "server_rss_bytes_max": 2 * KIB * KIB}
    assert calibrated("syscalls", BUDGETS, few, cell()).environment == {"TFTPBENCH_FAULT_SYSCALLS_PER_1000": "20"}
    memory = calibrated("memory", BUDGETS, few, cell()).environment["TFTPBENCH_FAULT_MEMORY_BYTES"]
    assert int(memory) == 2 * KIB * KIB


def test_a_floor_that_is_less_than_the_budget_changes_nothing() -> None:
    some = {**BASE, "syscalls_per_block": 0.6}  # 2 % of it are 0.012 calls, and the floor is 0.01
    assert calibrated("syscalls", BUDGETS, some, cell()).environment == {"TFTPBENCH_FAULT_SYSCALLS_PER_1000": "24"}


def test_a_rate_can_lose_nine_tenths_at_most_and_a_cost_can_more_than_double() -> None:
    wide = dict.fromkeys(BUDGETS, 0.8)
    assert calibrated("pause", wide, BASE, cell()).environment == {"TFTPBENCH_FAULT_PAUSE_NS": "45000"}
    assert calibrated("cpu", wide, BASE, cell()).environment == {"TFTPBENCH_FAULT_SPIN_NS": "6400"}


def test_a_server_that_receives_sends_an_ack_for_a_window() -> None:
    written = calibrated("cpu", BUDGETS, BASE, cell(operation="write", windowsize=4))
    assert written.environment == {"TFTPBENCH_FAULT_SPIN_NS": "1600"}


def test_a_fault_can_be_made_larger_and_never_nothing() -> None:
    fault = calibrated("cpu", BUDGETS, BASE, cell())
    assert fault.scaled(1.5).environment == {"TFTPBENCH_FAULT_SPIN_NS": "600"}
    assert fault.scaled(0).environment == {"TFTPBENCH_FAULT_SPIN_NS": "1"}
    assert "400 ns" in fault.words


@pytest.mark.parametrize(
    ("name", "budgets", "base", "kind", "said"),
    [
        ("magic", BUDGETS, BASE, UsageError, "is no fault; allowed: cpu"),
        ("memory", {"data_pps": 0.05}, BASE, FaultsUnavailable, "server_rss_bytes_max has no budget"),
        ("cpu", BUDGETS, {}, FaultsUnavailable, "the base has no server_cpu_s_per_mib"),
        ("cpu", BUDGETS, {"server_cpu_s_per_mib": float("nan")}, FaultsUnavailable, "can.t be sized"),
    ],
)
def test_what_has_no_size_is_refused(
    name: str, budgets: dict[str, float], base: dict[str, float | None], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as error:
        calibrated(name, budgets, base, cell())
    assert "\n" not in str(error.value)


def test_without_a_compiler_there_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FaultsUnavailable, match=r"no C compiler in PATH.*apt install gcc") as error:
        compile_shim(tmp_path)
    assert "\n" not in str(error.value)


def test_a_source_that_does_not_compile_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not any(shutil.which(name) for name in faults.COMPILERS):
        pytest.skip("no C compiler here")
    broken = tmp_path / "broken.c"
    broken.write_text("int main(void) { return nothing; }\n")
    monkeypatch.setattr(faults, "SOURCE", broken)
    with pytest.raises(FaultsUnavailable, match=r"can't compile broken\.c") as error:
        compile_shim(tmp_path)
    assert "\n" not in str(error.value)


def test_a_fault_is_added_to_what_the_server_s_environment_has(tmp_path: Path) -> None:
    manifest, variant = choose_manifest("epoll")
    preloaded = manifest.with_env({"LD_PRELOAD": "/other.so", "KEPT": "1"})
    side = Contender(preloaded, variant, locate(preloaded))
    worse = with_fault(side, tmp_path / "fault.so", calibrated("cpu", BUDGETS, BASE, cell()))
    env = worse.server.environment("127.0.0.1", 1, tmp_path, 1)  # type: ignore[union-attr]
    assert env == {"LD_PRELOAD": f"{tmp_path}/fault.so:/other.so", "KEPT": "1", "TFTPBENCH_FAULT_SPIN_NS": "400"}
    assert "TFTPBENCH_FAULT_SPIN_NS" not in preloaded.env
