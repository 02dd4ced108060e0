"""Packing a finished run for keeping: some five files in place of four for each trial (docs/results-format.md).

    python -m tftpbench.store.pack RUN FOLDER [--histograms-only] [--merge] [--kinds KIND,...]

It must never change the run that it packs, and leaves nothing where the packed one would read otherwise.
"""

import argparse
import lzma
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tftpbench.model.errors import ResultsError
from tftpbench.model.latency import Latency
from tftpbench.model.metrics import BOOT_COLUMNS, INTERVAL_COLUMNS, LATENCY_KINDS, TRANSFER_COLUMNS
from tftpbench.model.regular_file import read_regular
from tftpbench.model.shown import Column
from tftpbench.store import format as form
from tftpbench.store import tables
from tftpbench.store.run import Run, load_run
from tftpbench.store.trial_files import TrialFiles, WholeRun

_TABLES = {form.TRANSFERS: TRANSFER_COLUMNS, form.BOOTS: BOOT_COLUMNS, form.INTERVALS: INTERVAL_COLUMNS}
_OF_MACHINES = {form.BOOTS: BOOT_COLUMNS}
_LOG_MAX_BYTES = 64 << 20  # a log is cut by the run that writes it; the largest recorded one has 17 KB
_LEFT = "leave its folder as it is, or measure it again"


