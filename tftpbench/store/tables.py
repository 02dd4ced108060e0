"""Tables and rows as data frames: arrays of a trial as Arrow tables (transfers, boots, intervals), rows of trials."""

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tftpbench.model.axes import AXES
from tftpbench.model.errors import ResultsError
from tftpbench.model.metrics import BOOT_OUTCOMES, BOOT_REASONS, COLUMNS, METRICS, OUTCOMES, TRANSFER_COLUMNS
from tftpbench.model.regular_file import UnfitFile, open_regular
from tftpbench.model.shown import Column
from tftpbench.model.thresholds import server_name

if TYPE_CHECKING:
    import pandas as pd


Arrays = Mapping[str, NDArray[np.generic]]
_WORD = pa.dictionary(pa.int8(), pa.string())
# Bounds of one file (docs/results-format.md, "Bounds"): a window of a minute with 100,000 transfers a second.
ROWS_MAX = 10_000_000
COLUMNS_MAX = 100
SIZE_MAX_BYTES = 1 << 30  # as it says of itself, decompressed
# What numbers in place of words mean, by column; what is no number stands for itself.
Words = Mapping[str, Sequence[str]]
TRANSFER_WORDS: Words = {"outcome": OUTCOMES}
BOOT_WORDS: Words = {"outcome": BOOT_OUTCOMES, "reason": BOOT_REASONS}
TIMES = {name: TRANSFER_COLUMNS[name] for name in ("actual_start_ns", "end_ns", "outcome")}


def write(path: Path, arrays: Arrays, columns: Mapping[str, Column], words: Words = TRANSFER_WORDS) -> None:
    """Write the documented columns, in order, then any others. A negative number means null where a column may be."""
    missing = [name for name, column in columns.items() if name not in arrays and not column.nullable]
    if missing:
        raise ValueError(f"{path.name} needs the columns {', '.join(missing)}")
    rows = len(next(iter(arrays.values())))
    there = {name: arrays.get(name, np.full(rows, -1)) for name in columns} | dict(arrays)
    table = pa.table(
        {name: _column(np.asarray(each), columns.get(name), words.get(name, ())) for name, each in there.items()}
    )
    # Times rise by little from row to row: their differences take less than half the room (Parquet, "Encodings").
    texts = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    deltas = {field.name: "DELTA_BINARY_PACKED" for field in table.schema if pa.types.is_integer(field.type)}
    pq.write_table(table, path, compression="zstd", use_dictionary=texts, column_encoding=deltas)


def write_packed(path: Path, table: pa.Table) -> None:
    """Write the table of many trials as small as it gets: for files that are kept for years, not for the run."""
    words = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    others = [field.name for field in table.schema if field.name not in words]
    split = dict.fromkeys(others, "BYTE_STREAM_SPLIT")
    # Brotli at its best is 15 % smaller than zstd at its best, and ten times slower to write.
    pq.write_table(table, path, compression="brotli", compression_level=11, use_dictionary=words, column_encoding=split)


RELATIVE_COLUMNS = ("actual_start_ns", "first_response_ns", "end_ns")


def relative_times(table: pa.Table) -> pa.Table:
    """Transfers with actual start and end from the row before, and the first response from the start.

    A time that is null stays so, and counts as 0. Values wrap as int64 do, so any come back. The columns have names of
    their own (`relative_name`): older versions find no times rather than wrong ones.
    """
    start = _filled(table, "actual_start_ns")
    table = _with(table, {
        "actual_start_ns": np.diff(start, prepend=0),
        "first_response_ns": _filled(table, "first_response_ns") - start,
        "end_ns": np.diff(_filled(table, "end_ns"), prepend=0),
    })  # fmt: skip
    return table.rename_columns([relative_name(name) for name in table.column_names])


def relative_name(name: str) -> str:
    """The column of relative times that stands for this one; of any other its own name."""
    return f"relative_{name}" if name in RELATIVE_COLUMNS else name


def absolute_times(table: pa.Table) -> pa.Table:
    """What `relative_times` was made of."""
    names = {relative_name(name): name for name in RELATIVE_COLUMNS}
    table = table.rename_columns([names.get(name, name) for name in table.column_names])
    start = np.cumsum(_filled(table, "actual_start_ns"))
    return _with(table, {
        "actual_start_ns": start,
        "first_response_ns": _filled(table, "first_response_ns") + start,
        "end_ns": np.cumsum(_filled(table, "end_ns")),
    })  # fmt: skip


