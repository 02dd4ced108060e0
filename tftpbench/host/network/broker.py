"""The broker of one network: makes two network namespaces with a cable between them, and hands out sockets in them.

Run as a program: ``python -I -S broker.py CONTROL REQUESTS WANTS_ROOT``, with two descriptors of SOCK_SEQPACKET sockets
and 0 or 1. It imports nothing but a few modules of the standard library, needs no program, and lives as long as the
other end of CONTROL: then it ends, and the kernel removes namespaces and interfaces with the last process and
descriptor that hold them (network_namespaces(7)). It must never touch anything outside the namespaces that it made.

The namespaces belong to a user namespace of their own, so that no privilege is needed (user_namespaces(7)); where that
is refused they are made without one, which only root may. In them (`Plan` of addresses below):

    server: eth0 10.255.255.1      ---- veth, MTU 1500 ----      generator: eth0 10.255.255.2
      10.255.255.3 is the server's side's, too, by a route of type local: a null server listens there
      10.0.0.0/9 is behind a router whose MAC no interface has: what goes there is for packet sockets, as the
        generator's IP stack drops it at once (PACKET_OTHERHOST, packet(7))
      10.128.0.0/10 is behind the generator, whose own addresses all of these are (a route of type local)

and the same with IPv6, where the kernel has it. All neighbours are static: nothing is asked for by broadcast.

Messages on CONTROL, one datagram each, from the broker:

    ready JSON          with descriptors: the server's network namespace and, where there is one, the user namespace.
                        JSON: `ids`, `interface` (index of the generator's), `server_interface`, `ipv6`, `packet`
                        ("" or why there is none), `low_ports`, `generator_thread`
    failed WHAT: WHY

and on both sockets to the broker four little-endian i32: side (0 server, 1 generator), domain, type, protocol of a
socket. The answer is an i32, 0 or an errno, with the socket as SCM_RIGHTS where it is 0. A socket stays in the
namespace where it was made, wherever its descriptor goes.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import queue
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network

SERVER, GENERATOR = 0, 1
REQUEST = struct.Struct("<iiii")
ANSWER = struct.Struct("<i")
INTERFACE = "eth0"
MTU = 1500
UP_S = 5.0  # a millisecond is usual
# Locally administered (IEEE 802: bit 1 of the first byte); a network of two may have the same as every other.
SERVER_MAC, GENERATOR_MAC, ROUTER_MAC = (bytes.fromhex(f"0274667470{last}") for last in ("01", "02", "fe"))


class Plan:
    """Addresses of one family. Machines of `ring` are behind the router, those of `sockets` behind the generator.

    `null`: where a null server is. No interface has it, so that no server sends from it.
    """

    def __init__(self, server: str, generator: str, null: str, router: str, ring: str, sockets: str) -> None:
        self.server, self.generator, self.null, self.router = server, generator, null, router
        self.ring, self.sockets = ring, sockets


# RFC 1918, and RFC 4193 with "tftp" in the place of random digits: what leaves no machine needs none.
PLAN4 = Plan("10.255.255.1", "10.255.255.2", "10.255.255.3", "10.255.255.254", "10.0.0.0/9", "10.128.0.0/10")
PLAN6 = Plan(
    "fd74:6674:7000::1",
    "fd74:6674:7000::2",
    "fd74:6674:7000::3",
    "fd74:6674:7000::fffe",
    "fd74:6674:7000:1::/64",
    "fd74:6674:7000:2::/64",
)

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_IPV6_FREEBIND = 78  # ipv6(7): speak for an address of a route of type local
_SIOCGIFINDEX = 0x8933  # netdevice(7)
# From rtnetlink(7), and the kernel's headers rtnetlink.h, if_link.h and neighbour.h
_NEW_LINK, _GET_LINK, _NEW_ADDRESS, _NEW_ROUTE, _GET_ROUTE, _NEW_NEIGHBOUR = 16, 18, 20, 24, 26, 28
_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 16, 18, 28
_OPER_UP = 6  # RFC 2863, section 3.1.14
_INFO_KIND, _INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_F_NODAD = 1, 2, 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_TABLE_MAIN, _TABLE_LOCAL, _PROTOCOL_STATIC, _UNICAST, _LOCAL = 254, 255, 4, 1, 2
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_HOST = 0, 253, 254
_NDA_DST, _NDA_LLADDR, _NUD_PERMANENT = 1, 2, 0x80
_NLMSG_ERROR = 2
_USERS, _NETWORKS = "user namespaces", "network namespaces"
_LIMITS = {_USERS: "user.max_user_namespaces", _NETWORKS: "user.max_net_namespaces"}  # namespaces(7)


class Refused(Exception):
    """A step that this machine does not allow, in words."""

    def __init__(self, what: str, error: OSError) -> None:
        why = error.strerror or str(error)
        if error.errno == errno.ENOSPC and what in _LIMITS:
            why = f"no more than {_LIMITS[what]} allows"
        super().__init__(f"{what}: {why}")


class Netlink:
    """rtnetlink(7) of the network namespace that the calling thread is in; it stays with that one."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._sequence = 0

    def ask(self, kind: int, body: bytes, flags: int = _CREATE | _EXCL) -> None:
        """Do one thing. Raises OSError where the kernel refuses it."""
        self._exchange(kind, body, _ACK | flags)

    def _exchange(self, kind: int, body: bytes, flags: int) -> bytes:
        self._sequence += 1
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, self._sequence, 0) + body)
        answer = self._socket.recv(65536)
        kind, code = struct.unpack_from("=H10xi", answer, 4)
        if kind == _NLMSG_ERROR and code:
            raise OSError(-code, os.strerror(-code))
        return answer

    def add_cable(self, far: int) -> None:
        """A veth(4) pair, whose other end is in the network namespace `far`, a descriptor."""
        name = _attribute(_IFLA_IFNAME, INTERFACE.encode() + b"\0")
        mtu = _attribute(_IFLA_MTU, struct.pack("=I", MTU))
        peer = _link(0) + name + mtu + _attribute(_IFLA_ADDRESS, GENERATOR_MAC)
        peer += _attribute(_IFLA_NET_NS_FD, struct.pack("=I", far))
        data = _attribute(_INFO_DATA, _attribute(_VETH_INFO_PEER, peer))
        info = _attribute(_IFLA_LINKINFO, _attribute(_INFO_KIND, b"veth") + data)
        self.ask(_NEW_LINK, _link(0) + name + mtu + _attribute(_IFLA_ADDRESS, SERVER_MAC) + info)

    def up(self, index: int) -> None:
        """Bring an interface up."""
        self.ask(_NEW_LINK, struct.pack("=BxHiII", 0, 0, index, 1, 1), flags=0)

    def is_up(self, index: int) -> bool:
        """Whether an interface carries traffic: some time after `up`, as the kernel does that part in the background.

        Until then it loses datagrams (operstates.rst of the kernel's documentation).
        """
        answer, at = self._exchange(_GET_LINK, _link(index), 0), 32
        while at + 4 <= len(answer):
            size, kind = struct.unpack_from("=HH", answer, at)
            if kind == _IFLA_OPERSTATE:
                return answer[at + 4] == _OPER_UP
            at += max(4, size + 3 & ~3)
        return False

    def is_own(self, address: str) -> bool:
        """Whether what is sent to an address of ours is received: IPv6 does that part in the background, too."""
        packed = ip_address(address).packed
        family, bits = _family(packed)
        body = struct.pack("=BBBBBBBBI", family, bits, 0, 0, 0, 0, 0, 0, 0) + _attribute(_RTA_DST, packed)
        try:
            return self._exchange(_GET_ROUTE, body, 0)[16 + 7] == _LOCAL
        except OSError:
            return False

    def add_address(self, index: int, address: str) -> None:
        """The interface's own address; no other is on its link."""
        packed = ip_address(address).packed
        family, bits = _family(packed)
        body = struct.pack("=BBBBI", family, bits, _IFA_F_NODAD, _SCOPE_UNIVERSE, index)
        self.ask(_NEW_ADDRESS, body + _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed))

    def add_neighbour(self, index: int, address: str, mac: bytes) -> None:
        """A static one, which is never asked for."""
        packed = ip_address(address).packed
        body = struct.pack("=BxHiHBB", _family(packed)[0], 0, index, _NUD_PERMANENT, 0, 0)
        self.ask(_NEW_NEIGHBOUR, body + _attribute(_NDA_DST, packed) + _attribute(_NDA_LLADDR, mac))

    def add_route(self, index: int, network: str, via: str | None = None, *, is_local: bool = False) -> None:
        """To a network, or an address: on the link, through `via`, or to this very machine."""
        found = ip_network(network)
        packed = found.network_address.packed
        table = _TABLE_LOCAL if is_local else _TABLE_MAIN
        scope = _SCOPE_HOST if is_local else _SCOPE_LINK if via is None else _SCOPE_UNIVERSE
        family, prefix = _family(packed)[0], found.prefixlen
        kind = _LOCAL if is_local else _UNICAST
        body = struct.pack("=BBBBBBBBI", family, prefix, 0, 0, table, _PROTOCOL_STATIC, scope, kind, 0)
        body += _attribute(_RTA_DST, packed) + _attribute(_RTA_OIF, struct.pack("=I", index))
        body += b"" if via is None else _attribute(_RTA_GATEWAY, ip_address(via).packed)
        self.ask(_NEW_ROUTE, body)


