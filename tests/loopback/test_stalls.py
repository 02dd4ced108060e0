"""The bare exchange for real; and a generator, runner or exchange that stood still is reported, its figure not used."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import tftpbench
from benches.stalls import Command, Stall, has_load_threads, measured
from tests.loopback.manifests import bundled
from tests.loopback.peer import contents, peer, serve_bytes
from tftpbench import cli
from tftpbench.gate import pair
from tftpbench.gate.pair import Work
from tftpbench.host import generator
from tftpbench.host.ceiling import QUICK, CeilingCell, calibrate, measure
from tftpbench.host.generator import LoadConfig, LoadResult, LocalGenerator, Progress, Stop
from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.host.presence import locate
from tftpbench.host.roots import Roots, roots
from tftpbench.host.server import RunningServer, Usage
from tftpbench.host.target import Target
from tftpbench.measure import Contender, Pinning, Tools, pin
from tftpbench.measure.files import TargetFiles, target_files
from tftpbench.measure.session import Bench, run_watched
from tftpbench.model.manifest import load_manifest
from tftpbench.model.scenario import from_document
from tftpbench.model.workload import Cell

WINDOW_S = 1.0
MS = 1_000_000


@pytest.mark.parametrize(
    ("command", "server", "stall"),
    [
        ("load", "epoll", Stall(0.4, 0.1)),
        ("load", "threads", Stall(0.95, 0.4)),  # beyond the end of the window
        ("run", "threads", Stall(0.6, 0.1)),
        ("run", "epoll", Stall(0.1, 0.4)),  # from the warm-up into the window
    ],
)
def test_a_stall_makes_the_trial_invalid_and_is_told_whole(command: Command, server: str, stall: Stall) -> None:
    trial = measured(command, server, WINDOW_S, stall)
    assert trial.has_found(stall), trial


def test_load_says_so_to_people_too(tmp_path: Path) -> None:
    with peer(serve_bytes(contents())) as server:
        words = ["load", f"127.0.0.1:{server.port}", "--read", "f", "--duration", "500ms"]
        process = subprocess.Popen(
            [sys.executable, "-m", "tftpbench", *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        until(lambda: server.received, "the load never began")
        process.send_signal(signal.SIGSTOP)
        threading.Event().wait(0.3)
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=20)
    [line] = [line for line in out.splitlines() if "the generator stood still for" in line]
    assert line.startswith("Warning: ")
    assert "ms at once: do not suspend tftpbench while it measures" in line


def until(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.002)


def test_a_runner_that_is_late_at_the_windows_edge_is_known() -> None:
    """The load goes on, but what is read of the server is read too late."""

    class Late(RunningServer):
        def usage(self) -> Usage:
            threading.Event().wait(0.2)
            return super().usage()

    with peer(serve_bytes(contents())) as server:
        config = LoadConfig(
            host="127.0.0.1", port=server.port, operation="read", name="f", file_size_bytes=2_000, concurrency=2,
            duration_ns=300 * MS,
        )  # fmt: skip
        bench = Bench(Roots(Path(), 1, generator.write_contents), TargetFiles(Path()), Pinning((), (), ()), 1, Tools())
        late, edges = run_watched(config, Stop(), bench, Late(Target("127.0.0.1", server.port, "f")))
    assert 200 * MS <= (late.figures["runner_gap_ns_max"] or 0) < 60_000 * MS
    assert edges.late_ns(late.window_ns) == late.figures["runner_gap_ns_max"]


CEILING = """
import json
from tftpbench import _core
from tftpbench.host.ceiling import QUICK, CeilingCell, calibrate
cell = CeilingCell(operation="read", flows=3)
chosen = calibrate(cell, effort=QUICK)
print(flush=True)
print(json.dumps(_core.measure_ceiling(cell, chosen, 0, 1_000_000_000, _core.Stop())))
"""


def test_a_stall_is_no_part_of_a_ceiling() -> None:
    process = subprocess.Popen([sys.executable, "-c", CEILING], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "\n"
    began = time.monotonic()
    threading.Event().wait(0.3)
    process.send_signal(signal.SIGSTOP)
    threading.Event().wait(0.5)
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate(timeout=20)
    took_ns = (time.monotonic() - began) * 1e9
    figures = json.loads(out)
    assert figures["gap_ns"] >= 495 * MS
    assert 1_000 * MS <= figures["window_ns"] <= took_ns - 495 * MS, "it is made up for"
    assert figures["data_pps"] == pytest.approx(figures["datagrams"] / figures["window_ns"] * 1e9)


def test_a_slice_of_a_gate_in_which_we_stood_still_counts_for_no_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second slice of one arm is spoilt: no arm's figures hold it."""
    monkeypatch.setattr("tftpbench.measure.validity.GAP_NS_MAX", 50 * MS)  # tests of this folder go without
    cell, contender = _cell(tmp_path)
    work = Work(transfers=10, slices=8, slice_ns=1_000 * MS, slow_factor=10.0)
    ports: list[int] = []
    spoilt: list[int] = []

    class Stalling(LocalGenerator):
        def run(
            self,
            config: LoadConfig,
            stop: Stop,
            window: MeasuredWindow | None = None,
            on_progress: Callable[[Progress], object] | None = None,
        ) -> LoadResult:
            result = super().run(config, stop, window, on_progress)
            figures = {**result.figures, "generator_gap_ns_max": 0, "runner_gap_ns_max": 0}
            ports.append(config.port)
            if ports.count(config.port) == 3 and not spoilt:
                spoilt.append(config.port)
                figures |= {"generator_gap_ns_max": 400 * MS, "duration_s": 1e6}
            return replace(result, figures=figures, window_ns=(time.monotonic_ns(), time.monotonic_ns()))

    with target_files([contender], allow_remote=False) as files, roots([cell], 1, generator.write_contents) as base:
        bench = Bench(base, files, pin(cell.placement), 1, Tools(Stalling()))
        made = pair.measure(1, cell, work, {"base": contender, "head": contender}, random.Random(1), bench)
    assert spoilt
    assert made.invalid is None
    assert {arm.figures["started"] for arm in made.arms.values()} == {(work.slices - 1) * work.transfers}
    assert all((arm.figures["duration_s"] or 0) < 1e5 for arm in made.arms.values())


