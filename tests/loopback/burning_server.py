"""A server that uses what it is asked to use, after one of three models: what the tests of the harness's eyes start.

usage: burning_server.py MODEL HOST PORT, where MODEL is one of

    forks      a process per request, whose end it ignores (SIGCHLD), so that wait4 and cutime lose it
    threads    a thread per request
    loop       one process, one thread

A request is an RRQ for "burn", answered after 50 ms of CPU time; or for "hold", answered at once, whose process or
thread then waits for ever. The answer is an ERROR whose text is the CPU time in ns that it took.
"""

import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

BURN_NS = 50_000_000
SHARED = bytearray(b"x" * (16 << 20))  # touched before anything is forked: memory that all its processes share
RECEIVE_BUFFER_BYTES = 4096  # some ten datagrams: it overflows soon

Request = tuple[socket.socket, bytes, tuple[str, int]]


def main(model: str, host: str, port: int) -> None:
    """Serve until killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    threading.stack_size(128 * 1024)
    serve = {"forks": in_a_process, "threads": in_a_thread, "loop": at_once}[model]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        listening.bind((host, port))
        sys.stdout.write(f"READY {host} {listening.getsockname()[1]} {os.getpid()}\n")
        sys.stdout.flush()
        while True:
            serve((listening, *listening.recvfrom(65536)))


def at_once(request: Request) -> None:
    """Before the next one."""
    answer(request, time.thread_time_ns(), lambda: None)


def in_a_process(request: Request) -> None:
    """A child that is never waited for."""
    if os.fork() == 0:
        answer(request, 0, signal.pause)
        os._exit(0)


def in_a_thread(request: Request) -> None:
    """A thread that is never joined."""
    threading.Thread(target=answer, args=(request, 0, threading.Event().wait), daemon=True).start()


def answer(request: Request, began_ns: int, wait: Callable[[], object]) -> None:
    """Burn or hold, and say what it took by the clock of this thread, which stood at `began_ns` in the beginning."""
    listening, datagram, peer = request
    hold = datagram[2:].startswith(b"hold\0")
    while not hold and time.thread_time_ns() - began_ns < BURN_NS:
        pass
    listening.sendto(struct.pack("!HH", 5, 0) + f"{time.thread_time_ns() - began_ns}\0".encode(), peer)
    if hold:
        wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
