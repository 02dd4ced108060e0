"""action.yml and action.sh: what they are made of, and what the steps do with whatever a workflow gives them."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.ci.shell import ACTION, ACTION_SCRIPT, EXPRESSION, Ran, Shell, document, filled, steps
from tests.unit.gate import gate_results
from tftpbench import cli
from tftpbench.gate.document import text as gate_text
from tftpbench.gate.result import Verdict

KNOWN = document(ACTION)
GATE, INSTALL = steps(ACTION)["Gate"], steps(ACTION)["Install tftpbench"]
SCRIPTS = [step["run"] for step in steps(ACTION).values() if "run" in step]
# Makes a folder as the gate does, if STUB_WORD says a verdict, and ends with STUB_CODE.
GATE_STUB = """
from pathlib import Path
out = Path(next(word for word in sys.argv if word.startswith("--out=")).removeprefix("--out="))
if "STUB_GATE" in os.environ:
    folder = out / "20260102T030405Z-gate-gate"
    folder.mkdir(parents=True)
    (folder / "report.md").write_text("# report")
    (folder / "gate.json").write_text(os.environ["STUB_GATE"])
sys.exit(int(os.environ["STUB_CODE"]))
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    installed = made.temp / "tftpbench/bin"
    made.stub("tftpbench", GATE_STUB, installed)
    made.program("python", (made.bin / "python3").read_text(encoding="utf-8"), installed)
    return made


def run_gate(shell: Shell, code: int = 0, document: str | None = None, **inputs: str) -> Ran:
    """The step with these inputs; names with _ for -. `document`: the gate.json that is left, None for no folder."""
    given = {"base": "old", "head": "new", **{name.replace("_", "-"): value for name, value in inputs.items()}}
    context = {f"inputs.{name}": given.get(name, facts.get("default", "")) for name, facts in KNOWN["inputs"].items()}
    stub = {"STUB_CODE": str(code), **({} if document is None else {"STUB_GATE": document})}
    return shell.call([str(ACTION_SCRIPT), "gate"], {**filled(GATE["env"], context), **stub})


def word(name: str) -> str:
    """A gate.json of this verdict, as small as may be."""
    return json.dumps({"schema": "tftpbench.gate/2", "verdict": name})


def test_it_is_a_composite_action_of_bash_steps_and_pinned_actions_of_github() -> None:
    assert KNOWN["runs"]["using"] == "composite"
    for step in KNOWN["runs"]["steps"]:
        # GitHub refuses a whole action for any key that it does not know: timeout-minutes is one.
        assert set(step) <= {"name", "id", "if", "shell", "env", "run", "uses", "with"}, step["name"]
        if "run" in step:
            assert step["shell"] == "bash", step["name"]
        else:
            owner, _, version = step["uses"].partition("@")
            assert owner.startswith("actions/"), step["name"]
            assert version.startswith("v"), step["name"]


def test_its_steps_call_the_script_beside_it(shell: Shell) -> None:
    action = shell.program("action.sh", "#!/bin/sh\necho called with $1\n", shell.work / "where the/action is")
    for step, argument in ((INSTALL, "install"), (GATE, "gate")):
        ran = shell.run(step["run"], {"GITHUB_ACTION_PATH": str(action.parent)})
        assert (ran.code, ran.text) == (0, f"called with {argument}\n")
    assert os.access(ACTION_SCRIPT, os.X_OK)
    assert shell.call([str(ACTION_SCRIPT), "other"]).code == 2


def test_no_expression_is_put_into_a_script() -> None:
    assert SCRIPTS
    for script in (*SCRIPTS, ACTION_SCRIPT.read_text(encoding="utf-8")):
        assert "${{" not in script


def test_every_input_is_described_and_used_and_every_reference_leads_to_something() -> None:
    text = ACTION.read_text(encoding="utf-8")
    referred = set(EXPRESSION.findall(text))
    assert {name for name in referred if name.startswith("inputs.")} == {f"inputs.{name}" for name in KNOWN["inputs"]}
    written = {f"steps.gate.outputs.{name}" for name in ("verdict", "exit-code", "report", "folder")}
    assert {value["value"].strip("${} ") for value in KNOWN["outputs"].values()} == written
    assert referred - {f"inputs.{name}" for name in KNOWN["inputs"]} == {*written, "steps.python.outputs.python-path"}
    for facts in (*KNOWN["inputs"].values(), *KNOWN["outputs"].values()):
        assert facts["description"]
        # Inputs are text: YAML's own true and 20 would arrive as something else in some runners.
        assert isinstance(facts.get("default", ""), str)


