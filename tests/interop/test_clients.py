"""Other people's clients against our servers: every size, mode and option that they have, compared byte by byte.

What a client can't do stands in clients.py with the reason, and is expected here to the byte. Where options or text are
tried, a relay between client and server keeps what both said, so that neither is believed about itself.
"""

import itertools
import random
import re
import selectors
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import tftpbench
from tests.interop.clients import CLIENTS, MODEST, PLAIN, SIZE, WHOLE, Case, Client, Here, Job, look
from tests.loopback.machine import written
from tftpbench.serve import ServeConfig

SERVERS = ("epoll", "threads")
DIRECTIONS = ("get", "put")
SIZES = (0, 1, 511, 512, 513, 1_000_000)
LARGE = 40_000_000  # 78,126 blocks of 512 bytes
BLOCKS = 80  # more than a window of 64
TEXTS = {
    "every line end": b"unix\nnetwork\r\nmac\rnul\r\0\n\n\r\r\nlast\r",
    "pairs across blocks": b"x" * 511 + b"\n" + b"y" * 510 + b"\r" + b"z" * 511 + b"\r\nend",
    "an empty last block": b"\n" * 256,
    "no text at all": random.Random(7).randbytes(5000),
    "nothing": b"",
}
RUN_LIMIT_S = 100.0  # of a client; a test as a whole has less, but where files are large
RRQ, WRQ, DATA, ACK, ERROR, OACK = range(1, 7)

_numbers = itertools.count()


@dataclass(frozen=True)
class Served:
    """A running server of ours, and its root."""

    host: str
    port: int
    root: Path


class Relay:
    """Between one client and a server, for one transfer: hands every datagram on as it is, and keeps it."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.from_client: list[bytes] = []
        self.from_server: list[bytes] = []
        self._server = server
        # The client sends its request to one, and talks to the second from then on; the third talks to the server.
        self._front, self._near, self._far = (_socket() for _ in range(3))
        self.port: int = self._front.getsockname()[1]
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with _socket() as waker:
            waker.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        for each in (self._front, self._near, self._far):
            each.close()

    def mode(self) -> str:
        """The mode of the request."""
        return self._request()[1]

    def asked(self) -> dict[str, str]:
        """The options of the request."""
        words = self._request()[2:]
        return dict(zip(words[::2], words[1::2], strict=True))

    def granted(self) -> dict[str, str]:
        """The options of the OACK; none without one."""
        answers = {datagram for datagram in self.from_server if _opcode(datagram) == OACK}
        words = _words(answers.pop()) if answers else []
        assert not answers, "every copy of an OACK is the same"
        return dict(zip(words[::2], words[1::2], strict=True))

    def blocks(self, direction: str) -> list[bytes]:
        """The payload of every DATA, in the order of block numbers; copies count once."""
        sent = self.from_server if direction == "get" else self.from_client
        found = {_number(datagram): datagram[4:] for datagram in sent if _opcode(datagram) == DATA}
        return [found[number] for number in sorted(found)]

    def acknowledgements(self, direction: str) -> int:
        """How many different numbers the ACKs had."""
        sent = self.from_client if direction == "get" else self.from_server
        return len({_number(datagram) for datagram in sent if _opcode(datagram) == ACK})

    def _request(self) -> list[str]:
        requests = {datagram for datagram in self.from_client if _opcode(datagram) in (RRQ, WRQ)}
        (request,) = requests  # every copy is the same
        return _words(request)

    def _loop(self) -> None:
        client = peer = ("", 0)
        closing = False
        with selectors.DefaultSelector() as selector:
            for each in (self._front, self._near, self._far):
                selector.register(each, selectors.EVENT_READ)
            # What has arrived by then is still handed on, above all the last ACK of a client that has ended.
            while ready := selector.select(0 if closing else None):
                for key, _ in ready:
                    receiver = key.fileobj
                    assert isinstance(receiver, socket.socket)
                    datagram, sender = receiver.recvfrom(65536)
                    if receiver is self._far:
                        peer = sender
                        self.from_server.append(datagram)
                        self._near.sendto(datagram, client)
                    elif datagram:
                        client = sender
                        self.from_client.append(datagram)
                        self._far.sendto(datagram, self._server if receiver is self._front else peer)
                    else:
                        closing = True
        if peer[1]:  # what the client has abandoned ends now, and not when the server gives it up
            self._far.sendto(struct.pack("!HHx", ERROR, 0), peer)


@contextmanager
def relay(server: Served) -> Iterator[Relay]:
    made = Relay((server.host, server.port))
    try:
        yield made
    finally:
        made.close()


@dataclass(frozen=True)
class Pair:
    """One client and one server, and a folder for the client's files."""

    client: Client
    program: Here
    server: Served
    folder: Path

    def transfer(
        self,
        direction: str,
        content: bytes,
        case: Case = PLAIN,
        *,
        arrives: bytes | None = None,
        mode: str = "octet",
        via: Relay | None = None,
    ) -> None:
        """Get or put a new file as the case says; client and file must end as it says."""
        remote, local = self.server.root / f"file-{next(_numbers)}", self.folder / "local"
        source, target = (remote, local) if direction == "get" else (local, remote)
        source.write_bytes(content)
        port = self.server.port if via is None else via.port
        done = self.run(Job(direction, self.server.host, port, remote.name, local, mode, case.given))
        got = target.read_bytes() if target.exists() else None
        for path in (remote, local):
            path.unlink(missing_ok=True)  # some are large
        ending = case.ending(direction)
        assert done.returncode == ending.exit, (ending.why, done.stdout)
        wanted = content if arrives is None else arrives
        assert _difference(got, None if ending.arrived is None else wanted[: ending.arrived]) is None, ending.why

    def run(self, job: Job) -> subprocess.CompletedProcess[bytes]:
        """Run the client until it ends; what it prints is one."""
        return subprocess.run(
            [*self.program.command, *self.client.words(job)],
            cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=RUN_LIMIT_S, check=False,
        )  # fmt: skip


