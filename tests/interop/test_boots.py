"""Boot profiles against recordings of the real clients: the same requests, byte for byte, and the same timers.

tests/fixtures/boots.tar.xz holds what each client sent and received, as tests/interop/record_boots.py recorded it; the
README in it names the packages. The clock of a recording is the machine's own.
"""

import socket
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import NamedTuple, Self

import pytest

import tftpbench
from tests.interop.clients import Here
from tests.interop.record_boots import (
    ACK,
    DATA,
    ERROR,
    HEADERS,
    MACHINE_IP,
    RECORDINGS,
    RRQ,
    UUID_SENT,
    Datagram,
    frames,
    lost,
    never,
    record,
    silent,
)
from tftpbench import _core
from tftpbench.host.generator import LoadConfig, run_load
from tftpbench.model.boot import Share, Step, load_boot

ARCHIVE = Path(__file__).parents[1] / "fixtures/boots.tar.xz"
WITHIN = 0.1  # of each time
# Each recording of a whole boot, and the profile that it is of.
BOOTS = {
    "uefi": "uefi",
    "uefi-grub": "uefi-grub-kernel",
    "uefi-ipxe": "uefi-ipxe-kernel",
    "bios-pxelinux": "bios-pxelinux-kernel",
    "uboot": "uboot",
    "uboot-window": "uboot",
}
# Each recording of a silence: the file that it is about, and whether the request had been answered.
SILENCES = {
    "uefi-silent": ("snponly.efi", False),
    "uefi-stall": ("snponly.efi", True),
    "uefi-grub-silent": ("/grub/grub.cfg", False),
    "uefi-grub-stall": ("/vmlinuz", True),
    "uefi-ipxe-silent": ("vmlinuz", False),
    "uefi-ipxe-stall": ("vmlinuz", True),
    "bios-pxelinux-silent": ("vmlinuz", False),
    "bios-pxelinux-stall": ("vmlinuz", True),
    "uboot-silent": ("Image", False),
    "uboot-stall": ("Image", True),
    "uboot-restart": ("Image", False),
    "uboot-window-stall": ("Image", True),
}
# A block of a window was lost in each: the file, the last block before it.
LOSSES = {"uefi-lost": ("snponly.efi", 9), "uboot-window-lost": ("Image", 9)}

SILENT_AFTER = 12  # blocks, in recordings of a silence while reading
ABORTED = "User aborted the transfer"
# OVMF counts the seconds of a clock that runs already, and PXELINUX the BIOS's ticks: a first wait may be so much
# shorter. U-Boot, GRUB and iPXE look at the time.
TICKS_S = {"uefi-silent": 1.0, "uefi-stall": 1.0, "bios-pxelinux-silent": 0.055, "bios-pxelinux-stall": 0.055}
# boots/uboot.yaml says it: 10 s pass before it starts again.
RESTART_WAITS_NS = (5 * 10**9,) * 10 + (15 * 10**9,)
# Replays: short files, and shorter waits, about so long in all.
SIZE_MAX, REPLAY_S = 100 * 1024, 4.0
SO_TIMESTAMPNS = 35  # Linux: the kernel says when a datagram came, however late a busy machine reads it
DEADLINE_NS = 100 * 10**9
# Of the packages of bios-pxelinux.
NEEDS = (
    "usr/lib/ipxe/qemu/pxe-e1000.rom",
    "usr/lib/PXELINUX/pxelinux.0",
    "usr/lib/syslinux/modules/bios/ldlinux.c32",
    "boot/memtest86+x64.bin",
)


class Said(NamedTuple):
    """One datagram, in s of the machine's clock."""

    at_s: float
    sent: bool  # by the machine
    payload: bytes

    @property
    def opcode(self) -> int:
        return self.payload[1]

    @property
    def number(self) -> int:
        return int.from_bytes(self.payload[2:4], "big")


