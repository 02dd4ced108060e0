"""What a gate found, in words: the one sentence, and what a reader must know besides.

Pure.
"""

from collections.abc import Sequence

import numpy as np

from tftpbench.gate.decision import Decision
from tftpbench.gate.pair import figure, loaded
from tftpbench.gate.result import BASE, HEAD, Judgement, Noise, Pair, Side, Verdict
from tftpbench.measure import Pinning
from tftpbench.measure.validity import GENERATOR_BUSY_FRACTION_MAX
from tftpbench.model.gate_settings import KNOWN, METRICS
from tftpbench.model.scenario import Scenario
from tftpbench.model.units import counted

_OPENING: dict[Verdict, str] = {
    Verdict.REGRESSED: "regressed",
    Verdict.INVALID: "no verdict, as this machine is too noisy",
    Verdict.SUSPECTED: "a regression is suspected",
    Verdict.INCONCLUSIVE: "neither a regression nor its absence is certain",
    Verdict.PASS: "no regression",
    Verdict.IMPROVED: "no regression, and better",
}


def sentence(decision: Decision, sides: tuple[Side, Side], scenario: Scenario, where: str) -> str:
    """The verdict in one sentence, with the figures that decided."""
    names = f"{_named(sides[1])} against {_named(sides[0])}"
    cells = scenario.cells()
    what = cells[0].label if len(cells) == 1 else counted(len(cells), "cell")
    around = f"{names}, {what}, {counted(decision.pairs, 'pair')}, {where}"
    if decision.failure is not None:
        return f"regressed: {decision.failure}; {around}."
    gated = [each for each in decision.judgements if each.verdict is not None]
    if not gated:
        return f"no verdict: too few valid pairs; {around}."
    if decision.verdict == Verdict.PASS:
        return f"{_OPENING[Verdict.PASS]} in {_short(gated)}; {around}."
    tell = unseen if decision.verdict == Verdict.INVALID else change
    parts = [tell(each, named=len(cells) > 1) for each in gated if each.verdict == decision.verdict]
    return f"{_OPENING[decision.verdict]}: {'; '.join(parts)}; {around}."


def _short(gated: Sequence[Judgement]) -> str:
    """All that passed, without intervals; where they are many, how many."""
    if len(gated) > len(METRICS):
        return counted(len(gated), "figure")
    parts = [f"{METRICS[each.metric].words} {signed(each.ratio)}" for each in gated if each.ratio is not None]
    return f"{counted(len(gated), 'figure')} ({', '.join(parts)})"


def _named(side: Side) -> str:
    return side.name if side.entry in ("", side.name) else f"{side.name} ({side.entry})"


def change(judgement: Judgement, *, named: bool = False) -> str:
    """One metric: "blocks per second 3.1 % less (1.2 % to 5.0 % less; budget 5 %)"."""
    words = metric_words(judgement, named=named)
    if judgement.ratio is None:
        return f"{words} not measured"
    budget = "" if judgement.budget is None else f"; budget {budget_text(judgement.budget)}"
    if judgement.low is None or judgement.high is None:
        return f"{words} {signed(judgement.ratio)} ({counted(judgement.pairs, 'pair')}{budget})"
    return f"{words} {interval(judgement)[:-1]}{budget})"


def metric_words(row: Judgement | Noise, *, named: bool) -> str:
    """The metric, and of which cell where that is to be said; one of a newer version by its name."""
    known = KNOWN.get(row.metric)
    words = known.words if known else row.metric
    return f"{words} of {row.cell}" if named else words


def interval(judgement: Judgement) -> str:
    """A ratio as a change with its interval: "+3.1 % (+1.2 to +5.0)"; "-" where there is none."""
    if judgement.ratio is None:
        return "-"
    if judgement.low is None or judgement.high is None:
        return signed(judgement.ratio)
    return f"{signed(judgement.ratio)} ({_points(judgement.low)} to {_points(judgement.high)})"