def test_bash_understands_it() -> None:
    subprocess.run(["bash", "-n", ACTION_SCRIPT], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not here; get it: apt install shellcheck")
def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(["shellcheck", ACTION_SCRIPT], text=True, stdout=subprocess.PIPE, check=False)
    assert done.stdout == ""


def test_tftpbench_is_installed_from_the_actions_own_checkout_apart_from_the_jobs_python(shell: Shell) -> None:
    venv = 'import shutil; shutil.copy(sys.argv[0], os.path.join(os.environ["RUNNER_TEMP"], "tftpbench/bin/python"))\n'
    python = shell.stub("own python", f"if 'venv' in sys.argv:\n    {venv}")
    shell.stub("cargo")
    env = filled(INSTALL["env"], {"steps.python.outputs.python-path": str(python)})
    ran = shell.call([str(ACTION_SCRIPT), "install"], {**env, "GITHUB_ACTION_PATH": "/where the/action is"})
    assert ran.code == 0, ran.text
    made, installed = ran.calls
    assert made[1:] == ["-m", "venv", str(shell.temp / "tftpbench")]
    assert installed[1:4] == ["-m", "pip", "install"]
    assert installed[-1] == "/where the/action is"


def test_without_rust_it_says_so(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(shell.bin))
    shell.program("bash", f'#!/bin/sh\nexec {shutil.which("bash", path="/bin:/usr/bin")} "$@"\n')
    ran = shell.call([str(ACTION_SCRIPT), "install"], {"GATE_PYTHON": "false", "GITHUB_ACTION_PATH": "."})
    assert ran.code == 2
    assert "needs Rust" in ran.text


def test_values_arrive_as_they_are(shell: Shell) -> None:
    evil = """./a b/$(touch pwned) '"`touch pwned`" --x {port} {root}; touch pwned"""
    ran = run_gate(
        shell, 0, word("pass"), base=evil, head="--head=x", scenario="-my scenario.yaml", seed="7",
        set="gate.budgets.data_pps=10 %\r\n\n   \nmatrix.concurrency=[1, 100]\n$(touch pwned)=1", fail_on="suspected",
        report_only="true", out="my results",
    )  # fmt: skip
    assert ran.code == 0, ran.text
    assert ran.calls == [[
        "tftpbench", "gate", "ab", f"--base={evil}", "--head=--head=x", "--out=my results", "--fail-on=suspected",
        "--seed=7", "--set=gate.budgets.data_pps=10 %", "--set=matrix.concurrency=[1, 100]", "--set=$(touch pwned)=1",
        "--report-only", "--", "-my scenario.yaml",
    ]]  # fmt: skip
    assert sorted(path.name for path in shell.work.iterdir()) == ["my results"]
    assert ran.outputs["folder"] == "my results/20260102T030405Z-gate-gate"


def test_what_is_left_out_is_not_passed_on(shell: Shell) -> None:
    ran = run_gate(shell, 0, word("pass"), fail_on="", scenario="", report_only="")
    assert ran.calls == [[
        "tftpbench", "gate", "ab", "--base=old", "--head=new", "--out=tftpbench-results", "--", "gate",
    ]]  # fmt: skip
    assert run_gate(shell, 0, **{"as": "my server.yaml"}).calls[0][6] == "--as=my server.yaml"


def test_the_command_line_understands_it(shell: Shell) -> None:
    (call,) = run_gate(
        shell, 0, word("pass"), set="trials=7", seed="1", report_only="true", **{"as": "epoll"}
    ).calls  # fmt: skip
    group: Any = typer.main.get_command(cli.app)
    for name in call[1:3]:
        with group.make_context("tftpbench", [name], resilient_parsing=True) as context:
            group = group.get_command(context, name)
        assert group is not None, name
    values = group.make_context("ab", call[3:]).params
    assert (values["base"], values["head"], values["scenario"]) == ("old", "new", "gate")


@pytest.mark.parametrize(
    ("code", "verdict", "level"),
    [
        (0, "pass", "notice"),
        (0, "improved", "notice"),
        (0, "suspected", "warning"),
        (0, "inconclusive", "warning"),
        (0, "regressed", "warning"),  # with report-only
        (3, "regressed", "error"),
        (3, "suspected", "error"),
        (4, "inconclusive", "error"),
        (6, "invalid", "error"),
    ],
)
def test_the_job_ends_as_the_gate_does_and_the_outputs_say_how(
    shell: Shell, code: int, verdict: str, level: str
) -> None:
    ran = run_gate(shell, code, word(verdict))
    folder = "tftpbench-results/20260102T030405Z-gate-gate"
    assert ran.code == code
    assert ran.outputs == {
        "verdict": verdict, "exit-code": str(code), "folder": folder, "report": f"{folder}/report.md",
    }  # fmt: skip
    assert f"::{level} title=tftpbench::{verdict}" in ran.text


@pytest.mark.parametrize("code", [1, 2, 5, 130])
def test_without_a_verdict_the_exit_code_is_the_message(shell: Shell, code: int) -> None:
    ran = run_gate(shell, code)
    assert ran.code == code
    assert ran.outputs == {"verdict": "", "exit-code": str(code), "folder": "", "report": ""}
    assert f"could not judge (exit code {code})" in ran.text


def test_success_without_a_verdict_is_none(shell: Shell) -> None:
    ran = run_gate(shell, 0)
    assert ran.code == 1
    assert "no verdict" in ran.text


def test_the_folder_of_an_earlier_gate_is_not_taken_for_this_ones(shell: Shell) -> None:
    earlier = shell.work / "tftpbench-results/20250102T030405Z-gate-gate"
    earlier.mkdir(parents=True)
    (earlier / "gate.json").write_text(word("pass"), encoding="utf-8")
    assert run_gate(shell, 2).outputs["folder"] == ""
    assert run_gate(shell, 3, word("regressed")).outputs["verdict"] == "regressed"


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1]", word("pass\nfolder=/etc"), word("::error::"), '{"verdict": ["pass"]}', "[" * 50_000],
    ids=range(7),
)
def test_a_document_that_is_none_gives_no_verdict(shell: Shell, content: str) -> None:
    ran = run_gate(shell, 3, content)
    assert ran.code == 3
    assert ran.outputs["verdict"] == ""
    assert ran.outputs["folder"].endswith("-gate-gate")