def _filled(table: pa.Table, name: str) -> NDArray[np.int64]:
    return np.asarray(table.column(name).combine_chunks().fill_null(0).to_numpy(zero_copy_only=False), np.int64)


def _with(table: pa.Table, columns: Mapping[str, NDArray[np.int64]]) -> pa.Table:
    for name, values in columns.items():
        nulls = table.column(name).combine_chunks().is_null().to_numpy(zero_copy_only=False)
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.int64(), mask=nulls))
    return table


def read(path: Path, columns: Mapping[str, Column], *, others: bool = True, rows_max: int = ROWS_MAX) -> pa.Table:
    """The table in the file: these columns in order, null where an older file lacks one, then any others.

    Raises FileNotFoundError where there is none, ResultsError where it can't be read.
    """
    try:
        with _opened(path) as stream, pq.ParquetFile(stream) as file:
            _refuse_large(file.metadata, min(rows_max, ROWS_MAX))
            table = file.read(_flat(file.schema_arrow, columns) if others else [*columns])
        known = {
            name: table.column(name).cast(_arrow_type(column))
            if name in table.column_names
            else pa.nulls(table.num_rows, _arrow_type(column))
            for name, column in columns.items()
        }
        return pa.table(known | {name: table.column(name) for name in table.column_names if name not in known})
    except FileNotFoundError:
        raise
    except UnfitFile as error:
        raise ResultsError(f"can't be read: it {error.strerror}") from None
    # Arrow's words for what is not Parquet: also ValueError and TypeError, of names that are no text, or there twice.
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        reason = (str(error).splitlines() or ["input/output error"])[0]
        raise ResultsError(f"can't be read: {reason}") from None


def closed_loop_starts(table: pa.Table, concurrency: int) -> pa.Array:
    """When each transfer of a closed loop was wanted: the first `concurrency` at 0, each later one at an earlier's end.

    `table` has the columns `number`, which counts transfers by their starts from 0, and `end_ns`. Raises ResultsError
    where these do not say so.
    """
    if "number" not in table.column_names or table.column("number").null_count:
        raise ResultsError("can't be read: it has rows without number")
    ends = np.sort(table.column("end_ns").drop_null().to_numpy())
    freed = table.column("number").to_numpy() - concurrency
    if freed.size and freed.max() >= ends.size:
        raise ResultsError("can't be read: it has transfers that no other one made room for")
    return pa.array(np.where(freed < 0, 0, np.take(ends, np.maximum(freed, 0)) if ends.size else 0), pa.int64())


def frame(tables: Mapping[int, pa.Table], columns: Mapping[str, Column]) -> "pd.DataFrame":
    """The tables of several trials in one, `trial` first."""
    import pandas as pd

    empty = pa.table({name: pa.array([], type=_arrow_type(column)) for name, column in columns.items()})
    # permissive: a column that only newer runs have is null in the older ones.
    whole = pa.concat_tables([empty, *tables.values()], promote_options="permissive").unify_dictionaries()
    trial = np.repeat(np.array([*tables], np.int64), [table.num_rows for table in tables.values()])
    read_ = {name: _series(whole.column(name), columns.get(name)) for name in whole.column_names}
    return pd.DataFrame({"trial": trial, **read_}, copy=False)


def mean_transfer_ns(table: pa.Table, window_s: float) -> float | None:
    """Mean time of the trial's transfers that completed within the measured window; None where it has none.

    `table` has the columns TIMES. The last transfer starts when a closed loop's window closes; that is where the
    window is known from.
    """
    start, end = (table.column(name).to_numpy().astype(np.float64) for name in ("actual_start_ns", "end_ns"))
    if not start.size or np.isnan(start).all():
        return None
    close = np.nanmax(start)
    completed = pc.equal(table.column("outcome"), "completed").fill_null(False).to_numpy()
    times = (end - start)[completed & (close - window_s * 1e9 <= end) & (end <= close)]
    return float(times.mean()) if times.size else None


def with_cells(frame: "pd.DataFrame", trials: "pd.DataFrame", names: tuple[str, ...]) -> "pd.DataFrame":
    """The frame with these columns of its trials after `trial`; words as codes, so that a million rows cost little."""
    import pandas as pd

    place = pd.Index(trials["trial"]).get_indexer(frame["trial"])
    added = {}
    for name in names:
        column = trials[name]
        whole = column.dtype == "Int64" and not column.isna().any()
        added[name] = (column.astype("int64") if whole else column).array.take(place)
    others = {name: frame[name] for name in frame.columns if name not in added and name != "trial"}
    return pd.DataFrame({"trial": frame["trial"], **added, **others}, copy=False)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pa.NativeFile]:
    """The regular file at `path`, read by Arrow itself: its threads would wait for Python to read for them."""
    descriptor = open_regular(path)
    try:
        with pa.OSFile(f"/proc/self/fd/{descriptor}") as stream:
            yield stream
    finally:
        os.close(descriptor)