def _family(packed: bytes) -> tuple[int, int]:
    return (socket.AF_INET, 32) if len(packed) == 4 else (socket.AF_INET6, 128)


def _attribute(kind: int, data: bytes) -> bytes:
    """rtnetlink(7), struct rtattr: its length without the padding to four bytes."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _link(index: int) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, 0, 0)


class Namespaces:
    """The two network namespaces, made by the calling thread, which stays in the server's. Raises Refused.

    `calls` are the ways into the kernel; tests replace them.
    """

    def __init__(self, *, wants_root: bool) -> None:
        self.user: int | None = None
        self.ids = "outside"
        with self._mapping(wants_root=wants_root) as map_ids:
            try:
                unshare(_CLONE_NEWUSER)
            except OSError as error:
                self._refused = error
            else:
                self.ids = map_ids()
                with _step(_USERS):
                    self.user = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        self.generator = self._made()
        self._far = _netlink()
        with _step("UDP sockets"):
            self._ask_index = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.packet = self._packet_refusal()
        self.server = self._made()
        self._near = _netlink()

    def join(self) -> None:
        """Lay the cable, and give both ends their addresses and routes."""
        with _step("a veth pair"):
            self._near.add_cable(self.generator)
        with _step("addresses of the pair"):
            near = self.server_interface = socket.if_nametoindex(INTERFACE)
            self.interface = _index(self._ask_index)
            for namespace in (self.generator, self.server):
                with _step("entering a namespace"):
                    enter(namespace)
                self._quieten()
            for link, index in ((self._near, near), (self._far, self.interface)):
                link.up(1)
                link.up(index)
            self._set_up(near, PLAN4)
        self.ipv6 = True
        try:
            self._set_up(near, PLAN6)
        except OSError:
            self.ipv6 = False  # switched off in the kernel, or for new namespaces
        self.low_ports = _write("/proc/sys/net/ipv4/ip_unprivileged_port_start", b"0")
        with _step("a veth pair"):
            self._wait_until_up(time.monotonic() + UP_S)

    def _wait_until_up(self, deadline: float) -> None:
        plans = (PLAN4, PLAN6) if self.ipv6 else (PLAN4,)
        for link, index, own in (
            (self._near, self.server_interface, [plan.server for plan in plans]),
            (self._far, self.interface, [plan.generator for plan in plans]),
        ):
            while not (link.is_up(index) and all(map(link.is_own, own))):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not up within {UP_S:g} s")
                time.sleep(0.001)

    def _set_up(self, near: int, plan: Plan) -> None:
        bits = 32 if plan is PLAN4 else 128
        self._near.add_address(near, plan.server)
        for address, mac in ((plan.generator, GENERATOR_MAC), (plan.router, ROUTER_MAC)):
            self._near.add_route(near, f"{address}/{bits}")
            self._near.add_neighbour(near, address, mac)
        self._near.add_route(near, plan.ring, plan.router)
        self._near.add_route(near, plan.sockets, plan.generator)
        self._near.add_route(1, f"{plan.null}/{bits}", is_local=True)
        self._far.add_address(self.interface, plan.generator)
        for address in (plan.server, plan.null):
            self._far.add_route(self.interface, f"{address}/{bits}")
            self._far.add_neighbour(self.interface, address, SERVER_MAC)
        self._far.add_route(1, plan.sockets, is_local=True)

    def _quieten(self) -> None:
        """No addresses and solicitations of IPv6 beside ours: ip-sysctl of the kernel's documentation."""
        for name, value in (("addr_gen_mode", b"1"), ("accept_dad", b"0"), ("router_solicitations", b"0")):
            _write(f"/proc/sys/net/ipv6/conf/{INTERFACE}/{name}", value)

    def _made(self) -> int:
        try:
            unshare(_CLONE_NEWNET)
        except OSError as error:
            if self.user is None and error.errno == errno.EPERM:
                raise Refused(_USERS, self._refused) from None
            raise Refused(_NETWORKS, error) from None
        with _step(_NETWORKS):
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def _packet_refusal(self) -> str:
        try:
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
        except OSError as error:
            return error.strerror or "refused"
        return ""

    @contextlib.contextmanager
    def _mapping(self, *, wants_root: bool) -> Iterator[Callable[[], str]]:
        """What maps ids once this process is in its user namespace; a child maps them, which stays outside."""
        started, go = os.pipe2(os.O_CLOEXEC)
        answered, answer = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            _map_outside(os.getppid(), started, answer, wants_root=wants_root)
        os.close(started)
        os.close(answer)

        def map_ids() -> str:
            os.write(go, b"go")
            found = os.read(answered, 32).decode()
            with _step("ids of the user namespace"):
                return found or _map_single(wants_root=wants_root)

        try:
            yield map_ids
        finally:
            os.close(go)
            os.close(answered)
            os.waitpid(pid, 0)