@dataclass
class Asked:
    """One file that a machine asked for, and all that was said about it."""

    request: bytes
    said: list[Said] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.request[2:].split(b"\0")[0].decode()

    @property
    def ended(self) -> tuple[str, int, str, int]:
        """As in a step: how, by which ERROR of its own, after how many blocks."""
        blocks = 0
        for one in self.said:
            blocks += one.opcode == DATA
            if one.opcode == ERROR:
                text = one.payload[4:].rstrip(b"\0").decode()
                return ("stop", one.number, text, blocks) if one.sent else ("missing", 0, "", 0)
        return "whole", 0, "", 0


@cache
def recorded(name: str) -> tuple[Asked, ...]:
    """What the machine of a recording asked for, in order. The machine's UUID is that of machine 0 of a load."""
    with tarfile.open(ARCHIVE) as members:
        member = members.extractfile(f"{name}.pcap")
        assert member is not None
        return asked(member.read())


def asked(dump: bytes) -> tuple[Asked, ...]:
    uuids = UUID_SENT.encode(), _core.machine_name("{uuid}", 0).encode()
    said = []
    for header, frame in frames(dump):
        seconds, microseconds = struct.unpack("=II", header[:8])
        sent = frame[26:30] == MACHINE_IP
        port = int.from_bytes(frame[34:36] if sent else frame[36:38], "big")
        said.append((port, Said(seconds + microseconds / 1e6, sent, frame[HEADERS:].replace(*uuids))))
    return by_file(said)


def by_file(said: Iterable[tuple[int, Said]]) -> tuple[Asked, ...]:
    """Datagrams, each with the machine's port, as transfers in the order of their requests."""
    found: list[Asked] = []
    latest: dict[int, Asked] = {}
    for port, one in said:
        if one.sent and one.opcode == RRQ and (port not in latest or latest[port].request != one.payload):
            latest[port] = Asked(one.payload)
            found.append(latest[port])
        latest[port].said.append(one)
    return tuple(found)


def request(step: Step) -> bytes:
    words = [_core.machine_name(step.name, 0), "octet", *(word for option in step.options for word in option)]
    return struct.pack("!H", RRQ) + b"".join(word.encode() + b"\0" for word in words)


@pytest.mark.parametrize("name", BOOTS)
def test_a_profile_asks_and_ends_as_the_real_client(name: str) -> None:
    ours = [(request(step), step.ends, step.stop_code, step.stop_text, step.stop_after) for step in _steps(name)]
    assert ours == [(one.request, *one.ended) for one in recorded(name)]


@pytest.mark.parametrize("name", SILENCES)
def test_a_profile_waits_and_tries_again_as_the_real_client(name: str) -> None:
    one = _unanswered(recorded(name), name)
    step = next(each for each in _steps(name) if request(each) == one.request)
    waits = (step.reading_waits_ns if SILENCES[name][1] else step.waits_ns) * (1 + step.restarts_max)
    # What ends the last wait is only seen where the client says that it is over.
    expected = waits if one.said[-1].opcode == ERROR else waits[:-1]
    first, *later = (wait / 1e9 for wait in expected)
    seen, *seen_later = _waits(one)
    assert (1 - WITHIN) * (first - TICKS_S.get(name, 0)) <= seen <= (1 + WITHIN) * first
    assert seen_later == [pytest.approx(wait, rel=WITHIN) for wait in later]


@pytest.mark.parametrize("name", LOSSES)
def test_a_profile_answers_blocks_out_of_order_as_the_real_client(name: str) -> None:
    file, before = LOSSES[name]
    *_, one = (one for one in recorded(name) if one.name == file)
    step = next(each for each in _steps(name) if each.name == file)
    came, answers = _out_of_order(one, before)
    assert came > 1
    assert answers == {"gap": 1, "block": came, "none": 0}[step.nack]


@pytest.mark.parametrize("name", BOOTS)
def test_the_generator_sends_what_the_real_client_sent(name: str, tmp_path: Path) -> None:
    ours, _ = _replayed(name, tmp_path, never)
    # How many blocks come before its ERROR is a matter of which datagram is faster.
    sent = [(one.request, *one.ended[:3]) for one in recorded(name)]
    assert [(one.request, *one.ended[:3]) for one in ours] == sent
    for mine, real in zip(ours, recorded(name), strict=True):
        assert _sent_once(mine) == _sent_once(real)


