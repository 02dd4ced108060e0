"""The files of a run's trials, whichever form the run has: a folder for each trial, or one packed file of each kind.

It must never change a file, and holds what it reads to the bounds of docs/results-format.md before it works on it.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tftpbench.model.errors import ResultsError
from tftpbench.model.latency import Integers, Latency
from tftpbench.model.metrics import TRANSFER_COLUMNS
from tftpbench.model.shown import Column
from tftpbench.store import format as form
from tftpbench.store import tables

# Bound of all histograms of a run together (docs/results-format.md, "Bounds"): a minute of decoding.
HISTOGRAMS_MAX = 100_000
TRIAL = {"trial": Column("", "Number of the trial.", "int", False)}
# A histogram is a run of rows, a row for each bucket that is not empty. `step_ns`: from the bucket before, which makes
# the file 15 % smaller than the values themselves do.
PACKED_LATENCY = TRIAL | {
    "kind": Column("", "block_rtt, transfer or first_response.", "text", False),
    "step_ns": Column("ns", "Highest value of the bucket, less that of the one before, from 0.", "int", False),
    "count": Column("", "Values in the bucket.", "int", False),
}


class TrialFiles(ABC):
    """What Run asks of either form. `folder`: the run's."""

    folder: Path

    def has(self, trial: int, name: str) -> bool:
        """Whether this file of the trial was kept; what lies there need not be readable."""
        return os.path.lexists(self.folder / self.label(trial, name))

    def sharing(self, trial: int) -> tuple[int, ...]:
        """The trials, this one among them, whose histograms were merged when the run was packed."""
        return (trial,)

    @abstractmethod
    def label(self, trial: int, name: str) -> str:
        """Where it lies, for people, from the run's folder."""

    @abstractmethod
    def table(
        self, trial: int, name: str, columns: Mapping[str, Column], *, others: bool = True, rows_max: int
    ) -> pa.Table:
        """The trial's part of a table. Raises as `tables.read` does."""

    @abstractmethod
    def histogram(self, trial: int, kind: str) -> Latency | None:
        """All that was recorded of this kind; None where nothing was.

        Raises FileNotFoundError where no histogram was kept, ResultsError where it can't be read.
        """


@dataclass
class WholeRun(TrialFiles):
    """trials/<trial>/ with files of its own, as a run writes them."""

    folder: Path
    _histograms: dict[tuple[int, str], int] = field(default_factory=dict)  # how many were read

    def label(self, trial: int, name: str) -> str:
        """As TrialFiles has it."""
        return f"{form.TRIAL_FILES}/{trial}/{name}"

    def table(
        self, trial: int, name: str, columns: Mapping[str, Column], *, others: bool = True, rows_max: int
    ) -> pa.Table:
        """As TrialFiles has it."""
        return tables.read(self.folder / self.label(trial, name), columns, others=others, rows_max=rows_max)

    def histogram(self, trial: int, kind: str) -> Latency | None:
        """As TrialFiles has it."""
        encoded = form.read_histograms(self.folder / self.label(trial, form.LATENCY), kind)
        before = sum(number for place, number in self._histograms.items() if place != (trial, kind))
        if before + len(encoded) > HISTOGRAMS_MAX:
            raise ResultsError(f"is left out: with it the run holds more than {HISTOGRAMS_MAX} histograms")
        self._histograms[trial, kind] = len(encoded)
        return Latency.of(encoded) if encoded else None


