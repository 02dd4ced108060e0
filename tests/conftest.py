"""How tests are spread over processes: each runs where there is room, those that share something run together."""

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

TOGETHER = (
    "tests/instructions/test_bounds.py",  # their program is built once
    "tests/loopback/test_gate_faults.py",  # their base is measured once
    "tests/packaging/test_wheel.py",  # it is unpacked once
    "tests/peers/test_manifests.py",  # some servers have one fixed port
)


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
