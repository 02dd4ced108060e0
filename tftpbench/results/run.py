"""Reading a run folder: tidy data frames and merged histograms.

Files are read when first asked for. It must never change a folder, and never average percentiles: `latency`
merges histograms. Called by everybody who looks at results, notebooks first.
"""

import glob as globbing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdrh.histogram import HdrHistogram

from tftpbench.columns import COLUMNS, INTERVAL_COLUMNS, LATENCY_KINDS, TRANSFER_COLUMNS
from tftpbench.errors import ResultsError
from tftpbench.results import format as form
from tftpbench.results import tables
from tftpbench.spelling import did_you_mean

if TYPE_CHECKING:
    import pandas as pd

_DTYPES = {"int": "Int64", "float": "float64", "text": "string", "list": "object"}


class Run:
    """One run as it lies on the disk. Built by load_run."""

    def __init__(self, path: Path) -> None:
        """Read the manifest of the run folder `path`; ResultsError where it is none, or of an unknown schema."""
        self.path = path
        self.manifest: dict[str, Any] = form.read_manifest(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @cached_property
    def trials(self) -> "pd.DataFrame":
        """One row per finished trial, valid or not; columns as in COLUMNS, in order, then any newer ones."""
        import pandas as pd

        rows, _ = form.read_trials(self.path)
        others = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
        frame = pd.DataFrame(rows, columns=[*COLUMNS, *others])
        for name, column in COLUMNS.items():
            if column.dtype == "time":
                frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601")
            else:
                frame[name] = frame[name].astype(_DTYPES[column.dtype])  # type: ignore[call-overload]
        return frame

    @cached_property
    def transfers(self) -> "pd.DataFrame":
        """One row per transfer of every trial, with its `trial`; times in ns of the generator's monotonic clock."""
        return tables.read(self._files(form.TRANSFERS), TRANSFER_COLUMNS)

    @cached_property
    def intervals(self) -> "pd.DataFrame":
        """One row per 100 ms of every trial, with its `trial` and `interval`, from 0."""
        frame = tables.read(self._files(form.INTERVALS), INTERVAL_COLUMNS)
        frame.insert(1, "interval", frame.groupby("trial").cumcount())
        return frame

    def latency(self, kind: str, *, valid_only: bool = True, **cell: object) -> HdrHistogram:
        """The merged histogram, in ns, of `kind` over the trials whose columns equal `cell`.

        `run.latency("block_rtt", server="epoll", concurrency=100).get_value_at_percentile(99)`. Trials that are
        invalid are left out unless valid_only is False. ResultsError where kind, column or trials don't exist.
        """
        if kind not in LATENCY_KINDS:
            hint = did_you_mean(kind, LATENCY_KINDS)
            raise ResultsError(f"no latency is called {kind!r}{hint}; allowed: {', '.join(LATENCY_KINDS)}")
        chosen = self._choose(cell, valid_only)
        logs = [path for trial, path in self._files(form.LATENCY).items() if trial in chosen and path.is_file()]
        found = [text for path in logs for text in _histograms(path, kind)]
        if not found:
            raise ResultsError(f"{self.path}: no trial with {kind} has {cell or 'a valid verdict'}")
        return _merged(found, self.path)

    def _choose(self, cell: dict[str, object], valid_only: bool) -> set[int]:
        frame = self.trials
        for name, value in cell.items():
            if name not in frame.columns:
                hint = did_you_mean(name, frame.columns)
                raise ResultsError(f"trials have no column {name!r}{hint}; allowed: {', '.join(frame.columns)}")
            same = frame[name].isna() if value is None else (frame[name] == value).fillna(False)
            frame = frame[same.astype(bool)]
        if valid_only:
            frame = frame[(frame["verdict"] == "valid").fillna(False).astype(bool)]
        return {int(trial) for trial in frame["trial"]}

    def _files(self, name: str) -> dict[int, Path]:
        return {int(trial): self.path / form.TRIAL_FILES / str(trial) / name for trial in self.trials["trial"]}


def load_run(path: Path | str) -> Run:
    """Open the run folder `path`; ResultsError in one line where it is none."""
    return Run(Path(path))


def load_runs(glob: str) -> list[Run]:
    """Open every run folder that the pattern finds ("results/*-concurrency"), oldest name first."""
    folders = [Path(found) for found in sorted(globbing.glob(str(Path(glob).expanduser())))]
    runs = [Run(folder) for folder in folders if (folder / form.MANIFEST).is_file()]
    if not runs:
        raise ResultsError(f"{glob}: finds no run folder")
    return runs


def _histograms(path: Path, kind: str) -> list[str]:
    """Encoded V2 histograms of one tag: `Tag=<kind>,start,length,max,payload` lines of an interval log."""
    # Not hdrh's own log reader: it decodes every tag's histogram to choose one.
    with form.explained(path, "read"):
        lines = path.read_text(encoding="utf-8").splitlines()
    return [line.rpartition(",")[2] for line in lines if line.startswith(f"Tag={kind},")]


def _merged(encoded: list[str], path: Path) -> HdrHistogram:
    try:
        parts = [HdrHistogram.decode(text) for text in encoded]
    except Exception as error:  # hdrh lets zlib, struct, base64 and its own errors through
        raise ResultsError(f"{path}: a {form.LATENCY} can't be read: {error}") from None
    # Histograms of one build have equal bounds, and are added as arrays.
    whole = HdrHistogram(
        min(part.lowest_trackable_value for part in parts),
        max(part.highest_trackable_value for part in parts),
        max(part.significant_figures for part in parts),
    )
    for part in parts:
        whole.add(part)
    return whole
