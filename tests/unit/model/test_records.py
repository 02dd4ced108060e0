"""An axis or a metric is one record: a made-up one is seen everywhere, and is gone everywhere without its record.

The package is copied, a few lines are added to the copy, and a real run of two transfers is made with it.

And what every row obeys: counters add up and Little's law holds, with all that may be unknown in a row.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tftpbench.model import invariants
from tftpbench.model.metrics import in_table

ROOT = Path(__file__).parents[3]
AXIS = """        Axis(
            name="dither_ms", key="dither", value=Annotated[Count, Field(ge=0, le=9)], unit="ms", default=0,
            allowed="0 to 9, or a list", description="Made up for a test.", meaning="Made up for a test.",
            label=lambda value: f"dither {value}", added=Added(0),
        ),
"""
CELL = "    dither_ms: int = 0\n"
METRIC = (
    '    "made_up": Metric("1/s", "Twice the blocks.", "float", better="higher", words="made up", tables=("cost",)),\n'
)
ROW = '        "made_up": 2.0 * (seen.result.figures.get("data_pps") or 0),\n'
# What a program sees of the copy that is first in its path.
SEEN = """
import json, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import tftpbench
from tftpbench.analysis.summary import answer_of, document
from tftpbench.measure import validity
from tftpbench.model.scenario_files import load_scenario
from tftpbench.plots import throughput
from tftpbench.render import reference, schema
from tftpbench.render.report import report

