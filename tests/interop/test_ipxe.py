"""iPXE, the network boot firmware, fetches from our servers: a virtual machine boots and sends back every byte it got.

What it fetches is a boot program: loaded by PXE, it writes itself, every byte of its file as it arrived in the
machine's memory, to the debug port of QEMU, for a test to compare with the one that was served. It is assembled by
hand, because no test may ask for an assembler; behind its code there is only noise.

QEMU emulates machine and network card without privileges; iPXE is the card's ROM. QEMU's user-mode network answers
DHCP with the boot file's URI, and its 10.0.2.2 is this host's loopback. It also keeps a dump of the wire.
"""

import random
import re
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import tftpbench
from tests.interop.clients import Here

DEBUG_PORT = 0xE9  # QEMU's isa-debugcon; firmware writes nothing to it
# PXE 2.1, section 4.4.5: loaded whole at 0:7C00. Base memory ends at 640 KiB, and the firmware keeps its upper end.
SIZE_MAX = 500 * 1024
_PARAGRAPH_BYTES = 16


def boot_program(size_bytes: int) -> bytes:
    """The program as a file of `size_bytes`: its code, then noise that differs with the size."""
    code = _code(size_bytes)
    if not len(code) <= size_bytes <= SIZE_MAX:
        raise ValueError(f"a boot program has {len(code)} to {SIZE_MAX} bytes, not {size_bytes}")
    return code + random.Random(size_bytes).randbytes(size_bytes - len(code))


def _code(size_bytes: int) -> bytes:
    """16-bit real mode, entered by a far call. A segment reaches 64 KiB only, so DS moves on paragraph by paragraph."""
    paragraphs, rest = divmod(size_bytes, _PARAGRAPH_BYTES)
    return b"".join(
        [
            b"\x60",  #                                        pusha              give all back as it was
            b"\x1e",  #                                        push ds
            b"\xfc",  #                                        cld                outsb counts upwards
            b"\xb8\xc0\x07",  #                                mov ax, 0x07c0     0x07c0:0 is 0:0x7c00
            b"\x8e\xd8",  #                                    mov ds, ax
            b"\xba" + struct.pack("<H", DEBUG_PORT),  #        mov dx, DEBUG_PORT
            b"\xbd" + struct.pack("<H", paragraphs),  #        mov bp, paragraphs
            b"\x31\xf6",  #                             next:  xor si, si
            b"\xb9" + struct.pack("<H", _PARAGRAPH_BYTES),  #  mov cx, 16
            b"\xf3\x6e",  #                                    rep outsb          ds:si, cx bytes, to port dx
            b"\x8c\xd8",  #                                    mov ax, ds
            b"\x40",  #                                        inc ax
            b"\x8e\xd8",  #                                    mov ds, ax
            b"\x4d",  #                                        dec bp
            b"\x75\xf1",  #                                    jnz next           15 bytes back, these two included
            b"\x31\xf6",  #                                    xor si, si
            b"\xb9" + struct.pack("<H", rest),  #              mov cx, rest       0 to 15
            b"\xf3\x6e",  #                                    rep outsb          nothing where cx is 0
            b"\x1f",  #                                        pop ds
            b"\x61",  #                                        popa
            b"\x31\xc0",  #                                    xor ax, ax         status 0: iPXE's script goes on
            b"\xcb",  #                                        retf
        ]
    )


BLKSIZE = 1432  # what iPXE asks for on Ethernet
# Both end beyond the first 64 KiB. The last block of the first is empty (RFC 1350, section 6), of the second one byte.
SIZES = {"even.0": 100 * BLKSIZE, "odd.0": 50 * BLKSIZE + 1}
SCRIPT = """#!ipxe
imgfetch absent.0 || echo absent.0 is absent
chain even.0
chain odd.0
reboot
"""
BOOT_LIMIT_S = 100  # 6 s on an idle machine, 3 of them iPXE's wait for other DHCP servers
NO_FIRMWARE = ["failed to find romfile", "could not load PC BIOS"]  # what QEMU says then; it exits at once
DHCP_PORTS = {67, 68}
RRQ, _, DATA, _, ERROR, OACK = range(1, 7)
NOT_FOUND = 1  # RFC 1350, error codes


@dataclass
class Transfer:
    """One file that iPXE asked for and what the wire says about it. `blocks` maps block numbers to bytes in them."""

    name: str
    asked: dict[str, str]
    granted: dict[str, str] = field(default_factory=dict)
    error: int | None = None
    blocks: dict[int, int] = field(default_factory=dict)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["epoll", "threads"])
