"""Boot profiles against recordings of the real clients: the same requests, byte for byte, and the same timers.

tests/fixtures/boots.tar.xz holds what each client sent and received, as tests/interop/record_boots.py recorded it; the
README in it names the packages. The clock of a recording is the machine's own.
"""

import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

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
    frames,
    record,
)
from tftpbench import _core
from tftpbench.model.boot import Step, load_boot

ARCHIVE = Path(__file__).parents[1] / "fixtures/boots.tar.xz"
WITHIN = 0.1  # of each time
# Each recording of a whole boot, and the profile that it is of.
BOOTS = {
    "uefi": "uefi",
    "uefi-grub": "uefi-grub-kernel",
    "uefi-ipxe": "uefi-ipxe-kernel",
    "bios-pxelinux": "bios-pxelinux-kernel",
    "uboot": "uboot",
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
}
# A block of a window was lost in each: the file, the last block before it.
LOSSES = {"uefi-lost": ("snponly.efi", 9), "uboot-window-lost": ("Image", 9)}

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
    found: list[Asked] = []
    latest: dict[bytes, Asked] = {}  # by the machine's port
    uuids = UUID_SENT.encode(), _core.machine_name("{uuid}", 0).encode()
    for header, frame in frames(dump):
        at = int.from_bytes(header[:4], "little") + int.from_bytes(header[4:8], "little") / 1e6
        sent, payload = frame[26:30] == MACHINE_IP, frame[HEADERS:].replace(*uuids)
        port = frame[34:36] if sent else frame[36:38]
        if sent and payload[1] == RRQ and (port not in latest or latest[port].request != payload):
            latest[port] = Asked(payload)
            found.append(latest[port])
        latest[port].said.append(Said(at, sent, payload))
    return tuple(found)


def request(step: Step) -> bytes:
    words = [_core.machine_name(step.name, 0), "octet", *(word for option in step.options for word in option)]
    return struct.pack("!H", RRQ) + b"".join(word.encode() + b"\0" for word in words)


@pytest.mark.parametrize("name", BOOTS)
def test_a_profile_asks_and_ends_as_the_real_client(name: str) -> None:
    steps = load_boot(BOOTS[name]).steps
    ours = [(request(step), step.ends, step.stop_code, step.stop_text, step.stop_after) for step in steps]
    assert ours == [(one.request, *one.ended) for one in recorded(name)]


@pytest.mark.parametrize("name", SILENCES)
def test_a_profile_waits_and_tries_again_as_the_real_client(name: str) -> None:
    file, answered = SILENCES[name]
    one = next(one for one in recorded(name) if one.name == file and _silent(one))
    step = next(each for each in load_boot(BOOTS[name.rsplit("-", 1)[0]]).steps if request(each) == one.request)
    waits = step.reading_waits_ns if answered else step.waits_ns
    sent = [said for said in one.said if said.sent]
    at = [said.at_s for said in sent if said.payload == sent[-1].payload]
    assert len(at) == len(waits)
    took = [later - earlier for earlier, later in pairwise(at)]
    assert took == [pytest.approx(wait / 1e9, rel=WITHIN) for wait in waits[:-1]]


def _silent(one: Asked) -> bool:
    """Whether the machine had the last word, and not only because all was said."""
    last = [said for said in one.said if said.sent][-1]
    return one.said[-1].sent and sum(said.payload == last.payload for said in one.said) > 1


@pytest.mark.parametrize("name", LOSSES)
def test_a_profile_answers_blocks_out_of_order_as_the_real_client(name: str) -> None:
    file, before = LOSSES[name]
    *_, one = (one for one in recorded(name) if one.name == file)
    order = [said.number for said in one.said if not said.sent and said.opcode == DATA]
    gap = order[order.index(before) + 1 : order.index(before + 1)]  # came while a block was missing
    nacks = [said for said in one.said if said.sent and said.opcode == ACK and said.number == before]
    step = next(each for each in load_boot(BOOTS[name.split("-", 1)[0]]).steps if each.name == file)
    assert len(gap) > 1
    assert len(nacks) == {"gap": 1, "block": len(gap), "none": 0}[step.nack]


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
