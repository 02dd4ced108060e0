"""Reading a run folder: tidy data frames and merged histograms.

Files are read when first asked for. What is whole is loaded, and what is not is said: in `problems`, and once as a
ResultsWarning. It must never change a folder, and never average percentiles: `latency` merges histograms.
"""

import glob as globbing
import inspect
import math
import re
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tftpbench.model import invariants
from tftpbench.model.arguments import path_of
from tftpbench.model.capacity import FoundCapacity
from tftpbench.model.errors import ResultsError, ResultsWarning, suggest
from tftpbench.model.escape import one_line
from tftpbench.model.latency import Latency
from tftpbench.model.metrics import BOOT_COLUMNS, INTERVAL_COLUMNS, LATENCY_KINDS, TRANSFER_COLUMNS
from tftpbench.model.shown import Column, Shown
from tftpbench.model.thresholds import server_name
from tftpbench.model.units import counted
from tftpbench.store import format as form
from tftpbench.store import tables
from tftpbench.store.trial_files import PackedRun, TrialFiles, WholeRun

if TYPE_CHECKING:
    import pandas as pd

# Bound of all tables of a run together (docs/results-format.md, "Bounds"): 4 GB of data frame.
TABLE_ROWS_MAX = 30_000_000


class Run(Shown):
    """One run as it lies on the disk, whole or packed. Built by load_run.

    Its files are read when they are first asked for. What can't be read is left out, listed in `problems`, and
    reported once as a ResultsWarning. `path` is its folder, `manifest` what manifest.json holds.
    """

    def __init__(self, path: Path) -> None:
        """Read the manifest of the run folder `path`; ResultsError where it is none, or of an unknown schema."""
        self.path = path
        self.manifest: dict[str, Any] = form.read_manifest(path)
        self._found: dict[str, None] = {}  # problems, in the order in which reading came upon them
        self._files: TrialFiles = PackedRun(path, self.manifest) if self.is_packed else WholeRun(path)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    @property
    def is_packed(self) -> bool:
        """Whether it is kept in the packed form, one file of each kind for all trials. It is then never resumed."""
        return form.is_packed(self.manifest)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """What `trials` is made of: keys and plain values as in trials.jsonl, None where unknown.

        Trials that break a law become invalid here, whatever else of the run is read: their counters must add up, and
        their transfers, where they were kept, obey Little's law.
        """
        read = form.read_trials(self.path, packed=self.is_packed)
        for number, fault in read.faults:
            self._report(f"{form.TRIALS}:{number}: {fault}; left out")
        if read.torn is not None:
            self._report(f"{form.TRIALS}:{read.torn}: the last line is torn; its trial is left out")
        for row in read.rows:
            self._judge(row, invariants.counters_fault(row))
            if row["verdict"] == "valid":
                self._judge(row, self._littles_law_fault(row))
        return read.rows

    @cached_property
    def trials(self) -> "pd.DataFrame":
        """One row per finished trial, valid or not, with the columns of trials.jsonl (docs/results-format.md).

        Then any newer ones, and `contender`: name, or name@variant. Units are last in a name (`_ns`, `_s`, `_bytes`);
        rates are per second. Words of few values are categories; those of `server` and `contender` stand in the
        scenario's order. What is not known is NA.
        """
        return tables.trials(self.rows, self._entered())

    @property
    def valid(self) -> "pd.DataFrame":
        """The rows of `trials` whose figures may be used."""
        return self.trials[self.trials["verdict"] == "valid"]

    @cached_property
    def transfers(self) -> "pd.DataFrame":
        """One row per transfer of each trial: `trial`, `contender`, its cell and `verdict`, then its figures.

        `intended_start_ns actual_start_ns first_response_ns end_ns`, in ns since the trial's first start, NA where it
        never came; `bytes retransmissions outcome error_code` (docs/results-format.md, "transfers.parquet").
        """
        frame = tables.frame(self._tables(form.TRANSFERS, TRANSFER_COLUMNS), TRANSFER_COLUMNS)
        return tables.with_cells(frame, self.trials, tables.CELL)

    @cached_property
    def boots(self) -> "pd.DataFrame":
        """One row per machine of each trial whose machines boot: `trial`, `contender`, its cell and `verdict`.

        Then `machine`, the profile that it follows as `boot`, its times in ns since the trial's first start, NA where
        it never came, and how it ended (docs/results-format.md, "boots.parquet").
        """
        frame = tables.frame(self._tables(form.BOOTS, BOOT_COLUMNS), BOOT_COLUMNS)
        return tables.with_cells(frame, self.trials, tuple(name for name in tables.CELL if name not in BOOT_COLUMNS))

    @cached_property
    def intervals(self) -> "pd.DataFrame":
        """One row per interval of every trial: `trial`, `contender`, its cell and `verdict`, then its counts.

        `interval` from 0, and `blocks bytes in_flight retransmissions` of that time. An interval has 100 ms; in trials
        of more than ten minutes `duration_ns`.
        """
        frame = tables.frame(self._tables(form.INTERVALS, INTERVAL_COLUMNS), INTERVAL_COLUMNS)
        frame.insert(1, "interval", frame.groupby("trial").cumcount())
        return tables.with_cells(frame, self.trials, tables.CELL)

    def latency(self, kind: str, *, valid_only: bool = True, **cell: object) -> Latency:
        """The merged histogram, in ns, of `kind` over the trials whose columns equal `cell`.

        `kind`: block_rtt, transfer or first_response. `cell`: columns of `trials` and their values, as in
        `run.latency("block_rtt", contender="epoll", concurrency=100).percentile(99)`. Trials that are invalid are left
        out unless `valid_only` is False. Raises ResultsError where kind, column or trials don't exist, and for some of
        the trials whose histograms were merged when the run was packed.
        """
        if kind not in list(LATENCY_KINDS):  # a list: not everything that a caller gives has a hash
            raise ResultsError(f"no latency is called {kind!r}{suggest(str(kind), LATENCY_KINDS)}")
        return self.merged(kind, self._choose(cell, valid_only), cell or "a valid verdict")

    def merged(self, kind: str, trials: Sequence[int], those: object) -> Latency:
        """`latency` of `kind` for these `trials`; `those` says in an error which they are."""
        parts, broken, absent = [], [], 0
        for trial in self._apart(trials):
            try:
                found = self._files.histogram(trial, kind)
                parts += [found] if found is not None else []
            except FileNotFoundError:
                absent += 1
            except ResultsError as error:
                broken.append(f"{self._files.label(trial, form.LATENCY)} {error}")
        if not parts:
            self._found |= dict.fromkeys(broken)  # the error names one of them
            none = _have_no(absent, form.LATENCY) if absent else f"no trial with {kind} has {those}"
            raise ResultsError(f"{self.path}: {broken[0] if broken else none}")
        for line in broken:
            self._report(line)
        if absent:
            self._warn(f"{_have_no(absent, form.LATENCY)}: the others are merged")
        return parts[0].merge(*parts[1:])

    @property
    def valid_trials(self) -> dict[tuple[str, str], list[int]]:
        """Numbers of the valid trials, by cell_key and contender."""
        found: dict[tuple[str, str], list[int]] = {}
        for row in self.rows:
            if row["verdict"] == "valid":
                found.setdefault((row["cell_key"], server_name(row)), []).append(row["trial"])
        return found

    def sharing(self, trial: int) -> tuple[int, ...]:
        """The trials, `trial` among them, whose histograms were merged when the run was packed."""
        return self._files.sharing(trial)

    def spectrum(self, kind: str, *, valid_only: bool = True, **cell: object) -> "pd.DataFrame":
        """`latency` of each contender that was measured there: the rows of Latency.to_frame, with its `contender`.

        `kind`, `valid_only` and `cell` as for `latency`. Raises ResultsError where no contender has any.
        """
        import pandas as pd

        parts: list[pd.DataFrame] = []
        refused: ResultsError | None = None
        for name in self.trials["contender"].cat.categories:
            try:
                found = self.latency(kind, valid_only=valid_only, **{"contender": name, **cell})
                parts.append(found.to_frame().assign(contender=name))
            except ResultsError as error:
                refused = error
        if not parts:
            raise refused or ResultsError(f"{self.path}: has no trial")
        whole = pd.concat(parts, ignore_index=True)
        whole["contender"] = pd.Categorical(whole["contender"], self.trials["contender"].cat.categories)
        return whole

    def cohort(self, *, valid_only: bool = True, **cell: object) -> "pd.DataFrame":
        """Response and service times of each contender over all that were intended: `contender kind value_ns count`.

        Of machines where these boot, else of transfers. `kind`: response, from the intended start, or service, from
        the request; a row of infinite value counts what never came to its end. `valid_only` and `cell` as for
        `latency`. Raises ResultsError where no contender has any.
        """
        import pandas as pd

        boots = "boot_service" if self.trials.get("machines", pd.Series(dtype=float)).notna().any() else ""
        parts = []
        for kind, histogram in (("response", boots and "boot"), ("service", boots)):
            found = self.spectrum(histogram or kind, valid_only=valid_only, **cell)
            for name, rows in found.groupby("contender", observed=True):
                chosen = set(self._choose({"contender": name, **cell}, valid_only))
                ours = [row for row in self.rows if row["trial"] in chosen]
                never = _never(ours, int(rows["count"].sum()), is_of_begun=kind == "service", is_boots=bool(boots))
                last = pd.DataFrame({"value_ns": [math.inf], "count": [never], "contender": [name]})
                parts.append(pd.concat([rows[["value_ns", "count", "contender"]], last]).assign(kind=kind))
        whole = pd.concat(parts, ignore_index=True)
        whole["contender"] = pd.Categorical(whole["contender"], self.trials["contender"].cat.categories)
        return whole[["contender", "kind", "value_ns", "count"]]

    @property
    def problems(self) -> tuple[str, ...]:
        """What is not whole, a line each, as far as files were read: trials.jsonl here, others when asked for."""
        return (*self.broken, *self.absent)

    @property
    def broken(self) -> tuple[str, ...]:
        """Those of `problems` that cost trials or figures."""
        present = len(self.rows)
        planned = self.manifest.get("trials_planned")
        planned = planned - self._not_done if isinstance(planned, int) else None
        lost = sum(problem.startswith(f"{form.TRIALS}:") for problem in self._found)
        cut_off = []
        if isinstance(planned, int) and present < planned:
            why = ": the run was cut off" if present + lost < planned else ""
            cut_off = [f"{present} of {counted(planned, 'planned trial')} are there{why}"]
        unknown = sum(row["verdict"] == "valid" and row["data_pps"] is None for row in self.rows)
        no_rate = [_have_no(unknown, "data_pps", "valid trial")] if unknown else []
        return (*cut_off, *self._found, *no_rate)

    @property
    def absent(self) -> tuple[str, ...]:
        """Those of `problems` that tell of files which a run may be kept without."""
        lacking = {
            name: sum(form.has_file(row, name) and not self._files.has(row["trial"], name) for row in self.rows)
            for name in form.OPTIONAL
        }
        return tuple(f"{_have_no(count, name)}, kept without" for name, count in lacking.items() if count)

    @cached_property
    def searches(self) -> tuple[FoundCapacity, ...]:
        """What its searches for capacities found; none where it had none. Raises ResultsError."""
        return form.read_searches(self.path)

    @property
    def said(self) -> str | None:
        """The sentence that the run said in the end; None where it has not, as when it was cut off.

        The first line of answer.txt, or, of a packed run without one, `said` of its manifest.
        """
        kept = self.manifest.get("said")
        return form.read_answer(self.path) or (kept if isinstance(kept, str) else None)

    def __repr__(self) -> str:
        try:
            valid = sum(row["verdict"] == "valid" for row in self.rows)
            text = f"{counted(len(self.rows), 'trial')}, {valid} valid"
            problems = len(self.problems)
        except ResultsError as error:
            return f"Run({str(self.path)!r}: {error})"
        more = f", {counted(problems, 'problem')}" if problems else ""
        return f"Run({str(self.path)!r}: {text}{more})"

    def _judge(self, row: dict[str, Any], fault: str | None) -> None:
        """Make a trial invalid whose figures can't be true, unless that is why it is invalid already."""
        reason = row.get("verdict_reason") or ""
        if fault is None or fault in reason:
            return
        row["verdict"], row["verdict_reason"] = "invalid", f"{reason}; {fault}" if reason else fault
        self._report(f"trial {row['trial']} is invalid: {fault}")

    def _littles_law_fault(self, row: dict[str, Any]) -> str | None:
        """What the trial's transfers say against its rate; what can't be read says nothing until it is asked for."""
        if (
            invariants.littles_law_fault(row, math.inf) is None
        ):  # no time would be wrong: the law is not for this window
            return None
        try:
            times = self._files.table(
                row["trial"], form.TRANSFERS, tables.TIMES, others=False, rows_max=tables.ROWS_MAX
            )
            mean_ns = tables.mean_transfer_ns(times, row["duration_s"])
        except (OSError, ResultsError):
            return None
        return invariants.littles_law_fault(row, mean_ns)

    @property
    def _not_done(self) -> int:
        """Trials of servers that did not start, which the run left out."""
        return sum(each["not_done"] for each in self.manifest.get("left_out", ()))

    def _entered(self) -> list[str]:
        """The contenders in the scenario's order: manifests go by their names there, paths by theirs in `servers`."""
        return [*self.manifest.get("servers", ())]

    def _choose(self, cell: dict[str, object], valid_only: bool) -> list[int]:
        frame = self.valid if valid_only else self.trials
        for name, value in cell.items():
            if name not in frame.columns:
                raise ResultsError(f"trials have no column {name!r}{suggest(name, frame.columns)}")
            same = frame[name].isna() if value is None else (frame[name] == value).fillna(False)
            frame = frame[same.astype(bool)]
        return [int(trial) for trial in frame["trial"]]

    def _tables(self, name: str, columns: dict[str, Column]) -> dict[int, Any]:
        found, absent, left = {}, 0, TABLE_ROWS_MAX
        for row in (row for row in self.rows if form.has_file(row, name)):
            trial = row["trial"]
            try:
                table = self._files.table(trial, name, columns, rows_max=left)
                found[trial], left = table, left - table.num_rows
            except FileNotFoundError:
                absent += 1
            except ResultsError as error:
                self._report(f"{self._files.label(trial, name)} {error}; left out")
        if absent:
            self._warn(f"{_have_no(absent, name)}, kept without")
        return found

    def _apart(self, trials: Sequence[int]) -> list[int]:
        """One trial for each histogram of these. ResultsError where they are only some of those that share one."""
        asked, chosen = {*trials}, dict[int, None]()
        for trial in trials:
            group = self._files.sharing(trial)
            if not asked.issuperset(group):
                apart = "were merged when the run was packed; ask for all of them, or for none"
                raise ResultsError(f"{self.path}: the histograms of the trials {', '.join(map(str, group))} {apart}")
            chosen[group[0]] = None
        return [*chosen]

    def _report(self, problem: str) -> None:
        if problem not in self._found:
            self._found[problem] = None
            self._warn(problem)

    def _warn(self, text: str) -> None:
        _warn(f"{self.name}: {text}")


