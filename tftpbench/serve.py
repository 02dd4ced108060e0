"""A bundled server as a process of its own: ``python -m tftpbench.serve NAME --root DIR ...``.

It parses, calls the native core, and prints ``READY host port pid`` once the server can answer. It imports the standard
library and `tftpbench._core` only, because every trial pays for its start. The first SIGTERM or Ctrl-C lets transfers
in flight finish within the grace period; the second ends them at once.
"""

import argparse
import math
import os
import re
import resource
import signal
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import partial
from typing import Any, NoReturn, cast

# Without --max-transfers: a thread costs more than a place in a table.
MAX_TRANSFERS = {"epoll": 16384, "threads": 4096}
# Where not even so many fit, a few machines that boot at once fill the server, and only an explicit bound starts it.
USEFUL_TRANSFERS = 16
_OTHER_THREADS = 8  # of this process and a shell around it
# As other commands write times and sizes. A number alone is in the option's own unit: scripts have it so.
_UNITS = {
    "TIME": {"us": 1, "ms": 1_000, "s": 1_000_000, "min": 60_000_000},
    "SIZE": {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30},
}
_EXAMPLE_OF = {"TIME": "500ms", "SIZE": "64KiB"}


class Refused(Exception):
    """What was asked for can't be done; the message is what to print after "error: ".

    `otherwise`: its end, unless the `word` that is wrong is like one of those that are `known`.
    """

    def __init__(self, text: str, word: str = "", known: Iterable[str] = (), otherwise: str = "") -> None:
        super().__init__(f"{text}{otherwise}")
        self.text, self.word, self.known, self.otherwise = text, word, tuple(known), otherwise


@dataclass(frozen=True)
class Option:
    """How a field of ServeConfig is asked for on the command line: docs, help and checks iterate over these."""

    help: str
    metavar: str = "N"
    unit: str = ""
    least: float = 0
    most: float = math.inf
    choices: tuple[str, ...] = ()
    only_epoll: bool = False

    def parse(self, text: str, kind: Callable[[Any], Any]) -> Any:
        """The value that was typed; raises argparse.ArgumentTypeError where it is not allowed."""
        if self.choices and text not in self.choices:
            raise argparse.ArgumentTypeError(f"is {text!r}; allowed: {', '.join(self.choices)}")
        if kind is str:
            return text
        match = re.fullmatch(r"(.*?)\s*([A-Za-z]+)", text)
        scale = _UNITS.get(self.metavar, {}).get(match[2]) if match else None
        try:
            value = kind(float(match[1]) * scale / self._scale if match and scale else text)
        except (ValueError, OverflowError):
            value = math.nan
        if not self.least <= value <= self.most:
            example = _EXAMPLE_OF.get(self.metavar)
            allowed = f"{self.range}, as in {example}" if example else f"a whole number, {self.range}"
            raise argparse.ArgumentTypeError(f"is {text!r}; allowed: {allowed}")
        return value

    @property
    def _scale(self) -> int:
        return _UNITS[self.metavar][self.unit]

    def shown(self, value: Any) -> str:
        """A value as it would be typed: 131072 bytes as "128KiB"."""
        if self.unit and value:
            count = round(value * self._scale)
            name, size = next(each for each in reversed(_UNITS[self.metavar].items()) if count % each[1] == 0)
            return f"{count // size}{name}"
        return str(value or 0)

    @property
    def range(self) -> str:
        """The numbers that are allowed, as the help of other commands writes them."""
        least = self.shown(self.least)
        return f"{least} or more" if self.most == math.inf else f"{least} to {self.shown(self.most)}"


def _option(default: Any, words: str, **more: Any) -> Any:
    return field(default=default, metadata={"option": Option(words, **more)})


