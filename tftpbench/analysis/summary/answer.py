"""From rows of results to an Answer: the sentence, thresholds, lines and remarks, and the exit code that follows.

Pure.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tftpbench.analysis.summary import remarks
from tftpbench.analysis.summary.boots import boots_sentence, headline_of_boots, wire_bytes, wire_sentence
from tftpbench.analysis.summary.lines import (
    FRAME_COLUMNS,
    Line,
    Merged,
    Metric,
    flat,
    lines,
    lost,
    metric_of,
    unusable,
)
from tftpbench.analysis.summary.sentence import (
    CEILING,
    Served,
    answer_sentence,
    ceiling_sentence,
    conditions,
    headline,
    served_sentence,
    untimed_sentence,
    weakest,
)
from tftpbench.measure.findings import ORIGINS, Origin
from tftpbench.measure.validity import commonest
from tftpbench.model import thresholds
from tftpbench.model.scenario import Scenario
from tftpbench.model.shown import Shown
from tftpbench.model.thresholds import Judged, State, server_name
from tftpbench.model.units import counted
from tftpbench.model.workload import Cell

if TYPE_CHECKING:  # a run answers without data frames
    import pandas as pd

Row = Mapping[str, Any]

QUICK_NOTE = "Quick run: no speed, ratio or generator limit was judged."


@dataclass(frozen=True)
class Invalid:
    """A trial that must not be used, and why."""

    trial: int
    server: str
    cell_label: str
    reason: str


class LeftOut(NamedTuple):
    """A server that did not start, and was not tried in `not_done` further trials."""

    server: str
    reason: str
    failed_trials: Sequence[int]
    not_done: int


@dataclass(frozen=True)
class Answer(Shown):
    """Everything that the end of a run says."""

    sentence: str
    metric: Metric
    """What the ratios of the lines compare."""
    reference: str
    """The first server; unless `against` says otherwise, the one that the others are compared with."""
    thresholds: tuple[Judged, ...]
    lines: tuple[Line, ...]
    invalid: tuple[Invalid, ...]
    skipped: tuple[str, ...]
    incomplete: tuple[str, ...]
    """Cells that were left with too few valid trials to judge what was asked."""
    findings_by_origin: Mapping[Origin, tuple[str, ...]] = field(default_factory=dict)
    """What was found of the servers, by whose doing it was."""
    faults: tuple[str, ...] = ()
    """What the servers did against the RFCs in trials where transfers failed."""
    headline: str = ""
    """The label of the cell that the sentence speaks of first, as in `Line.label`."""
    against: str = ""
    """What the ratios compare with, in words: the first server, or "the ceiling"."""
    conditions: str = ""
    """What holds for every figure: what is compared, what all cells have in common, where it was measured."""
    no_server_left: bool = False
    """Whether the run ended early because none of its servers started any more."""
    is_quick: bool = False
    """Whether no speed, ratio or limit of the generator was judged."""
    served_nothing: tuple[str, ...] = ()
    """Of a quick run: which server moved no block at all, and in which cell."""
    in_flight: tuple[str, ...] = ()
    """Where starts are spread: the peak of transfers in flight of each server and cell."""
    wire: str = ""
    """Of machines: what the wire alone needs in the headline cell, and whether the network is the limit; else ""."""
    noise: str = ""
    """How noisy the machine was, what that did to the headline's interval, and what to do; "" where it is not known."""
    headroom: str = ""
    """How much more the generator could have done in the headline cell; "" where it is not known."""
    interval_width: float | None = None
    """Of the headline: upper end of its widest interval / lower end - 1; of a server alone, of its median's."""
    why_invalid: str = ""
    """How many trials are invalid, why most of them are, and what to do; "" where none is."""

    @property
    def too_few(self) -> tuple[str, ...]:
        """`incomplete`, to be listed; nothing where that is every cell, for `why_invalid` says so in one line."""
        return self.incomplete if any(line.valid for line in self.lines) else ()

    @property
    def note(self) -> str:
        """What a reader of the answer must know of how it was judged, to be said last; "" for nothing."""
        nothing = f"Nothing was served by {'; '.join(self.served_nothing)}. " if self.served_nothing else ""
        return f"{nothing}{QUICK_NOTE}" if self.is_quick else ""

    @property
    def findings(self) -> tuple[str, ...]:
        """What was found of the servers, whosever doing it was."""
        return tuple(text for texts in self.findings_by_origin.values() for text in texts)

    @property
    def exit_code(self) -> int:
        """0, 3 when a threshold was missed, else 6 when what was asked could not be judged, or no server is left.

        Of a quick run 0 or 3, which it also is when a server served nothing.
        """
        states = {judged.state for judged in self.thresholds}
        if "missed" in states or self.served_nothing:
            return 3
        if self.is_quick:
            return 0
        is_untimed = bool(self.thresholds) and not any(line.valid for line in self.lines)
        return 6 if "not known" in states or self.incomplete or is_untimed or self.no_server_left else 0

    @property
    def wire_bytes(self) -> float | None:
        """Bytes of one machine on the wire in the headline cell, all headers included; None where no machine boots."""
        cell = next((line.cell for line in self.lines if line.label == self.headline), None)
        return wire_bytes(cell) if cell is not None and cell.is_boots else None

    def to_frame(self) -> "pd.DataFrame":
        """One row for each contender in each cell: its first figures, and the ratio to `against`.

        `label contender`, the axes of the cell, the figures of `tftpbench.model.metrics.HEADLINE` from `started` to
        `ceiling_ratio` with `ceiling_mark`, `ratio` with its 95 % interval `low` to `high` over `n` pairs (NaN under
        six), `lowest` and `highest` pair, `lost` (transfers), `valid` of `trials`, `load_hosts` at the end.
        """
        import pandas as pd

        return pd.DataFrame([flat(line) for line in self.lines], columns=list(FRAME_COLUMNS))

    @property
    def ratios(self) -> "pd.DataFrame":
        """The ratios to `against` as `plots.forest` draws them, a row per line that has one.

        `label` says what is compared, and is made of `contender` and `cell`; then `ratio low high n lowest highest`,
        and an empty `verdict`.
        """
        frame = self.to_frame().rename(columns={"label": "cell"})
        frame = frame[frame["n"].notna()].assign(label=frame["contender"] + ", " + frame["cell"], verdict=None)
        kept = ["label", "contender", "cell", "ratio", "low", "high", "n", "lowest", "highest", "verdict"]
        return frame[kept].reset_index(drop=True)