def _cell(folder: Path) -> tuple[Cell, Contender]:
    document = {
        "schema": "tftpbench.scenario/1",
        "name": "stalls",
        "description": "Is a stall seen?",
        "servers": ["epoll"],
        "matrix": {"operation": "read", "concurrency": 3, "file_size": "4KiB"},
        "transfers": 10,
    }
    manifest = load_manifest(bundled(folder, "epoll"))
    [cell] = from_document(document, "stalls").cells()
    return cell, Contender(manifest, None, locate(manifest))


# What was kept of each second and worker when this grew: 26,624 counts of 8 bytes.
SECONDS, WORKERS, HISTOGRAM_BYTES = 5, 8, 26_624 * 8


def test_the_generators_memory_does_not_grow_with_time(tmp_path: Path) -> None:
    """Few, long transfers, so that what is kept of transfers does not hide what is kept of seconds."""
    with (tmp_path / "file").open("wb") as file:
        file.truncate(1 << 30)
    with tftpbench.Server(str(bundled(tmp_path, "epoll")), tmp_path) as server:
        words = ["load", f"127.0.0.1:{server.port}", "--read", "file", "--duration", "60s", "--busy-poll", "0s",
                 "-c", str(WORKERS), "--workers", str(WORKERS)]  # fmt: skip
        process = subprocess.Popen([sys.executable, "-m", "tftpbench", *words], stdout=subprocess.PIPE)
        try:
            until(lambda: has_load_threads(process.pid), "the load never began")
            threading.Event().wait(2)  # by then each worker has what it always has
            before = data_bytes(process.pid)
            threading.Event().wait(SECONDS)
            grown = data_bytes(process.pid) - before
        finally:
            process.terminate()
            process.communicate(timeout=20)
    assert grown < SECONDS * WORKERS * HISTOGRAM_BYTES / 2, f"{grown / 1e6:.1f} MB in {SECONDS} s"


def data_bytes(pid: int) -> int:
    """Size of the data segments, touched or not (proc_pid_status(5), VmData)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))


@pytest.mark.parametrize("operation", ["read", "write"])
def test_the_chosen_arrangement_moves_datagrams_in_fresh_runs(operation: str) -> None:
    cell = CeilingCell(operation=operation, flows=5, windowsize=4)  # type: ignore[arg-type]
    chosen = calibrate(cell, effort=QUICK)
    found = measure(cell, chosen, warm_up_ns=10 * MS, window_ns=30 * MS)
    assert found.arrangement == chosen
    assert found.data_pps > 0


@pytest.fixture
def two_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [CeilingCell(operation="read", flows=3), CeilingCell(operation="write", flows=3, windowsize=64)]
    monkeypatch.setattr("tftpbench.host.ceiling.usual_cells", lambda *_, **__: tuple(cells))


@pytest.mark.usefixtures("two_cells")
def test_the_survey_prints_a_line_per_cell_and_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.exit_code(["ceiling", "--quick", "--seed", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Raw loopback UDP throughput, without TFTP and files, on ")
    assert "read, 3 at once" in out
    assert "write, 3 at once, windowsize 64" in out
    assert "answering socket" in out
    assert "lowest to highest" not in out, "of one trial"


@pytest.mark.usefixtures("two_cells")
def test_a_cell_that_stood_still_is_marked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tftpbench.cli.ceiling.STALLED_PPS", 10**9)
    assert cli.exit_code(["ceiling", "--quick", "--trials", "2"]) == 0
    out = capsys.readouterr().out
    assert "lowest to highest" in out
    assert re.search(r"^ *read, 3 at once +[0-9.]+( k| M)?\* ", out, re.MULTILINE)
    assert "* stalled, and no ceiling: " in out


@pytest.mark.usefixtures("two_cells")
def test_the_survey_for_programs_names_its_columns_as_a_run_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.exit_code(["ceiling", "--quick", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "tftpbench.ceiling/1"
    assert [each["windowsize"] for each in document["ceilings"]] == [1, 64]
    for each in document["ceilings"]:
        assert {"operation", "concurrency", "blksize", "windowsize", "busy_poll_us", "arrangement"} <= set(each)
        assert each["lowest"] <= each["ceiling_data_pps"] <= each["highest"]
        assert len(each["trials"]) == 1


def test_ctrl_c_ends_the_survey_with_one_line() -> None:
    # A shell lets its background jobs ignore Ctrl-C; what is started here must obey it.
    obeys = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{obeys}; from tftpbench.cli import main; main(['ceiling'])"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        # It holds sockets as soon as it measures, and is then past its imports.
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not _has_sockets(process.pid):
            assert process.poll() is None
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err == "tftpbench: error: interrupted\n"


def _has_sockets(pid: int) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        return any(os.readlink(f"{folder}/{name}").startswith("socket:") for name in os.listdir(folder))
    except OSError:
        return False
