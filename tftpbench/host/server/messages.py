"""A request as bytes, and the words of an ERROR: what the harness's own small clients have in common.

Pure but for `address`. A request's options stand in the order in which the load generator writes them.
"""

import socket
import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Literal

# RFC 2348 allows DATA blocks of 65,464 bytes, and UDP no more than this.
DATAGRAM_BYTES_MAX = 65_536
_ERROR_TEXT_MAX = 100

Options = Mapping[str, int]


class Opcode(IntEnum):
    """RFC 1350 section 5, RFC 2347."""

    RRQ = 1
    WRQ = 2
    DATA = 3
    ACK = 4
    ERROR = 5
    OACK = 6


def request(operation: Literal["read", "write"], name: str, options: Options) -> bytes:
    """An RRQ or a WRQ for the file `name`, mode octet, with these options in their order (RFC 2347)."""
    opcode = Opcode.RRQ if operation == "read" else Opcode.WRQ
    asked = b"".join(f"{option}\0{value}\0".encode() for option, value in options.items())
    return struct.pack("!H", opcode) + name.encode() + b"\0octet\0" + asked


def error_text(datagram: bytes) -> str:
    """An ERROR in words, fit for a terminal whatever is in it: "ERROR 1, 'File not found'"."""
    text = datagram[4:].partition(b"\0")[0].decode("utf-8", "replace")
    return f"ERROR {int.from_bytes(datagram[2:4], 'big')}" + (f", {text[:_ERROR_TEXT_MAX]!r}" if text else "")


def address_family(host: str) -> socket.AddressFamily:
    """The address family of a numeric address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def address(host: str, port: int) -> tuple[object, ...]:
    """Where to send: with the zone of a link-local address, which a plain pair would lose."""
    found = socket.getaddrinfo(host, port, address_family(host), socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    return found[0][4]
