"""The supervisor of one server under test: starts it, watches it, and ends it with everything it started.

Run as a program: ``python -I -S supervisor.py --control FD --log PATH --cpus LIST [--handover FD] [--namespaces LIST]
-- ARGV``, with the descriptors of namespaces that the server enters, in this order. It imports nothing but a few
modules of the standard library, so that a trial does not wait for it, and it never looks at what the server serves.
Every server has a supervisor of its own, because a supervisor is what makes the end certain:

* it is a child subreaper (prctl(2)), so a server that daemonises cannot leave its process tree, and this tree
  holds no other processes: what is below the supervisor is the server's, to the last process;
* it holds one end of a socket whose other end is the harness. When the harness is gone, however it went (kill -9
  included), the socket ends, and the supervisor kills the tree. Should the supervisor itself be killed, the server's
  parent-death signal fires;
* it drains the server's output, so a server that talks too much neither blocks on a full pipe nor fills a disk.

Between fork and exec the server's first process sees to it that the CPU time of every process and thread it will ever
have is counted, those whose parent ignores SIGCHLD included (wait4 and cutime lose them). It goes into a cgroup of its
own, if one can be made without ado (root; a user whose session has its cgroup delegated). And it opens a software perf
event on itself (perf_event_open(2), inherit=1), whose descriptor goes to the harness: it counts their context switches
where the kernel allows, and CPU time where there is no cgroup.

Messages, one datagram each, from the supervisor:

    pid N USED_NS EVENT CGROUP  the server's first process, and its CPU time so far. EVENT is what the perf event counts
                                whose descriptor comes along, "switches" or "time", or "none"; CGROUP a folder, or ""
    failed WHY                  it could not be started
    ready HOST PORT PID         its READY line
    exited STATUS               its main process ended (a wait status); said again of the one that a daemon leaves
    empty                       no process of it is left
    stopped KILLED              the last message: how many it had to kill

and from the harness: ``stop SECONDS``, with the grace between SIGTERM and SIGKILL.
"""

import contextlib
import ctypes
import errno
import os
import resource
import select
import signal
import socket
import struct
import sys
import time

LOG_HEAD_BYTES = 256 * 1024  # the beginning says how the server was set up ...
LOG_TAIL_BYTES = 64 * 1024  # ... the end says what it died of; between the two, a flood is only counted
LINE_BYTES_MAX = 4096  # a READY line is some 40 bytes; output without line ends must not gather in memory
KILL_ROUNDS_MAX = 500  # 10 ms each: a process that survives SIGKILL for 5 s sits in the kernel and cannot be helped
CGROUP_MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")  # version 2, alone or beside version 1

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SYS_PERF_EVENT_OPEN = {
    "x86_64": 298,
    "aarch64": 241,
    "riscv64": 241,
    "ppc64le": 319,
    "s390x": 331,
    "armv7l": 364,
    "i686": 336,
}