@dataclass(frozen=True)
class ServeConfig:
    """What a bundled server is asked to do: one record for each option, with its default. Units last in a name.

    `max_transfers` 0 stands for MAX_TRANSFERS, or as many of them as the limits of this process allow. How many is then
    said on standard error; fewer than USEFUL_TRANSFERS are an OSError. `sockets`, `batch` and `workers` are for epoll;
    threads raises OSError where they are not as here.
    """

    root: str = field(
        metadata={"option": Option("Folder to serve; nothing outside it is ever reachable.", metavar="DIR")}
    )
    host: str = _option(
        "127.0.0.1", "Address to bind; 0.0.0.0 or :: for all, fe80::1%eth0 for a link.", metavar="ADDRESS"
    )
    port: int = _option(0, "Port to bind; 0 picks a free one.", metavar="PORT", most=65535)
    write: bool = _option(False, "Allow uploads.")
    overwrite: bool = _option(False, "Allow uploads to replace existing files.")
    store: str = _option(
        "disk",
        "disk, or memory: files are read once, and uploads are never written.",
        metavar="disk|memory",
        choices=("disk", "memory"),
    )
    memory_max_bytes: int = _option(
        4 << 30,  # uploads must not take the machine down
        "Memory that the memory store may take, the cost of each file included.",
        metavar="SIZE",
        unit="B",
    )
    max_transfers: int = _option(
        0,
        f"Transfers at once; one more is refused with an ERROR. 0: {MAX_TRANSFERS['epoll']} (epoll) or "
        f"{MAX_TRANSFERS['threads']} (threads), or as many as open files and threads allow.",
    )
    blksize_max: int = _option(65464, "Largest blksize granted.", least=8, most=65464)  # RFC 2348
    # The next two bound what two datagrams with a forged sender can draw. A client that asks for more is granted less.
    windowsize_max: int = _option(64, "Largest windowsize granted; see --window-max.", least=1, most=65535)
    window_max_bytes: int = _option(
        128 << 10,
        "Largest window granted: windowsize times blksize. One block is always granted.",
        metavar="SIZE",
        unit="B",
        least=8,
        most=2**32 - 1,
    )
    timeout_s: float = _option(  # the first wait for an ACK; adaptive below it once a client has answered
        1.0,
        "Time until the first retransmission, unless the client asks for a timeout.",
        metavar="TIME",
        unit="s",
        least=0.001,
    )
    retries: int = _option(5, "Timeouts without progress before a transfer is given up.")
    grace_s: float = _option(
        3.0, "Time that transfers in flight have to finish after SIGTERM or Ctrl-C.", metavar="TIME", unit="s"
    )
    busy_poll_us: int = _option(0, "Time to poll before sleeping.", metavar="TIME", unit="us")
    # By default a socket holds some 160 datagrams; a burst of requests is longer. socket(7): up to net.core.rmem_max.
    receive_buffer_bytes: int = _option(
        4 << 20, "Receive buffer of a socket; 0 leaves the kernel's.", metavar="SIZE", unit="B"
    )
    send_buffer_bytes: int = _option(0, "Send buffer of a socket; 0 leaves the kernel's.", metavar="SIZE", unit="B")
    log_packets: bool = _option(False, "Print every datagram, decoded, with a hex dump.")
    sockets: str = _option(
        "shared",
        "shared, a few for all transfers, or per-transfer, one for each.",
        metavar="shared|per-transfer",
        choices=("shared", "per-transfer"),
        only_epoll=True,
    )
    batch: int = _option(  # the call itself costs nothing beside so many
        64, "Messages to a system call; 1: a call for each datagram.", least=1, most=64, only_epoll=True
    )
    workers: int = _option(
        1,
        "Threads, each with a loop and sockets of its own, on a CPU of its own where there are enough.",
        least=1,
        most=256,
        only_epoll=True,
    )


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
    """MAX_TRANSFERS, or as many as the limits of this process allow, which is then said on standard error.

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


def command(arguments: Sequence[str], program: str, port: int = 0, typed: str = "") -> dict[str, int]:
    """Serve as the words of a command line ask, until stopped; returns the counters. Raises Refused.

    `program` is what its help calls it, `typed` how it can be typed here, `port` the default of --port. --help is
    printed and raises SystemExit.
    """
    parser = _parser(program, port)
    parser.typed = typed or program
    parsed = vars(parser.parse_args(arguments))
    name, handover = parsed.pop("name"), parsed.pop("handover")
    try:
        return serve(name, ServeConfig(**parsed), announce, handover)
    except (OSError, ValueError) as error:
        raise Refused(f"{name}: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    try:
        command(sys.argv[1:] if arguments is None else arguments, "python -m tftpbench.serve")
    except Refused as error:
        sys.stderr.write(f"tftpbench: error: {error}\n")
        return 2
    return 0


def option_name(name: str) -> str:
    """The option of a field; units stay in the help text, as in the command line of every other program."""
    for unit in ("_s", "_us", "_bytes"):
        name = name.removesuffix(unit)
    return f"--{name.replace('_', '-')}"


class _Parser(argparse.ArgumentParser):
    color = False
    typed = ""

    def format_help(self) -> str:
        """As the help of the other commands begins."""
        return super().format_help().replace("usage: ", "Usage: ", 1)

    def error(self, message: str) -> NoReturn:
        """What is wrong and what to do, in words of ours in place of argparse's."""
        name, help_ = self.prog.removeprefix("tftpbench "), f"see: {self.typed} --help"
        if (found := re.match(r"unrecognized arguments: (\S+)", message)) is not None:
            options = [option for action in self._actions for option in action.option_strings]
            raise Refused(f"{name} has no option {found[1]}", found[1], options, f"; {help_}")
        for theirs, ours in (
            (r"argument (\S+): (is .*)", r"\1 \2"),
            (r"argument (\S+): expected one argument", r"\1 needs a value"),
            (r"the following arguments are required: (.*)", rf"{name} needs \1; {help_}"),
        ):
            message = re.sub(f"^{theirs}$", ours, message, flags=re.DOTALL)
        raise Refused(message.removeprefix(f"argument {_NAMES}: "))


