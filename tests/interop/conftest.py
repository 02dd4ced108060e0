"""The real clients that interop tests ask for, and a line at the end that says which of them were here."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.interop.clients import Gone, Here, look

_ASKED = pytest.StashKey[dict[str, Here | Gone]]()
_WORKERS = pytest.StashKey["_Workers"]()
_OUTPUT = "tftpbench.clients"


@pytest.fixture(scope="session")
def client(pytestconfig: pytest.Config) -> Callable[[str], Here]:
    """client(name), a name in clients.PROGRAMS, is a program of this machine; it skips with the reason without it."""
    asked = pytestconfig.stash.setdefault(_ASKED, {})

    def find(name: str) -> Here:
        found = asked[name] = look(name)
        if isinstance(found, Gone):
            pytest.skip(found.reason)
        return found

    return find


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A test process of several hands what it found to the one that prints."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_OUTPUT] = {name: _version(found) for name, found in session.config.stash.get(_ASKED, {}).items()}


class _Workers:
    """What the test processes of this session found."""

    def __init__(self) -> None:
        self.versions: dict[str, str | None] = {}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.versions |= getattr(node, "workeroutput", {}).get(_OUTPUT, {})


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_WORKERS] = workers = _Workers()
    config.pluginmanager.register(workers)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    asked = {name: _version(found) for name, found in config.stash.get(_ASKED, {}).items()}
    asked |= config.stash[_WORKERS].versions
    if not asked:
        return
    here = [f"{name} {version}" for name, version in sorted(asked.items()) if version is not None]
    gone = [name for name, version in sorted(asked.items()) if version is None]
    line = f"real clients: {', '.join(here) or 'none'}"
    terminalreporter.write_line(line + (f"; not here: {', '.join(gone)} (make peers)" if gone else ""))


def _version(found: Here | Gone) -> str | None:
    return found.version if isinstance(found, Here) else None