def summarise(
    scenario: Scenario,
    servers: Sequence[str],
    rows: Sequence[Row],
    placement: str,
    skipped: Sequence[tuple[str, str | None, str]] = (),
    merged: Merged = lambda _kind, _key, _server: None,
    unstarted: Sequence[LeftOut] = (),
) -> Answer:
    """Answer the scenario's question from the rows of its trials.

    `servers` in the scenario's order, the first being what the others are compared with; `placement` as in "on one
    core"; `skipped` as (server, cell key or None for all of them, reason); `merged(kind, cell_key, server)` gives the
    histogram of valid trials. A server that is `unstarted` and has no valid trial is as one that is missing, and its
    failed starts are named once.
    """
    cells = scenario.cells()
    left_out = {(server, key) for server, key, _ in skipped}
    taking_part = [server for server in servers if (server, None) not in left_out]
    gone = {each.server for each in unstarted}
    measured = {server_name(row) for row in rows if row["verdict"] == "valid"}
    present = [server for server in taking_part if server not in gone or server in measured]
    failed_starts = {number for each in unstarted for number in each.failed_trials}
    others = [row for row in rows if row["trial"] not in failed_starts]
    found = lines(scenario, present, rows, left_out, merged)
    labels = {cell.key: cell.label for cell in cells}
    first = present[0] if present else ""
    to_ceiling = scenario.compare_with == "ceiling"
    invalid = tuple(
        Invalid(row["trial"], server_name(row), labels[row["cell_key"]], str(row["verdict_reason"]))
        for row in others
        if row["verdict"] != "valid"
    )
    metric = metric_of(scenario)
    is_boots = cells[0].is_boots
    sentence = _sentence(scenario, found, present, rows, nothing_started=bool(gone) and not present)
    first_cell = (
        (headline_of_boots(found).label if found else "")
        if is_boots
        else weakest(found)
        if to_ceiling
        else headline(found, scenario.best_of)
    )
    width = None if scenario.is_quick else remarks.interval_width(found, first_cell, rows, metric)
    return Answer(
        sentence=sentence,
        metric=metric,
        reference=first,
        against=CEILING if to_ceiling else first,
        thresholds=_judge(scenario, cells, rows, left_out),
        lines=found,
        invalid=invalid,
        skipped=(*_skipped(skipped, labels), *map(_unstarted, unstarted)),
        # one trial a cell is a look, not a judgement
        incomplete=remarks.incomplete(
            [line for line in found if line.server not in gone], None if to_ceiling else first
        )
        if scenario.trials > 1 and present and not scenario.is_quick
        else (),
        conditions=conditions(found, metric, placement, scenario.best_of),
        findings_by_origin=remarks.findings(others, labels),
        faults=remarks.faults(rows),
        headline=first_cell,
        noise="" if scenario.is_quick else remarks.noise(rows, width),
        headroom="" if scenario.is_quick else remarks.headroom(found, first_cell, rows),
        interval_width=width,
        no_server_left=bool(gone) and gone.issuperset(taking_part),
        is_quick=scenario.is_quick,
        served_nothing=tuple(f"{server} ({labels[key]})" for server, key in _served_nothing(rows))
        if scenario.is_quick
        else (),
        in_flight=_in_flight(rows, labels) if scenario.client.ramp_ns else (),
        wire=wire_sentence(found) if is_boots and not scenario.is_quick else "",
        why_invalid=_why_invalid(invalid, len(others), sentence),
    )