class Log:
    """server.log: the first bytes as they come, the last ones kept in memory until the end."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._room = LOG_HEAD_BYTES
        self._tail = bytearray()
        self._dropped = 0

    def write(self, data: bytes) -> None:
        """Take more output; never fails, never grows beyond the two limits."""
        head, rest = data[: self._room], data[self._room :]
        self._room -= len(head)
        self._append(head)
        self._tail += rest
        excess = len(self._tail) - LOG_TAIL_BYTES
        if excess > 0:
            del self._tail[:excess]
            self._dropped += excess

    def close(self) -> None:
        """Add the end of the output to the file."""
        if self._dropped:
            self._append(b"\n[... %d bytes left out ...]\n" % self._dropped)
        self._append(bytes(self._tail))
        self._tail.clear()

    def _append(self, data: bytes) -> None:
        try:
            if data:
                os.write(self._fd, data)
        except OSError:
            pass  # a full disk costs the log, never the server


class Supervisor:
    """Waits for output, child signals and the harness at once, until nothing of the server is left."""

    def __init__(
        self, control: socket.socket, log: Log, server_pid: int, outputs: tuple[int, int], child_signals: int
    ) -> None:
        self._control = control
        self._log = log
        self._server_pid = server_pid
        self._child_signals = child_signals
        out, err = outputs
        self._outputs: dict[int, bytearray | None] = {out: bytearray(), err: None}  # READY belongs on standard output
        self._server_gone = False
        self._stopping = False
        self._empty = False
        self._cgroup = cgroup_of(server_pid)

    def run(self) -> None:
        """Watch until the harness says stop, or is gone; then end the process tree."""
        while not self.wait(None):
            pass
        self.stop(self._grace_s())

    def wait(self, timeout_s: float | None) -> bool:
        """One round of drained output and reaped children; True when the harness has sent a message, or is gone."""
        control = self._control.fileno()
        ready, _, _ = select.select([control, self._child_signals, *self._outputs], [], [], timeout_s)
        for fd in ready:
            if fd in self._outputs and not self.relay(fd):
                del self._outputs[fd]
        if self._child_signals in ready:
            _drain(self._child_signals)
            self.reap()
        return control in ready

    def relay(self, fd: int) -> bool:
        """Move waiting output to the log; False when the pipe has ended or is empty."""
        try:
            data = os.read(fd, 65536)
        except OSError:
            return False
        self._log.write(data)
        line = self._outputs[fd]
        if line is not None and data:
            self._outputs[fd] = self._look_for_ready(line + data)
        return bool(data)

    def reap(self) -> None:
        """Take in the ends of children, own and adopted, and tell the harness."""
        while not self._empty:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._empty = True
                self.tell(b"empty")
                return
            if pid == 0:
                return
            if pid == self._server_pid:
                self._server_pid = self._adopt_daemon(status)
                self._server_gone = self._server_pid == 0
                self.tell(b"exited %d" % status)

    def stop(self, grace_s: float) -> None:
        """SIGTERM to the server, SIGKILL after `grace_s` to whatever is left of its process tree."""
        self.reap()
        self._stopping = True
        if grace_s > 0 and not self._empty:
            headless = self._server_gone  # it left several processes behind: all of them are the server
            _signal_all(descendants(os.getpid()) if headless else [self._server_pid], signal.SIGTERM)
            deadline = time.monotonic() + grace_s
            while not (self._empty if headless else self._server_gone) and (left_s := deadline - time.monotonic()) > 0:
                if self.wait(left_s) and not self._receive():
                    break
        self._finish(self._kill_tree())

    def tell(self, message: bytes) -> None:
        """Send one message; a harness that is gone is noticed by the next wait."""
        with contextlib.suppress(OSError):
            self._control.send(message)

    def _adopt_daemon(self, status: int) -> int:
        """The server's process once its main process has ended: the daemon that it left, or 0 for none.

        Orphans are the supervisor's children before their parent can be reaped, so a daemon is there by now.
        """
        if status != 0 or self._stopping:
            return 0
        orphans = [pid for pid in _children(os.getpid()) if not _is_zombie(pid)]
        return orphans[0] if len(orphans) == 1 else 0

    def _kill_tree(self) -> int:
        """SIGKILL until waitpid says that no process is left, since a tree may go on forking meanwhile."""
        killed: set[int] = set()
        for _ in range(KILL_ROUNDS_MAX):
            self.reap()
            if self._empty:
                break
            tree = descendants(os.getpid())
            killed.update(tree)
            _signal_all(tree, signal.SIGKILL)
            select.select([self._child_signals], [], [], 0.01)
            _drain(self._child_signals)
        return len(killed)

    def _finish(self, killed: int) -> None:
        for fd in list(self._outputs):
            os.set_blocking(fd, False)
            for _ in range(256):  # what the pipe can still hold, and no more
                if not self.relay(fd):
                    break
        self._log.close()
        remove_cgroup(self._cgroup)
        self.tell(b"stopped %d" % killed)

    def _grace_s(self) -> float:
        message = self._receive()
        return float(message.split()[1]) if message.startswith(b"stop ") else 0.0

    def _receive(self) -> bytes:
        try:
            return self._control.recv(256)
        except OSError:
            return b""

    def _look_for_ready(self, text: bytearray) -> bytearray | None:
        """The unfinished line to go on with, or None once READY has been seen."""
        *lines, rest = text.split(b"\n")
        for line in lines:
            match line.split():
                case [b"READY", host, port, pid] if port.isdigit() and pid.isdigit():
                    self.tell(b"ready %s %s %s" % (host[:64], port[:6], pid[:10]))
                    return None
        return rest[:LINE_BYTES_MAX]


def descendants(root: int) -> list[int]:
    """Every living process below `root`, children before grandchildren (proc_pid_task(5), children)."""
    found: list[int] = []
    waiting = [root]
    while waiting:
        children = _children(waiting.pop())
        found += children
        waiting += children
    return found


def read_proc(path: str) -> bytes:
    """A file of proc(5) whole, for about half of what `open` costs: it counts with a thousand processes."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(file, 65536)
        while more := os.read(file, 65536):
            text += more
        return text
    finally:
        os.close(file)


