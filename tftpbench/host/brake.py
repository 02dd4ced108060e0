"""How a load comes to a server on another machine: one transfer, then ten at once, then a short ramp, then all of it.

People and machines may depend on that server. So each step must show that it holds before the next one sends more; a
load of any kind goes this way, boots and storms as well. It must never be left out where a load leaves this machine.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address

from tftpbench.host.generator import LoadConfig, LoadResult
from tftpbench.model.errors import nothing_listens
from tftpbench.model.units import counted, format_duration, format_rate, parse_bytes_per_s, rate_text

TEN = 10
# Below that one request a second passes.
BYTES_PER_S_MIN = 1000
# The ramp: as many as the load has at once, but no more than these, spread over this time.
RAMP_MAX, RAMP_NS = 100, 5_000_000_000
# Longer than the retries of any usual client take: a step that is not done by then has failed.
STEP_LIMIT_NS = 180_000_000_000


@dataclass(frozen=True)
class Held:
    """The step that the load did not get past: what it asked for, what came of it, and that in words."""

    config: LoadConfig
    result: LoadResult
    why: str


@dataclass(frozen=True)
class Limits:
    """What bounds the load on another machine: `stops`, by the rule that most of the last 100 failed for 3 s.

    `bytes_per_s_max`: of UDP payload, both ways; holds on this machine as well.
    """

    stops: bool = True
    bytes_per_s_max: int | None = None

    @classmethod
    def of(cls, max_rate: str | None, *, keep_going: bool) -> "Limits":
        """As people write them: a bandwidth, as in "500Mbit/s". Raises ValueError, which says what is wrong with it."""
        if max_rate is None:
            return cls(not keep_going)
        found = parse_bytes_per_s(max_rate)
        if found < BYTES_PER_S_MIN:
            raise ValueError(f"is {max_rate!r}; allowed: 8kbit/s or more")
        return cls(not keep_going, found)


USUAL = Limits()


def is_elsewhere(host: str) -> bool:
    """Whether datagrams to this IP address leave the machine."""
    address = ip_address(host)
    return not (getattr(address, "ipv4_mapped", None) or address).is_loopback


def leaves_machine(config: LoadConfig) -> bool:
    """Whether the datagrams of a load do; a server's own network is on this machine."""
    return config.network_fd is None and is_elsewhere(config.host)


def braked(config: LoadConfig, limits: Limits) -> LoadConfig:
    """The load with what bounds it; the rule that ends it is for other machines."""
    stops = limits.stops and leaves_machine(config)
    return replace(config, stops_when_failing=stops, bytes_per_s_max=limits.bytes_per_s_max)


def approach(config: LoadConfig, run: Callable[[LoadConfig], LoadResult], borne: int = 0) -> Held | None:
    """Go there step by step by `run`, which does one load; the step where half or more did not complete, if any.

    `borne`: so many at once the server has borne already, so that no step of as few is needed.
    """
    for words, step in _steps(config):
        if step.concurrency <= borne:
            continue
        result = run(step)
        started, completed = (int(result.figures.get(name) or 0) for name in _counted(config))
        if result.stopped is not None or completed * 2 <= max(started, 1):
            return Held(step, result, f"{completed} of {words} completed, so no more was sent")
    return None


def stopped_text(reason: str, where: str) -> str:
    """Why a load was ended by its brake, as `LoadResult.stopped` has it."""
    if reason == "unreachable":
        return f"the load was ended early: {nothing_listens(where)}"
    return "the load was ended early: for 3 s more than half of the last 100 had failed; --keep-going does not end it"


def run_text(host: str, limits: Limits) -> str:
    """What a run of several trials does to another machine, before it is done."""
    text = f"{host} is another machine: first 1 transfer or boot, then {TEN} at once, then up to {RAMP_MAX} within "
    text += f"{format_duration(RAMP_NS)}; then the trials.{_ends(limits.stops, limits.bytes_per_s_max)}"
    return text


def plan_text(config: LoadConfig) -> str:
    """What will be done, before it is: which target, how many, how much, and what ends it."""
    steps = ", then ".join(words for words, _ in _steps(config))
    ends = _ends(config.stops_when_failing, config.bytes_per_s_max)
    return f"{config.host} is another machine: first {steps}; then {_whole(config)}.{ends}"


def _ends(stops: bool, bytes_per_s_max: int | None) -> str:
    text = " It ends when more than half of the last 100 fail for 3 s." if stops else ""
    if bytes_per_s_max is not None:
        rate = format_rate(8 * bytes_per_s_max, "bit").replace(" bit", "bit")
        text += f" No more starts while more than {rate} are moved."
    return text


def at_once(config: LoadConfig) -> int:
    """How many of the load are in flight together, at most."""
    return min(config.concurrency, config.transfers or config.concurrency)


def _steps(config: LoadConfig) -> Iterator[tuple[str, LoadConfig]]:
    """Each with its words; only those that are smaller than the load itself."""
    thing, most = "boot" if config.boots else "transfer", at_once(config)
    calm = replace(
        config, rate_per_s=None, over_ns=None, shape=(), duration_ns=None, warm_up_ns=0, ramp_ns=0, workers=1,
        limit_ns=min(config.limit_ns, STEP_LIMIT_NS),
    )  # fmt: skip

    def step(count: int, ramp_ns: int = 0) -> LoadConfig:
        # Uploads have names of their own: some servers take no file twice, and the load's must be the first of theirs.
        is_upload = config.operation == "write" and not config.boots
        name = config.name.replace("{n}", f"first-{count}-{{n}}") if is_upload else config.name
        return replace(calm, transfers=count, concurrency=count, ramp_ns=ramp_ns, name=name)

    yield f"1 {thing}", step(1)
    if most >= TEN:
        yield f"{TEN} {thing}s at once", step(TEN)
    if (ramp := min(most, RAMP_MAX)) > TEN:
        yield f"{ramp} {thing}s within {format_duration(RAMP_NS)}", step(ramp, RAMP_NS)


def _counted(config: LoadConfig) -> tuple[str, str]:
    return ("machines", "booted") if config.boots else ("started", "completed")


def _whole(config: LoadConfig) -> str:
    """How many, and how much, in words."""
    thing = "machine" if config.boots else "transfer"
    count = "" if config.transfers is None else f"{counted(config.transfers, thing)}, "
    time = "" if config.duration_ns is None else f" for {format_duration(config.duration_ns + config.warm_up_ns)}"
    most = f"{at_once(config):,} at once" + (" at most" if config.is_open_loop else "")
    if config.over_ns is not None:
        time = f" within {format_duration(config.over_ns)}" if config.over_ns else ", as all ask in one moment"
    elif config.shape:
        starts, length_ns = (sum(getattr(piece, name) for piece in config.shape) for name in ("starts", "for_ns"))
        count, time = f"{counted(round(starts), thing)}, ", f" within {format_duration(length_ns)}"
    rate = "" if config.rate_per_s is None else f"{rate_text(config.rate_per_s)}, "
    return f"{count}{rate}{most}{time}"
