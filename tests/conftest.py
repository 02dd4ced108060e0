"""What all tests share: how they are spread over processes, and what a busy machine must not do to them."""

import signal

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.loopback.machine import IGNORED

TOGETHER = (
    "tests/instructions/test_bounds.py",  # their program is built once
    "tests/loopback/test_gate_faults.py",  # their base is measured once
    "tests/packaging/test_wheel.py",  # it is unpacked once
    "tests/peers/test_manifests.py",  # some servers have one fixed port
    "tests/unit/store/test_hostile_folders.py",  # one process tries all folders
)


# Under nohup(1) children would ignore a hang-up, too. A handler is not handed on by exec (signal(7)); this one only
# keeps the tests going.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


def scope_of(nodeid: str) -> str:
    """Tests of one scope run one after another in one process."""
    module = nodeid.partition("::")[0]
    return module if module in TOGETHER else nodeid


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # it comes without types
    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    return _Scheduling(config, log) if config.getvalue("dist") == "loadscope" else None


@pytest.fixture
def any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine spoils no trial that this process judges (see loopback/machine.py)."""
    for name, limit in IGNORED.items():
        monkeypatch.setattr(f"tftpbench.measure.validity.{name}", limit)
