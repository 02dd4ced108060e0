"""Arrays of a trial as Arrow tables, and tables as data frames: transfers.parquet and intervals.parquet.

Only `tftpbench.results` may ask for this.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tftpbench.columns import OUTCOMES, Column

if TYPE_CHECKING:  # pandas takes a second to import, and a run writes without it
    import pandas as pd

Arrays = Mapping[str, NDArray[np.generic]]
_WORD = pa.dictionary(pa.int8(), pa.string())


def write(path: Path, arrays: Arrays, columns: Mapping[str, Column]) -> None:
    """Write the documented columns, in order, then any others. A negative number means null where a column may be."""
    missing = [name for name in columns if name not in arrays]
    if missing:
        raise ValueError(f"{path.name} needs the columns {', '.join(missing)}")
    names = [*columns, *(name for name in arrays if name not in columns)]
    pq.write_table(pa.table({name: _column(np.asarray(arrays[name]), columns.get(name)) for name in names}), path)


def read(paths: Mapping[int, Path], columns: Mapping[str, Column]) -> "pd.DataFrame":
    """One frame of the files of several trials, `trial` first; trials without a file are left out."""
    import pandas as pd

    tables = []
    for trial, path in paths.items():
        if path.is_file():
            table = pq.read_table(path)
            tables.append(table.add_column(0, "trial", pa.array(np.full(table.num_rows, trial, dtype=np.int64))))
    if not tables:
        empty = {name: pa.array([], type=_arrow_type(column)) for name, column in columns.items()}
        tables = [pa.table({"trial": pa.array([], type=pa.int64()), **empty})]
    # permissive: a column that only newer runs have is null in the older ones.
    whole = pa.concat_tables(tables, promote_options="permissive").unify_dictionaries()
    return pd.DataFrame({name: _series(whole.column(name), columns.get(name)) for name in whole.column_names})


def _column(values: NDArray[np.generic], column: Column | None) -> pa.Array:
    if column is not None and column.dtype == "text":
        words = [OUTCOMES[int(value)] for value in values] if values.dtype.kind in "iu" else values.astype(str).tolist()
        return pa.array(words, type=pa.string()).dictionary_encode().cast(_WORD)
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
