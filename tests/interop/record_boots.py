"""Records what real boot clients send, for the boot profiles to be compared with: tests/fixtures/boots.tar.xz.

QEMU's network card hands each Ethernet frame to this process, which is the rest of the network: it answers ARP and
DHCP, and carries each TFTP datagram to and from a server of ours. It drops the datagrams that a recording names, so
that timers show. It needs no privileges, and it must never answer TFTP itself.

`python -m tests.interop.record_boots FOLDER [NAME...]` writes FOLDER/NAME.pcap; without names it makes all recordings.
With --pack instead of names it makes tests/fixtures/boots.tar.xz of them. Debian has all that it needs: see PACKAGES.
Packages of a newer release count where they were unpacked (`dpkg -x`) into the folder that $FIRMWARE names.
"""

import io
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

import tftpbench

# Machine 0 of a load: its address and its hardware address.
MACHINE_MAC, MACHINE_IP = bytes.fromhex("020000000000"), bytes([10, 0, 0, 1])
SERVER_MAC, SERVER_IP, SERVER_NAME = bytes.fromhex("02000000ffff"), bytes([10, 0, 0, 254]), "10.0.0.254"
MAC = MACHINE_MAC.hex(":")
MACHINE_UUID = "8f14e45f-ceea-467f-a9d1-3c2f5b7e0a11"
UUID_SENT = "5fe4148f-eace-7f46-a9d1-3c2f5b7e0a11"  # firmware sends the first three numbers with the low byte first
RRQ, WRQ, DATA, ACK, ERROR, OACK = range(1, 7)
TFTP_PORT, DHCP_SERVER, DHCP_CLIENT = 69, 67, 68
ARP, IPV4, UDP = 0x0806, 0x0800, 17
HEADERS = 42  # of Ethernet, IPv4 and UDP
DATA_KEPT = 4  # bytes of a DATA that a recording keeps: opcode and block number
# Blocks of a file that a recording keeps: the first and the last ones. What's between says the same again.
START_S = 40  # for a machine to ask for something
FIRST_KEPT, LAST_KEPT = 24, 3
PACKAGES = (
    *("qemu-system-x86", "qemu-system-arm", "seabios", "ovmf", "ipxe", "ipxe-qemu", "shim-signed", "shim-unsigned"),
    *("grub-efi-amd64-bin", "pxelinux", "syslinux-common", "u-boot-qemu", "memtest86+"),
)
README = """What real boot clients sent and received, recorded by tests/interop/record_boots.py with the packages below.
The data of DATA and the middle of each file are left out. Times are of the machine's own clock.
"""
PCAP_HEADER_BYTES = 24
# An instruction takes 2^4 ns of the machine's time, which is what captures have: no timer is longer on a busy host.
TIME_SHIFT = 4


@dataclass(frozen=True)
class Datagram:
    """One datagram of TFTP as seen from the machine, and the file it is about."""

    sent: bool  # by the machine
    payload: bytes
    file: str

    @property
    def opcode(self) -> int:
        return self.payload[1]

    @property
    def number(self) -> int:
        return int.from_bytes(self.payload[2:4], "big")


def never(_: Datagram) -> bool:
    """Drop nothing."""
    return False


def silent(file: str, after: int = 0) -> Callable[[Datagram], bool]:
    """The server says nothing more from that block of the file on; 0: it never answers."""
    gone = False

    def drop(datagram: Datagram) -> bool:
        nonlocal gone
        if datagram.sent or datagram.file != file:
            return False
        gone = gone or after == 0 or (datagram.opcode == DATA and datagram.number > after)
        return gone

    return drop


def lost(file: str, block: int) -> Callable[[Datagram], bool]:
    """That block is lost once."""
    done = False

    def drop(datagram: Datagram) -> bool:
        nonlocal done
        if done or datagram.sent or datagram.file != file or (datagram.opcode, datagram.number) != (DATA, block):
            return False
        done = True
        return True

    return drop


@dataclass(frozen=True)
class Recording:
    """One machine, the files that its server has, and what is dropped."""

    command: Callable[[Path], list[str]]  # QEMU's, made with a folder for its files
    files: Mapping[str, Callable[[], bytes]]
    boot_file: str
    second_boot_file: str = ""  # for a client that asks again as iPXE
    drop: Callable[[], Callable[[Datagram], bool]] = lambda: never
    console: tuple[tuple[str, str], ...] = ()  # what to type when the console shows a text
    quiet_s: float = 8  # the recording ends when no datagram came for so long after the first
    limit_s: float = 90
    time_shift: int = TIME_SHIFT


