"""``tftpbench gate slo``: a scenario's thresholds as limits that a run, of now or stored, must keep."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tftpbench.cli import options
from tftpbench.cli.gate.options import ReportOnly, RunFolder, StoredRun, command, measured, refuse_beside_run
from tftpbench.cli.output import keep, keep_answer, print_json, print_text
from tftpbench.model.escape import visible_line
from tftpbench.model.programs import typed
from tftpbench.render.terminal import Output

if TYPE_CHECKING:
    from tftpbench.gate.slo import Slo
    from tftpbench.gate.stored import Stored

JUNIT, REPORT = "junit.xml", "report.md"


EXAMPLES = (
    "tftpbench gate slo smoke --set 'thresholds=[\"failed == 0\"]'",
    "tftpbench gate slo --run results/today",
)


def slo(
    scenario: Annotated[str | None, options.scenario_argument()] = None,
    run: StoredRun = None,
    server: options.Servers = None,
    set_: options.Overrides = None,
    seed: options.Seed = None,
    out: RunFolder = None,
    report_only: ReportOnly = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Check a scenario's thresholds in a new run, or in one that is stored."""
    from tftpbench.gate.slo import judge
    from tftpbench.gate.stored import stored
    from tftpbench.model.errors import ResultsWarning, UsageError

    if (scenario is None) == (run is None):
        raise UsageError("name a scenario to measure, or a run that exists with --run RUN; one of the two")
    if run is not None:
        given = {"--server": server, "--set": set_, "--seed": seed is not None, "--out": out}
        refuse_beside_run(*(option for option, value in given.items() if value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)  # printed below, for people
        folder = run if run is not None else _measured(scenario or "", server or [], set_ or [], seed, out, quiet)
        found = stored(folder)
        judged = judge(found)
        _tell(found, judged, json_, quiet, is_new=run is None)
        _write(found)
    return 0 if report_only else judged.exit_code


def _measured(
    name: str, servers: Sequence[str], overrides: Sequence[str], seed: int | None, out: Path | None, quiet: bool
) -> Path:
    from tftpbench.api import random_seed
    from tftpbench.gate.slo import refuse_nothing
    from tftpbench.model.scenario_files import load_scenario

    scenario = load_scenario(name, list(overrides))
    scenario = scenario.with_servers(servers) if servers else scenario
    refuse_nothing(scenario, name)
    seed = random_seed() if seed is None else seed
    words = command("slo", name, set_=list(overrides), server=list(servers), seed=seed, out=out)
    return measured(scenario, seed, out or options.RESULTS, words, quiet)


def _tell(of: "Stored", judged: "Slo", json_: bool, quiet: bool, *, is_new: bool) -> None:
    """The sentence about the limits, then what the run says by itself."""
    from tftpbench.analysis import summary
    from tftpbench.render import answer as rendered

    answer, folder = summary.answer_of(of.run), str(of.run.path)
    for problem in of.run.problems:
        typer.echo(f"{folder}: {problem}", err=True)
    repeat = typed([str(word) for word in of.run.manifest.get("argv") or ()])
    if is_new:
        keep_answer(of.run.path, rendered.text(answer, folder, repeat))
    if json_:
        print_json([{**summary.document(answer, folder, of.seed, of.run.rows), **_limits(judged)}])

    def text(out: Output) -> str:
        shown = rendered.text(answer, folder, repeat, colour=out.has_colour, width=out.width)
        return f"{visible_line(judged.sentence)}\n\n{shown}"

    print_text(text, json_=json_, quiet=quiet)


def _limits(judged: "Slo") -> dict[str, object]:
    """What the gate adds to a run's document, and judges more strictly."""
    thresholds = [
        {
            "threshold": str(limit.verdict.threshold),
            "server": limit.verdict.server,
            "cell": limit.cell,
            "state": limit.verdict.state,
            "value": limit.verdict.value,
            "detail": limit.verdict.detail,
        }
        for limit in judged.limits
    ]
    return {"exit_code": judged.exit_code, "slo": judged.sentence, "thresholds": thresholds}


def _write(of: "Stored") -> None:
    """The run's reports for a CI server and for a pull request, in its folder."""
    from tftpbench.render.report import report

    keep(report(of.run, "junit"), of.run.path / JUNIT)
    keep(report(of.run, "md"), of.run.path / REPORT)
