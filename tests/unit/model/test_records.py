"""An axis or a metric is one record: a made-up one is seen everywhere, and is gone everywhere without its record.

The package is copied, a few lines are added to the copy, and a real run of two transfers is made with it.

And what rows obey: counters add up and Little's law holds, with all that may be unknown in a row; and thresholds.
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

from tftpbench.model import invariants, thresholds
from tftpbench.model.errors import ThresholdError
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


def row(server: str = "epoll", verdict: str = "valid", **figures: object) -> dict[str, object]:
    return {"server": server, "variant": None, "verdict": verdict, **figures}


def verdicts(text: str, *rows: dict[str, object]) -> list[tuple[str, str, float | None]]:
    judged = thresholds.evaluate([thresholds.parse(text)], rows)
    return [(verdict.server, verdict.state, verdict.value) for verdict in judged]


def test_a_threshold_is_server_column_operator_number() -> None:
    assert thresholds.parse(" epoll.failed == 0 ") == thresholds.Threshold("epoll", "failed", "==", 0)
    assert thresholds.parse("data_pps>=1.5e4") == thresholds.Threshold(None, "data_pps", ">=", 15_000)
    assert thresholds.parse("tftpd-hpa@as_shipped.failed<1").server == "tftpd-hpa@as_shipped"


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("transfer_ns_max <= 5s", 5e9),
        ("transfer_ns_max<=0.07 s", 70_000_000),
        ("block_rtt_ns_p99 < 250us", 250_000),
        ("duration_s > 500ms", 0.5),
        ("goodput_bytes_per_s >= 80MiB", 80 * 2**20),
        ("goodput_bytes_per_s >= 1.5 MB/s", 1_500_000),
        ("server_rss_bytes_max < 64KiB", 65536),
        ("data_pps > 50k/s", 50_000),
        ("transfers_per_s > 100/s", 100),
        ("ceiling_ratio >= 95 %", 0.95),
        ("busy_poll_us <= 1ms", 1000),
        ("transfer_ns_max <= 5000000000", 5e9),
    ],
)
def test_a_limit_may_have_a_unit_that_fits_its_column(text: str, limit: float) -> None:
    assert thresholds.parse(text).limit == limit
    assert thresholds.parse(str(thresholds.parse(text))) == thresholds.parse(text)


@pytest.mark.parametrize(
    ("text", "figures", "said"),
    [
        ("transfer_ns_max <= 5s", {"transfer_ns_max": 7.28e9}, "7.28 s, limit 5 s, largest of 1 valid trial"),
        (
            "transfer_ns_max <= 5s",
            {"transfer_ns_max": 5_000_000_001},
            "5000000001 ns, limit 5000000000 ns, largest",
        ),
        ("goodput_bytes_per_s >= 80MiB", {"goodput_bytes_per_s": 2**20}, "1 MiB/s, limit 80 MiB/s, median"),
        ("transfer_ns_max <= 10", {"transfer_ns_max": 2e9}, "2 s, limit 10 ns (a number alone is ns), largest"),
        ("data_pps > 50000", {"data_pps": 131_072}, "131 k/s, limit 50 k/s, median"),
        ("failed == 0", {"failed": 3}, "3, missed in 1 of 1 trial"),
        ("fairness < 9", {"fairness": 9.5}, "9.5, median"),
        ("data_pps > 1", {}, "not known in any valid trial"),
    ],
)
def test_a_verdict_says_the_figure_beside_its_limit(text: str, figures: dict[str, object], said: str) -> None:
    [verdict] = thresholds.evaluate([thresholds.parse(text)], [row() | figures])
    assert verdict.text.startswith(said)


@pytest.mark.parametrize(
    "text", ["epoll.failed == 0", "data_pps >= 50000", "fairness < 2.5", "transfer_ns_max <= 5s", "pps > 80 k"]
)
def test_a_threshold_is_written_as_it_was_read(text: str) -> None:
    assert str(thresholds.parse(text)).replace("80k", "80 k") == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoll.faild == 0", "did you mean 'failed'?"),
        ("epoll.failed = 0", "is no threshold"),
        ("epoll.failed == none", "is no threshold"),
        ("failed", "is no threshold"),
        ("", "is no threshold"),
        ("verdict == 0", "verdict is no number"),
        ("transfer_ns_max <= 5parsec", "has the unit 'parsec'; allowed: a number, or one with a unit: 200ms, 1.5s"),
        ("failed <= 5s", "has the unit 's'; allowed: a number without a unit"),
        ("transfer_ns_max >= 1e400", "'transfer_ns_max >= 1e400' is beyond 1e+18 ns; allowed: a limit that can be re"),
        ("transfer_ns_max >= 1e400s", "is beyond 1e+18 ns"),
        ("transfer_ns_max <= 1e10s", "is beyond 1e+18 ns"),
        ("failed >= -1e19", "is beyond 1e+18; allowed"),
        ("goodput_bytes_per_s > 5ms", "has the unit 'ms'; allowed: a number, or one with a unit: 80MiB/s"),
    ],
)
def test_what_is_no_threshold_is_one_line_that_says_so(text: str, said: str) -> None:
    with pytest.raises(ThresholdError) as error:
        thresholds.parse(text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_without_a_server_every_server_is_judged() -> None:
    rows = [row(failed=0), row("threads", failed=2)]
    assert verdicts("failed == 0", *rows) == [("epoll", "held", 0), ("threads", "missed", 2)]


def test_a_count_must_hold_in_every_trial_invalid_ones_too() -> None:
    rows = [row(content_mismatches=0), row(verdict="invalid", content_mismatches=3)]
    assert verdicts("content_mismatches == 0", *rows) == [("epoll", "missed", 3)]


def test_a_measurement_is_the_median_of_the_valid_trials() -> None:
    rows = [row(data_pps=1000.0), row(data_pps=9.0), row(data_pps=2000.0), row(verdict="invalid", data_pps=1.0)]
    assert verdicts("data_pps > 900", *rows) == [("epoll", "held", 1000)]


def test_a_time_that_is_never_misses_every_limit() -> None:
    never, soon = row(response_ns_p99=None, response_ns_p99_is_never=True), row(response_ns_p99=5)
    for text in ("response_ns_p99 <= 30", "response_ns_p99 > 0"):
        assert verdicts(text, soon, never, never) == [("epoll", "missed", None)]
    assert verdicts("response_ns_p99 <= 30", soon, soon, never) == [("epoll", "held", 5)]


def test_a_maximum_is_the_largest_of_the_valid_trials() -> None:
    longest = [9, 1, 1, 1, 1]
    rows = [row(transfer_ns_max=each) for each in longest] + [row(verdict="invalid", transfer_ns_max=99)]
    assert verdicts("transfer_ns_max <= 5", *rows) == [("epoll", "missed", 9)]
    assert verdicts("transfer_ns_max <= 9", *rows) == [("epoll", "held", 9)]
    [verdict] = thresholds.evaluate([thresholds.parse("transfer_ns_max <= 5")], rows)
    assert verdict.text.endswith("largest of 5 valid trials")


def test_what_is_not_known_never_holds() -> None:
    assert verdicts("udp_drops_server == 0", row(udp_drops_server=0), row()) == [("epoll", "not known", None)]
    assert verdicts("fairness < 9", row(fairness=None)) == [("epoll", "not known", None)]
    assert verdicts("fairness < 9", row(fairness=float("nan"))) == [("epoll", "not known", None)]
    assert verdicts("fairness < 9", row(verdict="invalid", fairness=1.0)) == [("epoll", "not known", None)]
    assert verdicts("threads.failed == 0", row(failed=0)) == [("threads", "not known", None)]
    assert verdicts("failed == 0") == [("", "not known", None)]
    assert not any(verdict.held for verdict in thresholds.evaluate([thresholds.parse("failed == 0")], [row()]))


def test_a_miss_counts_even_where_another_trial_is_not_known() -> None:
    assert verdicts("failed == 0", row(), row(failed=1)) == [("epoll", "missed", 1)]


def test_a_name_speaks_of_all_variants_and_name_at_variant_of_one() -> None:
    rows = [row("tftpy", failed=0), {**row("tftpy", failed=4), "variant": "as_shipped"}]
    assert verdicts("tftpy.failed == 0", *rows) == [("tftpy", "held", 0), ("tftpy@as_shipped", "missed", 4)]
    assert verdicts("tftpy@as_shipped.failed == 4", *rows) == [("tftpy@as_shipped", "held", 4)]


@pytest.mark.parametrize(
    ("op", "held"),
    [("==", [5]), ("!=", [4, 6]), ("<", [4]), ("<=", [4, 5]), (">", [6]), (">=", [5, 6])],
)
def test_each_operator_means_what_it_says(op: str, held: list[int]) -> None:
    assert [value for value in (4, 5, 6) if verdicts(f"failed {op} 5", row(failed=value))[0][1] == "held"] == held


def test_a_count_over_invalid_trials_alone_is_judged_where_the_server_served_to_the_end() -> None:
    busy = row(verdict="invalid", failed=0, content_mismatches=3, completed=7, data_pps=5.0)
    assert verdicts("failed == 0", busy, busy) == [("epoll", "held", 0)]
    assert verdicts("content_mismatches == 0", busy) == [("epoll", "missed", 3)]
    assert verdicts("data_pps > 1", busy) == [("epoll", "not known", None)]
    assert verdicts("failed == 0", busy, busy | {"failed": None}) == [("epoll", "not known", None)]


@pytest.mark.parametrize(
    "lost",
    [
        {"completed": 0},
        {"server_findings": [{"kind": "died", "count": 1, "text": "died with SIGSEGV"}]},
        {"server_findings": [{"kind": "not_ready", "count": 1, "text": "never was ready"}]},
        {"started": 9, "timed_out": 0, "interrupted": 0},
    ],
)
def test_a_count_is_not_known_where_the_server_never_served_to_the_end(lost: dict[str, object]) -> None:
    unfinished = row(verdict="invalid", failed=0, completed=7) | lost
    assert verdicts("failed == 0", unfinished) == [("epoll", "not known", None)]
    assert verdicts("failed == 0", unfinished | {"failed": 1}) == [("epoll", "missed", 1)]
    assert verdicts("failed == 0", unfinished, row(failed=0)) == [("epoll", "held", 0)]
