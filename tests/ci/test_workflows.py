"""The GitHub workflows and the GitLab job: linted, held to action.yml, and their steps run with hostile artifacts."""

import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.ci.shell import ACTION, COMMENT, EXPRESSION, GITLAB, PULL_REQUEST, Ran, Shell, document, filled, steps
from tests.interop.clients import Gone, look
from tests.unit.gate import gate_results
from tftpbench.gate.result import Verdict
from tftpbench.render.gate import write_markdown

WORKFLOWS = [PULL_REQUEST, COMMENT]
SHA = "0123456789abcdef0123456789abcdef01234567"
LIMIT = 65_536
JOB = document(COMMENT)["jobs"]["comment"]
# Answers as the API does, from files in STUB_API; --jq is obeyed by the real jq, as gh obeys it.
GH_STUB = """
import shutil, subprocess
from pathlib import Path
api = Path(os.environ["STUB_API"])
words = sys.argv[1:]
path = next(word for word in words if word.startswith("repos/")).split("?")[0]
method = words[words.index("--method") + 1] if "--method" in words else "GET"
if path.endswith("/zip"):
    sys.stdout.buffer.write((api / "zip").read_bytes())
elif method != "GET":
    field = words[words.index("--field") + 1]
    shutil.copy(field.removeprefix("body=@"), api / "body")
else:
    expression = words[words.index("--jq") + 1]
    answer = api / path.rsplit("/", 1)[1]
    sys.exit(subprocess.run(["jq", "-r", expression, str(answer)]).returncode)
"""