def test_a_document_of_either_schema_gives_its_verdict(shell: Shell) -> None:
    newer = json.dumps({"schema": "tftpbench.gate/2", "verdict": "pass"})
    assert run_gate(shell, 0, newer).outputs["verdict"] == "pass"
    (shell.work / "tftpbench-results").rename(shell.work / "before")
    assert run_gate(shell, 0, word("pass")).outputs["verdict"] == "pass"


@pytest.mark.parametrize("name", Verdict)
def test_the_verdict_is_found_in_a_real_document(shell: Shell, name: str) -> None:
    assert run_gate(shell, 0, gate_text(gate_results.every()[name])).outputs["verdict"] == name


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"base": ""}, "base is empty"),
        ({"head": ""}, "head is empty"),
        ({"out": ""}, "out is empty"),
        ({"out": "x\nfolder=/etc"}, "more than one line"),
        ({"timeout_minutes": "0"}, "timeout-minutes"),
        ({"timeout_minutes": "5; touch pwned"}, "timeout-minutes"),
        ({"report_only": "yes"}, "report-only"),
    ],
)
def test_an_input_that_can_not_be_obeyed_is_refused_in_one_line(
    shell: Shell, inputs: dict[str, str], said: str
) -> None:
    ran = run_gate(shell, 0, word("pass"), **inputs)
    assert (ran.code, ran.calls, ran.outputs) == (2, [], {"exit-code": "2"})
    (line,) = ran.text.splitlines()
    assert line.startswith("::error title=tftpbench::")
    assert said in line


def test_a_gate_that_does_not_end_is_ended(shell: Shell) -> None:
    shell.stub("timeout", "sys.exit(124)")
    ran = run_gate(shell, 0, timeout_minutes="3")
    assert ran.calls[0][1:4] == ["--signal=TERM", "--kill-after=60s", "3m"]
    assert (ran.code, ran.outputs["exit-code"]) == (124, "124")
    assert "ended after 3 minutes" in ran.text