Pairing = Callable[..., Pair]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, bool], Served]]:
    """start(name, modest) is a server of ours, started once; a modest one grants MODEST at most."""
    with ExitStack() as running:

        @cache
        def started(name: str, modest: bool) -> Served:
            folder = tmp_path_factory.mktemp(name)
            root = folder / "root"
            root.mkdir()
            chosen = _modest(folder, name) if modest else name
            server = running.enter_context(tftpbench.Server(chosen, root, write=True))
            return Served(server.host, server.port, root)

        yield started


@pytest.fixture
def pair(client: Callable[[str], Here], start: Callable[[str, bool], Served], tmp_path: Path) -> Pairing:
    """pair(name, server, modest=False): the client called `name` and a server."""

    def paired(name: str, server: str, modest: bool = False) -> Pair:
        return Pair(CLIENTS[name], client(name), start(server, modest), tmp_path)

    return paired


def test_tftpy_comes_with_tftpbench_so_its_tests_never_skip() -> None:
    assert isinstance(look("tftpy"), Here)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("name", CLIENTS)
def test_a_file_arrives_whole(name: str, server: str, direction: str, size: int, pair: Pairing) -> None:
    both = pair(name, server)
    case = both.client.get_empty if (direction, size) == ("get", 0) else PLAIN
    both.transfer(direction, random.Random(size).randbytes(size), case)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", CLIENTS)
def test_block_numbers_go_on_behind_65535(name: str, direction: str, pair: Pairing) -> None:
    # Half of the clients get from one server and put to the other, half the other way round.
    server = SERVERS[([*CLIENTS].index(name) + DIRECTIONS.index(direction)) % 2]
    pair(name, server).transfer(direction, random.Random(LARGE).randbytes(LARGE))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("name", [name for name, client in CLIENTS.items() if client.netascii is not None])
def test_text_is_translated_on_its_way(name: str, server: str, direction: str, text: str, pair: Pairing) -> None:
    both, content = pair(name, server), TEXTS[text]
    arrives, wire = content, as_netascii(content)
    if not both.client.netascii:
        arrives, wire = (wire, wire) if direction == "get" else (from_netascii(content), content)
    case = both.client.get_empty if (direction, content) == ("get", b"") else PLAIN
    with relay(both.server) as between:
        both.transfer(direction, content, case, arrives=arrives, mode="netascii", via=between)
    assert between.mode() == "netascii"
    if case.get is WHOLE:
        assert b"".join(between.blocks(direction)) == wire


def _cases() -> list[object]:
    cases = [(name, case) for name, client in CLIENTS.items() for case in client.cases]
    return [pytest.param(name, case, id=f"{name}-{_label(case)}") for name, case in cases]