validity.findings = lambda *_: ()  # of a busy machine
quick = ["matrix.concurrency=1", "matrix.operation=read", "transfers=2", "trials=1", "duration=null", "warm_up=null"]
quick += json.loads(sys.argv[2])
scenario = load_scenario("concurrency", [*quick, "servers=[epoll]"])
run = tftpbench.run(scenario, out=sys.argv[1], seed=1)
print(json.dumps({
    "keys": sorted({cell.key for cell in scenario.cells()}),
    "labels": [cell.label for cell in scenario.cells()],
    "trials": list(run.trials.columns),
    "rows": sorted({name for row in run.rows for name in row}),
    "transfers": list(run.transfers.columns),
    "frame": list(answer_of(run).to_frame().columns),
    "comparison": list(tftpbench.compare(run.path, run.path).to_frame().columns),
    "html": report(run, "html"),
    "panels": list(throughput(run.trials).data["panel"]),
    "schemas": {kind: schema.text(kind) for kind in schema.KINDS},
    "docs": {page: table for (page, _), table in reference.tables().items()} | {
        f"{page} {heading}": table for (page, heading), table in reference.tables().items()
    },
}))
"""


@dataclass
class Copy:
    """A copy of the package, and how many of its files were changed."""

    root: Path
    changed: set[str] = field(default_factory=set)

    def add(self, file: str, before: str, lines: str) -> None:
        path = self.root / "tftpbench" / file
        text = path.read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{file} has no place for the sample"
        path.write_text(text.replace(before, lines + before), encoding="utf-8")
        self.changed.add(file)

    def remove(self, file: str, lines: str) -> None:
        path = self.root / "tftpbench" / file
        path.write_text(path.read_text(encoding="utf-8").replace(lines, ""), encoding="utf-8")

    def seen(self, *overrides: str) -> dict[str, object]:
        out = self.root / f"out-{len(list(self.root.iterdir()))}"
        done = subprocess.run(
            [sys.executable, "-P", "-c", SEEN, str(out), json.dumps(overrides)],
            env={**os.environ, "PYTHONPATH": str(self.root)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    ignored = shutil.ignore_patterns("__pycache__", "_bundled")
    shutil.copytree(ROOT / "tftpbench", tmp_path / "tftpbench", ignore=ignored)
    (tmp_path / "tftpbench/_bundled").mkdir()
    for name in ("scenarios", "servers"):
        (tmp_path / "tftpbench/_bundled" / name).symlink_to(ROOT / name)
    yield Copy(tmp_path)
    shutil.rmtree(tmp_path, ignore_errors=True)


def places(seen: dict[str, object], word: str) -> set[str]:
    """Where the word stands."""
    return {name for name, what in seen.items() if word in json.dumps(what)}


def test_a_made_up_axis_is_seen_everywhere_and_gone_with_its_record(copy: Copy) -> None:
    plain = copy.seen()
    assert not places(plain, "dither")
    copy.add("model/axes.py", "    )\n}  # fmt: skip\n", AXIS)
    copy.add("model/workload.py", "\n    @classmethod\n    def at(", CELL)
    assert len(copy.changed) <= 8
    varied = copy.seen("matrix.dither=[0, 3]")
    assert places(varied, "dither") == {
        "labels", "trials", "rows", "transfers", "frame", "comparison", "html", "panels", "schemas", "docs",
    }  # fmt: skip
    assert varied["labels"] == ["read, 1 at once, 64 KiB", "read, 1 at once, 64 KiB, dither 3"]
    schemas = varied["schemas"]
    assert isinstance(schemas, dict)
    assert {kind for kind, text in schemas.items() if "dither" in text} == {
        "scenario", "results", "summary", "comparison",
    }  # fmt: skip
    # What older runs implied has the key that it always had.
    assert isinstance(plain["keys"], list)
    assert isinstance(varied["keys"], list)
    assert set(plain["keys"]) < set(varied["keys"])
    copy.remove("model/axes.py", AXIS)
    assert not places(copy.seen(), "dither")


def test_a_made_up_metric_is_seen_everywhere_and_gone_with_its_record(copy: Copy) -> None:
    copy.add("model/metrics.py", "}\n# Figures that no row holds", METRIC)
    copy.add("measure/rows.py", '        "server_rss_bytes_ready": seen.ready.rss_bytes,\n', ROW)
    assert len(copy.changed) <= 5
    assert places(copy.seen(), "made_up") | places(copy.seen(), "made up") == {
        "trials", "rows", "html", "schemas", "docs",
    }  # fmt: skip
    copy.remove("model/metrics.py", METRIC)
    assert places(copy.seen(), "made_up") <= {"rows", "trials"}, "the row has it, as an unknown column of its own"


def test_what_a_report_adds_up_over_trials_is_a_count() -> None:
    assert all(metric.is_count for metric in in_table("losses"))


STEADY: dict[str, object] = {
    "transfers": None,
    "concurrency": 10,
    "file_size_bytes": 65536,
    "duration_s": 1.0,
    "goodput_bytes_per_s": 65_536_000.0,
    "transfer_ns_max": 20_000_000,
}
COUNTERS: dict[str, object] = {"started": 10, "completed": 7, "failed": 1, "timed_out": 1, "interrupted": 1}


def test_counters_add_up() -> None:
    assert invariants.counters_fault(COUNTERS) is None
    for name in COUNTERS:
        assert invariants.counters_fault({**COUNTERS, name: 5}) is not None
    assert (
        invariants.counters_fault({**COUNTERS, "completed": 8}) == "10 transfers were started, but 11 are accounted for"
    )


def test_what_is_late_has_ended_and_what_is_shed_has_not_started() -> None:
    loaded = {**COUNTERS, "completed": 5, "late": 2, "intended": 13, "shed": 3}
    assert invariants.counters_fault(loaded) is None
    assert invariants.counters_fault({**loaded, "late": 0}) == "10 transfers were started, but 8 are accounted for"
    assert invariants.counters_fault({**loaded, "shed": 0}) == "13 transfers were intended, but 10 were started or shed"


def test_machines_are_the_sum_of_what_became_of_them() -> None:
    boots = {"booted": 5, "boots_failed": 1, "boots_late": 1, "boots_shed": 2, "boots_interrupted": 1, "machines": 10}
    assert invariants.counters_fault({**COUNTERS, **boots}) is None
    for name in boots:
        assert invariants.counters_fault({**COUNTERS, **boots, name: 9}) is not None
        assert invariants.counters_fault({**COUNTERS, **boots, name: None}) is None
    said = "10 machines were to boot, but 8 are accounted for"
    assert invariants.counters_fault({**COUNTERS, **boots, "boots_shed": 0}) == said


@pytest.mark.parametrize("name", sorted(COUNTERS))
@pytest.mark.parametrize("unknown", [None, math.nan, "many"])
def test_what_is_unknown_breaks_no_law(name: str, unknown: object) -> None:
    assert invariants.counters_fault({**COUNTERS, "completed": 0, name: unknown}) is None


def test_transfers_in_flight_are_rate_times_time() -> None:
    assert invariants.littles_law_fault(STEADY, 10_000_000) is None
    said = "rate and transfer time speak of 20 transfers in flight, not 10"
    assert invariants.littles_law_fault(STEADY, 20_000_000) == said


@pytest.mark.parametrize("changes", [{name: None} for name in STEADY if name != "transfers"] + [{"transfers": 5}])
def test_littles_law_needs_every_figure_and_a_window_of_fixed_time(changes: dict[str, object]) -> None:
    assert invariants.littles_law_fault({**STEADY, **changes}, 20_000_000) is None


@pytest.mark.parametrize("mean_ns", [None, 0.0])
def test_littles_law_needs_a_mean(mean_ns: float | None) -> None:
    assert invariants.littles_law_fault(STEADY, mean_ns) is None


@pytest.mark.parametrize("name", ["rate_per_s", "machines_asked", "shape", "boot", "mix"])
def test_only_a_closed_loop_of_transfers_asks_for_a_number_in_flight(name: str) -> None:
    assert invariants.littles_law_fault({**STEADY, name: 5}, 20_000_000) is None


OPEN: dict[str, object] = {
    "rate_per_s": 200.0,
    "duration_s": 10.0,
    "achieved_per_s": 200.0,
    "in_flight_mean": 10.0,
    "interrupted": 0,
    "response_ns_max": 200_000_000,
    "deadline_ns": 30_000_000_000,
}
OF_BOOTS = {**OPEN, "boot": "pi4", "boots_interrupted": 0, "boot_ns_max": 200_000_000, "response_ns_max": None}


@pytest.mark.parametrize("row", [OPEN, OF_BOOTS])
def test_in_flight_at_a_rate_are_starts_times_time(row: dict[str, object]) -> None:
    for in_flight, broken in ((9.4, True), (9.6, False), (10.4, False), (10.6, True)):
        fault = invariants.open_loop_law_fault({**row, "in_flight_mean": in_flight}, 50_000_000)
        assert (fault is not None) == broken, (in_flight, fault)
    said = "rate and time in flight speak of 20 in flight on average, not 10"
    assert invariants.open_loop_law_fault(row, 100_000_000) == said
    assert invariants.open_loop_law_fault(row, None) is None
    for name in row.keys() - {"deadline_ns", "boot", "interrupted", "response_ns_max"}:
        assert invariants.open_loop_law_fault({**row, name: None}, 100_000_000) is None, name


def test_a_rate_is_steady_where_the_window_is_long_and_nothing_was_cut_off() -> None:
    for changes in ({"response_ns_max": 201_000_000}, {"response_ns_max": None}, {"interrupted": 1}):
        assert invariants.open_loop_law_fault({**OPEN, **changes}, 100_000_000) is None
    never = {**OPEN, "response_ns_max": None, "response_ns_max_is_never": True}
    assert invariants.open_loop_law_fault(never, 100_000_000) is None, "30 s of 10 s"
    assert invariants.open_loop_law_fault({**never, "deadline_ns": 100_000_000}, 100_000_000) is not None
    storm = {**OPEN, "rate_per_s": None, "machines_asked": 100}
    assert invariants.open_loop_law_fault(storm, 100_000_000) is None
    short = {**OPEN, "in_flight_mean": 0.03}  # in which making a request takes a share of the time
    assert invariants.open_loop_law_fault(short, 100_000) is None
