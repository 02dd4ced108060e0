"""Which signals end a command in order: as Ctrl-C does, with what is finished saved and nothing left behind.

It must never take from a user what was asked for with nohup(1).
"""

import signal

ENDING = (signal.SIGTERM, signal.SIGHUP)


def ending() -> tuple[signal.Signals, ...]:
    """SIGTERM and, unless it is ignored, SIGHUP: the terminal is gone."""
    return tuple(number for number in ENDING if number is signal.SIGTERM or not _is_ignored(number))


def interrupt_on_end() -> None:
    """From here on these signals raise KeyboardInterrupt."""
    for number in ending():
        signal.signal(number, signal.default_int_handler)


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN
