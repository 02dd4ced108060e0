"""Builders that tests of several layers share: a scenario, a contender, a run folder, what a command printed."""

import atexit
import json
import shutil
import tarfile
import tempfile
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from tftpbench import cli
from tftpbench.host.presence import Found, Missing
from tftpbench.measure.plan import Contender
from tftpbench.model.keys import stable_key
from tftpbench.model.manifest import Manifest
from tftpbench.model.metrics import INTERVAL_COLUMNS
from tftpbench.model.scenario import Scenario, from_document
from tftpbench.store import RunFolder

Rates = Mapping[str, float]
Cells = list[dict[str, Any]]
ONE: Cells = [{}]
FACTS = {"cpus": 2, "cpu_model": "Imaginary 1", "kernel_release": "6.1"}


def buckets(log: str, kind: str) -> Counter[int]:
    """How many values each bucket holds, as the library itself reads the log."""
    counts: Counter[int] = Counter()
    for line in log.splitlines():
        if line.startswith(f"Tag={kind},"):
            histogram = HdrHistogram.decode(line.rpartition(",")[2])
            for place in np.flatnonzero(np.ctypeslib.as_array(histogram.counts)).tolist():
                value = histogram.get_highest_equivalent_value(histogram.get_value_from_index(place))
                counts[value] += histogram.get_count_at_index(place)
    return counts


def scenario(**changes: object) -> Scenario:
    base: dict[str, object] = {
        "schema": "tftpbench.scenario/1",
        "name": "order",
        "description": "In which order?",
        "servers": ["one", "two", "three"],
        "matrix": {"operation": ["read", "write"], "concurrency": [1, 10, 100], "file_size": 1024},
        "duration": "1s",
        "trials": 4,
    }
    return from_document({**base, **changes}, "test")


def contender(name: str, found: Found | Missing | None = None, **capabilities: object) -> Contender:
    able = {"operations": ["read", "write"], "options": ["blksize"], **capabilities}
    manifest = Manifest.model_validate(
        {
            "schema": "tftpbench.server/1",
            "name": name,
            "homepage": "none",
            "license": "MIT",
            "model": "none",
            "capabilities": able,
            "argv": ["x", "{port}", "{root}"],
            "find": {"program": "x"},
            "get": "somehow",
        }
    )
    return Contender(manifest, None, found or Found("1", "/bin/x"))