def proc_or_nothing(path: str) -> bytes:
    """The same; empty where it is gone, hidden or never was."""
    try:
        return read_proc(path)
    except OSError:
        return b""


def cgroup_of(pid: int) -> str:
    """The folder for a cgroup of the server `pid`, below our own (cgroups(7), version 2); "" where there are none."""
    with contextlib.suppress(OSError), open("/proc/self/cgroup", encoding="utf-8") as file:
        own = [line.rstrip("\n")[3:] for line in file if line.startswith("0::")]
        mounts = [mount for mount in CGROUP_MOUNTS if os.path.exists(f"{mount}/cgroup.procs")]
        if own and mounts:
            return f"{mounts[0]}{own[0]}/tftpbench-{pid}"
    return ""


def remove_cgroup(path: str) -> None:
    """The end of a cgroup without processes, if there is one."""
    for _ in range(100):  # the kernel may hold it busy for a moment after its last process was reaped
        try:
            os.rmdir(path)
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                return  # there was none
        time.sleep(0.01)


def main(arguments: list[str]) -> int:
    """Start the server named on the command line and supervise it."""
    options, argv = _parse(arguments)
    control = socket.socket(fileno=int(options["--control"]))
    control.set_inheritable(False)
    log = Log(options["--log"])
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child_signals, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    (out, out_child), (err, err_child) = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    supervisor_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become_server(libc, control, supervisor_pid, options, argv, (out_child, err_child))
    os.close(out_child)
    os.close(err_child)
    if "--handover" in options:
        os.close(int(options["--handover"]))  # its other end is to see when the server is gone
    for namespace in _namespaces(options):
        os.close(namespace)  # they are to end with the server
    Supervisor(control, log, pid, (out, err), child_signals).run()
    return 0


