"""A TFTP server of a few lines that can misbehave on request: what the harness's own tests start, and nothing else.

usage: tiny_server.py MODE HOST PORT ROOT. RRQ in lock-step, octet, no options; MODE says what is wrong with it.
"""

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path


def main(mode: str, host: str, port: int, root: Path) -> int:
    """Serve until killed, or do what the mode says."""
    if mode == "exits":
        sys.stderr.write("cannot open the configuration\n")
        return 3
    if mode == "garbage":
        sys.stdout.buffer.write(b"READY\nREADY or not\nREADY a b c\n\xff\xfe\0" * 1000)
    if mode in ("silent", "garbage"):
        sys.stdout.flush()
        signal.pause()
    if mode in ("ignores-sigterm", "daemon-ignores-sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "noisy":
        sys.stdout.write("chatter\n" * 200_000)
    if mode.startswith("daemon"):
        daemonise(twice=mode == "daemon-twice")
    if mode == "forks":
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        burn_cpu_in_a_child(0.3)
        subprocess.Popen(["sleep", "1000"], start_new_session=True)
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    listening.bind((host, port))
    announce(mode, host, listening.getsockname()[1])
    if mode == "headless" and os.fork() > 0 and os.fork() > 0:
        return 0  # and leaves two workers
    if mode == "dies":
        listening.recvfrom(65536)
        say("segmentation fault, core not dumped")
        os.kill(os.getpid(), signal.SIGSEGV)
    serve(listening, root)
    return 0


def daemonise(*, twice: bool) -> None:
    """Go on in a child, or its child, of a session of its own."""
    for _ in range(1 + twice):
        if os.fork() > 0:
            os._exit(0)
        os.setsid()


def announce(mode: str, host: str, port: int) -> None:
    """The READY line, true or not."""
    pid = 1 if mode == "wrong-pid" else os.getpid()
    port = 9 if mode == "wrong-port" else port
    say(f"READY {host} {port} {pid}")


def say(line: str) -> None:
    """On standard output, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def burn_cpu_in_a_child(cpu_s: float) -> None:
    """A child that is never waited for."""
    if (pid := os.fork()) == 0:
        while time.process_time() < cpu_s:
            pass
        os._exit(0)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.005)


def serve(listening: socket.socket, root: Path) -> None:
    """One transfer at a time, an idle loopback loses no datagrams."""
    while True:
        request, peer = listening.recvfrom(65536)
        name = request[2:].split(b"\0")[0].decode()
        path = root / name
        with socket.socket(listening.family, socket.SOCK_DGRAM) as transfer:
            transfer.settimeout(30)  # a client that is gone; on a busy machine one may be late
            if not path.is_file():
                transfer.sendto(struct.pack("!HH", 5, 1) + b"no such file\0", peer)
                continue
            contents = path.read_bytes()
            for block in range(len(contents) // 512 + 1):
                data = struct.pack("!HH", 3, (block + 1) & 0xFFFF) + contents[block * 512 : block * 512 + 512]
                transfer.sendto(data, peer)
                transfer.recvfrom(65536)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))