def made(
    path: Path,
    rates: Rates,
    cells: Cells = ONE,
    *,
    rounds: int = 8,
    noise: float = 0.01,
    seed: int = 1,
    row: Mapping[str, object] | None = None,
    **manifest: object,
) -> Path:
    """A run folder: each server at its rate in each cell, every trial off by a little."""
    rng = np.random.default_rng(seed)
    scenario = {"name": "made", "duration": "1s", "trials": rounds, "client": {"timeout": "1s"}}
    whole = {
        "schema": "tftpbench.run/1",
        "scenario": scenario,
        "servers": {name: {"version": "1.0"} for name in rates},
        "machine": FACTS,
        "build": {"tftpbench": "0.1.0"},
        "keys": {"method_key": "m", "host_key": "h"},
        **manifest,
    }
    lines: list[str] = []
    for number in range(rounds):
        for cell in cells:
            work = {"operation": "read", "concurrency": 100, "file_size_bytes": 65536, "blksize": 512}
            work |= {"windowsize": 1, **cell}
            for contender, rate in rates.items():
                server, _, variant = contender.partition("@")
                trial = {
                    **work,
                    "trial": len(lines) + 1,
                    "round": number + 1,
                    "cell_key": stable_key(work),
                    "server": server,
                    "variant": variant or None,
                    "verdict": "valid",
                    "data_pps": rate * float(np.exp(rng.normal(0, noise))),
                    "server_cpu_ns_per_block": 1e9 / rate,
                    **(row or {}),
                }
                lines.append(json.dumps(trial))
    path.mkdir()
    (path / "manifest.json").write_text(json.dumps(whole))
    (path / "trials.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.exit_code(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# Runs with plausible figures, no server and no time spent: for tests of the report.
MACHINE = {"cpu_model": "Test CPU", "cpus": 2, "memory_bytes": 2**34, "kernel": "6.1.0", "hostname": "box"}


def asked(servers: list[str], concurrency: object = (10, 1000), **changes: object) -> Scenario:
    matrix = {"operation": "read", "concurrency": list(concurrency), "file_size": "64KiB"}  # type: ignore[call-overload]
    return scenario(servers=servers, **{"matrix": matrix, "trials": 7, "description": "Who is faster?", **changes})


def manifest(question: Scenario, **changes: object) -> dict[str, Any]:
    document = question.document()
    cells = len(question.cells())
    return {
        "scenario": document,
        "seed": 3,
        "trials_planned": cells * question.trials * len(question.servers),
        "servers": {name: {"version": "1.0", "model": "made up", "argv": ["x", "{port}"]} for name in question.servers},
        "skipped": [],
        "placement": {"server_cpus": [1], "generator_cpus": [0], "phrase": "on separate cores"},
        "roots": {"path": "/dev/shm", "file_system": "tmpfs"},
        "argv": ["tftpbench", "run", "order", "--seed", "3"],
        "machine": MACHINE,
        "build": {"tftpbench": "0.1.0", "build_profile": "release"},
        "keys": {"method_key": "0" * 16, "host_key": "1" * 16},
        **changes,
    }


def rows(question: Scenario, rounds: int | None = None) -> list[dict[str, Any]]:
    """Every cell on every server; the second server has half of the first's rate, and so on."""
    rng = np.random.default_rng(1)
    made: list[dict[str, Any]] = []
    for number in range(rounds or question.trials):
        for cell in question.cells():
            for place, server in enumerate(question.servers):
                name, _, variant = server.partition("@")
                made.append(_row(len(made) + 1, number + 1, cell, name, variant or None, 1e5 / (place + 1), rng))
    return made


def _row(
    trial: int, round_: int, cell: Any, server: str, variant: str | None, rate: float, rng: np.random.Generator
) -> dict[str, Any]:
    pps = float(rate * rng.normal(1, 0.02))
    return {
        "trial": trial,
        "order": trial,
        "round": round_,
        "started_at": f"2026-01-02T{trial // 3600:02}:{trial // 60 % 60:02}:{trial % 60:02}.000+00:00",
        "cell_key": cell.key,
        "server": server,
        "variant": variant,
        "operation": cell.operation,
        "concurrency": cell.concurrency,
        "transfers": None,
        "distinct_files": 16,
        "file_size_bytes": cell.file_size_bytes,
        "blksize": cell.blksize,
        "windowsize": cell.windowsize,
        "verify": "full",
        "duration_s": 1.0,
        "started": 500,
        "completed": 498,
        "failed": 0,
        "timed_out": 0,
        "interrupted": 2,
        "retransmissions": 3,
        "duplicates": 0,
        "content_mismatches": 0,
        "unanswered": 0,
        "udp_drops_server": 0,
        "udp_drops_generator": 0,
        "data_pps": pps,
        "goodput_bytes_per_s": pps * 512,
        "block_rtt_ns_p50": 1e9 * cell.concurrency / pps,
        "block_rtt_ns_p99": 3e9 * cell.concurrency / pps,
        "server_cpu_s": 0.9,
        "server_cpu_ns_per_block": 9e8 / pps,
        "server_context_switches": 1000,
        "server_busy_fraction": 0.9,
        "generator_busy_fraction": 0.6,
        "server_threads_max": 1,
        "server_rss_bytes_max": 4_000_000,
        "fairness": float(rng.uniform(1.1, 2)),
        "verdict": "valid",
        "verdict_reason": None,
    }


def store(out: Path, facts: dict[str, Any], trials: list[dict[str, Any]], *, transfers: int = 0) -> Path:
    """A whole run folder; `transfers` of each trial, where there should be any, with their round trips."""
    rng = np.random.default_rng(2)
    with RunFolder.create(out, "made", facts) as folder:
        for row in trials:
            if transfers:
                _write_files(folder, row, transfers, rng)
            folder.append_trial(row)
        return folder.path


def _write_files(folder: RunFolder, row: dict[str, Any], count: int, rng: np.random.Generator) -> None:
    starts = np.sort(rng.integers(0, 10**9, count))
    times = (rng.lognormal(0, 0.5, count) * 5e6).astype(np.int64)
    nothing = np.zeros(count, np.int64)
    files = {
        "intended_start_ns": starts,
        "actual_start_ns": starts,
        "first_response_ns": starts + 1000,
        "end_ns": starts + times,
        "bytes": np.full(count, row["file_size_bytes"]),
        "retransmissions": nothing,
        "outcome": nothing,
        "error_code": nothing - 1,
    }
    intervals = {name: np.full(10, 5) for name in INTERVAL_COLUMNS}
    folder.write_trial_files(
        row["trial"], files, intervals, hlog(block_rtt=[int(each) // 100 + 1 for each in times]), b""
    )


def store_storm(out: Path, question: Scenario, lost: dict[str, int]) -> Path:
    """A run of machines that boot: of each server `lost` gave up at their last step, and the others are up in order."""
    with RunFolder.create(out, "made", manifest(question)) as folder:
        trial = 0
        for number in range(question.trials):
            for cell in question.cells():
                for place, server in enumerate(question.servers):
                    trial += 1
                    gone = lost.get(server, 0)
                    row = _row(trial, number + 1, cell, server, None, 1e5, np.random.default_rng(trial))
                    _write_boots(folder, row, cell, gone, (place + 1) * 4_000_000)
                    folder.append_trial(row)
        return folder.path


def _write_boots(folder: RunFolder, row: dict[str, Any], cell: Any, gone: int, each_ns: int) -> None:
    """Machine k is up after (k + 1) * each_ns."""
    count = cell.machines_asked
    up = (np.arange(count - gone) + 1) * each_ns
    none = np.zeros(count, np.int64)
    ends = np.concatenate([up, np.full(gone, 24 * 10**9)])
    boots = {
        "machine": np.arange(count), "boot": np.full(count, cell.boot), "intended_start_ns": none,
        "actual_start_ns": none + 100_000, "end_ns": ends, "bytes": none + 4096, "requests": none + 16,
        "misses": none + 12, "misses_unanswered": none, "retransmissions": none, "restarts": none,
        "outcome": np.repeat([0, 1], [count - gone, gone]), "reason": np.repeat([0, 2], [count - gone, gone]),
        "failed_step": np.repeat([-1, len(cell.shares[0].steps)], [count - gone, gone]), "error_code": none - 1,
    }  # fmt: skip
    times = {"boot_ns_p50": 50, "boot_ns_p99": 99, "boot_ns_max": 100}
    ranks = {name: max(-(-percent * count // 100), 1) - 1 for name, percent in times.items()}
    row |= {name: int(up[rank]) if rank < len(up) else None for name, rank in ranks.items()}
    row |= {f"{name}_is_never": rank >= len(up) for name, rank in ranks.items()}
    text = f"{gone} machines stopped at {cell.shares[0].steps[-1].name}: no answer"
    row |= cell.point | {
        "machines": count, "booted": count - gone, "boots_failed": gone, "boots_late": 0, "boots_shed": 0,
        "boots_interrupted": 0, "misses_unanswered": 0, "deadline_ns": cell.load.deadline_ns,
        "server_findings": [{"kind": "boots_unanswered", "count": gone, "text": text}] if gone else [],
    }  # fmt: skip
    half = np.arange(20) * count // 20
    intervals = {name: np.full(20, 5) for name in INTERVAL_COLUMNS}
    intervals |= {"duration_ns": np.full(20, 10**8), "in_flight": count - half, "started": np.diff(half, append=count)}
    intervals |= {"shed": np.zeros(20, np.int64)}
    ended_ns = [int(each) for each in up]
    latency = hlog(boot=ended_ns, boot_service=ended_ns)
    transfers = {
        "intended_start_ns": none, "actual_start_ns": none, "first_response_ns": none + 1000, "end_ns": none + 2000,
        "bytes": none, "retransmissions": none, "outcome": none, "error_code": none - 1,
    }  # fmt: skip
    folder.write_trial_files(row["trial"], transfers, intervals, latency, b"", boots)


# Small run folders, to write and to read.
NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def create(out: Path | str, **manifest: object) -> RunFolder:
    return RunFolder.create(out, "smoke", {"seed": 7, **manifest}, now=NOON)


def row(trial: int, **figures: object) -> dict[str, object]:
    return {
        "trial": trial,
        "order": trial,
        "cell_key": "c",
        "server": "epoll",
        "verdict": "valid",
        "concurrency": 3,
        **figures,
    }


def hlog(**kinds: list[int]) -> str:
    lines = ["#[Histogram log format version 1.3]", '"StartTimestamp","Interval_Length","Interval_Max","Interval_..."']
    for kind, values in kinds.items():
        histogram = HdrHistogram(1, 10**10, 3)
        for value in values:
            histogram.record_value(value)
        lines.append(f"Tag={kind},0.000,1.000,{max(values) / 1e6:.3f},{histogram.encode().decode('ascii')}")
    return "\n".join(lines) + "\n"


TRANSFERS = {
    "number": np.array([0, 1]),
    "intended_start_ns": np.array([0, 5]),
    "actual_start_ns": np.array([1, 6]),
    "first_response_ns": np.array([9, -1]),
    "end_ns": np.array([20, 2**60]),
    "bytes": np.array([2**53 + 1, 0]),
    "retransmissions": np.array([0, 5]),
    "outcome": np.array([0, 2]),
    "error_code": np.array([-1, -1]),
}


INTERVALS = {
    "blocks": np.array([4, 5]),
    "bytes": np.array([2048, 2560]),
    "in_flight": np.array([3, 0]),
    "retransmissions": np.array([0, 0]),
    "duration_ns": np.array([10**8, 10**8]),
    "started": np.array([1, 1]),
    "shed": np.array([0, 2]),
}


# The second machine was shed.
BOOTS = {
    "machine": np.array([0, 1]),
    "boot": np.array(["pi4", "uefi-grub"]),
    "intended_start_ns": np.array([0, 5]),
    "actual_start_ns": np.array([1, -1]),
    "end_ns": np.array([2**53 + 1, -1]),
    "bytes": np.array([4096, 0]),
    "requests": np.array([12, 0]),
    "misses": np.array([3, 0]),
    "misses_unanswered": np.array([1, 0]),
    "retransmissions": np.array([2, 0]),
    "restarts": np.array([0, 0]),
    "outcome": np.array([1, 3]),
    "failed_step": np.array([7, -1]),
    "reason": np.array([2, 0]),
    "error_code": np.array([-1, -1]),
}


def save(folder: RunFolder, trial: int, latency: str = "", **figures: object) -> None:
    folder.write_trial_files(trial, TRANSFERS, INTERVALS, latency, b"log\n")
    folder.append_trial(row(trial, **figures))


# Recorded folders of many files, unpacked from the archives that git has of them. They are never renewed.
# RUN: of schema number 1 as tftpbench 0.1.0 wrote it, a folder for each trial; one was marked invalid by hand.
# GATES: the recorded self-test of the gate, results/reference/gate.tar.xz.
_ROOT = Path(__file__).parents[2]
_OUT = Path(tempfile.mkdtemp(prefix="tftpbench-fixtures-"))
atexit.register(shutil.rmtree, _OUT, ignore_errors=True)


def _unpacked(archive: Path) -> Path:
    with tarfile.open(archive) as members:
        members.extractall(_OUT, filter="data")
    return _OUT / archive.name.removesuffix(".tar.xz")


RUN = _unpacked(_ROOT / "tests/fixtures/run-1.tar.xz")
GATES = _unpacked(_ROOT / "results/reference/gate.tar.xz")
