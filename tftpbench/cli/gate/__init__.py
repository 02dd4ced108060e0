"""``tftpbench gate``: is the head slower than the base? One file per command, as above it.

ab.py          two servers, measured now, in pairs
baseline.py    a run against a stored run
slo.py         a run against its scenario's thresholds
selftest.py    the gate's false-alarm rate on this machine, and what it catches
options.py     options that several of them have, the run that they judge, and what they do with what was found
watch.py       the display while a gate goes on
"""

import typer

from tftpbench.cli.gate import ab, baseline, selftest, slo
from tftpbench.cli.options import Group, add, epilog

app = typer.Typer(
    help="Compare two builds of a server and fail on a real regression.", rich_markup_mode=None, add_completion=False,
    no_args_is_help=True, cls=Group, epilog=epilog((ab.EXAMPLES[0], baseline.EXAMPLES[0])),
)  # fmt: skip
add(app, ab.ab, ab.EXAMPLES)
add(app, baseline.baseline, baseline.EXAMPLES)
add(app, slo.slo, slo.EXAMPLES)
add(app, selftest.selftest, selftest.EXAMPLES)