def test_every_byte_that_ipxe_boots_arrived_and_an_absent_file_does_not_stop_it(
    name: str, tmp_path: Path, client: Callable[[str], Here]
) -> None:
    qemu = str(client("qemu-system-x86_64").path)
    root = tmp_path / "root"
    root.mkdir()
    files = {"boot.ipxe": SCRIPT.encode(), **{file: boot_program(size) for file, size in SIZES.items()}}
    for file, content in files.items():
        (root / file).write_bytes(content)

    with tftpbench.Server(name, root) as server:
        console = _boot(qemu, f"tftp://10.0.2.2:{server.port}/boot.ipxe", tmp_path)

    arrived = (tmp_path / "arrived").read_bytes()
    expected = b"".join(files[file] for file in SIZES)
    assert len(arrived) == len(expected), console
    differing = [at for at in range(len(expected)) if arrived[at] != expected[at]]
    assert not differing, f"{len(differing)} bytes, the first at {differing[0]}"

    transfers = _transfers((tmp_path / "wire.pcap").read_bytes())
    assert [(one.name, one.error) for one in transfers] == [
        ("boot.ipxe", None),
        ("absent.0", NOT_FOUND),
        ("even.0", None),
        ("odd.0", None),
    ]
    for one in transfers:
        assert (one.asked["blksize"], one.asked["tsize"]) == (str(BLKSIZE), "0")  # what else it asks may change
        if one.error is not None:
            assert (one.granted, one.blocks) == ({}, {})
            continue
        size = len(files[one.name])
        full, last = divmod(size, BLKSIZE)
        assert one.granted == {**one.asked, "tsize": str(size)}
        assert one.blocks == {**dict.fromkeys(range(1, full + 1), BLKSIZE), full + 1: last}


def _boot(qemu: str, uri: str, folder: Path) -> str:
    """Boot one machine from the network until it reboots, which ends QEMU; returns what was on its console.

    Leaves `arrived`, what programs wrote to the debug port, and `wire.pcap` in the folder.
    """
    command = [qemu, "-nodefaults", "-display", "none", "-accel", "tcg", "-m", "32M", "-no-reboot"]
    # Where booting fails the firmware reboots at once, so that a failure is quick too.
    command += ["-boot", "order=n,reboot-timeout=0"]
    command += ["-machine", "pc,graphics=off", "-serial", f"file:{folder / 'console'}"]  # the firmware's text as well
    command += ["-netdev", f"user,id=net,net=10.0.2.0/24,bootfile={uri}", "-device", "e1000,netdev=net"]
    command += ["-object", f"filter-dump,id=dump,netdev=net,file={folder / 'wire.pcap'}"]
    command += ["-chardev", f"file,id=arrived,path={folder / 'arrived'}"]
    command += ["-device", f"isa-debugcon,chardev=arrived,iobase={DEBUG_PORT}"]
    try:
        # It is killed, and waited for, when the time is over and whenever the test is interrupted.
        ended = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=BOOT_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"the machine still ran after {BOOT_LIMIT_S} s; its console: {_text(folder / 'console')}")
    if any(words in ended.stderr for words in NO_FIRMWARE):
        pytest.skip(f"{ended.stderr.strip()}; get it: apt install ipxe-qemu seabios")
    assert ended.returncode == 0, ended.stderr
    return _text(folder / "console")


def _text(console: Path) -> str:
    """What was printed, without the escape sequences that move a cursor or clear the reader's terminal."""
    return re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|c)|\r", "", console.read_text(encoding="ascii", errors="replace"))


def _transfers(dump: bytes) -> list[Transfer]:
    """Every file asked for, in order. What was sent twice counts once: a busy machine repeats itself."""
    transfers: list[Transfer] = []
    latest: dict[int, Transfer] = {}  # by the port at iPXE's side
    for port, datagram in _tftp_datagrams(dump):
        opcode, number = struct.unpack("!HH", datagram[:4])
        if opcode == RRQ:
            file, _mode, *options = _words(datagram[2:])
            if port not in latest or latest[port].name != file:
                latest[port] = Transfer(file, _pairs(options))
                transfers.append(latest[port])
        elif opcode == OACK:
            latest[port].granted = _pairs(_words(datagram[2:]))
        elif opcode == ERROR:
            latest[port].error = number
        elif opcode == DATA:
            latest[port].blocks[number] = len(datagram) - 4
    return transfers


def _tftp_datagrams(dump: bytes) -> Iterator[tuple[int, bytes]]:
    """iPXE's port and the payload of each UDP datagram but DHCP, from a pcap file of Ethernet frames."""
    at = 24  # pcap-savefile(5): the file's header, then 16 bytes before each frame
    while at < len(dump):
        (captured,) = struct.unpack("=I", dump[at + 8 : at + 12])
        frame = dump[at + 16 : at + 16 + captured]
        at += 16 + captured
        if frame[12:15] != b"\x08\x00\x45" or frame[23] != 17:  # IPv4 with a header of 20 bytes, UDP
            continue
        source, destination, length = struct.unpack("!HHH", frame[34:40])
        if {source, destination} != DHCP_PORTS:
            # 10.0.2.2, the host, is the one whose port isn't ours to know.
            from_host = frame[26:30] == bytes([10, 0, 2, 2])
            yield destination if from_host else source, frame[42 : 34 + length]


def _words(text: bytes) -> list[str]:
    return text.removesuffix(b"\0").decode("ascii").split("\0")


def _pairs(words: list[str]) -> dict[str, str]:
    return dict(zip(words[::2], words[1::2], strict=True))
