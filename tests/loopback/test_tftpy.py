"""tftpy, somebody else's client and server, against our servers and our generator: both directions, both blksizes."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import pytest

import tftpbench
from tftpbench import loadgen
from tftpbench.loadgen import LoadConfig

if importlib.util.find_spec("tftpy") is None:
    pytest.skip("tftpy is not installed: pip install tftpy", allow_module_level=True)

import tftpy

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # its client leaves its socket to the collector

SIZES = [0, 1, 511, 512, 513, 1427, 1428, 1429, 100_000]
BLKSIZES = [512, 1428]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("tftpy").setLevel(logging.CRITICAL)


def client(server: tftpbench.Server, blksize: int) -> tftpy.TftpClient:
    return tftpy.TftpClient(server.host, server.port, options={} if blksize == 512 else {"blksize": blksize})


@pytest.mark.parametrize("blksize", BLKSIZES)
@pytest.mark.parametrize("name", ["epoll", "threads"])
def test_its_client_reads_and_writes_our_servers(name: str, blksize: int, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with tftpbench.Server(name, root, write=True) as server:
        for size in SIZES:
            given = tmp_path / "given"
            loadgen.write_contents(given, 1, size, size)
            client(server, blksize).upload(f"up-{size}", str(given))
            assert (root / f"up-{size}").read_bytes() == given.read_bytes()
            client(server, blksize).download(f"up-{size}", str(tmp_path / "got"))
            assert (tmp_path / "got").read_bytes() == given.read_bytes()


@pytest.mark.parametrize("blksize", BLKSIZES)
@pytest.mark.parametrize("operation", ["read", "write"])
def test_our_generator_reads_and_writes_its_server(operation: str, blksize: int, tmp_path: Path) -> None:
    for number in range(4):
        loadgen.write_contents(tmp_path / f"f-{number}", 1, number, 20_000)
    with tftpbench.Server("tftpy", tmp_path, write=True) as server:
        config = LoadConfig(
            host=server.host,
            port=server.port,
            operation="read" if operation == "read" else "write",
            name="f-{n}" if operation == "read" else "up-{n}",
            distinct_files=4 if operation == "read" else 0,
            file_size_bytes=20_000,
            blksize=blksize,
            concurrency=5,
            transfers=20,
            sockets="shared",
        )
        result = loadgen.run_load(config)
    assert (result.figures["completed"], result.figures["content_mismatches"]) == (20, 0), result.faults
    if operation == "read":
        assert result.figures["bytes_verified"] == 20 * 20_000
    else:
        assert all(loadgen.first_difference(tmp_path / f"up-{n}", 1, n, 20_000) is None for n in range(20))