def _parser(program: str, port: int) -> _Parser:
    parser = _Parser(
        prog=program,
        usage=f"%(prog)s [OPTIONS] {_NAMES} --root DIR",
        description="  Serve a folder with a bundled TFTP server until Ctrl-C or SIGTERM.\n\n"
        "  Prints READY HOST PORT PID once it answers.",
        epilog=_EXAMPLES.format(program=program),
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=32),
        add_help=False,
        allow_abbrev=False,
    )
    parser.color = False  # Python 3.14 would paint the help, and `tftpbench.render.terminal` escapes what others paint
    parser.add_argument_group("Arguments").add_argument("name", metavar=_NAMES, type=_name, help="Server to run.")
    groups = parser.add_argument_group("Options"), parser.add_argument_group("Options of epoll only")
    for each in fields(ServeConfig):
        _add(groups[each.metadata["option"].only_epoll], each, port if each.name == "port" else each.default)
    groups[0].add_argument("-h", "--help", action="help", help="Show this message and exit.")
    # Not for people: the number has a meaning only for a program that has passed the descriptor on.
    groups[0].add_argument("--handover", type=int, help=argparse.SUPPRESS)
    return parser


def _name(text: str) -> str:
    if text not in MAX_TRANSFERS:
        allowed = f"; allowed: {', '.join(MAX_TRANSFERS)}"
        raise Refused(f"no bundled server is called {text!r}", text, MAX_TRANSFERS, allowed)
    return text


def _add(group: Any, of: "Field[Any]", default: Any) -> None:
    option: Option = of.metadata["option"]
    words, name = option.help.replace("%", "%%"), option_name(of.name)
    if of.type is bool:
        group.add_argument(name, dest=of.name, action="store_true", help=words)
        return
    is_needed = default is MISSING
    facts = ["required"] if is_needed else [f"default: {option.shown(default)}"]
    facts += [option.range] if of.type in {int, float} else []
    group.add_argument(
        name,
        dest=of.name,
        metavar=option.metavar,
        required=is_needed,
        default=None if is_needed else default,
        type=lambda text: option.parse(text, cast("Callable[[Any], Any]", of.type)),
        help=f"{words} [{'; '.join(facts)}]",
    )


_NAMES = "|".join(MAX_TRANSFERS)
_EXAMPLES = """\
Examples:
  {program} epoll --root /srv/tftp
  {program} threads --root /srv/tftp --host 0.0.0.0 --port 6969 --write
"""


if __name__ == "__main__":
    sys.exit(main())
