"""What searches for capacities found, in words: a sentence for those who run a network, and what it leaves out.

From the documents that a run wrote down. It must never call a bound what was not one.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tftpbench.model.axes import boot_name, hosts_text
from tftpbench.model.capacity import Find, FoundCapacity, FoundTrial
from tftpbench.model.errors import NotComparable
from tftpbench.model.units import counted, format_duration, percent

if TYPE_CHECKING:
    import pandas as pd


def sentences(found: Sequence[FoundCapacity]) -> tuple[str, ...]:
    """One for each search, in their order."""
    return tuple(map(sentence, found))


def sentence(found: FoundCapacity) -> str:
    """What was found, what is too much, and why it is not regular where it is not."""
    if found.bounds == (None, None):
        done, thing, at, of = _words(found)[1:]
        said = f"How many {thing} {found.server} {done} {at} ({of}) is not known."
    else:
        said = f"{found.server} {_bounds(found)}"
    return f"{said} Irregular: {'; '.join(found.reasons)}." if found.reasons else said


def figure(value: float) -> str:
    """A load in four digits at most, as people say it: "409", "7.25", "12,340"."""
    if value >= 1000:
        digits = len(str(int(value))) - 4
        return f"{round(value, -max(0, digits)):,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def bound_text(found: FoundCapacity, value: float | None) -> str:
    """A bound with its unit; "-" for none."""
    if value is None:
        return "-"
    if found.find == "spread":
        return format_duration(round(value * 1e9, -6)) if value else "at once"
    return f"{figure(value)}/s" if found.find == "rate" else f"{figure(value)}"


def in_time(found: FoundCapacity) -> str:
    """Which share of all must have come to its end in time."""
    share = percent(1 - found.goal.lost) if found.goal.lost else "all"
    return f"{share.replace('%', ' %')} within {format_duration(found.goal.deadline_s * 1e9)}"


def remarks(found: Sequence[FoundCapacity]) -> tuple[str, ...]:
    """What else is to be known of each search."""
    return tuple(f"{_who(each, found)}{line}" for each in found for line in _remarks(each))


def omitted(found: Sequence[FoundCapacity]) -> tuple[str, ...]:
    """What was not measured, and why."""
    return tuple(f"{_who(each, found)}{stage.stage}: {stage.reason}" for each in found for stage in each.omitted)


def exit_code(found: Sequence[FoundCapacity]) -> int:
    """Of several: 130, then 3, then 6, then 0."""
    codes = {each.exit_code for each in found}
    return next((code for code in (130, 3, 6) if code in codes), 0)


def title(found: FoundCapacity) -> str:
    """Which search it is, for a table or a plot: "dnsmasq, rate, machines of uefi"."""
    return f"{found.server}, {found.find}, {found.cell}"


def frame(found: Sequence[FoundCapacity]) -> "pd.DataFrame":
    """A row for each trial of the searches `found` (`Run.searches`) that says something about its server.

    `panel` (the search), `find`, `load`, `is_borne`, `response_ns_p99` (infinite for never), and of its search `lower`,
    `upper` and `limit`, the generator's. Loads are starts a second, or machines; of a spread machines a second.
    """
    import pandas as pd

    rows = [
        {
            "panel": title(each), "find": each.find, "load": trial.load, "is_borne": is_borne(each, trial),
            "response_ns_p99": math.inf if trial.response_ns_p99 is None else trial.response_ns_p99,
            "lower": _load(each, is_lower=True), "upper": _load(each, is_lower=False), "limit": each.generator_limit,
        }
        for each in found
        for trial in each.trials
        if trial.counts and trial.load is not None and trial.stage != "recovery"
    ]  # fmt: skip
    names = ("panel", "find", "load", "is_borne", "response_ns_p99", "lower", "upper", "limit")
    return pd.DataFrame(rows, columns=list(names))


def is_borne(found: FoundCapacity, trial: FoundTrial) -> bool:
    """Whether a trial lost no more than may be."""
    return trial.intended > 0 and trial.missing / trial.intended <= found.goal.lost


@dataclass(frozen=True)
class Compared:
    """A search that two runs have: the bounds of both, over all rounds, in its unit; `verdict` of B against A."""

    title: str
    find: Find
    a: tuple[float | None, float | None]
    b: tuple[float | None, float | None]
    verdict: Literal["higher", "lower", "same", "can't tell"]
    first: FoundCapacity


def compared(a: Sequence[FoundCapacity], b: Sequence[FoundCapacity]) -> tuple[Compared, ...]:
    """The searches that both have. Higher: B's bounds lie above A's; of a spread, where more time is worse, below.

    Raises NotComparable where they have none in common.
    """
    rows = []
    others = {_key(each): each for each in b}
    for key in dict.fromkeys(map(_key, a)):
        if key not in others:
            continue
        sides = [_range([each for each in side if _key(each) == key]) for side in (a, b)]
        first = next(each for each in a if _key(each) == key)
        rows.append(Compared(title(first), first.find, sides[0], sides[1], _verdict(first.find, *sides), first))
    if not rows:
        loads = [sorted({each.load_hosts for each in side}) for side in (a, b)]
        unlike = f": A from {_hosts(loads[0])}, B from {_hosts(loads[1])}" if loads[0] != loads[1] else ""
        raise NotComparable(f"the runs have no search of the same server, find and cell in common{unlike}")
    return tuple(rows)


def _hosts(counts: Sequence[int]) -> str:
    return " and ".join(counted(count, "load host") for count in counts) or "none"


def _key(found: FoundCapacity) -> tuple[str, str, str]:
    return found.server, found.find, found.cell_key


def _range(found: Sequence[FoundCapacity]) -> tuple[float | None, float | None]:
    """The lowest lower and the highest upper bound; None where one of the searches has none."""
    lower, upper = zip(*(each.bounds for each in found), strict=True)
    low, high = ([each for each in side if each is not None] for side in (lower, upper))
    return min(low) if len(low) == len(lower) else None, max(high) if len(high) == len(upper) else None


def _verdict(
    find: Find, a: tuple[float | None, float | None], b: tuple[float | None, float | None]
) -> Literal["higher", "lower", "same", "can't tell"]:
    above = b[0] is not None and a[1] is not None and b[0] > a[1]
    below = b[1] is not None and a[0] is not None and b[1] < a[0]
    if find == "spread":
        above, below = below, above
    if above or below:
        return "higher" if above else "lower"
    return "can't tell" if None in (*a, *b) else "same"


def _load(found: FoundCapacity, *, is_lower: bool) -> float | None:
    """A bound as a load of its trials."""
    lower, upper = found.bounds
    if found.find == "spread":
        bound = upper if is_lower else lower
        return (found.machines or 0) / bound if bound else None
    return lower if is_lower else upper


def _who(found: FoundCapacity, among: Sequence[FoundCapacity]) -> str:
    return f"{title(found)}: " if len(among) > 1 else ""


def _remarks(found: FoundCapacity) -> Iterator[str]:
    yield from found.remarks
    if found.is_confirmed:
        yield "the lower bound held when it was tried again, three times and for longer"
    times = {each.trial: each for each in found.trials}
    for latency in found.latencies:
        trial = times.get(latency.trial)
        if trial is not None:
            p50, p99 = (_time(each) for each in (trial.response_ns_p50, trial.response_ns_p99))
            yield f"at {100 * latency.share:.0f} % of it: median {p50}, 99 % within {p99}"
    if found.recovery is not None:
        after = found.recovery.recovered_s
        said = "not within 20 s" if after is None else "at once" if not after else f"after {after:g} s"
        yield f"after 10 s at 110 %, its times are normal again {said}"
    if found.generator_limit is not None:
        limit = bound_text(found, found.generator_limit) if found.find != "spread" else figure(found.generator_limit)
        yield f"{limit} could not be offered any more, by the generator or this machine"


def _time(value_ns: float | None) -> str:
    return "never" if value_ns is None else format_duration(value_ns)


def _words(found: FoundCapacity) -> tuple[str, str, str, str, str]:
    """What it does not do, what it does, of what, when, and of which kind."""
    at = {"rate": "a second", "machines": "at once", "spread": "within a time"}[found.find]
    if found.boot:
        of = ", ".join(filter(None, (boot_name(found.boot), hosts_text(found.load_hosts))))
        return "does not boot", "boots", "machines", at, of
    return "does not serve", "serves", "transfers", at, found.cell


def _bounds(found: FoundCapacity) -> str:
    does_not, does, thing, at, of = _words(found)
    lower, upper = found.bounds
    if found.find == "spread":
        return _spread(found, does, thing, of)
    if lower is None:
        return f"{does_not} {figure(upper or 0)} {thing} {at} ({of}), {in_time(found)}."
    least = "" if upper is not None else "at least "
    said = f"{does} {least}{figure(lower)} {thing} {at} ({of}), {in_time(found)}"
    if upper is None:
        return f"{said}."
    return f"{said}; {figure(upper)}{' a second is' if found.find == 'rate' else ' are'} too {_much(found)}."


def _much(found: FoundCapacity) -> str:
    return "much" if found.find == "rate" else "many"


def _spread(found: FoundCapacity, does: str, thing: str, of: str) -> str:
    lower, upper = found.bounds
    said = f"{does} {found.machines:,} {thing} ({of}), {in_time(found)},"
    if upper is None:
        shorter = "" if lower is None else f"; {bound_text(found, lower)} is too short"
        return f"{said} in a time that is not known{shorter}."
    if not upper:
        return f"{said} even if all start at once."
    shorter = f"; {bound_text(found, lower)} is too short" if lower is not None else ""
    return f"{said} if they start within {bound_text(found, upper)} or more{shorter}."
