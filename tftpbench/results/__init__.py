"""Results: one folder per run, written trial by trial, read back as data frames (docs/results-format.md).

    results/<UTC>-<scenario>/
      manifest.json            the scenario as run, seed, versions, machine, keys
      trials.jsonl             one line per finished trial
      trials/<trial>/          transfers.parquet intervals.parquet latency.hlog server.log

A finished trial is never lost, and a half-written one never seen. Figures are stored and merged here, never
computed. Called by the runner (RunFolder) and by everybody who reads (load_run, load_runs).
"""

from tftpbench.columns import COLUMNS, INTERVAL_COLUMNS, TRANSFER_COLUMNS
from tftpbench.results.folder import RunFolder
from tftpbench.results.format import SCHEMA
from tftpbench.results.latency import Latency
from tftpbench.results.run import Run, load_run, load_runs

__all__ = [
    "COLUMNS",
    "INTERVAL_COLUMNS",
    "SCHEMA",
    "TRANSFER_COLUMNS",
    "Latency",
    "Run",
    "RunFolder",
    "load_run",
    "load_runs",
]
