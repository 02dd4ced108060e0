"""What holds for all tests with real servers: a busy machine spoils no trial of theirs (see machine.py)."""

import pytest

from tests.loopback.machine import IGNORED


@pytest.fixture(autouse=True)
def _any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in IGNORED.items():
        monkeypatch.setattr(f"tftpbench.checks.{name}", limit)
