"""A running server: not started or stopped here, named by a TFTP URL (RFC 3617).

``tftp://HOST[:PORT]/FILE`` is read only, and every transfer reads FILE; ``tftp://HOST[:PORT]`` allows tftpbench to
upload files there, which stay; there is no ``;mode=``, and a name may not be empty. A link-local address has a zone,
written as in ``[fe80::1%25eth0]`` (RFC 6874); a bare ``%`` is understood, too.
"""

import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

from tftpbench.model.arguments import PORT
from tftpbench.model.errors import ManifestError, UsageError
from tftpbench.model.scenario import Scenario
from tftpbench.model.scenario_files import Overrides, sets

SCHEME = "tftp://"
_SHAPE = re.compile(
    r"tftp://(?:\[(?P<six>[0-9A-Fa-f:.]+)(?:%(?:25(?=[^\]]))?(?P<zone>[^\]/%]+))?\]|(?P<host>[^\[\]/:;@?#]+))"
    r"(?::(?P<port>\d{1,5}))?(?:/(?P<file>.*))?"
)
_ALLOWED = "allowed: tftp://ADDRESS:PORT/FILE, as in tftp://127.0.0.1:69/boot.0"


@dataclass(frozen=True)
class Target:
    """Where it listens, and the file to read; None where tftpbench may write."""

    host: str
    port: int
    file: str | None

    @property
    def name(self) -> str:
        """As in results and tables: "192.0.2.1:69"."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def entry(self) -> str:
        """As among a scenario's servers."""
        return f"{SCHEME}{self.name.replace('%', '%25')}" + (f"/{quote(self.file)}" if self.file else "")

    @property
    def source(self) -> str:
        """Where it is named, as a manifest's source is."""
        return self.entry

    def cannot(self, operation: str | None = None, *_options: object, **_more: object) -> str | None:
        """Why a cell must not be run on it; None where it may. What it can do is seen when it is asked."""
        if operation == "write" and self.file is not None:
            return "serves one file to read; for uploads, give --target-write in place of --target-file"
        return None


def parse_target(entry: str) -> Target:
    """The target that an entry names. Raises ManifestError."""
    match = _SHAPE.fullmatch(entry)
    port = int(match["port"] or PORT) if match else 0
    if match is None or not 1 <= port <= 65535:
        raise ManifestError(f"{entry!r} names no running server; {_ALLOWED}")
    host = match["host"] or match["six"] + (f"%{match['zone']}" if match["zone"] else "")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise ManifestError(f"{entry!r}: {host!r} is no IP address; {_ALLOWED}") from None
    if why := _of_no_host(host):
        raise ManifestError(f"{entry!r}: {why}")
    file = unquote(match["file"]) if match["file"] is not None else None
    if file is not None and (not file or not file.isprintable() or "{n}" in file):
        raise ManifestError(f"{entry!r} names no file to read; {_ALLOWED}, or without the last slash to allow uploads")
    return Target(host, port, file)


def is_read_only(entry: str) -> bool:
    """Whether an entry of a scenario's servers means a running server with one file to read. Raises ManifestError."""
    return entry.startswith(SCHEME) and parse_target(entry).file is not None


def measuring(scenario: Scenario, entries: Sequence[str], overrides: Overrides) -> Scenario:
    """The scenario of these servers; beside a file to read of reads alone, unless `overrides` name operations.

    Raises ManifestError.
    """
    if any(map(is_read_only, entries)) and not sets(overrides, "matrix.operation"):
        scenario = scenario.reading()
    return scenario.with_servers(entries) if entries else scenario


def target_entries(
    address: str | None, file: str | None, write: bool, *, boots: bool = False, prefix: str = "--", dash: str = "-"
) -> list[str]:
    """The entry of a scenario's servers that means the running server at this address; none without one.

    `boots`: machines boot, whose profiles say which files are read. `prefix` and `dash`: how the caller's users spell
    the options. Raises UsageError, in that spelling.
    """
    target, of_file, of_write = (f"{prefix}target{dash}{each}" for each in ("", "file", "write"))
    target = target.removesuffix(dash)
    if address is None:
        if file is not None or write:
            raise UsageError(f"{of_file} and {of_write} go with {target} HOST:PORT")
        return []
    if boots:
        if file is not None or write:
            raise UsageError(
                f"{of_file} and {of_write} are of transfers: a boot names its files itself; "
                f"{prefix}map{' NAME=FILE' if dash == '-' else ''} gives them other names"
            )
        return [Target(*numeric_address(address), None).entry]
    if (file is None) != write:
        raise UsageError(
            f"{target} needs a file to read: name one that the server has with {of_file} NAME, "
            f"or allow uploads with {of_write}; not both"
        )
    if file is not None and (not file.isprintable() or not file or "{n}" in file):
        raise UsageError(f"{of_file} is {file!r}; allowed: the name of one file, without {{n}}")
    return [Target(*numeric_address(address), file).entry]


def numeric_address(target: str) -> tuple[str, int]:
    """A numeric host and a port from HOST, HOST:PORT, [HOST]:PORT or a bare IPv6 address. Raises UsageError.

    The host of a link-local address keeps its zone (RFC 4007 section 11), as in "fe80::1%eth0".
    """
    host, colon, port = target.rpartition(":") if target.count(":") == 1 or "]:" in target else (target, "", "")
    host = (host if colon else target).strip("[]")
    number = port or str(PORT)
    if not number.isdecimal() or len(number) > 5 or not 1 <= int(number) <= 65535:
        raise UsageError(f"{target!r} has no port from 1 to 65535; give HOST:PORT, as in 127.0.0.1:6969")
    try:
        found = socket.getaddrinfo(host, int(number), type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "that is no name of a host"
        raise UsageError(f"the host {host!r} was not found: {reason}; give HOST:PORT, as in 127.0.0.1:6969") from None
    address, _, *of_ipv6 = found[0][4]
    interface = int(of_ipv6[1]) if len(of_ipv6) > 1 else 0
    numeric = str(address).partition("%")[0]  # some systems tell the zone there, too
    if why := _of_no_host(numeric):
        raise UsageError(why)
    return (f"{numeric}%{socket.if_indextoname(interface)}" if interface else numeric), int(number)


def _of_no_host(host: str) -> str | None:
    """Why load must never go there, whatever is allowed: the address is of many hosts, or of none."""
    address = ipaddress.ip_address(host.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    kinds = {
        "a multicast address": address.is_multicast,
        "a broadcast address": str(address) in ("255.255.255.255", "127.255.255.255"),
        "the unspecified address": address.is_unspecified,
    }
    found = next((kind for kind, is_it in kinds.items() if is_it), None)
    return found and f"{host} is {found}, not one server's; give the address of one server"
