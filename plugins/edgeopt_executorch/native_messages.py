"""What the ExecuTorch runtime says past Python."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr

_ASIDES = ("[cpuinfo_utils.cpp", "[threadpool.cpp")
"""Lines about the processor, which the runtime writes at its first call whether that succeeds or not."""


@contextmanager
def native_messages() -> Iterator[Callable[[], str]]:
    """Within, what C++ code writes to the standard error is kept; yields a function that returns it so far.

    The ExecuTorch runtime says why a call failed only there: partly through Python's `sys.stderr`, partly past it. The
    redirection is the whole process's: keep the block short.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile("w+", errors="replace") as messages:

        def read() -> str:
            messages.flush()
            messages.seek(0)
            return "\n".join(line for line in messages.read().strip().splitlines() if not line.startswith(_ASIDES))

        os.dup2(messages.fileno(), 2)
        try:
            with redirect_stderr(messages):
                yield read
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
