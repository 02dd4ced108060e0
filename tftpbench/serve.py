"""A bundled server as a process of its own: ``python -m tftpbench.serve NAME --root DIR ...``.

It parses, calls the native core, and prints ``READY host port pid`` once the server can answer. It imports the standard
library and `tftpbench._core` only, because every trial pays for its start. The first SIGTERM or Ctrl-C lets transfers
in flight finish within the grace period; the second ends them at once.
"""

import argparse
import os
import resource
import signal
import sys
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

TIMEOUT_S = 1.0  # first wait for an ACK; adaptive below it once a peer has answered
RETRIES = 5
GRACE_S = 3.0
MEMORY_MAX_BYTES = 4 << 30  # of the memory store: uploads must not take the machine down
# By default a socket holds some 160 datagrams; a burst of requests is longer. socket(7): up to net.core.rmem_max.
RECEIVE_BUFFER_BYTES = 4 << 20
# Without --max-transfers: a thread costs more than a place in a table.
MAX_TRANSFERS = {"epoll": 16384, "threads": 4096}
# Where not even so many fit, a few machines that boot at once fill the server, and only an explicit bound starts it.
USEFUL_TRANSFERS = 16
_OTHER_THREADS = 8  # of this process and a shell around it
BATCH = 64  # messages to a system call: the call itself costs nothing beside them
# What two datagrams with a forged sender can draw. A client that asks for more is granted less.
WINDOWSIZE_MAX = 64
WINDOW_MAX_BYTES = 128 << 10
SOCKETS = ("shared", "per-transfer")


@dataclass(frozen=True)
class ServeConfig:
    """What a bundled server is asked to do. Buffers of 0 bytes leave the kernel's default.

    `max_transfers` 0 stands for MAX_TRANSFERS, or as many of them as the limits of this process allow. How many is then
    said on standard error; fewer than USEFUL_TRANSFERS are an OSError. `sockets`, `batch` and `workers` are for epoll;
    threads raises OSError where they are not as here.
    """

    root: str
    host: str = "127.0.0.1"
    port: int = 0
    max_transfers: int = 0
    write: bool = False
    overwrite: bool = False
    store: str = "disk"
    memory_max_bytes: int = MEMORY_MAX_BYTES
    blksize_max: int = 65464  # RFC 2348
    windowsize_max: int = WINDOWSIZE_MAX
    window_max_bytes: int = WINDOW_MAX_BYTES
    timeout_s: float = TIMEOUT_S
    retries: int = RETRIES
    busy_poll_us: int = 0
    sockets: str = "shared"
    batch: int = BATCH
    workers: int = 1
    grace_s: float = GRACE_S
    log_packets: bool = False
    receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES
    send_buffer_bytes: int = 0


def serve(
    name: str, config: ServeConfig, ready: Callable[[str, int], None], handover: int | None = None
) -> dict[str, int]:
    """Run the bundled server `name` until SIGTERM, SIGINT or SIGHUP; returns its counters.

    `ready(host, port)` is called once it can answer. `handover` is the descriptor of a UNIX socket to a program that
    maps each upload (`tftpbench.Server`). Raises ValueError for a name or value that can't be, and OSError
    for what the system refuses, as a port that is taken or a root that can't be read. Main thread only.
    """
    from tftpbench import _core

    stop = _core.Stop()
    # The end of its terminal ends it in order, too, unless it was started by nohup(1).
    hang_up = (signal.SIGHUP,) if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN else ()
    ending = (signal.SIGINT, signal.SIGTERM, *hang_up)
    handlers = {number: signal.signal(number, lambda *_: None) for number in ending}
    # The C-level handler writes to the descriptor whatever Python is doing: the native loop wakes up by itself.
    previous = signal.set_wakeup_fd(stop.fileno(), warn_on_full_buffer=False)
    try:
        if config.max_transfers == 0:
            config = replace(config, max_transfers=default_max_transfers(name, config))
        return dict(_core.serve(name, config, stop, ready, handover))
    except TypeError as error:
        # From the native side, when a field of the configuration does not fit: "... field ServeArguments.retries", why.
        raise ValueError(f"{str(error).splitlines()[0].rpartition('.')[2]}: {error.__cause__ or error}") from error
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def default_max_transfers(name: str, config: ServeConfig) -> int:
    """MAX_TRANSFERS, or as many as the limits of this process allow, told on standard error.

    Raises OSError where these are too few to be useful: only a bound that was asked for can be lower.
    """
    from tftpbench import _core

    wanted = MAX_TRANSFERS.get(name, 1)

    def open_files(transfers: int) -> int:
        return _core.open_files(name, replace(config, max_transfers=transfers))

    files, threads = _limit(resource.RLIMIT_NOFILE), _threads_limit() if name == "threads" else sys.maxsize
    # Each transfer takes some, so the numbers that fit are those up to the first that does not.
    by_files = bisect_right(range(1, wanted + 1), files, key=open_files)
    by_threads = max(0, threads - _OTHER_THREADS)
    room = min(wanted, by_files, by_threads)
    if room == wanted:
        return room
    if by_files <= by_threads:
        limit, raising = f"{files} open files", f"ulimit -Hn {open_files(wanted)}"
    else:
        limit, raising = f"{threads} threads", f"ulimit -u {wanted + _OTHER_THREADS}, or pids.max of the cgroup"
    if room < USEFUL_TRANSFERS:
        fewer = f"or ask for so few with --max-transfers {room}" if room else "or ask for fewer --workers"
        raise OSError(
            f"the limit of {limit} leaves room for {room} transfers at once, less than {USEFUL_TRANSFERS}: "
            f"raise it ({raising}) {fewer}"
        )
    sys.stderr.write(
        f"tftpbench: {name}: room for {room} transfers at once, not {wanted}: the limit is {limit} ({raising})\n"
    )
    return room


