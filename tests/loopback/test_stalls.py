"""The bare exchange for real; and a generator, runner or exchange that stood still is reported, its figure not used.

And the bundled servers as processes: what one silent client may cost the others, on a system that allows little.
"""

import contextlib
import json
import os
import random
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

import tftpbench
from benches.stalls import Command, Stall, has_load_threads, measured
from tests.loopback.machine import bundled
from tests.loopback.peer import contents, peer, serve_bytes
from tftpbench import cli
from tftpbench.gate import pair
from tftpbench.gate.pair import Work
from tftpbench.host import generator
from tftpbench.host.ceiling import QUICK, CeilingCell, calibrate, measure
from tftpbench.host.generator import LoadConfig, LoadResult, LocalGenerator, Progress, Stop, run_load
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


NAMES = ["epoll", "threads"]
PATIENCE_S = 20.0
AGAIN_S = 1.0
IP_PKTINFO = 8  # linux/in.h; Python 3.14 is the first to name it
WINDOW = b"blksize\x001468\0windowsize\x0065535\0"
LARGE_BYTES = 65_535 * 1468  # a window of 65,535 blocks, if it were granted
BLOCKS_BYTES = 512 * 400 + 1
UNBOUNDED = ["--windowsize-max", "65535", "--window-max", "4294967295"]


