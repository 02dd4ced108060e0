"""Addresses as people type them."""

import typer

from tftpbench.model.protocol import PORT


def numeric_address(target: str) -> tuple[str, int]:
    """A numeric host and a port from HOST, HOST:PORT, [HOST]:PORT or a bare IPv6 address. Raises BadParameter.

    The host of a link-local address keeps its zone (RFC 4007 section 11), as in "fe80::1%eth0".
    """
    import socket  # not for the help

    host, colon, port = target.rpartition(":") if target.count(":") == 1 or "]:" in target else (target, "", "")
    host = (host if colon else target).strip("[]")
    number = port or str(PORT)
    if not number.isdecimal() or len(number) > 5 or not 1 <= int(number) <= 65535:
        raise typer.BadParameter(f"{target!r} has no port from 1 to 65535; give HOST:PORT, as in 127.0.0.1:6969")
    try:
        found = socket.getaddrinfo(host, int(number), type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "that is no name of a host"
        raise typer.BadParameter(
            f"the host {host!r} was not found: {reason}; give HOST:PORT, as in 127.0.0.1:6969"
        ) from None
    address, _, *of_ipv6 = found[0][4]
    interface = int(of_ipv6[1]) if len(of_ipv6) > 1 else 0
    numeric = str(address).partition("%")[0]  # some systems tell the zone there, too
    return (f"{numeric}%{socket.if_indextoname(interface)}" if interface else numeric), int(number)
