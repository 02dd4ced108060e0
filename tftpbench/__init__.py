"""tftpbench: a benchmark and load-testing toolkit for TFTP servers on Linux.

The public API, for notebooks and scripts; everything else may change. Names are imported when first used, because the
child processes of bundled servers import this package too and must not wait for data frames.

    run = tftpbench.run("concurrency", quick=True)        # the same as `tftpbench run concurrency --quick`
    run.trials.groupby(["server", "concurrency"]).data_pps.median()
    run.latency("block_rtt", server="epoll", concurrency=100).percentile(99)
    print(tftpbench.compare("results/before", "results/after").sentence)
    with tftpbench.Server("epoll", root="files") as server:
        print(server.host, server.port)
    with tftpbench.Server("epoll", store="memory") as server:
        for upload in server:
            print(upload.name, len(upload.data))
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tftpbench.api import Server as Server
    from tftpbench.api import run as run
    from tftpbench.comparison import Comparison as Comparison
    from tftpbench.comparison import compare as compare
    from tftpbench.errors import LoadError as LoadError
    from tftpbench.errors import ManifestError as ManifestError
    from tftpbench.errors import NotComparable as NotComparable
    from tftpbench.errors import PlotError as PlotError
    from tftpbench.errors import ResultsError as ResultsError
    from tftpbench.errors import ResultsWarning as ResultsWarning
    from tftpbench.errors import ScenarioError as ScenarioError
    from tftpbench.errors import ServerError as ServerError
    from tftpbench.errors import TftpbenchError as TftpbenchError
    from tftpbench.gate.document import load as load_gate
    from tftpbench.gate.result import GateResult as GateResult
    from tftpbench.process import Upload as Upload
    from tftpbench.results import Latency as Latency
    from tftpbench.results import Run as Run
    from tftpbench.results import load_run as load_run
    from tftpbench.results import load_runs as load_runs
    from tftpbench.scenario import Scenario as Scenario
    from tftpbench.scenario import load_scenario as load_scenario
    from tftpbench.summary import answer_of as answer

# The module, and the name there where it is another.
_HOMES = {
    "Comparison": "comparison",
    "GateResult": "gate",
    "Latency": "results",
    "LoadError": "errors",
    "ManifestError": "errors",
    "NotComparable": "errors",
    "PlotError": "errors",
    "ResultsError": "errors",
    "ResultsWarning": "errors",
    "Run": "results",
    "Scenario": "scenario",
    "ScenarioError": "errors",
    "Server": "api",
    "ServerError": "errors",
    "TftpbenchError": "errors",
    "Upload": "process",
    "answer": "summary:answer_of",
    "compare": "comparison",
    "load_gate": "gate.document:load",
    "load_run": "results",
    "load_runs": "results",
    "load_scenario": "scenario",
    "run": "api",
}

__all__ = [
    "Comparison",
    "GateResult",
    "Latency",
    "LoadError",
    "ManifestError",
    "NotComparable",
    "PlotError",
    "ResultsError",
    "ResultsWarning",
    "Run",
    "Scenario",
    "ScenarioError",
    "Server",
    "ServerError",
    "TftpbenchError",
    "Upload",
    "answer",
    "compare",
    "load_gate",
    "load_run",
    "load_runs",
    "load_scenario",
    "run",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, other_name = _HOMES[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), other_name or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