class Served:
    """A bundled server in a process of its own."""

    def __init__(self, root: Path, name: str, *options: str) -> None:
        self.log = root.parent / "server.log"
        command = [sys.executable, "-P", "-m", "tftpbench", "serve", name, "--port", "0", "--root", str(root)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        ready = self.process.stdout.readline().split()
        assert ready[:1] == ["READY"], self.log.read_text()
        self.address = (ready[1], int(ready[2]))

    def rss_bytes(self) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) * 1024

    def stop(self) -> dict[str, int]:
        """Its counters; those that are 0 are left out."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0, self.log.read_text()
        words = [word.split() for word in self.log.read_text().strip().splitlines()[-1].split(", ")]
        return {name: int(value) for name, value in words}


@contextlib.contextmanager
def served(root: Path, name: str, *options: str) -> Iterator[Served]:
    server = Served(root, name, *options)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        assert server.process.stdout is not None
        server.process.stdout.close()


def client() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(PATIENCE_S)
    return made


def ask(made: socket.socket, datagram: bytes, to: tuple[str, int]) -> tuple[bytes, tuple[str, int]]:
    """The answer and whose it is; sent again each second, as clients do, since a full receive buffer drops it."""
    patient_until = time.monotonic() + PATIENCE_S
    made.settimeout(AGAIN_S)
    try:
        while True:
            made.sendto(datagram, to)
            with contextlib.suppress(TimeoutError):
                return made.recvfrom(2048)
            assert time.monotonic() < patient_until, f"no answer to {datagram[:40]!r} within {PATIENCE_S:.0f} s"
    finally:
        made.settimeout(PATIENCE_S)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "small").write_bytes(b"x" * 700)
    (folder / "blocks").write_bytes(os.urandom(BLOCKS_BYTES))
    sparse(folder / "large", LARGE_BYTES)
    return folder


def sparse(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        file.truncate(size_bytes)


def draw_windows(server: Served, stack: contextlib.ExitStack, clients: int, names: Sequence[bytes] = ()) -> None:
    """Starts reads whose clients acknowledge the OACK, and then nothing any more."""
    opened = []
    for _, name in zip(range(clients), names or [b"large"] * clients, strict=True):
        made = stack.enter_context(client())
        oack, tid = ask(made, b"\0\1" + name + b"\0octet\0" + WINDOW, server.address)
        assert oack[:2] == b"\0\6", oack
        opened.append((made, tid))
    for made, tid in opened:
        made.sendto(b"\0\4\0\0", tid)
    while opened and opened[-1][0].recv(2048)[:2] != b"\0\3":  # the OACK may have come again
        pass


def next_data(made: socket.socket, block: int, tid: tuple[str, int]) -> bytes:
    """The DATA after `block`, which is acknowledged until that comes: copies of older DATA may come before it."""
    acknowledgement = b"\0\4" + struct.pack("!H", block)
    while True:
        data, _ = ask(made, acknowledgement, tid)
        if data[:4] != b"\0\3" + struct.pack("!H", block):
            return data


def read(server: Served, name: str) -> bytes:
    """A whole file, block by block."""
    contents = b""
    with client() as made:
        data, tid = ask(made, b"\0\1" + name.encode() + b"\0octet\0", server.address)
        block = 1
        while True:
            assert data[:4] == b"\0\3" + struct.pack("!H", block), data[:40]
            contents += data[4:]
            if len(data) < 516:
                made.sendto(b"\0\4" + data[2:4], tid)
                return contents
            data, block = next_data(made, block, tid), block + 1


@pytest.mark.parametrize("name", NAMES)
def test_a_silent_reader_costs_a_quarter_of_a_megabyte_at_most(root: Path, name: str) -> None:
    clients = 100
    for index in range(clients):  # each its own: what readers of one file are sent is shared
        sparse(root / f"large-{index}", LARGE_BYTES)
    with served(root, name) as server, contextlib.ExitStack() as stack:
        read(server, "blocks")
        before = server.rss_bytes()
        draw_windows(server, stack, clients, [b"large-%d" % index for index in range(clients)])
        each = (server.rss_bytes() - before) / clients
        assert each <= 256 << 10


@pytest.mark.parametrize("name", NAMES)
def test_a_silent_writer_costs_a_quarter_of_a_megabyte_at_most(root: Path, name: str) -> None:
    clients = 60
    with served(root, name, "--write") as server, contextlib.ExitStack() as stack:
        read(server, "blocks")
        before = server.rss_bytes()
        for index in range(clients):
            made = stack.enter_context(client())
            oack, tid = ask(made, b"\0\2new-%d\0octet\0" % index + WINDOW, server.address)
            assert oack[:2] == b"\0\6", oack
            # Blocks from the future, the longest that there are: none is taken, and each has to be read.
            for _ in range(64):
                made.sendto(b"\0\3\x7f\xff" + bytes(60_000), tid)
            made.sendto(b"\0\3\0\1" + bytes(1468), tid)
        # Behind all that has been read by now.
        read(server, "blocks")
        each = (server.rss_bytes() - before) / clients
        assert each <= 256 << 10


def median_round_trip_ns(server: Served) -> float:
    """Of ten readers, block by block."""
    host, port = server.address
    load = LoadConfig(
        host=host,
        port=port,
        operation="read",
        name="blocks",
        file_size_bytes=BLOCKS_BYTES,
        concurrency=10,
        verify="off",
        duration_ns=300_000_000,
    )
    median = run_load(load).figures["block_rtt_ns_p50"]
    assert median, "no block was acknowledged"
    return median


@pytest.mark.parametrize("name", NAMES)
def test_others_are_answered_as_ever_beside_twenty_silent_windows(root: Path, name: str) -> None:
    ratios = []
    for _ in range(5):  # the machine may have had other work to do in one of the two
        with served(root, name) as server, contextlib.ExitStack() as stack:
            alone = median_round_trip_ns(server)
            draw_windows(server, stack, 20)
            ratios.append(median_round_trip_ns(server) / alone)
        if ratios[-1] <= 2:
            return
    pytest.fail(f"the median round trip is {ratios} times as long")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [[], UNBOUNDED], ids=["as-shipped", "unbounded"])
def test_a_stop_is_obeyed_within_its_grace_beside_silent_windows(root: Path, name: str, options: list[str]) -> None:
    grace_s = 0.5
    with served(root, name, "--grace", str(grace_s), *options) as server, contextlib.ExitStack() as stack:
        draw_windows(server, stack, 300)
        asked = time.monotonic()
        counters = server.stop()
        # Half a second more on a quiet machine.
        assert time.monotonic() - asked < grace_s + 4
        assert counters["transfers_interrupted"] == 300


@pytest.mark.parametrize("name", NAMES)
def test_200_000_requests_with_forged_senders_take_places_and_nothing_else(root: Path, name: str) -> None:
    requests, places = 200_000, 1000
    options = ["--max-transfers", str(places), "--grace", "0"]
    with served(root, name, *options) as server, client() as honest, forger() as forged:
        data, tid = ask(honest, b"\0\1blocks\0octet\0", server.address)
        before, contents, block = server.rss_bytes(), data[4:], 1
        for index in range(requests):
            forge(forged, index, b"\0\1small\0octet\0timeout\x00255\0", server.address)
            if index % 500 == 499:  # its transfer goes on meanwhile, one block at a time
                data, block = next_data(honest, block, tid), block + 1
                assert data[:4] == b"\0\3" + struct.pack("!H", block), data[:40]
                contents += data[4:]
        honest.sendto(b"\0\4" + struct.pack("!H", block), tid)
        assert contents == (root / "blocks").read_bytes()
        # No request is silently ignored: a newcomer gets an ERROR that there is no room.
        with client() as late:
            answer, _ = ask(late, b"\0\1small\0octet\0", server.address)
            assert answer[:2] in (b"\0\5", b"\0\3")
        assert server.rss_bytes() - before <= places * (64 << 10)
        counters = server.stop()
        assert counters["transfers_started"] <= places + 2
        # An OACK each, repeated by a timer, or an ERROR; and at the end an ERROR to each that is left.
        sent = counters["datagrams_out"] - 403 - counters.get("retransmissions", 0) - places
        assert sent <= counters["requests"]
        assert counters["requests"] > requests / 10, "the server was hardly reached"


def forger() -> socket.socket:
    """Sends from any address of 127.0.0.0/8; what is answered to those comes back here, and is dropped."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("0.0.0.0", 0))
    return made


