"""tftpbench: a benchmark and load-testing toolkit for TFTP servers on Linux.

The public API, for notebooks and scripts; everything else may change. Names are imported when first used, because the
child processes of bundled servers import this package too and must not wait for data frames.

    run = tftpbench.run("concurrency", quick=True)        # the same as `tftpbench run concurrency --quick`
    run.trials.groupby(["server", "concurrency"]).data_pps.median()
    run.latency("block_rtt", server="epoll", concurrency=100).get_value_at_percentile(99)
    with tftpbench.Server("epoll", root="files") as server:
        print(server.host, server.port)
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tftpbench.api import Server as Server
    from tftpbench.api import run as run
    from tftpbench.errors import LoadError as LoadError
    from tftpbench.errors import ManifestError as ManifestError
    from tftpbench.errors import ResultsError as ResultsError
    from tftpbench.errors import ScenarioError as ScenarioError
    from tftpbench.errors import ServerError as ServerError
    from tftpbench.errors import TftpbenchError as TftpbenchError
    from tftpbench.results import Run as Run
    from tftpbench.results import load_run as load_run
    from tftpbench.results import load_runs as load_runs
    from tftpbench.scenario import Scenario as Scenario
    from tftpbench.scenario import load_scenario as load_scenario

_HOMES = {
    "LoadError": "errors",
    "ManifestError": "errors",
    "ResultsError": "errors",
    "Run": "results",
    "Scenario": "scenario",
    "ScenarioError": "errors",
    "Server": "api",
    "ServerError": "errors",
    "TftpbenchError": "errors",
    "load_run": "results",
    "load_runs": "results",
    "load_scenario": "scenario",
    "run": "api",
}

__all__ = [
    "LoadError",
    "ManifestError",
    "ResultsError",
    "Run",
    "Scenario",
    "ScenarioError",
    "Server",
    "ServerError",
    "TftpbenchError",
    "load_run",
    "load_runs",
    "load_scenario",
    "run",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
