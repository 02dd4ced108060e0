"""Load hosts without a cluster of one's own: certificates, Dask's scheduler here, and one worker on each host by ssh.

    init           the certificates of one set of hosts
    up, down       here: the system's ssh, Dask's own scheduler, and what is known of them in a folder
    main           on a host, where ssh runs it: look, start, stop; and `run`, which becomes the scheduler or a worker

A process is known by its number and its start, and only one that was started here is ever signalled. Each has a folder
with its log, its keys and the file `pid`, which it writes before it becomes another program: so none is without one.
"""

import asyncio
import contextlib
import json
import os
import re
import resource
import secrets
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

from tftpbench.host.hosts.dask import EXTRA, DaskCarrier, Keys, make_keys, needs_extra, usual_keys, write_private
from tftpbench.model.errors import HostsError, UsageError
from tftpbench.model.escape import one_line
from tftpbench.model.regular_file import read_regular

Result = TypeVar("Result")
Say = Callable[[str], object]

PORT = 8786  # Dask's own
# What a host may answer to one command, and what it may be sent: three small files.
ANSWER_MAX, KEYS_MAX = 64 << 10, 64 << 10
SSH_CONNECT_S, SSH_S = 10, 60.0
# Connections by ssh.
AT_ONCE = 32
# A program of Python has loaded Dask and listens by then; a worker has found its scheduler.
START_S, JOIN_S = 30.0, 60.0
# How long a process has after SIGTERM, and then after SIGKILL.
END_S = 5.0
_STEP_S = 0.02
_LOG_TAIL = 64 << 10
_MODULE = "tftpbench.host.hosts.cluster"
# Before a line of a host's that is meant for us: shells say other things as they start.
_MARK = "tftpbench-hosts: "
_DESTINATION = re.compile(r"(?:[A-Za-z0-9_.-]+@)?(?:[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])")
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,253}")
_ID = re.compile(r"[0-9a-f]{8}")

# Dask's settings of scheduler and workers: a profiler that wakes each 10 ms has no place beside a load, a connection
# that is not encrypted none at all, and pages that tell everyone of the cluster none either.
SETTINGS = {
    "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
    "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES": "[]",
    "DASK_DISTRIBUTED__WORKER__HTTP__ROUTES": "[]",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_LOGGING__DISTRIBUTED": "warning",
}
_QUIET = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")


def init(*, renew: bool) -> Keys:
    """New certificates (`make_keys`). Raises UsageError where a cluster that is up has the old ones, too."""
    if renew and _state_file().exists():
        raise UsageError("a cluster with the old certificates is up; end it with: tftpbench hosts down")
    return make_keys(renew=renew)


