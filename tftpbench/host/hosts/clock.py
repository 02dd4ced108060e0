"""How far the clock of another host is from this one's: Cristian's algorithm, over many round trips.

F. Cristian, "Probabilistic clock synchronization", Distributed Computing 3 (1989): the other clock is read somewhere
within a round trip, so its offset is known to half of it; the shortest trip knows it best. Times are nanoseconds of
CLOCK_MONOTONIC. Pure: it reads no clock but those that it is given.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

# Of one measurement: round trips, and seconds.
TRIPS_MAX, WITHIN_S = 32, 3.0


class RoundTrip(NamedTuple):
    """When a question was sent and its answer received, here; and what the other clock showed in between."""

    sent_ns: int
    there_ns: int
    received_ns: int


@dataclass(frozen=True)
class Offset:
    """The other clock less this one, which is wrong by `error_ns` at most."""

    offset_ns: int
    error_ns: int

    @classmethod
    def of(cls, trips: Iterable[RoundTrip]) -> "Offset":
        """From the shortest of these. Raises ValueError of none."""
        sent_ns, there_ns, received_ns = min(trips, key=lambda trip: trip.received_ns - trip.sent_ns)
        # Rounded up, and the middle down: together they still hold both ends of the trip.
        error_ns = (received_ns - sent_ns + 1) // 2
        return cls(there_ns - (sent_ns + received_ns) // 2, error_ns)

    @classmethod
    def measured(
        cls, there: Callable[[], int], here: Callable[[], int], trips_max: int = TRIPS_MAX, within_s: float = WITHIN_S
    ) -> "Offset":
        """From so many round trips, or as many as begin within the time, and one at least.

        `there` asks the other clock, `here` reads this one. Raises what `there` does.
        """
        trips: list[RoundTrip] = []
        until_ns = here() + round(within_s * 1e9)
        while len(trips) < trips_max and (not trips or here() < until_ns):
            sent_ns = here()
            there_ns = there()
            trips.append(RoundTrip(sent_ns, there_ns, here()))
        return cls.of(trips)

    def there(self, here_ns: int) -> int:
        """The time there at a time here."""
        return here_ns + self.offset_ns

    def here(self, there_ns: int) -> int:
        """The time here at a time there."""
        return there_ns - self.offset_ns


def apart_ns(before: Offset, after: Offset | None) -> int:
    """By how much a time of the other host may be wrong, from the one measurement to the other.

    Its rows follow its own clock from the common start on, so what the two clocks drifted apart counts as well. Without
    a second measurement, of a host that was lost, the first one's error.
    """
    if after is None:
        return before.error_ns
    return max(before.error_ns, abs(after.offset_ns - before.offset_ns) + after.error_ns)
