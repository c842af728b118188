"""The beginning of the ``holdfast`` command: what it is made of takes a moment to load, and Ctrl-C may come before.

Until there is something to be told of, a signal ends the process as it ends any other, without a traceback.
"""

from __future__ import annotations

import signal


def main() -> None:
    """The entry point of the ``holdfast`` script."""
    ours = (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )  # and not ignored, as whoever started it may wish
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from holdfast.cli.main import main as run

    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()