def state_folder() -> Path:
    """What is known of a cluster that is up, and the folders of its processes (XDG)."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "tftpbench/hosts"


@dataclass(frozen=True)
class SshHost:
    """A load host as ssh and a person name it: USER@HOST:/path/to/python, whose Python has tftpbench."""

    destination: str
    python: str

    @classmethod
    def of(cls, text: str) -> "SshHost":
        """Raises UsageError."""
        destination, _, python = text.partition(":/")
        if not (_DESTINATION.fullmatch(destination) and python.isprintable() and python):
            raise UsageError(
                f"{text!r} is no load host; allowed: USER@HOST:/path/to/python, "
                "as in bench@10.0.0.2:/opt/venv/bin/python"
            )
        return cls(destination, f"/{python}")

    @property
    def name(self) -> str:
        """What it is called in results."""
        return self.destination.rpartition("@")[2].strip("[]")

    def command(self, *words: str) -> list[str]:
        """The ssh that runs this module there. It asks nothing: a host that wants a password is refused at once."""
        there = shlex.join([self.python, "-P", "-m", _MODULE, *words])
        user, at, host = self.destination.rpartition("@")
        # A master that stays in the background would keep the pipe to us open.
        settings = ("BatchMode=yes", f"ConnectTimeout={SSH_CONNECT_S}", "ControlMaster=no")
        options = [word for setting in settings for word in ("-o", setting)]
        return ["ssh", "-T", *options, "--", f"{user}{at}{host.strip('[]')}", there]


def up(
    hosts: Sequence[SshHost],
    *,
    say: Say,
    keys: Keys | None = None,
    address: str | None = None,
    port: int = PORT,
    worker_port: int = 0,
) -> str:
    """Start the scheduler here and a worker on each host, all of it or nothing; the scheduler's address.

    `say` is called with each command before it is run. `address`: this machine's, as all hosts reach it; what they
    themselves say unless given. `port`: the scheduler's, `worker_port`: that of each worker; 0 takes a free one. Raises
    UsageError, and HostsError where a host can't be reached or has not the same tftpbench.
    """
    keys = keys or usual_keys()
    keys.check()
    names = [host.name for host in hosts]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"{', '.join(sorted(twice))}: given twice; one worker on each host is enough")
    if not _has_dask():
        raise needs_extra("hosts up")
    seen_from = asyncio.run(_all(_look(host, say) for host in hosts))
    bound = address or _own_address(names, seen_from)
    cluster = _Cluster.create(hosts)
    try:
        found = _start_scheduler(cluster, keys, bound, port, say)
        asyncio.run(_all(_start(host, cluster.id, found, worker_port, keys, say) for host in hosts))
        _check_workers(found, keys, names)
    except BaseException as error:
        _undo(cluster, error, lambda _: None)
        raise
    return found


def down(say: Say) -> tuple[str, ...]:
    """End what `up` has started, and remove the keys from the hosts; the names of those, none where nothing was up.

    Raises HostsError where a host can't be reached: its worker ends by itself, as its scheduler is gone, and its keys
    are removed by the next call.
    """
    cluster = _Cluster.read()
    if cluster is None:
        return ()
    _end(cluster, say)
    return tuple(host.name for host in cluster.hosts)


def _undo(cluster: "_Cluster", error: BaseException, say: Say) -> None:
    """End what was started until an error came, which gets what workers and scheduler have said at last."""
    try:
        lines = [f"{name} said: {line}" for name, line in _end(cluster, say).items()]
    except HostsError as left:
        lines = [*map(str, left.args)]
    if isinstance(error, HostsError):
        error.args = (*error.args, *lines)


@dataclass(frozen=True)
class _Cluster:
    """What is kept of a cluster, so that `down` finds all of it."""

    id: str
    hosts: tuple[SshHost, ...]

    @classmethod
    def create(cls, hosts: Sequence[SshHost]) -> "_Cluster":
        """Raises UsageError where one is up."""
        made = cls(secrets.token_hex(4), tuple(hosts))
        folder = state_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        try:
            write_private(_state_file(), made.text())
        except FileExistsError:
            raise UsageError("a cluster is up, or was left behind; end it with: tftpbench hosts down") from None
        return made

    @classmethod
    def read(cls) -> "_Cluster | None":
        """The one that is up. Raises UsageError where its file is not one of ours."""
        path = _state_file()
        try:
            document = json.loads(read_regular(path, ANSWER_MAX))
            hosts = [SshHost(str(each["destination"]), str(each["python"])) for each in document["hosts"]]
            if _ID.fullmatch(document["id"]):
                return cls(document["id"], tuple(hosts))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            pass
        raise UsageError(f"{path}: is not what hosts up writes; see what runs, then remove it")

    def text(self) -> bytes:
        """As it is kept."""
        hosts = [{"destination": each.destination, "python": each.python} for each in self.hosts]
        return json.dumps({"id": self.id, "hosts": hosts}).encode()

    @property
    def folder(self) -> Path:
        """The scheduler's."""
        return state_folder() / f"scheduler-{self.id}"


def _state_file() -> Path:
    return state_folder() / "cluster.json"


def _has_dask() -> bool:
    from importlib.util import find_spec

    return find_spec("distributed") is not None


