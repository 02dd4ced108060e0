"""``tftpbench gate``: is the head slower than the base? Its commands, and what they share.

commands.py    what judges: two servers in pairs, a run against a stored run, a run against its scenario's thresholds
selftest.py    the gate's false-alarm rate on this machine, and what it catches
options.py     options that several have, the run that they judge, and what they do with what was found
watch.py       the display while a gate goes on
"""

import typer

from tftpbench.cli.gate import commands, selftest
from tftpbench.cli.options import Group, add, epilog

app = typer.Typer(
    help="Compare two builds of a server and fail on a real regression.", rich_markup_mode=None, add_completion=False,
    no_args_is_help=True, cls=Group, epilog=epilog((commands.AB_EXAMPLES[0], commands.BASELINE_EXAMPLES[0])),
)  # fmt: skip
add(app, commands.ab, commands.AB_EXAMPLES)
add(app, commands.baseline, commands.BASELINE_EXAMPLES)
add(app, commands.slo, commands.SLO_EXAMPLES)
add(app, selftest.selftest, selftest.EXAMPLES)