class Lan:
    """The network of one machine: a datagram on `wire` is a frame."""

    def __init__(self, recording: Recording, wire: socket.socket, server_port: int) -> None:
        self.recording, self.wire, self.server_port = recording, wire, server_port
        self.drop = recording.drop()
        self.selector = DefaultSelector()
        self.selector.register(wire, EVENT_READ)
        self.sockets: dict[int, socket.socket] = {}  # by the machine's port
        self.files: dict[int, str] = {}  # the same
        self.heard = 0.0

    def serve(self, timeout_s: float) -> None:
        for key, _ in self.selector.select(timeout_s):
            if key.fileobj is self.wire:
                self._from_machine(self.wire.recv(65536))
            else:
                self._from_server(key.data, key.fileobj)  # type: ignore[arg-type]

    def close(self) -> None:
        for one in self.sockets.values():
            one.close()
        self.selector.close()

    def _from_machine(self, frame: bytes) -> None:
        kind = int.from_bytes(frame[12:14], "big")
        if kind == ARP and frame[20:22] == b"\0\1" and frame[38:42] == SERVER_IP:
            answer = frame[14:20] + b"\0\2" + SERVER_MAC + SERVER_IP + frame[22:32]
            self.wire.send(frame[6:12] + SERVER_MAC + frame[12:14] + answer)
        if kind != IPV4 or frame[23] != UDP:
            return
        source, port, length = struct.unpack("!HHH", frame[34:40])
        payload = frame[HEADERS : 34 + length]
        if port == DHCP_SERVER:
            self._dhcp(payload)
        elif frame[30:34] == SERVER_IP:
            self._tftp(source, port, payload)

    def _tftp(self, source: int, port: int, payload: bytes) -> None:
        if payload[1] in (RRQ, WRQ):
            file = payload[2:].split(b"\0")[0].decode()
            self.files[source] = file
        if source not in self.sockets:
            self.sockets[source] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.sockets[source].bind(("127.0.0.1", 0))
            self.selector.register(self.sockets[source], EVENT_READ, source)
        self.heard = time.monotonic()
        if not self._dropped(True, source, payload):
            # The server's ports are kept, but for port 69, which needs privileges.
            self.sockets[source].sendto(payload, ("127.0.0.1", self.server_port if port == TFTP_PORT else port))

    def _from_server(self, port: int, endpoint: socket.socket) -> None:
        try:
            payload, (_, source) = endpoint.recvfrom(65536)
        except ConnectionRefusedError:  # the machine says something about a transfer that is over
            return
        if not self._dropped(False, port, payload):
            source = TFTP_PORT if source == self.server_port and payload[1] == ERROR else source
            self.heard = time.monotonic()
            self.wire.send(self._frame(MACHINE_MAC, MACHINE_IP, source, port, payload))

    def _dropped(self, sent: bool, port: int, payload: bytes) -> bool:
        return self.drop(Datagram(sent, payload, self.files.get(port, "")))

    def _dhcp(self, asked: bytes) -> None:
        options = dict(_dhcp_options(asked[240:]))
        kind = {1: 2, 3: 5}.get(options.get(53, b"\0")[0])  # DISCOVER: OFFER; REQUEST: ACK
        if kind is None:
            return
        again = self.recording.second_boot_file and options.get(77) == b"iPXE"
        boot_file = (self.recording.second_boot_file if again else self.recording.boot_file).encode()
        answers = {
            53: bytes([kind]),
            54: SERVER_IP,
            51: (86400).to_bytes(4, "big"),
            1: bytes([255, 255, 255, 0]),
            66: SERVER_NAME.encode(),
            67: boot_file + b"\0",
        }
        if options.get(60, b"").startswith(b"PXEClient"):
            # PXE 2.1, table 2-1: discovery control 8 is "boot the file at once, ask no other server".
            answers |= {60: b"PXEClient", 43: b"\x06\x01\x08\xff", 97: options.get(97, b"")}
        body = b"\2\1\6\0" + asked[4:8] + b"\0" * 8 + MACHINE_IP + SERVER_IP + b"\0" * 4 + asked[28:44]
        body += b"\0" * 64 + boot_file.ljust(128, b"\0") + asked[236:240]
        body += b"".join(bytes([code, len(text)]) + text for code, text in answers.items()) + b"\xff"
        self.wire.send(self._frame(b"\xff" * 6, b"\xff" * 4, DHCP_SERVER, DHCP_CLIENT, body.ljust(300, b"\0")))

    def _frame(self, mac: bytes, address: bytes, source: int, port: int, payload: bytes) -> bytes:
        """An Ethernet frame; UDP's checksum 0 means that there is none."""
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), 0, 0, 64, UDP, 0, SERVER_IP, address)
        total = int(sum(struct.unpack("!10H", ip)))
        total = (total & 0xFFFF) + (total >> 16)
        checksum = ~(total + (total >> 16)) & 0xFFFF
        ip = ip[:10] + struct.pack("!H", checksum) + ip[12:]
        udp = struct.pack("!HHHH", source, port, 8 + len(payload), 0)
        return mac + SERVER_MAC + IPV4.to_bytes(2, "big") + ip + udp + payload