def _own_address(names: Sequence[str], seen_from: Sequence[str]) -> str:
    """This machine's IP address, as all hosts reach it. Raises HostsError where they differ, or ssh does not say."""
    if len({*seen_from}) == 1 and seen_from[0]:
        return seen_from[0]
    said = ", ".join(f"{found or 'not known'} from {name}" for name, found in zip(names, seen_from, strict=True))
    raise HostsError(f"this machine's address, as hosts reach it: {said}; name one that all reach with --address")


def _start_scheduler(cluster: _Cluster, keys: Keys, bound: str, port: int, say: Say) -> str:
    """The scheduler's address. Raises HostsError where it does not come up."""
    cluster.folder.mkdir(mode=0o700)
    says = cluster.folder / "scheduler.json"
    host = f"[{bound}]" if ":" in bound else bound
    command = [
        sys.executable, "-P", "-m", "distributed.cli.dask_scheduler", "--host", f"tls://{host}", "--port", str(port),
        *_tls(keys), *_QUIET, "--scheduler-file", str(says),
    ]  # fmt: skip
    say(f"$ {_typed(command)}")
    pid = _start_in(cluster.folder, command)
    for _ in _steps(START_S):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return str(json.loads(read_regular(says, ANSWER_MAX))["address"])
        if _has_ended(pid):
            break
    raise HostsError(f"the scheduler does not start at tls://{host}:{port}")


async def _look(host: SshHost, say: Say) -> str:
    """This machine's IP address as the host sees it, empty where ssh does not say.

    Raises HostsError where the host can't be reached, or has not this tftpbench.
    """
    from tftpbench import __version__

    document = await _ssh(host, say, "look")
    if document.get("version") != __version__:
        raise HostsError(
            f"{host.name}: has tftpbench {document.get('version')}, and here is {__version__}; install the same there"
        )
    if document.get("has_dask") is not True:
        raise HostsError(f"{host.name}: {host.python} has no Dask; there: {EXTRA}")
    try:
        return str(ip_address(str(document.get("seen_from"))))
    except ValueError:
        return ""


async def _start(host: SshHost, set_id: str, address: str, worker_port: int, keys: Keys, say: Say) -> None:
    texts = b"".join(read_regular(path, KEYS_MAX) for path in (keys.ca, keys.cert, keys.key))
    document = await _ssh(
        host, say, "start", set_id, host.name, address, str(worker_port), sent=texts,
        typed_before=shlex.join(["cat", *map(str, (keys.ca, keys.cert, keys.key))]),
    )  # fmt: skip
    say(f"  {host.name}: its keys are in {document.get('folder')}, until: tftpbench hosts down; there runs:")
    say(f"  {document.get('command')}")


def _check_workers(address: str, keys: Keys, names: Sequence[str]) -> None:
    """Wait until each worker is there, and ask it who it is. Raises HostsError."""
    from tftpbench.host.hosts.generator import HostsGenerator

    with DaskCarrier(address, keys, len(names), JOIN_S) as carrier:
        if missing := sorted({*names} - {*carrier.hosts}):
            raise HostsError(
                f"{', '.join(missing)}: no worker came to {address} within {JOIN_S:g} s; a firewall may lie between"
            )
        HostsGenerator(carrier).greet()


def _end(cluster: _Cluster, say: Say) -> dict[str, str]:
    """End all of it; the last mistake in each log. Raises HostsError where a host can't be reached."""
    logs = {}
    # First, so that workers end by themselves where ssh no longer gets through.
    if line := _stop_in(cluster.folder):
        logs["the scheduler"] = line

    async def stop(host: SshHost) -> str | None:
        return str((await _ssh(host, say, "stop", cluster.id, host.name)).get("log") or "")

    left, failures = [], []
    for host, done in zip(cluster.hosts, asyncio.run(_settled(map(stop, cluster.hosts))), strict=True):
        if isinstance(done, BaseException):
            left.append(host)
            failures.append(done)
        elif done:
            logs[host.name] = done
    if not left:
        _state_file().unlink(missing_ok=True)
        return logs
    new = _state_file().with_suffix(".new")
    new.unlink(missing_ok=True)
    write_private(new, _Cluster(cluster.id, tuple(left)).text())
    new.replace(_state_file())
    lines = [
        f"{one_line(failure)}; its worker ends by itself, its keys are still there: tftpbench hosts down, once more"
        for failure in failures
    ]
    raise HostsError(*lines)


