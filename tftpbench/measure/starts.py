"""Which servers are left out of the rest of a run: those that failed to start twice with no start between.

One failed start may be the machine's doing; a server that does not start would cost each of its trials the time that it
is waited for. It must never leave out a server for what it did after it was ready.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from tftpbench.measure.plan import Trial

FAILED_STARTS_MAX = 2


@dataclass(frozen=True)
class LeftOut:
    """A server that is not tried any more. `failed_trials` are in trials.jsonl; `not_done` counts those that are not.

    `reason`: why it did not start the last time, with the last line of its log, as the end of a sentence.
    """

    server: str
    reason: str
    failed_trials: tuple[int, ...]
    not_done: int


class Starts:
    """The failed starts of one run. `stored`: what the manifest holds of an earlier part; its servers are tried again.

    `trials`: those that this part is to do.
    """

    def __init__(self, trials: Sequence[Trial], stored: object = None) -> None:
        self.left_out: dict[str, LeftOut] = {}
        self._planned = [(trial.order, trial.contender.name) for trial in trials]
        self._failed: dict[str, list[int]] = {}
        self._before = dict(_read(stored))

    def note(self, trial: Trial, failure: str | None) -> LeftOut | None:
        """Take in how the start of a trial went, None for well; the server if it is left out from here on."""
        name = trial.contender.name
        if failure is None:
            self._failed.pop(name, None)
            return None
        failed = self._failed.setdefault(name, [])
        failed.append(trial.number)
        if len(failed) < FAILED_STARTS_MAX:
            return None
        return self.leave_out(trial, failure, (*self._before.get(name, ()), *failed))

    def leave_out(self, trial: Trial, reason: str, failed: tuple[int, ...] = ()) -> LeftOut:
        """The server of this trial gets no further one; `failed`: trials in which it did not start."""
        name = trial.contender.name
        not_done = sum(order > trial.order for order, other in self._planned if other == name)
        made = self.left_out[name] = LeftOut(name, reason, failed, not_done)
        return made

    @property
    def is_none_left(self) -> bool:
        """Whether every server that had trials to do is left out."""
        return {name for _, name in self._planned} <= self.left_out.keys()

    def document(self) -> list[dict[str, object]]:
        """As in the manifest."""
        return [asdict(each) for each in self.left_out.values()]


def _read(stored: object) -> Iterable[tuple[str, tuple[int, ...]]]:
    """The trials that failed to start in an earlier part; what is not as we write it is passed over."""
    for each in stored if isinstance(stored, list) else []:
        if isinstance(each, Mapping) and isinstance(each.get("failed_trials"), list):
            yield str(each.get("server")), tuple(n for n in each["failed_trials"] if isinstance(n, int))