@contextlib.contextmanager
def _step(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Refused(what, error) from None


def _netlink() -> Netlink:
    with _step("netlink sockets"):
        return Netlink()


def _map_outside(pid: int, started: int, answer: int, *, wants_root: bool) -> None:
    """In the child, which never returns: map what takes privileges outside, once `pid` is in its user namespace."""
    try:
        # The pipes' other ends are the parent's alone, or its end would not be seen.
        _close_all_but(started, answer)
        if os.read(started, 2) == b"go":
            is_fit = os.geteuid() == 0 or not wants_root
            os.write(answer, (is_fit and _map_all(pid)) or (_map_subordinate(pid) if wants_root else b""))
    finally:
        os._exit(0)


def _close_all_but(*kept: int) -> None:
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd not in kept:
            with contextlib.suppress(OSError):
                os.close(fd)


def _map_all(pid: int) -> bytes:
    """Every id as it is outside, which root may; b"" where we may not."""
    try:
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/self/{name}", encoding="ascii") as file:
                ranges = [line.split() for line in file]
            if sum(int(count) for *_, count in ranges) < 2:
                return b""  # there is this user alone outside, too
            text = "".join(f"{inside} {inside} {count}\n" for inside, _, count in ranges)
            _write_or_raise(f"/proc/{pid}/{name}", text.encode())
    except OSError:
        return b""
    return b"all"


def _map_subordinate(pid: int) -> bytes:
    """Root is who we are, and the ids above it are those that /etc/subuid grants us (newuidmap(1)); b"" without."""
    for program, kind, own in (("newuidmap", "uid", os.geteuid()), ("newgidmap", "gid", os.getegid())):
        granted = subordinate(kind)
        if granted is None:
            return b""
        start, count = granted
        words = [program, str(pid), "0", str(own), "1", "1", str(start), str(count)]
        if os.spawnvp(os.P_WAIT, program, words) != 0:  # noqa: S606 (a list of words and no shell is the point)
            return b""
    return b"subordinate"


def subordinate(kind: str) -> tuple[int, int] | None:
    """The first range that /etc/subuid, or /etc/subgid, grants this user (subuid(5)): start and count."""
    names = {str(os.getuid()).encode()}
    with contextlib.suppress(OSError, KeyError, ImportError):
        import pwd

        names.add(os.fsencode(pwd.getpwuid(os.getuid()).pw_name))
    with contextlib.suppress(OSError), open(f"/etc/sub{kind}", "rb") as file:
        for line in file:
            name, _, numbers = line.strip().partition(b":")
            start, _, count = numbers.partition(b":")
            if name in names and start.isdigit() and count.isdigit():
                return int(start), int(count)
    return None


def _map_single(*, wants_root: bool) -> str:
    """This user alone: as root where it must be, else as itself. It may name no groups then."""
    uid, gid = _OUTSIDE
    _write_or_raise("/proc/self/setgroups", b"deny")
    _write_or_raise("/proc/self/uid_map", b"%d %d 1\n" % (0 if wants_root else uid, uid))
    _write_or_raise("/proc/self/gid_map", b"%d %d 1\n" % (0 if wants_root else gid, gid))
    return "single"


_OUTSIDE = os.geteuid(), os.getegid()


def _write_or_raise(path: str, data: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(data)


def _write(path: str, data: bytes) -> bool:
    try:
        _write_or_raise(path, data)
    except OSError:
        return False  # read-only in many containers
    return True


def _index(asking: socket.socket) -> int:
    """The index of our interface in the namespace of this socket (netdevice(7))."""
    answer = fcntl.ioctl(asking, _SIOCGIFINDEX, struct.pack("16si12x", INTERFACE.encode(), 0))
    return int(struct.unpack_from("i", answer, 16)[0])


def unshare(flags: int) -> None:
    """New namespaces for this process; a call that Python 3.12 has. Raises OSError."""
    _checked(ctypes.CDLL(None, use_errno=True).unshare(flags))


def enter(namespace: int) -> None:
    """Bring the calling thread into the namespace of this descriptor. Raises OSError."""
    _checked(ctypes.CDLL(None, use_errno=True).setns(namespace, 0))


def _checked(code: int) -> None:
    if code != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class _Side(threading.Thread):
    """A thread that lives in the generator's namespace, and opens sockets there."""

    def __init__(self, namespace: int) -> None:
        super().__init__(daemon=True)
        self._namespace = namespace
        self._wanted: queue.SimpleQueue[tuple[int, int, int]] = queue.SimpleQueue()
        self._made: queue.SimpleQueue[socket.socket | OSError] = queue.SimpleQueue()
        self.start()
        self._got()

    def open(self, *wanted: int) -> socket.socket:
        """A socket of this side. Raises OSError."""
        self._wanted.put(wanted)  # type: ignore[arg-type]
        made = self._got()
        assert isinstance(made, socket.socket)
        return made

    def run(self) -> None:
        """Serve until the process ends."""
        try:
            enter(self._namespace)
            opened: socket.socket | OSError = socket.socket(socket.AF_UNIX)
        except OSError as error:
            opened = error
        while True:
            self._made.put(opened)
            try:
                opened = socket.socket(*self._wanted.get())
            except OSError as error:
                opened = error

    def _got(self) -> socket.socket | OSError:
        made = self._made.get()
        if isinstance(made, OSError):
            raise made
        return made


def _open(asked: bytes, generator: _Side) -> socket.socket:
    if len(asked) != REQUEST.size:
        raise OSError(errno.EINVAL, "no such request")
    side, domain, kind, protocol = REQUEST.unpack(asked)
    if side == SERVER:
        return socket.socket(domain, kind, protocol)
    if side != GENERATOR:
        raise OSError(errno.EINVAL, "no such side")
    opened = generator.open(domain, kind, protocol)
    if domain == socket.AF_INET6 and kind & 0xF == socket.SOCK_DGRAM:
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    return opened


def _answer(asking: socket.socket, generator: _Side) -> bool:
    """Serve one request; False when the other end is gone."""
    try:
        asked = asking.recv(64)
    except OSError:
        return False
    if not asked:
        return False
    try:
        with _open(asked, generator) as made:
            socket.send_fds(asking, [ANSWER.pack(0)], [made.fileno()])
    except OSError as error:
        with contextlib.suppress(OSError):
            asking.send(ANSWER.pack(error.errno or errno.EINVAL))
    return True


def serve(control: socket.socket, requests: socket.socket, generator: _Side) -> None:
    """Answer until `control` ends."""
    served = {control.fileno(): control, requests.fileno(): requests}
    poll = select.poll()
    for fd in served:
        poll.register(fd, select.POLLIN)
    while control.fileno() in served:
        for fd, _ in poll.poll():
            if not _answer(served[fd], generator):
                poll.unregister(fd)
                del served[fd]


def main(arguments: list[str]) -> int:
    """Make the network, say so, and serve it."""
    control, requests = (socket.socket(fileno=int(fd)) for fd in arguments[:2])
    for each in (control, requests):
        each.set_inheritable(False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the harness, whose end is ours
    try:
        with _step("two namespaces"):  # what no other step names
            made = Namespaces(wants_root=arguments[2] == "1")
            made.join()
            with _step("entering a namespace"):
                generator = _Side(made.generator)
    except Refused as error:
        with contextlib.suppress(OSError):
            control.send(f"failed {error}".encode())
        return 1
    facts = {
        "ids": made.ids,
        "interface": made.interface,
        "server_interface": made.server_interface,
        "ipv6": made.ipv6,
        "packet": made.packet,
        "low_ports": made.low_ports,
        "generator_thread": generator.native_id,
    }
    descriptors = [made.server] if made.user is None else [made.server, made.user]
    with contextlib.suppress(OSError):  # the process that started us has ended already
        socket.send_fds(control, [b"ready " + json.dumps(facts).encode()], descriptors)
        serve(control, requests, generator)
    return 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # the thread of the other side has nothing to end
