"""Whether the one gate in a folder left what it should: `python -m tests.ci.gate_report DIR`, called by .ci/run.

It must never look at what the gate says.
"""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

from jsonschema import Draft202012Validator

from tftpbench.gate.document import load
from tftpbench.render.schema import json_schema


def check(out: Path) -> str:
    """The gate's sentence. Raises where a file is absent, or not as its format says."""
    [folder] = out.iterdir()
    result = load(folder)
    Draft202012Validator(json_schema("gate")).validate(json.loads((folder / "gate.json").read_text(encoding="utf-8")))
    assert (folder / "report.md").read_text(encoding="utf-8").startswith("**")
    suites = ET.fromstring((folder / "junit.xml").read_text(encoding="utf-8"))
    assert suites.findall(".//testcase")
    assert len((folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()) == len(result.pairs)
    return result.sentence


if __name__ == "__main__":
    sys.stdout.write(f"{check(Path(sys.argv[1]))}\n")