def _dhcp_options(text: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(text) and text[at] != 255:
        if text[at] == 0:
            at += 1
            continue
        yield text[at], text[at + 2 : at + 2 + text[at + 1]]
        at += 2 + text[at + 1]


def record(recording: Recording, target: Path, console: Path | None = None) -> None:
    """Boot the machine once and write what it sent and received. The console's text goes to the file of that name."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="record-boots-")))
        root = folder / "root"
        root.mkdir()
        for name, make in recording.files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(make())
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        stack.enter_context(ours)
        screen, serial = socket.socketpair()
        stack.enter_context(screen)
        server = stack.enter_context(tftpbench.Server("epoll", root))
        command = recording.command(folder)
        command += [
            "-icount",
            f"shift={recording.time_shift}",
            "-object",
            f"filter-dump,id=dump,netdev=net,file={folder / 'dump'}",
        ]
        command += ["-nodefaults", "-display", "none", "-no-reboot", "-uuid", MACHINE_UUID]
        command += ["-netdev", f"dgram,id=net,local.type=fd,local.str={theirs.fileno()}"]
        command += ["-chardev", f"socket,id=console,fd={serial.fileno()}", "-serial", "chardev:console"]
        qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(), serial.fileno()))
        stack.callback(qemu.wait)
        stack.callback(qemu.kill)
        theirs.close()
        serial.close()
        lan = Lan(recording, ours, server.port)
        stack.callback(lan.close)
        _watch(recording, lan, qemu, screen, console)
        target.write_bytes(_thinned((folder / "dump").read_bytes()))


def _watch(
    recording: Recording, lan: Lan, qemu: subprocess.Popen[bytes], screen: socket.socket, out: Path | None
) -> None:
    """Until the machine is off, nothing was said for a while, or the time is over."""
    start = time.monotonic()
    screen.setblocking(False)
    shown, waiting = b"", list(recording.console)
    while time.monotonic() < start + recording.limit_s and qemu.poll() is None:
        lan.serve(0.05)
        with suppress(BlockingIOError, ConnectionResetError):
            shown += screen.recv(65536)
        if waiting and waiting[0][0].encode() in shown:
            screen.send(waiting.pop(0)[1].encode())
        if time.monotonic() - (lan.heard or start) > (recording.quiet_s if lan.heard else START_S):
            break
    if out is not None:
        out.write_bytes(shown)


def _thinned(dump: bytes) -> bytes:
    """A capture of TFTP alone, without the data of DATA and the middle of each file."""
    tftp = [(header, frame) for header, frame in frames(dump) if _is_tftp(frame)]
    blocks: dict[bytes, int] = {}  # of each pair of ports: the last block
    for _, frame in tftp:
        if frame[43] in (DATA, ACK):
            blocks[_ports(frame)] = max(blocks.get(_ports(frame), 0), int.from_bytes(frame[44:46], "big"))
    parts = [dump[:PCAP_HEADER_BYTES]]
    for header, frame in tftp:
        kept = frame
        if frame[43] in (DATA, ACK):
            if FIRST_KEPT < int.from_bytes(frame[44:46], "big") <= blocks[_ports(frame)] - LAST_KEPT:
                continue
            kept = frame[: HEADERS + DATA_KEPT]
        parts.append(header[:8] + struct.pack("=II", len(kept), len(frame)) + kept)
    return b"".join(parts)


def frames(dump: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The header of each packet, and the packet (pcap-savefile(5))."""
    at = PCAP_HEADER_BYTES
    while at < len(dump):
        end = at + 16 + int.from_bytes(dump[at + 8 : at + 12], sys.byteorder)
        yield dump[at : at + 16], dump[at + 16 : end]
        at = end


def _is_tftp(frame: bytes) -> bool:
    """UDP in IPv4 that is no DHCP."""
    ports = {int.from_bytes(frame[34:36], "big"), int.from_bytes(frame[36:38], "big")}
    return frame[12:15] == b"\x08\x00\x45" and frame[23] == UDP and ports != {DHCP_SERVER, DHCP_CLIENT}


def _ports(frame: bytes) -> bytes:
    source, target = frame[34:36], frame[36:38]
    return min(source + target, target + source)


def _package_file(path: str) -> Path:
    """A file of a Debian package: below $FIRMWARE, where `dpkg -x` put newer ones, else where it's installed."""
    newer = Path(os.environ.get("FIRMWARE", "/nowhere"), path)
    return newer if newer.exists() else Path("/", path)


def _of(path: str) -> Callable[[], bytes]:
    return lambda: _package_file(path).read_bytes()


def _noise(size_bytes: int) -> Callable[[], bytes]:
    return lambda: random.Random(size_bytes).randbytes(size_bytes)


def _text(*lines: str) -> Callable[[], bytes]:
    return lambda: "".join(f"{line}\n" for line in lines).encode()


def _uefi(folder: Path) -> list[str]:
    code, variables = _package_file("usr/share/OVMF/OVMF_CODE_4M.fd"), folder / "variables.fd"
    shutil.copy(_package_file("usr/share/OVMF/OVMF_VARS_4M.fd"), variables)
    return [
        *("qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-m", "512M"),
        *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={code}"),
        *("-drive", f"if=pflash,format=raw,unit=1,file={variables}"),
        *("-device", "virtio-rng-pci"),  # without random numbers OVMF does not start its network
        *("-device", f"virtio-net-pci,netdev=net,mac={MAC},bootindex=1,romfile="),
    ]


def _bios(_: Path) -> list[str]:
    rom = _package_file("usr/lib/ipxe/qemu/pxe-e1000.rom")
    return [
        *("qemu-system-x86_64", "-accel", "tcg", "-machine", "pc,graphics=off", "-m", "256M"),
        *("-boot", "order=n", "-device", f"e1000,netdev=net,mac={MAC},romfile={rom}"),
    ]


def _uboot(_: Path) -> list[str]:
    return [
        *("qemu-system-aarch64", "-accel", "tcg", "-machine", "virt", "-cpu", "cortex-a57", "-m", "512M"),
        *("-bios", str(_package_file("usr/lib/u-boot/qemu_arm64/u-boot.bin"))),
        *("-device", f"virtio-net-pci,netdev=net,mac={MAC},romfile="),
    ]


def _grub(script: str, *modules: str) -> Callable[[], bytes]:
    """GRUB in one file, with all it needs inside, as a distribution signs it; the script is what it starts with."""

    def make() -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            start, out = Path(folder, "grub.cfg"), Path(folder, "grub.efi")
            start.write_text(f"{script}\n")
            options = ["-O", "x86_64-efi", "-d", str(_package_file("usr/lib/grub/x86_64-efi"))]
            subprocess.run(["grub-mkimage", *options, "-c", start, "-p", "/grub", "-o", out, *modules], check=True)
            return out.read_bytes()

    return make


# As upstream: GRUB looks below its prefix only, not beside its image as Debian's does first.
GRUB_START = "set prefix=(tftp)/grub\nunset fw_path\nnormal"
MEMTEST = _of("boot/memtest86+x64.bin")  # as good as Linux to a loader, and small
MEMTEST_EFI = _of("boot/memtest86+x64.efi")
LINUX = _of("boot/vmlinuz")  # a Linux that starts as an EFI program (package linux-image-cloud-amd64)
UEFI = Recording(_uefi, {"snponly.efi": _grub("halt", "halt", "normal")}, "snponly.efi", limit_s=240)
GRUB = Recording(
    _uefi,
    {
        "shimx64.efi": _of("usr/lib/shim/shimx64.efi.signed"),
        "grubx64.efi": _grub(GRUB_START, "normal", "efinet", "tftp", "net", "linux", "halt", "configfile"),
        "grub/grub.cfg": _text("linux /vmlinuz", "initrd /initrd.img", "halt"),
        "vmlinuz": LINUX,
        "initrd.img": _noise(200_000),
    },
    "shimx64.efi",
    limit_s=240,
)
IPXE = Recording(
    _uefi,
    {
        "snponly.efi": _of("usr/lib/ipxe/snponly.efi"),
        "boot.ipxe": _text("#!ipxe", "kernel vmlinuz", "initrd initrd.img", "boot"),
        "vmlinuz": MEMTEST_EFI,
        "initrd.img": _noise(200_000),
    },
    "snponly.efi",
    second_boot_file=f"tftp://{SERVER_NAME}/boot.ipxe",
    limit_s=240,
)
PXELINUX = Recording(
    _bios,
    {
        "pxelinux.0": _of("usr/lib/PXELINUX/pxelinux.0"),
        "ldlinux.c32": _of("usr/lib/syslinux/modules/bios/ldlinux.c32"),
        "pxelinux.cfg/default": _text("DEFAULT linux", "LABEL linux", "KERNEL vmlinuz", "INITRD initrd.img"),
        "vmlinuz": MEMTEST,
        "initrd.img": _noise(200_000),
    },
    "pxelinux.0",
    limit_s=400,
    time_shift=7,  # it waits in real mode, of which QEMU does few instructions a second
)
DTB = "dtbs/rockchip/rk3399-rockpro64.dtb"
# Boards have the address of the device tree; this one is for QEMU's own, which is in memory already.
UBOOT_TYPED = "setenv fdt_addr_r 0x49000000; setenv autoload no; dhcp; pxe get; pxe boot\n"
UBOOT = Recording(
    _uboot,
    {
        "boot.img": _noise(20_000),
        "pxelinux.cfg/default": _text("DEFAULT l", "LABEL l", "KERNEL Image", "INITRD initrd-arm64.img", f"FDT {DTB}"),
        "Image": _noise(400_000),
        "initrd-arm64.img": _noise(200_000),
        DTB: _noise(20_000),
    },
    "boot.img",
    console=(("autoboot", " "), ("=> ", UBOOT_TYPED)),
    limit_s=240,
)
UBOOT_WINDOW = replace(UBOOT, console=(("autoboot", " "), ("=> ", f"setenv tftpwindowsize 4; {UBOOT_TYPED}")))


def _with(recording: Recording, drop: Callable[[], Callable[[Datagram], bool]], quiet_s: float) -> Recording:
    return replace(recording, drop=drop, quiet_s=quiet_s)


RECORDINGS: dict[str, Recording] = {
    "uefi": UEFI,
    "uefi-silent": _with(UEFI, lambda: silent("snponly.efi"), 20),
    "uefi-stall": _with(UEFI, lambda: silent("snponly.efi", 12), 30),
    "uefi-lost": _with(UEFI, lambda: lost("snponly.efi", 10), 20),
    "uefi-grub": GRUB,
    "uefi-grub-silent": _with(GRUB, lambda: silent("/grub/grub.cfg"), 40),
    "uefi-grub-stall": _with(GRUB, lambda: silent("/vmlinuz", 12), 60),
    "uefi-ipxe": IPXE,
    "uefi-ipxe-silent": _with(IPXE, lambda: silent("vmlinuz"), 40),
    "uefi-ipxe-stall": _with(IPXE, lambda: silent("vmlinuz", 12), 40),
    "bios-pxelinux": PXELINUX,
    "bios-pxelinux-silent": _with(PXELINUX, lambda: silent("vmlinuz"), 90),
    "bios-pxelinux-stall": _with(PXELINUX, lambda: silent("vmlinuz", 12), 90),
    "uboot": UBOOT,
    "uboot-silent": _with(UBOOT, lambda: silent("Image"), 30),
    "uboot-stall": _with(UBOOT, lambda: silent("Image", 12), 30),
    "uboot-window": UBOOT_WINDOW,
    "uboot-window-stall": _with(UBOOT_WINDOW, lambda: silent("Image", 12), 30),
    "uboot-window-lost": _with(UBOOT_WINDOW, lambda: lost("Image", 10), 30),
}


def _readme() -> bytes:
    """The versions of what was recorded; FIRMWARE's are in its file VERSIONS: `dpkg-deb -W` of each package."""
    newer = Path(os.environ.get("FIRMWARE", "/nowhere"), "VERSIONS")
    unpacked = newer.read_text() if newer.exists() else ""
    names = [name for name in PACKAGES if f"{name} " not in unpacked]
    command = ["dpkg-query", "-W", "-f", "${Package} ${Version}\\n", *names]
    installed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = sorted((installed + unpacked).splitlines())
    return f"{README}\n{chr(10).join(lines)}\n".encode()


def pack(folder: Path, archive: Path) -> None:
    """The recordings of a folder as one archive, with a README."""
    files = {"README": _readme()} | {f"{name}.pcap": (folder / f"{name}.pcap").read_bytes() for name in RECORDINGS}
    with tarfile.open(archive, "w:xz", preset=9) as members:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            members.addfile(member, io.BytesIO(content))


def main() -> None:
    """See above."""
    folder, *names = sys.argv[1:]
    if names == ["--pack"]:
        pack(Path(folder), Path(__file__).parents[1] / "fixtures/boots.tar.xz")
        return
    for name in names or RECORDINGS:
        record(RECORDINGS[name], Path(folder, f"{name}.pcap"), Path(folder, f"{name}.console"))


if __name__ == "__main__":
    main()
