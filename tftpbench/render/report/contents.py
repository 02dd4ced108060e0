"""What a report says, in its order, gathered once from a Run. All forms are written from this.

It must never format for one of them.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tftpbench.analysis import summary
from tftpbench.analysis.summary import Answer
from tftpbench.model.errors import ResultsWarning
from tftpbench.model.scenario import Scenario
from tftpbench.render import answer, capacity
from tftpbench.render.report import environment, tables
from tftpbench.render.sections import Listing, Section, Table
from tftpbench.store import Run


@dataclass(frozen=True)
class Contents:
    """One run, understood. Figures come from `answer`, trials as plain rows."""

    run: Run
    scenario: Scenario
    answer: Answer
    rows: tuple[Mapping[str, Any], ...]
    placement: str

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.run.name

    @property
    def started_at(self) -> str:
        """When the first trial began, to the second, UTC; "" where there is none."""
        times = [str(row["started_at"]) for row in self.rows if row.get("started_at")]
        return f"{min(times)[:19].replace('T', ' ')} UTC" if times else ""

    @property
    def valid(self) -> int:
        """How many trials count."""
        return sum(row["verdict"] == "valid" for row in self.rows)

    @property
    def planned(self) -> int:
        """How many trials there should be, as far as is known."""
        asked = self.run.manifest.get("trials_planned")
        return asked if isinstance(asked, int) else len(self.rows)

    @cached_property
    def searches(self) -> list[Section]:
        """What searches for capacities found, but for the sentences; nothing where there was none."""
        found = self.run.searches
        return capacity.sections(found, with_trials=True)[len(found[: capacity.SENTENCES_MAX]) :] if found else []

    @property
    def problems(self) -> tuple[str, ...]:
        """What of the run is not whole; more may come to light as more of it is read."""
        return self.run.problems

    @property
    def broken(self) -> tuple[str, ...]:
        """Those of `problems` that a reader of the answer must know."""
        return self.run.broken

    @cached_property
    def absent(self) -> tuple[str, ...]:
        """Those of `problems` that tell of files which a run may be kept without."""
        return self.run.absent

    @property
    def invalid(self) -> tuple[str, ...]:
        """Each trial that does not count, and why."""
        return answer.invalid(self.answer)

    @cached_property
    def found(self) -> list[Listing]:
        """What was found of servers, by whose doing it was."""
        return answer.found(self.answer)

    @property
    def repeat(self) -> str:
        """The command that does the same again."""
        return environment.repeat(self.run.manifest)

    @cached_property
    def judgements(self) -> tuple[summary.Judgement, ...]:
        """Each threshold once."""
        return tuple(summary.judgements(self.answer.thresholds))

    @cached_property
    def headline(self) -> Table:
        """The figures."""
        return answer.headline_table(self.answer)

    @cached_property
    def cost(self) -> Table:
        """What the work cost each server."""
        return tables.cost_table(self.answer, self.rows)

    @cached_property
    def losses(self) -> tuple[Table, int]:
        """Where something was lost, and in how many cells of servers nothing was."""
        return tables.loss_table(self.scenario, self.rows)

    @cached_property
    def trials(self) -> Table:
        """Every trial."""
        return tables.trials_table(self.scenario, self.rows)

    @cached_property
    def facts(self) -> dict[str, tuple[environment.Fact, ...]]:
        """The environment, by heading."""
        return environment.groups(self.run.manifest, self.placement)

    @cached_property
    def servers(self) -> tuple[environment.Server, ...]:
        """Who was measured."""
        return environment.servers(self.run.manifest)


def contents_of(run: Run) -> Contents:
    """Read what a report needs. Raises ResultsError where the run has no manifest, scenario or trials to read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)  # the report tells them all, as problems
        said = summary.answer_of(run)
        placement = summary.placement_of(run.manifest)
        return Contents(run, summary.scenario_of(run), said, tuple(run.rows), placement)