async def _settled(works: Iterable[Awaitable[Result]]) -> list[Result | BaseException]:
    """What each comes to, or why not; AT_ONCE are done at a time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def done(work: Awaitable[Result]) -> Result:
        async with room:
            return await work

    return await asyncio.gather(*map(done, works), return_exceptions=True)


async def _all(works: Iterable[Awaitable[Result]]) -> list[Result]:
    """What all come to, at once; raises HostsError with a line for each that failed."""
    done = await _settled(works)
    failures = [each for each in done if isinstance(each, BaseException)]
    for failure in failures:
        if not isinstance(failure, HostsError):
            raise failure
    if failures:
        raise HostsError(*(str(each) for each in failures))
    return [each for each in done if not isinstance(each, BaseException)]


async def _ssh(host: SshHost, say: Say, *words: str, sent: bytes = b"", typed_before: str = "") -> dict[str, Any]:
    """What this module answers on a host. Raises HostsError."""
    command = host.command(*words)
    say(f"$ {typed_before}{' | ' if typed_before else ''}{shlex.join(command)}")
    try:  # in a session of its own it has no terminal to ask for a password on
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except FileNotFoundError:
        raise HostsError("ssh is not here; get it: apt install openssh-client") from None
    assert process.stdin
    try:
        async with asyncio.timeout(SSH_S):
            with contextlib.suppress(ConnectionError):
                process.stdin.write(sent)
                process.stdin.write_eof()
            out, err = await asyncio.gather(*(_read(process, stream) for stream in (process.stdout, process.stderr)))
            code = await process.wait()
    except TimeoutError:
        raise HostsError(f"{host.name}: ssh has no end within {SSH_S:g} s; try: ssh {host.destination} true") from None
    finally:
        _kill(process)
        await asyncio.gather(*map(_drain, (process.stdout, process.stderr)), process.wait())
    return _document(host, code, out, err)


async def _read(process: asyncio.subprocess.Process, stream: asyncio.StreamReader | None) -> bytes:
    """All that it says; of more than ANSWER_MAX the beginning, and it is ended."""
    assert stream
    try:
        found = await stream.readexactly(ANSWER_MAX)
    except asyncio.IncompleteReadError as error:
        return error.partial
    _kill(process)
    return found


async def _drain(stream: asyncio.StreamReader | None) -> None:
    """To its end, which closes it."""
    while stream is not None and await stream.read(ANSWER_MAX):
        pass


def _kill(process: asyncio.subprocess.Process) -> None:
    """With what it has started; nothing where it has ended."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _document(host: SshHost, code: int, out: bytes, err: bytes) -> dict[str, Any]:
    if ANSWER_MAX in (len(out), len(err)):
        raise HostsError(f"{host.name}: says more than {ANSWER_MAX >> 10} KiB; try: ssh {host.destination} true")
    for line in out.decode(errors="replace").splitlines()[::-1]:
        if line.startswith(_MARK):
            with contextlib.suppress(ValueError):
                document = json.loads(line.removeprefix(_MARK))
                if isinstance(document, dict) and "error" in document:
                    raise HostsError(f"{host.name}: {document['error']}")
                if isinstance(document, dict) and code == 0:
                    return document
    last = next((line for line in err.decode(errors="replace").splitlines()[::-1] if line.strip()), f"exit code {code}")
    if code != 255:  # that is ssh's own
        raise HostsError(f"{host.name}: {host.python}: {last}; give the path of a Python there that has this tftpbench")
    mend = f"it must let you in without a question: ssh {host.destination} true"
    if "Permission denied" in last:
        mend = f"it must let you in by a key, without a password: ssh-copy-id {host.destination}"
    raise HostsError(f"{host.name}: {last.strip().rstrip('.')}; {mend}")


