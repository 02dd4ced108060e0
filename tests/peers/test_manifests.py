"""Every bundled manifest against the server that it describes: what it claims is what is seen, no more and no less.

Servers that are not here are skipped; `make peers` fetches most of them.
"""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tftpbench.host.choice import bundled_manifests
from tftpbench.host.generator import LoadConfig, LoadResult, best_sockets, first_difference, run_load, write_contents
from tftpbench.host.presence import Missing, locate
from tftpbench.host.server import ServerProcess
from tftpbench.host.server.readiness import free_port
from tftpbench.model.errors import ServerError
from tftpbench.model.manifest import OPTIONS, Manifest

SIZES = (0, 1, 511, 512, 513, 1024, 65_536, 200_001)
SEED = 5
RRQ, DATA, ACK, ERROR, OACK = 1, 3, 4, 5, 6
# What each option is asked with, and whether an answer grants it (RFC 2348, 2349, 7440; rollover as tftp-hpa has it).
ASKED = {"blksize": "1024", "windowsize": "4", "tsize": "0", "timeout": "2", "rollover": "0"}
READ_SIZE = 5_000


@pytest.fixture(scope="module", params=sorted(bundled_manifests()))
def manifest(request: pytest.FixtureRequest) -> Manifest:
    """Each manifest whose server is on this machine."""
    chosen = bundled_manifests()[request.param]
    found = locate(chosen)
    if isinstance(found, Missing):
        pytest.skip(f"{chosen.name}: {found.reason}; get it: {found.get}")
    return chosen


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder as a trial has it: readable by whoever the server becomes."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o055)
    folder = tmp_path / "root"
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def server(manifest: Manifest, root: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    for file, size in enumerate(SIZES):
        write_contents(root / f"f-{file}", SEED, file, size)
    (root / "asked").write_bytes(bytes(READ_SIZE))
    with ServerProcess(manifest, root=root, log=tmp_path / "log", concurrency=50) as started:
        yield started


def load(server: ServerProcess, operation: str, **changes: object) -> LoadResult:
    """One transfer after another: some servers can do only so many at once, and that is not asked here."""
    values: dict[str, object] = {
        "host": server.host, "port": server.port, "operation": operation, "name": "f-{n}", "concurrency": 1,
        "transfers": 1, "seed": SEED, "timeout_ns": 1_000_000_000, "retries": 12, "backoff": "constant",
        "sockets": best_sockets(server.host), "busy_poll_us": 0,
    }  # fmt: skip
    return run_load(LoadConfig(**(values | changes)))  # type: ignore[arg-type]  # the native side checks them


def skip_memory(manifest: Manifest) -> None:
    if manifest.store == "memory":
        pytest.skip(f"{manifest.name} keeps its files in memory, and has a test for that")


def is_settled(path: Path, size: int) -> bool:
    """Whether an upload is whole, soon: some servers acknowledge the last block before they have written it."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if first_difference(path, SEED, 0, size) is None:
                return True
    return False


def completed(result: LoadResult) -> bool:
    return result.figures["completed"] == result.figures["started"] and not result.figures["content_mismatches"]


def first_answer(server: ServerProcess, option: str) -> bytes:
    """The first packet that answers such an RRQ. Asked again from a new port, as a client that gave up would: on a busy
    machine tftpy pauses for its 5 s now and then, and may leave a request unanswered."""
    request = struct.pack("!H", RRQ) + b"\0".join([b"asked", b"octet", option.encode(), ASKED[option].encode(), b""])
    for _ in range(8):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client, contextlib.suppress(TimeoutError):
            client.settimeout(6)
            client.sendto(request, (server.host, server.port))
            answer, tid = client.recvfrom(65536)
            client.sendto(struct.pack("!HH", ERROR, 0) + b"enough\0", tid)
            return answer
    pytest.fail(f"{option}: 8 requests, and no answer")


def granted(server: ServerProcess, option: str) -> bool:
    """Whether an RRQ with this option alone is answered by an OACK that grants it."""
    answer = first_answer(server, option)
    opcode, fields = answer[:2], answer[2:].split(b"\0")
    if opcode != struct.pack("!H", OACK):
        return False
    options = dict(zip((name.lower() for name in fields[::2]), fields[1::2], strict=False))
    return is_grant(option, options.get(option.encode(), b"").decode())


def is_grant(option: str, value: str) -> bool:
    if not value.isdecimal():
        return False
    match option:
        case "tsize":
            return int(value) == READ_SIZE
        case "blksize" | "windowsize":
            return 1 < int(value) <= int(ASKED[option])
    return value == ASKED[option]


@pytest.mark.timeout(120)
def test_it_negotiates_the_options_that_its_manifest_names_and_no_others(
    manifest: Manifest, server: ServerProcess
) -> None:
    assert [option for option in OPTIONS if granted(server, option)] == [
        option for option in OPTIONS if option in manifest.capabilities.options
    ]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("blksize", [512, 1468])
def test_what_it_serves_is_equal_to_the_byte(manifest: Manifest, server: ServerProcess, blksize: int) -> None:
    lacking = manifest.cannot("read", blksize)
    if lacking is not None:
        pytest.skip(lacking)
    skip_memory(manifest)
    for file, size in enumerate(SIZES):
        # One file a run: their sizes differ.
        wanted = {"name": f"f-{file}", "file_size_bytes": size, "verify": "full", "blksize": blksize}
        result = load(server, "read", **wanted, verify_against=Path(server._root / f"f-{file}"))
        assert completed(result), f"{size} bytes: {result.figures}, {result.faults}"


@pytest.mark.timeout(120)
def test_it_stores_what_is_written_or_does_not_claim_to(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    skip_memory(manifest)
    root.chmod(0o777)
    can_write = "write" in manifest.capabilities.operations
    with ServerProcess(manifest, root=root, log=tmp_path / "log", write=True, concurrency=50) as server:
        for size in SIZES:
            result = load(server, "write", name=f"w-{size}", file_size_bytes=size, retries=12 if can_write else 0)
            assert (result.figures["completed"] == 1) is can_write, f"{size} bytes: {result.faults}"
            if not can_write:
                return
            assert is_settled(root / f"w-{size}", size), f"{size} bytes"


@pytest.mark.timeout(120)
def test_what_it_keeps_in_memory_comes_back_equal_to_the_byte(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    if manifest.store != "memory":
        pytest.skip(f"{manifest.name} keeps its files in its root")
    with ServerProcess(manifest, root=root, log=tmp_path / "log", write=True, concurrency=50) as server:
        for size in (1, 511, 513, 200_001):
            wanted = {"name": f"w-{size}", "file_size_bytes": size, "verify": "full"}
            assert completed(load(server, "write", **wanted)), f"{size} bytes"
            assert completed(load(server, "read", **wanted)), f"{size} bytes"


@pytest.mark.timeout(120)
def test_it_serves_ipv6_or_does_not_claim_to(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    write_contents(root / "f-0", SEED, 0, 1000)
    process = ServerProcess(manifest, root=root, log=tmp_path / "log", host="::1", ready_timeout_s=5)
    try:
        with process as server:
            works = completed(load(server, "read", file_size_bytes=1000, verify="full"))
    except ServerError:
        works = False
    assert works is manifest.capabilities.ipv6


@pytest.mark.timeout(120)
def test_it_serves_as_each_of_its_variants_too(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    if not manifest.variants:
        pytest.skip(f"{manifest.name} has no limit to lift: it is measured as it ships")
    skip_memory(manifest)
    write_contents(root / "f-0", SEED, 0, 10_000)
    for variant in manifest.variants:
        with ServerProcess(manifest, root=root, log=tmp_path / "log", variant=variant) as server:
            assert completed(load(server, "read", file_size_bytes=10_000, verify="full")), variant


def test_why_it_does_not_start_is_in_the_error(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    """It is asked to listen on an address that this machine has not (RFC 5737)."""
    if not any("{host}" in word for word in manifest.argv):
        pytest.skip(f"{manifest.name} takes no address")
    if "to syslog alone" in manifest.caps.get("logging", ""):
        pytest.skip(f"{manifest.name} says nothing on standard error")
    port = free_port("127.0.0.1")
    with (
        pytest.raises(ServerError, match="; its last log line: "),
        ServerProcess(manifest, root=root, log=tmp_path / "log", host="192.0.2.1", port=port, ready_timeout_s=5),
    ):
        pass


@pytest.mark.timeout(120)
def test_it_is_gone_when_it_was_stopped(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    with ServerProcess(manifest, root=root, log=tmp_path / "log") as server:
        port = server.port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", port))


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
