#!/usr/bin/env bash
# The steps of action.yml, tftpbench's regression gate as a GitHub Action: `action.sh install` builds tftpbench from this
# checkout into a virtual environment of its own, `action.sh gate` runs `tftpbench gate ab` and writes the outputs.
#
# Inputs come in by the environment (GATE_*, see action.yml), and it must never evaluate one. It needs RUNNER_TEMP and
# GITHUB_OUTPUT, as GitHub sets them, and ends with the gate's exit code.
set -euo pipefail

say() { # KIND TEXT: a line that GitHub shows on the job's page
  echo "::$1 title=tftpbench::$2"
}
refuse() { # TEXT: an input that can't be obeyed
  say error "$1"
  echo "exit-code=2" >> "$GITHUB_OUTPUT"
  exit 2
}
newest() { # the youngest gate's folder, whose name begins with the time
  local folders=("$GATE_OUT"/*-gate-*/)
  [ ! -d "${folders[-1]}" ] || printf '%s\n' "${folders[-1]%/}"
}
verdict_of() { # FILE: the verdict in a gate.json, if it is one
  "$RUNNER_TEMP/tftpbench/bin/python" -I -c '
import json, sys
allowed = ("regressed", "invalid", "suspected", "inconclusive", "pass", "improved")
with open(sys.argv[1], encoding="utf-8") as file:
    document = json.load(file)
verdict = document.get("verdict", document.get("word"))  # "word" in documents of schema 1
print(verdict if verdict in allowed else "")
' "$1"
}
install() {
  command -v cargo > /dev/null || {
    echo "::error title=tftpbench::it needs Rust to build its native core; GitHub's Ubuntu runners have it, see https://rustup.rs for others"
    exit 2
  }
  "$GATE_PYTHON" -m venv "$RUNNER_TEMP/tftpbench"
  "$RUNNER_TEMP/tftpbench/bin/python" -m pip install --quiet --disable-pip-version-check "$GITHUB_ACTION_PATH"
}
gate() {
  [ -n "$GATE_BASE" ] || refuse "the input base is empty; give it the server as it was"
  [ -n "$GATE_HEAD" ] || refuse "the input head is empty; give it the server as it would become"
  # A second line in the folder's name would be a second output.
  [[ -n "$GATE_OUT" && "$GATE_OUT" != *$'\n'* ]] || refuse "the input out is empty or more than one line; give it a folder"
  [[ "$GATE_MINUTES" =~ ^[1-9][0-9]{0,2}$ ]] || refuse "the input timeout-minutes is no number from 1 to 999"

  arguments=(gate ab "--base=$GATE_BASE" "--head=$GATE_HEAD" "--out=$GATE_OUT")
  [ -z "$GATE_AS" ] || arguments+=("--as=$GATE_AS")
  [ -z "$GATE_FAIL_ON" ] || arguments+=("--fail-on=$GATE_FAIL_ON")
  [ -z "$GATE_SEED" ] || arguments+=("--seed=$GATE_SEED")
  while IFS= read -r setting; do
    setting="${setting%$'\r'}"
    [[ "$setting" =~ ^[[:space:]]*$ ]] || arguments+=("--set=$setting")
  done <<< "$GATE_SETTINGS"
  case "$GATE_REPORT_ONLY" in
    true) arguments+=(--report-only) ;;
    false | "") ;;
    *) refuse "the input report-only is neither true nor false" ;;
  esac
  arguments+=(-- "${GATE_SCENARIO:-gate}")

  before="$(newest)"
  code=0
  # TERM first: the gate then stops both servers and keeps what it has.
  timeout --signal=TERM --kill-after=60s "${GATE_MINUTES}m" "$RUNNER_TEMP/tftpbench/bin/tftpbench" "${arguments[@]}" || code=$?
  folder="$(newest)"
  [ "$folder" != "$before" ] || folder=""
  report="" verdict=""
  [ -z "$folder" ] || [ ! -f "$folder/report.md" ] || report="$folder/report.md"
  [ -z "$folder" ] || [ ! -f "$folder/gate.json" ] || verdict="$(verdict_of "$folder/gate.json")" || verdict=""
  {
    echo "verdict=$verdict"
    echo "exit-code=$code"
    echo "report=$report"
    echo "folder=$folder"
  } >> "$GITHUB_OUTPUT"

  case "$code,$verdict" in
    0,pass | 0,improved) say notice "$verdict" ;;
    0,?*) say warning "$verdict: this lets the job pass; see the job's summary" ;;
    0,) say error "the gate left no verdict"; code=1 ;;
    124,*) say error "the gate was ended after $GATE_MINUTES minutes; raise timeout-minutes, or set fewer looks" ;;
    *,?*) say error "$verdict: see the job's summary" ;;
    *) say error "the gate could not judge (exit code $code); its last line says why" ;;
  esac
  exit "$code"
}

case "${1:-}" in
  install | gate) "$1" ;;
  *) echo "usage: action.sh install|gate" >&2; exit 2 ;;
esac
