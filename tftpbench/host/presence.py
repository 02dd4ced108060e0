"""Is a server here, and may it run? Programs, Python environments, versions and privileges of this machine.

It looks and asks, and must never start a server nor fetch one.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tftpbench.host.network import may_name_ids
from tftpbench.host.target import Target
from tftpbench.model.manifest import Manifest

# How to get what only root may run, and how the reason ends where there is no program.
AS_ROOT = "run tftpbench as root"
SUBORDINATE = "install newuidmap (apt install uidmap), with a line of this user in /etc/subuid and /etc/subgid"
NOT_FOUND = "was not found"
VERSION_TIMEOUT_S = 10.0
VERSION_LENGTH_MAX = 120
_VERSION_BYTES_MAX = 65536
_CAP_NET_BIND_SERVICE = 10  # capabilities(7)


@dataclass(frozen=True)
class Found:
    """A server that is installed: the first line its version command printed, and what would be run."""

    version: str
    executable: str


@dataclass(frozen=True)
class Missing:
    """A server that can't be run here, why, and how to get it."""

    reason: str
    get: str


def locate(server: Manifest | Target, *, ask: bool = True, in_network: bool = False) -> Found | Missing:
    """Look for the server on this machine, and, with `ask`, ask it its version (at most VERSION_TIMEOUT_S).

    A running server is there or not when it is asked, and its version is not known. `in_network`: it would run in a
    network of its own, where every user may bind every port, and who has other ids may be root.
    """
    if isinstance(server, Target):
        return Found("unknown", "")
    executable = server.executable()
    if executable is None:
        return Missing(f"{server.wanted} {NOT_FOUND}", server.get)
    refused = missing_privilege(server.privileges, server.fixed_port, in_network=in_network)
    if refused is not None:
        return Missing(refused, f"{AS_ROOT}{f', or {SUBORDINATE}' if in_network else ''}")
    command = server.version_command(executable)
    if not command or not ask:
        return Found("unknown", executable)
    try:
        return Found(ask_version(command), executable)
    except ValueError as error:
        return Missing(f"its version command ({' '.join(command)}) {error}"[:300], server.get)


def ask_version(command: Sequence[str]) -> str:
    """The first line that a version command prints. Raises ValueError with what is wrong with it."""
    with tempfile.TemporaryFile() as said:
        try:
            asked = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )  # fmt: skip
        except OSError as error:
            raise ValueError(f"can't be run: {error.strerror}") from None
        try:
            code = asked.wait(VERSION_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise ValueError(f"did not end within {VERSION_TIMEOUT_S:g} s") from None
        finally:
            with contextlib.suppress(OSError):  # a server that took the question for a start, and went on
                os.killpg(asked.pid, signal.SIGKILL)
            asked.wait()
        said.seek(0)
        lines = said.read(_VERSION_BYTES_MAX).decode("utf-8", "replace").splitlines()
    spoken = next((text.strip() for text in lines if text.strip()), "")[:VERSION_LENGTH_MAX]
    line = "".join(character if character.isprintable() else "?" for character in spoken)
    if code != 0 or not line:
        raise ValueError(f"ended with {code}, saying {line!r}")
    return line


def missing_privilege(needs_root: str | None, port: int | None, *, in_network: bool = False) -> str | None:
    """What stands between this user and the server, in words; None where nothing does."""
    if os.geteuid() == 0 or (in_network and (needs_root is None or may_name_ids())):
        return None
    if needs_root is not None:
        return f"needs root: {needs_root}"
    if port is not None and port < _first_free_port() and not _may_bind_low_ports():
        return f"can listen on UDP port {port} only, which needs root or CAP_NET_BIND_SERVICE"
    return None


def _first_free_port() -> int:
    """The first port that every user may bind (ip(7), ip_unprivileged_port_start)."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 1024


def _may_bind_low_ports() -> bool:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_NET_BIND_SERVICE & 1)
