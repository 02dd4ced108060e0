"""Results: one folder per run, written trial by trial, read back as data frames (docs/results-format.md).

    results/<UTC>-<scenario>/
      manifest.json            the scenario as run, seed, versions, machine, keys
      trials.jsonl             one line per finished trial
      trials/<trial>/          transfers.parquet intervals.parquet latency.hlog server.log

For keeping, pack.py makes one file of each kind for all trials; run.py reads both forms through trial_files.py.
A finished trial is never lost, and a half-written one never seen. Figures are stored and merged here, never computed.
"""

from tftpbench.model.latency import Latency
from tftpbench.model.metrics import COLUMNS, INTERVAL_COLUMNS, TRANSFER_COLUMNS
from tftpbench.store.format import SCHEMA
from tftpbench.store.run import Run, load_run, load_runs
from tftpbench.store.writer import RunFolder

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
