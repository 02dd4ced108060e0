"""Every notebook runs from its first cell to its last, and is kept without outputs."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import tftpbench
from tests.unit import builders
from tftpbench.measure import Pinning, RunStarted, TrialFinished, TrialStarted
from tftpbench.measure.plan import Plan
from tftpbench.render.notebook import InPlace

FOLDER = Path(__file__).parents[2] / "notebooks"
RESULTS = FOLDER.parent / "results"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
CELLS_MAX = 15
pytestmark = [
    pytest.mark.timeout(180),
    # zmq and jupyter_core warn about plans of their own.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning"),
]


def read(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def run(name: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The notebook with its outputs. Raises CellExecutionError where a cell fails."""
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    notebook = read(name)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    return notebook


def shown(notebook: Any) -> str:
    """Everything that its cells print, as text."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)


def pictures(notebook: Any) -> int:
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def newest_run() -> Path | None:
    """The newest whole run of the scenario that the first notebook asks about."""
    for folder in sorted(RESULTS.glob("2*-concurrency"), reverse=True):
        run = tftpbench.load_run(folder)
        if len(run.rows) == run.manifest.get("trials_planned") and len(run.valid.contender.unique()) > 1:
            return folder
    return None


def test_there_are_the_five() -> None:
    assert [name[:2] for name in NOTEBOOKS] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs_on_the_recorded_data_and_complains_of_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = run(name, {}, monkeypatch)
    missing = [
        output.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stderr"
    ]
    assert missing == []
    assert pictures(notebook) >= 2


def test_the_first_says_which_is_faster_by_how_much_and_how_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = run("01-first-look", {}, monkeypatch)
    answer = shown(notebook)
    assert re.search(r"threads is 0\.\d\d times as fast as epoll .*95 % interval 0\.\d\d to 0\.\d\d", answer)
    tables = [output.data["text/html"] for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
              if "text/html" in output.get("data", {})]  # fmt: skip
    assert "<strong>concurrency</strong>" in tables[0], "the run shows itself as a table"


@pytest.mark.parametrize("name", ["01-first-look", "02-latency", "03-capacity-and-cost"])
def test_it_runs_on_the_newest_run_of_this_machine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = newest_run()
    if newest is None:
        pytest.skip("no run of the concurrency scenario in results/; get one: make run")
    assert pictures(run(name, {"TFTPBENCH_RUN": str(newest)}, monkeypatch)) >= 2


def test_the_losses_of_the_third_are_of_a_run_that_counted_and_had_them() -> None:
    source = [cell.source for cell in read("03-capacity-and-cost").cells if "plots.loss(" in cell.source]
    [path] = re.findall(r'"\.\./results/(reference/\w+)"', "\n".join(source))
    trials = tftpbench.load_run(RESULTS / path).trials
    assert (trials[["retransmissions", "udp_drops_server", "unanswered"]].sum() > 0).all()
    assert trials["unanswered"].notna().all()


RUN = """import tftpbench
run = tftpbench.run(
    "concurrency", quick=True, servers=["epoll"], overrides={"matrix.concurrency": [1]}, out=OUT, progress=PROGRESS
)"""


def test_a_run_shows_its_progress_in_one_output_that_it_rewrites_unless_told_not_to(tmp_path: Path) -> None:
    sources = [RUN.replace("OUT", repr(str(tmp_path))).replace("PROGRESS", each) for each in ("None", "False")]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in sources])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown, silent = (cell.outputs for cell in notebook.cells)
    assert len(shown) == 1
    html = shown[0].data["text/html"]
    assert html.startswith('<progress value="2" max="2"></progress> 2 of 2 trials · done<pre')
    assert "[2/2] epoll, " in html
    assert silent == []


def test_the_time_left_and_what_is_measured_are_shown_and_what_others_wrote_is_escaped() -> None:
    contender = SimpleNamespace(name="<b>one", server=None, busy_polls=False)
    scenario = builders.scenario(description="<script>")
    cell = scenario.cells()[0]
    trials = [SimpleNamespace(order=order, round=1, contender=contender, cell=cell) for order in (3, 4)]
    clock, shown = iter([10.0, 16.0, 16.0]), list[str]()
    display = InPlace(shown.append, lambda: next(clock))
    plan = Plan((), tuple(trials * 5), ())  # type: ignore[arg-type]
    row = {"data_pps": 5.0, "verdict": "valid"}
    display(RunStarted(Path("x"), scenario, plan, Pinning((1,), (0,), ()), done=2))
    display(TrialFinished(trials[0], 10, row, ()))  # type: ignore[arg-type]
    display(TrialStarted(trials[1], 10))  # type: ignore[arg-type]
    assert ["2 of 10 trials<pre" in shown[0], "3 of 10 trials · 42 s left<pre" in shown[1]] == [True, True]
    assert f"42 s left · &lt;b&gt;one, {cell.label}<pre" in shown[2]
    assert "<script>" not in shown[2]
    assert "<b>" not in shown[2]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_is_kept_short_and_without_outputs(name: str) -> None:
    cells = read(name).cells
    assert len([cell for cell in cells if cell.cell_type == "code"]) < CELLS_MAX
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_holds_no_logic(name: str) -> None:
    code = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "code")
    assert not re.search(r"^\s*(def|class|while) ", code, re.MULTILINE)