class PackedRun(TrialFiles):
    """One file of each kind for all trials, read when it is first asked for."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder = folder
        self._groups = {trial: tuple(group) for group in manifest.get(form.MERGED_TRIALS, ()) for trial in group}
        self._lacks_starts = manifest.get(form.CLOSED_LOOP_STARTS) is True
        self._is_relative = manifest.get(form.RELATIVE_TIMES) is True
        self._tables: dict[tuple[str, bool], dict[int, pa.Table] | str] = {}
        self._histograms: dict[tuple[int, str], tuple[Integers, Integers]] | str | None = None

    def label(self, _trial: int, name: str) -> str:
        """As TrialFiles has it."""
        return form.PACKED_LATENCY if name == form.LATENCY else name

    def table(
        self, trial: int, name: str, columns: Mapping[str, Column], *, others: bool = True, rows_max: int
    ) -> pa.Table:
        """As TrialFiles has it."""
        if (name, others) not in self._tables:
            self._tables[name, others] = self._read(name, columns, others=others)
        found = self._tables[name, others]
        if isinstance(found, str):
            raise ResultsError(found)
        table = found.get(trial)
        if table is None:
            return pa.table({each: pa.nulls(0) for each in columns})
        if table.num_rows > rows_max:
            raise ResultsError(f"can't be read: it has {table.num_rows} rows; allowed: {rows_max} at most")
        if self._lacks_starts and name == form.TRANSFERS and form.INTENDED_START in columns:
            starts = tables.closed_loop_starts(table, self._concurrencies.get(trial, 0))
            table = table.set_column(table.column_names.index(form.INTENDED_START), form.INTENDED_START, starts)
        return table

    def histogram(self, trial: int, kind: str) -> Latency | None:
        """As TrialFiles has it."""
        if self._histograms is None:
            try:
                self._histograms = _histograms(tables.read(self.folder / form.PACKED_LATENCY, PACKED_LATENCY))
            except ResultsError as error:
                self._histograms = str(error)
        if isinstance(self._histograms, str):
            raise ResultsError(self._histograms)
        found = self._histograms.get((self.sharing(trial)[0], kind))
        return Latency.from_steps(*found) if found else None

    def sharing(self, trial: int) -> tuple[int, ...]:
        """As TrialFiles has it."""
        return self._groups.get(trial, (trial,))

    @cached_property
    def _concurrencies(self) -> dict[int, int]:
        """By trial. Raises ResultsError as read_trials does."""
        rows = form.read_trials(self.folder, packed=True).rows
        return {row["trial"]: row["concurrency"] for row in rows if row["concurrency"] is not None}

    def _read(self, name: str, columns: Mapping[str, Column], *, others: bool) -> dict[int, pa.Table] | str:
        """The table of each trial, or why it can't be read, so that a bad file is read once."""
        try:
            wanted = {**TRIAL, **columns}
            if is_relative := self._is_relative and name == form.TRANSFERS:
                needed = {
                    each: TRANSFER_COLUMNS[each] for each in tables.RELATIVE_COLUMNS
                }  # they follow from one another
                wanted = {tables.relative_name(each): column for each, column in (wanted | needed).items()}
            table = _without_nulls(tables.read(self.folder / name, wanted, others=others), ["trial"])
            if is_relative:
                newer = (each for each in table.column_names if each not in wanted)
                table = tables.absolute_times(table).select([*dict.fromkeys(("trial", *columns, *newer))])
            starts, ends = _spans(table, ["trial"])
        except ResultsError as error:
            return str(error)
        numbers = table.column("trial").to_numpy()[starts].tolist()
        if len({*numbers}) < len(numbers):
            return "can't be read: the rows of a trial are not together"
        whole = table.drop_columns(["trial"])
        return {
            number: whole.slice(start, end - start) for number, start, end in zip(numbers, starts, ends, strict=True)
        }


def _histograms(table: pa.Table) -> dict[tuple[int, str], tuple[Integers, Integers]]:
    """Steps and counts by trial and kind. Raises ResultsError for what is no histogram."""
    table = _without_nulls(table, list(PACKED_LATENCY))
    starts, ends = _spans(table, ["trial", "kind"])
    if len(starts) > HISTOGRAMS_MAX:
        raise ResultsError(f"can't be read: it holds more than {HISTOGRAMS_MAX} histograms")
    trials, steps, counts = (table.column(name).to_numpy() for name in ("trial", "step_ns", "count"))
    kinds = table.column("kind").take(pa.array(starts)).to_pylist()
    found = {
        (trial, str(kind)): (steps[start:end], counts[start:end])
        for trial, kind, start, end in zip(trials[starts].tolist(), kinds, starts, ends, strict=True)
    }
    if len(found) < len(starts):
        raise ResultsError("can't be read: a histogram in it is there twice")
    return found


def _without_nulls(table: pa.Table, names: list[str]) -> pa.Table:
    for name in names:
        if table.column(name).null_count:
            raise ResultsError(f"can't be read: it has rows without {name}")
    return table


def _spans(table: pa.Table, names: list[str]) -> tuple[Integers, Integers]:
    """First rows, and those after the last, of the spans in which these columns stay the same."""
    changes = np.ones(table.num_rows, np.bool_)
    for name in names:
        column = table.column(name)
        if pa.types.is_dictionary(column.type):  # its codes may differ from piece to piece of the file
            pieces = column.unify_dictionaries().chunks
            codes = np.concatenate([np.empty(0, np.int64), *(piece.indices.to_numpy() for piece in pieces)])
        else:
            codes = column.to_numpy()
        changes[1:] &= codes[1:] == codes[:-1]
    changes[1:] = ~changes[1:]
    starts = np.flatnonzero(changes)
    return starts, np.append(starts[1:], table.num_rows)[: len(starts)]
