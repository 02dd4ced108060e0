"""What is asked of a search for a capacity: the keys of `capacity` in a scenario, and the goal that follows from them.

Words are those of RFC 9971 (Multiple Loss Ratio Search). Pure; it must never know a server or a trial.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic import Strict as StrictType

from tftpbench.model.strict import Allowed, Strict
from tftpbench.model.units import DURATION_ALLOWED, PERCENT_PATTERN, parse_percent, percent
from tftpbench.model.values import IN_FLIGHT_LIMIT, MS, Count, DurationNs, OneOrMore

Find = Literal["rate", "machines", "spread"]
PRECISION, LOST = 0.05, 0.001
BUDGET_NS, BUDGET_NS_MIN = 600_000 * MS, 10_000 * MS
# Of a spread: as many as the usual storm of a large rack row.
MACHINES = 1_000
# The longest trial at a load. Below that a short stall of the machine is much of it; a backlog shows sooner.
TRIAL_S_MAX, TRIAL_S_MIN = 10.0, 1.0
# So many of the longest trials fit into the budget: a search takes some 12 to 25 of them, and then what follows it.
TRIALS_IN_BUDGET = 30
# RFC 9971's recommendation for several short trials in place of a long one: half of their time may exceed the loss.
EXCEED_RATIO = 0.5
TRIALS_AT_A_BOUND, STORMS_AT_A_BOUND = 6, 5
SHORT_TRIALS = 5
# A storm that loses machines takes until their deadline: in a short budget fewer of them decide.
FEW_STORMS, FEW_STORMS_BUDGET_NS = 3, 300_000 * MS
# RFC 2544 section 24: 60 s a trial.
STRICT_S = 60.0
# A machine starts to boot, and still does when the second half of a trial begins: that looked like a backlog.
TIMES_OF_A_BOOT = 5.0


def _share(least: float, most: float, allowed: str) -> BeforeValidator:
    def read(value: object) -> float:
        found = parse_percent(value) if isinstance(value, str) else None
        if found is None or not least <= found <= most:
            raise ValueError(f"is {str(value)[:40]!r}; allowed: {allowed}")
        return found

    return BeforeValidator(read)


_AS_PERCENT = (
    PlainSerializer(percent),
    WithJsonSchema({"type": "string", "pattern": PERCENT_PATTERN}),
)
PRECISION_ALLOWED = "0.5% to 50%"
LOST_ALLOWED = "0% to 50%, as in 0.1%"
Precision = Annotated[float, _share(0.005, 0.5, PRECISION_ALLOWED), *_AS_PERCENT]
Lost = Annotated[float, _share(0.0, 0.5, LOST_ALLOWED), *_AS_PERCENT]
_FINDS = "rate, machines, spread, or a list of them"


class Capacity(Strict):
    """A search, or several alike: what is looked for, how close, and how long it may take."""

    find: Annotated[tuple[Find, ...], OneOrMore, Allowed(_FINDS)] = Field(
        default=("rate",),
        description="rate: the highest rate of starts that is kept up with. machines: how many may start at once. "
        "spread: within how long a time `machines` of them must start.",
    )
    machines: Annotated[Count | None, Allowed(f"2 to {IN_FLIGHT_LIMIT}, only with find: spread")] = Field(
        default=None, ge=2, le=IN_FLIGHT_LIMIT, description=f"Machines of a spread; {MACHINES} unless given."
    )
    precision: Annotated[Precision, Allowed(PRECISION_ALLOWED)] = Field(
        default=PRECISION, description="How far apart the two bounds are at most, as a share of the upper one."
    )
    lost: Annotated[Lost, Allowed(LOST_ALLOWED)] = Field(
        default=LOST, description="The share that may be lost: failed, late or shed, or added to a growing backlog."
    )
    budget_ns: Annotated[DurationNs, Allowed(f"10s to 24h; {DURATION_ALLOWED}")] = Field(
        default=BUDGET_NS, alias="budget", ge=BUDGET_NS_MIN, le=86_400_000 * MS,
        description="How long all of a search may take.",
    )  # fmt: skip
    strict: Annotated[bool, StrictType(), Allowed("true, false")] = Field(
        default=False,
        description="As RFC 2544 has it: one trial of 60 s decides on a load, and none may be lost.",
    )
    servers: Annotated[
        tuple[Annotated[str, Field(pattern=r"^\S[^\n]*$")], ...] | None,
        OneOrMore,
        Allowed("entries of the scenario's servers"),
    ] = Field(default=None, description="The only servers that are searched so; all of the scenario's unless given.")


@dataclass(frozen=True)
class Goal:
    """A search goal of RFC 9971: what makes a load a lower or an upper bound, and how close these must come.

    `lost`: Goal Loss Ratio, `width`: Goal Width, `exceed`: Goal Exceed Ratio, `trial_s`: Goal Final Trial Duration,
    `short_s`: Goal Initial Trial Duration, `sum_s`: Goal Duration Sum. Of a storm each counts as 1 s.
    """

    lost: float
    width: float
    exceed: float
    trial_s: float
    short_s: float
    sum_s: float


def goal_of(asked: Capacity, find: Find, boot_s: float = 0.0, starts_s: float = 0.0) -> Goal:
    """The goal of a search. A trial is long beside `boot_s`, what an unhurried boot or transfer takes, and `starts_s`.

    `starts_s`: how long it takes to start as many as say something.
    """
    lost = 0.0 if asked.strict else asked.lost
    if find != "rate":
        few = asked.budget_ns <= FEW_STORMS_BUDGET_NS
        storms = 1 if asked.strict else FEW_STORMS if few else STORMS_AT_A_BOUND
        return Goal(lost, asked.precision, 0.0 if asked.strict else EXCEED_RATIO, 1.0, 1.0, float(storms))
    if asked.strict:
        return Goal(lost, asked.precision, 0.0, STRICT_S, STRICT_S / SHORT_TRIALS, STRICT_S)
    affordable_s = min(TRIAL_S_MAX, asked.budget_ns / 1e9 / TRIALS_IN_BUDGET)
    least_s = max(TIMES_OF_A_BOOT * boot_s, starts_s)
    trial_s = max(TRIAL_S_MIN, affordable_s, least_s)
    short_s = max(trial_s / SHORT_TRIALS, least_s)
    return Goal(lost, asked.precision, EXCEED_RATIO, trial_s, short_s, trial_s * TRIALS_AT_A_BOUND)


SCHEMA = "tftpbench.capacity/1"
Stage = Literal["ramp", "bounds", "confirmation", "latencies", "recovery"]
# generator, machine: the trial says nothing about the server, for the load was too much for the generator, or the
# machine was busy with other things. cut: the budget ended it.
Fault = Literal["", "generator", "machine", "died", "not started", "dead target", "wrong bytes", "cut"]
Bound = Literal["lower", "upper", "undecided"]
# The keys that a search of each kind has.
BOUNDS: dict[Find, tuple[str, ...]] = {
    "rate": ("lower_per_s", "upper_per_s", "conditional_per_s"),
    "machines": ("lower_machines", "upper_machines"),
    "spread": ("lower_over_s", "upper_over_s", "machines"),
}


class _Document(BaseModel):
    """Plain values that a run wrote down; keys of later versions are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


