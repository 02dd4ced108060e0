"""Pack a run for keeping, as the reference runs are kept (docs/results-format.md, "A packed run").

    python -m benches.pack RUN FOLDER [--histograms-only] [--merge]

FOLDER must not exist. RUN is left as it is.
"""

import argparse
import sys
from pathlib import Path

from tftpbench.model.errors import ResultsError
from tftpbench.store.pack import pack


def main() -> None:
    """Pack, and say how large the run was and is."""
    parser = argparse.ArgumentParser(prog="python -m benches.pack", description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("folder", type=Path, help="new folder for the packed run")
    parser.add_argument("--histograms-only", action="store_true", help="leave out transfers, intervals and logs")
    parser.add_argument(
        "--merge", action="store_true", help="one histogram for all valid trials of a contender in a cell"
    )
    asked = parser.parse_args()
    try:
        pack(asked.run, asked.folder, histograms_only=asked.histograms_only, merge=asked.merge)
    except ResultsError as error:
        raise SystemExit(f"benches.pack: {error}") from None
    for folder in (asked.run, asked.folder):
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        sys.stdout.write(f"{folder}: {len(sizes)} files, {sum(sizes) / 1e6:.2f} MB\n")


if __name__ == "__main__":
    main()