# What runs on a host.


def main(words: Sequence[str]) -> int:
    """What ssh runs on a host: look, start, stop; and `run FOLDER COMMAND`, which becomes the command."""
    if words[:1] == ["run"]:
        _become(Path(words[1]), words[2:])
    try:
        document = _answer(words)
    except Exception as error:  # whatever it is, one line of it goes back
        document = {"error": one_line(f"{type(error).__name__}: {error}", 300)}
    try:
        print(f"{_MARK}{json.dumps(document)}", flush=True)  # noqa: T201 (ssh brings it back)
    except OSError:  # who asked is gone, and its own look for what is to be ended may have come before the start
        if "folder" in document:
            _stop_in(Path(str(document["folder"])))
        os._exit(1)  # its end would write what is left in the buffer
    return 1 if "error" in document else 0


def _become(folder: Path, command: Sequence[str]) -> NoReturn:
    """Write down which process this is, then be the command."""
    write_private(folder / "pid.new", json.dumps(Process.of(os.getpid())).encode())
    (folder / "pid.new").rename(folder / "pid")
    os.chdir(folder)
    # Dask's scheduler takes half of what it may open for calls to workers, which have one connection or two each.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.execv(command[0], [*command])  # noqa: S606 (that is what it is for)


def _answer(words: Sequence[str]) -> dict[str, object]:
    match words:
        case ["look"]:
            return _looked()
        case ["start", set_id, name, address, port] if _ID.fullmatch(set_id) and _NAME.fullmatch(name):
            return _started(_worker_folder(set_id, name), name, address, int(port))
        case ["stop", set_id, name] if _ID.fullmatch(set_id) and _NAME.fullmatch(name):
            return {"log": _stop_in(_worker_folder(set_id, name))}
    return {"error": "is called by: tftpbench hosts up"}


def _looked() -> dict[str, object]:
    from tftpbench import __version__

    connection = os.environ.get("SSH_CONNECTION", "").split()
    return {"version": __version__, "has_dask": _has_dask(), "seen_from": connection[0] if connection else None}


def _worker_folder(set_id: str, name: str) -> Path:
    """A home may be shared by several hosts, so each has its own."""
    return state_folder() / f"worker-{set_id}-{name}"


def _started(folder: Path, name: str, address: str, port: int) -> dict[str, object]:
    """Start a worker with the keys that come on standard input: authority, certificate, key."""
    texts = re.findall(rb"-----BEGIN [^-]+-----.+?-----END [^-]+-----\n?", sys.stdin.buffer.read(KEYS_MAX), re.DOTALL)
    if len(texts) != 3:
        return {"error": "three files in PEM were to come by standard input: authority, certificate, key"}
    folder.mkdir(mode=0o700, parents=True)
    keys = Keys(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    for path, text in zip((keys.ca, keys.cert, keys.key), texts, strict=True):
        write_private(path, text)
    command = worker_command(sys.executable, address, keys, name, folder, port)
    pid = _start_in(folder, command)
    for _ in _steps(START_S):
        if (folder / "pid").exists():
            return {"folder": str(folder), "command": _typed(command)}
        if _has_ended(pid):
            break
    return {"error": f"its worker does not start: {_last_mistake(folder)}"}


def worker_command(python: str, address: str, keys: Keys, name: str, folder: Path, port: int) -> list[str]:
    """Dask's worker, as a load host needs it: one thread, never started again, no limit of memory, no pages."""
    return [
        python, "-P", "-m", "distributed.cli.dask_worker", address, "--name", name, *_tls(keys), *_QUIET,
        "--nthreads", "1", "--no-nanny", "--memory-limit", "0", "--protocol", "tls",
        *(("--worker-port", str(port)) if port else ()), "--local-directory", str(folder),
        "--death-timeout", f"{JOIN_S:g}",
    ]  # fmt: skip


def _tls(keys: Keys) -> tuple[str, ...]:
    return ("--tls-ca-file", str(keys.ca), "--tls-cert", str(keys.cert), "--tls-key", str(keys.key))


def _typed(command: Sequence[str]) -> str:
    """With its settings, as it can be typed."""
    return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in SETTINGS.items()), shlex.join(command)])