def _label(case: Case) -> str:
    given = ",".join(f"{name}={value}" for name, value in case.given.items())
    return f"{given or 'plain'}{'-modest' if case.modest else ''}{'' if case.size is None else f'-{case.size}'}"


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(("name", "case"), _cases())
def test_options_are_asked_granted_and_kept(name: str, case: Case, server: str, direction: str, pair: Pairing) -> None:
    both = pair(name, server, case.modest)
    asked = {**both.client.sends, **case.given} if case.asked is None else case.asked
    granted = {option: value for option, value in asked.items() if option not in case.refused}
    if case.modest:
        granted |= {option: value for option, value in MODEST.items() if option in granted}
    blksize, windowsize = int(granted.get("blksize", 512)), int(granted.get("windowsize", 1))
    windowsize = min(windowsize, ServeConfig.windowsize_max, max(ServeConfig.window_max_bytes // blksize, 1))
    granted |= {"windowsize": str(windowsize)} if "windowsize" in granted else {}
    # With one server the last block is empty, as it must be behind full ones (RFC 1350, section 6), else it has a byte.
    length = BLOCKS * blksize + SERVERS.index(server) if case.size is None else case.size
    content = random.Random(length).randbytes(length)
    with relay(both.server) as between:
        both.transfer(direction, content, case, via=between)
    if case.unsent:
        assert between.from_client == []
        return
    size = str(len(content))
    in_request = {SIZE: "0" if direction == "get" else size}
    assert between.asked() == {option: in_request.get(value, value) for option, value in asked.items()}
    in_answer = {"tsize": size} if direction == "get" else {}
    assert between.granted() == {
        option: in_answer.get(option, in_request.get(value, value)) for option, value in granted.items()
    }
    if case.ending(direction) is WHOLE:
        full, rest = divmod(len(content), blksize)
        assert [*map(len, between.blocks(direction))] == [blksize] * full + [rest]
        assert windowsize == 1 or between.acknowledgements(direction) < full


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("name", CLIENTS)
def test_what_the_server_refuses_ends_at_once_and_changes_nothing(name: str, server: str, pair: Pairing) -> None:
    both = pair(name, server)
    got, absent = both.folder / "got", both.client.absent
    done = both.run(Job("get", both.server.host, both.server.port, "absent", got))
    assert done.returncode == absent.exit, (absent.why, done.stdout)
    assert (got.stat().st_size if got.exists() else None) == absent.arrived, absent.why
    assert (b"file not found" in done.stdout) == both.client.quotes, done.stdout

    taken, given = both.server.root / f"file-{next(_numbers)}", both.folder / "given"
    taken.write_bytes(b"first")
    given.write_bytes(b"second")
    done = both.run(Job("put", both.server.host, both.server.port, taken.name, given))
    assert done.returncode == both.client.taken, done.stdout
    assert (b"file exists" in done.stdout) == both.client.quotes, done.stdout
    assert taken.read_bytes() == b"first"


def as_netascii(content: bytes) -> bytes:
    """A Unix file as it travels (RFC 764, as RFC 1350 uses it); written for these tests alone."""
    return re.sub(rb"[\r\n]", lambda found: b"\r\n" if found[0] == b"\n" else b"\r\0", content)


def from_netascii(wire: bytes) -> bytes:
    """The Unix file that travelled so; what no encoder sends stays as it is."""
    return re.sub(rb"\r[\n\0]", lambda found: b"\n" if found[0] == b"\r\n" else b"\r", wire)


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)  # a whole window waits in it: socket(7)
    made.bind(("127.0.0.1", 0))
    return made


def _opcode(datagram: bytes) -> int:
    return int.from_bytes(datagram[:2], "big")


def _number(datagram: bytes) -> int:
    return int.from_bytes(datagram[2:4], "big")


def _words(datagram: bytes) -> list[str]:
    """The NUL-ended words behind the opcode of a request or OACK."""
    return datagram[2:].decode("ascii").split("\0")[:-1]


def _difference(got: bytes | None, wanted: bytes | None) -> str | None:
    """In words, for pytest's own comparison of large bytes takes minutes."""
    if got == wanted:
        return None
    if got is None or wanted is None:
        return "no file" if got is None else f"a file of {len(got)} bytes where none should be"
    at = next((at for at, pair in enumerate(zip(got, wanted, strict=False)) if pair[0] != pair[1]), "none")
    return f"{len(got)} bytes in place of {len(wanted)}; first difference: {at}"


def _modest(folder: Path, name: str) -> str:
    """The manifest of a server of ours that grants MODEST at most."""
    argv = ["{python}", "-m", "tftpbench.serve", name, "--host", "{host}", "--port", "{port}", "--root", "{root}"]
    argv += ["--write", *(word for option, value in MODEST.items() for word in (f"--{option}-max", value))]
    return str(written(folder, name, argv, "line", "{operations: [read, write], options: [blksize, windowsize]}"))