def load_run(path: Path | str) -> Run:
    """The Run in the folder `path`, whole or packed. Raises ResultsError in one line where there is none."""
    return Run(path_of(path, "a run's folder", ResultsError))


def load_runs(glob: str) -> list[Run]:
    """The Runs in all folders that the pattern `glob` finds ("results/*-concurrency"), oldest name first.

    One that can't be opened is left out, with a ResultsWarning. Raises ResultsError where none is left.
    """
    pattern = path_of(glob, "runs' folders, with * where they differ", ResultsError)
    runs: list[Run] = []
    refused: list[ResultsError] = []
    for folder in map(Path, sorted(_found(pattern))):
        try:
            runs += [Run(folder)] if form.is_run(folder) else []
        except ResultsError as error:
            refused.append(error)
    if not runs:
        raise refused[0] if refused else ResultsError(f"{glob}: finds no run folder")
    for refusal in refused:
        _warn(f"{refusal}; left out")
    return runs


def _never(rows: Sequence[dict[str, Any]], ended: int, *, is_of_begun: bool, is_boots: bool) -> int:
    """How many of the cohort of these trials did not come to their end; in a closed loop, of all that were begun."""
    lost, shed = ("boots_failed boots_late", "boots_shed") if is_boots else ("failed timed_out late", "shed")
    cohorts = [invariants.cohort(row) for row in rows]
    if None in cohorts:
        return sum(row.get(name) or 0 for row in rows for name in lost.split())
    left_out = sum(row.get(shed) or 0 for row in rows) if is_of_begun else 0
    return max(sum(each or 0 for each in cohorts) - left_out - ended, 0)


def _found(pattern: Path) -> list[str]:
    try:
        return globbing.glob(str(pattern.expanduser()))
    except (OSError, RuntimeError, ValueError, RecursionError, re.error):  # no such home, a NUL, no pattern
        return []


def _have_no(count: int, name: str, of: str = "trial") -> str:
    return f"{counted(count, of)} {'has' if count == 1 else 'have'} no {name}"


def _warn(text: str) -> None:
    """Point at the line outside the package that asked."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and frame.f_globals["__name__"].startswith(("tftpbench", "functools")):
        level, frame = level + 1, frame.f_back
    warnings.warn(one_line(text), ResultsWarning, stacklevel=level)