# A process of its own, and its end.


class Process(NamedTuple):
    """A process: its number, and when it began, for the number may be another's later."""

    pid: int
    began: str
    """The boot of the machine, and clock ticks since then."""

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """None where there is none."""
        fields = _stat(pid)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return None if fields is None else cls(pid, f"{boot} {fields[19]}")

    @contextlib.contextmanager
    def handle(self) -> "Iterator[int | None]":
        """A descriptor that means this process and no later one (pidfd_open(2)); None where it has ended."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:  # looked at after it was opened: the number can't change hands in between
            yield descriptor if Process.of(self.pid) == self else None
        finally:
            os.close(descriptor)

    def descendants(self) -> list["Process"]:
        """What it has started, and what those have."""
        parents: dict[str, list[int]] = {}
        for path in Path("/proc").iterdir():
            if path.name.isdecimal() and (stat := _stat(int(path.name))):
                parents.setdefault(stat[1], []).append(int(path.name))
        found = [*parents.get(str(self.pid), ())]
        for pid in found:
            found += parents.get(str(pid), ())
        return [process for pid in found if (process := Process.of(pid)) is not None]

    def end(self) -> None:
        """End it with its descendants, by SIGTERM and then by SIGKILL. Raises HostsError where it outlives that."""
        with self.handle() as leader:
            if leader is None:
                return
            others = self.descendants()
            if not (_signalled(leader, signal.SIGTERM) or _signalled(leader, signal.SIGKILL)):
                raise HostsError(f"process {self.pid} does not end, even by SIGKILL; see what it waits for")
        for other in others:
            with other.handle() as descriptor:
                if descriptor is not None:
                    _signalled(descriptor, signal.SIGKILL)


def _stat(pid: int) -> list[str] | None:
    """What proc_pid_stat(5) has after the name: state, parent, ..., and the start as number 19."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def _signalled(descriptor: int, number: signal.Signals) -> bool:
    """Signal a process and wait; whether it has ended."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(END_S * 1000))


def _start_in(folder: Path, command: Sequence[str]) -> int:
    """Start a program that outlives this one, with its log and its `pid` in a folder of its own; its number."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    words = [sys.executable, "-P", "-m", _MODULE, "run", str(folder), *command]
    streams = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    try:  # no Popen: that is for what its starter waits for
        return os.posix_spawn(
            words[0], words, {**os.environ, **SETTINGS}, setsid=True,
            file_actions=[*streams, *((os.POSIX_SPAWN_DUP2, log, number) for number in (1, 2))],
        )  # fmt: skip
    finally:
        os.close(log)


def _has_ended(pid: int) -> bool:
    """Whether a child of this process has."""
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def _stop_in(folder: Path) -> str:
    """End the program of a folder and remove it; the last line of its log that tells of a mistake, if any."""
    with contextlib.suppress(FileNotFoundError):
        pid, began = json.loads(read_regular(folder / "pid", ANSWER_MAX))
        Process(int(pid), str(began)).end()
    line = _last_mistake(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return line


def _last_mistake(folder: Path) -> str:
    try:
        with (folder / "log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL))
            lines = log.read(_LOG_TAIL).decode(errors="replace").splitlines()
    except OSError:
        return ""
    first = (line for line in lines if re.match(r"[\w.]*(Error|Exception): ", line))  # the others follow from it
    last = (line for line in lines[::-1] if re.search(r"error|fail|refus", line, re.IGNORECASE))
    return one_line(next(first, next(last, "")), 300)


def _steps(within_s: float) -> Iterator[None]:
    """Once each few milliseconds, until the time is over."""
    ends_s = time.monotonic() + within_s
    while time.monotonic() < ends_s:
        yield
        time.sleep(_STEP_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
