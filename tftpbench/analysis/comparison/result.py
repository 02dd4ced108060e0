"""What comparing two runs gives: the sentence, a row for each server and cell, and what to know before believing it.

It must never compute a ratio. Built by `tftpbench.analysis.comparison.compare`.
"""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tftpbench.analysis.comparison.cells import VERDICTS, Compared
from tftpbench.model.axes import AXES
from tftpbench.model.shown import Shown

if TYPE_CHECKING:
    import pandas as pd

_BOUNDS = ("ratio", "low", "high")


@dataclass(frozen=True)
class RunName:
    """Which run one side is."""

    path: str
    scenario: str | None
    method_key: str | None
    host_key: str | None


@dataclass(frozen=True)
class Comparison(Shown):
    """Two runs, A and B. Every ratio is B over A: above 1, B moved more."""

    a: RunName
    b: RunName
    within: float
    """What counts as the same: 0.05 for 5 %."""
    rows: tuple[Compared, ...]
    left_out: tuple[str, ...]
    """What could not be compared, and why."""
    warnings: tuple[str, ...]
    """What makes any difference doubtful."""
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<Comparison of {self.a.path} and {self.b.path}: {self.sentence}>"

    def to_frame(self) -> "pd.DataFrame":
        """One row for each contender in each cell that both runs have; NaN where a figure is not known.

        `cell_key contender label`, the axes of the cell, `a_data_pps` and `b_data_pps` (blocks per second, medians),
        `ratio` (B over A) with its 95 % interval `low` to `high` over `n` pairs (NaN under six), `lowest` and
        `highest` pair, `p_holm`, `verdict`; `cpu_ratio cpu_low cpu_high`: the server's CPU time per block.
        """
        import pandas as pd

        frame = pd.DataFrame([record(row) for row in self.rows])
        frame["contender"] = pd.Categorical(frame["contender"], list(dict.fromkeys(frame["contender"])))
        frame["verdict"] = pd.Categorical(frame["verdict"], list(VERDICTS))
        numbers = [*_BOUNDS, "p_holm", "cpu_ratio", "cpu_low", "cpu_high"]
        return frame.astype(dict.fromkeys(numbers, "float64"))

    @property
    def ratios(self) -> "pd.DataFrame":
        """The rows of `plots.forest`: `label`, "contender, cell", and `ratio low high lowest highest n verdict`."""
        frame = self.to_frame()[[*_BOUNDS, "lowest", "highest", "n", "verdict"]]
        frame.insert(0, "label", [f"{row.contender}, {row.label}" for row in self.rows])
        return frame

    @property
    def counts(self) -> dict[str, int]:
        """How many cells have each verdict."""
        found = Counter(row.verdict for row in self.rows)
        return {verdict: found[verdict] for verdict in VERDICTS}

    @property
    def sentence(self) -> str:
        """How often there is which verdict, and the largest difference that is certain, or else the largest seen."""
        sure = [row for row in self.rows if row.verdict in ("faster", "slower")]
        widest = max(sure or self.rows, key=lambda row: max(row.moved.ratio, 1 / row.moved.ratio))
        times = f"B is {widest.moved.ratio:.2f} times as fast as A ({widest.moved.certainty})"
        most = f"{widest.contender}, {widest.label}: {times}"
        if len(self.rows) == 1:
            return f"{most}: {self._said(widest.verdict)}."
        each = ", ".join(f"{self._said(verdict)} in {count}" for verdict, count in self.counts.items() if count)
        kind = "that is certain" if sure else "seen, which is not certain"
        return f"B against A in {len(self.rows)} comparisons: {each}. Largest difference {kind}: {most}."

    def _said(self, verdict: str) -> str:
        return f"the same within {100 * self.within:.3g} %" if verdict == "same" else verdict


def record(row: Compared) -> dict[str, Any]:
    """A row as plain values, unknown ones None; the keys are the columns of `Comparison.to_frame`."""
    moved, cpu = row.moved, row.cpu
    return {
        "cell_key": row.cell_key,
        "contender": row.contender,
        "label": row.label,
        **{name: row.row.get(name) for name in AXES},
        "a_data_pps": row.a_data_pps,
        "b_data_pps": row.b_data_pps,
        **{name: getattr(moved, name) for name in (*_BOUNDS, "lowest", "highest", "n")},
        "p_holm": row.p_holm,
        "verdict": row.verdict,
        **{f"cpu_{name}": getattr(cpu, name) if cpu else None for name in _BOUNDS},
    }