def _refuse_large(metadata: pq.FileMetaData, rows_max: int) -> None:
    """What the file says of itself, before anything of it is unpacked."""
    size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    for count, most, what in (
        (metadata.num_rows, rows_max, "rows"),
        (metadata.num_columns, COLUMNS_MAX, "columns"),
        (size, SIZE_MAX_BYTES, "bytes unpacked"),
    ):
        if not 0 <= count <= most:
            raise ResultsError(f"can't be read: it has {count} {what}; allowed: {most} at most")


def _flat(schema: pa.Schema, columns: Mapping[str, Column]) -> list[str]:
    """The documented columns, and of the others those of plain values: no column of ours holds lists."""
    return [field.name for field in schema if field.name in columns or not pa.types.is_nested(field.type)]


def _column(values: NDArray[np.generic], column: Column | None, words: Sequence[str]) -> pa.Array:
    if column is not None and column.dtype == "text":
        texts = np.array(words)[values] if values.dtype.kind in "iu" else values.astype(str)
        return pa.array(texts.tolist(), type=pa.string()).dictionary_encode().cast(_WORD)
    if values.dtype.kind == "f":
        return pa.array(values, type=pa.float64())
    numbers = values.astype(np.int64)
    nullable = column is not None and column.nullable
    return pa.array(numbers, type=pa.int64(), mask=numbers < 0 if nullable else None)


def _arrow_type(column: Column) -> pa.DataType:
    return {"text": _WORD, "float": pa.float64()}.get(column.dtype, pa.int64())


def _series(values: pa.ChunkedArray, column: Column | None) -> "pd.Series[int]":
    import pandas as pd

    if pa.types.is_integer(values.type) and (values.null_count or (column is not None and column.nullable)):
        series: pd.Series[int] = values.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    else:
        series = values.to_pandas()
    return series


_DTYPES = {"int": "Int64", "float": "float64", "text": "string", "list": "object", "bool": "boolean"}
# Text of few values, and those that are known beforehand, in the order in which they are shown.
_WORDS: dict[str, tuple[str, ...]] = {
    "server": (),
    "variant": (),
    "operation": ("read", "write"),
    "arrivals": ("even", "poisson"),
    "verify": (),
    "server_cpus": (),
    "generator_cpus": (),
    "verdict": ("valid", "invalid"),
    "generator_sockets": (),
}
CONTENDER = "contender"
# What a transfer's row says of its trial.
CELL = (CONTENDER, *AXES, "verdict")


def trials(rows: Sequence[Mapping[str, Any]], entered: Sequence[str]) -> "pd.DataFrame":
    """One row per trial: COLUMNS in order, then newer ones, then `contender`.

    `entered`: the contenders in the scenario's order, which is the order of the categories; those without a trial
    are no category.
    """
    import pandas as pd

    others = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS and name != CONTENDER)
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *others])
    names = [server_name(row) for row in rows]
    order = [name for name in dict.fromkeys([*entered, *names]) if name in set(names)]
    known = _WORDS | {"server": tuple(name.partition("@")[0] for name in order)}
    for name, column in COLUMNS.items():
        if column.dtype == "time":
            frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601")
        elif name in known:
            frame[name] = _words(frame[name].tolist(), known[name])
        elif name in METRICS and METRICS[name].may_be_never:
            times = [math.inf if row.get(f"{name}_is_never") else row.get(name) for row in rows]
            frame[name] = pd.array(times, dtype="float64")
        elif column.dtype == "int":  # not by way of the frame: beside a None it has floats, which lack the last digits
            frame[name] = pd.array([row.get(name) for row in rows], dtype="Int64")
        else:
            frame[name] = frame[name].astype(_DTYPES[column.dtype])  # type: ignore[call-overload]
    frame[CONTENDER] = _words(names, order)
    return frame


def _words(values: Sequence[str | None], first: Sequence[str]) -> "pd.Categorical":
    import pandas as pd

    there = [value if isinstance(value, str) else None for value in values]  # an absent key is NaN in a frame
    return pd.Categorical(
        there, categories=list(dict.fromkeys([*first, *(word for word in there if word is not None)]))
    )
