"""tftpbench: a benchmark and load-testing toolkit for TFTP servers on Linux.

The public API, for notebooks and scripts; everything else may change. Names are imported when first used, because the
child processes of bundled servers import this package too and must not wait for data frames. `gate` is the
sub-package, and can be called; `gate_ab` is its function, with a signature that help and type checkers see.

    run = tftpbench.run("concurrency", quick=True)        # the same as `tftpbench run concurrency --quick`
    run.trials.groupby(["server", "concurrency"]).data_pps.median()
    run.latency("block_rtt", server="epoll", concurrency=100).percentile(99)
    tftpbench.answer(run).to_frame()
    print(tftpbench.compare("results/before", "results/after").sentence)
    print(tftpbench.gate("./old/mytftpd", "./new/mytftpd", like="mytftpd.yaml").sentence)
    with tftpbench.Server("epoll", root="files") as server:
        print(server.host, server.port)
    with tftpbench.Server("epoll", store="memory") as server:
        for upload in server:
            print(upload.name, len(upload.data))
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tftpbench import gate, plots
    from tftpbench.analysis.capacity import frame as capacities
    from tftpbench.analysis.comparison import Comparison, compare
    from tftpbench.analysis.summary import Answer
    from tftpbench.analysis.summary import answer_of as answer
    from tftpbench.api import Server, gate_ab, run
    from tftpbench.gate import GateInterrupted
    from tftpbench.gate.document import load as load_gate
    from tftpbench.gate.result import GateResult
    from tftpbench.host.server import Upload
    from tftpbench.measure import RunInterrupted
    from tftpbench.model.errors import (
        BaselineMissing,
        BootError,
        HostsError,
        LoadError,
        ManifestError,
        NotComparable,
        PlotError,
        ResultsError,
        ResultsWarning,
        ScenarioError,
        ServerDied,
        ServerError,
        ServerHostLost,
        ServerMissing,
        ServerNotReady,
        TftpbenchError,
        ThresholdError,
        UsageError,
    )
    from tftpbench.model.scenario import Scenario
    from tftpbench.model.scenario_files import load_scenario
    from tftpbench.store import Latency, Run, load_run, load_runs

# The module, and the name there where it is another.
_HOMES = {
    "Answer": "analysis.summary",
    "BaselineMissing": "model.errors",
    "BootError": "model.errors",
    "Comparison": "analysis.comparison",
    "GateInterrupted": "gate",
    "GateResult": "gate",
    "HostsError": "model.errors",
    "Latency": "store",
    "LoadError": "model.errors",
    "ManifestError": "model.errors",
    "NotComparable": "model.errors",
    "PlotError": "model.errors",
    "ResultsError": "model.errors",
    "ResultsWarning": "model.errors",
    "Run": "store",
    "RunInterrupted": "measure",
    "Scenario": "model.scenario",
    "ScenarioError": "model.errors",
    "Server": "api",
    "ServerDied": "model.errors",
    "ServerError": "model.errors",
    "ServerHostLost": "model.errors",
    "ServerMissing": "model.errors",
    "ServerNotReady": "model.errors",
    "TftpbenchError": "model.errors",
    "ThresholdError": "model.errors",
    "Upload": "host.server",
    "UsageError": "model.errors",
    "answer": "analysis.summary:answer_of",
    "capacities": "analysis.capacity:frame",
    "compare": "analysis.comparison",
    "gate_ab": "api",
    "load_gate": "gate.document:load",
    "load_run": "store",
    "load_runs": "store",
    "load_scenario": "model.scenario_files",
    "run": "api",
}

_PACKAGES = ("gate", "plots")

__all__ = [
    "Answer",
    "BaselineMissing",
    "BootError",
    "Comparison",
    "GateInterrupted",
    "GateResult",
    "HostsError",
    "Latency",
    "LoadError",
    "ManifestError",
    "NotComparable",
    "PlotError",
    "ResultsError",
    "ResultsWarning",
    "Run",
    "RunInterrupted",
    "Scenario",
    "ScenarioError",
    "Server",
    "ServerDied",
    "ServerError",
    "ServerHostLost",
    "ServerMissing",
    "ServerNotReady",
    "TftpbenchError",
    "ThresholdError",
    "Upload",
    "UsageError",
    "answer",
    "capacities",
    "compare",
    "gate",
    "gate_ab",
    "load_gate",
    "load_run",
    "load_runs",
    "load_scenario",
    "plots",
    "run",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return import_module("importlib.metadata").version("tftpbench")
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, other_name = _HOMES[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), other_name or name)


def __dir__() -> list[str]:
    return sorted(__all__)
