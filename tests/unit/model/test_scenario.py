"""Scenario files: what is read, and the one line that a mistake gives."""

import json
import re
from pathlib import Path

import pytest

from tftpbench.gate.sides import refuse_unfit
from tftpbench.host.choice import bundled_manifests, choose
from tftpbench.host.presence import Found
from tftpbench.measure.plan import Contender
from tftpbench.model.boot import BootFacts, load_boot
from tftpbench.model.errors import ScenarioError, UsageError
from tftpbench.model.manifest import Manifest
from tftpbench.model.scenario import Scenario, from_document
from tftpbench.model.scenario_files import bundled_scenarios, load_scenario
from tftpbench.model.strict import MISTAKES_MAX
from tftpbench.model.workload import Generators, OpenLoop, Piece, Shaped, Storm

OURS = {"epoll", "threads"}

TEXT = """\
schema: tftpbench.scenario/1
name: small
description: Is it small?
servers: [epoll, threads]
matrix:
  operation: [read, write]
  concurrency: [3, 10]
  file_size: 64KiB
  blksize: 512
duration: 1s
client: {timeout: 1s, retries: 5}
verify: full
thresholds:
  - "epoll.failed == 0"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "small.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, old: str = "", new: str = "", overrides: tuple[str, ...] = ()) -> Scenario:
    assert old in TEXT
    return load_scenario(str(write(folder, TEXT.replace(old, new) if old else TEXT)), overrides)


def fault(folder: Path, old: str = "", new: str = "", overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(ScenarioError) as error:
        load(folder, old, new, overrides)
    line = str(error.value)
    assert "\n" not in line
    return line.removeprefix(f"{folder}/")


WHOLE: dict[str, object] = {
    "name": "whole",
    "description": "Is it whole?",
    "servers": ["epoll"],
    "matrix": {"operation": "read", "concurrency": 3, "file_size": 1},
    "transfers": 5,
}


def mistakes(**changes: object) -> list[str]:
    with pytest.raises(ScenarioError) as error:
        Scenario.from_dict({**WHOLE, **changes})
    return [line.removeprefix("the scenario: ") for line in str(error.value).splitlines()]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("matrix", {"operation": "read", "concurrency": [0], "file_size": 1}, "matrix.concurrency[0]: is 0; allowed"),
        ("matrix", {"operation": "?", "concurrency": 3, "file_size": "?"}, "matrix.operation[0]: is '?'"),
        ("matrix", 7, "matrix: is 7; allowed: a mapping"),
        ("matrix", [], "matrix: is []; allowed"),
        ("matrix", [{"concurrency": 1, "operation": "read"}], "matrix[0].file_size: is missing"),
        ("servers", [], "servers: is an empty list"),
        ("name", 7, "name: is 7"),
        ("description", None, "description: is None"),
        ("schema", 7, "schema: is 7"),
    ],
)
def test_what_is_wrong_with_a_required_key_hides_no_other_mistake(key: str, value: object, said: str) -> None:
    lines = mistakes(**{key: value}, thresholds=["faild == 0", "x"], warm_up="1s")
    assert any(line.startswith(said) for line in lines)
    starts = ["warm_up: has no meaning", "thresholds[0]: 'faild == 0' names no", "thresholds[1]: 'x' is no"]
    assert all(any(line.startswith(start) for line in lines) for start in starts), lines


def test_equal_mistakes_of_several_places_are_several_also_where_there_are_no_lines() -> None:
    assert len(mistakes(thresholds=["x", "y", "x"])) == 3
    assert [line[:13] for line in mistakes(servers=[1, "a", 2])] == ["servers[0]: i", "servers[2]: i"]


def test_thousands_of_mistakes_are_counted_and_not_worded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def counted(word: str, *_: object, **_options: object) -> list[str]:
        asked.append(word)
        return []

    monkeypatch.setattr("difflib.get_close_matches", counted)
    many = 9000
    for wrong in (
        {f"servers{number}": 1 for number in range(many)},
        {"matrix": [{f"operation{number}": 1} for number in range(many)]},
        {"thresholds": [f"faild{number} == 0" for number in range(many)]},
        {"thresholds": [f"epol{number}.failed == 0" for number in range(many)]},
    ):
        asked.clear()
        lines = mistakes(**wrong)
        assert len(lines) == 21
        assert int(re.sub("[^0-9]", "", lines[-1])) >= many - 20
        assert len(asked) <= 10 * MISTAKES_MAX, "a suggestion takes a millisecond"


def test_data_is_bounded_as_a_file_is() -> None:
    nested: object = 1
    for _ in range(3000):
        nested = {"a": nested}
    endless: list[object] = []
    endless.append(endless)
    assert mistakes(client=nested) == mistakes(servers=endless) == ["is nested deeper than 20"]
    assert mistakes(servers=["a"] * 300_000) == ["holds more than 200000 values"]
    assert mistakes(client=open, servers=[])[0].startswith("servers: is an empty list"), "what can't be copied"


def test_a_set_below_a_value_is_to_blame_itself(tmp_path: Path) -> None:
    assert fault(tmp_path, overrides=("matrix.concurrency.x=1",)).startswith(
        "--set matrix.concurrency.x=1: matrix.concurrency[0]: is {'x': 1}; allowed: 1 to 50000"
    )
    assert fault(tmp_path, overrides=("client.retries.x=1",)).startswith("--set client.retries.x=1: client.retries: ")


def test_the_product_of_the_matrix_is_the_cells_concurrency_fastest(tmp_path: Path) -> None:
    cells = load(tmp_path).cells()
    assert [(cell.operation, cell.concurrency) for cell in cells] == [
        ("read", 3),
        ("read", 10),
        ("write", 3),
        ("write", 10),
    ]
    assert {cell.file_size_bytes for cell in cells} == {65536}
    assert cells == load(tmp_path).cells()


def test_what_is_not_written_has_its_default(tmp_path: Path) -> None:
    scenario = load(tmp_path)
    cell = scenario.cells()[0]
    assert (cell.windowsize, cell.distinct_files, cell.warm_up_ns, scenario.trials) == (1, 16, 200_000_000, 7)
    assert (cell.client.ramp_ns, cell.client.backoff, cell.placement.server_cpus) == (0, "exponential", 1)


def test_a_fixed_number_of_transfers_has_no_duration_and_no_warm_up(tmp_path: Path) -> None:
    cell = load(tmp_path, "duration: 1s", "transfers: 2000").cells()[0]
    assert (cell.transfers, cell.duration_ns, cell.warm_up_ns) == (2000, None, 0)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "blksize: 512",
            "blocksize: 512",
            "small.yaml:9:3: matrix.blocksize: unknown key; did you mean 'blksize'?",
        ),
        (
            "blksize: 512",
            "blksize: [512, 5]",
            "small.yaml:9:18: matrix.blksize[1]: is 5; allowed: 8 to 65464 (RFC 2348)",
        ),
        ("blksize: 512", "blksize: 65465", "small.yaml:9:3: matrix.blksize[0]: is 65465; allowed: 8 to 65464"),
        ("blksize: 512", "blksize: '512'", "small.yaml:9:3: matrix.blksize[0]: is '512'; allowed: 8 to 65464"),
        ("blksize: 512", "blksize: true", "small.yaml:9:3: matrix.blksize[0]: is True; allowed: 8 to 65464"),
        ("blksize: 512", "windowsize: 0", "small.yaml:9:3: matrix.windowsize[0]: is 0; allowed: 1 to 65535 (RFC 7440)"),
        ("blksize: 512", "blksize: []", "small.yaml:9:3: matrix.blksize: is an empty list; allowed: one value or more"),
        ("blksize: 512", "blksize: [8, 8]", "small.yaml:9:3: matrix.blksize: lists 8 twice; allowed: 8 to 65464"),
        ("blksize: 512", "file_size: 1", "small.yaml:9:3: matrix.file_size: is written twice"),
        ("[3, 10]", "[3, 0]", "small.yaml:7:20: matrix.concurrency[1]: is 0; allowed: 1 to 50000"),
        ("[read, write]", "reed", "small.yaml:6:3: matrix.operation[0]: is 'reed'; allowed: read, write"),
        ("64KiB", "64 parsec", "small.yaml:8:3: matrix.file_size[0]: is '64 parsec'; allowed: bytes as a number"),
        ("  file_size: 64KiB\n", "", "small.yaml:5:1: matrix.file_size: is missing; allowed: 0 to 1TiB"),
        ("duration: 1s", "duration: 1", "small.yaml:10:1: duration: is '1', without a unit; did you mean '1s'?"),
        ("duration: 1s", "duration: 1ms", "small.yaml:10:1: duration: is '1ms'; allowed: 10ms to 24h"),
        ("duration: 1s", "warm_up: 1s", "small.yaml:1:1: duration: is missing; allowed: exactly one of duration and"),
        (
            "verify",
            "transfers: 50\nverify",
            "small.yaml:10:1: duration: is given beside transfers; allowed: exactly one",
        ),
        (
            "duration: 1s",
            "transfers: 9",
            "small.yaml:10:1: transfers: is 9, so 10 can't be in flight; allowed: 10 or more",
        ),
        (
            "duration: 1s",
            "transfers: 50\nwarm_up: 1s",
            "small.yaml:11:1: warm_up: has no meaning with transfers; allowed",
        ),
        (
            "retries",
            "retires",
            "small.yaml:11:23: client.retires: unknown key; did you mean 'retries'?",
        ),
        ("timeout: 1s", "timeout: 0s", "small.yaml:11:10: client.timeout: is 0; allowed: 1ms to 1h"),
        ("retries: 5", "start: soon", "small.yaml:11:23: client.start: is 'soon'; allowed: a number with a unit"),
        ("retries: 5", "rollover: 2", "small.yaml:11:23: client.rollover: is 2; allowed: 0, 1 or null"),
        ("full", "maybe", "small.yaml:12:1: verify: is 'maybe'; allowed: full, sample, off"),
        (
            "verify: full",
            "placement: {server_cpus: 0}",
            "small.yaml:12:13: placement.server_cpus: is 0; allowed: a number",
        ),
        (
            "verify: full",
            "concurrency: 7",
            "small.yaml:12:1: concurrency: unknown key; did you mean 'matrix.concurrency'?",
        ),
        (
            "epoll.failed",
            "epol.failed",
            "small.yaml:14:5: thresholds[0]: 'epol.failed == 0' names the server 'epol', which",
        ),
        (
            "epoll.failed",
            "epoll.faild",
            "small.yaml:14:5: thresholds[0]: 'epoll.faild == 0' names no column of the results",
        ),
        (
            "name: small",
            "name: Not Small",
            "small.yaml:2:1: name: is 'Not Small'; allowed: small letters, digits and -",
        ),
        (
            "scenario/1",
            "scenario/2",
            "small.yaml:1:1: schema: is 'tftpbench.scenario/2'; allowed: tftpbench.scenario/1",
        ),
    ],
)
def test_a_mistake_is_one_line_of_place_key_fault_and_what_is_allowed(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert fault(tmp_path, old, new).startswith(said)


def faults(folder: Path, text: str, overrides: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(ScenarioError) as error:
        load_scenario(str(write(folder, text)), overrides)
    return [line.removeprefix(f"{folder}/") for line in str(error.value).splitlines()]


def test_all_mistakes_are_said_at_once_a_line_each_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = TEXT.replace("blksize: 512", "blksize: [512, 5, 7]\n  windowsise: 4").replace("retries: 5", "retires: 5")
    text = text.replace("verify: full", "verify: maybe\ntrials: 0").replace("epoll.failed", "epol.faild")
    text = text.replace("duration: 1s", "duration: 1s\ntransfers: 50").replace("name: small", "name: Not Small")
    text += '  - "epol.failed == 0"\nspeed: 5\nverify: off\n'
    assert [line.partition(";")[0] for line in faults(tmp_path, text)] == [
        "small.yaml:2:1: name: is 'Not Small'",
        "small.yaml:9:18: matrix.blksize[1]: is 5",
        "small.yaml:9:21: matrix.blksize[2]: is 7",
        "small.yaml:10:3: matrix.windowsise: unknown key",
        "small.yaml:11:1: duration: is given beside transfers",
        "small.yaml:13:23: client.retires: unknown key",
        "small.yaml:14:1: verify: is 'maybe'",
        "small.yaml:15:1: trials: is 0",
        "small.yaml:17:5: thresholds[0]: 'epol.faild == 0' names no column of the results",
        "small.yaml:18:5: thresholds[1]: 'epol.failed == 0' names the server 'epol', which doesn't run here",
        "small.yaml:19:1: speed: unknown key",
        "small.yaml:20:1: verify: is written twice",
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("duration: 1s", "duratoin: 1s", ["small.yaml:10:1: duratoin: unknown key"]),
        ("duration: 1s", "transfers: many", ["small.yaml:10:1: transfers: is 'many'"]),
        ("concurrency: [", "concurency: [", ["small.yaml:7:3: matrix.concurency: unknown key"]),
        ("matrix:", "matrix: 3\nx:", ["small.yaml:5:1: matrix: is 3", "small.yaml:6:1: x: unknown key"]),
        (
            "duration: 1s",
            "transfers: 9\nwarm_up: 1s",
            ["small.yaml:10:1: transfers: is 9, so 10 can't be in flight", "small.yaml:11:1: warm_up: has no meaning"],
        ),
        ("servers: [epoll, threads]", "", ["small.yaml:1:1: servers: is missing"]),
    ],
)
def test_what_follows_from_a_mistake_is_not_told_as_another(
    tmp_path: Path, old: str, new: str, said: list[str]
) -> None:
    found = faults(tmp_path, TEXT.replace(old, new))
    assert len(found) == len(said), found
    assert all(line.startswith(start) for line, start in zip(found, said, strict=True)), found


def test_a_file_of_many_mistakes_is_told_by_the_first_twenty(tmp_path: Path) -> None:
    found = faults(tmp_path, TEXT.replace("512", str([*range(1, 8), 0, -1, *range(70_000, 72_000)])))
    assert len(found) == 21
    assert found[-1] == "small.yaml: and 1989 more"


def test_off_is_a_word_and_no_boolean(tmp_path: Path) -> None:
    assert load(tmp_path, "verify: full", "verify: off").verify == "off"


def test_a_matrix_of_too_many_cells_is_refused_before_it_is_built(tmp_path: Path) -> None:
    many = ", ".join(map(str, range(8, 3008)))
    line = fault(tmp_path, "blksize: 512", f"blksize: [{many}]\n  windowsize: [{many}]")
    assert line == "small.yaml:5:1: matrix: has 36000000 cells; allowed: 10000 at most"


UNION = """\
matrix:
  - {operation: [read, write], concurrency: [3, 10], file_size: 64KiB}
  - operation: read
    concurrency: 10
    file_size: 64KiB
    windowsize: [16, 64]
