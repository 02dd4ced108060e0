"""Manifests of the small server in tiny_server.py and of our own, written to a folder for a test."""

import sys
from pathlib import Path

from tftpbench.model.manifest import Manifest, load_manifest

TINY = Path(__file__).with_name("tiny_server.py")


def written(folder: Path, name: str, argv: list[str], ready: str, capabilities: str) -> Path:
    """A server.yaml in a folder of its own."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    path = place / "server.yaml"
    path.write_text(
        "\n".join(
            [
                "schema: tftpbench.server/1",
                f"name: {name}",
                "homepage: none",
                "license: MIT",
                "model: for tests",
                f"capabilities: {capabilities}",
                f"argv: {argv}",
                "find: {python_module: sys}",
                f"get: it comes with the tests\nready: {ready}",
            ]
        )
    )
    return path


def tiny(folder: Path, mode: str, ready: str = "line") -> Path:
    """tiny_server.py in one of its modes."""
    argv = [sys.executable, str(TINY), mode, "{host}", "{port}", "{root}"]
    return written(folder, mode, argv, ready, "{operations: [read]}")


def tiny_manifest(folder: Path, mode: str, ready: str = "line") -> Manifest:
    return load_manifest(tiny(folder, mode, ready))


def bundled(folder: Path, name: str) -> Path:
    """One of our servers, writable."""
    argv = [sys.executable, "-m", "tftpbench.serve", name, "--host", "{host}", "--port", "{port}", "--root", "{root}"]
    can = "{operations: [read, write], options: [blksize, windowsize, tsize, timeout], ipv6: true}"
    return written(folder, name, [*argv, "--write", "--max-transfers", "{concurrency}"], "line", can)