def _become_server(
    libc: ctypes.CDLL,
    control: socket.socket,
    supervisor_pid: int,
    options: dict[str, str],
    argv: list[str],
    outputs: tuple[int, int],
) -> None:
    """In the child: never returns."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)  # exec would hand an ignored signal on
        os.setsid()
        if options["--cpus"]:
            os.sched_setaffinity(0, [int(cpu) for cpu in options["--cpus"].split(",")])
        _raise_open_files()
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        _announce(control, libc)
        _enter(libc, _namespaces(options))
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != supervisor_pid:
            os._exit(127)  # the supervisor died before the signal was armed
        os.execvp(argv[0], argv)  # noqa: S606 (a list of words and no shell is the point)
    except OSError as error:
        control.send(f"failed {error.strerror}: {error.filename or argv[0]}".encode())
    finally:
        os._exit(127)


def _namespaces(options: dict[str, str]) -> list[int]:
    return [int(fd) for fd in options.get("--namespaces", "").split(",") if fd]


def _enter(libc: ctypes.CDLL, namespaces: list[int]) -> None:
    """setns(2), which Python 3.12 has. What counts the server is open by now, as this user outside."""
    for namespace in namespaces:
        if libc.setns(namespace, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), "its network namespace")
        os.close(namespace)


def _announce(control: socket.socket, libc: ctypes.CDLL) -> None:
    """Say who we are and what counts us from here on."""
    cgroup = _enter_cgroup()
    event, counts = _open_event(libc, time_is_known=cgroup != "")
    message = f"pid {os.getpid()} {time.process_time_ns()} {counts} {cgroup}".encode()
    if event < 0:
        control.send(message)
    else:
        socket.send_fds(control, [message], [event])


def _open_event(libc: ctypes.CDLL, *, time_is_known: bool) -> tuple[int, str]:
    """A perf event that counts this process and all it will start, and what it counts; -1 where the kernel refuses.

    One event tells both: read(2) gives its count, and the time that it ran, which is CPU time.
    """
    number = _SYS_PERF_EVENT_OPEN.get(os.uname().machine)
    if number is None:
        return -1, "none"
    # perf_event_open(2), struct perf_event_attr, first published size 64: type SOFTWARE (1), config; at offset 32
    # read_format TOTAL_TIME_ENABLED | TOTAL_TIME_RUNNING; at offset 40 the flags inherit (bit 1), exclude_kernel (5),
    # exclude_hv (6). A process switches in the kernel, so CONTEXT_SWITCHES (3) needs the kernel counted: root, or
    # perf_event_paranoid <= 1. TASK_CLOCK (1) is for every user up to 2; its running time has kernel time all the same.
    for config, flags, counts in ((3, 1 << 1 | 1 << 6, "switches"), (1, 1 << 1 | 1 << 5 | 1 << 6, "time")):
        if counts == "time" and time_is_known:
            break
        attributes = struct.pack("<IIQQQQQQQ", 1, 64, config, 0, 0, 1 | 2, flags, 0, 0)[:64]
        event = int(libc.syscall(number, ctypes.c_char_p(attributes), 0, -1, -1, 8))  # us, any CPU, close-on-exec
        if event >= 0:
            return event, counts
    return -1, "none"


def _enter_cgroup() -> str:
    """Into a cgroup of our own; "" where that is not allowed, or where it would be more than an account.

    Controllers that our parent hands down would weigh the server as one against all others.
    """
    path = cgroup_of(os.getpid())
    try:
        if read_proc(f"{os.path.dirname(path)}/cgroup.subtree_control").strip():
            return ""
        os.mkdir(path)
        read_proc(f"{path}/cpu.stat")  # since Linux 4.15
        with open(f"{path}/cgroup.procs", "wb", buffering=0) as processes:
            processes.write(b"0")
    except OSError:
        return ""
    return path


def _raise_open_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _children(pid: int) -> list[int]:
    found: list[int] = []
    # What is gone meanwhile is no matter: its children are the supervisor's, or another thread's, and the next round's.
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, read_proc(f"/proc/{pid}/task/{thread}/children").split())
    return found


def _is_zombie(pid: int) -> bool:
    return proc_or_nothing(f"/proc/{pid}/stat").rpartition(b")")[2].split()[:1] in ([], [b"Z"], [b"X"])


def _signal_all(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):  # gone, or of another user since it changed its own
            os.kill(pid, number)


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 512):
            pass
    except BlockingIOError:
        pass


def _parse(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    split = arguments.index("--")
    pairs = arguments[:split]
    return dict(zip(pairs[::2], pairs[1::2], strict=True)), arguments[split + 1 :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