def forge(made: socket.socket, index: int, datagram: bytes, to: tuple[str, int]) -> None:
    source = struct.pack("!I", 0x7F400000 + index)  # 127.64.0.0 and on
    info = struct.pack("@I", 0) + source + bytes(4)  # struct in_pktinfo, ip(7)
    made.sendmsg([datagram], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, to)


RRQ = b"\0\1f\0octet\0"


@contextmanager
def started(name: str, small_root: Path, files: int, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A server that may have so many open files."""
    argv = [sys.executable, "-P", "-m", "tftpbench.serve", name, "--root", str(small_root), *arguments]
    limited = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *argv]
    with subprocess.Popen(limited, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def small_root(tmp_path: Path) -> Path:
    (tmp_path / "f").write_bytes(bytes(1000))
    return tmp_path


def opcode(client: socket.socket, port: int) -> int:
    client.settimeout(PATIENCE_S)
    client.sendto(RRQ, ("127.0.0.1", port))
    return int(struct.unpack("!H", client.recv(2000)[:2])[0])


@pytest.mark.parametrize("name", ["epoll", "threads"])
def test_a_server_with_few_open_files_says_how_many_transfers_fit_and_holds_them(name: str, small_root: Path) -> None:
    # Nothing is given up while the clients wait for one another.
    with started(name, small_root, 256, "--timeout", "60") as process, ExitStack() as clients:
        assert process.stdout is not None
        assert process.stderr is not None
        port = int(process.stdout.readline().split()[2])
        said = process.stderr.readline()
        match = re.search(r"room for (\d+) transfers at once, not \d+: the limit is 256 open files", said)
        assert match, said
        room = int(match[1])
        assert room > 50
        opened = [clients.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(room + 1)]
        assert [opcode(client, port) for client in opened] == [3] * room + [5]


def test_a_client_whose_thread_cannot_be_made_is_told_and_the_server_goes_on(small_root: Path) -> None:
    with started("threads", small_root, 256) as process, ExitStack() as clients:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[2])

        def answer() -> int:
            return opcode(clients.enter_context(socket.socket(type=socket.SOCK_DGRAM)), port)

        assert answer() == 3
        # No room for another stack.
        status = Path(f"/proc/{process.pid}/status").read_text()
        used = re.search(r"VmSize:\s+(\d+) kB", status)
        assert used
        resource.prlimit(process.pid, resource.RLIMIT_AS, (int(used[1]) * 1024, resource.RLIM_INFINITY))
        assert answer() == 5
        resource.prlimit(process.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert answer() == 3


@pytest.mark.parametrize("name", ["epoll", "threads"])
def test_a_server_with_too_few_open_files_does_not_start(name: str, small_root: Path) -> None:
    with started(name, small_root, 80) as process:
        said = process.communicate(timeout=PATIENCE_S)[1]
        assert process.returncode == 2
    assert re.fullmatch(
        rf"tftpbench: error: {name}: the limit of 80 open files leaves room for \d transfers at once, less than 16: "
        r"raise it \(ulimit -Hn \d+\) or ask for so few with --max-transfers \d\n",
        said,
    )
    few = re.findall(r"\d", said)[-1]
    with started(name, small_root, 80, "--max-transfers", few) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("READY ")
