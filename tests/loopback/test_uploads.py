"""Uploads that a program takes from a server of its own, in memory that both map."""

import array
import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.loopback.machine import runs, tiny_manifest, until
from tftpbench import Server, Upload, _core
from tftpbench.host.generator import LoadConfig, run_load
from tftpbench.host.server.uploads import Handover
from tftpbench.model.errors import ServerError, UsageError

PATIENCE_S = 10.0


@pytest.fixture(params=["epoll", "threads"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param, store="memory") as running:
        yield running


def upload(server: Server, name: str | bytes, contents: bytes, blksize: int = 1428) -> None:
    """In lock-step; returns when the last block is acknowledged."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE_S)
        client.sendto(b"\0\2%b\0octet\0blksize\0%d\0" % (os.fsencode(name), blksize), (server.host, server.port))
        answer, peer = client.recvfrom(600)
        assert answer[:2] == b"\0\6", answer
        for block in range(len(contents) // blksize + 1):
            number = struct.pack("!H", (block + 1) & 0xFFFF)
            client.sendto(b"\0\3" + number + contents[block * blksize : (block + 1) * blksize], peer)
            assert client.recv(600) == b"\0\4" + number


def download(server: Server, name: str) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE_S)
        client.sendto(b"\0\1%b\0octet\0" % name.encode(), (server.host, server.port))
        contents = b""
        while True:
            block, peer = client.recvfrom(600)
            assert block[:2] == b"\0\3", block
            contents += block[4:]
            client.sendto(b"\0\4" + block[2:4], peer)
            if len(block) < 516:
                return contents


def load(server: Server, transfers: int, size: int) -> None:
    result = run_load(
        LoadConfig(
            host=server.host,
            port=server.port,
            operation="write",
            name="f-{n}",
            file_size_bytes=size,
            concurrency=20,
            transfers=transfers,
            distinct_files=0,
            blksize=1428,
        )
    )
    assert result.figures["completed"] == transfers


def pattern(size: int) -> bytes:
    return bytes(range(256)) * (size // 256) + bytes(range(size % 256))


def pid_of(server: Server) -> int:
    link = server._process._supervisor
    assert link is not None
    assert link.pid is not None
    return link.pid


def descriptors(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def shared_inodes(pid: int | str = "self") -> set[str]:
    """What a process has mapped of uploads, proc_pid_maps(5)."""
    lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    return {line.split()[4] for line in lines if "/memfd:tftpbench-upload" in line}


def test_uploads_of_any_size_come_whole_read_only_and_in_order(server: Server) -> None:
    sizes = [0, 1, 1428, 65_536, 65_537, 1_000_000]
    taken = []
    uploads = server.uploads(PATIENCE_S)
    for size in sizes:
        upload(server, f"f-{size}", pattern(size))
        taken.append(next(uploads))
    server.stop()
    assert [each.name for each in taken] == [f"f-{size}" for size in sizes]
    for each, size in zip(taken, sizes, strict=True):
        assert each.data.readonly
        assert each.data == pattern(size)


def test_both_processes_map_the_same_memory(server: Server) -> None:
    upload(server, "f", pattern(300_000))
    taken = next(server.uploads(PATIENCE_S))
    assert taken.data[-1] == pattern(300_000)[-1]
    assert len(shared_inodes()) == 1
    assert shared_inodes() == shared_inodes(pid_of(server))


def test_a_name_of_odd_bytes_is_kept(server: Server) -> None:
    upload(server, b"/caf\xe9 \xff", b"x")
    assert os.fsencode(next(server.uploads(PATIENCE_S)).name) == b"caf\xe9 \xff"


def test_a_program_that_is_late_gets_every_upload_and_nobody_keeps_a_descriptor(server: Server, tmp_path: Path) -> None:
    pid = pid_of(server)
    upload(server, "first", b"")
    assert next(server.uploads(PATIENCE_S)).name == "first"
    before, theirs_before = descriptors(), 0
    for _ in range(4):
        load(server, 600, 20_000)  # some 40 fit into the socket
        names = set()
        for _, each in zip(range(600), server.uploads(PATIENCE_S), strict=False):
            number = int(each.name.removeprefix("f-"))
            if number % 100 == 0:
                _core.write_contents(tmp_path / "expected", 1, number, 20_000)
                assert each.data == (tmp_path / "expected").read_bytes()
            names.add(number)
        assert names == set(range(600))
        del each
        # The server opens further sockets for replies as it needs them: those of the first load are no leak.
        theirs_before = theirs_before or descriptors(pid)
    assert descriptors() == before
    until(lambda: descriptors(pid) <= theirs_before, "the server keeps descriptors")


def test_a_program_that_keeps_up_takes_uploads_while_others_are_in_flight(server: Server) -> None:
    loader = threading.Thread(target=load, args=(server, 200, 100_000))
    loader.start()
    taken = [each for _, each in zip(range(200), server.uploads(PATIENCE_S), strict=False)]
    loader.join(PATIENCE_S)
    assert {each.name for each in taken} == {f"f-{number}" for number in range(200)}
    assert {len(each.data) for each in taken} == {100_000}


def test_an_upload_can_be_read_and_replaced_and_what_was_taken_stays(server: Server) -> None:
    upload(server, "f", b"old" * 50_000)
    upload(server, "f", b"new")
    assert download(server, "f") == b"new"
    first, second = server.uploads(0.2)
    assert first.data == b"old" * 50_000
    assert bytes(second.data) == b"new"


def test_there_is_nothing_to_take_before_something_is_whole(server: Server) -> None:
    assert list(server.uploads(timeout_s=0)) == []


def test_the_iteration_ends_with_the_server(server: Server) -> None:
    upload(server, "f", pattern(100_000))
    taken: list[Upload] = []
    reader = threading.Thread(target=lambda: taken.extend(server))
    reader.start()
    until(lambda: taken, "nothing was taken")
    server.stop()
    reader.join(PATIENCE_S)
    assert not reader.is_alive()
    assert taken[0].data == pattern(100_000)
    assert list(server) == []


def test_a_server_that_is_killed_ends_the_iteration_after_what_was_handed_over(server: Server) -> None:
    upload(server, "f", pattern(100_000))
    upload(server, "g", b"g")
    os.kill(pid_of(server), signal.SIGKILL)
    assert [(each.name, bytes(each.data)) for each in server] == [("f", pattern(100_000)), ("g", b"g")]


def test_ctrl_c_while_waiting_leaves_nothing_behind() -> None:
    code = (
        "import tftpbench\n"
        "with tftpbench.Server('epoll', store='memory') as server:\n"
        "    print(server._process._supervisor.pid, server._folder.path, flush=True)\n"
        "    for upload in server: pass\n"
    )
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with program:
        assert program.stdout is not None
        pid, folder = program.stdout.readline().split()
        until(lambda: _sleeps_in_poll(program.pid), "it does not wait")
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=PATIENCE_S)
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert not runs(int(pid))
    assert not Path(folder).exists()


def _sleeps_in_poll(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_a_server_that_cannot_is_one_clear_line(tmp_path: Path) -> None:
    manifest = tiny_manifest(tmp_path, "ok", "line")
    with pytest.raises(UsageError, match=r"^ok: can't hand its uploads to a program: .* has no argv_handover$"):
        Server(str(manifest.source), store="memory")
    with pytest.raises(UsageError, match=r"^store: 'ram' is not one of disk, memory$"):
        Server("epoll", store="ram")  # type: ignore[arg-type]
    with (
        Server("epoll", tmp_path) as server,
        pytest.raises(UsageError, match=r"^epoll: gives no uploads: start it, with store='memory'$"),
    ):
        server.uploads()


SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def memory(contents: bytes, seals: int = SEALS) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, contents)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


HEAD = struct.pack("<Q", 3)


@pytest.mark.parametrize(
    ("message", "make", "why"),
    [
        (HEAD + b"f", list, "no upload: 9 bytes, 0 descriptors"),
        (HEAD, lambda: [memory(b"abc")], "no upload: 8 bytes, 1 descriptors"),
        (b"x", lambda: [memory(b"abc")], "no upload: 1 bytes, 1 descriptors"),
        (HEAD + b"f" * 5000, lambda: [memory(b"abc")], "no upload: 4104 bytes"),
        (HEAD + b"f", lambda: [memory(b"abc"), memory(b"abc")], "no upload: 9 bytes, 1 descriptors"),
        (HEAD + b"f", lambda: [memory(b"abc", 0)], "'f' in something other than sealed memory"),
        (HEAD + b"f", lambda: [memory(b"abc", fcntl.F_SEAL_SHRINK)], "'f' in something other than sealed memory"),
        (HEAD + b"f", lambda: [memory(b"abc", fcntl.F_SEAL_WRITE)], "'f' in something other than sealed memory"),
        (HEAD + b"f", lambda: [os.open("/dev/null", os.O_RDONLY)], "'f' in something other than sealed memory"),
        (HEAD + b"f", lambda: [os.open(__file__, os.O_RDONLY)], "'f' in something other than sealed memory"),
        (HEAD + b"f", lambda: [memory(b"abcd")], "'f' with 3 bytes, but its memory has 4"),
        (b"\xff" * 8 + b"f", lambda: [memory(b"abc")], "'f' with 18446744073709551615 bytes, but its memory has 3"),
    ],
)
def test_what_is_no_upload_is_one_clear_error_and_the_next_one_comes(
    message: bytes, make: Callable[[], list[int]], why: str
) -> None:
    handover, before = Handover(), descriptors()
    _send(handover, message, make())
    with pytest.raises(ServerError, match=why):
        handover.receive(PATIENCE_S)
    assert descriptors() == before
    _send(handover, HEAD + b"g", [memory(b"abc")])
    taken = handover.receive(PATIENCE_S)
    assert taken is not None
    assert (taken.name, bytes(taken.data)) == ("g", b"abc")
    handover.close()
    assert handover.receive(PATIENCE_S) is None


def test_an_upload_for_which_no_descriptor_is_left_can_be_taken_later() -> None:
    handover = Handover()
    _send(handover, HEAD + b"f", [memory(b"abc")])
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, limits[1]))
    try:
        with pytest.raises(ServerError, match="no descriptor is left"):
            handover.receive(PATIENCE_S)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    taken = handover.receive(PATIENCE_S)
    assert taken is not None
    assert bytes(taken.data) == b"abc"
    handover.close()


def _send(handover: Handover, message: bytes, fds: list[int]) -> None:
    """As a server would; the descriptors are closed."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    handover._theirs.sendmsg([message], rights)
    for fd in fds:
        os.close(fd)