@pytest.mark.parametrize("name", SILENCES)
def test_the_generator_waits_and_tries_again_as_the_real_client(name: str, tmp_path: Path) -> None:
    file, answered = SILENCES[name]
    real = _waits(_unanswered(recorded(name), name))
    faster = max(1, round(sum(real) / REPLAY_S))
    ours, ended_s = _replayed(name, tmp_path, silent(file, SILENT_AFTER if answered else 0), faster)
    mine = _waits(_unanswered(ours, name), ended_s)
    if len(mine) > len(real):
        mine.pop()  # nothing in the recording says when its last wait was over
    ratios = sorted(wait * faster / seen for wait, seen in zip(mine, real, strict=True))
    # Never early; a busy machine may be late now and then.
    assert ratios[0] >= 1 - WITHIN
    assert ratios[len(ratios) // 2] <= 1 + WITHIN


@pytest.mark.parametrize("name", LOSSES)
def test_the_generator_answers_blocks_out_of_order_as_the_real_client(name: str, tmp_path: Path) -> None:
    file, before = LOSSES[name]
    found = []
    for transfers in (_replayed(name, tmp_path, lost(file, before + 1))[0], recorded(name)):
        *_, one = (one for one in transfers if one.name == file)
        found.append(_out_of_order(one, before))
    assert found[0] == found[1]


def _steps(name: str) -> tuple[Step, ...]:
    """Of the profile that a recording is of; its window and what its user wanted after a failure are its own."""
    boot = next(each for each in sorted(BOOTS, key=len, reverse=True) if name.startswith(each))
    steps = load_boot(BOOTS[boot]).steps
    if name == "uboot-restart":  # netretry=once
        steps = tuple(
            replace(step, waits_ns=RESTART_WAITS_NS, then="restart_transfer", restarts_max=1) for step in steps
        )
    if "window" in name:
        steps = tuple(replace(step, options=(*step.options, ("windowsize", "4"))) for step in steps)
    return steps


def _unanswered(transfers: Iterable[Asked], name: str) -> Asked:
    """The file about which the server says nothing more, with all that the machine sent when it started it again."""
    file, answered = SILENCES[name]
    found = [one for one in transfers if one.name == file and one.ended[:3] != ("stop", 8, ABORTED)]
    found = [one for one in found if any(not said.sent for said in one.said) == answered]
    return Asked(found[0].request, [said for one in found for said in one.said])


def _waits(one: Asked, ended_s: float | None = None) -> list[float]:
    """Between the times at which the machine sent the same again, in s, and until its ERROR or the end."""
    sent = [said for said in one.said if said.sent]
    again = [said for said in sent if said.opcode != ERROR]
    at = [said.at_s for said in sent if said.payload == again[-1].payload or said.opcode == ERROR]
    if ended_s is not None:
        at.append(ended_s)
    return [later - earlier for earlier, later in pairwise(at)]


def _out_of_order(one: Asked, before: int) -> tuple[int, int]:
    """How many blocks came while the one after `before` was missing, and how many ACKs were about the gap."""
    said = [(each.sent, each.opcode, each.number) for each in one.said]
    start, end = said.index((False, DATA, before)), said.index((False, DATA, before + 1))
    return sum(not sent for sent, *_ in said[start + 1 : end]), said.count((True, ACK, before))


def _sent_once(one: Asked) -> list[bytes]:
    """All that the machine sent but its ACKs of DATA, which depend on the file; each once: a busy machine repeats."""
    sent = [said for said in one.said if said.sent and (said.opcode != ACK or said.number == 0)]
    return list(dict.fromkeys(said.payload for said in sent))


def _replayed(
    name: str, root: Path, drop: Callable[[Datagram], bool], faster: int = 1
) -> tuple[tuple[Asked, ...], float]:
    """One machine boots as a recording's profile says, with shorter files and waits; and when it ended."""
    steps = tuple(
        replace(
            step,
            size_bytes=None if step.size_bytes is None else min(step.size_bytes, SIZE_MAX),
            waits_ns=tuple(wait // faster for wait in step.waits_ns),
            reading_waits_ns=tuple(wait // faster for wait in step.reading_waits_ns),
            think_ns=0,
        )
        for step in _steps(name)
    )
    for step in steps:
        if step.size_bytes is not None:
            path = root / step.name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(step.size_bytes))
    with tftpbench.Server("epoll", root) as server, Relay(server.port, drop) as relay:
        run_load(
            LoadConfig(
                host="127.0.0.1", port=relay.port, operation="read", name="", file_size_bytes=0, verify="off",
                boots=(Share(name, 1, steps),), concurrency=1, transfers=1, deadline_ns=DEADLINE_NS,
            )
        )  # fmt: skip
        ended_s = time.time()
    return by_file(relay.said), ended_s


class Relay:
    """Between a load and a server: keeps what is said, and drops what a test wants dropped."""

    def __init__(self, server_port: int, drop: Callable[[Datagram], bool]) -> None:
        self.said: list[tuple[int, Said]] = []
        self._server_port, self._drop = server_port, drop
        self._selector = DefaultSelector()
        self._listening = self._open()
        self.port: int = self._listening.getsockname()[1]
        self._requests: dict[tuple[str, int], bytes] = {}
        self._towards: dict[tuple[str, int], socket.socket] = {}  # the server, for each address of a machine
        self._back: dict[tuple[tuple[str, int], int], socket.socket] = {}  # to the machine, for each port of the server
        self._now_s = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]  # sockets, all of them
        self._selector.close()

    def _open(self, machine: tuple[str, int] | None = None, server_port: int | None = None) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("127.0.0.1", 0))
        made.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._selector.register(made, EVENT_READ, (machine, server_port))
        return made

    def _loop(self) -> None:
        while not self._stopped.is_set():
            for key, _ in self._selector.select(0.05):
                machine, server_port = key.data
                payload, [(_, _, stamp)], _, source = key.fileobj.recvmsg(65536, 64)  # type: ignore[union-attr]
                seconds, ns = struct.unpack("=qq", stamp)
                self._now_s = seconds + ns / 1e9
                if machine is not None and server_port is None:
                    self._to_machine(machine, payload, source[1])
                else:
                    self._to_server(source, payload, server_port or self._server_port)

    def _to_server(self, machine: tuple[str, int], payload: bytes, server_port: int) -> None:
        self.said.append((machine[1], Said(self._now_s, True, payload)))
        if payload[1] == RRQ and self._requests.get(machine) != payload:
            self._requests[machine] = payload
            if machine in self._towards:
                self._selector.unregister(self._towards[machine])  # the port is used again, for another file
                self._towards.pop(machine).close()
        if machine not in self._towards:
            self._towards[machine] = self._open(machine)
        self._towards[machine].sendto(payload, ("127.0.0.1", server_port))

    def _to_machine(self, machine: tuple[str, int], payload: bytes, server_port: int) -> None:
        if self._drop(Datagram(False, payload, self._requests[machine][2:].split(b"\0")[0].decode())):
            return
        if (machine, server_port) not in self._back:
            self._back[machine, server_port] = self._open(machine, server_port)
        self.said.append((machine[1], Said(self._now_s, False, payload)))
        self._back[machine, server_port].sendto(payload, machine)


@pytest.mark.parametrize("name", ["bios-pxelinux"])
def test_the_client_of_this_machine_still_sends_what_was_recorded(
    name: str, tmp_path: Path, client: Callable[[str], Here]
) -> None:
    client("qemu-system-x86_64")
    missing = [path for path in NEEDS if not Path("/", path).exists()]
    if missing:
        pytest.skip(f"no /{missing[0]}; get it: apt install ipxe-qemu seabios pxelinux syslinux-common memtest86+")
    record(RECORDINGS[name], tmp_path / "pcap")
    assert [one.request for one in asked((tmp_path / "pcap").read_bytes())] == [one.request for one in recorded(name)]
