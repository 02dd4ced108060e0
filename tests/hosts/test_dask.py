"""Load hosts by Dask: its own scheduler and workers, with the certificates of `hosts init`, on this machine.

The ssh in PATH is a small program of ours, which runs on this machine what it is given, as a host's shell would. What a
real one says is tried where one lets this user in.
"""

import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from select import POLLIN, poll
from types import ModuleType

import pytest

from tests.loopback.machine import PROGRAM, runs, until
from tests.loopback.peer import RRQ, Peer, contents, opcode, peer, serve_bytes
from tests.unit.builders import said
from tftpbench import load_run
from tftpbench.host.generator import LoadConfig, Progress, Stop
from tftpbench.host.hosts import calls, cluster
from tftpbench.host.hosts import carrier as worker_side
from tftpbench.host.hosts import dask as carriers
from tftpbench.host.hosts.carrier import HostLost
from tftpbench.host.hosts.cluster import Process, SshHost
from tftpbench.host.hosts.dask import DaskCarrier, make_keys, usual_keys
from tftpbench.host.hosts.generator import HostsGenerator
from tftpbench.model.errors import HostsError, UsageError

pytestmark = pytest.mark.skipif(not cluster._has_dask(), reason="the extra `hosts` is not installed")

PYTHON = sys.executable
HOSTS = [f"a@one:{PYTHON}", f"b@two:{PYTHON}"]
# As sshd does it: the command is one text, for the user's shell. A shell may say more than what was asked for.
HERE = """#!/bin/sh
for last; do :; done
echo hello from .profile
export SSH_CONNECTION='127.0.0.1 40000 127.0.0.1 22'
exec sh -c "$last"
"""
ASKS = """#!/bin/sh
case " $* " in
*" BatchMode=yes "*) echo 'a@one: Permission denied (publickey,password).' >&2; exit 255 ;;
esac
read answer < /dev/tty
"""
SILENT = "#!/bin/sh\necho 'ssh: connect to host one port 22: Connection timed out' >&2\nexit 255\n"
NO_PYTHON = "#!/bin/sh\necho 'sh: 1: /nowhere/python: not found' >&2\nexit 127\n"
OLDER = """#!/bin/sh
echo 'tftpbench-hosts: {"version": "0.0.9", "has_dask": true, "seen_from": "127.0.0.1"}'
"""
WITHOUT_DASK = """#!/bin/sh
echo 'tftpbench-hosts: {"version": "VERSION", "has_dask": false, "seen_from": "127.0.0.1"}'
"""
ENDLESS = "#!/bin/sh\nexec cat /dev/zero\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders of a user who has never used it, with `ssh` to this machine first in PATH."""
    for name in ("CONFIG", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    ssh(tmp_path, HERE)
    return tmp_path


def ssh(folder: Path, text: str) -> None:
    from tftpbench import __version__

    (folder / "ssh").write_text(text.replace("VERSION", str(__version__)))
    (folder / "ssh").chmod(0o700)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def known(home: Path) -> list[Process]:
    """The scheduler, and then the workers."""
    files = sorted((home / "state/tftpbench/hosts").glob("*/pid"))
    return [Process(*json.loads(path.read_text())) for path in files]


@contextmanager
def ends(processes: list[Process], within_s: float) -> Iterator[None]:
    """All of them are there before, and have ended after."""
    with ExitStack() as stack:
        handles = [stack.enter_context(process.handle()) for process in processes]
        assert None not in handles
        yield
        for handle in handles:
            assert handle is not None
            waiting = poll()
            waiting.register(handle, POLLIN)
            assert waiting.poll(within_s * 1000), "it still runs"


@pytest.fixture
def up(home: Path) -> Iterator[str]:
    """The address of a scheduler with two workers, and in the end nothing of them is left."""
    make_keys()
    address = cluster.up([SshHost.of(each) for each in HOSTS], say=lambda _: None, port=0)
    try:
        yield address
    finally:
        left = known(home)
        cluster.down(lambda _: None)
        for process in left:
            with process.handle() as handle:
                assert handle is None or poll_now(handle)
        assert list((home / "state/tftpbench/hosts").iterdir()) == []


def poll_now(handle: int) -> bool:
    waiting = poll()
    waiting.register(handle, POLLIN)
    return bool(waiting.poll(0))


@contextmanager
def stopped(process: Process) -> Iterator[None]:
    """A process that answers nothing, as on a machine that hangs."""
    with process.handle() as handle:
        assert handle is not None
        signal.pidfd_send_signal(handle, signal.SIGSTOP)
        try:
            yield
        finally:
            if not poll_now(handle):
                signal.pidfd_send_signal(handle, signal.SIGCONT)


def lost_by(call: Callable[[], object], happening: Callable[[], object]) -> str:
    """Why a call that waits is given up when something happens."""
    found: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except HostLost as error:
            found.append(error)

    waiting = threading.Thread(target=run)
    waiting.start()
    happening()
    waiting.join(30)
    assert not waiting.is_alive()
    return str(found[0])


def test_certificates_are_made_once_for_this_user_alone(capsys: pytest.CaptureFixture[str]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    code, out, _ = said(capsys, "hosts", "init")
    keys = usual_keys()
    assert code == 0
    assert str(keys.key) in out
    assert mode(keys.key.parent) == 0o700
    assert {mode(path) for path in keys.key.parent.iterdir()} == {0o600}
    assert len(list(keys.key.parent.iterdir())) == 3, "the key of the authority is not kept"
    ca, cert = (x509.load_pem_x509_certificate(path.read_bytes()) for path in (keys.ca, keys.cert))
    cert.verify_directly_issued_by(ca)
    own = load_pem_private_key(keys.key.read_bytes(), None)
    assert own.public_key() == cert.public_key() != ca.public_key()
    before = keys.cert.read_bytes()
    code, _, err = said(capsys, "hosts", "init")
    assert (code, err.count("\n"), keys.cert.read_bytes()) == (2, 1, before)
    assert "hosts init --renew" in err
    assert said(capsys, "hosts", "init", "--renew")[0] == 0
    assert keys.cert.read_bytes() != before
    assert [path.name for path in keys.key.parent.parent.iterdir()] == ["hosts"]


def test_two_commands_start_a_cluster_and_a_third_ends_all_of_it(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, "hosts", "init")[0] == 0
    code, out, err = said(capsys, "hosts", "up", *HOSTS, "--port", "0")
    assert (code, err) == (0, "")
    state = home / "state/tftpbench/hosts"
    assert mode(state) == 0o700
    workers = sorted(state.glob("worker-*"))
    assert [mode(folder) for folder in workers] == [0o700] * 2
    assert {mode(path) for folder in workers for path in folder.glob("*.pem")} == {0o600}
    (address,) = re.findall(r"--dask (tls://127\.0\.0\.1:\d+)\n", out)
    # What is printed can be typed by hand.
    typed = [shlex.split(line[2:]) for line in out.splitlines() if line.startswith("$ ")]
    assert [words[0] for words in typed] == ["ssh", "ssh", next(iter(cluster.SETTINGS)) + "=True", "cat", "cat"]
    assert all("BatchMode=yes" in words for words in typed if words[0] != typed[2][0])
    with DaskCarrier(address, usual_keys()) as carrier:
        assert carrier.hosts == ("one", "two")
        for host in carrier.hosts:
            assert json.loads(carrier.call(host, "", "hello", b"", 10))["version"]
    code, _, err = said(capsys, "hosts", "up", *HOSTS, "--port", "0")
    assert (code, err.count("\n")) == (2, 1)
    assert "hosts down" in err
    code, _, err = said(capsys, "hosts", "init", "--renew")
    assert (code, err.count("\n")) == (2, 1)
    processes = known(home)
    assert len(processes) == 3
    with ends(processes, 0):
        assert said(capsys, "hosts", "down")[0] == 0
    assert list(state.iterdir()) == []
    assert said(capsys, "hosts", "down", "--quiet") == (0, "Nothing was up.\n", "")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (ASKS, "one: a@one: Permission denied (publickey,password); it must let you in by a key, without a password: "),
        (SILENT, "one: ssh: connect to host one port 22: Connection timed out; it must let you in without a question"),
        (NO_PYTHON, "/nowhere/python: not found; give the path of a Python there that has this tftpbench"),
        (OLDER, "one: has tftpbench 0.0.9, and here is "),
        (WITHOUT_DASK, " has no Dask; there: pip install 'tftpbench[hosts]'"),
        (ENDLESS, "one: says more than 64 KiB; try: ssh a@one true"),
    ],
)
def test_a_host_that_cannot_be_used_is_one_line_and_nothing_is_started(
    home: Path, capsys: pytest.CaptureFixture[str], program: str, expected: str
) -> None:
    make_keys()
    ssh(home, program)
    code, _, err = said(capsys, "hosts", "up", HOSTS[0], "--port", "0")
    assert (code, err.count("\n")) == (3, 1)
    assert expected in err
    assert not (home / "state").exists()


