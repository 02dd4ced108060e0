"""The GitLab job: its rules and artifacts, and its script run with stubs."""

from pathlib import Path

import pytest

from tests.ci.shell import GITLAB, Ran, Shell, document

((NAME, JOB),) = document(GITLAB).items()
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
    script = "\n".join([*JOB["before_script"], *JOB["script"]])
    known = {"CI_MERGE_REQUEST_DIFF_BASE_SHA": "one", "CI_COMMIT_SHA": "two", "STUB_CODE": "0"}
    return shell.run(script, {**JOB["variables"], **known, **env})


def test_it_runs_for_merge_requests_and_keeps_what_the_gate_leaves() -> None:
    assert JOB["rules"] == [{"if": '$CI_PIPELINE_SOURCE == "merge_request_event"'}]
    artifacts = JOB["artifacts"]
    assert artifacts["when"] == "always"
    (folder,) = artifacts["paths"]
    assert artifacts["reports"]["junit"] == f"{folder}*/junit.xml"
    assert f"--out {folder.rstrip('/')}" in JOB["script"][-1]
    assert set(JOB) <= {"stage", "rules", "image", "timeout", "interruptible", "variables", "before_script", "script",
                        "artifacts"}  # fmt: skip
    # A line with a colon and a space would be a mapping.
    assert all(isinstance(line, str) for line in [*JOB["before_script"], *JOB["script"]])


def test_both_sides_are_checked_out_and_built_alike_and_held_against_each_other(shell: Shell) -> None:
    ran = run(shell)
    assert ran.code == 0, ran.text
    sides = {side: (shell.work / "gate" / side / "server").read_text(encoding="utf-8") for side in ("base", "head")}
    assert sides == {"base": "old\n", "head": "new\n"}
    base, head = (call for call in ran.calls if call[0] == "make")
    assert base == [word.replace("head", "base") for word in head] != head
    installed = next(call for call in ran.calls if call[0] == "pip")
    assert installed[-1] == JOB["variables"]["TFTPBENCH"]
    assert ran.calls[-1] == [
        "tftpbench", "gate", "ab", "--base", JOB["variables"]["TFTPD_BASE"], "--head", JOB["variables"]["TFTPD_HEAD"],
        "--out", "tftpbench-results",
    ]  # fmt: skip


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