"""
PRODUCT = TEXT[TEXT.index("matrix:") : TEXT.index("duration:")]


OPEN = """\
matrix:
  operation: read
  rate: [200/s, 3/min]
  arrivals: [even, poisson]
  file_size: 64KiB
"""


def test_a_rate_makes_open_loops(tmp_path: Path) -> None:
    scenario = load(tmp_path, PRODUCT, OPEN + "in_flight_max: 500\n")
    cells = scenario.cells()
    assert [cell.load for cell in cells] == [
        OpenLoop(rate, arrivals, 500, 30 * 10**9) for rate in (200.0, 0.05) for arrivals in ("even", "poisson")
    ]
    assert [cell.label for cell in cells][:2] == ["read, 200/s, 64 KiB", "read, 200/s, poisson, 64 KiB"]
    assert from_document(scenario.document(), "manifest.json") == scenario
    assert len(scenario.quick().cells()) == 4
    assert load(tmp_path, PRODUCT, OPEN.replace("  arrivals: [even, poisson]\n", "")).cells()[0].arrivals == "even"


def test_transfers_keep_the_keys_that_they_had_before_there_were_boots() -> None:
    """Written once, by the version before; never renewed."""
    closed = {"operation": ["read", "write"], "concurrency": [3], "file_size": "64KiB", "blksize": 1428}
    rate = {"operation": "read", "rate": ["200/s", "3/min"], "arrivals": ["even", "poisson"], "file_size": "64KiB"}
    asked = {"transfers": None, "duration": "1s", "in_flight_max": 500, "deadline": "5s", "matrix": [closed, rate]}
    scenario = Scenario.from_dict({**WHOLE, **asked})
    assert [cell.key for cell in scenario.cells()] == [
        "2e78c05c5d7085c2", "d481979df57bfd6e", "d66ba4c6ca3cec32",
        "8284de9426258b47", "8d0daede9989485f", "ea4a2537810e8200",
    ]  # fmt: skip


def test_what_an_open_loop_is_asked_for_is_in_its_key(tmp_path: Path) -> None:
    def keys(more: str) -> list[str]:
        return [cell.key for cell in load(tmp_path, PRODUCT, OPEN + more).cells()]

    every = [keys(more) for more in ("", "in_flight_max: 500\n", "deadline: 5s\n")]
    assert len({key for some in every for key in some}) == 12
    closed = load(tmp_path).cells()[0].key_fields
    assert not closed.keys() & {"rate_per_s", "arrivals", "deadline_ns"}, "older runs keep their keys"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  rate: [200/s, 3/min]\n  arrivals: [even, poisson]\n", "",
         "small.yaml:5:1: matrix.concurrency: is missing; allowed: exactly one of concurrency, rate, machi"),
        ("  rate:", "  concurrency: 3\n  rate:", "small.yaml:7:3: matrix.concurrency: is given beside rate; allowed: "),
        ("rate: [200/s, 3/min]", "concurrency: 3", "small.yaml:8:3: matrix.arrivals: has no meaning without rate"),
        ("200/s", "200", "small.yaml:7:10: matrix.rate[0]: is 200; allowed: a number a second, minute or hour"),
        ("200/s", "0/s", "small.yaml:7:10: matrix.rate[0]: is '0/s'; allowed: 0.001/s to 1000000/s"),
        ("200/s", "-1/s", "small.yaml:7:10: matrix.rate[0]: is '-1/s'; allowed: a number a second"),
        ("200/s", "1000000000/s", "small.yaml:7:10: matrix.rate[0]: is '1000000000/s'; allowed: 0.001/s to 1000000/s"),
        ("200/s", "999999999/s", "small.yaml:7:10: matrix.rate[0]: is '999999999/s'; allowed: 0.001/s to 1000000/s"),
        ("poisson", "normal", "small.yaml:8:20: matrix.arrivals[1]: is 'normal'; allowed: even, poisson"),
    ],
)  # fmt: skip
def test_a_mistake_in_an_open_loop_is_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert fault(tmp_path, PRODUCT, OPEN.replace(old, new)).startswith(said)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("in_flight_max: 0\n", "in_flight_max: is 0; allowed: 1 to 50000"),
        ("deadline: 0s\n", "deadline: is '0s'; allowed: 1ms to 1h"),
        ("compare_with: ceiling\n", "compare_with: is ceiling, which has no meaning with matrix.rate"),
    ],
)
def test_a_key_of_open_loops_has_bounds(tmp_path: Path, more: str, said: str) -> None:
    assert said in fault(tmp_path, PRODUCT, OPEN + more)


@pytest.mark.parametrize("more", ["in_flight_max: 5", "deadline: 5s"])
def test_a_key_of_open_loops_needs_a_rate(tmp_path: Path, more: str) -> None:
    key = more.partition(":")[0]
    assert f"{key}: has no meaning without matrix.rate" in fault(tmp_path, "verify: full", f"verify: full\n{more}")


def test_a_rate_spreads_all_starts_so_there_is_no_ramp(tmp_path: Path) -> None:
    text = TEXT.replace("retries: 5", "start: 1s").replace(PRODUCT, OPEN)
    with pytest.raises(ScenarioError, match=r"client\.start: has no meaning with matrix\.rate"):
        load_scenario(write(tmp_path, text))


BOOT = """\
schema: tftpbench.boot/1
name: mine
description: Mine.
certainty: less certain
sources: {mine: My own machine.}
names: {loader: grub.efi}
sizes: {"{loader}": 5KiB}
clients:
  firmware: {source: mine, waits: 4s, nack: gap}