def _said(description: str, **more: Any) -> Any:
    return Field(description=description, **more)


class FoundTrial(_Document):
    """A trial of a search; its row has the same number."""

    trial: int | None = _said("Its number in trials.jsonl; null where the generator could not begin it.")
    stage: Stage = _said("What it was for.")
    load: float | None = _said("Starts a second, machines at once, or machines a second of a spread; null: at once.")
    duration_s: float = _said("For how long starts were made; of a storm 1.")
    intended: int = _said("What was to start.")
    lost: int = _said("Failed, late or shed.")
    growth: float = _said("By how much the backlog grew over the trial.")
    missing: int = _said("What it counts as lost: the larger of the two.")
    counts: bool = _said("Whether it says something about the server.")
    fault: Fault = _said("What else it was; empty for nothing.")
    reason: str = _said("The fault in words.")
    held_up_s: float = _said("For how long the machine kept server or generator from running.", default=0.0)
    response_ns_p50: float | None = _said("Median response, or boot, time; null for never.")
    response_ns_p99: float | None = _said("Its 99th percentile; null for never.")


class FoundLoad(_Document):
    """A load that decided, or might have."""

    load: float = _said("As of its trials.")
    bound: Bound = _said("What its trials make it (RFC 9971 Appendix A).")


class FoundLatency(_Document):
    """A trial at a share of the lower bound."""

    share: float = _said("Of the lower bound.")
    trial: int = _said("The trial that has its times.")


class Recovery(_Document):
    """An overload of 110 % for 10 s, and 50 % after it."""

    recovered_s: float | None = _said("Seconds after the overload until p99 is normal for good; null: not within 20.")


