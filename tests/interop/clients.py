"""Other people's TFTP clients: where they come from, what makes each do what, and what each can't do.

A table of facts, each of them seen on the wire. What a client gets wrong is an `Ending` with the reason, and the tests
hold the client to it, so that no reader takes a client's fault for a server's, and a change on either side is noticed.
`python -m tests.interop.clients`, which `make peers` runs, fetches the clients, and actionlint, into peers/. It never
starts a client: `look` only asks for a version. Called by the interop tests.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tftpbench.model.manifest import Fetch
from tftpbench.model.programs import peers_folder


def _from_debian(*packages: str) -> tuple[Fetch, str]:
    return Fetch(debian=packages), f"apt install {' '.join(packages)}"


def _from_go(module: str) -> tuple[Fetch, str]:
    return Fetch(go=module), f"go install {module}"


# What is fetched into which folder of peers/. Erlang's client comes with its server, and tftpy with tftpbench.
FETCH = {
    "actionlint": _from_go("github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"),  # checks GitHub workflows
    "atftp": _from_debian("atftp"),
    "busybox-client": _from_debian("busybox"),  # which has the client, but not the server
    "curl": _from_debian("curl"),
    "qemu": _from_debian("qemu-system-x86", "qemu-system-common", "ipxe-qemu", "seabios"),
    "tftp-hpa-client": _from_debian("tftp-hpa"),
}
VERSION_TIMEOUT_S = 10.0
EXTRA_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin")
SIZE = "SIZE"  # as the value of tsize: 0 in an RRQ, the file's size in a WRQ (RFC 2349)
MODEST = {"blksize": "1000", "windowsize": "2"}  # what a modest server grants at most
ALL = sys.maxsize


@dataclass(frozen=True)
class Program:
    """A program that tests start, and how it is known from its namesakes.

    `version` are the words that make it print text with `pattern` in it, whose group is the version. `start` makes the
    first words of a command from the program's path. `known`: how the versions begin that this table tells the truth
    about; another one may have other faults, or none.
    """

    file: str
    title: str
    peer: str
    version: tuple[str, ...]
    pattern: str
    start: Callable[[Path], list[str]] = lambda path: [str(path)]
    known: str = ""


@dataclass(frozen=True)
class Here:
    """A program that is on this machine, and the first words of its command."""

    path: Path
    command: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class Gone:
    """A program that isn't, and how to get it."""

    reason: str


@dataclass(frozen=True)
class Job:
    """One transfer, as a client is asked for it: `operation` is get or put."""

    operation: str
    host: str
    port: int
    remote: str
    local: Path
    mode: str = "octet"
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ending:
    """A client's exit code, how many of the file's bytes are then at the other side (None: no file), and why."""

    exit: int
    arrived: int | None
    why: str


WHOLE = Ending(0, ALL, "as it should be")


@dataclass(frozen=True)
class Case:
    """Options that a client is made to use, and what must come of it.

    `asked` is what its request holds: unless given, what it always sends and what it is given. `refused` are those that
    the server leaves out of its OACK. With `unsent` the client itself refuses, and sends nothing.
    """

    given: Mapping[str, str]
    asked: Mapping[str, str] | None = None
    refused: tuple[str, ...] = ()
    unsent: bool = False
    get: Ending = WHOLE
    put: Ending = WHOLE
    size: int | None = None  # of the file, where it is not a matter of blocks
    modest: bool = False  # whether the server grants MODEST at most

    def ending(self, operation: str) -> Ending:
        """How it must end."""
        return self.get if operation == "get" else self.put


PLAIN = Case({})


@dataclass(frozen=True)
class Client:
    """A client: the words behind its program, and what it does.

    `sends` are options that it always sends. `netascii`: whether it translates, None without that mode. `absent` is
    the end of a get where there is no file, `taken` the exit code of a put where there is one, and `quotes` whether it
    prints the server's reason. `get_empty`: how it gets an empty file.
    """

    words: Callable[[Job], list[str]]
    cases: tuple[Case, ...]
    sends: Mapping[str, str] = field(default_factory=dict)
    netascii: bool | None = None
    absent: Ending = Ending(1, None, "")
    taken: int = 1
    quotes: bool = True
    get_empty: Case = PLAIN


def program(name: str) -> Path | None:
    """Path of a program by its name in PROGRAMS: fetched, else in PATH, else where administrators' programs are."""
    wanted = PROGRAMS[name]
    places = [str(peers_folder() / wanted.peer / "bin"), os.environ.get("PATH", ""), *EXTRA_PATH]
    found = shutil.which(wanted.file, path=os.pathsep.join(places))
    return Path(found) if found else None