def pack(
    source: Path,
    folder: Path,
    *,
    histograms_only: bool = False,
    merge: bool = False,
    kinds: Sequence[str] = tuple(LATENCY_KINDS),
) -> Run:
    """The run folder `source` packed into the new `folder`, read back and compared before it gets its name.

    Rows and answer are kept as they are, and of each trial one histogram of each kind, the sum of its seconds.
    `histograms_only` leaves out transfers, intervals and logs; machines keep their rows. `kinds`: the histograms that
    are kept. `merge` adds up the histograms of the valid trials of
    one contender in one cell; those trials can then only be asked for together. Raises ResultsError where the run is
    packed already or not whole, where `folder` exists, or where the packed run would read otherwise.
    """
    run = load_run(source)
    _refuse_unfit(run)
    if folder.exists():
        raise ResultsError(f"{folder}: is there already; choose another name")
    made = folder.with_name(f".unfinished-{secrets.token_hex(8)}")
    with form.explained(folder, "written"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        made.mkdir()
        try:
            _write(run, made, _OF_MACHINES if histograms_only else _TABLES, kinds, merge=merge)
            _refuse_difference(run, load_run(made), kinds)
            made.rename(folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    return load_run(folder)


def main() -> None:
    """Pack, and say how large the run was and is."""
    parser = argparse.ArgumentParser(
        prog="python -m tftpbench.store.pack", description="Pack a finished run for keeping; RUN is left as it is."
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="new folder for the packed run")
    parser.add_argument("--histograms-only", action="store_true", help="leave out transfers, intervals and logs")
    parser.add_argument(
        "--merge", action="store_true", help="one histogram for all valid trials of a contender in a cell"
    )
    parser.add_argument(
        "--kinds", metavar="KIND,...", type=_kinds, default=tuple(LATENCY_KINDS),
        help=f"histograms to keep, of {', '.join(LATENCY_KINDS)}; all unless given",
    )  # fmt: skip
    asked = parser.parse_args()
    try:
        pack(
            asked.run, asked.folder, histograms_only=asked.histograms_only, merge=asked.merge, kinds=asked.kinds
        )  # fmt: skip
    except ResultsError as error:
        raise SystemExit(f"{parser.prog}: {error}") from None
    for folder in (asked.run, asked.folder):
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        sys.stdout.write(f"{folder}: {len(sizes)} files, {sum(sizes) / 1e6:.2f} MB\n")


def _kinds(text: str) -> tuple[str, ...]:
    named = text.split(",")
    if unknown := [kind for kind in named if kind not in LATENCY_KINDS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(LATENCY_KINDS)}")
    return tuple(kind for kind in LATENCY_KINDS if kind in named)


def _refuse_unfit(run: Run) -> None:
    if run.is_packed:
        raise ResultsError(f"{run.path}: is packed already")
    if run.broken:
        raise ResultsError(f"{run.path}: is not whole: {run.broken[0]}; {_LEFT}")
    files = WholeRun(run.path)
    for name in form.OPTIONAL:
        trials = [row["trial"] for row in run.rows if form.has_file(row, name)]
        lacking = sum(not files.has(trial, name) for trial in trials)
        if 0 < lacking < len(trials):
            raise ResultsError(f"{run.path}: {lacking} of {len(trials)} trials have no {name}; {_LEFT}")


def _write(
    run: Run, folder: Path, kept: Mapping[str, Mapping[str, Column]], kinds: Sequence[str], *, merge: bool
) -> None:
    files = WholeRun(run.path)
    groups = [group for group in run.valid_trials.values() if len(group) > 1] if merge else []
    added: dict[str, object] = {form.MERGED_TRIALS: groups} if groups else {}
    rows = read_regular(run.path / form.TRIALS, form.TRIALS_MAX_BYTES)
    # Not -9: reading would take 65 MiB of memory for the same size.
    (folder / form.PACKED_TRIALS).write_bytes(lzma.compress(rows, preset=6 | lzma.PRESET_EXTREME))
    if (run.path / form.ANSWER).exists():
        (folder / form.ANSWER).write_bytes(read_regular(run.path / form.ANSWER, form.ANSWER_MAX_BYTES))
    if (run.path / form.CAPACITY).exists():
        (folder / form.CAPACITY).write_bytes(read_regular(run.path / form.CAPACITY, form.CAPACITY_MAX_BYTES))
    trials = [row["trial"] for row in run.rows]
    if trials and files.has(trials[0], form.LATENCY):
        tables.write_packed(folder / form.PACKED_LATENCY, _latency_table(run, files, trials, groups, kinds))
    for name, columns in kept.items():
        having = [row["trial"] for row in run.rows if form.has_file(row, name)]
        if having and files.has(having[0], name):
            parts = {trial: _table(run, files, trial, name, columns) for trial in having}
            if name == form.TRANSFERS and _starts_at_ends(run, parts):
                added[form.CLOSED_LOOP_STARTS] = True
                parts = {trial: part.drop_columns([form.INTENDED_START]) for trial, part in parts.items()}
            whole = _together(parts)
            if name == form.TRANSFERS:
                added[form.RELATIVE_TIMES] = True
                whole = tables.relative_times(whole)
            tables.write_packed(folder / name, whole)
    if form.TRANSFERS in kept and any(files.has(trial, form.SERVER_LOG) for trial in trials):
        (folder / form.SERVER_LOG).write_bytes(b"".join(_log(run.path, trial) for trial in trials))
    manifest = {**run.manifest, "schema": form.PACKED_SCHEMA, **added}
    (folder / form.MANIFEST).write_text(form.json_text(manifest) + "\n", encoding="utf-8")


def _table(run: Run, files: TrialFiles, trial: int, name: str, columns: Mapping[str, Column]) -> pa.Table:
    try:
        return files.table(trial, name, columns, rows_max=tables.ROWS_MAX)
    except ResultsError as error:
        raise ResultsError(f"{run.path}/{files.label(trial, name)} {error}") from None


def _starts_at_ends(run: Run, parts: Mapping[int, pa.Table]) -> bool:
    """Whether a reader can tell every intended start from the other columns, as in closed loops."""
    concurrencies = {row["trial"]: row["concurrency"] for row in run.rows}
    try:
        return all(
            part.column(form.INTENDED_START).combine_chunks()
            == tables.closed_loop_starts(part, concurrencies[trial] or 0)
            for trial, part in parts.items()
        )
    except ResultsError:
        return False


def _histogram(run: Run, files: TrialFiles, trial: int, kind: str) -> Latency | None:
    try:
        return files.histogram(trial, kind)
    except ResultsError as error:
        raise ResultsError(f"{run.path}/{files.label(trial, form.LATENCY)} {error}") from None


def _latency_table(
    run: Run, files: TrialFiles, trials: Sequence[int], groups: Sequence[Sequence[int]], kinds: Sequence[str]
) -> pa.Table:
    """The rows of PACKED_LATENCY, kind by kind: histograms of one kind are alike, and pack better together."""
    shared = {trial: group for group in groups for trial in group}
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("trial", "kind", "step_ns", "count")}
    for number, kind in enumerate(LATENCY_KINDS):
        for trial in trials if kind in kinds else ():
            group = shared.get(trial, [trial])
            if trial != group[0]:
                continue
            parts = [part for part in (_histogram(run, files, one, kind) for one in group) if part is not None]
            whole = parts[0].merge(*parts[1:]) if parts else Latency.of([])
            columns["trial"].append(np.full(whole.values_ns.size, trial))
            columns["kind"].append(np.full(whole.values_ns.size, number))
            columns["step_ns"].append(np.diff(whole.values_ns, prepend=0))
            columns["count"].append(whole.counts)
    arrays = {name: pa.array(np.concatenate(parts), pa.int64()) for name, parts in columns.items()}
    arrays["kind"] = pa.DictionaryArray.from_arrays(arrays["kind"].cast(pa.int8()), list(LATENCY_KINDS))
    return pa.table(arrays)


def _together(parts: dict[int, pa.Table]) -> pa.Table:
    """The tables of all trials in one, `trial` first."""
    whole = pa.concat_tables(parts.values(), promote_options="permissive").unify_dictionaries()
    trial = np.repeat(np.array([*parts], np.int64), [table.num_rows for table in parts.values()])
    return whole.add_column(0, "trial", pa.array(trial))


def _log(run: Path, trial: int) -> bytes:
    """The trial's log under a heading like that of head and tail."""
    name = f"{form.TRIAL_FILES}/{trial}/{form.SERVER_LOG}"
    try:
        text = read_regular(run / name, _LOG_MAX_BYTES)
    except FileNotFoundError:
        return b""
    return f"==> {name} <==\n".encode() + text + (b"" if text.endswith(b"\n") or not text else b"\n")


def _refuse_difference(run: Run, packed: Run, kinds: Sequence[str]) -> None:
    """Raises ResultsError where the packed run does not give what the run gives: rows, histograms, tables."""
    if packed.rows != run.rows:
        raise ResultsError(f"{run.path}: can't be packed so: its trials would be judged otherwise")
    for kind in kinds:
        for trials in {row["trial"]: packed.sharing(row["trial"]) for row in run.rows}.values():
            if _recorded(run, kind, trials) != _recorded(packed, kind, trials):
                raise ResultsError(f"{run.path}: can't be packed: {kind} of trial {trials[0]} would be another")
    for name in _TABLES:
        frames = [getattr(each, name.partition(".")[0]) for each in (run, packed)] if _has(packed, name) else []
        if frames and not frames[0].equals(frames[1]):
            raise ResultsError(f"{run.path}: can't be packed: {name} would be another")


def _has(packed: Run, name: str) -> bool:
    return (packed.path / name).exists()


def _recorded(run: Run, kind: str, trials: Sequence[int]) -> tuple[bytes, bytes] | str:
    try:
        found = run.merged(kind, trials, "such a trial")
    except ResultsError as error:
        return str(error).removeprefix(f"{run.path}: ")
    return found.values_ns.tobytes(), found.counts.tobytes()


if __name__ == "__main__":
    main()