class OmittedStage(_Document):
    """A stage that was not done."""

    stage: Stage = _said("Which.")
    reason: str = _said("Why.")


class FoundGoal(_Document):
    """The goal, in the words of RFC 9971."""

    lost: float = _said("Goal Loss Ratio.")
    width: float = _said("Goal Width, as a share of the upper bound.")
    exceed: float = _said("Goal Exceed Ratio.")
    trial_s: float = _said("Goal Final Trial Duration.")
    short_s: float = _said("Goal Initial Trial Duration.")
    sum_s: float = _said("Goal Duration Sum.")
    deadline_s: float = _said("What has not ended so long after its intended start is late.")
    strict: bool = _said("Whether it is RFC 2544's.")

    @property
    def goal(self) -> Goal:
        """As a search takes it."""
        return Goal(self.lost, self.width, self.exceed, self.trial_s, self.short_s, self.sum_s)


class FoundCapacity(_Document):
    """What one search found: the document of `capacity --json`, and of capacity.json."""

    schema_id: Literal["tftpbench.capacity/1"] = _said("The version of this format.", alias="schema", default=SCHEMA)
    find: Find = _said("What was looked for.")
    unit: str = _said("What is counted.")
    server: str = _said("Its name, or name@variant, or address.")
    cell_key: str = _said("The cell whose load was sought.")
    cell: str = _said("The same in words.")
    boot: str | None = _said("The boot profile, or mix, of its machines; null for transfers.")
    load_hosts: int = _said("How many hosts the load came from.", default=1)
    round: int = _said("Which of several searches alike, from 1.")
    is_regular: bool = _said("Whether both bounds are there, as close as was asked, and nothing stood in the way.")
    lower_per_s: float | None = _said("The highest rate that was borne; of find rate.", default=None)
    upper_per_s: float | None = _said("The lowest rate that was not.", default=None)
    conditional_per_s: float | None = _said("The lower bound less what is lost there.", default=None)
    lower_machines: int | None = _said("The most machines at once that were borne; of find machines.", default=None)
    upper_machines: int | None = _said("The fewest that were not.", default=None)
    machines: int | None = _said("How many were to start; of find spread.", default=None)
    lower_over_s: float | None = _said("The longest time in which they could not start.", default=None)
    upper_over_s: float | None = _said("The shortest time in which they could.", default=None)
    is_confirmed: bool = _said("Whether the lower bound held when it was tried again for longer.")
    is_interrupted: bool = _said("Whether Ctrl-C ended the search.")
    is_target_dead: bool = _said("Whether a running server answered no longer.")
    generator_limit: float | None = _said(
        "The lowest load that the generator could not offer; null where none was met."
    )
    reasons: tuple[str, ...] = _said("Why it is not regular.")
    remarks: tuple[str, ...] = _said("What else is to be known.")
    omitted: tuple[OmittedStage, ...] = _said("What was not measured, and why.")
    goal: FoundGoal = _said("What was asked.")
    budget_s: float = _said("How long it might take.")
    took_s: float = _said("How long it took.")
    bounds_took_s: float = _said("How long of that the bounds took, with the ramp.")
    loads: tuple[FoundLoad, ...] = _said("Each load of the bounds, in order.")
    latencies: tuple[FoundLatency, ...] = _said("Trials below the lower bound.")
    recovery: Recovery | None = _said("After an overload; null where it was not measured.")
    trials: tuple[FoundTrial, ...] = _said("All trials in their order.")

    def document(self) -> dict[str, Any]:
        """Plain JSON values, with the keys of its kind."""
        others = {name for find, names in BOUNDS.items() if find != self.find for name in names}
        return self.model_dump(mode="json", by_alias=True, exclude=others)

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """Lower and upper, in its unit."""
        lower, upper, *_ = (getattr(self, name) for name in BOUNDS[self.find])
        return lower, upper

    @property
    def exit_code(self) -> int:
        """0 regular, 3 a dead target, 6 irregular, 130 interrupted."""
        if self.is_interrupted:
            return 130
        if self.is_target_dead:
            return 3
        return 0 if self.is_regular else 6


def documents(found: Sequence[FoundCapacity]) -> dict[str, Any]:
    """One document: of a single search its own, else of all."""
    if len(found) == 1:
        return found[0].document()
    return {"schema": SCHEMA, "searches": [each.document() for each in found]}