def unseen(judgement: Judgement, *, named: bool = False) -> str:
    """One metric that is too noisy: what loss would have been seen, which is the noise floor of this run."""
    if judgement.smallest_effect is None:
        return change(judgement, named=named)
    words = metric_words(judgement, named=named)
    budget = 0.0 if judgement.budget is None else judgement.budget
    effect = percent(judgement.smallest_effect)
    return f"{words}: only a loss of {effect} or more would have been caught (budget {budget_text(budget)})"


def alternatives(looks: Sequence[int]) -> str:
    """After how many pairs a verdict may come: "12, 20 or 30"."""
    return " or ".join(filter(None, (", ".join(map(str, looks[:-1])), str(looks[-1]))))


def percent(share: float) -> str:
    """A share that was measured, the same wherever it stands: "46.9 %"."""
    return f"{100 * share:.1f} %"


def budget_text(share: float) -> str:
    """A share that was asked for: "5 %", "9.05 %"."""
    return f"{100 * share:.3g} %"


def signed(ratio: float) -> str:
    """A ratio as a change: "+3.1 %"."""
    return f"{_points(ratio)} %"


def _points(ratio: float) -> str:
    points = 100 * (ratio - 1)
    return f"{points:+.1f}" if abs(points) < 100 else f"{points:+.0f}"


def remarks(pairs: Sequence[Pair], notes: Sequence[str], pinning: Pinning) -> tuple[str, ...]:
    """What makes the figures weaker than they look."""
    found = list(notes)
    spoilt = [pair for pair in pairs if pair.invalid is not None]
    if spoilt:
        line = f"{invalid_pairs(pairs)}: pair {spoilt[0].number}, {spoilt[0].invalid}."
        if loaded(spoilt):
            line += " Such pairs count for system calls and peak memory, and as evidence of a severe loss."
        found.append(line)
    for arm in (BASE, HEAD):
        stopped = sum(bool(figure(pair, arm, "slices_stopped")) for pair in pairs)
        if stopped:
            found.append(
                f"In {counted(stopped, 'pair')} the {arm} took many times what the base is known to need, and was "
                "stopped: its figures there are of less work."
            )
    if not pinning.separate:
        found.append(f"Server and generator ran {pinning.phrase}: blocks per second tell of both.")
    if any((figure(pair, arm, "server_processes_max") or 0) > 1 for pair in pairs for arm in (BASE, HEAD)):
        found.append(
            "Peak memory was not judged where a server had several processes: a look sees now few and now many."
        )
    busy = _busy(pairs)
    if busy is not None and busy > GENERATOR_BUSY_FRACTION_MAX:
        found.append(
            f"The generator had no time left beside the base (busy {busy:.1%}): blocks per second understate what the "
            "head gains or loses. CPU time and system calls don't."
        )
    lost = [_total(pairs, arm, "lost") for arm in (BASE, HEAD)]
    if any(lost):
        found.append(f"Transfers that did not complete: base {lost[0]:.0f}, head {lost[1]:.0f}.")
    drops = [_total(pairs, arm, "udp_drops_server") for arm in (BASE, HEAD)]
    if any(drops):
        found.append(f"Datagrams dropped at the servers' sockets: base {drops[0]:.0f}, head {drops[1]:.0f}.")
    return tuple(found)


def invalid_pairs(pairs: Sequence[Pair]) -> str:
    """How many pairs are invalid: "2 of 14 pairs were invalid"; nothing where none is."""
    spoilt = sum(pair.invalid is not None for pair in pairs)
    return f"{spoilt} of {counted(len(pairs), 'pair')} {'was' if spoilt == 1 else 'were'} invalid" if spoilt else ""


def _busy(pairs: Sequence[Pair]) -> float | None:
    known = [busy for pair in pairs if (busy := figure(pair, BASE, "generator_busy_fraction")) is not None]
    return float(np.median(known)) if known else None


def _total(pairs: Sequence[Pair], arm: str, name: str) -> float:
    return sum(figure(pair, arm, name) or 0 for pair in pairs)