def test_each_of_several_hosts_that_cannot_be_used_has_a_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_keys()
    ssh(home, SILENT)
    code, _, err = said(capsys, "hosts", "up", *HOSTS)
    assert (code, [line.split(": ")[2] for line in err.splitlines()]) == (3, ["one", "two"])


def test_without_ssh_it_says_how_to_get_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    make_keys()
    monkeypatch.setenv("PATH", "/nowhere")
    code, _, err = said(capsys, "hosts", "up", HOSTS[0])
    assert (code, err) == (3, "tftpbench: error: ssh is not here; get it: apt install openssh-client\n")


def test_a_scheduler_that_cannot_listen_leaves_nothing_and_says_why(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_keys()
    code, _, err = said(capsys, "hosts", "up", HOSTS[0], "--address", "192.0.2.1", "--port", "0")
    first, *why = err.splitlines()
    assert code == 3
    assert first == "tftpbench: error: the scheduler does not start at tls://192.0.2.1:0"
    assert "the scheduler said: " in why[0]
    assert "Cannot assign requested address" in why[0]
    assert list((home / "state/tftpbench/hosts").iterdir()) == []


def test_a_worker_that_cannot_start_ends_all_of_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its folder is there already, as a file."""
    make_keys()
    script = HERE.replace("exec sh", 'case "$last" in *" start "*) echo no room >&2; exit 1 ;; esac\nexec sh')
    ssh(home, script)
    code, _, err = said(capsys, "hosts", "up", *HOSTS, "--port", "0")
    assert code == 3
    assert err.splitlines()[0].startswith(f"tftpbench: error: one: {PYTHON}: no room; ")
    assert list((home / "state/tftpbench/hosts").iterdir()) == []


def test_ctrl_c_ends_what_was_started(home: Path) -> None:
    make_keys()
    ssh(home, HERE.replace("exec sh", f'case "$last" in *" start "*) touch {home}/begun; sleep 60 ;; esac\nexec sh'))
    command = [PYTHON, "-m", "tftpbench", "hosts", "up", HOSTS[0], "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        until((home / "begun").exists, "it does not come so far")
        with ends(known(home), 0):
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=30)[1] == "tftpbench: error: interrupted\n"
    assert process.returncode == 130
    assert list((home / "state/tftpbench/hosts").iterdir()) == []


def test_a_worker_whose_starter_is_gone_leaves_neither_itself_nor_its_keys(home: Path) -> None:
    """As after Ctrl-C, where ssh is ended and the program that it has started there is not."""
    keys = make_keys()
    sent = b"".join(path.read_bytes() for path in (keys.ca, keys.cert, keys.key))
    there = SshHost.of(HOSTS[0]).command("start", "0" * 8, "one", "tls://127.0.0.1:9", "0")[-1]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(["sh", "-c", there], input=sent, stdout=writing, timeout=60, check=False)
    finally:
        os.close(writing)
    left = known(home)
    for process in left:
        process.end()
    assert (done.returncode, left) == (1, [])
    assert list((home / "state/tftpbench/hosts").iterdir()) == []


@pytest.mark.usefixtures("up")
def test_a_host_that_is_gone_at_the_end_is_said_and_ended_later(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workers = known(home)[1:]
    ssh(home, HERE.replace("exec sh", 'case "$last" in *" two") exit 255 ;; esac\nexec sh'))
    with ends(workers, 30):  # that of the other one by itself, as it has no scheduler any more
        code, _, err = said(capsys, "hosts", "down")
    assert (code, err.count("\n")) == (3, 1)
    assert "two: " in err
    assert "its keys are still there" in err
    (folder,) = (home / "state/tftpbench/hosts").glob("*/")
    assert folder.name.endswith("-two")
    ssh(home, HERE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("h:/usr/bin/python3", ("h", "/usr/bin/python3", "h")),
        ("u@[2001:db8::1]:/a b/python", ("u@[2001:db8::1]", "/a b/python", "2001:db8::1")),
    ],
)
def test_a_host_is_named_as_ssh_and_a_path(text: str, expected: tuple[str, str, str]) -> None:
    host = SshHost.of(text)
    assert (host.destination, host.python, host.name) == expected
    assert host.command("look")[-2] == host.destination.replace("[", "").replace("]", "")
    assert shlex.split(host.command("look")[-1])[0] == host.python


@pytest.mark.parametrize(
    "text", ["", "h", "h:", "h:python", "u@h", "-oProxyCommand=x:/p", "u@-h:/p", "u h:/p", "h:/p\n"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape("allowed: USER@HOST:/path/to/python")):
        SshHost.of(text)


def test_a_host_is_taken_once(capsys: pytest.CaptureFixture[str]) -> None:
    make_keys()
    code, _, err = said(capsys, "hosts", "up", HOSTS[0], HOSTS[0])
    assert (code, err) == (2, "tftpbench: error: one: given twice; one worker on each host is enough\n")


def test_hosts_must_see_this_machine_at_one_address() -> None:
    assert cluster._own_address(["a", "b"], ["192.0.2.1", "192.0.2.1"]) == "192.0.2.1"
    with pytest.raises(HostsError, match=re.escape("192.0.2.1 from a, not known from b; name one")):
        cluster._own_address(["a", "b"], ["192.0.2.1", ""])


def test_only_the_process_that_was_started_is_ever_ended() -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        own = Process.of(other.pid)
        assert own is not None
        Process(own.pid, f"{own.began}0").end()  # the number is another's now
        assert other.poll() is None
        own.end()
        assert other.wait(0) == -signal.SIGTERM


def test_what_a_process_has_started_ends_with_it() -> None:
    script = "trap '' TERM; sleep 60 & echo $!; wait"
    with subprocess.Popen(["sh", "-c", script], start_new_session=True, stdout=subprocess.PIPE) as leader:
        assert leader.stdout is not None
        child, own = Process.of(int(leader.stdout.readline())), Process.of(leader.pid)
        assert child is not None
        assert own is not None
        with ends([own, child], 5), pytest.MonkeyPatch.context() as patch:
            patch.setattr(cluster, "END_S", 0.2)
            own.end()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("tcp://192.0.2.1:8786", "without certificates, all who reach that port can run programs on it"),
        ("192.0.2.1:8786", "allowed: a scheduler's address, as in tls://192.0.2.1:8786"),
        ("ucx://192.0.2.1:8786", "allowed: a scheduler's address"),
        ("tls://192.0.2.1", "allowed: a scheduler's address"),
        ("tls://[::1", "allowed: a scheduler's address"),
        ("tls://127.0.0.1:9", "make certificates with: tftpbench hosts init"),
    ],
)
def test_an_address_that_is_not_allowed_is_one_line(
    capsys: pytest.CaptureFixture[str], address: str, expected: str
) -> None:
    for command in (["load", "127.0.0.1:9", "--read", "f"], ["run", "smoke"], ["capacity", "epoll", "--boot", "uefi"]):
        code, out, err = said(capsys, *command, "--dask", address)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert expected in err


def test_its_files_go_with_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "load", "127.0.0.1:9", "--read", "f", "--dask-key", "key.pem")
    assert (code, err) == (2, "tftpbench: error: --dask-ca, --dask-cert and --dask-key go with --dask\n")


@pytest.mark.parametrize(
    "command",
    [
        ["load", "127.0.0.1:9", "--read", "f", "--dask", "tcp://127.0.0.1:9"],
        ["hosts", "init"],
        ["hosts", "up", HOSTS[0]],
    ],
)
def test_without_the_extra_one_line_says_how_to_get_it(command: list[str]) -> None:
    if command[1] == "up":
        make_keys()
    script = (
        "import sys; sys.modules.update(dict.fromkeys(['distributed', 'cryptography'])); "
        "from tftpbench.cli import main; main(sys.argv[1:])"
    )
    done = subprocess.run([PYTHON, "-c", script, *command], capture_output=True, text=True, check=False)
    what = "--dask" if command[0] == "load" else "hosts"
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        rf"tftpbench: error: {what}[a-z ]*: needs the extra: {re.escape(carriers.EXTRA)}\n", done.stderr
    )


def test_a_cluster_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    make_keys()
    for address in ("tls://127.0.0.1:9", "tcp://127.0.0.1:9"):
        code, out, err = said(capsys, "load", "127.0.0.1:9", "--read", "f", "--dask", address)
        assert (code, out) == (3, "")
        assert err == f"tftpbench: error: --dask {address}: no scheduler can be had there: Connection refused\n"


def test_what_is_no_scheduler_is_one_line() -> None:
    keys = make_keys()
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"tls://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(HostsError, match=f"{address}: no scheduler can be had there: "):
            DaskCarrier(address, keys, timeout_s=0.5)


def test_a_worker_that_is_killed_is_a_host_lost_at_once(home: Path, up: str) -> None:
    one = known(home)[1]
    with DaskCarrier(up, usual_keys()) as carrier, stopped(one):
        why = lost_by(
            lambda: carrier.call("one", "", "hello", b"", 25),
            lambda: os.kill(one.pid, signal.SIGKILL),
        )
        assert why == "one: its Dask worker has ended"
        with pytest.raises(HostLost, match="one: its Dask worker has ended"):
            carrier.call("one", "", "hello", b"", 25)
        assert carrier.call("two", "", "hello", b"", 25)


def test_a_scheduler_that_is_killed_is_a_host_lost_and_its_workers_end(home: Path, up: str) -> None:
    scheduler, one, two = known(home)
    with DaskCarrier(up, usual_keys()) as carrier, stopped(one), ends([two], 30):
        why = lost_by(
            lambda: carrier.call("one", "", "hello", b"", 25),
            lambda: os.kill(scheduler.pid, signal.SIGKILL),
        )
        assert why == f"one: the scheduler at {up} has ended"


def test_a_host_that_does_not_answer_gets_no_further_call(home: Path, up: str) -> None:
    with DaskCarrier(up, usual_keys()) as carrier:
        with stopped(known(home)[1]), pytest.raises(HostLost, match=r"one: no answer to hello within 0\.2 s"):
            carrier.call("one", "", "hello", b"", 0.2)
        with pytest.raises(HostLost, match=r"no answer to hello within 0\.2 s"):
            carrier.call("one", "", "hello", b"", 25)


def test_other_certificates_do_not_open_a_cluster(home: Path, up: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "other"))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "none"))
    others = make_keys()
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    with pytest.raises(HostsError, match="no scheduler can be had there"):
        DaskCarrier(up, others, timeout_s=2)


def test_a_host_without_this_program_is_one_line(up: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only_here = ModuleType("only_here")
    exec("async def answer(load_id, call, document): pass", only_here.__dict__)
    monkeypatch.setitem(sys.modules, "only_here", only_here)
    monkeypatch.setattr(worker_side, "answer", only_here.answer)
    with DaskCarrier(up, usual_keys()) as carrier, pytest.raises(HostsError, match="No module named 'only_here'"):
        carrier.call("one", "", "hello", b"", 25)


# Loads over it -------------------------------------------------------------------------------------------------------

SIZE = 1_000
SECOND = 1_000_000_000
# One time before, at and after the start is enough each time the tests run; the soak has more of each.
TIMES = [0, *(pytest.param(number, marks=pytest.mark.soak) for number in range(1, 10))]


@pytest.fixture
def listening() -> Iterator[Peer]:
    """A server that keeps all that it hears."""
    with peer(serve_bytes(contents(size=SIZE))) as made:
        yield made


def heard(listening: Peer) -> Counter[bytes]:
    """How often each file was asked for."""
    requests = [datagram for datagram in list(listening.received) if opcode(datagram) == RRQ]
    return Counter(request[2:].split(b"\0")[0] for request in requests)


class Watched:
    """A carrier that says which call it is going to make."""

    def __init__(self, way: DaskCarrier, before: Callable[[str, str], object]) -> None:
        self.hosts, self._way, self._before = way.hosts, way, before

    def call(self, host: str, load_id: str, call: calls.Call, document: bytes, timeout_s: float) -> bytes:
        self._before(host, call)
        return self._way.call(host, load_id, call, document, timeout_s)

    def close(self) -> None:
        """The carrier is the test's."""


def test_a_load_from_two_hosts_is_one_load(up: str, listening: Peer, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"127.0.0.1:{listening.port}"
    asked = ("--read", "f-{n}", "--rate", "200/s", "-n", "100", "--timeout", "20s", "--json")
    code, out, _ = said(capsys, "load", where, *asked, "--dask", up)
    document = json.loads(out)
    assert (code, document["intended"], document["completed"], document["load_hosts"]) == (0, 100, 100, 2)
    assert heard(listening) == {f"f-{number}".encode(): 1 for number in range(100)}


def test_a_loopback_address_is_not_for_hosts_elsewhere(
    up: str, listening: Peer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HostsGenerator, "is_here", False)
    code, _, err = said(capsys, "load", f"127.0.0.1:{listening.port}", "--read", "f", "--dask", up)
    assert (code, err.count("\n")) == (2, 1)
    assert "127.0.0.1 is itself to each load host; give the server's address as all of them reach it" in err
    code, _, err = said(capsys, "load", "-s", "epoll", "--network", "namespace", "--read", "f", "--dask", up)
    assert (code, err.count("\n")) == (2, 1)
    assert not listening.received


@pytest.mark.parametrize("again", TIMES)
@pytest.mark.parametrize("when", ["prepare", "go", "poll"], ids=["before", "at", "after"])
@pytest.mark.parametrize("what", ["scheduler", "worker"])
def test_what_carries_the_calls_is_killed_and_each_start_is_made_once(
    home: Path, up: str, listening: Peer, what: str, when: str, again: int
) -> None:
    scheduler, *workers = known(home)
    killed = scheduler if what == "scheduler" else workers[again % 2]
    load = LoadConfig(
        host="127.0.0.1", port=listening.port, operation="read", name="f-{n}", file_size_bytes=SIZE, verify="off",
        concurrency=20, rate_per_s=100.0, duration_ns=120 * SECOND, distinct_files=0, timeout_ns=20 * SECOND,
    )  # fmt: skip
    agents: list[Process] = []

    def kill() -> None:
        agents.extend(each for worker in workers for each in worker.descendants())
        os.kill(killed.pid, signal.SIGKILL)

    def before(host: str, call: str) -> None:
        if call == when != "poll" and host == "one" and not agents:
            kill()

    def look(now: Progress) -> None:
        if when == "poll" and now.started and not agents:
            kill()

    left = workers if what == "scheduler" else [killed]
    with DaskCarrier(up, usual_keys()) as carrier, ends(left, 30):
        result = HostsGenerator(Watched(carrier, before)).run(load, Stop(), None, look)
    assert result.hosts_lost is not None
    assert "has ended" in result.hosts_lost
    for agent in agents:
        until(lambda agent=agent: not runs(agent.pid), "it still runs", 15)
    assert max(heard(listening).values(), default=1) == 1
    assert bool(heard(listening)) == (when == "poll")


@pytest.mark.usefixtures("any_machine")
def test_a_run_that_is_killed_goes_on_and_its_hosts_stop_by_themselves(
    home: Path, up: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed: list[int] = []
    serve = serve_bytes(contents(size=SIZE))

    def answer(self: Peer, datagram: bytes, address: tuple[str, int]) -> None:
        if started and not killed and opcode(datagram) == RRQ and b"timeout" not in datagram and len(agents()) == 2:
            killed.append(started[0].pid)
            started[0].kill()
        if len(killed) != 1:
            serve(self, datagram, address)

    def agents() -> list[Process]:
        return [each for worker in known(home)[1:] for each in worker.descendants()]

    started: list[subprocess.Popen[bytes]] = []
    scenario = tmp_path / "few.yaml"
    scenario.write_text(
        "{schema: tftpbench.scenario/1, name: few, description: 'Few?', servers: [epoll], transfers: 20, trials: 1,"
        " verify: off, matrix: {operation: read, concurrency: 4, file_size: 1KiB}}"
    )
    out = tmp_path / "results"
    with peer(answer) as listening:
        target = ("--target", f"127.0.0.1:{listening.port}", "--target-file", "f", "--out", str(out), "--dask", up)
        command = [PYTHON, "-c", PROGRAM, "run", str(scenario), *target, "--quiet"]
        with subprocess.Popen(command) as process:
            started.append(process)
            assert process.wait(60) == -signal.SIGKILL
        for agent in agents():
            until(lambda agent=agent: not runs(agent.pid), "it still sends", 20)
        (folder,) = out.iterdir()
        assert len(load_run(folder).rows) == 0
        killed.append(0)
        code, _, err = said(capsys, "run", "--resume", str(folder), "--dask", up, "--quiet")
    assert (code, err) == (0, "")
    (row,) = load_run(folder).rows
    assert (row["load_hosts"], row["completed"]) == (2, 20)


def test_a_real_ssh_server(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "ssh").unlink()
    asked = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "localhost", "true"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=20)
    except FileNotFoundError:
        pytest.skip("there is no ssh here")
    if done.returncode:
        pytest.skip(f"no ssh server lets this user in here: {done.stderr.strip()}")
    assert said(capsys, "hosts", "init")[0] == 0
    code, _, err = said(capsys, "hosts", "up", f"localhost:{PYTHON}", "--port", "0")
    assert (code, err) == (0, "")
    with ends(known(home)[:1], 0):
        assert said(capsys, "hosts", "down")[0] == 0
