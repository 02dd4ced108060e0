"""``tftpbench gate ab``, ``baseline`` and ``slo``: servers in pairs, a run against a stored one, or limits."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tftpbench.cli import options, output
from tftpbench.cli.gate.options import (
    FailOn,
    FailOnOption,
    GateFolder,
    ReportOnly,
    RunFolder,
    Scenario,
    StoredRun,
    command,
    keep,
    measured,
    refuse_beside_run,
    tell,
)
from tftpbench.cli.options import interrupt_on_end
from tftpbench.model.escape import visible_line
from tftpbench.model.programs import typed
from tftpbench.render.terminal import Output

if TYPE_CHECKING:
    from tftpbench.gate.slo import Slo
    from tftpbench.gate.stored import Stored


_SERVER = "name, name@variant or path of a manifest; an executable, with --as; or a command with {port} and {root}"


AB_EXAMPLES = (
    "tftpbench gate ab --base old/server.yaml --head new/server.yaml",
    "tftpbench gate ab --base epoll --head threads --set gate.budgets.data_pps=10%",
)

Base = Annotated[str, typer.Option("--base", **options.SERVER, help=f"Server to compare with: {_SERVER}.")]
Head = Annotated[str, typer.Option("--head", **options.SERVER, help="Server to judge, named as for --base.")]
Like = Annotated[
    str | None, typer.Option("--as", **options.SERVER, help="Manifest that says how to start the executables.")
]


def ab(
    base: Base,
    head: Head,
    scenario: Scenario = "gate",
    like: Like = None,
    set_: options.Overrides = None,
    seed: options.Seed = None,
    out: GateFolder = options.RESULTS,
    fail_on: FailOnOption = FailOn.regressed,
    report_only: ReportOnly = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Measure two servers in interleaved pairs and say whether the head is slower than the base."""
    from tftpbench import gate
    from tftpbench.api import random_seed
    from tftpbench.cli.gate.watch import watch
    from tftpbench.model.scenario_files import load_scenario

    asked = load_scenario(scenario, set_ or [])
    old, new = gate.both_sides(base, head, like, in_network=asked.in_network)
    seed = random_seed() if seed is None else seed
    interrupt_on_end()  # an orderly end for all: finished pairs are kept
    result = gate.ab(
        old,
        new,
        asked,
        seed=seed,
        out=out,
        entries=(base, head),
        command=command(
            "ab",
            None if scenario == "gate" else scenario,
            base=base,
            head=head,
            as_=like,
            set_=set_ or [],
            seed=seed,
            out=None if out == options.RESULTS else out,
            fail_on=fail_on,
        ),
        on_event=watch(sys.stderr, quiet=quiet),
    )
    tell(result, json_=json_, quiet=quiet)
    keep(result, Path(result.folder or out), fail_on)
    return 0 if report_only else result.exit_code(fail_on.value)


# Beside the run's own files, in the run's folder.
FOLDER = "gate"


BASELINE_EXAMPLES = (
    "tftpbench gate baseline baselines/main",
    "tftpbench gate baseline baselines/main --run results/today",
)

Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="N", callback=options.checked_seed,
        help="Order of trials and contents of files; the stored run's unless given.",
    ),
]  # fmt: skip


def baseline(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the stored run: the baseline.")],
    new: StoredRun = None,
    server: options.Servers = None,
    seed: Seed = None,
    out: RunFolder = None,
    fail_on: FailOnOption = FailOn.regressed,
    report_only: ReportOnly = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Compare a run, a new one or one that is stored, with an older stored run of the same scenario."""
    from tftpbench.gate.baseline import judge
    from tftpbench.gate.stored import baseline as opened
    from tftpbench.gate.stored import stored
    from tftpbench.model.errors import ResultsWarning

    if new is not None:
        refuse_beside_run("--server" if server else "", "--seed" if seed is not None else "", "--out" if out else "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)  # they are among the remarks
        base = opened(run)
        words = command("baseline", run, run=new, server=server or [], seed=seed, out=out, fail_on=fail_on)
        folder = new if new is not None else _again(base, server or [], seed, out or options.RESULTS, words, quiet)
        result = judge(base, stored(folder), words, str(folder / FOLDER))
    tell(result, json_=json_, quiet=quiet)
    keep(result, folder / FOLDER, fail_on)
    return 0 if report_only else result.exit_code(fail_on.value)


def _again(
    base: "Stored", servers: Sequence[str], seed: int | None, out: Path, words: Sequence[str], quiet: bool
) -> Path:
    """The stored run's scenario here and now; refused before anything is measured where the two could not be held."""
    from tftpbench import measure
    from tftpbench.gate.stored import refuse_here

    scenario = base.scenario.with_servers(servers) if servers else base.scenario
    refuse_here(base, [contender.name for contender in measure.contenders(scenario)])
    return measured(scenario, base.seed if seed is None else seed, out, words, quiet)


JUNIT, REPORT = "junit.xml", "report.md"


SLO_EXAMPLES = (
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
        output.keep_answer(of.run.path, rendered.text(answer, folder, repeat))
    if json_:
        output.print_json([{**summary.document(answer, folder, of.seed, of.run.rows), **_limits(judged)}])

    def text(out: Output) -> str:
        shown = rendered.text(answer, folder, repeat, colour=out.has_colour, width=out.width)
        return f"{visible_line(judged.sentence)}\n\n{shown}"

    output.print_text(text, json_=json_, quiet=quiet)


def _limits(judged: "Slo") -> dict[str, object]:
    """What the gate adds to a run's document, and judges more strictly."""
    thresholds = [limit.document for limit in judged.limits]
    return {"exit_code": judged.exit_code, "slo": judged.sentence, "thresholds": thresholds}


def _write(of: "Stored") -> None:
    """The run's reports for a CI server and for a pull request, in its folder."""
    from tftpbench.render.report import report

    output.keep(report(of.run, "junit"), of.run.path / JUNIT)
    output.keep(report(of.run, "md"), of.run.path / REPORT)