class GitHub:
    """The comment workflow's surroundings: what the API answers, and what is sent to it."""

    def __init__(self, folder: Path) -> None:
        self.api = folder / "api"
        self.api.mkdir()
        self.shell = Shell(folder)
        self.shell.stub("gh", GH_STUB)
        self.answer("pulls", [{"number": 7, "head": {"sha": SHA}}])
        self.answer("artifacts", {"artifacts": [{"id": 11, "size_in_bytes": 9000}]})
        self.answer("comments", [])
        self.artifact(report="# report\n")

    def answer(self, name: str, content: object) -> None:
        (self.api / name).write_text(json.dumps(content), encoding="utf-8")

    def artifact(self, **files: str | bytes) -> None:
        """An archive with these files; `report` is report.md."""
        with zipfile.ZipFile(self.api / "zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(f"{name}.md", content)

    def run(self, name: str, number: str = "7", branch: str = "a/branch") -> Ran:
        event = "github.event.workflow_run."
        context = {
            "github.token": "secret",
            "github.repository": "owner/server",
            f"{event}id": "5",
            f"{event}html_url": "https://github.com/owner/server/actions/runs/5",
            f"{event}head_sha": SHA,
            f"{event}head_repository.owner.login": "someone",
            f"{event}head_branch": branch,
            "steps.find.outputs.number": number,
        }
        step = steps(COMMENT)[name]
        return self.shell.run(
            step["run"], {**filled({**JOB["env"], **step.get("env", {})}, context), "STUB_API": str(self.api)}
        )

    def comment(self) -> str:
        """What the whole way from the artifact to GitHub makes of a report."""
        for name in ("Fetch the report", "Write the comment"):
            ran = self.run(name)
            assert ran.code == 0, ran.text
        return (self.api / "body").read_text(encoding="utf-8")


@pytest.fixture
def github(tmp_path: Path) -> GitHub:
    if shutil.which("jq") is None:
        pytest.skip("jq is not here, which stands for gh's own; get it: apt install jq")
    return GitHub(tmp_path)


@pytest.fixture
def actionlint() -> str:
    found = look("actionlint")
    if isinstance(found, Gone):
        pytest.skip(found.reason)
    return str(found.path)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actionlint_finds_nothing(path: Path, actionlint: str) -> None:
    done = subprocess.run([actionlint, "-no-color", str(path)], stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_actionlint_would_find_something(tmp_path: Path, actionlint: str) -> None:
    broken = tmp_path / "workflow.yml"
    broken.write_text(PULL_REQUEST.read_text(encoding="utf-8").replace("runs-on:", "runs-where:"), encoding="utf-8")
    assert subprocess.run([actionlint, str(broken)], capture_output=True, check=False).returncode == 1


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_scripts_are_bash_without_expressions_in_them(path: Path) -> None:
    scripts = [step["run"] for step in steps(path).values() if "run" in step]
    assert scripts
    for script in scripts:
        assert "${{" not in script
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_only_actions_of_github_and_ours_are_used() -> None:
    used = {step["uses"].partition("@")[0] for path in WORKFLOWS for step in steps(path).values() if "uses" in step}
    assert used == {"actions/checkout", "actions/upload-artifact", "OWNER/tftpbench"}


def test_the_workflow_gives_the_action_inputs_that_it_has_and_reads_outputs_that_it_has() -> None:
    known, text = document(ACTION), PULL_REQUEST.read_text(encoding="utf-8")
    assert set(steps(PULL_REQUEST)["Gate"]["with"]) <= set(known["inputs"])
    commented = {line.split("#", 1)[1].split(":")[0].strip() for line in text.splitlines() if "#   " in line}
    assert {name for name in commented if name.isidentifier()} <= {*known["inputs"]}
    outputs = {found.partition("outputs.")[2].split(" ")[0] for found in EXPRESSION.findall(text) if "outputs" in found}
    assert outputs <= set(known["outputs"])
    assert outputs


def test_code_of_a_pull_request_gets_no_rights_and_no_token() -> None:
    known = document(PULL_REQUEST)
    assert "pull_request" in known[True]  # YAML's word for `on`
    assert "pull_request_target" not in PULL_REQUEST.read_text(encoding="utf-8")
    assert known["permissions"] == {"contents": "read"}
    assert "permissions" not in known["jobs"]["gate"]
    assert steps(PULL_REQUEST)["Check out the head"]["with"]["persist-credentials"] is False


def test_the_workflow_that_may_comment_touches_no_code_of_the_pull_request() -> None:
    known = document(COMMENT)
    assert known["permissions"] == {}
    assert JOB["permissions"] == {"actions": "read", "pull-requests": "write"}
    assert not [step["name"] for step in steps(COMMENT).values() if "uses" in step]
    scripts = "\n".join(step["run"] for step in steps(COMMENT).values())
    assert not [word for word in ("git ", "unzip", "extract", "make ") if word in scripts]


def test_the_second_workflow_follows_the_first_and_looks_for_what_it_leaves() -> None:
    first, second = document(PULL_REQUEST), document(COMMENT)
    assert second[True]["workflow_run"]["workflows"] == [first["name"]]
    name = steps(PULL_REQUEST)["Keep the report"]["with"]["name"]
    assert f"name={name} " in steps(COMMENT)["Fetch the report"]["run"]


def test_the_base_is_what_the_pull_request_would_be_merged_into(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    made = shell.run("""
        export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a
        git init --quiet --initial-branch=main head; cd head
        echo old > server; git add server; git commit --quiet -m one
        git checkout --quiet -b change; echo new > server; git commit --quiet -am two
        git checkout --quiet main; echo since > other; git add other; git commit --quiet -m three
        git merge --quiet --no-ff change -m merge
    """)
    assert made.code == 0, made.text
    ran = shell.run(steps(PULL_REQUEST)["Check out the base"]["run"])
    assert ran.code == 0, ran.text
    assert (shell.work / "base/server").read_text(encoding="utf-8") == "old\n"
    assert (shell.work / "base/other").read_text(encoding="utf-8") == "since\n"
    assert (shell.work / "head/server").read_text(encoding="utf-8") == "new\n"


def test_both_are_built_by_the_same_commands(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.stub("make")
    ran = shell.run(steps(PULL_REQUEST)["Build both"]["run"])
    base, head = ran.calls
    assert base == [word.replace("head", "base") for word in head] != head


def test_a_side_that_can_not_be_built_ends_the_job(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.stub("make", "sys.exit(2)")
    ran = shell.run(steps(PULL_REQUEST)["Build both"]["run"])
    assert (ran.code, len(ran.calls)) == (2, 1)


def test_packages_are_installed_without_a_question(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.stub("sudo")
    ran = shell.run(steps(PULL_REQUEST)["Install packages"]["run"])
    assert ran.code == 0
    assert {"--yes", "strace"} <= set(ran.calls[-1])


def test_the_pull_request_is_the_one_whose_head_was_measured(github: GitHub) -> None:
    ran = github.run("Find the pull request", branch="$(touch pwned) & `x`")
    assert ran.outputs == {"number": "7"}
    assert "head=someone:$(touch pwned) & `x`" in ran.calls[0]
    assert not (github.shell.work / "pwned").exists()


@pytest.mark.parametrize(
    "pulls",
    [
        [],
        [{"number": 7, "head": {"sha": "f" * 40}}],  # another push since
        [{"number": 7, "head": {"sha": SHA}}, {"number": 8, "head": {"sha": SHA}}],  # to two branches
    ],
    ids=["none", "another commit", "two"],
)
def test_where_it_is_not_clear_which_pull_request_nothing_is_said(github: GitHub, pulls: list[Any]) -> None:
    github.answer("pulls", pulls)
    ran = github.run("Find the pull request")
    assert (ran.code, ran.outputs) == (0, {})
    assert "::notice::no comment" in ran.text


@pytest.mark.parametrize("number", ["1; rm -rf x", "-1", "0", "7/../8", "1e9", ""])
def test_a_number_that_is_none_is_refused(github: GitHub, number: str) -> None:
    github.answer("pulls", [{"number": number, "head": {"sha": SHA}}])
    ran = github.run("Find the pull request")
    assert (ran.code, ran.outputs) == (1, {})
    assert "no number" in ran.text


def test_without_an_artifact_nothing_is_said(github: GitHub) -> None:
    github.answer("artifacts", {"artifacts": []})
    ran = github.run("Fetch the report")
    assert (ran.code, ran.outputs) == (0, {})
    assert "left no report" in ran.text


def test_a_large_artifact_is_not_fetched(github: GitHub) -> None:
    github.answer("artifacts", {"artifacts": [{"id": 11, "size_in_bytes": 20_000_001}]})
    ran = github.run("Fetch the report")
    assert (ran.code, ran.outputs, len(ran.calls)) == (1, {}, 1)


def test_the_report_is_posted_once_and_renewed_from_then_on(github: GitHub) -> None:
    assert github.comment().endswith("\n\n# report\n")
    mark = "<!-- tftpbench-gate -->"
    github.answer("comments", [
        {"id": 1, "user": {"login": "mallory"}, "body": f"{mark} mine"},
        {"id": 2, "user": {"login": "github-actions[bot]"}, "body": f"of another tool, {mark}"},
        {"id": 3, "user": {"login": "github-actions[bot]"}, "body": f"{mark} ours"},
    ])  # fmt: skip
    changes = [call for call in github.run("Write the comment").calls if "--method" in call]
    assert changes == [
        ["gh", "api", "--method", "PATCH", "repos/owner/server/issues/comments/3", "--field", "body=@comment.md"]
    ]


@pytest.mark.parametrize("text", ["x" * 1_000_000, "@" * 1_000_000, "💥" * 300_000, "<" * LIMIT])
def test_a_long_report_is_cut_to_what_github_takes(github: GitHub, text: str) -> None:
    github.artifact(report=text)
    body = github.comment()
    assert len(body) == LIMIT
    assert body.startswith("<!-- tftpbench-gate -->\n")
    assert "The rest is left out" in body[-100:]


def test_an_archive_that_would_fill_the_disk_is_read_no_further(github: GitHub) -> None:
    github.artifact(report=b"\0" * 50_000_000)
    assert len(github.comment()) == LIMIT
    assert max(path.stat().st_size for path in github.shell.work.iterdir()) < 200_000


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", b"PK\x05\x06" + b"\0" * 18],
    ids=["empty", "no archive", "archive of nothing"],
)
def test_an_artifact_without_a_report_is_refused_and_nothing_is_posted(github: GitHub, content: bytes) -> None:
    (github.api / "zip").write_bytes(content)
    github.run("Fetch the report")
    ran = github.run("Write the comment")
    assert ran.code == 1
    assert "no report.md that can be read" in ran.text
    assert not (github.api / "body").exists()


def test_nothing_else_of_an_archive_is_looked_at(github: GitHub) -> None:
    github.artifact(**{"report": "fine", "../../escaped": "x", "number": "1; rm -rf x"})
    assert github.comment().endswith("fine")
    assert sorted(path.name for path in github.shell.work.iterdir()) == [
        "artifact",
        "artifact.zip",
        "comment.md",
        "ids",
    ]


def test_a_hostile_report_calls_nobody_and_brings_no_html(github: GitHub) -> None:
    hostile = "@everyone (@team/x) é@you <img src=x> <!-- --> ![p](https://x) <details open> \x1b[31m \u202e\r\n<b>"
    github.artifact(report=hostile)
    text = github.comment().partition("\n\n")[2]
    assert "@" not in text
    assert "<" not in text
    assert "![" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text


@pytest.mark.parametrize("kind", [*Verdict, "failure", "no syscalls", "cells", "memory"])
def test_an_honest_report_stays_as_it_is(github: GitHub, kind: str) -> None:
    report = write_markdown(gate_results.every()[kind])
    github.artifact(report=report)
    assert github.comment().partition("\n\n")[2] == report


((GITLAB_NAME, GITLAB_JOB),) = document(GITLAB).items()
PROJECT = """
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a
git init --quiet --initial-branch=main .
echo old > server; git add server; git commit --quiet -m one; git tag one
echo new > server; git commit --quiet -am two; git tag two
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    prepared = made.run(PROJECT)
    assert prepared.code == 0, prepared.text
    made.stub("apt-get")
    made.stub("make", "sys.exit(int(os.environ.get('STUB_MAKE', '0')))")
    made.stub("tftpbench", "sys.exit(int(os.environ['STUB_CODE']))", made.work / ".tftpbench/bin")
    made.stub("pip", folder=made.work / ".tftpbench/bin")
    made.stub("python3")
    return made


def run(shell: Shell, **env: str) -> Ran:
    """The job as the runner runs it: one shell for all lines, which ends at the first that fails."""
    script = "\n".join([*GITLAB_JOB["before_script"], *GITLAB_JOB["script"]])
    known = {"CI_MERGE_REQUEST_DIFF_BASE_SHA": "one", "CI_COMMIT_SHA": "two", "STUB_CODE": "0"}
    return shell.run(script, {**GITLAB_JOB["variables"], **known, **env})


def test_it_runs_for_merge_requests_and_keeps_what_the_gate_leaves() -> None:
    assert GITLAB_JOB["rules"] == [{"if": '$CI_PIPELINE_SOURCE == "merge_request_event"'}]
    artifacts = GITLAB_JOB["artifacts"]
    assert artifacts["when"] == "always"
    (folder,) = artifacts["paths"]
    assert artifacts["reports"]["junit"] == f"{folder}*/junit.xml"
    assert f"--out {folder.rstrip('/')}" in GITLAB_JOB["script"][-1]
    assert set(GITLAB_JOB) <= {
        "stage",
        "rules",
        "image",
        "timeout",
        "interruptible",
        "variables",
        "before_script",
        "script",
        "artifacts",
    }
    # A line with a colon and a space would be a mapping.
    assert all(isinstance(line, str) for line in [*GITLAB_JOB["before_script"], *GITLAB_JOB["script"]])


def test_both_sides_are_checked_out_and_built_alike_and_held_against_each_other(shell: Shell) -> None:
    ran = run(shell)
    assert ran.code == 0, ran.text
    sides = {side: (shell.work / "gate" / side / "server").read_text(encoding="utf-8") for side in ("base", "head")}
    assert sides == {"base": "old\n", "head": "new\n"}
    base, head = (call for call in ran.calls if call[0] == "make")
    assert base == [word.replace("head", "base") for word in head] != head
    installed = next(call for call in ran.calls if call[0] == "pip")
    assert installed[-1] == GITLAB_JOB["variables"]["TFTPBENCH"]
    assert ran.calls[-1] == [
        "tftpbench",
        "gate",
        "ab",
        "--base",
        GITLAB_JOB["variables"]["TFTPD_BASE"],
        "--head",
        GITLAB_JOB["variables"]["TFTPD_HEAD"],
        "--out",
        "tftpbench-results",
    ]


def test_in_a_pipeline_of_the_merged_result_the_base_is_the_target_branch(shell: Shell) -> None:
    ran = run(shell, CI_MERGE_REQUEST_TARGET_BRANCH_SHA="two", CI_MERGE_REQUEST_DIFF_BASE_SHA="one")
    assert ran.code == 0, ran.text
    assert (shell.work / "gate/base/server").read_text(encoding="utf-8") == "new\n"


@pytest.mark.parametrize("code", [0, 2, 3, 4, 6])
def test_the_job_ends_as_the_gate_does(shell: Shell, code: int) -> None:
    assert run(shell, STUB_CODE=str(code)).code == code


def test_a_side_that_can_not_be_built_is_not_measured(shell: Shell) -> None:
    ran = run(shell, STUB_MAKE="2")
    assert ran.code == 2
    assert "tftpbench" not in {call[0] for call in ran.calls}


def test_a_runner_that_keeps_its_folder_can_run_it_again(shell: Shell) -> None:
    assert run(shell).code == 0
    shell.run("rm -rf gate")  # as GitLab does between jobs, with git clean
    assert run(shell).code == 0