def _limit(kind: int) -> int:
    """The hard limit, to which the soft one can be raised."""
    _, hard = resource.getrlimit(kind)
    return hard if hard != resource.RLIM_INFINITY else sys.maxsize


def _threads_limit() -> int:
    """How many threads this process may have, as far as that is known: getrlimit(2), cgroups(7)."""
    # Root's are not counted.
    limits = [_limit(resource.RLIMIT_NPROC)] if os.geteuid() else []
    try:
        with open("/proc/self/cgroup") as lines:
            group = next(line[3:].strip() for line in lines if line.startswith("0::"))
        with open(f"/sys/fs/cgroup{group}/pids.max") as file:
            limits.append(int(file.read()))
    except (OSError, StopIteration, ValueError):
        pass  # no such group, or "max"
    return min(limits, default=sys.maxsize)


def announce(host: str, port: int) -> None:
    """Print the READY line that the harness, and people's scripts, wait for."""
    sys.stdout.write(f"READY {host} {port} {os.getpid()}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    parsed = vars(_parser().parse_args(arguments))
    name, handover = parsed.pop("name"), parsed.pop("handover")
    try:
        serve(name, ServeConfig(**parsed), announce, handover)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"tftpbench: error: {name}: {error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tftpbench.serve", description="Run a bundled TFTP server in the foreground.", allow_abbrev=False
    )
    parser.add_argument("name", help="epoll or threads")
    # Not for people: a number means something only to who has passed the descriptor on.
    parser.add_argument("--handover", type=int, help=argparse.SUPPRESS)
    for field in fields(ServeConfig):
        option = f"--{_option(field.name)}"
        if field.name == "root":
            parser.add_argument(option, required=True, help="folder to serve; nothing outside it is ever reachable")
        elif field.type is bool:
            parser.add_argument(option, dest=field.name, action="store_true", help=_HELP[field.name])
        else:
            parser.add_argument(
                option,
                dest=field.name,
                type=field.type,
                default=field.default,
                choices=_CHOICES.get(field.name),
                help=f"{_HELP[field.name]} (default: {field.default})",
            )
    return parser


def _option(name: str) -> str:
    """The option of a field; units stay in the help text, as in the command line of every other program."""
    for unit in ("_s", "_us", "_bytes"):
        name = name.removesuffix(unit)
    return name.replace("_", "-")


_CHOICES = {"store": ("disk", "memory"), "sockets": SOCKETS}
_HELP = {
    "host": "address to bind; 0.0.0.0 or :: for all, fe80::1%%eth0 for a link",
    "port": "port to bind; 0 picks a free one",
    "max_transfers": "transfers at once, 0 for 16384 (epoll) or 4096 (threads) or as many as open files and threads "
    "allow; one more is refused with an ERROR",
    "write": "allow uploads",
    "overwrite": "allow uploads to replace existing files",
    "store": "disk, or memory: files are read once and uploads are never written",
    "memory_max_bytes": "bytes that the memory store may take, what each file costs beside its own included",
    "blksize_max": "largest blksize granted",
    "windowsize_max": "largest windowsize granted, up to 65535; see --window-max",
    "window_max_bytes": "largest window granted, in bytes: windowsize times blksize; one block is always granted",
    "timeout_s": "seconds until the first retransmission, unless the client asks for a timeout",
    "retries": "timeouts without progress before a transfer is given up",
    "busy_poll_us": "microseconds to poll before sleeping",
    "sockets": "epoll only: shared, a few for all transfers, or per-transfer, one each",
    "batch": "epoll only: messages to a system call, 1 to 64; 1: a call for each datagram",
    "workers": "epoll only: threads, each with a loop and sockets of its own, on a CPU each where there are enough",
    "grace_s": "seconds that transfers in flight get to finish after SIGTERM",
    "log_packets": "print every datagram, decoded, with a hex dump",
    "receive_buffer_bytes": "socket receive buffer in bytes; 0 leaves the kernel's",
    "send_buffer_bytes": "socket send buffer in bytes; 0 leaves the kernel's",
}


if __name__ == "__main__":
    sys.exit(main())
