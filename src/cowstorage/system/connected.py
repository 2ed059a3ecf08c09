"""Start a program that is connected to us by its standard input and output; sh can't give it a socket."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import Tuple


def start_connected(argv: Tuple[str, ...]) -> socket.socket:
    """Start a program and return the socket that is the other end of its standard input and output.

    Standard error, the session and the process group are ours, so that it asks for a password on our terminal.  It
    reads an end when we end, for whatever reason.  To be called before any thread is started.
    """
    ours, its = socket.socketpair()
    if os.fork():
        its.close()
        return ours
    try:
        os.dup2(its.fileno(), 0)
        os.dup2(its.fileno(), 1)
        # Python ignores it, and what is ignored stays ignored, signal(7).
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
    finally:
        os._exit(127)
