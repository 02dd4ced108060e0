"""What size of loss the gate sees: recorded pairs of equal code whose head is made worse by a factor, judged as ever.

    tar -xf results/reference/gate.tar.xz -C results
    python -m benches.power [results/gate]

Nothing is measured. Each line is a metric; each figure the share of 2,000 gates drawn from the pairs that called it
regressed, and in brackets suspected. Called by hand, for the table in docs/gate.md.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tftpbench.gate.document import load
from tftpbench.gate.pair import figure
from tftpbench.gate.result import HEAD, Arm, Pair, Verdict
from tftpbench.gate.selftest.resampling import drawn
from tftpbench.gate.verdict import held_budgets
from tftpbench.model.gate_settings import METRICS
from tftpbench.model.scenario import from_document

LOSSES = (0.5, 1, 1.2, 1.4, 1.6, 2)  # in budgets
DRAWS, SEED = 2_000, 2
VERDICTS: tuple[Verdict, ...] = (Verdict.REGRESSED, Verdict.SUSPECTED)


def main(folder: Path) -> None:
    """Print the table."""
    results = [load(path.parent) for path in sorted(folder.glob("aa/*/gate.json"))]
    gate = from_document(results[0].facts.scenario, "recorded").gate
    pairs = [pair for result in results for pair in result.pairs if pair.invalid is None]
    sys.stdout.write(f"{len(pairs)} pairs; loss in budgets: {', '.join(map(str, LOSSES))}\n")
    for (metric, _), budget in held_budgets({"": pairs}, gate.gated).items():
        columns = []
        for loss in LOSSES:
            worse = [_worse(pair, metric, budget * loss) for pair in pairs]
            rates = drawn(worse, gate.gated, gate.looks, DRAWS, SEED)
            both = [100 * (rates.rate(verdict, metric).share or 0) for verdict in VERDICTS]
            columns.append(f"{both[0]:.1f} % ({both[1]:.0f})")
        sys.stdout.write(f"{metric} ({100 * budget:.3g} %): {', '.join(columns)}\n")


def _worse(pair: Pair, metric: str, loss: float) -> Pair:
    value = figure(pair, HEAD, metric)
    if value is None:
        return pair
    changed = value * (1 + loss if METRICS[metric].lower_is_better else 1 - loss)
    return replace(pair, arms={**pair.arms, HEAD: Arm({**pair.arms[HEAD].figures, metric: changed})})


def _folder(arguments: Sequence[str]) -> Path:
    return Path(arguments[0]) if arguments else Path("results/gate")


if __name__ == "__main__":
    main(_folder(sys.argv[1:]))