@functools.cache
def look(name: str) -> Here | Gone:
    """The program called `name`, if it is here and is what it should be."""
    wanted = PROGRAMS[name]
    path = program(name)
    if path is None:
        return Gone(f"{wanted.title} is not here; get it: make peers")
    command = wanted.start(path)
    try:
        done = subprocess.run(
            [*command, *wanted.version],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=VERSION_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return Gone(f"{path} can't be run: {error}")
    text = done.stdout.decode("utf-8", "replace")
    version = re.search(wanted.pattern, text)
    if version is None:
        return Gone(f"{path} is not {wanted.title}: it says {text.strip()[:100]!r}; get it: make peers")
    if not version[1].startswith(wanted.known):
        return Gone(f"{path} is {wanted.title} {version[1]}, and what it does is known of {wanted.known} only")
    return Here(path, tuple(command), version[1])


def main() -> int:
    """Fetch what is not here yet; a line each, and one for all. What fails, tests skip and name: it is no error."""
    from tftpbench.host.fetch import Wanted, fetch_all

    wanted = [Wanted(peer, peers_folder() / peer, source, get) for peer, (source, get) in FETCH.items()]
    failed = fetch_all("clients and tools", wanted, functools.partial(print, file=sys.stderr))
    return 2 if failed == len(wanted) else 0


def _start_erlang(path: Path) -> list[str]:
    """Its erl has the folder that it was built for written into it; for one unpacked elsewhere we do what erl does."""
    unpacked = path.parents[1]
    emulators = sorted(unpacked.glob("usr/lib/erlang/erts-*/bin/erlexec"))
    if not emulators:
        return [str(path)]
    settings = {
        "ROOTDIR": str(unpacked / "usr/lib/erlang"),
        "BINDIR": str(emulators[-1].parent),
        "EMU": "beam",
        "PROGNAME": "erl",
        "LD_LIBRARY_PATH": ":".join(map(str, [*unpacked.glob("usr/lib/*-linux-*"), *unpacked.glob("lib/*-linux-*")])),
    }
    return ["env", *(f"{name}={value}" for name, value in settings.items()), str(emulators[-1])]


_ERLANG = ("+S", "1", "-noinput", "-boot", "no_dot_erlang", "-eval")  # one scheduler: a small machine has work to do
_ERLANG_VERSION = """
case application:load(tftp) of
    ok -> {ok, Version} = application:get_key(tftp, vsn), io:format("tftp-~s~n", [Version]), halt(0);
    _ -> halt(1)
end."""
_TFTPY_VERSION = "import importlib.metadata as m; print('tftpy', m.version('tftpy'))"

PROGRAMS: dict[str, Program] = {
    "tftp-hpa": Program(
        "tftp", "tftp (tftp-hpa's client)", "tftp-hpa-client", ("-V",), r"tftp-hpa ([\w.]+)", known="5.2"
    ),
    "atftp": Program("atftp", "atftp", "atftp", ("--version",), r"atftp-([\w.]+)", known="0.8."),
    "curl": Program("curl", "curl with TFTP", "curl", ("--version",), r"^curl (\S+)(?s:.*)\btftp\b", known="7.88."),
    "busybox": Program(
        "busybox",
        "busybox with tftp",
        "busybox-client",
        ("tftp", "--help"),
        r"BusyBox v(\S+)(?s:.*)-b SIZE",
        known="1.35.",
    ),
    "erlang": Program(
        "erl",
        "Erlang with its tftp",
        "erlang-tftp",
        (*_ERLANG, _ERLANG_VERSION),
        r"tftp-(\S+)",
        _start_erlang,
        known="1.0.",
    ),
    "actionlint": Program("actionlint", "actionlint", "actionlint", ("--version",), r"(\d\S+)"),
    "tftpy": Program(sys.executable, "tftpy", "tftpy", ("-c", _TFTPY_VERSION), r"tftpy (\S+)", known="0.8."),
    "qemu-system-x86_64": Program("qemu-system-x86_64", "qemu-system-x86_64", "qemu", ("--version",), r"version (\S+)"),
}


def _hpa(job: Job) -> list[str]:
    mode = {"octet": "binary", "netascii": "ascii"}[job.mode]
    files = [job.remote, str(job.local)] if job.operation == "get" else [str(job.local), job.remote]
    return ["-m", mode, job.host, str(job.port), "-c", job.operation, *files]


def _atftp(job: Job) -> list[str]:
    options = {**job.options, **({"mode": job.mode} if job.mode != "octet" else {})}
    words = [word for name, value in options.items() for word in ("--option", f"{name} {value}".strip())]
    return [*words, f"--{job.operation}", "-r", job.remote, "-l", str(job.local), job.host, str(job.port)]


def _curl(job: Job) -> list[str]:
    flags = {"blksize": "--tftp-blksize", "timeout": "--connect-timeout"}
    words = [word for name in job.options if name in flags for word in (flags[name], job.options[name])]
    words += ["--tftp-no-options"] if "none" in job.options else []
    url = f"tftp://{job.host}:{job.port}/{job.remote};mode={job.mode}"
    return ["-q", "-sS", "--noproxy", "*", *words, "-o" if job.operation == "get" else "-T", str(job.local), url]


def _busybox(job: Job) -> list[str]:
    words = ["-b", job.options["blksize"]] if "blksize" in job.options else []
    direction = "-g" if job.operation == "get" else "-p"
    return ["tftp", *words, direction, "-r", job.remote, "-l", str(job.local), job.host, str(job.port)]


_ERLANG_TRANSFER = """
[Operation, Host, Port, Remote, Local | Words] = init:get_plain_arguments(),
Pairs = fun Pairs([Name, Value | Rest]) -> [{Name, Value} | Pairs(Rest)]; Pairs([]) -> [] end,
Options = [case Pair of {"buffer", Bytes} -> {udp, [{buffer, list_to_integer(Bytes)}]}; _ -> Pair end
           || Pair <- Pairs(Words)],
Transfer = case Operation of "get" -> fun tftp:read_file/3; "put" -> fun tftp:write_file/3 end,
case Transfer(Remote, Local, [{host, Host}, {port, list_to_integer(Port)} | Options]) of
    {ok, _} -> halt(0);
    {error, Error} -> io:format("~p~n", [Error]), halt(1)
end."""


def _erlang(job: Job) -> list[str]:
    options = {**job.options, **({"mode": job.mode} if job.mode != "octet" else {})}
    words = [job.operation, job.host, str(job.port), job.remote, str(job.local)]
    return [*_ERLANG, _ERLANG_TRANSFER, "-extra", *words, *(word for pair in options.items() for word in pair)]


_TFTPY_TRANSFER = """
import logging, sys, tftpy
operation, host, port, remote, local, *pairs = sys.argv[1:]
logging.disable()
options = {name: int(value) for name, _, value in (pair.partition("=") for pair in pairs)}
client = tftpy.TftpClient(host, int(port), options)
(client.download if operation == "get" else client.upload)(remote, local)
"""


def _tftpy(job: Job) -> list[str]:
    words = [job.operation, job.host, str(job.port), job.remote, str(job.local)]
    return ["-c", _TFTPY_TRANSFER, *words, *(f"{name}={value}" for name, value in job.options.items())]


def _blksizes(*values: int) -> tuple[Case, ...]:
    return tuple(Case({"blksize": str(value)}) for value in values)


def _odd(name: str, *values: str) -> tuple[Case, ...]:
    """Values that the client sends as they are, and that the server leaves out of its answer."""
    return tuple(Case({name: value}, refused=(name,)) for value in values)


def _own_refusal(name: str, value: str, exit_code: int, why: str) -> Case:
    ending = Ending(exit_code, None, why)
    return Case({name: value}, unsent=True, get=ending, put=ending)


_KEEPS_BLKSIZE = "goes on with the blksize that it asked for, although the server's answer leaves it out"
_TOO_LARGE = Ending(1, None, f"{_KEEPS_BLKSIZE}: its DATA is too large, and the server answers with ERROR 4")
_FIRST_IS_LAST = Ending(0, 512, f"{_KEEPS_BLKSIZE}: the first block is shorter, so it is taken for the last one")
_ERROR_AT_THE_END = Ending(0, None, "prints an ERROR that answers its last block, but its exit code is that of success")
_ERROR_8 = "sends any option that it is given, but answers ERROR 8 to an OACK with this one"
_ERLANG_CUTS = Ending(
    0, 8188, "reads 8192 bytes of a datagram by default, and takes a block that it cut for the last one"
)

CLIENTS: dict[str, Client] = {
    "tftp-hpa": Client(
        words=_hpa,
        cases=(PLAIN,),  # it has no options
        netascii=True,
        absent=Ending(0, 0, "its exit code says nothing, and an empty file remains"),
        taken=0,
    ),
    "atftp": Client(
        words=_atftp,
        cases=(
            *_blksizes(8, 512, 1428, 1468, 8192, 65464),
            *_odd("blksize", "0", "7", "65465", "abc"),
            *(Case({"windowsize": value}) for value in ("1", "4", "64", "65535")),
            *_odd("windowsize", "0", "65536"),
            *(Case({"timeout": value}) for value in ("1", "255")),
            *_odd("timeout", "0", "256"),
            Case({"tsize": ""}, asked={"tsize": SIZE}),
            *_odd("multicast", ""),  # RFC 2090, which our servers do not know
            Case(
                {"blksize": "1428", "windowsize": "8", "timeout": "2", "tsize": ""},
                asked={"blksize": "1428", "windowsize": "8", "timeout": "2", "tsize": SIZE},
            ),
            Case({"blksize": "8192", "windowsize": "8", "timeout": "2"}, modest=True),
        ),
        netascii=True,
        absent=Ending(255, 0, "an empty file remains"),
        taken=255,
    ),
    "curl": Client(
        words=_curl,
        sends={"tsize": SIZE, "blksize": "512", "timeout": "6"},
        cases=(
            *_blksizes(8, 512, 1428, 1468, 8192, 65464),
            *(_own_refusal("blksize", value, 71, "knows the range") for value in ("7", "65465")),
            # It asks for a share of the time that it has for connecting: 3 s of 10, 1 s of 3.
            Case({"timeout": "10"}, asked={"tsize": SIZE, "blksize": "512", "timeout": "3"}),
            Case({"none": ""}, asked={}),
            Case({"none": ""}, asked={}, size=0),
            Case({"blksize": "8192"}, modest=True),
        ),
        netascii=False,  # it writes what arrives and sends what it reads, and only calls that netascii
        absent=Ending(68, None, "CURLE_TFTP_NOTFOUND"),
        taken=73,  # CURLE_REMOTE_FILE_EXISTS
        quotes=False,
        # It may miss the server's first answer and end at the second: with 3 s in all it asks for that after 1 s.
        get_empty=Case({"timeout": "3"}, get=Ending(71, None, "takes tsize 0 in an OACK for an error")),
    ),
    "busybox": Client(
        words=_busybox,
        sends={"tsize": SIZE},
        cases=(
            Case({"blksize": "512"}, asked={"tsize": SIZE}),
            *_blksizes(64, 1428, 1468, 8192, 65464),
            _own_refusal("blksize", "7", 1, "allows no less than 24"),
            _own_refusal("blksize", "24", 1, "writes its request into blksize + 4 bytes, which are too few here"),
            *(
                Case({"blksize": "65465"}, refused=("blksize",), size=size, get=_FIRST_IS_LAST, put=put)
                for size, put in ((140_000, _TOO_LARGE), (1_000, _ERROR_AT_THE_END))
            ),
            Case({"blksize": "8192"}, modest=True),
        ),
    ),
    "erlang": Client(
        words=_erlang,
        cases=(
            *_blksizes(8, 512, 1428, 1468, 8188),
            *(Case({"blksize": value}, get=_ERLANG_CUTS) for value in ("8192", "65464")),
            Case({"blksize": "65464", "buffer": "65536"}, asked={"blksize": "65464"}),
            *(_own_refusal("blksize", value, 1, "knows the range") for value in ("7", "65465")),
            *(Case({"timeout": value}) for value in ("1", "255")),
            _own_refusal("timeout", "256", 1, "knows the range"),
            Case({"tsize": "0"}, asked={"tsize": SIZE}),
            _own_refusal("mode", "netascii", 1, "has netascii on Windows only"),
            Case(
                {"blksize": "8192"},
                modest=True,
                get=Ending(0, 1000, "ignores a smaller blksize in an OACK: the first block is taken for the last one"),
                put=Ending(1, None, "ignores a smaller blksize in an OACK: the server answers its DATA with ERROR 4"),
            ),
        ),
    ),
    "tftpy": Client(
        words=_tftpy,
        cases=(
            *_blksizes(8, 512, 1428, 1468, 8192, 65464),
            _own_refusal("blksize", "7", 1, "knows the smallest"),
            Case({"blksize": "65465"}, refused=("blksize",), put=_TOO_LARGE),
            Case({"tsize": "0"}),
            *(
                Case({name: "7"}, get=Ending(1, 0, _ERROR_8), put=Ending(1, None, _ERROR_8))
                for name in ("timeout", "windowsize")
            ),
            *_odd("bogus", "7"),
            Case({"blksize": "8192"}, modest=True),
        ),
        quotes=False,
    ),
}

if __name__ == "__main__":
    sys.exit(main())