steps:
  - get: "{loader}"
"""
STORM = "matrix:\n  boot: uefi-grub\n  machines: [100, 1000]\n  over: [0s, 10s]\n"
RAMP = "matrix:\n  boot: uefi-grub\n  shape: [{ramp: 0/s..500/s, for: 60s}, {hold: 3/min, for: 5min}, {burst: 2000}]\n"


def boots(folder: Path, matrix: str, *more: str) -> Scenario:
    """Of a matrix that ends by itself, with other lines."""
    text = (
        TEXT.replace(PRODUCT, matrix).replace("duration: 1s\n", "").replace("client: {timeout: 1s, retries: 5}\n", "")
    )
    return load_scenario(write(folder, text + "\n".join(more)))


def test_a_storm_is_machines_within_a_time(tmp_path: Path) -> None:
    scenario = boots(tmp_path, STORM)
    cells = scenario.cells()
    assert [(cell.load, cell.concurrency) for cell in cells] == [
        (Storm(machines, over_ns, "even", 30 * 10**9), machines) for machines in (100, 1000) for over_ns in (0, 10**10)
    ]
    assert [cell.label for cell in cells] == [
        "100 machines of uefi-grub at once", "100 machines of uefi-grub within 10 s",
        "1000 machines of uefi-grub at once", "1000 machines of uefi-grub within 10 s",
    ]  # fmt: skip
    cell = cells[3]
    assert {name: value for name, value in cell.point.items() if value is not None} == {
        "machines_asked": 1000, "boot": "uefi-grub", "concurrency": 1000, "over_ns": 10**10, "spread": "even",
    }  # fmt: skip
    assert (cell.transfers, cell.duration_ns, cell.warm_up_ns) == (None, None, 0)
    assert [(share.name, share.weight, share.steps) for share in cell.shares] == [
        ("uefi-grub", 1, load_boot("uefi-grub").steps)
    ]
    more = boots(tmp_path, STORM + "  spread: normal\n", "in_flight_max: 500", "deadline: 2min", "rows: failed").cells()
    assert [cell.concurrency for cell in more] == [100, 100, 500, 500]
    assert (more[0].label, more[0].rows) == ("100 machines of uefi-grub at once, normal spread", "failed")
    assert len({cell.key for cell in (*cells, *more)}) == 8
    huge = boots(tmp_path, STORM.replace("1000", "1000000").replace("[0s, ", "[")).cells()[-1]
    assert huge.concurrency == 50_000


def test_boots_start_at_a_rate_in_a_shape_and_in_a_closed_loop(tmp_path: Path) -> None:
    rate = load(tmp_path, PRODUCT, "matrix: {boot: [uefi-grub, pi4], rate: 50/s}\n", ("client.retries=5",)).cells()
    assert [cell.label for cell in rate] == ["machines of uefi-grub at 50/s", "machines of pi4 at 50/s"]
    assert (rate[0].duration_ns, rate[0].load) == (10**9, OpenLoop(50.0, "even", 2_000, 30 * 10**9))
    closed = load(tmp_path, PRODUCT, "matrix: {boot: pi4, concurrency: 7}\n").cells()[0]
    assert (closed.label, closed.concurrency, closed.open_loop) == ("machines of pi4, 7 at once", 7, None)
    shaped = boots(tmp_path, RAMP + "  arrivals: poisson\n").cells()[0]
    fast, slow = (1, 2_000_000), (1, 20 * 10**9)  # starts in so many ns
    pieces = Piece("ramp", (0, 1), fast, 60 * 10**9), Piece("hold", slow, slow, 300 * 10**9), Piece("burst", count=2000)
    assert shaped.load == Shaped(pieces, "poisson", 2_000, 30 * 10**9)
    read = load(tmp_path, PRODUCT, OPEN).cells()[0]
    assert read.concurrency == 10_000, "more transfers than machines, which have several each"
    assert shaped.label == "machines of uefi-grub, poisson, shape 0/s to 500/s in 60 s, 0.05/s for 300 s, 2000 at once"


def test_a_storm_may_be_of_transfers(tmp_path: Path) -> None:
    cell = boots(tmp_path, "matrix: {operation: read, file_size: 1MiB, machines: 5, over: 10s}\n").cells()[0]
    assert (cell.label, cell.shares, cell.blksize) == ("read, 5 machines within 10 s, 1 MiB", (), 512)


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ({"boot": "pi4", "concurrency": 3}, "'machines of pi4, 3 at once' boots machines, which is no measure"),
        ({"operation": "read", "file_size": 1, "machines": 3}, "'read, 3 machines at once, 1 B' starts by a schedule"),
    ],
)
def test_a_gate_judges_transfers_that_follow_each_other(matrix: dict[str, object], said: str) -> None:
    window = {"transfers": 3 if "concurrency" in matrix else None}
    cells = Scenario.from_dict({**WHOLE, **window, "matrix": matrix}).cells()
    epoll = Contender(*choose("epoll"), Found("1", ""))
    with pytest.raises(UsageError, match=f"the cell {said}"):
        refuse_unfit(epoll, epoll, cells)


def test_a_mix_is_one_cell_whose_weights_are_a_ratio(tmp_path: Path) -> None:
    text = "matrix:\n  machines: 10\n  mix: [{boot: uefi-grub, weight: 8}, {boot: pi4, weight: 2}]\n"
    (cell,) = boots(tmp_path, text).cells()
    assert cell.label == "10 machines of 8 uefi-grub : 2 pi4 at once"
    assert (cell.point["mix"], cell.mix) == ("8 uefi-grub : 2 pi4", (("uefi-grub", 8), ("pi4", 2)))
    assert [(share.name, share.weight) for share in cell.shares] == [("uefi-grub", 4), ("pi4", 1)]
    assert boots(tmp_path, text.replace("8", "4").replace("weight: 2", "weight: 1")).cells()[0].key == cell.key
    assert boots(tmp_path, text.replace("8", "7")).cells()[0].key != cell.key


def test_a_boot_is_known_by_what_it_does_and_its_path_starts_at_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "boots").mkdir()
    profile = tmp_path / "boots/mine.yaml"
    profile.write_text(BOOT, encoding="utf-8")
    text = "matrix: {boot: boots/mine.yaml, machines: 3}\n"
    scenario = boots(tmp_path, text)
    (cell,) = scenario.cells()
    assert cell.label == "3 machines of mine at once"
    profile.rename(tmp_path / "other.yaml")
    (other,) = boots(tmp_path, text.replace("boots/mine", "./other")).cells()
    assert (cell.key, cell.key_fields.keys() & {"boot", "map"}) == (other.key, set())
    (named,) = boots(tmp_path, text.replace("boots/mine", "./other"), "map: {loader: x}").cells()
    assert named.key != cell.key
    assert [step.name for step in named.shares[0].steps] == ["x"]

    document = scenario.document()  # as a run wrote it down, before the profile was moved and changed
    assert [each.key for each in from_document(document, "manifest.json").cells()] == [cell.key]
    profile.write_text(BOOT.replace("4s", "5s"), encoding="utf-8")
    assert boots(tmp_path, text).cells()[0].key != cell.key
    (recorded,) = from_document(document, "manifest.json").cells()
    assert recorded.key == cell.key
    with pytest.raises(ScenarioError, match=r"mine\.yaml has changed since the run began; allowed: a new run"):
        _ = recorded.shares
    assert recorded.boot_facts == cell.boot_facts, "what its machines asked for was written down, too"
    assert document["asks"] == {cell.boot: {"requests": 1, "files": 1, "misses": 0, "bytes": 5120, "blocks": 11}}
    del document["asks"]
    (older,) = from_document(document, "manifest.json").cells()
    with pytest.raises(ScenarioError, match=r"has changed since"):
        _ = older.boot_facts


@pytest.mark.parametrize("wrong", [3, {"bytes": 1}, dict.fromkeys(BootFacts._fields, -1)])
def test_what_a_machine_asked_for_is_read_as_it_was_written(tmp_path: Path, wrong: object) -> None:
    document = boots(tmp_path, STORM).document()
    with pytest.raises(ScenarioError, match=r"asks\.uefi-grub: is .*; allowed: "):
        from_document({**document, "asks": {"uefi-grub": wrong}}, "manifest.json")


def test_what_older_runs_did_not_know_is_not_written_down(tmp_path: Path) -> None:
    assert not load(tmp_path).document().keys() & {"gate", "quick", "rows", "map", "profiles"}
    scenario = boots(tmp_path, STORM, "rows: sample", "map: {loader: x}")
    document = scenario.document()
    assert (document["rows"], document["map"], list(document["profiles"])) == ("sample", {"loader": "x"}, ["uefi-grub"])
    assert from_document(document, "manifest.json").cells() == scenario.cells()


def test_quick_makes_storms_small_and_shapes_short(tmp_path: Path) -> None:
    storm = boots(tmp_path, STORM.replace("100,", "10, 5000,")).quick()
    assert [cell.label for cell in storm.cells()] == [
        "10 machines of uefi-grub at once", "10 machines of uefi-grub within 1 s",
        "100 machines of uefi-grub at once", "100 machines of uefi-grub within 1 s",
    ]  # fmt: skip
    (cell,) = boots(tmp_path, RAMP).quick().cells()
    assert cell.shape == "0/s to 500/s in 166 ms, 0.05/s for 833 ms, 100 at once"
    union = "matrix:\n  - {boot: pi4, machines: 1000}\n  - {boot: pi4, machines: 5000}\n"
    assert len(boots(tmp_path, union).quick().cells()) == 1


@pytest.mark.parametrize(
    ("matrix", "more", "said"),
    [
        ("{boot: uefi-grob, machines: 1}", "", ["matrix.boot[0]: no boot is called 'uefi-grob'; did you mean"]),
        ("{boot: ./none.yaml, machines: 1}", "", ["matrix.boot[0]: "]),
        ("{boot: pi4, machines: 0}", "", ["matrix.machines[0]: is 0; allowed: 1 to 1000000"]),
        ("{boot: pi4, machines: [1, 50001]}", "", ["matrix.machines[1]: is 50001 at once; allowed: 50000 in flight, "]),
        ("{boot: pi4, machines: 1, over: -1s}", "", ["matrix.over[0]: is '-1s'; allowed: a number with a unit"]),
        ("{boot: pi4, machines: 1, spread: poisson}", "", ["matrix.spread[0]: is 'poisson'; allowed: even, normal"]),
        ("{boot: pi4}", "", ["matrix.concurrency: is missing; allowed: exactly one of concurrency, rate, mach"]),
        ("{boot: pi4, machines: 1, rate: 5/s}", "", ["matrix.rate: is given beside machines; allowed: exactly one of"]),
        ("{machines: 1}", "", ["matrix.operation: is missing; allowed: read", "matrix.file_size: is missing; allowed"]),
        ("{boot: pi4, mix: [{boot: pi4}, {boot: pi4}], machines: 1}", "",
         ["matrix.mix: is given beside boot", "matrix.mix[1].boot: names 'pi4' twice"]),
        ("{mix: [{boot: pi4, weight: 0}], machines: 1}", "", ["matrix.mix[0].weight: is 0; allowed: 1 to 1000"]),
        ("{mix: [{bot: pi4}], machines: 1}", "", ["matrix.mix[0].bot: unknown key; did you mean 'boot'?"]),
        ("{mix: [], machines: 1}", "", ["matrix.mix: is []; allowed: a list of boots with their weights"]),
        ("{boot: pi4, machines: 1, operation: read, file_size: 1, blksize: 512, windowsize: 1}",
         "duration: 1s\nwarm_up: 1s\ntime_limit: 1s\nclient: {start: 1s, retries: 3}\nbest_of: [blksize]",
         ["matrix.operation: has no meaning beside boot, which says it itself; allowed: only without boot",
          "matrix.file_size: has no meaning beside boot", "matrix.blksize: has no meaning beside boot",
          "matrix.windowsize: has no meaning beside boot", "duration: has no meaning with matrix.machines, which",
          "warm_up: has no meaning with matrix.machines", "time_limit: has no meaning with matrix.machines",
          "client.start: has no meaning with matrix.machines, which spreads all starts",
          "client.retries: has no meaning with matrix.boot, which says it itself",
          "best_of: has no meaning with matrix.boot"]),
        ("{boot: pi4, machines: 1}", "transfers: 5", ["transfers: has no meaning with matrix.machines, which ends"]),
        ("{boot: pi4, machines: 1}", "map: {loadr: x}", ["map.loadr: is no name of these boots"]),
        ("{boot: pi4, machines: 1}", "compare_with: ceiling", ["compare_with: is ceiling, which has no meaning"]),
        ("{boot: pi4, concurrency: 1, over: 1s, spread: even, arrivals: even}",
         "duration: 1s\ndeadline: 1s\nin_flight_max: 5",
         ["matrix.arrivals: has no meaning without rate or shape", "matrix.over: has no meaning without machines",
          "matrix.spread: has no meaning without machines", "deadline: has no meaning without matrix.rate, machines or",
          "in_flight_max: has no meaning without matrix.rate, machines or shape"]),
        ("{operation: read, file_size: 1, concurrency: 1}", "duration: 1s\nmap: {loader: x}\nrows: some",
         ["map: has no meaning without matrix.boot or mix", "rows: is 'some'; allowed: all, failed, sample"]),
        ("{operation: [read, write], file_size: 1, concurrency: 1}", "duration: 1s\nrows: failed",
         ["rows: is failed, which keeps no upload to compare; allowed: all or sample, or verify: off"]),
        ("{boot: pi4, shape: []}", "", ["matrix.shape: is []; allowed: a list of pieces"]),
        ("{boot: pi4, shape: [{burst: 5}, {burst: 7}]}", "", ["matrix.shape: has no length; allowed: with a ramp"]),
        ("{boot: pi4, shape: [{ramp: 0/s..0/s, for: 1s}, {ramp: 5/s, for: 1s}, {hold: 5/s}, {hold: 0/s, for: 1s}]}", "",
         ["matrix.shape[0].ramp: is '0/s..0/s'; allowed: one rate to another, each 0/s to 1000000/s, as in 10/s..500/s",
          "matrix.shape[1].ramp: is '5/s'", "matrix.shape[2]: has a hold without a length; allowed: with `for`",
          "matrix.shape[3].hold: is '0/s'; allowed: 0.001/s to 1000000/s"]),
        ("{boot: pi4, shape: [{ramp: 1/s..9999999/s, for: 1s}, {hold: 5/s, for: 0s}, {burst: 0}, {burst: 5, for: 1s}]}",
         "", ["matrix.shape[0].ramp: is '1/s..9999999/s'", "matrix.shape[1].for: is '0s'; allowed: 1ms to 24h",
              "matrix.shape[2].burst: is 0; allowed: 1 to 1000000", "matrix.shape[3].for: has no meaning beside"]),
        ("{boot: pi4, shape: [{hold: 1000000000/s, for: 1s}, {ramp: 1/s..1000000000/s, for: 1s}, {burst: 1000000000}]}",
         "", ["matrix.shape[0].hold: is '1000000000/s'; allowed: 0.001/s to 1000000/s",
              "matrix.shape[1].ramp: is '1/s..1000000000/s'", "matrix.shape[2].burst: is 1000000000; allowed: 1 to"]),
        ("{boot: pi4, shape: [{ramp: 1/s..5/s}, {ramp: -5/s..5/s, for: 1s}]}", "",
         ["matrix.shape[0]: has a ramp without a length; allowed: with `for`", "matrix.shape[1].ramp: is '-5/s..5/s'"]),
        ("{boot: pi4, shape: [{hold: 5/s, burst: 3}, {}, {hold: -5/s, for: 1s}, {holt: 5/s}]}", "",
         ["matrix.shape[0]: is both hold and burst; allowed: exactly one", "matrix.shape[1]: is nothing that starts",
          "matrix.shape[2].hold: is '-5/s'; allowed: a number a second",
          "matrix.shape[3].holt: unknown key; did you mean 'hold'?"]),
    ],
)  # fmt: skip
def test_every_mistake_about_boots_is_one_line(tmp_path: Path, matrix: str, more: str, said: list[str]) -> None:
    with pytest.raises(ScenarioError) as error:
        boots(tmp_path, f"matrix: {matrix}\n", *more.splitlines())
    lines = [line.partition("small.yaml:")[2].partition(": ")[2] for line in str(error.value).splitlines()]
    assert sorted(line[: len(start)] for line, start in zip(sorted(lines), sorted(said), strict=False)) == sorted(said)
    assert len(lines) == len(said), lines


def test_files_of_a_mix_must_agree(tmp_path: Path) -> None:
    for name, size in (("a", "5KiB"), ("b", "6KiB")):
        (tmp_path / f"{name}.yaml").write_text(BOOT.replace("5KiB", size).replace("name: mine", f"name: {name}"))
    with pytest.raises(ScenarioError, match=r"matrix\.mix: grub\.efi is 5 KiB in a and 6 KiB in b"):
        boots(tmp_path, "matrix: {mix: [{boot: ./a.yaml}, {boot: ./b.yaml}], machines: 2}\n")


def test_thresholds_speak_of_boots(tmp_path: Path) -> None:
    checks = ["boot_ns_p99 <= 30s", "boots_failed == 0", "misses_unanswered == 0", "booted >= 100"]
    scenario = boots(tmp_path, STORM).with_servers(["epoll"])
    found = from_document({**scenario.document(), "thresholds": checks}, "x").checks
    assert [(check.column, check.limit, check.is_count) for check in found] == [
        ("boot_ns_p99", 30e9, False), ("boots_failed", 0, True), ("misses_unanswered", 0, True), ("booted", 100, True),
    ]  # fmt: skip


def test_a_list_of_matrices_is_their_union_in_order(tmp_path: Path) -> None:
    scenario = load(tmp_path, PRODUCT, UNION)
    assert [(cell.operation, cell.concurrency, cell.windowsize) for cell in scenario.cells()] == [
        ("read", 3, 1),
        ("read", 10, 1),
        ("write", 3, 1),
        ("write", 10, 1),
        ("read", 10, 16),
        ("read", 10, 64),
    ]
    assert scenario.cells()[:4] == load(tmp_path).cells(), "a cell is the same whatever list it stands in"
    assert from_document(scenario.document(), "manifest.json") == scenario
    assert scenario.concurrency_max == 10
    assert {cell.file_size_bytes for cell in scenario.with_file_size(7).cells()} == {7}
    assert len(scenario.quick().cells()) == 6


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[16, 64]", "[16, 1]", "matrix[1]: repeats a cell of matrix[0]: read, 10 at once, 64 KiB; allowed: each cell"),
        (
            "concurrency: 10\n",
            "concurrency: 0\n",
            "small.yaml:8:5: matrix[1].concurrency[0]: is 0; allowed: 1 to 50000",
        ),
        (
            "    windowsize",
            "    window_size",
            "matrix[1].window_size: unknown key; did you mean 'windowsize'?",
        ),
        ("    file_size: 64KiB\n", "", "small.yaml:7:5: matrix[1].file_size: is missing; allowed: 0 to 1TiB"),
        (UNION[8:], " []\n", "small.yaml:5:1: matrix: is []; allowed: a mapping of keys to values, or a list of such"),
        (UNION[8:], " [3]\n", "matrix[0]: is 3; allowed: a mapping of keys to values"),
    ],
)
def test_a_mistake_in_a_list_of_matrices_names_its_place(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in UNION
    assert expected in fault(tmp_path, PRODUCT, UNION.replace(old, new))


def test_set_means_every_matrix_of_a_list(tmp_path: Path) -> None:
    changed = load(tmp_path, PRODUCT, UNION, ("matrix.blksize=[8, 1428]",))
    assert [matrix.blksize for matrix in changed.matrices] == [(8, 1428)] * 2
    wrong = fault(tmp_path, PRODUCT, UNION, ("matrix.blksize=4",))
    assert wrong.startswith("--set matrix.blksize=4: matrix[0].blksize[0]: is 4; allowed: 8 to 65464")


def test_the_cells_of_all_matrices_count(tmp_path: Path) -> None:
    many = ", ".join(map(str, range(1, 3001)))
    union = UNION.replace("concurrency: 10\n", f"concurrency: [{many}]\n").replace("[16, 64]", "[16, 32, 48, 64]")
    assert fault(tmp_path, PRODUCT, union).startswith("small.yaml:5:1: matrix: has 12004 cells; allowed: 10000")


def test_servers_are_compared_with_the_first_or_with_the_ceiling(tmp_path: Path) -> None:
    assert load(tmp_path).compare_with == "first"
    assert load(tmp_path, "verify: full", "compare_with: ceiling").compare_with == "ceiling"
    line = fault(tmp_path, "verify: full", "compare_with: last")
    assert line == "small.yaml:12:1: compare_with: is 'last'; allowed: first, ceiling"
    line = fault(tmp_path, "verify: full", "compare_with: ceiling\nbest_of: [windowsize]")
    assert line.endswith("compare_with: is ceiling, which has no meaning beside best_of; allowed: one of the two")


def test_set_changes_one_value_and_is_named_when_it_is_wrong(tmp_path: Path) -> None:
    changed = load(tmp_path, overrides=("matrix.blksize=[512, 1428]", "trials=3", "duration=null", "transfers=20"))
    assert changed.matrices[0].blksize == (512, 1428)
    assert (changed.trials, changed.transfers, changed.duration_ns) == (3, 20, None)
    assert fault(tmp_path, overrides=("matrix.blksize=4",)).startswith(
        "--set matrix.blksize=4: matrix.blksize[0]: is 4; allowed: 8 to 65464"
    )
    assert "did you mean 'matrix.blksize'?" in fault(tmp_path, overrides=("blksize=1428",))
    assert "is no assignment; allowed: KEY=VALUE" in fault(tmp_path, overrides=("trials",))
    assert "is not YAML" in fault(tmp_path, overrides=("trials=[",))


def test_mistakes_of_several_sets_come_in_the_order_given_and_a_key_of_another_part_is_suggested(
    tmp_path: Path,
) -> None:
    given = ("client.blksiz=3", "trails=3", "matrix.concurency=1")
    assert faults(tmp_path, TEXT, given) == [
        "--set client.blksiz=3: unknown key; did you mean 'matrix.blksize'?",
        "--set trails=3: unknown key; did you mean 'trials'?",
        "--set matrix.concurency=1: unknown key; did you mean 'concurrency'?",
    ]


def test_of_a_long_set_only_the_place_that_is_wrong_is_repeated(tmp_path: Path) -> None:
    wrong = fault(tmp_path, overrides=('thresholds=["failed == 0", "timed_out == 0", "content_mismatches < 1", "x"]',))
    assert wrong.startswith("--set thresholds[3]: 'x' is no threshold; allowed: ")


def test_one_threshold_needs_no_list(tmp_path: Path) -> None:
    assert load(tmp_path, overrides=("thresholds=transfer_ns_max <= 10s",)).thresholds == ("transfer_ns_max <= 10s",)
    assert load(tmp_path, overrides=("thresholds=[]",)).thresholds == ()
    assert "thresholds[0]: 'x' is no threshold" in fault(tmp_path, overrides=("thresholds=x",))


def test_a_bundled_scenario_goes_by_its_name_and_a_misspelt_one_is_suggested() -> None:
    assert load_scenario("concurrency").name == "concurrency"
    with pytest.raises(
        ScenarioError, match=re.escape("no scenario is called 'concurency'; did you mean 'concurrency'?")
    ):
        load_scenario("concurency")


@pytest.mark.parametrize("path", sorted(bundled_scenarios().values()), ids=lambda path: path.stem)
def test_a_bundled_scenario_asks_one_question_and_has_its_files_name(path: Path) -> None:
    scenario = load_scenario(str(path))
    assert scenario.name == path.stem
    assert scenario.description.endswith("?")
    assert scenario.description.count("?") == 1
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=../docs/schema/scenario.json")
    if any(choose(entry)[0].name not in OURS for entry in scenario.servers):
        assert not scenario.thresholds, "what a third-party server does is a finding"
    else:
        assert any(check.column == "content_mismatches" for check in scenario.checks)


@pytest.mark.parametrize(
    ("work", "limits"),
    [
        ({"duration": "1s"}, (300, 5)),
        ({"duration": "1s", "time_limit": "32s"}, (300, 32)),
        ({"transfers": 9, "time_limit": "32s"}, (32, 5)),
    ],
)
def test_a_time_limit_ends_a_trial_of_transfers_and_what_is_in_flight_after_a_window(
    work: dict[str, object], limits: tuple[int, int]
) -> None:
    matrix = {"operation": "read", "concurrency": 3, "file_size": "1KiB"}
    text = {"name": "x", "description": "x?", "servers": ["epoll"], "matrix": matrix}
    (cell,) = Scenario.from_dict({**text, **work}).cells()
    assert (cell.limit_ns, cell.drain_ns) == tuple(seconds * 10**9 for seconds in limits)


@pytest.mark.parametrize("name", ["landscape", "best-of", "as-shipped"])
def test_a_scenario_of_all_servers_names_every_bundled_one(name: str) -> None:
    chosen = [choose(entry) for entry in load_scenario(name).servers]
    assert sorted(server.name for server, _ in chosen) == sorted(bundled_manifests())
    if name == "as-shipped":
        assert all(
            variant == "as_shipped" or not server.variants for server, variant in chosen if isinstance(server, Manifest)
        )


def test_the_expected_scenarios_are_bundled() -> None:
    expected = {
        "concurrency",
        "origin",
        "sizes",
        "ten-thousand",
        "smoke",
        "how-many",
        "open-loop",
        "capacity",
        "max-out",
        "storm",
        "power-restore-100",
        "pi-rack-48",
        "soak",
        "landscape",
        "best-of",
        "as-shipped",
        "noise",
        "ceiling",
        "attribution",
        "attribution-cores",
    }
    assert expected <= set(bundled_scenarios())


@pytest.mark.parametrize("name", sorted(bundled_scenarios()))
def test_a_recorded_scenario_reads_back_equal_with_equal_keys(name: str) -> None:
    scenario = load_scenario(name)
    again = from_document(scenario.document(), "manifest.json")
    assert again.model_copy(update={"recorded": scenario.recorded, "asked": scenario.asked}) == scenario, (
        "but that profiles are held to theirs"
    )
    assert [cell.key for cell in again.cells()] == [cell.key for cell in scenario.cells()]
    assert again.method_key == scenario.method_key


def test_the_cell_key_is_of_the_work_alone(tmp_path: Path) -> None:
    key = load(tmp_path).cells()[0].key
    assert re.fullmatch("[0-9a-f]{16}", key)
    for old, new in [
        ("servers: [epoll, threads]", "servers: [epoll]"),
        ("Is it small?", "Is it large?"),
        ("epoll.failed == 0", "failed == 0"),
        ("duration: 1s", "duration: 2s"),
        ("verify: full", "trials: 3"),
    ]:
        assert load(tmp_path, old, new).cells()[0].key == key
    for old, new in [
        ("64KiB", "65KiB"),
        ("blksize: 512", "blksize: 513"),
        ("retries: 5", "retries: 6"),
        ("verify: full", "verify: sample"),
        ("verify: full", "placement: {server_cpus: all}"),
        ("verify: full", "distinct_files: 3"),
        ("duration: 1s", "transfers: 2000"),
    ]:
        assert load(tmp_path, old, new).cells()[0].key != key


def test_the_method_key_is_of_windows_and_trials(tmp_path: Path) -> None:
    key = load(tmp_path).method_key
    assert load(tmp_path, "64KiB", "65KiB").method_key == key
    assert load(tmp_path, "verify: full", "warm_up: 200ms").method_key == key
    assert load(tmp_path, "duration: 1s", "duration: 2s").method_key != key
    assert load(tmp_path, "verify: full", "trials: 3").method_key != key


def test_keys_are_the_same_on_every_machine_and_in_every_version(tmp_path: Path) -> None:
    assert load(tmp_path).cells()[0].key == "5a2f667dd2725452"


def test_a_label_is_what_people_say(tmp_path: Path) -> None:
    assert load(tmp_path).cells()[1].label == "read, 10 at once, 64 KiB"
    lifted = load(tmp_path, "blksize: 512", "blksize: 1428\n  windowsize: 4")
    assert lifted.cells()[0].label == "read, 3 at once, 64 KiB, blksize 1428, windowsize 4"


def test_other_servers_keep_the_thresholds_that_speak_of_them(tmp_path: Path) -> None:
    scenario = load(tmp_path, '"epoll.failed == 0"', '"epoll.failed == 0"\n  - "failed == 0"')
    assert scenario.with_servers(["tftpy@as_shipped"]).thresholds == ("failed == 0",)
    assert scenario.with_servers(["epoll"]).thresholds == ("epoll.failed == 0", "failed == 0")
    assert scenario.with_servers(["/somewhere/epoll/server.yaml"]).thresholds == ("epoll.failed == 0", "failed == 0")


def test_quick_does_every_cell_once_in_a_short_window(tmp_path: Path) -> None:
    quick = load(tmp_path).quick()
    assert (len(quick.cells()), quick.trials, quick.duration_ns) == (4, 1, 200_000_000)
    assert load(tmp_path, "duration: 1s", "transfers: 2000").quick().transfers == 10
    assert load(tmp_path, "verify: full", "trials: 3").quick(keeps_trials=True).trials == 3


def test_a_quick_scenario_stays_one_and_keeps_its_keys(tmp_path: Path) -> None:
    quick = load(tmp_path, overrides=("duration=200ms", "warm_up=50ms", "trials=1"))
    asked = load(tmp_path).quick()
    assert asked.is_quick
    assert from_document(asked.document(), "manifest.json") == asked
    assert asked.with_servers(["epoll"]).with_file_size(7).is_quick
    assert "quick" not in load(tmp_path).document()
    assert [cell.key for cell in asked.cells()] == [cell.key for cell in quick.cells()]
    assert asked.method_key == quick.method_key


def test_of_a_quick_scenario_only_counts_are_judged(tmp_path: Path) -> None:
    texts = ("failed == 0", "data_pps > 5", "udp_drops_generator == 0", "content_mismatches == 0", "pps > 1")
    scenario = load(tmp_path, overrides=(f"thresholds={json.dumps(texts)}",))
    assert len(scenario.judged_checks) == 5
    assert [check.column for check in scenario.quick().judged_checks] == ["failed", "content_mismatches"]


def test_a_relative_server_path_starts_at_the_scenarios_file(tmp_path: Path) -> None:
    scenario = load(tmp_path, "threads]", "./mine/server.yaml]")
    assert scenario.servers == ("epoll", str(tmp_path / "mine" / "server.yaml"))


def test_the_generator_polls_by_itself_only_where_it_has_cores_of_its_own(tmp_path: Path) -> None:
    client = load(tmp_path).cells()[0].client
    assert (client.busy_poll_us(own_cores=True), client.busy_poll_us(own_cores=False)) == (1000, 0)
    asked = load(tmp_path, "retries: 5", "busy_poll: 50us").cells()[0].client
    assert (asked.busy_poll_us(own_cores=True), asked.busy_poll_us(own_cores=False)) == (50, 50)


HOSTS = "verify: full\ngenerators: {hosts: 3, weights: [2, 1, 1], cores: [1, 2]}"


def test_load_hosts_are_in_the_keys_and_the_label_only_where_they_are_not_one(tmp_path: Path) -> None:
    here, one = load(tmp_path), load(tmp_path, "verify: full", "verify: full\ngenerators: {hosts: 1}")
    several, named = (
        load(tmp_path, "verify: full", f"verify: full\ngenerators: {{hosts: {hosts}}}") for hosts in ("3", "[a, b, c]")
    )
    keys = [[cell.key for cell in each.cells()] for each in (here, one, several, named)]
    assert keys[0] == keys[1]
    assert keys[2] == keys[3]
    assert {*keys[0]}.isdisjoint(keys[2])
    assert here.method_key == one.method_key != several.method_key == named.method_key
    assert [each.cells()[0].load_hosts for each in (here, one, several, named)] == [1, 1, 3, 3]
    assert one.cells()[0].label == here.cells()[0].label == "read, 3 at once, 64 KiB"
    assert several.cells()[0].label == "read, 3 at once, 64 KiB, from 3 load hosts"
    assert here.cells()[0].generators is None
    assert "generators" not in here.document()


@pytest.mark.parametrize("hosts", [HOSTS, HOSTS.replace("3", "[a, b, c]")], ids=["number", "names"])
def test_load_hosts_stay_with_a_scenario_whatever_is_changed(tmp_path: Path, hosts: str) -> None:
    asked = load(tmp_path, "verify: full", hosts)
    again = from_document(asked.document(), "manifest.json")
    assert again == asked
    for each in (asked.quick(), asked.with_servers(["epoll"]), asked.with_file_size(7), asked.over("loopback")):
        assert each.generators == asked.generators
    assert load(tmp_path, "verify: full", hosts, ("generators=null",)).generators is None
    assert load(tmp_path).on_hosts(2).generators == Generators(hosts=2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"generators": {}}, "generators.hosts: is missing"),
        ({"generators": 3}, "generators: is 3; allowed: a mapping of keys to values"),
        ({"generators": {"hosts": 0}}, "generators.hosts: is 0; allowed: a number from 1 to 1000, or a list of names"),
        ({"generators": {"hosts": 1001}}, "generators.hosts: is 1001; allowed: a number from 1 to 1000"),
        ({"generators": {"hosts": True}}, "generators.hosts: is True; allowed"),
        ({"generators": {"hosts": []}}, "generators.hosts: is []; allowed"),
        ({"generators": {"hosts": ["a", "a"]}}, "generators.hosts: is ['a', 'a']; allowed: a number from 1 to 1000"),
        ({"generators": {"hosts": ["a\n"]}}, "generators.hosts: is ['a\\n']; allowed"),
        ({"generators": {"host": 3, "hosts": 3}}, "generators.host: unknown key; did you mean 'hosts'?"),
        ({"generators": {"hosts": 3, "weights": [1, 1]}}, "generators.weights: has 2 weights for 3 hosts; allowed: on"),
        ({"generators": {"hosts": 1, "weights": [0]}}, "generators.weights[0]: is 0; allowed: a list of numbers from"),
        ({"generators": {"hosts": 1, "cores": 2}}, "generators.cores: is 2; allowed: a list of numbers of cores"),
        ({"generators": {"hosts": 1}, "placement": {"network": "namespace"}},
         "placement.network: is namespace, into which load hosts have no way; allowed: loopback, or no generators"),
        ({"generators": {"hosts": 1}, "client": {"sockets": "ring"}},
         "client.sockets: is ring, which load hosts do not have; allowed: auto, shared, per-transfer"),
    ],
)  # fmt: skip
def test_a_mistake_about_load_hosts_is_one_line(changes: dict[str, object], said: str) -> None:
    [line] = mistakes(**changes)
    assert line.startswith(said)


def test_a_gate_loads_from_this_machine_alone() -> None:
    epoll = Contender(*choose("epoll"), Found("1", ""))
    cells = Scenario.from_dict({**WHOLE, "generators": {"hosts": 2}}).cells()
    with pytest.raises(UsageError, match=r"is loaded by hosts of a cluster \(generators\), and a gate loads from this"):
        refuse_unfit(epoll, epoll, cells)
