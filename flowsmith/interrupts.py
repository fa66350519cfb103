"""Ctrl-C while a program is still importing."""

import os
import signal


def leave_on_interrupt() -> None:
    """Let Ctrl-C end the process with one line and code 130, until somebody else takes the signal over.

    Heavy libraries take seconds to import, and a KeyboardInterrupt among them is a page of their code. Nothing
    is under way yet, so nothing needs to be tidied up.
    """
    signal.signal(signal.SIGINT, _leave)


def _leave(*_: object) -> None:
    os.write(2, b"\nstopped by SIGINT; nothing was begun\n")
    os._exit(130)