def _sentence(
    scenario: Scenario, found: Sequence[Line], present: Sequence[str], rows: Sequence[Row], *, nothing_started: bool
) -> str:
    if nothing_started:
        return "No answer: no server could be started."
    served = _served(scenario, rows)
    if scenario.is_quick and rows:
        return served_sentence(found, present, served)
    cause = commonest(str(row["verdict_reason"]) for row in rows if row["verdict"] != "valid")
    if cause and cause.is_of_rates and served.completed and not any(line.valid for line in found):
        return untimed_sentence(found, present, served, cause)
    if found and found[0].cell.is_boots:
        return boots_sentence(found, present)
    if scenario.compare_with == "ceiling":
        return ceiling_sentence(found, present)
    return answer_sentence(found, present, scenario.best_of)


def _served(scenario: Scenario, rows: Sequence[Row]) -> Served:
    is_boots = scenario.cells()[0].is_boots
    asked = "machines" if is_boots else "started" if scenario.cells()[0].open_loop is None else "intended"
    started = sum(row.get(asked) or 0 for row in rows)
    completed = sum(row.get("booted" if is_boots else "completed") or 0 for row in rows)
    wrong: Counter[str] = Counter()
    for row in rows:
        wrong[server_name(row)] += row.get("content_mismatches") or 0
    kinds = {each["kind"] for row in rows for each in row.get("server_findings") or ()}
    is_compared = scenario.verify == "full" and "not_read_back" not in kinds
    is_compared = is_compared and all(row.get("bytes_verified") for row in rows if row.get("completed"))
    cells = {cell.key: cell for cell in scenario.cells()}
    nothing = [(server, cells[key]) for server, key in _served_nothing(rows)]
    return Served(started, completed, sum(map(lost, rows)), wrong, is_compared, is_boots, nothing)


def _why_invalid(invalid: Sequence[Invalid], trials: int, sentence: str) -> str:
    cause = commonest(each.reason for each in invalid)
    if cause is None:
        return ""
    count = f"{len(invalid)} of {counted(trials, 'trial')} {'is' if len(invalid) == 1 else 'are'} invalid and not used"
    if cause.text in sentence:  # with what to do
        return f"{count}."
    some = f"in {cause.trials} of them " if cause.trials < len(invalid) else ""
    todo = f" {cause.advice[:1].upper()}{cause.advice[1:]}." if cause.advice else ""
    return f"{count}: {some}{cause.text}.{todo}"


def _served_nothing(rows: Sequence[Row]) -> tuple[tuple[str, str], ...]:
    """Servers that moved no block in any trial of a cell, by its key, but for what could not be measured."""
    moved: dict[tuple[str, str], bool] = {}
    for row in rows:
        kinds = {each["kind"] for each in row.get("server_findings") or ()}
        if not any(ORIGINS.get(kind) == "unmeasured" for kind in kinds):
            place = server_name(row), str(row["cell_key"])
            moved[place] = moved.get(place, False) or bool(row.get("completed") or row.get("data_pps"))
    return tuple(place for place, has_moved in moved.items() if not has_moved)


def _in_flight(rows: Sequence[Row], labels: Mapping[str, str]) -> tuple[str, ...]:
    peaks: dict[str, int] = {}
    for row in rows:
        if row.get("in_flight_max") is not None:
            place = f"{server_name(row)}, {labels[row['cell_key']]}"
            peaks[place] = max(peaks.get(place, 0), row["in_flight_max"])
    return tuple(f"{place}: {peak}" for place, peak in peaks.items())


def _skipped(skipped: Sequence[tuple[str, str | None, str]], labels: Mapping[str, str]) -> tuple[str, ...]:
    """Each server and reason once, however many cells it has."""
    cells: dict[tuple[str, str], list[str]] = {}
    for server, key, reason in skipped:
        cells.setdefault((server, reason), []).extend([labels[key]] if key else [])
    return tuple(
        f"{server}{f', {_some(where)}' if where else ''}: {reason}" for (server, reason), where in cells.items()
    )


def _unstarted(left_out: LeftOut) -> str:
    """Once, however many trials it was to have."""
    failed = counted(len(left_out.failed_trials), "trial")
    more = f"{left_out.not_done} more {'was' if left_out.not_done == 1 else 'were'} not tried"
    return f"{left_out.server}: did not start in {failed} ({more}): {left_out.reason}"


def _some(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{len(labels)} cells"


def _judge(
    scenario: Scenario, cells: Sequence[Cell], rows: Sequence[Row], left_out: set[tuple[str, str | None]]
) -> tuple[Judged, ...]:
    """A threshold that speaks of a server which is left out of a cell asks nothing there."""
    judged: list[Judged] = []
    for cell in cells:
        cell_key = cell.key
        here = [row for row in rows if row["cell_key"] == cell_key]
        absent = {server for server, key in left_out if key in (None, cell_key)}
        found = thresholds.evaluate(
            scenario.judged_checks, here, cell.label, is_quick=scenario.is_quick, marked=unusable
        )
        judged += [each for each in found if each.threshold.server not in absent and not (each.server == "" and absent)]
    return tuple(judged)


@dataclass(frozen=True)
class JudgedEverywhere:
    """One threshold over all cells: "held", "missed" or "not known", and where and why it does not hold.

    `reasons` begin with those of the `missed` cases; those that are not known come after them.
    """

    threshold: str
    state: State
    judged: int
    missed: int
    reasons: tuple[str, ...]

    @property
    def cases(self) -> str:
        """In how many: "held in 4 cases", "missed in 1, not known in 3 of 4 cases"."""
        counts = {"missed": self.missed, "not known": len(self.reasons) - self.missed}
        found = ", ".join(f"{state} in {count}" for state, count in counts.items() if count)
        every = counted(self.judged, "case")
        return f"{found} of {every}" if found else f"held in {every}"


def judgements(judged: Sequence[Judged]) -> list[JudgedEverywhere]:
    """Each threshold once, in the scenario's order."""
    found: list[JudgedEverywhere] = []
    for text in dict.fromkeys(str(each.threshold) for each in judged):
        every = [each for each in judged if str(each.threshold) == text]
        missed, unknown = ([each for each in every if each.state == state] for state in ("missed", "not known"))
        state: State = "missed" if missed else "not known" if unknown else "held"
        found.append(
            JudgedEverywhere(
                text,
                state,
                len(every),
                len(missed),
                tuple(f"{each.place}: {each.text}" for each in [*missed, *unknown]),
            )
        )
    return found
